//! What kind of file a list of names is, and what this program does with it.
use super::ldm::{CLIP, OPEN_CLIP, UNET, VAE, XL, XL_REFINER};
use serde::Serialize;

/// What a file or folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A whole model in diffusers' layout.
    DiffusersFolder,
    /// A whole model in one file, Stable Diffusion 1.x's kind.
    SingleFileSd1,
    /// A whole model in one file, Stable Diffusion 2.x's kind.
    SingleFileSd2,
    /// A whole model in one file, Stable Diffusion XL's kind.
    SingleFileSdxl,
    /// Stable Diffusion XL's refiner, which this program does not run.
    Refiner,
    /// A model of another family or its main network, which this program does not run.
    OtherModel,
    /// Words with layer-wise embeddings, with or without a LoRA.
    Concept,
    /// A change to a model, in any dialect.
    Lora,
    /// A change to a model of a kind that is not read: OFT and the like.
    OtherChange,
    /// The state of a training run of this program's.
    TrainingState,
    /// Embeddings of new words.
    TextualInversion,
    /// Embeddings of new words for both text encoders of Stable Diffusion XL.
    TextualInversionSdxl,
    /// A ControlNet.
    ControlNet,
    /// A ControlNet for Stable Diffusion XL.
    ControlNetSdxl,
    /// A ControlNet for another family of models, which this program does not run.
    ControlNetOther,
    /// A ControlNet of low-rank differences, which this program does not run.
    ControlLora,
    /// A small network that steers the attentions' inputs, which this program does not run.
    ControlLllite,
    /// A T2I-Adapter.
    T2iAdapter,
    /// A network that steers by what a picture shows, which this program does not run.
    IpAdapter,
    /// Layers that make pictures move, which this program does not run.
    MotionModule,
    /// A network that makes pictures larger, which this program does not run.
    Upscaler,
    /// A UNet by itself.
    Unet,
    /// Stable Diffusion XL's UNet by itself.
    UnetSdxl,
    /// An autoencoder by itself.
    Vae,
    /// A text encoder by itself.
    TextEncoder,
    /// A vision tower by itself.
    VisionEncoder,
    /// A safetensors file of no known kind.
    Unknown,
}

impl What {
    /// Told for sure by its names, also where others in it are a LoRA's.
    pub(super) fn is_beyond_doubt(self) -> bool {
        matches!(
            self,
            Self::ControlLora | Self::ControlLllite | Self::IpAdapter | Self::MotionModule
        )
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::DiffusersFolder => "model folder (diffusers)",
            Self::SingleFileSd1 => "single-file model (Stable Diffusion 1.x)",
            Self::SingleFileSd2 => "single-file model (Stable Diffusion 2.x)",
            Self::SingleFileSdxl => "single-file model (Stable Diffusion XL)",
            Self::Refiner => "refiner (Stable Diffusion XL)",
            Self::OtherModel => "model of another family (Stable Diffusion 3, Flux or the like)",
            Self::Concept => "concept",
            Self::Lora => "LoRA",
            Self::OtherChange => "change to a model, of a kind that is not read",
            Self::TrainingState => "state of a training run",
            Self::TextualInversion => "textual inversion",
            Self::TextualInversionSdxl => "textual inversion (Stable Diffusion XL)",
            Self::ControlNet => "ControlNet",
            Self::ControlNetSdxl => "ControlNet (for Stable Diffusion XL)",
            Self::ControlNetOther => "ControlNet (for Stable Diffusion 3, Flux or the like)",
            Self::ControlLora => "Control-LoRA",
            Self::ControlLllite => "ControlNet-LLLite",
            Self::T2iAdapter => "T2I-Adapter",
            Self::IpAdapter => "IP-Adapter",
            Self::MotionModule => "motion module (AnimateDiff)",
            Self::Upscaler => "upscaler",
            Self::Unet => "UNet",
            Self::UnetSdxl => "UNet (Stable Diffusion XL)",
            Self::Vae => "VAE",
            Self::TextEncoder => "CLIP text encoder",
            Self::VisionEncoder => "CLIP vision encoder",
            Self::Unknown => "tensors of no known kind",
        }
    }

    /// What this program does with it.
    pub fn used(self) -> &'static str {
        match self {
            Self::DiffusersFolder
            | Self::SingleFileSd1
            | Self::SingleFileSd2
            | Self::SingleFileSdxl => "--model of `mos generate`, `mos train` and `mos fuse`",
            Self::Concept | Self::TextualInversion | Self::TextualInversionSdxl => {
                "--concept of `mos generate` and `mos fuse`; `mos convert`"
            }
            Self::Lora => "--lora of `mos generate`, --concept of `mos fuse`; `mos convert`",
            Self::OtherChange => {
                "none; LoRA, LoCon, LoHa, LoKr, DoRA, IA3 and full differences are read"
            }
            Self::TrainingState => "`mos train`, which goes on from it",
            Self::ControlNet | Self::ControlNetSdxl | Self::T2iAdapter => {
                "--control of `mos generate`, as FILE:image=PICTURE"
            }
            Self::OtherModel | Self::Refiner => {
                "none; base models of Stable Diffusion 1.x, 2.x and XL are supported"
            }
            Self::ControlNetOther | Self::ControlLora | Self::ControlLllite | Self::IpAdapter => {
                "none; of what steers, ControlNets and T2I-Adapters for Stable Diffusion 1.x, 2.x \
                    and XL are supported"
            }
            Self::MotionModule => "none; pictures do not move here",
            Self::Upscaler => "none; pictures are made as large as --size says",
            Self::Unet | Self::UnetSdxl | Self::Vae | Self::TextEncoder | Self::VisionEncoder => {
                "none by itself; --model takes whole models"
            }
            Self::Unknown => "none",
        }
    }
}

/// Before the names of the authors' ControlNet files; some programs leave it out.
pub(super) const CONTROL_MODEL: &str = "control_model.";
/// A tensor whose presence says that a ControlNet's weights are differences; its value says
/// nothing.
pub(super) const DIFFERENCE: &str = "difference";
/// A tensor whose presence says that a ControlNet's weights are low-rank differences.
const CONTROL_LORA: &str = "lora_controlnet";
/// Before the names of a ControlNet-LLLite.
const LLLITE: &str = "lllite_";
/// A ControlNet's layers that read the picture: the authors' names and diffusers'.
pub(super) const HINTS: [&str; 2] = ["input_hint_block.", "controlnet_cond_embedding."];

/// Marks of other ways to write a change, and what they are called. They begin a part of a name.
const OTHER_CHANGES: [(&str, &str); 9] = [
    ("oft_", "an OFT"),
    ("boft_", "a BOFT"),
    ("lora_embedding_", "a LoRA of an embedding table"),
    ("vera_", "a VeRA"),
    ("hra_", "an HRA"),
    ("fourierft_", "a FourierFT"),
    ("a1.weight", "a GLoRA"),
    ("glora_", "a GLoRA"),
    ("set_weight", "whole weights"),
];

/// What else than a known change a tensor of this name belongs to, if it does.
pub fn other_change(tensor: &str) -> Option<&'static str> {
    let starts = tensor.match_indices('.').map(|(at, _)| at + 1).chain([0]);
    let mut parts = starts.filter_map(|at| tensor.get(at..));
    parts.find_map(|part| {
        OTHER_CHANGES.iter().find(|(mark, _)| part.starts_with(mark)).map(|(_, kind)| *kind)
    })
}

/// Programs that save a part of a larger object put its name before all others.
const OUTER: [&str; 5] = ["module.", "_orig_mod.", "unet.", "vae.", "text_encoder."];

/// The names without what all of them begin with, where that says nothing.
pub(super) fn bare<'n>(names: &[&'n str]) -> Vec<&'n str> {
    let common = |outer: &&&str| !names.is_empty() && names.iter().all(|n| n.starts_with(**outer));
    match OUTER.iter().find(common) {
        // What is known by this beginning is told by it.
        Some(outer) if !names.iter().all(|n| n.starts_with(UNET)) => {
            names.iter().map(|name| &name[outer.len()..]).collect()
        }
        _ => names.to_vec(),
    }
}

/// The kind of file that has these names; LoRAs and textual inversions are told elsewhere.
pub(super) fn classify(names: &[&str]) -> What {
    let any = |prefix: &str| names.iter().any(|n| n.starts_with(prefix));
    let has = |part: &str| names.iter().any(|n| n.contains(part));
    let whole = any(UNET) && any(VAE);
    let steers = any(CONTROL_MODEL) || HINTS.iter().any(|hint| any(hint));
    let is_xl = any("add_embedding.") || any("label_emb.") || has(".label_emb.");
    // One that does many things at once reads another encoding of the picture.
    let is_union = has("control_add_embedding.") || any("task_embedding");
    if any(XL) {
        if any(XL_REFINER) { What::Refiner } else { What::SingleFileSdxl }
    } else if any(LLLITE) {
        What::ControlLllite
    } else if any(CONTROL_LORA) || steers && names.iter().any(|n| n.ends_with(".down")) {
        What::ControlLora
    } else if has("controlnet_x_embedder.") || any("controlnet_blocks.") || steers && is_union {
        What::ControlNetOther
    } else if steers && is_xl {
        What::ControlNetSdxl
    } else if steers {
        What::ControlNet
    } else if any("image_proj.") && any("ip_adapter.") {
        What::IpAdapter
    } else if has("motion_modules.") && !has("conv_in.") && !any(UNET) {
        What::MotionModule
    } else if ["joint_blocks.0.", "double_blocks.0.", "transformer_blocks.0.attn.add_"]
        .iter()
        .any(|part| has(part))
    {
        What::OtherModel
    } else if whole && any(OPEN_CLIP) {
        What::SingleFileSd2
    } else if whole && any(CLIP) {
        What::SingleFileSd1
    } else if any("adapter.body.") || any("body.0.") && (has(".block1.") || has(".in_conv.")) {
        What::T2iAdapter
    } else if is_upscaler(names) {
        What::Upscaler
    } else if any("down_blocks.") && any("time_embedding.")
        || any("input_blocks.") && any("time_embed.")
        || any(UNET)
    {
        if is_xl { What::UnetSdxl } else { What::Unet }
    } else if any("encoder.") && any("decoder.") || any(VAE) {
        What::Vae
    } else if any("vision_model.") {
        What::VisionEncoder
    } else if any("text_model.")
        || any("embeddings.token_embedding.")
        || any(CLIP)
        || any(OPEN_CLIP)
    {
        What::TextEncoder
    } else {
        What::Unknown
    }
}

/// ESRGAN's kinds, their compact relatives, and transformers for the same.
fn is_upscaler(names: &[&str]) -> bool {
    let bare = |name: &str| -> String {
        let inner = ["params_ema.", "params."].iter().find_map(|outer| name.strip_prefix(outer));
        inner.unwrap_or(name).to_lowercase()
    };
    let names: Vec<String> = names.iter().map(|name| bare(name)).collect();
    let any = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let numbered = |name: &String| {
        let number = name.strip_prefix("body.").and_then(|rest| rest.split_once('.'));
        number.is_some_and(|(number, rest)| {
            number.parse::<usize>().is_ok() && ["weight", "bias"].contains(&rest)
        })
    };
    has(".rdb1.conv1.")
        || any("conv_first.") && (any("layers.0.") || any("upsample.") || any("conv_last."))
        || any("body.0.") && any("body.1.") && names.iter().all(numbered)
}
