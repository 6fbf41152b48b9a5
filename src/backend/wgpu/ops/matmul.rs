//! How matmuls and convolutions share their kernels: a convolution is a matmul whose rows are
//! gathered.

use super::lora_up::lower_update;
use super::vector_width;
use crate::backend::wgpu::layout::PANEL;
use crate::backend::wgpu::lower::{BufferView, Lowering, Work, layout_of, spread};
use crate::backend::wgpu::{
    Matrices, PASSING_LANES, Params, Scalar, Schedule, Traits, Uniform, Value,
};

/// The window of a convolution over a feature map that already carries its padding.
pub(super) struct Window {
    pub stride: usize,
    /// height and width
    pub kernel: [usize; 2],
    pub from: [usize; 2],
    pub to: [usize; 2],
    pub batch: usize,
}

/// Rows of the matmul, and the taps of a convolution.
pub(super) struct Geometry {
    pub rows: usize,
    pub taps: Option<Window>,
}

/// A register tile of the kernels `matmul` and `conv3x3`; a workgroup is one vector of lanes.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    lanes: usize,
    /// Inputs taken in one round of the loop.
    unroll: usize,
    /// Whether what all lanes want is loaded once for a subgroup and passed round.
    passed: bool,
}

impl Tile {
    /// Measured on lavapipe 26. With 32 vector registers 8 rows of 16 lanes stay in them, and a
    /// long round hides the loads. With 16 nothing does: what counts is how often a loaded weight
    /// is used (32 rows are 10 % faster still, but take twice as long to compile), and the shortest
    /// round compiles best.
    fn of(schedule: Schedule, into: usize) -> Tile {
        match schedule {
            Schedule::Passed if into.is_multiple_of(PASSING_LANES) => {
                Tile { rows: 16, lanes: PASSING_LANES, unroll: PASSING_LANES, passed: true }
            }
            Schedule::Registers { many: true } => {
                let unroll = [8, 4, 1].into_iter().find(|n| into.is_multiple_of(*n)).unwrap_or(1);
                Tile { rows: 8, lanes: 16, unroll, passed: false }
            }
            _ => Tile { rows: 16, lanes: 8, unroll: 1, passed: false },
        }
    }
}

/// Pixels of one line that the 3x3 kernel holds at once, and the narrowest picture for which that
/// pays.
const STRIP: usize = 16;
const NARROWEST: usize = 12;

/// Dispatches `x w^T` (input 0 by input 1) through the step's epilogue, by the schedule that suits
/// device and shape.
pub(super) fn lower_matmul(lowering: &mut Lowering<'_>, geometry: &Geometry) {
    let (into, out) = (lowering.input_shape(0).channels(), lowering.shape().channels());
    let (x, w) = (lowering.input(0), lowering.input(1));
    let half = w.half;
    let taps = geometry.taps.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
    let panels = out.div_ceil(PANEL);
    let vector_out = vector_width(&[out]);
    let mut work = Work {
        kernel: "matmul",
        params: [
            ("half", Value::from(half)),
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
    let schedule = match lowering.traits.schedule {
        schedule @ (Schedule::Staged | Schedule::Matrices(_))
            if into.is_multiple_of(4) && vector_out == 4 =>
        {
            let layout = layout_of(&*lowering.step.operation, 1);
            let backwards = layout != layout.suited(schedule, lowering.input_shape(1));
            if let Schedule::Matrices(matrices) = schedule
                && half
                && !backwards
                && !lowering.graph.is_precise()
            {
                return lower_matrices(lowering, work, geometry, matrices);
            }
            work.kernel = "matmul_staged";
            work.params.insert("backwards", Value::from(backwards));
            work.params.retain(|name, _| !name.starts_with("vector"));
            return lower_rows(lowering, work, geometry, panels, 64);
        }
        Schedule::Vectors { lanes, least_flops } => {
            if let Some(vectors) = Vectors::of(lanes, into, out, &work, least_flops) {
                return vectors.lower(lowering, &work, geometry, into);
            }
            Schedule::registers()
        }
        other => other,
    };
    let tile = Tile::of(schedule, into);
    let fits_strips = |w: &&Window| {
        w.kernel == [3, 3]
            && w.stride == 1
            && into.is_multiple_of(4)
            && vector_out == 4
            && w.to[1] >= NARROWEST
    };
    if let Some(window) = geometry.taps.as_ref().filter(|_| !tile.passed).filter(fits_strips) {
        let unroll = if schedule == (Schedule::Registers { many: true }) { 4 } else { 1 };
        work.kernel = "conv3x3";
        work.params.retain(|name, _| *name == "half");
        work.params.extend([("strip", Value::from(STRIP)), ("unroll", Value::from(unroll))]);
        work.uniforms = vec![
            ("into", into.into()),
            ("channels", (out / 4).into()),
            ("to_height", window.to[0].into()),
            ("to_width", window.to[1].into()),
        ];
        work.grid = [panels, window.to[1].div_ceil(STRIP) * window.to[0], window.batch];
        return lowering.dispatch(work, true);
    }
    work.params.extend([
        ("tile", Value::from(tile.rows)),
        ("lanes", Value::from(tile.lanes)),
        ("unroll", Value::from(tile.unroll)),
        ("passed", Value::from(tile.passed)),
        ("vector_in", Value::from(if tile.passed || tile.unroll == 1 { 1 } else { 4 })),
    ]);
    lower_rows(lowering, work, geometry, panels, tile.rows);
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
    let parts = matrices.parts(rows, out, taps, into).filter(|_| suits)?;
    Some(parts.count * rows * out)
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
    let blocks = matrices.blocks(geometry.rows, out);
    work.kernel = "matmul_matrices";
    work.params.retain(|name, _| *name == "window");
    work.params.extend(matrices.params(blocks, into));
    for (_, at) in work.bindings.iter_mut().filter(|(_, at)| at.half) {
        at.scalar = Scalar::F16;
    }
    let columns = out.div_ceil(blocks.extent());
    let taps = geometry.taps.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
    let parts =
        matrices.parts(geometry.rows, out, taps, into).filter(|_| lowering.step.scratch.is_some());
    let Some(parts) = parts else {
        return lower_rows(lowering, work, geometry, columns, blocks.extent());
    };
    if let Some(window) = &geometry.taps {
        work.uniforms.extend(window_uniforms(window));
    }
    work.uniforms.push(("steps", parts.steps.into()));
    work.params.extend([("parted", Value::from(true)), ("lora", Value::from(false))]);
    work.params.extend(without_epilogue());
    work.grid = [columns, geometry.rows.div_ceil(blocks.extent()), parts.count];
    work.bindings.retain(|(name, _)| *name != "y");
    work.bindings.push(("y", lowering.scratch()));
    lowering.dispatch(work, false);
    let elements = geometry.rows * out;
    let sums = Work {
        kernel: "matmul_sums",
        params: Params::new(),
        uniforms: vec![
            ("parts", parts.count.into()),
            ("rows", geometry.rows.into()),
            ("channels", (out / 4).into()),
        ],
        grid: spread((elements / 4).div_ceil(64)),
        bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
        flops: (parts.count * elements) as u64,
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

/// The kernel `matmul_vectors`: one dispatch for each chunk of inputs, which adds to what those
/// before it left in the output.
struct Vectors {
    lanes: usize,
    /// Inputs of a chunk, each a line of the kernel's text.
    chunk: usize,
}

impl Vectors {
    /// Rows of a workgroup: with two vectors of outputs, their sums and operands fill 16 registers.
    const ROWS: usize = 6;
    /// Longer chunks store and reload less, but what it takes to compile them grows with the square
    /// (64: 0.4 s, 160: 2 s).
    const LONGEST: usize = 96;
    const SHORTEST: usize = 16;
    /// Numbers of the output to which all chunks are added before the next rows' turn comes: 4 MiB
    /// stay in the processor's cache. Few enough for one dimension of workgroups, too: none may lie
    /// beyond the rows, as that would add to the last row once more.
    const BAND: usize = 1 << 20;
    /// Elements that the kernel's indices can count.
    const MOST_ELEMENTS: u64 = 1 << 28;

    fn of(
        lanes: usize,
        into: usize,
        out: usize,
        work: &Work<'_>,
        least_flops: u64,
    ) -> Option<Vectors> {
        let chunk =
            (Self::SHORTEST..=Self::LONGEST).rev().find(|chunk| into.is_multiple_of(*chunk))?;
        let small = work
            .bindings
            .iter()
            .all(|(_, at)| at.slice.size <= Self::MOST_ELEMENTS * if at.half { 2 } else { 4 });
        let pays = least_flops <= work.flops;
        (small && pays && out.is_multiple_of(2 * lanes)).then_some(Vectors { lanes, chunk })
    }

    fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        work: &Work<'_>,
        geometry: &Geometry,
        into: usize,
    ) {
        let window = geometry.taps.as_ref();
        let [height, width] = window.map_or([1, 1], |window| window.kernel);
        let chunks = into / self.chunk;
        let dispatches = height * width * chunks;
        let out = lowering.shape().channels();
        let updated = lowering.has_update();
        if updated {
            lower_update(lowering);
        }
        let band = (Self::BAND / out).max(1).next_multiple_of(Self::ROWS);
        let bands =
            (0..geometry.rows).step_by(band).map(|first| (first, geometry.rows.min(first + band)));
        for ((first_row, end), number) in
            bands.flat_map(|band| (0..dispatches).map(move |number| (band, number)))
        {
            let (tap, start) = (number / chunks, number % chunks * self.chunk);
            let shift =
                window.map_or(0, |window| (tap / width * window.from[1] + tap % width) * into);
            let last = number + 1 == dispatches;
            let mut uniforms = vec![
                ("first_row", first_row.into()),
                ("rows", end.into()),
                ("channels", out.into()),
                ("x_start", (shift + start).into()),
                ("x_stride", into.into()),
                ("w_start", ((tap * into + start) * PANEL).into()),
                ("w_stride", (height * width * into * PANEL).into()),
                ("first", usize::from(number == 0 && !updated).into()),
            ];
            let places = window.map(window_uniforms).into_iter().flatten();
            uniforms.extend(places.filter(|(name, _)| !name.starts_with("kernel")));
            let mut params = work.params.clone();
            params.remove("vector_out");
            params.extend([
                ("lanes", Value::from(self.lanes)),
                ("tile", Value::from(Self::ROWS)),
                ("chunk", Value::from(self.chunk)),
                ("last", Value::from(last)),
            ]);
            if !last {
                params.extend(without_epilogue());
            }
            let mut bindings = work.bindings.clone();
            for (_, at) in bindings.iter_mut().filter(|(_, at)| at.half) {
                *at = BufferView { scalar: Scalar::F16, ..at.clone() };
            }
            let chunk = Work {
                kernel: "matmul_vectors",
                params,
                uniforms,
                grid: [out / (2 * self.lanes), (end - first_row).div_ceil(Self::ROWS), 1],
                bindings,
                flops: work.flops * (end - first_row) as u64 / (dispatches * geometry.rows) as u64,
            };
            if last { lowering.dispatch_updated(chunk) } else { lowering.dispatch(chunk, false) }
        }
    }
}

/// For a kernel that imports `shared/epilogue` but doesn't store the step's output.
pub(super) fn without_epilogue() -> [(&'static str, Value); 4] {
    let none = Value::from(false);
    [
        ("epilogue", Value::from(Vec::<Value>::new())),
        ("factors", Value::from(0)),
        ("rows_per_batch", none.clone()),
        ("operand_rows", none),
    ]
}
