//! `mos generate` with regions and networks that steer.
use super::{SMALL, fixture, mos, names, ran};
use std::fs;
use std::path::Path;

/// Runs `mos generate` for the cheapest picture with these arguments besides; `@` stands for the
/// folder.
fn generate(folder: &Path, arguments: &[&str]) -> super::Ran {
    let at = folder.to_str().unwrap();
    let out = format!("{at}/out/a.png");
    let given: Vec<String> = arguments.iter().map(|argument| argument.replace('@', at)).collect();
    ran(mos().args(["generate", "--seed", "3", "-o", &out]).args(SMALL.split(' ')).args(given))
}

#[test]
fn regions_make_a_picture_that_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let layout = "prompt = \"snow\"\n[[region]]\nname = \"cat\"\nprompt = \"a red cat\"\nbox = \
        [0, 0, 0.5, 1]\nsoft = 0.1\n";
    fs::write(at.join("layout.toml"), layout).unwrap();
    generate(at, &["--layout", "@/layout.toml", "--show-layout"]).ok();
    assert_eq!(names(&at.join("out")), ["a.layout.png", "a.png"]);
    let again = at.join("again.png");
    ran(mos().args(["generate", "--like"]).arg(at.join("out/a.png")).arg("-o").arg(&again)).ok();
    assert!(fs::read(&again).unwrap() == fs::read(at.join("out/a.png")).unwrap());
    generate(at, &["-p", "snow", "--region", "0,0,0.5,1: a red cat", "--isolate", "--stack"]).ok();
    assert!(fs::read(&again).unwrap() != fs::read(at.join("out/a.png")).unwrap());
    generate(at, &["-p", "snow", "--prompt-rewrite", "[a red cat]-*-[]-*-[0, 0, 64, 32]"]).ok();
}

#[test]
fn firm_placing_stays_with_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let sides = ["--region", "0,0,0.5,1: a red cat", "--region", "0.5,0,1,1: a blue dog"];
    let firm = [&["-p", "snow", "--place", "firm:0.5"], &sides[..]].concat();
    let told = generate(at, &firm).ok();
    assert!(told.stderr.contains("firm placing: "), "{}", told.stderr);
    let again = at.join("again.png");
    ran(mos().args(["generate", "--like"]).arg(at.join("out/a.png")).arg("-o").arg(&again)).ok();
    let made = fs::read(at.join("out/a.png")).unwrap();
    assert!(fs::read(&again).unwrap() == made);
    generate(at, &[&["-p", "snow"], &sides[..]].concat()).ok();
    assert!(fs::read(at.join("out/a.png")).unwrap() != made);
    generate(at, &["-p", "snow", "--place", "firm"]).failed(2, &["--place firm", "--region"]);
    generate(at, &["-p", "snow", "--place", "near"]).failed(2, &["near", "free, firm"]);
    generate(at, &["-p", "snow", "--compose", "both"]).failed(2, &["both", "composite"]);
    generate(at, &["-p", "snow", "--compose", "composite"]).failed(2, &["compose", "two or more"]);
}

#[test]
fn regions_and_controls_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("bare.toml"), "[[region]]\nprompt = \"a\"\n").unwrap();
    fs::write(at.join("broken.toml"), "[[region]\n").unwrap();
    for (name, text) in [
        ("box", "[[region]]\nprompt = \"a\"\nbox = [0, 0, 1]\n"),
        ("corners", "[[region]]\nprompt = \"a\"\npolygon = 3\n"),
        ("single", "[region]\nprompt = \"a\"\n"),
    ] {
        fs::write(at.join(format!("{name}.toml")), text).unwrap();
    }
    fs::write(
        at.join("masked.toml"),
        "prompt = \"a\"\n[[region]]\nprompt = \"a\"\nmask = \"mask.png\"\n",
    )
    .unwrap();
    fs::write(
        at.join("concept.toml"),
        "prompt = \"a\"\n[[region]]\nprompt = \"a\"\nconcepts = { zorp = 1 }\n",
    )
    .unwrap();
    fs::write(at.join("text.png"), "no picture").unwrap();
    let cat = ["-p", "cat"];
    for (code, arguments, says) in [
        (2, &["--region", "0,0,1: a"][..], &["four numbers"][..]),
        (
            2,
            &["--region", "0.5,0,0.2,1: a"],
            &["--region", "left 0.5, top 0, right 0.2", "left before right"],
        ),
        (2, &["--region", "-1,0,64,64: a"], &["--region", "left -1", "none below 0"]),
        (2, &["--region", "0,0,65,64: a"], &["region `1`", "64 x 64"]),
        (2, &["--prompt-rewrite", "[a]"], &["has 1 field;"]),
        (1, &["--layout", "@/none.toml"], &["none.toml"]),
        (2, &["--layout", "@/broken.toml"], &["broken.toml"]),
        (2, &["--layout", "@/box.toml"], &["box.toml", "`box` has 3 numbers, expected 4"]),
        (2, &["--layout", "@/corners.toml"], &["polygon = 3", "found the number `3`"]),
        (2, &["--layout", "@/single.toml"], &["each region begins with [[region]]"]),
        (1, &["--layout", "@/masked.toml"], &["mask.png"]),
        (2, &["--layout", "@/concept.toml"], &["concept `zorp`"]),
        (2, &["--show-layout"], &["--region"]),
        (2, &["--control", "net"], &["image="]),
        (1, &["--control", "@/none:image=@/text.png"], &["text.png"]),
        (1, &["--control", "@/none:image=@/none.png"], &["none.png"]),
    ] {
        let ran = generate(at, &[&cat, arguments].concat());
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        says.iter()
            .for_each(|part| assert!(ran.stderr.contains(part), "`{part}` in: {}", ran.stderr));
    }
    generate(at, &["--layout", "@/bare.toml"]).failed(2, &["bare.toml", "--prompt"]);
    let picture = fixture("tests/fixtures/generated/mask.png");
    let control = format!("@/none.safetensors:image={}", picture.display());
    generate(at, &["-p", "cat", "--control", &control]).failed(1, &["none.safetensors"]);
    let model = format!("@/model.safetensors:image={}", picture.display());
    fs::copy(
        fixture("models/tiny/unet/diffusion_pytorch_model.safetensors"),
        at.join("model.safetensors"),
    )
    .unwrap();
    generate(at, &["-p", "cat", "--control", &model])
        .failed(1, &["model.safetensors", "expected a ControlNet or a T2I-Adapter"]);
    assert!(!at.join("out").exists());
}

/// Masks of regions are remembered by their contents, and found from any folder, also when all has
/// moved.
#[test]
fn masks_of_regions_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mask = |left: [u8; 3], right: [u8; 3], path: &Path| {
        let pixels = (0..64 * 64).flat_map(|i| if i % 64 < 32 { left } else { right }).collect();
        mixofshow::picture::Picture::new(64, 64, pixels).unwrap().save(path, None).unwrap();
    };
    let here = at.join("here");
    fs::create_dir_all(here.join("plans")).unwrap();
    mask([255; 3], [0; 3], &here.join("plans/left.png"));
    let layout = "prompt = \"snow\"\n[[region]]\nname = \"cat\"\nprompt = \"a red cat\"\nmask = \
        \"left.png\"\n";
    fs::write(here.join("plans/layout.toml"), layout).unwrap();
    // Named by a path that means something in this folder alone.
    let made = |command: &mut std::process::Command| ran(command.args(["--quiet", "-g", "1"]));
    let first = ["generate", "--seed", "3", "--layout", "plans/layout.toml", "-o", "out/a.png"];
    made(mos().current_dir(&here).args(first).args(SMALL.split(' '))).ok();
    let again = |picture: &Path| {
        made(mos().current_dir(at).args(["generate", "-o", "again.png", "--like"]).arg(picture))
    };
    again(&here.join("out/a.png")).ok();
    let pixels = |path: &Path| mixofshow::picture::Picture::open(path).unwrap();
    assert!(pixels(&at.join("again.png")) == pixels(&here.join("out/a.png")));
    let beside = ["generate", "--like", "here/out/a.png", "-o", "here/out/b.png"];
    made(mos().current_dir(at).args(beside)).ok();
    let read = |name: &str| fs::read(here.join("out").join(name)).unwrap();
    assert!(read("a.png") == read("b.png"));
    // It tells the way from the picture, not where on this machine they are.
    let text = String::from_utf8_lossy(&read("a.png")).into_owned();
    assert!(text.contains("../plans/left.png") && !text.contains(at.to_str().unwrap()));
    let there = at.join("there");
    fs::rename(&here, &there).unwrap();
    again(&there.join("out/a.png")).ok();
    assert!(pixels(&at.join("again.png")) == pixels(&there.join("out/a.png")));
    mask([0; 3], [255; 3], &there.join("plans/left.png"));
    again(&there.join("out/a.png"))
        .failed(1, &["left.png", "region `cat`", "has changed", "--layout"]);
    fs::remove_file(there.join("plans/left.png")).unwrap();
    again(&there.join("out/a.png"))
        .failed(1, &["left.png", "region `cat`", "is missing", "--layout"]);
}

#[test]
fn what_regions_leave_of_the_prompt_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let halves = ["--region", "0,0,0.5,1: a red cat", "--region", "0.5,0,1,1: a blue dog"];
    let ran = generate(folder.path(), &[&["-p", "snow"][..], &halves].concat()).ok();
    assert!(ran.stderr.contains("the prompt of the whole picture holds nowhere"), "{}", ran.stderr);
    let ran = generate(folder.path(), &["-p", "snow", halves[0], halves[1]]).ok();
    assert!(!ran.stderr.contains("holds nowhere"), "{}", ran.stderr);
    // As published: cut off at the edge, and gone where no cell lies within.
    let text = "[a red cat]-*-[]-*-[0, 0, 500, 32]|[a dog]-*-[]-*-[9, 33, 13, 37]";
    let ran = generate(folder.path(), &["-p", "snow", "--prompt-rewrite", text]).ok();
    for says in [
        "region `1` reaches beyond the picture",
        "region `2` is too small",
        "there it does not hold",
    ] {
        assert!(ran.stderr.contains(says), "{says} in {}", ran.stderr);
    }
}
