//! Regions in a run: which prompts take part, and which tokens read which of them in which step.

use crate::graph::Array;
use crate::graph::ops::{Reach, RegionTables};
use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::region::{Placed, Shares};
use crate::sd::denoiser::{Phase, StepShape};

use super::Request;
use super::checked::CheckedRequest;
use super::error::Result;

/// The prompts that a picture is made of, and where each of them holds.
pub(super) struct Regional {
    /// Of the prompts (the context is number 0, region i number i + 1) those that hold anywhere.
    pub prompts: Vec<usize>,
    /// Self-attention is kept within regions.
    pub isolate: bool,
    /// From which step on what holds, from step 0 on.
    phases: Vec<(usize, Vec<Shares>)>,
}

impl Regional {
    /// None without regions.
    pub fn of(
        request: &Request,
        checked: &mut CheckedRequest,
        config: &UNetConfig,
    ) -> Result<Option<Regional>> {
        let layout = &request.regions;
        if layout.regions.is_empty() {
            return Ok(None);
        }
        let sizes = unet::feature_sizes(config, checked.size[0], checked.size[1]);
        let placed = Placed::new(layout, checked.width, checked.height, &sizes)?;
        checked.warnings.extend(placed.warnings.iter().cloned());
        let steps = checked.plan.steps.len();
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
            checked.warnings.push(format!(
                "region `{}` holds nowhere: others cover it, no step lies within its time, or it \
                    is empty",
                layout.name(index - 1)
            ));
        }
        if !prompts.contains(&0) && !request.prompt.trim().is_empty() {
            let text = "the regions cover all of the picture in all steps: the prompt of the \
                whole picture holds nowhere";
            checked.warnings.push(format!("{text} (a region's `base` lets it in)"));
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

    /// Of the feature map of number `size`, for each of `self.prompts`, its share of every place
    /// from the first step on.
    pub fn inside(&self, size: usize) -> Vec<Vec<f32>> {
        let shares = self.phases.first().and_then(|(_, sizes)| sizes.get(size));
        let shares = shares.map_or_else(Vec::new, |shares| self.kept(shares));
        let count = self.prompts.len().max(1);
        (0..count).map(|at| shares.iter().skip(at).step_by(count).copied().collect()).collect()
    }

    /// The shares of `self.prompts` alone.
    fn kept(&self, shares: &Shares) -> Vec<f32> {
        let all = shares.weights.len() / shares.sight.len().max(1);
        let rows = shares.weights.chunks_exact(all.max(1));
        rows.flat_map(|row| self.prompts.iter().filter_map(|p| row.get(*p).copied())).collect()
    }

    /// The phases, for prompts of `lengths` tokens (one for each of `self.prompts`) and `batch`
    /// pictures in all.
    pub fn phases(&self, lengths: &[usize], shape: &StepShape, batch: usize) -> Vec<Phase> {
        // The last pictures of a batch may be fewer.
        // A look at one of them is at its prompt's half alone.
        let of_steps = [shape.batch, batch % shape.batch].map(|n| shape.halves() * n);
        let rows = [of_steps[0], of_steps[1], 1];
        let mut phases = Vec::with_capacity(self.phases.len());
        for (from, sizes) in &self.phases {
            let mut held = Vec::with_capacity(sizes.len());
            for shares in sizes {
                let seen = || Array::u32([shares.sight.len()], shares.sight.clone());
                let tables = RegionTables::new(&self.kept(shares), lengths);
                held.push((tables, self.isolate.then(seen), &shares.weights[..]));
            }
            phases.push(Phase::new(*from, held, &shape.updates, &rows));
        }
        phases
    }
}
