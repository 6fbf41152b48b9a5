//! Rows of a text encoder's token table.
//!
//! They are read on the host: the table is larger than all the rest of the encoder's needs
//! together, and in f32 larger than what WebGPU lets a kernel see at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::graph::{Array, ParameterError, ParameterSource, expect};
use crate::models::clip_text::TOKEN_TABLE;
use crate::models::config::ClipTextConfig;

/// The table's rows that were read so far.
#[derive(Debug, Default)]
pub(crate) struct TokenRows(HashMap<u32, Vec<f32>>);

impl TokenRows {
    /// Row `id` of the table of `source`, of the width that `config` says.
    ///
    /// # Errors
    /// A table that is missing, of another shape, or without such a row.
    pub fn row(
        &mut self,
        source: &dyn ParameterSource,
        config: &ClipTextConfig,
        id: u32,
    ) -> Result<&[f32], ParameterError> {
        let slot = match self.0.entry(id) {
            Entry::Occupied(slot) => return Ok(slot.into_mut()),
            Entry::Vacant(slot) => slot,
        };
        let (rows, width) = (config.vocab_size, config.hidden_size);
        expect(source, TOKEN_TABLE, &[rows, width])?;
        let row = id as usize;
        if row >= rows {
            let message = format!("the tokenizer has token {id}, the table {rows} tokens");
            return Err(ParameterError::Read { name: TOKEN_TABLE.into(), message });
        }
        let mut values = vec![0.0; width];
        source.read(TOKEN_TABLE, row * width..(row + 1) * width, &mut values)?;
        Ok(slot.insert(values))
    }

    /// The rows of `ids`, one after another. Ids from the table's end on are those of `words`.
    ///
    /// # Errors
    /// Those of [`TokenRows::row`].
    pub fn rows(
        &mut self,
        source: &dyn ParameterSource,
        config: &ClipTextConfig,
        ids: impl IntoIterator<Item = u32>,
        words: Option<&Array>,
    ) -> Result<Vec<f32>, ParameterError> {
        let mut all = Vec::new();
        for id in ids {
            match continued(words, id, config.vocab_size) {
                Some(row) => all.extend_from_slice(row),
                None => all.extend_from_slice(self.row(source, config, id)?),
            }
        }
        source.done_with(TOKEN_TABLE);
        Ok(all)
    }
}

/// The row of a word, where the id is one: rows of words follow those of the table.
fn continued(words: Option<&Array>, id: u32, vocabulary: usize) -> Option<&[f32]> {
    let words = words?;
    let row = (id as usize).checked_sub(vocabulary)?;
    words.values().chunks_exact(words.shape.channels().max(1)).nth(row)
}
