//! What all faces share, and the way of a request to the one that it asks.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::task::{self, JoinSet};

use crate::backend::Device;

use super::error::Error;
use super::gallery::Gallery;
use super::guard::Guard;
use super::job::{Job, State as JobState, Status, Work};
use super::limits::Limits;
use super::problem::Problem;
use super::queue::{Attended, Queue};
use super::replies::Face;
use super::shelf::Shelf;
use super::{Options, concepts, openai, own, page, sdapi};

/// What all faces share.
pub struct Shared {
    pub queue: Arc<Queue>,
    pub shelf: Shelf,
    pub gallery: Option<Gallery>,
    pub limits: Limits,
    /// The device's name.
    pub device: String,
    /// Words of concepts, for those who choose.
    pub concepts: Mutex<concepts::Concepts>,
    /// The name of the model that is taken where none is named.
    chosen: Mutex<String>,
}

/// As handlers have it.
pub type App = State<Arc<Shared>>;

impl Shared {
    /// # Errors
    /// Folders that cannot be read; no model at all.
    pub fn new(device: &Device, options: &Options) -> Result<Shared, Error> {
        let shelf = Shelf::new(&options.models, &options.concepts)?;
        let chosen = shelf.models().into_iter().next().ok_or(Error::NoModel)?.name;
        Ok(Shared {
            queue: Arc::new(Queue::new(options.limits.clone())),
            shelf,
            gallery: options.out.as_deref().map(Gallery::new).transpose()?,
            limits: options.limits.clone(),
            device: device.name().to_string(),
            concepts: Mutex::default(),
            chosen: Mutex::new(chosen),
        })
    }

    /// The name of the model that is taken where none is named.
    pub fn chosen(&self) -> String {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn choose(&self, name: &str) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = name.to_string();
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
    pub async fn done(&self, work: Work, asked: Value) -> Result<(Arc<Job>, Status), Problem> {
        let job = self.queue.add(work, asked, false)?;
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

/// All faces, with the guard before them.
pub fn router(shared: Arc<Shared>, guard: Arc<Guard>) -> Router {
    Router::new()
        .merge(sdapi::routes())
        .merge(openai::routes())
        .merge(own::routes())
        .merge(page::routes())
        .with_state(shared)
        .layer(middleware::from_fn_with_state(guard, guarded))
}

/// Lets a request through, and gives every answer its last touch.
async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let face = Face::of(request.uri().path());
    let method = request.method().clone();
    let origin = request.headers().get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let allowed = origin.and_then(|origin| guard.allowed(origin)).map(str::to_string);
    let mut response = match guard.check(&method, request.uri(), request.headers()) {
        Err(problem) => face.tell(&problem),
        Ok(()) if guard.is_preflight(&method, request.headers()) => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(()) => {
            let path: String = request.uri().path().chars().take(200).collect();
            // The server goes on after a fault in a handler; which ends with its client.
            let mut handler = JoinSet::new();
            handler.spawn(next.run(request));
            match handler.join_next().await {
                Some(Ok(answer)) => told(answer, face, &method, &path),
                _ => face.tell(&Problem::own("a fault in this program ended the request")),
            }
        }
    };
    last_touch(response.headers_mut(), allowed);
    response
}

/// An answer with its problem in the form of its face.
fn told(answer: Response, face: Face, method: &Method, path: &str) -> Response {
    if let Some(problem) = answer.extensions().get::<Problem>() {
        return face.tell(problem);
    }
    let is_told = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind != TEXT);
    let status = answer.status();
    if is_told || !status.is_client_error() {
        return answer;
    }
    let words = match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take {method}"),
        _ => format!("{path}: {}", status.canonical_reason().unwrap_or("the request is wrong")),
    };
    let mut response = face.tell(&Problem::new(status, words));
    if let Some(allowed) = answer.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    response
}

/// What the routes themselves answer in.
const TEXT: &str = "text/plain; charset=utf-8";

/// Headers of every answer: pages load nothing from elsewhere and stand in no frame, and what they
/// show is read by no other.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; \
            frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

fn last_touch(headers: &mut HeaderMap, allowed: Option<String>) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    let Some(origin) = allowed.and_then(|origin| HeaderValue::from_str(&origin).ok()) else {
        headers.insert(policy, HeaderValue::from_static("same-origin"));
        return;
    };
    headers.insert(policy, HeaderValue::from_static("cross-origin"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let methods = HeaderValue::from_static("GET, POST, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let taken = HeaderValue::from_static("authorization, content-type");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, taken);
}
