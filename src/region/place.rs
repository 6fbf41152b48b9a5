//! A layout on a picture: masks at the sizes of feature maps, and the prompts' shares of their
//! tokens.
use super::area::{Coverage, Outline};
use super::{Layout, Result};

/// The regions of a layout, as they cover feature maps.
#[derive(Clone, Debug)]
pub struct Placed {
    layout: Layout,
    sizes: Vec<Size>,
    /// For the user: which regions were smaller than a cell, or say nothing.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Size {
    height: usize,
    width: usize,
    /// One for each region, `[height, width]`.
    masks: Vec<Vec<f32>>,
}

/// Who says what on a feature map.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// `[tokens, 1 + regions]`, the context prompt first; every row sums to 1.
    pub weights: Vec<f32>,
    /// A bit for each region that holds at a token; all bits where none does. See
    /// [`crate::graph::Graph::masked_attention`].
    pub sight: Vec<u32>,
}

impl Placed {
    /// Places the layout on a picture of `width` x `height` pixels, for feature maps of `sizes`
    /// (height, width).
    ///
    /// # Errors
    /// Numbers out of range; boxes and polygons that reach beyond the picture or are empty; masks
    /// that cannot be read or do not have the picture's proportions.
    pub fn new(
        layout: &Layout,
        width: usize,
        height: usize,
        sizes: &[[usize; 2]],
    ) -> Result<Placed> {
        layout.check()?;
        let mut placed = Placed {
            layout: layout.clone(),
            sizes: sizes
                .iter()
                .map(|&[height, width]| Size { height, width, masks: Vec::new() })
                .collect(),
            warnings: Vec::new(),
        };
        for (index, region) in layout.regions.iter().enumerate() {
            let name = layout.name(index);
            let outline =
                Outline::new(&region.area, region.soft, width, height, &name, layout.published)?;
            if region.prompt.trim().is_empty() {
                placed
                    .warnings
                    .push(format!("region `{name}` has no prompt: it shows whatever fits there"));
            }
            placed
                .warnings
                .extend(outline.doubt.iter().map(|doubt| format!("region `{name}` {doubt}")));
            let (mut missed, mut thin) = (Vec::new(), Vec::new());
            for size in &mut placed.sizes {
                let Coverage { values, too_small, is_thin } =
                    outline.coverage(size.height, size.width)?;
                size.masks.push(values);
                // All regions share a map's only cell, whatever their size: that is told once.
                if too_small && (layout.published || size.height * size.width > 1) {
                    missed.push(format!("{}x{}", size.width, size.height));
                } else if is_thin {
                    thin.push(format!("{}x{}", size.width, size.height));
                }
            }
            if !thin.is_empty() {
                placed.warnings.push(format!(
                    "region `{name}` is thin for feature maps of {}: it holds in less than half of \
                        what it covers there",
                    thin.join(", ")
                ));
            }
            if !missed.is_empty() {
                let maps = missed.join(", ");
                let then = match layout.published {
                    true => "there it does not hold, as in the published program",
                    false => "there it holds for the nearest cells",
                };
                placed.warnings.push(format!(
                    "region `{name}` is too small for feature maps of {maps}: {then}"
                ));
            }
        }
        let is_one_cell = |size: &&Size| size.height * size.width == 1;
        if !layout.published
            && layout.regions.len() > 1
            && placed.sizes.iter().any(|s| is_one_cell(&s))
        {
            placed.warnings.push(
                "the picture is so small that some feature maps have one cell, which all regions \
                    share"
                    .into(),
            );
        }
        Ok(placed)
    }

    /// Which regions hold in step `step` of `steps`.
    pub fn active(&self, step: usize, steps: usize) -> Vec<bool> {
        self.layout
            .regions
            .iter()
            .map(|region| super::holds(region.start, region.end, step, steps))
            .collect()
    }

    /// What each region covers of the map of `height` x `width`, 0 to 1; none if the layout was not
    /// placed on such a map.
    pub fn masks(&self, height: usize, width: usize) -> Option<&[Vec<f32>]> {
        self.sizes
            .iter()
            .find(|size| (size.height, size.width) == (height, width))
            .map(|size| &size.masks[..])
    }

    /// The shares of the prompts on size number `size`, while the `active` regions hold.
    ///
    /// From the lowest order up: the regions of one order that cover a token share what they cover
    /// by weight; what lies beneath keeps the rest. One order alone and hard masks: the mean over
    /// the covering regions, as published.
    pub fn shares(&self, size: usize, active: &[bool]) -> Shares {
        let regions = &self.layout.regions;
        let prompts = 1 + regions.len();
        let masks: &[Vec<f32>] = self.sizes.get(size).map_or(&[], |size| &size.masks);
        let tokens = self.sizes.get(size).map_or(0, |size| size.height * size.width);
        let mut orders: Vec<i32> = regions.iter().map(|region| region.order).collect();
        orders.sort_unstable();
        orders.dedup();
        let mut weights = Vec::with_capacity(tokens * prompts);
        let mut sight = Vec::with_capacity(tokens);
        let mut row = vec![0.0f64; prompts];
        for token in 0..tokens {
            row.fill(0.0);
            row[0] = 1.0;
            for order in &orders {
                let here = || {
                    let all = regions.iter().zip(masks).zip(active).enumerate();
                    let held =
                        all.filter(|(_, ((region, _), active))| region.order == *order && **active);
                    held.map(|(i, ((region, mask), _))| {
                        (i + 1, region, mask.get(token).copied().map_or(0.0, f64::from))
                    })
                };
                let total: f64 = here().map(|(_, region, mask)| region.weight * mask).sum();
                if total <= 0.0 {
                    continue;
                }
                let covered = here()
                    .filter(|(_, region, _)| region.weight > 0.0)
                    .map(|(_, _, mask)| mask)
                    .fold(0.0, f64::max);
                row.iter_mut().for_each(|share| *share *= 1.0 - covered);
                for (prompt, region, mask) in here() {
                    let share = covered * (region.weight * mask / total);
                    row[prompt] += share * (1.0 - region.base);
                    row[0] += share * region.base;
                }
            }
            weights.extend(row.iter().map(|share| *share as f32));
            let bits = row
                .iter()
                .skip(1)
                .enumerate()
                .filter(|(_, share)| **share > 0.0)
                .fold(0u32, |bits, (i, _)| bits | 1 << i);
            sight.push(if bits == 0 { u32::MAX } else { bits });
        }
        Shares { weights, sight }
    }
}
