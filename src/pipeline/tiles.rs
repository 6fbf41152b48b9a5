//! The autoencoder's halves at high resolution tile by tile, for pictures that do not fit as a
//! whole. The result is that of the whole picture: tiles overlap by the rows that convolutions
//! reach over, and group statistics are those of all tiles together, counted on the host, where the
//! feature maps wait between two pieces.

use crate::graph::{Array, Tensor};
use crate::models::config::VaeConfig;
use crate::models::vae::{self, Piece, PieceKind};
use crate::nn::Layers;
use crate::picture::MAX_SIDE;

use super::error::{Result, option};
use crate::sd;
use crate::sd::network::{LoadedNetwork, PlannedGraph};
use crate::watch::Cancelled;

/// The most bytes of activations and inputs at once.
pub(super) const MOST_BYTES: u64 = 2 << 30;

/// The least rows of a tile: below, its neighbours would compute most of it again. Two reaches and
/// as much again.
const LEAST_ROWS: usize = 8;

/// A feature map `[height, width, channels]` on the host.
pub(super) struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Vec<f32>,
}

impl Map {
    /// `count` rows from `first` on.
    fn rows(&self, first: usize, count: usize) -> Array {
        let row = self.width * self.channels;
        Array::f32(
            [1, count, self.width, self.channels],
            self.values[first * row..(first + count) * row].to_vec(),
        )
    }

    /// Mean and 1/sqrt(variance + epsilon) of each group of channels: `[1, groups, 2]`.
    fn statistics(&self, groups: usize) -> Array {
        let size = self.channels / groups;
        let mut sums = vec![(0.0f64, 0.0f64); self.channels];
        // Sums of a row in f32 would lose digits; of all pixels in f64 they are as good as a second
        // pass over differences.
        for pixel in self.values.chunks_exact(self.channels) {
            for ((sum, square), &value) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(value);
                *square += f64::from(value) * f64::from(value);
            }
        }
        let count = (self.height * self.width * size) as f64;
        let of_group = |members: &[(f64, f64)]| {
            let (sum, square) =
                members.iter().fold((0.0, 0.0), |(a, b), (sum, square)| (a + sum, b + square));
            let mean = sum / count;
            let variance = (square / count - mean * mean).max(0.0);
            [mean as f32, (1.0 / (variance + f64::from(vae::EPSILON)).sqrt()) as f32]
        };
        Array::f32([1, groups, 2], sums.chunks_exact(size).flat_map(of_group).collect())
    }
}

/// How a piece's rows of result come from rows of its input.
#[derive(Clone, Copy, Debug)]
struct Rows {
    /// Rows of a tile's input at an inner edge whose results are the neighbour's.
    reach: usize,
    /// Rows of the result for each `down` rows of the input.
    up: usize,
    down: usize,
}

impl Rows {
    fn of(kind: PieceKind) -> Rows {
        match kind {
            PieceKind::Upsample => Rows { reach: 1, up: 2, down: 1 },
            PieceKind::Downsample => Rows { reach: 2, up: 1, down: 2 },
            _ => Rows { reach: 1, up: 1, down: 1 },
        }
    }

    /// First rows of tiles of `length` rows over `total`, both multiples of `down`. Neighbours
    /// share what each of them needs of the other; the last one ends where the picture ends.
    fn starts(self, total: usize, length: usize) -> Vec<usize> {
        let step = length.saturating_sub(2 * self.reach).max(self.down);
        let steps = total.saturating_sub(length).div_ceil(step);
        (0..=steps).map(|i| (i * step).min(total.saturating_sub(length))).collect()
    }
}

/// The largest part of a picture, whose latents have `size`, that a tile of `tile` x `tile` pixels
/// is; from 1 on: all of it.
pub(super) fn share(config: &VaeConfig, size: [usize; 2], tile: Option<usize>) -> Result<f64> {
    let pixels = (size[0] * config.downscale()) as f64 * (size[1] * config.downscale()) as f64;
    let least = LEAST_ROWS * config.downscale();
    match tile {
        Some(side) if !(least..=MAX_SIDE as usize).contains(&side) => {
            Err(option("tile", side, format!("{least} to {MAX_SIDE} pixels")))
        }
        tile => Ok(tile.map_or(1.0, |side| (side as f64).powi(2) / pixels)),
    }
}

/// What a piece's program is made for.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: usize,
    width: usize,
    channels: usize,
    /// Channels of the residual block's input, inside of one.
    input_channels: Option<usize>,
}

/// What a piece's program takes.
#[derive(Clone, Copy, Debug)]
struct TileInputs {
    x: Tensor,
    /// The residual block's input, inside of one.
    input: Option<Tensor>,
    /// Of the piece's group normalisation.
    statistics: Option<Tensor>,
}

/// Plans `piece` for a tile.
fn plan(
    network: &LoadedNetwork<VaeConfig>,
    piece: &Piece,
    tile: Tile,
) -> sd::Result<PlannedGraph<TileInputs>> {
    network.plan(|config, graph| {
        let Tile { rows, width, channels, input_channels } = tile;
        let x = graph.input("x", [1, rows, width, channels]);
        let input = input_channels.map(|channels| graph.input("input", [1, rows, width, channels]));
        let layers = &mut Layers::with_given_statistics(graph);
        let output = piece.build(layers, config, (x, input))?.0;
        let statistics = piece.norm().map(|norm| format!("statistics.{norm}"));
        let statistics = statistics.and_then(|name| graph.find_input(&name));
        Ok((TileInputs { x, input, statistics }, vec![output]))
    })
}

/// Runs `pieces` one after another on the whole of `x`, each in tiles of at most `share` of the
/// map's pixels, or in as few as memory allows. `progress` is told how many are done.
pub(super) fn run(
    network: &LoadedNetwork<VaeConfig>,
    pieces: &[Piece],
    mut x: Map,
    share: f64,
    progress: &mut dyn FnMut(usize) -> Result<(), Cancelled>,
) -> Result<Map> {
    let mut input = None;
    for (done, piece) in pieces.iter().enumerate() {
        progress(done)?;
        let next = run_piece(network, piece, &x, input.as_ref(), share)?;
        input = (piece.kind == PieceKind::ResnetStart).then_some(x);
        x = next;
    }
    Ok(x)
}

/// The most bytes of activations and inputs that [`run`] has at once, for a map of that height,
/// width and channels.
pub(super) fn bytes(
    network: &LoadedNetwork<VaeConfig>,
    pieces: &[Piece],
    [mut rows, mut width, mut channels]: [usize; 3],
    share: f64,
) -> Result<u64> {
    let (mut most, mut input) = (0, None);
    for piece in pieces {
        let (planned, _) =
            largest(network, piece, Tile { rows, width, channels, input_channels: input }, share)?;
        most = most.max(planned.bytes());
        let reach = Rows::of(piece.kind);
        input = (piece.kind == PieceKind::ResnetStart).then_some(channels);
        (rows, width) = (rows * reach.up / reach.down, width * reach.up / reach.down);
        channels = piece.channels;
    }
    Ok(most)
}

fn run_piece(
    network: &LoadedNetwork<VaeConfig>,
    piece: &Piece,
    x: &Map,
    input: Option<&Map>,
    share: f64,
) -> Result<Map> {
    let whole = Tile {
        rows: x.height,
        width: x.width,
        channels: x.channels,
        input_channels: input.map(|map| map.channels),
    };
    let rows = Rows::of(piece.kind);
    let (planned, length) = largest(network, piece, whole, share)?;
    let program = network.program(&planned)?;
    let inputs = program.inputs;
    if let Some(statistics) = inputs.statistics {
        program.write(statistics, &x.statistics(network.config.norm_num_groups))?;
    }
    let scaled = |n: usize| n * rows.up / rows.down;
    let mut result = Map {
        height: scaled(x.height),
        width: scaled(x.width),
        channels: piece.channels,
        values: Vec::new(),
    };
    let row = result.width * result.channels;
    result.values.reserve_exact(result.height * row);
    let mut next = 0;
    for start in rows.starts(x.height, length) {
        program.write(inputs.x, &x.rows(start, length))?;
        if let (Some(tensor), Some(map)) = (inputs.input, input) {
            program.write(tensor, &map.rows(start, length))?;
        }
        program.run();
        let output = program.output(0)?;
        let end = if start + length == x.height { x.height } else { start + length - rows.reach };
        result.values.extend_from_slice(
            &output.values()[scaled(next - start) * row..scaled(end - start) * row],
        );
        next = end;
    }
    Ok(result)
}

/// The largest tile that fits, and its rows.
fn largest(
    network: &LoadedNetwork<VaeConfig>,
    piece: &Piece,
    whole: Tile,
    share: f64,
) -> Result<(PlannedGraph<TileInputs>, usize)> {
    let mut rows = ((whole.rows as f64 * share) as usize).max(LEAST_ROWS);
    loop {
        rows = rows.next_multiple_of(2).min(whole.rows);
        let planned = plan(network, piece, Tile { rows, ..whole })?;
        if rows <= LEAST_ROWS || (planned.fits() && planned.bytes() <= MOST_BYTES) {
            return Ok((planned, rows));
        }
        rows = (rows / 2).max(LEAST_ROWS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_a_picture_with_the_rows_that_they_need() {
        for kind in [PieceKind::Convolution, PieceKind::Upsample, PieceKind::Downsample] {
            let rows = Rows::of(kind);
            for (total, length) in [(10, 10), (64, 64), (66, 64), (100, 16), (34, 6), (100, 98)] {
                let (mut next, starts) = (0, rows.starts(total, length));
                for &start in &starts {
                    assert!(start < next.max(1), "{kind:?} {total} {length}: {starts:?}");
                    assert_eq!(
                        (start % rows.down, next % rows.down),
                        (0, 0),
                        "{kind:?} {total} {length}: {starts:?}"
                    );
                    next =
                        if start + length == total { total } else { start + length - rows.reach };
                }
                assert_eq!(next, total, "{kind:?} {length}: {starts:?}");
            }
        }
    }

    #[test]
    fn statistics_are_those_of_the_whole_map() {
        let values: Vec<f32> = (0..6 * 4).map(|i| (i * i % 17) as f32 + 1000.0).collect();
        let map = Map { height: 2, width: 3, channels: 4, values: values.clone() };
        let found = map.statistics(2);
        for (group, found) in found.values().chunks_exact(2).enumerate() {
            let members: Vec<f64> = values
                .chunks_exact(4)
                .flat_map(|p| &p[group * 2..group * 2 + 2])
                .map(|&v| f64::from(v))
                .collect();
            let mean = members.iter().sum::<f64>() / 12.0;
            let variance = members.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0;
            assert!((f64::from(found[0]) - mean).abs() < 1e-4);
            assert!((f64::from(found[1]) * variance.sqrt() - 1.0).abs() < 1e-5);
        }
    }
}
