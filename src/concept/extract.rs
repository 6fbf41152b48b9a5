//! A LoRA of what other kinds of changes, or several concepts together, come to: layer by layer the
//! best of its rank, by the singular values of the whole change.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use faer::{Mat, MatRef};

use super::{Concept, Error, Lora, Network, Piece, Result, Update, UpdateSet};
use crate::checkpoint::{Checkpoint, Component};
use crate::graph::Array;
use crate::watch::{Progress, Watch, heed};

/// A concept with how strong it is to be in the whole.
#[derive(Clone, Debug)]
pub struct Share<'a> {
    /// The concept.
    pub concept: &'a Concept,
    /// Factor on its updates of the UNet.
    pub unet: f32,
    /// Factor on its updates of the text encoder.
    pub text: f32,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Extracted {
    /// The concept with a LoRA in place of all changes.
    pub concept: Concept,
    /// For each network, the part of the change's energy (the sum of its squares) that the LoRA
    /// misses: 0 is nothing, 1 all of it.
    pub missed: BTreeMap<Network, f64>,
    /// Parameters whose changes a LoRA cannot hold: biases, and the weights of norms.
    pub left_out: usize,
}

/// Other kinds of changes are taken as the LoRAs that they come to, where these have no higher
/// rank.
const EXACT: usize = 512;
/// Elements of a weight that are read at a time.
const PIECE: usize = 1 << 20;
/// Singular vectors are searched for until less of the energy is found anew, or so many times.
const TOLERANCE: f64 = 1e-10;
const TURNS: usize = 60;
/// Vectors that are searched for besides those that are asked for.
const MORE: usize = 16;

/// The LoRA of `rank` that is closest to `shares` together; without a rank all of them one beside
/// the other, where that is possible. `base` is the model that changes which depend on its weights
/// are meant for. Words and settings are those of all. `watch` is told of the stage `extract`, by
/// layers.
///
/// # Errors
/// Changes of different shapes; changes that depend on a model's weights, without one, or that it
/// has no place for; without a rank those that are no product of two matrices;
/// [`Error::Cancelled`].
pub fn extract(
    shares: &[Share],
    rank: Option<usize>,
    base: Option<&Checkpoint>,
    watch: &mut Watch,
) -> Result<Extracted> {
    let mut extracted = Extracted { concept: together(shares)?, ..Extracted::default() };
    let of = |network: Network| shares.iter().map(move |share| share.concept.updates.of(network));
    let layers = Network::ALL.map(|network| {
        let names: BTreeSet<&String> = of(network).flat_map(|set| set.layers.keys()).collect();
        (network, names)
    });
    let total = layers.iter().map(|(_, names)| names.len()).sum();
    let mut done = 0;
    for (network, names) in layers {
        let biases: BTreeSet<&String> = of(network).flat_map(|set| set.biases.keys()).collect();
        extracted.left_out += biases.len();
        let (mut found, mut energy, mut missed) = (BTreeMap::new(), 0.0, 0.0);
        for layer in names {
            heed(watch(Progress::new("extract", done, total)))?;
            done += 1;
            let changes = changes(shares, network, layer);
            let sum = Sum {
                changes,
                network,
                layer,
                base: base.and_then(|base| base.network(network)),
                shares,
            };
            let Some(fitted) = sum.fitted(rank)? else {
                extracted.left_out += 1;
                continue;
            };
            energy += fitted.energy;
            missed += fitted.missed;
            found.extend(fitted.lora.map(|lora| (layer.clone(), Update::from(lora))));
        }
        if energy > 0.0 {
            extracted.missed.insert(network, (missed / energy).clamp(0.0, 1.0));
        }
        *extracted.concept.updates.of_mut(network) = UpdateSet::new(found);
    }
    Ok(extracted)
}

/// The updates of a layer, each with the number of its share and its whole factor.
fn changes<'a>(
    shares: &[Share<'a>],
    network: Network,
    layer: &str,
) -> Vec<(usize, &'a Update, f32)> {
    let of = |(number, share): (usize, &Share<'a>)| {
        let set = share.concept.updates.of(network);
        let factor = if network.is_text_encoder() { share.text } else { share.unet };
        Some((number, set.layers.get(layer)?, set.scale * factor))
    };
    shares.iter().enumerate().filter_map(of).filter(|(.., factor)| *factor != 0.0).collect()
}

/// Words and what else is told of all.
fn together(shares: &[Share]) -> Result<Concept> {
    let Some((first, rest)) = shares.split_first() else { return Ok(Concept::default()) };
    let mut whole = Concept { updates: Default::default(), ..first.concept.clone() };
    for share in rest {
        let concept = share.concept;
        for word in &concept.words {
            let same = |known: &&super::Word| known.text.eq_ignore_ascii_case(&word.text);
            if whole.words.iter().any(|known| same(&known)) {
                return Err(Error::SameWord {
                    word: word.text.clone(),
                    first: whole.name.clone(),
                    second: concept.name.clone(),
                });
            }
        }
        whole.words.extend(concept.words.iter().cloned());
        match (whole.base, concept.base) {
            (Some(wanted), Some(found)) if wanted != found => {
                let concept = concept.name.clone();
                return Err(Error::DifferentBases { concept, found, first: wanted });
            }
            (base, other) => whole.base = base.or(other),
        }
        // Settings of several runs say nothing of the whole.
        whole.metadata.clear();
    }
    Ok(whole)
}

/// All that changes one layer.
struct Sum<'a> {
    changes: Vec<(usize, &'a Update, f32)>,
    network: Network,
    layer: &'a str,
    base: Option<&'a Component>,
    shares: &'a [Share<'a>],
}

/// A LoRA of a layer.
struct Fitted {
    /// None where nothing is changed.
    lora: Option<Lora>,
    energy: f64,
    missed: f64,
}

impl Sum<'_> {
    fn name(&self, share: usize) -> String {
        self.shares.get(share).map(|share| share.concept.name.clone()).unwrap_or_default()
    }

    /// None where a LoRA cannot change it.
    fn fitted(&self, rank: Option<usize>) -> Result<Option<Fitted>> {
        let Some(shape) = self.shape()? else { return Ok(None) };
        let out = shape.first().copied().unwrap_or(0);
        let width: usize = shape.iter().skip(1).product();
        let least = out.min(width);
        let narrow = |(_, update, factor): &(usize, &Update, f32)| {
            let lora = update.as_lora(&shape, EXACT.min(least))?;
            Some((lora, f64::from(*factor)))
        };
        let narrow: Option<Vec<(Lora, f64)>> = self.changes.iter().map(narrow).collect();
        let whole = narrow.as_ref().map(|all| all.iter().map(|(lora, _)| lora.rank()).sum());
        match (narrow, whole, rank) {
            (Some(all), Some(whole), None) => Ok(Some(beside_each_other(&all, whole, &shape))),
            (Some(all), Some(whole), Some(rank)) if whole <= least.max(rank) => {
                Ok(Some(self.narrowed(&all, rank, &shape)?))
            }
            (_, _, Some(rank)) => Ok(Some(self.of_whole(rank, &shape)?)),
            (_, _, None) => {
                let wide = self.changes.iter().find(|change| narrow_is_none(change, &shape, least));
                let (share, kind) =
                    wide.map_or((0, "sum"), |(share, update, _)| (*share, update.kind()));
                Err(Error::NoProduct {
                    concept: self.name(share),
                    network: self.network,
                    layer: self.layer.to_string(),
                    kind,
                })
            }
        }
    }

    /// Shape of the weight: the model's where there is one.
    fn shape(&self) -> Result<Option<Vec<usize>>> {
        let known = self.base.and_then(|base| base.shape(&format!("{}.weight", self.layer)));
        let mut shape: Option<Vec<usize>> = known.map(<[usize]>::to_vec);
        for (share, update, _) in &self.changes {
            if update.depends_on_weights() && known.is_none() {
                let (concept, kind) = (self.name(*share), update.kind());
                let (network, layer) = (self.network, self.layer.to_string());
                return Err(match self.base {
                    None => Error::NeedsWeights { concept, network, layer, kind },
                    Some(_) => Error::NoLayer { concept, network, layer },
                });
            }
            let expected =
                shape.get_or_insert_with(|| as_window(update.weight_shape(), self.layer));
            if !update.fits(expected) {
                return Err(Error::LayerShape {
                    concept: self.name(*share),
                    network: self.network,
                    layer: self.layer.to_string(),
                    kind: "a weight",
                    found: update.weight_shape().into(),
                    expected: expected.clone().into(),
                });
            }
        }
        Ok(shape.filter(|shape| shape.len() > 1))
    }

    /// By the singular values of a product of two matrices: those of a small one.
    fn narrowed(&self, all: &[(Lora, f64)], rank: usize, shape: &[usize]) -> Result<Fitted> {
        let whole: usize = all.iter().map(|(lora, _)| lora.rank()).sum();
        let rows = shape.first().copied().unwrap_or(0);
        let width: usize = shape.iter().skip(1).product();
        let (mut up, mut down) = (Mat::zeros(rows, whole), Mat::zeros(width, whole));
        let mut first = 0;
        for (lora, factor) in all {
            let of = lora.rank();
            for (row, values) in lora.up.values().chunks_exact(of.max(1)).enumerate() {
                for (column, value) in values.iter().enumerate() {
                    up[(row, first + column)] = factor * f64::from(*value);
                }
            }
            for (column, values) in lora.down.values().chunks_exact(width.max(1)).enumerate() {
                for (row, value) in values.iter().enumerate() {
                    down[(row, first + column)] = f64::from(*value);
                }
            }
            first += of;
        }
        let (left, right) = (up.qr(), down.qr());
        let middle = left.thin_R() * right.thin_R().transpose();
        let svd = middle.thin_svd().map_err(|_| self.unsolved())?;
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let energy: f64 = values.iter().map(|value| value * value).sum();
        let kept = values.iter().take(rank).take_while(|value| **value > 0.0).count();
        let u = left.compute_thin_Q() * svd.U().subcols(0, kept);
        let v = right.compute_thin_Q() * svd.V().subcols(0, kept);
        let missed = values.iter().skip(kept).map(|value| value * value).sum();
        Ok(fitted(u.as_ref(), &values[..kept], v.as_ref(), shape, energy, missed))
    }

    /// By the singular values of the change itself.
    fn of_whole(&self, rank: usize, shape: &[usize]) -> Result<Fitted> {
        let rows = shape.first().copied().unwrap_or(0);
        let width: usize = shape.iter().skip(1).product();
        let values = self.dense(shape)?;
        let energy: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        if energy == 0.0 || !energy.is_finite() {
            let lora = None;
            return match energy.is_finite() {
                true => Ok(Fitted { lora, energy, missed: 0.0 }),
                false => Err(self.unsolved()),
            };
        }
        let change = Mat::from_fn(rows, width, |i, j| {
            values.get(i * width + j).copied().map_or(0.0, f64::from)
        });
        drop(values);
        let rank = rank.min(rows.min(width));
        let (u, s, v) = match truncated(change.as_ref(), rank) {
            Some(found) => found,
            None => {
                let svd = change.thin_svd().map_err(|_| self.unsolved())?;
                let values = svd.S().column_vector().iter().take(rank).copied().collect();
                (svd.U().subcols(0, rank).to_owned(), values, svd.V().subcols(0, rank).to_owned())
            }
        };
        let kept: f64 = s.iter().map(|value| value * value).sum();
        Ok(fitted(u.as_ref(), &s, v.as_ref(), shape, energy, (energy - kept).max(0.0)))
    }

    /// The change of the whole weight.
    fn dense(&self, shape: &[usize]) -> Result<Vec<f32>> {
        let elements: usize = shape.iter().product();
        let mut sum = vec![0.0; elements];
        let name = format!("{}.weight", self.layer);
        for (_, update, factor) in &self.changes {
            let read = |range: Range<usize>, into: &mut [f32]| -> Result<()> {
                match self.base {
                    Some(base) if update.depends_on_weights() => {
                        base.tensor(&name)?.write_f32(range, into);
                    }
                    _ => into.fill(0.0),
                }
                Ok(())
            };
            let measured = update.measure(shape, &mut |range, into| read(range, into))?;
            let mut before = vec![0.0; PIECE.min(elements)];
            for (n, sum) in sum.chunks_mut(PIECE).enumerate() {
                let range = n * PIECE..n * PIECE + sum.len();
                let before = before.get_mut(..sum.len()).unwrap_or_default();
                read(range.clone(), before)?;
                let mut after = before.to_vec();
                update.add_to(*factor, &Piece { shape, range }, &measured, &mut after);
                let changes = after.iter().zip(&*before).map(|(after, before)| after - before);
                sum.iter_mut().zip(changes).for_each(|(sum, change)| *sum += change);
            }
        }
        Ok(sum)
    }

    fn unsolved(&self) -> Error {
        let concept = self.changes.first().map_or(0, |(share, ..)| *share);
        Error::NoSolution {
            concept: self.name(concept),
            network: self.network,
            layer: self.layer.to_string(),
        }
    }
}

fn narrow_is_none((_, update, _): &(usize, &Update, f32), shape: &[usize], least: usize) -> bool {
    update.as_lora(shape, EXACT.min(least)).is_none()
}

/// Some kinds write a window of 3x3 as columns: by its layer's name it is known.
fn as_window(shape: Vec<usize>, layer: &str) -> Vec<usize> {
    const TAPS: usize = 9;
    let last = layer.rsplit('.').next().unwrap_or(layer);
    let is_window = matches!(last, "conv" | "conv1" | "conv2" | "conv_in" | "conv_out" | "op");
    match shape[..] {
        [out, columns] if is_window && columns % TAPS == 0 => vec![out, columns / TAPS, 3, 3],
        _ => shape,
    }
}

/// All of them, as one product of a higher rank.
fn beside_each_other(all: &[(Lora, f64)], rank: usize, shape: &[usize]) -> Fitted {
    let out = shape.first().copied().unwrap_or(0);
    let mut up = Vec::with_capacity(out * rank);
    for row in 0..out {
        for (lora, factor) in all {
            let of = lora.rank();
            let values = lora.up.values().get(row * of..(row + 1) * of).unwrap_or_default();
            up.extend(values.iter().map(|v| (f64::from(*v) * factor) as f32));
        }
    }
    let down = all.iter().flat_map(|(lora, _)| lora.down.values().iter().copied()).collect();
    let up = Array::f32([out, rank], up);
    let lora = Lora { down: Array::f32(down_shape(rank, shape), down), up };
    // Nothing is lost, whatever there was.
    Fitted { lora: (rank > 0).then_some(lora), energy: 0.0, missed: 0.0 }
}

/// `[rank, in]`, of a convolution with a window `[rank, in, k, k]`.
fn down_shape(rank: usize, shape: &[usize]) -> Vec<usize> {
    match shape {
        [_, columns, 1, 1] => vec![rank, *columns],
        _ => std::iter::once(rank).chain(shape.iter().skip(1).copied()).collect(),
    }
}

/// Each side takes the root of the singular values.
fn fitted(
    u: MatRef<f64>,
    values: &[f64],
    v: MatRef<f64>,
    shape: &[usize],
    energy: f64,
    missed: f64,
) -> Fitted {
    let rank = values.len();
    let roots: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    // The sign of a pair is free: its largest part is positive, so that it does not depend on how
    // it was found.
    let signs: Vec<f64> = (0..rank)
        .map(|k| {
            let largest = (0..u.nrows()).map(|i| u[(i, k)]);
            let largest = largest.fold(0f64, |most, x| if x.abs() > most.abs() { x } else { most });
            if largest < 0.0 { -1.0 } else { 1.0 }
        })
        .collect();
    let mut up = Vec::with_capacity(u.nrows() * rank);
    for i in 0..u.nrows() {
        up.extend((0..rank).map(|k| (u[(i, k)] * roots[k] * signs[k]) as f32));
    }
    let mut down = Vec::with_capacity(v.nrows() * rank);
    for k in 0..rank {
        down.extend((0..v.nrows()).map(|j| (v[(j, k)] * roots[k] * signs[k]) as f32));
    }
    let up = Array::f32([u.nrows(), rank], up);
    let lora = Lora { down: Array::f32(down_shape(rank, shape), down), up };
    Fitted { lora: (rank > 0).then_some(lora), energy, missed }
}

/// The largest singular values and their vectors, where that is cheaper than all of them: a space
/// of a few more dimensions is turned towards them until it holds all that it can.
fn truncated(change: MatRef<f64>, rank: usize) -> Option<(Mat<f64>, Vec<f64>, Mat<f64>)> {
    let (rows, columns) = change.shape();
    let width = rank + rank.max(MORE);
    if rank == 0 || 3 * width > rows.min(columns) {
        return None;
    }
    // Any start will do that is not orthogonal to what is searched for; always the same one.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let start = Mat::from_fn(columns, width, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    });
    let mut left = (change * &start).qr().compute_thin_Q();
    let mut held = 0.0;
    for _ in 0..TURNS {
        let below = change.transpose() * &left;
        let energy = below.squared_norm_l2();
        if energy - held <= TOLERANCE * energy {
            break;
        }
        held = energy;
        left = (change * below.qr().compute_thin_Q()).qr().compute_thin_Q();
    }
    let svd = (change.transpose() * &left).thin_svd().ok()?;
    let values: Vec<f64> = svd.S().column_vector().iter().take(rank).copied().collect();
    let u = left * svd.V().subcols(0, rank);
    Some((u, values, svd.U().subcols(0, rank).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::Ia3;
    use crate::concept::Side;
    use crate::watch::unwatched;

    /// Numbers without a pattern, always the same.
    fn random(shape: [usize; 2], seed: u64) -> Array {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        Array::f32(shape, (0..shape[0] * shape[1]).map(|_| next()).collect())
    }

    fn lora(out: usize, into: usize, rank: usize, seed: u64) -> Lora {
        Lora { down: random([rank, into], seed), up: random([out, rank], seed + 1) }
    }

    fn concept(name: &str, scale: f32, update: Update) -> Concept {
        let set = UpdateSet::scaled(scale, [("a".to_string(), update)]);
        Concept { name: name.into(), updates: [(Network::UNet, set)].into(), ..Concept::default() }
    }

    fn dense(concept: &Concept, shape: [usize; 2]) -> Vec<f32> {
        let set = concept.updates.of(Network::UNet);
        let mut values = vec![0.0; shape[0] * shape[1]];
        let piece = Piece { shape: &shape, range: 0..values.len() };
        set.layers["a"].add_to(set.scale, &piece, &[], &mut values);
        values
    }

    fn share(concept: &Concept, factor: f32) -> Share<'_> {
        Share { concept, unet: factor, text: factor }
    }

    fn difference(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn the_best_of_a_rank_is_found_and_its_error_told() {
        // As wide as a search for the largest alone is worth it, and as narrow as not.
        for (shape, rank) in [([150, 190], 5), ([20, 30], 4), ([30, 12], 12), ([90, 70], 3)] {
            let whole = concept("full", 0.5, Update::Full(random(shape, 3)));
            let mut watch = unwatched;
            let found = extract(&[share(&whole, 1.0)], Some(rank), None, &mut watch).unwrap();
            let (before, after) = (dense(&whole, shape), dense(&found.concept, shape));
            let missed =
                difference(&before, &after) / difference(&before, &vec![0.0; before.len()]);
            let told = found.missed[&Network::UNet];
            assert!((missed - told).abs() < 1e-5, "{missed} {told}");
            // By all singular values.
            let matrix =
                Mat::from_fn(shape[0], shape[1], |i, j| f64::from(before[i * shape[1] + j]));
            let all = matrix.singular_values().unwrap();
            let sum: f64 = all.iter().map(|s| s * s).sum();
            let best = all.iter().skip(rank).map(|s| s * s).sum::<f64>() / sum;
            assert!((told - best).abs() < 1e-6, "{told} {best}");
            let set = found.concept.updates.of(Network::UNet);
            assert_eq!(set.layers["a"].lora().unwrap().rank(), rank);
            let again = extract(&[share(&whole, 1.0)], Some(rank), None, &mut watch).unwrap();
            assert_eq!(again.concept, found.concept, "the same numbers again");
        }
    }

    /// There is nothing to search for beyond the rank that it has.
    #[test]
    fn what_is_of_low_rank_is_found_whole() {
        let shape = [130, 150];
        let product = concept("product", 1.0, lora(130, 150, 3, 5).into());
        let whole = concept("full", 1.0, Update::Full(Array::f32(shape, dense(&product, shape))));
        let found = extract(&[share(&whole, 1.0)], Some(5), None, &mut unwatched).unwrap();
        assert!(found.missed[&Network::UNet] < 1e-9, "{:?}", found.missed);
        let (a, b) = (dense(&whole, shape), dense(&found.concept, shape));
        assert!(difference(&a, &b) < 1e-8 * difference(&a, &vec![0.0; a.len()]));
        let nothing = Update::Full(Array::f32(shape, vec![0.0; shape[0] * shape[1]]));
        let nothing = concept("nothing", 1.0, nothing);
        let found = extract(&[share(&nothing, 1.0)], Some(2), None, &mut unwatched).unwrap();
        assert!(found.concept.updates.is_empty());
    }

    #[test]
    fn several_become_one() {
        let shape = [24, 40];
        let a = concept("a", 0.5, lora(24, 40, 3, 1).into());
        let b = concept("b", 2.0, lora(24, 40, 2, 9).into());
        let mut expected = dense(&a, shape);
        expected.iter_mut().for_each(|v| *v *= 0.7);
        for (sum, v) in expected.iter_mut().zip(dense(&b, shape)) {
            *sum += 0.5 * v;
        }
        let shares = [share(&a, 0.7), share(&b, 0.5)];
        let one = extract(&shares, None, None, &mut unwatched).unwrap();
        let set = one.concept.updates.of(Network::UNet);
        assert_eq!(set.layers["a"].lora().unwrap().rank(), 5);
        assert!(difference(&dense(&one.concept, shape), &expected) < 1e-10);
        let same = extract(&shares, Some(5), None, &mut unwatched).unwrap();
        assert!(difference(&dense(&same.concept, shape), &expected) < 1e-10);
        assert!(same.missed[&Network::UNet] < 1e-10);
        let less = extract(&shares, Some(2), None, &mut unwatched).unwrap();
        let missed = difference(&dense(&less.concept, shape), &expected)
            / difference(&expected, &vec![0.0; expected.len()]);
        assert!((missed - less.missed[&Network::UNet]).abs() < 1e-5);
        assert!(missed > 1e-3);
        // What is switched off does not count.
        let alone = extract(&[share(&a, 1.0), share(&b, 0.0)], None, None, &mut unwatched).unwrap();
        assert!(difference(&dense(&alone.concept, shape), &dense(&a, shape)) < 1e-10);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let error = |concepts: &[Concept], rank| {
            let shares: Vec<Share> = concepts.iter().map(|c| share(c, 1.0)).collect();
            extract(&shares, rank, None, &mut unwatched).unwrap_err().to_string()
        };
        let full = concept("whole", 1.0, Update::Full(random([8, 9], 1)));
        let no_rank = error(std::slice::from_ref(&full), None);
        assert!(no_rank.contains("`whole`") && no_rank.contains("--rank"), "{no_rank}");
        let factors = Array::f32([9], vec![0.1; 9]);
        let scaling = Update::Ia3(Ia3 { factors, side: Side::Input });
        let no_model = error(&[concept("scaled", 1.0, scaling)], Some(2));
        assert!(no_model.contains("IA3") && no_model.contains("--base"), "{no_model}");
        let other = concept("other", 1.0, lora(8, 7, 2, 1).into());
        let shapes = error(&[full.clone(), other], Some(2));
        assert!(shapes.contains("`other`") && shapes.contains("[8, 7]"), "{shapes}");
        let hash = |n| Some(crate::checkpoint::ModelHash([n; 32]));
        let (a, b) = (Concept { base: hash(1), ..full.clone() }, Concept { base: hash(2), ..full });
        assert!(error(&[a, b], Some(2)).contains("another model"));
    }
}
