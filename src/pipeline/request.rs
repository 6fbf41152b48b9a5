//! What is asked of a [`super::Pipeline`], and what comes back.

use std::time::Duration;

use crate::backend::Held;
use crate::checkpoint;
use crate::concept::Applied;
use crate::graph::Array;
use crate::picture::{Mask, Picture};
use crate::random::RngKind;
use crate::region::Layout;
use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;
use crate::sd::Compose;
use crate::text::prompt::PromptOptions;

use super::upscaler::Hires;

/// The most pictures in a batch.
pub const MOST_PICTURES: usize = 1024;

/// A picture, or a batch of them, to be made. The defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is to be seen; with regions, what holds between them.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Prompts that hold in parts of the picture.
    pub regions: Layout,
    /// Networks that steer the picture, all at once.
    pub controls: Vec<Control>,
    /// Concepts and LoRAs in use: their words may stand in every prompt.
    pub concepts: Vec<Applied>,
    /// In pixels, a multiple of [`super::Pipeline::factor`]; none: the initial picture's, else the
    /// model's.
    pub width: Option<usize>,
    /// In pixels, as `width`.
    pub height: Option<usize>,
    /// Stable Diffusion XL: width and height that the picture is said to have been cut from; none:
    /// its own.
    pub original_size: Option<(usize, usize)>,
    /// Stable Diffusion XL: from the left and from the top, where it is said to have been cut from
    /// that; none: at its corner.
    pub crop: Option<(usize, usize)>,
    /// Sampling steps, 1 and more.
    pub steps: usize,
    /// Scale of classifier-free guidance; up to 1: none, and half the work.
    pub guidance: f32,
    /// None: the one that the model's files name.
    pub sampler: Option<SamplerKind>,
    /// How steps are spread over the noise; none: as the model's files say.
    pub schedule: Option<Schedule>,
    /// The sampler's share of fresh noise, 0 to 1; none: its usual one.
    pub eta: Option<f64>,
    /// How far the guided prediction is brought back to the contrast of the prompt's own, 0 to 1
    /// (Lin et al. 2024, section 3.4).
    pub guidance_rescale: f32,
    /// The part of the steps, from and until, 0 to 1, in which guidance acts (Kynkäänniemi et al.
    /// 2024); outside of it the prompt's own prediction holds.
    pub guidance_interval: [f64; 2],
    /// The deep layers of the UNet are computed in every n-th step, and what they gave is used
    /// again in between (Ma et al. 2024, DeepCache); 1: in each.
    pub cache: usize,
    /// How the LoRAs of a picture without regions come together.
    pub compose: Compose,
    /// How firmly what regions say is held in them.
    pub place: Place,
    /// Picture `i` of a batch has seed + i, and is the same picture as alone.
    pub seed: u64,
    /// Which generator's numbers the noise is.
    pub rng: RngKind,
    /// Pictures, 1 to [`MOST_PICTURES`].
    pub batch: usize,
    /// How many of the text encoder's last layers are left out for the prompt (as in diffusers, not
    /// for the negative one).
    pub clip_skip: usize,
    /// Weights, brackets and long prompts.
    pub prompt_options: PromptOptions,
    /// Image to image: what to start from.
    pub image: Option<Picture>,
    /// How much of the schedule is run on `image`, above 0 to 1.
    pub strength: f64,
    /// Inpainting: white where `image` is painted anew; any size.
    pub mask: Option<Mask>,
    /// Image to image: latents to go on from in place of `image`, as [`Generated::latents`] has
    /// them.
    pub from_latents: Option<Array>,
    /// A second pass over a larger picture.
    pub hires: Option<Hires>,
    /// Every so many calls of the model, [`super::Pipeline::make_shown`] shows what comes of it.
    pub preview: Option<usize>,
    /// The standard normal noise to start from, `[batch, height, width, channels]` of the latents,
    /// in place of the seeds'.
    pub latents: Option<Array>,
    /// Bytes of the device's memory to stay within: weights are given up while they are not at
    /// work, pictures are decoded in tiles and sampled in smaller batches, and weights of the UNet
    /// come anew with each call of it, as far as that takes.
    pub memory: Option<u64>,
    /// Decode in parts of at most this many pixels squared; none: as a whole where it fits. The
    /// picture is the same.
    pub tile: Option<usize>,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            prompt: String::new(),
            negative_prompt: String::new(),
            regions: Layout::default(),
            controls: Vec::new(),
            concepts: Vec::new(),
            width: None,
            height: None,
            original_size: None,
            crop: None,
            steps: 25,
            guidance: 7.5,
            sampler: None,
            schedule: None,
            eta: None,
            guidance_rescale: 0.0,
            guidance_interval: [0.0, 1.0],
            cache: 1,
            compose: Compose::default(),
            place: Place::default(),
            seed: 0,
            rng: RngKind::default(),
            batch: 1,
            clip_skip: 0,
            prompt_options: PromptOptions::default(),
            image: None,
            strength: 0.8,
            mask: None,
            from_latents: None,
            hires: None,
            preview: None,
            latents: None,
            memory: None,
            tile: None,
        }
    }
}

/// How firmly what regions say is held in them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Place {
    /// By what each place reads.
    #[default]
    Free,
    /// In the first steps the latents are moved besides, so that each region's words look at their
    /// region and nowhere else; the number is a factor, 1 usually.
    Firm(f32),
}

/// What is none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to place: expected free, firm or firm:STRENGTH, above 0 to 100")]
pub struct UnknownPlace(String);

impl std::str::FromStr for Place {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let strength = |text: &str| text.parse().ok().filter(|v| *v > 0.0f32 && *v <= 100.0);
        match text.split_once(':') {
            None if text == "free" => Some(Place::Free),
            None if text == "firm" => Some(Place::Firm(1.0)),
            Some(("firm", number)) => strength(number).map(Place::Firm),
            _ => None,
        }
        .ok_or_else(|| UnknownPlace(text.to_string()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Free => f.write_str("free"),
            Place::Firm(strength) => write!(f, "firm:{strength}"),
        }
    }
}

/// A network that steers a picture.
#[derive(Clone, Debug)]
pub struct Control {
    /// As regions name it.
    pub name: String,
    /// The network itself, from [`checkpoint::Control::open`].
    pub network: checkpoint::Control,
    /// What to follow, as the network takes it (edges, poses, depths); fitted to the picture's
    /// size.
    pub picture: Picture,
    /// Factor of what it adds; 1 is as it was trained.
    pub weight: f32,
    /// It steers from this part of the steps to that, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

/// Device memory of a run, in bytes, known before it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Of all networks that take part.
    pub weights: u64,
    /// Of the text encoder.
    pub text: u64,
    /// Of the UNet and of what steers it.
    pub unet: u64,
    /// Of the autoencoder, as far as it takes part.
    pub vae: u64,
    /// Activations and inputs while sampling.
    pub sampling: u64,
    /// Activations and inputs while decoding, one picture (or one tile of it) at a time.
    pub decoding: u64,
    /// The same while the initial picture is encoded.
    pub encoding: u64,
    /// The most of all that at once, with what the budget makes the run give up on the way.
    pub peak: u64,
    /// How the UNet's weights are held where they come and go.
    pub streaming: Option<Held>,
}

/// What bringing weights anew with each call of the model comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamingCost {
    /// Bytes that come with a call.
    pub each: u64,
    /// Calls, of all pictures and passes.
    pub calls: usize,
    /// Bytes of main memory that hold what comes; none where it is made from the file each time.
    pub host: u64,
    /// The time of all of it at the rate at which the device took a sample, in seconds; less where
    /// it is hidden behind what is computed meanwhile. None where that takes no time.
    pub seconds: Option<f64>,
}

impl MemoryPlan {
    /// Of two runs one after another.
    pub(super) fn most(self, other: MemoryPlan) -> MemoryPlan {
        MemoryPlan {
            weights: self.weights.max(other.weights),
            text: self.text.max(other.text),
            unet: self.unet.max(other.unet),
            vae: self.vae.max(other.vae),
            peak: self.peak.max(other.peak),
            streaming: match (self.streaming, other.streaming) {
                (Some(a), Some(b)) if a.streamed >= b.streamed => Some(a),
                (a, b) => b.or(a),
            },
            sampling: self.sampling.max(other.sampling),
            decoding: self.decoding.max(other.decoding),
            encoding: self.encoding.max(other.encoding),
        }
    }
}

/// The pictures and how they came about.
#[derive(Clone, Debug)]
pub struct Generated {
    /// None from [`super::Pipeline::make_each`], which hands them on as they are decoded.
    pub pictures: Vec<Picture>,
    /// The final latents, `[batch, height, width, channels]`.
    pub latents: Array,
    /// One for each picture.
    pub seeds: Vec<u64>,
    /// What was sampled with.
    pub sampler: SamplerKind,
    /// Of each, in pixels.
    pub width: usize,
    /// Of each, in pixels.
    pub height: usize,
    /// Width and height of the first pass, where there are two.
    pub first_pass: Option<[usize; 2]>,
    /// For the user: what was cut from prompts, what stands in for what.
    pub warnings: Vec<String>,
    /// Wall time of each stage, in order.
    pub stages: Vec<(&'static str, Duration)>,
    /// Most bytes of device buffers that existed at once since the device was opened.
    pub peak_device_bytes: u64,
    /// Device memory, as it was known beforehand.
    pub planned: MemoryPlan,
}
