//! Random graphs on a device and in plain Rust: whatever the planner folds into what, and wherever
//! it puts things, the values are those of the operations done one by one.

use std::collections::HashMap;
use std::sync::Arc;

use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::ops::Function;
use mixofshow::graph::{Array, Error, Graph, Node, Origin, Shape, Tensor};

use super::engine::device;
use super::hashed::{HashedWeights, tensor};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A graph that grows by operations that fit what is there.
struct Growing {
    random: Random,
    graph: Graph,
    values: Vec<Tensor>,
    names: usize,
}

impl Growing {
    fn new(seed: u64) -> Growing {
        let mut growing = Growing {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            graph: Graph::new(),
            values: Vec::new(),
            names: 0,
        };
        let r = &mut growing.random;
        let shape = [1 + r.below(2), 1 + r.below(4), 1 + r.below(14), r.pick(&[4, 8, 6])];
        let x = growing.input(shape.into());
        growing.values.push(x);
        growing
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}.{}", self.names)
    }

    fn input(&mut self, shape: Shape) -> Tensor {
        let name = self.name("input:x");
        self.graph.input(name, shape)
    }

    fn parameter(&mut self, shape: impl Into<Shape>) -> Tensor {
        let name = self.name("parameter");
        self.graph.parameter(name, shape)
    }

    /// Mostly the newest value, so that chains grow; sometimes an older one, so that values are
    /// used twice.
    fn value(&mut self) -> Tensor {
        match self.random.chance(70) {
            true => self.values[self.values.len() - 1],
            false => self.random.pick(&self.values.clone()),
        }
    }

    /// A value with the elements of `like`, through a view if need be, or a new input.
    fn similar(&mut self, like: Tensor) -> Tensor {
        let shape = self.graph.shape(like).clone();
        let fitting = |t: &&Tensor| self.graph.shape(**t).elements() == shape.elements();
        let fitting: Vec<Tensor> = self.values.iter().filter(fitting).copied().collect();
        if fitting.is_empty() || self.random.chance(20) {
            return self.input(shape);
        }
        let other = self.random.pick(&fitting);
        match *self.graph.shape(other) == shape {
            true => other,
            false => self.graph.reshape(other, shape).unwrap(),
        }
    }

    /// `x` as a feature map.
    fn image(&mut self, x: Tensor) -> Tensor {
        let shape = self.graph.shape(x).clone();
        match shape.len() {
            4 => x,
            _ => self
                .graph
                .reshape(x, [shape[0], 1, shape.rows() / shape[0], shape.channels()])
                .unwrap(),
        }
    }

    fn grow(&mut self) {
        let x = self.value();
        let shape = self.graph.shape(x).clone();
        let y = match self.random.below(20) {
            0..=2 => {
                let function = self.random.pick(&[Function::Silu, Function::Relu]);
                self.graph.activation(x, function).unwrap()
            }
            3..=4 => {
                let factor = self.random.pick(&[0.5, -1.5]);
                self.graph.scale(x, factor).unwrap()
            }
            5..=9 => self.combine(x),
            10 => self.reshape(x),
            11..=12 => {
                let out = self.random.pick(&[4, 8, 6]);
                let w = self.parameter([out, shape.channels()]);
                self.graph.linear(x, w).unwrap()
            }
            13 => self.convolution(x),
            14 => {
                let (x, edges) =
                    (self.image(x), [self.random.below(2), 1, self.random.below(3), 0]);
                self.graph.pad2d(x, edges).unwrap()
            }
            15 => {
                let x = self.image(x);
                let [_, height, width, _] = self.graph.shape(x).image().unwrap();
                if height * width > 64 {
                    x
                } else {
                    self.graph.upsample_nearest(x, height * 2, width + 1).unwrap()
                }
            }
            16 => self.join_or_cut(x),
            17..=18 => self.normalise(x),
            _ => {
                let shape = [shape[0], shape.rows() / shape[0], shape.channels()];
                let q = self.graph.reshape(x, shape).unwrap();
                let k = self.similar(q);
                let heads = if shape[2].is_multiple_of(2) { 2 } else { 1 };
                self.graph.attention(q, k, q, heads, 0.4, false).unwrap()
            }
        };
        if self.graph.shape(y).elements() <= 4000 {
            self.values.push(y);
        }
    }

    /// Sums and products of all kinds of broadcast.
    fn combine(&mut self, x: Tensor) -> Tensor {
        let shape = self.graph.shape(x).clone();
        let (batch, channels) = (shape[0], shape.channels());
        let other = match self.random.below(6) {
            0 => self.parameter([channels]),
            1 => self.parameter([1]),
            2 if shape.len() > 2 => {
                let mut row = vec![1; shape.len()];
                (row[0], row[shape.len() - 1]) = (batch, channels);
                self.input(row.into())
            }
            3 if shape.len() > 2 => self.input(shape[1..].into()),
            _ => self.similar(x),
        };
        let same = self.graph.shape(other) == &shape;
        let (a, b) = if same && self.random.chance(50) { (other, x) } else { (x, other) };
        match self.random.chance(75) {
            true => self.graph.add(a, b).unwrap(),
            false => self.graph.multiply(a, b).unwrap(),
        }
    }

    fn reshape(&mut self, x: Tensor) -> Tensor {
        let shape = self.graph.shape(x).clone();
        let (rows, channels) = (shape.rows(), shape.channels());
        let divisor = self.random.pick(&[1, 2, 3]);
        match self.random.below(4) {
            0 => self.graph.reshape(x, [shape[0], rows / shape[0], channels]).unwrap(),
            1 => self.graph.reshape(x, [1, rows, 1, channels]).unwrap(),
            2 if rows.is_multiple_of(divisor) => {
                self.graph.reshape(x, [divisor, rows / divisor, channels]).unwrap()
            }
            3 if channels.is_multiple_of(2) => {
                self.graph.reshape(x, [1, rows * 2, channels / 2]).unwrap()
            }
            _ => x,
        }
    }

    fn convolution(&mut self, x: Tensor) -> Tensor {
        let x = self.image(x);
        let (channels, out) = (self.graph.shape(x).channels(), self.random.pick(&[4, 8, 6]));
        let padded = self.graph.pad2d(x, [1; 4]).unwrap();
        let w = self.parameter([out, channels, 3, 3]);
        let stride = self.random.pick(&[1, 1, 2]);
        self.graph.conv2d(padded, w, stride).unwrap()
    }

    fn join_or_cut(&mut self, x: Tensor) -> Tensor {
        let shape = self.graph.shape(x).clone();
        let axis = self.random.below(shape.len());
        if shape[axis] > 1 && self.random.chance(50) {
            let start = self.random.below(shape[axis]);
            let length = 1 + self.random.below(shape[axis] - start);
            return self.graph.slice(x, axis, start, length).unwrap();
        }
        let other = self.similar(x);
        self.graph.concat(&[x, other], axis).unwrap()
    }

    fn normalise(&mut self, x: Tensor) -> Tensor {
        let channels = self.graph.shape(x).channels();
        let (weight, bias) = (self.parameter([channels]), self.parameter([channels]));
        if self.random.chance(50) || self.graph.shape(x).len() < 3 {
            return self.graph.layer_norm(x, weight, bias, 0.1).unwrap();
        }
        let groups = if channels.is_multiple_of(2) { 2 } else { 1 };
        let statistics = self.graph.group_norm_statistics(x, groups, 0.1).unwrap();
        self.graph.group_norm(x, statistics, weight, bias).unwrap()
    }
}

/// Every third graph runs on the adapter, which compiles many kernels for one run of each.
fn on_adapter(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

fn check(seed: u64) {
    let mut growing = Growing::new(seed);
    for _ in 0..4 + growing.random.below(14) {
        growing.grow();
    }
    let mut outputs = vec![growing.values[growing.values.len() - 1]];
    for _ in 0..growing.random.below(3) {
        outputs.push(growing.random.pick(&growing.values));
    }
    compare(&format!("graph {seed}"), &growing.graph, &outputs, on_adapter(seed));
}

/// Made-up numbers for an input.
pub fn values(name: &str, count: usize) -> Vec<f32> {
    tensor(&format!("input:{name}"), &[count])
}

/// `graph` on a device for networks or on the adapter, with made-up weights in f32.
pub fn program(graph: &Graph, outputs: &[Tensor], adapter: bool) -> Program {
    let weights = Weights::new(&device(adapter), source(graph), Precision::F32);
    Program::new(&weights, graph, outputs).unwrap_or_else(|e| panic!("{e}\n{}", listing(graph)))
}

pub fn source(graph: &Graph) -> Arc<HashedWeights> {
    let parameter = |node: &Node| match &node.origin {
        Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
        _ => None,
    };
    Arc::new(HashedWeights(graph.nodes().iter().filter_map(parameter).collect()))
}

/// Fails unless a device gives the `outputs` that plain Rust gives.
pub fn compare(what: &str, graph: &Graph, outputs: &[Tensor], adapter: bool) {
    let mut inputs = HashMap::new();
    for node in graph.nodes() {
        if let Origin::Input { name } = &node.origin {
            inputs.insert(
                name.clone(),
                Array::f32(node.shape.clone(), values(name, node.shape.elements())),
            );
        }
    }
    let expected = graph.evaluate(outputs, &inputs, &*source(graph)).unwrap();
    let program = program(graph, outputs, adapter);
    for (name, array) in &inputs {
        program.write(name, array).unwrap();
    }
    program.run();
    for (index, expected) in expected.iter().enumerate() {
        let found = program.output(index).unwrap();
        assert_eq!(found.shape, expected.shape, "{what}");
        let scale = expected.values().iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let error =
            expected.values().iter().zip(found.values()).map(|(e, f)| (e - f).abs() / scale);
        let worst = error.fold(0.0, |a: f32, b| if b.is_nan() { f32::INFINITY } else { a.max(b) });
        let output = outputs[index];
        assert!(
            worst < 1e-4,
            "{what}, output {output:?}: relative error {worst:.2e}\n{}",
            listing(graph)
        );
    }
}

/// One line for each node.
fn listing(graph: &Graph) -> String {
    let line = |(i, node): (usize, &Node)| match &node.origin {
        Origin::Operation { operation, inputs } => {
            format!("{i}: {operation:?} of {inputs:?}: {}\n", node.shape)
        }
        Origin::Input { name } | Origin::Parameter { name } => {
            format!("{i}: {name}: {}\n", node.shape)
        }
    };
    graph.nodes().iter().enumerate().map(line).collect()
}

#[test]
fn random_graphs_give_the_values_of_their_operations() {
    for seed in 0..100 {
        check(seed);
    }
}

/// The same of the backward pass: gradients with respect to the first input.
#[test]
fn gradients_of_random_graphs_are_those_of_their_operations() {
    for seed in 1000..1080 {
        let mut growing = Growing::new(seed);
        for _ in 0..3 + growing.random.below(10) {
            growing.grow();
        }
        let output = growing.values[growing.values.len() - 1];
        let (mut graph, x) = (growing.graph, growing.values[0]);
        let shape = graph.shape(output).clone();
        let upstream = graph.input("input:upstream", shape);
        match graph.gradients_of(output, upstream, &[x]) {
            Ok(gradients) => compare(
                &format!("gradient {seed}"),
                &graph,
                &[gradients[0], output],
                on_adapter(seed),
            ),
            // The newest value may not depend on the first.
            Err(error) => {
                assert!(matches!(error, Error::Independent { .. }), "gradient {seed}: {error}")
            }
        }
    }
}
