//! What plans ask of a device, checked without one: every kernel variant in every language, WebGPU's limits, memory.

mod commands;
#[path = "../common/dry.rs"]
mod dry;
mod full_size;
#[path = "../common/hashed.rs"]
mod hashed;
mod memory;
#[path = "../common/published.rs"]
mod published;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "only the configurations of the cases are wanted here")]
mod reference;
mod shaders;

use std::sync::LazyLock;

use dry::Lowered;
use mixofshow::gpu::{Command, Params, Schedule, Value};
use published::Built;

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
        ["unet_sd1", "unet_sd2", "unet_odd", "unet_upscaler", "unet_distilled", "tiny_unet"].as_slice(),
        &["vae_sd1", "vae_odd", "vae_plain_middle", "tiny_vae"],
        &["text_quick_gelu", "text_gelu", "tiny_text"],
        &["vision_quick_gelu", "vision_gelu"],
    ];
    let [unets, autoencoders, texts, visions] = cases.map(|names| names.iter().map(|name| reference::Case::open(name)));
    for case in unets {
        add_unet(&case.name, case.config(), &[[1, 16, 16], [2, 16, 24], [2, 9, 13]]);
    }
    add_unet("Stable Diffusion 1.5", &published::unet_1(), &[[1, 32, 32], [2, 64, 64], [2, 72, 56], [2, 96, 96]]);
    add_unet("Stable Diffusion 2.1", &published::unet_2(), &[[1, 32, 32], [2, 64, 64], [2, 96, 96]]);
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
    for case in visions {
        all.push(published::vision_tower(&case.name, case.config(), 1));
    }
    all.push(published::vision_tower("ViT-B/32", &published::vision(), 4));
    for case in ["unet_sd1", "tiny_unet"].map(reference::Case::open) {
        all.push(published::controlled_unet(&case.name, case.config(), 2, 16, 16));
        all.push(published::sampling_step(&case.name, case.config(), 16, 16));
    }
    all.push(published::controlled_unet("Stable Diffusion 1.5", &published::unet_1(), 2, 64, 64));
    all.push(published::sampling_step("Stable Diffusion 1.5", &published::unet_1(), 64, 64));
    all
}

/// A graph with the commands that one kind of device gets for it.
struct Run {
    built: usize,
    half: bool,
    schedule: Schedule,
    lowered: Lowered,
}

impl Run {
    fn name(&self) -> String {
        let weights = if self.half { "f16" } else { "f32" };
        format!("{}, {weights}, {:?}", GRAPHS[self.built].name, self.schedule)
    }
}

const SCHEDULES: [Schedule; 4] = [
    Schedule::Staged,
    Schedule::Registers { many: false },
    Schedule::Registers { many: true },
    Schedule::Vectors { lanes: 8, least_flops: 60_000_000 },
];

/// Whether a kernel is made for features beyond WebGPU's floor, and asked for only where they are.
fn beyond_the_floor(kernel: &str) -> bool {
    kernel.ends_with("_vectors")
}

static GRAPHS: LazyLock<Vec<Built>> = LazyLock::new(graphs);

/// All of [`graphs`] for all kinds of device.
static RUNS: LazyLock<Vec<Run>> = LazyLock::new(|| {
    let mut runs = Vec::new();
    for (built, graph) in GRAPHS.iter().enumerate() {
        for schedule in SCHEDULES {
            for half in [false, true] {
                runs.push(Run { built, half, schedule, lowered: dry::lower(graph, half, schedule) });
            }
        }
    }
    runs
});

/// The dispatches among `commands`.
fn dispatches(commands: &[Command]) -> impl Iterator<Item = (&'static str, &Params)> {
    commands.iter().filter_map(|command| match command {
        Command::Dispatch { kernel, params, .. } => Some((*kernel, params)),
        Command::Copy { .. } => None,
    })
}

/// Every dispatch of every plan, and what benches ask for besides.
fn all_dispatches() -> impl Iterator<Item = (&'static str, &'static Params)> {
    static BENCHES: LazyLock<[(&str, Params); 1]> = LazyLock::new(|| [("peak", Params::from([("chains", Value::from(2))]))]);
    let plans = RUNS.iter().flat_map(|run| dispatches(&run.lowered.commands));
    plans.chain(BENCHES.iter().map(|(kernel, params)| (*kernel, params)))
}
