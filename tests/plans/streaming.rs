//! Stable Diffusion XL on small cards, planned with files that have no numbers in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use mixofshow::backend::wgpu::api::Limits;
use mixofshow::backend::wgpu::{Gpu, Options, Selection};
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::graph::Origin;
use mixofshow::pipeline::{Pipeline, Request};
use serde_json::{Value, json};

use super::published::{self, Built};

/// A file of f16 that takes no room: all that it has is its header.
fn hollow(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>() * 2;
        let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let header = Value::from(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

fn network(folder: &Path, stem: &str, class: &str, config: &Value, graphs: &[Built]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut config = config.clone();
    config[if class.starts_with("clip") { "model_type" } else { "_class_name" }] = class.into();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let nodes = graphs.iter().flat_map(|built| built.graph.nodes());
    let shapes = nodes.filter_map(|node| match &node.origin {
        Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
        _ => None,
    });
    hollow(&folder.join(format!("{stem}.safetensors")), &shapes.collect());
}

/// Stable Diffusion XL as a folder.
fn write(at: &Path) {
    let unet = published::unet_xl();
    let built = [published::unet("UNet", &unet, 1, 32, 32, false)];
    let stem = "diffusion_pytorch_model";
    network(&at.join("unet"), stem, "UNet2DConditionModel", &unet, &built);
    let mut vae = published::autoencoder();
    let types = |name: &str| json!(vec![name; 4]);
    vae["down_block_types"] = types("DownEncoderBlock2D");
    vae["up_block_types"] = types("UpDecoderBlock2D");
    let built = [published::decoder("VAE", &vae, 64, 64), published::encoder("VAE", &vae, 64, 64)];
    network(&at.join("vae"), stem, "AutoencoderKL", &vae, &built);
    for (folder, config) in
        [("text_encoder", published::text_1()), ("text_encoder_2", published::text_xl())]
    {
        let built = [published::text("text", &config, 1)];
        network(&at.join(folder), "model", "clip_text_model", &config, &built);
    }
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer");
    for place in ["tokenizer", "tokenizer_2"] {
        std::fs::create_dir_all(at.join(place)).unwrap();
        for name in ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"]
        {
            std::fs::copy(tokenizer.join(name), at.join(place).join(name)).unwrap();
        }
    }
    std::fs::create_dir_all(at.join("scheduler")).unwrap();
    let scheduler = json!({"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085,
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "timestep_spacing": "leading"});
    std::fs::write(at.join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
    let index = json!({"_class_name": "StableDiffusionXLPipeline"});
    std::fs::write(at.join("model_index.json"), index.to_string()).unwrap();
}

/// A device that runs nothing, with bindings as large as cards have them.
fn card() -> Device {
    let limits = Limits {
        max_storage_buffer_binding_size: 2 << 30,
        max_buffer_size: 4 << 30,
        ..Limits::default()
    };
    let selection = Selection::Noop(Box::new(limits));
    Gpu::open(&Options { selection, ..Options::default() }).unwrap().into()
}

const GIB: u64 = 1 << 30;

#[test]
fn stable_diffusion_xl_is_made_within_four_gigabytes() {
    let made = tempfile::tempdir().unwrap();
    write(made.path());
    let checkpoint = Checkpoint::open(made.path()).unwrap_or_else(|e| panic!("{e}"));
    let pipeline = Pipeline::load(&card(), &checkpoint, Precision::AsStored).unwrap();
    let request = |memory: Option<u64>, batch: usize| Request {
        prompt: "a red cat".into(),
        width: Some(1024),
        height: Some(1024),
        batch,
        memory,
        ..Request::default()
    };
    let all = request(None, 1);
    let all = pipeline.prepare(&all).unwrap_or_else(|e| panic!("{e}")).memory();
    assert!(all.peak > 7 * GIB && all.streaming.is_none(), "{all:?}");
    assert!((4 * GIB..6 * GIB).contains(&all.unet), "{all:?}");
    // Nothing but what is not at work is given up where that is enough.
    let six = request(Some(6 * GIB), 1);
    let six = pipeline.prepare(&six).unwrap_or_else(|e| panic!("{e}"));
    assert!(six.memory().streaming.is_none() && six.memory().peak <= 6 * GIB);
    let mut before = u64::MAX;
    for budget in [3 * GIB, 4 * GIB, 5 * GIB] {
        let request = request(Some(budget), 1);
        let prepared = pipeline.prepare(&request).unwrap_or_else(|e| panic!("{e}"));
        let memory = prepared.memory();
        let held = memory.streaming.expect("some come and go");
        println!("{budget}: {memory:?}");
        assert!(memory.peak <= budget, "{memory:?}");
        // What a budget has room for stays.
        assert!(held.bytes() + memory.sampling + GIB / 2 > budget, "{memory:?}");
        assert!(held.streamed < before && held.stays + held.streamed + GIB > memory.unet);
        before = held.streamed;
        let cost = pipeline.streaming(&prepared).unwrap().unwrap();
        assert_eq!((cost.each, cost.calls), (held.streamed, prepared.shape().calls));
    }
    // Four at once where weights come anew with each call.
    let four = request(Some(6 * GIB), 4);
    let four = pipeline.prepare(&four).unwrap_or_else(|e| panic!("{e}"));
    assert!(four.shape().at_once > 1 && four.memory().peak <= 6 * GIB, "{:?}", four.memory());
    let none = request(Some(GIB / 2), 1);
    let error = pipeline.prepare(&none).err().unwrap().to_string();
    assert!(error.contains("at least"), "{error}");
}
