//! PNG's text chunks: tEXt (Latin-1), zTXt (the same, compressed), iTXt (UTF-8). Many programs
//! write UTF-8 into all of them.
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use super::{Error, Result};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
/// Decompressed text beyond this is an attack, not a prompt.
const MAX_TEXT: usize = 16 << 20;
const MAX_MEMORY: usize = 256 << 20;

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

/// All text chunks with one of these keywords, before or after the picture's data. `None`: not a
/// PNG file.
pub(super) fn read(path: &Path, keywords: &[&str]) -> Result<Option<Vec<TextChunk>>> {
    let unreadable = |source| Error::Unreadable { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut start = Vec::new();
    (&mut file).take(SIGNATURE.len() as u64).read_to_end(&mut start).map_err(unreadable)?;
    if start != SIGNATURE {
        return Ok(None);
    }
    file.rewind().map_err(unreadable)?;
    let limits = png::Limits { bytes: MAX_MEMORY };
    let decoder = png::Decoder::new_with_limits(BufReader::new(file), limits);
    let damaged =
        |e: png::DecodingError| Error::Damaged { path: path.to_path_buf(), reason: e.to_string() };
    let mut reader = decoder.read_info().map_err(damaged)?;
    let before = collect(path, reader.info(), keywords)?;
    match reader.finish() {
        Ok(()) => collect(path, reader.info(), keywords).map(Some),
        // Settings that stand whole in front of damaged picture data are as good as any.
        Err(_) if !before.is_empty() => Ok(Some(before)),
        Err(e) => Err(damaged(e)),
    }
}

fn collect(path: &Path, info: &png::Info<'_>, keywords: &[&str]) -> Result<Vec<TextChunk>> {
    let wanted = |keyword: &str| keywords.contains(&keyword);
    let bad = |keyword: &str, e: png::DecodingError| Error::Text {
        path: path.to_path_buf(),
        keyword: keyword.to_string(),
        reason: e.to_string(),
    };
    let mut found = Vec::new();
    for chunk in info.utf8_text.iter().filter(|c| wanted(&c.keyword)) {
        let mut chunk = chunk.clone();
        let text = chunk.decompress_text_with_limit(MAX_TEXT).and_then(|()| chunk.get_text());
        found.push(TextChunk {
            text: text.map_err(|e| bad(&chunk.keyword, e))?,
            keyword: chunk.keyword,
        });
    }
    for chunk in info.uncompressed_latin1_text.iter().filter(|c| wanted(&c.keyword)) {
        found.push(TextChunk { keyword: chunk.keyword.clone(), text: meant(&chunk.text) });
    }
    for chunk in info.compressed_latin1_text.iter().filter(|c| wanted(&c.keyword)) {
        let mut chunk = chunk.clone();
        let text = chunk.decompress_text_with_limit(MAX_TEXT).and_then(|()| chunk.get_text());
        let text = text.map_err(|e| bad(&chunk.keyword, e))?;
        found.push(TextChunk { text: meant(&text), keyword: chunk.keyword });
    }
    Ok(found)
}
