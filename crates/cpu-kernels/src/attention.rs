//! Softmax attention over heads, in blocks: of the scores there is never more than a tile.

use super::math::exp_of_negative;
use super::parallel::{ALIGN, MEMORY, PIECE, Shared, aligned, pieces, with_scratch};
use super::simd::{Level, kernel};
use super::tile::{Tile, multiply};
use super::turn::turn;

/// The extents of one attention: q is `[batch, tokens, heads * d]`, k and v are
/// `[kv_batch, keys, heads * d]`. `kv_batch` divides `batch`: consecutive entries of q share one of
/// k and v.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub batch: usize,
    pub kv_batch: usize,
    pub tokens: usize,
    pub keys: usize,
    pub heads: usize,
    /// Channels of a head.
    pub d: usize,
    pub scale: f32,
    /// Token i sees keys 0..=i only.
    pub causal: bool,
}

impl Attention {
    pub(crate) fn channels(&self) -> usize {
        self.heads * self.d
    }

    pub(crate) fn share(&self) -> usize {
        self.batch / self.kv_batch.max(1)
    }

    pub(crate) fn check(&self, q: usize, k: usize, v: usize) {
        let channels = self.channels();
        assert!(self.kv_batch > 0 && self.batch.is_multiple_of(self.kv_batch), "{self:?}");
        assert!(!self.causal || self.tokens == self.keys, "{self:?}");
        assert_eq!(q, self.batch * self.tokens * channels, "{self:?}");
        assert!(k == self.kv_batch * self.keys * channels && v == k, "{self:?}");
    }

    /// What a pair of a query and a key costs in `matmuls` matmuls of a head's width, and an
    /// exponential.
    pub(crate) fn cost(&self, matmuls: usize) -> usize {
        self.tokens * self.keys * (matmuls * 2 * self.d.next_multiple_of(8) + 32)
    }
}

/// Most tokens of a piece: all of them meet keys and values while these are near.
pub(crate) const TOKENS: usize = 128;

/// Parts of at most [`TOKENS`] into which `count` tokens are cut, and tokens of each.
pub(crate) fn parts(count: usize) -> (usize, usize) {
    let parts = count.div_ceil(TOKENS).max(1);
    let each = count.div_ceil(parts).max(1);
    (count.div_ceil(each), each)
}

/// Keys whose panel a matmul reads.
pub(crate) const PANEL: usize = 32;

/// Keys at a time, for heads of `d` channels: they and their scores stay in a core's second cache.
pub(crate) fn keys_at_a_time(d: usize) -> usize {
    if d > 192 { 128 } else { 256 }
}

/// Elements from one row of scores to the next: not the multiple of a page that would crowd one set
/// of the cache.
pub(crate) fn score_stride(d: usize) -> usize {
    keys_at_a_time(d) + 16
}

/// Channels of a head in whole vectors.
pub(crate) fn padded(d: usize) -> usize {
    d.next_multiple_of(16)
}

/// Elements of `count` rows of a head in panels, and in rows.
pub(crate) fn panels_elements(count: usize, d: usize) -> usize {
    count.next_multiple_of(PANEL) * d
}

pub(crate) fn rows_elements(count: usize, d: usize) -> usize {
    count * padded(d)
}

/// Rows of a head, `stride` from one to the next, turned round: `[count / 32][d][32]`, zeros beyond
/// `count`.
pub(crate) fn to_panels(
    level: Level,
    from: &[f32],
    stride: usize,
    count: usize,
    d: usize,
    to: &mut [f32],
) {
    for (panel, to) in to.chunks_exact_mut(PANEL * d).enumerate() {
        let first = panel * PANEL;
        let rows = PANEL.min(count - first);
        if rows < PANEL {
            to.fill(0.0);
        }
        let from = &from[first * stride..][..(rows - 1) * stride + d];
        unsafe { turn(level, from.as_ptr(), stride, rows, d, to.as_mut_ptr(), PANEL) };
    }
}

/// Channels of a head that lie together, from `start` on: so many that a tile reads one stretch.
fn group(d: usize, start: usize) -> usize {
    let left = padded(d) - start;
    if left == 48 { 48 } else { left.min(32) }
}

/// Rows of a head in groups of channels, `[groups][count][channels of the group]`, zeros beyond
/// `d`.
pub(crate) fn to_rows(from: &[f32], stride: usize, count: usize, d: usize, to: &mut [f32]) {
    let mut start = 0;
    while start < d {
        let width = group(d, start);
        let channels = width.min(d - start);
        let to = &mut to[start * count..][..count * width];
        for (r, to) in to.chunks_exact_mut(width).enumerate() {
            to[..channels].copy_from_slice(&from[r * stride + start..][..channels]);
            to[channels..].fill(0.0);
        }
        start += width;
    }
}

/// y = w v, or y += w v: `w` has `rows` rows of `length`, for the rows `first ..` of `v` out of
/// `all`, as [`to_rows`] left them.
#[derive(Clone, Copy)]
pub(crate) struct Weighted<'a> {
    pub w: *const f32,
    pub w_stride: usize,
    pub rows: usize,
    pub length: usize,
    pub v: &'a [f32],
    pub all: usize,
    pub first: usize,
    pub d: usize,
    pub y: *mut f32,
    pub y_stride: usize,
    pub add: bool,
    /// Of `w`, rows and columns have changed places.
    pub across: bool,
}

impl Weighted<'_> {
    /// # Safety
    /// All that it names must be there.
    pub unsafe fn sum(&self, level: Level) {
        let mut start = 0;
        while start < self.d {
            let width = group(self.d, start);
            let b = &self.v[start * self.all + self.first * width..][..self.length * width];
            unsafe {
                let tile = Tile {
                    a: self.w,
                    a_stride: self.w_stride,
                    runs: 1,
                    length: self.length,
                    run_stride: 0,
                    b: b.as_ptr(),
                    b_stride: width,
                    c: self.y.add(start),
                    c_stride: self.y_stride,
                    rows: self.rows,
                    columns: width.min(self.d - start),
                    add: self.add,
                };
                multiply(level, &tile, self.across);
            }
            start += width;
        }
    }
}

/// Scratch that [`attention`] takes.
pub fn scratch_elements(a: &Attention) -> usize {
    ALIGN + a.kv_batch * a.heads * (panels_elements(a.keys, a.d) + rows_elements(a.keys, a.d))
}

/// softmax(`scale` q k^T) v for each head. With `mask` `[tokens]`, as many keys as tokens, each
/// token sees those with which it shares a bit. To `kept` `[batch, tokens, heads, 2]`, if wanted,
/// goes the log of each row's sum of exponentials, the first of two numbers: see
/// [`super::attention_gradient::attention_deltas`].
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn attention(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&[u32]>,
    y: &mut [f32],
    kept: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    a.check(q.len(), k.len(), v.len());
    assert!(y.len() == q.len() && a.keys > 0);
    assert!(kept.as_ref().is_none_or(|kept| kept.len() == a.batch * a.tokens * a.heads * 2));
    let kept = kept.map(Shared::new);
    assert!(mask.is_none_or(|s| s.len() == a.tokens && a.tokens == a.keys));
    let (channels, d) = (a.channels(), a.d);
    let (panels, rows) = (panels_elements(a.keys, d), rows_elements(a.keys, d));
    let scratch = aligned(scratch, scratch_elements(a) - ALIGN);
    pack_keys(level, a, k, v, scratch);
    let packed = &*scratch;
    let (blocks, each) = parts(a.tokens);
    let y = Shared::new(y);
    let cost = a.cost(2) * a.batch * a.heads;
    let units = a.batch * a.heads * blocks;
    each_piece(units, cost, |unit| {
        let (block, h, b) = (unit % blocks, unit / blocks % a.heads, unit / blocks / a.heads);
        let first = block * each;
        let count = each.min(a.tokens - first);
        let head = (b / a.share() * a.heads + h) * (panels + rows);
        let at = (b * a.tokens + first) * channels + h * d;
        let segment = Segment {
            d,
            all: a.keys,
            keys: if a.causal { first + count } else { a.keys },
            scale: a.scale,
            panels: &packed[head..head + panels],
            rows: &packed[head + panels..head + panels + rows],
            causal: a.causal.then_some(first),
            mask: mask.map(|mask| (mask, first)),
        };
        with_scratch(segment.scratch(), |scratch| {
            let [mut peaks, mut totals] = [[0.0; TOKENS]; 2];
            let (peaks, totals) = (&mut peaks, &mut totals);
            unsafe {
                let (q, y) = (q.as_ptr().add(at), y.at(at));
                segment.sums(level, q, channels, count, y, channels, peaks, totals, scratch);
                for (r, total) in totals.iter_mut().enumerate().take(count) {
                    if let Some(kept) = kept {
                        let row = (b * a.tokens + first + r) * a.heads + h;
                        *kept.at(row * 2) = peaks[r] + total.ln();
                    }
                    *total = 1.0 / *total;
                }
                scale_rows(level, y, channels, d, &totals[..count]);
            }
        });
    });
}

/// Calls `each` with 0 .. `units`, several to a piece where they are small.
pub(crate) fn each_piece(units: usize, work: usize, each: impl Fn(usize) + Sync) {
    let together = (PIECE * units).div_ceil(work.max(1)).clamp(1, units.max(1));
    pieces(units.div_ceil(together), work, |piece| {
        for unit in piece * together..((piece + 1) * together).min(units) {
            each(unit);
        }
    });
}

/// Keys in panels and values in rows, head by head.
fn pack_keys(level: Level, a: &Attention, k: &[f32], v: &[f32], scratch: &mut [f32]) {
    let (channels, d) = (a.channels(), a.d);
    let (panels, rows) = (panels_elements(a.keys, d), rows_elements(a.keys, d));
    let heads = a.kv_batch * a.heads;
    let target = Shared::new(scratch);
    pieces(heads, heads * (panels + rows) * MEMORY, |head| {
        let from = head / a.heads * a.keys * channels + head % a.heads * d;
        let start = head * (panels + rows);
        unsafe {
            to_panels(level, &k[from..], channels, a.keys, d, target.part(start, panels));
            to_rows(&v[from..], channels, a.keys, d, target.part(start + panels, rows));
        }
    });
}

/// Keys and values of one head, which some tokens meet.
pub(crate) struct Segment<'a> {
    pub d: usize,
    /// How many there are, and of how many any token sees some.
    pub all: usize,
    pub keys: usize,
    pub scale: f32,
    pub panels: &'a [f32],
    /// Empty where no values are wanted.
    pub rows: &'a [f32],
    /// The first token's place, where each sees keys up to its own only.
    pub causal: Option<usize>,
    /// Bits of all, and the first token's place.
    pub mask: Option<(&'a [u32], usize)>,
}

impl Segment<'_> {
    pub fn scratch(&self) -> usize {
        TOKENS * score_stride(self.d)
    }

    /// Unnormalised, with each row's greatest score, its peak: `y` = sum of e^(score - peak) v,
    /// `totals` = sum of e^(score - peak).
    ///
    /// # Safety
    /// `q` and `y` must have `count` rows, `q_stride` and `y_stride` apart.
    #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
    pub unsafe fn sums(
        &self,
        level: Level,
        q: *const f32,
        q_stride: usize,
        count: usize,
        y: *mut f32,
        y_stride: usize,
        peaks: &mut [f32; TOKENS],
        totals: &mut [f32; TOKENS],
        scratch: &mut [f32],
    ) {
        let (d, stride) = (self.d, score_stride(self.d));
        peaks.fill(f32::NEG_INFINITY);
        totals.fill(0.0);
        let mut first = 0;
        while first < self.keys {
            let keys = keys_at_a_time(d).min(self.keys - first);
            unsafe {
                let scores = scratch.as_mut_ptr();
                let panels = &self.panels[first * d..];
                matmuls(level, q, q_stride, count, panels, keys, d, scores, stride);
                let block = Block {
                    scores,
                    stride,
                    rows: count,
                    keys,
                    first,
                    scale: self.scale,
                    causal: self.causal,
                    mask: self.mask.map(|(ids, at)| (ids.as_ptr(), at)),
                    y,
                    y_stride,
                    d: if self.rows.is_empty() { 0 } else { d },
                };
                weights(level, &block, peaks, totals);
                first += keys;
                if self.rows.is_empty() {
                    continue;
                }
                let weighted = Weighted {
                    w: scores,
                    w_stride: stride,
                    rows: count,
                    length: keys,
                    v: self.rows,
                    all: self.all,
                    first: first - keys,
                    d,
                    y,
                    y_stride,
                    add: first > keys,
                    across: false,
                };
                weighted.sum(level);
            }
        }
    }
}

/// Scores of rows with the keys of some panels.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub(crate) unsafe fn matmuls(
    level: Level,
    q: *const f32,
    q_stride: usize,
    rows: usize,
    panels: &[f32],
    keys: usize,
    d: usize,
    scores: *mut f32,
    stride: usize,
) {
    for (number, panel) in panels.chunks_exact(PANEL * d).take(keys.div_ceil(PANEL)).enumerate() {
        unsafe {
            let tile = Tile {
                a: q,
                a_stride: q_stride,
                runs: 1,
                length: d,
                run_stride: 0,
                b: panel.as_ptr(),
                b_stride: PANEL,
                c: scores.add(number * PANEL),
                c_stride: stride,
                rows,
                columns: PANEL,
                add: false,
            };
            multiply(level, &tile, false);
        }
    }
}

/// Scores that become weights.
struct Block {
    scores: *mut f32,
    stride: usize,
    rows: usize,
    keys: usize,
    /// The first key's place.
    first: usize,
    scale: f32,
    causal: Option<usize>,
    mask: Option<(*const u32, usize)>,
    y: *mut f32,
    y_stride: usize,
    d: usize,
}

kernel! {
    /// e^(score - peak), where the peak is the greatest until now; what was summed with a lower one
    /// is made smaller.
    fn weights(s: S, b: &Block, peaks: &mut [f32; TOKENS], totals: &mut [f32; TOKENS]) {
        unsafe {
            for r in 0..b.rows {
                let scores = b.scores.add(r * b.stride);
                let mut keys = b.keys;
                if let Some(at) = b.causal {
                    keys = keys.min((at + r + 1).saturating_sub(b.first));
                }
                let low = s.splat(f32::NEG_INFINITY);
                if let Some((ids, at)) = b.mask {
                    let bits = *ids.add(at + r);
                    let mut i = 0;
                    while i < keys {
                        let n = (keys - i).min(S::LANES);
                        let v = s.load(scores.add(i));
                        let seen = s.where_common(ids.add(b.first + i), n, bits, v, low);
                        s.store(scores.add(i), seen);
                        i += S::LANES;
                    }
                }
                let whole = keys / S::LANES * S::LANES;
                let mut greatest = [low; 2];
                let mut i = 0;
                while i + 2 * S::LANES <= whole {
                    greatest[0] = s.max(greatest[0], s.load(scores.add(i)));
                    greatest[1] = s.max(greatest[1], s.load(scores.add(i + S::LANES)));
                    i += 2 * S::LANES;
                }
                if i < whole {
                    greatest[0] = s.max(greatest[0], s.load(scores.add(i)));
                }
                let mut peak = s.greatest(s.max(greatest[0], greatest[1]));
                for i in whole..keys {
                    peak = peak.max(*scores.add(i));
                }
                let peak = peaks[r].max(peak * b.scale);
                if peak == f32::NEG_INFINITY {
                    // Nothing is seen yet.
                    for i in 0..b.keys {
                        *scores.add(i) = 0.0;
                    }
                    continue;
                }
                let (scale, less) = (s.splat(b.scale), s.splat(-peak));
                let mut sums = [s.zero(); 2];
                let mut i = 0;
                while i + 2 * S::LANES <= whole {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let at = scores.add(i + j * S::LANES);
                        let e = exp_of_negative(s, s.fma(s.load(at), scale, less));
                        s.store(at, e);
                        *sum = s.add(*sum, e);
                    }
                    i += 2 * S::LANES;
                }
                while i < keys {
                    let n = (keys - i).min(S::LANES);
                    let at = scores.add(i);
                    let e = exp_of_negative(s, s.fma(s.load_first(at, n), scale, less));
                    s.store_first(at, e, n);
                    sums[1] = s.add(sums[1], s.load_first(at, n));
                    i += n;
                }
                while i < b.keys {
                    *scores.add(i) = 0.0;
                    i += 1;
                }
                let sum = s.sum(s.add(sums[0], sums[1]));
                if peak == peaks[r] || b.first == 0 {
                    totals[r] += sum;
                } else {
                    let one = exp_of_negative(s, s.splat(peaks[r] - peak));
                    totals[r] = totals[r] * s.greatest(one) + sum;
                    let y = b.y.add(r * b.y_stride);
                    let mut c = 0;
                    while c < b.d {
                        let n = (b.d - c).min(S::LANES);
                        s.store_first(y.add(c), s.mul(s.load_first(y.add(c), n), one), n);
                        c += n;
                    }
                }
                peaks[r] = peak;
            }
        }
    }
}

kernel! {
    /// Each row times its factor.
    pub(crate) fn scale_rows(s: S, y: *mut f32, stride: usize, d: usize, factors: &[f32]) {
        unsafe {
            for (r, factor) in factors.iter().enumerate() {
                let (y, f) = (y.add(r * stride), s.splat(*factor));
                let mut c = 0;
                while c < d {
                    let n = (d - c).min(S::LANES);
                    s.store_first(y.add(c), s.mul(s.load_first(y.add(c), n), f), n);
                    c += n;
                }
            }
        }
    }
}
