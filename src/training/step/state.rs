//! What is trained, in and out of a step.

use std::collections::BTreeMap;

use crate::graph::{Array, Shape, Tensor};

use super::config::{Network, State, TrainedLayer};
use super::error::{Error, Result};
use super::parameter_group::{ParameterGroup, Rate, rows_name};
use super::{TrainingStep, parameter_group};

/// The vectors of a group, as a state names them.
const KINDS: [&str; 3] = ["", "first.", "second."];

/// Those that a group has.
fn kinds(group: &ParameterGroup) -> &'static [&'static str] {
    if group.trained { &KINDS } else { &KINDS[..1] }
}

impl TrainingStep {
    /// The state before the first step: the concept words' `rows` `[words * copies, width]` for each
    /// text encoder where words are trained; of every update, `down` (`rank * in` numbers, drawn by the caller: uniform
    /// in +-1 / sqrt(in) in the method) and an up of zeros, so that it adds nothing yet.
    ///
    /// # Errors
    /// Rows or numbers of another shape.
    pub fn initial(
        &self,
        rows: impl IntoIterator<Item = Array>,
        down: &mut dyn FnMut(&TrainedLayer) -> Vec<f32>,
    ) -> Result<State> {
        let mut state = State::default();
        let networks = [Network::TextEncoder, Network::TextEncoder2].map(rows_name);
        state.arrays.extend(networks.map(String::from).into_iter().zip(rows));
        for layer in &self.built.layers {
            let [down_name, up_name] = parameter_group::part_names(layer);
            state.arrays.insert(down_name, Array::f32([layer.rank, layer.into], down(layer)));
            let up = vec![0.0; layer.out * layer.rank];
            state.arrays.insert(up_name, Array::f32([layer.out, layer.rank], up));
        }
        for group in &self.built.groups {
            for part in &group.parts {
                take(&state.arrays, &part.name, part.shape)?;
                for kind in &kinds(group)[1..] {
                    let zeros = Array::f32(part.shape, vec![0.0; part.shape[0] * part.shape[1]]);
                    state.arrays.insert(format!("{kind}{}", part.name), zeros);
                }
            }
        }
        Ok(state)
    }

    /// Goes on from `state`: uploads it, and the weights at the first call.
    ///
    /// # Errors
    /// Arrays that are missing, unknown or of another shape.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        let mut expected = 0;
        let mut values: Vec<(Tensor, Array)> = Vec::new();
        for group in &self.built.groups {
            let mut all = Vec::with_capacity(3 * group.count);
            for kind in kinds(group) {
                for part in &group.parts {
                    all.extend_from_slice(take(
                        &state.arrays,
                        &format!("{kind}{}", part.name),
                        part.shape,
                    )?);
                    expected += 1;
                }
            }
            values.push((group.state, Array::f32([kinds(group).len(), group.count], all)));
            if let Some(input) = group.sum {
                let mut sum = Vec::with_capacity(group.count);
                for part in &group.parts {
                    if state.accumulated == 0 {
                        sum.resize(sum.len() + part.shape[0] * part.shape[1], 0.0);
                        continue;
                    }
                    sum.extend_from_slice(take(
                        &state.arrays,
                        &gradient_name(&part.name),
                        part.shape,
                    )?);
                    expected += 1;
                }
                values.push((input, Array::f32([group.count], sum)));
            }
        }
        if state.accumulated >= self.config.accumulate {
            let (found, expected) =
                (state.accumulated.to_string(), format!("less than {}", self.config.accumulate));
            return Err(Error::State { name: "accumulated".into(), found, expected });
        }
        if state.arrays.len() != expected {
            let found = format!("one of {} arrays", state.arrays.len());
            let name =
                state.arrays.keys().find(|name| !self.knows(name)).cloned().unwrap_or_default();
            return Err(Error::State {
                name,
                found,
                expected: format!("{expected} arrays of this method and these layers"),
            });
        }
        self.engine.prepare(&self.built.graph)?;
        for (input, array) in &values {
            self.engine.write(*input, array)?;
        }
        (self.step, self.accumulated) = (state.step, state.accumulated);
        self.embeddings_stopped = state.embeddings_stopped;
        self.measure_norm()?;
        Ok(())
    }

    /// All that is needed to go on from here.
    ///
    /// # Errors
    /// [`Error::NoState`] before [`TrainingStep::restore`].
    pub fn state(&self) -> Result<State> {
        let mut arrays = BTreeMap::new();
        for group in &self.built.groups {
            let all = self.engine.read(group.state)?.ok_or(Error::NoState)?;
            for (kind, values) in kinds(group).iter().zip(all.values().chunks_exact(group.count)) {
                arrays.extend(parts(group, values, |name| format!("{kind}{name}")));
            }
            if let Some(sum) = group.sum.filter(|_| self.accumulated > 0) {
                let sum = self.engine.read(sum)?.ok_or(Error::NoState)?;
                arrays.extend(parts(group, sum.values(), gradient_name));
            }
        }
        Ok(State {
            arrays,
            step: self.step,
            accumulated: self.accumulated,
            embeddings_stopped: self.embeddings_stopped,
        })
    }

    fn knows(&self, name: &str) -> bool {
        let plain = KINDS[1..].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
        let plain = plain.strip_prefix("gradient.").unwrap_or(plain);
        self.built.groups.iter().flat_map(|group| &group.parts).any(|part| part.name == plain)
    }

    /// Starts the accumulation anew.
    pub(super) fn forget_sums(&mut self) -> Result<()> {
        self.accumulated = 0;
        for group in &self.built.groups {
            if let Some(sum) = group.sum {
                self.engine.write(sum, &Array::f32([group.count], vec![0.0; group.count]))?;
            }
        }
        Ok(())
    }

    /// Measures the first text encoder's rows, and stops all for good once they have reached the
    /// limit.
    pub(super) fn measure_norm(&mut self) -> Result<()> {
        let Some(group) = self.built.groups.iter().find(|group| group.rate == Rate::Rows) else {
            return Ok(());
        };
        let Some(part) = group.parts.first() else { return Ok(()) };
        let [count, width] = part.shape;
        let state = self.engine.read(group.state)?.ok_or(Error::NoState)?;
        let rows = state.values()[..count * width].chunks_exact(width.max(1));
        let count = rows.len().max(1);
        let norm = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        self.norm = (rows.map(norm).sum::<f64>() / count as f64) as f32;
        if self.config.norm_limit.is_some_and(|limit| self.norm >= limit) {
            self.embeddings_stopped = true;
        }
        Ok(())
    }
}

fn gradient_name(name: &str) -> String {
    format!("gradient.{name}")
}

fn parts<'a>(
    group: &'a ParameterGroup,
    values: &'a [f32],
    name: impl Fn(&str) -> String + 'a,
) -> impl Iterator<Item = (String, Array)> + 'a {
    group.parts.iter().map(move |part| {
        let end = part.start + part.shape[0] * part.shape[1];
        (name(&part.name), Array::f32(part.shape, values[part.start..end].to_vec()))
    })
}

/// The array `name` of a state.
fn take<'a>(
    arrays: &'a BTreeMap<String, Array>,
    name: &str,
    shape: [usize; 2],
) -> Result<&'a [f32]> {
    let shape = Shape::from(shape);
    let wrong =
        |found: String| Error::State { name: name.into(), found, expected: format!("{shape}") };
    let array = arrays.get(name).ok_or_else(|| wrong("missing".into()))?;
    if array.shape != shape || array.values().len() != shape.elements() {
        return Err(wrong(format!("{} with {} numbers", array.shape, array.values().len())));
    }
    Ok(array.values())
}
