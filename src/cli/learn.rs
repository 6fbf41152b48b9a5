//! Concepts that other commands need: trained, or read where they are there already.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use mixofshow::backend::Device;
use mixofshow::backend::cpu::Cpu;
use mixofshow::checkpoint::{Checkpoint, base_hash_cache};
use mixofshow::concept::{Concept, check_base};
use mixofshow::training::config::Settings;
use mixofshow::training::{self, Begin, Event, Run, Summary, UpdateDone};

use super::progress::Progress;
use super::terminal::Terminal;
use super::{Global, Result, files, interrupt, units};

/// A concept, and the seconds that it took where it was not there already.
pub type Trained = (Concept, Option<f64>);

/// As [`learn_each`], with nobody to tell.
pub fn learn_all(
    lessons: &[Settings],
    checkpoint: &Checkpoint,
    gpu: &Device,
    global: &Global,
    terminal: &Terminal,
) -> Result<Vec<Trained>> {
    learn_each(lessons, checkpoint, gpu, global, terminal, &mut |_, _| Ok(()))
}

/// Learns concepts, or reads those that are there already, of the same base model. One program
/// leaves cores idle now and then, so where the processor computes, as many are trained side by side
/// as the machine has cores, and what is left over gets all of it: what each learns is the same.
/// `done` is told of each that has been learnt, with its seconds, as soon as it is there.
pub fn learn_each(
    lessons: &[Settings],
    checkpoint: &Checkpoint,
    gpu: &Device,
    global: &Global,
    terminal: &Terminal,
    done: &mut dyn FnMut(&Settings, f64) -> Result<()>,
) -> Result<Vec<Trained>> {
    let mut trained = Vec::with_capacity(lessons.len());
    for settings in lessons {
        files::check_run(settings, None)?;
        trained
            .push(present(&settings.output, checkpoint, terminal)?.map(|concept| (concept, None)));
    }
    let missing: Vec<usize> = (0..lessons.len()).filter(|&i| trained[i].is_none()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = if gpu.is_processor() { cores } else { 1 };
    let _watched = interrupt::watched();
    let mut progress = Progress::new(terminal);
    let mut updates = vec![0; lessons.len()];
    for group in groups(&missing, at_once) {
        // A device for each, or they would wait for each other's work.
        let one = |i: usize| match i {
            // The processor is shared out, where several share it.
            0 if group.len() == 1 || gpu.backend::<Cpu>().is_none() => Ok(gpu.clone()),
            _ => Ok(global.open_one_of(at_once.min(group.len()))?),
        };
        let gpus = (0..at_once.min(group.len())).map(one).collect::<Result<Vec<_>>>()?;
        let of = missing.iter().map(|&lesson| lessons[lesson].steps).sum();
        side_by_side(lessons, group, checkpoint, gpus, &mut |lesson, news| {
            let name = &lessons[lesson].name;
            match news {
                News::Remark(remark) => {
                    progress.aside(|| terminal.warning(format!("{name}: {remark}")))
                }
                News::Class(made, pictures) => {
                    let detail = format!("{name}  class picture {made} of {pictures}");
                    progress.show_with("train", updates.iter().sum(), of, &detail);
                }
                News::Update(at) => {
                    updates[lesson] = at.done as usize;
                    let detail = format!("{name}  loss {:.4}", at.loss);
                    progress.show_with("train", updates.iter().sum(), of, &detail);
                }
                News::End(outcome) => {
                    let (concept, summary, seconds) = (*outcome)?;
                    progress.aside(|| tell(terminal, name, &summary, seconds));
                    done(&lessons[lesson], seconds)?;
                    trained[lesson] = Some((concept, Some(seconds)));
                }
            }
            Ok(())
        })?;
    }
    Ok(trained.into_iter().flatten().collect())
}

/// Lessons that are learnt together: full rows of `at_once`, then what is left over.
fn groups(missing: &[usize], at_once: usize) -> impl Iterator<Item = &[usize]> {
    let (rows, rest) = missing.split_at(missing.len() - missing.len() % at_once.max(1));
    [rows, rest].into_iter().filter(|group| !group.is_empty())
}

/// Learns a group's, as many at once as there are devices. The first failure ends all of them.
fn side_by_side(
    lessons: &[Settings],
    group: &[usize],
    checkpoint: &Checkpoint,
    gpus: Vec<Device>,
    hear: &mut dyn FnMut(usize, News) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (news, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        for gpu in gpus {
            let (news, next) = (news.clone(), &next);
            scope.spawn(move || {
                while let Some(&lesson) = group.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome =
                        teach(&lessons[lesson], checkpoint, &gpu, &mut |what| match said(
                            &news, lesson, what,
                        ) {
                            true => interrupt::asked(),
                            false => ControlFlow::Break(()),
                        });
                    let failed = outcome.is_err();
                    if !said(&news, lesson, News::End(Box::new(outcome))) || failed {
                        return;
                    }
                }
            });
        }
        drop(news);
        // With the channel ends all that is under way.
        heard.into_iter().try_for_each(|(lesson, news)| hear(lesson, news))
    })
}

enum News {
    Remark(String),
    /// Class pictures that are made, and of how many.
    Class(usize, usize),
    Update(UpdateDone),
    End(Box<Taught>),
}

/// The concept, how the run ended, and the seconds that it took. Boxed: the error is large.
type Taught = std::result::Result<(Concept, Summary, f64), Box<training::Error>>;

/// Whether anybody still listens.
fn said(news: &Sender<(usize, News)>, lesson: usize, what: News) -> bool {
    news.send((lesson, what)).is_ok()
}

/// The concept in `path`, if it is there and of this base model.
fn present(path: &Path, checkpoint: &Checkpoint, terminal: &Terminal) -> Result<Option<Concept>> {
    if !path.exists() {
        return Ok(None);
    }
    let concept = Concept::read(path)?;
    match check_base([&concept], checkpoint, base_hash_cache().as_deref()) {
        Ok(()) => Ok(Some(concept)),
        Err(_) => {
            terminal.note(format!("{} is of another base model: trained again", path.display()));
            Ok(None)
        }
    }
}

/// Learns one, unless `watch` ends it.
fn teach(
    settings: &Settings,
    checkpoint: &Checkpoint,
    gpu: &Device,
    watch: &mut dyn FnMut(News) -> ControlFlow<()>,
) -> Taught {
    let start = Instant::now();
    let mut run = Run::prepare(gpu, checkpoint, settings, Begin::Again, &mut |remark| {
        // Whoever is to stop is told so by the next update.
        let _ = watch(News::Remark(remark.to_string()));
    })?;
    let summary = run.run(&mut |event| match event {
        Event::Update(at) => watch(News::Update(at)),
        Event::Class(at) => watch(News::Class(at.done, at.of)),
        _ => ControlFlow::Continue(()),
    })?;
    let concept = Concept::read(&settings.output).map_err(training::Error::from)?;
    Ok((concept, summary, start.elapsed().as_secs_f64()))
}

fn tell(terminal: &Terminal, name: &str, summary: &Summary, seconds: f64) {
    let took = units::duration(Duration::from_secs_f64(seconds));
    terminal
        .note(format!("{name}: {took}, loss {:.4} to {:.4}", summary.losses[0], summary.losses[1]));
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn what_is_left_over_comes_last_and_alone() {
        let of = |count: usize, at_once: usize| -> Vec<Vec<usize>> {
            let missing: Vec<usize> = (0..count).collect();
            groups(&missing, at_once).map(<[usize]>::to_vec).collect()
        };
        assert_eq!(of(3, 2), [vec![0, 1], vec![2]]);
        assert_eq!(of(4, 2), [[0, 1, 2, 3]]);
        assert_eq!(of(3, 16), [[0, 1, 2]]);
        assert_eq!(of(2, 1), [[0, 1]]);
        assert!(of(0, 4).is_empty());
    }
}
