//! The sampling loop: one program a step, from the state through the UNet and the sampler's update
//! back to the state.

use std::sync::Arc;

use crate::backend::Program;
use crate::graph::Array;
use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::nn::sinusoids;
use crate::scheduler::sampler::{self, SLOTS};

use super::compose::Compose;
use super::denoiser::{KeysValues, Phase, PromptInputs, StepInputs, StepShape};
use super::error::{Error, Result};
use super::guided::{Guided, HostState, Kept};
use super::looking::{self, Look};
use super::network::{LoadedNetwork, Ready};
use super::noise::Noise;
use super::updates::{Mask, UpdateInputs};
use crate::watch::Parts;

/// A step's program, ready for pictures of its shape.
pub(crate) struct Sampling {
    pub shape: StepShape,
    pub program: Ready<StepInputs>,
    /// That of steps in between, which take deep features of earlier ones.
    pub shallow: Option<Ready<StepInputs>>,
    /// What moves latents in the first steps.
    pub look: Option<Look>,
}

/// What a run goes through.
pub(crate) struct SamplingRun<'a> {
    pub plan: &'a sampler::SamplingPlan,
    /// Where it starts.
    pub latents: &'a [f32],
    pub kept: Option<&'a Kept>,
    /// What a model made for inpainting reads beside the latents, see
    /// [`StepShape::beside`]. Nothing else takes it.
    pub beside: Option<&'a Array>,
    /// What holds where, from which step on.
    pub phases: &'a [Phase],
    /// What is read from which step on; the first is set already, unless LoRAs take turns.
    pub encoded: &'a [EncodedInterval],
    pub keys_values: &'a KeysValues,
    /// Where updates act on it.
    pub rows: &'a [Mask],
    /// What guidance is where the host computes it; none: all of it, in each step.
    pub guided: Option<&'a Guided>,
    /// The whole UNet runs in every so many calls, where there is a shallow program.
    pub cache: usize,
    /// How LoRAs come together; anything but all together is for steps that the host takes.
    pub compose: Compose,
}

/// What the model reads from a step on.
pub(crate) struct EncodedInterval {
    pub from: usize,
    pub told: Told,
}

/// What a model is told by prompts.
#[derive(Clone)]
pub(crate) struct Told {
    /// Encodings `[halves, tokens, width]`, those of regions one after another; one, or one for each
    /// cross-attention.
    pub contexts: Arc<[Array]>,
    /// Of models that take it: for each half, the features of sizes and the pooled prompt.
    pub addition: Arc<[Vec<f32>]>,
}

impl Told {
    /// Encodings alone.
    pub fn encodings(contexts: Vec<Array>) -> Told {
        Told { contexts: contexts.into(), addition: Arc::new([]) }
    }

    /// That of the prompt's own half.
    pub fn own_addition(&self) -> Array {
        let values = self.addition.last().cloned().unwrap_or_default();
        Array::f32([1, values.len()], values)
    }

    /// The addition for all rows of a batch: the halves one after another.
    pub fn addition_of(&self, shape: &StepShape) -> Array {
        let of = |half: usize| self.addition.get(half).or(self.addition.last());
        let rows = (0..shape.halves()).flat_map(|half| {
            std::iter::repeat_n(of(half).map_or(&[][..], Vec::as_slice), shape.batch)
        });
        let values: Vec<f32> = rows.flatten().copied().collect();
        Array::f32([shape.rows(), values.len() / shape.rows().max(1)], values)
    }
}

/// Where a run is.
pub(crate) struct At<'a> {
    /// Steps before this one, of all.
    pub done: usize,
    pub of: usize,
    pub step: &'a sampler::SamplingStep,
    /// The UNet's features of the timestep.
    pub time: &'a Array,
}

/// What goes along with a sampling run: control models, which write into it, or who records it.
pub(crate) trait Companion {
    /// Another phase of regions holds from now on.
    fn enter(&mut self, _phase: &Phase) -> Result<()> {
        Ok(())
    }

    /// Other prompts are read from now on.
    fn set_prompt(&mut self, _shape: &StepShape, _told: &Told) -> Result<()> {
        Ok(())
    }

    /// A step comes next, whose own inputs are written.
    fn before(&mut self, _program: &Ready<StepInputs>, _at: &At) -> Result<()> {
        Ok(())
    }

    /// A step is done; its outputs can be read.
    fn after(&mut self, _program: &Ready<StepInputs>, _at: &At) -> Result<()> {
        Ok(())
    }

    /// Whether it wants to see what comes of a step, whose shape must say that it is shown.
    fn looks_at(&self, _at: &At) -> bool {
        false
    }

    /// What the step takes the finished latents for, `[batch, height, width, channels]`.
    fn look(&mut self, _at: &At, _originals: &[f32]) -> Result<()> {
        Ok(())
    }
}

impl Sampling {
    /// Makes the keys and values of encoded prompts, once for all steps in which they are read, and
    /// sets the strengths of the updates.
    pub fn set_prompt(
        &self,
        network: &LoadedNetwork<UNetConfig>,
        keys_values: &KeysValues,
        told: &Told,
        rows: &[Mask],
    ) -> Result<()> {
        self.set_prompt_for(network, keys_values, told, rows, None)
    }

    /// The same, where `only` one of the updates acts.
    fn set_prompt_for(
        &self,
        network: &LoadedNetwork<UNetConfig>,
        keys_values: &KeysValues,
        told: &Told,
        rows: &[Mask],
        only: Option<usize>,
    ) -> Result<()> {
        for program in self.programs() {
            self.shape.updates.write_only(program, &program.inputs.updates, only)?;
            if let Some(input) = program.inputs.addition {
                program.write(input, &told.addition_of(&self.shape))?;
            }
        }
        let mut readers: Vec<(&Program, &PromptInputs)> =
            self.programs().map(|ready| (&**ready, &ready.inputs.prompt)).collect();
        if let Some(look) = self.look.as_ref().map(Look::program) {
            self.shape.updates.write_only(look, &look.inputs.updates, only)?;
            if let Some(input) = look.inputs.addition {
                look.write(input, &told.own_addition())?;
            }
            readers.push((look, &look.inputs.prompt));
        }
        keys_values.write(network, &told.contexts, rows, only, &readers)
    }

    /// The program of whole steps, and that of shallow ones.
    fn programs(&self) -> impl Iterator<Item = &Ready<StepInputs>> {
        std::iter::once(&self.program).chain(&self.shallow)
    }

    /// For distilled models, which are told the guidance that they stand in for (Meng et al. 2023;
    /// as diffusers does).
    pub fn set_distilled_guidance(&self, config: &UNetConfig, guidance: f32) -> Result<()> {
        for program in self.programs() {
            if let (Some(input), Some(channels)) =
                (program.inputs.guidance, config.time_cond_proj_dim)
            {
                let rows = self.shape.rows();
                let features =
                    sinusoids(&vec![(guidance - 1.0) * 1000.0; rows], channels, false, 1.0);
                program.write(input, &Array::f32([rows, channels], features))?;
            }
        }
        self.look.iter().try_for_each(|look| look.set_distilled_guidance(config, guidance))
    }

    /// Runs the run from its latents (slot 0 at its start); the final latents,
    /// `[batch, height, width, channels]`.
    pub fn run(
        &self,
        network: &LoadedNetwork<UNetConfig>,
        run: &SamplingRun<'_>,
        noise: &mut Noise,
        companion: &mut dyn Companion,
        progress: &mut Parts,
    ) -> Result<Array> {
        let &SamplingRun { plan, latents, kept, phases, .. } = run;
        let (config, program) = (&network.config, &self.program);
        let inputs = &program.inputs;
        let slots = self.shape.slots;
        let latent = self.shape.latent(config);
        let used = used_slots(plan);
        let mut on_host = self.shape.on_host.then(|| HostState::new(latents, used.len() > 1));
        if on_host.is_none() {
            let mut state = latents.to_vec();
            state.resize(latents.len() * slots, 0.0);
            program.write(inputs.state, &Array::f32([&[slots][..], &latent].concat(), state))?;
        }
        if let (Some(kept), Some(inputs)) = (kept, &inputs.inpainting) {
            let [_, height, width, channels] = latent;
            let spread = |value: &dyn Fn(f32) -> f32| -> Array {
                let values = kept.mask.iter();
                let values =
                    values.flat_map(|&m| std::iter::repeat_n(value(m), channels)).collect();
                Array::f32([height, width, channels], values)
            };
            program.write(inputs.inside, &spread(&|m| m))?;
            program.write(inputs.outside, &spread(&|m| 1.0 - m))?;
            program.write(inputs.original, &Array::f32(latent, kept.original.clone()))?;
            program.write(inputs.gaussian, &Array::f32(latent, kept.gaussian.clone()))?;
        }
        for program in self.programs() {
            if let (Some(input), Some(beside)) = (program.inputs.beside, run.beside) {
                program.write(input, beside)?;
            }
        }
        let rows = self.shape.rows();
        let in_full = Guided::default();
        let guided = run.guided.unwrap_or(&in_full);
        let sampling_step = |call: usize| plan.step_of(call);
        let count = self.shape.updates.len();
        // Which update acts alone, and in which order they are to.
        let mut acting: Option<usize> = None;
        let turns = |call: usize| run.compose.active(sampling_step(call), count);
        // Calls since the deep features were made.
        let mut since = 0;
        for (done, step) in plan.steps.iter().enumerate() {
            progress(done, plan.steps.len())?;
            let phase = phases.iter().find(|phase| phase.from == done);
            if let Some(phase) = phase {
                let read = self.programs().map(|ready| {
                    let inputs = &ready.inputs;
                    (&**ready, &inputs.prompt, &inputs.updates)
                });
                let look = self.look.as_ref().map(Look::program);
                let look = look.map(|look| (&**look, &look.inputs.prompt, &look.inputs.updates));
                for (program, prompt, updates) in read.chain(look) {
                    let (program, updates): (&Program, &UpdateInputs) = (program, updates);
                    phase.write(program, prompt)?;
                    phase.write_masks(program, updates)?;
                }
                companion.enter(phase)?;
            }
            // The first part of a batch leaves the last words behind, so those of step 0 are set
            // before each.
            let encoded = run.encoded.iter().find(|encoded| done > 0 && encoded.from == done);
            if let Some(encoded) = encoded {
                acting = None;
                self.set_prompt(network, run.keys_values, &encoded.told, run.rows)?;
                companion.set_prompt(&self.shape, &encoded.told)?;
            }
            // What is read or where it holds is another now: deep features know nothing of it.
            let whole = done == 0 || since >= run.cache || phase.is_some() || encoded.is_some();
            let program = match &self.shallow {
                Some(shallow) if !whole => shallow,
                _ => &self.program,
            };
            since = if whole { 1 } else { since + 1 };
            let inputs = &program.inputs;
            let time = unet::time_features(config, &vec![step.timestep; rows]);
            let time = Array::f32([rows, config.block_out_channels[0]], time);
            program.write(inputs.time, &time)?;
            program.write(inputs.input_scale, &Array::f32([1], vec![step.input_scale]))?;
            let told = run.encoded.iter().rev().find(|encoded| encoded.from <= done);
            let mut act = |only: Option<usize>| -> Result<()> {
                let changes = std::mem::replace(&mut acting, only) != only;
                match told.filter(|_| changes) {
                    Some(EncodedInterval { told, .. }) => {
                        self.set_prompt_for(network, run.keys_values, told, run.rows, only)
                    }
                    None => Ok(()),
                }
            };
            let turns = turns(done);
            if let [only] = turns[..] {
                act(only)?;
            }
            // The first call of a sampling step: others go on from what it has left.
            let begins = done == 0 || sampling_step(done) != sampling_step(done - 1);
            if let Some(look) = self.look.as_ref().filter(|_| begins)
                && looking::acts(sampling_step(done), plan.count)
            {
                let at = [step.timestep, step.input_scale];
                match &mut on_host {
                    Some(state) => look.move_latents(config, state.sample_mut(), at, latent)?,
                    None => {
                        let mut state = program.state(inputs.state)?.values().to_vec();
                        if let Some(sample) = state.get_mut(..latents.len()) {
                            look.move_latents(config, sample, at, latent)?;
                        }
                        let shape = [&[slots][..], &latent].concat();
                        program.write(inputs.state, &Array::f32(shape, state))?;
                    }
                }
            }
            let drawn = if step.needs_noise { noise.draw() } else { Vec::new() };
            let at = At { done, of: plan.steps.len(), step, time: &time };
            let looked_at = companion.looks_at(&at);
            let mut before = None;
            match &on_host {
                Some(state) => {
                    let sample = Array::f32([&[1][..], &latent].concat(), state.sample().to_vec());
                    program.write(inputs.state, &sample)?;
                }
                None => {
                    let columns = || {
                        used.iter().copied().chain([sampler::OUTPUT_COLUMN, sampler::NOISE_COLUMN])
                    };
                    let matrix = used
                        .iter()
                        .flat_map(|&slot| columns().map(move |column| step.matrix[slot][column]))
                        .collect();
                    program.write(inputs.matrix, &Array::f32([slots, slots + 2], matrix))?;
                    if step.needs_noise {
                        program.write(inputs.noise, &Array::f32(latent, drawn.clone()))?;
                    }
                    if let (Some(_), Some(inputs)) = (kept, &inputs.inpainting) {
                        program.write(inputs.signal, &Array::f32([1], vec![step.after.signal]))?;
                        program
                            .write(inputs.noise_level, &Array::f32([1], vec![step.after.noise]))?;
                    }
                    if looked_at {
                        before = Some(program.state(inputs.state)?);
                    }
                }
            }
            companion.before(program, &at)?;
            let mut mean: Option<Vec<f32>> = None;
            for only in &turns {
                if turns.len() > 1 {
                    act(*only)?;
                }
                program.run();
                // Waited for, so that the bar tells the truth and nothing piles up.
                program.wait()?;
                if turns.len() > 1 {
                    let prediction = program.output(0)?;
                    let sum = mean.get_or_insert_with(|| vec![0.0; prediction.values().len()]);
                    let share = 1.0 / turns.len() as f32;
                    sum.iter_mut().zip(prediction.values()).for_each(|(s, v)| *s += share * v);
                }
            }
            if whole
                && let Some(shallow) = &self.shallow
                && let Some(deep) = shallow.inputs.deep
            {
                shallow.take(deep, program, 1)?;
                shallow.wait()?;
            }
            companion.after(program, &at)?;
            if let Some(state) = &mut on_host {
                let prediction = match mean {
                    Some(mean) => mean,
                    None => program.output(0)?.values().to_vec(),
                };
                let output = guided.apply(&prediction, self.shape.guidance, self.shape.batch, done);
                if looked_at {
                    companion.look(&at, &original_of(step, state.sample(), &output))?;
                }
                state.step(step, &output, &drawn, kept, latent)?;
            } else if let Some(before) = before {
                let output = program.output(0)?;
                companion.look(&at, &original_of(step, before.values(), output.values()))?;
            }
        }
        progress(plan.steps.len(), plan.steps.len())?;
        let sample = match on_host {
            Some(state) => state.into_sample(),
            None => {
                let state = program.state(inputs.state)?;
                state.values().get(..latents.len()).unwrap_or_default().to_vec()
            }
        };
        if sample.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "sample" });
        }
        Ok(Array::f32(latent, sample))
    }
}

/// What a step takes the finished sample for.
fn original_of(step: &sampler::SamplingStep, sample: &[f32], output: &[f32]) -> Vec<f32> {
    let [of_sample, of_output] = step.original;
    sample.iter().zip(output).map(|(x, out)| of_sample * x + of_output * out).collect()
}

/// The state slots that a run touches.
pub(crate) fn used_slots(plan: &sampler::SamplingPlan) -> Vec<usize> {
    (0..SLOTS).filter(|&slot| plan.slots[slot]).collect()
}
