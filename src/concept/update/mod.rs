//! What a concept changes in one layer: a low-rank product (LoRA), or another kind of change that
//! is added to the weight. In LyCORIS' words where it has them.

mod dora;
mod ia3;
mod loha;
mod lokr;
mod lora;
mod piece;

use rayon::prelude::*;

use crate::graph::Array;

pub use dora::Dora;
pub use ia3::Ia3;
pub use loha::LoHa;
pub use lokr::{LoKr, Right};
pub use lora::Lora;
pub use piece::{Piece, ReadPart, Side};

/// The change of one parameter of a layer: of its weight, or of its bias.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// A product of two matrices.
    Lora(Lora),
    /// Two such products, multiplied element by element.
    LoHa(LoHa),
    /// A Kronecker product.
    LoKr(LoKr),
    /// The whole change, an array of the parameter's shape.
    Full(Array),
    /// Each channel times a number.
    Ia3(Ia3),
    /// Another change, and then the channels' lengths set anew.
    Dora(Box<Dora>),
}

/// Elements that one thread changes at a time.
const AT_ONCE: usize = 1 << 16;

impl Update {
    /// What the field calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Update::Lora(_) => "LoRA",
            Update::LoHa(_) => "LoHa",
            Update::LoKr(_) => "LoKr",
            Update::Full(_) => "full difference",
            Update::Ia3(_) => "IA3",
            Update::Dora(_) => "DoRA",
        }
    }

    /// Its factors, where it is of low rank: such an update can be computed beside the layer.
    pub fn lora(&self) -> Option<&Lora> {
        match self {
            Update::Lora(lora) => Some(lora),
            _ => None,
        }
    }

    /// The same change as a product of two matrices, where that takes no more than `rank` columns;
    /// `shape` is the weight's. Nothing is lost by it.
    pub fn as_lora(&self, shape: &[usize], rank: usize) -> Option<Lora> {
        match self {
            Update::Lora(lora) => (lora.rank() <= rank).then(|| lora.clone()),
            Update::LoHa(loha) => loha.as_lora(shape, rank),
            Update::LoKr(lokr) => lokr.as_lora(shape, rank),
            Update::Full(_) | Update::Ia3(_) | Update::Dora(_) => None,
        }
    }

    /// What it adds depends on what is there: another model's weights are changed otherwise.
    pub fn depends_on_weights(&self) -> bool {
        matches!(self, Update::Ia3(_) | Update::Dora(_))
    }

    /// Shape of the parameter that is updated, `[out, in]` or `[out, in, k, k]`, as far as the
    /// update itself tells: some kinds write `[out, in, k, k]` as `[out, in * k * k]`, and IA3 knows
    /// one side alone.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Update::Lora(lora) => lora.weight_shape(),
            Update::LoHa(loha) => loha.weight_shape(),
            Update::LoKr(lokr) => lokr.weight_shape(),
            Update::Full(change) => change.shape.to_vec(),
            Update::Ia3(ia3) => ia3.factors.shape.to_vec(),
            Update::Dora(dora) => dora.change.weight_shape(),
        }
    }

    /// Whether it is of a parameter of this shape.
    pub fn fits(&self, shape: &[usize]) -> bool {
        match self {
            Update::Lora(_) => squeezed(&self.weight_shape()) == squeezed(shape),
            Update::LoHa(_) | Update::LoKr(_) | Update::Full(_) => {
                let own = self.weight_shape();
                let elements = |shape: &[usize]| shape.iter().product::<usize>();
                own.first() == shape.first() && elements(&own) == elements(shape)
            }
            Update::Ia3(ia3) => ia3.side.channels(shape) == ia3.factors.values().len(),
            Update::Dora(dora) => {
                dora.change.fits(shape)
                    && dora.side.channels(shape) == dora.magnitude.values().len()
            }
        }
    }

    /// Channels that the layer reads and writes.
    pub fn channels(&self) -> (usize, usize) {
        let shape = self.weight_shape();
        (shape.get(1).copied().unwrap_or(0), shape.first().copied().unwrap_or(0))
    }

    /// What [`Update::add_to`] has to know of the whole parameter, which `read` gives in pieces;
    /// most kinds need nothing.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn measure<E>(&self, shape: &[usize], read: &mut ReadPart<'_, E>) -> Result<Vec<f32>, E> {
        match self {
            Update::Dora(dora) => dora.measure(shape, read),
            _ => Ok(Vec::new()),
        }
    }

    /// Adds `strength` times the change to `values`, the elements `piece` of a parameter as they
    /// are so far. `measured` is what [`Update::measure`] found.
    pub fn add_to(&self, strength: f32, piece: &Piece, measured: &[f32], values: &mut [f32]) {
        // The elements do not depend on each other.
        let parts = values.par_chunks_mut(AT_ONCE).enumerate();
        parts.for_each(|(n, values)| {
            let start = piece.range.start + n * AT_ONCE;
            let piece = Piece { shape: piece.shape, range: start..start + values.len() };
            self.add(strength, &piece, measured, values);
        });
    }

    fn add(&self, strength: f32, piece: &Piece, measured: &[f32], values: &mut [f32]) {
        match self {
            Update::Lora(lora) => lora.add(strength, piece, values),
            Update::LoHa(loha) => loha.add(strength, piece, values),
            Update::LoKr(lokr) => lokr.add(strength, piece, values),
            Update::Full(change) => {
                let change = change.values().get(piece.range.clone()).unwrap_or_default();
                values.iter_mut().zip(change).for_each(|(value, c)| *value += strength * c);
            }
            Update::Ia3(ia3) => ia3.add(strength, piece, values),
            Update::Dora(dora) => dora.add(strength, piece, measured, values),
        }
    }

    /// The same change, `factor` times as strong.
    pub fn scaled(&self, factor: f32) -> Update {
        match self {
            Update::Lora(lora) => Update::Lora(lora.scaled(factor)),
            Update::LoHa(LoHa([first, second])) => {
                Update::LoHa(LoHa([first.scaled(factor), second.clone()]))
            }
            Update::LoKr(LoKr { left, right }) => {
                Update::LoKr(LoKr { left: times(left, factor), right: right.clone() })
            }
            Update::Full(change) => Update::Full(times(change, factor)),
            Update::Ia3(ia3) => {
                Update::Ia3(Ia3 { factors: times(&ia3.factors, factor), ..ia3.clone() })
            }
            Update::Dora(dora) => Update::Dora(Box::new(Dora {
                strength: dora.strength * factor,
                ..Dora::clone(dora)
            })),
        }
    }

    /// All of its numbers, in a fixed order.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Update::Lora(Lora { down, up }) => vec![down, up],
            Update::LoHa(LoHa([first, second])) => {
                vec![&first.down, &first.up, &second.down, &second.up]
            }
            Update::LoKr(LoKr { left, right: Right::Whole(right) }) => vec![left, right],
            Update::LoKr(LoKr { left, right: Right::Lora(lora) }) => {
                vec![left, &lora.down, &lora.up]
            }
            Update::Full(change) => vec![change],
            Update::Ia3(ia3) => vec![&ia3.factors],
            Update::Dora(dora) => {
                let mut arrays = dora.change.arrays();
                arrays.push(&dora.magnitude);
                arrays
            }
        }
    }

    /// What tells it from an update of the same numbers.
    pub(super) fn tag(&self) -> String {
        match self {
            // Names of LoRAs stay as they are.
            Update::Lora(_) => String::new(),
            Update::Ia3(ia3) => format!("{} {:?}", self.kind(), ia3.side),
            Update::Dora(dora) => {
                let inner = dora.change.tag();
                format!("{} {:?} {} {inner}", self.kind(), dora.side, dora.strength)
            }
            _ => self.kind().to_string(),
        }
    }
}

/// An array, each of its numbers times `factor`.
fn times(array: &Array, factor: f32) -> Array {
    if factor == 1.0 {
        return array.clone();
    }
    Array::f32(array.shape.clone(), array.values().iter().map(|v| v * factor).collect())
}

/// A 1x1 convolution is a matrix.
fn squeezed(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().rev().take_while(|n| **n == 1).count();
    shape.get(..(shape.len() - ones).max(2)).unwrap_or(shape)
}

impl From<Lora> for Update {
    fn from(lora: Lora) -> Update {
        Update::Lora(lora)
    }
}
