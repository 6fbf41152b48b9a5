//! EXIF's user comment, in which web UIs keep the settings of a JPEG or WebP picture.
use std::io::BufReader;
use std::path::Path;

use exif::{In, Tag, Value};
use image::{ImageDecoder, ImageReader};

use super::{Error, Result};

const KEYWORD: &str = "UserComment";

/// The user comment of any picture file; none where it has none.
///
/// # Errors
/// A file that cannot be read; a comment in an encoding that is not.
pub(super) fn user_comment(path: &Path) -> Result<Option<String>> {
    let unreadable = |source| Error::Unreadable { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let reader =
        ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(unreadable)?;
    // What is no picture, or has no EXIF that can be made out, has no comment either.
    let block =
        reader.into_decoder().ok().and_then(|mut decoder| decoder.exif_metadata().ok().flatten());
    let Some(exif) = block.and_then(|block| exif::Reader::new().read_raw(block).ok()) else {
        return Ok(None);
    };
    let Some(Value::Undefined(bytes, _)) =
        exif.get_field(Tag::UserComment, In::PRIMARY).map(|field| &field.value)
    else {
        return Ok(None);
    };
    let text = text_of(bytes, exif.little_endian()).map_err(|reason| Error::Text {
        path: path.to_path_buf(),
        keyword: KEYWORD.to_string(),
        reason,
    })?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
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
    Ok(text.trim_end_matches('\0').to_string())
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
        let unit = |pair: &[u8]| {
            let pair = [pair[0], pair[1]];
            if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        bytes.chunks_exact(2).map(unit).collect()
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
