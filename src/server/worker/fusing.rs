//! Fusing concepts as a job, as `mos fuse` does.

use serde_json::json;

use crate::concept::dialects;
use crate::fusion::{ConceptToFuse, Error, Order, check_output, fuse as fused, markdown};
use crate::pipeline::Pipeline;
use crate::server::fusion::Fusion;
use crate::server::job::Job;
use crate::server::problem::{Problem, words};

use super::Worker;

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let words = words(&error);
        match error {
            Error::Cancelled(_) => Problem::cancelled("it was cancelled"),
            Error::Backend(_) | Error::Checkpoint(_) | Error::Model(_) => Problem::own(words),
            _ => Problem::asked(words),
        }
    }
}

/// Fuses, and tells how it goes.
pub fn fuse(worker: &mut Worker, job: &Job, asked: Fusion) -> Result<(), Problem> {
    // It wants the memory that models for pictures would hold.
    worker.forget();
    check_output(&asked.out, false)?;
    let mut settings = asked.settings;
    let mut concepts = Vec::new();
    for (wanted, prompt) in asked.concepts {
        let Some(path) = wanted.listed.path else { continue };
        let (concept, notes) = dialects::read(&path)?;
        let name = &wanted.listed.name;
        notes.iter().for_each(|note| job.warn(&format!("{name}: {note}")));
        let (unet, text) = (wanted.scale, wanted.text_scale.unwrap_or(wanted.scale));
        concepts.push(ConceptToFuse { unet, text, prompt, ..ConceptToFuse::new(concept, path) });
    }
    let checkpoint = worker.open(&asked.model, job)?;
    if let Some([width, height]) = asked.size {
        let factor = Pipeline::load(&worker.device, &checkpoint, worker.precision)?.factor().max(1);
        if width % factor != 0 || height % factor != 0 || width == 0 || height == 0 {
            let found = format!("{width}x{height}");
            return Err(Problem::value("size", found, &format!("multiples of {factor}")));
        }
        settings.size = Some([height / factor, width / factor]);
    }
    let order = Order::new(concepts, asked.out);
    let watch = &mut |at: crate::Progress<'_>| job.heed(at);
    let fused = fused(&worker.device, &checkpoint, order, &settings, watch)?;
    fused.report.notes.iter().for_each(|note| job.warn(note));
    let report = markdown(&fused.report, &[]);
    let told = json!({ "model": asked.name, "report": report });
    job.change(|status| status.result = Some(told));
    Ok(())
}
