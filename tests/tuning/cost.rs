//! What a step of the published models costs, from its plan alone: nothing is computed here.

use mixofshow::backend::wgpu::{Gpu, Options, Selection};
use mixofshow::graph::StoredAs;
use mixofshow::training::step::{AttentionLoss, PlannedBytes, StepConfig, StepFlops, TrainingStep};

use super::published;
use super::weightless::models;

fn cost(what: &str, stored: StoredAs, config: &StepConfig) -> (PlannedBytes, StepFlops) {
    let gpu = Gpu::open(&Options {
        selection: Selection::Noop(Box::default()),
        checked: true,
        floor: true,
        ..Options::default()
    });
    let step = TrainingStep::new(
        &models(&published::unet_1(), &published::text_1(), stored),
        config,
        &gpu.expect("a device without a device").into(),
    )
    .unwrap();
    let (bytes, flops) = (step.planned_bytes().unwrap(), step.flops());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{what}: {:.2} GB: weights {:.0} MiB, activations {:.0} MiB, state {:.1} MiB; forward \
            {:.0} GFLOP, step {:.3} passes",
        bytes.total() as f64 / 1e9,
        mib(bytes.weights),
        mib(bytes.activations),
        mib(bytes.state),
        flops.forward as f64 / 1e9,
        flops.step as f64 / flops.forward as f64
    );
    (bytes, flops)
}

/// All attention layers, rank 4, layer-wise text, attention regularisation.
#[test]
fn the_published_model_at_full_size() {
    let attention_loss = Some(AttentionLoss { weight: 0.01, full_identity: false });
    let plain = StepConfig { attention_loss, ..StepConfig::default() };
    let again = StepConfig { checkpointing: true, ..plain.clone() };
    let passes = |flops: StepFlops| flops.step as f64 / flops.forward as f64;

    let (kept, flops) = cost("512x512, all kept", StoredAs::F16, &plain);
    assert!(passes(flops) <= 2.5);
    let (recomputed, flops) = cost("512x512, computed again", StoredAs::F16, &again);
    assert!(passes(flops) <= 3.3);
    assert!(recomputed.total() <= 6_000_000_000, "{} bytes", recomputed.total());
    assert!(recomputed.activations * 2 < kept.activations);

    let small = |config: &StepConfig| StepConfig { size: [32, 32], ..config.clone() };
    let (_, flops) = cost("256x256, all kept", StoredAs::F32, &small(&plain));
    assert!(passes(flops) <= 2.5);
    let (_, flops) = cost("256x256, computed again", StoredAs::F32, &small(&again));
    assert!(passes(flops) <= 3.3);
}
