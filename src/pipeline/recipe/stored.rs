//! This program's own settings: the JSON under the keyword `mos`.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConceptSource, ControlSource, Recipe, Source};
use crate::backend::{Precision, ReplacedKernel, Rounding};
use crate::pipeline::{Hires, Request, Upscaler};
use crate::region::Layout;
use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;
use crate::text::prompt::{PromptOptions, Syntax};

/// Keys are a promise to files that exist: new ones may come, none changes its meaning. What is
/// missing has the default of [`Request`].
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Stored {
    version: String,
    prompt: String,
    negative_prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Layout>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    region_masks: Vec<Source>,
    width: Option<usize>,
    height: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_size: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crop: Option<(usize, usize)>,
    steps: Option<usize>,
    guidance: Option<f32>,
    sampler: Option<String>,
    karras: bool,
    /// Any schedule but Karras's.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    /// DDIM's; 0 says nothing of others'.
    eta: f64,
    /// Any sampler's, where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh_noise: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_rescale: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_interval: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compose: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hires: Option<StoredHires>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vae: Option<Source>,
    seed: u64,
    rng: Option<String>,
    clip_skip: usize,
    prompt_syntax: Option<String>,
    long_prompt: bool,
    comma_backtrack: Option<usize>,
    precision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<usize>,
    model: Model,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    concepts: Vec<ConceptSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latents: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latents_index: Option<usize>,
    /// For people: the picture's place in its batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Batch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounding: Option<Rounding>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    controls: Vec<ControlSource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<ReplacedKernel>,
}

#[derive(Serialize, Deserialize)]
struct StoredHires {
    scale: f64,
    /// Its name, where it comes from no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upscaler: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Source>,
    strength: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Model {
    name: Option<String>,
    hash: Option<String>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Batch {
    index: usize,
    of: usize,
}

const SYNTAXES: [(&str, Syntax); 3] =
    [("auto", Syntax::Auto), ("on", Syntax::On), ("off", Syntax::Off)];

pub(super) fn write(recipe: &Recipe, index: usize, of: usize) -> Value {
    let Request { prompt_options, .. } = &recipe.request;
    let request = &recipe.request;
    let default = Request::default();
    let syntax = SYNTAXES.iter().find(|(_, syntax)| *syntax == prompt_options.syntax);
    let stored = Stored {
        version: env!("CARGO_PKG_VERSION").to_string(),
        prompt: request.prompt.clone(),
        negative_prompt: request.negative_prompt.clone(),
        regions: (!request.regions.regions.is_empty()).then(|| request.regions.clone()),
        region_masks: recipe.region_masks.clone(),
        width: request.width,
        height: request.height,
        original_size: request.original_size,
        crop: request.crop,
        steps: Some(request.steps),
        guidance: Some(request.guidance),
        sampler: request.sampler.map(|s| s.to_string()),
        karras: request.schedule == Some(Schedule::Karras),
        schedule: request
            .schedule
            .filter(|schedule| *schedule != Schedule::Karras)
            .map(|schedule| schedule.to_string()),
        eta: request.eta.filter(|_| request.sampler == Some(SamplerKind::DDIM)).unwrap_or(0.0),
        fresh_noise: request.eta.filter(|_| request.sampler != Some(SamplerKind::DDIM)),
        guidance_rescale: Some(request.guidance_rescale).filter(|share| *share != 0.0),
        guidance_interval: Some(request.guidance_interval).filter(|part| *part != [0.0, 1.0]),
        cache: Some(request.cache).filter(|steps| *steps != 1),
        compose: (request.compose != default.compose).then(|| request.compose.to_string()),
        place: (request.place != default.place).then(|| request.place.to_string()),
        hires: request.hires.as_ref().map(|hires| StoredHires {
            scale: hires.scale,
            upscaler: hires
                .upscaler
                .name()
                .filter(|_| recipe.upscaler.is_none())
                .map(str::to_string),
            file: recipe.upscaler.clone(),
            strength: hires.strength,
            steps: hires.steps,
        }),
        vae: recipe.vae.clone(),
        seed: request.seed,
        rng: Some(request.rng.to_string()),
        clip_skip: request.clip_skip,
        prompt_syntax: syntax.map(|(name, _)| name.to_string()),
        long_prompt: prompt_options.long_prompt,
        comma_backtrack: Some(prompt_options.comma_backtrack),
        precision: Some(recipe.precision.to_string()),
        tile: request.tile,
        model: Model { name: recipe.model.clone(), hash: recipe.model_hash.clone() },
        concepts: recipe.concepts.clone(),
        image: recipe.image.clone(),
        strength: recipe.image.as_ref().map(|_| request.strength),
        mask: recipe.mask.clone(),
        latents: recipe.latents.clone(),
        latents_index: recipe.latents.as_ref().map(|_| recipe.latents_index),
        batch: (of > 1).then_some(Batch { index, of }),
        adapter: recipe.adapter.clone(),
        rounding: recipe.rounding,
        controls: recipe.controls.clone(),
        kernels: recipe.kernels.clone(),
    };
    // By way of text: there an f32 has its own digits, not those of the f64 that is nearest.
    let text = serde_json::to_string(&stored).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

pub(super) fn read(value: &Value) -> Result<Recipe, String> {
    let text = value.to_string();
    let stored: Stored = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let default = Request::default();
    let syntax = match &stored.prompt_syntax {
        Some(wanted) => match SYNTAXES.iter().find(|(name, _)| name == wanted) {
            Some((_, syntax)) => *syntax,
            None => return Err(format!("unknown prompt syntax `{wanted}`")),
        },
        None => Syntax::default(),
    };
    let usual = PromptOptions::default();
    let request = Request {
        prompt: stored.prompt,
        negative_prompt: stored.negative_prompt,
        regions: stored.regions.unwrap_or_default(),
        width: stored.width,
        height: stored.height,
        original_size: stored.original_size,
        crop: stored.crop,
        steps: stored.steps.unwrap_or(default.steps),
        guidance: stored.guidance.unwrap_or(default.guidance),
        sampler: parsed(stored.sampler)?,
        schedule: parsed(stored.schedule)?.or(stored.karras.then_some(Schedule::Karras)),
        eta: stored.fresh_noise.or((stored.eta != 0.0).then_some(stored.eta)),
        guidance_rescale: stored.guidance_rescale.unwrap_or(default.guidance_rescale),
        guidance_interval: stored.guidance_interval.unwrap_or(default.guidance_interval),
        cache: stored.cache.unwrap_or(default.cache),
        compose: parsed(stored.compose)?.unwrap_or_default(),
        place: parsed(stored.place)?.unwrap_or_default(),
        hires: stored.hires.as_ref().map(hires).transpose()?,
        seed: stored.seed,
        rng: parsed(stored.rng)?.unwrap_or_default(),
        clip_skip: stored.clip_skip,
        prompt_options: PromptOptions {
            syntax,
            long_prompt: stored.long_prompt,
            comma_backtrack: stored.comma_backtrack.unwrap_or(usual.comma_backtrack),
        },
        strength: stored.strength.unwrap_or(default.strength),
        tile: stored.tile,
        ..default
    };
    Ok(Recipe {
        request,
        model: stored.model.name,
        model_hash: stored.model.hash,
        precision: parsed::<Precision>(stored.precision)?.unwrap_or_default(),
        concepts: stored.concepts,
        image: stored.image,
        mask: stored.mask,
        latents: stored.latents,
        vae: stored.vae,
        upscaler: stored.hires.and_then(|hires| hires.file),
        latents_index: stored.latents_index.unwrap_or(0),
        seed_is_open: false,
        batch: stored.batch.map(|batch| (batch.index, batch.of)),
        adapter: stored.adapter,
        rounding: stored.rounding,
        controls: stored.controls,
        kernels: stored.kernels,
        region_masks: stored.region_masks,
    })
}

/// The second pass; the network of a file is opened by those who make the picture.
fn hires(stored: &StoredHires) -> Result<Hires, String> {
    let upscaler = match &stored.upscaler {
        Some(name) => Upscaler::named(name).ok_or(format!("unknown upscaler `{name}`"))?,
        None => Upscaler::default(),
    };
    Ok(Hires { scale: stored.scale, upscaler, strength: stored.strength, steps: stored.steps })
}

fn parsed<T: std::str::FromStr<Err: ToString>>(text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| text.parse()).transpose().map_err(|e: T::Err| e.to_string())
}
