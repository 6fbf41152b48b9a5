//! From a picture of any size to one that the model is tuned on: cut at random, fitted, pasted on
//! black at a random place.
//!
//! The method's transforms (its section on implementation and its public settings), at any size: a
//! picture is cut to the model's proportions with some probability, then it is made as large as
//! fits, times a random ratio for objects, and stands anywhere on a black ground. The mask follows.
//! What is black ground does not count in the loss.

use serde::{Deserialize, Serialize};

use crate::models::unet::SizeNumbers;
use crate::picture::{self, Mask, Picture};

use super::draws::Numbers;

/// How pictures are varied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    /// Of the result, in pixels.
    pub width: usize,
    pub height: usize,
    /// Probability of a cut.
    pub crop: f64,
    /// The picture's size on the ground, as a share of the largest that fits: uniform between the
    /// two.
    pub scale: [f64; 2],
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

/// What of a picture is used, and where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Of the source picture.
    pub from: Area,
    /// Of the result.
    pub to: Area,
    /// Of the whole result.
    pub width: usize,
    pub height: usize,
}

impl Transform {
    /// Whether a picture of that size is always placed in the same way.
    pub fn is_fixed(&self, width: usize, height: usize) -> bool {
        let same_proportions = width * self.height == height * self.width;
        // Without a cut, a picture of other proportions leaves room on the ground, and so does a
        // smaller one.
        same_proportions && self.scale == [1.0, 1.0]
    }

    /// A picture of `width` x `height` uncut, and as large as it can be.
    pub fn whole(&self, width: usize, height: usize) -> Placement {
        let fit = (self.width as f64 / width.max(1) as f64)
            .min(self.height as f64 / height.max(1) as f64);
        let side = |length: usize, most: usize| {
            ((length as f64 * fit).round() as usize).clamp(1, most.max(1))
        };
        let to =
            Area { x: 0, y: 0, width: side(width, self.width), height: side(height, self.height) };
        let from = Area { x: 0, y: 0, width, height };
        Placement { from, to, width: self.width, height: self.height }
    }

    /// Places a picture of `width` x `height`.
    pub fn place(&self, width: usize, height: usize, numbers: &mut Numbers) -> Placement {
        let mut from = Area { x: 0, y: 0, width, height };
        // Compared as products: width / height against the result's.
        let (wide, tall) = (width * self.height, height * self.width);
        let cut = numbers.unit() < self.crop;
        let ratio = numbers.between(self.scale[0], self.scale[1]);
        if cut && tall > wide {
            // Heads are at the top: a cut takes away from below.
            let least = (wide as f64 / self.width as f64).round().max(1.0) as usize;
            from.height = least.min(height) + numbers.below(height.saturating_sub(least) + 1);
        } else if cut && wide > tall {
            from.width = ((tall as f64 / self.height as f64).round().max(1.0) as usize).min(width);
            from.x = numbers.below(width - from.width + 1);
        }
        let fit = (self.width as f64 / from.width as f64)
            .min(self.height as f64 / from.height as f64)
            * ratio;
        let side = |length: usize, most: usize| {
            ((length as f64 * fit).round() as usize).clamp(1, most.max(1))
        };
        let (to_width, to_height) = (side(from.width, self.width), side(from.height, self.height));
        let x = numbers.below(self.width.saturating_sub(to_width) + 1);
        let y = numbers.below(self.height.saturating_sub(to_height) + 1);
        let to = Area { x, y, width: to_width, height: to_height };
        Placement { from, to, width: self.width, height: self.height }
    }
}

impl Placement {
    /// What part of the result the picture takes.
    pub fn share(&self) -> f64 {
        (self.to.width * self.to.height) as f64 / (self.width * self.height).max(1) as f64
    }

    /// What Stable Diffusion XL is told of the picture, of which the file had `original` width and
    /// height: that, where the result begins in what it was resized to, and the result's size. Ground
    /// beside it counts as no cut.
    pub fn sizes(&self, original: [usize; 2]) -> SizeNumbers {
        let begin = |from: usize, of: usize, to: usize, at: usize| {
            let resized = (from as f64 * to as f64 / of.max(1) as f64).round() as usize;
            resized.saturating_sub(at)
        };
        let (from, to) = (self.from, self.to);
        let top = begin(from.y, from.height, to.height, to.y);
        let left = begin(from.x, from.width, to.width, to.x);
        [original[1], original[0], top, left, self.height, self.width].map(|number| number as f32)
    }

    /// The placed picture.
    ///
    /// # Errors
    /// Sizes that no picture has.
    pub fn picture(&self, source: &Picture) -> picture::Result<Picture> {
        let Area { x, y, width, height } = self.from;
        let part = source.part(x as u32, y as u32, width as u32, height as u32)?;
        let part = part.resized(self.to.width as u32, self.to.height as u32)?;
        let mut ground = Picture::filled(self.width as u32, self.height as u32, [0; 3])?;
        ground.paste(&part, self.to.x as u32, self.to.y as u32);
        Ok(ground)
    }

    /// The mask at the latents' size, `[rows, columns]` of 0 and 1: the value at the nearest place,
    /// as torch's `interpolate(mode="nearest")` has it. Without a mask, 1 where the picture is.
    /// `source_size` is that of the picture.
    pub fn mask(
        &self,
        mask: Option<&Mask>,
        source_size: [usize; 2],
        rows: usize,
        columns: usize,
    ) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let (x, y) = (column * self.width / columns, row * self.height / rows);
                values.push(f32::from(self.source_of(x, y).is_some_and(|(x, y)| {
                    let Some(mask) = mask else { return true };
                    // Masks have the picture's size; a source that was made smaller has them
                    // larger.
                    let [width, height] = source_size.map(|side| side.max(1));
                    let (x, y) =
                        (x * mask.width() as usize / width, y * mask.height() as usize / height);
                    mask.values()
                        .get(y * mask.width() as usize + x)
                        .is_some_and(|&value| value >= 0.5)
                })));
            }
        }
        values
    }

    /// The pixel of the source that is seen at a place of the result; none on the ground.
    fn source_of(&self, x: usize, y: usize) -> Option<(usize, usize)> {
        let (x, y) = (x.checked_sub(self.to.x)?, y.checked_sub(self.to.y)?);
        if x >= self.to.width || y >= self.to.height {
            return None;
        }
        Some((
            self.from.x + x * self.from.width / self.to.width,
            self.from.y + y * self.from.height / self.to.height,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::{Draws, Purpose};
    use super::*;

    fn numbers(index: u64) -> Numbers {
        Draws::new(0).at(Purpose::Placement, index)
    }

    const PERSON: Transform = Transform { width: 8, height: 8, crop: 0.5, scale: [1.0, 1.0] };

    #[test]
    fn what_fits_is_left_alone() {
        for index in 0..20 {
            let placed = PERSON.place(16, 16, &mut numbers(index));
            let whole = |width, height| Area { x: 0, y: 0, width, height };
            assert_eq!(
                placed,
                Placement { from: whole(16, 16), to: whole(8, 8), width: 8, height: 8 }
            );
        }
        assert!(PERSON.is_fixed(16, 16) && !PERSON.is_fixed(16, 15));
        assert!(!Transform { scale: [0.5, 1.0], ..PERSON }.is_fixed(16, 16));
    }

    #[test]
    fn tall_pictures_keep_their_top_and_wide_ones_any_part() {
        let (mut cuts, mut whole, mut tops, mut lefts) = (0, 0, Vec::new(), Vec::new());
        for index in 0..400 {
            let tall = PERSON.place(10, 20, &mut numbers(index));
            assert_eq!((tall.from.x, tall.from.y, tall.from.width, tall.to.height), (0, 0, 10, 8));
            tops.push(tall.from.height);
            // As wide as its part of the source is, in proportion.
            assert_eq!(tall.to.width, (80.0 / tall.from.height as f64).round() as usize);
            assert!(tall.to.x + tall.to.width <= 8);
            let wide = PERSON.place(20, 10, &mut numbers(index));
            if wide.from.width == 10 {
                cuts += 1;
                lefts.push(wide.from.x);
                assert_eq!(wide.to, Area { x: 0, y: 0, width: 8, height: 8 });
            } else {
                whole += 1;
                assert_eq!((wide.from.width, wide.to.width, wide.to.height), (20, 8, 4));
                assert!(wide.to.y <= 4);
            }
        }
        assert!(cuts > 150 && whole > 150);
        assert_eq!((tops.iter().min(), tops.iter().max()), (Some(&10), Some(&20)));
        assert_eq!((lefts.iter().min(), lefts.iter().max()), (Some(&0), Some(&10)));
    }

    #[test]
    fn objects_become_smaller() {
        let transform = Transform { crop: 0.0, scale: [0.5, 1.0], ..PERSON };
        let mut widths: Vec<usize> =
            (0..200).map(|index| transform.place(32, 32, &mut numbers(index)).to.width).collect();
        widths.sort_unstable();
        widths.dedup();
        assert_eq!(widths, [4, 5, 6, 7, 8]);
    }

    /// A picture of 4x2 pixels of four colours by columns, its lower row masked, on a ground of
    /// 4x4.
    #[test]
    fn picture_and_mask_by_hand() {
        let colours = [[10, 0, 0], [20, 0, 0], [30, 0, 0], [40, 0, 0]].concat();
        let picture = Picture::new(4, 2, [colours.clone(), colours].concat()).unwrap();
        let mask = Mask::new(4, 2, vec![0., 0., 0., 0., 1., 1., 0., 1.]).unwrap();
        let placed = Placement {
            from: Area { x: 1, y: 0, width: 3, height: 2 },
            to: Area { x: 0, y: 2, width: 3, height: 2 },
            width: 4,
            height: 4,
        };
        let result = placed.picture(&picture).unwrap();
        let reds: Vec<u8> = result.rgb().chunks_exact(3).map(|p| p[0]).collect();
        assert_eq!(reds, [0, 0, 0, 0, 0, 0, 0, 0, 20, 30, 40, 0, 20, 30, 40, 0]);
        let inside = placed.mask(None, [4, 2], 4, 4);
        assert_eq!(inside, [0., 0., 0., 0., 0., 0., 0., 0., 1., 1., 1., 0., 1., 1., 1., 0.]);
        let masked = placed.mask(Some(&mask), [4, 2], 4, 4);
        assert_eq!(masked, [0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 1., 0.]);
        // At half the size every other pixel is looked at: (0, 0), (2, 0), (0, 2), (2, 2).
        assert_eq!(placed.mask(None, [4, 2], 2, 2), [0., 0., 1., 1.]);
        // A mask of twice the size that says the same.
        let large = mask.resized(8, 4, crate::picture::Scaling::Nearest).unwrap();
        assert_eq!(placed.mask(Some(&large), [4, 2], 4, 4), masked);
    }
}
