//! `mos bench concepts`: how well concepts are trained.
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use mixofshow::backend::Precision;
use mixofshow::concept::Applied;
use mixofshow::metrics::{Scores, Towers};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::Pipeline;
use mixofshow::training::step::Method;
use serde::Serialize;

use super::study;
use crate::cli::learn::{Trained, learn_all};
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Global, Result, interrupt, units};

const PROMPTS: [&str; 8] = [
    "a photo of a <TOK> on a white background",
    "a photo of a <TOK> on the beach",
    "a photo of a <TOK> in the snow",
    "a photo of a <TOK> in a forest",
    "a photo of a <TOK> in a city at night",
    "a photo of a <TOK> in the desert",
    "a photo of a <TOK> and a cat in a room",
    "a photo of a <TOK> under the sea",
];

#[derive(Serialize)]
struct Row {
    concept: String,
    what: &'static str,
    #[serde(flatten)]
    scores: Scores,
    /// Seconds that learning took, perhaps beside others; none where the concept was there.
    learnt_in: Option<f64>,
}

const METHODS: [Method; 3] = [Method::PPlus, Method::Lora, Method::EdLora];

pub fn run(study: &study::Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let (subjects, checkpoint) =
        (study.subjects(|subject| vec![format!("{}.png", subject.name)])?, study.checkpoint()?);
    let gpu = global.open()?;
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let towers = Towers::load(&gpu, pipeline.model())?;
    let mut lessons = Vec::new();
    for subject in &subjects {
        for method in METHODS {
            lessons.push(study.learning(subject, method)?);
        }
    }
    let _watched = interrupt::watched();
    let all = learn_all(&lessons, &checkpoint, &gpu, global, terminal)?;
    let mut rows = Vec::new();
    for (subject, trained) in subjects.iter().zip(all.chunks(METHODS.len())) {
        let evaluation = study.evaluation(subject, &towers, &PROMPTS)?;
        let [plus, lora, ed] = trained else { continue };
        let use_of = |(concept, _): &Trained, scale: f32| {
            Ok::<_, Failure>(vec![Applied::new(concept.clone(), scale)?])
        };
        let (class, phrase) = (&subject.class_word, &subject.phrase);
        let ways = [
            ("class word", class, Vec::new(), None),
            ("class word, LoRA on", class, use_of(ed, 1.0)?, None),
            ("P+", phrase, use_of(plus, 1.0)?, plus.1),
            ("LoRA", phrase, use_of(lora, 1.0)?, lora.1),
            ("ED-LoRA", phrase, use_of(ed, 1.0)?, ed.1),
            ("ED-LoRA, LoRA at 0", phrase, use_of(ed, 0.0)?, None),
        ];
        let mut shown: Vec<(&str, Vec<Picture>)> = Vec::new();
        let mut progress = Progress::new(terminal);
        let (mut done, of) = (0, ways.len() * PROMPTS.len() * study.seeds as usize);
        for (what, phrase, concepts, learnt_in) in ways {
            let (scores, pictures) =
                evaluation.run(&mut pipeline, &towers, phrase, &concepts, &mut |at| {
                    progress.show("pictures", done + at.done, of);
                    interrupt::asked()
                })?;
            done += pictures.len();
            rows.push(Row { concept: subject.name.clone(), what, scores, learnt_in });
            shown.push((what, pictures));
        }
        let path = study.output.join(format!("{}.png", subject.name));
        sheet(&shown, study.seeds as usize)?.save(&path, None)?;
        progress.aside(|| terminal.note(format!("{}: {}", subject.name, path.display())));
    }
    if study.json { terminal.print_json(&rows) } else { terminal.print(table(&rows)) }
}

/// The first picture of every prompt, a row for each way.
fn sheet(shown: &[(&str, Vec<Picture>)], seeds: usize) -> mixofshow::picture::Result<Picture> {
    Sheet {
        rows: shown
            .iter()
            .map(|(_, pictures)| pictures.iter().step_by(seeds.max(1)).map(Some).collect())
            .collect(),
        row_captions: shown.iter().map(|(what, _)| what.to_string()).collect(),
        column_captions: PROMPTS.map(str::to_string).to_vec(),
        gap: 4,
    }
    .draw()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["concept", "what", "text", "image", "trained in"]);
    for row in rows {
        let took = row
            .learnt_in
            .map(|seconds| units::duration(std::time::Duration::from_secs_f64(seconds)));
        let [text, image] = ["text", "image"].map(|name| {
            row.scores.get(name).map_or_else(String::new, |score| format!("{score:.3}"))
        });
        table.add_row([
            row.concept.clone(),
            row.what.to_string(),
            text,
            image,
            took.unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
