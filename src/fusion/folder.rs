//! The fused model: a folder in diffusers' layout that appears whole or not at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::checkpoint::{
    self, Checkpoint, Component, DType, Folder, Kind, Network, TensorView, infinities,
};
use crate::models::clip_text::TOKEN_TABLE;
use crate::text::{KNOWN_WORDS_FILE, KnownWords};

use super::base::{Base, FusedWeights, Runner};
use super::members::FusedConcept;
use super::report::Report;
use super::tokenizer::{json_text, put, put_json};
use super::written::{self, WORDS_FILE};
use super::{Error, Result, replace, tokenizer};
use crate::watch::Parts;

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the model and moves it to `out`. Sentences for the user: what became of what stood there.
pub(super) fn write(
    out: &Path,
    replacing: bool,
    runner: &Runner,
    members: &[FusedConcept],
    report: &Report,
    progress: &mut Parts,
) -> Result<Vec<String>> {
    replace::check_output(out, replacing)?;
    fs::create_dir_all(parent(out)).map_err(Error::io(parent(out), "make the folder"))?;
    let making = tempfile::Builder::new()
        .prefix(".mos-")
        .tempdir_in(parent(out))
        .map_err(Error::io(parent(out), "write to the folder"))?;
    let inside = making.path();
    let base = runner.base;
    let checkpoint = base.checkpoint;
    extras(checkpoint, inside)?;
    // A model that is a fused one already keeps its words.
    let existing =
        checkpoint.concepts.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let words = Words::of(base, members, existing)?;
    let (own, stem) = (FusedWeights::default(), "diffusion_pytorch_model");
    let mut networks = vec![
        ("unet", stem, &checkpoint.unet, &runner.unet, None),
        ("vae", stem, &checkpoint.vae, &own, None),
    ];
    for encoder in base.encoders() {
        let (network, component) = (encoder.network, &encoder.part.component);
        let words = words.rows.get(&network).map(|rows| (&words.tokens, rows.as_slice()));
        networks.push((network.folder(), "model", component, runner.fused(network), words));
    }
    // As many parts as the networks have tensors.
    let of = networks.iter().map(|(_, _, component, ..)| component.len()).sum();
    let mut before = 0;
    for (name, stem, component, fused, words) in networks {
        network(inside, name, stem, component, fused, words, &mut |done, _| {
            progress(before + done, of)
        })?;
        before += component.len();
    }
    progress(of, of)?;
    tokenizer::write(&folder(inside, "tokenizer")?, &checkpoint.tokenizer, &words.tokens)?;
    if let Some(second) = &checkpoint.second {
        tokenizer::write(&folder(inside, "tokenizer_2")?, &second.tokenizer, &words.tokens)?;
    }
    let scheduler = folder(inside, "scheduler")?;
    put(
        &scheduler.join("scheduler_config.json"),
        &infinities::bare(&json_text(inside, &checkpoint.scheduler)?),
    )?;
    put_json(&inside.join("model_index.json"), &model_index(checkpoint))?;
    if let Some(generation) = &checkpoint.generation {
        put_json(&inside.join("generation_config.json"), generation)?;
    }
    if let Some(known) = &checkpoint.words {
        put(
            &inside.join(KNOWN_WORDS_FILE),
            &with_phrases(known, report.concepts.iter().map(|c| c.phrase.as_str())),
        )?;
    }
    put_json(&inside.join(WORDS_FILE), &Value::Object(words.config))?;
    let files = replace::files_in(inside)?;
    written::note(inside, note(report), &files)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary folder is closed to others; a model is as any new folder.
        let _ = fs::set_permissions(inside, fs::Permissions::from_mode(0o755));
    }
    let notes = replace::put(inside, out)?;
    let _ = making.keep();
    Ok(notes)
}

fn folder(inside: &Path, name: &str) -> Result<PathBuf> {
    let path = inside.join(name);
    fs::create_dir_all(&path).map_err(Error::io(&path, "make the folder"))?;
    Ok(path)
}

/// Concept words as tokens and rows of the tables.
struct Words {
    /// Names of the tokens, in the order of their ids.
    tokens: tokenizer::Added,
    /// For each text encoder, `[tokens, width]`.
    rows: BTreeMap<Network, Vec<f32>>,
    config: Map<String, Value>,
}

impl Words {
    /// As the method names them: `<new0>` and on, one token for each cross-attention and word.
    fn of(base: &Base, members: &[FusedConcept], existing: Map<String, Value>) -> Result<Words> {
        let layers = base.model.attentions.len();
        let first_id = base.tokenizer().vocabulary_len();
        for encoder in base.encoders() {
            let (found, rows) =
                (encoder.tokenizer.vocabulary_len(), encoder.part.config.vocab_size);
            let problem = if found != first_id {
                format!("its tokenizers have {first_id} and {found} tokens: expected as many")
            } else if first_id > rows {
                let network = encoder.network;
                format!("its tokenizer has {first_id} tokens, its {network} a table of {rows}")
            } else {
                continue;
            };
            return Err(Error::file(&base.checkpoint.path, problem));
        }
        let known = |name: &str| {
            base.encoders().iter().any(|encoder| encoder.tokenizer.token_id(name).is_some())
        };
        let mut number = (0..).find(|n| !known(&format!("<new{n}>"))).unwrap_or(0);
        let mut words = Words {
            tokens: tokenizer::Added { first_id, names: Vec::new() },
            rows: base.encoders().iter().map(|encoder| (encoder.network, Vec::new())).collect(),
            config: existing,
        };
        for word in members.iter().flat_map(|member| &member.words) {
            let mut ids = Vec::new();
            let mut names = Vec::new();
            for layer in 0..layers {
                let name = format!("<new{number}>");
                number += 1;
                ids.push(first_id + words.tokens.names.len());
                names.push(name.clone());
                words.tokens.names.push(name);
                for (network, table) in &mut words.rows {
                    let rows = word.rows(*network);
                    let row = layer.min(rows.shape.rows().saturating_sub(1));
                    let mut each = rows.values().chunks_exact(rows.shape.channels().max(1));
                    table.extend_from_slice(each.nth(row).unwrap_or_default());
                }
            }
            words.config.insert(
                word.text.clone(),
                json!({"concept_token_ids": ids, "concept_token_names": names}),
            );
        }
        Ok(words)
    }
}

fn network(
    inside: &Path,
    name: &str,
    stem: &str,
    component: &Component,
    fused: &FusedWeights,
    words: Option<(&tokenizer::Added, &[f32])>,
    progress: &mut Parts,
) -> Result<()> {
    let path = folder(inside, name)?;
    let mut config = component.config.clone();
    let mut tensors: Vec<(String, TensorView)> = Vec::with_capacity(component.len());
    for tensor in component.names() {
        let stored = component.tensor(tensor)?;
        let view = match (fused.find(tensor), words) {
            (Some(changed), _) => {
                like(&changed.to_f32(0..changed.len()), &stored, stored.shape().to_vec(), tensor)?
            }
            (None, Some((tokens, words))) if tensor == TOKEN_TABLE => {
                let (rows, width) = (tokens.first_id, stored.shape().get(1).copied().unwrap_or(1));
                let added = like(words, &stored, vec![tokens.names.len(), width], tensor)?;
                let kept = stored.to_f32(0..(rows * width).min(stored.len()));
                let kept = like(&kept, &stored, vec![rows, width], tensor)?;
                let total = rows + tokens.names.len();
                config["vocab_size"] = json!(total);
                let bytes = Cow::Owned([kept.bytes(), added.bytes()].concat());
                TensorView::new(added.dtype(), vec![total, width], bytes).ok_or_else(|| {
                    Error::file(
                        component.path(),
                        format!("`{tensor}` is not a table of {rows} tokens"),
                    )
                })?
            }
            _ => stored,
        };
        tensors.push((tensor.to_string(), view));
    }
    if words.is_some() {
        // Without it newer transformers take the stored precision where diffusers takes f32 for the
        // other networks, and then the folder works only with a precision given.
        config["dtype"] = json!("float32");
        if config.get("torch_dtype").is_some() {
            config["torch_dtype"] = json!("float32");
        }
    }
    put_json(&path.join("config.json"), &config)?;
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let path = path.join(format!("{stem}.safetensors"));
    Ok(checkpoint::write_watched(&path, &tensors, &metadata, progress)?)
}

/// The list of words that the base model knows, and what calls up the concepts that have none.
fn with_phrases<'p>(known: &str, phrases: impl Iterator<Item = &'p str>) -> String {
    let list = KnownWords::parse(known);
    let mut words: Vec<String> = Vec::new();
    for phrase in phrases {
        for word in list.unknown_words(phrase, []) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    match words.is_empty() {
        true => known.to_string(),
        false => format!("{}\nof concepts: {}\n", known.trim_end(), words.join(" ")),
    }
}

/// `values` in the precision of `stored`; types of fewer bits become f16.
fn like(
    values: &[f32],
    stored: &TensorView,
    shape: Vec<usize>,
    name: &str,
) -> Result<TensorView<'static>> {
    let dtype = stored.dtype().widened();
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    if values.iter().any(|v| !v.is_finite() || dtype == DType::F16 && v.abs() > f16::MAX.to_f32()) {
        return Err(Error::option(name, "the fused weights do not fit the model's precision"));
    }
    TensorView::new(dtype, shape, bytes)
        .ok_or_else(|| Error::option(name, "the fused weights have another size than the model's"))
}

/// Other folders of the model, such as vision towers, as they are; the safety checker is left out,
/// as the method does.
fn extras(checkpoint: &Checkpoint, inside: &Path) -> Result<()> {
    const OURS: [&str; 9] = [
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
        "safety_checker",
        "feature_extractor",
    ];
    if checkpoint.kind != Kind::DiffusersFolder {
        return Ok(());
    }
    let from = Folder::disk(&checkpoint.path);
    for name in
        from.names().iter().filter(|name| !OURS.contains(&name.as_str()) && !name.starts_with('.'))
    {
        let sub = from.join(name);
        let known = sub.exists() && (sub.has("config.json") || sub.has("preprocessor_config.json"));
        if !known {
            continue;
        }
        let to = folder(inside, name)?;
        for file in sub.names().iter().filter(|file| sub.has(file)) {
            let (from, to) = (checkpoint.path.join(name).join(file), to.join(file));
            fs::copy(&from, &to).map_err(Error::io(&from, "copy"))?;
        }
    }
    Ok(())
}

fn model_index(checkpoint: &Checkpoint) -> Value {
    let scheduler =
        checkpoint.scheduler.get("_class_name").and_then(Value::as_str).unwrap_or("PNDMScheduler");
    let mut index = checkpoint.model_index.clone().unwrap_or_else(|| {
        let mut index = json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "image_encoder": [null, null],
        });
        if let Some(second) = &checkpoint.second {
            index["_class_name"] = json!("StableDiffusionXLPipeline");
            index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
            index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
            index["force_zeros_for_empty_prompt"] = json!(second.zeros_for_empty);
        }
        index
    });
    if checkpoint.second.is_some() {
        // Its pipelines know of no safety checker.
        index["feature_extractor"] = json!([null, null]);
        return index;
    }
    for left_out in ["safety_checker", "feature_extractor"] {
        index[left_out] = json!([null, null]);
    }
    index["requires_safety_checker"] = json!(false);
    index
}

/// Everything that made the model, but nothing that differs from run to run.
/// What the note tells of the stages.
pub(super) fn noted_stages(report: &Report) -> Value {
    if let Some(noted) = &report.noted {
        return noted.clone();
    }
    let stages: Vec<Value> = report
        .stages
        .iter()
        .map(|stage| {
            let ridge = &stage.ridge;
            json!({
                "stage": stage.stage,
                "ridge": ridge.ridge,
                "towards": ridge.towards,
                "stale": stage.stale,
            })
        })
        .collect();
    Value::Array(stages)
}

fn note(report: &Report) -> Value {
    let mut note = json!({
        "mos_fusion": 1,
        "base": report.base,
        "base_hash": report.base_hash,
        "concepts": report.concepts,
        "settings": report.settings,
        "solver": report.solver,
        "stages": noted_stages(report),
    });
    if report.history.len() > 1 {
        note["history"] = json!(report.history);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_up_a_concept_is_known() {
        let known = "animals: cat dog\n(other): a an\n";
        let phrases = ["<zorp1> <zorp2>", "an ink drawing", "a drawing of a cat"];
        let list = KnownWords::parse(&with_phrases(known, phrases.into_iter()));
        assert_eq!(list.unknown_words("an ink drawing of a dog and a hat", []), ["and", "hat"]);
        assert_eq!(with_phrases(known, ["<zorp1>"].into_iter()), known);
    }
}
