//! Concepts and LoRAs from outside: `generate --concept`, `convert`, `inspect`.
use std::path::Path;

use mixofshow::checkpoint::{Checkpoint, ModelHash};
use mixofshow::concept::{Concept, Lora, Network, Update, UpdateSet, Word};
use mixofshow::graph::Array;
use mixofshow::picture::parameters;
use mixofshow::pipeline::text::Tokenizer;

use super::{SMALL, fixture, names, run};

/// Cross-attentions of the model that ships.
const LAYERS: usize = 16;

/// The model's embedding of a word that it knows, once for each layer.
pub(super) fn rows_of(word: &str) -> Array {
    let model = Checkpoint::shipped().unwrap();
    let tokenizer = Tokenizer::open(fixture("models/tiny/tokenizer")).unwrap();
    let id = tokenizer.token_id(&format!("{word}</w>")).unwrap() as usize;
    let table = model.text_encoder.tensor("text_model.embeddings.token_embedding.weight").unwrap();
    let width = table.shape()[1];
    let row = table.to_f32(id * width..(id + 1) * width);
    Array::f32([LAYERS, width], row.repeat(LAYERS))
}

pub(super) fn word(text: &str, rows: Array) -> Word {
    Word { initializer: Some("cat".into()), ..Word::new(text, rows) }
}

fn updates(layer: &str, shape: [usize; 2], size: f32) -> UpdateSet {
    let [out, into] = shape;
    let values = |n: usize| (0..n).map(|i| size * ((i * 37 % 19) as f32 / 9.0 - 1.0)).collect();
    let update = Update::Lora(Lora {
        down: Array::f32([2, into], values(2 * into)),
        up: Array::f32([out, 2], values(2 * out)),
    });
    UpdateSet::new([(layer.to_string(), update)])
}

/// `<cat1>` is the cat that the model knows; the updates are strong enough to be seen.
pub(super) fn concept() -> Concept {
    let model = Checkpoint::shipped().unwrap();
    let layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v";
    let shape = model.unet.shape(&format!("{layer}.weight")).unwrap();
    Concept {
        name: "kat".into(),
        words: vec![word("<cat1>", rows_of("cat"))],
        updates: [(Network::UNet, updates(layer, [shape[0], shape[1]], 0.7))].into(),
        base: Some(model.base_hash()),
        ..Concept::default()
    }
}

fn read(at: &Path, name: &str) -> Vec<u8> {
    // The picture without the text in its file.
    mixofshow::picture::Picture::open(at.join(name)).unwrap().rgb().to_vec()
}

#[test]
fn words_and_loras_make_pictures_that_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    concept().write(&at.join("kat.safetensors")).unwrap();
    let line = format!("generate --seed 3 {SMALL}");
    run(at, &format!("{line} -p cat -o @/plain.png")).ok();
    run(at, &format!("{line} -p <cat1> --concept @/kat.safetensors:0 -o @/word.png")).ok();
    assert_eq!(
        read(at, "plain.png"),
        read(at, "word.png"),
        "the same embedding under another name"
    );
    run(at, &format!("{line} -p <cat1> --concept @/kat.safetensors -o @/both.png")).ok();
    assert_ne!(read(at, "plain.png"), read(at, "both.png"));
    run(at, &format!("{line} -p cat --lora @/kat.safetensors:1.0 -o @/lora.png")).ok();
    assert_eq!(read(at, "both.png"), read(at, "lora.png"), "the LoRA acts without the words, too");

    // The two parts apart, and the same again from the file.
    let apart = format!("{line} -p <cat1> --concept @/kat.safetensors:unet=0.5,text=0");
    run(at, &format!("{apart} -o @/apart.png")).ok();
    assert_ne!(read(at, "both.png"), read(at, "apart.png"));
    run(at, "generate --like @/apart.png -o @/apart-again.png").ok();
    assert_eq!(read(at, "apart.png"), read(at, "apart-again.png"));
    let halves = format!("{line} -p <cat1> --concept @/kat.safetensors:unet=0.5,text=0.5");
    run(at, &format!("{halves} -o @/halves.png")).ok();
    run(at, &format!("{line} -p <cat1> --concept @/kat.safetensors:0.5 -o @/half.png")).ok();
    assert_eq!(read(at, "halves.png"), read(at, "half.png"));
    for wrong in ["kat.safetensors:vae=1", "kat.safetensors:unet=x"] {
        run(at, &format!("{line} -p a -c @/{wrong} -o @/no.png")).failed(2, &[wrong, "expected"]);
        run(at, &format!("fuse -c @/{wrong} -o @/no")).failed(2, &[wrong, "expected"]);
    }

    let web = parameters::read(at.join("both.png")).unwrap().unwrap();
    let told = web.get("Concepts").unwrap().to_string();
    assert!(told.starts_with("kat: ") && told.ends_with(" x 1"), "{told}");
    // Found again beside the picture, although it is not where it was.
    std::fs::create_dir(at.join("moved")).unwrap();
    for name in ["both.png", "kat.safetensors"] {
        std::fs::rename(at.join(name), at.join("moved").join(name)).unwrap();
    }
    run(at, "generate --like @/moved/both.png -o @/again.png").ok();
    assert_eq!(read(at, "again.png"), read(&at.join("moved"), "both.png"));
    std::fs::remove_file(at.join("moved/kat.safetensors")).unwrap();
    let lost = run(at, "generate --like @/moved/both.png -o @/no.png")
        .failed(1, &["kat.safetensors", "SHA-256", "--concept"]);
    assert!(lost.stdout.is_empty());
}

#[test]
fn concepts_that_do_not_fit_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate --seed 3 {SMALL} -p <cat1> -o @/a.png --concept");
    let mut other = concept();
    other.base = Some(ModelHash([0xab; 32]));
    other.write(&at.join("other.safetensors")).unwrap();
    let hash = Checkpoint::shipped().unwrap().base_hash().to_string();
    run(at, &format!("{line} @/other.safetensors"))
        .failed(1, &["`kat`", &"ab".repeat(32), &hash, "--force-base"]);
    run(at, &format!("{line} @/other.safetensors --force-base")).ok();

    // What cannot be forced is not offered.
    let second = Array::f32([LAYERS, 8], vec![0.0; LAYERS * 8]);
    other.words[0].rows.insert(Network::TextEncoder2, second);
    other.write(&at.join("xl.safetensors")).unwrap();
    let ran = run(at, &format!("{line} @/xl.safetensors")).failed(1, &["Stable Diffusion XL"]);
    assert!(!ran.stderr.contains("--force-base"), "{}", ran.stderr);
    run(at, "convert @/xl.safetensors @/no.safetensors --base tiny")
        .failed(1, &["Stable Diffusion XL"]);

    concept().write(&at.join("kat.safetensors")).unwrap();
    run(at, "convert @/kat.safetensors @/based.safetensors --base tiny").ok();
    let based = run(at, "inspect @/based.safetensors --json").ok().json();
    assert_eq!(based["lora"]["base"], hash);
    run(at, "convert @/kat.safetensors @/same.safetensors --to mix-of-show").ok();
    run(at, &format!("{line} @/kat.safetensors --concept @/same.safetensors"))
        .failed(1, &["<cat1>", "`kat`", "`same`", "--rename"]);
    run(at, "convert @/same.safetensors @/renamed.safetensors --rename <cat1>=<cat2>").ok();
    run(at, &format!("{line} @/kat.safetensors --concept @/renamed.safetensors")).ok();

    let bad = |name: &str, change: fn(&mut Concept)| {
        let mut concept = concept();
        change(&mut concept);
        concept.write(&at.join(name)).unwrap();
        run(at, &format!("{line} @/{name}"))
    };
    bad("short", |c| c.words[0] = word("<cat1>", Array::f32([3, 128], vec![0.0; 3 * 128])))
        .failed(1, &["<cat1>", "3 embeddings", "16"]);
    bad("narrow", |c| c.words[0] = word("<cat1>", Array::f32([16, 64], vec![0.0; 16 * 64])))
        .failed(1, &["<cat1>", "64 wide", "128"]);
    bad("missing", |c| {
        *c.updates.of_mut(Network::UNet) = updates("down_blocks.9.conv", [4, 4], 0.1)
    })
    .failed(1, &["`down_blocks.9.conv`", "does not have"]);
    bad("wide", |c| {
        *c.updates.of_mut(Network::UNet) =
            updates("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", [5, 5], 0.1);
    })
    .failed(1, &["prompts of width 5", "prompts of width 128"]);
    bad("norm", |c| *c.updates.of_mut(Network::UNet) = updates("conv_norm_out", [64, 64], 0.1))
        .failed(1, &["`conv_norm_out`"]);
    std::fs::write(at.join("text.safetensors"), "no tensors").unwrap();
    run(at, &format!("{line} @/text.safetensors")).failed(1, &["text.safetensors"]);
    run(at, &format!("{line} @/none.safetensors:0.5")).failed(1, &["none.safetensors"]);

    let warned = run(at, &format!("generate -p <cat7> --seed 1 {SMALL} -o @/b.png")).ok();
    assert!(warned.stderr.contains("<cat7>"), "{}", warned.stderr);
}

#[test]
fn files_are_translated_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let pth = fixture("tests/fixtures/concepts/mix-of-show.pth");
    std::fs::copy(pth, at.join("zorp.pth")).unwrap();
    let told = run(at, "inspect @/zorp.pth").ok().stdout;
    for part in ["concept", "mix-of-show", "<zorp1>", "<zorp2>", "rank"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // It is of a model with narrower prompts.
    run(at, "convert @/zorp.pth @/own.safetensors --base tiny").failed(1, &["width 8"]);
    run(at, "convert @/zorp.pth @/own.safetensors").ok();
    let own = run(at, "inspect @/own.safetensors --json").ok().json();
    assert_eq!(
        (own["what"].as_str(), own["lora"]["dialect"].as_str()),
        (Some("concept"), Some("mos"))
    );
    let report =
        run(at, "convert @/own.safetensors @/web/zorp.safetensors --to kohya --json").ok().json();
    assert_eq!(
        (report["from"].as_str(), report["to"].as_str(), &report["words"][1]),
        (Some("mos"), Some("kohya"), &"<zorp2>".into())
    );
    assert_eq!(
        names(&at.join("web")),
        ["zorp.safetensors", "zorp.zorp1.safetensors", "zorp.zorp2.safetensors"]
    );
    // A file that this program wrote is not in doubt for it.
    for to in ["kohya", "peft"] {
        run(at, &format!("convert @/own.safetensors @/{to}/zorp.safetensors --to {to} --replace"))
            .ok();
        let line = format!("convert @/{to}/zorp.safetensors @/{to}/back.safetensors");
        let back = run(at, &line).ok();
        assert_eq!(back.stderr, "", "{to}");
    }
    run(at, "convert @/own.safetensors @/back.pth.safetensors --to mix-of-show").ok();
    let (a, _) = mixofshow::concept::dialects::read(&at.join("zorp.pth")).unwrap();
    let (b, _) = mixofshow::concept::dialects::read(&at.join("back.pth.safetensors")).unwrap();
    assert_eq!((a.words, a.updates), (b.words, b.updates));

    let evil = fixture("tests/fixtures/concepts/evil.pth");
    std::fs::copy(evil, at.join("evil.pth")).unwrap();
    for command in [
        "inspect @/evil.pth",
        "convert @/evil.pth @/x.safetensors",
        "generate -p a --concept @/evil.pth -o @/x.png",
    ] {
        let ran = run(at, command).failed(1, &["evil.pth", "system`"]);
        assert!(!ran.stdout.contains("executed"));
    }
    run(at, "convert @/own.safetensors @/own.safetensors").failed(2, &["own.safetensors"]);
    assert_eq!(run(at, "convert @/own.safetensors @/x.safetensors --to magic").code, Some(2));
    run(at, "convert @/own.safetensors @/x.safetensors --rename <no>=<yes>")
        .failed(2, &["<no>", "<zorp1>, <zorp2>"]);
    run(at, "convert @/own.safetensors @/x.safetensors --rename <no>").failed(2, &["WORD=NEW"]);
    assert!(!at.join("x.safetensors").exists());
}
