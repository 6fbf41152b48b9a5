//! `mos demo`
mod cast;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use mixofshow::NumberRange as Range;
use mixofshow::backend::Device;
use mixofshow::backend::Precision;
use mixofshow::checkpoint::{Checkpoint, Tower, TowerKind};
use mixofshow::concept::{Applied, Concept};
use mixofshow::fusion::solve::Solver;
use mixofshow::fusion::{self, ConceptToFuse, Order};
use mixofshow::metrics::{
    Embedding, Eye, ImageAlignment, Likeness, Metric, Place, Placement, Sample, Towers, VisionTower,
};
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::{Control, Pipeline, Request};
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::training::folder;

use super::learn::learn_all;
use super::progress::Progress;
use super::terminal::Terminal;
use super::{Global, Result, files, interrupt, units, values};
use cast::{CAST, PAIR, Scene, TRIO};
use report::{ConceptScores, Report, SceneScores};

/// Teach three concepts, fuse them, place them in one picture
///
/// The whole method on the model that ships: learns three concepts from eight pictures each, fuses
/// them into one model, and places two and all three of them in one picture, with a region for each
/// and, if the model has one, an adapter that follows a sketch. Beside that stands what comes of
/// the same prompt without regions, of averaged concepts, and of their own files in a region each.
/// All of it ends up on one contact sheet, with figures in a report. Concepts that were trained
/// before into the same folder, in as many steps, are not trained again.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder for all results; files of the same names are replaced
    #[arg(short, long, value_name = "FOLDER", default_value = "out/demo")]
    output: PathBuf,
    /// Updates for each concept
    #[arg(long, value_name = "COUNT", default_value_t = 320)]
    #[arg(value_parser = Range::whole(1, 10_000_000).parser::<usize>())]
    steps: usize,
    /// Pictures of two and of all three together, in each way, each from a seed of its own; the
    /// first three are on the sheet
    #[arg(
        long, value_name = "COUNT", default_value_t = 3,
        value_parser = values::TIMES.parser::<u64>()
    )]
    seeds: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Few steps with a sampler that needs few: software adapters should be done in minutes.
const STEPS: usize = 15;
const SAMPLER: SamplerKind = SamplerKind::DPMPP_2M;
const GUIDANCE: f32 = 3.0;
const SEED: u64 = 1;
/// Of the pictures with all of them, those on the sheet.
const SHOWN: usize = CAST.len();
const ADAPTER: &str = "t2i_adapter";
/// The first picture, and the folder of all later ones.
const FIRST: &str = "first.png";
const PICTURES: &str = "pictures";
/// Folders of the models.
const FUSED: &str = "fused";
const AVERAGED: &str = "averaged";

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let demo = Demo::prepare(arguments, global, terminal)?;
    let start = Instant::now();
    let _watched = interrupt::watched();
    demo.first()?;
    let concepts = demo.teach()?;
    let taught = start.elapsed();
    let learnt_now = concepts.iter().filter(|trained| trained.now).count();
    let [fused, averaged] = demo.fuse(&concepts)?;
    let together = start.elapsed() - taught;
    let shown = demo.show(&concepts, &fused, &averaged)?;
    let sheet = arguments.output.join("sheet.png");
    shown.sheet()?.save(&sheet, None)?;
    let seconds =
        [taught, together, start.elapsed() - taught - together].map(|time| time.as_secs_f64());
    let report = Report {
        adapter: demo.gpu.name().to_string(),
        steps: arguments.steps,
        learnt_now,
        seeds: arguments.seeds,
        seconds,
        concepts: shown.concepts,
        judge: shown.judge,
        scenes: shown.scenes,
    };
    report.write(&arguments.output)?;
    if arguments.json {
        terminal.print_json(&report)?;
    } else {
        terminal.print_path(&sheet)?;
    }
    let [taught, together, whole] = [taught, together, start.elapsed()].map(units::duration);
    let taught = if learnt_now == 0 {
        "concepts were there already".into()
    } else {
        format!("{learnt_now} taught in {taught}")
    };
    terminal.note(format!("{taught}, fused in {together}, all in {whole} on {}", demo.gpu.name()));
    terminal.note(format!("figures: {}", arguments.output.join(report::FILE).display()));
    Ok(())
}

struct Demo<'a> {
    arguments: &'a Arguments,
    global: &'a Global,
    terminal: &'a Terminal,
    checkpoint: Checkpoint,
    gpu: Device,
    /// The pictures of the cast.
    folder: PathBuf,
}

/// A concept of the cast.
struct Trained {
    path: PathBuf,
    concept: Concept,
    /// Not in an earlier run.
    now: bool,
}

/// The pictures that the sheet shows.
struct Shown {
    /// Rows of the sheet.
    rows: Vec<(String, Vec<Picture>)>,
    concepts: Vec<ConceptScores>,
    scenes: Vec<SceneScores>,
    /// Who says who stands where, as `mos eval` calls them.
    judge: &'static str,
}

impl<'a> Demo<'a> {
    fn prepare(
        arguments: &'a Arguments,
        global: &'a Global,
        terminal: &'a Terminal,
    ) -> Result<Demo<'a>> {
        let out = &arguments.output;
        files::check_folder(out)?;
        files::check_picture(&out.join("sheet.png"))?;
        ["sketch.png", report::FILE, "report.json"]
            .iter()
            .try_for_each(|file| files::check(&out.join(file)))?;
        [FUSED, AVERAGED]
            .iter()
            .try_for_each(|folder| files::check_fused(&out.join(folder), true))?;
        let folder = out.join("taught");
        files::check_folder(&folder)?;
        cast::unpack(&folder)?;
        let (checkpoint, gpu) = (Checkpoint::shipped()?, global.open()?);
        Ok(Demo { arguments, global, terminal, checkpoint, gpu, folder })
    }

    /// A picture by the model alone, at once: something to look at meanwhile.
    fn first(&self) -> Result<()> {
        let prompt = format!("a photo of a red cat {}", cast::PLACE);
        let mut model = self.open(&self.checkpoint)?;
        let made = model.generate(&Request { prompt, ..request() }, &mut |_| interrupt::asked())?;
        let path = self.arguments.output.join(FIRST);
        made.pictures.iter().try_for_each(|picture| picture.save(&path, None))?;
        self.terminal.note(format!("the first picture, by the model alone: {}", path.display()));
        Ok(())
    }

    fn teach(&self) -> Result<Vec<Trained>> {
        let lessons = CAST.iter().map(|player| {
            // Concepts of other numbers of updates are others.
            let path = self
                .arguments
                .output
                .join(format!("{}-{}.safetensors", player.name, self.arguments.steps));
            player.settings(&self.folder, path, self.arguments.steps)
        });
        let lessons = lessons.collect::<Result<Vec<_>>>()?;
        let trained = learn_all(&lessons, &self.checkpoint, &self.gpu, self.global, self.terminal)?;
        let with_paths = trained.into_iter().zip(lessons);
        Ok(with_paths
            .map(|((concept, took), settings)| Trained {
                path: settings.output,
                concept,
                now: took.is_some(),
            })
            .collect())
    }

    /// The fused model and the one of averaged concepts.
    fn fuse(&self, concepts: &[Trained]) -> Result<[PathBuf; 2]> {
        let entries = concepts.iter().map(|trained| ConceptToFuse {
            concept: trained.concept.clone(),
            path: trained.path.clone(),
            unet: 1.0,
            text: 1.0,
            prompt: None,
        });
        let entries: Vec<ConceptToFuse> = entries.collect();
        let mut progress = Progress::new(self.terminal);
        let mut fuse = |name: &str, solver: Solver| -> Result<PathBuf> {
            let out = self.arguments.output.join(name);
            let settings = fusion::Settings::of(solver);
            let order = Order { replace: true, ..Order::new(entries.clone(), out.clone()) };
            fusion::fuse(&self.gpu, &self.checkpoint, order, &settings, &mut |at| {
                progress.show("fuse", at.done, at.of);
                interrupt::asked()
            })?;
            Ok(out)
        };
        Ok([fuse(FUSED, Solver::default())?, fuse(AVERAGED, Solver::Average)?])
    }

    /// Makes all pictures and scores them.
    fn show(&self, concepts: &[Trained], fused: &Path, averaged: &Path) -> Result<Shown> {
        let phrases: Vec<String> = CAST.iter().map(cast::Player::phrase).collect();
        let classes: Vec<String> =
            CAST.iter().map(|player| player.class_word.to_string()).collect();
        let sketch = cast::sketch(&self.arguments.output.join("sketch.png"))?;
        let control =
            self.checkpoint.controls.get(ADAPTER).zip(sketch).map(|(network, picture)| Control {
                name: ADAPTER.into(),
                network: network.clone(),
                picture,
                weight: 1.0,
                start: 0.0,
                end: 1.0,
            });
        let plain = |scene: &Scene| Request { prompt: scene.prompt(), ..request() };
        let placed = |scene: &Scene| Request {
            prompt: scene.class_prompt(),
            regions: scene.layout(),
            ..request()
        };
        let steered = control.map(|control| Request { controls: vec![control], ..placed(&TRIO) });
        let scenes = 8 + 2 * usize::from(steered.is_some());
        let mut work = Work {
            progress: Progress::new(self.terminal),
            done: 0,
            of: 5 * CAST.len() + scenes * self.arguments.seeds as usize,
            seeds: self.arguments.seeds,
            folder: self.arguments.output.join(PICTURES),
            terminal: self.terminal,
        };
        std::fs::create_dir_all(&work.folder)
            .map_err(|error| files::unwritable(&work.folder, error))?;

        let mut model = self.open(&self.checkpoint)?;
        let towers = Towers::load(&self.gpu, model.model())?;
        let who = Tower::shipped()?;
        let load = |tower| VisionTower::load(&self.gpu, tower, &[TowerKind::Clip]);
        let who = who.as_ref().map(load).transpose()?;
        let eye = who.as_ref().map_or(&towers as &dyn Eye, |tower| tower);
        let taught = self.taught(&towers, eye)?;
        let own =
            concepts.iter().map(|trained| Ok(vec![Applied::new(trained.concept.clone(), 1.0)?]));
        let own: Vec<Vec<Applied>> = own.collect::<Result<_>>()?;
        let mut alone =
            vec![("class word alone", work.alone(&mut model, "class word alone", &classes, &[])?)];
        alone.push((
            "class word, LoRA on",
            work.alone(&mut model, "class word, LoRA on", &classes, &own)?,
        ));
        alone.push((
            "from its own file",
            work.alone(&mut model, "from its own file", &phrases, &own)?,
        ));
        let mut together = Vec::new();
        let with_own = |scene: &Scene, request: Request| {
            let of_player =
                |&(player, _): &(usize, _)| own.get(player).into_iter().flatten().cloned();
            Request { concepts: scene.places.iter().flat_map(of_player).collect(), ..request }
        };
        for scene in [&PAIR, &TRIO] {
            let request = with_own(scene, placed(scene));
            let way = format!("{} regions own files", scene.name);
            let made = work.together(&mut model, &way, &request)?;
            together.push((scene, "regions, own files", made));
        }
        if let Some(steered) = &steered {
            let request = with_own(&TRIO, steered.clone());
            together.push((
                &TRIO,
                "regions and sketch, own files",
                work.together(&mut model, &format!("{} sketch own files", TRIO.name), &request)?,
            ));
        }
        drop(model);
        let mut model = self.open(&Checkpoint::open(averaged)?)?;
        alone.push(("averaged", work.alone(&mut model, "averaged", &phrases, &[])?));
        for scene in [&PAIR, &TRIO] {
            let way = format!("{} regions averaged", scene.name);
            let made = work.together(&mut model, &way, &placed(scene))?;
            together.push((scene, "regions, averaged", made));
        }
        drop(model);
        let mut model = self.open(&Checkpoint::open(fused)?)?;
        alone.push(("fused", work.alone(&mut model, "fused", &phrases, &[])?));
        for scene in [&PAIR, &TRIO] {
            let way = format!("{} one prompt fused", scene.name);
            let made = work.together(&mut model, &way, &plain(scene))?;
            together.push((scene, "one prompt, fused", made));
            let way = format!("{} regions fused", scene.name);
            let made = work.together(&mut model, &way, &placed(scene))?;
            together.push((scene, "regions, fused", made));
        }
        if let Some(steered) = steered {
            together.push((
                &TRIO,
                "regions and sketch, fused",
                work.together(&mut model, &format!("{} sketch fused", TRIO.name), &steered)?,
            ));
        }
        together.sort_by_key(|(scene, ..)| scene.places.len());

        let mut shown = Shown {
            rows: Vec::new(),
            concepts: Vec::new(),
            scenes: Vec::new(),
            judge: if who.is_some() { "identity" } else { "clip" },
        };
        for (i, (player, trained_on)) in CAST.iter().zip(&taught.whole).enumerate() {
            let mut scores = Vec::new();
            for (way, pictures) in &alone {
                let seen: Option<Embedding> =
                    pictures.get(i).map(|picture| towers.picture(picture)).transpose()?;
                let sample = Sample { seen: seen.as_slice(), trained_on, ..Sample::default() };
                let score = ImageAlignment.score(&sample).unwrap_or(0.0);
                scores.push((way.to_string(), score));
            }
            shown.concepts.push(ConceptScores { name: player.name, scores });
        }
        shown.rows.push(("taught from".into(), taught.pictures));
        shown.rows.extend(alone.into_iter().map(|(way, pictures)| (way.to_string(), pictures)));
        for (scene, way, pictures) in together {
            let mut places = Vec::new();
            for picture in &pictures {
                for &(expected, part) in scene.places {
                    let likeness = taught.likeness.of_part(eye, picture, part)?;
                    places.push(Place { likeness, expected });
                }
            }
            let way = format!("{}: {way}", scene.name);
            let sample = Sample { places: &places, ..Sample::default() };
            let share = Placement.score(&sample).unwrap_or(0.0);
            shown.scenes.push(SceneScores {
                way: way.clone(),
                right: (share * places.len() as f64).round() as usize,
                of: places.len(),
            });
            shown.rows.push((way, pictures));
        }
        Ok(shown)
    }

    fn open(&self, checkpoint: &Checkpoint) -> Result<Pipeline> {
        Ok(Pipeline::load(&self.gpu, checkpoint, Precision::default())?)
    }

    fn taught(&self, towers: &Towers, eye: &dyn Eye) -> Result<Taught> {
        let (mut pictures, mut whole, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for player in &CAST {
            let settings = player.settings(&self.folder, PathBuf::from("unused.safetensors"), 1)?;
            let found = folder::check(&settings, [128, 128]).found;
            pictures.extend(found.first().map(|found| found.picture.clone()));
            whole.push(
                found
                    .iter()
                    .map(|found| towers.picture(&found.picture))
                    .collect::<std::result::Result<_, _>>()?,
            );
            parts.push(found.into_iter().map(|found| (found.picture, found.mask)).collect());
        }
        Ok(Taught { pictures, whole, likeness: Likeness::new(eye, &parts)? })
    }
}

impl Shown {
    fn sheet(&self) -> Result<Picture> {
        let sheet = Sheet {
            rows: self
                .rows
                .iter()
                .map(|(_, pictures)| pictures.iter().take(SHOWN).map(Some).collect())
                .collect(),
            row_captions: self.rows.iter().map(|(way, _)| way.clone()).collect(),
            column_captions: Vec::new(),
            gap: 4,
        };
        Ok(sheet.draw()?)
    }
}

/// The pictures that were trained from.
struct Taught {
    /// The first of each concept.
    pictures: Vec<Picture>,
    whole: Vec<Vec<Embedding>>,
    likeness: Likeness,
}

/// What all pictures have in common.
fn request() -> Request {
    Request {
        steps: STEPS,
        sampler: Some(SAMPLER),
        guidance: GUIDANCE,
        seed: SEED,
        ..Request::default()
    }
}

/// Pictures under way.
struct Work<'a> {
    progress: Progress<'a>,
    done: usize,
    of: usize,
    /// Of the pictures with everybody.
    seeds: u64,
    folder: PathBuf,
    terminal: &'a Terminal,
}

impl Work<'_> {
    /// One picture of each, by the words that stand for them; `concepts`: what is in use for each,
    /// if anything.
    fn alone(
        &mut self,
        model: &mut Pipeline,
        way: &str,
        words: &[String],
        concepts: &[Vec<Applied>],
    ) -> Result<Vec<Picture>> {
        let mut pictures = Vec::new();
        for (i, words) in words.iter().enumerate() {
            let prompt = format!("a photo of a {words} {}", cast::PLACE);
            let concepts = concepts.get(i).cloned().unwrap_or_default();
            let name = format!("{way} {}", CAST.get(i).map_or("", |player| player.name));
            let request = Request { prompt, concepts, ..request() };
            pictures.extend(self.generate(model, &name, &request)?);
        }
        Ok(pictures)
    }

    /// One picture of everybody from each seed.
    fn together(
        &mut self,
        model: &mut Pipeline,
        way: &str,
        request: &Request,
    ) -> Result<Vec<Picture>> {
        let mut pictures = Vec::new();
        for seed in SEED..SEED + self.seeds {
            let request = Request { seed, ..request.clone() };
            pictures.extend(self.generate(model, &format!("{way} {seed}"), &request)?);
        }
        Ok(pictures)
    }

    /// Makes pictures and writes them at once, under a name made of `name`.
    fn generate(
        &mut self,
        model: &mut Pipeline,
        name: &str,
        request: &Request,
    ) -> Result<Vec<Picture>> {
        self.progress.show("pictures", self.done, self.of);
        let generated = model.generate(request, &mut |_| interrupt::asked())?;
        self.done += 1;
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let path = self.folder.join(words.collect::<Vec<_>>().join("-") + ".png");
        generated.pictures.iter().try_for_each(|picture| picture.save(&path, None))?;
        self.progress.aside(|| self.terminal.note(path.display().to_string()));
        Ok(generated.pictures)
    }
}
