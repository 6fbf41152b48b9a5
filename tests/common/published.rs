//! The published models by their configurations, and graphs of any model as `mixofshow` runs them.

use std::path::Path;

use mixofshow::graph::ops::{Reach, RegionInputs};
use mixofshow::graph::{Graph, Origin, Tensor};
use mixofshow::models::config::{
    ClipTextConfig, ClipVisionConfig, ControlNetConfig, T2IAdapterConfig, UNetConfig, VaeConfig,
};
use mixofshow::models::controlnet::{self, ControlNetInputs};
use mixofshow::models::nn::{Encodings, Layers, LoraSet, RegionSize, Strength};
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use mixofshow::models::{clip_text, clip_vision, t2i_adapter, vae};
use mixofshow::scheduler::sampler::{INPUTS, SLOTS};
use serde_json::{Value, json};

fn file() -> &'static Path {
    Path::new("config.json")
}

/// Stable Diffusion 1.5's UNet.
pub fn unet_1() -> Value {
    json!({"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64})
}

/// Stable Diffusion 2.1's UNet.
pub fn unet_2() -> Value {
    json!({"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": true, "sample_size": 96})
}

/// Stable Diffusion XL's UNet.
pub fn unet_xl() -> Value {
    json!({"cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "sample_size": 128,
    "block_out_channels": [320, 640, 1280], "use_linear_projection": true,
    "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]})
}

/// What a UNet of Stable Diffusion XL is told besides.
fn addition(layers: &mut Layers, config: &UNetConfig, rows: usize) -> Option<Tensor> {
    let addition = config.addition?;
    Some(layers.graph.input("addition", [rows, addition.width()]))
}

/// The autoencoder of both.
pub fn autoencoder() -> Value {
    json!({"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512})
}

/// Stable Diffusion 1.5's text encoder.
pub fn text_1() -> Value {
    json!({"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "num_hidden_layers": 12,
        "projection_dim": 768, "hidden_act": "quick_gelu", "vocab_size": 49408,
        "max_position_embeddings": 77})
}

/// Stable Diffusion 2.1's text encoder.
pub fn text_2() -> Value {
    json!({"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 23,
        "projection_dim": 512, "hidden_act": "gelu", "vocab_size": 49408,
        "max_position_embeddings": 77})
}

/// Stable Diffusion XL's second text encoder.
pub fn text_xl() -> Value {
    json!({"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20,
    "num_hidden_layers": 32,
        "projection_dim": 1280, "hidden_act": "gelu", "vocab_size": 49408,
        "max_position_embeddings": 77})
}

/// CLIP's ViT-B/32, which judges pictures.
pub fn vision() -> Value {
    json!({})
}

/// A graph and what is asked of it.
pub struct Built {
    pub name: String,
    pub graph: Graph,
    pub outputs: Vec<Tensor>,
}

impl Built {
    fn new(name: String, build: impl FnOnce(&mut Layers) -> Vec<Tensor>) -> Built {
        let mut graph = Graph::new();
        let outputs = build(&mut Layers::new(&mut graph));
        Built { name, graph, outputs }
    }
}

/// One step's pass of a UNet over `batch` latents of `height` x `width`. `stored`: with the
/// prompt's keys and values made beforehand, as sampling runs it, else from 77 encoded tokens.
pub fn unet(
    name: &str,
    config: &Value,
    batch: usize,
    height: usize,
    width: usize,
    stored: bool,
) -> Built {
    let config = UNetConfig::from_json(config, file()).unwrap();
    Built::new(
        format!("{name} {batch}x{height}x{width}{}", if stored { " keys stored" } else { "" }),
        |layers| {
            let sample = layers.graph.input("sample", [batch, height, width, config.in_channels]);
            let time = layers.graph.input("time", [batch, config.block_out_channels[0]]);
            let guidance = config
                .time_cond_proj_dim
                .map(|width| layers.graph.input("guidance", [batch, width]));
            let class = config.num_class_embeds.map(|_| layers.graph.input_ids("class", [batch]));
            let text = [layers.graph.input("text", [batch, 77, config.cross_attention_dim])];
            let mut pair = |attention: &unet::CrossAttention| {
                let mut part = |part| {
                    layers.graph.input(
                        format!("{}.{part}", attention.name),
                        [batch, 77, attention.channels],
                    )
                };
                (part("k"), part("v"))
            };
            let pairs: Vec<_> = match stored {
                true => unet::cross_attentions(&config).iter().map(&mut pair).collect(),
                false => Vec::new(),
            };
            let prompt =
                if stored { Encodings::KeysValues(&pairs) } else { Encodings::Text(&text) };
            let inputs = UNetInputs {
                sample,
                time,
                prompt,
                guidance,
                class,
                addition: addition(layers, &config, batch),
                residuals: Residuals::default(),
            };
            vec![unet::unet(layers, &config, &inputs).unwrap().sample]
        },
    )
}

/// A UNet that is read by four prompts in regions which do not see each other, with keys and values
/// made beforehand.
pub fn regional_unet(
    name: &str,
    config: &Value,
    batch: usize,
    height: usize,
    width: usize,
) -> Built {
    let config = UNetConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {batch}x{height}x{width} in regions"), |layers| {
        let sample = layers.graph.input("sample", [batch, height, width, config.in_channels]);
        let time = layers.graph.input("time", [batch, config.block_out_channels[0]]);
        let mut pair = |attention: &unet::CrossAttention| {
            let mut part = |part| {
                layers.graph.input(
                    format!("{}.{part}", attention.name),
                    [batch, 4 * 77, attention.channels],
                )
            };
            (part("k"), part("v"))
        };
        let pairs: Vec<_> = unet::cross_attentions(&config).iter().map(&mut pair).collect();
        let mut size = |[height, width]: [usize; 2]| {
            let tokens = height * width;
            let graph = &mut layers.graph;
            let inputs = RegionInputs::declare(
                graph,
                &format!("regions.{tokens}"),
                tokens,
                vec![Reach { keys: 77, tokens }; 4],
            );
            RegionSize {
                tokens,
                inputs,
                mask: Some(graph.input_ids(format!("sight.{tokens}"), [tokens])),
            }
        };
        let sizes: Vec<_> =
            unet::feature_sizes(&config, height, width).into_iter().map(&mut size).collect();
        let prompt = Encodings::Regional { pairs: &pairs, sizes: &sizes };
        let inputs = UNetInputs {
            sample,
            time,
            prompt,
            guidance: None,
            class: None,
            addition: addition(layers, &config, batch),
            residuals: Residuals::default(),
        };
        vec![unet::unet(layers, &config, &inputs).unwrap().sample]
    })
}

/// A T2I-Adapter for `height` x `width` pixels.
pub fn adapter(name: &str, config: &Value, height: usize, width: usize) -> Built {
    let config = T2IAdapterConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {height}x{width}"), |layers| {
        let factor = config.downscale_factor;
        let condition = layers.graph.input(
            "condition",
            [1, height / factor, width / factor, config.in_channels * factor * factor],
        );
        t2i_adapter::t2i_adapter(layers, &config, condition).unwrap()
    })
}

/// A ControlNet with its encoder of pictures.
pub fn control_net(name: &str, config: &Value, batch: usize, height: usize, width: usize) -> Built {
    let config = ControlNetConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {batch}x{height}x{width}"), |layers| {
        let factor = config.downscale();
        let condition = layers
            .graph
            .input("condition", [1, height * factor, width * factor, config.condition_channels]);
        let embedding = controlnet::embedding(layers, &config, condition).unwrap();
        let first = config.unet.block_out_channels[0];
        let embedding = layers.graph.reshape(embedding, [height, width, first]).unwrap();
        let sample = layers.graph.input("sample", [batch, height, width, config.unet.in_channels]);
        let time = layers.graph.input("time", [batch, first]);
        let text = [layers.graph.input("text", [batch, 77, config.unet.cross_attention_dim])];
        let inputs = ControlNetInputs {
            sample,
            time,
            addition: None,
            prompt: Encodings::Text(&text),
            embedding,
        };
        let output = controlnet::controlnet(layers, &config, &inputs).unwrap();
        output.skips.into_iter().chain([output.middle]).collect()
    })
}

/// The keys and values of every cross-attention.
pub fn keys_values(name: &str, config: &Value, batch: usize) -> Built {
    let config = UNetConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name}, keys and values"), |layers| {
        let text = layers.graph.input("text", [batch, 77, config.cross_attention_dim]);
        let pairs = unet::keys_values(layers, &config, &[text]).unwrap();
        pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()
    })
}

/// An autoencoder's decoder, to `height` x `width` pixels.
pub fn decoder(name: &str, config: &Value, height: usize, width: usize) -> Built {
    let config = VaeConfig::from_json(config, file()).unwrap();
    let factor = config.downscale();
    Built::new(format!("{name} decode {height}x{width}"), |layers| {
        let latents = layers
            .graph
            .input("latents", [1, height / factor, width / factor, config.latent_channels]);
        vec![vae::decode(layers, &config, latents).unwrap()]
    })
}

/// An autoencoder's encoder, from `height` x `width` pixels.
pub fn encoder(name: &str, config: &Value, height: usize, width: usize) -> Built {
    let config = VaeConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} encode {height}x{width}"), |layers| {
        let pixels = layers.graph.input("pixels", [1, height, width, config.in_channels]);
        let moments = vae::encode(layers, &config, pixels).unwrap();
        vec![moments.mean, moments.log_variance]
    })
}

/// A text encoder over as many tokens as it takes, with the projection of its last layer.
pub fn text(name: &str, config: &Value, batch: usize) -> Built {
    let config = ClipTextConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {batch}x{}", config.max_position_embeddings), |layers| {
        let ids = layers.graph.input_ids("ids", [batch, config.max_position_embeddings]);
        let ends = layers.graph.input_ids("ends", [batch]);
        let last = clip_text::clip_text(layers, &config, ids, 0).unwrap();
        vec![last, clip_text::project(layers, &config, last, ends).unwrap()]
    })
}

/// A vision tower with its projection.
pub fn vision_tower(name: &str, config: &Value, batch: usize) -> Built {
    let config = ClipVisionConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {batch}"), |layers| {
        let pixels = layers
            .graph
            .input("pixels", [batch, config.image_size, config.image_size, config.num_channels]);
        let tokens = clip_vision::clip_vision(layers, &config, pixels).unwrap();
        vec![tokens, clip_vision::project(layers, &config, tokens).unwrap()]
    })
}

/// A UNet with everything that is added to it: ControlNet's residuals, T2I-Adapter's features,
/// low-rank updates of all linear layers and convolutions, and text of its own for every
/// cross-attention.
pub fn controlled_unet(
    name: &str,
    config: &Value,
    batch: usize,
    height: usize,
    width: usize,
) -> Built {
    let config = UNetConfig::from_json(config, file()).unwrap();
    let plain = {
        let mut graph = Graph::new();
        let layers = &mut Layers::new(&mut graph);
        let text = [layers.graph.input("text", [batch, 77, config.cross_attention_dim])];
        let sample = layers.graph.input("sample", [batch, height, width, config.in_channels]);
        let time = layers.graph.input("time", [batch, config.block_out_channels[0]]);
        let (prompt, residuals) = (Encodings::Text(&text), Residuals::default());
        let inputs = UNetInputs {
            sample,
            time,
            prompt,
            guidance: None,
            class: None,
            addition: addition(layers, &config, batch),
            residuals,
        };
        let output = unet::unet(layers, &config, &inputs).unwrap();
        let shapes = output.skips.iter().map(|&t| graph.shape(t).clone()).collect::<Vec<_>>();
        let middle = graph.shape(output.middle).clone();
        let ranks = graph.nodes().iter().filter_map(|node| match &node.origin {
            Origin::Parameter { name } if node.shape.len() == 2 => {
                Some((name.strip_suffix(".weight")?.to_string(), 4))
            }
            _ => None,
        });
        let convolutions = graph.nodes().iter().filter_map(|node| match &node.origin {
            Origin::Parameter { name } if node.shape.len() == 4 => {
                Some((name.strip_suffix(".weight")?.to_string(), 4))
            }
            _ => None,
        });
        (shapes, middle, ranks.collect(), convolutions.collect())
    };
    let (shapes, middle, ranks, convolutions) = plain;
    let mut graph = Graph::new();
    let mut updates = LoraSet::new("concept", ranks);
    updates.strength = Strength::Fixed(0.8);
    // Convolutions too, and another rank.
    let mut all = LoraSet::new("all", convolutions);
    all.ranks.extend(
        updates
            .ranks
            .keys()
            .filter(|layer| layer.contains("attn1"))
            .map(|layer| (layer.clone(), 3)),
    );
    all.strength = Strength::Input;
    let layers = &mut Layers::with_loras(&mut graph, vec![updates, all]);
    let texts: Vec<Tensor> = (0..config.cross_attention_layers())
        .map(|i| layers.graph.input(format!("text.{i}"), [batch, 77, config.cross_attention_dim]))
        .collect();
    let sample = layers.graph.input("sample", [batch, height, width, config.in_channels]);
    let time = layers.graph.input("time", [batch, config.block_out_channels[0]]);
    let skips: Vec<Tensor> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| layers.graph.input(format!("skip.{i}"), shape.clone()))
        .collect();
    let middle = layers.graph.input("middle", middle);
    let mut at = 0;
    let mut adapter = Vec::new();
    for (i, block) in config.down.iter().enumerate() {
        at += block.layers + usize::from(block.resample);
        let taken = if block.attention { at - usize::from(block.resample) } else { at };
        adapter.push(layers.graph.input(format!("adapter.{i}"), shapes[taken].clone()));
    }
    let residuals = Residuals { skips: &skips, middle: Some(middle), adapter: &adapter };
    let inputs = UNetInputs {
        sample,
        time,
        prompt: Encodings::Text(&texts),
        guidance: None,
        class: None,
        addition: None,
        residuals,
    };
    let outputs = vec![unet::unet(layers, &config, &inputs).unwrap().sample];
    Built { name: format!("{name} {batch}x{height}x{width} controlled"), graph, outputs }
}

/// A linear layer with two low-rank updates, one of them masked: the layer, the gradients of the
/// updates, and what flows on to its input from them.
pub fn low_rank_layer(into: usize, out: usize, rank: usize) -> Built {
    let mut graph = Graph::new();
    let x = graph.input("x", [2, 9, into]);
    let mask = graph.input("mask", [9]);
    let sets = ["a", "b"].map(|name| {
        let mut set = LoraSet::new(name, [("layer".to_string(), rank)].into());
        set.strength = Strength::Input;
        set.trained = true;
        set
    });
    let [mut a, b] = sets;
    a.masks.insert(9, mask);
    let mut layers = Layers::with_loras(&mut graph, vec![a, b]);
    let y = layers.linear("layer", x, out).unwrap();
    let upstream = graph.input("upstream", [2, 9, out]);
    let wanted = ["down", "up"]
        .map(|part| graph.find_input(&format!("a.layer.lora_{part}.weight")).unwrap());
    let [down, up] = graph.gradients_of(y, upstream, &wanted).unwrap().try_into().unwrap();
    let t = graph.lora_down_transposed(upstream, wanted[1]).unwrap();
    let dx = graph.lora_up_transposed(None, t, wanted[0]).unwrap();
    Built {
        name: format!("low-rank layer {into} -> {out}, rank {rank}"),
        graph,
        outputs: vec![y, down, up, dx],
    }
}

/// The backward pass of what `built` asks for first, with respect to the inputs `wanted`.
pub fn backward(built: Built, wanted: &[&str]) -> Built {
    let Built { name, mut graph, outputs } = built;
    let named = |t: &Tensor| match &graph.node(*t).origin {
        Origin::Input { name } => wanted.contains(&name.as_str()),
        _ => false,
    };
    let inputs: Vec<Tensor> = graph.tensors().filter(named).collect();
    assert_eq!(inputs.len(), wanted.len(), "{name}: {wanted:?}");
    let shape = graph.shape(outputs[0]).clone();
    let (target, weights) = (graph.input("target", shape.clone()), graph.input("weights", shape));
    let loss = graph.weighted_squared_error(outputs[0], target, weights).unwrap();
    let mut asked = graph.gradients(loss, &inputs).unwrap();
    asked.push(loss);
    Built { name: format!("{name} backward"), graph, outputs: asked }
}

/// [`backward`] by kernels that round what they multiply, with activations in f16, where weights
/// are.
pub fn rounded_backward(mut built: Built, wanted: &[&str]) -> Built {
    built.graph.round_gradients();
    built.graph.round_activations();
    let built = backward(built, wanted);
    Built { name: format!("{} rounded", built.name), ..built }
}

/// The same with activations in f16, where weights are.
pub fn halved(mut built: Built) -> Built {
    built.graph.round_activations();
    Built { name: format!("{} in f16", built.name), ..built }
}

/// The backward pass of a text encoder, with respect to rows that continue its table.
pub fn words(name: &str, config: &Value, batch: usize) -> Built {
    let config = ClipTextConfig::from_json(config, file()).unwrap();
    let built = Built::new(format!("{name} {batch} words"), |layers| {
        let ids = layers.graph.input_ids("ids", [batch, config.max_position_embeddings]);
        let words = layers.graph.input("words", [16, config.hidden_size]);
        let embedded = clip_text::embed(layers, &config, ids, Some(words)).unwrap();
        vec![clip_text::encode(layers, &config, embedded, 0).unwrap()]
    });
    backward(built, &["words"])
}

/// One step of sampling: both halves of guidance in one batch, then the sampler's update of its
/// state.
pub fn sampling_step(name: &str, config: &Value, height: usize, width: usize) -> Built {
    let config = UNetConfig::from_json(config, file()).unwrap();
    Built::new(format!("{name} {height}x{width} step"), |layers| {
        let shape = [1, height, width, config.in_channels];
        let state = layers.graph.input("state", [SLOTS, 1, height, width, config.in_channels]);
        let noise = layers.graph.input("noise", shape);
        let matrix = layers.graph.input("matrix", [SLOTS, INPUTS]);
        let sample = layers.graph.slice(state, 0, 0, 1).unwrap();
        let sample = layers.graph.reshape(sample, shape).unwrap();
        let sample = layers.graph.concat(&[sample, sample], 0).unwrap();
        let time = layers.graph.input("time", [2, config.block_out_channels[0]]);
        let text = [layers.graph.input("text", [2, 77, config.cross_attention_dim])];
        let (prompt, residuals) = (Encodings::Text(&text), Residuals::default());
        let inputs = UNetInputs {
            sample,
            time,
            prompt,
            guidance: None,
            class: None,
            addition: addition(layers, &config, 2),
            residuals,
        };
        let output = unet::unet(layers, &config, &inputs).unwrap().sample;
        let output = layers.graph.guidance(output, 7.5).unwrap();
        let next = layers.graph.mix(state, output, noise, matrix).unwrap();
        layers.graph.assign(state, next).unwrap();
        vec![next]
    })
}
