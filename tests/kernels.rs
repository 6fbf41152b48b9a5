//! Every kernel against its operation's reference implementation, over odd shapes, on whatever
//! adapter is there.

use std::collections::HashMap;
use std::sync::Arc;

use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::ops::{Function, GatePart};
use mixofshow::graph::{Array, Graph};

#[path = "common/device.rs"]
mod device;

use device::{BLOCKS, MadeUp, compare, device, noise, rounds};

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
            // Sums that several workgroups share, of cooperative matrices.
            (33, 516, 68),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [1, rows, into]);
            let w = g.parameter(format!("{half}.w"), [out, into]);
            let y = g.linear(x, w).unwrap();
            compare(&format!("linear {half} {rows}x{into}x{out}"), &g, &[y], 1e-5);
        }
    }
}

/// Weights that stay in blocks on the device, of all widths of the tiles: forward, what is folded
/// in, and backward. Rows of no whole blocks are held in 16 bits.
#[test]
fn linear_layers_in_blocks() {
    for quant in BLOCKS {
        for (rows, into, out) in [
            (1, 32, 9),
            (13, 64, 130),
            (3, 96, 66),
            (70, 32, 68),
            (65, 320, 96),
            // Held in 16 bits: too few outputs, and rows that are no whole blocks.
            (5, 64, 8),
            (5, 40, 68),
            // Sums that several workgroups share, of cooperative matrices.
            (33, 544, 68),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [1, rows, into]);
            let w = g.parameter(format!("{quant}.w"), [out, into]);
            let bias = g.parameter("bias", [out]);
            let y = g.linear(x, w).unwrap();
            let y = g.add(y, bias).unwrap();
            compare(&format!("linear {quant} {rows}x{into}x{out}"), &g, &[y], 1e-5);
            let mut g = Graph::new();
            let x = g.input("x", [1, rows, into]);
            let w = g.parameter(format!("{quant}.w"), [out, into]);
            let y = g.linear(x, w).unwrap();
            let upstream = g.input("upstream", [1, rows, out]);
            let dx = g.gradients_of(y, upstream, &[x]).unwrap();
            compare(&format!("its gradient {quant} {rows}x{into}x{out}"), &g, &[y, dx[0]], 1e-5);
        }
        // Convolutions of one pixel, and a low-rank update beside the blocks.
        for stride in [1, 2] {
            let mut g = Graph::new();
            let x = g.input("x", [2, 5, 7, 64]);
            let w = g.parameter(format!("{quant}.w"), [36, 64, 1, 1]);
            let y = g.conv2d(x, w, stride).unwrap();
            compare(&format!("conv {quant} {stride}"), &g, &[y], 1e-5);
        }
        let mut g = Graph::new();
        let x = g.input("x", [1, 21, 64]);
        let w = g.parameter(format!("{quant}.w"), [68, 64]);
        let (down, up) = (g.parameter("down", [3, 64]), g.parameter("up", [68, 3]));
        let base = g.linear(x, w).unwrap();
        let hidden = g.lora_down(x, down).unwrap();
        let y = g.lora_up(Some(base), hidden, up).unwrap();
        compare(&format!("{quant} with an update"), &g, &[y], 1e-5);
    }
}

/// Cooperative matrices hold factors in f16, whose greatest number stands for what is greater:
/// products stay finite.
#[test]
fn factors_beyond_the_range_of_f16() {
    let mut g = Graph::new();
    let x = g.input("x", [4, 8]);
    let w = g.parameter("half.w", [4, 8]);
    let y = g.linear(x, w).unwrap();
    let source = Arc::new(MadeUp([("half.w".to_string(), vec![4, 8])].into()));
    let weights = Weights::new(&device(), source.clone(), Precision::AsStored);
    let program = Program::new(&weights, &g, &[y]).unwrap();
    let greatest = if rounds() { 65504.0f32 } else { f32::MAX };
    let [given, held] = [f32::MAX, greatest].map(|most| {
        let values = (0..32).map(|i| (noise("x", i) * 4.0e5).clamp(-most, most)).collect();
        Array::f32([4, 8], values)
    });
    let expected = g.evaluate(&[y], &HashMap::from([("x".to_string(), held)]), &*source).unwrap();
    program.write("x", &given).unwrap();
    program.run();
    for (found, expected) in program.output(0).unwrap().values().iter().zip(expected[0].values()) {
        // Factors are rounded to 11 bits.
        assert!((found - expected).abs() < 8.0 * 4.0e5 / 2048.0, "{found} instead of {expected}");
    }
}

#[test]
fn everything_that_can_be_folded_into_a_linear_layer() {
    for (batch, rows, into, out) in [(2, 9, 16, 72), (3, 5, 6, 7), (2, 5, 32, 48), (2, 9, 260, 72)]
    {
        let mut g = Graph::new();
        let x = g.input("x", [batch, rows, into]);
        let residual = g.input("residual", [batch, rows, out]);
        let row = g.input("row", [batch, 1, out]);
        let positions = g.input("positions", [rows, out]);
        let gain = g.input("gain", [1]);
        let (w, bias) = (g.parameter("half.w", [out, into]), g.parameter("bias", [out]));
        let mut outputs = Vec::new();
        let functions = [
            Function::Gelu,
            Function::Silu,
            Function::GeluTanh,
            Function::QuickGelu,
            Function::Relu,
            Function::Exp,
        ];
        // Widths that are no multiples of 4 write an epilogue out for every number of a tile, which
        // takes long to compile.
        for &function in &functions[..if out % 4 == 0 { 6 } else { 1 }] {
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

/// A linear layer that makes the gated unit behind it, where matrices multiply: with what can stand
/// between, and where sums are shared by workgroups.
#[test]
fn gated_units_behind_linear_layers() {
    for (batch, rows, into, out) in [
        (1, 1, 4, 24),
        (1, 5, 8, 40),
        (2, 13, 36, 72),
        (1, 70, 24, 136),
        (1, 150, 64, 264),
        (1, 33, 516, 136),
    ] {
        let mut g = Graph::new();
        g.hold_halves();
        let x = g.input("x", [batch, rows, into]);
        let (w, bias) = (g.parameter("half.w", [out, into]), g.parameter("bias", [out]));
        let (hidden, up) = (g.input("hidden", [batch, rows, 5]), g.input("up", [out, 5]));
        let y = g.linear(x, w).unwrap();
        let plain = g.geglu(y).unwrap();
        let y = g.linear(x, w).unwrap();
        let y = g.add(y, bias).unwrap();
        let biased = g.geglu(y).unwrap();
        let y = g.linear(x, w).unwrap();
        let y = g.lora_up(Some(y), hidden, up).unwrap();
        let y = g.add(y, bias).unwrap();
        let updated = g.geglu(y).unwrap();
        // Not to be folded: what comes before the gate is wanted too, and other work.
        let wanted = g.linear(x, w).unwrap();
        let gated = g.geglu(wanted).unwrap();
        let y = g.linear(x, w).unwrap();
        let y = g.scale(y, 0.5).unwrap();
        let scaled = g.geglu(y).unwrap();
        let outputs = [plain, biased, updated, wanted, gated, scaled];
        compare(&format!("gated {batch}x{rows}x{into}x{out}"), &g, &outputs, 2e-5);
        if rounds() {
            let shapes = [("half.w".to_string(), vec![out, into]), ("bias".into(), vec![out])];
            let source = Arc::new(MadeUp(shapes.into()));
            let weights = Weights::new(&device(), source, Precision::AsStored);
            let program = Program::new(&weights, &g, &[biased]).unwrap();
            let shared = into > 500;
            assert_eq!(program.commands(), if shared { 2 } else { 1 });
        }
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
            (2, 67, 65, 16, 128, 3, 1),
            // Few outputs, and widths that are no multiples of 4, of several workgroups.
            (1, 13, 40, 36, 3, 3, 1),
            (2, 11, 30, 48, 4, 3, 1),
            (1, 10, 9, 5, 70, 3, 1),
            (1, 6, 7, 520, 8, 3, 1),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", [batch, height, width, into]);
            let edge = kernel / 2 * usize::from(kernel == 3);
            let x = g.pad2d(x, [edge; 4]).unwrap();
            let w = g.parameter(format!("{half}.w"), [out, into, kernel, kernel]);
            let y = g.conv2d(x, w, stride).unwrap();
            let row = g.input("row", [batch, 1, 1, out]);
            let y = g.add(y, row).unwrap();
            compare(
                &format!("conv {half} {batch}x{height}x{width}x{into} -> {out}, {kernel}/{stride}"),
                &g,
                &[y],
                2e-5,
            );
        }
    }
}

#[test]
fn padding_alone_and_behind_every_kernel_that_can_write_it() {
    for channels in [8, 6] {
        let mut g = Graph::new();
        let x = g.input("x", [2, 5, 7, channels]);
        let (weight, bias) = (g.parameter("w", [channels]), g.parameter("b", [channels]));
        let mut outputs =
            vec![g.pad2d(x, [0, 1, 0, 1]).unwrap(), g.pad2d(x, [1, 2, 3, 0]).unwrap()];
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
    for (batch, rows, channels, groups) in
        [(1, 1, 8, 2), (2, 77, 40, 4), (3, 130, 30, 3), (1, 4100, 64, 32), (2, 9, 12, 12)]
    {
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

/// Products that sum up the channels of what they store, for the norm behind: matrices alone do.
#[test]
fn statistics_of_what_products_store() {
    for (batch, height, width, into, out, kernel) in [
        (2, 8, 8, 12, 40, 1),
        (1, 16, 8, 32, 8, 1),
        (1, 4, 32, 64, 72, 1),
        (2, 32, 64, 8, 96, 3),
        // Not to be: entries end within a workgroup, or sums are shared by several.
        (2, 5, 7, 16, 24, 1),
        (1, 8, 8, 520, 24, 1),
    ] {
        // Sums of a far mean too.
        for name in ["residual", "far"] {
            let mut g = Graph::new();
            g.hold_halves();
            let x = g.input("x", [batch, height, width, into]);
            let p = g.pad2d(x, [kernel / 2; 4]).unwrap();
            let w = g.parameter("half.w", [out, into, kernel, kernel]);
            let bias = g.parameter("bias", [out]);
            let residual = g.input(name, [batch, height, width, out]);
            let y = g.conv2d(p, w, 1).unwrap();
            let y = g.add(y, bias).unwrap();
            let y = g.add(y, residual).unwrap();
            let s = g.group_norm_statistics(y, 4, 1e-5).unwrap();
            let (weight, offset) = (g.parameter("weight", [out]), g.parameter("offset", [out]));
            let z = g.group_norm(y, s, weight, offset).unwrap();
            let what = format!("{name} {batch}x{height}x{width}x{into} -> {out}, {kernel}");
            compare(&what, &g, &[y, s, z], if name == "far" { 2e-4 } else { 2e-5 });
            if rounds() {
                let shapes = [
                    ("half.w".to_string(), vec![out, into, kernel, kernel]),
                    ("bias".into(), vec![out]),
                    ("weight".into(), vec![out]),
                    ("offset".into(), vec![out]),
                ];
                let source = Arc::new(MadeUp(shapes.into()));
                let weights = Weights::new(&device(), source, Precision::AsStored);
                let program = Program::new(&weights, &g, &[z]).unwrap();
                let summed = width % 8 == 0 && into < 500;
                // Padding, product, sums of its parts, statistics in one or two, norm in two.
                let parts = usize::from(into > 500);
                let expected = 1 + 1 + parts + if summed { 1 } else { 2 } + 2;
                assert_eq!(program.commands(), expected, "{what}");
            }
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
        // Whole tiles of cooperative matrices and ragged ones, of many workgroups and of few.
        (1, 1, 63, 64, 2, 80),
        (1, 1, 64, 96, 1, 160),
        (2, 1, 32, 33, 1, 12),
        (2, 2, 2100, 64, 4, 40),
        (1, 1, 4100, 31, 4, 64),
        // Heads that the subgroups of a workgroup share out.
        (2, 2, 33, 150, 1, 512),
        (1, 1, 40, 77, 1, 500),
    ] {
        let mut g = Graph::new();
        let q = g.input("q", [batch, tokens, heads * d]);
        let k = g.input("k", [batch / share, keys, heads * d]);
        let v = g.input("v", [batch / share, keys, heads * d]);
        let what = format!("attention {batch}x{tokens}x{keys}, {heads} heads of {d}");
        let scale = 1.0 / (d as f32).sqrt();
        let y = g.attention(q, k, v, heads, scale, false).unwrap();
        compare(&what, &g, &[y], of_exponentials(1e-5));
        let y = g.attention_to_prompt(q, k, v, heads, scale).unwrap();
        compare(&format!("{what}, to a prompt"), &g, &[y], of_exponentials(1e-5));
        // Sharper than f16 has room for: references are raised again and again.
        let y = g.attention(q, k, v, heads, 4.0, false).unwrap();
        compare(&format!("{what}, sharp"), &g, &[y], of_exponentials(2e-4));
    }
    for (tokens, d) in [(1, 4), (77, 32), (50, 64), (150, 40), (64, 80)] {
        for scale in [0.3, 3.0] {
            let mut g = Graph::new();
            let x = g.input("x", [2, tokens, 2 * d]);
            let y = g.attention(x, x, x, 2, scale, true).unwrap();
            compare(
                &format!("causal attention {tokens}, heads of {d}, times {scale}"),
                &g,
                &[y],
                of_exponentials(if scale < 1.0 { 1e-5 } else { 1e-4 }),
            );
        }
    }
}

/// What cooperative matrices keep of exponentials: 11 bits.
fn of_exponentials(tolerance: f32) -> f32 {
    if rounds() { 5e-4 } else { tolerance }
}

/// One attention over keys given by `key`, with `value`, both of key and channel: what came out,
/// and what should have.
fn attend(
    d: usize,
    keys: usize,
    key: &dyn Fn(usize, usize) -> f32,
    value: &dyn Fn(usize, usize) -> f32,
) -> [Array; 2] {
    let mut g = Graph::new();
    let [q, k, v] =
        [("q", 40), ("k", keys), ("v", keys)].map(|(name, rows)| g.input(name, [1, rows, d]));
    let y = g.attention(q, k, v, 1, 1.0, false).unwrap();
    let of = |rows: usize, f: &dyn Fn(usize, usize) -> f32| {
        let values = (0..rows * d).map(|i| f(i / d, i % d)).collect();
        Array::f32([1, rows, d], values)
    };
    let query = |row: usize, channel: usize| if channel == 0 { row as f32 / 32.0 } else { 0.0 };
    let inputs = HashMap::from([
        ("q".to_string(), of(40, &query)),
        ("k".into(), of(keys, key)),
        ("v".into(), of(keys, value)),
    ]);
    let source = Arc::new(MadeUp(HashMap::new()));
    let expected = g.evaluate(&[y], &inputs, &*source).unwrap().remove(0);
    let program =
        Program::new(&Weights::new(&device(), source, Precision::AsStored), &g, &[y]).unwrap();
    for (name, array) in &inputs {
        program.write(name, array).unwrap();
    }
    program.run();
    let first = program.output(0).unwrap();
    program.run();
    assert!(first == program.output(0).unwrap(), "the same run gives other bytes");
    [first, expected]
}

/// Each key's score exceeds those before it, for some tokens by much, for others by nothing.
#[test]
fn attention_to_ever_greater_scores() {
    for (d, keys) in [(8, 200), (40, 160), (160, 70), (512, 150)] {
        for growth in [0.125, 1.0, 16.0, 256.0] {
            let key = |key: usize, channel: usize| {
                if channel == 0 { (key as f32 - 20.0) * growth } else { 1.0 }
            };
            let [found, expected] =
                attend(d, keys, &key, &|key, channel| noise("v", key * d + channel));
            for (i, (f, e)) in found.values().iter().zip(expected.values()).enumerate() {
                assert!(
                    (f - e).abs() <= of_exponentials(1e-5) * 2.0,
                    "{d}, growth {growth}: element {i} is {f} instead of {e}"
                );
            }
        }
    }
}

/// As of products: f16's greatest number stands for what is greater, and no infinity comes of it.
#[test]
fn attention_beyond_the_range_of_f16() {
    if !rounds() {
        return;
    }
    let key =
        |key: usize, channel: usize| if channel == 0 { (key as f32 - 40.0) * 1e5 } else { 1e30 };
    let value = |key: usize, _: usize| if key.is_multiple_of(2) { 3e5 } else { -3e5 };
    let [found, _] = attend(40, 81, &key, &value);
    // The first token sees all keys alike; the keys of the others' choice are all as great as f16
    // has them.
    for (token, values) in found.values().chunks_exact(40).enumerate() {
        let expected = if token == 0 { 65504.0 / 81.0 } else { 0.0 };
        assert!(
            values.iter().all(|v| (v - expected).abs() < 40.0),
            "token {token}: {values:?} instead of {expected}"
        );
    }
}

#[test]
fn moving_and_mixing() {
    for channels in [8, 5] {
        let mut g = Graph::new();
        let (a, b) = (g.input("a", [2, 3, channels]), g.input("b", [2, 3, 12]));
        let ids = g.input_ids("ids", [2, 7]);
        let mut outputs = vec![
            g.concat_channels(a, b).unwrap(),
            g.concat(&[a, a, a], 1).unwrap(),
            g.concat(&[a, a], 0).unwrap(),
        ];
        outputs.push(g.slice(b, 2, 4, 8).unwrap());
        outputs.push(g.slice(a, 1, 1, 2).unwrap());
        let extra = g.input("extra", [2, channels]);
        for name in ["half.table", "table"] {
            let table = g.parameter(name, [10, channels]);
            outputs.push(g.embedding(table, ids).unwrap());
            let short = g.parameter(format!("{name}.short"), [7, channels]);
            outputs.push(g.embedding_continued(short, extra, ids).unwrap());
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
    let weights = Weights::new(&device(), Arc::new(MadeUp(HashMap::new())), Precision::AsStored);
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
    let weights = Weights::new(&device(), Arc::new(MadeUp(shape)), Precision::AsStored);
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

/// Ranks with and without vectors, more rows than a block, more outputs than a workgroup's.
const NARROW: [(usize, usize, usize); 8] = [
    (1, 4, 4),
    (5, 8, 1),
    (8, 40, 12),
    (13, 36, 3),
    (3, 7, 5),
    (17, 10, 8),
    (70, 24, 6),
    (77, 768, 16),
];

#[test]
fn narrow_products() {
    for (rows, into, rank) in NARROW {
        let mut g = Graph::new();
        let x = g.input("x", [2, rows, into]);
        let (w, across) = (g.parameter("w", [rank, into]), g.input("across", [into, rank]));
        let (strength, gate) = (g.input("strength", [1]), g.input("gate", [rows, rank]));
        let half = g.parameter("half.w", [rank, into]);
        let plain = g.lora_down(x, w).unwrap();
        let y = g.lora_down(x, half).unwrap();
        let scaled = g.multiply(y, strength).unwrap();
        let y = g.lora_down_transposed(x, across).unwrap();
        let gated = g.multiply(y, gate).unwrap();
        compare(&format!("narrow {rows}x{into}x{rank}"), &g, &[plain, scaled, gated], 1e-5);
    }
}

#[test]
fn narrow_convolutions() {
    for (height, width, into, rank, kernel, stride) in
        [(5, 7, 8, 4, 3, 1), (6, 5, 6, 3, 3, 2), (4, 4, 12, 9, 1, 2), (7, 6, 5, 4, 2, 1)]
    {
        let mut g = Graph::new();
        let x = g.input("x", [2, height, width, into]);
        let w = g.parameter("half.w", [rank, into, kernel, kernel]);
        let y = g.lora_down_conv2d(x, w, stride).unwrap();
        compare(
            &format!("narrow conv {height}x{width}x{into} -> {rank}, {kernel}/{stride}"),
            &g,
            &[y],
            1e-5,
        );
    }
}

/// Folded into every product, among other stages, and on its own.
#[test]
fn widened_products() {
    for (batch, rows, into, out, rank, transposed) in [
        (2, 9, 16, 72, 4, false),
        (2, 9, 16, 72, 4, true),
        (3, 5, 6, 7, 3, false),
        (3, 5, 6, 7, 8, true),
        (1, 70, 8, 132, 12, false),
        (1, 17, 12, 4, 1, true),
        (2, 13, 48, 64, 4, false),
        (2, 13, 272, 64, 4, true),
        (1, 31, 192, 32, 3, true),
    ] {
        let mut g = Graph::new();
        let (x, t) = (g.input("x", [batch, rows, into]), g.input("t", [batch, rows, rank]));
        let u = g.input("u", if transposed { [rank, out] } else { [out, rank] });
        let (w, bias) = (g.parameter("half.w", [out, into]), g.parameter("bias", [out]));
        let residual = g.input("residual", [batch, rows, out]);
        let widen = |g: &mut Graph, base| match transposed {
            true => g.lora_up_transposed(base, t, u).unwrap(),
            false => g.lora_up(base, t, u).unwrap(),
        };
        let mut outputs = vec![widen(&mut g, None), widen(&mut g, Some(residual))];
        let y = g.silu(outputs[1]).unwrap();
        outputs.push(g.add(y, bias).unwrap());
        let y = g.linear(x, w).unwrap();
        outputs.push(widen(&mut g, Some(y)));
        // After a sum it changes places with it, after a function it cannot be folded.
        let y = g.linear(x, w).unwrap();
        let y = g.add(y, residual).unwrap();
        let y = widen(&mut g, Some(y));
        let y = g.add(y, bias).unwrap();
        outputs.push(g.silu(y).unwrap());
        let y = g.linear(x, w).unwrap();
        let y = g.silu(y).unwrap();
        let y = widen(&mut g, Some(y));
        outputs.push(widen(&mut g, Some(y)));
        compare(
            &format!("widened {batch}x{rows}x{into}x{out}, rank {rank}, {transposed}"),
            &g,
            &outputs,
            2e-5,
        );
    }
}

#[test]
fn widened_convolutions() {
    for (height, width, into, out, rank, kernel, stride) in [
        (5, 16, 8, 64, 4, 3, 1),
        (7, 19, 12, 68, 12, 3, 1),
        (3, 33, 4, 4, 3, 3, 1),
        (9, 12, 3, 16, 4, 3, 1),
        (9, 8, 8, 12, 1, 3, 2),
        (5, 9, 16, 32, 4, 3, 1),
    ] {
        let mut g = Graph::new();
        let x = g.input("x", [2, height, width, into]);
        let x = g.pad2d(x, [kernel / 2; 4]).unwrap();
        let (w, down) = (
            g.parameter("half.w", [out, into, kernel, kernel]),
            g.parameter("down", [rank, into, kernel, kernel]),
        );
        let (up, bias) = (g.parameter("up", [out, rank]), g.parameter("bias", [out]));
        let t = g.lora_down_conv2d(x, down, stride).unwrap();
        let y = g.conv2d(x, w, stride).unwrap();
        let y = g.lora_up(Some(y), t, up).unwrap();
        let y = g.add(y, bias).unwrap();
        compare(
            &format!(
                "widened conv {height}x{width}x{into} -> {out}, rank {rank}, {kernel}/{stride}"
            ),
            &g,
            &[y],
            2e-5,
        );
    }
}

#[test]
fn gates_of_low_rank_updates() {
    let mut g = Graph::new();
    let (strength, other) = (g.input("strength", [1]), g.input("other", [1]));
    let (mask, masks) = (g.input("mask", [9]), g.input("masks", [2, 9]));
    let part = |rank, factor, strength, mask| GatePart { rank, factor, strength, mask };
    let parts = [
        part(4, 0.5, Some(strength), None),
        part(3, 1.5, None, None),
        part(1, 1.0, Some(other), None),
    ];
    let plain = g.lora_gate(&parts).unwrap();
    let parts = [
        part(4, 0.5, Some(strength), Some(mask)),
        part(3, 1.5, None, None),
        part(2, 1.0, None, Some(mask)),
    ];
    let masked = g.lora_gate(&parts).unwrap();
    let many = g
        .lora_gate(&[part(4, -2.0, Some(other), Some(masks)), part(1, 1.0, None, Some(mask))])
        .unwrap();
    compare("gates", &g, &[plain, masked, many], 1e-6);
}

#[test]
fn gradients_of_narrow_weights() {
    for (rows, into, out) in
        [(1, 4, 4), (31, 8, 3), (33, 3, 40), (130, 36, 12), (2100, 5, 7), (77, 768, 4), (64, 4, 66)]
    {
        let mut g = Graph::new();
        let (x, dy) = (g.input("x", [2, rows, into]), g.input("dy", [2, rows, out]));
        let dw = g.linear_weight_gradient(x, dy).unwrap();
        compare(&format!("weight gradient {rows}x{into}x{out}"), &g, &[dw], 1e-5);
    }
}

/// Matrices joined from parameters are joined once, and stay through many runs.
#[test]
fn what_depends_on_parameters_alone_is_computed_once() {
    let mut g = Graph::new();
    let x = g.input("x", [3, 8]);
    let (a, b) = (g.parameter("a", [2, 8]), g.parameter("b", [3, 8]));
    let joined = g.concat(&[a, b], 0).unwrap();
    let y = g.lora_down(x, joined).unwrap();
    let y = g.silu(y).unwrap();
    let z = g.lora_down_transposed(y, joined).unwrap();
    let source =
        Arc::new(MadeUp([("a".to_string(), vec![2, 8]), ("b".to_string(), vec![3, 8])].into()));
    let weights = Weights::new(&device(), source.clone(), Precision::AsStored);
    let program = Program::new(&weights, &g, &[z]).unwrap();
    assert_eq!(program.commands(), 2);
    for round in 0..3 {
        let x = Array::f32([3, 8], (0..24).map(|i| noise("x", i + round)).collect());
        let expected =
            g.evaluate(&[z], &HashMap::from([("x".to_string(), x.clone())]), &*source).unwrap();
        program.write("x", &x).unwrap();
        program.run();
        let found = program.output(0).unwrap();
        let error = found
            .values()
            .iter()
            .zip(expected[0].values())
            .fold(0.0f32, |m, (f, e)| m.max((f - e).abs()));
        assert!(error < 1e-4, "run {round}: {error:.1e}");
    }
}
