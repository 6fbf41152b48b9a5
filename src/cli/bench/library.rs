//! `mos bench library`: whether a library of concepts stays as cheap to add to as it grows.

use std::borrow::Cow;

use clap::Args;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use faer::Mat;
use mixofshow::fusion::solve::{self, Exact, Factors, Group, Layer, Solver, Towards};
use mixofshow::fusion::{GrowthCost, Settings, Statistics};
use mixofshow::{NumberRange as Range, unwatched};
use serde::Serialize;

use super::Clock;
use crate::cli::terminal::Terminal;
use crate::cli::{Result, units};

#[derive(Debug, Args)]
pub struct Options {
    /// Concepts
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    concepts: usize,
    /// Inputs of each concept in each group
    #[arg(long, value_name = "COUNT", default_value_t = 96)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    inputs: usize,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Groups of Stable Diffusion 1.5's layers: their widths, and what reads them.
const GROUPS: [(usize, [usize; 3]); 4] =
    [(320, [320; 3]), (640, [640; 3]), (1280, [1280; 3]), (768, [320, 640, 1280])];
const RANK: usize = 4;
const RIDGE: f64 = 1e-2;

/// The first `count` made-up concepts, or the one at `only`.
struct Made {
    width: usize,
    layers: Vec<Layer>,
    weights: Vec<f64>,
    first: usize,
    inputs: usize,
}

/// A number in -1..1 of its place (SplitMix64).
fn number(of: usize, at: usize) -> f32 {
    let mut z = ((of as u64) << 32) ^ at as u64;
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

impl Made {
    fn new(
        (width, outs): (usize, [usize; 3]),
        concepts: std::ops::Range<usize>,
        inputs: usize,
    ) -> Made {
        let layer = |(at, out): (usize, &usize)| Layer { name: format!("{width}.{at}"), out: *out };
        let layers = outs.iter().enumerate().map(layer).collect();
        Made { width, layers, weights: vec![1.0; concepts.len()], first: concepts.start, inputs }
    }
}

impl Group for Made {
    fn name(&self) -> &str {
        "made up"
    }

    fn width(&self) -> usize {
        self.width
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn inputs(&self, index: usize) -> mixofshow::fusion::Result<Cow<'_, Statistics>> {
        let concept = self.first + index;
        let count = self.inputs.min(self.width) * self.width;
        let mut statistics = Statistics::new(self.width);
        // All concepts' inputs have much in common.
        let shared = |at: usize| number(0, at % self.width);
        let values: Vec<f32> = (0..count).map(|at| shared(at) + number(1 + concept, at)).collect();
        statistics.push(&values);
        Ok(Cow::Owned(statistics))
    }

    fn change(&self, index: usize, layer: usize) -> Option<Factors> {
        let of = 1_000_000 + 16 * (self.first + index) + layer;
        let out = self.layers.get(layer)?.out;
        let value = |i: usize, j: usize| f64::from(number(of, i * 4096 + j)) * 0.1;
        Some(Factors {
            up: Mat::from_fn(out, RANK, value),
            down: Mat::from_fn(RANK, self.width, |i, j| value(j, i)),
        })
    }

    fn keep(&self) -> mixofshow::fusion::Result<[Option<Cow<'_, Statistics>>; 2]> {
        Ok([None, None])
    }
}

/// What a number of concepts took, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Line {
    concepts: usize,
    /// Adding the last one's inputs up.
    statistics: f64,
    /// Solving for all of them at once.
    solve: f64,
    /// The same, each concept's part.
    solve_each: f64,
    /// Adding the last one to what was solved for.
    grow: f64,
    /// What the UNet is run for besides, where the last one is added: counted, not measured.
    unet: GrowthCost,
    /// The most memory that the process has had.
    memory: u64,
}

pub fn run(options: &Options, terminal: &Terminal) -> Result<()> {
    let clock = Clock::Cpu;
    let mut lines: Vec<Line> = Vec::new();
    let shown = |count: usize| count.is_power_of_two() || count == options.concepts;
    let mut totals: Vec<(Statistics, Vec<Mat<f64>>)> = GROUPS
        .iter()
        .map(|(width, outs)| {
            let changes = outs.iter().map(|out| Mat::zeros(*out, *width)).collect();
            (Statistics::new(*width), changes)
        })
        .collect();
    for count in 1..=options.concepts {
        let (mut recorded, mut grown) = (0.0, 0.0);
        for (group, (total, changes)) in GROUPS.iter().zip(&mut totals) {
            let one = Made::new(*group, count - 1..count, options.inputs);
            if shown(count) {
                let start = clock.now();
                let weight = (count - 1) as f64;
                let before = solve::Before { inputs: &*total, weight, changes: &*changes };
                let found = solve::grow(&one, &before, RIDGE, 0.0)?;
                changes.iter_mut().zip(&found.added).for_each(|(change, added)| *change += added);
                grown += clock.now() - start;
            }
            let start = clock.now();
            total.add(&*one.inputs(0)?, 1.0);
            recorded += clock.now() - start;
        }
        if !shown(count) {
            continue;
        }
        let start = clock.now();
        let exact = Solver::Exact(Exact { ridge: Some(RIDGE), ..Exact::default() });
        for group in GROUPS {
            let all = Made::new(group, 0..count, options.inputs);
            solve::solve(&all, exact, (RIDGE, Towards::Base), &mut unwatched)?;
        }
        let solved = clock.now() - start;
        let line = Line {
            concepts: count,
            statistics: recorded,
            solve: solved,
            solve_each: solved / count as f64,
            grow: grown,
            unet: GrowthCost::of(count - 1, &Settings::default()),
            memory: most_memory(),
        };
        terminal.detail(format!("{line:?}"));
        lines.push(line);
    }
    if options.json {
        return terminal.print_json(&lines);
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "concepts",
        "one's sums, s",
        "all solved, s",
        "of each, s",
        "one added, s",
        "memory",
        "scenes",
        "passes",
        "updates",
    ]);
    for line in &lines {
        let seconds = |seconds: f64| format!("{seconds:.3}");
        table.add_row([
            line.concepts.to_string(),
            seconds(line.statistics),
            seconds(line.solve),
            seconds(line.solve_each),
            seconds(line.grow),
            units::bytes(line.memory),
            line.unet.scenes.to_string(),
            line.unet.passes.to_string(),
            line.unet.updates.to_string(),
        ]);
    }
    terminal.print(format!(
        "{table}\nCPU time of 4 groups of layers of Stable Diffusion 1.5's widths (320, 640 and \
            1280 with queries, keys and values; 768 with what reads the prompt), {} inputs of each \
            concept, made up; without pictures and distillation. Of those, counted and not \
            measured, for the last one added: scenes with others, passes of the UNet that sample \
            it and them, updates that learn them (beside up to 8 of the others)",
        options.inputs
    ))
}

/// The most memory that this process has had, where the system tells; else 0.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
