//! What a run would take of the device's memory, before it is begun: nothing is decoded or written.

use super::budget::{self, Planned};
use super::config::Settings;
use super::error::{Error, Result};
use super::folder::{self, Depth};
use super::run::{size, step_config};
use super::step::{AttentionLoss, Models};
use super::words::Words;
use crate::backend::Device;
use crate::checkpoint::Checkpoint;
use crate::pipeline::Pipeline;

/// What [`plan`] found.
#[derive(Clone, Debug)]
pub struct PlannedRun {
    /// Pictures that there are.
    pub pictures: usize,
    /// Width and height that would be tuned at.
    pub size: [usize; 2],
    /// What it takes, and what that costs.
    pub planned: Planned,
}

/// Plans a run within the settings' memory, without beginning it: pictures are seen as far as their
/// headers tell, and no file or folder is made. `tell` hears what should be known besides.
///
/// # Errors
/// [`Error::Unfit`] with what has to be put right, a budget that is too small among it; a model
/// that cannot be tuned.
pub fn plan(
    gpu: &Device,
    checkpoint: &Checkpoint,
    settings: &Settings,
    tell: &mut dyn FnMut(&str),
) -> Result<PlannedRun> {
    let pipeline = Pipeline::load(gpu, checkpoint, settings.precision)?;
    let models = Models::of(pipeline.model())?;
    let (size, mut problems) = size(settings, &pipeline);
    let mut checked = folder::check_at(settings, size, Depth::Headers);
    checked.remarks.iter().for_each(|remark| tell(remark));
    problems.append(&mut checked.problems);
    let mut config = step_config(settings, size, &pipeline);
    let copies = config.rows_per_word(&models.unet);
    let words = Words::of(pipeline.model(), &settings.words, copies);
    let words = words.map_err(|error| problems.push(error.to_string())).ok();
    let (Some(words), true) = (words, problems.is_empty()) else {
        return Err(Error::Unfit(problems));
    };
    config.tokens = words.length();
    let masked = checked.seen.iter().any(|seen| seen.masked);
    if settings.attention_weight > 0.0 && settings.words.len() >= 2 && masked {
        config.attention_loss = Some(AttentionLoss {
            weight: settings.attention_weight,
            full_identity: settings.full_identity,
        });
    }
    let fitted = budget::fit(settings, &models, &config, &pipeline, gpu, size)?;
    Ok(PlannedRun { pictures: checked.seen.len(), size, planned: fitted.planned })
}
