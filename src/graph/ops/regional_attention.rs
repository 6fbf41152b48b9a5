//! Attention to several prompts, each of which holds for some tokens only.

use super::attention::Attention;
use super::attention_gradient::{AttentionKeysValues, AttentionQueries, AttentionRows};
use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Tokens that share one entry of the operation's `spans`.
pub(crate) const REGION_GROUP: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct RegionalAttention {
    pub heads: usize,
    pub scale: f32,
    pub reach: Vec<Reach>,
}

/// How many keys a prompt has, and how many tokens read it at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Keys of the prompt.
    pub keys: usize,
    /// Most tokens of the feature map that read it.
    pub tokens: usize,
}

/// Which tokens read which prompt: inputs of [`Graph::regional_attention`], whose values are
/// [`RegionTables`].
#[derive(Clone, Debug)]
pub struct RegionInputs {
    /// u32 `[tokens]`: the tokens in an order in which those that read the same prompts stand
    /// together.
    order: Tensor,
    /// `[tokens, prompts]`: each prompt's share of each token's result, 0 where it is not read.
    weights: Tensor,
    /// u32 `[ceil(tokens / 64), prompts, 2]`: of each 64 tokens in `order`, first and end of each
    /// prompt's keys, the same number twice for a prompt that none of them reads.
    spans: Tensor,
    reach: Vec<Reach>,
}

/// The values of [`RegionInputs`].
#[derive(Clone, Debug, PartialEq)]
pub struct RegionTables {
    order: Array,
    weights: Array,
    spans: Array,
    reach: Vec<Reach>,
}

impl RegionTables {
    /// Sorts tokens by the prompts that they read, so that prompts cost nothing where they do not
    /// hold. `weights` is `[tokens, prompts]`, `lengths` has the number of keys of each prompt.
    pub fn new(weights: &[f32], lengths: &[usize]) -> RegionTables {
        let prompts = lengths.len().max(1);
        let reads = |token: u32| {
            weights.iter().skip(token as usize * prompts).take(prompts).map(|w| *w != 0.0)
        };
        let tokens = weights.len() / prompts;
        let mut order: Vec<u32> = (0..tokens as u32).collect();
        order.sort_by(|&a, &b| reads(b).cmp(reads(a)).then(a.cmp(&b)));
        let starts: Vec<usize> = lengths
            .iter()
            .scan(0, |at, length| Some(std::mem::replace(at, *at + length)))
            .collect();
        let mut spans = Vec::new();
        for group in order.chunks(REGION_GROUP) {
            for (prompt, (start, length)) in starts.iter().zip(lengths).enumerate() {
                let read = group.iter().any(|&token| reads(token).nth(prompt) == Some(true));
                spans.extend([*start as u32, (start + if read { *length } else { 0 }) as u32]);
            }
        }
        let reach_of = |(prompt, &keys): (usize, &usize)| {
            let reading = |&token: &u32| reads(token).nth(prompt) == Some(true);
            Reach { keys, tokens: (0..tokens as u32).filter(reading).count() }
        };
        let reach = lengths.iter().enumerate().map(reach_of).collect();
        RegionTables {
            order: Array::u32([tokens], order),
            weights: Array::f32([tokens, prompts], weights.to_vec()),
            spans: Array::u32([tokens.div_ceil(REGION_GROUP), prompts, 2], spans),
            reach,
        }
    }

    /// Tokens of the feature map.
    pub fn tokens(&self) -> usize {
        self.order.shape[0]
    }

    /// How far each prompt reaches. Tables fit inputs that are declared for as much, or for more.
    pub fn reach(&self) -> &[Reach] {
        &self.reach
    }

    /// The values of `inputs`.
    pub fn values(&self, inputs: &RegionInputs) -> [(Tensor, &Array); 3] {
        [(inputs.order, &self.order), (inputs.weights, &self.weights), (inputs.spans, &self.spans)]
    }

    /// The values of what [`RegionInputs::declare`] declared by the same `name`, by their full
    /// names.
    pub fn named(&self, name: &str) -> [(String, &Array); 3] {
        let named = [("order", &self.order), ("weights", &self.weights), ("spans", &self.spans)];
        named.map(|(part, array)| (format!("{name}.{part}"), array))
    }
}

impl RegionInputs {
    /// Declares inputs whose names begin with `name`, for prompts that reach as far as `reach` says
    /// on a feature map of `tokens`.
    pub fn declare(
        graph: &mut Graph,
        name: &str,
        tokens: usize,
        reach: Vec<Reach>,
    ) -> RegionInputs {
        let prompts = reach.len();
        RegionInputs {
            order: graph.input_ids(format!("{name}.order"), [tokens]),
            weights: graph.input(format!("{name}.weights"), [tokens, prompts]),
            spans: graph
                .input_ids(format!("{name}.spans"), [tokens.div_ceil(REGION_GROUP), prompts, 2]),
            reach,
        }
    }
}

impl Graph {
    /// The sum over prompts of their weight times softmax(`scale` q k^T) v, for each of `heads`
    /// heads: `q` is `[batch, tokens, channels]`, `k` and `v` `[batch', keys, channels]` hold the
    /// keys of all prompts one after another; `batch'` divides `batch` as in [`Graph::attention`].
    /// Differentiated by `q`, `k` and `v`.
    pub fn regional_attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        regions: RegionInputs,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor> {
        let RegionInputs { order, weights, spans, reach } = regions;
        self.apply(RegionalAttention { heads, scale, reach }, &[q, k, v, order, weights, spans])
    }
}

impl RegionalAttention {
    /// Pairs of a token and a key of a prompt that it reads.
    pub fn pairs(&self) -> usize {
        self.reach.iter().map(|prompt| prompt.tokens * prompt.keys).sum()
    }
}

impl Operation for RegionalAttention {
    fn name(&self) -> &'static str {
        "regional attention"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [q, k, v, order, weights, spans] = arity(inputs)?;
        let ([batch, tokens, channels], [kv_batch, keys, kv_channels]) = (q.tokens()?, k.tokens()?);
        if k != v || channels != kv_channels || kv_batch == 0 || batch % kv_batch != 0 || keys == 0
        {
            return Err(format!("q {q}, k {k} and v {v} do not fit"));
        }
        if self.heads == 0 || channels % self.heads != 0 {
            return Err(format!("{channels} channels do not make {} heads", self.heads));
        }
        let prompts = self.reach.len();
        let groups = tokens.div_ceil(REGION_GROUP);
        let tables = order[..] == [tokens] && weights[..] == [tokens, prompts];
        if !tables || spans[..] != [groups, prompts, 2] || prompts == 0 {
            return Err(format!(
                "order {order}, weights {weights} and spans {spans} do not fit {tokens} tokens \
                    and {prompts} prompts"
            ));
        }
        let found: usize = self.reach.iter().map(|prompt| prompt.keys).sum();
        if found != keys || self.reach.iter().any(|prompt| prompt.tokens > tokens) {
            return Err(format!("{:?} do not fit {keys} keys and {tokens} tokens", self.reach));
        }
        Ok(q.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (tokens, channels, keys) = (shape[1], shape[2], inputs[1].shape[1]);
        let (q, k, v) = (inputs[0].values(), inputs[1].values(), inputs[2].values());
        let (order, weights, spans) = (inputs[3].ids(), inputs[4].values(), inputs[5].ids());
        let (share, d, prompts) =
            (shape[0] / inputs[1].shape[0], channels / self.heads, inputs[4].shape[1]);
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
                            q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
                                * f64::from(self.scale)
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

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        4 * (inputs[0][0] * inputs[0][2] * self.pairs()) as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let &[q, k, v, _, weights, _] = context.inputs else {
            return Err(context.refuse(graph, self, "inputs", "there are six"));
        };
        if (3..context.inputs.len()).any(|input| context.wants(input)) {
            return Err(context.refuse(graph, self, "tables", "where prompts hold stands still"));
        }
        let of_prompts = context.wants(1) || context.wants(2);
        let (heads, scale) = (self.heads, self.scale);
        let attention = Attention { heads, scale, causal: false, to_prompt: false };
        let channels = graph.shape(q).channels();
        let (mut total, mut first): (Option<Tensor>, usize) = (None, 0);
        // Of each prompt.
        let (mut of_keys, mut of_values) = (Vec::new(), Vec::new());
        for (number, reach) in self.reach.iter().enumerate() {
            let keys = graph.slice(k, 1, first, reach.keys)?;
            let values = graph.slice(v, 1, first, reach.keys)?;
            first += reach.keys;
            // The prompt's share of every token, for all channels.
            let share = graph.slice(weights, 1, number, 1)?;
            let ones = graph.filled([channels, 1], 1.0)?;
            let share = graph.lora_up(None, share, ones)?;
            let upstream = graph.multiply(context.upstream, share)?;
            let read = graph.attention(q, keys, values, heads, scale, false)?;
            let rows = graph.apply(AttentionRows(attention), &[q, keys, read, upstream])?;
            let part = [q, keys, values, upstream, rows];
            let dq = match context.wants(0) {
                true => Some(graph.apply(AttentionQueries(attention), &part)?),
                false => None,
            };
            // Next to each other, the processor makes both in one go.
            if of_prompts {
                let both = graph.apply(AttentionKeysValues(attention), &part)?;
                let shape = graph.shape(keys).clone();
                for (which, all) in [&mut of_keys, &mut of_values].into_iter().enumerate() {
                    let one = graph.slice(both, 0, which, 1)?;
                    all.push(graph.reshape(one, shape.clone())?);
                }
            }
            total = match (total, dq) {
                (Some(total), Some(dq)) => Some(graph.add(total, dq)?),
                (total, dq) => total.or(dq),
            };
        }
        let mut joined = |parts: &[Tensor]| match parts {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            parts => graph.concat(parts, 1).map(Some),
        };
        Ok(vec![total, joined(&of_keys)?, joined(&of_values)?, None, None, None])
    }
}
