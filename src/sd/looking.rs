//! Firm placing: where the words of each region look is measured in the first steps, and the
//! latents are moved so that they look at their region and nowhere else (in the spirit of
//! LoRA-Composer, Yang et al. 2024, arXiv 2403.11627).
//!
//! Of each region a map: the attention of every place to the words of the region's prompt, the mean
//! over heads and layers of one resolution, divided by its greatest value. Two losses: the mean
//! squared distance from 1 inside of the region, the middle of it counting most; and the mean
//! outside. Their gradient on the latents takes a pass of the UNet for the prompt's half alone,
//! forward and back.

use std::ops::Range;

use crate::graph::{self, Array, Graph, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet::{self, Residuals, UNetInputs};
use crate::nn::{WatchedWords, WordMap, prompt_values, sinusoids};

use super::denoiser::{PromptInputs, StepShape};
use super::error::Result;
use super::network::{LoadedNetwork, PlannedGraph, Ready};
use super::updates::UpdateInputs;

/// The part of the steps in which latents are moved.
const UNTIL: f64 = 0.4;
/// How far one move goes, in parts of the latents' own size, where the loss is 1.
const MOVE: f32 = 0.08;
/// Moves in each of those steps.
const MOVES: usize = 1;
/// Activations, in bytes, beyond which a block's are computed again instead of kept.
const MOST_KEPT: u64 = 1 << 30;

/// Whether latents are moved before sampling step `step` of `count`.
pub(crate) fn acts(step: usize, count: usize) -> bool {
    (step as f64) < UNTIL * count as f64
}

/// What is to be looked at where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    /// For each region, its prompt's tokens among those of all prompts.
    pub spans: Vec<Range<usize>>,
    /// For each region, which tokens its words are, among those of all prompts.
    pub words: Vec<Vec<usize>>,
    /// The feature maps that are looked at.
    pub maps: Vec<TargetMap>,
    /// Factor of the moves; 1 is usual.
    pub strength: f32,
}

/// Where regions are on a feature map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TargetMap {
    /// Height and width.
    pub size: [usize; 2],
    /// For each region, `[height * width]`: how much it holds there.
    pub inside: Vec<Vec<f32>>,
}

impl TargetMap {
    /// What a place counts inside of a region, and outside of it; each adds up to 1, or is nothing.
    fn weights(&self, region: usize) -> [Vec<f32>; 2] {
        let inside = self.inside.get(region).map_or(&[][..], Vec::as_slice);
        let width = self.size[1].max(1);
        let place = |at: usize| [(at / width) as f64, (at % width) as f64];
        let holds = |v: f32| f64::from(v.clamp(0.0, 1.0));
        let all: f64 = inside.iter().map(|v| holds(*v)).sum();
        let mean = |of: &dyn Fn([f64; 2]) -> f64| {
            let sum: f64 = inside.iter().enumerate().map(|(at, v)| holds(*v) * of(place(at))).sum();
            sum / all.max(f64::MIN_POSITIVE)
        };
        let middle = [mean(&|p| p[0]), mean(&|p| p[1])];
        // At least that of a place itself.
        let spread = [0, 1].map(|i| mean(&|p| (p[i] - middle[i]).powi(2)).max(0.25));
        let near = |at: usize| {
            let p = place(at);
            let square: f64 = (0..2).map(|i| (p[i] - middle[i]).powi(2) / spread[i]).sum();
            libm::exp(-0.5 * square)
        };
        let fill = inside.iter().enumerate().map(|(at, v)| holds(*v) * near(at)).collect();
        let outside = inside.iter().map(|v| 1.0 - holds(*v)).collect();
        [fill, outside].map(|weights: Vec<f64>| {
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|w| if sum > 0.0 { (w / sum) as f32 } else { 0.0 }).collect()
        })
    }
}

/// What a look takes.
#[derive(Clone, Debug)]
pub(crate) struct LookInputs {
    /// `[1, height, width, channels]`: one picture's latents.
    sample: Tensor,
    input_scale: Tensor,
    time: Tensor,
    pub prompt: PromptInputs,
    /// Features of the guidance scale, of models that are told it.
    pub guidance: Option<Tensor>,
    pub addition: Option<Tensor>,
    pub updates: UpdateInputs,
    words: Vec<WatchedWords>,
    /// For each map and region: what places count inside, and outside, `[1, places, 1]`.
    weights: Vec<[Tensor; 2]>,
}

/// A look, ready to run: its loss and its gradient on the latents.
pub(crate) struct Look {
    program: Ready<LookInputs>,
    targets: Targets,
}

/// Plans a look for pictures of `shape`.
pub(crate) fn plan(
    network: &LoadedNetwork<UNetConfig>,
    shape: &StepShape,
    targets: &Targets,
) -> Result<PlannedGraph<LookInputs>> {
    let planned = |again| network.plan(|config, graph| build(config, graph, shape, targets, again));
    let kept = planned(false)?;
    if kept.plan.activation_bytes() <= MOST_KEPT { Ok(kept) } else { planned(true) }
}

fn build(
    config: &UNetConfig,
    graph: &mut Graph,
    shape: &StepShape,
    targets: &Targets,
    again: bool,
) -> graph::Result<(LookInputs, Vec<Tensor>)> {
    let shape = &StepShape { batch: 1, ..shape.clone() };
    let sample = graph.input("sample", shape.latent(config));
    let input_scale = graph.input("input_scale", [1]);
    let x = graph.multiply(sample, input_scale)?;
    let prompt = PromptInputs::declare(graph, config, shape);
    let own = prompt.own_half(graph, shape.halves())?;
    let time = graph.input("time", [1, config.block_out_channels[0]]);
    let guidance = config.time_cond_proj_dim.map(|channels| graph.input("guidance", [1, channels]));
    let addition = config.addition.map(|of| graph.input("addition", [1, of.width()]));
    let inputs = UNetInputs {
        sample: x,
        time,
        prompt: prompt.encodings_of(&own),
        guidance,
        class: None,
        addition,
        residuals: Residuals::default(),
    };
    let sizes = unet::feature_sizes(config, shape.height, shape.width);
    let mut rows: Vec<usize> = sizes.iter().map(|[height, width]| height * width).collect();
    rows.push(1);
    rows.dedup();
    let ((maps, words), updates) = shape.updates.build(graph, &rows, |layers| {
        let wanted = targets.maps.iter().map(|map| map.size).collect();
        layers.watch_prompts(targets.spans.clone(), wanted);
        unet::unet(layers, config, &inputs)?;
        Ok(layers.word_maps())
    })?;
    let (loss, weights) = loss(graph, &maps, targets)?;
    if again {
        graph.recompute_blocks();
    }
    let gradient = graph.gradients(loss, &[sample])?;
    let inputs = LookInputs {
        sample,
        input_scale,
        time,
        prompt,
        guidance,
        addition,
        updates,
        words,
        weights,
    };
    Ok((inputs, [loss].into_iter().chain(gradient).collect()))
}

/// Both losses `[1]` over all maps and regions, as their mean, and the inputs of what places count.
fn loss(
    graph: &mut Graph,
    maps: &[WordMap],
    targets: &Targets,
) -> graph::Result<(Tensor, Vec<[Tensor; 2]>)> {
    let (mut total, mut inputs): (Option<Tensor>, _) = (None, Vec::new());
    let regions = targets.spans.len();
    for (number, target) in targets.maps.iter().enumerate() {
        let (mut sum, mut heads): (Option<Tensor>, usize) = (None, 0);
        for map in maps.iter().filter(|map| map.size == target.size) {
            heads += map.heads;
            sum = Some(match sum {
                Some(sum) => graph.add(sum, map.map)?,
                None => map.map,
            });
        }
        for region in 0..regions {
            let shape = [1, target.size[0] * target.size[1], 1];
            let name = |what: &str| format!("look.{number}.{region}.{what}");
            let [fill, off] = ["inside", "outside"].map(|what| graph.input(name(what), shape));
            inputs.push([fill, off]);
            let Some(sum) = sum else { continue };
            let mean = graph.scale(sum, 1.0 / heads.max(1) as f32)?;
            let map = graph.slice(mean, 2, region, 1)?;
            let map = graph.normalize_by_max(map)?;
            let whole = graph.filled(shape, 1.0)?;
            let missing = graph.weighted_squared_error(map, whole, fill)?;
            let off = graph.multiply(map, off)?;
            let off = graph.sum(off)?;
            let both = graph.add(missing, off)?;
            total = Some(match total {
                Some(total) => graph.add(total, both)?,
                None => both,
            });
        }
    }
    let total = match total {
        Some(total) => total,
        None => graph.filled([1], 0.0)?,
    };
    let count = (targets.maps.len() * regions).max(1);
    Ok((graph.scale(total, 1.0 / count as f32)?, inputs))
}

impl Look {
    pub fn new(
        network: &LoadedNetwork<UNetConfig>,
        planned: &PlannedGraph<LookInputs>,
        targets: &Targets,
    ) -> Result<Look> {
        let program = network.program(planned)?;
        let inputs = &program.inputs;
        let keys = inputs.prompt.tokens(&planned.graph);
        let positions: Vec<usize> = targets.words.iter().flatten().copied().collect();
        for WatchedWords { width, heads, input } in &inputs.words {
            let values = prompt_values(&positions, keys, *width, *heads);
            program.write(*input, &Array::f32([1, keys, *width], values))?;
        }
        let all = targets
            .maps
            .iter()
            .flat_map(|map| (0..targets.spans.len()).map(move |region| map.weights(region)));
        for (tensors, weights) in inputs.weights.iter().zip(all) {
            for (tensor, weights) in tensors.iter().zip(weights) {
                if program.has_input(*tensor) {
                    program.write(*tensor, &Array::f32([1, weights.len(), 1], weights))?;
                }
            }
        }
        Ok(Look { program, targets: targets.clone() })
    }

    pub fn program(&self) -> &Ready<LookInputs> {
        &self.program
    }

    /// For distilled models, which are told the guidance that they stand in for.
    pub fn set_distilled_guidance(&self, config: &UNetConfig, guidance: f32) -> Result<()> {
        if let (Some(input), Some(channels)) =
            (self.program.inputs.guidance, config.time_cond_proj_dim)
        {
            let features = sinusoids(&[(guidance - 1.0) * 1000.0], channels, false, 1.0);
            self.program.write(input, &Array::f32([1, channels], features))?;
        }
        Ok(())
    }

    /// The loss of one picture's latents `[1, height, width, channels]`, and its gradient.
    pub fn measure(
        &self,
        config: &UNetConfig,
        latents: &Array,
        timestep: f32,
        input_scale: f32,
    ) -> Result<(f32, Array)> {
        let inputs = &self.program.inputs;
        let time = unet::time_features(config, &[timestep]);
        self.program.write(inputs.time, &Array::f32([1, time.len()], time))?;
        self.program.write(inputs.input_scale, &Array::f32([1], vec![input_scale]))?;
        self.program.write(inputs.sample, latents)?;
        self.program.run();
        self.program.wait()?;
        let loss = self.program.output(0)?.values().first().copied().unwrap_or(0.0);
        Ok((loss, self.program.output(1)?))
    }

    /// Moves latents `[batch, height, width, channels]`, each picture by itself, along the
    /// gradient: as far as the loss says, in parts of their own size, so that it does not depend on
    /// how steep a model's attention is.
    pub fn move_latents(
        &self,
        config: &UNetConfig,
        latents: &mut [f32],
        [timestep, input_scale]: [f32; 2],
        shape: [usize; 4],
    ) -> Result<()> {
        let [_, height, width, channels] = shape;
        let each = height * width * channels;
        for picture in latents.chunks_exact_mut(each.max(1)) {
            for _ in 0..MOVES {
                let array = Array::f32([1, height, width, channels], picture.to_vec());
                let (loss, gradient) = self.measure(config, &array, timestep, input_scale)?;
                let (size, slope) = (size(picture), size(gradient.values()));
                let step = self.targets.strength * MOVE * loss * size / slope;
                if !step.is_finite() {
                    break;
                }
                for (value, slope) in picture.iter_mut().zip(gradient.values()) {
                    *value -= step * slope;
                }
            }
        }
        Ok(())
    }
}

/// Root mean square.
fn size(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (sum / values.len().max(1) as f64).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::concept::{Applied, Concept, Lora, Network, UpdateSet};
    use crate::graph::ops::RegionTables;
    use crate::graph::{Element, Origin, ParameterError, ParameterInfo, ParameterSource, StoredAs};
    use crate::sd::updates::Updates;

    #[test]
    fn the_middle_of_a_region_counts_most_inside_and_all_alike_outside() {
        let inside = (0..24).map(|at| f32::from(u8::from(at % 6 < 4))).collect();
        let map = TargetMap { size: [4, 6], inside: vec![inside, vec![0.0; 24]] };
        let [fill, outside] = map.weights(0);
        let sum = |weights: &[f32]| weights.iter().sum::<f32>();
        assert!((sum(&fill) - 1.0).abs() < 1e-5 && (sum(&outside) - 1.0).abs() < 1e-5);
        assert!(fill[7] > fill[0] && (fill[7] - fill[8]).abs() < 1e-6 && fill[4] == 0.0);
        assert!(outside[3] == 0.0 && (outside[4] - 1.0 / 8.0).abs() < 1e-6);
        let [nothing, all] = map.weights(1);
        assert!(sum(&nothing) == 0.0 && (sum(&all) - 1.0).abs() < 1e-5);
    }

    /// Weights of any name and shape, from their names.
    struct Hashed(HashMap<String, Vec<usize>>);

    fn hashed(name: &str, count: usize) -> Vec<f32> {
        let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let value = |at: u64| {
            let mut z = seed.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ z >> 31) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count as u64).map(value).collect()
    }

    impl ParameterSource for Hashed {
        fn info(&self, name: &str) -> Option<ParameterInfo> {
            let shape = self.0.get(name)?.clone();
            Some(ParameterInfo { shape, stored: StoredAs::F32 })
        }

        fn read(
            &self,
            name: &str,
            range: Range<usize>,
            into: &mut [f32],
        ) -> std::result::Result<(), ParameterError> {
            let missing = || ParameterError::Missing { name: name.into() };
            let shape = self.0.get(name).ok_or_else(missing)?;
            let values = hashed(name, shape.iter().product());
            let inputs: usize = shape.iter().skip(1).product();
            let scale = 1.5 / (inputs.max(1) as f32).sqrt();
            let is_gain = name.contains("norm") && name.ends_with("weight");
            for (to, value) in into.iter_mut().zip(&values[range]) {
                *to = if is_gain { 1.0 + 0.2 * value } else { scale * value };
            }
            Ok(())
        }
    }

    /// On latents by differences: of a UNet with three prompts, two of them in regions, and a LoRA
    /// that acts by a mask.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let config = serde_json::json!({
            "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
            "block_out_channels": [8, 16], "norm_num_groups": 4, "attention_head_dim": 2,
            "cross_attention_dim": 12,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        });
        let config = UNetConfig::from_json(&config, Path::new("test")).unwrap();
        let lengths = [5, 6, 5];
        let layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q";
        let lora = Lora {
            down: Array::f32([2, 8], hashed("down", 16)),
            up: Array::f32([8, 2], hashed("up", 16)),
        };
        let set = UpdateSet::new([(layer.to_string(), lora.into())]);
        let concept = Concept { updates: [(Network::UNet, set)].into(), ..Concept::default() };
        let applied = Applied::new(concept, 0.8).unwrap();
        let sets = applied.of(Network::UNet).map(|set| (set, vec![0.0, 1.0, 0.3]));
        let updates = Updates::of(sets.into_iter()).on(&[0, 1, 2]);
        let [height, width] = [8, 8];
        let sizes = unet::feature_sizes(&config, height, width);
        // The context at the upper edge, a region on each side, some places of both.
        let shares = |[height, width]: [usize; 2]| -> Vec<f32> {
            let row = |at: usize| match (at / width, at % width) {
                (0, _) => [1.0, 0.0, 0.0],
                (1, x) if x + 1 == width / 2 => [0.0, 0.5, 0.5],
                (_, x) if x < width / 2 => [0.0, 1.0, 0.0],
                _ => [0.0, 0.0, 1.0],
            };
            (0..height * width).flat_map(row).collect()
        };
        let tables: Vec<RegionTables> =
            sizes.iter().map(|size| RegionTables::new(&shares(*size), &lengths)).collect();
        let shape = StepShape {
            height,
            width,
            tokens: lengths.iter().sum(),
            reach: tables.iter().map(|tables| tables.reach().to_vec()).collect(),
            guidance: Some(5.0),
            updates,
            ..StepShape::default()
        };
        let map = |size: &[usize; 2]| {
            let all = shares(*size);
            let inside = [1, 2].map(|p| all.iter().skip(p).step_by(3).copied().collect());
            TargetMap { size: *size, inside: inside.to_vec() }
        };
        let targets = Targets {
            spans: vec![5..11, 11..16],
            words: vec![vec![6, 7], vec![12]],
            maps: sizes.iter().map(map).collect(),
            strength: 1.0,
        };
        for again in [false, true] {
            let mut graph = Graph::new();
            let (look, outputs) = build(&config, &mut graph, &shape, &targets, again).unwrap();
            let mut inputs: HashMap<String, Array> = HashMap::new();
            let mut parameters = HashMap::new();
            for node in graph.nodes() {
                match &node.origin {
                    Origin::Parameter { name } => {
                        parameters.insert(name.clone(), node.shape.to_vec());
                    }
                    Origin::Input { name } if node.element == Element::F32 => {
                        let mut values = hashed(name, node.shape.elements());
                        if name.contains(".mask.") || node.shape.elements() == 1 {
                            values.iter_mut().for_each(|v| *v = 0.5 + 0.4 * *v);
                        }
                        inputs.insert(name.clone(), Array::f32(node.shape.clone(), values));
                    }
                    _ => {}
                }
            }
            for (number, tables) in tables.iter().enumerate() {
                let named = tables.named(&format!("regions.{number}"));
                inputs.extend(named.map(|(name, array)| (name, array.clone())));
            }
            let names: HashMap<Tensor, String> = graph
                .tensors()
                .filter_map(|tensor| match &graph.node(tensor).origin {
                    Origin::Input { name } => Some((tensor, name.clone())),
                    _ => None,
                })
                .collect();
            for WatchedWords { width, heads, input } in &look.words {
                let values = prompt_values(&[6, 7, 12], 16, *width, *heads);
                inputs.insert(names[input].clone(), Array::f32([1, 16, *width], values));
            }
            let all = targets.maps.iter().flat_map(|map| [map.weights(0), map.weights(1)]);
            for (tensors, weights) in look.weights.iter().zip(all) {
                for (tensor, weights) in tensors.iter().zip(weights) {
                    let array = Array::f32([1, weights.len(), 1], weights);
                    inputs.insert(names[tensor].clone(), array);
                }
            }
            let weights = Hashed(parameters);
            let found = graph.evaluate(&outputs, &inputs, &weights).unwrap();
            let (loss, gradient) = (found[0].values()[0], &found[1]);
            assert!(loss > 0.1 && loss < 2.0, "{loss}");
            let sample = inputs["sample"].clone();
            let direction = hashed("direction", sample.values().len());
            let mut at = |steps: f32| {
                let moved = sample.values().iter().zip(&direction);
                let moved = moved.map(|(v, d)| v + steps * 4e-3 * d).collect();
                inputs.insert("sample".into(), Array::f32(sample.shape.clone(), moved));
                f64::from(graph.evaluate(&outputs[..1], &inputs, &weights).unwrap()[0].values()[0])
            };
            let (near, far) = (at(1.0) - at(-1.0), at(2.0) - at(-2.0));
            let difference = (8.0 * near - far) / (12.0 * 4e-3);
            let expected: f64 = gradient
                .values()
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let error = (difference - expected).abs() / expected.abs().max(1e-3);
            assert!(error < 2e-2, "{difference} {expected}");
            // Along it the loss falls.
            let slope: f32 = gradient.values().iter().map(|g| g * g).sum();
            let sample = sample.values().iter().zip(gradient.values());
            let lower = sample.map(|(v, g)| v - 0.02 * g / slope.sqrt()).collect();
            inputs.insert("sample".into(), Array::f32([1, height, width, 4], lower));
            let lower = graph.evaluate(&outputs[..1], &inputs, &weights).unwrap()[0].values()[0];
            assert!(lower < loss, "{lower} {loss}");
        }
    }
}
