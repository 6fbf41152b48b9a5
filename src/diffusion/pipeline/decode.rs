//! From latents to pictures.

use crate::gpu::Gpu;
use crate::graph::{Array, Program};
use crate::models::config::VaeConfig;
use crate::models::vae;
use crate::nn::Layers;
use crate::picture::Picture;

use super::error::{Error, Result};
use super::network::{Network, Planned};

/// Plans the decoder for one picture's latents of `size` (height, width).
pub(super) fn plan(network: &Network<VaeConfig>, size: [usize; 2]) -> Result<Planned> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok(vec![vae::decode(&mut Layers::new(graph), config, latents)?])
    })
}

/// The decoder for latents of one size.
pub(super) struct Decoder {
    size: [usize; 2],
    tile: Option<usize>,
    planned: Planned,
    program: Option<Program>,
}

impl Decoder {
    pub fn plan(gpu: &Gpu, network: &Network<VaeConfig>, size: [usize; 2], tile: Option<usize>) -> Result<Decoder> {
        let planned = plan(network, size)?;
        planned.check(gpu, "decoding", || "use a smaller picture".into())?;
        Ok(Decoder { size, tile, planned, program: None })
    }

    pub fn is_for(&self, size: [usize; 2], tile: Option<usize>) -> bool {
        (self.size, self.tile) == (size, tile)
    }

    pub fn bytes(&self) -> u64 {
        self.planned.bytes()
    }

    pub fn weight_bytes(&self, network: &Network<VaeConfig>) -> Result<u64> {
        network.weight_bytes(&self.planned)
    }

    /// Runs that one picture takes.
    pub fn parts(&self) -> usize {
        1
    }

    /// Decodes one picture's latents.
    pub fn decode(&mut self, network: &Network<VaeConfig>, latents: &[f32], progress: &mut dyn FnMut(usize)) -> Result<Picture> {
        progress(0);
        let (config, [height, width]) = (&network.config, self.size);
        let program = match self.program.take() {
            Some(program) => program,
            None => network.program(&self.planned)?,
        };
        program.write("latents", &Array::f32([1, height, width, config.latent_channels], unscaled(config, latents)))?;
        program.run();
        let output = program.output(0)?;
        self.program = Some(program);
        let factor = config.downscale();
        picture(output.values(), [height * factor, width * factor])
    }
}

/// Latents as the decoder wants them.
fn unscaled(config: &VaeConfig, latents: &[f32]) -> Vec<f32> {
    let shift = config.shift_factor.unwrap_or(0.0);
    latents.iter().map(|v| v / config.scaling_factor + shift).collect()
}

fn picture(values: &[f32], [height, width]: [usize; 2]) -> Result<Picture> {
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite { stage: "decode" });
    }
    Ok(Picture::from_model(values, width as u32, height as u32)?)
}
