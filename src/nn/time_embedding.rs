//! The timestep as a vector.

use super::Layers;
use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};

/// Sinusoidal features of `timesteps`, `[timesteps, channels]` row-major: the input of
/// [`Layers::time_embedding`]. Frequencies fall from 1 to about 1/10000 (Ho et al. 2020, after
/// Vaswani et al. 2017), the last of them set by `frequency_shift`; `cosine_first` puts the cosines
/// before the sines. An odd last channel is 0.
pub fn sinusoids(
    timesteps: &[f32],
    channels: usize,
    cosine_first: bool,
    frequency_shift: f32,
) -> Vec<f32> {
    let half = channels / 2;
    let mut features = Vec::with_capacity(timesteps.len() * channels);
    for &t in timesteps {
        // In f32 step by step, so that large angles are rounded as the models saw them in training.
        let angle = |i: usize| {
            t * (-(10000f64.ln() as f32) * i as f32 / (half as f32 - frequency_shift)).exp()
        };
        let sines = (0..half).map(|i| angle(i).sin());
        let cosines = (0..half).map(|i| angle(i).cos());
        if cosine_first {
            features.extend(cosines.chain(sines));
        } else {
            features.extend(sines.chain(cosines));
        }
        features.resize(features.len() + channels % 2, 0.0);
    }
    features
}

impl Layers<'_> {
    /// Two linear layers over the sinusoids `[batch, in]`: `[batch, out]`. `condition`
    /// `[batch, any]` is what distilled models are told besides (the guidance they stand in for); a
    /// linear layer adds it to the sinusoids.
    pub fn time_embedding(
        &mut self,
        name: &str,
        sinusoids: Tensor,
        condition: Option<Tensor>,
        out: usize,
        activation: Function,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let mut h = sinusoids;
            if let Some(condition) = condition {
                let projected =
                    layers.linear_no_bias("cond_proj", condition, layers.channels(sinusoids))?;
                h = layers.graph.add(h, projected)?;
            }
            h = layers.linear("linear_1", h, out)?;
            h = layers.graph.activation(h, activation)?;
            layers.linear("linear_2", h, out)
        })
    }
}
