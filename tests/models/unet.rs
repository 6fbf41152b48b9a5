//! The UNet: generations, odd members of the family, controls, layer-wise text, refusals.

use std::path::Path;

use mixofshow::graph::{Array, Graph, Tensor};
use mixofshow::models::config::{Addition, UNetConfig};
use mixofshow::models::nn::{Encodings, Layers};
use mixofshow::models::unet::{self, Residuals, SizeNumbers, UNetInputs};

use super::engine::Engine;
use super::reference::{Case, hashed_input};

type Inputs = Vec<(String, Array)>;

/// A UNet case's graph inputs, with hashed values.
pub struct UNetCase {
    pub case: Case,
    pub config: UNetConfig,
    shape: [usize; 4],
    tokens: usize,
}

impl UNetCase {
    pub fn open(name: &str) -> UNetCase {
        let case = Case::open(name);
        let config = UNetConfig::from_json(case.config(), Path::new(name)).unwrap();
        let shape =
            [case.input("batch"), case.input("height"), case.input("width"), config.in_channels];
        let tokens = case.input("tokens");
        UNetCase { case, config, shape, tokens }
    }

    /// Declares everything but the prompt.
    pub fn inputs<'a>(
        &self,
        graph: &mut Graph,
        values: &mut Inputs,
        prompt: Encodings<'a>,
    ) -> UNetInputs<'a> {
        let batch = self.shape[0];
        let mut declare = |name: &str, shape: &[usize], value: Array| {
            values.push((name.to_string(), value));
            graph.input(name, shape)
        };
        let sample = declare("sample", &self.shape, hashed_input("sample", &self.shape).1);
        let time_shape = [batch, self.config.block_out_channels[0]];
        let features = unet::time_features(&self.config, &self.case.list("timesteps"));
        let time = declare("time", &time_shape, Array::f32(time_shape, features));
        let guidance = self.config.time_cond_proj_dim.map(|width| {
            declare("guidance", &[batch, width], hashed_input("guidance", &[batch, width]).1)
        });
        let addition = self.config.addition.map(|addition| {
            let value = self.addition(&addition);
            declare("addition", &[batch, addition.width()], value)
        });
        let class = self.config.num_class_embeds.map(|_| {
            let ids = self.case.list("classes").iter().map(|&c| c as u32).collect();
            values.push(("class".into(), Array::u32([batch], ids)));
            graph.input_ids("class", [batch])
        });
        let residuals = Residuals::default();
        UNetInputs { sample, time, prompt, guidance, class, addition, residuals }
    }

    /// Pooled prompts and sizes, of the case that has them.
    fn addition(&self, addition: &Addition) -> Array {
        let shape = [self.shape[0], addition.text];
        let (_, pooled) = hashed_input("pooled", &shape);
        let numbers: Vec<SizeNumbers> =
            serde_json::from_value(self.case.json["inputs"]["numbers"].clone()).unwrap();
        let rows = pooled.values().chunks_exact(addition.text).zip(&numbers);
        let values = rows.flat_map(|(pooled, numbers)| {
            unet::addition_features(&self.config, addition, pooled, numbers)
        });
        Array::f32([shape[0], addition.width()], values.collect())
    }

    pub fn text(&self, graph: &mut Graph, values: &mut Inputs, name: &str) -> Tensor {
        let shape = [self.shape[0], self.tokens, self.config.cross_attention_dim];
        declare(graph, values, name, &shape)
    }
}

/// Declares the hashed input `name`.
fn declare(graph: &mut Graph, values: &mut Inputs, name: &str, shape: &[usize]) -> Tensor {
    values.push(hashed_input(name, shape));
    graph.input(name, shape)
}

pub const UNETS: [&str; 7] = [
    "unet_sd1",
    "unet_sd2",
    "unet_sdxl",
    "unet_odd",
    "unet_upscaler",
    "unet_distilled",
    "tiny_unet",
];

pub fn check_unet(name: &str, engine: Engine) {
    let c = UNetCase::open(name);
    let (mut graph, mut values) = (Graph::new(), Inputs::new());
    let text = [c.text(&mut graph, &mut values, "text")];
    let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
    let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap();
    let case = &c.case;
    case.check_parameters(&graph);

    let first = c.config.down[0].layers + usize::from(c.config.down[0].resample);
    let asked = [output.sample, output.skips[0], output.skips[first], output.middle];
    let found = engine.evaluate(&graph, &asked, values, &case.weights());
    case.check_probe("conv_in", &found[1], engine.tolerance());
    case.check_probe("down_0", &found[2], engine.tolerance());
    if case.has("probe.mid") {
        case.check_probe("mid", &found[3], engine.tolerance());
    }
    case.check("sample", &found[0], engine.tolerance());
}

/// On the deep features of the whole pass, the outermost layers alone give what all of it gives.
#[test]
fn shallow_passes_go_on_from_deep_features() {
    for name in ["unet_sd1", "unet_sd2", "unet_odd", "unet_distilled"] {
        let c = UNetCase::open(name);
        let evaluate = |deep: Option<&Array>| {
            let (mut graph, mut values) = (Graph::new(), Inputs::new());
            let text = [c.text(&mut graph, &mut values, "text")];
            let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
            let outputs = match deep {
                None => {
                    let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs);
                    let output = output.unwrap();
                    vec![output.sample, output.deep]
                }
                Some(deep) => {
                    values.push(("deep".into(), deep.clone()));
                    let deep = graph.input("deep", deep.shape.clone());
                    let layers = &mut Layers::new(&mut graph);
                    vec![unet::shallow(layers, &c.config, &inputs, deep).unwrap()]
                }
            };
            Engine::Plain.evaluate(&graph, &outputs, values, &c.case.weights())
        };
        let whole = evaluate(None);
        assert_eq!(whole[1].shape.channels(), unet::deep_channels(&c.config));
        assert_eq!(evaluate(Some(&whole[1]))[0], whole[0], "{name}");
    }
}

#[test]
fn unet_of_the_first_generation() {
    check_unet("unet_sd1", Engine::Plain);
}

#[test]
fn unet_of_the_second_generation() {
    check_unet("unet_sd2", Engine::Plain);
}

#[test]
fn unet_of_xl() {
    check_unet("unet_sdxl", Engine::Plain);
}

#[test]
fn unet_of_an_odd_size() {
    check_unet("unet_odd", Engine::Plain);
}

#[test]
fn unet_of_an_upscaler() {
    check_unet("unet_upscaler", Engine::Plain);
}

#[test]
fn unet_of_a_distilled_model() {
    check_unet("unet_distilled", Engine::Plain);
}

#[test]
fn unet_that_ships() {
    check_unet("tiny_unet", Engine::Plain);
}

#[test]
fn unet_with_controls() {
    check_controls(Engine::Plain);
}

/// Residuals for each skip and the middle, and features for each down block.
pub fn check_controls(engine: Engine) {
    for name in ["unet_sd1", "unet_odd"] {
        let c = UNetCase::open(name);
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let text = [c.text(&mut graph, &mut values, "text")];
        let plain = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
        let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &plain).unwrap();
        let shapes: Vec<Vec<usize>> =
            output.skips.iter().map(|&t| graph.shape(t).to_vec()).collect();
        let middle_shape = graph.shape(output.middle).to_vec();

        let name_of = |i: usize| format!("down_residual.{i}");
        let skips: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| declare(&mut graph, &mut values, &name_of(i), shape))
            .collect();
        let middle = declare(&mut graph, &mut values, "mid_residual", &middle_shape);
        let residuals = Residuals { skips: &skips, middle: Some(middle), adapter: &[] };
        let controlled =
            unet::unet(&mut Layers::new(&mut graph), &c.config, &UNetInputs { residuals, ..plain })
                .unwrap();

        // Where each block takes its feature: with attention before the downsampling, without after
        // it.
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
        let adapted =
            unet::unet(&mut Layers::new(&mut graph), &c.config, &UNetInputs { residuals, ..plain })
                .unwrap();

        let found = engine.evaluate(
            &graph,
            &[controlled.sample, adapted.sample],
            values,
            &c.case.weights(),
        );
        c.case.check("sample.controlnet", &found[0], engine.tolerance());
        c.case.check("sample.adapter", &found[1], engine.tolerance());
    }
}

#[test]
fn unet_with_layer_wise_text() {
    check_layer_wise(Engine::Plain);
}

/// Every cross-attention reads its own encoding; keys and values made beforehand give the same.
pub fn check_layer_wise(engine: Engine) {
    for name in ["unet_sd1", "unet_odd"] {
        let c = UNetCase::open(name);
        let attentions = unet::cross_attentions(&c.config);
        assert_eq!(attentions.len() as u64, c.case.json["cross_attentions"].as_u64().unwrap());
        assert_eq!(attentions.len(), c.config.cross_attention_layers());
        let weights = c.case.weights();

        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> = (0..attentions.len())
            .map(|i| c.text(&mut graph, &mut values, &format!("text.{i}")))
            .collect();
        let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&texts));
        let output = unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap();
        let found = engine.evaluate(&graph, &[output.sample], values, &weights);
        c.case.check("sample.layerwise", &found[0], engine.tolerance());

        // One graph for the prompt, one for the picture.
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> = (0..attentions.len())
            .map(|i| c.text(&mut graph, &mut values, &format!("text.{i}")))
            .collect();
        let pairs = unet::keys_values(&mut Layers::new(&mut graph), &c.config, &texts).unwrap();
        let flat: Vec<Tensor> = pairs.iter().flat_map(|&(k, v)| [k, v]).collect();
        let arrays = engine.evaluate(&graph, &flat, values, &weights);

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
        let found = engine.evaluate(&graph, &[output.sample], values, &weights);
        c.case.check("sample.layerwise", &found[0], engine.tolerance());
    }
}

#[test]
fn unet_refuses_a_prompt_of_the_wrong_number_of_layers() {
    let c = UNetCase::open("unet_odd");
    let count = unet::cross_attentions(&c.config).len();
    for (given, place) in [(count - 1, "attn2"), (count + 1, "cross-attentions")] {
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let texts: Vec<Tensor> =
            (0..given).map(|i| c.text(&mut graph, &mut values, &format!("text.{i}"))).collect();
        let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&texts));
        let error =
            unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(&given.to_string()), "{error}");
    }
}

/// Inputs that the model has no use for, and missing ones, are refused when the graph is built.
#[test]
fn unet_refuses_inputs_that_do_not_fit() {
    fn error(
        c: &UNetCase,
        change: impl for<'a> FnOnce(&'a [Tensor], &mut UNetInputs<'a>, &mut UNetConfig),
    ) -> String {
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let text = [c.text(&mut graph, &mut values, "text")];
        let mut inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
        let mut config = c.config.clone();
        change(&text, &mut inputs, &mut config);
        unet::unet(&mut Layers::new(&mut graph), &config, &inputs).unwrap_err().to_string()
    }
    let c = UNetCase::open("unet_odd");
    let found = error(&c, |some, inputs, _| inputs.residuals.skips = some);
    assert!(found.contains("4 skip connections, 1 residuals"), "{found}");
    let found = error(&c, |some, inputs, _| inputs.residuals.adapter = some);
    assert!(found.contains("2 down blocks, 1 features"), "{found}");
    let found = error(&c, |some, inputs, _| inputs.guidance = Some(some[0]));
    assert!(found.contains("time_cond_proj_dim"), "{found}");
    let found = error(&c, |some, inputs, _| inputs.addition = Some(some[0]));
    assert!(found.contains("addition_embed_type"), "{found}");
    let found = error(&c, |_, _, config| config.num_class_embeds = Some(3));
    assert!(found.contains("num_class_embeds"), "{found}");
    let found = error(&c, |_, _, config| config.center_input_sample = true);
    assert!(found.contains("center_input_sample"), "{found}");
    let found = error(&c, |_, _, config| config.up[1].layers += 1);
    assert!(found.contains("up_blocks.1") && found.contains("more layers"), "{found}");
}

#[test]
fn errors_name_the_layer() {
    let c = UNetCase::open("unet_sd1");
    let (mut graph, mut values) = (Graph::new(), Inputs::new());
    let text = [graph.input("text", [3, 7, 40])];
    let inputs = c.inputs(&mut graph, &mut values, Encodings::Text(&text));
    let error =
        unet::unet(&mut Layers::new(&mut graph), &c.config, &inputs).unwrap_err().to_string();
    assert!(error.contains("down_blocks.0.attentions.0.transformer_blocks.0.attn2"), "{error}");
    assert_eq!(graph.path(), "");
}
