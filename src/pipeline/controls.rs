//! Networks that steer a run by a picture: ControlNets in every step, T2I-Adapters once.

use std::sync::Arc;

use crate::backend::{Copies, Program};
use crate::checkpoint::{self, ControlKind};
use crate::graph::{Array, Graph, Tensor};
use crate::models::config::{ControlNetConfig, T2IAdapterConfig, UNetConfig};
use crate::models::controlnet::{self, ControlNetInputs};
use crate::models::t2i_adapter;
use crate::models::unet::{self, Residuals};
use crate::nn::Layers;
use crate::picture::Picture;
use crate::region::{self, Placed};
use crate::sd::source::{ComponentSource, Difference};

use super::adaptation::Updates;
use super::error::{Error, Result, option};
use super::network::{Network, Planned};
use super::plans::Job;
use super::regions::{self, Phase};
use super::sample::{SampleShape, keys_values, set_keys_values};
use super::{Pipeline, Request};

/// A network that steers a picture.
#[derive(Clone, Debug)]
pub struct Control {
    /// As regions name it.
    pub name: String,
    pub network: checkpoint::Control,
    /// What to follow, as the network takes it (edges, poses, depths); fitted to the picture's
    /// size.
    pub picture: Picture,
    pub weight: f32,
    /// It steers from this part of the steps to that, 0 to 1.
    pub start: f64,
    pub end: f64,
}

/// The controls of a run, checked.
#[derive(Default)]
pub(super) struct Steering {
    adapters: Vec<Adapter>,
    nets: Vec<Net>,
}

struct Adapter {
    network: Network<T2IAdapterConfig>,
    planned: Planned,
    condition: Array,
    span: Span,
}

struct Net {
    network: Network<ControlNetConfig>,
    embedding: Planned,
    condition: Array,
    span: Span,
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
    pub fn of(pipeline: &Pipeline, request: &Request, job: &mut Job) -> Result<Steering> {
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
            steering.add(pipeline, request, control, job)?;
        }
        Ok(steering)
    }

    fn add(
        &mut self,
        pipeline: &Pipeline,
        request: &Request,
        control: &Control,
        job: &mut Job,
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
        if (w * job.height).abs_diff(h * job.width) * 100 > w * job.height {
            job.warnings.push(format!(
                "control `{}`: its picture of {w} x {h} is stretched to {} x {}",
                control.name, job.width, job.height
            ));
        }
        let span = Span {
            weight: control.weight,
            start: control.start,
            end: control.end,
            factors: factors(request, &control.name, job, unet)?,
        };
        let picture = control.picture.resized(job.width as u32, job.height as u32)?;
        let refuse =
            |what: String| Err(Error::Unsupported { path: component.path().to_path_buf(), what });
        match control.network.kind {
            ControlKind::T2IAdapter => {
                let config =
                    T2IAdapterConfig::from_json(&component.config, &component.config_path)?;
                if config.channels != unet.block_out_channels {
                    let (found, wanted) = (&config.channels, &unet.block_out_channels);
                    return refuse(format!(
                        "a T2I-Adapter for down blocks of {found:?} channels on a model of \
                            {wanted:?}"
                    ));
                }
                let factor = config.downscale_factor;
                if factor != pipeline.factor() {
                    return refuse(format!(
                        "a T2I-Adapter for {factor} pixels a latent on a model of {}",
                        pipeline.factor()
                    ));
                }
                let channels = config.in_channels;
                let values = t2i_adapter::unshuffled(
                    &condition(&picture, channels, false),
                    job.width,
                    channels,
                    factor,
                );
                let shape = [1, job.size[0], job.size[1], channels * factor * factor];
                let network = Network::new(gpu, component, config, precision);
                let planned = network.plan(|config, graph| {
                    let condition = graph.input("condition", shape);
                    t2i_adapter::t2i_adapter(&mut Layers::new(graph), config, condition)
                })?;
                self.adapters.push(Adapter {
                    network,
                    planned,
                    condition: Array::f32(shape, values),
                    span,
                });
            }
            ControlKind::ControlNet => {
                let config =
                    ControlNetConfig::from_json(&component.config, &component.config_path)?;
                let shape = |c: &UNetConfig| {
                    (
                        c.block_out_channels.clone(),
                        c.cross_attention_dim,
                        c.in_channels,
                        unet::skips(c, [0; 2]).len(),
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
                let shape = [1, job.height, job.width, channels];
                let values = condition(&picture, channels, config.reversed_channels);
                let network = match control.network.difference {
                    false => Network::new(gpu, component, config, precision),
                    true => {
                        // LoRAs in use are no part of what it is a difference from.
                        let (stored, base) =
                            (ComponentSource(component.clone()), pipeline.unet.updates.model());
                        Network::from_source(
                            gpu,
                            component,
                            Arc::new(Difference { stored, base }),
                            config,
                            precision,
                        )
                    }
                };
                let embedding = network.plan(|config, graph| {
                    let condition = graph.input("condition", shape);
                    Ok(vec![controlnet::embedding(&mut Layers::new(graph), config, condition)?])
                })?;
                self.nets.push(Net {
                    network,
                    embedding,
                    condition: Array::f32(shape, values),
                    span,
                });
            }
        }
        Ok(())
    }

    /// What a step must take in: whether features, and of how many ControlNets.
    pub fn needs(&self) -> (bool, usize) {
        (!self.adapters.is_empty(), self.nets.len())
    }

    /// Device bytes of weights, and of all else while sampling.
    pub fn bytes(&self, shape: &SampleShape) -> Result<(u64, u64)> {
        let (mut weights, mut rest) = (0, 0);
        for adapter in &self.adapters {
            weights += adapter.network.weight_bytes(&adapter.planned)?;
            rest += adapter.planned.bytes();
        }
        for net in &self.nets {
            let step = net.plan(shape)?;
            let config = &net.network.config.unet;
            let prompt = keys_values(&net.network, config, &Updates::default(), shape, 1)?;
            weights +=
                net.network.weight_bytes(&net.embedding)? + net.network.weight_bytes(&step)?;
            weights += net.network.weight_bytes(&prompt)?;
            rest += step.bytes();
        }
        Ok((weights, rest))
    }

    /// Makes what does not change from step to step, for a sampling program of `shape`.
    pub fn prepare(
        &self,
        shape: &SampleShape,
        sampling: &Program,
        contexts: &[Array],
    ) -> Result<Prepared<'_>> {
        let mut features = Vec::with_capacity(self.adapters.len());
        for adapter in &self.adapters {
            let program = adapter.network.program(&adapter.planned)?;
            program.write("condition", &adapter.condition)?;
            program.run();
            let count = adapter.network.config.channels.len();
            let maps =
                (0..count).map(|i| program.output(i)).collect::<crate::backend::Result<Vec<_>>>();
            features.push((&adapter.span, adapter.network.blame(maps)?));
        }
        let mut nets = Vec::with_capacity(self.nets.len());
        for (number, net) in self.nets.iter().enumerate() {
            nets.push(net.prepare(number, shape, sampling, contexts)?);
        }
        Ok(Prepared { features, held: None, nets })
    }
}

/// All that is ready before the first step.
#[derive(Default)]
pub(super) struct Prepared<'a> {
    /// Of each adapter.
    features: Vec<(&'a Span, Vec<Array>)>,
    /// Which adapters the program's features are of.
    held: Option<Vec<bool>>,
    nets: Vec<Running<'a>>,
}

struct Running<'a> {
    net: &'a Net,
    program: Program,
    /// The sample, and all that the ControlNet says of it.
    fetch: Copies,
    hand_over: Copies,
    /// Inputs of the sampling program, with their shapes.
    residuals: Vec<(String, Vec<usize>)>,
    /// The sampling program's inputs are zero.
    silent: bool,
}

impl Prepared<'_> {
    /// Lets another phase of regions hold.
    pub fn enter(&self, phase: &Phase) -> Result<()> {
        self.nets.iter().try_for_each(|net| phase.write(&net.program))
    }

    /// Lets ControlNets read other encodings, as [`super::sample::Sampling::set_prompt`] takes
    /// them.
    pub fn set_prompt(&self, shape: &SampleShape, contexts: &[Array]) -> Result<()> {
        self.nets
            .iter()
            .try_for_each(|running| running.net.set_prompt(&running.program, shape, contexts))
    }

    /// Brings all inputs of `sampling` up to step `step` of `steps`.
    pub fn step(
        &mut self,
        sampling: &Program,
        step: usize,
        steps: usize,
        time: &Array,
        scale: f32,
    ) -> Result<()> {
        let held: Vec<bool> =
            self.features.iter().map(|(span, _)| span.holds(step, steps)).collect();
        if !held.is_empty() && self.held.as_ref() != Some(&held) {
            let count = self.features.first().map_or(0, |(_, maps)| maps.len());
            for i in 0..count {
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
                    sampling.write(&format!("feature.{i}"), &sum)?;
                }
            }
            self.held = Some(held);
        }
        for net in &mut self.nets {
            if net.net.span.holds(step, steps) {
                net.program.write("time", time)?;
                net.program.write("input_scale", &Array::f32([1], vec![scale]))?;
                net.fetch.play();
                net.program.run();
                net.hand_over.play();
                net.silent = false;
            } else if !net.silent {
                for (name, shape) in &net.residuals {
                    sampling
                        .write(name, &Array::f32(&shape[..], vec![0.0; shape.iter().product()]))?;
                }
                net.silent = true;
            }
        }
        Ok(())
    }
}

impl Net {
    /// Plans one pass: its outputs are weighed already.
    fn plan(&self, shape: &SampleShape) -> Result<Planned> {
        self.network.plan(|config, graph| {
            let halves = shape.halves();
            let latent = [shape.batch, shape.height, shape.width, config.unet.in_channels];
            let sample = graph.input("sample", latent);
            let scale = graph.input("input_scale", [1]);
            let mut x = graph.multiply(sample, scale)?;
            if halves == 2 {
                x = graph.concat(&[x, x], 0)?;
            }
            let pairs = regions::pairs(graph, &config.unet, shape);
            let sizes = regions::inputs(graph, &config.unet, shape);
            let first = config.unet.block_out_channels[0];
            let inputs = ControlNetInputs {
                sample: x,
                time: graph.input("time", [halves * shape.batch, first]),
                prompt: regions::encodings(&pairs, &sizes, shape),
                embedding: graph.input("embedding", [shape.height, shape.width, first]),
            };
            let output = controlnet::controlnet(&mut Layers::new(graph), config, &inputs)?;
            let weighed = output.skips.iter().chain([&output.middle]).enumerate().map(|(i, &y)| {
                let weight = match self.span.factors.is_empty() {
                    true => graph.input(format!("weight.{i}"), [1]),
                    false => graph.input(format!("weight.{i}"), graph.shape(y)[1..].to_vec()),
                };
                graph.multiply(y, weight)
            });
            weighed.collect()
        })
    }

    /// Makes the keys and values of encoded prompts for a `program` of this network.
    fn set_prompt(&self, program: &Program, shape: &SampleShape, contexts: &[Array]) -> Result<()> {
        let config = &self.network.config.unet;
        // Of encodings for each cross-attention, this network has the first.
        let own = contexts
            .get(..unet::cross_attentions(config).len())
            .filter(|_| contexts.len() > 1)
            .unwrap_or(contexts);
        set_keys_values(program, &self.network, config, &Updates::default(), shape, own, &[])
    }

    fn prepare(
        &self,
        number: usize,
        shape: &SampleShape,
        sampling: &Program,
        contexts: &[Array],
    ) -> Result<Running<'_>> {
        let embedding = self.network.program(&self.embedding)?;
        embedding.write("condition", &self.condition)?;
        embedding.run();
        let config = &self.network.config;
        let program = self.network.program(&self.plan(shape)?)?;
        program.take("embedding", &embedding, 0)?;
        self.set_prompt(&program, shape, contexts)?;
        let rows = shape.halves() * shape.batch;
        let maps = residual_shapes(&config.unet, [shape.height, shape.width]);
        let gpu = self.network.weights.device();
        let mut copies = Vec::new();
        let mut residuals = Vec::new();
        for (i, map) in maps.into_iter().enumerate() {
            let weights = match self.span.factors.is_empty() {
                true => Array::f32([1], vec![self.span.weight]),
                false => Array::f32(map, self.span.weights(map)),
            };
            program.write(&format!("weight.{i}"), &weights)?;
            let name = format!("control.{number}.{i}");
            copies.push(sampling.copy_of_output(&name, &program, i)?);
            residuals.push((name, vec![rows, map[0], map[1], map[2]]));
        }
        let fetch = Copies::new(gpu, &[program.copy_of_input("sample", sampling, "state")?])?;
        let hand_over = Copies::new(gpu, &copies)?;
        Ok(Running { net: self, program, fetch, hand_over, residuals, silent: false })
    }
}

/// Shapes `[height, width, channels]` of the skip connections and, last, of the middle block.
fn residual_shapes(config: &UNetConfig, size: [usize; 2]) -> Vec<[usize; 3]> {
    let mut shapes = unet::skips(config, size);
    shapes.extend(shapes.last().copied());
    shapes
}

/// The inputs of a step that controls write.
pub(super) struct ControlInputs {
    skips: Vec<Tensor>,
    middle: Option<Tensor>,
    adapter: Vec<Tensor>,
}

impl ControlInputs {
    pub fn declare(
        graph: &mut Graph,
        config: &UNetConfig,
        shape: &SampleShape,
    ) -> crate::graph::Result<ControlInputs> {
        let size = [shape.height, shape.width];
        let rows = shape.halves() * shape.batch;
        let mut sums = Vec::new();
        for number in 0..shape.control_nets {
            for (i, [h, w, c]) in residual_shapes(config, size).into_iter().enumerate() {
                let input = graph.input(format!("control.{number}.{i}"), [rows, h, w, c]);
                match sums.get_mut(i) {
                    None => sums.push(input),
                    Some(sum) => *sum = graph.add(*sum, input)?,
                }
            }
        }
        let middle = sums.pop();
        let mut adapter = Vec::new();
        if shape.features {
            for (i, map) in unet::block_features(config, size).into_iter().enumerate() {
                adapter.push(graph.input(format!("feature.{i}"), map));
            }
        }
        Ok(ControlInputs { skips: sums, middle, adapter })
    }

    pub fn residuals(&self) -> Residuals<'_> {
        Residuals { skips: &self.skips, middle: self.middle, adapter: &self.adapter }
    }
}

/// What regions make of the control's weight; nothing where none names it.
fn factors(
    request: &Request,
    name: &str,
    job: &Job,
    unet: &UNetConfig,
) -> Result<Vec<([usize; 2], Vec<f32>)>> {
    let layout = &request.regions;
    if layout.regions.iter().all(|region| !region.controls.contains_key(name)) {
        return Ok(Vec::new());
    }
    let sizes = unet::feature_sizes(unet, job.size[0], job.size[1]);
    let placed = Placed::new(layout, job.width, job.height, &sizes)?;
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
