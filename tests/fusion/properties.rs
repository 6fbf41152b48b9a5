//! What must hold whatever the concepts are.

use std::path::Path;

use mixofshow::backend::Precision;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Concept, Network};
use mixofshow::fusion::{ConceptToFuse, Order, Previous, Settings, ordinary_prompts};
use mixofshow::pipeline::{Pipeline, Request};
use mixofshow::unwatched;

use super::world::{
    concept, contents, device, entry, errors, exact, fuse, model, names, order, settings,
};

/// Few steps: what is tested here does not depend on how many.
fn quick() -> Settings {
    Settings {
        steps: 3,
        keep: ordinary_prompts().into_iter().take(4).collect(),
        keep_sampled: 1,
        ..settings(exact(1e-6))
    }
}

#[test]
fn a_concept_alone_answers_as_its_own_tuned_model() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { steps: 3, ..settings(exact(1e-8)) };
    let fused = fuse(order(vec![entry(0)], &folder.path().join("out")), &settings).unwrap();
    for stage in &fused.report.stages {
        for layer in stage.sites.iter().flat_map(|site| &site.measures.layers) {
            let residual = layer.residuals[0].unwrap();
            assert!(residual <= 1e-4, "{}: relative residual {residual:.1e}", layer.layer);
        }
    }
    // Twice the same concept is the same concept, of weight 2.
    let twice =
        fuse(order(vec![entry(0), entry(0)], &folder.path().join("twice")), &settings).unwrap();
    assert_eq!((twice.report.concepts.len(), twice.report.concepts[0].weight), (1, 2.0));
    for file in ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"] {
        let distance = distance(
            &folder.path().join("out").join(file),
            &folder.path().join("twice").join(file),
        );
        assert!(distance < 1e-6, "{file}: {distance:.1e}");
    }
}

/// The largest difference between two files' numbers, relative to the largest number of their
/// tensor.
fn distance(a: &Path, b: &Path) -> f64 {
    let read = |path: &Path| mixofshow::checkpoint::TensorFile::open(path).unwrap();
    let (a, b) = (read(a), read(b));
    let of = |name: &str| {
        let [a, b] =
            [&a, &b].map(|file| file.tensor(name).unwrap()).map(|view| view.to_f32(0..view.len()));
        let most = a.iter().fold(1e-12f32, |most, v| most.max(v.abs()));
        a.iter().zip(&b).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / most
    };
    f64::from(a.names().map(of).fold(0.0, f32::max))
}

#[test]
fn neither_order_nor_machines_nor_interruptions_change_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let all = || (0..3).map(entry).collect::<Vec<_>>();
    let kept = |concepts, out: &str, statistics: &str| Order {
        statistics: Some(at(statistics)),
        ..order(concepts, &at(out))
    };
    fuse(kept(all(), "straight", "sums"), &quick()).unwrap();
    let expected = contents(&at("straight"));

    // Another order, from statistics that two machines took, which meet in one folder.
    let backwards = || all().into_iter().rev().collect::<Vec<_>>();
    for (k, statistics) in [(2, "second"), (1, "first")] {
        let order =
            Order { out: None, part: Some((k, 2)), ..kept(backwards(), "none", statistics) };
        assert!(fuse(order, &quick()).unwrap().path.is_none());
    }
    assert!(!at("none").exists());
    for name in names(&at("second")) {
        std::fs::copy(at("second").join(&name), at("first").join(&name)).unwrap();
    }
    let before = names(&at("first"));
    fuse(kept(backwards(), "merged", "first"), &quick()).unwrap();
    assert_eq!(contents(&at("merged")), expected);
    let mut after = names(&at("first"));
    after.retain(|name| !before.contains(name) && !name.starts_with("grown_"));
    assert_eq!(after, ["weights-spatial.safetensors"], "all statistics were there");

    // A run that ended in the middle: some statistics are missing, one file is half written. It
    // goes on with the rest.
    let spatial: Vec<String> =
        before.iter().filter(|name| name.starts_with("spatial-")).cloned().collect();
    let [gone, half, ..] = &spatial[..] else { panic!("{before:?}") };
    std::fs::remove_file(at("first").join(gone)).unwrap();
    let bytes = std::fs::read(at("first").join(half)).unwrap();
    std::fs::write(at("first").join(half), &bytes[..bytes.len() / 2]).unwrap();
    fuse(kept(all(), "resumed", "first"), &quick()).unwrap();
    assert_eq!(contents(&at("resumed")), expected);

    // One more, then one less: where it started.
    let fourth = || {
        let mut other = concept(0);
        other.name = "dool".into();
        for (word, text) in other.words.iter_mut().zip(["<dool1>", "<dool2>"]) {
            word.text = text.into();
        }
        ConceptToFuse { unet: -0.5, ..ConceptToFuse::new(other, "3.safetensors") }
    };
    let mut more = Previous::open(&at("straight")).unwrap().entries(&at("sums")).unwrap();
    assert_eq!(more.len(), 3);
    more.push(fourth());
    let grown =
        fuse(Order { accept_stale: true, ..kept(more, "grown", "sums") }, &quick()).unwrap();
    let spatial = grown.report.stages.last().unwrap();
    assert_eq!(spatial.stale, ["abra", "brog", "cyan"], "only the new one was sampled");
    assert_ne!(contents(&at("grown")), expected);
    let mut fewer = Previous::open(&at("grown")).unwrap().entries(&at("sums")).unwrap();
    fewer.retain(|entry| entry.concept.name != "dool");
    fuse(Order { accept_stale: true, ..kept(fewer, "shrunk", "sums") }, &quick()).unwrap();
    for file in ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"] {
        let distance = distance(&at("straight").join(file), &at("shrunk").join(file));
        assert!(distance < 1e-5, "{file}: {distance:.1e}");
    }
}

/// Concepts with words, a LoRA without, and the ridge chosen by measurement; the model makes
/// pictures of all of them.
#[test]
fn a_style_without_words_is_fused_beside_a_concept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let style = Concept {
        name: "ink".into(),
        words: Vec::new(),
        updates: [(Network::UNet, concept(1).updates.of(Network::UNet).clone())].into(),
        ..concept(1)
    };
    let style = ConceptToFuse {
        prompt: Some("an ink drawing".into()),
        ..ConceptToFuse::new(style, "ink.safetensors")
    };
    let held_out = vec!["a {} outside".to_string()];
    let settings = Settings { solver: Default::default(), held_out, ..quick() };
    let fused = fuse(order(vec![style, entry(0)], &out), &settings).unwrap();
    assert_eq!(
        fused.report.concepts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["abra", "ink"]
    );
    for stage in &fused.report.stages {
        assert!(
            stage.ridge.held_out && stage.ridge.ridge > 0.0 && stage.ridge.points.len() > 8,
            "{:?}",
            stage.ridge
        );
        let best = stage.ridge.points.iter().map(|p| p.missed).fold(f64::INFINITY, f64::min);
        assert!(best < 1.0 && stage.base_loss().is_some_and(|loss| loss.is_finite()));
        for residual in stage.residuals().into_iter().flatten() {
            assert!(residual.fused < 1.0, "{}: {residual:?}", stage.stage.name());
            let [fused, averaged] = residual.held_out.unwrap();
            assert!(fused.is_finite() && averaged.is_finite());
        }
    }
    assert!(errors(&fused).len() > 40);
    let generate = |path: &Path, prompt: &str| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let mut pipeline = Pipeline::load(device(), &checkpoint, Precision::F32).unwrap();
        let request = Request { prompt: prompt.into(), steps: 2, seed: 1, ..Request::default() };
        pipeline.generate(&request, &mut unwatched).unwrap().latents
    };
    let named = generate(&out, "a photo of a <abra1> <abra2>");
    assert_ne!(named, generate(&out, "a photo of a <abra2> <abra1>"));
    assert_ne!(named, generate(model(), "a photo of a cat"));
    assert!(named.values().iter().all(|v| v.is_finite()));
}
