//! `mos fuse`
mod arguments;
mod plan;
mod sheet;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use mixofshow::Nowhere;
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::concept;
use mixofshow::counted;
use mixofshow::fusion::solve::{Exact, Solver};
use mixofshow::fusion::{
    self, ConceptReport, ConceptToFuse, DistillationOptions, ListedConcept, Order, Previous,
    Settings, Stage,
};
use serde::Serialize;

use super::objects::Place;
use super::progress::Progress;
use super::terminal::Terminal;
use super::{Failure, Global, Result, files, interrupt, units};
pub use arguments::Arguments;
use arguments::{Fit, Method, Pull, Recording};

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let start = Instant::now();
    let replace = arguments.replace || arguments.to.is_some() && arguments.output.is_none();
    let out = output(arguments)?;
    out.iter().try_for_each(|out| files::check_fused(out, replace))?;
    let statistics = arguments.statistics.as_deref().map(Place::of).transpose()?;
    let kept = statistics.as_ref();
    kept.iter().try_for_each(|place| files::check_folder(&place.path))?;
    let previous = arguments.to.as_deref().map(Previous::open).transpose()?;
    let model = match (&arguments.model, &previous) {
        (Some(model), _) => model.clone(),
        (None, Some(previous)) => previous.base.clone(),
        (None, None) => SHIPPED.into(),
    };
    if let Some(out) = &out {
        let path = files::model(&model);
        let kept = kept.map(|place| place.path.as_path());
        files::check_fused_apart(out, path.as_deref(), kept)?;
    }
    let concepts = concepts(arguments, previous.as_ref(), kept, terminal)?;
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = Checkpoint::open_named(&model, files::models().as_deref())?;
    let settings =
        progress.aside(|| arguments.settings(factor(&checkpoint), previous.as_ref(), terminal))?;
    let gpu = global.open()?;
    progress.aside(|| terminal.detail(format!("adapter: {}", gpu.name())));
    if arguments.plan {
        let planned = fusion::plan(&gpu, &checkpoint, concepts, &settings, &mut |at| {
            progress.show(at.stage, at.done, at.of);
            interrupt::asked()
        })?;
        progress.finish();
        return plan::print(&gpu, &model, &settings, &planned, arguments.json, terminal);
    }
    let entries = if arguments.sheet { concepts.clone() } else { Vec::new() };
    let order = Order {
        concepts,
        out,
        replace,
        statistics: kept.map(|place| place.path.clone()),
        elsewhere: kept
            .map_or_else(|| Arc::new(Nowhere) as _, |place| Arc::clone(&place.elsewhere)),
        part: arguments.part,
        // With other settings all of it is another model.
        history: match &previous {
            Some(previous)
                if !arguments.refresh && previous.settings.as_ref() == Some(&settings) =>
            {
                previous.history.clone()
            }
            _ => Vec::new(),
        },
        accept_stale: arguments.to.is_some() && !arguments.refresh,
    };
    let mut last = String::new();
    let kept = match (&order.statistics, &order.out) {
        (Some(_), _) | (_, None) => "what was recorded is kept",
        _ => "what was recorded is kept beside the output",
    };
    let watched = interrupt::watched();
    let fused = fusion::fuse(&gpu, &checkpoint, order, &settings, &mut |at| {
        let now = format!("{} {}", at.stage, at.subject);
        if terminal.verbose() && !at.subject.is_empty() && now != last {
            let stage = Stage::ALL.into_iter().find(|stage| stage.name() == at.stage);
            let of = stage.map_or("predictions of".to_string(), |stage| {
                format!("{}: inputs of", stage.title())
            });
            progress.aside(|| terminal.detail(format!("{of} {}", at.subject)));
            last = now;
        }
        progress.show(at.stage, at.done, at.of);
        interrupt::asked()
    });
    if let Err(fusion::Error::Cancelled(_)) = fused {
        drop(progress);
        terminal.note(format!("stopped; {kept}, and the same command goes on from there"));
        return Err(Failure::Stopped);
    }
    let fused = fused?;
    if let Some(path) = &fused.path {
        let mut pictures = Vec::new();
        if arguments.sheet {
            let sheet = sheet::draw(
                &gpu,
                &checkpoint,
                path,
                &fused.report.concepts,
                &entries,
                &settings,
                &mut progress,
            )?;
            let file = report_folder(path)?.join("sheet.png");
            sheet.save(&file, None)?;
            pictures.push((
                "Each concept, two together, ordinary prompts: own files, fused, averaged"
                    .to_string(),
                "sheet.png".to_string(),
            ));
        }
        write_report(path, &fused.report, &pictures)?;
    }
    drop((progress, watched));
    summary(&fused.report, terminal);
    if arguments.json {
        terminal.print_json(&Printed {
            path: fused.path.as_deref(),
            seconds: start.elapsed().as_secs_f64(),
            warnings: terminal.told(),
            report: &fused.report,
        })?;
    } else if let Some(path) = &fused.path {
        terminal.print_path(path)?;
    }
    terminal.note(format!(
        "{} in {}",
        if fused.path.is_some() { "fused" } else { "statistics taken" },
        units::duration(start.elapsed())
    ));
    Ok(())
}

#[derive(Serialize)]
struct Printed<'a> {
    path: Option<&'a Path>,
    seconds: f64,
    warnings: Vec<String>,
    report: &'a fusion::Report,
}

/// Pixels per latent.
fn factor(checkpoint: &Checkpoint) -> usize {
    let blocks = checkpoint
        .vae
        .config
        .get("block_out_channels")
        .and_then(|value| value.as_array())
        .map_or(4, Vec::len);
    1 << blocks.saturating_sub(1)
}

fn output(arguments: &Arguments) -> Result<Option<PathBuf>> {
    if arguments.statistics_only {
        if arguments.statistics.is_none() {
            return Err(Failure::Usage(
                "--statistics-only needs --save-statistics FOLDER to write to".into(),
            ));
        }
        return Ok(None);
    }
    match arguments.output.as_ref().or(arguments.to.as_ref()) {
        Some(path) => Ok(Some(path.clone())),
        None if arguments.plan => Ok(None),
        None => Err(Failure::Usage("--output says where the fused model is to go".into())),
    }
}

fn concepts(
    arguments: &Arguments,
    previous: Option<&Previous>,
    statistics: Option<&Place>,
    terminal: &Terminal,
) -> Result<Vec<ConceptToFuse>> {
    let mut listed: Vec<ListedConcept> = Vec::new();
    for text in arguments.concepts.iter().chain(&arguments.add) {
        listed.push(ListedConcept::parse(text)?);
    }
    if let Some(list) = &arguments.list {
        listed.extend(ListedConcept::read(list)?);
    }
    let mut prompts = arguments.prompt.iter();
    let mut entries = Vec::new();
    for listed in listed {
        let (concept, notes) = concept::dialects::read(&listed.path)?;
        notes.iter().for_each(|note| terminal.remark(format!("{}: {note}", listed.path.display())));
        // Prompts go to those that have no words of their own, in order.
        let prompt = match listed.prompt {
            None if concept.words.is_empty() => prompts.next().cloned(),
            given => given,
        };
        entries.push(ConceptToFuse {
            concept,
            path: listed.path,
            unet: listed.unet,
            text: listed.text,
            prompt,
        });
    }
    if prompts.next().is_some() {
        return Err(Failure::Usage(
            "there are more prompts than concepts without words of their own".into(),
        ));
    }
    if let Some(previous) = previous {
        let is = |name: &String, concept: &ConceptReport| {
            [&concept.name, &concept.path, &concept.phrase].contains(&name)
        };
        let removed =
            |concept: &ConceptReport| arguments.remove.iter().any(|name| is(name, concept));
        if let Some(name) = arguments
            .remove
            .iter()
            .find(|name| !previous.concepts.iter().any(|concept| is(name, concept)))
        {
            let names: Vec<&str> =
                previous.concepts.iter().map(|concept| concept.name.as_str()).collect();
            return Err(Failure::Usage(format!(
                "the fused model has no concept `{name}`; it has {}",
                names.join(", ")
            )));
        }
        if entries.is_empty() && previous.concepts.iter().all(removed) {
            return Err(Failure::Usage(format!(
                "--remove takes out every concept: what would be left is the base model, `{}`, \
                    which is there without fusing",
                previous.base
            )));
        }
        let Some(statistics) = statistics else {
            return Err(Failure::Usage(
                "--statistics names the folder that was kept with --save-statistics when the \
                    model was fused"
                    .into(),
            ));
        };
        let mut before = previous.entries_from(&statistics.path, &statistics.elsewhere)?;
        before.retain(|entry| {
            !arguments.remove.iter().any(|name| {
                entry.concept.name == *name
                    || entry.path.as_os_str() == name.as_str()
                    || entry.prompt.as_deref() == Some(name)
            })
        });
        before.extend(entries);
        entries = before;
    }
    if entries.is_empty() {
        return Err(Failure::Usage("there are no concepts: --concept or --list names them".into()));
    }
    Ok(entries)
}

impl Arguments {
    /// What options say, over what is usual for the solver, or over what the model was made with
    /// that is changed.
    fn settings(
        &self,
        factor: usize,
        previous: Option<&Previous>,
        terminal: &Terminal,
    ) -> Result<Settings> {
        let streams = [&self.prompts, &self.sampled_prompts, &self.held_out, &self.keep];
        if streams.into_iter().flatten().filter(|path| files::is_stream(path)).count() > 1 {
            return Err(Failure::Usage(
                "--prompts - and --keep - both want standard input: one of them can have it".into(),
            ));
        }
        let made = previous.and_then(|previous| previous.settings.clone());
        let same = |made: &Settings| self.solver.is_none_or(|s| s == Method::of(made.solver));
        let before = made.filter(|made| same(made) && self.record.is_none());
        if previous.is_some() && before.is_none() {
            terminal.remark(match self.solver.is_some() || self.record.is_some() {
                true => {
                    "another solver or recording than the model was made with: its other settings \
                        are as usual for that"
                }
                false => {
                    "the model's fusion.json does not tell its settings (it is of an older \
                        version): usual ones are taken"
                }
            });
        }
        let mut settings = before.unwrap_or_else(|| {
            let solver = self.solver.unwrap_or(Method::Exact).with(Exact::default());
            let usual = Settings::of(solver);
            match self.record {
                None => usual,
                Some(recording) => Settings {
                    solver,
                    distillation: usual.distillation,
                    ..match recording {
                        Recording::Usual => Settings::default(),
                        Recording::Published => Settings::published(),
                    }
                },
            }
        });
        if let Some(exact) = settings.solver.exact_mut() {
            exact.ridge = self.ridge.or(exact.ridge);
            exact.towards = self.towards.map(Pull::towards).or(exact.towards);
            exact.keep_weight = self.keep_weight.unwrap_or(exact.keep_weight);
        }
        if let Solver::Loraclr(loraclr) = &mut settings.solver {
            loraclr.margin = self.margin.unwrap_or(loraclr.margin);
            loraclr.decay = self.weight_decay.unwrap_or(loraclr.decay);
        } else if self.margin.is_some() || self.weight_decay.is_some() {
            return Err(Failure::Usage(
                "--margin and --weight-decay are of the solver loraclr: --solver names it".into(),
            ));
        }
        if let Solver::Merge(merge) = &mut settings.solver {
            merge.density = self.density.unwrap_or(merge.density);
            merge.seed = self.seed.unwrap_or(merge.seed);
        } else if self.density.is_some() {
            return Err(Failure::Usage(
                "--density is of the solvers ties and dare: --solver names one of them".into(),
            ));
        }
        settings.steps = self.steps.unwrap_or(settings.steps);
        settings.guidance = self.guidance.unwrap_or(settings.guidance);
        settings.seeds = self.samples.unwrap_or(settings.seeds);
        settings.seed = self.seed.unwrap_or(settings.seed);
        settings.precision = self.precision.unwrap_or(settings.precision);
        settings.rename |= self.rename;
        settings.memory = self.memory;
        if let Some(fit) = self.fit {
            settings.whole_prompts = fit == Fit::Prompts;
        }
        let asked = DistillationOptions {
            pictures: self.distillation,
            rate: self.distillation_rate,
            rank: self.distillation_rank,
            scenes: self.scenes,
            scene_strength: self.scene_strength,
            one_prompt: self.one_prompt,
        };
        let named = |field: &str| format!("--{}", field.replace('_', "-"));
        let distilled = asked.over(settings.distillation, &named);
        settings.distillation = distilled.map_err(|unfit| Failure::Usage(unfit.words))?;
        if let Some((width, height)) = self.size {
            if width % factor != 0 || height % factor != 0 || width == 0 || height == 0 {
                return Err(Failure::Usage(format!(
                    "--size {width}x{height}: expected multiples of {factor}"
                )));
            }
            settings.size = Some([height / factor, width / factor]);
        }
        if let Some(path) = &self.prompts {
            settings.prompts = templates("--prompts", path)?;
            settings.sampled.clone_from(&settings.prompts);
        }
        if let Some(path) = &self.sampled_prompts {
            settings.sampled = templates("--sampled-prompts", path)?;
        }
        match self.held_out.as_deref().map(|path| (path, path.to_str())) {
            Some((_, Some("none"))) => settings.held_out.clear(),
            Some((path, _)) => settings.held_out = templates("--held-out", path)?,
            None => {}
        }
        match self.keep.as_deref().map(|path| (path, path.to_str())) {
            Some((_, Some("none"))) => settings.keep.clear(),
            Some((path, _)) => settings.keep = lines("--keep", path)?,
            None => {}
        }
        Ok(settings)
    }
}

/// Lines with a place for a concept's words.
fn templates(option: &str, path: &Path) -> Result<Vec<String>> {
    let templates = lines(option, path)?;
    match templates.iter().find(|line| !line.contains("{}")) {
        Some(wrong) => Err(Failure::Usage(format!(
            "{}: \"{wrong}\" has no {{}} for the concept's words",
            path.display()
        ))),
        None => Ok(templates),
    }
}

/// The lines of a file that say something.
fn lines(option: &str, path: &Path) -> Result<Vec<String>> {
    let text = files::text(option, path, "prompts, one a line")?;
    let lines: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect();
    match lines.is_empty() {
        true => {
            Err(Failure::Failed(format!("{option} {}: it has no lines", path.display()).into()))
        }
        false => Ok(lines),
    }
}

/// `report/` in the fused model.
fn report_folder(model: &Path) -> Result<PathBuf> {
    let folder = model.join("report");
    std::fs::create_dir_all(&folder)
        .map_err(|source| files::Unwritable { path: folder.clone(), source })?;
    Ok(folder)
}

/// Figures as Markdown and JSON.
fn write_report(
    model: &Path,
    report: &fusion::Report,
    pictures: &[(String, String)],
) -> Result<()> {
    let folder = report_folder(model)?;
    let json = serde_json::to_string_pretty(report)?;
    let [text, page] = [fusion::markdown(report, pictures), fusion::html(report, pictures)];
    for (name, text) in [("report.md", text), ("report.html", page), ("report.json", json)] {
        files::write(&folder.join(name), text.as_bytes())?;
    }
    Ok(fusion::note_report(model)?)
}

/// How well each concept is answered, stage by stage.
fn summary(report: &fusion::Report, terminal: &Terminal) {
    report.notes.iter().for_each(|note| terminal.warning(note));
    for stage in &report.stages {
        let residuals: Vec<fusion::Residual> = stage.residuals().into_iter().flatten().collect();
        if residuals.is_empty() {
            // Averages and mergers take no inputs.
            let (title, solver) = (stage.stage.title(), &report.solver);
            terminal.note(format!("{title}: {solver}, nothing measured"));
            continue;
        }
        let mean = |pick: &dyn Fn(&fusion::Residual) -> f64| {
            residuals.iter().map(pick).sum::<f64>() / residuals.len() as f64
        };
        let others = match residuals.iter().all(|residual| residual.held_out.is_some()) {
            true => {
                let [fused, averaged] = [0, 1].map(|which| {
                    mean(&|residual| residual.held_out.map_or(0.0, |both| both[which]))
                });
                format!("; on inputs not solved with {fused:.3} ({averaged:.3})")
            }
            false => String::new(),
        };
        let lost = stage.base_loss().map_or(String::new(), |loss| {
            format!(", ordinary prompts change by {:.1} %", loss * 100.0)
        });
        terminal.note(format!(
            "{}: residual {:.3} (averaged {:.3}; 1 is the base model's){others}{lost}; ridge \
                {:.1e} towards {}; inputs in {:.1} s, solved in {:.2} s",
            stage.stage.title(),
            mean(&|residual| residual.fused),
            mean(&|residual| residual.averaged),
            stage.ridge.ridge,
            stage.ridge.towards,
            stage.seconds[0],
            stage.seconds[1],
        ));
        if !stage.stale.is_empty() {
            let moved = report
                .stages
                .iter()
                .flat_map(|stage| &stage.moved)
                .map(|(_, moved)| *moved)
                .fold(0.0, f64::max);
            let moved = match 100.0 * moved {
                moved if moved < 0.01 => "less than 0.01".to_string(),
                moved => format!("up to {moved:.2}"),
            };
            terminal.warning(format!(
                "inputs of {} were recorded when other concepts were fused; what the UNet reads \
                    of their prompts has moved by {moved} % since; --refresh records them anew",
                stage.stale.join(", "),
            ));
        }
    }
    if let Some(distillation) = &report.distillation {
        let mean = |which: usize| {
            let errors = distillation.errors.iter().map(|errors| errors[which].powi(2));
            (errors.sum::<f64>() / distillation.errors.len().max(1) as f64).sqrt()
        };
        terminal.note(format!(
            "distillation: predictions off by {:.4} (before {:.4}); {} of rank {}; \
                recorded in {:.1} s, trained in {:.1} s",
            mean(1),
            mean(0),
            counted(distillation.updates, "update"),
            distillation.rank,
            distillation.seconds[0],
            distillation.seconds[1],
        ));
        terminal.detail(format!(
            "memory planned: distillation {} on the device",
            units::bytes(distillation.device_bytes)
        ));
    }
    if report.statistics_bytes > 0 {
        terminal.detail(format!(
            "memory planned: statistics {} (for any number of concepts), device besides {}",
            units::bytes(report.statistics_bytes),
            units::bytes(report.device_bytes)
        ));
    }
}
