//! Reverse-mode differentiation: backward operations appended to the graph that they differentiate.
//!
//! Each operation's own rule stands beside its forward ([`Operation::gradient`]). Here is the walk:
//! backwards through the nodes that lead from a wanted tensor to the output, with what arrives at a
//! node by several ways added up in a fixed order. Where blocks are computed again
//! ([`Graph::recompute_blocks`]), the walk appends a copy of a block's operations when it enters
//! the block, and its rules read the copies: the first values are then dead after the forward pass.

use std::collections::HashMap;

use super::{Element, Error, GradientContext, Graph, Origin, Result, Tensor};

impl Graph {
    /// Gradients of `loss`, which has one element, with respect to each tensor of `wanted`, of
    /// their shapes. The backward operations are appended to this graph, and carry the path of the
    /// layer that they differentiate.
    ///
    /// A parameter means every node of its name: their gradients are added up.
    ///
    /// # Errors
    /// [`Error::Shape`] if `loss` has more than one element, [`Error::Independent`] if it does not
    /// depend on a wanted tensor, [`Error::NotDifferentiable`] if an operation between them has no
    /// gradient.
    pub fn gradients(&mut self, loss: Tensor, wanted: &[Tensor]) -> Result<Vec<Tensor>> {
        let shape = self.shape(loss).clone();
        if shape.elements() != 1 {
            let message = format!(
                "a loss has one element, found {shape}: give the upstream gradient of any other \
                    tensor"
            );
            return Err(self.shape_error("gradients", message));
        }
        self.differentiate(loss, wanted, |graph| graph.filled(shape, 1.0))
    }

    /// [`Graph::gradients`] of the sum of `output` times `upstream`, which has `output`'s shape.
    ///
    /// # Errors
    /// As those of [`Graph::gradients`].
    pub fn gradients_of(
        &mut self,
        output: Tensor,
        upstream: Tensor,
        wanted: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let (from, to) = (self.shape(upstream), self.shape(output));
        if from != to {
            let message =
                format!("the upstream gradient of a tensor {to} has its shape, found {from}");
            return Err(self.shape_error("gradients", message));
        }
        self.differentiate(output, wanted, |_| Ok(upstream))
    }

    fn differentiate(
        &mut self,
        output: Tensor,
        wanted: &[Tensor],
        seed: impl FnOnce(&mut Graph) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        if !self.round_gradients {
            self.keep_precise();
        }
        let sources = self.sources(output, wanted);
        let leads = self.leads(output, &sources);
        for &tensor in wanted {
            let reached =
                sources.iter().any(|&(node, source)| source == tensor && leads[node.index()]);
            if !reached || self.node(tensor).element != Element::F32 {
                return Err(Error::Independent { tensor: self.describe(tensor) });
            }
        }
        let scope = std::mem::take(&mut self.scope);
        let depth = std::mem::take(&mut self.blocks.depth);
        let found = seed(self).and_then(|seed| self.walk(output, seed, &leads));
        self.scope = scope;
        self.blocks.depth = depth;
        self.layer = None;
        let found = found?;
        wanted
            .iter()
            .map(|&tensor| {
                let shape = self.shape(tensor).clone();
                let parts = sources
                    .iter()
                    .filter(|(_, source)| *source == tensor)
                    .filter_map(|(node, _)| found[node.index()]);
                let mut total: Option<Tensor> = None;
                for part in parts.collect::<Vec<_>>() {
                    let part = if *self.shape(part) == shape {
                        part
                    } else {
                        self.reshape(part, shape.clone())?
                    };
                    total = Some(match total {
                        Some(total) => self.add(total, part)?,
                        None => part,
                    });
                }
                total.ok_or_else(|| Error::Independent { tensor: self.describe(tensor) })
            })
            .collect()
    }

    /// The nodes up to `output` whose gradient is that of a wanted tensor: itself, and for a
    /// parameter all of its name.
    fn sources(&self, output: Tensor, wanted: &[Tensor]) -> Vec<(Tensor, Tensor)> {
        let mut sources: Vec<(Tensor, Tensor)> = Vec::new();
        for (i, &tensor) in wanted.iter().enumerate() {
            if wanted[..i].contains(&tensor) {
                continue;
            }
            match &self.node(tensor).origin {
                Origin::Parameter { name } => {
                    let same = |origin: &Origin| matches!(origin, Origin::Parameter { name: other } if other == name);
                    let nodes = self.nodes.iter().enumerate().take(output.index() + 1);
                    sources.extend(
                        nodes
                            .filter(|(_, n)| same(&n.origin))
                            .map(|(i, _)| (Tensor(i as u32), tensor)),
                    );
                }
                _ => sources.push((tensor, tensor)),
            }
        }
        sources
    }

    /// For every node: whether it depends on a source and `output` on it.
    fn leads(&self, output: Tensor, sources: &[(Tensor, Tensor)]) -> Vec<bool> {
        let mut depends = vec![false; self.nodes.len()];
        for (node, _) in sources {
            depends[node.index()] = true;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            depends[index] = depends[index] || node.inputs().iter().any(|t| depends[t.index()]);
        }
        let uses = self.uses(&[output]);
        depends.iter().zip(uses).map(|(&depends, uses)| depends && uses > 0).collect()
    }

    /// The gradient with respect to each node that `leads`, from that of `output`.
    fn walk(
        &mut self,
        output: Tensor,
        seed: Tensor,
        leads: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut found: Vec<Option<Tensor>> = vec![None; leads.len()];
        if let Some(slot) = found.get_mut(output.index()) {
            *slot = Some(seed);
        }
        // The block that the walk is in, and its values computed again.
        let mut block = None;
        let mut again: HashMap<Tensor, Tensor> = HashMap::new();
        for index in (0..=output.index()).rev() {
            let Some(upstream) = found[index] else { continue };
            if self.blocks.recompute && self.nodes[index].block != block {
                block = self.nodes[index].block;
                again = block.map_or_else(HashMap::new, |block| self.compute_again(block, output));
            }
            let node = &self.nodes[index];
            let Origin::Operation { operation, inputs } = &node.origin else { continue };
            let wanted: Vec<bool> = inputs.iter().map(|t| leads[t.index()]).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let (operation, inputs, layer) =
                (operation.clone(), inputs.clone(), node.layer.to_string());
            // Backward nodes carry the path of the layer that they differentiate.
            self.scope = vec![layer];
            self.layer = Some(self.nodes[index].layer.clone());
            let now = |t: Tensor| again.get(&t).copied().unwrap_or(t);
            let values: Vec<Tensor> = inputs.iter().map(|&t| now(t)).collect();
            let context = GradientContext {
                output: now(Tensor(index as u32)),
                inputs: &values,
                upstream,
                wanted: &wanted,
            };
            let gradients = operation.gradient(self, &context)?;
            for ((&input, gradient), wanted) in inputs.iter().zip(gradients).zip(&wanted) {
                let Some(gradient) = gradient.filter(|_| *wanted) else { continue };
                let (shape, expected) = (self.shape(gradient), self.shape(input));
                if shape != expected {
                    let message = format!(
                        "the gradient of an input {expected} came out as {shape}: a fault of its \
                            rule"
                    );
                    return Err(self.shape_error(operation.name(), message));
                }
                found[input.index()] = Some(match found[input.index()] {
                    Some(sum) => self.plus(sum, gradient)?,
                    None => gradient,
                });
            }
        }
        Ok(found)
    }

    /// Appends a copy of the operations of `block` up to `last`: the copies by the originals. Those
    /// that no rule reads are dead, and never run.
    fn compute_again(&mut self, block: u32, last: Tensor) -> HashMap<Tensor, Tensor> {
        let mut again: HashMap<Tensor, Tensor> = HashMap::new();
        let members: Vec<usize> =
            (0..=last.index()).filter(|&i| self.nodes[i].block == Some(block)).collect();
        for index in members {
            let mut copy = self.nodes[index].clone();
            let Origin::Operation { inputs, .. } = &mut copy.origin else { continue };
            for input in inputs {
                *input = again.get(input).copied().unwrap_or(*input);
            }
            copy.block = None;
            self.nodes.push(copy);
            again.insert(Tensor(index as u32), Tensor((self.nodes.len() - 1) as u32));
        }
        again
    }

    /// `sum + gradient`, by the operation that makes `gradient` if it can add.
    fn plus(&mut self, sum: Tensor, gradient: Tensor) -> Result<Tensor> {
        if let Origin::Operation { operation, inputs } = &self.node(gradient).origin {
            let (operation, inputs) = (operation.clone(), inputs.clone());
            if let Some(total) = operation.plus(self, &inputs, sum) {
                return total;
            }
        }
        self.add(sum, gradient)
    }

    /// How errors call a tensor.
    fn describe(&self, tensor: Tensor) -> String {
        let node = self.node(tensor);
        match &node.origin {
            Origin::Input { name } => format!("the input `{name}`"),
            Origin::Parameter { name } => format!("the parameter `{name}`"),
            Origin::Operation { operation, .. } => {
                format!("the {} of layer `{}`", operation.name(), node.layer)
            }
        }
    }
}
