//! Sampling with a concept's updates, while kernels add up what the layers read.

use crate::backend::{Held, TooLittle};
use crate::concept::AppliedSet;
use crate::graph::ops::{Reach, RegionTables};
use crate::graph::{self, Array, Graph, Origin, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::nn::Hook;
use crate::random::RngKind;
use crate::scheduler::sampler::{self, PlanOptions, SamplerKind, SamplingPlan};
use crate::sd::denoiser::{KeysValues, Phase, StepInputs, StepShape, build_step};
use crate::sd::network::{LoadedNetwork, PlannedGraph, Ready};
use crate::sd::noise::Noise;
use crate::sd::sampling::{At, Companion, Sampling, SamplingRun, Told, used_slots};
use crate::sd::updates::{Mask, Updates};
use crate::sd::{self, Compose};

use super::base::{Base, Runner};
use super::groups::{Site, StageLayers};
use super::statistics::{Statistics, triangle};
use super::{Error, Result};
use crate::watch::{Cancelled, unwatched_parts};

/// What the UNet reads of a prompt.
pub(super) struct ReadPrompt {
    /// One encoding for all cross-attentions, or one for each: `[tokens, width]`.
    pub rows: Vec<Vec<f32>>,
    /// A summary; empty where the UNet is told none.
    pub pooled: Vec<f32>,
}

/// A sampling run that also adds up its layers' inputs.
pub(super) struct Sampler {
    network: LoadedNetwork<UNetConfig>,
    sampling: Sampling,
    plan: SamplingPlan,
    /// For each site: summed by the device, or read back step by step because its sums are too
    /// large to be bound.
    sites: Vec<Place>,
    keys_values: Option<KeysValues>,
    /// Where prompts hold, and where on their tokens updates act; empty where there is one prompt.
    phases: Vec<Phase>,
    rows: Vec<Mask>,
    /// What the weights that make them may have of the device.
    for_keys: Option<u64>,
    steps: u64,
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
    pub conditional: &'a [f32],
    pub unconditional: Option<&'a [f32]>,
}

/// What is told of each step, after it.
type OnStep<'s> = dyn FnMut(Sampled<'_>) -> std::result::Result<(), Cancelled> + 's;

/// What is sampled: pictures at a time, latents' height and width, steps, guidance.
#[derive(Clone, Copy)]
pub(super) struct PictureShape {
    pub batch: usize,
    pub size: [usize; 2],
    pub steps: usize,
    pub guidance: Option<f32>,
}

/// Outputs of a step before those of sites: the UNet's input and its prediction.
const OUTPUTS: usize = 2;
/// What the graph's inputs that hold sums begin with.
const SUMS: &str = "sums.";

#[derive(Clone)]
enum Place {
    /// The graph input that holds the sums, and inputs in each step.
    Device { sums: Tensor, rows: u64 },
    /// Number of the output.
    Host { output: usize, statistics: Statistics },
}

impl Sampler {
    /// Of weights as earlier stages left them, with the updates of `set`.
    pub fn new(
        runner: &Runner,
        layout: &StageLayers,
        set: Option<&AppliedSet>,
        shape: PictureShape,
    ) -> Result<Sampler> {
        Sampler::of(runner, layout, plain_shape(runner, set, shape), shape.steps)
    }

    /// The same of any step.
    pub fn of(
        runner: &Runner,
        layout: &StageLayers,
        shape: StepShape,
        steps: usize,
    ) -> Result<Sampler> {
        let model = &runner.base.model;
        let network = runner.unet.load_with(runner, &model.unet, &shape.updates);
        let options = PlanOptions::new(steps);
        let plan = sampler::plan(SamplerKind::DPMPP_2M, &model.scheduler, &options)?;
        let shape = StepShape { slots: used_slots(&plan).len(), ..shape };
        let Fitted { planned, sites, within, keys_values: for_keys, .. } =
            fit(runner, &network, layout, &shape)?;
        let program = network.program_within(&planned, within)?;
        let sampling = Sampling { program, shallow: None, look: None, shape };
        sampling.set_distilled_guidance(&network.config, 1.0)?;
        Ok(Sampler {
            network,
            sampling,
            plan,
            sites,
            keys_values: None,
            phases: Vec::new(),
            rows: Vec::new(),
            for_keys,
            steps: 0,
        })
    }

    /// From now on, pictures are of a prompt with the encodings `[tokens, width]`: one for all
    /// cross-attentions, or one for each; its keys and values are made by weights with the updates
    /// of `set`. `empty` is the empty prompt's, which guidance leads away from.
    pub fn read(
        &mut self,
        base: &Base,
        prompt: &ReadPrompt,
        empty: &ReadPrompt,
        set: Option<&AppliedSet>,
    ) -> Result<()> {
        self.set(base, &[(empty, prompt)], Updates::everywhere(set))
    }

    /// The same of several prompts, the whole picture's first, each with its empty one, and where
    /// they hold: for each size of feature map, every prompt's share of every place.
    pub fn read_in_regions(
        &mut self,
        base: &Base,
        prompts: &[(&ReadPrompt, &ReadPrompt)],
        shares: &[Vec<f32>],
    ) -> Result<()> {
        let shape = &self.sampling.shape;
        let lengths = vec![shape.tokens / prompts.len().max(1); prompts.len()];
        let held = |shares: &'_ Vec<f32>| RegionTables::new(shares, &lengths);
        let sizes = shares.iter().map(|shares| (held(shares), None, &shares[..])).collect();
        self.phases = vec![Phase::new(0, sizes, &shape.updates, &[shape.rows()])];
        let numbers: Vec<usize> = (0..prompts.len()).collect();
        self.rows = shape.updates.token_masks(&numbers, &lengths);
        let updates = shape.updates.clone();
        self.set(base, prompts, updates)
    }

    /// Makes keys and values of prompts, each after its empty one.
    fn set(
        &mut self,
        base: &Base,
        prompts: &[(&ReadPrompt, &ReadPrompt)],
        updates: Updates,
    ) -> Result<()> {
        let (shape, config) = (&self.sampling.shape, &self.network.config);
        let each = [shape.halves(), shape.tokens, config.cross_attention_dim];
        let of = |layer: usize, all: &[Vec<f32>]| {
            all.get(layer).or(all.last()).cloned().unwrap_or_default()
        };
        let context = |layer: usize| {
            let mut rows = Vec::new();
            if shape.halves() == 2 {
                prompts.iter().for_each(|(empty, _)| rows.extend(of(layer, &empty.rows)));
            }
            prompts.iter().for_each(|(_, prompt)| rows.extend(of(layer, &prompt.rows)));
            Array::f32(each, rows)
        };
        let copies = prompts.iter().map(|(_, prompt)| prompt.rows.len()).max().unwrap_or(1);
        let contexts: Vec<Array> = (0..copies.max(1)).map(context).collect();
        let mut keys_values =
            KeysValues::plan(&self.network, config, &updates, shape, contexts.len())?;
        keys_values.within = self.for_keys;
        // What a UNet is told of a picture is of the whole picture's prompt.
        let halves = prompts.first().map_or(Vec::new(), |(empty, prompt)| vec![*empty, *prompt]);
        let halves = halves.iter().skip(2 - shape.halves().min(2));
        let size = [shape.height, shape.width];
        let addition = halves.filter_map(|half| base.addition(&half.pooled, size));
        let told = Told { contexts: contexts.into(), addition: addition.collect() };
        self.sampling.set_prompt(&self.network, &keys_values, &told, &self.rows)?;
        self.keys_values = Some(keys_values);
        Ok(())
    }

    /// Samples pictures from noise, `seed` and those that follow it. Both halves of guidance are
    /// recorded: in use, the layers answer both.
    pub fn run(&mut self, seed: u64, watch: &mut OnStep) -> Result<()> {
        let Some(keys_values) = &self.keys_values else { return Ok(()) };
        let [batch, height, width, channels] = self.sampling.shape.latent(&self.network.config);
        let mut noise = Noise::new(RngKind::Torch, seed, batch, [height, width, channels]);
        let latents: Vec<f32> = noise.draw().iter().map(|v| v * self.plan.initial_scale).collect();
        let run = SamplingRun {
            beside: None,
            plan: &self.plan,
            latents: &latents,
            kept: None,
            phases: &self.phases,
            encoded: &[],
            keys_values,
            rows: &self.rows,
            guided: None,
            cache: 1,
            compose: Compose::default(),
        };
        let mut recorder = Recorder { sites: &mut self.sites, steps: &mut self.steps, watch };
        self.sampling.run(&self.network, &run, &mut noise, &mut recorder, &mut unwatched_parts)?;
        Ok(())
    }

    /// What was added up, one for each site.
    pub fn finish(self, layout: &StageLayers) -> Result<Vec<Statistics>> {
        let Sampler { sampling, sites, steps, .. } = self;
        let read = |(place, site): (Place, &Site)| match place {
            Place::Host { statistics, .. } => Ok(statistics),
            Place::Device { sums, rows } => {
                let mut statistics =
                    Statistics::from_sums(site.width, 0, vec![0.0; triangle(site.width)]);
                statistics.push_planes(sampling.program.state(sums)?.values(), rows * steps);
                Ok(statistics)
            }
        };
        sites.into_iter().zip(&layout.sites).map(read).collect()
    }
}

impl PictureShape {
    fn step(self, tokens: usize, updates: Updates) -> StepShape {
        let [height, width] = self.size;
        StepShape {
            batch: self.batch,
            height,
            width,
            tokens,
            guidance: self.guidance,
            updates,
            ..StepShape::default()
        }
    }
}

/// A step of pictures of one prompt, with the updates of `set`.
pub(super) fn plain_shape(
    runner: &Runner,
    set: Option<&AppliedSet>,
    shape: PictureShape,
) -> StepShape {
    shape.step(runner.base.tokenizer().max_length(), Updates::everywhere(set))
}

/// A step of pictures in regions: `prompts` of them, the whole picture's first, for which each of
/// `sets` has its factors. Every prompt may hold everywhere.
pub(super) fn regional_shape(
    runner: &Runner,
    sets: &[(AppliedSet, Vec<f32>)],
    prompts: usize,
    shape: PictureShape,
) -> StepShape {
    let keys = runner.base.tokenizer().max_length();
    let numbers: Vec<usize> = (0..prompts).collect();
    let updates = Updates::of(sets.iter().map(|(set, factors)| (set, factors.clone())));
    let [height, width] = shape.size;
    let sizes = unet::feature_sizes(runner.base.unet(), height, width);
    let reach = |[height, width]: [usize; 2]| vec![Reach { keys, tokens: height * width }; prompts];
    StepShape {
        reach: sizes.into_iter().map(reach).collect(),
        ..shape.step(prompts * keys, updates.on(&numbers))
    }
}

/// A step within the budget.
struct Fitted {
    planned: PlannedGraph<StepInputs>,
    sites: Vec<Place>,
    /// What its weights may have of the device, and those that make keys and values; none: all.
    within: Option<u64>,
    keys_values: Option<u64>,
    /// Of all that is on the device at once.
    bytes: u64,
    held: Option<Held>,
    sums_on_host: bool,
}

/// Plans a step that adds up, within the runner's budget: weights come anew in each step, and sums
/// are made by the host, as far as that takes.
fn fit(
    runner: &Runner,
    network: &LoadedNetwork<UNetConfig>,
    layout: &StageLayers,
    shape: &StepShape,
) -> Result<Fitted> {
    let most = runner.gpu.max_binding();
    let config = &network.config;
    let keys = KeysValues::plan(
        network,
        config,
        &shape.updates,
        shape,
        runner.base.model.attentions.len().max(1),
    )?;
    let Some(room) = runner.room() else {
        let (planned, sites) = plan_step(network, layout, shape, most)?;
        let bytes = network.weight_bytes(&planned)? + planned.bytes();
        let (held, sums_on_host) = (None, false);
        return Ok(Fitted {
            planned,
            sites,
            within: None,
            keys_values: None,
            bytes,
            held,
            sums_on_host,
        });
    };
    let for_keys = keys.least_bytes(network)?;
    let mut least = u64::MAX;
    for limit in [most, 0] {
        let (planned, sites) = plan_step(network, layout, shape, limit)?;
        let beside = planned.bytes() + keys.bytes() + for_keys;
        let within = room.saturating_sub(beside);
        match network.held(&planned, within)? {
            Ok(held) => {
                return Ok(Fitted {
                    planned,
                    sites,
                    within: Some(within),
                    keys_values: Some(for_keys),
                    bytes: held.bytes() + beside,
                    held: (held.streamed > 0).then_some(held),
                    sums_on_host: limit == 0,
                });
            }
            Err(TooLittle { least: few }) => least = least.min(few + beside),
        }
    }
    Err(runner.too_little("the samples that statistics are taken of", least))
}

/// What sampling takes: all that is on the device at once, what of the weights comes and goes, and
/// whether the host adds up.
pub(super) fn planned(
    runner: &Runner,
    layout: &StageLayers,
    set: Option<&AppliedSet>,
    shape: PictureShape,
) -> Result<(u64, Option<Held>, bool)> {
    planned_step(runner, layout, &plain_shape(runner, set, shape))
}

/// The same of any step.
pub(super) fn planned_step(
    runner: &Runner,
    layout: &StageLayers,
    shape: &StepShape,
) -> Result<(u64, Option<Held>, bool)> {
    let network = runner.unet.load_with(runner, &runner.base.model.unet, &shape.updates);
    let fitted = fit(runner, &network, layout, shape)?;
    Ok((fitted.bytes, fitted.held, fitted.sums_on_host))
}

/// Hands on what each step gave.
struct Recorder<'a, 's> {
    sites: &'a mut [Place],
    steps: &'a mut u64,
    watch: &'a mut OnStep<'s>,
}

impl Companion for Recorder<'_, '_> {
    fn after(&mut self, program: &Ready<StepInputs>, at: &At) -> sd::Result<()> {
        for place in self.sites.iter_mut() {
            if let Place::Host { output, statistics } = place {
                statistics.push(program.output(*output)?.values());
            }
        }
        *self.steps += 1;
        let (sample, prediction) = (program.output(0)?, program.output(1)?);
        // The empty prompt's half comes first.
        let (first, second) =
            prediction.values().split_at(prediction.values().len() - sample.values().len());
        (self.watch)(Sampled {
            done: at.done,
            of: at.of,
            timestep: at.step.timestep,
            sample: sample.values(),
            conditional: second,
            unconditional: (!first.is_empty()).then_some(first),
        })?;
        Ok(())
    }
}

/// Plans a step that adds up, and tells where each site's inputs go.
fn plan_step(
    network: &LoadedNetwork<UNetConfig>,
    layout: &StageLayers,
    shape: &StepShape,
    max_binding: u64,
) -> Result<(PlannedGraph<StepInputs>, Vec<Place>)> {
    let mut places = Vec::new();
    let planned = network.plan(|config, graph| {
        build_step(config, graph, shape, &layout.names(), |graph, hooks, outputs| {
            let (outputs, found) = add_up(graph, layout, hooks, outputs, max_binding)?;
            places = found;
            Ok(outputs)
        })
    })?;
    match places.len() == layout.sites.len() {
        true => Ok((planned, places)),
        false => Err(Error::option("layers", "some that are fused are not in the graph")),
    }
}

/// A step's outputs, and where each site's inputs go.
fn add_up(
    graph: &mut Graph,
    layout: &StageLayers,
    hooks: &[Hook],
    outputs: [Tensor; OUTPUTS],
    max_binding: u64,
) -> graph::Result<(Vec<Tensor>, Vec<Place>)> {
    let (mut outputs, mut places) = (outputs.to_vec(), Vec::new());
    for site in &layout.sites {
        let Some(input) = hooks.iter().find(|hook| hook.layer == site.name) else { break };
        let (input, n) = (input.input, site.width);
        let rows = graph.shape(input).rows() as u64;
        if (8 * n * n) as u64 > max_binding {
            outputs.push(input);
            places.push(Place::Host { output: outputs.len() - 1, statistics: Statistics::new(n) });
            continue;
        }
        let sums = graph.input(format!("{SUMS}{}", site.name), [2, n, n]);
        let added = graph.outer_sums(sums, input)?;
        graph.assign(sums, added)?;
        places.push(Place::Device { sums, rows });
    }
    Ok((outputs, places))
}

/// The graph input holds sums.
fn is_sum(graph: &Graph, tensor: Tensor) -> bool {
    match &graph.node(tensor).origin {
        Origin::Input { name } => name.starts_with(SUMS),
        _ => false,
    }
}

/// Bytes on the device while a concept of these updates is sampled: weights, activations and inputs
/// without the sums.
pub(super) fn planned_bytes(
    runner: &Runner,
    layout: &StageLayers,
    set: Option<&AppliedSet>,
    shape: PictureShape,
) -> Result<u64> {
    let (network, updates) = runner.unet.load(runner, &runner.base.model.unet, set);
    let shape = shape.step(runner.base.tokenizer().max_length(), updates);
    let (planned, _) = plan_step(&network, layout, &shape, runner.gpu.max_binding())?;
    let inputs = planned.input_bytes(|tensor| !is_sum(&planned.graph, tensor));
    Ok(network.weight_bytes(&planned)? + planned.plan.activation_bytes() + inputs)
}

/// A sampling step that adds up the inputs of `layers`, as fusion runs it: what it will cost,
/// without a model.
#[derive(Clone, Debug)]
pub struct StatisticsCost {
    /// A step, with the sums as assignments.
    pub graph: Graph,
    /// What a run gives: the UNet's input, its prediction, and inputs that are summed on the host.
    pub outputs: Vec<Tensor>,
    /// Bytes of the sums on the device.
    pub device_bytes: u64,
    /// Bytes of the sums on the host, where they wait for their file.
    pub host_bytes: u64,
}

impl StatisticsCost {
    /// For latents of `size` and prompts of `tokens`, with guidance; sums that no binding of
    /// `max_binding` bytes holds are made on the host.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn of(
        config: &UNetConfig,
        layers: &[String],
        size: [usize; 2],
        tokens: usize,
        max_binding: u64,
    ) -> Result<StatisticsCost> {
        let guidance = config.time_cond_proj_dim.is_none().then_some(1.0);
        let shape = PictureShape { batch: 1, size, steps: 1, guidance };
        let shape = shape.step(tokens, Updates::default());
        let layout = StageLayers::of_unet(config, &shape, layers)?;
        let mut graph = Graph::new();
        let (_, outputs) =
            build_step(config, &mut graph, &shape, &layout.names(), |graph, hooks, outputs| {
                Ok(add_up(graph, &layout, hooks, outputs, max_binding)?.0)
            })?;
        let sums = graph.tensors().filter(|tensor| is_sum(&graph, *tensor));
        let device_bytes = sums.map(|tensor| graph.shape(tensor).elements() as u64 * 4).sum();
        Ok(StatisticsCost { graph, outputs, device_bytes, host_bytes: host_bytes(&layout) })
    }
}

/// Bytes of a concept's sums on the host.
pub(super) fn host_bytes(layout: &StageLayers) -> u64 {
    layout.sites.iter().map(|site| triangle(site.width) as u64 * 8).sum()
}

/// Bytes of a concept's sums on the device.
pub(super) fn device_bytes(layout: &StageLayers, max_binding: u64) -> u64 {
    let planes = layout.sites.iter().map(|site| (8 * site.width * site.width) as u64);
    planes.filter(|bytes| *bytes <= max_binding).sum()
}
