//! A request's options, checked: sizes, sampler, pictures, before anything is planned.

use crate::picture::{Doubt, Picture};
use crate::scheduler::sampler::{self, PlanOptions, SamplerKind};

use super::error::{Result, option};
use super::{MOST_PICTURES, Pipeline, Request};

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
    pub warnings: Vec<String>,
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
        if !request.guidance.is_finite() {
            return Err(option("guidance", request.guidance, "a number"));
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
        if let Some(latents) = &request.latents {
            let expected = [request.batch, size[0], size[1], self.latent_channels()];
            if latents.shape[..] != expected || latents.values().len() != latents.shape.elements() {
                return Err(option(
                    "latents",
                    &latents.shape,
                    format!("{expected:?} (batch, height, width, channels)"),
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
            karras: request.karras,
            eta: request.eta as f32,
            strength: request.image.as_ref().map(|_| request.strength),
        };
        let plan = sampler::plan(sampler, &self.model.scheduler, &options)?;
        let image = request
            .image
            .as_ref()
            .map(|image| image.resized(width as u32, height as u32))
            .transpose()?;
        Ok(CheckedRequest { width, height, size, sampler, plan, image, warnings })
    }
}
