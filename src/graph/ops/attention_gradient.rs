//! Attention backward without the score matrix: the probabilities are computed again from what each row keeps.
//!
//! With s = `scale` q k^T, p = exp(s - lse), lse the log of the row's sum of exponentials, and delta = dy . y of the row:
//! dv = p^T dy, ds = p (dy v^T - delta), dq = `scale` ds k, dk = `scale` ds^T q. One operation makes lse and delta of every
//! row; then queries and keys can be walked independently, each sum by one invocation and in a fixed order.
//! (Dao et al., "FlashAttention", 2022, appendix B.)

use super::attention::{Attention, Sharing};
use super::attention_vectors::Straight;
use super::{Operation, arity, no_second_gradient, vector_width};
use crate::gpu::{Params, Uniform, Value};
use crate::graph::lower::{Located, Lowering, Work};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor, Traits};

/// Of q, k, y and dy: lse and delta of every row, `[batch, tokens, heads, 2]`.
#[derive(Debug)]
pub(super) struct AttentionRows(pub Attention);

/// Of q, k, v, dy and the rows: dq.
#[derive(Debug)]
pub(super) struct AttentionQueries(pub Attention);

/// Of q, k, v, dy and the rows: dk, then dv, `[2, batch', keys, channels]`; summed over the queries that share them.
#[derive(Debug)]
pub(super) struct AttentionKeysValues(pub Attention);

/// The extents of one attention.
struct Extents {
    tokens: usize,
    keys: usize,
    channels: usize,
    /// Channels of a head.
    d: usize,
    /// Batch entries of q that share one of k and v.
    share: usize,
}

impl Extents {
    fn of(attention: &Attention, q: &Shape, k: &Shape) -> Extents {
        let (channels, keys) = (q[2], k[1]);
        Extents { tokens: q[1], keys, channels, d: channels / attention.heads, share: q[0] / k[0] }
    }

    /// Where head `h` of row `row` of q starts.
    fn query(&self, row: usize, h: usize) -> usize {
        row * self.channels + h * self.d
    }

    /// Where head `h` of the key `key` that row `row` of q meets starts.
    fn key(&self, row: usize, key: usize, h: usize) -> usize {
        (row / self.tokens / self.share * self.keys + key) * self.channels + h * self.d
    }

    /// The keys that row `row` of q sees.
    fn visible(&self, attention: &Attention, row: usize) -> usize {
        if attention.causal { row % self.tokens + 1 } else { self.keys }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Calls `each` with (row of q, head, key, p, ds) for every pair of a query and a key that it sees.
fn each_pair(attention: &Attention, inputs: &[&Array], extents: &Extents, mut each: impl FnMut(usize, usize, usize, f64, f64)) {
    let [q, k, v, dy, rows] = [0, 1, 2, 3, 4].map(|i| inputs[i].values());
    let d = extents.d;
    for row in 0..q.len() / extents.channels {
        for h in 0..attention.heads {
            let at = extents.query(row, h);
            let kept = &rows[(row * attention.heads + h) * 2..][..2];
            for key in 0..extents.visible(attention, row) {
                let from = extents.key(row, key, h);
                let score = dot(&q[at..at + d], &k[from..from + d]) * f64::from(attention.scale);
                let p = (score - f64::from(kept[0])).exp();
                let dp = dot(&dy[at..at + d], &v[from..from + d]);
                each(row, h, key, p, p * (dp - f64::from(kept[1])));
            }
        }
    }
}

/// What the three kernels have in common: a row, query or key of one head to an invocation, against all of the others.
struct Kernel {
    name: &'static str,
    /// Invocations wanted for each head of a batch entry, and batch entries.
    each: [usize; 2],
    /// Tensors of which the kernel stages a tile.
    met: usize,
    /// Vectors of a head's width that an invocation holds for each of its rows, queries or keys.
    vectors: usize,
    /// Whether the elements of a head are made in parts where they are many.
    parts: bool,
    /// Operations for each pair of a query and a key and each channel.
    flops: usize,
}

impl Kernel {
    /// Bytes of workgroup memory that any device has.
    const STAGE: usize = 16384;

    fn dispatch(
        &self,
        attention: &Attention,
        lowering: &mut Lowering<'_>,
        more: Vec<(&'static str, Uniform)>,
        bindings: Vec<(&'static str, Located)>,
    ) {
        let (q, k) = (lowering.input_shape(0).clone(), lowering.input_shape(1).clone());
        let Extents { tokens, keys, channels, d, share } = Extents::of(attention, &q, &k);
        let vector = vector_width(&[d]);
        let [each, entries] = self.each;
        let Sharing { held, part, staged, lanes, per_lane } = Sharing::of(lowering.traits.schedule, d, each, self.vectors, 8);
        // On software drivers four at a time are a tenth faster than two for narrow heads, and slower for wide ones.
        let block = if held && (d > 64 || per_lane > 1) { 2 } else { 4 };
        let part = if self.parts { part } else { d };
        let tile = (Self::STAGE / (self.met * d * 4)).min(32) / block * block;
        let mut params: Params = [
            ("d", Value::from(d)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(attention.causal)),
            ("held", Value::from(held)),
            ("staged", Value::from(staged)),
            ("tile", Value::from(tile.max(block))),
        ]
        .into();
        if self.parts {
            params.insert("part", Value::from(part));
        }
        let mut uniforms: Vec<(&'static str, Uniform)> = vec![
            ("tokens", tokens.into()),
            ("keys", keys.into()),
            ("channels", (channels / vector).into()),
            ("share", share.into()),
            ("heads", attention.heads.into()),
        ];
        uniforms.extend(more);
        let work = Work {
            kernel: self.name,
            params,
            uniforms,
            grid: [each.div_ceil(lanes * per_lane), attention.heads * d.div_ceil(part), entries],
            bindings,
            flops: (self.flops * q[0] * tokens * keys * channels) as u64,
        };
        lowering.dispatch(work, false);
    }
}

fn straight(attention: &Attention, lowering: &Lowering<'_>) -> Option<Straight> {
    Straight::of(&lowering.traits, attention, lowering.input_shape(0), lowering.input_shape(1))
}

/// The inputs and the output of a step by their kernel's names.
fn bound<const N: usize>(
    lowering: &Lowering<'_>,
    inputs: [&'static str; N],
    output: &'static str,
) -> Vec<(&'static str, Located)> {
    let inputs = inputs.into_iter().enumerate().map(|(i, name)| (name, lowering.input(i)));
    inputs.chain([(output, lowering.output())]).collect()
}

/// The shape rule that both gradients share.
fn check(attention: &Attention, inputs: &[&Shape]) -> Result<(), String> {
    let [q, k, v, dy, rows] = arity(inputs)?;
    let y = attention.shape(&[q, k, v])?;
    if *dy != y || rows[..] != [q[0], q[1], attention.heads, 2] {
        return Err(format!("q {q} with an upstream gradient {dy} and rows {rows}"));
    }
    Ok(())
}

impl Operation for AttentionRows {
    fn name(&self) -> &'static str {
        "attention_rows"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [q, k, y, dy] = arity(inputs)?;
        if self.0.shape(&[q, k, k])? != *y || y != dy {
            return Err(format!("q {q} with a result {y} and an upstream gradient {dy}"));
        }
        Ok([q[0], q[1], self.0.heads, 2].into())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let extents = Extents::of(&self.0, &inputs[0].shape, &inputs[1].shape);
        let [q, k, y, dy] = [0, 1, 2, 3].map(|i| inputs[i].values());
        let d = extents.d;
        for (slot, kept) in output.chunks_exact_mut(2).enumerate() {
            let (row, h) = (slot / self.0.heads, slot % self.0.heads);
            let at = extents.query(row, h);
            let score = |key: usize| {
                let from = extents.key(row, key, h);
                dot(&q[at..at + d], &k[from..from + d]) * f64::from(self.0.scale)
            };
            let visible = extents.visible(&self.0, row);
            let peak = (0..visible).map(score).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = (0..visible).map(|key| (score(key) - peak).exp()).sum();
            kept[0] = (peak + total.ln()) as f32;
            kept[1] = dot(&y[at..at + d], &dy[at..at + d]) as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        2 * inputs[0].elements() as u64 * (inputs[1][1] as u64 + 1)
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(1))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        if let Some(straight) = straight(&self.0, lowering) {
            return straight.rows(lowering);
        }
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel = Kernel { name: "attention_rows", each, met: 1, vectors: 1, parts: false, flops: 2 };
        let bindings = bound(lowering, ["q", "k", "y", "dy"], "rows");
        // Devices compute 2^x, not e^x.
        let scale = self.0.scale * std::f32::consts::LOG2_E;
        kernel.dispatch(&self.0, lowering, vec![("scale", scale.into())], bindings);
    }
}

impl Operation for AttentionQueries {
    fn name(&self) -> &'static str {
        "attention_queries_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        check(&self.0, inputs)?;
        Ok(inputs[0].clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let extents = Extents::of(&self.0, shape, &inputs[1].shape);
        let k = inputs[1].values();
        let mut sums = vec![0.0f64; output.len()];
        each_pair(&self.0, inputs, &extents, |row, h, key, _, ds| {
            let (at, from) = (extents.query(row, h), extents.key(row, key, h));
            for (sum, &k) in sums[at..at + extents.d].iter_mut().zip(&k[from..from + extents.d]) {
                *sum += ds * f64::from(k);
            }
        });
        for (dq, sum) in output.iter_mut().zip(sums) {
            *dq = (sum * f64::from(self.0.scale)) as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        6 * inputs[0].elements() as u64 * inputs[1][1] as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(2))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        if let Some(straight) = straight(&self.0, lowering) {
            return straight.queries(lowering);
        }
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel = Kernel { name: "attention_queries_gradient", each, met: 2, vectors: 3, parts: true, flops: 6 };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        kernel.dispatch(&self.0, lowering, vec![("scale", self.0.scale.into())], bindings);
    }
}

impl Operation for AttentionKeysValues {
    fn name(&self) -> &'static str {
        "attention_keys_values_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        check(&self.0, inputs)?;
        let k = inputs[1];
        Ok([2, k[0], k[1], k[2]].into())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let extents = Extents::of(&self.0, &inputs[0].shape, &inputs[1].shape);
        let (q, dy) = (inputs[0].values(), inputs[3].values());
        let mut keys = vec![0.0f64; output.len() / 2];
        let mut values = keys.clone();
        each_pair(&self.0, inputs, &extents, |row, h, key, p, ds| {
            let (at, from) = (extents.query(row, h), extents.key(row, key, h));
            for c in 0..extents.d {
                keys[from + c] += ds * f64::from(q[at + c]) * f64::from(self.0.scale);
                values[from + c] += p * f64::from(dy[at + c]);
            }
        });
        for (y, sum) in output.iter_mut().zip(keys.into_iter().chain(values)) {
            *y = sum as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        8 * inputs[0].elements() as u64 * inputs[1][1] as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of_keys(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(2))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let straight = Straight::of_keys(&lowering.traits, &self.0, lowering.input_shape(0), lowering.input_shape(1));
        if let Some(straight) = straight {
            return straight.keys_values(lowering);
        }
        let k = lowering.input_shape(1);
        let (each, entries) = ([k[1], k[0]], k[0]);
        let kernel = Kernel { name: "attention_keys_values_gradient", each, met: 2, vectors: 4, parts: true, flops: 8 };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        let more = vec![("entries", entries.into()), ("scale", self.0.scale.into())];
        kernel.dispatch(&self.0, lowering, more, bindings);
    }
}
