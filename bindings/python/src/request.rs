//! What Python asks for, as a request of the library and as the settings that pictures carry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{self, Checkpoint, base_hash_cache, find, open_upscaler};
use mixofshow::picture::edges::CANNY_THRESHOLDS;
use mixofshow::picture::{Mask, Picture};
use mixofshow::pipeline::recipe::{ControlSource, Made, Recipe, Source};
use mixofshow::pipeline::text::prompt::Syntax;
use mixofshow::pipeline::{Control, Hires, Upscaler};
use mixofshow::region::{Area, Layout, Region};
use mixofshow::scheduler::spacing::Schedule;
use mixofshow::{Request, concept};
use pyo3::prelude::*;
use tempfile::TempDir;

use crate::arrays::Given;
use crate::concept::Concept;
use crate::errors::{OrRaise, Raise, argument};

/// The attributes of `mixofshow._request.Request`; what is none is as in the library.
#[derive(FromPyObject)]
pub struct Asked {
    prompt: Option<String>,
    negative: Option<String>,
    seed: Option<u64>,
    size: Option<(usize, usize)>,
    steps: Option<usize>,
    guidance: Option<f32>,
    batch: Option<usize>,
    sampler: Option<String>,
    karras: bool,
    schedule: Option<String>,
    eta: Option<f64>,
    guidance_rescale: Option<f32>,
    guidance_from: Option<f64>,
    guidance_until: Option<f64>,
    cache: Option<usize>,
    hires: Option<AskedHires>,
    memory: Option<u64>,
    preview: Option<usize>,
    original_size: Option<(usize, usize)>,
    crop: Option<(usize, usize)>,
    rng: Option<String>,
    clip_skip: Option<usize>,
    long_prompt: bool,
    prompt_syntax: Option<String>,
    concepts: Vec<Py<Concept>>,
    force_base: bool,
    regions: Vec<AskedRegion>,
    layout: Option<PathBuf>,
    isolate: bool,
    stack: bool,
    controls: Vec<AskedControl>,
    init_image: Option<Given>,
    strength: Option<f64>,
    mask: Option<Given>,
    noise: Option<Given>,
    tile: Option<usize>,
}

/// The attributes of `mixofshow.Region`.
#[derive(FromPyObject)]
struct AskedRegion {
    prompt: String,
    negative: Option<String>,
    #[pyo3(attribute("box"))]
    edges: Option<[f64; 4]>,
    polygon: Option<Vec<[f64; 2]>>,
    mask: Option<Given>,
    name: Option<String>,
    soft: f64,
    weight: f64,
    order: i32,
    base: f64,
    start: f64,
    end: f64,
    concepts: BTreeMap<String, f32>,
    controls: BTreeMap<String, f32>,
}

/// The attributes of `mixofshow.Hires`.
#[derive(FromPyObject)]
struct AskedHires {
    scale: f64,
    upscaler: String,
    strength: f64,
    steps: Option<usize>,
}

/// The attributes of `mixofshow.Control`.
#[derive(FromPyObject)]
pub struct AskedControl {
    network: String,
    image: Given,
    make: Option<String>,
    weight: f32,
    start: f64,
    end: f64,
    name: Option<String>,
}

/// A request, all its inputs read, and the settings that go into its pictures.
pub struct Order {
    pub request: Request,
    pub recipe: Recipe,
    /// Masks that came as arrays, while the request is run.
    _masks: Option<TempDir>,
}

/// The folder in which models and networks are looked for by name.
pub fn models() -> Option<PathBuf> {
    std::env::var_os("MOS_MODELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A name of one of a few choices.
fn choice<T: std::str::FromStr>(option: &str, name: &Option<String>) -> PyResult<Option<T>>
where
    T::Err: std::fmt::Display,
{
    let parse = |name: &String| {
        name.parse().map_err(|error: T::Err| argument(format!("{option}: {error}")))
    };
    name.as_ref().map(parse).transpose()
}

fn syntax(name: &Option<String>) -> PyResult<Option<Syntax>> {
    match name.as_deref() {
        None => Ok(None),
        Some("auto") => Ok(Some(Syntax::Auto)),
        Some("on") => Ok(Some(Syntax::On)),
        Some("off") => Ok(Some(Syntax::Off)),
        Some(other) => {
            Err(argument(format!("prompt_syntax is `{other}`: expected auto, on or off")))
        }
    }
}

/// 32 bits, as `mos generate` draws them: what all programs take, and short enough to be typed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 32
}

impl Asked {
    /// Reads all that it names. `guidance` and `model` are the model's.
    pub fn order(self, py: Python<'_>, checkpoint: &Checkpoint, guidance: f32) -> PyResult<Order> {
        let mut placed = place(self.layout.as_deref(), self.regions, self.isolate, self.stack)?;
        let usual = Request::default();
        let mut options = usual.prompt_options;
        options.long_prompt = self.long_prompt;
        options.syntax = syntax(&self.prompt_syntax)?.unwrap_or(options.syntax);
        let of_layout = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut recipe = Recipe {
            request: Request {
                prompt: self.prompt.unwrap_or_else(|| of_layout(&placed.layout.prompt)),
                negative_prompt: self
                    .negative
                    .unwrap_or_else(|| of_layout(&placed.layout.negative)),
                width: self.size.map(|(width, _)| width),
                height: self.size.map(|(_, height)| height),
                steps: self.steps.unwrap_or(usual.steps),
                guidance: self.guidance.unwrap_or(guidance),
                sampler: choice("sampler", &self.sampler)?,
                schedule: choice("schedule", &self.schedule)?
                    .or(self.karras.then_some(Schedule::Karras)),
                eta: self.eta,
                guidance_rescale: self.guidance_rescale.unwrap_or(usual.guidance_rescale),
                guidance_interval: [
                    self.guidance_from.unwrap_or(usual.guidance_interval[0]),
                    self.guidance_until.unwrap_or(usual.guidance_interval[1]),
                ],
                cache: self.cache.unwrap_or(usual.cache),
                memory: self.memory,
                preview: self.preview,
                original_size: self.original_size,
                crop: self.crop,
                seed: self.seed.unwrap_or_else(random_seed),
                rng: choice("rng", &self.rng)?.unwrap_or(usual.rng),
                batch: self.batch.unwrap_or(usual.batch),
                clip_skip: self.clip_skip.unwrap_or(usual.clip_skip),
                prompt_options: options,
                strength: self.strength.unwrap_or(usual.strength),
                tile: self.tile,
                ..usual
            },
            ..Recipe::default()
        };
        if self.strength.is_some() && self.init_image.is_none() {
            return Err(argument(
                "strength says how much to change a picture: init_image gives the picture",
            ));
        }
        if let Some(hires) = self.hires {
            if self.init_image.is_some() {
                return Err(argument(
                    "hires makes a larger picture of one that is made from noise: it goes with no \
                        init_image",
                ));
            }
            let (hires, source) = hires.open()?;
            (recipe.request.hires, recipe.upscaler) = (Some(hires), source);
        }
        let mut request = recipe.request.clone();
        if let Some(image) = &self.init_image {
            let (picture, source) = image.picture("init_image")?;
            (request.image, recipe.image) = (Some(picture), Some(source));
        }
        if let Some(mask) = &self.mask {
            let (mask, source) = mask.mask("mask")?;
            (request.mask, recipe.mask) = (Some(mask), Some(source));
        }
        if let Some(noise) = &self.noise {
            let (noise, source) = noise.latents("noise")?;
            if self.batch.is_none() {
                let batch = noise.shape.first().copied().unwrap_or(1);
                (request.batch, recipe.request.batch) = (batch, batch);
            }
            (request.latents, recipe.latents) = (Some(noise), Some(source));
        }
        for concept in &self.concepts {
            for (applied, source) in concept.get().applied()? {
                request.concepts.push(applied);
                recipe.concepts.push(source);
            }
        }
        if !self.force_base {
            let concepts: Vec<_> =
                request.concepts.iter().map(|applied| applied.concept()).collect();
            let check = || concept::check_base(concepts, checkpoint, base_hash_cache().as_deref());
            py.detach(check).or_raise()?;
        }
        (request.controls, recipe.controls) =
            AskedControl::open_all(self.controls, checkpoint)?.into_iter().unzip();
        request.regions = placed.layout;
        recipe.request.regions = placed.told;
        recipe.region_masks = std::mem::take(&mut placed.sources);
        Ok(Order { request, recipe, _masks: placed.folder })
    }
}

/// Regions, and how settings tell of them.
struct PlacedRegions {
    layout: Layout,
    told: Layout,
    sources: Vec<Source>,
    folder: Option<TempDir>,
}

fn place(
    path: Option<&Path>,
    regions: Vec<AskedRegion>,
    isolate: bool,
    stack: bool,
) -> PyResult<PlacedRegions> {
    let mut layout = match path {
        Some(_) if !regions.is_empty() => {
            return Err(argument("layout and regions both say what is where: give one of them"));
        }
        Some(path) => Layout::open(path).or_raise()?,
        None => Layout::default(),
    };
    let (mut folder, mut arrays) = (None, BTreeMap::new());
    for (index, region) in regions.into_iter().enumerate() {
        let number = index + 1;
        if let Some(Given::Array(_)) = &region.mask {
            let folder = match &mut folder {
                Some(folder) => folder,
                None => folder.insert(TempDir::new().map_err(unwritten)?),
            };
            let (file, source) = region.mask_file(folder.path(), number)?;
            arrays.insert(file.clone(), source);
            layout.regions.push(region.placed(number, Some(file))?);
        } else {
            layout.regions.push(region.placed(number, None)?);
        }
    }
    if stack {
        (0..).zip(&mut layout.regions).for_each(|(order, region)| region.order = order);
    }
    layout.isolate |= isolate;
    if layout.regions.is_empty() && (stack || isolate) {
        return Err(argument("stack and isolate are for regions: regions or layout gives some"));
    }
    let (mut told, mut sources) = (layout.clone(), Vec::new());
    for (region, told) in layout.regions.iter_mut().zip(&mut told.regions) {
        let (Area::Mask(path), Area::Mask(named)) = (&mut region.area, &mut told.area) else {
            continue;
        };
        match arrays.remove(path) {
            Some(source) => {
                named.clone_from(&source.path);
                sources.push(source);
            }
            None => {
                // So that it is found from every folder.
                *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
                named.clone_from(path);
                sources.push(Source::of(path).or_raise()?);
            }
        }
    }
    Ok(PlacedRegions { layout, told, sources, folder })
}

fn unwritten(error: std::io::Error) -> PyErr {
    argument(format!(
        "a mask that is an array needs a temporary file, which cannot be written: {error}"
    ))
}

/// A mask as a picture of grey.
fn grey(mask: &Mask) -> PyResult<Picture> {
    let bytes = mask.values().iter().flat_map(|value| [(value * 255.0).round() as u8; 3]).collect();
    Picture::new(mask.width(), mask.height(), bytes).or_raise()
}

impl AskedRegion {
    /// Writes the mask that came as an array.
    fn mask_file(&self, folder: &Path, number: usize) -> PyResult<(PathBuf, Source)> {
        let what = format!("the mask of region {number}");
        let given = self.mask.as_ref().ok_or_else(|| argument(what.clone()))?;
        let (mask, source) = given.mask(&what)?;
        let file = folder.join(format!("{number}.png"));
        grey(&mask)?.save(&file, None).or_raise()?;
        Ok((file, source))
    }

    /// As the library has it; `mask` stands in for an array.
    fn placed(self, number: usize, mask: Option<PathBuf>) -> PyResult<Region> {
        let mask = match (mask, self.mask) {
            (Some(file), _) | (None, Some(Given::Path(file))) => Some(file),
            _ => None,
        };
        let area = match (self.edges, self.polygon, mask) {
            (None, None, None) => Area::Whole,
            (Some(edges), None, None) => Area::Box(edges),
            (None, Some(corners), None) => Area::Polygon(corners),
            (None, None, Some(mask)) => Area::Mask(mask),
            _ => {
                let words = "has more than one of box, polygon and mask";
                return Err(argument(format!("region {number} {words}")));
            }
        };
        Ok(Region {
            name: self.name,
            prompt: self.prompt,
            negative: self.negative,
            area,
            soft: self.soft,
            weight: self.weight,
            order: self.order,
            base: self.base,
            start: self.start,
            end: self.end,
            concepts: self.concepts,
            controls: self.controls,
        })
    }
}

impl AskedHires {
    /// Opens the network that enlarges, where it is one.
    fn open(self) -> PyResult<(Hires, Option<Source>)> {
        let (scale, strength, steps) = (self.scale, self.strength, self.steps);
        let (upscaler, source) = match Upscaler::named(&self.upscaler) {
            Some(upscaler) => (upscaler, None),
            None => {
                let path = find(&self.upscaler, models().as_deref()).ok().flatten();
                let path = path.filter(|path| path.is_file()).ok_or_else(|| {
                    argument(format!(
                        "hires: upscaler is `{}`: expected latent, latent-nearest, \
                            latent-nearest-exact, latent-bicubic, lanczos or a file",
                        self.upscaler
                    ))
                })?;
                let network = open_upscaler(&path).or_raise()?;
                (Upscaler::Network(network), Some(Source::of(&path).or_raise()?))
            }
        };
        Ok((Hires { scale, upscaler, strength, steps }, source))
    }
}

impl AskedControl {
    /// Opens them, no two of a name.
    pub fn open_all(
        all: Vec<AskedControl>,
        checkpoint: &Checkpoint,
    ) -> PyResult<Vec<(Control, ControlSource)>> {
        let mut opened: Vec<(Control, ControlSource)> = Vec::with_capacity(all.len());
        for control in all {
            let (control, source) = control.open(checkpoint)?;
            if opened.iter().any(|(other, _)| other.name == control.name) {
                let name = control.name;
                let words = format!("two controls are called `{name}`: name= tells them apart");
                return Err(argument(words));
            }
            opened.push((control, source));
        }
        Ok(opened)
    }

    /// Opens the network: inside of the model, else by path, else in the folder of models.
    fn open(self, checkpoint: &Checkpoint) -> PyResult<(Control, ControlSource)> {
        let network = match checkpoint.controls.get(&self.network) {
            Some(inside) => inside.clone(),
            None => match find(&self.network, models().as_deref()).or_raise()? {
                Some(path) => checkpoint::Control::open(&path).or_raise()?,
                None => {
                    return Err(argument(format!(
                        "control `{}`: that is a whole model, not a network that steers one",
                        self.network
                    )));
                }
            },
        };
        let (picture, image) = self.image.picture("the control's image")?;
        let make: Option<Made> = choice("control", &self.make)?;
        let [strong, weak] = CANNY_THRESHOLDS;
        let picture = match make {
            None => picture,
            Some(Made::Canny) => picture.canny(strong, weak).map_err(Raise::raise)?,
            Some(Made::Outline) => picture.outline().map_err(Raise::raise)?,
        };
        let stem = Path::new(&self.network).file_stem();
        let name = self.name.unwrap_or_else(|| {
            stem.map_or_else(|| self.network.clone(), |stem| stem.to_string_lossy().into_owned())
        });
        let (weight, start, end) = (self.weight, self.start, self.end);
        let source = ControlSource {
            network: self.network,
            network_hash: None,
            image,
            make,
            name: name.clone(),
            weight,
            start,
            end,
        };
        Ok((Control { name, network, picture, weight, start, end }, source))
    }
}
