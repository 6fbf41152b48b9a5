//! Latents: what pictures are before they are decoded.

use std::ffi::c_char;

use mixofshow::graph::Array;
use mixofshow::picture::Picture;

use crate::border::{free, looking, making};
use crate::error::{MosStatus, Result, wrong};
use crate::given::{list, needed, object};
use crate::model::MosModel;
use crate::pictures::MosPictures;

/// Latents of one or more pictures: numbers, batch by channels by height by width.
pub struct MosLatents {
    pub values: Vec<f32>,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
}

/// Matrices of `rows x columns` with rows and columns changed.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            turned.extend(matrix.iter().skip(column).step_by(columns.max(1)));
        }
    }
    turned
}

impl MosLatents {
    /// Of the library's, whose channels come last.
    pub fn of(latents: &Array) -> Result<MosLatents> {
        let [batch, height, width, channels] = latents.shape[..] else {
            return Err(wrong(format!("latents of shape {:?}", latents.shape)));
        };
        let values = turned(latents.values(), height * width, channels);
        Ok(MosLatents { values, shape: [batch, channels, height, width] })
    }
}

/// Latents from C: `shape` has four numbers.
pub unsafe fn given(values: *const f32, shape: *const usize, what: &str) -> Result<Array> {
    // SAFETY: as the header says, here and below.
    let shape = unsafe { list(shape, 4, &format!("the shape of {what}")) }?;
    let [batch, channels, height, width] = shape[..] else {
        return Err(wrong(format!("the shape of {what}: expected four numbers")));
    };
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    let count = count.filter(|count| *count > 0).ok_or_else(|| {
        wrong(format!("{what} of {batch} x {channels} x {height} x {width} numbers"))
    })?;
    let values = unsafe { list(values, count, what) }?;
    Ok(Array::f32([batch, height, width, channels], turned(&values, channels, height * width)))
}

/// The latents of a picture file, the mean of what they may be. `tile`: in parts of at most this
/// many pixels squared; 0: as a whole where it fits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_encode(
    model: *const MosModel,
    image: *const c_char,
    tile: usize,
    latents: *mut *mut MosLatents,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe {
        making(latents, || {
            let model = object(model, "model")?;
            let picture = Picture::open(needed(image, "the image")?)?;
            MosLatents::of(&model.encode(&picture, Some(tile).filter(|tile| *tile > 0))?)
        })
    }
}

/// The pictures of latents; `shape` has four numbers: batch, channels, height, width. They carry no
/// settings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_decode(
    model: *const MosModel,
    latents: *const f32,
    shape: *const usize,
    tile: usize,
    pictures: *mut *mut MosPictures,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe {
        making(pictures, || {
            let model = object(model, "model")?;
            let latents = given(latents, shape, "the latents")?;
            let made = model.decode(&latents, Some(tile).filter(|tile| *tile > 0))?;
            MosPictures::decoded(made, &latents)
        })
    }
}

/// The numbers, batch by channels by height by width.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_latents_values(latents: *const MosLatents) -> *const f32 {
    // SAFETY: as the header says.
    looking(std::ptr::null(), || Ok(unsafe { object(latents, "latents") }?.values.as_ptr()))
}

/// Four numbers: batch, channels, height, width.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_latents_shape(latents: *const MosLatents) -> *const usize {
    // SAFETY: as the header says.
    looking(std::ptr::null(), || Ok(unsafe { object(latents, "latents") }?.shape.as_ptr()))
}

/// Gives latents back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_latents_free(latents: *mut MosLatents) {
    // SAFETY: as the header says.
    unsafe { free(latents) }
}
