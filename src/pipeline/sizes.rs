//! The sizes that Stable Diffusion XL is told of a picture: how large the original was, where it was
//! cut, and how large it is to be.

use crate::models::unet::{self, SizeNumbers};

use super::checked::CheckedRequest;
use super::{Pipeline, Request};

/// The numbers for a request's pictures: without others, originals of their own size, not cut.
pub(super) fn numbers(request: &Request, checked: &CheckedRequest) -> SizeNumbers {
    let (width, height) = (checked.width, checked.height);
    let (original_width, original_height) = request.original_size.unwrap_or((width, height));
    let (left, top) = request.crop.unwrap_or((0, 0));
    [original_height, original_width, top, left, height, width].map(|number| number as f32)
}

/// What the UNet is told of pooled prompts, one for each half; nothing for models that take none.
pub(super) fn addition(
    pipeline: &Pipeline,
    numbers: &SizeNumbers,
    pooled: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let config = &pipeline.unet.config;
    let Some(addition) = &config.addition else { return Vec::new() };
    let row = |pooled: &Vec<f32>| unet::addition_features(config, addition, pooled, numbers);
    pooled.iter().map(row).collect()
}
