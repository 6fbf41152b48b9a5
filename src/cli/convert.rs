//! `mos convert`
use std::path::PathBuf;

use mixofshow::Progress;
use mixofshow::checkpoint::output;
use mixofshow::checkpoint::{Checkpoint, adapter_files, base_hash_cache};
use mixofshow::concept::dialects::{self, Dialect};
use serde::Serialize;

use super::files::make_folder_of;
use super::terminal::Terminal;
use super::{Failure, Result, files, interrupt};

const EXAMPLES: &str = "\
Examples:
  A concept of Mix-of-Show's own code, for this program:
    mos convert potter.pth potter.safetensors
  A concept of this program for web UIs and ComfyUI, and for diffusers:
    mos convert zorp.safetensors zorp-webui.safetensors --to kohya
    mos convert zorp.safetensors pytorch_lora_weights.safetensors --to peft
  Another word, where two concepts have the same:
    mos convert zorp.safetensors other.safetensors --rename '<zorp1>=<other1>'

Where the other program knows no layer-wise embeddings (kohya, peft), each word becomes one
embedding, the mean of its layers', in a textual inversion beside the file; --bundle-words puts them
into kohya's file as well.";

/// Translate concepts and LoRAs between programs
///
/// Reads a concept or LoRA of any kind: this program's, Mix-of-Show's (.pth or safetensors),
/// kohya's and LyCORIS', PEFT's and diffusers', ComfyUI's, cloneofsimo's, textual inversions; told
/// apart by content, and without ever executing anything of a pickle. A folder that PEFT or
/// diffusers wrote is taken too. Writes safetensors.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The file to read, or a LoRA's folder
    from: PathBuf,
    /// The file to write
    to_file: PathBuf,
    /// Replace files that are there already: that of this name, and the textual inversions beside it
    #[arg(long)]
    replace: bool,
    /// For whom: mos, mix-of-show, kohya or peft (diffusers)
    #[arg(long, value_name = "PROGRAM", default_value = "mos")]
    to: Dialect,
    /// With --to kohya: put the words into the file too, where web UIs find them; diffusers refuses
    /// such a file
    #[arg(long)]
    bundle_words: bool,
    /// Give a word another name, with all of its vectors; may be repeated
    #[arg(long, value_name = "WORD=NEW")]
    rename: Vec<String>,
    /// Note this model as the base: `generate` then refuses others
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Print a report as JSON instead of the files' names
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    from: &'static str,
    to: &'static str,
    files: Vec<PathBuf>,
    words: Vec<String>,
    layers: usize,
    notes: Vec<String>,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if let Some(wrong) = arguments.rename.iter().find(|text| names(text).next().is_none()) {
        return Err(Failure::Usage(format!(
            "--rename {wrong}: expected WORD=NEW, such as '<zorp1>=<other1>'"
        )));
    }
    let mut inputs = adapter_files(&arguments.from).unwrap_or_default();
    inputs.push(arguments.from.clone());
    inputs.extend(arguments.base.as_deref().and_then(files::model));
    let check = |file: &PathBuf| {
        files::check(file)?;
        files::check_apart(file, &inputs)?;
        match output::is_replaced(file) && !arguments.replace {
            true => Err(Failure::Usage(format!(
                "{}: it is there already; --replace replaces it",
                file.display()
            ))),
            false => Ok(()),
        }
    };
    check(&arguments.to_file)?;
    if arguments.bundle_words && arguments.to != Dialect::Kohya {
        return Err(Failure::Usage(
            "--bundle-words puts words into a file of kohya's names: it goes with --to kohya"
                .into(),
        ));
    }
    let _watched = interrupt::watched();
    let asked = &mut |_: Progress| interrupt::asked();
    let (mut concept, mut notes, from) = dialects::read_watched(&arguments.from, asked)?;
    for text in &arguments.rename {
        // Words may have that sign too.
        let is_word = |(word, _): &(&str, &str)| !concept.vectors(word).is_empty();
        let Some((word, new)) = names(text).find(is_word).or(names(text).next()) else { continue };
        concept.rename(word, new).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    if let Some(name) = &arguments.base {
        let model = Checkpoint::open_named(name, files::models().as_deref())?;
        concept.base = Some(model.base_hash_watched(base_hash_cache().as_deref(), asked)?);
    }
    dialects::files(&concept, arguments.to, &arguments.to_file).iter().try_for_each(check)?;
    make_folder_of(&arguments.to_file)?;
    let (to, bundle) = (arguments.to, arguments.bundle_words);
    let written = dialects::write_watched(&concept, to, bundle, &arguments.to_file, asked)?;
    notes.extend(written.notes);
    notes.iter().for_each(|note| terminal.remark(note));
    if arguments.json {
        return terminal.print_json(&Report {
            from: from.name(),
            to: arguments.to.name(),
            files: written.files,
            words: concept.words.iter().map(|word| word.text.clone()).collect(),
            layers: concept.updates.len(),
            notes,
        });
    }
    written.files.iter().try_for_each(|file| terminal.print_path(file))
}

/// `WORD=NEW`, at each of its signs.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.match_indices('=').map(|(at, _)| (&text[..at], &text[at + 1..]));
    parts.filter(|(word, new)| !word.is_empty() && !new.is_empty())
}
