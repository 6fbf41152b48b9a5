//! The pictures' noise, drawn as torch lays it out and turned to this program's layout.

use crate::random::{BatchNoise, RngKind};

/// Streams of normal numbers for the latents `[height, width, channels]` of a batch of pictures.
pub(crate) struct Noise {
    streams: BatchNoise,
    batch: usize,
    pixels: usize,
    channels: usize,
}

impl Noise {
    pub fn new(
        kind: RngKind,
        seed: u64,
        batch: usize,
        [height, width, channels]: [usize; 3],
    ) -> Noise {
        Noise {
            streams: BatchNoise::new(kind, seed, batch),
            batch,
            pixels: height * width,
            channels,
        }
    }

    /// Numbers of a draw.
    pub fn len(&self) -> usize {
        self.batch * self.pixels * self.channels
    }

    /// The next latents of every picture: `[batch, height, width, channels]`.
    pub fn draw(&mut self) -> Vec<f32> {
        let drawn = self.streams.normal(self.pixels * self.channels);
        channels_last(&drawn, self.batch, self.pixels, self.channels)
    }
}

/// `[batch, channels, pixels]` to `[batch, pixels, channels]`.
pub(crate) fn channels_last(
    values: &[f32],
    batch: usize,
    pixels: usize,
    channels: usize,
) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for entry in values.chunks_exact((pixels * channels).max(1)).take(batch) {
        for pixel in 0..pixels {
            turned.extend(entry.iter().skip(pixel).step_by(pixels).copied());
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let planes = [1., 2., 3., 10., 20., 30., 4., 5., 6., 40., 50., 60.];
        let pixels = [1., 10., 2., 20., 3., 30., 4., 40., 5., 50., 6., 60.];
        assert_eq!(channels_last(&planes, 2, 3, 2), pixels);
    }
}
