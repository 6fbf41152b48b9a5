//! `mos bench concepts`: how well concepts are learnt.
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::concept::tuning::config::{Options as Given, Settings};
use mixofshow::concept::tuning::step::Method;
use mixofshow::concept::{Applied, Concept};
use mixofshow::diffusion::pipeline::{Pipeline, Request};
use mixofshow::diffusion::sampler::SamplerKind;
use mixofshow::graph::Precision;
use mixofshow::metrics::{Evaluation, Scores, Towers};
use mixofshow::picture::{Picture, Sheet};
use serde::{Deserialize, Serialize};

use crate::cli::files;
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::cli::train::learn;
use crate::cli::{Failure, Global, Result, units};

const PROMPTS: [&str; 8] = [
    "a photo of <TOK> on a white background",
    "a photo of <TOK> on the beach",
    "a photo of <TOK> in the snow",
    "a photo of <TOK> in a forest",
    "a photo of <TOK> in a city at night",
    "a photo of <TOK> in the desert",
    "a photo of <TOK> and a cat in a room",
    "a photo of <TOK> under the sea",
];

/// Learn concepts in three ways and score what was learnt
///
/// Learns every concept with embeddings alone (P+), as a plain LoRA and as ED-LoRA, makes 16 pictures of each and scores them
/// with the model's own towers: text alignment to the prompts, image alignment to the pictures that were learnt from. Beside
/// them stand the class word, the class word with the LoRA on, and the words with the LoRA at 0. A concept is learnt
/// where its words come out clearly above the class word with the LoRA on.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folders of concepts, each with pictures, captions, masks and a concept.json
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Model, which must bring a vision tower
    #[arg(short, long, value_name = "PATH", default_value = SHIPPED)]
    model: String,
    /// Where concepts and sheets go; concepts that are there already are not learnt again
    #[arg(short, long, value_name = "FOLDER", default_value = "out/concepts")]
    output: PathBuf,
    /// Settings of all runs: a TOML file
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Updates of each run [default: as `mos train`]
    #[arg(long, value_name = "COUNT")]
    steps: Option<usize>,
    /// Pictures of each prompt
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    seeds: u64,
    /// Sampling steps
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    sampling_steps: usize,
    /// Guidance
    #[arg(long, value_name = "SCALE", default_value_t = 5.0)]
    guidance: f32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A folder's `concept.json`.
#[derive(Deserialize)]
struct About {
    words: Vec<String>,
    class_word: String,
}

#[derive(Serialize)]
struct Row {
    concept: String,
    what: &'static str,
    #[serde(flatten)]
    scores: Scores,
    /// Seconds that learning took in this process; none where the concept was there.
    learnt_in: Option<f64>,
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let checkpoint = Checkpoint::open_named(&options.model, files::models().as_deref())?;
    let gpu = global.open()?;
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let towers = Towers::load(&gpu, &checkpoint, pipeline.tokenizer())?;
    let mut rows = Vec::new();
    for folder in &options.folders {
        let path = folder.join("concept.json");
        let damaged = |problem: String| Failure::Failed(format!("{}: {problem}", path.display()).into());
        let text = std::fs::read_to_string(&path).map_err(|e| damaged(e.to_string()))?;
        let about: About = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut learnt = Vec::new();
        for method in [Method::PPlus, Method::Lora, Method::EdLora] {
            let settings = settings(options, folder, &name, &about, method)?;
            learnt.push(learn(&settings, &checkpoint, &gpu, terminal)?);
        }
        let class = format!("a {}", about.class_word);
        let evaluation = evaluation(options, folder, &towers, class.clone())?;
        let phrase = about.words.join(" ");
        let [plus, lora, ed] = &learnt[..] else { continue };
        let use_of =
            |(concept, _): &(Concept, Option<f64>), scale: f32| Ok::<_, Failure>(vec![Applied::new(concept.clone(), scale)?]);
        let ways = [
            ("class word", class.as_str(), Vec::new(), None),
            ("class word, LoRA on", class.as_str(), use_of(ed, 1.0)?, None),
            ("P+", phrase.as_str(), use_of(plus, 1.0)?, plus.1),
            ("LoRA", phrase.as_str(), use_of(lora, 1.0)?, lora.1),
            ("ED-LoRA", phrase.as_str(), use_of(ed, 1.0)?, ed.1),
            ("ED-LoRA, LoRA at 0", phrase.as_str(), use_of(ed, 0.0)?, None),
        ];
        let mut shown: Vec<(&str, Vec<Picture>)> = Vec::new();
        let mut progress = Progress::new(terminal);
        let (mut done, of) = (0, ways.len() * PROMPTS.len() * options.seeds as usize);
        for (what, phrase, concepts, learnt_in) in ways {
            let (scores, pictures) = evaluation.run(&mut pipeline, &towers, phrase, &concepts, &mut || {
                progress.show("pictures", done, of);
                done += 1;
            })?;
            rows.push(Row { concept: name.clone(), what, scores, learnt_in });
            shown.push((what, pictures));
        }
        let path = options.output.join(format!("{name}.png"));
        sheet(&shown, options.seeds as usize)?.save(&path, None)?;
        progress.aside(|| terminal.note(format!("{name}: {}", path.display())));
    }
    if options.json { terminal.print_json(&rows) } else { terminal.print(table(&rows)) }
}

fn settings(options: &Options, folder: &Path, name: &str, about: &About, method: Method) -> Result<Settings> {
    let own = Given {
        method: Some(method),
        words: Some(about.words.join(" ")),
        class_word: Some(about.class_word.clone()),
        pictures: Some(folder.to_path_buf()),
        model: Some(options.model.clone()),
        output: Some(options.output.join(format!("{name}-{method}.safetensors"))),
        steps: options.steps,
        sheet_every: Some(0),
        ..Given::default()
    };
    let all = match &options.settings {
        Some(path) => Given::read_toml(path)?,
        None => Given::default(),
    };
    Ok(Settings::new(own.or(all))?)
}

fn evaluation(options: &Options, folder: &Path, towers: &Towers, class: String) -> Result<Evaluation> {
    let mut learnt_from = Vec::new();
    for path in mixofshow::concept::tuning::folder::pictures_in(folder).map_err(|e| Failure::Failed(e.into()))? {
        learnt_from.push(towers.picture(&Picture::open(path)?)?);
    }
    Ok(Evaluation {
        prompts: PROMPTS.map(str::to_string).to_vec(),
        class,
        seeds: (1..=options.seeds).collect(),
        request: Request {
            steps: options.sampling_steps,
            guidance: options.guidance,
            sampler: Some(SamplerKind::Dpmpp2m),
            ..Request::default()
        },
        learnt_from,
    })
}

/// The first picture of every prompt, a row for each way.
fn sheet(shown: &[(&str, Vec<Picture>)], seeds: usize) -> mixofshow::picture::Result<Picture> {
    Sheet {
        rows: shown.iter().map(|(_, pictures)| pictures.iter().step_by(seeds.max(1)).map(Some).collect()).collect(),
        row_captions: shown.iter().map(|(what, _)| what.to_string()).collect(),
        column_captions: PROMPTS.map(str::to_string).to_vec(),
        gap: 4,
    }
    .draw()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["concept", "what", "text", "image", "learnt in"]);
    for row in rows {
        let took = row.learnt_in.map(|seconds| units::duration(std::time::Duration::from_secs_f64(seconds)));
        let [text, image] = [row.scores.text, row.scores.image].map(|score| format!("{score:.3}"));
        table.add_row([row.concept.clone(), row.what.to_string(), text, image, took.unwrap_or_default()]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
