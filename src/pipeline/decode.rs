//! From latents to pictures, as a whole or in tiles.

use crate::backend::Device;
use crate::graph::{Array, Tensor};
use crate::models::config::VaeConfig;
use crate::models::tiny_vae::{self, TinyVaeConfig};
use crate::models::vae;
use crate::nn::Layers;
use crate::picture::Picture;

use super::error::Result;
use super::tiles::{self, MOST_BYTES, Map};
use crate::sd;
use crate::sd::network::{LoadedNetwork, PlannedGraph, Ready};
use crate::watch::Cancelled;

/// What decodes.
#[derive(Clone, Copy)]
pub(super) struct Vaes<'a> {
    /// The model's own.
    pub full: &'a LoadedNetwork<VaeConfig>,
    /// The small one that stands in for it.
    pub tiny: Option<&'a LoadedNetwork<TinyVaeConfig>>,
}

/// Plans the small decoder in its place.
fn plan_tiny(
    network: &LoadedNetwork<TinyVaeConfig>,
    size: [usize; 2],
) -> sd::Result<PlannedGraph<Tensor>> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok((latents, vec![tiny_vae::decode(&mut Layers::new(graph), config, latents)?]))
    })
}

/// Plans the decoder for one picture's latents of `size` (height, width).
pub(super) fn plan(
    network: &LoadedNetwork<VaeConfig>,
    size: [usize; 2],
) -> sd::Result<PlannedGraph<Tensor>> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok((latents, vec![vae::decode(&mut Layers::new(graph), config, latents)?]))
    })
}

/// The part of the decoder that sees the picture as a whole.
fn plan_start(
    network: &LoadedNetwork<VaeConfig>,
    size: [usize; 2],
) -> sd::Result<PlannedGraph<Tensor>> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok((latents, vec![vae::decode_start(&mut Layers::new(graph), config, latents)?]))
    })
}

/// The decoder for latents of one size.
pub(super) struct Decoder {
    size: [usize; 2],
    /// As asked for.
    tile: Option<usize>,
    kind: Kind,
    /// By the small one.
    tiny: bool,
    /// All of it, for its weights.
    whole: PlannedGraph<Tensor>,
}

enum Kind {
    Whole(Option<Ready<Tensor>>),
    /// The start, the largest part of a picture that a tile may be, and the bytes of the largest
    /// tile.
    Tiles(Box<PlannedGraph<Tensor>>, f64, u64),
}

impl Decoder {
    /// For latents of `size`; in tiles of `tile` x `tile` pixels or less, or as a whole if that
    /// fits, or in the largest tiles that do.
    pub fn plan(
        gpu: &Device,
        vaes: Vaes<'_>,
        size: [usize; 2],
        tile: Option<usize>,
    ) -> Result<Decoder> {
        if let Some(tiny) = vaes.tiny {
            let whole = plan_tiny(tiny, size)?;
            whole.check(gpu, "decoding", || "use a smaller picture".into())?;
            return Ok(Decoder { size, tile, kind: Kind::Whole(None), tiny: true, whole });
        }
        let network = vaes.full;
        let whole = plan(network, size)?;
        let share = tiles::share(&network.config, size, tile)?;
        let kind = if share >= 1.0 && whole.fits() && whole.bytes() <= MOST_BYTES {
            Kind::Whole(None)
        } else {
            let start = plan_start(network, size)?;
            start.check(gpu, "decoding", || "use a smaller picture".into())?;
            let channels = network.config.block_out_channels.last().copied().unwrap_or(0);
            let bytes = tiles::bytes(
                network,
                &vae::decoder_pieces(&network.config),
                [size[0], size[1], channels],
                share,
            )?;
            Kind::Tiles(Box::new(start), share, bytes)
        };
        Ok(Decoder { size, tile, kind, tiny: false, whole })
    }

    /// Gives the device's memory back, if it is more than `most` bytes; the next picture takes it
    /// again.
    pub fn rest(&mut self, most: u64) {
        if self.bytes() > most
            && let Kind::Whole(program) = &mut self.kind
        {
            *program = None;
        }
    }

    /// Made for the same latents in the same way.
    pub fn is_like(&self, other: &Decoder) -> bool {
        (self.size, self.tile, self.tiny) == (other.size, other.tile, other.tiny)
    }

    /// Pixels along a side of a tile, where it decodes in tiles that were asked for.
    pub fn tile(&self) -> Option<usize> {
        self.tile.filter(|_| matches!(self.kind, Kind::Tiles(..)))
    }

    /// Device bytes besides weights.
    pub fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Whole(_) => self.whole.bytes(),
            Kind::Tiles(start, _, bytes) => start.bytes().max(*bytes),
        }
    }

    pub fn weight_bytes(&self, vaes: Vaes<'_>) -> sd::Result<u64> {
        match vaes.tiny.filter(|_| self.tiny) {
            Some(tiny) => tiny.weight_bytes(&self.whole),
            None => vaes.full.weight_bytes(&self.whole),
        }
    }

    /// Steps that one picture takes.
    pub fn parts(&self, vaes: Vaes<'_>) -> usize {
        match &self.kind {
            Kind::Whole(_) => 1,
            Kind::Tiles(..) => 1 + vae::decoder_pieces(&vaes.full.config).len(),
        }
    }

    /// Decodes one picture's latents; `progress` is told how many parts are done.
    pub fn decode(
        &mut self,
        vaes: Vaes<'_>,
        latents: &[f32],
        progress: &mut dyn FnMut(usize) -> Result<(), Cancelled>,
    ) -> Result<Picture> {
        let (network, tiny) = (vaes.full, vaes.tiny.filter(|_| self.tiny));
        let (config, [height, width]) = (&network.config, self.size);
        let shift = config.shift_factor.unwrap_or(0.0);
        let unscaled = latents.iter().map(|v| match tiny {
            // As the UNet has them.
            Some(_) => tiny_vae::squashed(*v),
            None => v / config.scaling_factor + shift,
        });
        let unscaled = unscaled.collect();
        let latents = Array::f32([1, height, width, config.latent_channels], unscaled);
        let factor = config.downscale();
        progress(0)?;
        let values = match &mut self.kind {
            Kind::Whole(program) => {
                let ready = match program.take() {
                    Some(ready) => ready,
                    None => match tiny {
                        Some(tiny) => tiny.program(&self.whole)?,
                        None => network.program(&self.whole)?,
                    },
                };
                let mut values = run(&ready, &latents)?;
                *program = Some(ready);
                if tiny.is_some() {
                    values.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
                }
                values
            }
            Kind::Tiles(start, share, _) => {
                let values = run(&network.program(start)?, &latents)?;
                let map =
                    Map { height, width, channels: values.len() / (height * width).max(1), values };
                let pieces = vae::decoder_pieces(config);
                tiles::run(network, &pieces, map, *share, &mut |done| progress(done + 1))?.values
            }
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(sd::Error::NotFinite { stage: "decode" }.into());
        }
        Ok(Picture::from_model(&values, (width * factor) as u32, (height * factor) as u32)?)
    }
}

fn run(program: &Ready<Tensor>, latents: &Array) -> Result<Vec<f32>> {
    program.write(program.inputs, latents)?;
    program.run();
    Ok(program.output(0)?.values().to_vec())
}
