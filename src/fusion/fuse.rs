//! The fusion, stage by stage.
mod growth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::backend::Device;
use crate::checkpoint::{self, Checkpoint, Network, TensorFile, TensorView};
use crate::elsewhere::{Elsewhere, Nowhere};
use crate::output;

use super::base::{Base, FusedWeights, Runner, base_weight};
use super::collect::RecordedSubject;
use super::distillation::{self, Student};
use super::groups::{Stage, StageLayers};
use super::members::{self, ConceptToFuse, FusedConcept, hash_of, hex};
use super::planning;
use super::predictions::{Predicted, Predictions};
use super::report::{Conflict, Report, SiteReport, StageReport};
use super::scenes::{self, Scene};
use super::settings::{Recorded, Settings};
use super::solve::{self, Change, Measures, RidgeChoice, Solver, Towards};
use super::spatial::PictureShape;
use super::store::{self, Found, Origin, SiteGroup, Store};
use super::teachers::{Learnt, Teacher};
use super::{Error, Result, folder, overlap, replace, spatial};
use crate::watch::{Parts, Progress, Watch, heed};
pub use growth::GrowthCost;

/// What is asked for besides [`Settings`].
#[derive(Clone, Debug)]
pub struct Order {
    /// What is fused. The result does not depend on their order.
    pub concepts: Vec<ConceptToFuse>,
    /// The fused model; none: statistics only.
    pub out: Option<PathBuf>,
    /// An existing folder at `out` is replaced.
    pub replace: bool,
    /// Where statistics are kept, found and, if they are there already, not taken again. None:
    /// beside `out`, until it is done.
    pub statistics: Option<PathBuf>,
    /// What stands behind that folder: what is recorded is handed on there, and what others have
    /// recorded is brought from there.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Of the statistics of the last stage, take only those of every n-th concept, from the k-th on
    /// (counted from 1).
    pub part: Option<(usize, usize)>,
    /// The keys of concepts, batch by batch, as they came into a model that grows; each batch is
    /// added to what those before came to, and concepts that are in none come last. Empty: all are
    /// fused together. Heeded with the exact solver, where statistics are kept.
    pub history: Vec<Vec<String>>,
    /// Statistics that were taken when earlier stages had fused other concepts are good enough.
    pub accept_stale: bool,
}

impl Order {
    /// Of `concepts` to a new folder `out`, from statistics that are all taken afresh.
    pub fn new(concepts: Vec<ConceptToFuse>, out: PathBuf) -> Order {
        Order {
            concepts,
            out: Some(out),
            replace: false,
            statistics: None,
            elsewhere: Arc::new(Nowhere),
            part: None,
            history: Vec::new(),
            accept_stale: false,
        }
    }
}

/// The result of a fusion.
#[derive(Clone, Debug)]
pub struct Fused {
    /// What went in, and what was lost.
    pub report: Report,
    /// None: only statistics were made.
    pub path: Option<PathBuf>,
}

/// Fuses. Interrupted, cancelled too, and started again with the same statistics folder (or the
/// same output), it goes on where it was, to the same bytes.
///
/// `watch` is told of the stages `hash`, of the model's weights where it is not remembered; `text`,
/// `text_2`, `cross` and `spatial` ([`Stage::name`]), while the inputs of a concept, the subject, are
/// recorded; `solve`, the layers of a stage; `predict`, what a concept's own model predicts, or
/// those of a scene together; `distill`, what the fused one learns of that; and `write`.
///
/// # Errors
/// Concepts that do not go together, named; whatever the device and the file system say;
/// [`Error::Cancelled`]: then nothing stands at the output.
pub fn fuse(
    gpu: &Device,
    checkpoint: &Checkpoint,
    order: Order,
    settings: &Settings,
    watch: &mut Watch,
) -> Result<Fused> {
    settings.check()?;
    let base = Base::open(checkpoint, watch)?;
    let members = members::members(order.concepts, &base, settings)?;
    if members.is_empty() {
        return Err(Error::option("concepts", "there are none to fuse"));
    }
    check_part(order.part)?;
    let working = match (&order.statistics, &order.out) {
        (Some(folder), _) => folder.clone(),
        (None, Some(out)) => replace::beside(out, replace::WORKING),
        (None, None) => return Err(Error::option("statistics", "say where they are to go")),
    };
    if let Some(out) = &order.out {
        replace::check_output(out, order.replace)?;
    }
    let free = if order.statistics.is_none() {
        output::check_whole_folder(&working)
    } else {
        output::check_folder(&working)
    };
    free.map_err(Error::io(&working, "write"))?;
    let stages_layers: Vec<(Stage, StageLayers)> = Stage::ALL
        .into_iter()
        .map(|stage| Ok((stage, StageLayers::of(stage, &base, &members)?)))
        .collect::<Result<_>>()?;
    let runner = Runner {
        gpu,
        base: &base,
        precision: settings.precision,
        memory: settings.memory,
        text: FusedWeights::default(),
        text_2: FusedWeights::default(),
        unet: FusedWeights::default(),
    };
    if settings.memory.is_some() {
        // What cannot be kept is told before the work.
        planning::planned(&runner, &members, &stages_layers, settings)?;
    }
    let store = Store::open(&working, Arc::clone(&order.elsewhere))?;
    for member in &members {
        store.put_concept(member)?;
    }
    let recorded = Recorded::from(settings);
    let keeps = order.out.is_some()
        && order.statistics.is_some()
        && matches!(settings.solver, Solver::Exact(_));
    let mut report = Report::new(&base, &members, settings);
    let mut batches = Vec::new();
    if keeps && !order.history.is_empty() {
        batches = growth::batches(&order.history, &members);
        if batches.len() > 1 && !same_layers(&base, &batches, &stages_layers)? {
            report.notes.push(
                "what is added changes other layers than the model's concepts do: all are fused \
                    anew"
                    .into(),
            );
            batches.clear();
        }
    }
    if batches.len() > 1 {
        let keys = |batch: &Vec<FusedConcept>| batch.iter().map(|m| m.key.clone()).collect();
        report.history = batches.iter().map(keys).collect();
    }
    let first = if batches.len() > 1 { &batches[0][..] } else { &members[..] };
    let with_layers: Vec<(Stage, StageLayers)> =
        stages_layers.iter().filter(|(_, layout)| !layout.sites.is_empty()).cloned().collect();
    let mut fusion = Fusion {
        runner,
        members: first,
        settings,
        recorded,
        store,
        working: working.clone(),
        earlier: String::new(),
        part: order.part.filter(|_| order.out.is_none()),
        accept_stale: order.accept_stale,
        only_statistics: order.out.is_none(),
        moved: Vec::new(),
        report,
        pairs: Vec::new(),
        cross: FusedWeights::default(),
        sums: growth::Sums::default(),
        keeps,
        ridge_of: BTreeMap::new(),
        all: members.iter().map(|member| member.key.clone()).collect(),
        watch,
    };
    if let Solver::Merge(merge) = settings.solver
        && merge.way == solve::Way::Sum
    {
        fusion.report.notes.extend(overlap::of_sums(&members));
    }
    let mut done = 0;
    if batches.len() > 1 {
        done = fusion.restore_state(&batches, &with_layers)?;
    }
    if done == 0 {
        for (stage, layout) in &with_layers {
            fusion.stage(*stage, layout)?;
        }
        let in_unet: Vec<&StageLayers> = stages_layers
            .iter()
            .filter(|(stage, _)| !stage.is_text())
            .map(|(_, layout)| layout)
            .collect();
        fusion.distil(&in_unet)?;
        if keeps {
            let whole = [first.to_vec()];
            fusion.keep_state(&whole, &with_layers)?;
        }
        done = 1;
    }
    for count in done..batches.len() {
        fusion.grow(&batches[..count], &batches[count], &with_layers)?;
        fusion.keep_state(&batches[..=count], &with_layers)?;
    }
    let Fusion { runner, mut report, store, watch, .. } = fusion;
    let path = match &order.out {
        None => None,
        Some(out) => {
            let mut tell = |done, of| heed(watch(Progress::new("write", done, of)));
            let notes = folder::write(out, order.replace, &runner, &members, &report, &mut tell)?;
            report.notes.extend(notes);
            if order.statistics.is_none() {
                report.notes.extend(store.remove()?);
            }
            Some(out.clone())
        }
    };
    Ok(Fused { report, path })
}

/// Whether the first batch changes all layers that any concept does.
fn same_layers(
    base: &Base,
    batches: &[Vec<FusedConcept>],
    all: &[(Stage, StageLayers)],
) -> Result<bool> {
    let Some(first) = batches.first() else { return Ok(false) };
    for (stage, layout) in all {
        if StageLayers::of(*stage, base, first)? != *layout {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_part(part: Option<(usize, usize)>) -> Result<()> {
    match part {
        Some((k, n)) if k == 0 || k > n => {
            Err(Error::option("part", format!("{k}/{n}: expected 1/{n} to {n}/{n}")))
        }
        _ => Ok(()),
    }
}

/// The most concepts of which every pair is compared: of more, that would take longer than fusing.
const MOST_COMPARED: usize = 32;
/// As the watch is told of the stage in which layers are solved for.
const SOLVE: &str = "solve";

struct Fusion<'a, 'w> {
    runner: Runner<'a>,
    members: &'a [FusedConcept],
    settings: &'a Settings,
    recorded: Recorded,
    store: Store,
    working: PathBuf,
    /// Hash of what earlier stages fused.
    earlier: String,
    part: Option<(usize, usize)>,
    accept_stale: bool,
    only_statistics: bool,
    /// Of the stage under way: how far inputs are from those of another fusion.
    moved: Vec<(String, f64)>,
    report: Report,
    /// Of the UNet's stages so far: every pair of concepts.
    pairs: Vec<solve::Pair>,
    /// Keys and values alone, of what came before.
    cross: FusedWeights,
    /// What all concepts so far read.
    sums: growth::Sums,
    /// What the model comes to is kept, so that it can grow.
    keeps: bool,
    /// The ridges that stages were solved with, by their names.
    ridge_of: BTreeMap<String, f64>,
    /// The keys of all concepts of the report.
    all: Vec<String>,
    watch: &'a mut Watch<'w>,
}

impl Fusion<'_, '_> {
    fn stage(&mut self, stage: Stage, layout: &StageLayers) -> Result<()> {
        let start = Instant::now();
        if !self.settings.solver.reads_inputs() {
            return self.solve(
                stage,
                layout,
                [&[], &[]],
                &[None, None],
                Vec::new(),
                start.elapsed(),
            );
        }
        let last = stage == Stage::Spatial;
        if last {
            let layers = |member: &&FusedConcept| member.updates.of(Network::UNet).layers.len();
            if let Some(member) = self.members.iter().max_by_key(layers) {
                let set = RecordedSubject::concept(member, self.settings).of(Network::UNet);
                let shape = PictureShape {
                    batch: 1,
                    size: self.runner.size(self.settings),
                    steps: 1,
                    guidance: self.runner.guidance(self.settings),
                };
                self.report.device_bytes =
                    spatial::planned_bytes(&self.runner, layout, set.as_ref(), shape)?;
                let on_device = spatial::device_bytes(layout, self.runner.gpu.max_binding());
                self.report.statistics_bytes = on_device + spatial::host_bytes(layout);
            }
        }
        let members = self.members;
        let mut files = Vec::with_capacity(members.len());
        let mut aside = Vec::new();
        let mut stale = Vec::new();
        for (index, member) in members.iter().enumerate() {
            if self.part.is_some_and(|(k, n)| last && index % n != k - 1) {
                continue;
            }
            let subject = RecordedSubject::concept(member, self.settings);
            let found = self.statistics(stage, layout, &subject)?;
            if found.stale {
                stale.push(member.name.clone());
            }
            files.push(found.file);
            if let Some(subject) = RecordedSubject::held_out(member, self.settings) {
                aside.push(self.statistics(stage, layout, &subject)?.file);
            }
        }
        let mut keep = [None, None];
        let keeps_here = self.part.is_none_or(|(k, _)| !last || k == 1);
        for (held_out, slot) in [false, true].into_iter().zip(&mut keep) {
            if let Some(subject) =
                RecordedSubject::keep(self.settings, held_out).filter(|_| keeps_here)
            {
                *slot = Some(self.statistics(stage, layout, &subject)?.file);
            }
        }
        if last && self.only_statistics {
            return Ok(());
        }
        let taken = start.elapsed();
        if self.keeps {
            let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
            self.sums.add(stage, layout, &files, &weights)?;
        }
        self.solve(stage, layout, [&files, &aside], &keep, stale, taken)
    }

    /// From the store, or taken now.
    fn statistics(
        &mut self,
        stage: Stage,
        layout: &StageLayers,
        subject: &RecordedSubject,
    ) -> Result<Found> {
        let recorded = match self.settings.aside() {
            Some(aside) if subject.seed == aside.seed => Recorded::from(&aside),
            _ => self.recorded.clone(),
        };
        let base = self.runner.base.hash;
        let origin = Origin::new(stage.name(), &subject.key, base, recorded, &self.earlier);
        // What is quickly taken is not worth being stale.
        let accept_stale = self.accept_stale && stage == Stage::Spatial;
        let before = self.store.find(&origin, layout)?;
        let before = match before {
            Some(found) if !found.stale || accept_stale => return Ok(found),
            other => other,
        };
        let watch = &mut *self.watch;
        let mut tell = |done, of| {
            let at = Progress::new(stage.name(), done, of);
            heed(watch(Progress { subject: &subject.name, ..at }))
        };
        let statistics = self.runner.collect(stage, layout, subject, self.settings, &mut tell)?;
        if let Some(before) = before {
            let moved = store::moved(&before.file, layout, &statistics);
            self.moved.extend(moved.map(|moved| (subject.name.clone(), moved)));
        }
        Ok(Found { file: self.store.put(&origin, layout, &statistics)?, stale: false })
    }

    fn solve(
        &mut self,
        stage: Stage,
        layout: &StageLayers,
        [files, held_out]: [&[TensorFile]; 2],
        keep: &[Option<TensorFile>; 2],
        stale: Vec<String>,
        taken: std::time::Duration,
    ) -> Result<()> {
        let weights: Vec<f64> = self.members.iter().map(|member| member.weight).collect();
        let groups: Vec<SiteGroup> = layout
            .sites
            .iter()
            .map(|site| SiteGroup {
                site,
                stage,
                members: self.members,
                weights: &weights,
                files,
                held_out,
                keep,
            })
            .collect();
        let start = Instant::now();
        let solver = for_stage(self.settings.solver, stage);
        let ridge = match solver.exact().copied() {
            Some(exact) => match exact.ridge {
                Some(ridge) => RidgeChoice::given(ridge, exact.towards.unwrap_or_default()),
                None => {
                    let all: Vec<&dyn solve::Group> =
                        groups.iter().map(|group| group as &dyn solve::Group).collect();
                    let (watch, of) = (&mut *self.watch, groups.len());
                    solve::choose(&all, exact, &mut |_| watch(Progress::new(SOLVE, 0, of)))?
                }
            },
            _ => RidgeChoice::given(0.0, Towards::Base),
        };
        let mut solving = start.elapsed();
        let component = self.runner.base.component(stage.network());
        let mut fused: Vec<(String, TensorView)> = Vec::new();
        let mut sites = Vec::new();
        for (done, group) in groups.iter().enumerate() {
            let watch = &mut *self.watch;
            let mut tell = |_: Progress| watch(Progress::new(SOLVE, done, groups.len()));
            heed(tell(Progress::new(SOLVE, 0, 1)))?;
            let start = Instant::now();
            let solution = solve::solve(group, solver, (ridge.ridge, ridge.towards), &mut tell)?;
            solving += start.elapsed();
            let average = solve::solve(group, Solver::Average, (0.0, Towards::Base), &mut tell)?;
            let mut changes = Vec::new();
            for (layer, change) in group.site.layers.iter().zip(&solution.changes) {
                let name = format!("{}.weight", layer.name);
                let (shape, base) = base_weight(component, &name)?;
                let norm = base.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>().sqrt();
                changes.push(solve::norm(change) / norm.max(f64::MIN_POSITIVE));
                let view = TensorView::new(checkpoint::DType::F32, shape, applied(&base, change));
                fused.extend(view.map(|view| (name, view)));
            }
            sites.push(SiteReport {
                measures: measured(group, &solution.changes)?,
                averaged: measured(group, &average.changes)?,
                conditioning: solution.conditioning,
                objective: solution.objective,
                changes,
            });
        }
        self.compare(stage, &groups)?;
        heed((self.watch)(Progress::new(SOLVE, groups.len(), groups.len())))?;
        let path = self.working.join(format!("{}-{}.safetensors", store::WEIGHTS, stage.name()));
        checkpoint::write(&path, &fused, &BTreeMap::new())?;
        drop(fused);
        self.runner.fused_mut(stage.network()).add(&path)?;
        let mut sha = Sha256::new();
        sha.update(&self.earlier);
        sha.update(hash_of(&path)?);
        self.earlier = hex(&sha.finalize());
        let moved = std::mem::take(&mut self.moved);
        self.report.stages.push(StageReport {
            stage,
            moved,
            ridge,
            sites,
            stale,
            seconds: [taken.as_secs_f64(), solving.as_secs_f64()],
        });
        Ok(())
    }
}

impl Fusion<'_, '_> {
    /// Adds to what is known of the concepts' conflicts what a stage of the UNet tells.
    fn compare(&mut self, stage: Stage, groups: &[SiteGroup]) -> Result<()> {
        let taken = groups.iter().all(|group| group.files.len() == self.members.len());
        if stage.is_text() || !taken || !(2..=MOST_COMPARED).contains(&self.members.len()) {
            return Ok(());
        }
        let groups: Vec<&dyn solve::Group> =
            groups.iter().map(|group| group as &dyn solve::Group).collect();
        let found = solve::pairs(&groups, self.watch)?;
        if self.pairs.is_empty() {
            self.pairs = vec![solve::Pair::default(); found.len()];
        }
        for (pair, more) in self.pairs.iter_mut().zip(found) {
            pair.missed += more.missed;
            pair.wanted += more.wanted;
            // The last stage's: most layers are there.
            pair.alike = more.alike;
        }
        let names = self.members.iter().enumerate();
        let named = names.flat_map(|(at, member)| {
            let others = self.members.iter().skip(at + 1);
            others.map(move |other| [member.name.clone(), other.name.clone()])
        });
        let mut conflicts: Vec<Conflict> = named
            .zip(&self.pairs)
            .map(|(concepts, pair)| Conflict {
                concepts,
                predicted: pair.missed / pair.wanted.max(f64::MIN_POSITIVE),
                alike: pair.alike,
            })
            .collect();
        conflicts.sort_by(|a, b| b.predicted.total_cmp(&a.predicted));
        self.report.conflicts = conflicts;
        Ok(())
    }

    /// Learns what the concepts' own models predict; one alone is answered already.
    fn distil(&mut self, stages_layers: &[&StageLayers]) -> Result<()> {
        let settings = self.settings.distillation;
        let nothing = settings.pictures == 0 || self.members.len() < 2 && !self.only_statistics;
        if nothing || stages_layers.iter().all(|layout| layout.sites.is_empty()) {
            return Ok(());
        }
        if let Some(problem) = distillation::refusal(&self.runner) {
            self.report.notes.push(format!("distillation is left out: {problem}"));
            return Ok(());
        }
        let start = Instant::now();
        let members = self.members;
        let mut teachers = Vec::with_capacity(members.len() + 1);
        for (index, member) in members.iter().enumerate() {
            if self.part.is_none_or(|(k, n)| index % n == k - 1) {
                let subject =
                    RecordedSubject::concept(member, self.settings).distilled(self.settings);
                teachers.push(self.teacher(subject, member.weight)?);
            }
        }
        let keep = RecordedSubject::keep(self.settings, false)
            .filter(|_| self.part.is_none_or(|(k, _)| k == 1));
        if let Some(subject) = keep.map(|subject| subject.distilled(self.settings)) {
            teachers.push(self.teacher(subject, 1.0)?);
        }
        let all: Vec<&FusedConcept> = members.iter().collect();
        for (index, scene) in scenes::scenes(&all, self.settings).into_iter().enumerate() {
            if self.part.is_some_and(|(k, n)| index % n != k - 1) {
                continue;
            }
            teachers.push(self.scene_teacher(scene, 1.0)?);
        }
        if self.only_statistics {
            return Ok(());
        }
        self.add_one_prompts(&mut teachers)?;
        self.learn_from(&teachers, stages_layers, start)
    }

    /// Learns what these predict.
    fn learn_from(
        &mut self,
        teachers: &[Teacher],
        stages_layers: &[&StageLayers],
        start: Instant,
    ) -> Result<()> {
        let recorded = start.elapsed();
        let scratch = tempfile::Builder::new().prefix(store::SCRATCH).tempdir_in(&self.working);
        let scratch = scratch.map_err(Error::io(&self.working, "write to the folder"))?;
        let places = distillation::Places { working: &self.working, scratch: scratch.path() };
        let mut student = Student::new(
            &self.runner,
            self.settings,
            teachers,
            stages_layers,
            &places,
            &self.earlier,
        )?;
        let watch = &mut *self.watch;
        let mut distilled =
            student.run(&mut |done, of| heed(watch(Progress::new("distill", done, of))))?;
        drop(student);
        distilled.report.seconds[0] = recorded.as_secs_f64();
        if distilled.report.used {
            let path = self.working.join(format!("{}-distilled.safetensors", store::WEIGHTS));
            checkpoint::write(&path, &distilled.tensors(), &BTreeMap::new())?;
            self.runner.unet.put_before(&path)?;
        } else {
            self.report.notes.push(
                "distillation made nothing better and is left out; a smaller \
                    --distillation-rate may help"
                    .into(),
            );
        }
        places.clear()?;
        self.report.distillation = Some(distilled.report);
        Ok(())
    }

    /// All that a subject's own model predicts.
    fn teacher<'s>(&mut self, subject: RecordedSubject<'s>, weight: f64) -> Result<Teacher<'s>> {
        let count = subject.sampled.len() * subject.seeds as usize * subject.steps;
        let (name, key) = (subject.name.clone(), subject.key.clone());
        let predicted = self.predicted(&name, &key, subject.seeds, count, |runner, s, tell| {
            Predictions::of(runner, &subject, s, tell)
        })?;
        Ok(Teacher { learnt: Learnt::Subject(subject), weight, predicted, most: usize::MAX })
    }

    /// The same of a scene, each of whose predictions counts as much as one of a concept that
    /// weighs `weight`.
    fn scene_teacher<'s>(&mut self, scene: Scene<'s>, weight: f64) -> Result<Teacher<'s>> {
        let (name, key, count) = (scene.name.clone(), scene.key.clone(), scene.count());
        let predicted = self.predicted(&name, &key, scene.seeds, count, |runner, s, tell| {
            Predictions::of_scene(runner, &scene, s, tell)
        })?;
        let weight = weight * scene.seeds as f64 / self.settings.distillation.pictures as f64;
        Ok(Teacher { learnt: Learnt::Scene(scene), weight, predicted, most: usize::MAX })
    }

    /// Beside scenes in regions, the same in one prompt: what was predicted of them is there.
    fn add_one_prompts(&mut self, teachers: &mut Vec<Teacher>) -> Result<()> {
        let distillation = self.settings.distillation;
        if distillation.one_prompt == 0 {
            return Ok(());
        }
        let mut added = Vec::new();
        for teacher in teachers.iter() {
            let Learnt::Scene(scene) = &teacher.learnt else { continue };
            let again = self.scene_teacher(scene.clone(), 1.0)?;
            let pictures = distillation.one_prompt.min(scene.seeds);
            let share = pictures as f64 / scene.seeds.max(1) as f64;
            let halves = again.halves().len() as f64;
            added.push(Teacher {
                learnt: Learnt::OnePrompt(scene.clone()),
                weight: teacher.weight * share / halves,
                most: scene.lessons_in_one_prompt(pictures),
                predicted: again.predicted,
            });
        }
        teachers.append(&mut added);
        Ok(())
    }

    /// From the store, or made now. They depend on nothing that was fused.
    fn predicted(
        &mut self,
        name: &str,
        key: &str,
        seeds: u64,
        count: usize,
        make: impl FnOnce(&Runner, &Settings, &mut Parts) -> Result<Predictions>,
    ) -> Result<Predicted> {
        let recorded = Recorded { seeds, ..self.recorded.clone() };
        let origin = Origin::new(store::PREDICTIONS, key, self.runner.base.hash, recorded, "");
        let expected = |file: TensorFile, runner: &Runner| {
            Predicted::expected(file, count, runner, self.settings)
        };
        let found = self.store.find_predictions(&origin)?;
        if let Some(found) = found.and_then(|file| expected(file, &self.runner)) {
            return Ok(found);
        }
        let none = FusedWeights::default;
        let own = Runner { text: none(), text_2: none(), unet: none(), ..self.runner };
        let watch = &mut *self.watch;
        let mut tell = |done, of| {
            let at = Progress::new("predict", done, of);
            heed(watch(Progress { subject: name, ..at }))
        };
        let made = make(&own, self.settings, &mut tell)?;
        let file = self.store.put_predictions(&origin, &made)?;
        let path = file.path().to_path_buf();
        expected(file, &self.runner).ok_or_else(|| {
            let problem = format!(
                "what {name} predicts has values that are no numbers; its weights or scales \
                    may be too large"
            );
            Error::file(&path, problem)
        })
    }
}

/// Nothing where no statistics were taken.
fn measured(group: &SiteGroup, changes: &[Change]) -> Result<Measures> {
    if group.files.is_empty() { Ok(Measures::default()) } else { Measures::of(group, changes) }
}

/// Published iterations differ by stage.
fn for_stage(solver: Solver, stage: Stage) -> Solver {
    match solver {
        Solver::Lbfgs(settings) if settings.iterations == 0 => {
            let [text, rest] = super::settings::PUBLISHED_ITERATIONS;
            Solver::Lbfgs(solve::Lbfgs {
                iterations: if stage == Stage::Spatial { rest } else { text },
            })
        }
        other => other,
    }
}

/// The base weight with a change, as the bytes of f32.
fn applied(base: &[f32], change: &Change) -> Vec<u8> {
    let whole = change.whole();
    let columns = whole.ncols().max(1);
    let element =
        |(at, w): (usize, &f32)| (f64::from(*w) + whole[(at / columns, at % columns)]) as f32;
    base.iter().enumerate().map(element).flat_map(f32::to_le_bytes).collect()
}
