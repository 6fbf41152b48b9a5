//! What the concepts of a request change: the vocabulary, and low-rank updates of both networks.

use std::collections::HashSet;

use crate::backend::Program;
use crate::concept::binding::{Table, Words};
use crate::concept::source::WithUpdates;
use crate::concept::{self, Applied, AppliedSet, Lora, Network as Name};
use crate::graph::{Array, Graph, Origin, ParameterSource};
use crate::models::unet;
use crate::nn::{Layers, LowRank, Strength};
use crate::text::Tokenizer;
use crate::text::prompt::EncodedPrompt;

use super::acting;
use super::error::Result;
use super::network::Network;
use super::{Pipeline, Request};

/// Updates of one network, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Updates(Vec<Acting>);

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

/// The value of a mask that [`Updates::layers`] declares.
pub(super) struct Mask {
    name: String,
    values: Array,
}

impl Mask {
    fn new(set: &str, values: Vec<f32>) -> Mask {
        Mask { name: mask_name(set, values.len()), values: Array::f32([values.len()], values) }
    }

    pub fn write(&self, program: &Program) -> Result<()> {
        // A program of another batch has no rows of this number.
        if program.has_input(&self.name) {
            program.write(&self.name, &self.values)?;
        }
        Ok(())
    }
}

fn mask_name(set: &str, places: usize) -> String {
    format!("{set}.mask.{places}")
}

impl Updates {
    fn of<'a>(sets: impl Iterator<Item = (&'a AppliedSet, Vec<f32>)>) -> Self {
        let mut all: Vec<Acting> = Vec::new();
        for (set, factors) in sets.filter(|(set, _)| !set.set().layers.is_empty()) {
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

    /// Those that are better added to the weights, taken out: where the ranks that act on all of
    /// the picture alike come to [`MERGED_FROM`]. They cost no time then, but other ones need the
    /// weights anew, and the sums take f32's memory.
    fn take_merged(&mut self) -> Vec<AppliedSet> {
        let uniform = |acting: &Acting| acting.factors.windows(2).all(|pair| pair[0] == pair[1]);
        let rank =
            |acting: &Acting| loras(&acting.set).map(|(_, lora)| lora.rank()).max().unwrap_or(0);
        if self.0.iter().filter(|acting| uniform(acting)).map(rank).sum::<usize>() < MERGED_FROM {
            return Vec::new();
        }
        let merged = self.0.extract_if(.., |acting| uniform(acting)).map(|mut acting| {
            acting.set.strength *= acting.factors.first().copied().unwrap_or(1.0);
            acting.set
        });
        merged.collect()
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

    /// Layers of `graph` that are updated as the sets say. Strengths and masks are inputs, so that
    /// others need no other plan. `places`: the numbers of places that masked layers compute.
    pub fn layers<'g>(&self, graph: &'g mut Graph, places: &[usize]) -> Layers<'g> {
        let mut sets = Vec::with_capacity(self.0.len());
        for Acting { set: applied, masked, .. } in &self.0 {
            let ranks = loras(applied).map(|(layer, lora)| (layer.clone(), lora.rank())).collect();
            let mut set = LowRank::new(applied.name.clone(), ranks);
            set.strength = Strength::Input;
            if *masked {
                set.masks = places
                    .iter()
                    .map(|&n| (n, graph.input(mask_name(&applied.name, n), [n])))
                    .collect();
            }
            sets.push(set);
        }
        Layers::with_low_rank(graph, sets)
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
        self.0.iter().filter(|acting| acting.masked).map(mask).collect()
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
        self.0.iter().filter(|acting| acting.masked).map(mask).collect()
    }

    /// Masks of ones: for layers whose rows are no places of a picture.
    pub fn whole_masks(&self, rows: usize) -> Vec<Mask> {
        self.0
            .iter()
            .filter(|acting| acting.masked)
            .map(|acting| Mask::new(&acting.set.name, vec![1.0; rows]))
            .collect()
    }

    fn sets(&self) -> impl Iterator<Item = &AppliedSet> {
        self.0.iter().map(|acting| &acting.set)
    }

    /// Writes the strengths to a program whose graph was built with [`Updates::layers`].
    pub fn write(&self, program: &Program) -> Result<()> {
        for AppliedSet { name, strength, .. } in self.sets() {
            let input = format!("{name}.scale");
            if program.has_input(&input) {
                program.write(&input, &Array::f32([1], vec![*strength]))?;
            }
        }
        Ok(())
    }

    /// Lets `network` have the updates' parameters, and no others.
    fn install<C>(&self, network: &Network<C>) {
        network.updates.set(&self.sets().cloned().collect::<Vec<_>>());
        let names: HashSet<&str> = self.sets().map(|set| &*set.name).collect();
        let kept = |name: &str| {
            !name.starts_with("concept-")
                || name.split_once('.').is_some_and(|(set, _)| names.contains(set))
        };
        network.weights.retain(kept);
    }

    /// An error unless the graphs together hold every update.
    fn check_use(&self, network: &'static str, graphs: &[&Graph]) -> Result<(), concept::Error> {
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
                    let concept = set.concept.clone();
                    return Err(concept::Error::NotUpdatable {
                        concept,
                        network,
                        layer: layer.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// An error unless `model` has every layer that is updated, with its channels.
    fn check_shapes(
        &self,
        network: &'static str,
        model: &WithUpdates,
    ) -> Result<(), concept::Error> {
        for set in self.sets() {
            for (layer, update) in &set.set().layers {
                let concept = || set.concept.clone();
                let Some(info) = model.info(&format!("{layer}.weight")) else {
                    return Err(concept::Error::NoLayer {
                        concept: concept(),
                        network,
                        layer: layer.clone(),
                    });
                };
                let squeezed = |shape: &[usize]| {
                    let ones = shape.iter().rev().take_while(|n| **n == 1).count();
                    shape.iter().take((shape.len() - ones).max(2)).copied().collect::<Vec<_>>()
                };
                let found = update.weight_shape();
                if squeezed(&info.shape) != squeezed(&found) {
                    let (layer, expected) = (layer.clone(), info.shape);
                    return Err(concept::Error::LayerShape {
                        concept: concept(),
                        network,
                        layer,
                        found,
                        expected,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The layers of a set that are updated beside their weights.
fn loras(set: &AppliedSet) -> impl Iterator<Item = (&String, &Lora)> {
    set.set().layers.iter().filter_map(|(layer, update)| Some((layer, update.lora()?)))
}

/// What a request's concepts come to.
pub(super) struct Adaptation {
    /// None where no concept has words: the model's own tokenizer does.
    words: Option<Words>,
    pub text: Updates,
    pub unet: Updates,
    /// Updates of the UNet that are added to its weights instead.
    merged: Vec<AppliedSet>,
}

/// Updates of all attention layers of Stable Diffusion 1.5 at 256x256 were measured to add 4 % to a
/// pass with rank 16 and 14 % with 64, on a software driver. Smaller ones stay beside the weights
/// and are quickly exchanged.
const MERGED_FROM: usize = 32;

impl Adaptation {
    /// Checks the concepts against the model, and lets the networks have their parameters.
    pub fn of(pipeline: &Pipeline, request: &Request) -> Result<Adaptation> {
        let concepts = &request.concepts;
        let has_words =
            concepts.iter().any(|c| !c.concept().words.is_empty()) || !pipeline.fused.is_empty();
        let words = has_words.then(|| {
            let config = &pipeline.text.config;
            let layers = unet::cross_attentions(&pipeline.unet.config).len();
            let table = Table {
                encoder: Name::TextEncoder,
                rows: config.vocab_size,
                width: config.hidden_size,
                layers,
            };
            Words::new(
                &pipeline.tokenizer,
                table,
                concepts.iter().map(Applied::concept),
                &pipeline.fused,
            )
        });
        let words = words.transpose()?;
        let factors = acting::factors(request, words.as_ref())?;
        let of = |network: Name| {
            let sets = concepts.iter().zip(&factors);
            Updates::of(sets.filter_map(|(applied, f)| Some((applied.of(network)?, f.clone()))))
        };
        let (text, mut unet) = (of(Name::TextEncoder), of(Name::UNet));
        text.check_shapes(TEXT_ENCODER, &pipeline.text.updates)?;
        unet.check_shapes(UNET, &pipeline.unet.updates)?;
        let merged = unet.take_merged();
        text.install(&pipeline.text);
        unet.install(&pipeline.unet);
        pipeline.unet.updates.expect(&merged);
        Ok(Adaptation { words, text, unet, merged })
    }

    /// Lets the UNet have the weights that this request means. Returns whether they are others than
    /// before.
    pub fn merge(&self, pipeline: &Pipeline) -> bool {
        pipeline.unet.merge(&self.merged)
    }

    pub fn tokenizer<'a>(&'a self, pipeline: &'a Pipeline) -> &'a Tokenizer {
        self.words.as_ref().map_or(&pipeline.tokenizer, Words::tokenizer)
    }

    /// The prompt as it is tokenized, and warnings of what looks like a concept's word.
    pub fn prompt(
        &self,
        pipeline: &Pipeline,
        prompt: &str,
        warnings: &mut Vec<String>,
    ) -> Result<String> {
        let none;
        let words = match &self.words {
            Some(words) => words,
            None if prompt.contains('<') => {
                none = Words::new(
                    &pipeline.tokenizer,
                    Table { encoder: Name::TextEncoder, rows: 0, width: 1, layers: 1 },
                    [],
                    &[],
                )?;
                &none
            }
            None => return Ok(prompt.to_string()),
        };
        warnings.extend(words.strangers(prompt));
        Ok(prompt.to_string())
    }

    /// Sentences for the user about concepts of which no word stands in `prompts`.
    pub fn unused_words(&self, concepts: &[Applied], prompts: &[String]) -> Vec<String> {
        const NAMED: usize = 4;
        let Some(words) = &self.words else { return Vec::new() };
        let mut told = Vec::new();
        for applied in concepts.iter().filter(|applied| !applied.concept().words.is_empty()) {
            let concept = applied.concept();
            let texts = || concept.words.iter().map(|word| &*word.text);
            if prompts.iter().any(|prompt| words.any_in(texts(), prompt)) {
                continue;
            }
            let named = texts().take(NAMED).collect::<Vec<_>>().join(" ");
            let more = if concept.words.len() > NAMED { " ..." } else { "" };
            let acts = Name::ALL
                .into_iter()
                .filter_map(|network| applied.of(network))
                .any(|set| set.strength != 0.0);
            let so = if acts { "only its LoRA acts" } else { "it does nothing" };
            told.push(format!("no prompt has a word of `{}` ({named}{more}): {so}", concept.name));
        }
        told
    }

    /// The prompt as each cross-attention reads it; one where all read the same.
    pub fn copies(&self, prompt: EncodedPrompt) -> Vec<EncodedPrompt> {
        match &self.words {
            Some(words) => {
                (0..words.copies(&prompt)).map(|layer| words.bind(&prompt, layer)).collect()
            }
            None => vec![prompt],
        }
    }

    /// The rows that continue the token table.
    pub fn rows(&self) -> Option<&Array> {
        self.words.as_ref().map(Words::rows)
    }

    /// An error unless the networks' graphs take every update that acts on `prompts`; a part of the
    /// text encoder may be left out on purpose.
    pub fn check_use(
        &self,
        prompts: &[usize],
        text: Option<&[&Graph]>,
        unet: &[&Graph],
    ) -> Result<()> {
        if let Some(text) = text {
            self.text.on(prompts).check_use(TEXT_ENCODER, text)?;
        }
        Ok(self.unet.on(prompts).check_use(UNET, unet)?)
    }
}

const TEXT_ENCODER: &str = "text encoder";
const UNET: &str = "UNet";

/// The id of a word's row, where it is one: rows of words follow those of the table.
pub(super) fn row_of_words(rows: Option<&Array>, id: usize, vocabulary: usize) -> Option<&[f32]> {
    let rows = rows?;
    rows.values().chunks_exact(rows.shape.channels().max(1)).nth(id.checked_sub(vocabulary)?)
}
