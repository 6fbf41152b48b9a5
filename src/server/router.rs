//! The way of a request: past the guard to the face that it asks, and its answer back.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinSet;

use super::guard::Guard;
use super::problem::Problem;
use super::replies::Face;
use super::shared::Shared;
use super::{openai, own, page, sdapi};

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
async fn guarded(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let face = Face::of(request.uri().path());
    let method = request.method().clone();
    let origin = request.headers().get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let allowed = origin.and_then(|origin| guard.allowed(origin)).map(str::to_string);
    let mut response = match guard.check(&method, request.uri(), request.headers()) {
        Err(problem) => face.tell(&problem),
        Ok(_) if guard.is_preflight(&method, request.headers()) => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(client) => {
            request.extensions_mut().insert(client);
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
