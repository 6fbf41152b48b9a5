//! ESRGAN's generator (Wang et al. 2018): residual-in-residual dense blocks, then doublings by
//! repeating pixels. Parameters have the names of BasicSR's `RRDBNet`.

use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};
use crate::nn::Layers;

/// How it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RrdbNetConfig {
    /// Of what it reads: 3, or 3 for each of the pixels that are one to it.
    pub in_channels: usize,
    /// Between the blocks.
    pub features: usize,
    /// That each layer of a dense block adds.
    pub growth: usize,
    /// Of three dense blocks each.
    pub blocks: usize,
    /// Doublings of the size.
    pub doublings: usize,
}

/// Of what blocks add to what they read.
const SHARE: f32 = 0.2;
/// Slope below 0.
const SLOPE: f32 = 0.2;

impl RrdbNetConfig {
    /// From the shapes of its parameters.
    ///
    /// # Errors
    /// What is missing, by its name, or a shape that is none of these networks'.
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<RrdbNetConfig, String> {
        let dim = |name: &str, axis: usize| {
            let found = shape(name).and_then(|dims| dims.get(axis).copied());
            found.ok_or_else(|| format!("`{name}` is missing"))
        };
        let config = RrdbNetConfig {
            in_channels: dim("conv_first.weight", 1)?,
            features: dim("conv_first.weight", 0)?,
            growth: dim("body.0.rdb1.conv1.weight", 0)?,
            blocks: (0..)
                .take_while(|i| shape(&format!("body.{i}.rdb1.conv1.weight")).is_some())
                .count(),
            doublings: (1..).take_while(|i| shape(&format!("conv_up{i}.weight")).is_some()).count(),
        };
        match config.in_channels {
            3 | 12 | 48 if config.scale() >= 1 && dim("conv_last.weight", 0)? == 3 => Ok(config),
            _ => Err("it does not go from pictures of three colours to larger ones".into()),
        }
    }

    /// Pixels along one side that are one to it.
    pub fn side(&self) -> usize {
        match self.in_channels {
            48 => 4,
            12 => 2,
            _ => 1,
        }
    }

    /// How many times larger pictures become.
    pub fn scale(&self) -> usize {
        (1 << self.doublings.min(8)) / self.side()
    }
}

/// Builds it: pixels of 0 to 1, `[1, height, width, in_channels]`, to the same of a larger picture.
pub fn upscale(layers: &mut Layers, config: &RrdbNetConfig, pixels: Tensor) -> Result<Tensor> {
    let first = layers.conv("conv_first", pixels, config.features, 3)?;
    let mut x = first;
    for i in 0..config.blocks {
        let before = x;
        for j in 1..=3 {
            x = layers.within(format!("body.{i}.rdb{j}"), |layers| dense(layers, config, x))?;
        }
        let share = layers.graph.scale(x, SHARE)?;
        x = layers.graph.add(share, before)?;
    }
    let x = layers.conv("conv_body", x, config.features, 3)?;
    let mut x = layers.graph.add(x, first)?;
    for i in 1..=config.doublings {
        let [_, height, width, _] = layers.image(x, "upsample")?;
        let large = layers.graph.upsample_nearest(x, 2 * height, 2 * width)?;
        let large = layers.conv(&format!("conv_up{i}"), large, config.features, 3)?;
        x = leaky(layers, large)?;
    }
    let x = layers.conv("conv_hr", x, config.features, 3)?;
    let x = leaky(layers, x)?;
    layers.conv("conv_last", x, 3, 3)
}

/// Five layers, each of which reads all before it.
fn dense(layers: &mut Layers, config: &RrdbNetConfig, x: Tensor) -> Result<Tensor> {
    let mut all = vec![x];
    for i in 1..=4 {
        let read = layers.graph.concat(&all, 3)?;
        let y = layers.conv(&format!("conv{i}"), read, config.growth, 3)?;
        all.push(leaky(layers, y)?);
    }
    let read = layers.graph.concat(&all, 3)?;
    let y = layers.conv("conv5", read, config.features, 3)?;
    let share = layers.graph.scale(y, SHARE)?;
    layers.graph.add(share, x)
}

fn leaky(layers: &mut Layers, x: Tensor) -> Result<Tensor> {
    let above = layers.graph.activation(x, Function::Relu)?;
    let above = layers.graph.scale(above, 1.0 - SLOPE)?;
    let all = layers.graph.scale(x, SLOPE)?;
    layers.graph.add(above, all)
}
