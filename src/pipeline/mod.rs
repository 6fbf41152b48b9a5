//! From a checkpoint to pictures, on the device.
//!
//! A picture takes these stages: the prompts are tokenized and encoded (one run for both), the keys
//! and values that the UNet's cross-attentions make of them are computed once, an initial picture
//! is encoded where there is one, then every sampling step runs one program that holds both
//! guidance halves, the UNet, guidance and the sampler's update, and at the end the latents are
//! decoded, picture by picture, in tiles where a picture does not fit. Of a batch that does not fit
//! at once, each part is decoded before the next one is sampled, so that pictures are there as soon
//! as they can be. Nothing is read back in between.
//!
//! Equal to diffusers' `StableDiffusionPipeline` and `StableDiffusionXLPipeline`, their `Img2Img`
//! and `Inpaint` relatives with the same seed and settings.

mod acting;
mod adaptation;
mod budget;
mod checked;
mod controls;
mod decode;
mod encode;
mod enlarge;
mod error;
mod firm;
mod generate;
mod hires;
pub mod latents;
mod load;
mod plans;
mod preview;
pub mod recipe;
mod regions;
mod request;
mod sizes;
mod tiles;
mod upscaler;
mod wording;

use std::sync::Arc;

use crate::backend::Device;
use crate::checkpoint::Component;
use crate::graph::Array;
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::tiny_vae::TinyVaeConfig;
use crate::picture::Picture;
use crate::scheduler::sampler::SamplerKind;
use crate::sd::network::LoadedNetwork;
use crate::sd::sampling::Sampling;
use crate::text::Tokenizer;
use crate::watch::unwatched_parts;

pub use crate::sd::{
    ComponentSource, Compose, Error as ModelError, Model, Overlay, UnknownCompose,
};
pub use enlarge::LatentFilter;
pub use error::{Error, Result};
pub use plans::{PlannedShape, PreparedRequest};
pub use preview::Preview;
pub use request::{
    Control, Generated, MOST_PICTURES, MemoryPlan, Place, Request, StreamingCost, UnknownPlace,
};
pub use upscaler::{Hires, Upscaler};

/// Noise that people can reproduce: which generator, which seed, which picture of a batch.
pub mod random {
    pub use crate::random::*;
}

/// Prompts and their tokens: CLIP's tokenizer, weights, editing, prompts of any length.
pub mod text {
    pub use crate::text::*;
}

use decode::{Decoder, Vaes};
use encode::Encoder;
use error::option;
use preview::LatentColours;

/// Programs whose activations take less than this stay on the device for the next picture of their
/// size.
const KEEP_BYTES: u64 = 512 << 20;

/// A text-to-image model on a device: tokenizer, weights that all programs share, and the programs
/// made last.
pub struct Pipeline {
    gpu: Device,
    model: Model,
    unet: LoadedNetwork<UNetConfig>,
    vae: LoadedNetwork<VaeConfig>,
    /// In the order of [`Model::text_encoders`].
    texts: Vec<LoadedNetwork<ClipTextConfig>>,
    /// Decodes in its place.
    tiny_vae: Option<LoadedNetwork<TinyVaeConfig>>,
    /// Of latents, for previews; fitted when the first one is to be seen.
    colours: Option<LatentColours>,
    sampling: Option<Sampling>,
    decoder: Option<Decoder>,
}

impl Pipeline {
    /// Width and height in pixels that the model was trained at.
    pub fn default_size(&self) -> (usize, usize) {
        let [height, width] = self.model.latent_size();
        (width * self.factor(), height * self.factor())
    }

    /// Pixels per latent, along one side.
    pub fn factor(&self) -> usize {
        self.vae.config.downscale()
    }

    /// Channels of latents.
    pub fn latent_channels(&self) -> usize {
        self.vae.config.latent_channels
    }

    /// The model that it is made of.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model's, without words of concepts.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.text().tokenizer
    }

    /// The guidance that suits the model: what its folder says, else [`Request`]'s usual one.
    pub fn guidance(&self) -> f32 {
        self.model.guidance.unwrap_or(Request::default().guidance)
    }

    /// What was assumed of the model's files, in sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.model.notes
    }

    /// The sampler that the model's files name.
    ///
    /// # Errors
    /// A scheduler that is not for this kind of model.
    pub fn default_sampler(&self) -> Result<SamplerKind> {
        Ok(SamplerKind::of_model(&self.model.scheduler)?.0)
    }

    /// The latents of a picture, `[1, height, width, channels]`: the mean of what it may be encoded
    /// to. `tile` is as in [`Request::tile`].
    ///
    /// # Errors
    /// A picture whose sides are no multiples of [`Pipeline::factor`].
    pub fn encode(&mut self, picture: &Picture, tile: Option<usize>) -> Result<Array> {
        let size = self.latent_size(picture.width() as usize, picture.height() as usize)?;
        let encoder = Encoder::plan(&self.gpu, &self.vae, size, tile)?;
        let posterior = encoder.encode(&self.vae, picture, &mut unwatched_parts)?;
        Ok(Array::f32(
            [1, size[0], size[1], self.latent_channels()],
            posterior.mean(&self.vae.config),
        ))
    }

    /// The distribution of a picture's latents, scaled as a UNet sees them: their mean and their
    /// standard deviation, each `[1, height, width, channels]`. `tile` is as in [`Request::tile`].
    ///
    /// # Errors
    /// As those of [`Pipeline::encode`].
    pub fn latents_of(&mut self, picture: &Picture, tile: Option<usize>) -> Result<(Array, Array)> {
        let size = self.latent_size(picture.width() as usize, picture.height() as usize)?;
        let encoder = Encoder::plan(&self.gpu, &self.vae, size, tile)?;
        let posterior = encoder.encode(&self.vae, picture, &mut unwatched_parts)?;
        let shaped = |values| Array::f32([1, size[0], size[1], self.latent_channels()], values);
        Ok((
            shaped(posterior.mean(&self.vae.config)),
            shaped(posterior.deviation(&self.vae.config)),
        ))
    }

    /// Bytes of the device that encoding a picture of `size` (width, height) takes, weights too.
    ///
    /// # Errors
    /// As those of [`Pipeline::encode`].
    pub fn encoding_bytes(&self, size: [usize; 2], tile: Option<usize>) -> Result<u64> {
        let size = self.latent_size(size[0], size[1])?;
        let encoder = Encoder::plan(&self.gpu, &self.vae, size, tile)?;
        Ok(encoder.bytes() + encoder.weight_bytes(&self.vae)?)
    }

    /// Gives up all that it has on the device; it comes back when it is needed.
    pub fn rest(&mut self) {
        (self.sampling, self.decoder) = (None, None);
        self.unet.weights.rest();
        self.vae.weights.rest();
        self.texts.iter().for_each(|text| text.weights.rest());
        if let Some(tiny) = &self.tiny_vae {
            tiny.weights.rest();
        }
    }

    /// Decodes latents `[batch, height, width, channels]`, as [`Generated::latents`] has them.
    pub fn decode(&mut self, latents: &Array, tile: Option<usize>) -> Result<Vec<Picture>> {
        let expected = || format!("[batch, height, width, {}]", self.latent_channels());
        let shape =
            latents.shape.image().map_err(|_| option("latents", &latents.shape, expected()))?;
        let [_, height, width, channels] = shape;
        if channels != self.latent_channels() || latents.values().len() != latents.shape.elements()
        {
            return Err(option("latents", &latents.shape, expected()));
        }
        let planned = Decoder::plan(&self.gpu, self.vaes(), [height, width], tile)?;
        let mut decoder = self.decoder_like(planned);
        let mut pictures = Vec::new();
        for latents in latents.values().chunks_exact((height * width * channels).max(1)) {
            pictures.push(decoder.decode(self.vaes(), latents, &mut |_| Ok(()))?);
        }
        self.keep(decoder);
        Ok(pictures)
    }

    /// From now on, pictures are decoded by a small autoencoder, from
    /// [`crate::checkpoint::open_tiny_vae`]: faster, with less memory, a little less true.
    ///
    /// # Errors
    /// One that is not for this model's latents, or lacks something.
    pub fn decode_by(&mut self, small: &Component) -> Result<()> {
        let shape = |name: &str| small.shape(name).map(<[usize]>::to_vec);
        let wrong = |expected: String| option("vae", small.path().display(), expected);
        let config = TinyVaeConfig::of(&shape)
            .map_err(|missing| wrong(format!("a small autoencoder with `{missing}`")))?;
        let (channels, factor) = (self.latent_channels(), self.factor());
        if (config.latent_channels, config.downscale()) != (channels, factor) {
            return Err(wrong(format!(
                "one for latents of {channels} channels and {factor} pixels a side, as the \
                    model's are; it is for {} and {}",
                config.latent_channels,
                config.downscale()
            )));
        }
        let source = Arc::new(ComponentSource(small.clone()));
        let network = LoadedNetwork::from_source(
            &self.gpu,
            small,
            source,
            config,
            self.vae.weights.precision(),
        );
        self.tiny_vae = Some(network);
        self.decoder = None;
        Decoder::plan(&self.gpu, self.vaes(), [1, 1], None)?.weight_bytes(self.vaes())?;
        Ok(())
    }

    /// What decodes.
    fn vaes(&self) -> Vaes<'_> {
        Vaes { full: &self.vae, tiny: self.tiny_vae.as_ref() }
    }

    /// Height and width of the latents of a picture.
    fn latent_size(&self, width: usize, height: usize) -> Result<[usize; 2]> {
        let factor = self.factor();
        for (name, side) in [("width", width), ("height", height)] {
            let most = crate::picture::MAX_SIDE as usize / factor * factor;
            if !(factor..=most).contains(&side) {
                return Err(option(
                    name,
                    side,
                    format!("a multiple of {factor} from {factor} to {most}"),
                ));
            }
            if side % factor != 0 {
                let below = side / factor * factor;
                return Err(option(
                    name,
                    side,
                    format!("a multiple of {factor}, such as {below} or {}", below + factor),
                ));
            }
        }
        Ok([height / factor, width / factor])
    }
}
