//! The sheet: each concept from its own file, from the fused model, and from plain averaging, with
//! the same seed.
use std::path::Path;

use mixofshow::backend::Device;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Applied, Network};
use mixofshow::fusion::solve::Solver;
use mixofshow::fusion::{self, ConceptReport, ConceptToFuse, Order, Settings};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::{Pipeline, Request};

use crate::cli::progress::Progress;
use crate::cli::{Result, files, interrupt};

/// What the pictures are made with.
const STEPS: usize = 20;
const SEED: u64 = 0;

/// Draws the sheet of the model at `fused`.
pub fn draw(
    gpu: &Device,
    base: &Checkpoint,
    fused: &Path,
    concepts: &[ConceptReport],
    entries: &[ConceptToFuse],
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Picture> {
    let scratch = tempfile::tempdir()
        .map_err(|source| files::Unwritable { path: std::env::temp_dir(), source })?;
    let average = scratch.path().join("average");
    let order = Order::new(entries.to_vec(), average.clone());
    fusion::fuse(
        gpu,
        base,
        order,
        &Settings { solver: Solver::Average, ..settings.clone() },
        &mut |_| interrupt::asked(),
    )?;
    let prompts: Vec<String> =
        concepts.iter().map(|concept| prompt(&concept.phrase, concept.words.is_empty())).collect();
    let total = 3 * concepts.len();
    let mut pictures: Vec<Vec<Picture>> = Vec::new();
    let mut own = Pipeline::load(gpu, base, settings.precision)?;
    let mut column = Vec::new();
    for concept in concepts {
        progress.show("sheet", column.len(), total);
        column.push(of_concept(&mut own, concept, entries, settings)?);
    }
    drop(own);
    pictures.push(column);
    for model in [fused, &average] {
        let checkpoint = Checkpoint::open(model)?;
        let mut pipeline = Pipeline::load(gpu, &checkpoint, settings.precision)?;
        let mut column = Vec::new();
        for prompt in &prompts {
            progress.show("sheet", pictures.len() * concepts.len() + column.len(), total);
            let request = request(prompt, settings, &pipeline);
            column.push(generate(&mut pipeline, request)?);
        }
        pictures.push(column);
    }
    let row = |i: usize| pictures.iter().map(|column| column.get(i)).collect();
    let sheet = Sheet {
        rows: (0..concepts.len()).map(row).collect(),
        row_captions: prompts.clone(),
        column_captions: ["own file", "fused", "averaged"].map(String::from).to_vec(),
        gap: 4,
    };
    Ok(sheet.draw()?)
}

fn prompt(phrase: &str, whole: bool) -> String {
    if whole { phrase.to_string() } else { format!("a photo of a {phrase}") }
}

/// With the guidance that was recorded, if any was.
fn request(prompt: &str, settings: &Settings, pipeline: &Pipeline) -> Request {
    let guidance = if settings.guidance > 1.0 { settings.guidance } else { pipeline.guidance() };
    Request { prompt: prompt.into(), steps: STEPS, seed: SEED, guidance, ..Request::default() }
}

/// From the base model with the concept's own file.
fn of_concept(
    pipeline: &mut Pipeline,
    report: &ConceptReport,
    entries: &[ConceptToFuse],
    settings: &Settings,
) -> Result<Picture> {
    let entry = entries.iter().find(|entry| {
        entry.concept.name == report.name
            && entry.unet == report.unet
            && entry.path.as_os_str() == report.path.as_str()
    });
    let mut request = request(&prompt(&report.phrase, report.words.is_empty()), settings, pipeline);
    if let Some(entry) = entry {
        let mut concept = entry.concept.clone();
        for network in Network::ALL {
            let factor = if network.is_text_encoder() { entry.text } else { entry.unet };
            concept.updates.of_mut(network).scale *= factor;
        }
        // The fused model may call its words otherwise.
        for (word, renamed) in concept.words.iter_mut().zip(&report.words) {
            word.text.clone_from(renamed);
        }
        request.concepts = vec![Applied::new(concept, 1.0)?];
    }
    generate(pipeline, request)
}

fn generate(pipeline: &mut Pipeline, request: Request) -> Result<Picture> {
    let generated = pipeline.generate(&request, &mut |_| interrupt::asked())?;
    let picture = generated.pictures.into_iter().next();
    picture
        .ok_or_else(|| crate::cli::Failure::Failed("no picture came of a request for one".into()))
}
