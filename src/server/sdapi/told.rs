//! What clients of the web UI are told: of pictures, and of how far one is.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::pipeline::Request;
use crate::scheduler::sampler::SamplerKind;
use crate::server::job::{Job, Status};
use crate::server::order::Order;

/// What is left of an order that was done.
pub struct About {
    request: Request,
    model: String,
}

impl About {
    pub fn of(order: &Order) -> About {
        About { request: order.recipe.request.clone(), model: order.model.name.clone() }
    }
}

/// What lists of jobs tell of an order.
pub fn brief(order: &Order) -> Value {
    let request = &order.request;
    json!({
        "model": order.model.name,
        "prompt": request.prompt,
        "negative": request.negative_prompt,
        "steps": request.steps,
        "seed": request.seed,
        "batch": request.batch,
        "regions": request.regions.regions.len(),
    })
}

/// The text `info` of an answer, before it becomes one.
pub fn info(about: &About, status: &Status) -> Value {
    let About { request, model } = about;
    let pictures = &status.pictures;
    let of_each = |text: &str| vec![text.to_string(); pictures.len()];
    let seeds: Vec<u64> = pictures.iter().map(|made| made.seed).collect();
    let first = pictures.first();
    let texts: Vec<&str> = pictures.iter().map(|made| made.told.as_str()).collect();
    json!({
        "prompt": request.prompt,
        "all_prompts": of_each(&request.prompt),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": of_each(&request.negative_prompt),
        "seed": seeds.first().copied().unwrap_or(request.seed),
        "all_seeds": seeds,
        "subseed": request.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": first.map(|made| made.width),
        "height": first.map(|made| made.height),
        "sampler_name": request.sampler.map(SamplerKind::web_name),
        "cfg_scale": request.guidance,
        "steps": request.steps,
        "batch_size": pictures.len(),
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": model,
        "sd_model_hash": hash(texts.first().copied().unwrap_or_default()),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": stamp(status.started),
        "clip_skip": request.clip_skip + 1,
        "is_using_inpainting_conditioning": false,
        "version": concat!("mos ", env!("CARGO_PKG_VERSION")),
        "warnings": status.warnings,
    })
}

/// The model's hash out of a picture's settings.
fn hash(text: &str) -> Option<String> {
    crate::picture::parameters::parse(text).get("Model hash").map(str::to_string)
}

/// Theirs is the local time; it only tells jobs apart.
fn stamp(time: Option<SystemTime>) -> String {
    time.map(|time| crate::server::job::seconds(time).to_string()).unwrap_or_else(|| "0".into())
}

/// Nothing is under way.
pub fn idle(waiting: usize) -> Value {
    json!({
        "progress": 0.0,
        "eta_relative": 0.0,
        "state": state("", &[0, 0], waiting, false, "0".into()),
        "current_image": null,
        "textinfo": null,
        "current_task": null,
    })
}

fn state(
    job: &str,
    [step, steps]: &[usize; 2],
    waiting: usize,
    ends: bool,
    stamp: String,
) -> Value {
    json!({
        "skipped": false,
        "interrupted": ends,
        "stopping_generation": ends,
        "job": job,
        "job_count": waiting,
        "job_timestamp": stamp,
        "job_no": 0,
        "sampling_step": step,
        "sampling_steps": steps,
    })
}

/// How far a job is.
pub fn progress(job: &Job, status: &Status, waiting: usize, picture: Option<String>) -> Value {
    let share = match (status.stage, status.of) {
        ("sample", of) => status.done as f64 / of.max(1) as f64 * 0.98,
        ("decode", _) => 0.99,
        _ => 0.01,
    };
    let gone = status.started.and_then(|start| start.elapsed().ok()).unwrap_or_default();
    let left = gone.as_secs_f64() * (1.0 - share) / share.max(0.01);
    // The field counts steps; of a batch, parts are steps of all pictures.
    let steps = match status.stage {
        "sample" => [status.done, status.of],
        _ => [0, 0],
    };
    let name = format!("job {}", job.id);
    json!({
        "progress": share,
        "eta_relative": left,
        "state": state(&name, &steps, waiting + 1, job.is_cancelled(), stamp(status.started)),
        "current_image": picture,
        "textinfo": status.stage,
        "current_task": job.id.to_string(),
    })
}
