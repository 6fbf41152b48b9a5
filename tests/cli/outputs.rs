//! Where results go: checked before any work, written one by one, and nothing of anybody's is
//! replaced unasked.
use super::{SMALL, fixture, mos, names, ran, run};
use std::fs;
use std::path::Path;

/// Names that no result can have, by the option that takes them. Nothing that the lines name
/// besides is there, so that a command which looked at its inputs first would fail otherwise.
#[test]
fn places_that_cannot_be_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("file"), "").unwrap();
    fs::create_dir_all(at.join("folder/inside")).unwrap();
    fs::create_dir(at.join("concept")).unwrap();
    fs::write(at.join("concept/concept.json"), r#"{"words": ["<a1>"], "class_word": "man"}"#)
        .unwrap();
    let long = "n".repeat(300);
    let files = [
        "@",
        ".",
        "@/folder",
        "@/file/a.safetensors",
        "@/new/",
        &long,
        &format!("@/new/{long}/a.safetensors"),
    ]
    .map(String::from);
    let folders = ["@/file", "@/file/a", &long, &format!("@/new/{long}")].map(String::from);
    let whole = ["..", "/", "@/folder/.."].map(String::from);
    let lines: [(&str, Vec<&String>); 8] = [
        ("generate -p cat -m @/none -o @/a.png --save-latents", files.iter().collect()),
        ("convert @/none.pth", files.iter().collect()),
        (
            "train --pictures @/none --words <a1> --class-word man --model @/none -o",
            files.iter().collect(),
        ),
        (
            "train --check --pictures @/none --words <a1> --class-word man --model @/none -o",
            files.iter().collect(),
        ),
        ("fuse -m @/none -c @/none.pth -o", folders.iter().chain(&whole).collect()),
        ("fuse -m @/none -c @/none.pth -o @/new --save-statistics", folders.iter().collect()),
        ("demo -o", folders.iter().collect()),
        ("bench concepts @/concept -m @/none -o", folders.iter().collect()),
    ];
    for (line, places) in lines {
        for place in places {
            let ran = ran(mos().current_dir(at).args(
                format!("{line} {place}")
                    .split(' ')
                    .map(|word| word.replace('@', at.to_str().unwrap())),
            ));
            let start = place.replace('@', "").chars().take(20).collect::<String>();
            ran.failed(2, &["cannot", start.trim_end_matches("..").trim_end_matches('/')]);
        }
    }
    // Pictures are named after prompt and seed in a folder.
    for place in ["@/file/a.png", long.as_str(), "@/file/"] {
        run(at, &format!("generate -p cat -m @/none -o {place}")).failed(2, &["cannot be written"]);
    }
    run(at, "generate -p cat -m @/none -o @/a.safetensors --save-latents @/a.safetensors")
        .failed(2, &["two results"]);
    run(at, "train --pictures @/none --words <a1> --class-word man -o @/a.training")
        .failed(2, &["same name"]);
    assert_eq!(names(at), ["concept", "file", "folder"]);
    assert_eq!(names(&at.join("folder")), ["inside"]);
}

#[cfg(target_os = "linux")]
#[test]
fn closed_file_systems_are_told_before_any_work() {
    // Nobody, root included, may make files in /sys.
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "generate -p cat -m @/none -o /sys/a.png",
        "generate -p cat -m @/none -o /sys/new/",
        "convert @/none.pth /sys/a.safetensors",
        "fuse -m @/none -c @/none.pth -o /sys/both",
        "train --pictures @/none --words <a1> --class-word man --model @/none -o \
            /sys/a.safetensors",
        "demo -o /sys/demo",
    ] {
        let ran = run(folder.path(), line);
        assert!(!ran.stderr.contains("none"), "{}", ran.stderr);
        ran.failed(1, &["/sys", "cannot"]);
    }
}

#[test]
fn only_fused_models_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir_all(at.join("thesis/chapters")).unwrap();
    fs::write(at.join("thesis/chapters/1.txt"), "years of work").unwrap();
    fs::create_dir(at.join("model")).unwrap();
    fs::write(at.join("model/fusion.json"), r#"{"mos_fusion": 1}"#).unwrap();
    let fuse = |options: &str| run(at, &format!("fuse -m @/none -c @/none.pth {options}"));
    fuse("-o @/thesis").failed(2, &["thesis", "it is there already"]);
    fuse("-o @/thesis --replace").failed(2, &["thesis", "not replaced", "fusion.json"]);
    fuse("-o @/model").failed(2, &["model", "--replace"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at.join("model"), at.join("link")).unwrap();
        fuse("-o @/link --replace").failed(2, &["link", "symbolic link"]);
        run(at, "fuse --to @/link --add @/none.pth --statistics @/none")
            .failed(2, &["link", "symbolic link"]);
    }
    assert_eq!(fs::read_to_string(at.join("thesis/chapters/1.txt")).unwrap(), "years of work");
}

/// Every option that names what is written, with each kind of file that is read.
/// From inside of the folder that would be replaced.
#[cfg(unix)]
#[test]
fn the_folder_that_a_command_runs_in_is_not_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("f1");
    fs::create_dir_all(at.join("unet")).unwrap();
    for (here, out) in [("f1", "../f1"), ("f1/unet", "../../f1"), ("f1/unet", "..//../f1/")] {
        for named in [true, false] {
            let note = at.join("fusion.json");
            if named {
                fs::write(&note, "{\"mos_fusion\": 1}").unwrap();
            }
            let mut command = mos();
            command.args(["fuse", "-m", "none", "-c", "none.pth", "--replace", "-o", out]);
            ran(command.current_dir(folder.path().join(here)))
                .failed(2, &["f1", "runs inside of that folder"]);
            let _ = fs::remove_file(note);
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_behind_a_link_is_not_converted_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = fixture("tests/fixtures/concepts/kohya.safetensors");
    let source = source.to_str().unwrap();
    fs::write(at.join("thesis.pdf"), "work").unwrap();
    std::os::unix::fs::symlink(at.join("thesis.pdf"), at.join("link.safetensors")).unwrap();
    for more in ["", " --replace"] {
        run(at, &format!("convert {source} @/link.safetensors{more}"))
            .failed(2, &["link.safetensors", "symbolic link to", "thesis.pdf"]);
    }
    assert_eq!(fs::read(at.join("thesis.pdf")).unwrap(), b"work");
    assert!(fs::symlink_metadata(at.join("link.safetensors")).unwrap().is_symlink());
}

#[test]
fn inputs_are_never_replaced() {
    use mixofshow::picture::{Picture, parameters};
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let picture = Picture::filled(64, 64, [90; 3]).unwrap();
    for name in ["p.png", "p-1.png", "m.png", "r.png"] {
        picture.save(at.join(name), None).unwrap();
    }
    let made = "a cat\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 5, Size: 64x64";
    picture.save(at.join("a-cat-5.png"), Some(&parameters::parse(made))).unwrap();
    fs::copy(fixture("tests/fixtures/concepts/mix-of-show.pth"), at.join("c.pth")).unwrap();
    let latents = safetensors::tensor::TensorView::new(
        safetensors::Dtype::F32,
        vec![1, 4, 8, 8],
        &[0; 4 * 4 * 64],
    );
    let latents = safetensors::serialize([("latents", latents.unwrap())], None).unwrap();
    for name in ["l.safetensors", "w.safetensors"] {
        fs::write(at.join(name), &latents).unwrap();
    }
    let layout = "[[region]]\nprompt = \"dog\"\nmask = \"r.png\"\n";
    fs::write(at.join("layout.toml"), layout).unwrap();
    fs::write(at.join("train.toml"), "words = \"<a1>\"\nclass_word = \"man\"\n").unwrap();
    fs::create_dir_all(at.join("concept.training")).unwrap();
    fs::create_dir_all(at.join("zorp")).unwrap();
    picture.save(at.join("zorp/zorp.png"), None).unwrap();
    picture.save(at.join("concept.training/1.png"), None).unwrap();
    let about = r#"{"words": ["<a1>"], "class_word": "man"}"#;
    fs::write(at.join("zorp/concept.json"), about).unwrap();
    fs::create_dir(at.join("fused")).unwrap();
    fs::write(at.join("fused/fusion.json"), r#"{"mos_fusion": 1}"#).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(at.join("p.png"), at.join("link.png")).unwrap();
    #[cfg(not(unix))]
    fs::hard_link(at.join("p.png"), at.join("link.png")).unwrap();
    let contents = || -> Vec<(String, Vec<u8>)> {
        let files = names(at).into_iter().filter(|name| at.join(name).is_file());
        files.map(|name| (name.clone(), fs::read(at.join(&name)).unwrap())).collect()
    };
    let before = contents();

    const INPUT: &str = "an input of this command";
    const OTHER_KIND: &str = "it is there already and is";
    const GENERATE: &str = "generate -p cat -m @/none";
    const TRAIN: &str = "train --restart --pictures @/zorp --words <a1> --class-word man";
    for (line, says) in [
        (format!("{GENERATE} -i @/p.png -o @/p.png"), INPUT),
        (format!("{GENERATE} -i @/p.png -o @/zorp/../p.png"), INPUT),
        (format!("{GENERATE} -i @/p.png -o @/link.png"), INPUT),
        (format!("{GENERATE} -i @/link.png -o @/p.png"), INPUT),
        (format!("{GENERATE} -i @/p-1.png -b 2 -o @/p.png"), INPUT),
        (format!("{GENERATE} -i @/p.png --mask @/m.png -o @/m.png"), INPUT),
        (format!("{GENERATE} -i @/p.png -o @/a.png --save-latents @/p.png"), INPUT),
        (format!("{GENERATE} --control net:image=@/p.png -o @/p.png"), INPUT),
        (format!("{GENERATE} --layout @/layout.toml -o @/r.png"), INPUT),
        (format!("{GENERATE} --layout @/layout.toml --save-latents @/layout.toml"), INPUT),
        (format!("{GENERATE} --latents @/l.safetensors --save-latents @/l.safetensors"), INPUT),
        (format!("{GENERATE} -c @/c.pth --save-latents @/c.pth"), INPUT),
        (format!("{GENERATE} --lora @/c.pth:0.5 -o @/c.pth"), INPUT),
        ("generate -p cat -m @/w.safetensors --save-latents @/w.safetensors".into(), INPUT),
        ("generate -m @/none --like @/a-cat-5.png -o @/a-cat-5.png".into(), INPUT),
        // The name that it has by itself.
        ("generate -m @/none --like @/a-cat-5.png -o @/".into(), INPUT),
        ("convert @/c.pth @/c.pth --replace".into(), INPUT),
        ("convert @/c.pth @/w.safetensors --replace --base @/w.safetensors".into(), INPUT),
        (format!("{TRAIN} -o @/p.png"), "something else than a concept"),
        (format!("{TRAIN} -o @/zorp/zorp.png"), "something else than a concept"),
        (format!("{TRAIN} --check -o @/p.png"), "something else than a concept"),
        (format!("{TRAIN} -m @/w.safetensors -o @/w.safetensors"), INPUT),
        (
            "train --restart @/train.toml --pictures @/zorp -o @/train.toml".into(),
            "an input of this command",
        ),
        (
            "train --pictures @/concept.training --words <a1> --class-word man -o @/concept.pt"
                .into(),
            "a folder to learn from",
        ),
        ("fuse -m @/fused -c @/c.pth -o @/fused --replace".into(), "replace the base model"),
        (
            "fuse -m @/none -c @/c.pth -o @/new --save-statistics @/new/sums".into(),
            "outside of the fused model",
        ),
        ("bench concepts @/zorp -m @/none -o @/zorp".into(), INPUT),
    ] {
        let line = match line.starts_with(GENERATE) && !line.contains(" -o ") {
            true => format!("{line} -o @/a.png"),
            false => line,
        };
        let ran = run(at, &line);
        // A file of another kind than what is written is refused for that.
        let says = if ran.stderr.contains(OTHER_KIND) { OTHER_KIND } else { says };
        ran.failed(2, &[says]);
        assert!(contents() == before, "{line}");
    }
    // What is beside them is no matter.
    run(at, &format!("{GENERATE} -i @/p.png -o @/q.png")).failed(1, &["no such file or folder"]);
}

/// Options that name what is written: each is in the list above, so that no input is replaced.
#[test]
fn all_options_that_write_are_known() {
    // How often a run is saved is no name.
    let known = ["--output", "--save-latents", "--save-statistics", "--save-every"];
    for command in ["generate", "train", "fuse", "convert", "demo", "bench concepts", "inspect"] {
        let help = run(Path::new("."), &format!("{command} --help")).ok().stdout;
        let options = help.lines().filter_map(|line| {
            let option = line.split_whitespace().find(|word| word.starts_with("--"))?;
            let is_first = line.trim_start().starts_with('-');
            is_first.then(|| option.trim_end_matches(',').to_string())
        });
        for option in options {
            let writes = ["--out", "--save", "--write", "--export", "--log"];
            if writes.iter().any(|word| option.starts_with(word)) {
                assert!(known.contains(&option.as_str()), "{command} {option}");
            }
        }
    }
}

#[test]
fn pictures_and_latents_replace_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let concept = fixture("tests/fixtures/concepts/peft.safetensors");
    fs::copy(&concept, at.join("zorp.safetensors")).unwrap();
    fs::write(at.join("notes"), "years of work").unwrap();
    for (option, file) in [
        ("-o", "zorp.safetensors"),
        ("-o", "notes"),
        ("-o @/a.png --save-latents", "zorp.safetensors"),
        ("-o @/a.png --save-latents", "notes"),
    ] {
        run(at, &format!("generate -p cat {SMALL} {option} @/{file}"))
            .failed(2, &[file, "it is there already", "name another file"]);
    }
    assert_eq!(fs::read(at.join("zorp.safetensors")).unwrap(), fs::read(concept).unwrap());
    assert_eq!(names(at), ["notes", "zorp.safetensors"]);
    // What it has written itself it replaces.
    fs::write(at.join("a.png"), "").unwrap();
    for _ in 0..2 {
        run(at, &format!("generate -p cat {SMALL} -o @/a.png --save-latents @/l.safetensors")).ok();
    }
}

#[test]
fn a_fused_model_keeps_a_concept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("model")).unwrap();
    let concept = |name: &str| {
        format!(
            r#"{{"name": "{name}", "phrase": "<{name}1>", "words": ["<{name}1>"], "key": "0",
                "path": "{name}.safetensors", "unet": 1.0, "text": 1.0, "weight": 1.0}}"#
        )
    };
    let note = format!(
        r#"{{"mos_fusion": 1, "base": "tiny", "base_hash": "0", "concepts": [{}, {}]}}"#,
        concept("zorp"),
        concept("luma")
    );
    fs::write(at.join("model/fusion.json"), note).unwrap();
    let fuse = |options: &str| run(at, &format!("fuse --to @/model {options}"));
    fuse("--remove zorp --remove <luma1>").failed(2, &["every concept", "base model, `tiny`"]);
    fuse("--remove thanos").failed(2, &["no concept `thanos`; it has zorp, luma"]);
    fuse("--remove zorp").failed(2, &["--statistics"]);
    run(at, "fuse --to @/none --add @/a.pth").failed(1, &["none", "no fusion.json"]);
}

#[test]
fn the_number_of_pictures_is_checked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for count in ["0", "1025", "1000000", "99999999999", "18446744073709551616", "-1"] {
        run(folder.path(), &format!("generate -p cat -m @/none --batch={count}"))
            .failed(2, &["--batch", count]);
    }
    run(folder.path(), "bench concepts @/none --seeds 99999999999").failed(2, &["--seeds"]);
    // Latents without any number that claim to be many.
    let latents =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1 << 40, 4, 0, 8], &[])
            .unwrap();
    fs::write(
        folder.path().join("x.safetensors"),
        safetensors::serialize([("latents", latents)], None).unwrap(),
    )
    .unwrap();
    let many = run(folder.path(), "generate -p cat --latents @/x.safetensors -o @/a.png");
    assert!(
        matches!(many.code, Some(1 | 2)) && many.stderr.starts_with("error: "),
        "{}",
        many.stderr
    );
    assert_eq!(names(folder.path()), ["x.safetensors"]);
}

/// The third of four pictures cannot be written: the two before it are there.
#[cfg(target_os = "linux")]
#[test]
fn pictures_are_written_as_they_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::os::unix::fs::symlink("/dev/full", at.join("3.png")).unwrap();
    let stopped = run(at, &format!("generate -p cat -b 4 --seed 5 {SMALL} -o @/{{index}}.png"));
    assert_eq!(stopped.stdout.lines().count(), 2, "{}", stopped.stdout);
    stopped.failed(1, &["3.png", "No space left"]);
    assert_eq!(names(at), ["1.png", "2.png", "3.png"]);
    run(at, &format!("generate -p cat --seed 6 {SMALL} -o @/alone.png")).ok();
    let open = |name: &str| mixofshow::picture::Picture::open(at.join(name)).unwrap();
    assert!(mixofshow::picture::psnr(&open("2.png"), &open("alone.png")).unwrap() > 50.0);
}

/// A reader that goes away does not stop the work.
#[cfg(unix)]
#[test]
fn all_pictures_are_written_although_nobody_reads_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut child = mos();
    child
        .args(["generate", "-p", "cat", "-b", "3", "-q", "-o"])
        .arg(at.join("{index}.png"))
        .args(SMALL.split(' '));
    let mut child = child.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(names(at), ["1.png", "2.png", "3.png"]);
}

/// A folder with a changed copy of one kernel.
fn kernels(at: &Path, name: &str, change: impl Fn(String) -> String) {
    fs::create_dir_all(at.join("kernels")).unwrap();
    let own = fs::read_to_string(fixture("kernels").join(name)).unwrap();
    fs::write(at.join("kernels").join(name), change(own)).unwrap();
}

#[test]
fn replaced_kernels_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = format!("generate --adapter 0 -p cat --seed 1 {SMALL} -o");
    let with = |line: &str, kernels: &Path| {
        let words = line.split_whitespace().map(|word| word.replace('@', at.to_str().unwrap()));
        ran(mos().args(words).env("MOS_KERNELS", kernels))
    };
    fs::create_dir(at.join("empty")).unwrap();
    for nothing in ["none", "empty"] {
        let ran = with(&format!("{line} @/a.png"), &at.join(nothing));
        ran.failed(2, &["MOS_KERNELS", nothing]);
        with("bench kernels --only geglu", &at.join(nothing)).failed(2, &["MOS_KERNELS", nothing]);
    }
    // The same as this program's own: nothing to tell.
    kernels(at, "guidance.wgsl", |own| own);
    let same = with(&format!("{line} @/same.png"), &at.join("kernels")).ok();
    assert!(!same.stderr.contains("MOS_KERNELS"), "{}", same.stderr);
    kernels(at, "guidance.wgsl", |own| own + "// mine\n");
    fs::write(at.join("kernels/guidence.wgsl"), "").unwrap();
    let ran = with(&format!("{line} @/mine.png"), &at.join("kernels")).ok();
    assert!(ran.stderr.contains("not read: guidence.wgsl"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(
            "warning: MOS_KERNELS replaces kernels of this program on graphics adapters: guidance"
        ),
        "{}",
        ran.stderr
    );
    let settings = |name: &str| {
        mixofshow::picture::parameters::read(at.join(name)).unwrap().unwrap().mos.unwrap()
    };
    assert_eq!(settings("mine.png")["kernels"][0]["name"], "guidance");
    assert_eq!(settings("mine.png")["kernels"][0]["sha256"].as_str().unwrap().len(), 64);
    assert!(settings("same.png").get("kernels").is_none());
    let on_cpu = line.replace("--adapter 0", "--adapter cpu");
    with(&format!("{on_cpu} @/cpu.png"), &at.join("kernels")).ok();
    assert!(settings("cpu.png").get("kernels").is_none(), "the processor does not use them");
    let again = run(at, "generate --adapter 0 --like @/mine.png -o @/again.png").ok();
    assert!(again.stderr.contains("kernels of somebody's own (guidance)"), "{}", again.stderr);
    // A mistake is named with its line in the file.
    kernels(at, "guidance.wgsl", |own| own.replace("let u = x[i];", "let u = x[i] +;"));
    let wrong = fs::read_to_string(at.join("kernels/guidance.wgsl")).unwrap();
    let number = 1 + wrong.lines().position(|line| line.contains("x[i] +;")).unwrap();
    let says = ["kernels/guidance.wgsl", &format!("line {number}:"), "let u = x[i] +;"];
    with(&format!("{line} @/wrong.png"), &at.join("kernels")).failed(1, &says);
}

#[test]
fn benches_of_nothing_say_what_there_is() {
    run(Path::new("."), "bench kernels --only nothing-has-this-name")
        .failed(2, &["nothing-has-this-name", "geglu 4096x2560", "conv 3x3/1 64x64x320 -> 320"]);
}

/// Nobody takes a file for what it is not by its name.
#[test]
fn safetensors_are_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    const TRAIN: &str = "train --check --pictures @/none --words <a1> --class-word man -m @/none";
    for line in [
        format!("{TRAIN} -o @/z.png"),
        "convert @/none.pth @/z.pt".to_string(),
        "generate -p cat -m @/none -o @/a.png --save-latents @/z.bin".to_string(),
    ] {
        run(at, &line).failed(2, &["safetensors are written, not .", "ends in .safetensors"]);
    }
    run(at, "convert tiny @/x.gguf").failed(2, &["x.gguf", "--quantize"]);
    assert_eq!(names(at), [""; 0]);
}
