//! Every kernel of the backward pass against its operation's reference implementation, over odd
//! shapes, on whatever adapter is there.

use mixofshow::graph::ops::{Function, Moments};
use mixofshow::graph::{Graph, Result, Tensor};

#[path = "common/device.rs"]
#[allow(dead_code, reason = "these cases make no programs of their own")]
mod device;

use device::{compare, rounds};

/// The gradients with respect to `wanted` of what `build` makes, from any upstream gradient: on the
/// device and in plain Rust. And again by kernels that round what they multiply, where it has some.
fn check(what: &str, graph: &mut Graph, y: Result<Tensor>, wanted: &[Tensor], tolerance: f32) {
    if rounds() {
        let mut graph = graph.clone();
        graph.round_gradients();
        let y = y.as_ref().map(|y| *y).map_err(|e| e.to_string());
        let y = y.unwrap_or_else(|e| panic!("{what}: {e}"));
        let shape = graph.shape(y).clone();
        let upstream = graph.input("upstream", shape);
        let gradients =
            graph.gradients_of(y, upstream, wanted).unwrap_or_else(|e| panic!("{what}: {e}"));
        // 11 bits of each factor.
        compare(&format!("{what}, rounded"), &graph, &gradients, tolerance.max(3e-3));
    }
    let y = y.unwrap_or_else(|e| panic!("{what}: {e}"));
    let shape = graph.shape(y).clone();
    let upstream = graph.input("upstream", shape);
    let gradients =
        graph.gradients_of(y, upstream, wanted).unwrap_or_else(|e| panic!("{what}: {e}"));
    compare(what, graph, &gradients, tolerance);
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
            (17, 66, 10),
            (9, 3, 12),
            (70, 24, 8),
            (65, 96, 320),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [1, rows, into]);
            let w = g.parameter(format!("{half}.w"), [out, into]);
            let y = g.linear(x, w);
            check(&format!("linear {half} {rows}x{into}x{out}"), &mut g, y, &[x], 1e-5);
        }
    }
}

#[test]
fn convolutions() {
    for half in ["half", "full"] {
        for (batch, height, width, into, out, kernel, stride) in [
            (1, 5, 16, 64, 8, 3, 1),
            (2, 7, 19, 12, 68, 3, 1),
            (1, 3, 33, 4, 4, 3, 1),
            (2, 6, 5, 20, 16, 3, 1),
            (1, 9, 12, 3, 16, 3, 1),
            (1, 14, 13, 8, 3, 3, 1),
            (2, 9, 8, 8, 12, 3, 2),
            (1, 12, 15, 20, 36, 3, 2),
            (1, 32, 32, 3, 24, 16, 16),
            (1, 4, 6, 10, 9, 1, 1),
            (1, 9, 11, 5, 7, 4, 3),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [batch, height, width, into]);
            let edge = kernel / 2 * usize::from(kernel == 3);
            let padded = g.pad2d(x, [edge; 4]).unwrap();
            let w = g.parameter(format!("{half}.w"), [out, into, kernel, kernel]);
            let y = g.conv2d(padded, w, stride);
            check(
                &format!("conv {half} {batch}x{height}x{width}x{into} -> {out}, {kernel}/{stride}"),
                &mut g,
                y,
                &[x],
                2e-5,
            );
        }
    }
}

/// Padding by more and by less than the window, where a part of the gradient is computed, cut out,
/// or zero.
#[test]
fn padding_of_all_widths() {
    for (edges, stride) in
        [([0, 1, 0, 1], 2), ([0; 4], 1), ([1, 0, 2, 1], 1), ([3, 4, 3, 0], 1), ([2, 3, 1, 1], 2)]
    {
        let mut g = Graph::new();
        let x = g.input("x", [2, 6, 13, 8]);
        let padded = g.pad2d(x, edges).unwrap();
        let w = g.parameter("half.w", [12, 8, 3, 3]);
        let y = g.conv2d(padded, w, stride);
        check(&format!("padding {edges:?}, stride {stride}"), &mut g, y, &[x], 2e-5);
    }
}

#[test]
fn attention_of_all_head_widths() {
    for (batch, share, tokens, keys, heads, d) in [
        (1, 1, 1, 2, 1, 4),
        (2, 1, 17, 77, 2, 8),
        (4, 2, 33, 9, 3, 40),
        (1, 1, 65, 70, 1, 64),
        (1, 1, 70, 66, 1, 80),
        (1, 1, 20, 13, 2, 10),
        (1, 1, 7, 5, 1, 160),
        (3, 3, 19, 21, 1, 192),
        (1, 1, 9, 12, 2, 512),
    ] {
        let mut g = Graph::new();
        let q = g.input("q", [batch, tokens, heads * d]);
        let k = g.input("k", [batch / share, keys, heads * d]);
        let v = g.input("v", [batch / share, keys, heads * d]);
        let y = g.attention(q, k, v, heads, 1.0 / (d as f32).sqrt(), false);
        check(
            &format!("attention {batch}x{tokens}x{keys}, {heads} heads of {d}"),
            &mut g,
            y,
            &[q, k, v],
            2e-5,
        );
    }
    for (tokens, d) in [(1, 4), (77, 32), (21, 168)] {
        let mut g = Graph::new();
        let x = g.input("x", [2, tokens, 2 * d]);
        let y = g.attention(x, x, x, 2, 1.0 / (d as f32).sqrt(), true);
        check(&format!("causal attention {tokens}, heads of {d}"), &mut g, y, &[x], 2e-5);
    }
}

#[test]
fn norms() {
    for (batch, rows, channels, groups) in
        [(1, 1, 8, 2), (2, 77, 40, 4), (3, 130, 30, 3), (1, 4100, 64, 32), (2, 9, 12, 12)]
    {
        for (name, tolerance) in [("x", 2e-5), ("far", 3e-4)] {
            let what = format!("{name} {batch}x{rows}x{channels}/{groups}");
            let mut g = Graph::new();
            let x = g.input(name, [batch, rows, channels]);
            let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
            let s = g.group_norm_statistics(x, groups, 1e-5).unwrap();
            let y = g.group_norm(x, s, weight, bias);
            check(&format!("group norm of {what}"), &mut g, y, &[x, bias], tolerance);
            let mut g = Graph::new();
            let x = g.input(name, [batch, rows, channels]);
            let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
            let y = g.layer_norm(x, weight, bias, 1e-5);
            check(&format!("layer norm of {what}"), &mut g, y, &[x, bias], tolerance);
        }
    }
}

#[test]
fn functions_alone_and_folded_into_what_makes_their_upstream_gradient() {
    for channels in [8, 7] {
        for function in [
            Function::Silu,
            Function::Gelu,
            Function::GeluTanh,
            Function::QuickGelu,
            Function::Relu,
            Function::Exp,
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [2, 5, channels]);
            let far = g.scale(x, 40.0).unwrap();
            let a = g.activation(if function == Function::Exp { x } else { far }, function);
            check(&format!("{function:?} of {channels}"), &mut g, a, &[x], 1e-5);
            let mut g = Graph::new();
            let x = g.input("x", [2, 5, channels]);
            let w = g.parameter("half.w", [12, channels]);
            let y = g.activation(x, function).unwrap();
            let y = g.linear(y, w);
            check(
                &format!("{function:?} before a linear layer of {channels}"),
                &mut g,
                y,
                &[x],
                1e-5,
            );
        }
        let mut g = Graph::new();
        let x = g.input("x", [3, 5, 2 * channels]);
        let y = g.geglu(x);
        check(&format!("geglu of {channels}"), &mut g, y, &[x], 1e-5);
    }
}

#[test]
fn enlargements() {
    for (channels, height, width) in [(8, 10, 14), (5, 10, 14), (4, 5, 13), (6, 17, 7)] {
        let mut g = Graph::new();
        let x = g.input("x", [2, 5, 7, channels]);
        let y = g.silu(x).unwrap();
        let y = g.upsample_nearest(y, height, width);
        check(&format!("upsample to {height}x{width}x{channels}"), &mut g, y, &[x], 1e-5);
    }
}

#[test]
fn rows_of_a_table() {
    for (rows, channels, ids) in [(10, 8, 7), (3, 5, 1), (12, 130, 200)] {
        let mut g = Graph::new();
        let (table, ids) = (g.input("table", [rows, channels]), g.input_ids("ids", [2, ids]));
        let y = g.embedding(table, ids);
        check(&format!("embedding {rows}x{channels}"), &mut g, y, &[table], 1e-5);
        let mut g = Graph::new();
        let [table, extra] =
            [("table", 5), ("extra", 3)].map(|(name, rows)| g.input(name, [rows, channels]));
        let ids = g.input_ids("ids", [2, rows]);
        let y = g.embedding_continued(table, extra, ids);
        check(&format!("embedding continued {rows}x{channels}"), &mut g, y, &[table, extra], 1e-5);
    }
}

#[test]
fn sums_and_broadcasts() {
    for (batch, rows, channels) in [(2, 3, 5), (3, 700, 8), (1, 1, 4), (2, 5000, 3)] {
        let mut g = Graph::new();
        let x = g.input("x", [batch, rows, channels]);
        let mut outputs = Vec::new();
        for shape in [vec![1], vec![channels], vec![rows, channels], vec![batch, 1, channels]] {
            let sum = g.sum_to(x, shape).unwrap();
            outputs.push(sum);
            outputs.push(g.broadcast_to(sum, [batch, rows, channels]).unwrap());
        }
        outputs.push(g.filled([batch, rows], -1.5).unwrap());
        outputs.push(g.mean(x).unwrap());
        compare(&format!("sums of {batch}x{rows}x{channels}"), &g, &outputs, 2e-5);
    }
}

#[test]
fn the_loss_of_tuning() {
    let mut g = Graph::new();
    let [x, target, weights] = ["x", "target", "weights"].map(|name| g.input(name, [2, 6, 7, 4]));
    let loss = g.weighted_squared_error(x, target, weights).unwrap();
    let mut outputs = g.gradients(loss, &[x]).unwrap();
    outputs.push(loss);
    compare("loss", &g, &outputs, 1e-5);
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    use mixofshow::backend::{Precision, Program, Weights};
    use mixofshow::graph::Array;
    let mut g = Graph::new();
    let x = g.input("x", [2, 50, 32]);
    let w = g.parameter("w", [32]);
    let y = g.layer_norm(x, w, w, 1e-5).unwrap();
    let y = g.attention(y, y, x, 2, 0.5, false).unwrap();
    let loss = g.sum(y).unwrap();
    let mut outputs = g.gradients(loss, &[x]).unwrap();
    outputs.push(loss);
    let source = device::MadeUp([("w".to_string(), vec![32])].into());
    let weights = Weights::new(&device::device(), std::sync::Arc::new(source), Precision::AsStored);
    let values: Vec<f32> = (0..2 * 50 * 32).map(|i| device::noise("x", i)).collect();
    let run = || {
        let program = Program::new(&weights, &g, &outputs).unwrap();
        program.write("x", &Array::f32([2, 50, 32], values.clone())).unwrap();
        program.run();
        [program.output(0).unwrap(), program.output(1).unwrap()]
    };
    assert_eq!(run(), run());
}

#[test]
fn division_by_the_greatest() {
    for places in [1, 63, 4099] {
        let mut g = Graph::new();
        let x = g.input("x", [1, places, 1]);
        let positive = g.activation(x, Function::Exp).unwrap();
        let y = g.normalize_by_max(positive).unwrap();
        compare(&format!("over the greatest of {places}"), &g, &[y], 1e-6);
        // Of one place the terms cancel, and what is left is their rounding.
        let tolerance = if places == 1 { 0.1 } else { 1e-5 };
        check(
            &format!("gradient over the greatest of {places}"),
            &mut g,
            Ok(y),
            &[positive],
            tolerance,
        );
    }
    // Several greatest elements share.
    let mut g = Graph::new();
    let x = g.input("x", [5]);
    let zeros = g.scale(x, 0.0).unwrap();
    let ones = g.activation(zeros, Function::Exp).unwrap();
    let y = g.normalize_by_max(ones);
    check("ties", &mut g, y, &[ones], 1e-5);
}

#[test]
fn updates() {
    for (count, apply, scale) in
        [(1, 1.0, 0.0), (97, 1.0, 0.0), (4099, 1.0, 0.0), (97, 0.0, 0.0), (97, 1.0, f32::INFINITY)]
    {
        let mut g = Graph::new();
        let (state, gradient, loss) =
            (g.input("state", [3, count]), g.input("gradient", [count]), g.input("loss", [1]));
        // Second moments are not negative.
        let state = g.activation(state, Function::Exp).unwrap();
        let parts = [0.999, 0.05, 0.7, 0.5, apply].map(|value| g.filled([1], value).unwrap());
        let rates = g.concat(&parts, 0).unwrap();
        let loss = if scale == 0.0 { loss } else { g.filled([1], scale).unwrap() };
        let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let y = g.adamw(state, gradient, rates, loss, moments).unwrap();
        compare(&format!("update of {count}, {apply}, {scale}"), &g, &[y], 1e-6);
    }
}
