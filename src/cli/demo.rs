//! `mos demo`
use std::path::PathBuf;
use std::time::Instant;

use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::diffusion::pipeline::{Pipeline, Request};
use mixofshow::diffusion::recipe::{Recipe, hex};
use mixofshow::diffusion::sampler::SamplerKind;
use mixofshow::graph::Precision;
use mixofshow::picture::{Picture, Sheet, check_destination};

use super::generate::destinations;
use super::progress::Progress;
use super::terminal::Terminal;
use super::{Global, Result, files, units};

/// Make a small set of pictures and a contact sheet with the model that ships
///
/// Makes the same few pictures every time, with the model that ships with the program, and a contact sheet of them all: a
/// quick look at whether all works on this machine, and how fast.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder for the pictures; files of the same names are replaced
    #[arg(short, long, value_name = "FOLDER", default_value = "out/demo")]
    output: PathBuf,
}

const PROMPTS: [&str; 6] = [
    "a photo of a red cat in the snow",
    "a woman with black hair wearing a blue dress on the beach",
    "a yellow car in a city at night",
    "a green house in front of mountains",
    "a robot in a forest",
    "a purple fish under the sea",
];
const SEEDS: usize = 2;
/// Few steps with a sampler that needs few: software adapters should be done in minutes.
const STEPS: usize = 15;
const SAMPLER: SamplerKind = SamplerKind::Dpmpp2m;

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let start = Instant::now();
    let sheet_path = arguments.output.join("sheet.png");
    files::make_folder_of(&sheet_path)?;
    check_destination(&sheet_path)?;
    let checkpoint = Checkpoint::shipped()?;
    let gpu = global.open()?;
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let mut recipe = Recipe {
        model: Some(SHIPPED.to_string()),
        model_hash: Some(hex(&checkpoint.hash())),
        adapter: Some(gpu.name().to_string()),
        ..Recipe::default()
    };
    let mut columns: Vec<Vec<Picture>> = Vec::new();
    let mut progress = Progress::new(terminal);
    for (done, prompt) in PROMPTS.into_iter().enumerate() {
        recipe.request = Request {
            prompt: prompt.to_string(),
            seed: 1,
            batch: SEEDS,
            steps: STEPS,
            sampler: Some(SAMPLER),
            ..Request::default()
        };
        let generated = pipeline.generate(&recipe.request, &mut |at| {
            let part = match at.stage {
                "sample" => at.done * STEPS / at.of.max(1),
                "decode" => STEPS,
                _ => 0,
            };
            progress.show("pictures", done * STEPS + part, PROMPTS.len() * STEPS);
        })?;
        let paths = destinations(Some(&arguments.output), prompt, &generated.seeds);
        for (i, (picture, path)) in generated.pictures.iter().zip(paths).enumerate() {
            picture.save(path, Some(&recipe.parameters(&generated, i)))?;
        }
        columns.push(generated.pictures);
    }
    drop(progress);
    let sheet = Sheet {
        rows: (0..SEEDS).map(|row| columns.iter().map(|column| column.get(row)).collect()).collect(),
        row_captions: Vec::new(),
        column_captions: PROMPTS.map(str::to_string).to_vec(),
        gap: 4,
    };
    sheet.draw()?.save(&sheet_path, None)?;
    terminal.print(sheet_path.display())?;
    let count = PROMPTS.len() * SEEDS;
    let (folder, time) = (arguments.output.display(), units::duration(start.elapsed()));
    terminal.note(format!("{count} pictures in {folder}, all of them on sheet.png · {} · {time}", gpu.name()));
    Ok(())
}
