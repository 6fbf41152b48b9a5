//! From the pictures to batches: which picture, where it is placed, what is said of it, at which
//! noise.
//!
//! Example `n` of a run depends on the settings, the pictures and `n` alone, so a run that goes on
//! needs no history.

use std::collections::HashMap;

use super::captions::shuffle_tags;
use super::config::Settings;
use super::draws::{Draws, Purpose};
use super::error::Result;
use super::folder::Found;
use super::listing::name;
use super::schedule::min_snr;
use super::step::{Batch, Models, Rates};
use super::transform::{Placement, Transform};
use super::words::Words;
use crate::concept::{PLACEHOLDER, with_words};
use crate::graph::Array;
use crate::picture::Picture;
use crate::pipeline::Pipeline;

/// Mean and deviation of latents `[height, width, channels]`.
pub type Distribution = (Vec<f32>, Vec<f32>);

/// Less of a mask's white than this at the latents' size is worth a word.
const LITTLE: f64 = 0.5;

/// What turns pictures of the run's size to latents.
pub trait Encode {
    /// The distribution of a picture's latents, scaled as the UNet takes them.
    ///
    /// # Errors
    /// Whatever the device meets.
    fn encode(&mut self, picture: &Picture) -> Result<Distribution>;
}

impl Encode for Pipeline {
    fn encode(&mut self, picture: &Picture) -> Result<Distribution> {
        let (mean, deviation) = self.latents_of(picture, None)?;
        Ok((mean.values().to_vec(), deviation.values().to_vec()))
    }
}

/// What a run learns from.
pub struct Examples {
    settings: Settings,
    draws: Draws,
    found: Vec<Found>,
    /// The pictures of an epoch: each as often as it has repeats.
    slots: Vec<usize>,
    transform: Transform,
    /// Height, width and channels of the latents.
    latent: [usize; 3],
    words: Words,
    /// The factor of the loss at each training step.
    factors: Vec<f32>,
    /// By picture and placement.
    encoded: HashMap<(usize, u64), Distribution>,
}

/// One example, but for its latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub picture: usize,
    pub placement: Placement,
    /// Placements that come again have a number, under which their latents are kept.
    variant: Option<u64>,
    pub caption: String,
    pub timestep: usize,
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
            draws: Draws::new(settings.seed),
            slots: found
                .iter()
                .enumerate()
                .flat_map(|(i, found)| std::iter::repeat_n(i, found.repeats))
                .collect(),
            found,
            transform,
            latent,
            words,
            factors: (0..count).map(factor).collect(),
            encoded: HashMap::new(),
        }
    }

    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.found.len()
    }

    /// Whether any mask leaves something out.
    pub fn masked(&self) -> bool {
        self.found.iter().any(|found| found.mask.is_some())
    }

    /// Captions that do not fit.
    ///
    /// # Errors
    /// Captions that cannot be tokenized.
    pub fn remarks(&self) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        for found in &self.found {
            if self.words.caption(&with_words(&found.caption, &self.settings.phrase()))?.cut {
                remarks.push(self.words.cut(&found.path));
            }
        }
        remarks.extend(self.thin_masks());
        Ok(remarks)
    }

    /// Masks of which little is left at the latents' size.
    fn thin_masks(&self) -> Vec<String> {
        let [height, width, _] = self.latent;
        let (mut gone, mut thin) = (Vec::new(), Vec::new());
        for found in &self.found {
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

    /// Example `n`: every picture once in an epoch, or as often as it has repeats, in an order of
    /// its own.
    pub fn example(&self, n: u64) -> Example {
        let count = self.slots.len().max(1) as u64;
        let order = self.draws.at(Purpose::Order, n / count).order(count as usize);
        let picture = order
            .get((n % count) as usize)
            .and_then(|slot| self.slots.get(*slot))
            .copied()
            .unwrap_or(0);
        let (width, height) = self
            .found
            .get(picture)
            .map_or((1, 1), |f| (f.picture.width() as usize, f.picture.height() as usize));
        let variants = match self.settings.variants {
            _ if self.transform.is_fixed(width, height) => 1,
            variants => variants,
        };
        // Placements that come again are numbered by picture, all others by example.
        let variant =
            (variants > 0).then(|| self.draws.at(Purpose::Variant, n).below(variants) as u64);
        let index = variant.map_or(n, |variant| picture as u64 + (variant + 1) * (1 << 40));
        let placement =
            self.transform.place(width, height, &mut self.draws.at(Purpose::Placement, index));
        let timestep = self.draws.at(Purpose::Timestep, n).below(self.factors.len());
        Example { picture, placement, variant, caption: self.caption(picture, n), timestep }
    }

    fn caption(&self, picture: usize, n: u64) -> String {
        let settings = &self.settings;
        let written = self.found.get(picture).map_or(PLACEHOLDER, |found| found.caption.as_str());
        let phrase = settings.phrase();
        let mut caption = with_words(written, &phrase);
        if settings.shuffle_tags {
            caption =
                shuffle_tags(&caption, settings.keep_tags, &mut self.draws.at(Purpose::Tags, n));
        }
        if settings.template_sentences || caption.starts_with(&phrase) {
            caption = settings.templates.apply(&caption, &mut self.draws.at(Purpose::Template, n));
        }
        caption
    }

    /// Batch number `number` of the run, counting all of an accumulation.
    ///
    /// # Errors
    /// Captions that cannot be tokenized; whatever encoding meets.
    pub fn batch(&mut self, number: u64, rates: Rates, encoder: &mut dyn Encode) -> Result<Batch> {
        let [height, width, channels] = self.latent;
        let (count, pixels) = (self.settings.batch, height * width);
        let (mut latents, mut noise, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (mut timesteps, mut factors) = (Vec::new(), Vec::new());
        let (mut loss_mask, mut subject_mask) = (Vec::new(), Vec::new());
        for n in (0..count as u64).map(|i| number * count as u64 + i) {
            let example = self.example(n);
            let gaussian = self.draws.at(Purpose::Latents, n).normal(pixels * channels);
            let (mean, deviation) = self.latents(&example, encoder)?;
            latents.extend(
                mean.iter()
                    .zip(deviation)
                    .zip(&gaussian)
                    .map(|((mean, deviation), g)| mean + deviation * g),
            );
            noise.extend(self.noise(n, pixels, channels));
            ids.extend(self.words.caption(&example.caption)?.ids);
            timesteps.push(example.timestep);
            factors.push(self.factors.get(example.timestep).copied().unwrap_or(1.0));
            let found = self.found.get(example.picture);
            let size =
                found.map_or([1, 1], |f| [f.picture.width() as usize, f.picture.height() as usize]);
            let shown = example.placement.mask(None, size, height, width);
            let subject = match found.and_then(|found| found.mask.as_ref()) {
                Some(mask) => example.placement.mask(Some(mask), size, height, width),
                // No mask is the whole picture, and its ground too: there is nothing outside.
                None => vec![1.0; pixels],
            };
            // A cut may leave nothing of the subject; then all that is shown counts.
            let use_subject =
                self.settings.mask_loss && subject.iter().zip(&shown).any(|(a, b)| a * b > 0.0);
            let rest = if use_subject { self.settings.unmasked_weight } else { 1.0 };
            loss_mask.extend(
                shown
                    .iter()
                    .zip(&subject)
                    .map(|(shown, subject)| shown * (subject + rest * (1.0 - subject))),
            );
            subject_mask.extend(subject);
        }
        let copies = ids.len() / (count * self.words.length()).max(1);
        let shape = [count, height, width, channels];
        Ok(Batch {
            latents: Array::f32(shape, latents),
            noise: Array::f32(shape, noise),
            timesteps,
            ids: Array::u32([count, copies, self.words.length()], ids),
            factors,
            loss_mask: Array::f32([count, height, width], loss_mask),
            subject_mask: Some(Array::f32([count, height, width], subject_mask)),
            rates,
        })
    }

    /// Noise of example `n`, with what all of a channel share.
    fn noise(&self, n: u64, pixels: usize, channels: usize) -> Vec<f32> {
        let mut noise = self.draws.at(Purpose::Noise, n).normal(pixels * channels);
        let offset = self.settings.noise_offset;
        if offset > 0.0 {
            let shared = self.draws.at(Purpose::NoiseOffset, n).normal(channels);
            for pixel in noise.chunks_exact_mut(channels.max(1)) {
                pixel.iter_mut().zip(&shared).for_each(|(value, shared)| *value += offset * shared);
            }
        }
        noise
    }

    fn latents(&mut self, example: &Example, encoder: &mut dyn Encode) -> Result<Distribution> {
        let Some(found) = self.found.get(example.picture) else { return Ok(Default::default()) };
        let key = example.variant.map(|variant| (example.picture, variant));
        if let Some(kept) = key.and_then(|key| self.encoded.get(&key)) {
            return Ok(kept.clone());
        }
        let encoded = encoder.encode(&example.placement.picture(&found.picture)?)?;
        if let Some(key) = key {
            self.encoded.insert(key, encoded.clone());
        }
        Ok(encoded)
    }
}

#[cfg(test)]
#[path = "examples_tests.rs"]
mod tests;
