//! How each operation runs on a graphics device, a file for each room of [`crate::graph::ops`]; and
//! what several of them share.

mod activation;
mod adamw;
mod attention;
mod attention_gradient;
pub(super) mod attention_matrices;
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
mod lora_down;
mod lora_gate;
mod lora_up;
mod matmul;
mod mix;
mod normalize_by_max;
mod outer_sums;
mod pad2d;
mod regional_attention;
mod scale;
mod slice;
mod sum_to;
mod upsample;
mod weight_gradient;

use std::any::Any;

use super::layout::{Layout, vector_width};
use super::lowering::{Lower, Lowering, Work, spread};
use super::template::Value;
use crate::graph::ops;
use crate::graph::{Operation, Shape};

/// The operations that have kernels.
macro_rules! table {
    ($($operation:path),* $(,)?) => {
        /// How `operation` runs on a graphics device, where it does.
        pub(crate) fn lowering_of(operation: &dyn Operation) -> Option<&dyn Lower> {
            let operation: &dyn Any = operation;
            $(if let Some(operation) = operation.downcast_ref::<$operation>() {
                return Some(operation);
            })*
            None
        }
    };
}

table! {
    ops::activation::Activation,
    ops::activation::ActivationGradient,
    ops::adamw::AdamW,
    ops::attention::Attention,
    ops::attention_gradient::AttentionRows,
    ops::attention_gradient::AttentionQueries,
    ops::attention_gradient::AttentionKeysValues,
    ops::average_pool::AveragePool,
    ops::binary::Binary,
    ops::concat::Concat,
    ops::conv2d::Conv2d,
    ops::conv2d_transposed::Conv2dTransposed,
    ops::embedding::Embedding,
    ops::embedding::EmbeddingGradient,
    ops::filled::Filled,
    ops::geglu::Geglu,
    ops::geglu::GegluGradient,
    ops::group_norm::GroupNormStatistics,
    ops::group_norm::GroupNorm,
    ops::group_norm_gradient::GroupNormMeans,
    ops::group_norm_gradient::GroupNormGradient,
    ops::guidance::Guidance,
    ops::layer_norm::LayerNorm,
    ops::layer_norm::LayerNormGradient,
    ops::linear::Linear,
    ops::linear_gradient::LinearTransposed,
    ops::linear_gradient::LinearWeightGradient,
    ops::lora_gate::LoraGate,
    ops::mix::Mix,
    ops::lora_down::LoraDown,
    ops::outer_sums::OuterSums,
    ops::normalize_by_max::NormalizeByMax,
    ops::normalize_by_max::NormalizeByMaxGradient,
    ops::pad2d::Pad2d,
    ops::regional_attention::RegionalAttention,
    ops::scale::Scale,
    ops::slice::Slice,
    ops::sum_to::SumTo,
    ops::sum_to::BroadcastTo,
    ops::upsample::Upsample,
    ops::upsample::UpsampleGradient,
    ops::lora_up::LoraUp,
}

/// Whether what `operation` makes may be kept in f16: not statistics, gates, states of samplers,
/// nor gradients of weights.
pub(crate) fn may_be_halved(operation: &dyn Operation) -> bool {
    matches!(
        operation.name(),
        "attention"
            | "attention_keys_values_gradient"
            | "attention_queries_gradient"
            | "average_pool"
            | "concat"
            | "conv2d"
            | "conv2d_transposed"
            | "geglu"
            | "geglu_gradient"
            | "group_norm"
            | "group_norm_gradient"
            | "layer_norm"
            | "layer_norm_gradient"
            | "linear"
            | "linear_transposed"
            | "lora_up"
            | "pad2d"
            | "regional_attention"
            | "reshape"
            | "scale"
            | "slice"
            | "upsample"
            | "upsample_gradient"
    ) || is_elementwise(operation)
}

fn is_elementwise(operation: &dyn Operation) -> bool {
    let operation: &dyn Any = operation;
    operation.is::<ops::activation::Activation>() || operation.is::<ops::binary::Binary>()
}

/// How `operation` wants input `index` where it is a weight.
pub(crate) fn layout_of(operation: &dyn Operation, index: usize) -> Layout {
    lowering_of(operation).map_or(Layout::Plain, |lower| lower.layout(index))
}

/// Lowers an elementwise step: the kernel passes its first input through the step's epilogue and
/// padding.
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

/// One invocation for every vector of the output, padded or not: what kernels that import
/// `shared/grid` need. Returns the rows of the output.
pub(crate) fn padded_grid(
    shape: &Shape,
    padding: Option<[usize; 4]>,
    vector: usize,
    work: &mut Work<'_>,
) -> usize {
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

/// Copies `rows` runs of `width` elements of input `index`: run `r` from `r * from[0] + from[1]` to
/// `r * to[0] + to[1]`.
pub(crate) fn lower_copy(
    lowering: &mut Lowering<'_>,
    index: usize,
    rows: usize,
    width: usize,
    from: [usize; 2],
    to: [usize; 2],
) {
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
