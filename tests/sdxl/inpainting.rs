//! Models made for inpainting, of both families, against diffusers
//! (`tools/reference/inpainting.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{self, Checkpoint, DType, ModelFormat, TensorFile, TensorView, export};
use mixofshow::picture::{Mask, Picture, psnr};
use mixofshow::pipeline::{Pipeline, Request};
use mixofshow::unwatched;
use serde_json::{Value, json};

use super::hashed;
use super::model::{self, CASES, device, load, of_values, root, view};
use super::program::{mos, text};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/inpainting").join(name)
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// models/tiny, whose first convolution reads `channels`.
fn tiny(at: &Path, channels: usize) {
    copy(&root().join("models/tiny"), at);
    rewrite(&at.join("unet/config.json"), |config| config["in_channels"] = json!(channels));
    let path = at.join("unet").join(WEIGHTS);
    let file = TensorFile::open(&root().join("models/tiny/unet").join(WEIGHTS)).unwrap();
    let tensors: Vec<(String, TensorView<'_>)> = file
        .names()
        .map(|name| {
            let view = file.tensor(name).unwrap();
            if name != "conv_in.weight" {
                return (name.to_string(), view);
            }
            let (own, out) = (view.to_f32(0..view.len()), view.shape()[0]);
            let shape = [out, channels - 4, 3, 3];
            let more = hashed::tensor("unet/conv_in.more", &shape);
            let rows = own.chunks(4 * 9).zip(more.chunks((channels - 4) * 9));
            let values: Vec<f32> = rows.flat_map(|(a, b)| [a, b].concat()).collect();
            (name.to_string(), of_values(&[out, channels, 3, 3], &values))
        })
        .collect();
    checkpoint::write(&path, &tensors, &BTreeMap::new()).unwrap();
}

/// The very small Stable Diffusion XL with nine channels.
fn xl(at: &Path) {
    model::folder(at, false);
    rewrite(&at.join("unet/config.json"), |config| config["in_channels"] = json!(9));
    let tensors = CASES["parameters"]["unet"].as_object().unwrap().iter().map(|(name, shape)| {
        let mut shape = model::shape(shape);
        if name == "conv_in.weight" {
            shape[1] = 9;
        }
        (name.clone(), view("unet", name, &shape))
    });
    let path = at.join("unet").join(WEIGHTS);
    checkpoint::write(&path, &tensors.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
}

fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().unwrap().to_string();
    let from = |name: &str| root().join("tests/fixtures/generated").join(name);
    let masked = case["mask"].as_bool().unwrap();
    Request {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        width: Some(128),
        height: Some(128),
        steps: case["steps"].as_u64().unwrap() as usize,
        guidance: case["guidance"].as_f64().unwrap() as f32,
        sampler: Some(text("sampler").parse().unwrap()),
        seed: case["seed"].as_u64().unwrap(),
        image: Some(Picture::open(from("original.webp")).unwrap()),
        strength: case["strength"].as_f64().unwrap(),
        mask: masked.then(|| Mask::open(from("mask.png")).unwrap()),
        ..Request::default()
    }
}

fn cases() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap()
}

fn check(pipeline: &mut Pipeline, of: &str) {
    let mut failures = Vec::new();
    for (name, case) in cases().as_object().unwrap().iter().filter(|(_, c)| c["model"] == of) {
        let made = pipeline.generate(&request(case), &mut unwatched);
        let made = made.unwrap_or_else(|e| panic!("{e}"));
        let all = case["mask"] == json!(false);
        assert_eq!(made.warnings.iter().any(|w| w.contains("without a mask all")), all);
        let expected = Picture::open(fixture(&format!("{name}.webp"))).unwrap();
        let decibels = psnr(&made.pictures[0], &expected).unwrap();
        println!("{name}: {decibels:.1} dB");
        if decibels < 40.0 {
            failures.push(format!("{name}: {decibels:.1} dB"));
        }
    }
    assert!(failures.is_empty(), "below 40 dB: {failures:?}");
}

/// The same model as one file.
fn single(folder: &Path, file: &Path) {
    let model = Checkpoint::open(folder).unwrap();
    export(&model, DType::F32, ModelFormat::Safetensors, file, &mut unwatched).unwrap();
}

#[test]
fn models_of_stable_diffusion_1_paint_as_in_diffusers() {
    let made = tempfile::tempdir().unwrap();
    tiny(made.path(), 9);
    let mut pipeline = load(made.path());
    check(&mut pipeline, "tiny");
    let file = made.path().join("one.safetensors");
    single(made.path(), &file);
    check(&mut load(&file), "tiny");
    // In a batch the same; with the deep layers kept, by the host's steps.
    let case = &cases()["part"];
    let alone = pipeline.generate(&request(case), &mut unwatched).unwrap().latents;
    let rows = alone.values().len();
    let two = Request { batch: 2, ..request(case) };
    let two = pipeline.generate(&two, &mut unwatched).unwrap().latents;
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-2);
    assert!(close(alone.values(), &two.values()[..rows]));
    let kept = Request { cache: 2, ..request(case) };
    pipeline.generate(&kept, &mut unwatched).unwrap();
    // From nothing at all, and a second time larger.
    let hires = Some(mixofshow::pipeline::Hires { scale: 1.5, ..Default::default() });
    let (width, height) = (Some(64), Some(64));
    let from_nothing = Request { image: None, mask: None, hires, width, height, ..request(case) };
    assert_eq!(pipeline.generate(&from_nothing, &mut unwatched).unwrap().width, 96);
}

#[test]
fn models_of_stable_diffusion_xl_paint_as_in_diffusers() {
    let made = tempfile::tempdir().unwrap();
    xl(made.path());
    check(&mut load(made.path()), "xl");
    let file = made.path().join("one.safetensors");
    single(made.path(), &file);
    check(&mut load(&file), "xl");
}

#[test]
fn what_cannot_be_done_with_them_is_said() {
    let made = tempfile::tempdir().unwrap();
    let (nine, eight) = (made.path().join("nine"), made.path().join("eight"));
    tiny(&nine, 9);
    tiny(&eight, 8);
    let opened = Checkpoint::open(&eight).unwrap();
    let error = Pipeline::load(&device(), &opened, mixofshow::backend::Precision::AsStored);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("from 8 to 4 channels") && error.contains("editing"), "{error}");
    let concept = root().join("tests/fixtures/concepts/kohya.safetensors");
    let out = made.path().join("fused");
    let fused = mos(&["fuse", "-m", text(&nine), "-c", text(&concept), "-o", text(&out)]);
    assert_eq!(fused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&fused.stderr).into_owned();
    assert!(told.contains("from 9 to 4 channels") && !out.exists(), "{told}");
    let pictures = made.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let from = root().join("tests/fixtures/generated/original.webp");
    std::fs::copy(from, pictures.join("a.webp")).unwrap();
    let taught = mos(&[
        "train",
        "--pictures",
        text(&pictures),
        "-m",
        text(&nine),
        "--words",
        "<zorp>",
        "--class-word",
        "man",
        "--steps",
        "1",
        "-o",
        text(&made.path().join("zorp.safetensors")),
    ]);
    let told = String::from_utf8_lossy(&taught.stderr).into_owned();
    assert!(!taught.status.success() && told.contains("from 9 to 4 channels"), "{told}");
}
