//! The text encoders of a step: from captions to what the UNet reads of them.

use crate::graph::{Graph, Tensor};
use crate::models::config::ClipTextConfig;
use crate::nn::Layers;
use crate::sd::Reading;
use crate::sd::text::read;

use super::config::{Models, Network, StepConfig};
use super::error::{Error, Result};
use super::parameter_group::{ParameterGroup, given, rows_name, within};

/// A text encoder, and what of it the UNet reads.
pub(super) struct Encoder<'m> {
    pub network: Network,
    pub config: &'m ClipTextConfig,
    pub reading: Reading,
}

impl Models {
    /// In the order in which the UNet reads them.
    pub(super) fn encoders(&self) -> Vec<Encoder<'_>> {
        let before_last = self.second.is_some();
        let encoder = |network, config| {
            let pooled = network == Network::TextEncoder2;
            Encoder { network, config, reading: Reading { before_last, pooled } }
        };
        let first = encoder(Network::TextEncoder, &self.text);
        let second = self.second.as_ref().map(|config| encoder(Network::TextEncoder2, config));
        [first].into_iter().chain(second).collect()
    }

    /// Width of what they give together.
    pub(super) fn text_width(&self) -> usize {
        self.encoders().iter().map(|encoder| encoder.config.hidden_size).sum()
    }
}

/// What a step reads of the captions, for one text encoder.
#[derive(Clone, Copy)]
pub(super) struct CaptionInputs {
    pub network: Network,
    /// Rows of the captions' tokens that stand still.
    pub embedded: Tensor,
    /// Which trained row each token adds.
    pub ids: Tensor,
    /// Where each caption ends, in rows of all of them; where something is pooled.
    pub ends: Option<Tensor>,
}

/// All that the UNet reads of the text encoders.
pub(super) struct Texts {
    pub inputs: Vec<CaptionInputs>,
    /// For each copy of the captions.
    pub texts: Vec<Tensor>,
    /// The summaries of the captions.
    pub pooled: Option<Tensor>,
    /// All of it in one tensor, from which gradients go back.
    all: Tensor,
}

/// Builds the text encoders on `copies` of the captions.
pub(super) fn build(
    graph: &mut Graph,
    models: &Models,
    config: &StepConfig,
    groups: &[ParameterGroup],
    copies: usize,
) -> Result<Texts> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for encoder in models.encoders() {
        let (captions, found) = one(graph, &encoder, config, groups, copies)?;
        inputs.push(captions);
        outputs.push(found);
    }
    let encodings: Vec<Tensor> =
        outputs.iter().filter_map(|found| found.first().copied()).collect();
    let pooled = outputs.iter().find_map(|found| found.get(1).copied());
    let encoding = side_by_side(graph, &encodings)?;
    let texts = match copies {
        1 => vec![encoding],
        _ => (0..copies)
            .map(|copy| graph.slice(encoding, 0, copy * config.batch, config.batch))
            .collect::<crate::graph::Result<_>>()?,
    };
    let all = match pooled {
        Some(pooled) => in_one(graph, &[encoding, pooled])?,
        None => encoding,
    };
    Ok(Texts { inputs, texts, pooled, all })
}

/// The last `pictures` captions as the encoders read them without anything that is trained: one
/// encoding for all layers, and the summaries.
pub(super) fn base(
    graph: &mut Graph,
    models: &Models,
    config: &StepConfig,
    of: &Texts,
    pictures: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let (mut encodings, mut pooled) = (Vec::new(), None);
    for (encoder, captions) in models.encoders().iter().zip(&of.inputs) {
        // The first copy, of all captions: their ends are counted in rows of these.
        let embedded = graph.slice(captions.embedded, 0, 0, config.batch)?;
        let mut layers = Layers::new(graph);
        let outputs = within(&mut layers, encoder.network, |layers| {
            let (of, reading) = (encoder.config, encoder.reading);
            read(layers, of, reading, embedded, captions.ends, config.clip_skip)
        })?;
        for (i, output) in outputs.into_iter().enumerate() {
            let last = graph.slice(output, 0, config.batch - pictures, pictures)?;
            if i == 0 { encodings.push(last) } else { pooled = Some(last) }
        }
    }
    Ok((side_by_side(graph, &encodings)?, pooled))
}

/// What all encoders make of the same tokens.
fn side_by_side(graph: &mut Graph, encodings: &[Tensor]) -> Result<Tensor> {
    match encodings {
        [encoding] => Ok(*encoding),
        _ => Ok(graph.concat(encodings, 2)?),
    }
}

/// One text encoder: its encoding of all copies, and what is pooled of the first.
fn one(
    graph: &mut Graph,
    encoder: &Encoder,
    config: &StepConfig,
    groups: &[ParameterGroup],
    copies: usize,
) -> Result<(CaptionInputs, Vec<Tensor>)> {
    let (network, text) = (encoder.network, encoder.config);
    // Each copy of the captions stands together, so that a layer's encoding is one range. The
    // frozen rows are looked up by the caller: the table is larger than all the rest of the tower,
    // and a step reads little of it.
    let sequences = copies * config.batch;
    let input = |name: &str| match network {
        Network::TextEncoder2 => format!("{name}_2"),
        Network::TextEncoder | Network::UNet => name.to_string(),
    };
    let frozen = graph.input(input("embedded"), [sequences, config.tokens, text.hidden_size]);
    let ids = graph.input_ids(input("ids"), [sequences, config.tokens]);
    let ends = encoder.reading.pooled.then(|| graph.input_ids("ends", [config.batch]));
    let rows = rows(groups, network)?;
    let count = graph.shape(rows)[0];
    // A last row of zeros, for all other tokens.
    let table = graph.reshape(rows, [1, count, 1, text.hidden_size])?;
    let table = graph.pad2d(table, [0, 1, 0, 0])?;
    let table = graph.reshape(table, [count + 1, text.hidden_size])?;
    let trained = graph.embedding(table, ids)?;
    let embedded = graph.add(frozen, trained)?;
    let mut layers = Layers::with_loras(graph, given(groups, network, config));
    let outputs = within(&mut layers, network, |layers| {
        read(layers, text, encoder.reading, embedded, ends, config.clip_skip)
    })?;
    Ok((CaptionInputs { network, embedded: frozen, ids, ends }, outputs))
}

impl Texts {
    /// The gradients of `wanted`, from those of what the UNet reads: of `texts`, then of `pooled`.
    /// Through each encoder once, with what all layers of the UNet send back.
    pub fn gradients(
        &self,
        graph: &mut Graph,
        found: &[Tensor],
        wanted: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let (texts, pooled) = found.split_at(self.texts.len().min(found.len()));
        let upstream = match texts {
            [text] => *text,
            texts => graph.concat(texts, 0)?,
        };
        let upstream = match pooled.first() {
            Some(&pooled) => in_one(graph, &[upstream, pooled])?,
            None => upstream,
        };
        Ok(graph.gradients_of(self.all, upstream, wanted)?)
    }
}

/// Tensors as one vector.
fn in_one(graph: &mut Graph, tensors: &[Tensor]) -> Result<Tensor> {
    let mut flat = Vec::with_capacity(tensors.len());
    for &tensor in tensors {
        let count = graph.shape(tensor).elements();
        flat.push(graph.reshape(tensor, [count])?);
    }
    Ok(graph.concat(&flat, 0)?)
}

fn rows(groups: &[ParameterGroup], network: Network) -> Result<Tensor> {
    let name = rows_name(network);
    let mut parts = groups.iter().flat_map(|group| &group.parts);
    let found = parts.find(|part| part.name == name);
    found.map(|part| part.tensor).ok_or_else(|| Error::Option {
        option: "words",
        found: "none".into(),
        expected: "at least one".into(),
    })
}
