//! `mos generate`
mod arguments;
mod concepts;
mod destination;
mod placing;
mod report;
mod steering;

use std::path::PathBuf;
use std::time::Instant;

use mixofshow::backend::Device;
use mixofshow::checkpoint::{Checkpoint, SHIPPED};
use mixofshow::diffusion::latents;
use mixofshow::diffusion::pipeline::{Generated, Pipeline, Request};
use mixofshow::diffusion::recipe::{Recipe, Source, hex};
use mixofshow::output;
use mixofshow::picture::{self, Mask, Picture};

use super::files::{Unwritable, make_folder_of};
use super::progress::Progress;
use super::terminal::Terminal;
use super::{Failure, Global, Result, files, units};
pub use arguments::Arguments;
pub use destination::destinations;
use report::Report;

/// What is known before the model is opened, all inputs read.
struct Order {
    recipe: Recipe,
    /// The recipe's request with the pictures and latents that it names.
    request: Request,
    destinations: Vec<PathBuf>,
    /// One for each of the recipe's controls.
    control_pictures: Vec<Picture>,
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let Order { mut recipe, mut request, destinations, control_pictures } = order(arguments, terminal)?;
    let start = Instant::now();
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = open_model(&recipe, arguments)?;
    if let Some(guidance) = checkpoint.guidance().filter(|_| arguments.leaves_guidance_open()) {
        (request.guidance, recipe.request.guidance) = (guidance, guidance);
    }
    request.controls = steering::open(&recipe, control_pictures, &checkpoint)?;
    arguments.concepts.check_base(&request.concepts, &checkpoint)?;
    let gpu = global.open()?;
    progress.aside(|| {
        terminal.detail(format!("adapter: {}", gpu.name()));
        tell_of_other_adapter(&recipe, &gpu, terminal);
    });
    let wanted_hash = recipe.model_hash.take().filter(|_| arguments.model.is_none());
    // The hash reads the whole model once more, so it is made while the device works.
    let (generated, loading) = std::thread::scope(|scope| {
        let hashing = scope.spawn(|| hex(&checkpoint.hash()));
        let mut pipeline = Pipeline::load(&gpu, &checkpoint, recipe.precision)?;
        progress.aside(|| pipeline.notes().iter().for_each(|note| terminal.detail(format!("model: {note}"))));
        let prepared = pipeline.prepare(&request)?;
        progress.aside(|| {
            prepared.warnings().iter().for_each(|warning| terminal.warning(warning));
            let planned = prepared.memory();
            let [weights, sampling, decoding] = [planned.weights, planned.sampling, planned.decoding].map(units::bytes);
            terminal.detail(format!("device memory planned: weights {weights}, sampling {sampling}, decoding {decoding}"));
        });
        let loading = start.elapsed();
        let generated = pipeline.make(prepared, &mut |at| progress.show(at.stage, at.done, at.of))?;
        recipe.model_hash = hashing.join().ok();
        Ok::<_, Failure>((generated, loading))
    })?;
    drop(progress);
    recipe.adapter = Some(gpu.name().to_string());
    if let (Some(wanted), Some(found)) = (&wanted_hash, &recipe.model_hash)
        && !found.starts_with(wanted.as_str())
    {
        terminal.warning("the model is not the one that made that picture (its weights have another hash): the result differs");
    }
    write(&recipe, &generated, &destinations, arguments)?;
    let report = Report::new(&recipe, &generated, &destinations, loading, start.elapsed());
    if arguments.json {
        terminal.print_json(&report)?;
    } else {
        for destination in &destinations {
            terminal.print(destination.display())?;
        }
    }
    terminal.note(report.closing_lines());
    Ok(())
}

/// Gathers what is asked for, and checks what can be checked before any work is done.
fn order(arguments: &Arguments, terminal: &Terminal) -> Result<Order> {
    let mut recipe = match &arguments.like {
        Some(path) => {
            let (recipe, notes) = Recipe::read(path)?;
            notes.iter().for_each(|note| terminal.warning(note));
            recipe
        }
        None => Recipe::default(),
    };
    arguments.apply(&mut recipe)?;
    let control_pictures = arguments.steering.apply(&mut recipe, terminal)?;
    let given = |path: &PathBuf| Source::of(path);
    let remembered = [recipe.image.take(), recipe.mask.take(), recipe.latents.take()];
    let [image, mask, noise] = remembered;
    recipe.image = source(arguments.init_image.as_ref().map(given).transpose()?, image, "--init-image", terminal)?;
    // A mask belongs to its picture: another picture comes without it.
    let mask = mask.filter(|_| arguments.init_image.is_none());
    recipe.mask = source(arguments.mask.as_ref().map(given).transpose()?, mask, "--mask", terminal)?;
    if arguments.latents.is_some() {
        recipe.latents_index = 0;
    }
    recipe.latents = source(arguments.latents.as_ref().map(given).transpose()?, noise, "--latents", terminal)?;
    if recipe.image.is_none() && recipe.mask.is_some() {
        return Err(Failure::Usage("--mask says where to paint in a picture: --init-image names the picture".into()));
    }
    if recipe.image.is_none() && arguments.has_strength() {
        return Err(Failure::Usage("--strength says how much to change a picture: --init-image names the picture".into()));
    }

    let mut request = recipe.request.clone();
    if let Some(image) = &recipe.image {
        request.image = Some(Picture::open(&image.path)?);
    }
    if let Some(mask) = &recipe.mask {
        request.mask = Some(Mask::open(&mask.path)?);
    }
    if let Some(noise) = &recipe.latents {
        let all = latents::read(&noise.path)?;
        // A picture that is made again starts from its own latents alone.
        let array = match arguments.latents {
            None => latents::one_of(&all, recipe.latents_index).unwrap_or(all),
            Some(_) => all,
        };
        if arguments.latents.is_some() && !arguments.has_batch() {
            request.batch = array.shape.first().copied().unwrap_or(1);
        }
        request.latents = Some(array);
    }
    request.concepts = arguments.concepts.open(&mut recipe, arguments.like.as_deref(), terminal)?;
    let seeds: Vec<u64> = (0..request.batch as u64).map(|i| request.seed.wrapping_add(i)).collect();
    let destinations = destinations(arguments.output.as_deref(), &request.prompt, &seeds);
    for destination in &destinations {
        make_folder_of(destination)?;
        picture::check_destination(destination)?;
    }
    if let Some(path) = &arguments.save_latents {
        make_folder_of(path)?;
        output::check(path).map_err(|source| Unwritable { path: path.clone(), source })?;
    }
    Ok(Order { recipe, request, destinations, control_pictures })
}

/// A file that was given, else the one that the recipe names, which must still be there.
fn source(given: Option<Source>, named: Option<Source>, option: &str, terminal: &Terminal) -> Result<Option<Source>> {
    let Some(named) = named.filter(|_| given.is_none()) else {
        return Ok(given);
    };
    let found = Source::of(&named.path).map_err(|_| Gone { path: named.path.clone(), option: option.to_string() })?;
    if found.sha256 != named.sha256 {
        terminal.warning(format!("{} has changed since that picture was made from it: the result differs", named.path.display()));
    }
    Ok(Some(found))
}

fn open_model(recipe: &Recipe, arguments: &Arguments) -> Result<Checkpoint> {
    let name = recipe.model.as_deref().unwrap_or(SHIPPED);
    let opened = Checkpoint::open_named(name, files::models().as_deref());
    match (&arguments.like, arguments.model.is_none()) {
        (Some(like), true) => opened.map_err(|e| {
            let hint =
                format!("{} was made by the model `{name}`, which cannot be opened: {e}; --model names another", like.display());
            Failure::Failed(hint.into())
        }),
        _ => Ok(opened?),
    }
}

fn tell_of_other_adapter(recipe: &Recipe, gpu: &Device, terminal: &Terminal) {
    if let Some(adapter) = recipe.adapter.as_ref().filter(|adapter| *adapter != gpu.name()) {
        let here = gpu.name();
        terminal.note(format!("note: that picture was made on {adapter}; on {here} it comes out the same up to rounding"));
    }
}

fn write(recipe: &Recipe, generated: &Generated, destinations: &[PathBuf], arguments: &Arguments) -> Result<()> {
    if let Some(path) = &arguments.save_latents {
        latents::write(path, &generated.latents)?;
    }
    for (i, (picture, destination)) in generated.pictures.iter().zip(destinations).enumerate() {
        picture.save(destination, Some(&recipe.parameters(generated, i)))?;
        arguments.placing.draw(recipe, picture, destination)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("that picture was made from {}, which cannot be read: {option} says where it is now", path.display())]
struct Gone {
    path: PathBuf,
    option: String,
}
