//! Gradients through whole models, with low-rank updates in all their transformers, against torch
//! autograd: fixtures of `tools/reference/gradients.py`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use mixofshow::backend::Precision;
use mixofshow::graph::{Array, Graph, Origin, Tensor};
use mixofshow::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use mixofshow::models::nn::{Encodings, Layers, LoraSet, Strength};
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use mixofshow::models::{clip_text, vae};

use super::differences::{TOLERANCE, evaluate};
use super::engine::Engine;
use super::reference::{Case, hashed_input, relative_error};

/// As in `tools/reference/gradients.py`.
const SCALE: f32 = 0.7;
const RANK: usize = 2;
const PROBE: usize = 24;

fn low_rank(case: &Case) -> Vec<LoraSet> {
    let parameters = case.parameters();
    let layers = parameters
        .keys()
        .filter_map(|name| name.strip_prefix("lora.")?.strip_suffix(".lora_down.weight"));
    let ranks: HashMap<String, usize> = layers.map(|layer| (layer.to_string(), RANK)).collect();
    assert!(!ranks.is_empty(), "{} has no updates", case.name);
    let mut set = LoraSet::new("lora", ranks);
    set.strength = Strength::Fixed(SCALE);
    vec![set]
}

/// The node of the parameter `name`.
fn parameter(graph: &Graph, name: &str) -> Tensor {
    let mut found = graph
        .tensors()
        .filter(|&t| matches!(&graph.node(t).origin, Origin::Parameter { name: n } if n == name));
    found.next().unwrap_or_else(|| panic!("no parameter {name}"))
}

/// Appends the loss on `output` and its gradients with respect to all updates and to the tensors
/// `others`, and compares.
fn check(
    case: &Case,
    graph: &mut Graph,
    output: Tensor,
    mut values: HashMap<String, Array>,
    others: &[(&str, Tensor)],
) {
    let shape = graph.shape(output).clone();
    for name in ["target", "weights"] {
        let (_, array) = hashed_input(name, &shape);
        values.insert(name.into(), array);
    }
    let (target, weights) = (graph.input("target", shape.clone()), graph.input("weights", shape));
    let loss = graph.weighted_squared_error(output, target, weights).unwrap();
    let parameters = case.parameters();
    let names: BTreeSet<&String> =
        parameters.keys().filter(|name| name.starts_with("lora.")).collect();
    let mut wanted: Vec<Tensor> = names.iter().map(|name| parameter(graph, name)).collect();
    wanted.extend(others.iter().map(|(_, t)| *t));
    let before = graph.nodes().len();
    let mut asked = graph.gradients(loss, &wanted).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    println!("{}: {before} nodes forward, {} backward", case.name, graph.nodes().len() - before);
    asked.push(loss);
    let found = evaluate(graph, &asked, &values, &*case.weights());

    case.check("loss", &found[found.len() - 1], TOLERANCE);
    let (_, mut expected) = case.expected("gradients.lora").clone();
    let mut worst = 0.0f64;
    for (name, found) in names.iter().zip(&found) {
        assert_eq!(found.shape[..], parameters[*name][..], "{name}");
        let step = (found.values().len() / PROBE).max(1);
        let found: Vec<f32> = found.values().iter().step_by(step).copied().collect();
        let rest = expected.split_off(found.len());
        let error = relative_error(&found, &expected);
        assert!(
            error <= TOLERANCE,
            "{}: gradient of {name}: relative error {error:.1e}",
            case.name
        );
        worst = worst.max(error);
        expected = rest;
    }
    assert!(expected.is_empty());
    println!(
        "{}: gradients of {} updates: relative error at most {worst:.1e}",
        case.name,
        names.len()
    );
    for ((name, _), found) in others.iter().zip(&found[names.len()..]) {
        case.check(&format!("gradients.{name}"), found, TOLERANCE);
    }
    // The same on devices. The order of sums differs, no more.
    for engine in [Engine::F32, Engine::Device { precision: Precision::F32, adapter: true }] {
        let on_device = engine.evaluate(graph, &asked, values.clone(), &case.weights());
        for (name, (found, expected)) in names.iter().zip(on_device.iter().zip(&found)) {
            let error = relative_error(found.values(), expected.values());
            assert!(
                error <= TOLERANCE,
                "{}: gradient of {name} on a device: relative error {error:.1e}",
                case.name
            );
        }
        for ((name, _), found) in others.iter().zip(&on_device[names.len()..]) {
            case.check(&format!("gradients.{name}"), found, TOLERANCE);
        }
        case.check("loss", &on_device[on_device.len() - 1], TOLERANCE);
    }
}

fn check_unet(name: &str) {
    let case = Case::open(name);
    let config = UNetConfig::from_json(case.config(), Path::new(name)).unwrap();
    let batch = case.input("batch");
    let shape = [batch, case.input("height"), case.input("width"), config.in_channels];
    let text_shape = [batch, case.input("tokens"), config.cross_attention_dim];
    let time_shape = [batch, config.block_out_channels[0]];
    let features = unet::time_features(&config, &case.list("timesteps"));
    let mut values: HashMap<String, Array> =
        [hashed_input("sample", &shape), hashed_input("text", &text_shape)].into();
    values.insert("time".into(), Array::f32(time_shape, features));

    let mut graph = Graph::new();
    let (sample, text) = (graph.input("sample", shape), graph.input("text", text_shape));
    let time = graph.input("time", time_shape);
    let prompt = [text];
    let inputs = UNetInputs {
        sample,
        time,
        prompt: Encodings::Text(&prompt),
        guidance: None,
        class: None,
        addition: None,
        residuals: Residuals::default(),
    };
    let mut layers = Layers::with_loras(&mut graph, low_rank(&case));
    let output = unet::unet(&mut layers, &config, &inputs).unwrap().sample;
    case.check_parameters(&graph);
    check(&case, &mut graph, output, values, &[("text", text), ("sample", sample)]);
}

fn check_text(name: &str) {
    let case = Case::open(name);
    let config = ClipTextConfig::from_json(case.config(), Path::new(name)).unwrap();
    let rows: Vec<Vec<u32>> = serde_json::from_value(case.json["ids"]["16"].clone()).unwrap();
    let mut graph = Graph::new();
    let ids = graph.input_ids("ids", [rows.len(), 16]);
    let values = [("ids".to_string(), Array::u32([rows.len(), 16], rows.concat()))].into();
    let mut layers = Layers::with_loras(&mut graph, low_rank(&case));
    let output = clip_text::clip_text(&mut layers, &config, ids, 0).unwrap();
    let table = parameter(&graph, "text_model.embeddings.token_embedding.weight");
    check(&case, &mut graph, output, values, &[("table", table)]);
}

#[test]
fn unet_of_the_first_generation() {
    check_unet("gradients_unet_sd1");
}

#[test]
fn unet_of_an_odd_size() {
    check_unet("gradients_unet_odd");
}

fn check_encoder(name: &str) {
    let case = Case::open(name);
    let config = VaeConfig::from_json(case.config(), Path::new(name)).unwrap();
    let shape =
        [case.input("batch"), case.input("height"), case.input("width"), config.in_channels];
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", shape);
    let mut layers = Layers::with_loras(&mut graph, low_rank(&case));
    let output = vae::encode(&mut layers, &config, pixels).unwrap().mean;
    check(
        &case,
        &mut graph,
        output,
        [hashed_input("pixels", &shape)].into(),
        &[("pixels", pixels)],
    );
}

#[test]
fn encoders_of_autoencoders() {
    check_encoder("gradients_vae_sd1");
    check_encoder("gradients_vae_odd");
}

#[test]
fn text_towers() {
    check_text("gradients_text_quick_gelu");
    check_text("gradients_text_gelu");
}
