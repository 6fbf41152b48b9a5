//! What cannot be fused is refused by name, and leaves nothing behind.

use mixofshow::checkpoint::ModelHash;
use mixofshow::concept::{Concept, Lora, Network, Update, Word};
use mixofshow::fusion::{ConceptToFuse, Order};
use mixofshow::graph::Array;

use super::world::{concept, entry, exact, fuse, names, order, settings};

fn refused(change: impl FnOnce(&mut Concept)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut bad = concept(0);
    change(&mut bad);
    let mut entries = vec![entry(1)];
    entries.push(ConceptToFuse::new(bad, "bad.safetensors"));
    let error = fuse(order(entries, &folder.path().join("out")), &settings(exact(1e-6)))
        .unwrap_err()
        .to_string();
    assert!(names(folder.path()).is_empty(), "{error}: {:?}", names(folder.path()));
    error
}

#[test]
fn concepts_that_do_not_fit_are_named() {
    let layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let array = |shape: [usize; 2]| Array::f32(shape, vec![0.1; shape[0] * shape[1]]);
    let error = refused(|c| c.base = Some(ModelHash([3; 32])));
    assert!(
        error.contains("`abra`")
            && error.contains("another model")
            && error.contains(&"03".repeat(32)),
        "{error}"
    );
    let error = refused(|c| c.words[1].text = "<BROG1>".into());
    assert!(error.contains("<BROG1>") || error.contains("<brog1>"), "{error}");
    let error = refused(|c| c.words[1].text = "cat</w>".into());
    assert!(error.contains("vocabulary"), "{error}");
    let error = refused(|c| c.words[0] = Word::new("<abra1>", array([5, 32])));
    assert!(error.contains("<abra1>") && error.contains('5') && error.contains('7'), "{error}");
    let error = refused(|c| c.words[0] = Word::new("<abra1>", array([7, 31])));
    assert!(error.contains("31") && error.contains("32"), "{error}");
    let error =
        refused(|c| {
            drop(c.updates.of_mut(Network::UNet).layers.insert(
                layer.into(),
                Update::Lora(Lora { down: array([4, 48]), up: array([48, 3]) }),
            ))
        });
    assert!(
        error.contains(layer) && error.contains("[4, 48]") && error.contains("[48, 3]"),
        "{error}"
    );
    let error =
        refused(|c| {
            drop(c.updates.of_mut(Network::UNet).layers.insert(
                layer.into(),
                Update::Lora(Lora { down: array([4, 47]), up: array([48, 4]) }),
            ))
        });
    assert!(error.contains(layer) && error.contains("47"), "{error}");
    let error = refused(|c| {
        drop(c.updates.of_mut(Network::UNet).layers.insert(
            "mid_block.nothing".into(),
            Update::Lora(Lora { down: array([4, 48]), up: array([48, 4]) }),
        ))
    });
    assert!(error.contains("mid_block.nothing") && error.contains("`abra`"), "{error}");
    let error = refused(|c| c.updates.of_mut(Network::UNet).scale = f32::NAN);
    assert!(error.contains("not finite"), "{error}");
    let error = refused(|c| c.words.clear());
    assert!(error.contains("prompt"), "{error}");
}

#[test]
fn the_same_words_are_renamed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let same = || {
        let mut other = concept(1);
        other.words.clone_from(&concept(0).words);
        ConceptToFuse::new(other, "other.safetensors")
    };
    let out = folder.path().join("out");
    let mut quick = settings(exact(1e-6));
    quick.steps = 2;
    assert!(fuse(order(vec![entry(0), same()], &out), &quick).is_err());
    quick.rename = true;
    let fused = fuse(order(vec![entry(0), same()], &out), &quick).unwrap();
    let mut words: Vec<String> =
        fused.report.concepts.iter().flat_map(|c| c.words.clone()).collect();
    words.sort();
    assert_eq!(words, ["<abra1-2>", "<abra1>", "<abra2-2>", "<abra2>"]);
    // What is there already stays, unless it is to be replaced.
    let error = fuse(order(vec![entry(0)], &out), &quick).unwrap_err().to_string();
    assert!(error.contains("out") && error.contains("already"), "{error}");
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(folder.path().join("out.fusing")).unwrap();
    std::fs::write(folder.path().join("out.fusing/mine.txt"), "mine").unwrap();
    let replaced = fuse(Order { replace: true, ..order(vec![entry(0)], &out) }, &quick).unwrap();
    assert_eq!(replaced.report.concepts.len(), 1);
    // What this program did not write stays, in the model and in a folder that happens to be called
    // as its own.
    assert_eq!(names(folder.path()), ["out", "out.fusing"]);
    assert_eq!(names(&folder.path().join("out.fusing")), ["mine.txt"]);
    assert_eq!(std::fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    let notes = replaced.report.notes.join("\n");
    assert!(notes.contains("notes.txt") && notes.contains("out.fusing stays"), "{notes}");
    // The new model lists its own files, and nothing else.
    let note: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("fusion.json")).unwrap()).unwrap();
    let listed = note["files"].as_object().unwrap();
    assert_eq!(listed["unet/config.json"].as_str().unwrap().len(), 64);
    assert!(!listed.contains_key("notes.txt"), "{listed:?}");
    // Nor what somebody changed.
    std::fs::write(out.join("model_index.json"), "{}").unwrap();
    let replaced = fuse(Order { replace: true, ..order(vec![entry(0)], &out) }, &quick).unwrap();
    let notes = replaced.report.notes.join("\n");
    assert!(notes.contains("model_index.json (edited since it was fused)"), "{notes}");
    let aside = folder.path().join("out.old/model_index.json");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "{}");
}

/// Fewer inputs than channels, and no ridge: the answer of least norm is found all the same.
#[test]
fn singular_sums_are_solved() {
    let folder = tempfile::tempdir().unwrap();
    let mut quick = settings(exact(0.0));
    quick.steps = 2;
    let fused = fuse(order(vec![entry(0)], &folder.path().join("out")), &quick).unwrap();
    for stage in &fused.report.stages {
        assert!(
            stage.residuals().into_iter().flatten().all(|r| r.fused < 1e-3),
            "{:?}",
            stage.residuals()
        );
    }
}
