//! `mos bench fusion`: what is left of concepts, and of everything else, when they are fused.
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use mixofshow::backend::Device;
use mixofshow::backend::Precision;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::Applied;
use mixofshow::fusion::solve::{Lbfgs, Solver};
use mixofshow::fusion::{self, ConceptToFuse, Distillation, Order, Settings};
use mixofshow::metrics::{self, Evaluation, Sample, Scores, Towers};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::{Pipeline, Request};
use mixofshow::training::{self, step::Method};
use serde::Serialize;

use super::asked::ORDINARY;
use super::study::{self, Subject};
use crate::cli::learn::{Trained, learn_all};
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, Result, files, interrupt};

const PROMPTS: [&str; 2] = ["a photo of a <TOK> on the beach", "a photo of a <TOK> in the snow"];
#[derive(Serialize)]
struct Row {
    what: &'static str,
    /// Image alignment of each concept.
    concepts: Vec<f64>,
    mean: f64,
    /// Pictures of ordinary prompts beside the base model's.
    ordinary: Option<Scores>,
    /// Seconds that fusing took.
    fused_in: Option<f64>,
}

struct Bench<'a> {
    study: &'a study::Options,
    checkpoint: Checkpoint,
    gpu: Device,
    towers: Towers,
    subjects: Vec<Subject>,
    evaluations: Vec<Evaluation>,
    progress: Progress<'a>,
    done: usize,
    rows: Vec<Row>,
    /// Rows of the sheet: what was made, and a picture of each concept and each ordinary prompt.
    shown: Vec<(&'static str, Vec<Picture>)>,
}

/// Ways to fuse.
const WAYS: [&str; 4] = ["distilled", "exact", "L-BFGS", "averaged"];

/// The folder of a fused model.
fn folder_of(study: &study::Options, way: &str) -> PathBuf {
    study.output.join(format!("fused-{}", way.to_lowercase()))
}

pub fn run(study: &study::Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let subjects = study.subjects(|_| vec!["fusion.png".into()])?;
    let model = files::model(&study.model);
    for way in WAYS {
        files::check_fused(&folder_of(study, way), true)?;
        files::check_fused_apart(&folder_of(study, way), model.as_deref(), None)?;
    }
    let (checkpoint, gpu) = (study.checkpoint()?, global.open()?);
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let towers = Towers::load(&gpu, pipeline.model())?;
    let lessons = subjects
        .iter()
        .map(|subject| study.learning(subject, Method::EdLora))
        .collect::<Result<Vec<_>>>()?;
    let trained = learn_all(&lessons, &checkpoint, &gpu, global, terminal)?;
    let entry = |((concept, _), settings): (Trained, training::config::Settings)| ConceptToFuse {
        concept,
        path: settings.output,
        unet: 1.0,
        text: 1.0,
        prompt: None,
    };
    let entries: Vec<ConceptToFuse> = trained.into_iter().zip(lessons).map(entry).collect();
    let evaluations = subjects
        .iter()
        .map(|subject| study.evaluation(subject, &towers, &PROMPTS))
        .collect::<Result<Vec<_>>>()?;
    let (rows, shown) = (Vec::new(), Vec::new());
    let progress = Progress::new(terminal);
    let _watched = interrupt::watched();
    let mut bench = Bench {
        study,
        checkpoint,
        gpu,
        towers,
        subjects,
        evaluations,
        progress,
        done: 0,
        rows,
        shown,
    };

    let own = entries
        .iter()
        .map(|entry| Ok(vec![Applied::new(entry.concept.clone(), 1.0)?]))
        .collect::<Result<Vec<_>>>()?;
    let (scores, pictures) = bench.concepts(&mut pipeline, &own)?;
    let base = bench.ordinary(&mut pipeline)?;
    drop(pipeline);
    bench.row("own file", scores, None, None, pictures, &base);
    let published = Solver::Lbfgs(Lbfgs { iterations: 0 });
    let settings = [
        Settings::default(),
        Settings { distillation: Distillation::NONE, ..Settings::default() },
        Settings::of(published),
        Settings::of(Solver::Average),
    ];
    for (what, settings) in WAYS.iter().zip(&settings) {
        let (path, seconds) = bench.fuse(what, settings, &entries)?;
        let mut pipeline =
            Pipeline::load(&bench.gpu, &Checkpoint::open(&path)?, Precision::default())?;
        let (scores, pictures) = bench.concepts(&mut pipeline, &[])?;
        let ordinary = bench.ordinary(&mut pipeline)?;
        let kept = bench.beside(&ordinary, &base)?;
        bench.row(what, scores, Some(kept), Some(seconds), pictures, &ordinary);
    }
    let Bench { rows, shown, subjects, progress, .. } = bench;
    drop(progress);
    let path = study.output.join("fusion.png");
    sheet(&shown, &subjects)?.save(&path, None)?;
    terminal.note(path.display());
    if study.json { terminal.print_json(&rows) } else { terminal.print(table(&rows, &subjects)) }
}

impl Bench<'_> {
    fn fuse(
        &mut self,
        name: &str,
        settings: &Settings,
        entries: &[ConceptToFuse],
    ) -> Result<(PathBuf, f64)> {
        let out = folder_of(self.study, name);
        let order = Order { replace: true, ..Order::new(entries.to_vec(), out.clone()) };
        let start = std::time::Instant::now();
        fusion::fuse(&self.gpu, &self.checkpoint, order, settings, &mut |at| {
            self.progress.show("fuse", at.done, at.of);
            interrupt::asked()
        })?;
        Ok((out, start.elapsed().as_secs_f64()))
    }

    /// Image alignment of each concept, and all pictures. `own`: what is in use for each; nothing
    /// where the model knows them.
    fn concepts(
        &mut self,
        pipeline: &mut Pipeline,
        own: &[Vec<Applied>],
    ) -> Result<(Vec<f64>, Vec<Vec<Picture>>)> {
        let (mut scores, mut pictures) = (Vec::new(), Vec::new());
        let of = self.pictures();
        for (i, (subject, evaluation)) in self.subjects.iter().zip(&self.evaluations).enumerate() {
            let concepts = own.get(i).map_or(&[][..], Vec::as_slice);
            let (score, made) =
                evaluation.run(pipeline, &self.towers, &subject.phrase, concepts, &mut |at| {
                    self.progress.show("pictures", self.done + at.done, of);
                    interrupt::asked()
                })?;
            self.done += made.len();
            scores.push(score.get("image").unwrap_or(0.0));
            pictures.push(made);
        }
        Ok((scores, pictures))
    }

    fn ordinary(&mut self, pipeline: &mut Pipeline) -> Result<Vec<Picture>> {
        let (mut pictures, of) = (Vec::new(), self.pictures());
        for prompt in ORDINARY {
            for seed in 1..=self.study.seeds {
                self.progress.show("pictures", self.done, of);
                self.done += 1;
                let request = Request { prompt: prompt.into(), seed, ..self.study.request() };
                pictures.extend(pipeline.generate(&request, &mut |_| interrupt::asked())?.pictures);
            }
        }
        Ok(pictures)
    }

    /// All that will be made.
    fn pictures(&self) -> usize {
        5 * (self.subjects.len() * PROMPTS.len() + ORDINARY.len()) * self.study.seeds as usize
    }

    fn beside(&self, pictures: &[Picture], base: &[Picture]) -> Result<Scores> {
        let see = |pictures: &[Picture]| {
            pictures.iter().map(|p| self.towers.picture(p)).collect::<metrics::Result<Vec<_>>>()
        };
        let (seen, others_seen) = (see(pictures)?, see(base)?);
        Ok(metrics::scores(&Sample {
            pictures,
            seen: &seen,
            others: base,
            others_seen: &others_seen,
            ..Sample::default()
        }))
    }

    fn row(
        &mut self,
        what: &'static str,
        concepts: Vec<f64>,
        ordinary: Option<Scores>,
        fused_in: Option<f64>,
        pictures: Vec<Vec<Picture>>,
        others: &[Picture],
    ) {
        let mean = concepts.iter().sum::<f64>() / concepts.len().max(1) as f64;
        self.rows.push(Row { what, concepts, mean, ordinary, fused_in });
        let others = others.iter().step_by(self.study.seeds.max(1) as usize).cloned();
        let firsts = pictures.into_iter().filter_map(|made| made.into_iter().next());
        self.shown.push((what, firsts.chain(others).collect()));
    }
}

fn sheet(shown: &[(&str, Vec<Picture>)], subjects: &[Subject]) -> Result<Picture> {
    let columns =
        subjects.iter().map(|subject| subject.name.clone()).chain(ORDINARY.map(str::to_string));
    let sheet = Sheet {
        rows: shown.iter().map(|(_, pictures)| pictures.iter().map(Some).collect()).collect(),
        row_captions: shown.iter().map(|(what, _)| what.to_string()).collect(),
        column_captions: columns.collect(),
        gap: 4,
    };
    Ok(sheet.draw()?)
}

fn table(rows: &[Row], subjects: &[Subject]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let names = subjects.iter().map(|subject| subject.name.as_str());
    table.set_header(std::iter::once("").chain(names).chain([
        "mean",
        "ordinary prompts",
        "pixels",
        "fused in",
    ]));
    for row in rows {
        let score = |score: f64| format!("{score:.3}");
        let ordinary = ["likeness", "pixels"].map(|name| {
            row.ordinary.as_ref().and_then(|scores| scores.get(name)).map_or(String::new(), score)
        });
        let took = row.fused_in.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default();
        let scores = row.concepts.iter().copied().chain([row.mean]).map(score);
        table.add_row(
            std::iter::once(row.what.to_string()).chain(scores).chain(ordinary).chain([took]),
        );
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
