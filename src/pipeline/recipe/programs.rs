//! Pictures of programs that write their settings in forms of their own: ComfyUI, InvokeAI,
//! Fooocus. What they hold is brought into the form of web UIs, from where [`super::foreign`] goes
//! on.
mod comfyui;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Recipe, RecipeError, foreign};
use crate::checkpoint::infinities;
use crate::picture::{self, Parameters, texts};
use crate::scheduler::spacing::Schedule;
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
        // What the editor knows besides is of use, and no matter where it is damaged.
        let editor = json_of(WORKFLOW, COMFYUI).and_then(|found| found.ok());
        return Some(found.and_then(|json| comfyui::read(&json, editor.as_ref())));
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
            "dpmpp_3m_sde" => "DPM++ 3M SDE",
            "dpmpp_sde" => "DPM++ SDE",
            "uni_pc" | "uni_pc_bh2" | "unipc" => "UniPC",
            "tcd" => "TCD",
            "ddim" => "DDIM",
            "plms" | "pndm" => "PLMS",
            "lcm" => "LCM",
            other => other,
        };
        self.told.parameters.set("Sampler", known);
        match joined.or(schedule.and_then(Value::as_str)) {
            // Evenly spaced, as here.
            None | Some("normal" | "ddim_uniform" | "lcm") => {}
            Some(other) => {
                let web = other.parse().map(Schedule::web_name);
                self.told.parameters.set("Schedule type", web.unwrap_or(other));
            }
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

    /// LoRAs that the picture was made with, each with its strength.
    fn left_out_loras(&mut self, loras: &[String]) {
        self.told.notes.extend(foreign::left_out_loras(loras));
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
    if json.get("refiner_model").is_some_and(|refiner| !refiner.is_null() && refiner != "None") {
        settings.left_out("the refiner");
    }
    // [name, strength, hash] of each; older versions: "name : strength" under a key of its own.
    let listed = json.get("loras").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|lora| {
        let part = |at: usize| lora.get(at).and_then(plain);
        Some(format!("{} ({})", part(0)?, part(1)?))
    });
    let old = json.as_object().into_iter().flatten();
    let old = old.filter(|(key, _)| {
        key.strip_prefix("lora_combined_").or(key.strip_prefix("LoRA ")).is_some()
    });
    let old = old.filter_map(|(_, value)| {
        let (name, strength) = value.as_str()?.rsplit_once(" : ")?;
        Some(format!("{name} ({strength})"))
    });
    let loras: Vec<String> = listed.chain(old).collect();
    settings.left_out_loras(&loras);
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
    let loras = get("loras").and_then(Value::as_array).into_iter().flatten();
    let loras = loras.map(|lora| {
        let model = lora.get("model").or_else(|| lora.get("lora"));
        let name = model.and_then(|model| model.get("name").or_else(|| model.get("model_name")));
        let name = name.and_then(plain).unwrap_or_else(|| "one without a name".to_string());
        format!("{name} ({})", lora.get("weight").and_then(plain).unwrap_or_else(|| "1".into()))
    });
    let loras: Vec<String> = loras.collect();
    settings.left_out_loras(&loras);
    for (key, what) in [
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(texts: &[(&str, Value)]) -> Option<Result<Told, String>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        of_texts(&texts.iter().map(|(keyword, value)| (keyword.to_string(), text(value))).collect())
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
    fn invokeais_settings_are_read() {
        let new = json!({
            "positive_prompt": "a cat", "negative_prompt": "dog", "width": 512, "height": 768,
            "seed": 7, "steps": 30,
            "cfg_scale": 6.5, "scheduler": "dpmpp_2m_k", "rand_device": "cpu",
            "model": {"name": "dreamy"},
            "loras": [{"model": {"name": "ink"}, "weight": 0.6}],
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
        assert!(of(&[(INVOKE, new)]).unwrap().unwrap().notes[1].contains("ink (0.6)"));
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
        let both = [(PARAMETERS, all), (SCHEME, "fooocus".into())];
        let notes = of(&both).unwrap().unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("a (0.5)")), "{notes:?}");
        let (prompt, negative, found) = told(of(&both));
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
        assert!(of(&[(WORKFLOW, json!({}))]).unwrap().unwrap_err().contains("ComfyUI"));
        assert!(of(&[(GRAPH, "{broken".into())]).unwrap().unwrap_err().contains("damaged"));
        assert!(
            of(&[
                (PARAMETERS, "a cat\nSteps: 3, Sampler: Euler, Seed: 1".into()),
                (GRAPH, json!({}))
            ])
            .is_none()
        );
        assert!(of(&[(OWN, json!({})), (GRAPH, json!({}))]).is_none());
        assert!(of(&[(GRAPH, "a cat".into())]).is_none());
    }
}
