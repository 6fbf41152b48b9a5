//! The networks of a model, by name.

use std::fmt;

/// A network of a model that can be changed by a concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The text encoder; of Stable Diffusion XL the first one, CLIP's.
    TextEncoder,
    /// Stable Diffusion XL's second text encoder, OpenCLIP's.
    TextEncoder2,
    /// The denoising network.
    UNet,
}

impl Network {
    /// All, text encoders first.
    pub const ALL: [Network; 3] = [Network::TextEncoder, Network::TextEncoder2, Network::UNet];

    /// The name of its folder in diffusers' layout, which PEFT's and our own files use as well.
    pub fn folder(self) -> &'static str {
        match self {
            Network::TextEncoder => "text_encoder",
            Network::TextEncoder2 => "text_encoder_2",
            Network::UNet => "unet",
        }
    }

    /// It encodes prompts.
    pub fn is_text_encoder(self) -> bool {
        self != Network::UNet
    }
}

/// What people call it.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::TextEncoder => "text encoder",
            Network::TextEncoder2 => "second text encoder",
            Network::UNet => "UNet",
        })
    }
}
