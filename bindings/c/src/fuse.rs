//! Fusing concepts into one model.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use mixofshow::checkpoint::SHIPPED;
use mixofshow::concept::dialects;
use mixofshow::fusion::solve::{Exact, Lbfgs, Merge, Solver, Way};
use mixofshow::fusion::{self, ConceptToFuse, DistillationOptions, Order, Settings, markdown};
use mixofshow::{Checkpoint, Pipeline};

use crate::border::{Struct, free, looking, making, read};
use crate::concept::MosConcept;
use crate::error::{MosStatus, Result, text, wrong};
use crate::given::{self, choice, index, list, needed, object, texts};
use crate::model::{models, open_device};
use crate::watch::{MosWatch, Watcher};

/// A concept to be fused: begun by mos_member_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosMember {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What is fused.
    pub concept: *const MosConcept,
    /// Factor of its LoRA; 1 is as it was taught.
    pub scale: f32,
    /// That of the text encoder's part; NAN: the same.
    pub text_scale: f32,
    /// What calls up a LoRA without words of its own; NULL: its words.
    pub prompt: *const c_char,
}

// SAFETY: as it asks.
unsafe impl Struct for MosMember {
    const NAME: &'static str = "MosMember";

    fn usual() -> Self {
        let (concept, prompt) = (ptr::null(), ptr::null());
        MosMember { size: 0, concept, scale: 1.0, text_scale: f32::NAN, prompt }
    }
}

/// Concepts to be fused into one model: begun by mos_fusion_init. Options are those of `mos fuse`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosFusion {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What is fused.
    pub members: *const *const MosMember,
    /// How many there are.
    pub member_count: usize,
    /// The folder of the fused model.
    pub output: *const c_char,
    /// Replace it if it is there and was fused by this library, if not 0.
    pub replace: i32,
    /// The base model, as in MosLoad.
    pub model: *const c_char,
    /// As in MosLoad.
    pub device: *const c_char,
    /// As in MosLoad.
    pub precision: *const c_char,
    /// A folder in which statistics are kept, and those that are there used; NULL: none.
    pub statistics: *const c_char,
    /// "exact", "lbfgs", "average", "sum", "ties" or "dare"; NULL: exact.
    pub solver: *const c_char,
    /// Sampling steps of the pictures that statistics are taken of; 0: the solver's usual ones.
    pub steps: usize,
    /// Their guidance; NAN: the solver's usual one.
    pub guidance: f32,
    /// Their width in pixels; 0: the model's.
    pub width: usize,
    /// Their height in pixels; 0: the model's.
    pub height: usize,
    /// Pictures for each prompt; 0: as many as is usual.
    pub samples: u64,
    /// Their seed.
    pub seed: u64,
    /// Prompts with {} for a concept's words; none: the built-in ones.
    pub prompts: *const *const c_char,
    /// How many there are.
    pub prompt_count: usize,
    /// Prompts on which the model should not change.
    pub keep: *const *const c_char,
    /// How many there are, 0 for none; -1: the built-in ones.
    pub keep_count: isize,
    /// Pictures whose predictions the fused UNet learns; -1: the solver's usual number.
    pub distillation: i64,
    /// Number a word that two concepts have, instead of refusing it, if not 0.
    pub rename: i32,
    /// Told how far it is; NULL: nobody.
    pub watch: MosWatch,
    /// Given to it.
    pub user: *mut c_void,
    /// The part of each change's numbers that "ties" and "dare" keep; NAN: what is usual.
    pub density: f64,
    /// Rank of the updates that learn the predictions; 0: 16 for each member and 4 more, 64 at most.
    pub distillation_rank: usize,
    /// Pictures of each prompt of each scene that are learnt too, two and three members in regions;
    /// 0: none; -1: the usual number.
    pub scenes: i64,
    /// Strength of a member's own file in its region of a scene, times its own; NAN: what is usual.
    pub scene_strength: f32,
    /// Learning rate of the predictions; NAN: what is usual.
    pub distillation_rate: f32,
    /// Of so many pictures of each prompt of each scene, what is predicted in regions is learnt with
    /// one prompt for the whole picture too; 0: none; -1: the usual number.
    pub one_prompt: i64,
}

// SAFETY: as it asks.
unsafe impl Struct for MosFusion {
    const NAME: &'static str = "MosFusion";

    fn usual() -> Self {
        MosFusion {
            size: 0,
            members: ptr::null(),
            member_count: 0,
            output: ptr::null(),
            replace: 0,
            model: ptr::null(),
            device: ptr::null(),
            precision: ptr::null(),
            statistics: ptr::null(),
            solver: ptr::null(),
            steps: 0,
            guidance: f32::NAN,
            width: 0,
            height: 0,
            samples: 0,
            seed: 0,
            prompts: ptr::null(),
            prompt_count: 0,
            keep: ptr::null(),
            keep_count: -1,
            distillation: -1,
            rename: 0,
            watch: None,
            user: ptr::null_mut(),
            density: f64::NAN,
            distillation_rank: 0,
            scenes: -1,
            scene_strength: f32::NAN,
            distillation_rate: f32::NAN,
            one_prompt: -1,
        }
    }
}

/// A fused model.
pub struct MosFused {
    path: CString,
    json: CString,
    markdown: CString,
    warnings: Vec<CString>,
}

unsafe fn settings(given: &MosFusion) -> Result<Settings> {
    // SAFETY: as the header says, here and below.
    let solver = match unsafe { given::text(given.solver, "solver") }?.as_deref() {
        None | Some("exact") => Solver::Exact(Exact::default()),
        // 0: as published, stage by stage.
        Some("lbfgs") => Solver::Lbfgs(Lbfgs { iterations: 0 }),
        Some("average") => Solver::Average,
        Some("sum") => Solver::Merge(Merge::new(Way::Sum)),
        Some("ties") => Solver::Merge(Merge::new(Way::Ties)),
        Some("dare") => Solver::Merge(Merge::new(Way::Dare)),
        Some(other) => {
            let words = "expected exact, lbfgs, average, sum, ties or dare";
            return Err(wrong(format!("solver is `{other}`: {words}")));
        }
    };
    let mut settings = Settings::of(solver);
    if let Solver::Merge(merge) = &mut settings.solver {
        merge.seed = given.seed;
        merge.density = if given.density.is_nan() { merge.density } else { given.density };
    } else if !given.density.is_nan() {
        return Err(wrong("density is of the solvers ties and dare: solver names one of them"));
    }
    if given.steps != 0 {
        settings.steps = given.steps;
    }
    if !given.guidance.is_nan() {
        settings.guidance = given.guidance;
    }
    if given.samples != 0 {
        settings.seeds = given.samples;
    }
    settings.seed = given.seed;
    settings.precision = unsafe { choice(given.precision, "precision") }?.unwrap_or_default();
    settings.rename = given.rename != 0;
    let templates = unsafe { texts(given.prompts, given.prompt_count, "prompts") }?;
    if let Some(line) = templates.iter().find(|line| !line.contains("{}")) {
        return Err(wrong(format!("prompts: \"{line}\" has no {{}} for the concept's words")));
    }
    if !templates.is_empty() {
        settings.prompts.clone_from(&templates);
        settings.sampled = templates;
    }
    if let Ok(count) = usize::try_from(given.keep_count) {
        settings.keep = unsafe { texts(given.keep, count, "keep") }?;
    }
    let number = |value: f32| (!value.is_nan()).then_some(value);
    let asked = DistillationOptions {
        pictures: u64::try_from(given.distillation).ok(),
        rate: number(given.distillation_rate),
        rank: (given.distillation_rank != 0).then_some(given.distillation_rank),
        scenes: u64::try_from(given.scenes).ok(),
        scene_strength: number(given.scene_strength),
        one_prompt: u64::try_from(given.one_prompt).ok(),
    };
    let distilled = asked.over(settings.distillation, &|field| field.to_string());
    settings.distillation = distilled.map_err(|unfit| wrong(unfit.words))?;
    Ok(settings)
}

unsafe fn fused(fusion: *const MosFusion) -> Result<MosFused> {
    // SAFETY: as the header says, here and below.
    let given = unsafe { read(fusion) }?;
    let mut settings = unsafe { settings(&given) }?;
    let output = unsafe { needed(given.output, "output") }?;
    let mut concepts = Vec::with_capacity(given.member_count);
    for member in unsafe { list(given.members, given.member_count, "members") }? {
        let member = unsafe { read(member) }?;
        let path = unsafe { object(member.concept, "concept of a MosMember") }?.path.clone();
        let (concept, _) = dialects::read(&path)?;
        let unet = member.scale;
        let text = if member.text_scale.is_nan() { unet } else { member.text_scale };
        let prompt = unsafe { given::text(member.prompt, "prompt") }?;
        concepts.push(ConceptToFuse { concept, path, unet, text, prompt });
    }
    let model = unsafe { given::text(given.model, "model") }?.unwrap_or_else(|| SHIPPED.into());
    let checkpoint = Checkpoint::open_named(&model, models().as_deref())?;
    let device = open_device(unsafe { given::text(given.device, "device") }?)?;
    if given.width != 0 || given.height != 0 {
        let (width, height) = (given.width, given.height);
        let factor = Pipeline::load(&device, &checkpoint, settings.precision)?.factor();
        if width % factor != 0 || height % factor != 0 || width == 0 || height == 0 {
            let words = format!("size is {width}x{height}: expected multiples of {factor}");
            return Err(wrong(words));
        }
        settings.size = Some([height / factor, width / factor]);
    }
    let order = Order {
        replace: given.replace != 0,
        statistics: unsafe { given::path(given.statistics, "statistics") }?,
        ..Order::new(concepts, output.clone().into())
    };
    let watcher = Watcher { watch: given.watch, user: given.user };
    let fused = fusion::fuse(&device, &checkpoint, order, &settings, &mut |at| watcher.heed(at))?;
    let json = serde_json::to_string(&fused.report)?;
    Ok(MosFused {
        path: text(&output),
        json: text(&json),
        markdown: text(&markdown(&fused.report, &[])),
        warnings: fused.report.notes.iter().map(|note| text(note)).collect(),
    })
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_member_init(to: *mut MosMember, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fusion_init(to: *mut MosFusion, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}

/// Fuses concepts, and writes the model: a folder for mos_model_load. One that was ended goes on
/// where it was when it is called again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fuse(
    fusion: *const MosFusion,
    result: *mut *mut MosFused,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { making(result, || fused(fusion)) }
}

/// Gives the result back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_free(fused: *mut MosFused) {
    // SAFETY: as the header says.
    unsafe { free(fused) }
}

/// The folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_path(fused: *const MosFused) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(fused, "result") }?.path.as_ptr()))
}

/// What went in and what was lost, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_json(fused: *const MosFused) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(fused, "result") }?.json.as_ptr()))
}

/// The same as Markdown.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_markdown(fused: *const MosFused) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(fused, "result") }?.markdown.as_ptr()))
}

/// How much there is to tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_warning_count(fused: *const MosFused) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(fused, "result") }?.warnings.len()))
}

/// One of these, in a sentence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_fused_warning(fused: *const MosFused, number: usize) -> *const c_char {
    looking(ptr::null(), || {
        // SAFETY: as the header says.
        let warnings = &unsafe { object(fused, "result") }?.warnings;
        Ok(warnings[index(number, warnings.len(), "warning")?].as_ptr())
    })
}
