//! The sampling loop: one program a step, from the state through the UNet and the sampler's update
//! back to the state.

use std::sync::Arc;

use crate::backend::Program;
use crate::graph::ops::Reach;
use crate::graph::{Array, Graph, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet::{self, UNetInputs};
use crate::nn::sinusoids;
use crate::scheduler::sampler::{self, SLOTS};

use super::adaptation::{Mask, Updates};
use super::controls::{ControlInputs, Prepared};
use super::error::Result;
use super::network::{Network, Planned};
use super::noise::Noise;
use super::regions::{self, Phase};

/// What a step's program is made for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampleShape {
    pub batch: usize,
    /// Of the latents.
    pub height: usize,
    pub width: usize,
    /// Tokens of all prompts, all chunks together.
    pub tokens: usize,
    /// For each size of feature map, how far each prompt reaches; empty where one prompt holds
    /// everywhere.
    pub reach: Vec<Vec<Reach>>,
    /// Self-attention is kept within regions.
    pub isolate: bool,
    /// T2I-Adapters' feature maps are added.
    pub features: bool,
    /// ControlNets whose residuals are added.
    pub control_nets: usize,
    /// Classifier-free guidance: its scale, with both halves in one batch.
    pub guidance: Option<f32>,
    /// State slots that the sampler uses.
    pub slots: usize,
    /// After each step, what lies outside a mask is set to the original.
    pub masked: bool,
    /// Low-rank updates of the UNet. Their strengths make no other program.
    pub updates: Updates,
}

impl Default for SampleShape {
    fn default() -> Self {
        SampleShape {
            batch: 1,
            height: 1,
            width: 1,
            tokens: 1,
            reach: Vec::new(),
            isolate: false,
            features: false,
            control_nets: 0,
            guidance: None,
            slots: 1,
            masked: false,
            updates: Updates::default(),
        }
    }
}

impl SampleShape {
    /// Prompts that are encoded: the negative one and the prompt, or the prompt alone.
    pub fn halves(&self) -> usize {
        1 + usize::from(self.guidance.is_some())
    }
}

/// Plans the keys and values of encoded prompts for every cross-attention of a `network` that is
/// built as `config` says: of one encoding, or of one for each of them.
pub(super) fn keys_values<C>(
    network: &Network<C>,
    config: &UNetConfig,
    updates: &Updates,
    shape: &SampleShape,
    encodings: usize,
) -> Result<Planned> {
    network.plan(|_, graph| {
        let each = [shape.halves(), shape.tokens, config.cross_attention_dim];
        let contexts: Vec<Tensor> =
            (0..encodings).map(|i| graph.input(format!("context.{i}"), each)).collect();
        let pairs =
            unet::keys_values(&mut updates.layers(graph, &[shape.tokens]), config, &contexts)?;
        Ok(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect())
    })
}

/// Plans one step.
pub(super) fn plan(network: &Network<UNetConfig>, shape: &SampleShape) -> Result<Planned> {
    network.plan(|config, graph| build(config, graph, shape))
}

fn build(
    config: &UNetConfig,
    graph: &mut Graph,
    shape: &SampleShape,
) -> crate::graph::Result<Vec<Tensor>> {
    let &SampleShape { batch, height, width, slots, .. } = shape;
    let (halves, latent) = (shape.halves(), [batch, height, width, config.in_channels]);
    let state = graph.input("state", [slots, batch, height, width, config.in_channels]);
    let sample = graph.slice(state, 0, 0, 1)?;
    let sample = graph.reshape(sample, latent)?;
    let scale = graph.input("input_scale", [1]);
    let mut x = graph.multiply(sample, scale)?;
    if halves == 2 {
        x = graph.concat(&[x, x], 0)?;
    }
    let pairs = regions::pairs(graph, config, shape);
    let sizes = regions::inputs(graph, config, shape);
    let controls = ControlInputs::declare(graph, config, shape)?;
    let inputs = UNetInputs {
        sample: x,
        time: graph.input("time", [halves * batch, config.block_out_channels[0]]),
        prompt: regions::encodings(&pairs, &sizes, shape),
        guidance: config
            .time_cond_proj_dim
            .map(|channels| graph.input("guidance", [halves * batch, channels])),
        class: None,
        residuals: controls.residuals(),
    };
    let places = regions::places(config, shape);
    let mut output = unet::unet(&mut shape.updates.layers(graph, &places), config, &inputs)?.sample;
    if let Some(scale) = shape.guidance {
        output = graph.guidance(output, scale)?;
    }
    let noise = graph.input("noise", latent);
    let matrix = graph.input("matrix", [slots, slots + 2]);
    let mut next = graph.mix(state, output, noise, matrix)?;
    if shape.masked {
        next = keep_outside_mask(graph, next, shape, latent)?;
    }
    graph.assign(state, next)?;
    Ok(Vec::new())
}

/// The sample of `state` inside the mask; outside of it, the original noised to the level that the
/// sample has.
fn keep_outside_mask(
    graph: &mut Graph,
    state: Tensor,
    shape: &SampleShape,
    latent: [usize; 4],
) -> crate::graph::Result<Tensor> {
    let [_, height, width, channels] = latent;
    let inside = graph.input("inside", [height, width, channels]);
    let outside = graph.input("outside", [height, width, channels]);
    let (original, gaussian) = (graph.input("original", latent), graph.input("gaussian", latent));
    let (signal, level) = (graph.input("signal", [1]), graph.input("noise_level", [1]));
    let kept = graph.multiply(original, signal)?;
    let noised = graph.multiply(gaussian, level)?;
    let kept = graph.add(kept, noised)?;
    let kept = graph.multiply(kept, outside)?;
    let sample = graph.slice(state, 0, 0, 1)?;
    let sample = graph.reshape(sample, latent)?;
    let sample = graph.multiply(sample, inside)?;
    let sample = graph.add(sample, kept)?;
    let sample = graph.reshape(sample, [1, latent[0], height, width, channels])?;
    if shape.slots == 1 {
        return Ok(sample);
    }
    let memory = graph.slice(state, 0, 1, shape.slots - 1)?;
    graph.concat(&[sample, memory], 0)
}

/// A step's program, ready for pictures of its shape.
pub(super) struct Sampling {
    pub shape: SampleShape,
    pub program: Program,
}

/// Makes the keys and values of the encoded prompts for a step's `program` of `network`, which is
/// built as `config` says.
pub(super) fn set_keys_values<C>(
    program: &Program,
    network: &Network<C>,
    config: &UNetConfig,
    updates: &Updates,
    shape: &SampleShape,
    contexts: &[Array],
    rows: &[Mask],
) -> Result<()> {
    let made = network.program(&keys_values(network, config, updates, shape, contexts.len())?)?;
    for (i, context) in contexts.iter().enumerate() {
        made.write(&format!("context.{i}"), context)?;
    }
    updates.write(&made)?;
    rows.iter().try_for_each(|mask| mask.write(&made))?;
    made.run();
    for i in 0..unet::cross_attentions(config).len() {
        program.take(&format!("keys.{i}"), &made, 2 * i)?;
        program.take(&format!("values.{i}"), &made, 2 * i + 1)?;
    }
    Ok(program.wait()?)
}

/// What a run goes through.
pub(super) struct Course<'a> {
    pub plan: &'a sampler::Plan,
    /// Where it starts.
    pub latents: &'a [f32],
    pub kept: Option<&'a Kept>,
    /// What holds where, from which step on.
    pub phases: &'a [Phase],
    /// What is read from which step on; the first is set already.
    pub spoken: &'a [Spoken],
    /// Where updates act on it.
    pub rows: &'a [Mask],
}

/// What the model reads from a step on: encodings as [`Sampling::set_prompt`] takes them.
pub(super) struct Spoken {
    pub from: usize,
    pub contexts: Arc<[Array]>,
}

/// What stays as it was outside a mask.
pub(super) struct Kept {
    /// `[height, width]` of the latents, 1 where painted anew.
    pub mask: Vec<f32>,
    /// `[batch, height, width, channels]`
    pub original: Vec<f32>,
    pub gaussian: Vec<f32>,
}

impl Sampling {
    /// Makes the keys and values of the encoded prompts `[halves, tokens, width]`, those of regions
    /// one after another, once for all steps in which they are read: one encoding, or one for each
    /// cross-attention. Sets the strengths of the updates, too. `rows`: for each masked update, its
    /// factor for each token of the prompts.
    pub fn set_prompt(
        &self,
        network: &Network<UNetConfig>,
        contexts: &[Array],
        rows: &[Mask],
    ) -> Result<()> {
        let updates = &self.shape.updates;
        updates.write(&self.program)?;
        set_keys_values(
            &self.program,
            network,
            &network.config,
            updates,
            &self.shape,
            contexts,
            rows,
        )
    }

    /// For distilled models, which are told the guidance that they stand in for (Meng et al. 2023;
    /// as diffusers does).
    pub fn set_distilled_guidance(&self, config: &UNetConfig, guidance: f32) -> Result<()> {
        if let Some(channels) = config.time_cond_proj_dim {
            let rows = self.shape.halves() * self.shape.batch;
            let features = sinusoids(&vec![(guidance - 1.0) * 1000.0; rows], channels, false, 1.0);
            self.program.write("guidance", &Array::f32([rows, channels], features))?;
        }
        Ok(())
    }

    /// Runs the course from its latents (slot 0 at its start); the final latents,
    /// `[batch, height, width, channels]`.
    pub fn run(
        &self,
        network: &Network<UNetConfig>,
        course: &Course<'_>,
        noise: &mut Noise,
        controls: &mut Prepared<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Array> {
        let &Course { plan, latents, kept, phases, .. } = course;
        let config = &network.config;
        let SampleShape { batch, height, width, slots, .. } = self.shape;
        let latent = [batch, height, width, config.in_channels];
        let used = used_slots(plan);
        let mut state = latents.to_vec();
        state.resize(latents.len() * slots, 0.0);
        self.program.write(
            "state",
            &Array::f32([slots, batch, height, width, config.in_channels], state),
        )?;
        if let Some(kept) = kept {
            let spread = |value: &dyn Fn(f32) -> f32| -> Array {
                let values = kept
                    .mask
                    .iter()
                    .flat_map(|&m| std::iter::repeat_n(value(m), config.in_channels))
                    .collect();
                Array::f32([height, width, config.in_channels], values)
            };
            self.program.write("inside", &spread(&|m| m))?;
            self.program.write("outside", &spread(&|m| 1.0 - m))?;
            self.program.write("original", &Array::f32(latent, kept.original.clone()))?;
            self.program.write("gaussian", &Array::f32(latent, kept.gaussian.clone()))?;
        }
        let rows = self.shape.halves() * batch;
        for (done, step) in plan.steps.iter().enumerate() {
            progress(done, plan.steps.len());
            if let Some(phase) = phases.iter().find(|phase| phase.from == done) {
                phase.write(&self.program)?;
                phase.write_masks(&self.program)?;
                controls.enter(phase)?;
            }
            // The first part of a batch leaves the last words behind, so those of step 0 are set
            // before each.
            if let Some(spoken) =
                course.spoken.iter().find(|spoken| done > 0 && spoken.from == done)
            {
                self.set_prompt(network, &spoken.contexts, course.rows)?;
                controls.set_prompt(&self.shape, &spoken.contexts)?;
            }
            let time = unet::time_features(config, &vec![step.timestep; rows]);
            let time = Array::f32([rows, config.block_out_channels[0]], time);
            self.program.write("time", &time)?;
            controls.step(&self.program, done, plan.steps.len(), &time, step.input_scale)?;
            self.program.write("input_scale", &Array::f32([1], vec![step.input_scale]))?;
            let columns =
                || used.iter().copied().chain([sampler::OUTPUT_COLUMN, sampler::NOISE_COLUMN]);
            let matrix = used
                .iter()
                .flat_map(|&slot| columns().map(move |column| step.matrix[slot][column]))
                .collect();
            self.program.write("matrix", &Array::f32([slots, slots + 2], matrix))?;
            if step.needs_noise {
                self.program.write("noise", &Array::f32(latent, noise.draw()))?;
            }
            if kept.is_some() {
                self.program.write("signal", &Array::f32([1], vec![step.after.signal]))?;
                self.program.write("noise_level", &Array::f32([1], vec![step.after.noise]))?;
            }
            self.program.run();
            // Waited for, so that the bar tells the truth and nothing piles up.
            self.program.wait()?;
        }
        progress(plan.steps.len(), plan.steps.len());
        let state = self.program.state("state")?;
        let sample = state.values().get(..latents.len()).unwrap_or_default().to_vec();
        if sample.iter().any(|v| !v.is_finite()) {
            return Err(super::Error::NotFinite { stage: "sample" });
        }
        Ok(Array::f32(latent, sample))
    }
}

/// The state slots that a run touches.
pub(super) fn used_slots(plan: &sampler::Plan) -> Vec<usize> {
    (0..SLOTS).filter(|&slot| plan.slots[slot]).collect()
}
