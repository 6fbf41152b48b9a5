//! The concepts and LoRAs of a picture: as options, and found again.
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{Checkpoint, adapter_files, base_hash_cache};
use mixofshow::concept::{self, Applied, ScaledFile, dialects};
use mixofshow::pipeline::recipe::{ConceptSource, Recipe, Source};

use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Result, files};

const HEADING: &str = "Concepts";

#[derive(clap::Args)]
pub struct ConceptArguments {
    /// A concept whose words stand in the prompts; how strong its LoRA is [default: 1]; may be
    /// repeated
    ///
    /// A concept file of `mos train`, of Mix-of-Show (.pth or safetensors), a LoRA of kohya's,
    /// PEFT's, diffusers' or ComfyUI's names, or a textual inversion, told apart by content; or a
    /// folder that PEFT or diffusers wrote. The scale multiplies its LoRA; at 0 its words act
    /// alone. FILE:unet=0.8,text=1 scales its two parts apart. Several may be given. `mos inspect
    /// FILE` tells the words.
    #[arg(short, long, value_name = "FILE[:SCALE]", help_heading = HEADING)]
    concept: Vec<String>,
    /// The same for LoRAs without words
    #[arg(long, value_name = "FILE[:SCALE]", help_heading = HEADING)]
    lora: Vec<String>,
    /// Use concepts that were made for another base model
    #[arg(long, help_heading = HEADING)]
    force_base: bool,
}

impl ConceptArguments {
    /// Notes the files in the recipe and reads them. Without any given, those that the recipe names
    /// are found again: where they were, beside the picture `like`, or in the folder of models.
    pub fn open(
        &self,
        recipe: &mut Recipe,
        like: Option<&Path>,
        terminal: &Terminal,
    ) -> Result<Vec<Applied>> {
        if self.concept.is_empty() && self.lora.is_empty() {
            let places: Vec<PathBuf> = like
                .and_then(Path::parent)
                .map(Path::to_path_buf)
                .into_iter()
                .chain(files::models())
                .collect();
            for named in &mut recipe.concepts {
                named.source = find(&named.source, &places)?;
            }
        } else {
            recipe.concepts.clear();
            for given in self.concept.iter().chain(&self.lora) {
                let ScaledFile { path, unet, text } =
                    ScaledFile::parse(given).map_err(Failure::Usage)?;
                for file in adapter_files(&path)? {
                    recipe.concepts.push(ConceptSource {
                        source: Source::of(&file)?,
                        scale: unet,
                        text_scale: Some(text).filter(|text| *text != unet),
                    });
                }
            }
        }
        let mut applied = Vec::new();
        for named in &recipe.concepts {
            let (concept, notes) = dialects::read(&named.source.path)?;
            for note in notes {
                terminal.remark(format!("{}: {note}", named.source.path.display()));
            }
            applied.push(Applied::scaled(concept, |network| named.scale_of(network))?);
        }
        Ok(applied)
    }

    /// An error if a concept was made for another model.
    pub fn check_base(&self, concepts: &[Applied], model: &Checkpoint) -> Result<()> {
        if !self.force_base {
            concept::check_base(
                concepts.iter().map(Applied::concept),
                model,
                base_hash_cache().as_deref(),
            )?;
        }
        Ok(())
    }
}

/// The same file, by its hash.
fn find(source: &Source, places: &[PathBuf]) -> Result<Source> {
    let name = source.path.file_name().map(PathBuf::from).unwrap_or_default();
    let mut candidates = vec![source.path.clone()];
    candidates.extend(places.iter().map(|place| place.join(&name)));
    let mut changed = None;
    for path in candidates {
        match Source::of(&path) {
            Ok(found) if found.sha256 == source.sha256 => return Ok(found),
            Ok(found) => changed = changed.or(Some(found)),
            Err(_) => {}
        }
    }
    let lost = Lost {
        path: source.path.clone(),
        sha256: source.sha256.clone(),
        changed: changed.map(|found| found.path),
    };
    Err(lost.into())
}

#[derive(Debug, thiserror::Error)]
#[error("that picture was made with the concept {} (SHA-256 {sha256}), which is missing{}: \
    --concept FILE says where it is now",
    path.display(), changed.as_ref().map(|c| format!(" ({} is another file)",
    c.display())).unwrap_or_default())]
struct Lost {
    path: PathBuf,
    sha256: String,
    changed: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_again_by_their_contents() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("a.safetensors"), folder.path().join("there"));
        std::fs::create_dir(&there).unwrap();
        std::fs::write(&here, "one").unwrap();
        let source = Source::of(&here).unwrap();
        assert_eq!(find(&source, &[]).map_err(|_| ()), Ok(source.clone()));
        std::fs::rename(&here, there.join("a.safetensors")).unwrap();
        assert_eq!(
            find(&source, std::slice::from_ref(&there)).map_err(|_| ()).unwrap().path,
            there.join("a.safetensors")
        );
        std::fs::write(&here, "another").unwrap();
        let Err(crate::cli::Failure::Failed(error)) = find(&source, &[]) else {
            panic!("it is not there")
        };
        let error = error.to_string();
        assert!(error.contains(&source.sha256) && error.contains("is another file"), "{error}");
    }
}
