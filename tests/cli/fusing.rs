//! `mos fuse` from outside: its settings stay with the model, and its report tells.
use std::fs;
use std::path::Path;

use mixofshow::concept::{Concept, Network};
use serde_json::Value;

use super::concepts::{concept, rows_of, word};
use super::{fixture, run};

fn settings(model: &Path) -> Value {
    let note = fs::read_to_string(model.join("fusion.json")).unwrap();
    serde_json::from_str::<Value>(&note).unwrap()["settings"].clone()
}

#[test]
fn a_model_keeps_its_settings_and_is_changed_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    concept().write(&at.join("kat.safetensors")).unwrap();
    let hund =
        Concept { name: "hund".into(), words: vec![word("<dog1>", rows_of("dog"))], ..concept() };
    hund.write(&at.join("hund.safetensors")).unwrap();
    fs::write(at.join("sampled.txt"), "a {} in the snow\n").unwrap();
    fs::write(at.join("aside.txt"), "a {} on the beach\n").unwrap();
    let line = "fuse -c @/kat.safetensors -c @/hund.safetensors --size 64x64 --steps 2 --adapter \
        cpu --distillation 0";
    let more = "--record published --fit prompts --sampled-prompts @/sampled.txt --held-out \
        @/aside.txt --keep none --seed 3 --save-statistics @/sums";
    let told = run(at, &format!("{line} {more} -o @/both")).ok();
    assert!(told.stderr.contains("on inputs not solved with"), "{}", told.stderr);
    let before = settings(&at.join("both"));
    assert_eq!(before["prompts"], serde_json::json!(["photo of a {}", "{}"]));
    assert_eq!(before["sampled"], serde_json::json!(["a {} in the snow"]));
    assert_eq!(before["held_out"], serde_json::json!(["a {} on the beach"]));
    assert_eq!((&before["steps"], &before["seed"]), (&2.into(), &3.into()));
    assert_eq!((&before["guidance"], &before["whole_prompts"]), (&1.0.into(), &true.into()));
    let page = fs::read_to_string(at.join("both/report/report.html")).unwrap();
    let report = fs::read_to_string(at.join("both/report/report.md")).unwrap();
    for part in ["Verdict:", "a {} in the snow", "not solved with"] {
        assert!(report.contains(part) && page.contains(part), "{part}: {report}");
    }

    // The settings hold, but for the one that is given.
    let to = "fuse --to @/both --statistics @/sums --adapter cpu";
    let removed = run(at, &format!("{to} --remove hund -o @/kat")).ok();
    assert_eq!(settings(&at.join("kat")), before, "{}", removed.stderr);
    let one = format!("{to} --remove hund --seed 4 -o @/other");
    run(at, &one).ok();
    let mut expected = before.clone();
    expected["seed"] = 4.into();
    assert_eq!(settings(&at.join("other")), expected);
    // Those of scenes, too, and the report tells them.
    let scenes = "--distillation 1 --distillation-rank 5 --scenes 1 --scene-strength 1.3 \
        --keep none --held-out none --sampled-prompts @/sampled.txt --save-statistics @/scenes";
    run(at, &format!("{} {scenes} -o @/scene", line.replace(" --distillation 0", ""))).ok();
    let made = settings(&at.join("scene"));
    let expected = serde_json::json!({
        "pictures": 1, "rate": 0.002, "batch": 8, "rank": 5, "scenes": 1, "scene_strength": 1.3,
    });
    assert_eq!(made["distillation"], expected);
    for page in ["report.md", "report.html"] {
        let report = fs::read_to_string(at.join("scene/report").join(page)).unwrap();
        for part in ["scenes 1, scene_strength 1.3", "rank 5", "kat + hund"] {
            assert!(report.contains(part), "{part}: {report}");
        }
    }
    let of_scene = "fuse --to @/scene --statistics @/scenes --adapter cpu";
    run(at, &format!("{of_scene} --remove hund -o @/one")).ok();
    let one = "fuse --to @/one --statistics @/scenes --adapter cpu";
    run(at, &format!("{one} --add @/hund.safetensors -o @/again")).ok();
    assert_eq!(settings(&at.join("again")), made);
    let grown = fs::read_to_string(at.join("again/report/report.md")).unwrap();
    assert!(grown.contains("in scenes: hund + kat"), "{grown}");
    run(at, &format!("{of_scene} --distillation 2 -o @/more")).ok();
    let mut expected = made.clone();
    expected["distillation"]["pictures"] = 2.into();
    assert_eq!(settings(&at.join("more")), expected);
    // What is no fused model, before anything else.
    fs::create_dir(at.join("plain")).unwrap();
    run(at, "fuse --to @/plain --add @/kat.safetensors --statistics @/sums")
        .failed(1, &["plain", "fusion.json"]);
    let shown = run(at, &format!("{line} --solver average -o @/average")).ok();
    assert!(shown.stderr.contains("average, nothing measured"), "{}", shown.stderr);
    assert!(!shown.stderr.contains("-0.0"), "{}", shown.stderr);
    for (solver, told) in [("sum", "sum, nothing"), ("ties", "TIES, density 0.2"), ("dare", "DARE")]
    {
        let shown = run(at, &format!("{line} --solver {solver} -o @/{solver}")).ok();
        assert!(shown.stderr.contains(told), "{}", shown.stderr);
    }
    run(at, &format!("{line} --density 0.3 -o @/no")).failed(2, &["--density", "ties"]);
    let shown = run(at, &format!("{line} --solver sum -o @/added")).ok();
    assert!(shown.stderr.contains("not taught with the method orthogonal: kat, hund"));
    run(at, &format!("{line} --margin 0.3 -o @/no")).failed(2, &["--margin", "loraclr"]);
    run(at, &format!("{line} --solver sum --scenes 2 -o @/no"))
        .failed(2, &["--scenes is", "--distillation is 0; above 0 turns it on"]);
    for (option, says) in [
        (
            "--distillation 0 --distillation-rate 0.01",
            ["--distillation-rate is", "--distillation is 0"],
        ),
        (
            "--distillation 0 --distillation-rank 8",
            ["--distillation-rank is", "--distillation is 0"],
        ),
        ("--distillation 0 --scenes 2", ["--scenes is", "--distillation is 0"]),
        ("--distillation 0 --scene-strength 2", ["--scene-strength is", "--distillation is 0"]),
        ("--distillation 1 --scenes 1 --one-prompt 2", ["--one-prompt is 2", "--scenes is 1"]),
        (
            "--distillation 1 --scenes 0 --scene-strength 2",
            ["--scene-strength is", "--scenes is 0"],
        ),
    ] {
        let other = line.replace(" --distillation 0", "");
        run(at, &format!("{other} {option} -o @/no")).failed(2, &says);
    }
    run(at, &format!("{line} --solver loraclr --margin 0.4 -o @/loraclr")).ok();
    let solver = settings(&at.join("loraclr"))["solver"]["loraclr"].clone();
    assert_eq!((&solver["margin"], &solver["decay"]), (&0.4.into(), &0.001.into()));
    let report = fs::read_to_string(at.join("loraclr/report/report.md")).unwrap();
    for part in ["margin 0.4", "LoRACLR's loss", "in each other's way"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let json = fs::read_to_string(at.join("loraclr/report/report.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["conflicts"][0]["concepts"], serde_json::json!(["kat", "hund"]));

    // One more costs one more, and what it was made with holds.
    let third =
        Concept { name: "baum".into(), words: vec![word("<tree1>", rows_of("tree"))], ..concept() };
    third.write(&at.join("baum.safetensors")).unwrap();
    let grown = run(at, &format!("{to} --add @/baum.safetensors -o @/grown")).ok();
    assert_eq!(settings(&at.join("grown")), before, "{}", grown.stderr);
    let note = fs::read_to_string(at.join("grown/fusion.json")).unwrap();
    let note: Value = serde_json::from_str(&note).unwrap();
    assert_eq!(note["history"].as_array().map(Vec::len), Some(2), "{note}");
    let all = run(at, &format!("{to} --add @/baum.safetensors --refresh -o @/anew")).ok();
    assert!(!fs::read_to_string(at.join("anew/fusion.json")).unwrap().contains("history"));
    assert!(all.stderr.contains("residual"), "{}", all.stderr);
}

#[test]
fn updates_that_the_models_weights_cannot_hold_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    concept().write(&at.join("kat.safetensors")).unwrap();
    let mut loud = Concept { name: "loud".into(), ..concept() };
    loud.words = vec![word("<dog1>", rows_of("dog"))];
    loud.updates.of_mut(Network::UNet).scale = 1e6;
    loud.write(&at.join("loud.safetensors")).unwrap();
    run(at, "fuse -c @/kat.safetensors -c @/loud.safetensors -o @/no --adapter cpu")
        .failed(1, &["`loud`", "f16", "attn2.to_v"]);
    run(at, "fuse -c @/kat.safetensors --steps 0 -o @/no").failed(2, &["--steps"]);
    let bare = fixture("tests/fixtures/concepts/evil.pth");
    run(at, &format!("fuse -c {} -o @/no", bare.display())).failed(1, &["evil.pth", "pickle"]);
    assert!(!at.join("no").exists() && !at.join("no.fusing").exists());
}

#[test]
fn a_budget_of_memory_is_planned_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    concept().write(&at.join("kat.safetensors")).unwrap();
    let hund =
        Concept { name: "hund".into(), words: vec![word("<dog1>", rows_of("dog"))], ..concept() };
    hund.write(&at.join("hund.safetensors")).unwrap();
    fs::write(at.join("one.txt"), "a {} in the snow\n").unwrap();
    let line = "fuse -c @/kat.safetensors -c @/hund.safetensors --size 64x64 --steps 1 --adapter \
        cpu --keep none --held-out none --prompts @/one.txt --sampled-prompts @/one.txt";
    let plan = run(at, &format!("{line} --plan")).ok().stdout;
    for part in ["prompts", "statistics", "distillation", "at most"] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let plan = |memory: &str| run(at, &format!("{line} --plan --json {memory}")).ok().json();
    let peak = plan("")["bytes"]["peak"].as_u64().unwrap();
    // The least of one part may be less than another's.
    let mut least = 5;
    for part in 0.. {
        let found = run(at, &format!("{line} --memory {least}M --plan"));
        if found.code == Some(0) {
            assert!(part > 0);
            break;
        }
        let error = found.failed(1, &["memory", &format!("{least} MiB"), "at least"]).stderr;
        let more = error.split("expected ").nth(1).unwrap();
        let more = more.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(more > least && more << 20 < peak, "{more} after {least}, {peak}");
        least = more;
    }
    run(at, &format!("{line} --memory 5M -o @/none")).failed(1, &["memory", "at least"]);
    assert!(!at.join("none").exists());
    let tight = plan(&format!("--memory {least}M"));
    assert!(tight["bytes"]["peak"].as_u64().unwrap() <= least << 20, "{tight}");
    assert!(tight["bytes"]["streamed_each_step"].as_u64().unwrap() > 0, "{tight}");
    let weights = |out: &str, more: &str| {
        run(at, &format!("{line} --distillation 0 {more} -o @/{out}")).ok();
        fs::read(at.join(out).join("unet/diffusion_pytorch_model.safetensors")).unwrap()
    };
    let budget = format!("--memory {least}M");
    let (plain, within) = (weights("plain", ""), weights("within", &budget));
    let differing = plain.iter().zip(&within).filter(|(a, b)| a != b).count();
    assert_eq!(plain.len(), within.len());
    assert!(differing * 50 < plain.len(), "{differing} of {} bytes", plain.len());
    run(at, &format!("{line} --distillation 1 {budget} -o @/distilled")).ok();
}
