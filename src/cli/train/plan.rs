//! What a run would take, printed in its place.
use mixofshow::backend::Device;
use mixofshow::counted;
use mixofshow::training::PlannedRun;
use mixofshow::training::config::Settings;
use serde::Serialize;

use crate::cli::terminal::Terminal;
use crate::cli::{Result, units};

#[derive(Serialize)]
struct Plan<'a> {
    device: &'a str,
    width: usize,
    height: usize,
    pictures: usize,
    steps: usize,
    /// Pictures that a pass takes, those of the class too, and passes of an update.
    at_once: usize,
    passes: usize,
    checkpointing: bool,
    bytes: Bytes,
    /// What staying within the budget costs.
    costs: &'a [String],
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Bytes {
    /// On the device; of weights that come and go, their places.
    weights: u64,
    activations: u64,
    trained: u64,
    encoding: u64,
    /// While class pictures or sheets are made.
    pictures: u64,
    streamed_each_pass: u64,
    peak: u64,
    budget: Option<u64>,
}

/// Prints the plan of a run.
pub fn print(
    gpu: &Device,
    settings: &Settings,
    run: &PlannedRun,
    json: bool,
    terminal: &Terminal,
) -> Result<()> {
    let planned = &run.planned;
    let step = planned.step;
    let bytes = Bytes {
        weights: step.weights,
        activations: step.activations,
        trained: step.state,
        encoding: planned.encoding,
        pictures: planned.pictures,
        streamed_each_pass: step.streaming.map_or(0, |held| held.streamed),
        peak: planned.peak,
        budget: settings.memory,
    };
    let [width, height] = run.size;
    let plan = Plan {
        device: gpu.name(),
        width,
        height,
        pictures: run.pictures,
        steps: settings.steps,
        at_once: planned.at_once,
        passes: planned.passes,
        checkpointing: planned.checkpointing,
        bytes,
        costs: &planned.costs,
        warnings: terminal.told(),
    };
    if json {
        return terminal.print_json(&plan);
    }
    let row = |name: &str, value: String| format!("{name:<13}{value}");
    let bytes = &plan.bytes;
    let most = units::bytes(bytes.peak);
    let mut lines = vec![
        row("device", plan.device.to_string()),
        row("model", settings.model.clone()),
        row("pictures", format!("{}, tuned at {width}x{height}", plan.pictures)),
        row(
            "steps",
            format!(
                "{}, each in {} of {}",
                plan.steps,
                match plan.passes {
                    1 => "one pass".to_string(),
                    passes => format!("{passes} passes"),
                },
                counted(plan.at_once, "picture")
            ),
        ),
        row(
            "a step",
            format!(
                "weights {}, activations {}, what is trained and inputs {}",
                units::bytes(bytes.weights),
                units::bytes(bytes.activations),
                units::bytes(bytes.trained)
            ),
        ),
        row("beside it", format!("encoding pictures {}", units::bytes(bytes.encoding))),
        row(
            "at most",
            match bytes.budget {
                Some(budget) => format!("{most} of {}", units::bytes(budget)),
                None => most,
            },
        ),
    ];
    if bytes.pictures > 0 {
        let pictures = units::bytes(bytes.pictures);
        lines.insert(6, row("sheets", format!("{pictures} while pictures are made")));
    }
    lines.extend(plan.costs.iter().map(|cost| row("cost", cost.clone())));
    terminal.print(lines.join("\n"))
}
