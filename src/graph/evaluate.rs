//! Plain-Rust evaluation of a graph: slow, obvious, the measure for the kernels.

use std::collections::HashMap;

use super::{
    Element, Error, Graph, Node, Origin, ParameterSource, Result, Shape, Tensor, parameter,
};

/// Elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// Ids and other indices.
    U32(Vec<u32>),
}

/// A tensor's value on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes of the axes, the last one contiguous.
    pub shape: Shape,
    /// As many elements as the shape says, row-major.
    pub data: Data,
}

impl Array {
    /// Numbers. Whoever reads them checks that they are as many as the shape says.
    pub fn f32(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        Array { shape: shape.into(), data: Data::F32(data) }
    }

    /// Ids and other indices.
    pub fn u32(shape: impl Into<Shape>, data: Vec<u32>) -> Self {
        Array { shape: shape.into(), data: Data::U32(data) }
    }

    /// The elements; empty for indices.
    pub fn values(&self) -> &[f32] {
        match &self.data {
            Data::F32(values) => values,
            Data::U32(_) => &[],
        }
    }

    /// The indices; empty for numbers.
    pub fn ids(&self) -> &[u32] {
        match &self.data {
            Data::U32(ids) => ids,
            Data::F32(_) => &[],
        }
    }

    /// Of which kind its elements are.
    pub fn element(&self) -> Element {
        match self.data {
            Data::F32(_) => Element::F32,
            Data::U32(_) => Element::U32,
        }
    }

    fn len(&self) -> usize {
        match &self.data {
            Data::F32(values) => values.len(),
            Data::U32(ids) => ids.len(),
        }
    }

    /// An error unless this array can be written to the input `name` of `shape` and `element`.
    pub(crate) fn check(&self, name: &str, shape: &Shape, element: Element) -> Result<()> {
        if self.shape == *shape && self.element() == element && self.len() == shape.elements() {
            return Ok(());
        }
        Err(Error::Input {
            name: name.into(),
            expected: format!("{element:?} {shape}"),
            found: format!("{:?} {} with {} elements", self.element(), self.shape, self.len()),
        })
    }
}

impl Graph {
    /// The values of `outputs`, computed by the operations' reference implementations.
    pub fn evaluate(
        &self,
        outputs: &[Tensor],
        inputs: &HashMap<String, Array>,
        parameters: &dyn ParameterSource,
    ) -> Result<Vec<Array>> {
        let values = self.evaluate_each(outputs, inputs, parameters, &mut |_, _, _| true)?;
        Ok(outputs.iter().filter_map(|t| values[t.index()].clone()).collect())
    }

    /// Evaluates, and shows the result of each operation: its name, its layer, its values. Ends
    /// when `look` says false.
    pub fn trace(
        &self,
        outputs: &[Tensor],
        inputs: &HashMap<String, Array>,
        parameters: &dyn ParameterSource,
        look: &mut dyn FnMut(&str, &str, &[f32]) -> bool,
    ) -> Result<()> {
        self.evaluate_each(outputs, inputs, parameters, look).map(|_| ())
    }

    /// The values that are left at the end, by node.
    fn evaluate_each(
        &self,
        outputs: &[Tensor],
        inputs: &HashMap<String, Array>,
        parameters: &dyn ParameterSource,
        look: &mut dyn FnMut(&str, &str, &[f32]) -> bool,
    ) -> Result<Vec<Option<Array>>> {
        let mut uses = self.uses(outputs);
        let mut values: Vec<Option<Array>> = vec![None; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            if uses[index] == 0 {
                continue;
            }
            let value = match &node.origin {
                Origin::Input { name } => {
                    let array = inputs
                        .get(name)
                        .ok_or_else(|| Error::MissingInput { name: name.clone() })?;
                    array.check(name, &node.shape, node.element)?;
                    array.clone()
                }
                Origin::Parameter { name } => {
                    parameter::expect(parameters, name, &node.shape)?;
                    let mut data = vec![0.0; node.shape.elements()];
                    parameters.read(name, 0..data.len(), &mut data)?;
                    Array::f32(node.shape.clone(), data)
                }
                Origin::Operation { operation, inputs } => {
                    let arguments: Vec<&Array> =
                        inputs.iter().filter_map(|t| values[t.index()].as_ref()).collect();
                    let mut output = vec![0.0; node.shape.elements()];
                    operation.evaluate(&arguments, &node.shape, &mut output);
                    for t in inputs {
                        uses[t.index()] -= 1;
                        if uses[t.index()] == 0 {
                            values[t.index()] = None;
                        }
                    }
                    if !look(operation.name(), &node.layer, &output) {
                        return Ok(values);
                    }
                    Array::f32(node.shape.clone(), output)
                }
            };
            values[index] = Some(value);
        }
        Ok(values)
    }

    /// Floating-point operations of computing `outputs`.
    pub fn flops(&self, outputs: &[Tensor]) -> u64 {
        let live = self.uses(outputs);
        let flops = |node: &Node| match &node.origin {
            Origin::Operation { operation, inputs } => {
                let shapes: Vec<&Shape> = inputs.iter().map(|&t| self.shape(t)).collect();
                operation.flops(&shapes, &node.shape)
            }
            _ => 0,
        };
        self.nodes.iter().zip(live).filter(|(_, uses)| *uses > 0).map(|(node, _)| flops(node)).sum()
    }

    /// How often each node is used by live operations or asked for: 0 for dead ones.
    pub(crate) fn uses(&self, outputs: &[Tensor]) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for t in outputs {
            uses[t.index()] += 1;
        }
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if uses[index] > 0 {
                for t in node.inputs() {
                    uses[t.index()] += 1;
                }
            }
        }
        uses
    }
}
