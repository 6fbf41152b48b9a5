//! Whole pictures of the model that ships, against those that diffusers made of it (`tools/reference/pictures_sd.py`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use mixofshow::checkpoint::Checkpoint;
use mixofshow::diffusion::pipeline::{Generated, Pipeline, Request};
use mixofshow::gpu::{Gpu, Options, Selection};
use mixofshow::graph::Precision;
use mixofshow::picture::{Mask, Picture, psnr};
use serde_json::Value;
use sha2::{Digest, Sha256};

const MODEL: &str = "models/tiny";
const WEIGHTS: [&str; 3] =
    ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/generated").join(name)
}

/// One device and one model for all tests, taken in turns.
fn pipeline() -> MutexGuard<'static, Pipeline> {
    static PIPELINE: OnceLock<Mutex<Pipeline>> = OnceLock::new();
    let open = || {
        let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
        let gpu: Arc<Gpu> = Gpu::open(&Options { selection, ..Options::default() }).expect("an adapter");
        let checkpoint = Checkpoint::open(&root().join(MODEL)).unwrap();
        Mutex::new(Pipeline::load(&gpu, &checkpoint, Precision::AsStored).unwrap_or_else(|e| panic!("{e}")))
    };
    PIPELINE.get_or_init(open).lock().unwrap_or_else(|e| e.into_inner())
}

fn generate(request: &Request) -> Generated {
    pipeline().generate(request, &mut |_| ()).unwrap_or_else(|e| panic!("{e}"))
}

fn cases() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap()
}

#[test]
fn the_reference_pictures_are_of_these_weights() {
    let mut sha = Sha256::new();
    for name in WEIGHTS {
        sha.update(std::fs::read(root().join(MODEL).join(name)).unwrap());
    }
    let found: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let hint = "run `python tools/reference/pictures_sd.py`";
    assert_eq!(cases()["weights"], found, "the weights in {MODEL} have changed since the reference pictures were made: {hint}");
}

fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().unwrap().to_string();
    let number = |key: &str| case[key].as_u64().unwrap();
    let image = case["kind"] != "text";
    Request {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        width: Some(number("width") as usize),
        height: Some(number("height") as usize),
        steps: number("steps") as usize,
        guidance: case["guidance"].as_f64().unwrap() as f32,
        sampler: Some(text("sampler").parse().unwrap()),
        karras: case["karras"].as_bool().unwrap(),
        seed: number("seed"),
        clip_skip: number("clip_skip") as usize,
        image: image.then(|| Picture::open(fixture("original.webp")).unwrap()),
        strength: case["strength"].as_f64().unwrap(),
        mask: (case["kind"] == "inpaint").then(|| Mask::open(fixture("mask.png")).unwrap()),
        ..Request::default()
    }
}

/// Fails unless every case whose name `wanted` accepts is what diffusers made of it.
fn check(wanted: impl Fn(&str) -> bool) {
    let cases = cases();
    let mut failures = Vec::new();
    for (name, case) in cases["cases"].as_object().unwrap().iter().filter(|(name, _)| wanted(name)) {
        let generated = generate(&request(case));
        let expected = Picture::open(fixture(&format!("{name}.webp"))).unwrap();
        let found = &generated.pictures[0];
        let decibels = psnr(found, &expected).unwrap();
        println!("{name}: {decibels:.1} dB, {:?}", generated.stages);
        save(name, found);
        if decibels < 40.0 {
            failures.push(format!("{name}: {decibels:.1} dB"));
        }
    }
    assert!(failures.is_empty(), "below 40 dB: {failures:?}");
}

/// Keeps a picture for people to look at, where `MOS_TEST_PICTURES` names a folder.
fn save(name: &str, picture: &Picture) {
    if let Some(folder) = std::env::var_os("MOS_TEST_PICTURES") {
        picture.save(Path::new(&folder).join(format!("{name}.png")), None).unwrap();
    }
}

#[test]
fn ddim_makes_the_pictures_of_diffusers() {
    check(|name| name.starts_with("ddim-"));
}
