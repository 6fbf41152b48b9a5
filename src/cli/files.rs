//! Files and folders: of models, for output, and the streams that stand for files.
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{self, FileKind, find, output};
use mixofshow::concept::Concept;
use mixofshow::fusion;
use mixofshow::picture::{self, Parameters, Picture};
use mixofshow::pipeline::latents;
use mixofshow::training::config::Settings;
use mixofshow::training::{self, Places};

use super::usage::STANDARD;
use super::{Failure, Result};

/// A file or folder that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {source}", path.display())]
pub struct Unwritable {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// The folder in which models are looked for by name: what the variable MOS_MODELS says.
pub fn models() -> Option<PathBuf> {
    std::env::var_os("MOS_MODELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A place that cannot be written: wrong usage, where another name would help.
pub fn unwritable(path: &Path, source: std::io::Error) -> Failure {
    let about_the_name = output::is_about_the_name(&source);
    let error = Unwritable { path: path.to_path_buf(), source };
    if about_the_name { Failure::Usage(error.to_string()) } else { error.into() }
}

/// Whether a file could be written there, before any work. Nothing is made.
pub fn check(path: &Path) -> Result<()> {
    output::check(path).map_err(|source| unwritable(path, source))
}

/// An error where writing to `output` would replace one of a command's own inputs. Every command
/// asks this of every file that it writes, before any work.
pub fn check_apart<'p>(
    output: &Path,
    inputs: impl IntoIterator<Item = impl AsRef<Path> + 'p>,
) -> Result<()> {
    let inputs: Vec<PathBuf> =
        inputs.into_iter().map(|input| input.as_ref().to_path_buf()).collect();
    match inputs.iter().find(|input| output::would_replace(output, input)) {
        Some(input) if input.is_dir() => Err(Failure::Usage(format!(
            "{} would be replaced, which is in {}, an input of this command: name another file",
            output.display(),
            input.display()
        ))),
        Some(input) => Err(Failure::Usage(format!(
            "{} would be replaced, an input of this command: name another file than {}",
            input.display(),
            output.display()
        ))),
        None => Ok(()),
    }
}

/// Whether files could be written into that folder, before any work. Nothing is made.
pub fn check_folder(path: &Path) -> Result<()> {
    output::check_folder(path).map_err(|source| unwritable(path, source))
}

/// Whether a picture could be written there, before any work. Nothing is made.
pub fn check_picture(path: &Path) -> Result<()> {
    if is_stream(path) {
        return Ok(());
    }
    picture::check_destination(path).map_err(|error| match error {
        picture::Error::Unwritable { path, source } => unwritable(&path, source),
        other => Failure::Usage(other.to_string()),
    })?;
    // What is called as a picture has been one, or was to be.
    let called = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    refuse_other(path, "a picture", |kind| called || kind == FileKind::Png)
}

/// Endings of files that are no safetensors.
const OTHER_ENDINGS: [&str; 19] = [
    "pt", "pth", "bin", "ckpt", "pkl", "npz", "npy", "onnx", "gguf", "png", "jpg", "jpeg", "webp",
    "bmp", "gif", "json", "toml", "txt", "zip",
];

/// An error where a file of tensors would be called like something else.
pub fn check_tensors(path: &Path) -> Result<()> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.filter(|ending| OTHER_ENDINGS.contains(&ending.as_str())) {
        Some(ending) => Err(Failure::Usage(format!(
            "{}: safetensors are written, not .{ending}: name a file that ends in .safetensors",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Whether latents could be written there, before any work. Nothing is made.
pub fn check_latents(path: &Path) -> Result<()> {
    check(path)?;
    refuse_other(path, "latents", |_| latents::read(path).is_ok())?;
    check_tensors(path)
}

/// An error where a file stands that is not `what` is written: it is somebody's work.
fn refuse_other(path: &Path, what: &str, is_it: impl Fn(FileKind) -> bool) -> Result<()> {
    // A pipe is not read to see what it is: nobody may write to it.
    if !output::is_replaced(path) || !path.is_file() {
        return Ok(());
    }
    match FileKind::of_file(path) {
        Ok(kind) if kind != FileKind::Empty && !is_it(kind) => Err(Failure::Usage(format!(
            "{}: it is there already and is {}, not {what}: name another file",
            path.display(),
            kind.describe()
        ))),
        // One that cannot be read is told of when it is written.
        _ => Ok(()),
    }
}

/// The model of that name as a file or folder; none where it ships, or cannot be found, which is
/// told where it is opened.
pub fn model(name: &str) -> Option<PathBuf> {
    find(name, models().as_deref()).ok().flatten()
}

/// Whether a concept could be trained as `settings` say, with what stands beside it, before any
/// work: nothing is made, and nothing but a concept is replaced. `config` is the file of the
/// settings.
pub fn check_run(settings: &Settings, config: Option<&Path>) -> Result<()> {
    let places = Places::of(&settings.output);
    places.check().map_err(|error| match error {
        training::Error::Unwritable { path, source } => unwritable(&path, source),
        other => other.into(),
    })?;
    let output = &places.output;
    let model = model(&settings.model);
    check_apart(output, config.map(Path::to_path_buf).iter().chain(&model))?;
    let folders = settings.folders.iter();
    let folders = folders.flat_map(|f| [Some(&f.pictures), f.captions.as_ref(), f.masks.as_ref()]);
    let is_places = |folder: &&PathBuf| output::is_same(folder, &places.folder);
    if let Some(folder) = folders.flatten().find(is_places) {
        return Err(Failure::Usage(format!(
            "{}: the run would keep its state and pictures in there, which is a folder to learn \
                from: give --output another name",
            folder.display()
        )));
    }
    if output::is_replaced(output)
        && let Err(error) = Concept::read(output)
    {
        return Err(Failure::Usage(format!(
            "{}: something else than a concept stands there, which is not replaced ({error}): \
                give --output another name",
            output.display()
        )));
    }
    check_tensors(output)
}

/// Whether that is the folder, or in it, be it there or not.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let [path, folder] =
        [path, folder].map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
    path.ancestors().any(|above| above == folder || output::is_same(above, &folder))
}

/// An error where a fused model at `out` would take the place of what it is made from: the `model`,
/// or the folder of its `statistics`.
pub fn check_fused_apart(
    out: &Path,
    model: Option<&Path>,
    statistics: Option<&Path>,
) -> Result<()> {
    if let Some(model) = model.filter(|model| output::is_same(model, out)) {
        return Err(Failure::Usage(format!(
            "{}: the fused model would replace the base model, an input of this command: name \
                another folder",
            model.display()
        )));
    }
    match statistics.filter(|statistics| is_inside(statistics, out)) {
        Some(statistics) => Err(Failure::Usage(format!(
            "{}: statistics are kept outside of the fused model, {}: name another folder",
            statistics.display(),
            out.display()
        ))),
        None => Ok(()),
    }
}

/// Whether a fused model could be written there, before any work. Nothing is made.
pub fn check_fused(path: &Path, replace: bool) -> Result<()> {
    fusion::check_output(path, replace).map_err(|error| match error {
        fusion::Error::Io { path, source, .. } => unwritable(&path, source),
        other => Failure::Usage(other.to_string()),
    })
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = output::write(path, |out| out.write_all(bytes));
    Ok(written.map_err(|source| Unwritable { path: path.to_path_buf(), source })?)
}

/// Whether this stands for standard output or input.
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

/// Writes a picture to its file, or to standard output.
pub fn save(picture: &Picture, to: &Path, parameters: Option<&Parameters>) -> Result<()> {
    if !is_stream(to) {
        return Ok(picture.save(to, parameters)?);
    }
    let mut out = io::stdout().lock();
    match picture.write_to(&mut out, parameters).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
        Err(source) => Err(Unwritable { path: "standard output".into(), source }.into()),
        Ok(()) => Ok(()),
    }
}

/// All of standard input, as text; `option` asked for it.
pub fn standard_input(option: &str, expected: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .and_then(|_| checkpoint::text_of(bytes, expected));
    read.map_err(|e| Failure::Failed(format!("{option} {STANDARD}: standard input: {e}").into()))
}

/// A file of text, or standard input.
pub fn text(option: &str, path: &Path, expected: &str) -> Result<String> {
    if is_stream(path) {
        return standard_input(option, expected);
    }
    checkpoint::read_text(path, expected)
        .map_err(|e| Failure::Failed(format!("{option} {}: {e}", path.display()).into()))
}

/// Makes the folder that a file is to be in, if it is missing.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else {
        return Ok(());
    };
    Ok(std::fs::create_dir_all(folder)
        .map_err(|source| Unwritable { path: folder.to_path_buf(), source })?)
}
