//! The test that a device has to pass before gradients are made of cooperative matrices.

use std::ops::Range;
use std::sync::Arc;

use super::device::Gpu;
use super::program::Program;
use super::weights::Weights;
use crate::backend::{Executable, Precision, Result};
use crate::graph::{
    Array, Graph, ParameterError, ParameterInfo, ParameterSource, Plan, StoredAs, Tensor,
};

/// One matrix, in f16.
struct OneMatrix([usize; 2]);

fn number(seed: usize, i: usize) -> f32 {
    ((i * 7919 + seed * 104_729) % 257) as f32 / 128.0 - 1.0
}

impl ParameterSource for OneMatrix {
    fn info(&self, _: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.0.to_vec(), stored: StoredAs::F16 })
    }

    fn read(&self, _: &str, range: Range<usize>, into: &mut [f32]) -> Result<(), ParameterError> {
        for (value, i) in into.iter_mut().zip(range) {
            *value = number(9, i);
        }
        Ok(())
    }
}

impl Gpu {
    /// Whether gradients can be made of cooperative matrices, or why not. The first call tests it.
    pub fn gradients_by_matrices(self: &Arc<Self>) -> Result<(), &str> {
        let test = || {
            let matrices = self.matrices()?;
            if !matrices.attention {
                return Err("attention is made without matrices".into());
            }
            test(self).map_err(|e| e.to_string()).and_then(|result| result)
        };
        self.gradients.get_or_init(test).as_ref().map(|_| ()).map_err(String::as_str)
    }
}

/// Gradients of a linear layer and of attention, beside those in plain Rust.
fn test(gpu: &Arc<Gpu>) -> Result<Result<(), String>> {
    // Ragged everywhere, more than one workgroup and tile; queries that share keys.
    let (tokens, keys, channels, heads) = (4 * 16 * 2 + 5, 4 * 16 + 7, 24, 2);
    let mut graph = Graph::new();
    let names = [("x", [2, tokens, 12]), ("k", [1, keys, channels]), ("v", [1, keys, channels])];
    let [x, k, v] = names.map(|(name, shape)| graph.input(name, shape));
    let weight = graph.parameter("w", [channels, 12]);
    graph.round_gradients();
    let q = graph.linear(x, weight)?;
    let y = graph.attention(q, k, v, heads, 0.4, false)?;
    let upstream = graph.input("upstream", [2, tokens, channels]);
    let wanted = graph.gradients_of(y, upstream, &[x, k, v])?;
    let source = Arc::new(OneMatrix([channels, 12]));
    let inputs: Vec<(Tensor, String, Array)> = [x, k, v, upstream]
        .into_iter()
        .zip(["x", "k", "v", "upstream"])
        .enumerate()
        .map(|(seed, (tensor, name))| {
            let shape = graph.shape(tensor).clone();
            let values = (0..shape.elements()).map(|i| number(seed, i)).collect();
            (tensor, name.to_string(), Array::f32(shape, values))
        })
        .collect();
    let named = inputs.iter().map(|(_, name, array)| (name.clone(), array.clone())).collect();
    let expected = graph.evaluate(&wanted, &named, &*source)?;
    let plan = Plan::new(&graph, &wanted, gpu.traits());
    let weights = Weights::new(gpu.clone(), source, Precision::AsStored);
    let program = Program::new(&weights, &graph, &plan)?;
    for (tensor, _, array) in &inputs {
        if let Some(view) = program.input(*tensor) {
            program.write(&view, bytemuck::cast_slice(array.values()));
        }
    }
    program.run();
    for (index, expected) in expected.iter().enumerate() {
        let bytes = program.read(&program.output(index))?;
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let greatest = expected.values().iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let wrong = expected.values().iter().zip(&found).position(|(expected, found)| {
            // What isn't a number must not pass.
            let close = (expected - found).abs() <= 1e-2 * greatest;
            !close
        });
        if let Some(at) = wrong {
            return Ok(Err(format!(
                "failed the test: a gradient came out as {} instead of {}",
                found[at],
                expected.values()[at]
            )));
        }
    }
    Ok(Ok(()))
}
