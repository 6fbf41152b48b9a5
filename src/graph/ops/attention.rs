//! Softmax attention over heads, which never stores the score matrix.

use super::attention_gradient::{AttentionKeysValues, AttentionQueries, AttentionRows};
use super::attention_vectors::Straight;
use super::{Operation, arity, vector_width};
use crate::gpu::{PASSING_LANES, Params, Schedule, Value};
use crate::graph::lower::{Lowering, Work};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor, Traits};

#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    pub heads: usize,
    pub scale: f32,
    pub causal: bool,
    /// Computed to the bit as [`super::regional_attention`] computes one prompt.
    pub to_prompt: bool,
}

/// How attention's kernels share out a head: its tokens (or, backward, its keys), and the channels of each.
pub(super) struct Sharing {
    /// Whether an invocation holds the vectors of its tokens whole. If not, sums are made in parts of `part` channels, and the
    /// vectors are read again for every block of what they meet.
    pub held: bool,
    pub part: usize,
    /// Whether the vectors that they meet are staged in workgroup memory.
    pub staged: bool,
    /// Invocations of a workgroup.
    pub lanes: usize,
    /// Tokens of an invocation.
    pub per_lane: usize,
}

/// How keys are met, going forward.
pub(super) struct Blocks {
    /// Keys at a time: more than two are no faster on software drivers where a token is held, and take twice as long to compile.
    pub block: usize,
    /// Keys in workgroup memory, where they are staged: what fits 16 KiB.
    pub tile: usize,
}

impl Sharing {
    /// Wider heads are not held.
    const WIDEST_HELD: usize = 160;
    const PART: usize = 64;
    /// Numbers that an invocation may hold where registers are few: the rest live in memory close by, and more take ever longer to
    /// compile.
    const REGISTERS: usize = 640;

    /// For heads of `d` channels, `tokens` of them, where a token takes `vectors` times as many numbers, and an invocation may
    /// have `most` tokens.
    pub fn of(schedule: Schedule, d: usize, tokens: usize, vectors: usize, most: usize) -> Sharing {
        let held = d <= Self::WIDEST_HELD;
        let part = if held { d } else { Self::PART };
        match schedule {
            // There a load costs as much as dozens of multiplications: what is loaded must serve many tokens.
            Schedule::Registers { .. } | Schedule::Passed => {
                let fit = (Self::REGISTERS / (vectors * part.max(1))).min(tokens.div_ceil(PASSING_LANES));
                let per_lane = 1 << fit.clamp(1, most).ilog2();
                Sharing { held, part, staged: false, lanes: PASSING_LANES, per_lane }
            }
            _ => Sharing { held, part, staged: held, lanes: if held { 64 } else { 32 }, per_lane: 1 },
        }
    }

    /// For heads of `d` channels.
    pub fn blocks(&self, d: usize) -> Blocks {
        let block = if self.held { 2 } else { 4 };
        Blocks { block, tile: (16384 / (2 * d * 4)).min(32) / block * block }
    }
}

impl Graph {
    /// softmax(`scale` q k^T) v for each of `heads` heads: `q` is `[batch, tokens, channels]`, `k` and `v`
    /// `[batch', keys, channels]`, head h holding channels h d .. (h + 1) d. `batch'` may be smaller than `batch` and divide
    /// it: consecutive entries of `q` then share one of `k` and `v`. `causal`: token i sees keys 0..=i only.
    pub fn attention(&mut self, q: Tensor, k: Tensor, v: Tensor, heads: usize, scale: f32, causal: bool) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal, to_prompt: false }, &[q, k, v])
    }

    /// [`Graph::attention`] of all keys, with the very numbers that [`Graph::regional_attention`] gives for one region over
    /// everything: no kernel rounds what it reads.
    pub fn attention_to_prompt(&mut self, q: Tensor, k: Tensor, v: Tensor, heads: usize, scale: f32) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal: false, to_prompt: true }, &[q, k, v])
    }

    /// [`Graph::attention`] of as many keys as tokens, of which each token sees those with which it shares a bit of `sight`, u32
    /// `[tokens]`, itself among them. Not differentiated.
    pub fn attention_in_sight(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sight: Tensor,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor> {
        self.apply(Attention { heads, scale, causal: false, to_prompt: false }, &[q, k, v, sight])
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (inputs, sight) = inputs.split_at(inputs.len().min(3));
        let [q, k, v] = arity(inputs)?;
        let ([batch, tokens, channels], [kv_batch, keys, kv_channels]) = (q.tokens()?, k.tokens()?);
        if sight.iter().any(|sight| sight[..] != [tokens] || tokens != keys) || sight.len() > 1 {
            return Err(format!("sight {sight:?} does not fit {tokens} tokens and {keys} keys"));
        }
        if k != v || channels != kv_channels || kv_batch == 0 || batch % kv_batch != 0 || keys == 0 {
            return Err(format!("q {q}, k {k} and v {v} do not fit"));
        }
        if self.heads == 0 || channels % self.heads != 0 {
            return Err(format!("{channels} channels do not make {} heads", self.heads));
        }
        if self.causal && tokens != keys {
            return Err(format!("causal attention needs as many keys as tokens, found {keys} and {tokens}"));
        }
        Ok(q.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (tokens, channels, keys) = (shape[1], shape[2], inputs[1].shape[1]);
        let (q, k, v) = (inputs[0].values(), inputs[1].values(), inputs[2].values());
        let (share, d) = (shape[0] / inputs[1].shape[0], channels / self.heads);
        let sight = inputs.get(3).map(|sight| sight.ids());
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
                    *score = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * f64::from(self.scale);
                    if sight.is_some_and(|sight| sight[token] & sight[key] == 0) {
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

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        let &[q, k, v] = context.inputs else {
            return Err(context.refuse(graph, self, "inputs", "attention in sight is for sampling"));
        };
        let rows = graph.apply(AttentionRows(*self), &[q, k, context.output, context.upstream])?;
        let inputs = [q, k, v, context.upstream, rows];
        let dq = if context.wants(0) { Some(graph.apply(AttentionQueries(*self), &inputs)?) } else { None };
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

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        let &[q, k, _] = inputs else { return None };
        Some(Straight::of(traits, self, q, k)?.scratch(1))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let sighted = lowering.step.inputs.len() > 3;
        let straight = Straight::of(&lowering.traits, self, lowering.input_shape(0), lowering.input_shape(1));
        if let Some(straight) = straight.filter(|_| !sighted) {
            return straight.forward(lowering);
        }
        if let Some(tiles) = self.tiles(lowering) {
            return self.lower_matrices(lowering, tiles);
        }
        let q = lowering.shape().clone();
        let (batch, tokens, channels) = (q[0], q[1], q[2]);
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        let sharing = Sharing::of(lowering.traits.schedule, d, tokens, 2, 16);
        let Blocks { block, tile } = sharing.blocks(d);
        let Sharing { part, staged, lanes, per_lane, .. } = sharing;
        let params = [
            ("d", Value::from(d)),
            ("part", Value::from(part)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(self.causal)),
            ("sighted", Value::from(sighted)),
            ("staged", Value::from(staged)),
            ("tile", Value::from(tile)),
        ]
        .into();
        let grid = [tokens.div_ceil(lanes * per_lane), self.heads * d.div_ceil(part), batch];
        self.dispatch(lowering, "attention", params, vector, grid);
    }
}

impl Attention {
    /// Dispatches `kernel`, one that keeps the contract of attention.wgsl and counts channels in vectors of `vector`.
    pub(super) fn dispatch(
        &self,
        lowering: &mut Lowering<'_>,
        kernel: &'static str,
        params: Params,
        vector: usize,
        grid: [usize; 3],
    ) {
        let (q, k) = (lowering.shape().clone(), lowering.input_shape(1).clone());
        let (batch, tokens, channels, keys) = (q[0], q[1], q[2], k[1]);
        let mut work = Work {
            kernel,
            params,
            uniforms: vec![
                ("tokens", tokens.into()),
                ("keys", keys.into()),
                ("channels", (channels / vector).into()),
                ("share", (batch / k[0]).into()),
                // Devices compute 2^x, not e^x.
                ("scale", (self.scale * std::f32::consts::LOG2_E).into()),
            ],
            grid,
            bindings: vec![
                ("q", lowering.input(0)),
                ("k", lowering.input(1)),
                ("v", lowering.input(2)),
                ("y", lowering.output()),
            ],
            flops: 4 * (batch * tokens * keys * channels) as u64,
        };
        if lowering.step.inputs.len() > 3 {
            work.bindings.push(("sight", lowering.input(3)));
        }
        lowering.dispatch(work, false);
    }
}
