//! A small made-up model and concepts for it, as `tools/reference/fusion.py` has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mixofshow::backend::wgpu::Options;
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::{self, Checkpoint, TensorView};
use mixofshow::concept::{Concept, Lora, Network, Update, UpdateSet, Word};
use mixofshow::fusion::solve::{Exact, Solver};
use mixofshow::fusion::{self, ConceptToFuse, Fused, Order, Settings};
use mixofshow::graph::Array;
use mixofshow::unwatched;
use serde_json::{Value, json};

use super::{chosen, hashed};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| chosen::device(Options::default()))
}

pub fn fixture() -> &'static Value {
    static FIXTURE: OnceLock<Value> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let text = std::fs::read_to_string(root().join("tests/fixtures/fusion.json"))
            .expect("the fixture");
        serde_json::from_str(&text).expect("JSON")
    })
}

/// Names and shapes of a network's parameters.
fn parameters(network: &str) -> BTreeMap<String, Vec<usize>> {
    serde_json::from_value(fixture()[network]["parameters"].clone()).expect("shapes")
}

/// The model's folder, written once.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["unet", "text_encoder", "vae", "scheduler", "tokenizer"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let json = |name: &str, value: &Value| std::fs::write(at(name), value.to_string()).unwrap();
        json("model_index.json", &json!({"_class_name": "StableDiffusionPipeline"}));
        json("scheduler/scheduler_config.json", &fixture()["scheduler"]);
        json("unet/config.json", &fixture()["unet"]["config"]);
        json("text_encoder/config.json", &fixture()["text"]["config"]);
        let vae = std::fs::read_to_string(root().join("models/tiny/vae/config.json")).unwrap();
        std::fs::write(at("vae/config.json"), vae).unwrap();
        weights(&at("unet/diffusion_pytorch_model.safetensors"), &parameters("unet"));
        weights(&at("text_encoder/model.safetensors"), &parameters("text"));
        let vae = "vae/diffusion_pytorch_model.safetensors";
        std::fs::copy(root().join("models/tiny").join(vae), at(vae)).unwrap();
        for file in std::fs::read_dir(root().join("models/tiny/tokenizer")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), at("tokenizer").join(file.file_name())).unwrap();
        }
        folder
    });
    folder.path()
}

fn weights(path: &Path, parameters: &BTreeMap<String, Vec<usize>>) {
    let values: Vec<(String, Vec<usize>, Vec<f32>)> = parameters
        .iter()
        .map(|(name, shape)| (name.clone(), shape.clone(), hashed::tensor(name, shape)))
        .collect();
    let view = |(name, shape, values): &'_ (String, Vec<usize>, Vec<f32>)| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.clone(), TensorView::new(checkpoint::DType::F32, shape.clone(), bytes).unwrap())
    };
    let tensors: Vec<(String, TensorView)> = values.iter().map(view).collect();
    checkpoint::write(path, &tensors, &BTreeMap::new()).unwrap();
}

fn updates(concept: &str, network: &str) -> UpdateSet {
    let (rank, scale) =
        (fixture()["rank"].as_u64().unwrap() as usize, fixture()["scale"].as_f64().unwrap() as f32);
    let endings: Vec<String> =
        serde_json::from_value(fixture()[format!("{network}_layers")].clone()).unwrap();
    let mut layers = BTreeMap::new();
    for (name, shape) in parameters(network) {
        let Some(layer) = name.strip_suffix(".weight") else { continue };
        if endings.iter().any(|ending| layer.ends_with(&format!(".{ending}"))) {
            let part = |part: &str, shape: [usize; 2]| {
                Array::f32(
                    shape,
                    hashed::tensor(&format!("{concept}.{network}.{layer}.{part}"), &shape),
                )
            };
            layers.insert(
                layer.into(),
                Update::Lora(Lora {
                    down: part("down", [rank, shape[1]]),
                    up: part("up", [shape[0], rank]),
                }),
            );
        }
    }
    UpdateSet::scaled(scale, layers)
}

/// Concept number `index` of the reference.
pub fn concept(index: usize) -> Concept {
    let name = fixture()["concepts"][index]["name"].as_str().unwrap();
    let layers = fixture()["attentions"].as_u64().unwrap() as usize;
    let width = fixture()["text"]["config"]["hidden_size"].as_u64().unwrap() as usize;
    let word = |k: usize| {
        let text = format!("<{name}{k}>");
        let rows = Array::f32([layers, width], hashed::tensor(&text, &[layers, width]));
        Word::new(text, rows)
    };
    Concept {
        name: name.into(),
        words: vec![word(1), word(2)],
        updates: [
            (Network::TextEncoder, updates(name, "text")),
            (Network::UNet, updates(name, "unet")),
        ]
        .into(),
        ..Concept::default()
    }
}

/// The same with the reference's scales.
pub fn entry(index: usize) -> ConceptToFuse {
    let scale = |network: &str| fixture()["concepts"][index][network].as_f64().unwrap() as f32;
    ConceptToFuse {
        unet: scale("unet"),
        text: scale("text"),
        ..ConceptToFuse::new(concept(index), format!("{index}.safetensors"))
    }
}

pub fn order(concepts: Vec<ConceptToFuse>, out: &Path) -> Order {
    Order::new(concepts, out.into())
}

/// The reference's sampling, nothing kept.
pub fn settings(solver: Solver) -> Settings {
    Settings { solver, keep: Vec::new(), precision: Precision::F32, ..Settings::published() }
}

pub fn exact(ridge: f64) -> Solver {
    Solver::Exact(Exact { ridge: Some(ridge), ..Exact::default() })
}

pub fn fuse(order: Order, settings: &Settings) -> fusion::Result<Fused> {
    let checkpoint = Checkpoint::open(model()).unwrap();
    fusion::fuse(device(), &checkpoint, order, settings, &mut unwatched)
}

/// Squared errors of every layer, all concepts together, by stage and layer: left over, and before.
pub fn errors(fused: &Fused) -> BTreeMap<String, [f64; 2]> {
    let mut found = BTreeMap::new();
    for stage in &fused.report.stages {
        for layer in stage.sites.iter().flat_map(|site| &site.measures.layers) {
            let total = layer
                .energies
                .iter()
                .fold([0.0, 0.0], |[a, b], [left, before]| [a + left, b + before]);
            found.insert(format!("{}/{}", stage.stage.name(), layer.layer), total);
        }
    }
    found
}

/// The bytes of everything in a model but its report.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(
                    path.strip_prefix(folder).unwrap().to_path_buf(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

/// Names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
