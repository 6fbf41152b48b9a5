//! Models as one file.
use std::collections::BTreeMap;
use std::path::PathBuf;

use mixofshow::Progress;
use mixofshow::checkpoint::{Checkpoint, DType, MODEL_TYPES, ModelFormat, export};
use serde::Serialize;

use super::{Arguments, check};
use crate::cli::files::{self, make_folder_of};
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Result, interrupt};

#[derive(Serialize)]
struct Report<'a> {
    files: [&'a PathBuf; 1],
    /// Tensors of each type.
    types: BTreeMap<&'static str, usize>,
    notes: &'a [String],
}

/// Writes the model that the first file names, its matrices in the type of that name.
pub fn run(arguments: &Arguments, dtype: &str, terminal: &Terminal) -> Result<()> {
    let usage = |problem: String| Err(Failure::Usage(problem));
    let [from, to] = &arguments.files[..] else {
        return usage("two files are expected: a model to read and a file to write".into());
    };
    let known = MODEL_TYPES.into_iter().find(|(name, _)| *name == dtype);
    let dtype = known.map_or(DType::F16, |(_, dtype)| dtype);
    let format = match to.extension().and_then(|ending| ending.to_str()) {
        Some("gguf") => ModelFormat::Gguf,
        Some("safetensors") if !dtype.is_quantised() => ModelFormat::Safetensors,
        Some("safetensors") => {
            return usage(format!(
                "{}: safetensors has no {dtype}; name a file that ends in .gguf",
                to.display()
            ));
        }
        _ => {
            return usage(format!(
                "{}: expected a file that ends in .gguf or .safetensors",
                to.display()
            ));
        }
    };
    let name = from.to_string_lossy();
    let inputs: Vec<PathBuf> = files::model(&name).into_iter().chain([from.clone()]).collect();
    check(to, &inputs, arguments.replace)?;
    let _watched = interrupt::watched();
    let model = Checkpoint::open_named(&name, files::models().as_deref())?;
    make_folder_of(to)?;
    let exported = export(&model, dtype, format, to, &mut |_: Progress| interrupt::asked())?;
    exported.notes.iter().for_each(|note| terminal.remark(note));
    if arguments.json {
        let types = exported.types.iter().map(|(dtype, count)| (dtype.name(), *count)).collect();
        return terminal.print_json(&Report { files: [to], types, notes: &exported.notes });
    }
    terminal.print_path(to)
}
