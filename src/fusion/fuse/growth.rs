//! A library that grows: a concept is added to a model that was fused before, at the cost of that
//! concept, however many there are.
//!
//! Layer by layer, what was there is answered as before and the new concept as its own LoRA answers
//! ([`solve::grow`]). Then the UNet learns what the new concept's own model predicts, beside as
//! many predictions of ordinary prompts and twice as many of some of the others.
//!
//! What the model came to is kept beside the statistics, by the batches in which concepts came:
//! what was before a concept is there when it is taken out again.

use std::collections::BTreeMap;
use std::time::Instant;

use faer::Mat;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::base::base_weight;
use super::super::folder;
use super::super::scenes;
use super::super::settings::{Distillation, Settings};
use super::super::solve::{Exact, Group, LayerMeasures, Measures, RidgeChoice, Solver};
use super::super::statistics::{Statistics, triangle};
use super::{
    Error, FusedConcept, Fusion, Progress, RecordedSubject, Result, SOLVE, SiteGroup, SiteReport,
    Stage, StageLayers, StageReport, Teacher, TensorFile, TensorView, checkpoint, hash_of, heed,
    hex, solve, store,
};
use crate::training::draws::{Draws, Purpose};

/// Of the other concepts, so many are learnt beside a new one at most.
const MOST_BESIDE: usize = 8;
/// How many of their predictions, in parts of the new concept's.
const SHARE_BESIDE: usize = 2;
/// Beyond the numbers that other draws of a run have.
const FIRST_DRAW: u64 = 1 << 32;

/// Of so many others, beside how many a new concept is learnt.
fn beside_of(others: usize) -> usize {
    others.min(MOST_BESIDE)
}

/// Predictions of each of those, beside so many of the new one.
fn lessons_beside(lessons: usize, beside: usize) -> usize {
    (SHARE_BESIDE * lessons).div_ceil(beside.max(1))
}

/// What the UNet does where one concept is added, besides the sums of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GrowthCost {
    /// Scenes of it and others.
    pub scenes: usize,
    /// Passes in which it and its scenes are sampled by the concepts' own files.
    pub passes: usize,
    /// Predictions that are learnt, its own, others', ordinary prompts' and of scenes.
    pub lessons: usize,
    /// Updates in which they are; some more where passes of several pictures are filled up.
    pub updates: usize,
}

impl GrowthCost {
    /// Of one with words of its own, added to so many `others` that have them too.
    pub fn of(others: usize, settings: &Settings) -> GrowthCost {
        let Distillation { pictures, scenes: seeds, batch, one_prompt, .. } = settings.distillation;
        if pictures == 0 {
            return GrowthCost { scenes: 0, passes: 0, lessons: 0, updates: 0 };
        }
        let halves = if settings.guidance == 1.0 { 1 } else { 2 };
        let count = |seeds: u64| settings.sampled.len() * seeds as usize * settings.steps;
        let scenes = if seeds == 0 { 0 } else { scenes::with(others).count() };
        let (own, beside) = (halves * count(pictures), beside_of(others));
        let of_others = beside * lessons_beside(own, beside).min(own);
        let ordinary = RecordedSubject::keep(settings, false).map_or(0, |subject| {
            let subject = subject.distilled(settings);
            halves * subject.sampled.len() * subject.seeds as usize * subject.steps
        });
        let of_scenes = scenes * (halves * count(seeds) + count(one_prompt.min(seeds)));
        let lessons = own + of_others + ordinary + of_scenes;
        GrowthCost {
            scenes,
            passes: count(pictures) + scenes * count(seeds),
            lessons,
            updates: (lessons / batch.max(1)).max(1),
        }
    }
}

/// The batches in which concepts came: those of `history`, as far as they are there still, then all
/// others.
pub(super) fn batches(history: &[Vec<String>], members: &[FusedConcept]) -> Vec<Vec<FusedConcept>> {
    let known = |member: &&FusedConcept| history.iter().flatten().any(|key| *key == member.key);
    let of = |keys: &Vec<String>| -> Vec<FusedConcept> {
        members.iter().filter(|member| keys.contains(&member.key)).cloned().collect()
    };
    let new: Vec<FusedConcept> = members.iter().filter(|member| !known(member)).cloned().collect();
    history.iter().map(of).chain([new]).filter(|batch| !batch.is_empty()).collect()
}

/// What all concepts so far read, added up, stage by stage.
#[derive(Default)]
pub(super) struct Sums {
    stages: Vec<StageSums>,
}

struct StageSums {
    stage: Stage,
    /// One for each site.
    sites: Vec<Statistics>,
}

impl Sums {
    /// Adds the statistics of a stage's concepts, each with its weight.
    pub fn add(
        &mut self,
        stage: Stage,
        layout: &StageLayers,
        files: &[TensorFile],
        weights: &[f64],
    ) -> Result<()> {
        let mut sites = Vec::with_capacity(layout.sites.len());
        for site in &layout.sites {
            let mut total = Statistics::new(site.width);
            for (file, weight) in files.iter().zip(weights) {
                total.add(&store::read(file, site)?, *weight);
            }
            sites.push(total);
        }
        self.stages.retain(|other| other.stage != stage);
        self.stages.push(StageSums { stage, sites });
        Ok(())
    }

    fn of(&mut self, stage: Stage) -> Option<&mut StageSums> {
        self.stages.iter_mut().find(|sums| sums.stage == stage)
    }
}

/// Of a model, the settings and the batches: what its state is kept under.
fn key(fusion: &Fusion, batches: &[Vec<FusedConcept>]) -> Result<String> {
    let settings = serde_json::to_string(fusion.settings)
        .map_err(|e| Error::file(&fusion.working, e.to_string()))?;
    let mut sha = Sha256::new();
    sha.update(fusion.runner.base.hash.to_string());
    sha.update(settings);
    for batch in batches {
        sha.update("batch ");
        batch.iter().for_each(|member| sha.update(format!("{} {};", member.key, member.weight)));
    }
    Ok(hex(&sha.finalize()))
}

const KEY: &str = "mos_grown";
const EARLIER: &str = "mos_earlier";
const STAGES: &str = "mos_stages";
const ROWS: &str = "mos_rows";

impl Fusion<'_, '_> {
    /// Keeps what the model has come to, under the batches in which its concepts came.
    pub(super) fn keep_state(
        &self,
        batches: &[Vec<FusedConcept>],
        layouts: &[(Stage, StageLayers)],
    ) -> Result<()> {
        let key = key(self, batches)?;
        for (stage, layout) in layouts {
            let fused = self.runner.fused(stage.network());
            let names = layout.names().into_iter().map(|layer| format!("{layer}.weight"));
            let tensors: Vec<(String, TensorView)> =
                names.filter_map(|name| Some((name.clone(), fused.find(&name)?))).collect();
            let path = self.store.grown_path(stage.name(), &key);
            checkpoint::write(&path, &tensors, &BTreeMap::new())?;
        }
        let (mut tensors, mut rows) = (Vec::new(), BTreeMap::new());
        for (sums, (stage, layout)) in self.sums.stages.iter().flat_map(|sums| {
            layouts.iter().filter(|(stage, _)| *stage == sums.stage).map(move |l| (sums, l))
        }) {
            for (total, site) in sums.sites.iter().zip(&layout.sites) {
                let name = format!("{}/{}", stage.name(), site.name);
                let sums = total.sums().unwrap_or_default();
                let bytes: Vec<u8> = sums.iter().flat_map(|v| v.to_le_bytes()).collect();
                let view = TensorView::new(checkpoint::DType::F64, vec![sums.len()], bytes);
                rows.insert(name.clone(), total.rows());
                tensors.extend(view.map(|view| (name, view)));
            }
        }
        let metadata = BTreeMap::from([
            (KEY.to_string(), key.clone()),
            (EARLIER.to_string(), self.earlier.clone()),
            (STAGES.to_string(), folder::noted_stages(&self.report).to_string()),
            (ROWS.to_string(), json!(rows).to_string()),
        ]);
        // Last: with it the state is whole.
        checkpoint::write(&self.store.grown_path(store::SUMS, &key), &tensors, &metadata)?;
        Ok(())
    }

    /// Goes on from the longest part of `batches` whose state is kept: of how many they are.
    pub(super) fn restore_state(
        &mut self,
        batches: &[Vec<FusedConcept>],
        layouts: &[(Stage, StageLayers)],
    ) -> Result<usize> {
        for count in (1..=batches.len()).rev() {
            let key = key(self, &batches[..count])?;
            if self.restored(&key, layouts).is_some() {
                return Ok(count);
            }
        }
        Ok(0)
    }

    fn restored(&mut self, key: &str, layouts: &[(Stage, StageLayers)]) -> Option<()> {
        let file = TensorFile::open(&self.store.grown_path(store::SUMS, key)).ok()?;
        if file.metadata().get(KEY).map(String::as_str) != Some(key) {
            return None;
        }
        let rows: BTreeMap<String, u64> = serde_json::from_str(file.metadata().get(ROWS)?).ok()?;
        let mut sums = Sums::default();
        for (stage, layout) in layouts {
            let mut sites = Vec::with_capacity(layout.sites.len());
            for site in &layout.sites {
                let name = format!("{}/{}", stage.name(), site.name);
                let view = file.tensor(&name)?;
                let whole =
                    view.len() == triangle(site.width) && view.dtype() == checkpoint::DType::F64;
                let numbers = view.bytes().as_chunks::<8>().0.iter();
                let values: Vec<f64> = numbers.map(|bytes| f64::from_le_bytes(*bytes)).collect();
                if !whole || values.iter().any(|v| !v.is_finite()) {
                    return None;
                }
                sites.push(Statistics::from_sums(site.width, *rows.get(&name)?, values));
            }
            sums.stages.push(StageSums { stage: *stage, sites });
        }
        let mut paths = Vec::new();
        for (stage, layout) in layouts {
            let path = self.store.grown_path(stage.name(), key);
            let file = TensorFile::open(&path).ok()?;
            if layout.names().iter().any(|layer| !file.contains(&format!("{layer}.weight"))) {
                return None;
            }
            paths.push((*stage, path));
        }
        let earlier = file.metadata().get(EARLIER)?.clone();
        let stages: Value = serde_json::from_str(file.metadata().get(STAGES)?).ok()?;
        for (stage, path) in paths {
            self.runner.fused_mut(stage.network()).add(&path).ok()?;
            if stage == Stage::Cross {
                self.cross.add(&path).ok()?;
            }
        }
        (self.sums, self.earlier, self.report.noted) = (sums, earlier, Some(stages));
        Some(())
    }

    /// Adds `new` to what `before` has come to.
    pub(super) fn grow(
        &mut self,
        before: &[Vec<FusedConcept>],
        new: &[FusedConcept],
        layouts: &[(Stage, StageLayers)],
    ) -> Result<()> {
        self.ridges();
        self.report.stages.clear();
        self.report.noted = None;
        self.report.conflicts.clear();
        let weight: f64 = before.iter().flatten().map(|member| member.weight).sum();
        for (stage, layout) in layouts {
            self.grow_stage(*stage, layout, new, weight)?;
        }
        let in_unet: Vec<&StageLayers> = layouts
            .iter()
            .filter(|(stage, _)| !stage.is_text())
            .map(|(_, layout)| layout)
            .collect();
        let others: Vec<&FusedConcept> = before.iter().flatten().collect();
        self.distil_beside(new, &others, before.len() as u64, &in_unet)
    }

    /// Notes the ridges that the stages were solved with: later ones are solved with the same.
    fn ridges(&mut self) {
        let own = self.report.stages.iter().map(|s| (s.stage.name().to_string(), s.ridge.ridge));
        self.ridge_of.extend(own);
        let noted = self.report.noted.as_ref().and_then(Value::as_array);
        for stage in noted.into_iter().flatten() {
            if let (Some(name), Some(ridge)) = (stage["stage"].as_str(), stage["ridge"].as_f64()) {
                self.ridge_of.insert(name.to_string(), ridge);
            }
        }
    }

    fn grow_stage(
        &mut self,
        stage: Stage,
        layout: &StageLayers,
        new: &[FusedConcept],
        weight_before: f64,
    ) -> Result<()> {
        let start = Instant::now();
        let Solver::Exact(Exact { keep_weight, ridge, .. }) = self.settings.solver else {
            return Err(Error::option("solver", "a model grows by the exact one alone"));
        };
        let ridge = ridge.or(self.ridge_of.get(stage.name()).copied()).unwrap_or(USUAL_RIDGE);
        let last = stage == Stage::Spatial;
        // What is recorded sees what this stage follows, not what it solved for before.
        let whole = last.then(|| std::mem::replace(&mut self.runner.unet, self.cross.clone()));
        let recorded = self.recorded_of(stage, layout, new, keep_weight > 0.0);
        if let Some(whole) = whole {
            self.runner.unet = whole;
        }
        let (files, held_out, kept) = recorded?;
        let taken = start.elapsed();
        let start = Instant::now();
        let weights: Vec<f64> = new.iter().map(|member| member.weight).collect();
        let component = self.runner.base.component(stage.network());
        let (mut tensors, mut sites) = (Vec::new(), Vec::new());
        let count = layout.sites.len();
        let (members, places) = (self.all.len(), self.places_of(new));
        let keep = [kept, None];
        for (done, site) in layout.sites.iter().enumerate() {
            heed((self.watch)(Progress::new(SOLVE, done, count)))?;
            let group = SiteGroup {
                site,
                stage,
                members: new,
                weights: &weights,
                files: &files,
                held_out: &held_out,
                keep: &keep,
            };
            let mut weights_now = Vec::with_capacity(site.layers.len());
            for layer in &site.layers {
                let name = format!("{}.weight", layer.name);
                let (shape, base) = base_weight(component, &name)?;
                let fused = self.runner.fused(stage.network()).find(&name);
                let now = fused.map_or_else(|| base.clone(), |view| view.to_f32(0..view.len()));
                weights_now.push((name, shape, base, now));
            }
            let before = weights_now.iter().zip(&site.layers).map(|((_, _, base, now), layer)| {
                Mat::from_fn(layer.out, site.width, |i, j| {
                    let at = i * site.width + j;
                    f64::from(now[at]) - f64::from(base[at])
                })
            });
            let before: Vec<Mat<f64>> = before.collect();
            let missing = || Error::option(&site.name, "the sums of what was fused are missing");
            let sums = self.sums.of(stage).and_then(|sums| sums.sites.get_mut(done));
            let sums = sums.ok_or_else(missing)?;
            let asked = solve::Before { inputs: sums, weight: weight_before, changes: &before };
            let grown = solve::grow(&group, &asked, ridge, keep_weight)?;
            for (index, weight) in weights.iter().enumerate() {
                sums.add(&*group.inputs(index)?, *weight);
            }
            let mut changes = Vec::new();
            for (((name, shape, base, now), before), added) in
                weights_now.into_iter().zip(&before).zip(&grown.added)
            {
                let norm = base.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                changes.push((before + added).norm_l2() / norm.max(f64::MIN_POSITIVE));
                let values = now.iter().enumerate().map(|(at, w)| {
                    (f64::from(*w) + added[(at / site.width, at % site.width)]) as f32
                });
                let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
                let view = TensorView::new(checkpoint::DType::F32, shape, bytes);
                tensors.extend(view.map(|view| (name, view)));
            }
            // Among all of the report's concepts.
            let placed = |own: &LayerMeasures| {
                let mut all = LayerMeasures::nothing(&own.layer, members);
                for (place, energies) in places.iter().zip(&own.energies) {
                    all.set(*place, *energies);
                }
                all
            };
            let [measures, averaged] = grown
                .measures
                .map(|layers| Measures { layers: layers.iter().map(placed).collect() });
            let (conditioning, objective) = (None, None);
            sites.push(SiteReport { measures, averaged, conditioning, objective, changes });
        }
        let name = format!("{}-{}.safetensors", store::WEIGHTS, stage.name());
        let path = self.working.join(name);
        checkpoint::write(&path, &tensors, &BTreeMap::new())?;
        self.runner.fused_mut(stage.network()).put_before(&path)?;
        if stage == Stage::Cross {
            self.cross.put_before(&path)?;
        }
        let mut sha = Sha256::new();
        sha.update(&self.earlier);
        sha.update(hash_of(&path)?);
        self.earlier = hex(&sha.finalize());
        self.report.stages.push(StageReport {
            stage,
            ridge: RidgeChoice::given(ridge, solve::Towards::Base),
            sites,
            stale: Vec::new(),
            moved: std::mem::take(&mut self.moved),
            seconds: [taken.as_secs_f64(), start.elapsed().as_secs_f64()],
        });
        Ok(())
    }

    /// The statistics of a stage's new concepts, those that were kept aside, and ordinary prompts'.
    fn recorded_of(
        &mut self,
        stage: Stage,
        layout: &StageLayers,
        new: &[FusedConcept],
        keeps: bool,
    ) -> Result<(Vec<TensorFile>, Vec<TensorFile>, Option<TensorFile>)> {
        let (mut files, mut held_out) = (Vec::new(), Vec::new());
        for member in new {
            let subject = RecordedSubject::concept(member, self.settings);
            files.push(self.statistics(stage, layout, &subject)?.file);
            if let Some(subject) = RecordedSubject::held_out(member, self.settings) {
                held_out.push(self.statistics(stage, layout, &subject)?.file);
            }
        }
        let subject = RecordedSubject::keep(self.settings, false).filter(|_| keeps);
        let kept = subject.map(|subject| self.statistics(stage, layout, &subject)).transpose()?;
        Ok((files, held_out, kept.map(|found| found.file)))
    }

    /// Where these concepts are among all of the report.
    fn places_of(&self, new: &[FusedConcept]) -> Vec<usize> {
        let place = |member: &FusedConcept| self.all.iter().position(|key| *key == member.key);
        new.iter().map(|member| place(member).unwrap_or(usize::MAX)).collect()
    }

    /// Learns what new concepts' own models predict, beside some of `others`.
    fn distil_beside(
        &mut self,
        new: &[FusedConcept],
        others: &[&FusedConcept],
        step: u64,
        layouts: &[&StageLayers],
    ) -> Result<()> {
        if self.settings.distillation == Distillation::NONE
            || self.settings.distillation.pictures == 0
            || super::distillation::refusal(&self.runner).is_some()
        {
            return Ok(());
        }
        let start = Instant::now();
        let mut order: Vec<usize> = (0..others.len()).collect();
        Draws::new(self.settings.seed).at(Purpose::Lessons, FIRST_DRAW + step).shuffle(&mut order);
        order.truncate(beside_of(others.len()));
        // Scenes are with the first that were drawn.
        let drawn: Vec<&FusedConcept> =
            order.iter().filter_map(|at| others.get(*at).copied()).collect();
        order.sort_unstable();
        let beside: Vec<&FusedConcept> =
            order.iter().filter_map(|at| others.get(*at).copied()).collect();
        let mut teachers = Vec::new();
        let mut lessons = 0;
        for member in new {
            let subject = RecordedSubject::concept(member, self.settings).distilled(self.settings);
            let teacher = self.teacher(subject, member.weight)?;
            lessons += teacher.lessons();
            teachers.push(teacher);
        }
        let weight: f64 = new.iter().map(|member| member.weight).sum();
        let share = SHARE_BESIDE as f64 * weight / beside.len().max(1) as f64;
        let most = lessons_beside(lessons, beside.len());
        for member in &beside {
            let subject = RecordedSubject::concept(member, self.settings).distilled(self.settings);
            let teacher = self.teacher(subject, share)?;
            let most = most.min(teacher.lessons());
            teachers.push(Teacher { most, ..teacher });
        }
        if let Some(subject) = RecordedSubject::keep(self.settings, false) {
            teachers.push(self.teacher(subject.distilled(self.settings), 1.0)?);
        }
        let mut stood = Vec::new();
        for member in new {
            let others = new.iter().filter(|other| other.key != member.key);
            let others: Vec<&FusedConcept> = drawn.iter().copied().chain(others).collect();
            for scene in scenes::scenes_with(member, &others, self.settings) {
                stood.push(scene.name.clone());
                teachers.push(self.scene_teacher(scene, member.weight)?);
            }
        }
        self.add_one_prompts(&mut teachers)?;
        let names = |of: &[&FusedConcept]| {
            of.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        self.report.notes.push(format!(
            "learnt: {}; beside it, of {} others, predictions of {}{}",
            names(&new.iter().collect::<Vec<_>>()),
            others.len(),
            names(&beside),
            match stood.is_empty() {
                true => String::new(),
                false => format!("; in scenes: {}", stood.join(", ")),
            }
        ));
        let mut places = self.places_of(new);
        places.extend(
            beside.iter().flat_map(|member| self.all.iter().position(|key| *key == member.key)),
        );
        places.push(self.all.len());
        self.learn_from(&teachers, layouts, start)?;
        if let Some(report) = &mut self.report.distillation {
            let mut errors = vec![[0.0; 2]; self.all.len() + 1];
            for (place, found) in places.iter().zip(&report.errors) {
                if let Some(error) = errors.get_mut(*place) {
                    *error = *found;
                }
            }
            report.errors = errors;
        }
        Ok(())
    }
}

/// Where nothing says which.
const USUAL_RIDGE: f64 = 1e-2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_when_is_told_by_the_history() {
        let member = |key: &str| FusedConcept {
            name: key.into(),
            key: key.into(),
            words: Vec::new(),
            phrase: key.into(),
            updates: crate::concept::Updates::default(),
            weight: 1.0,
            path: key.into(),
            scales: [1.0; 2],
            left_out: 0,
            concept: crate::concept::Concept::default(),
        };
        let members = ["a", "b", "c", "d"].map(member);
        let found = |history: &[&[&str]]| -> Vec<String> {
            let history: Vec<Vec<String>> = history
                .iter()
                .map(|keys| keys.iter().map(|key| key.to_string()).collect())
                .collect();
            let batch = |batch: Vec<FusedConcept>| batch.iter().map(|m| m.key.clone()).collect();
            batches(&history, &members).into_iter().map(batch).collect()
        };
        assert_eq!(found(&[]), ["abcd"]);
        assert_eq!(found(&[&["a", "c"]]), ["ac", "bd"]);
        // What was taken out leaves no trace.
        assert_eq!(found(&[&["a", "c"], &["x"], &["d", "y"]]), ["ac", "d", "b"]);
        assert_eq!(found(&[&["a", "b"], &["c", "d"]]), ["ab", "cd"]);
    }
}
