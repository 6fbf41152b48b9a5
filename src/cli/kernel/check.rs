//! `mos kernel check`: is a kernel right?

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use mixofshow::backend::wgpu::Gpu;
use mixofshow::counted;
use mixofshow::workbench::{CheckOptions, CheckReport, Source, check, check_shipped};

use super::bench::named_shapes;
use super::{Found, Global, Result, Terminal, Wanted, adapter, in_words, is_own, source};
use crate::cli::Failure;
use crate::cli::progress::Progress;

/// Check a kernel against a reference, at shapes of all sorts
///
/// The kernel is executed as it is written, invocation by invocation, with every access looked at:
/// out-of-bounds reads and writes, races and missing barriers, workgroup memory and outputs that
/// are read before they are written, barriers and cooperative matrices in divergent control flow,
/// inputs that are written, f16 that overflows, endless loops, and dependence on the size of
/// subgroups (executed with 8 to 128 lanes; with cooperative matrices with 32). Results are
/// compared with a reference in f64 at ordinary, ragged, tiny, empty and large shapes, with
/// numbers large and small, NaN, infinities and denormals, softmax and attention also with rows far
/// below 0, far from each other, and with large scores; the worst error is told with its index.
/// Each fault is told once, as FILE:LINE where a line is to blame, with the first shape that has
/// it, at how many shapes it is seen, and how often it happened in all. On a graphics adapter the
/// kernel runs, too: twice, and with its workgroups in another order, between guards. Without a
/// card, name a software driver in --adapter for that.
///
/// A kernel binds the tensors of its kind by their names (docs/kernels.md), and its header says how
/// many workgroups it takes: `//% dispatch [ceil(columns / 16), ceil(rows / 16)]`. A kernel of this
/// program is checked by its name, or a file that is called as one, as the operations dispatch it.
/// Exit code 0 if nothing is found, 1 if something is, 2 if a kernel could not be looked at.
#[derive(Debug, Args)]
pub struct Options {
    /// WGSL files, or names of this program's kernels
    #[arg(value_name = "FILE", required_unless_present = "shipped")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// All kernels of this program
    #[arg(long, conflicts_with_all = ["files", "kind", "like", "set", "only"])]
    shipped: bool,
    /// Only at shapes whose name contains this: ordinary, ragged, tiny, a NaN ...; another word
    /// lists those of the kind
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Shapes to look at, too: sd15, sdxl, one or more such as 4096x320x320 (the kind's sizes in
    /// order), or a file of them, one a line; of large ones the workgroups at the corners and in
    /// the middle are executed
    #[arg(long, value_name = "SHAPES", conflicts_with = "shipped")]
    shapes: Option<String>,
    /// Print JSON: for each kernel its shapes, faults and notes
    #[arg(long)]
    json: bool,
}

impl Options {
    /// An error where an option is given that kernels of this program do not have.
    fn is_for_others(&self, source: &Source) -> Result<()> {
        let given = [("--only", self.only.is_some()), ("--set", !self.wanted.set.is_empty())];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Failure::Usage(format!(
                "{option}: {} is checked as this program's operations use it, in all their ways; \
                 {option} is for kernels that say what they compute",
                source.name
            ))),
            None => Ok(()),
        }
    }
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let mut reports = Vec::new();
    if options.shipped {
        reports = shipped(None, terminal)?;
    }
    let sources: Vec<Result<Source>> = options.files.iter().map(|file| source(file)).collect();
    let known: Vec<Source> = sources.iter().flatten().cloned().collect();
    let gpu = match known.iter().all(|source| is_own(source, &options.wanted)) {
        true => None,
        false => adapter(global)?,
    };
    if known.len() > 1 {
        options.wanted.check_settings(&known)?;
    }
    // One that cannot be looked at keeps nobody from looking at the others.
    let mut failures = Vec::new();
    for (file, source) in options.files.iter().zip(sources) {
        let looked = source.and_then(|source| match is_own(&source, &options.wanted) {
            true => {
                options.is_for_others(&source)?;
                shipped(Some(&source), terminal)
            }
            false => Ok(vec![one(&source, options, known.len() > 1, gpu.as_ref())?]),
        });
        match looked {
            Ok(all) => reports.extend(all),
            Err(failure @ (Failure::Failed(_) | Failure::Usage(_))) => {
                let report = CheckReport::failed(&file.display().to_string(), said(&failure));
                reports.push(report);
                failures.push(failure);
            }
            Err(other) => return Err(other),
        }
    }
    if options.json {
        terminal.print_json(&reports)?;
    } else {
        for report in reports.iter().filter(|report| report.error.is_none()) {
            print(report, reports.len() == 1 || !report.passed() || terminal.verbose(), terminal)?;
        }
    }
    let wrong: Vec<&CheckReport> = reports.iter().filter(|report| !report.passed()).collect();
    if wrong.len() == failures.len() && failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let told: Vec<String> = wrong
        .iter()
        .map(|report| match &report.error {
            Some(error) if error.contains(&report.kernel) => error.clone(),
            Some(error) => format!("{}: {error}", report.kernel),
            None => verdict(report),
        })
        .collect();
    match failures.is_empty() {
        true => Err(Found::failure(told.join(", "))),
        // Not all could be looked at.
        false => Err(Failure::Usage(told.join(", "))),
    }
}

/// What was found, in short.
pub fn verdict(report: &CheckReport) -> String {
    format!("{} in {}", counted(report.faults.len(), "fault"), report.kernel)
}

/// What went wrong, in words.
fn said(failure: &Failure) -> String {
    match failure {
        Failure::Failed(error) => in_words(&**error),
        Failure::Usage(text) => text.clone(),
        Failure::Stopped | Failure::Unread => String::new(),
    }
}

fn one(
    source: &Source,
    options: &Options,
    beside_others: bool,
    gpu: Option<&std::sync::Arc<Gpu>>,
) -> Result<CheckReport> {
    let spec = options.wanted.spec(source)?;
    let shapes = options.shapes.as_deref().map(|asked| named_shapes(asked, &spec)).transpose()?;
    let check_options = CheckOptions {
        shapes: shapes.unwrap_or_default(),
        settings: match beside_others {
            true => options.wanted.settings_of(source)?,
            false => options.wanted.settings()?,
        },
        device: gpu.cloned(),
        only: options.only.clone(),
    };
    Ok(check(source, &spec, &check_options)?)
}

fn shipped(only: Option<&Source>, terminal: &Terminal) -> Result<Vec<CheckReport>> {
    let mut progress = Progress::new(terminal);
    let reports = check_shipped(only, &mut |_, done, of| {
        progress.show("cases", done, of);
        true
    })?;
    Ok(reports)
}

/// A report for people.
pub fn print(report: &CheckReport, whole: bool, terminal: &Terminal) -> Result<()> {
    if whole {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header([report.kernel.as_str(), "sizes", "worst error", "allowed", "at", ""]);
        for shape in &report.shapes {
            let faults: Vec<&str> = shape.faults.iter().map(|kind| kind.name()).collect();
            let error = shape.error.map_or(String::new(), |error| format!("{error:.1e}"));
            table.add_row([
                shape.label.clone(),
                shape.sizes.clone(),
                error,
                format!("{:.1e}", shape.allowed),
                shape.at.clone().unwrap_or_default(),
                if faults.is_empty() { "ok".into() } else { faults.join(", ") },
            ]);
        }
        for column in table.column_iter_mut().skip(2).take(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        terminal.print(table)?;
    }
    for note in &report.notes {
        terminal.note(format!("note: {note}"));
    }
    for fault in &report.faults {
        terminal.print(fault.told(report.shapes.len()))?;
    }
    let where_ = match (&report.device, report.shapes.iter().any(|shape| shape.on_device)) {
        (Some(device), true) => format!("executed as it is written, and run on {device}"),
        _ if report.shapes.is_empty() => "not executed".to_string(),
        _ => "executed as it is written; on no device".to_string(),
    };
    let verdict = match report.faults.len() {
        0 => "right".to_string(),
        count => counted(count, "fault"),
    };
    terminal.print(format!(
        "{}: {verdict} at {}, against {}; {where_}",
        report.kernel,
        counted(report.shapes.len(), "shape"),
        report.reference
    ))
}
