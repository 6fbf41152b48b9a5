//! Concepts of such a model: taught, and several of them in one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mixofshow::checkpoint::Network;
use mixofshow::concept::{Applied, Concept, Lora};
use mixofshow::graph::Array;
use mixofshow::picture::Picture;
use mixofshow::pipeline::{Pipeline, Request};

use super::model::{at, load, root};
use super::program::{json, mos, ok, text};

/// Settings for a few quick updates that change much.
fn settings(name: &str) -> String {
    format!(
        "words = \"<{name}1> <{name}2>\"\nclass_word = \"man\"\npictures = \"{name}-pictures\"\n\
         output = \"{name}.safetensors\"\nsize = \"64x64\"\nsteps = 3\nbatch = 1\n\
         sheet_every = 2\nsheet_steps = 1\nprompts = [\"<TOK> in a room\"]\n\
         words_lr = 1e-2\ntext_lr = 2e-2\nunet_lr = 2e-2\n"
    )
}

/// A folder with pictures, in which `zorp` and `brix` were learnt.
fn taught() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["zorp", "brix"] {
            let pictures = folder.path().join(format!("{name}-pictures"));
            fs::create_dir(&pictures).unwrap();
            for file in ["00.png", "00.txt", "01.png", "01.txt"] {
                let from = root().join("models/concepts").join(name).join(file);
                fs::copy(from, pictures.join(file)).unwrap();
            }
            let path = folder.path().join(format!("{name}.toml"));
            fs::write(&path, settings(name)).unwrap();
            ok(mos(&["train", text(&path), "-m", text(at())]));
        }
        folder
    });
    folder.path()
}

fn concept(name: &str) -> PathBuf {
    taught().join(format!("{name}.safetensors"))
}

#[test]
fn both_text_encoders_are_taught() {
    let concept = Concept::read(&concept("zorp")).unwrap();
    assert_eq!(concept.words.len(), 2);
    let attentions = 22;
    for (network, width) in [(Network::TextEncoder, 32), (Network::TextEncoder2, 48)] {
        for word in &concept.words {
            assert_eq!(word.rows(network).shape[..], [attentions, width], "{network}");
            let rows: Vec<&[f32]> = word.rows(network).values().chunks_exact(width).collect();
            assert_ne!(rows[0], rows[1], "{network}");
        }
    }
    // Of the first encoder's layers, the last is not read; of the second's, all are.
    let layers = |network| concept.updates.of(network).layers.len();
    assert_eq!([Network::TextEncoder, Network::TextEncoder2].map(layers), [4 * 2, 4 * 4]);
    assert_eq!(layers(Network::UNet), 2 * 4 * attentions);
    assert!(taught().join("zorp.training/sheet-000002.png").exists());

    // The same run, begun again, comes to the same bytes.
    let folder = tempfile::tempdir().unwrap();
    let path = taught().join("again.toml");
    let again = folder.path().join("zorp.safetensors");
    fs::write(&path, settings("zorp")).unwrap();
    ok(mos(&["train", text(&path), "-m", text(at()), "-o", text(&again)]));
    assert_eq!(fs::read(&again).unwrap(), fs::read(self::concept("zorp")).unwrap());
}

#[test]
fn what_cannot_be_taught_is_told_before_work() {
    let path = taught().join("wrong.toml");
    let wrong = settings("zorp").replace("\"man\"", "\"xylophone\"").replace("zorp.s", "x.s");
    fs::write(&path, wrong).unwrap();
    let failed = mos(&["train", text(&path), "-m", text(at()), "--check"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    // Once, though both encoders lack it.
    assert_eq!(told.matches("`xylophone` is not a single token").count(), 1, "{told}");
}

fn request(prompt: &str) -> Request {
    Request {
        prompt: prompt.into(),
        width: Some(64),
        height: Some(64),
        steps: 4,
        guidance: 3.0,
        seed: 5,
        ..Request::default()
    }
}

fn made(pipeline: &mut Pipeline, request: &Request) -> Picture {
    pipeline
        .generate(request, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap()
        .pictures
        .remove(0)
}

fn decibels(a: &Picture, b: &Picture) -> f64 {
    let pairs = a.rgb().iter().zip(b.rgb());
    let sum: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.rgb().len() as f64 / sum.max(1e-9)).log10()
}

/// Fuses these; the new model's folder.
fn fused(folder: &Path, concepts: &[PathBuf]) -> PathBuf {
    let (out, prompts) = (folder.join("fused"), folder.join("prompts.txt"));
    fs::write(&prompts, "a photo of {}\n{} in a room\n{}\n").unwrap();
    let mut arguments = vec!["fuse", "-m", text(at()), "-o", text(&out), "--size", "64x64"];
    arguments.extend(["--steps", "4", "--distillation", "1", "--prompts", text(&prompts)]);
    arguments.extend(["--keep", "none", "--json"]);
    concepts.iter().for_each(|concept| arguments.extend(["-c", text(concept)]));
    let report = json(&ok(mos(&arguments)))["report"].clone();
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().filter_map(|s| s["stage"].as_str()).collect();
    assert_eq!(stages, ["text", "text_2", "cross", "spatial"]);
    out
}

/// How near `model` comes to the model with the concept `name` beside it, and how near the model
/// with its words alone comes, both in decibels.
fn nearness(model: &mut Pipeline, name: &str) -> [f64; 2] {
    let prompt = format!("a photo of <{name}1> <{name}2>");
    let mut base = load(at());
    let mut beside = |scale| {
        let applied = Applied::new(Concept::read(&concept(name)).unwrap(), scale).unwrap();
        made(&mut base, &Request { concepts: vec![applied], ..request(&prompt) })
    };
    let (own, words) = (beside(1.0), beside(0.0));
    let found = [&made(model, &request(&prompt)), &words].map(|picture| decibels(picture, &own));
    println!("{name}: {:.1} dB, by its words alone {:.1} dB", found[0], found[1]);
    found
}

#[test]
fn one_concept_is_fused_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    // An update of a layer of which nothing reaches the UNet, as other programs make them.
    let mut taught = Concept::read(&concept("zorp")).unwrap();
    let part = |shape: [usize; 2]| Array::f32(shape, vec![0.5; 64]);
    let lora = Lora { down: part([2, 32]), up: part([32, 2]) };
    let layer = "text_model.encoder.layers.2.self_attn.q_proj".to_string();
    taught.updates.of_mut(Network::TextEncoder).layers.insert(layer, lora.into());
    let path = folder.path().join("zorp.safetensors");
    taught.write(&path).unwrap();
    let out = fused(folder.path(), &[path]);
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(out.join(path)).unwrap()).unwrap()
    };
    assert_eq!(read("model_index.json")["force_zeros_for_empty_prompt"], true);
    for name in ["text_encoder", "text_encoder_2"] {
        assert_eq!(read(&format!("{name}/config.json"))["vocab_size"], 2088 + 2 * 22, "{name}");
    }
    for name in ["tokenizer", "tokenizer_2"] {
        assert_eq!(read(&format!("{name}/added_tokens.json"))["<new0>"], 2088, "{name}");
    }
    let [fused, words] = nearness(&mut load(&out), "zorp");
    assert!(fused > 30.0 && words < 20.0, "{fused:.1} dB, {words:.1} dB");
}

#[test]
fn two_concepts_are_fused_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = load(&fused(folder.path(), &["zorp", "brix"].map(concept)));
    for name in ["zorp", "brix"] {
        let [fused, words] = nearness(&mut model, name);
        assert!(fused > words + 3.0, "{name}: {fused:.1} dB, {words:.1} dB");
    }
}
