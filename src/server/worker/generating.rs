//! Making the pictures of a job, as `mos generate` makes them.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::checkpoint::base_hash_cache;
use crate::concept::{self, Applied};
use crate::picture::{Picture, parameters};
use crate::pipeline::recipe::{ControlSource, Made as MadeOf, Recipe, hex};
use crate::pipeline::{Control, Generated, Preview, Request};
use crate::server::job::{Job, Made};
use crate::server::order::{Order, Steered};
use crate::server::problem::{Problem, words};

use super::{Loaded, Worker, replaced_kernels};

/// Between two previews, at least.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// The most previews of a picture.
const LOOKS: usize = 10;

/// Shows the first of the pictures that are being sampled. That it cannot be seen is no reason to
/// end.
fn show(job: &Job, preview: &Preview) {
    let Some(first) = preview.pictures.first() else { return };
    let mut png = Vec::new();
    match first.write_to(&mut png, None) {
        Ok(()) => job.show(png),
        Err(problem) => job.warn(&format!("there is no preview: {problem}")),
    }
}

/// Makes what was ordered, and hands each picture to the job.
pub fn generate(worker: &mut Worker, job: &Job, mut order: Order) -> Result<(), Problem> {
    let mut loaded = worker.take(&order.model, job)?;
    let made = make(worker, job, &mut order, &mut loaded);
    worker.keep(loaded);
    made
}

/// Opens what the request names.
fn open(
    worker: &mut Worker,
    job: &Job,
    order: &mut Order,
    loaded: &Loaded,
) -> Result<(Request, Recipe), Problem> {
    let mut request = std::mem::take(&mut order.request);
    let mut recipe = std::mem::take(&mut order.recipe);
    if let Some(guidance) = loaded.checkpoint.guidance().filter(|_| order.leaves_guidance_open) {
        (request.guidance, recipe.request.guidance) = (guidance, guidance);
    }
    for wanted in &order.concepts {
        for used in worker.concepts.open(wanted)? {
            used.notes.iter().for_each(|note| job.warn(note));
            request.concepts.push(used.applied);
            recipe.concepts.push(used.source);
        }
    }
    let concepts = request.concepts.iter().map(Applied::concept);
    concept::check_base(concepts, &loaded.checkpoint, base_hash_cache().as_deref())
        .map_err(|error| Problem::asked(words(&error)).of("concepts"))?;
    for steered in order.controls.drain(..) {
        let (control, source) = control(steered, loaded)?;
        request.controls.push(control);
        recipe.controls.push(source);
    }
    recipe.model = Some(order.model.given());
    recipe.precision = worker.precision;
    recipe.adapter = Some(worker.device.name().to_string());
    recipe.rounding = worker.device.rounding();
    recipe.kernels = replaced_kernels(&worker.device)?;
    Ok((request, recipe))
}

/// A network inside of the model that steers a picture.
fn control(steered: Steered, loaded: &Loaded) -> Result<(Control, ControlSource), Problem> {
    let Steered { network, name, picture, source: image, make, weight, start, end } = steered;
    let Some(inside) = loaded.checkpoint.controls.get(&network) else {
        let known: Vec<&str> = loaded.checkpoint.controls.keys().map(String::as_str).collect();
        let known = match known.is_empty() {
            true => "the model has none".to_string(),
            false => format!("the model has {}", known.join(", ")),
        };
        let shown: String = network.chars().take(100).collect();
        return Err(
            Problem::missing(format!("no control is called `{shown}`: {known}")).of("controls")
        );
    };
    let [strong, weak] = crate::picture::edges::CANNY_THRESHOLDS;
    let picture = match make {
        None => picture,
        Some(MadeOf::Canny) => picture.canny(strong, weak)?,
        Some(MadeOf::Outline) => picture.outline()?,
    };
    let control =
        Control { name: name.clone(), network: inside.clone(), picture, weight, start, end };
    let source =
        ControlSource { network, network_hash: None, image, make, name, weight, start, end };
    Ok((control, source))
}

fn make(
    worker: &mut Worker,
    job: &Job,
    order: &mut Order,
    loaded: &mut Loaded,
) -> Result<(), Problem> {
    let (mut request, mut recipe) = open(worker, job, order, loaded)?;
    request.preview = Some(request.steps.div_ceil(LOOKS).max(1));
    let gallery = worker.shared.gallery.as_ref().filter(|_| order.keeps);
    let gallery = gallery.map(|gallery| gallery.of(&job.owner)).transpose()?;
    if let Some(gallery) = &gallery {
        gallery.keep_inputs(&order.brought, &mut recipe)?;
    }
    recipe.model_hash.clone_from(&loaded.hash);
    if request.image.is_none() {
        let (width, height) = loaded.pipeline.default_size();
        let (width, height) = (request.width.unwrap_or(width), request.height.unwrap_or(height));
        worker.shared.limits.check_size(width, height)?;
    }
    let Loaded { checkpoint, pipeline, hash, .. } = loaded;
    let prepared = pipeline.prepare(&request)?;
    prepared.warnings().iter().for_each(|warning| job.warn(warning));
    let stop = AtomicBool::new(false);
    let is_unknown = hash.is_none();
    // The hash reads the whole model once more, so it is made while the device works.
    std::thread::scope(|scope| {
        let checkpoint = &*checkpoint;
        let hashing = is_unknown.then(|| {
            scope.spawn(|| {
                let watch = &mut |_: crate::Progress<'_>| match stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
                checkpoint.hash_watched(watch).ok().map(|hash| hex(&hash))
            })
        });
        let mut hashing = hashing;
        let mut looked = Instant::now();
        let made = pipeline.make_shown(
            prepared,
            &mut |at| job.heed(at),
            &mut |generated: &Generated, number, picture: Picture| {
                if let Some(hashing) = hashing.take() {
                    *hash = hashing.join().ok().flatten();
                    recipe.model_hash.clone_from(hash);
                }
                let told = recipe.parameters(generated, number);
                let mut png = Vec::new();
                picture.write_to(&mut png, Some(&told))?;
                let file = gallery.as_ref().map(|gallery| gallery.keep(&png, &told)).transpose()?;
                job.add(Made {
                    png,
                    seed: generated.seeds.get(number).copied().unwrap_or_default(),
                    width: generated.width,
                    height: generated.height,
                    told: parameters::format(&told),
                    file,
                });
                Ok::<_, Problem>(())
            },
            &mut |preview| {
                if looked.elapsed() >= BETWEEN_LOOKS {
                    looked = Instant::now();
                    show(job, preview);
                }
            },
        );
        stop.store(true, Ordering::Relaxed);
        made?.warnings.iter().for_each(|warning| job.warn(warning));
        Ok(())
    })
}
