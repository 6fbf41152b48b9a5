//! From pictures to batches.

use super::config::Settings;
use super::error::Result;
use super::folder::Found;
use super::listing::name;
use super::pool::{Encode, Pool};
use super::schedule::min_snr;
use super::step::{Batch, Models, Rates, SecondText};
use super::transform::Transform;
use super::words::Words;
use crate::graph::Array;
use crate::models::unet::SizeNumbers;

/// Less of a mask's white than this at the latents' size is worth a word.
const LITTLE: f64 = 0.5;

/// What a run learns from.
pub struct Examples {
    settings: Settings,
    concept: Pool,
    /// Pictures of its class, as many of them in each batch as of the concept's.
    class: Option<Pool>,
    transform: Transform,
    /// Height, width and channels of the latents.
    latent: [usize; 3],
    words: Words,
    /// The factor of the loss at each training step.
    factors: Vec<f32>,
}

/// The parts of a batch so far, one picture behind the other.
#[derive(Default)]
struct Parts {
    latents: Vec<f32>,
    noise: Vec<f32>,
    ids: Vec<u32>,
    /// Of the second text encoder.
    second: Vec<u32>,
    ends: Vec<usize>,
    sizes: Vec<SizeNumbers>,
    timesteps: Vec<usize>,
    factors: Vec<f32>,
    loss_mask: Vec<f32>,
    subject_mask: Vec<f32>,
}

impl Examples {
    /// `transform` makes pictures of the run's size, whose latents have `latent` height, width and
    /// channels.
    pub fn new(
        settings: &Settings,
        found: Vec<Found>,
        transform: Transform,
        latent: [usize; 3],
        words: Words,
        models: &Models,
    ) -> Examples {
        let count = models.schedule.alphas_cumprod().len();
        let factor = |t: usize| match (settings.min_snr, models.schedule.snr(t)) {
            (Some(gamma), Some(snr)) => min_snr(snr, gamma, models.prediction),
            _ => 1.0,
        };
        Examples {
            settings: settings.clone(),
            concept: Pool::of_concept(settings, found, transform, count),
            class: None,
            transform,
            latent,
            words,
            factors: (0..count).map(factor).collect(),
        }
    }

    /// Pictures of the class, to be learnt from beside the concept's.
    pub fn add_class(&mut self, found: Vec<Found>) {
        let timesteps = self.factors.len();
        self.class = Some(Pool::of_class(&self.settings, found, self.transform, timesteps));
    }

    /// Number of pictures of the concept.
    pub fn pictures(&self) -> usize {
        self.concept.found().len()
    }

    /// Captions of the concept's pictures, and how often each comes in an epoch.
    pub fn captions(&self) -> Vec<(&str, usize)> {
        self.concept.found().iter().map(|found| (found.caption.as_str(), found.repeats)).collect()
    }

    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Captions that do not fit.
    ///
    /// # Errors
    /// Captions that cannot be tokenized.
    pub fn remarks(&self) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        for pool in [Some(&self.concept), self.class.as_ref()].into_iter().flatten() {
            for found in pool.found() {
                if self.words.caption(&pool.written(found))?.cut {
                    remarks.push(self.words.cut(&found.path));
                }
            }
        }
        remarks.extend(self.thin_masks());
        Ok(remarks)
    }

    /// Masks of which little is left at the latents' size.
    fn thin_masks(&self) -> Vec<String> {
        let [height, width, _] = self.latent;
        let (mut gone, mut thin) = (Vec::new(), Vec::new());
        for found in self.concept.found() {
            let Some(mask) = &found.mask else { continue };
            let size = [found.picture.width() as usize, found.picture.height() as usize];
            let placement = self.transform.whole(size[0], size[1]);
            let cells = placement.mask(Some(mask), size, height, width);
            let seen = cells.iter().filter(|cell| **cell > 0.0).count() as f64
                / (cells.len().max(1) as f64);
            let white = mask.values().iter().filter(|value| **value >= 0.5).count() as f64
                / (mask.values().len().max(1) as f64);
            if seen == 0.0 && white > 0.0 {
                gone.push(name(&found.path));
            } else if seen < white * placement.share() * LITTLE {
                thin.push(name(&found.path));
            }
        }
        let told = |names: Vec<String>, what: &str| {
            (!names.is_empty()).then(|| {
                format!(
                    "what is white in the mask of each of these is too thin for the {width} x \
                        {height} cells that are learnt from, and {what}: {}",
                    names.join(", ")
                )
            })
        };
        let gone = told(gone, "vanishes, so that all of the picture counts");
        gone.into_iter().chain(told(thin, "less than half of it counts")).collect()
    }

    /// Batch number `number` of the run, counting all of an accumulation. Pictures of the class
    /// stand behind the concept's.
    ///
    /// # Errors
    /// Captions that cannot be tokenized; whatever encoding meets.
    pub fn batch(&mut self, number: u64, rates: Rates, encoder: &mut dyn Encode) -> Result<Batch> {
        let [height, width, channels] = self.latent;
        let (count, mut parts) = (self.settings.batch as u64, Parts::default());
        for pool in [Some(&mut self.concept), self.class.as_mut()].into_iter().flatten() {
            for n in (0..count).map(|i| number * count + i) {
                let example = pool.example(n);
                parts.latents.extend(pool.latents(n, &example, encoder)?);
                parts.noise.extend(pool.noise(n, height * width, channels));
                let caption = self.words.caption(&example.caption)?;
                parts.ids.extend(caption.ids);
                if let Some((ids, end)) = caption.second {
                    parts.second.extend(ids);
                    parts.ends.push(end);
                }
                parts.timesteps.push(example.timestep);
                parts.factors.push(self.factors.get(example.timestep).copied().unwrap_or(1.0));
                let found = pool.found().get(example.picture);
                let size = found
                    .map_or([1, 1], |f| [f.picture.width() as usize, f.picture.height() as usize]);
                let original = found.map_or(size, |found| found.original);
                parts.sizes.push(example.placement.sizes(original));
                let shown = example.placement.mask(None, size, height, width);
                let subject = match found.and_then(|found| found.mask.as_ref()) {
                    Some(mask) => example.placement.mask(Some(mask), size, height, width),
                    // No mask is the whole picture, and its ground too: there is nothing outside.
                    None => vec![1.0; height * width],
                };
                // A cut may leave nothing of the subject; then all that is shown counts.
                let use_subject =
                    self.settings.mask_loss && subject.iter().zip(&shown).any(|(a, b)| a * b > 0.0);
                let rest = if use_subject { self.settings.unmasked_weight } else { 1.0 };
                parts.loss_mask.extend(
                    shown
                        .iter()
                        .zip(&subject)
                        .map(|(shown, subject)| shown * (subject + rest * (1.0 - subject))),
                );
                parts.subject_mask.extend(subject);
            }
        }
        let count = parts.timesteps.len();
        let copies = parts.ids.len() / (count * self.words.length()).max(1);
        let shape = [count, height, width, channels];
        let all = [count, copies, self.words.length()];
        let second = (!parts.second.is_empty()).then(|| SecondText {
            ids: Array::u32(all, parts.second),
            ends: parts.ends,
            sizes: parts.sizes,
        });
        Ok(Batch {
            latents: Array::f32(shape, parts.latents),
            noise: Array::f32(shape, parts.noise),
            timesteps: parts.timesteps,
            ids: Array::u32(all, parts.ids),
            second,
            factors: parts.factors,
            loss_mask: Array::f32([count, height, width], parts.loss_mask),
            subject_mask: Some(Array::f32([count, height, width], parts.subject_mask)),
            seed: self.settings.seed,
            number,
            rates,
        })
    }
}

#[cfg(test)]
#[path = "examples_tests.rs"]
mod tests;
