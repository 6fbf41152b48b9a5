//! Low-rank updates of linear layers.

use std::sync::Arc;

use mixofshow::graph::{Graph, ParameterSource};
use mixofshow::nn::{Layers, LowRank, Strength};

use super::engine::Engine;
use super::hashed;
use super::reference::{hashed_input, relative_error};

/// An update beside the weight is the same as an update in the weight.
#[test]
fn low_rank_updates() {
    check_low_rank(Engine::Plain);
}

pub fn check_low_rank(engine: Engine) {
    let layer = "mid_block.attentions.0.proj_in";
    let (out, into, rank, scale) = (5, 3, 2, 0.7);
    let mut graph = Graph::new();
    let x = graph.input("x", [4, into]);
    let set = |name: &str, layer: &str| {
        let mut set = LowRank::new(name, [(layer.to_string(), rank)].into());
        set.strength = Strength::Fixed(scale);
        set
    };
    let mut layers = Layers::with_low_rank(&mut graph, vec![set("a", layer), set("b", "another")]);
    let y = layers.linear(layer, x, out).unwrap();

    let shapes = [
        (format!("{layer}.weight"), vec![out, into, 1, 1]),
        (format!("{layer}.bias"), vec![out]),
        (format!("a.{layer}.lora_down.weight"), vec![rank, into]),
        (format!("a.{layer}.lora_up.weight"), vec![out, rank]),
    ];
    let weights = hashed::HashedWeights(shapes.into());
    let [w, bias, down, up] = ["weight", "bias", "lora_down.weight", "lora_up.weight"].map(|part| {
        let name = if part.starts_with("lora") { format!("a.{layer}.{part}") } else { format!("{layer}.{part}") };
        hashed::tensor(&name, &weights.0[&name])
    });
    let (name, input) = hashed_input("x", &[4, into]);
    let mut expected = Vec::new();
    for row in input.values().chunks_exact(into) {
        for o in 0..out {
            let merged =
                |i: usize| w[o * into + i] + scale * (0..rank).map(|r| up[o * rank + r] * down[r * into + i]).sum::<f32>();
            expected.push(bias[o] + (0..into).map(|i| merged(i) * row[i]).sum::<f32>());
        }
    }
    let found = engine.evaluate(&graph, &[y], [(name, input)], &(Arc::new(weights) as Arc<dyn ParameterSource + Send>));
    let error = relative_error(found[0].values(), &expected);
    assert!(error < engine.tolerance(), "{error:.2e}");
}
