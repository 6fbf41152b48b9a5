//! Small graphs that together dispatch this program's kernels at odd shapes.

use std::collections::HashMap;

use super::spec::noise;
use crate::graph::ops::{Function, GatePart, Moments, RegionInputs, RegionTables};
use crate::graph::{
    Array, Element, Graph, Origin, ParameterError, ParameterInfo, ParameterSource, Quant, Result,
    StoredAs, Tensor,
};

/// A graph, what is wanted of it, and how exactly.
pub(super) struct Case {
    pub name: String,
    pub graph: Graph,
    pub outputs: Vec<Tensor>,
    /// Relative to the greatest of the result; none where not all elements of it are meant.
    pub tolerance: Option<f32>,
    /// Inputs that cannot be any numbers.
    given: HashMap<String, Array>,
}

impl Case {
    /// Values for all inputs.
    pub fn inputs(&self) -> HashMap<String, Array> {
        let mut inputs = self.given.clone();
        for node in self.graph.nodes() {
            let Origin::Input { name } = &node.origin else { continue };
            if inputs.contains_key(name) {
                continue;
            }
            let count = node.shape.elements();
            let array = match node.element {
                Element::U32 => {
                    let id = |i| ((noise(name, i) + 1.0) * 2.4) as u32;
                    Array::u32(node.shape.clone(), (0..count).map(id).collect())
                }
                Element::F32 => {
                    let value = |i| (noise(name, i) * 2.0) as f32;
                    Array::f32(node.shape.clone(), (0..count).map(value).collect())
                }
            };
            inputs.insert(name.clone(), array);
        }
        inputs
    }
}

/// Weights made up from their names; those whose name starts with "half" are stored as f16, or with
/// that of a kind of blocks, in such.
pub(super) struct MadeUp(HashMap<String, Vec<usize>>);

/// The blocks that a weight's name asks for.
pub(super) fn quant_of(name: &str) -> Option<Quant> {
    Quant::ALL.into_iter().find(|quant| name.starts_with(quant.name()))
}

impl MadeUp {
    /// All parameters of a graph.
    pub fn of(graph: &Graph) -> MadeUp {
        let parameter = |node: &crate::graph::Node| match &node.origin {
            Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
            _ => None,
        };
        MadeUp(graph.nodes().iter().filter_map(parameter).collect())
    }
}

impl ParameterSource for MadeUp {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let stored = if name.starts_with("half") { StoredAs::F16 } else { StoredAs::F32 };
        Some(ParameterInfo { shape: self.0.get(name)?.clone(), stored })
    }

    fn read(
        &self,
        name: &str,
        range: std::ops::Range<usize>,
        into: &mut [f32],
    ) -> std::result::Result<(), ParameterError> {
        for (value, index) in into.iter_mut().zip(range) {
            // f16 holds these to the last bit, and so do blocks with the greatest at their start.
            let number = |most: f64| (noise(name, index) * most).round();
            let is_first = index.is_multiple_of(32);
            *value = match quant_of(name) {
                None => number(512.0) / 512.0,
                Some(Quant::Q8_0) if is_first => 127.0 / 128.0,
                Some(Quant::Q8_0) => number(127.0) / 128.0,
                Some(Quant::Q4_0) if is_first => -1.0,
                Some(Quant::Q4_0) => number(7.0) / 8.0,
            } as f32;
        }
        Ok(())
    }
}

struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: String,
        tolerance: impl Into<Option<f32>>,
        build: impl FnOnce(&mut Graph) -> Result<Vec<Tensor>>,
    ) -> Result<()> {
        let tolerance = tolerance.into();
        let mut graph = Graph::new();
        let outputs = build(&mut graph)?;
        self.0.push(Case { name, graph, outputs, tolerance, given: HashMap::new() });
        Ok(())
    }

    /// As `add`, of the gradients with respect to what `build` returns beside the output.
    fn add_gradients(
        &mut self,
        name: String,
        tolerance: f32,
        build: impl FnOnce(&mut Graph) -> Result<(Tensor, Vec<Tensor>)>,
    ) -> Result<()> {
        self.add(format!("gradients of {name}"), tolerance, |g| {
            let (y, wanted) = build(g)?;
            let shape = g.shape(y).clone();
            let upstream = g.input("upstream", shape);
            g.gradients_of(y, upstream, &wanted)
        })
    }
}

/// All cases.
pub(super) fn cases() -> Result<Vec<Case>> {
    let mut all = Cases(Vec::new());
    products(&mut all)?;
    attentions(&mut all)?;
    norms(&mut all)?;
    low_rank(&mut all)?;
    elementwise(&mut all)?;
    sums(&mut all)?;
    Ok(all.0)
}

fn products(all: &mut Cases) -> Result<()> {
    for half in ["half", "full"] {
        for (rows, into, out) in [(1, 4, 4), (13, 36, 68), (3, 7, 5), (17, 10, 66), (70, 24, 8)] {
            let name = format!("linear {half} {rows}x{into} -> {out}");
            all.add(name, 1e-5, |g| {
                let x = g.input("x", [1, rows, into]);
                let w = g.parameter(format!("{half}.w"), [out, into]);
                Ok(vec![g.linear(x, w)?])
            })?;
        }
        for (size, into, out, kernel, stride) in [
            ([5, 6], 8, 12, 3, 1),
            ([7, 5], 3, 6, 3, 1),
            ([6, 7], 8, 4, 3, 2),
            ([4, 3], 6, 5, 1, 1),
        ] {
            let name = format!("conv {half} {size:?}x{into} -> {out}, {kernel}/{stride}");
            let build = |g: &mut Graph| {
                let x = g.input("x", [2, size[0], size[1], into]);
                let padded = g.pad2d(x, [kernel / 2; 4])?;
                let w = g.parameter(format!("{half}.w"), [out, into, kernel, kernel]);
                Ok((g.conv2d(padded, w, stride)?, vec![x]))
            };
            all.add(name.clone(), 2e-5, |g| Ok(vec![build(g)?.0]))?;
            all.add_gradients(name, 2e-5, build)?;
        }
        all.add_gradients(format!("linear {half} 13x36 -> 68"), 1e-5, |g| {
            let x = g.input("x", [1, 13, 36]);
            let w = g.parameter(format!("{half}.w"), [68, 36]);
            Ok((g.linear(x, w)?, vec![x]))
        })?;
    }
    for quant in Quant::ALL {
        for (rows, into, out) in [(13, 64, 68), (3, 32, 9), (70, 96, 130)] {
            let name = format!("linear {} {rows}x{into} -> {out}", quant.name());
            let build = |g: &mut Graph| {
                let x = g.input("x", [1, rows, into]);
                let w = g.parameter(format!("{}.w", quant.name()), [out, into]);
                Ok((g.linear(x, w)?, vec![x]))
            };
            all.add(name.clone(), 1e-5, |g| Ok(vec![build(g)?.0]))?;
            all.add_gradients(name, 1e-5, build)?;
        }
        all.add(format!("conv {} of one pixel", quant.name()), 1e-5, |g| {
            let x = g.input("x", [2, 3, 5, 32]);
            let w = g.parameter(format!("{}.w", quant.name()), [12, 32, 1, 1]);
            Ok(vec![g.conv2d(x, w, 1)?])
        })?;
    }
    for out in [72, 7] {
        all.add(format!("everything behind a linear layer of {out}"), 2e-5, |g| {
            let (x, w) = (g.input("x", [2, 5, 16]), g.parameter("half.w", [out, 16]));
            let (bias, residual) = (g.parameter("bias", [out]), g.input("residual", [2, 5, out]));
            let (row, gain) = (g.input("row", [2, 1, out]), g.input("gain", [1]));
            let y = g.linear(x, w)?;
            let y = g.scale(y, 0.25)?;
            let y = g.add(y, bias)?;
            let y = g.activation(y, Function::Gelu)?;
            let first = g.add(y, residual)?;
            let y = g.linear(x, w)?;
            let y = g.add(y, row)?;
            let second = g.multiply(y, gain)?;
            Ok(vec![first, second])
        })?;
    }
    Ok(())
}

fn attentions(all: &mut Cases) -> Result<()> {
    for (batch, share, tokens, keys, heads, d) in [
        (1, 1, 1, 2, 1, 4),
        (2, 1, 17, 37, 2, 8),
        (4, 2, 9, 5, 3, 40),
        (1, 1, 65, 34, 1, 16),
        (1, 1, 10, 13, 2, 10),
        (1, 1, 5, 6, 1, 192),
    ] {
        let name = format!("attention {batch}x{tokens}x{keys}, {heads} of {d}");
        let build = |g: &mut Graph| {
            let q = g.input("q", [batch, tokens, heads * d]);
            let k = g.input("k", [batch / share, keys, heads * d]);
            let v = g.input("v", [batch / share, keys, heads * d]);
            let scale = 1.0 / (d as f32).sqrt();
            Ok((g.attention(q, k, v, heads, scale, false)?, vec![q, k, v]))
        };
        all.add(name.clone(), 1e-5, |g| Ok(vec![build(g)?.0]))?;
        all.add_gradients(name, 2e-5, build)?;
    }
    let weights: Vec<f32> = (0..70).flat_map(|t| [1.0, f32::from(u8::from(t % 3 == 0))]).collect();
    for d in [8, 10] {
        let tables = RegionTables::new(&weights, &[7, 9]);
        all.add(format!("attention by regions, heads of {d}"), 1e-5, |g| {
            let q = g.input("q", [1, 70, 2 * d]);
            let (k, v) = (g.input("k", [1, 16, 2 * d]), g.input("v", [1, 16, 2 * d]));
            let regions = RegionInputs::declare(g, "regions", 70, tables.reach().to_vec());
            Ok(vec![g.regional_attention(q, k, v, regions, 2, 0.3)?])
        })?;
        if let Some(case) = all.0.last_mut() {
            case.given = tables.named("regions").map(|(name, array)| (name, array.clone())).into();
        }
    }
    let causal = |g: &mut Graph| {
        let x = g.input("x", [2, 21, 16]);
        Ok((g.attention(x, x, x, 2, 0.3, true)?, vec![x]))
    };
    all.add("causal attention".into(), 1e-5, |g| Ok(vec![causal(g)?.0]))?;
    all.add_gradients("causal attention".into(), 2e-5, causal)
}

fn norms(all: &mut Cases) -> Result<()> {
    for (batch, rows, channels, groups) in [(1, 1, 8, 2), (2, 77, 20, 4), (3, 70, 30, 3)] {
        let shape = format!("{batch}x{rows}x{channels}/{groups}");
        let group = |g: &mut Graph| {
            let x = g.input("x", [batch, rows, channels]);
            let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
            let s = g.group_norm_statistics(x, groups, 1e-5)?;
            Ok((g.group_norm(x, s, weight, bias)?, vec![x, bias]))
        };
        all.add(format!("group norm {shape}"), 1e-5, |g| Ok(vec![group(g)?.0]))?;
        all.add_gradients(format!("group norm {shape}"), 2e-5, group)?;
        let layer = |g: &mut Graph| {
            let x = g.input("x", [batch, rows, channels]);
            let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
            Ok((g.layer_norm(x, weight, bias, 1e-5)?, vec![x, bias]))
        };
        all.add(format!("layer norm {shape}"), 1e-5, |g| Ok(vec![layer(g)?.0]))?;
        all.add_gradients(format!("layer norm {shape}"), 2e-5, layer)?;
    }
    all.add_gradients("division by the greatest".into(), 1e-5, |g| {
        let x = g.input("x", [1, 63, 1]);
        let positive = g.activation(x, Function::Exp)?;
        Ok((g.normalize_by_max(positive)?, vec![positive]))
    })
}

fn low_rank(all: &mut Cases) -> Result<()> {
    for (rows, into, rank) in [(5, 24, 4), (9, 10, 3)] {
        all.add(format!("lora {rows}x{into}, rank {rank}"), 1e-5, |g| {
            let x = g.input("x", [2, rows, into]);
            let (down, up) = (g.input("down", [rank, into]), g.input("up", [20, rank]));
            let hidden = g.lora_down(x, down)?;
            let alone = g.lora_up(None, hidden, up)?;
            let w = g.parameter("half.w", [20, into]);
            let base = g.linear(x, w)?;
            Ok(vec![alone, g.lora_up(Some(base), hidden, up)?])
        })?;
        all.add_gradients(format!("lora {rows}x{into}, rank {rank}"), 2e-5, |g| {
            let x = g.input("x", [2, rows, into]);
            let (down, up) = (g.input("down", [rank, into]), g.input("up", [20, rank]));
            let hidden = g.lora_down(x, down)?;
            Ok((g.lora_up(None, hidden, up)?, vec![x, down, up]))
        })?;
    }
    all.add("gates of low-rank updates".into(), 1e-6, |g| {
        let strength = g.input("strength", [1]);
        let mask = g.input("mask", [7]);
        let parts = [
            GatePart { rank: 3, strength: Some(strength), mask: Some(mask), factor: 0.5 },
            GatePart { rank: 4, strength: Some(strength), mask: None, factor: 1.0 },
        ];
        Ok(vec![g.lora_gate(&parts)?])
    })
}

fn elementwise(all: &mut Cases) -> Result<()> {
    for channels in [8, 5] {
        all.add(format!("moving and mixing {channels}"), 1e-5, |g| {
            let (a, b) = (g.input("a", [2, 3, channels]), g.input("b", [2, 3, 12]));
            let ids = g.input_ids("ids", [2, 7]);
            let mut outputs = vec![g.concat_channels(a, b)?, g.slice(b, 2, 4, 8)?];
            let extra = g.input("extra", [2, channels]);
            for name in ["half.table", "table"] {
                let table = g.parameter(name, [3, channels]);
                outputs.push(g.embedding_continued(table, extra, ids)?);
            }
            let x = g.input("x", [4, 3, 2 * channels]);
            outputs.push(g.guidance(x, 7.5)?);
            outputs.push(g.geglu(x)?);
            let (state, matrix) = (g.input("state", [3, 4, channels]), g.input("matrix", [3, 5]));
            let (e, n) = (g.input("e", [4, channels]), g.input("n", [4, channels]));
            outputs.push(g.mix(state, e, n, matrix)?);
            Ok(outputs)
        })?;
        all.add(format!("pictures of {channels}"), 1e-5, |g| {
            let x = g.input("x", [2, 4, 6, channels]);
            let y = g.silu(x)?;
            let padded = g.pad2d(y, [2, 1, 1, 2])?;
            Ok(vec![padded, g.upsample_nearest(x, 9, 13)?, g.average_pool(x)?])
        })?;
        all.add_gradients(format!("upsampling {channels}"), 1e-5, |g| {
            let x = g.input("x", [2, 5, 7, channels]);
            let y = g.silu(x)?;
            Ok((g.upsample_nearest(y, 10, 14)?, vec![x]))
        })?;
        all.add_gradients(format!("geglu of {channels}"), 1e-5, |g| {
            let x = g.input("x", [3, 5, 2 * channels]);
            Ok((g.geglu(x)?, vec![x]))
        })?;
    }
    all.add_gradients("embedding".into(), 1e-5, |g| {
        let (table, ids) = (g.input("table", [5, 12]), g.input_ids("ids", [2, 9]));
        Ok((g.embedding(table, ids)?, vec![table]))
    })?;
    all.add("adamw".into(), 1e-5, |g| {
        let (state, gradient, loss) =
            (g.input("state", [3, 97]), g.input("gradient", [97]), g.input("loss", [1]));
        let state = g.activation(state, Function::Exp)?;
        let parts: Vec<Tensor> = [0.999, 0.05, 0.7, 0.5, 1.0]
            .into_iter()
            .map(|value| g.filled([1], value))
            .collect::<Result<_>>()?;
        let rates = g.concat(&parts, 0)?;
        let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        Ok(vec![g.adamw(state, gradient, rates, loss, moments)?])
    })
}

fn sums(all: &mut Cases) -> Result<()> {
    for (batch, rows, channels) in [(2, 3, 5), (3, 300, 8)] {
        all.add(format!("sums of {batch}x{rows}x{channels}"), 2e-5, |g| {
            let x = g.input("x", [batch, rows, channels]);
            let mut outputs = vec![g.filled([batch, rows], -1.5)?, g.mean(x)?];
            for shape in [vec![channels], vec![rows, channels], vec![batch, 1, channels]] {
                let sum = g.sum_to(x, shape)?;
                outputs.push(sum);
                outputs.push(g.broadcast_to(sum, [batch, rows, channels])?);
            }
            Ok(outputs)
        })?;
        all.add(format!("outer sums of {batch}x{rows}x{channels}"), None, |g| {
            let x = g.input("x", [batch, rows, channels]);
            let sums = g.input("sums", [2, channels, channels]);
            Ok(vec![g.outer_sums(sums, x)?])
        })?;
    }
    Ok(())
}
