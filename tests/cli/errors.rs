//! `mos generate` where something is wrong: each failure has its own words, ends with 1 (2 where
//! what was asked for is out of range), and leaves nothing behind.
use super::{SMALL, fixture, mos, names, ran, run};
use safetensors::tensor::{SafeTensors, TensorView};
use std::fs;
use std::path::{Path, PathBuf};

/// A copy of the embedded model in `folder/model`; large files are links.
fn model(folder: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap().path();
            let to = to.join(entry.file_name().unwrap());
            if entry.is_dir() {
                copy(&entry, &to);
            } else if fs::hard_link(&entry, &to).is_err() {
                fs::copy(&entry, &to).unwrap();
            }
        }
    }
    let to = folder.join("model");
    copy(&fixture("models/tiny"), &to);
    to
}

/// Replaces a file instead of writing into the one it is a link to.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn with_config(folder: &Path, component: &str, change: impl Fn(&mut serde_json::Value)) {
    let path = model(folder).join(component).join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    replace(&path, config.to_string().as_bytes());
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// Fails on the model in the folder, and writes no picture.
fn refused(folder: &Path, says: &[&str]) {
    run(folder, &format!("generate -p cat -m @/model {SMALL} -o @/out/cat.png")).failed(1, says);
    assert!(!folder.join("out").exists());
}

#[test]
fn models_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run(at, "generate -p cat -m @/none.safetensors -o @/cat.png")
        .failed(1, &["none.safetensors", "no such file or folder"]);
    let line = ["generate", "-p", "cat", "-m", "mine"];
    ran(mos().args(line).env("MOS_MODELS", at).current_dir(at))
        .failed(1, &["mine", at.to_str().unwrap()]);
    run(at, "generate -p cat -m @/models/tiny -o @/cat.png").failed(1, &["`tiny`"]);
    assert_eq!(names(at), [""; 0]);
}

#[test]
fn models_that_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let vae = model(at).join(VAE);
    let whole = fs::read(&vae).unwrap();
    replace(&vae, &whole[..whole.len() / 2]);
    refused(at, &[VAE, "incomplete download"]);

    let tensors = SafeTensors::deserialize(&whole).unwrap();
    let name = "decoder.conv_in.weight";
    let others: Vec<_> = tensors.tensors().into_iter().filter(|(n, _)| n != name).collect();
    replace(&vae, &safetensors::serialize(others, None).unwrap());
    refused(at, &["vae", name, "missing"]);

    let turned = |(other, view): (String, TensorView)| {
        let mut shape = view.shape().to_vec();
        if other == name {
            shape.swap(0, 1);
        }
        let data = tensors.tensor(&other).unwrap().data();
        (other, TensorView::new(view.dtype(), shape, data).unwrap())
    };
    let changed: Vec<_> = tensors.tensors().into_iter().map(turned).collect();
    replace(&vae, &safetensors::serialize(changed, None).unwrap());
    refused(at, &["vae", name, "shape"]);

    fs::remove_file(&vae).unwrap();
    refused(at, &["vae", "diffusion_pytorch_model.safetensors"]);
}

#[test]
fn a_guidance_that_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    replace(&model(at).join("generation_config.json"), br#"{"guidance_scale": "high"}"#);
    refused(at, &["generation_config.json", "guidance_scale", "\"high\"", "number"]);
}

#[test]
fn configurations_that_contradict() {
    let cases: [(&str, &str, serde_json::Value, &[&str]); 4] = [
        ("unet", "cross_attention_dim", 192.into(), &["unet", "cross_attention_dim", "192"]),
        ("unet", "layers_per_block", 3.into(), &["unet", "missing"]),
        ("text_encoder", "hidden_act", "cubic".into(), &["text_encoder", "hidden_act", "cubic"]),
        ("vae", "block_out_channels", serde_json::json!([0, 1]), &["vae", "block_out_channels"]),
    ];
    for (component, key, value, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        with_config(folder.path(), component, |config| config[key] = value.clone());
        refused(folder.path(), says);
    }
    let folder = tempfile::tempdir().unwrap();
    replace(&model(folder.path()).join("unet/config.json"), b"{ \"in_channels\": ");
    refused(folder.path(), &["unet/config.json", "JSON"]);
}

#[test]
fn requests_that_cannot_be_met() {
    let cases: [(&str, &[&str]); 26] = [
        ("--size 101x64", &["width", "101", "multiple of"]),
        ("--size 64x0", &["--size", "64x0", "1 to 16384"]),
        ("--size -64x64", &["--size", "-64x64"]),
        ("--size 64000x64000", &["--size", "64000"]),
        ("--width 0", &["--width", "1 to 16384"]),
        ("--steps 0", &["--steps", "from 1 on"]),
        ("--steps -3", &["--steps", "-3"]),
        ("--steps 2000", &["2000", "1 to 1000"]),
        ("--batch 0", &["batch", "0"]),
        ("--sampler ddim --karras", &["ddim", "Karras"]),
        ("--sampler euler --eta 0.5", &["euler", "eta"]),
        ("--sampler lcm --schedule beta", &["lcm", "Beta", "euler"]),
        ("--schedule ays", &["--schedule", "ays", "exponential"]),
        ("--schedule beta --karras", &["--schedule", "--karras"]),
        ("--guidance-rescale 1.5", &["--guidance-rescale", "0 to 1"]),
        ("--guidance-from 0.6 --guidance-until 0.5", &["guidance from and until", "0.6 to 0.5"]),
        ("--cache 0", &["--cache", "from 1 on"]),
        ("--sampler ddim --eta 2", &["--eta", "2", "0 to 1"]),
        ("--clip-skip 100", &["clip", "100"]),
        ("--guidance NaN", &["--guidance", "NaN"]),
        ("-g -1", &["--guidance", "-1", "from 0 on"]),
        ("--seed -2", &["--seed", "-2", "random"]),
        ("--tile -8", &["--tile", "-8"]),
        ("--region -0.1,0,1,1:cat", &["--region", "left -0.1", "none below 0"]),
        ("--control :image=a.png", &["--control", "no network"]),
        ("--control net:image=a.png,end=1.5", &["--control", "end is 1.5"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (options, says) in cases {
        let size = if options.contains("--size") { "" } else { "--size 64x64" };
        run(folder.path(), &format!("generate -p cat {size} {options} -o @/cat.png"))
            .failed(2, says);
    }
    let adapter = "generate -p cat --size 64x64 --adapter nothing-has-this-name -o @/cat.png";
    run(folder.path(), adapter).failed(2, &["nothing-has-this-name", "there are"]);
    assert_eq!(names(folder.path()), [""; 0]);
    let weight = ["generate", "-p", "(cat:1000)", "--size", "64x64"];
    ran(mos().args(weight).current_dir(folder.path())).failed(2, &["cat", "1000"]);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn inputs_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("text.png"), "no picture").unwrap();
    fs::write(at.join("noise.safetensors"), "no noise").unwrap();
    let grey = fixture("tests/fixtures/pictures/grey.png");
    fs::copy(&grey, at.join("grey.png")).unwrap();
    fs::write(at.join("cut.png"), &fs::read(&grey).unwrap()[..60]).unwrap();
    fs::write(at.join("photo.png"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs::write(at.join("page.toml"), "<!DOCTYPE html><html></html>").unwrap();
    fs::write(at.join("empty.safetensors"), "").unwrap();
    fs::copy(&grey, at.join("model.safetensors")).unwrap();
    let before = names(at);
    run(at, "generate -p x --init-image @/grey.png --strength 1.5 --size 64x64 -o @/out.png")
        .failed(2, &["--strength", "1.5"]);
    let cases: [(&str, &[&str]); 15] = [
        ("-p x --init-image @/photo.png", &["photo.png", "this is a HEIC picture"]),
        ("-p x --init-image @/page.toml", &["page.toml", "this is an HTML page"]),
        ("-p x --layout @/page.toml", &["page.toml", "this is an HTML page", "expected a layout"]),
        ("-p x -m @/model.safetensors", &["model.safetensors", "this is a PNG picture"]),
        ("-p x -c @/model.safetensors", &["model.safetensors", "this is a PNG picture"]),
        ("-p x --latents @/empty.safetensors", &["empty.safetensors", "the file is empty"]),
        (
            "-p x --control @/model.safetensors:image=@/grey.png",
            &["model.safetensors", "this is a PNG picture"],
        ),
        ("-p x --init-image @/none.png", &["none.png", "No such file"]),
        ("-p x --init-image @/text.png", &["text.png", "not a picture"]),
        ("-p x --init-image @/cut.png", &["cut.png", "damaged"]),
        ("-p x --init-image @/grey.png --mask @/text.png", &["text.png", "not a picture"]),
        (
            "-p x --latents @/noise.safetensors",
            &["noise.safetensors", "not a valid safetensors file"],
        ),
        ("--like @/none.png", &["none.png"]),
        ("--like @/text.png", &["text.png"]),
        ("--like @/grey.png", &["grey.png", "does not say how"]),
    ];
    for (options, says) in cases {
        run(at, &format!("generate {options} -o @/out.png")).failed(1, says);
    }
    assert_eq!(names(at), before);
}

#[test]
fn latents_of_another_size() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let data = vec![0; 4 * 3 * 3 * 4];
    let view = TensorView::new(safetensors::Dtype::F32, vec![1, 4, 3, 3], &data).unwrap();
    fs::write(
        at.join("noise.safetensors"),
        safetensors::serialize([("latents", view)], None).unwrap(),
    )
    .unwrap();
    run(at, "generate -p x --size 64x64 --latents @/noise.safetensors -o @/x.png")
        .failed(1, &["--latents", "noise.safetensors", "[1, 4, 3, 3]", "expected [1, 4, 8, 8]"]);
}

/// All of these are found before the model is opened: no work is lost.
#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("file"), "").unwrap();
    fs::create_dir(at.join("folder.png")).unwrap();
    let cases: [(&str, &[&str]); 4] = [
        // Another name would do: wrong usage.
        ("-o @/cat.jpg", &["cat.jpg", "PNG"]),
        ("-o @/file/cat.png", &["file", "cannot be written"]),
        ("-o @/cat.png --save-latents @/file/x.safetensors", &["file", "cannot be written"]),
        (
            "-o @/cat.png --save-latents @/folder.png",
            &["folder.png", "cannot be written", "directory"],
        ),
    ];
    for (options, says) in cases {
        run(at, &format!("generate -p cat -m /nonexistent {options}")).failed(2, says);
    }
    assert_eq!(names(at), ["file", "folder.png"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run(at, &format!("generate -p cat {SMALL} -o /dev/full"))
        .failed(1, &["/dev/full", "No space left"]);
    // A limit on the size of files is what a disk that fills up during the write looks like.
    fs::write(at.join("cat.png"), "the older picture").unwrap();
    let line = format!(
        "ulimit -f 1; trap '' XFSZ; exec \"$0\" generate -p cat {SMALL} -o \"$1\" -m \"$2\""
    );
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", &line, env!("CARGO_BIN_EXE_mos")])
        .arg(at.join("cat.png"))
        .arg(fixture("models/tiny"));
    let limited = ran(&mut limited);
    limited.failed(1, &["cat.png", "cannot be written"]);
    assert_eq!(names(at), ["cat.png"]);
    assert_eq!(fs::read(at.join("cat.png")).unwrap(), b"the older picture");
}

/// Threads that cannot be meant are told; any number that can makes the same bytes.
#[test]
fn numbers_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let with = |threads: &str, output: &str| {
        let line = format!("--adapter cpu generate -p cat --seed 3 {SMALL} -o");
        let mut command = mos();
        command.env("RAYON_NUM_THREADS", threads).args(line.split(' '));
        ran(command.arg(folder.path().join(output)))
    };
    for wrong in ["-1", "two", "100000"] {
        let made = with(wrong, "wrong.png");
        assert_eq!(made.code, Some(1), "{wrong}: {}", made.stderr);
        assert!(made.stderr.contains("RAYON_NUM_THREADS"), "{}", made.stderr);
        assert!(made.stderr.contains(wrong), "{}", made.stderr);
    }
    assert!(!folder.path().join("wrong.png").exists());
    for (threads, output) in [("1", "one.png"), ("64", "many.png")] {
        let made = with(threads, output);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("one.png") == read("many.png"));
}
