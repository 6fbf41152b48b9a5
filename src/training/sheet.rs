//! What a run looks like: the loss curve, and a sheet of prompts at several scales of the LoRA.

use std::ops::ControlFlow;

use super::config::Settings;
use super::error::Result;
use crate::concept::with_words;
use crate::concept::{Applied, Concept};
use crate::numbers::counted;
use crate::picture::{self, Line, Picture, Plot, Sheet};
use crate::pipeline::{Pipeline, Request};
use crate::scheduler::sampler::SamplerKind;
use crate::watch::heed;

const BLUE: [u8; 3] = [31, 97, 180];
const PALE: [u8; 3] = [190, 208, 232];
const ORANGE: [u8; 3] = [222, 125, 20];

/// The loss over the updates, as it was and smoothed, and the embeddings' norm.
///
/// # Errors
/// None but for faults of this program: the size is fixed.
pub fn curve(settings: &Settings, history: &[[f32; 3]]) -> picture::Result<Picture> {
    let losses: Vec<f32> = history.iter().map(|[loss, ..]| *loss).collect();
    let norms = history.iter().map(|[.., norm]| *norm).collect();
    let window = (settings.steps / 20).max(5);
    let lines = vec![
        Line { label: "loss".into(), colour: PALE, values: losses.clone() },
        Line {
            label: format!("loss, mean of {window}"),
            colour: BLUE,
            values: smoothed(&losses, window),
        },
        Line { label: "norm of the embeddings".into(), colour: ORANGE, values: norms },
    ];
    let title =
        format!("{}: {} of {}", settings.name, history.len(), counted(settings.steps, "step"));
    Plot { title, lines, width: 720, height: 400, logarithmic: true, places: settings.steps }.draw()
}

/// The mean of the last `window` values, or of as many as there are.
fn smoothed(values: &[f32], window: usize) -> Vec<f32> {
    let mean = |end: usize| {
        let part = values.get(end.saturating_sub(window - 1)..=end).unwrap_or_default();
        part.iter().sum::<f32>() / part.len().max(1) as f32
    };
    (0..values.len()).map(mean).collect()
}

/// The sheet: a row for each prompt, a column for each scale. `size` is width and height;
/// `progress` is told how many pictures are done, again and again while one is made.
///
/// # Errors
/// Whatever sampling meets; [`Error::Cancelled`](super::Error::Cancelled).
pub fn sheet(
    pipeline: &mut Pipeline,
    concept: &Concept,
    settings: &Settings,
    size: [usize; 2],
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Picture> {
    let plain = concept.updates.is_empty();
    // Without updates all scales are the same.
    let scales: Vec<f32> = if plain { vec![1.0] } else { settings.sheet_scales.clone() };
    let of = settings.prompts.len() * scales.len();
    let mut rows: Vec<Vec<Picture>> = Vec::new();
    for prompt in &settings.prompts {
        let mut row = Vec::new();
        for &scale in &scales {
            let done = rows.len() * scales.len() + row.len();
            let request = Request {
                prompt: with_words(prompt, &settings.phrase()),
                concepts: vec![Applied::new(concept.clone(), scale)?],
                width: Some(size[0]),
                height: Some(size[1]),
                steps: settings.sheet_steps,
                guidance: settings.sheet_guidance.unwrap_or(pipeline.guidance()),
                sampler: Some(SamplerKind::DPMPP_2M),
                seed: settings.seed,
                clip_skip: settings.clip_skip,
                memory: settings.memory,
                ..Request::default()
            };
            row.extend(pipeline.generate(&request, &mut |_| progress(done, of))?.pictures);
        }
        rows.push(row);
    }
    heed(progress(of, of))?;
    let caption = |scale: &f32| match (plain, *scale == 0.0) {
        (true, _) => "embedding".into(),
        (_, true) => "embedding, LoRA 0".into(),
        _ => format!("LoRA {scale}"),
    };
    let sheet = Sheet {
        rows: rows.iter().map(|row| row.iter().map(Some).collect()).collect(),
        row_captions: settings.prompts.clone(),
        column_captions: scales.iter().map(caption).collect(),
        gap: 4,
    };
    Ok(sheet.draw()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing() {
        assert_eq!(smoothed(&[2.0, 4.0, 6.0, 8.0], 2), [2.0, 3.0, 5.0, 7.0]);
        assert!(smoothed(&[], 5).is_empty());
    }
}
