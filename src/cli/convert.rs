//! `mos convert`
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::output;
use mixofshow::checkpoint::{Checkpoint, MODEL_TYPES, adapter_files, base_hash_cache};
use mixofshow::concept::dialects::{self, Dialect};
use mixofshow::concept::{Concept, Extracted, ModelKind, Network, ScaledFile, Share, extract};
use mixofshow::{NumberRange, Progress, counted};
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
  A LoRA of a LoHa, LoKr, DoRA or full difference, and a smaller one of a large one:
    mos convert loha.safetensors lora.safetensors --rank 16 --to kohya
  Several as one:
    mos convert --concept ink.safetensors:0.7 --concept light.safetensors:0.5 both.safetensors
  A model as one file of fewer bits, which stable-diffusion.cpp reads as well:
    mos convert models/sd15 sd15-q8_0.gguf --quantize q8_0

Where the other program knows no layer-wise embeddings (kohya, peft), each word becomes one
embedding, the mean of its layers', in a textual inversion beside the file; --bundle-words puts them
into kohya's file as well.";

/// Translate concepts and LoRAs between programs; make GGUF of models
///
/// Reads a concept or LoRA of any kind: this program's, Mix-of-Show's (.pth or safetensors),
/// kohya's and LyCORIS', PEFT's and diffusers', ComfyUI's, cloneofsimo's, textual inversions; told
/// apart by content, and without ever executing anything of a pickle. A folder that PEFT or
/// diffusers wrote is taken too. Writes safetensors. Makes a LoRA of other kinds of changes, and
/// one of several; with --quantize it reads a model instead, and writes it as one file.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The file to read, or a LoRA's folder, and the file to write; with --concept the file to
    /// write alone
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// One of several that become one, and how strong it is in it [default: 1]; to be repeated
    #[arg(short, long, value_name = "FILE[:SCALE]")]
    concept: Vec<String>,
    /// Write a LoRA of this rank, the closest to what is read; it is told how much is missed
    #[arg(long, value_name = "N", value_parser = RANKS.parser::<usize>())]
    rank: Option<usize>,
    /// Replace files that are there already: that of this name, and the textual inversions beside
    /// it; never a file behind a symbolic link
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
    /// Note this model as the base: `generate` then refuses others; with --rank the model whose
    /// weights a DoRA or an IA3 is for
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Read a model and write it as one file: its matrices in q8_0, q4_0, q4_k or f16, as GGUF; f16
    /// also as safetensors, told by the file's ending
    #[arg(
        long, value_name = "TYPE", value_parser = MODEL_TYPES.map(|(name, _)| name),
        conflicts_with_all = ["concept", "rank", "to", "bundle_words", "rename", "base"],
    )]
    quantize: Option<String>,
    /// Print a report as JSON instead of the files' names
    #[arg(long)]
    json: bool,
}

/// Ranks of LoRAs that are written.
const RANKS: NumberRange = NumberRange::whole(1, 1024);

#[derive(Serialize)]
struct Report {
    from: String,
    to: &'static str,
    files: Vec<PathBuf>,
    words: Vec<String>,
    layers: usize,
    /// For each network, the part of the change's energy that a LoRA of the rank misses.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missed: BTreeMap<&'static str, f64>,
    notes: Vec<String>,
}

/// What is read, and what is written.
fn places(arguments: &Arguments) -> Result<(Vec<ScaledFile>, &PathBuf)> {
    let usage = |problem: &str| Err(Failure::Usage(problem.to_string()));
    match (&arguments.files[..], &arguments.concept[..]) {
        ([from, to], []) => {
            let from = ScaledFile { path: from.clone(), unet: 1.0, text: 1.0 };
            Ok((vec![from], to))
        }
        ([_], []) => usage("two files are expected: one to read and one to write"),
        ([to], concepts) => {
            let read = concepts.iter().map(|given| ScaledFile::parse(given));
            Ok((read.collect::<std::result::Result<_, _>>().map_err(Failure::Usage)?, to))
        }
        _ => usage("with --concept one file is expected, the one to write"),
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if let Some(dtype) = &arguments.quantize {
        return model::run(arguments, dtype, terminal);
    }
    if let Some(wrong) = arguments.rename.iter().find(|text| names(text).next().is_none()) {
        return Err(Failure::Usage(format!(
            "--rename {wrong}: expected WORD=NEW, such as '<zorp1>=<other1>'"
        )));
    }
    let (sources, to_file) = places(arguments)?;
    let files_of = |source: &ScaledFile| adapter_files(&source.path).unwrap_or_default();
    let mut inputs: Vec<PathBuf> = sources.iter().flat_map(files_of).collect();
    inputs.extend(sources.iter().map(|source| source.path.clone()));
    inputs.extend(arguments.base.as_deref().and_then(files::model));
    let check = |file: &PathBuf| check(file, &inputs, arguments.replace);
    check(to_file)?;
    if to_file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
        return Err(Failure::Usage(format!(
            "{}: GGUF holds models: --quantize TYPE writes one as such a file",
            to_file.display()
        )));
    }
    files::check_tensors(to_file)?;
    if arguments.bundle_words && arguments.to != Dialect::Kohya {
        return Err(Failure::Usage(
            "--bundle-words puts words into a file of kohya's names: it goes with --to kohya"
                .into(),
        ));
    }
    let _watched = interrupt::watched();
    let asked = &mut |_: Progress| interrupt::asked();
    let (mut read, mut notes, mut from) = (Vec::new(), Vec::new(), Vec::new());
    for source in &sources {
        let (concept, told, dialect) = dialects::read_watched(&source.path, asked)?;
        let of = |note: String| match sources.len() {
            1 => note,
            _ => format!("{}: {note}", source.path.display()),
        };
        notes.extend(told.into_iter().map(of));
        from.push(dialect.name());
        read.push(concept);
    }
    let model = arguments.base.as_ref();
    let model = model.map(|name| Checkpoint::open_named(name, files::models().as_deref()));
    let model = model.transpose()?;
    if let Some(kind) = model.as_ref().and_then(ModelKind::of) {
        read.iter().try_for_each(|concept| kind.check(concept))?;
    }
    if model.is_some() {
        // It is the one that is meant, whatever they were made for.
        read.iter_mut().for_each(|concept| concept.base = None);
    }
    let (mut concept, missed) = if sources.len() > 1 || arguments.rank.is_some() {
        let found = one(arguments, &sources, &read, model.as_ref(), to_file)?;
        notes.extend(told_of(&found, arguments.rank));
        let missed = found.missed.iter().map(|(network, part)| (network.folder(), *part));
        (found.concept, missed.collect())
    } else {
        (read.pop().unwrap_or_default(), BTreeMap::new())
    };
    for text in &arguments.rename {
        // Words may have that sign too.
        let is_word = |(word, _): &(&str, &str)| !concept.vectors(word).is_empty();
        let Some((word, new)) = names(text).find(is_word).or(names(text).next()) else { continue };
        concept.rename(word, new).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    if let Some(model) = &model {
        concept.base = Some(model.base_hash_watched(base_hash_cache().as_deref(), asked)?);
    }
    dialects::files(&concept, arguments.to, to_file).iter().try_for_each(check)?;
    make_folder_of(to_file)?;
    let (to, bundle) = (arguments.to, arguments.bundle_words);
    let written = dialects::write_watched(&concept, to, bundle, to_file, asked)?;
    notes.extend(written.notes);
    notes.iter().for_each(|note| terminal.remark(note));
    if arguments.json {
        return terminal.print_json(&Report {
            from: from.join(", "),
            to: arguments.to.name(),
            files: written.files,
            words: concept.words.iter().map(|word| word.text.clone()).collect(),
            layers: concept.updates.len(),
            missed,
            notes,
        });
    }
    written.files.iter().try_for_each(|file| terminal.print_path(file))
}

/// Whether a file can be written without harm.
fn check(file: &Path, inputs: &[PathBuf], replace: bool) -> Result<()> {
    files::check(file)?;
    files::check_apart(file, inputs)?;
    let is_link = std::fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink());
    if is_link && output::is_replaced(file) {
        let behind = std::fs::read_link(file).unwrap_or_default();
        return Err(Failure::Usage(format!(
            "{}: it is a symbolic link to {}, and nothing behind a link is replaced: name the file \
                itself, or remove the link",
            file.display(),
            behind.display()
        )));
    }
    match output::is_replaced(file) && !replace {
        true => Err(Failure::Usage(format!(
            "{}: it is there already; --replace replaces it",
            file.display()
        ))),
        false => Ok(()),
    }
}

/// One LoRA of what was read.
fn one(
    arguments: &Arguments,
    sources: &[ScaledFile],
    read: &[Concept],
    model: Option<&Checkpoint>,
    to_file: &Path,
) -> Result<Extracted> {
    let asked = &mut |_: Progress| interrupt::asked();
    let share = |(source, concept): (&ScaledFile, _)| {
        let ScaledFile { unet, text, .. } = *source;
        Share { concept, unet, text }
    };
    let shares: Vec<Share> = sources.iter().zip(read).map(share).collect();
    let mut found = extract(&shares, arguments.rank, model, asked)?;
    if sources.len() > 1 {
        let name = to_file.file_stem().unwrap_or_default();
        found.concept.name = name.to_string_lossy().into_owned();
        found.concept.metadata.insert("mos_merged".to_string(), arguments.concept.join(", "));
    }
    Ok(found)
}

/// Sentences about what a LoRA misses.
fn told_of(found: &Extracted, rank: Option<usize>) -> Vec<String> {
    let rank = rank.unwrap_or_default();
    let of = |(network, part): (&Network, &f64)| {
        let percent = 100.0 * part;
        format!("{network}: a LoRA of rank {rank} misses {percent:.2} % of the change's energy")
    };
    let mut notes: Vec<String> = found.missed.iter().map(of).collect();
    if found.left_out > 0 {
        let left_out = counted(found.left_out, "parameter");
        notes.push(format!(
            "{left_out} (biases, and weights of norms) are left out, which a LoRA cannot change"
        ));
    }
    notes
}

/// `WORD=NEW`, at each of its signs.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.match_indices('=').map(|(at, _)| (&text[..at], &text[at + 1..]));
    parts.filter(|(word, new)| !word.is_empty() && !new.is_empty())
}
