//! Low-rank updates of a network, and where in a picture they act.

use std::collections::HashSet;

use crate::backend::Program;
use crate::concept::{self, AppliedSet, Lora, Network, Update, UpdateSet};
use crate::graph::{self, Array, Graph, Origin, ParameterSource, Tensor};
use crate::nn::{Layers, LoraSet, Strength};

use super::error::Result;
use super::network::LoadedNetwork;
use super::overlay::Overlay;

/// Updates of one network, each acting on some prompts of a picture and not on others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Updates(Vec<Acting>);

/// Updates, and where they act.
#[derive(Clone, Debug)]
struct Acting {
    set: AppliedSet,
    /// For each prompt of the request, the context's first.
    factors: Vec<f32>,
    /// The factors differ within one picture: they are written as masks.
    masked: bool,
}

/// Graphs are the same for the same updates: strengths and masks are inputs.
impl PartialEq for Acting {
    fn eq(&self, other: &Self) -> bool {
        (&self.set.name, self.masked) == (&other.set.name, other.masked)
    }
}

/// A mask's value for layers that compute `places` rows.
pub(crate) struct Mask {
    set: String,
    values: Array,
}

impl Mask {
    fn new(set: &str, values: Vec<f32>) -> Mask {
        Mask { set: set.to_string(), values: Array::f32([values.len()], values) }
    }
}

/// What a graph with updates takes besides: for each set its strength and its masks.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpdateInputs(Vec<SetInputs>);

#[derive(Clone, Debug)]
struct SetInputs {
    set: String,
    /// None where no layer is updated.
    strength: Option<Tensor>,
    /// By the number of rows that layers compute.
    masks: Vec<(usize, Tensor)>,
}

impl UpdateInputs {
    /// Writes a mask, where the graph has layers of its number of rows.
    pub fn write(&self, program: &Program, mask: &Mask) -> Result<()> {
        let rows = mask.values.shape[0];
        let of_set = self.0.iter().find(|inputs| inputs.set == mask.set);
        let found = of_set.and_then(|inputs| inputs.masks.iter().find(|(n, _)| *n == rows));
        if let Some(&(_, tensor)) = found
            && program.has_input(tensor)
        {
            program.write(tensor, &mask.values)?;
        }
        Ok(())
    }
}

impl Updates {
    /// `factors`: for each prompt of the request, the context's first.
    pub fn of<'a>(sets: impl Iterator<Item = (&'a AppliedSet, Vec<f32>)>) -> Self {
        let mut all: Vec<Acting> = Vec::new();
        for (set, factors) in sets.filter(|(set, _)| !set.set().is_empty()) {
            // Given twice, a set is one with both strengths.
            match all.iter_mut().find(|other| other.set.name == set.name) {
                Some(Acting { set: other, factors: others, .. }) => {
                    let total = other.strength + set.strength;
                    for (f, g) in others.iter_mut().zip(factors) {
                        *f = (*f * other.strength + g * set.strength) / total;
                    }
                    other.strength = total;
                }
                None => all.push(Acting { set: set.clone(), factors, masked: false }),
            }
        }
        all.retain(|acting| acting.set.strength != 0.0);
        Updates(all)
    }

    /// Updates that act everywhere.
    pub fn everywhere<'a>(sets: impl IntoIterator<Item = &'a AppliedSet>) -> Self {
        Updates::of(sets.into_iter().map(|set| (set, vec![1.0])))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out those that act on all of the picture alike, where their ranks come to `from` or
    /// more: with their strengths, to be added to the weights.
    pub fn take_uniform(&mut self, from: usize) -> Vec<AppliedSet> {
        let uniform = |acting: &Acting| acting.factors.windows(2).all(|pair| pair[0] == pair[1]);
        let rank =
            |acting: &Acting| loras(&acting.set).map(|(_, lora)| lora.rank()).max().unwrap_or(0);
        if self.0.iter().filter(|acting| uniform(acting)).map(rank).sum::<usize>() < from {
            return Vec::new();
        }
        let taken = self.0.extract_if(.., |acting| uniform(acting)).map(|mut acting| {
            acting.set.strength *= acting.factors.first().copied().unwrap_or(1.0);
            acting.set
        });
        taken.collect()
    }

    /// What acts on the prompts of these numbers, which share a picture.
    pub fn on(&self, prompts: &[usize]) -> Updates {
        let mut kept = self.clone();
        for acting in &mut kept.0 {
            let factors: Vec<f32> =
                prompts.iter().filter_map(|p| acting.factors.get(*p)).copied().collect();
            match factors.split_first() {
                Some((first, rest)) if rest.iter().all(|f| f == first) => {
                    acting.set.strength *= first
                }
                _ => acting.masked = true,
            }
        }
        kept.0.retain(|acting| acting.set.strength != 0.0);
        kept
    }

    /// Builds layers of `graph` that are updated as the sets say. Strengths and masks are inputs,
    /// so that others need no other plan. `rows`: the numbers of rows that masked layers compute.
    pub fn build<T>(
        &self,
        graph: &mut Graph,
        rows: &[usize],
        build: impl FnOnce(&mut Layers) -> graph::Result<T>,
    ) -> graph::Result<(T, UpdateInputs)> {
        let (mut sets, mut inputs) = (Vec::new(), Vec::new());
        for Acting { set: applied, masked, .. } in &self.0 {
            let ranks = loras(applied).map(|(layer, lora)| (layer.clone(), lora.rank())).collect();
            let mut set = LoraSet::new(applied.name.clone(), ranks);
            set.strength = Strength::Input;
            let mut masks = Vec::new();
            if *masked {
                let mask = |&n: &usize| (n, graph.input(format!("{}.mask.{n}", set.name), [n]));
                masks.extend(rows.iter().map(mask));
                set.masks = masks.iter().copied().collect();
            }
            inputs.push(SetInputs { set: set.name.clone(), strength: None, masks });
            sets.push(set);
        }
        let strengths: Vec<String> = sets.iter().map(LoraSet::strength_input).collect();
        let built = build(&mut Layers::with_loras(graph, sets))?;
        for (inputs, strength) in inputs.iter_mut().zip(strengths) {
            inputs.strength = graph.find_input(&strength);
        }
        Ok((built, UpdateInputs(inputs)))
    }

    /// The masks of the tokens of prompts of `lengths`, one after another.
    pub fn token_masks(&self, prompts: &[usize], lengths: &[usize]) -> Vec<Mask> {
        let mask = |acting: &Acting| {
            let factor = |p: &usize| acting.factors.get(*p).copied().unwrap_or(1.0);
            let spread = prompts
                .iter()
                .zip(lengths)
                .flat_map(|(p, length)| std::iter::repeat_n(factor(p), *length));
            Mask::new(&acting.set.name, spread.collect())
        };
        self.masked().map(mask).collect()
    }

    /// The masks of a feature map of which every place belongs to all prompts by `shares`
    /// `[places, prompts]`.
    pub fn place_masks(&self, shares: &[f32]) -> Vec<Mask> {
        let mask = |acting: &Acting| {
            let factor = |row: &[f32]| {
                row.iter().zip(&acting.factors).map(|(share, factor)| share * factor).sum()
            };
            Mask::new(
                &acting.set.name,
                shares.chunks_exact(acting.factors.len().max(1)).map(factor).collect(),
            )
        };
        self.masked().map(mask).collect()
    }

    /// Masks of ones: for layers whose rows are no places of a picture.
    pub fn whole_masks(&self, rows: usize) -> Vec<Mask> {
        self.masked().map(|acting| Mask::new(&acting.set.name, vec![1.0; rows])).collect()
    }

    fn masked(&self) -> impl Iterator<Item = &Acting> {
        self.0.iter().filter(|acting| acting.masked)
    }

    fn sets(&self) -> impl Iterator<Item = &AppliedSet> {
        self.0.iter().map(|acting| &acting.set)
    }

    /// Writes the strengths to a program whose graph was built with [`Updates::build`].
    pub fn write(&self, program: &Program, inputs: &UpdateInputs) -> Result<()> {
        self.write_only(program, inputs, None)
    }

    /// The same, where `only` one of them acts, the others not at all.
    pub fn write_only(
        &self,
        program: &Program,
        inputs: &UpdateInputs,
        only: Option<usize>,
    ) -> Result<()> {
        for (number, (set, inputs)) in self.sets().zip(&inputs.0).enumerate() {
            let acts = only.is_none_or(|only| only == number);
            let strength = if acts { set.strength } else { 0.0 };
            if let Some(tensor) = inputs.strength.filter(|tensor| program.has_input(*tensor)) {
                program.write(tensor, &Array::f32([1], vec![strength]))?;
            }
        }
        Ok(())
    }

    /// Lets `network` have the updates' parameters, and no others.
    pub fn install<C>(&self, network: &LoadedNetwork<C>) {
        network.overlay.put_beside(&self.sets().cloned().collect::<Vec<_>>());
        let names: HashSet<&str> = self.sets().map(|set| &*set.name).collect();
        let kept = |name: &str| {
            !name.starts_with("concept-")
                || name.split_once('.').is_some_and(|(set, _)| names.contains(set))
        };
        network.weights.retain(kept);
    }

    /// An error unless the graphs together hold every update.
    pub fn check_use(&self, network: Network, graphs: &[&Graph]) -> Result<(), concept::Error> {
        let nodes = graphs.iter().flat_map(|graph| graph.nodes());
        let used: HashSet<&str> = nodes
            .filter_map(|node| match &node.origin {
                Origin::Parameter { name } if name.starts_with("concept-") => Some(name.as_str()),
                _ => None,
            })
            .collect();
        for set in self.sets() {
            for layer in set.set().layers.keys() {
                if !used.contains(format!("{}.{layer}.lora_up.weight", set.name).as_str()) {
                    let (concept, layer) = (set.concept.clone(), layer.clone());
                    return Err(concept::Error::NotUpdatable { concept, network, layer });
                }
            }
        }
        Ok(())
    }
}

/// Sets of updates, by where they are computed.
#[derive(Default)]
pub(crate) struct Parted {
    /// Low-rank products: beside the weights, so that they can act on a part of a picture.
    pub beside: Updates,
    /// All others: added to the weights.
    pub merged: Vec<AppliedSet>,
    /// Concepts that should act on a part of the picture, with the layers of which that cannot be,
    /// and all of their layers.
    pub everywhere: Vec<(String, usize, usize)>,
}

/// The highest rank at which other kinds of changes are written as LoRAs to act on a part of a
/// picture.
const MOST_BESIDE: usize = 128;

impl Parted {
    /// Parts sets, each with its factors for the prompts of the request, the context's first.
    pub fn of<'a>(sets: impl Iterator<Item = (&'a AppliedSet, Vec<f32>)>, model: &Overlay) -> Self {
        let (mut beside, mut merged, mut everywhere) = (Vec::new(), Vec::new(), Vec::new());
        for (applied, factors) in sets {
            let set = applied.set();
            if set.beyond_lora().next().is_none() {
                beside.push((applied.clone(), factors));
                continue;
            }
            let uniform = factors.windows(2).all(|pair| pair[0] == pair[1]);
            let strongest =
                factors.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
            if uniform && loras(applied).next().is_none() {
                let mut all = applied.clone();
                all.strength *= strongest;
                merged.push(all);
                continue;
            }
            let (mut narrow, mut rest) = (UpdateSet::default(), UpdateSet::default());
            for (layer, update) in &set.layers {
                let shape = || model.info(&format!("{layer}.weight")).map(|info| info.shape);
                let lora = match update {
                    Update::Lora(lora) => Some(lora.clone()),
                    _ if uniform => None,
                    _ => shape().and_then(|shape| update.as_lora(&shape, MOST_BESIDE)),
                };
                match lora {
                    Some(lora) => narrow.layers.insert(layer.clone(), lora.into()),
                    None => rest.layers.insert(layer.clone(), update.clone()),
                };
            }
            rest.biases.clone_from(&set.biases);
            if !uniform && !rest.is_empty() {
                everywhere.push((applied.concept.clone(), rest.len(), set.len()));
            }
            if !narrow.is_empty() {
                let part = if uniform { "loras" } else { "narrow" };
                beside.push((applied.part(part, narrow), factors));
            }
            if !rest.is_empty() {
                let mut part = applied.part(if uniform { "others" } else { "wide" }, rest);
                part.strength *= strongest;
                merged.push(part);
            }
        }
        merged.retain(|set| set.strength != 0.0);
        let beside = Updates::of(beside.iter().map(|(set, factors)| (set, factors.clone())));
        Parted { beside, merged, everywhere }
    }
}

/// An error unless `model` has every layer that these sets update, with its channels.
pub(crate) fn check_shapes<'a>(
    sets: impl IntoIterator<Item = &'a AppliedSet>,
    network: Network,
    model: &Overlay,
) -> Result<(), concept::Error> {
    for set in sets {
        for (name, update) in set.set().parameters() {
            let concept = set.concept.clone();
            let (layer, is_bias) = match (name.strip_suffix(".bias"), update) {
                // What a layer gives is scaled whether or not it has a bias.
                (Some(_), Update::Ia3(_)) if model.info(&name).is_none() => continue,
                (Some(_), _) => (name.clone(), true),
                _ => (name.strip_suffix(".weight").unwrap_or(&name).to_string(), false),
            };
            let Some(info) = model.info(&name) else {
                return Err(concept::Error::NoLayer { concept, network, layer });
            };
            if !update.fits(&info.shape) {
                let (found, expected) = (update.weight_shape().into(), info.shape.into());
                let kind = if is_bias { "a bias" } else { "a weight" };
                return Err(concept::Error::LayerShape {
                    concept,
                    network,
                    layer,
                    kind,
                    found,
                    expected,
                });
            }
        }
    }
    Ok(())
}

/// The layers of a set that are updated beside their weights.
fn loras(set: &AppliedSet) -> impl Iterator<Item = (&String, &Lora)> {
    set.set().layers.iter().filter_map(|(layer, update)| Some((layer, update.lora()?)))
}
