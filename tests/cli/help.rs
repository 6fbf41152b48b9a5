//! Help texts and wrong usage.
use super::{mos, ran, run};
use std::path::Path;

const COMMANDS: [&str; 13] = [
    "generate",
    "train",
    "fuse",
    "eval",
    "inspect",
    "convert",
    "devices",
    "demo",
    "bench",
    "kernel",
    "serve",
    "completions",
    "man",
];

#[test]
fn every_command_explains_itself() {
    let all = ran(mos().arg("--help")).ok().stdout;
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command}")), "{command} in {all}");
        for help in [vec![command, "--help"], vec![command, "-h"], vec!["help", command]] {
            let text = ran(mos().args(&help)).ok().stdout;
            assert!(text.contains(&format!("Usage: mos {command}")), "{text}");
            // Terminals are at least this wide; nothing is left of the markup that help texts are
            // written in.
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            assert!(!text.contains("\u{1b}"), "colours in a pipe: {text}");
        }
    }
    assert!(all.contains("Exit codes: 0 done, 1 failed, 2 wrong usage"));
}

#[test]
fn asking_for_help_twice_is_asking_for_help() {
    let all = ran(mos().arg("help")).ok().stdout;
    for words in ["help --help", "help -h", "help help", "help help --help"] {
        assert_eq!(ran(mos().args(words.split(' '))).ok().stdout, all, "{words}");
    }
    let train = ran(mos().args(["help", "train"])).ok().stdout;
    assert_eq!(ran(mos().args(["help", "train", "--help"])).ok().stdout, train);
    run(Path::new("."), "help frobnicate --help").failed(2, &["frobnicate"]);
}

#[test]
fn shells_are_told_all_commands_and_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = ran(mos().args(["completions", shell])).ok().stdout;
        for word in COMMANDS.into_iter().chain(["prompt-rewrite", "kernels"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    run(Path::new("."), "completions csh").failed(2, &["csh", "bash"]);
    // As bash reads it.
    let bash = ran(mos().args(["completions", "bash"])).ok().stdout;
    for names in ["\"ddim ", "euler-ancestral", "sgm-uniform", "torch philox", "kohya peft", "q8_0"]
    {
        assert!(bash.contains(names), "{names}");
    }
    let script = format!(
        "{bash}\nCOMP_WORDS=(mos gen); COMP_CWORD=1; _mos mos gen mos; echo ${{COMPREPLY[@]}}"
    );
    if let Ok(asked) = std::process::Command::new("bash").args(["-c", &script]).output() {
        let said = String::from_utf8_lossy(&asked.stdout);
        assert_eq!(said.trim(), "generate", "{}", String::from_utf8_lossy(&asked.stderr));
    }
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = run(at, "man @/man1").ok().stdout;
    let names = super::names(&at.join("man1"));
    assert_eq!(told.lines().count(), names.len());
    for command in COMMANDS {
        let page = std::fs::read_to_string(at.join(format!("man1/mos-{command}.1"))).unwrap();
        assert!(page.contains(&format!("mos {command}").replace('-', "\\-")), "{page}");
        assert!(page.contains(".TH") && page.contains(".SH OPTIONS"), "{page}");
        // The line of use is that of the help: values named, no options of all commands.
        let (_, of_use) = page.split_once(".SH SYNOPSIS\n").unwrap();
        let of_use = of_use.split(".SH").next().unwrap();
        let called = of_use.starts_with(&format!("mos {command}").replace('-', "\\-"));
        assert!(called && !of_use.contains("adapter"), "{of_use}");
    }
    assert!(names.contains(&"mos.1".into()) && names.contains(&"mos-bench-kernels.1".into()));
    assert_eq!(run(at, "man @/man1").ok().stdout, told, "pages are replaced");
    std::fs::write(at.join("file"), "").unwrap();
    run(at, "man @/file").failed(2, &["file", "cannot be written"]);
    run(at, "man -").failed(2, &["FOLDER -"]);
}

#[test]
fn patterns_in_help_are_not_markup() {
    let text = ran(mos().args(["generate", "--help"])).ok().stdout;
    assert!(text.contains("{seed}") && text.contains("{index}"), "{text}");
}

#[test]
fn without_a_command_it_shows_the_help() {
    for environment in [None, Some(("MOS_ADAPTER", "cpu"))] {
        let ran = ran(mos().envs(environment));
        assert_eq!(ran.code, Some(2));
        let text = ran.stderr;
        assert!(text.contains("Usage: mos") && text.contains("Make pictures"), "{text}");
        assert!(!text.contains("error:") && !text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn the_version() {
    let text = ran(mos().arg("--version")).ok().stdout;
    assert_eq!(text.trim(), concat!("mos ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let cases: [(&str, &[&str]); 23] = [
        ("generate -p a cat", &["'cat'", "stands in quotes"]),
        ("frobnicate", &["frobnicate"]),
        ("generate --promt cat", &["--promt", "--prompt"]),
        ("generate", &["--prompt"]),
        (
            "generate -p cat --sampler magic",
            &["unknown sampler `magic`", "euler-ancestral", "dpmpp-2m-sde"],
        ),
        ("generate -p cat --rng dice", &["`dice`", "torch", "philox"]),
        ("generate -p cat --precision f8", &["`f8`", "f16"]),
        ("generate -p cat --size 512", &["--size", "512x768"]),
        ("generate -p cat --size 512x512 --width 512", &["--size", "--width"]),
        ("generate -p cat --seed minus", &["--seed", "minus"]),
        ("generate -p cat --steps", &["--steps"]),
        ("generate -p cat --karras=maybe", &["--karras", "maybe"]),
        ("generate -p cat --prompt-syntax perhaps", &["auto, on or off"]),
        ("generate -p cat --mask mask.png", &["--init-image", "--mask"]),
        ("generate -p cat --strength 0.5", &["--strength", "--init-image"]),
        ("devices --quiet --verbose", &["--quiet", "--verbose"]),
        ("inspect a b", &["b"]),
        ("fuse -c a.safetensors -o both --distillation few", &["--distillation", "few"]),
        (
            "fuse -c a.safetensors -o both --distillation-rate 0",
            &["--distillation-rate", "above 0"],
        ),
        ("fuse -c a.safetensors -o both --distillation-rank 0", &["--distillation-rank", "1"]),
        ("fuse -c a.safetensors -o both --ridge -1", &["--ridge", "from 0 on"]),
        ("fuse -c a.safetensors -o both --part 3/2 --statistics-only", &["--part", "3/14"]),
        ("fuse -c a.safetensors --to both", &["--concept", "--to"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        super::fixture("tests/fixtures/pictures/grey.png"),
        folder.path().join("mask.png"),
    )
    .unwrap();
    for (line, says) in cases {
        let line = line.replace("mask.png", "@/mask.png");
        run(folder.path(), &line).failed(2, says);
    }
    assert_eq!(super::names(folder.path()), ["mask.png"]);
}

#[test]
fn options_before_and_after_the_command_are_the_same() {
    let before = run(Path::new("."), "--adapter nothing-has-this-name devices");
    let after = run(Path::new("."), "devices --adapter nothing-has-this-name");
    assert_eq!(before.failed(2, &["nothing-has-this-name"]).stderr, after.failed(2, &[]).stderr);
}
