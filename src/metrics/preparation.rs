//! How pictures are made ready for a tower.

use serde_json::Value;

use super::error::Result;
use crate::picture::Picture;

/// Of OpenAI's CLIP, where a model does not say how its pictures are normalised.
pub(super) const CLIP_COLOURS: [[f32; 3]; 2] =
    [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.261_302_6, 0.275_777_1]];
/// Of all pictures of ImageNet: what DINO's towers were trained with.
pub(super) const IMAGENET_COLOURS: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// The shorter side is fitted to `resize` by Pillow's bicubic filter, the middle is cut out, and
/// colours are normalised.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Preparation {
    pub resize: u32,
    pub crop: u32,
    /// Mean and deviation of each colour.
    pub colours: [[f32; 3]; 2],
}

impl Preparation {
    /// `[crop, crop, 3]`
    pub fn pixels(&self, picture: &Picture) -> Result<Vec<f32>> {
        let middle = self.middle(picture)?;
        let [mean, deviation] = self.colours;
        let normal = |pixel: &[u8]| -> [f32; 3] {
            std::array::from_fn(|c| {
                (f32::from(pixel.get(c).copied().unwrap_or(0)) / 255.0 - mean[c]) / deviation[c]
            })
        };
        Ok(middle.rgb().chunks_exact(3).flat_map(normal).collect())
    }

    fn middle(&self, picture: &Picture) -> Result<Picture> {
        let (width, height) = (picture.width(), picture.height());
        let shorter = u64::from(width.min(height));
        // What is left of a pixel is dropped, as torchvision does.
        let fitted = |side: u32| (u64::from(self.resize) * u64::from(side) / shorter) as u32;
        let resized = picture.resized_bicubic(fitted(width), fitted(height))?;
        let before = |side: u32| (f64::from(side - self.crop) / 2.0).round_ties_even() as u32;
        let (x, y) = (before(resized.width()), before(resized.height()));
        Ok(resized.part(x, y, self.crop, self.crop)?)
    }
}

/// Mean and deviation of each colour, as `preprocessor_config.json` has them.
pub(super) fn colours(preprocessor: Option<&Value>, usual: [[f32; 3]; 2]) -> [[f32; 3]; 2] {
    let colours = |key: &str| -> Option<[f32; 3]> {
        let list = preprocessor?.get(key)?.as_array()?;
        let numbers: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
        numbers.try_into().ok()
    };
    let deviation = colours("image_std").filter(|found| found.iter().all(|v| *v > 0.0));
    [colours("image_mean").unwrap_or(usual[0]), deviation.unwrap_or(usual[1])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn colours_are_normalised_as_the_model_says() {
        let usual = CLIP_COLOURS;
        assert_eq!(colours(None, usual), usual);
        let own = json!({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.25]});
        assert_eq!(colours(Some(&own), usual), [[0.5; 3], [0.5, 0.5, 0.25]]);
        let damaged = json!({"image_mean": [0.5], "image_std": [0.5, 0.0, 0.5]});
        assert_eq!(colours(Some(&damaged), usual), usual);
    }

    #[test]
    fn middles_are_cut_out() {
        let mut rgb = vec![0; 8 * 4 * 3];
        rgb[(4 * 8 / 2 + 2) * 3..][..3].copy_from_slice(&[255; 3]);
        let picture = Picture::new(8, 4, rgb).unwrap();
        let preparation = Preparation { resize: 4, crop: 4, colours: [[0.0; 3], [1.0; 3]] };
        let pixels = preparation.pixels(&picture).unwrap();
        assert_eq!(pixels.len(), 4 * 4 * 3);
        assert_eq!(pixels.iter().position(|v| *v == 1.0), Some(2 * 4 * 3));
        // Longer sides lose what is no whole pixel.
        let wide = Picture::filled(150, 97, [9; 3]).unwrap();
        let preparation = Preparation { resize: 256, crop: 224, ..preparation };
        assert_eq!(preparation.middle(&wide).unwrap().width(), 224);
    }
}
