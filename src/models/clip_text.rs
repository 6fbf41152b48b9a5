//! CLIP's text encoder (Radford et al. 2021), transformers' `CLIPTextModel`, with or without
//! projection.

use super::config::ClipTextConfig;
use crate::graph::{Result, Tensor};
use crate::nn::{ClipLayer, Layers};

/// The table of tokens, `[vocab_size, hidden_size]`.
pub const TOKEN_TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// Builds the tower: token `ids` (u32) `[batch, tokens]` to the encoding
/// `[batch, tokens, hidden_size]`. `skip` leaves out that many of the last layers; the final
/// normalisation stays (diffusers' `clip_skip`; what web UIs count as skip + 1).
pub fn clip_text(
    layers: &mut Layers,
    config: &ClipTextConfig,
    ids: Tensor,
    skip: usize,
) -> Result<Tensor> {
    let embedded = embed(layers, config, ids, None)?;
    encode(layers, config, embedded, skip)
}

/// Builds the token table's rows for `ids` (u32) `[batch, tokens]`: `[batch, tokens, hidden_size]`.
/// Ids from `vocab_size` on read the rows of `words` `[rows, hidden_size]`, where there are any.
pub fn embed(
    layers: &mut Layers,
    config: &ClipTextConfig,
    ids: Tensor,
    words: Option<Tensor>,
) -> Result<Tensor> {
    layers.within("text_model.embeddings", |layers| {
        let table =
            layers.parameter("token_embedding.weight", [config.vocab_size, config.hidden_size]);
        match words {
            Some(words) => layers.graph.embedding_continued(table, words, ids),
            None => layers.graph.embedding(table, ids),
        }
    })
}

/// Builds the rest of the tower on `embedded` tokens `[batch, tokens, hidden_size]`, before their
/// positions are added.
pub fn encode(
    layers: &mut Layers,
    config: &ClipTextConfig,
    embedded: Tensor,
    skip: usize,
) -> Result<Tensor> {
    let x = run(layers, config, embedded, skip, None)?.0;
    layers.within("text_model", |layers| {
        layers.layer_norm("final_layer_norm", x, config.layer_norm_eps)
    })
}

/// As [`encode`], but what the last layer but one gives, before the final normalisation, as Stable
/// Diffusion XL reads it; `skip` leaves out that many layers more. `whole`: also the encoding by all
/// layers, of which [`project`] makes the pooled prompt.
pub fn encode_before_last(
    layers: &mut Layers,
    config: &ClipTextConfig,
    embedded: Tensor,
    skip: usize,
    whole: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let left_out = if whole { 0 } else { skip + 1 };
    let (last, before) = run(layers, config, embedded, left_out, Some(skip + 1))?;
    let normal = |layers: &mut Layers| {
        layers.within("text_model", |layers| {
            layers.layer_norm("final_layer_norm", last, config.layer_norm_eps)
        })
    };
    Ok((before, if whole { Some(normal(layers)?) } else { None }))
}

/// All layers but the last `skip`, and what came before the last `before` of all.
fn run(
    layers: &mut Layers,
    config: &ClipTextConfig,
    embedded: Tensor,
    skip: usize,
    before: Option<usize>,
) -> Result<(Tensor, Tensor)> {
    let [_, tokens, _] = layers.tokens(embedded, "clip_text")?;
    let style = ClipLayer {
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        activation: config.hidden_act.into(),
        epsilon: config.layer_norm_eps,
        causal: true,
    };
    layers.within("text_model", |layers| {
        if tokens > config.max_position_embeddings {
            let message = format!(
                "{tokens} tokens are more than the model's {}",
                config.max_position_embeddings
            );
            return Err(layers.graph.shape_error("clip_text", message));
        }
        let all = config.num_hidden_layers;
        let without = |skip: usize| all.checked_sub(skip).filter(|&built| built > 0);
        let (Some(built), Some(before)) = (without(skip), without(before.unwrap_or(skip))) else {
            let message =
                format!("{} layers of {all} cannot be skipped", before.unwrap_or(skip).max(skip));
            return Err(layers.graph.shape_error("clip_text", message));
        };
        let positions = layers.within("embeddings", |layers| {
            let shape = [config.max_position_embeddings, config.hidden_size];
            let table = layers.parameter("position_embedding.weight", shape);
            layers.graph.slice(table, 0, 0, tokens)
        })?;
        let mut x = layers.graph.add(embedded, positions)?;
        let mut found = x;
        for i in 0..built {
            x = layers.clip_layer(&format!("encoder.layers.{i}"), x, style)?;
            if i + 1 == before {
                found = x;
            }
        }
        Ok((x, found))
    })
}

/// Builds the projection to the space that pictures share: `encoding`
/// `[batch, tokens, hidden_size]` at `rows` (u32) `[batch]`, which are [`end_rows`], to
/// `[batch, projection_dim]`, not normalised.
pub fn project(
    layers: &mut Layers,
    config: &ClipTextConfig,
    encoding: Tensor,
    rows: Tensor,
) -> Result<Tensor> {
    let [batch, tokens, channels] = layers.tokens(encoding, "clip_text")?;
    let table = layers.graph.reshape(encoding, [batch * tokens, channels])?;
    let pooled = layers.graph.embedding(table, rows)?;
    layers.linear_no_bias("text_projection", pooled, config.projection_dim)
}

/// Where each text of `length` `ids` ends, counted in rows of the flattened `[batch * tokens]`: the
/// first end token; in models whose config names none, or names 2 (as the original files do,
/// wrongly), the first of the greatest id.
pub fn end_rows(config: &ClipTextConfig, ids: &[u32], length: usize) -> Vec<u32> {
    let end = config.eos_token_id.filter(|&end| end != 2);
    let position = |text: &[u32]| match end {
        Some(end) => text.iter().position(|&id| id as usize == end).unwrap_or(0),
        None => {
            let greatest = text.iter().max();
            text.iter().position(|id| Some(id) == greatest).unwrap_or(0)
        }
    };
    ids.chunks(length.max(1))
        .enumerate()
        .map(|(i, text)| (i * length + position(text)) as u32)
        .collect()
}
