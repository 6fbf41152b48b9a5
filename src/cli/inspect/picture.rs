//! What a picture's file tells of how it was made.
use std::path::Path;

use mixofshow::checkpoint::FileKind;
use mixofshow::picture::{measure, parameters};
use mixofshow::pipeline::recipe::{Recipe, RecipeError};
use serde::Serialize;
use serde_json::Value;

use crate::cli::terminal::Terminal;
use crate::cli::{Result, escaped};

/// The file is a picture of a kind that is read.
pub fn is_it(path: &Path) -> bool {
    use FileKind::{Bmp, Jpeg, Png, WebP};
    path.is_file() && matches!(FileKind::of_file(path), Ok(Bmp | Jpeg | Png | WebP))
}

#[derive(Serialize)]
struct Told {
    path: String,
    what: &'static str,
    used: &'static str,
    width: u32,
    height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<String>,
    /// Names and values, as web UIs call them, in the file's order.
    settings: Vec<(String, String)>,
    /// The prompts of regions.
    regions: Vec<String>,
    /// This program's own settings, complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    mos: Option<Value>,
    notes: Vec<String>,
}

/// Tells of a picture.
pub fn run(path: &Path, json: bool, terminal: &Terminal) -> Result<()> {
    let told = read(path)?;
    if json {
        return terminal.print_json(&told);
    }
    terminal.print(describe(&told, terminal.verbose()).trim_end())
}

fn read(path: &Path) -> Result<Told> {
    let (width, height) = measure(path)?;
    let mut told = Told {
        path: path.display().to_string(),
        what: "picture",
        used: "--init-image of `mos generate`",
        width,
        height,
        prompt: None,
        negative_prompt: None,
        settings: Vec::new(),
        regions: Vec::new(),
        mos: None,
        notes: Vec::new(),
    };
    let (recipe, notes) = match Recipe::read(path) {
        Ok(found) => found,
        Err(RecipeError::Picture(error)) => return Err(error.into()),
        Err(error) => {
            told.notes.push(error.to_string());
            return Ok(told);
        }
    };
    told.used = "--like of `mos generate`, which makes it again; --init-image";
    told.notes = notes;
    let request = &recipe.request;
    told.prompt = Some(request.prompt.clone());
    told.negative_prompt = Some(request.negative_prompt.clone()).filter(|text| !text.is_empty());
    told.regions = request.regions.regions.iter().map(|region| region.prompt.clone()).collect();
    let found = parameters::read(path)?.filter(|found| !found.settings.is_empty());
    match found {
        Some(found) => (told.settings, told.mos) = (found.settings, found.mos),
        // Of programs that write forms of their own, what is understood.
        None => {
            let mut set = |name: &str, value: Option<String>| {
                told.settings.extend(value.map(|value| (name.to_string(), value)));
            };
            set("Steps", Some(request.steps.to_string()));
            set("Sampler", request.sampler.map(|sampler| sampler.to_string()));
            set("CFG scale", Some(request.guidance.to_string()));
            set("Seed", Some(request.seed.to_string()));
            set("Model", recipe.model.clone());
        }
    }
    Ok(told)
}

fn describe(told: &Told, all: bool) -> String {
    let line = |text: &str| escaped::line(text).into_owned();
    let mut text = format!(
        "{}: {}, {}x{}\nuse: {}\n\n",
        line(&told.path),
        told.what,
        told.width,
        told.height,
        told.used
    );
    let prompts = [("prompt", &told.prompt), ("negative prompt", &told.negative_prompt)];
    for (name, prompt) in prompts {
        if let Some(prompt) = prompt {
            text += &format!("{name}: {}\n", line(prompt));
        }
    }
    for region in &told.regions {
        text += &format!("region: {}\n", line(region));
    }
    for (name, value) in &told.settings {
        text += &format!("  {}: {}\n", line(name), line(value));
    }
    if let Some(mos) = told.mos.as_ref().filter(|_| all) {
        text += "\nall settings\n";
        for (key, value) in mos.as_object().into_iter().flatten() {
            text += &format!("  {}: {}\n", line(key), line(&value.to_string()));
        }
    }
    for note in &told.notes {
        text += &format!("note: {}\n", line(note));
    }
    text
}
