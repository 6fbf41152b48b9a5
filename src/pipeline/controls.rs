//! Networks that steer a run by a picture: ControlNets in every step, T2I-Adapters once.

use std::sync::Arc;

use crate::backend::{self, Copies};
use crate::checkpoint::ControlKind;
use crate::graph::{Array, ParameterSource, Tensor};
use crate::models::config::{ControlNetConfig, T2IAdapterConfig, UNetConfig};
use crate::models::controlnet::{self, ControlNetInputs};
use crate::models::t2i_adapter;
use crate::models::unet;
use crate::nn::Layers;
use crate::picture::Picture;
use crate::region::{self, Placed};
use crate::sd;
use crate::sd::denoiser::{
    KeysValues, Phase, PromptInputs, StepInputs, StepShape, addition_input, residual_shapes,
};
use crate::sd::network::{LoadedNetwork, PlannedGraph, Ready};
use crate::sd::sampling::{At, Companion, Told};
use crate::sd::source::{ComponentSource, Difference};
use crate::sd::updates::Updates;

use super::checked::CheckedRequest;
use super::error::{Result, option};
use super::request::Control;
use super::{Pipeline, Request};

/// The controls of a run, checked.
#[derive(Default)]
pub(super) struct Steering {
    adapters: Vec<Adapter>,
    nets: Vec<Net>,
}

struct Adapter {
    network: LoadedNetwork<T2IAdapterConfig>,
    planned: PlannedGraph<Tensor>,
    condition: Array,
    span: Span,
}

struct Net {
    network: LoadedNetwork<ControlNetConfig>,
    embedding: PlannedGraph<Tensor>,
    condition: Array,
    span: Span,
    /// The pass that was planned last.
    pass: Option<Arc<Pass>>,
}

/// A ControlNet's pass, planned for one shape.
struct Pass {
    shape: StepShape,
    step: PlannedGraph<NetInputs>,
    keys_values: KeysValues,
}

/// What a ControlNet's pass takes.
#[derive(Clone, Debug)]
struct NetInputs {
    sample: Tensor,
    input_scale: Tensor,
    time: Tensor,
    addition: Option<Tensor>,
    prompt: PromptInputs,
    embedding: Tensor,
    /// Factors of its outputs.
    weights: Vec<Tensor>,
}

/// How strongly something steers, where and when.
struct Span {
    weight: f32,
    start: f64,
    end: f64,
    /// Factors by feature map, where regions have any: size and `[height, width]`.
    factors: Vec<([usize; 2], Vec<f32>)>,
}

impl Span {
    fn holds(&self, step: usize, steps: usize) -> bool {
        region::holds(self.start, self.end, step, steps)
    }

    /// The weight of every number of a feature map `[height, width, channels]`.
    fn weights(&self, [height, width, channels]: [usize; 3]) -> Vec<f32> {
        match self.factors.iter().find(|(size, _)| *size == [height, width]) {
            Some((_, factors)) => factors
                .iter()
                .flat_map(|f| std::iter::repeat_n(f * self.weight, channels))
                .collect(),
            None => vec![self.weight; height * width * channels],
        }
    }
}

impl Steering {
    pub fn of(
        pipeline: &Pipeline,
        request: &Request,
        checked: &mut CheckedRequest,
    ) -> Result<Steering> {
        let mut steering = Steering::default();
        let known: Vec<&str> = request.controls.iter().map(|control| &*control.name).collect();
        for (index, area) in request.regions.regions.iter().enumerate() {
            if let Some(name) = area.controls.keys().find(|name| !known.contains(&name.as_str())) {
                let known = if known.is_empty() {
                    "".into()
                } else {
                    format!(" (those in use: {})", known.join(", "))
                };
                let region = request.regions.name(index);
                return Err(region::Error::Unknown {
                    region,
                    kind: "control",
                    name: name.clone(),
                    known,
                }
                .into());
            }
        }
        for control in &request.controls {
            steering.add(pipeline, request, control, checked)?;
        }
        Ok(steering)
    }

    fn add(
        &mut self,
        pipeline: &Pipeline,
        request: &Request,
        control: &Control,
        checked: &mut CheckedRequest,
    ) -> Result<()> {
        let (gpu, precision) = (&pipeline.gpu, pipeline.unet.weights.precision());
        let (component, unet) = (&control.network.component, &pipeline.unet.config);
        if !control.weight.is_finite() {
            return Err(option("control weight", control.weight, "a number"));
        }
        if !(0.0..1.0).contains(&control.start) || control.end <= control.start || control.end > 1.0
        {
            let found = format!("{} to {}", control.start, control.end);
            return Err(option(
                "control start and end",
                found,
                "parts of the steps from 0 to 1, the start before the end",
            ));
        }
        let (w, h) = (control.picture.width() as usize, control.picture.height() as usize);
        // A hundredth is what rounding to whole pixels makes.
        if (w * checked.height).abs_diff(h * checked.width) * 100 > w * checked.height {
            checked.warnings.push(format!(
                "control `{}`: its picture of {w} x {h} is stretched to {} x {}",
                control.name, checked.width, checked.height
            ));
        }
        let span = Span {
            weight: control.weight,
            start: control.start,
            end: control.end,
            factors: factors(request, &control.name, checked, unet)?,
        };
        let picture = control.picture.resized(checked.width as u32, checked.height as u32)?;
        let refuse = |what: String| {
            let path = component.path().to_path_buf();
            Err(sd::Error::Unsupported { path, what }.into())
        };
        match control.network.kind {
            ControlKind::T2IAdapter => {
                let config = T2IAdapterConfig::from_json(&component.config, &component.config_path)
                    .map_err(sd::Error::from)?;
                // The last of Stable Diffusion XL's is for the middle.
                let blocks = &unet.block_out_channels;
                let middle: Vec<usize> = blocks.iter().chain(blocks.last()).copied().collect();
                let wanted = if config.xl { &middle } else { blocks };
                if config.channels != *wanted || config.xl != unet.addition.is_some() {
                    let found = &config.channels;
                    return refuse(format!(
                        "a T2I-Adapter for down blocks of {found:?} channels on a model of \
                            {blocks:?}{}",
                        if config.xl { ", as Stable Diffusion XL has them" } else { "" }
                    ));
                }
                let factor = config.downscale_factor;
                // The first block of Stable Diffusion XL takes it after its downsampling.
                let latent = if config.xl { factor / 2 } else { factor };
                if latent != pipeline.factor() {
                    return refuse(format!(
                        "a T2I-Adapter for {latent} pixels a latent on a model of {}",
                        pipeline.factor()
                    ));
                }
                if !checked.width.is_multiple_of(factor) || !checked.height.is_multiple_of(factor) {
                    let size = format!("{}x{}", checked.width, checked.height);
                    return Err(option(
                        "size",
                        size,
                        format!("multiples of {factor}, which the T2I-Adapter takes"),
                    ));
                }
                let channels = config.in_channels;
                let values = t2i_adapter::unshuffled(
                    &condition(&picture, channels, false),
                    checked.width,
                    channels,
                    factor,
                );
                let blocks = [checked.height / factor, checked.width / factor];
                let shape = [1, blocks[0], blocks[1], channels * factor * factor];
                let source = Arc::new(ComponentSource(component.clone()));
                let network = LoadedNetwork::from_source(gpu, component, source, config, precision);
                let planned = network.plan(|config, graph| {
                    let condition = graph.input("condition", shape);
                    let layers = &mut Layers::new(graph);
                    Ok((condition, t2i_adapter::t2i_adapter(layers, config, condition)?))
                })?;
                self.adapters.push(Adapter {
                    network,
                    planned,
                    condition: Array::f32(shape, values),
                    span,
                });
            }
            ControlKind::ControlNet => {
                let config = ControlNetConfig::from_json(&component.config, &component.config_path)
                    .map_err(sd::Error::from)?;
                // It reads latents alone, also beside a model that reads a mask too.
                let latents = |c: &UNetConfig| {
                    if c.inpaints() { c.out_channels } else { c.in_channels }
                };
                let shape = |c: &UNetConfig| {
                    (
                        c.block_out_channels.clone(),
                        c.cross_attention_dim,
                        latents(c),
                        unet::skips(c, [0; 2]).len(),
                        c.addition,
                    )
                };
                if shape(&config.unet) != shape(unet) {
                    let (found, wanted) = (&config.unet, unet);
                    return refuse(format!(
                        "a ControlNet of {:?} channels for prompts of width {} on a model of {:?} \
                            and {}",
                        found.block_out_channels,
                        found.cross_attention_dim,
                        wanted.block_out_channels,
                        wanted.cross_attention_dim
                    ));
                }
                if config.downscale() != pipeline.factor() {
                    let (found, wanted) = (config.downscale(), pipeline.factor());
                    return refuse(format!(
                        "a ControlNet for {found} pixels a latent on a model of {wanted}"
                    ));
                }
                let channels = config.condition_channels;
                let shape = [1, checked.height, checked.width, channels];
                let values = condition(&picture, channels, config.reversed_channels);
                let stored = ComponentSource(component.clone());
                let source: Arc<dyn ParameterSource + Send> = match control.network.difference {
                    false => Arc::new(stored),
                    // LoRAs in use are no part of what it is a difference from.
                    true => Arc::new(Difference { stored, base: pipeline.unet.overlay.model() }),
                };
                let network = LoadedNetwork::from_source(gpu, component, source, config, precision);
                let embedding = network.plan(|config, graph| {
                    let condition = graph.input("condition", shape);
                    let layers = &mut Layers::new(graph);
                    Ok((condition, vec![controlnet::embedding(layers, config, condition)?]))
                })?;
                self.nets.push(Net {
                    network,
                    embedding,
                    condition: Array::f32(shape, values),
                    span,
                    pass: None,
                });
            }
        }
        Ok(())
    }

    /// What a step must take in: how many feature maps, and of how many ControlNets.
    pub fn needs(&self) -> (usize, usize) {
        let maps = self.adapters.iter().map(|adapter| adapter.network.config.channels.len());
        (maps.max().unwrap_or(0), self.nets.len())
    }

    /// Plans passes for steps of `shape`: device bytes of weights, and of all else while sampling.
    pub fn plan(&mut self, shape: &StepShape) -> Result<(u64, u64)> {
        let (mut weights, mut rest) = (0, 0);
        for adapter in &self.adapters {
            weights += adapter.network.weight_bytes(&adapter.planned)?;
            rest += adapter.planned.bytes();
        }
        for net in &mut self.nets {
            let pass = net.plan(shape)?;
            weights +=
                net.network.weight_bytes(&net.embedding)? + net.network.weight_bytes(&pass.step)?;
            weights += pass.keys_values.weight_bytes(&net.network)?;
            rest += pass.step.bytes();
            net.pass = Some(Arc::new(pass));
        }
        Ok((weights, rest))
    }

    /// Makes what does not change from step to step, for a sampling program of `shape`.
    pub fn prepare(
        &self,
        shape: &StepShape,
        sampling: &Ready<StepInputs>,
        told: &Told,
    ) -> Result<RunningControls<'_>> {
        let mut features = Vec::with_capacity(self.adapters.len());
        for adapter in &self.adapters {
            let program = adapter.network.program(&adapter.planned)?;
            program.write(program.inputs, &adapter.condition)?;
            program.run();
            let count = adapter.network.config.channels.len();
            let maps = (0..count).map(|i| program.output(i)).collect::<backend::Result<Vec<_>>>();
            features.push((&adapter.span, adapter.network.blame(maps)?));
        }
        let mut nets = Vec::with_capacity(self.nets.len());
        for (number, net) in self.nets.iter().enumerate() {
            nets.push(net.prepare(number, shape, sampling, told)?);
        }
        Ok(RunningControls { features, held: None, nets })
    }
}

/// All that is ready before the first step.
#[derive(Default)]
pub(super) struct RunningControls<'a> {
    /// Of each adapter.
    features: Vec<(&'a Span, Vec<Array>)>,
    /// Which adapters the program's features are of.
    held: Option<Vec<bool>>,
    nets: Vec<Running<'a>>,
}

struct Running<'a> {
    net: &'a Net,
    program: Ready<NetInputs>,
    /// What its prompts' keys and values are made by.
    pass: Arc<Pass>,
    /// The sample, and all that the ControlNet says of it.
    fetch: Copies,
    hand_over: Copies,
    /// Inputs of the sampling program, with their shapes.
    residuals: Vec<(Tensor, Vec<usize>)>,
    /// The sampling program's inputs are zero.
    silent: bool,
}

impl Companion for RunningControls<'_> {
    fn enter(&mut self, phase: &Phase) -> sd::Result<()> {
        let mut nets = self.nets.iter();
        nets.try_for_each(|net| phase.write(&net.program, &net.program.inputs.prompt))
    }

    fn set_prompt(&mut self, shape: &StepShape, told: &Told) -> sd::Result<()> {
        self.nets.iter().try_for_each(|running| running.set_prompt(shape, told))
    }

    /// Brings all inputs of the sampling program up to the step.
    fn before(&mut self, sampling: &Ready<StepInputs>, at: &At) -> sd::Result<()> {
        let (step, steps) = (at.done, at.of);
        let held: Vec<bool> =
            self.features.iter().map(|(span, _)| span.holds(step, steps)).collect();
        if !held.is_empty() && self.held.as_ref() != Some(&held) {
            for (i, &feature) in sampling.inputs.controls.features.iter().enumerate() {
                let mut sum: Option<Array> = None;
                for ((span, maps), _) in self.features.iter().zip(&held) {
                    let Some(map) = maps.get(i) else { continue };
                    let shape = [map.shape[1], map.shape[2], map.shape[3]];
                    let sum =
                        sum.get_or_insert_with(|| Array::f32(shape, vec![0.0; map.values().len()]));
                    if let (true, crate::graph::Data::F32(sum)) =
                        (span.holds(step, steps), &mut sum.data)
                    {
                        let weighted = map.values().iter().zip(span.weights(shape));
                        sum.iter_mut().zip(weighted).for_each(|(sum, (v, w))| *sum += v * w);
                    }
                }
                if let Some(sum) = sum {
                    sampling.write(feature, &sum)?;
                }
            }
            self.held = Some(held);
        }
        for net in &mut self.nets {
            if net.net.span.holds(step, steps) {
                let inputs = &net.program.inputs;
                net.program.write(inputs.time, at.time)?;
                let scale = Array::f32([1], vec![at.step.input_scale]);
                net.program.write(inputs.input_scale, &scale)?;
                net.fetch.play();
                net.program.run();
                net.hand_over.play();
                net.silent = false;
            } else if !net.silent {
                for (tensor, shape) in &net.residuals {
                    let zeros = vec![0.0; shape.iter().product()];
                    sampling.write(*tensor, &Array::f32(&shape[..], zeros))?;
                }
                net.silent = true;
            }
        }
        Ok(())
    }
}

impl Running<'_> {
    /// Makes the keys and values of encoded prompts.
    fn set_prompt(&self, shape: &StepShape, told: &Told) -> sd::Result<()> {
        let (config, contexts) = (&self.net.network.config.unet, &told.contexts);
        if let Some(input) = self.program.inputs.addition {
            self.program.write(input, &told.addition_of(shape))?;
        }
        // Of encodings for each cross-attention, this network has the first.
        let own = contexts
            .get(..unet::cross_attentions(config).len())
            .filter(|_| contexts.len() > 1)
            .unwrap_or(contexts);
        let (network, inputs) = (&self.net.network, &self.program.inputs.prompt);
        // Planned for one encoding, unless each cross-attention has its own.
        if own.len() == self.pass.keys_values.encodings() {
            return self.pass.keys_values.write(
                network,
                own,
                &[],
                None,
                &[(&self.program, inputs)],
            );
        }
        let none = Updates::default();
        let other = KeysValues::plan(network, config, &none, &self.pass.shape, own.len())?;
        other.write(network, own, &[], None, &[(&self.program, inputs)])
    }
}

impl Net {
    /// Plans a pass: its outputs are weighed already.
    fn plan(&self, shape: &StepShape) -> Result<Pass> {
        let step = self.network.plan(|config, graph| {
            let channels = config.unet.in_channels;
            let sample = graph.input("sample", [shape.batch, shape.height, shape.width, channels]);
            let input_scale = graph.input("input_scale", [1]);
            let mut x = graph.multiply(sample, input_scale)?;
            if shape.halves() == 2 {
                x = graph.concat(&[x, x], 0)?;
            }
            let prompt = PromptInputs::declare(graph, &config.unet, shape);
            let first = config.unet.block_out_channels[0];
            let time = graph.input("time", [shape.rows(), first]);
            let addition = addition_input(graph, &config.unet, shape);
            let embedding = graph.input("embedding", [shape.height, shape.width, first]);
            let inputs = ControlNetInputs {
                sample: x,
                time,
                addition,
                prompt: prompt.encodings(),
                embedding,
            };
            let output = controlnet::controlnet(&mut Layers::new(graph), config, &inputs)?;
            let (mut weights, mut weighed) = (Vec::new(), Vec::new());
            for (i, &y) in output.skips.iter().chain([&output.middle]).enumerate() {
                let weight = match self.span.factors.is_empty() {
                    true => graph.input(format!("weight.{i}"), [1]),
                    false => graph.input(format!("weight.{i}"), graph.shape(y)[1..].to_vec()),
                };
                weights.push(weight);
                weighed.push(graph.multiply(y, weight)?);
            }
            let inputs =
                NetInputs { sample, input_scale, time, addition, prompt, embedding, weights };
            Ok((inputs, weighed))
        })?;
        let config = &self.network.config.unet;
        let keys_values = KeysValues::plan(&self.network, config, &Updates::default(), shape, 1)?;
        Ok(Pass { shape: shape.clone(), step, keys_values })
    }

    fn prepare(
        &self,
        number: usize,
        shape: &StepShape,
        sampling: &Ready<StepInputs>,
        told: &Told,
    ) -> Result<Running<'_>> {
        let embedding = self.network.program(&self.embedding)?;
        embedding.write(embedding.inputs, &self.condition)?;
        embedding.run();
        let config = &self.network.config;
        let pass = match &self.pass {
            Some(pass) if pass.shape == *shape => pass.clone(),
            _ => Arc::new(self.plan(shape)?),
        };
        let program = self.network.program(&pass.step)?;
        program.take(program.inputs.embedding, &embedding, 0)?;
        let maps = residual_shapes(&config.unet, [shape.height, shape.width]);
        let tensors = sampling.inputs.controls.nets.get(number).into_iter().flatten();
        let mut copies = Vec::new();
        let mut residuals = Vec::new();
        for (i, (map, &tensor)) in maps.into_iter().zip(tensors).enumerate() {
            let weights = match self.span.factors.is_empty() {
                true => Array::f32([1], vec![self.span.weight]),
                false => Array::f32(map, self.span.weights(map)),
            };
            if let Some(input) = program.inputs.weights.get(i) {
                program.write(*input, &weights)?;
            }
            copies.push(sampling.copy_of_output(tensor, &program, i)?);
            residuals.push((tensor, vec![shape.rows(), map[0], map[1], map[2]]));
        }
        let gpu = self.network.weights.device();
        let sample = program.inputs.sample;
        let fetch = [program.copy_of_input(sample, sampling, sampling.inputs.state)?];
        let running = Running {
            net: self,
            fetch: Copies::new(gpu, &fetch)?,
            hand_over: Copies::new(gpu, &copies)?,
            program,
            pass,
            residuals,
            silent: false,
        };
        running.set_prompt(shape, told)?;
        Ok(running)
    }
}

/// What regions make of the control's weight; nothing where none names it.
fn factors(
    request: &Request,
    name: &str,
    checked: &CheckedRequest,
    unet: &UNetConfig,
) -> Result<Vec<([usize; 2], Vec<f32>)>> {
    let layout = &request.regions;
    if layout.regions.iter().all(|region| !region.controls.contains_key(name)) {
        return Ok(Vec::new());
    }
    let sizes = unet::feature_sizes(unet, checked.size[0], checked.size[1]);
    let placed = Placed::new(layout, checked.width, checked.height, &sizes)?;
    let all = vec![true; layout.regions.len()];
    let factor = |row: &[f32]| {
        let inside =
            layout.regions.iter().map(|region| region.controls.get(name).copied().unwrap_or(1.0));
        row.iter()
            .zip(std::iter::once(1.0).chain(inside))
            .map(|(share, factor)| share * factor)
            .sum()
    };
    // As published, a weight is set in each region after the other.
    let last = |size: &[usize; 2]| {
        let masks = placed.masks(size[0], size[1]).unwrap_or_default();
        let mut factors = vec![1.0; size[0] * size[1]];
        for (region, mask) in layout.regions.iter().zip(masks) {
            let Some(weight) = region.controls.get(name) else { continue };
            factors
                .iter_mut()
                .zip(mask)
                .filter(|(_, covered)| **covered >= 0.5)
                .for_each(|(factor, _)| *factor = *weight);
        }
        factors
    };
    let map = |(i, size): (usize, &[usize; 2])| {
        if layout.published {
            return (*size, last(size));
        }
        let shares = placed.shares(i, &all);
        (*size, shares.weights.chunks_exact(1 + layout.regions.len()).map(factor).collect())
    };
    Ok(sizes.iter().enumerate().map(map).collect())
}

/// The picture as networks take it: `[height, width, channels]` from 0 to 1.
fn condition(picture: &Picture, channels: usize, reversed: bool) -> Vec<f32> {
    if channels == 1 {
        return picture.grey().iter().map(|v| v / 255.0).collect();
    }
    let pixel = |p: &[u8]| if reversed { [p[2], p[1], p[0]] } else { [p[0], p[1], p[2]] };
    picture.rgb().chunks_exact(3).flat_map(pixel).map(|v| f32::from(v) / 255.0).collect()
}
