//! How matrix products and convolutions share their kernels: a convolution is a product whose rows are gathered.

use super::{PANEL, vector_width};
use crate::gpu::Value;
use crate::graph::lower::{Lowering, Work, spread};

/// The window of a convolution over a feature map that already carries its padding.
pub(super) struct Window {
    pub stride: usize,
    /// height and width
    pub kernel: [usize; 2],
    pub from: [usize; 2],
    pub to: [usize; 2],
    pub batch: usize,
}

/// Rows of the product, and the taps of a convolution.
pub(super) struct Geometry {
    pub rows: usize,
    pub taps: Option<Window>,
}

/// Rows and lanes of the register tile; a workgroup is one vector of lanes, each four outputs wide.
const TILE_ROWS: usize = 8;
const LANES: usize = PANEL / 4;
/// Pixels of one row that the 3x3 kernel holds at once.
const STRIP: usize = 16;

/// Dispatches `x w^T` (input 0 by input 1) through the step's stages, by the schedule that suits device and shape.
pub(super) fn lower_product(lowering: &mut Lowering<'_>, geometry: &Geometry) {
    let (into, out) = (lowering.input_shape(0).channels(), lowering.shape().channels());
    let (x, w) = (lowering.input(0), lowering.input(1));
    let taps = geometry.taps.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
    let panels = out.div_ceil(PANEL);
    let vector_out = vector_width(&[out]);
    let mut work = Work {
        kernel: "product",
        params: [
            ("half", Value::from(w.half)),
            ("vector_in", Value::from(vector_width(&[into]))),
            ("vector_out", Value::from(vector_out)),
            ("window", Value::from(geometry.taps.is_some())),
        ]
        .into(),
        uniforms: vec![("into", into.into()), ("channels", (out / vector_out).into()), ("rows", geometry.rows.into())],
        grid: [0; 3],
        bindings: vec![("x", x), ("w", w), ("y", lowering.output())],
        flops: 2 * (geometry.rows * out * into * taps) as u64,
    };
    let strip = geometry.taps.as_ref().filter(|w| {
        lowering.preferences.registers && w.kernel == [3, 3] && w.stride == 1 && into % 4 == 0 && out % 4 == 0 && w.to[1] >= 12
    });
    if let Some(window) = strip {
        let strips = window.to[1].div_ceil(STRIP);
        work.kernel = "conv3x3";
        work.params = [("half", work.params["half"].clone()), ("strip", Value::from(STRIP))].into();
        work.uniforms = vec![
            ("into", into.into()),
            ("channels", (out / 4).into()),
            ("to_height", window.to[0].into()),
            ("to_width", window.to[1].into()),
        ];
        work.grid = [panels, strips * window.to[0], window.batch];
        lowering.dispatch(work, true);
        return;
    }
    if let Some(window) = &geometry.taps {
        work.uniforms.extend([
            ("stride", window.stride.into()),
            ("kernel_height", window.kernel[0].into()),
            ("kernel_width", window.kernel[1].into()),
            ("from_height", window.from[0].into()),
            ("from_width", window.from[1].into()),
            ("to_height", window.to[0].into()),
            ("to_width", window.to[1].into()),
        ]);
    }
    let staged = !lowering.preferences.registers && into % 4 == 0 && out % 4 == 0;
    let tile = if staged { 64 } else { TILE_ROWS };
    let [y, z, _] = spread(geometry.rows.div_ceil(tile));
    work.grid = [panels, y, z];
    if staged {
        work.kernel = "product_staged";
        work.params.retain(|name, _| !name.starts_with("vector"));
    } else {
        work.params.insert("tile", Value::from(TILE_ROWS));
        work.params.insert("lanes", Value::from(LANES));
        work.params.insert(
            "unroll",
            Value::from(if into % 8 == 0 {
                8
            } else if into % 4 == 0 {
                4
            } else {
                1
            }),
        );
    }
    lowering.dispatch(work, true);
}
