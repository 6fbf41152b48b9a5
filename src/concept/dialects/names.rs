//! Layer names between dialects.

/// Parts of layer names that have an underscore of their own.
const PARTS: [&str; 24] = [
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
    "linear_1",
    "linear_2",
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "text_model",
    "text_projection",
];

/// kohya's `down_blocks_0_attentions_0_proj_in` as `down_blocks.0.attentions.0.proj_in`.
pub fn dotted(underscored: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = underscored;
    while !rest.is_empty() {
        let ends = |part: &&&str| rest.strip_prefix(**part).is_some_and(|after| after.is_empty() || after.starts_with('_'));
        let part = PARTS.iter().find(ends).copied().unwrap_or_else(|| rest.split('_').next().unwrap_or(rest));
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

/// Layer names of older diffusers: `attn1.processor.to_out_lora` is `attn1.to_out.0`, `self_attn.to_q_lora` is `self_attn.q_proj`.
pub fn of_processor(layer: &str) -> String {
    let Some((attention, projection)) = layer.strip_suffix("_lora").and_then(|layer| layer.rsplit_once('.')) else {
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

/// transformers 5 leaves `text_model.` out.
pub fn text_layer(layer: &str) -> String {
    if layer.starts_with("encoder.layers.") { format!("text_model.{layer}") } else { layer.to_string() }
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
        ] {
            assert_eq!(dotted(&underscored(name)), name);
        }
        assert_eq!(dotted("input_blocks_1_1_proj_in"), "input.blocks.1.1.proj_in");
        assert_eq!([dotted(""), dotted("a__b")], ["", "a__b"]);
    }

    #[test]
    fn older_names_are_read() {
        assert_eq!(of_processor("a.attn1.processor.to_q_lora"), "a.attn1.to_q");
        assert_eq!(of_processor("a.attn1.processor.to_out_lora"), "a.attn1.to_out.0");
        assert_eq!(of_processor("a.attn1.to_q"), "a.attn1.to_q");
        assert_eq!(of_processor("text_model.a.self_attn.to_out_lora"), "text_model.a.self_attn.out_proj");
        assert_eq!(of_processor("text_model.a.self_attn.to_q_lora"), "text_model.a.self_attn.q_proj");
    }
}
