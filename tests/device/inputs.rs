//! Inputs of a program: each has a name of its own.

use mixofshow::backend::wgpu::{Gpu, Options, Selection};
use mixofshow::backend::{self, Precision, Program, Weights};
use mixofshow::graph::{Error, Graph};

use super::random::source;

#[test]
fn two_inputs_of_one_name_are_refused() {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    let gpu = Gpu::open(&Options { selection, ..Options::default() }).unwrap();
    let mut graph = Graph::new();
    let (first, second) = (graph.input("x", [4]), graph.input("x", [4]));
    let sum = graph.add(first, second).unwrap();
    let made = Program::new(
        &Weights::new(&gpu.clone().into(), source(&graph), Precision::F32),
        &graph,
        &[sum],
    );
    assert!(
        matches!(made, Err(backend::Error::Graph(Error::DuplicateInput { name })) if name == "x")
    );
}
