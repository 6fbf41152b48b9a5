//! Whole pictures by the model that ships, with regions, concepts in regions, and networks that
//! steer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use mixofshow::backend::wgpu::{MatrixUse, Options};
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::{self, Checkpoint};
use mixofshow::concept::{Applied, Concept, Lora, Network, Update, UpdateSet, Word};
use mixofshow::graph::{Array, Graph, Origin};
use mixofshow::models::config::{ControlNetConfig, T2IAdapterConfig, UNetConfig};
use mixofshow::models::controlnet::{self, ControlNetInputs};
use mixofshow::models::nn::{Encodings, Layers};
use mixofshow::models::t2i_adapter;
use mixofshow::picture::{Picture, psnr};
use mixofshow::pipeline::text::prompt::{PromptOptions, Syntax};
use mixofshow::pipeline::{Control, Generated, Pipeline, Request};
use mixofshow::region::{Area, Layout, Region};
use mixofshow::unwatched;
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "common/hashed.rs"]
mod hashed;

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "common/chosen.rs"]
mod chosen;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap()
}

fn pipeline() -> MutexGuard<'static, Pipeline> {
    static PIPELINE: OnceLock<Mutex<Pipeline>> = OnceLock::new();
    let open = || {
        let device = chosen::device(Options::default());
        Mutex::new(
            Pipeline::load(&device, &checkpoint(), Precision::AsStored)
                .unwrap_or_else(|e| panic!("{e}")),
        )
    };
    PIPELINE.get_or_init(open).lock().unwrap_or_else(|e| e.into_inner())
}

fn generate(request: &Request) -> Generated {
    pipeline().generate(request, &mut unwatched).unwrap_or_else(|e| panic!("{e}"))
}

fn latents(request: &Request) -> Vec<f32> {
    generate(request).latents.values().to_vec()
}

fn refusal(request: &Request) -> String {
    pipeline().prepare(request).map(|_| ()).unwrap_err().to_string()
}

fn small() -> Request {
    Request {
        prompt: "a red cat".into(),
        width: Some(64),
        height: Some(64),
        steps: 3,
        seed: 5,
        ..Request::default()
    }
}

fn boxed(edges: [f64; 4], prompt: &str) -> Region {
    Region { prompt: prompt.into(), area: Area::Box(edges), ..Region::default() }
}

fn layout(regions: &[Region]) -> Layout {
    Layout { regions: regions.to_vec(), ..Layout::default() }
}

#[test]
fn a_region_over_the_whole_picture_is_its_prompt() {
    let whole = [0.0, 0.0, 1.0, 1.0];
    let plain = latents(&Request {
        prompt: "a blue dog".into(),
        negative_prompt: "snow".into(),
        ..small()
    });
    let region = Region { negative: Some("snow".into()), ..boxed(whole, "a blue dog") };
    assert!(latents(&Request { regions: layout(&[region]), ..small() }) == plain);
    // Beside others that hold nowhere, and by the attention of several prompts.
    let under = Region { order: -1, ..boxed(whole, "a chair") };
    let found = generate(&Request {
        regions: layout(&[under, boxed(whole, "a blue dog")]),
        negative_prompt: "snow".into(),
        ..small()
    });
    assert!(found.latents.values() == plain);
    assert!(
        found.warnings.iter().any(|w| w.contains("region `1` holds nowhere")),
        "{:?}",
        found.warnings
    );
    let mut split = Vec::new();
    for edges in [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]] {
        split.push(boxed(edges, "a blue dog"));
    }
    let found =
        latents(&Request { regions: layout(&split), negative_prompt: "snow".into(), ..small() });
    assert!(found == plain, "two halves with the same prompt are that prompt");
}

#[test]
fn regions_change_the_picture_and_their_order_does_not() {
    let (left, right) = (
        boxed([0.0, 0.0, 0.5, 1.0], "a blue dog"),
        boxed([0.5, 0.0, 1.0, 1.0], "a green chair | snow"),
    );
    let found = latents(&Request { regions: layout(&[left.clone(), right.clone()]), ..small() });
    assert!(
        found == latents(&Request { regions: layout(&[right.clone(), left.clone()]), ..small() })
    );
    assert!(found != latents(&small()));
    let isolated = Layout { isolate: true, ..layout(&[left.clone(), right.clone()]) };
    assert!(found != latents(&Request { regions: isolated, ..small() }));
    // Held back for a while, they matter less; never, not at all.
    let late = |start| [left.clone(), right.clone()].map(|region| Region { start, ..region });
    let some = latents(&Request { regions: layout(&late(0.5)), ..small() });
    assert!(some != found && some != latents(&small()));
    assert!(latents(&Request { regions: layout(&late(0.9)), ..small() }) == latents(&small()));
    // Without guidance, and two pictures at once.
    let two = Request {
        guidance: 1.0,
        batch: 2,
        regions: layout(std::slice::from_ref(&left)),
        ..small()
    };
    let each = generate(&two).latents.values().len() / 2;
    let second = latents(&Request { batch: 1, seed: 6, ..two.clone() });
    assert!(generate(&two).latents.values()[each..] == second);
}

/// A concept with words and an update of one layer of the UNet and one of the text encoder.
fn concept(name: &str, word: Option<&str>) -> Concept {
    let checkpoint = checkpoint();
    let update = |component: &checkpoint::Component, layer: &str| {
        let shape = component.shape(&format!("{layer}.weight")).unwrap();
        let part = |part: &str, shape: [usize; 2]| {
            let values = hashed::tensor(&format!("{name}.{layer}.{part}.weight"), &shape);
            Array::f32(shape, values.iter().map(|v| v * 2.0).collect())
        };
        let update =
            Update::Lora(Lora { down: part("down", [4, shape[1]]), up: part("up", [shape[0], 4]) });
        UpdateSet::new([(layer.to_string(), update)])
    };
    let text = &checkpoint.text_encoder;
    let unet = &checkpoint.unet;
    let layer = |ending: &str| {
        unet.names()
            .find_map(|n| n.ends_with(ending).then(|| n.trim_end_matches(".weight").to_string()))
            .unwrap()
    };
    let width = text.shape("text_model.embeddings.token_embedding.weight").unwrap()[1];
    let rows = Array::f32([1, width], hashed::tensor(&format!("{name}.row.weight"), &[1, width]));
    let mut sets = update(unet, &layer("attn1.to_q.weight"));
    sets.layers.extend(update(unet, &layer("attn2.to_v.weight")).layers);
    sets.layers.extend(update(unet, &layer("attn2.to_out.0.weight")).layers);
    Concept {
        name: name.into(),
        words: word.map(|text| Word::new(text, rows)).into_iter().collect(),
        updates: [
            (Network::TextEncoder, update(text, "text_model.encoder.layers.0.self_attn.q_proj")),
            (Network::UNet, sets),
        ]
        .into(),
        base: None,
        metadata: BTreeMap::new(),
    }
}

#[test]
fn concepts_act_in_the_regions_that_have_their_words() {
    let applied = || {
        vec![
            Applied::new(concept("zorp", Some("<zorp>")), 1.0).unwrap(),
            Applied::new(concept("quib", Some("<quib>")), 0.8).unwrap(),
        ]
    };
    let whole = |prompt: &str| Request { prompt: prompt.into(), ..small() };
    let plain = latents(&whole("a cat"));
    // Without regions a concept acts, whether its words stand there or not.
    let joined = Request { concepts: applied(), ..whole("a <zorp> cat") };
    let alone = Request { concepts: applied()[..1].to_vec(), ..whole("a <zorp> cat") };
    assert!(latents(&joined) != latents(&alone));
    let (left, right) =
        (boxed([0.0, 0.0, 0.5, 1.0], "a <zorp> cat"), boxed([0.5, 0.0, 1.0, 1.0], "a <quib> dog"));
    let both = Request {
        concepts: applied(),
        regions: layout(&[left.clone(), right.clone()]),
        ..whole("a cat")
    };
    let found = latents(&both);
    assert!(found != plain);
    assert!(
        found
            == latents(&Request {
                regions: layout(&[right.clone(), left.clone()]),
                ..both.clone()
            })
    );
    // A concept without its updates is another picture, and so is one that acts on the wrong side.
    let named = |region: &Region, scales: &[(&str, f32)]| Region {
        concepts: scales.iter().map(|(name, scale)| (name.to_string(), *scale)).collect(),
        ..region.clone()
    };
    let explicit = layout(&[named(&left, &[("zorp", 1.0)]), named(&right, &[("quib", 1.0)])]);
    assert!(
        found == latents(&Request { regions: explicit, ..both.clone() }),
        "named is as by words"
    );
    let swapped = layout(&[named(&left, &[("quib", 1.0)]), named(&right, &[("zorp", 1.0)])]);
    assert!(found != latents(&Request { regions: swapped, ..both.clone() }));
    // The same factor everywhere is that strength: exactly so without masks, up to rounding with
    // them.
    let weaker = [
        named(&left, &[("zorp", 0.5)]),
        named(&boxed([0.5, 0.0, 1.0, 1.0], "a <zorp> cat"), &[("zorp", 0.5)]),
    ];
    let halved = Request {
        concepts: vec![Applied::new(concept("zorp", Some("<zorp>")), 0.5).unwrap()],
        ..whole("a <zorp> cat")
    };
    assert!(
        latents(&Request {
            concepts: alone.concepts.clone(),
            regions: layout(&weaker),
            ..whole("a cat")
        }) == latents(&halved)
    );
    let error = refusal(&Request { regions: layout(&[named(&left, &[("wug", 1.0)])]), ..both });
    assert!(
        error.contains("region `1`")
            && error.contains("concept `wug`")
            && error.contains("zorp, quib"),
        "{error}"
    );
}

/// Updates of high rank are added to the weights. Zeros make a high rank of a low one without
/// changing what it does.
#[test]
fn updates_of_high_rank_are_added_to_the_weights_and_taken_out_again() {
    let low = concept("zorp", None);
    let mut high = low.clone();
    for update in high.updates.of_mut(Network::UNet).layers.values_mut() {
        let lora = update.lora().unwrap();
        let [out, into] = [lora.up.shape[0], lora.down.shape[1]];
        let down =
            lora.down.values().iter().copied().chain(std::iter::repeat_n(0.0, 36 * into)).collect();
        let up = lora
            .up
            .values()
            .chunks(4)
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, 36)))
            .collect();
        *update = Update::Lora(Lora {
            down: Array::f32([40, into], down),
            up: Array::f32([out, 40], up),
        });
    }
    let with = |concept: &Concept, scale: f32| {
        latents(&Request {
            concepts: vec![Applied::new(concept.clone(), scale).unwrap()],
            ..small()
        })
    };
    let difference = |a: &[f32], b: &[f32]| {
        let squared =
            |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        squared(&mut a.iter().zip(b).map(|(a, b)| a - b)) / squared(&mut b.iter().copied())
    };
    let plain = latents(&small());
    for scale in [1.0, 0.5] {
        let [beside, added] = [&low, &high].map(|concept| with(concept, scale));
        let [moved, apart] = [difference(&beside, &plain), difference(&added, &beside)];
        // The sums are rounded as the model's weights are, to f16.
        assert!(
            moved > 0.05 && apart < 0.02 * moved,
            "at {scale}: {apart} apart, the updates move by {moved}"
        );
        assert!(added == with(&high, scale), "the same bytes again");
    }
    assert!(plain == latents(&small()), "nothing is left of it");
}

/// A region that names a concept and never holds leaves nothing of it.
#[test]
fn a_concept_of_a_region_is_nothing_outside_of_it() {
    let nowhere = Region {
        end: 0.2,
        concepts: BTreeMap::from([("zorp".to_string(), 1.0)]),
        ..boxed([0.0, 0.0, 0.5, 1.0], "a cat")
    };
    let concepts = vec![Applied::new(concept("zorp", None), 1.0).unwrap()];
    let found = latents(&Request {
        prompt: "a cat".into(),
        regions: layout(&[nowhere]),
        concepts,
        ..small()
    });
    assert!(found == latents(&Request { prompt: "a cat".into(), ..small() }));
}

/// Writes made-up weights for all parameters of `graph`, and `config.json` beside them.
fn write_network(folder: &Path, graph: &Graph, config: &Value) {
    let mut tensors = BTreeMap::new();
    for node in graph.nodes() {
        if let Origin::Parameter { name } = &node.origin {
            // A linear layer of these networks is a 1x1 convolution in files.
            let mut shape = node.shape.to_vec();
            let is_linear = name.contains(".to_")
                || name.contains(".net.")
                || name.contains("time_emb")
                || name.contains(".proj_");
            if shape.len() == 2 && !is_linear {
                shape.extend([1, 1]);
            }
            tensors.insert(name.clone(), (shape.clone(), hashed::tensor(name, &node.shape)));
        }
    }
    std::fs::create_dir_all(folder).unwrap();
    let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.as_str(), (shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        })
        .collect();
    let views: Vec<_> = bytes
        .iter()
        .map(|(name, (shape, bytes))| {
            (
                name.to_string(),
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                    .unwrap(),
            )
        })
        .collect();
    std::fs::write(
        folder.join("diffusion_pytorch_model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// A T2I-Adapter for the model that ships, of this many times its channels.
fn adapter(folder: &Path, times: usize) -> PathBuf {
    let unet = UNetConfig::from_json(&checkpoint().unet.config, Path::new("unet")).unwrap();
    let channels: Vec<usize> = unet.block_out_channels.iter().map(|c| c * times).collect();
    let config = json!({"_class_name": "T2IAdapter", "in_channels": 1, "channels": channels,
    "num_res_blocks": 1, "downscale_factor": pipeline().factor()});
    let typed = T2IAdapterConfig::from_json(&config, Path::new("adapter")).unwrap();
    let mut graph = Graph::new();
    let condition =
        graph.input("condition", [1, 8, 8, typed.downscale_factor * typed.downscale_factor]);
    t2i_adapter::t2i_adapter(&mut Layers::new(&mut graph), &typed, condition).unwrap();
    let folder = folder.join(format!("adapter{times}"));
    write_network(&folder, &graph, &config);
    folder
}

/// A ControlNet for the model that ships.
fn control_net(folder: &Path) -> PathBuf {
    let mut config = checkpoint().unet.config;
    config["_class_name"] = "ControlNetModel".into();
    config.as_object_mut().unwrap().remove("up_block_types");
    config["conditioning_embedding_out_channels"] =
        vec![4; 1 + pipeline().factor().ilog2() as usize].into();
    let typed = ControlNetConfig::from_json(&config, Path::new("control")).unwrap();
    let mut graph = Graph::new();
    let condition = graph.input("condition", [1, 8 * typed.downscale(), 8 * typed.downscale(), 3]);
    let embedding = controlnet::embedding(&mut Layers::new(&mut graph), &typed, condition).unwrap();
    let first = typed.unet.block_out_channels[0];
    let embedding = graph.reshape(embedding, [8, 8, first]).unwrap();
    let sample = graph.input("sample", [1, 8, 8, typed.unet.in_channels]);
    let time = graph.input("time", [1, first]);
    let text = [graph.input("text", [1, 7, typed.unet.cross_attention_dim])];
    let inputs = ControlNetInputs {
        sample,
        time,
        addition: None,
        prompt: Encodings::Text(&text),
        embedding,
    };
    controlnet::controlnet(&mut Layers::new(&mut graph), &typed, &inputs).unwrap();
    let folder = folder.join("control");
    write_network(&folder, &graph, &config);
    folder
}

fn control(path: &Path, picture: &Picture) -> Control {
    let network = checkpoint::Control::open(path).unwrap_or_else(|e| panic!("{e}"));
    Control {
        name: "edges".into(),
        network,
        picture: picture.clone(),
        weight: 1.0,
        start: 0.0,
        end: 1.0,
    }
}

/// A white frame.
fn frame() -> Picture {
    let at = |i: usize| {
        if [12, 51].contains(&(i % 64)) || [12, 51].contains(&(i / 64)) { [255; 3] } else { [0; 3] }
    };
    Picture::new(64, 64, (0..64 * 64).flat_map(at).collect()).unwrap()
}

#[test]
fn networks_steer_where_and_when_they_are_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let plain = latents(&small());
    for path in [adapter(folder.path(), 1), control_net(folder.path())] {
        let what = path.display();
        let one = control(&path, &frame());
        let with = |controls: Vec<Control>| latents(&Request { controls, ..small() });
        let steered = with(vec![one.clone()]);
        assert!(steered != plain, "{what}");
        assert!(with(vec![Control { weight: 0.0, ..one.clone() }]) == plain, "{what}");
        // Two of half the weight are one; the order does not matter.
        let half = || Control { weight: 0.5, ..one.clone() };
        let twice = with(vec![half(), half()]);
        let far = twice.iter().zip(&steered).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-2, "{what}: {far}");
        // No step of three lies within the last tenth; one lies within the first half.
        assert!(with(vec![Control { start: 0.9, ..one.clone() }]) == plain, "{what}");
        let early = with(vec![Control { end: 0.5, ..one.clone() }]);
        assert!(early != plain && early != steered, "{what}");
        // A region without it everywhere, and in one half.
        let without = |edges| Region {
            controls: BTreeMap::from([("edges".to_string(), 0.0)]),
            ..boxed(edges, "a red cat")
        };
        let masked = |edges| {
            latents(&Request {
                controls: vec![one.clone()],
                regions: layout(&[without(edges)]),
                ..small()
            })
        };
        assert!(masked([0.0, 0.0, 1.0, 1.0]) == plain, "{what}");
        let some = masked([0.0, 0.0, 0.5, 1.0]);
        assert!(some != plain && some != steered, "{what}");
        // As published, the last region that names a control decides.
        let two = |published: bool, weights: [f32; 2]| {
            let named = |weight| Region {
                controls: BTreeMap::from([("edges".to_string(), weight)]),
                ..boxed([0.0, 0.0, 1.0, 1.0], "a red cat")
            };
            let regions = Layout { published, ..layout(&weights.map(named)) };
            latents(&Request { controls: vec![one.clone()], regions, ..small() })
        };
        assert!(
            two(true, [0.0, 1.0]) == two(true, [1.0, 1.0])
                && two(true, [1.0, 0.0]) == two(true, [0.0, 0.0]),
            "{what}"
        );
        assert!(two(false, [0.0, 1.0]) != two(false, [1.0, 1.0]), "{what}");
        let unknown = Region {
            controls: BTreeMap::from([("pose".to_string(), 1.0)]),
            ..boxed([0.0, 0.0, 1.0, 1.0], "a")
        };
        let error = refusal(&Request {
            controls: vec![one.clone()],
            regions: layout(&[unknown]),
            ..small()
        });
        assert!(error.contains("control `pose`") && error.contains("edges"), "{error}");
        for (control, word) in [
            (Control { weight: f32::NAN, ..one.clone() }, "weight"),
            (Control { start: 0.5, end: 0.5, ..one.clone() }, "start and end"),
            (Control { end: 1.5, ..one.clone() }, "start and end"),
        ] {
            let error = refusal(&Request { controls: vec![control], ..small() });
            assert!(error.contains(word), "{error}");
        }
        let planned = |controls: Vec<Control>| {
            pipeline().prepare(&Request { controls, ..small() }).unwrap().memory()
        };
        assert!(planned(vec![one.clone()]).weights > planned(vec![]).weights, "{what}");
    }
    let wide = control(&adapter(folder.path(), 2), &frame());
    let error = refusal(&Request { controls: vec![wide], ..small() });
    assert!(error.contains("adapter2") && error.contains("channels"), "{error}");
    let stretched = Control {
        picture: frame().resized(64, 32).unwrap(),
        ..control(&adapter(folder.path(), 1), &frame())
    };
    let found = generate(&Request { controls: vec![stretched], ..small() });
    assert!(found.warnings.iter().any(|w| w.contains("stretched")), "{:?}", found.warnings);
}

/// Prompts that change from step to step, by what must be the same picture to the bit.
#[test]
fn edited_prompts_are_what_they_say_in_every_step() {
    let with = |prompt: &str| latents(&Request { prompt: prompt.into(), steps: 2, ..small() });
    let (red, blue) = (with("a red cat"), with("a blue cat"));
    let half = with("a [red:blue:0.5] cat");
    assert!(half != red && half != blue);
    assert!(
        with("a [red:blue:0] cat") == blue
            && with("a [red:blue:2] cat") == red
            && with("a [red:blue:1e3] cat") == red
    );
    assert!(with("a [red|red] cat") == red && with("a [red:red:1] cat") == red);
    // Two steps: turns are the same as one change.
    assert!(
        with("a [red|blue] cat") == half
            && with("a [red:blue:1] cat") == half
            && with("a [red::1][blue:1] cat") == half
    );
    // Negative prompts, on their own.
    let both = |prompt: &str, negative: &str| {
        latents(&Request {
            prompt: prompt.into(),
            negative_prompt: negative.into(),
            steps: 2,
            ..small()
        })
    };
    assert!(both("a red cat", "[snow:night:0]") == both("a red cat", "night"));
    assert!(both("a red cat", "[snow:night:1]") != both("a red cat", "night"));
    assert!(both("a [red:blue:1] cat", "[snow|snow]") == both("a [red|blue] cat", "snow"));
    // Heun calls the model twice a step.
    let heun = |prompt: &str| {
        let sampler = Some("heun".parse().unwrap());
        latents(&Request { prompt: prompt.into(), sampler, ..small() })
    };
    assert!(heun("a [red|blue] cat") == heun("a [[red:blue:1]:red:2] cat"));
    assert!(
        heun("a [red:blue:3] cat") == heun("a red cat")
            && heun("a [red:blue:2] cat") != heun("a red cat")
    );
    // A batch that starts anew after the last prompt, without guidance, and syntax that is off.
    let two = Request {
        prompt: "a [red:blue:1] cat".into(),
        steps: 2,
        batch: 2,
        guidance: 1.0,
        ..small()
    };
    let each = generate(&two).latents.values().len() / 2;
    assert!(
        generate(&two).latents.values()[each..] == latents(&Request { batch: 1, seed: 6, ..two })
    );
    let off = |prompt: &str, syntax| {
        let prompt_options = PromptOptions { syntax, ..PromptOptions::default() };
        latents(&Request { prompt: prompt.into(), prompt_options, steps: 2, ..small() })
    };
    assert!(
        off("a [red:blue:0] cat", Syntax::On) == blue
            && off("a [red:blue:0] cat", Syntax::Off) != blue
    );
    let warned = generate(&Request { prompt: "a red cat AND a dog".into(), steps: 1, ..small() });
    assert!(warned.warnings.iter().any(|w| w.contains("AND")), "{:?}", warned.warnings);
}

#[test]
fn edited_prompts_of_regions_with_concepts_and_controls() {
    let left = |prompt: &str| boxed([0.0, 0.0, 0.5, 1.0], prompt);
    let with = |prompt: &str, region: &str| {
        latents(&Request {
            prompt: prompt.into(),
            regions: layout(&[left(region)]),
            steps: 2,
            ..small()
        })
    };
    assert!(with("snow", "a [red:blue:0] cat") == with("snow", "a blue cat"));
    let half = with("snow", "a [red|blue] cat");
    assert!(half == with("snow", "a [red:blue:1] cat") && half != with("snow", "a blue cat"));
    assert!(
        with("[snow|night]", "a [red:blue:1] cat") == with("[snow:night:1]", "a [red|blue] cat")
    );
    // A word with an encoding for each cross-attention beside plain ones.
    let layers = mixofshow::models::unet::cross_attentions(
        &UNetConfig::from_json(&checkpoint().unet.config, Path::new("u")).unwrap(),
    );
    let mut zorp = concept("zorp", Some("<zorp>"));
    let width = zorp.words[0].rows(Network::TextEncoder).shape[1];
    let shape = [layers.len(), width];
    let rows = Array::f32(shape, hashed::tensor("zorp.rows.weight", &shape));
    zorp.words[0] = Word::new("<zorp>", rows);
    let applied = vec![Applied::new(zorp, 0.0).unwrap()];
    let said = |prompt: &str| {
        latents(&Request { prompt: prompt.into(), concepts: applied.clone(), steps: 2, ..small() })
    };
    assert!(
        said("a [<zorp>:cat:0]") == said("a cat") && said("a [<zorp>:cat:2]") == said("a <zorp>")
    );
    let turns = said("a [<zorp>|cat]");
    assert!(
        turns == said("a [<zorp>:cat:1]") && turns != said("a cat") && turns != said("a <zorp>")
    );
    assert!(said("a [cat|<zorp>]") == said("a [cat:<zorp>:1]"));
    // A ControlNet reads them too.
    let folder = tempfile::tempdir().unwrap();
    let net = control(&control_net(folder.path()), &frame());
    let steered = |prompt: &str| {
        latents(&Request {
            prompt: prompt.into(),
            controls: vec![net.clone()],
            steps: 2,
            ..small()
        })
    };
    assert!(steered("a [red:blue:0] cat") == steered("a blue cat"));
    assert!(steered("a [red|blue] cat") == steered("a [red:blue:1] cat"));
    assert!(steered("a [red|blue] cat") != steered("a red cat"));
}

/// A ControlNet that says how it differs from the model is the one that says it all.
#[test]
fn a_control_net_of_differences_is_added_to_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = control_net(folder.path());
    let base = checkpoint().unet;
    let original = checkpoint::Control::open(&path).unwrap().component;
    let values = |component: &checkpoint::Component, name: &str| {
        let tensor = component.tensor(name).unwrap();
        tensor.to_f32(0..tensor.len())
    };
    let write = |name: &str, difference: bool| {
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for tensor in original.names() {
            let shape = original.shape(tensor).unwrap().to_vec();
            let own = values(&original, tensor);
            let shared = base.contains(tensor).then(|| values(&base, tensor));
            // Sixty-fourths, so that sums are exact.
            let own = own.iter().map(|v| (v * 8.0).round() / 64.0);
            let values: Vec<f32> = match (&shared, difference) {
                (Some(shared), false) => {
                    own.zip(shared).map(|(own, shared)| own + shared).collect()
                }
                _ => own.collect(),
            };
            tensors.push((
                tensor.to_string(),
                shape,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ));
        }
        if difference {
            tensors.push(("difference".into(), vec![0], Vec::new()));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (
                name.clone(),
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                    .unwrap(),
            )
        });
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
        std::fs::write(place.join("diffusion_pytorch_model.safetensors"), bytes).unwrap();
        std::fs::copy(path.join("config.json"), place.join("config.json")).unwrap();
        let control = control(&place, &frame());
        assert_eq!(control.network.difference, difference);
        latents(&Request { controls: vec![control], ..small() })
    };
    let (whole, difference) = (write("whole", false), write("difference", true));
    assert!(whole == difference && whole != latents(&small()));
}

/// Weights in blocks mean the same to every back end, with low-rank updates beside them.
#[test]
fn blocks_make_the_same_picture_on_an_adapter_and_on_the_processor() {
    if chosen::processor().is_some() {
        return;
    }
    let card = chosen::adapter(Options { matrices: MatrixUse::Off, ..Options::default() });
    let concepts = vec![Applied::new(concept("zorp", Some("<zorp>")), 1.0).unwrap()];
    let request = Request { prompt: "a <zorp> cat".into(), concepts, steps: 2, ..small() };
    let mut planned = Vec::new();
    // The smaller ones first: the most that a device has held is remembered.
    for precision in [Precision::Q4, Precision::Q8, Precision::F16] {
        let devices: [Device; 2] = [card.clone().into(), chosen::processor_of(None).into()];
        let [on_card, here] = devices.map(|device| {
            let mut pipeline = Pipeline::load(&device, &checkpoint(), precision).unwrap();
            let generated = pipeline.generate(&request, &mut unwatched);
            let generated = generated.unwrap_or_else(|e| panic!("{e}"));
            assert!(generated.peak_device_bytes <= generated.planned.peak, "{precision}");
            generated
        });
        let most = here.latents.values().iter().fold(0f32, |most, v| most.max(v.abs()));
        let pairs = on_card.latents.values().iter().zip(here.latents.values());
        let worst = pairs.map(|(a, b)| (a - b).abs() / most).fold(0f32, f32::max);
        let decibels = psnr(&on_card.pictures[0], &here.pictures[0]).unwrap();
        println!("{precision}: {worst:.1e}, {decibels:.1} dB");
        assert!(worst < 1e-4 && decibels > 50.0, "{precision}: {worst:.1e}, {decibels:.1} dB");
        planned.push([on_card, here].map(|made| made.planned.unet));
    }
    for device in [0, 1] {
        let [q4, q8, f16] = [0, 1, 2].map(|precision| planned[precision][device]);
        assert!(q4 < q8 && q8 < f16, "{planned:?}");
    }
}
