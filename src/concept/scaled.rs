//! A concept's file with how strong it is to be, as it is written on the command line.

use std::path::{Path, PathBuf};

/// `FILE`, `FILE:0.8`, or `FILE:unet=0.8,text=1`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledFile {
    /// The file.
    pub path: PathBuf,
    /// Factor on the updates of the UNet.
    pub unet: f32,
    /// Factor on the updates of the text encoder.
    pub text: f32,
}

/// The factors' names.
const NAMES: [&str; 2] = ["unet", "text"];

impl ScaledFile {
    /// A file whose own name ends like a scale is meant as it is, if it is there.
    ///
    /// # Errors
    /// What is wrong with the scales.
    pub fn parse(given: &str) -> Result<ScaledFile, String> {
        let mut scaled = ScaledFile { path: given.into(), unet: 1.0, text: 1.0 };
        if Path::new(given).exists() {
            return Ok(scaled);
        }
        // A colon may also be part of the path.
        let Some((path, scales)) = given.rsplit_once(':').filter(|(path, _)| !path.is_empty())
        else {
            return Ok(scaled);
        };
        let named = |part: &str| {
            let (name, value) = part.split_once('=')?;
            let name = name.trim();
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
            is_name.then(|| (name.to_string(), value.to_string()))
        };
        let number = |name: &str, value: &str| match value.trim().parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(format!("{given}: {name} is `{value}`, expected a number")),
        };
        if scales.trim().parse::<f32>().is_ok() {
            scaled.unet = number("the scale", scales)?;
            scaled.text = scaled.unet;
        } else if scales.split(',').next().is_some_and(|first| named(first).is_some()) {
            let mut seen = Vec::new();
            for part in scales.split(',') {
                let (name, value) = named(part).unwrap_or((part.to_string(), String::new()));
                if seen.contains(&name) {
                    return Err(format!("{given}: {name} is there twice"));
                }
                seen.push(name.clone());
                match NAMES.iter().position(|known| *known == name) {
                    Some(0) => scaled.unet = number(&name, &value)?,
                    Some(_) => scaled.text = number(&name, &value)?,
                    None => {
                        return Err(format!(
                            "{given}: no scale is called `{name}`, expected FILE:0.8 or \
                                FILE:unet=0.8,text=1"
                        ));
                    }
                }
            }
        } else {
            return Ok(scaled);
        }
        scaled.path = path.into();
        Ok(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_stand_behind_the_last_colon() {
        for (given, path, unet, text) in [
            ("a.safetensors", "a.safetensors", 1.0, 1.0),
            ("a.safetensors:0.8", "a.safetensors", 0.8, 0.8),
            ("a.safetensors:unet=0.8", "a.safetensors", 0.8, 1.0),
            ("x/a:text=0.5,unet=2", "x/a", 2.0, 0.5),
            ("x/a: text = 0.5, unet = -2", "x/a", -2.0, 0.5),
            ("c:a:-1", "c:a", -1.0, -1.0),
            (r"C:\a.safetensors", r"C:\a.safetensors", 1.0, 1.0),
            (r"C:\a=b.safetensors", r"C:\a=b.safetensors", 1.0, 1.0),
            (r"C:\a.safetensors:unet=1", r"C:\a.safetensors", 1.0, 1.0),
            (":0.5", ":0.5", 1.0, 1.0),
        ] {
            let expected = ScaledFile { path: path.into(), unet, text };
            assert_eq!(ScaledFile::parse(given), Ok(expected), "{given}");
        }
        for wrong in ["a:unet=x", "a:unet=inf", "a:vae=1", "a:unet=1,2", "a:nan", "a:inf"] {
            let error = ScaledFile::parse(wrong).unwrap_err();
            assert!(error.starts_with(wrong) && error.contains("expected"), "{error}");
        }
        assert!(ScaledFile::parse("a:unet=1,unet=2").unwrap_err().ends_with("unet is there twice"));
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a:1");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(ScaledFile::parse(odd.to_str().unwrap()).unwrap().path, odd);
    }
}
