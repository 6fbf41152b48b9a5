//! Graphs of ComfyUI: what is followed, and what is told.
use std::collections::BTreeMap;

use serde_json::json;

use super::super::{GRAPH, WORKFLOW, of_texts};
use super::*;

fn of(graph: &Value, editor: Value) -> Result<Told, String> {
    let texts = [(GRAPH, graph.to_string()), (WORKFLOW, editor.to_string())];
    of_texts(&texts.map(|(keyword, text)| (keyword.to_string(), text)).into()).unwrap()
}

fn settings(told: Told) -> BTreeMap<String, String> {
    told.parameters.settings.into_iter().collect()
}

fn graph() -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 42, "steps": 20, "cfg": 7.5, "sampler_name": "euler_ancestral",
            "scheduler": "karras", "denoise": 1.0,
            "model": ["4", 0], "positive": ["9", 0], "negative": ["7", 0], "latent_image": ["5",
            0]}},
        "4": {"class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "v1-5.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 512,
        "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.2) cat",
        "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
        "8": {"class_type": "PrimitiveString", "inputs": {"value": "blurry"}},
        "9": {"class_type": "ConditioningSetArea", "inputs": {"conditioning": ["6", 0],
        "width": 64}},
    })
}

#[test]
fn comfyuis_graph_is_followed() {
    let told = of(&graph(), json!({})).unwrap();
    let texts = (told.parameters.prompt.as_str(), told.parameters.negative_prompt.as_str());
    assert_eq!(texts, ("a (red:1.2) cat", "blurry"));
    let expected = [
        ("Steps", "20"),
        ("CFG scale", "7.5"),
        ("Seed", "42"),
        ("Sampler", "Euler a"),
        ("Schedule type", "Karras"),
        ("Size", "640x512"),
        ("Model", "v1-5.safetensors"),
        ("RNG", "CPU"),
    ];
    let expected = expected.map(|(name, value)| (name.to_string(), value.to_string()));
    assert_eq!(settings(told), expected.into());
    // Python's own numbers, as ComfyUI writes them.
    let text = graph().to_string().replace("\"denoise\":1.0", "\"denoise\":1.0,\"changed\":[NaN]");
    let texts = BTreeMap::from([(GRAPH.to_string(), text)]);
    assert_eq!(of_texts(&texts).unwrap().unwrap().parameters.prompt, "a (red:1.2) cat");

    let two = changed(|graph| graph["10"] = graph["3"].clone()).unwrap_err();
    assert!(two.contains("ComfyUI") && two.contains("2 KSampler"), "{two}");
    let none = changed(|graph| graph["6"] = json!({"class_type": "Other"})).unwrap_err();
    assert!(none.contains("no text") && none.contains("positive"), "{none}");
    let circle =
        changed(|graph| graph["9"]["inputs"]["conditioning"] = json!(["9", 0])).unwrap_err();
    assert!(circle.contains("no text"), "{circle}");
    let area = changed(|_| ()).unwrap();
    assert!(area.notes[1].contains("the area of a prompt"), "{:?}", area.notes);
}

fn changed(change: impl Fn(&mut Value)) -> Result<Told, String> {
    let mut graph = graph();
    change(&mut graph);
    of(&graph, json!({}))
}

fn node(class: &str, inputs: Value) -> Value {
    json!({"class_type": class, "inputs": inputs})
}

#[test]
fn linked_numbers_and_texts_are_followed() {
    let nodes = [
        node("Seed (rgthree)", json!({"seed": 77})),
        node("PrimitiveInt", json!({"value": 77})),
        node("easy seed", json!({"seed": ["21", 0], "seed_num": 1})),
        node("CR Seed", json!({"seed": "x", "noise": 77})),
        node("Reroute", json!({"": ["21", 0]})),
    ];
    for seed in nodes {
        let told = changed(|graph| {
            graph["20"] = seed.clone();
            graph["21"] = node("Int Literal", json!({"int": 77}));
            graph["3"]["inputs"]["seed"] = json!(["20", 0]);
            graph["3"]["inputs"]["steps"] = json!(["22", 0]);
            graph["22"] = node("Steps", json!({"number": 9, "label": "x"}));
        });
        let told = told.unwrap();
        assert_eq!(told.notes.len(), 2, "{:?}", told.notes);
        let found = settings(told);
        assert_eq!((found["Seed"].as_str(), found["Steps"].as_str()), ("77", "9"), "{seed}");
    }
    // What the editor keeps for itself.
    let mut with_primitive = graph();
    with_primitive["3"]["inputs"]["seed"] = json!(["11", 0]);
    let editor = json!({"nodes": [
        {"id": 11, "type": "PrimitiveNode", "widgets_values": [123, "randomize"]}
    ]});
    assert_eq!(settings(of(&with_primitive, editor).unwrap())["Seed"], "123");
    // What cannot be followed is told.
    for lost in [json!(["11", 0]), json!(["20", 0])] {
        let told = changed(|graph| {
            graph["20"] = node("Math", json!({"a": 1, "b": 2}));
            graph["3"]["inputs"]["seed"] = lost.clone();
        });
        let told = told.unwrap();
        assert!(
            told.notes.iter().any(|note| note.contains("`seed` comes out")),
            "{:?}",
            told.notes
        );
        assert!(told.notes.iter().any(|note| note.contains("0 stands in")), "{:?}", told.notes);
        assert!(!settings(told).contains_key("Seed"));
    }
    let joined = changed(|graph| {
        graph["6"]["inputs"]["text"] = json!(["30", 0]);
        graph["30"] = node(
            "Text Concatenate",
            json!({"delimiter": ", ", "clean_whitespace": "true", "text_b": "snow",
                "text_c": ["31", 0], "text_a": ["32", 0]}),
        );
        graph["31"] = node("ShowText|pysssss", json!({"text": ["32", 0], "text_0": "a cat"}));
        graph["32"] = node("String Literal", json!({"string": "a cat"}));
    });
    assert_eq!(joined.unwrap().parameters.prompt, "a cat, snow, a cat");
    let text = changed(|graph| {
        graph["6"]["inputs"]["text"] = json!(["30", 0]);
        graph["30"] = node("Oracle", json!({"question": "what", "mood": "good"}));
    });
    let text = text.unwrap_err();
    assert!(text.contains("`Oracle`") && text.contains("positive"), "{text}");
}

#[test]
fn conditionings_are_followed_through_what_brings_them_together() {
    let through = |nodes: Value| {
        changed(|graph| {
            graph["3"]["inputs"]["positive"] = json!(["40", 0]);
            graph["41"] = node("CLIPTextEncode", json!({"text": "snow", "clip": ["4", 1]}));
            graph["40"] = nodes.clone();
        })
        .unwrap()
    };
    let links = |a: &str, b: &str| json!({a: ["6", 0], b: ["41", 0]});
    let told = through(node("ConditioningConcat", links("conditioning_to", "conditioning_from")));
    assert_eq!(told.parameters.prompt, "a (red:1.2) cat BREAK snow");
    assert_eq!(told.notes.len(), 1, "{:?}", told.notes);
    let told = through(node("ConditioningCombine", links("conditioning_1", "conditioning_2")));
    assert_eq!(told.parameters.prompt, "a (red:1.2) cat BREAK snow");
    assert!(told.notes[1].contains("combined"), "{:?}", told.notes);
    let average = |strength: f64| {
        let mut inputs = links("conditioning_to", "conditioning_from");
        inputs["conditioning_to_strength"] = json!(strength);
        through(node("ConditioningAverage", inputs))
    };
    assert_eq!(average(1.0).parameters.prompt, "a (red:1.2) cat");
    assert_eq!(average(0.0).parameters.prompt, "snow");
    assert!(average(0.4).notes[1].contains("averaged"));
    let sides = json!({"positive": ["41", 0], "negative": ["6", 0], "strength": 1.0});
    assert_eq!(through(node("ControlNetApplyAdvanced", sides)).parameters.prompt, "snow");
    let zero = changed(|graph| {
        graph["3"]["inputs"]["negative"] = json!(["42", 0]);
        graph["42"] = node("ConditioningZeroOut", json!({"conditioning": ["6", 0]}));
    });
    assert_eq!(zero.unwrap().parameters.negative_prompt, "");
    // Doubled again and again: neither the texts nor the work grow without end.
    let doubled = |class: &str, names: [&str; 2]| {
        changed(|graph| {
            graph["3"]["inputs"]["positive"] = json!(["100", 0]);
            for number in 100..160 {
                let next = if number == 159 {
                    json!(["6", 0])
                } else {
                    json!([(number + 1).to_string(), 0])
                };
                graph[number.to_string()] = node(class, json!({names[0]: next, names[1]: next}));
            }
        })
    };
    let names = ["conditioning_1", "conditioning_2"];
    assert!(doubled("ConditioningCombine", names).is_err());
    let texts = changed(|graph| {
        graph["6"]["inputs"]["text"] = json!(["100", 0]);
        for number in 100..160 {
            let next = json!([(number + 1).to_string(), 0]);
            graph[number.to_string()] =
                node("StringConcatenate", json!({"string_a": next, "string_b": next}));
        }
        graph["160"] = node("PrimitiveString", json!({"value": "ab"}));
    });
    assert!(texts.is_err());
}

#[test]
fn steps_of_advanced_samplers_are_read() {
    let advanced = |more: Value| {
        changed(|graph| {
            let inputs = graph["3"]["inputs"].as_object_mut().unwrap();
            let seed = inputs.remove("seed").unwrap();
            inputs.remove("denoise");
            inputs.insert("noise_seed".into(), seed);
            inputs.extend(more.as_object().unwrap().clone());
            graph["3"]["class_type"] = "KSamplerAdvanced".into();
        })
        .unwrap()
    };
    let whole = advanced(json!({"add_noise": "enable", "start_at_step": 0, "end_at_step": 10000}));
    assert_eq!(whole.notes.len(), 2, "{:?}", whole.notes);
    let found = settings(whole);
    assert_eq!((found["Seed"].as_str(), found["Steps"].as_str()), ("42", "20"));
    assert!(!found.contains_key("Denoising strength"));
    let part = advanced(json!({"add_noise": "disable", "start_at_step": 5, "end_at_step": 15}));
    let says = |word: &str| part.notes.iter().any(|note| note.contains(word));
    assert!(says("added no noise") && says("step 15 of 20"), "{:?}", part.notes);
    let found = settings(part);
    assert_eq!((found["Denoising strength"].as_str(), found["Steps"].as_str()), ("0.75", "20"));
    // A share of the noise: as many steps as are given run.
    let share = settings(changed(|graph| graph["3"]["inputs"]["denoise"] = json!(0.5)).unwrap());
    assert_eq!((share["Denoising strength"].as_str(), share["Steps"].as_str()), ("0.5", "40"));
}

#[test]
fn custom_samplers_have_their_settings_in_nodes() {
    let told = changed(|graph| {
        graph["3"] = node(
            "SamplerCustomAdvanced",
            json!({"noise": ["50", 0], "guider": ["51", 0], "sampler": ["52", 0],
                "sigmas": ["53", 0], "latent_image": ["5", 0]}),
        );
        graph["50"] = node("RandomNoise", json!({"noise_seed": ["54", 0]}));
        graph["51"] = node(
            "CFGGuider",
            json!({"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "cfg": 6}),
        );
        graph["52"] = node("KSamplerSelect", json!({"sampler_name": "euler"}));
        graph["53"] =
            node("BasicScheduler", json!({"scheduler": "karras", "steps": 11, "denoise": 1}));
        graph["54"] = node("PrimitiveInt", json!({"value": 8}));
    });
    let told = told.unwrap();
    assert_eq!(told.parameters.prompt, "a (red:1.2) cat");
    let found = settings(told);
    for (name, value) in [
        ("Seed", "8"),
        ("CFG scale", "6"),
        ("Sampler", "Euler"),
        ("Schedule type", "Karras"),
        ("Steps", "11"),
        ("Size", "640x512"),
        ("Model", "v1-5.safetensors"),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
}

#[test]
fn loras_are_named_with_their_strengths() {
    let told = changed(|graph| {
        graph["3"]["inputs"]["model"] = json!(["60", 0]);
        graph["6"]["inputs"]["clip"] = json!(["60", 1]);
        graph["60"] = node(
            "LoraLoader",
            json!({"lora_name": "ink.safetensors", "strength_model": 0.8, "strength_clip": 0.6,
                "model": ["61", 0], "clip": ["61", 1]}),
        );
        graph["61"] = node(
            "LoraLoaderModelOnly",
            json!({"lora_name": "sub/line.pt", "strength_model": ["65", 0], "model": ["62", 0]}),
        );
        graph["62"] = node(
            "Power Lora Loader (rgthree)",
            json!({"lora_1": {"on": true, "lora": "p.safetensors", "strength": 0.3},
                "lora_2": {"on": false, "lora": "off.safetensors", "strength": 1},
                "model": ["63", 0]}),
        );
        graph["63"] = node(
            "Lora Loader Stack (rgthree)",
            json!({"lora_01": "one.safetensors", "strength_01": 0.1, "lora_02": "None",
                "strength_02": 0.2, "lora_03": "three.safetensors", "strength_03": 0.4,
                "model": ["64", 0]}),
        );
        graph["64"] = node("CLIPSetLastLayer", json!({"stop_at_clip_layer": -2, "clip": ["4", 1]}));
        graph["65"] = node("PrimitiveFloat", json!({"value": 0.7}));
        // Of another picture of the same graph.
        graph["70"] =
            node("LoraLoader", json!({"lora_name": "far.safetensors", "model": ["4", 0]}));
    });
    let told = told.unwrap();
    let note = told.notes.iter().find(|note| note.contains("LoRAs")).unwrap();
    for lora in [
        "ink.safetensors (0.8, text 0.6)",
        "sub/line.pt (0.7)",
        "p.safetensors (0.3)",
        "one.safetensors (0.1)",
        "three.safetensors (0.4)",
        "--lora",
    ] {
        assert!(note.contains(lora), "{lora} in {note}");
    }
    for absent in ["off", "None", "far"] {
        assert!(!note.contains(absent), "{absent} in {note}");
    }
    assert_eq!(settings(told)["Clip skip"], "2");
}

#[test]
fn one_of_a_batch_is_told() {
    let told = changed(|graph| graph["5"]["inputs"]["batch_size"] = json!(4)).unwrap();
    assert!(told.notes.iter().any(|note| note.contains("one of 4")), "{:?}", told.notes);
}
