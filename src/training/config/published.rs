//! The settings files of the method's own code: YAML options, with a list of concepts in JSON and
//! prompts in a text file.
//!
//! Paths in them are meant from that code's folder. They are looked for from the working directory
//! and from every folder above the file, so that a copy of the tree works wherever it is run.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::names::{Decay, Kind};
use super::node::Node;
use super::options::{Options, PictureFolder};
use super::{Error, Result};
use crate::concept::{PLACEHOLDER, with_words};
use crate::file_kind::read_text;
use crate::numbers::counted;
use crate::training::captions::Templates;
use crate::training::folder;
use crate::training::step::{Method, TextLayers, UNetLayers};

/// Where a step ran on this many cards, each with its own batch, unless the file says otherwise.
const CARDS: usize = 2;
const LONGEST_PROMPTS: usize = 8;

/// Keys that change nothing about what is trained, or that are known here to have no counterpart.
const WITHOUT_MEANING: [&str; 12] = [
    "logger",
    "dist_params",
    "model_type",
    "mixed_precision",
    "path",
    "enable_xformers",
    "num_worker_per_gpu",
    "pin_memory",
    "prefetch_mode",
    "use_shuffle",
    "sd_version",
    "test_sampler_type",
];

/// Reads a published settings file, and what in it has no counterpart, in sentences.
pub(super) fn read(path: &Path) -> Result<(Options, Vec<String>)> {
    let text = read_text(path, "settings (YAML or JSON)").map_err(Error::unreadable(path))?;
    let invalid = |problem: String| Error::Invalid { path: path.to_path_buf(), problem };
    let root: Value =
        serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string().trim_end().to_string()))?;
    let root = Node { file: path, key: String::new(), value: &root };
    let mut notes = Vec::new();
    if root.map()?.is_empty() {
        return Err(invalid("no settings in it".into()));
    }
    let train = root.need("datasets")?.need("train")?;
    let models = match root.get("models")? {
        Some(models) => models,
        None => root.need("network_g")?,
    };
    let mut options = Options {
        seed: root.whole("manual_seed")?,
        name: root.text("name")?,
        ..Options::default()
    };
    if let Some(name) = &options.name {
        // A name with points in it keeps them.
        options.output = Some(PathBuf::from(format!("{name}.safetensors")));
    }
    read_models(&models, &mut options)?;
    read_transforms(&train, &mut options, &mut notes)?;
    read_pictures(&train, &mut options)?;
    let batch = train.whole("batch_size_per_gpu")?.unwrap_or(1);
    let named = root.whole("num_gpu")?;
    let cards = named.unwrap_or(CARDS).max(1);
    // Each card gathers so many batches before a step.
    let gathered = root.whole::<usize>("gradient_accumulation_steps")?.unwrap_or(1).max(1);
    let accumulate = cards.saturating_mul(gathered);
    if named.is_none() || gathered > 1 {
        let cards = match named {
            None => format!("{CARDS} cards (assumed: `num_gpu` is not in the file)"),
            Some(_) => counted(cards, "card"),
        };
        let each = match gathered {
            1 => String::new(),
            _ => format!(", each with {gathered} batches (`gradient_accumulation_steps`)"),
        };
        notes.push(format!(
            "`accumulate` is {accumulate}, as on {cards}{each}: so many batches make an update"
        ));
    }
    (options.batch, options.accumulate) = (Some(batch), Some(accumulate));
    read_training(
        &root,
        &train,
        usize::saturating_mul(batch, accumulate),
        &mut options,
        &mut notes,
    )?;
    read_validation(&root, &mut options, &mut notes)?;
    Ok((options, notes))
}

fn read_models(models: &Node, options: &mut Options) -> Result<()> {
    options.model = models.text("pretrained_path")?.map(|model| match models.find(&model) {
        Some(found) => found.to_string_lossy().into_owned(),
        None => model,
    });
    options.words = models.text("new_concept_token")?;
    options.initializers = models.text("initializer_token")?;
    let type_name = models.text("type")?;
    let layered =
        models.flag("enable_edlora")?.or(type_name.map(|name| name == "EDLoRA")).unwrap_or(true);
    options.method = Some(if layered { Method::EdLora } else { Method::Lora });
    options.noise_offset = models.number("noise_offset")?.map(|v| v as f32);
    options.attention_weight = Some(models.number("attn_reg_weight")?.unwrap_or(0.0) as f32);
    options.full_identity = models.flag("reg_full_identity")?;
    options.mask_loss = Some(models.flag("use_mask_loss")?.unwrap_or(false));
    options.checkpointing = models.flag("gradient_checkpoint")?;
    let tuned = models.need("finetune_cfg")?;
    let mut alphas = Vec::new();
    // What is tuned of each part: its learning rate, and its updates' rank and place.
    if let Some(words) = tuned.get("text_embedding")? {
        let on = words.flag("enable_tuning")?.unwrap_or(true);
        options.words_lr = if on { words.number("lr")? } else { Some(0.0) };
    }
    for part in ["text_encoder", "unet"] {
        let Some(part_node) = tuned.get(part)? else { continue };
        let (mut rank, mut rate) = (Some(0), None);
        if part_node.flag("enable_tuning")?.unwrap_or(true) {
            rate = part_node.number("lr")?;
            let lora = part_node.need("lora_cfg")?;
            rank = lora.whole("rank")?;
            alphas.extend(lora.number("alpha")?.map(|alpha| (alpha, lora.child("alpha"))));
            let place = lora.text("where")?;
            let wrong =
                |expected: &str| lora.wrong("where", &place.clone().unwrap_or_default(), expected);
            if part == "unet" {
                let parsed = place.as_deref().map(str::parse::<UNetLayers>).transpose();
                options.unet_layers =
                    parsed.map_err(|_| wrong("Attention or Transformer2DModel"))?;
            } else {
                let parsed = place.as_deref().map(str::parse::<TextLayers>).transpose();
                options.text_layers =
                    parsed.map_err(|_| wrong("CLIPAttention or CLIPEncoderLayer"))?;
            }
        }
        match part {
            "unet" => (options.unet_rank, options.unet_lr) = (rank, rate),
            _ => (options.text_rank, options.text_lr) = (rank, rate),
        }
    }
    if let [(first, _), (second, key)] = alphas.as_slice()
        && first != second
    {
        let expected = format!("{first}, the other network's: both have one factor");
        return Err(Error::Key {
            path: models.file.to_path_buf(),
            key: key.clone(),
            found: second.to_string(),
            expected,
        });
    }
    options.alpha = alphas.first().map(|(alpha, _)| *alpha as f32);
    Ok(())
}

fn read_transforms(train: &Node, options: &mut Options, notes: &mut Vec<String>) -> Result<()> {
    // Each option is off unless a transform turns it on.
    (options.crop, options.shuffle_tags, options.templates) =
        (Some(0.0), Some(false), Some(Templates::None));
    (options.kind, options.template_sentences) = (Some(Kind::Person), Some(true));
    (options.scale_min, options.variants) = (Some(1.0), Some(0));
    for transform in train.list("instance_transform")? {
        let name = transform.text("type")?.unwrap_or_default();
        if let Some(size) = transform.whole::<usize>("size")? {
            options.size = Some(format!("{size}x{size}"));
        }
        match name.as_str() {
            "HumanResizeCropFinal" | "HumanResizeCropFinalV3" => {
                options.crop = Some(transform.number("crop_p")?.unwrap_or(0.5));
            }
            "ResizeFillMaskNew" => {
                options.crop = Some(transform.number("crop_p")?.unwrap_or(0.0));
                let ratios = transform.numbers("scale_ratio")?;
                if let [low, high] = ratios[..] {
                    (options.scale_min, options.scale_max) = (Some(low), Some(high));
                }
                options.kind = Some(Kind::Object);
            }
            "RandomCrop" | "PairRandomCrop" | "CenterCrop" => options.crop = Some(1.0),
            "Resize" | "PairResize" | "BILINEARResize" | "ToTensor" | "Normalize" => {}
            "ShuffleCaption" => {
                options.shuffle_tags = Some(true);
                options.keep_tags = transform.whole("keep_token_num")?;
            }
            "EnhanceText" => {
                let kind = transform.text("enhance_type")?.unwrap_or_else(|| "objects".into());
                options.templates = Some(match kind.as_str() {
                    "human" => Templates::Person,
                    "object" | "objects" => Templates::Object,
                    "style" => Templates::Style,
                    _ => {
                        return Err(transform.wrong(
                            "enhance_type",
                            &kind,
                            "human, object or style",
                        ));
                    }
                });
            }
            _ => notes.push(format!(
                "the transform {name} ({}) is not known and left out",
                transform.key
            )),
        }
    }
    Ok(())
}

fn read_pictures(train: &Node, options: &mut Options) -> Result<()> {
    let list = train.needed_text("concept_list")?;
    let path = train
        .find(&list)
        .ok_or_else(|| train.wrong("concept_list", &list, "a JSON file that exists"))?;
    let text = read_text(&path, "a list of concepts (JSON)").map_err(Error::unreadable(&path))?;
    let root: Value = serde_json::from_str(&text).map_err(|e| Error::Invalid {
        path: path.clone(),
        problem: format!("not a list of concepts: {e}"),
    })?;
    let root = Node { file: &path, key: String::new(), value: &root };
    let use_caption = train.flag("use_caption")?.unwrap_or(false);
    let use_mask = train.flag("use_mask")?.unwrap_or(options.mask_loss.unwrap_or(false));
    // Their captions may name other marks than ours.
    let marks: Vec<(String, String)> = match train.get("replace_mapping")? {
        Some(mapping) => mapping
            .map()?
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string())))
            .collect(),
        None => Vec::new(),
    };
    let ours =
        |text: String| marks.iter().fold(text, |text, (mark, _)| text.replace(mark, PLACEHOLDER));
    let mut folders = Vec::new();
    for (index, concept) in root.elements()?.iter().enumerate() {
        let entry = Node { file: &path, key: format!("[{index}]"), value: concept };
        let folder = |key: &str| -> Result<Option<PathBuf>> {
            let Some(named) = entry.text(key)? else { return Ok(None) };
            // What is not there is named by the check of the pictures, as the file has it.
            Ok(Some(
                train
                    .find(&named)
                    .or_else(|| entry.find(&named))
                    .unwrap_or_else(|| PathBuf::from(&named)),
            ))
        };
        let pictures = folder("instance_data_dir")?.ok_or_else(|| {
            entry.wrong("instance_data_dir", "missing", "the folder of the pictures")
        })?;
        let captions = folder("caption_dir")?.filter(|_| use_caption);
        let masks = folder("mask_dir")?.filter(|_| use_mask);
        folders.push(PictureFolder {
            pictures,
            captions,
            masks,
            caption: entry.text("instance_prompt")?.map(ours),
        });
    }
    if folders.is_empty() {
        return Err(Error::Invalid { path, problem: "no concept in the list".into() });
    }
    options.folders = Some(folders);
    if options.words.is_none() {
        options.words = marks.first().map(|(_, words)| words.clone());
    }
    Ok(())
}

fn read_training(
    root: &Node,
    train: &Node,
    total: usize,
    options: &mut Options,
    notes: &mut Vec<String>,
) -> Result<()> {
    let training = root.need("train")?;
    options.norm_stop = Some(training.number("emb_norm_threshold")?.unwrap_or(0.0) as f32);
    if let Some(optimiser) = training.get("optim_g")? {
        let name = optimiser.text("type")?.unwrap_or_else(|| "AdamW".into());
        if name != "AdamW" {
            return Err(optimiser.wrong("type", &name, "AdamW"));
        }
        options.weight_decay = optimiser.number("weight_decay")?.map(|v| v as f32);
        if let [first, second] = optimiser.numbers("betas")?[..] {
            (options.beta1, options.beta2) = (Some(first as f32), Some(second as f32));
        }
    }
    let scheduler = match training.get("scheduler")? {
        Some(node) if node.value.is_object() => node.text("type")?,
        Some(_) => training.text("scheduler")?,
        None => None,
    };
    options.decay = Some(match scheduler.as_deref() {
        None | Some("linear" | "LinearLR") => Decay::Linear,
        Some("constant") => Decay::Constant,
        Some("cosine") => Decay::Cosine,
        Some(other) => {
            return Err(training.wrong("scheduler", other, "linear, cosine or constant"));
        }
    });
    for key in ["unet_kv_drop_rate", "kde_opt"] {
        let off = training.get(key)?.is_none_or(|node| node.value.as_f64() == Some(0.0));
        if !off {
            notes.push(format!("`train.{key}` has no counterpart here and is left out"));
        }
    }
    options.steps = match training.whole("total_iter")? {
        Some(steps) => Some(steps),
        None => {
            let repeats = train.whole("dataset_enlarge_ratio")?.unwrap_or(1);
            let pictures: usize =
                options.folders.iter().flatten().map(|found| folder::count(&found.pictures)).sum();
            Some((pictures * repeats / total.max(1)).max(1))
        }
    };
    let map = root.map()?;
    let known = [
        "name",
        "manual_seed",
        "num_gpu",
        "gradient_accumulation_steps",
        "datasets",
        "models",
        "network_g",
        "train",
        "val",
    ];
    let unknown: Vec<_> = map
        .keys()
        .filter(|key| !known.contains(&key.as_str()) && !WITHOUT_MEANING.contains(&key.as_str()))
        .collect();
    if !unknown.is_empty() {
        notes.push(format!("not read: {unknown:?}"));
    }
    Ok(())
}

fn read_validation(root: &Node, options: &mut Options, notes: &mut Vec<String>) -> Result<()> {
    if let Some(val) = root.get("val")? {
        let scales = val.numbers("alpha_list")?;
        options.sheet_scales =
            (!scales.is_empty()).then(|| scales.iter().map(|scale| *scale as f32).collect());
        if let Some(sample) = val.get("sample")? {
            options.sheet_steps = sample.whole("num_inference_steps")?;
            options.sheet_guidance = sample.number("guidance_scale")?.map(|v| v as f32);
        }
    }
    let Some(shown) = root.need("datasets")?.get("val_vis")? else { return Ok(()) };
    let Some(list) = shown.text("prompts")? else { return Ok(()) };
    match shown.find(&list) {
        Some(path) => {
            let text = read_text(&path, "prompts, one a line").map_err(Error::unreadable(&path))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            // One per line; a file of sixty would make a sheet that takes longer than the tuning.
            let prompts: Vec<String> =
                lines.map(|line| with_words(line, PLACEHOLDER)).take(LONGEST_PROMPTS).collect();
            options.prompts = (!prompts.is_empty()).then_some(prompts);
        }
        None => notes.push(format!("{list} is not there: sheets show the prompts of their kind")),
    }
    Ok(())
}
