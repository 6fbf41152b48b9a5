//! Graphs that are hard to fold, each chosen for one reason.

use std::collections::HashMap;

use mixofshow::graph::{Array, Graph, Tensor};

use super::random::compare;

/// Rows added per batch entry and per part, where a view between them changes what a batch entry
/// is.
#[test]
fn broadcasts_over_different_numbers_of_rows() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 12, 8]);
    let w = g.parameter("w", [8, 8]);
    let (row, part) = (g.input("row", [2, 1, 8]), g.input("part", [6, 1, 8]));
    let (positions, others) = (g.input("positions", [12, 8]), g.input("others", [3, 8]));
    let mut outputs = Vec::new();
    for (first, second) in [(row, part), (positions, others), (row, others), (positions, part)] {
        let y = g.linear(x, w).unwrap();
        let y = g.add(y, first).unwrap();
        let y = g.reshape(y, [6, 4, 8]).unwrap();
        let second = match g.shape(second).len() {
            2 => {
                let y = g.reshape(y, [8, 3, 8]).unwrap();
                outputs.push(g.add(y, second).unwrap());
                continue;
            }
            _ => second,
        };
        outputs.push(g.multiply(y, second).unwrap());
    }
    compare("broadcasts", &g, &outputs, true);
}

/// More factors and operands than one kernel takes.
#[test]
fn long_chains() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 5, 8]);
    let mut y = x;
    for i in 0..7 {
        y = g.scale(y, 0.5 + i as f32).unwrap();
        y = g.silu(y).unwrap();
    }
    let mut z = x;
    for i in 0..7 {
        let operand = g.input(format!("operand.{i}"), [2, 5, 8]);
        z = g.add(z, operand).unwrap();
    }
    compare("chains", &g, &[y, z], true);
}

/// What is asked for is an input, a weight, a view of either, the same value twice, and a value
/// that others go on from.
#[test]
fn outputs_that_are_not_results() {
    let mut g = Graph::new();
    let (x, w) = (g.input("x", [3, 4]), g.parameter("w", [2, 6]));
    let (flat, turned) = (g.reshape(x, [12]).unwrap(), g.reshape(w, [3, 4]).unwrap());
    let y = g.add(x, turned).unwrap();
    let z = g.scale(y, 2.0).unwrap();
    let view = g.reshape(z, [4, 3]).unwrap();
    compare("outputs", &g, &[x, w, flat, turned, y, y, z, view], true);
}

/// A sum of a value and its own view, and of a value with itself.
#[test]
fn values_that_meet_themselves() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 3, 4]);
    let y = g.silu(x).unwrap();
    let view = g.reshape(y, [2, 3, 4]).unwrap();
    let sum = g.add(y, view).unwrap();
    let square = g.multiply(sum, sum).unwrap();
    let both = g.concat(&[square, square, y], 2).unwrap();
    compare("meetings", &g, &[both], true);
}

/// States that take each other's values, and their own.
#[test]
fn states_that_change_places() {
    let mut g = Graph::new();
    let (a, b) = (g.input("a", [4]), g.input("b", [4]));
    let c = g.input("c", [4]);
    let view = g.reshape(b, [4]).unwrap();
    for not_computed in [a, b, view] {
        assert!(g.assign(a, not_computed).unwrap_err().to_string().contains("not computed"));
    }
    for (to, from) in [(a, b), (b, a), (c, c)] {
        let copy = g.scale(from, 1.0).unwrap();
        g.assign(to, copy).unwrap();
    }
    let sum = g.add(a, b).unwrap();
    let states = HashMap::from(["a", "b", "c"].map(|name| (name, super::random::values(name, 4))));
    let program = super::random::program(&g, &[sum], true);
    for (name, values) in &states {
        program.write(*name, &Array::f32([4], values.clone())).unwrap();
    }
    let state = |name: &str| program.state(name).unwrap().values().to_vec();
    program.run();
    assert_eq!(
        [state("a"), state("b"), state("c")],
        ["b", "a", "c"].map(|name| states[name].clone())
    );
    program.run();
    assert_eq!([state("a"), state("b")], ["a", "b"].map(|name| states[name].clone()));
}

/// A tensor of every operation that nobody asked for costs nothing and breaks nothing.
#[test]
fn values_that_nobody_wants() {
    let mut g = Graph::new();
    let x = g.input("x", [1, 4, 4, 8]);
    let y = g.silu(x).unwrap();
    let unused: Vec<Tensor> = (0..3).map(|_| g.scale(y, 3.0).unwrap()).collect();
    g.add(unused[0], unused[1]).unwrap();
    let w = g.parameter("missing in the file", [8, 8]);
    g.linear(y, w).unwrap();
    let z = g.scale(y, 0.5).unwrap();
    compare("unwanted", &g, &[z], true);
}
