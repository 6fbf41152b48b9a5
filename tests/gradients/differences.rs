//! Finite differences of the plain-Rust evaluation.

use std::collections::HashMap;

use mixofshow::graph::ops::Function;
use mixofshow::graph::{Array, Data, Element, Graph, Origin, ParameterSource, Tensor};

use super::hashed::{self, HashedWeights};

pub const TOLERANCE: f64 = 1e-3;

/// Multiples of 1/1024 in -1 .. 1, made from a name, so that a step added to them is exact.
fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let rounded = |v: f32| (v * 1024.0).round() / 1024.0;
    let all = hashed::tensor(&format!("input:{name}"), shape).into_iter().map(rounded);
    // Away from 0, for functions with a corner there.
    all.map(|v| if name.starts_with("away") { v.signum() * (0.25 + 0.5 * v.abs()) } else { v })
        .collect()
}

/// A value for every input of `graph`.
pub fn inputs(graph: &Graph) -> HashMap<String, Array> {
    let mut inputs = HashMap::new();
    for node in graph.nodes() {
        let Origin::Input { name } = &node.origin else { continue };
        let array = match node.element {
            Element::F32 => Array::f32(node.shape.clone(), values(name, &node.shape)),
            Element::U32 => {
                let ids =
                    values(name, &node.shape).iter().map(|v| ((v + 1.0) * 3.5) as u32).collect();
                Array::u32(node.shape.clone(), ids)
            }
        };
        inputs.insert(name.clone(), array);
    }
    inputs
}

/// A value for every parameter of `graph`.
pub fn weights(graph: &Graph) -> HashedWeights {
    let parameters = graph.nodes().iter().filter_map(|node| match &node.origin {
        Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
        _ => None,
    });
    HashedWeights(parameters.collect())
}

pub fn evaluate(
    graph: &Graph,
    outputs: &[Tensor],
    inputs: &HashMap<String, Array>,
    weights: &dyn ParameterSource,
) -> Vec<Array> {
    graph.evaluate(outputs, inputs, weights).unwrap_or_else(|e| panic!("{e}"))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The derivative of the sum of `output` times `upstream` where the input `name` moves along
/// `direction`. The error of the difference shrinks with the fourth power of the step.
pub fn derivative(
    graph: &Graph,
    output: Tensor,
    upstream: &[f32],
    inputs: &mut HashMap<String, Array>,
    weights: &dyn ParameterSource,
    (name, direction): (&str, &[f32]),
    step: f32,
) -> f64 {
    let original = inputs[name].clone();
    let mut at = |steps: f32| {
        let moved =
            original.values().iter().zip(direction).map(|(v, d)| v + steps * step * d).collect();
        inputs.insert(name.into(), Array { shape: original.shape.clone(), data: Data::F32(moved) });
        dot(evaluate(graph, &[output], inputs, weights)[0].values(), upstream)
    };
    let (near, far) = (at(1.0) - at(-1.0), at(2.0) - at(-2.0));
    inputs.insert(name.into(), original);
    (8.0 * near - far) / (12.0 * f64::from(step))
}

/// Checks an operation in the middle of a graph: what `build` makes of the inputs `named` (each
/// passed through another operation first) goes through two more, and the upstream gradient is
/// arbitrary. Every element of the gradient with respect to every name of `wanted` must agree with
/// its finite difference, relative to the greatest.
pub fn check(
    what: &str,
    named: &[(&str, &[usize])],
    wanted: &[&str],
    build: impl FnOnce(&mut Graph, &[Tensor]) -> Tensor,
) {
    check_with(what, named, wanted, &[], build);
}

/// [`check`], where other inputs of the graph have the values of `fixed`.
pub fn check_with(
    what: &str,
    named: &[(&str, &[usize])],
    wanted: &[&str],
    fixed: &[(String, Array)],
    build: impl FnOnce(&mut Graph, &[Tensor]) -> Tensor,
) {
    let mut graph = Graph::new();
    let mut leaves = HashMap::new();
    let mut before = Vec::new();
    for &(name, shape) in named {
        if name.starts_with("ids") {
            before.push(graph.input_ids(name, shape));
            continue;
        }
        let leaf = graph.input(name, shape);
        leaves.insert(name, leaf);
        let scaled = graph.scale(leaf, 1.25).unwrap();
        before.push(graph.silu(scaled).unwrap());
    }
    let y = build(&mut graph, &before);
    let shape = graph.shape(y).clone();
    let factor = graph.input("factor", shape.clone());
    let y = graph.multiply(y, factor).unwrap();
    let output = graph.activation(y, Function::QuickGelu).unwrap();
    let upstream = graph.input("upstream", shape);
    let tensors: Vec<Tensor> = wanted.iter().map(|name| leaves[name]).collect();
    let gradients =
        graph.gradients_of(output, upstream, &tensors).unwrap_or_else(|e| panic!("{what}: {e}"));

    let weights = weights(&graph);
    let mut inputs = inputs(&graph);
    inputs.extend(fixed.iter().cloned());
    let found = evaluate(&graph, &gradients, &inputs, &weights);
    let upstream = inputs["upstream"].values().to_vec();
    for (&name, found) in wanted.iter().zip(&found) {
        assert_eq!(found.shape, inputs[name].shape, "{what}: shape of the gradient of {name}");
        let mut expected = Vec::new();
        for index in 0..found.values().len() {
            let mut direction = vec![0.0; found.values().len()];
            direction[index] = 1.0;
            let along = (name, &direction[..]);
            expected.push(derivative(
                &graph,
                output,
                &upstream,
                &mut inputs,
                &weights,
                along,
                1.0 / 64.0,
            ));
        }
        let greatest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(
            greatest > 1e-3,
            "{what}: {name} has too little influence to be measured: {greatest:.1e}"
        );
        for (index, (&found, expected)) in found.values().iter().zip(&expected).enumerate() {
            let error = (f64::from(found) - expected).abs() / greatest;
            assert!(
                error <= TOLERANCE,
                "{what}: element {index} of the gradient of {name} is {found} instead of \
                    {expected:.6} (relative {error:.1e})"
            );
        }
    }
}
