//! Tensors, operations, the plan and its execution.
//!
//! A model is a function that builds a [`Graph`] for one shape. From that one description come the
//! plain-Rust evaluation that tests compare with ([`Graph::evaluate`]), the memory plan, the kernel
//! list, the FLOP counts and the run on a device ([`Plan`]). Operations live one to a file in
//! [`ops`], each with its shape rule, its reference implementation and the kernels that can run it.
//! [`Graph::gradients`] appends the backward pass to the same graph.
//!
//! Activations are `[batch, height, width, channels]` or `[batch, tokens, channels]`, row-major,
//! f32. A feature map is already the token sequence of attention: [`Graph::reshape`] between the
//! two is free.

mod error;
mod evaluate;
mod gradient;
mod loss;
mod memory;
pub mod ops;
mod parameter;
mod plan;
mod shape;

use std::sync::Arc;

pub use error::Error;
pub use evaluate::{Array, Data};
pub use ops::{Epilogue, Fold, GradientContext, Operation};
pub use parameter::{ParameterError, ParameterInfo, ParameterSource, StoredAs, expect};
pub(crate) use plan::MOST_FACTORS;
pub use plan::{Limits, Place, Plan, PlannedStep, Storage, Target};
pub use shape::Shape;

pub use crate::quant::Quant;

/// Of the calls that build, differentiate and plan graphs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A value in a [`Graph`]: the number of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(crate) u32);

impl Tensor {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point, whatever a weight's file has.
    F32,
    /// Token ids and other indices.
    U32,
}

/// Where a node's value comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Written by the caller before a run; keeps its value between runs.
    Input {
        /// By which values are written; no other input has it.
        name: String,
    },
    /// A weight, resolved by name from a [`ParameterSource`]. `shape` is the logical one; a source
    /// may hold the same elements in another shape (a 1x1 convolution that acts as a linear layer).
    Parameter {
        /// The weight's full name.
        name: String,
    },
    /// Computed from other tensors.
    Operation {
        /// What makes it.
        operation: Arc<dyn Operation>,
        /// What it is made of.
        inputs: Vec<Tensor>,
    },
}

/// A tensor of a graph and where it comes from.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where its value comes from.
    pub origin: Origin,
    /// Sizes of the axes, the last one contiguous.
    pub shape: Shape,
    /// What its elements are.
    pub element: Element,
    /// Dotted path of the layer that made the node, for errors and profiles.
    pub layer: Arc<str>,
    /// The block that the node belongs to, if any: see [`Graph::enter_block`].
    pub(crate) block: Option<u32>,
}

impl Node {
    /// What it is made of; nothing, where it is an input or a weight.
    pub fn inputs(&self) -> &[Tensor] {
        match &self.origin {
            Origin::Operation { inputs, .. } => inputs,
            _ => &[],
        }
    }
}

/// A computation for one shape, built by calling its operations in order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    assignments: Vec<(Tensor, Tensor)>,
    scope: Vec<String>,
    layer: Option<Arc<str>>,
    blocks: Blocks,
    precise: bool,
    whole: bool,
    rounded: bool,
    halves: bool,
    round_gradients: bool,
    ranged: bool,
}

/// The blocks of a graph: parts whose values may be computed again for their backward instead of
/// kept.
#[derive(Clone, Debug, Default)]
struct Blocks {
    made: u32,
    /// How many have been entered and not left; those inside of another are part of it.
    depth: u32,
    recompute: bool,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that the caller writes before a run: f32, `shape`.
    pub fn input(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> Tensor {
        self.push(Origin::Input { name: name.into() }, shape.into(), Element::F32)
    }

    /// Indices that the caller writes before a run: u32, `shape`.
    pub fn input_ids(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> Tensor {
        self.push(Origin::Input { name: name.into() }, shape.into(), Element::U32)
    }

    /// A weight, by its full name. The same name may be asked for again; its shape must agree.
    pub fn parameter(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> Tensor {
        self.push(Origin::Parameter { name: name.into() }, shape.into(), Element::F32)
    }

    /// The input `name`, if it was declared already.
    pub fn find_input(&self, name: &str) -> Option<Tensor> {
        let is_it =
            |node: &Node| matches!(&node.origin, Origin::Input { name: found } if found == name);
        self.nodes.iter().position(is_it).map(|index| Tensor(index as u32))
    }

    /// After every run, `input` takes the value of `tensor` (the state of a sampler or an
    /// optimiser).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, or if `tensor` is not computed by the run: inputs
    /// that take each other's values would depend on the order of the copies (multiply by 1 to make
    /// a copy).
    pub fn assign(&mut self, input: Tensor, tensor: Tensor) -> Result<()> {
        let mut root = tensor;
        while let Origin::Operation { operation, inputs } = &self.node(root).origin
            && operation.is_view()
        {
            root = inputs[0];
        }
        if !matches!(self.node(root).origin, Origin::Operation { .. }) {
            return Err(self.shape_error(
                "assign",
                "the new value of an input is an input or a weight, not computed".into(),
            ));
        }
        let (to, from) = (self.node(input), self.node(tensor));
        if !matches!(to.origin, Origin::Input { .. })
            || to.shape != from.shape
            || to.element != from.element
        {
            return Err(self.shape_error(
                "assign",
                format!("{} cannot take the value of {}", to.shape, from.shape),
            ));
        }
        self.assignments.push((input, tensor));
        Ok(())
    }

    /// Inputs that take new values at the end of a run, each with the tensor that it takes.
    pub fn assignments(&self) -> &[(Tensor, Tensor)] {
        &self.assignments
    }

    /// The tensor's node.
    pub fn node(&self, tensor: Tensor) -> &Node {
        &self.nodes[tensor.index()]
    }

    /// All, in the order in which they were made: each after its inputs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All values, in the order in which they were made.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> + use<> {
        (0..self.nodes.len() as u32).map(Tensor)
    }

    /// The tensor's.
    pub fn shape(&self, tensor: Tensor) -> &Shape {
        &self.node(tensor).shape
    }

    /// Enters a layer: nodes made until [`Graph::leave`] carry its dotted path.
    pub fn enter(&mut self, name: impl Into<String>) {
        self.scope.push(name.into());
        self.layer = None;
    }

    /// Leaves the scope that was entered last.
    pub fn leave(&mut self) {
        self.scope.pop();
        self.layer = None;
    }

    /// Begins a block: nodes made until [`Graph::leave_block`] belong to it. A block within a block
    /// is a part of it.
    pub fn enter_block(&mut self) {
        if self.blocks.depth == 0 {
            self.blocks.made += 1;
        }
        self.blocks.depth += 1;
    }

    /// Ends the block that was entered last.
    pub fn leave_block(&mut self) {
        self.blocks.depth = self.blocks.depth.saturating_sub(1);
    }

    /// Gradients appended from now on compute the values inside of blocks again, from what enters a
    /// block, right before they go backward through it: less memory for more time (Chen et al.,
    /// "Training deep nets with sublinear memory cost", 2016).
    pub fn recompute_blocks(&mut self) {
        self.blocks.recompute = true;
    }

    /// Whether kernels that round what they read are not for this graph: gradients are computed in
    /// it, or sums of its activations.
    pub fn is_precise(&self) -> bool {
        self.precise
    }

    /// Lets kernels round what they multiply for gradients appended from now on, as they may in
    /// passes forward: scale the loss so that f16 holds what comes of it.
    pub fn round_gradients(&mut self) {
        self.round_gradients = true;
    }

    /// Lets back ends keep activations in f16, where that is what they do with networks whose
    /// weights are: sums, statistics and what the caller reads stay f32.
    pub fn round_activations(&mut self) {
        self.rounded = true;
    }

    /// Says that all matrices among its weights are held in 16 bits or less: kernels that are made
    /// for such alone may be planned.
    pub fn hold_halves(&mut self) {
        self.halves = true;
    }

    /// Whether [`Graph::hold_halves`] was said.
    pub fn holds_halves(&self) -> bool {
        self.halves
    }

    /// Says that values may be greater than f16 holds.
    pub fn keep_range(&mut self) {
        self.ranged = true;
    }

    /// Whether [`Graph::round_gradients`] holds.
    pub fn rounds_gradients(&self) -> bool {
        self.round_gradients
    }

    /// Whether activations may be kept in f16: not where sums of them are computed, nor gradients,
    /// unless these are rounded too.
    pub fn rounds_activations(&self) -> bool {
        self.rounded && !self.ranged && !self.precise
    }

    /// Whether sums of linear layers built from now on are each made by one workgroup, whatever the
    /// number of rows: what is made of a prompt is then the same to the bit, alone or among others.
    /// Returns what held before.
    pub fn keep_sums_whole(&mut self, whole: bool) -> bool {
        std::mem::replace(&mut self.whole, whole)
    }

    pub(crate) fn sums_are_whole(&self) -> bool {
        self.whole
    }

    pub(crate) fn keep_precise(&mut self) {
        self.precise = true;
    }

    /// The dotted path of the layer being built.
    pub fn path(&self) -> String {
        self.scope.join(".")
    }

    /// Appends an operation; checks its shape rule now, so that the error names the layer that is
    /// being built.
    pub fn apply(
        &mut self,
        operation: impl Operation + 'static,
        inputs: &[Tensor],
    ) -> Result<Tensor> {
        self.repeat(Arc::new(operation), inputs)
    }

    /// Appends an operation of this graph again, of other inputs.
    pub(crate) fn repeat(
        &mut self,
        operation: Arc<dyn Operation>,
        inputs: &[Tensor],
    ) -> Result<Tensor> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&t| self.shape(t)).collect();
        match operation.shape(&shapes) {
            Ok(shape) => Ok(self.push(
                Origin::Operation { operation, inputs: inputs.to_vec() },
                shape,
                Element::F32,
            )),
            Err(message) => Err(self.shape_error(operation.name(), message)),
        }
    }

    pub(crate) fn shape_error(&self, operation: &'static str, message: String) -> Error {
        Error::Shape { operation, layer: self.path(), message }
    }

    fn push(&mut self, origin: Origin, shape: Shape, element: Element) -> Tensor {
        let layer = match &self.layer {
            Some(layer) => layer.clone(),
            None => {
                let layer: Arc<str> = self.path().into();
                self.layer = Some(layer.clone());
                layer
            }
        };
        let block = (self.blocks.depth > 0).then_some(self.blocks.made);
        self.nodes.push(Node { origin, shape, element, layer, block });
        Tensor((self.nodes.len() - 1) as u32)
    }
}
