//! Regions in a run: which prompts take part, and which tokens read which of them in which step.

use crate::backend::Program;
use crate::graph::ops::{Reach, RegionInputs, RegionTables};
use crate::graph::{Array, Graph, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::nn::{Encodings, RegionSize};
use crate::region::{Placed, Shares};

use super::Request;
use super::adaptation::Mask;
use super::error::Result;
use super::plans::Job;
use super::sample::SampleShape;

/// The prompts that a picture is made of, and where each of them holds.
pub(super) struct Regional {
    /// Of the prompts (the context is number 0, region i number i + 1) those that hold anywhere.
    pub prompts: Vec<usize>,
    /// Self-attention is kept within regions.
    pub isolate: bool,
    /// From which step on what holds, from step 0 on.
    phases: Vec<(usize, Vec<Shares>)>,
}

/// One phase, as the program's inputs take it.
pub(super) struct Phase {
    /// The first step.
    pub from: usize,
    /// For each size of feature map.
    pub sizes: Vec<(RegionTables, Option<Array>)>,
    /// Where updates act.
    masks: Vec<Mask>,
}

impl Regional {
    /// None without regions.
    pub fn of(request: &Request, job: &mut Job, config: &UNetConfig) -> Result<Option<Regional>> {
        let layout = &request.regions;
        if layout.regions.is_empty() {
            return Ok(None);
        }
        let sizes = unet::feature_sizes(config, job.size[0], job.size[1]);
        let placed = Placed::new(layout, job.width, job.height, &sizes)?;
        job.warnings.extend(placed.warnings.iter().cloned());
        let steps = job.plan.steps.len();
        let mut phases = Vec::new();
        let mut before = None;
        for step in 0..steps {
            let active = placed.active(step, steps);
            if before.as_ref() != Some(&active) {
                phases.push((
                    step,
                    (0..sizes.len()).map(|size| placed.shares(size, &active)).collect::<Vec<_>>(),
                ));
                before = Some(active);
            }
        }
        let all = 1 + layout.regions.len();
        let holds = |prompt: &usize| {
            let mut sizes = phases.iter().flat_map(|(_, sizes)| sizes);
            sizes.any(|shares| shares.weights.iter().skip(*prompt).step_by(all).any(|w| *w != 0.0))
        };
        let prompts: Vec<usize> = (0..all).filter(holds).collect();
        for index in (1..all).filter(|prompt| !prompts.contains(prompt)) {
            job.warnings.push(format!(
                "region `{}` holds nowhere: others cover it, no step lies within its time, or it \
                    is empty",
                layout.name(index - 1)
            ));
        }
        if !prompts.contains(&0) && !request.prompt.trim().is_empty() {
            let text = "the regions cover all of the picture in all steps: the prompt of the \
                whole picture holds nowhere";
            job.warnings.push(format!("{text} (a region's `base` lets it in)"));
        }
        Ok(Some(Regional { prompts, isolate: layout.isolate, phases }))
    }

    /// One prompt alone is what plain attention is for.
    pub fn is_plain(&self) -> bool {
        self.prompts.len() <= 1
    }

    /// For each size of feature map and each prompt, of `lengths` tokens (one for each of
    /// `self.prompts`), how far it reaches in the phase in which it reaches farthest.
    pub fn reach(&self, lengths: &[usize]) -> Vec<Vec<Reach>> {
        let reach = |size: usize| {
            let prompt = |(number, &keys): (usize, &usize)| {
                let tokens = |sizes: &[Shares]| {
                    let shares = sizes.get(size).map_or(Vec::new(), |shares| self.kept(shares));
                    shares
                        .iter()
                        .skip(number)
                        .step_by(lengths.len())
                        .filter(|share| **share != 0.0)
                        .count()
                };
                Reach {
                    keys,
                    tokens: self.phases.iter().map(|(_, sizes)| tokens(sizes)).max().unwrap_or(0),
                }
            };
            lengths.iter().enumerate().map(prompt).collect()
        };
        (0..self.phases.first().map_or(0, |(_, sizes)| sizes.len())).map(reach).collect()
    }

    /// The shares of `self.prompts` alone.
    fn kept(&self, shares: &Shares) -> Vec<f32> {
        let all = shares.weights.len() / shares.sight.len().max(1);
        let rows = shares.weights.chunks_exact(all.max(1));
        rows.flat_map(|row| self.prompts.iter().filter_map(|p| row.get(*p).copied())).collect()
    }

    /// The phases, for prompts of `lengths` tokens (one for each of `self.prompts`) and `batch`
    /// pictures in all.
    pub fn phases(&self, lengths: &[usize], shape: &SampleShape, batch: usize) -> Vec<Phase> {
        let tables = |shares: &Shares| {
            let sight =
                self.isolate.then(|| Array::u32([shares.sight.len()], shares.sight.clone()));
            (RegionTables::new(&self.kept(shares), lengths), sight)
        };
        // The last pictures of a batch may be fewer.
        let rows = [shape.batch, batch % shape.batch].map(|pictures| shape.halves() * pictures);
        let phase = |(from, sizes): &(usize, Vec<Shares>)| {
            let mut masks: Vec<Mask> = sizes
                .iter()
                .flat_map(|shares| shape.updates.place_masks(&shares.weights))
                .collect();
            for rows in rows
                .into_iter()
                .filter(|rows| sizes.iter().all(|shares| shares.sight.len() != *rows))
            {
                masks.extend(shape.updates.whole_masks(rows));
            }
            Phase { from: *from, sizes: sizes.iter().map(tables).collect(), masks }
        };
        self.phases.iter().map(phase).collect()
    }
}

/// The numbers of places that masks are needed for: those of feature maps, and the rows of a batch,
/// which layers of the time embedding compute.
pub(super) fn places(config: &UNetConfig, shape: &SampleShape) -> Vec<usize> {
    let sizes = unet::feature_sizes(config, shape.height, shape.width)
        .into_iter()
        .map(|[height, width]| height * width);
    let mut places: Vec<usize> = sizes.chain([shape.halves() * shape.batch]).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Declares the keys and values of every cross-attention.
pub(super) fn pairs(
    graph: &mut Graph,
    config: &UNetConfig,
    shape: &SampleShape,
) -> Vec<(Tensor, Tensor)> {
    let attentions = unet::cross_attentions(config).into_iter().enumerate();
    let declare = |(i, attention): (usize, unet::CrossAttention)| {
        let shape = [shape.halves(), shape.tokens, attention.channels];
        (graph.input(format!("keys.{i}"), shape), graph.input(format!("values.{i}"), shape))
    };
    attentions.map(declare).collect()
}

/// The prompt of a step, from what [`pairs`] and [`inputs`] declared.
pub(super) fn encodings<'a>(
    pairs: &'a [(Tensor, Tensor)],
    sizes: &'a [RegionSize],
    shape: &SampleShape,
) -> Encodings<'a> {
    match shape.reach.is_empty() {
        true => Encodings::KeysValues(pairs),
        false => Encodings::Regional { pairs, sizes },
    }
}

/// Declares what [`Phase::write`] writes; nothing for one prompt.
pub(super) fn inputs(
    graph: &mut Graph,
    config: &UNetConfig,
    shape: &SampleShape,
) -> Vec<RegionSize> {
    let sizes = unet::feature_sizes(config, shape.height, shape.width)
        .into_iter()
        .zip(&shape.reach)
        .enumerate();
    let declare = |(i, ([height, width], reach)): (usize, ([usize; 2], &Vec<Reach>))| {
        let tokens = height * width;
        // Less than that where smaller pictures than the regions' are planned, to see which would
        // fit.
        let reach = reach
            .iter()
            .map(|&Reach { keys, tokens: most }| Reach { keys, tokens: most.min(tokens) })
            .collect();
        let inputs = RegionInputs::declare(graph, &format!("regions.{i}"), tokens, reach);
        let sight = shape.isolate.then(|| graph.input_ids(format!("regions.{i}.sight"), [tokens]));
        RegionSize { tokens, inputs, mask: sight }
    };
    sizes.map(declare).collect()
}

impl Phase {
    /// Lets updates act where the phase says.
    pub fn write_masks(&self, program: &Program) -> Result<()> {
        self.masks.iter().try_for_each(|mask| mask.write(program))
    }

    /// Lets the phase hold from now on.
    pub fn write(&self, program: &Program) -> Result<()> {
        for (i, (tables, sight)) in self.sizes.iter().enumerate() {
            program.write_all(tables.named(&format!("regions.{i}")))?;
            if let Some(sight) = sight {
                program.write(&format!("regions.{i}.sight"), sight)?;
            }
        }
        Ok(())
    }
}
