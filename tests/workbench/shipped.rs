//! This program's own kernels, executed as they are written.

use std::collections::BTreeSet;

use mixofshow::backend::wgpu::kernel_names;
use mixofshow::workbench::{Source, check_shipped};

/// Those that no case of the workbench can dispatch, and why.
const ELSEWHERE: [&str; 5] = [
    // Heads of more than 160 channels, and gradients of attention in f16: no case has such.
    "attention_matrices_wide",
    "attention_rows_matrices",
    "attention_queries_gradient_matrices",
    "attention_keys_values_gradient_matrices",
    // Measures a device, and nothing else.
    "peak",
];

#[test]
fn shipped_kernels_pass() {
    let reports = check_shipped(None, &mut |_, _, _| true).unwrap();
    for report in &reports {
        let faults: Vec<String> = report.faults.iter().map(|fault| fault.to_string()).collect();
        assert!(report.passed(), "{}\n{}", report.kernel, faults.join("\n"));
        assert!(report.notes.is_empty(), "{}: {:?}", report.kernel, report.notes);
    }
    let checked: BTreeSet<String> = reports.iter().map(|r| r.kernel.clone()).collect();
    let all: BTreeSet<String> = kernel_names().into_iter().collect();
    let missed: Vec<&String> =
        all.difference(&checked).filter(|name| !ELSEWHERE.contains(&name.as_str())).collect();
    assert!(missed.is_empty(), "no case dispatches {missed:?}");
}

/// A fault planted in one of them is found, and its line named.
#[test]
fn a_fault_in_a_shipped_kernel_is_found() {
    let own = Source::own("matmul_staged").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matmul_staged.wgsl");
    let barrier = "      ws[lane] = b;\n//% endif\n      workgroupBarrier();\n";
    assert!(own.text().contains(barrier));
    let spoilt = own.text().replace(barrier, "      ws[lane] = b;\n//% endif\n");
    std::fs::write(&path, spoilt).unwrap();
    let source = Source::open(&path).unwrap();
    let reports = check_shipped(Some(&source), &mut |_, _, _| true).unwrap();
    let fault = reports[0].faults.first().expect("a fault");
    assert_eq!(fault.kind.name(), "missing barrier", "{fault}");
    assert!(fault.line.is_some_and(|line| line > 80), "{fault}");
}
