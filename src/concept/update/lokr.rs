//! LoKr: a Kronecker product.

use super::{Lora, Piece};
use crate::graph::Array;

/// The weight's change is the Kronecker product of a small matrix and a larger one: each element of
/// `left` times all of `right`, block by block (LyCORIS' `lokr_w1` and `lokr_w2`).
#[derive(Clone, Debug, PartialEq)]
pub struct LoKr {
    /// f32 `[a, b]`
    pub left: Array,
    /// The larger factor.
    pub right: Right,
}

/// The larger factor of a Kronecker product.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// f32 `[c, d]`, of a convolution `[c, d, k, k]`.
    Whole(Array),
    /// Of low rank.
    Lora(Lora),
}

impl Right {
    fn shape(&self) -> Vec<usize> {
        match self {
            Right::Whole(right) => right.shape.to_vec(),
            Right::Lora(lora) => lora.weight_shape(),
        }
    }

    /// Elements of a row.
    fn width(&self) -> usize {
        self.shape().iter().skip(1).product::<usize>().max(1)
    }

    /// All of a row.
    fn row<'a>(&'a self, row: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let width = self.width();
        match self {
            Right::Whole(right) => right.values().chunks_exact(width).nth(row).unwrap_or_default(),
            Right::Lora(lora) => {
                buffer.clear();
                buffer.resize(width, 0.0);
                lora.add_row(1.0, row, 0, buffer);
                buffer
            }
        }
    }

    /// As two matrices, `[c, r]` and `[r, d]`: those it has, or itself and ones on the diagonal.
    fn factors(&self) -> (usize, Vec<f32>, Vec<f32>) {
        let (rows, width) = (self.shape().first().copied().unwrap_or(0), self.width());
        match self {
            Right::Lora(lora) => {
                (lora.rank(), lora.up.values().to_vec(), lora.down.values().to_vec())
            }
            Right::Whole(right) if rows <= width => (rows, identity(rows), right.values().to_vec()),
            Right::Whole(right) => (width, right.values().to_vec(), identity(width)),
        }
    }
}

fn identity(side: usize) -> Vec<f32> {
    (0..side * side).map(|i| f32::from(u8::from(i % (side + 1) == 0))).collect()
}

impl LoKr {
    pub(super) fn weight_shape(&self) -> Vec<usize> {
        let right = self.right.shape();
        let at = |shape: &[usize], axis: usize| shape.get(axis).copied().unwrap_or(1);
        let sides = [0, 1].map(|axis| at(&self.left.shape, axis) * at(&right, axis));
        sides.into_iter().chain(right.iter().skip(2).copied()).collect()
    }

    pub(super) fn add(&self, strength: f32, piece: &Piece, values: &mut [f32]) {
        let (rows, width) = (self.right.shape().first().copied().unwrap_or(0), self.right.width());
        let blocks = self.left.shape.channels();
        let (left, mut buffer) = (self.left.values(), Vec::new());
        piece.for_rows(blocks * width, values, |row, first, values| {
            let factors = left.chunks_exact(blocks.max(1)).nth(row / rows.max(1));
            let right = self.right.row(row % rows.max(1), &mut buffer);
            let inside = Piece { shape: &[], range: first..first + values.len() };
            inside.for_rows(width, values, |block, first, values| {
                let factor = factors.and_then(|f| f.get(block)).copied().unwrap_or(0.0) * strength;
                let right = right.get(first..first + values.len()).unwrap_or_default();
                values.iter_mut().zip(right).for_each(|(value, r)| *value += factor * r);
            });
        });
    }

    /// With A B for the right side: (I x A)(left x B) or (left x A)(I x B), whichever is of lower
    /// rank.
    pub(super) fn as_lora(&self, shape: &[usize], most: usize) -> Option<Lora> {
        let (a, b) = (self.left.shape.rows(), self.left.shape.channels());
        let (c, d) = (self.right.shape().first().copied().unwrap_or(0), self.right.width());
        let inner = match &self.right {
            Right::Whole(_) => c.min(d),
            Right::Lora(lora) => lora.rank(),
        };
        let rank = inner.checked_mul(a.min(b)).filter(|rank| *rank <= most)?;
        let (_, up, down) = self.right.factors();
        let (one, left) = (Array::f32([a.min(b); 2], identity(a.min(b))), &self.left);
        let (for_up, for_down) = if a <= b { (&one, left) } else { (left, &one) };
        let down_shape: Vec<usize> =
            std::iter::once(rank).chain(super::squeezed(shape).iter().skip(1).copied()).collect();
        let down = kronecker(for_down, [inner, d], &down);
        let fits = down_shape.iter().product::<usize>() == down.len();
        fits.then(|| Lora {
            up: Array::f32([a * c, rank], kronecker(for_up, [c, inner], &up)),
            down: Array::f32(down_shape, down),
        })
    }
}

fn kronecker(left: &Array, [rows, columns]: [usize; 2], right: &[f32]) -> Vec<f32> {
    let mut product = Vec::with_capacity(left.values().len() * right.len());
    for factors in left.values().chunks_exact(left.shape.channels().max(1)) {
        for row in right.chunks_exact(columns.max(1)).take(rows) {
            factors.iter().for_each(|factor| product.extend(row.iter().map(|r| factor * r)));
        }
    }
    product
}
