//! How many pictures are sampled at a time where nothing is added up: as many as fit.

use crate::concept::AppliedSet;
use crate::sd::denoiser::StepShape;

use super::Result;
use super::base::Runner;
use super::collect::RecordedSubject;
use super::groups::StageLayers;
use super::scenes::Scene;
use super::settings::Settings;
use super::spatial::{self, PictureShape};

/// Latent pixels of the pictures that are sampled together.
const PIXELS: usize = 16384;

/// The numbers that divide `seeds` and are not too many, from the largest.
fn counts(seeds: u64, [height, width]: [usize; 2]) -> impl Iterator<Item = usize> {
    let most = (PIXELS / (height * width).max(1)).max(1) as u64;
    let fits = move |batch: &u64| seeds.is_multiple_of(*batch);
    (1..=most.min(seeds.max(1))).rev().filter(fits).map(|batch| batch as usize)
}

/// As many as are sampled together where there is room.
pub(super) fn most(seeds: u64, size: [usize; 2]) -> usize {
    counts(seeds, size).next().unwrap_or(1)
}

/// One picture, sampled in so many steps.
fn one(runner: &Runner, settings: &Settings, steps: usize) -> PictureShape {
    let (size, guidance) = (runner.size(settings), runner.guidance(settings));
    PictureShape { batch: 1, size, steps, guidance }
}

/// What a subject's own model is sampled in, and a step of that.
pub(super) fn of_subject(
    runner: &Runner,
    subject: &RecordedSubject,
    set: Option<&AppliedSet>,
    settings: &Settings,
) -> Result<(PictureShape, StepShape)> {
    let shape = one(runner, settings, subject.steps);
    fitting(runner, subject.seeds, &|batch| {
        let shape = PictureShape { batch, ..shape };
        (shape, spatial::plain_shape(runner, set, shape))
    })
}

/// The same of a scene.
pub(super) fn of_scene(
    runner: &Runner,
    scene: &Scene,
    sets: &[(AppliedSet, Vec<f32>)],
    settings: &Settings,
) -> Result<(PictureShape, StepShape)> {
    let shape = one(runner, settings, scene.steps);
    fitting(runner, scene.seeds, &|batch| {
        let shape = PictureShape { batch, ..shape };
        (shape, spatial::regional_shape(runner, sets, 1 + scene.members.len(), shape))
    })
}

/// As many as fit without weights that come and go; where none do, as many as fit with them, which
/// then come the fewer times.
fn fitting(
    runner: &Runner,
    seeds: u64,
    step: &dyn Fn(usize) -> (PictureShape, StepShape),
) -> Result<(PictureShape, StepShape)> {
    let (size, mut streams, mut refused) = (step(1).0.size, None, None);
    for batch in counts(seeds, size) {
        let (shape, of) = step(batch);
        if runner.room().is_none() {
            return Ok((shape, of));
        }
        match spatial::planned_step(runner, &StageLayers::default(), &of) {
            Ok((_, None, _)) => return Ok((shape, of)),
            Ok(_) => streams = streams.or(Some((shape, of))),
            Err(error) => refused = Some(error),
        }
    }
    match (streams, refused) {
        (Some(found), _) => Ok(found),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(step(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_at_a_time_as_divide_all() {
        let found = |seeds, size| counts(seeds, size).collect::<Vec<_>>();
        assert_eq!(found(6, [16, 16]), [6, 3, 2, 1]);
        // Four of these are the most.
        assert_eq!(found(6, [64, 64]), [3, 2, 1]);
        assert_eq!(found(5, [64, 64]), [1]);
        assert_eq!(found(3, [1024, 1024]), [1]);
        assert_eq!(found(0, [16, 16]), [1]);
    }
}
