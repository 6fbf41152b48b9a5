//! A tuning run: from settings and a model to a concept file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::budget::{self, Fitted, Planned};
use super::config::Settings;
use super::draws::{Draws, Purpose};
use super::error::{Error, Result};
use super::examples::Examples;
use super::folder::{self, Depth};
use super::orthogonal;
use super::pool::Encoding;
use super::prior::{self, ClassPictures};
use super::saved::{About, Places, Saved};
use super::sheet;
use super::step::{
    self, AdamW, AttentionLoss, Method, Models, PlannedBytes, PriorLoss, Rates, State, StepConfig,
    TrainingStep,
};
use super::transform::Transform;
use super::words::{Words, initial_rows};
use crate::backend::Device;
use crate::checkpoint::{self, Checkpoint};
use crate::concept::{Concept, ModelHash};
use crate::numbers::counted;
use crate::pipeline::Pipeline;
use crate::pipeline::recipe::hex;
use crate::watch::{Progress, Watch, heed, unwatched};

/// Sources are kept at no more than this times the size that is tuned at.
const MOST_DETAIL: f64 = 2.0;

/// Whether a run begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the beginning; neither a run that stands there, finished or not, nor another file is
    /// overwritten.
    New,
    /// At the beginning, whatever is there.
    Again,
    /// Where it was saved last.
    Resume,
}

/// What a run tells while it runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An update is done.
    Update(UpdateDone),
    /// Class pictures are being made, before the first update: pictures done, of all.
    Class(Progress<'a>),
    /// A sheet is being made: pictures done, of all.
    Sheet(Progress<'a>),
    /// A file is there.
    Wrote(&'a Path),
}

/// An update of the weights, all batches of an accumulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateDone {
    /// Updates done, of all.
    pub done: u64,
    /// All updates.
    pub of: u64,
    /// Mean over the accumulation, the regularisation's part included.
    pub loss: f32,
    /// Learning rates that it was made with.
    pub rates: Rates,
    /// Mean norm of the words' embeddings after it.
    pub norm: f32,
    /// The embeddings have reached their limit, and stand still.
    pub embeddings_stopped: bool,
}

/// What [`Run::run`] takes: as [`Watch`](crate::Watch), with all that training tells.
pub type RunWatch<'w> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'w;

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The concept file.
    pub concept: PathBuf,
    /// The picture of the loss.
    pub curve: PathBuf,
    /// The last sheet; none where none was wanted.
    pub sheet: Option<PathBuf>,
    /// Mean loss of the first and the last tenth of the run.
    pub losses: [f32; 2],
    /// Mean norm of the words' embeddings.
    pub norm: f32,
    /// Time of the steps, and of the sheets; of this process alone.
    pub steps_took: Duration,
    /// Sheets and steps take turns.
    pub sheets_took: Duration,
    /// Time that making class pictures took.
    pub class_took: Duration,
    /// Updates that this process made.
    pub steps: u64,
}

/// A run, ready to go.
pub struct Run {
    settings: Settings,
    gpu: Device,
    base: ModelHash,
    encoder: Pipeline,
    examples: Examples,
    /// Pictures of the class that the model is to make first.
    class: Option<ClassPictures>,
    step: TrainingStep,
    /// Parts in which each batch is taken.
    split: usize,
    /// Of the tiles in which pictures are encoded.
    tile: Option<usize>,
    planned: Planned,
    about: About,
    places: Places,
    /// Width and height in pixels.
    size: [usize; 2],
    history: Vec<[f32; 3]>,
    /// The update that was saved last.
    saved: Option<u64>,
}

impl Run {
    /// Checks all that a run is made from, plans it, and reads the state to go on from. `tell`
    /// hears what the user should know of it, also before an error.
    ///
    /// # Errors
    /// [`Error::Unfit`] with everything that has to be put right; a state that does not belong to
    /// the run; a model that cannot be tuned.
    pub fn prepare(
        gpu: &Device,
        checkpoint: &Checkpoint,
        settings: &Settings,
        begin: Begin,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Run> {
        Run::prepare_watched(gpu, checkpoint, settings, begin, tell, &mut unwatched)
    }

    /// As [`Run::prepare`], which reads all pictures, and all of the model where its hash is not
    /// remembered; `watch` is told of the stages `pictures` (how many there are is not known before)
    /// and `hash`.
    ///
    /// # Errors
    /// Those of [`Run::prepare`]; [`Error::Cancelled`].
    pub fn prepare_watched(
        gpu: &Device,
        checkpoint: &Checkpoint,
        settings: &Settings,
        begin: Begin,
        tell: &mut dyn FnMut(&str),
        watch: &mut Watch,
    ) -> Result<Run> {
        let places = Places::of(&settings.output);
        places.check()?;
        if begin == Begin::New {
            refuse_to_replace(&places)?;
        }
        let encoder = Pipeline::load(gpu, checkpoint, settings.precision)?;
        let models = Models::of(encoder.model())?;
        let (size, mut problems) = size(settings, &encoder);
        let mut checked = folder::check_with(settings, size, Depth::Pixels, &mut |done| {
            heed(watch(Progress::new("pictures", done, done + 1)))
        })?;
        checked.remarks.iter().for_each(|remark| tell(remark));
        problems.append(&mut checked.problems);
        let own_class = prior::own_folder(settings)
            .map(|folder| folder::check_class(&folder, settings, size, Depth::Pixels));
        if let Some(own) = &own_class {
            own.remarks.iter().for_each(|remark| tell(remark));
            problems.extend_from_slice(&own.problems);
        }
        let mut config = step_config(settings, size, &encoder);
        let copies = config.rows_per_word(&models.unet);
        let rows = initial_rows(settings, encoder.model(), copies);
        let rows = rows.map_err(|mut wrong| problems.append(&mut wrong)).ok();
        let words = Words::of(encoder.model(), &settings.words, copies);
        let words = words.map_err(|error| problems.push(error.to_string())).ok();
        let (Some(rows), Some(words), true) = (rows, words, problems.is_empty()) else {
            return Err(Error::Unfit(problems));
        };
        config.tokens = words.length();
        let found: Vec<folder::Found> = checked
            .found
            .into_iter()
            .map(|found| found.shrunk(size, MOST_DETAIL))
            .collect::<Result<_, _>>()?;
        let transform = Transform {
            width: size[0],
            height: size[1],
            crop: settings.crop,
            scale: settings.scale,
        };
        let latent = [config.size[0], config.size[1], encoder.latent_channels()];
        let masked = found.iter().any(|found| found.mask.is_some());
        if settings.attention_weight > 0.0 && settings.words.len() >= 2 && masked {
            config.attention_loss = Some(AttentionLoss {
                weight: settings.attention_weight,
                full_identity: settings.full_identity,
            });
        }
        let Fitted { step, split, tile, planned, .. } =
            budget::fit(settings, &models, &config, &encoder, gpu, size)?;
        planned.costs.iter().for_each(|cost| tell(cost));
        // The same pictures in the same order, in smaller batches.
        let taken = Settings {
            batch: settings.batch / split,
            accumulate: settings.accumulate * split,
            ..settings.clone()
        };
        let mut examples = Examples::new(&taken, found, transform, latent, words, &models);
        let model_hash = (settings.prior_pictures > 0).then(|| hex(&checkpoint.hash()));
        let class = ClassPictures::of(
            settings,
            &examples.captions(),
            size,
            encoder.guidance(),
            places.class(),
            model_hash,
        );
        let class_hash = own_class.as_ref().map(|own| hex(&own.hash));
        own_class.into_iter().for_each(|own| examples.add_class(own.found));
        examples.remarks()?.iter().for_each(|remark| tell(remark));
        if let Some(class) = &class {
            class.remarks(examples.words())?.iter().for_each(|remark| tell(remark));
        }
        if settings.method == Method::PPlus && settings.words_lr == 0.0 {
            tell("p-plus learns the words alone, and words_lr is 0: nothing will be trained");
        }
        let base = checkpoint.base_hash_watched(checkpoint::base_hash_cache().as_deref(), watch)?;
        let mut about =
            About::new(settings, base.to_string(), hex(&checked.hash), gpu.name().to_string());
        about.class = class_hash;
        about.rounding = step.rounding(gpu);
        let (settings, gpu) = (settings.clone(), gpu.clone());
        let (history, saved) = (Vec::new(), None);
        let mut run = Run {
            settings,
            gpu,
            base,
            encoder,
            examples,
            class,
            step,
            split,
            tile,
            planned,
            about,
            places,
            size,
            history,
            saved,
        };
        run.begin(begin, rows, tell)?;
        Ok(run)
    }

    /// Uploads the state to begin with.
    fn begin(
        &mut self,
        begin: Begin,
        rows: Vec<crate::graph::Array>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let path = self.places.state();
        let fail = |problem: String| Error::State { path: path.clone(), problem };
        // A run that was ended while its class pictures were made has no state yet.
        let only_class = !path.exists() && self.class.is_some() && self.places.class().exists();
        let state = if begin == Begin::Resume && only_class {
            tell("no state was saved yet: the run begins, with the class pictures that are there");
            self.initial(rows)?
        } else if begin == Begin::Resume {
            if !path.exists() {
                return Err(fail(
                    "there is no run to go on with (no state was saved there)".into(),
                ));
            }
            let Saved { about, state, history } = Saved::read(&path)?;
            let differences = self.about.differences(&about);
            if !differences.is_empty() {
                return Err(fail(format!(
                    "the run cannot go on with other settings: {}",
                    differences.join("; ")
                )));
            }
            if about.adapter != self.about.adapter {
                tell(&format!(
                    "the run began on {}; it goes on the same up to rounding",
                    about.adapter
                ));
            } else if let (Some(then), Some(now)) = (about.rounding, self.about.rounding)
                && then != now
            {
                tell(&format!(
                    "the run began with {then}; with {now} it goes on the same up to rounding"
                ));
            }
            self.about.lengths.clone_from(&about.lengths);
            // Those that are made are compared once they are there.
            self.about.class.clone_from(&about.class);
            self.stretch(&about, tell);
            (self.history, self.saved) = (history, Some(state.step));
            state
        } else {
            self.initial(rows)?
        };
        self.places.prepare()?;
        Ok(self.step.restore(&state)?)
    }

    /// Notes that the run is to have another number of updates than it had.
    fn stretch(&mut self, saved: &About, tell: &mut dyn FnMut(&str)) {
        let (before, now, done) = (saved.settings.steps, self.settings.steps, saved.step);
        if before == now {
            return;
        }
        self.about.lengths.push([done, before as u64]);
        let next = done + 1;
        let same = (0..done).all(|step| saved.settings.rates(step) == self.settings.rates(step));
        tell(&if same {
            format!(
                "the run had {} and has {now} now; with these learning rates, \
                that changes nothing in what is done",
                counted(before, "update")
            )
        } else {
            format!(
                "the run had {} and has {now} now: from update {next} on, its \
                    learning rates are those of a run of {now}, \
                 which begin again at {:.1e}; what comes of it differs from a run that had {now} \
                 from the start",
                counted(before, "update"),
                self.settings.rates(done).unet
            )
        });
    }

    fn initial(&self, rows: Vec<crate::graph::Array>) -> Result<State> {
        let draws = Draws::new(self.settings.seed);
        let mut index = 0;
        // Kaiming's uniform numbers with a = sqrt(5) (He et al. 2015): in +-1 / sqrt(in).
        let is_orthogonal = self.settings.method == Method::Orthogonal;
        let mut down = |layer: &step::TrainedLayer| {
            if is_orthogonal {
                return orthogonal::rows(&self.settings.name, layer.into, layer.rank);
            }
            let (mut numbers, bound) =
                (draws.at(Purpose::Updates, index), 1.0 / (layer.into as f64).sqrt());
            index += 1;
            (0..layer.rank * layer.into).map(|_| numbers.between(-bound, bound) as f32).collect()
        };
        Ok(self.step.initial(rows, &mut down)?)
    }

    /// As they were completed.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Pictures that it learns from.
    pub fn pictures(&self) -> usize {
        self.examples.pictures()
    }

    /// Width and height that is tuned at.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Its files.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Updates done.
    pub fn done(&self) -> u64 {
        self.history.len() as u64
    }

    /// Device memory of a step, in bytes.
    ///
    /// # Errors
    /// Weights that are missing.
    pub fn planned_bytes(&self) -> Result<PlannedBytes> {
        Ok(self.step.planned_bytes()?)
    }

    /// What the run takes of the device's memory, and what staying within a budget costs.
    pub fn planned(&self) -> &Planned {
        &self.planned
    }

    /// Runs to the end, or until `watch` asks for its end: then the run is saved after the update
    /// that is under way, and can go on later to the same bytes ([`Begin::Resume`]).
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Diverged`]; files that cannot be written (then the state that
    /// was saved before stands); whatever the device meets.
    pub fn run(&mut self, watch: &mut RunWatch) -> Result<Summary> {
        let of = self.settings.steps as u64;
        let start = Instant::now();
        if self.done() < of {
            self.add_class(watch)?;
        }
        let class_took = start.elapsed();
        let (first, start) = (self.done(), Instant::now());
        let mut sheets = Duration::ZERO;
        // A run that was ended while its sheet was made has yet to make it.
        if self.is_sheet(first) && first < of && !self.places.sheet(first).exists() {
            sheets += self.sheet(watch)?;
        }
        while self.done() < of {
            let update = self.update()?;
            let done = self.done();
            let mut asked = heed(watch(Event::Update(update)));
            // A sheet comes before the state that is past it: a run that is killed in between makes
            // it again.
            if asked.is_ok() && self.is_sheet(done) && done < of {
                match self.sheet(watch) {
                    Ok(took) => sheets += took,
                    Err(Error::Cancelled(cancelled)) => asked = Err(cancelled),
                    Err(error) => return Err(error),
                }
            }
            if asked.is_err() || done == of || done.is_multiple_of(self.settings.save_every as u64)
            {
                self.save()?;
                self.curve()?;
            }
            asked?;
        }
        let took = start.elapsed().saturating_sub(sheets);
        self.concept()?.write(&self.places.output)?;
        heed(watch(Event::Wrote(&self.places.output)))?;
        self.curve()?;
        heed(watch(Event::Wrote(&self.places.curve())))?;
        let sheet = if self.settings.sheet_every > 0 && !self.settings.prompts.is_empty() {
            sheets += self.sheet(watch)?;
            Some(self.places.sheet(of))
        } else {
            None
        };
        let tenth = (self.history.len() / 10).max(1);
        let mean = |part: &[[f32; 3]]| {
            part.iter().map(|[loss, ..]| loss).sum::<f32>() / part.len().max(1) as f32
        };
        Ok(Summary {
            concept: self.places.output.clone(),
            curve: self.places.curve(),
            sheet,
            losses: [
                mean(&self.history[..tenth.min(self.history.len())]),
                mean(&self.history[self.history.len().saturating_sub(tenth)..]),
            ],
            norm: self.history.last().map_or(0.0, |[.., norm]| *norm),
            steps_took: took,
            sheets_took: sheets,
            class_took,
            steps: self.done() - first,
        })
    }

    /// Makes the class pictures that are missing, and takes all of them among the examples.
    fn add_class(&mut self, watch: &mut RunWatch) -> Result<()> {
        let Some(class) = &self.class else { return Ok(()) };
        let open = &mut || {
            Ok(Pipeline::of(&self.gpu, self.encoder.model().clone(), self.settings.precision)?)
        };
        // Within a budget, one thing at a time is on the device.
        let aside = match self.settings.memory {
            Some(_) => Some(self.step.state()?),
            None => None,
        };
        if aside.is_some() {
            self.step.rest();
        }
        class.make(&self.gpu, open, &mut |done, of| {
            watch(Event::Class(Progress::new("class pictures", done, of)))
        })?;
        if let Some(state) = aside {
            self.step.restore(&state)?;
        }
        let found = class.read()?;
        let hash = hex(&folder::hash(&found));
        if self.about.class.as_ref().is_some_and(|before| *before != hash) {
            return Err(Error::State {
                path: self.places.class(),
                problem: "the class pictures or their captions have changed since the run began"
                    .into(),
            });
        }
        self.about.class = Some(hash);
        self.examples.add_class(found);
        Ok(())
    }

    /// One update: all batches of an accumulation.
    fn update(&mut self) -> Result<UpdateDone> {
        let done = self.done();
        let rates = self.settings.rates(done);
        let (mut loss, mut regularisation) = (0.0, 0.0);
        let batches = (self.settings.accumulate * self.split) as u64;
        let mut last = None;
        for i in 0..batches {
            let encoder = &mut Encoding { pipeline: &mut self.encoder, tile: self.tile };
            let batch = self.examples.batch(done * batches + i, rates, encoder)?;
            let report = self.step.run(&batch).map_err(|error| self.diverged(error))?;
            loss += report.loss / batches as f32;
            regularisation += report.regularisation / batches as f32;
            last = Some(report);
        }
        let (norm, embeddings_stopped) =
            last.map_or((0.0, false), |report| (report.embedding_norm, report.embeddings_stopped));
        self.history.push([loss, regularisation, norm]);
        Ok(UpdateDone {
            done: done + 1,
            of: self.settings.steps as u64,
            loss,
            rates,
            norm,
            embeddings_stopped,
        })
    }

    fn diverged(&self, error: step::Error) -> Error {
        match error {
            step::Error::NotFinite { step, loss, layer, .. } => {
                let rates = self.settings.rates(step.saturating_sub(1));
                Error::Diverged { step, loss, rates, layer, saved: self.saved }
            }
            other => other.into(),
        }
    }

    fn is_sheet(&self, step: u64) -> bool {
        let every = self.settings.sheet_every as u64;
        every > 0 && step > 0 && step.is_multiple_of(every) && !self.settings.prompts.is_empty()
    }

    fn save(&mut self) -> Result<()> {
        let saved = Saved {
            about: self.about.clone(),
            state: self.step.state()?,
            history: self.history.clone(),
        };
        saved.write(&self.places.state())?;
        self.saved = Some(saved.state.step);
        Ok(())
    }

    fn curve(&self) -> Result<()> {
        Ok(sheet::curve(&self.settings, &self.history)?.save(self.places.curve(), None)?)
    }

    /// Makes the sheet of what is trained so far; the time it took.
    fn sheet(&mut self, watch: &mut RunWatch) -> Result<Duration> {
        let start = Instant::now();
        let concept = self.concept()?;
        let aside = match self.settings.memory {
            Some(_) => Some(self.step.state()?),
            None => None,
        };
        if aside.is_some() {
            self.step.rest();
            self.encoder.rest();
        }
        // A pipeline of its own, so that the memory is free again while the run goes on.
        let mut pipeline =
            Pipeline::of(&self.gpu, self.encoder.model().clone(), self.settings.precision)?;
        let drawn =
            sheet::sheet(&mut pipeline, &concept, &self.settings, self.size, &mut |done, of| {
                watch(Event::Sheet(Progress::new("sheet", done, of)))
            })?;
        drop(pipeline);
        if let Some(state) = aside {
            self.step.restore(&state)?;
        }
        let path = self.places.sheet(self.done());
        drawn.save(&path, None)?;
        heed(watch(Event::Wrote(&path)))?;
        Ok(start.elapsed())
    }

    /// What is trained so far.
    ///
    /// # Errors
    /// Whatever the device meets.
    pub fn concept(&self) -> Result<Concept> {
        Ok(super::trained::concept(
            &self.settings,
            self.about.rounding,
            self.base,
            &self.step.state()?,
            self.step.layers(),
        ))
    }
}

/// What stands there is somebody's work.
fn refuse_to_replace(places: &Places) -> Result<()> {
    let path = places.state();
    if path.exists() {
        let problem = match Saved::read(&path) {
            Ok(Saved { about, .. }) if about.step < about.settings.steps as u64 => {
                format!(
                    "a run stands there at step {} of {}: --resume goes on",
                    about.step, about.settings.steps
                )
            }
            Ok(Saved { about, .. }) => {
                let (done, more) = (about.step, about.step * 2);
                format!(
                    "a finished run of {} stands there: --resume with more --steps (such as \
                        {more}) goes on",
                    counted(done, "step")
                )
            }
            Err(error) => format!("a run may stand there, but its state cannot be read ({error})"),
        };
        return Err(Error::State {
            path,
            problem: format!("{problem}, --restart begins anew and replaces it"),
        });
    }
    if places.output.exists() && crate::output::is_replaced(&places.output) {
        let problem =
            "it is there already: --restart replaces it, --output names another file".to_string();
        return Err(Error::State { path: places.output.clone(), problem });
    }
    Ok(())
}

/// Width and height that is tuned at, and what is wrong with it.
pub(super) fn size(settings: &Settings, pipeline: &Pipeline) -> ([usize; 2], Vec<String>) {
    let (width, height) = pipeline.default_size();
    let size = settings.size.unwrap_or([width, height]);
    let factor = pipeline.factor();
    let fits = |side: &usize| {
        *side > 0 && side.is_multiple_of(factor) && *side <= crate::picture::MAX_SIDE as usize
    };
    let most = crate::picture::MAX_SIDE as usize / factor * factor;
    let problem = format!(
        "size is {}x{}: expected multiples of {factor} from {factor} to {most}",
        size[0], size[1]
    );
    if size.iter().all(fits) { (size, Vec::new()) } else { ([width, height], vec![problem]) }
}

pub(super) fn step_config(
    settings: &Settings,
    size: [usize; 2],
    pipeline: &Pipeline,
) -> StepConfig {
    let factor = pipeline.factor();
    // As many of the class as of the concept.
    let prior = settings.has_prior();
    StepConfig {
        method: settings.method,
        text_layers: settings.text_layers,
        unet_layers: settings.unet_layers,
        text_rank: settings.text_rank,
        unet_rank: settings.unet_rank,
        alpha: settings.alpha,
        batch: settings.batch * if prior { 2 } else { 1 },
        prior_loss: prior.then_some(PriorLoss {
            pictures: settings.batch,
            weight: settings.prior_weight,
            target: settings.prior_target,
        }),
        size: [size[1] / factor, size[0] / factor],
        words: settings.words.len(),
        clip_skip: settings.clip_skip,
        adamw: AdamW {
            betas: settings.betas,
            weight_decay: settings.weight_decay,
            lora_weight_decay: settings.lora_weight_decay,
            ..AdamW::default()
        },
        lora_dropout: settings.lora_dropout,
        rank_dropout: settings.rank_dropout,
        words_first: settings.words_first as u64,
        checkpointing: settings.checkpointing,
        accumulate: settings.accumulate,
        norm_limit: settings.norm_stop,
        precision: settings.precision,
        ..StepConfig::default()
    }
}
