//! The settings that made a picture, as text in its file.
//!
//! In PNG under the keyword `parameters`, in other formats as EXIF's user comment, in the form that
//! web UIs write and read:
//!
//! ```text
//! a red cat, snow
//! Negative prompt: blurry
//! Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: "one, two"
//! ```
//!
//! That form cannot carry everything: a prompt with a line that starts with "Negative prompt:"
//! reads as two, spaces around lines are lost. So in PNG under the keyword `mos` stands the same
//! and more as JSON, from which the picture can be made again.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::contents::contents_of;
use super::png_text::TextChunk;
use super::{Error, Result, texts};

const KEYWORD: &str = "parameters";
const OWN_KEYWORD: &str = "mos";
const KEYWORDS: [&str; 2] = [KEYWORD, OWN_KEYWORD];
const NEGATIVE: &str = "Negative prompt:";
/// How the line of settings begins.
const FIRST: &str = "Steps:";
/// With fewer settings a last line is taken for a part of the prompt, as web UIs do.
const LEAST_SETTINGS: usize = 3;

/// How a picture was made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// What the picture was to show.
    pub prompt: String,
    /// Empty: none.
    pub negative_prompt: String,
    /// Names and values in the order in which they are written: `("Steps", "20")`, ... A name has
    /// at least two characters out of letters, digits, `_`, `-`, `/` and spaces.
    pub settings: Vec<(String, String)>,
    /// Lines after the settings, which some programs add: templates of the prompt and such. They
    /// are read and not written.
    pub rest: String,
    /// This program's own complete settings.
    pub mos: Option<Value>,
}

impl Parameters {
    /// The value of a setting, by its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a setting: in its place if it is there, else at the end.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        match self.settings.iter_mut().find(|(key, _)| key == name) {
            Some(setting) => setting.1 = value,
            None => self.settings.push((name.to_string(), value)),
        }
    }

    /// Width and height out of the setting `Size`.
    pub fn size(&self) -> Option<(u32, u32)> {
        let (width, height) = self.get("Size")?.split_once('x')?;
        Some((width.trim().parse().ok()?, height.trim().parse().ok()?))
    }

    pub(super) fn to_chunks(&self) -> Vec<TextChunk> {
        let chunk = |keyword: &str, text: String| TextChunk { keyword: keyword.to_string(), text };
        let own = self.mos.as_ref().map(|value| chunk(OWN_KEYWORD, value.to_string()));
        std::iter::once(chunk(KEYWORD, format(self))).chain(own).collect()
    }
}

/// Reads the settings out of a picture file. `None`: there is no text that could hold any.
///
/// # Errors
/// A file that cannot be read, is damaged, or whose `mos` text is not JSON; EXIF in an encoding
/// that is not read.
pub fn read(path: impl AsRef<Path>) -> Result<Option<Parameters>> {
    let path = path.as_ref();
    of_texts(path, texts::read(path, &KEYWORDS)?)
}

/// As [`read`], of a picture file that is in memory; errors call it by `name`.
///
/// # Errors
/// Those of [`read`].
pub fn from_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Option<Parameters>> {
    let name = name.as_ref();
    of_texts(name, texts::of_contents(name, contents_of(name, bytes)?, &KEYWORDS)?)
}

fn of_texts(path: &Path, texts: BTreeMap<String, String>) -> Result<Option<Parameters>> {
    let text = |keyword: &str| texts.get(keyword).map(String::as_str);
    let mos = text(OWN_KEYWORD).map(serde_json::from_str::<Value>).transpose().map_err(|e| {
        Error::Text {
            path: path.to_path_buf(),
            keyword: OWN_KEYWORD.to_string(),
            reason: e.to_string(),
        }
    })?;
    match (text(KEYWORD).map(parse), mos) {
        (None, None) => Ok(None),
        (parameters, mos) => Ok(Some(Parameters { mos, ..parameters.unwrap_or_default() })),
    }
}

/// The text under `parameters`.
pub fn format(parameters: &Parameters) -> String {
    let mut text = parameters.prompt.clone();
    if !parameters.negative_prompt.is_empty() {
        text += &format!("\n{NEGATIVE} {}", parameters.negative_prompt);
    }
    let settings: Vec<String> =
        parameters.settings.iter().map(|(key, value)| format!("{key}: {}", quote(value))).collect();
    text += "\n";
    text += &settings.join(", ");
    text.trim().to_string()
}

/// Reads the text under `parameters`, ours or a web UI's. Any text is taken: without settings it is
/// all prompt.
pub fn parse(text: &str) -> Parameters {
    let mut lines: Vec<&str> = text.trim().split('\n').collect();
    let read = |line: &&str| {
        Some(parse_settings(line)).filter(|settings| settings.len() >= LEAST_SETTINGS)
    };
    // Lines of other programs may follow.
    let begun =
        lines.iter().rposition(|line| line.trim_start().starts_with(FIRST) && read(line).is_some());
    let at = begun.or_else(|| lines.len().checked_sub(1));
    let settings = at.and_then(|at| lines.get(at)).and_then(read);
    let mut rest = String::new();
    if let (Some(at), Some(_)) = (at, &settings) {
        rest = lines.split_off(at).split_off(1).join("\n");
    }
    let settings = settings.unwrap_or_default();
    let (mut prompt, mut negative) = (Vec::new(), None::<Vec<&str>>);
    for line in lines {
        let line = line.trim();
        match (line.strip_prefix(NEGATIVE), &mut negative) {
            (Some(rest), Some(so_far)) => so_far.push(rest.trim()),
            (Some(rest), None) => negative = Some(vec![rest.trim()]),
            (None, Some(so_far)) => so_far.push(line),
            (None, None) => prompt.push(line),
        }
    }
    Parameters {
        prompt: prompt.join("\n").trim().to_string(),
        negative_prompt: negative.unwrap_or_default().join("\n").trim().to_string(),
        settings,
        rest,
        mos: None,
    }
}

/// A value as a JSON string if it would otherwise be misread.
fn quote(value: &str) -> String {
    let plain =
        !value.contains([',', ':', '\n', '\r', '"']) && value.trim() == value && !value.is_empty();
    if plain { value.to_string() } else { Value::from(value).to_string() }
}

/// `Name: value, Name: "quoted, value", ...`; what fits nowhere is passed over.
fn parse_settings(line: &str) -> Vec<(String, String)> {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/');
    let mut settings = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        // A name starts with a letter or digit and goes as far as it can; a colon ends it.
        let from = rest.find(|c: char| c.is_alphanumeric() || c == '_').unwrap_or(rest.len());
        let name_on = rest.get(from..).unwrap_or_default();
        let end = name_on.find(|c| !in_name(c)).unwrap_or(name_on.len());
        let (name, after) = name_on.split_at_checked(end).unwrap_or_default();
        let Some(value_on) = after.strip_prefix(':').filter(|_| name.chars().count() >= 2) else {
            let skip = after.chars().next().map_or(0, char::len_utf8);
            rest = after.get(skip..).unwrap_or_default();
            continue;
        };
        let value_on = value_on.trim_start();
        let (value, after) = quoted(value_on).unwrap_or_else(|| {
            let end = value_on.find(',').unwrap_or(value_on.len());
            let (value, after) = value_on.split_at_checked(end).unwrap_or_default();
            (value.trim_end().to_string(), after)
        });
        settings.push((name.trim_end().to_string(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    settings
}

/// A JSON string at the start of `text` that a comma or the end follows, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let (literal, after) = text.split_at_checked(end + 2)?;
    let after = after.trim_start();
    let value = serde_json::from_str(literal).ok()?;
    (after.is_empty() || after.starts_with(',')).then_some((value, after))
}
