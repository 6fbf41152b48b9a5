//! Concepts and LoRAs as programs write them, told apart by their contents: our own files,
//! Mix-of-Show's, kohya's, PEFT's and diffusers', textual inversions. Safetensors, or what
//! `torch.save` wrote, of which nothing is ever executed.

mod alpha;
mod cloneofsimo;
mod comfyui;
mod gather;
mod inversion;
mod kohya;
mod mix_of_show;
mod names;
mod peft;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use crate::checkpoint::Dialect;
use crate::checkpoint::{self, TensorFile, TensorView};
use crate::graph::Array;

use super::{Concept, Error, Network, Result, file, tensors};
use crate::watch::{Parts, Progress, Watch, heed, unwatched, unwatched_parts};

/// What a file came to.
struct Read {
    concept: Concept,
    notes: Vec<String>,
}

type Tensors = Vec<(String, Array)>;

impl Dialect {
    /// Those that can be written.
    pub const WRITTEN: [Self; 4] = [Self::Mos, Self::MixOfShow, Self::Kohya, Self::Peft];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mos => "mos",
            Self::MixOfShow => "mix-of-show",
            Self::Kohya => "kohya",
            Self::Peft => "peft",
            Self::Diffusers => "diffusers",
            Self::ComfyUi => "comfyui",
            Self::CloneOfSimo => "cloneofsimo",
            Self::TextualInversion => "textual-inversion",
        }
    }

    /// The dialect of a file; diffusers' names are read as PEFT's.
    pub fn of(file: &TensorFile) -> Option<Self> {
        type Test = fn(&TensorFile) -> bool;
        let known: [(Self, Test); 7] = [
            (Self::Mos, file::is_ours),
            (Self::Kohya, kohya::is_it),
            (Self::ComfyUi, comfyui::is_it),
            (Self::CloneOfSimo, cloneofsimo::is_it),
            (Self::Peft, peft::is_it),
            (Self::MixOfShow, mix_of_show::is_it),
            (Self::TextualInversion, inversion::is_it),
        ];
        known.into_iter().find(|(_, is_it)| is_it(file)).map(|(dialect, _)| dialect)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::WRITTEN.into_iter().find(|dialect| dialect.name() == name);
        found.ok_or_else(|| "expected mos, mix-of-show, kohya or peft".to_string())
    }
}

/// Reads a concept or LoRA of any dialect. Besides come sentences for the user: what was assumed.
///
/// # Errors
/// A file of no dialect that is known; one whose contents contradict each other, with the tensor
/// that does.
pub fn read(path: &Path) -> Result<(Concept, Vec<String>)> {
    let (concept, notes, _) = read_file(path)?;
    Ok((concept, notes))
}

/// As [`read`]; also tells the dialect. A folder that PEFT or diffusers wrote is read with all its
/// files.
///
/// # Errors
/// Those of [`read`].
pub fn read_file(path: &Path) -> Result<(Concept, Vec<String>, Dialect)> {
    read_watched(path, &mut unwatched)
}

/// As [`read_file`]; `watch` is told of the stage `read`, by layers.
///
/// # Errors
/// Those of [`read`]; [`Error::Cancelled`].
pub fn read_watched(path: &Path, watch: &mut Watch) -> Result<(Concept, Vec<String>, Dialect)> {
    let mut progress = |done, of| heed(watch(Progress::new("read", done, of)));
    let files = checkpoint::adapter_files(path)?;
    let mut all: Option<(Concept, Vec<String>, Dialect)> = None;
    for path in &files {
        let (concept, mut notes, dialect) = read_open(&TensorFile::open_any(path)?, &mut progress)?;
        if let ([_, _, ..], Some(folder)) = (&files[..], path.parent().and_then(Path::file_name)) {
            notes.iter_mut().for_each(|note| *note = format!("{}: {note}", folder.display()));
        }
        all = Some(match all {
            None => (concept, notes, dialect),
            Some((first, told, dialect)) => {
                (merged(first, concept, path)?, [told, notes].concat(), dialect)
            }
        });
    }
    let problem =
        || Error::File { path: path.to_path_buf(), problem: "no file to read".to_string() };
    all.ok_or_else(problem)
}

/// What a file is called that does not say it itself: by its name, or where programs give all files
/// one name, by its folder's.
fn name_of(path: &Path) -> String {
    const GENERAL: [&str; 3] = ["pytorch_lora_weights", "adapter_model", "learned_embeds"];
    let text = |name: Option<&std::ffi::OsStr>| {
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let stem = text(path.file_stem());
    if !GENERAL.contains(&stem.as_str()) {
        return stem;
    }
    let Ok(whole) = std::path::absolute(path) else { return stem };
    let mut folder = whole.parent();
    const NETWORKS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];
    if folder.is_some_and(|folder| NETWORKS.iter().any(|network| folder.ends_with(network))) {
        folder = folder.and_then(Path::parent);
    }
    // In Hugging Face's cache: `models--<owner>--<name>/snapshots/<revision>`.
    let above = folder.and_then(Path::parent);
    if above.is_some_and(|above| above.ends_with("snapshots")) {
        folder = above.and_then(Path::parent);
    }
    let name = text(folder.and_then(Path::file_name));
    let name =
        name.strip_prefix("models--").and_then(|rest| rest.rsplit("--").next()).unwrap_or(&name);
    if name.is_empty() { stem } else { name.to_string() }
}

/// The parts of one LoRA that are in two files.
fn merged(mut first: Concept, second: Concept, path: &Path) -> Result<Concept> {
    for (network, more) in second.updates.iter() {
        let set = first.updates.of_mut(network);
        if !set.is_empty() {
            let problem =
                format!("it changes the {network}, as another file of the same folder does");
            return Err(Error::File { path: path.to_path_buf(), problem });
        }
        set.clone_from(more);
    }
    first.words.extend(second.words);
    first.metadata.extend(second.metadata);
    Ok(first)
}

/// As [`read_watched`], of a file that is open.
fn read_open(file: &TensorFile, progress: &mut Parts) -> Result<(Concept, Vec<String>, Dialect)> {
    let Some(dialect) = Dialect::of(file) else {
        if let Some((name, kind)) =
            file.names().find_map(|name| Some((name, checkpoint::other_change(name)?)))
        {
            return Err(gather::foreign_form(file, name, kind));
        }
        let problem = "neither a concept nor a LoRA of a kind that is known (`mos inspect` tells \
            what is in it)"
            .to_string();
        return Err(Error::File { path: file.path().to_path_buf(), problem });
    };
    let Read { mut concept, notes } = match dialect {
        Dialect::Mos => Read { concept: file::read(file, progress)?, notes: Vec::new() },
        Dialect::MixOfShow => mix_of_show::read(file, progress)?,
        Dialect::Kohya => kohya::read(file, progress)?,
        Dialect::Peft | Dialect::Diffusers => peft::read(file, progress)?,
        Dialect::ComfyUi => comfyui::read(file, progress)?,
        Dialect::CloneOfSimo => cloneofsimo::read(file, progress)?,
        Dialect::TextualInversion => inversion::read(file)?,
    };
    if concept.name.is_empty() {
        concept.name = name_of(file.path());
    }
    if dialect != Dialect::Mos {
        concept.metadata = file.metadata().clone();
    }
    Ok((concept, notes, dialect))
}

/// The files that were written, the first of them `path`, and sentences for the user: what the
/// dialect cannot hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files, the first of them as it was named.
    pub files: Vec<PathBuf>,
    /// What the dialect could not hold, in sentences.
    pub notes: Vec<String>,
}

/// The files that [`write()`] writes: `path`, and those beside it.
pub fn files(concept: &Concept, dialect: Dialect, path: &Path) -> Vec<PathBuf> {
    let words = match dialect {
        Dialect::Kohya | Dialect::Peft => inversion::beside(path, concept),
        _ => Vec::new(),
    };
    std::iter::once(path.to_path_buf()).chain(words.into_iter().map(|(file, _)| file)).collect()
}

/// Writes a concept as `dialect` has it. Where words have no place in the file, each gets a textual
/// inversion beside it, with all of its vectors. `bundle`: kohya's files get the words too, as web
/// UIs read them; diffusers refuses such a file.
///
/// # Errors
/// Words alone in a dialect of LoRAs; whatever the system says.
pub fn write(concept: &Concept, dialect: Dialect, bundle: bool, path: &Path) -> Result<Written> {
    write_watched(concept, dialect, bundle, path, &mut unwatched)
}

/// As [`write()`]; `watch` is told of the stage `write`, by tensors of the file.
///
/// # Errors
/// Those of [`write()`]; [`Error::Cancelled`]: then nothing is written.
pub fn write_watched(
    concept: &Concept,
    dialect: Dialect,
    bundle: bool,
    path: &Path,
    watch: &mut Watch,
) -> Result<Written> {
    let mut progress = |done, of| heed(watch(Progress::new("write", done, of)));
    let mut written = Written { files: vec![path.to_path_buf()], notes: Vec::new() };
    if !matches!(dialect, Dialect::Mos | Dialect::Kohya)
        && let Some((network, layer, update)) = concept.updates.beyond_lora()
    {
        let what = format!("`{layer}` of the {network} is a {}", update.kind());
        return Err(cannot_hold(dialect, &what, path));
    }
    if dialect == Dialect::MixOfShow
        && concept.words.iter().any(|word| !word.rows(Network::TextEncoder2).values().is_empty())
    {
        let problem = format!(
            "a file of the dialect {dialect} cannot hold it: its words have embeddings of a second \
                text encoder"
        );
        return Err(Error::File { path: path.to_path_buf(), problem });
    }
    let (tensors, mut metadata) = match dialect {
        Dialect::Mos => {
            concept.write_watched(path, &mut progress)?;
            return Ok(written);
        }
        Dialect::MixOfShow => (mix_of_show::tensors(concept), BTreeMap::new()),
        Dialect::Kohya => {
            let tensors = kohya::tensors(concept, conv_projections(concept), bundle);
            (tensors.map_err(|what| cannot_hold(dialect, &what, path))?, kohya_metadata(concept))
        }
        Dialect::Peft
        | Dialect::Diffusers
        | Dialect::ComfyUi
        | Dialect::CloneOfSimo
        | Dialect::TextualInversion => (peft::tensors(concept), BTreeMap::from([alpha::is_rank()])),
    };
    if concept.updates.is_empty()
        && (dialect == Dialect::Peft || dialect == Dialect::Kohya && !bundle)
    {
        let bundled = if dialect == Dialect::Kohya {
            " (or its words as well, with --bundle-words)"
        } else {
            ""
        };
        let problem = format!(
            "`{}` has words alone, but a file of the dialect {dialect} holds a LoRA{bundled}",
            concept.name
        );
        return Err(Error::File { path: path.to_path_buf(), problem });
    }
    metadata.insert("format".to_string(), "pt".to_string());
    write_tensors(path, &tensors, &metadata, &mut progress)?;
    if matches!(dialect, Dialect::Kohya | Dialect::Peft) {
        for (beside, vectors) in inversion::beside(path, concept) {
            let text = vectors.first().map(|word| word.text.clone()).unwrap_or_default();
            let named = |(part, array): (Option<&str>, Array)| {
                (part.map_or_else(|| text.clone(), str::to_string), array)
            };
            let vectors: Vec<_> = inversion::tensors(&vectors).into_iter().map(named).collect();
            // Tensors that are named after text encoders do not say the word.
            let is_named = vectors.iter().any(|(name, _)| *name == text);
            let word = (!is_named).then(|| (checkpoint::WORD_KEY.to_string(), text.clone()));
            // It is small, and what goes with it is there.
            let metadata = word.into_iter().collect();
            write_tensors(&beside, &vectors, &metadata, &mut unwatched_parts)?;
            written.files.push(beside);
        }
        let mean = "textual inversions have one embedding for all layers: the words' \
            embeddings become their mean";
        let layered = concept.words.iter().any(|word| word.layers() > 1);
        let called = called_elsewhere(&written).filter(|_| dialect == Dialect::Kohya && !bundle);
        let notes = [layered.then(|| mean.to_string()), called];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        written.notes.extend((!notes.is_empty()).then(|| notes.join("; ")));
    }
    Ok(written)
}

/// A sentence on what to type in programs that call an embedding like its file.
fn called_elsewhere(written: &Written) -> Option<String> {
    let stem = |file: &PathBuf| file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let names: Vec<String> = written.files.iter().skip(1).filter_map(stem).collect();
    (!names.is_empty()).then(|| {
        format!("web UIs and ComfyUI call an embedding like its file: {}", names.join(", "))
    })
}

/// An error for a change that a dialect has no place for.
fn cannot_hold(dialect: Dialect, what: &str, path: &Path) -> Error {
    let problem = format!(
        "a file of the dialect {dialect} cannot hold it: {what}; --rank N makes a LoRA of it"
    );
    Error::File { path: path.to_path_buf(), problem }
}

fn write_tensors(
    path: &Path,
    tensors: &[(String, Array)],
    metadata: &BTreeMap<String, String>,
    progress: &mut Parts,
) -> Result<()> {
    let views: Result<Vec<(String, TensorView)>> =
        tensors.iter().map(|(name, array)| tensors::view(path, name.clone(), array)).collect();
    Ok(checkpoint::write_watched(path, &views?, metadata, progress)?)
}

/// Whether the base model's `proj_in` and `proj_out` are 1x1 convolutions: in Stable Diffusion 1.x,
/// not in 2.x and XL, which are told by the width of what their UNets read.
fn conv_projections(concept: &Concept) -> bool {
    const SD2_WIDTH: usize = 1024;
    let keys = concept
        .updates
        .of(Network::UNet)
        .layers
        .iter()
        .find(|(layer, _)| layer.ends_with("attn2.to_k"));
    !concept.is_xl()
        && keys.is_none_or(|(_, update)| update.weight_shape().get(1) != Some(&SD2_WIDTH))
}

/// What web UIs show of a LoRA.
fn kohya_metadata(concept: &Concept) -> BTreeMap<String, String> {
    let of = |network: Network| {
        let set = concept.updates.of(network);
        set.layers.values().find_map(|update| Some((update.lora()?, set.scale)))
    };
    let first = Network::ALL.into_iter().rev().find_map(of);
    let module = match concept.updates.beyond_lora() {
        None => "networks.lora",
        Some(_) => "lycoris.kohya",
    };
    let mut metadata = BTreeMap::from([
        ("ss_network_module".to_string(), module.to_string()),
        ("ss_output_name".to_string(), concept.name.clone()),
    ]);
    if concept.is_xl() {
        metadata.insert("ss_base_model_version".to_string(), "sdxl_base_v1-0".to_string());
    }
    if let Some((lora, scale)) = first {
        metadata.insert("ss_network_dim".to_string(), lora.rank().to_string());
        metadata.insert("ss_network_alpha".to_string(), (lora.rank() as f32 * scale).to_string());
    }
    metadata
}
