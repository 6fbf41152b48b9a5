//! What gives where a run is to stay within some memory of the device: activations are computed
//! again, batches are taken in parts, frozen weights come and go.

use super::config::Settings;
use super::error::{Error, Result};
use super::step::{Models, PlannedBytes, PriorLoss, StepConfig, TrainingStep};
use crate::backend::Device;
use crate::pipeline::{Pipeline, Request};

/// Devices round what they are asked for, and drivers have their own; of kernels' numbers there are
/// some kilobytes.
const ROUNDING: u64 = 4 << 20;
/// Pixels a side of the tiles that pictures are encoded in, where they are.
const TILES: [usize; 3] = [512, 256, 128];

/// A step as it fits.
pub(super) struct Fitted {
    pub config: StepConfig,
    pub step: TrainingStep,
    /// Parts of each batch.
    pub split: usize,
    /// Of the tiles in which pictures are encoded.
    pub tile: Option<usize>,
    pub planned: Planned,
}

/// What a run takes of the device's memory, and what that costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// Of a step.
    pub step: PlannedBytes,
    /// What encodes pictures, beside it.
    pub encoding: u64,
    /// At most while class pictures or sheets are made; 0 where there are none.
    pub pictures: u64,
    /// The most at once.
    pub peak: u64,
    /// Pictures that a step takes at once, those of the class too.
    pub at_once: usize,
    /// Passes of an update.
    pub passes: usize,
    /// Activations are computed again.
    pub checkpointing: bool,
    /// What staying within the budget costs, in sentences.
    pub costs: Vec<String>,
}

/// What encoding takes, in as large tiles as are within `most` bytes where there is one that is.
fn encoding(
    pipeline: &Pipeline,
    size: [usize; 2],
    most: Option<u64>,
) -> Result<(u64, Option<usize>)> {
    let whole = pipeline.encoding_bytes(size, None)?;
    let Some(most) = most else { return Ok((whole, None)) };
    let mut found = (whole, None);
    for tile in TILES {
        if found.0 > most {
            found = (pipeline.encoding_bytes(size, Some(tile))?, Some(tile));
        }
    }
    Ok(found)
}

/// Sets a step up within the settings' memory.
///
/// # Errors
/// [`Error::Unfit`] where that is too little, with what would do.
pub(super) fn fit(
    settings: &Settings,
    models: &Models,
    config: &StepConfig,
    pipeline: &Pipeline,
    gpu: &Device,
    size: [usize; 2],
) -> Result<Fitted> {
    let Some(memory) = settings.memory else {
        let step = TrainingStep::new(models, config, gpu)?;
        let (encoding, tile) = encoding(pipeline, size, None)?;
        let (config, bytes) = (config.clone(), step.planned_bytes()?);
        let pictures = pictures(settings, pipeline, size)?;
        return Ok(Fitted::of(config, step, bytes, 1, tile, [encoding, pictures, 0]));
    };
    let (encoding, tile) = encoding(pipeline, size, Some(memory / 8))?;
    let beside = encoding + ROUNDING;
    let room = memory.saturating_sub(beside);
    let mut tried: Vec<(usize, bool, bool)> = vec![(1, config.checkpointing, false)];
    tried.extend((!config.checkpointing).then_some((1, true, false)));
    let parts = (2..=settings.batch).filter(|parts| settings.batch.is_multiple_of(*parts));
    tried.extend(parts.map(|parts| (parts, true, false)));
    tried.push((settings.batch, true, true));
    let mut least = u64::MAX;
    for (split, checkpointing, streams) in tried {
        let config = StepConfig {
            batch: config.batch / split,
            accumulate: config.accumulate * split,
            prior_loss: config
                .prior_loss
                .map(|prior| PriorLoss { pictures: prior.pictures / split, ..prior }),
            checkpointing,
            ..config.clone()
        };
        let mut step = TrainingStep::new(models, &config, gpu)?;
        if streams {
            step.keep_within(room)?;
        }
        let bytes = step.planned_bytes()?;
        if bytes.total() <= room {
            let pictures = pictures(settings, pipeline, size)?;
            let mut fitted =
                Fitted::of(config, step, bytes, split, tile, [encoding, pictures, ROUNDING]);
            fitted.tell_costs(settings)?;
            return Ok(fitted);
        }
        if streams {
            step.keep_within(0)?;
        }
        least = least.min(step.planned_bytes()?.total());
    }
    Err(Error::Unfit(vec![format!(
        "memory is {} MiB: expected {} MiB at least for this run; smaller pictures (size), or weights \
            of fewer bits (precision), take less",
        memory >> 20,
        (least + beside).div_ceil(1 << 20)
    )]))
}

/// The most that class pictures and sheets take, each with the step given up meanwhile.
///
/// # Errors
/// A budget in which they cannot be made.
fn pictures(settings: &Settings, pipeline: &Pipeline, size: [usize; 2]) -> Result<u64> {
    let sheets = settings.sheet_every > 0 && !settings.prompts.is_empty();
    if !sheets && settings.prior_pictures == 0 {
        return Ok(0);
    }
    let request = Request {
        prompt: "picture".into(),
        width: Some(size[0]),
        height: Some(size[1]),
        memory: settings.memory,
        ..Request::default()
    };
    Ok(pipeline.prepare(&request)?.memory().peak)
}

impl Fitted {
    fn of(
        config: StepConfig,
        step: TrainingStep,
        bytes: PlannedBytes,
        split: usize,
        tile: Option<usize>,
        [encoding, pictures, rounding]: [u64; 3],
    ) -> Fitted {
        let planned = Planned {
            step: bytes,
            encoding,
            pictures,
            peak: (bytes.total() + encoding + rounding).max(pictures),
            at_once: config.batch,
            passes: config.accumulate,
            checkpointing: config.checkpointing,
            costs: Vec::new(),
        };
        Fitted { config, step, split, tile, planned }
    }

    fn tell_costs(&mut self, settings: &Settings) -> Result<()> {
        let costs = &mut self.planned.costs;
        if self.config.checkpointing && !settings.checkpointing {
            costs.push(
                "activations are computed again instead of kept: about a third more time".into(),
            );
        }
        if self.split > 1 {
            let differs = match self.config.attention_loss.is_some()
                || settings.lora_dropout > 0.0
                || settings.rank_dropout > 0.0
            {
                true => {
                    "attention regularisation and dropout look at one part at a time, so that what \
                     is learnt differs a little"
                }
                false => "what is learnt is the same up to rounding",
            };
            costs.push(format!(
                "each batch of {} is taken in {} parts: {differs}",
                settings.batch, self.split
            ));
        }
        if let Some(tile) = self.tile {
            costs.push(format!("pictures are encoded in tiles of {tile}x{tile} pixels"));
        }
        if let Some(held) = self.planned.step.streaming {
            let passes = (settings.steps * self.config.accumulate) as f64;
            let all = held.streamed as f64 * passes;
            let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
            let time = match self.step.rate()? {
                Some(rate) => format!("{:.1} s at the rate of a sample", all / rate / passes),
                None => "no time that could be measured".into(),
            };
            costs.push(format!(
                "of the frozen weights {} MiB stay, {} MiB come anew in each pass in {} blocks, \
                    {time}; {}",
                mebibytes(held.stays),
                mebibytes(held.streamed),
                held.blocks,
                match held.host {
                    0 => "they are packed from the model's files each time".to_string(),
                    host => format!("main memory holds {} MiB for that", mebibytes(host)),
                }
            ));
        }
        if self.planned.pictures > 0 {
            costs.push(
                "what is trained makes way while class pictures and sheets are made, and comes back"
                    .into(),
            );
        }
        Ok(())
    }
}
