//! `mos devices` and `mos inspect`.
use super::{fixture, mos, ran, run};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

#[test]
fn devices_say_which_one_is_used() {
    let text = run(Path::new("."), "devices").ok().stdout;
    for row in ["back end", "largest binding", "subgroups", "cooperative matrices", "timestamps", "precision", "kernels"] {
        assert!(text.contains(row), "{row} in {text}");
    }
    let json = run(Path::new("."), "devices --json").ok().json();
    let adapters = json.as_array().unwrap();
    let chosen: Vec<_> = adapters.iter().filter(|a| a["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    assert!(chosen[0]["max_binding"].as_u64().unwrap() >= 128 << 20);
    // Its own name finds it again, by part and in any case.
    let name = chosen[0]["name"].as_str().unwrap();
    let part: String = name.split(' ').next().unwrap().to_uppercase();
    let again = ran(mos().args(["devices", "--json"]).env("MOS_ADAPTER", &part)).ok().json();
    let again = again.as_array().unwrap().iter().find(|a| a["chosen"] == true).unwrap();
    assert!(again["name"].as_str().unwrap().to_uppercase().contains(&part));
}

#[cfg(target_os = "linux")]
#[test]
fn without_any_adapter_it_says_what_to_install() {
    let none = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, "/nonexistent"));
    for arguments in [&["devices"][..], &["generate", "-p", "x"]] {
        let folder = tempfile::tempdir().unwrap();
        let ran = ran(mos().args(arguments).envs(none).current_dir(folder.path()));
        ran.failed(1, &["no graphics adapter found", "mesa-vulkan-drivers"]);
        assert_eq!(super::names(folder.path()), [""; 0]);
    }
}

#[test]
fn inspect_tells_what_a_model_is() {
    let shipped = run(Path::new("."), "inspect").ok().stdout;
    assert!(
        shipped.contains("unet") && shipped.contains("cross_attention_dim") && shipped.contains("PNDMScheduler"),
        "{shipped}"
    );
    let folder = fixture("models/tiny");
    let text = ran(mos().arg("inspect").arg(&folder)).ok().stdout;
    assert!(text.contains("model folder (diffusers)"), "{text}");
    let single = fixture("tests/fixtures/checkpoint/sd1.safetensors");
    let text = ran(mos().arg("inspect").arg(&single).arg("--tensors")).ok().stdout;
    assert!(text.contains("single-file model (Stable Diffusion 1.x)"), "{text}");
    assert!(text.contains("time_embedding.linear_1.weight"), "{text}");
    let by_name = ran(mos().args(["inspect", "sd1"]).env("MOS_MODELS", fixture("tests/fixtures/checkpoint"))).ok().stdout;
    assert!(by_name.contains("Stable Diffusion 1.x"), "{by_name}");
    let json = ran(mos().arg("inspect").arg(&single).arg("--json")).ok().json();
    assert_eq!(json["what"], "single-file-sd1");
    assert!(json["components"].as_array().unwrap().iter().any(|c| c["name"] == "unet" && c["tensors"][0]["shape"].is_array()));
}

#[test]
fn inspect_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "inspect @/none").failed(1, &["none", "no such file or folder"]);
    run(folder.path(), "inspect @").failed(1, &[folder.path().to_str().unwrap()]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("model.ckpt", b"PK\x03\x04and so on");
    run(folder.path(), "inspect @/model.ckpt").failed(1, &["model.ckpt", "Python pickle", "directory"]);
    write("page.safetensors", b"<!DOCTYPE html><html>");
    run(folder.path(), "inspect @/page.safetensors").failed(1, &["page.safetensors", "HTML"]);
    write("lie.safetensors", &[255; 64]);
    run(folder.path(), "inspect @/lie.safetensors").failed(1, &["lie.safetensors", "not a valid safetensors file"]);
    write("empty.safetensors", b"");
    run(folder.path(), "inspect @/empty.safetensors").failed(1, &["empty.safetensors"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let single = fixture("tests/fixtures/checkpoint/sd1.safetensors");
    let mut command = mos();
    command.args(["inspect", "--json"]).arg(single).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}
