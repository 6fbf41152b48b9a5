//! The state of a run as one file: all that a run needs to go on to the same bytes.
//!
//! A safetensors file that appears whole or not at all: `state.<name>` for every array of the
//! step's state (see [`super::step::State`]), `history` `[updates, 3]` (loss, its part from the
//! regularisation, norm of the embeddings), and in the metadata `mos_training`, a JSON object
//! ([`About`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::Settings;
use super::error::{Error, Result};
use super::step::State;
use crate::backend::Rounding;
use crate::checkpoint::{self, TensorFile, TensorView};
use crate::graph::Array;
use crate::numbers::counted;

const KEY: &str = checkpoint::STATE_KEY;
const VERSION: u32 = 1;
const STATE: &str = "state.";
const HISTORY: &str = "history";

/// Settings that change nothing about what is trained.
const FREE: [&str; 8] = [
    "name",
    "output",
    "save_every",
    "sheet_every",
    "prompts",
    "sheet_scales",
    "sheet_steps",
    "sheet_guidance",
];

/// What a state belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Of this layout.
    pub version: u32,
    /// Updates done.
    pub step: u64,
    /// The embeddings have reached their limit, and stand still.
    pub embeddings_stopped: bool,
    /// Those of the run.
    pub settings: Settings,
    /// Hash of the base model.
    pub base: String,
    /// Hash of pictures, captions and masks.
    pub pictures: String,
    /// Hash of class pictures and their captions, once they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The adapter that made it: others agree up to rounding.
    pub adapter: String,
    /// What that adapter rounded to f16 besides weights, where it is a graphics adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// Where the run was given another number of updates: at which update, and how many it was to
    /// have until then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<[u64; 2]>,
}

/// A state with what it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// What it belongs to.
    pub about: About,
    /// What is trained, with its moments.
    pub state: State,
    /// Of each update: loss, the regularisation's part of it, and the embeddings' norm after it.
    pub history: Vec<[f32; 3]>,
}

impl About {
    /// Of a run that has made no update.
    pub fn new(settings: &Settings, base: String, pictures: String, adapter: String) -> About {
        let (settings, lengths) = (settings.clone(), Vec::new());
        About {
            version: VERSION,
            step: 0,
            embeddings_stopped: false,
            settings,
            base,
            pictures,
            class: None,
            adapter,
            rounding: None,
            lengths,
        }
    }

    /// Why a run `self` cannot go on from the state `saved`; empty if it can.
    pub fn differences(&self, saved: &About) -> Vec<String> {
        let mut found = Vec::new();
        let as_json = |about: &About| serde_json::to_value(&about.settings).unwrap_or_default();
        if let (Value::Object(now), Value::Object(then)) = (as_json(self), as_json(saved)) {
            for (key, value) in now.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                let before = then.get(key).unwrap_or(&Value::Null);
                // A run may be made longer or shorter, but not than what is done.
                if key == "steps" && self.settings.steps as u64 >= saved.step {
                    continue;
                }
                // The model and the pictures are told by their contents.
                if value != before && !["model", "folders", "prior_folder"].contains(&key.as_str())
                {
                    let done = if key == "steps" {
                        format!(", and {} are done", saved.step)
                    } else {
                        String::new()
                    };
                    found.push(format!("{key} is {value}, the run began with {before}{done}"));
                }
            }
        }
        if self.base != saved.base {
            found.push(format!(
                "the model's hash is {}, the run began with {}",
                self.base, saved.base
            ));
        }
        if self.pictures != saved.pictures {
            found.push("the pictures, captions or masks have changed since the run began".into());
        }
        let own = |about: &About| about.settings.prior_folder.is_some();
        if own(self) != own(saved) {
            found.push("class pictures came from elsewhere when the run began".into());
        } else if own(self) && self.class != saved.class {
            found.push("the class pictures or captions have changed since the run began".into());
        }
        found
    }
}

impl Saved {
    /// Writes the file, whole or not at all: on any failure the one before stays as it is.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn write(&self, path: &Path) -> Result<()> {
        let view = |name: String, array: &'_ Array| -> Result<(String, TensorView<'static>)> {
            let bytes: Vec<u8> = array.values().iter().flat_map(|v| v.to_le_bytes()).collect();
            let problem = || Error::State {
                path: path.to_path_buf(),
                problem: format!("`{name}` contradicts its own shape"),
            };
            let view = TensorView::new(checkpoint::DType::F32, array.shape.to_vec(), bytes)
                .ok_or_else(problem)?;
            Ok((name, view))
        };
        let mut tensors = Vec::with_capacity(self.state.arrays.len() + 1);
        for (name, array) in &self.state.arrays {
            tensors.push(view(format!("{STATE}{name}"), array)?);
        }
        tensors.push(view(
            HISTORY.into(),
            &Array::f32([self.history.len(), 3], self.history.concat()),
        )?);
        let about = About {
            step: self.state.step,
            embeddings_stopped: self.state.embeddings_stopped,
            ..self.about.clone()
        };
        let about = serde_json::to_string(&about).map_err(|e| Error::State {
            path: path.to_path_buf(),
            problem: format!("cannot be written: {e}"),
        })?;
        Ok(checkpoint::write(path, &tensors, &BTreeMap::from([(KEY.to_string(), about)]))?)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A file that is no state, or a damaged one, with what is wrong with it.
    pub fn read(path: &Path) -> Result<Saved> {
        let fail = |problem: String| Error::State { path: path.to_path_buf(), problem };
        let file = TensorFile::open(path)?;
        let about = file
            .metadata()
            .get(KEY)
            .ok_or_else(|| fail(format!("no state of a tuning run (no `{KEY}` in it)")))?;
        let about: About = serde_json::from_str(about)
            .map_err(|e| fail(format!("`{KEY}` in it cannot be read: {e}")))?;
        if about.version != VERSION {
            return Err(fail(format!(
                "a state of version {}, this program reads version {VERSION}",
                about.version
            )));
        }
        let mut arrays = BTreeMap::new();
        let mut history = Vec::new();
        for name in file.names() {
            let Some(view) = file.tensor(name) else { continue };
            let values = view.to_f32(0..view.len());
            if values.iter().any(|v| !v.is_finite()) && name != HISTORY {
                return Err(fail(format!("tensor `{name}` has values that are no numbers")));
            }
            match name.strip_prefix(STATE) {
                Some(array) => {
                    arrays.insert(array.to_string(), Array::f32(view.shape().to_vec(), values));
                }
                None if name == HISTORY => history = values.as_chunks::<3>().0.to_vec(),
                None => return Err(fail(format!("tensor `{name}` has no meaning in a state"))),
            }
        }
        if history.len() as u64 != about.step {
            return Err(fail(format!(
                "it tells of {}, but {} were done",
                counted(history.len(), "update"),
                about.step
            )));
        }
        let state = State {
            arrays,
            step: about.step,
            accumulated: 0,
            embeddings_stopped: about.embeddings_stopped,
        };
        Ok(Saved { about, state, history })
    }
}

/// Where a run's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The concept.
    pub output: PathBuf,
    /// `NAME.training`, beside it: everything else.
    pub folder: PathBuf,
}

impl Places {
    /// Of the run that writes `output`.
    pub fn of(output: &Path) -> Places {
        Places { output: output.to_path_buf(), folder: output.with_extension("training") }
    }

    /// The saved state.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    /// The picture of the loss.
    pub fn curve(&self) -> PathBuf {
        self.folder.join("curve.png")
    }

    /// Pictures of the class that the model made.
    pub fn class(&self) -> PathBuf {
        self.folder.join("class")
    }

    /// The sheet after `step` updates.
    pub fn sheet(&self, step: u64) -> PathBuf {
        self.folder.join(format!("sheet-{step:06}.png"))
    }

    /// Whether all can be written, before any work. Nothing is made.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn check(&self) -> Result<()> {
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Unwritable { path, source }
        };
        if self.output == self.folder {
            let problem = "the folder for all else would have the same name: use another ending, \
                such as .safetensors";
            return Err(fail(&self.output)(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                problem,
            )));
        }
        crate::output::check(&self.output).map_err(fail(&self.output))?;
        for folder in [&self.folder, &self.class()] {
            crate::output::check_folder(folder).map_err(fail(folder))?;
        }
        for path in [self.state(), self.curve(), self.sheet(0)] {
            crate::output::check(&path).map_err(fail(&path))?;
        }
        Ok(())
    }

    /// Makes the folder, after [`Places::check`].
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn prepare(&self) -> Result<()> {
        self.check()?;
        let unwritable = |source| Error::Unwritable { path: self.folder.clone(), source };
        std::fs::create_dir_all(&self.folder).map_err(unwritable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::config::Options;

    fn saved() -> Saved {
        let given = Options {
            words: Some("<a1> <a2>".into()),
            class_word: Some("man".into()),
            pictures: Some("pictures".into()),
            ..Options::default()
        };
        let settings = Settings::new(given).unwrap();
        let about = About::new(&settings, "aa".into(), "bb".into(), "a card".into());
        let array = |from: f32| Array::f32([2, 3], (0..6).map(|i| from + i as f32 / 3.0).collect());
        let arrays =
            [("rows".to_string(), array(0.1)), ("first.rows".to_string(), array(-1.0))].into();
        let state = State { arrays, step: 2, accumulated: 0, embeddings_stopped: true };
        let about = About { step: 2, embeddings_stopped: true, ..about };
        Saved { about, state, history: vec![[0.5, 0.1, 0.3], [0.25, f32::NAN, 0.4]] }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let mut saved = saved();
        saved.history[1][1] = 0.2;
        saved.write(&path).unwrap();
        assert_eq!(Saved::read(&path).unwrap(), saved);
        let bytes = std::fs::read(&path).unwrap();
        saved.write(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let error = || Saved::read(&path).unwrap_err().to_string();
        let mut short = saved();
        short.history.pop();
        short.write(&path).unwrap();
        assert!(error().contains("it tells of 1 update, but 2 were done"), "{}", error());
        let mut bad = saved();
        bad.state.arrays.insert("rows".into(), Array::f32([1], vec![f32::NAN]));
        bad.write(&path).unwrap();
        assert!(error().contains("`state.rows`"), "{}", error());
        checkpoint::write(&path, &[], &BTreeMap::new()).unwrap();
        assert!(error().contains(KEY), "{}", error());
        checkpoint::write(&path, &[], &BTreeMap::from([(KEY.to_string(), "{}".to_string())]))
            .unwrap();
        assert!(error().contains("cannot be read"), "{}", error());
        saved().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(Saved::read(&path).is_err());
    }

    #[test]
    fn a_state_belongs_to_its_run() {
        let saved = saved().about;
        let mut now = saved.clone();
        now.settings.sheet_every = 7;
        now.settings.output = "elsewhere".into();
        now.settings.model = "the same by another name".into();
        assert_eq!(now.differences(&saved), [""; 0]);
        // Longer, or shorter: as long as it is not shorter than what is done.
        for steps in [2, 3, 5000] {
            now.settings.steps = steps;
            assert_eq!(now.differences(&saved), [""; 0]);
        }
        now.settings.steps = 1;
        now.base = "cc".into();
        now.pictures = "dd".into();
        let found = now.differences(&saved);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], "steps is 1, the run began with 1000, and 2 are done");
        assert!(found[1].contains("cc") && found[1].contains("aa"));
    }

    #[test]
    fn places_are_checked_before_work() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("zorp.safetensors"));
        places.prepare().unwrap();
        assert_eq!(places.state(), folder.path().join("zorp.training/state.safetensors"));
        std::fs::create_dir(places.curve()).unwrap();
        assert!(places.prepare().unwrap_err().to_string().contains("curve.png"));
        let nowhere = Places::of(&places.curve().join("a/b.safetensors"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        nowhere.check().unwrap();
        assert!(!places.curve().join("a").exists());
        nowhere.prepare().unwrap();
        assert!(places.curve().join("a/b.training").is_dir());
        let same =
            Places::of(&folder.path().join("zorp.training")).check().unwrap_err().to_string();
        assert!(same.contains("same name"), "{same}");
        assert!(Places::of(&folder.path().join(format!("{}.x", "n".repeat(250)))).check().is_err());
        assert!(Places::of(&folder.path().join("file/b.safetensors")).prepare().is_err());
    }
}
