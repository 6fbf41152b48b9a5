//! The step in which the fused UNet learns predictions, as it fits a device.

use std::sync::Arc;

use crate::training::step::{AdamW, Models, Network, StepConfig, TrainedLayer, TrainingStep};

use super::Result;
use super::base::Runner;
use super::groups::StageLayers;
use super::settings::Distillation;

/// Activations of a pass, in bytes, beyond which a block's are computed again for its backward
/// instead of kept.
const MOST_KEPT: u64 = 3 << 30;
/// Latent pixels of the pictures in one pass; more are taken in several passes.
const PIXELS: usize = 2048;

/// A step that learns predictions.
pub(super) struct Lessons {
    pub step: TrainingStep,
    pub layers: Vec<TrainedLayer>,
    pub rank: usize,
    /// Predictions in one pass.
    pub batch: usize,
    pub tokens: usize,
}

/// What lessons are planned for.
#[derive(Clone, Copy)]
pub(super) struct LessonShape {
    pub concepts: usize,
    /// Prompts that a picture may have.
    pub prompts: usize,
    /// Height and width of the latents.
    pub size: [usize; 2],
}

/// Plans the step within the runner's budget.
pub(super) fn lessons(
    runner: &Runner,
    settings: Distillation,
    shape: LessonShape,
    stages_layers: &[&StageLayers],
) -> Result<Lessons> {
    let (base, LessonShape { concepts, prompts, size: [height, width] }) = (runner.base, shape);
    // As many as the concepts' own updates may have together, and some.
    let rank = settings.rank.unwrap_or((16 * concepts + 4).min(64)).max(1);
    let sites = stages_layers.iter().flat_map(|layout| &layout.sites);
    let layers: Vec<TrainedLayer> = sites
        .flat_map(|site| site.layers.iter().map(|layer| (site.width, layer)))
        .map(|(into, layer)| TrainedLayer {
            network: Network::UNet,
            name: layer.name.clone(),
            rank,
            into,
            out: layer.out,
        })
        .collect();
    let wanted = settings.batch.max(1);
    let most = (PIXELS / (height * width).max(1)).clamp(1, wanted);
    let tokens = base.tokenizer().max_length();
    let parameters = Arc::new(runner.unet.over(&base.model.unet.component));
    let models = Models { parameters, ..Models::of(&base.model)? };
    let mut least = u64::MAX;
    let batches: Vec<usize> =
        (1..=most).rev().filter(|batch| wanted.is_multiple_of(*batch)).collect();
    // Smaller passes first, then weights that come and go.
    let tried = batches.iter().map(|&batch| (batch, false)).chain([(1, true)]);
    for (batch, streams) in tried {
        let mut config = StepConfig {
            unet_rank: rank,
            batch,
            size: [height, width],
            tokens,
            adamw: AdamW { betas: [0.9, 0.99], weight_decay: 0.0, ..AdamW::default() },
            accumulate: wanted / batch,
            precision: runner.precision,
            prompts,
            ..StepConfig::default()
        };
        let mut step = TrainingStep::distilling(&models, &config, &layers, runner.gpu)?;
        let bytes = step.planned_bytes()?;
        let exceeds = runner.room().is_some_and(|room| bytes.total() > room);
        if bytes.activations > MOST_KEPT || exceeds {
            config.checkpointing = true;
            step = TrainingStep::distilling(&models, &config, &layers, runner.gpu)?;
        }
        if let (Some(room), true) = (runner.room(), streams) {
            step.keep_within(room)?;
        }
        let total = step.planned_bytes()?.total();
        if runner.room().is_none_or(|room| total <= room) {
            return Ok(Lessons { step, layers, rank, batch, tokens });
        }
        if streams {
            step.keep_within(0)?;
        }
        least = least.min(step.planned_bytes()?.total());
    }
    Err(runner.too_little("distillation, which --distillation 0 leaves out", least))
}
