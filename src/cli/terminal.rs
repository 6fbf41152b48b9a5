//! Printing: results to standard output, everything else to standard error, colours only on a
//! terminal. What is printed may be quoted from files, so that nothing in it is left for a terminal
//! to obey (see [`super::escaped`]).
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;

use clap::builder::styling::{AnsiColor, Effects, Style, Styles};
use serde::Serialize;

use super::{Failure, Result, escaped};

/// Colours of the help texts.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const WARNING: Style = AnsiColor::Yellow.on_default().effects(Effects::BOLD);
const NOTE: Style = Style::new().effects(Effects::DIMMED);

/// Where and how much to print.
pub struct Terminal {
    quiet: bool,
    verbose: bool,
    colours: bool,
    /// Whether standard error is a terminal, on which progress can be redrawn.
    interactive: bool,
    /// Warnings and remarks, for reports.
    told: Mutex<Vec<String>>,
}

impl Terminal {
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let interactive = io::stderr().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            quiet,
            verbose,
            colours: interactive && !dumb && !set("NO_COLOR"),
            interactive: interactive && !dumb,
            told: Mutex::default(),
        }
    }

    /// All warnings and remarks, in order; also where they were not printed.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().map_or_else(|broken| broken.into_inner().clone(), |told| told.clone())
    }

    fn keep(&self, text: &str) {
        if let Ok(mut told) = self.told.lock() {
            told.push(text.to_string());
        }
    }

    pub fn quiet(&self) -> bool {
        self.quiet
    }

    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Whether lines on standard error can be redrawn.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether standard error shows colours.
    pub fn colours(&self) -> bool {
        self.colours
    }

    /// A result, with a line end, to standard output.
    pub fn print(&self, text: impl std::fmt::Display) -> Result<()> {
        self.print_as_it_is(&escaped::lines(&text.to_string()))
    }

    /// The name of a file as a result: to another program as it is, so that this one finds the
    /// file.
    pub fn print_path(&self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        if io::stdout().is_terminal() {
            self.print_as_it_is(&escaped::line(&name))
        } else {
            self.print_as_it_is(&name)
        }
    }

    fn print_as_it_is(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
            other => Ok(other.map_err(Unprintable)?),
        }
    }

    /// A result as JSON, to standard output.
    pub fn print_json(&self, value: &impl Serialize) -> Result<()> {
        self.print_as_it_is(&escaped::json(&serde_json::to_string_pretty(value)?))
    }

    /// What happens, for people, to standard error.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.say(&escaped::indented(&text.to_string()));
        }
    }

    /// What only `--verbose` asks for.
    pub fn detail(&self, text: impl std::fmt::Display) {
        if self.verbose {
            self.say(&self.styled(NOTE, &escaped::indented(&text.to_string())));
        }
    }

    /// What the user may not have meant; it stands in reports too.
    pub fn warning(&self, text: impl std::fmt::Display) {
        let text = text.to_string();
        self.keep(&text);
        if !self.quiet {
            let text = escaped::indented(&text);
            self.say(&format!("{} {text}", self.styled(WARNING, "warning:")));
        }
    }

    /// What the user should know of what is read or written; it stands in reports too.
    pub fn remark(&self, text: impl std::fmt::Display) {
        let text = text.to_string();
        self.keep(&text);
        self.note(format!("note: {text}"));
    }

    /// One line: the error and what caused it.
    pub fn error(&self, error: &dyn Error) {
        self.error_line(&in_words(error));
    }

    pub fn error_line(&self, message: &str) {
        self.say(&format!("{} {}", self.styled(ERROR, "error:"), escaped::indented(message)));
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// Where standard error is closed there is nobody to tell.
    fn say(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// An error with its causes.
pub fn in_words(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Many errors name their cause themselves.
        let text = error.to_string();
        if !message.contains(&text) {
            message += &format!(": {text}");
        }
        cause = error.source();
    }
    message
}

#[derive(Debug, thiserror::Error)]
#[error("the result cannot be printed: {0}")]
struct Unprintable(io::Error);
