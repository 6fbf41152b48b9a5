//! Whether a part of a concept is there in its own colour.

use crate::picture::Picture;

/// A part of a concept, as the pictures show it that the concept was trained from.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// For people: `hat`.
    pub name: String,
    /// Red, green and blue.
    pub colour: [u8; 3],
    /// What share of a picture's pixels it covers, on the mean.
    pub share: f64,
}

/// Of the pixels that a part covers where it was trained from, as many must come near its colour:
/// figures are drawn smaller, too.
const ENOUGH: f64 = 0.5;
/// Fewer pixels are chance.
const FEWEST: f64 = 8.0;

impl Part {
    /// How far the part's colour is from the nearest one that enough of a picture has, 0 to 255, in
    /// the channel that differs most. Nothing is searched for: of all pixels, sorted by their
    /// distance, it is the one at half of the part's own number. What else in the picture has that
    /// colour counts as the part, so the figure is to be read beside that of other pictures.
    pub fn distance(&self, picture: &Picture) -> f64 {
        let mut counts = [0usize; 256];
        for pixel in picture.rgb().chunks_exact(3) {
            let apart = pixel.iter().zip(self.colour).map(|(a, b)| a.abs_diff(b));
            counts[usize::from(apart.max().unwrap_or(0))] += 1;
        }
        let pixels = (picture.rgb().len() / 3) as f64;
        let wanted = (ENOUGH * self.share * pixels).round().max(FEWEST).min(pixels) as usize;
        let mut near = 0;
        let far_enough = |count: &usize| {
            near += count;
            near >= wanted
        };
        counts.iter().position(far_enough).unwrap_or(255) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_there_where_enough_pixels_have_its_colour() {
        let part = Part { name: "hat".into(), colour: [200, 40, 40], share: 0.1 };
        let mut rgb = [10, 40, 40].repeat(20 * 20);
        // Of 40 pixels where it was trained from, half are enough; 19 are not.
        for pixel in rgb.chunks_exact_mut(3).take(19) {
            pixel.copy_from_slice(&[197, 45, 41]);
        }
        let of = |rgb: &[u8]| part.distance(&Picture::new(20, 20, rgb.to_vec()).unwrap());
        assert_eq!(of(&rgb), 190.0);
        rgb[19 * 3..20 * 3].copy_from_slice(&[200, 40, 33]);
        assert_eq!(of(&rgb), 7.0);
        // Parts of next to no pixels ask for a few all the same, and for no more than there are.
        let small = Part { share: 0.0, ..part.clone() };
        assert_eq!(small.distance(&Picture::new(20, 20, rgb).unwrap()), 5.0);
        let one = Picture::new(1, 1, vec![200, 40, 60]).unwrap();
        assert_eq!(small.distance(&one), 20.0);
    }
}
