//! Which layers of the networks are trained.

use crate::graph::{Graph, Origin};
use crate::models::unet::{self, Residuals, UNetInputs};
use crate::nn::{Encodings, Layers};
use crate::sd::text::read;

use super::config::{Models, Network, StepConfig, TextLayers, TrainedLayer, UNetLayers};
use super::error::Result;

const TEXT_ATTENTION: [&str; 4] =
    [".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj", ".self_attn.out_proj"];
const TEXT_FEED_FORWARD: [&str; 2] = [".mlp.fc1", ".mlp.fc2"];
const UNET_ATTENTION: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];
const UNET_KEYS_VALUES: [&str; 2] = [".to_k", ".to_v"];
const UNET_TRANSFORMER: [&str; 4] = [".proj_in", ".proj_out", ".ff.net.0.proj", ".ff.net.2"];

/// The updates that `config` asks for, in the order in which the networks compute them.
pub(super) fn trained_layers(models: &Models, config: &StepConfig) -> Result<Vec<TrainedLayer>> {
    if !config.has_updates() {
        return Ok(Vec::new());
    }
    let in_text = |name: &str| {
        TEXT_ATTENTION.iter().any(|end| name.ends_with(end))
            || config.text_layers == TextLayers::EncoderLayer
                && TEXT_FEED_FORWARD.iter().any(|end| name.ends_with(end))
    };
    let in_unet = |name: &str| {
        let to_prompts = name.contains(".attn2.");
        let ends = |with: &[&str]| with.iter().any(|end| name.ends_with(end));
        let attention = (to_prompts || name.contains(".attn1.")) && ends(&UNET_ATTENTION);
        match config.unet_layers {
            UNetLayers::Attention => attention,
            UNetLayers::KeysValues => to_prompts && ends(&UNET_KEYS_VALUES),
            UNetLayers::Transformer => {
                attention || name.contains(".attentions.") && ends(&UNET_TRANSFORMER)
            }
        }
    };
    let mut layers = Vec::new();
    for encoder in models.encoders() {
        let mut graph = Graph::new();
        let embedded = graph.input("embedded", [1, 1, encoder.config.hidden_size]);
        let ends = encoder.reading.pooled.then(|| graph.input_ids("ends", [1]));
        let mut building = Layers::new(&mut graph);
        read(&mut building, encoder.config, encoder.reading, embedded, ends, config.clip_skip)?;
        collect(&graph, encoder.network, config.text_rank, &in_text, &mut layers);
    }

    let mut graph = Graph::new();
    // Small, but every layer is there.
    let side = 1 << models.unet.down.len().min(8);
    let sample = graph.input("sample", [1, side, side, models.unet.in_channels]);
    let time = graph.input("time", [1, models.unet.block_out_channels[0]]);
    let text = [graph.input("text", [1, 1, models.unet.cross_attention_dim])];
    let addition = models.unet.addition.map(|of| graph.input("addition", [1, of.width()]));
    let (prompt, residuals) = (Encodings::Text(&text), Residuals::default());
    let inputs =
        UNetInputs { sample, time, prompt, guidance: None, class: None, addition, residuals };
    unet::unet(&mut Layers::new(&mut graph), &models.unet, &inputs)?;
    collect(&graph, Network::UNet, config.unet_rank, &in_unet, &mut layers);
    Ok(layers)
}

fn collect(
    graph: &Graph,
    network: Network,
    rank: usize,
    chosen: &dyn Fn(&str) -> bool,
    layers: &mut Vec<TrainedLayer>,
) {
    for node in graph.nodes() {
        let Origin::Parameter { name } = &node.origin else { continue };
        let (Some(name), [out, into]) = (name.strip_suffix(".weight"), &node.shape[..]) else {
            continue;
        };
        if rank > 0 && chosen(name) {
            layers.push(TrainedLayer { network, name: name.into(), rank, into: *into, out: *out });
        }
    }
}
