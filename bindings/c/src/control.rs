//! Networks that steer a picture.

use std::ffi::c_char;
use std::path::Path;
use std::ptr;

use mixofshow::checkpoint::{self, Checkpoint, find};
use mixofshow::picture::Picture;
use mixofshow::picture::edges::CANNY_THRESHOLDS;
use mixofshow::pipeline::Control;
use mixofshow::pipeline::recipe::{ControlSource, Made, Source};

use crate::border::{Struct, read};
use crate::error::{MosStatus, Result, wrong};
use crate::given::{choice, needed, text};
use crate::model::models;

/// A ControlNet or a T2I-Adapter that steers a picture: begun by mos_control_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosControl {
    /// Of this struct, in bytes.
    pub size: usize,
    /// Its folder or file, or the name of one inside of the model or in the folder of models.
    pub network: *const c_char,
    /// A picture file: what it follows, or anything from which `make` draws it.
    pub image: *const c_char,
    /// "canny" or "outline"; NULL: the image as it is.
    pub make: *const c_char,
    /// Factor of what it adds.
    pub weight: f32,
    /// It steers from this part of the steps to `end`, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// As messages name it; NULL: the network's file name.
    pub name: *const c_char,
}

// SAFETY: as it asks.
unsafe impl Struct for MosControl {
    const NAME: &'static str = "MosControl";

    fn usual() -> Self {
        MosControl {
            size: 0,
            network: ptr::null(),
            image: ptr::null(),
            make: ptr::null(),
            weight: 1.0,
            start: 0.0,
            end: 1.0,
            name: ptr::null(),
        }
    }
}

/// Opens the network: inside of the model, else by path, else in the folder of models.
pub unsafe fn control(
    given: *const MosControl,
    checkpoint: &Checkpoint,
) -> Result<(Control, ControlSource)> {
    // SAFETY: as the header says, here and below.
    let given = unsafe { read(given) }?;
    let named = unsafe { needed(given.network, "network of a MosControl") }?;
    let network = match checkpoint.controls.get(&named) {
        Some(inside) => inside.clone(),
        None => match find(&named, models().as_deref())? {
            Some(path) => checkpoint::Control::open(&path)?,
            None => {
                let words = "that is a whole model, not a network that steers one";
                return Err(wrong(format!("control `{named}`: {words}")));
            }
        },
    };
    let file = unsafe { needed(given.image, "image of a MosControl") }?;
    let picture = Picture::open(&file)?;
    let make: Option<Made> = unsafe { choice(given.make, "make") }?;
    let [strong, weak] = CANNY_THRESHOLDS;
    let picture = match make {
        None => picture,
        Some(Made::Canny) => picture.canny(strong, weak)?,
        Some(Made::Outline) => picture.outline()?,
    };
    let stem = Path::new(&named).file_stem();
    let stem = stem.map_or_else(|| named.clone(), |stem| stem.to_string_lossy().into_owned());
    let name = unsafe { text(given.name, "name of a MosControl") }?.unwrap_or(stem);
    let (weight, start, end) = (given.weight, given.start, given.end);
    let image = Source::of(file.as_ref())?;
    let source = ControlSource {
        network: named,
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

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_control_init(to: *mut MosControl, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}
