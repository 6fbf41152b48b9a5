//! Steps that the host takes: guidance that acts in a part of them or is brought back to the
//! contrast of the prompt's own prediction, and the sampler's update. Latents are small beside what
//! a UNet computes, so their way to the host and back costs next to nothing.

use crate::scheduler::sampler::{self, SLOTS, SamplingStep};

use super::error::Result;

/// How guidance acts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Guided {
    /// How far its result is brought back to the deviation of the prompt's own prediction, 0 to 1
    /// (Lin et al. 2024, equations 15 and 16).
    pub rescale: f32,
    /// For each call of the model, whether it acts; after the last, and where there is none: it
    /// does.
    pub calls: Vec<bool>,
}

impl Guided {
    /// What a call is taken for that predicts `[halves, batch, ..]`.
    pub fn apply(
        &self,
        prediction: &[f32],
        scale: Option<f32>,
        batch: usize,
        call: usize,
    ) -> Vec<f32> {
        let Some(scale) = scale else { return prediction.to_vec() };
        let (unconditional, own) = prediction.split_at(prediction.len() / 2);
        if !self.calls.get(call).copied().unwrap_or(true) {
            return own.to_vec();
        }
        let pairs = unconditional.iter().zip(own);
        let mut guided: Vec<f32> = pairs.map(|(u, c)| u + scale * (c - u)).collect();
        if self.rescale > 0.0 {
            let each = (guided.len() / batch.max(1)).max(1);
            for (guided, own) in guided.chunks_exact_mut(each).zip(own.chunks_exact(each)) {
                let ratio = deviation(own) / deviation(guided);
                if ratio.is_finite() {
                    let rescale = f64::from(self.rescale);
                    let factor = (rescale * ratio + 1.0 - rescale) as f32;
                    guided.iter_mut().for_each(|value| *value *= factor);
                }
            }
        }
        guided
    }
}

/// What stays as it was outside a mask.
pub(crate) struct Kept {
    /// `[height, width]` of the latents, 1 where painted anew.
    pub mask: Vec<f32>,
    /// `[batch, height, width, channels]`
    pub original: Vec<f32>,
    pub gaussian: Vec<f32>,
}

fn deviation(values: &[f32]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// The sampler's state.
pub(super) struct HostState {
    slots: [Vec<f32>; SLOTS],
}

impl HostState {
    /// At the start, with a memory where the sampler has one.
    pub fn new(latents: &[f32], remembers: bool) -> HostState {
        let memory = if remembers { latents.len() } else { 0 };
        let slot = |i: usize| if i == 0 { latents.to_vec() } else { vec![0.0; memory] };
        HostState { slots: std::array::from_fn(slot) }
    }

    pub fn sample(&self) -> &[f32] {
        &self.slots[0]
    }

    pub fn sample_mut(&mut self) -> &mut [f32] {
        &mut self.slots[0]
    }

    pub fn into_sample(self) -> Vec<f32> {
        let [sample, ..] = self.slots;
        sample
    }

    /// The sampler's update, and outside of a mask what is kept.
    pub fn step(
        &mut self,
        step: &SamplingStep,
        output: &[f32],
        noise: &[f32],
        kept: Option<&Kept>,
        [_, height, width, channels]: [usize; 4],
    ) -> Result<()> {
        sampler::apply(step, &mut self.slots, output, noise)?;
        let Some(kept) = kept else { return Ok(()) };
        let noised = step.after.apply(&kept.original, &kept.gaussian);
        let cells = height * width;
        for (i, (value, noised)) in self.slots[0].iter_mut().zip(noised).enumerate() {
            let inside = kept.mask.get(i / channels.max(1) % cells.max(1)).copied().unwrap_or(1.0);
            *value = inside * *value + (1.0 - inside) * noised;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// diffusers' `rescale_noise_cfg`, by hand: deviations of 1 and 3 around means of 0.
    #[test]
    fn guidance_comes_back_to_the_prompts_own_contrast() {
        let prediction = [0.0, 0.0, 2.0, -2.0, 1.0, -1.0, 4.0, -4.0];
        let guided = Guided { rescale: 0.5, calls: vec![true, false] };
        // Two pictures: 3 (1, -1), and 2 + 3 (4 - 2).
        let found = guided.apply(&prediction, Some(3.0), 2, 0);
        let expected = [0.5 * 1.0 + 0.5 * 3.0, -2.0, 0.5 * 4.0 + 0.5 * 8.0, -6.0];
        found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 1e-6, "{found:?}"));
        assert_eq!(guided.apply(&prediction, Some(3.0), 2, 1), prediction[4..]);
        assert_eq!(guided.apply(&prediction, None, 2, 0), prediction);
        let plain = Guided::default().apply(&prediction, Some(3.0), 2, 7);
        assert_eq!(plain, [3.0, -3.0, 8.0, -8.0]);
        // Nothing to bring back to.
        let flat = Guided { rescale: 1.0, calls: Vec::new() };
        assert_eq!(flat.apply(&[1.0; 4], Some(3.0), 1, 0), [1.0, 1.0]);
    }
}
