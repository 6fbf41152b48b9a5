//! From a request to plans: options checked, sampler and device programs planned, memory known,
//! before any work.

use crate::backend::TooLittle;
use crate::models::unet::SizeNumbers;
use crate::region;
use crate::scheduler::sampler::{SamplerKind, SamplingPlan};
use crate::sd::denoiser::{self, Depth, KeysValues, Phase, StepInputs, StepShape};
use crate::sd::guided::Guided;
use crate::sd::looking::{self, LookInputs, Targets};
use crate::sd::network::PlannedGraph;
use crate::sd::sampling::used_slots;
use crate::sd::text::TextPlan;
use crate::sd::updates::Mask;

use super::adaptation::Adaptation;
use super::budget::{Needs, Savings, Streamed};
use super::checked::CheckedRequest;
use super::controls::Steering;
use super::decode::Decoder;
use super::encode::Encoder;
use super::error::{Error, Result};
use super::regions::Regional;
use super::wording::{self, PromptInterval, Wording};
use super::{Compose, MemoryPlan, Pipeline, Request, StreamingCost, sizes};

/// The most pictures that a processor samples at once: each takes as long in a larger batch, and
/// the first would be there later.
const ON_A_PROCESSOR: usize = 4;

/// A request, checked and planned: what [`Pipeline::make`] takes.
pub struct PreparedRequest<'a> {
    pub(super) request: &'a Request,
    pub(super) checked: CheckedRequest,
    pub(super) plan: RequestPlan,
    /// The second pass.
    pub(super) second: Option<Box<SecondPass>>,
}

/// What a prepared request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedShape {
    /// Of each picture, in pixels.
    pub width: usize,
    /// Of each picture, in pixels.
    pub height: usize,
    /// Pictures.
    pub pictures: usize,
    /// Pictures that are sampled together.
    pub at_once: usize,
    /// What samples.
    pub sampler: SamplerKind,
    /// Calls of the model for each picture, of all passes.
    pub calls: usize,
}

/// A pass that goes on from the first one's latents.
pub(super) struct SecondPass {
    pub request: Request,
    pub checked: CheckedRequest,
    pub plan: RequestPlan,
}

impl PreparedRequest<'_> {
    /// What will not be as the request may mean it: words that were cut, regions too small, and
    /// such.
    pub fn warnings(&self) -> &[String] {
        &self.checked.warnings
    }

    /// What runs, in numbers; of the last pass where there are two.
    pub fn shape(&self) -> PlannedShape {
        let (mut checked, mut plan) = (&self.checked, &self.plan);
        let mut calls = checked.plan.steps.len() * plan.predictions;
        if let Some(second) = &self.second {
            (checked, plan) = (&second.checked, &second.plan);
            calls += checked.plan.steps.len() * plan.predictions;
        }
        PlannedShape {
            width: checked.width,
            height: checked.height,
            pictures: self.request.batch,
            at_once: plan.shape.batch,
            sampler: checked.sampler,
            calls,
        }
    }

    /// The budget that it is planned for.
    pub fn budget(&self) -> Option<u64> {
        self.request.memory
    }

    /// What firm placing, composed LoRAs and staying within the budget cost, in sentences.
    pub fn costs(&self) -> Vec<String> {
        let plan = self.second.as_ref().map_or(&self.plan, |second| &second.plan);
        let parts = self.request.batch.div_ceil(plan.shape.batch.max(1));
        let mut costs = plan.savings.costs(parts);
        if plan.predictions > 1 {
            costs.push(format!(
                "every step predicts {} times, once for each LoRA, and takes as much longer",
                plan.predictions
            ));
        }
        let (first, count) = (&self.plan, self.checked.plan.count);
        if first.look.is_some() {
            let looks = (0..count).filter(|step| looking::acts(*step, count)).count();
            costs.push(format!(
                "firm placing: {looks} of {count} steps take another pass for each picture, \
                    forward and back, of the prompt's half"
            ));
        }
        costs.extend(plan.decoder.tile().filter(|_| self.request.tile.is_none()).map(|side| {
            format!("pictures are decoded in tiles of {side}x{side} pixels, whose edges are computed twice")
        }));
        costs
    }

    /// The device memory that it will take.
    pub fn memory(&self) -> MemoryPlan {
        let first = self.plan.memory;
        match &self.second {
            None => first,
            Some(second) => first.most(second.plan.memory),
        }
    }
}

/// What will run for a request.
pub(super) struct RequestPlan {
    /// The picture's prompt, or those of its context and regions.
    pub wordings: Vec<Wording>,
    /// The context's, of models that are told a summary of it, where it holds nowhere else.
    pub summary: Option<Wording>,
    /// What such models are told of sizes.
    pub numbers: SizeNumbers,
    /// What of them is read from which call of the model on.
    pub intervals: Vec<PromptInterval>,
    /// What the concepts change.
    pub adaptation: Adaptation,
    /// What holds where from which step on; empty without regions.
    pub phases: Vec<Phase>,
    /// Where updates act on the prompts' tokens.
    pub rows: Vec<Mask>,
    pub steering: Steering,
    pub encoder: Option<Encoder>,
    /// Of as many pictures as are sampled at once.
    pub shape: StepShape,
    pub step: PlannedGraph<StepInputs>,
    /// The step that takes deep features of an earlier one.
    pub shallow: Option<PlannedGraph<StepInputs>>,
    /// Predictions in a call: one for each LoRA where their mean counts.
    pub predictions: usize,
    /// What moves latents in the first steps, and by what.
    pub look: Option<(Targets, PlannedGraph<LookInputs>)>,
    /// How guidance acts, where not in full in each step.
    pub guided: Option<Guided>,
    pub keys_values: KeysValues,
    pub decoder: Decoder,
    pub memory: MemoryPlan,
    /// What is given up on the way.
    pub savings: Savings,
}

/// The shallow step beside whole ones of `shape`.
pub(super) fn shallow_of(shape: &StepShape) -> StepShape {
    StepShape { depth: Depth::Shallow, ..shape.clone() }
}

/// How guidance acts, where not in full in each step.
fn limited_guidance(request: &Request, plan: &SamplingPlan) -> Option<Guided> {
    let Request { guidance_rescale: rescale, guidance_interval: [from, until], .. } = *request;
    let acts = |call| region::holds(from, until, plan.step_of(call), plan.count);
    let calls: Vec<bool> = (0..plan.steps.len()).map(acts).collect();
    (rescale > 0.0 || calls.contains(&false)).then_some(Guided { rescale, calls })
}

impl Pipeline {
    /// Checks and plans a request, without running it.
    ///
    /// # Errors
    /// As [`Pipeline::generate`]'s before work starts.
    pub fn prepare<'a>(&self, request: &'a Request) -> Result<PreparedRequest<'a>> {
        let mut checked = self.checked(request)?;
        let plan = self.plan(request, &mut checked)?;
        let second = match self.second_request(request)? {
            None => None,
            Some(request) => {
                let mut checked = self.checked(&request)?;
                let plan = self.plan(&request, &mut checked)?;
                Some(Box::new(SecondPass { request, checked, plan }))
            }
        };
        Ok(PreparedRequest { request, checked, plan, second })
    }

    fn plan(&self, request: &Request, checked: &mut CheckedRequest) -> Result<RequestPlan> {
        // Models that are told the scale that they were distilled with take no guidance besides.
        let guided = request.guidance > 1.0 && self.unet.config.time_cond_proj_dim.is_none();
        let adaptation = Adaptation::of(self, request)?;
        checked.warnings.extend_from_slice(&adaptation.warnings);
        let regional = Regional::of(request, checked, &self.unet.config)?;
        let numbers = regional.as_ref().map_or(&[0][..], |regional| &regional.prompts);
        let mut wordings = Vec::with_capacity(numbers.len());
        let mut unknown: Vec<String> = Vec::new();
        let mut all_prompts: Vec<String> = Vec::new();
        for &number in numbers {
            let wanted = wording::prompts_of(request, number);
            let wanted = wanted.iter().skip(usize::from(!guided));
            unknown.extend(wanted.flat_map(|prompt| self.unknown_words(request, prompt)));
            let (steps, warnings) = (checked.plan.count, &mut checked.warnings);
            let wording =
                Wording::new(self, &adaptation, request, number, guided, steps, warnings)?;
            all_prompts.extend_from_slice(&wording.written);
            wordings.push(wording);
        }
        let says_something = !request.prompt.trim().is_empty();
        let summary = match self.model.is_xl() && !numbers.contains(&0) && says_something {
            true => {
                let (steps, warnings) = (checked.plan.count, &mut checked.warnings);
                Some(Wording::new(self, &adaptation, request, 0, guided, steps, warnings)?)
            }
            false => None,
        };
        all_prompts.extend(summary.iter().flat_map(|wording| wording.written.iter().cloned()));
        checked.warnings.extend(adaptation.unused_words(&request.concepts, &all_prompts));
        unknown.sort();
        unknown.dedup();
        checked
            .warnings
            .extend(self.model.known.as_ref().and_then(|known| known.warning(&unknown)));
        let intervals = wording::intervals(&wordings, summary.as_ref(), &checked.plan);
        let lengths: Vec<usize> = wordings.iter().map(|wording| wording.tokens(self)).collect();
        let tokens = lengths.iter().sum();
        let updates = adaptation.unet.on(numbers);
        let rows = updates.token_masks(numbers, &lengths);
        let numbers = numbers.to_vec();
        let regional = regional.filter(|regional| !regional.is_plain());
        let mut steering = Steering::of(self, request, checked)?;
        let (features, control_nets) = steering.needs();
        let inpaints = self.unet.config.inpaints();
        if inpaints && request.mask.is_none() {
            let all = "this model is made for inpainting: without a mask all of the picture is \
                painted";
            checked.warnings.push(all.into());
        }
        let limited = limited_guidance(request, &checked.plan);
        if limited.is_some() && !guided {
            checked.warnings.push(
                "guidance rescale and the part of the steps for guidance have no effect: there is \
                    no guidance"
                    .into(),
            );
        }
        let limited = limited.filter(|_| guided);
        let composite = request.compose == Compose::Composite;
        let on_host = limited.is_some() || request.cache > 1 || composite;
        let at_once = if self.gpu.is_processor() { ON_A_PROCESSOR } else { request.batch };
        let shape = StepShape {
            batch: request.batch.min(at_once),
            height: checked.size[0],
            width: checked.size[1],
            tokens,
            reach: regional.as_ref().map_or_else(Vec::new, |regional| regional.reach(&lengths)),
            isolate: regional.as_ref().is_some_and(|regional| regional.isolate),
            features,
            control_nets,
            guidance: guided.then_some(request.guidance),
            // The host keeps its own.
            slots: if on_host { 1 } else { used_slots(&checked.plan).len() },
            masked: request.mask.is_some() && !inpaints,
            on_host,
            shown: request.preview.is_some() && !on_host,
            depth: if request.cache > 1 { Depth::Keeping } else { Depth::Whole },
            updates,
        };
        let predictions = request.compose.active(0, shape.updates.len()).len();
        let encodings = wordings.iter().map(Wording::encodings).max().unwrap_or(1);
        let (shape, step) = self.largest_batch(shape, request.memory)?;
        let shallow = (shape.depth == Depth::Keeping)
            .then(|| denoiser::plan_step(&self.unet, &shallow_of(&shape)))
            .transpose()?;
        let targets =
            self.targets(request, checked, &adaptation, &wordings, regional.as_ref(), &lengths)?;
        let look = targets
            .map(|targets| {
                let planned = looking::plan(&self.unet, &shape, &targets)?;
                Ok::<_, Error>((targets, planned))
            })
            .transpose()?;
        let look_bytes = look.as_ref().map_or(0, |(_, planned)| planned.bytes());
        // What both read in the same form is counted twice: at most so much.
        let look_weights =
            look.as_ref().map_or(Ok(0), |(_, planned)| self.unet.weight_bytes(planned))?;
        let (control_weights, control_bytes) = steering.plan(&shape)?;
        let encoder = (checked.image.is_some() || inpaints)
            .then(|| Encoder::plan(&self.gpu, &self.vae, checked.size, request.tile))
            .transpose()?;
        let decoder = self.decoder_within(checked.size, request)?;
        let config = &self.unet.config;
        let mut keys_values =
            KeysValues::plan(&self.unet, config, &shape.updates, &shape, encodings)?;
        let variants = || wordings.iter().chain(&summary).flat_map(|wording| &wording.variants);
        let mut towers = Vec::new();
        let mut text_weights = 0;
        for (i, (encoder, network)) in self.model.text_encoders.iter().zip(&self.texts).enumerate()
        {
            let plans = || variants().filter_map(|variant| Some(&variant.encoders.get(i)?.plan));
            text_weights += plans().next().map_or(Ok(0), |plan| plan.weight_bytes(network))?;
            // Who reads the last layer but one needs the last for a summary alone.
            let whole = !encoder.reading.before_last || encoder.reading.pooled;
            if whole && request.clip_skip == 0 {
                towers.push((i, encoder.network, plans().flat_map(TextPlan::graphs).collect()));
            }
        }
        adaptation.check_use(&numbers, &towers, &[&step.graph, keys_values.graph()])?;
        drop(towers);
        let needs = Needs {
            text: text_weights,
            unet: self.unet.weight_bytes(&step)?
                + control_weights
                + look_weights
                + keys_values.weight_bytes(&self.unet)?,
            decoder: decoder.weight_bytes(self.vaes())?,
            encoder: encoder.as_ref().map_or(Ok(0), |encoder| encoder.weight_bytes(&self.vae))?,
            sampling: step.bytes()
                + shallow.as_ref().map_or(0, PlannedGraph::bytes)
                + control_bytes
                + look_bytes,
            preparing: keys_values.bytes(),
            decoding: decoder.bytes(),
            encoding: encoder.as_ref().map_or(0, Encoder::bytes),
        };
        let shallow_weights =
            shallow.as_ref().map_or(Ok(0), |shallow| self.unet.weight_bytes(shallow))?;
        let beside = control_weights + shallow_weights;
        let savings = needs
            .within(request.memory, |room| self.streamed(&step, &keys_values, beside, room))?;
        keys_values.within = savings.streamed.map(|streamed| streamed.keys_values);
        let memory = needs.plan(savings);
        let phases = regional
            .map_or_else(Vec::new, |regional| regional.phases(&lengths, &shape, request.batch));
        Ok(RequestPlan {
            wordings,
            summary,
            numbers: sizes::numbers(request, checked),
            intervals,
            adaptation,
            phases,
            rows,
            steering,
            encoder,
            shape,
            step,
            shallow,
            predictions,
            look,
            guided: limited,
            keys_values,
            decoder,
            memory,
            savings,
        })
    }

    /// How a step's weights come and go within `room` bytes, in which there are `beside` bytes of
    /// weights that stay.
    fn streamed(
        &self,
        step: &PlannedGraph<StepInputs>,
        keys_values: &KeysValues,
        beside: u64,
        room: u64,
    ) -> Result<std::result::Result<Streamed, TooLittle>> {
        let for_keys = keys_values.least_bytes(&self.unet)?;
        let beside = beside + for_keys;
        let within = room.saturating_sub(beside);
        Ok(match self.unet.held(step, within)? {
            Ok(held) => {
                Ok(Streamed { held, within, keys_values: for_keys, bytes: held.bytes() + beside })
            }
            Err(TooLittle { least }) => Err(TooLittle { least: least + beside }),
        })
    }

    /// What it comes to that weights are brought anew, where they are.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn streaming(&self, prepared: &PreparedRequest<'_>) -> Result<Option<StreamingCost>> {
        let mut cost = StreamingCost { each: 0, calls: 0, host: 0, seconds: None };
        let first = (&prepared.checked, &prepared.plan);
        let second = prepared.second.as_ref().map(|second| (&second.checked, &second.plan));
        let (mut bytes, mut rate) = (0, None);
        for (checked, plan) in std::iter::once(first).chain(second) {
            let Some(Streamed { held, .. }) = plan.savings.streamed else { continue };
            let parts = prepared.request.batch.div_ceil(plan.shape.batch.max(1));
            let whole = checked.plan.steps.len().div_ceil(prepared.request.cache.max(1));
            cost.each = cost.each.max(held.streamed);
            cost.host = cost.host.max(held.host);
            cost.calls += parts * whole;
            bytes += held.streamed * (parts * whole) as u64;
            rate = self.unet.rate(&plan.step)?;
        }
        cost.seconds = rate.map(|rate| bytes as f64 / rate);
        Ok((cost.calls > 0).then_some(cost))
    }

    /// A decoder in as large tiles as the budget allows.
    fn decoder_within(&self, size: [usize; 2], request: &Request) -> Result<Decoder> {
        let plan = |tile| Decoder::plan(&self.gpu, self.vaes(), size, tile);
        let mut decoder = plan(request.tile)?;
        let Some(memory) = request.memory else { return Ok(decoder) };
        let weights = decoder.weight_bytes(self.vaes())?;
        let mut side = size[0].max(size[1]) * self.factor();
        while decoder.bytes() + weights > memory && self.tiny_vae.is_none() {
            side /= 2;
            match plan(Some(side)) {
                Ok(smaller) => decoder = smaller,
                // Tiles get no smaller.
                Err(_) => break,
            }
        }
        Ok(decoder)
    }

    /// Words of a prompt that the model does not know, where it says what it knows.
    fn unknown_words(&self, request: &Request, prompt: &str) -> Vec<String> {
        let of_concepts = request
            .concepts
            .iter()
            .flat_map(|applied| &applied.concept().words)
            .map(|word| word.text.as_str());
        let names = of_concepts.chain(self.model.fused.iter().map(|word| word.text.as_str()));
        self.model.known.as_ref().map_or(Vec::new(), |known| known.unknown_words(prompt, names))
    }

    /// A step for as many pictures of `shape`'s batch as fit at once. They do not depend on each
    /// other.
    fn largest_batch(
        &self,
        mut shape: StepShape,
        memory: Option<u64>,
    ) -> Result<(StepShape, PlannedGraph<StepInputs>)> {
        let too_much = |step: &PlannedGraph<StepInputs>| -> Result<bool> {
            let Some(memory) = memory else { return Ok(false) };
            Ok(self.unet.weight_bytes(step)? + step.bytes() > memory)
        };
        let all = shape.batch;
        let mut found = loop {
            let step = denoiser::plan_step(&self.unet, &shape)?;
            if shape.batch == 1 {
                step.check(&self.gpu, "sampling", || self.largest_square(&shape))?;
            }
            if step.fits() && (shape.batch == 1 || !too_much(&step)?) {
                break step;
            }
            shape.batch = shape.batch.div_ceil(2);
        };
        // Where weights come anew with each call, the more pictures a call makes the better.
        if let Some(memory) = memory.filter(|_| all > 1)
            && shape.batch == 1
            && too_much(&found)?
        {
            let mut batch = all;
            while batch > 1 {
                let larger = StepShape { batch, ..shape.clone() };
                let step = denoiser::plan_step(&self.unet, &larger)?;
                // As much again for what stays.
                let room = memory.saturating_sub(2 * step.bytes());
                if step.fits() && self.unet.held(&step, room)?.is_ok() {
                    (shape, found) = (larger, step);
                    break;
                }
                batch = batch.div_ceil(2);
            }
        }
        Ok((shape, found))
    }

    /// A hint at what would fit.
    fn largest_square(&self, shape: &StepShape) -> String {
        let fits = |side: usize| {
            let square = StepShape { batch: 1, height: side, width: side, ..shape.clone() };
            denoiser::plan_step(&self.unet, &square).is_ok_and(|plan| plan.fits())
        };
        let (mut low, mut high) = (0, shape.height.max(shape.width));
        while low + 1 < high {
            let middle = (low + high) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        let side = low * self.factor();
        format!("the largest square that fits is {side}x{side} pixels")
    }
}
