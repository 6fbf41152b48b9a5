//! Concepts and LoRAs, read from their files.

use std::path::PathBuf;

use mixofshow::Applied;
use mixofshow::checkpoint::adapter_files;
use mixofshow::concept::{self, dialects};
use mixofshow::pipeline::recipe::{ConceptSource, Source};
use pyo3::prelude::*;

use crate::errors::OrRaise;

/// A concept or a LoRA, in use at some strength.
#[pyclass(frozen, module = "mixofshow")]
pub struct Concept {
    /// The file, or the folder of PEFT or diffusers.
    #[pyo3(get)]
    path: PathBuf,
    /// Factor of its LoRA in the UNet, and, unless told apart, in the text encoder.
    #[pyo3(get)]
    scale: f32,
    /// That of the text encoder's part, where it is another.
    #[pyo3(get)]
    text_scale: Option<f32>,
    /// What was left out or guessed while it was read.
    #[pyo3(get)]
    notes: Vec<String>,
    /// Several where a folder has one for each network.
    files: Vec<(Source, concept::Concept)>,
}

#[pymethods]
impl Concept {
    #[new]
    #[pyo3(signature = (path, scale = 1.0, *, text_scale = None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        scale: f32,
        text_scale: Option<f32>,
    ) -> PyResult<Concept> {
        py.detach(|| {
            let (mut files, mut notes) = (Vec::new(), Vec::new());
            for file in adapter_files(&path).or_raise()? {
                let (concept, told) = dialects::read(&file).or_raise()?;
                notes.extend(told);
                files.push((Source::of(&file).or_raise()?, concept));
            }
            Ok(Concept { path, scale, text_scale, notes, files })
        })
    }

    /// As regions name it.
    #[getter]
    fn name(&self) -> String {
        self.files.first().map(|(_, concept)| concept.name.clone()).unwrap_or_default()
    }

    /// The words that stand for it in prompts, in order; a LoRA has none.
    #[getter]
    fn words(&self) -> Vec<String> {
        let words = self.files.iter().flat_map(|(_, concept)| &concept.words);
        words.map(|word| word.text.clone()).collect()
    }

    /// The hash of the model that it was taught on, where its file says so.
    #[getter]
    fn base(&self) -> Option<String> {
        self.files.iter().find_map(|(_, concept)| concept.base).map(|base| base.to_string())
    }

    /// The same concept at another strength.
    #[pyo3(signature = (scale, *, text_scale = None))]
    fn at(&self, scale: f32, text_scale: Option<f32>) -> Concept {
        let (path, notes, files) = (self.path.clone(), self.notes.clone(), self.files.clone());
        Concept { path, scale, text_scale, notes, files }
    }

    fn __repr__(&self) -> String {
        format!("Concept({:?}, {}, words={:?})", self.path, self.scale, self.words())
    }
}

impl Concept {
    /// Of its files: in use, and as settings name them.
    pub fn applied(&self) -> PyResult<Vec<(Applied, ConceptSource)>> {
        let applied = |(source, concept): &(Source, concept::Concept)| {
            let named = ConceptSource {
                source: source.clone(),
                scale: self.scale,
                text_scale: self.text_scale.filter(|text| *text != self.scale),
            };
            let applied = Applied::scaled(concept.clone(), |network| named.scale_of(network));
            Ok((applied.or_raise()?, named))
        };
        self.files.iter().map(applied).collect()
    }

    /// The concept itself, of one file.
    pub fn concept(&self) -> Option<&concept::Concept> {
        match &self.files[..] {
            [(_, concept)] => Some(concept),
            _ => None,
        }
    }

    /// Where it was read from.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Of the UNet's part and of the text encoder's.
    pub fn scales(&self) -> [f32; 2] {
        [self.scale, self.text_scale.unwrap_or(self.scale)]
    }
}
