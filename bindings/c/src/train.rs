//! Teaching a concept.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::path::Path;
use std::ptr;

use mixofshow::Checkpoint;
use mixofshow::training::config::{self, Options, Settings};
use mixofshow::training::{Begin, Event, Run, Summary};

use crate::border::{Struct, free, looking, making, read};
use crate::error::{MosStatus, Result, text, wrong};
use crate::given::{self, index, object};
use crate::model::{models, open_device};
use crate::watch::{MosWatch, Watcher, goes_on};

/// Begin a run; refused where one of that name is there already.
pub const MOS_BEGIN_NEW: i32 = 0;
/// Go on where it was saved last, to the same bytes as without a break.
pub const MOS_BEGIN_RESUME: i32 = 1;
/// Begin anew, and replace what is there.
pub const MOS_BEGIN_AGAIN: i32 = 2;

/// An update of the weights while a concept is taught.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosUpdate {
    /// Of this struct, in bytes.
    pub size: usize,
    /// Updates done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
    /// The loss.
    pub loss: f32,
    /// Mean norm of the words' embeddings.
    pub norm: f32,
}

/// Told of each update. Anything but 0 ends the call with MOS_CANCELLED; the run is saved.
pub type MosOnUpdate =
    Option<unsafe extern "C" fn(user: *mut c_void, update: *const MosUpdate) -> c_int>;

/// A concept to be taught: begun by mos_training_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosTraining {
    /// Of this struct, in bytes.
    pub size: usize,
    /// A file of settings, as `mos train` takes it; NULL: none.
    pub file: *const c_char,
    /// Settings as a JSON object of the same keys, which come before those of the file; NULL: none.
    pub json: *const c_char,
    /// MOS_BEGIN_NEW, MOS_BEGIN_RESUME or MOS_BEGIN_AGAIN.
    pub begin: i32,
    /// As in MosLoad.
    pub device: *const c_char,
    /// Told how far it is; NULL: nobody.
    pub watch: MosWatch,
    /// Told of each update; NULL: nobody.
    pub on_update: MosOnUpdate,
    /// Given to both.
    pub user: *mut c_void,
}

// SAFETY: as it asks.
unsafe impl Struct for MosTraining {
    const NAME: &'static str = "MosTraining";

    fn usual() -> Self {
        MosTraining {
            size: 0,
            file: ptr::null(),
            json: ptr::null(),
            begin: MOS_BEGIN_NEW,
            device: ptr::null(),
            watch: None,
            on_update: None,
            user: ptr::null_mut(),
        }
    }
}

/// What teaching came to.
pub struct MosTaught {
    concept: CString,
    curve: CString,
    sheet: Option<CString>,
    losses: [f32; 2],
    norm: f32,
    updates: u64,
    warnings: Vec<CString>,
}

fn path(path: &Path) -> CString {
    text(&path.to_string_lossy())
}

unsafe fn taught(training: *const MosTraining) -> Result<MosTaught> {
    // SAFETY: as the header says, here and below.
    let given = unsafe { read(training) }?;
    let begin = match given.begin {
        MOS_BEGIN_NEW => Begin::New,
        MOS_BEGIN_RESUME => Begin::Resume,
        MOS_BEGIN_AGAIN => Begin::Again,
        other => return Err(wrong(format!("begin is {other}: expected a MOS_BEGIN_..."))),
    };
    let over = match unsafe { given::text(given.json, "json") }? {
        Some(json) => {
            let json = serde_json::from_str(&json);
            let json =
                json.map_err(|error| wrong(format!("the settings are not JSON: {error}")))?;
            Options::of_json(Path::new("settings"), json)?
        }
        None => Options::default(),
    };
    let (read, mut told) = match unsafe { given::path(given.file, "file") }? {
        Some(file) => config::read(&file)?,
        None => Default::default(),
    };
    let settings = Settings::new(over.or(read))?;
    let watcher = Watcher { watch: given.watch, user: given.user };
    let checkpoint = Checkpoint::open_named(&settings.model, models().as_deref())?;
    let device = open_device(unsafe { given::text(given.device, "device") }?)?;
    let mut remark = |words: &str| told.push(words.to_string());
    let mut run =
        Run::prepare_watched(&device, &checkpoint, &settings, begin, &mut remark, &mut |at| {
            watcher.heed(at)
        })?;
    let summary = run.run(&mut |event| match event {
        Event::Update(at) => {
            if let Some(on_update) = given.on_update {
                let size = size_of::<MosUpdate>();
                let update =
                    MosUpdate { size, done: at.done, of: at.of, loss: at.loss, norm: at.norm };
                // SAFETY: the program's own function, called as it asked to be.
                goes_on(unsafe { on_update(given.user, &update) })?;
            }
            watcher.tell("train", at.done as usize, at.of as usize)
        }
        Event::Class(at) | Event::Sheet(at) => watcher.heed(at),
        _ => ControlFlow::Continue(()),
    })?;
    let Summary { concept, curve, sheet, losses, norm, steps, .. } = summary;
    Ok(MosTaught {
        concept: path(&concept),
        curve: path(&curve),
        sheet: sheet.as_deref().map(path),
        losses,
        norm,
        updates: steps,
        warnings: told.iter().map(|words| text(words)).collect(),
    })
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_training_init(to: *mut MosTraining, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}

/// Teaches a concept, and writes its file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_train(
    training: *const MosTraining,
    result: *mut *mut MosTaught,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { making(result, || taught(training)) }
}

/// Gives the result back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_free(taught: *mut MosTaught) {
    // SAFETY: as the header says.
    unsafe { free(taught) }
}

/// The concept's file, for mos_concept_read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_path(taught: *const MosTaught) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(taught, "result") }?.concept.as_ptr()))
}

/// The picture of the loss.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_curve(taught: *const MosTaught) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(taught, "result") }?.curve.as_ptr()))
}

/// Pictures by the concept; NULL where the settings want none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_sheet(taught: *const MosTaught) -> *const c_char {
    looking(ptr::null(), || {
        // SAFETY: as the header says.
        let sheet = &unsafe { object(taught, "result") }?.sheet;
        Ok(sheet.as_ref().map_or(ptr::null(), |sheet| sheet.as_ptr()))
    })
}

/// Mean loss of the first tenth of the run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_first_loss(taught: *const MosTaught) -> f32 {
    // SAFETY: as the header says.
    looking(f32::NAN, || Ok(unsafe { object(taught, "result") }?.losses[0]))
}

/// Mean loss of the last tenth.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_last_loss(taught: *const MosTaught) -> f32 {
    // SAFETY: as the header says.
    looking(f32::NAN, || Ok(unsafe { object(taught, "result") }?.losses[1]))
}

/// Mean norm of the words' embeddings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_norm(taught: *const MosTaught) -> f32 {
    // SAFETY: as the header says.
    looking(f32::NAN, || Ok(unsafe { object(taught, "result") }?.norm))
}

/// Updates that this call made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_updates(taught: *const MosTaught) -> u64 {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(taught, "result") }?.updates))
}

/// How much there is to tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_warning_count(taught: *const MosTaught) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(taught, "result") }?.warnings.len()))
}

/// One of these, in a sentence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_taught_warning(
    taught: *const MosTaught,
    number: usize,
) -> *const c_char {
    looking(ptr::null(), || {
        // SAFETY: as the header says.
        let warnings = &unsafe { object(taught, "result") }?.warnings;
        Ok(warnings[index(number, warnings.len(), "warning")?].as_ptr())
    })
}
