//! A fusion that its watch ends: nothing stands at the output, and the next one makes the same
//! bytes from what was recorded.

use std::ops::ControlFlow;

use mixofshow::checkpoint::Checkpoint;
use mixofshow::fusion::solve::{Lbfgs, Solver};
use mixofshow::fusion::{self, Distillation, Settings, ordinary_prompts};

use super::world::{contents, device, entry, fuse, model, names, order, settings};

#[test]
fn a_cancelled_fusion_leaves_nothing_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let all = || (0..2).map(entry).collect::<Vec<_>>();
    let settings = Settings {
        steps: 2,
        keep: ordinary_prompts().into_iter().take(2).collect(),
        distillation: Distillation { pictures: 1, ..Distillation::default() },
        ..settings(Solver::Lbfgs(Lbfgs { iterations: 6 }))
    };
    fuse(order(all(), &at("whole")), &settings).unwrap();
    let whole = contents(&at("whole"));
    let checkpoint = Checkpoint::open(model()).unwrap();
    let ends = [
        ("text", 0),
        ("cross", 0),
        ("spatial", 1),
        ("solve", 1),
        ("predict", 1),
        ("distill", 1),
        ("write", 30),
    ];
    for (stage, done) in ends {
        let mut seen = false;
        let fused =
            fusion::fuse(device(), &checkpoint, order(all(), &at("out")), &settings, &mut |at| {
                seen = at.stage == stage && at.done >= done;
                match seen {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
        assert!(matches!(fused, Err(fusion::Error::Cancelled(_))) && seen, "{stage}");
        // What was recorded waits beside the output.
        assert_eq!(names(folder.path()), ["out.fusing", "whole"], "{stage}");
        let left = names(&at("out.fusing"));
        assert!(left.iter().all(|name| !name.contains(".mos-")), "{stage}: {left:?}");
    }
    fuse(order(all(), &at("out")), &settings).unwrap();
    assert!(contents(&at("out")) == whole, "other bytes than in one go");
    assert_eq!(names(folder.path()), ["out", "whole"]);
}
