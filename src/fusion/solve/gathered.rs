//! One pass over the concepts of a group: the sums that all solvers work on.

use std::borrow::Cow;

use faer::Mat;

use super::{Factors, Group, Layer, beside, energy, stack};
use crate::fusion::Result;
use crate::fusion::statistics::{Moments, Statistics};

/// B = U M of one layer.
pub(in crate::fusion) struct Target {
    pub layer: Layer,
    /// The concepts' `up` side by side: `[out, ranks]`.
    pub up: Mat<f64>,
    /// The concepts' weighted `down` G_i, one above another: `[ranks, in]`.
    pub down_gram: Mat<f64>,
    /// The concepts' `down`, weighted so that `up` times it is the mean of their changes.
    pub down_mean: Mat<f64>,
    /// sum_i w_i || X_i T_i^T ||^2: what is lost if nothing changes.
    pub energy: f64,
    /// The same on the inputs to measure with, as a mean over the concepts.
    pub held_out_energy: f64,
}

/// The sums of a group.
pub(in crate::fusion) struct Gathered {
    pub name: String,
    pub width: usize,
    /// All inputs, what is to be kept included.
    pub inputs: Moments,
    pub rows: f64,
    /// Mean diagonal of all inputs' sums.
    pub mean_diagonal: f64,
    pub targets: Vec<Target>,
    /// What is to be kept, as weighted in `inputs`.
    pub keep: Option<(Moments, f64)>,
    pub held_out: Option<Moments>,
}

impl Gathered {
    /// The sums of the inputs that were kept aside; none where a concept has none.
    pub fn held_out(group: &dyn Group) -> Result<Option<Gathered>> {
        for index in 0..group.weights().len() {
            if group.held_out(index)?.is_none() {
                return Ok(None);
            }
        }
        Gathered::of(&HeldOut(group), 0.0).map(Some)
    }

    /// `keep_weight`: as how many concepts the inputs weigh on which nothing should change.
    pub fn of(group: &dyn Group, keep_weight: f64) -> Result<Gathered> {
        let width = group.width();
        let [keep, held_out] = group.keep()?;
        let held_out = held_out.map(|statistics| statistics.moments());
        let mut parts = vec![Part::default(); group.layers().len()];
        let (mut trace, mut rows, mut weights) = (0.0, 0.0, 0.0);
        let mut sums = Sums::new(width);
        for (index, &weight) in group.weights().iter().enumerate() {
            let statistics = group.inputs(index)?;
            let moments = statistics.moments();
            trace += weight * statistics.trace();
            rows += weight * statistics.rows() as f64;
            weights += weight;
            for (layer, part) in parts.iter_mut().enumerate() {
                let Some(change) = group.change(index, layer) else { continue };
                let seen = moments.times(&change.down);
                part.energy += weight * energy(&change.up, &(&seen * change.down.transpose()));
                if let Some(held_out) = &held_out {
                    part.held_out_energy +=
                        weight * energy(&change.up, &held_out.quadratic(&change.down));
                }
                part.downs.push(seen * faer::Scale(weight));
                part.means.push(change.down * faer::Scale(weight));
                part.ups.push(change.up);
            }
            sums.add(moments, weight);
        }
        let keep = match keep.filter(|_| keep_weight > 0.0) {
            Some(statistics) if statistics.trace() > 0.0 && weights > 0.0 => {
                let factor = keep_weight * trace / weights / statistics.trace();
                trace += factor * statistics.trace();
                let moments = statistics.moments();
                sums.add(moments.clone(), factor);
                Some((moments, factor))
            }
            _ => None,
        };
        let targets = group.layers().iter().zip(parts).map(|(layer, part)| Target {
            layer: layer.clone(),
            up: beside(&part.ups.iter().collect::<Vec<_>>(), layer.out),
            down_gram: stack(&part.downs.iter().collect::<Vec<_>>(), width),
            down_mean: stack(&part.means.iter().collect::<Vec<_>>(), width)
                * faer::Scale(1.0 / weights.max(f64::MIN_POSITIVE)),
            energy: part.energy,
            held_out_energy: part.held_out_energy / weights.max(f64::MIN_POSITIVE),
        });
        let mean_diagonal = trace / width.max(1) as f64;
        let targets = targets.collect();
        Ok(Gathered {
            name: group.name().into(),
            width,
            inputs: sums.finish(),
            rows,
            mean_diagonal,
            targets,
            keep,
            held_out,
        })
    }
}

/// A group, of which the inputs that were kept aside stand for all.
struct HeldOut<'a>(&'a dyn Group);

impl Group for HeldOut<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn width(&self) -> usize {
        self.0.width()
    }

    fn layers(&self) -> &[Layer] {
        self.0.layers()
    }

    fn weights(&self) -> &[f64] {
        self.0.weights()
    }

    fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
        match self.0.held_out(index)? {
            Some(statistics) => Ok(statistics),
            None => self.0.inputs(index),
        }
    }

    fn change(&self, index: usize, layer: usize) -> Option<Factors> {
        self.0.change(index, layer)
    }

    fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
        Ok([None, None])
    }
}

/// A [`Target`] in the making.
#[derive(Clone, Default)]
struct Part {
    ups: Vec<Mat<f64>>,
    downs: Vec<Mat<f64>>,
    means: Vec<Mat<f64>>,
    energy: f64,
    held_out_energy: f64,
}

/// Inputs added up: one above another while they are fewer than their width, as sums from then on.
struct Sums {
    width: usize,
    samples: Vec<Mat<f64>>,
    rows: usize,
    gram: Option<Mat<f64>>,
}

impl Sums {
    fn new(width: usize) -> Sums {
        Sums { width, samples: Vec::new(), rows: 0, gram: None }
    }

    fn add(&mut self, moments: Moments, weight: f64) {
        if let (Moments::Samples(x), None) = (&moments, &self.gram) {
            self.rows += x.nrows();
            self.samples.push(x * faer::Scale(weight.sqrt()));
            if self.rows <= self.width {
                return;
            }
        }
        let had_sums = self.gram.is_some();
        let mut gram = self.gram.take().unwrap_or_else(|| Mat::zeros(self.width, self.width));
        for x in std::mem::take(&mut self.samples) {
            gram += x.transpose() * &x;
        }
        if had_sums || matches!(moments, Moments::Gram(_)) {
            let sums = moments.into_gram();
            for (total, sums) in gram.col_iter_mut().zip(sums.col_iter()) {
                total.iter_mut().zip(sums.iter()).for_each(|(total, sum)| *total += weight * sum);
            }
        }
        self.gram = Some(gram);
    }

    fn finish(self) -> Moments {
        match self.gram {
            Some(gram) => Moments::Gram(gram),
            None => Moments::Samples(stack(&self.samples.iter().collect::<Vec<_>>(), self.width)),
        }
    }
}
