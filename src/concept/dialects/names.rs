//! Layer names between dialects.

use crate::checkpoint::TensorFile;
use crate::concept::Result;
use crate::concept::tensors::tensor_error;

/// Parts of layer names that have an underscore of their own.
const PARTS: [&str; 40] = [
    "down_blocks",
    "up_blocks",
    "mid_block",
    "transformer_blocks",
    "proj_in",
    "proj_out",
    "to_q",
    "to_k",
    "to_v",
    "to_out",
    "time_emb_proj",
    "time_embedding",
    "conv_in",
    "conv_out",
    "conv_shortcut",
    "conv_norm_out",
    "class_embedding",
    "add_embedding",
    "cond_proj",
    "linear_1",
    "linear_2",
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "text_model",
    "text_projection",
    "layer_norm1",
    "layer_norm2",
    "final_layer_norm",
    // LDM's
    "input_blocks",
    "middle_block",
    "output_blocks",
    "in_layers",
    "out_layers",
    "emb_layers",
    "skip_connection",
    "time_embed",
    "label_emb",
];

/// kohya's `down_blocks_0_attentions_0_proj_in` as `down_blocks.0.attentions.0.proj_in`.
pub fn dotted(underscored: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = underscored;
    while !rest.is_empty() {
        let ends = |part: &&&str| {
            rest.strip_prefix(**part)
                .is_some_and(|after| after.is_empty() || after.starts_with('_'))
        };
        let part = PARTS
            .iter()
            .find(ends)
            .copied()
            .unwrap_or_else(|| rest.split('_').next().unwrap_or(rest));
        parts.push(part);
        rest = rest.get(part.len()..).map_or("", |after| after.strip_prefix('_').unwrap_or(after));
        if part.is_empty() && !rest.is_empty() {
            // Two underscores: no name that is known; it is left as it is.
            return underscored.to_string();
        }
    }
    parts.join(".")
}

/// The reverse of [`dotted`].
pub fn underscored(dotted: &str) -> String {
    dotted.replace('.', "_")
}

/// Blocks of Stable Diffusion's UNet in each half, by LDM's numbers (XL has fewer): as many per
/// level, samplers included.
const LDM_BLOCKS: usize = 12;
const LDM_LEVEL: usize = 3;

/// The canonical name of a UNet's layer. LDM's names (`input_blocks.1.1.proj_in`) are translated as
/// for Stable Diffusion 1.x, 2.x and XL, whose levels have two layers each; a file of updates has
/// too few names to tell another structure.
///
/// # Errors
/// A name of LDM's form that such a UNet does not have.
pub fn unet_layer(file: &TensorFile, tensor: &str, layer: &str) -> Result<String> {
    let first = layer.split('.').next().unwrap_or_default();
    if !["input_blocks", "middle_block", "output_blocks", "time_embed", "out", "label_emb"]
        .contains(&first)
    {
        return Ok(layer.to_string());
    }
    let problem = || {
        format!("its layer `{layer}` has no place in the UNet of Stable Diffusion 1.x, 2.x or XL")
    };
    of_ldm(layer).ok_or_else(|| tensor_error(file, tensor, problem()))
}

fn of_ldm(layer: &str) -> Option<String> {
    let known = match layer {
        "input_blocks.0.0" => "conv_in",
        "time_embed.0" => "time_embedding.linear_1",
        "time_embed.2" => "time_embedding.linear_2",
        "time_embed.cond_proj" => "time_embedding.cond_proj",
        "label_emb.0.0" => "add_embedding.linear_1",
        "label_emb.0.2" => "add_embedding.linear_2",
        "out.0" => "conv_norm_out",
        "out.2" => "conv_out",
        _ => "",
    };
    if !known.is_empty() {
        return Some(known.to_string());
    }
    let (stage, rest) = layer.split_once('.')?;
    let (number, rest) = rest.split_once('.')?;
    let number: usize = number.parse().ok()?;
    if stage == "middle_block" {
        return match number {
            0 => Some(format!("mid_block.resnets.0.{}", ldm_resnet(rest)?)),
            1 => Some(format!("mid_block.attentions.0.{rest}")),
            2 => Some(format!("mid_block.resnets.1.{}", ldm_resnet(rest)?)),
            _ => None,
        };
    }
    let (module, rest) = rest.split_once('.')?;
    let (side, number) = match stage {
        // The first of them is the input convolution.
        "input_blocks" => ("down", number.checked_sub(1)?),
        "output_blocks" => ("up", number),
        _ => return None,
    };
    if number >= LDM_BLOCKS {
        return None;
    }
    let (block, place) = (number / LDM_LEVEL, number % LDM_LEVEL);
    match (side, module, rest) {
        ("down", "0", "op") if place == 2 => {
            Some(format!("down_blocks.{block}.downsamplers.0.conv"))
        }
        ("up", "1" | "2", "conv") if place == 2 => {
            Some(format!("up_blocks.{block}.upsamplers.0.conv"))
        }
        ("down", ..) if place == 2 => None,
        (_, "0", _) => Some(format!("{side}_blocks.{block}.resnets.{place}.{}", ldm_resnet(rest)?)),
        (_, "1", _) => Some(format!("{side}_blocks.{block}.attentions.{place}.{rest}")),
        _ => None,
    }
}

fn ldm_resnet(rest: &str) -> Option<&'static str> {
    match rest {
        "in_layers.0" => Some("norm1"),
        "in_layers.2" => Some("conv1"),
        "emb_layers.1" => Some("time_emb_proj"),
        "out_layers.0" => Some("norm2"),
        "out_layers.3" => Some("conv2"),
        "skip_connection" => Some("conv_shortcut"),
        _ => None,
    }
}

/// Layer names of older diffusers: `attn1.processor.to_out_lora` is `attn1.to_out.0`,
/// `self_attn.to_q_lora` is `self_attn.q_proj`.
pub fn of_processor(layer: &str) -> String {
    let Some((attention, projection)) =
        layer.strip_suffix("_lora").and_then(|layer| layer.rsplit_once('.'))
    else {
        return layer.to_string();
    };
    let attention = attention.strip_suffix(".processor").unwrap_or(attention);
    let in_text = attention.ends_with("self_attn");
    let projection = match (projection, in_text) {
        ("to_out", true) => "out_proj",
        ("to_q", true) => "q_proj",
        ("to_k", true) => "k_proj",
        ("to_v", true) => "v_proj",
        ("to_out", false) => "to_out.0",
        (other, _) => other,
    };
    format!("{attention}.{projection}")
}

/// The layer belongs to a text encoder.
pub fn is_text(layer: &str) -> bool {
    layer.starts_with("text_model.") || layer.starts_with("encoder.layers.")
}

/// The file lies in a folder of the second text encoder's.
pub fn is_in_second_folder(file: &TensorFile) -> bool {
    file.path().parent().is_some_and(|folder| folder.ends_with("text_encoder_2"))
}

/// transformers 5 leaves `text_model.` out.
pub fn text_layer(layer: &str) -> String {
    if layer.starts_with("encoder.layers.") {
        format!("text_model.{layer}")
    } else {
        layer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscored_names_are_read_back() {
        for name in [
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q",
            "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
            "down_blocks.1.attentions.0.proj_in",
            "down_blocks.1.resnets.0.time_emb_proj",
            "down_blocks.1.resnets.0.conv_shortcut",
            "down_blocks.1.resnets.0.conv1",
            "down_blocks.0.downsamplers.0.conv",
            "time_embedding.linear_1",
            "conv_in",
            "text_model.encoder.layers.11.self_attn.out_proj",
            "text_model.encoder.layers.0.mlp.fc1",
            "text_model.encoder.layers.0.layer_norm1",
            "text_model.final_layer_norm",
            "down_blocks.1.resnets.0.norm2",
            "mid_block.attentions.0.transformer_blocks.0.norm3",
            "conv_norm_out",
        ] {
            assert_eq!(dotted(&underscored(name)), name);
        }
        assert_eq!(dotted("input_blocks_1_1_proj_in"), "input_blocks.1.1.proj_in");
        assert_eq!(dotted("output_blocks_3_0_in_layers_2"), "output_blocks.3.0.in_layers.2");
        assert_eq!([dotted(""), dotted("a__b")], ["", "a__b"]);
    }

    /// As checkpoints are translated, whose names tell the structure.
    #[test]
    fn ldms_names_are_those_of_checkpoints() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/checkpoint/sd1.safetensors");
        let file = TensorFile::open(&path).unwrap();
        for (ldm, expected) in [
            ("input_blocks.0.0", "conv_in"),
            (
                "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
                "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            ),
            ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
            ("input_blocks.4.0.skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
            ("input_blocks.11.0.emb_layers.1", "down_blocks.3.resnets.1.time_emb_proj"),
            ("middle_block.1.proj_in", "mid_block.attentions.0.proj_in"),
            ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
            ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
            ("output_blocks.11.1.proj_out", "up_blocks.3.attentions.2.proj_out"),
            ("output_blocks.0.0.in_layers.2", "up_blocks.0.resnets.0.conv1"),
            ("time_embed.2", "time_embedding.linear_2"),
            ("out.0", "conv_norm_out"),
            ("out.2", "conv_out"),
            ("input_blocks.1.0.in_layers.0", "down_blocks.0.resnets.0.norm1"),
            ("output_blocks.0.0.out_layers.0", "up_blocks.0.resnets.0.norm2"),
            ("conv_in", "conv_in"),
        ] {
            assert_eq!(unet_layer(&file, "x", ldm).unwrap(), expected, "{ldm}");
        }
        for wrong in [
            "input_blocks.3.1.proj_in",
            "input_blocks.13.0.op",
            "middle_block.3.x",
            "output_blocks.0.0.norm",
            "out.1",
        ] {
            let error = unet_layer(&file, "there", wrong).unwrap_err().to_string();
            assert!(error.contains("`there`") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn older_names_are_read() {
        assert_eq!(of_processor("a.attn1.processor.to_q_lora"), "a.attn1.to_q");
        assert_eq!(of_processor("a.attn1.processor.to_out_lora"), "a.attn1.to_out.0");
        assert_eq!(of_processor("a.attn1.to_q"), "a.attn1.to_q");
        assert_eq!(
            of_processor("text_model.a.self_attn.to_out_lora"),
            "text_model.a.self_attn.out_proj"
        );
        assert_eq!(
            of_processor("text_model.a.self_attn.to_q_lora"),
            "text_model.a.self_attn.q_proj"
        );
    }
}
