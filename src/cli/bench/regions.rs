//! What regions cost: a step without any, with three that cover the picture, with eight that all
//! do.

use std::sync::Arc;

use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;

use super::{Clock, Result, Row, Terminal, fastest, peak, table};
use crate::cli::{Failure, values};
use mixofshow::backend::Device;
use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::ops::{RegionInputs, RegionTables};
use mixofshow::graph::{Array, Element, Graph, Origin, StoredAs, Tensor};
use mixofshow::models::config::Addition;
use mixofshow::models::nn::{Encodings, Layers, RegionSize};
use mixofshow::models::preset::{self, MadeUpWeights, Preset};
use mixofshow::models::unet;

#[derive(Debug, Args)]
pub struct Options {
    /// Model family; its weights are made up
    #[arg(long, default_value = "sd15", value_parser = PossibleValuesParser::new(preset::names()))]
    preset: String,
    /// Side of the picture in pixels
    #[arg(long, default_value_t = 512, value_parser = values::side)]
    size: usize,
    /// 2 is one picture with guidance
    #[arg(long, default_value_t = 2, value_parser = values::TIMES.parser::<usize>())]
    batch: usize,
    /// Measurements of each, of which the fastest counts
    #[arg(long, default_value_t = 2, value_parser = values::TIMES.parser::<usize>())]
    repeat: usize,
    /// Clock for all rates [default: cpu where the processor computes, else wall]
    #[arg(long, value_enum)]
    clock: Option<Clock>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// How many regions there are, and whether they overlap.
const CASES: [(&str, usize, bool); 3] = [
    ("no regions", 1, false),
    ("3 side by side", 3, false),
    ("8 over all of the picture", 8, true),
];

struct Case {
    graph: Graph,
    output: Tensor,
    tables: Vec<(RegionInputs, RegionTables)>,
}

/// One pass with keys and values made beforehand, as sampling runs it.
fn build(preset: &Preset, options: &Options, prompts: usize, overlapping: bool) -> Result<Case> {
    let (config, latent) = (&preset.unet, options.size / preset.vae.downscale());
    let length = preset.text.max_position_embeddings;
    let mut graph = Graph::new();
    let sample = graph.input("sample", [options.batch, latent, latent, config.in_channels]);
    let time = graph.input("time", [options.batch, config.block_out_channels[0]]);
    let attentions = unet::cross_attentions(config).into_iter();
    let pairs: Vec<_> = attentions
        .map(|attention| {
            let shape = [options.batch, prompts * length, attention.channels];
            (
                graph.input(format!("{}.k", attention.name), shape),
                graph.input(format!("{}.v", attention.name), shape),
            )
        })
        .collect();
    let (mut sizes, mut tables) = (Vec::new(), Vec::new());
    if prompts > 1 {
        for [height, width] in unet::feature_sizes(config, latent, latent) {
            let share = |column: usize, prompt: usize| match overlapping {
                true => 1.0 / prompts as f32,
                false => f32::from(u8::from(column * prompts / width == prompt)),
            };
            let weights: Vec<f32> = (0..height * width)
                .flat_map(|i| (0..prompts).map(move |prompt| share(i % width, prompt)))
                .collect();
            let table = RegionTables::new(&weights, &vec![length; prompts]);
            let tokens = height * width;
            let inputs = RegionInputs::declare(
                &mut graph,
                &format!("regions.{tokens}"),
                tokens,
                table.reach().to_vec(),
            );
            tables.push((inputs.clone(), table));
            sizes.push(RegionSize { tokens, inputs, mask: None });
        }
    }
    let prompt = match sizes.is_empty() {
        true => Encodings::KeysValues(&pairs),
        false => Encodings::Regional { pairs: &pairs, sizes: &sizes },
    };
    let told = |addition: Addition| graph.input("addition", [options.batch, addition.width()]);
    let addition = config.addition.map(told);
    let inputs = unet::UNetInputs {
        sample,
        time,
        prompt,
        guidance: None,
        class: None,
        addition,
        residuals: Default::default(),
    };
    let output = unet::unet(&mut Layers::new(&mut graph), config, &inputs)?.sample;
    Ok(Case { graph, output, tables })
}

fn program(case: &Case, weights: &Weights) -> Result<Program> {
    let program = Program::new(weights, &case.graph, &[case.output])?;
    for node in case.graph.nodes() {
        if let Origin::Input { name } = &node.origin
            && node.element == Element::F32
        {
            let values = (0..node.shape.elements())
                .map(|i| ((i * 7919 % 1013) as f32 / 506.5 - 1.0) * 1.7)
                .collect();
            program.write(name, &Array::f32(node.shape.clone(), values))?;
        }
    }
    for (inputs, table) in &case.tables {
        program.write_all(table.values(inputs))?;
    }
    Ok(program)
}

pub fn run(options: &Options, gpu: &Device, terminal: &Terminal) -> Result<()> {
    let clock = options.clock.unwrap_or_else(|| Clock::suited_to(gpu));
    let preset = preset::preset(&options.preset)
        .ok_or_else(|| Failure::Usage(format!("there is no preset `{}`", options.preset)))??;
    let mut weights: Option<Weights> = None;
    let peak = peak::measure(gpu, clock)?;
    let (mut rows, mut results) = (Vec::new(), Vec::new());
    let mut first = None;
    for (what, prompts, overlapping) in CASES {
        let case = build(&preset, options, prompts, overlapping)?;
        let weights = weights.get_or_insert_with(|| {
            Weights::new(
                gpu,
                Arc::new(MadeUpWeights::of(&case.graph, StoredAs::F16)),
                Precision::AsStored,
            )
        });
        let program = program(&case, weights)?;
        let seconds = fastest(&program, options.repeat, clock)?;
        let ratio = seconds / *first.get_or_insert(seconds);
        terminal.note(format!("{what}: {seconds:.3} s a pass, {ratio:.3} of one without regions"));
        rows.push(Row::new(
            what,
            1,
            seconds,
            program.flops() as f64,
            program.bytes() as f64,
            &peak,
        ));
        results.push(json!({"regions": what, "seconds": seconds, "ratio": ratio}));
    }
    if options.json {
        return terminal.print_json(&json!({
            "adapter": gpu.name(), "clock": clock, "peak": peak, "preset": options.preset,
            "size": options.size,
            "batch": options.batch, "results": results,
        }));
    }
    terminal.note(peak.describe(gpu, clock));
    terminal.print(table("step", &rows))
}
