//! Attention regularisation: the first word keeps off what is outside of the subject, the second
//! draws its shape.
//!
//! The cross-attention probabilities of the two words are averaged over the heads and layers of one
//! resolution and divided by their greatest value in the batch. First word: mean of the map outside
//! of the mask. Second word: mean squared distance to the mask (`full_identity`), or mean outside
//! of the mask too. Summed over resolutions.

use crate::graph::{Graph, Tensor};
use crate::nn::{WatchedWords, WordMap};

use super::config::AttentionLoss;
use super::error::Result;

/// Inputs of the regularisation.
pub(super) struct Maps {
    pub masks: Vec<MaskInputs>,
    pub words: Vec<WatchedWords>,
    pub settings: AttentionLoss,
}

/// Inputs of one resolution, each `[batch, height * width, 1]`.
pub(super) struct MaskInputs {
    /// Height and width.
    pub size: [usize; 2],
    /// What an element of a map counts where it is outside.
    pub outside: Tensor,
    /// With `full_identity`: the mask, and what a squared distance from it counts.
    pub identity: Option<[Tensor; 2]>,
}

/// The regularisation `[1]`, weight included.
pub(super) fn build(
    graph: &mut Graph,
    maps: &[WordMap],
    words: Vec<WatchedWords>,
    settings: AttentionLoss,
) -> Result<(Tensor, Maps)> {
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    for map in maps {
        if !sizes.contains(&map.size) {
            sizes.push(map.size);
        }
    }
    let mut total: Option<Tensor> = None;
    let mut masks = Vec::with_capacity(sizes.len());
    for size in sizes {
        let name = |what: &str| format!("{what}.{}x{}", size[0], size[1]);
        let (mut sum, mut heads): (Option<Tensor>, usize) = (None, 0);
        for map in maps.iter().filter(|map| map.size == size) {
            heads += map.heads;
            sum = Some(match sum {
                Some(sum) => graph.add(sum, map.map)?,
                None => map.map,
            });
        }
        let Some(sum) = sum else { continue };
        let mean = graph.scale(sum, 1.0 / heads.max(1) as f32)?;
        let [batch, places, _] = [graph.shape(mean)[0], graph.shape(mean)[1], 2];
        let shape = [batch, places, 1];
        let outside = graph.input(name("outside"), shape);
        let mut word = |index| {
            let map = graph.slice(mean, 2, index, 1)?;
            graph.normalize_by_max(map)
        };
        let (first, second) = (word(0)?, word(1)?);
        let mut add = |graph: &mut Graph, part: Tensor| -> Result<()> {
            total = Some(match total {
                Some(total) => graph.add(total, part)?,
                None => part,
            });
            Ok(())
        };
        let off = graph.multiply(first, outside)?;
        let off = graph.sum(off)?;
        add(graph, off)?;
        let identity = settings
            .full_identity
            .then(|| ["mask", "inside"].map(|what| graph.input(name(what), shape)));
        let second = match identity {
            Some([mask, inside]) => graph.weighted_squared_error(second, mask, inside)?,
            None => {
                let off = graph.multiply(second, outside)?;
                graph.sum(off)?
            }
        };
        add(graph, second)?;
        masks.push(MaskInputs { size, outside, identity });
    }
    let total = match total {
        Some(total) => total,
        None => graph.filled([1], 0.0)?,
    };
    Ok((total, Maps { masks, words, settings }))
}

/// A mask `[height, width]` at another size, as torch's `interpolate` does it by default: the
/// nearest place above and left.
pub(super) fn resized(mask: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let at = |i: usize, from: usize, to: usize| (i * from / to.max(1)).min(from.saturating_sub(1));
    let place = |y: usize, x: usize| mask[at(y, from[0], to[0]) * from[1] + at(x, from[1], to[1])];
    (0..to[0]).flat_map(|y| (0..to[1]).map(move |x| (y, x))).map(|(y, x)| place(y, x)).collect()
}
