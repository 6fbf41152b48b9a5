//! How each operation runs on the processor, a file for each room of [`crate::graph::ops`]; and
//! what several of them share.

mod activation;
mod adamw;
mod attention;
mod attention_gradient;
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
mod mix;
mod normalize_by_max;
mod outer_sums;
mod pad2d;
mod regional_attention;
mod scale;
mod slice;
mod sum_to;
mod upsample;

use std::any::Any;

use super::compute::{Compute, StepBuilder};
use super::layout::Layout;
use super::task::Task;
use crate::graph::{Operation, ops};
use cpu_kernels::elementwise::{self as kernel, Padding};

/// The operations that the processor computes.
macro_rules! table {
    ($($operation:path),* $(,)?) => {
        /// How `operation` runs on the processor, where it does.
        pub(crate) fn computing_of(operation: &dyn Operation) -> Option<&dyn Compute> {
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

/// How `operation` wants input `index` where it is a weight.
pub(crate) fn layout_of(operation: &dyn Operation, index: usize) -> Layout {
    computing_of(operation).map_or(Layout::Plain, |compute| compute.layout(index))
}

/// Passes input 0 through the step's epilogue and padding.
fn elementwise(step: StepBuilder<'_>) -> Task {
    let padding = step.padding();
    elementwise_padded(step, padding)
}

fn elementwise_padded(step: StepBuilder<'_>, padding: Option<Padding>) -> Task {
    let (level, channels) = (step.level, step.shape().channels());
    step.task(move |x, epilogue, y, _| {
        kernel::elementwise(level, x.get(0), channels, padding.as_ref(), epilogue, y)
    })
}
