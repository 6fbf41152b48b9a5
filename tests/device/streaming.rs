//! Programs whose weights come from the host block by block.

use mixofshow::backend::wgpu::{Gpu, Options, Selection};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, Plan, Tensor};

use super::random::{source, values};

/// Linear layers of 256 KiB each in f32, a convolution, and what is computed of weights alone.
fn graph() -> (Graph, Vec<Tensor>) {
    let mut g = Graph::new();
    let mut x = g.input("x", [1, 4, 4, 256]);
    for layer in 0..6 {
        let weight = g.parameter(format!("layer{layer}.weight"), [256, 256]);
        let bias = g.parameter(format!("layer{layer}.bias"), [256]);
        x = g.linear(x, weight).unwrap();
        x = g.add(x, bias).unwrap();
        x = g.scale(x, 0.2).unwrap();
    }
    let window = g.parameter("window", [32, 256, 3, 3]);
    let padded = g.pad2d(x, [1; 4]).unwrap();
    let y = g.conv2d(padded, window, 1).unwrap();
    let (a, b) = (g.parameter("a", [16, 16, 32]), g.parameter("b", [16, 16, 32]));
    let sum = g.add(a, b).unwrap();
    let part = g.slice(sum, 0, 0, 1).unwrap();
    let part = g.reshape(part, [16, 32]).unwrap();
    let tokens = g.reshape(y, [16, 32]).unwrap();
    let last = g.add(tokens, part).unwrap();
    (g, vec![last])
}

fn open() -> Device {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    Gpu::open(&Options { selection, floor: true, ..Options::default() }).unwrap().into()
}

#[test]
fn weights_that_come_and_go_change_nothing() {
    let (graph, outputs) = graph();
    let x = Array::f32([1, 4, 4, 256], values("x", 4 * 4 * 256));
    let run = |program: &Program| {
        program.write("x", &x).unwrap();
        program.run();
        program.wait().unwrap();
        program.output(0).unwrap()
    };
    for precision in [Precision::F32, Precision::F16] {
        let device = open();
        let weights = Weights::new(&device, source(&graph), precision);
        let plan = Plan::new(&graph, &outputs, device.target());
        let expected = run(&Program::from_plan(&weights, &graph, &plan).unwrap());
        let all = weights.planned_bytes(&graph, &plan).unwrap();
        let least = weights.held(&graph, &plan, 0).unwrap().unwrap_err().least;
        assert!(least < all, "{least} of {all}");
        for within in [least, least + (400 << 10), all - 1, all] {
            let device = open();
            let weights = Weights::new(&device, source(&graph), precision);
            let held = weights.held(&graph, &plan, within).unwrap().unwrap();
            assert!(held.bytes() <= within && held.host == held.streamed, "{held:?}");
            assert_eq!(held.streamed > 0, within < all, "{held:?}");
            let program = Program::within(&weights, &graph, &plan, within).unwrap();
            assert_eq!(run(&program), expected, "{precision:?} within {within} of {all}");
            assert_eq!(run(&program), expected, "again");
            // Uniforms are 256 bytes a command.
            let most = within + plan.activation_bytes() + 4 * 4 * 256 * 4 + (16 << 10);
            assert!(device.memory()[1] <= most, "{:?} of {most}", device.memory());
            let mut seen = 0;
            let mut look = |_: &str, _: &str, _: &[f32]| {
                seen += 1;
                true
            };
            program.trace(&mut look).unwrap();
            assert_eq!(program.output(0).unwrap(), expected, "traced");
            assert!(seen >= 8, "{seen}");
            // The host still has what comes; the device has nothing.
            drop(program);
            weights.rest();
            assert!(device.memory()[0] <= 4096, "{:?}", device.memory());
            let again = Program::within(&weights, &graph, &plan, within).unwrap();
            assert_eq!(run(&again), expected, "once more");
        }
    }
}
