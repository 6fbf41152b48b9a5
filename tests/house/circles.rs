//! No two files name each other, directly or around a circle: read off `use` lines and paths.
//!
//! A file and the ones inside of its folder may: they are parent and children. So may an operation
//! and its gradient, which are two halves of one thing (`attention`, `attention_gradient`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{code, files, source};

/// Each module with its text, by its path from the crate's root.
fn modules(root: &Path) -> BTreeMap<String, String> {
    let mut all = Vec::new();
    files(root, &mut all);
    let name = |path: &Path| {
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let parts: Vec<String> =
            inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let name = parts.join("::");
        let name = name.strip_suffix("::mod").unwrap_or(&name).to_string();
        if name == "lib" || name == "main" { String::new() } else { name }
    };
    let outside = |path: &&std::path::PathBuf| path.file_name().unwrap() != "main.rs";
    all.iter().filter(outside).map(|path| (name(path), code(path))).collect()
}

/// `a::{b, c::{d, e}}` as its paths, without what they are renamed to.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.trim().to_string()];
    };
    let inside = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inside.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| expanded(&format!("{}{part}", before.trim_start()))).collect()
}

/// The trees of a text's `use` items, and whether each is public.
fn uses(text: &str) -> Vec<(bool, String)> {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = flat.match_indices("use ").filter(|(at, _)| {
        let before = flat[..*at].trim_end();
        before.is_empty() || before.ends_with([';', '}', '{', ')', ']']) || before.ends_with("pub")
    });
    let tree = |(at, _): (usize, &str)| {
        let before = flat[..at].trim_end();
        let public = before.ends_with("pub")
            || before.rsplit_once("pub(").is_some_and(|(_, inside)| {
                inside.trim().len() < 24 && inside.ends_with(')') && !inside.contains(';')
            });
        let rest = &flat[at + "use ".len()..];
        (public, rest.split(';').next().unwrap_or_default().to_string())
    };
    found.map(tree).collect()
}

/// Paths in a text that begin with `crate` or `super`.
fn paths(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    let from_root = |word: &&str| word.starts_with("crate::") || word.starts_with("super::");
    words.filter(from_root).map(str::to_string).collect()
}

/// Where files still go in circles: to be taken apart.
const STILL_IN_CIRCLES: [&str; 8] = [
    "backend::wgpu",
    "backend::cpu",
    "checkpoint::control",
    "checkpoint::diffusers",
    "checkpoint::inspect",
    "checkpoint::model",
    "checkpoint::single",
    "scheduler",
];

struct Tree {
    modules: BTreeMap<String, String>,
    /// What each module hands on under its own name.
    exports: BTreeMap<String, BTreeMap<String, String>>,
}

impl Tree {
    fn new(root: &Path) -> Tree {
        let modules = modules(root);
        let exports = modules.iter().map(|(name, text)| {
            let public = uses(text).into_iter().filter(|(public, _)| *public);
            let each = public.flat_map(|(_, tree)| expanded(&tree));
            let named = each.map(|path| {
                let last = path.rsplit("::").next().unwrap_or_default().to_string();
                (last, path)
            });
            (name.clone(), named.collect())
        });
        let exports = exports.collect();
        Tree { modules, exports }
    }

    /// The module that a path in `from` leads to.
    fn resolved(&self, from: &str, path: &str, depth: usize) -> Option<String> {
        let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        let mut at: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
        match *parts.first()? {
            "crate" => {
                at.clear();
                parts.remove(0);
            }
            "self" => drop(parts.remove(0)),
            "super" => {
                while parts.first() == Some(&"super") {
                    parts.remove(0);
                    at.pop();
                }
            }
            first => {
                let child = [&at[..], &[first]].concat().join("::");
                self.modules.get(&child)?;
            }
        }
        while let Some(part) = parts.first() {
            let next = [&at[..], &[*part]].concat();
            if !self.modules.contains_key(&next.join("::")) {
                break;
            }
            at = next;
            parts.remove(0);
        }
        let found = at.join("::");
        let handed_on = parts.first().and_then(|part| self.exports.get(&found)?.get(*part));
        match handed_on.filter(|_| depth < 4) {
            Some(path) => self.resolved(&found, path, depth + 1).or(Some(found)),
            None => Some(found),
        }
    }

    /// The modules that each module names, its kin left out.
    fn named(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let kin = |a: &str, b: &str| {
            let inside = |a: &str, b: &str| a.is_empty() || b.starts_with(&format!("{a}::"));
            let half = |a: &str, b: &str| format!("{a}_gradient") == b;
            a == b || inside(a, b) || inside(b, a) || half(a, b) || half(b, a)
        };
        let of = |(name, text): (&'static str, &String)| -> BTreeSet<String> {
            let private = uses(text).into_iter().filter(|(public, _)| !public);
            let used = private.flat_map(|(_, tree)| expanded(&tree));
            let all = used.chain(paths(text));
            let found = all.filter_map(|path| self.resolved(name, &path, 0));
            found.filter(|other| !kin(name, other)).collect()
        };
        let leaked = |name: &String| -> &'static str { Box::leak(name.clone().into_boxed_str()) };
        self.modules
            .iter()
            .map(|(name, text)| (leaked(name), text))
            .map(|(n, t)| (n, of((n, t))))
            .collect()
    }
}

/// Whether `to` can be reached from `from`.
fn reaches<'a>(named: &'a BTreeMap<&str, BTreeSet<String>>, from: &'a str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for next in named.get(at).into_iter().flatten() {
            if next == to {
                return true;
            }
            if seen.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    false
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let tree = Tree::new(&source());
    let named = tree.named();
    let known = |name: &str| STILL_IN_CIRCLES.iter().any(|room| name.starts_with(room));
    let in_circle = |name: &&&str| !known(name) && reaches(&named, name, name);
    let circle: Vec<String> = named
        .keys()
        .filter(in_circle)
        .map(|name| {
            let back = |other: &&String| reaches(&named, other, name);
            let others: Vec<&String> = named[*name].iter().filter(back).collect();
            format!("{name} names {others:?}")
        })
        .collect();
    assert!(circle.is_empty(), "files in circles:\n{}", circle.join("\n"));
}

/// The test sees what it is meant to see.
#[test]
fn a_circle_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("lib.rs", "mod a; mod b; mod c;");
    put("a.rs", "use crate::b::{self, Thing as Other};\n");
    put("b/mod.rs", "mod inner;\npub use inner::Thing;\nuse super::c;\n");
    put("b/inner.rs", "pub struct Thing; fn f() { super::g(); crate::c::h(); }\n");
    put("c.rs", "fn h() {} // crate::a\n");
    let tree = Tree::new(folder.path());
    let named = tree.named();
    assert!(named["a"].contains("b::inner") && named["a"].contains("b"), "{named:?}");
    assert!(named["b::inner"].contains("c") && !named["b::inner"].contains("b"), "{named:?}");
    assert!(!named.keys().any(|name| reaches(&named, name, name)), "{named:?}");
    put("c.rs", "use crate::a::X;\n");
    let tree = Tree::new(folder.path());
    assert!(reaches(&tree.named(), "b::inner", "a") && reaches(&tree.named(), "a", "a"));
}
