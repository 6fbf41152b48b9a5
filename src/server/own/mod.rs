//! The face of its own: jobs that are watched and cancelled, what there is, the folder of pictures.

mod asked;
mod events;
mod lists;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use super::client::Client;
use super::fields::Fields;
use super::job::Job;
use super::problem::Problem;
use super::replies::{Reply, file, json_of, ok};
use super::shared::{App, Shared, aside};

/// Paths and fields, for programs that make clients.
const OPENAPI: &str = include_str!("openapi.json");

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/jobs", get(jobs).post(add))
        .route("/api/jobs/{id}", get(job).delete(cancel))
        .route("/api/jobs/{id}/events", get(events::of_job))
        .route("/api/jobs/{id}/pictures/{index}", get(picture))
        .route("/api/jobs/{id}/preview", get(preview))
        .route("/api/events", get(events::of_all))
        .route("/api/server", get(lists::server))
        .route("/api/concepts", get(lists::concepts))
        .route("/api/gallery", get(lists::gallery))
        .route("/api/gallery/{name}", get(lists::gallery_file))
        .route("/api/openapi.json", get(openapi))
}

async fn openapi() -> Reply {
    Ok(file("application/json", false, OPENAPI))
}

/// Who asks, as handlers have it.
type Asks = Extension<Client>;

/// The job of that number, of those that `client` sees.
fn find(shared: &Shared, client: &Client, id: &str) -> Result<(Arc<Job>, Option<usize>), Problem> {
    let found = id.parse().ok().and_then(|id| shared.queue.find(client, id));
    found.ok_or_else(|| {
        let shown: String = id.chars().take(40).collect();
        Problem::missing(format!("there is no job {shown}, or it was over long ago"))
    })
}

/// All jobs that are known, as `client` sees them.
fn all(shared: &Shared, client: &Client) -> Value {
    let jobs = shared.queue.seen(client);
    json!({ "jobs": jobs.iter().map(|(job, ahead)| job.told(*ahead)).collect::<Vec<_>>() })
}

async fn add(State(shared): App, Extension(client): Asks, body: Body) -> Reply {
    let body = shared.body(body).await?;
    let reading = Arc::clone(&shared);
    let (work, brief) = aside(move || asked::work(&reading, Fields::parse(&body)?)).await?;
    let job = shared.queue.add(&client, work, brief, true)?;
    let ahead = shared.queue.find(&client, job.id).and_then(|(_, ahead)| ahead);
    Ok(json_of(StatusCode::ACCEPTED, job.told(ahead)))
}

async fn jobs(State(shared): App, Extension(client): Asks) -> Reply {
    ok(all(&shared, &client))
}

async fn job(State(shared): App, Extension(client): Asks, Path(id): Path<String>) -> Reply {
    let (job, ahead) = find(&shared, &client, &id)?;
    ok(job.told(ahead))
}

async fn cancel(State(shared): App, Extension(client): Asks, Path(id): Path<String>) -> Reply {
    let (job, _) = find(&shared, &client, &id)?;
    shared.queue.cancel(&job);
    ok(job.told(None))
}

async fn preview(State(shared): App, Extension(client): Asks, Path(id): Path<String>) -> Reply {
    let (job, _) = find(&shared, &client, &id)?;
    let seen = job.status().preview;
    let (_, png) = seen.ok_or_else(|| Problem::missing(format!("job {id} has no preview now")))?;
    Ok(file("image/png", false, png.to_vec()))
}

async fn picture(
    State(shared): App,
    Extension(client): Asks,
    Path((id, index)): Path<(String, String)>,
) -> Reply {
    let (job, _) = find(&shared, &client, &id)?;
    let pictures = job.status().pictures;
    let made = index.parse::<usize>().ok().and_then(|index| pictures.get(index).cloned());
    let made = made.ok_or_else(|| Problem::missing(format!("job {id} has no such picture")))?;
    Ok(file("image/png", false, made.png.clone()))
}
