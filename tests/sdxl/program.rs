//! The program from outside, with such a model.

use std::path::Path;
use std::process::{Command, Output};

use super::concepts::lora;
use super::model::{at, root};

pub fn mos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mos"));
    command.env_remove("MOS_MODELS").args(["--adapter", "cpu"]).args(arguments);
    command.output().unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn ok(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn sizes_are_told_recorded_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.png", "b.png", "c.png"].map(|name| folder.path().join(name));
    let model = text(at());
    let usual = ["generate", "-m", model, "-p", "a red cat", "--size", "64x64", "--steps", "2"];
    let with = |more: &[&str]| ok(mos(&[&usual[..], &["--seed", "3"], more].concat()));
    with(&["-o", text(&a), "--original-size", "512x256", "--crop", "12,34"]);
    with(&["-o", text(&b)]);
    let like = ok(mos(&["generate", "--like", text(&a), "-o", text(&c), "--json"]));
    let settings = &json(&like)["settings"];
    assert_eq!(settings["original_size"], serde_json::json!([512, 256]));
    assert_eq!(settings["crop"], serde_json::json!([12, 34]));
    let pixels = |path: &Path| mixofshow::picture::Picture::open(path).unwrap();
    assert!(pixels(&a) == pixels(&c) && pixels(&a) != pixels(&b));
    let wrong = mos(&[&usual[..], &["-o", text(&b), "--crop", "12"]].concat());
    assert_eq!(wrong.status.code(), Some(2));
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("--crop") && told.contains("0,128"), "{told}");
    // Other models are told nothing.
    let tiny = ok(mos(&[
        "generate",
        "-p",
        "a red cat",
        "--size",
        "64x64",
        "--steps",
        "1",
        "-o",
        text(&b),
        "--crop",
        "1,2",
    ]));
    assert!(String::from_utf8_lossy(&tiny.stderr).contains("left out"));
}

#[test]
fn concepts_of_another_kind_end_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let lora = lora(folder.path(), "peft");
    let a = folder.path().join("a.png");
    let failed = mos(&["generate", "-p", "a cat", "--lora", text(&lora), "-o", text(&a)]);
    assert_eq!(failed.status.code(), Some(1));
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(told.contains("was made for") && told.contains("Stable Diffusion XL"), "{told}");
    let inspected = ok(mos(&["inspect", text(&lora), "--json"]));
    let lora = &json(&inspected)["lora"];
    assert_eq!(lora["made_for"], "sdxl");
    assert!(lora["layers"]["text_encoder_2"].as_u64().unwrap() > 10);
    let of_one = root().join("tests/fixtures/concepts/kohya.safetensors");
    let failed =
        mos(&["generate", "-m", text(at()), "-p", "a", "--lora", text(&of_one), "-o", text(&a)]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("Stable Diffusion XL"));
}
