//! Models in other formats: told, used, made; and broken ones, within a limit of memory.
use std::path::Path;

use mixofshow::checkpoint::{DType, TensorFile};

use super::foreign::copy;
use super::{SMALL, fixture, run};

fn pixels(at: &Path, name: &str) -> Vec<u8> {
    mixofshow::picture::Picture::open(at.join(name)).unwrap().rgb().to_vec()
}

/// Peak signal to noise, in decibels.
fn likeness(a: &[u8], b: &[u8]) -> f64 {
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let error = a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64;
    10.0 * (255.0 * 255.0 / error.max(1e-10)).log10()
}

#[test]
fn models_are_made_smaller_and_make_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate --seed 3 {SMALL} -p cat");
    run(at, &format!("{line} -o @/plain.png")).ok();
    let plain = pixels(at, "plain.png");
    for (name, dtype, decibels) in [
        ("tiny.safetensors", "f16", 60.0),
        ("tiny-f16.gguf", "f16", 60.0),
        ("tiny-q8_0.gguf", "q8_0", 30.0),
        ("tiny-q4_k.gguf", "q4_k", 18.0),
        ("tiny-q4_0.gguf", "q4_0", 12.0),
    ] {
        let said = run(at, &format!("convert tiny @/{name} --quantize {dtype}")).ok();
        assert!(said.stderr.contains("t2i_adapter"), "what is left out: {}", said.stderr);
        run(at, &format!("{line} -m @/{name} -o @/{name}.png")).ok();
        let found = likeness(&pixels(at, &format!("{name}.png")), &plain);
        assert!(found >= decibels, "{name}: {found} dB");
    }
    let size = |name: &str| std::fs::metadata(at.join(name)).unwrap().len();
    assert!(size("tiny-q8_0.gguf") < size("tiny-f16.gguf"));
    assert!(size("tiny-q4_0.gguf") < size("tiny-q8_0.gguf"));
    let told = run(at, "inspect @/tiny-q8_0.gguf").ok().stdout;
    assert!(told.contains("single-file model") && told.contains("Q8_0"), "{told}");
    let json = run(at, "inspect @/tiny-q4_k.gguf --json").ok().json();
    assert!(json["memory"]["weights"].as_u64() > Some(1 << 20), "{}", json["memory"]);
    let json = run(at, "convert @/tiny-f16.gguf @/again.gguf --quantize q4_0 --json").ok().json();
    assert!(json["types"]["Q4_0"].as_u64() > Some(100), "{json}");
    let bytes = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert_eq!(bytes("again.gguf"), bytes("tiny-q4_0.gguf"), "whatever it was made of");

    // Concepts are tuned for them as for any other, and LoRAs act.
    let file = TensorFile::open_any(&at.join("tiny-q8_0.gguf")).unwrap();
    let of = |name: &str| file.tensor(name).unwrap().dtype();
    let block = "model.diffusion_model.middle_block.1.transformer_blocks.0";
    assert_eq!(of(&format!("{block}.attn2.to_k.weight")), DType::Q8_0);
    assert_eq!(of(&format!("{block}.norm1.weight")), DType::F32);

    for (line, says) in [
        ("convert tiny @/a.safetensors --quantize q8_0", ".gguf"),
        ("convert tiny @/a.bin --quantize f16", ".gguf"),
        ("convert tiny --quantize f16", "two files"),
        ("convert tiny @/tiny-f16.gguf --quantize f16", "--replace"),
        ("convert @/tiny-f16.gguf @/tiny-f16.gguf --quantize q8_0 --replace", "tiny-f16.gguf"),
    ] {
        run(at, line).failed(2, &[says]);
    }
    for line in ["--quantize q2", "--quantize f16 --rank 3", "--quantize f16 --to kohya"] {
        assert_eq!(run(at, &format!("convert tiny @/b.gguf {line}")).code, Some(2), "{line}");
    }
    run(at, "convert @/none @/b.gguf --quantize f16").failed(1, &["none"]);
    assert!(!at.join("b.gguf").exists());
}

/// As transformers writes tokenizers today: one file, and no vocabulary beside it.
#[test]
fn a_tokenizer_of_one_file_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy(&fixture("models/tiny"), &at.join("model"));
    for name in ["vocab.json", "merges.txt"] {
        std::fs::remove_file(at.join("model/tokenizer").join(name)).unwrap();
    }
    run(at, "convert @/model @/model.safetensors --quantize f16").ok();
    let line = format!("generate --seed 3 {SMALL} -p cat");
    run(at, &format!("{line} -m @/model -o @/folder.png")).ok();
    run(at, &format!("{line} -m @/model.safetensors -o @/file.png")).ok();
    assert!(likeness(&pixels(at, "folder.png"), &pixels(at, "file.png")) >= 60.0);
}

#[test]
fn a_pickled_model_is_told_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::copy(fixture("tests/fixtures/files/sd1.ckpt"), at.join("model.ckpt")).unwrap();
    let told = run(at, "inspect @/model.ckpt").ok().stdout;
    assert!(told.contains("single-file model (Stable Diffusion 1.x)"), "{told}");
    run(at, "convert @/model.ckpt @/model.gguf --quantize q8_0").ok();
    let told = run(at, "inspect @/model.gguf").ok().stdout;
    assert!(told.contains("single-file model (Stable Diffusion 1.x)"), "{told}");
}

/// Broken files of each kind: refused by name, or read, in little memory and soon.
#[cfg(target_os = "linux")]
#[test]
fn broken_files_are_refused_by_name() {
    use super::bombs::limited;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let files = [
        ("files/sd1.gguf", "a.gguf", "inspect @/a.gguf"),
        ("files/sd1.ckpt", "a.ckpt", "inspect @/a.ckpt"),
        ("files/sd1.ckpt", "b.ckpt", "convert @/b.ckpt @/o.gguf --quantize q4_0 --replace"),
        ("kinds/loha.safetensors", "loha.safetensors", "convert @/loha.safetensors @/o --replace"),
        ("kinds/lokr.safetensors", "lokr.safetensors", "inspect @/lokr.safetensors"),
        ("kinds/dora.safetensors", "dora.safetensors", "convert @/dora.safetensors @/o --replace"),
        ("kinds/full.safetensors", "full.safetensors", "convert @/full.safetensors @/o --replace"),
        ("kinds/ia3.safetensors", "ia3.safetensors", "convert @/ia3.safetensors @/o --replace"),
    ];
    for (from, name, line) in files {
        let valid = std::fs::read(fixture("tests/fixtures").join(from)).unwrap();
        let cut = [0, 1, 7, 24, 200, valid.len() / 3, valid.len() - 64];
        let wrong = |at: usize, with: u8| {
            let mut bytes = valid.clone();
            bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = with);
            bytes
        };
        let mut broken: Vec<(Vec<u8>, bool)> =
            cut.iter().map(|length| (valid[..*length].to_vec(), true)).collect();
        // Counts, lengths and places at the beginning and at the end, as large as can be.
        for place in [8, 16, 24, 40, 100, 400, valid.len() - 12, valid.len() - 40] {
            broken.push((wrong(place, 0xff), false));
            broken.push((wrong(place, b'9'), false));
        }
        for (bytes, is_certain) in broken {
            std::fs::write(at.join(name), &bytes).unwrap();
            let ran = limited(at, line);
            match ran.code {
                Some(0) if !is_certain => {}
                _ => drop(ran.failed(1, &[name])),
            }
        }
    }
}
