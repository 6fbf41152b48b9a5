//! Attention backward without the score matrix: the probabilities are computed again from what each
//! row keeps.
//!
//! With s = `scale` q k^T, p = exp(s - lse), lse the log of the row's sum of exponentials, and
//! delta = dy . y of the row: dv = p^T dy, ds = p (dy v^T - delta), dq = `scale` ds k, dk = `scale`
//! ds^T q. (Dao et al., "FlashAttention", 2022, appendix B.)
//!
//! Tokens whose dy is nothing are left out, bit for bit as if they were not: those outside of a
//! region are of no prompt of it.

use super::attention::{
    Attention, Segment, TOKENS, Weighted, each_piece, keys_at_a_time, matmuls, panels_elements,
    parts, rows_elements, score_stride, to_panels, to_rows,
};
use super::math::exp_of_negative;
use super::parallel::{ALIGN, MEMORY, Shared, aligned, pieces, with_scratch};
use super::simd::{Level, kernel};

/// Scratch that [`attention_rows`] takes.
pub fn rows_scratch_elements(a: &Attention) -> usize {
    ALIGN + a.kv_batch * a.heads * panels_elements(a.keys, a.d)
}

/// lse and delta of every row, `[batch, tokens, heads, 2]`, of the result `y` and its gradient
/// `dy`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn attention_rows(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    y: &[f32],
    dy: &[f32],
    rows: &mut [f32],
    scratch: &mut [f32],
) {
    a.check(q.len(), k.len(), k.len());
    assert!(
        y.len() == q.len() && dy.len() == q.len() && rows.len() == a.batch * a.tokens * a.heads * 2
    );
    let (channels, d) = (a.channels(), a.d);
    let size = panels_elements(a.keys, d);
    let scratch = aligned(scratch, rows_scratch_elements(a) - ALIGN);
    let target = Shared::new(scratch);
    each_head(a, a.kv_batch, a.keys, 1, |from, head| unsafe {
        to_panels(level, &k[from..], channels, a.keys, d, target.part(head * size, size));
    });
    let packed = &*scratch;
    let rows = Shared::new(rows);
    let (blocks, each) = parts(a.tokens);
    each_piece(a.batch * a.heads * blocks, a.cost(1) * a.batch * a.heads, |unit| {
        let (block, h, b) = (unit % blocks, unit / blocks % a.heads, unit / blocks / a.heads);
        let first = block * each;
        let count = each.min(a.tokens - first);
        let head = (b / a.share() * a.heads + h) * size;
        let at = (b * a.tokens + first) * channels + h * d;
        let segment = Segment {
            d,
            all: a.keys,
            keys: if a.causal { first + count } else { a.keys },
            scale: a.scale,
            panels: &packed[head..head + size],
            rows: &[],
            causal: a.causal.then_some(first),
            mask: None,
        };
        with_scratch(segment.scratch(), |scratch| {
            let [mut peaks, mut totals] = [[0.0; TOKENS]; 2];
            let (peaks, totals) = (&mut peaks, &mut totals);
            let none = std::ptr::null_mut();
            unsafe {
                let q = q.as_ptr().add(at);
                segment.sums(level, q, channels, count, none, 0, peaks, totals, scratch);
                for r in 0..count {
                    let row = rows.part(((b * a.tokens + first + r) * a.heads + h) * 2, 2);
                    let place = at + r * channels;
                    row[0] = peaks[r] + totals[r].ln();
                    row[1] = dot(level, y[place..].as_ptr(), dy[place..].as_ptr(), d);
                }
            }
        });
    });
}

/// The second number of each row, delta, where [`super::attention::attention`] kept the first.
pub fn attention_deltas(level: Level, a: &Attention, y: &[f32], dy: &[f32], rows: &mut [f32]) {
    let (heads, d) = (a.heads, a.d);
    assert!(y.len() == a.batch * a.tokens * a.channels() && dy.len() == y.len());
    assert_eq!(rows.len(), a.batch * a.tokens * heads * 2);
    let target = Shared::new(rows);
    each_piece(a.batch * a.tokens, y.len() * MEMORY, |token| {
        for row in token * heads..(token + 1) * heads {
            let [y, dy] = [y, dy].map(|v| v[row * d..][..d].as_ptr());
            unsafe { *target.at(row * 2 + 1) = dot(level, y, dy, d) };
        }
    });
}

kernel! {
    fn dot(s: S, a: *const f32, b: *const f32, count: usize) -> f32 {
        unsafe {
            let mut sum = s.zero();
            let mut i = 0;
            while i < count {
                let n = (count - i).min(S::LANES);
                sum = s.fma(s.load_first(a.add(i), n), s.load_first(b.add(i), n), sum);
                i += n;
            }
            s.sum(sum)
        }
    }
}

/// Calls `each` with where a head's first row starts and its number, for packing `copies` of its
/// rows.
fn each_head(
    a: &Attention,
    batch: usize,
    count: usize,
    copies: usize,
    each: impl Fn(usize, usize) + Sync,
) {
    let heads = batch * a.heads;
    pieces(heads, heads * copies * count * a.d * MEMORY, |head| {
        each(head / a.heads * count * a.channels() + head % a.heads * a.d, head);
    });
}

/// Scratch that [`attention_queries`] takes.
pub fn queries_scratch_elements(a: &Attention) -> usize {
    ALIGN + a.kv_batch * a.heads * (2 * panels_elements(a.keys, a.d) + rows_elements(a.keys, a.d))
}

/// dq, of what [`attention_rows`] made.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn attention_queries(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    rows: &[f32],
    dq: &mut [f32],
    scratch: &mut [f32],
) {
    queries(level, a, q, k, v, dy, rows, dq, None, scratch);
}

/// Whether [`attention_gradients`] wants both numbers of each row: else all keys are met at once,
/// it makes the first itself, and [`attention_deltas`] makes the second.
pub fn wants_totals(a: &Attention) -> bool {
    a.keys > keys_at_a_time(a.d)
}

/// Parts of a head's tokens that are summed apart, so that many threads have work, and the blocks
/// of [`TOKENS`] of each.
fn shares(a: &Attention) -> (usize, usize) {
    /// Pieces that keep many threads busy.
    const ENOUGH: usize = 32;
    let blocks = a.share() * parts(a.tokens).0;
    let wanted = ENOUGH.div_ceil((a.kv_batch * a.heads).max(1)).clamp(1, blocks.max(1));
    let each = blocks.div_ceil(wanted).max(1);
    (blocks.div_ceil(each), each)
}

/// Scratch that [`attention_gradients`] takes.
pub fn gradients_scratch_elements(a: &Attention) -> usize {
    let apart = shares(a).0;
    let sums = if apart > 1 { apart * 2 * a.kv_batch * a.keys * a.channels() } else { 0 };
    ALIGN
        + queries_scratch_elements(a)
        + 2 * a.batch * a.heads * rows_elements(a.tokens, a.d)
        + sums
}

/// dq, and dk and dv as [`attention_keys_values`] makes them, of scores and differences that are
/// made once: seven matmuls become five, or of eight where [`wants_totals`] says no.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn attention_gradients(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    rows: &[f32],
    dq: &mut [f32],
    dkv: &mut [f32],
    scratch: &mut [f32],
) {
    assert!(dkv.len() == 2 * k.len() && dy.len() == q.len() && dq.len() == q.len());
    a.check(q.len(), k.len(), v.len());
    if !is_live(dy) {
        dq.fill(0.0);
        dkv.fill(0.0);
        return;
    }
    let (channels, size) = (a.channels(), rows_elements(a.tokens, a.d));
    let (own, rest) = scratch.split_at_mut(queries_scratch_elements(a));
    let both = 2 * a.batch * a.heads * size;
    let (apart, _) = shares(a);
    let sums = if apart > 1 { apart * dkv.len() } else { 0 };
    let (shared, sums) = aligned(rest, both + sums).split_at_mut(both);
    let target = Shared::new(shared);
    each_head(a, a.batch, a.tokens, 2, |from, head| unsafe {
        to_rows(&q[from..], channels, a.tokens, a.d, target.part(2 * head * size, size));
        to_rows(&dy[from..], channels, a.tokens, a.d, target.part((2 * head + 1) * size, size));
    });
    let target = Shared::new(if apart > 1 { &mut *sums } else { &mut *dkv });
    let more = KeysValues { dkv: target, rows: shared };
    queries(level, a, q, k, v, dy, rows, dq, Some(&more), own);
    if apart > 1 {
        let (length, sums, dkv) = (dkv.len(), &*sums, Shared::new(dkv));
        let each = 4096;
        pieces(length.div_ceil(each), length * apart * MEMORY, |i| {
            let (start, count) = (i * each, each.min(length - i * each));
            let to = unsafe { dkv.part(start, count) };
            to.copy_from_slice(&sums[start..][..count]);
            for from in sums.chunks_exact(length).skip(1) {
                for (to, from) in to.iter_mut().zip(&from[start..]) {
                    *to += from;
                }
            }
        });
    }
}

/// Where dk and dv go, those of each of [`shares`] apart, and q and dy in rows, head by head.
struct KeysValues<'a> {
    dkv: Shared,
    rows: &'a [f32],
}

/// Whether any of these is not zero.
fn is_live(dy: &[f32]) -> bool {
    dy.iter().any(|v| *v != 0.0)
}

/// The rows of a block whose dy is not zero.
struct Live {
    rows: [usize; TOKENS],
    count: usize,
}

impl Live {
    fn of(dy: &[f32], stride: usize, count: usize, d: usize) -> Live {
        let mut live = Live { rows: [0; TOKENS], count: 0 };
        for r in (0..count).filter(|r| is_live(&dy[r * stride..][..d])) {
            live.rows[live.count] = r;
            live.count += 1;
        }
        live
    }

    /// The other rows of `count`.
    fn dead(&self, count: usize) -> impl Iterator<Item = usize> {
        let mut live = self.rows[..self.count].iter().peekable();
        (0..count).filter(move |r| live.next_if_eq(&r).is_none())
    }

    /// These rows side by side in `own`, of [`live_elements`]; `both`: as [`to_rows`] leaves them,
    /// too.
    fn gathered<'o>(
        &self,
        q: &[f32],
        dy: &[f32],
        stride: usize,
        d: usize,
        both: bool,
        own: &'o mut [f32],
    ) -> Operands<'o> {
        let (flat, size) = (TOKENS * d, rows_elements(self.count, d));
        let (plain, packed) = own.split_at_mut(3 * flat);
        let (to_q, rest) = plain.split_at_mut(flat);
        let (to_dy, to_dq) = rest.split_at_mut(flat);
        let (q_rows, rest) = packed.split_at_mut(size);
        let dy_rows = &mut rest[..size];
        for (from, to, rows) in [(q, &mut *to_q, &mut *q_rows), (dy, &mut *to_dy, &mut *dy_rows)] {
            for (to, r) in to.chunks_exact_mut(d).zip(&self.rows[..self.count]) {
                to.copy_from_slice(&from[r * stride..][..d]);
            }
            if both {
                to_rows(to, d, self.count, d, rows);
            }
        }
        Operands {
            count: self.count,
            q: to_q.as_ptr(),
            dy: to_dy.as_ptr(),
            dq: to_dq.as_mut_ptr(),
            stride: d,
            q_rows,
            dy_rows,
            all: self.count,
            first: 0,
        }
    }
}

/// Scratch that [`Live::gathered`] takes, for heads of `d` channels.
fn live_elements(d: usize) -> usize {
    (3 * TOKENS * d + 2 * rows_elements(TOKENS, d)).next_multiple_of(ALIGN)
}

/// The tokens of a block: their rows, `stride` apart, and those of q and dy as [`to_rows`] leaves
/// them, the block's `first` out of `all`.
struct Operands<'a> {
    count: usize,
    q: *const f32,
    dy: *const f32,
    dq: *mut f32,
    stride: usize,
    q_rows: &'a [f32],
    dy_rows: &'a [f32],
    all: usize,
    first: usize,
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
fn queries(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    rows: &[f32],
    dq: &mut [f32],
    more: Option<&KeysValues<'_>>,
    scratch: &mut [f32],
) {
    a.check(q.len(), k.len(), v.len());
    assert!(
        dy.len() == q.len()
            && dq.len() == q.len()
            && rows.len() == a.batch * a.tokens * a.heads * 2
    );
    let (channels, d) = (a.channels(), a.d);
    let (panels, size) = (panels_elements(a.keys, d), rows_elements(a.keys, d));
    let all = 2 * panels + size;
    let scratch = aligned(scratch, queries_scratch_elements(a) - ALIGN);
    let target = Shared::new(scratch);
    each_head(a, a.kv_batch, a.keys, 3, |from, head| unsafe {
        let at = head * all;
        to_panels(level, &k[from..], channels, a.keys, d, target.part(at, panels));
        to_panels(level, &v[from..], channels, a.keys, d, target.part(at + panels, panels));
        to_rows(&k[from..], channels, a.keys, d, target.part(at + 2 * panels, size));
    });
    let packed = &*scratch;
    let dq = Shared::new(dq);
    let stride = score_stride(d);
    let (blocks, each) = parts(a.tokens);
    let share = a.share();
    // What several blocks of tokens add to belongs to one thread.
    let (apart, together) = if more.is_some() { shares(a) } else { (share * blocks, 1) };
    let alone = more.is_some() && !wants_totals(a);
    let queries_of = |unit: usize| {
        // Those that share keys follow each other.
        let (block, entry) = (unit % blocks, unit / blocks % share);
        let (h, shared) = (unit / blocks / share % a.heads, unit / blocks / share / a.heads);
        let b = shared * share + entry;
        let in_head = unit % (share * blocks);
        let dkv = in_head / together * 2 * k.len();
        if let Some(more) = more.filter(|_| in_head.is_multiple_of(together)) {
            let rows =
                (0..2 * a.keys).map(|r| (r / a.keys * a.kv_batch + shared) * a.keys + r % a.keys);
            for row in rows {
                unsafe { more.dkv.part(dkv + row * channels + h * d, d) }.fill(0.0);
            }
        }
        let first = block * each;
        let count = each.min(a.tokens - first);
        let at = (b * a.tokens + first) * channels + h * d;
        let packed = &packed[(b / a.share() * a.heads + h) * all..][..all];
        let (k_panels, rest) = packed.split_at(panels);
        let (v_panels, k_rows) = rest.split_at(panels);
        let live = Live::of(&dy[at..], channels, count, d);
        for r in live.dead(count) {
            unsafe { dq.part(at + r * channels, d) }.fill(0.0);
        }
        if live.count == 0 {
            return;
        }
        // A causal token's place is told by its row: these stay.
        let some = live.count < count && !a.causal;
        let rows_of = if some { live.count } else { count };
        let mut kept: [[f32; 2]; TOKENS] = std::array::from_fn(|r| {
            let token = if some { live.rows[r.min(rows_of - 1)] } else { r.min(count - 1) };
            let row = ((b * a.tokens + first + token) * a.heads + h) * 2;
            [rows[row], rows[row + 1]]
        });
        let seen = if a.causal { first + count } else { a.keys };
        let apart = if some { live_elements(d) } else { 0 };
        with_scratch(2 * TOKENS * stride + apart, |scratch| {
            let (own, scratch) = scratch.split_at_mut(apart);
            let (scores, weighed) = scratch.split_at_mut(TOKENS * stride);
            let (scores, weighed) = (scores.as_mut_ptr(), weighed.as_mut_ptr());
            let mut of = Operands {
                count,
                q: unsafe { q.as_ptr().add(at) },
                dy: unsafe { dy.as_ptr().add(at) },
                dq: unsafe { dq.at(at) },
                stride: channels,
                q_rows: &[],
                dy_rows: &[],
                all: a.tokens,
                first,
            };
            if let Some(more) = more.filter(|_| !some) {
                let size = rows_elements(a.tokens, d);
                let own = &more.rows[2 * (b * a.heads + h) * size..][..2 * size];
                (of.q_rows, of.dy_rows) = own.split_at(size);
            }
            if some {
                of = live.gathered(&q[at..], &dy[at..], channels, d, more.is_some(), own);
            }
            for key in (0..seen).step_by(keys_at_a_time(d)) {
                let keys = keys_at_a_time(d).min(seen - key);
                let Operands { count, q, dy, stride: apart, .. } = of;
                unsafe {
                    let panel = key * d;
                    matmuls(level, q, apart, count, &k_panels[panel..], keys, d, scores, stride);
                    matmuls(level, dy, apart, count, &v_panels[panel..], keys, d, weighed, stride);
                    let place = a.causal.then_some((first, key));
                    if alone {
                        let own = &mut kept;
                        totals_of_rows(level, scores, stride, count, keys, own, a.scale, place);
                    }
                    by_rows(level, scores, weighed, stride, count, keys, &kept, a.scale, place);
                    let weighted = Weighted {
                        w: weighed,
                        w_stride: stride,
                        rows: count,
                        length: keys,
                        v: k_rows,
                        all: a.keys,
                        first: key,
                        d,
                        y: of.dq,
                        y_stride: apart,
                        add: key > 0,
                        across: false,
                    };
                    weighted.sum(level);
                    if let Some(more) = more {
                        let to = (shared * a.keys + key) * channels + h * d;
                        let weighted = Weighted {
                            rows: keys,
                            length: count,
                            v: of.q_rows,
                            all: of.all,
                            first: of.first,
                            y: more.dkv.at(dkv + to),
                            y_stride: channels,
                            add: true,
                            across: true,
                            ..weighted
                        };
                        weighted.sum(level);
                        Weighted {
                            w: scores,
                            v: of.dy_rows,
                            y: more.dkv.at(dkv + k.len() + to),
                            ..weighted
                        }
                        .sum(level);
                    }
                }
            }
            if some {
                for (r, token) in live.rows[..live.count].iter().enumerate() {
                    unsafe {
                        let from = std::slice::from_raw_parts(of.dq.add(r * d), d);
                        dq.part(at + token * channels, d).copy_from_slice(from);
                    }
                }
            }
        });
    };
    let cost = a.cost(if more.is_some() { 5 } else { 3 }) * a.batch * a.heads;
    each_piece(a.kv_batch * a.heads * apart, cost, |piece| {
        let (head, part) = (piece / apart, piece % apart);
        let units = part * together..((part + 1) * together).min(share * blocks);
        units.for_each(|unit| queries_of(head * share * blocks + unit));
    });
}

kernel! {
    /// The log of each row's sum of exponentials, of scores that are not scaled yet.
    fn totals_of_rows(
        s: S,
        scores: *mut f32,
        stride: usize,
        rows: usize,
        keys: usize,
        kept: &mut [[f32; 2]; TOKENS],
        scale: f32,
        causal: Option<(usize, usize)>,
    ) {
        unsafe {
            for (r, [lse, _]) in kept.iter_mut().enumerate().take(rows) {
                let scores = scores.add(r * stride);
                let seen =
                    causal.map_or(keys, |(at, key)| (at + r + 1).saturating_sub(key).min(keys));
                // By `by_rows` these are zeros in the end.
                for i in seen..seen.next_multiple_of(S::LANES) {
                    *scores.add(i) = f32::NEG_INFINITY;
                }
                let mut peak = s.splat(f32::NEG_INFINITY);
                let mut i = 0;
                while i < seen {
                    peak = s.max(peak, s.load(scores.add(i)));
                    i += S::LANES;
                }
                let peak = s.greatest(peak) * scale;
                let (f, less, mut total) = (s.splat(scale), s.splat(-peak), s.zero());
                let mut i = 0;
                while i < seen {
                    let e = exp_of_negative(s, s.fma(s.load(scores.add(i)), f, less));
                    total = s.add(total, e);
                    i += S::LANES;
                }
                *lse = peak + s.sum(total).ln();
            }
        }
    }
}

kernel! {
    /// `scores` = p, `weighed` = scale p (weighed - delta), rows of queries.
    fn by_rows(
        s: S,
        scores: *mut f32,
        weighed: *mut f32,
        stride: usize,
        rows: usize,
        keys: usize,
        kept: &[[f32; 2]; TOKENS],
        scale: f32,
        causal: Option<(usize, usize)>,
    ) {
        unsafe {
            for (r, &[lse, delta]) in kept.iter().enumerate().take(rows) {
                let (scores, weighed) = (scores.add(r * stride), weighed.add(r * stride));
                let seen =
                    causal.map_or(keys, |(at, key)| (at + r + 1).saturating_sub(key).min(keys));
                let (f, lse, delta) = (s.splat(scale), s.splat(-lse), s.splat(delta));
                let mut i = 0;
                while i < seen {
                    let p = exp_of_negative(s, s.fma(s.load(scores.add(i)), f, lse));
                    let dp = s.sub(s.load(weighed.add(i)), delta);
                    s.store(scores.add(i), p);
                    s.store(weighed.add(i), s.mul(s.mul(p, dp), f));
                    i += S::LANES;
                }
                for i in seen..keys {
                    *scores.add(i) = 0.0;
                    *weighed.add(i) = 0.0;
                }
            }
        }
    }
}

/// Scratch that [`attention_keys_values`] takes.
pub fn keys_values_scratch_elements(a: &Attention) -> usize {
    let (panels, rows) = (panels_elements(a.tokens, a.d), rows_elements(a.tokens, a.d));
    ALIGN + a.batch * a.heads * (2 * (panels + rows) + 2 * a.tokens.next_multiple_of(16))
}

/// dk, then dv, `[2, kv_batch, keys, channels]`, of what [`attention_rows`] made: summed over the
/// queries that share them.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn attention_keys_values(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    rows: &[f32],
    dkv: &mut [f32],
    scratch: &mut [f32],
) {
    a.check(q.len(), k.len(), v.len());
    assert!(dy.len() == q.len() && dkv.len() == 2 * k.len());
    assert_eq!(rows.len(), a.batch * a.tokens * a.heads * 2);
    let (channels, d) = (a.channels(), a.d);
    let (panels, size) = (panels_elements(a.tokens, d), rows_elements(a.tokens, d));
    let numbers = a.tokens.next_multiple_of(16);
    let all = 2 * (panels + size + numbers);
    let scratch = aligned(scratch, keys_values_scratch_elements(a) - ALIGN);
    let target = Shared::new(scratch);
    each_head(a, a.batch, a.tokens, 4, |from, head| unsafe {
        let at = head * all;
        to_panels(level, &q[from..], channels, a.tokens, d, target.part(at, panels));
        to_panels(level, &dy[from..], channels, a.tokens, d, target.part(at + panels, panels));
        to_rows(&q[from..], channels, a.tokens, d, target.part(at + 2 * panels, size));
        to_rows(&dy[from..], channels, a.tokens, d, target.part(at + 2 * panels + size, size));
        let kept = target.part(at + 2 * (panels + size), 2 * numbers);
        let (b, h) = (head / a.heads, head % a.heads);
        for token in 0..a.tokens {
            let row = &rows[((b * a.tokens + token) * a.heads + h) * 2..][..2];
            kept[token] = row[0];
            kept[numbers + token] = row[1];
        }
    });
    let packed = &*scratch;
    let values = k.len();
    let dkv = Shared::new(dkv);
    let stride = score_stride(d);
    let (blocks, each) = parts(a.keys);
    each_piece(a.kv_batch * a.heads * blocks, a.cost(4) * a.batch * a.heads, |unit| {
        let (block, h, b) = (unit % blocks, unit / blocks % a.heads, unit / blocks / a.heads);
        let first = block * each;
        let count = each.min(a.keys - first);
        let at = (b * a.keys + first) * channels + h * d;
        with_scratch(2 * TOKENS * stride, |scratch| {
            let (scores, weighed) = scratch.split_at_mut(TOKENS * stride);
            let (scores, weighed) = (scores.as_mut_ptr(), weighed.as_mut_ptr());
            let mut add = false;
            for entry in b * a.share()..(b + 1) * a.share() {
                let packed = &packed[(entry * a.heads + h) * all..][..all];
                let (q_panels, rest) = packed.split_at(panels);
                let (dy_panels, rest) = rest.split_at(panels);
                let (q_rows, rest) = rest.split_at(size);
                let (dy_rows, kept) = rest.split_at(size);
                // A causal key is seen by its own token first.
                let step = keys_at_a_time(d);
                let start = if a.causal { first / step * step } else { 0 };
                for token in (start..a.tokens).step_by(step) {
                    let tokens = step.min(a.tokens - token);
                    let mut of_head = dy[(entry * a.tokens + token) * channels + h * d..]
                        .chunks(channels)
                        .take(tokens);
                    if !of_head.any(|row| is_live(&row[..d])) {
                        continue;
                    }
                    unsafe {
                        let (k, v) = (k.as_ptr().add(at), v.as_ptr().add(at));
                        let panel = token * d;
                        matmuls(
                            level,
                            k,
                            channels,
                            count,
                            &q_panels[panel..],
                            tokens,
                            d,
                            scores,
                            stride,
                        );
                        matmuls(
                            level,
                            v,
                            channels,
                            count,
                            &dy_panels[panel..],
                            tokens,
                            d,
                            weighed,
                            stride,
                        );
                        let kept = [kept[token..].as_ptr(), kept[numbers + token..].as_ptr()];
                        let place = a.causal.then_some((first, token));
                        by_columns(
                            level, scores, weighed, stride, count, tokens, kept, a.scale, place,
                        );
                        let weighted = Weighted {
                            w: weighed,
                            w_stride: stride,
                            rows: count,
                            length: tokens,
                            v: q_rows,
                            all: a.tokens,
                            first: token,
                            d,
                            y: dkv.at(at),
                            y_stride: channels,
                            add,
                            across: false,
                        };
                        weighted.sum(level);
                        Weighted { w: scores, v: dy_rows, y: dkv.at(values + at), ..weighted }
                            .sum(level);
                    }
                    add = true;
                }
            }
            if !add {
                for (part, r) in (0..2 * count).map(|i| (i / count * values, i % count)) {
                    unsafe { dkv.part(part + at + r * channels, d) }.fill(0.0);
                }
            }
        });
    });
}

kernel! {
    /// `scores` = p, `weighed` = scale p (weighed - delta), rows of keys.
    fn by_columns(
        s: S,
        scores: *mut f32,
        weighed: *mut f32,
        stride: usize,
        rows: usize,
        tokens: usize,
        kept: [*const f32; 2],
        scale: f32,
        causal: Option<(usize, usize)>,
    ) {
        unsafe {
            let (f, [lse, delta]) = (s.splat(scale), kept);
            for r in 0..rows {
                let (scores, weighed) = (scores.add(r * stride), weighed.add(r * stride));
                let mut i = 0;
                while i < tokens {
                    let n = (tokens - i).min(S::LANES);
                    let lse = s.load_first(lse.add(i), n);
                    let p = exp_of_negative(s, s.sub(s.mul(s.load(scores.add(i)), f), lse));
                    let dp = s.sub(s.load(weighed.add(i)), s.load_first(delta.add(i), n));
                    s.store(scores.add(i), p);
                    s.store(weighed.add(i), s.mul(s.mul(p, dp), f));
                    i += S::LANES;
                }
                // Tokens before the key do not see it.
                let blind =
                    causal.map_or(0, |(key, token)| (key + r).saturating_sub(token).min(tokens));
                for i in 0..blind {
                    *scores.add(i) = 0.0;
                    *weighed.add(i) = 0.0;
                }
            }
        }
    }
}
