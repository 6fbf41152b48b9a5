//! Concepts as people list them: on the command line, in TOML or JSON, and in the method's own
//! JSON.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, Result};
use crate::concept::ScaledFile;
use crate::file_kind::read_text;
use crate::plainly::plainly;

/// One concept that is asked for, its file not read yet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedConcept {
    /// The concept's file.
    #[serde(alias = "lora_path", alias = "file")]
    pub path: PathBuf,
    /// Factor on the updates of the UNet.
    #[serde(default = "one", alias = "unet_alpha")]
    pub unet: f32,
    /// Factor on the updates of the text encoder.
    #[serde(default = "one", alias = "text_encoder_alpha")]
    pub text: f32,
    /// What stands for the concept in prompts, where it is not its words in their order.
    #[serde(default, alias = "concept_name")]
    pub prompt: Option<String>,
}

fn one() -> f32 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(alias = "concepts")]
    concept: Vec<ListedConcept>,
}

impl ListedConcept {
    /// From what [`ScaledFile`] reads.
    ///
    /// # Errors
    /// What is wrong with the scales.
    pub fn parse(text: &str) -> Result<ListedConcept> {
        let ScaledFile { path, unet, text } =
            ScaledFile::parse(text).map_err(|problem| Error::option("--concept", problem))?;
        Ok(ListedConcept { path, unet, text, prompt: None })
    }

    /// All of a list: TOML with a `[[concept]]` for each, or a JSON array of objects, whose keys
    /// may be the method's (`lora_path`, `concept_name`, `unet_alpha`, `text_encoder_alpha`). Paths
    /// are meant from the list's folder, or from where the program runs if there is no such file
    /// there.
    ///
    /// # Errors
    /// A file that cannot be read or is neither.
    pub fn read(path: &Path) -> Result<Vec<ListedConcept>> {
        let text = read_text(path, "a list of concepts (TOML or JSON)")
            .map_err(Error::io(path, "read"))?;
        let bad = |problem: String| Error::List { path: path.to_path_buf(), problem };
        let json =
            text.trim_start().starts_with(['[', '{']) && !text.trim_start().starts_with("[[");
        let mut all: Vec<ListedConcept> = if json {
            let value: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| bad(plainly(&e.to_string())))?;
            match value.is_array() {
                true => serde_json::from_value(value).map_err(|e| bad(plainly(&e.to_string())))?,
                false => {
                    serde_json::from_value::<Table>(value)
                        .map_err(|e| bad(plainly(&e.to_string())))?
                        .concept
                }
            }
        } else {
            toml::from_str::<Table>(&text).map_err(|e| bad(plainly(&e.to_string())))?.concept
        };
        if all.is_empty() {
            return Err(bad("it lists no concepts".into()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for listed in &mut all {
            let beside = folder.join(&listed.path);
            if listed.path.is_relative() && (beside.exists() || !listed.path.exists()) {
                listed.path = beside;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_written_as_everywhere() {
        let parsed = |text| {
            let listed = ListedConcept::parse(text).unwrap();
            (listed.path.display().to_string(), listed.unet, listed.text)
        };
        assert_eq!(parsed("a.safetensors:0.7"), ("a.safetensors".into(), 0.7, 0.7));
        assert_eq!(parsed("a.safetensors:unet=0.7"), ("a.safetensors".into(), 0.7, 1.0));
        let error = ListedConcept::parse("a:unet=x").unwrap_err().to_string();
        assert!(error.contains("--concept") && error.contains("unet is `x`"), "{error}");
    }

    #[test]
    fn lists_of_all_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            ListedConcept::read(&path)
        };
        let file = folder.path().join("a.pth");
        let expected = ListedConcept {
            path: file.clone(),
            unet: 0.7,
            text: 1.0,
            prompt: Some("<a1> <a2>".into()),
        };
        let published = r#"[{"lora_path": "a.pth", "unet_alpha": 0.7, "text_encoder_alpha": 1.0, "concept_name": "<a1> <a2>"}]"#;
        assert_eq!(at("a.json", published).unwrap(), std::slice::from_ref(&expected));
        let toml = "[[concept]]\npath = \"a.pth\"\nunet = 0.7\nprompt = \"<a1> <a2>\"\n";
        assert_eq!(at("a.toml", toml).unwrap(), [expected]);
        for (name, wrong) in [
            ("b.json", "[]"),
            ("c.json", r#"[{"path": "a", "scale": 1}]"#),
            ("d.toml", "x = 1"),
            ("e.json", "[{}]"),
        ] {
            assert!(at(name, wrong).is_err(), "{wrong}");
        }
    }
}
