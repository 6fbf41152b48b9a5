//! `mos train`
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use mixofshow::backend::Device;
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::counted;
use mixofshow::training::config::{self, Kind, Options, Settings};
use mixofshow::training::step::Method;
use mixofshow::training::{self, Begin, ClassCost, Event, Run, Summary, UpdateDone};
use serde::Serialize;

use super::progress::Progress;
use super::terminal::Terminal;
use super::{Failure, Global, Result, files, interrupt, units, values};

mod plan;

const EXAMPLES: &str = "\
Examples:
  A settings file to begin with, and the run that it describes:
    mos train --template person > zorp.toml
    mos train zorp.toml
  The same by flags alone; words that are given in both are taken from the flags:
    mos train --pictures photos/zorp --words \"<zorp1> <zorp2>\" --class-word man -o zorp.safetensors
  Going on after Ctrl-C, a crash or a loss of power:
    mos train zorp.toml --resume
  Settings of the method's own code:
    mos train options/train/EDLoRA/real/8101_EDLoRA_potter_Cmix_B4_Repeat500.yml
  What was trained:
    mos generate -p \"a photo of a <zorp1> <zorp2> on the beach\" --concept zorp.safetensors

Beside the concept file, NAME.training holds the saved state, the loss curve and sheets of pictures.";

/// Teach a model a new concept from a few pictures
///
/// Teaches a model a person, thing, place or style from 4 to 20 pictures: embeddings for new words
/// and a small LoRA (ED-LoRA, the method of Mix-of-Show), as one file of a few megabytes for
/// `mos generate --concept`. Settings come from a TOML file, from flags, or both.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Settings: TOML, the same keys as JSON, or the method's own YAML
    #[arg(value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a commented settings file to begin with: person, object, scene or style
    #[arg(long, value_name = "KIND")]
    template: Option<Kind>,
    /// Go on where the run was saved last; with more --steps, a finished run too
    ///
    /// Goes on where the run was saved last, to the very same bytes as without a break. With
    /// another number of --steps than before, finished runs go on as well: from there on, learning
    /// rates are those of a run of that many steps (with `decay = "constant"` the same as ever;
    /// otherwise they begin again at a part of the first rate).
    #[arg(long, conflicts_with = "restart")]
    resume: bool,
    /// Begin anew and replace what stands there, a run, finished or not, or a concept
    #[arg(long)]
    restart: bool,
    /// Check settings and pictures, and stop; needs no graphics adapter and makes no file
    ///
    /// Checks the settings, the words, that the results can be written, captions, and the pictures'
    /// and masks' sizes and whether their files are whole. Pixels are not decoded, so that a run
    /// may still find damage within a file, a mask that is black all over, or two files of the same
    /// picture.
    #[arg(long, conflicts_with = "resume")]
    check: bool,
    /// Stay within this much of the device's memory, such as 8G: activations are computed again,
    /// batches taken in parts and weights brought anew in each step, as far as that takes
    #[arg(long, value_name = "BYTES", value_parser = values::memory)]
    memory: Option<u64>,
    /// Print what the run would take of memory, and do nothing
    #[arg(long, conflicts_with_all = ["check", "resume"])]
    plan: bool,
    /// Print a report as JSON instead of the concept's name
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    if let Some(kind) = arguments.template {
        let alone = arguments.config.is_none()
            && arguments.options == Options::default()
            && !(arguments.resume || arguments.restart || arguments.check || arguments.json)
            && !arguments.plan
            && arguments.memory.is_none();
        if !alone {
            return Err(Failure::Usage(
                "--template prints a settings file and takes no other options: write them into \
                    that file"
                    .into(),
            ));
        }
        return terminal.print(config::template(kind).trim_end());
    }
    let (from_file, notes) = match &arguments.config {
        Some(path) => config::read(path)?,
        None => Default::default(),
    };
    notes.iter().for_each(|note| terminal.warning(note));
    let mut settings = Settings::new(arguments.options.clone().or(from_file))?;
    settings.memory = arguments.memory;
    files::check_run(&settings, arguments.config.as_deref())?;
    let start = Instant::now();
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = Checkpoint::open_named(&settings.model, files::models().as_deref())?;
    if arguments.check {
        progress.finish();
        let mut warnings = 0;
        let looked = training::look(&checkpoint, &settings, &mut |remark| {
            terminal.warning(remark);
            warnings += 1;
        })?;
        terminal.note(
            "checked: settings, words, captions, sizes of pictures and masks, whether files \
                are whole; not their pixels",
        );
        if let Some(class) = looked.class {
            terminal.note(cost(&class));
        }
        if looked.class.is_some() || looked.own_class > 0 {
            terminal.note(format!(
                "each batch has {} class pictures beside {} of the concept: about twice the time \
                    and memory",
                settings.batch, settings.batch
            ));
        }
        let [width, height] = looked.size;
        let verdict = match warnings {
            0 => "nothing to complain about".to_string(),
            1 => "ready, with one warning".to_string(),
            warnings => format!("ready, with {warnings} warnings"),
        };
        let beside = match looked.own_class {
            0 => String::new(),
            own => format!(" and {own} of the class"),
        };
        return terminal.print(format!(
            "{verdict}: {}{beside}, tuned at {width}x{height}",
            counted(looked.pictures, "picture")
        ));
    }
    let gpu = global.open()?;
    if arguments.plan {
        let planned = training::plan(&gpu, &checkpoint, &settings, &mut |remark| {
            progress.aside(|| terminal.warning(remark));
        })?;
        progress.finish();
        return plan::print(&gpu, &settings, &planned, arguments.json, terminal);
    }
    let begin = match (arguments.resume, arguments.restart) {
        (true, _) => Begin::Resume,
        (_, true) => Begin::Again,
        _ => Begin::New,
    };
    let watched = interrupt::watched();
    let bar = RefCell::new(&mut progress);
    let mut remark = |remark: &str| bar.borrow().aside(|| terminal.warning(remark));
    let mut run =
        Run::prepare_watched(&gpu, &checkpoint, &settings, begin, &mut remark, &mut |at| {
            // The bar says `load` until then.
            let stage = if at.stage == "hash" { at.stage } else { "load" };
            bar.borrow_mut().show(stage, at.done, at.of);
            interrupt::asked()
        })?;
    progress.aside(|| tell(&run, &gpu, terminal));
    let mut spent = false;
    let ended = run.run(&mut |event| {
        match event {
            Event::Update(at) => {
                let waits = settings.words_first as u64 > at.done;
                if at.embeddings_stopped && !spent && waits {
                    progress.aside(|| {
                        terminal.warning(format!(
                            "the words stand still from update {} on (norm_stop), and the LoRAs \
                                join after update {} (words_first): nothing is trained between",
                            at.done, settings.words_first
                        ))
                    });
                }
                let detail = detail(&at, &mut spent);
                progress.show_with("train", at.done as usize, at.of as usize, &detail);
            }
            Event::Class(at) => progress.show(at.stage, at.done, at.of),
            Event::Sheet(at) => progress.show(at.stage, at.done, at.of),
            Event::Wrote(path) => {
                progress.aside(|| terminal.detail(format!("wrote {}", path.display())))
            }
            _ => {}
        }
        interrupt::asked()
    });
    drop((progress, watched));
    match ended {
        Err(training::Error::Cancelled(_)) => {
            terminal.note(match run.done() {
                0 => "stopped before the first step; class pictures that are done stay. To go on:"
                    .to_string(),
                done => format!(
                    "stopped at step {done} of {}; all of it is saved. To go on:",
                    settings.steps
                ),
            });
            terminal.note(format!("  {}", same_command_with("--resume")));
            Err(Failure::Stopped)
        }
        ended => close(arguments, &settings, &ended?, start, terminal),
    }
}

/// What making class pictures will cost.
fn cost(class: &ClassCost) -> String {
    let ClassCost { pictures, there, steps, updates } = *class;
    match pictures - there {
        0 => format!("all {pictures} class pictures are there"),
        missing => format!(
            "{missing} of {pictures} class pictures will be made first, in {steps} sampling steps \
                each: as much work as about {updates} updates"
        ),
    }
}

/// What was found and what it will take.
fn tell(run: &Run, gpu: &Device, terminal: &Terminal) {
    terminal.detail(format!("adapter: {}", gpu.name()));
    if gpu.rounds_gradients().is_ok() {
        terminal.detail("gradients: by matrices where weights are f16 (--matrices)");
    }
    if let Ok(planned) = run.planned_bytes() {
        let [weights, activations, state] =
            [planned.weights, planned.activations, planned.state].map(units::bytes);
        terminal.detail(format!(
            "device memory planned: weights {weights}, activations \
            {activations}, what is trained {state}"
        ));
    }
    let of = run.settings().steps as u64;
    if run.done() == of {
        let more = of * 2;
        terminal.note(format!(
            "the run was finished after {}: only files are written again; with more --steps \
                (such as {more}) it goes on",
            counted(of, "step")
        ));
    } else if run.done() > 0 {
        terminal.note(format!("going on at step {} of {}", run.done(), run.settings().steps));
    }
}

/// How it goes, for the bar; `spent` remembers that the end of the embeddings was told.
fn detail(at: &UpdateDone, spent: &mut bool) -> String {
    *spent = *spent || at.embeddings_stopped;
    let norm = if *spent { format!("{:.3} (held)", at.norm) } else { format!("{:.3}", at.norm) };
    format!("loss {:.4}  lr {:.1e}  norm {norm}", at.loss, at.rates.unet)
}

/// The command line of this process with one more flag.
fn same_command_with(flag: &str) -> String {
    let quoted = |text: String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let arguments = std::env::args().filter(|argument| argument != flag && argument != "--restart");
    arguments.map(quoted).chain([flag.to_string()]).collect::<Vec<_>>().join(" ")
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    concept: &'a PathBuf,
    curve: &'a PathBuf,
    sheet: &'a Option<PathBuf>,
    steps: usize,
    first_loss: f32,
    last_loss: f32,
    embedding_norm: f32,
    seconds: f64,
    seconds_of_steps: f64,
    seconds_of_sheets: f64,
    seconds_of_class_pictures: f64,
    warnings: Vec<String>,
}

fn close(
    arguments: &Arguments,
    settings: &Settings,
    summary: &Summary,
    start: Instant,
    terminal: &Terminal,
) -> Result<()> {
    let [first, last] = summary.losses;
    if arguments.json {
        return terminal.print_json(&Report {
            concept: &summary.concept,
            curve: &summary.curve,
            sheet: &summary.sheet,
            steps: settings.steps,
            first_loss: first,
            last_loss: last,
            embedding_norm: summary.norm,
            seconds: start.elapsed().as_secs_f64(),
            seconds_of_steps: summary.steps_took.as_secs_f64(),
            seconds_of_sheets: summary.sheets_took.as_secs_f64(),
            seconds_of_class_pictures: summary.class_took.as_secs_f64(),
            warnings: terminal.told(),
        });
    }
    terminal.print_path(&summary.concept)?;
    let per_step = summary
        .steps_took
        .checked_div(u32::try_from(summary.steps).unwrap_or(u32::MAX))
        .unwrap_or_default();
    let [whole, steps, sheets, each] =
        [start.elapsed(), summary.steps_took, summary.sheets_took, per_step].map(units::duration);
    let class = match summary.class_took.as_secs_f64() >= 1.0 {
        true => format!("class pictures in {}, ", units::duration(summary.class_took)),
        false => String::new(),
    };
    terminal.note(format!(
        "{} in {steps} ({each} each), {class}sheets in {sheets}, all in {whole}",
        counted(summary.steps, "step")
    ));
    terminal.note(format!(
        "loss {first:.4} at first, {last:.4} at last; norm of the embeddings {:.3}",
        summary.norm
    ));
    let looked =
        summary.sheet.iter().chain([&summary.curve]).map(|path| path.display().to_string());
    terminal.note(format!("to look at: {}", looked.collect::<Vec<_>>().join(", ")));
    let strength = if settings.method == Method::PPlus { "" } else { ":0.8" };
    terminal.note("to use it:");
    let model = if settings.model == SHIPPED {
        String::new()
    } else {
        format!(" -m {}", quoted(&settings.model))
    };
    let concept = format!("{}{strength}", summary.concept.display());
    terminal.note(format!(
        "  mos generate{model} -p \"a photo of {}\" --concept {}",
        settings.phrase(),
        quoted(&concept)
    ));
    Ok(())
}

/// As a shell reads it as one argument.
fn quoted(argument: &str) -> Cow<'_, str> {
    shlex::try_quote(argument).unwrap_or(Cow::Borrowed(argument))
}
