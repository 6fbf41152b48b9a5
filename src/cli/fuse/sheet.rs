//! The sheet: each concept, several in one picture, and ordinary prompts, from the concepts' own
//! files, from the fused model, and from plain averaging, with the same seeds.
use std::path::Path;

use mixofshow::backend::Device;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Applied, Network};
use mixofshow::fusion::solve::Solver;
use mixofshow::fusion::{self, ConceptReport, ConceptToFuse, Distillation, Order, Settings};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::{Pipeline, Request};
use mixofshow::region::{Area, Layout, Region};

use crate::cli::progress::Progress;
use crate::cli::{Result, files, interrupt};

/// What the pictures are made with.
const STEPS: usize = 20;
const SEEDS: [u64; 2] = [0, 1];
/// Pairs of neighbours, and ordinary prompts, that are shown.
const PAIRS: usize = 4;
const ORDINARY: usize = 3;
/// Where two stand beside each other: left, top, right, bottom as parts of the picture.
const PLACES: [[f64; 4]; 2] = [[0.0, 0.15, 0.5, 1.0], [0.5, 0.15, 1.0, 1.0]];

/// One row: what is asked for, and the concepts that the base model needs for it.
struct Row {
    caption: String,
    request: Request,
    concepts: Vec<Applied>,
}

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
        &Settings { solver: Solver::Average, distillation: Distillation::NONE, ..settings.clone() },
        &mut |_| interrupt::asked(),
    )?;
    let mut own = Pipeline::load(gpu, base, settings.precision)?;
    let rows = rows(concepts, entries, settings, own.guidance())?;
    let total = 3 * rows.len();
    let mut columns: Vec<Vec<Picture>> = Vec::new();
    let mut column = Vec::new();
    for row in &rows {
        progress.show("sheet", column.len(), total);
        let request = Request { concepts: row.concepts.clone(), ..row.request.clone() };
        column.push(generate(&mut own, &request)?);
    }
    drop(own);
    columns.push(column);
    for model in [fused, &average] {
        let mut pipeline = Pipeline::load(gpu, &Checkpoint::open(model)?, settings.precision)?;
        let mut column = Vec::new();
        for row in &rows {
            progress.show("sheet", columns.len() * rows.len() + column.len(), total);
            column.push(generate(&mut pipeline, &row.request)?);
        }
        columns.push(column);
    }
    let row = |i: usize| columns.iter().map(|column| column.get(i)).collect();
    let sheet = Sheet {
        rows: (0..rows.len()).map(row).collect(),
        row_captions: rows.iter().map(|row| row.caption.clone()).collect(),
        column_captions: ["own files", "fused", "averaged"].map(String::from).to_vec(),
        gap: 4,
    };
    Ok(sheet.draw()?)
}

/// Each concept alone, neighbours in one picture by regions and by one prompt, ordinary prompts;
/// with the guidance that the model was made for.
fn rows(
    concepts: &[ConceptReport],
    entries: &[ConceptToFuse],
    settings: &Settings,
    guidance: f32,
) -> Result<Vec<Row>> {
    let own = |report: &ConceptReport| applied(report, entries);
    let request = |prompt: String, seed: u64| Request {
        prompt,
        steps: STEPS,
        seed,
        guidance,
        memory: settings.memory,
        ..Request::default()
    };
    let mut rows = Vec::new();
    for concept in concepts {
        for seed in SEEDS {
            let prompt = prompt(&concept.phrase, concept.words.is_empty());
            let concepts = own(concept)?;
            rows.push(Row { caption: prompt.clone(), request: request(prompt, seed), concepts });
        }
    }
    let named: Vec<&ConceptReport> = concepts.iter().filter(|c| !c.words.is_empty()).collect();
    for pair in named.windows(2).take(PAIRS) {
        let [a, b] = pair else { continue };
        let both = [own(a)?, own(b)?].concat();
        let text = format!("a {} on the left and a {} on the right", a.phrase, b.phrase);
        let region = |(concept, area): (&&ConceptReport, [f64; 4])| Region {
            prompt: format!("a photo of a {}", concept.phrase),
            area: Area::Box(area),
            ..Region::default()
        };
        let regions: Vec<Region> = pair.iter().zip(PLACES).map(region).collect();
        for seed in SEEDS {
            let layout = Layout { regions: regions.clone(), ..Layout::default() };
            let placed = request("a photo of two on a white background".into(), seed);
            rows.push(Row {
                caption: format!("in regions: {text}"),
                request: Request { regions: layout, ..placed },
                concepts: both.clone(),
            });
        }
        rows.push(Row {
            caption: format!("one prompt: {text}"),
            request: request(text, SEEDS[0]),
            concepts: both,
        });
    }
    for text in settings.keep.iter().skip(1).step_by(2).take(ORDINARY) {
        let caption = format!("ordinary: {text}");
        rows.push(Row { caption, request: request(text.clone(), SEEDS[0]), concepts: Vec::new() });
    }
    Ok(rows)
}

fn prompt(phrase: &str, whole: bool) -> String {
    if whole { phrase.to_string() } else { format!("a photo of a {phrase}") }
}

/// The concept's own file in use, as strong as it was fused, its words as the fused model calls
/// them.
fn applied(report: &ConceptReport, entries: &[ConceptToFuse]) -> Result<Vec<Applied>> {
    let entry = entries.iter().find(|entry| {
        entry.concept.name == report.name
            && entry.unet == report.unet
            && entry.path.as_os_str() == report.path.as_str()
    });
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let mut concept = entry.concept.clone();
    for network in Network::ALL {
        let factor = if network.is_text_encoder() { entry.text } else { entry.unet };
        concept.updates.of_mut(network).scale *= factor;
    }
    for (word, renamed) in concept.words.iter_mut().zip(&report.words) {
        word.text.clone_from(renamed);
    }
    Ok(vec![Applied::new(concept, 1.0)?])
}

fn generate(pipeline: &mut Pipeline, request: &Request) -> Result<Picture> {
    let generated = pipeline.generate(request, &mut |_| interrupt::asked())?;
    let picture = generated.pictures.into_iter().next();
    picture
        .ok_or_else(|| crate::cli::Failure::Failed("no picture came of a request for one".into()))
}
