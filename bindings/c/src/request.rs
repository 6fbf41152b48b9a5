//! What is asked for, as a request of the library and as the settings that pictures carry.

use std::ffi::{c_char, c_void};
use std::ptr;

use mixofshow::Request;
use mixofshow::checkpoint::{Checkpoint, base_hash_cache};
use mixofshow::concept;
use mixofshow::picture::{Mask, Picture};
use mixofshow::pipeline::recipe::{Recipe, Source, hex};
use mixofshow::pipeline::text::prompt::Syntax;
use mixofshow::pipeline::{self, Hires, Upscaler};
use mixofshow::region::{Area, Layout};
use sha2::{Digest, Sha256};

use crate::border::{Struct, read};
use crate::concept::MosConceptUse;
use crate::control::{MosControl, control};
use crate::error::{MosStatus, Result, wrong};
use crate::given::{choice, list, object, path, text};
use crate::latents;
use crate::region::{MosRegion, region};
use crate::watch::MosWatch;

/// Pictures to be made: begun by mos_request_init. Options are those of `mos generate`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosRequest {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What is to be seen; with regions, what holds between them.
    pub prompt: *const c_char,
    /// What guidance leads away from.
    pub negative: *const c_char,
    /// Picture i has seed + i, and is the same as alone.
    pub seed: u64,
    /// In pixels; 0: the initial picture's, else the model's.
    pub width: usize,
    /// In pixels; 0 as for the width.
    pub height: usize,
    /// Sampling steps.
    pub steps: usize,
    /// Scale of guidance; NAN: what suits the model.
    pub guidance: f32,
    /// Pictures, 1 to 1024.
    pub batch: usize,
    /// Such as "euler" or "dpmpp-2m"; NULL: the one that the model's files name.
    pub sampler: *const c_char,
    /// How steps are spread over the noise, such as "karras"; NULL: as the model's files say.
    pub schedule: *const c_char,
    /// The sampler's share of fresh noise, 0 to 1; NAN: its usual one.
    pub eta: f64,
    /// Whose random numbers: "torch" or "philox"; NULL: torch's.
    pub rng: *const c_char,
    /// How many of the text encoder's last layers are left out.
    pub clip_skip: usize,
    /// Prompts of any length, if not 0.
    pub long_prompt: i32,
    /// Brackets that weigh: "auto", "on" or "off"; NULL: auto.
    pub prompt_syntax: *const c_char,
    /// Concepts and LoRAs in use.
    pub concepts: *const *const MosConceptUse,
    /// How many there are.
    pub concept_count: usize,
    /// Take concepts that were taught on another model too, if not 0.
    pub force_base: i32,
    /// Parts of the picture with prompts of their own.
    pub regions: *const *const MosRegion,
    /// How many there are.
    pub region_count: usize,
    /// A file of regions, in place of those.
    pub layout: *const c_char,
    /// Keep self-attention from leaking between regions, if not 0.
    pub isolate: i32,
    /// A picture file to start from.
    pub image: *const c_char,
    /// How much of it is changed, above 0 to 1; NAN: 0.8.
    pub strength: f64,
    /// A picture file, white where the image is painted anew.
    pub mask: *const c_char,
    /// Decode in parts of at most this many pixels squared; 0: as a whole where it fits.
    pub tile: usize,
    /// Told how far it is; NULL: nobody.
    pub watch: MosWatch,
    /// Given to it.
    pub user: *mut c_void,
    /// Networks that steer the picture, all at once.
    pub controls: *const *const MosControl,
    /// How many there are.
    pub control_count: usize,
    /// Standard normal numbers to start from in place of the seed's, batch by channels by height by
    /// width of the latents; NULL: the seed's.
    pub noise: *const f32,
    /// Batch, channels, height and width of the noise.
    pub noise_shape: [usize; 4],
    /// A file of such noise, as `mos generate --latents` takes it.
    pub noise_file: *const c_char,
    /// How far the guided picture is brought back to the contrast of an unguided one, 0 to 1.
    pub guidance_rescale: f32,
    /// Guidance acts from this part of the steps to `guidance_until`, 0 to 1.
    pub guidance_from: f64,
    /// Where it ends.
    pub guidance_until: f64,
    /// The UNet's deep layers are run in every so many steps only.
    pub cache: usize,
    /// Make a larger picture of the first, so many times as large along each side; 0 or 1: no.
    pub hires_scale: f64,
    /// What enlarges it: "latent", "latent-nearest", "latent-nearest-exact", "latent-bicubic" or
    /// "lanczos"; NULL: "latent".
    pub hires_upscaler: *const c_char,
    /// How much of the enlarged picture is changed, above 0 to 1; NAN: 0.7.
    pub hires_strength: f64,
    /// Steps of its whole schedule; 0: as many as the first pass has.
    pub hires_steps: usize,
    /// Bytes of the device's memory to stay within; 0: all of it.
    pub memory: u64,
}

// SAFETY: as it asks.
unsafe impl Struct for MosRequest {
    const NAME: &'static str = "MosRequest";

    fn usual() -> Self {
        let usual = Request::default();
        MosRequest {
            size: 0,
            prompt: ptr::null(),
            negative: ptr::null(),
            seed: usual.seed,
            width: 0,
            height: 0,
            steps: usual.steps,
            guidance: f32::NAN,
            batch: usual.batch,
            sampler: ptr::null(),
            schedule: ptr::null(),
            eta: f64::NAN,
            rng: ptr::null(),
            clip_skip: usual.clip_skip,
            long_prompt: 0,
            prompt_syntax: ptr::null(),
            concepts: ptr::null(),
            concept_count: 0,
            force_base: 0,
            regions: ptr::null(),
            region_count: 0,
            layout: ptr::null(),
            isolate: 0,
            image: ptr::null(),
            strength: f64::NAN,
            mask: ptr::null(),
            tile: 0,
            watch: None,
            user: ptr::null_mut(),
            controls: ptr::null(),
            control_count: 0,
            noise: ptr::null(),
            noise_shape: [0; 4],
            noise_file: ptr::null(),
            guidance_rescale: usual.guidance_rescale,
            guidance_from: usual.guidance_interval[0],
            guidance_until: usual.guidance_interval[1],
            cache: usual.cache,
            hires_scale: 0.0,
            hires_upscaler: ptr::null(),
            hires_strength: f64::NAN,
            hires_steps: 0,
            memory: 0,
        }
    }
}

/// A request, all its inputs read, and the settings that go into its pictures.
pub struct Order {
    pub request: Request,
    pub recipe: Recipe,
}

fn syntax(name: Option<String>) -> Result<Option<Syntax>> {
    match name.as_deref() {
        None => Ok(None),
        Some("auto") => Ok(Some(Syntax::Auto)),
        Some("on") => Ok(Some(Syntax::On)),
        Some("off") => Ok(Some(Syntax::Off)),
        Some(other) => Err(wrong(format!("prompt_syntax is `{other}`: expected auto, on or off"))),
    }
}

/// Where all prompts hold but the picture's own.
unsafe fn placed(given: &MosRequest) -> Result<Layout> {
    // SAFETY: as the header says, here and below.
    let regions = unsafe { list(given.regions, given.region_count, "regions") }?;
    let mut layout = match unsafe { path(given.layout, "layout") }? {
        Some(_) if !regions.is_empty() => {
            return Err(wrong("layout and regions both say what is where: give one of them"));
        }
        Some(file) => Layout::open(&file)?,
        None => Layout::default(),
    };
    for (index, given) in regions.into_iter().enumerate() {
        layout.regions.push(unsafe { region(given, index + 1) }?);
    }
    layout.isolate |= given.isolate != 0;
    Ok(layout)
}

impl MosRequest {
    /// Reads all that it names. `guidance` and `checkpoint` are the model's.
    pub unsafe fn order(&self, checkpoint: &Checkpoint, guidance: f32) -> Result<Order> {
        // SAFETY: as the header says, here and below.
        let layout = unsafe { placed(self) }?;
        let usual = Request::default();
        let mut prompt_options = usual.prompt_options;
        prompt_options.long_prompt = self.long_prompt != 0;
        let syntax = syntax(unsafe { text(self.prompt_syntax, "prompt_syntax") }?)?;
        prompt_options.syntax = syntax.unwrap_or(prompt_options.syntax);
        let [prompt, negative] = [(self.prompt, "prompt"), (self.negative, "negative")]
            .map(|(given, what)| unsafe { text(given, what) });
        let given = |number: usize| Some(number).filter(|number| *number != 0);
        let own = |value: f32| Some(value).filter(|value| !value.is_nan());
        let strength = Some(self.strength).filter(|strength| !strength.is_nan());
        let mut recipe = Recipe {
            request: Request {
                prompt: prompt?.or(layout.prompt.clone()).unwrap_or_default(),
                negative_prompt: negative?.or(layout.negative.clone()).unwrap_or_default(),
                width: given(self.width),
                height: given(self.height),
                steps: self.steps,
                guidance: own(self.guidance).unwrap_or(guidance),
                sampler: unsafe { choice(self.sampler, "sampler") }?,
                schedule: unsafe { choice(self.schedule, "schedule") }?,
                eta: Some(self.eta).filter(|eta| !eta.is_nan()),
                seed: self.seed,
                rng: unsafe { choice(self.rng, "rng") }?.unwrap_or(usual.rng),
                batch: self.batch,
                clip_skip: self.clip_skip,
                prompt_options,
                strength: strength.unwrap_or(usual.strength),
                tile: given(self.tile),
                guidance_rescale: self.guidance_rescale,
                guidance_interval: [self.guidance_from, self.guidance_until],
                cache: self.cache,
                memory: Some(self.memory).filter(|bytes| *bytes > 0),
                hires: unsafe { self.hires() }?,
                regions: layout,
                ..usual
            },
            ..Recipe::default()
        };
        for region in &recipe.request.regions.regions {
            if let Area::Mask(path) = &region.area {
                recipe.region_masks.push(Source::of(path)?);
            }
        }
        let mut request = recipe.request.clone();
        match unsafe { path(self.image, "image") }? {
            Some(file) => {
                request.image = Some(Picture::open(&file)?);
                recipe.image = Some(Source::of(&file)?);
            }
            None if strength.is_some() => {
                return Err(wrong("strength says how much to change a picture: image gives one"));
            }
            None => {}
        }
        if let Some(file) = unsafe { path(self.mask, "mask") }? {
            request.mask = Some(Mask::open(&file)?);
            recipe.mask = Some(Source::of(&file)?);
        }
        for used in unsafe { list(self.concepts, self.concept_count, "concepts") }? {
            let used = unsafe { read(used) }?;
            let concept = unsafe { object(used.concept, "concept of a MosConceptUse") }?;
            for (applied, source) in concept.applied(used.scales())? {
                request.concepts.push(applied);
                recipe.concepts.push(source);
            }
        }
        if self.force_base == 0 {
            let concepts: Vec<_> =
                request.concepts.iter().map(|applied| applied.concept()).collect();
            concept::check_base(concepts, checkpoint, base_hash_cache().as_deref())?;
        }
        for given in unsafe { list(self.controls, self.control_count, "controls") }? {
            let (control, source) = unsafe { control(given, checkpoint) }?;
            if recipe.controls.iter().any(|other| other.name == source.name) {
                let name = source.name;
                return Err(wrong(format!(
                    "two controls are called `{name}`: their `name` tells them apart"
                )));
            }
            request.controls.push(control);
            recipe.controls.push(source);
        }
        let file = unsafe { path(self.noise_file, "noise_file") }?;
        match (self.noise.is_null(), file) {
            (false, Some(_)) => {
                return Err(wrong("noise and noise_file both say what to start from"));
            }
            (false, None) => {
                let noise =
                    unsafe { latents::given(self.noise, self.noise_shape.as_ptr(), "the noise") }?;
                let bytes: Vec<u8> =
                    noise.values().iter().flat_map(|value| value.to_le_bytes()).collect();
                let sha256 = hex(&Sha256::digest(&bytes));
                recipe.latents = Some(Source { path: "array (noise)".into(), sha256 });
                request.latents = Some(noise);
            }
            (true, Some(file)) => {
                recipe.latents = Some(Source::of(&file)?);
                request.latents = Some(pipeline::latents::read(&file)?);
            }
            (true, None) => {}
        }
        Ok(Order { request, recipe })
    }

    /// The second pass, if there is one.
    unsafe fn hires(&self) -> Result<Option<Hires>> {
        let usual = Hires::default();
        // SAFETY: as the header says.
        let name = unsafe { text(self.hires_upscaler, "hires_upscaler") }?;
        if self.hires_scale == 0.0 || self.hires_scale == 1.0 {
            return match name {
                Some(_) => Err(wrong("hires_upscaler is about the second pass: hires_scale asks")),
                None => Ok(None),
            };
        }
        let upscaler = match name {
            None => usual.upscaler,
            Some(name) => Upscaler::named(&name).ok_or_else(|| {
                wrong(format!(
                    "hires_upscaler is `{name}`: expected latent, latent-nearest, \
                        latent-nearest-exact, latent-bicubic or lanczos"
                ))
            })?,
        };
        let strength = Some(self.hires_strength).filter(|strength| !strength.is_nan());
        Ok(Some(Hires {
            scale: self.hires_scale,
            upscaler,
            strength: strength.unwrap_or(usual.strength),
            steps: Some(self.hires_steps).filter(|steps| *steps > 0),
        }))
    }
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_request_init(to: *mut MosRequest, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}
