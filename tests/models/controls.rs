//! Whole passes of a UNet with regions, with a ControlNet and with T2I-Adapters, against diffusers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use mixofshow::graph::ops::{RegionInputs, RegionTables};
use mixofshow::graph::{Array, Graph, ParameterSource, Tensor};
use mixofshow::models::config::{ControlNetConfig, T2IAdapterConfig, UNetConfig};
use mixofshow::models::controlnet::{self, ControlNetInputs};
use mixofshow::models::nn::{Encodings, Layers, RegionSize};
use mixofshow::models::t2i_adapter;
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use mixofshow::region::{Area, Layout, Placed, Region};

use super::engine::Engine;
use super::hashed::HashedWeights;
use super::reference::{Case, hashed_input};

type Inputs = Vec<(String, Array)>;

struct Steered {
    case: Case,
    config: UNetConfig,
    size: [usize; 2],
}

impl Steered {
    fn open() -> Steered {
        let case = Case::open("controls");
        let config = UNetConfig::from_json(case.config(), Path::new("controls")).unwrap();
        let size = [case.input("height"), case.input("width")];
        Steered { case, config, size }
    }

    fn weights(&self, key: &str) -> Arc<dyn ParameterSource + Send> {
        let dims = |v: &serde_json::Value| {
            v.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
        };
        let list = self.case.json[key].as_object().unwrap();
        Arc::new(HashedWeights(
            list.iter().map(|(name, shape)| (name.clone(), dims(shape))).collect(),
        ))
    }

    fn latent(&self) -> [usize; 4] {
        [2, self.size[0], self.size[1], self.config.in_channels]
    }

    fn time(&self, graph: &mut Graph, values: &mut Inputs) -> Tensor {
        let shape = [2, self.config.block_out_channels[0]];
        let features = unet::time_features(&self.config, &self.case.list("timesteps"));
        values.push(("time".into(), Array::f32(shape, features)));
        graph.input("time", shape)
    }

    fn text(&self, graph: &mut Graph, values: &mut Inputs, name: &str) -> Tensor {
        declare(
            graph,
            values,
            name,
            &[2, self.case.input("tokens"), self.config.cross_attention_dim],
        )
    }

    /// A whole pass.
    fn sample(
        &self,
        engine: Engine,
        build: impl FnOnce(&Self, &mut Graph, &mut Inputs) -> Built,
    ) -> Array {
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let built = build(self, &mut graph, &mut values);
        let prompt = match built.sizes.is_empty() {
            true => Encodings::KeysValues(&built.pairs),
            false => Encodings::Regional { pairs: &built.pairs, sizes: &built.sizes },
        };
        let residuals =
            Residuals { skips: &built.skips, middle: built.middle, adapter: &built.adapter };
        let sample = declare(&mut graph, &mut values, "sample", &self.latent());
        let time = self.time(&mut graph, &mut values);
        let inputs = UNetInputs {
            sample,
            time,
            prompt,
            guidance: None,
            class: None,
            addition: None,
            residuals,
        };
        let output = unet::unet(&mut Layers::new(&mut graph), &self.config, &inputs).unwrap();
        engine.evaluate(&graph, &[output.sample], values, &self.case.weights()).remove(0)
    }

    /// Keys and values of these texts, one after another.
    fn pairs(
        &self,
        graph: &mut Graph,
        values: &mut Inputs,
        names: &[String],
    ) -> Vec<(Tensor, Tensor)> {
        let texts: Vec<Tensor> = names.iter().map(|name| self.text(graph, values, name)).collect();
        let all = graph.concat(&texts, 1).unwrap();
        unet::keys_values(&mut Layers::new(graph), &self.config, &[all]).unwrap()
    }

    /// Plain, but for what is given as inputs.
    fn plain(&self, graph: &mut Graph, values: &mut Inputs) -> Built {
        Built { pairs: self.pairs(graph, values, &["text".into()]), ..Built::default() }
    }

    fn check(&self, name: &str, found: &Array, tolerance: f64) {
        self.case.check(name, found, tolerance);
        let (plain, steered) = (&self.case.expected("sample").1, &self.case.expected(name).1);
        let far = plain.iter().zip(steered).filter(|(a, b)| (**a - **b).abs() > 1e-2).count();
        assert!(
            name == "sample" || far * 4 > plain.len(),
            "{name} hardly differs from the plain pass"
        );
    }
}

#[derive(Default)]
struct Built {
    pairs: Vec<(Tensor, Tensor)>,
    sizes: Vec<RegionSize>,
    skips: Vec<Tensor>,
    middle: Option<Tensor>,
    adapter: Vec<Tensor>,
}

fn declare(graph: &mut Graph, values: &mut Inputs, name: &str, shape: &[usize]) -> Tensor {
    values.push(hashed_input(name, shape));
    graph.input(name, shape)
}

/// Declares an input of a known value.
fn given(graph: &mut Graph, values: &mut Inputs, name: String, array: Array) -> Tensor {
    let tensor = match array.ids().is_empty() {
        true => graph.input(name.clone(), &array.shape[..]),
        false => graph.input_ids(name.clone(), &array.shape[..]),
    };
    values.push((name, array));
    tensor
}

/// Declares regions as a pass reads them.
fn regions(
    s: &Steered,
    layout: &Layout,
    graph: &mut Graph,
    values: &mut Inputs,
) -> Vec<RegionSize> {
    let sizes = unet::feature_sizes(&s.config, s.size[0], s.size[1]);
    let placed = Placed::new(layout, 8 * s.size[1], 8 * s.size[0], &sizes).unwrap();
    assert_eq!(placed.warnings, [""; 0]);
    let active = vec![true; layout.regions.len()];
    let lengths = vec![s.case.input("tokens"); 1 + layout.regions.len()];
    let table = |(i, [height, width]): (usize, &[usize; 2])| {
        let tables = RegionTables::new(&placed.shares(i, &active).weights, &lengths);
        let name = format!("regions.{i}");
        values.extend(tables.named(&name).map(|(name, array)| (name, array.clone())));
        let inputs = RegionInputs::declare(graph, &name, height * width, tables.reach().to_vec());
        RegionSize { tokens: height * width, inputs, mask: None }
    };
    sizes.iter().enumerate().map(table).collect()
}

pub fn check_regions(engine: Engine) {
    let s = Steered::open();
    let boxes = s.case.json["inputs"]["boxes"].as_array().unwrap().iter();
    let areas: Vec<Area> = boxes
        .map(|edges| {
            let [top, left, bottom, right] = [0, 1, 2, 3].map(|i| edges[i].as_f64().unwrap());
            Area::Box([left, top, right, bottom])
        })
        .collect();
    let layout = Layout {
        regions: areas
            .into_iter()
            .map(|area| Region { prompt: "a".into(), area, ..Region::default() })
            .collect(),
        ..Layout::default()
    };
    let found = s.sample(engine, |s, graph, values| {
        let names: Vec<String> = std::iter::once("text".to_string())
            .chain((0..3).map(|i| format!("text.{i}")))
            .collect();
        Built {
            pairs: s.pairs(graph, values, &names),
            sizes: regions(s, &layout, graph, values),
            ..Built::default()
        }
    });
    s.check("sample.regions", &found, engine.tolerance());
    let found = s.sample(engine, |s, graph, values| s.plain(graph, values));
    s.check("sample", &found, engine.tolerance());
    // One region over the whole picture: bit for bit the plain pass.
    let whole = Layout {
        regions: vec![Region { prompt: "a".into(), ..Region::default() }],
        ..Layout::default()
    };
    let whole = s.sample(engine, |s, graph, values| {
        let names = ["text.0".to_string(), "text".to_string()];
        Built {
            pairs: s.pairs(graph, values, &names),
            sizes: regions(s, &whole, graph, values),
            ..Built::default()
        }
    });
    if engine != Engine::Plain {
        assert!(whole == found, "a region that covers everything does not equal its prompt alone");
    }
}

pub fn check_control_net(engine: Engine) {
    let s = Steered::open();
    let config =
        ControlNetConfig::from_json(&s.case.json["control"], Path::new("control")).unwrap();
    assert_eq!(config.downscale(), 8);
    let weights = s.weights("control_parameters");
    let (mut graph, mut values) = (Graph::new(), Inputs::new());
    let pixels =
        declare(&mut graph, &mut values, "condition", &[1, 8 * s.size[0], 8 * s.size[1], 3]);
    let embedding = controlnet::embedding(&mut Layers::new(&mut graph), &config, pixels).unwrap();
    let embedding = graph.reshape(embedding, [s.size[0], s.size[1], 32]).unwrap();
    let sample = declare(&mut graph, &mut values, "sample", &s.latent());
    let time = s.time(&mut graph, &mut values);
    let text = [s.text(&mut graph, &mut values, "text")];
    let inputs = ControlNetInputs {
        sample,
        time,
        addition: None,
        prompt: Encodings::Text(&text),
        embedding,
    };
    let output = controlnet::controlnet(&mut Layers::new(&mut graph), &config, &inputs).unwrap();
    let weight = s.case.json["inputs"]["weight"].as_f64().unwrap() as f32;
    let all: Vec<Tensor> = output
        .skips
        .iter()
        .chain([&output.middle])
        .map(|&y| graph.scale(y, weight).unwrap())
        .collect();
    let used: HashMap<String, Vec<usize>> = s.case.json["control_parameters"]
        .as_object()
        .unwrap()
        .keys()
        .map(|k| (k.clone(), vec![]))
        .collect();
    for node in graph.nodes() {
        if let mixofshow::graph::Origin::Parameter { name } = &node.origin {
            assert!(used.contains_key(name), "diffusers' ControlNet has no {name}");
        }
    }
    let found = engine.evaluate(&graph, &all, values, &weights);
    let shapes: Vec<[usize; 3]> =
        found.iter().map(|f| [f.shape[1], f.shape[2], f.shape[3]]).collect();
    let (middle, skips) = shapes.split_last().unwrap();
    assert_eq!(unet::skips(&s.config, s.size), skips);
    assert_eq!(skips.last(), Some(middle));
    s.case.check_probe("skip", &found[4], engine.tolerance());
    s.case.check_probe("middle", found.last().unwrap(), engine.tolerance());

    let found = s.sample(engine, |s, graph, values| {
        let mut inputs: Vec<Tensor> = found
            .into_iter()
            .enumerate()
            .map(|(i, array)| given(graph, values, format!("residual.{i}"), array))
            .collect();
        let middle = inputs.pop();
        Built { skips: inputs, middle, ..s.plain(graph, values) }
    });
    s.check("sample.controlnet", &found, engine.tolerance());
}

pub fn check_adapters(engine: Engine) {
    let s = Steered::open();
    let weight = s.case.json["inputs"]["weight"].as_f64().unwrap() as f32;
    for name in ["full", "light"] {
        let mut json = s.case.json[name].clone();
        json["_class_name"] = "T2IAdapter".into();
        let config = T2IAdapterConfig::from_json(&json, Path::new(name)).unwrap();
        let (factor, channels) = (config.downscale_factor, config.in_channels);
        let [height, width] = s.size;
        let (_, pixels) = hashed_input("condition", &[1, 8 * height, 8 * width, channels]);
        let blocks = t2i_adapter::unshuffled(pixels.values(), 8 * width, channels, factor);
        let (mut graph, mut values) = (Graph::new(), Inputs::new());
        let condition = Array::f32([1, height, width, channels * factor * factor], blocks);
        let condition = given(&mut graph, &mut values, "condition".into(), condition);
        let maps =
            t2i_adapter::t2i_adapter(&mut Layers::new(&mut graph), &config, condition).unwrap();
        let found =
            engine.evaluate(&graph, &maps, values, &s.weights(&format!("{name}_parameters")));
        for (i, map) in found.iter().enumerate() {
            s.case.check_probe(&format!("{name}.{i}"), map, engine.tolerance());
        }
        let expected = unet::block_features(&s.config, s.size);
        let features: Vec<Array> = found
            .iter()
            .zip(expected)
            .map(|(map, shape)| {
                Array::f32(shape, map.values().iter().map(|v| v * weight).collect())
            })
            .collect();
        let found = s.sample(engine, |s, graph, values| {
            let given = |(i, array)| given(graph, values, format!("feature.{i}"), array);
            let adapter = features.into_iter().enumerate().map(given).collect();
            Built { adapter, ..s.plain(graph, values) }
        });
        s.check(&format!("sample.{name}"), &found, engine.tolerance());
    }
}

#[test]
fn unet_with_regions() {
    check_regions(Engine::Plain);
}

#[test]
fn unet_with_a_control_net() {
    check_control_net(Engine::Plain);
}

#[test]
fn unet_with_t2i_adapters() {
    check_adapters(Engine::Plain);
}

#[test]
fn steered_unets_on_a_device() {
    check_regions(Engine::F32);
    check_regions(Engine::ADAPTER);
    check_control_net(Engine::F32);
    check_adapters(Engine::F32);
}
