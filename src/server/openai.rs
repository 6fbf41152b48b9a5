//! The face of OpenAI's API for pictures: `/v1/images/generations`, `/v1/images/edits`, and the
//! models. Besides its fields it takes `negative_prompt`, `seed`, `steps` and `guidance`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, Multipart, Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::Request as PictureRequest;

use super::client::Client;
use super::fields::{Fields, random_seed};
use super::given::{Given, base64};
use super::job::{Made, Work, seconds};
use super::order::Order;
use super::problem::Problem;
use super::replies::{Reply, ok};
use super::sdapi;
use super::shared::{App, Shared, aside};
use super::shelf::Listed;

/// The most pictures of a request, as there.
const MOST: usize = 10;
/// Fields that say nothing about the picture here.
const HARMLESS: [&str; 9] = [
    "user",
    "quality",
    "style",
    "moderation",
    "background",
    "output_compression",
    "partial_images",
    "input_fidelity",
    "stream",
];

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/images/generations", post(generate))
        .route("/v1/images/edits", post(edit))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
}

/// What is asked for in both calls.
struct Asked {
    order: Order,
    /// Width and height, where they are told back.
    size: Option<String>,
}

fn size(text: &str) -> Result<Option<(usize, usize)>, Problem> {
    if text == "auto" {
        return Ok(None);
    }
    let pair = text.split_once('x').and_then(|(width, height)| {
        Some((width.trim().parse().ok()?, height.trim().parse().ok()?))
    });
    match pair {
        Some(size) => Ok(Some(size)),
        None => {
            let shown: String = text.chars().take(60).collect();
            Err(Problem::value(
                "size",
                format!("`{shown}`"),
                "WIDTHxHEIGHT, such as 512x512, or auto",
            ))
        }
    }
}

/// Reads what both calls have in common.
fn asked(shared: &Shared, fields: &mut Fields) -> Result<Asked, Problem> {
    let model = shared.shelf.model_or_chosen(fields.word("model")?)?;
    let prompt = fields.text("prompt")?;
    let prompt = prompt.ok_or_else(|| Problem::value("prompt", "missing", "what is to be seen"))?;
    let batch = fields.count("n")?.unwrap_or(1);
    if !(1..=MOST).contains(&batch) {
        return Err(Problem::value("n", batch, "1 to 10"));
    }
    let told = fields.word("size")?;
    let sides = told.as_deref().map(size).transpose()?.flatten();
    for (name, taken) in [("response_format", "b64_json"), ("output_format", "png")] {
        if let Some(other) = fields.word(name)?.filter(|given| given != taken) {
            let shown: String = other.chars().take(60).collect();
            return Err(Problem::value(name, format!("`{shown}`"), taken));
        }
    }
    if fields.flag("stream")? == Some(true) {
        return Err(Problem::value("stream", true, "false: pictures come when they are done"));
    }
    let background = fields.word("background")?;
    if background.is_some_and(|background| background == "transparent") {
        return Err(Problem::value("background", "`transparent`", "auto or opaque"));
    }
    let usual = PictureRequest::default();
    let guidance = fields.single("guidance")?;
    let request = PictureRequest {
        prompt,
        negative_prompt: fields.text("negative_prompt")?.unwrap_or_default(),
        width: sides.map(|(width, _)| width),
        height: sides.map(|(_, height)| height),
        steps: fields.count("steps")?.unwrap_or(usual.steps),
        guidance: guidance.unwrap_or(usual.guidance),
        seed: fields.seed("seed")?.unwrap_or_else(random_seed),
        batch,
        ..usual
    };
    let mut order = Order::new(model, request, &shared.limits)?;
    order.leaves_guidance_open = guidance.is_none();
    Ok(Asked { order, size: told.filter(|_| sides.is_some()) })
}

/// An error where there is a field that is not known.
fn check_rest(mut fields: Fields) -> Result<(), Problem> {
    HARMLESS.iter().for_each(|name| drop(fields.value(name)));
    fields.none_left("the request")
}

async fn generate(State(shared): App, Extension(client): Extension<Client>, body: Body) -> Reply {
    let body = shared.body(body).await?;
    let reading = Arc::clone(&shared);
    let asked = aside(move || {
        let mut fields = Fields::parse(&body)?;
        let asked = asked(&reading, &mut fields)?;
        check_rest(fields)?;
        Ok(asked)
    });
    answer(shared, client, asked.await?).await
}

/// Makes what was asked for, and tells as theirs does.
async fn answer(shared: Arc<Shared>, client: Client, asked: Asked) -> Reply {
    let brief = sdapi::brief(&asked.order);
    let (job, status) = shared.done(&client, Work::Generate(Box::new(asked.order)), brief).await?;
    let answer = aside(move || {
        let picture = |made: &Arc<Made>| {
            let file = base64(&made.png);
            json!({ "b64_json": file, "seed": made.seed })
        };
        Ok(json!({
            "created": seconds(job.created) as u64,
            "data": status.pictures.iter().map(picture).collect::<Vec<Value>>(),
            "output_format": "png",
            "size": asked.size,
            "warnings": status.warnings,
        }))
    });
    ok(answer.await?)
}

/// The parts of a form: texts as fields, and the files.
#[derive(Default)]
struct Form {
    fields: serde_json::Map<String, Value>,
    images: Vec<Vec<u8>>,
    mask: Option<Vec<u8>>,
}

async fn form(request: Request) -> Result<Form, Problem> {
    let broken = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("not a form of parts: {error}"))
    };
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| broken(&error))?;
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(|error| broken(&error))? {
        let name = part.name().unwrap_or_default().to_string();
        let bytes = part.bytes().await.map_err(|error| broken(&error))?;
        match name.as_str() {
            "image" | "image[]" => form.images.push(bytes.into()),
            "mask" => form.mask = Some(bytes.into()),
            _ => {
                let text = String::from_utf8(bytes.into())
                    .map_err(|_| Problem::value(&name, "a file", "a text"))?;
                form.fields.insert(name, text.into());
            }
        }
    }
    Ok(form)
}

/// Changes a picture: where the mask is transparent, else where the picture is, else all over.
async fn edit(State(shared): App, Extension(client): Extension<Client>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let body = shared.body(body).await?;
    let form = form(Request::from_parts(parts, Body::from(body))).await?;
    let reading = Arc::clone(&shared);
    let asked = aside(move || {
        let Form { fields, images, mask } = form;
        let mut fields = Fields::of("the form", fields.into())?;
        let mut asked = asked(&reading, &mut fields)?;
        let strength = fields.number("strength")?;
        check_rest(fields)?;
        let limits = &reading.limits;
        let count = images.len();
        let Ok([image]) = <[Vec<u8>; 1]>::try_from(images) else {
            return Err(Problem::value("image", format!("{count} files"), "one picture's file"));
        };
        let image = Given::of_bytes("image", image, limits)?;
        let order = &mut asked.order;
        order.set_image(&image, limits)?;
        match mask {
            Some(mask) => {
                let given = Given::of_bytes("mask", mask, limits)?;
                let Some(mask) = given.transparency()? else {
                    let found = "a picture without transparency";
                    let expected = "one that is transparent where the picture is to change";
                    return Err(Problem::value("mask", found, expected));
                };
                order.set_made_mask(&mask, "mask")?;
            }
            None => {
                // A picture that is opaque all over changes everywhere.
                let mask = image.transparency()?;
                let is_seen_through = |v: &f32| *v >= 0.5;
                if let Some(mask) = mask.filter(|mask| mask.values().iter().any(is_seen_through)) {
                    order.set_made_mask(&mask, "mask")?;
                }
            }
        }
        if let Some(strength) = strength {
            (order.request.strength, order.recipe.request.strength) = (strength, strength);
        }
        Ok(asked)
    });
    answer(shared, client, asked.await?).await
}

fn model_of(listed: &Listed) -> Value {
    let made = listed.path.as_ref().and_then(|path| path.metadata().ok()?.modified().ok());
    let made = seconds(made.unwrap_or(SystemTime::UNIX_EPOCH)) as u64;
    json!({ "id": listed.name, "object": "model", "created": made, "owned_by": "mos" })
}

async fn models(State(shared): App) -> Reply {
    let models: Vec<Value> = shared.shelf.models().iter().map(model_of).collect();
    ok(json!({ "object": "list", "data": models }))
}

async fn model(State(shared): App, Path(name): Path<String>) -> Reply {
    ok(model_of(&shared.shelf.model(&name)?))
}
