//! What goes back, in the form of the face that was asked.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::problem::Problem;

/// Whose client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// AUTOMATIC1111's web UI.
    WebUi,
    OpenAi,
    Own,
}

impl Face {
    /// By the path that was asked for.
    pub fn of(path: &str) -> Face {
        let is_under = |folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match (is_under("/sdapi"), is_under("/v1")) {
            (true, _) => Face::WebUi,
            (_, true) => Face::OpenAi,
            _ => Face::Own,
        }
    }

    /// A problem as its clients read it.
    pub fn tell(self, problem: &Problem) -> Response {
        let (mut status, words) = (problem.status, &problem.words);
        let body = match self {
            Face::WebUi => {
                let kind = status.canonical_reason().unwrap_or("Error");
                json!({ "error": kind, "detail": words, "body": "", "errors": words })
            }
            Face::OpenAi => {
                if status == StatusCode::UNPROCESSABLE_ENTITY {
                    status = StatusCode::BAD_REQUEST;
                }
                let field = problem.field.as_deref();
                let code = match status {
                    StatusCode::UNAUTHORIZED => Some("invalid_api_key"),
                    StatusCode::NOT_FOUND if field == Some("model") => Some("model_not_found"),
                    StatusCode::BAD_REQUEST => Some("invalid_value"),
                    StatusCode::SERVICE_UNAVAILABLE => Some("server_busy"),
                    _ => None,
                };
                let kind = match status.is_server_error() {
                    true => "server_error",
                    false => "invalid_request_error",
                };
                json!({ "error": { "message": words, "type": kind, "param": field, "code": code } })
            }
            Face::Own => json!({ "error": { "message": words, "field": problem.field } }),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                let realm = HeaderValue::from_static("Basic realm=\"mos\", charset=\"UTF-8\"");
                headers.insert(header::WWW_AUTHENTICATE, realm);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            // The rest of such a body is not read.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// A problem on the way to the face that tells it.
pub struct Untold(pub Problem);

impl From<Problem> for Untold {
    fn from(problem: Problem) -> Untold {
        Untold(problem)
    }
}

impl IntoResponse for Untold {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// What handlers give.
pub type Reply = Result<Response, Untold>;

/// JSON of a status.
pub fn json_of(status: StatusCode, value: Value) -> Response {
    (status, Json(value)).into_response()
}

/// JSON.
pub fn ok(value: Value) -> Reply {
    Ok(json_of(StatusCode::OK, value))
}

/// A file of that type, which a browser may keep where it never changes.
pub fn file(kind: &'static str, is_lasting: bool, bytes: impl Into<Body>) -> Response {
    let kept = if is_lasting { "private, max-age=86400, immutable" } else { "no-cache" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept)];
    (headers, bytes.into()).into_response()
}
