//! From latents to pictures, as a whole or in bands.

use crate::gpu::Gpu;
use crate::graph::{Array, Program};
use crate::models::config::VaeConfig;
use crate::models::vae;
use crate::nn::Layers;
use crate::picture::Picture;

use super::bands::{self, Band, Map};
use super::error::{Error, Result, option};
use super::network::{Network, Planned};

/// A picture that takes more bytes of activations than this is decoded in bands.
const MOST_BYTES: u64 = 2 << 30;

/// The least rows of a band: below, its neighbours would compute most of it again.
const LEAST_ROWS: usize = 4;

/// Plans the decoder for one picture's latents of `size` (height, width).
pub(super) fn plan(network: &Network<VaeConfig>, size: [usize; 2]) -> Result<Planned> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok(vec![vae::decode(&mut Layers::new(graph), config, latents)?])
    })
}

/// The part of the decoder that sees the picture as a whole.
fn plan_start(network: &Network<VaeConfig>, size: [usize; 2]) -> Result<Planned> {
    network.plan(|config, graph| {
        let latents = graph.input("latents", [1, size[0], size[1], config.latent_channels]);
        Ok(vec![vae::decode_start(&mut Layers::new(graph), config, latents)?.0])
    })
}

/// The decoder for latents of one size.
pub(super) struct Decoder {
    size: [usize; 2],
    /// As asked for.
    tile: Option<usize>,
    kind: Kind,
    /// All of it, for its weights.
    whole: Planned,
}

enum Kind {
    Whole(Option<Program>),
    /// With the most pixels of a band, where somebody set it.
    Bands(Planned, Option<usize>),
}

impl Decoder {
    /// For latents of `size`; in bands of `tile` x `tile` pixels or less, or as a whole if that fits, or in the largest bands
    /// that do.
    pub fn plan(gpu: &Gpu, network: &Network<VaeConfig>, size: [usize; 2], tile: Option<usize>) -> Result<Decoder> {
        let factor = network.config.downscale();
        let whole = plan(network, size)?;
        if tile == Some(0) {
            return Err(option("tile", 0, "a number of pixels"));
        }
        let asked = tile.map(|side| side.saturating_mul(side)).filter(|&pixels| pixels < size[0] * size[1] * factor * factor);
        let kind = if asked.is_none() && whole.fits() && whole.bytes() <= MOST_BYTES {
            Kind::Whole(None)
        } else {
            let start = plan_start(network, size)?;
            start.check(gpu, "decoding", || "use a smaller picture".into())?;
            Kind::Bands(start, asked)
        };
        Ok(Decoder { size, tile, kind, whole })
    }

    pub fn is_for(&self, size: [usize; 2], tile: Option<usize>) -> bool {
        (self.size, self.tile) == (size, tile)
    }

    /// Device bytes besides weights.
    pub fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Whole(_) => self.whole.bytes(),
            Kind::Bands(start, _) => start.bytes().max(MOST_BYTES.min(self.whole.bytes())),
        }
    }

    pub fn weight_bytes(&self, network: &Network<VaeConfig>) -> Result<u64> {
        network.weight_bytes(&self.whole)
    }

    /// Steps that one picture takes.
    pub fn parts(&self, network: &Network<VaeConfig>) -> usize {
        match &self.kind {
            Kind::Whole(_) => 1,
            Kind::Bands(..) => 1 + vae::decoder_pieces(&network.config).len(),
        }
    }

    /// Decodes one picture's latents; `progress` is told how many parts are done.
    pub fn decode(&mut self, network: &Network<VaeConfig>, latents: &[f32], progress: &mut dyn FnMut(usize)) -> Result<Picture> {
        let (config, [height, width]) = (&network.config, self.size);
        let shift = config.shift_factor.unwrap_or(0.0);
        let unscaled = latents.iter().map(|v| v / config.scaling_factor + shift).collect();
        let latents = Array::f32([1, height, width, config.latent_channels], unscaled);
        let factor = config.downscale();
        progress(0);
        let values = match &mut self.kind {
            Kind::Whole(program) => {
                let ready = match program.take() {
                    Some(ready) => ready,
                    None => network.program(&self.whole)?,
                };
                let values = run(&ready, &latents)?;
                *program = Some(ready);
                values
            }
            Kind::Bands(start, pixels) => in_bands(network, start, &latents, *pixels, progress)?,
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "decode" });
        }
        Ok(Picture::from_model(&values, (width * factor) as u32, (height * factor) as u32)?)
    }
}

fn run(program: &Program, latents: &Array) -> Result<Vec<f32>> {
    program.write("latents", latents)?;
    program.run();
    Ok(program.output(0)?.values().to_vec())
}

/// The start as a whole, then piece by piece in bands of at most `pixels` pixels of the picture.
fn in_bands(
    network: &Network<VaeConfig>,
    start: &Planned,
    latents: &Array,
    pixels: Option<usize>,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let [_, height, width, _] = latents.shape.image().unwrap_or_default();
    let values = run(&network.program(start)?, latents)?;
    let channels = values.len() / (height * width).max(1);
    let (mut x, mut input) = (Map { height, width, channels, values }, None);
    // Pixels of the picture behind each pixel of the map.
    let mut behind = network.config.downscale() * network.config.downscale();
    for (done, piece) in vae::decoder_pieces(&network.config).into_iter().enumerate() {
        progress(done + 1);
        let rows = |whole: Band| rows_of(network, piece, whole, pixels.map(|pixels| pixels / behind));
        let next = bands::run(network, piece, &x, input.as_ref(), rows)?;
        input = matches!(piece, vae::DecoderPiece::ResnetStart { .. }).then_some(x);
        x = next;
        behind /= piece.scale() * piece.scale();
    }
    Ok(x.values)
}

/// How many rows a band of `piece` may have, `most` pixels at most if that is given.
fn rows_of(network: &Network<VaeConfig>, piece: vae::DecoderPiece, whole: Band, most: Option<usize>) -> Result<usize> {
    let fits = |rows: usize| -> Result<bool> {
        let planned = bands::plan(network, piece, Band { rows, ..whole })?;
        Ok(planned.fits() && planned.bytes() <= MOST_BYTES)
    };
    let mut rows = most.map_or(whole.rows, |pixels| pixels / whole.width);
    rows = rows.clamp(LEAST_ROWS.min(whole.rows), whole.rows);
    while rows > LEAST_ROWS && !fits(rows)? {
        rows = (rows / 2).max(LEAST_ROWS);
    }
    Ok(rows)
}
