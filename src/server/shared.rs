//! What all faces share.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::task;

use crate::backend::Device;

use super::Options;
use super::client::Client;
use super::concepts::Concepts;
use super::error::Error;
use super::gallery::Gallery;
use super::job::{Job, State as JobState, Status, Work};
use super::limits::Limits;
use super::problem::Problem;
use super::queue::{Attended, Queue};
use super::shelf::Shelf;

/// What all faces share.
pub struct Shared {
    pub queue: Arc<Queue>,
    pub shelf: Shelf,
    pub gallery: Option<Gallery>,
    pub limits: Limits,
    /// The device's name.
    pub device: String,
    /// Words of concepts, for those who choose.
    pub concepts: Mutex<Concepts>,
}

/// As handlers have it.
pub type App = State<Arc<Shared>>;

impl Shared {
    /// # Errors
    /// Folders that cannot be read; no model at all.
    pub fn new(device: &Device, options: &Options) -> Result<Shared, Error> {
        let shelf = Shelf::new(&options.models, &options.concepts, &options.pictures)?;
        Ok(Shared {
            queue: Arc::new(Queue::new(options.limits.clone())),
            shelf,
            gallery: options.out.as_deref().map(Gallery::new).transpose()?,
            limits: options.limits.clone(),
            device: device.name().to_string(),
            concepts: Mutex::default(),
        })
    }

    /// The body of a request, of a size that is taken, if it comes in time.
    pub async fn body(&self, body: Body) -> Result<Bytes, Problem> {
        let read = axum::body::to_bytes(body, self.limits.body);
        match tokio::time::timeout(self.limits.sending, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(self.unread(&error)),
            Err(_) => {
                let words = format!(
                    "the request's body did not come within {} s",
                    self.limits.sending.as_secs_f64()
                );
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, words))
            }
        }
    }

    /// Why a body could not be read.
    fn unread(&self, error: &dyn std::error::Error) -> Problem {
        let mut cause = Some(error);
        while let Some(error) = cause {
            // What `to_bytes` says where a body is too long.
            if error.to_string().contains("length limit") {
                let words = format!("the request's body has more than {} bytes", self.limits.body);
                return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, words);
            }
            cause = error.source();
        }
        Problem::new(StatusCode::BAD_REQUEST, "the request's body ends too early")
    }

    /// Adds a job and waits for it; it ends with its client.
    pub async fn done(
        &self,
        client: &Client,
        work: Work,
        asked: Value,
    ) -> Result<(Arc<Job>, Status), Problem> {
        let job = self.queue.add(client, work, asked, false)?;
        let _attended = Attended::new(Arc::clone(&self.queue), Arc::clone(&job));
        let mut watch = job.watch();
        let over = watch.wait_for(|status| status.state.is_over()).await;
        let status = over.map(|status| status.clone());
        let status = status.map_err(|_| Problem::own("the job is gone"))?;
        match (&status.problem, status.state) {
            (Some(problem), JobState::Failed) => Err(problem.clone()),
            (Some(problem), _) if status.pictures.is_empty() => Err(problem.clone()),
            _ => Ok((job, status)),
        }
    }
}

/// What takes a while and waits for nobody, such as reading pictures, beside the threads that
/// serve.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Problem::own("a fault in this program ended the request")),
    }
}
