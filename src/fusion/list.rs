//! Concepts as people list them: on the command line, in TOML or JSON, and in the method's own
//! JSON.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, Result};
use crate::file_kind::read_text;

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
    /// From `FILE` or `FILE:unet=0.8,text=1.0`.
    ///
    /// # Errors
    /// A factor that is no number, or something else than a factor after the last colon's first
    /// name.
    pub fn parse(text: &str) -> Result<ListedConcept> {
        let bare =
            |path: &str| ListedConcept { path: path.into(), unet: 1.0, text: 1.0, prompt: None };
        // A colon may also be part of the path.
        let Some((path, options)) =
            text.rsplit_once(':').filter(|(_, options)| options.contains('='))
        else {
            return Ok(bare(text));
        };
        let mut listed = bare(path);
        for option in options.split(',') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let refuse = |problem: String| Error::option(format!("--concept {text}"), problem);
            let number = value.trim().parse::<f32>().ok().filter(|v| v.is_finite());
            let number =
                number.ok_or_else(|| refuse(format!("{name} is `{value}`: expected a number")))?;
            match name.trim() {
                "unet" => listed.unet = number,
                "text" => listed.text = number,
                other => {
                    return Err(refuse(format!("`{other}` is unknown: expected unet or text")));
                }
            }
        }
        Ok(listed)
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
                serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
            match value.is_array() {
                true => serde_json::from_value(value).map_err(|e| bad(e.to_string()))?,
                false => {
                    serde_json::from_value::<Table>(value).map_err(|e| bad(e.to_string()))?.concept
                }
            }
        } else {
            toml::from_str::<Table>(&text).map_err(|e| bad(e.to_string()))?.concept
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

    fn listed(path: &str, unet: f32, text: f32) -> ListedConcept {
        ListedConcept { path: path.into(), unet, text, prompt: None }
    }

    #[test]
    fn scales_follow_a_colon() {
        for (text, expected) in [
            ("a.safetensors", listed("a.safetensors", 1.0, 1.0)),
            ("a.safetensors:unet=0.8", listed("a.safetensors", 0.8, 1.0)),
            ("x/a:text=0.5,unet=2", listed("x/a", 2.0, 0.5)),
            (r"C:\a.safetensors", listed(r"C:\a.safetensors", 1.0, 1.0)),
            (r"C:\a.safetensors:unet=1", listed(r"C:\a.safetensors", 1.0, 1.0)),
        ] {
            assert_eq!(ListedConcept::parse(text).unwrap(), expected, "{text}");
        }
        for wrong in ["a:unet=x", "a:unet=inf", "a:vae=1", "a:unet=1,2"] {
            assert!(ListedConcept::parse(wrong).is_err(), "{wrong}");
        }
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
