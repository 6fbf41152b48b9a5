//! From prompts to what the UNet reads of them.

use std::slice::from_ref;

use crate::graph::{Array, Graph, Tensor};
use crate::models::clip_text;
use crate::models::config::ClipTextConfig;
use crate::nn::Hook;
use crate::text::Tokenizer;
use crate::text::prompt::{self, Chunk, EncodedPrompt, PromptOptions};

use super::error::{Error, Result};
use super::network::{LoadedNetwork, PlannedGraph};
use super::tokens::TokenRows;
use super::updates::{UpdateInputs, Updates};

/// Tokenizes the negative prompt (where there is guidance) and the prompt, each by its options, to
/// equally many chunks; negative first.
pub(crate) fn tokenize(
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

/// What an encoder's graph takes.
#[derive(Clone, Debug)]
pub(crate) struct EncoderInputs {
    /// Rows of the token table, `[rows, length, width]`.
    embedded: Tensor,
    updates: UpdateInputs,
}

/// A text encoder's pass over `rows` sequences of `length` tokens, planned.
pub(crate) struct EncoderPass {
    planned: PlannedGraph<EncoderInputs>,
    rows: usize,
    length: usize,
}

impl EncoderPass {
    /// The last `skip` layers are left out. The first output is the encoding, `[rows, length,
    /// width]`; `further` may add others, from the layers named in `hooked`.
    pub fn plan(
        network: &LoadedNetwork<ClipTextConfig>,
        updates: &Updates,
        [rows, length]: [usize; 2],
        skip: usize,
        hooked: &[String],
        further: impl FnOnce(&[Hook]) -> Vec<Tensor>,
    ) -> Result<EncoderPass> {
        let planned = network.plan(|config, graph| {
            let embedded = graph.input("embedded", [rows, length, config.hidden_size]);
            let (outputs, updates) = updates.build(graph, &[], |layers| {
                layers.hook(hooked.iter().cloned());
                let encoding = clip_text::encode(layers, config, embedded, skip)?;
                let mut outputs = vec![encoding];
                outputs.extend(further(layers.hooks()));
                Ok(outputs)
            })?;
            Ok((EncoderInputs { embedded, updates }, outputs))
        })?;
        Ok(EncoderPass { planned, rows, length })
    }

    /// The plain pass.
    fn plain(
        network: &LoadedNetwork<ClipTextConfig>,
        updates: &Updates,
        size: [usize; 2],
        skip: usize,
    ) -> Result<EncoderPass> {
        EncoderPass::plan(network, updates, size, skip, &[], |_| Vec::new())
    }

    pub fn graph(&self) -> &Graph {
        &self.planned.graph
    }

    pub fn weight_bytes(&self, network: &LoadedNetwork<ClipTextConfig>) -> Result<u64> {
        network.weight_bytes(&self.planned)
    }

    /// All outputs, for rows of the token table, `[rows, length, width]`.
    pub fn run(
        &self,
        network: &LoadedNetwork<ClipTextConfig>,
        updates: &Updates,
        embedded: Vec<f32>,
    ) -> Result<Vec<Array>> {
        let program = network.program(&self.planned)?;
        updates.write(&program, &program.inputs.updates)?;
        let shape = [self.rows, self.length, network.config.hidden_size];
        program.write(program.inputs.embedded, &Array::f32(shape, embedded))?;
        program.run();
        let outputs = (0..self.planned.plan.outputs.len()).map(|i| program.output(i));
        Ok(outputs.collect::<Result<_, _>>()?)
    }
}

/// An encoder's weights fit its configuration.
///
/// # Errors
/// Weights that are missing or of another shape.
pub(crate) fn check(network: &LoadedNetwork<ClipTextConfig>, length: usize) -> Result<()> {
    let pass = EncoderPass::plain(network, &Updates::default(), [1, length], 0)?;
    pass.weight_bytes(network).map(drop)
}

/// How prompts will be encoded: in one run, or each in its own where they need different depths of
/// the encoder.
pub(crate) struct TextPlan {
    /// Each with the number of prompts that it is for.
    runs: Vec<(EncoderPass, usize)>,
    updates: Updates,
}

impl TextPlan {
    /// Plans for `prompts`, of which the last is not the negative one. As in diffusers, layers are
    /// skipped for that one only: the negative prompt is read by the whole encoder. Each prompt
    /// comes in as many copies as differ between cross-attentions.
    pub fn new(
        network: &LoadedNetwork<ClipTextConfig>,
        updates: &Updates,
        prompts: &[Vec<EncodedPrompt>],
        skip: usize,
    ) -> Result<TextPlan> {
        let layers = network.config.num_hidden_layers;
        if skip >= layers {
            return Err(Error::ClipSkip { found: skip, layers });
        }
        let plan = |prompts: &[Vec<EncodedPrompt>], skip: usize| -> Result<(EncoderPass, usize)> {
            let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
            let length = chunks.iter().map(|c| c.ids.len()).max().unwrap_or(0);
            let pass = EncoderPass::plain(network, updates, [chunks.len(), length], skip)?;
            Ok((pass, prompts.len()))
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
        self.runs.iter().map(|(pass, _)| pass.graph())
    }

    pub fn weight_bytes(&self, network: &LoadedNetwork<ClipTextConfig>) -> Result<u64> {
        let mut each = self.runs.iter().map(|(pass, _)| pass.weight_bytes(network));
        each.try_fold(0, |most, bytes| Ok(bytes?.max(most)))
    }

    /// Encodes the prompts planned for, weights applied: `[prompts, chunks * length, width]`, one
    /// encoding for all cross-attentions, or one for each of them. `words` are the rows that
    /// continue the token table.
    pub fn encode(
        &self,
        network: &LoadedNetwork<ClipTextConfig>,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<Vec<Array>> {
        let (mut values, mut rest) = (Vec::new(), prompts);
        for (pass, count) in &self.runs {
            let (now, later) = rest.split_at((*count).min(rest.len()));
            values.extend(self.encode_some(network, pass, now, words)?);
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
        network: &LoadedNetwork<ClipTextConfig>,
        pass: &EncoderPass,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<Vec<f32>> {
        let width = network.config.hidden_size;
        let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
        let length = chunks.first().map_or(0, |c| c.ids.len());
        let ids = chunks.iter().flat_map(|c| c.ids.iter().copied());
        let source = network.weights.source();
        let embedded = TokenRows::default().rows(source, &network.config, ids, words);
        let outputs = pass.run(network, &self.updates, network.blame(embedded)?)?;
        let mut encoding = outputs.first().map_or(Vec::new(), |array| array.values().to_vec());
        for (hidden, chunk) in encoding.chunks_exact_mut((length * width).max(1)).zip(&chunks) {
            prompt::apply_weights(hidden, width, &chunk.weights)?;
        }
        Ok(encoding)
    }
}

/// Encodings `[halves, tokens, width]` of several prompts as one, `[halves, all tokens, width]`;
/// for each cross-attention, where one of the prompts has its own for each.
pub(crate) fn one_after_another(encoded: &[&[Array]]) -> Vec<Array> {
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
