//! CLIP's text and vision towers.

use std::path::Path;

use mixofshow::graph::{Array, Graph, Tensor};
use mixofshow::models::config::{ClipTextConfig, ClipVisionConfig};
use mixofshow::models::nn::Layers;
use mixofshow::models::{clip_text, clip_vision};

use super::engine::Engine;
use super::reference::{Case, hashed_input};

pub const TEXT_TOWERS: [&str; 4] = ["text_quick_gelu", "text_gelu", "text_sdxl", "tiny_text"];
pub const VISION_TOWERS: [&str; 2] = ["vision_quick_gelu", "vision_gelu"];

pub fn check_text(name: &str, engine: Engine) {
    let case = Case::open(name);
    let config = ClipTextConfig::from_json(case.config(), Path::new(name)).unwrap();
    let weights = case.weights();
    for (length, rows) in case.json["ids"].as_object().unwrap() {
        let rows: Vec<Vec<u32>> = serde_json::from_value(rows.clone()).unwrap();
        let (batch, tokens) = (rows.len(), rows[0].len());
        let flat: Vec<u32> = rows.concat();
        let mut graph = Graph::new();
        let ids = graph.input_ids("ids", [batch, tokens]);
        let ends = graph.input_ids("ends", [batch]);
        let mut layers = Layers::new(&mut graph);
        let last = clip_text::clip_text(&mut layers, &config, ids, 0).unwrap();
        let mut asked = vec![("last".to_string(), last)];
        if case.has(&format!("{length}.projected")) {
            asked.push((
                "projected".into(),
                clip_text::project(&mut layers, &config, last, ends).unwrap(),
            ));
        }
        for skip in [1, 2] {
            if case.has(&format!("{length}.skip.{skip}")) {
                asked.push((
                    format!("skip.{skip}"),
                    clip_text::clip_text(&mut layers, &config, ids, skip).unwrap(),
                ));
            }
        }
        for skip in [0, 1] {
            let name = format!("before.{skip}");
            if case.has(&format!("{length}.{name}")) {
                let mut layers = Layers::new(&mut graph);
                let embedded = clip_text::embed(&mut layers, &config, ids, None).unwrap();
                for whole in [false, true] {
                    let (before, all) =
                        clip_text::encode_before_last(&mut layers, &config, embedded, skip, whole)
                            .unwrap();
                    asked.push((name.clone(), before));
                    asked.extend(all.map(|all| ("last".to_string(), all)));
                }
            }
        }
        case.check_parameters(&graph);
        let inputs = [
            ("ids".to_string(), Array::u32([batch, tokens], flat.clone())),
            ("ends".to_string(), Array::u32([batch], clip_text::end_rows(&config, &flat, tokens))),
        ];
        let tensors: Vec<Tensor> = asked.iter().map(|(_, t)| *t).collect();
        let found = engine.evaluate(&graph, &tensors, inputs, &weights);
        for ((output, _), array) in asked.iter().zip(&found) {
            case.check(&format!("{length}.{output}"), array, engine.tolerance());
        }
    }
}

#[test]
fn text_towers() {
    for name in TEXT_TOWERS {
        check_text(name, Engine::Plain);
    }
}

#[test]
fn text_tower_refuses_what_it_cannot_do() {
    let case = Case::open("text_gelu");
    let config = ClipTextConfig::from_json(case.config(), Path::new("config.json")).unwrap();
    let mut graph = Graph::new();
    let (long, short) = (graph.input_ids("long", [1, 33]), graph.input_ids("short", [1, 32]));
    let mut layers = Layers::new(&mut graph);
    let error = clip_text::clip_text(&mut layers, &config, long, 0).unwrap_err().to_string();
    assert!(error.contains("33") && error.contains("32"), "{error}");
    let error = clip_text::clip_text(&mut layers, &config, short, 4).unwrap_err().to_string();
    assert!(error.contains("4 layers of 4"), "{error}");
}

pub fn check_vision(name: &str, engine: Engine) {
    let case = Case::open(name);
    let config = ClipVisionConfig::from_json(case.config(), Path::new(name)).unwrap();
    let shape = [case.input("batch"), config.image_size, config.image_size, config.num_channels];
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", shape);
    let mut layers = Layers::new(&mut graph);
    let tokens = clip_vision::clip_vision(&mut layers, &config, pixels).unwrap();
    let projected = clip_vision::project(&mut layers, &config, tokens).unwrap();
    case.check_parameters(&graph);
    let found = engine.evaluate(
        &graph,
        &[tokens, projected],
        [hashed_input("pixels", &shape)],
        &case.weights(),
    );
    case.check("last", &found[0], engine.tolerance());
    case.check("projected", &found[1], engine.tolerance());
}

#[test]
fn vision_towers() {
    for name in VISION_TOWERS {
        check_vision(name, Engine::Plain);
    }
}

#[test]
fn vision_tower_refuses_a_picture_of_another_size() {
    let case = Case::open("vision_gelu");
    let config = ClipVisionConfig::from_json(case.config(), Path::new("config.json")).unwrap();
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", [1, 28, 42, 3]);
    let error = clip_vision::clip_vision(&mut Layers::new(&mut graph), &config, pixels)
        .unwrap_err()
        .to_string();
    assert!(error.contains("28x28") && error.contains("28x42"), "{error}");
}
