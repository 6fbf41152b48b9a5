//! `mos kernel watch`: a kernel looked at whenever it is saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use mixofshow::backend::wgpu::Gpu;
use mixofshow::workbench::{
    BenchOptions, CheckOptions, CheckReport, Clock, Contender, Source, bench, check,
};

use super::{
    Found, Global, Result, Terminal, Wanted, adapter, bench as measuring, check as printing, told,
};
use crate::cli::bench::Clock as Times;
use crate::cli::{Failure, interrupt, values};

/// Check a kernel whenever it is saved, and tell what changed
///
/// Renders, checks and, on a graphics adapter, runs and measures it, beside what was saved before;
/// what is wrong with the template or the WGSL is told with the line of the file. A file that is
/// empty or not valid for a moment is told of, and waited for. Ends with Ctrl-C.
#[derive(Debug, Args)]
pub struct Options {
    /// A WGSL file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// End after so many looks instead of going on, with the exit code of the last one
    #[arg(long, value_name = "TIMES", value_parser = values::TIMES.parser::<usize>())]
    times: Option<usize>,
}

/// How often a file is looked after, and how often until an empty one is told of: editors write in
/// two steps.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: usize = 5;

/// When a file was written last, and how long it is.
fn written(path: &Path) -> Option<(SystemTime, u64)> {
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len()))
}

/// Waits until a file that is being written is whole.
fn settled(path: &Path) -> Option<(SystemTime, u64)> {
    let mut last = written(path);
    for _ in 0..PATIENCE {
        let is_empty = last.is_none_or(|(_, length)| length == 0);
        std::thread::sleep(if is_empty { PAUSE } else { PAUSE / 4 });
        let now = written(path);
        if now == last && !is_empty {
            break;
        }
        last = now;
    }
    last
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let gpu = adapter(global)?;
    let _watched = interrupt::watched();
    let mut before: Option<(Source, CheckReport)> = None;
    let (mut seen, mut looks) = (None, 0);
    loop {
        let now = written(&options.file);
        if now != seen || looks == 0 {
            seen = settled(&options.file);
            looks += 1;
            let last = options.times.is_some_and(|times| looks >= times);
            let told = tell(options, gpu.as_ref(), &mut before, terminal);
            match told {
                Err(Failure::Failed(error)) if interrupt::is_cancelled(&*error) => return Ok(()),
                // The verdict of the last look is that of the command.
                told if last => return told,
                Err(Failure::Failed(error)) if error.is::<Found>() => {}
                Err(Failure::Failed(error)) => terminal.error(&*error),
                Err(Failure::Usage(problem)) => terminal.error_line(&problem),
                Err(other) => return Err(other),
                Ok(()) => {}
            }
        }
        if interrupt::asked().is_break() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// One look: what is found, what is new, how fast it is.
fn tell(
    options: &Options,
    gpu: Option<&Arc<Gpu>>,
    before: &mut Option<(Source, CheckReport)>,
    terminal: &Terminal,
) -> Result<()> {
    if written(&options.file).is_some_and(|(_, length)| length == 0) {
        return Err(Failure::Usage(format!("{}: it is empty", options.file.display())));
    }
    let (source, report) = look(options, gpu)?;
    printing::print(&report, false, terminal)?;
    if let Some((_, old)) = &before {
        differences(old, &report, terminal)?;
    }
    let measured = match (gpu, report.passed()) {
        (Some(gpu), true) => {
            let old = before.as_ref().filter(|(_, report)| report.passed());
            measure(options, gpu, old.map(|(source, _)| source), &source, terminal)
        }
        _ => Ok(()),
    };
    let passed = report.passed();
    let verdict = printing::verdict(&report);
    *before = Some((source, report));
    measured?;
    if passed { Ok(()) } else { Err(Found::failure(verdict)) }
}

fn look(options: &Options, gpu: Option<&Arc<Gpu>>) -> Result<(Source, CheckReport)> {
    let source = Source::open(&options.file)?;
    let spec = options.wanted.spec(&source)?;
    let check_options = CheckOptions {
        settings: options.wanted.settings()?,
        device: gpu.cloned(),
        ..CheckOptions::default()
    };
    let report = check(&source, &spec, &check_options)?;
    Ok((source, report))
}

/// Times at small shapes, beside what was saved before.
fn measure(
    options: &Options,
    gpu: &Arc<Gpu>,
    before: Option<&Source>,
    now: &Source,
    terminal: &Terminal,
) -> Result<()> {
    let spec = options.wanted.spec(now)?;
    let times = if gpu.is_software() { Times::Cpu } else { Times::Wall };
    let read = || times.now();
    let clock = Clock { name: measuring::name_of(times), now: &read };
    let settings = options.wanted.settings()?;
    let contender =
        |source: &Source| Contender { source: source.clone(), settings: settings.clone() };
    let contenders: Vec<Contender> = before.into_iter().chain([now]).map(contender).collect();
    let shapes = spec.shapes_of("small").unwrap_or_default();
    let bench_options = BenchOptions { rounds: 15, ..BenchOptions::default() };
    let mut tell = |_, _| interrupt::asked().is_continue();
    let report = bench(gpu, &contenders, &spec, &shapes, &bench_options, &clock, &mut tell)?;
    let last = contenders.len();
    for one in report.measured.chunks(last).filter_map(|all| all.last()) {
        let beside = told::beside(one);
        let beside = if beside.is_empty() { beside } else { format!(", {beside}") };
        let median = told::seconds(one.median);
        let share = one.roofline * 100.0;
        terminal.print(format!("{}: {median}, {share:.0} % of the roofline{beside}", one.sizes))?;
    }
    Ok(())
}

/// What is new and what is gone since the last look.
fn differences(before: &CheckReport, now: &CheckReport, terminal: &Terminal) -> Result<()> {
    let has = |report: &CheckReport, kind| report.faults.iter().any(|fault| fault.kind == kind);
    for fault in now.faults.iter().filter(|fault| !has(before, fault.kind)) {
        terminal.print(format!("new: {}", fault.kind))?;
    }
    for fault in before.faults.iter().filter(|fault| !has(now, fault.kind)) {
        terminal.print(format!("gone: {}", fault.kind))?;
    }
    let worst = |report: &CheckReport| {
        report.shapes.iter().filter_map(|shape| shape.error).fold(0.0, f64::max)
    };
    let [old, new] = [before, now].map(worst);
    if (old - new).abs() > 0.05 * old.max(new) {
        terminal.print(format!("worst error {new:.1e}, before {old:.1e}"))?;
    }
    Ok(())
}
