//! How much of the picture's attention goes to chosen words of the prompt.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Layers;
use crate::graph::{Result, Tensor};

/// The attention of one cross-attention to the words that are watched.
#[derive(Clone, Debug)]
pub struct WordMap {
    /// Height and width of the feature map.
    pub size: [usize; 2],
    /// Heads that the map is the mean of.
    pub heads: usize,
    /// Probabilities, summed over heads: `[batch, height * width, words]`; with several prompts,
    /// those of each prompt's words together: `[batch, height * width, prompts]`.
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
    /// The keys of each prompt, where there are several; then one map for each.
    prompts: Vec<Range<usize>>,
    /// Feature maps that are watched; empty: all.
    wanted: Vec<[usize; 2]>,
    /// Values by width and heads: inputs `words.<width>.<heads>` `[batch, keys, width]`.
    values: BTreeMap<(usize, usize), Tensor>,
    /// Size of the feature map of the transformer being built.
    pub(super) size: [usize; 2],
    maps: Vec<WordMap>,
}

/// The input `words.<width>.<heads>` where prompts are watched, `[1, keys, width]` row-major:
/// `positions` are those of all watched words among the keys of all prompts.
pub fn prompt_values(positions: &[usize], keys: usize, width: usize, heads: usize) -> Vec<f32> {
    let mut values = vec![0.0; keys * width];
    let d = (width / heads.max(1)).max(1);
    for at in positions.iter().filter(|at| **at < keys) {
        let row = &mut values[at * width..][..width];
        row.iter_mut().step_by(d).for_each(|v| *v = 1.0);
    }
    values
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

    /// From now on, cross-attentions on feature maps of the sizes `wanted` (empty: all) make
    /// [`WordMap`]s of several prompts, whose keys stand one after another: how much of the
    /// attention to a prompt alone goes to its watched words.
    pub fn watch_prompts(&mut self, prompts: Vec<Range<usize>>, wanted: Vec<[usize; 2]>) {
        self.watch = Some(Watch { words: 1, prompts, wanted, ..Watch::default() });
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
        if !watch.wanted.is_empty() && !watch.wanted.contains(&watch.size) {
            self.watch = Some(watch);
            return Ok(());
        }
        let ([batch, _, width], [_, keys, _]) =
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
        let map = match watch.prompts.is_empty() {
            true => self.word_map(q, k, values, heads, watch.words)?,
            false => {
                let mut maps = Vec::with_capacity(watch.prompts.len());
                for prompt in &watch.prompts {
                    let (first, length) = (prompt.start, prompt.len());
                    let k = self.graph.slice(k, 1, first, length)?;
                    let values = self.graph.slice(values, 1, first, length)?;
                    maps.push(self.word_map(q, k, values, heads, 1)?);
                }
                match &maps[..] {
                    [map] => *map,
                    maps => self.graph.concat(maps, 2)?,
                }
            }
        };
        watch.maps.push(WordMap { size: watch.size, heads, map });
        self.watch = Some(watch);
        Ok(())
    }

    /// What the first `words` channels of every head of `values` get, summed over the heads:
    /// `[batch, tokens, words]`.
    fn word_map(
        &mut self,
        q: Tensor,
        k: Tensor,
        values: Tensor,
        heads: usize,
        words: usize,
    ) -> Result<Tensor> {
        let [batch, tokens, width] = self.tokens(q, "word maps")?;
        let d = width / heads.max(1);
        let y = self.attend(q, k, values, heads, false)?;
        let y = self.graph.reshape(y, [batch * tokens, heads, d])?;
        let sum = self.graph.sum_to(y, [batch * tokens, 1, d])?;
        let map = self.graph.slice(sum, 2, 0, words)?;
        self.graph.reshape(map, [batch, tokens, words])
    }
}
