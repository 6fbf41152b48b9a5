//! Sampling with a concept's updates, while kernels add up what the layers read.

use std::sync::Arc;

use crate::backend::{Program, Weights};
use crate::concept::UpdateSet;
use crate::graph::{Array, Graph, Node, Origin, Plan, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::nn::{Layers, sinusoids};
use crate::random::{BatchNoise, RngKind};
use crate::scheduler::sampler::{
    self, NOISE_COLUMN, OUTPUT_COLUMN, PlanOptions, SLOTS, SamplerKind,
};
use crate::sd::source::ComponentSource;

use super::base::{Base, Source};
use super::collect::Runner;
use super::groups::{Layout, low_rank, ranks, unet_inputs};
use super::statistics::{Statistics, triangle};
use super::{Error, Result};

/// A UNet pass that also adds up its layers' inputs, and the sampler that it stands in.
pub(super) struct Sampler {
    program: Program,
    weights: Weights,
    plan: Arc<sampler::Plan>,
    /// Pictures at a time.
    batch: usize,
    size: [usize; 2],
    channels: usize,
    /// For each site: summed by the device, or read back pass by pass because its sums are too
    /// large to be bound.
    sites: Vec<Place>,
    passes: u64,
}

/// A step of sampling.
pub(super) struct Sampled<'a> {
    /// Steps before it, of all.
    pub done: usize,
    pub of: usize,
    pub timestep: f32,
    /// What the UNet was given, `[pictures, height, width, channels]`.
    pub sample: &'a [f32],
    /// What it predicted for the prompt, and for the empty one where there is guidance.
    pub told: &'a [f32],
    pub untold: Option<&'a [f32]>,
}

/// Keys and values of a prompt for every cross-attention.
pub(super) struct KeysValues {
    program: Program,
    attentions: usize,
}

/// What the graph's inputs that hold sums begin with.
const SUMS: &str = "sums.";

enum Place {
    /// The graph input that holds the sums, and inputs in each pass.
    Device { name: String, rows: u64 },
    /// Number of the output.
    Host { output: usize, statistics: Statistics },
}

impl Sampler {
    pub fn new(
        runner: &Runner,
        layout: &Layout,
        updates: &UpdateSet,
        batch: usize,
        size: [usize; 2],
        steps: usize,
    ) -> Result<Sampler> {
        let base = runner.base;
        let source =
            Source::new(ComponentSource(base.checkpoint.unet.clone()), &runner.unet, updates);
        let weights = Weights::new(runner.gpu, Arc::new(source), runner.precision);
        let mut graph = Graph::new();
        let tokens = base.tokenizer.max_length();
        let (outputs, sites) = build(
            &mut graph,
            &base.unet,
            layout,
            updates,
            (batch, size),
            tokens,
            runner.gpu.max_binding(),
        )?;
        let program = Program::new(&weights, &graph, &outputs)?;
        let plan = Arc::new(sampler::plan(
            SamplerKind::DPMPP_2M,
            &base.scheduler,
            &PlanOptions::new(steps),
        )?);
        Ok(Sampler {
            program,
            weights,
            plan,
            batch,
            size,
            channels: base.unet.in_channels,
            sites,
            passes: 0,
        })
    }

    /// Keys and values of encodings `[tokens, width]`: one for all cross-attentions, or one for
    /// each; by weights with `updates`, which are the sampler's or none.
    pub fn read(
        &self,
        runner: &Runner,
        encodings: &[Vec<f32>],
        tokens: usize,
        updates: &UpdateSet,
    ) -> Result<KeysValues> {
        let base = runner.base;
        let width = base.unet.cross_attention_dim;
        let mut graph = Graph::new();
        let texts: Vec<Tensor> = (0..encodings.len())
            .map(|i| graph.input(format!("text.{i}"), [1, tokens, width]))
            .collect();
        let mut layers = Layers::with_low_rank(&mut graph, vec![low_rank(ranks(updates))]);
        let pairs = unet::keys_values(&mut layers, &base.unet, &texts)?;
        let outputs: Vec<Tensor> = pairs.into_iter().flat_map(|(k, v)| [k, v]).collect();
        let program = Program::new(&self.weights, &graph, &outputs)?;
        for (i, encoding) in encodings.iter().enumerate() {
            program
                .write(&format!("text.{i}"), &Array::f32([1, tokens, width], encoding.clone()))?;
        }
        program.run();
        program.wait()?;
        Ok(KeysValues { program, attentions: base.attentions.len() })
    }

    /// The prediction for what stands in `sample`, after `text`; its inputs are added up.
    fn predict(&mut self, text: &KeysValues) -> Result<Array> {
        for i in 0..text.attentions {
            self.program.take(&format!("keys.{i}"), &text.program, 2 * i)?;
            self.program.take(&format!("values.{i}"), &text.program, 2 * i + 1)?;
        }
        self.program.run();
        for place in &mut self.sites {
            if let Place::Host { output, statistics } = place {
                statistics.push(self.program.output(*output)?.values());
            }
        }
        self.passes += 1;
        Ok(self.program.output(0)?)
    }

    /// Samples pictures from noise, `seed` and those that follow it. Both halves of guidance are
    /// recorded: in use, the layers answer both.
    pub fn run(
        &mut self,
        base: &Base,
        prompt: &KeysValues,
        guidance: Option<(&KeysValues, f32)>,
        seed: u64,
        watch: &mut dyn FnMut(Sampled),
    ) -> Result<()> {
        let [height, width] = self.size;
        let (batch, pixels, channels) = (self.batch, height * width, self.channels);
        let shape = [batch, height, width, channels];
        let mut noise = BatchNoise::new(RngKind::Torch, seed, batch);
        let mut draw = || -> Vec<f32> {
            let drawn = noise.normal(pixels * channels);
            drawn
                .chunks_exact((pixels * channels).max(1))
                .flat_map(|planes| channels_last(planes, pixels))
                .collect()
        };
        let elements = batch * pixels * channels;
        let mut state: Vec<Vec<f32>> = vec![vec![0.0; elements]; SLOTS];
        state[0] = draw().iter().map(|v| v * self.plan.initial_scale).collect();
        if let Some(width) = base.unet.time_cond_proj_dim {
            // Distilled models are told a guidance; 1 is none.
            self.program.write(
                "guidance",
                &Array::f32([batch, width], sinusoids(&vec![0.0; batch], width, false, 1.0)),
            )?;
        }
        let plan = Arc::clone(&self.plan);
        for (done, step) in plan.steps.iter().enumerate() {
            let time = unet::time_features(&base.unet, &vec![step.timestep; batch]);
            self.program
                .write("time", &Array::f32([batch, base.unet.block_out_channels[0]], time))?;
            let sample: Vec<f32> = state[0].iter().map(|v| v * step.input_scale).collect();
            self.program.write("sample", &Array::f32(shape, sample.clone()))?;
            let told = self.predict(prompt)?;
            let untold = guidance.map(|(empty, _)| self.predict(empty)).transpose()?;
            watch(Sampled {
                done,
                of: plan.steps.len(),
                timestep: step.timestep,
                sample: &sample,
                told: told.values(),
                untold: untold.as_ref().map(Array::values),
            });
            let mut output = told.values().to_vec();
            if let (Some(untold), Some((_, scale))) = (&untold, guidance) {
                output
                    .iter_mut()
                    .zip(untold.values())
                    .for_each(|(told, untold)| *told = untold + scale * (*told - untold));
            }
            let fresh = if step.needs_noise { draw() } else { vec![0.0; elements] };
            let old = state.clone();
            for (row, slot) in step.matrix.iter().zip(&mut state) {
                for (at, value) in slot.iter_mut().enumerate() {
                    let kept: f32 =
                        row.iter().zip(&old).map(|(factor, slot)| factor * slot[at]).sum();
                    *value = kept + row[OUTPUT_COLUMN] * output[at] + row[NOISE_COLUMN] * fresh[at];
                }
            }
        }
        if state[0].iter().any(|v| !v.is_finite()) {
            return Err(Error::option(
                "sampling",
                "the latents have values that are no numbers; use f32 weights or smaller scales",
            ));
        }
        Ok(())
    }

    /// What was added up, one for each site.
    pub fn finish(self, layout: &Layout) -> Result<Vec<Statistics>> {
        let Sampler { program, sites, passes, .. } = self;
        let read = |(place, site): (Place, &super::groups::Site)| match place {
            Place::Host { statistics, .. } => Ok(statistics),
            Place::Device { name, rows } => {
                let mut statistics =
                    Statistics::from_sums(site.width, 0, vec![0.0; triangle(site.width)]);
                statistics.push_planes(program.state(&name)?.values(), rows * passes);
                Ok(statistics)
            }
        };
        sites.into_iter().zip(&layout.sites).map(read).collect()
    }
}

/// The pass's outputs (the prediction first) and where each site's inputs go.
fn build(
    graph: &mut Graph,
    config: &UNetConfig,
    layout: &Layout,
    updates: &UpdateSet,
    (batch, size): (usize, [usize; 2]),
    tokens: usize,
    max_binding: u64,
) -> Result<(Vec<Tensor>, Vec<Place>)> {
    let inputs = unet_inputs(graph, config, batch, size, tokens);
    let mut layers = Layers::with_low_rank(graph, vec![low_rank(ranks(updates))]);
    layers.hook(layout.names());
    let prediction = inputs.build(&mut layers, config)?;
    let hooks = layers.hooks().to_vec();
    let mut outputs = vec![prediction];
    let mut places = Vec::new();
    for (site, input) in layout.sites.iter().zip(layout.inputs(&hooks)?) {
        let rows = graph.shape(input).rows() as u64;
        let n = site.width;
        if (8 * n * n) as u64 > max_binding {
            outputs.push(input);
            places.push(Place::Host { output: outputs.len() - 1, statistics: Statistics::new(n) });
            continue;
        }
        let name = format!("{SUMS}{}", site.name);
        let sums = graph.input(name.clone(), [2, n, n]);
        let added = graph.outer_sums(sums, input)?;
        graph.assign(sums, added)?;
        places.push(Place::Device { name, rows });
    }
    Ok((outputs, places))
}

/// What the model was trained at.
pub(super) fn latent_size(base: &Base) -> [usize; 2] {
    let side = (base.vae.sample_size / base.vae.downscale()).max(1);
    base.unet.sample_size.unwrap_or([side, side])
}

/// `[channels, pixels]`, as torch draws, to `[pixels, channels]`.
fn channels_last(planes: &[f32], pixels: usize) -> Vec<f32> {
    (0..pixels).flat_map(|pixel| planes.iter().skip(pixel).step_by(pixels).copied()).collect()
}

/// Bytes on the device while a concept of these updates is sampled: weights, activations and inputs
/// without the sums.
pub(super) fn planned_bytes(
    runner: &Runner,
    layout: &Layout,
    updates: &UpdateSet,
    size: Option<[usize; 2]>,
) -> Result<u64> {
    let base = runner.base;
    let size = size.unwrap_or_else(|| latent_size(base));
    let mut graph = Graph::new();
    let tokens = base.tokenizer.max_length();
    let (outputs, _) = build(
        &mut graph,
        &base.unet,
        layout,
        updates,
        (1, size),
        tokens,
        runner.gpu.max_binding(),
    )?;
    let plan = Plan::new(&graph, &outputs, runner.gpu.target());
    let source = Source::new(ComponentSource(base.checkpoint.unet.clone()), &runner.unet, updates);
    let weights = Weights::new(runner.gpu, Arc::new(source), runner.precision)
        .planned_bytes(&graph, &plan)?;
    Ok(weights + plan.activation_bytes() + input_bytes(&graph, |name| !name.starts_with(SUMS)))
}

fn input_bytes(graph: &Graph, counts: impl Fn(&str) -> bool) -> u64 {
    let of = |node: &Node| match &node.origin {
        Origin::Input { name } if counts(name) => node.shape.elements() as u64 * 4,
        _ => 0,
    };
    graph.nodes().iter().map(of).sum()
}

/// A pass of the UNet that adds up the inputs of `layers`, as fusion runs it: what it will cost,
/// without a model.
#[derive(Clone, Debug)]
pub struct Recording {
    pub graph: Graph,
    pub outputs: Vec<Tensor>,
    /// Bytes of the sums on the device.
    pub device_bytes: u64,
    /// Bytes of the sums on the host, where they wait for their file.
    pub host_bytes: u64,
}

impl Recording {
    /// For latents of `size` and prompts of `tokens`; sums that no binding of `max_binding` bytes
    /// holds are made on the host.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn of(
        config: &UNetConfig,
        layers: &[String],
        size: [usize; 2],
        tokens: usize,
        max_binding: u64,
    ) -> Result<Recording> {
        let mut graph = Graph::new();
        let inputs = unet_inputs(&mut graph, config, 1, size, tokens);
        let mut building = Layers::new(&mut graph);
        building.hook(layers.iter().cloned());
        inputs.build(&mut building, config)?;
        let hooks = building.hooks().to_vec();
        let layout = Layout::hooked(&graph, hooks);
        let mut graph = Graph::new();
        let (outputs, _) = build(
            &mut graph,
            config,
            &layout,
            &UpdateSet::default(),
            (1, size),
            tokens,
            max_binding,
        )?;
        let device_bytes = input_bytes(&graph, |name| name.starts_with(SUMS));
        Ok(Recording { graph, outputs, device_bytes, host_bytes: host_bytes(&layout) })
    }
}

/// Bytes of a concept's sums on the host.
pub(super) fn host_bytes(layout: &Layout) -> u64 {
    layout.sites.iter().map(|site| triangle(site.width) as u64 * 8).sum()
}

/// Bytes of a concept's sums on the device.
pub(super) fn device_bytes(layout: &Layout, max_binding: u64) -> u64 {
    let planes = layout.sites.iter().map(|site| (8 * site.width * site.width) as u64);
    planes.filter(|bytes| *bytes <= max_binding).sum()
}
