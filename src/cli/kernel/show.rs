//! `mos kernel show`: what a device gets.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use mixofshow::backend::wgpu as gpu;
use mixofshow::workbench::{Language, Wgsl, shown, statistics, variants};

use super::{Global, Result, Terminal, Wanted, is_own, selection, source};
use crate::cli::Failure;

/// Print what a device gets of a kernel: rendered, or translated to its own language
///
/// A template is rendered with the first value of each parameter, or with those of --set. Of this
/// program's own kernels, by their names, there are several: one for each use by the operations,
/// numbered from 1 (--variant). No device is needed, but for --statistics.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("language").args(["wgsl", "spirv", "msl", "hlsl", "statistics"]))]
pub struct Options {
    /// A WGSL file, or the name of one of this program's kernels
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// WGSL as it was rendered (unless told otherwise)
    #[arg(long)]
    wgsl: bool,
    /// Vulkan's SPIR-V, disassembled
    #[arg(long)]
    spirv: bool,
    /// Metal's language
    #[arg(long)]
    msl: bool,
    /// DirectX 12's language
    #[arg(long)]
    hlsl: bool,
    /// What the driver of --adapter tells of it: registers, memory, occupancy, in the driver's
    /// words (Vulkan drivers with VK_KHR_pipeline_executable_properties)
    #[arg(long)]
    statistics: bool,
    /// Of a kernel of this program: which of its uses
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    #[arg(value_parser = crate::cli::values::TIMES.parser::<usize>())]
    variant: usize,
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> Result<()> {
    let source = source(&options.file)?;
    let wgsl: Wgsl = if is_own(&source, &options.wanted) {
        if !options.wanted.set.is_empty() {
            return Err(Failure::Usage(format!(
                "--set: {} is shown as this program's operations use it; --variant says in which \
                 way",
                source.name
            )));
        }
        let stem = source.path.as_ref().and_then(|path| path.file_stem()?.to_str());
        let all = variants(stem.unwrap_or(&source.name))?;
        let variant = all.get(options.variant - 1).ok_or_else(|| {
            Failure::Usage(format!(
                "--variant {}: {} has {}",
                options.variant,
                source.name,
                mixofshow::counted(all.len(), "use")
            ))
        })?;
        if all.len() > 1 {
            terminal.note(format!("variant {} of {}", options.variant, all.len()));
        }
        variant.wgsl(&source)?
    } else {
        source.wgsl(&options.wanted.settings()?)?
    };
    let failed = |message: String| {
        let kernel = source.name.clone();
        mixofshow::workbench::Error::Kernel { kernel, message }
    };
    if options.statistics {
        let Some(selection) = selection(global) else { return Err(no_driver()) };
        let adapter = match gpu::select(&selection) {
            Err(gpu::Error::NoAdapter { .. }) if matches!(selection, gpu::Selection::Card) => {
                return Err(no_driver());
            }
            other => other?,
        };
        let told = statistics(&wgsl, &adapter).map_err(failed)?.ok_or_else(|| {
            failed(format!(
                "the driver of {} tells nothing of what it compiled: it has no \
                 VK_KHR_pipeline_executable_properties (drivers of cards on Linux have it)",
                adapter.get_info().name
            ))
        })?;
        return terminal.print(told.trim_end());
    }
    let language = match options {
        Options { spirv: true, .. } => Language::SpirV,
        Options { msl: true, .. } => Language::Msl,
        Options { hlsl: true, .. } => Language::Hlsl,
        _ => Language::Wgsl,
    };
    let text = shown(&wgsl, language).map_err(failed)?;
    terminal.print(text.trim_end())
}

fn no_driver() -> Failure {
    Failure::Usage(
        "--statistics asks the driver of a card, and no card is here or was named: name an adapter \
         of `mos devices` in --adapter (Mesa's software driver tells nothing, its driver for AMD \
         tells of cards that are not there: RADV_FORCE_FAMILY=navi21 mos kernel show .. --adapter \
         RADV)"
            .into(),
    )
}
