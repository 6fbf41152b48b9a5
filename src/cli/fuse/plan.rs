//! What a fusion would take, printed in its place.
use mixofshow::backend::Device;
use mixofshow::fusion::{PlannedFusion, Settings};
use serde::Serialize;

use crate::cli::terminal::Terminal;
use crate::cli::{Result, units};

#[derive(Serialize)]
struct Plan<'a> {
    device: &'a str,
    model: &'a str,
    bytes: Bytes,
    /// What staying within the budget costs.
    costs: &'a [String],
    warnings: Vec<String>,
}

/// Of the device, one of the first five at a time.
#[derive(Serialize)]
struct Bytes {
    text_encoders: u64,
    sampling: u64,
    predictions: u64,
    scenes: u64,
    distillation: u64,
    streamed_each_step: u64,
    peak: u64,
    budget: Option<u64>,
    /// Of main memory, for sums.
    host: u64,
}

/// Prints the plan of a fusion.
pub fn print(
    gpu: &Device,
    model: &str,
    settings: &Settings,
    planned: &PlannedFusion,
    json: bool,
    terminal: &Terminal,
) -> Result<()> {
    let bytes = Bytes {
        text_encoders: planned.text,
        sampling: planned.sampling,
        predictions: planned.predictions,
        scenes: planned.scenes,
        distillation: planned.distillation,
        streamed_each_step: planned.streaming.map_or(0, |held| held.streamed),
        peak: planned.peak,
        budget: settings.memory,
        host: planned.host,
    };
    let plan =
        Plan { device: gpu.name(), model, bytes, costs: &planned.costs, warnings: terminal.told() };
    if json {
        return terminal.print_json(&plan);
    }
    let row = |name: &str, value: String| format!("{name:<13}{value}");
    let bytes = &plan.bytes;
    let most = units::bytes(bytes.peak);
    let mut lines = vec![
        row("device", plan.device.to_string()),
        row("model", model.to_string()),
        row("prompts", format!("text encoders {}", units::bytes(bytes.text_encoders))),
        row(
            "statistics",
            format!(
                "sampling {}, main memory {} for sums",
                units::bytes(bytes.sampling),
                units::bytes(bytes.host)
            ),
        ),
        row(
            "predictions",
            format!(
                "a concept's {}, a scene's {}",
                units::bytes(bytes.predictions),
                units::bytes(bytes.scenes)
            ),
        ),
        row("distillation", units::bytes(bytes.distillation)),
        row(
            "at most",
            match bytes.budget {
                Some(budget) => format!("{most} of {}", units::bytes(budget)),
                None => most,
            },
        ),
    ];
    lines.extend(plan.costs.iter().map(|cost| row("cost", cost.clone())));
    terminal.print(lines.join("\n"))
}
