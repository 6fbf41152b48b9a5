//! Attention regularisation: the first word keeps off what is outside of the subject, the second
//! draws its shape.
//!
//! The cross-attention probabilities of the two words are averaged over the heads and layers of one
//! resolution and divided by their greatest value in the batch. First word: mean of the map outside
//! of the mask. Second word: mean squared distance to the mask (`full_identity`), or mean outside
//! of the mask too. Summed over resolutions.

use crate::graph::{Graph, Tensor};
use crate::nn::WordMap;

use super::config::AttentionLoss;
use super::error::Result;

/// Inputs of the regularisation.
pub(super) struct Maps {
    /// Height and width of each resolution. `outside.<h>x<w>` `[batch, h w, 1]`: what an element of
    /// a map counts where it is outside; with `full_identity` also `mask.<h>x<w>`, and
    /// `inside.<h>x<w>`: what a squared distance counts.
    pub sizes: Vec<[usize; 2]>,
    /// Width and heads of the inputs `words.<width>.<heads>`.
    pub words: Vec<(usize, usize)>,
    pub settings: AttentionLoss,
}

pub(super) fn input_name(what: &str, [height, width]: [usize; 2]) -> String {
    format!("{what}.{height}x{width}")
}

/// The regularisation `[1]`, weight included.
pub(super) fn build(
    graph: &mut Graph,
    maps: &[WordMap],
    words: Vec<(usize, usize)>,
    settings: AttentionLoss,
) -> Result<(Tensor, Maps)> {
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    for map in maps {
        if !sizes.contains(&map.size) {
            sizes.push(map.size);
        }
    }
    let mut total: Option<Tensor> = None;
    for &size in &sizes {
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
        let outside = graph.input(input_name("outside", size), shape);
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
        let second = match settings.full_identity {
            true => {
                let mask = graph.input(input_name("mask", size), shape);
                let inside = graph.input(input_name("inside", size), shape);
                graph.weighted_squared_error(second, mask, inside)?
            }
            false => {
                let off = graph.multiply(second, outside)?;
                graph.sum(off)?
            }
        };
        add(graph, second)?;
    }
    let total = match total {
        Some(total) => total,
        None => graph.filled([1], 0.0)?,
    };
    Ok((total, Maps { sizes, words, settings }))
}

/// A mask `[height, width]` at another size, as torch's `interpolate` does it by default: the
/// nearest place above and left.
pub(super) fn resized(mask: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let at = |i: usize, from: usize, to: usize| (i * from / to.max(1)).min(from.saturating_sub(1));
    let place = |y: usize, x: usize| mask[at(y, from[0], to[0]) * from[1] + at(x, from[1], to[1])];
    (0..to[0]).flat_map(|y| (0..to[1]).map(move |x| (y, x))).map(|(y, x)| place(y, x)).collect()
}
