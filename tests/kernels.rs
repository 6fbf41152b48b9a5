//! Every kernel against its operation's plain-Rust twin, over odd shapes, on whatever adapter is there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use mixofshow::gpu::{Gpu, Options, Schedule, Selection};
use mixofshow::graph::ops::Function;
use mixofshow::graph::{
    Array, Element, Graph, Origin, ParameterError, ParameterInfo, ParameterSource, Precision, Program, StoredAs, Tensor, Weights,
};

fn gpu() -> Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    let schedule = std::env::var("MOS_TEST_SCHEDULE").ok().map(|name| match &*name {
        "staged" => Schedule::Staged,
        "many" => Schedule::Registers { many: true },
        "few" => Schedule::Registers { many: false },
        "vectors" => Schedule::Vectors { lanes: 8, least_flops: 0 },
        other => panic!("MOS_TEST_SCHEDULE is {other}: expected staged, many, few or vectors"),
    });
    // Kernels for vectors use features beyond the floor.
    let floor = !matches!(schedule, Some(Schedule::Vectors { .. }));
    let options = Options { selection, checked: true, floor, schedule };
    GPU.get_or_init(|| Gpu::open(&options).expect("an adapter")).clone()
}

/// Uniform in -1 .. 1, from a name and an index.
fn noise(name: &str, index: usize) -> f32 {
    let mut h = name.bytes().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
    h = h.wrapping_add(index as u64).wrapping_mul(0x9e3779b97f4a7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d049bb133111eb);
    ((h ^ (h >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Weights made up from their names; those whose name starts with "half" are stored as f16.
struct MadeUp(HashMap<String, Vec<usize>>);

impl ParameterSource for MadeUp {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let stored = if name.starts_with("half") { StoredAs::F16 } else { StoredAs::F32 };
        Some(ParameterInfo { shape: self.0.get(name)?.clone(), stored })
    }

    fn read(&self, name: &str, range: Range<usize>, into: &mut [f32]) -> Result<(), ParameterError> {
        for (value, index) in into.iter_mut().zip(range) {
            *value = noise(name, index);
            if name.starts_with("half") {
                *value = (*value * 1024.0).round() / 1024.0;
            }
        }
        Ok(())
    }
}

/// Runs `graph` both ways and compares: relative to the largest magnitude of the expected values.
fn compare(what: &str, graph: &Graph, outputs: &[Tensor], tolerance: f32) {
    let mut inputs = HashMap::new();
    let mut weights = HashMap::new();
    for node in graph.nodes() {
        match &node.origin {
            Origin::Input { name } if node.element == Element::U32 => {
                let ids = (0..node.shape.elements()).map(|i| ((noise(name, i) + 1.0) * 5.6) as u32).collect();
                inputs.insert(name.clone(), Array::u32(node.shape.clone(), ids));
            }
            Origin::Input { name } => {
                let offset = if name.starts_with("far") { 50.0 } else { 0.0 };
                let values = (0..node.shape.elements()).map(|i| noise(name, i) * 2.0 + offset).collect();
                inputs.insert(name.clone(), Array::f32(node.shape.clone(), values));
            }
            Origin::Parameter { name } => {
                weights.insert(name.clone(), node.shape.to_vec());
            }
            Origin::Operation { .. } => {}
        }
    }
    let source = Arc::new(MadeUp(weights));
    let expected = graph.evaluate(outputs, &inputs, &*source).expect(what);
    let weights = Weights::new(&gpu(), source, Precision::AsStored);
    let program = Program::new(&weights, graph, outputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (name, array) in &inputs {
        program.write(name, array).expect(what);
    }
    program.run();
    for (index, expected) in expected.iter().enumerate() {
        let found = program.output(index).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(found.shape, expected.shape, "{what}");
        let scale = expected.values().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let worst = expected.values().iter().zip(found.values()).enumerate().map(|(i, (e, f))| ((e - f).abs() / scale, i));
        let (error, at) = worst.fold((0.0, 0), |a, b| if b.0 > a.0 || b.0.is_nan() { b } else { a });
        assert!(
            error <= tolerance,
            "{what}, output {index}: element {at} is {} instead of {} (relative {error:.2e})",
            found.values()[at],
            expected.values()[at]
        );
    }
}

#[test]
fn linear_layers_of_all_widths() {
    for half in ["half", "full"] {
        for (rows, into, out) in [
            (1, 4, 4),
            (5, 8, 64),
            (8, 40, 68),
            (13, 36, 130),
            (3, 7, 5),
            (17, 10, 66),
            (9, 12, 3),
            (70, 24, 8),
            (13, 48, 80),
            (65, 320, 96),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [1, rows, into]);
            let w = g.parameter(format!("{half}.w"), [out, into]);
            let y = g.linear(x, w).unwrap();
            compare(&format!("linear {half} {rows}x{into}x{out}"), &g, &[y], 1e-5);
        }
    }
}

#[test]
fn everything_that_can_be_folded_into_a_linear_layer() {
    for (batch, rows, into, out) in [(2, 9, 16, 72), (3, 5, 6, 7), (2, 5, 32, 48)] {
        let mut g = Graph::new();
        let x = g.input("x", [batch, rows, into]);
        let residual = g.input("residual", [batch, rows, out]);
        let row = g.input("row", [batch, 1, out]);
        let positions = g.input("positions", [rows, out]);
        let gain = g.input("gain", [1]);
        let (w, bias) = (g.parameter("half.w", [out, into]), g.parameter("bias", [out]));
        let mut outputs = Vec::new();
        for function in [Function::Silu, Function::Gelu, Function::GeluTanh, Function::QuickGelu, Function::Relu, Function::Exp] {
            let y = g.linear(x, w).unwrap();
            let y = g.scale(y, 0.25).unwrap();
            let y = g.add(y, bias).unwrap();
            let y = g.activation(y, function).unwrap();
            outputs.push(g.add(y, residual).unwrap());
        }
        let y = g.linear(x, w).unwrap();
        let y = g.add(y, row).unwrap();
        let y = g.multiply(y, gain).unwrap();
        outputs.push(g.scale(y, -1.5).unwrap());
        let y = g.linear(x, w).unwrap();
        let y = g.add(y, positions).unwrap();
        outputs.push(y);
        // A residual on the left, through a reshape; and a value that is wanted by two.
        let y = g.linear(x, w).unwrap();
        let y = g.reshape(y, [batch, rows, 1, out]).unwrap();
        let flat = g.reshape(residual, [batch, rows, 1, out]).unwrap();
        outputs.push(g.add(flat, y).unwrap());
        let y = g.linear(x, w).unwrap();
        let z = g.silu(y).unwrap();
        outputs.push(g.multiply(y, z).unwrap());
        compare(&format!("stages {batch}x{rows}x{into}x{out}"), &g, &outputs, 2e-5);
    }
}

#[test]
fn convolutions() {
    for half in ["half", "full"] {
        for (batch, height, width, into, out, kernel, stride) in [
            (1, 5, 16, 8, 64, 3, 1),
            (2, 4, 5, 32, 48, 3, 1),
            (2, 7, 19, 12, 68, 3, 1),
            (1, 3, 33, 4, 4, 3, 1),
            (2, 6, 5, 16, 20, 3, 1),
            (1, 9, 12, 3, 16, 3, 1),
            (1, 14, 13, 8, 3, 3, 1),
            (2, 9, 8, 8, 12, 3, 2),
            (1, 32, 32, 3, 24, 16, 16),
            (1, 4, 6, 10, 9, 1, 1),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [batch, height, width, into]);
            let edge = kernel / 2 * usize::from(kernel == 3);
            let x = g.pad2d(x, [edge; 4]).unwrap();
            let w = g.parameter(format!("{half}.w"), [out, into, kernel, kernel]);
            let y = g.conv2d(x, w, stride).unwrap();
            let row = g.input("row", [batch, 1, 1, out]);
            let y = g.add(y, row).unwrap();
            compare(&format!("conv {half} {batch}x{height}x{width}x{into} -> {out}, {kernel}/{stride}"), &g, &[y], 2e-5);
        }
    }
}

#[test]
fn padding_alone_and_behind_every_kernel_that_can_write_it() {
    for channels in [8, 6] {
        let mut g = Graph::new();
        let x = g.input("x", [2, 5, 7, channels]);
        let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
        let mut outputs = vec![g.pad2d(x, [0, 1, 0, 1]).unwrap(), g.pad2d(x, [1, 2, 3, 0]).unwrap()];
        let s = g.group_norm_statistics(x, 2, 1e-5).unwrap();
        let y = g.group_norm(x, s, weight, bias).unwrap();
        let y = g.silu(y).unwrap();
        outputs.push(g.pad2d(y, [1; 4]).unwrap());
        let y = g.upsample_nearest(x, 10, 14).unwrap();
        outputs.push(g.pad2d(y, [1; 4]).unwrap());
        outputs.push(g.upsample_nearest(x, 9, 13).unwrap());
        let y = g.silu(x).unwrap();
        outputs.push(g.pad2d(y, [2, 1, 1, 2]).unwrap());
        compare(&format!("padding {channels}"), &g, &outputs, 1e-5);
    }
}

#[test]
fn norms() {
    for (batch, rows, channels, groups) in [(1, 1, 8, 2), (2, 77, 40, 4), (3, 130, 30, 3), (1, 4100, 64, 32), (2, 9, 12, 12)] {
        let mut g = Graph::new();
        for name in ["x", "far"] {
            let x = g.input(name, [batch, rows, channels]);
            let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
            let s = g.group_norm_statistics(x, groups, 1e-5).unwrap();
            let y = g.group_norm(x, s, weight, bias).unwrap();
            let z = g.layer_norm(x, weight, bias, 1e-5).unwrap();
            compare(
                &format!("norms of {name} {batch}x{rows}x{channels}/{groups}"),
                &g,
                &[s, y, z],
                if name == "x" { 1e-5 } else { 2e-4 },
            );
        }
    }
}

#[test]
fn attention_of_all_head_widths() {
    for (batch, share, tokens, keys, heads, d) in [
        (1, 1, 1, 1, 1, 4),
        (2, 1, 17, 77, 2, 8),
        (4, 2, 33, 9, 3, 40),
        (1, 1, 65, 70, 1, 64),
        (1, 1, 20, 13, 2, 10),
        (1, 1, 7, 5, 1, 160),
        (1, 1, 19, 21, 1, 192),
        (1, 1, 9, 12, 2, 512),
    ] {
        let mut g = Graph::new();
        let q = g.input("q", [batch, tokens, heads * d]);
        let k = g.input("k", [batch / share, keys, heads * d]);
        let v = g.input("v", [batch / share, keys, heads * d]);
        let y = g.attention(q, k, v, heads, 1.0 / (d as f32).sqrt(), false).unwrap();
        compare(&format!("attention {batch}x{tokens}x{keys}, {heads} heads of {d}"), &g, &[y], 1e-5);
    }
    for (tokens, d) in [(1, 4), (77, 32), (50, 64)] {
        let mut g = Graph::new();
        let x = g.input("x", [2, tokens, 2 * d]);
        let y = g.attention(x, x, x, 2, 0.3, true).unwrap();
        compare(&format!("causal attention {tokens}, heads of {d}"), &g, &[y], 1e-5);
    }
}

#[test]
fn moving_and_mixing() {
    for channels in [8, 5] {
        let mut g = Graph::new();
        let (a, b) = (g.input("a", [2, 3, channels]), g.input("b", [2, 3, 12]));
        let ids = g.input_ids("ids", [2, 7]);
        let mut outputs = vec![g.concat_channels(a, b).unwrap(), g.concat(&[a, a, a], 1).unwrap(), g.concat(&[a, a], 0).unwrap()];
        outputs.push(g.slice(b, 2, 4, 8).unwrap());
        outputs.push(g.slice(a, 1, 1, 2).unwrap());
        for name in ["half.table", "table"] {
            let table = g.parameter(name, [10, channels]);
            outputs.push(g.embedding(table, ids).unwrap());
        }
        let x = g.input("x", [4, 3, 2 * channels]);
        outputs.push(g.guidance(x, 7.5).unwrap());
        outputs.push(g.geglu(x).unwrap());
        let (state, matrix) = (g.input("state", [3, 4, channels]), g.input("matrix", [3, 5]));
        let (e, n) = (g.input("e", [4, channels]), g.input("n", [4, channels]));
        outputs.push(g.mix(state, e, n, matrix).unwrap());
        compare(&format!("moving {channels}"), &g, &outputs, 1e-5);
    }
}

#[test]
fn a_state_takes_its_new_value_after_every_run() {
    let mut g = Graph::new();
    let x = g.input("x", [4]);
    let y = g.scale(x, 2.0).unwrap();
    g.assign(x, y).unwrap();
    let weights = Weights::new(&gpu(), Arc::new(MadeUp(HashMap::new())), Precision::AsStored);
    let program = Program::new(&weights, &g, &[y]).unwrap();
    program.write("x", &Array::f32([4], vec![1.0, 2.0, 3.0, -1.0])).unwrap();
    program.run();
    program.run();
    assert_eq!(program.output(0).unwrap().values(), [4.0, 8.0, 12.0, -4.0]);
    assert_eq!(program.state("x").unwrap().values(), [4.0, 8.0, 12.0, -4.0]);
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 9, 11, 16]);
    let w = g.parameter("half.w", [24, 16, 3, 3]);
    let p = g.pad2d(x, [1; 4]).unwrap();
    let y = g.conv2d(p, w, 1).unwrap();
    let s = g.group_norm_statistics(y, 8, 1e-5).unwrap();
    let shape = HashMap::from([("half.w".to_string(), vec![24, 16, 3, 3])]);
    let weights = Weights::new(&gpu(), Arc::new(MadeUp(shape)), Precision::AsStored);
    let values = (0..2 * 9 * 11 * 16).map(|i| noise("x", i)).collect();
    let results: Vec<Array> = (0..2)
        .flat_map(|_| {
            let program = Program::new(&weights, &g, &[y, s]).unwrap();
            program.write("x", &Array::f32([2, 9, 11, 16], Vec::clone(&values))).unwrap();
            program.run();
            [program.output(0).unwrap(), program.output(1).unwrap()]
        })
        .collect();
    assert_eq!(results[0], results[2]);
    assert_eq!(results[1], results[3]);
}
