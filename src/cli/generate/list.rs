//! Pictures of a list: the model is opened once, and what is there already is not made again.
use std::path::Path;
use std::time::Instant;

use mixofshow::backend::Device;
use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::counted;
use mixofshow::pipeline::recipe::{Recipe, Source, hex};
use mixofshow::pipeline::{Generated, Pipeline};

use super::item::{Item, read};
use super::{Arguments, Order, open_model, order, told, write};
use crate::cli::progress::Progress;
use crate::cli::share::share;
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Global, Result, controls, interrupt, units};

/// What is opened once.
struct Studio {
    checkpoint: Checkpoint,
    gpu: Device,
    pipeline: Pipeline,
    hash: String,
}

impl Studio {
    fn open(
        order: &Order,
        arguments: &Arguments,
        global: &Global,
        terminal: &Terminal,
    ) -> Result<Studio> {
        let checkpoint = open_model(&order.recipe, arguments)?;
        let gpu = global.open_like(order.recipe.rounding)?;
        terminal.detail(format!("adapter: {}", gpu.name()));
        let mut pipeline = Pipeline::load(&gpu, &checkpoint, order.recipe.precision)?;
        order.vae.as_ref().map(|vae| pipeline.decode_by(vae)).transpose()?;
        pipeline.notes().iter().for_each(|note| terminal.detail(format!("model: {note}")));
        let hash = hex(&checkpoint.hash_watched(&mut |_| interrupt::asked())?);
        Ok(Studio { checkpoint, gpu, pipeline, hash })
    }
}

/// Whether a file has the picture of that seed already, made as it would be now.
fn is_there(wanted: &Recipe, seed: u64, path: &Path) -> bool {
    let Ok((found, _)) = Recipe::read(path) else { return false };
    let (mut a, mut b) = (wanted.request.clone(), found.request.clone());
    a.seed = seed;
    // What is left open is the model's, which is the same one.
    (a.width, a.height) = (a.width.or(b.width), a.height.or(b.height));
    a.sampler = a.sampler.or(b.sampler);
    a.batch = b.batch;
    for request in [&mut a, &mut b] {
        // None of them changes the picture.
        (request.tile, request.memory, request.preview) = (None, None, None);
    }
    let hash = |source: &Option<Source>| source.as_ref().map(|source| source.sha256.clone());
    let sources = |recipe: &Recipe| {
        let all = [&recipe.image, &recipe.mask, &recipe.latents, &recipe.vae, &recipe.upscaler];
        let concepts = recipe.concepts.iter();
        let concepts = concepts.map(|c| (c.source.sha256.clone(), c.scale, c.text_scale));
        let controls = recipe.controls.iter().map(|c| {
            let what = (c.network.clone(), c.image.sha256.clone(), c.make);
            // Regions weigh them by their names.
            (what, c.weight, c.start, c.end, c.name.clone())
        });
        (all.map(hash), concepts.collect::<Vec<_>>(), controls.collect::<Vec<_>>())
    };
    format!("{a:?}") == format!("{b:?}")
        && sources(wanted) == sources(&found)
        && wanted.precision == found.precision
        && wanted.model_hash == found.model_hash
}

pub fn run(list: &Path, arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let start = Instant::now();
    let items = read(list)?;
    let share = share(arguments.part, terminal)?;
    let own: Vec<&Item> =
        items.iter().enumerate().filter(|(i, _)| share.holds(*i)).map(|(_, item)| item).collect();
    let mut studio = None;
    let (mut made, mut there) = (0, 0);
    let mut progress = Progress::new(terminal);
    let _watched = interrupt::watched();
    for (done, item) in own.iter().enumerate() {
        progress.show("pictures", done, own.len());
        let mut asked = progress.aside(|| order(arguments, Some(item), terminal))?;
        let studio = match &mut studio {
            Some(studio) => studio,
            none => {
                none.insert(progress.aside(|| Studio::open(&asked, arguments, global, terminal))?)
            }
        };
        made_by(studio, &mut asked, arguments)?;
        let mut missing = Vec::new();
        for (number, destination) in asked.destinations.iter().enumerate() {
            if let Some(place) = &asked.place {
                place.elsewhere.fetch(destination)?;
            }
            let seed = asked.request.seed.wrapping_add(number as u64);
            missing.push(!is_there(&asked.recipe, seed, destination));
        }
        if !missing.contains(&true) {
            there += missing.len();
            continue;
        }
        made += missing.len();
        let Order { recipe, request, destinations, place, .. } = &asked;
        let prepared = studio.pipeline.prepare(request)?;
        progress.aside(|| {
            prepared.warnings().iter().for_each(|warning| terminal.warning(warning));
        });
        studio.pipeline.make_each::<Failure>(
            prepared,
            &mut |_| interrupt::asked(),
            &mut |generated: &Generated, number, picture| {
                let Some(destination) = destinations.get(number) else { return Ok(()) };
                write(recipe, generated, number, &picture, destination, place, arguments)?;
                let shown = told(destination, place);
                match progress.aside(|| terminal.print_path(&shown)) {
                    Err(Failure::Unread) => Ok(()),
                    other => other,
                }
            },
        )?;
    }
    progress.show("pictures", own.len(), own.len());
    drop(progress);
    let took = units::duration(start.elapsed());
    let there = match there {
        0 => String::new(),
        there => format!("; {} were there already", counted(there, "picture")),
    };
    terminal.note(format!("{} in {took}{there}", counted(made, "picture")));
    Ok(())
}

/// Fills in what the model says.
fn made_by(studio: &Studio, asked: &mut Order, arguments: &Arguments) -> Result<()> {
    let guidance = studio.checkpoint.guidance().filter(|_| arguments.leaves_guidance_open());
    if let Some(guidance) = guidance {
        (asked.request.guidance, asked.recipe.request.guidance) = (guidance, guidance);
    }
    let pictures = std::mem::take(&mut asked.control_pictures);
    asked.request.controls = controls::open(&asked.recipe.controls, pictures, &studio.checkpoint)?;
    arguments.concepts.check_base(&asked.request.concepts, &studio.checkpoint)?;
    asked.recipe.adapter = Some(studio.gpu.name().to_string());
    asked.recipe.rounding = studio.gpu.rounding();
    let replaced = if studio.gpu.backend::<Gpu>().is_some() { replaced_kernels()? } else { &[] };
    asked.recipe.kernels = replaced.to_vec();
    asked.recipe.model_hash = Some(studio.hash.clone());
    Ok(())
}
