//! A concept is added to a model at its own cost, and taken out again without a trace.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use mixofshow::checkpoint::{Checkpoint, TensorFile};
use mixofshow::fusion::ordinary_prompts;
use mixofshow::fusion::{
    self, ConceptToFuse, Distillation, Fused, GrowthCost, Order, Previous, Settings,
};

use super::world::{contents, device, entry, exact, fuse, model, order, settings};

fn quick() -> Settings {
    Settings {
        steps: 3,
        guidance: 3.0,
        keep: ordinary_prompts().into_iter().take(4).collect(),
        keep_sampled: 1,
        distillation: Distillation {
            pictures: 3,
            scenes: 1,
            one_prompt: 1,
            ..Distillation::default()
        },
        ..settings(exact(1e-4))
    }
}

struct Library {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Library {
    fn new(settings: Settings) -> Library {
        Library { folder: tempfile::tempdir().unwrap(), settings }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn order(&self, concepts: Vec<ConceptToFuse>, out: &str) -> Order {
        Order { statistics: Some(self.at("sums")), ..order(concepts, &self.at(out)) }
    }

    fn fuse(&self, concepts: &[usize], out: &str) -> Fused {
        let concepts = concepts.iter().copied().map(entry).collect();
        fuse(self.order(concepts, out), &self.settings).unwrap()
    }

    /// From the model `to`: those of its concepts that stay, and new ones; and whose inputs and
    /// predictions were recorded for that.
    fn change(
        &self,
        to: &str,
        keeps: &dyn Fn(&str) -> bool,
        add: &[usize],
        out: &str,
    ) -> (Fused, BTreeSet<String>) {
        let previous = Previous::open(&self.at(to)).unwrap();
        let mut entries = previous.entries(&self.at("sums")).unwrap();
        entries.retain(|entry| keeps(&entry.concept.name));
        entries.extend(add.iter().copied().map(entry));
        let order =
            Order { accept_stale: true, history: previous.history, ..self.order(entries, out) };
        let mut recorded = BTreeSet::new();
        let checkpoint = Checkpoint::open(model()).unwrap();
        let fused = fusion::fuse(device(), &checkpoint, order, &self.settings, &mut |at| {
            if ["spatial", "predict"].contains(&at.stage) {
                recorded.insert(at.subject.to_string());
            }
            ControlFlow::Continue(())
        });
        (fused.unwrap(), recorded)
    }
}

fn weights(folder: &Path, name: &str) -> Vec<f32> {
    let file = TensorFile::open(&folder.join("text_encoder/model.safetensors")).unwrap();
    let view = file.tensor(name).unwrap();
    view.to_f32(0..view.len())
}

#[test]
fn one_more_costs_one_and_leaves_no_trace_when_it_goes() {
    let library = Library::new(quick());
    let all = |_: &str| true;
    library.fuse(&[0, 1], "two");
    let before = contents(&library.at("two"));
    let (grown, recorded) = library.change("two", &all, &[2], "three");
    let mine: Vec<&str> = recorded.iter().map(String::as_str).collect();
    assert!(
        mine.contains(&"cyan") && !mine.iter().any(|s| ["abra", "brog"].contains(s)),
        "{mine:?}"
    );
    assert_eq!(grown.report.history.len(), 2);
    assert_eq!(grown.report.concepts.len(), 3);
    for stage in &grown.report.stages {
        let residuals = stage.residuals();
        assert!(residuals[0].is_none() && residuals[1].is_none(), "nobody else was looked at");
        let mine = residuals[2].unwrap();
        assert!(mine.fused < 1.0 && mine.fused <= mine.averaged, "{:?} {mine:?}", stage.stage);
    }
    let notes = grown.report.notes.join("\n");
    assert!(notes.contains("learnt: cyan; beside it, of 2 others"), "{notes}");
    let scenes = grown.report.distillation.as_ref().unwrap().scenes.iter();
    let scenes: Vec<String> = scenes.map(|scene| scene.concepts.join(" + ")).collect();
    assert!(scenes.len() == 3 && scenes.iter().all(|scene| scene.starts_with("cyan + ")));
    assert!(notes.contains(&format!("in scenes: {}", scenes.join(", "))), "{notes}");
    let learnt = grown.report.distillation.as_ref().unwrap();
    assert_eq!(learnt.one_prompt.len(), 3);
    // Passes of several pictures are filled up, four views of three scenes at most.
    let counted = GrowthCost::of(2, &library.settings).updates;
    assert!((counted..counted + 12).contains(&learnt.updates), "{learnt:?} {counted}");
    // Out again: as it was.
    let (_, recorded) = library.change("three", &|name| name != "cyan", &[], "again");
    assert!(recorded.is_empty(), "{recorded:?}");
    assert_eq!(contents(&library.at("again")), before);
    // Without one of the first, what came after it is repeated, from what is recorded.
    let (rest, _) = library.change("three", &|name| name != "abra", &[], "rest");
    assert_eq!(rest.report.history.len(), 2);
    let words = std::fs::read_to_string(library.at("rest/new_concept_cfg.json")).unwrap();
    assert!(words.contains("<cyan1>") && !words.contains("<abra1>"));
    // As often as it is asked for.
    let rest = contents(&library.at("rest"));
    library.change("three", &|name| name != "abra", &[], "rest again");
    assert_eq!(contents(&library.at("rest again")), rest);
}

/// One more costs the same, however many there are, once there are as many as it is learnt beside.
#[test]
fn the_cost_of_one_more_is_flat() {
    let usual = Settings::default();
    let few = [0, 1, 2, 8].map(|others| GrowthCost::of(others, &usual));
    assert_eq!(few.map(|cost| cost.scenes), [0, 1, 3, 3]);
    // Four pictures of four prompts in ten steps, and three of each in each scene.
    assert_eq!(few.map(|cost| cost.passes), [160, 280, 520, 520]);
    assert_eq!(few.map(|cost| cost.updates), [80, 150, 250, 250]);
    // Of the empty prompt's half nothing more is learnt in one prompt.
    let mut one = usual.clone();
    one.distillation.one_prompt = 1;
    let cost = GrowthCost::of(8, &one);
    assert_eq!((cost.passes, cost.updates), (520, 265));
    for others in [9, 20, 199, 100_000] {
        assert_eq!(GrowthCost::of(others, &usual), few[3], "{others}");
    }
    let mut alone = usual.clone();
    alone.distillation.scenes = 0;
    assert_eq!(GrowthCost::of(199, &alone).updates, 160);
    assert_eq!(GrowthCost::of(199, &Settings::published()).updates, 0);
}

/// With scenes on, the others are answered as before, within a little.
#[test]
fn the_others_stay_where_one_is_added_with_scenes() {
    let library = Library::new(quick());
    let two = library.fuse(&[0, 1], "two").report.distillation.unwrap();
    let (grown, _) = library.change("two", &|_| true, &[2], "three");
    let three = grown.report.distillation.unwrap();
    assert!(three.used && two.used);
    // Both are beside it, and what is measured of them came no farther than it was.
    for at in [0, 1] {
        let [[_, alone], [before, after]] = [two.errors[at], three.errors[at]];
        assert!(alone > 0.0 && before > 0.0, "{two:?} {three:?}");
        assert!(after < 1.1 * before && after < 1.25 * alone, "{two:?} {three:?}");
    }
    assert!(three.errors[2][1] < three.errors[2][0], "{three:?}");
}

#[test]
fn what_was_before_a_concept_is_kept_for_when_it_goes() {
    let library = Library::new(quick());
    let all = |_: &str| true;
    library.fuse(&[0], "one");
    library.change("one", &all, &[1], "two");
    let before = contents(&library.at("two"));
    library.change("two", &all, &[2], "three");
    let (out, recorded) = library.change("three", &|name| name != "cyan", &[], "again");
    assert!(recorded.is_empty() && out.report.stages.is_empty());
    assert_eq!(contents(&library.at("again")), before);
    // A state that broke off is made again.
    for file in std::fs::read_dir(library.at("sums")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("grown_") {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    library.change("three", &|name| name != "cyan", &[], "third");
    assert_eq!(contents(&library.at("third")), before);
}

/// Where the first concept is answered as its own LoRA does, what is asked for is the same as of
/// both together.
#[test]
fn a_second_concept_is_solved_for_as_both_together() {
    let without = Settings {
        distillation: Distillation::NONE,
        keep: Vec::new(),
        steps: 3,
        ..settings(exact(1e-7))
    };
    let library = Library::new(without);
    library.fuse(&[0, 1], "both");
    library.fuse(&[0], "one");
    library.change("one", &|_| true, &[1], "grown");
    let file =
        TensorFile::open(&library.at("both").join("text_encoder/model.safetensors")).unwrap();
    let base = TensorFile::open(&model().join("text_encoder/model.safetensors")).unwrap();
    let mut compared = 0;
    for name in file.names().filter(|name| name.ends_with("_proj.weight")) {
        let of_base = base.tensor(name).unwrap();
        let of_base = of_base.to_f32(0..of_base.len());
        let [both, grown] = ["both", "grown"].map(|out| weights(&library.at(out), name));
        let size = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        let change = size(&both, &of_base);
        if change > 0.0 {
            compared += 1;
            assert!(
                size(&both, &grown) < 0.02 * change,
                "{name}: {} {change}",
                size(&both, &grown)
            );
        }
    }
    assert!(compared > 3);
}

#[test]
fn other_layers_are_fused_anew() {
    let library = Library::new(Settings { distillation: Distillation::NONE, ..quick() });
    let narrow = || {
        let mut narrow = entry(0);
        let set = narrow.concept.updates.of_mut(mixofshow::concept::Network::UNet);
        set.layers.retain(|name, _| name.ends_with("to_q"));
        narrow
    };
    fuse(library.order(vec![narrow()], "one"), &library.settings).unwrap();
    let (fused, _) = library.change("one", &|_| true, &[1], "two");
    assert!(fused.report.history.is_empty());
    assert!(fused.report.notes.iter().any(|note| note.contains("fused anew")));
}
