//! From a picture to latents.

use crate::graph::Array;
use crate::models::config::VaeConfig;
use crate::models::vae;
use crate::nn::Layers;
use crate::picture::Picture;

use super::error::{Error, Result};
use super::network::{Network, Planned};
use super::noise::Noise;

/// Plans the encoder for a picture whose latents have `size` (height, width).
pub(super) fn plan(network: &Network<VaeConfig>, size: [usize; 2]) -> Result<Planned> {
    network.plan(|config, graph| {
        let factor = config.downscale();
        let pixels = graph.input("pixels", [1, size[0] * factor, size[1] * factor, config.in_channels]);
        let moments = vae::encode(&mut Layers::new(graph), config, pixels)?;
        Ok(vec![moments.mean, moments.log_variance])
    })
}

/// The distribution of a picture's latents.
pub(super) struct Posterior {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// Runs the encoder on `picture`, which has the size that `planned` is for.
pub(super) fn encode(network: &Network<VaeConfig>, planned: &Planned, picture: &Picture) -> Result<Posterior> {
    let program = network.program(planned)?;
    let shape = [1, picture.height() as usize, picture.width() as usize, 3];
    program.write("pixels", &Array::f32(shape, picture.to_model()))?;
    program.run();
    let (mean, log_variance) = (program.output(0)?, program.output(1)?);
    if mean.values().iter().chain(log_variance.values()).any(|v| !v.is_finite()) {
        return Err(Error::NotFinite { stage: "encode" });
    }
    // Limits as in diffusers' DiagonalGaussianDistribution.
    let deviation = log_variance.values().iter().map(|v| (0.5 * v.clamp(-30.0, 20.0)).exp()).collect();
    Ok(Posterior { mean: mean.values().to_vec(), deviation })
}

impl Posterior {
    /// One sample for every picture of the batch, scaled as a UNet sees latents: `[batch, height, width, channels]`.
    pub fn sample(&self, config: &VaeConfig, noise: &mut Noise) -> Vec<f32> {
        let shift = config.shift_factor.unwrap_or(0.0);
        let moments = self.mean.iter().zip(&self.deviation).cycle();
        let scaled =
            |(gaussian, (mean, deviation)): (f32, (&f32, &f32))| (mean + deviation * gaussian - shift) * config.scaling_factor;
        noise.draw().into_iter().zip(moments).map(scaled).collect()
    }
}
