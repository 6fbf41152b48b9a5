//! `mos kernel tune`: the sizes that suit this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use mixofshow::backend::wgpu::{self as gpu, Gpu, sizes_file};
use mixofshow::checkpoint::output;
use mixofshow::workbench::{
    Clock, Error, Source, TuneOptions, TuneReport, families, family_shapes, tune, tune_family,
};

use super::bench::{name_of, shapes};
use super::told::seconds;
use super::{Global, Result, Terminal, Wanted, check_output, device, source};
use crate::cli::bench::Clock as Times;
use crate::cli::progress::Progress;
use crate::cli::{Failure, interrupt, values};

/// Find the fastest of the forms that a kernel's header declares
///
/// Tries all combinations of the values in its lines `//% tune NAME in [..]` (with `--set` of those
/// that are set): those that the device cannot have, or that do not suit the shapes, are left out,
/// and why is told; those that are slow at first sight are stopped; the best are measured in turns
/// with what there is now, at all shapes. Results are compared with the reference. Values are
/// chosen only if they are slower at no shape and faster at some.
///
/// Of this program's own kernels (matmul, attention, lora_down, group_norm) the values go into a
/// file for this adapter in the user's cache folder, which every command reads from then on; `mos
/// devices` tells which is in use, and MOS_TUNED=off ignores it.
#[derive(Debug, Args)]
pub struct Options {
    /// A WGSL file, or a part of this program's table of sizes: matmul, attention, lora_down or
    /// group_norm
    #[arg(value_name = "FILE")]
    kernel: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// Shapes: small, sd15, sdxl, or one or more such as 4096x320x320,256x1280x1280 (the kind's
    /// sizes in order: rows, inner, columns), or a file of them, one a line [default: sd15 on
    /// cards, small on software drivers]
    #[arg(long, value_name = "SHAPES")]
    shapes: Option<String>,
    /// Measurements of each of the best forms at each shape
    #[arg(long, default_value_t = 15, value_parser = values::ROUNDS.parser::<usize>())]
    rounds: usize,
    /// Write the values to this file; without it those of a kernel of your own are only printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    if let Some(path) = &options.output {
        let inputs: Vec<&Path> =
            std::iter::once(&*options.kernel).chain(options.wanted.like.as_deref()).collect();
        let is_table = |text: &str| toml::from_str::<toml::Table>(text).is_ok();
        check_output(path, &inputs, "a table of values", is_table)?;
    }
    let opened = device(global)?;
    let times = if opened.is_software() { Times::Cpu } else { Times::Wall };
    let now = || times.now();
    let clock = Clock { name: name_of(times), now: &now };
    let tune_options = TuneOptions { rounds: options.rounds, ..TuneOptions::default() };
    let _watched = interrupt::watched();
    let mut progress = Progress::new(terminal);
    let mut tell = |done: usize, of: usize| {
        progress.show("measurements", done, of);
        interrupt::asked().is_continue()
    };
    let family = options.kernel.to_str().filter(|name| families().contains(name));
    let family = family.filter(|name| !Path::new(name).exists());
    let name = options.kernel.display().to_string();
    let is_word = !name.contains(['/', '\\', '.']) && !options.kernel.exists();
    if family.is_none() && is_word {
        return Err(Failure::Usage(format!(
            "{name}: no such file, and no part of this program's table of sizes: {}",
            families().join(", ")
        )));
    }
    let report = match family {
        Some(family) => {
            let shapes = of_family(family, options, &opened)?;
            let selection = gpu::Selection::Matching(opened.name().to_string());
            let open = |tuned| -> std::result::Result<Arc<Gpu>, Error> {
                let selection = selection.clone();
                let matrices = global.matrices;
                let tuned = Some(tuned);
                let options = gpu::Options { selection, matrices, tuned, ..Default::default() };
                Ok(Gpu::open(&options)?)
            };
            let now = *opened.tuned();
            tune_family(family, now, &open, &shapes, &tune_options, &clock, &mut tell)
        }
        None => {
            let mut source = source(&options.kernel)?;
            let spec = options.wanted.spec(&source)?;
            keep_set(&mut source, options)?;
            let shapes = shapes(options.shapes.as_deref(), &spec, &opened)?;
            tune(&opened, &source, &spec, &shapes, &tune_options, &clock, &mut tell)
        }
    };
    progress.finish();
    let report = match report {
        Err(Error::Cancelled) => return Err(Failure::Stopped),
        other => other?,
    };
    let path = match (&options.output, family) {
        _ if options.dry_run || report.chosen.is_empty() => None,
        (Some(path), _) => Some(path.clone()),
        (None, Some(_)) => sizes_file(opened.name()),
        (None, None) => None,
    };
    if let Some(path) = &path {
        write(path, &report, family)?;
    }
    for note in &report.notes {
        terminal.note(format!("note: {note}"));
    }
    if options.json {
        return terminal.print_json(&report);
    }
    print(&report, family.is_none(), terminal)?;
    match path {
        Some(path) => terminal.note(format!("written: {}", path.display())),
        None => terminal.note("nothing is written"),
    }
    Ok(())
}

/// Parameters that are set have that value in all forms.
fn keep_set(source: &mut Source, options: &Options) -> Result<()> {
    let set = options.wanted.settings()?;
    source.settings(&set)?;
    for (name, values) in &mut source.tuned {
        if let Some(value) = set.get(name) {
            *values = vec![value.clone()];
        }
    }
    Ok(())
}

fn of_family(family: &str, options: &Options, gpu: &Gpu) -> Result<Vec<Vec<usize>>> {
    let wanted = &options.wanted;
    if wanted.kind.is_some() || wanted.like.is_some() || !wanted.set.is_empty() {
        return Err(Failure::Usage(format!(
            "`{family}` is this program's own; --as, --like and --set are for files"
        )));
    }
    let default = if gpu.is_software() { "small" } else { "sd15" };
    let asked = options.shapes.as_deref().unwrap_or(default);
    let (names, known) = family_shapes(family, asked)?;
    if let Some(shapes) = known {
        return Ok(shapes);
    }
    let shape = |text: &str| {
        let sizes: Option<Vec<usize>> = text.split('x').map(|n| n.trim().parse().ok()).collect();
        sizes.filter(|sizes| sizes.len() == names.len() && !sizes.contains(&0)).ok_or_else(|| {
            Failure::Usage(format!(
                "--shapes: `{text}` is none of small, sd15 and sdxl, and no shape, which is {}",
                names.join("x")
            ))
        })
    };
    asked.split(',').map(shape).collect()
}

/// Writes the chosen values: of this program's kernels into the table that is there already.
fn write(path: &Path, report: &TuneReport, family: Option<&str>) -> Result<()> {
    let failed = |message: String| Error::File { path: path.into(), message };
    let mut table = match (family, std::fs::read_to_string(path)) {
        (Some(_), Ok(text)) => toml::from_str::<toml::Table>(&text)
            .map_err(|error| failed(error.message().to_string()))?,
        _ => toml::Table::new(),
    };
    let values: toml::Table = report
        .chosen
        .iter()
        .map(|(name, value)| {
            let number = value.parse().map(toml::Value::Integer);
            (name.clone(), number.unwrap_or_else(|_| toml::Value::String(value.clone())))
        })
        .collect();
    match family {
        None => table.extend(values),
        Some(family) => match table.get_mut(family) {
            Some(toml::Value::Table(own)) => own.extend(values),
            _ => {
                table.insert(family.to_string(), toml::Value::Table(values));
            }
        },
    }
    let differs = match family {
        Some(_) => "the standard sizes".to_string(),
        None => format!("the first values in the header of {}", report.kernel),
    };
    let head = format!(
        "# Measured on {} by `mos kernel tune`: what differs from {differs}.\n",
        report.adapter
    );
    let text = head + &toml::to_string(&table).map_err(|error| failed(error.to_string()))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    output::write(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// A report for people, of somebody's own kernel or of this program's.
fn print(report: &TuneReport, own: bool, terminal: &Terminal) -> Result<()> {
    terminal.note(format!(
        "{} on {}: {} forms, {} left out, {} stopped early, {} wrong",
        report.kernel, report.adapter, report.forms, report.pruned, report.stopped, report.wrong
    ));
    if report.chosen.is_empty() {
        return terminal.print("no form is faster at some shape and slower at none");
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["sizes", "before", "after", "difference"]);
    for shape in &report.shapes {
        table.add_row([
            shape.sizes.clone(),
            seconds(shape.before),
            seconds(shape.after),
            shape.difference.told(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    terminal.print(table)?;
    let chosen: Vec<String> =
        report.chosen.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let set: Vec<String> =
        report.chosen.iter().map(|(name, value)| format!("--set {name}={value}")).collect();
    let how = match own {
        true => format!(" ({}; or first in the header's lists)", set.join(" ")),
        false => String::new(),
    };
    terminal.print(format!("best: {}{how}", chosen.join(", ")))
}
