//! How far jobs are, as it changes: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use serde_json::Value;
use tokio::time::sleep;

use crate::server::replies::Reply;
use crate::server::shared::App;

/// Between two events of one client.
const LEAST: Duration = Duration::from_millis(100);
/// So that a client that is gone is noticed, and no proxy takes the silence for the end.
const ALIVE: Duration = Duration::from_secs(10);

fn event(name: &str, value: &Value) -> Result<Event, Infallible> {
    Ok(Event::default().event(name).data(value.to_string()))
}

/// Events `job` of one job, up to its end.
pub async fn of_job(
    State(shared): App,
    Extension(client): super::Asks,
    Path(id): Path<String>,
) -> Reply {
    let (job, _) = super::find(&shared, &client, &id)?;
    let watch = job.watch();
    let events = stream::unfold(Some((watch, true)), move |at| {
        let (job, shared, client) = (Arc::clone(&job), Arc::clone(&shared), client.clone());
        async move {
            let (mut watch, is_first) = at?;
            if !is_first {
                sleep(LEAST).await;
                watch.changed().await.ok()?;
            }
            let is_over = watch.borrow_and_update().state.is_over();
            let ahead = shared.queue.find(&client, job.id).and_then(|(_, ahead)| ahead);
            let next = (!is_over).then_some((watch, false));
            Some((event("job", &job.told(ahead)), next))
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

/// Events `jobs` of all jobs that are known and seen, without an end.
pub async fn of_all(State(shared): App, Extension(client): super::Asks) -> Reply {
    let watch = shared.queue.watch();
    let events = stream::unfold((watch, true), move |(mut watch, is_first)| {
        let (shared, client) = (Arc::clone(&shared), client.clone());
        async move {
            if !is_first {
                sleep(LEAST).await;
                watch.changed().await.ok()?;
            }
            watch.borrow_and_update();
            Some((event("jobs", &super::all(&shared, &client)), (watch, false)))
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}
