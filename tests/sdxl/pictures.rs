//! Whole runs against diffusers': latents to 1e-4, pictures to 40 dB.

use std::path::Path;

use mixofshow::concept::{Applied, dialects};
use mixofshow::picture::{Mask, Picture, psnr};
use mixofshow::pipeline::{Control, Generated, Pipeline, Request};
use mixofshow::{checkpoint, unwatched};
use serde_json::Value;

use super::concepts;
use super::model::{CASES, expected, folder, load, network, pipeline, root};

const TOLERANCE: f64 = 1e-4;

/// What a case of `tools/reference/sdxl.py` asks for.
fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().unwrap_or_default().to_string();
    let number = |key: &str| case[key].as_u64().unwrap() as usize;
    let pair = |key: &str| serde_json::from_value(case[key].clone()).unwrap();
    let from = |name: &str| root().join("tests/fixtures/generated").join(name);
    let kind = text("kind");
    let image = ["image", "inpaint"].contains(&&*kind);
    let sampler = match &*text("sampler") {
        "ancestral" => "euler-ancestral".to_string(),
        other => other.to_string(),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut concepts = Vec::new();
    if let Some(dialect) = case["lora"].as_str() {
        concepts.push(concepts::lora(folder.path(), dialect));
    }
    if case["words"].as_bool().unwrap() {
        concepts.push(concepts::words(folder.path()));
    }
    let applied = concepts.iter().map(|path| {
        Applied::new(dialects::read(path).unwrap_or_else(|e| panic!("{e}")).0, 1.0).unwrap()
    });
    Request {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        width: Some(number("width")),
        height: Some(number("height")),
        original_size: pair("original_size"),
        crop: pair("crop"),
        steps: number("steps"),
        guidance: case["guidance"].as_f64().unwrap() as f32,
        sampler: Some(sampler.parse().unwrap()),
        seed: number("seed") as u64,
        clip_skip: number("clip_skip"),
        image: image.then(|| Picture::open(from("original.webp")).unwrap()),
        strength: case["strength"].as_f64().unwrap(),
        mask: (kind == "inpaint").then(|| Mask::open(from("mask.png")).unwrap()),
        controls: ["control", "adapter"].into_iter().filter(|k| *k == kind).map(control).collect(),
        concepts: applied.collect(),
        ..Request::default()
    }
}

/// A network that steers, and the picture that it follows.
fn control(kind: &str) -> Control {
    let folder = tempfile::tempdir().unwrap();
    network(folder.path(), kind, "diffusion_pytorch_model");
    let network = checkpoint::Control::open(folder.path()).unwrap_or_else(|e| panic!("{e}"));
    let pixels = expected("condition").values().iter().map(|v| *v as u8).collect();
    let picture = Picture::new(96, 64, pixels).unwrap();
    Control { name: kind.into(), network, picture, weight: 0.7, start: 0.0, end: 1.0 }
}

fn generate(pipeline: &mut Pipeline, request: &Request) -> Generated {
    pipeline.generate(request, &mut unwatched).unwrap_or_else(|e| panic!("{e}"))
}

fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
}

fn check(names: &[&str], pipeline: &mut Pipeline) {
    let mut failures = Vec::new();
    for name in names {
        let case = &CASES["cases"][*name];
        assert!(case.is_object(), "no case {name}");
        let generated = generate(pipeline, &request(case));
        let found = error(generated.latents.values(), expected(name).values());
        println!("{name}: {found:.1e}, {:?}", generated.warnings);
        if found > TOLERANCE {
            failures.push(format!("{name}: {found:.1e}"));
        }
        if ["plain", "image", "inpaint"].contains(name) {
            let pixels = expected(&format!("{name}.picture"));
            let bytes = pixels.values().iter().map(|v| *v as u8).collect();
            let (height, width) = (pixels.shape[0] as u32, pixels.shape[1] as u32);
            let picture = Picture::new(width, height, bytes).unwrap();
            let decibels = psnr(&generated.pictures[0], &picture).unwrap();
            if decibels < 40.0 {
                failures.push(format!("{name}: {decibels:.1} dB"));
            }
        }
    }
    assert!(failures.is_empty(), "beyond {TOLERANCE:.0e}: {failures:?}");
}

#[test]
fn pictures_are_those_of_diffusers() {
    check(&["plain", "negative", "sizes", "unguided", "clip-skip"], &mut pipeline());
}

#[test]
fn weights_and_long_prompts_act_in_each_encoder() {
    check(&["weighted"], &mut pipeline());
}

#[test]
fn pictures_and_masks_are_begun_with() {
    check(&["image", "inpaint"], &mut pipeline());
}

#[test]
fn loras_and_words_change_both_encoders() {
    check(&["kohya", "peft", "words"], &mut pipeline());
    // Nothing of them stays.
    check(&["plain"], &mut pipeline());
}

#[test]
fn networks_of_xl_steer() {
    check(&["control", "adapter"], &mut pipeline());
}

#[test]
fn turbo_is_the_same_network_with_another_schedule() {
    let made = tempfile::tempdir().unwrap();
    folder(made.path(), true);
    check(&["turbo"], &mut load(made.path()));
}

#[test]
fn pictures_of_a_batch_are_those_that_they_are_alone() {
    let of = |seed, batch| Request { seed, batch, ..request(&CASES["cases"]["sizes"]) };
    let mut pipeline = pipeline();
    let both = generate(&mut pipeline, &of(1, 2));
    let [first, second] = [1, 2].map(|seed| generate(&mut pipeline, &of(seed, 1)).latents);
    let alone = [first.values(), second.values()].concat();
    assert!(error(both.latents.values(), &alone) < 1e-5);
    assert!(error(first.values(), second.values()) > 0.1);
}

#[test]
fn the_usual_size_is_what_the_model_was_trained_at() {
    assert_eq!(pipeline().default_size(), (96, 96));
    let told = |path: &Path| load(path).default_size();
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join("xl.safetensors");
    super::model::single(&path, true);
    assert_eq!(told(&path), (1024, 1024), "a single file of this family");
}
