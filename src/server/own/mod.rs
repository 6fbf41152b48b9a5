//! The face of its own: jobs that are watched and cancelled, what there is, the folder of pictures.

mod asked;
mod events;
mod lists;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

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

/// The job of that number.
fn find(shared: &Shared, id: &str) -> Result<(Arc<Job>, Option<usize>), Problem> {
    let found = id.parse().ok().and_then(|id| shared.queue.find(id));
    found.ok_or_else(|| {
        let shown: String = id.chars().take(40).collect();
        Problem::missing(format!("there is no job {shown}, or it was over long ago"))
    })
}

/// All jobs that are known, as clients see them.
fn all(shared: &Shared) -> Value {
    let jobs = shared.queue.all();
    json!({ "jobs": jobs.iter().map(|(job, ahead)| job.told(*ahead)).collect::<Vec<_>>() })
}

async fn add(State(shared): App, body: Body) -> Reply {
    let body = shared.body(body).await?;
    let reading = Arc::clone(&shared);
    let (work, brief) = aside(move || asked::work(&reading, Fields::parse(&body)?)).await?;
    let job = shared.queue.add(work, brief, true)?;
    let ahead = shared.queue.find(job.id).and_then(|(_, ahead)| ahead);
    Ok(json_of(StatusCode::ACCEPTED, job.told(ahead)))
}

async fn jobs(State(shared): App) -> Reply {
    ok(all(&shared))
}

async fn job(State(shared): App, Path(id): Path<String>) -> Reply {
    let (job, ahead) = find(&shared, &id)?;
    ok(job.told(ahead))
}

async fn cancel(State(shared): App, Path(id): Path<String>) -> Reply {
    let (job, _) = find(&shared, &id)?;
    shared.queue.cancel(&job);
    ok(job.told(None))
}

async fn preview(State(shared): App, Path(id): Path<String>) -> Reply {
    let (job, _) = find(&shared, &id)?;
    let seen = job.status().preview;
    let (_, png) = seen.ok_or_else(|| Problem::missing(format!("job {id} has no preview now")))?;
    Ok(file("image/png", false, png.to_vec()))
}

async fn picture(State(shared): App, Path((id, index)): Path<(String, String)>) -> Reply {
    let (job, _) = find(&shared, &id)?;
    let pictures = job.status().pictures;
    let made = index.parse::<usize>().ok().and_then(|index| pictures.get(index).cloned());
    let made = made.ok_or_else(|| Problem::missing(format!("job {id} has no such picture")))?;
    Ok(file("image/png", false, made.png.clone()))
}
