//! The text encoder's part in the statistics: what its layers read (stage 2), and what comes out of
//! it (stages 3 and 4).

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Program, Weights};
use crate::concept::{Network, UpdateSet, Word};
use crate::graph::{Array, Graph, ParameterError, Tensor};
use crate::models::clip_text;
use crate::nn::Layers;
use crate::sd::source::ComponentSource;
use crate::text::prompt::{self, PromptOptions, Syntax};

use super::base::{Base, FusedWeights, Source};
use super::collect::Runner;
use super::groups::{Layout, low_rank, ranks};
use super::{Error, Result};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// A prompt as token ids; those from [`Bound::words_from`] on are concept words.
pub(super) struct Bound {
    /// As long as the tower is.
    pub ids: Vec<u32>,
    /// The position of the end mark.
    pub end: usize,
    words_from: u32,
    /// Rows of each concept word, by its id.
    words: Vec<Array>,
    layers: usize,
}

impl Bound {
    /// Positions of the concept words, and of the end mark; all positions up to the end where there
    /// are none.
    pub fn positions(&self) -> Vec<usize> {
        let own = |at: &usize| {
            self.ids.get(*at).is_some_and(|id| *id >= self.words_from) || *at == self.end
        };
        match self.words.is_empty() {
            true => (0..=self.end).collect(),
            false => (0..=self.end).filter(own).collect(),
        }
    }

    /// Encodings that differ: one for each cross-attention where concept words are in the prompt.
    pub fn copies(&self) -> usize {
        if self.words.is_empty() { 1 } else { self.layers }
    }
}

/// Tokenizes `text`, in which `words` are single tokens.
pub(super) fn bind(base: &Base, words: &[Word], text: &str) -> Result<Bound> {
    let mut tokenizer = base.tokenizer.clone();
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let added = tokenizer.add_words(&texts)?;
    let options = PromptOptions { syntax: Syntax::Off, ..PromptOptions::default() };
    let encoded = prompt::encode(&tokenizer, text, &options)?;
    let chunk = encoded
        .chunks
        .into_iter()
        .next()
        .ok_or_else(|| Error::option("prompt", format!("\"{text}\" has no tokens")))?;
    Ok(Bound {
        ids: chunk.ids,
        end: chunk.end,
        words_from: added.first().copied().unwrap_or(u32::MAX),
        words: words.iter().map(|word| word.rows(Network::TextEncoder).clone()).collect(),
        layers: base.attentions.len(),
    })
}

/// What the text encoder made of prompts.
pub(super) struct Encoded {
    /// For each prompt and copy, in this order: `[tokens, width]`.
    pub rows: Vec<Vec<f32>>,
    /// For each group of the layout: the inputs of each prompt and copy, `[tokens, width]`.
    pub inputs: Vec<Vec<Vec<f32>>>,
}

/// Runs the text encoder with `updates` on the first `tokens` positions of `prompts`, each as often
/// as it has copies, and reads what `layout`'s layers read.
pub(super) fn encode(
    runner: &Runner,
    fused: &FusedWeights,
    updates: &UpdateSet,
    layout: &Layout,
    prompts: &[Bound],
    tokens: usize,
) -> Result<Encoded> {
    let base = runner.base;
    let width = base.text.hidden_size;
    let source = Source::new(ComponentSource(base.checkpoint.text_encoder.clone()), fused, updates);
    let mut embedded = Vec::new();
    let mut rows = 0;
    let mut known = HashMap::new();
    for prompt in prompts {
        for copy in 0..prompt.copies() {
            for &id in prompt.ids.iter().take(tokens) {
                embedded
                    .extend_from_slice(&embedding(&source, base, prompt, id, copy, &mut known)?);
            }
            rows += 1;
        }
    }
    let weights = Weights::new(runner.gpu, Arc::new(source), runner.precision);
    let mut graph = Graph::new();
    let x = graph.input("embedded", [rows, tokens, width]);
    let mut layers = Layers::with_low_rank(&mut graph, vec![low_rank(ranks(updates))]);
    layers.hook(layout.names());
    let y = clip_text::encode(&mut layers, &base.text, x, 0)?;
    let found = layers.hooks().to_vec();
    let hooked = layout.inputs(&found)?;
    let outputs: Vec<Tensor> = [y].into_iter().chain(hooked).collect();
    let program = Program::new(&weights, &graph, &outputs)?;
    program.write("embedded", &Array::f32([rows, tokens, width], embedded))?;
    program.run();
    let split = |array: Array| -> Vec<Vec<f32>> {
        let size = array.shape.elements() / rows.max(1);
        array.values().chunks_exact(size.max(1)).map(<[f32]>::to_vec).collect()
    };
    let rows = split(program.output(0)?);
    let inputs =
        (1..outputs.len()).map(|i| Ok(split(program.output(i)?))).collect::<Result<_>>()?;
    Ok(Encoded { rows, inputs })
}

/// The embedding of a token in copy `copy`. Rows of the table are read on the host: the table is
/// larger than all the rest.
fn embedding(
    source: &Source,
    base: &Base,
    prompt: &Bound,
    id: u32,
    copy: usize,
    known: &mut HashMap<u32, Vec<f32>>,
) -> Result<Vec<f32>> {
    use crate::graph::ParameterSource;
    let width = base.text.hidden_size;
    if let Some(rows) =
        id.checked_sub(prompt.words_from).and_then(|word| prompt.words.get(word as usize))
    {
        let row = copy.min(rows.shape.rows().saturating_sub(1));
        return Ok(rows.values().chunks_exact(width).nth(row).unwrap_or_default().to_vec());
    }
    if let Some(row) = known.get(&id) {
        return Ok(row.clone());
    }
    let mut row = vec![0.0; width];
    let at = id as usize * width;
    let missing = || crate::graph::Error::from(ParameterError::Missing { name: TABLE.into() });
    let info = source.info(TABLE).ok_or_else(missing)?;
    let expected = vec![base.text.vocab_size, width];
    if info.shape != expected {
        return Err(crate::graph::Error::from(ParameterError::Shape {
            name: TABLE.into(),
            expected,
            found: info.shape,
        })
        .into());
    }
    if id as usize >= base.text.vocab_size {
        let problem = format!(
            "the tokenizer has token {id}, the text encoder a table of {} tokens",
            base.text.vocab_size
        );
        return Err(Error::file(&base.checkpoint.path, problem));
    }
    source.read(TABLE, at..at + width, &mut row).map_err(crate::graph::Error::from)?;
    known.insert(id, row.clone());
    Ok(row)
}
