//! What plans ask of a device, checked without one: every kernel variant in every language,
//! WebGPU's limits, memory.

mod commands;
#[path = "../common/dry.rs"]
mod dry;
mod full_size;
mod fusion;
#[path = "../common/hashed.rs"]
mod hashed;
mod memory;
#[path = "../common/published.rs"]
mod published;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "only the configurations of the cases are wanted here")]
mod reference;
mod shaders;
mod streaming;
#[path = "../common/weightless.rs"]
mod weightless;

use std::sync::LazyLock;

use dry::Lowered;
use mixofshow::backend::wgpu::{Command, Held, Matrices, Params, Schedule, Value};
use mixofshow::graph::{Quant, StoredAs};
use mixofshow::training::step::{
    AttentionLoss, Method, Models, StepConfig, TextLayers, TrainingStep, UNetLayers,
};
use published::{Built, backward};

/// The models of the fixtures, the one that ships, and the published ones, at several sizes.
fn graphs() -> Vec<Built> {
    let mut all = Vec::new();
    let mut add_unet = |name: &str, config: &serde_json::Value, sizes: &[[usize; 3]]| {
        for &[batch, height, width] in sizes {
            all.push(published::unet(name, config, batch, height, width, false));
            all.push(published::unet(name, config, batch, height, width, true));
        }
        all.push(published::keys_values(name, config, 2));
    };
    let cases = [
        [
            "unet_sd1",
            "unet_sd2",
            "unet_sdxl",
            "unet_odd",
            "unet_upscaler",
            "unet_distilled",
            "tiny_unet",
        ]
        .as_slice(),
        &["vae_sd1", "vae_odd", "vae_plain_middle", "tiny_vae"],
        &["text_quick_gelu", "text_gelu", "tiny_text"],
        &["vision_quick_gelu", "vision_gelu"],
    ];
    let [unets, autoencoders, texts, visions] =
        cases.map(|names| names.iter().map(|name| reference::Case::open(name)));
    for case in unets {
        add_unet(&case.name, case.config(), &[[1, 16, 16], [2, 16, 24], [2, 9, 13]]);
    }
    add_unet(
        "Stable Diffusion 1.5",
        &published::unet_1(),
        &[[1, 32, 32], [2, 64, 64], [2, 72, 56], [2, 96, 96]],
    );
    add_unet(
        "Stable Diffusion 2.1",
        &published::unet_2(),
        &[[1, 32, 32], [2, 64, 64], [2, 96, 96]],
    );
    add_unet("Stable Diffusion XL", &published::unet_xl(), &[[2, 128, 128]]);
    for case in autoencoders {
        for (height, width) in [(64, 64), (128, 96), (24, 40)] {
            all.push(published::decoder(&case.name, case.config(), height, width));
            all.push(published::encoder(&case.name, case.config(), height, width));
        }
    }
    for size in [256, 512] {
        all.push(published::decoder("autoencoder", &published::autoencoder(), size, size));
        all.push(published::encoder("autoencoder", &published::autoencoder(), size, size));
    }
    for case in texts {
        all.push(published::text(&case.name, case.config(), 2));
    }
    all.push(published::text("text 1.5", &published::text_1(), 2));
    all.push(published::text("text 2.1", &published::text_2(), 2));
    all.push(published::text("second text XL", &published::text_xl(), 2));
    for case in visions {
        all.push(published::vision_tower(&case.name, case.config(), 1));
    }
    all.push(published::vision_tower("ViT-B/32", &published::vision(), 4));
    for case in ["unet_sd1", "tiny_unet"].map(reference::Case::open) {
        all.push(published::controlled_unet(&case.name, case.config(), 2, 16, 16));
        all.push(published::sampling_step(&case.name, case.config(), 16, 16));
        all.push(fusion::recorded_unet(&case.name, case.config(), [16, 16]));
    }
    all.extend(
        [(320, 320, 4), (36, 20, 6), (5, 7, 3)]
            .map(|(into, out, rank)| published::low_rank_layer(into, out, rank)),
    );
    for case in ["unet_sd1", "unet_sd2", "unet_odd", "tiny_unet"].map(reference::Case::open) {
        for [height, width] in [[16, 16], [9, 13]] {
            all.push(backward(
                published::unet(&case.name, case.config(), 2, height, width, false),
                &["text", "sample"],
            ));
        }
    }
    for case in ["vae_sd1", "vae_odd", "tiny_vae"].map(reference::Case::open) {
        all.push(backward(published::encoder(&case.name, case.config(), 24, 40), &["pixels"]));
    }
    for case in ["text_quick_gelu", "text_gelu", "tiny_text"].map(reference::Case::open) {
        all.push(published::words(&case.name, case.config(), 2));
    }
    for (name, config) in [
        ("Stable Diffusion 1.5", published::unet_1()),
        ("Stable Diffusion 2.1", published::unet_2()),
    ] {
        let built = || published::unet(name, &config, 1, 64, 64, false);
        all.push(backward(built(), &["text", "sample"]));
        all.push(published::rounded_backward(built(), &["text", "sample"]));
        all.push(published::halved(built()));
    }
    let odd = reference::Case::open("unet_odd");
    let built = published::unet(&odd.name, odd.config(), 2, 9, 13, false);
    all.push(published::rounded_backward(built, &["text", "sample"]));
    all.push(published::words("text 1.5", &published::text_1(), 2));
    all.push(backward(
        published::encoder("autoencoder", &published::autoencoder(), 256, 256),
        &["pixels"],
    ));
    let steered = reference::Case::open("controls");
    all.push(published::regional_unet("Stable Diffusion 1.5", &published::unet_1(), 2, 64, 64));
    let regional = published::regional_unet("controls", steered.config(), 2, 12, 20);
    all.push(published::halved(regional));
    let controlled = published::controlled_unet("controls", steered.config(), 2, 12, 20);
    all.push(published::halved(controlled));
    all.push(published::halved(published::text("text 1.5", &published::text_1(), 2)));
    all.push(published::regional_unet("controls", steered.config(), 2, 12, 20));
    for name in ["full", "light"] {
        let mut config = steered.json[name].clone();
        config["_class_name"] = "T2IAdapter".into();
        all.push(published::adapter(name, &config, 96, 160));
    }
    all.push(published::control_net("ControlNet", &steered.json["control"], 2, 12, 20));
    all.push(published::controlled_unet("Stable Diffusion 1.5", &published::unet_1(), 2, 64, 64));
    all.push(published::sampling_step("Stable Diffusion 1.5", &published::unet_1(), 64, 64));
    all.push(published::regional_unet("Stable Diffusion XL", &published::unet_xl(), 2, 64, 64));
    all.push(fusion::recorded_unet("Stable Diffusion 1.5", &published::unet_1(), [64, 64]));
    let [unet, text] = ["tiny_unet", "tiny_text"].map(reference::Case::open);
    for full_identity in [false, true] {
        let attention_loss = Some(AttentionLoss { weight: 0.01, full_identity });
        let config = StepConfig {
            attention_loss,
            batch: 2,
            size: [16, 12],
            accumulate: 2,
            ..StepConfig::default()
        };
        all.push(tuning_step("tiny", unet.config(), text.config(), &config));
        let method = if full_identity { Method::Lora } else { Method::PPlus };
        let (text_layers, unet_layers) = (TextLayers::EncoderLayer, UNetLayers::Transformer);
        let config = StepConfig { method, text_layers, unet_layers, checkpointing: true, ..config };
        all.push(tuning_step("tiny", unet.config(), text.config(), &config));
    }
    let attention_loss = Some(AttentionLoss { weight: 0.01, full_identity: false });
    let config = StepConfig { attention_loss, checkpointing: true, ..StepConfig::default() };
    all.push(tuning_step(
        "Stable Diffusion 1.5",
        &published::unet_1(),
        &published::text_1(),
        &config,
    ));
    all
}

/// A step of tuning.
fn tuning_step(
    name: &str,
    unet: &serde_json::Value,
    text: &serde_json::Value,
    config: &StepConfig,
) -> Built {
    step_of(name, &weightless::models(unet, text, StoredAs::F32), config)
}

/// A step of tuning these.
fn step_of(name: &str, models: &Models, config: &StepConfig) -> Built {
    let step = TrainingStep::on_host(models, config).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (graph, report) = step.graph();
    let what = if config.checkpointing { "tuned, computed again" } else { "tuned" };
    Built {
        name: format!("{name} {:?} {what}", config.method),
        graph: graph.clone(),
        outputs: vec![report],
    }
}

/// A graph with the commands that one kind of device gets for it.
struct Run {
    built: usize,
    held: Held,
    schedule: Schedule,
    lowered: Lowered,
}

impl Run {
    fn name(&self) -> String {
        format!("{}, {:?}, {:?}", GRAPHS[self.built].name, self.held, self.schedule)
    }
}

const SCHEDULES: [Schedule; 3] = [
    Schedule::Staged,
    // As on NVIDIA's cards, and as on one with small matrices and subgroups of several sizes.
    Schedule::Matrices(Matrices {
        size: 16,
        lanes: 32,
        varying: false,
        attention: true,
        wide: true,
    }),
    Schedule::Matrices(Matrices { size: 8, lanes: 32, varying: true, attention: true, wide: true }),
];

/// How a kernel's variant is called here: by the kernel and its parameters.
fn variant(kernel: &str, params: &Params) -> String {
    format!("{kernel} {params:?}")
}

/// Whether a variant is made of cooperative matrices.
fn of_matrices(variant: &str) -> bool {
    let kernel = variant.split(' ').next().unwrap_or_default();
    kernel.contains("_matrices")
}

static GRAPHS: LazyLock<Vec<Built>> = LazyLock::new(graphs);

/// All of [`graphs`] for all kinds of device.
static RUNS: LazyLock<Vec<Run>> = LazyLock::new(|| {
    let mut runs = Vec::new();
    for (built, graph) in GRAPHS.iter().enumerate() {
        for schedule in SCHEDULES {
            // Of the small networks all that the large ones have in blocks.
            let small = ["tiny_", "unet_", "text_"].iter().any(|name| graph.name.starts_with(name));
            let blocks = Quant::ALL.map(Held::Blocks);
            let blocks = if small { &blocks[..] } else { &[] };
            for &held in [Held::F32, Held::F16].iter().chain(blocks) {
                let lowered = dry::lower(graph, held, schedule);
                runs.push(Run { built, held, schedule, lowered });
            }
        }
    }
    runs
});

/// Whether a variant asks for features beyond WebGPU's floor.
fn of_more_than_the_floor(variant: &str) -> bool {
    of_matrices(variant) || variant.contains("\"halves\"")
}

/// The dispatches among `commands`.
fn dispatches(commands: &[Command]) -> impl Iterator<Item = (&'static str, &Params)> {
    commands.iter().filter_map(|command| match command {
        Command::Dispatch { kernel, params, .. } => Some((*kernel, params)),
        Command::Copy { .. } => None,
    })
}

/// Every dispatch of every plan, and what benches ask for besides.
fn all_dispatches() -> impl Iterator<Item = (&'static str, &'static Params)> {
    static BENCHES: LazyLock<[(&str, Params); 1]> =
        LazyLock::new(|| [("peak", Params::from([("chains", Value::from(2))]))]);
    let plans = RUNS.iter().flat_map(|run| dispatches(&run.lowered.commands));
    plans.chain(BENCHES.iter().map(|(kernel, params)| (*kernel, params)))
}
