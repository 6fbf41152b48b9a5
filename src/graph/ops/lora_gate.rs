//! How strongly each low-rank update acts on each row: its factor, its strength and its mask, side
//! by side.

use super::Operation;
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// One update's part of a gate.
#[derive(Clone, Copy, Debug)]
pub struct GatePart {
    /// Columns that belong to the update.
    pub rank: usize,
    /// Of the whole product.
    pub factor: f32,
    /// `[1]`, multiplied in.
    pub strength: Option<Tensor>,
    /// `[tokens]` or `[batch, tokens]`: one factor for each row; the former serves every batch
    /// entry beside the latter.
    pub mask: Option<Tensor>,
}

#[derive(Debug)]
pub(crate) struct LoraGate(pub Vec<Part>);

/// A part and which inputs are its own: strengths and masks follow each other in the order of the
/// parts.
#[derive(Debug)]
pub(crate) struct Part {
    pub rank: usize,
    pub factor: f32,
    pub strength: Option<usize>,
    pub mask: Option<usize>,
}

impl Graph {
    /// `[ranks]`, or `[.., ranks]` with the shape of the masks if any part has one:
    /// `factor * strength * mask` of the update that the column belongs to. Strengths and masks get
    /// no gradient.
    pub fn lora_gate(&mut self, parts: &[GatePart]) -> Result<Tensor> {
        let mut inputs = Vec::new();
        let mut own = |tensor: Option<Tensor>| {
            tensor.map(|t| {
                inputs.push(t);
                inputs.len() - 1
            })
        };
        let parts = parts
            .iter()
            .map(|p| Part {
                rank: p.rank,
                factor: p.factor,
                strength: own(p.strength),
                mask: own(p.mask),
            })
            .collect();
        self.apply(LoraGate(parts), &inputs)
    }
}

impl Operation for LoraGate {
    fn name(&self) -> &'static str {
        "lora_gate"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let mut rows: Option<&Shape> = None;
        for part in &self.0 {
            if let Some(strength) = part.strength.map(|i| inputs[i])
                && strength.elements() != 1
            {
                return Err(format!("a strength is one number, found {strength}"));
            }
            if let Some(mask) = part.mask.map(|i| inputs[i]) {
                let (long, short) = match rows {
                    Some(rows) if rows.len() > mask.len() => (rows, mask),
                    Some(rows) => (mask, rows),
                    None => (mask, mask),
                };
                if short.is_empty() || !long.ends_with(short) {
                    return Err(format!("masks of different shapes: {short} and {long}"));
                }
                rows = Some(long);
            }
        }
        let ranks = self.0.iter().map(|part| part.rank).sum();
        let mut dims = rows.map(|rows| rows.to_vec()).unwrap_or_default();
        dims.push(ranks);
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        for (row, values) in output.chunks_exact_mut(shape.channels()).enumerate() {
            let mut first = 0;
            for part in &self.0 {
                let strength = part.strength.map_or(1.0, |i| inputs[i].values()[0]);
                let mask =
                    part.mask.map_or(1.0, |i| inputs[i].values()[row % inputs[i].values().len()]);
                values[first..first + part.rank].fill(part.factor * strength * mask);
                first += part.rank;
            }
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(graph, self, "strength or mask", "they are settings"))
    }
}
