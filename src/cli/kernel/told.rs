//! Measurements in words.

use mixofshow::workbench::{BenchReport, Measured};

/// The machine in a line.
pub fn describe(report: &BenchReport) -> String {
    let peak = &report.peak;
    let cold = if report.cold { ", caches cold" } else { "" };
    let checked = if report.checked { ", with bounds checks" } else { "" };
    format!(
        "{}, by {}{cold}{checked}: at most {:.1} GFLOP/s, {:.1} GB/s, {:.1} us a dispatch",
        report.adapter,
        report.clock,
        peak.flops * 1e-9,
        peak.bytes * 1e-9,
        peak.launch * 1e6
    )
}

/// A time in the unit that suits it.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-3 => format!("{:.1} us", v * 1e6),
        v if v < 1.0 => format!("{:.3} ms", v * 1e3),
        v => format!("{v:.3} s"),
    }
}

/// Whether results are not those of the reference.
pub fn is_wrong(measured: &Measured) -> bool {
    measured.error.is_nan() || measured.error > 1.0
}

/// What is said of a kernel beside the first.
pub fn beside(measured: &Measured) -> String {
    // Wrong results are quickly made.
    match (is_wrong(measured), &measured.difference) {
        (true, _) => "WRONG RESULTS".to_string(),
        (false, Some(difference)) => difference.told(),
        (false, None) => String::new(),
    }
}
