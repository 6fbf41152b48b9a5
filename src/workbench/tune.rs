//! The fastest of the forms that a kernel's header declares: each compiled, compared, measured.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::bench::{Clock, Contender, Ready, Timer, error_of, ready};
use super::error::{Error, Result};
use super::source::{Setting, Settings, Source};
use super::spec::Spec;
use super::statistics::{Difference, quantile};
use super::trial::numbers;
use super::trust::{Trust, trust};
use crate::backend::wgpu::Gpu;

/// A kernel whose forms are tried.
pub(super) trait Subject {
    /// Its name.
    fn name(&self) -> String;
    /// Parameters with the values that they may have; the first ones are what there is now.
    fn parameters(&self) -> Vec<(String, Vec<Setting>)>;
    /// Sizes as messages tell them.
    fn told(&self, sizes: &[usize]) -> String;
    /// A form at a shape, or why it cannot be had.
    fn form<'s>(
        &'s self,
        settings: &Settings,
        sizes: &[usize],
    ) -> Result<Result<Box<dyn Form + 's>, String>>;
}

/// A form of a kernel at a shape, compiled and warm.
pub(super) trait Form {
    /// Seconds of one run.
    fn time(&mut self) -> Result<f64>;
    /// Whether what comes out is right.
    fn is_right(&mut self) -> Result<bool>;
}

/// How forms are measured.
#[derive(Clone, Copy, Debug)]
pub struct TuneOptions {
    /// Measurements of each of the best forms at each shape.
    pub rounds: usize,
    /// The forms that are measured at all shapes, after a first look at one.
    pub best: usize,
}

impl Default for TuneOptions {
    fn default() -> TuneOptions {
        TuneOptions { rounds: 15, best: 4 }
    }
}

/// One shape, the chosen form beside what there was.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// Sizes by name.
    pub sizes: String,
    /// Median seconds of the form that there was.
    pub before: f64,
    /// Of the chosen one.
    pub after: f64,
    /// Whether they differ.
    pub difference: Difference,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct TuneReport {
    /// The kernel.
    pub kernel: String,
    /// The adapter.
    pub adapter: String,
    /// Forms that there are.
    pub forms: usize,
    /// Those that could not be had here, or do not suit the first shape: notes say why.
    pub pruned: usize,
    /// Those whose first measurement was so slow that no other was made.
    pub stopped: usize,
    /// Those whose results were wrong.
    pub wrong: usize,
    /// Values that are better than the first ones; empty where none is.
    pub chosen: BTreeMap<String, String>,
    /// At each shape.
    pub shapes: Vec<Tuned>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A kernel of one's own.
struct Own<'a> {
    gpu: &'a Arc<Gpu>,
    source: &'a Source,
    spec: &'a Spec,
    timer: &'a Timer<'a>,
    /// Forms that were executed as they are written at some sizes, and whether they may run
    /// without bounds checks.
    trusted: RefCell<Vec<Trusted>>,
}

/// A form, sizes, and what is known of the two.
type Trusted = (Settings, Vec<usize>, Result<Trust, String>);

struct OwnForm<'a> {
    gpu: &'a Arc<Gpu>,
    source: &'a Source,
    spec: &'a Spec,
    timer: &'a Timer<'a>,
    ready: Ready,
}

impl<'a> Subject for Own<'a> {
    fn name(&self) -> String {
        self.source.name.clone()
    }

    fn parameters(&self) -> Vec<(String, Vec<Setting>)> {
        self.source.tuned.clone()
    }

    fn told(&self, sizes: &[usize]) -> String {
        self.spec.told(sizes)
    }

    fn form<'s>(
        &'s self,
        settings: &Settings,
        sizes: &[usize],
    ) -> Result<Result<Box<dyn Form + 's>, String>> {
        let contender = Contender { source: self.source.clone(), settings: settings.clone() };
        let &Own { gpu, source, spec, timer, .. } = self;
        // Before it is executed, which takes longer.
        if !source.suits(&numbers(source, spec, settings, sizes)?)? {
            return Ok(Err(format!("the header needs {}", source.needs())));
        }
        let mut known = self.trusted.borrow_mut();
        let found = known.iter().find(|(form, at, _)| form == settings && at == sizes);
        let trust = match found {
            Some((.., trust)) => trust.clone(),
            None => {
                let trust = trust(source, settings, spec, sizes).map_err(|error| error.to_string());
                known.push((settings.clone(), sizes.to_vec(), trust.clone()));
                trust
            }
        };
        let trust = match trust {
            Ok(trust) => trust,
            Err(why) => return Ok(Err(why)),
        };
        match ready(gpu, &contender, spec, sizes, trust == Trust::None)? {
            Ok(mut ready) => {
                timer.warm_up(&mut ready, 0.005)?;
                Ok(Ok(Box::new(OwnForm { gpu, source, spec, timer, ready })))
            }
            Err(why) => Ok(Err(why)),
        }
    }
}

impl Form for OwnForm<'_> {
    fn time(&mut self) -> Result<f64> {
        self.timer.time(&self.ready, self.ready.times)
    }

    fn is_right(&mut self) -> Result<bool> {
        Ok(error_of(self.gpu, self.spec, self.source, &self.ready)? <= 1.0)
    }
}

/// Tries the forms of a kernel of one's own.
///
/// # Errors
/// A header without parameters; a kernel that cannot be run; `tell` that says no.
pub fn tune(
    gpu: &Arc<Gpu>,
    source: &Source,
    spec: &Spec,
    shapes: &[Vec<usize>],
    options: &TuneOptions,
    clock: &Clock<'_>,
    tell: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<TuneReport> {
    let timer = Timer::new(gpu, clock, false);
    let own = Own { gpu, source, spec, timer: &timer, trusted: RefCell::default() };
    // Other forms may be left out; of what there is now it is told what is wrong.
    if let (Some(first), Some(sizes)) = (forms(&source.tuned).into_iter().next(), shapes.first()) {
        let trust = trust(source, &first, spec, sizes)?;
        own.trusted.borrow_mut().push((first, sizes.clone(), Ok(trust)));
    }
    search(&own, gpu.name(), shapes, options, tell)
}

/// All combinations of values, those that there are now first.
fn forms(parameters: &[(String, Vec<Setting>)]) -> Vec<Settings> {
    let mut all = vec![Settings::new()];
    for (name, values) in parameters {
        all = all
            .into_iter()
            .flat_map(|form| {
                values.iter().map(move |value| {
                    let mut form = form.clone();
                    form.insert(name.clone(), value.clone());
                    form
                })
            })
            .collect();
    }
    all
}

/// How much slower than the best a first measurement may be.
const HOPELESS: f64 = 1.5;

pub(super) fn search(
    subject: &dyn Subject,
    adapter: &str,
    shapes: &[Vec<usize>],
    options: &TuneOptions,
    tell: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<TuneReport> {
    let failed = |message: &str| Error::Kernel { kernel: subject.name(), message: message.into() };
    let parameters = subject.parameters();
    let all = forms(&parameters);
    if all.len() < 2 {
        return Err(failed(
            "its header declares no parameter with several values, as in `//% tune tile in [8, \
             16]`",
        ));
    }
    let mut report = TuneReport {
        kernel: subject.name(),
        adapter: adapter.into(),
        forms: all.len(),
        pruned: 0,
        stopped: 0,
        wrong: 0,
        chosen: Default::default(),
        shapes: Vec::new(),
        notes: Vec::new(),
    };
    // Shapes that what there is now cannot have are left out.
    let mut suiting = Vec::new();
    for sizes in shapes {
        match subject.form(&all[0], sizes)? {
            Ok(_) => suiting.push(sizes),
            Err(why) => report.notes.push(format!("left out: {}: {why}", subject.told(sizes))),
        }
    }
    let (shapes, notes) = (suiting, report.notes.join("; "));
    let &first_shape =
        shapes.first().ok_or_else(|| failed(&format!("no shape suits it: {notes}")))?;
    let of = all.len() + options.rounds * shapes.len();
    // A look at each at one shape.
    let mut looked: Vec<(f64, Settings)> = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best = f64::INFINITY;
    for (number, settings) in all.iter().enumerate() {
        if !tell(number, of) {
            return Err(Error::Cancelled);
        }
        let mut form = match subject.form(settings, first_shape)? {
            Ok(form) => form,
            Err(why) if number == 0 => {
                return Err(failed(&format!(
                    "{} does not suit it: {why}",
                    subject.told(first_shape)
                )));
            }
            Err(why) => {
                report.pruned += 1;
                *reasons.entry(why).or_insert(0) += 1;
                continue;
            }
        };
        let mut seconds = form.time()?;
        if seconds > HOPELESS * best && number > 0 {
            report.stopped += 1;
            continue;
        }
        for _ in 0..2 {
            seconds = seconds.min(form.time()?);
        }
        if !form.is_right()? {
            report.wrong += 1;
            continue;
        }
        best = best.min(seconds);
        looked.push((seconds, settings.clone()));
    }
    report.notes.extend(reasons.into_iter().map(|(why, count)| {
        format!("left out: {count} of {} forms at {}: {why}", all.len(), subject.told(first_shape))
    }));
    let Some(standard) = looked.iter().find(|(_, settings)| *settings == all[0]).cloned() else {
        let message = "what there is now gives wrong results".into();
        return Err(Error::Faulty { kernel: subject.name(), message });
    };
    looked.sort_by(|a, b| a.0.total_cmp(&b.0));
    looked.retain(|(_, settings)| *settings != standard.1);
    looked.truncate(options.best);
    // The best of them beside what there is, at all shapes.
    let candidates: Vec<Settings> = looked.into_iter().map(|(_, settings)| settings).collect();
    let mut compared: Vec<Vec<Tuned>> = vec![Vec::new(); candidates.len()];
    let mut lost = vec![false; candidates.len()];
    for (number, &sizes) in shapes.iter().enumerate() {
        let mut now = match subject.form(&standard.1, sizes)? {
            Ok(form) => form,
            Err(why) => return Err(failed(&format!("{}: {why}", subject.told(sizes)))),
        };
        let mut others = Vec::new();
        for (index, settings) in candidates.iter().enumerate() {
            match subject.form(settings, sizes)? {
                Ok(mut form) => {
                    lost[index] |= !form.is_right()?;
                    others.push((index, form, Vec::new()));
                }
                Err(_) => lost[index] = true,
            }
        }
        let (mut base, mut again) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            if !tell(all.len() + number * options.rounds + round, of) {
                return Err(Error::Cancelled);
            }
            // Before and after the others, and the other way round the next time.
            let first = now.time()?;
            for (_, form, samples) in &mut others {
                samples.push(form.time()?);
            }
            let second = now.time()?;
            let (one, other) = if round % 2 == 0 { (first, second) } else { (second, first) };
            base.push(one);
            again.push(other);
        }
        for (index, _, samples) in &others {
            compared[*index].push(Tuned {
                sizes: subject.told(sizes),
                before: quantile(&base, 0.5),
                after: quantile(samples, 0.5),
                difference: Difference::beside(samples, &base, &again, 1),
            });
        }
    }
    let chosen = choice(&compared, &lost);
    if let Some(index) = chosen {
        let differs = |(name, value): (&String, &Setting)| {
            (standard.1.get(name) != Some(value)).then(|| (name.clone(), value.to_string()))
        };
        report.chosen = candidates[index].iter().filter_map(differs).collect();
        report.shapes = compared.swap_remove(index);
    }
    Ok(report)
}

/// The candidate that is slower at no shape, faster at some, and fastest over all.
fn choice(compared: &[Vec<Tuned>], lost: &[bool]) -> Option<usize> {
    let slower = |tuned: &Tuned| tuned.difference.significant && tuned.difference.ratio > 1.0;
    let faster = |tuned: &Tuned| tuned.difference.significant && tuned.difference.ratio < 1.0;
    let score = |shapes: &[Tuned]| -> f64 {
        shapes.iter().map(|tuned| tuned.difference.ratio.ln()).sum::<f64>()
    };
    let good = compared.iter().enumerate().filter(|(index, shapes)| {
        !lost[*index] && !shapes.iter().any(slower) && shapes.iter().any(faster)
    });
    good.min_by(|a, b| score(a.1).total_cmp(&score(b.1))).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_in_order() {
        let values = |all: &[i64]| all.iter().map(|&n| Setting::Number(n)).collect();
        let parameters = [("a".to_string(), values(&[1, 2])), ("b".to_string(), values(&[3, 4]))];
        let all = forms(&parameters);
        assert_eq!(all.len(), 4);
        assert_eq!((&all[0]["a"], &all[0]["b"]), (&Setting::Number(1), &Setting::Number(3)));
    }

    #[test]
    fn nothing_is_chosen_that_is_slower_anywhere() {
        let tuned = |ratio: f64, significant: bool| Tuned {
            sizes: String::new(),
            before: 1.0,
            after: ratio,
            difference: Difference {
                ratio,
                interval: [ratio; 2],
                p: 0.0,
                noise: 0.0,
                rounds: 15,
                significant,
            },
        };
        let mixed = vec![tuned(0.5, true), tuned(1.1, true)];
        let better = vec![tuned(0.8, true), tuned(1.001, false)];
        let chance = vec![tuned(0.99, false), tuned(0.99, false)];
        let all = [mixed.clone(), better, chance.clone()];
        assert_eq!(choice(&all, &[false; 3]), Some(1));
        assert_eq!(choice(&all, &[false, true, false]), None);
        assert_eq!(choice(&[mixed, chance], &[false; 2]), None);
    }
}
