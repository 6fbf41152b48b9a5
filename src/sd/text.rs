//! From prompts to what the UNet reads of them.

use std::slice::from_ref;

use crate::graph::{self, Array, Data, Graph, Tensor};
use crate::models::clip_text;
use crate::models::config::ClipTextConfig;
use crate::nn::{Hook, Layers};
use crate::text::Tokenizer;
use crate::text::prompt::{self, Chunk, EncodedPrompt, PromptOptions};

use super::error::{Error, Result};
use super::model::Reading;
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
    /// Where the texts end, in rows of all of them, `[rows]`; where something is pooled.
    ends: Option<Tensor>,
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
    /// width]`, the next the pooled texts `[rows, projection]` where `reading` says so; `further`
    /// may add others, from the layers named in `hooked`.
    pub fn plan(
        network: &LoadedNetwork<ClipTextConfig>,
        reading: Reading,
        updates: &Updates,
        [rows, length]: [usize; 2],
        skip: usize,
        hooked: &[String],
        further: impl FnOnce(&[Hook]) -> Vec<Tensor>,
    ) -> Result<EncoderPass> {
        let planned = network.plan(|config, graph| {
            let embedded = graph.input("embedded", [rows, length, config.hidden_size]);
            let ends = reading.pooled.then(|| graph.input_ids("ends", [rows]));
            let (outputs, updates) = updates.build(graph, &[], |layers| {
                layers.hook(hooked.iter().cloned());
                let mut outputs = read(layers, config, reading, embedded, ends, skip)?;
                outputs.extend(further(layers.hooks()));
                Ok(outputs)
            })?;
            Ok((EncoderInputs { embedded, ends, updates }, outputs))
        })?;
        Ok(EncoderPass { planned, rows, length })
    }

    /// The plain pass.
    fn plain(
        network: &LoadedNetwork<ClipTextConfig>,
        reading: Reading,
        updates: &Updates,
        size: [usize; 2],
        skip: usize,
    ) -> Result<EncoderPass> {
        EncoderPass::plan(network, reading, updates, size, skip, &[], |_| Vec::new())
    }

    pub fn graph(&self) -> &Graph {
        &self.planned.graph
    }

    pub fn weight_bytes(&self, network: &LoadedNetwork<ClipTextConfig>) -> Result<u64> {
        network.weight_bytes(&self.planned)
    }

    /// Bytes of the device, weights among them: the fewest that do, and all.
    pub fn bytes(&self, network: &LoadedNetwork<ClipTextConfig>) -> Result<(u64, u64)> {
        let (at_work, all) = (self.planned.bytes(), self.weight_bytes(network)?);
        let least =
            network.held(&self.planned, 0)?.map_or_else(|few| few.least, |held| held.bytes());
        Ok((at_work + least, at_work + all))
    }

    /// All outputs, for rows of the token table, `[rows, length, width]`, and the places of the
    /// texts' ends, which count where something is pooled.
    pub fn run(
        &self,
        network: &LoadedNetwork<ClipTextConfig>,
        updates: &Updates,
        embedded: Vec<f32>,
        ends: &[usize],
    ) -> Result<Vec<Array>> {
        let program = network.program(&self.planned)?;
        updates.write(&program, &program.inputs.updates)?;
        let shape = [self.rows, self.length, network.config.hidden_size];
        program.write(program.inputs.embedded, &Array::f32(shape, embedded))?;
        if let Some(input) = program.inputs.ends {
            program.write(input, &end_rows(ends, self.length))?;
        }
        program.run();
        let outputs = (0..self.planned.plan.outputs.len()).map(|i| program.output(i));
        Ok(outputs.collect::<Result<_, _>>()?)
    }
}

/// Builds what of an encoder is read: its encoding of `embedded` tokens, and what is pooled of it at
/// the rows of `ends`.
pub(crate) fn read(
    layers: &mut Layers,
    config: &ClipTextConfig,
    reading: Reading,
    embedded: Tensor,
    ends: Option<Tensor>,
    skip: usize,
) -> graph::Result<Vec<Tensor>> {
    if !reading.before_last {
        return Ok(vec![clip_text::encode(layers, config, embedded, skip)?]);
    }
    let whole = ends.is_some();
    let (encoding, last) = clip_text::encode_before_last(layers, config, embedded, skip, whole)?;
    let mut outputs = vec![encoding];
    if let (Some(last), Some(ends)) = (last, ends) {
        outputs.push(clip_text::project(layers, config, last, ends)?);
    }
    Ok(outputs)
}

/// Places of ends in texts of `length` tokens as rows of all of them.
pub(crate) fn end_rows(ends: &[usize], length: usize) -> Array {
    let rows = ends.iter().enumerate().map(|(i, end)| (i * length + end) as u32);
    Array::u32([ends.len()], rows.collect())
}

/// An encoder's weights fit its configuration.
///
/// # Errors
/// Weights that are missing or of another shape.
pub(crate) fn check(
    network: &LoadedNetwork<ClipTextConfig>,
    reading: Reading,
    length: usize,
) -> Result<()> {
    let pass = EncoderPass::plain(network, reading, &Updates::default(), [1, length], 0)?;
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
        reading: Reading,
        updates: &Updates,
        prompts: &[Vec<EncodedPrompt>],
        skip: usize,
    ) -> Result<TextPlan> {
        let layers = network.config.num_hidden_layers - usize::from(reading.before_last);
        if skip >= layers {
            return Err(Error::ClipSkip { found: skip, layers });
        }
        let plan = |prompts: &[Vec<EncodedPrompt>], skip: usize| -> Result<(EncoderPass, usize)> {
            let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
            let length = chunks.iter().map(|c| c.ids.len()).max().unwrap_or(0);
            let size = [chunks.len(), length];
            let pass = EncoderPass::plain(network, reading, updates, size, skip)?;
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

    /// Encodes the prompts planned for, weights applied. `words` are the rows that continue the
    /// token table.
    pub fn encode(
        &self,
        network: &LoadedNetwork<ClipTextConfig>,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<Encoded> {
        let (mut values, mut pooled, mut rest) = (Vec::new(), Vec::new(), prompts);
        for (pass, count) in &self.runs {
            let (now, later) = rest.split_at((*count).min(rest.len()));
            let (encodings, of_pool) = self.encode_some(network, pass, now, words)?;
            values.extend(encodings);
            pooled.extend(of_pool);
            rest = later;
        }
        if values.iter().chain(pooled.iter().flatten()).any(|v| !v.is_finite()) {
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
        let layers = 0..prompts.iter().map(Vec::len).max().unwrap_or(1);
        Ok(Encoded { encodings: layers.map(layer).collect(), pooled })
    }

    /// Encodes all chunks of all copies of `prompts` in one run; also what is pooled of each prompt:
    /// of its first copy's first chunk, weights left out, as web UIs do.
    fn encode_some(
        &self,
        network: &LoadedNetwork<ClipTextConfig>,
        pass: &EncoderPass,
        prompts: &[Vec<EncodedPrompt>],
        words: Option<&Array>,
    ) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let width = network.config.hidden_size;
        let chunks: Vec<&Chunk> = prompts.iter().flatten().flat_map(|p| &p.chunks).collect();
        let length = chunks.first().map_or(0, |c| c.ids.len());
        let ids = chunks.iter().flat_map(|c| c.ids.iter().copied());
        let source = network.weights.source();
        let embedded = TokenRows::default().rows(source, &network.config, ids, words);
        let ends: Vec<usize> = chunks.iter().map(|chunk| chunk.end).collect();
        let outputs = pass.run(network, &self.updates, network.blame(embedded)?, &ends)?;
        let mut encoding = outputs.first().map_or(Vec::new(), |array| array.values().to_vec());
        let rows = outputs.get(1).map(|array| {
            array.values().chunks_exact(array.shape.channels().max(1)).collect::<Vec<_>>()
        });
        let chunks_of = |prompt: &Vec<EncodedPrompt>| prompt.iter().map(|p| p.chunks.len()).sum();
        let starts = prompts.iter().scan(0, |next, prompt| {
            let count: usize = chunks_of(prompt);
            Some(std::mem::replace(next, *next + count))
        });
        let pooled = |rows: Vec<&[f32]>| -> Vec<Vec<f32>> {
            starts.filter_map(|start| rows.get(start).map(|row| row.to_vec())).collect()
        };
        let pooled = rows.map_or(Vec::new(), pooled);
        for (hidden, chunk) in encoding.chunks_exact_mut((length * width).max(1)).zip(&chunks) {
            prompt::apply_weights(hidden, width, &chunk.weights)?;
        }
        Ok((encoding, pooled))
    }
}

/// What prompts come to.
pub(crate) struct Encoded {
    /// `[prompts, chunks * length, width]`: one encoding for all cross-attentions, or one for each
    /// of them.
    pub encodings: Vec<Array>,
    /// Of each prompt, where the encoder pools.
    pub pooled: Vec<Vec<f32>>,
}

impl Encoded {
    /// What several encoders make of the same prompts, side by side as the UNet reads it.
    pub fn beside(mut all: Vec<Encoded>) -> Encoded {
        if all.len() == 1
            && let Some(only) = all.pop()
        {
            return only;
        }
        let layers = all.iter().map(|encoded| encoded.encodings.len()).max().unwrap_or(0);
        let layer = |layer: usize| {
            let of = |encoded: &Encoded| {
                encoded.encodings.get(layer).or(encoded.encodings.last()).cloned()
            };
            side_by_side(&all.iter().filter_map(of).collect::<Vec<_>>())
        };
        let encodings = (0..layers).map(layer).collect();
        let pooled = all.into_iter().map(|encoded| encoded.pooled).find(|all| !all.is_empty());
        Encoded { encodings, pooled: pooled.unwrap_or_default() }
    }

    /// Prompt `number` reads as nothing at all.
    pub fn make_zero(&mut self, number: usize) {
        for encoding in &mut self.encodings {
            let prompts = encoding.shape.first().copied().unwrap_or(1).max(1);
            if let Data::F32(values) = &mut encoding.data {
                let each = values.len() / prompts;
                values.iter_mut().skip(number * each).take(each).for_each(|value| *value = 0.0);
            }
        }
        if let Some(pooled) = self.pooled.get_mut(number) {
            pooled.fill(0.0);
        }
    }
}

/// Arrays `[rows, tokens, width]` joined along their width.
fn side_by_side(all: &[Array]) -> Array {
    let widths: Vec<usize> = all.iter().map(|array| array.shape.channels()).collect();
    let [rows, tokens, _] =
        all.first().and_then(|array| array.shape.tokens().ok()).unwrap_or_default();
    let row = |at: usize| {
        all.iter().zip(&widths).flat_map(move |(array, width)| {
            array.values().get(at * width..(at + 1) * width).unwrap_or_default()
        })
    };
    let values = (0..rows * tokens).flat_map(row).copied().collect();
    Array::f32([rows, tokens, widths.iter().sum()], values)
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
