//! Whole models of well-known sizes, with made-up weights.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;

use crate::cli::{Failure, values};

use super::cards::Card;
use super::{Clock, Result, Row, Terminal, fastest, peak, profile, table, updates};
use mixofshow::backend::Device;
use mixofshow::backend::wgpu::Gpu;
use mixofshow::backend::{Cost, Precision, Program, Timed, Weights};
use mixofshow::graph::{Array, Graph, Origin, Plan, StoredAs, Tensor};
use mixofshow::models::config::Addition;
use mixofshow::models::nn::{Encodings, Layers, LoraSet};
use mixofshow::models::preset::{self, MadeUpWeights, Preset};
use mixofshow::models::{clip_text, unet, vae};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Unet,
    Vae,
    Text,
}

#[derive(Debug, Args)]
pub struct Options {
    /// Model family; its weights are made up
    #[arg(long, default_value = "sd15", value_parser = PossibleValuesParser::new(preset::names()))]
    pub preset: String,
    /// Side of the picture in pixels
    #[arg(long, default_value_t = 256, value_parser = values::side)]
    pub size: usize,
    /// Pictures, prompts or latents at once
    #[arg(long, default_value_t = 1, value_parser = values::TIMES.parser::<usize>())]
    pub batch: usize,
    /// Measurements, of which the fastest counts
    #[arg(long, default_value_t = 3, value_parser = values::TIMES.parser::<usize>())]
    repeat: usize,
    /// Clock for all rates [default: cpu where the processor computes, else wall]
    #[arg(long, value_enum)]
    clock: Option<Clock>,
    /// Weights in f32 instead of f16
    #[arg(long)]
    pub f32: bool,
    /// Matrices in 8-bit blocks
    #[arg(long, conflicts_with = "f32")]
    pub q8_0: bool,
    /// Matrices in 4-bit blocks
    #[arg(long, conflicts_with_all = ["f32", "q8_0"])]
    pub q4_0: bool,
    #[command(flatten)]
    updates: updates::UpdateOptions,
    /// Of the UNet: the forward and backward pass of tuning, with updates of all attention layers
    /// (of rank 4 unless told)
    #[arg(long)]
    backward: bool,
    /// Profile the first pass, in which drivers compile kernels, instead of a later one
    #[arg(long)]
    cold: bool,
    /// Write where a pass spends its time, by layer and kernel: a flame graph and a trace for
    /// Chrome's or Perfetto's viewer, into this folder
    #[arg(long, value_name = "FOLDER")]
    profile: Option<std::path::PathBuf>,
    /// Compute nothing: count operations and bytes of each kernel as this card would run it, and
    /// print the least time that its public figures allow
    #[arg(long, value_enum, value_name = "CARD", conflicts_with_all = ["profile", "cold"])]
    pub model_of: Option<Card>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Appends the gradients that tuning wants of `output`: those of the updates and of the text.
fn differentiate(graph: &mut Graph, output: Tensor) -> Result<Vec<Tensor>> {
    let is_wanted = |t: &Tensor| match &graph.node(*t).origin {
        Origin::Input { name } => name == "text" || updates::is_matrix(name),
        _ => false,
    };
    let wanted: Vec<Tensor> = graph.tensors().filter(is_wanted).collect();
    let shape = graph.shape(output).clone();
    let (target, weights) = (graph.input("target", shape.clone()), graph.input("weights", shape));
    let loss = graph.weighted_squared_error(output, target, weights)?;
    let mut asked = graph.gradients(loss, &wanted)?;
    asked.push(loss);
    Ok(asked)
}

fn build(
    part: Part,
    preset: &Preset,
    options: &Options,
    mut low_rank: Vec<LoraSet>,
) -> Result<(Graph, Tensor)> {
    let mut graph = Graph::new();
    let latent = options.size / preset.vae.downscale();
    let output = match part {
        Part::Unet => {
            let config = &preset.unet;
            let sample = graph.input("sample", [options.batch, latent, latent, config.in_channels]);
            let time = graph.input("time", [options.batch, config.block_out_channels[0]]);
            let text = graph.input(
                "text",
                [options.batch, preset.text.max_position_embeddings, config.cross_attention_dim],
            );
            let told =
                |addition: Addition| graph.input("addition", [options.batch, addition.width()]);
            let addition = config.addition.map(told);
            let inputs = unet::UNetInputs {
                sample,
                time,
                prompt: Encodings::Text(&[text]),
                guidance: None,
                class: None,
                addition,
                residuals: Default::default(),
            };
            options.updates.mask(&mut low_rank, &mut graph, latent);
            unet::unet(&mut Layers::with_loras(&mut graph, low_rank), config, &inputs)?.sample
        }
        Part::Vae => {
            let latents =
                graph.input("latents", [options.batch, latent, latent, preset.vae.latent_channels]);
            vae::decode(&mut Layers::new(&mut graph), &preset.vae, latents)?
        }
        Part::Text => {
            let ids = graph.input_ids("ids", [options.batch, preset.text.max_position_embeddings]);
            clip_text::clip_text(
                &mut Layers::with_loras(&mut graph, low_rank),
                &preset.text,
                ids,
                0,
            )?
        }
    };
    Ok((graph, output))
}

/// The graph that is asked for, and its outputs. `rounds`: gradients may be rounded to f16.
pub fn built(part: Part, options: &Options, rounds: bool) -> Result<(Graph, Vec<Tensor>)> {
    let preset = preset::preset(&options.preset)
        .ok_or_else(|| Failure::Usage(format!("there is no preset `{}`", options.preset)))??;
    let (mut graph, output) = build(part, &preset, options, Vec::new())?;
    let mut outputs = vec![output];
    if options.backward && part != Part::Unet {
        return Err(Failure::Usage("--backward is for the UNet".into()));
    }
    let low_rank = options.updates.sets(&graph, options.backward);
    if !low_rank.is_empty() {
        let (with_updates, output) = build(part, &preset, options, low_rank)?;
        graph = with_updates;
        if rounds && !options.f32 {
            graph.round_gradients();
        }
        outputs = if options.backward { differentiate(&mut graph, output)? } else { vec![output] };
    }
    Ok((graph, outputs))
}

pub fn run(part: Part, options: &Options, gpu: &Device, terminal: &Terminal) -> Result<()> {
    let clock = options.clock.unwrap_or_else(|| Clock::suited_to(gpu));
    let rounds = options.backward && gpu.rounds_gradients().is_ok();
    let (mut graph, outputs) = built(part, options, rounds)?;
    let stored = if options.f32 { StoredAs::F32 } else { StoredAs::F16 };
    let precision = match (options.q8_0, options.q4_0) {
        (true, _) => Precision::Q8,
        (_, true) => Precision::Q4,
        _ => Precision::AsStored,
    };
    let weights = Weights::new(gpu, Arc::new(MadeUpWeights::of(&graph, stored)), precision);
    weights.let_round(&mut graph);
    let plan = Plan::new(&graph, &outputs, gpu.target());
    let planned = (weights.planned_bytes(&graph, &plan)?, plan.activation_bytes());
    let program = Program::from_plan(&weights, &graph, &plan)?;
    for node in graph.nodes() {
        if let Origin::Input { name } = &node.origin
            && node.element == mixofshow::graph::Element::F32
        {
            let scale = if updates::is_matrix(name) { 0.02 } else { 1.7 };
            let values = (0..node.shape.elements())
                .map(|i| ((i * 7919 % 1013) as f32 / 506.5 - 1.0) * scale)
                .collect();
            program.write(name, &Array::f32(node.shape.clone(), values))?;
        }
    }
    let first_costs = options.cold.then(|| program.profile(&|| clock.now())).transpose()?;
    let cold = clock.now();
    program.run();
    program.wait()?;
    let cold = clock.now() - cold;
    let seconds = fastest(&program, options.repeat, clock)?;
    let peak = peak::measure(gpu, clock)?;
    // The table is of the same run as the flame graph.
    let timeline = match options.profile {
        Some(_) => Some(program.timeline(&|| clock.now())?),
        None => None,
    };
    let costs = match (first_costs, &timeline) {
        (Some(costs), _) => costs,
        (None, Some(timeline)) => summed(timeline),
        (None, None) => program.profile(&|| clock.now())?,
    };
    let mut costs: Vec<_> = HashMap::into_iter(costs).collect();
    costs.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    let waiting = match gpu.backend::<Gpu>() {
        Some(gpu) => gpu.waiting(&|| clock.now())?,
        None => None,
    };
    let apart = Apart {
        whole: seconds,
        one_by_one: costs.iter().map(|(_, cost)| cost.seconds).sum(),
        commands: program.commands(),
        waiting,
    };
    if let (Some(folder), Some(timeline)) = (&options.profile, &timeline) {
        let title = format!("{} {part:?} on {}", options.preset, gpu.name());
        for path in profile::write(folder, &title, &apart.told(), timeline, &peak)? {
            terminal.note(format!("written: {}", path.display()));
        }
    }
    let mut rows = vec![Row::new(
        "whole pass",
        1,
        seconds,
        program.flops() as f64,
        program.bytes() as f64,
        &peak,
    )];
    rows.push(Row::new(
        "all below, one by one",
        1,
        apart.one_by_one,
        program.flops() as f64,
        program.bytes() as f64,
        &peak,
    ));
    rows.extend(costs.into_iter().map(|(what, cost)| {
        let calls = cost.calls.max(1) as f64;
        Row::new(
            what,
            cost.calls,
            cost.seconds / calls,
            cost.flops as f64 / calls,
            cost.bytes as f64 / calls,
            &peak,
        )
    }));
    let kernels = gpu.backend::<Gpu>().map_or(0, |gpu| gpu.kernels());
    if options.json {
        return terminal.print_json(&json!({
            "adapter": gpu.name(), "clock": clock, "peak": peak,
            "part": format!("{part:?}").to_lowercase(), "preset": options.preset,
            "size": options.size, "batch": options.batch, "seconds": seconds,
            "first_seconds": cold, "one_by_one_seconds": apart.one_by_one,
            "waiting_seconds": apart.waiting, "commands": program.commands(),
            "kernels": kernels, "weight_bytes": planned.0, "activation_bytes": planned.1,
            "rows": rows,
        }));
    }
    terminal.note(peak.describe(gpu, clock));
    terminal.note(format!(
        "{seconds:.3} s a pass, {cold:.3} s the first; {:.1} GFLOP, {} commands, {} kernels; {} \
            MiB weights, {} MiB activations",
        program.flops() as f64 * 1e-9,
        program.commands(),
        kernels,
        planned.0 >> 20,
        planned.1 >> 20,
    ));
    terminal.print(table("operation", &rows))?;
    terminal.note(apart.told());
    Ok(())
}

/// Costs of commands that ran one by one, by what they are of.
fn summed(timeline: &[Timed]) -> HashMap<String, Cost> {
    let mut costs: HashMap<String, Cost> = HashMap::new();
    for Timed { what, cost: one, .. } in timeline {
        let cost = costs.entry(what.clone()).or_default();
        cost.calls += one.calls;
        cost.seconds += one.seconds;
        cost.flops += one.flops;
        cost.bytes += one.bytes;
    }
    costs
}

/// A pass at once, and command by command.
struct Apart {
    whole: f64,
    one_by_one: f64,
    commands: usize,
    /// What a command takes that does nothing, where each is waited for.
    waiting: Option<f64>,
}

impl Apart {
    /// Why the rows of a table add up to something else than the pass.
    fn told(&self) -> String {
        let [whole, one_by_one] = [self.whole, self.one_by_one].map(|seconds| seconds * 1e3);
        let why = match self.waiting {
            Some(seconds) => format!(
                "each of the {} commands is submitted alone and waited for: {:.3} ms for one that \
                 does nothing, {:.1} ms for all",
                self.commands,
                seconds * 1e3,
                seconds * 1e3 * self.commands as f64
            ),
            None => "each command is measured by itself, once; in a pass none waits for it, and \
                     the fastest of several passes counts"
                .to_string(),
        };
        format!("rows add up to {one_by_one:.1} ms, the whole pass takes {whole:.1} ms: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rows_add_up_to_is_told() {
        let apart = Apart { whole: 0.0646, one_by_one: 0.12, commands: 654, waiting: Some(8e-5) };
        let told = apart.told();
        assert!(
            told.starts_with("rows add up to 120.0 ms, the whole pass takes 64.6 ms"),
            "{told}"
        );
        assert!(told.contains("0.080 ms") && told.contains("52.3 ms for all"), "{told}");
        let timed = |what: &str, seconds: f64| Timed {
            what: what.into(),
            layer: String::new(),
            cost: Cost { calls: 1, seconds, flops: 10, bytes: 100 },
        };
        let costs = summed(&[timed("a", 1.0), timed("b", 2.0), timed("a", 3.0)]);
        assert_eq!((costs["a"].calls, costs["a"].seconds, costs["b"].bytes), (2, 4.0, 100));
    }
}
