//! Softmax attention over heads, which never stores the score matrix.

use super::attention_gradient::{AttentionKeysValues, AttentionQueries, AttentionRows};
use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub heads: usize,
    pub scale: f32,
    pub causal: bool,
    /// Computed to the bit as [`super::regional_attention`] computes one prompt.
    pub to_prompt: bool,
}

impl Graph {
    /// softmax(`scale` q k^T) v for each of `heads` heads: `q` is `[batch, tokens, channels]`, `k`
    /// and `v` `[batch', keys, channels]`, head h holding channels h d .. (h + 1) d. `batch'` may
    /// be smaller than `batch` and divide it: consecutive entries of `q` then share one of `k` and
    /// `v`. `causal`: token i sees keys 0..=i only.
    pub fn attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: usize,
        scale: f32,
        causal: bool,
    ) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal, to_prompt: false }, &[q, k, v])
    }

    /// [`Graph::attention`] of all keys, with the very numbers that [`Graph::regional_attention`]
    /// gives for one region over everything: no kernel rounds what it reads.
    pub fn attention_to_prompt(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal: false, to_prompt: true }, &[q, k, v])
    }

    /// [`Graph::attention`] of as many keys as tokens, of which each token sees those with which it
    /// shares a bit of `mask`, u32 `[tokens]`, itself among them. Not differentiated.
    pub fn masked_attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal: false, to_prompt: false }, &[q, k, v, mask])
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (inputs, mask) = inputs.split_at(inputs.len().min(3));
        let [q, k, v] = arity(inputs)?;
        let ([batch, tokens, channels], [kv_batch, keys, kv_channels]) = (q.tokens()?, k.tokens()?);
        if mask.iter().any(|mask| mask[..] != [tokens] || tokens != keys) || mask.len() > 1 {
            return Err(format!("mask {mask:?} does not fit {tokens} tokens and {keys} keys"));
        }
        if k != v || channels != kv_channels || kv_batch == 0 || batch % kv_batch != 0 || keys == 0
        {
            return Err(format!("q {q}, k {k} and v {v} do not fit"));
        }
        if self.heads == 0 || channels % self.heads != 0 {
            return Err(format!("{channels} channels do not make {} heads", self.heads));
        }
        if self.causal && tokens != keys {
            return Err(format!(
                "causal attention needs as many keys as tokens, found {keys} and {tokens}"
            ));
        }
        Ok(q.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (tokens, channels, keys) = (shape[1], shape[2], inputs[1].shape[1]);
        let (q, k, v) = (inputs[0].values(), inputs[1].values(), inputs[2].values());
        let (share, d) = (shape[0] / inputs[1].shape[0], channels / self.heads);
        let mask = inputs.get(3).map(|mask| mask.ids());
        let mut scores = vec![0.0f64; keys];
        let mut sums = vec![0.0f64; d];
        for (row, y) in output.chunks_exact_mut(channels).enumerate() {
            let (b, token) = (row / tokens, row % tokens);
            let visible = if self.causal { token + 1 } else { keys };
            for h in 0..self.heads {
                let q = &q[row * channels + h * d..][..d];
                let at = |key: usize| ((b / share) * keys + key) * channels + h * d;
                for (key, score) in scores[..visible].iter_mut().enumerate() {
                    let k = &k[at(key)..at(key) + d];
                    *score =
                        q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
                            * f64::from(self.scale);
                    if mask.is_some_and(|mask| mask[token] & mask[key] == 0) {
                        *score = f64::NEG_INFINITY;
                    }
                }
                let peak = scores[..visible].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mut total = 0.0;
                sums.fill(0.0);
                for (key, score) in scores[..visible].iter().enumerate() {
                    let weight = (score - peak).exp();
                    total += weight;
                    for (sum, &v) in sums.iter_mut().zip(&v[at(key)..at(key) + d]) {
                        *sum += weight * f64::from(v);
                    }
                }
                for (y, sum) in y[h * d..(h + 1) * d].iter_mut().zip(&sums) {
                    *y = (sum / total) as f32;
                }
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        4 * output.elements() as u64 * inputs[1][1] as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let &[q, k, v] = context.inputs else {
            return Err(context.refuse(graph, self, "inputs", "attention in mask is for sampling"));
        };
        let rows = graph.apply(AttentionRows(*self), &[q, k, context.output, context.upstream])?;
        let inputs = [q, k, v, context.upstream, rows];
        let dq = if context.wants(0) {
            Some(graph.apply(AttentionQueries(*self), &inputs)?)
        } else {
            None
        };
        let (mut dk, mut dv) = (None, None);
        if context.wants(1) || context.wants(2) {
            let both = graph.apply(AttentionKeysValues(*self), &inputs)?;
            let shape = graph.shape(k).clone();
            let mut part = |index| {
                let part = graph.slice(both, 0, index, 1)?;
                graph.reshape(part, shape.clone())
            };
            dk = if context.wants(1) { Some(part(0)?) } else { None };
            dv = if context.wants(2) { Some(part(1)?) } else { None };
        }
        Ok(vec![dq, dk, dv])
    }
}
