//! Memory of the published models, planned without a device and without their weights.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use mixofshow::backend::cpu::{self, Cpu};
use mixofshow::backend::wgpu::{Command, Held, Schedule};
use mixofshow::backend::{Device, Precision, Weights};
use mixofshow::graph::{
    Graph, Origin, ParameterError, ParameterInfo, ParameterSource, Plan, Shape, StoredAs,
};

use super::dispatches;
use mixofshow::training::step::{Method, StepConfig};

use super::dry::{self, Lowered};
use super::published::{self, Built};
use super::{step_of, weightless};

/// Every parameter that a graph names, in f16, with no numbers behind it.
struct Nothing(HashMap<String, Shape>);

impl Nothing {
    fn of(graph: &Graph) -> Nothing {
        let parameter = |node: &mixofshow::graph::Node| match &node.origin {
            Origin::Parameter { name } => Some((name.clone(), node.shape.clone())),
            _ => None,
        };
        Nothing(graph.nodes().iter().filter_map(parameter).collect())
    }
}

impl ParameterSource for Nothing {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.0.get(name)?.to_vec(), stored: StoredAs::F16 })
    }

    fn read(
        &self,
        name: &str,
        _range: Range<usize>,
        _into: &mut [f32],
    ) -> Result<(), ParameterError> {
        Err(ParameterError::Read { name: name.into(), message: "there are no numbers".into() })
    }
}

const MIB: u64 = 1 << 20;

/// What a plan asks for, with f16 weights.
struct Needs {
    name: String,
    /// MiB of activations as packed, and as many as live at one time.
    activations: f64,
    live: f64,
    /// MiB of weights.
    weights: f64,
    commands: usize,
    kernels: usize,
    /// Bindings above 128 MiB: operations and how many, and the largest in MiB.
    too_large: BTreeMap<String, usize>,
    largest: f64,
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn needs(built: &Built) -> Needs {
    let graph = &built.graph;
    let Lowered { plan, commands, .. } = dry::lower(built, Held::F16, Schedule::Staged);
    let weights = Weights::new(
        &dry::floor().clone().into(),
        Arc::new(Nothing::of(graph)),
        Precision::AsStored,
    );
    let kernels: BTreeSet<String> =
        dispatches(&commands).map(|(kernel, params)| format!("{kernel} {params:?}")).collect();
    let mut needs = Needs {
        name: built.name.clone(),
        activations: mebibytes(plan.activation_bytes()),
        live: mebibytes(plan.live_bytes()),
        weights: mebibytes(weights.planned_bytes(graph, &plan).unwrap()),
        commands: commands.len(),
        kernels: kernels.len(),
        too_large: BTreeMap::new(),
        largest: 0.0,
    };
    for command in &commands {
        let Command::Dispatch { bindings, label, .. } = command else { continue };
        for (_, slice, _) in bindings {
            needs.largest = needs.largest.max(mebibytes(slice.size));
            if slice.size > 128 * MIB {
                *needs.too_large.entry(label.clone()).or_default() += 1;
            }
        }
    }
    println!(
        "{:45} activations {:7.1} MiB ({:7.1} at once), weights {:7.1} MiB, {:5} commands, {:3} \
            kernels, largest {:6.1} MiB {:?}",
        needs.name,
        needs.activations,
        needs.live,
        needs.weights,
        needs.commands,
        needs.kernels,
        needs.largest,
        needs.too_large
    );
    needs
}

impl Needs {
    /// Fails unless activations (MiB), commands and kernels stay within a tenth of what they were
    /// when this was written, and the packing within `loss` of what lives at once.
    fn at_most(&self, activations: f64, loss: f64, commands: usize, kernels: usize) {
        let name = &self.name;
        assert!(
            self.activations <= activations * 1.1,
            "{name}: {:.1} MiB of activations",
            self.activations
        );
        assert!(
            self.activations <= self.live * loss,
            "{name}: {:.1} MiB where {:.1} live",
            self.activations,
            self.live
        );
        assert!(self.commands * 10 <= commands * 11, "{name}: {} commands", self.commands);
        assert!(self.kernels * 10 <= kernels * 11, "{name}: {} kernels", self.kernels);
    }

    /// Fails unless every binding is within WebGPU's limit.
    fn fits_the_floor(&self) {
        assert!(
            self.too_large.is_empty(),
            "{}: bindings of up to {:.1} MiB: {:?}",
            self.name,
            self.largest,
            self.too_large
        );
    }
}

#[test]
fn unets_at_full_size() {
    for (name, config) in [
        ("Stable Diffusion 1.5", published::unet_1()),
        ("Stable Diffusion 2.1", published::unet_2()),
    ] {
        let small = needs(&published::unet(name, &config, 2, 64, 64, true));
        small.at_most(172.5, 1.1, 643, 22);
        small.fits_the_floor();
        assert!((1600.0..1610.0).contains(&small.weights), "{:.1} MiB of weights", small.weights);
        let step = needs(&published::sampling_step(name, &config, 64, 64));
        step.at_most(172.5, 1.1, 681, 24);
        step.fits_the_floor();
        let controlled = needs(&published::controlled_unet(name, &config, 2, 64, 64));
        controlled.at_most(188.0, 1.2, 972, 32);
        controlled.fits_the_floor();
        // 320x8 channels inside of the feed-forward are all that exceeds it at 768x768.
        let large = needs(&published::unet(name, &config, 2, 96, 96, true));
        large.at_most(388.1, 1.1, 643, 22);
        assert!(
            large
                .too_large
                .keys()
                .all(|operation| operation.starts_with("linear") || operation == "geglu"),
            "{:?}",
            large.too_large
        );
        needs(&published::unet(name, &config, 1, 96, 96, true)).fits_the_floor();
    }
}

/// 1024x1024 pixels, one picture and four, without guidance and with it.
#[test]
fn stable_diffusion_xl_at_full_size() {
    let config = published::unet_xl();
    let name = "Stable Diffusion XL";
    for batch in [1, 2, 4, 8] {
        let found = needs(&published::unet(name, &config, batch, 128, 128, true));
        found.at_most(235.0 * batch as f64, 1.1, 1298, 19);
        assert!((4245.0..4255.0).contains(&found.weights), "{:.1} MiB", found.weights);
    }
    needs(&published::unet(name, &config, 1, 128, 128, true)).fits_the_floor();
    let step = needs(&published::sampling_step(name, &config, 128, 128));
    step.at_most(470.0, 1.1, 1444, 21);
    let keys_values = needs(&published::keys_values(name, &config, 2));
    keys_values.at_most(97.8, 1.0, 140, 1);
    let second = needs(&published::text("second text encoder", &published::text_xl(), 2));
    second.at_most(5.6, 1.3, 293, 10);
    second.fits_the_floor();
    let decoder = needs(&published::decoder("autoencoder", &published::autoencoder(), 1024, 1024));
    decoder.at_most(2564.0, 1.05, 165, 14);
}

/// Made at 1024x1024 with everything in memory at once and the picture decoded in one go: with
/// matrices in blocks within 8 GB, where f16 takes more; on every back end.
#[test]
fn stable_diffusion_xl_in_blocks_fits_small_cards() {
    let name = "Stable Diffusion XL";
    let built = [
        published::text("text encoder", &published::text_1(), 2),
        published::text("second text encoder", &published::text_xl(), 2),
        published::keys_values(name, &published::unet_xl(), 2),
        published::sampling_step(name, &published::unet_xl(), 128, 128),
        published::decoder("autoencoder", &published::autoencoder(), 1024, 1024),
    ];
    let devices: [Device; 2] = [
        dry::floor().clone().into(),
        Cpu::open(&cpu::Options { threads: Some(1), ..Default::default() }).unwrap().into(),
    ];
    for device in devices {
        let peak = |precision: Precision| {
            let (mut weights, mut most) = (0, 0);
            for built in &built {
                let plan = Plan::new(&built.graph, &built.outputs, device.target());
                let source = Arc::new(Nothing::of(&built.graph));
                let held = Weights::new(&device, source, precision);
                weights += held.planned_bytes(&built.graph, &plan).unwrap();
                most = most.max(plan.activation_bytes());
            }
            println!("{}: {precision}: {:.0} MiB of weights", device.name(), mebibytes(weights));
            (weights + most) as f64 / 1e9
        };
        let [f16, q8, q4] = [Precision::AsStored, Precision::Q8, Precision::Q4].map(peak);
        println!("{}: {f16:.2}, {q8:.2} and {q4:.2} GB", device.name());
        assert!(f16 > 8.0 && q8 < 7.3 && q4 < 6.0, "{f16:.2}, {q8:.2} and {q4:.2} GB");
    }
}

/// Taught at 1024x1024, one picture at a time, with what the forward made computed again: 70
/// embeddings of each word, or one.
#[test]
fn stable_diffusion_xl_is_taught_at_full_size() {
    let models = weightless::models_xl(StoredAs::F16);
    for (method, activations, commands) in
        [(Method::Lora, 1276.0, 14283), (Method::EdLora, 2344.0, 14423)]
    {
        let (size, checkpointing) = ([128; 2], true);
        let config = StepConfig { method, size, checkpointing, ..StepConfig::default() };
        let found = needs(&step_of("Stable Diffusion XL", &models, &config));
        found.at_most(activations, 1.1, commands, 75);
        assert!((6265.0..6275.0).contains(&found.weights), "{:.1} MiB", found.weights);
        found.fits_the_floor();
    }
}

#[test]
fn autoencoder_at_full_size() {
    let config = published::autoencoder();
    for size in [256, 352] {
        needs(&published::decoder("autoencoder", &config, size, size)).fits_the_floor();
    }
    for size in [256, 504] {
        needs(&published::encoder("autoencoder", &config, size, size)).fits_the_floor();
    }
    needs(&published::decoder("autoencoder", &config, 256, 256)).at_most(161.0, 1.05, 165, 14);
    needs(&published::decoder("autoencoder", &config, 512, 512)).at_most(642.0, 1.05, 165, 14);
    needs(&published::decoder("autoencoder", &config, 768, 768)).at_most(1443.0, 1.05, 165, 14);
    needs(&published::encoder("autoencoder", &config, 512, 512)).at_most(385.0, 1.05, 127, 15);
    needs(&published::encoder("autoencoder", &config, 768, 768)).at_most(866.0, 1.05, 127, 15);
}

#[test]
fn towers_at_full_size() {
    let first = needs(&published::text("text encoder 1.5", &published::text_1(), 2));
    first.at_most(3.4, 1.3, 114, 10);
    first.fits_the_floor();
    let second = needs(&published::text("text encoder 2.1", &published::text_2(), 2));
    second.at_most(4.5, 1.3, 213, 10);
    second.fits_the_floor();
    let vision = needs(&published::vision_tower("ViT-B/32", &published::vision(), 4));
    vision.at_most(4.1, 1.3, 117, 11);
    vision.fits_the_floor();
}

/// Weights in f32 need no binding above WebGPU's limit either.
#[test]
fn weights_in_full_precision_fit_the_floor() {
    let graphs = [
        published::unet("Stable Diffusion 1.5", &published::unet_1(), 2, 64, 64, false),
        published::unet("Stable Diffusion 2.1", &published::unet_2(), 2, 64, 64, false),
        published::decoder("autoencoder", &published::autoencoder(), 256, 256),
        published::text("text encoder 1.5", &published::text_1(), 2),
        published::text("text encoder 2.1", &published::text_2(), 2),
    ];
    for built in &graphs {
        for command in dry::lower(built, Held::F32, Schedule::Staged).commands {
            let Command::Dispatch { bindings, label, .. } = command else { continue };
            for (name, slice, _) in bindings {
                let size = mebibytes(slice.size);
                assert!(
                    slice.size <= 128 * MIB,
                    "{}: {label} reads `{name}` of {size:.1} MiB",
                    built.name
                );
            }
        }
    }
}

/// Activations in f16 take half of what they took: by the plan, and by what kernels read and write.
#[test]
fn activations_in_f16_are_half_as_large() {
    let schedule = super::SCHEDULES[1];
    for batch in [2, 8] {
        let built =
            || published::unet("Stable Diffusion 1.5", &published::unet_1(), batch, 64, 64, true);
        let [whole, half] = [built(), published::halved(built())].map(|built| {
            let Lowered { plan, commands, .. } = dry::lower(&built, Held::F16, schedule);
            let bytes: u64 = commands
                .iter()
                .map(|command| match command {
                    Command::Dispatch { bytes, .. } => *bytes,
                    Command::Copy { from, .. } => 2 * from.size,
                })
                .sum();
            [plan.activation_bytes(), plan.live_bytes(), bytes].map(mebibytes)
        });
        println!(
            "batch {batch}: {whole:?} MiB planned, at once, read and written; {half:?} in f16"
        );
        assert!(half[0] < 0.6 * whole[0] && half[1] < 0.6 * whole[1], "{whole:?} {half:?}");
        assert!(half[2] < 0.75 * whole[2], "{whole:?} {half:?}");
    }
}
