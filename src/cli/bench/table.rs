//! `mos bench table`: ways to teach concepts and ways to merge them, beside each other.
mod judge;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Applied, with_words};
use mixofshow::fusion::ConceptToFuse;
use mixofshow::metrics::{Embedding, Resemblance, Sample, Scores, Towers, VisionTower};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::Pipeline;
use mixofshow::training::{Places, step::Method};

use self::judge::{CastJudge, Looked};
use self::report::{ConceptRow, Report, Settings};
use super::asked::{self, ORDINARY, pictures_of};
use super::kept::{self, InUse, Kept};
use super::mergers::{self, Merger, Note};
use super::shares::{CLASS, TAUGHT};
use super::study::{self, Cast, Subject};
use super::who::{self, Who};
use crate::cli::learn::{Trained, learn_each};
use crate::cli::progress::Progress;
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Global, Result, files, interrupt};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    study: study::Options,
    /// Ways to teach
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(default_value = "p-plus,lora,ed-lora,orthogonal")]
    methods: Vec<Method>,
    /// Ways to merge what ED-LoRA taught, and `orthogonal`, the sum of what that method taught
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(default_value = "averaged,l-bfgs,exact,distilled,loraclr,ties,dare,orthogonal")]
    mergers: Vec<Merger>,
    /// How many of the eight prompts are asked
    #[arg(long, value_name = "COUNT", default_value_t = asked::COUNT)]
    #[arg(value_parser = mixofshow::NumberRange::whole(1, asked::COUNT as u32).parser::<usize>())]
    prompts: usize,
    #[command(flatten)]
    who: Who,
}

/// Of the folder for results.
const TABLE: &str = "table.md";
const JSON: &str = "table.json";
const TIMES: &str = "times.json";
const ORDINARY_PICTURES: &str = "ordinary.pictures";

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let study = &arguments.study;
    let casts = check(arguments)?;
    let identity = arguments.who.open(&study.model, terminal)?;
    let (checkpoint, gpu) = (study.checkpoint()?, global.open()?);
    let _watched = interrupt::watched();
    let model = Pipeline::load(&gpu, &checkpoint, Precision::default())?;
    let towers = Towers::load(&gpu, model.model())?;
    drop(model);
    let eye = who::load(&gpu, &identity)?;
    let mergers: Vec<Merger> = arguments
        .mergers
        .iter()
        .copied()
        .filter(|merger| arguments.methods.contains(&merger.method()))
        .collect();
    for left in arguments.mergers.iter().filter(|merger| !mergers.contains(merger)) {
        let method = left.method();
        terminal.warning(format!("{} is left out: --methods has no {method}", left.name()));
    }
    let mut bench = Bench {
        arguments,
        checkpoint,
        gpu,
        towers: &towers,
        eye: eye.as_ref(),
        mergers,
        global,
        terminal,
        times: Times::read(&study.output.join(TIMES)),
        done: 0,
        of: 0,
    };
    bench.of = bench.pictures(&casts);
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for cast in &casts {
        let (of_cast, note) = bench.cast(cast)?;
        rows.extend(of_cast);
        notes.extend(note);
    }
    let settings = Settings {
        model: study.model.clone(),
        adapter: bench.gpu.name().to_string(),
        taught_by: study.settings.as_ref().map(|path| path.display().to_string()),
        updates: bench.updates(&casts)?,
        prompts: arguments.prompts,
        seeds: (1..=study.seeds).collect(),
        sampling_steps: study.sampling_steps,
        guidance: study.guidance,
        identity: identity.as_ref().map(|tower| tower.component.path().display().to_string()),
    };
    let report = Report::new(settings, rows, &notes);
    let text = report.markdown();
    files::write(&study.output.join(TABLE), text.as_bytes())?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    files::write(&study.output.join(JSON), json.as_bytes())?;
    if study.json { terminal.print_json(&report) } else { terminal.print(text) }
}

/// What can be told before work.
fn check(arguments: &Arguments) -> Result<Vec<Cast>> {
    let study = &arguments.study;
    let mut methods = arguments.methods.clone();
    methods.sort_by_key(|method| method.to_string());
    let mut mergers = arguments.mergers.clone();
    mergers.sort();
    if methods.windows(2).any(|two| two[0] == two[1])
        || mergers.windows(2).any(|two| two[0] == two[1])
    {
        return Err(Failure::Usage("--methods, --mergers: one of them is named twice".into()));
    }
    let subjects =
        study.subjects(|_| vec![TABLE.to_string(), JSON.to_string(), TIMES.to_string()])?;
    let model = files::model(&study.model);
    for subject in &subjects {
        files::check_folder(&study.output.join(pictures_of(subject)))?;
        for method in &arguments.methods {
            files::check_run(&study.learning(subject, *method)?, study.settings.as_deref())?;
        }
    }
    let casts = Cast::all(subjects)?;
    for cast in &casts {
        files::check_picture(&study.output.join(format!("{}.png", sheet_of(cast))))?;
        for merger in &arguments.mergers {
            let [out, note] = mergers::places(&study.output, &cast.name, *merger);
            files::check_fused(&out, true)?;
            files::check_fused_apart(&out, model.as_deref(), None)?;
            files::check(&note)?;
        }
    }
    Ok(casts)
}

fn sheet_of(cast: &Cast) -> String {
    format!("table-{}", cast.name)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    checkpoint: Checkpoint,
    gpu: Device,
    towers: &'a Towers,
    /// Whoever tells who is who.
    eye: Option<&'a VisionTower>,
    mergers: Vec<Merger>,
    global: &'a Global,
    terminal: &'a Terminal,
    times: Times,
    /// Pictures that are there, of all.
    done: usize,
    of: usize,
}

/// What was trained by one method, and files to fuse.
struct Taught {
    method: Method,
    entries: Vec<ConceptToFuse>,
    in_use: Vec<Vec<InUse>>,
    seconds: Vec<Option<f64>>,
}

/// A model's pictures of ordinary prompts, as the tower sees them.
type Ordinary = Vec<Embedding>;

/// What stands for concepts in a row's prompts, with what is in use.
struct Ask<'a> {
    what: &'static str,
    /// The name of files.
    file: String,
    words: Vec<String>,
    in_use: &'a [Vec<InUse>],
}

impl<'a> Bench<'a> {
    fn study(&self) -> &'a study::Options {
        &self.arguments.study
    }

    /// All that will be there.
    fn pictures(&self, casts: &[Cast]) -> usize {
        let seeds = self.study().seeds as usize;
        let ways = 1 + self.arguments.methods.len() + self.mergers.len();
        let concepts: usize = casts.iter().map(|cast| cast.subjects.len()).sum();
        let ordinary = casts.len() * (1 + self.mergers.len()) * ORDINARY.len();
        (concepts * ways * self.arguments.prompts + ordinary) * seeds
    }

    /// Updates of each run; none where they differ.
    fn updates(&self, casts: &[Cast]) -> Result<Option<usize>> {
        let mut all = Vec::new();
        for subject in casts.iter().flat_map(|cast| &cast.subjects) {
            for method in &self.arguments.methods {
                all.push(self.study().learning(subject, *method)?.steps);
            }
        }
        all.dedup();
        Ok(if all.len() == 1 { all.pop() } else { None })
    }

    /// All rows of a cast, and what its fusions predicted.
    fn cast(&mut self, cast: &Cast) -> Result<(Vec<ConceptRow>, Option<report::Predicted>)> {
        let taught = self.teach(cast)?;
        let mut progress = Progress::new(self.terminal);
        let judge = CastJudge::new(&cast.subjects, self.towers, self.eye)?;
        let mut rows = Vec::new();
        for (at, looked) in judge.taught(&cast.subjects)?.into_iter().enumerate() {
            rows.push(ConceptRow::new(cast, at, TAUGHT, false, looked, None));
        }
        let mut shown = vec![(TAUGHT, judge.firsts())];
        let mut pipeline = Pipeline::load(&self.gpu, &self.checkpoint, Precision::default())?;
        let name = self.study().model.clone();
        let kept = Kept::new(&name, &self.checkpoint, &self.gpu, self.study().request());
        let classes = cast.subjects.iter().map(|s| asked::class_phrase(s, &s.class_word)).collect();
        let phrases: Vec<String> = cast.subjects.iter().map(|s| s.phrase.clone()).collect();
        let asks =
            std::iter::once(Ask { what: CLASS, file: CLASS.into(), words: classes, in_use: &[] })
                .chain(taught.iter().map(|taught| Ask {
                    what: asked::name_of(taught.method),
                    file: asked::name_of(taught.method).into(),
                    words: phrases.clone(),
                    in_use: &taught.in_use,
                }));
        for ask in asks {
            let (looked, firsts) =
                self.look(&mut pipeline, &kept, cast, &judge, &ask, &mut progress)?;
            let seconds = taught.iter().find(|taught| asked::name_of(taught.method) == ask.what);
            for (at, looked) in looked.into_iter().enumerate() {
                let seconds = seconds.and_then(|taught| taught.seconds[at]);
                rows.push(ConceptRow::new(cast, at, ask.what, false, looked, seconds));
            }
            shown.push((ask.what, firsts));
        }
        let base = self.ordinary(&mut pipeline, &kept, "base", &mut progress)?;
        drop(pipeline);
        let mut told = Vec::new();
        for merger in self.mergers.clone() {
            let Some(taught) = taught.iter().find(|t| t.method == merger.method()) else {
                continue;
            };
            let places = mergers::places(&self.study().output, &cast.name, merger);
            let note = mergers::fused(
                &places,
                merger,
                &taught.entries,
                &self.checkpoint,
                &self.gpu,
                &mut |at| {
                    progress.show_with("fuse", at.done, at.of, merger.title());
                    interrupt::asked()
                },
            )?;
            let fused = Checkpoint::open(&places[0])?;
            let mut pipeline = Pipeline::load(&self.gpu, &fused, Precision::default())?;
            let name = places[0].display().to_string();
            let kept = Kept::new(&name, &fused, &self.gpu, self.study().request());
            let (what, file) = (merger.title(), format!("merged {}", merger.name()));
            let ask = Ask { what, file, words: phrases.clone(), in_use: &[] };
            let (looked, firsts) =
                self.look(&mut pipeline, &kept, cast, &judge, &ask, &mut progress)?;
            let ordinary = format!("{} {}", cast.name, merger.name());
            let ordinary = self.ordinary(&mut pipeline, &kept, &ordinary, &mut progress)?;
            let sample = Sample { seen: &ordinary, others_seen: &base, ..Sample::default() };
            let likeness = Scores::of(&[&Resemblance], &sample).get("likeness");
            for (at, looked) in looked.into_iter().enumerate() {
                let mut row = ConceptRow::new(cast, at, what, true, looked, Some(note.seconds));
                row.ordinary = likeness;
                rows.push(row);
            }
            shown.push((what, firsts));
            told.push((merger, note));
        }
        drop(progress);
        let path = self.study().output.join(format!("{}.png", sheet_of(cast)));
        sheet(&shown, cast)?.save(&path, None)?;
        self.terminal.note(path.display());
        // The exact solver's is what a fusion's report says.
        told.sort_by_key(|(merger, _)| match merger {
            Merger::Exact => 0,
            Merger::Distilled => 1,
            Merger::Orthogonal => 3,
            _ => 2,
        });
        Ok((rows, told.iter().find_map(|(_, note)| prediction(cast, note))))
    }

    /// All concepts by all methods; pictures of a class are made once for all methods.
    fn teach(&mut self, cast: &Cast) -> Result<Vec<Taught>> {
        let mut all = Vec::new();
        for method in &self.arguments.methods {
            let lessons = cast
                .subjects
                .iter()
                .map(|subject| self.study().learning(subject, *method))
                .collect::<Result<Vec<_>>>()?;
            for (subject, lesson) in cast.subjects.iter().zip(&lessons) {
                self.share_class_pictures(subject, &lesson.output)?;
            }
            let times = &mut self.times;
            let trained = learn_each(
                &lessons,
                &self.checkpoint,
                &self.gpu,
                self.global,
                self.terminal,
                &mut |lesson, seconds| times.put(&lesson.output, seconds),
            )?;
            let mut taught = Taught {
                method: *method,
                entries: Vec::new(),
                in_use: Vec::new(),
                seconds: Vec::new(),
            };
            for (lesson, (concept, took)) in lessons.iter().zip::<Vec<Trained>>(trained) {
                let path = lesson.output.clone();
                let applied = Applied::new(concept.clone(), 1.0)?;
                taught.in_use.push(vec![InUse::new(applied, &path, 1.0)?]);
                taught.seconds.push(took.or(self.times.of(&path)));
                let prompt = None;
                taught.entries.push(ConceptToFuse { concept, path, unet: 1.0, text: 1.0, prompt });
            }
            all.push(taught);
        }
        Ok(all)
    }

    /// Copies the pictures of a concept's class that another method's run has made: they depend on
    /// no method, and a run tells by their recipes whether they are what it would make.
    fn share_class_pictures(&self, subject: &Subject, output: &Path) -> Result<()> {
        let to = Places::of(output).class();
        if output.exists() || to.exists() {
            return Ok(());
        }
        for method in [Method::EdLora, Method::Lora, Method::PPlus, Method::Orthogonal] {
            let from = Places::of(&self.study().learning(subject, method)?.output).class();
            let Ok(entries) = std::fs::read_dir(&from) else { continue };
            for entry in entries {
                let path = entry?.path();
                let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
                files::make_folder_of(&to.join(name))?;
                files::write(&to.join(name), &std::fs::read(&path)?)?;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Pictures of each concept, as the towers see them, and the first of each.
    fn look(
        &mut self,
        pipeline: &mut Pipeline,
        kept: &Kept,
        cast: &Cast,
        judge: &CastJudge,
        ask: &Ask,
        progress: &mut Progress,
    ) -> Result<(Vec<Looked>, Vec<Picture>)> {
        let (mut all, mut firsts) = (Vec::new(), Vec::new());
        for (at, subject) in cast.subjects.iter().enumerate() {
            let folder = self.study().output.join(pictures_of(subject));
            let in_use = ask.in_use.get(at).map_or(&[][..], Vec::as_slice);
            let class = asked::class_phrase(subject, &subject.class_word);
            let mut seen = Vec::new();
            let prompts = asked::prompts(subject).into_iter().take(self.arguments.prompts);
            for (number, prompt) in prompts.enumerate() {
                let text = self.towers.text(&with_words(prompt, &class))?;
                let prompt = with_words(prompt, &ask.words[at]);
                for seed in 1..=self.study().seeds {
                    let detail = format!("{}, {}", subject.name, ask.what);
                    progress.show_with("pictures", self.done, self.of, &detail);
                    let path = kept::path(&folder, &ask.file, number, seed);
                    files::make_folder_of(&path)?;
                    let picture = kept.picture(pipeline, &path, &prompt, seed, in_use)?;
                    seen.push(judge.see(at, &picture, &text)?);
                    if firsts.len() == at {
                        firsts.push(picture);
                    }
                    self.done += 1;
                }
            }
            all.push(Looked::mean(&seen));
        }
        Ok((all, firsts))
    }

    fn ordinary(
        &mut self,
        pipeline: &mut Pipeline,
        kept: &Kept,
        what: &str,
        progress: &mut Progress,
    ) -> Result<Ordinary> {
        let folder = self.study().output.join(ORDINARY_PICTURES);
        let mut seen = Vec::new();
        for (number, prompt) in ORDINARY.iter().enumerate() {
            for seed in 1..=self.study().seeds {
                progress.show_with("pictures", self.done, self.of, "ordinary prompts");
                let path = kept::path(&folder, what, number, seed);
                files::make_folder_of(&path)?;
                let picture = kept.picture(pipeline, &path, prompt, seed, &[])?;
                seen.push(self.towers.picture(&picture)?);
                self.done += 1;
            }
        }
        Ok(seen)
    }
}

/// What a fusion predicted of each two concepts, in the cast's order.
fn prediction(cast: &Cast, note: &Note) -> Option<report::Predicted> {
    let at = |subject: &Subject| note.phrases.iter().position(|phrase| *phrase == subject.phrase);
    let order = cast.subjects.iter().map(at).collect::<Option<Vec<usize>>>()?;
    let ordered = |table: &Option<Vec<Vec<f64>>>| -> Option<Vec<Vec<f64>>> {
        let table = table.as_ref()?;
        let row = |i: &usize| order.iter().map(|j| table.get(*i)?.get(*j).copied()).collect();
        order.iter().map(row).collect()
    };
    Some(report::Predicted {
        cast: cast.name.clone(),
        conflicts: ordered(&note.conflicts)?,
        alike: ordered(&note.alike)?,
        contact: ordered(&note.contact)?,
    })
}

fn sheet(shown: &[(&str, Vec<Picture>)], cast: &Cast) -> Result<Picture> {
    let sheet = Sheet {
        rows: shown.iter().map(|(_, pictures)| pictures.iter().map(Some).collect()).collect(),
        row_captions: shown.iter().map(|(what, _)| what.to_string()).collect(),
        column_captions: cast.subjects.iter().map(|subject| subject.name.clone()).collect(),
        gap: 4,
    };
    Ok(sheet.draw()?)
}

/// Seconds that concepts took to learn, which are known no more once they are there.
struct Times {
    path: PathBuf,
    seconds: BTreeMap<String, f64>,
}

impl Times {
    fn read(path: &Path) -> Times {
        let text = std::fs::read(path).unwrap_or_default();
        let seconds = serde_json::from_slice(&text).unwrap_or_default();
        Times { path: path.to_path_buf(), seconds }
    }

    fn of(&self, output: &Path) -> Option<f64> {
        self.seconds.get(output.file_name()?.to_str()?).copied()
    }

    fn put(&mut self, output: &Path, seconds: f64) -> Result<()> {
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.seconds.insert(name, seconds);
        let text = serde_json::to_string_pretty(&self.seconds)? + "\n";
        files::write(&self.path, text.as_bytes())
    }
}
