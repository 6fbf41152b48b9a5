//! Towers that see pictures, alone or beside one that reads, for scores: CLIP's, DINO's and
//! DINOv2's, CSD's, as Hugging Face, OpenAI, open_clip, timm and torch's hub lay them out.
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::component::{Component, Part, Targets};
use super::describe::describe_file;
use super::infer::heads_of_64;
use super::model::TokenizerFiles;
use super::part::{self, NetworkFiles};
use super::whole::open_model;
use super::{Error, Folder, TensorFile, hub, openclip};

/// What kind of tower it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TowerKind {
    /// CLIP's two: one sees, one reads.
    Clip,
    /// A vision transformer that learnt without texts: DINO, DINOv2.
    Dino,
    /// CSD's: CLIP's vision tower with a projection for style in place of its own.
    Style,
}

impl std::fmt::Display for TowerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TowerKind::Clip => "CLIP",
            TowerKind::Dino => "a vision transformer of DINO's kind",
            TowerKind::Style => "a style tower (CSD)",
        })
    }
}

/// Opened towers. CLIP's and CSD's tensors have Hugging Face's names (CSD's projection the name of
/// CLIP's); DINO's those of [`crate::models::vit`].
#[derive(Debug, Clone)]
pub struct Tower {
    /// What it is.
    pub kind: TowerKind,
    /// Weights and configuration; of CLIP, both towers'.
    pub component: Component,
    /// `preprocessor_config.json`, where there is one.
    pub preprocessor: Option<Value>,
    /// Of the tower that reads.
    pub tokenizer: TokenizerFiles,
    /// What was assumed, in sentences for the user.
    pub notes: Vec<String>,
}

/// How a file's tensors are called, after what stands before all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// CLIP by Hugging Face.
    Clip,
    /// CLIP by OpenAI and open_clip.
    OpenAi,
    /// CSD's.
    Style,
    /// DINO by its authors and by timm.
    Hub,
    /// DINO by Hugging Face.
    Vit,
}

/// A name by which each layout is known.
const MARKS: [(&str, Layout); 5] = [
    ("last_layer_style", Layout::Style),
    ("visual.conv1.weight", Layout::OpenAi),
    ("vision_model.embeddings.class_embedding", Layout::Clip),
    ("embeddings.cls_token", Layout::Vit),
    ("cls_token", Layout::Hub),
];

/// Names of towers of the same families that are built otherwise, and what they are.
const OTHERS: [(&str, &str); 6] = [
    ("visual.layer1.0.conv1.weight", "a CLIP whose vision tower is a ResNet"),
    ("visual.trunk.", "an open_clip model with a vision tower of timm's"),
    (".mlp.w12.", "a DINOv2 with gated feed-forward layers (giant)"),
    (".mlp.weights_in.", "a DINOv2 with gated feed-forward layers (giant)"),
    ("visual.attn_pool.", "an open_clip model with attention pooling (CoCa)"),
    ("text.transformer.", "an open_clip model with a text tower of another kind"),
];

impl Tower {
    /// Opens a folder of Hugging Face's or open_clip's, or a file whose names tell what it is.
    /// CLIP's vision tower may stand alone: then there is no `text_config`.
    ///
    /// # Errors
    /// Files that cannot be read, or hold something else.
    pub fn open(path: &Path) -> Result<Tower, Error> {
        let path = &hub::snapshot(path)?;
        let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        if meta.is_dir() {
            return Tower::in_folder(&Folder::disk(path));
        }
        let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let files = NetworkFiles { files: vec![open_model(path)?], owner: None };
        Tower::of(path, &Folder::disk(beside.unwrap_or(Path::new("."))), files)
    }

    /// Opens one of a folder on disk, or compiled in.
    pub(super) fn in_folder(folder: &Folder) -> Result<Tower, Error> {
        let files = match folder.has("config.json") {
            true => part::files(folder, "model", None)?,
            // open_clip's own.
            false => part::files(folder, "open_clip_model", None)
                .or_else(|_| part::files(folder, "open_clip_pytorch_model", None))?,
        };
        Tower::of(folder.path(), folder, files)
    }

    fn of(path: &Path, folder: &Folder, files: NetworkFiles) -> Result<Tower, Error> {
        let said = |name: &str| folder.json(name);
        let (config, open_clip) = (said("config.json")?, said("open_clip_config.json")?);
        let NetworkFiles { files, owner } = files;
        let (layout, prefix) = layout(path, &files)?;
        let component =
            Component::gather(path, files.into_iter().map(Arc::new).collect(), |index, name| {
                let elsewhere = owner.as_ref().is_some_and(|o| o.get(name) != Some(&index));
                if elsewhere {
                    return Some(Vec::new());
                }
                Some(match name.strip_prefix(prefix.as_str()) {
                    Some(name) => layout.names(name),
                    None => Vec::new(),
                })
            })?;
        let mut tower = Tower {
            kind: layout.kind(),
            component,
            preprocessor: said("preprocessor_config.json")?,
            tokenizer: TokenizerFiles::Standard { pad: "<|endoftext|>" },
            notes: Vec::new(),
        };
        if layout == Layout::Clip && folder.has("vocab.json") && folder.has("merges.txt") {
            tower.tokenizer = TokenizerFiles::Folder(folder.clone());
        }
        tower.component.config = match layout {
            Layout::Hub | Layout::Vit => tower.dino(config.as_ref())?,
            _ => tower.clip(layout, config.as_ref(), open_clip.as_ref())?,
        };
        Ok(tower)
    }

    /// A size of a tensor.
    fn size(&self, tensor: &str, axis: usize) -> Result<usize, Error> {
        let size = self.component.shape(tensor).and_then(|shape| shape.get(axis).copied());
        size.filter(|size| *size > 0).ok_or_else(|| {
            let missing = self.component.require_all([tensor]).err();
            missing.unwrap_or_else(|| self.wrong(format!("`{tensor}` has too few dimensions")))
        })
    }

    fn wrong(&self, problem: String) -> Error {
        Error::Unrecognised { path: self.component.path().to_path_buf(), problem }
    }

    fn layers(&self, before: &str, after: &str) -> usize {
        (0..).take_while(|i| self.component.contains(&format!("{before}{i}{after}"))).count()
    }

    /// A configuration as Hugging Face's, of CLIP's one or two towers.
    fn clip(
        &mut self,
        layout: Layout,
        config: Option<&Value>,
        open_clip: Option<&Value>,
    ) -> Result<Value, Error> {
        let (own, other) = (
            config.filter(|_| layout == Layout::Clip),
            open_clip.filter(|_| layout != Layout::Clip).and_then(|config| config.get("model_cfg")),
        );
        let quick = |on: bool| if on { "quick_gelu" } else { "gelu" };
        let activation = match (layout, other) {
            (_, Some(model)) => {
                quick(model.get("quick_gelu").and_then(Value::as_bool).unwrap_or(false))
            }
            (Layout::Clip, None) if own.is_none() => {
                self.notes.push(
                    "no config.json says which nonlinearity it has: OpenAI's (quick_gelu) is \
                        assumed"
                        .into(),
                );
                quick(true)
            }
            // OpenAI's own files tell the sizes too, which nobody else's do.
            (Layout::OpenAi, None) if !self.component.contains(OPENAI) => {
                self.notes.push(
                    "no open_clip_config.json says which nonlinearity it has: OpenAI's \
                        (quick_gelu) is assumed"
                        .into(),
                );
                quick(true)
            }
            _ => quick(true),
        };
        let pixels = "vision_model.embeddings.patch_embedding.weight";
        let (width, patch) = (self.size(pixels, 0)?, self.size(pixels, 2)?);
        let positions = self.size("vision_model.embeddings.position_embedding.weight", 0)?;
        let side = square(positions.saturating_sub(1)).ok_or_else(|| {
            self.wrong(format!("{positions} positions of a picture, expected 1 and a square"))
        })?;
        let joint = self.size("visual_projection.weight", 0)?;
        let head = |tower: &str| other.and_then(|model| model.get(tower)?.get("head_width"));
        let heads = match head("vision_cfg").and_then(Value::as_u64) {
            Some(head) => width / (head as usize).max(1),
            None => heads_of_64(width),
        };
        let vision = json!({
            "hidden_act": activation,
            "hidden_size": width,
            "image_size": side * patch,
            "intermediate_size": self.size("vision_model.encoder.layers.0.mlp.fc1.weight", 0)?,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": heads,
            "num_channels": self.size(pixels, 1)?,
            "num_hidden_layers": self.layers("vision_model.encoder.layers.", ".mlp.fc1.weight"),
            "patch_size": patch,
            "projection_dim": joint,
        });
        let mut whole = Map::new();
        whole.insert("model_type".into(), "clip".into());
        // A vision tower alone has its configuration to itself.
        let alone = own.filter(|own| own.get("vision_config").is_none());
        let vision_config = alone.or(own.map(|own| &own["vision_config"]));
        whole.insert("vision_config".into(), over(vision, vision_config));
        let table = "text_model.embeddings.token_embedding.weight";
        if layout != Layout::Style && self.component.contains(table) {
            let width = self.size(table, 1)?;
            let heads = other.and_then(|model| model.get("text_cfg")?.get("heads")?.as_u64());
            let longest = self.size("text_model.embeddings.position_embedding.weight", 0)?;
            let text = json!({
                "hidden_act": activation,
                "hidden_size": width,
                "intermediate_size": self.size("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
                "layer_norm_eps": 1e-5,
                "max_position_embeddings": longest,
                "num_attention_heads": heads.map_or(heads_of_64(width), |heads| heads as usize),
                "num_hidden_layers": self.layers("text_model.encoder.layers.", ".mlp.fc1.weight"),
                "projection_dim": joint,
                "vocab_size": self.size(table, 0)?,
            });
            whole.insert("text_config".into(), over(text, own.map(|own| &own["text_config"])));
        }
        Ok(Value::Object(whole))
    }

    /// The configuration of [`crate::models::config::VitConfig`].
    fn dino(&mut self, config: Option<&Value>) -> Result<Value, Error> {
        let (width, patch) =
            (self.size("patch_embed.weight", 0)?, self.size("patch_embed.weight", 2)?);
        let number = |key: &str| config.and_then(|config| config.get(key)).cloned();
        let registers = self.component.shape("registers").map_or(0, |shape| {
            shape.iter().product::<usize>() / shape.last().copied().unwrap_or(1).max(1)
        });
        let positions = self.component.shape("pos_embed").map_or(0, |shape| {
            shape.iter().product::<usize>() / shape.last().copied().unwrap_or(1).max(1)
        });
        Ok(json!({
            "hidden_size": width,
            "intermediate_size": self.size("blocks.0.mlp.fc1.weight", 0)?,
            "layer_norm_eps": number("layer_norm_eps").unwrap_or(json!(1e-6)),
            "layer_scale": self.component.contains("blocks.0.ls1"),
            "num_attention_heads":
                number("num_attention_heads").unwrap_or(json!(heads_of_64(width))),
            "num_hidden_layers": self.layers("blocks.", ".mlp.fc1.weight"),
            "num_registers": registers,
            "patch_size": patch,
            "positions": positions,
        }))
    }
}

/// What only OpenAI's own files hold, under a name that no network has.
const OPENAI: &str = "openai.input_resolution";

/// What `own` says in place of what was inferred, but for the width that both towers share: a
/// CLIP's parts name another where nobody asked them.
fn over(inferred: Value, own: Option<&Value>) -> Value {
    let (Value::Object(mut all), Some(Value::Object(own))) = (inferred.clone(), own) else {
        return inferred;
    };
    all.extend(
        own.iter().filter(|(key, _)| *key != "projection_dim").map(|(k, v)| (k.clone(), v.clone())),
    );
    Value::Object(all)
}

fn square(count: usize) -> Option<usize> {
    let side = count.isqrt();
    (side > 0 && side * side == count).then_some(side)
}

/// The layout of the tensors' names, and what stands before all of them.
fn layout(path: &Path, files: &[TensorFile]) -> Result<(Layout, String), Error> {
    let unreadable = |problem| Error::Unrecognised { path: path.to_path_buf(), problem };
    let names = || files.iter().flat_map(TensorFile::names);
    if let Some((_, what)) = OTHERS.iter().find(|(mark, _)| names().any(|name| name.contains(mark)))
    {
        return Err(unreadable(format!("this is {what}, which is not supported as a tower")));
    }
    for (mark, layout) in MARKS {
        let before = |name: &str| {
            let prefix = name.strip_suffix(mark)?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_string())
        };
        let mut found: Vec<String> = names().filter_map(before).collect();
        // A trainer keeps a student beside the teacher, who is the one that counts.
        found.sort_by_key(|prefix| (!prefix.contains("teacher"), prefix.len()));
        if let Some(prefix) = found.into_iter().next() {
            return Ok((layout, prefix));
        }
    }
    let what = files.first().map(|file| describe_file(file).what.describe());
    Err(unreadable(format!(
        "no tower that scores are measured with ({}): expected CLIP (Hugging Face's, OpenAI's or \
            open_clip's names), DINO or DINOv2 (Hugging Face's, timm's or torch hub's) or CSD",
        what.map_or("there are no tensors".to_string(), |what| format!("this is a {what}"))
    )))
}

impl Layout {
    fn kind(self) -> TowerKind {
        match self {
            Layout::Clip | Layout::OpenAi => TowerKind::Clip,
            Layout::Style => TowerKind::Style,
            Layout::Hub | Layout::Vit => TowerKind::Dino,
        }
    }

    fn names(self, name: &str) -> Targets {
        match self {
            Layout::Clip => clip(name),
            Layout::OpenAi => open_ai(name),
            Layout::Style => style(name),
            Layout::Hub => dino_of_hub(name).unwrap_or_default(),
            Layout::Vit => vit(name).unwrap_or_default(),
        }
    }
}

fn whole(name: impl Into<String>) -> Targets {
    vec![(name.into(), Part::Whole)]
}

fn clip(name: &str) -> Targets {
    let kept = ["text_model.", "vision_model.", "text_projection.", "visual_projection."];
    match kept.iter().any(|kept| name.starts_with(kept)) && !name.ends_with("position_ids") {
        true => whole(name),
        false => Vec::new(),
    }
}

fn open_ai(name: &str) -> Targets {
    if let Some(name) = name.strip_prefix("visual.") {
        return match name {
            "proj" => vec![("visual_projection.weight".into(), Part::Transposed)],
            name => seeing(name),
        };
    }
    match name {
        "input_resolution" => whole(OPENAI),
        name => openclip::names(name),
    }
}

/// CLIP's vision tower by OpenAI's names, but for its projection.
fn seeing(name: &str) -> Targets {
    let embeddings = "vision_model.embeddings.";
    match name {
        "class_embedding" => return whole(format!("{embeddings}class_embedding")),
        "conv1.weight" => return whole(format!("{embeddings}patch_embedding.weight")),
        "positional_embedding" => return whole(format!("{embeddings}position_embedding.weight")),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("transformer.resblocks.") {
        return openclip::layer(rest, "vision_model");
    }
    // Transformers spells the first so.
    [("ln_pre.", "vision_model.pre_layrnorm."), ("ln_post.", "vision_model.post_layernorm.")]
        .iter()
        .find_map(|(from, to)| name.strip_prefix(from).map(|rest| whole(format!("{to}{rest}"))))
        .unwrap_or_default()
}

fn style(name: &str) -> Targets {
    match name {
        "last_layer_style" => vec![("visual_projection.weight".into(), Part::Transposed)],
        name => name.strip_prefix("backbone.").map(seeing).unwrap_or_default(),
    }
}

fn dino_of_hub(name: &str) -> Option<Targets> {
    match name {
        "cls_token" | "pos_embed" => return Some(whole(name)),
        "register_tokens" | "reg_token" => return Some(whole("registers")),
        _ => {}
    }
    if let Some(parameter) = name.strip_prefix("patch_embed.proj.") {
        return Some(whole(format!("patch_embed.{parameter}")));
    }
    if name.starts_with("norm.") {
        return Some(whole(name));
    }
    let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let block = format!("blocks.{block}");
    if let Some(parameter) = rest.strip_prefix("attn.qkv.") {
        let part = |(i, which)| (format!("{block}.attn.{which}.{parameter}"), Part::Rows(i, 3));
        return Some(["q", "k", "v"].into_iter().enumerate().map(part).collect());
    }
    match rest {
        "ls1.gamma" => return Some(whole(format!("{block}.ls1"))),
        "ls2.gamma" => return Some(whole(format!("{block}.ls2"))),
        _ => {}
    }
    let kept = ["norm1.", "norm2.", "attn.proj.", "mlp.fc1.", "mlp.fc2."];
    kept.iter().any(|kept| rest.starts_with(kept)).then(|| whole(format!("{block}.{rest}")))
}

fn vit(name: &str) -> Option<Targets> {
    if let Some(rest) = name.strip_prefix("embeddings.") {
        return match rest {
            "cls_token" => Some(whole("cls_token")),
            "position_embeddings" => Some(whole("pos_embed")),
            "register_tokens" => Some(whole("registers")),
            other => other
                .strip_prefix("patch_embeddings.projection.")
                .map(|parameter| whole(format!("patch_embed.{parameter}"))),
        };
    }
    if let Some(parameter) = name.strip_prefix("layernorm.") {
        return Some(whole(format!("norm.{parameter}")));
    }
    let layer = ["encoder.layer.", "layers."].iter().find_map(|before| name.strip_prefix(before));
    let (block, rest) = layer?.split_once('.')?;
    let block = format!("blocks.{block}");
    match rest {
        "layer_scale1.lambda1" => return Some(whole(format!("{block}.ls1"))),
        "layer_scale2.lambda1" => return Some(whole(format!("{block}.ls2"))),
        _ => {}
    }
    // Older names, then newer ones.
    let names = [
        ("attention.attention.query.", "attn.q."),
        ("attention.attention.key.", "attn.k."),
        ("attention.attention.value.", "attn.v."),
        ("attention.output.dense.", "attn.proj."),
        ("attention.q_proj.", "attn.q."),
        ("attention.k_proj.", "attn.k."),
        ("attention.v_proj.", "attn.v."),
        ("attention.o_proj.", "attn.proj."),
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
        ("norm1.", "norm1."),
        ("norm2.", "norm2."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("mlp.fc1.", "mlp.fc1."),
        ("mlp.fc2.", "mlp.fc2."),
    ];
    names.iter().find_map(|(from, to)| {
        rest.strip_prefix(from).map(|rest| whole(format!("{block}.{to}{rest}")))
    })
}
