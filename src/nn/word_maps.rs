//! How much of the picture's attention goes to chosen words of the prompt.

use std::collections::BTreeMap;

use super::Layers;
use crate::graph::{Result, Tensor};

/// The attention of one cross-attention to the words that are watched.
#[derive(Clone, Debug)]
pub struct WordMap {
    /// Height and width of the feature map.
    pub size: [usize; 2],
    /// Heads that the map is the mean of.
    pub heads: usize,
    /// Probabilities, summed over heads: `[batch, height * width, words]`.
    pub map: Tensor,
}

/// The input that tells the attentions of one width and number of heads which words are watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchedWords {
    /// Width of the attention.
    pub width: usize,
    /// Its heads.
    pub heads: usize,
    /// `[batch, keys, width]`: [`word_values`].
    pub input: Tensor,
}

/// Watches `words` words of each prompt, in all cross-attentions.
///
/// The probability of a word is what attention gives for values that are 1 at this word and 0 at
/// all others: each head's first `words` channels, one for each word. So it needs no score matrix,
/// forward or backward.
#[derive(Debug, Default)]
pub(super) struct Watch {
    words: usize,
    /// Values by width and heads: inputs `words.<width>.<heads>` `[batch, keys, width]`.
    values: BTreeMap<(usize, usize), Tensor>,
    /// Size of the feature map of the transformer being built.
    pub(super) size: [usize; 2],
    maps: Vec<WordMap>,
}

/// The input `words.<width>.<heads>`, `[batch, keys, width]` row-major: `positions` are those of
/// the watched words, for each batch entry; none where a prompt lacks the word.
pub fn word_values(
    positions: &[Vec<Option<usize>>],
    keys: usize,
    width: usize,
    heads: usize,
) -> Vec<f32> {
    let mut values = vec![0.0; positions.len() * keys * width];
    let d = width / heads.max(1);
    for (prompt, entry) in positions.iter().zip(values.chunks_exact_mut((keys * width).max(1))) {
        for (word, position) in prompt.iter().enumerate() {
            let Some(position) = position.filter(|&p| p < keys && word < d) else { continue };
            entry[position * width..][..width]
                .iter_mut()
                .skip(word)
                .step_by(d)
                .for_each(|v| *v = 1.0);
        }
    }
    values
}

impl Layers<'_> {
    /// From now on, cross-attentions make [`WordMap`]s of `words` words.
    pub fn watch_words(&mut self, words: usize) {
        self.watch = Some(Watch { words, ..Watch::default() });
    }

    /// The maps made so far, and the inputs that they read.
    pub fn word_maps(&mut self) -> (Vec<WordMap>, Vec<WatchedWords>) {
        let watch = self.watch.take().unwrap_or_default();
        let watched = |((width, heads), input)| WatchedWords { width, heads, input };
        (watch.maps, watch.values.into_iter().map(watched).collect())
    }

    /// Makes the map of the cross-attention being built.
    pub(super) fn watch(&mut self, q: Tensor, k: Tensor, heads: usize) -> Result<()> {
        let Some(mut watch) = self.watch.take() else { return Ok(()) };
        let ([batch, tokens, width], [_, keys, _]) =
            (self.tokens(q, "word maps")?, self.tokens(k, "word maps")?);
        let d = width / heads.max(1);
        if d < watch.words {
            let message =
                format!("{} words cannot be watched with heads of {d} channels", watch.words);
            return Err(self.graph.shape_error("word maps", message));
        }
        let name = format!("words.{width}.{heads}");
        let values = *watch
            .values
            .entry((width, heads))
            .or_insert_with(|| self.graph.input(name, [batch, keys, width]));
        let y = self.attend(q, k, values, heads, false)?;
        let y = self.graph.reshape(y, [batch * tokens, heads, d])?;
        let sum = self.graph.sum_to(y, [batch * tokens, 1, d])?;
        let map = self.graph.slice(sum, 2, 0, watch.words)?;
        let map = self.graph.reshape(map, [batch, tokens, watch.words])?;
        watch.maps.push(WordMap { size: watch.size, heads, map });
        self.watch = Some(watch);
        Ok(())
    }
}
