//! `mos generate`: second passes, small autoencoders, previews, plans and budgets.
use super::{SMALL, names, run};
use mixofshow::checkpoint::{TensorView, write};
use mixofshow::picture::{Picture, parameters};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes tensors of these names and shapes, small and always the same.
fn save(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let count = |shape: &[usize]| shape.iter().product::<usize>();
    let value = |i: usize| ((i * 37 % 101) as f32 / 101.0 - 0.5) * 0.5;
    let values: Vec<Vec<f32>> =
        tensors.iter().map(|(_, shape)| (0..count(shape)).map(value).collect()).collect();
    let views: Vec<(String, TensorView)> = tensors
        .iter()
        .zip(&values)
        .map(|((name, shape), values)| {
            (name.clone(), TensorView::from_f32(shape.clone(), values).unwrap())
        })
        .collect();
    write(path, &views, &BTreeMap::new()).unwrap();
}

fn conv(name: &str, from: usize, to: usize, bias: bool) -> Vec<(String, Vec<usize>)> {
    let mut both = vec![(format!("{name}.weight"), vec![to, from, 3, 3])];
    both.extend(bias.then(|| (format!("{name}.bias"), vec![to])));
    both
}

/// A small autoencoder's decoder as its author names it.
fn tiny_vae(path: &Path) {
    let mut all = conv("1", 4, 4, true);
    (0..3).for_each(|i| all.extend(conv(&format!("3.conv.{}", 2 * i), 4, 4, true)));
    [5, 7].iter().for_each(|i| all.extend(conv(&i.to_string(), 4, 4, false)));
    all.extend(conv("9", 4, 3, true));
    save(path, &all);
}

/// An upscaler by two in the layout of old.
fn upscaler(path: &Path) {
    let mut all = conv("model.0", 3, 4, true);
    for rdb in 1..=3 {
        for i in 1..=5 {
            let name = format!("model.1.sub.0.RDB{rdb}.conv{i}.0");
            all.extend(conv(&name, 4 + 2 * (i - 1), if i < 5 { 2 } else { 4 }, true));
        }
    }
    all.extend(conv("model.1.sub.1", 4, 4, true));
    all.extend(conv("model.3", 4, 4, true));
    all.extend(conv("model.5", 4, 4, true));
    all.extend(conv("model.7", 4, 3, true));
    save(path, &all);
}

fn size(at: &Path, name: &str) -> (u32, u32) {
    let picture = Picture::open(at.join(name)).unwrap();
    (picture.width(), picture.height())
}

#[test]
fn a_larger_picture_is_made_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate -p cat --seed 7 {SMALL}");
    run(at, &format!("{line} --hires 1.5 --hires-strength 0.6 --hires-steps 3 -o @/a.png")).ok();
    assert_eq!(size(at, "a.png"), (96, 96));
    let told = parameters::read(at.join("a.png")).unwrap().unwrap();
    for (name, value) in [
        ("Hires upscale", "1.5"),
        ("Hires steps", "3"),
        ("Hires upscaler", "Latent"),
        ("Denoising strength", "0.6"),
        ("Size", "64x64"),
    ] {
        assert_eq!(told.get(name), Some(value), "{name}");
    }
    run(at, "generate --like @/a.png -o @/b.png").ok();
    assert_eq!(std::fs::read(at.join("a.png")).unwrap(), std::fs::read(at.join("b.png")).unwrap());
    run(at, "generate --like @/a.png --hires 1 -o @/c.png").ok();
    assert_eq!(size(at, "c.png"), (64, 64));

    upscaler(&at.join("up.safetensors"));
    let with = "--hires 2 --hires-upscaler @/up.safetensors";
    run(at, &format!("{line} {with} -o @/d.png")).ok();
    assert_eq!(size(at, "d.png"), (128, 128));
    let told = parameters::read(at.join("d.png")).unwrap().unwrap();
    assert_eq!(told.get("Hires upscaler"), Some("up"));
    run(at, "generate --like @/d.png -o @/e.png").ok();
    assert_eq!(std::fs::read(at.join("d.png")).unwrap(), std::fs::read(at.join("e.png")).unwrap());

    run(at, &format!("{line} --hires-steps 3")).failed(2, &["--hires-steps", "--hires FACTOR"]);
    run(at, &format!("{line} --hires 0.5")).failed(2, &["--hires", "1 to 16"]);
    run(at, &format!("{line} --hires 2 --hires-upscaler magic"))
        .failed(2, &["--hires-upscaler magic", "latent-bicubic"]);
    run(at, &format!("{line} --hires 2 -i @/a.png")).failed(2, &["--hires", "--init-image"]);
    tiny_vae(&at.join("tiny.safetensors"));
    run(at, &format!("{line} --hires 2 --hires-upscaler @/tiny.safetensors"))
        .failed(1, &["tiny.safetensors", "ESRGAN"]);
}

#[test]
fn small_autoencoders_decode() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    tiny_vae(&at.join("tiny.safetensors"));
    let line = format!("generate -p cat --seed 7 {SMALL}");
    run(at, &format!("{line} --vae @/tiny.safetensors -o @/a.png")).ok();
    run(at, &format!("{line} -o @/plain.png")).ok();
    let open = |name: &str| Picture::open(at.join(name)).unwrap();
    assert_ne!(open("a.png"), open("plain.png"));
    assert_eq!(size(at, "a.png"), (64, 64));
    run(at, "generate --like @/a.png -o @/b.png").ok();
    assert_eq!(open("a.png"), open("b.png"));
    upscaler(&at.join("up.safetensors"));
    run(at, &format!("{line} --vae @/up.safetensors")).failed(1, &["up.safetensors", "TAESD"]);
    run(at, &format!("{line} --vae @/none.safetensors")).failed(1, &["none.safetensors"]);
}

#[test]
fn previews_go_to_a_file_and_leave_the_picture_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = "generate -p cat --seed 7 --size 64x64 --steps 4 --sampler euler";
    run(at, &format!("{line} -o @/plain.png")).ok();
    let shown = run(at, &format!("{line} --preview 2 -o @/a.png")).ok();
    assert!(shown.stderr.contains("previews go to"), "{}", shown.stderr);
    run(at, &format!("{line} --preview 1 --preview-file @/now.png -b 2 -o @/b.png")).ok();
    let expected = ["a-preview.png", "a.png", "b-1.png", "b-2.png", "now.png", "plain.png"];
    assert_eq!(names(at), expected);
    let open = |name: &str| Picture::open(at.join(name)).unwrap();
    assert_eq!(open("a.png"), open("plain.png"));
    assert_eq!(size(at, "a-preview.png"), (64, 64));
    run(at, &format!("{line} --preview 0")).failed(2, &["--preview", "from 1 on"]);
    run(at, &format!("{line} --preview-file @/x.png")).failed(2, &["--preview"]);
    run(at, &format!("{line} --preview 1 -o -")).failed(2, &["--preview-file"]);
    run(at, &format!("{line} --preview 1 --preview-file @/a.png -o @/a.png"))
        .failed(2, &["a.png", "two results"]);
}

#[test]
fn a_plan_is_printed_and_nothing_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate -p cat --seed 7 {SMALL} -o @/a.png");
    let plan = run(at, &format!("{line} --plan")).ok();
    for part in ["device", "1 of 64x64", "text encoder", "UNet", "at most"] {
        assert!(plan.stdout.contains(part), "{part} in {}", plan.stdout);
    }
    assert_eq!(names(at), [""; 0]);
    let json = run(at, &format!("{line} --plan --json")).ok().json();
    let number = |name: &str| json["bytes"][name].as_u64().unwrap();
    let parts = number("text_encoder") + number("unet") + number("autoencoder");
    assert!(number("peak") > parts && json["costs"].as_array().unwrap().is_empty());
    // What lies between: weights are given up, and the picture is the same.
    let least = number("peak") - number("text_encoder") - number("autoencoder");
    let within = run(at, &format!("{line} --memory {least} --json")).ok().json();
    assert!(within["peak_device_bytes"].as_u64().unwrap() <= least, "{within}");
    let tight = run(at, &format!("{line} --memory {least} --plan")).ok().stdout;
    assert!(tight.contains("cost") && tight.contains("text encoder's weights"), "{tight}");
    run(at, &format!("generate -p cat --seed 7 {SMALL} -o @/b.png")).ok();
    let open = |name: &str| Picture::open(at.join(name)).unwrap();
    assert_eq!(open("a.png"), open("b.png"));
    // Less than the UNet has: what does not fit comes anew with each call.
    let less = least - number("unet") / 4;
    let plan = run(at, &format!("{line} --memory {less} --plan")).ok().stdout;
    for part in ["of the UNet", "come with each call", "weights come anew", "packed from"] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let json = run(at, &format!("{line} --memory {less} --plan --json")).ok().json();
    assert!(json["bytes"]["streamed_each_call"].as_u64().unwrap() > 0, "{json}");
    let line = line.replace("a.png", "c.png");
    let streamed = run(at, &format!("{line} --memory {less} --json")).ok().json();
    assert!(streamed["peak_device_bytes"].as_u64().unwrap() <= less, "{streamed}");
    assert_eq!(open("c.png"), open("b.png"));
    run(at, &format!("{line} --memory 1M")).failed(2, &["memory is 1 MiB", "at least"]);
    run(at, &format!("{line} --memory much")).failed(2, &["--memory", "6G"]);
}
