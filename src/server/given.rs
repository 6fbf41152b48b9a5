//! Pictures that requests bring.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use crate::picture::{self, Mask, Picture};
use crate::pipeline::recipe::{Source, hex};

use super::limits::Limits;
use super::problem::Problem;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The file of a picture, of a size that is taken.
pub struct Given {
    /// As errors and settings call it: the field that it came in.
    name: String,
    bytes: Vec<u8>,
}

/// Bytes as clients take them.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

impl Given {
    /// Of base64, with `data:image/png;base64,` before it or not.
    pub fn of_base64(name: &str, text: &str, limits: &Limits) -> Result<Given, Problem> {
        let text = match text.strip_prefix("data:") {
            Some(rest) => match rest.split_once(',') {
                Some((kind, text)) if kind.ends_with(";base64") => text,
                _ => return Err(Problem::value(name, "a data URL", "one of base64")),
            },
            None => text,
        };
        let wrong = |_| Problem::value(name, "no base64", "a picture's file in base64");
        let bytes = match text.contains(char::is_whitespace) {
            true => BASE64.decode(text.split_whitespace().collect::<String>()).map_err(wrong)?,
            false => BASE64.decode(text).map_err(wrong)?,
        };
        Given::of_bytes(name, bytes, limits)
    }

    /// Of the file itself.
    pub fn of_bytes(name: &str, bytes: Vec<u8>, limits: &Limits) -> Result<Given, Problem> {
        let of = |problem: picture::Error| Problem::from(problem).of(name);
        let (width, height) = picture::measure_bytes(name, &bytes).map_err(of)?;
        if width as usize * height as usize > limits.sent_pixels {
            let expected = format!("{} pixels in all at most", limits.sent_pixels);
            let found = format!("a picture of {width} x {height} pixels");
            return Err(Problem::value(name, found, &expected));
        }
        Ok(Given { name: name.to_string(), bytes })
    }

    /// How settings tell of it, which no file holds.
    pub fn source(&self) -> Source {
        Source {
            path: format!("sent ({})", self.name).into(),
            sha256: hex(&Sha256::digest(&self.bytes)),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn picture(&self) -> Result<Picture, Problem> {
        let picture = Picture::from_bytes(&self.name, self.bytes.clone());
        picture.map_err(|error| Problem::from(error).of(&self.name))
    }

    /// White is painted anew.
    pub fn mask(&self) -> Result<Mask, Problem> {
        let mask = Mask::from_bytes(&self.name, self.bytes.clone());
        mask.map_err(|error| Problem::from(error).of(&self.name))
    }

    /// What is transparent is painted anew; none where nothing can be.
    pub fn transparency(&self) -> Result<Option<Mask>, Problem> {
        let mask = Mask::of_transparency(&self.name, self.bytes.clone());
        mask.map_err(|error| Problem::from(error).of(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_in_base64_of_any_form_and_of_a_sane_size() {
        let mut file = Vec::new();
        Picture::filled(8, 16, [9, 8, 7]).unwrap().write_to(&mut file, None).unwrap();
        let (limits, plain) = (Limits::default(), base64(&file));
        let folded: Vec<&str> =
            plain.as_bytes().chunks(7).map(|c| str::from_utf8(c).unwrap()).collect();
        for text in [
            plain.clone(),
            format!("data:image/png;base64,{plain}"),
            folded.join("\n"),
            plain.trim_end_matches('=').to_string(),
        ] {
            let given = Given::of_base64("image", &text, &limits).unwrap();
            assert_eq!(given.picture().unwrap().pixel(3, 3), Some([9, 8, 7]));
            assert!(given.transparency().unwrap().is_none());
            assert_eq!(given.source().path.to_str(), Some("sent (image)"));
        }
        for (text, says) in [
            ("", "this is an empty file"),
            ("§", "base64"),
            ("data:image/png,abc", "base64"),
            ("/etc/passwd", "image is no base64"),
            ("aGVsbG8=", "image: not a picture"),
        ] {
            let problem = Given::of_base64("image", text, &limits).err().unwrap();
            assert!(problem.words.contains(says), "{text}: {problem:?}");
            assert_eq!(problem.field.as_deref(), Some("image"));
        }
        let small = Limits { sent_pixels: 127, ..limits };
        let problem = Given::of_base64("image", &plain, &small).err().unwrap();
        assert!(problem.words.contains("8 x 16"), "{problem:?}");
    }
}
