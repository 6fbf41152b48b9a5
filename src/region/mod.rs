//! Regions: which part of a picture follows which prompt.
//!
//! A [`Layout`] lists regions over one context prompt: read from a file, from `--region`, or from
//! the published grammar. [`Placed`] turns it into masks at every size of feature map, and those
//! into the share that each prompt has of each token (Mix-of-Show, section 3.4: outside of regions
//! the context prompt holds, inside the mean of the covering regions).
mod area;
mod draw;
mod parse;
mod place;
mod said;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::picture;

pub use area::Area;
pub use place::{Placed, Shares};
pub use said::{side_by_side, with_article};

/// The most regions: one bit of a word each, and one for what no region covers.
pub const MOST_REGIONS: usize = 31;

/// The most corners of a polygon.
pub const MOST_CORNERS: usize = 10_000;
/// The most that a region can weigh beside others: far more than any picture needs, and sums of it
/// are finite.
const MOST_WEIGHT: f64 = 1e6;
/// The strongest scale or factor, either way: beyond it, products of f16 are no numbers.
const MOST_SCALE: f32 = 1e3;

/// What is placed where.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "stored::StoredLayout", into = "stored::StoredLayout")]
pub struct Layout {
    /// The context prompt and its negative, where the layout says them.
    pub prompt: Option<String>,
    /// What guidance leads away from, where the layout says it.
    pub negative: Option<String>,
    /// Self-attention does not leak: tokens see those that share a region with them, and those in
    /// none.
    pub isolate: bool,
    /// All is as in Mix-of-Show's published program: boxes are cut off at the picture's edge,
    /// regions vanish where a feature map has no cell that lies within, and where regions weigh a
    /// control differently the last one that names it decides.
    pub published: bool,
    /// In the order in which they are numbered.
    pub regions: Vec<Region>,
}

/// A part of the picture with a prompt of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// For messages and drawings; none: its number.
    pub name: Option<String>,
    /// What holds there.
    pub prompt: String,
    /// None: the picture's negative prompt.
    pub negative: Option<String>,
    /// Where it holds.
    pub area: Area,
    /// Width of the edge over which the region fades, in the units of [`Area`] (fractions are of
    /// the shorter side); 0: none.
    pub soft: f64,
    /// Its part of the mean where regions of its `order` overlap.
    pub weight: f64,
    /// A region of higher order lies over those of lower ones; those of the same order are
    /// averaged.
    pub order: i32,
    /// The context prompt's share inside, 0 to 1.
    pub base: f64,
    /// It holds from this part of the steps to that, 0 to 1.
    pub start: f64,
    /// The part of the steps at which it ends.
    pub end: f64,
    /// Scales of concepts and LoRAs inside, by name; those that are not named keep theirs.
    pub concepts: BTreeMap<String, f32>,
    /// Factors of controls inside, by name.
    pub controls: BTreeMap<String, f32>,
}

impl Default for Region {
    fn default() -> Self {
        Region {
            name: None,
            prompt: String::new(),
            negative: None,
            area: Area::Whole,
            soft: 0.0,
            weight: 1.0,
            order: 0,
            base: 0.0,
            start: 0.0,
            end: 1.0,
            concepts: BTreeMap::new(),
            controls: BTreeMap::new(),
        }
    }
}

/// Whether something that holds from part `start` of the steps to part `end` does so in step `step`
/// of `steps`; as diffusers does for ControlNet, a step counts if all of it lies within.
pub fn holds(start: f64, end: f64, step: usize, steps: usize) -> bool {
    let (from, to) = (step as f64 / steps as f64, (step + 1) as f64 / steps as f64);
    from >= start - 1e-9 && to <= end + 1e-9
}

/// A number for a message; very large ones without all their digits.
fn number(value: f64) -> String {
    if value.abs() < 1e9 { value.to_string() } else { format!("{value:e}") }
}

/// A layout that cannot be read or placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A region that was typed wrongly.
    #[error(
        "region `{text}`: {problem}; expected \"LEFT,TOP,RIGHT,BOTTOM: prompt | negative prompt\""
    )]
    Text {
        /// As it was typed.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// Regions in the published program's grammar that cannot be read.
    #[error(
        "regions `{text}`: {problem}; expected \"[prompt]-*-[negative prompt]-*-[top, left, \
            bottom, right]\", with `|` between regions"
    )]
    Published {
        /// As they were given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// The system cannot read a layout.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A layout whose contents are wrong.
    #[error("{}: not a layout: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A value of a region that is out of range.
    #[error("region `{region}`: {key} is {found}, expected {expected}")]
    Value {
        /// Its name, or its number.
        region: String,
        /// As files of layouts call it.
        key: &'static str,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// A mask of another shape than the picture.
    #[error(
        "region `{region}`: {} is {mask_width} x {mask_height}, the picture {width} x {height}: a \
            mask has the picture's proportions",
        path.display()
    )]
    MaskSize {
        /// Its name, or its number.
        region: String,
        /// The file or folder.
        path: PathBuf,
        /// In pixels.
        mask_width: u32,
        /// In pixels.
        mask_height: u32,
        /// Of the picture to be made, in pixels.
        width: usize,
        /// Of the picture to be made, in pixels.
        height: usize,
    },
    /// A mask that cannot be read.
    #[error("region `{region}`: {source}")]
    Mask {
        /// Its name, or its number.
        region: String,
        /// What is wrong with it.
        source: picture::Error,
    },
    /// More regions than [`MOST_REGIONS`].
    #[error("{0} regions: at most {MOST_REGIONS} are supported")]
    TooMany(usize),
    /// A region names a concept or control that is not in use.
    #[error("region `{region}` names the {kind} `{name}`, which is not in use{known}")]
    Unknown {
        /// Its name, or its number.
        region: String,
        /// Concept or control.
        kind: &'static str,
        /// What it names.
        name: String,
        /// What is in use, for the message.
        known: String,
    },
    /// The drawing of a layout.
    #[error(transparent)]
    Picture(#[from] picture::Error),
}

/// Of the calls of regions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Layout {
    /// The name of region `index`, or its number.
    pub fn name(&self, index: usize) -> String {
        let named = self.regions.get(index).and_then(|region| region.name.clone());
        named.unwrap_or_else(|| format!("{}", index + 1))
    }

    /// Checks all that does not depend on a picture's size; what does (boxes, polygons, soft edges)
    /// is checked when it is placed.
    ///
    /// # Errors
    /// Numbers out of range, with the region and the key named.
    pub fn check(&self) -> Result<()> {
        if self.regions.len() > MOST_REGIONS {
            return Err(Error::TooMany(self.regions.len()));
        }
        for (index, region) in self.regions.iter().enumerate() {
            if let Area::Polygon(corners) = &region.area
                && corners.len() > MOST_CORNERS
            {
                let (key, found) = ("polygon", format!("{} corners", corners.len()));
                return Err(Error::Value {
                    region: self.name(index),
                    key,
                    found,
                    expected: format!("{MOST_CORNERS} at most"),
                });
            }
            let wrong = |key, found: f64, expected: &str| {
                Err(Error::Value {
                    region: self.name(index),
                    key,
                    found: number(found),
                    expected: expected.into(),
                })
            };
            if !(region.soft.is_finite() && region.soft >= 0.0) {
                return wrong("soft", region.soft, "a width of 0 or more");
            }
            if !(0.0..=MOST_WEIGHT).contains(&region.weight) {
                return wrong("weight", region.weight, &format!("0 to {MOST_WEIGHT}"));
            }
            for (key, value) in
                [("base", region.base), ("start", region.start), ("end", region.end)]
            {
                if !(0.0..=1.0).contains(&value) {
                    return wrong(key, value, "0 to 1");
                }
            }
            if region.end <= region.start {
                return wrong("end", region.end, &format!("more than the start, {}", region.start));
            }
            let scales = region.concepts.values().map(|v| ("concepts", v));
            for (key, value) in scales.chain(region.controls.values().map(|v| ("controls", v))) {
                if !(-MOST_SCALE..=MOST_SCALE).contains(value) {
                    return wrong(
                        key,
                        f64::from(*value),
                        &format!("numbers from -{MOST_SCALE} to {MOST_SCALE}"),
                    );
                }
            }
        }
        Ok(())
    }
}
