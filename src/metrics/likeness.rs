//! Which of several concepts a part of a picture looks like most.

use super::Embedding;
use super::error::Result;
use super::eye::Eye;
use super::image_alignment::ImageAlignment;
use super::metric::{Metric, Sample, mean};
use crate::picture::{self, Mask, Picture, Scaling};

/// What surrounds a cut-out: the background that towers know best as one. (With grey, shapes of
/// cut-outs told more than what they show.)
const AROUND: [u8; 3] = [255; 3];

/// Concepts as their pictures show them, each cut out along its mask, on white.
pub struct Likeness {
    concepts: Vec<Vec<Embedding>>,
}

impl Likeness {
    /// `concepts`: of each, the pictures that it was trained from, with masks where there are any.
    ///
    /// # Errors
    /// Whatever the device meets.
    pub fn new(eye: &dyn Eye, concepts: &[Vec<(Picture, Option<Mask>)>]) -> Result<Likeness> {
        let seen = |(picture, mask): &(Picture, Option<Mask>)| match mask {
            Some(mask) => eye.see(&cut_out(&without_background(picture, mask)?, bounds(mask))?),
            None => eye.see(&cut_out(picture, [0.0, 0.0, 1.0, 1.0])?),
        };
        let concepts = concepts
            .iter()
            .map(|pictures| pictures.iter().map(seen).collect())
            .collect::<Result<_>>()?;
        Ok(Likeness { concepts })
    }

    /// The mean cosine between the pictures of two concepts; of one, between those of its pictures
    /// that are not the same one.
    pub fn between(&self, a: usize, b: usize) -> f64 {
        let of = |i: usize| self.concepts.get(i).map_or(&[][..], Vec::as_slice);
        let pairs = of(a).iter().enumerate().flat_map(|(i, x)| {
            of(b)
                .iter()
                .enumerate()
                .filter(move |(j, _)| a != b || i != *j)
                .map(|(_, y)| x.cosine(y))
        });
        // One picture alone is like itself.
        mean(pairs).unwrap_or(1.0)
    }

    /// The mean cosine between a part of a picture (left, top, right, bottom as fractions) and the
    /// pictures of each concept.
    ///
    /// # Errors
    /// Whatever the device meets.
    pub fn of_part(&self, eye: &dyn Eye, picture: &Picture, part: [f64; 4]) -> Result<Vec<f64>> {
        let seen = [eye.see(&cut_out(picture, part)?)?];
        let like = |trained_on: &Vec<Embedding>| {
            let sample = Sample { seen: &seen, trained_on, ..Sample::default() };
            ImageAlignment.score(&sample).unwrap_or(0.0)
        };
        Ok(self.concepts.iter().map(like).collect())
    }
}

/// The number of the greatest score; of equal ones the first.
pub fn closest(scores: &[f64]) -> Option<usize> {
    let better = |best: usize, i: usize| if scores.get(i) > scores.get(best) { i } else { best };
    (0..scores.len()).reduce(better)
}

/// The smallest box around what a mask covers, as fractions; all of it where it covers nothing.
fn bounds(mask: &Mask) -> [f64; 4] {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let (mut low, mut high) = ([width, height], [0, 0]);
    for (at, _) in mask.values().iter().enumerate().filter(|(_, value)| **value > 0.5) {
        for (axis, place) in [at % width, at / width].into_iter().enumerate() {
            low[axis] = low[axis].min(place);
            high[axis] = high[axis].max(place + 1);
        }
    }
    if high[0] == 0 {
        return [0.0, 0.0, 1.0, 1.0];
    }
    let (w, h) = (width as f64, height as f64);
    [low[0] as f64 / w, low[1] as f64 / h, high[0] as f64 / w, high[1] as f64 / h]
}

/// The picture where the mask covers it, and white elsewhere.
fn without_background(picture: &Picture, mask: &Mask) -> picture::Result<Picture> {
    let (width, height) = (picture.width(), picture.height());
    let mask = mask.resized(width, height, Scaling::Nearest)?;
    let mut rgb = picture.rgb().to_vec();
    for (pixel, _) in rgb.chunks_exact_mut(3).zip(mask.values()).filter(|(_, value)| **value <= 0.5)
    {
        pixel.copy_from_slice(&AROUND);
    }
    Picture::new(width, height, rgb)
}

/// A part of a picture, made a square by what surrounds it.
fn cut_out(picture: &Picture, [left, top, right, bottom]: [f64; 4]) -> picture::Result<Picture> {
    let span = |from: f64, to: f64, side: u32| {
        let first = ((from * f64::from(side)).floor().max(0.0) as u32).min(side - 1);
        let last = (to * f64::from(side)).ceil().min(f64::from(side)) as u32;
        (first, last.max(first + 1) - first)
    };
    let (x, width) = span(left, right, picture.width());
    let (y, height) = span(top, bottom, picture.height());
    let part = picture.part(x, y, width, height)?;
    let side = width.max(height);
    let (before, above) = (((side - width) / 2) as usize, ((side - height) / 2) as usize);
    let mut square = AROUND.repeat(side as usize * side as usize);
    let (row, line) = (side as usize * 3, width as usize * 3);
    for (to, from) in square.chunks_exact_mut(row).skip(above).zip(part.rgb().chunks_exact(line)) {
        to[before * 3..before * 3 + line].copy_from_slice(from);
    }
    Picture::new(side, side, square)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_out_and_centred() {
        let mut rgb = vec![0; 8 * 4 * 3];
        rgb[(2 * 8 + 5) * 3] = 200;
        let picture = Picture::new(8, 4, rgb).unwrap();
        let part = cut_out(&picture, [0.5, 0.0, 0.75, 1.0]).unwrap();
        assert_eq!((part.width(), part.height()), (4, 4));
        assert_eq!(part.pixel(2, 2), Some([200, 0, 0]));
        assert_eq!(part.pixel(0, 2), Some(AROUND));
        assert_eq!(cut_out(&picture, [0.99, 0.99, 1.0, 1.0]).unwrap().width(), 1);
    }

    #[test]
    fn what_no_mask_covers_is_white() {
        let picture = Picture::filled(4, 2, [10, 20, 30]).unwrap();
        let mask = Mask::new(2, 1, vec![0.0, 1.0]).unwrap();
        let alone = without_background(&picture, &mask).unwrap();
        assert_eq!([alone.pixel(1, 1), alone.pixel(2, 1)], [Some(AROUND), Some([10, 20, 30])]);
    }

    #[test]
    fn masks_are_bounded_and_the_closest_is_found() {
        let mut values = vec![0.0; 8 * 4];
        values[2 * 8 + 3] = 1.0;
        values[8 + 6] = 1.0;
        assert_eq!(bounds(&Mask::new(8, 4, values).unwrap()), [0.375, 0.25, 0.875, 0.75]);
        assert_eq!(bounds(&Mask::new(8, 4, vec![0.0; 32]).unwrap()), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(closest(&[0.2, 0.5, 0.5]), Some(1));
        assert_eq!(closest(&[]), None);
    }
}
