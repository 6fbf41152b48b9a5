//! How far a long piece of work is, with the time left: a bar on a terminal, now and then a line
//! elsewhere.
use std::fmt::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::terminal::Terminal;
use super::{escaped, units};

/// Between lines where there is no bar.
const EVERY: Duration = Duration::from_secs(10);

/// The stage that is under way.
struct Stage {
    name: &'static str,
    start: Instant,
    /// When a line was last printed.
    told: Instant,
    bar: Option<ProgressBar>,
}

/// Shows one stage after another.
pub struct Progress<'a> {
    terminal: &'a Terminal,
    stage: Option<Stage>,
}

impl<'a> Progress<'a> {
    pub fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, stage: None }
    }

    /// Stage `name` has done `done` of `of` parts.
    pub fn show(&mut self, name: &'static str, done: usize, of: usize) {
        self.show_with(name, done, of, "");
    }

    /// As [`Progress::show`], with how it goes.
    pub fn show_with(&mut self, name: &'static str, done: usize, of: usize, detail: &str) {
        if self.terminal.quiet() {
            return;
        }
        let terminal = self.terminal;
        if self.stage.as_ref().is_none_or(|stage| stage.name != name) {
            self.finish();
        }
        let stage = self.stage.get_or_insert_with(|| {
            let start = Instant::now();
            Stage {
                name,
                start,
                told: start,
                bar: terminal.interactive().then(|| bar(terminal, name, of)),
            }
        });
        if let Some(bar) = &stage.bar {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            if !detail.is_empty() {
                bar.set_message(format!("  {}", escaped::line(detail)));
            }
        } else if done > 0 && done < of && stage.told.elapsed() >= EVERY {
            stage.told = Instant::now();
            let left = stage.start.elapsed().mul_f64((of - done) as f64 / done as f64);
            let detail = if detail.is_empty() { String::new() } else { format!("  {detail}") };
            terminal.note(format!("{name} {done}/{of}, {} left{detail}", units::duration(left)));
        }
    }

    /// Prints something else meanwhile, without the bar in its way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.stage.as_ref().and_then(|stage| stage.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.stage.take().and_then(|stage| stage.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(terminal: &Terminal, name: &'static str, of: usize) -> ProgressBar {
    let template = match (of > 1, terminal.colours()) {
        (true, true) => "{prefix:<8} {bar:40.cyan/dim} {pos}/{len}  {elapsed} gone{left}{msg}",
        (true, false) => "{prefix:<8} {bar:40} {pos}/{len}  {elapsed} gone{left}{msg}",
        (false, _) => "{prefix:<8} {spinner} {elapsed}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(of as u64), ProgressDrawTarget::stderr());
    // Before the first part is done, nobody knows.
    let left = |state: &ProgressState, out: &mut dyn Write| {
        if state.pos() > 0 {
            let _ = write!(out, ", {} left", units::duration(state.eta()));
        }
    };
    bar.set_style(style.with_key("left", left).progress_chars("━╸─"));
    bar.set_prefix(name);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
