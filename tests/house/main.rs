//! The rooms of the house, and who may call whom: read off the `use` lines and paths of `src/`,
//! tests left out.

mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms below it that it may name. What is not listed is not allowed.
const ROOMS: &[(&str, &[&str])] = &[
    ("watch", &[]),
    ("elsewhere", &[]),
    ("file_kind", &[]),
    ("html", &[]),
    ("numbers", &[]),
    ("plainly", &[]),
    ("output", &[]),
    ("objects", &["elsewhere", "output"]),
    ("quant", &[]),
    ("random", &[]),
    ("text", &["file_kind"]),
    ("picture", &["file_kind", "output"]),
    ("checkpoint", &["file_kind", "numbers", "output", "quant", "text", "watch"]),
    ("scheduler", &["checkpoint", "numbers"]),
    ("region", &["file_kind", "numbers", "picture", "plainly"]),
    ("graph", &["quant"]),
    ("backend", &["graph", "output", "quant"]),
    ("workbench", &["backend", "graph"]),
    ("nn", &["graph"]),
    ("models", &["graph", "nn"]),
    ("concept", &["checkpoint", "file_kind", "graph", "numbers", "output", "text", "watch"]),
    (
        "sd",
        &[
            "backend",
            "checkpoint",
            "concept",
            "graph",
            "models",
            "nn",
            "random",
            "scheduler",
            "text",
            "watch",
        ],
    ),
    (
        "pipeline",
        &[
            "backend",
            "checkpoint",
            "concept",
            "file_kind",
            "graph",
            "models",
            "nn",
            "output",
            "picture",
            "random",
            "region",
            "scheduler",
            "sd",
            "text",
            "watch",
        ],
    ),
    (
        "training",
        &[
            "backend",
            "checkpoint",
            "concept",
            "file_kind",
            "graph",
            "models",
            "nn",
            "numbers",
            "output",
            "picture",
            "pipeline",
            "plainly",
            "random",
            "scheduler",
            "sd",
            "text",
            "watch",
        ],
    ),
    (
        "fusion",
        &[
            "backend",
            "checkpoint",
            "concept",
            "elsewhere",
            "file_kind",
            "graph",
            "html",
            "models",
            "nn",
            "numbers",
            "output",
            "pipeline",
            "plainly",
            "random",
            "region",
            "scheduler",
            "sd",
            "text",
            "training",
            "watch",
        ],
    ),
    (
        "metrics",
        &[
            "backend",
            "checkpoint",
            "concept",
            "elsewhere",
            "file_kind",
            "fusion",
            "graph",
            "html",
            "models",
            "nn",
            "numbers",
            "output",
            "picture",
            "pipeline",
            "random",
            "region",
            "scheduler",
            "sd",
            "text",
            "training",
            "watch",
        ],
    ),
    (
        "server",
        &[
            "backend",
            "checkpoint",
            "concept",
            "fusion",
            "output",
            "picture",
            "pipeline",
            "plainly",
            "region",
            "scheduler",
            "training",
            "watch",
        ],
    ),
];

/// Within a room: parts that may not name others of their room.
const WALLS: &[(&str, &[&str])] = &[
    // The seam: what is common to all back ends knows none of them but for its list of modules and
    // errors.
    ("backend/program.rs", &["wgpu", "reference"]),
    ("backend/precision.rs", &["wgpu", "reference"]),
    ("backend/reference.rs", &["wgpu"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Of the kernels of the processor.
fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/cpu-kernels/src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                files(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// What a module of tests begins with.
const TESTS: &str = "\n#[cfg(test)]\nmod ";

/// A file's text without comments and without its module of tests, which may look at everything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    // A module of tests that stands in a file of its own is only named.
    let inside = |rest: &str| rest.lines().next().is_some_and(|line| line.ends_with('{'));
    let mut found = text.match_indices(TESTS);
    let end = found.find(|(at, _)| inside(&text[at + TESTS.len()..])).map(|(at, _)| at);
    let lines = text[..end.unwrap_or(text.len())]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands behind every `crate::` of a text: the first names of paths, and of lists in braces.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let word = |text: &str| {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        match rest.strip_prefix('{') {
            None => {
                names.insert(word(rest));
            }
            Some(list) => {
                let mut depth = 0;
                let mut starts = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts = true,
                        c if starts && c.is_alphabetic() => {
                            names.insert(word(&list[at..]));
                            starts = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

/// The room that a file stands in.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

#[test]
fn arrows_point_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut all = Vec::new();
    files(&source(), &mut all);
    let mut wrong = Vec::new();
    for path in &all {
        let from = room(path);
        if ["lib", "main", "cli"].contains(&from.as_str()) {
            continue;
        }
        let Some(below) = allowed.get(from.as_str()) else {
            wrong.push(format!("{}: the room `{from}` is not in the table", path.display()));
            continue;
        };
        for to in
            named(&code(path)).iter().filter(|to| **to != from && allowed.contains_key(to.as_str()))
        {
            if !below.contains(&to.as_str()) {
                wrong.push(format!("{}: `{from}` may not name `{to}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table itself: a room names only rooms that stand above it in the list, so that no circle can
/// be allowed.
#[test]
fn the_table_has_no_circles() {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (room, below) in ROOMS {
        for other in *below {
            assert!(
                seen.contains(other),
                "`{room}` names `{other}`, which does not stand below it"
            );
        }
        assert!(seen.insert(room), "`{room}` stands twice in the table");
    }
}

#[test]
fn walls_within_rooms() {
    for (file, others) in WALLS {
        let code = code(&source().join(file));
        for other in *others {
            for path in [format!("super::{other}"), format!("backend::{other}")] {
                assert!(!code.contains(&path), "{file} names `{path}`");
            }
        }
    }
}

/// The kernels of the processor stand in a package of their own, which knows no other part, and
/// whose one user is the back end.
#[test]
fn the_processors_kernels() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let users = all.iter().filter(|path| code(path).contains("cpu_kernels"));
    for path in users {
        assert!(path.starts_with(source().join("backend/cpu")), "{}", path.display());
    }
    let manifest = fs::read_to_string(kernels().join("../Cargo.toml")).unwrap();
    assert!(!manifest.contains("path ="), "the kernels' package depends on another of the house");
}

/// What an embedder sees: nine rooms, and five lower levels.
#[test]
fn the_face() {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let public = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let rooms = ["checkpoint", "concept", "fusion", "metrics", "picture", "pipeline", "region"];
    let rooms = rooms.into_iter().chain(["server", "training"]);
    let levels = ["backend", "graph", "models", "scheduler", "workbench"];
    let expected: BTreeSet<&str> = rooms.chain(levels).collect();
    assert_eq!(public.collect::<BTreeSet<_>>(), expected);
    assert!(!text.contains("doc(hidden)"));
}

/// Errors grow: no `match` outside may take all of one for granted.
#[test]
fn errors_may_grow() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    all.retain(|path| room(path) != "cli");
    for path in &all {
        let code = code(path);
        let mut attributes = String::new();
        for line in code.lines() {
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("pub enum ")
                && (rest.contains("Error") || attributes.contains("thiserror::Error"))
            {
                assert!(attributes.contains("non_exhaustive"), "{}: {line}", path.display());
            }
            match line.starts_with("#[") || line.is_empty() && !attributes.is_empty() {
                true => attributes.push_str(line),
                false => attributes.clear(),
            }
        }
    }
}

/// Nothing but the command line prints.
#[test]
fn only_the_command_line_prints() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    all.retain(|path| room(path) != "cli");
    files(&kernels(), &mut all);
    for path in &all {
        let code = code(path);
        for print in ["println!", "eprintln!", "print!(", "eprint!("] {
            assert!(!code.contains(print), "{} has `{print}`", path.display());
        }
    }
}

/// What a picture file claims is checked in one place before memory is taken for it: nothing else
/// decodes any.
#[test]
fn picture_files_are_opened_in_one_place() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let decodes =
        ["ImageReader", "image::open", "image::load", "from_decoder", "png::Decoder::new"];
    let inside = |path: &Path| path.strip_prefix(source()).unwrap().to_string_lossy().into_owned();
    let found: BTreeSet<String> = all
        .iter()
        .filter(|path| decodes.iter().any(|word| code(path).contains(word)))
        .map(|path| inside(path))
        .collect();
    let known = ["picture/contents.rs", "picture/png_text.rs"].map(String::from);
    assert_eq!(found, known.into());
}
