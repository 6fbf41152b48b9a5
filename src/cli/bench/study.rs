//! What measurements of concepts have in common: folders of concepts, how they are trained, what is
//! asked of them.
use std::path::{Path, PathBuf};

use mixofshow::NumberRange as Range;
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::metrics::{Evaluation, Part, Towers};
use mixofshow::picture::{Mask, Picture};
use mixofshow::pipeline::Request;
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::training::config::{Options as Given, Settings};
use mixofshow::training::folder::pictures_in;
use mixofshow::training::step::Method;
use serde::Deserialize;

use crate::cli::{Failure, Result, files, values};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folders of concepts, each with pictures, captions, masks and a concept.json, or of casts,
    /// with a cast.json that names the concepts within
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Only concepts of these class words: man,woman
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub classes: Vec<String>,
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
    other_class: Option<String>,
    #[serde(default)]
    parts: Vec<AboutPart>,
}

#[derive(Deserialize)]
struct AboutPart {
    name: String,
    colour: [u8; 3],
    /// Of what the masks show, on the mean.
    share: f64,
}

/// The file that tells who is in a cast.
const CAST: &str = "cast.json";

#[derive(Deserialize)]
struct AboutCast {
    concepts: Vec<String>,
}

/// A concept that can be trained.
pub struct Subject {
    pub name: String,
    /// The folder that it stands in.
    pub cast: String,
    /// Its words as they stand in a prompt.
    pub phrase: String,
    pub class_word: String,
    /// Another class, which should not come to look like it.
    pub other_class: String,
    /// Parts that have colours of their own, as far as the folder tells of them.
    pub parts: Vec<Part>,
    folder: PathBuf,
}

/// Concepts of one folder, which are fused together.
pub struct Cast {
    pub name: String,
    pub subjects: Vec<Subject>,
}

impl Cast {
    /// Those of each folder, in the order of the folders; within, in that of `subjects`.
    pub fn all(subjects: Vec<Subject>) -> Result<Vec<Cast>> {
        let mut casts: Vec<Cast> = Vec::new();
        for subject in subjects {
            let Some(cast) = casts.iter_mut().find(|cast| cast.name == subject.cast) else {
                casts.push(Cast { name: subject.cast.clone(), subjects: vec![subject] });
                continue;
            };
            let homes = [&subject, &cast.subjects[0]].map(|one| one.folder.parent());
            if homes[0] != homes[1] {
                let [a, b] = homes.map(|home| home.unwrap_or(Path::new("")).display());
                return Err(Failure::Usage(format!(
                    "{a} and {b}: results go by the names of the folders that concepts stand in, \
                        which must differ"
                )));
            }
            cast.subjects.push(subject);
        }
        Ok(casts)
    }
}

/// Classes that are alike, for concepts whose folder names none.
const ALIKE: [[&str; 2]; 8] = [
    ["man", "woman"],
    ["woman", "man"],
    ["cat", "dog"],
    ["dog", "cat"],
    ["rabbit", "cat"],
    ["bird", "rabbit"],
    ["chair", "vase"],
    ["place", "forest"],
];
/// And for all others.
const UNLIKE: &str = "chair";

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
        let mut subjects: Vec<Subject> = Vec::new();
        for folder in &self.folders {
            let folders = match folder.join(CAST).exists() {
                true => read::<AboutCast>(&folder.join(CAST))?
                    .concepts
                    .iter()
                    .map(|name| folder.join(name))
                    .collect(),
                false => vec![folder.clone()],
            };
            for folder in &folders {
                let subject = Subject::open(folder)?;
                if let Some(other) = subjects.iter().find(|other| other.name == subject.name) {
                    return Err(Failure::Usage(format!(
                        "{} and {}: results go by the folders' names, which must differ",
                        other.folder.display(),
                        folder.display()
                    )));
                }
                subjects.push(subject);
            }
        }
        if !self.classes.is_empty() {
            subjects.retain(|subject| self.classes.contains(&subject.class_word));
            if subjects.is_empty() {
                let classes = self.classes.join(", ");
                return Err(Failure::Usage(format!("--classes {classes}: no concept is of these")));
            }
        }
        Ok(subjects)
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
        for (picture, _) in subject.pictures()? {
            trained_on.push(towers.picture(&picture)?);
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
        let About { words, class_word, other_class, parts } = read(&folder.join("concept.json"))?;
        let alike = ALIKE.iter().find(|[word, _]| *word == class_word).map(|[_, other]| *other);
        let name = |folder: Option<&Path>| {
            folder
                .and_then(Path::file_name)
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        let covered = if parts.is_empty() { 0.0 } else { covered(&folder.join("mask"))? };
        Ok(Subject {
            name: name(Some(folder)),
            cast: name(folder.parent()),
            phrase: words.join(" "),
            other_class: other_class.unwrap_or_else(|| alike.unwrap_or(UNLIKE).to_string()),
            class_word,
            parts: parts
                .into_iter()
                .map(|AboutPart { name, colour, share }| Part {
                    name,
                    colour,
                    share: share * covered,
                })
                .collect(),
            folder: folder.to_path_buf(),
        })
    }

    /// The pictures that it is trained from, each with its caption, where there is one.
    pub fn pictures(&self) -> Result<Vec<(Picture, Option<String>)>> {
        let paths = pictures_in(&self.folder).map_err(|e| Failure::Failed(e.into()))?;
        let read = |path: &PathBuf| {
            let caption = std::fs::read_to_string(path.with_extension("txt")).ok();
            Ok((Picture::open(path)?, caption.map(|text| text.trim().to_string())))
        };
        paths.iter().map(read).collect()
    }

    /// The same, each with its mask, where there is one.
    pub fn masked(&self) -> Result<Vec<(Picture, Option<Mask>)>> {
        let paths = pictures_in(&self.folder).map_err(|e| Failure::Failed(e.into()))?;
        let read = |path: &PathBuf| {
            let mask = path.file_stem().map(|stem| self.folder.join("mask").join(stem));
            let mask = mask.map(|mask| mask.with_extension("png")).filter(|mask| mask.exists());
            Ok((Picture::open(path)?, mask.map(Mask::open).transpose()?))
        };
        paths.iter().map(read).collect()
    }
}

/// What share of their pictures masks cover, on the mean.
fn covered(masks: &Path) -> Result<f64> {
    let unreadable = |e: std::io::Error| {
        Failure::Failed(format!("{}: the masks cannot be read: {e}", masks.display()).into())
    };
    let (mut sum, mut count) = (0.0, 0usize);
    for path in pictures_in(masks).map_err(unreadable)? {
        let mask = Mask::open(&path)?;
        let inside = mask.values().iter().filter(|value| **value > 0.5).count();
        sum += inside as f64 / mask.values().len().max(1) as f64;
        count += 1;
    }
    Ok(sum / count.max(1) as f64)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let damaged =
        |problem: String| Failure::Failed(format!("{}: {problem}", path.display()).into());
    let text = std::fs::read_to_string(path).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))
}
