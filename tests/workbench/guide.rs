//! The steps of the guide: each checks, and is measured.

use std::path::Path;

use mixofshow::backend::wgpu::{Gpu, Options, Selection, Tuned as TableOfSizes};
use mixofshow::workbench::{
    BenchOptions, CheckOptions, Clock, Contender, Settings, Source, Spec, TuneOptions, bench,
    check, tune, tune_family,
};

use super::{gpu, kernels};

fn steps() -> Vec<Source> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kernels");
    kernels(&folder).iter().map(|path| Source::open(path).unwrap()).collect()
}

#[test]
fn every_step_is_right() {
    let options = CheckOptions { device: gpu(), ..CheckOptions::default() };
    let all = steps();
    assert_eq!(all.len(), 6);
    for source in &all {
        let spec = Spec::kind(source.kind.as_deref().unwrap()).unwrap();
        let report = check(source, &spec, &options).unwrap();
        let faults: Vec<String> = report.faults.iter().map(|fault| fault.to_string()).collect();
        assert!(report.passed(), "{}\n{}", source.name, faults.join("\n"));
        assert!(report.shapes.len() >= 12, "{}: {:?}", source.name, report.notes);
    }
}

#[test]
fn the_guide_shows_every_step() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("docs/writing-kernels.md")).unwrap();
    for source in steps() {
        let name = source.path.unwrap().file_name().unwrap().to_string_lossy().into_owned();
        assert!(guide.contains(&format!("(../examples/kernels/{name})")), "{name}");
    }
}

/// What is measured has all that a report needs; how fast it is, is no matter of tests.
#[test]
fn steps_are_measured_side_by_side_and_tuned() {
    let Some(gpu) = gpu() else { return };
    let start = std::time::Instant::now();
    let now = || start.elapsed().as_secs_f64();
    let clock = Clock { name: "elapsed time", now: &now };
    let spec = Spec::kind("matmul").unwrap();
    let contenders: Vec<Contender> = steps()
        .into_iter()
        .skip(2)
        .take(2)
        .map(|source| Contender { source, settings: Settings::new() })
        .collect();
    let shapes = [vec![32, 32, 64]];
    let options = BenchOptions { rounds: 7, least: 0.0, ..BenchOptions::default() };
    let report =
        bench(&gpu, &contenders, &spec, &shapes, &options, &clock, &mut |_, _| true).unwrap();
    assert_eq!(report.measured.len(), 2);
    for one in &report.measured {
        assert!(one.median > 0.0 && one.p20 <= one.median && one.median <= one.p80, "{one:?}");
        assert!(one.error <= 1.0 && one.roofline > 0.0, "{one:?}");
        assert_eq!((one.samples.len(), one.flops), (7, 2.0 * 32.0 * 32.0 * 64.0));
    }
    assert!(report.measured[0].difference.is_none() && report.measured[1].difference.is_some());
    // Few forms.
    let mut text = steps().pop().unwrap().text().to_string();
    for (all, few) in [
        ("wide in [8, 10]", "wide in [4, 2, 8]"),
        // One that does not suit the shapes, which is told.
        ("depth in [64, 80]", "depth in [32, 48]"),
        ("rows_each in [1, 2]", "rows_each in [1]"),
        ("told in [0, 1]", "told in [0]"),
    ] {
        assert!(text.contains(all), "{text}");
        text = text.replace(all, few);
    }
    let source = Source::new("tuned.wgsl", &text).unwrap();
    let options = TuneOptions { rounds: 7, best: 2 };
    let report = tune(&gpu, &source, &spec, &shapes, &options, &clock, &mut |_, _| true).unwrap();
    assert_eq!((report.forms, report.pruned, report.wrong), (6, 3, 0), "{report:?}");
    let why = report.notes.iter().find(|note| note.starts_with("left out: 3 of 6 forms"));
    assert!(why.is_some_and(|note| note.contains("needs inner % depth == 0")), "{report:?}");
}

/// This program's own table of sizes, through the operations that use it.
#[test]
fn own_sizes_are_tuned() {
    let Some(gpu) = gpu() else { return };
    let start = std::time::Instant::now();
    let now = || start.elapsed().as_secs_f64();
    let clock = Clock { name: "elapsed time", now: &now };
    let name = gpu.name().to_string();
    let open = |tuned| {
        let selection = Selection::Matching(name.clone());
        let tuned = Some(tuned);
        Ok(Gpu::open(&Options { selection, tuned, ..Options::default() })?)
    };
    let options = TuneOptions { rounds: 3, best: 1 };
    let tune = |family: &str, shapes: &[Vec<usize>]| {
        let tuned = TableOfSizes::STANDARD;
        tune_family(family, tuned, &open, shapes, &options, &clock, &mut |_, _| true)
    };
    let report = tune("group_norm", &[vec![200, 16, 4]]).unwrap();
    assert_eq!((report.forms, report.wrong), (9, 0), "{report:?}");
    assert!(tune("nothing", &[]).unwrap_err().to_string().contains("matmul, attention"));
}
