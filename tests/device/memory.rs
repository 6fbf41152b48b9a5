//! Device memory: what is counted, and that runs leave nothing behind.

use mixofshow::backend::Backend;
use mixofshow::backend::wgpu::{Gpu, Options, Selection};
use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, Plan};

use super::alone;
use super::random::{source, values};

/// A convolution, its normalisation, attention and a state.
fn graph() -> (Graph, Vec<mixofshow::graph::Tensor>) {
    let mut g = Graph::new();
    let x = g.input("x", [1, 8, 8, 16]);
    let w = g.parameter("w", [16, 16, 3, 3]);
    let (weight, bias) = (g.parameter("norm.weight", [16]), g.parameter("norm.bias", [16]));
    let padded = g.pad2d(x, [1; 4]).unwrap();
    let y = g.conv2d(padded, w, 1).unwrap();
    let statistics = g.group_norm_statistics(y, 4, 1e-5).unwrap();
    let y = g.group_norm(y, statistics, weight, bias).unwrap();
    let tokens = g.reshape(y, [1, 64, 16]).unwrap();
    let y = g.attention(tokens, tokens, tokens, 2, 0.3, false).unwrap();
    let y = g.reshape(y, [1, 8, 8, 16]).unwrap();
    let next = g.add(y, x).unwrap();
    g.assign(x, next).unwrap();
    (g, vec![next])
}

fn open() -> std::sync::Arc<Gpu> {
    // A device of its own, so that no other test moves the counters.
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    Gpu::open(&Options { selection, floor: true, ..Options::default() }).unwrap()
}

/// Anonymous and file pages that the process holds, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn memory_is_that_of_the_plan_and_does_not_grow() {
    let gpu = open();
    let (graph, outputs) = graph();
    let plan = Plan::new(&graph, &outputs, gpu.traits());
    let weights = Weights::new(&gpu.clone().into(), source(&graph), Precision::F32);
    let planned =
        plan.activation_bytes() + weights.planned_bytes(&graph, &plan).unwrap() + 8 * 8 * 16 * 4;
    let program = Program::new(&weights, &graph, &outputs).unwrap();
    program.write("x", &Array::f32([1, 8, 8, 16], values("x", 8 * 8 * 16))).unwrap();
    let run = || {
        program.run();
        program.output(0).unwrap();
        program.state("x").unwrap();
    };
    run();
    let before = gpu.memory();
    let uniforms = before[0] - planned;
    assert!(uniforms <= 256 * program.commands() as u64, "{before:?} bytes, planned {planned}");
    for _ in 0..20 {
        run();
    }
    assert_eq!(gpu.memory(), before);
    assert!(gpu.kernels() <= program.commands());
    drop(program);
    assert_eq!(gpu.memory()[0], weights.planned_bytes(&graph, &plan).unwrap());
    drop(weights);
    assert_eq!(gpu.memory(), [0, before[1]]);
}

/// Programs made and dropped over and over (pictures of other sizes) leave nothing behind, on the
/// host either.
#[test]
fn programs_that_are_dropped_free_their_memory() {
    if !alone("memory::programs_that_are_dropped_free_their_memory", &[]) {
        return;
    }
    let gpu = open();
    let (graph, outputs) = graph();
    let weights = Weights::new(&gpu.clone().into(), source(&graph), Precision::F16);
    let once = || {
        let program = Program::new(&weights, &graph, &outputs).unwrap();
        program.write("x", &Array::f32([1, 8, 8, 16], values("x", 8 * 8 * 16))).unwrap();
        program.run();
        program.output(0).unwrap();
    };
    for _ in 0..5 {
        once();
    }
    let (before, kernels) = (gpu.memory(), gpu.kernels());
    #[cfg(target_os = "linux")]
    let host = resident();
    for _ in 0..100 {
        once();
    }
    assert_eq!((gpu.memory(), gpu.kernels()), (before, kernels));
    #[cfg(target_os = "linux")]
    assert!(
        resident() < host + (32 << 20),
        "100 programs left {} bytes of {host}",
        resident() - host
    );
}
