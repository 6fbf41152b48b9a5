//! The fusion, stage by stage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::backend::Device;
use crate::checkpoint::{self, Checkpoint, Network, TensorFile, TensorView};
use crate::output;

use super::base::{Base, FusedWeights, Runner, base_weight};
use super::collect::RecordedSubject;
use super::distillation::{self, Student, Teacher};
use super::groups::{Stage, StageLayers};
use super::members::{self, ConceptToFuse, FusedConcept, hash_of, hex};
use super::planning;
use super::predictions::{Predicted, Predictions};
use super::report::{Report, SiteReport, StageReport};
use super::settings::{Recorded, Settings};
use super::solve::{self, Change, Measures, RidgeChoice, Solver, Towards};
use super::spatial::PictureShape;
use super::store::{self, Found, Origin, SiteGroup, Store};
use super::{Error, Result, folder, replace, spatial};
use crate::watch::{Progress, Watch, heed};

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
    /// Of the statistics of the last stage, take only those of every n-th concept, from the k-th on
    /// (counted from 1).
    pub part: Option<(usize, usize)>,
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
            part: None,
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
/// recorded; `solve`, the layers of a stage; `predict`, what a concept's own model predicts;
/// `distill`, what the fused one learns of that; and `write`.
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
    let store = Store::open(&working)?;
    for member in &members {
        store.put_concept(member)?;
    }
    let recorded = Recorded::from(settings);
    let mut fusion = Fusion {
        runner,
        members: &members,
        settings,
        recorded,
        store,
        working: working.clone(),
        earlier: String::new(),
        part: order.part.filter(|_| order.out.is_none()),
        accept_stale: order.accept_stale,
        only_statistics: order.out.is_none(),
        moved: Vec::new(),
        report: Report::new(&base, &members, settings),
        watch,
    };
    for (stage, layout) in &stages_layers {
        if !layout.sites.is_empty() {
            fusion.stage(*stage, layout)?;
        }
    }
    let in_unet: Vec<&StageLayers> = stages_layers
        .iter()
        .filter(|(stage, _)| !stage.is_text())
        .map(|(_, layout)| layout)
        .collect();
    fusion.distil(&in_unet)?;
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

fn check_part(part: Option<(usize, usize)>) -> Result<()> {
    match part {
        Some((k, n)) if k == 0 || k > n => {
            Err(Error::option("part", format!("{k}/{n}: expected 1/{n} to {n}/{n}")))
        }
        _ => Ok(()),
    }
}

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
        let origin = Origin::new(stage.name(), subject, base, recorded, &self.earlier);
        // What is quickly taken is not worth being stale.
        let accept_stale = self.accept_stale && stage == Stage::Spatial;
        let before = self.store.find(&origin, layout);
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
        let ridge = match solver {
            Solver::Exact(exact) => match exact.ridge {
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
                changes,
            });
        }
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
                let predicted = self.predictions(&subject)?;
                teachers.push(Teacher { subject, weight: member.weight, predicted });
            }
        }
        let keep = RecordedSubject::keep(self.settings, false)
            .filter(|_| self.part.is_none_or(|(k, _)| k == 1));
        if let Some(subject) = keep.map(|subject| subject.distilled(self.settings)) {
            let predicted = self.predictions(&subject)?;
            teachers.push(Teacher { subject, weight: 1.0, predicted });
        }
        if self.only_statistics {
            return Ok(());
        }
        let recorded = start.elapsed();
        let scratch = tempfile::Builder::new().prefix(store::SCRATCH).tempdir_in(&self.working);
        let scratch = scratch.map_err(Error::io(&self.working, "write to the folder"))?;
        let places = distillation::Places { working: &self.working, scratch: scratch.path() };
        let mut student = Student::new(
            &self.runner,
            settings,
            self.settings.seed,
            &teachers,
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

    /// From the store, or made now. They depend on nothing that was fused.
    fn predictions(&mut self, subject: &RecordedSubject) -> Result<Predicted> {
        let recorded = Recorded { seeds: subject.seeds, ..self.recorded.clone() };
        let origin = Origin::new(store::PREDICTIONS, subject, self.runner.base.hash, recorded, "");
        let expected = |file: TensorFile, runner: &Runner| {
            Predicted::expected(file, subject, runner, self.settings)
        };
        if let Some(found) =
            self.store.find_predictions(&origin).and_then(|file| expected(file, &self.runner))
        {
            return Ok(found);
        }
        let none = FusedWeights::default;
        let own = Runner { text: none(), text_2: none(), unet: none(), ..self.runner };
        let watch = &mut *self.watch;
        let mut tell = |done, of| {
            let at = Progress::new("predict", done, of);
            heed(watch(Progress { subject: &subject.name, ..at }))
        };
        let made = Predictions::of(&own, subject, self.settings, &mut tell)?;
        let file = self.store.put_predictions(&origin, &made)?;
        let path = file.path().to_path_buf();
        expected(file, &self.runner).ok_or_else(|| {
            let problem = format!(
                "what {} predicts has values that are no numbers; its weights or scales \
                    may be too large",
                subject.name
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
