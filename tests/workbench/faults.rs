//! Each of `wrong/` says in its header which faults it has.

use std::path::Path;

use mixofshow::workbench::{CheckOptions, CheckReport, Source, Spec, check};

use super::{folder, gpu, kernels};

fn checked(path: &Path, options: &CheckOptions) -> CheckReport {
    let source = Source::open(path).unwrap();
    let spec = Spec::kind(source.kind.as_deref().expect("a kind")).unwrap();
    check(&source, &spec, options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn told(report: &CheckReport) -> String {
    let faults: Vec<String> = report.faults.iter().map(|fault| format!("  {fault}")).collect();
    format!("{}\n{}\n{:#?}", report.kernel, faults.join("\n"), report.notes)
}

/// What a kernel's header says that is wrong with it.
fn planted(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("// fault: ").map(str::to_string));
    line.expect("a fault").split(", ").map(str::to_string).collect()
}

fn names(report: &CheckReport) -> Vec<String> {
    let name = |kind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_string();
    report.faults.iter().map(|fault| name(fault.kind)).collect()
}

/// Without any device: the interpreter alone.
#[test]
fn planted_faults_are_found_and_named() {
    let all = kernels(&folder("wrong"));
    assert!(all.len() >= 12);
    for path in all {
        let report = checked(&path, &CheckOptions::default());
        let found = names(&report);
        for fault in planted(&path) {
            assert!(found.contains(&fault), "no {fault} in {}", told(&report));
        }
        println!("{}", told(&report));
    }
}

#[test]
fn right_kernels_pass() {
    let options = CheckOptions { device: gpu(), ..CheckOptions::default() };
    for path in kernels(&folder("right")) {
        let report = checked(&path, &options);
        assert!(report.passed(), "{}", told(&report));
        assert!(report.shapes.len() >= 9, "{}", told(&report));
        println!("{}", told(&report));
        for shape in &report.shapes {
            println!("  {} {:?} of {:.1e}", shape.label, shape.error, shape.allowed);
        }
    }
}
