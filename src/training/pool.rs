//! Pictures that examples are drawn from: which of them, where it is placed, what is said of it, at
//! which noise.
//!
//! Example `n` depends on the settings, the pictures and `n` alone, so a run that goes on needs no
//! history.

use std::collections::HashMap;

use super::captions::{Templates, shuffle_tags};
use super::config::Settings;
use super::draws::{Draws, Purpose};
use super::error::Result;
use super::folder::Found;
use super::transform::{Placement, Transform};
use crate::concept::{PLACEHOLDER, with_words};
use crate::picture::Picture;
use crate::pipeline::Pipeline;

/// Mean and deviation of latents `[height, width, channels]`.
pub type Distribution = (Vec<f32>, Vec<f32>);

/// What turns pictures of the run's size to latents.
pub trait Encode {
    /// The distribution of a picture's latents, scaled as the UNet takes them.
    ///
    /// # Errors
    /// Whatever the device meets.
    fn encode(&mut self, picture: &Picture) -> Result<Distribution>;
}

/// A pipeline's autoencoder.
pub struct Encoding<'a> {
    pub pipeline: &'a mut Pipeline,
    /// Of the tiles, in pixels; none: as a whole where it fits.
    pub tile: Option<usize>,
}

impl Encode for Encoding<'_> {
    fn encode(&mut self, picture: &Picture) -> Result<Distribution> {
        let (mean, deviation) = self.pipeline.latents_of(picture, self.tile)?;
        Ok((mean.values().to_vec(), deviation.values().to_vec()))
    }
}

/// What is done with captions.
#[derive(Clone, Debug, Default)]
struct Wording {
    /// What stands for [`PLACEHOLDER`]; empty: captions are left as they are.
    phrase: String,
    templates: Templates,
    /// Sentences get a template too.
    all: bool,
    /// Tags that keep their place; none: all do.
    keep_tags: Option<usize>,
}

/// One example, but for its latents and noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub picture: usize,
    pub placement: Placement,
    /// Placements that come again have a number, under which their latents are kept.
    variant: Option<u64>,
    pub caption: String,
    pub timestep: usize,
}

/// Pictures with what is drawn for each.
pub struct Pool {
    draws: Draws,
    found: Vec<Found>,
    /// The pictures of an epoch: each as often as it has repeats.
    slots: Vec<usize>,
    transform: Transform,
    variants: usize,
    wording: Wording,
    noise_offset: f32,
    /// Training steps of the model.
    timesteps: usize,
    /// By picture and placement.
    encoded: HashMap<(usize, u64), Distribution>,
}

impl Pool {
    /// The concept's pictures.
    pub fn of_concept(
        settings: &Settings,
        found: Vec<Found>,
        transform: Transform,
        timesteps: usize,
    ) -> Pool {
        let wording = Wording::of(settings, settings.phrase());
        Pool::new(settings, Draws::new(settings.seed), found, transform, wording, timesteps)
    }

    /// Pictures of its class, drawn by numbers of their own. They fill the picture, and those that
    /// the model made keep the very captions that they were made from.
    pub fn of_class(
        settings: &Settings,
        found: Vec<Found>,
        transform: Transform,
        timesteps: usize,
    ) -> Pool {
        let transform = Transform { crop: 1.0, scale: [1.0, 1.0], ..transform };
        let wording = match settings.prior_folder {
            Some(_) => Wording::of(settings, class_phrase(settings)),
            None => Wording::default(),
        };
        Pool::new(settings, Draws::of_class(settings.seed), found, transform, wording, timesteps)
    }

    fn new(
        settings: &Settings,
        draws: Draws,
        found: Vec<Found>,
        transform: Transform,
        wording: Wording,
        timesteps: usize,
    ) -> Pool {
        Pool {
            draws,
            slots: slots(&found),
            found,
            transform,
            variants: settings.variants,
            wording,
            noise_offset: settings.noise_offset,
            timesteps,
            encoded: HashMap::new(),
        }
    }

    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// A picture's caption with its words, before anything is drawn.
    pub fn written(&self, found: &Found) -> String {
        with_words(&found.caption, &self.wording.phrase)
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
        let variants = match self.variants {
            _ if self.transform.is_fixed(width, height) => 1,
            variants => variants,
        };
        // Placements that come again are numbered by picture, all others by example.
        let variant =
            (variants > 0).then(|| self.draws.at(Purpose::Variant, n).below(variants) as u64);
        let index = variant.map_or(n, |variant| picture as u64 + (variant + 1) * (1 << 40));
        let placement =
            self.transform.place(width, height, &mut self.draws.at(Purpose::Placement, index));
        let timestep = self.draws.at(Purpose::Timestep, n).below(self.timesteps);
        let written = self.found.get(picture).map_or(PLACEHOLDER, |found| found.caption.as_str());
        let caption = self.wording.drawn(written, &self.draws, n);
        Example { picture, placement, variant, caption, timestep }
    }

    /// Noise of example `n`, with what all of a channel share.
    pub fn noise(&self, n: u64, pixels: usize, channels: usize) -> Vec<f32> {
        let mut noise = self.draws.at(Purpose::Noise, n).normal(pixels * channels);
        let offset = self.noise_offset;
        if offset > 0.0 {
            let shared = self.draws.at(Purpose::NoiseOffset, n).normal(channels);
            for pixel in noise.chunks_exact_mut(channels.max(1)) {
                pixel.iter_mut().zip(&shared).for_each(|(value, shared)| *value += offset * shared);
            }
        }
        noise
    }

    /// A sample of the latents of `example`, which is number `n`.
    ///
    /// # Errors
    /// Whatever encoding meets.
    pub fn latents(
        &mut self,
        n: u64,
        example: &Example,
        encoder: &mut dyn Encode,
    ) -> Result<Vec<f32>> {
        let (mean, deviation) = self.distribution(example, encoder)?;
        let gaussian = self.draws.at(Purpose::Latents, n).normal(mean.len());
        let sample = mean.iter().zip(deviation).zip(&gaussian);
        Ok(sample.map(|((mean, deviation), g)| mean + deviation * g).collect())
    }

    fn distribution(
        &mut self,
        example: &Example,
        encoder: &mut dyn Encode,
    ) -> Result<Distribution> {
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

impl Wording {
    fn of(settings: &Settings, phrase: String) -> Wording {
        Wording {
            phrase,
            templates: settings.templates,
            all: settings.template_sentences,
            keep_tags: settings.shuffle_tags.then_some(settings.keep_tags),
        }
    }

    /// The caption of example `n`.
    fn drawn(&self, written: &str, draws: &Draws, n: u64) -> String {
        let mut caption = with_words(written, &self.phrase);
        if let Some(kept) = self.keep_tags {
            caption = shuffle_tags(&caption, kept, &mut draws.at(Purpose::Tags, n));
        }
        if self.all || begins_with(&caption, &self.phrase) {
            caption = self.templates.apply(&caption, &mut draws.at(Purpose::Template, n));
        }
        caption
    }
}

/// Whether a caption begins with the phrase, and not with a longer word.
fn begins_with(caption: &str, phrase: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(char::is_alphanumeric);
    caption.strip_prefix(phrase).is_some_and(|rest| !goes_on(rest))
}

/// The pictures of an epoch: each as often as it has repeats.
fn slots(found: &[Found]) -> Vec<usize> {
    let slots = found.iter().enumerate();
    slots.flat_map(|(i, found)| std::iter::repeat_n(i, found.repeats)).collect()
}

/// What stands for the concept where its class is meant.
fn class_phrase(settings: &Settings) -> String {
    settings.class_word.clone().unwrap_or_default()
}

/// What class picture `i` is made from: the text that is asked for, else the concept's captions in
/// turn, the class word in its words' place.
pub fn class_caption(settings: &Settings, captions: &[(&str, usize)], i: u64) -> String {
    let phrase = class_phrase(settings);
    if let Some(prompt) = &settings.class_prompt {
        return with_words(prompt, &phrase);
    }
    let slots: Vec<&str> =
        captions.iter().flat_map(|(text, repeats)| std::iter::repeat_n(*text, *repeats)).collect();
    let written = slots.get((i % slots.len().max(1) as u64) as usize).copied();
    let draws = Draws::of_class(settings.seed);
    Wording::of(settings, phrase).drawn(written.unwrap_or(PLACEHOLDER), &draws, i)
}
