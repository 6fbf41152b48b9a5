//! The fused UNet learns what the concepts' own models predict.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use mixofshow::Watch;
use mixofshow::checkpoint::{Checkpoint, TensorFile};
use mixofshow::fusion::{
    self, ConceptToFuse, Distillation, Fused, Order, Settings, ordinary_prompts,
};

use super::world::{contents, device, entry, exact, fuse, model, names, order, settings};

/// 3 concepts and ordinary prompts, each of 2 pictures or more in 5 steps, both halves: 27 updates.
fn distilled() -> Settings {
    Settings {
        steps: 5,
        guidance: 3.0,
        keep: ordinary_prompts().into_iter().take(4).collect(),
        keep_sampled: 1,
        distillation: Distillation { pictures: 6, scenes: 0, ..Distillation::default() },
        ..settings(exact(1e-4))
    }
}

fn all() -> Vec<ConceptToFuse> {
    (0..3).map(entry).collect()
}

fn watched(order: Order, settings: &Settings, watch: &mut Watch) -> fusion::Result<Fused> {
    fusion::fuse(device(), &Checkpoint::open(model()).unwrap(), order, settings, watch)
}

#[test]
fn predictions_come_nearer_to_those_of_the_concepts_own_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let kept = |concepts, out: &str, statistics: &str| Order {
        statistics: Some(at(statistics)),
        ..order(concepts, &at(out))
    };
    let fused = fuse(kept(all(), "out", "sums"), &distilled()).unwrap();
    let report = fused.report.distillation.expect("a distillation");
    assert!(report.used, "{report:?}");
    assert_eq!(report.errors.len(), 4, "three concepts and ordinary prompts");
    for errors in &report.errors {
        assert!(errors[0] > 0.0 && errors[1].is_finite(), "{errors:?}");
    }
    let squares =
        |which: usize| report.errors.iter().map(|errors| errors[which].powi(2)).sum::<f64>();
    assert!(squares(1) < 0.8 * squares(0), "{report:?}");

    // What the layers were solved to be is the start; only layers that concepts change have moved.
    let without = Settings { distillation: Distillation::NONE, ..distilled() };
    let plain = fuse(kept(all(), "plain", "sums"), &without).unwrap();
    assert!(plain.report.distillation.is_none());
    let unet = |name: &str| {
        TensorFile::open(&at(name).join("unet/diffusion_pytorch_model.safetensors")).unwrap()
    };
    let (before, after) = (unet("plain"), unet("out"));
    let mut moved = 0;
    for name in before.names() {
        let [before, after] = [&before, &after]
            .map(|file| file.tensor(name).unwrap())
            .map(|view| view.to_f32(0..view.len()));
        let attention = name.contains(".attn") && !name.ends_with(".bias");
        assert_eq!(before != after, attention, "{name}");
        moved += usize::from(attention);
    }
    assert!(moved > 40);
    let text = |name: &str| std::fs::read(at(name).join("text_encoder/model.safetensors")).unwrap();
    assert_eq!(text("plain"), text("out"));

    // Another order, from what two machines recorded, one file of it broken: the same bytes.
    let backwards = || all().into_iter().rev().collect::<Vec<_>>();
    for (k, statistics) in [(2, "second"), (1, "first")] {
        let order =
            Order { out: None, part: Some((k, 2)), ..kept(backwards(), "none", statistics) };
        assert!(fuse(order, &distilled()).unwrap().path.is_none());
    }
    for name in names(&at("second")) {
        std::fs::copy(at("second").join(&name), at("first").join(&name)).unwrap();
    }
    let predictions: Vec<String> =
        names(&at("first")).into_iter().filter(|name| name.starts_with("predictions-")).collect();
    assert_eq!(predictions.len(), 4);
    halve(&at("first").join(&predictions[1]));
    fuse(kept(backwards(), "merged", "first"), &distilled()).unwrap();
    assert_eq!(contents(&at("merged")), contents(&at("out")));

    // Stopped in the middle, it goes on from the state that was saved last, to the same bytes.
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        watched(kept(all(), "resumed", "first"), &distilled(), &mut |at| {
            assert!(at.stage != "distill" || at.done < 22, "stopped");
            ControlFlow::Continue(())
        })
    }));
    assert!(
        stopped.is_err()
            && names(&at("first")).contains(&"distillation-state.safetensors".to_string())
    );
    let mut updates = Vec::new();
    let cancelled = watched(kept(all(), "resumed", "first"), &distilled(), &mut |at| {
        if at.stage == "distill" {
            updates.push(at.done);
        }
        match at.stage == "distill" && at.done == 23 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(cancelled, Err(fusion::Error::Cancelled(_))));
    assert_eq!(updates, [0, 20, 21, 22, 23]);
    // What was asked to end saves where it is.
    updates.clear();
    watched(kept(all(), "resumed", "first"), &distilled(), &mut |at| {
        if at.stage == "distill" {
            updates.push(at.done);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(updates[..3], [0, 23, 24]);
    assert_eq!(contents(&at("resumed")), contents(&at("out")));
    assert!(!names(&at("first")).iter().any(|name| name.contains("state")));
}

/// Three pairs and a trio are learnt beside the concepts, in one prompt too: the same bytes from two
/// machines, and after an end in the middle.
#[test]
fn scenes_are_learnt_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let kept = |concepts, out: &str, statistics: &str| Order {
        statistics: Some(at(statistics)),
        ..order(concepts, &at(out))
    };
    let distillation =
        Distillation { pictures: 2, scenes: 3, one_prompt: 1, ..Distillation::default() };
    let settings = Settings { distillation, ..distilled() };
    let fused = fuse(kept(all(), "out", "sums"), &settings).unwrap();
    let report = fused.report.distillation.clone().expect("a distillation");
    assert!(report.used && report.errors.len() == 4, "{report:?}");
    let who: Vec<usize> = report.scenes.iter().map(|scene| scene.concepts.len()).collect();
    assert_eq!(who, [2, 2, 2, 3]);
    for which in report.scenes.iter().map(|scene| scene.errors) {
        assert!(which[0] > 0.0 && which[1] < which[0], "{report:?}");
    }
    let page = fusion::markdown(&fused.report, &[]);
    assert!(page.contains("abra + brog + cyan"), "{page}");
    let predictions = |statistics: &str| {
        names(&at(statistics)).into_iter().filter(|name| name.starts_with("predictions-")).count()
    };
    assert_eq!(predictions("sums"), 8);
    // Without them it learns something else.
    let alone = Distillation { scenes: 0, ..distillation };
    let plain = Settings { distillation: alone, ..settings.clone() };
    fuse(kept(all(), "plain", "sums"), &plain).unwrap();
    assert_ne!(contents(&at("plain")), contents(&at("out")));

    let backwards = || all().into_iter().rev().collect::<Vec<_>>();
    for (k, statistics) in [(2, "second"), (1, "first")] {
        let order =
            Order { out: None, part: Some((k, 2)), ..kept(backwards(), "none", statistics) };
        fuse(order, &settings).unwrap();
    }
    assert_eq!([predictions("first"), predictions("second")], [5, 3]);
    for name in names(&at("second")) {
        std::fs::copy(at("second").join(&name), at("first").join(&name)).unwrap();
    }
    let cancelled = watched(kept(backwards(), "merged", "first"), &settings, &mut |at| {
        assert_ne!(at.stage, "predict", "all is there");
        match at.stage == "distill" && at.done == 11 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(cancelled, Err(fusion::Error::Cancelled(_))));
    fuse(kept(backwards(), "merged", "first"), &settings).unwrap();
    assert_eq!(contents(&at("merged")), contents(&at("out")));
}

/// What is recorded of scenes in regions is learnt with one prompt, too: nothing more is recorded,
/// and it comes to the same bytes after an end in the middle.
#[test]
fn scenes_are_learnt_in_one_prompt_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let kept =
        |concepts, out: &str| Order { statistics: Some(at("sums")), ..order(concepts, &at(out)) };
    let one_prompt = |one_prompt| Settings {
        distillation: Distillation {
            pictures: 2,
            scenes: 2,
            one_prompt,
            ..Distillation::default()
        },
        ..distilled()
    };
    let updates = |fused: &Fused| fused.report.distillation.as_ref().unwrap().updates;
    let plain = fuse(kept(all(), "plain"), &one_prompt(0)).unwrap();
    let recorded = || {
        let kept = names(&at("sums")).into_iter();
        kept.filter(|name| name.starts_with("predictions-")).collect::<Vec<_>>()
    };
    let before = recorded();
    let fused = fuse(kept(all(), "out"), &one_prompt(1)).unwrap();
    assert_eq!(recorded(), before);
    let report = fused.report.distillation.clone().expect("a distillation");
    assert!(report.used && report.scenes.len() == 4, "{report:?}");
    assert_eq!(report.one_prompt.len(), 4);
    for (one, regions) in report.one_prompt.iter().zip(&report.scenes) {
        assert_eq!(one.concepts, regions.concepts);
        assert!(one.errors[0] > 0.0 && one.errors[1] < one.errors[0], "{report:?}");
    }
    assert!(fusion::markdown(&fused.report, &[]).contains("abra + brog + cyan, one prompt"));
    // One of two pictures, one of two halves: a fourth of what the scenes had.
    let (steps, batch) = (distilled().steps, Distillation::default().batch);
    let more = 4 * distilled().sampled.len() * steps / batch;
    let found = updates(&fused) - updates(&plain);
    assert!((more..=more + 1).contains(&found), "{found} for {more}");
    assert_ne!(contents(&at("plain")), contents(&at("out")));
    let cancelled = watched(kept(all(), "again"), &one_prompt(1), &mut |at| {
        assert_ne!(at.stage, "predict", "all is there");
        match at.stage == "distill" && at.done == 11 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(cancelled, Err(fusion::Error::Cancelled(_))));
    fuse(kept(all(), "again"), &one_prompt(1)).unwrap();
    assert_eq!(contents(&at("again")), contents(&at("out")));
}

fn halve(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// A rate that throws the weights about: what was solved for stands, and the user is told.
#[test]
fn what_makes_nothing_better_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let wild = Distillation { pictures: 1, rate: 1.0, scenes: 1, ..Distillation::default() };
    let settings = Settings { steps: 3, distillation: wild, ..distilled() };
    let fused = fuse(order(all(), &folder.path().join("wild")), &settings).unwrap();
    assert!(fused.report.distillation.is_some_and(|report| !report.used));
    assert!(
        fused.report.notes.iter().any(|note| note.contains("distillation")),
        "{:?}",
        fused.report.notes
    );
    let without = Settings { distillation: Distillation::NONE, ..settings };
    fuse(order(all(), &folder.path().join("plain")), &without).unwrap();
    let unet = |name: &str| {
        std::fs::read(folder.path().join(name).join("unet/diffusion_pytorch_model.safetensors"))
            .unwrap()
    };
    assert_eq!(unet("wild"), unet("plain"));
}

/// One concept alone is answered by its layers already.
#[test]
fn one_concept_is_not_distilled() {
    let folder = tempfile::tempdir().unwrap();
    let fused = fuse(order(vec![entry(0)], &folder.path().join("out")), &distilled()).unwrap();
    assert!(fused.report.distillation.is_none());
}
