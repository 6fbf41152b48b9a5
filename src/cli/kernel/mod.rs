//! `mos kernel`: for people who write shaders.

mod bench;
mod check;
mod html;
mod show;
mod told;
mod tune;
mod watch;

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::terminal::{Terminal, in_words};
use super::{Failure, Global, Result, files};
use mixofshow::backend::wgpu::{self as gpu, Gpu};
use mixofshow::checkpoint::output;
use mixofshow::workbench::{Setting, Settings, Source, Spec, kinds, stands_for_own};

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Kernel {
    #[command(subcommand)]
    what: What,
}

const EXIT_CODES: &str = "\
Examples:
  mos kernel check my.wgsl
  mos kernel bench old.wgsl new.wgsl --adapter llvmpipe --markdown
  mos kernel tune my.wgsl --shapes 4096x320x320
  mos kernel show matmul --spirv

A kernel that can be checked:
  //% kind softmax
  //% dispatch [rows]
  struct Sizes { rows: u32, columns: u32 }
  @group(0) @binding(0) var<uniform> sizes: Sizes;
  @group(0) @binding(1) var<storage, read> x: array<f32>;
  @group(0) @binding(2) var<storage, read_write> y: array<f32>;
  @compute @workgroup_size(1)
  fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let start = group.x * sizes.columns;
    var peak = x[start];
    for (var c = 1u; c < sizes.columns; c++) { peak = max(peak, x[start + c]); }
    var total = 0.0;
    for (var c = 0u; c < sizes.columns; c++) { total += exp(x[start + c] - peak); }
    for (var c = 0u; c < sizes.columns; c++) { y[start + c] = exp(x[start + c] - peak) / total; }
  }

Exit codes of all of them: 0 nothing was found, 1 something was found in a kernel (faults, wrong
results, or what keeps it from being measured), 2 it could not be looked at: wrong usage, a file,
header or WGSL that is not valid, no such device.";

/// Something that was found in a kernel, which is a result: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Found(String);

impl Found {
    fn failure(told: impl Into<String>) -> Failure {
        Failure::Failed(Box::new(Found(told.into())))
    }
}

/// What keeps a kernel from being looked at is told by exit code 2, so that 1 is a verdict.
fn as_verdict(failure: Failure) -> Failure {
    let Failure::Failed(error) = failure else { return failure };
    let found = error.is::<Found>()
        || matches!(error.downcast_ref(), Some(mixofshow::workbench::Error::Faulty { .. }));
    match found || super::interrupt::is_cancelled(&*error) {
        true => Failure::Failed(error),
        false => Failure::Usage(in_words(&*error)),
    }
}

#[derive(Debug, Subcommand)]
enum What {
    Check(check::Options),
    Bench(bench::Options),
    Tune(tune::Options),
    Show(show::Options),
    Watch(watch::Options),
}

/// Which kernel, and what it is to compute.
#[derive(Clone, Debug, Args)]
struct Wanted {
    /// What it computes: matmul, conv3x3, attention, group_norm, layer_norm, geglu or softmax
    /// [default: as its line `//% kind` says]
    #[arg(long = "as", value_name = "KIND", conflicts_with = "like")]
    kind: Option<String>,
    /// A file that describes what it computes: sizes, inputs, outputs by a formula or another
    /// kernel (docs/kernels.md)
    #[arg(long, value_name = "TOML")]
    like: Option<std::path::PathBuf>,
    /// A value of a parameter that its header declares, as in `--set tile=8`; may be repeated
    /// [default: the first that the header names]
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Wanted {
    fn settings(&self) -> Result<Settings> {
        let one = |text: &String| {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::Usage(format!("--set {text}: expected NAME=VALUE, such as tile=8"))
            })?;
            Ok((name.trim().to_string(), Setting::parse(value)))
        };
        self.set.iter().map(one).collect()
    }

    /// Those that a kernel's header declares, where several kernels are looked at.
    fn settings_of(&self, source: &Source) -> Result<Settings> {
        let known = |name: &String| source.tuned.iter().any(|(known, _)| known == name);
        Ok(self.settings()?.into_iter().filter(|(name, _)| known(name)).collect())
    }

    /// An error where a value is set that none of several kernels declares.
    fn check_settings(&self, sources: &[Source]) -> Result<()> {
        let settings = self.settings()?;
        let declared = |name: &str| {
            let mut all = sources.iter().flat_map(|source| &source.tuned);
            all.any(|(known, _)| known == name)
        };
        match settings.keys().find(|name| !declared(name)) {
            Some(name) => {
                Err(Failure::Usage(format!("--set {name}: no kernel's header declares it")))
            }
            None => Ok(()),
        }
    }

    /// What a kernel is to compute.
    fn spec(&self, source: &Source) -> Result<Spec> {
        if let Some(path) = &self.like {
            return Ok(Spec::like(path)?);
        }
        match (&self.kind, &source.kind) {
            (Some(kind), _) => Ok(Spec::kind(kind)?),
            // The file is to blame, not the command line.
            (None, Some(kind)) => {
                Ok(Spec::kind(kind).map_err(|error| source.unknown_kind(&error))?)
            }
            (None, None) => Err(Failure::Usage(format!(
                "{}: what does it compute? Say it with --as ({}), --like FILE.toml, or a line \
                 `//% kind KIND` in the kernel",
                source.name,
                kinds().join(", ")
            ))),
        }
    }
}

/// A file, or this program's own kernel of that name.
fn source(name: &Path) -> Result<Source> {
    let own = name.to_str().filter(|name| !name.contains(['/', '\\', '.']));
    match own {
        Some(own) if !name.exists() => Ok(Source::own(own)?),
        _ => Ok(Source::open(name)?),
    }
}

/// An error where a file would replace an input of the command, or something else than `what`, as
/// `is_it` tells by the text.
fn check_output(
    path: &Path,
    inputs: &[&Path],
    what: &str,
    is_it: impl Fn(&str) -> bool,
) -> Result<()> {
    files::check_apart(path, inputs)?;
    files::check(path)?;
    if !output::is_replaced(path) {
        return Ok(());
    }
    match std::fs::read(path) {
        Ok(bytes) if std::str::from_utf8(&bytes).is_ok_and(|t| t.trim().is_empty() || is_it(t)) => {
            Ok(())
        }
        // One that cannot be read is told of when it is written.
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::Usage(format!(
            "{}: it is there already and is not {what}: name another file",
            path.display()
        ))),
    }
}

/// Whether a source is a kernel of this program, or stands for one, whatever the options say.
fn is_own(source: &Source, wanted: &Wanted) -> bool {
    let told = wanted.kind.is_some() || wanted.like.is_some();
    !told && stands_for_own(source)
}

/// The graphics adapter that was asked for; none is the processor. Without a word a card.
fn selection(global: &Global) -> Option<gpu::Selection> {
    let name = global.adapter.as_deref().map(str::trim).filter(|name| !name.is_empty());
    match name {
        Some(name) if name.eq_ignore_ascii_case("cpu") => None,
        Some(name) => Some(gpu::Selection::Matching(name.to_string())),
        None => Some(gpu::Selection::Card),
    }
}

/// Opens the adapter that was asked for; none is the processor, or a card that is not there.
fn adapter(global: &Global) -> Result<Option<Arc<Gpu>>> {
    let Some(selection) = selection(global) else { return Ok(None) };
    let is_named = matches!(selection, gpu::Selection::Matching(_));
    let options = gpu::Options {
        selection,
        matrices: global.matrices,
        extras: true,
        ..gpu::Options::default()
    };
    match Gpu::open(&options) {
        Ok(gpu) => Ok(Some(gpu)),
        Err(gpu::Error::NoAdapter { .. }) if !is_named => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As `adapter`, for what only a device can do.
pub fn device(global: &Global) -> Result<Arc<Gpu>> {
    adapter(global)?.ok_or_else(no_device)
}

fn no_device() -> Failure {
    Failure::Usage(
        "kernels in WGSL run on graphics adapters, and no card is here or was named; a software \
         driver is one, too, named in --adapter: `mos devices` lists what there is"
            .into(),
    )
}

pub fn run(kernel: &Kernel, global: &Global, terminal: &Terminal) -> Result<()> {
    let done = match &kernel.what {
        What::Check(options) => check::run(options, global, terminal),
        What::Bench(options) => bench::run(options, global, terminal),
        What::Tune(options) => tune::run(options, global, terminal),
        What::Show(options) => show::run(options, global, terminal),
        What::Watch(options) => watch::run(options, global, terminal),
    };
    done.map_err(as_verdict)
}
