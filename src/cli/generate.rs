//! `mos generate`
mod arguments;
mod concepts;
mod destination;
mod item;
mod larger;
mod list;
mod placing;
mod plan;
mod previews;
mod report;
mod steering;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mixofshow::backend::Device;
use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::output;
use mixofshow::checkpoint::{Checkpoint, Component, SHIPPED};
use mixofshow::picture::{Mask, Picture};
use mixofshow::pipeline::latents;
use mixofshow::pipeline::recipe::{Lookup, Recipe, Source, hex};
use mixofshow::pipeline::{self, Generated, MOST_PICTURES, Pipeline, Request};

use super::files::make_folder_of;
use super::objects::{self, Place};
use super::progress::Progress;
use super::terminal::Terminal;
use super::{Failure, Global, Result, controls, files, interrupt, units};
pub use arguments::Arguments;
pub use destination::destinations;
use item::Item;
use previews::Screen;
use report::Report;

/// What is known before the model is opened, all inputs read.
struct Order {
    recipe: Recipe,
    /// The recipe's request with the pictures and latents that it names.
    request: Request,
    destinations: Vec<PathBuf>,
    /// Where pictures go besides, where a URL was given.
    place: Option<Place>,
    /// One for each of the recipe's controls.
    control_pictures: Vec<Picture>,
    /// The small autoencoder that decodes.
    vae: Option<Component>,
    screen: Option<Screen>,
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    if let Some(list) = &arguments.list {
        return list::run(list, arguments, global, terminal);
    }
    if arguments.part.is_some() {
        let text = "--part shares out the lines of a list: --list names it";
        return Err(Failure::Usage(text.into()));
    }
    let Order { mut recipe, mut request, destinations, place, control_pictures, vae, screen } =
        order(arguments, None, terminal)?;
    let start = Instant::now();
    let mut progress = Progress::new(terminal);
    progress.show("load", 0, 1);
    let checkpoint = open_model(&recipe, arguments)?;
    if let Some(guidance) = checkpoint.guidance().filter(|_| arguments.leaves_guidance_open()) {
        (request.guidance, recipe.request.guidance) = (guidance, guidance);
    }
    let negative = &request.negative_prompt;
    if request.guidance == 1.0 && arguments.has_negative() && !negative.trim().is_empty() {
        terminal.warning("--negative has no effect at --guidance 1, which is no guidance");
    }
    request.controls = controls::open(&recipe.controls, control_pictures, &checkpoint)?;
    arguments.concepts.check_base(&request.concepts, &checkpoint)?;
    let gpu = global.open_like(recipe.rounding)?;
    progress.aside(|| {
        terminal.detail(format!("adapter: {}", gpu.name()));
        if gpu.rounding().is_some_and(|rounding| rounding.activations) {
            terminal.detail("activations: f16 where weights are (--activations)");
        }
        tell_of_other_adapter(&recipe, &gpu, terminal);
        tell_of_other_kernels(&recipe, terminal)
    })?;
    recipe.adapter = Some(gpu.name().to_string());
    recipe.rounding = gpu.rounding();
    // The processor has kernels of its own.
    let replaced = if gpu.backend::<Gpu>().is_some() { replaced_kernels()? } else { &[] };
    recipe.kernels = replaced.to_vec();
    let wanted_hash = recipe.model_hash.take().filter(|_| arguments.model.is_none());
    // The hash reads the whole model once more, so it is made while the device works.
    let made = std::thread::scope(|scope| {
        let hashing = scope.spawn(|| {
            let wanted = !arguments.plan;
            let hash = || checkpoint.hash_watched(&mut |_| interrupt::asked()).ok();
            wanted.then(hash).flatten().map(|hash| hex(&hash))
        });
        let mut pipeline = Pipeline::load(&gpu, &checkpoint, recipe.precision)?;
        vae.as_ref().map(|vae| pipeline.decode_by(vae)).transpose()?;
        progress.aside(|| {
            pipeline.notes().iter().for_each(|note| terminal.detail(format!("model: {note}")))
        });
        let prepared = pipeline.prepare(&request).map_err(|error| of_latents(error, &recipe))?;
        if arguments.plan {
            progress.finish();
            plan::print(&gpu, &pipeline, &prepared, arguments.json, terminal)?;
            return Ok(None);
        }
        progress.aside(|| {
            prepared.warnings().iter().for_each(|warning| terminal.warning(warning));
            prepared.costs().iter().for_each(|cost| terminal.note(format!("cost: {cost}")));
            let planned = prepared.memory();
            let [weights, sampling, decoding] =
                [planned.weights, planned.sampling, planned.decoding].map(units::bytes);
            terminal.detail(format!(
                "device memory planned: weights {weights}, sampling {sampling}, decoding {decoding}"
            ));
        });
        let loading = start.elapsed();
        let mut hashing = Some(hashing);
        let bar = RefCell::new(&mut progress);
        let _watched = interrupt::watched_briefly();
        let unseen = RefCell::new(None);
        let generated = pipeline.make_shown(
            prepared,
            &mut |at| {
                bar.borrow_mut().show(at.stage, at.done, at.of);
                interrupt::asked()
            },
            &mut |generated, number, picture| {
                if let Some(hashing) = hashing.take() {
                    recipe.model_hash = hashing.join().ok().flatten();
                }
                let Some(destination) = destinations.get(number) else { return Ok(()) };
                write(&recipe, generated, number, &picture, destination, &place, arguments)?;
                let silent = arguments.json || files::is_stream(destination);
                let shown = told(destination, &place);
                let print = || if silent { Ok(()) } else { terminal.print_path(&shown) };
                match bar.borrow().aside(print) {
                    // That nobody reads the names is no reason to leave pictures out.
                    Err(Failure::Unread) => Ok(()),
                    other => other,
                }
            },
            &mut |preview| {
                let Some(screen) = &screen else { return };
                if let Err(failure) = bar.borrow().aside(|| screen.show(preview)) {
                    // Said once, and the work goes on.
                    unseen.borrow_mut().get_or_insert(failure);
                }
            },
        )?;
        if let Some(failure) = unseen.into_inner() {
            let why = match failure {
                Failure::Failed(error) => error.to_string(),
                Failure::Usage(why) => why,
                Failure::Stopped | Failure::Unread => "nobody reads them".into(),
            };
            terminal.warning(format!("previews could not be shown: {why}"));
        }
        Ok::<_, Failure>(Some((generated, loading)))
    })?;
    drop(progress);
    let Some((generated, loading)) = made else { return Ok(()) };
    if let Some(path) = &arguments.save_latents {
        make_folder_of(path)?;
        latents::write(path, &generated.latents)?;
    }
    if let (Some(wanted), Some(found)) = (&wanted_hash, &recipe.model_hash)
        && !found.starts_with(wanted.as_str())
    {
        terminal.warning(
            "the model is not the one that made that picture (its weights have \
            another hash): the result differs",
        );
    }
    let times = [loading, start.elapsed()];
    let destinations: Vec<PathBuf> = destinations.iter().map(|path| told(path, &place)).collect();
    let report = Report::new(&recipe, &generated, &destinations, times, terminal.told());
    if arguments.json {
        terminal.print_json(&report)?;
    }
    terminal.note(report.closing_lines());
    Ok(())
}

/// An error about latents, with the file that they come from.
fn of_latents(error: pipeline::Error, recipe: &Recipe) -> Failure {
    match (&error, &recipe.latents) {
        (pipeline::Error::Option { option, .. }, Some(file)) if *option == "latents" => {
            Failure::Failed(format!("--latents {}: {error}", file.path.display()).into())
        }
        _ => error.into(),
    }
}

/// Gathers what is asked for, and checks what can be checked before any work is done.
fn order(arguments: &Arguments, item: Option<&Item>, terminal: &Terminal) -> Result<Order> {
    let mut recipe = match &arguments.like {
        Some(path) => {
            let (recipe, notes) = Recipe::read(path)?;
            notes.iter().for_each(|note| terminal.warning(note));
            recipe
        }
        None => Recipe::default(),
    };
    arguments.apply(&mut recipe)?;
    if let Some(item) = item {
        arguments.apply_item(item, &mut recipe.request);
    }
    let like = arguments.like.as_deref();
    let control_pictures = arguments.steering.apply(&mut recipe, like, terminal)?;
    let given = |path: &PathBuf| Source::of(path);
    let remembered = [recipe.image.take(), recipe.mask.take(), recipe.latents.take()];
    let [image, mask, noise] = remembered;
    recipe.image = source(
        arguments.init_image.as_ref().map(given).transpose()?,
        image,
        "--init-image",
        like,
        terminal,
    )?;
    // A mask belongs to its picture: another picture comes without it.
    let mask = mask.filter(|_| arguments.init_image.is_none());
    recipe.mask =
        source(arguments.mask.as_ref().map(given).transpose()?, mask, "--mask", like, terminal)?;
    if arguments.latents.is_some() {
        recipe.latents_index = 0;
    }
    recipe.latents = source(
        arguments.latents.as_ref().map(given).transpose()?,
        noise,
        "--latents",
        like,
        terminal,
    )?;
    if recipe.image.is_none() && recipe.mask.is_some() {
        return Err(Failure::Usage(
            "--mask says where to paint in a picture: --init-image names the picture".into(),
        ));
    }
    if recipe.image.is_none() && arguments.has_strength() {
        return Err(Failure::Usage(
            "--strength says how much to change a picture: --init-image names the picture".into(),
        ));
    }

    let opened = arguments.larger.apply(&mut recipe, like, terminal)?;
    if recipe.image.is_some() && recipe.request.hires.is_some() {
        return Err(Failure::Usage(
            "--hires makes a larger picture of one that is made from noise: it goes with no \
                --init-image"
                .into(),
        ));
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
    if request.batch > MOST_PICTURES {
        let problem = format!(
            "{} pictures are asked for by the latents' file: at most {MOST_PICTURES} are made at \
                once",
            request.batch
        );
        return Err(Failure::Usage(problem));
    }
    let seeds: Vec<u64> = (0..request.batch as u64).map(|i| request.seed.wrapping_add(i)).collect();
    let listed = item.map(|item| item.output(arguments.output.as_deref(), seeds.len()));
    let (place, output) = place(listed.as_deref().or(arguments.output.as_deref()))?;
    let destinations = destinations(output.as_deref(), &request.prompt, &seeds);
    if arguments.output.as_deref().is_some_and(files::is_stream) {
        check_stream(arguments, seeds.len())?;
    }
    let mut outputs: Vec<PathBuf> = arguments.save_latents.iter().cloned().collect();
    arguments.save_latents.iter().try_for_each(|path| files::check_latents(path))?;
    for destination in &destinations {
        files::check_picture(destination)?;
        outputs.push(destination.clone());
        if arguments.placing.show_layout {
            outputs.push(placing::drawing_of(destination));
            files::check_picture(&placing::drawing_of(destination))?;
        }
    }
    let screen = arguments.previews.screen(&destinations, terminal)?;
    if let Some(path) = screen.as_ref().and_then(Screen::file) {
        files::check_picture(path)?;
        outputs.push(path.to_path_buf());
    }
    let mut names = HashSet::new();
    if let Some(twice) =
        outputs.iter().find(|path| !is_device(path) && !names.insert(path.as_path()))
    {
        return Err(Failure::Usage(format!(
            "{}: two results would be written to that file",
            twice.display()
        )));
    }
    let inputs = inputs(arguments, &recipe);
    outputs.iter().try_for_each(|output| files::check_apart(output, &inputs))?;
    let vae = opened.vae;
    Ok(Order { recipe, request, destinations, place, control_pictures, vae, screen })
}

/// What a URL stands for, and where pictures are written here.
fn place(output: Option<&Path>) -> Result<(Option<Place>, Option<PathBuf>)> {
    let Some(output) = output.filter(|output| objects::is_url(output)) else {
        return Ok((None, output.map(Path::to_path_buf)));
    };
    let url = output.to_string_lossy();
    // The last part is a file's name or a pattern, as of paths.
    let (folder, name) = match url.strip_prefix("s3://").and_then(|rest| rest.rsplit_once('/')) {
        Some((folder, name)) => (format!("s3://{folder}"), name),
        None => (url.to_string(), ""),
    };
    let place = Place::of(Path::new(&folder))?;
    let output = place.path.join(name);
    Ok((Some(place), Some(output)))
}

/// As people are told of a picture's file.
fn told(destination: &Path, place: &Option<Place>) -> PathBuf {
    place.as_ref().map_or_else(|| destination.to_path_buf(), |place| place.told(destination))
}

/// The files that are read.
fn inputs(arguments: &Arguments, recipe: &Recipe) -> Vec<PathBuf> {
    let named = [&arguments.like, &arguments.placing.layout].into_iter().flatten().cloned();
    let pictures = [&recipe.image, &recipe.mask, &recipe.latents, &recipe.vae, &recipe.upscaler];
    let pictures = pictures.into_iter().flatten();
    let concepts = recipe.concepts.iter().map(|concept| &concept.source);
    let controls = recipe.controls.iter().map(|control| &control.image);
    let sources = pictures.chain(concepts).chain(controls).chain(&recipe.region_masks);
    let networks = recipe.controls.iter().map(|control| control.network.as_str());
    let models = networks.chain(recipe.model.as_deref()).filter_map(files::model);
    // No picture is a part of a folder of networks.
    let is_alone = |path: &PathBuf| path.is_file() || arguments.save_latents.is_some();
    named.chain(sources.map(|source| source.path.clone())).chain(models.filter(is_alone)).collect()
}

/// An error where standard output cannot be one picture and nothing else.
fn check_stream(arguments: &Arguments, pictures: usize) -> Result<()> {
    let problem = if pictures != 1 {
        format!("standard output takes one picture, and {pictures} are asked for")
    } else if arguments.json {
        "the picture and the report of --json cannot both go to standard output".into()
    } else if arguments.placing.show_layout {
        "--show-layout writes a second picture, and standard output takes one".into()
    } else if std::io::stdout().is_terminal() {
        "standard output is a terminal, which shows no pictures; send it to a file or a program"
            .into()
    } else {
        return Ok(());
    };
    Err(Failure::Usage(format!("--output -: {problem}")))
}

/// What several results may go to, one after another.
fn is_device(path: &Path) -> bool {
    path.exists() && !output::is_replaced(path)
}

/// A file that was given, else the one that the recipe names, which must still be there: where it
/// was, or near the picture `like`.
fn source(
    given: Option<Source>,
    named: Option<Source>,
    option: &str,
    like: Option<&Path>,
    terminal: &Terminal,
) -> Result<Option<Source>> {
    let (Some(named), None) = (named, &given) else { return Ok(given) };
    match named.find(like.unwrap_or(&named.path)) {
        Lookup::Same(path) => Ok(Some(Source { path, ..named })),
        Lookup::Changed(path) => {
            let text = format!(
                "{} has changed since that picture was made from it: the result differs",
                path.display()
            );
            terminal.warning(text);
            Ok(Some(Source::of(&path)?))
        }
        Lookup::Gone => Err(Gone { path: named.path, option: option.to_string() }.into()),
    }
}

fn open_model(recipe: &Recipe, arguments: &Arguments) -> Result<Checkpoint> {
    let name = recipe.model.as_deref().unwrap_or(SHIPPED);
    let opened = Checkpoint::open_named(name, files::models().as_deref());
    match (&arguments.like, arguments.model.is_none()) {
        (Some(like), true) => opened.map_err(|e| {
            let hint = format!(
                "{} was made by the model `{name}`, which cannot be opened: {e}; --model \
                    names another",
                like.display()
            );
            Failure::Failed(hint.into())
        }),
        _ => Ok(opened?),
    }
}

fn tell_of_other_adapter(recipe: &Recipe, gpu: &Device, terminal: &Terminal) {
    if let Some(adapter) = recipe.adapter.as_ref().filter(|adapter| *adapter != gpu.name()) {
        let here = gpu.name();
        terminal.remark(format!(
            "that picture was made on {adapter}; on {here} it comes out the same up to rounding"
        ));
    } else if let (Some(made), Some(here)) = (recipe.rounding, gpu.rounding())
        && made != here
    {
        terminal.remark(format!(
            "that picture was made with {made}; with {here} it comes out the same up to rounding"
        ));
    }
}

/// Where a picture was made with kernels that are not this program's own, and those are not in use
/// now.
fn tell_of_other_kernels(recipe: &Recipe, terminal: &Terminal) -> Result<()> {
    if !recipe.kernels.is_empty() && recipe.kernels != replaced_kernels()? {
        let names: Vec<&str> = recipe.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        let names = names.join(", ");
        terminal.warning(format!(
            "that picture was made with kernels of somebody's own ({names}): the result may differ"
        ));
    }
    Ok(())
}

/// Writes picture `number`, and what goes with it.
fn write(
    recipe: &Recipe,
    generated: &Generated,
    number: usize,
    picture: &Picture,
    destination: &Path,
    place: &Option<Place>,
    arguments: &Arguments,
) -> Result<()> {
    let mut told = recipe.clone();
    if !files::is_stream(destination) {
        make_folder_of(destination)?;
        // From an object store no way leads to files here.
        told = if place.is_some() { told } else { recipe.beside(destination) };
    }
    files::save(picture, destination, Some(&told.parameters(generated, number)))?;
    arguments.placing.draw(recipe, picture, destination)?;
    let Some(place) = place else { return Ok(()) };
    place.elsewhere.put(destination)?;
    if arguments.placing.show_layout {
        place.elsewhere.put(&placing::drawing_of(destination))?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("that picture was made from {}, which cannot be read: {option} says where it is \
    now", path.display())]
struct Gone {
    path: PathBuf,
    option: String,
}
