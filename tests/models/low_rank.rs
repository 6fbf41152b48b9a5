//! Low-rank updates of linear layers and convolutions: one set, and several with masks
//! (`tools/reference/low_rank.py`).

use std::path::Path;
use std::sync::Arc;

use mixofshow::graph::{Array, Graph, Origin, ParameterSource};
use mixofshow::models::config::ClipTextConfig;
use mixofshow::models::nn::{Encodings, Layers, LoraSet, Strength};
use mixofshow::models::{clip_text, unet};

use super::engine::Engine;
use super::hashed;
use super::reference::{Case, hashed_input, relative_error};
use super::unet::UNetCase;

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
        let mut set = LoraSet::new(name, [(layer.to_string(), rank)].into());
        set.strength = Strength::Fixed(scale);
        set
    };
    let mut layers = Layers::with_loras(&mut graph, vec![set("a", layer), set("b", "another")]);
    let y = layers.linear(layer, x, out).unwrap();

    let shapes = [
        (format!("{layer}.weight"), vec![out, into, 1, 1]),
        (format!("{layer}.bias"), vec![out]),
        (format!("a.{layer}.lora_down.weight"), vec![rank, into]),
        (format!("a.{layer}.lora_up.weight"), vec![out, rank]),
    ];
    let weights = hashed::HashedWeights(shapes.into());
    let [w, bias, down, up] =
        ["weight", "bias", "lora_down.weight", "lora_up.weight"].map(|part| {
            let name = if part.starts_with("lora") {
                format!("a.{layer}.{part}")
            } else {
                format!("{layer}.{part}")
            };
            hashed::tensor(&name, &weights.0[&name])
        });
    let (name, input) = hashed_input("x", &[4, into]);
    let mut expected = Vec::new();
    for row in input.values().chunks_exact(into) {
        for o in 0..out {
            let merged = |i: usize| {
                w[o * into + i]
                    + scale * (0..rank).map(|r| up[o * rank + r] * down[r * into + i]).sum::<f32>()
            };
            expected.push(bias[o] + (0..into).map(|i| merged(i) * row[i]).sum::<f32>());
        }
    }
    let found = engine.evaluate(
        &graph,
        &[y],
        [(name, input)],
        &(Arc::new(weights) as Arc<dyn ParameterSource + Send>),
    );
    let error = relative_error(found[0].values(), &expected);
    assert!(error < engine.tolerance(), "{error:.2e}");
}

/// The sets of a case of `tools/reference/low_rank.py`, with their masks declared, and values for
/// their inputs; strengths are the case's times `strength`.
fn sets(case: &Case, graph: &mut Graph, strength: f32) -> (Vec<LoraSet>, Vec<(String, Array)>) {
    let mut values = Vec::new();
    let mut sets = Vec::new();
    for described in case.json["sets"].as_array().unwrap() {
        let name = described["name"].as_str().unwrap();
        let rank = |(parameter, shape): (String, Vec<usize>)| {
            let layer =
                parameter.strip_prefix(&format!("{name}."))?.strip_suffix(".lora_down.weight")?;
            Some((layer.to_string(), shape[0]))
        };
        let mut set = LoraSet::new(name, case.parameters().into_iter().filter_map(rank).collect());
        assert!(!set.ranks.is_empty(), "{}: nothing in {name}", case.name);
        set.strength = Strength::Input;
        let scale = described["scale"].as_f64().unwrap() as f32;
        values.push((set.strength_input(), Array::f32([1], vec![scale * strength])));
        for (places, shape) in described["masks"].as_object().unwrap() {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            let (name, array) = hashed_input(&format!("{name}.mask.{places}"), &shape);
            set.masks.insert(places.parse().unwrap(), graph.input(&name, &shape[..]));
            values.push((name, array));
        }
        sets.push(set);
    }
    (sets, values)
}

/// Four sets on one UNet, linear layers and convolutions, two of them masked; without strength, the
/// plain UNet.
pub fn check_updated_unet(name: &str, engine: Engine) {
    let c = UNetCase::open(name);
    for (expected, strength) in [("updated", 1.0), ("plain", 0.0)] {
        let (mut graph, mut values) = (Graph::new(), Vec::new());
        let text = [c.text(&mut graph, &mut values, "text")];
        let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
        let (sets, of_sets) = sets(&c.case, &mut graph, strength);
        values.extend(of_sets);
        let output =
            unet::unet(&mut Layers::with_loras(&mut graph, sets), &c.config, &inputs).unwrap();
        c.case.check_parameters(&graph);
        let found = engine.evaluate(&graph, &[output.sample], values, &c.case.weights());
        c.case.check(expected, &found[0], engine.tolerance());
    }
}

pub fn check_updated_text(engine: Engine) {
    let case = Case::open("low_rank_text_quick_gelu");
    let config = ClipTextConfig::from_json(case.config(), Path::new(&case.name)).unwrap();
    let rows: Vec<Vec<u32>> = serde_json::from_value(case.json["ids"]["16"].clone()).unwrap();
    for (expected, strength) in [("updated", 1.0), ("plain", 0.0)] {
        let mut graph = Graph::new();
        let shape = [rows.len(), rows[0].len()];
        let ids = graph.input_ids("ids", shape);
        let (sets, mut values) = sets(&case, &mut graph, strength);
        values.push(("ids".into(), Array::u32(shape, rows.concat())));
        let output =
            clip_text::clip_text(&mut Layers::with_loras(&mut graph, sets), &config, ids, 0)
                .unwrap();
        case.check_parameters(&graph);
        let found = engine.evaluate(&graph, &[output], values, &case.weights());
        case.check(expected, &found[0], engine.tolerance());
    }
}

pub const UPDATED_UNETS: [&str; 2] = ["low_rank_unet_sd1", "low_rank_unet_odd"];

#[test]
fn unets_with_several_sets_and_masks() {
    for name in UPDATED_UNETS {
        check_updated_unet(name, Engine::Plain);
    }
}

#[test]
fn text_tower_with_several_sets() {
    check_updated_text(Engine::Plain);
}

/// A layer that computes other places than there is a mask for says so, and so does a mask that
/// does not fit.
#[test]
fn masks_that_do_not_fit() {
    let build = |places: usize, shape: &[usize]| {
        let mut graph = Graph::new();
        let x = graph.input("x", [2, 6, 8]);
        let mut set = LoraSet::new("region", [("proj".to_string(), 4)].into());
        set.masks.insert(places, graph.input("mask", shape));
        Layers::with_loras(&mut graph, vec![set]).linear("proj", x, 5).map(|_| ())
    };
    build(6, &[6]).unwrap();
    build(6, &[2, 6]).unwrap();
    let error = build(12, &[12]).unwrap_err().to_string();
    assert!(
        error.contains("proj") && error.contains("`region` has no mask for the 6 places"),
        "{error}"
    );
    for shape in [&[5][..], &[3, 6], &[12], &[1]] {
        let error = build(6, shape).unwrap_err().to_string();
        assert!(error.contains("proj"), "{error}");
    }
}

/// What is trained are inputs, found again when a layer is built twice.
#[test]
fn trained_updates_are_inputs() {
    let mut graph = Graph::new();
    let x = graph.input("x", [2, 8]);
    let mut set = LoraSet::new("new", [("proj".to_string(), 4)].into());
    set.trained = true;
    let mut layers = Layers::with_loras(&mut graph, vec![set]);
    layers.linear("proj", x, 5).unwrap();
    layers.linear("proj", x, 5).unwrap();
    assert!(
        layers.linear("proj", x, 6).unwrap_err().to_string().contains("new.proj.lora_up.weight")
    );
    let inputs =
        graph.nodes().iter().filter(|node| matches!(node.origin, Origin::Input { .. })).count();
    assert_eq!(inputs, 3);
    assert_eq!(graph.shape(graph.find_input("new.proj.lora_down.weight").unwrap())[..], [4, 8]);
}
