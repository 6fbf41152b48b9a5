//! OpenCLIP's names for a text encoder (Stable Diffusion 2.x, the second of XL), translated to
//! Hugging Face's.
use super::component::{Part, Targets};

/// OpenCLIP's ViT-H has 24 layers, and Stable Diffusion 2.x uses the output of the last but one:
/// the last is never run. Files converted from diffusers have left it out already.
const UNUSED_LAYER: &str = "transformer.resblocks.23.";

/// The canonical tensors of a name of Stable Diffusion 2.x (without the `cond_stage_model.model.`
/// before it).
pub(super) fn names_of_2x(name: &str) -> Targets {
    match name.starts_with(UNUSED_LAYER) {
        true => Vec::new(),
        false => names(name),
    }
}

/// The canonical tensors of a name. An attention's three input projections are one stored tensor.
pub(super) fn names(name: &str) -> Targets {
    let whole = |to: String| vec![(to, Part::Whole)];
    match name {
        "token_embedding.weight" => return whole(format!("text_model.embeddings.{name}")),
        "positional_embedding" => {
            return whole("text_model.embeddings.position_embedding.weight".to_string());
        }
        "text_projection" => return vec![("text_projection.weight".to_string(), Part::Transposed)],
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("ln_final.") {
        return whole(format!("text_model.final_layer_norm.{rest}"));
    }
    name.strip_prefix("transformer.resblocks.")
        .map(|rest| layer(rest, "text_model"))
        .unwrap_or_default()
}

/// The canonical tensors of a name within a tower's layers (without `transformer.resblocks.`),
/// which OpenAI and OpenCLIP call alike in both towers.
pub(super) fn layer(name: &str, tower: &str) -> Targets {
    let whole = |to: String| vec![(to, Part::Whole)];
    let Some((layer, rest)) = name.split_once('.') else { return Vec::new() };
    let layer = format!("{tower}.encoder.layers.{layer}");
    if let Some(parameter) = rest.strip_prefix("attn.in_proj_") {
        let part = |(i, projection)| {
            (format!("{layer}.self_attn.{projection}_proj.{parameter}"), Part::Rows(i, 3))
        };
        return ["q", "k", "v"].into_iter().enumerate().map(part).collect();
    }
    [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ]
    .iter()
    .find_map(|(from, to)| rest.strip_prefix(from).map(|r| whole(format!("{layer}.{to}{r}"))))
    .unwrap_or_default()
}
