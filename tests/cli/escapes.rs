//! What is read from files may hold anything; a terminal is never made to obey it.
use super::{SMALL, mos, ran, run};
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Clears the screen, sets the title, forges a line, turns the direction of writing.
const EVIL: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\rb\nerror: forged\n\u{9b}31m\u{202e}z\u{7f}";

#[track_caller]
fn harmless(ran: super::Ran) -> super::Ran {
    for text in [&ran.stdout, &ran.stderr] {
        let obeyed =
            |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.chars().any(obeyed), "{text:?}");
        assert!(
            text.lines().filter(|line| line.starts_with("error: forged")).count() == 0,
            "{text}"
        );
    }
    ran
}

fn write(path: &Path, names: &[&str]) {
    let data = [0u8; 16];
    let tensors = names.iter().map(|name| {
        (name.to_string(), TensorView::new(safetensors::Dtype::F32, vec![2, 2], &data).unwrap())
    });
    let metadata = HashMap::from([
        ("modelspec.title".to_string(), EVIL.to_string()),
        (EVIL.to_string(), "x".to_string()),
    ]);
    fs::write(path, safetensors::serialize(tensors, Some(metadata)).unwrap()).unwrap();
}

#[test]
fn files_cannot_speak_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(&at.join("plain.safetensors"), &[EVIL, "b"]);
    let kohya = ["down", "up"].map(|part| format!("lora_unet_{EVIL}.lora_{part}.weight"));
    write(&at.join("lora.safetensors"), &[&kohya[0], &kohya[1]]);
    let evil = at.join("a\u{1b}[2Jb\nerror: forged.safetensors");
    fs::copy(at.join("plain.safetensors"), &evil).unwrap();
    for file in [&at.join("plain.safetensors"), &at.join("lora.safetensors"), &evil] {
        for options in [&["inspect"][..], &["inspect", "--tensors", "-v"], &["inspect", "--json"]] {
            let told = harmless(ran(mos().args(options).arg(file)).ok());
            if options.contains(&"--json") {
                // Who reads it gets what it was.
                assert_eq!(told.json()["metadata"]["modelspec.title"], EVIL);
            } else {
                assert!(told.stdout.contains("\\u{1b}[2J"), "{}", told.stdout);
            }
        }
        harmless(ran(mos().args(["convert"]).arg(file).arg(at.join("out.safetensors"))));
        harmless(ran(mos().args(["generate", "-p", "x", "--concept"]).arg(file).current_dir(at)));
        harmless(ran(mos().args(["generate", "-p", "x", "-m"]).arg(file).current_dir(at)));
    }
    // Errors of files that quote them.
    fs::create_dir(at.join("model")).unwrap();
    let index = serde_json::json!({"_class_name": EVIL}).to_string();
    fs::write(at.join("model/model_index.json"), index).unwrap();
    harmless(run(at, "inspect @/model"));
    harmless(run(at, "generate -p x -m @/model"));
    for (name, text) in [
        ("a.toml", format!("{EVIL} = 1")),
        ("b.toml", format!("name = \"{EVIL}\"\nstep = 1")),
        ("c.toml", "x = 1\u{1b}[2J".into()),
    ] {
        fs::write(at.join(name), text).unwrap();
        for line in ["train", "fuse -o @/fused --list", "generate -p x --layout"] {
            let ran = harmless(run(at, &format!("{line} @/{name}")));
            assert_ne!(ran.code, Some(0));
        }
    }
}

#[test]
fn settings_of_pictures_and_names_of_results_are_shown_as_they_are_and_obeyed_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let picture = mixofshow::picture::Picture::filled(64, 64, [0; 3]).unwrap();
    let parameters = mixofshow::picture::Parameters {
        prompt: EVIL.replace('\n', " "),
        settings: [("Steps", "2"), ("Seed", "1"), ("Sampler", EVIL), ("Model", "\u{1b}[2J")]
            .map(|(key, value)| (key.to_string(), value.replace('\n', " ")))
            .to_vec(),
        ..Default::default()
    };
    picture.save(at.join("web.png"), Some(&parameters)).unwrap();
    harmless(run(at, &format!("generate --like @/web.png -m tiny {SMALL} -o @/a.png")));
    harmless(run(at, &format!("generate --like @/web.png {SMALL} -o @/a.png")));
    // To another program the name of a file is what it is.
    let name = at.join("a\u{1b}b.png");
    let told =
        ran(mos().args(["generate", "-q", "-p", "cat", "-o"]).arg(&name).args(SMALL.split(' ')))
            .ok();
    assert_eq!(told.stdout.trim_end(), name.to_str().unwrap());
    let told = harmless(
        ran(mos()
            .args(["generate", "--json", "-p", "cat", "-o"])
            .arg(&name)
            .args(SMALL.split(' ')))
        .ok(),
    );
    assert_eq!(told.json()["pictures"][0]["path"], name.to_str().unwrap());
}
