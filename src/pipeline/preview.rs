//! What pictures will look like, while they are sampled: colours out of latents by a matrix that is
//! fitted to the model's own autoencoder, or pictures by a small one.

use crate::graph::Array;
use crate::nn::sinusoids;
use crate::picture::Picture;
use crate::sd::denoiser::{Phase, StepInputs, StepShape};
use crate::sd::network::Ready;
use crate::sd::sampling::{At, Companion, Told};

use super::Pipeline;
use super::decode::{Decoder, Vaes};
use super::error::Result;

/// Pictures on their way.
#[derive(Clone, Debug)]
pub struct Preview<'a> {
    /// The number of the first of them in the batch.
    pub first: usize,
    /// Calls of the model that are done.
    pub done: usize,
    /// All calls.
    pub of: usize,
    /// What the last step takes the finished latents for, `[batch, height, width, channels]`.
    pub latents: &'a Array,
    /// The same in colours, one picture for each, of the size that they will have.
    pub pictures: &'a [Picture],
}

/// Who is shown previews.
pub(super) type See<'s> = dyn FnMut(&Preview<'_>) + 's;

/// The colour of a latent: weights of its channels for each of three colours, and a constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LatentColours {
    rows: Vec<[f32; 3]>,
}

/// Cells of the picture that colours are fitted to, along one side, and of each of its patches.
const CELLS: usize = 16;
const PATCH: usize = 2;

impl LatentColours {
    /// The least squares of `colours` (three for each cell) over latents of `channels`.
    fn fit(latents: &[f32], channels: usize, colours: &[f32]) -> LatentColours {
        let n = channels + 1;
        let (mut square, mut right) = (vec![vec![0f64; n]; n], vec![[0f64; 3]; n]);
        for (cell, colour) in latents.chunks_exact(channels.max(1)).zip(colours.chunks_exact(3)) {
            let row: Vec<f64> = cell.iter().map(|&v| f64::from(v)).chain([1.0]).collect();
            for i in 0..n {
                for j in 0..n {
                    square[i][j] += row[i] * row[j];
                }
                for (sum, &colour) in right[i].iter_mut().zip(colour) {
                    *sum += row[i] * f64::from(colour);
                }
            }
        }
        // A channel that says nothing gets no weight.
        let ridge = 1e-6 * latents.len().max(1) as f64;
        (0..n).for_each(|i| square[i][i] += ridge);
        for i in 0..n {
            let (above, below) = square.split_at_mut(i + 1);
            let (right_above, right_below) = right.split_at_mut(i + 1);
            for (row, target) in below.iter_mut().zip(right_below) {
                let factor = row[i] / above[i][i];
                row.iter_mut().zip(&above[i]).for_each(|(a, b)| *a -= factor * b);
                target.iter_mut().zip(right_above[i]).for_each(|(a, b)| *a -= factor * b);
            }
        }
        let mut rows = vec![[0f64; 3]; n];
        for i in (0..n).rev() {
            for colour in 0..3 {
                let known: f64 = (i + 1..n).map(|j| square[i][j] * rows[j][colour]).sum();
                rows[i][colour] = (right[i][colour] - known) / square[i][i];
            }
        }
        LatentColours { rows: rows.into_iter().map(|row| row.map(|v| v as f32)).collect() }
    }

    /// A picture of one pixel for each cell of `[height, width, channels]`.
    fn picture(&self, latents: &[f32], [height, width]: [usize; 2]) -> Result<Picture> {
        let Some((constant, weights)) = self.rows.split_last() else {
            return Ok(Picture::filled(width as u32, height as u32, [0; 3])?);
        };
        let colour = |cell: &[f32]| -> [f32; 3] {
            std::array::from_fn(|i| {
                let sum: f32 = cell.iter().zip(weights).map(|(v, row)| v * row[i]).sum();
                sum + constant[i]
            })
        };
        let values: Vec<f32> =
            latents.chunks_exact(weights.len().max(1)).flat_map(colour).collect();
        Ok(Picture::from_model(&values, width as u32, height as u32)?)
    }
}

/// A picture of patches in many colours, always the same, and the mean colour of each cell.
fn patches(factor: usize) -> Result<(Picture, Vec<f32>)> {
    let side = CELLS * factor;
    // Waves that never meet in step give any colours; nothing hangs on which.
    let waves = sinusoids(&[1.0], 6, true, 0.0);
    let colour = |x: usize, y: usize, i: usize| {
        let patch = (y / PATCH * (CELLS / PATCH) + x / PATCH) as f32;
        let wave = waves.get(i).copied().unwrap_or(1.0);
        let value = ((patch + 1.0) * (12.9898 + 7.233 * i as f32 + wave)).sin() * 43758.547;
        2.0 * (value - value.floor()) - 1.0
    };
    let at = |place: usize| place / factor;
    let values: Vec<f32> = (0..side * side)
        .flat_map(|pixel| [0, 1, 2].map(|i| colour(at(pixel % side), at(pixel / side), i)))
        .collect();
    let cells = (0..CELLS * CELLS)
        .flat_map(|cell| [0, 1, 2].map(|i| colour(cell % CELLS, cell / CELLS, i)))
        .collect();
    Ok((Picture::from_model(&values, side as u32, side as u32)?, cells))
}

/// How latents become pictures before they are decoded.
pub(super) enum Shower {
    Colours(LatentColours),
    /// A small autoencoder does it well.
    Small(Box<Decoder>),
}

impl Shower {
    fn pictures(
        &mut self,
        vaes: Vaes<'_>,
        latents: &Array,
        size: [usize; 2],
    ) -> Result<Vec<Picture>> {
        let factor = vaes.full.config.downscale();
        let each = latents.values().len() / latents.shape.first().copied().unwrap_or(1).max(1);
        let picture = |latents: &[f32]| match self {
            Shower::Colours(colours) => {
                let small = colours.picture(latents, size)?;
                Ok(small.resized((size[1] * factor) as u32, (size[0] * factor) as u32)?)
            }
            Shower::Small(decoder) => decoder.decode(vaes, latents, &mut |_| Ok(())),
        };
        latents.values().chunks_exact(each.max(1)).map(picture).collect()
    }
}

impl Pipeline {
    /// What shows latents of `size`.
    pub(super) fn shower(&mut self, size: [usize; 2]) -> Result<Shower> {
        if self.tiny_vae.is_some() {
            let decoder = Decoder::plan(&self.gpu, self.vaes(), size, None)?;
            return Ok(Shower::Small(Box::new(decoder)));
        }
        if self.colours.is_none() {
            let (picture, cells) = patches(self.factor())?;
            let latents = self.encode(&picture, None)?;
            let channels = self.latent_channels();
            self.colours = Some(LatentColours::fit(latents.values(), channels, &cells));
            // The encoder has done its work.
            self.vae.weights.retain(|name| !name.starts_with("encoder."));
        }
        let none = || LatentColours { rows: Vec::new() };
        Ok(Shower::Colours(self.colours.clone().unwrap_or_else(none)))
    }
}

/// Shows what comes of every so many steps, beside another companion.
pub(super) struct Showing<'a, 's, C> {
    pub other: C,
    /// None: nothing is shown.
    pub every: Option<usize>,
    pub shower: Option<&'a mut Shower>,
    pub vaes: Vaes<'a>,
    pub shape: [usize; 4],
    pub first: usize,
    pub see: &'a mut See<'s>,
}

impl<C: Companion> Companion for Showing<'_, '_, C> {
    fn enter(&mut self, phase: &Phase) -> crate::sd::Result<()> {
        self.other.enter(phase)
    }

    fn set_prompt(&mut self, shape: &StepShape, told: &Told) -> crate::sd::Result<()> {
        self.other.set_prompt(shape, told)
    }

    fn before(&mut self, program: &Ready<StepInputs>, at: &At) -> crate::sd::Result<()> {
        self.other.before(program, at)
    }

    fn after(&mut self, program: &Ready<StepInputs>, at: &At) -> crate::sd::Result<()> {
        self.other.after(program, at)
    }

    fn looks_at(&self, at: &At) -> bool {
        // After the last one comes the picture itself.
        let due = |every: usize| (at.done + 1).is_multiple_of(every) && at.done + 1 < at.of;
        self.every.is_some_and(due)
    }

    fn look(&mut self, at: &At, originals: &[f32]) -> crate::sd::Result<()> {
        let Some(shower) = &mut self.shower else { return Ok(()) };
        // Nothing that is shown on the way ends the work: the next one may be well.
        let bounded = originals.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        let latents = Array::f32(self.shape, bounded);
        let [_, height, width, _] = self.shape;
        if let Ok(pictures) = shower.pictures(self.vaes, &latents, [height, width]) {
            let (done, of) = (at.done + 1, at.of);
            let first = self.first;
            (self.see)(&Preview { first, done, of, latents: &latents, pictures: &pictures });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_found_again() {
        let true_rows = [[0.3, -0.2, 0.1], [0.0, 0.5, 0.2], [0.1, 0.1, -0.4]];
        let latents: Vec<f32> = (0..40).map(|i| ((i * 7 % 13) as f32 - 6.0) / 6.0).collect();
        let colours: Vec<f32> = latents
            .chunks_exact(2)
            .flat_map(|cell| {
                let colour = |i: usize| {
                    cell[0] * true_rows[0][i] + cell[1] * true_rows[1][i] + true_rows[2][i]
                };
                [0, 1, 2].map(colour)
            })
            .collect();
        let found = LatentColours::fit(&latents, 2, &colours);
        for (row, expected) in found.rows.iter().zip(true_rows) {
            row.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 1e-3, "{found:?}"));
        }
        let picture = found.picture(&latents[..8], [2, 2]).unwrap();
        assert_eq!((picture.width(), picture.height()), (2, 2));
    }
}
