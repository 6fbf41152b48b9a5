//! From a picture to latents.

use crate::backend::Device;
use crate::graph::{Array, Tensor};
use crate::models::config::VaeConfig;
use crate::models::vae;
use crate::nn::Layers;
use crate::picture::Picture;

use super::error::Result;
use super::tiles::{self, MOST_BYTES, Map};
use crate::sd;
use crate::sd::network::{LoadedNetwork, PlannedGraph};
use crate::sd::noise::Noise;
use crate::watch::Parts;

/// The encoder for a picture of one size.
pub(super) struct Encoder {
    /// All of it, for its weights.
    whole: PlannedGraph<Tensor>,
    /// Its second half, where the first runs in tiles, and the largest part of the picture that a
    /// tile may be.
    end: Option<(PlannedGraph<Tensor>, f64)>,
}

impl Encoder {
    /// For a picture whose latents have `size` (height, width): in tiles of `tile` x `tile` pixels
    /// or less, or as a whole if that fits, or in the largest tiles that do.
    pub fn plan(
        gpu: &Device,
        network: &LoadedNetwork<VaeConfig>,
        size: [usize; 2],
        tile: Option<usize>,
    ) -> Result<Encoder> {
        let whole = network.plan(|config, graph| {
            let factor = config.downscale();
            let pixels =
                graph.input("x", [1, size[0] * factor, size[1] * factor, config.in_channels]);
            let moments = vae::encode(&mut Layers::new(graph), config, pixels)?;
            Ok((pixels, vec![moments.mean, moments.log_variance]))
        })?;
        let share = tiles::share(&network.config, size, tile)?;
        if share >= 1.0 && whole.fits() && whole.bytes() <= MOST_BYTES {
            return Ok(Encoder { whole, end: None });
        }
        let end = network.plan(|config, graph| {
            let channels = config.block_out_channels.last().copied().unwrap_or(0);
            let features = graph.input("x", [1, size[0], size[1], channels]);
            let moments = vae::encode_end(&mut Layers::new(graph), config, features)?;
            Ok((features, vec![moments.mean, moments.log_variance]))
        })?;
        end.check(gpu, "encoding the initial picture", || "use a smaller one".into())?;
        Ok(Encoder { whole, end: Some((end, share)) })
    }

    /// Device bytes besides weights.
    pub fn bytes(&self) -> u64 {
        match &self.end {
            None => self.whole.bytes(),
            Some((end, _)) => end.bytes().max(MOST_BYTES.min(self.whole.bytes())),
        }
    }

    pub fn weight_bytes(&self, network: &LoadedNetwork<VaeConfig>) -> sd::Result<u64> {
        network.weight_bytes(&self.whole)
    }

    /// Encodes a picture of the planned size.
    pub fn encode(
        &self,
        network: &LoadedNetwork<VaeConfig>,
        picture: &Picture,
        progress: &mut Parts,
    ) -> Result<Posterior> {
        let (height, width) = (picture.height() as usize, picture.width() as usize);
        self.encode_pixels(network, [height, width], picture.to_model(), progress)
    }

    /// Encodes pixels in -1..=1, `[height, width, 3]` of the planned size.
    pub fn encode_pixels(
        &self,
        network: &LoadedNetwork<VaeConfig>,
        [height, width]: [usize; 2],
        values: Vec<f32>,
        progress: &mut Parts,
    ) -> Result<Posterior> {
        progress(0, 1)?;
        let pixels = Map { height, width, channels: 3, values };
        let (planned, x) = match &self.end {
            None => (&self.whole, pixels),
            Some((end, share)) => {
                let pieces = vae::encoder_pieces(&network.config);
                (
                    end,
                    tiles::run(network, &pieces, pixels, *share, &mut |done| {
                        progress(done, pieces.len() + 1)
                    })?,
                )
            }
        };
        let program = network.program(planned)?;
        program.write(program.inputs, &Array::f32([1, x.height, x.width, x.channels], x.values))?;
        program.run();
        let (mean, log_variance) = (program.output(0)?, program.output(1)?);
        if mean.values().iter().chain(log_variance.values()).any(|v| !v.is_finite()) {
            return Err(sd::Error::NotFinite { stage: "encode" }.into());
        }
        // Limits as in diffusers' DiagonalGaussianDistribution.
        let deviation =
            log_variance.values().iter().map(|v| (0.5 * v.clamp(-30.0, 20.0)).exp()).collect();
        Ok(Posterior { mean: mean.values().to_vec(), deviation })
    }
}

/// The distribution of a picture's latents.
pub(super) struct Posterior {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Posterior {
    /// The mean, scaled as a UNet sees latents: `[height, width, channels]`.
    pub fn mean(&self, config: &VaeConfig) -> Vec<f32> {
        let shift = config.shift_factor.unwrap_or(0.0);
        self.mean.iter().map(|v| (v - shift) * config.scaling_factor).collect()
    }

    /// The standard deviation, on the same scale.
    pub fn deviation(&self, config: &VaeConfig) -> Vec<f32> {
        self.deviation.iter().map(|v| v * config.scaling_factor).collect()
    }

    /// One sample for every picture of the batch, scaled as a UNet sees latents:
    /// `[batch, height, width, channels]`.
    pub fn sample(&self, config: &VaeConfig, noise: &mut Noise) -> Vec<f32> {
        let shift = config.shift_factor.unwrap_or(0.0);
        let moments = self.mean.iter().zip(&self.deviation).cycle();
        let scaled = |(gaussian, (mean, deviation)): (f32, (&f32, &f32))| {
            (mean + deviation * gaussian - shift) * config.scaling_factor
        };
        noise.draw().into_iter().zip(moments).map(scaled).collect()
    }
}
