//! How matmuls and convolutions share their kernels: a convolution is a matmul whose rows are
//! gathered.

use super::{layout_of, vector_width};
use crate::backend::wgpu::layout::{Held, PANEL};
use crate::backend::wgpu::lowering::{Lowering, Work, spread};
use crate::backend::wgpu::tuned::MatmulSizes;
use crate::backend::wgpu::{Matrices, Scalar, Schedule, Traits, Uniform, Value};
use crate::graph::Epilogue;
use crate::quant::Quant;

/// The window of a convolution over a feature map that already carries its padding.
pub(super) struct Window {
    pub stride: usize,
    /// height and width
    pub kernel: [usize; 2],
    pub from: [usize; 2],
    pub to: [usize; 2],
}

/// Rows of the matmul, and the taps of a convolution.
pub(super) struct Geometry {
    pub rows: usize,
    pub taps: Option<Window>,
}

/// Dispatches `x w^T` (input 0 by input 1) through the step's epilogue, by the schedule that suits
/// device and shape.
pub(super) fn lower_matmul(lowering: &mut Lowering<'_>, geometry: &Geometry) {
    let (into, out) = (lowering.input_shape(0).channels(), lowering.shape().channels());
    let (x, w) = (lowering.input(0), lowering.input(1));
    let held = w.held;
    let taps = geometry.taps.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
    let panels = out.div_ceil(PANEL);
    let vector_out = vector_width(&[out]);
    let mut work = Work {
        kernel: "matmul",
        params: [
            ("half", Value::from(held == Held::F16)),
            ("blocks", blocks(held)),
            ("vector_out", Value::from(vector_out)),
            ("window", Value::from(geometry.taps.is_some())),
        ]
        .into(),
        uniforms: vec![
            ("into", into.into()),
            ("channels", (out / vector_out).into()),
            ("rows", geometry.rows.into()),
        ],
        grid: [0; 3],
        bindings: vec![("x", x), ("w", w), ("y", lowering.output())],
        flops: 2 * (geometry.rows * out * into * taps) as u64,
    };
    let layout = layout_of(&*lowering.step.operation, 1);
    let backwards = layout != layout.suited(lowering.input_shape(1));
    let even = into.is_multiple_of(4) && vector_out == 4;
    let lora = lowering.step.epilogue.iter().any(|entry| matches!(entry, Epilogue::Lora { .. }));
    if let Schedule::Matrices(matrices) = lowering.traits.schedule
        && held != Held::F32
        && !(backwards && matches!(held, Held::Blocks(_)))
        && (even || !backwards && !lora)
        && !lowering.graph.is_precise()
    {
        work.params.insert("backwards", Value::from(backwards));
        return lower_matrices(lowering, work, geometry, matrices);
    }
    if is_gated(lowering) {
        return lowering.no_kernel();
    }
    if even && (backwards || lowering.traits.tuned.matmul.staged == 1) {
        work.kernel = "matmul_staged";
        work.params.insert("backwards", Value::from(backwards));
        work.params.remove("vector_out");
        return lower_rows(lowering, work, geometry, panels, 64);
    }
    let MatmulSizes { rows, lanes, unroll, .. } = lowering.traits.tuned.matmul;
    let unroll = if into.is_multiple_of(unroll) { unroll } else { 1 };
    work.params.extend([
        ("tile", Value::from(rows)),
        ("lanes", Value::from(lanes)),
        ("unroll", Value::from(unroll)),
        ("vector_in", Value::from(if unroll == 1 { 1 } else { 4 })),
    ]);
    lower_rows(lowering, work, geometry, panels, rows);
}

/// Whether the step ends in a gated unit.
fn is_gated(lowering: &Lowering<'_>) -> bool {
    matches!(lowering.step.epilogue.last(), Some(Epilogue::Geglu))
}

/// How kernels know in which blocks a weight is held.
fn blocks(held: Held) -> Value {
    match held {
        Held::Blocks(Quant::Q8_0) => Value::from("q8_0"),
        Held::Blocks(Quant::Q4_0) => Value::from("q4_0"),
        Held::F32 | Held::F16 => Value::from(false),
    }
}

/// Dispatches a kernel that takes any `tile` rows of `columns` columns of tiles, gathered by the
/// window if there is one.
fn lower_rows(
    lowering: &mut Lowering<'_>,
    mut work: Work<'_>,
    geometry: &Geometry,
    columns: usize,
    tile: usize,
) {
    if let Some(window) = &geometry.taps {
        work.uniforms.extend(window_uniforms(window));
    }
    let [y, z, _] = spread(geometry.rows.div_ceil(tile));
    work.grid = [columns, y, z];
    lowering.dispatch(work, true);
}

/// Scratch for the partial sums of a matmul by matrices: where some kernel may want to take it in
/// parts.
pub(super) fn scratch(traits: &Traits, [rows, taps, into, out]: [usize; 4]) -> Option<usize> {
    let Schedule::Matrices(matrices) = traits.schedule else { return None };
    let suits = into.is_multiple_of(4) && out.is_multiple_of(4);
    let sizes = &traits.tuned.matmul_matrices;
    let parts = matrices.parts(sizes, rows, out, taps, into).filter(|_| suits)?;
    Some(parts.count * rows * out)
}

/// Chunks of a batch entry's rows in which a matmul by matrices sums up what it stores: the rows of
/// a subgroup, where workgroups end with entries and share no sums.
pub(super) fn totals(
    traits: &Traits,
    [rows, taps, into, out]: [usize; 4],
    entries: usize,
) -> Option<usize> {
    let Schedule::Matrices(matrices) = traits.schedule else { return None };
    let sizes = &traits.tuned.matmul_matrices;
    let blocks = matrices.blocks(sizes, rows, out);
    let of_entry = rows / entries.max(1);
    let suits = into.is_multiple_of(4)
        && out.is_multiple_of(4)
        && rows > 0
        && of_entry.is_multiple_of(blocks.rows())
        && matrices.parts(sizes, rows, out, taps, into).is_none();
    suits.then(|| of_entry / blocks.chunk())
}

/// Dispatches the kernel `matmul_matrices`, which reads weights as they are uploaded for all
/// kernels; in parts, where one workgroup for each sum would make too few.
fn lower_matrices(
    lowering: &mut Lowering<'_>,
    mut work: Work<'_>,
    geometry: &Geometry,
    matrices: Matrices,
) {
    let (into, out) = (lowering.input_shape(0).channels(), lowering.shape().channels());
    let sizes = lowering.traits.tuned.matmul_matrices;
    let blocks = matrices.blocks(&sizes, geometry.rows, out);
    work.kernel = "matmul_matrices";
    work.params.retain(|name, _| ["window", "blocks", "backwards"].contains(name));
    let asked = work.params.clone();
    work.params.extend(matrices.params(blocks, into));
    work.params.extend(asked);
    work.params.insert("odd_outputs", Value::from(!out.is_multiple_of(4)));
    for (_, at) in work.bindings.iter_mut().filter(|(_, at)| at.held == Held::F16) {
        at.scalar = Scalar::F16;
    }
    let columns = out.div_ceil(blocks.outputs());
    let gated = is_gated(lowering);
    // Half of the outputs are stored.
    let stored = if gated { out / 2 } else { out };
    let taps = geometry.taps.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
    let parts = matrices
        .parts(&sizes, geometry.rows, out, taps, into)
        .filter(|_| lowering.step.scratch.is_some());
    let Some(parts) = parts else {
        if gated {
            work.params.insert("gated", Value::from(true));
            work.uniforms.retain(|(name, _)| *name != "channels");
            work.uniforms.push(("channels", (stored / 4).into()));
        }
        if let Some((totals, _)) = lowering.totals() {
            work.params.insert("totals", Value::from(true));
            work.bindings.push(("totals", totals));
        }
        return lower_rows(lowering, work, geometry, columns, blocks.rows());
    };
    if let Some(window) = &geometry.taps {
        work.uniforms.extend(window_uniforms(window));
    }
    work.uniforms.push(("steps", parts.steps.into()));
    work.params.extend([("parted", Value::from(true)), ("lora", Value::from(false))]);
    work.params.extend(without_epilogue());
    work.grid = [columns, geometry.rows.div_ceil(blocks.rows()), parts.count];
    work.bindings.retain(|(name, _)| *name != "y");
    work.bindings.push(("y", lowering.scratch()));
    lowering.dispatch(work, false);
    let elements = geometry.rows * stored;
    let sums = Work {
        kernel: "matmul_sums",
        params: [("gated", Value::from(gated))].into(),
        uniforms: vec![
            ("parts", parts.count.into()),
            ("rows", geometry.rows.into()),
            ("channels", (stored / 4).into()),
        ],
        grid: spread((elements / 4).div_ceil(64)),
        bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
        flops: (parts.count * geometry.rows * out) as u64,
    };
    lowering.dispatch(sums, true);
}

/// How a kernel knows a window.
pub(super) fn window_uniforms(window: &Window) -> [(&'static str, Uniform); 7] {
    [
        ("stride", window.stride.into()),
        ("kernel_height", window.kernel[0].into()),
        ("kernel_width", window.kernel[1].into()),
        ("from_height", window.from[0].into()),
        ("from_width", window.from[1].into()),
        ("to_height", window.to[0].into()),
        ("to_width", window.to[1].into()),
    ]
}

/// For a kernel that imports `shared/epilogue` but doesn't store the step's output.
fn without_epilogue() -> [(&'static str, Value); 4] {
    let none = Value::from(false);
    [
        ("epilogue", Value::from(Vec::<Value>::new())),
        ("factors", Value::from(0)),
        ("rows_per_batch", none.clone()),
        ("operand_rows", none),
    ]
}
