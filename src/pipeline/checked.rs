//! A request's options, checked: sizes, sampler, pictures, before anything is planned.

use crate::picture::{Doubt, Mask, Picture, Scaling};
use crate::scheduler::sampler::{self, PlanOptions, SamplerKind};

use super::error::{Result, option};
use super::{Compose, MOST_PICTURES, Pipeline, Request};

/// A request's options, checked, and what they come to but for the device.
pub(super) struct CheckedRequest {
    pub width: usize,
    pub height: usize,
    /// Of the latents: height, width.
    pub size: [usize; 2],
    pub sampler: SamplerKind,
    pub plan: sampler::SamplingPlan,
    /// Of the size of the pictures to be made.
    pub image: Option<Picture>,
    /// Of the latents' size, 1 where `image` is painted anew.
    pub mask: Option<Mask>,
    /// The same of the pictures' size.
    pub mask_of_picture: Option<Mask>,
    pub warnings: Vec<String>,
}

/// Less of a mask's white than this in cells that are painted is worth a word.
const LITTLE: f64 = 0.5;

/// Whether a picture of `from` (width, height) changes its proportions as it becomes `to`, by more
/// than a hundredth and `slack` pixels.
fn is_stretched(from: (u32, u32), to: (usize, usize), slack: usize) -> bool {
    let (width, height) = (from.0 as usize, from.1 as usize);
    // The width that would go with the height.
    let fitting = (width * to.1) as f64 / height.max(1) as f64;
    (fitting - to.0 as f64).abs() > (fitting / 100.0).max(slack as f64)
}

impl Pipeline {
    /// Checks the options, and plans the sampler's run.
    pub(super) fn checked(&self, request: &Request) -> Result<CheckedRequest> {
        let factor = self.factor();
        let mut warnings = Vec::new();
        let (default_width, default_height) = match &request.image {
            Some(image) => {
                let below = |side: u32| (side as usize / factor * factor).max(factor);
                (below(image.width()), below(image.height()))
            }
            None => self.default_size(),
        };
        let (width, height) =
            (request.width.unwrap_or(default_width), request.height.unwrap_or(default_height));
        let size = self.latent_size(width, height)?;
        if !(1..=MOST_PICTURES).contains(&request.batch) {
            return Err(option("batch", request.batch, format!("1 to {MOST_PICTURES} pictures")));
        }
        if !self.model.is_xl() && (request.original_size.is_some() || request.crop.is_some()) {
            warnings.push(
                "the original's size and cut are told to no model but Stable Diffusion XL: they \
                    are left out"
                    .to_string(),
            );
        }
        if !request.guidance.is_finite() {
            return Err(option("guidance", request.guidance, "a number"));
        }
        if !(0.0..=1.0).contains(&request.guidance_rescale) {
            return Err(option("guidance rescale", request.guidance_rescale, "0 to 1"));
        }
        let [from, until] = request.guidance_interval;
        if !(0.0..1.0).contains(&from) || until <= from || until > 1.0 {
            return Err(option(
                "guidance from and until",
                format!("{from} to {until}"),
                "parts of the steps from 0 to 1, the start before the end",
            ));
        }
        if request.cache == 0 {
            return Err(option("cache", 0, "1 step or more"));
        }
        if request.cache > 1 && !request.controls.is_empty() {
            return Err(option("cache", request.cache, "1 beside networks that steer the picture"));
        }
        if request.compose != Compose::Together {
            if request.cache > 1 {
                return Err(option("compose", request.compose, "together, beside cached layers"));
            }
            if !request.regions.regions.is_empty() {
                let expected = "together, beside regions: there each LoRA has a place of its own";
                return Err(option("compose", request.compose, expected));
            }
        }
        if request.mask.is_some() && request.image.is_none() {
            return Err(option(
                "mask",
                "given without a picture",
                "an initial picture to paint in",
            ));
        }
        if let Some(doubt) = request.mask.as_ref().and_then(|mask| mask.doubt(true)) {
            let so = match doubt {
                Doubt::Transparent => "",
                Doubt::White => ": all of the picture is painted anew",
                Doubt::Black => ": nothing is painted anew",
            };
            warnings.push(format!("the mask {doubt}{so}"));
        }
        if request.from_latents.is_some() && request.image.is_some() {
            return Err(option("latents to go on from", "given beside a picture", "one of them"));
        }
        if request.preview == Some(0) {
            return Err(option("preview", 0, "every step or every so many"));
        }
        for latents in request.latents.iter().chain(&request.from_latents) {
            let expected = [request.batch, size[0], size[1], self.latent_channels()];
            if latents.shape[..] != expected || latents.values().len() != latents.shape.elements() {
                let [batch, height, width, channels] = expected;
                // As files have them.
                let found = match latents.shape[..] {
                    [batch, height, width, channels] => vec![batch, channels, height, width],
                    ref other => other.to_vec(),
                };
                let first = match request.hires {
                    Some(_) => ", of the first pass, before --hires enlarges it",
                    None => "",
                };
                let expected = [batch, channels, height, width];
                return Err(option(
                    "latents",
                    format!("{found:?}"),
                    format!("{expected:?} (batch, channels, height, width){first}"),
                ));
            }
            if latents.values().iter().any(|v| !v.is_finite()) {
                return Err(option("latents", "not finite throughout", "numbers"));
            }
        }
        let sampler = match request.sampler {
            Some(sampler) => sampler,
            None => {
                let (sampler, note) = SamplerKind::of_model(&self.model.scheduler)?;
                warnings.extend(note);
                sampler
            }
        };
        let options = PlanOptions {
            steps: request.steps,
            schedule: request.schedule,
            eta: request.eta,
            strength: (request.image.is_some() || request.from_latents.is_some())
                .then_some(request.strength),
        };
        let plan = sampler::plan(sampler, &self.model.scheduler, &options)?;
        if let Some(image) = &request.image {
            let from = (image.width(), image.height());
            // Sides are rounded down to what the model has.
            if is_stretched(from, (width, height), factor) {
                warnings.push(format!(
                    "the initial picture of {} x {} is stretched to {width} x {height}",
                    from.0, from.1
                ));
            }
        }
        let image = request
            .image
            .as_ref()
            .map(|image| image.resized(width as u32, height as u32))
            .transpose()?;
        let masks = request
            .mask
            .as_ref()
            .map(|mask| Self::mask(request, mask, (width, height), size, &mut warnings))
            .transpose()?;
        let (mask_of_picture, mask) = masks.unzip();
        Ok(CheckedRequest {
            width,
            height,
            size,
            sampler,
            plan,
            image,
            mask,
            mask_of_picture,
            warnings,
        })
    }

    /// The mask at the picture's size and at the latents', as diffusers makes them: the second is
    /// the first's value at the nearest place.
    fn mask(
        request: &Request,
        mask: &Mask,
        (width, height): (usize, usize),
        size: [usize; 2],
        warnings: &mut Vec<String>,
    ) -> Result<(Mask, Mask)> {
        let from = (mask.width(), mask.height());
        let image = request.image.as_ref().map(|image| (image.width(), image.height()));
        if let Some(image) = image
            && is_stretched(from, (image.0 as usize, image.1 as usize), 0)
        {
            warnings.push(format!(
                "the mask of {} x {} is stretched over the picture of {} x {}, which has other \
                    proportions",
                from.0, from.1, image.0, image.1
            ));
        }
        let fitted = mask.resized(width as u32, height as u32, Scaling::Nearest)?.binarized(0.5);
        let cells = fitted.resized(size[1] as u32, size[0] as u32, Scaling::Nearest)?;
        match mask.seen(&cells) {
            _ if mask.doubt(true).is_some() => {}
            _ if cells.values().iter().all(|value| *value < 0.5) => warnings.push(format!(
                "what is white in the mask is too thin for the {} x {} cells that are painted: \
                    nothing is painted anew",
                size[1], size[0]
            )),
            Some(seen) if seen < LITTLE => warnings.push(format!(
                "what is white in the mask is thin for the {} x {} cells that are painted: {:.0} % \
                    of it is painted anew",
                size[1],
                size[0],
                seen * 100.0
            )),
            _ => {}
        }
        Ok((fitted, cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_no_stretching() {
        let is = |from, to| is_stretched(from, to, 8);
        assert!(!is((512, 768), (512, 768)) && !is((1024, 1536), (512, 768)));
        assert!(!is((519, 775), (512, 768)) && !is((100, 71), (96, 64)));
        assert!(is((512, 768), (512, 512)) && is((640, 480), (512, 512)));
    }
}
