//! Tokens into chunks of the text encoder's length.
use std::ops::Range;

use super::super::{Error, Result, Tokenizer};
use super::syntax::Piece;
use super::{Chunk, MAX_WEIGHT};

/// A token on its way into a chunk.
#[derive(Clone)]
struct Entry {
    id: u32,
    weight: f32,
    bytes: Range<usize>,
}

/// One chunk, cut at the tower's length, and a warning that names the text that was cut.
pub(super) fn truncate(tokenizer: &Tokenizer, prompt: &str) -> Result<(Chunk, Option<String>)> {
    let tokens = tokenizer.tokenize(prompt)?;
    let room = tokenizer.max_length().saturating_sub(2);
    let warning = tokens.get(room).map(|first| {
        let cut = prompt.get(first.bytes.start..).unwrap_or_default().trim();
        format!(
            "the prompt has {} tokens, but the model reads {room} (more with --long-prompt); cut \
                off is \"{cut}\"",
            tokens.len()
        )
    });
    let entries =
        tokens.into_iter().take(room).map(|t| Entry { id: t.id, weight: 1.0, bytes: t.bytes });
    Ok((frame(tokenizer, entries.collect()), warning))
}

/// As many chunks as the pieces need. A chunk that is full while the text goes on ends after its
/// last comma instead, if at most `comma_backtrack` tokens follow that comma; what followed moves
/// to the next chunk. (As web UIs do.)
pub(super) fn split(
    tokenizer: &Tokenizer,
    pieces: &[Piece],
    comma_backtrack: usize,
) -> Result<Vec<Chunk>> {
    let room = tokenizer.max_length().saturating_sub(2).max(1);
    let comma = tokenizer.token_id(",</w>");
    let mut chunks = Vec::new();
    let mut current: Vec<Entry> = Vec::with_capacity(room);
    let mut last_comma: Option<usize> = None;
    for piece in pieces {
        let Piece::Text { text, origin, weight } = piece else {
            chunks.push(frame(tokenizer, std::mem::take(&mut current)));
            last_comma = None;
            continue;
        };
        let weight = *weight as f32;
        if !(-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
            let text = text.trim().to_string();
            return Err(Error::Weight { text, weight });
        }
        for token in tokenizer.tokenize(text)? {
            let is_comma = Some(token.id) == comma;
            if is_comma {
                last_comma = Some(current.len());
            } else if current.len() == room
                && let Some(at) = last_comma
                && current.len() - at <= comma_backtrack
            {
                let moved = current.split_off(at + 1);
                chunks.push(frame(tokenizer, std::mem::replace(&mut current, moved)));
                last_comma = None;
            }
            if current.len() == room {
                chunks.push(frame(tokenizer, std::mem::take(&mut current)));
                last_comma = None;
            }
            current.push(Entry { id: token.id, weight, bytes: in_prompt(origin, &token.bytes) });
        }
    }
    if !current.is_empty() || chunks.is_empty() {
        chunks.push(frame(tokenizer, current));
    }
    Ok(chunks)
}

/// A chunk of no text.
pub(super) fn empty(tokenizer: &Tokenizer) -> Chunk {
    frame(tokenizer, Vec::new())
}

/// Start, tokens, end, padding.
fn frame(tokenizer: &Tokenizer, entries: Vec<Entry>) -> Chunk {
    let length = tokenizer.max_length();
    let end = entries.len() + 1;
    let mut chunk =
        Chunk { ids: vec![tokenizer.bos()], weights: vec![1.0], bytes: vec![None], end };
    for Entry { id, weight, bytes } in entries {
        chunk.ids.push(id);
        chunk.weights.push(weight);
        chunk.bytes.push(Some(bytes));
    }
    chunk.ids.push(tokenizer.eos());
    chunk.ids.resize(length, tokenizer.pad());
    chunk.weights.resize(length, 1.0);
    chunk.bytes.resize(length, None);
    chunk
}

/// Bytes of a piece as bytes of the prompt.
fn in_prompt(origin: &[usize], bytes: &Range<usize>) -> Range<usize> {
    let here = origin.get(bytes.clone()).unwrap_or_default();
    match (here.first(), here.last()) {
        (Some(first), Some(last)) => *first..last + 1,
        _ => 0..0,
    }
}
