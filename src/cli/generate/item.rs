//! The lines of a list of pictures.
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::{Failure, Result, files, objects};

/// One line.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What is to be seen.
    pub prompt: String,
    /// None: what the options say.
    #[serde(default)]
    pub negative: Option<String>,
    /// None: what the options say, else 1.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Of its file; none: the line's number.
    #[serde(default)]
    name: Option<String>,
    #[serde(skip)]
    number: usize,
}

impl Item {
    /// Where its pictures go, in `folder`, which may be a URL.
    pub fn output(&self, folder: Option<&Path>, pictures: usize) -> PathBuf {
        let name = match (&self.name, pictures) {
            (Some(name), 1) => format!("{name}.png"),
            (Some(name), _) => format!("{name}-{{seed}}.png"),
            (None, _) => format!("{:05}-{{seed}}.png", self.number),
        };
        match folder {
            Some(url) if objects::is_url(url) => {
                format!("{}/{name}", url.to_string_lossy().trim_end_matches('/')).into()
            }
            Some(folder) => folder.join(name),
            None => name.into(),
        }
    }
}

/// The lines of a list that say something: prompts, or JSON.
pub fn read(path: &Path) -> Result<Vec<Item>> {
    let text = files::text("--list", path, "prompts, one a line")?;
    let mut items: Vec<Item> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem: String| {
            Failure::Failed(format!("--list {}: line {number}: {problem}", path.display()).into())
        };
        let item = match line.starts_with('{') {
            true => serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?,
            false => Item { prompt: line.to_string(), ..Item::default() },
        };
        let is_plain = |name: &String| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '{', '}', ':'])
        };
        if let Some(name) = item.name.as_ref().filter(|name| !is_plain(name)) {
            return Err(wrong(format!("the name `{name}` is none of a file in the folder")));
        }
        if item.name.is_some() && items.iter().any(|other| other.name == item.name) {
            let name = item.name.unwrap_or_default();
            return Err(wrong(format!("the name `{name}` stands in an earlier line too")));
        }
        items.push(Item { number, ..item });
    }
    match items.is_empty() {
        true => Err(Failure::Failed(format!("--list {}: it has no lines", path.display()).into())),
        false => Ok(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_prompts_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let items =
            read("# Cats\na cat\n\n{\"prompt\": \"a dog\", \"seed\": 3, \"name\": \"d\"}\n");
        let Ok(items) = items else { panic!("it is a list") };
        assert_eq!((items.len(), &items[0].prompt[..], items[1].seed), (2, "a cat", Some(3)));
        let output = |i: usize, folder: Option<&str>, count| {
            items[i].output(folder.map(Path::new), count).to_string_lossy().into_owned()
        };
        assert_eq!(output(0, None, 1), "00002-{seed}.png");
        assert_eq!(output(1, Some("out"), 1), "out/d.png");
        assert_eq!(output(1, Some("s3://b/out/"), 2), "s3://b/out/d-{seed}.png");
        for (text, says) in [
            ("\n", "no lines"),
            ("{\"prompt\": 5}", "line 1"),
            ("a\n{\"prompt\": \"a\", \"steps\": 5}", "line 2"),
            ("{\"prompt\": \"a\", \"name\": \"../a\"}", "../a"),
            (
                "{\"prompt\": \"a\", \"name\": \"a\"}\n{\"prompt\": \"b\", \"name\": \"a\"}",
                "earlier",
            ),
        ] {
            let Err(Failure::Failed(error)) = read(text) else { panic!("{text}: it was taken") };
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
    }
}
