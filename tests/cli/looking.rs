//! `mos devices` and `mos inspect`.
use super::{fixture, mos, ran, run};
use mixofshow::picture::{Picture, parameters};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

#[test]
fn devices_say_which_one_is_used() {
    let text = run(Path::new("."), "devices").ok().stdout;
    for row in ["back end", "threads", "vectors", "GFLOP/s", "precision"] {
        assert!(text.contains(row), "{row} in {text}");
    }
    let json = run(Path::new("."), "devices --json").ok().json();
    let adapters = json.as_array().unwrap();
    let chosen: Vec<_> = adapters.iter().filter(|a| a["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    // A driver that computes on the processor is not taken unless it is named; the processor itself
    // ends the list.
    assert_ne!(chosen[0]["kind"], "cpu");
    let (last, adapters) = adapters.split_last().unwrap();
    assert!(
        last["kind"] == "processor"
            && last["threads"].as_u64() >= Some(1)
            && last["gflops"].as_f64() > Some(0.0),
        "{last}"
    );
    for (number, adapter) in adapters.iter().enumerate() {
        for row in ["largest binding", "subgroups", "cooperative matrices", "timestamps", "kernels"]
        {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert!(adapter["max_binding"].as_u64().unwrap() >= 128 << 20);
        // Its number finds it, and its name, by part and in any case.
        let part: String =
            adapter["name"].as_str().unwrap().split(' ').next().unwrap().to_uppercase();
        for wanted in [&number.to_string(), &part] {
            let again =
                ran(mos().args(["devices", "--json"]).env("MOS_ADAPTER", wanted)).ok().json();
            let again = again.as_array().unwrap().iter().find(|a| a["chosen"] == true).unwrap();
            assert!(again["name"].as_str().unwrap().to_uppercase().contains(&part));
        }
    }
    for wanted in ["cpu", "CPU", &adapters.len().to_string()] {
        let again = ran(mos().args(["devices", "--json", "--adapter", wanted])).ok().json();
        assert_eq!(again.as_array().unwrap().last().unwrap()["chosen"], true, "{wanted}");
    }
}

#[test]
fn the_processor_without_some_of_its_instructions() {
    let level = |level: &str| ran(mos().args(["devices", "--json", "--cpu-level", level]));
    let json = level("scalar").ok().json();
    assert!(
        json.as_array().unwrap().last().unwrap()["instructions"]
            .as_str()
            .unwrap()
            .starts_with("no vector")
    );
    level("mmx").failed(2, &["`mmx`", "scalar", "avx2"]);
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let refused = level(foreign).failed(2, &["no", foreign]);
    assert!(!cfg!(target_arch = "x86_64") || !refused.stderr.contains("is scalar"));
}

#[cfg(target_os = "linux")]
#[test]
fn without_any_adapter_the_processor_computes() {
    let none = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, "/nonexistent"));
    let json = ran(mos().args(["devices", "--json"]).envs(none)).ok().json();
    assert!(json.as_array().unwrap().len() == 1 && json[0]["chosen"] == true, "{json}");
    let folder = tempfile::tempdir().unwrap();
    let small = ["generate", "-p", "x", "--size", "64x64", "--steps", "2", "-o", "x.png"];
    ran(mos().args(small).envs(none).current_dir(folder.path())).ok();
    assert_eq!(super::names(folder.path()), ["x.png"]);
    // An adapter that is named is wanted.
    for arguments in [&["devices"][..], &["generate", "-p", "x"]] {
        let folder = tempfile::tempdir().unwrap();
        let ran = ran(mos()
            .args(arguments)
            .args(["--adapter", "llvmpipe"])
            .envs(none)
            .current_dir(folder.path()));
        ran.failed(1, &["no graphics adapter found", "mesa-vulkan-drivers", "--adapter cpu"]);
        assert_eq!(super::names(folder.path()), [""; 0]);
    }
}

#[test]
fn inspect_tells_what_a_model_is() {
    let shipped = run(Path::new("."), "inspect").ok().stdout;
    assert!(
        shipped.contains("unet")
            && shipped.contains("cross_attention_dim")
            && shipped.contains("PNDMScheduler"),
        "{shipped}"
    );
    let folder = fixture("models/tiny");
    let text = ran(mos().arg("inspect").arg(&folder)).ok().stdout;
    assert!(text.contains("model folder (diffusers)"), "{text}");
    let single = fixture("tests/fixtures/checkpoint/sd1.safetensors");
    let text = ran(mos().arg("inspect").arg(&single).arg("--tensors")).ok().stdout;
    assert!(text.contains("single-file model (Stable Diffusion 1.x)"), "{text}");
    assert!(text.contains("time_embedding.linear_1.weight"), "{text}");
    let by_name =
        ran(mos().args(["inspect", "sd1"]).env("MOS_MODELS", fixture("tests/fixtures/checkpoint")))
            .ok()
            .stdout;
    assert!(by_name.contains("Stable Diffusion 1.x"), "{by_name}");
    let json = ran(mos().arg("inspect").arg(&single).arg("--json")).ok().json();
    assert_eq!(json["what"], "single-file-sd1");
    assert!(
        json["components"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "unet" && c["tensors"][0]["shape"].is_array())
    );
}

#[test]
fn inspect_tells_how_a_picture_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let picture = Picture::filled(16, 8, [1, 2, 3]).unwrap();
    let mut web = parameters::parse(
        "a red cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 12, \
            Size: 16x8, Mimic: 3",
    );
    picture.save(at.join("web.png"), Some(&web)).unwrap();
    picture.save(at.join("bare.png"), None).unwrap();
    let told = run(at, "inspect @/web.png").ok().stdout;
    for part in [
        "web.png: picture, 16x8",
        "--like",
        "prompt: a red cat",
        "negative prompt: blurry",
        "Seed: 12",
        "Mimic",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    web.mos = Some(serde_json::json!({"prompt": "a red cat", "steps": 20, "seed": 12}));
    picture.save(at.join("own.png"), Some(&web)).unwrap();
    let json = run(at, "inspect @/own.png --json").ok().json();
    assert_eq!((&json["mos"]["seed"], &json["width"]), (&12.into(), &16.into()));
    assert!(run(at, "inspect -v @/own.png").ok().stdout.contains("  seed: 12"));
    let told = run(at, "inspect @/bare.png").ok().stdout;
    assert!(told.contains("does not say how the picture was made"), "{told}");
}

#[test]
fn inspect_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "inspect @/none").failed(1, &["none", "no such file or folder"]);
    run(folder.path(), "inspect @").failed(1, &[folder.path().to_str().unwrap()]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("model.ckpt", b"PK\x03\x04and so on");
    run(folder.path(), "inspect @/model.ckpt")
        .failed(1, &["model.ckpt", "Python pickle", "directory"]);
    write("page.safetensors", b"<!DOCTYPE html><html>");
    run(folder.path(), "inspect @/page.safetensors").failed(1, &["page.safetensors", "HTML"]);
    write("lie.safetensors", &[255; 64]);
    run(folder.path(), "inspect @/lie.safetensors")
        .failed(1, &["lie.safetensors", "not a valid safetensors file"]);
    write("empty.safetensors", b"");
    run(folder.path(), "inspect @/empty.safetensors").failed(1, &["empty.safetensors"]);
}

/// By names and shapes these are concepts and LoRAs; they are read to the end.
#[test]
fn inspect_tells_of_concepts_and_loras_that_cannot_be_used() {
    use mixofshow::checkpoint::{TensorView, write};
    let folder = tempfile::tempdir().unwrap();
    let layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let [down, up] = ["down", "up"].map(|half| format!("{layer}.lora_{half}.weight"));
    let view = |name: &str, shape: [usize; 2], value: f32| {
        let values: Vec<f32> = vec![value; shape[0] * shape[1]];
        (name.to_string(), shape, values)
    };
    let used = |tensors: &[(String, [usize; 2], Vec<f32>)]| {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, shape, v)| {
                (name.clone(), TensorView::from_f32(shape.to_vec(), v).unwrap())
            })
            .collect();
        write(&folder.path().join("a.safetensors"), &views, &Default::default()).unwrap();
        let json = run(folder.path(), "inspect @/a.safetensors --json").ok().json();
        assert_eq!(json["what"], "lora");
        json["used"].as_str().unwrap().to_string()
    };
    let (a, b) = (view(&down, [2, 32], 0.5), view(&up, [32, 2], 0.5));
    assert!(used(&[a.clone(), b.clone()]).starts_with("--lora"));
    for (tensors, says) in [
        (vec![a.clone()], "the other half of the update is missing"),
        (vec![b], "without the first"),
        (vec![a.clone(), view(&up, [32, 2], f32::NAN)], "no numbers"),
        (vec![a, view(&up, [32, 2], f32::INFINITY)], "no numbers"),
    ] {
        let used = used(&tensors);
        assert!(used.starts_with("none as it is: ") && used.contains(says), "{says}: {used}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut command = mos();
    command.args(["inspect", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}
