//! Teaching a concept as a job, as `mos train` does.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Value, json};

use crate::picture::measure;
use crate::server::job::{Job, Made};
use crate::server::lesson::Lesson;
use crate::server::problem::{Problem, words};
use crate::training::{Error, Event, Run, Summary};

use super::Worker;

/// Points of the loss curve that is told.
const POINTS: usize = 200;

/// The loss, by means of as many updates as keep it short.
#[derive(Default)]
struct Curve {
    points: Vec<f64>,
    sum: f64,
    count: u64,
}

impl Curve {
    /// Adds an update of `of`; whether there is a new point.
    fn add(&mut self, loss: f32, of: u64) -> bool {
        self.sum += f64::from(loss);
        self.count += 1;
        let is_full = self.count >= of.div_ceil(POINTS as u64);
        if is_full {
            self.points.push(self.sum / self.count as f64);
            (self.sum, self.count) = (0.0, 0);
        }
        is_full
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let words = words(&error);
        match error {
            Error::Cancelled(_) => Problem::cancelled("it was cancelled; what is learnt is saved"),
            Error::Backend(_) | Error::Checkpoint(_) | Error::Pipeline(_) => Problem::own(words),
            _ => Problem::asked(words),
        }
    }
}

/// Teaches, and tells how it goes.
pub fn teach(worker: &mut Worker, job: &Job, lesson: &Lesson) -> Result<(), Problem> {
    // It wants the memory that models for pictures would hold.
    worker.forget();
    let checkpoint = worker.open(&lesson.model, job)?;
    let Lesson { settings, begin, .. } = lesson;
    let mut run = Run::prepare_watched(
        &worker.device,
        &checkpoint,
        settings,
        *begin,
        &mut |remark| job.warn(remark),
        &mut |at| job.heed(at),
    )?;
    let (mut curve, mut shown) = (Curve::default(), Ok(()));
    let summary = run.run(&mut |event| match event {
        Event::Update(at) => {
            let is_new = curve.add(at.loss, at.of);
            job.change(|status| {
                let (done, of) = (at.done as usize, at.of as usize);
                (status.stage, status.done, status.of) = ("train", done, of);
                if is_new {
                    status.result = Some(told(lesson, &curve, None));
                }
            });
            go_on(job)
        }
        Event::Class(at) | Event::Sheet(at) => job.heed(at),
        Event::Wrote(path) if is_sheet(path) => {
            shown = show(job, path, settings.seed);
            go_on(job)
        }
        _ => go_on(job),
    })?;
    shown?;
    show(job, &summary.curve, settings.seed)?;
    job.change(|status| status.result = Some(told(lesson, &curve, Some(&summary))));
    Ok(())
}

fn go_on(job: &Job) -> ControlFlow<()> {
    match job.is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Pictures that a run writes, but for the curve, which is shown at the end.
fn is_sheet(path: &Path) -> bool {
    let is_picture = path.extension().is_some_and(|ending| ending == "png");
    is_picture && path.file_stem().is_some_and(|name| name != "curve")
}

/// Shows a picture that the run wrote.
fn show(job: &Job, path: &Path, seed: u64) -> Result<(), Problem> {
    let (width, height) = measure(path)?;
    let [width, height] = [width, height].map(|side| side as usize);
    let png = std::fs::read(path)?;
    job.add(Made { png, seed, width, height, told: String::new(), file: None });
    Ok(())
}

/// What the job came to so far.
fn told(lesson: &Lesson, curve: &Curve, summary: Option<&Summary>) -> Value {
    json!({
        "concept": summary.map(|_| &lesson.name),
        "words": lesson.settings.words,
        "loss": curve.points,
        "first_loss": summary.map(|summary| summary.losses[0]),
        "last_loss": summary.map(|summary| summary.losses[1]),
        "norm": summary.map(|summary| summary.norm),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_short() {
        for (updates, points) in [(1, 1), (199, 199), (200, 200), (201, 100), (5000, 200)] {
            let mut curve = Curve::default();
            for _ in 0..updates {
                curve.add(0.5, updates);
            }
            assert_eq!(curve.points, vec![0.5; points], "{updates}");
        }
    }
}
