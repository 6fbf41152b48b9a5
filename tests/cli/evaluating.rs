//! `mos eval` from outside: one run, its parts put together, and what was killed.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mixofshow::concept::Concept;
use mixofshow::pipeline::recipe::Recipe;

use super::concepts::{concept, rows_of, word};
use super::{Ran, fixture, mos, ran, run};

/// All files of a folder with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, inside: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{inside}{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), &format!("{name}/"), found),
                false => {
                    found.insert(name, fs::read(entry.path()).unwrap());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, "", &mut found);
    found
}

#[track_caller]
fn same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    let differ: Vec<&String> = a.keys().filter(|name| a[*name] != b[*name]).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// Two concepts, a cat and a dog that the model knows, and two prompts.
fn prepare(at: &Path) {
    concept().write(&at.join("kat.safetensors")).unwrap();
    let mut start = word("<dog1>", rows_of("dog"));
    start.initializer = Some("dog".into());
    let hund = Concept { name: "hund".into(), words: vec![start], ..concept() };
    hund.write(&at.join("hund.safetensors")).unwrap();
    fs::write(at.join("prompts.txt"), "[recontext]\na <TOK> in the snow\na {} on the beach\n")
        .unwrap();
    // Pictures to compare with, without a word about them.
    for (from, to) in [("mimi", "cats"), ("brix", "dogs")] {
        fs::create_dir_all(at.join(to).join("mask")).unwrap();
        for file in ["00.png", "01.png", "mask/00.png"] {
            let from = fixture("models/concepts").join(from).join(file);
            fs::copy(from, at.join(to).join(file)).unwrap();
        }
    }
}

const LINE: &str = "eval -c @/kat.safetensors -c @/hund.safetensors --pictures @/cats --pictures \
    @/dogs --count 1 --size 64x64 --steps 1 --adapter cpu";

fn eval(at: &Path, more: &str) -> Ran {
    run(at, &format!("{LINE} --prompts @/prompts.txt {more}"))
}

#[test]
fn parts_and_what_was_killed_come_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let told = eval(at, "-o @/whole --json").ok();
    let json = told.json();
    assert_eq!(json["concepts"][0]["name"], "kat");
    assert_eq!(json["alone"]["pictures"], 4);
    assert_eq!(json["scenes"][0]["name"], "kat+hund");
    for name in ["text", "image"] {
        let score = json["alone"]["scores"][name]["mean"].as_f64().unwrap();
        assert!(score.is_finite() && score.abs() < 3.0, "{name}: {score}");
    }
    assert!(json["alone"]["scores"]["text"]["error"].is_f64());
    let one_picture = &json["together"]["scores"]["text"];
    assert!(one_picture["mean"].is_f64() && one_picture["error"].is_null(), "{one_picture}");
    for name in ["placement", "margin", "d&c"] {
        assert!(json["together"]["scores"][name]["mean"].is_f64(), "{name}");
    }
    let whole = files(&at.join("whole"));
    let page = String::from_utf8(whole["index.html"].clone()).unwrap();
    assert!(page.contains("sheets/kat-recontext.png") && page.contains("&lt;cat1&gt;"));
    assert!(whole.contains_key("table.md") && whole.contains_key("pictures/kat/references.png"));

    // Nothing is made again.
    let again = eval(at, "-o @/whole").ok();
    assert!(again.stderr.contains("5 pictures were there already"), "{}", again.stderr);
    same(&whole, &files(&at.join("whole")));

    // Whoever is named first.
    let other_order = LINE
        .replace("-c @/kat.safetensors -c @/hund", "-c @/hund.safetensors -c @/kat")
        .replace("--pictures @/cats --pictures @/dogs", "--pictures @/dogs --pictures @/cats");
    assert_ne!(other_order, LINE);
    let again = run(at, &format!("{other_order} --prompts @/prompts.txt -o @/whole")).ok();
    assert!(again.stderr.contains("order of their words, as in fused models: kat, hund"));
    assert!(again.stderr.contains("5 pictures were there already"), "{}", again.stderr);
    same(&whole, &files(&at.join("whole")));

    // A tower that only says who stands where: the same one says the same.
    let tower = fixture("models/tiny/clip_vision");
    let judged = format!("-o @/judged --json --identity {}", tower.display());
    let judged = eval(at, &judged).ok();
    assert!(!judged.stderr.contains("who is who"), "{}", judged.stderr);
    let by_clip = eval(at, "-o @/clip --json --judge clip").ok().json();
    assert_eq!(judged.json()["together"]["scores"], by_clip["together"]["scores"]);
    assert_eq!(judged.json()["settings"]["judge"], "identity");
    // Unasked it is the one that ships beside the model.
    assert!(told.stderr.contains("says who is who; --identity names another"), "{}", told.stderr);
    assert_ne!(json["together"]["scores"], by_clip["together"]["scores"]);
    let shipped = &json["settings"]["towers"]["identity"];
    assert!(shipped["hash"].is_string() && shipped["path"].is_null(), "{shipped}");
    assert!(by_clip["settings"]["towers"]["identity"].is_null());

    // Stronger in its region, a concept is another one there, and as it was alone.
    eval(at, "-o @/strong --scene-strength 1.5").ok();
    let strong = files(&at.join("strong"));
    for (name, alike) in
        [("kat/recontext-01-1", true), ("kat/recontext-02-1", true), ("together/kat+hund-1", false)]
    {
        let name = format!("pictures/{name}.png");
        assert_eq!(strong[&name] == whole[&name], alike, "{name}");
    }

    // The same scene from one prompt comes last, scored by the same places; in a folder without,
    // what is there is kept when it is asked for.
    eval(at, "-o @/strong --scene-strength 1.5 --one-prompt 2").failed(1, &["one_prompt"]);
    let asked = "-o @/strong --scene-strength 1.5 --one-prompt 2 --renew --json";
    let added = eval(at, asked).ok();
    assert!(added.stderr.contains("2 pictures made, 2 scored"), "{}", added.stderr);
    let added = added.json();
    assert_eq!(added["one_prompt"]["pictures"], 2);
    assert_eq!(added["one_prompt_scenes"][0]["name"], "kat+hund");
    assert!(added["one_prompt"]["scores"]["placement"]["mean"].is_f64());
    let one = files(&at.join("strong"));
    for (name, bytes) in strong.iter().filter(|(name, _)| name.starts_with("pictures/")) {
        assert_eq!(one.get(name), Some(bytes), "{name}");
    }
    let page = String::from_utf8(one["index.html"].clone()).unwrap();
    assert!(page.contains("sheets/one-prompt-kat%2Bhund.png") && page.contains("from one prompt"));
    eval(at, "-o @/o1 --scene-strength 1.5 --one-prompt 2 --part 1/2").ok();
    eval(at, "-o @/o2 --scene-strength 1.5 --one-prompt 2 --part 2/2").ok();
    run(at, "eval merge @/o2 @/o1 -o @/o").ok();
    same(&one, &files(&at.join("o")));
    run(at, "eval merge @/o1 @/whole -o @/no").failed(1, &["one_prompt", "scene_strength"]);

    // Parts, the second as a job array tells it, in either order.
    eval(at, "-o @/one --part 1/2").ok();
    let line = format!("{LINE} --prompts @/prompts.txt -o @/two");
    let at_name = at.to_str().unwrap();
    let mut array = mos();
    array
        .args(line.split_whitespace().map(|word| word.replace('@', at_name)))
        .env("SLURM_ARRAY_TASK_ID", "7")
        .env("SLURM_ARRAY_TASK_COUNT", "2")
        .env("SLURM_ARRAY_TASK_MIN", "6");
    let told = ran(&mut array).ok();
    assert!(told.stderr.contains("part 2/2, as SLURM_ARRAY_TASK_ID says"), "{}", told.stderr);
    run(at, "eval merge @/one -o @/no").failed(1, &["of its 5 pictures 2 are", "pictures/"]);
    run(at, "eval merge @/one @/two -o @/merged").ok();
    same(&whole, &files(&at.join("merged")));
    run(at, "eval merge @/two @/one -o @/two").ok();
    same(&whole, &files(&at.join("two")));

    // Killed in the middle, with a picture that was not scored yet.
    let killed = at.join("killed");
    let mut child = mos()
        .args(LINE.split_whitespace().map(|word| word.replace('@', at_name)))
        .args(["--prompts", at.join("prompts.txt").to_str().unwrap(), "-o"])
        .arg(&killed)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !killed.join("pictures/kat/recontext-02-1.png").exists() {
        assert!(start.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = fs::remove_file(killed.join("pictures/kat/recontext-02-1.json"));
    eval(at, "-o @/killed").ok();
    let left = files(&killed).into_iter().filter(|(name, _)| !name.ends_with(".tmp"));
    same(&whole, &left.collect());

    // Other settings are refused by name, or what differs is made anew.
    eval(at, "-o @/killed --guidance 2").failed(1, &["killed", "guidance", "--renew"]);
    run(at, "eval merge @/one @/two -o @/killed").ok();
    let renewed = eval(at, "-o @/killed --as-published --renew").ok();
    assert!(renewed.stderr.contains("other settings than before: as_published"));
    assert!(renewed.stderr.contains("0 pictures made, 5 scored"), "{}", renewed.stderr);
    let renewed = eval(at, "-o @/killed --seed 2 --together 0 --renew").ok();
    assert!(renewed.stderr.contains("4 pictures made"), "{}", renewed.stderr);
    run(at, "eval merge @/one @/killed -o @/no").failed(1, &["killed", "seed", "together"]);
}

/// A sketch steers three in their regions and nothing else; what changes in it makes these anew.
#[test]
fn three_follow_a_sketch() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let mut start = word("<man1>", rows_of("man"));
    start.initializer = Some("man".into());
    let mann = Concept { name: "mann".into(), words: vec![start], ..concept() };
    mann.write(&at.join("mann.safetensors")).unwrap();
    fs::create_dir(at.join("men")).unwrap();
    fs::copy(fixture("models/concepts/zorp/00.png"), at.join("men/00.png")).unwrap();
    fs::copy(fixture("models/concepts/sketch.png"), at.join("sketch.png")).unwrap();
    fs::write(at.join("one.txt"), "a <TOK> here\n").unwrap();
    let line = LINE.replace("--count", "-c @/mann.safetensors --pictures @/men --count");
    let eval = |more: &str| run(at, &format!("{line} --prompts @/one.txt {more}"));
    let trio = "pictures/together/kat+hund+mann-1.png";
    #[track_caller]
    fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
        let pictures = before.iter().filter(|(name, _)| name.ends_with("-1.png"));
        let differ: Vec<&str> = pictures
            .filter(|(name, bytes)| after.get(*name) != Some(*bytes))
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(differ, ["pictures/together/kat+hund+mann-1.png"]);
    }

    eval("-o @/a").ok();
    let without = files(&at.join("a"));
    assert!(without.contains_key(trio));
    // Folders without controls are as they were before there were any.
    assert!(!String::from_utf8_lossy(&without["settings.json"]).contains("controls"));
    let sketch = "--control t2i_adapter:image=@/sketch.png";
    eval(&format!("-o @/a {sketch}")).failed(1, &["differ in controls;", "--renew"]);
    let told = eval(&format!("-o @/a {sketch} --renew --json")).ok();
    assert!(told.stderr.contains("1 picture made, 1 scored"), "{}", told.stderr);
    let steered = files(&at.join("a"));
    changed(&without, &steered);
    let json = told.json();
    let control = &json["settings"]["controls"][0];
    assert_eq!(control["network"], "t2i_adapter");
    assert!(control["network_hash"].is_string() && control["image"]["sha256"].is_string());
    let line_of = "three in their regions follow ";
    for file in ["table.md", "index.html"] {
        let text = String::from_utf8_lossy(&steered[file]);
        assert!(text.contains(line_of) && text.contains("sketch.png by t2i_adapter"), "{file}");
        assert!(!String::from_utf8_lossy(&without[file]).contains(line_of), "{file}");
    }
    let recipe = |name: &str| Recipe::read(&at.join("a").join(name)).unwrap().0;
    assert_eq!(recipe(trio).controls.len(), 1);
    assert!(recipe("pictures/together/kat+hund-1.png").controls.is_empty());
    let again = eval(&format!("-o @/a {sketch}")).ok();
    assert!(again.stderr.contains("0 pictures made, 0 scored"), "{}", again.stderr);
    same(&steered, &files(&at.join("a")));

    // The same network under another name and the same sketch elsewhere are the same.
    fs::create_dir(at.join("net")).unwrap();
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        fs::copy(fixture("models/tiny/t2i_adapter").join(file), at.join("net").join(file)).unwrap();
    }
    fs::copy(at.join("sketch.png"), at.join("copy.png")).unwrap();
    let again = eval("-o @/a --control @/net:image=@/copy.png").ok();
    assert!(again.stderr.contains("0 pictures made, 0 scored"), "{}", again.stderr);

    // Another weight, another sketch.
    let weak = format!("{sketch},weight=0.5");
    eval(&format!("-o @/a {weak}")).failed(1, &["controls.t2i_adapter.weight;"]);
    let told = eval(&format!("-o @/a {weak} --renew")).ok();
    assert!(told.stderr.contains("1 picture made, 1 scored"), "{}", told.stderr);
    let weaker = files(&at.join("a"));
    changed(&steered, &weaker);
    fs::copy(fixture("models/concepts/brix/mask/00.png"), at.join("sketch.png")).unwrap();
    let told = eval(&format!("-o @/a {weak} --renew")).ok();
    assert!(told.stderr.contains("controls.t2i_adapter.image.sha256"), "{}", told.stderr);
    let whole = files(&at.join("a"));
    changed(&weaker, &whole);

    // Parts come to the same bytes.
    eval(&format!("-o @/p1 {weak} --part 1/2")).ok();
    eval(&format!("-o @/p2 {weak} --part 2/2")).ok();
    run(at, "eval merge @/p2 @/p1 -o @/all").ok();
    same(&whole, &files(&at.join("all")));
    run(at, "eval merge @/p1 @/a -o @/all").ok();

    // What cannot steer is told before anything is made.
    let no = |more: &str| eval(&format!("-o @/no {more}"));
    let named = "two controls are called `t2i_adapter`";
    no(&format!("{sketch} {weak}")).failed(2, &[named]);
    no("--control t2i_adapter").failed(2, &["--control", "image="]);
    no("--control t2i_adapter:image=@/none.png").failed(1, &["none.png"]);
    no("--control nothing:image=@/copy.png").failed(1, &["nothing", "no such file"]);
    no(&format!("{sketch} --together 0")).failed(2, &["--control", "--together 0"]);
    let config = fs::read_to_string(at.join("net/config.json")).unwrap();
    let other = config.replace("\"downscale_factor\": 8", "\"downscale_factor\": 16");
    assert_ne!(config, other);
    fs::write(at.join("net/config.json"), other).unwrap();
    no("--control @/net:image=@/copy.png").failed(1, &["net", "T2I-Adapter"]);
    run(at, &format!("{LINE} --prompts @/one.txt -o @/no {sketch}"))
        .failed(2, &["--control", "three concepts in their regions", "fewer than three"]);
    assert!(!at.join("no").exists());
}

#[test]
fn what_cannot_be_scored_is_told_before_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let at_name = at.to_str().unwrap();
    run(at, "eval -o @/no").failed(2, &["nothing to evaluate", "-c", "-m"]);
    run(at, "eval -c @/kat.safetensors -o @/no").failed(2, &["`kat`", "--pictures"]);
    let one = "eval -c @/kat.safetensors --pictures @/cats -o @/no";
    run(at, &format!("{one} --pictures @/dogs")).failed(2, &["dogs", "one too many"]);
    run(at, &format!("{one} --class-word a --class-word b")).failed(2, &["--class-word"]);
    let mut empty = mos();
    empty.args(one.split_whitespace().map(|word| word.replace('@', at_name)));
    ran(empty.args(["--class-word", ""])).failed(2, &["--class-word", "empty"]);
    let about = r#"{"words": ["<o1>", "<o2>"], "class_word": "dog"}"#;
    fs::create_dir(at.join("others")).unwrap();
    fs::write(at.join("others/concept.json"), about).unwrap();
    run(at, "eval -c @/kat.safetensors --pictures @/others -o @/no")
        .failed(2, &["`kat`", "others has those of <o1> <o2>"]);
    fs::create_dir(at.join("site")).unwrap();
    fs::write(at.join("site/index.html"), "<p>mine</p>").unwrap();
    run(at, &one.replace("@/no", "@/site")).failed(1, &["index.html", "another folder"]);
    assert_eq!(fs::read(at.join("site/index.html")).unwrap(), b"<p>mine</p>");
    fs::write(at.join("twice.txt"), "a {}\na {}\n").unwrap();
    run(at, &format!("{one} --prompts @/twice.txt")).failed(1, &["line 2", "line 1"]);
    fs::create_dir(at.join("none")).unwrap();
    run(at, "eval -c @/kat.safetensors --pictures @/none -o @/no").failed(1, &["`kat`", "none"]);
    fs::write(at.join("empty.txt"), "# nothing\n").unwrap();
    run(at, &format!("{one} --prompts @/empty.txt")).failed(1, &["empty.txt", "no prompts"]);
    fs::write(at.join("places.txt"), "[places]\na cat in <TOK>\n").unwrap();
    run(at, &format!("{one} --prompts @/places.txt")).failed(1, &["no prompts for animals"]);
    fs::write(at.join("bare.txt"), "a cat\n").unwrap();
    run(at, &format!("{one} --prompts @/bare.txt")).failed(1, &["line 1", "<TOK>"]);
    let unet = fixture("models/tiny/unet");
    let unet = unet.to_str().unwrap();
    run(at, &format!("{one} --dino {unet}")).failed(1, &["expected CLIP", "DINO"]);
    let clip = fixture("models/tiny/clip_vision");
    let clip = clip.to_str().unwrap();
    run(at, &format!("{one} --dino {clip}")).failed(1, &["clip_vision", "this is CLIP", "DINO"]);
    run(at, &format!("{one} --clip {clip}")).failed(1, &["clip_vision", "the tower that reads"]);
    run(at, &format!("{one} --clip {at_name}/gone")).failed(1, &["gone"]);
    run(at, &format!("{one} --judge dino")).failed(2, &["--dino PATH"]);
    run(at, &format!("{one} --part 3/2")).failed(2, &["--part", "K/N"]);
    let refused = |pairs: &[(&str, &str)]| {
        let mut command = mos();
        command.args(one.split_whitespace().map(|word| word.replace('@', at_name)));
        ran(command.envs(pairs.iter().copied()))
    };
    refused(&[("JOB_COMPLETION_INDEX", "1")]).failed(2, &["JOB_COMPLETIONS", "--part"]);
    refused(&[("SLURM_ARRAY_TASK_ID", "x")]).failed(2, &["SLURM_ARRAY_TASK_ID", "--part"]);
    run(at, "eval merge @/cats -o @/no").failed(1, &["cats", "settings.json"]);
    fs::write(at.join("settings.json"), "{}").unwrap();
    let over = one.replace("-o @/no", "-o @");
    run(at, &over).failed(1, &["settings.json", "not the settings"]);
    assert!(!at.join("no").exists());
}
