//! What a second pass over a larger picture is asked for, and what enlarges the first one's result.

use crate::checkpoint::Component;

use super::enlarge::LatentFilter;

/// The second pass.
#[derive(Clone, Debug)]
pub struct Hires {
    /// How many times larger the picture becomes along each side, above 1.
    pub scale: f64,
    /// How it is enlarged.
    pub upscaler: Upscaler,
    /// How much of the schedule is run on it, above 0 to 1.
    pub strength: f64,
    /// Steps of the whole schedule; none: as many as the first pass has.
    pub steps: Option<usize>,
}

impl Default for Hires {
    fn default() -> Self {
        Hires { scale: 2.0, upscaler: Upscaler::default(), strength: 0.7, steps: None }
    }
}

/// How the first pass's result is enlarged.
#[derive(Clone, Debug)]
pub enum Upscaler {
    /// As latents.
    Latent(LatentFilter),
    /// As a picture, by Lanczos' filter.
    Lanczos,
    /// As a picture, by a network of ESRGAN's kind, from
    /// [`crate::checkpoint::open_upscaler`].
    Network(Component),
}

impl Default for Upscaler {
    fn default() -> Self {
        Upscaler::Latent(LatentFilter::default())
    }
}

/// Names of those that come from no file.
const NAMES: [(&str, Upscaler); 5] = [
    ("latent", Upscaler::Latent(LatentFilter::Bilinear)),
    ("latent-nearest", Upscaler::Latent(LatentFilter::Nearest)),
    ("latent-nearest-exact", Upscaler::Latent(LatentFilter::NearestExact)),
    ("latent-bicubic", Upscaler::Latent(LatentFilter::Bicubic)),
    ("lanczos", Upscaler::Lanczos),
];

impl Upscaler {
    /// The one of a name, where it comes from no file.
    pub fn named(name: &str) -> Option<Upscaler> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, upscaler)| upscaler.clone())
    }

    /// Its name; none of a network.
    pub fn name(&self) -> Option<&'static str> {
        let same = |other: &Upscaler| match (self, other) {
            (Upscaler::Latent(a), Upscaler::Latent(b)) => a == b,
            (Upscaler::Lanczos, Upscaler::Lanczos) => true,
            _ => false,
        };
        NAMES.iter().find(|(_, other)| same(other)).map(|(name, _)| *name)
    }
}
