//! Pictures that were made: their pixels, and their files.

use std::ffi::{CString, c_char};

use mixofshow::pipeline::Generated;
use mixofshow::pipeline::recipe::Recipe;

use crate::border::{call, free, looking};
use crate::error::{MosStatus, Result, text};
use crate::given::{index, needed, object};

/// Pictures that a model made.
pub struct MosPictures {
    made: Generated,
    recipe: Recipe,
    warnings: Vec<CString>,
}

impl MosPictures {
    pub fn new(made: Generated, recipe: Recipe) -> MosPictures {
        let warnings = made.warnings.iter().map(|warning| text(warning)).collect();
        MosPictures { made, recipe, warnings }
    }

    fn save(&self, number: usize, path: String) -> Result<()> {
        let number = index(number, self.made.pictures.len(), "picture")?;
        let path = std::path::PathBuf::from(path);
        let told = self.recipe.beside(&path).parameters(&self.made, number);
        Ok(self.made.pictures[number].save(&path, Some(&told))?)
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
    looking(0, || Ok(unsafe { object(pictures, "pictures") }?.made.pictures.len()))
}

/// Pixels in a row, of each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_width(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(pictures, "pictures") }?.made.width))
}

/// Rows, of each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_height(pictures: *const MosPictures) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(pictures, "pictures") }?.made.height))
}

/// Red, green and blue of each pixel, row by row: 3 * width * height bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_rgb(
    pictures: *const MosPictures,
    number: usize,
) -> *const u8 {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let all = &unsafe { object(pictures, "pictures") }?.made.pictures;
        Ok(all[index(number, all.len(), "picture")?].rgb().as_ptr())
    })
}

/// The seed of a picture.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_pictures_seed(pictures: *const MosPictures, number: usize) -> u64 {
    looking(0, || {
        // SAFETY: as the header says.
        let seeds = &unsafe { object(pictures, "pictures") }?.made.seeds;
        Ok(seeds[index(number, seeds.len(), "picture")?])
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
