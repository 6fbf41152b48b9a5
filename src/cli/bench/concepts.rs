//! `mos bench concepts`: how well concepts are trained, and what else comes to look like them.

use mixofshow::backend::Precision;
use mixofshow::concept::{Applied, with_words};
use mixofshow::metrics::{
    Embedding, ImageAlignment, Likeness, Metric, Sample, Scores, TextAlignment, Towers, VisionTower,
};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::Pipeline;
use mixofshow::training::step::Method;

use super::asked::{self, pictures_of, prompts};
use super::kept::{self, InUse, Kept};
use super::shares::{self, CLASS, ConceptReport, PartColour, Report, Scored, TAUGHT};
use super::study::{self, Subject};
use super::who::{self, Who};
use crate::cli::learn::learn_all;
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Global, Result, files, interrupt};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    study: study::Options,
    /// Ways to learn, beside each other: p-plus,lora,ed-lora
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "ed-lora")]
    methods: Vec<Method>,
    #[command(flatten)]
    who: Who,
}

/// One way to ask for a concept.
struct Way {
    what: &'static str,
    /// What stands in prompts.
    words: String,
    /// What stands in the texts that are scored.
    text: String,
    in_use: Vec<InUse>,
    learnt_in: Option<f64>,
}

pub fn run(options: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let study = &options.study;
    let subjects = study.subjects(|subject| vec![format!("{}.png", subject.name)])?;
    for subject in &subjects {
        files::check_folder(&study.output.join(pictures_of(subject)))?;
    }
    let (checkpoint, gpu) = (study.checkpoint()?, global.open()?);
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let towers = Towers::load(&gpu, pipeline.model())?;
    let eye = who::load(&gpu, &options.who.open(&study.model, terminal)?)?;
    let mut lessons = Vec::new();
    for subject in &subjects {
        for method in &options.methods {
            lessons.push(study.learning(subject, *method)?);
        }
    }
    let _watched = interrupt::watched();
    let learnt = learn_all(&lessons, &checkpoint, &gpu, global, terminal)?;
    let kept = Kept::new(&study.model, &checkpoint, &gpu, study.request());
    let mut progress = Progress::new(terminal);
    let of = ways_of(&options.methods) * asked::COUNT * study.seeds as usize * subjects.len();
    let (mut done, mut concepts) = (0, Vec::new());
    let count = options.methods.len();
    let learnt = lessons.chunks(count).zip(learnt.chunks(count));
    for (subject, (lessons, learnt)) in subjects.iter().zip(learnt) {
        let judge = Judge::new(subject, &towers, eye.as_ref())?;
        let mut methods = Vec::new();
        for ((method, lesson), (concept, took)) in options.methods.iter().zip(lessons).zip(learnt) {
            let use_of = |scale: f32| {
                let applied = Applied::new(concept.clone(), scale)?;
                Ok::<_, Failure>(vec![InUse::new(applied, &lesson.output, scale)?])
            };
            methods.push((*method, use_of(1.0)?, use_of(0.0)?, *took));
        }
        let (mut scored, mut shown) = (Vec::new(), Vec::new());
        for way in ways(subject, &methods) {
            let mut pictures = Vec::new();
            for (number, prompt) in prompts(subject).iter().enumerate() {
                for seed in 1..=study.seeds {
                    progress.show_with("pictures", done, of, &subject.name);
                    let folder = study.output.join(pictures_of(subject));
                    let path = kept::path(&folder, way.what, number, seed);
                    files::make_folder_of(&path)?;
                    let prompt = with_words(prompt, &way.words);
                    let made = kept.picture(&mut pipeline, &path, &prompt, seed, &way.in_use)?;
                    pictures.push(made);
                    done += 1;
                }
            }
            scored.push(judge.score(&way, &pictures, study.seeds as usize)?);
            shown.push((way.what, pictures));
        }
        concepts.push(ConceptReport {
            cast: subject.cast.clone(),
            name: subject.name.clone(),
            class_word: subject.class_word.clone(),
            other_class: subject.other_class.clone(),
            taught: judge.taught()?,
            ways: scored,
        });
        let path = study.output.join(format!("{}.png", subject.name));
        sheet(&judge, &shown, study.seeds as usize)?.save(&path, None)?;
        progress.aside(|| terminal.note(format!("{}: {}", subject.name, path.display())));
    }
    drop(progress);
    let report = Report::new(concepts.into_iter().map(ConceptReport::with_shares).collect());
    if study.json {
        return terminal.print_json(&report);
    }
    terminal.print(report.each())?;
    terminal.print(format!("\n{}", report.all()))
}

/// Classes without and with a LoRA, the words of each method, and the last one's with LoRA at 0.
fn ways_of(methods: &[Method]) -> usize {
    4 + methods.len() + usize::from(methods.contains(&Method::EdLora))
}

/// A method with its concept in use, with its LoRA at 1 and at 0.
type Learnt = (Method, Vec<InUse>, Vec<InUse>, Option<f64>);

/// All ways to ask for a concept. What the LoRA does to classes is the last method's.
fn ways(subject: &Subject, methods: &[Learnt]) -> Vec<Way> {
    let way = |what, words: &str, text: &str, in_use: &[InUse], learnt_in| Way {
        what,
        words: words.to_string(),
        text: text.to_string(),
        in_use: in_use.to_vec(),
        learnt_in,
    };
    let (own, other) = (
        asked::class_phrase(subject, &subject.class_word),
        asked::class_phrase(subject, &subject.other_class),
    );
    let on = methods.last().map_or(&[][..], |(_, on, ..)| on);
    let mut ways = vec![way(CLASS, &own, &own, &[], None)];
    for (method, on, off, took) in methods {
        let what = asked::name_of(*method);
        ways.push(way(what, &subject.phrase, &own, on, *took));
        if *method == Method::EdLora {
            ways.push(way("ED-LoRA, LoRA at 0", &subject.phrase, &own, off, None));
        }
    }
    ways.push(way("class word, LoRA on", &own, &own, on, None));
    ways.push(way("another class", &other, &other, &[], None));
    ways.push(way("another class, LoRA on", &other, &other, on, None));
    ways
}

/// What is known of a concept, and by what its pictures are scored.
struct Judge<'a> {
    subject: &'a Subject,
    towers: &'a Towers,
    taught: Vec<(Picture, Option<String>)>,
    trained_on: Vec<Embedding>,
    /// Whoever tells who is who, with what it knows of the concept; nobody tells places.
    identity: Option<(&'a VisionTower, Likeness)>,
}

impl<'a> Judge<'a> {
    fn new(
        subject: &'a Subject,
        towers: &'a Towers,
        eye: Option<&'a VisionTower>,
    ) -> Result<Judge<'a>> {
        let taught = subject.pictures()?;
        let trained_on = taught
            .iter()
            .map(|(picture, _)| Ok(towers.picture(picture)?))
            .collect::<Result<_>>()?;
        let identity = match eye.filter(|_| !asked::is_place(subject)) {
            Some(eye) => Some((eye, Likeness::new(eye, &[subject.masked()?])?)),
            None => None,
        };
        Ok(Judge { subject, towers, taught, trained_on, identity })
    }

    /// `pictures` are in the order of prompts, `seeds` of each.
    fn score(&self, way: &Way, pictures: &[Picture], seeds: usize) -> Result<Scored> {
        let (mut seen, mut texts) = (Vec::new(), Vec::new());
        for (prompt, pictures) in prompts(self.subject).iter().zip(pictures.chunks(seeds.max(1))) {
            let text = self.towers.text(&with_words(prompt, &way.text))?;
            for picture in pictures {
                seen.push(self.towers.picture(picture)?);
                texts.push(text.clone());
            }
        }
        let sample = Sample {
            seen: &seen,
            texts: &texts,
            trained_on: &self.trained_on,
            ..Sample::default()
        };
        let scores = Scores::of(&[&TextAlignment, &ImageAlignment], &sample);
        let figure = |metric: &dyn Metric| scores.get(metric.name());
        Ok(Scored {
            what: way.what,
            pictures: pictures.len(),
            image: figure(&ImageAlignment).unwrap_or(0.0),
            text: figure(&TextAlignment),
            share: None,
            identity: self.identity(pictures)?,
            identity_share: None,
            colours: self.colours(pictures),
            learnt_in: way.learnt_in,
        })
    }

    /// The taught pictures, each against the others and against its own caption.
    fn taught(&self) -> Result<Scored> {
        let class = asked::class_phrase(self.subject, &self.subject.class_word);
        let (mut seen, mut texts) = (Vec::new(), Vec::new());
        for ((_, caption), embedding) in self.taught.iter().zip(&self.trained_on) {
            if let Some(caption) = caption {
                texts.push(self.towers.text(&with_words(caption, &class))?);
                seen.push(embedding.clone());
            }
        }
        let sample = Sample { seen: &seen, texts: &texts, ..Sample::default() };
        let pictures: Vec<Picture> = self.taught.iter().map(|(p, _)| p.clone()).collect();
        Ok(Scored {
            what: TAUGHT,
            pictures: pictures.len(),
            image: among_themselves(&self.trained_on),
            text: TextAlignment.score(&sample),
            share: None,
            identity: self.identity.as_ref().map(|(_, likeness)| likeness.between(0, 0)),
            identity_share: None,
            colours: self.colours(&pictures),
            learnt_in: None,
        })
    }

    /// The mean cosine to the pictures that it was trained from, cut out, as whoever tells who is
    /// who sees them.
    fn identity(&self, pictures: &[Picture]) -> Result<Option<f64>> {
        let Some((eye, likeness)) = &self.identity else { return Ok(None) };
        let mut sum = 0.0;
        for picture in pictures {
            sum += likeness.of_part(*eye, picture, [0.0, 0.0, 1.0, 1.0])?.iter().sum::<f64>();
        }
        Ok(Some(sum / pictures.len().max(1) as f64))
    }

    /// Of each part that is large enough to be seen, how far its colour is in the middle picture.
    fn colours(&self, pictures: &[Picture]) -> Vec<PartColour> {
        /// Eight pixels by eight.
        const SMALLEST: f64 = 64.0;
        let pixels =
            self.taught.first().map_or(0.0, |(p, _)| f64::from(p.width()) * f64::from(p.height()));
        let parts = self.subject.parts.iter().filter(|part| part.share * pixels >= SMALLEST);
        let of_part = |part: &mixofshow::metrics::Part| {
            let distances = pictures.iter().map(|picture| part.distance(picture));
            let distance = shares::median(distances)?;
            Some(PartColour { part: part.name.clone(), distance })
        };
        parts.filter_map(of_part).collect()
    }
}

/// The mean cosine of pictures with each other; one alone is like itself.
fn among_themselves(pictures: &[Embedding]) -> f64 {
    let pairs: Vec<f64> = pictures
        .iter()
        .enumerate()
        .flat_map(|(i, a)| pictures.iter().skip(i + 1).map(|b| a.cosine(b)))
        .collect();
    match pairs.is_empty() {
        true => 1.0,
        false => pairs.iter().sum::<f64>() / pairs.len() as f64,
    }
}

/// The taught pictures, then the first picture of every prompt, a row for each way.
fn sheet(
    judge: &Judge,
    shown: &[(&'static str, Vec<Picture>)],
    seeds: usize,
) -> mixofshow::picture::Result<Picture> {
    let columns = prompts(judge.subject);
    let taught = judge.taught.iter().take(columns.len()).map(|(picture, _)| Some(picture));
    let made =
        shown.iter().map(|(_, pictures)| pictures.iter().step_by(seeds.max(1)).map(Some).collect());
    Sheet {
        rows: [taught.collect()].into_iter().chain(made).collect(),
        row_captions: ["taught"]
            .into_iter()
            .chain(shown.iter().map(|(what, _)| *what))
            .map(str::to_string)
            .collect(),
        column_captions: columns.map(str::to_string).to_vec(),
        gap: 4,
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_among_themselves() {
        let [x, y] = [[1.0, 0.0], [0.0, 1.0]].map(|v| Embedding::new(v.to_vec()));
        let found = among_themselves(&[x.clone(), x.clone(), y.clone()]);
        assert!((found - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(among_themselves(&[x]), 1.0);
    }
}
