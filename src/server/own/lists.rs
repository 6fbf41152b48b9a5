//! What there is: models, concepts and their words, samplers, limits, pictures.

use std::sync::{Arc, PoisonError};

use axum::extract::{Extension, Path, Query, State};
use serde_json::{Value, json};

use crate::Request;
use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;
use crate::server::problem::Problem;
use crate::server::replies::{Reply, file, ok};
use crate::server::shared::{App, aside};

/// Pictures of one answer.
const PAGE: usize = 30;

pub async fn server(State(shared): App) -> Reply {
    let usual = Request::default();
    let models = shared.shelf.models().into_iter().map(|model| model.name);
    let samplers = SamplerKind::ALL.map(|kind| {
        let schedules = Schedule::ALL.into_iter().filter(|schedule| kind.takes(*schedule));
        let schedules: Vec<_> = schedules.map(Schedule::name).collect();
        json!({ "name": kind.name(), "title": kind.web_name(), "schedules": schedules })
    });
    let schedules =
        Schedule::ALL.map(|kind| json!({ "name": kind.name(), "title": kind.web_name() }));
    let limits = &shared.limits;
    let albums = shared.shelf.albums().into_iter().map(|album| album.name);
    let [teaches, fuses] = shared.shelf.takes();
    ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": shared.device,
        "model": shared.shelf.chosen(),
        "models": models.collect::<Vec<_>>(),
        "samplers": samplers,
        "schedules": schedules,
        "keeps": shared.gallery.is_some(),
        "albums": albums.collect::<Vec<_>>(),
        "teaches": teaches,
        "fuses": fuses,
        "usual": { "steps": usual.steps, "guidance": usual.guidance, "strength": usual.strength },
        "limits": {
            "pixels": limits.pixels,
            "steps": limits.steps,
            "batch": limits.batch,
            "updates": limits.updates,
            "body": limits.body,
            "waiting": limits.waiting,
            "regions": crate::region::MOST_REGIONS,
        },
    }))
}

/// Concepts with the words that stand for them; what cannot be read says why.
pub async fn concepts(State(shared): App) -> Reply {
    let listed = aside(move || {
        let mut read = shared.concepts.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |listed: crate::server::shelf::Listed| {
            let words = listed.path.as_deref().map(|path| read.words(path)).transpose();
            match words {
                Ok(words) => json!({ "name": listed.name, "words": words.unwrap_or_default() }),
                Err(problem) => {
                    // Not where it lies.
                    let words = problem.words.replace(&listed.given(), &listed.file);
                    json!({ "name": listed.name, "words": [], "error": words })
                }
            }
        };
        Ok(shared.shelf.concepts().into_iter().map(told).collect::<Vec<Value>>())
    });
    ok(json!({ "concepts": listed.await? }))
}

/// `?after=NAME`: those that follow.
#[derive(serde::Deserialize)]
pub struct From {
    after: Option<String>,
}

pub async fn gallery(
    State(shared): App,
    Extension(client): super::Asks,
    Query(from): Query<From>,
) -> Reply {
    let listed = aside(move || match &shared.gallery {
        Some(gallery) => gallery.of(&client)?.list(from.after.as_deref(), PAGE),
        None => Ok(json!({ "pictures": [], "count": 0, "more": false })),
    });
    ok(listed.await?)
}

pub async fn gallery_file(
    State(shared): App,
    Extension(client): super::Asks,
    Path(name): Path<String>,
) -> Reply {
    let shared = Arc::clone(&shared);
    let bytes = aside(move || match &shared.gallery {
        Some(gallery) => gallery.of(&client)?.file(&name),
        None => {
            Err(Problem::missing("pictures are not kept: `--output` of `mos serve` names a folder"))
        }
    });
    Ok(file("image/png", false, bytes.await?))
}
