//! Regions drawn over a picture.
use super::area::Outline;
use super::{Layout, Result};
use crate::picture::{Picture, Scaling};

/// Colours that are told apart well (after Okabe and Ito).
const COLOURS: [[u8; 3]; 7] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];
/// How much of a region's colour lies over the picture.
const TINT: f32 = 0.25;

impl Layout {
    /// `picture` with each region tinted, outlined and named.
    ///
    /// # Errors
    /// As [`super::Placed::new`].
    pub fn draw(&self, picture: &Picture) -> Result<Picture> {
        self.check()?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let mut rgb = picture.rgb().to_vec();
        let mut labels = Vec::new();
        for (index, region) in self.regions.iter().enumerate() {
            let name = self.name(index);
            let mask =
                Outline::new(&region.area, region.soft, width, height, &name, self.published)?
                    .pixels()?;
            let mask = mask.resized(picture.width(), picture.height(), Scaling::Area)?;
            let values = mask.values();
            let colour = COLOURS[index % COLOURS.len()];
            let inside = |x: usize, y: usize| values[y * width + x] >= 0.5;
            let mut first = None;
            for (i, pixel) in rgb.chunks_exact_mut(3).enumerate() {
                let (x, y) = (i % width, i / width);
                let edge = inside(x, y)
                    && (x == 0
                        || y == 0
                        || x + 1 == width
                        || y + 1 == height
                        || !(inside(x - 1, y)
                            && inside(x + 1, y)
                            && inside(x, y - 1)
                            && inside(x, y + 1)));
                if inside(x, y) {
                    first.get_or_insert((x, y));
                }
                let share = if edge { 1.0 } else { TINT * values[i] };
                for (value, colour) in pixel.iter_mut().zip(colour) {
                    *value = (f32::from(*value) * (1.0 - share) + f32::from(colour) * share).round()
                        as u8;
                }
            }
            labels.extend(first.map(|at| (at, name)));
        }
        let mut drawn = Picture::new(picture.width(), picture.height(), rgb)?;
        let scale = (picture.width().min(picture.height()) / 256).max(1);
        for ((x, y), name) in labels {
            drawn.label(&name, x as u32 + 3 * scale, y as u32 + 3 * scale, scale);
        }
        Ok(drawn)
    }
}
