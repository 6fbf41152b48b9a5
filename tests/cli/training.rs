//! `mos train`: what it writes, what it refuses, and that a run that was stopped goes on to the
//! same bytes.
use super::{fixture, mos, names, ran, run};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder of small pictures of a shipped concept.
fn pictures(folder: &Path) {
    fs::create_dir(folder.join("zorp")).unwrap();
    for name in ["00", "01", "02", "03"] {
        for ending in ["png", "txt"] {
            let name = format!("{name}.{ending}");
            fs::copy(fixture("models/concepts/zorp").join(&name), folder.join("zorp").join(&name))
                .unwrap();
        }
    }
}

const SETTINGS: &str = "
words = \"<zorp1> <zorp2>\"
class_word = \"man\"
pictures = \"zorp\"
output = \"zorp.safetensors\"
size = \"64x64\"
steps = 3
batch = 1
accumulate = 2
save_every = 1
sheet_every = 0
";

#[test]
fn a_template_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["person", "object", "scene", "style"] {
        let printed = run(folder.path(), &format!("train --template {kind}"));
        assert!(printed.ok().stdout.contains(&format!("kind = \"{kind}\"")));
    }
    // What the environment says is no option that was given.
    let line = ["train", "--template", "person"];
    ran(mos().args(line).env("MOS_ADAPTER", "cpu").env("MOS_MATRICES", "off")).ok();
    run(folder.path(), "train --template person --steps 3").failed(2, &["--template", "no other"]);
    run(folder.path(), "train --template poem")
        .failed(2, &["poem", "person, object, scene, style"]);
    run(folder.path(), "train")
        .failed(2, &["words are missing", "class_word is missing", "pictures are missing"]);
    run(folder.path(), "train --resume --restart").failed(2, &["--resume", "--restart"]);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn everything_that_is_wrong_is_told_before_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    fs::write(at.join("zorp/broken.png"), "no picture").unwrap();
    fs::copy(at.join("zorp/00.png"), at.join("zorp/again.png")).unwrap();
    fs::write(at.join("zorp/01.txt"), "somebody").unwrap();
    fs::write(at.join("a.toml"), SETTINGS.replace("\"man\"", "\"xylophone\"")).unwrap();
    let says = [
        "broken.png",
        "again.png",
        "the same picture",
        "01.txt",
        "`xylophone` is not a single token",
        "4 things",
    ];
    run(at, "train @/a.toml").failed(1, &says);
    assert!(!at.join("zorp.safetensors").exists() && !at.join("zorp.training").exists());
    fs::write(at.join("a.toml"), "step = 3").unwrap();
    run(at, "train @/a.toml").failed(1, &["a.toml", "unknown key `step`"]);
    // What is left out is told also where the run then fails, by a check and by the run itself.
    fs::write(at.join("zorp/x.gif"), "GIF89a").unwrap();
    fs::write(at.join("a.toml"), SETTINGS).unwrap();
    for more in ["", "--check"] {
        run(at, &format!("train @/a.toml {more}"))
            .failed(1, &["warning: left out of", "x.gif (a GIF picture", "error: 3 things"]);
    }
}

#[test]
fn concepts_are_taught_to_be_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    let other = SETTINGS.replace("zorp1", "kurl1").replace("zorp2", "kurl2");
    let other = other.replace("zorp.safetensors", "kurl.safetensors");
    for (name, settings) in [("zorp", SETTINGS), ("kurl", other.as_str())] {
        fs::write(at.join(format!("{name}.toml")), settings).unwrap();
        run(at, &format!("train @/{name}.toml --method orthogonal --adapter cpu")).ok();
    }
    let [zorp, kurl] = ["zorp", "kurl"].map(|name| {
        mixofshow::concept::Concept::read(&at.join(format!("{name}.safetensors"))).unwrap()
    });
    assert_eq!(zorp.metadata["mos_method"], "orthogonal");
    let mut pairs = (0, 0);
    for (network, set) in zorp.updates.iter() {
        for (layer, update) in &set.layers {
            let own = update.lora().unwrap();
            let other = kurl.updates.of(network).layers[layer].lora().unwrap();
            let width = own.down.shape.channels();
            for a in own.down.values().chunks(width) {
                for b in other.down.values().chunks(width) {
                    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let shared = (dot - 1.0).abs() < 1e-4;
                    assert!(shared || dot.abs() < 1e-4, "{layer}: {dot}");
                    pairs = (pairs.0 + usize::from(shared), pairs.1 + 1);
                }
            }
        }
    }
    assert!(pairs.1 > 100 && pairs.0 * 4 < pairs.1, "{pairs:?}");
    let line = "fuse -c @/zorp.safetensors -c @/kurl.safetensors --solver sum --adapter cpu";
    let told = run(at, &format!("{line} -o @/both")).ok();
    assert!(!told.stderr.contains("not taught with"), "{}", told.stderr);
    assert_eq!(told.stderr.contains("share directions"), pairs.0 > 0, "{}", told.stderr);
}

#[test]
fn settings_out_of_range_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let given = "train --pictures @/none --words <a> --class-word man -o @/a.safetensors";
    for (options, says) in [
        ("--size 0x0", &["size is `0x0`", "1 to 16384"][..]),
        ("--size -8x8", &["-8x8"]),
        ("--steps 99999999", &["--steps", "1 to 10000000"]),
        ("--steps -1", &["--steps", "-1"]),
        ("--unet-lr -1", &["--unet-lr", "a number from 0 to 1"]),
        ("--sheet-scales -inf,1", &["--sheet-scales"]),
        ("--seed -1", &["--seed", "-1", "neither be gone on with"]),
        ("--seed random", &["--seed", "random", "neither be gone on with"]),
        ("-b 0", &["--batch", "from 1 to 1024"]),
        ("--lora-dropout 1", &["--lora-dropout", "a number from 0, below 1"]),
        ("--rank-dropout -0.1", &["--rank-dropout", "a number from 0, below 1"]),
        ("--words-first 0.5", &["--words-first", "a whole number from 0 on"]),
        ("--words-first 1000", &["words_first is 1000: expected fewer"]),
        ("--lora-weight-decay 2e5", &["lora_weight_decay is 200000: expected 10000 at most"]),
        ("--prior-pictures -1", &["--prior-pictures", "a whole number from 0 to 10000"]),
        ("--prior-weight -1", &["--prior-weight", "a number from 0 on"]),
        ("--prior-steps 0", &["--prior-steps", "from 1 to 1000"]),
        ("--prior-pictures 3 --prior-folder x", &["prior_pictures and prior_folder both say"]),
        ("--scale-min 0.9 --scale-max 0.5", &["scale_min is 0.9: expected no more"]),
    ] {
        run(at, &format!("{given} {options}")).failed(2, says);
    }
    fs::write(at.join("a.toml"), "folders = []\nwords = \"<a>\"\nclass_word = \"man\"\n").unwrap();
    run(at, "train @/a.toml").failed(2, &["folders is an empty list"]);
    fs::write(at.join("list.json"), "[{}]").unwrap();
    run(at, "train @/list.json").failed(1, &["list.json", "a list, not settings", "concept_list"]);
    fs::copy(fixture("tests/fixtures/pictures/grey.png"), at.join("b.toml")).unwrap();
    run(at, "train @/b.toml").failed(1, &["b.toml", "this is a PNG picture", "expected settings"]);
    assert_eq!(names(at), ["a.toml", "b.toml", "list.json"]);
}

/// A word of the model's own would mean something else from then on, in captions too.
#[test]
fn words_that_the_model_has_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    for check in ["--check ", ""] {
        let line = format!(
            "train {check}--pictures @/zorp --words Dog --class-word man --adapter cpu -o \
                @/z.safetensors"
        );
        run(at, &line).failed(1, &["\"Dog\"", "already", "such as <dog1>"]);
    }
    assert_eq!(names(at), ["zorp"]);
}

/// The same keys in JSON, and a folder of which not all is read.
#[test]
fn a_check_reads_json_and_tells_what_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    fs::write(at.join("zorp/IMG_1.HEIC"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs::rename(at.join("zorp/00.txt"), at.join("zorp/00.caption")).unwrap();
    let settings = r#"{"words": "<z1> <z2>", "class_word": "man", "pictures": "zorp", "output": "z.safetensors", "size": "64x64"}"#;
    fs::write(at.join("a.json"), settings).unwrap();
    let checked = run(at, "train @/a.json --check").ok();
    assert!(
        checked.stderr.contains("IMG_1.HEIC (a HEIC picture, which is not read"),
        "{}",
        checked.stderr
    );
    assert!(!checked.stderr.contains("no caption"), "{}", checked.stderr);
    assert!(checked.stdout.contains("4 pictures"), "{}", checked.stdout);
}

fn train(folder: &Path, more: &[&str]) -> Command {
    let mut command = mos();
    command.arg("train").arg(folder.join("a.toml")).args(more).current_dir(folder);
    command
}

/// `bytes` without the path of `folder`: settings name the pictures by their absolute path.
fn without(mut bytes: Vec<u8>, folder: &Path) -> Vec<u8> {
    let path = folder.as_os_str().as_encoded_bytes();
    while let Some(at) = bytes.windows(path.len()).position(|found| found == path) {
        bytes.splice(at..at + path.len(), *b"HERE");
    }
    bytes
}

/// One run without a break; the same killed as soon as it has saved anything, and gone on with; the
/// same on a disk that is full for a while.
#[test]
fn a_run_goes_on_to_the_same_bytes() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [whole, killed, full] = [0, 1, 2].map(|i: usize| folders[i].path());
    for folder in [whole, killed, full] {
        pictures(folder);
        fs::write(folder.join("a.toml"), SETTINGS).unwrap();
    }
    ran(&mut train(whole, &["--json"])).ok();
    let files = ["zorp.safetensors", "zorp.training/state.safetensors", "zorp.training/curve.png"];
    let bytes =
        |folder: &Path| files.map(|file| without(fs::read(folder.join(file)).unwrap(), folder));
    let same = |found: [Vec<u8>; 3], wanted: [Vec<u8>; 3]| {
        let differing: Vec<_> =
            (0..3).filter(|&i| found[i] != wanted[i]).map(|i| files[i]).collect();
        assert!(differing.is_empty(), "other bytes in {differing:?}");
    };

    let mut child = train(killed, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !killed.join(files[1]).exists() {
        assert!(start.elapsed() < Duration::from_secs(600) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join(files[0]).exists());
    ran(&mut train(killed, &[]))
        .failed(1, &["a run stands there at step", "--resume", "--restart"]);
    ran(&mut train(killed, &["--resume", "--seed", "9"]))
        .failed(1, &["other settings", "seed is 9"]);
    ran(&mut train(killed, &["--resume"])).ok();
    same(bytes(killed), bytes(whole));

    // What is finished is neither begun anew nor replaced unasked, and can go on.
    let done = bytes(whole);
    ran(&mut train(whole, &[]))
        .failed(1, &["a finished run of 3 steps stands there", "--resume", "--steps", "--restart"]);
    same(bytes(whole), done.clone());
    let again = ran(&mut train(whole, &["--resume"])).ok();
    assert!(
        again.stderr.contains("was finished after 3 steps") && again.stderr.contains("--steps"),
        "{}",
        again.stderr
    );
    same(bytes(whole), done);
    ran(&mut train(whole, &["--resume", "--steps", "2"])).failed(1, &["steps is 2", "3 are done"]);
    let longer = ran(&mut train(whole, &["--resume", "--steps", "5"])).ok();
    assert!(longer.stderr.contains("going on at step 3 of 5"), "{}", longer.stderr);
    assert!(
        longer.stderr.contains("from update 4 on, its learning rates are those of a run of 5"),
        "{}",
        longer.stderr
    );
    let state = mixofshow::training::Saved::read(&whole.join(files[1])).unwrap();
    assert_eq!(
        (state.about.step, state.about.settings.steps, &state.about.lengths[..]),
        (5, 5, &[[3, 3]][..])
    );
    // A state that cannot be read may be somebody's all the same; so may a concept without one.
    fs::write(whole.join(files[1]), "damaged").unwrap();
    ran(&mut train(whole, &[])).failed(1, &["state.safetensors", "cannot be read", "--restart"]);
    fs::remove_dir_all(whole.join("zorp.training")).unwrap();
    ran(&mut train(whole, &[]))
        .failed(1, &["zorp.safetensors", "it is there already", "--restart"]);

    #[cfg(target_os = "linux")]
    {
        // The first state is saved; then no file may grow any more.
        ran(&mut train(full, &["--steps", "1", "--json"])).ok();
        let good = bytes(full);
        let line = "ulimit -f 1; trap '' XFSZ; exec \"$0\" train \"$1\" --restart";
        let mut limited = Command::new("sh");
        limited
            .args(["-c", line, env!("CARGO_BIN_EXE_mos")])
            .arg(full.join("a.toml"))
            .current_dir(full);
        ran(&mut limited).failed(1, &["state.safetensors", "File too large"]);
        same(bytes(full), good);
        assert_eq!(names(&full.join("zorp.training")), ["curve.png", "state.safetensors"]);
    }
}

/// Class pictures come first, are made once, and those that are there already are not made again.
#[test]
fn class_pictures_are_made_once_and_learnt_from() {
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let [whole, killed] = [0, 1].map(|i: usize| folders[i].path());
    for folder in [whole, killed] {
        pictures(folder);
        // With all else that is drawn from counters.
        let more = "prior_pictures = 4\nprior_steps = 2\nprior_weight = 0.5\nwords_first = 1\n\
            lora_dropout = 0.2\nrank_dropout = 0.2\n";
        fs::write(folder.join("a.toml"), format!("{SETTINGS}{more}")).unwrap();
    }
    let checked = ran(&mut train(whole, &["--check"])).ok();
    for says in ["4 of 4 class pictures will be made first, in 2 sampling steps", "twice the time"]
    {
        assert!(checked.stderr.contains(says), "{}", checked.stderr);
    }
    ran(&mut train(whole, &[])).ok();
    let class = |folder: &Path| folder.join("zorp.training/class");
    let caption = |folder: &Path, i: &str| {
        fs::read_to_string(class(folder).join(format!("{i}.txt"))).unwrap()
    };
    assert_eq!(caption(whole, "0000"), "a photo of a man on a white background\n");
    assert_eq!(caption(whole, "0003"), "a photo of a man in a city\n");

    // Killed between two pictures, it makes the others, and ends in the same bytes.
    let mut child = train(killed, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !class(killed).join("0000.png").exists() {
        assert!(start.elapsed() < Duration::from_secs(600) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let first = fs::metadata(class(killed).join("0000.png")).unwrap().modified().unwrap();
    ran(&mut train(killed, &["--resume"])).ok();
    let names = names(&class(killed));
    let expected = (0..4).flat_map(|i| [format!("{i:04}.png"), format!("{i:04}.txt")]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    let again = fs::metadata(class(killed).join("0000.png")).unwrap().modified().unwrap();
    assert_eq!(first, again, "it is not made again");
    let file = |folder: &Path, name: &str| without(fs::read(folder.join(name)).unwrap(), folder);
    for name in ["zorp.safetensors", "zorp.training/state.safetensors"] {
        assert!(file(whole, name) == file(killed, name), "other bytes in {name}");
    }
    let concept = file(whole, "zorp.safetensors");

    // A run that goes on wants the same pictures; one that begins anew takes what is there.
    let png = class(killed).join("0002.png");
    let made = fs::read(&png).unwrap();
    fs::write(class(killed).join("0002.txt"), "a photo of a man with a hat\n").unwrap();
    ran(&mut train(killed, &["--resume", "--steps", "4"]))
        .failed(1, &["zorp.training/class", "have changed since the run began"]);
    fs::remove_file(&png).unwrap();
    ran(&mut train(killed, &["--resume"])).ok();
    ran(&mut train(killed, &["--resume", "--steps", "4"])).ok();
    assert!(fs::read(&png).unwrap() == made);
    assert_eq!(caption(killed, "0002"), caption(whole, "0002"));
    ran(&mut train(killed, &["--resume", "--prior-weight", "1"]))
        .failed(1, &["prior_weight is 1.0, the run began with 0.5"]);
    let there = ran(&mut train(killed, &["--check"])).ok();
    assert!(there.stderr.contains("all 4 class pictures are there"), "{}", there.stderr);
    let fewer = ran(&mut train(killed, &["--check", "--prior-pictures", "3"])).ok();
    for says in ["1 more than the 3 pictures that", "all 3 class pictures are there"] {
        assert!(fewer.stderr.contains(says), "{}", fewer.stderr);
    }
    let long = format!("--class-prompt={}", "a ".repeat(90));
    let cut = ran(&mut train(killed, &["--check", &long])).ok();
    assert!(cut.stderr.contains("0003.png: its caption is cut after 75"), "{}", cut.stderr);
    // Of other settings, all are made again; what somebody else put there is left alone.
    let other = ran(&mut train(killed, &["--check", "--prior-steps", "3"])).ok();
    assert!(other.stderr.contains("4 of 4 class pictures will"), "{}", other.stderr);
    fs::copy(killed.join("zorp/00.png"), &png).unwrap();
    ran(&mut train(killed, &["--restart"]))
        .failed(1, &["0002.png", "not a class picture that was made here", "prior_folder"]);

    // The same pictures as somebody's own.
    fs::write(whole.join("b.toml"), SETTINGS.replace("zorp.s", "own.s")).unwrap();
    let own = |more: &[&str]| {
        let mut command = mos();
        let folder = class(whole);
        command.arg("train").arg(whole.join("b.toml")).arg("--prior-folder").arg(folder);
        command.args(["--prior-weight", "0.5"]).args(more).current_dir(whole);
        ran(&mut command)
    };
    let checked = own(&["--check"]).ok();
    assert!(checked.stdout.contains("4 pictures and 4 of the class"), "{}", checked.stdout);
    own(&[]).ok();
    assert!(file(whole, "own.safetensors") != concept);
    fs::write(class(whole).join("0001.txt"), "<zorp1> in a room").unwrap();
    own(&["--check"]).failed(1, &["0001.txt", "names the concept"]);
    fs::write(class(whole).join("0001.txt"), "a man in a room").unwrap();
    own(&["--resume", "--steps", "4"]).failed(1, &["the class pictures or captions have changed"]);
}

/// With constant learning rates, a run that is made longer is the same as one that was as long from
/// the start.
#[test]
fn a_longer_run_of_constant_rates_is_the_same() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [once, twice] = [0, 1].map(|i: usize| folders[i].path());
    for folder in [once, twice] {
        pictures(folder);
        fs::write(folder.join("a.toml"), format!("{SETTINGS}decay = \"constant\"\n")).unwrap();
    }
    ran(&mut train(once, &["--steps", "2"])).ok();
    ran(&mut train(twice, &["--steps", "1"])).ok();
    let longer = ran(&mut train(twice, &["--steps", "2", "--resume"])).ok();
    assert!(longer.stderr.contains("changes nothing in what is done"), "{}", longer.stderr);
    let concept = |folder: &Path| fs::read(folder.join("zorp.safetensors")).unwrap();
    assert!(without(concept(once), once) == without(concept(twice), twice));
}

#[test]
fn a_check_makes_nothing_and_needs_no_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    let before = names(&at.join("zorp"));
    fs::write(
        at.join("a.toml"),
        SETTINGS.replace("zorp.safetensors", "new/folder/zorp.safetensors"),
    )
    .unwrap();
    let checked = ran(train(at, &["--check", "--adapter", "nothing-has-this-name"])
        .env("VK_DRIVER_FILES", "/nonexistent"))
    .ok();
    assert_eq!(checked.stdout.trim(), "nothing to complain about: 4 pictures, tuned at 64x64");
    assert!(
        checked.stderr.contains("checked: ") && checked.stderr.contains("not their pixels"),
        "{}",
        checked.stderr
    );
    assert_eq!(
        (names(at), names(&at.join("zorp"))),
        (vec!["a.toml".to_string(), "zorp".to_string()], before)
    );
    // What a header tells is found.
    let whole = fs::read(at.join("zorp/00.png")).unwrap();
    fs::write(at.join("zorp/cut.png"), &whole[..whole.len() - 9]).unwrap();
    fs::copy(at.join("zorp/00.png"), at.join("zorp/same.png")).unwrap();
    fs::write(at.join("zorp/01.txt"), "somebody").unwrap();
    ran(&mut train(at, &["--check"])).failed(
        1,
        &["cut.png", "ends too early", "same.png", "the same picture", "01.txt", "3 things"],
    );
    ran(&mut train(at, &["--check", "--resume"])).failed(2, &["--check", "--resume"]);
    assert_eq!(names(at), ["a.toml", "zorp"]);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    fs::write(at.join("a.toml"), SETTINGS).unwrap();
    let says = [
        "update 2 gives a loss of NaN",
        "from layer `",
        "6.7e-5 for the UNet",
        "the state of update 1 is saved",
        "--alpha",
    ];
    let stopped = ran(&mut train(at, &["--alpha", "1e30"])).failed(1, &says);
    // A real layer, and no name of the program's own for what it computes.
    assert!(
        !stopped.stderr.contains("``") && !stopped.stderr.contains("_gradient"),
        "{}",
        stopped.stderr
    );
    assert!(!at.join("zorp.safetensors").exists());
    assert!(at.join("zorp.training/state.safetensors").exists());
}

/// Within budgets the run is what it is without: to the byte where activations are computed again
/// and weights come and go.
#[test]
fn a_budget_of_memory_is_planned_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    pictures(at);
    let settings = SETTINGS.replace("batch = 1", "batch = 2").replace("= 2\nsave", "= 1\nsave");
    fs::write(at.join("a.toml"), settings.replace("sheet_every = 0", "sheet_every = 2")).unwrap();
    let line = "train @/a.toml --adapter cpu --steps 3";
    let plan = run(at, &format!("{line} --plan")).ok().stdout;
    for part in ["4, tuned at 64x64", "3, each in one pass of 2 pictures", "a step", "at most"] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    assert!(!at.join("zorp.training").exists() && !plan.contains("cost"), "{plan}");
    let json =
        |memory: u64| run(at, &format!("{line} --plan --json --memory {memory}")).ok().json();
    let whole = json(1 << 40);
    let peak = whole["bytes"]["peak"].as_u64().unwrap();
    assert_eq!((&whole["passes"], &whole["checkpointing"]), (&1.into(), &false.into()));
    let error = run(at, &format!("{line} --memory 8M")).failed(1, &["memory is 8 MiB", "at least"]);
    let least = error.stderr.split("expected ").nth(1).unwrap();
    let least = least.split(' ').next().unwrap().parse::<u64>().unwrap() << 20;
    assert!(least < peak, "{least} of {peak}");
    // Activations are computed again, batches are taken in parts, weights come and go.
    let tight = json(least);
    assert!(tight["bytes"]["peak"].as_u64().unwrap() <= least, "{tight}");
    assert_eq!((&tight["passes"], &tight["checkpointing"]), (&2.into(), &true.into()));
    assert!(tight["bytes"]["streamed_each_pass"].as_u64().unwrap() > 0, "{tight}");
    assert!(tight["costs"].as_array().unwrap().len() >= 3, "{tight}");
    // Enough for all weights, but not for larger batches.
    let parts = (0..20).map(|more| least + ((more * 3) << 20));
    let parts = parts.clone().find(|m| json(*m)["bytes"]["streamed_each_pass"] == 0).unwrap();
    let losses = |more: &str| -> Vec<f64> {
        let told = run(at, &format!("{line} {more} --restart --json")).ok().json();
        ["first_loss", "last_loss", "embedding_norm"].map(|key| told[key].as_f64().unwrap()).into()
    };
    let within = |memory: u64| losses(&format!("--memory {memory}"));
    let plain = losses("");
    assert_eq!(within(peak - 1), plain, "computed again");
    let (kept, streamed) = (within(parts), within(least));
    assert_eq!(kept, streamed, "what comes and goes is what stays");
    for (a, b) in plain.iter().zip(&streamed) {
        assert!((a - b).abs() < 1e-4 * a, "{plain:?}, {streamed:?}");
    }
}
