//! The page: plain HTML, CSS and modules, as they lie in `page/`.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::replies::{Reply, file};
use super::shared::Shared;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Path, type, contents.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/style.css", CSS, include_str!("page/style.css")),
    ("/page/icon.svg", ICON, include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/regions.js", SCRIPT, include_str!("page/regions.js")),
    ("/page/shapes.js", SCRIPT, include_str!("page/shapes.js")),
    ("/page/learn.js", SCRIPT, include_str!("page/learn.js")),
    ("/page/queue.js", SCRIPT, include_str!("page/queue.js")),
    ("/page/gallery.js", SCRIPT, include_str!("page/gallery.js")),
];

pub fn routes() -> Router<Arc<Shared>> {
    let route = |routes: Router<Arc<Shared>>, (path, kind, text): (&'static str, _, _)| {
        routes.route(path, get(move || async move { Reply::Ok(file(kind, false, text)) }))
    };
    FILES.into_iter().fold(Router::new(), route)
}
