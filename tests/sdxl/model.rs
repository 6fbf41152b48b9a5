//! The model, written as files: its weights are made from their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock};

use mixofshow::backend::wgpu::{MatrixUse, Options};
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::{self, Checkpoint, TensorFile, TensorView};
use mixofshow::graph::Array;
use mixofshow::pipeline::Pipeline;
use serde_json::{Value, json};

use super::chosen;
use super::hashed;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/sdxl").join(name)
}

/// Configurations, names and cases.
pub static CASES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap()
});

/// What diffusers made.
pub fn expected(name: &str) -> Array {
    let file = TensorFile::open(&fixture("expected.safetensors")).unwrap();
    let view = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    Array::f32(view.shape(), view.to_f32(0..view.len()))
}

pub fn shape(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A hashed tensor, by what stands before its name.
pub fn view(network: &str, name: &str, shape: &[usize]) -> TensorView<'static> {
    let values = hashed::tensor(&format!("{network}/{name}"), shape);
    of_values(shape, &values)
}

pub fn of_values(shape: &[usize], values: &[f32]) -> TensorView<'static> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorView::new(checkpoint::DType::F32, shape.to_vec(), bytes).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

/// Writes a network's folder.
pub fn network(folder: &Path, name: &str, stem: &str) {
    write_json(&folder.join("config.json"), &CASES["configs"][name]);
    let tensors = CASES["parameters"][name].as_object().unwrap().iter();
    let tensors: Vec<_> =
        tensors.map(|(tensor, s)| (tensor.clone(), view(name, tensor, &shape(s)))).collect();
    let path = folder.join(format!("{stem}.safetensors"));
    checkpoint::write(&path, &tensors, &BTreeMap::new()).unwrap();
}

/// A tokenizer's files by name; the second text encoder's pads otherwise.
pub fn tokenizer(second: bool) -> Vec<(String, String)> {
    let from = root().join("models/tiny/tokenizer");
    let read = |name: &str| std::fs::read_to_string(from.join(name)).unwrap();
    let padded = |name: &str| {
        let mut json: Value = serde_json::from_str(&read(name)).unwrap();
        if second {
            json["pad_token"] = "!".into();
        }
        json.to_string()
    };
    vec![
        ("vocab.json".into(), read("vocab.json")),
        ("merges.txt".into(), read("merges.txt")),
        ("special_tokens_map.json".into(), padded("special_tokens_map.json")),
        ("tokenizer_config.json".into(), padded("tokenizer_config.json")),
    ]
}

/// Writes the model as diffusers lays it out.
pub fn folder(at: &Path, trailing: bool) {
    for (name, stem) in [
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
    ] {
        network(&at.join(name), name, stem);
    }
    for (place, second) in [("tokenizer", false), ("tokenizer_2", true)] {
        std::fs::create_dir_all(at.join(place)).unwrap();
        for (name, text) in tokenizer(second) {
            std::fs::write(at.join(place).join(name), text).unwrap();
        }
    }
    let mut scheduler = CASES["configs"]["scheduler"].clone();
    if trailing {
        scheduler["timestep_spacing"] = "trailing".into();
    }
    write_json(&at.join("scheduler/scheduler_config.json"), &scheduler);
    let index = json!({
        "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
    });
    write_json(&at.join("model_index.json"), &index);
}

/// Writes the model as one file under LDM's names. `told`: with what no weight says, as this program
/// writes it.
pub fn single(path: &Path, told: bool) {
    let shape_of = |network: &str, name: &str| shape(&CASES["parameters"][network][name]);
    let mut tensors = Vec::new();
    for (name, made_of) in CASES["single"].as_object().unwrap() {
        let network = made_of[0].as_str().unwrap();
        let parts: Vec<String> = serde_json::from_value(made_of[1].clone()).unwrap();
        let mut shape = shape_of(network, &parts[0]);
        let mut values: Vec<f32> = Vec::new();
        for part in &parts {
            let shape = shape_of(network, part);
            values.extend(hashed::tensor(&format!("{network}/{part}"), &shape));
        }
        if parts.len() > 1 {
            shape[0] *= parts.len();
        }
        if name.ends_with(".text_projection") {
            let [rows, columns] = shape[..] else { panic!("a matrix") };
            let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
            values = turned.map(|at| values[at]).collect();
            shape.reverse();
        }
        if network == "vae" && name.contains(".attn_1.") && shape.len() == 2 {
            shape.extend([1, 1]);
        }
        tensors.push((name.clone(), of_values(&shape, &values)));
    }
    let mut metadata = BTreeMap::new();
    for (place, second) in [("tokenizer", false), ("tokenizer_2", true)] {
        for (name, text) in tokenizer(second).into_iter().filter(|_| told) {
            metadata.insert(format!("mixofshow.file.{place}/{name}"), text);
        }
    }
    checkpoint::write(path, &tensors, &metadata).unwrap();
}

/// A device for networks. Without cooperative matrices, which round to f16.
pub fn device() -> Device {
    chosen::device(Options { matrices: MatrixUse::Off, ..Options::default() })
}

pub fn load(path: &Path) -> Pipeline {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::load(&device(), &checkpoint, Precision::AsStored).unwrap_or_else(|e| panic!("{e}"))
}

/// The folder, written once.
pub fn at() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let made = tempfile::tempdir().unwrap();
        folder(made.path(), false);
        made
    });
    made.path()
}

/// One pipeline for all tests, taken in turns.
pub fn pipeline() -> MutexGuard<'static, Pipeline> {
    static PIPELINE: OnceLock<Mutex<Pipeline>> = OnceLock::new();
    PIPELINE.get_or_init(|| Mutex::new(load(at()))).lock().unwrap_or_else(|e| e.into_inner())
}
