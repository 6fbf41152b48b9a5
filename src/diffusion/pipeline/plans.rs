//! From a request to plans: options checked, sampler and device programs planned, memory known, before any work.

use crate::diffusion::sampler::{self, PlanOptions, SamplerKind};
use crate::picture::Picture;
use crate::text::prompt::EncodedPrompt;

use super::decode::Decoder;
use super::encode::Encoder;
use super::error::{Result, option};
use super::network::Planned;
use super::sample::{self, SampleShape};
use super::text::{self, TextPlan};
use super::{Pipeline, PlannedMemory, Request};

/// The most pictures in a batch.
const MOST_PICTURES: usize = 1024;

/// What a request comes to, but for the device.
pub(super) struct Job {
    pub width: usize,
    pub height: usize,
    /// Of the latents: height, width.
    pub size: [usize; 2],
    pub sampler: SamplerKind,
    pub plan: sampler::Plan,
    /// Of the size of the pictures to be made.
    pub image: Option<Picture>,
    pub warnings: Vec<String>,
}

/// What will run.
pub(super) struct Plans {
    /// The negative prompt, where there is guidance, and the prompt.
    pub prompts: Vec<EncodedPrompt>,
    pub text: TextPlan,
    pub encoder: Option<Encoder>,
    /// Of as many pictures as are sampled at once.
    pub shape: SampleShape,
    pub decoder: Decoder,
    pub memory: PlannedMemory,
}

impl Pipeline {
    /// The device memory that a request will take, without running it.
    ///
    /// # Errors
    /// As [`Pipeline::generate`]'s before work starts.
    pub fn plan_memory(&self, request: &Request) -> Result<PlannedMemory> {
        let mut job = self.job(request)?;
        Ok(self.plans(request, &mut job)?.memory)
    }

    /// What the user should know before the work starts: [`Generated::warnings`](super::Generated::warnings), without running it.
    ///
    /// # Errors
    /// Options out of range, named; prompts that cannot be read.
    pub fn warnings(&self, request: &Request) -> Result<Vec<String>> {
        let mut job = self.job(request)?;
        self.prompts(request, &mut job.warnings)?;
        Ok(job.warnings)
    }

    /// Models that are told the scale that they were distilled with take no guidance besides.
    fn guided(&self, request: &Request) -> bool {
        request.guidance > 1.0 && self.unet.config.time_cond_proj_dim.is_none()
    }

    /// The prompts that take part, the negative one before the other.
    fn prompts(&self, request: &Request, warnings: &mut Vec<String>) -> Result<Vec<EncodedPrompt>> {
        let both = [request.negative_prompt.as_str(), request.prompt.as_str()];
        let wanted = if self.guided(request) { &both[..] } else { &both[1..] };
        text::tokenize(&self.tokenizer, wanted, &request.prompt_options, warnings)
    }

    pub(super) fn plans(&self, request: &Request, job: &mut Job) -> Result<Plans> {
        let guided = self.guided(request);
        let prompts = self.prompts(request, &mut job.warnings)?;
        let text = TextPlan::new(&self.text, &prompts, request.clip_skip)?;
        let tokens = prompts.first().map_or(0, |p| p.chunks.len()) * self.tokenizer.max_length();
        let shape = SampleShape {
            batch: request.batch,
            height: job.size[0],
            width: job.size[1],
            tokens,
            guidance: guided.then_some(request.guidance),
            slots: sample::used_slots(&job.plan).len(),
            masked: request.mask.is_some(),
        };
        let (shape, step) = self.largest_batch(shape)?;
        let encoder = job.image.is_some().then(|| Encoder::plan(&self.gpu, &self.vae, job.size, request.tile)).transpose()?;
        let decoder = Decoder::plan(&self.gpu, &self.vae, job.size, request.tile)?;
        let memory = PlannedMemory {
            weights: self.unet.weight_bytes(&step)?
                + self.unet.weight_bytes(&sample::plan_prompt(&self.unet, shape.halves(), tokens)?)?
                + text.weight_bytes(&self.text)?
                + decoder.weight_bytes(&self.vae)?
                + encoder.as_ref().map_or(Ok(0), |encoder| encoder.weight_bytes(&self.vae))?,
            sampling: step.bytes(),
            decoding: decoder.bytes(),
            encoding: encoder.as_ref().map_or(0, Encoder::bytes),
        };
        Ok(Plans { prompts, text, encoder, shape, decoder, memory })
    }

    /// A step for as many pictures of `shape`'s batch as fit at once. They do not depend on each other.
    fn largest_batch(&self, mut shape: SampleShape) -> Result<(SampleShape, Planned)> {
        loop {
            let step = sample::plan(&self.unet, &shape)?;
            if shape.batch == 1 {
                step.check(&self.gpu, "sampling", || self.largest_square(&shape))?;
            }
            if step.fits() {
                return Ok((shape, step));
            }
            shape.batch = shape.batch.div_ceil(2);
        }
    }

    /// A hint at what would fit.
    fn largest_square(&self, shape: &SampleShape) -> String {
        let fits = |side: usize| {
            let square = SampleShape { batch: 1, height: side, width: side, ..shape.clone() };
            sample::plan(&self.unet, &square).is_ok_and(|plan| plan.fits())
        };
        let (mut low, mut high) = (0, shape.height.max(shape.width));
        while low + 1 < high {
            let middle = (low + high) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        let side = low * self.factor();
        format!("the largest square that fits is {side}x{side} pixels")
    }

    /// Checks the options, and plans the sampler's run.
    pub(super) fn job(&self, request: &Request) -> Result<Job> {
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
}
