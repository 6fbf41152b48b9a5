//! How [`activation`](crate::graph::ops) runs on a graphics device.

use super::lower_elementwise;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::Fold;
use crate::graph::ops::activation::{Activation, ActivationGradient};

impl Lower for Activation {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_elementwise(lowering);
    }
}

impl Lower for ActivationGradient {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_elementwise(lowering);
    }
}
