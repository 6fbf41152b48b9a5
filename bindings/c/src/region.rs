//! Parts of a picture with prompts of their own.

use std::ffi::c_char;
use std::ptr;

use mixofshow::region::{Area, Region};

use crate::border::{Struct, read};
use crate::error::{MosStatus, Result, wrong};
use crate::given::{list, path, text, texts};

/// A part of a picture with a prompt of its own: begun by mos_region_init. Without a box, polygon
/// or mask it is all of the picture.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosRegion {
    /// Of this struct, in bytes.
    pub size: usize,
    /// For messages; NULL: its number.
    pub name: *const c_char,
    /// What holds there.
    pub prompt: *const c_char,
    /// NULL: the picture's.
    pub negative: *const c_char,
    /// Whether `edges` count.
    pub has_box: i32,
    /// Left, top, right, bottom: fractions of the picture, or pixels.
    pub edges: [f64; 4],
    /// Corners x, y, one after the other: fractions or pixels.
    pub polygon: *const f64,
    /// How many corners there are.
    pub corners: usize,
    /// A picture file, white inside.
    pub mask: *const c_char,
    /// Width of a fading edge.
    pub soft: f64,
    /// Part of the mean where regions overlap.
    pub weight: f64,
    /// Higher ones lie on top.
    pub order: i32,
    /// The picture's prompt's share inside.
    pub base: f64,
    /// It holds from this part of the steps to `end`, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// Names (or words) of concepts that act inside, each as strong as its factor says.
    pub concepts: *const *const c_char,
    /// A factor for each of them.
    pub concept_factors: *const f32,
    /// How many there are.
    pub concept_count: usize,
}

// SAFETY: as it asks.
unsafe impl Struct for MosRegion {
    const NAME: &'static str = "MosRegion";

    fn usual() -> Self {
        let usual = Region::default();
        MosRegion {
            size: 0,
            name: ptr::null(),
            prompt: ptr::null(),
            negative: ptr::null(),
            has_box: 0,
            edges: [0.0, 0.0, 1.0, 1.0],
            polygon: ptr::null(),
            corners: 0,
            mask: ptr::null(),
            soft: usual.soft,
            weight: usual.weight,
            order: usual.order,
            base: usual.base,
            start: usual.start,
            end: usual.end,
            concepts: ptr::null(),
            concept_factors: ptr::null(),
            concept_count: 0,
        }
    }
}

/// The region of that number, as the library has it.
pub unsafe fn region(given: *const MosRegion, number: usize) -> Result<Region> {
    // SAFETY: as the header says, here and below.
    let given = unsafe { read(given) }?;
    let what = |field: &str| format!("region {number}: {field}");
    let mask = unsafe { path(given.mask, &what("mask")) }?;
    let corners = unsafe { list(given.polygon, 2 * given.corners, &what("polygon")) }?;
    let corners: Vec<[f64; 2]> = corners.as_chunks().0.to_vec();
    let area = match (given.has_box != 0, corners.is_empty(), mask) {
        (false, true, None) => Area::Whole,
        (true, true, None) => Area::Box(given.edges),
        (false, false, None) => Area::Polygon(corners),
        // So that it is found from every folder.
        (false, true, Some(mask)) => Area::Mask(std::path::absolute(&mask).unwrap_or(mask)),
        _ => return Err(wrong(what("more than one of box, polygon and mask"))),
    };
    let names = unsafe { texts(given.concepts, given.concept_count, &what("concepts")) }?;
    let factors =
        unsafe { list(given.concept_factors, given.concept_count, &what("concept_factors")) }?;
    Ok(Region {
        name: unsafe { text(given.name, &what("name")) }?,
        prompt: unsafe { text(given.prompt, &what("prompt")) }?.unwrap_or_default(),
        negative: unsafe { text(given.negative, &what("negative")) }?,
        area,
        soft: given.soft,
        weight: given.weight,
        order: given.order,
        base: given.base,
        start: given.start,
        end: given.end,
        concepts: names.into_iter().zip(factors).collect(),
        ..Region::default()
    })
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_region_init(to: *mut MosRegion, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}
