//! What a step of tuning costs, from its plan alone: nothing is computed here.

use std::path::Path;

use mixofshow::backend::wgpu::{Schedule, Traits, Tuned};
use mixofshow::graph::{Graph, Limits, Origin, Plan, Tensor};
use mixofshow::models::config::UNetConfig;
use mixofshow::models::nn::{Encodings, Layers, LoraSet};
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use serde_json::json;

/// WebGPU's floor.
const TRAITS: Traits = Traits {
    limits: Limits { max_binding: 128 << 20, max_buffer: 256 << 20, alignment: 256 },
    workgroup_memory: 16 << 10,
    schedule: Schedule::Staged,
    halves: false,
    tuned: Tuned::STANDARD,
};

/// Linear layers of the attentions of a UNet.
fn attention_layers(config: &UNetConfig) -> Vec<String> {
    let mut graph = Graph::new();
    build(&mut graph, config, Vec::new());
    let layer = |node: &mixofshow::graph::Node| match &node.origin {
        Origin::Parameter { name } if name.contains(".attn1.") || name.contains(".attn2.") => {
            name.strip_suffix(".weight").map(String::from)
        }
        _ => None,
    };
    graph.nodes().iter().filter_map(layer).collect()
}

/// One pass over 32x32 latents, each cross-attention with its own text: the prediction and the
/// texts.
fn build(graph: &mut Graph, config: &UNetConfig, low_rank: Vec<LoraSet>) -> (Tensor, Vec<Tensor>) {
    let sample = graph.input("sample", [1, 32, 32, config.in_channels]);
    let time = graph.input("time", [1, config.block_out_channels[0]]);
    let text = |i| graph.input(format!("text.{i}"), [1, 77, config.cross_attention_dim]);
    let texts: Vec<Tensor> = (0..config.cross_attention_layers()).map(text).collect();
    let (prompt, residuals) = (Encodings::Text(&texts), Residuals::default());
    let inputs =
        UNetInputs { sample, time, prompt, guidance: None, class: None, addition: None, residuals };
    let mut layers = Layers::with_loras(graph, low_rank);
    (unet::unet(&mut layers, config, &inputs).unwrap().sample, texts)
}

/// Stable Diffusion 1.5 at 256x256, rank 4 on all attention layers, layer-wise text: backward costs
/// about what forward does, because frozen weights get no gradient.
#[test]
fn a_step_of_tuning_is_little_more_than_two_passes() {
    let config = json!({"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64});
    let config = UNetConfig::from_json(&config, Path::new("config.json")).unwrap();
    let ranks = attention_layers(&config).into_iter().map(|layer| (layer, 4)).collect();
    let mut graph = Graph::new();
    let (output, mut wanted) = build(&mut graph, &config, vec![LoraSet::new("lora", ranks)]);
    let low_rank = |&t: &Tensor| match &graph.node(t).origin {
        Origin::Parameter { name } => name.starts_with("lora."),
        _ => false,
    };
    wanted.extend(graph.tensors().filter(low_rank));
    // 16 transformers with two attentions of four layers, two matrices each; 16 texts.
    assert_eq!(wanted.len(), 16 * 2 * 4 * 2 + 16);
    let forward = Plan::new(&graph, &[output], &TRAITS);

    let shape = graph.shape(output).clone();
    let (target, weights) = (graph.input("target", shape.clone()), graph.input("weights", shape));
    let loss = graph.weighted_squared_error(output, target, weights).unwrap();
    let mut asked = graph.gradients(loss, &wanted).unwrap();
    asked.push(loss);
    let both = Plan::new(&graph, &asked, &TRAITS);
    let ratio = both.flops(&graph) as f64 / forward.flops(&graph) as f64;
    let mib = |plan: &Plan| plan.activation_bytes() >> 20;
    println!(
        "{ratio:.3} passes; activations {} MiB, forward alone {} MiB",
        mib(&both),
        mib(&forward)
    );
    assert!(ratio <= 2.2, "a step costs {ratio:.3} passes");
}
