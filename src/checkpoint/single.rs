//! Models that are one file with CompVis's (LDM's) names: Stable Diffusion 1.x, 2.x and XL.
use super::component::{Component, Targets};
use super::describe::describe_file;
use super::infer::{self, Missing};
use super::ldm::{CLIP, OPEN_CLIP, UNET, VAE, XL, XL_CLIP, XL_OPEN_CLIP, XL_REFINER};
use super::part::text_names;
use super::what::What;
use super::{
    Checkpoint, Error, Kind, SecondEncoder, TensorFile, TokenizerFiles, gaps, ldm, openclip,
};
use crate::text::KNOWN_WORDS_FILE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file can say its networks' configurations itself, under this and `unet`, `vae`,
/// `text_encoder` or `text_encoder_2` in its metadata, as JSON. This program writes them, since heads and norm groups
/// of models other than Stable Diffusion's own are in no weight.
pub const CONFIG_METADATA: &str = "mixofshow.config.";

/// So do small files that stand in a model's folder beside the weights, under this and their place.
pub const FILE_METADATA: &str = "mixofshow.file.";

/// Such a file.
fn text_file<'a>(file: &'a TensorFile, place: &str) -> Option<&'a String> {
    file.metadata().get(&format!("{FILE_METADATA}{place}"))
}

/// Such a file of JSON.
fn json_file(file: &TensorFile, place: &str) -> Result<Option<Value>, Error> {
    let Some(text) = text_file(file, place) else { return Ok(None) };
    let wrong = |e: serde_json::Error| Error::Json {
        path: file.path().to_path_buf(),
        problem: format!("metadata `{FILE_METADATA}{place}`: {e}"),
    };
    serde_json::from_str(text).map(Some).map_err(wrong)
}

/// The tokenizer's of that folder, or CLIP's own.
fn tokenizer(file: &TensorFile, folder: &str, text_encoder: &Component) -> TokenizerFiles {
    // No others: a name is a place that is written to when a model is fused.
    let texts = TOKENIZER_FILES.iter().filter_map(|name| {
        Some((name.to_string(), text_file(file, &format!("{folder}{name}"))?.clone()))
    });
    let texts: BTreeMap<String, String> = texts.collect();
    match texts.is_empty() {
        true => TokenizerFiles::standard(text_encoder),
        false => TokenizerFiles::Texts(texts),
    }
}

/// The folder of the tokenizer's files.
pub(super) const TOKENIZER: &str = "tokenizer/";
pub(super) const TOKENIZER_2: &str = "tokenizer_2/";
pub(super) const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "added_tokens.json",
];
pub(super) const SCHEDULER: &str = "scheduler/scheduler_config.json";
pub(super) const GENERATION: &str = "generation_config.json";
pub(super) const CONCEPTS: &str = "new_concept_cfg.json";

/// What says that an empty negative prompt is read as it is.
pub(super) const ZEROS: &str = "mixofshow.force_zeros_for_empty_prompt";

/// Why Stable Diffusion XL's refiner is refused.
pub(super) const REFINER: &str = "the refiner of Stable Diffusion XL, which goes on with a base model's pictures and makes none \
        by itself; base models are supported";

/// Opens a single-file model.
pub(super) fn open(file: TensorFile) -> Result<Checkpoint, Error> {
    let path = file.path().to_path_buf();
    let has = |prefix: &str| file.names().any(|n| n.starts_with(prefix));
    let open_clip = has(OPEN_CLIP);
    let xl = has(XL);
    if has(XL_REFINER) {
        return Err(Error::Unrecognised { path, problem: REFINER.to_string() });
    }
    let text = match xl {
        false => (has(CLIP) || open_clip, format!("text encoder ({CLIP}* or {OPEN_CLIP}*)")),
        true => (
            has(XL_CLIP) && has(XL_OPEN_CLIP),
            format!("text encoders ({XL_CLIP}* and {XL_OPEN_CLIP}*)"),
        ),
    };
    let lacking: Vec<_> =
        [(has(UNET), format!("UNet ({UNET}*)")), (has(VAE), format!("VAE ({VAE}*)")), text]
            .into_iter()
            .filter_map(|(there, what)| (!there).then_some(what))
            .collect();
    if !lacking.is_empty() {
        let what = describe_file(&file).what;
        let problem = match lacking.len() {
            3 if what != What::Unknown => format!(
                "not a whole model; this is a \
                {}",
                what.describe()
            ),
            3 => "not a Stable Diffusion model: it has neither UNet, VAE nor text encoder under \
                the names of a \
                  single-file model"
                .to_string(),
            _ => format!("not a whole model: it has no {}", lacking.join(" and no ")),
        };
        return Err(Error::Unrecognised { path, problem });
    }

    let file = Arc::new(file);
    let unet = unet(&file)?;
    let vae = vae(&file)?;
    let text_encoder = if xl { first_of_xl(&file)? } else { self::text(&file, open_clip)? };
    let second = xl.then(|| second_of_xl(&file)).transpose()?;
    let mut notes = Vec::new();
    gaps::check_unet(&unet, !is_told(&file, "unet"))?;
    gaps::check_vae(&vae, !is_told(&file, "vae"))?;
    let encoders = [Some(&text_encoder), second.as_ref().map(|second| &second.component)];
    for encoder in encoders.into_iter().flatten() {
        gaps::check_text(encoder, &mut notes)?;
    }
    let all: Vec<&Component> =
        [&unet, &vae].into_iter().chain(encoders.into_iter().flatten()).collect();
    gaps::note_unread(&file, &all, &mut notes);
    let scheduler = match json_file(&file, SCHEDULER)? {
        Some(told) => told,
        None => scheduler(&file, &unet, &mut notes),
    };
    Ok(Checkpoint {
        path,
        kind: Kind::SingleFile,
        tokenizer: tokenizer(&file, TOKENIZER, &text_encoder),
        unet,
        vae,
        text_encoder,
        second,
        vision: None,
        vision_preprocessor: None,
        controls: Default::default(),
        scheduler,
        model_index: None,
        generation: json_file(&file, GENERATION)?,
        concepts: json_file(&file, CONCEPTS)?,
        words: text_file(&file, KNOWN_WORDS_FILE).cloned(),
        notes,
    })
}

/// One network of the file: the tensors whose names begin with `prefix`.
fn part(
    file: &Arc<TensorFile>,
    prefix: &str,
    name: &str,
    translate: impl Fn(&str) -> Targets,
    infer: impl Fn(&Component) -> Result<Value, Missing>,
) -> Result<Component, Error> {
    let path = file.path();
    let mut component =
        Component::gather(path, vec![file.clone()], |_, n| n.strip_prefix(prefix).map(&translate))?;
    let key = format!("{CONFIG_METADATA}{name}");
    component.config = match file.metadata().get(&key) {
        Some(text) => serde_json::from_str(text).map_err(|e| Error::Json {
            path: path.to_path_buf(),
            problem: format!("metadata `{key}`: {e}"),
        })?,
        None => infer(&component).map_err(|missing| {
            match component.require_all([missing.as_str()]) {
                Err(error) => error,
                Ok(()) => Error::Unrecognised {
                    path: path.to_path_buf(),
                    problem: format!("tensor `{missing}` has too few dimensions"),
                },
            }
        })?,
    };
    Ok(component)
}

/// The file says that network's configuration itself.
fn is_told(file: &TensorFile, network: &str) -> bool {
    file.metadata().contains_key(&format!("{CONFIG_METADATA}{network}"))
}

fn stripped<'a>(file: &'a TensorFile, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    file.names().filter_map(move |n| n.strip_prefix(prefix))
}

pub(super) fn unet(file: &Arc<TensorFile>) -> Result<Component, Error> {
    let names = ldm::UNetNames::new(stripped(file, UNET))
        .map_err(|problem| Error::Unrecognised { path: file.path().to_path_buf(), problem })?;
    let names = if is_xl(file) { names.of_xl() } else { names };
    part(file, UNET, "unet", |n| names.translate(n), infer::unet)
}

pub(super) fn vae(file: &Arc<TensorFile>) -> Result<Component, Error> {
    let levels = ldm::decoder_levels(stripped(file, VAE));
    let infer = if is_xl(file) { infer::xl_vae } else { infer::vae };
    part(file, VAE, "vae", |n| ldm::vae_names(levels, n), infer)
}

fn is_xl(file: &TensorFile) -> bool {
    file.names().any(|name| name.starts_with(XL))
}

/// Stable Diffusion XL's first text encoder, CLIP's.
fn first_of_xl(file: &Arc<TensorFile>) -> Result<Component, Error> {
    part(file, XL_CLIP, "text_encoder", text_names, |c| infer::text(c, false))
}

/// Stable Diffusion XL's second text encoder, OpenCLIP's, and what goes with it.
fn second_of_xl(file: &Arc<TensorFile>) -> Result<SecondEncoder, Error> {
    let infer = |c: &Component| {
        let mut config = infer::text(c, true)?;
        config["architectures"] = json!(["CLIPTextModelWithProjection"]);
        Ok(config)
    };
    let component = part(file, XL_OPEN_CLIP, "text_encoder_2", openclip::names, infer)?;
    let tokenizer = tokenizer(file, TOKENIZER_2, &component);
    // What such models were made with; a file of this program's says it.
    let told = file.metadata().get(ZEROS).is_none_or(|told| told != "false");
    Ok(SecondEncoder { component, tokenizer, zeros_for_empty: told })
}

pub(super) fn text(file: &Arc<TensorFile>, open_clip: bool) -> Result<Component, Error> {
    let (prefix, translate): (_, fn(&str) -> Targets) =
        if open_clip { (OPEN_CLIP, openclip::names_of_2x) } else { (CLIP, text_names) };
    part(file, prefix, "text_encoder", translate, |c| infer::text(c, open_clip))
}

/// The scheduler's configuration: Stable Diffusion's noise schedule, and what the model predicts.
fn scheduler(file: &TensorFile, unet: &Component, notes: &mut Vec<String>) -> Value {
    let steps = ["alphas_cumprod", "betas"]
        .iter()
        .find_map(|n| file.entries().get(*n)?.shape.first().copied());
    let (prediction, zero_snr) = prediction_type(file, unet, notes);
    if is_xl(file) {
        let mut config = json!({
            "_class_name": "EulerDiscreteScheduler",
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": false,
            "interpolation_type": "linear",
            "num_train_timesteps": steps.filter(|&n| n > 0).unwrap_or(1000),
            "prediction_type": prediction,
            "set_alpha_to_one": false,
            "skip_prk_steps": true,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "trained_betas": null,
            "use_karras_sigmas": false,
        });
        if zero_snr {
            config["rescale_betas_zero_snr"] = json!(true);
        }
        return config;
    }
    let mut config = json!({
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": steps.filter(|&n| n > 0).unwrap_or(1000),
        "prediction_type": prediction,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
    });
    if zero_snr {
        config["rescale_betas_zero_snr"] = json!(true);
    }
    config
}

/// What the UNet predicts, and whether its schedule ends in pure noise. Metadata and marker tensors
/// say it for certain; for a Stable Diffusion 2.x model without them the weights only hint at it.
fn prediction_type(
    file: &TensorFile,
    unet: &Component,
    notes: &mut Vec<String>,
) -> (&'static str, bool) {
    const V: &str = "v_prediction";
    let zero_snr = file.contains("ztsnr");
    // Marker tensors that some trainers leave.
    if file.contains("v_pred") {
        return (V, zero_snr);
    }
    let metadata = |key: &str| file.metadata().get(key).map(|v| v.to_ascii_lowercase());
    match metadata("modelspec.prediction_type").as_deref() {
        Some("v" | "v_prediction" | "v-prediction") => return (V, zero_snr),
        Some("epsilon" | "eps") => return ("epsilon", zero_snr),
        _ => {}
    }
    match metadata("ss_v_parameterization").as_deref() {
        Some("true") => return (V, zero_snr),
        Some("false") => return ("epsilon", zero_snr),
        _ => {}
    }
    if unet.config["use_linear_projection"] != json!(true) || is_xl(file) {
        return ("epsilon", zero_snr);
    }
    let guess = if spread_of_last_norm(unet).is_some_and(|s| s > 0.09) { V } else { "epsilon" };
    notes.push(format!(
        "this file does not say what its UNet predicts; {guess} is assumed from its weights \
         (if the pictures are noise or mud, the other one is right)"
    ));
    (guess, zero_snr)
}

/// The standard deviation of a bias near the output, which v-prediction leaves larger: the sign by
/// which programs have told the 768-pixel models of Stable Diffusion 2.x from the 512-pixel ones.
/// Inpainting models predict noise in either case.
fn spread_of_last_norm(unet: &Component) -> Option<f64> {
    if unet.config["in_channels"] != json!(4) {
        return None;
    }
    let name = unet
        .names()
        .filter(|n| n.starts_with("up_blocks.") && n.ends_with(".transformer_blocks.0.norm1.bias"))
        .last()?;
    let bias = unet.tensor(name).ok()?;
    let values = bias.to_f32(0..bias.len());
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    Some((values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt())
}
