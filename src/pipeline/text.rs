//! From prompts to what the UNet reads of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::slice::from_ref;

use crate::graph::{Array, Graph, ParameterError};
use crate::models::clip_text;
use crate::models::config::ClipTextConfig;
use crate::text::Tokenizer;
use crate::text::prompt::{self, Chunk, EncodedPrompt, PromptOptions};

use super::adaptation::{Updates, row_of_words};
use super::error::{Error, Result, option};
use super::network::{Network, Planned};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// Tokenizes the negative prompt (where there is guidance) and the prompt, each by its options, to
/// equally many chunks; negative first.
pub(super) fn tokenize(
    tokenizer: &Tokenizer,
    prompts: &[(String, PromptOptions)],
    warnings: &mut Vec<String>,
) -> Result<Vec<EncodedPrompt>> {
    let mut encoded = Vec::with_capacity(prompts.len());
    for (prompt, options) in prompts {
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
pub(super) fn plan_tower(
    network: &Network<ClipTextConfig>,
    updates: &Updates,
    rows: usize,
    length: usize,
    skip: usize,
) -> Result<Planned> {
    network.plan(|config, graph| {
        let embedded = graph.input("embedded", [rows, length, config.hidden_size]);
        Ok(vec![clip_text::encode(&mut updates.layers(graph, &[]), config, embedded, skip)?])
    })
}

/// How prompts will be encoded: in one run, or each in its own where they need different depths of
/// the tower.
pub(super) struct TextPlan {
    /// Each with the number of prompts that it is for.
    runs: Vec<(Planned, usize)>,
    updates: Updates,
}

impl TextPlan {
    /// Plans for `prompts`, of which the last is not the negative one. As in diffusers, layers are
    /// skipped for that one only: the negative prompt is read by the whole tower. Each prompt comes
    /// in as many copies as differ between cross-attentions.
    pub fn new(
        network: &Network<ClipTextConfig>,
        updates: &Updates,
        prompts: &[Vec<EncodedPrompt>],
        skip: usize,
    ) -> Result<TextPlan> {
        let layers = network.config.num_hidden_layers;
        if skip >= layers {
            return Err(option(
                "clip skip",
                skip,
                format!("less than the text tower's {layers} layers"),
            ));
        }
        let plan = |prompts: &[Vec<EncodedPrompt>], skip: usize| -> Result<(Planned, usize)> {
            let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
            let length = chunks.iter().map(|c| c.ids.len()).max().unwrap_or(0);
            Ok((plan_tower(network, updates, chunks.len(), length, skip)?, prompts.len()))
        };
        let runs = match prompts {
            [negative, positive] if skip > 0 => {
                vec![plan(from_ref(negative), 0)?, plan(from_ref(positive), skip)?]
            }
            _ => vec![plan(prompts, skip)?],
        };
        Ok(TextPlan { runs, updates: updates.clone() })
    }

    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.runs.iter().map(|(planned, _)| &planned.graph)
    }

    pub fn weight_bytes(&self, network: &Network<ClipTextConfig>) -> Result<u64> {
        let mut each = self.runs.iter().map(|(planned, _)| network.weight_bytes(planned));
        each.try_fold(0, |most, bytes| Ok(bytes?.max(most)))
    }

    /// Encodes the prompts planned for, weights applied: `[prompts, chunks * length, width]`, one
    /// encoding for all cross-attentions, or one for each of them. `words` are the rows that
    /// continue the token table.
    pub fn encode(
        &self,
        network: &Network<ClipTextConfig>,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<Vec<Array>> {
        let (mut values, mut rest) = (Vec::new(), prompts);
        for (planned, count) in &self.runs {
            let (now, later) = rest.split_at((*count).min(rest.len()));
            values.extend(self.encode_some(network, planned, now, words)?);
            rest = later;
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "text" });
        }
        let width = network.config.hidden_size;
        let all = prompts.iter().map(Vec::len).sum::<usize>().max(1);
        let encodings: Vec<&[f32]> = values.chunks_exact((values.len() / all).max(1)).collect();
        // Where each prompt's copies begin.
        let starts = prompts
            .iter()
            .scan(0, |next, copies| Some(std::mem::replace(next, *next + copies.len())));
        let starts: Vec<(usize, usize)> = starts.zip(prompts.iter().map(Vec::len)).collect();
        let layer = |layer: usize| {
            let of = |&(start, copies): &(usize, usize)| {
                encodings.get(start + layer.min(copies - 1)).copied().unwrap_or_default()
            };
            Array::f32(
                [prompts.len(), values.len() / all / width, width],
                starts.iter().flat_map(of).copied().collect(),
            )
        };
        Ok((0..prompts.iter().map(Vec::len).max().unwrap_or(1)).map(layer).collect())
    }

    /// Encodes all chunks of all copies of `prompts` in one run.
    fn encode_some(
        &self,
        network: &Network<ClipTextConfig>,
        planned: &Planned,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<Vec<f32>> {
        let width = network.config.hidden_size;
        let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
        let length = chunks.first().map_or(0, |c| c.ids.len());
        let program = network.program(planned)?;
        let ids: Vec<u32> = chunks.iter().flat_map(|c| c.ids.iter().copied()).collect();
        self.updates.write(&program)?;
        program.write(
            "embedded",
            &Array::f32([chunks.len(), length, width], embed(network, &ids, words)?),
        )?;
        program.run();
        let mut encoding = program.output(0)?.values().to_vec();
        for (hidden, chunk) in encoding.chunks_exact_mut((length * width).max(1)).zip(&chunks) {
            prompt::apply_weights(hidden, width, &chunk.weights)?;
        }
        Ok(encoding)
    }
}

/// Encodings `[halves, tokens, width]` of several prompts as one, `[halves, all tokens, width]`;
/// for each cross-attention, where one of the prompts has its own for each.
pub(super) fn one_after_another(encoded: &[&[Array]]) -> Vec<Array> {
    let layers = encoded.iter().map(|layers| layers.len()).max().unwrap_or(0);
    let layer = |layer: usize| {
        let prompts: Vec<&Array> =
            encoded.iter().filter_map(|layers| layers.get(layer).or(layers.last())).collect();
        let [halves, _, width] =
            prompts.first().and_then(|e| e.shape.tokens().ok()).unwrap_or_default();
        let tokens = prompts.iter().map(|e| e.shape[1]).sum();
        let half = |half| {
            prompts
                .iter()
                .flat_map(move |e| e.values().chunks_exact((e.shape[1] * width).max(1)).nth(half))
        };
        let values = (0..halves).flat_map(half).flatten().copied().collect();
        Array::f32([halves, tokens, width], values)
    };
    (0..layers).map(layer).collect()
}

/// Rows of the token table. They are read on the host: the table is larger than all the rest of the
/// tower's needs together, and in f32 larger than what WebGPU lets a kernel see at once.
fn embed(
    network: &Network<ClipTextConfig>,
    ids: &[u32],
    words: Option<&Array>,
) -> Result<Vec<f32>> {
    let (config, source) = (&network.config, network.weights.source());
    let (rows, width) = (config.vocab_size, config.hidden_size);
    let expected = vec![rows, width];
    match source.info(TABLE) {
        None => network.blame(Err(ParameterError::Missing { name: TABLE.into() }))?,
        Some(info) if info.shape != expected => {
            let error = ParameterError::Shape { name: TABLE.into(), expected, found: info.shape };
            network.blame(Err(error))?
        }
        Some(_) => {}
    }
    let mut known: HashMap<u32, Vec<f32>> = HashMap::new();
    let mut embedded = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        if let Some(row) = row_of_words(words, id as usize, rows) {
            embedded.extend_from_slice(row);
            continue;
        }
        let row = match known.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let row = id as usize;
                if row >= rows {
                    return Err(network.unsupported(format!(
                        "a tokenizer with token {id} and a table of {rows} tokens"
                    )));
                }
                let mut values = vec![0.0; width];
                network.blame(source.read(TABLE, row * width..(row + 1) * width, &mut values))?;
                entry.insert(values)
            }
        };
        embedded.extend_from_slice(row);
    }
    source.done_with(TABLE);
    Ok(embedded)
}
