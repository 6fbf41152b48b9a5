//! Changes that are no LoRA: in pictures, made LoRAs of, told.
use std::path::Path;

use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Concept, LoHa, Lora, Network, Piece, Update, UpdateSet, Word};
use mixofshow::graph::Array;

use super::{SMALL, mos, ran, run};

const LAYER: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v";
const TEXT: &str = "text_model.encoder.layers.0.mlp.fc1";

fn shape(network: Network, layer: &str) -> [usize; 2] {
    let model = Checkpoint::shipped().unwrap();
    let component = if network == Network::UNet { model.unet } else { model.text_encoder };
    component.shape(&format!("{layer}.weight")).unwrap().try_into().unwrap()
}

fn loha([out, into]: [usize; 2]) -> Update {
    let values =
        |n: usize, of: usize| (0..n).map(move |i| ((i * of % 19) as f32 / 9.0 - 1.0) * 0.8);
    let half = |of| Lora {
        down: Array::f32([2, into], values(2 * into, of).collect()),
        up: Array::f32([out, 2], values(2 * out, of + 2).collect()),
    };
    Update::LoHa(LoHa([half(37), half(41)]))
}

/// The same change, whole.
fn whole(update: &Update, shape: [usize; 2]) -> Update {
    let mut values = vec![0.0; shape[0] * shape[1]];
    let piece = Piece { shape: &shape, range: 0..values.len() };
    update.add_to(1.0, &piece, &[], &mut values);
    Update::Full(Array::f32(shape, values))
}

/// A concept of a word, with a change of one layer of each network.
fn concept(name: &str, make: fn(&Update, [usize; 2]) -> Update) -> Concept {
    let of = |network, layer: &str| {
        let shape = shape(network, layer);
        (network, UpdateSet::new([(layer.to_string(), make(&loha(shape), shape))]))
    };
    let updates = [of(Network::UNet, LAYER), of(Network::TextEncoder, TEXT)];
    let row = Array::f32([1, 128], (0..128).map(|i| (i % 7) as f32 * 0.02).collect());
    Concept {
        name: name.into(),
        words: vec![Word::new("<thing>", row)],
        updates: updates.into(),
        ..Concept::default()
    }
}

fn write(at: &Path) {
    concept("loha", |update, _| update.clone()).write(&at.join("loha.safetensors")).unwrap();
    concept("whole", whole).write(&at.join("whole.safetensors")).unwrap();
}

fn pixels(at: &Path, name: &str) -> Vec<u8> {
    mixofshow::picture::Picture::open(at.join(name)).unwrap().rgb().to_vec()
}

#[test]
fn pictures_are_made_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at);
    let line = format!("generate --seed 3 {SMALL} -p cat");
    let make = |name: &str, options: &str| {
        let said = run(at, &format!("{line} {options} -o @/{name}")).ok().stderr;
        (pixels(at, name), said)
    };
    let plain = make("plain.png", "").0;
    let loha = make("loha.png", "--lora @/loha.safetensors").0;
    assert_ne!(loha, plain);
    assert_eq!(make("whole.png", "--lora @/whole.safetensors").0, loha, "the same weights");
    assert_eq!(make("off.png", "--lora @/loha.safetensors:0").0, plain);
    let half = make("half.png", "--lora @/loha.safetensors:0.5").0;
    assert!(half != loha && half != plain);
    assert_ne!(make("text.png", "--lora @/loha.safetensors:unet=0,text=1").0, plain);

    // Where it is to act on a part of the picture, what is of low rank does.
    let regional = |name: &str, file: &str| {
        let place = |file: &str| at.join(file).to_str().unwrap().to_string();
        let (concept, output) = (place(file), place(name));
        let mut command = mos();
        command.args(["generate", "--seed", "3", "-p", "snow", "--region", "0,0,0.5,1: a <thing>"]);
        command.args(["--concept", &concept, "-o", &output]);
        let said = ran(command.args(SMALL.split(' '))).ok().stderr;
        (pixels(at, name), said)
    };
    let (narrow, said) = regional("narrow.png", "loha.safetensors");
    assert!(!said.contains("whole picture"), "{said}");
    let (wide, said) = regional("wide.png", "whole.safetensors");
    for part in ["`whole`", "UNet", "text encoder", "whole picture", "--rank"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_ne!(narrow, wide);
}

#[test]
fn loras_are_made_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at);
    let told = run(at, "inspect @/loha.safetensors").ok().stdout;
    assert!(told.contains("loha") && told.contains("<thing>"), "{told}");

    let made = run(at, "convert @/whole.safetensors @/lora.safetensors --rank 4").ok();
    for part in ["UNet: a LoRA of rank 4 misses 0.00 %", "text encoder: a LoRA of rank 4"] {
        assert!(made.stderr.contains(part), "{part} in {}", made.stderr);
    }
    let told = run(at, "inspect @/lora.safetensors").ok().stdout;
    assert!(told.contains("rank    4 (2 layers)"), "{told}");
    let json = "convert @/whole.safetensors @/less.safetensors --rank 1 --json";
    let missed = run(at, json).ok().json()["missed"]["unet"].as_f64().unwrap();
    assert!((0.01..0.9).contains(&missed), "{missed}");

    // A picture with the LoRA is that of what it was made of.
    let line = format!("generate --seed 3 {SMALL} -p cat");
    run(at, &format!("{line} --lora @/whole.safetensors -o @/a.png")).ok();
    run(at, &format!("{line} --lora @/lora.safetensors -o @/b.png")).ok();
    let (a, b) = (pixels(at, "a.png"), pixels(at, "b.png"));
    let worst = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(2), "{worst:?}");

    // Several become one.
    let other = Concept { words: Vec::new(), ..concept("other", |update, _| update.scaled(-0.5)) };
    other.write(&at.join("other.safetensors")).unwrap();
    let both = "convert -c @/lora.safetensors:0.5 -c @/other.safetensors @/both.safetensors";
    run(at, both).ok();
    let told = run(at, "inspect @/both.safetensors").ok().stdout;
    assert!(told.contains("rank    8 (2 layers)"), "{told}");
    assert!(told.contains("mos_merged"), "{told}");
    // Half of the one and half of the other, which is its opposite: nothing is left.
    run(at, &format!("{line} -o @/plain.png")).ok();
    run(at, &format!("{line} --lora @/both.safetensors -o @/none.png")).ok();
    let (a, b) = (pixels(at, "plain.png"), pixels(at, "none.png"));
    assert!(a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max() <= Some(1));

    for (line, code, says) in [
        ("convert @/loha.safetensors @/x.safetensors --to peft", 1, &["LoHa", "--rank"][..]),
        ("convert @/loha.safetensors @/x.safetensors --to mix-of-show", 1, &["LoHa", "--rank"]),
        ("convert -c @/whole.safetensors -c @/other.safetensors @/x.safetensors", 1, &["`whole`"]),
        ("convert -c @/loha.safetensors -c @/whole.safetensors @/x.safetensors", 1, &["<thing>"]),
        ("convert -c @/loha.safetensors @/lora.safetensors @/x.safetensors", 2, &["one file"]),
        ("convert @/loha.safetensors", 2, &["two files"]),
        ("convert -c @/loha.safetensors:x=1 @/x.safetensors", 2, &["x"]),
        ("fuse -c @/whole.safetensors -c @/kat.safetensors -o @/x", 1, &["kat.safetensors"]),
    ] {
        run(at, line).failed(code, says);
    }
    assert_eq!(run(at, "convert @/loha.safetensors @/x.safetensors --rank 0").code, Some(2));
    run(at, "fuse -c @/whole.safetensors -o @/x").failed(1, &["full difference", "--rank"]);
}
