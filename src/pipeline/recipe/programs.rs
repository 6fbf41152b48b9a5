//! Pictures of programs that write their settings in forms of their own: ComfyUI, InvokeAI,
//! Fooocus. What they hold is brought into the form of web UIs, from where [`super::foreign`] goes
//! on.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::{Recipe, RecipeError, foreign};
use crate::checkpoint::infinities;
use crate::picture::{self, Parameters, texts};
use crate::text::prompt::Syntax;

const COMFYUI: &str = "ComfyUI";
const INVOKEAI: &str = "InvokeAI";
const FOOOCUS: &str = "Fooocus";
/// Keywords of each; `parameters` is Fooocus' as well, where it holds JSON.
const GRAPH: &str = "prompt";
const WORKFLOW: &str = "workflow";
const INVOKE: &str = "invokeai_metadata";
const OLD_INVOKE: &str = "sd-metadata";
const OLDEST_INVOKE: &str = "Dream";
const PARAMETERS: &str = "parameters";
const SCHEME: &str = "fooocus_scheme";
const OWN: &str = "mos";
const KEYWORDS: [&str; 8] =
    [GRAPH, WORKFLOW, INVOKE, OLD_INVOKE, OLDEST_INVOKE, PARAMETERS, SCHEME, OWN];

/// What a program's picture tells.
#[derive(Debug)]
pub(super) struct Told {
    pub program: &'static str,
    pub parameters: Parameters,
    /// How its prompts are to be read.
    pub syntax: Syntax,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Reads the settings of a picture that one of these programs made. `None`: it is of another; an
/// inner error: of one of them, but without what is needed, as a sentence.
pub(super) fn read(path: &Path) -> picture::Result<Option<Result<Told, String>>> {
    Ok(of_texts(&texts::read(path, &KEYWORDS)?))
}

/// The recipe of what such a picture tells.
///
/// # Errors
/// What it does not tell.
pub(super) fn recipe(
    path: &Path,
    told: Result<Told, String>,
) -> Result<(Recipe, Vec<String>), RecipeError> {
    let Told { parameters, syntax, mut notes, .. } =
        told.map_err(|problem| RecipeError::Settings { path: path.to_path_buf(), problem })?;
    let (mut recipe, more) = foreign::read(&parameters);
    recipe.request.prompt_options.syntax = syntax;
    notes.extend(more);
    Ok((recipe, notes))
}

fn of_texts(found: &BTreeMap<String, String>) -> Option<Result<Told, String>> {
    let text = |keyword: &str| found.get(keyword).map(|text| text.trim());
    let is_json = |text: &str| text.starts_with('{');
    if found.contains_key(OWN) {
        return None;
    }
    match text(PARAMETERS) {
        Some(parameters) if is_json(parameters) => {
            // Other programs write JSON there too.
            let by_fooocus =
                |json: &Value| json.get("metadata_scheme").is_some() || found.contains_key(SCHEME);
            return match json(FOOOCUS, parameters) {
                Ok(json) if by_fooocus(&json) => Some(fooocus(&json)),
                Err(problem) if found.contains_key(SCHEME) => Some(Err(problem)),
                _ => None,
            };
        }
        // The form of web UIs, whatever else the file holds.
        Some(_) => return None,
        None => {}
    }
    let json_of = |keyword: &str, program| {
        text(keyword).filter(|text| is_json(text)).map(|text| json(program, text))
    };
    if let Some(found) = json_of(INVOKE, INVOKEAI) {
        return Some(found.and_then(|json| invoke(&json)));
    }
    if let Some(found) = json_of(OLD_INVOKE, INVOKEAI) {
        return Some(found.and_then(|json| old_invoke(&json)));
    }
    if text(OLDEST_INVOKE).is_some() {
        return Some(Err(format!("it was made by {INVOKEAI}, in a form of old that is not read")));
    }
    if let Some(found) = json_of(GRAPH, COMFYUI) {
        return Some(found.and_then(|json| comfyui(&json)));
    }
    let only = format!(
        "it was made by {COMFYUI} and holds its editor's `{WORKFLOW}` alone, without the \
            `{GRAPH}` that ran"
    );
    text(WORKFLOW).filter(|text| is_json(text)).map(|_| Err(only))
}

fn json(program: &str, text: &str) -> Result<Value, String> {
    // Programs in Python write numbers that JSON does not have.
    serde_json::from_str(&infinities::quoted(text))
        .map_err(|e| format!("it was made by {program}, but its settings are damaged: {e}"))
}

/// A text, or a number as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

struct Settings {
    told: Told,
}

impl Settings {
    fn new(program: &'static str, syntax: Syntax) -> Self {
        let notes = vec![format!(
            "the picture was made by {program}: what its settings mean here is near to that, not \
                the same"
        )];
        Settings { told: Told { program, parameters: Parameters::default(), syntax, notes } }
    }

    fn set(&mut self, name: &str, value: Option<&Value>) {
        if let Some(text) = value.and_then(plain).filter(|text| !text.is_empty()) {
            self.told.parameters.set(name, text);
        }
    }

    /// The sampler by the name that k-diffusion has for it, as most programs do, and the schedule
    /// of its steps.
    fn sampler(&mut self, sampler: Option<&Value>, schedule: Option<&Value>) {
        let Some(name) = sampler.and_then(Value::as_str) else { return };
        let name = name.strip_prefix("k_").unwrap_or(name);
        let (name, joined) =
            name.strip_suffix("_k").map_or((name, None), |name| (name, Some("karras")));
        let name = name.strip_suffix("_gpu").unwrap_or(name);
        let known = match name {
            "euler_a" | "euler_ancestral" => "Euler a",
            "euler" => "Euler",
            "heun" => "Heun",
            "dpmpp_2m" => "DPM++ 2M",
            "dpmpp_2m_sde" => "DPM++ 2M SDE",
            "ddim" => "DDIM",
            "plms" | "pndm" => "PLMS",
            "lcm" => "LCM",
            other => other,
        };
        self.told.parameters.set("Sampler", known);
        match joined.or(schedule.and_then(Value::as_str)) {
            Some("karras") => self.told.parameters.set("Schedule type", "Karras"),
            // Evenly spaced, as here.
            None | Some("normal" | "simple" | "ddim_uniform" | "lcm") => {}
            Some(other) => self.told.parameters.set("Schedule type", other),
        }
    }

    fn size(&mut self, width: Option<&Value>, height: Option<&Value>) {
        if let (Some(width), Some(height)) = (width.and_then(plain), height.and_then(plain)) {
            self.told.parameters.set("Size", format!("{width}x{height}"));
        }
    }

    fn left_out(&mut self, what: &str) {
        self.told.notes.push(format!("{what} of the picture is not in use here: it is left out"));
    }

    /// An error where there is no prompt to go by.
    fn done(self) -> Result<Told, String> {
        let Told { program, parameters, .. } = &self.told;
        if parameters.prompt.is_empty() && parameters.settings.is_empty() {
            return Err(format!(
                "it was made by {program}, but its settings hold neither a prompt nor anything \
                    else that is read"
            ));
        }
        Ok(self.told)
    }
}

fn fooocus(json: &Value) -> Result<Told, String> {
    let mut settings = Settings::new(FOOOCUS, Syntax::On);
    // Its own names, and those that people see.
    let get = |names: [&str; 2]| {
        names.iter().find_map(|name| json.get(*name)).filter(|value| !value.is_null())
    };
    // What it made of the prompt by its styles is what ran.
    let ran = |name: &str| {
        let all = json.get(name)?.as_array()?.iter().filter_map(Value::as_str);
        Some(all.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    };
    let written = |names: [&str; 2]| get(names).and_then(plain).unwrap_or_default();
    settings.told.parameters.prompt =
        ran("full_prompt").unwrap_or_else(|| written(["prompt", "Prompt"]));
    settings.told.parameters.negative_prompt = ran("full_negative_prompt")
        .unwrap_or_else(|| written(["negative_prompt", "Negative Prompt"]));
    settings.set("Steps", get(["steps", "Steps"]));
    settings.set("CFG scale", get(["guidance_scale", "Guidance Scale"]));
    settings.set("Seed", get(["seed", "Seed"]));
    settings.sampler(get(["sampler", "Sampler"]), get(["scheduler", "Scheduler"]));
    // "(1152, 896)"
    let numbers = |text: &str| {
        text.split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map(Value::from)
            .collect()
    };
    let resolution: Vec<Value> =
        get(["resolution", "Resolution"]).and_then(Value::as_str).map(numbers).unwrap_or_default();
    settings.size(resolution.first(), resolution.get(1));
    let model = get(["base_model", "Base Model"]).and_then(plain);
    settings.told.parameters.settings.extend(model.map(|model| ("Model".to_string(), model)));
    settings.told.notes.push(format!(
        "{FOOOCUS} runs Stable Diffusion XL: another model than that one is needed here"
    ));
    for (name, what) in [("refiner_model", "the refiner"), ("loras", "the LoRA")] {
        let is = |value: &Value| {
            !value.is_null()
                && value != "None"
                && value.as_array().is_none_or(|list| !list.is_empty())
        };
        if json.get(name).is_some_and(is) {
            settings.left_out(what);
        }
    }
    settings.done()
}

fn invoke(json: &Value) -> Result<Told, String> {
    let mut settings = Settings::new(INVOKEAI, Syntax::Off);
    let get = |name: &str| json.get(name).filter(|value| !value.is_null());
    settings.told.parameters.prompt = get("positive_prompt").and_then(plain).unwrap_or_default();
    settings.told.parameters.negative_prompt =
        get("negative_prompt").and_then(plain).unwrap_or_default();
    for (name, key) in [("Steps", "steps"), ("CFG scale", "cfg_scale"), ("Seed", "seed")] {
        settings.set(name, get(key));
    }
    settings.size(get("width"), get("height"));
    settings.sampler(get("scheduler"), None);
    let model = get("model")
        .and_then(|model| model.get("name").or_else(|| model.get("model_name"))?.as_str());
    if let Some(model) = model {
        settings.told.parameters.set("Model", model);
    }
    let device = get("rand_device").and_then(Value::as_str).unwrap_or("cpu");
    settings.told.parameters.set("RNG", if device == "cuda" { "NV" } else { "CPU" });
    for (key, what) in [
        ("loras", "a LoRA"),
        ("controlnets", "a ControlNet"),
        ("ipAdapters", "an IP-Adapter"),
        ("t2iAdapters", "a T2I-Adapter"),
    ] {
        if get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            settings.left_out(what);
        }
    }
    tell_of_weights(&mut settings);
    settings.done()
}

/// Weights are written in another way there, as in `(word)1.2` and `word++`.
fn tell_of_weights(settings: &mut Settings) {
    let parameters = &settings.told.parameters;
    let is = |text: &str| text.contains([')', ']']) || text.contains("++") || text.contains("--");
    if is(&parameters.prompt) || is(&parameters.negative_prompt) {
        settings.told.notes.push(format!(
            "the marks of {INVOKEAI} in the prompt, such as (word)1.2 and word++, are read as text"
        ));
    }
}

fn old_invoke(json: &Value) -> Result<Told, String> {
    let mut settings = Settings::new(INVOKEAI, Syntax::Off);
    let Some(image) = json.get("image") else {
        return Err(format!(
            "it was made by {INVOKEAI}, but its settings do not tell of the picture"
        ));
    };
    let prompts = image.get("prompt").and_then(Value::as_array).into_iter().flatten();
    let prompts: Vec<&str> = prompts.filter_map(|prompt| prompt.get("prompt")?.as_str()).collect();
    let prompt = image.get("prompt").and_then(plain).unwrap_or_else(|| prompts.join(" "));
    // What is to be avoided stands in square brackets there.
    let mut avoided = Vec::new();
    let mut wanted = String::new();
    for (number, part) in prompt.split('[').enumerate() {
        match part.split_once(']').filter(|_| number > 0) {
            Some((inside, after)) => {
                avoided.push(inside.trim().to_string());
                wanted += after;
            }
            None => wanted += part,
        }
    }
    settings.told.parameters.prompt = wanted.trim().to_string();
    settings.told.parameters.negative_prompt = avoided.join(", ");
    for (name, key) in [("Steps", "steps"), ("CFG scale", "cfg_scale"), ("Seed", "seed")] {
        settings.set(name, image.get(key));
    }
    settings.size(image.get("width"), image.get("height"));
    settings.sampler(image.get("sampler"), None);
    settings.set("Model", json.get("model_weights"));
    tell_of_weights(&mut settings);
    settings.done()
}

/// Nodes of a graph that sample.
const SAMPLERS: [&str; 2] = ["KSampler", "KSamplerAdvanced"];
/// Nodes that change the picture and have no counterpart in a line of settings.
const BESIDES: [(&str, &str); 5] = [
    ("LoraLoader", "a LoRA"),
    ("ControlNetApply", "a ControlNet"),
    ("CLIPSetLastLayer", "the clip skip"),
    ("LoadImage", "another picture"),
    ("UpscaleModelLoader", "an upscaler"),
];

fn comfyui(graph: &Value) -> Result<Told, String> {
    let nodes = graph.as_object().into_iter().flatten();
    let class = |node: &Value| {
        node.get("class_type").and_then(Value::as_str).unwrap_or_default().to_string()
    };
    let samplers: Vec<&Value> = nodes
        .clone()
        .map(|(_, node)| node)
        .filter(|node| SAMPLERS.contains(&class(node).as_str()))
        .collect();
    let [sampler] = samplers[..] else {
        let count = samplers.len();
        return Err(format!(
            "it was made by {COMFYUI}, with a graph of {count} KSampler nodes; graphs with one \
                are read: give the settings as options"
        ));
    };
    let mut settings = Settings::new(COMFYUI, Syntax::On);
    let input =
        |node: &Value, name: &str| node.get("inputs").and_then(|inputs| inputs.get(name)).cloned();
    settings.told.parameters.prompt = prompt_of(graph, sampler, "positive")?;
    settings.told.parameters.negative_prompt = prompt_of(graph, sampler, "negative")?;
    let value = |names: &[&str]| names.iter().find_map(|name| value_of(graph, sampler, name));
    settings.set("Steps", value(&["steps"]).as_ref());
    settings.set("CFG scale", value(&["cfg"]).as_ref());
    settings.set("Seed", value(&["seed", "noise_seed"]).as_ref());
    settings.sampler(value(&["sampler_name"]).as_ref(), value(&["scheduler"]).as_ref());
    settings.told.parameters.set("RNG", "CPU");
    if let Some(latent) = linked(graph, sampler, "latent_image") {
        settings.size(
            value_of(graph, latent, "width").as_ref(),
            value_of(graph, latent, "height").as_ref(),
        );
    }
    let strength =
        value(&["denoise"]).and_then(|value| value.as_f64()).filter(|strength| *strength < 1.0);
    if let Some(strength) = strength {
        settings.told.parameters.set("Denoising strength", strength);
    }
    let model = nodes.clone().find_map(|(_, node)| {
        input(node, "ckpt_name").filter(|_| class(node).starts_with("CheckpointLoader"))
    });
    settings.set("Model", model.as_ref());
    for (name, what) in BESIDES {
        if nodes.clone().any(|(_, node)| class(node).starts_with(name)) {
            settings.left_out(what);
        }
    }
    settings.done()
}

/// The node that an input of another is linked to: `["4", 0]`.
fn linked<'g>(graph: &'g Value, node: &Value, input: &str) -> Option<&'g Value> {
    let number = node.get("inputs")?.get(input)?.as_array()?.first().and_then(plain)?;
    graph.get(number)
}

/// An input's value: its own, or that of the node it is linked to, which may hold nothing but one.
fn value_of(graph: &Value, node: &Value, input: &str) -> Option<Value> {
    let own = node.get("inputs")?.get(input)?;
    if !own.is_array() {
        return Some(own.clone());
    }
    let inputs = linked(graph, node, input)?.get("inputs")?;
    [input, "value", "text", "string", "int", "seed", "number"]
        .iter()
        .find_map(|name| inputs.get(*name))
        .filter(|v| !v.is_array())
        .cloned()
}

/// The text that leads to an input of a sampler, through whatever stands between.
fn prompt_of(graph: &Value, sampler: &Value, side: &str) -> Result<String, String> {
    let mut texts = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Value> = linked(graph, sampler, side).into_iter().collect();
    while let Some(node) = next.pop() {
        // A graph of a file may go in circles.
        if !seen.insert(std::ptr::from_ref(node) as usize) {
            continue;
        }
        let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
        if class.starts_with("CLIPTextEncode") {
            texts.extend(value_of(graph, node, "text").as_ref().and_then(plain));
            continue;
        }
        let inputs = node.get("inputs").and_then(Value::as_object).into_iter().flatten();
        // Nodes with both sides lead to the other one as well.
        let both = inputs.clone().any(|(name, _)| name == "positive")
            && inputs.clone().any(|(name, _)| name == "negative");
        let wanted = inputs
            .filter(|(name, _)| if both { *name == side } else { name.contains("conditioning") });
        next.extend(wanted.filter_map(|(name, _)| linked(graph, node, name)));
    }
    let mut texts = texts.into_iter();
    match (texts.next(), texts.next()) {
        (Some(text), None) => Ok(text),
        (None, _) if side == "negative" => Ok(String::new()),
        (None, _) => Err(format!(
            "it was made by {COMFYUI}, with a graph in which no text leads to the sampler's \
                `{side}`"
        )),
        _ => Err(format!(
            "it was made by {COMFYUI}, with a graph in which several texts lead to the sampler's \
                `{side}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(texts: &[(&str, Value)]) -> Option<Result<Told, String>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        of_texts(&texts.iter().map(|(keyword, value)| (keyword.to_string(), text(value))).collect())
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

    fn told(found: Option<Result<Told, String>>) -> (String, String, BTreeMap<String, String>) {
        let told = found.unwrap().unwrap();
        assert!(told.notes[0].contains(told.program));
        (
            told.parameters.prompt,
            told.parameters.negative_prompt,
            told.parameters.settings.into_iter().collect(),
        )
    }

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn comfyuis_graph_is_followed() {
        let (prompt, negative, found) = told(of(&[(GRAPH, graph()), (WORKFLOW, json!({}))]));
        assert_eq!((prompt.as_str(), negative.as_str()), ("a (red:1.2) cat", "blurry"));
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
        assert_eq!(found, settings(&expected));
        // Python's own numbers, as ComfyUI writes them.
        let text =
            graph().to_string().replace("\"denoise\":1.0", "\"denoise\":1.0,\"changed\":[NaN]");
        assert_eq!(told(of(&[(GRAPH, text.into())])).0, "a (red:1.2) cat");

        let changed = |change: fn(&mut Value)| {
            let mut graph = graph();
            change(&mut graph);
            of(&[(GRAPH, graph)]).unwrap()
        };
        let two = changed(|graph| graph["10"] = graph["3"].clone()).unwrap_err();
        assert!(two.contains("ComfyUI") && two.contains("2 KSampler"), "{two}");
        let none = changed(|graph| graph["6"]["class_type"] = "Other".into()).unwrap_err();
        assert!(none.contains("no text") && none.contains("positive"), "{none}");
        let circle =
            changed(|graph| graph["9"]["inputs"]["conditioning"] = json!(["9", 0])).unwrap_err();
        assert!(circle.contains("no text"), "{circle}");
        let lora = changed(|graph| graph["11"] = json!({"class_type": "LoraLoader"})).unwrap();
        assert!(lora.notes[1].contains("a LoRA"), "{:?}", lora.notes);
        assert!(of(&[(WORKFLOW, json!({}))]).unwrap().unwrap_err().contains("ComfyUI"));
        assert!(of(&[(GRAPH, "{broken".into())]).unwrap().unwrap_err().contains("damaged"));
    }

    #[test]
    fn invokeais_settings_are_read() {
        let new = json!({
            "positive_prompt": "a cat", "negative_prompt": "dog", "width": 512, "height": 768,
            "seed": 7, "steps": 30,
            "cfg_scale": 6.5, "scheduler": "dpmpp_2m_k", "rand_device": "cpu",
            "model": {"name": "dreamy"}, "loras": [{}],
        });
        let (prompt, negative, found) = told(of(&[(INVOKE, new.clone())]));
        assert_eq!((prompt.as_str(), negative.as_str()), ("a cat", "dog"));
        let expected = [
            ("Steps", "30"),
            ("CFG scale", "6.5"),
            ("Seed", "7"),
            ("Size", "512x768"),
            ("Sampler", "DPM++ 2M"),
            ("Schedule type", "Karras"),
            ("Model", "dreamy"),
            ("RNG", "CPU"),
        ];
        assert_eq!(found, settings(&expected));
        assert!(of(&[(INVOKE, new)]).unwrap().unwrap().notes[1].contains("a LoRA"));
        let old = json!({"model_weights": "v1", "image": {"prompt": [{"prompt": "a cat [dog] \
            asleep", "weight": 1.0}],
            "steps": 9, "cfg_scale": 7, "seed": 3, "width": 512, "height": 512,
            "sampler": "k_euler"}});
        let (prompt, negative, found) = told(of(&[(OLD_INVOKE, old)]));
        assert_eq!((prompt.as_str(), negative.as_str()), ("a cat  asleep", "dog"));
        assert_eq!(found["Sampler"], "Euler");
        assert!(
            of(&[(OLDEST_INVOKE, "\"a cat\" -s 9".into())])
                .unwrap()
                .unwrap_err()
                .contains("InvokeAI")
        );
    }

    #[test]
    fn fooocus_settings_are_read() {
        let all = json!({
            "prompt": "a cat", "full_prompt": ["a cat, cinematic", "fine"], "negative_prompt": "",
            "steps": 30,
            "resolution": "(1152, 896)", "guidance_scale": 4.0, "base_model": "xl",
            "sampler": "dpmpp_2m_sde_gpu",
            "scheduler": "karras", "seed": "5", "refiner_model": "None", "loras": [["a", 0.5, "b"]],
            "metadata_scheme": "fooocus",
        });
        let (prompt, negative, found) = told(of(&[(PARAMETERS, all), (SCHEME, "fooocus".into())]));
        assert_eq!((prompt.as_str(), negative.as_str()), ("a cat, cinematic, fine", ""));
        let expected = [
            ("Steps", "30"),
            ("CFG scale", "4.0"),
            ("Seed", "5"),
            ("Sampler", "DPM++ 2M SDE"),
            ("Schedule type", "Karras"),
            ("Size", "1152x896"),
            ("Model", "xl"),
        ];
        assert_eq!(found, settings(&expected));
        assert!(
            of(&[(PARAMETERS, json!({"x": 1})), (SCHEME, "fooocus".into())])
                .unwrap()
                .unwrap_err()
                .contains("Fooocus")
        );
        assert!(
            of(&[(PARAMETERS, json!({"prompt": "a cat", "seed": 5}))]).is_none(),
            "of a program that does not say so"
        );
    }

    #[test]
    fn other_programs_are_left_to_others() {
        assert!(of(&[]).is_none());
        assert!(
            of(&[
                (PARAMETERS, "a cat\nSteps: 3, Sampler: Euler, Seed: 1".into()),
                (GRAPH, graph())
            ])
            .is_none()
        );
        assert!(of(&[(OWN, json!({})), (GRAPH, graph())]).is_none());
        assert!(of(&[(GRAPH, "a cat".into())]).is_none());
    }
}
