//! Concepts of such a model: taught, and several of them in one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mixofshow::checkpoint::Network;
use mixofshow::concept::{Applied, Concept};
use mixofshow::picture::Picture;
use mixofshow::pipeline::{Pipeline, Request};

use super::model::{at, load, root};
use super::program::{json, mos, ok, text};

/// Settings for a few quick updates that change much.
fn settings(name: &str) -> String {
    format!(
        "words = \"<{name}1> <{name}2>\"\nclass_word = \"man\"\npictures = \"pictures\"\n\
         output = \"{name}.safetensors\"\nsize = \"64x64\"\nsteps = 3\nbatch = 2\n\
         sheet_every = 2\nsheet_steps = 1\nprompts = [\"<TOK> in a room\"]\n\
         words_lr = 1e-2\ntext_lr = 2e-2\nunet_lr = 2e-2\n"
    )
}

/// A folder with pictures, in which `zorp` and `blix` were learnt.
fn taught() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pictures")).unwrap();
        for name in ["00", "01"] {
            for ending in ["png", "txt"] {
                let name = format!("{name}.{ending}");
                let from = root().join("models/concepts/zorp").join(&name);
                fs::copy(from, folder.path().join("pictures").join(&name)).unwrap();
            }
        }
        for name in ["zorp", "blix"] {
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
    let wrong = settings("wrong").replace("\"man\"", "\"xylophone\"");
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

#[test]
fn concepts_are_fused_into_both_text_encoders_and_the_unet() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("fused");
    let fused = ok(mos(&[
        "fuse",
        "-c",
        text(&concept("zorp")),
        "-c",
        text(&concept("blix")),
        "-m",
        text(at()),
        "-o",
        text(&out),
        "--size",
        "64x64",
        "--steps",
        "4",
        "--distillation",
        "1",
        "--json",
    ]));
    let report = json(&fused);
    println!("{report}");
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("model_index.json")).unwrap()).unwrap();
    assert_eq!(index["force_zeros_for_empty_prompt"], true);
    for name in ["text_encoder", "text_encoder_2"] {
        let config = fs::read(out.join(name).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["vocab_size"], 2088 + 4 * 22, "{name}");
    }
    let (mut base, mut both) = (load(at()), load(&out));
    for name in ["zorp", "blix"] {
        let prompt = format!("a photo of <{name}1> <{name}2>");
        let applied = Applied::new(Concept::read(&concept(name)).unwrap(), 1.0).unwrap();
        let own = made(&mut base, &Request { concepts: vec![applied.clone()], ..request(&prompt) });
        let words = Applied::new(Concept::read(&concept(name)).unwrap(), 0.0).unwrap();
        let plain = made(&mut base, &Request { concepts: vec![words], ..request(&prompt) });
        let together = made(&mut both, &request(&prompt));
        let (fused, without) = (decibels(&together, &own), decibels(&plain, &own));
        println!("{name}: {fused:.1} dB, without updates {without:.1} dB");
        assert!(fused > without + 3.0, "{name}: {fused:.1} dB, without updates {without:.1} dB");
    }
}
