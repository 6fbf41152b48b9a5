//! From prompts to what the UNet reads of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::slice::from_ref;

use crate::graph::{Array, ParameterError};
use crate::models::clip_text;
use crate::models::config::ClipTextConfig;
use crate::nn::Layers;
use crate::text::Tokenizer;
use crate::text::prompt::{self, Chunk, EncodedPrompt, PromptOptions};

use super::error::{Error, Result, option};
use super::network::{Network, Planned};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// Tokenizes the negative prompt (where there is guidance) and the prompt, to equally many chunks; negative first.
pub(super) fn tokenize(
    tokenizer: &Tokenizer,
    prompts: &[&str],
    options: &PromptOptions,
    warnings: &mut Vec<String>,
) -> Result<Vec<EncodedPrompt>> {
    let mut encoded = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let found = prompt::encode(tokenizer, prompt, options)?;
        warnings.extend(found.warnings.iter().cloned());
        encoded.push(found);
    }
    if let [negative, positive] = &mut encoded[..] {
        prompt::pad_to_same_chunks(tokenizer, negative, positive)?;
    }
    Ok(encoded)
}

/// Plans the text tower for `rows` chunks of `length` tokens.
pub(super) fn plan_tower(network: &Network<ClipTextConfig>, rows: usize, length: usize, skip: usize) -> Result<Planned> {
    network.plan(|config, graph| {
        let embedded = graph.input("embedded", [rows, length, config.hidden_size]);
        Ok(vec![clip_text::encode(&mut Layers::new(graph), config, embedded, skip)?])
    })
}

/// How prompts will be encoded: in one run, or each in its own where they need different depths of the tower.
pub(super) struct TextPlan {
    /// Each with the number of prompts that it is for.
    runs: Vec<(Planned, usize)>,
}

impl TextPlan {
    /// Plans for `prompts`, of which the last is not the negative one. As in diffusers, layers are skipped for that one only: the
    /// negative prompt is read by the whole tower.
    pub fn new(network: &Network<ClipTextConfig>, prompts: &[EncodedPrompt], skip: usize) -> Result<TextPlan> {
        let layers = network.config.num_hidden_layers;
        if skip >= layers {
            return Err(option("clip skip", skip, format!("less than the text tower's {layers} layers")));
        }
        let plan = |prompts: &[EncodedPrompt], skip: usize| -> Result<(Planned, usize)> {
            let rows = prompts.iter().map(|p| p.chunks.len()).sum();
            let length = prompts.iter().flat_map(|p| &p.chunks).map(|c| c.ids.len()).max().unwrap_or(0);
            Ok((plan_tower(network, rows, length, skip)?, prompts.len()))
        };
        let runs = match prompts {
            [negative, positive] if skip > 0 => vec![plan(from_ref(negative), 0)?, plan(from_ref(positive), skip)?],
            _ => vec![plan(prompts, skip)?],
        };
        Ok(TextPlan { runs })
    }

    pub fn weight_bytes(&self, network: &Network<ClipTextConfig>) -> Result<u64> {
        let mut each = self.runs.iter().map(|(planned, _)| network.weight_bytes(planned));
        each.try_fold(0, |most, bytes| Ok(bytes?.max(most)))
    }

    /// Encodes the prompts planned for: `[prompts, chunks * length, width]`, weights applied.
    pub fn encode(&self, network: &Network<ClipTextConfig>, prompts: &[EncodedPrompt]) -> Result<Array> {
        let (mut values, mut rest) = (Vec::new(), prompts);
        for (planned, count) in &self.runs {
            let (now, later) = rest.split_at((*count).min(rest.len()));
            values.extend(encode(network, planned, now)?);
            rest = later;
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "text" });
        }
        let width = network.config.hidden_size;
        let tokens = values.len() / prompts.len().max(1) / width;
        Ok(Array::f32([prompts.len(), tokens, width], values))
    }
}

/// Encodings `[halves, tokens, width]` of several prompts as one, `[halves, all tokens, width]`.
pub(super) fn one_after_another(encoded: &[Array]) -> Array {
    let halves = encoded.first().map_or(0, |e| e.shape[0]);
    let width = encoded.first().map_or(0, |e| e.shape[2]);
    let tokens = encoded.iter().map(|e| e.shape[1]).sum();
    let half = |half| encoded.iter().flat_map(move |e| e.values().chunks_exact((e.shape[1] * width).max(1)).nth(half));
    let values = (0..halves).flat_map(half).flatten().copied().collect();
    Array::f32([halves, tokens, width], values)
}

/// Encodes all chunks of `prompts` in one run.
fn encode(network: &Network<ClipTextConfig>, planned: &Planned, prompts: &[EncodedPrompt]) -> Result<Vec<f32>> {
    let width = network.config.hidden_size;
    let chunks: Vec<&Chunk> = prompts.iter().flat_map(|p| &p.chunks).collect();
    let length = chunks.first().map_or(0, |c| c.ids.len());
    let program = network.program(planned)?;
    let ids: Vec<u32> = chunks.iter().flat_map(|c| c.ids.iter().copied()).collect();
    program.write("embedded", &Array::f32([chunks.len(), length, width], embed(network, &ids)?))?;
    program.run();
    let mut encoding = program.output(0)?.values().to_vec();
    for (hidden, chunk) in encoding.chunks_exact_mut((length * width).max(1)).zip(&chunks) {
        prompt::apply_weights(hidden, width, &chunk.weights)?;
    }
    Ok(encoding)
}

/// Rows of the token table. They are read on the host: the table is larger than all the rest of the tower's needs together,
/// and in f32 larger than what WebGPU lets a kernel see at once.
fn embed(network: &Network<ClipTextConfig>, ids: &[u32]) -> Result<Vec<f32>> {
    let (config, source) = (&network.config, network.weights.source());
    let (rows, width) = (config.vocab_size, config.hidden_size);
    let expected = vec![rows, width];
    match source.info(TABLE) {
        None => network.blame(Err(ParameterError::Missing { name: TABLE.into() }.into()))?,
        Some(info) if info.shape != expected => {
            let error = ParameterError::Shape { name: TABLE.into(), expected, found: info.shape };
            network.blame(Err(error.into()))?
        }
        Some(_) => {}
    }
    let mut known: HashMap<u32, Vec<f32>> = HashMap::new();
    let mut embedded = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        let row = match known.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let row = id as usize;
                if row >= rows {
                    return Err(network.unsupported(format!("a tokenizer with token {id} and a table of {rows} tokens")));
                }
                let mut values = vec![0.0; width];
                network.blame(source.read(TABLE, row * width..(row + 1) * width, &mut values).map_err(Into::into))?;
                entry.insert(values)
            }
        };
        embedded.extend_from_slice(row);
    }
    source.done_with(TABLE);
    Ok(embedded)
}
