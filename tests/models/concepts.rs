//! Concepts and LoRAs against what diffusers computes with the same files, on a random model.

use std::path::PathBuf;
use std::sync::Arc;

use mixofshow::checkpoint::{Checkpoint, TensorFile};
use mixofshow::concept::{Applied, AppliedSet, Concept, Network, dialects};
use mixofshow::graph::{Array, Graph, ParameterSource, Tensor};
use mixofshow::models::config::{ClipTextConfig, UNetConfig};
use mixofshow::models::nn::{Encodings, Layers, LoraSet, Strength};
use mixofshow::models::unet::{self, Residuals, UNetInputs};
use mixofshow::models::{clip_text, unet::cross_attentions};
use mixofshow::pipeline::ComponentSource;
use mixofshow::pipeline::Overlay;

use super::engine::Engine;
use super::reference::root;

const TOLERANCE: f32 = 1e-4;

fn folder() -> PathBuf {
    root().join("tests/fixtures/concepts")
}

fn model() -> Checkpoint {
    Checkpoint::open(&root().join("tests/fixtures/checkpoint/folder")).unwrap()
}

fn read(name: &str) -> Concept {
    dialects::read(&folder().join(name)).unwrap_or_else(|e| panic!("{e}")).0
}

fn expected() -> TensorFile {
    TensorFile::open(&folder().join("expected.safetensors")).unwrap()
}

fn array(file: &TensorFile, name: &str) -> Array {
    let view = file.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
    let values = view.to_f32(0..view.len());
    match name.ends_with("ids") {
        true => Array::u32(view.shape(), values.iter().map(|v| *v as u32).collect()),
        false => Array::f32(view.shape(), values),
    }
}

/// Layers with the updates of `set`, if there is one.
fn layers<'g>(graph: &'g mut Graph, set: Option<&AppliedSet>) -> Layers<'g> {
    let sets = set.map(|applied| {
        let ranks = applied
            .set()
            .layers
            .iter()
            .map(|(layer, update)| (layer.clone(), update.lora().unwrap().rank()))
            .collect();
        let mut set = LoraSet::new(applied.name.clone(), ranks);
        set.strength = Strength::Fixed(applied.strength);
        set
    });
    Layers::with_loras(graph, sets.into_iter().collect())
}

fn source(
    component: &mixofshow::checkpoint::Component,
    set: Option<&AppliedSet>,
) -> Arc<dyn ParameterSource + Send> {
    let source = Overlay::new(Arc::new(ComponentSource(component.clone())));
    source.put_beside(&set.cloned().into_iter().collect::<Vec<_>>());
    Arc::new(source)
}

/// Encodings of `ids`, whose words' rows continue the table.
fn encode(engine: Engine, concept: Option<&Applied>, ids: &Array, rows: Option<Array>) -> Array {
    let model = model();
    let config =
        ClipTextConfig::from_json(&model.text_encoder.config, &model.text_encoder.config_path)
            .unwrap();
    let mut graph = Graph::new();
    let input = graph.input_ids("ids", ids.shape.clone());
    let words = rows.as_ref().map(|rows| graph.input("words", rows.shape.clone()));
    let mut layers = layers(&mut graph, concept.and_then(|c| c.of(Network::TextEncoder)));
    let embedded = clip_text::embed(&mut layers, &config, input, words).unwrap();
    let output = clip_text::encode(&mut layers, &config, embedded, 0).unwrap();
    let inputs = [("ids".to_string(), ids.clone())]
        .into_iter()
        .chain(rows.map(|rows| ("words".to_string(), rows)));
    let source = source(&model.text_encoder, concept.and_then(|c| c.of(Network::TextEncoder)));
    engine.evaluate(&graph, &[output], inputs, &source).remove(0)
}

/// The UNet's prediction from one encoding, or from one for each cross-attention.
fn predict(engine: Engine, concept: Option<&Applied>, encodings: &[Array]) -> Array {
    let (model, given) = (model(), expected());
    let config = UNetConfig::from_json(&model.unet.config, &model.unet.config_path).unwrap();
    let (sample, time) = (array(&given, "sample"), array(&given, "time"));
    let features = unet::time_features(&config, time.values());
    let features = Array::f32([1, features.len()], features);
    let mut graph = Graph::new();
    let texts: Vec<Tensor> = encodings
        .iter()
        .enumerate()
        .map(|(i, e)| graph.input(format!("text.{i}"), e.shape.clone()))
        .collect();
    let inputs = UNetInputs {
        sample: graph.input("sample", sample.shape.clone()),
        time: graph.input("time", features.shape.clone()),
        prompt: Encodings::Text(&texts),
        guidance: None,
        class: None,
        addition: None,
        residuals: Residuals::default(),
    };
    let output = unet::unet(
        &mut layers(&mut graph, concept.and_then(|c| c.of(Network::UNet))),
        &config,
        &inputs,
    )
    .unwrap()
    .sample;
    let texts = encodings.iter().enumerate().map(|(i, e)| (format!("text.{i}"), e.clone()));
    let inputs =
        [("sample".to_string(), sample), ("time".to_string(), features)].into_iter().chain(texts);
    engine
        .evaluate(
            &graph,
            &[output],
            inputs,
            &source(&model.unet, concept.and_then(|c| c.of(Network::UNet))),
        )
        .remove(0)
}

#[track_caller]
fn same(what: &str, found: &Array, expected: &Array) {
    assert_eq!(found.shape, expected.shape, "{what}");
    let error = found
        .values()
        .iter()
        .zip(expected.values())
        .fold(0f32, |most, (f, e)| most.max((f - e).abs()));
    assert!(error <= TOLERANCE, "{what} differs by {error:.1e}");
}

fn check(name: &str, concept: Option<Concept>) {
    let expected = expected();
    let applied = concept.map(|concept| Applied::new(concept, 1.0).unwrap());
    let encoding = encode(Engine::Plain, applied.as_ref(), &array(&expected, "ids"), None);
    same(
        &format!("text encoder with {name}"),
        &encoding,
        &array(&expected, &format!("{name}.text")),
    );
    let output = predict(Engine::Plain, applied.as_ref(), &[encoding]);
    same(&format!("UNet with {name}"), &output, &array(&expected, &format!("{name}.unet")));
}

#[test]
fn loras_do_what_they_do_in_diffusers() {
    check("plain", None);
    for name in ["kohya", "peft"] {
        let concept = read(&format!("{name}.safetensors"));
        check(name, Some(concept.clone()));
        // Through every dialect that we write, and back.
        let folder = tempfile::tempdir().unwrap();
        for dialect in dialects::Dialect::WRITTEN {
            let path = folder.path().join(format!("{dialect}.safetensors"));
            dialects::write(&concept, dialect, false, &path).unwrap();
            let (again, _, found) = dialects::read_file(&path).unwrap();
            assert_eq!(found, dialect);
            check(name, Some(again));
        }
    }
    let expected = expected();
    for (name, part) in [("kohya", "text"), ("kohya", "unet"), ("peft", "text"), ("peft", "unet")] {
        let [with, without] =
            [name, "plain"].map(|name| array(&expected, &format!("{name}.{part}")));
        let change = with
            .values()
            .iter()
            .zip(without.values())
            .fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(change > 100.0 * TOLERANCE, "{name} hardly changes the {part}: {change}");
    }
}

/// Words bound per layer, with both LoRAs, as the method's own code computes them.
#[test]
fn concepts_do_what_the_method_says() {
    let expected = expected();
    let config = model();
    let layers =
        cross_attentions(&UNetConfig::from_json(&config.unet.config, &config.path).unwrap()).len();
    for name in ["mix-of-show.pth", "mix-of-show.legacy.pth"] {
        let concept = read(name);
        assert_eq!(concept.words.iter().map(|word| word.layers()).collect::<Vec<_>>(), [layers; 2]);
        let rows: Vec<f32> = concept
            .words
            .iter()
            .flat_map(|word| word.rows(Network::TextEncoder).values())
            .copied()
            .collect();
        let rows = Array::f32([2 * layers, 8], rows);
        let applied = Applied::new(concept, 1.0).unwrap();
        for engine in [Engine::Plain, Engine::F32] {
            let encodings =
                encode(engine, Some(&applied), &array(&expected, "bound.ids"), Some(rows.clone()));
            same("encodings bound per layer", &encodings, &array(&expected, "bound.text"));
            let each = encodings.values().chunks_exact(encodings.values().len() / layers);
            let each: Vec<Array> =
                each.map(|e| Array::f32([1, encodings.shape[1], 8], e.to_vec())).collect();
            same(
                "UNet bound per layer",
                &predict(engine, Some(&applied), &each),
                &array(&expected, "bound.unet"),
            );
        }
    }
}

#[test]
fn textual_inversions_of_both_kinds_are_words() {
    let web = read("inversion.pt");
    let texts: Vec<&str> = web.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, ["inversion", "inversion_1", "inversion_2"]);
    let rows: Vec<f32> = web
        .words
        .iter()
        .flat_map(|word| word.rows(Network::TextEncoder).values())
        .copied()
        .collect();
    assert_eq!(rows, array(&expected(), "inversion").values());
    let own = read("inversion.bin");
    assert_eq!(
        (
            own.words.len(),
            own.words[0].text.as_str(),
            own.words[0].rows(Network::TextEncoder).shape.channels()
        ),
        (1, "<ink>", 8)
    );
}

#[test]
fn pickles_that_are_more_than_tensors_are_refused_by_name() {
    let error = |name: &str| dialects::read(&folder().join(name)).unwrap_err().to_string();
    let evil = error("evil.pth");
    assert!(
        evil.contains("evil.pth")
            && (evil.contains("`posix.system`") || evil.contains("`nt.system`")),
        "{evil}"
    );
    assert!(
        error("module.pth").contains("torch.nn.modules.linear.Linear"),
        "{}",
        error("module.pth")
    );
}
