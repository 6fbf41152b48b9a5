//! `mos eval`
mod arguments;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::concept::ScaledFile;
use mixofshow::counted;
use mixofshow::metrics::survey::{
    self, Judge, Opened, Order, PromptList, Results, SHIPPED_JUDGE, STAND_IN, Stage, Wanted,
};
use mixofshow::pipeline::recipe::{ControlSource, hex};
use mixofshow::pipeline::{Control, Pipeline};

use super::objects::Place;
use super::progress::Progress;
use super::share::share;
use super::terminal::Terminal;
use super::{Failure, Global, Result, controls, files, interrupt, units};
use arguments::{Merge, Merging};

pub use arguments::Arguments;

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    if let Some(Merging::Merge(merge)) = &arguments.merge {
        return run_merge(merge, terminal);
    }
    let start = Instant::now();
    let share = share(arguments.part, terminal)?;
    let place = Place::of(&arguments.output)?;
    let out = &place.path;
    files::check_folder(out)?;
    let own_list = own_list(arguments)?;
    let mut towers = open_towers(arguments)?;
    towers.notes().for_each(|note| terminal.remark(note));
    let sources = controls::sources(&arguments.control)?;
    controls::check_names(&sources)?;
    let followed = sources.iter().map(controls::picture).collect::<Result<Vec<_>>>()?;
    let model = arguments.model.as_deref().unwrap_or(SHIPPED);
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = Checkpoint::open_named(model, files::models().as_deref())?;
    let (judge, shipped) = towers.judge(arguments.judge, &checkpoint).map_err(failure)?;
    if shipped {
        progress.aside(|| terminal.remark(SHIPPED_JUDGE));
    }
    let list = own_list.unwrap_or_else(|| PromptList::of_model(&checkpoint));
    let wanted = Wanted {
        force_base: arguments.force_base,
        concepts: scaled(&arguments.concepts)?,
        pictures: arguments.pictures.clone(),
        class_words: arguments.class_word.clone(),
        classes: arguments.class.clone(),
    };
    let cast = wanted.read(&checkpoint, &list).map_err(failure)?;
    progress.aside(|| cast.notes.iter().for_each(|note| terminal.remark(note)));
    survey::check_apart(arguments.pictures.iter().map(PathBuf::as_path), out).map_err(failure)?;
    let controls = controls::open(&sources, followed, &checkpoint)?;
    let gpu = global.open()?;
    progress.aside(|| terminal.detail(format!("adapter: {}", gpu.name())));
    let order = order(arguments, judge, controls.into_iter().zip(sources).collect());
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, order.precision)?;
    let stand_in = towers.stand_in(pipeline.model())?;
    if stand_in.is_some() {
        progress.aside(|| terminal.remark(STAND_IN));
    }
    let scores = stand_in.as_ref().unwrap_or(pipeline.model()).clone();
    let replaced = if gpu.backend::<Gpu>().is_some() { replaced_kernels()? } else { &[] };
    let on = Stage {
        name: model,
        hash: hex(&checkpoint.hash_watched(&mut |_| interrupt::asked())?),
        pipeline: &pipeline,
        gpu: &gpu,
        kernels: replaced,
    };
    let mut survey = order.survey(cast, &towers, &scores, &on).map_err(failure)?;
    survey.elsewhere = Arc::clone(&place.elsewhere);
    let differ = survey.check(out, arguments.renew)?;
    if !differ.is_empty() {
        let keys = differ.join(", ");
        progress.aside(|| {
            terminal.remark(format!("{}: other settings than before: {keys}", out.display()));
        });
    }
    let judges = towers.load(&gpu, &scores, judge)?;
    let watched = interrupt::watched();
    let done = survey.run(&mut pipeline, &judges, out, share, arguments.renew, &mut |at| {
        progress.show(at.stage, at.done, at.of);
        interrupt::asked()
    });
    drop((progress, watched));
    let done = match done {
        Err(survey::Error::Cancelled(_)) => {
            terminal
                .note("stopped; what was made is kept, and the same command goes on from there");
            return Err(Failure::Stopped);
        }
        other => other?,
    };
    done.warnings.iter().for_each(|warning| terminal.warning(warning));
    let there = done.of - done.made;
    if there > 0 {
        terminal.note(format!("{} were there already", counted(there, "picture")));
    }
    if done.renewed > 0 {
        terminal.warning(format!(
            "{} had been made otherwise and were made anew",
            counted(done.renewed, "picture")
        ));
    }
    let took = units::duration(start.elapsed());
    let made = format!(
        "{} made, {} scored in {took} on {}",
        counted(done.made, "picture"),
        done.scored,
        gpu.name()
    );
    if done.missing > 0 {
        terminal.note(format!(
            "{made}; of other parts {} are missing here: `mos eval merge` puts folders together",
            counted(done.missing, "picture")
        ));
        return Ok(());
    }
    tell(&survey::write(out)?, &place, arguments.json, terminal)?;
    terminal.note(made);
    Ok(())
}

fn run_merge(merge: &Merge, terminal: &Terminal) -> Result<()> {
    let out = Place::of(&merge.output)?;
    files::check_folder(&out.path)?;
    let parts = merge.parts.iter().map(|part| Place::of(part)).collect::<Result<Vec<Place>>>()?;
    parts.iter().chain([&out]).try_for_each(Place::fetch_all)?;
    let paths: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
    let results = survey::merge(&paths, &out.path)?;
    out.put_all(&|path| path.starts_with("pictures"))?;
    tell(&results, &out, merge.json, terminal)
}

/// Tells of the results, which go where the pictures are.
fn tell(results: &Results, out: &Place, json: bool, terminal: &Terminal) -> Result<()> {
    out.put_all(&|path| !path.starts_with("pictures"))?;
    if json {
        return terminal.print_json(results);
    }
    terminal.note(results.table());
    terminal.print_path(&out.told(&out.path.join("index.html")))
}

fn own_list(arguments: &Arguments) -> Result<Option<PromptList>> {
    let Some(path) = &arguments.prompts else { return Ok(None) };
    match path.to_str() {
        Some("known") => return Ok(Some(PromptList::known())),
        Some("general") => return Ok(Some(PromptList::general())),
        _ => {}
    }
    let text = files::text("--prompts", path, "prompts, one a line")?;
    Ok(Some(PromptList::read(path, text.into_bytes())?))
}

fn open_towers(arguments: &Arguments) -> Result<Opened> {
    let mut towers = Opened::default();
    for (judge, path) in [
        (Judge::Clip, &arguments.clip),
        (Judge::Dino, &arguments.dino),
        (Judge::DinoV2, &arguments.dinov2),
        (Judge::Style, &arguments.csd),
        (Judge::Identity, &arguments.identity),
    ] {
        if let Some(path) = path {
            towers.open(judge, path)?;
        }
    }
    // Who tells who is who may ship with the model.
    let named = arguments.judge.filter(|judge| *judge != Judge::Identity);
    if let Some(judge) = named.filter(|judge| !towers.has(*judge)) {
        let name = judge.name();
        return Err(Failure::Usage(format!("--judge {name}: --{name} PATH names that tower")));
    }
    Ok(towers)
}

fn scaled(given: &[String]) -> Result<Vec<ScaledFile>> {
    given.iter().map(|given| ScaledFile::parse(given).map_err(Failure::Usage)).collect()
}

fn order(arguments: &Arguments, judge: Judge, controls: Vec<(Control, ControlSource)>) -> Order {
    Order {
        pictures: arguments.count,
        together: arguments.together,
        one_prompt: arguments.one_prompt,
        scene_strength: arguments.scene_strength,
        controls,
        place: arguments.place.clone(),
        seed: arguments.seed,
        size: arguments.size,
        steps: arguments.steps,
        guidance: arguments.guidance,
        sampler: arguments.sampler,
        precision: arguments.precision.unwrap_or_default(),
        judge,
        as_published: arguments.as_published,
    }
}

/// What does not go together is wrong usage.
fn failure(error: survey::Error) -> Failure {
    match error {
        survey::Error::Usage(problem) => Failure::Usage(problem),
        other => other.into(),
    }
}
