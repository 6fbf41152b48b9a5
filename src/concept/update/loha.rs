//! LoHa: an elementwise (Hadamard) product of two changes of low rank.

use super::{Lora, Piece};
use crate::graph::Array;

/// The weight's change is (up1 down1) x (up2 down2), element by element (Hyeon-Woo et al. 2021,
/// "FedPara"). LyCORIS' `hada_w1_a` and `hada_w1_b` are up1 and down1; the cores of a Tucker form
/// are multiplied into the downs.
#[derive(Clone, Debug, PartialEq)]
pub struct LoHa(pub [Lora; 2]);

impl LoHa {
    pub(super) fn weight_shape(&self) -> Vec<usize> {
        self.0[0].weight_shape()
    }

    pub(super) fn add(&self, strength: f32, piece: &Piece, values: &mut [f32]) {
        let [first, second] = &self.0;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        piece.for_rows(first.width(), values, |row, column, values| {
            for (lora, product) in [(first, &mut a), (second, &mut b)] {
                product.clear();
                product.resize(values.len(), 0.0);
                lora.add_row(1.0, row, column, product);
            }
            let products = a.iter().zip(&b);
            values.iter_mut().zip(products).for_each(|(value, (a, b))| *value += strength * a * b);
        });
    }

    /// Each pair of columns and each pair of rows, multiplied: the product's rank is that of the
    /// ranks.
    pub(super) fn as_lora(&self, shape: &[usize], most: usize) -> Option<Lora> {
        let [first, second] = &self.0;
        let rank = first.rank().checked_mul(second.rank()).filter(|rank| *rank <= most)?;
        let (out, width) = (first.up.shape.rows(), first.width());
        let rows = |lora: &Lora| -> Vec<Vec<f32>> {
            lora.down.values().chunks_exact(width).map(<[f32]>::to_vec).collect()
        };
        let (a, b) = (rows(first), rows(second));
        let mut down = Vec::with_capacity(rank * width);
        for a in &a {
            for b in &b {
                down.extend(a.iter().zip(b).map(|(a, b)| a * b));
            }
        }
        let mut up = Vec::with_capacity(out * rank);
        let ups = first.up.values().chunks_exact(first.rank().max(1));
        for (a, b) in ups.zip(second.up.values().chunks_exact(second.rank().max(1))) {
            a.iter().for_each(|a| up.extend(b.iter().map(|b| a * b)));
        }
        let down_shape: Vec<usize> =
            std::iter::once(rank).chain(super::squeezed(shape).iter().skip(1).copied()).collect();
        let fits = down_shape.iter().product::<usize>() == down.len() && up.len() == out * rank;
        fits.then(|| Lora { down: Array::f32(down_shape, down), up: Array::f32([out, rank], up) })
    }
}
