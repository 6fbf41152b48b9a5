//! Attention to several prompts, each of which holds for some tokens only.

use super::attention::{
    Attention, Segment, TOKENS, each_piece, padded, panels_elements, rows_elements, to_panels,
    to_rows,
};
use super::parallel::{ALIGN, MEMORY, Shared, aligned, pieces, with_scratch};
use super::simd::{Level, kernel};

/// Tokens that share one entry of [`Regions::spans`].
const GROUP: usize = 64;

/// Which tokens read which prompt.
#[derive(Clone, Copy, Debug)]
pub struct Regions<'a> {
    /// `[tokens]`: the tokens in an order in which those that read the same prompts stand together.
    pub order: &'a [u32],
    /// `[tokens, prompts]`: each prompt's share of each token's result, 0 where it is not read.
    pub weights: &'a [f32],
    /// `[ceil(tokens / 64), prompts, 2]`: of each 64 tokens in `order`, first and end of each
    /// prompt's keys, the same number twice for a prompt that none of them reads.
    pub spans: &'a [u32],
    /// Keys of each prompt, which lie one after another.
    pub lengths: &'a [usize],
}

/// Scratch that [`regional_attention`] takes: of prompts of these lengths.
pub fn scratch_elements(a: &Attention, lengths: &[usize]) -> usize {
    let each = |keys: &usize| panels_elements(*keys, a.d) + rows_elements(*keys, a.d);
    ALIGN + a.kv_batch * a.heads * lengths.iter().map(each).sum::<usize>()
}

/// The sum over prompts of their weight times softmax(`scale` q k^T) v, for each head.
///
/// One prompt of weight 1 over everything gives the bytes of [`super::attention::attention`].
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn regional_attention(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    regions: &Regions<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    a.check(q.len(), k.len(), v.len());
    let Regions { order, weights, spans, lengths } = *regions;
    let (prompts, groups) = (lengths.len(), a.tokens.div_ceil(GROUP));
    assert!(y.len() == q.len() && lengths.iter().sum::<usize>() == a.keys && !a.causal);
    assert!(order.len() == a.tokens && weights.len() == a.tokens * prompts);
    assert!(spans.len() == groups * prompts * 2 && order.iter().all(|t| (*t as usize) < a.tokens));
    let (channels, d) = (a.channels(), a.d);
    let heads = a.kv_batch * a.heads;
    let all = (scratch_elements(a, lengths) - ALIGN) / heads.max(1);
    let scratch = aligned(scratch, all * heads);
    let target = Shared::new(scratch);
    pieces(heads, heads * all * MEMORY, |head| {
        let mut from = head / a.heads * a.keys * channels + head % a.heads * d;
        let mut at = head * all;
        for &keys in lengths {
            let (panels, rows) = (panels_elements(keys, d), rows_elements(keys, d));
            unsafe {
                to_panels(level, &k[from..], channels, keys, d, target.part(at, panels));
                to_rows(&v[from..], channels, keys, d, target.part(at + panels, rows));
            }
            from += keys * channels;
            at += panels + rows;
        }
    });
    let packed = &*scratch;
    let y = Shared::new(y);
    let width = padded(d);
    each_piece(a.batch * a.heads * groups, a.cost(2) * a.batch * a.heads, |unit| {
        let (group, h, b) = (unit % groups, unit / groups % a.heads, unit / groups / a.heads);
        let members = &order[group * GROUP..((group + 1) * GROUP).min(a.tokens)];
        let count = members.len();
        let packed = &packed[(b / a.share() * a.heads + h) * all..][..all];
        let place = |token: u32| (b * a.tokens + token as usize) * channels + h * d;
        let most = GROUP * (d + 2 * width);
        with_scratch(most + TOKENS * super::attention::score_stride(d), |scratch| {
            let (own, scores) = scratch.split_at_mut(most);
            let (gathered, rest) = own.split_at_mut(GROUP * d);
            let (sums, result) = rest.split_at_mut(GROUP * width);
            for (row, token) in gathered.chunks_exact_mut(d).zip(members) {
                row.copy_from_slice(&q[place(*token)..][..d]);
            }
            result.fill(0.0);
            let mut at = 0;
            for (prompt, &keys) in lengths.iter().enumerate() {
                let (panels, rows) = (panels_elements(keys, d), rows_elements(keys, d));
                let (start, end) = (at, at + panels + rows);
                at = end;
                let span = &spans[(group * prompts + prompt) * 2..][..2];
                if span[0] >= span[1] {
                    continue;
                }
                let segment = Segment {
                    d,
                    all: keys,
                    keys,
                    scale: a.scale,
                    panels: &packed[start..start + panels],
                    rows: &packed[start + panels..end],
                    causal: None,
                    mask: None,
                };
                let [mut peaks, mut factors] = [[0.0; TOKENS]; 2];
                let (peaks, factors) = (&mut peaks, &mut factors);
                unsafe {
                    let (q, sums) = (gathered.as_ptr(), sums.as_mut_ptr());
                    segment.sums(level, q, d, count, sums, width, peaks, factors, scores);
                    for (factor, token) in factors.iter_mut().zip(members) {
                        let weight = weights[*token as usize * prompts + prompt];
                        *factor = if weight == 0.0 { 0.0 } else { weight * (1.0 / *factor) };
                    }
                    add_rows(level, sums, width, &factors[..count], result.as_mut_ptr());
                }
            }
            for (row, token) in result.chunks_exact(width).zip(members) {
                unsafe { y.part(place(*token), d) }.copy_from_slice(&row[..d]);
            }
        });
    });
}

kernel! {
    /// Adds rows times their factors; rows of factor 0 whatever they are.
    fn add_rows(s: S, from: *const f32, width: usize, factors: &[f32], to: *mut f32) {
        unsafe {
            for (r, &factor) in factors.iter().enumerate() {
                if factor == 0.0 {
                    continue;
                }
                let (from, to, f) = (from.add(r * width), to.add(r * width), s.splat(factor));
                let mut c = 0;
                while c < width {
                    let sum = s.add(s.mul(s.load(from.add(c)), f), s.load(to.add(c)));
                    s.store(to.add(c), sum);
                    c += S::LANES;
                }
            }
        }
    }
}
