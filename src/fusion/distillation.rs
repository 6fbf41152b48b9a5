//! The last stage: the fused UNet learns to predict what each concept's own UNet predicts.
//!
//! Layer by layer, the least squares of the other stages is the best there is; but where concepts
//! want different answers to inputs that are alike, what one layer cannot give another can, and
//! which of the layers' errors show in a picture no layer knows. So the fused UNet is distilled
//! from the concepts' own models: these sample pictures, each alone and two and three together in
//! regions (scenes), and both halves of what they predict along the way are trained, each once, by
//! low-rank updates of all fused layers that are added to the weights at the end. Ordinary prompts,
//! as the base model answers them, count as one concept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::checkpoint::{self, DType, TensorFile, TensorView};
use crate::graph::Array;
use crate::graph::ops::RegionTables;
use crate::models::unet;
use crate::training::draws::{Draws, Purpose};
use crate::training::step::{self, Lesson, State, TrainedLayer, TrainingStep};

use super::base::{Runner, base_weight};
use super::encodings::Encodings;
use super::groups::StageLayers;
use super::lessons::{LessonShape, Lessons, lessons};
use super::members::hex;
use super::report::{DistillationReport, SceneReport};
use super::scenes::Scene;
use super::settings::{Distillation, Settings};
use super::store::DISTILLATION_STATE;
use super::teachers::{EMPTY, Learnt, Teacher, prompt_name};
use super::{Error, Result};
use crate::watch::Parts;

/// Updates in which the rate rises.
const WARM_UP: usize = 10;
/// Updates after which the state is saved.
const SAVE_EVERY: usize = 20;
/// Draws of which predictions are taken where not all are, beside those of other draws.
const SAMPLED: u64 = 1 << 31;
/// The draw of the order of passes, where scenes are learnt.
const PASSES: u64 = 1 << 34;
/// Why this model cannot be distilled; none: it can.
pub(super) fn refusal(runner: &Runner) -> Option<String> {
    let (unet, width) = (runner.base.unet(), runner.base.model.text_width());
    if unet.in_channels != unet.out_channels {
        return Some(format!(
            "its UNet has {} channels in and {} out",
            unet.in_channels, unet.out_channels
        ));
    }
    if unet.num_class_embeds.is_some() || unet.time_cond_proj_dim.is_some() {
        return Some("its UNet is conditioned on classes or guidance".into());
    }
    (unet.cross_attention_dim != width).then(|| {
        format!(
            "its UNet reads texts of width {}, its text encoder writes {width}",
            unet.cross_attention_dim
        )
    })
}

/// A prediction to learn.
#[derive(Clone, Copy)]
struct Row {
    teacher: usize,
    /// Place among the teacher's predictions.
    at: usize,
    unconditional: bool,
    weight: f32,
}

/// A weight of the UNet, f32.
struct Weight {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The result of a distillation.
pub(super) struct Distilled {
    /// The weights of all layers, with what was trained; none where it made nothing better.
    weights: Vec<Weight>,
    pub report: DistillationReport,
}

impl Distilled {
    pub fn tensors(&self) -> Vec<(String, TensorView<'_>)> {
        let named = self
            .weights
            .iter()
            .map(|w| (w.name.clone(), TensorView::from_f32(w.shape.clone(), &w.values)));
        named.filter_map(|(name, view)| Some((name, view?))).collect()
    }
}

/// Where files go.
pub(super) struct Places<'a> {
    /// Of the whole fusion.
    pub working: &'a Path,
    /// For what is of no use afterwards.
    pub scratch: &'a Path,
}

impl Places<'_> {
    fn state(&self) -> PathBuf {
        self.working.join(DISTILLATION_STATE)
    }

    /// Removes the state: the run is through.
    pub fn clear(&self) -> Result<()> {
        let path = self.state();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(&path, "remove")(error))
            }
            _ => Ok(()),
        }
    }
}

/// The fused UNet while it learns.
pub(super) struct Student<'a> {
    runner: &'a Runner<'a>,
    settings: Distillation,
    draws: Draws,
    teachers: &'a [Teacher<'a>],
    encodings: Vec<Encodings>,
    /// Prompts that a prediction may have, and where they hold: one for all, and those of each view
    /// of each teacher.
    prompts: usize,
    whole: Vec<RegionTables>,
    views: Vec<Vec<Vec<RegionTables>>>,
    step: TrainingStep,
    layers: Vec<TrainedLayer>,
    /// Predictions in one pass.
    batch: usize,
    tokens: usize,
    size: [usize; 2],
    /// Where the state is kept, and what it belongs to.
    state: PathBuf,
    key: String,
}

const KEY: &str = "mos_distillation";

impl<'a> Student<'a> {
    /// `stages_layers`: the layers that were solved for. `earlier`: hash of all that was fused so
    /// far.
    pub fn new(
        runner: &'a Runner<'a>,
        all: &Settings,
        teachers: &'a [Teacher<'a>],
        stages_layers: &[&StageLayers],
        places: &Places,
        earlier: &str,
    ) -> Result<Student<'a>> {
        let (settings, seed) = (all.distillation, all.seed);
        let (mut concepts, mut prompts) = (0, 1);
        for teacher in teachers {
            match &teacher.learnt {
                Learnt::Subject(subject) => concepts += usize::from(subject.updates.is_some()),
                Learnt::Scene(scene) => prompts = prompts.max(1 + scene.members.len()),
                Learnt::OnePrompt(_) => {}
            }
        }
        let [height, width, _] =
            teachers.first().map(|teacher| teacher.predicted.shape).unwrap_or_default();
        let shape = LessonShape { concepts, prompts, size: [height, width] };
        let Lessons { step, layers, rank, batch, tokens } =
            lessons(runner, settings, shape, stages_layers)?;
        let (mut encodings, mut views) = (Vec::new(), Vec::new());
        for (number, teacher) in teachers.iter().enumerate() {
            let path = places.scratch.join(format!("{number}.safetensors"));
            encodings.push(teacher.learnt.encode(&path, runner, all)?);
            let mut of_teacher = Vec::new();
            if let Learnt::Scene(scene) = &teacher.learnt {
                for view in &scene.views {
                    let shares = view.shares(runner, [height, width])?;
                    let count = view.prompts.len();
                    of_teacher.push(tables(&shares, count, prompts, tokens));
                }
            }
            views.push(of_teacher);
        }
        let sizes = unet::feature_sizes(runner.base.unet(), height, width);
        let everywhere: Vec<Vec<f32>> =
            sizes.iter().map(|[height, width]| vec![1.0; height * width]).collect();
        let whole = match prompts {
            1 => Vec::new(),
            _ => tables(&everywhere, 1, prompts, tokens),
        };
        let mut sha = Sha256::new();
        sha.update(earlier);
        sha.update(format!("{settings:?} {seed} {rank} {batch} {height} {width}"));
        for teacher in teachers {
            sha.update(format!(
                "{} {} {} {};",
                teacher.learnt.key(),
                teacher.weight,
                teacher.predicted.count,
                teacher.lessons()
            ));
        }
        Ok(Student {
            runner,
            settings,
            draws: Draws::new(seed),
            teachers,
            encodings,
            prompts,
            whole,
            views,
            step,
            layers,
            batch,
            tokens,
            size: [height, width],
            state: places.state(),
            key: hex(&sha.finalize()),
        })
    }

    /// Learns; an interrupted run goes on from the state that it saved last.
    pub fn run(&mut self, progress: &mut Parts) -> Result<Distilled> {
        let start = Instant::now();
        let rows = self.rows();
        let updates = (rows.len() / self.settings.batch.max(1)).max(1);
        let initial = self.initial()?;
        progress(0, updates)?;
        self.step.restore(&initial)?;
        let before = self.errors()?;
        let found = self.saved(updates);
        self.step.restore(found.as_ref().unwrap_or(&initial))?;
        let mut done = found.map_or(0, |state| state.step as usize);
        let mut diverged = false;
        while done < updates && !diverged {
            if let Err(cancelled) = progress(done, updates) {
                self.save(done)?;
                return Err(cancelled.into());
            }
            let rate = rate(self.settings.rate, done, updates);
            for pass in 0..self.settings.batch / self.batch {
                let first = (done * self.settings.batch) + pass * self.batch;
                let taken: Vec<Row> =
                    (first..first + self.batch).map(|at| rows[at % rows.len()]).collect();
                match self.learn(&taken, rate) {
                    // What was solved for stands.
                    Err(Error::Distillation(step::Error::NotFinite { .. })) => diverged = true,
                    other => drop(other?),
                }
            }
            done += 1;
            if done.is_multiple_of(SAVE_EVERY) && done < updates {
                self.save(done)?;
            }
        }
        progress(updates, updates)?;
        let state = self.step.state()?;
        let after = if diverged { vec![f64::INFINITY; before.len()] } else { self.errors()? };
        let errors: Vec<[f64; 2]> =
            before.into_iter().zip(after).map(|(before, after)| [before, after]).collect();
        let weighed = |which: usize| -> f64 {
            errors
                .iter()
                .zip(self.teachers)
                .map(|(errors, teacher)| teacher.weight * errors[which].powi(2))
                .sum()
        };
        let used = weighed(1) < weighed(0);
        let weights = if used { self.weights(&state)? } else { Vec::new() };
        let (mut of_subjects, mut scenes, mut one_prompt) = (Vec::new(), Vec::new(), Vec::new());
        for (teacher, errors) in self.teachers.iter().zip(errors) {
            match &teacher.learnt {
                Learnt::Subject(_) => of_subjects.push(errors),
                Learnt::Scene(scene) => scenes.push(of_scene(scene, errors)),
                Learnt::OnePrompt(scene) => one_prompt.push(of_scene(scene, errors)),
            }
        }
        let report = DistillationReport {
            updates,
            rank: self.layers.first().map_or(0, |layer| layer.rank),
            errors: of_subjects,
            scenes,
            one_prompt,
            used,
            seconds: [0.0, start.elapsed().as_secs_f64()],
            device_bytes: self.step.planned_bytes()?.total(),
        };
        Ok(Distilled { weights, report })
    }

    /// Every prediction once, in random order; each teacher's count as much as its weight says,
    /// however many they are.
    fn rows(&self) -> Vec<Row> {
        let counts: Vec<usize> = self.teachers.iter().map(Teacher::lessons).collect();
        let weight: f64 = self.teachers.iter().map(|teacher| teacher.weight).sum();
        let mean = counts.iter().sum::<usize>() as f64 / weight.max(f64::MIN_POSITIVE);
        let mut rows = Vec::new();
        for (number, (teacher, count)) in self.teachers.iter().zip(&counts).enumerate() {
            let weight = (teacher.weight * mean / (*count).max(1) as f64) as f32;
            let halves = teacher.halves();
            let each = (0..teacher.predicted.count)
                .flat_map(|at| halves.iter().map(move |&unconditional| (at, unconditional)));
            let row = |(at, unconditional)| Row { teacher: number, at, unconditional, weight };
            let mut own: Vec<Row> = each.map(row).collect();
            if *count < own.len() {
                self.draws.at(Purpose::Lessons, SAMPLED + number as u64).shuffle(&mut own);
                own.truncate(*count);
            }
            rows.extend(own);
        }
        self.draws.at(Purpose::Lessons, 0).shuffle(&mut rows);
        if self.prompts == 1 { rows } else { self.by_places(rows) }
    }

    /// The same in passes, in all of whose pictures prompts hold in the same places. What is left
    /// of a view is filled up with some of it again.
    fn by_places(&self, rows: Vec<Row>) -> Vec<Row> {
        let mut by_view: BTreeMap<Option<(usize, usize)>, Vec<Row>> = BTreeMap::new();
        for row in rows {
            by_view.entry(self.view(&row)).or_default().push(row);
        }
        let mut passes: Vec<Vec<Row>> = Vec::new();
        for rows in by_view.values() {
            let whole = rows.len().next_multiple_of(self.batch);
            let filled: Vec<Row> = rows.iter().copied().cycle().take(whole).collect();
            passes.extend(filled.chunks(self.batch).map(<[Row]>::to_vec));
        }
        self.draws.at(Purpose::Lessons, PASSES).shuffle(&mut passes);
        passes.concat()
    }

    /// Of which prompt or view a row is.
    fn number(&self, row: &Row) -> usize {
        row.at / self.teachers.get(row.teacher).map_or(1, |teacher| teacher.learnt.each())
    }

    /// The view of a scene that a row is of, by its teacher and its number; none: one prompt holds
    /// everywhere.
    fn view(&self, row: &Row) -> Option<(usize, usize)> {
        let views = self.views.get(row.teacher).filter(|views| !views.is_empty());
        views.map(|_| (row.teacher, self.number(row)))
    }

    /// The names of the prompts that a row reads; none where it has fewer than others.
    fn prompts_of(&self, row: &Row) -> Vec<Option<String>> {
        let own = match self.teachers.get(row.teacher).map(|teacher| &teacher.learnt) {
            Some(Learnt::Scene(scene)) => 1 + scene.members.len(),
            _ => 1,
        };
        let name = |slot: usize| match row.unconditional {
            true => EMPTY.to_string(),
            false => prompt_name(self.number(row), slot),
        };
        (0..self.prompts).map(|slot| (slot < own).then(|| name(slot))).collect()
    }

    fn lesson(&self, rows: &[Row], rate: f32) -> Result<Lesson> {
        let base = self.runner.base;
        let ([height, width], channels) = (self.size, base.unet().in_channels);
        let elements = height * width * channels;
        let (mut sample, mut target, mut timesteps) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let predicted = &self.teachers[row.teacher].predicted;
            sample.extend(predicted.row("samples", row.at, elements)?);
            target.extend(predicted.row(
                if row.unconditional { "unconditional" } else { "conditional" },
                row.at,
                elements,
            )?);
            timesteps.extend(predicted.row("timesteps", row.at, 1)?);
        }
        let shape = [rows.len(), height, width, channels];
        let names: Vec<Vec<Option<String>>> = rows.iter().map(|row| self.prompts_of(row)).collect();
        let text = [rows.len(), self.prompts * self.tokens, base.unet().cross_attention_dim];
        let mut texts = Vec::new();
        for number in 0..base.model.attentions.len() {
            let mut values = Vec::new();
            for (row, names) in rows.iter().zip(&names) {
                for name in names {
                    self.encodings[row.teacher].read(name.as_deref(), number, &mut values)?;
                }
            }
            texts.push(Array::f32(text, values));
        }
        let view = rows.first().and_then(|row| self.view(row));
        let of_view = view.and_then(|(teacher, view)| self.views.get(teacher)?.get(view));
        let regions = of_view.unwrap_or(&self.whole).clone();
        let told = rows.iter().zip(&names).filter_map(|(row, names)| {
            let whole = names.first()?.as_deref()?;
            base.addition(&self.encodings[row.teacher].pooled(whole), self.size)
        });
        let told: Vec<f32> = told.flatten().collect();
        let addition = base.unet().addition.map(|of| Array::f32([rows.len(), of.width()], told));
        Ok(Lesson {
            sample: Array::f32(shape, sample),
            timesteps,
            texts,
            regions,
            addition,
            target: Array::f32(shape, target),
            weights: rows.iter().map(|row| row.weight).collect(),
            rate,
        })
    }

    fn learn(&mut self, rows: &[Row], rate: f32) -> Result<f32> {
        let lesson = self.lesson(rows, rate)?;
        Ok(self.step.learn(&lesson)?.loss)
    }

    /// Root mean squared error of each teacher's predictions, of some drawn at random, the same
    /// ones each time. Nothing moves, but the moments do.
    fn errors(&mut self) -> Result<Vec<f64>> {
        let mut errors = Vec::new();
        for teacher in 0..self.teachers.len() {
            let predicted = &self.teachers[teacher].predicted;
            let (count, of) = (predicted.count, self.settings.batch);
            let guided = self.teachers[teacher].halves().len() > 1;
            let mut numbers = self.draws.at(Purpose::Lessons, 1 + teacher as u64);
            let each = self.teachers[teacher].learnt.each();
            let mut first = 0;
            let mut row = |i: usize| {
                let mut at = numbers.below(count);
                if self.prompts > 1 {
                    // Those of one pass are of one prompt or view.
                    first = if i.is_multiple_of(self.batch) { at / each * each } else { first };
                    at = first + at % each;
                }
                Row { teacher, at, unconditional: guided && i % 2 == 1, weight: 1.0 }
            };
            let rows: Vec<Row> = (0..of).map(&mut row).collect();
            let mut sum = 0.0;
            for rows in rows.chunks(self.batch) {
                sum += f64::from(self.learn(rows, 0.0)?) * rows.len() as f64;
            }
            errors.push((sum / of as f64).sqrt());
        }
        Ok(errors)
    }

    /// Updates that add nothing yet: uniform `down` of the variance 1 / in.
    fn initial(&self) -> Result<State> {
        let mut index = 0;
        let mut down = |layer: &TrainedLayer| {
            let (mut numbers, bound) =
                (self.draws.at(Purpose::Updates, index), (3.0 / layer.into as f64).sqrt());
            index += 1;
            (0..layer.rank * layer.into).map(|_| numbers.between(-bound, bound) as f32).collect()
        };
        Ok(self.step.initial(None, &mut down)?)
    }

    fn save(&self, done: usize) -> Result<()> {
        let state = self.step.state()?;
        let view = |(name, array): (&String, &'_ Array)| {
            let bytes: Vec<u8> = array.values().iter().flat_map(|v| v.to_le_bytes()).collect();
            Some((name.clone(), TensorView::new(DType::F32, array.shape.to_vec(), bytes)?))
        };
        let tensors: Vec<(String, TensorView)> = state.arrays.iter().filter_map(view).collect();
        let metadata = BTreeMap::from([
            (KEY.to_string(), self.key.clone()),
            ("updates".to_string(), done.to_string()),
        ]);
        Ok(checkpoint::write(&self.state, &tensors, &metadata)?)
    }

    /// The state of a run that was interrupted, if it was this one.
    fn saved(&self, updates: usize) -> Option<State> {
        let file = TensorFile::open(&self.state).ok()?;
        let step: u64 = file.metadata().get("updates")?.parse().ok()?;
        if file.metadata().get(KEY) != Some(&self.key) || step as usize >= updates {
            return None;
        }
        let array = |name: &str| {
            let view = file.tensor(name)?;
            (view.dtype() == DType::F32)
                .then(|| (name.to_string(), Array::f32(view.shape(), view.to_f32(0..view.len()))))
        };
        let arrays = file.names().map(array).collect::<Option<BTreeMap<_, _>>>()?;
        Some(State { arrays, step, ..State::default() })
    }

    /// Every layer's weight with what it has trained.
    fn weights(&self, state: &State) -> Result<Vec<Weight>> {
        let mut all = Vec::new();
        for layer in &self.layers {
            let part = |part: &str| {
                let name = format!("unet.{}.lora_{part}.weight", layer.name);
                let found = state.arrays.get(&name).map(|array| array.values().to_vec());
                found.ok_or_else(|| {
                    Error::option(&layer.name, format!("what it has trained lacks `{name}`"))
                })
            };
            let (down, up) = (part("down")?, part("up")?);
            let name = format!("{}.weight", layer.name);
            let (shape, base) = base_weight(&self.runner.base.checkpoint.unet, &name)?;
            let mut values =
                self.runner.unet.find(&name).map_or(base, |view| view.to_f32(0..view.len()));
            let matrix = |values: &[f32], rows: usize, columns: usize| {
                faer::Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]))
            };
            let change = matrix(&up, layer.out, layer.rank) * matrix(&down, layer.rank, layer.into);
            for (i, row) in values.chunks_exact_mut(layer.into.max(1)).enumerate() {
                for (j, w) in row.iter_mut().enumerate() {
                    *w = (f64::from(*w) + change[(i, j)]) as f32;
                }
            }
            all.push(Weight { name, shape, values });
        }
        Ok(all)
    }
}

/// Where `count` prompts of the `prompts` of `tokens` hold, by their shares of each size of feature
/// map.
fn tables(shares: &[Vec<f32>], count: usize, prompts: usize, tokens: usize) -> Vec<RegionTables> {
    let of_size = |shares: &Vec<f32>| {
        let places = shares.chunks_exact(count.max(1));
        let rest = std::iter::repeat_n(0.0, prompts - count.min(prompts));
        let padded =
            places.flat_map(|row| row.iter().copied().chain(rest.clone())).collect::<Vec<_>>();
        RegionTables::new(&padded, &vec![tokens; prompts])
    };
    shares.iter().map(of_size).collect()
}

fn of_scene(scene: &Scene, errors: [f64; 2]) -> SceneReport {
    let concepts = scene.members.iter().map(|member| member.name.clone()).collect();
    SceneReport { concepts, errors }
}

/// Rises, then falls along a cosine.
fn rate(most: f32, done: usize, of: usize) -> f32 {
    let rise = ((done + 1) as f64 / WARM_UP.min(of) as f64).min(1.0);
    let fall = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done as f64 / of as f64));
    (f64::from(most) * rise * fall) as f32
}
