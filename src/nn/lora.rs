//! Low-rank updates (LoRA) of linear layers and convolutions, kept beside the weights.

use std::collections::HashMap;

use super::Layers;
use crate::graph::ops::GatePart;
use crate::graph::{Result, Tensor};

/// A set of low-rank updates: each layer named in `ranks` computes y + strength * mask *
/// up(down(x)).
///
/// The matrices are `<name>.<layer>.lora_down.weight` `[rank, in]` (of a convolution of k x k,
/// `[rank, in, k, k]`) and `<name>.<layer>.lora_up.weight` `[out, rank]`: parameters, or inputs of
/// the graph if the set is `trained`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoraSet {
    /// What tells this set's matrices from the model's and from other sets'.
    pub name: String,
    /// Rank of the update of each layer, by the layer's full name.
    pub ranks: HashMap<String, usize>,
    /// Tensors of the graph that are read instead of parameters, down and up by the layer's full
    /// name: a state that is trained.
    pub tensors: HashMap<String, (Tensor, Tensor)>,
    /// The factor of the whole set.
    pub strength: Strength,
    /// The matrices are inputs, which a graph can assign to, instead of parameters.
    pub trained: bool,
    /// Where the updates act: for each number of places that layers of this model compute (height
    /// times width of a feature map), a factor for each place, `[places]` or `[batch, places]`.
    /// Empty: everywhere.
    pub masks: HashMap<usize, Tensor>,
    /// What is left of the layers' narrow sides while they are trained; none: all.
    pub dropout: Option<Dropout>,
}

/// Dropout of low-rank updates: factors that the narrow side of each layer, between its two
/// matrices, is multiplied by. They are the inputs [`LoraSet::dropout_input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropout {
    /// One for each rank and batch entry, `[batch, 1, .., rank]`.
    Ranks,
    /// One for each number, of the narrow side's shape.
    Numbers,
}

/// The factor of a whole set: a convention of alpha / rank is the caller's to apply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// The same in every run.
    Fixed(f32),
    /// The input `<name>.scale` `[1]` of the graph, to be written before a run: another strength
    /// needs no other plan.
    Input,
}

impl Default for Strength {
    fn default() -> Self {
        Strength::Fixed(1.0)
    }
}

impl LoraSet {
    /// Updates of full strength, everywhere, from parameters.
    pub fn new(name: impl Into<String>, ranks: HashMap<String, usize>) -> LoraSet {
        LoraSet { name: name.into(), ranks, ..LoraSet::default() }
    }

    /// The name of the input that [`Strength::Input`] reads.
    pub fn strength_input(&self) -> String {
        format!("{}.scale", self.name)
    }

    /// The name of the input with the factors of `layer`'s dropout.
    pub fn dropout_input(&self, layer: &str) -> String {
        format!("{}.{layer}.dropout", self.name)
    }
}

/// The window of a convolution that is updated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub kernel: usize,
    pub stride: usize,
}

/// The narrow side of a layer's updates `[.., ranks]`, gated, and the matrix `[out, ranks]` that
/// widens it.
pub(super) type Update = (Tensor, Tensor);

/// The sets, and the gates made for them so far: by the sets and their ranks, and the places if
/// masks are among them.
#[derive(Debug, Default)]
pub(super) struct Updates {
    sets: Vec<LoraSet>,
    gates: HashMap<Gate, Tensor>,
}

type Gate = (Vec<(usize, usize)>, Option<usize>);

impl Updates {
    pub fn new(sets: Vec<LoraSet>) -> Updates {
        Updates { sets, gates: HashMap::new() }
    }

    /// The number and rank of each set that updates `layer`.
    fn of(&self, layer: &str) -> Vec<(usize, usize)> {
        let ranks = self.sets.iter().map(|set| set.ranks.get(layer));
        ranks
            .enumerate()
            .filter_map(|(number, rank)| Some((number, *rank?)))
            .filter(|(_, rank)| *rank > 0)
            .collect()
    }
}

impl Layers<'_> {
    /// What low-rank updates make of `x`, the input of the layer being built, before they are
    /// widened to `out` channels. Computed ahead of the layer's own product, whose kernel then adds
    /// it ([`Layers::add_update`]). A convolution's `x` is padded already.
    pub(super) fn lora_update(
        &mut self,
        x: Tensor,
        out: usize,
        window: Option<Window>,
    ) -> Result<Option<Update>> {
        let layer = self.graph.path();
        let members = self.updates.of(&layer);
        if members.is_empty() {
            return Ok(None);
        }
        let into = self.channels(x);
        let window = window.filter(|window| window.kernel != 1 || window.stride != 1);
        let mut downs = Vec::with_capacity(members.len());
        let mut ups = Vec::with_capacity(members.len());
        for &(number, rank) in &members {
            let down = match window {
                Some(Window { kernel, .. }) => vec![rank, into, kernel, kernel],
                None => vec![rank, into],
            };
            if let Some(&(down, up)) = self.updates.sets[number].tensors.get(&layer) {
                downs.push(down);
                ups.push(up);
                continue;
            }
            downs.push(self.lora_matrix(number, &format!("{layer}.lora_down.weight"), &down)?);
            ups.push(self.lora_matrix(number, &format!("{layer}.lora_up.weight"), &[out, rank])?);
        }
        let down = self.joined(&downs, 0)?;
        let up = self.joined(&ups, 1)?;
        let t = match window {
            Some(Window { stride, .. }) => self.graph.lora_down_conv2d(x, down, stride)?,
            None => self.graph.lora_down(x, down)?,
        };
        let t = self.dropped(t, &members, &layer)?;
        Ok(Some((self.gated(t, members)?, up)))
    }

    /// `t` times the factors of dropout, where its set has that.
    fn dropped(&mut self, t: Tensor, members: &[(usize, usize)], layer: &str) -> Result<Tensor> {
        let sets = members.iter().map(|(number, _)| &self.updates.sets[*number]);
        let Some((set, dropout)) = sets.clone().find_map(|set| Some((set, set.dropout?))) else {
            return Ok(t);
        };
        if members.len() > 1 {
            let message = format!("`{}` has dropout, and is not alone on this layer", set.name);
            return Err(self.graph.shape_error("low-rank update", message));
        }
        let (name, mut shape) = (set.dropout_input(layer), self.graph.shape(t).to_vec());
        if let (Dropout::Ranks, [_, places @ .., _]) = (dropout, &mut shape[..]) {
            places.fill(1);
        }
        let factors = self.shared_input(name, &shape)?;
        self.graph.multiply(t, factors)
    }

    /// `y`, the layer's own product, with its updates added.
    pub(super) fn add_update(&mut self, y: Tensor, update: Option<Update>) -> Result<Tensor> {
        match update {
            Some((t, up)) => self.graph.lora_up(Some(y), t, up),
            None => Ok(y),
        }
    }

    fn lora_matrix(&mut self, number: usize, name: &str, shape: &[usize]) -> Result<Tensor> {
        let set = &self.updates.sets[number];
        let full = format!("{}.{name}", set.name);
        if !set.trained {
            return Ok(self.graph.parameter(full, shape));
        }
        self.shared_input(full, shape)
    }

    /// The input `name`, declared once however many layers read it.
    fn shared_input(&mut self, name: String, shape: &[usize]) -> Result<Tensor> {
        let Some(found) = self.graph.find_input(&name) else {
            return Ok(self.graph.input(name, shape));
        };
        let there = self.graph.shape(found);
        if there[..] != *shape {
            let message = format!("the input `{name}` is {there} elsewhere, {shape:?} here");
            return Err(self.graph.shape_error("low-rank update", message));
        }
        Ok(found)
    }

    fn joined(&mut self, matrices: &[Tensor], axis: usize) -> Result<Tensor> {
        match matrices {
            [one] => Ok(*one),
            several => self.graph.concat(several, axis),
        }
    }

    /// `t` times the strengths and masks of its columns' sets.
    fn gated(&mut self, t: Tensor, members: Vec<(usize, usize)>) -> Result<Tensor> {
        let sets = &self.updates.sets;
        let masked = members.iter().any(|(number, _)| !sets[*number].masks.is_empty());
        if let ([(number, _)], false) = (&members[..], masked) {
            // One factor for all needs no gate.
            let set = &sets[*number];
            return match set.strength {
                Strength::Fixed(1.0) => Ok(t),
                Strength::Fixed(factor) => self.graph.scale(t, factor),
                Strength::Input => {
                    let strength = self.shared_input(set.strength_input(), &[1])?;
                    self.graph.multiply(t, strength)
                }
            };
        }
        let shape = self.graph.shape(t).clone();
        let batch = if shape.len() > 2 { shape[0] } else { 1 };
        let places = masked.then(|| shape.rows() / batch.max(1));
        let key = (members, places);
        let gate = match self.updates.gates.get(&key) {
            Some(gate) => *gate,
            None => {
                let gate = self.gate(&key.0, places)?;
                self.updates.gates.insert(key, gate);
                gate
            }
        };
        // `[ranks]`, `[places, ranks]` or `[batch, places, ranks]`: the end of t's shape, once its
        // places are as t's.
        let gate = match (self.graph.shape(gate).len(), &shape[..]) {
            (1, _) => gate,
            (2, [_, end @ ..]) if end.len() > 1 => self.graph.reshape(gate, end)?,
            _ => self.graph.reshape(gate, shape)?,
        };
        self.graph.multiply(t, gate)
    }

    fn gate(&mut self, members: &[(usize, usize)], places: Option<usize>) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(members.len());
        for &(number, rank) in members {
            let set = &self.updates.sets[number];
            let mask = match places {
                Some(places) if !set.masks.is_empty() => {
                    Some(set.masks.get(&places).copied().ok_or_else(|| {
                        let message = format!(
                            "`{}` has no mask for the {places} places that this layer computes",
                            set.name
                        );
                        self.graph.shape_error("low-rank update", message)
                    })?)
                }
                _ => None,
            };
            let (name, strength) = (set.strength_input(), set.strength);
            let (factor, strength) = match strength {
                Strength::Fixed(factor) => (factor, None),
                Strength::Input => (1.0, Some(self.shared_input(name, &[1])?)),
            };
            parts.push(GatePart { rank, factor, strength, mask });
        }
        self.graph.lora_gate(&parts)
    }
}
