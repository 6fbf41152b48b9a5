//! Files of other programs: embeddings, LoRAs as folders, pictures that tell how they were made.
use std::collections::BTreeMap;
use std::path::Path;

use mixofshow::checkpoint::{TensorView, write};

use super::{SMALL, fixture, names, run};

type Tensors<'a> = Vec<(&'a str, Vec<usize>, f32)>;

/// A safetensors file of tensors that count up from a number in small steps.
fn save(path: &Path, tensors: &Tensors) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let values = |shape: &[usize], from: f32| -> Vec<f32> {
        (0..shape.iter().product::<usize>())
            .map(|i| from * (((i * 37) % 19) as f32 / 9.0 - 1.0))
            .collect()
    };
    let all: Vec<_> =
        tensors.iter().map(|(name, shape, from)| (name, shape, values(shape, *from))).collect();
    let views: Vec<_> = all
        .iter()
        .map(|(name, shape, v)| {
            (name.to_string(), TensorView::from_f32(shape.to_vec(), v).unwrap())
        })
        .collect();
    write(path, &views, &BTreeMap::new()).unwrap();
}

/// Width of the text encoder of the model that ships.
const WIDTH: usize = 128;
const TO_Q: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

#[test]
fn embeddings_act_however_their_names_are_spelt() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    save(&at.join("EasyNegative.safetensors"), &vec![("emb_params", vec![3, WIDTH], 0.1)]);
    save(&at.join("only.safetensors"), &vec![("clip_l", vec![2, WIDTH], 0.1)]);
    save(
        &at.join("xl.safetensors"),
        &vec![("clip_l", vec![2, 768], 0.1), ("clip_g", vec![2, 1280], 0.1)],
    );
    let latents = |name: &str, words: &[&str], more: &str| {
        let line = format!(
            "generate --seed 1 {SMALL} -g 1 --sampler euler {more} --save-latents @/{name} -o \
                @/a.png -p"
        );
        let folder = at.to_str().unwrap();
        let mut command = super::mos();
        command
            .args(line.split_whitespace().map(|word| word.replace('@', folder)))
            .arg(words.join(" "));
        let ran = super::ran(&mut command).ok();
        (std::fs::read(at.join(name)).unwrap(), ran.stderr)
    };
    let easy = "--concept @/EasyNegative.safetensors";
    let plain = latents("0", &["a EasyNegative cat"], "").0;
    let (as_named, said) = latents("1", &["a EasyNegative cat"], easy);
    assert!(!said.contains("EasyNegative"), "{said}");
    assert_ne!(as_named, plain);
    assert_eq!(latents("2", &["a easynegative cat"], easy).0, as_named);
    let (weighted, said) = latents("3", &["a (EasyNegative:1.2) cat"], easy);
    assert!(!said.contains("warning"), "{said}");
    assert_ne!(weighted, as_named);
    assert_eq!(
        latents("4", &["a (EasyNegative:1.2) cat"], &format!("{easy} --prompt-syntax on")).0,
        weighted
    );
    // One whose word is nowhere is told, and so is one that is read by no encoder.
    let (unused, said) = latents("5", &["a EasyNegativeV2 cat"], easy);
    assert!(
        said.contains("no prompt has a word of `EasyNegative`") && said.contains("does nothing"),
        "{said}"
    );
    assert_eq!(unused, latents("6", &["a EasyNegativeV2 cat"], "").0);
    let (_, said) = latents("7", &["a cat"], &format!("{easy} -n EasyNegative"));
    assert!(
        said.contains("no prompt has a word"),
        "without guidance nothing reads the negative prompt: {said}"
    );
    let (used, said) = latents("8", &["a only cat"], "--concept @/only.safetensors");
    assert!(!said.contains("no prompt"), "{said}");
    assert_ne!(used, latents("9", &["a only cat"], "").0);
    run(at, "generate -p xl --concept @/xl.safetensors -o @/a.png")
        .failed(1, &["`xl`", "was made for Stable Diffusion XL"]);
    for (file, kind) in [
        ("only", "word only: 2 vectors"),
        ("EasyNegative", "word EasyNegative: 3"),
        ("xl", "textual inversion (Stable Diffusion XL)"),
        ("xl", "use: --concept"),
    ] {
        let told = run(at, &format!("inspect @/{file}.safetensors")).ok().stdout;
        assert!(told.contains(kind), "{told}");
    }
    let pickled = fixture("tests/fixtures/concepts/inversion.pt");
    std::fs::copy(pickled, at.join("ink.pt")).unwrap();
    let told = run(at, "inspect @/ink.pt --json").ok().json();
    let converted = run(at, "convert @/ink.pt @/ink.safetensors --json").ok().json();
    assert_eq!(told["words"][0]["word"], converted["words"][0], "one word in both");
}

#[test]
fn loras_of_folders_are_taken_where_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let peft = |name: &str| {
        let [a, b] = ["A", "B"].map(|half| format!("base_model.model.{TO_Q}.lora_{half}.weight"));
        save(
            &at.join(name).join("adapter_model.safetensors"),
            &vec![(&a, vec![4, 40], 0.5), (&b, vec![40, 4], 0.5)],
        );
        std::fs::write(
            at.join(name).join("adapter_config.json"),
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 16}"#,
        )
        .unwrap();
    };
    peft("ink");
    peft("models--owner--ink/snapshots/0123");
    let said = run(at, "convert @/ink/adapter_model.safetensors @/one.safetensors").ok().stderr;
    assert!(said.contains("alpha is 16, by adapter_config.json"), "{said}");
    let told = run(at, "inspect @/one.safetensors").ok().stdout;
    assert!(told.contains("alpha   4 (1 layer)"), "{told}");
    let told = run(at, "inspect @/ink").ok().stdout;
    assert!(told.contains("LoRA: peft names") && told.contains("alpha   16"), "{told}");
    let picture = |lora: &str| {
        run(at, &format!("generate --seed 3 {SMALL} -p cat --lora {lora} -o @/a.png")).ok();
        mixofshow::picture::Picture::open(at.join("a.png")).unwrap().rgb().to_vec()
    };
    let strong = picture("@/one.safetensors");
    assert_eq!(picture("@/ink"), strong);
    assert_eq!(picture("@/models--owner--ink:1.0"), strong);
    run(at, "convert @/models--owner--ink @/two.safetensors").ok();
    std::fs::remove_file(at.join("ink/adapter_config.json")).unwrap();
    let said = run(at, "convert @/ink @/three.safetensors").ok().stderr;
    assert!(said.contains("no alpha was found"), "{said}");
    assert_ne!(picture("@/ink"), strong);
    run(at, "generate -p cat --lora @ -o @/a.png").failed(1, &["files that could be meant"]);

    // A model of Hugging Face's cache.
    let cache = at.join("models--owner--model");
    std::fs::create_dir_all(cache.join("snapshots")).unwrap();
    copy(&fixture("tests/fixtures/checkpoint/folder"), &cache.join("snapshots/45"));
    let told = run(at, "inspect @/models--owner--model").ok().stdout;
    assert!(told.contains("model folder (diffusers)"), "{told}");
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn pictures_of_other_programs_are_read_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let picture = |name: &str, keyword: &str, text: &str| {
        let file = std::fs::File::create(at.join(name)).unwrap();
        let mut encoder = png::Encoder::new(file, 1, 1);
        encoder.add_text_chunk(keyword.to_string(), text.to_string()).unwrap();
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
    };
    let graph = r#"{"3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 2, "cfg": 1, "sampler_name": "euler",
        "scheduler": "normal", "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5",
        0]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red cat"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}}}"#;
    picture("comfy.png", "prompt", graph);
    let ran = run(at, "generate --like @/comfy.png -m tiny -o @/a.png --json").ok();
    assert!(ran.stderr.contains("made by ComfyUI"), "{}", ran.stderr);
    let line = format!("generate --seed 5 {SMALL} -g 1 --sampler euler -o @/b.png -p");
    let mut command = super::mos();
    command
        .args(line.split_whitespace().map(|word| word.replace('@', at.to_str().unwrap())))
        .arg("a red cat");
    super::ran(&mut command).ok();
    let open =
        |name: &str| mixofshow::picture::Picture::open(at.join(name)).unwrap().rgb().to_vec();
    assert_eq!(open("a.png"), open("b.png"));
    picture("workflow.png", "workflow", "{}");
    run(at, "generate --like @/workflow.png -o @/c.png").failed(1, &["workflow.png", "ComfyUI"]);
    picture("dream.png", "Dream", "\"a cat\" -s 5");
    run(at, "generate --like @/dream.png -o @/c.png").failed(1, &["dream.png", "InvokeAI"]);
}

#[test]
fn words_are_bundled_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let pth = fixture("tests/fixtures/concepts/mix-of-show.pth");
    std::fs::copy(pth, at.join("zorp.pth")).unwrap();
    let has_words = |name: &str| {
        run(at, &format!("inspect @/{name} --json")).ok().stdout.contains("bundle_emb")
    };
    run(at, "convert @/zorp.pth @/plain.safetensors --to kohya").ok();
    run(at, "convert @/zorp.pth @/bundled.safetensors --to kohya --bundle-words").ok();
    assert_eq!([has_words("plain.safetensors"), has_words("bundled.safetensors")], [false, true]);
    assert!(at.join("plain.zorp1.safetensors").exists());
    run(at, "convert @/zorp.pth @/x.safetensors --bundle-words")
        .failed(2, &["--bundle-words", "--to kohya"]);
}
