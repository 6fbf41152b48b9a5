//! Models and concepts by name: what lies in the given folders, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::checkpoint::SHIPPED;

use super::error::Error;
use super::problem::Problem;

/// Endings of models' files.
const MODELS: [&str; 3] = ["safetensors", "ckpt", "gguf"];
/// Endings of concepts' and LoRAs' files.
const CONCEPTS: [&str; 4] = ["safetensors", "pt", "pth", "bin"];
/// What is in a folder that is a model.
const MODEL_INDEX: &str = "model_index.json";
/// What is in a folder that is a LoRA: PEFT's, and diffusers' names.
const ADAPTERS: [&str; 4] = [
    "adapter_config.json",
    "pytorch_lora_weights.safetensors",
    "unet/adapter_config.json",
    "text_encoder/adapter_config.json",
];

/// A model or a concept that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// By which it is asked for: the file's name without its ending, where only one has it.
    pub name: String,
    /// The name of its file or folder.
    pub file: String,
    /// None: it ships with the program.
    pub path: Option<PathBuf>,
}

impl Listed {
    /// As the command line names it.
    pub fn given(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => SHIPPED.to_string(),
        }
    }
}

/// The folders, and which model is taken where none is named.
pub struct Shelf {
    models: Vec<PathBuf>,
    concepts: Vec<PathBuf>,
    albums: Vec<PathBuf>,
    /// The name of a model.
    chosen: Mutex<String>,
}

impl Shelf {
    /// # Errors
    /// A folder that cannot be read; no model at all.
    pub fn new(
        models: &[PathBuf],
        concepts: &[PathBuf],
        albums: &[PathBuf],
    ) -> Result<Shelf, Error> {
        let all = [("models", models), ("concepts", concepts), ("pictures", albums)];
        for (what, folders) in all {
            for path in folders {
                let unreadable = |source| Error::Folder { path: path.clone(), what, source };
                std::fs::read_dir(path).map_err(unreadable)?;
            }
        }
        let [models, concepts, albums] = [models, concepts, albums].map(<[PathBuf]>::to_vec);
        let mut shelf = Shelf { models, concepts, albums, chosen: Mutex::default() };
        let first = shelf.models().into_iter().next().ok_or(Error::NoModel)?;
        shelf.chosen = Mutex::new(first.name);
        Ok(shelf)
    }

    /// The name of the model that is taken where none is named.
    pub fn chosen(&self) -> String {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn choose(&self, name: &str) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = name.to_string();
    }

    /// The model of that name, or the one that is chosen.
    pub fn model_or_chosen(&self, name: Option<String>) -> Result<Listed, Problem> {
        self.model(&name.unwrap_or_else(|| self.chosen()))
    }

    /// All models, by their names; the one that ships is the last.
    pub fn models(&self) -> Vec<Listed> {
        let is_folder = |path: &Path| path.join(MODEL_INDEX).is_file();
        let mut models = listed(&self.models, &MODELS, &is_folder);
        if cfg!(feature = "tiny-model") {
            models.retain(|model| model.name != SHIPPED);
            models.push(Listed { name: SHIPPED.into(), file: SHIPPED.into(), path: None });
        }
        models
    }

    /// All concepts and LoRAs, by their names.
    pub fn concepts(&self) -> Vec<Listed> {
        let is_folder = |path: &Path| ADAPTERS.iter().any(|file| path.join(file).is_file());
        listed(&self.concepts, &CONCEPTS, &is_folder)
    }

    /// All folders of pictures to teach from, by their names.
    pub fn albums(&self) -> Vec<Listed> {
        listed(&self.albums, &[], &|_| true)
    }

    /// Whether there is where a concept that is taught goes, and a model that is fused.
    pub fn takes(&self) -> [bool; 2] {
        [!self.concepts.is_empty() && !self.albums.is_empty(), !self.models.is_empty()]
    }

    /// The folder of pictures of that name.
    pub fn album(&self, name: &str) -> Result<Listed, Problem> {
        find(self.albums(), name).map_err(|known| {
            let known = match &*known {
                "" => "none are listed (mos serve --pictures names folders)",
                known => &format!("there are: {known}"),
            };
            let words = format!("there is no folder of pictures `{}`; {known}", shown(name));
            Problem::missing(words).of("pictures")
        })
    }

    /// Where a concept of that name goes.
    pub fn new_concept(&self, name: &str) -> Result<PathBuf, Problem> {
        let Some(folder) = self.concepts.first() else {
            return Err(Problem::asked("concepts have no folder: mos serve --concepts names one"));
        };
        let output = folder.join(format!("{}.safetensors", new_name(name)?));
        free("a concept or LoRA", &self.concepts(), name, &output)?;
        Ok(output)
    }

    /// Where a model of that name goes.
    pub fn new_model(&self, name: &str) -> Result<PathBuf, Problem> {
        let Some(folder) = self.models.first() else {
            return Err(Problem::asked("models have no folder: mos serve --models names one"));
        };
        let output = folder.join(new_name(name)?);
        free("a model", &self.models(), name, &output)?;
        Ok(output)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Result<Listed, Problem> {
        find(self.models(), name).map_err(|known| {
            let words = format!("there is no model `{}`; there are: {known}", shown(name));
            Problem::missing(words).of("model")
        })
    }

    /// The concept or LoRA of that name.
    pub fn concept(&self, name: &str) -> Result<Listed, Problem> {
        find(self.concepts(), name).map_err(|known| {
            let known = match &*known {
                "" => "none are listed (mos serve --concepts names folders)",
                known => &format!("there are: {known}"),
            };
            let words = format!("there is no concept or LoRA `{}`; {known}", shown(name));
            Problem::missing(words).of("concepts")
        })
    }
}

/// A name for a file that is made: of letters, digits, `-` and `_`, so that it leads nowhere else.
fn new_name(name: &str) -> Result<&str, Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        true => Ok(name),
        false => {
            let expected = "letters, digits, - and _, up to 64";
            Err(Problem::value("name", format!("`{}`", shown(name)), expected))
        }
    }
}

/// An error where requests already mean something else by that name, or a file stands there.
fn free(what: &str, all: &[Listed], name: &str, output: &Path) -> Result<(), Problem> {
    let is_it = |listed: &Listed| [&listed.name, &listed.file].iter().any(|n| n.as_str() == name);
    match all.iter().any(is_it) || output.exists() {
        true => Err(Problem::taken(format!("there is {what} `{name}` already")).of("name")),
        false => Ok(()),
    }
}

/// Not more of what somebody sent than a message takes.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The one that is called so, or the names of all.
fn find(all: Vec<Listed>, name: &str) -> Result<Listed, String> {
    // Web UIs put a hash behind: `sd15.safetensors [6ce0161689]`.
    let plain = name.rsplit_once(" [").filter(|(_, hash)| hash.ends_with(']'));
    let plain = plain.map_or(name, |(plain, _)| plain);
    let is_it =
        |listed: &&Listed| [name, plain].iter().any(|n| listed.name == *n || listed.file == *n);
    match all.iter().find(is_it) {
        Some(found) => Ok(found.clone()),
        None => Err(all.into_iter().map(|listed| listed.name).collect::<Vec<_>>().join(", ")),
    }
}

/// What of the folders' entries is meant, by name. Links are followed: whoever chose the folder
/// chose them.
fn listed(folders: &[PathBuf], endings: &[&str], is_folder: &dyn Fn(&Path) -> bool) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut paths: Vec<PathBuf> =
            entries.flatten().map(|entry| folder.join(entry.file_name())).collect();
        paths.sort();
        for path in paths {
            let (Some(file), Some(stem)) = (
                path.file_name().and_then(|name| name.to_str()),
                path.file_stem().and_then(|name| name.to_str()),
            ) else {
                continue;
            };
            if file.starts_with('.') {
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let name = match path.is_dir() {
                true if is_folder(&path) => file,
                false if endings.contains(&ending.to_ascii_lowercase().as_str()) => stem,
                _ => continue,
            };
            let is_taken = |name: &str| found.iter().any(|other| other.name == name);
            // A second one of the name is asked for with its ending; a third not at all.
            let Some(name) = [name, file].into_iter().find(|name| !is_taken(name)) else {
                continue;
            };
            let (name, file) = (name.to_string(), file.to_string());
            found.push(Listed { name, file, path: Some(path) });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_folders_is_found_by_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for file in ["a.safetensors", "a.ckpt", "notes.txt", ".hidden.safetensors", "b.gguf"] {
            std::fs::write(at.join(file), "").unwrap();
        }
        std::fs::create_dir_all(at.join("whole.model")).unwrap();
        std::fs::write(at.join("whole.model").join(MODEL_INDEX), "").unwrap();
        std::fs::create_dir_all(at.join("other")).unwrap();
        let shelf = Shelf::new(&[at.to_path_buf()], &[], &[]).unwrap();
        let names: Vec<String> = shelf.models().into_iter().map(|model| model.name).collect();
        let mut expected = vec!["a", "a.safetensors", "b", "whole.model"];
        if cfg!(feature = "tiny-model") {
            expected.push(SHIPPED);
        }
        assert_eq!(names, expected);
        let path = |name: &str| shelf.model(name).unwrap().path;
        assert_eq!(path("b.gguf"), Some(at.join("b.gguf")));
        assert_eq!(path("a.safetensors [0123456789]"), Some(at.join("a.safetensors")));
        for outside in [
            "",
            "..",
            ".",
            "/etc/passwd",
            "../a",
            "other",
            "notes.txt",
            ".hidden",
            "./a",
            "a/",
            "b\0",
        ] {
            let problem = shelf.model(outside).unwrap_err();
            assert!(problem.words.contains("there are: a, "), "{outside}: {problem:?}");
            assert!(shelf.concept(outside).unwrap_err().words.contains("--concepts"));
        }
        assert_eq!(shelf.new_model("new-1_a").unwrap(), at.join("new-1_a"));
        for wrong in ["", ".", "..", "a/b", "../a", "a.b", "/a", "a b", "ä", "a\0", &"a".repeat(65)]
        {
            assert!(shelf.new_model(wrong).unwrap_err().words.contains("letters"), "{wrong}");
        }
        for taken in ["a", "b"] {
            assert!(shelf.new_model(taken).unwrap_err().words.contains("already"), "{taken}");
        }
        assert!(shelf.new_concept("a").unwrap_err().words.contains("--concepts"));
        let gone = Shelf::new(&[], &[at.join("gone")], &[]).err().unwrap().to_string();
        assert!(gone.contains("gone") && gone.contains("concepts"), "{gone}");
    }
}
