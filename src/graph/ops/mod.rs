//! The operations, one to a file: builder, shape rule, plain-Rust twin, gradient, and the kernels that can run it.

mod activation;
mod adamw;
mod attention;
mod attention_gradient;
mod attention_matrices;
mod attention_vectors;
mod average_pool;
mod binary;
mod concat;
mod conv2d;
mod conv2d_transposed;
mod embedding;
mod filled;
mod geglu;
mod group_norm;
mod group_norm_gradient;
mod guidance;
mod layer_norm;
mod linear;
mod linear_gradient;
mod low_rank_gate;
mod mix;
mod narrow;
mod narrow_gradient;
mod outer_sums;
mod over_greatest;
mod pad2d;
mod product;
mod regional_attention;
mod reshape;
mod scale;
mod slice;
mod sum_to;
mod upsample;
mod widen;

use std::fmt::Debug;

pub use activation::Function;
pub use adamw::{Moments, RATES};
pub(crate) use binary::Broadcast;
pub use low_rank_gate::GatePart;
pub use regional_attention::{Reach, RegionInputs, RegionTables};

use super::lower::{Lowering, Work, spread};
use super::{Array, Error, GradientContext, Graph, Shape, Tensor, Traits};
use crate::gpu::{Schedule, Value};

/// How a weight's elements lie on the device, prepared once at upload for the kernel that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// f32, as in the file.
    Plain,
    /// Rows as in the file, in the file's precision.
    Rows,
    /// Weights `[out, in, taps..]` in panels of 64 outputs, `[out / 64][taps][in][64]`, in the file's precision; missing outputs
    /// are zero.
    Panels,
    /// Weights `[out, in, kh, kw]` of a convolution of `stride` in the panels of the convolution that is its gradient: its outputs
    /// are the inputs for each of stride x stride phases, `[stride, stride, in]`, its inputs are `out`, and its window, read from
    /// the far end, is `[kh / stride, kw / stride]`, rounded up; taps beyond the edge are zero. A linear weight has stride 1.
    Transposed { stride: usize },
}

impl Layout {
    /// The layout that kernels of `schedule` read for this one, of a weight of `shape`: staged kernels turn a weight round on its
    /// way into workgroup memory, so that graphics cards hold it once.
    pub(crate) fn suited(self, schedule: Schedule, shape: &Shape) -> Layout {
        match (self, schedule, &shape[..]) {
            (Layout::Transposed { stride: 1 }, Schedule::Staged | Schedule::Matrices(_), [out, into, ..])
                if vector_width(&[*out, *into]) == 4 =>
            {
                Layout::Panels
            }
            (layout, ..) => layout,
        }
    }
}

/// Outputs in a panel of [`Layout::Panels`] and [`Layout::Transposed`].
pub(crate) const PANEL: usize = 64;

/// What a kernel can do to its result before it stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Nothing,
    /// Elementwise stages.
    Stages,
    /// Elementwise stages, then zeros around the feature map.
    StagesAndPadding,
    /// A low-rank update, then elementwise stages: kernels that sum over inputs.
    LowRankAndStages,
}

/// Elementwise work on a result that is still in registers.
#[derive(Clone, Debug)]
pub enum Stage {
    Function(Function),
    Scale(f32),
    Add(Tensor, Broadcast),
    Multiply(Tensor, Broadcast),
    /// The function's derivative at the tensor's elements, times the value.
    Derivative(Function, Tensor),
    /// Adds `narrow` `[rows, rank]` times `wide` `[channels, rank]`, or `[rank, channels]` if `transposed`. Always the first stage.
    LowRank {
        narrow: Tensor,
        wide: Tensor,
        transposed: bool,
    },
}

impl Stage {
    /// The tensors that the stage reads.
    pub fn operands(&self) -> impl Iterator<Item = Tensor> + use<> {
        let low_rank = match self {
            Stage::LowRank { narrow, wide, .. } => [Some(*narrow), Some(*wide)],
            _ => [None, None],
        };
        self.operand().into_iter().chain(low_rank.into_iter().flatten())
    }

    /// The tensor that an elementwise stage reads.
    pub fn operand(&self) -> Option<Tensor> {
        match self {
            Stage::Add(t, _) | Stage::Multiply(t, _) | Stage::Derivative(_, t) => Some(*t),
            Stage::Function(_) | Stage::Scale(_) | Stage::LowRank { .. } => None,
        }
    }

    pub(crate) fn broadcast(&self) -> Option<Broadcast> {
        match self {
            Stage::Add(_, broadcast) | Stage::Multiply(_, broadcast) => Some(*broadcast),
            Stage::Function(_) | Stage::Scale(_) | Stage::Derivative(..) | Stage::LowRank { .. } => None,
        }
    }
}

/// A node's computation. Operations know nothing of names, files or models.
pub trait Operation: Debug + Send + Sync {
    /// As errors, profiles and benches call it.
    fn name(&self) -> &'static str;

    /// The output's shape, or a message that says what was expected and what was found.
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// The plain-Rust twin: fills `output` (of `shape`, row-major) from inputs whose shapes [`Operation::shape`] accepted.
    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]);

    /// Useful floating-point operations (a multiply-add counts two).
    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        output.elements() as u64
    }

    /// Appends the operations that compute the gradients with respect to the inputs that `context` wants, from the one with
    /// respect to the output: one entry for each input. None where nothing flows to an input, or where it is not wanted.
    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>, Error>;

    /// Adds the kernel dispatches that compute the step, or says that there are none ([`Lowering::no_kernel`]).
    fn lower(&self, lowering: &mut Lowering<'_>);

    /// How the kernels want input `index` where it is a weight.
    fn layout(&self, _index: usize) -> Layout {
        Layout::Plain
    }

    /// What followers this operation's kernels can do in the same go.
    fn folds(&self) -> Fold {
        Fold::Nothing
    }

    /// This operation as a stage of the one that made its input `position`.
    fn as_stage(&self, _inputs: &[Tensor], _position: usize, _graph: &Graph) -> Option<Stage> {
        None
    }

    /// This operation as padding written by the one that made its input: top, bottom, left, right.
    fn as_padding(&self) -> Option<[usize; 4]> {
        None
    }

    /// Each pixel of the output is made of a window of input 0 that moves with it a pixel at a time: a part of that feature map
    /// makes a part of the output.
    fn can_crop(&self) -> bool {
        false
    }

    /// What this operation computes plus `base`, where one operation does both: gradients that arrive by two ways are added so.
    fn plus(&self, _graph: &mut Graph, _inputs: &[Tensor], _base: Tensor) -> Option<Result<Tensor, Error>> {
        None
    }

    /// The output is the first input's storage under another shape.
    fn is_view(&self) -> bool {
        false
    }

    /// The input that the output may replace in its own storage, each element from what stood there: an operation whose kernels
    /// add to what they find. Done where the input takes the output's value after the run ([`Graph::assign`]).
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// f32 elements of scratch that the kernels need.
    fn scratch(&self, _inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        None
    }
}

/// The gradient rule of operations that are part of a backward pass themselves.
pub(crate) fn no_second_gradient(operation: &dyn Operation, graph: &Graph, context: &GradientContext<'_>) -> Error {
    context.refuse(graph, operation, "inputs", "it is part of a backward pass, which cannot be differentiated again")
}

/// Lowers an elementwise step: the kernel passes its first input through the step's stages and padding.
pub(crate) fn lower_elementwise(lowering: &mut Lowering<'_>) {
    let shape = lowering.shape().clone();
    let vector = vector_width(&[shape.channels()]);
    let mut work = Work {
        kernel: "elementwise",
        params: [("vector", Value::from(vector))].into(),
        uniforms: Vec::new(),
        grid: [0; 3],
        bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
        flops: shape.elements() as u64,
    };
    padded_grid(&shape, lowering.step.padding, vector, &mut work);
    lowering.dispatch(work, true);
}

/// One invocation for every vector of the output, padded or not: what kernels that import `shared/grid` need. Returns the
/// rows of the output.
pub(crate) fn padded_grid(shape: &Shape, padding: Option<[usize; 4]>, vector: usize, work: &mut Work<'_>) -> usize {
    let channels = shape.channels() / vector;
    work.params.insert("padded", Value::from(padding.is_some()));
    work.uniforms.push(("channels", channels.into()));
    let rows = match (padding, shape.image()) {
        (Some([top, bottom, left, right]), Ok([batch, height, width, _])) => {
            let (padded_height, padded_width) = (height + top + bottom, width + left + right);
            work.uniforms.extend([
                ("height", height.into()),
                ("width", width.into()),
                ("padded_height", padded_height.into()),
                ("padded_width", padded_width.into()),
                ("top", top.into()),
                ("left", left.into()),
            ]);
            batch * padded_height * padded_width
        }
        _ => shape.rows(),
    };
    work.uniforms.push(("rows", rows.into()));
    work.grid = spread((rows * channels).div_ceil(64));
    rows
}

/// Copies `rows` runs of `width` elements of input `index`: run `r` from `r * from[0] + from[1]` to `r * to[0] + to[1]`.
pub(crate) fn lower_copy(lowering: &mut Lowering<'_>, index: usize, rows: usize, width: usize, from: [usize; 2], to: [usize; 2]) {
    let vector = vector_width(&[width, from[0], from[1], to[0], to[1]]);
    let work = Work {
        kernel: "copy",
        params: [("vector", Value::from(vector))].into(),
        uniforms: vec![
            ("rows", rows.into()),
            ("width", (width / vector).into()),
            ("from_stride", (from[0] / vector).into()),
            ("from_start", (from[1] / vector).into()),
            ("to_stride", (to[0] / vector).into()),
            ("to_start", (to[1] / vector).into()),
        ],
        grid: spread((rows * width / vector).div_ceil(64)),
        bindings: vec![("x", lowering.input(index)), ("y", lowering.output())],
        flops: 0,
    };
    lowering.dispatch(work, false);
}

/// 4 where every extent is a multiple of 4, so that kernels may move vectors; else 1.
pub(crate) fn vector_width(extents: &[usize]) -> usize {
    if extents.iter().all(|n| n.is_multiple_of(4)) { 4 } else { 1 }
}

/// The `N` shapes that an operation takes, or a message.
pub(crate) fn arity<'a, const N: usize>(inputs: &[&'a Shape]) -> Result<[&'a Shape; N], String> {
    <[&Shape; N]>::try_from(inputs).map_err(|_| format!("takes {N} inputs, found {}", inputs.len()))
}
