//! What a fusion takes of the device's memory, before anything is sampled.

use super::base::{Base, FusedWeights, Runner};
use super::batches;
use super::collect::RecordedSubject;
use super::distillation;
use super::groups::{Stage, StageLayers};
use super::lessons::{LessonShape, Lessons, lessons};
use super::members::{self, ConceptToFuse, FusedConcept};
use super::scenes::{self, Scene};
use super::settings::Settings;
use super::spatial::{self, PictureShape};
use super::{Error, Result};
use crate::backend::{Device, Held};
use crate::checkpoint::{Checkpoint, Network};
use crate::numbers::counted;
use crate::sd::denoiser::StepShape;
use crate::sd::text::EncoderPass;
use crate::watch::Watch;

/// What a fusion takes of the device's memory; one of the parts at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlannedFusion {
    /// While prompts are encoded.
    pub text: u64,
    /// While a concept is sampled, with the sums that are made of it.
    pub sampling: u64,
    /// While what a concept's own model predicts is recorded, of as many pictures at a time as are
    /// sampled for that; 0 where nothing is distilled.
    pub predictions: u64,
    /// The same of a scene, several concepts in regions; 0 where there are none.
    pub scenes: u64,
    /// While the fused UNet learns; 0 where it does not.
    pub distillation: u64,
    /// The most at once.
    pub peak: u64,
    /// Of main memory, for a concept's sums.
    pub host: u64,
    /// How the UNet's weights come and go while a concept is sampled, if they do.
    pub streaming: Option<Held>,
    /// What staying within the budget costs, in sentences.
    pub costs: Vec<String>,
}

/// Plans a fusion of `concepts` within the settings' memory; nothing is sampled or written.
///
/// # Errors
/// Concepts that do not fit the model or each other; a budget that is too small, with what would
/// do.
pub fn plan(
    gpu: &Device,
    checkpoint: &Checkpoint,
    concepts: Vec<ConceptToFuse>,
    settings: &Settings,
    watch: &mut Watch,
) -> Result<PlannedFusion> {
    settings.check()?;
    let base = Base::open(checkpoint, watch)?;
    let members = members::members(concepts, &base, settings)?;
    if members.is_empty() {
        return Err(Error::option("concepts", "there are none to fuse"));
    }
    let layers = |stage| Ok((stage, StageLayers::of(stage, &base, &members)?));
    let stages_layers: Vec<(Stage, StageLayers)> =
        Stage::ALL.into_iter().map(layers).collect::<Result<_>>()?;
    let runner = Runner {
        gpu,
        base: &base,
        precision: settings.precision,
        memory: settings.memory,
        text: FusedWeights::default(),
        text_2: FusedWeights::default(),
        unet: FusedWeights::default(),
    };
    planned(&runner, &members, &stages_layers, settings)
}

pub(super) fn planned(
    runner: &Runner,
    members: &[FusedConcept],
    stages_layers: &[(Stage, StageLayers)],
    settings: &Settings,
) -> Result<PlannedFusion> {
    let mut found = PlannedFusion::default();
    if !settings.solver.reads_inputs() {
        return Ok(found);
    }
    let largest = |network: Network| {
        let found = members.iter().max_by_key(|member| numbers(member, network));
        found.map(|member| RecordedSubject::concept(member, settings))
    };
    let subject = largest(Network::UNet);
    // A concept's words are read by each cross-attention in their own embeddings.
    let copies = runner.base.model.attentions.len().max(1);
    for encoder in runner.base.encoders() {
        let set = largest(encoder.network).and_then(|subject| subject.of(encoder.network));
        let fused = runner.fused(encoder.network);
        let (network, updates) = fused.load(runner, &encoder.part, set.as_ref());
        let size = [copies, encoder.tokenizer.max_length()];
        let pass =
            EncoderPass::plan(&network, encoder.reading, &updates, size, 0, &[], |_| Vec::new())?;
        let (least, all) = pass.bytes(&network)?;
        match runner.room() {
            Some(room) if least > room => {
                return Err(runner.too_little("the text encoders", least));
            }
            Some(room) if all > room => {
                found.costs.push(
                    "weights of a text encoder come anew for each prompt that is encoded".into(),
                );
                found.text = found.text.max(room);
            }
            _ => found.text = found.text.max(all),
        }
    }
    let size = runner.size(settings);
    let shape = PictureShape { batch: 1, size, steps: 1, guidance: runner.guidance(settings) };
    let set = subject.as_ref().and_then(|subject| subject.of(Network::UNet));
    for (_, layout) in stages_layers.iter().filter(|(stage, _)| *stage == Stage::Spatial) {
        let (bytes, held, sums_on_host) = spatial::planned(runner, layout, set.as_ref(), shape)?;
        found.sampling = found.sampling.max(bytes);
        found.host = found.host.max(spatial::host_bytes(layout));
        found.streaming = found.streaming.or(held);
        if sums_on_host {
            found.costs.push(
                "inputs are brought to the host and added up there: slower, the same up to rounding"
                    .into(),
            );
        }
    }
    if let Some(held) = found.streaming {
        found.costs.push(format!(
            "of the UNet's weights {} MiB stay, {} MiB come anew in each sampling step in {} blocks",
            held.stays.div_ceil(1 << 20),
            held.streamed.div_ceil(1 << 20),
            held.blocks
        ));
    }
    let distils = settings.distillation.pictures > 0
        && members.len() > 1
        && distillation::refusal(runner).is_none();
    let in_unet: Vec<&StageLayers> = stages_layers
        .iter()
        .filter(|(stage, layout)| !stage.is_text() && !layout.sites.is_empty())
        .map(|(_, layout)| layout)
        .collect();
    if distils && !in_unet.is_empty() {
        let subjects = [subject, RecordedSubject::keep(settings, false)];
        for subject in subjects.into_iter().flatten() {
            let subject = subject.distilled(settings);
            let set = subject.of(Network::UNet);
            let (shape, step) = batches::of_subject(runner, &subject, set.as_ref(), settings)?;
            let bytes = found.sampled("a concept's", subject.seeds, &shape, runner, &step)?;
            found.predictions = found.predictions.max(bytes);
        }
        let all: Vec<&FusedConcept> = members.iter().collect();
        let scenes = scenes::scenes(&all, settings);
        let size_of = |scene: &&Scene| {
            let updates: usize = scene.members.iter().map(|m| numbers(m, Network::UNet)).sum();
            (scene.members.len(), updates)
        };
        let mut prompts = 1;
        if let Some(scene) = scenes.iter().max_by_key(size_of) {
            prompts += scene.members.len();
            let (shape, step) = batches::of_scene(runner, scene, &scene.sets(settings), settings)?;
            found.scenes = found.sampled("a scene's", scene.seeds, &shape, runner, &step)?;
        }
        let shape = LessonShape { concepts: members.len(), prompts, size };
        let Lessons { step, .. } = lessons(runner, settings.distillation, shape, &in_unet)?;
        let bytes = step.planned_bytes()?;
        found.distillation = bytes.total();
        if let Some(held) = bytes.streaming {
            found.costs.push(format!(
                "{} MiB of weights come anew in each pass of distillation",
                held.streamed.div_ceil(1 << 20)
            ));
        }
    }
    let parts = [found.sampling, found.predictions, found.scenes, found.distillation];
    found.peak = parts.into_iter().fold(found.text, u64::max);
    Ok(found)
}

impl PlannedFusion {
    /// Bytes of a step in which `seeds` pictures of `whose` are predicted; what it costs is told.
    fn sampled(
        &mut self,
        whose: &str,
        seeds: u64,
        shape: &PictureShape,
        runner: &Runner,
        step: &StepShape,
    ) -> Result<u64> {
        let (bytes, held, _) = spatial::planned_step(runner, &StageLayers::default(), step)?;
        let most = batches::most(seeds, shape.size);
        if shape.batch < most {
            self.costs.push(format!(
                "{whose} predictions are made of {} at a time instead of {most}",
                counted(shape.batch, "picture")
            ));
        }
        if let Some(held) = held {
            self.costs.push(format!(
                "{} MiB of weights come anew in each step of {whose} predictions",
                held.streamed.div_ceil(1 << 20)
            ));
        }
        Ok(bytes)
    }
}

/// Numbers of a concept's updates of a network.
fn numbers(member: &FusedConcept, network: Network) -> usize {
    let updates = member.updates.of(network).layers.values();
    updates.flat_map(|update| update.arrays()).map(|array| array.shape.elements()).sum()
}
