//! What an operation sees of a step while it turns into work on slices.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::Layout;
use super::memory::Span;
use super::packed::{Held, Packed, Table};
use super::task::{EntryAt, Inputs, Task};
use crate::graph::{Fold, Graph, Operation, PlannedStep, Shape};
use cpu_kernels::elementwise::Padding;
use cpu_kernels::epilogue::Epilogue as Entry;
use cpu_kernels::simd::Level;

/// How an operation runs on the processor.
pub(crate) trait Compute {
    /// The work of a step.
    fn compile(&self, step: StepBuilder<'_>) -> Task;

    /// How the kernels want input `index` where it is a weight.
    fn layout(&self, _index: usize) -> Layout {
        Layout::Plain
    }

    /// What followers this operation's kernels can do in the same go.
    fn folds(&self) -> Fold {
        Fold::Nothing
    }

    /// Whether the kernels can do the step before in the same go, if that is `before` and reads the
    /// same.
    fn joins(&self, _before: &dyn Operation) -> bool {
        false
    }

    /// f32 elements of scratch that the kernels need.
    fn scratch(&self, _inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        None
    }
}

/// One step while it is compiled: its tensors, located.
pub(crate) struct StepBuilder<'a> {
    pub(super) graph: &'a Graph,
    pub(super) step: &'a PlannedStep,
    pub level: Level,
    pub(super) in_place: bool,
    pub(super) inputs: Vec<Option<Span>>,
    pub(super) packed: HashMap<usize, Packed>,
    pub(super) epilogue: Vec<EntryAt>,
    pub(super) output: Span,
    pub(super) joined: Option<Span>,
    /// The two steps that follow this one and read what it makes are done in one go.
    pub(super) read_by_joined: bool,
    pub(super) scratch: Option<Span>,
}

impl<'a> StepBuilder<'a> {
    pub fn input_shape(&self, index: usize) -> &'a Shape {
        self.graph.shape(self.step.inputs[index])
    }

    pub fn inputs(&self) -> usize {
        self.step.inputs.len()
    }

    /// Shape of the operation's own result (what is folded in keeps its rows and channels).
    pub fn shape(&self) -> &'a Shape {
        self.graph.shape(self.step.result)
    }

    /// Whether the output stands where the input of [`Operation::in_place`] stood, which it
    /// replaces.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Whether the step before, which reads the same, is to be done in the same go.
    pub fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether two steps that follow and read what this one makes are done in one go.
    pub fn is_read_by_joined(&self) -> bool {
        self.read_by_joined
    }

    /// The weight of a matmul or a convolution.
    pub fn matmul_weight(&self, index: usize) -> Arc<Held> {
        match self.packed.get(&index) {
            Some(Packed::Matmul(weights)) => weights.clone(),
            // Its layout says that it is one.
            _ => {
                unreachable!("input {index} of {} is no packed weight", self.step.operation.name())
            }
        }
    }

    /// The rows of a table, where it is a weight.
    pub fn table(&self, index: usize) -> Option<Arc<Table>> {
        match self.packed.get(&index) {
            Some(Packed::Rows(table)) => Some(table.clone()),
            _ => None,
        }
    }

    /// Zeros that the step writes around its result.
    pub fn padding(&self) -> Option<Padding> {
        self.padded(self.step.padding?)
    }

    /// Zeros at these edges around the result of the shape of input 0.
    pub fn padded(&self, edges: [usize; 4]) -> Option<Padding> {
        let shape = if self.step.padding.is_some() { self.shape() } else { self.input_shape(0) };
        let [_, height, width, _] = shape.image().ok()?;
        Some(Padding { height, width, edges })
    }

    /// Puts a low-rank update of inputs `hidden` and `up` before the epilogue.
    pub fn add_lora(&mut self, hidden: usize, up: usize, transposed: bool) {
        let rank = self.input_shape(hidden).channels();
        if let (Some(hidden), Some(up)) = (self.inputs[hidden].clone(), self.inputs[up].clone()) {
            self.epilogue.insert(0, EntryAt::Lora { hidden, up, rank, transposed });
        }
    }

    /// The task that `run` does: it gets the inputs, the epilogue, the output and the scratch.
    pub fn task(
        self,
        run: impl Fn(&Inputs<'_>, &[Entry<'_>], &mut [f32], &mut [f32]) + Send + Sync + 'static,
    ) -> Task {
        let StepBuilder { inputs, epilogue, output, joined, scratch, .. } = self;
        Task { inputs, epilogue, output, joined, scratch, run: Box::new(run) }
    }
}
