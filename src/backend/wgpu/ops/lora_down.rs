//! How [`lora_down`](crate::graph::ops) runs on a graphics device.

use super::matmul::{Window, window_uniforms};
use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, ROW_OF_WORKGROUPS, Work};
use crate::graph::Fold;
use crate::graph::Operation;
use crate::graph::ops::lora_down::LoraDown;

impl Lower for LoraDown {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (x, w, y) = (
            lowering.input_shape(0).clone(),
            lowering.input_shape(1).clone(),
            lowering.shape().clone(),
        );
        let (into, out, rows) = (x.channels(), y.channels(), y.rows());
        let tile = lowering.traits.tuned.lora_down;
        let (vector_in, columns) = (vector_width(&[into]), vector_width(&[out]));
        let form = match self {
            LoraDown::Rows => "rows",
            LoraDown::Columns => "columns",
            LoraDown::Window { .. } => "window",
        };
        // In vectors of what they are counted in by the kernel.
        let mut work = Work {
            kernel: "lora_down",
            params: [
                ("form", Value::from(form)),
                ("vector_in", Value::from(vector_in)),
                (
                    "vector_w",
                    Value::from(if *self == LoraDown::Columns { columns } else { vector_in }),
                ),
                ("lanes", Value::from(tile.lanes)),
                ("tile", Value::from(tile.rows)),
                ("outputs", Value::from(tile.outputs)),
            ]
            .into(),
            uniforms: vec![
                ("into", (into / vector_in).into()),
                ("rows", rows.into()),
                ("channels", out.into()),
            ],
            grid: [0; 3],
            bindings: vec![
                ("x", lowering.input(0)),
                ("w", lowering.input(1)),
                ("y", lowering.output()),
            ],
            flops: self.flops(&[&x, &w], &y),
        };
        if let LoraDown::Window { stride } = *self {
            work.params.insert("vector_w", Value::from(1));
            let window =
                Window { stride, kernel: [w[2], w[3]], from: [x[1], x[2]], to: [y[1], y[2]] };
            work.uniforms.extend(window_uniforms(&window));
        }
        let tiles = rows.div_ceil(tile.rows);
        work.grid = [
            out.div_ceil(tile.outputs),
            tiles.min(ROW_OF_WORKGROUPS),
            tiles.div_ceil(ROW_OF_WORKGROUPS),
        ];
        lowering.dispatch(work, true);
    }
}
