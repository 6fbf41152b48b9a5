//! Attention backward without the score matrix: the probabilities are computed again from what each
//! row keeps.
//!
//! With s = `scale` q k^T, p = exp(s - lse), lse the log of the row's sum of exponentials, and
//! delta = dy . y of the row: dv = p^T dy, ds = p (dy v^T - delta), dq = `scale` ds k, dk = `scale`
//! ds^T q. One operation makes lse and delta of every row; then queries and keys can be walked
//! independently, each sum by one invocation and in a fixed order. (Dao et al., "FlashAttention",
//! 2022, appendix B.)

use super::attention::Attention;
use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Of q, k, y and dy: lse and delta of every row, `[batch, tokens, heads, 2]`.
#[derive(Debug)]
pub(crate) struct AttentionRows(pub Attention);

/// Of q, k, v, dy and the rows: dq.
#[derive(Debug)]
pub(crate) struct AttentionQueries(pub Attention);

/// Of q, k, v, dy and the rows: dk, then dv, `[2, batch', keys, channels]`; summed over the queries
/// that share them.
#[derive(Debug)]
pub(crate) struct AttentionKeysValues(pub Attention);

/// The extents of one attention.
pub(crate) struct Extents {
    pub tokens: usize,
    pub keys: usize,
    pub channels: usize,
    /// Channels of a head.
    pub d: usize,
    /// Batch entries of q that share one of k and v.
    pub share: usize,
}

impl Extents {
    pub fn of(attention: &Attention, q: &Shape, k: &Shape) -> Extents {
        let (channels, keys) = (q[2], k[1]);
        Extents { tokens: q[1], keys, channels, d: channels / attention.heads, share: q[0] / k[0] }
    }

    /// Where head `h` of row `row` of q starts.
    pub fn query(&self, row: usize, h: usize) -> usize {
        row * self.channels + h * self.d
    }

    /// Where head `h` of the key `key` that row `row` of q meets starts.
    pub fn key(&self, row: usize, key: usize, h: usize) -> usize {
        (row / self.tokens / self.share * self.keys + key) * self.channels + h * self.d
    }

    /// The keys that row `row` of q sees.
    pub fn visible(&self, attention: &Attention, row: usize) -> usize {
        if attention.causal { row % self.tokens + 1 } else { self.keys }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Calls `each` with (row of q, head, key, p, ds) for every pair of a query and a key that it sees.
fn each_pair(
    attention: &Attention,
    inputs: &[&Array],
    extents: &Extents,
    mut each: impl FnMut(usize, usize, usize, f64, f64),
) {
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

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
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

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
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

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
