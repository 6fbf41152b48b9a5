//! The face of AUTOMATIC1111's web UI: its paths, fields and answers, for the clients that it has.
//!
//! What is asked for and not here (scripts, hires fix, restored faces ...) is refused, rather than
//! another picture made.

mod lists;
mod request;
mod told;

pub use told::brief;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use crate::picture::parameters;

use super::client::Client;
use super::fields::Fields;
use super::given::{Given, base64};
use super::job::{Status, Work};
use super::problem::Problem;
use super::replies::{Reply, ok};
use super::shared::{App, Shared, aside};
use request::{Asked, Kind};

pub fn routes() -> Router<Arc<Shared>> {
    let mut routes = Router::new()
        .route("/sdapi/v1/txt2img", post(text_to_picture))
        .route("/sdapi/v1/img2img", post(picture_to_picture))
        .route("/sdapi/v1/png-info", post(picture_info))
        .route("/sdapi/v1/progress", get(progress))
        .route("/sdapi/v1/interrupt", post(interrupt))
        .route("/sdapi/v1/skip", post(interrupt))
        .route("/sdapi/v1/options", get(lists::options).post(lists::set_options))
        .route("/sdapi/v1/sd-models", get(lists::models))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/loras", get(lists::loras))
        .route("/sdapi/v1/embeddings", get(lists::embeddings))
        .route("/internal/ping", get(lists::nothing));
    // What a web UI has and this program has not.
    for name in lists::EMPTY {
        routes = routes.route(&format!("/sdapi/v1/{name}"), get(lists::none));
    }
    // Folders are read whenever somebody asks.
    for name in ["refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"] {
        routes = routes.route(&format!("/sdapi/v1/{name}"), post(lists::nothing));
    }
    routes
}

async fn text_to_picture(
    State(shared): App,
    Extension(client): Extension<Client>,
    body: Body,
) -> Reply {
    generated(shared, client, body, Kind::Text).await
}

async fn picture_to_picture(
    State(shared): App,
    Extension(client): Extension<Client>,
    body: Body,
) -> Reply {
    generated(shared, client, body, Kind::Picture).await
}

async fn generated(shared: Arc<Shared>, client: Client, body: Body, kind: Kind) -> Reply {
    let body = shared.body(body).await?;
    let reading = Arc::clone(&shared);
    let asked = aside(move || Asked::read(&reading, Fields::parse(&body)?, kind)).await?;
    let Asked { order, left_out, echo, sends, .. } = asked;
    let brief = told::brief(&order);
    let about = told::About::of(&order);
    let (_, mut status) = shared.done(&client, Work::Generate(Box::new(order)), brief).await?;
    status.warnings.splice(0..0, left_out);
    let answer = aside(move || {
        let pictures = status.pictures.iter().filter(|_| sends);
        let pictures: Vec<String> = pictures.map(|made| base64(&made.png)).collect();
        let info = told::info(&about, &status).to_string();
        Ok(json!({ "images": pictures, "parameters": echo, "info": info }))
    });
    ok(answer.await?)
}

/// `?skip_current_image=true` leaves the picture out.
#[derive(serde::Deserialize)]
struct Wish {
    #[serde(default)]
    skip_current_image: Option<String>,
}

/// How far the job under way is, with its preview, else its last picture that is done.
async fn progress(
    State(shared): App,
    Extension(client): Extension<Client>,
    Query(wish): Query<Wish>,
) -> Reply {
    let waiting = shared.queue.waiting();
    let Some(job) = shared.queue.running(&client) else { return ok(told::idle(waiting)) };
    let status: Status = job.status();
    let skips = wish.skip_current_image.is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let seen = status.preview.as_ref().map(|(_, png)| base64(png));
    let last = || status.pictures.last().map(|made| base64(&made.png));
    let picture = if skips { None } else { seen.or_else(last) };
    ok(told::progress(&job, &status, waiting, picture))
}

async fn interrupt(State(shared): App, Extension(client): Extension<Client>) -> Reply {
    if let Some(job) = shared.queue.running(&client) {
        shared.queue.cancel(&job);
    }
    ok(json!({}))
}

/// The settings in a picture.
async fn picture_info(State(shared): App, body: Body) -> Reply {
    let body = shared.body(body).await?;
    let limits = shared.limits.clone();
    let found = aside(move || {
        let mut fields = Fields::parse(&body)?;
        let image = fields.text("image")?;
        let image =
            image.ok_or_else(|| Problem::value("image", "missing", "a picture in base64"))?;
        Ok(parameters::from_bytes(
            "image",
            Given::of_base64("image", &image, &limits)?.into_bytes(),
        )?)
    });
    let Some(found) = found.await? else {
        return ok(json!({ "info": "", "items": {}, "parameters": {} }));
    };
    let text = parameters::format(&found);
    let mut items = Map::from_iter([("parameters".to_string(), Value::from(text.clone()))]);
    items.extend(found.mos.as_ref().map(|own| ("mos".to_string(), own.to_string().into())));
    let mut pairs = Map::new();
    pairs.insert("Prompt".into(), found.prompt.into());
    pairs.insert("Negative prompt".into(), found.negative_prompt.into());
    pairs.extend(found.settings.into_iter().map(|(name, value)| (name, value.into())));
    ok(json!({ "info": text, "items": items, "parameters": pairs }))
}
