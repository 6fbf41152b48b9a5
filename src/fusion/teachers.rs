//! Who teaches the fused UNet: concepts and ordinary prompts alone, and scenes, in regions and in
//! one prompt.

use std::path::Path;

use super::Result;
use super::base::Runner;
use super::collect::RecordedSubject;
use super::encodings::Encodings;
use super::predictions::Predicted;
use super::scenes::Scene;
use super::settings::Settings;

/// As the encoding of the empty prompt is named.
pub(super) const EMPTY: &str = "empty";

/// Whose predictions are trained.
pub(super) enum Learnt<'a> {
    Subject(RecordedSubject<'a>),
    Scene(Scene<'a>),
    /// What a scene's models predict in regions, for one prompt that names all.
    OnePrompt(Scene<'a>),
}

impl Learnt<'_> {
    /// What it is.
    pub fn key(&self) -> String {
        match self {
            Learnt::Subject(subject) => format!("{} {:?}", subject.key, subject.sampled),
            Learnt::Scene(scene) => scene.key.clone(),
            Learnt::OnePrompt(scene) => format!("one prompt {}", scene.key),
        }
    }

    /// Predictions of each half for one of its prompts or views.
    pub fn each(&self) -> usize {
        let (seeds, steps) = match self {
            Learnt::Subject(subject) => (subject.seeds, subject.steps),
            Learnt::Scene(scene) | Learnt::OnePrompt(scene) => (scene.seeds, scene.steps),
        };
        (seeds as usize * steps).max(1)
    }

    /// What is read of it by the fused text encoders.
    pub fn encode(&self, path: &Path, runner: &Runner, settings: &Settings) -> Result<Encodings> {
        match self {
            Learnt::Subject(subject) => {
                let prompts = subject.sampled.iter().enumerate();
                let read = prompts.map(|(number, prompt)| {
                    Ok((prompt_name(number, 0), runner.read(subject, prompt, false)?))
                });
                let empty = std::iter::once_with(|| {
                    Ok((EMPTY.to_string(), runner.read_empty(subject, false)?))
                });
                Encodings::write(path, runner, read.chain(empty))
            }
            Learnt::Scene(scene) => {
                let mut read = Vec::new();
                for (number, view) in scene.views.iter().enumerate() {
                    let pairs = scene.read(runner, view, settings, false)?;
                    for (slot, [empty, prompt]) in pairs.into_iter().enumerate() {
                        read.push(Ok((prompt_name(number, slot), prompt)));
                        if (number, slot) == (0, 0) {
                            read.push(Ok((EMPTY.to_string(), empty)));
                        }
                    }
                }
                Encodings::write(path, runner, read.into_iter())
            }
            Learnt::OnePrompt(scene) => {
                let read = scene.read_one_prompts(runner, settings)?.into_iter().enumerate();
                let named = read.map(|(number, prompt)| Ok((prompt_name(number, 0), prompt)));
                Encodings::write(path, runner, named)
            }
        }
    }
}

/// As encodings are named: of a prompt or view, the whole picture's and those of regions.
pub(super) fn prompt_name(number: usize, slot: usize) -> String {
    format!("prompt.{number}.{slot}")
}

/// One whose predictions are trained.
pub(super) struct Teacher<'a> {
    pub learnt: Learnt<'a>,
    pub weight: f64,
    pub predicted: Predicted,
    /// So many of its lessons at most.
    pub most: usize,
}

impl Teacher<'_> {
    pub fn lessons(&self) -> usize {
        (self.predicted.count * self.halves().len()).min(self.most)
    }

    /// Which halves of guidance are learnt, that of the empty prompt being the second. With one
    /// prompt for a scene it would be what regions have already.
    pub fn halves(&self) -> &'static [bool] {
        match &self.learnt {
            Learnt::OnePrompt(_) => &[false],
            _ if self.predicted.guided => &[false, true],
            _ => &[false],
        }
    }
}
