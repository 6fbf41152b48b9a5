//! `mos convert`
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{Checkpoint, base_hash_cache};
use mixofshow::concept::Concept;
use mixofshow::concept::dialects::{self, Dialect};
use serde::Serialize;

use super::files::make_folder_of;
use super::terminal::Terminal;
use super::{Failure, Result, files};

const EXAMPLES: &str = "\
Examples:
  A concept of Mix-of-Show's own code, for this program:
    mos convert potter.pth potter.safetensors
  A concept of this program for web UIs and ComfyUI, and for diffusers:
    mos convert zorp.safetensors zorp-webui.safetensors --to kohya
    mos convert zorp.safetensors pytorch_lora_weights.safetensors --to peft
  Another word, where two concepts have the same:
    mos convert zorp.safetensors other.safetensors --rename '<zorp1>=<other1>'

Where the other program knows no layer-wise embeddings (kohya, peft), each word
becomes one embedding, the mean of its layers', in
a textual inversion beside the file; --bundle-words puts them into kohya's file as well.";

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
    /// The file to write; an older one is replaced
    to_file: PathBuf,
    /// For whom: mos, mix-of-show, kohya or peft (diffusers)
    #[arg(long, value_name = "PROGRAM", default_value = "mos")]
    to: Dialect,
    /// With --to kohya: put the words into the file too, where web UIs find them; diffusers refuses
    /// such a file
    #[arg(long)]
    bundle_words: bool,
    /// Give a word another name; may be repeated
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
    let renames = arguments.rename.iter().map(|text| renaming(text)).collect::<Result<Vec<_>>>()?;
    if same_file(&arguments.from, &arguments.to_file) {
        return Err(Failure::Usage(format!(
            "{} would replace itself: name another file",
            arguments.from.display()
        )));
    }
    files::check(&arguments.to_file)?;
    if arguments.bundle_words && arguments.to != Dialect::Kohya {
        return Err(Failure::Usage(
            "--bundle-words puts words into a file of kohya's names: it goes with --to kohya"
                .into(),
        ));
    }
    let (mut concept, mut notes, from) = dialects::read_file(&arguments.from)?;
    for (word, new) in renames {
        rename(&mut concept, word, new)?;
    }
    if let Some(name) = &arguments.base {
        let model = Checkpoint::open_named(name, files::models().as_deref())?;
        concept.base = Some(model.base_hash_cached(base_hash_cache().as_deref()));
    }
    dialects::files(&concept, arguments.to, &arguments.to_file)
        .iter()
        .try_for_each(|file| files::check(file))?;
    make_folder_of(&arguments.to_file)?;
    let written =
        dialects::write(&concept, arguments.to, arguments.bundle_words, &arguments.to_file)?;
    notes.extend(written.notes);
    for note in &notes {
        terminal.note(format!("note: {note}"));
    }
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

fn renaming(text: &str) -> Result<(&str, &str)> {
    let parts = text.split_once('=').filter(|(word, new)| !word.is_empty() && !new.is_empty());
    parts.ok_or_else(|| {
        Failure::Usage(format!("--rename {text}: expected WORD=NEW, such as '<zorp1>=<other1>'"))
    })
}

fn rename(concept: &mut Concept, word: &str, new: &str) -> Result<()> {
    if concept.words.iter().any(|other| other.text == new) {
        return Err(Failure::Usage(format!(
            "--rename {word}={new}: `{}` has a word {new} already",
            concept.name
        )));
    }
    let known: Vec<&str> = concept.words.iter().map(|other| other.text.as_str()).collect();
    let known = if known.is_empty() {
        "no words".to_string()
    } else {
        format!("the words {}", known.join(" "))
    };
    match concept.words.iter_mut().find(|other| other.text == word) {
        Some(found) => found.text = new.to_string(),
        None => {
            return Err(Failure::Usage(format!(
                "--rename {word}={new}: `{}` has {known}",
                concept.name
            )));
        }
    }
    Ok(())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}
