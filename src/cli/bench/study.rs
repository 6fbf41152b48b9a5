//! What measurements of concepts have in common: folders of concepts, how they are trained, what is
//! asked of them.
use std::path::{Path, PathBuf};

use mixofshow::NumberRange as Range;
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::metrics::{Evaluation, Towers};
use mixofshow::picture::Picture;
use mixofshow::pipeline::Request;
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::training::config::{Options as Given, Settings};
use mixofshow::training::folder::pictures_in;
use mixofshow::training::step::Method;
use serde::Deserialize;

use crate::cli::{Failure, Result, files, values};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folders of concepts, each with pictures, captions, masks and a concept.json
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Model, which must bring a vision tower
    #[arg(short, long, value_name = "PATH", default_value = SHIPPED)]
    pub model: String,
    /// Where concepts and sheets go; concepts that are there already are not trained again
    #[arg(short, long, value_name = "FOLDER", default_value = "out/concepts")]
    pub output: PathBuf,
    /// Settings of all runs: a TOML file
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Updates of each run [default: as `mos train`]
    #[arg(long, value_name = "COUNT", value_parser = Range::COUNT.parser::<usize>())]
    pub steps: Option<usize>,
    /// Pictures of each prompt
    #[arg(
        long, value_name = "COUNT", default_value_t = 2,
        value_parser = values::TIMES.parser::<u64>()
    )]
    pub seeds: u64,
    /// Sampling steps
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = Range::whole(1, 1000).parser::<usize>())]
    pub sampling_steps: usize,
    /// Guidance
    #[arg(short, long, value_name = "SCALE", default_value_t = 5.0)]
    #[arg(value_parser = Range::NOT_NEGATIVE.parser::<f32>())]
    pub guidance: f32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A folder's `concept.json`.
#[derive(Deserialize)]
struct About {
    words: Vec<String>,
    class_word: String,
}

/// A concept that can be trained.
pub struct Subject {
    pub name: String,
    /// Its words as they stand in a prompt.
    pub phrase: String,
    pub class_word: String,
    folder: PathBuf,
}

impl Options {
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint::open_named(&self.model, files::models().as_deref())?)
    }

    /// The concepts, once it is known that `files` can be written into the folder for results.
    pub fn subjects(&self, files: impl Fn(&Subject) -> Vec<String>) -> Result<Vec<Subject>> {
        files::check_folder(&self.output)?;
        let subjects = self.all_subjects()?;
        let mut inputs = self.folders.clone();
        inputs.extend(self.settings.clone());
        inputs.extend(files::model(&self.model));
        for file in subjects.iter().flat_map(files) {
            files::check(&self.output.join(&file))?;
            files::check_apart(&self.output.join(&file), &inputs)?;
        }
        Ok(subjects)
    }

    fn all_subjects(&self) -> Result<Vec<Subject>> {
        self.folders.iter().map(|folder| Subject::open(folder)).collect()
    }

    /// How `subject` is trained by `method`.
    pub fn learning(&self, subject: &Subject, method: Method) -> Result<Settings> {
        let own = Given {
            method: Some(method),
            words: Some(subject.phrase.clone()),
            class_word: Some(subject.class_word.clone()),
            pictures: Some(subject.folder.clone()),
            model: Some(self.model.clone()),
            output: Some(self.output.join(format!("{}-{method}.safetensors", subject.name))),
            steps: self.steps,
            sheet_every: Some(0),
            ..Given::default()
        };
        let all = match &self.settings {
            Some(path) => Given::read_toml(path)?,
            None => Given::default(),
        };
        Ok(Settings::new(own.or(all))?)
    }

    /// What is asked of a model that knows `subject`: `prompts` have `<TOK>` where its words go.
    pub fn evaluation(
        &self,
        subject: &Subject,
        towers: &Towers,
        prompts: &[&str],
    ) -> Result<Evaluation> {
        let mut trained_on = Vec::new();
        for path in pictures_in(&subject.folder).map_err(|e| Failure::Failed(e.into()))? {
            trained_on.push(towers.picture(&Picture::open(path)?)?);
        }
        Ok(Evaluation {
            prompts: prompts.iter().map(|prompt| prompt.to_string()).collect(),
            class: subject.class_word.clone(),
            seeds: (1..=self.seeds).collect(),
            request: self.request(),
            trained_on,
        })
    }

    pub fn request(&self) -> Request {
        Request {
            steps: self.sampling_steps,
            guidance: self.guidance,
            sampler: Some(SamplerKind::DPMPP_2M),
            ..Request::default()
        }
    }
}

impl Subject {
    fn open(folder: &Path) -> Result<Subject> {
        let path = folder.join("concept.json");
        let damaged =
            |problem: String| Failure::Failed(format!("{}: {problem}", path.display()).into());
        let text = std::fs::read_to_string(&path).map_err(|e| damaged(e.to_string()))?;
        let About { words, class_word } =
            serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        Ok(Subject {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            phrase: words.join(" "),
            class_word,
            folder: folder.to_path_buf(),
        })
    }
}
