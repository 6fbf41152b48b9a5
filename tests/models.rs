//! The models against diffusers' and transformers' outputs, by plain-Rust evaluation.

#[path = "common/hashed.rs"]
mod hashed;
#[path = "common/reference.rs"]
mod reference;

use std::path::Path;

use mixofshow::graph::{Array, Graph, Tensor};
use mixofshow::models::config::{ClipTextConfig, ClipVisionConfig, UNetConfig, VaeConfig};
use mixofshow::models::unet::{Residuals, UNetInputs};
use mixofshow::models::{clip_text, clip_vision, unet, vae};
use mixofshow::nn::{Encodings, Layers, LowRank};
use reference::{Case, evaluate, hashed_input, relative_error};

/// Of f32 against f32; what is left are the orders of summation.
const TOLERANCE: f64 = 1e-5;

type Inputs = Vec<(String, Array)>;

/// A UNet case's graph inputs, with hashed values.
struct UNetCase {
    case: Case,
    config: UNetConfig,
    shape: [usize; 4],
    tokens: usize,
}

impl UNetCase {
    fn open(name: &str) -> UNetCase {
        let case = Case::open(name);
        let config = UNetConfig::from_json(case.config(), Path::new(name)).unwrap();
        let shape = [case.input("batch"), case.input("height"), case.input("width"), config.in_channels];
        let tokens = case.input("tokens");
        UNetCase { case, config, shape, tokens }
    }

    /// Declares everything but the prompt.
    fn inputs<'a>(&self, graph: &mut Graph, values: &mut Inputs, prompt: Encodings<'a>) -> UNetInputs<'a> {
        let batch = self.shape[0];
        let mut declare = |name: &str, shape: &[usize], value: Array| {
            values.push((name.to_string(), value));
            graph.input(name, shape)
        };
        let sample = declare("sample", &self.shape, hashed_input("sample", &self.shape).1);
        let time_shape = [batch, self.config.block_out_channels[0]];
        let features = unet::time_features(&self.config, &self.case.list("timesteps"));
        let time = declare("time", &time_shape, Array::f32(time_shape, features));
        let guidance = self
            .config
            .time_cond_proj_dim
            .map(|width| declare("guidance", &[batch, width], hashed_input("guidance", &[batch, width]).1));
        let class = self.config.num_class_embeds.map(|_| {
            let ids = self.case.list("classes").iter().map(|&c| c as u32).collect();
            values.push(("class".into(), Array::u32([batch], ids)));
            graph.input_ids("class", [batch])
        });
        UNetInputs { sample, time, prompt, guidance, class, residuals: Residuals::default() }
    }

    fn text(&self, graph: &mut Graph, values: &mut Inputs, name: &str) -> Tensor {
        let shape = [self.shape[0], self.tokens, self.config.cross_attention_dim];
        declare(graph, values, name, &shape)
    }
}

/// Declares the hashed input `name`.
fn declare(graph: &mut Graph, values: &mut Inputs, name: &str, shape: &[usize]) -> Tensor {
    values.push(hashed_input(name, shape));
    graph.input(name, shape)
}

fn check_unet(name: &str) {
    let c = UNetCase::open(name);
    let (mut graph, mut values) = (Graph::new(), Inputs::new());
    let text = [c.text(&mut graph, &mut values, "text")];
    let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
    let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap();
    let case = &c.case;
    case.check_parameters(&graph);

    let first = c.config.down[0].layers + usize::from(c.config.down[0].resample);
    let asked = [output.sample, output.skips[0], output.skips[first], output.middle];
    let found = evaluate(&graph, &asked, values, &*case.weights());
    case.check_probe("conv_in", &found[1], TOLERANCE);
    case.check_probe("down_0", &found[2], TOLERANCE);
    if case.has("probe.mid") {
        case.check_probe("mid", &found[3], TOLERANCE);
    }
    case.check("sample", &found[0], TOLERANCE);
}

#[test]
fn unet_of_the_first_generation() {
    check_unet("unet_sd1");
}

#[test]
fn unet_of_the_second_generation() {
    check_unet("unet_sd2");
}

#[test]
fn unet_of_an_odd_size() {
    check_unet("unet_odd");
}

#[test]
fn unet_of_an_upscaler() {
    check_unet("unet_upscaler");
}

#[test]
fn unet_of_a_distilled_model() {
    check_unet("unet_distilled");
}

#[test]
fn unet_that_ships() {
    check_unet("tiny_unet");
}

/// Residuals for each skip and the middle, and features for each down block.
#[test]
fn unet_with_controls() {
    for name in ["unet_sd1", "unet_odd"] {
        let c = UNetCase::open(name);
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let text = [c.text(&mut graph, &mut values, "text")];
        let plain = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
        let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &plain).unwrap();
        let shapes: Vec<Vec<usize>> = output.skips.iter().map(|&t| graph.shape(t).to_vec()).collect();
        let middle_shape = graph.shape(output.middle).to_vec();

        let name_of = |i: usize| format!("down_residual.{i}");
        let skips: Vec<Tensor> =
            shapes.iter().enumerate().map(|(i, shape)| declare(&mut graph, &mut values, &name_of(i), shape)).collect();
        let middle = declare(&mut graph, &mut values, "mid_residual", &middle_shape);
        let residuals = Residuals { skips: &skips, middle: Some(middle), adapter: &[] };
        let controlled = unet::unet(&mut Layers::new(&mut graph), &c.config, &UNetInputs { residuals, ..plain }).unwrap();

        // Where each block takes its feature: with attention before the downsampling, without after it.
        let mut at = 0;
        let mut adapter = Vec::new();
        for (i, block) in c.config.down.iter().enumerate() {
            at += block.layers;
            let before = at;
            at += usize::from(block.resample);
            let shape = &shapes[if block.attention { before } else { at }];
            adapter.push(declare(&mut graph, &mut values, &format!("adapter.{i}"), shape));
        }
        let residuals = Residuals { adapter: &adapter, ..Residuals::default() };
        let adapted = unet::unet(&mut Layers::new(&mut graph), &c.config, &UNetInputs { residuals, ..plain }).unwrap();

        let found = evaluate(&graph, &[controlled.sample, adapted.sample], values, &*c.case.weights());
        c.case.check("sample.controlnet", &found[0], TOLERANCE);
        c.case.check("sample.adapter", &found[1], TOLERANCE);
    }
}

/// Every cross-attention reads its own encoding; keys and values made beforehand give the same.
#[test]
fn unet_with_layer_wise_text() {
    for name in ["unet_sd1", "unet_odd"] {
        let c = UNetCase::open(name);
        let attentions = unet::cross_attentions(&c.config);
        assert_eq!(attentions.len() as u64, c.case.json["cross_attentions"].as_u64().unwrap());
        assert_eq!(attentions.len(), c.config.cross_attention_layers());
        let weights = c.case.weights();

        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> = (0..attentions.len()).map(|i| c.text(&mut graph, &mut values, &format!("text.{i}"))).collect();
        let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&texts));
        let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap();
        let found = evaluate(&graph, &[output.sample], values, &*weights);
        c.case.check("sample.layerwise", &found[0], TOLERANCE);

        // One graph for the prompt, one for the picture.
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> = (0..attentions.len()).map(|i| c.text(&mut graph, &mut values, &format!("text.{i}"))).collect();
        let pairs = unet::keys_values(&mut Layers::new(&mut graph), &c.config, &texts).unwrap();
        let flat: Vec<Tensor> = pairs.iter().flat_map(|&(k, v)| [k, v]).collect();
        let arrays = evaluate(&graph, &flat, values, &*weights);

        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let mut pairs = Vec::new();
        for (attention, kv) in attentions.iter().zip(arrays.chunks_exact(2)) {
            let mut declare = |part: &str, array: &Array| {
                let name = format!("{}.{part}", attention.name);
                values.push((name.clone(), array.clone()));
                graph.input(name, &array.shape[..])
            };
            pairs.push((declare("k", &kv[0]), declare("v", &kv[1])));
        }
        let inputs = c.inputs(&mut graph, &mut values, Encodings::KeysValues(&pairs));
        let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap();
        let found = evaluate(&graph, &[output.sample], values, &*weights);
        c.case.check("sample.layerwise", &found[0], TOLERANCE);
    }
}

#[test]
fn unet_refuses_a_prompt_of_the_wrong_number_of_layers() {
    let c = UNetCase::open("unet_odd");
    let count = unet::cross_attentions(&c.config).len();
    for (given, place) in [(count - 1, "attn2"), (count + 1, "cross-attentions")] {
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> = (0..given).map(|i| c.text(&mut graph, &mut values, &format!("text.{i}"))).collect();
        let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&texts));
        let error = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(&given.to_string()), "{error}");
    }
}

#[test]
fn errors_name_the_layer() {
    let c = UNetCase::open("unet_sd1");
    let (mut graph, mut values) = (Graph::new(), Inputs::new());
    let text = [graph.input("text", [3, 7, 40])];
    let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
    let error = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap_err().to_string();
    assert!(error.contains("down_blocks.0.attentions.0.transformer_blocks.0.attn2"), "{error}");
    assert_eq!(graph.path(), "");
}

/// An update beside the weight is the same as an update in the weight.
#[test]
fn low_rank_updates() {
    let layer = "mid_block.attentions.0.proj_in";
    let (out, into, rank, scale) = (5, 3, 2, 0.7);
    let mut graph = Graph::new();
    let x = graph.input("x", [4, into]);
    let set = |name: &str, layer: &str| LowRank { name: name.into(), scale, ranks: [(layer.to_string(), rank)].into() };
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
    let found = evaluate(&graph, &[y], [(name, input)], &weights);
    let error = relative_error(found[0].values(), &expected);
    assert!(error < 1e-6, "{error:.2e}");
}

fn check_text(name: &str) {
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
            asked.push(("projected".into(), clip_text::project(&mut layers, &config, last, ends).unwrap()));
        }
        for skip in [1, 2] {
            if case.has(&format!("{length}.skip.{skip}")) {
                asked.push((format!("skip.{skip}"), clip_text::clip_text(&mut layers, &config, ids, skip).unwrap()));
            }
        }
        case.check_parameters(&graph);
        let inputs = [
            ("ids".to_string(), Array::u32([batch, tokens], flat.clone())),
            ("ends".to_string(), Array::u32([batch], clip_text::end_rows(&config, &flat, tokens))),
        ];
        let tensors: Vec<Tensor> = asked.iter().map(|(_, t)| *t).collect();
        let found = evaluate(&graph, &tensors, inputs, &*weights);
        for ((output, _), array) in asked.iter().zip(&found) {
            case.check(&format!("{length}.{output}"), array, TOLERANCE);
        }
    }
}

#[test]
fn text_towers() {
    for name in ["text_quick_gelu", "text_gelu", "tiny_text"] {
        check_text(name);
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

#[test]
fn vision_towers() {
    for name in ["vision_quick_gelu", "vision_gelu"] {
        let case = Case::open(name);
        let config = ClipVisionConfig::from_json(case.config(), Path::new(name)).unwrap();
        let shape = [case.input("batch"), config.image_size, config.image_size, config.num_channels];
        let mut graph = Graph::new();
        let pixels = graph.input("pixels", shape);
        let mut layers = Layers::new(&mut graph);
        let tokens = clip_vision::clip_vision(&mut layers, &config, pixels).unwrap();
        let projected = clip_vision::project(&mut layers, &config, tokens).unwrap();
        case.check_parameters(&graph);
        let found = evaluate(&graph, &[tokens, projected], [hashed_input("pixels", &shape)], &*case.weights());
        case.check("last", &found[0], TOLERANCE);
        case.check("projected", &found[1], TOLERANCE);
    }
}

fn check_vae(name: &str) {
    let case = Case::open(name);
    let config = VaeConfig::from_json(case.config(), Path::new(name)).unwrap();
    let (batch, height, width, factor) = (case.input("batch"), case.input("height"), case.input("width"), config.downscale());
    let pixel_shape = [batch, height, width, config.in_channels];
    let latent_shape = [batch, height / factor, width / factor, config.latent_channels];
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", pixel_shape);
    let latents = graph.input("latents", latent_shape);
    let mut layers = Layers::new(&mut graph);
    let moments = vae::encode(&mut layers, &config, pixels).unwrap();
    let decoded = vae::decode(&mut layers, &config, latents).unwrap();
    case.check_parameters(&graph);

    let inputs = [hashed_input("pixels", &pixel_shape), hashed_input("latents", &latent_shape)];
    let asked = [moments.mean, moments.log_variance, decoded];
    let mut found = evaluate(&graph, &asked, inputs, &*case.weights());
    case.check("mean", &found[0], TOLERANCE);
    // The reference limits it.
    let limited = found[1].values().iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    found[1] = Array::f32(found[1].shape.clone(), limited);
    case.check("logvar", &found[1], TOLERANCE);
    case.check("pixels", &found[2], TOLERANCE);
}

#[test]
fn autoencoders() {
    for name in ["vae_sd1", "vae_odd", "vae_plain_middle", "tiny_vae"] {
        check_vae(name);
    }
}

/// The fixtures of the model that ships belong to the weights that ship.
#[test]
fn fixtures_of_the_model_that_ships_are_fresh() {
    use sha2::{Digest, Sha256};
    for name in ["tiny_unet", "tiny_text", "tiny_vae"] {
        let case = Case::open(name);
        let config = case.config();
        let path = reference::root().join(config["folder"].as_str().unwrap()).join(config["weights"].as_str().unwrap());
        let digest: String = Sha256::digest(std::fs::read(&path).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        let hint = "run `python tools/reference/models.py tiny`";
        assert_eq!(digest, config["sha256"].as_str().unwrap(), "{} has changed since {name} was written: {hint}", path.display());
    }
}

/// The published models, whose sizes everybody knows, from nothing but their configurations.
#[test]
fn full_models_have_the_published_number_of_parameters() {
    use mixofshow::graph::Origin;
    use serde_json::json;
    fn count(build: impl FnOnce(&mut Graph)) -> usize {
        let mut graph = Graph::new();
        build(&mut graph);
        let parameter = |node: &mixofshow::graph::Node| match &node.origin {
            Origin::Parameter { name } => Some((name.clone(), node.shape.elements())),
            _ => None,
        };
        graph.nodes().iter().filter_map(parameter).collect::<std::collections::HashMap<_, _>>().values().sum()
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
