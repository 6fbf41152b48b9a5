//! Attention to several prompts, each of which holds for some tokens only.

use super::attention::{Blocks, Sharing};
use super::{Operation, arity, vector_width};
use crate::gpu::{PASSING_LANES, Value};
use crate::graph::lower::{Lowering, Work};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Tokens that share one entry of the operation's `spans`.
pub const REGION_GROUP: usize = 64;

#[derive(Clone, Copy, Debug)]
struct RegionalAttention {
    heads: usize,
    scale: f32,
}

/// Which tokens read which prompt: inputs of [`Graph::regional_attention`], made by [`region_tables`].
#[derive(Clone, Copy, Debug)]
pub struct RegionInputs {
    /// u32 `[tokens]`: the tokens in an order in which those that read the same prompts stand together.
    pub order: Tensor,
    /// `[tokens, prompts]`: each prompt's share of each token's result, 0 where it is not read.
    pub weights: Tensor,
    /// u32 `[ceil(tokens / 64), prompts, 2]`: of each [`REGION_GROUP`] tokens in `order`, first and end of each prompt's keys, the
    /// same number twice for a prompt that none of them reads.
    pub spans: Tensor,
}

/// The values of [`RegionInputs`].
#[derive(Clone, Debug, PartialEq)]
pub struct RegionTables {
    pub order: Array,
    pub weights: Array,
    pub spans: Array,
}

/// Sorts tokens by the prompts that they read, so that prompts cost nothing where they do not hold. `weights` is
/// `[tokens, prompts]`, `lengths` has the number of keys of each prompt.
pub fn region_tables(weights: &[f32], lengths: &[usize]) -> RegionTables {
    let prompts = lengths.len().max(1);
    let reads = |token: u32| weights.iter().skip(token as usize * prompts).take(prompts).map(|w| *w != 0.0);
    let tokens = weights.len() / prompts;
    let mut order: Vec<u32> = (0..tokens as u32).collect();
    order.sort_by(|&a, &b| reads(b).cmp(reads(a)).then(a.cmp(&b)));
    let starts: Vec<usize> = lengths.iter().scan(0, |at, length| Some(std::mem::replace(at, *at + length))).collect();
    let mut spans = Vec::new();
    for group in order.chunks(REGION_GROUP) {
        for (prompt, (start, length)) in starts.iter().zip(lengths).enumerate() {
            let read = group.iter().any(|&token| reads(token).nth(prompt) == Some(true));
            spans.extend([*start as u32, (start + if read { *length } else { 0 }) as u32]);
        }
    }
    RegionTables {
        order: Array::u32([tokens], order),
        weights: Array::f32([tokens, prompts], weights.to_vec()),
        spans: Array::u32([tokens.div_ceil(REGION_GROUP), prompts, 2], spans),
    }
}

impl Graph {
    /// The sum over prompts of their weight times softmax(`scale` q k^T) v, for each of `heads` heads: `q` is
    /// `[batch, tokens, channels]`, `k` and `v` `[batch', keys, channels]` hold the keys of all prompts one after another; `batch'`
    /// divides `batch` as in [`Graph::attention`].
    pub fn regional_attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        regions: RegionInputs,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor> {
        let RegionInputs { order, weights, spans } = regions;
        self.apply(RegionalAttention { heads, scale }, &[q, k, v, order, weights, spans])
    }
}

impl Operation for RegionalAttention {
    fn name(&self) -> &'static str {
        "regional attention"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [q, k, v, order, weights, spans] = arity(inputs)?;
        let ([batch, tokens, channels], [kv_batch, keys, kv_channels]) = (q.tokens()?, k.tokens()?);
        if k != v || channels != kv_channels || kv_batch == 0 || batch % kv_batch != 0 || keys == 0 {
            return Err(format!("q {q}, k {k} and v {v} do not fit"));
        }
        if self.heads == 0 || channels % self.heads != 0 {
            return Err(format!("{channels} channels do not make {} heads", self.heads));
        }
        let prompts = weights.last().copied().unwrap_or(0);
        let groups = tokens.div_ceil(REGION_GROUP);
        if order[..] != [tokens] || weights[..] != [tokens, prompts] || spans[..] != [groups, prompts, 2] || prompts == 0 {
            return Err(format!("order {order}, weights {weights} and spans {spans} do not fit {tokens} tokens"));
        }
        Ok(q.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (tokens, channels, keys) = (shape[1], shape[2], inputs[1].shape[1]);
        let (q, k, v) = (inputs[0].values(), inputs[1].values(), inputs[2].values());
        let (order, weights, spans) = (inputs[3].ids(), inputs[4].values(), inputs[5].ids());
        let (share, d, prompts) = (shape[0] / inputs[1].shape[0], channels / self.heads, inputs[4].shape[1]);
        let mut sums = vec![0.0f64; d];
        for (b, y) in output.chunks_exact_mut(tokens * channels).enumerate() {
            for (slot, &token) in order.iter().enumerate() {
                let token = token as usize;
                for h in 0..self.heads {
                    let q = &q[(b * tokens + token) * channels + h * d..][..d];
                    let at = |key: usize| ((b / share) * keys + key) * channels + h * d;
                    sums.fill(0.0);
                    for prompt in 0..prompts {
                        let span = (slot / REGION_GROUP * prompts + prompt) * 2;
                        let span = spans[span] as usize..spans[span + 1] as usize;
                        let weight = f64::from(weights[token * prompts + prompt]);
                        if weight == 0.0 || span.is_empty() {
                            continue;
                        }
                        let score = |key: usize| {
                            let k = &k[at(key)..at(key) + d];
                            q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * f64::from(self.scale)
                        };
                        let scores: Vec<f64> = span.clone().map(score).collect();
                        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let total: f64 = scores.iter().map(|score| (score - peak).exp()).sum();
                        for (key, score) in span.zip(&scores) {
                            let share = weight * (score - peak).exp() / total;
                            for (sum, &v) in sums.iter_mut().zip(&v[at(key)..at(key) + d]) {
                                *sum += share * f64::from(v);
                            }
                        }
                    }
                    for (y, sum) in y[token * channels + h * d..][..d].iter_mut().zip(&sums) {
                        *y = *sum as f32;
                    }
                }
            }
        }
    }

    /// As if every token read one prompt: how many it reads is known at run time only.
    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        4 * output.elements() as u64 * (inputs[1][1] / inputs[4][1].max(1)) as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(graph, self, "inputs", "regions are for sampling"))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (q, k) = (lowering.shape().clone(), lowering.input_shape(1).clone());
        let (batch, tokens, channels, keys) = (q[0], q[1], q[2], k[1]);
        let prompts = lowering.input_shape(4)[1];
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        // As in plain attention, so that one prompt alone gives the same numbers; no workgroup is larger than a group of tokens.
        let sharing = Sharing::of(lowering.traits.schedule, d, tokens, 2, REGION_GROUP / PASSING_LANES);
        let Blocks { block, tile } = sharing.blocks(d);
        let Sharing { part, staged, lanes, per_lane, .. } = sharing;
        let work = Work {
            kernel: "regional_attention",
            params: [
                ("d", Value::from(d)),
                ("part", Value::from(part)),
                ("block", Value::from(block)),
                ("vector", Value::from(vector)),
                ("lanes", Value::from(lanes)),
                ("per_lane", Value::from(per_lane)),
                ("group", Value::from(REGION_GROUP)),
                ("staged", Value::from(staged)),
                ("tile", Value::from(tile)),
            ]
            .into(),
            uniforms: vec![
                ("tokens", tokens.into()),
                ("keys", keys.into()),
                ("channels", (channels / vector).into()),
                ("share", (batch / k[0]).into()),
                ("prompts", prompts.into()),
                // Devices compute 2^x, not e^x.
                ("scale", (self.scale * std::f32::consts::LOG2_E).into()),
            ],
            grid: [tokens.div_ceil(lanes * per_lane), self.heads * d.div_ceil(part), batch],
            bindings: vec![
                ("q", lowering.input(0)),
                ("k", lowering.input(1)),
                ("v", lowering.input(2)),
                ("order", lowering.input(3)),
                ("weights", lowering.input(4)),
                ("spans", lowering.input(5)),
                ("y", lowering.output()),
            ],
            flops: 4 * (batch * tokens * (keys / prompts) * channels) as u64,
        };
        lowering.dispatch(work, false);
    }
}
