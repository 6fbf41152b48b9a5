//! The text encoders' part in the statistics: what its layers read (stage 2), and what comes out of
//! it (stages 3 and 4).

use crate::concept::{AppliedSet, Word};
use crate::graph::{self, Array};
use crate::sd::TextEncoder;
use crate::sd::text::EncoderPass;
use crate::sd::tokens::TokenRows;
use crate::text::prompt::{self, PromptOptions, Syntax};

use super::base::{Base, FusedWeights, Runner};
use super::groups::StageLayers;
use super::{Error, Result};

/// A prompt as token ids; those from [`Bound::words_from`] on are concept words.
pub(super) struct Bound {
    /// As long as the encoder is.
    pub ids: Vec<u32>,
    /// The position of the end mark.
    pub end: usize,
    words_from: u32,
    /// Rows of each concept word, by its id.
    words: Vec<Array>,
    layers: usize,
}

impl Bound {
    /// Positions of the concept words, and of the end mark; all positions up to the end where there
    /// are none.
    pub fn positions(&self) -> Vec<usize> {
        let own = |at: &usize| {
            self.ids.get(*at).is_some_and(|id| *id >= self.words_from) || *at == self.end
        };
        match self.words.is_empty() {
            true => (0..=self.end).collect(),
            false => (0..=self.end).filter(own).collect(),
        }
    }

    /// Encodings that differ: one for each cross-attention where concept words are in the prompt.
    pub fn copies(&self) -> usize {
        if self.words.is_empty() { 1 } else { self.layers }
    }

    /// The row of a token in a copy, if it is a concept word's.
    fn row_of_word(&self, id: u32, copy: usize) -> Option<&[f32]> {
        let rows = self.words.get(id.checked_sub(self.words_from)? as usize)?;
        let row = copy.min(rows.shape.rows().saturating_sub(1));
        rows.values().chunks_exact(rows.shape.channels().max(1)).nth(row)
    }
}

/// Tokenizes `text` for a text encoder, in which `words` are single tokens.
pub(super) fn bind(
    base: &Base,
    encoder: &TextEncoder,
    words: &[Word],
    text: &str,
) -> Result<Bound> {
    let mut tokenizer = encoder.tokenizer.clone();
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let added = tokenizer.add_words(&texts)?;
    let options = PromptOptions { syntax: Syntax::Off, ..PromptOptions::default() };
    let encoded = prompt::encode(&tokenizer, text, &options)?;
    let chunk = encoded
        .chunks
        .into_iter()
        .next()
        .ok_or_else(|| Error::option("prompt", format!("\"{text}\" has no tokens")))?;
    Ok(Bound {
        ids: chunk.ids,
        end: chunk.end,
        words_from: added.first().copied().unwrap_or(u32::MAX),
        words: words.iter().map(|word| word.rows(encoder.network).clone()).collect(),
        layers: base.model.attentions.len(),
    })
}

/// What a text encoder made of prompts.
pub(super) struct Encoded {
    /// For each prompt and copy, in this order: `[tokens, width]`.
    pub rows: Vec<Vec<f32>>,
    /// Likewise what is pooled, `[projection]`; empty where nothing is.
    pub pooled: Vec<Vec<f32>>,
    /// For each group of the layout: the inputs of each prompt and copy, `[tokens, width]`.
    pub inputs: Vec<Vec<Vec<f32>>>,
}

/// Runs a text encoder with the updates of `set` on the first `tokens` positions of `prompts`,
/// each as often as it has copies, and reads what `layout`'s layers read.
pub(super) fn encode(
    runner: &Runner,
    encoder: &TextEncoder,
    fused: &FusedWeights,
    set: Option<&AppliedSet>,
    layout: &StageLayers,
    prompts: &[Bound],
    tokens: usize,
) -> Result<Encoded> {
    let (network, updates) = fused.load(runner, &encoder.part, set);
    let (mut known, mut embedded, mut ends) = (TokenRows::default(), Vec::new(), Vec::new());
    for prompt in prompts {
        for copy in 0..prompt.copies() {
            for &id in prompt.ids.iter().take(tokens) {
                let source = network.weights.source();
                let row = match prompt.row_of_word(id, copy) {
                    Some(row) => row,
                    None => known.row(source, &network.config, id).map_err(graph::Error::from)?,
                };
                embedded.extend_from_slice(row);
            }
            ends.push(prompt.end);
        }
    }
    let (mut missing, rows) = (None, ends.len());
    let (reading, size) = (encoder.reading, [rows, tokens]);
    let pass = EncoderPass::plan(&network, reading, &updates, size, 0, &layout.names(), |hooks| {
        layout.inputs(hooks).map_err(|error| missing = Some(error)).unwrap_or_default()
    })?;
    if let Some(error) = missing {
        return Err(error);
    }
    let mut outputs = pass.run(&network, &updates, embedded, &ends)?.into_iter().map(|array| {
        let size = array.shape.elements() / rows.max(1);
        array.values().chunks_exact(size.max(1)).map(<[f32]>::to_vec).collect::<Vec<_>>()
    });
    let rows = outputs.next().unwrap_or_default();
    let pooled = if reading.pooled { outputs.next() } else { None };
    Ok(Encoded { rows, pooled: pooled.unwrap_or_default(), inputs: outputs.collect() })
}
