//! From a request to plans: options checked, sampler and device programs planned, memory known,
//! before any work.

use crate::picture::{Doubt, Picture};
use crate::scheduler::sampler::{self, PlanOptions, SamplerKind};

use super::adaptation::{Adaptation, Mask};
use super::controls::Steering;
use super::decode::Decoder;
use super::encode::Encoder;
use super::error::{Result, option};
use super::network::Planned;
use super::regions::{Phase, Regional};
use super::sample::{self, SampleShape};
use super::wording::{self, Spell, Wording};
use super::{MOST_PICTURES, Pipeline, PlannedMemory, Request};

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

/// A request, checked and planned: what [`Pipeline::make`] takes.
pub struct Prepared<'a> {
    pub(super) request: &'a Request,
    pub(super) job: Job,
    pub(super) plans: Plans,
}

impl Prepared<'_> {
    /// What will not be as the request may mean it: words that were cut, regions too small, and
    /// such.
    pub fn warnings(&self) -> &[String] {
        &self.job.warnings
    }

    /// The device memory that it will take.
    pub fn memory(&self) -> PlannedMemory {
        self.plans.memory
    }
}

/// What will run.
pub(super) struct Plans {
    /// The picture's prompt, or those of its context and regions.
    pub wordings: Vec<Wording>,
    /// What of them is read from which call of the model on.
    pub spells: Vec<Spell>,
    /// What the concepts change.
    pub adaptation: Adaptation,
    /// What holds where from which step on; empty without regions.
    pub phases: Vec<Phase>,
    /// Where updates act on the prompts' tokens.
    pub rows: Vec<Mask>,
    pub steering: Steering,
    pub encoder: Option<Encoder>,
    /// Of as many pictures as are sampled at once.
    pub shape: SampleShape,
    pub decoder: Decoder,
    pub memory: PlannedMemory,
}

impl Pipeline {
    /// Checks and plans a request, without running it.
    ///
    /// # Errors
    /// As [`Pipeline::generate`]'s before work starts.
    pub fn prepare<'a>(&self, request: &'a Request) -> Result<Prepared<'a>> {
        let mut job = self.job(request)?;
        let plans = self.plans(request, &mut job)?;
        Ok(Prepared { request, job, plans })
    }

    fn plans(&self, request: &Request, job: &mut Job) -> Result<Plans> {
        // Models that are told the scale that they were distilled with take no guidance besides.
        let guided = request.guidance > 1.0 && self.unet.config.time_cond_proj_dim.is_none();
        let adaptation = Adaptation::of(self, request)?;
        let regional = Regional::of(request, job, &self.unet.config)?;
        let numbers = regional.as_ref().map_or(&[0][..], |regional| &regional.prompts);
        let mut wordings = Vec::with_capacity(numbers.len());
        let mut strangers: Vec<String> = Vec::new();
        let mut all_prompts: Vec<String> = Vec::new();
        for &number in numbers {
            let wanted = wording::prompts_of(request, number);
            let wanted = wanted.iter().skip(usize::from(!guided));
            strangers.extend(wanted.flat_map(|prompt| self.strangers(request, prompt)));
            let (steps, warnings) = (job.plan.count, &mut job.warnings);
            let wording =
                Wording::new(self, &adaptation, request, number, guided, steps, warnings)?;
            all_prompts.extend_from_slice(&wording.written);
            wordings.push(wording);
        }
        job.warnings.extend(adaptation.unused_words(&request.concepts, &all_prompts));
        strangers.sort();
        strangers.dedup();
        job.warnings.extend(self.known.as_ref().and_then(|known| known.warning(&strangers)));
        let spells = wording::spells(&wordings, &job.plan);
        let lengths: Vec<usize> = wordings.iter().map(|wording| wording.tokens(self)).collect();
        let tokens = lengths.iter().sum();
        let updates = adaptation.unet.on(numbers);
        let rows = updates.token_masks(numbers, &lengths);
        let numbers = numbers.to_vec();
        let regional = regional.filter(|regional| !regional.is_plain());
        let steering = Steering::of(self, request, job)?;
        let (features, control_nets) = steering.needs();
        let shape = SampleShape {
            batch: request.batch,
            height: job.size[0],
            width: job.size[1],
            tokens,
            reach: regional.as_ref().map_or_else(Vec::new, |regional| regional.reach(&lengths)),
            isolate: regional.as_ref().is_some_and(|regional| regional.isolate),
            features,
            control_nets,
            guidance: guided.then_some(request.guidance),
            slots: sample::used_slots(&job.plan).len(),
            masked: request.mask.is_some(),
            updates,
        };
        let encodings = wordings.iter().map(Wording::encodings).max().unwrap_or(1);
        let (shape, step) = self.largest_batch(shape)?;
        let (control_weights, control_bytes) = steering.bytes(&shape)?;
        let encoder = job
            .image
            .is_some()
            .then(|| Encoder::plan(&self.gpu, &self.vae, job.size, request.tile))
            .transpose()?;
        let decoder = Decoder::plan(&self.gpu, &self.vae, job.size, request.tile)?;
        let keys_values =
            sample::keys_values(&self.unet, &self.unet.config, &shape.updates, &shape, encodings)?;
        let variants = || wordings.iter().flat_map(|wording| &wording.variants);
        let towers: Vec<_> = variants().flat_map(|variant| variant.plan.graphs()).collect();
        let towers = (request.clip_skip == 0).then_some(&towers[..]);
        adaptation.check_use(&numbers, towers, &[&step.graph, &keys_values.graph])?;
        let memory = PlannedMemory {
            weights: self.unet.weight_bytes(&step)?
                + control_weights
                + self.unet.weight_bytes(&keys_values)?
                + variants()
                    .next()
                    .map_or(Ok(0), |variant| variant.plan.weight_bytes(&self.text))?
                + decoder.weight_bytes(&self.vae)?
                + encoder.as_ref().map_or(Ok(0), |encoder| encoder.weight_bytes(&self.vae))?,
            sampling: step.bytes() + control_bytes,
            decoding: decoder.bytes(),
            encoding: encoder.as_ref().map_or(0, Encoder::bytes),
        };
        let phases = regional
            .map_or_else(Vec::new, |regional| regional.phases(&lengths, &shape, request.batch));
        Ok(Plans {
            wordings,
            spells,
            adaptation,
            phases,
            rows,
            steering,
            encoder,
            shape,
            decoder,
            memory,
        })
    }

    /// Words of a prompt that the model does not know, where it says what it knows.
    fn strangers(&self, request: &Request, prompt: &str) -> Vec<String> {
        let of_concepts = request
            .concepts
            .iter()
            .flat_map(|applied| &applied.concept().words)
            .map(|word| word.text.as_str());
        let names = of_concepts.chain(self.fused.iter().map(|word| word.text.as_str()));
        self.known.as_ref().map_or(Vec::new(), |known| known.strangers(prompt, names))
    }

    /// A step for as many pictures of `shape`'s batch as fit at once. They do not depend on each
    /// other.
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
        let image = request
            .image
            .as_ref()
            .map(|image| image.resized(width as u32, height as u32))
            .transpose()?;
        Ok(Job { width, height, size, sampler, plan, image, warnings })
    }
}
