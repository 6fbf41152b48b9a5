//! Pictures that were made: their pixels, and their files.

use std::ffi::{CString, c_char};

use mixofshow::graph::Array;
use mixofshow::picture::Picture;
use mixofshow::pipeline::Generated;
use mixofshow::pipeline::recipe::Recipe;

use crate::border::{call, free, looking};
use crate::error::{MosStatus, Result, text};
use crate::given::{index, needed, object};
use crate::latents::MosLatents;

/// Pictures that a model made.
pub struct MosPictures {
    pictures: Vec<Picture>,
    latents: MosLatents,
    /// How they were made; none of those that were only decoded.
    made: Option<(Generated, Recipe)>,
    warnings: Vec<CString>,
}

impl MosPictures {
    pub fn new(mut made: Generated, recipe: Recipe) -> Result<MosPictures> {
        let warnings = made.warnings.iter().map(|warning| text(warning)).collect();
        let latents = MosLatents::of(&made.latents)?;
        let pictures = std::mem::take(&mut made.pictures);
        Ok(MosPictures { pictures, latents, made: Some((made, recipe)), warnings })
    }

    pub fn decoded(pictures: Vec<Picture>, latents: &Array) -> Result<MosPictures> {
        let latents = MosLatents::of(latents)?;
        Ok(MosPictures { pictures, latents, made: None, warnings: Vec::new() })
    }

    fn save(&self, number: usize, path: String) -> Result<()> {
        let number = index(number, self.pictures.len(), "picture")?;
        let path = std::path::PathBuf::from(path);
        let told = self.made.as_ref();
        let told = told.map(|(made, recipe)| recipe.beside(&path).parameters(made, number));
        Ok(self.pictures[number].save(&path, told.as_ref())?)
    }
}

/// Gives pictures back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_free(pictures: *mut MosPictures) {
    // SAFETY: as the header says.
    unsafe { free(pictures) }
}

/// How many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_count(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(pictures, "pictures") }?.pictures.len()))
}

/// Pixels in a row, of each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_width(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || {
        let pictures = &unsafe { object(pictures, "pictures") }?.pictures;
        Ok(pictures.first().map_or(0, |picture| picture.width() as usize))
    })
}

/// Rows, of each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_height(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || {
        let pictures = &unsafe { object(pictures, "pictures") }?.pictures;
        Ok(pictures.first().map_or(0, |picture| picture.height() as usize))
    })
}

/// Red, green and blue of each pixel, row by row: 3 * width * height bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_rgb(
    pictures: *const MosPictures,
    number: usize,
) -> *const u8 {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let all = &unsafe { object(pictures, "pictures") }?.pictures;
        Ok(all[index(number, all.len(), "picture")?].rgb().as_ptr())
    })
}

/// The final latents of all pictures, batch by channels by height by width. With `shape`, four
/// numbers are written there, in this order; NULL: nothing is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_latents(
    pictures: *const MosPictures,
    shape: *mut usize,
) -> *const f32 {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let latents = &unsafe { object(pictures, "pictures") }?.latents;
        if !shape.is_null() {
            // SAFETY: there is room for four numbers, as the header says.
            unsafe { std::ptr::copy_nonoverlapping(latents.shape.as_ptr(), shape, 4) };
        }
        Ok(latents.values.as_ptr())
    })
}

/// The seed of a picture; 0 of those that were only decoded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_seed(pictures: *const MosPictures, number: usize) -> u64 {
    looking(0, || {
        // SAFETY: as the header says.
        let pictures = unsafe { object(pictures, "pictures") }?;
        let number = index(number, pictures.pictures.len(), "picture")?;
        let seeds = pictures.made.as_ref().map(|(made, _)| &made.seeds);
        Ok(seeds.and_then(|seeds| seeds.get(number)).copied().unwrap_or(0))
    })
}

/// Writes a picture as PNG with its settings: the same bytes as `mos generate`, which makes it
/// again with --like.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_save(
    pictures: *const MosPictures,
    number: usize,
    path: *const c_char,
) -> MosStatus {
    // SAFETY: as the header says.
    call(|| unsafe { object(pictures, "pictures")?.save(number, needed(path, "the path")?) })
}

/// How much there is to tell: what was cut from prompts, what stands in for what.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_warning_count(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(pictures, "pictures") }?.warnings.len()))
}

/// One of these, in a sentence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_warning(
    pictures: *const MosPictures,
    number: usize,
) -> *const c_char {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let warnings = &unsafe { object(pictures, "pictures") }?.warnings;
        Ok(warnings[index(number, warnings.len(), "warning")?].as_ptr())
    })
}
