//! `mos inspect`
mod picture;

use std::path::Path;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use mixofshow::backend::Precision;
use mixofshow::backend::wgpu::{self as gpu, Gpu};
use mixofshow::checkpoint::inspect::{ComponentReport, Report, What, inspect, inspect_model};
use mixofshow::checkpoint::{Checkpoint, SHIPPED, find};
use mixofshow::concept::dialects;
use mixofshow::counted;
use mixofshow::pipeline::{Pipeline, Request};
use serde::Serialize;
use serde_json::{Map, Value};

use super::terminal::Terminal;
use super::{Result, escaped, files, units, values};

/// Tell what a model, concept, LoRA, picture or any safetensors file holds
///
/// Reads a model folder (diffusers' layout), the folder of one network, or a file (safetensors,
/// GGUF): what it is and which options take it, its networks with their configurations, sizes and
/// element types, a concept's or LoRA's dialect, words, ranks, alpha and base model, metadata, the
/// words that a small model knows, and the device memory that a picture takes. Files that
/// `torch.save` wrote (.ckpt, .pth, .pt, .bin) are read without executing anything. Concepts and
/// LoRAs are read as a whole, so that damage is told; of models no weights are loaded. Of a picture
/// it tells the settings that its file carries, with --verbose all of them. No graphics adapter is
/// needed.
#[derive(clap::Args)]
pub struct Arguments {
    /// File or folder, or a model's name as `generate` takes it [default: the model that ships with
    /// the program]
    path: Option<String>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Tell the device memory for pictures of this size [default: what the model was trained at]
    #[arg(short, long, value_name = "WIDTHxHEIGHT", value_parser = values::size)]
    size: Option<(usize, usize)>,
    /// Print JSON: all that is known, every tensor included
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let name = arguments.path.as_deref().unwrap_or(SHIPPED);
    let path = find(name, files::models().as_deref())?;
    if let Some(path) = path.as_deref().filter(|path| picture::is_it(path)) {
        return picture::run(path, arguments.json, terminal);
    }
    let (report, model) = match &path {
        Some(path) => {
            let mut report = inspect(path)?;
            if let Some(problem) = damage(&report, path) {
                report.used = format!("none as it is: {problem}");
            }
            // One in a pickle is told, but not opened.
            let is_model = report.scheduler.is_some();
            (report, is_model.then(|| Checkpoint::open(path)).transpose()?)
        }
        None => {
            let model = Checkpoint::shipped()?;
            (inspect_model(&model), Some(model))
        }
    };
    // A broken or unusual model can still be looked at.
    let (memory, broken) = match model.map(|model| plan(&model, arguments.size)) {
        Some(Ok(memory)) => (Some(memory), None),
        Some(Err(error)) => (None, Some(format!("pictures cannot be made with it: {error}"))),
        None => (None, None),
    };
    if arguments.json {
        broken.iter().for_each(|broken| terminal.warning(broken));
        let warnings = terminal.told();
        return terminal.print_json(&Inspected { report: &report, memory, warnings });
    }
    terminal.print(describe(&report, terminal.verbose()))?;
    if let Some(memory) = memory {
        terminal.print(memory)?;
    }
    broken.iter().for_each(|broken| terminal.warning(broken));
    if arguments.tensors {
        for component in &report.components {
            terminal.print(format!("\n{}", tensors(component)))?;
        }
    }
    Ok(())
}

/// Why a concept or a LoRA cannot be used, although its names and shapes are those of one: it is
/// read as a whole.
fn damage(report: &Report, path: &Path) -> Option<String> {
    let is_read = matches!(report.what, What::Concept | What::Lora | What::TextualInversion);
    let said = report.used.starts_with("none");
    (is_read && !said).then(|| dialects::read(path).err()).flatten().map(|error| error.to_string())
}

#[derive(Serialize)]
struct Inspected<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What one picture takes on a device with no more than WebGPU's basic limits, in bytes.
#[derive(Serialize)]
struct Memory {
    width: usize,
    height: usize,
    weights: u64,
    sampling: u64,
    decoding: u64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [weights, sampling, decoding] =
            [self.weights, self.sampling, self.decoding].map(units::bytes);
        writeln!(f, "\ndevice memory for a picture of {}x{}", self.width, self.height)?;
        write!(f, "  weights: {weights}\n  sampling: {sampling}\n  decoding: {decoding}")
    }
}

/// Plans a picture without any device.
fn plan(
    model: &Checkpoint,
    size: Option<(usize, usize)>,
) -> std::result::Result<Memory, Box<dyn std::error::Error>> {
    let gpu = Gpu::open(&gpu::Options {
        selection: gpu::Selection::Noop(Box::default()),
        ..Default::default()
    })?;
    let pipeline = Pipeline::load(&gpu.into(), model, Precision::default())?;
    let (width, height) = size.unwrap_or(pipeline.default_size());
    let request = Request { width: Some(width), height: Some(height), ..Request::default() };
    let planned = pipeline.prepare(&request)?.memory();
    Ok(Memory {
        width,
        height,
        weights: planned.weights,
        sampling: planned.sampling,
        decoding: planned.decoding,
    })
}

fn describe(report: &Report, all: bool) -> String {
    let mut text = format!(
        "{}: {}",
        escaped::line(&report.path.display().to_string()),
        report.what.describe()
    );
    text += &format!(
        ", {} weights, {}\n",
        units::count(report.parameters()),
        units::bytes(report.bytes())
    );
    text += &format!("use: {}\n", escaped::line(&report.used));
    text += &format!("\n{}\n", components(report));
    for component in &report.components {
        text += &config(&component.name, &component.config, all);
        if !component.ignored.is_empty() {
            text += &format!(
                "  passed over: {} without meaning for it\n",
                counted(component.ignored.len(), "tensor")
            );
        }
    }
    if let Some(scheduler) = &report.scheduler {
        text += &config("scheduler", scheduler, all);
    }
    if let Some(lora) = &report.lora {
        let list = |pairs: Vec<String>| pairs.join(", ");
        let forms: Vec<String> = lora.forms.iter().map(plain).collect();
        let kind = if lora.words.is_empty() { "LoRA" } else { "concept" };
        text += &format!("\n{kind}: {} names", plain(&lora.dialect));
        if !lora.layers.is_empty() {
            text += &format!(", {}", forms.join(" and "));
            if let Some(family) = lora.made_for {
                text += &format!(", for {}", family.describe());
            }
            text += "\n";
            text += &format!(
                "  layers  {}\n",
                list(
                    lora.layers.iter().map(|(n, c)| format!("{} {c}", escaped::line(n))).collect()
                )
            );
            text += &format!(
                "  rank    {}",
                list(
                    lora.ranks
                        .iter()
                        .map(|(r, c)| format!("{r} ({})", counted(*c, "layer")))
                        .collect()
                )
            );
        }
        text += "\n";
        if !lora.alphas.is_empty() {
            text += &format!(
                "  alpha   {}\n",
                list(
                    lora.alphas
                        .iter()
                        .map(|(a, c)| format!("{a} ({})", counted(*c, "layer")))
                        .collect()
                )
            );
        }
        if let Some(base) = &lora.base {
            text += &format!("  base    {}\n", escaped::line(base));
        }
        for (word, shape) in &lora.words {
            text += &format!("  word    {} {shape:?}\n", escaped::line(word));
        }
    }
    if !report.known_words.is_empty() {
        text += "\nknown words\n";
    }
    for (kind, words) in &report.known_words {
        text += &format!("  {}: {}\n", escaped::line(kind), escaped::line(&words.join(", ")));
    }
    for word in &report.words {
        text += &format!(
            "\nword {}: {} of {}\n",
            escaped::line(&word.word),
            counted(word.vectors, "vector"),
            word.width
        );
    }
    if !report.metadata.is_empty() {
        text += "\nmetadata\n";
        for (key, value) in &report.metadata {
            text += &format!(
                "  {}: {}\n",
                escaped::line(key),
                if all { escaped::line(value).into_owned() } else { shortened(value) }
            );
        }
    }
    for note in &report.notes {
        text += &format!("\nnote: {}\n", escaped::line(note));
    }
    text.trim_end().to_string()
}

fn components(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["network", "tensors", "weights", "size", "type", "file"]);
    for component in &report.components {
        let types: Vec<String> = component.dtypes.keys().map(plain).collect();
        let file = component.path.strip_prefix(&report.path).unwrap_or(&component.path);
        table.add_row([
            escaped::line(&component.name).into_owned(),
            component.tensors.len().to_string(),
            units::count(component.parameters),
            units::bytes(component.bytes),
            types.join(", "),
            escaped::line(&file.display().to_string()).into_owned(),
        ]);
    }
    right_aligned(&mut table, 1..4);
    table
}

fn tensors(component: &ComponentReport) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([&*escaped::line(&component.name), "shape", "type", "size"]);
    for tensor in &component.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        table.add_row([
            escaped::line(&tensor.name).into_owned(),
            shape.join(" x "),
            plain(&tensor.dtype),
            units::bytes(tensor.bytes),
        ]);
    }
    right_aligned(&mut table, 3..4);
    table
}

fn right_aligned(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// What of a configuration tells models apart; the rest is for `--verbose`.
const TELLING: [&str; 28] = [
    "_class_name",
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "attention_head_dim",
    "num_attention_heads",
    "cross_attention_dim",
    "use_linear_projection",
    "norm_num_groups",
    "latent_channels",
    "scaling_factor",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "projection_dim",
    "max_position_embeddings",
    "hidden_act",
    "prediction_type",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "num_train_timesteps",
    "timestep_spacing",
    "steps_offset",
    "rescale_betas_zero_snr",
];

fn config(name: &str, config: &Value, all: bool) -> String {
    let empty = Map::new();
    let config = config.as_object().unwrap_or(&empty);
    let told = config
        .iter()
        .filter(|(key, value)| all || (TELLING.contains(&key.as_str()) && !value.is_null()));
    let lines: Vec<String> =
        told.map(|(key, value)| format!("  {}: {}", escaped::line(key), plain(value))).collect();
    if lines.is_empty() { String::new() } else { format!("\n{name}\n{}\n", lines.join("\n")) }
}

/// As JSON, but words without their quotes; in one line.
fn plain(value: &impl serde::Serialize) -> String {
    let text = match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    };
    escaped::line(&text).into_owned()
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => {
            format!(
                "{} ... ({} characters; --verbose shows all)",
                escaped::line(&line[..end]),
                text.chars().count()
            )
        }
        None => escaped::line(&line).into_owned(),
    }
}
