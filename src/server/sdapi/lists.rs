//! What there is, as clients of the web UI ask for it: models, samplers, LoRAs, options.

use axum::body::Body;
use axum::extract::State;
use serde_json::{Value, json};

use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;

use super::request::Options;
use crate::server::fields::Fields;
use crate::server::replies::{Reply, ok};
use crate::server::shared::App;
use crate::server::shelf::Listed;

/// Lists of what a web UI has and this program has not: they are empty.
pub const EMPTY: [&str; 7] = [
    "upscalers",
    "latent-upscale-modes",
    "sd-vae",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "prompt-styles",
];

pub async fn none() -> Reply {
    ok(json!([]))
}

pub async fn nothing() -> Reply {
    ok(json!({}))
}

pub async fn models(State(shared): App) -> Reply {
    let models = shared.shelf.models();
    let model = |model: &Listed| {
        json!({
            "title": model.file,
            "model_name": model.name,
            "hash": null,
            "sha256": null,
            "filename": model.file,
            "config": null,
        })
    };
    ok(models.iter().map(model).collect())
}

pub async fn samplers() -> Reply {
    let sampler = |kind: SamplerKind| {
        let aliases = [kind.name()];
        json!({ "name": kind.web_name(), "aliases": aliases, "options": {} })
    };
    ok(SamplerKind::ALL.into_iter().map(sampler).collect())
}

pub async fn schedulers() -> Reply {
    let scheduler = |name: &str, label: &str, rho: f64| {
        json!({
            "name": name,
            "label": label,
            "aliases": null,
            "default_rho": rho,
            "need_inner_model": false,
        })
    };
    let known = Schedule::ALL.into_iter().map(|schedule| {
        let rho = if schedule == Schedule::Karras { 7.0 } else { -1.0 };
        scheduler(&schedule.name().replace('-', "_"), schedule.web_name(), rho)
    });
    ok(std::iter::once(scheduler("automatic", "Automatic", -1.0)).chain(known).collect())
}

pub async fn loras(State(shared): App) -> Reply {
    let lora = |listed: &Listed| {
        let Listed { name, file, .. } = listed;
        json!({ "name": name, "alias": name, "path": file, "metadata": {} })
    };
    ok(shared.shelf.concepts().iter().map(lora).collect())
}

pub async fn embeddings() -> Reply {
    ok(json!({ "loaded": {}, "skipped": {} }))
}

pub async fn options(State(shared): App) -> Reply {
    let chosen = shared.shelf.model_or_chosen(None)?;
    ok(json!({
        "sd_model_checkpoint": chosen.file,
        "sd_checkpoint_hash": null,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "randn_source": "CPU",
        "samples_format": "png",
        "enable_pnginfo": true,
        "live_previews_enable": true,
    }))
}

/// Chooses the model for those who name none; other options hold for one request each, in its
/// `override_settings`.
pub async fn set_options(State(shared): App, body: Body) -> Reply {
    let body = shared.body(body).await?;
    let mut fields = Fields::parse(&body)?;
    let model = fields.word("sd_model_checkpoint")?;
    let mut left_out = Vec::new();
    for name in fields.names() {
        let name: String = name.chars().take(60).collect();
        left_out.push(format!("the option `{name}` is not kept: name it in `override_settings`"));
    }
    Options::read(&mut fields, &mut Vec::new())?;
    if let Some(model) = model {
        shared.shelf.choose(&shared.shelf.model(&model)?.name);
    }
    ok(match left_out.is_empty() {
        true => Value::Null,
        false => json!({ "warnings": left_out }),
    })
}
