//! `mos bench`: how fast this machine runs kernels and models.

mod asked;
mod cards;
mod concepts;
mod fusion;
mod kept;
mod kernels;
mod library;
mod mergers;
mod modelled;
mod models;
mod peak;
mod profile;
mod regions;
mod shares;
mod step;
mod study;
mod table;
mod updates;
mod who;

use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;

use super::terminal::Terminal;
use super::{Global, Result};
use mixofshow::backend::Device;
use mixofshow::backend::Program;

#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time kernels, one by one, at the shapes of Stable Diffusion
    Kernels(kernels::Options),
    /// Time a pass of the UNet
    Unet(models::Options),
    /// Time a step of sampling without regions, with three side by side, and with eight that
    /// overlap
    Regions(regions::Options),
    /// Time decoding latents to a picture
    Vae(models::Options),
    /// Time encoding a prompt
    Text(models::Options),
    /// Learn concepts and score what was trained, and what else looks like it
    ///
    /// Learns every concept, of whole casts if need be, and makes pictures with its words, with its
    /// LoRA at 0, with the class word and another class without and with the LoRA. Scored with the
    /// model's own towers: text alignment to the prompts; image alignment to the pictures that were
    /// trained from, also as a share of what these have among themselves, where the class word
    /// without the LoRA counts as 0; and how far each part's colour is from the nearest one that
    /// enough of a picture has. Then means over concepts and casts. A concept is trained where its
    /// words have most of the share, and classes with the LoRA on have little. Concepts and
    /// pictures that are there already are not made again.
    Concepts(Box<concepts::Arguments>),
    /// Fuse concepts in three ways and score what is left of them
    ///
    /// Learns the concepts as ED-LoRA, fuses them exactly, by L-BFGS as published, and by
    /// averaging, and makes pictures of each concept with every model and from its own file. Image
    /// alignment to the pictures that were trained from says how much of a concept is left; pictures
    /// of ordinary prompts beside the base model's from the same seeds say what the fusion does to
    /// everything else.
    Fusion(Box<study::Options>),
    /// Teach by every method, merge by every merger, and score all of it beside each other
    ///
    /// The table of the method's paper, in miniature. Learns every concept by each method, merges
    /// the concepts of each cast in each way, and makes pictures of each concept from its own file
    /// and with every merged model. Text and image alignment and who is who, apart for people and
    /// animals, objects, and places; ordinary prompts' likeness to the base model's pictures;
    /// seconds; and whether concepts came to look like each other where the fusion's report said
    /// so. In the folder: table.md, table.json, a sheet of each cast. What is trained, fused or
    /// drawn already is not made again, so that the same command goes on where it was.
    Table(Box<table::Arguments>),
    /// Time made-up concepts' way into a library that grows, at the widths of Stable Diffusion 1.5
    ///
    /// Records them one after another; at each power of two, adds the last one, as `mos fuse --to`
    /// does layer by layer, and solves for all of them at once: whether time and memory for each
    /// stay what they are.
    Library(library::Options),
    /// Time a step of tuning, against a forward pass of the same networks
    Step(step::Options),
}

/// Which clock rates are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Elapsed time
    #[default]
    Wall,
    /// The process's CPU time, over all its threads
    Cpu,
}

impl Clock {
    /// Seconds since some moment.
    pub fn now(self) -> f64 {
        match self {
            Clock::Cpu => {
                cpu_time::ProcessTime::try_now().map_or(0.0, |t| t.as_duration().as_secs_f64())
            }
            Clock::Wall => {
                static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
                START.get_or_init(Instant::now).elapsed().as_secs_f64()
            }
        }
    }

    /// Wall time on devices that work by themselves, CPU time where the device is the CPU.
    fn suited_to(gpu: &Device) -> Clock {
        if gpu.is_processor() { Clock::Cpu } else { Clock::Wall }
    }
}

/// One line of a bench: the best of several calls.
#[derive(Clone, Debug, Serialize)]
struct Row {
    what: String,
    calls: u64,
    milliseconds: f64,
    gflops: f64,
    gigabytes: f64,
    /// Share of the adapter's measured peak, the greater of arithmetic's and memory's.
    peak: f64,
}

impl Row {
    /// `seconds`, `flops` and `bytes` are of one call.
    fn new(
        what: impl Into<String>,
        calls: u64,
        seconds: f64,
        flops: f64,
        bytes: f64,
        peak: &peak::Peak,
    ) -> Row {
        let (gflops, gigabytes) = (flops / seconds * 1e-9, bytes / seconds * 1e-9);
        let share = (gflops / peak.gflops).max(gigabytes / peak.gigabytes);
        Row {
            what: what.into(),
            calls,
            milliseconds: seconds * 1e3,
            gflops,
            gigabytes,
            peak: share,
        }
    }
}

fn table(title: &str, rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([title, "calls", "ms a call", "GFLOP/s", "GB/s", "of peak"]);
    for row in rows {
        table.add_row([
            row.what.clone(),
            row.calls.to_string(),
            format!("{:.3}", row.milliseconds),
            format!("{:.1}", row.gflops),
            format!("{:.1}", row.gigabytes),
            format!("{:.0} %", row.peak * 100.0),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Seconds of the fastest of `repeat` runs of `program`, after one that warms up.
fn fastest(program: &Program, repeat: usize, clock: Clock) -> Result<f64> {
    program.run();
    program.wait()?;
    let mut best = f64::INFINITY;
    for _ in 0..repeat {
        // Short runs are repeated within one measurement, or the wait would be what is measured.
        let start = clock.now();
        let mut runs = 0;
        while runs == 0 || (clock.now() - start < 0.05 && runs < 64) {
            program.run();
            program.wait()?;
            runs += 1;
        }
        best = best.min((clock.now() - start) / f64::from(runs));
    }
    Ok(best)
}

fn model(
    part: models::Part,
    options: &models::Options,
    global: &Global,
    terminal: &Terminal,
) -> Result<()> {
    match options.model_of {
        Some(card) => modelled::run(card, part, options, global, terminal),
        None => models::run(part, options, &global.open()?, terminal),
    }
}

pub fn run(bench: &Bench, global: &Global, terminal: &Terminal) -> Result<()> {
    match &bench.what {
        What::Kernels(options) => kernels::run(options, global, terminal),
        What::Unet(options) => model(models::Part::Unet, options, global, terminal),
        What::Regions(options) => regions::run(options, &global.open()?, terminal),
        What::Vae(options) => model(models::Part::Vae, options, global, terminal),
        What::Concepts(options) => concepts::run(options, global, terminal),
        What::Fusion(options) => fusion::run(options, global, terminal),
        What::Table(options) => table::run(options, global, terminal),
        What::Library(options) => library::run(options, terminal),
        What::Text(options) => model(models::Part::Text, options, global, terminal),
        What::Step(options) => step::run(options, &global.open()?, terminal),
    }
}
