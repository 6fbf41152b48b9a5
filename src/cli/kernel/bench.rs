//! `mos kernel bench`: which kernel is faster, and how far from what the machine can do?

use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN, presets::UTF8_HORIZONTAL_ONLY};
use mixofshow::backend::wgpu::Gpu;
use mixofshow::workbench::{BenchOptions, BenchReport, Clock, Contender, Source, Spec, bench};

use super::told::{beside, describe, is_wrong, seconds};
use super::{Found, Global, Result, Terminal, Wanted, check_output, device, html, is_own, source};
use crate::cli::bench::Clock as Times;
use crate::cli::progress::Progress;
use crate::cli::{Failure, interrupt, values};

/// Measure kernels side by side, with a test of whether they differ
///
/// Kernels are measured in turns at each shape, after warming up: median and the fifths around it,
/// GFLOP/s, GB/s, and the share of this machine's roofline: the least time that such work takes at
/// the speed that is measured first (of chains of multiply-adds, a large copy, an empty dispatch).
/// Each is compared with the first one: a difference is told where Wilcoxon's signed-rank test and
/// resampling agree that it is no chance, and where it is above 1 % and above what the first kernel
/// differs from itself, measured twice. Times are the device's timestamps; where it has none,
/// elapsed time, and the process's CPU time where the device is a software driver. Results are
/// compared with the reference, too: a kernel that is wrong says so, and the exit code is 1. Before
/// that each is executed as it is written at the shapes, all of it where that is quick, else at the
/// corners of the grid and in its middle, and that is said: one that leaves its bindings there, or
/// does not end, is not run (exit code 1, too).
/// Without a card, name a software driver in --adapter.
#[derive(Debug, Args)]
pub struct Options {
    /// WGSL files of kernels of one kind; others are compared with the first
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// Shapes: small, sd15, sdxl, one or more such as 4096x320x320,256x1280x1280 (the kind's sizes
    /// in order: rows, inner, columns), or a file of them, one a line [default: sd15 on cards,
    /// small on software drivers]
    #[arg(long, value_name = "SHAPES")]
    shapes: Option<String>,
    /// Measurements of each kernel at each shape
    #[arg(long, default_value_t = 63, value_parser = values::TIMES.parser::<usize>())]
    rounds: usize,
    /// With the bounds checks that wgpu adds unless it is told to trust a kernel
    #[arg(long)]
    checked: bool,
    /// Fill caches with something else (256 MiB) before each measurement, which is of one dispatch
    #[arg(long)]
    cold: bool,
    /// Clock where the device has no timestamps [default: cpu on software drivers, else wall]
    #[arg(long, value_enum)]
    clock: Option<Times>,
    /// Print JSON, with every measurement
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a table in Markdown, for a pull request
    #[arg(long)]
    markdown: bool,
    /// Write a page with the table and a roofline plot, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The shapes that were asked for, or those that suit the device.
pub fn shapes(asked: Option<&str>, spec: &Spec, gpu: &Gpu) -> Result<Vec<Vec<usize>>> {
    let default = if gpu.is_software() { "small" } else { "sd15" };
    match asked {
        Some(asked) => named_shapes(asked, spec),
        None => match spec.shapes_of(default).or_else(|| spec.shapes_of("small")) {
            Some(shapes) => Ok(shapes),
            None => named_shapes(default, spec),
        },
    }
}

/// Shapes by the name of their set, from a file, or as they are written.
pub fn named_shapes(asked: &str, spec: &Spec) -> Result<Vec<Vec<usize>>> {
    if let Some(shapes) = spec.shapes_of(asked) {
        return Ok(shapes);
    }
    let text = match Path::new(asked).exists() {
        true => std::fs::read_to_string(asked).map_err(|error| {
            mixofshow::workbench::Error::File { path: asked.into(), message: error.to_string() }
        })?,
        false => asked.replace(',', "\n"),
    };
    let names = spec.size_names();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let shape = |line: &str| {
        let sizes: Option<Vec<usize>> = line
            .split(|c: char| c.is_whitespace() || c == 'x' || c == ',')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().ok())
            .collect();
        sizes.filter(|sizes| sizes.len() == names.len() && !sizes.contains(&0)).ok_or_else(|| {
            Failure::Usage(format!(
                "--shapes: `{line}` is none of small, sd15 and sdxl, no file, and no shape, which \
                 has {} sizes from 1 on, as in {}",
                names.len(),
                names.join("x")
            ))
        })
    };
    let all: Vec<Vec<usize>> =
        lines.filter(|line| !line.is_empty()).map(shape).collect::<Result<_>>()?;
    match all.is_empty() {
        true => Err(Failure::Usage(format!("--shapes {asked}: no shape is in it"))),
        false => Ok(all),
    }
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let sources: Vec<Source> =
        options.files.iter().map(|file| source(file)).collect::<Result<_>>()?;
    let Some(first) = sources.first() else { return Ok(()) };
    if let Some(own) = sources.iter().find(|source| is_own(source, &options.wanted)) {
        return Err(Failure::Usage(format!(
            "{}: this program's own kernels are measured by `mos bench kernels`; here kernels say \
             what they compute, in a line `//% kind KIND`, or --as and --like do",
            own.name
        )));
    }
    let spec = options.wanted.spec(first)?;
    let told = options.wanted.kind.is_some() || options.wanted.like.is_some();
    let other = sources.iter().find(|own| own.kind.as_ref().is_some_and(|kind| *kind != spec.name));
    if let (false, Some(other)) = (told, other) {
        return Err(Failure::Usage(format!(
            "{} is a {} and {} a {}: kernels of one kind are measured side by side",
            first.name,
            spec.name,
            other.name,
            other.kind.as_deref().unwrap_or_default()
        )));
    }
    options.wanted.check_settings(&sources)?;
    if let Some(path) = &options.html {
        let asked = options.shapes.as_deref().map(Path::new);
        let inputs: Vec<&Path> = options
            .files
            .iter()
            .map(PathBuf::as_path)
            .chain(options.wanted.like.as_deref())
            .chain(asked.filter(|path| path.exists()))
            .collect();
        check_output(path, &inputs, "a page", |text| {
            text.trim_start().to_ascii_lowercase().starts_with("<!doctype html")
        })?;
    }
    let gpu = device(global)?;
    let shapes = shapes(options.shapes.as_deref(), &spec, &gpu)?;
    let contenders: Vec<Contender> = sources
        .into_iter()
        .map(|source| {
            let settings = options.wanted.settings_of(&source)?;
            Ok(Contender { source, settings })
        })
        .collect::<Result<_>>()?;
    let times = options.clock.unwrap_or(if gpu.is_software() { Times::Cpu } else { Times::Wall });
    let now = || times.now();
    let clock = Clock { name: name_of(times), now: &now };
    let bench_options = BenchOptions {
        rounds: options.rounds,
        checked: options.checked,
        cold: options.cold,
        ..BenchOptions::default()
    };
    let _watched = interrupt::watched();
    let mut progress = Progress::new(terminal);
    let mut tell = |done: usize, of: usize| {
        progress.show("measurements", done, of);
        interrupt::asked().is_continue()
    };
    let report = bench(&gpu, &contenders, &spec, &shapes, &bench_options, &clock, &mut tell);
    progress.finish();
    let report = match report {
        Err(mixofshow::workbench::Error::Cancelled) => return Err(Failure::Stopped),
        other => other?,
    };
    for note in &report.notes {
        terminal.note(format!("note: {note}"));
    }
    if let Some(path) = &options.html {
        let page = html::page(&spec, &report);
        let write = |out: &mut dyn std::io::Write| out.write_all(page.as_bytes());
        mixofshow::checkpoint::output::write(path, write).map_err(|error| {
            mixofshow::workbench::Error::File { path: path.clone(), message: error.to_string() }
        })?;
        terminal.note(format!("written: {}", path.display()));
    }
    if options.json {
        terminal.print_json(&report)?;
        return all_right(&report);
    }
    if !options.markdown {
        terminal.note(describe(&report));
    }
    terminal.print(table(&report, options.markdown))?;
    if options.markdown {
        terminal.print(format!("\n{}", describe(&report)))?;
    }
    all_right(&report)
}

/// An error where a kernel's results are wrong: its times say nothing.
fn all_right(report: &BenchReport) -> Result<()> {
    let wrong = report.measured.iter().filter(|one| is_wrong(one));
    let wrong: Vec<String> = wrong.map(|one| format!("{} at {}", one.kernel, one.sizes)).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Found::failure(format!("wrong results: {}", wrong.join("; ")))),
    }
}

pub fn name_of(times: Times) -> &'static str {
    match times {
        Times::Cpu => "the process's CPU time",
        Times::Wall => "elapsed time",
    }
}

fn table(report: &BenchReport, markdown: bool) -> Table {
    let mut table = Table::new();
    table.load_style(if markdown { ASCII_MARKDOWN } else { UTF8_HORIZONTAL_ONLY });
    table.set_header([
        "kernel",
        "sizes",
        "median",
        "p20",
        "p80",
        "GFLOP/s",
        "GB/s",
        "of roofline",
        "beside the first",
    ]);
    for one in &report.measured {
        table.add_row([
            one.kernel.clone(),
            one.sizes.clone(),
            seconds(one.median),
            seconds(one.p20),
            seconds(one.p80),
            format!("{:.2}", one.flops / one.median * 1e-9),
            format!("{:.2}", one.bytes / one.median * 1e-9),
            format!("{:.0} %", one.roofline * 100.0),
            beside(one),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
