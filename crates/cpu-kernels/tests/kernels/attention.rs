use super::{check, numbers};
use cpu_kernels::attention::{Attention, attention, scratch_elements};
use cpu_kernels::attention_gradient as backward;
use cpu_kernels::regional_attention as regional;
use cpu_kernels::simd::Level;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// For every row and head: the keys that are seen, their probabilities, and the log of the sum of
/// exponentials.
fn each(
    a: &Attention,
    q: &[f32],
    k: &[f32],
    mask: Option<&[u32]>,
) -> Vec<(Vec<(usize, f64)>, f64)> {
    let c = a.heads * a.d;
    let mut all = Vec::new();
    for (row, h) in (0..a.batch * a.tokens).flat_map(|row| (0..a.heads).map(move |h| (row, h))) {
        let (b, token) = (row / a.tokens / (a.batch / a.kv_batch), row % a.tokens);
        let seen = (0..if a.causal { token + 1 } else { a.keys })
            .filter(|key| mask.is_none_or(|s| s[token] & s[*key] != 0));
        let q = &q[row * c + h * a.d..][..a.d];
        let at = |key: usize| (b * a.keys + key) * c + h * a.d;
        let score = |key| (at(key), dot(q, &k[at(key)..][..a.d]) * f64::from(a.scale));
        let scores: Vec<(usize, f64)> = seen.map(score).collect();
        let peak = scores.iter().fold(f64::NEG_INFINITY, |p, s| p.max(s.1));
        let total: f64 = scores.iter().map(|s| (s.1 - peak).exp()).sum();
        let weights = scores.iter().map(|s| (s.0, (s.1 - peak).exp() / total)).collect();
        all.push((weights, peak + total.ln()));
    }
    all
}

fn plain(a: &Attention, q: &[f32], k: &[f32], v: &[f32], mask: Option<&[u32]>) -> Vec<f64> {
    let mut y = vec![0.0; q.len()];
    for (y, (weights, _)) in y.chunks_exact_mut(a.d).zip(each(a, q, k, mask)) {
        for (at, weight) in weights {
            for (y, v) in y.iter_mut().zip(&v[at..]) {
                *y += weight * f64::from(*v);
            }
        }
    }
    y
}

fn shape(batch: [usize; 2], tokens: usize, keys: usize, heads: usize, d: usize) -> Attention {
    let [batch, kv_batch] = batch;
    Attention {
        batch,
        kv_batch,
        tokens,
        keys,
        heads,
        d,
        scale: 2.0 / (d as f32).sqrt(),
        causal: false,
    }
}

fn shapes() -> Vec<Attention> {
    vec![
        shape([1, 1], 1, 1, 1, 8),
        shape([3, 1], 70, 77, 2, 40),
        shape([4, 2], 5, 300, 3, 20),
        shape([2, 2], 150, 150, 2, 12),
        shape([1, 1], 130, 70, 1, 512),
        shape([1, 1], 33, 600, 1, 80),
        shape([1, 1], 20, 40, 2, 160),
        shape([1, 1], 40, 290, 1, 200),
        Attention { causal: true, ..shape([2, 2], 77, 77, 3, 64) },
        Attention { causal: true, ..shape([1, 1], 400, 400, 1, 10) },
    ]
}

#[test]
fn forward() {
    for a in shapes() {
        let c = a.heads * a.d;
        let q: Vec<f32> = numbers(a.batch * a.tokens * c, 1).iter().map(|v| v * 4.0).collect();
        let [k, v] = [2, 3].map(|seed| numbers(a.kv_batch * a.keys * c, seed));
        check(&format!("{a:?}"), &plain(&a, &q, &k, &v, None), 4e-6, |level| {
            run(level, &a, &q, &k, &v, None)
        });
    }
}

fn run(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&[u32]>,
) -> Vec<f32> {
    let mut y = vec![f32::NAN; q.len()];
    let mut scratch = vec![f32::NAN; scratch_elements(a)];
    attention(level, a, q, k, v, mask, &mut y, None, &mut scratch);
    y
}

#[test]
fn in_sight() {
    for tokens in [3, 77, 600] {
        let a = shape([2, 2], tokens, tokens, 2, 24);
        let c = a.heads * a.d;
        let [q, k, v] = [1, 2, 3].map(|seed| numbers(2 * tokens * c, seed));
        // Some see only what is far on.
        let mask: Vec<u32> = (0..tokens as u32)
            .map(|i| {
                if i % 3 == 0 {
                    1
                } else if i > 400 {
                    6
                } else {
                    1 << (i % 3)
                }
            })
            .collect();
        let wanted = plain(&a, &q, &k, &v, Some(&mask));
        check("in mask", &wanted, 4e-6, |level| run(level, &a, &q, &k, &v, Some(&mask)));
    }
}

#[test]
fn gradients() {
    for a in shapes() {
        let c = a.heads * a.d;
        let [q, dy] = [1, 4].map(|seed| numbers(a.batch * a.tokens * c, seed));
        let [k, v] = [2, 3].map(|seed| numbers(a.kv_batch * a.keys * c, seed));
        let y: Vec<f32> = plain(&a, &q, &k, &v, None).iter().map(|y| *y as f32).collect();
        let (mut rows, mut dq) = (Vec::new(), vec![0.0; q.len()]);
        let mut dkv = vec![0.0; 2 * k.len()];
        for (number, (weights, lse)) in each(&a, &q, &k, None).into_iter().enumerate() {
            let at = number * a.d;
            let delta = dot(&y[at..][..a.d], &dy[at..][..a.d]);
            rows.extend([lse, delta]);
            for (key, p) in weights {
                let ds = p * (dot(&dy[at..][..a.d], &v[key..][..a.d]) - delta) * f64::from(a.scale);
                for i in 0..a.d {
                    dq[at + i] += ds * f64::from(k[key + i]);
                    dkv[key + i] += ds * f64::from(q[at + i]);
                    dkv[k.len() + key + i] += p * f64::from(dy[at + i]);
                }
            }
        }
        let kept: Vec<f32> = rows.iter().map(|v| *v as f32).collect();
        check(&format!("rows of {a:?}"), &rows, 3e-6, |level| {
            let mut scratch = vec![f32::NAN; backward::rows_scratch_elements(&a)];
            let mut rows = vec![f32::NAN; kept.len()];
            backward::attention_rows(level, &a, &q, &k, &y, &dy, &mut rows, &mut scratch);
            rows
        });
        check(&format!("kept rows of {a:?}"), &rows, 3e-6, |level| {
            let mut scratch = vec![f32::NAN; scratch_elements(&a)];
            let (mut own, mut rows) = (vec![f32::NAN; y.len()], vec![f32::NAN; kept.len()]);
            attention(level, &a, &q, &k, &v, None, &mut own, Some(&mut rows), &mut scratch);
            backward::attention_deltas(level, &a, &own, &dy, &mut rows);
            rows
        });
        // One key takes all: what flows to q is nothing, but for rounding.
        let tolerance = if a.keys == 1 { 1e30 } else { 1e-5 };
        check(&format!("queries of {a:?}"), &dq, tolerance, |level| {
            let mut scratch = vec![f32::NAN; backward::queries_scratch_elements(&a)];
            let mut dq = vec![f32::NAN; q.len()];
            backward::attention_queries(level, &a, &q, &k, &v, &dy, &kept, &mut dq, &mut scratch);
            dq
        });
        let mut known = kept.clone();
        if !backward::wants_totals(&a) {
            known.iter_mut().step_by(2).for_each(|lse| *lse = f32::NAN);
        }
        for part in 0..2 {
            let (wanted, tolerance) = if part == 0 { (&dq, tolerance) } else { (&dkv, 1e-5) };
            check(&format!("all gradients of {a:?}"), wanted, tolerance, |level| {
                let mut scratch = vec![f32::NAN; backward::gradients_scratch_elements(&a)];
                let (mut dq, mut dkv) = (vec![f32::NAN; q.len()], vec![f32::NAN; 2 * k.len()]);
                let (to, more) = (&mut dq, &mut dkv);
                backward::attention_gradients(
                    level,
                    &a,
                    &q,
                    &k,
                    &v,
                    &dy,
                    &known,
                    to,
                    more,
                    &mut scratch,
                );
                if part == 0 { dq } else { dkv }
            });
        }
        check(&format!("keys and values of {a:?}"), &dkv, 1e-5, |level| {
            let mut scratch = vec![f32::NAN; backward::keys_values_scratch_elements(&a)];
            let mut dkv = vec![f32::NAN; 2 * k.len()];
            backward::attention_keys_values(
                level,
                &a,
                &q,
                &k,
                &v,
                &dy,
                &kept,
                &mut dkv,
                &mut scratch,
            );
            dkv
        });
    }
}

/// dq, dk and dv in one go, and each alone.
fn all_gradients(
    level: Level,
    a: &Attention,
    [q, k, v, y, dy]: [&[f32]; 5],
) -> Vec<(&'static str, Vec<f32>)> {
    let count = a.batch * a.tokens * a.heads * 2;
    let mut rows = vec![f32::NAN; count];
    let mut scratch = vec![f32::NAN; backward::rows_scratch_elements(a)];
    backward::attention_rows(level, a, q, k, y, dy, &mut rows, &mut scratch);
    let (mut dq, mut dkv) = (vec![f32::NAN; q.len()], vec![f32::NAN; 2 * k.len()]);
    let mut scratch = vec![f32::NAN; backward::gradients_scratch_elements(a)];
    let (to, more) = (&mut dq, &mut dkv);
    backward::attention_gradients(level, a, q, k, v, dy, &rows, to, more, &mut scratch);
    let mut found = vec![("dq", dq), ("dkv", dkv)];
    let mut scratch = vec![f32::NAN; backward::queries_scratch_elements(a)];
    let mut dq = vec![f32::NAN; q.len()];
    backward::attention_queries(level, a, q, k, v, dy, &rows, &mut dq, &mut scratch);
    found.push(("dq alone", dq));
    let mut scratch = vec![f32::NAN; backward::keys_values_scratch_elements(a)];
    let mut dkv = vec![f32::NAN; 2 * k.len()];
    backward::attention_keys_values(level, a, q, k, v, dy, &rows, &mut dkv, &mut scratch);
    found.push(("dkv alone", dkv));
    found
}

/// Tokens without a gradient are left out. Beside them, those with the least one that is not zero
/// are not, and change no bit of what is larger.
#[test]
fn gradients_of_some_tokens() {
    let left_of = |token: usize| token % 16 < 7;
    let some: [(&str, &dyn Fn(usize) -> bool); 5] = [
        ("left", &left_of),
        ("late", &|token| token >= 140),
        ("one", &|token| token == 3),
        ("all", &|_| true),
        ("none", &|_| false),
    ];
    for a in shapes() {
        let c = a.heads * a.d;
        let q = numbers(a.batch * a.tokens * c, 1);
        let [k, v] = [2, 3].map(|seed| numbers(a.kv_batch * a.keys * c, seed));
        let whole = numbers(q.len(), 4);
        for (name, is_live) in some {
            let mut dy = [0.0, f32::from_bits(1)].map(|rest| {
                let value =
                    |(at, v): (usize, &f32)| if is_live(at / c % a.tokens) { *v } else { rest };
                whole.iter().enumerate().map(value).collect::<Vec<f32>>()
            });
            // In one head alone.
            if a.heads > 1 && name == "left" {
                dy.iter_mut().for_each(|dy| dy[..a.d].copy_from_slice(&whole[..a.d]));
            }
            for &level in Level::available() {
                let y = run(level, &a, &q, &k, &v, None);
                let [found, wanted] =
                    [&dy[0], &dy[1]].map(|dy| all_gradients(level, &a, [&q, &k, &v, &y, dy]));
                for ((part, found), (_, wanted)) in found.iter().zip(&wanted) {
                    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                        let same = match wanted.abs() < 1e-30 {
                            true => found.to_bits() == 0,
                            false => found.to_bits() == wanted.to_bits(),
                        };
                        assert!(
                            same,
                            "{part} of {name}, {}, {a:?}, {at}: {found:e} {wanted:e}",
                            level.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn regions() {
    let (tokens, lengths) = (150usize, [77usize, 20, 33]);
    let a = shape([4, 2], tokens, lengths.iter().sum(), 2, 40);
    let c = a.heads * a.d;
    let q = numbers(a.batch * tokens * c, 1);
    let [k, v] = [2, 3].map(|seed| numbers(a.kv_batch * a.keys * c, seed));
    let mut weights = vec![0.0f32; tokens * 3];
    for (token, w) in weights.chunks_exact_mut(3).enumerate() {
        w[0] = if token < 140 { 0.25 } else { 0.0 };
        w[1] = if token % 2 == 0 { 0.75 } else { 0.0 };
        w[2] = if token > 100 { 0.5 } else { 0.0 };
    }
    let mut order: Vec<u32> = (0..tokens as u32).collect();
    order.sort_by_key(|t| (weights[*t as usize * 3 + 1] == 0.0, *t));
    let mut spans = Vec::new();
    for group in order.chunks(64) {
        let mut start = 0;
        for (prompt, length) in lengths.iter().enumerate() {
            let read = group.iter().any(|t| weights[*t as usize * 3 + prompt] != 0.0);
            spans.extend([start, start + if read { *length as u32 } else { 0 }]);
            start += *length as u32;
        }
    }
    let mut wanted = vec![0.0; q.len()];
    let mut start = 0;
    for (prompt, &length) in lengths.iter().enumerate() {
        let part = |k: &[f32]| -> Vec<f32> {
            let entries = k.chunks_exact(a.keys * c);
            entries.flat_map(|k| k[start * c..][..length * c].to_vec()).collect()
        };
        let one = Attention { keys: length, ..a };
        for (at, y) in plain(&one, &q, &part(&k), &part(&v), None).into_iter().enumerate() {
            wanted[at] += y * f64::from(weights[at / c % tokens * 3 + prompt]);
        }
        start += length;
    }
    let tables =
        regional::Regions { order: &order, weights: &weights, spans: &spans, lengths: &lengths };
    let run = |level, a: &Attention, tables: &regional::Regions<'_>| {
        let mut y = vec![f32::NAN; q.len()];
        let mut scratch = vec![f32::NAN; regional::scratch_elements(a, tables.lengths)];
        regional::regional_attention(level, a, &q, &k, &v, tables, &mut y, &mut scratch);
        y
    };
    check("regions", &wanted, 4e-6, |level| run(level, &a, &tables));
    // One prompt over everything.
    let ones = vec![1.0; tokens];
    let spans: Vec<u32> = (0..tokens.div_ceil(64)).flat_map(|_| [0, a.keys as u32]).collect();
    let lengths = [a.keys];
    let whole =
        regional::Regions { order: &order, weights: &ones, spans: &spans, lengths: &lengths };
    for &level in Level::available() {
        let plain = self::run(level, &a, &q, &k, &v, None);
        assert_eq!(run(level, &a, &whole), plain, "{}", level.name());
    }
}
