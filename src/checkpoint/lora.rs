//! Recognising a LoRA's dialect, ranks and scales from a file's names and shapes.
use super::TensorFile;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A program's way to write a concept or LoRA: who names tensors this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// kohya's: `lora_unet_...lora_down.weight`, scaled by alpha / rank.
    Kohya,
    /// PEFT's: `base_model.model....lora_A.weight`.
    Peft,
    /// diffusers': `unet....lora_A.weight`, or the older `...processor.to_q_lora.down.weight` and
    /// `...lora.down.weight`.
    Diffusers,
    /// This program's: `unet....lora_down.weight`, scaled as its metadata says.
    Mos,
    /// Mix-of-Show's: `down_blocks....lora_down.weight`, scaled by alpha alone.
    MixOfShow,
    /// ComfyUI's: `diffusion_model....lora_down.weight`, scaled by alpha / rank.
    #[serde(rename = "comfyui")]
    ComfyUi,
    /// The first LoRA program's: `unet:0:down`, or a list.
    #[serde(rename = "cloneofsimo")]
    CloneOfSimo,
    /// A textual inversion: words without a LoRA.
    TextualInversion,
}

/// How the change of a weight is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A product of two low-rank matrices.
    Lora,
    /// An elementwise product of two such products.
    Loha,
    /// A Kronecker product.
    Lokr,
    /// Another change, with lengths of its own.
    Dora,
    /// The whole change of a weight or a bias.
    Full,
    /// The change of a norm's weight and bias.
    Norm,
    /// Channels scaled.
    Ia3,
}

/// The models that a LoRA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 2.x.
    Sd2,
    /// Stable Diffusion XL.
    Sdxl,
    /// Stable Diffusion 3, Flux and the like.
    Other,
}

impl Family {
    /// This program runs such models.
    pub fn is_supported(self) -> bool {
        self != Self::Other
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Sd1 => "Stable Diffusion 1.x",
            Self::Sd2 => "Stable Diffusion 2.x",
            Self::Sdxl => "Stable Diffusion XL",
            Self::Other => "Stable Diffusion 3, Flux or the like",
        }
    }

    /// By layers that only some models have, else by the width of what cross-attention reads.
    fn of(file: &TensorFile) -> Option<Family> {
        let has = |parts: &[&str]| file.names().any(|name| parts.iter().any(|p| name.contains(p)));
        if has(&["lora_te2_", "text_encoder_2.", "lycoris_te2_", "text_encoders.clip_g."]) {
            return Some(Self::Sdxl);
        }
        if has(&["double_blocks", "single_blocks", "joint_blocks", "single_transformer_blocks"]) {
            return Some(Self::Other);
        }
        let reads_prompts = |name: &str| {
            name.contains("attn2") && ["to_k", "to_v"].iter().any(|p| name.contains(p))
        };
        let is_down = |name: &str| DOWN.iter().any(|(e, f)| *f == Form::Lora && name.ends_with(e));
        let width = file
            .entries()
            .iter()
            .find(|(name, _)| reads_prompts(name) && is_down(name))
            .and_then(|(_, entry)| entry.shape.get(1).copied())?;
        [(768, Self::Sd1), (1024, Self::Sd2), (2048, Self::Sdxl)]
            .into_iter()
            .find_map(|(known, family)| (known == width).then_some(family))
    }
}

/// A LoRA in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraReport {
    /// Whose names.
    pub dialect: Dialect,
    /// Forms in use.
    pub forms: BTreeSet<Form>,
    /// Number of changed layers by network: `unet`, `text_encoder`, `text_encoder_2`.
    pub layers: BTreeMap<String, usize>,
    /// Rank -> number of layers. Layers of a LoKr whose factors are whole matrices have none.
    pub ranks: BTreeMap<usize, usize>,
    /// Alphas in the file, as written, each with its number of layers; empty where the file stores
    /// none.
    pub alphas: BTreeMap<String, usize>,
    /// Embeddings of new words that come along: word -> [layers, width], or [vectors, width] of a
    /// textual inversion.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, Vec<usize>>,
    /// The models that it is for, where its layers tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_for: Option<Family>,
    /// Hash of the model that it was tuned on, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// Endings of tensors that tell a form; the rows of most are the rank.
const DOWN: [(&str, Form); 20] = [
    (".lora_down.weight", Form::Lora),
    (".lora_A.weight", Form::Lora),
    (".lora_A.default.weight", Form::Lora),
    ("_lora.down.weight", Form::Lora),
    (".lora.down.weight", Form::Lora),
    (".lora_linear_layer.down.weight", Form::Lora),
    (".hada_w1_b", Form::Loha),
    (".lokr_w2_b", Form::Lokr),
    (".lokr_w1_b", Form::Lokr),
    (".lokr_w2", Form::Lokr),
    (".lokr_w1", Form::Lokr),
    (":down", Form::Lora),
    (".diff", Form::Full),
    (".diff_b", Form::Full),
    (".w_norm", Form::Norm),
    (".b_norm", Form::Norm),
    (".on_input", Form::Ia3),
    (".ia3_l", Form::Ia3),
    (".dora_scale", Form::Dora),
    (".lora_magnitude_vector", Form::Dora),
];
/// Those whose tensors have no rank.
const WHOLE: [&str; 10] = [
    ".lokr_w1",
    ".lokr_w2",
    ".diff",
    ".diff_b",
    ".w_norm",
    ".b_norm",
    ".on_input",
    ".ia3_l",
    ".dora_scale",
    ".lora_magnitude_vector",
];

/// Endings of second matrices.
const UP: [&str; 7] = [
    ".lora_up.weight",
    ".lora_B.weight",
    ".lora_B.default.weight",
    "_lora.up.weight",
    ".lora.up.weight",
    ".lora_linear_layer.up.weight",
    ":up",
];

/// Whether the file has second matrices of a LoRA; [`describe`] knows it by the first ones.
pub(super) fn has_ups(file: &TensorFile) -> bool {
    file.names().any(|name| UP.iter().any(|ending| name.ends_with(ending)))
}

/// Describes a LoRA, or says that the file is none.
pub(super) fn describe(file: &TensorFile) -> Option<LoraReport> {
    // Layer -> forms and rank. A LoKr layer can have both factors split; the ranks are then equal.
    let mut found: BTreeMap<&str, (BTreeSet<Form>, Option<usize>)> = BTreeMap::new();
    let mut dialect = None;
    let ours = file.metadata().contains_key("mos_concept");
    for (name, entry) in file.entries() {
        let Some((layer, ending, form)) =
            DOWN.iter().find_map(|(e, form)| name.strip_suffix(e).map(|layer| (layer, *e, *form)))
        else {
            continue;
        };
        let rank = entry.shape.first().copied().filter(|_| !WHOLE.contains(&ending));
        let slot = found.entry(layer).or_default();
        slot.0.insert(form);
        slot.1 = slot.1.or(rank);
        dialect.get_or_insert_with(|| dialect_of(name, ending));
    }
    if dialect.is_none()
        && let Some(listed) = of_list(file)
    {
        return Some(listed);
    }
    let word = |name: &str| {
        let ours = name.strip_prefix("words.").filter(|_| ours);
        let theirs = || Some(name.split_once("new_concept_embedding.")?.1);
        let kohyas = || name.strip_prefix("bundle_emb.")?.split(".string_to_param").next();
        let marked = || {
            Some(name)
                .filter(|name| file.metadata().get(*name).is_some_and(|value| value == "<embed>"))
        };
        ours.or_else(theirs).or_else(kohyas).or_else(marked).map(str::to_string)
    };
    let words: BTreeMap<_, _> =
        file.entries().iter().filter_map(|(n, e)| Some((word(n)?, e.shape.clone()))).collect();
    let dialect = match dialect {
        _ if ours => Dialect::Mos,
        // Words alone are a concept of the method's too.
        None if !words.is_empty() => Dialect::MixOfShow,
        found => found?,
    };
    let settings = super::LoraSettings::of(file).ok().flatten();
    let base = file.metadata().get("mos_base").filter(|_| ours).cloned();
    let (mut forms, mut layers) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    let (mut ranks, mut alphas) =
        (BTreeMap::<usize, usize>::new(), BTreeMap::<String, usize>::new());
    for (layer, (of_layer, rank)) in &found {
        forms.extend(of_layer);
        *layers.entry(network(layer).to_string()).or_default() += 1;
        if let Some(rank) = rank {
            *ranks.entry(*rank).or_default() += 1;
        }
        if let Some(scale) = ours.then(|| file.metadata().get(scale_key(layer))).flatten() {
            *alphas.entry(scale.clone()).or_default() += 1;
        }
        if let Some(alpha) = file.tensor(&format!("{layer}.alpha")).filter(|a| a.len() == 1) {
            *alphas.entry(alpha.to_f32(0..1)[0].to_string()).or_default() += 1;
        } else if let Some(Ok(Some(told))) =
            settings.as_ref().filter(|_| !ours).map(|all| scaling(all, layer))
        {
            *alphas.entry(told.alpha.to_string()).or_default() += 1;
        }
    }
    let made_for = Family::of(file);
    Some(LoraReport { dialect, forms, layers, ranks, alphas, words, made_for, base })
}

/// The first LoRA program's list of matrices, up and down by turns; those of the text encoder are
/// of square weights.
fn of_list(file: &TensorFile) -> Option<LoraReport> {
    let shape = |number: usize| {
        file.entries()
            .get(&number.to_string())
            .map(|entry| &entry.shape[..])
            .filter(|s| s.len() == 2)
    };
    let pairs = file.len() / 2;
    let mut report = LoraReport {
        dialect: Dialect::CloneOfSimo,
        forms: BTreeSet::from([Form::Lora]),
        layers: BTreeMap::new(),
        ranks: BTreeMap::new(),
        alphas: BTreeMap::new(),
        words: BTreeMap::new(),
        made_for: None,
        base: None,
    };
    let mut square = true;
    for pair in 0..pairs {
        let (&[rows, rank], &[same, columns]) = (shape(2 * pair)?, shape(2 * pair + 1)?) else {
            return None;
        };
        if rank != same {
            return None;
        }
        square &= rows == columns;
        *report.ranks.entry(rank).or_default() += 1;
    }
    let network = if square { "text_encoder" } else { "unet" };
    report.layers.insert(network.to_string(), pairs);
    (pairs > 0 && file.len() == 2 * pairs).then_some(report)
}

/// What settings outside of the tensors say of a layer, by its name in the file.
fn scaling(settings: &super::LoraSettings, layer: &str) -> Result<Option<super::Scaling>, String> {
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let networks = ["unet.", "text_encoder.", "text_encoder_2."];
    let inside = networks.iter().find_map(|network| layer.strip_prefix(network));
    settings.scaling(network(layer), inside.unwrap_or(layer))
}

impl LoraReport {
    /// Takes in another file of the same LoRA.
    pub(super) fn take(&mut self, other: LoraReport) {
        fn add<K: Ord>(to: &mut BTreeMap<K, usize>, from: BTreeMap<K, usize>) {
            from.into_iter().for_each(|(key, count)| *to.entry(key).or_default() += count);
        }
        self.forms.extend(other.forms);
        add(&mut self.layers, other.layers);
        add(&mut self.ranks, other.ranks);
        add(&mut self.alphas, other.alphas);
        self.words.extend(other.words);
        self.made_for = self.made_for.or(other.made_for);
    }
}

/// Of our own files: where the factor of a layer's update is.
fn scale_key(layer: &str) -> &'static str {
    match network(layer) {
        "unet" => "mos_scale_unet",
        "text_encoder_2" => "mos_scale_text_2",
        _ => "mos_scale_text",
    }
}

/// `unet:3:down`.
fn is_unnamed(name: &str) -> bool {
    let number =
        name.strip_suffix(":down").and_then(|rest| rest.rsplit_once(':')).map(|(_, number)| number);
    number.is_some_and(|number| number.parse::<usize>().is_ok())
}

fn dialect_of(name: &str, ending: &str) -> Dialect {
    if name.starts_with("base_model.model.") {
        return Dialect::Peft;
    }
    if ["diffusion_model.", "model.diffusion_model.", "text_encoders."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    {
        return Dialect::ComfyUi;
    }
    if is_unnamed(name) {
        return Dialect::CloneOfSimo;
    }
    let dotted = || name.strip_suffix(ending).is_some_and(|layer| layer.contains('.'));
    match ending {
        ".lora_down.weight" if dotted() => Dialect::MixOfShow,
        e if e.starts_with(".lora_A") || e.contains("down.weight") && e != ".lora_down.weight" => {
            Dialect::Diffusers
        }
        // Without kohya's prefix: PEFT's other kinds.
        _ if dotted() => Dialect::Diffusers,
        _ => Dialect::Kohya,
    }
}

fn network(layer: &str) -> &'static str {
    const SECOND: [&str; 4] =
        ["text_encoder_2", "lora_te2_", "lycoris_te2_", "text_encoders.clip_g"];
    if SECOND.iter().any(|second| layer.contains(second)) {
        return "text_encoder_2";
    }
    // Each side's own words, wherever a dialect's prefixes put them.
    let text =
        ["text_encoder", "lora_te", "text_model", "self_attn"].iter().any(|t| layer.contains(t));
    if text { "text_encoder" } else { "unet" }
}
