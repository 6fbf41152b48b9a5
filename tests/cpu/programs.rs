//! Programs on the processor: what they hold, what they share, and that no instruction set changes
//! what they mean.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use mixofshow::backend::cpu::{Cpu, Error, Level, Options};
use mixofshow::backend::{Copies, Device, Precision, Program, Weights};
use mixofshow::graph::{
    Array, Graph, ParameterError, ParameterInfo, ParameterSource, Plan, StoredAs, Tensor,
};

/// Weights made up from their places, as a file of some precision would hold them; those of
/// "merged." are not of that precision.
struct Stored(HashMap<String, Vec<usize>>, StoredAs);

impl ParameterSource for Stored {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.0.get(name)?.clone(), stored: self.1 })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        for (value, index) in into.iter_mut().zip(range) {
            let exact = ((index * 2654435761 + name.len()) % 1009) as f32 / 505.0 - 1.0;
            *value = match self.1 {
                _ if name.starts_with("merged") => exact,
                StoredAs::F16 => f16::from_f32(exact).to_f32(),
                StoredAs::BF16 => bf16::from_f32(exact).to_f32(),
                StoredAs::F32 => exact,
            };
        }
        Ok(())
    }
}

fn cpu(level: Option<&str>, threads: usize) -> Device {
    Cpu::open(&Options { level: level.map(str::to_string), threads: Some(threads) }).unwrap().into()
}

fn input(shape: &[usize]) -> Array {
    let count = shape.iter().product::<usize>();
    Array::f32(shape, (0..count).map(|i| ((i * 40503) % 997) as f32 / 498.0 - 1.0).collect())
}

/// A small network, its outputs, and the gradient of their sum with respect to its input.
fn network(prefix: &str) -> (Graph, Vec<Tensor>, HashMap<String, Vec<usize>>) {
    let mut g = Graph::new();
    let mut shapes = HashMap::new();
    let x = g.input("x", [1, 6, 7, 12]);
    let mut parameter = |g: &mut Graph, name: &str, shape: &[usize]| {
        shapes.insert(format!("{prefix}{name}"), shape.to_vec());
        g.parameter(format!("{prefix}{name}"), shape)
    };
    let (conv, bias) =
        (parameter(&mut g, "conv", &[40, 12, 3, 3]), parameter(&mut g, "bias", &[40]));
    let (linear, down) =
        (parameter(&mut g, "linear", &[36, 40]), parameter(&mut g, "down", &[20, 36, 3, 3]));
    let padded = g.pad2d(x, [1; 4]).unwrap();
    let y = g.conv2d(padded, conv, 1).unwrap();
    let y = g.add(y, bias).unwrap();
    let y = g.silu(y).unwrap();
    let y = g.linear(y, linear).unwrap();
    let y = g.conv2d(y, down, 2).unwrap();
    let loss = g.sum(y).unwrap();
    let dx = g.gradients(loss, &[x]).unwrap()[0];
    (g, vec![y, dx], shapes)
}

fn close(what: &str, found: &Array, expected: &Array, tolerance: f32) {
    let scale = expected.values().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let worst = found
        .values()
        .iter()
        .zip(expected.values())
        .map(|(f, e)| (f - e).abs() / scale)
        .fold(0.0, f32::max);
    assert!(
        found.shape == expected.shape && worst <= tolerance,
        "{what}: relative error {worst:.1e}"
    );
}

fn run(
    device: &Device,
    graph: &Graph,
    outputs: &[Tensor],
    source: &Arc<Stored>,
    precision: Precision,
) -> Vec<Array> {
    let weights = Weights::new(device, source.clone(), precision);
    let program = Program::new(&weights, graph, outputs).unwrap();
    program.write("x", &input(graph.shape(graph.find_input("x").unwrap()))).unwrap();
    program.run();
    (0..outputs.len()).map(|i| program.output(i).unwrap()).collect()
}

#[test]
fn each_instruction_set_and_precision_means_the_same() {
    for prefix in ["", "merged."] {
        let (graph, outputs, shapes) = network(prefix);
        for stored in [StoredAs::F32, StoredAs::F16, StoredAs::BF16] {
            let source = Arc::new(Stored(shapes.clone(), stored));
            let inputs = HashMap::from([("x".to_string(), input(&[1, 6, 7, 12]))]);
            let expected = graph.evaluate(&outputs, &inputs, &*source).unwrap();
            for level in Level::available() {
                for precision in Precision::ALL {
                    let rounded = match (precision, stored) {
                        (Precision::AsStored, StoredAs::F16 | StoredAs::BF16) => {
                            prefix == "merged."
                        }
                        // These matrices are too narrow for blocks.
                        (Precision::F16 | Precision::Q8 | Precision::Q4, stored) => {
                            stored == StoredAs::F32 || prefix == "merged."
                        }
                        _ => false,
                    };
                    let found =
                        run(&cpu(Some(level.name()), 2), &graph, &outputs, &source, precision);
                    for (found, expected) in found.iter().zip(&expected) {
                        let what =
                            format!("{prefix} {stored:?} as {precision} with {}", level.name());
                        close(&what, found, expected, if rounded { 2e-3 } else { 1e-5 });
                    }
                }
            }
        }
    }
}

/// Weights of one name, as they are.
struct Given(Vec<f32>, [usize; 2]);

impl ParameterSource for Given {
    fn info(&self, _: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.1.to_vec(), stored: StoredAs::F16 })
    }

    fn read(
        &self,
        _: &str,
        range: std::ops::Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        into.copy_from_slice(&self.0[range]);
        Ok(())
    }
}

/// Matrices in blocks: what comes from such blocks is in them again, and all else is near; they
/// take a little more than their bits for each number.
#[test]
fn matrices_are_held_in_blocks() {
    let (out, into) = (70, 96);
    let of_blocks = |i: usize, least: i32, most: i32| {
        let factor = half::f16::from_f32(0.002 + (i / 32 % 11) as f32 * 1e-4).to_f32();
        let any = (i * 37 % (most - least + 1) as usize) as i32 + least;
        factor * if i.is_multiple_of(32) { least } else { any } as f32
    };
    let other = |i: usize| ((i * 37 % 1001) as f32 / 500.0 - 1.0) * 0.2;
    type Value<'a> = &'a dyn Fn(usize) -> f32;
    let cases: [(Precision, usize, f32, Value); 4] = [
        (Precision::Q8, 34, 1e-5, &|i| of_blocks(i, -127, 127)),
        (Precision::Q8, 34, 3e-2, &other),
        (Precision::Q4, 18, 1e-5, &|i| of_blocks(i, -8, 7)),
        (Precision::Q4, 18, 0.3, &other),
    ];
    for (precision, block, tolerance, value) in cases {
        let source = Arc::new(Given((0..out * into).map(value).collect(), [out, into]));
        let mut graph = Graph::new();
        let x = graph.input("x", [5, into]);
        let w = graph.parameter("w", [out, into]);
        let y = graph.linear(x, w).unwrap();
        let back = graph.sum(y).unwrap();
        let dx = graph.gradients(back, &[x]).unwrap()[0];
        let outputs = [y, dx];
        let inputs = HashMap::from([("x".to_string(), input(&[5, into]))]);
        let expected = graph.evaluate(&outputs, &inputs, &*source).unwrap();
        for level in Level::available() {
            let device = cpu(Some(level.name()), 2);
            let weights = Weights::new(&device, source.clone(), precision);
            let plan = Plan::new(&graph, &outputs, device.target());
            let bytes = weights.planned_bytes(&graph, &plan).unwrap();
            assert_eq!(bytes, (out.next_multiple_of(32) * into / 32 * block) as u64);
            let program = Program::from_plan(&weights, &graph, &plan).unwrap();
            program.write("x", &inputs["x"]).unwrap();
            program.run();
            for (i, expected) in expected.iter().enumerate() {
                let what = format!("output {i} with {}", level.name());
                close(&what, &program.output(i).unwrap(), expected, tolerance);
            }
            drop(program);
            assert_eq!(device.memory()[0], bytes);
        }
    }
}

/// What training needs of a weight forward and backward is held once.
#[test]
fn weights_take_the_memory_that_was_planned_and_give_it_back() {
    let (graph, outputs, shapes) = network("");
    for stored in [StoredAs::F32, StoredAs::F16, StoredAs::BF16] {
        let device = cpu(None, 2);
        assert_eq!(device.memory(), [0, 0]);
        let weights =
            Weights::new(&device, Arc::new(Stored(shapes.clone(), stored)), Precision::AsStored);
        let plans: Vec<Plan> =
            [&outputs[..1], &outputs].map(|o| Plan::new(&graph, o, device.target())).into();
        let planned = plans
            .iter()
            .map(|plan| weights.planned_bytes(&graph, plan).unwrap())
            .collect::<Vec<_>>();
        let programs: Vec<Program> =
            plans.iter().map(|p| Program::from_plan(&weights, &graph, p).unwrap()).collect();
        let [all, _] = device.memory();
        assert!(all > planned[1] + plans.iter().map(Plan::activation_bytes).sum::<u64>());
        drop(programs);
        assert_eq!(device.memory()[0], planned[1], "{stored:?}");
        // Backward adds the convolution of stride 2 alone: 2 x 2 phases of 36 channels.
        let bytes = if stored == StoredAs::F32 { 4 } else { 2 };
        assert_eq!(
            planned[1] - planned[0],
            (4 * 36u64).next_multiple_of(32) * 20 * 4 * bytes,
            "{stored:?}"
        );
        weights.retain(|name| name == "bias");
        assert_eq!(device.memory()[0], (40u64 * 4).next_multiple_of(64));
        weights.retain(|_| false);
        assert_eq!(device.memory()[0], 0);
        assert!(device.memory()[1] >= all);
    }
}

#[test]
fn programs_take_each_others_values() {
    let device = cpu(None, 2);
    let weights =
        Weights::new(&device, Arc::new(Stored(HashMap::new(), StoredAs::F32)), Precision::F32);
    let program = |factor: f32| {
        let mut g = Graph::new();
        let x = g.input("x", [5]);
        let y = g.scale(x, factor).unwrap();
        Program::new(&weights, &g, &[y]).unwrap()
    };
    let (double, triple) = (program(2.0), program(3.0));
    double.write("x", &Array::f32([5], vec![1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
    let copies = Copies::new(&device, &[triple.copy_of_output("x", &double, 0).unwrap()]).unwrap();
    double.run();
    copies.play();
    triple.run();
    assert_eq!(triple.output(0).unwrap().values(), [6.0, 12.0, 18.0, 24.0, 30.0]);
    assert_eq!(triple.state("x").unwrap().values(), [2.0, 4.0, 6.0, 8.0, 10.0]);
    let mut seen = Vec::new();
    triple
        .trace(&mut |operation, _, values| {
            seen.push((operation.to_string(), values.to_vec()));
            true
        })
        .unwrap();
    assert_eq!(seen, [("scale".to_string(), vec![6.0, 12.0, 18.0, 24.0, 30.0])]);
}

/// Several threads may want one device at the same time, those of another pool among them.
#[test]
fn many_want_one_device() {
    use rayon::prelude::*;
    let device = cpu(None, 2);
    let (graph, outputs, shapes) = network("");
    let source = Arc::new(Stored(shapes, StoredAs::F16));
    let first = run(&device, &graph, &outputs, &source, Precision::AsStored);
    (0..16).into_par_iter().for_each(|_| {
        assert!(first == run(&device, &graph, &outputs, &source, Precision::AsStored));
    });
}

#[test]
fn instructions_that_are_not_there() {
    let open = |level: &str| {
        Cpu::open(&Options { level: Some(level.into()), threads: Some(1) })
            .map(|cpu| cpu.level().name())
    };
    assert_eq!(open("scalar").unwrap(), "scalar");
    assert!(matches!(open("mmx"), Err(Error::UnknownLevel { .. })));
    for name in Level::NAMES {
        let there = Level::available().iter().any(|level| level.name() == name);
        match open(name) {
            Ok(found) => assert!(there && found == name),
            Err(error) => assert!(!there && error.to_string().contains(name), "{error}"),
        }
    }
}

/// Weights for streaming: of 128 KiB each in f16.
fn deep(layers: usize) -> (Graph, Vec<Tensor>, HashMap<String, Vec<usize>>) {
    let mut g = Graph::new();
    let mut shapes = HashMap::new();
    let mut x = g.input("x", [1, 5, 256]);
    for layer in 0..layers {
        let name = format!("layer{layer}.weight");
        shapes.insert(name.clone(), vec![256, 256]);
        let weight = g.parameter(name, [256, 256]);
        x = g.linear(x, weight).unwrap();
        x = g.scale(x, 0.1).unwrap();
    }
    (g, vec![x], shapes)
}

#[test]
fn weights_that_come_and_go_change_nothing() {
    let (graph, outputs, shapes) = deep(8);
    let device = cpu(None, 2);
    let source = Arc::new(Stored(shapes, StoredAs::F16));
    let weights = Weights::new(&device, source, Precision::AsStored);
    let plan = Plan::new(&graph, &outputs, device.target());
    let x = input(&[1, 5, 256]);
    let run = |program: &Program| {
        program.write("x", &x).unwrap();
        program.run();
        program.wait().unwrap();
        program.output(0).unwrap()
    };
    let expected = run(&Program::from_plan(&weights, &graph, &plan).unwrap());
    let all = weights.planned_bytes(&graph, &plan).unwrap();
    weights.retain(|_| false);
    let rest = plan.activation_bytes() + 5 * 256 * 4;
    let least = weights.held(&graph, &plan, 0).unwrap().unwrap_err().least;
    assert_eq!(least, 128 << 10, "one at a time");
    let mut streamed = all;
    for within in [least, least * 3, least * 6 + 100, all] {
        let held = weights.held(&graph, &plan, within).unwrap().unwrap();
        assert!(held.bytes() <= within && held.streamed <= streamed, "{held:?}");
        assert!(held.streamed + held.stays == all && held.host == 0, "{held:?}");
        streamed = held.streamed;
        let device = cpu(None, 2);
        let source = Arc::new(Stored(deep(8).2, StoredAs::F16));
        let weights = Weights::new(&device, source, Precision::AsStored);
        let program = Program::within(&weights, &graph, &plan, within).unwrap();
        assert_eq!(run(&program), expected);
        assert_eq!(run(&program), expected, "again");
        assert!(device.memory()[1] <= within + rest + 4096, "{:?} of {within}", device.memory());
        let mut layers = 0;
        program
            .trace(&mut |_, _, _| {
                layers += 1;
                true
            })
            .unwrap();
        assert!(layers >= 8, "{layers}");
        assert_eq!(program.output(0).unwrap(), expected, "traced");
    }
    assert_eq!(streamed, 0);
    let error = Program::within(&weights, &graph, &plan, least - 1).err().unwrap().to_string();
    assert!(error.contains("too few"), "{error}");
}

/// What cannot be read any more while a program runs is told when it is waited for.
#[test]
fn weights_that_no_longer_come_are_told() {
    struct Failing(Stored, std::sync::atomic::AtomicBool);
    impl ParameterSource for Failing {
        fn info(&self, name: &str) -> Option<ParameterInfo> {
            self.0.info(name)
        }

        fn read(
            &self,
            name: &str,
            range: Range<usize>,
            into: &mut [f32],
        ) -> Result<(), ParameterError> {
            if self.1.load(std::sync::atomic::Ordering::Relaxed) {
                let message = "the disk is gone".into();
                return Err(ParameterError::Read { name: name.into(), message });
            }
            self.0.read(name, range, into)
        }
    }
    let (graph, outputs, shapes) = deep(4);
    let device = cpu(None, 1);
    let source = Arc::new(Failing(Stored(shapes, StoredAs::F16), false.into()));
    let weights = Weights::new(&device, source.clone(), Precision::AsStored);
    let plan = Plan::new(&graph, &outputs, device.target());
    let program = Program::within(&weights, &graph, &plan, 128 << 10).unwrap();
    program.run();
    program.wait().unwrap();
    source.1.store(true, std::sync::atomic::Ordering::Relaxed);
    program.run();
    let error = program.wait().unwrap_err().to_string();
    assert!(error.contains("the disk is gone"), "{error}");
}
