//! A kernel's file: WGSL or a template of it, and what its header declares.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::complaint::complaint;
use super::error::{Error, Result};
use super::expression::{Expression, Names};
use crate::backend::wgpu::{DECLARATIONS, Rendered, Value, kernel_place, kernel_text, render_own};

/// How a line begins that says something about a kernel.
const STATEMENT: &str = "//%";

/// A kernel as a file has it.
#[derive(Clone, Debug)]
pub struct Source {
    /// As messages call it.
    pub name: String,
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
    text: String,
    /// What it computes, if its header says so.
    pub kind: Option<String>,
    /// The line that says so.
    kind_line: Option<usize>,
    /// Workgroups in x, y and z, as formulas in the sizes.
    dispatch: Option<Declared<[String; 3]>>,
    /// What sizes must be.
    needs: Vec<Declared<String>>,
    /// Parameters and the values that they may have; the first is taken unless told.
    pub tuned: Vec<(String, Vec<Setting>)>,
    /// How far results may be off, relative to what was added up.
    pub tolerance: Option<f64>,
}

/// What a line declares.
#[derive(Clone, Debug)]
struct Declared<T> {
    line: usize,
    what: T,
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A whole number.
    Number(i64),
    /// Any other word.
    Word(String),
}

impl Setting {
    /// What a text says.
    pub fn parse(text: &str) -> Setting {
        let text = text.trim().trim_matches('"');
        text.parse().map_or_else(|_| Setting::Word(text.to_string()), Setting::Number)
    }

    fn value(&self) -> Value {
        match self {
            Setting::Number(number) => Value::from(*number),
            Setting::Word(word) if word == "true" || word == "false" => Value::from(word == "true"),
            Setting::Word(word) => Value::from(word.as_str()),
        }
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Number(number) => write!(f, "{number}"),
            Setting::Word(word) => f.write_str(word),
        }
    }
}

/// Values of parameters.
pub type Settings = BTreeMap<String, Setting>;

/// WGSL that a device gets, and where its lines are from.
#[derive(Clone, Debug)]
pub struct Wgsl {
    /// The text.
    pub text: String,
    origins: Option<Vec<Option<(String, usize)>>>,
    name: String,
}

impl Wgsl {
    pub(super) fn of(source: &Source, rendered: Rendered) -> Wgsl {
        let Rendered { text, origins } = rendered;
        Wgsl { text, origins: Some(origins), name: source.name.clone() }
    }

    /// `{line 12}` of the text as the line of the file.
    pub(super) fn with_places(&self, what: &str) -> String {
        let Some((before, rest)) = what.split_once("{line ") else { return what.to_string() };
        let Some((line, after)) = rest.split_once('}') else { return what.to_string() };
        let place = line.parse().map_or_else(|_| "another line".to_string(), |n| self.place(n));
        format!("{before}{place}{after}")
    }

    /// The file and the line in it, of a line of the text.
    pub fn origin(&self, line: usize) -> (String, usize) {
        let Some(origins) = &self.origins else { return (kernel_place(&self.name, true), line) };
        let found = origins.get(..line).and_then(|all| all.iter().rev().flatten().next());
        match found {
            Some((file, line)) => (kernel_place(file, *file == self.name), *line),
            None => (kernel_place(&self.name, true), line),
        }
    }

    /// A line as messages name it, and as editors jump to it: `FILE:LINE`.
    pub fn place(&self, line: usize) -> String {
        let (file, line) = self.origin(line);
        format!("{file}:{line}")
    }
}

impl Source {
    /// Reads a file, or this program's own kernel of that name.
    ///
    /// # Errors
    /// A file that cannot be read; a header that declares what nobody understands.
    pub fn open(path: &Path) -> Result<Source> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                // What editors put before the first line is no part of it.
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let text = &text.replace("\r\n", "\n").replace('\r', "\n");
                let mut source = Source::new(&path.display().to_string(), text)?;
                source.path = Some(path.to_path_buf());
                Ok(source)
            }
            Err(error) => {
                let message = match error.kind() {
                    std::io::ErrorKind::InvalidData => "it is no text".to_string(),
                    _ => error.to_string(),
                };
                Err(Error::File { path: path.into(), message })
            }
        }
    }

    /// This program's own kernel.
    ///
    /// # Errors
    /// None of that name.
    pub fn own(name: &str) -> Result<Source> {
        match kernel_text(name) {
            Some(text) => Source::new(name, &text),
            None => {
                let names = crate::backend::wgpu::kernel_names();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Err(Error::unknown("kernel", name, &names))
            }
        }
    }

    /// A kernel's text.
    ///
    /// # Errors
    /// A header that declares what nobody understands.
    pub fn new(name: &str, text: &str) -> Result<Source> {
        let mut source = Source {
            name: name.to_string(),
            path: None,
            text: text.to_string(),
            kind: None,
            kind_line: None,
            dispatch: None,
            needs: Vec::new(),
            tuned: Vec::new(),
            tolerance: None,
        };
        for (number, line) in text.lines().enumerate() {
            let Some(statement) = line.trim_start().strip_prefix(STATEMENT) else { continue };
            let statement = statement.trim();
            let (word, rest) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
            if DECLARATIONS.contains(&word) {
                source.declare(word, rest.trim(), number + 1).map_err(|problem| {
                    source.failed_at(number + 1, format!("{problem}, in `{statement}`"))
                })?;
            }
        }
        Ok(source)
    }

    fn declare(&mut self, word: &str, rest: &str, line: usize) -> Result<(), String> {
        let rest = rest.strip_prefix('=').map_or(rest, str::trim_start);
        match word {
            "kind" => {
                self.kind = Some(rest.to_string());
                self.kind_line = Some(line);
            }
            "tolerance" => {
                let number: f64 = rest.parse().map_err(|_| format!("`{rest}` is no number"))?;
                if !(number > 0.0 && number < 1.0) {
                    return Err("a tolerance is above 0 and below 1".into());
                }
                self.tolerance = Some(number);
            }
            "needs" => self.needs.push(Declared { line, what: rest.to_string() }),
            "dispatch" => {
                let mut parts = listed(rest)?;
                if parts.len() > 3 {
                    return Err("expected up to three numbers of workgroups".into());
                }
                parts.resize(3, "1".to_string());
                let [x, y, z] = <[String; 3]>::try_from(parts).unwrap_or_default();
                self.dispatch = Some(Declared { line, what: [x, y, z] });
            }
            _ => {
                let (name, values) =
                    rest.split_once(" in ").ok_or("expected `NAME in [VALUE, ..]`")?;
                let values: Vec<Setting> =
                    listed(values)?.iter().map(|value| Setting::parse(value)).collect();
                self.tuned.push((name.trim().to_string(), values));
            }
        }
        Ok(())
    }

    pub(super) fn failed(&self, message: impl Into<String>) -> Error {
        Error::Kernel { kernel: self.name.clone(), message: message.into() }
    }

    /// With a line of its file.
    fn failed_at(&self, line: usize, message: impl Into<String>) -> Error {
        let kernel = format!("{}:{line}", kernel_place(&self.name, true));
        Error::Kernel { kernel, message: message.into() }
    }

    /// An error of what stands in line `line` of the WGSL.
    pub(super) fn failed_in(&self, wgsl: &Wgsl, line: usize, message: &str) -> Error {
        let quoted = wgsl.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
        let message = match quoted {
            "" => message.to_string(),
            quoted => format!("{message}, in `{quoted}`"),
        };
        Error::Kernel { kernel: wgsl.place(line), message }
    }

    /// An error of the kind that its header names.
    pub fn unknown_kind(&self, error: &Error) -> Error {
        self.failed_at(self.kind_line.unwrap_or(1), error.to_string())
    }

    /// The kernel's text as it stands.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What its header gives parameters that are not set.
    pub fn settings(&self, set: &Settings) -> Result<Settings> {
        let mut all = set.clone();
        for (name, values) in &self.tuned {
            if let Some(first) = values.first() {
                all.entry(name.clone()).or_insert_with(|| first.clone());
            }
        }
        let known = |name: &String| self.tuned.iter().any(|(known, _)| known == name);
        if let Some(name) = set.keys().find(|name| !known(name)) {
            let known: Vec<&str> = self.tuned.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::unknown("parameter", name, &known));
        }
        for (name, values) in &self.tuned {
            if let Some(value) = set.get(name).filter(|value| !values.contains(value)) {
                let known: Vec<String> = values.iter().map(Setting::to_string).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let what = format!("value of {name}");
                return Err(Error::unknown(what, &value.to_string(), &known));
            }
        }
        Ok(all)
    }

    /// Whether anything is rendered.
    fn is_template(&self) -> bool {
        let statement = |line: &str| {
            line.trim_start().strip_prefix(STATEMENT).is_some_and(|statement| {
                let word = statement.split_whitespace().next().unwrap_or_default();
                !DECLARATIONS.contains(&word)
            })
        };
        !self.tuned.is_empty()
            || self.text.lines().any(statement)
            || self.text.contains("{{") && self.text.contains("}}")
    }

    /// The WGSL with these values of parameters, the first ones for those that are not among them.
    ///
    /// # Errors
    /// A parameter that the header does not declare; a template that cannot be rendered; WGSL that
    /// is not valid, with the line in the file.
    pub fn wgsl(&self, set: &Settings) -> Result<Wgsl> {
        let mut wgsl = self.rendered(set)?;
        wgsl.text = without_subgroups(wgsl.text);
        if let Some((line, what)) = complaint(&wgsl.text) {
            return Err(match line {
                Some(line) => self.failed_in(&wgsl, line, &what),
                None => self.failed(what),
            });
        }
        Ok(wgsl)
    }

    fn rendered(&self, set: &Settings) -> Result<Wgsl> {
        let settings = self.settings(set)?;
        if !self.is_template() {
            let (text, name) = (self.text.clone(), self.name.clone());
            return Ok(Wgsl { text, origins: None, name });
        }
        let params = settings.iter().map(|(name, value)| (name.clone(), value.value())).collect();
        Ok(Wgsl::of(self, render_own(&self.name, &self.text, &params)?))
    }

    /// Workgroups for these sizes and parameters.
    ///
    /// # Errors
    /// No `dispatch` in the header; one that cannot be computed.
    pub(super) fn grid(&self, sizes: &[(String, f64)]) -> Result<[u32; 3]> {
        let Some(dispatch) = &self.dispatch else {
            return Err(self.failed_at(
                self.header_line(),
                "the header does not say how many workgroups it takes, as in `//% dispatch \
                 [ceil(columns / 16), ceil(rows / 16), 1]`",
            ));
        };
        let names = Names::of(sizes.iter().map(|(name, _)| name.clone()));
        let numbers: Vec<f64> = sizes.iter().map(|(_, number)| *number).collect();
        let mut grid = [0; 3];
        for (count, formula) in grid.iter_mut().zip(&dispatch.what) {
            let line = dispatch.line;
            let failed = |what: String| self.failed_at(line, what);
            let number = Expression::parse(formula, &names).map_err(failed)?.number(&numbers);
            if !(0.0..=f64::from(u32::MAX)).contains(&number) || number.fract() != 0.0 {
                return Err(failed(format!("`{formula}` gives {number} workgroups")));
            }
            *count = number as u32;
        }
        Ok(grid)
    }

    /// Where lines of the header stand, or could.
    fn header_line(&self) -> usize {
        let is_header = |line: &str| line.trim_start().starts_with(STATEMENT);
        self.text.lines().position(is_header).map_or(1, |at| at + 1)
    }

    /// Whether the sizes are such as the header needs.
    ///
    /// # Errors
    /// A `needs` that cannot be computed.
    pub(super) fn suits(&self, sizes: &[(String, f64)]) -> Result<bool> {
        let names = Names::of(sizes.iter().map(|(name, _)| name.clone()));
        let numbers: Vec<f64> = sizes.iter().map(|(_, number)| *number).collect();
        for Declared { line, what } in &self.needs {
            let needed = Expression::parse(what, &names)
                .map_err(|problem| self.failed_at(*line, problem))?;
            if needed.number(&numbers) == 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the header needs, for messages.
    pub(super) fn needs(&self) -> String {
        let all: Vec<&str> = self.needs.iter().map(|needed| needed.what.as_str()).collect();
        all.join(", ")
    }
}

/// WGSL without `enable subgroups`, which is standard but unknown to naga: it has them without.
fn without_subgroups(text: String) -> String {
    let enables = |line: &str| {
        let line = line.trim_start();
        line.starts_with("enable") && line.contains("subgroups")
    };
    if !text.lines().any(enables) {
        return text;
    }
    let lines = text.split('\n').map(|line| {
        let Some((names, rest)) = line
            .trim_start()
            .strip_prefix("enable")
            .filter(|_| enables(line))
            .and_then(|rest| rest.split_once(';'))
        else {
            return line.to_string();
        };
        let names = names.split(',').map(str::trim);
        let others: Vec<&str> =
            names.filter(|name| *name != "subgroups" && !name.is_empty()).collect();
        match others.is_empty() {
            true => rest.trim_start().to_string(),
            false => format!("enable {};{rest}", others.join(", ")),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The parts of `[a, b(c, d), e]`.
fn listed(text: &str) -> Result<Vec<String>, String> {
    let inside = text.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inside = inside.ok_or_else(|| format!("expected a list such as [1, 2], found `{text}`"))?;
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inside.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let parts: Vec<String> = parts.iter().map(|part| part.trim().to_string()).collect();
    match parts.iter().any(String::is_empty) {
        true => Err("a part of the list is empty".into()),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
// y = 2 x
//% kind = like
//% dispatch [ceil(rows / (tile * 2)), max(1, rows)]
//% needs rows % 4 == 0
//% tune tile in [8, 16]
//% set twice = tile * 2
@compute @workgroup_size({{ twice }})
fn main() {
  let a = {{ tile }}u;
}
";

    #[test]
    fn subgroups_need_not_be_enabled() {
        for (text, expected) in [
            ("enable subgroups;\nfn a() {}", "\nfn a() {}"),
            ("  enable f16, subgroups; fn a() {}", "enable f16; fn a() {}"),
            ("enable f16;\n// subgroups", "enable f16;\n// subgroups"),
        ] {
            assert_eq!(without_subgroups(text.into()), expected);
        }
    }

    #[test]
    fn headers_say_how_a_kernel_is_run() {
        let source = Source::new("twice.wgsl", TEXT).unwrap();
        assert_eq!(source.kind.as_deref(), Some("like"));
        let sizes = |rows: f64| [("rows".to_string(), rows), ("tile".to_string(), 8.0)];
        assert_eq!(source.grid(&sizes(20.0)).unwrap(), [2, 20, 1]);
        assert!(source.suits(&sizes(20.0)).unwrap() && !source.suits(&sizes(21.0)).unwrap());
        let wgsl = source.wgsl(&Settings::new()).unwrap();
        assert!(wgsl.text.contains("@workgroup_size(16)"), "{}", wgsl.text);
        let set = Settings::from([("tile".to_string(), Setting::Number(16))]);
        assert!(source.wgsl(&set).unwrap().text.contains("@workgroup_size(32)"));
        let set = Settings::from([("size".to_string(), Setting::Number(16))]);
        let said = source.wgsl(&set).unwrap_err().to_string();
        assert!(said.contains("unknown parameter `size`; there are tile"), "{said}");
        let set = Settings::from([("tile".to_string(), Setting::Number(12))]);
        let said = source.wgsl(&set).unwrap_err().to_string();
        assert!(said.contains("unknown value of tile `12`"), "{said}");
        assert!(said.contains("there are 8, 16"), "{said}");
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let fails = |text: &str| match Source::new("a.wgsl", text) {
            Err(error) => error.to_string(),
            Ok(source) => source.wgsl(&Settings::new()).unwrap_err().to_string(),
        };
        for (text, says) in [
            ("//% tune tile [8]\n", "a.wgsl:1: expected `NAME in [VALUE, ..]`"),
            ("\n//% dispatch 3, 4\n", "a.wgsl:2: expected a list"),
            ("//% tolerance none\n", "`none` is no number"),
            (
                "//% set tile = 2\n@compute @workgroup_size(1)\nfn main() {\n  let a: u32 = 1.5;}",
                "a.wgsl:4: ",
            ),
            ("//% if\n", "a.wgsl:1: "),
        ] {
            let said = fails(text);
            assert!(said.contains(says), "{text}: {said}");
        }
        let source = Source::new("a.wgsl", "//% dispatch [rows / 2]\n").unwrap();
        let said = source.grid(&[("rows".into(), 3.0)]).unwrap_err().to_string();
        assert!(said.contains("`rows / 2` gives 1.5 workgroups"), "{said}");
    }
}
