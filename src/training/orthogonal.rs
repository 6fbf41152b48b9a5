//! Orthogonal Adaptation (arXiv 2312.02432): every concept's LoRA-down is a few rows of one
//! orthogonal basis, chosen by the concept's name, and stands still. Concepts with other rows read
//! other directions of a layer's inputs, so that their updates can be added up.
//!
//! The basis of a width is never stored: it is a product of layers that shuffle the channels,
//! change some signs and turn neighbours by 45 degrees, drawn by Philox from the width alone. So a
//! row of it is made from a unit vector, in sums, differences and one constant: the same bytes
//! everywhere.

use sha2::{Digest, Sha256};

use crate::random::philox::philox4x32_10;

/// Of the basis: that of every concept, for ever.
const BASIS: u32 = 0x4F52_5448;
/// Layers for each doubling of the width: after one, every number depends on every other.
const MIXINGS: usize = 3;

/// The rows `[rank, width]` of a concept, one after another; as many as the width has at most.
pub(super) fn rows(name: &str, width: usize, rank: usize) -> Vec<f32> {
    let mixings = mixings(width);
    let row = |index| {
        let mut row = vec![0.0; width];
        row[index] = 1.0;
        mixings.iter().for_each(|mixing| mixing.apply(&mut row));
        row.into_iter().map(|v| v as f32)
    };
    chosen(name, width, rank).into_iter().flat_map(row).collect()
}

/// Which rows of the basis a concept has: by its name and the width, no two alike.
pub(super) fn chosen(name: &str, width: usize, rank: usize) -> Vec<usize> {
    let hash = Sha256::digest(name.as_bytes());
    let word = |at: usize| hash.iter().skip(at).take(4).fold(0, |w, b| (w << 8) | u32::from(*b));
    let mut stream = Stream::new([word(0), word(4)], width as u32);
    let mut order: Vec<usize> = (0..width).collect();
    for at in 0..rank.min(width) {
        let other = at + stream.below(width - at);
        order.swap(at, other);
    }
    order.truncate(rank);
    order
}

/// One layer of the product.
struct Mixing {
    order: Vec<usize>,
    negative: Vec<bool>,
}

impl Mixing {
    fn apply(&self, row: &mut Vec<f64>) {
        let signed = self.order.iter().zip(&self.negative);
        let mut next: Vec<f64> = signed
            .map(|(&from, &negative)| if negative { -row[from] } else { row[from] })
            .collect();
        for pair in next.as_chunks_mut::<2>().0 {
            let [a, b] = *pair;
            let turned = std::f64::consts::FRAC_1_SQRT_2;
            *pair = [(a + b) * turned, (a - b) * turned];
        }
        *row = next;
    }
}

fn mixings(width: usize) -> Vec<Mixing> {
    let mut stream = Stream::new([BASIS, width as u32], 0);
    let doublings = width.next_power_of_two().trailing_zeros() as usize;
    let mixing = |_| {
        let mut order: Vec<usize> = (0..width).collect();
        for at in 0..width {
            let other = at + stream.below(width - at);
            order.swap(at, other);
        }
        let negative = (0..width).map(|_| stream.below(2) == 1).collect();
        Mixing { order, negative }
    };
    (0..MIXINGS * doublings).map(mixing).collect()
}

/// Words of Philox4x32-10, in order.
struct Stream {
    key: [u32; 2],
    purpose: u32,
    block: u32,
    ready: [u32; 4],
    left: usize,
}

impl Stream {
    fn new(key: [u32; 2], purpose: u32) -> Stream {
        Stream { key, purpose, block: 0, ready: [0; 4], left: 0 }
    }

    /// A whole number below `count`, of which no one is likelier by more than `count` / 2^32.
    fn below(&mut self, count: usize) -> usize {
        if self.left == 0 {
            self.ready = philox4x32_10([self.block, self.purpose, 0, 0], self.key);
            (self.block, self.left) = (self.block.wrapping_add(1), 4);
        }
        self.left -= 1;
        let word = self.ready[3 - self.left];
        ((u64::from(word) * count as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products(a: &[f32], b: &[f32], width: usize) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        a.chunks(width).flat_map(|a| b.chunks(width).map(move |b| dot(a, b))).collect()
    }

    #[test]
    fn rows_are_orthonormal_and_of_two_names_orthogonal() {
        for width in [6, 40, 320, 1280] {
            let (rank, near) = (4, |a: f64, b: f64| (a - b).abs() < 1e-5);
            let own = rows("zorp", width, rank);
            for (at, product) in products(&own, &own, width).into_iter().enumerate() {
                assert!(near(product, if at % (rank + 1) == 0 { 1.0 } else { 0.0 }), "{product}");
            }
            let taken = chosen("zorp", width, rank);
            let other = ["kurl", "potter", "candy", "inky", "thanos"]
                .into_iter()
                .find(|name| chosen(name, width, rank).iter().all(|row| !taken.contains(row)));
            let Some(other) = other else { continue };
            let theirs = rows(other, width, rank);
            assert!(products(&own, &theirs, width).into_iter().all(|p| near(p, 0.0)), "{width}");
        }
    }

    #[test]
    fn a_whole_basis_is_dense() {
        let width = 40;
        let all = rows("zorp", width, width);
        let most = all.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let still = all.iter().filter(|v| v.abs() < 1e-4).count();
        assert!(most < 0.8 && still < width * width / 20, "{most} {still}");
    }

    #[test]
    fn names_and_widths_choose_and_nothing_else() {
        assert_eq!(chosen("zorp", 320, 4), chosen("zorp", 320, 4));
        assert_ne!(chosen("zorp", 320, 4), chosen("Zorp", 320, 4));
        assert_ne!(chosen("zorp", 320, 4), chosen("zorp", 321, 4));
        // More rows begin with the same ones.
        assert_eq!(chosen("zorp", 320, 8)[..4], chosen("zorp", 320, 4)[..]);
        // As files have them: a change here would put concepts of one name apart.
        assert_eq!(chosen("zorp", 40, 4), PINNED);
    }

    const PINNED: [usize; 4] = [1, 23, 16, 9];
}
