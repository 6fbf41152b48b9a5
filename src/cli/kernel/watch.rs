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
    Global, Result, Terminal, Wanted, adapter, bench as measuring, check as printing, told,
};
use crate::cli::bench::Clock as Times;
use crate::cli::{interrupt, values};

/// Check a kernel whenever it is saved, and tell what changed
///
/// Renders, checks and, on a graphics adapter, runs and measures it, beside what was saved before;
/// what is wrong with the template or the WGSL is told with the line of the file. Ends with Ctrl-C.
#[derive(Debug, Args)]
pub struct Options {
    /// A WGSL file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// End after so many looks instead of going on
    #[arg(long, value_name = "TIMES", value_parser = values::TIMES.parser::<usize>())]
    times: Option<usize>,
}

/// When a file was written last.
fn written(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let gpu = adapter(global)?;
    let _watched = interrupt::watched();
    let mut before: Option<(Source, CheckReport)> = None;
    let (mut seen, mut looks) = (None, 0);
    loop {
        let now = written(&options.file);
        if now != seen || looks == 0 {
            seen = now;
            looks += 1;
            match look(options, gpu.as_ref()) {
                Ok((source, report)) => {
                    printing::print(&report, false, terminal)?;
                    if let Some((_, old)) = &before {
                        differences(old, &report, terminal)?;
                    }
                    if let (Some(gpu), true) = (&gpu, report.passed()) {
                        let old = before.as_ref().filter(|(_, report)| report.passed());
                        let old = old.map(|(source, _)| source);
                        measure(options, gpu, old, &source, terminal)?;
                    }
                    before = Some((source, report));
                }
                Err(crate::cli::Failure::Failed(error)) => terminal.error(&*error),
                Err(other) => return Err(other),
            }
            if options.times.is_some_and(|times| looks >= times) {
                return Ok(());
            }
        }
        if interrupt::asked().is_break() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
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
