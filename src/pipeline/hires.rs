//! A second pass over a larger picture, as web UIs do: the first one's latents are enlarged, in
//! themselves or as pictures, noise is laid over them, and sampling goes on from there.

use std::sync::Arc;

use crate::backend::Precision;
use crate::checkpoint::Component;
use crate::graph::{Array, Tensor};
use crate::models::rrdbnet::{self, RrdbNetConfig};
use crate::nn::Layers;
use crate::picture::Picture;
use crate::sd;
use crate::sd::network::{LoadedNetwork, PlannedGraph};
use crate::sd::source::ComponentSource;

use super::error::{Error, Result, option};
use super::upscaler::{Hires, Upscaler};
use super::{Pipeline, Place, Request};
use crate::watch::Parts;

/// Pixels along a side of what the network reads at once, and by how many neighbours overlap. It
/// sees further than that, but little of it.
const TILE: u32 = 192;
const OVERLAP: u32 = 16;

/// An upscaler on the device.
struct Network {
    network: LoadedNetwork<RrdbNetConfig>,
    /// For tiles of one size, which is the last one's.
    planned: Option<([usize; 2], PlannedGraph<Tensor>)>,
}

impl Network {
    fn new(pipeline: &Pipeline, component: &Component) -> Result<Network> {
        let shape = |name: &str| component.shape(name).map(<[usize]>::to_vec);
        let config = RrdbNetConfig::of(&shape).map_err(|problem| {
            option(
                "upscaler",
                component.path().display(),
                format!("a network of ESRGAN's kind: {problem}"),
            )
        })?;
        let source = Arc::new(ComponentSource(component.clone()));
        let network = LoadedNetwork::from_source(
            &pipeline.gpu,
            component,
            source,
            config,
            Precision::AsStored,
        );
        Ok(Network { network, planned: None })
    }

    /// The whole picture, tile by tile.
    fn enlarge(&mut self, picture: &Picture, progress: &mut Parts) -> Result<Picture> {
        let config = self.network.config;
        let (scale, side) = (config.scale() as u32, config.side() as u32);
        let (width, height) = (picture.width(), picture.height());
        let starts = |length: u32| -> Vec<u32> {
            let step = TILE - 2 * OVERLAP;
            let count = length.saturating_sub(2 * OVERLAP).div_ceil(step).max(1);
            (0..count).map(|i| (i * step).min(length.saturating_sub(TILE))).collect()
        };
        let (rows, columns) = (starts(height), starts(width));
        let mut rgb = vec![0u8; (width * scale * height * scale * 3) as usize];
        let of = rows.len() * columns.len();
        for (done, (y, x)) in
            rows.iter().flat_map(|y| columns.iter().map(move |x| (*y, *x))).enumerate()
        {
            progress(done, of)?;
            let tile = picture.part(x, y, TILE.min(width - x), TILE.min(height - y))?;
            let large = self.tile(&tile, side)?;
            // Of what two tiles have, each gives the half that is further from its edge.
            let inner = |from: u32, length: u32, all: u32| {
                let first = if from == 0 { 0 } else { OVERLAP };
                let last = if from + length == all { length } else { length - OVERLAP };
                (first * scale, last * scale)
            };
            let (top, bottom) = inner(y, tile.height(), height);
            let (left, right) = inner(x, tile.width(), width);
            for row in top..bottom {
                let from = ((row * large.width() + left) * 3) as usize;
                let to = (((y * scale + row) * width * scale + x * scale + left) * 3) as usize;
                let count = ((right - left) * 3) as usize;
                if let (Some(into), Some(read)) =
                    (rgb.get_mut(to..to + count), large.rgb().get(from..from + count))
                {
                    into.copy_from_slice(read);
                }
            }
        }
        Ok(Picture::new(width * scale, height * scale, rgb)?)
    }

    fn tile(&mut self, tile: &Picture, side: u32) -> Result<Picture> {
        let config = self.network.config;
        // Its pixels are `side` x `side` of the picture's.
        let pad = |length: u32| length.next_multiple_of(side);
        let (width, height) = (pad(tile.width()), pad(tile.height()));
        let whole = [(height / side) as usize, (width / side) as usize];
        if self.planned.as_ref().is_none_or(|(size, _)| *size != whole) {
            let planned = self.network.plan(|config, graph| {
                let pixels = graph.input("pixels", [1, whole[0], whole[1], config.in_channels]);
                Ok((pixels, vec![rrdbnet::upscale(&mut Layers::new(graph), config, pixels)?]))
            })?;
            self.planned = Some((whole, planned));
        }
        let Some((_, planned)) = &self.planned else {
            return Err(sd::Error::NotFinite { stage: "enlarge" }.into());
        };
        let program = self.network.program(planned)?;
        let mut values = Vec::with_capacity(whole[0] * whole[1] * config.in_channels);
        let at = |x: u32, y: u32, channel: usize| {
            let pixel = tile.pixel(x.min(tile.width() - 1), y.min(tile.height() - 1));
            f32::from(pixel.map_or(0, |pixel| pixel[channel])) / 255.0
        };
        for y in 0..whole[0] as u32 {
            for x in 0..whole[1] as u32 {
                for channel in 0..3 {
                    for inner in 0..side * side {
                        values.push(at(x * side + inner % side, y * side + inner / side, channel));
                    }
                }
            }
        }
        program.write(
            program.inputs,
            &Array::f32([1, whole[0], whole[1], config.in_channels], values),
        )?;
        program.run();
        let output = program.output(0)?;
        let of_model: Vec<f32> = output.values().iter().map(|v| 2.0 * v - 1.0).collect();
        let scale = config.scale() as u32;
        let large = Picture::from_model(&of_model, width * scale, height * scale)?;
        Ok(large.part(0, 0, tile.width() * scale, tile.height() * scale)?)
    }
}

impl Pipeline {
    /// What the second pass is asked for.
    ///
    /// # Errors
    /// A pass that is none, or beside an initial picture.
    pub(super) fn second_request(&self, request: &Request) -> Result<Option<Request>> {
        let Some(hires) = &request.hires else { return Ok(None) };
        if !(hires.scale > 1.0 && hires.scale <= 16.0) {
            return Err(option("hires", hires.scale, "a factor above 1, 16 at most"));
        }
        if !(hires.strength > 0.0 && hires.strength <= 1.0) {
            return Err(option("hires strength", hires.strength, "above 0, 1 at most"));
        }
        if request.image.is_some() || request.from_latents.is_some() {
            return Err(option("hires", "asked for beside an initial picture", "one of them"));
        }
        if let Upscaler::Network(component) = &hires.upscaler {
            Network::new(self, component)?;
        }
        let (default_width, default_height) = self.default_size();
        let factor = self.factor() as f64;
        let larger =
            |side: usize| ((side as f64 * hires.scale / factor).round().max(1.0) * factor) as usize;
        let width = larger(request.width.unwrap_or(default_width));
        let height = larger(request.height.unwrap_or(default_height));
        let size = self.latent_size(width, height)?;
        let shape = [request.batch, size[0], size[1], self.latent_channels()];
        let values = vec![0.0; shape.iter().product()];
        Ok(Some(Request {
            width: Some(width),
            height: Some(height),
            hires: None,
            latents: None,
            // Things are where the first pass has put them.
            place: Place::Free,
            strength: hires.strength,
            steps: hires.steps.unwrap_or(request.steps),
            // Until the first pass is done.
            from_latents: Some(Array::f32(shape, values)),
            ..request.clone()
        }))
    }

    /// The first pass's latents at the second one's size.
    pub(super) fn enlarged(
        &mut self,
        latents: &Array,
        hires: &Hires,
        size: [usize; 2],
        tile: Option<usize>,
        progress: &mut Parts,
    ) -> Result<Array> {
        let mut network = match &hires.upscaler {
            Upscaler::Latent(filter) => return Ok(filter.enlarge(latents, size)),
            Upscaler::Lanczos => None,
            Upscaler::Network(component) => Some(Network::new(self, component)?),
        };
        let factor = self.factor();
        let (width, height) = ((size[1] * factor) as u32, (size[0] * factor) as u32);
        let pictures = self.decode(latents, tile)?;
        let of = pictures.len();
        let mut values = Vec::new();
        for (done, picture) in pictures.into_iter().enumerate() {
            progress(done, of)?;
            let large = match &mut network {
                Some(network) => network.enlarge(&picture, &mut |part, parts| {
                    progress(done * parts + part, of * parts)
                })?,
                None => picture,
            };
            let fitted = large.resized(width, height)?;
            values.extend_from_slice(self.encode(&fitted, tile)?.values());
        }
        let channels = self.latent_channels();
        let shape = [of, size[0], size[1], channels];
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::from(sd::Error::NotFinite { stage: "enlarge" }));
        }
        Ok(Array::f32(shape, values))
    }
}
