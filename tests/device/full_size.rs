//! Layers of Stable Diffusion 1.5 in their full size, by cooperative matrices with activations in
//! f16, beside the processor: a whole pass is too slow for software drivers.

use mixofshow::backend::cpu::{self, Cpu};
use mixofshow::backend::wgpu::{Gpu, MatrixUse, Options, Selection};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::ops::Function;
use mixofshow::graph::{Array, Graph, Origin, Tensor};

use super::random::source;

fn run(device: &Device, graph: &Graph, outputs: &[Tensor]) -> (Vec<Array>, usize) {
    let weights = Weights::new(device, source(graph), Precision::F16);
    let mut graph = graph.clone();
    weights.let_round(&mut graph);
    let program = Program::new(&weights, &graph, outputs).unwrap();
    for node in graph.nodes() {
        if let Origin::Input { name } = &node.origin {
            let value = |i| (i * 7919 % 1013) as f32 / 506.5 - 1.0;
            let values = (0..node.shape.elements()).map(value).collect();
            program.write(name, &Array::f32(node.shape.clone(), values)).unwrap();
        }
    }
    program.run();
    let read = (0..outputs.len()).map(|i| program.output(i).unwrap()).collect();
    (read, program.commands())
}

/// Group norm, function and convolution, with what a residual block adds; and the next norm.
fn convolution(g: &mut Graph, side: usize, into: usize, out: usize) -> Vec<Tensor> {
    let x = g.input("x", [2, side, side, into]);
    let s = g.group_norm_statistics(x, 32, 1e-5).unwrap();
    let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| g.parameter(name, [into]));
    let h = g.group_norm(x, s, weight, bias).unwrap();
    let h = g.activation(h, Function::Silu).unwrap();
    let h = g.pad2d(h, [1; 4]).unwrap();
    let w = g.parameter("conv.weight", [out, into, 3, 3]);
    let bias = g.parameter("conv.bias", [out]);
    let row = g.input("row", [2, 1, 1, out]);
    let y = g.conv2d(h, w, 1).unwrap();
    let y = g.add(y, bias).unwrap();
    let y = g.add(y, row).unwrap();
    if !out.is_multiple_of(32) {
        return vec![y];
    }
    let s = g.group_norm_statistics(y, 32, 1e-5).unwrap();
    let [weight, bias] = ["next.weight", "next.bias"].map(|name| g.parameter(name, [out]));
    vec![g.group_norm(y, s, weight, bias).unwrap()]
}

fn feed_forward(g: &mut Graph, rows: usize, channels: usize) -> Vec<Tensor> {
    let x = g.input("x", [2, rows, channels]);
    let (w, bias) = (g.parameter("in", [8 * channels, channels]), g.parameter("b", [8 * channels]));
    let h = g.linear(x, w).unwrap();
    let h = g.add(h, bias).unwrap();
    let h = g.geglu(h).unwrap();
    let w = g.parameter("out", [channels, 4 * channels]);
    let y = g.linear(h, w).unwrap();
    vec![g.add(y, x).unwrap()]
}

fn attention(g: &mut Graph, tokens: usize, keys: usize, d: usize) -> Vec<Tensor> {
    let q = g.input("q", [1, tokens, 8 * d]);
    let [k, v] = ["k", "v"].map(|name| g.input(name, [1, keys, 8 * d]));
    vec![g.attention(q, k, v, 8, 1.0 / (d as f32).sqrt(), false).unwrap()]
}

/// Appends layers to a graph, and says what they make.
type Build<'a> = &'a dyn Fn(&mut Graph) -> Vec<Tensor>;

#[test]
fn layers_of_full_size_by_matrices() {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    let gpu =
        Gpu::open(&Options { selection, matrices: MatrixUse::On, ..Options::default() }).unwrap();
    if let Err(why) = gpu.matrices() {
        return println!("skipped on {}: {why}", gpu.name());
    }
    let [card, cpu] =
        [gpu.into(), Device::from(Cpu::open(&cpu::Options::default()).unwrap())] as [Device; 2];
    let layers: [(&str, Build<'_>); 8] = [
        ("64 x 64, 320 to 320", &|g| convolution(g, 64, 320, 320)),
        ("16 x 16, 1280 to 1280", &|g| convolution(g, 16, 1280, 1280)),
        ("64 x 64, 320 to 4", &|g| convolution(g, 64, 320, 4)),
        ("128 x 128, 128 to 3", &|g| convolution(g, 128, 128, 3)),
        ("4096 tokens of 320", &|g| feed_forward(g, 4096, 320)),
        ("256 tokens of 1280", &|g| feed_forward(g, 256, 1280)),
        ("4096 tokens, heads of 40", &|g| attention(g, 4096, 4096, 40)),
        ("256 tokens to 77, heads of 160", &|g| attention(g, 256, 77, 160)),
    ];
    for (what, build) in layers {
        let mut graph = Graph::new();
        let outputs = build(&mut graph);
        let (expected, _) = run(&cpu, &graph, &outputs);
        let (found, commands) = run(&card, &graph, &outputs);
        for (found, expected) in found.iter().zip(&expected) {
            let greatest = expected.values().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let pairs = found.values().iter().zip(expected.values());
            let off = pairs.map(|(f, e)| (f - e).abs() / greatest);
            // What isn't a number must not pass.
            let worst = off.fold(0.0f32, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v) });
            println!("{what}: {worst:.1e} of the greatest value, {commands} commands");
            assert!(worst <= 5e-3, "{what}: {worst:.1e}");
        }
    }
}
