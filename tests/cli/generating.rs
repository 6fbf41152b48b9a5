//! `mos generate` where all goes well.
use super::{SMALL, mos, names, ran, run};
use mixofshow::picture::{Picture, parameters, psnr};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

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
    let line =
        format!("generate -p cat --negative dog --seed 7 --sampler euler --karras -g 5.5 {SMALL}");
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
    assert_eq!(
        (web.get("Seed"), web.get("CFG scale"), web.size()),
        (Some("7"), Some("5.5"), Some((64, 64)))
    );
    assert_eq!(mos_settings(at, "first.png")["model"]["name"], "tiny");

    // What is given changes what the file says, and nothing else.
    run(at, "generate --like @/first.png --seed 8 --karras=false -o @/fourth.png").ok();
    let (old, new) = (mos_settings(at, "first.png"), mos_settings(at, "fourth.png"));
    let changed =
        old.as_object().unwrap().iter().filter(|(key, value)| new[key.as_str()] != **value);
    assert_eq!(changed.map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["karras", "seed"]);
    assert_ne!(read(at, "first.png"), read(at, "fourth.png"));
}

#[test]
fn pictures_of_a_list_are_shared_out_and_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let dog = r#"{"prompt": "dog", "negative": "cat", "seed": 3, "name": "d"}"#;
    std::fs::write(at.join("list"), format!("cat\n{dog}\n# nobody\nsnow\n")).unwrap();
    let line = format!("generate --list @/list {SMALL} -o @/out/");
    let first = run(at, &format!("{line} --part 1/2")).ok();
    assert_eq!(names(&at.join("out")), ["00001-1.png", "00004-1.png"]);
    assert!(first.stdout.contains("00004-1.png") && first.stderr.contains("2 pictures"));
    run(at, &format!("{line} --part 2/2")).ok();
    run(at, &format!("generate -p dog -n cat --seed 3 {SMALL} -o @/d.png")).ok();
    assert_eq!(read(&at.join("out"), "d.png"), read(at, "d.png"));
    // What is there is not made again; what would come out otherwise is.
    std::fs::remove_file(at.join("out/00001-1.png")).unwrap();
    let kept = std::fs::metadata(at.join("out/d.png")).unwrap().modified().unwrap();
    let again = run(at, &line).ok();
    assert!(again.stderr.contains("1 picture in"), "{}", again.stderr);
    assert!(again.stderr.contains("2 pictures were there already"), "{}", again.stderr);
    assert_eq!(std::fs::metadata(at.join("out/d.png")).unwrap().modified().unwrap(), kept);
    let other = run(at, &format!("{line} -g 2")).ok();
    assert!(other.stderr.contains("3 pictures in"), "{}", other.stderr);
    run(at, &format!("{line} --batch 2 --part 2/2")).ok();
    let pixels = |path: &str| Picture::open(at.join(path)).unwrap();
    assert_eq!(pixels("out/d-3.png"), pixels("d.png"));
    assert!(at.join("out/d-4.png").exists());
    // A control that ends earlier steers otherwise.
    let sketch = crate::fixture("models/concepts/sketch.png");
    let steered = |end: f64| {
        let control = format!("t2i_adapter:image={},end={end}", sketch.display());
        run(at, &format!("{line} --control {control}")).ok().stderr
    };
    for (end, told) in [(1.0, "3 pictures in"), (0.5, "3 pictures in"), (0.5, "3 pictures were")] {
        let stderr = steered(end);
        assert!(stderr.contains(told), "{stderr}");
    }
    run(at, &format!("{line} -p cat")).failed(2, &["--list", "--prompt"]);
    run(at, "generate -p cat --part 1/2").failed(2, &["--list"]);
    run(at, "generate --list @/none").failed(1, &["none"]);
    std::fs::write(at.join("list"), "{\"prompt\": 5}").unwrap();
    run(at, &line).failed(1, &["line 1"]);
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

/// Where tests run on an adapter: a picture says what was rounded besides weights, and is made again
/// so, whatever would be done by itself.
#[test]
fn pictures_are_made_again_with_what_was_rounded() {
    if std::env::var("MOS_TEST_DEVICE").as_deref() != Ok("adapter") {
        return println!("skipped: tests run on the processor, which rounds nothing");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let adapter = std::env::var("MOS_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let make = |more: &str| {
        let line = format!("--adapter {adapter} generate -q --json {more}");
        let report = run(at, &line).ok().json();
        (report["rounding"].clone(), report["settings"]["rounding"].clone())
    };
    let said = |factors: bool, activations: bool| serde_json::json!({"factors": factors, "activations": activations});
    let short = "-p cat --seed 7 --size 64x64 --steps 1 --precision f16";
    let found = make(&format!("--matrices off --activations f16 {short} -o @/rounded.png"));
    assert_eq!(found, (said(false, true), said(false, true)));
    let found = make(&format!("--matrices off --activations f32 {short} -o @/plain.png"));
    assert_eq!(found, (said(false, false), said(false, false)));
    for name in ["rounded", "plain"] {
        make(&format!("--like @/{name}.png -o @/again.png"));
        assert!(read(at, "again.png") == read(at, &format!("{name}.png")), "{name}");
    }
    assert!(read(at, "rounded.png") != read(at, "plain.png"));
}

#[test]
fn json_tells_all_and_quiet_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let report = run(
        at,
        &format!(
            "generate -p cat -b 2 --seed 1 --json -q {SMALL} -o @/cat.png \
            --save-latents @/end.safetensors"
        ),
    )
    .ok();
    assert_eq!(report.stderr, "");
    let json = report.json();
    let seeds: Vec<u64> =
        json["pictures"].as_array().unwrap().iter().map(|p| p["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [1, 2]);
    assert_eq!(json["pictures"][1]["path"], at.join("cat-2.png").to_str().unwrap());
    assert_eq!((&json["width"], &json["steps"]), (&64.into(), &2.into()));
    assert_eq!(json["model_hash"].as_str().unwrap().len(), 64);
    assert!(
        json["peak_device_bytes"].as_u64().unwrap()
            >= json["planned_bytes"]["weights"].as_u64().unwrap()
    );
    assert!(
        json["stages"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["name"] == "sample" && s["seconds"].as_f64().unwrap() > 0.0)
    );
    assert_eq!(json["settings"], mos_settings(at, "cat-1.png"));
    // Nobody said how closely to follow the prompt, so the model's own generation_config.json does.
    assert_eq!(json["settings"]["guidance"], 3.0);
    assert_eq!(names(at), ["cat-1.png", "cat-2.png", "end.safetensors"]);

    // A picture of a batch is the same alone.
    run(at, "generate --like @/cat-2.png -q -o @/alone.png").ok();
    let (batch, alone) = (
        Picture::open(at.join("cat-2.png")).unwrap(),
        Picture::open(at.join("alone.png")).unwrap(),
    );
    assert!(psnr(&batch, &alone).unwrap() > 50.0);

    // The latents are laid out as diffusers does, and can be read as noise.
    let file = mixofshow::checkpoint::TensorFile::open(&at.join("end.safetensors")).unwrap();
    let shape = file.tensor("latents").unwrap().shape().to_vec();
    assert_eq!((shape[0], shape[1], shape[2] == shape[3]), (2, 4, true));
    let given = run(
        at,
        &format!("generate -p cat --latents @/end.safetensors --seed 1 {SMALL} -o @/given.png"),
    )
    .ok();
    assert_eq!(given.stdout.lines().count(), 2);
    assert_ne!(read(at, "given-1.png"), read(at, "cat-1.png"));
    run(at, "generate --like @/given-2.png -q -o @/given-again.png").ok();
    let (given, again) = (
        Picture::open(at.join("given-2.png")).unwrap(),
        Picture::open(at.join("given-again.png")).unwrap(),
    );
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
    let line = "generate -p snow --seed 3 --steps 4 --strength 0.5 --init-image @/red.png --mask \
        @/mask.png";
    run(at, &format!("{line} -o @/one.png")).ok();
    run(at, "generate --like @/one.png -o @/two.png").ok();
    assert_eq!(read(at, "one.png"), read(at, "two.png"));
    // Where the mask is black, the picture is as it would be if all were kept.
    Picture::filled(64, 64, [0; 3]).unwrap().save(at.join("black.png"), None).unwrap();
    run(at, "generate --like @/one.png --mask @/black.png -o @/kept.png").ok();
    let (kept, one) =
        (Picture::open(at.join("kept.png")).unwrap(), Picture::open(at.join("one.png")).unwrap());
    assert_eq!((one.width(), one.height()), (64, 64));
    let difference = |columns: std::ops::Range<u32>| -> f64 {
        let places = columns.flat_map(|x| (0..64).map(move |y| (x, y)));
        let pairs = places.map(|(x, y)| (kept.pixel(x, y).unwrap(), one.pixel(x, y).unwrap()));
        pairs
            .map(|(a, b)| (0..3).map(|c| (f64::from(a[c]) - f64::from(b[c])).abs()).sum::<f64>())
            .sum()
    };
    let (left, right) = (difference(0..24), difference(40..64));
    assert!(left < 0.5 * right, "left {left} right {right}");
    // When the picture has changed, it says so; when it is gone, it says where it was.
    Picture::filled(64, 64, [30, 30, 200]).unwrap().save(at.join("red.png"), None).unwrap();
    let changed = run(at, "generate --like @/one.png -o @/three.png").ok();
    assert!(
        changed.stderr.contains("warning: ") && changed.stderr.contains("red.png"),
        "{}",
        changed.stderr
    );
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
fn a_random_seed_is_asked_for_by_name_or_number_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for seed in ["random", "-1"] {
        let ran =
            run(at, &format!("generate -p cat --seed {seed} --json {SMALL} -g 1 -o @/{seed}.png"))
                .ok();
        let drawn = ran.json()["pictures"][0]["seed"].as_u64().unwrap();
        assert!(ran.stderr.contains(&format!("seed {drawn}")), "{}", ran.stderr);
        assert_eq!(mos_settings(at, &format!("{seed}.png"))["seed"], drawn);
    }
}

#[test]
fn a_prompt_comes_from_standard_input_and_the_picture_goes_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let given = |line: &str, input: &[u8]| {
        let mut command = mos();
        let words = line.split_whitespace().map(|word| word.replace('@', at.to_str().unwrap()));
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    let line = format!("generate {SMALL} --seed 3 -g 1");
    let piped = given(&format!("{line} -p - -o -"), b"a red cat\n");
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    run(at, &format!("{line} -p red -o @/file.png")).ok();
    std::fs::write(at.join("piped.png"), &piped.stdout).unwrap();
    let settings = parameters::read(at.join("piped.png")).unwrap().unwrap();
    assert_eq!((settings.prompt.as_str(), settings.get("Seed")), ("a red cat", Some("3")));
    // Nothing but the picture, to the byte.
    let again = given("generate --like @/piped.png -o -", b"");
    assert_eq!(again.stdout, piped.stdout);
    assert_eq!(names(at), ["file.png", "piped.png"]);

    for (line, says) in [
        ("-p x -o - -b 2", "standard output takes one picture"),
        ("-p x -o - --json", "--json"),
        ("-p x -o - --region 0,0,1,1:x --show-layout", "--show-layout"),
        ("-p - -n -", "both want standard input"),
        ("-p x -m -", "--model -"),
        ("-p x --save-latents -", "--save-latents -"),
    ] {
        let ran = given(&format!("generate {SMALL} {line}"), b"");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.code() == Some(2) && said.contains(says) && ran.stdout.is_empty(),
            "{line}: {said}"
        );
    }
    let not_text = given(&format!("generate {SMALL} -p - -o @/no.png"), b"\x89PNG\r\n\x1a\n");
    let said = String::from_utf8_lossy(&not_text.stderr);
    assert!(
        not_text.status.code() == Some(1)
            && said.contains("--prompt -")
            && said.contains("a PNG picture"),
        "{said}"
    );
}

#[test]
fn words_that_the_model_never_saw_are_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let said = |prompt: &str| {
        let line = format!("generate {SMALL} -g 1 -o @/a.png -p {prompt}");
        run(at, &line).ok().stderr
    };
    assert!(!said("(red:1.2)-cat,snow").contains("warning"));
    let warned = said("lighthouse,(storm:1.3),cat");
    assert!(
        warned.contains("does not know: lighthouse, storm. It knows 86 words (people, animals"),
        "{warned}"
    );
}

#[test]
fn a_prompt_that_is_cut_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "one two three four five six seven eight nine ten ".repeat(9);
    let line = format!("generate {SMALL} -o @/a.png -p");
    let at = folder.path().to_str().unwrap();
    let ran = super::ran(
        super::mos().args(line.split(' ').map(|word| word.replace('@', at))).arg(&prompt),
    )
    .ok();
    assert!(ran.stderr.contains("warning: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("\u{1b}"), "colours in a pipe: {}", ran.stderr);
}

#[test]
fn edited_prompts_are_kept_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let generate = |prompt: &str, name: &str| {
        let mut command = super::mos();
        command
            .args(["generate", "--seed", "7", "-p", prompt, "-o"])
            .arg(at.join(name))
            .args(SMALL.split(' '));
        super::ran(&mut command).ok()
    };
    generate("a [red:blue:0.5] cat", "edited.png");
    generate("a [red|blue] cat", "turns.png");
    generate("a blue cat", "blue.png");
    let pixels = |name: &str| Picture::open(at.join(name)).unwrap();
    assert!(
        pixels("edited.png") == pixels("turns.png") && pixels("edited.png") != pixels("blue.png")
    );
    assert_eq!(mos_settings(at, "edited.png")["prompt"], "a [red:blue:0.5] cat");
    run(at, "generate --like @/edited.png -o @/again.png").ok();
    assert_eq!(read(at, "edited.png"), read(at, "again.png"));
    let warned = generate("a red cat AND a dog", "and.png");
    assert!(warned.stderr.contains("warning: AND"), "{}", warned.stderr);
}

#[test]
fn settings_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let save = |name: &str, text: &str| {
        let written = parameters::Parameters { prompt: text.into(), ..Default::default() };
        Picture::filled(8, 8, [0; 3]).unwrap().save(at.join(name), Some(&written)).unwrap();
    };
    save("fooocus.png", "{\"Prompt\": \"a cat\", \"Seed\": 5}");
    run(at, "generate --like @/fooocus.png -m tiny -o @/out.png")
        .failed(1, &["fooocus.png", "no settings", "another program"]);
    assert!(!at.join("out.png").exists());
    save(
        "template.png",
        "a cat\nSteps: 1, Sampler: DPM2 Karras, CFG scale: 1, Seed: 5, Size: \
            64x64\nTemplate: a {cat|dog}",
    );
    let ran = run(at, "generate --like @/template.png -m tiny --json -o @/out.png").ok();
    let settings = &ran.json()["settings"];
    assert_eq!(
        (&settings["prompt"], &settings["seed"], &settings["karras"]),
        (&"a cat".into(), &5.into(), &false.into())
    );
    assert!(
        ran.stderr.contains("Sampler: DPM2 Karras") && ran.stderr.contains("Template: a {cat|dog}"),
        "{}",
        ran.stderr
    );
    // Nobody sees them on standard error here, so they stand in the report.
    let quiet = run(at, "generate --like @/template.png -m tiny --json -q -o @/out.png").ok();
    let warnings = quiet.json()["warnings"].to_string();
    assert!(
        quiet.stderr.is_empty()
            && warnings.contains("Sampler: DPM2 Karras")
            && warnings.contains("Template: a {cat|dog}"),
        "{warnings}"
    );
}

#[test]
fn masks_that_are_hardly_meant_so_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, colour) in
        [("red.png", [200, 30, 30]), ("white.png", [255; 3]), ("black.png", [0; 3])]
    {
        Picture::filled(64, 64, colour).unwrap().save(at.join(name), None).unwrap();
    }
    for (mask, says) in
        [("white", "all of the picture is painted anew"), ("black", "nothing is painted anew")]
    {
        let line = format!(
            "generate -p snow --steps 2 -g 1 --init-image @/red.png --mask @/{mask}.png -o \
                @/out.png"
        );
        let ran = run(at, &line).ok();
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
}

#[test]
fn thin_and_stretched_masks_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    Picture::filled(64, 64, [200, 30, 30]).unwrap().save(at.join("red.png"), None).unwrap();
    let mask = |name: &str, width: u32, height: u32, white: fn(u32, u32) -> bool| {
        let at_pixel = |i: u32| if white(i % width, i / width) { [255; 3] } else { [0; 3] };
        let pixels = (0..width * height).flat_map(at_pixel).collect();
        Picture::new(width, height, pixels).unwrap().save(at.join(name), None).unwrap();
    };
    mask("line.png", 64, 64, |x, _| x == 13);
    mask("comb.png", 64, 64, |x, _| x % 8 > 2 || x == 0);
    mask("wide.png", 128, 64, |x, _| x < 64);
    mask("half.png", 64, 64, |x, _| x < 32);
    let paint = |mask: &str, more: &str| {
        let line = format!(
            "generate -p snow --steps 2 -g 1 --seed 1 --init-image @/red.png --mask @/{mask}.png \
                -o @/{mask}.out.png {more}"
        );
        run(at, &line).ok().stderr
    };
    let thin = paint("line", "");
    assert!(thin.contains("too thin") && thin.contains("nothing is painted anew"), "{thin}");
    let comb = paint("comb", "");
    assert!(comb.contains("is thin") && comb.contains(" % of it is painted"), "{comb}");
    let wide = paint("wide", "");
    assert!(wide.contains("the mask of 128 x 64 is stretched"), "{wide}");
    let half = paint("half", "");
    assert!(!half.contains("mask") && !half.contains("stretched"), "{half}");
    let tall = paint("half", "--size 64x128");
    assert!(tall.contains("the initial picture of 64 x 64 is stretched to 64 x 128"), "{tall}");
    assert!(!tall.contains("the mask"), "{tall}");
}
