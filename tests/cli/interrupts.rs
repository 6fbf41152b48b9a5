//! Ctrl-C: the first ends a command in good order, and tells how to go on.
#![cfg(target_os = "linux")]

use super::{fixture, mos, names, ran};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whether programs are left alone by the terminal's end, as under nohup: then `mos` does not
/// listen.
fn unheard() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0
}

/// Waits until `file` is there, presses Ctrl-C, and waits for the end: exit code and messages.
fn interrupted(mut child: Child, file: &Path) -> (Option<i32>, String) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(5));
    }
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn pictures_that_are_done_stay_and_nothing_else() {
    if unheard() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let child = mos()
        .args("generate -p cat --size 64x64 --steps 4 --batch 200 --adapter cpu".split(' '))
        .args(["-o", "p.png"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // All are sampled at once, so that this is while they are decoded.
    let (code, said) = interrupted(child, &folder.path().join("p-1.png"));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("stopped") && !said.contains("error"), "{said}");
    let names = names(folder.path());
    assert!(names.iter().all(|name| name.ends_with(".png")) && names.len() < 200, "{names:?}");
    for name in &names {
        mixofshow::picture::Picture::open(folder.path().join(name)).unwrap();
    }
}

/// Seconds that a process has computed.
fn computed(child: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = after.skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ticks.iter().sum::<f64>() / 100.0
}

/// A step of this size takes seconds: the first signal waits for its end, the second does not.
#[test]
fn a_second_one_ends_it_at_once() {
    if unheard() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = mos()
        .args("generate -p cat --size 1024x1024 --steps 4 --adapter cpu -o p.png".split(' '))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while computed(&child) < 2.0 {
        assert!(start.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(20));
    }
    let press = || Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(press().success());
    sleep(Duration::from_millis(100));
    // If it has just ended with its step, that was the first one's doing.
    press();
    let second = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(second.elapsed() < Duration::from_secs(2), "{:?}", second.elapsed());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("error"), "{said}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_run_is_saved_and_its_next_command_is_told() {
    if unheard() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let train = |more: &[&str]| {
        let mut command = mos();
        command
            .args("train --words <a> --class-word man --size 64x64 --batch 1".split(' '))
            .args("--save-every 2 --sheet-every 0 --accumulate 1 --adapter cpu".split(' '))
            .args(["-o", "a.safetensors", "--pictures"])
            .arg(fixture("models/concepts/zorp"))
            .args(more)
            .current_dir(at);
        command
    };
    let child =
        train(&["--steps", "300"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (code, said) = interrupted(child, &at.join("a.training/state.safetensors"));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("all of it is saved") && said.contains("--resume"), "{said}");
    assert_eq!(names(at), ["a.training"]);
    assert_eq!(names(&at.join("a.training")), ["curve.png", "state.safetensors"]);
    let step = said.split("stopped at step ").nth(1).unwrap().split(' ').next().unwrap();
    let resumed = ran(&mut train(&["--resume", "--steps", step]));
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}
