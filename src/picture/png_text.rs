//! PNG's text chunks: tEXt (Latin-1), zTXt (the same, compressed), iTXt (UTF-8). Many programs
//! write UTF-8 into all of them.
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::png_chunks::{chunks, is_cut};
use super::{Error, Result};

/// More text than this, decompressed and of all keywords together, is an attack, not a prompt.
const MAX_TEXT: usize = 16 << 20;
const KINDS: [&[u8]; 3] = [b"tEXt", b"zTXt", b"iTXt"];
/// The beginning of a picture of one pixel, and its data, of which there is none: between them the
/// texts are read, whatever picture they come from.
const HEADER: [u8; 33] =
    *b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55";
const DATA: [u8; 12] = *b"\0\0\0\0IDAT\x35\xaf\x06\x1e";

/// A keyword and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextChunk {
    pub keyword: String,
    pub text: String,
}

/// Puts text chunks before the picture's data: tEXt where Latin-1 has all of the characters, else
/// iTXt, as Pillow and therefore web UIs do; iTXt also where the Latin-1 would be read as UTF-8.
/// NUL, which ends a text in PNG, is left out.
pub(super) fn add<W: Write>(
    encoder: &mut png::Encoder<'_, W>,
    chunks: &[TextChunk],
) -> std::result::Result<(), png::EncodingError> {
    for TextChunk { keyword, text } in chunks {
        let text = text.replace('\0', "");
        if text.chars().all(|c| u32::from(c) <= 0xff) && meant(&text) == text {
            encoder.add_text_chunk(keyword.clone(), text)?;
        } else {
            encoder.add_itxt_chunk(keyword.clone(), text)?;
        }
    }
    Ok(())
}

/// What a text that was read as Latin-1 is meant to be. What is well-formed UTF-8 beyond ASCII is
/// hardly ever anything else.
fn meant(latin1: &str) -> String {
    let bytes: Option<Vec<u8>> = latin1.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| latin1.to_string())
}

/// The text chunks of a PNG file with these keywords, before or after the picture's data: the first
/// of each kind and keyword. Nothing else of the file is looked at.
pub(super) fn read(path: &Path, bytes: &[u8], keywords: &[&str]) -> Result<Vec<TextChunk>> {
    let mut seen = BTreeSet::new();
    let mut small = HEADER.to_vec();
    for chunk in chunks(bytes).filter(|chunk| KINDS.contains(&chunk.name)) {
        let keyword = chunk.data.split(|byte| *byte == 0).next().unwrap_or_default();
        let wanted = keywords.iter().any(|wanted| wanted.as_bytes() == keyword);
        if wanted && seen.insert((chunk.name, keyword)) {
            small.extend_from_slice(chunk.whole);
        }
    }
    small.extend_from_slice(&DATA);
    let damaged = |reason: String| Error::Damaged { path: path.to_path_buf(), reason };
    let limits = png::Limits { bytes: MAX_TEXT.saturating_add(small.len()) };
    let decoder = png::Decoder::new_with_limits(std::io::Cursor::new(small), limits);
    let reader = decoder.read_info().map_err(|e| damaged(e.to_string()))?;
    let found = collect(path, reader.info())?;
    // Settings that stand whole in front of damaged picture data are as good as any.
    if found.is_empty() && is_cut(bytes) {
        return Err(damaged("it ends too early".into()));
    }
    Ok(found)
}

fn collect(path: &Path, info: &png::Info<'_>) -> Result<Vec<TextChunk>> {
    let bad = |keyword: &str, reason: String| Error::Text {
        path: path.to_path_buf(),
        keyword: keyword.to_string(),
        reason,
    };
    let mut left = MAX_TEXT;
    let mut found = Vec::new();
    let mut take = |keyword: String, text: String| {
        match left.checked_sub(text.len()) {
            Some(rest) => left = rest,
            None => {
                let most = MAX_TEXT >> 20;
                return Err(bad(
                    &keyword,
                    format!("with it there are more than {most} MiB of text"),
                ));
            }
        }
        found.push(TextChunk { keyword, text });
        Ok(left)
    };
    let mut limit = MAX_TEXT;
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        let text = chunk.decompress_text_with_limit(limit).and_then(|()| chunk.get_text());
        let text = text.map_err(|e| bad(&chunk.keyword, e.to_string()))?;
        limit = take(chunk.keyword, text)?;
    }
    for chunk in &info.uncompressed_latin1_text {
        limit = take(chunk.keyword.clone(), meant(&chunk.text))?;
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        let text = chunk.decompress_text_with_limit(limit).and_then(|()| chunk.get_text());
        let text = text.map_err(|e| bad(&chunk.keyword, e.to_string()))?;
        limit = take(chunk.keyword, meant(&text))?;
    }
    Ok(found)
}
