//! `mos generate` where all goes well.
use super::{SMALL, mos, names, ran, run};
use mixofshow::picture::{Picture, parameters, psnr};
use std::path::Path;

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect(name)
}

fn mos_settings(folder: &Path, name: &str) -> serde_json::Value {
    parameters::read(folder.join(name)).unwrap().unwrap().mos.unwrap()
}

#[test]
fn the_same_seed_gives_the_same_file_and_like_gives_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate -p cat --negative dog --seed 7 --sampler euler --karras -g 5.5 {SMALL}");
    let first = run(at, &format!("{line} -o @/first.png")).ok();
    assert_eq!(first.stdout.trim(), at.join("first.png").to_str().unwrap());
    // The closing line.
    for part in ["64x64", "seed 7", "euler", "2 steps", "sample", "decode", "device memory"] {
        assert!(first.stderr.contains(part), "{part} in {}", first.stderr);
    }
    run(at, &format!("{line} -o @/second.png")).ok();
    run(at, "generate --like @/first.png -o @/third.png").ok();
    assert_eq!(read(at, "first.png"), read(at, "second.png"));
    assert_eq!(read(at, "first.png"), read(at, "third.png"));
    assert_eq!(names(at), ["first.png", "second.png", "third.png"]);

    let web = parameters::read(at.join("first.png")).unwrap().unwrap();
    assert_eq!((web.prompt.as_str(), web.negative_prompt.as_str()), ("cat", "dog"));
    assert_eq!(web.get("Sampler"), Some("Euler"));
    assert_eq!((web.get("Seed"), web.get("CFG scale"), web.size()), (Some("7"), Some("5.5"), Some((64, 64))));
    assert_eq!(mos_settings(at, "first.png")["model"]["name"], "tiny");

    // What is given changes what the file says, and nothing else.
    run(at, "generate --like @/first.png --seed 8 --karras=false -o @/fourth.png").ok();
    let (old, new) = (mos_settings(at, "first.png"), mos_settings(at, "fourth.png"));
    let changed = old.as_object().unwrap().iter().filter(|(key, value)| new[key.as_str()] != **value);
    assert_eq!(changed.map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["karras", "seed"]);
    assert_ne!(read(at, "first.png"), read(at, "fourth.png"));
}

#[test]
fn the_processor_gives_the_same_file_whatever_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for threads in ["1", "2", "5"] {
        let name = format!("{threads}.png");
        let line = format!("generate --adapter cpu -p cat --seed 7 {SMALL} -o {name}");
        let mut command = mos();
        command.args(line.split(' ')).env("RAYON_NUM_THREADS", threads).current_dir(at);
        ran(&mut command).ok();
    }
    assert_eq!(read(at, "1.png"), read(at, "2.png"));
    assert_eq!(read(at, "1.png"), read(at, "5.png"));
}

#[test]
fn json_tells_all_and_quiet_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let report =
        run(at, &format!("generate -p cat -b 2 --seed 1 --json -q {SMALL} -o @/cat.png --save-latents @/end.safetensors")).ok();
    assert_eq!(report.stderr, "");
    let json = report.json();
    let seeds: Vec<u64> = json["pictures"].as_array().unwrap().iter().map(|p| p["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [1, 2]);
    assert_eq!(json["pictures"][1]["path"], at.join("cat-2.png").to_str().unwrap());
    assert_eq!((&json["width"], &json["steps"]), (&64.into(), &2.into()));
    assert_eq!(json["model_hash"].as_str().unwrap().len(), 64);
    assert!(json["peak_device_bytes"].as_u64().unwrap() >= json["planned_bytes"]["weights"].as_u64().unwrap());
    assert!(json["epilogue"].as_array().unwrap().iter().any(|s| s["name"] == "sample" && s["seconds"].as_f64().unwrap() > 0.0));
    assert_eq!(json["settings"], mos_settings(at, "cat-1.png"));
    // Nobody said how closely to follow the prompt, so the model's own generation_config.json does.
    assert_eq!(json["settings"]["guidance"], 3.0);
    assert_eq!(names(at), ["cat-1.png", "cat-2.png", "end.safetensors"]);

    // A picture of a batch is the same alone.
    run(at, "generate --like @/cat-2.png -q -o @/alone.png").ok();
    let (batch, alone) = (Picture::open(at.join("cat-2.png")).unwrap(), Picture::open(at.join("alone.png")).unwrap());
    assert!(psnr(&batch, &alone).unwrap() > 50.0);

    // The latents are laid out as diffusers does, and can be read as noise.
    let file = mixofshow::checkpoint::TensorFile::open(&at.join("end.safetensors")).unwrap();
    let shape = file.tensor("latents").unwrap().shape().to_vec();
    assert_eq!((shape[0], shape[1], shape[2] == shape[3]), (2, 4, true));
    let given = run(at, &format!("generate -p cat --latents @/end.safetensors --seed 1 {SMALL} -o @/given.png")).ok();
    assert_eq!(given.stdout.lines().count(), 2);
    assert_ne!(read(at, "given-1.png"), read(at, "cat-1.png"));
    run(at, "generate --like @/given-2.png -q -o @/given-again.png").ok();
    let (given, again) = (Picture::open(at.join("given-2.png")).unwrap(), Picture::open(at.join("given-again.png")).unwrap());
    assert!(psnr(&given, &again).unwrap() > 50.0);
}

#[test]
fn from_a_picture_within_a_mask_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    Picture::filled(64, 64, [200, 30, 30]).unwrap().save(at.join("red.png"), None).unwrap();
    let half: Vec<u8> = (0..64 * 64).flat_map(|i| [if i % 64 < 32 { 0 } else { 255 }; 3]).collect();
    Picture::new(64, 64, half).unwrap().save(at.join("mask.png"), None).unwrap();
    // The size is the picture's.
    let line = "generate -p snow --seed 3 --steps 4 --strength 0.5 --init-image @/red.png --mask @/mask.png";
    run(at, &format!("{line} -o @/one.png")).ok();
    run(at, "generate --like @/one.png -o @/two.png").ok();
    assert_eq!(read(at, "one.png"), read(at, "two.png"));
    // Where the mask is black, the picture is as it would be if all were kept.
    Picture::filled(64, 64, [0; 3]).unwrap().save(at.join("black.png"), None).unwrap();
    run(at, "generate --like @/one.png --mask @/black.png -o @/kept.png").ok();
    let (kept, one) = (Picture::open(at.join("kept.png")).unwrap(), Picture::open(at.join("one.png")).unwrap());
    assert_eq!((one.width(), one.height()), (64, 64));
    let difference = |columns: std::ops::Range<u32>| -> f64 {
        let places = columns.flat_map(|x| (0..64).map(move |y| (x, y)));
        let pairs = places.map(|(x, y)| (kept.pixel(x, y).unwrap(), one.pixel(x, y).unwrap()));
        pairs.map(|(a, b)| (0..3).map(|c| (f64::from(a[c]) - f64::from(b[c])).abs()).sum::<f64>()).sum()
    };
    let (left, right) = (difference(0..24), difference(40..64));
    assert!(left < 0.5 * right, "left {left} right {right}");
    // When the picture has changed, it says so; when it is gone, it says where it was.
    Picture::filled(64, 64, [30, 30, 200]).unwrap().save(at.join("red.png"), None).unwrap();
    let changed = run(at, "generate --like @/one.png -o @/three.png").ok();
    assert!(changed.stderr.contains("warning: ") && changed.stderr.contains("red.png"), "{}", changed.stderr);
    std::fs::remove_file(at.join("red.png")).unwrap();
    run(at, "generate --like @/one.png -o @/four.png").failed(1, &["red.png", "--init-image"]);
    assert!(!at.join("four.png").exists());
}

#[test]
fn files_are_named_after_prompt_and_seed_and_folders_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run(at, &format!("generate -p red-cat --seed 5 {SMALL} -q -o @/new/folder/")).ok();
    assert_eq!(names(&at.join("new/folder")), ["red-cat-5.png"]);
    run(at, "generate --like @/new/folder/red-cat-5.png -q -o @/{seed}-{index}.png").ok();
    assert_eq!(names(at), ["5-1.png", "new"]);
}

#[test]
fn a_prompt_that_is_cut_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "one two three four five six seven eight nine ten ".repeat(9);
    let line = format!("generate {SMALL} -o @/a.png -p");
    let at = folder.path().to_str().unwrap();
    let ran = super::ran(super::mos().args(line.split(' ').map(|word| word.replace('@', at))).arg(&prompt)).ok();
    assert!(ran.stderr.contains("warning: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("\u{1b}"), "colours in a pipe: {}", ran.stderr);
}
