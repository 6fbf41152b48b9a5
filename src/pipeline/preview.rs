//! Rough pictures of what is being sampled, for those who wait: a linear map from latents to
//! colours, fitted to the model's own decoder, so that a look costs next to nothing.

use crate::backend::Device;
use crate::models::config::VaeConfig;
use crate::picture::Picture;
use crate::random::{NoiseSource, RngKind};
use crate::sd::denoiser::{Phase, StepInputs, StepShape};
use crate::sd::network::{LoadedNetwork, Ready};
use crate::sd::sampling::{At, Companion};
use crate::{graph, sd};

use super::decode::Decoder;
use super::error::Result;

/// Side of the latents that the map is fitted on, and of the squares of one value in them.
const SIDE: usize = 16;
const SQUARE: usize = 4;
/// How much larger than latents the pictures are.
const LARGER: u32 = 4;
/// Keeps the fit from dividing by nothing.
const RIDGE: f64 = 1e-3;

/// A look at pictures while they are sampled: what it is given makes them, so that nothing is done
/// where nobody looks. See [`super::Pipeline::make_each_seen`].
pub type Sight<'s> = dyn FnMut(&mut Look<'_>) + 's;

/// Makes the rough pictures of all that are being sampled, in their order.
pub type Look<'l> = dyn FnMut() -> Result<Vec<Picture>> + 'l;

/// Colours of latents: for each channel, and then for none of them, red, green and blue.
pub(super) struct Rough(Vec<[f64; 3]>);

impl Rough {
    /// Fits the map by least squares to what the decoder makes of random squares.
    pub fn fitted(gpu: &Device, vae: &LoadedNetwork<VaeConfig>) -> Result<Rough> {
        let channels = vae.config.latent_channels;
        let squares = SIDE / SQUARE;
        let drawn = NoiseSource::new(RngKind::Torch, 0).normal(squares * squares * channels);
        let value = |y: usize, x: usize, c: usize| {
            drawn.get((y / SQUARE * squares + x / SQUARE) * channels + c).copied().unwrap_or(0.0)
        };
        let cells = || (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x)));
        let latents: Vec<f32> =
            cells().flat_map(|(y, x)| (0..channels).map(move |c| value(y, x, c))).collect();
        let mut decoder = Decoder::plan(gpu, vae, [SIDE, SIDE], None)?;
        let decoded = decoder.decode(vae, &latents, &mut |_| Ok(()))?;
        let colours = decoded.resized(SIDE as u32, SIDE as u32)?;
        // Sums of the normal equations.
        let count = channels + 1;
        let mut matrix = vec![vec![0.0; count]; count];
        let mut right = vec![[0.0; 3]; count];
        for (latent, rgb) in latents.chunks_exact(channels).zip(colours.rgb().chunks_exact(3)) {
            let row: Vec<f64> = latent.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
            for (i, a) in row.iter().enumerate() {
                row.iter().zip(&mut matrix[i]).for_each(|(b, sum)| *sum += a * b);
                rgb.iter().zip(&mut right[i]).for_each(|(v, sum)| *sum += a * f64::from(*v));
            }
        }
        (0..count).for_each(|i| matrix[i][i] += RIDGE);
        Ok(Rough(solved(matrix, right)))
    }

    /// The rough picture of latents `[height, width, channels]`.
    fn picture(&self, latents: &[f32], [height, width]: [usize; 2]) -> Result<Picture> {
        let Some((constant, factors)) = self.0.split_last() else {
            return Ok(Picture::filled(width as u32, height as u32, [128; 3])?);
        };
        let colour = |latent: &[f32]| {
            let mut sums = *constant;
            for (value, factors) in latent.iter().zip(factors) {
                factors.iter().zip(&mut sums).for_each(|(f, sum)| *sum += f * f64::from(*value));
            }
            sums.map(|sum| sum.round().clamp(0.0, 255.0) as u8)
        };
        let rgb = latents.chunks_exact(factors.len().max(1)).flat_map(colour).collect();
        let (width, height) = (width as u32, height as u32);
        Ok(Picture::new(width, height, rgb)?.resized(width * LARGER, height * LARGER)?)
    }

    /// Of a batch's latents at a level of noise. What is to be expected of them is seen: at the
    /// beginning next to nothing.
    pub fn pictures(
        &self,
        state: &[f32],
        [batch, height, width, channels]: [usize; 4],
        [signal, noise]: [f32; 2],
    ) -> Result<Vec<Picture>> {
        let expected = signal / (signal * signal + noise * noise).max(f32::MIN_POSITIVE);
        let seen: Vec<f32> = state.iter().map(|v| v * expected).collect();
        let each = (height * width * channels).max(1);
        seen.chunks_exact(each).take(batch).map(|one| self.picture(one, [height, width])).collect()
    }
}

/// Solves equations whose matrix is symmetric and positive, by elimination.
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<[f64; 3]>) -> Vec<[f64; 3]> {
    let count = right.len();
    for i in 0..count {
        let (pivots, pivot_right) = (matrix[i].clone(), right[i]);
        for j in (0..count).filter(|j| *j != i) {
            let factor = matrix[j][i] / pivots[i];
            pivots.iter().zip(&mut matrix[j]).for_each(|(p, v)| *v -= factor * p);
            pivot_right.iter().zip(&mut right[j]).for_each(|(p, v)| *v -= factor * p);
        }
    }
    (0..count).map(|i| right[i].map(|value| value / matrix[i][i])).collect()
}

/// Rough pictures of latents at a level of signal and noise.
type Rougher<'r> = dyn Fn(&[f32], [f32; 2]) -> Result<Vec<Picture>> + 'r;

/// Another companion, and a look after each step.
pub(super) struct Seen<'a, 's, C> {
    pub inner: &'a mut C,
    pub sight: &'a mut Sight<'s>,
    /// Makes rough pictures of the latents of all, at a level of signal and noise.
    pub look: &'a Rougher<'a>,
}

impl<C: Companion> Companion for Seen<'_, '_, C> {
    fn enter(&mut self, phase: &Phase) -> sd::Result<()> {
        self.inner.enter(phase)
    }

    fn set_prompt(&mut self, shape: &StepShape, contexts: &[graph::Array]) -> sd::Result<()> {
        self.inner.set_prompt(shape, contexts)
    }

    fn before(&mut self, program: &Ready<StepInputs>, at: &At) -> sd::Result<()> {
        self.inner.before(program, at)
    }

    fn after(&mut self, program: &Ready<StepInputs>, at: &At) -> sd::Result<()> {
        self.inner.after(program, at)?;
        let level = [at.step.after.signal, at.step.after.noise];
        (self.sight)(&mut || {
            let state = program.state(program.inputs.state).map_err(sd::Error::from)?;
            (self.look)(state.values(), level)
        });
        Ok(())
    }
}
