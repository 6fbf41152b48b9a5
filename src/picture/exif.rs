//! EXIF's texts, in which programs keep the settings of a JPEG or WebP picture.
//!
//! The standard has a user comment of type UNDEFINED in the Exif directory. Programs write it with
//! other types, into the first directory, and with directories that end too early.
use std::collections::BTreeMap;
use std::path::Path;

use exif::{Context, Exif, In, Tag, Value};

use super::{Error, Result};

/// What the user comment is called in PNG.
const PARAMETERS: &str = "parameters";
const COMMENT: &str = "UserComment";
/// What Fooocus' maker note is called in PNG, and how its `Software` begins.
const SCHEME: &str = "fooocus_scheme";
const FOOOCUS: &[u8] = b"Fooocus";
/// ComfyUI writes its texts with the keyword before them, beginning here.
const KEYWORD_FIRST: [Tag; 3] = [Tag::Model, Tag::Make, Tag::ImageDescription];
const KEYWORDS: [&str; 2] = ["prompt", "workflow"];
/// More than this is no text of settings.
const MAX_TEXT: usize = 16 << 20;

/// The texts of an EXIF block, by the keywords that PNG has for them; none where nothing can be
/// made out.
///
/// # Errors
/// A user comment in an encoding that is not read, or without end.
pub(super) fn texts(path: &Path, block: Vec<u8>) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let bad = |reason: String| Error::Text {
        path: path.to_path_buf(),
        keyword: COMMENT.to_string(),
        reason,
    };
    if block.len() > MAX_TEXT {
        return Err(bad(format!("EXIF has more than {} MiB", MAX_TEXT >> 20)));
    }
    let Some(exif) = parse(block) else { return Ok(texts) };
    for tag in KEYWORD_FIRST {
        let text = bytes(&exif, tag).map(|bytes| utf8(&bytes)).unwrap_or_default();
        if let Some((keyword, text)) = text.split_once(':')
            && KEYWORDS.contains(&keyword)
        {
            texts.entry(keyword.to_string()).or_insert_with(|| plain(text));
        }
    }
    if let Some(comment) = bytes(&exif, Tag::UserComment) {
        let text = text_of(&comment, exif.little_endian()).map_err(bad)?;
        texts.extend(Some((PARAMETERS.to_string(), text)).filter(|(_, text)| !text.is_empty()));
    }
    if bytes(&exif, Tag::Software).is_some_and(|by| by.starts_with(FOOOCUS)) {
        let scheme = bytes(&exif, Tag::MakerNote).map(|scheme| plain(&utf8(&scheme)));
        texts.extend(scheme.map(|scheme| (SCHEME.to_string(), scheme)));
    }
    Ok(texts)
}

/// All of a block that can be read.
fn parse(block: Vec<u8>) -> Option<Exif> {
    // piexif leaves out where the next directory is, and text stands there instead.
    let read = exif::Reader::new().continue_on_error(true).read_raw(block);
    read.or_else(|error| error.distill_partial_result(|_| ())).ok()
}

/// The bytes of a text, in the directory where it belongs or in the first one, whatever its type.
fn bytes(exif: &Exif, tag: Tag) -> Option<Vec<u8>> {
    let field = |tag| exif.get_field(tag, In::PRIMARY);
    match &field(tag).or_else(|| field(Tag(Context::Tiff, tag.number())))?.value {
        Value::Undefined(bytes, _) | Value::Byte(bytes) => Some(bytes.clone()),
        Value::SByte(bytes) => Some(bytes.iter().map(|byte| byte.cast_unsigned()).collect()),
        Value::Ascii(parts) => Some(parts.join(&0)),
        _ => None,
    }
}

fn plain(text: &str) -> String {
    text.trim_matches('\0').trim().to_string()
}

/// Eight bytes name the encoding; the text follows.
fn text_of(bytes: &[u8], little_endian: bool) -> std::result::Result<String, String> {
    let (code, text) = bytes.split_at_checked(8).unwrap_or((&[], bytes));
    let text = match code {
        b"UNICODE\0" => utf16(text, little_endian),
        b"JIS\0\0\0\0\0" => return Err("it is in the encoding JIS, which is not read".to_string()),
        // Undefined, and what stands for ASCII with some programs, is UTF-8 with most.
        b"ASCII\0\0\0" | [0, 0, 0, 0, 0, 0, 0, 0] => utf8(text),
        _ => utf8(bytes),
    };
    Ok(plain(&text))
}

/// UTF-8, else Latin-1.
fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes)
        .map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), String::from)
}

/// The standard says: in the byte order of the file. Some programs always write one order, and some
/// UTF-8.
fn utf16(bytes: &[u8], little_endian: bool) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.trim_end_matches('\0').contains('\0') => return text.to_string(),
        _ => {}
    }
    let order = |little: bool| -> Vec<u16> {
        let unit = |pair: &[u8]| match (pair, little) {
            (&[low, high], true) | (&[high, low], false) => Some(u16::from_be_bytes([high, low])),
            // With the type of text, the zero at the end is taken for its end.
            (&[low], true) => Some(u16::from(low)),
            _ => None,
        };
        bytes.chunks(2).filter_map(unit).collect()
    };
    // The names of settings are ASCII: the order in which more of the text is.
    let ascii = |units: &[u16]| units.iter().filter(|unit| (1..0x80).contains(*unit)).count();
    let (own, other) = (order(little_endian), order(!little_endian));
    let units = if ascii(&other) > ascii(&own) { other } else { own };
    String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_a_user_comment_is_read() {
        let with = |code: &[u8], text: Vec<u8>| [code.to_vec(), text].concat();
        let text = "a café, 猫\nSteps: 20, Sampler: Euler";
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for file_is_little in [false, true] {
            for bytes in [
                with(b"UNICODE\0", big.clone()),
                with(b"UNICODE\0", little.clone()),
                with(b"UNICODE\0", [&[0xff, 0xfe], &little[..]].concat()),
                with(b"UNICODE\0", text.into()),
                with(b"ASCII\0\0\0", text.into()),
                with(&[0; 8], with(text.as_bytes(), vec![0, 0])),
                text.into(),
            ] {
                assert_eq!(text_of(&bytes, file_is_little).unwrap(), text, "{bytes:?}");
            }
        }
        assert_eq!(text_of(b"ASCII\0\0\0caf\xe9", false).unwrap(), "café");
        assert!(text_of(b"JIS\0\0\0\0\0abc", false).unwrap_err().contains("JIS"));
        assert_eq!(text_of(b"", true).unwrap(), "");
        assert_eq!(text_of(b"UNICODE\0a", true).unwrap(), "a");
    }
}
