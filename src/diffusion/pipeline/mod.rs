//! From a checkpoint to pictures, on the device.
//!
//! A picture takes these stages: the prompts are tokenized and encoded (one run for both), the keys and values that the UNet's
//! cross-attentions make of them are computed once, an initial picture is encoded where there is one, then every sampling step
//! runs one program that holds both guidance halves, the UNet, guidance and the sampler's update, and at the end the latents
//! are decoded, picture by picture, in tiles where a picture does not fit. Nothing is read back in between.
//!
//! Equal to diffusers' `StableDiffusionPipeline`, its `Img2Img` and `Inpaint` relatives with the same seed and settings.

mod bands;
mod decode;
mod encode;
mod error;
mod load;
mod network;
mod noise;
mod request;
mod sample;
mod text;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diffusion::config::SchedulerConfig;
use crate::diffusion::sampler::{self, PlanOptions, SamplerKind};
use crate::gpu::Gpu;
use crate::graph::Array;
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::picture::{Picture, Scaling};
use crate::text::Tokenizer;

pub use error::{Error, Result};
pub use request::{Generated, PlannedMemory, Progress, Request};

use decode::Decoder;
use encode::Encoder;
use error::option;
use network::Network;
use noise::Noise;
use sample::{Kept, SampleShape, Sampling};
use text::TextPlan;

/// Programs whose activations take less than this stay on the device for the next picture of their size.
const KEEP_BYTES: u64 = 512 << 20;

/// The most pictures in a batch; far beyond what memory allows.
const MOST_PICTURES: usize = 1024;

/// A text-to-image model on a device: tokenizer, weights that all programs share, and the programs made last.
pub struct Pipeline {
    gpu: Arc<Gpu>,
    unet: Network<UNetConfig>,
    vae: Network<VaeConfig>,
    text: Network<ClipTextConfig>,
    tokenizer: Tokenizer,
    scheduler: SchedulerConfig,
    notes: Vec<String>,
    sampling: Option<Sampling>,
    decoder: Option<Decoder>,
}

/// What a request comes to: sizes, sampler and device plans, all checked.
struct Job {
    width: usize,
    height: usize,
    /// Of the latents: height, width.
    size: [usize; 2],
    sampler: SamplerKind,
    plan: sampler::Plan,
    image: Option<Picture>,
    warnings: Vec<String>,
}

/// Times stages and passes on how far they are.
struct Watch<'a> {
    progress: &'a mut dyn FnMut(Progress),
    stages: Vec<(&'static str, Duration)>,
}

impl Watch<'_> {
    fn stage<T>(&mut self, stage: &'static str, work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let progress = &mut *self.progress;
        let done = work(&mut |done, of| progress(Progress { stage, done, of }));
        self.stages.push((stage, start.elapsed()));
        done
    }
}

impl Pipeline {
    /// Width and height in pixels that the model was trained at.
    pub fn default_size(&self) -> (usize, usize) {
        let trained = self.vae.config.sample_size.max(self.factor());
        match self.unet.config.sample_size {
            Some([height, width]) => (width * self.factor(), height * self.factor()),
            None => (trained, trained),
        }
    }

    /// Pixels per latent, along one side.
    pub fn factor(&self) -> usize {
        self.vae.config.downscale()
    }

    /// Channels of latents.
    pub fn latent_channels(&self) -> usize {
        self.vae.config.latent_channels
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What was assumed of the model's files, in sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The sampler that the model's files name.
    ///
    /// # Errors
    /// A scheduler that is not for this kind of model.
    pub fn default_sampler(&self) -> Result<SamplerKind> {
        Ok(SamplerKind::of_model(&self.scheduler)?.0)
    }

    /// Makes the pictures. `progress` is called before and during every stage.
    ///
    /// # Errors
    /// Options out of range, named; pictures that do not fit the adapter's memory, with what would; whatever the device meets.
    pub fn generate(&mut self, request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<Generated> {
        let mut job = self.job(request)?;
        let mut watch = Watch { progress, stages: Vec::new() };
        let size = job.size;
        let channels = self.latent_channels();
        let latent_shape = [request.batch, size[0], size[1], channels];

        // Guidance is for models that are not told the scale that they were distilled with.
        let guided = request.guidance > 1.0 && self.unet.config.time_cond_proj_dim.is_none();
        let both = [request.negative_prompt.as_str(), request.prompt.as_str()];
        let prompts = if guided { &both[..] } else { &both[1..] };
        let tokenized = text::tokenize(&self.tokenizer, prompts, &request.prompt_options, &mut job.warnings)?;
        let rows: usize = tokenized.iter().map(|p| p.chunks.len()).sum();
        let length = self.tokenizer.max_length();
        let shape = SampleShape {
            batch: request.batch,
            height: size[0],
            width: size[1],
            tokens: rows / tokenized.len() * length,
            guidance: guided.then_some(request.guidance),
            slots: sample::used_slots(&job.plan).len(),
            masked: request.mask.is_some(),
        };

        // Everything is planned before work starts, so that what cannot fit is known at once.
        let text_plan = TextPlan::new(&self.text, &tokenized, request.clip_skip)?;
        let step_plan = sample::plan(&self.unet, &shape)?;
        step_plan.check(&self.gpu, "sampling", || self.smaller_hint(&shape))?;
        let encoder = job.image.is_some().then(|| Encoder::plan(&self.gpu, &self.vae, size, request.tile)).transpose()?;
        let mut decoder = match self.decoder.take() {
            Some(decoder) if decoder.is_for(size, request.tile) => decoder,
            _ => Decoder::plan(&self.gpu, &self.vae, size, request.tile)?,
        };
        let planned = PlannedMemory {
            weights: self.unet.weight_bytes(&step_plan)?
                + self.unet.weight_bytes(&sample::plan_prompt(&self.unet, shape.halves(), shape.tokens)?)?
                + text_plan.weight_bytes(&self.text)?
                + decoder.weight_bytes(&self.vae)?
                + encoder.as_ref().map_or(Ok(0), |encoder| encoder.weight_bytes(&self.vae))?,
            sampling: step_plan.bytes(),
            decoding: decoder.bytes(),
            encoding: encoder.as_ref().map_or(0, Encoder::bytes),
        };

        let context = watch.stage("text", |progress| {
            progress(0, 1);
            text_plan.encode(&self.text, &tokenized)
        })?;
        let mut noise = Noise::new(request.rng, request.seed, request.batch, [size[0], size[1], channels]);
        let original = match (&job.image, &encoder) {
            (Some(image), Some(encoder)) => Some(watch.stage("encode", |progress| {
                let posterior = encoder.encode(&self.vae, image, progress)?;
                let original = posterior.sample(&self.vae.config, &mut noise);
                Ok((posterior, original))
            })?),
            _ => None,
        };
        let gaussian = match &request.latents {
            Some(given) => given.values().to_vec(),
            None => noise.draw(),
        };
        let starts_from_noise = original.is_none() || (request.mask.is_some() && request.strength >= 1.0);
        let latents = match &original {
            Some((_, original)) if !starts_from_noise => job.plan.start.apply(original, &gaussian),
            _ => gaussian.iter().map(|v| v * job.plan.initial_scale).collect(),
        };
        let kept = match (&request.mask, original) {
            (Some(mask), Some((posterior, original))) => {
                // diffusers draws once more here, for the masked picture that 9-channel models are given.
                drop(posterior.sample(&self.vae.config, &mut noise));
                let mask = mask.resized(job.width as u32, job.height as u32, Scaling::Nearest)?.binarized(0.5);
                let mask = mask.resized(size[1] as u32, size[0] as u32, Scaling::Nearest)?;
                Some(Kept { mask: mask.values().to_vec(), original, gaussian })
            }
            _ => None,
        };

        let sampling = watch.stage("prepare", |progress| {
            progress(0, 1);
            let sampling = match self.sampling.take() {
                Some(sampling) if sampling.shape == shape => sampling,
                _ => Sampling { program: self.unet.program(&step_plan)?, bytes: step_plan.bytes(), shape },
            };
            sampling.set_prompt(&self.unet, &context)?;
            sampling.set_distilled_guidance(&self.unet.config, request.guidance)?;
            Ok(sampling)
        })?;
        let latents = watch.stage("sample", |progress| {
            sampling.run(&self.unet.config, &job.plan, &latents, &mut noise, kept.as_ref(), progress)
        })?;
        if sampling.bytes + decoder.bytes() <= KEEP_BYTES {
            self.sampling = Some(sampling);
        } else {
            drop(sampling);
        }
        let pictures = watch.stage("decode", |progress| {
            let each = latents.values().chunks_exact(latent_shape[1..].iter().product());
            let mut pictures = Vec::with_capacity(request.batch);
            for latents in each {
                let (done, of) = (pictures.len() * decoder.parts(&self.vae), request.batch * decoder.parts(&self.vae));
                pictures.push(decoder.decode(&self.vae, latents, &mut |part| progress(done + part, of))?);
            }
            Ok(pictures)
        })?;
        if decoder.bytes() <= KEEP_BYTES {
            self.decoder = Some(decoder);
        }
        Ok(Generated {
            pictures,
            latents,
            seeds: (0..request.batch as u64).map(|i| request.seed.wrapping_add(i)).collect(),
            sampler: job.sampler,
            width: job.width,
            height: job.height,
            warnings: job.warnings,
            stages: watch.stages,
            peak_device_bytes: self.gpu.memory().1,
            planned,
        })
    }

    /// The latents of a picture, `[1, height, width, channels]`: the mean of what it may be encoded to. `tile` is as in
    /// [`Request::tile`].
    ///
    /// # Errors
    /// A picture whose sides are no multiples of [`Pipeline::factor`].
    pub fn encode(&mut self, picture: &Picture, tile: Option<usize>) -> Result<Array> {
        let size = self.latent_size(picture.width() as usize, picture.height() as usize)?;
        let encoder = Encoder::plan(&self.gpu, &self.vae, size, tile)?;
        let posterior = encoder.encode(&self.vae, picture, &mut |_, _| ())?;
        Ok(Array::f32([1, size[0], size[1], self.latent_channels()], posterior.mean(&self.vae.config)))
    }

    /// Decodes latents `[batch, height, width, channels]`, as [`Generated::latents`] has them.
    pub fn decode(&mut self, latents: &Array, tile: Option<usize>) -> Result<Vec<Picture>> {
        let expected = || format!("[batch, height, width, {}]", self.latent_channels());
        let shape = latents.shape.image().map_err(|_| option("latents", &latents.shape, expected()))?;
        let [_, height, width, channels] = shape;
        if channels != self.latent_channels() || latents.values().len() != latents.shape.elements() {
            return Err(option("latents", &latents.shape, expected()));
        }
        let mut decoder = match self.decoder.take() {
            Some(decoder) if decoder.is_for([height, width], tile) => decoder,
            _ => Decoder::plan(&self.gpu, &self.vae, [height, width], tile)?,
        };
        let each = latents.values().chunks_exact((height * width * channels).max(1));
        let pictures = each.map(|latents| decoder.decode(&self.vae, latents, &mut |_| ())).collect::<Result<_>>()?;
        if decoder.bytes() <= KEEP_BYTES {
            self.decoder = Some(decoder);
        }
        Ok(pictures)
    }

    /// Height and width of the latents of a picture.
    fn latent_size(&self, width: usize, height: usize) -> Result<[usize; 2]> {
        let factor = self.factor();
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || side % factor != 0 || side > crate::picture::MAX_SIDE as usize {
                let (below, above) = ((side / factor).max(1) * factor, (side / factor + 1) * factor);
                return Err(option(name, side, format!("a multiple of {factor}, such as {below} or {above}")));
            }
        }
        Ok([height / factor, width / factor])
    }

    /// Checks the options, and plans the sampler's run.
    fn job(&self, request: &Request) -> Result<Job> {
        let factor = self.factor();
        let mut warnings = Vec::new();
        let (default_width, default_height) = match &request.image {
            Some(image) => {
                let below = |side: u32| (side as usize / factor * factor).max(factor);
                (below(image.width()), below(image.height()))
            }
            None => self.default_size(),
        };
        let (width, height) = (request.width.unwrap_or(default_width), request.height.unwrap_or(default_height));
        let size = self.latent_size(width, height)?;
        if !(1..=MOST_PICTURES).contains(&request.batch) {
            return Err(option("batch", request.batch, format!("1 to {MOST_PICTURES} pictures")));
        }
        if !request.guidance.is_finite() {
            return Err(option("guidance", request.guidance, "a number"));
        }
        if request.mask.is_some() && request.image.is_none() {
            return Err(option("mask", "given without a picture", "an initial picture to paint in"));
        }
        if let Some(latents) = &request.latents {
            let expected = [request.batch, size[0], size[1], self.latent_channels()];
            if latents.shape[..] != expected || latents.values().len() != latents.shape.elements() {
                return Err(option("latents", &latents.shape, format!("{expected:?} (batch, height, width, channels)")));
            }
            if latents.values().iter().any(|v| !v.is_finite()) {
                return Err(option("latents", "not finite throughout", "numbers"));
            }
        }
        let sampler = match request.sampler {
            Some(sampler) => sampler,
            None => {
                let (sampler, note) = SamplerKind::of_model(&self.scheduler)?;
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
        let plan = sampler::plan(sampler, &self.scheduler, &options)?;
        let image = request.image.as_ref().map(|image| image.resized(width as u32, height as u32)).transpose()?;
        Ok(Job { width, height, size, sampler, plan, image, warnings })
    }

    /// The largest square, or the smaller batch, that would fit.
    fn smaller_hint(&self, shape: &SampleShape) -> String {
        let fits = |shape: &SampleShape| sample::plan(&self.unet, shape).is_ok_and(|plan| plan.fits());
        if shape.batch > 1 && fits(&SampleShape { batch: 1, ..shape.clone() }) {
            return "make the batch smaller: one picture fits".into();
        }
        let square = |side: usize| SampleShape { batch: 1, height: side, width: side, ..shape.clone() };
        let (mut low, mut high) = (0, shape.height.max(shape.width));
        while low + 1 < high {
            let middle = (low + high) / 2;
            if fits(&square(middle)) { low = middle } else { high = middle }
        }
        let side = low * self.factor();
        format!("the largest square that fits is {side}x{side} pixels")
    }
}
