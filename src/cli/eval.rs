//! `mos eval`
mod arguments;
mod subjects;

use std::path::{Path, PathBuf};
use std::time::Instant;

use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::counted;
use mixofshow::metrics::survey::{
    self, FORMAT, Judge, Opened, PromptList, Results, SceneSettings, Settings, Share, Survey,
};
use mixofshow::pipeline::recipe::{Recipe, hex};
use mixofshow::pipeline::{Model, Pipeline, Request};

use super::progress::Progress;
use super::terminal::Terminal;
use super::{Failure, Global, Result, files, interrupt, units};
use arguments::{Merge, Merging};

pub use arguments::Arguments;

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    if let Some(Merging::Merge(merge)) = &arguments.merge {
        return run_merge(merge, terminal);
    }
    let start = Instant::now();
    let share = share(arguments, terminal)?;
    let out = &arguments.output;
    files::check_folder(out)?;
    let own_list = own_list(arguments)?;
    let towers = open_towers(arguments)?;
    towers.notes().for_each(|note| terminal.remark(note));
    let model = arguments.model.as_deref().unwrap_or(SHIPPED);
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = Checkpoint::open_named(model, files::models().as_deref())?;
    let list = own_list.unwrap_or_else(|| match checkpoint.words.is_some() {
        true => PromptList::known(),
        false => PromptList::general(),
    });
    let (concepts, subjects) =
        progress.aside(|| subjects::subjects(arguments, &checkpoint, &list, terminal))?;
    check_apart(arguments, out)?;
    let gpu = global.open()?;
    progress.aside(|| terminal.detail(format!("adapter: {}", gpu.name())));
    let precision = arguments.precision.unwrap_or_default();
    let mut pipeline = Pipeline::load(&gpu, &checkpoint, precision)?;
    let shipped = shipped_towers(&towers, pipeline.model())?;
    if shipped.is_some() {
        progress.aside(|| {
            terminal.remark(
                "the model brings no vision tower and --clip names none: the towers of the model \
                    that ships score, which know its own world alone",
            );
        });
    }
    let scores = shipped.as_ref().unwrap_or(pipeline.model()).clone();
    let settings =
        settings(arguments, model, concepts, (&towers, &scores), &checkpoint, &pipeline)?;
    let [width, height] = settings.size;
    let request = Request {
        width: Some(width),
        height: Some(height),
        steps: settings.steps,
        guidance: settings.guidance,
        sampler: Some(arguments.sampler),
        ..Request::default()
    };
    let replaced = if gpu.backend::<Gpu>().is_some() { replaced_kernels()? } else { &[] };
    let recipe = Recipe {
        request,
        model: Some(settings.model.clone()),
        model_hash: Some(settings.model_hash.clone()),
        precision,
        adapter: Some(gpu.name().to_string()),
        kernels: replaced.to_vec(),
        ..Recipe::default()
    };
    let survey = Survey { settings, subjects, recipe };
    let differ = survey.check(out, arguments.renew)?;
    if !differ.is_empty() {
        let keys = differ.join(", ");
        progress.aside(|| {
            terminal.remark(format!("{}: other settings than before: {keys}", out.display()));
        });
    }
    let judges = towers.load(&gpu, &scores, arguments.judge)?;
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
    tell(&survey::write(out)?, out, arguments.json, terminal)?;
    terminal.note(made);
    Ok(())
}

fn run_merge(merge: &Merge, terminal: &Terminal) -> Result<()> {
    files::check_folder(&merge.output)?;
    let results = survey::merge(&merge.parts, &merge.output)?;
    tell(&results, &merge.output, merge.json, terminal)
}

fn tell(results: &Results, out: &Path, json: bool, terminal: &Terminal) -> Result<()> {
    if json {
        return terminal.print_json(results);
    }
    terminal.note(results.table());
    terminal.print_path(&out.join("index.html"))
}

/// As the option says, else as the environment of a job array does.
fn share(arguments: &Arguments, terminal: &Terminal) -> Result<Share> {
    if let Some(share) = arguments.part {
        return Ok(share);
    }
    let read = |name: &str| std::env::var(name).ok();
    match Share::of_environment(read).map_err(|e| Failure::Usage(e.to_string()))? {
        None => Ok(Share::ALL),
        Some((share, by)) => {
            if share.is_part() {
                terminal.remark(format!("part {share}, as {by} says; --part 1/1 makes all"));
            }
            Ok(share)
        }
    }
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
    ] {
        if let Some(path) = path {
            towers.open(judge, path)?;
        }
    }
    if !towers.has(arguments.judge) {
        let name = arguments.judge.name();
        return Err(Failure::Usage(format!("--judge {name}: --{name} PATH names that tower")));
    }
    Ok(towers)
}

/// The model that ships, where nobody else brings CLIP's towers: fused models leave them to their
/// base.
fn shipped_towers(towers: &Opened, model: &Model) -> Result<Option<Model>> {
    if towers.brings(Judge::Clip) || model.vision.is_some() {
        return Ok(None);
    }
    Ok(Some(Model::open(&Checkpoint::shipped()?)?))
}

/// The folder is none that is read: pictures would be made beside what they are compared with.
fn check_apart(arguments: &Arguments, out: &Path) -> Result<()> {
    let inputs: Vec<PathBuf> = arguments.pictures.clone();
    let same = |input: &&PathBuf| mixofshow::checkpoint::output::is_same(input, out);
    match inputs.iter().find(same) {
        Some(input) => Err(Failure::Usage(format!(
            "{}: results would go into a folder of pictures to compare with: name another one",
            input.display()
        ))),
        None => Ok(()),
    }
}

fn settings(
    arguments: &Arguments,
    model: &str,
    concepts: Vec<survey::ConceptSettings>,
    (towers, scores): (&Opened, &Model),
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
) -> Result<Settings> {
    let (width, height) = arguments.size.unwrap_or(pipeline.default_size());
    let factor = pipeline.factor();
    if !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
        return Err(Failure::Usage(format!(
            "--size {width}x{height}: expected multiples of {factor}"
        )));
    }
    let hash = checkpoint.hash_watched(&mut |_| interrupt::asked())?;
    Ok(Settings {
        mos_eval: FORMAT,
        model: model.to_string(),
        model_hash: hex(&hash),
        scenes: SceneSettings::of(&concepts, &arguments.place),
        concepts,
        pictures: arguments.count,
        together: arguments.together.unwrap_or(arguments.count),
        seed: arguments.seed,
        size: [width, height],
        steps: arguments.steps,
        guidance: arguments.guidance.unwrap_or(pipeline.guidance()),
        sampler: arguments.sampler.to_string(),
        precision: arguments.precision.unwrap_or_default().to_string(),
        towers: towers.settings(scores)?,
        judge: arguments.judge.name().to_string(),
        as_published: arguments.as_published,
    })
}
