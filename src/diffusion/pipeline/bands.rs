//! The decoder's second half band by band, for pictures that do not fit as a whole. The result is that of the whole picture:
//! bands overlap by the rows that convolutions reach over, and group statistics are those of all bands together, counted on
//! the host, where the feature maps wait between two pieces.

use crate::graph::{Array, Graph, Program, Tensor};
use crate::models::config::VaeConfig;
use crate::models::vae::{self, DecoderPiece};
use crate::nn::Layers;

use super::error::Result;
use super::network::{Network, Planned};

/// Rows of a band that its neighbour computes.
const REACH: usize = 1;

/// A feature map `[height, width, channels]` on the host.
pub(super) struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Vec<f32>,
}

impl Map {
    fn rows(&self, first: usize, count: usize) -> Array {
        let row = self.width * self.channels;
        Array::f32([1, count, self.width, self.channels], self.values[first * row..(first + count) * row].to_vec())
    }

    /// Mean and 1/sqrt(variance + epsilon) of each group of channels: `[1, groups, 2]`.
    fn statistics(&self, groups: usize) -> Array {
        let size = self.channels / groups;
        let mut sums = vec![(0.0f64, 0.0f64); self.channels];
        // Sums of a row in f32 would lose digits; of all pixels in f64 they are as good as a second pass over differences.
        for pixel in self.values.chunks_exact(self.channels) {
            for ((sum, square), &value) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(value);
                *square += f64::from(value) * f64::from(value);
            }
        }
        let count = (self.height * self.width * size) as f64;
        let of_group = |members: &[(f64, f64)]| {
            let (sum, square) = members.iter().fold((0.0, 0.0), |(a, b), (sum, square)| (a + sum, b + square));
            let mean = sum / count;
            let variance = (square / count - mean * mean).max(0.0);
            [mean as f32, (1.0 / (variance + f64::from(vae::EPSILON)).sqrt()) as f32]
        };
        Array::f32([1, groups, 2], sums.chunks_exact(size).flat_map(of_group).collect())
    }
}

/// First rows of bands of `length` rows over `total`, neighbours sharing what each of them needs of the other. The last one
/// ends where the picture ends.
pub(super) fn starts(total: usize, length: usize) -> Vec<usize> {
    let step = length.saturating_sub(2 * REACH).max(1);
    let steps = total.saturating_sub(length).div_ceil(step);
    (0..=steps).map(|i| (i * step).min(total.saturating_sub(length))).collect()
}

/// What a piece's program is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub rows: usize,
    pub width: usize,
    pub channels: usize,
    /// Channels of the residual block's input, inside of one.
    pub input_channels: Option<usize>,
}

/// Plans `piece` for a band.
pub(super) fn plan(network: &Network<VaeConfig>, piece: DecoderPiece, band: Band) -> Result<Planned> {
    network.plan(|config, graph| build(config, graph, piece, band))
}

fn build(config: &VaeConfig, graph: &mut Graph, piece: DecoderPiece, band: Band) -> crate::graph::Result<Vec<Tensor>> {
    let Band { rows, width, channels, input_channels } = band;
    let x = graph.input("x", [1, rows, width, channels]);
    let input = input_channels.map(|channels| graph.input("input", [1, rows, width, channels]));
    let (output, _) = piece.build(&mut Layers::with_given_statistics(graph), config, (x, input))?;
    Ok(vec![output])
}

/// Runs `piece` on the whole of `x` (and the block's `input`), in bands for which `rows` says the number of rows.
pub(super) fn run(
    network: &Network<VaeConfig>,
    piece: DecoderPiece,
    x: &Map,
    input: Option<&Map>,
    rows: impl FnOnce(Band) -> Result<usize>,
) -> Result<Map> {
    let whole = Band { rows: x.height, width: x.width, channels: x.channels, input_channels: input.map(|map| map.channels) };
    let band = Band { rows: rows(whole)?, ..whole };
    let planned = plan(network, piece, band)?;
    let program: Program = network.program(&planned)?;
    if let Some(norm) = piece.norm() {
        program.write(&format!("statistics.{norm}"), &x.statistics(network.config.norm_num_groups))?;
    }
    let (scale, mut next) = (piece.scale(), 0);
    let mut result = Map { height: x.height * scale, width: x.width * scale, channels: 0, values: Vec::new() };
    for start in starts(x.height, band.rows) {
        program.write("x", &x.rows(start, band.rows))?;
        if let Some(input) = input {
            program.write("input", &input.rows(start, band.rows))?;
        }
        program.run();
        let output = program.output(0)?;
        result.channels = output.shape.channels();
        let end = if start + band.rows == x.height { x.height } else { start + band.rows - REACH };
        let row = result.width * result.channels * scale;
        result.values.extend_from_slice(&output.values()[(next - start) * row..(end - start) * row]);
        next = end;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_a_picture_with_the_rows_that_they_need() {
        for (total, length) in [(10, 16), (64, 64), (65, 64), (100, 16), (33, 3), (5, 4), (100, 99)] {
            let (mut next, starts) = (0, starts(total, length));
            let length = length.min(total);
            for &start in &starts {
                assert!(start == 0 || start + REACH <= next, "{total} {length}: {starts:?}");
                next = if start + length == total { total } else { start + length - REACH };
            }
            assert_eq!(next, total, "{length}: {starts:?}");
        }
    }
}
