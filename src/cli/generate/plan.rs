//! What a run would take, printed in its place.
use mixofshow::backend::Device;
use mixofshow::counted;
use mixofshow::pipeline::{Pipeline, PreparedRequest, StreamingCost};
use serde::Serialize;

use crate::cli::terminal::Terminal;
use crate::cli::{Result, units};

#[derive(Serialize)]
struct Plan {
    device: String,
    width: usize,
    height: usize,
    pictures: usize,
    /// Sampled together.
    at_once: usize,
    sampler: String,
    /// Calls of the model for each picture, of all passes.
    calls: usize,
    bytes: Bytes,
    /// What staying within the budget costs.
    costs: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Bytes {
    text_encoder: u64,
    unet: u64,
    autoencoder: u64,
    sampling: u64,
    encoding: u64,
    decoding: u64,
    peak: u64,
    budget: Option<u64>,
    #[serde(flatten)]
    streaming: Option<Streaming>,
}

/// Where the UNet's weights do not all stay on the device.
#[derive(Serialize)]
struct Streaming {
    /// Those of a step that stay, and the places of those that come and go.
    unet_stays: u64,
    unet_places: u64,
    /// What comes anew with each call of the model, and in how many blocks.
    streamed_each_call: u64,
    streamed_blocks: usize,
    /// What that takes at most, at the rate of a sample.
    streaming_seconds: Option<f64>,
}

/// Prints the plan of a request.
pub fn print(
    gpu: &Device,
    pipeline: &Pipeline,
    prepared: &PreparedRequest<'_>,
    json: bool,
    terminal: &Terminal,
) -> Result<()> {
    let (memory, shape) = (prepared.memory(), prepared.shape());
    let cost = pipeline.streaming(prepared)?;
    let mut costs = prepared.costs();
    let streaming = memory.streaming.zip(cost).map(|(held, cost)| {
        costs.extend(told(&cost));
        Streaming {
            unet_stays: held.stays,
            unet_places: held.places,
            streamed_each_call: held.streamed,
            streamed_blocks: held.blocks,
            streaming_seconds: cost.seconds,
        }
    });
    let plan = Plan {
        device: gpu.name().to_string(),
        width: shape.width,
        height: shape.height,
        pictures: shape.pictures,
        at_once: shape.at_once,
        sampler: shape.sampler.to_string(),
        calls: shape.calls,
        bytes: Bytes {
            text_encoder: memory.text,
            unet: memory.unet,
            autoencoder: memory.vae,
            sampling: memory.sampling,
            encoding: memory.encoding,
            decoding: memory.decoding,
            peak: memory.peak,
            budget: prepared.budget(),
            streaming,
        },
        costs,
        warnings: prepared.warnings().to_vec(),
    };
    if json {
        return terminal.print_json(&plan);
    }
    let bytes = &plan.bytes;
    let row = |name: &str, value: String| format!("{name:<13}{value}");
    let mut lines = vec![
        row("device", plan.device.clone()),
        row("model", pipeline.model().path.display().to_string()),
        row(
            "pictures",
            format!(
                "{} of {}x{}, {} at once",
                plan.pictures, plan.width, plan.height, plan.at_once
            ),
        ),
        row(
            "sampling",
            format!("{} of the model by {}", counted(plan.calls, "call"), plan.sampler),
        ),
        row(
            "weights",
            format!(
                "text encoder {}, UNet {}, autoencoder {}",
                units::bytes(bytes.text_encoder),
                units::bytes(bytes.unet),
                units::bytes(bytes.autoencoder)
            ),
        ),
        row(
            "at work",
            format!(
                "sampling {}, decoding {}{}",
                units::bytes(bytes.sampling),
                units::bytes(bytes.decoding),
                match bytes.encoding {
                    0 => String::new(),
                    encoding => format!(", encoding {}", units::bytes(encoding)),
                }
            ),
        ),
        row(
            "at most",
            match bytes.budget {
                Some(budget) => {
                    format!("{} of {}", units::bytes(bytes.peak), units::bytes(budget))
                }
                None => units::bytes(bytes.peak),
            },
        ),
    ];
    if let Some(streaming) = &bytes.streaming {
        lines.insert(
            5,
            row(
                "of the UNet",
                format!(
                    "{} stay, {} come with each call in {}, into {}",
                    units::bytes(streaming.unet_stays),
                    units::bytes(streaming.streamed_each_call),
                    counted(streaming.streamed_blocks, "block"),
                    units::bytes(streaming.unet_places)
                ),
            ),
        );
    }
    lines.extend(plan.costs.iter().map(|cost| row("cost", cost.clone())));
    terminal.print(lines.join("\n"))
}

/// What it costs that weights come anew.
fn told(cost: &StreamingCost) -> [String; 2] {
    let all = units::bytes(cost.each * cost.calls as u64);
    let time = match cost.seconds {
        Some(seconds) => format!(
            "{} at the rate of a sample{}",
            units::duration(std::time::Duration::from_secs_f64(seconds)),
            match cost.host {
                0 => "",
                _ => ", less what is hidden behind computing",
            }
        ),
        None => "no time that could be measured".to_string(),
    };
    let from = match cost.host {
        0 => "they are packed from the model's file each time, whose pages stay in memory as long as \
              there is room"
            .to_string(),
        host => format!("main memory holds {} for that", units::bytes(host)),
    };
    [
        format!(
            "weights come anew with each call of the UNet: {all} in {}, {time}",
            counted(cost.calls, "call")
        ),
        from,
    ]
}
