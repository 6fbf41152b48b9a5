//! Rendering of the kernels in `kernels/`: WGSL with line statements that are WGSL comments
//! (`//% for ...`) and `{{ }}`. Who works on kernels can name a folder in `MOS_KERNELS`: its files
//! are read instead, without a rebuild.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use sha2::{Digest, Sha256};

use super::halved::{HALVES, halved};
use super::{Error, Result};
use crate::backend::ReplacedKernel;

static KERNELS: Dir = include_dir!("$CARGO_MANIFEST_DIR/kernels");

/// The variable that names a folder of kernels to use instead.
pub const KERNELS_VARIABLE: &str = "MOS_KERNELS";

pub use minijinja::Value;

/// What a kernel is rendered with: tile sizes, element types, epilogue.
pub type Params = BTreeMap<&'static str, Value>;

/// The folder that [`KERNELS_VARIABLE`] names.
#[derive(Debug, Default)]
struct Folder {
    path: PathBuf,
    /// Of all its files that are called as this program's own.
    texts: BTreeMap<String, String>,
    replaced: Vec<ReplacedKernel>,
    /// Files that look like kernels and are none, nor asked for by one.
    unknown: Vec<String>,
}

static FOLDER: LazyLock<std::result::Result<Option<Folder>, (PathBuf, String)>> =
    LazyLock::new(|| {
        let named = std::env::var_os(KERNELS_VARIABLE)
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from);
        named.map(|path| Folder::read(&path).map_err(|problem| (path, problem))).transpose()
    });

/// The folder that is named, if one is.
fn folder() -> Result<Option<&'static Folder>> {
    let failed = |(path, problem): &(PathBuf, String)| Error::Kernels {
        variable: KERNELS_VARIABLE,
        path: path.clone(),
        problem: problem.clone(),
    };
    FOLDER.as_ref().map(Option::as_ref).map_err(failed)
}

/// The kernels that are used in place of this program's own: those in the folder that
/// [`KERNELS_VARIABLE`] names that differ from them.
///
/// # Errors
/// A folder that cannot be read, or in which there is no kernel.
pub fn replaced_kernels() -> Result<&'static [ReplacedKernel]> {
    Ok(folder()?.map_or(&[][..], |folder| &folder.replaced))
}

/// Files in the folder that [`KERNELS_VARIABLE`] names which no kernel is called and none asks for:
/// they are not read.
///
/// # Errors
/// As [`replaced_kernels`].
pub fn unknown_kernels() -> Result<&'static [String]> {
    Ok(folder()?.map_or(&[][..], |folder| &folder.unknown))
}

impl Folder {
    fn read(path: &Path) -> std::result::Result<Folder, String> {
        std::fs::read_dir(path).map_err(|e| format!("the folder cannot be read: {e}"))?;
        let mut folder = Folder { path: path.to_path_buf(), ..Folder::default() };
        for (name, own) in own_files(&KERNELS) {
            let file = file_of(&name);
            let text = match std::fs::read_to_string(path.join(&file)) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{file} in it cannot be read: {error}")),
            };
            if text != own {
                let sha256 =
                    Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
                folder.replaced.push(ReplacedKernel { name: name.clone(), sha256 });
            }
            folder.texts.insert(name, text);
        }
        if folder.texts.is_empty() {
            let names: Vec<String> = kernel_names().iter().map(|name| file_of(name)).collect();
            return Err(format!("no kernel is in it; kernels are called {}", names.join(", ")));
        }
        folder.unknown = folder.strangers();
        Ok(folder)
    }

    /// Names of files that end as kernels do, here and in folders that kernels have.
    fn strangers(&self) -> Vec<String> {
        let inside = KERNELS.dirs().filter_map(|dir| dir.path().to_str());
        let mut strangers = Vec::new();
        for dir in std::iter::once("").chain(inside) {
            let entries = std::fs::read_dir(self.path.join(dir)).into_iter().flatten().flatten();
            for entry in entries {
                let file = entry.file_name().to_string_lossy().into_owned();
                let file = if dir.is_empty() { file } else { format!("{dir}/{file}") };
                // Other people's spelling too, as in `Sum.WGSL`.
                let ending = file.rsplit_once('.').filter(|(_, e)| e.eq_ignore_ascii_case("wgsl"));
                let Some((name, _)) = ending else { continue };
                let is_known = self.texts.contains_key(name) && file == file_of(name);
                let quoted = format!("\"{name}\"");
                let is_asked_for = self.texts.values().any(|text| text.contains(&quoted));
                if !is_known && !is_asked_for {
                    strangers.push(file);
                }
            }
        }
        strangers.sort();
        strangers
    }
}

/// All files that are compiled in, with those in folders: names and texts.
fn own_files(dir: &Dir) -> Vec<(String, String)> {
    let file = |file: &include_dir::File| {
        let name = file.path().with_extension("").to_str()?.replace('\\', "/");
        Some((name, file.contents_utf8()?.to_string()))
    };
    let is_kernel =
        |file: &&include_dir::File| file.path().extension().is_some_and(|e| e == "wgsl");
    let mut found: Vec<_> = dir.files().filter(is_kernel).filter_map(file).collect();
    found.extend(dir.dirs().flat_map(own_files));
    found
}

fn file_of(name: &str) -> String {
    format!("{name}.wgsl")
}

/// Names and texts of all templates as they are used.
pub(super) fn all_texts() -> Vec<(String, String)> {
    let mut texts = own_files(&KERNELS);
    for (name, text) in &mut texts {
        *text = text_of(name).unwrap_or_default();
    }
    texts.sort();
    texts
}

/// The text of a template: the named folder's, or this program's own.
pub(super) fn text_of(name: &str) -> Option<String> {
    let file = file_of(name);
    if let Ok(Some(folder)) = folder() {
        // A file that only kernels in that folder know is read from there, too.
        let text = folder
            .texts
            .get(name)
            .cloned()
            .or_else(|| std::fs::read_to_string(folder.path.join(&file)).ok());
        if text.is_some() {
            return text;
        }
    }
    KERNELS.get_file(file).and_then(|file| file.contents_utf8()).map(String::from)
}

/// The sizes that were measured for an adapter, as they are shipped: `kernels/tuned/<name>.toml`.
pub(super) fn shipped_sizes(name: &str) -> Option<&'static str> {
    KERNELS.get_file(format!("tuned/{name}.toml"))?.contents_utf8()
}

/// Names of all templates that may be imported.
pub(super) fn part_names() -> Vec<String> {
    own_files(&KERNELS).into_iter().map(|(name, _)| name).collect()
}

/// The file of a kernel of one's own, which is called as its file or as this program's kernel of
/// that name, or the file of a part that it imports.
pub(crate) fn kernel_place(name: &str, own: bool) -> String {
    match own && (name.contains(['.', '/', '\\']) || text_of(name).is_none()) {
        true => name.to_string(),
        false => place_of(name),
    }
}

/// Where a template's text is, for messages.
fn place_of(name: &str) -> String {
    let file = file_of(name);
    match folder() {
        Ok(Some(folder)) if folder.path.join(&file).exists() => {
            folder.path.join(&file).display().to_string()
        }
        _ => format!("kernels/{file}"),
    }
}

/// How a line begins that is a statement.
pub(super) const STATEMENT: &str = "//%";
const COMMENT: &str = "//#";

pub(super) fn environment(
    text: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.line_statement_prefix(STATEMENT).line_comment_prefix(COMMENT);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_loader(move |name| Ok(text(name).map(|text| undeclared(&text))));
    environment
}

/// First words of statements that declare something about a kernel, for whoever checks, measures
/// and tunes it; nothing is rendered of them.
pub const DECLARATIONS: [&str; 5] = ["kind", "dispatch", "needs", "tune", "tolerance"];

/// A text whose declarations are comments.
pub(super) fn undeclared(text: &str) -> String {
    if !text.contains(STATEMENT) {
        return text.to_string();
    }
    let line = |line: &str| {
        let statement = line.trim_start().strip_prefix(STATEMENT)?;
        let word = statement.split_whitespace().next()?;
        DECLARATIONS.contains(&word).then(|| format!("{COMMENT}{statement}"))
    };
    text.split_inclusive('\n').map(|all| line(all).unwrap_or_else(|| all.to_string())).collect()
}

/// A template's text rendered, and the file and line where each of its lines is from; none where
/// nobody wrote it.
pub struct Rendered {
    /// WGSL.
    pub text: String,
    /// For each line of it.
    pub origins: Vec<Option<(String, usize)>>,
}

/// The text of this program's kernel of that name, or of a part that kernels share, unrendered.
pub fn kernel_text(name: &str) -> Option<String> {
    text_of(name)
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| environment(text_of));
/// The same templates, each of whose lines says where it is from.
static MARKED: LazyLock<Environment<'static>> =
    LazyLock::new(|| environment(|name| Some(marked(name, &text_of(name)?))));

/// Names of all kernels, sorted.
pub fn kernel_names() -> Vec<String> {
    let stem = |path: &std::path::Path| Some(path.file_stem()?.to_str()?.to_string());
    let mut names: Vec<String> = KERNELS.files().filter_map(|f| stem(f.path())).collect();
    names.sort();
    names
}

/// The WGSL of `kernels/<name>.wgsl` with `params`; activations in f16 where they say so.
pub fn render(name: &str, params: &Params) -> Result<String> {
    folder()?;
    let text = ENVIRONMENT
        .get_template(name)
        .and_then(|template| template.render(params))
        .map_err(|error| unrendered(name, &error))?;
    let halves: Vec<String> = match params.get(HALVES).map(Value::try_iter) {
        Some(Ok(names)) => names.map(|name| name.to_string()).collect(),
        _ => return Ok(text),
    };
    halved(&text, &halves).map_err(|message| Error::Kernel {
        kernel: name.into(),
        message: format!("in f16: {message}"),
    })
}

/// Line `line` of `text`, for a message.
pub(super) fn quoted(text: &str, line: usize) -> String {
    let found =
        text.lines().nth(line.saturating_sub(1)).map(str::trim).filter(|line| !line.is_empty());
    found.map(|line| format!(", in `{line}`")).unwrap_or_default()
}

/// The error of a template, with the line of its file.
fn unrendered(name: &str, error: &minijinja::Error) -> Error {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let at = |error: &minijinja::Error| Some((error.name()?.to_string(), error.line()?));
    let message = match at(error) {
        Some((file, line)) => {
            format!(
                "{}, line {line}: {what}{}",
                place_of(&file),
                quoted(&text_of(&file).unwrap_or_default(), line)
            )
        }
        None => what,
    };
    Error::Kernel { kernel: name.into(), message }
}

/// What is wrong with a rendered kernel, with the line of the template's file that it comes from.
/// `find` finds it in WGSL: the line, counted from 1, and a sentence.
pub(super) fn explained(
    name: &str,
    params: &Params,
    find: impl Fn(&str) -> Option<(usize, String)>,
) -> Option<String> {
    let rendered = MARKED.get_template(name).ok()?.render(params).ok()?;
    let (text, origins) = unmarked(&rendered);
    let (line, what) = find(&text)?;
    let origin = origins.get(..line)?.iter().rev().flatten().next()?;
    Some(format!("{}, line {}: {what}{}", place_of(&origin.0), origin.1, quoted(&text, line)))
}

/// Around the name and the number of a line: characters that are in no kernel.
const MARK: [char; 2] = ['\u{1}', '\u{2}'];

/// `text` with a mark at the beginning of each line that becomes text.
pub(super) fn marked(name: &str, text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut open = false;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = line.trim_start();
        if !open && !start.starts_with(STATEMENT) && !start.starts_with(COMMENT) {
            out.push_str(&format!("{}{name}:{}{}", MARK[0], number + 1, MARK[1]));
        }
        out.push_str(line);
        // Within a tag of several lines nothing is text.
        let last = |tags: [&str; 3]| tags.iter().filter_map(|tag| line.rfind(tag)).max();
        match (last(["{{", "{%", "{#"]), last(["}}", "%}", "#}"])) {
            (Some(opened), closed) => open = closed.is_none_or(|closed| closed < opened),
            (None, Some(_)) => open = false,
            (None, None) => {}
        }
    }
    out
}

/// Rendered text without its marks, and where each of its lines is from.
pub(super) fn unmarked(rendered: &str) -> (String, Vec<Option<(String, usize)>>) {
    let (mut text, mut origins) = (String::with_capacity(rendered.len()), Vec::new());
    for line in rendered.split_inclusive('\n') {
        let mut origin = None;
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(MARK[0]) {
            text.push_str(before);
            let Some((mark, after)) = after.split_once(MARK[1]) else { break };
            let from = mark
                .rsplit_once(':')
                .and_then(|(name, line)| Some((name.to_string(), line.parse().ok()?)));
            origin = origin.or(from);
            rest = after;
        }
        text.push_str(rest);
        origins.push(origin);
    }
    (text, origins)
}

pub(super) fn cache_key(name: &str, params: &Params) -> String {
    let mut key = name.to_string();
    for (param, value) in params {
        key.push_str(&format!(" {param}={value}"));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wgpu::kernel::complaint;

    /// Templates as texts, by name, in the place of files.
    fn with(texts: [(&'static str, &'static str); 2]) -> [Environment<'static>; 2] {
        let text = move |name: &str| {
            texts.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_string())
        };
        [environment(text), environment(move |name| Some(marked(name, &text(name)?)))]
    }

    const SHARED: &str =
        "//# A part.\n//% macro twice(x)\n  let a = {{ x }};\n  let b = a +;\n//% endmacro\n";
    const KERNEL: &str = "\
//# A kernel.
//% import \"shared\" as shared
//% set tile = 4
@compute @workgroup_size({{ tile }})
fn main() {
  //% for i in range(3)
  var v{{ i }} = {{ i }}u;
  //% endfor
  {{ shared.twice(
      tile
  ) }}
}
";

    #[test]
    fn errors_of_wgsl_name_the_line_of_the_template() {
        let [plain, marks] = with([("kernel", KERNEL), ("shared", SHARED)]);
        let rendered = |environment: &Environment| {
            environment.get_template("kernel").unwrap().render(Params::new()).unwrap()
        };
        let (text, origins) = unmarked(&rendered(&marks));
        assert_eq!(text, rendered(&plain));
        let (line, what) = complaint(&text).unwrap();
        assert!(!what.is_empty());
        let origin = origins[..line].iter().rev().flatten().next().unwrap();
        assert_eq!(*origin, ("shared".to_string(), 4), "{text}");
        // The loop's line, three times.
        assert_eq!(
            origins.iter().flatten().filter(|origin| **origin == ("kernel".to_string(), 7)).count(),
            3
        );
        // What is no valid kernel although it can be read.
        let [_, marks] = with([
            (
                "kernel",
                "//% set x = 1\n@compute @workgroup_size(1)\nfn main() {\n  let a: u32 = 1.5;\n}\n",
            ),
            ("shared", ""),
        ]);
        let (text, origins) = unmarked(&rendered(&marks));
        let (line, _) = complaint(&text).unwrap();
        assert_eq!(origins[line - 1], Some(("kernel".to_string(), 4)));
    }

    #[test]
    fn errors_of_templates_name_their_line() {
        for (text, line) in [
            ("a\n//% for i in range(2)\n{{ i }}\n//% endfor\n{{ nothing }}\n", 5),
            ("//# one\n//# two\n//% if nothing\n//% endif\n", 3),
            ("a\nb\n//% for\nc\n", 3),
            ("a\n//% if true\n\n{{ 1 + }}\n//% endif\n", 4),
        ] {
            let texts = [("kernel", text), ("shared", "")];
            let [plain, _] = with(texts);
            let rendered =
                plain.get_template("kernel").and_then(|template| template.render(Params::new()));
            assert_eq!(rendered.unwrap_err().line(), Some(line), "{text}");
        }
    }

    #[test]
    fn folders_replace_kernels_or_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let refused = |path: &Path| Folder::read(path).unwrap_err();
        assert!(refused(&at.join("none")).contains("cannot be read"));
        assert!(refused(at).contains("no kernel is in it") && refused(at).contains("sum.wgsl"));
        std::fs::write(at.join("summ.wgsl"), "").unwrap();
        assert!(refused(at).contains("no kernel is in it"));
        let own: BTreeMap<String, String> = own_files(&KERNELS).into_iter().collect();
        std::fs::write(at.join("sum.wgsl"), &own["sum"]).unwrap();
        assert!(Folder::read(at).unwrap().replaced.is_empty());
        std::fs::create_dir(at.join("shared")).unwrap();
        std::fs::write(at.join("shared/grid.wgsl"), "other").unwrap();
        let replaced = Folder::read(at).unwrap().replaced;
        assert_eq!(
            (replaced.len(), replaced[0].name.as_str(), replaced[0].sha256.len()),
            (1, "shared/grid", 64)
        );
        // Read where a kernel asks for it, and mentioned where none does.
        assert_eq!(Folder::read(at).unwrap().unknown, ["summ.wgsl"]);
        std::fs::write(at.join("shared/mine.wgsl"), "").unwrap();
        std::fs::write(at.join("shared/gird.wgsl"), "").unwrap();
        let asking = format!("//% import \"shared/mine\" as mine\n{}", own["copy"]);
        std::fs::write(at.join("copy.wgsl"), asking).unwrap();
        assert_eq!(Folder::read(at).unwrap().unknown, ["shared/gird.wgsl", "summ.wgsl"]);
        std::fs::write(at.join("sum.wgsl"), [0xff, 0xfe]).unwrap();
        assert!(refused(at).contains("sum.wgsl in it cannot be read"));
    }
}
