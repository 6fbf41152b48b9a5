//! A step of tuning against the forward pass of the same networks, with made-up weights.

use std::sync::Arc;

use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;

use crate::cli::{Failure, values};

use super::{Clock, Result, Row, Terminal, fastest, peak, table};
use mixofshow::backend::Device;
use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::{Array, Element, Graph, Origin, StoredAs, Tensor};
use mixofshow::models::nn::{Encodings, Layers};
use mixofshow::models::preset::{self, MadeUpWeights, Preset};
use mixofshow::models::{clip_text, unet};
use mixofshow::scheduler::config::{PredictionType, SchedulerConfig};
use mixofshow::scheduler::schedule::NoiseSchedule;
use mixofshow::training::step::{
    AttentionLoss, Batch, Models, Rates, StepConfig, TextLayers, TrainedLayer, TrainingStep,
    UNetLayers,
};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";

#[derive(Debug, Args)]
pub struct Options {
    /// Model family; its weights are made up
    #[arg(long, default_value = "sd15", value_parser = PossibleValuesParser::new(preset::names()))]
    preset: String,
    /// Side of the picture in pixels
    #[arg(long, default_value_t = 256, value_parser = values::side)]
    size: usize,
    /// Pictures at once
    #[arg(long, default_value_t = 1, value_parser = values::TIMES.parser::<usize>())]
    batch: usize,
    /// Rank of the updates
    #[arg(long, default_value_t = 4, value_parser = values::RANK.parser::<usize>())]
    rank: usize,
    /// Updates of the whole transformer blocks instead of the attentions alone
    #[arg(long)]
    whole_blocks: bool,
    /// Compute the activations of a block again for its backward instead of keeping them
    #[arg(long)]
    checkpointing: bool,
    /// With the regularisation of the concept words' attention
    #[arg(long)]
    attention_loss: bool,
    /// Weights in f16 instead of f32
    #[arg(long)]
    f16: bool,
    /// Measurements, of which the fastest counts
    #[arg(long, default_value_t = 3, value_parser = values::TIMES.parser::<usize>())]
    repeat: usize,
    /// Clock for all rates [default: cpu where the processor computes, else wall]
    #[arg(long, value_enum)]
    clock: Option<Clock>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn noise(shape: &[usize]) -> Array {
    let count = shape.iter().product();
    Array::f32(
        shape,
        (0..count).map(|i: usize| ((i * 7919 % 1013) as f32 / 506.5 - 1.0) * 1.7).collect(),
    )
}

/// Both networks forward, without updates: one encoding for each cross-attention, then the UNet.
fn forward(preset: &Preset, config: &StepConfig) -> Result<(Graph, Tensor)> {
    let mut graph = Graph::new();
    let (unet, text, batch) = (&preset.unet, &preset.text, config.batch);
    let copies = config.rows_per_word(unet);
    let embedded = graph.input("embedded", [copies * batch, config.tokens, text.hidden_size]);
    let encoding =
        clip_text::encode(&mut Layers::new(&mut graph), text, embedded, config.clip_skip)?;
    let texts: Vec<Tensor> = (0..copies)
        .map(|copy| graph.slice(encoding, 0, copy * batch, batch))
        .collect::<std::result::Result<_, _>>()?;
    let sample = graph.input("sample", [batch, config.size[0], config.size[1], unet.in_channels]);
    let time = graph.input("time", [batch, unet.block_out_channels[0]]);
    let (prompt, residuals) = (Encodings::Text(&texts), Default::default());
    let inputs = unet::UNetInputs {
        sample,
        time,
        prompt,
        guidance: None,
        class: None,
        addition: None,
        residuals,
    };
    let output = unet::unet(&mut Layers::new(&mut graph), unet, &inputs)?.sample;
    Ok((graph, output))
}

fn models(preset: &Preset, graph: &Graph, stored: StoredAs) -> Result<Models> {
    let mut all = graph.clone();
    all.parameter(TABLE, [preset.text.vocab_size, preset.text.hidden_size]);
    let schedule =
        r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#;
    Ok(Models {
        unet: preset.unet.clone(),
        text: preset.text.clone(),
        second: None,
        schedule: NoiseSchedule::of_training(&SchedulerConfig::parse(schedule)?)?,
        prediction: PredictionType::Epsilon,
        parameters: Arc::new(MadeUpWeights::of(&all, stored)),
    })
}

fn batch(preset: &Preset, config: &StepConfig) -> Batch {
    let (n, [height, width]) = (config.batch, config.size);
    let (copies, vocabulary) = (config.rows_per_word(&preset.unet), preset.text.vocab_size);
    let token = |copy: usize, j: usize| match j {
        4 | 5 => vocabulary + (j - 4) * copies + copy,
        _ => j % vocabulary,
    };
    let caption =
        (0..copies).flat_map(|copy| (0..config.tokens).map(move |j| token(copy, j) as u32));
    let captions = std::iter::repeat_n(caption.collect::<Vec<_>>(), n).flatten().collect();
    let left =
        (0..n * height * width).map(|i| f32::from(u8::from(i % width < width / 2))).collect();
    Batch {
        latents: noise(&[n, height, width, preset.unet.in_channels]),
        noise: noise(&[n, height, width, preset.unet.in_channels]),
        timesteps: (0..n).map(|i| 500 + i).collect(),
        ids: Array::u32([n, copies, config.tokens], captions),
        second: None,
        factors: vec![1.0; n],
        loss_mask: Array::f32([n, height, width], vec![1.0; n * height * width]),
        subject_mask: Some(Array::f32([n, height, width], left)),
        seed: 0,
        number: 0,
        rates: Rates { rows: 1e-3, text: 1e-5, unet: 1e-4 },
    }
}

pub fn run(options: &Options, gpu: &Device, terminal: &Terminal) -> Result<()> {
    let clock = options.clock.unwrap_or_else(|| Clock::suited_to(gpu));
    let preset = preset::preset(&options.preset)
        .ok_or_else(|| Failure::Usage(format!("there is no preset `{}`", options.preset)))??;
    if preset.text_2.is_some() {
        let problem = "a step of a model with two text encoders is not measured";
        return Err(Failure::Usage(format!("--preset {}: {problem}", options.preset)));
    }
    let config = StepConfig {
        text_layers: if options.whole_blocks {
            TextLayers::EncoderLayer
        } else {
            TextLayers::Attention
        },
        unet_layers: if options.whole_blocks {
            UNetLayers::Transformer
        } else {
            UNetLayers::Attention
        },
        text_rank: options.rank,
        unet_rank: options.rank,
        batch: options.batch,
        size: [options.size / preset.vae.downscale(); 2],
        tokens: preset.text.max_position_embeddings,
        attention_loss: options
            .attention_loss
            .then_some(AttentionLoss { weight: 0.01, full_identity: false }),
        checkpointing: options.checkpointing,
        ..StepConfig::default()
    };
    let (graph, output) = forward(&preset, &config)?;
    let models = models(&preset, &graph, if options.f16 { StoredAs::F16 } else { StoredAs::F32 })?;

    let pass = {
        let weights = Weights::new(gpu, models.parameters.clone(), Precision::AsStored);
        let program = Program::new(&weights, &graph, &[output])?;
        for node in graph.nodes() {
            if let (Origin::Input { name }, Element::F32) = (&node.origin, node.element) {
                program.write(name, &noise(&node.shape))?;
            }
        }
        fastest(&program, options.repeat, clock)?
    };
    let mut step = TrainingStep::new(&models, &config, gpu)?;
    let bytes = step.planned_bytes()?;
    let rows = noise(&[config.words * config.rows_per_word(&preset.unet), preset.text.hidden_size]);
    let rows = Array::f32(rows.shape.clone(), rows.values().iter().map(|v| 0.01 * v).collect());
    let down = &mut |layer: &TrainedLayer| {
        noise(&[layer.rank, layer.into]).values().iter().map(|v| 0.02 * v).collect()
    };
    step.restore(&step.initial(Some(rows), down)?)?;
    let batch = batch(&preset, &config);
    step.run(&batch)?;
    let mut seconds = f64::INFINITY;
    for _ in 0..options.repeat {
        let start = clock.now();
        step.run(&batch)?;
        seconds = seconds.min(clock.now() - start);
    }
    let passes = seconds / pass;
    let flops = step.flops();
    let work = flops.step as f64 / graph.flops(&[output]) as f64;
    let peak = peak::measure(gpu, clock)?;
    let mut costs: Vec<_> = step.profile(&|| clock.now())?.into_iter().collect();
    costs.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    let rows: Vec<Row> = costs
        .into_iter()
        .map(|(what, cost)| {
            let calls = cost.calls.max(1) as f64;
            Row::new(
                what,
                cost.calls,
                cost.seconds / calls,
                cost.flops as f64 / calls,
                cost.bytes as f64 / calls,
                &peak,
            )
        })
        .collect();
    if options.json {
        return terminal.print_json(&json!({
            "adapter": gpu.name(), "clock": clock, "preset": options.preset, "size": options.size,
            "batch": options.batch,
            "rank": options.rank, "checkpointing": options.checkpointing, "seconds": seconds,
            "forward_seconds": pass,
            "passes": passes, "passes_by_flops": work, "weight_bytes": bytes.weights,
            "activation_bytes": bytes.activations,
            "state_bytes": bytes.state, "rows": rows,
        }));
    }
    terminal.note(peak.describe(gpu, clock));
    terminal.note(format!(
        "{seconds:.3} s a step, {pass:.3} s a forward pass: {passes:.2} passes ({work:.2} by \
            operations); \
         {} MiB weights, {} MiB activations, {} MiB state",
        bytes.weights >> 20,
        bytes.activations >> 20,
        bytes.state >> 20,
    ));
    terminal.print(table("operation", &rows))
}
