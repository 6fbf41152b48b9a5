//! The published models, from nothing but their configurations.

use std::collections::HashMap;
use std::path::Path;

use mixofshow::graph::{Graph, Node, Origin};
use mixofshow::models::config::{ClipTextConfig, ClipVisionConfig, UNetConfig, VaeConfig};
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use mixofshow::models::{clip_text, clip_vision, vae};
use mixofshow::nn::{Encodings, Layers};
use serde_json::json;

#[test]
fn full_models_have_the_published_number_of_parameters() {
    fn count(build: impl FnOnce(&mut Graph)) -> usize {
        let mut graph = Graph::new();
        build(&mut graph);
        let parameter = |node: &Node| match &node.origin {
            Origin::Parameter { name } => Some((name.clone(), node.shape.elements())),
            _ => None,
        };
        graph.nodes().iter().filter_map(parameter).collect::<HashMap<_, _>>().values().sum()
    }
    fn build_unet(graph: &mut Graph, config: serde_json::Value) {
        let config = UNetConfig::from_json(&config, Path::new("config.json")).unwrap();
        let (sample, time) = (graph.input("sample", [2, 64, 64, 4]), graph.input("time", [2, 320]));
        let text = [graph.input("text", [2, 77, config.cross_attention_dim])];
        let (prompt, residuals) = (Encodings::Text(&text), Residuals::default());
        let inputs = UNetInputs { sample, time, prompt, guidance: None, class: None, residuals };
        let output = unet::unet(&mut Layers::new(graph), &config, &inputs).unwrap();
        assert_eq!(graph.shape(output.sample)[..], [2, 64, 64, 4]);
        assert_eq!(graph.shape(output.middle)[..], [2, 8, 8, 1280]);
    }
    assert_eq!(count(|graph| build_unet(graph, json!({"cross_attention_dim": 768}))), 859_520_964);
    let second = json!({"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": true});
    assert_eq!(count(|graph| build_unet(graph, second)), 865_910_724);

    let config = json!({"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2});
    let config = VaeConfig::from_json(&config, Path::new("config.json")).unwrap();
    let autoencoder = count(|graph| {
        let pixels = graph.input("pixels", [1, 512, 512, 3]);
        let moments = vae::encode(&mut Layers::new(graph), &config, pixels).unwrap();
        let decoded = vae::decode(&mut Layers::new(graph), &config, moments.mean).unwrap();
        assert_eq!(graph.shape(decoded)[..], [1, 512, 512, 3]);
    });
    assert_eq!(autoencoder, 83_653_863);

    let config = json!({"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768});
    let config = ClipTextConfig::from_json(&config, Path::new("config.json")).unwrap();
    let text = count(|graph| {
        let ids = graph.input_ids("ids", [1, 77]);
        clip_text::clip_text(&mut Layers::new(graph), &config, ids, 0).unwrap();
    });
    assert_eq!(text, 123_060_480);

    let config = ClipVisionConfig::from_json(&json!({}), Path::new("config.json")).unwrap();
    let vision = count(|graph| {
        let pixels = graph.input("pixels", [1, 224, 224, 3]);
        let mut layers = Layers::new(graph);
        let tokens = clip_vision::clip_vision(&mut layers, &config, pixels).unwrap();
        clip_vision::project(&mut layers, &config, tokens).unwrap();
    });
    assert_eq!(vision, 87_849_216);
}
