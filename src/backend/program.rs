//! Weights and programs of whatever back end, with what comes in checked.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    Cost, Device, Executable, Held, Look, Precision, Result, Timed, TooLittle, View, WeightStore,
};
use crate::graph::{
    self, Array, Data, Element, Graph, Origin, ParameterSource, Plan, Shape, Tensor,
};

/// Weights on a device, as its back end needs them, shared by all programs that use them.
pub struct Weights {
    device: Device,
    source: Arc<dyn ParameterSource + Send>,
    precision: Precision,
    store: Box<dyn WeightStore>,
}

impl Weights {
    /// Of a source that is read when a program first needs a weight; `precision` is how they are
    /// held.
    pub fn new(
        device: &Device,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Weights {
        let store = device.0.clone().weights(source.clone(), precision);
        Weights { device: device.clone(), source, precision, store }
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How they are held there.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What they are read from.
    pub fn source(&self) -> &dyn ParameterSource {
        &*self.source
    }

    /// Device bytes of the weights that `plan` uses, there already or not.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn planned_bytes(&self, graph: &Graph, plan: &Plan) -> Result<u64> {
        self.store.planned_bytes(graph, plan)
    }

    /// How the weights of `plan` are held in no more than `within` bytes of the device, with some
    /// of them brought anew in each run where that is too little for all; or the least that would
    /// do.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn held(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<std::result::Result<Held, TooLittle>> {
        self.store.held(graph, plan, within)
    }

    /// Bytes a second that can be brought to the device, measured with weights of `plan`.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn rate(&self, graph: &Graph, plan: &Plan) -> Result<Option<f64>> {
        self.store.rate(graph, plan)
    }

    /// Gives up the device's copies of all weights; what the host keeps of them stays.
    pub fn rest(&self) {
        self.store.rest();
    }

    /// Lets `graph` be rounded to f16 as far as its matrices are held so: activations where some
    /// are, kernels for such alone where all are.
    pub fn let_round(&self, graph: &mut Graph) {
        let is_half = |node: &graph::Node| match &node.origin {
            Origin::Parameter { name } if node.shape.len() > 1 => {
                let info = self.source.info(name);
                Some(info.is_some_and(|info| self.precision.is_half(info.stored)))
            }
            _ => None,
        };
        let halves: Vec<bool> = graph.nodes().iter().filter_map(is_half).collect();
        if halves.contains(&true) {
            graph.round_activations();
        }
        if !halves.is_empty() && !halves.contains(&false) {
            graph.hold_halves();
        }
    }

    /// Gives up the device's copy of every weight whose name is not `wanted`; programs that use it
    /// keep theirs.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.store.retain(&wanted);
    }
}

/// A tensor of a program, by which it is written and read.
#[derive(Clone)]
struct Slot {
    name: String,
    view: View,
    shape: Shape,
    element: Element,
}

/// An input of a program: by its tensor in the graph that was planned, or by its name.
pub trait Input: std::marker::Copy {
    /// The tensor, where there is one.
    fn of(self, names: &HashMap<String, Tensor>) -> Option<Tensor>;

    /// For an error.
    fn described(self) -> String;
}

impl Input for Tensor {
    fn of(self, _names: &HashMap<String, Tensor>) -> Option<Tensor> {
        Some(self)
    }

    fn described(self) -> String {
        format!("{self:?}")
    }
}

impl Input for &str {
    fn of(self, names: &HashMap<String, Tensor>) -> Option<Tensor> {
        names.get(self).copied()
    }

    fn described(self) -> String {
        self.to_string()
    }
}

impl Input for &String {
    fn of(self, names: &HashMap<String, Tensor>) -> Option<Tensor> {
        names.get(self).copied()
    }

    fn described(self) -> String {
        self.clone()
    }
}

/// A plan ready to run, any number of times.
pub struct Program {
    device: Device,
    compiled: Box<dyn Executable>,
    inputs: HashMap<Tensor, Slot>,
    names: HashMap<String, Tensor>,
    outputs: Vec<Slot>,
}

impl Program {
    /// Plans, brings the weights that are missing to the device, and compiles.
    ///
    /// # Errors
    /// As those of [`Program::from_plan`].
    pub fn new(weights: &Weights, graph: &Graph, outputs: &[Tensor]) -> Result<Program> {
        Program::from_plan(weights, graph, &Plan::new(graph, outputs, weights.device.target()))
    }

    /// # Errors
    /// Weights that are missing or of another shape, operations that the device cannot run, memory
    /// that is exhausted.
    pub fn from_plan(weights: &Weights, graph: &Graph, plan: &Plan) -> Result<Program> {
        Program::of(weights, graph, plan, weights.store.compile(graph, plan)?)
    }

    /// [`Program::from_plan`] with weights in no more than `within` bytes of the device, held as
    /// [`Weights::held`] says. Its results are the same, bit for bit.
    ///
    /// # Errors
    /// As those of [`Program::from_plan`]; a budget that is too small.
    pub fn within(weights: &Weights, graph: &Graph, plan: &Plan, within: u64) -> Result<Program> {
        Program::of(weights, graph, plan, weights.store.compile_within(graph, plan, within)?)
    }

    fn of(
        weights: &Weights,
        graph: &Graph,
        plan: &Plan,
        compiled: Box<dyn Executable>,
    ) -> Result<Program> {
        let (mut inputs, mut names) = (HashMap::new(), HashMap::new());
        for tensor in graph.tensors() {
            let node = graph.node(tensor);
            if let (Origin::Input { name }, Some(view)) = (&node.origin, compiled.input(tensor)) {
                let slot = Slot {
                    name: name.clone(),
                    view,
                    shape: node.shape.clone(),
                    element: node.element,
                };
                inputs.insert(tensor, slot);
                if names.insert(name.clone(), tensor).is_some() {
                    return Err(graph::Error::DuplicateInput { name: name.clone() }.into());
                }
            }
        }
        let output = |(index, &tensor): (usize, &Tensor)| {
            let node = graph.node(tensor);
            Slot {
                name: format!("output {index}"),
                view: compiled.output(index),
                shape: node.shape.clone(),
                element: node.element,
            }
        };
        let outputs = plan.outputs.iter().enumerate().map(output).collect();
        Ok(Program { device: weights.device.clone(), compiled, inputs, names, outputs })
    }

    fn slot(&self, input: impl Input) -> Result<&Slot> {
        let found = input.of(&self.names).and_then(|tensor| self.inputs.get(&tensor));
        Ok(found.ok_or_else(|| graph::Error::MissingInput { name: input.described() })?)
    }

    /// Writes an input.
    ///
    /// # Errors
    /// No such input; an array of another shape or kind.
    pub fn write(&self, input: impl Input, array: &Array) -> Result<()> {
        let slot = self.slot(input)?;
        array.check(&slot.name, &slot.shape, slot.element)?;
        let bytes: &[u8] = match &array.data {
            Data::F32(values) => bytemuck::cast_slice(values),
            Data::U32(ids) => bytemuck::cast_slice(ids),
        };
        self.compiled.write(&slot.view, bytes);
        Ok(())
    }

    /// Writes several inputs.
    ///
    /// # Errors
    /// As those of [`Program::write`].
    pub fn write_all<'a>(
        &self,
        arrays: impl IntoIterator<Item = (Tensor, &'a Array)>,
    ) -> Result<()> {
        arrays.into_iter().try_for_each(|(tensor, array)| self.write(tensor, array))
    }

    /// There is such an input, and something reads it.
    pub fn has_input(&self, input: impl Input) -> bool {
        self.slot(input).is_ok()
    }

    /// Lets an input of this program be the output `index` of another of the same device.
    ///
    /// # Errors
    /// As those of [`Program::copy_of_output`].
    pub fn take(&self, input: impl Input, other: &Program, index: usize) -> Result<()> {
        Copies::new(&self.device, &[self.copy_of_output(input, other, index)?])?.play();
        Ok(())
    }

    /// The copy that lets an input be the output `index` of another program; see [`Copies`].
    ///
    /// # Errors
    /// No such input, or one with another number of elements.
    pub fn copy_of_output(&self, input: impl Input, other: &Program, index: usize) -> Result<Copy> {
        let (to, from) = (self.slot(input)?, &other.outputs[index]);
        if to.shape.elements() != from.shape.elements() {
            return Err(wrong_size(&to.name, &to.shape, &from.shape));
        }
        Ok(Copy { from: from.view.clone(), to: to.view.clone() })
    }

    /// The copy that lets an input be what the input `from` of another program begins with.
    ///
    /// # Errors
    /// No such inputs, or one that is smaller than what it would begin.
    pub fn copy_of_input(
        &self,
        input: impl Input,
        other: &Program,
        from: impl Input,
    ) -> Result<Copy> {
        let (to, from) = (self.slot(input)?, other.slot(from)?);
        if to.shape.elements() > from.shape.elements() {
            return Err(wrong_size(&to.name, &to.shape, &from.shape));
        }
        Ok(Copy { from: from.view.clone(), to: to.view.clone() })
    }

    /// Starts a run; may return before it is done.
    pub fn run(&self) {
        self.compiled.run();
    }

    /// Waits for what was started.
    ///
    /// # Errors
    /// A device that failed.
    pub fn wait(&self) -> Result<()> {
        self.compiled.wait()
    }

    /// The value of output `index` after the last run.
    ///
    /// # Errors
    /// A device that failed.
    pub fn output(&self, index: usize) -> Result<Array> {
        self.value(&self.outputs[index])
    }

    /// The value that an input holds now (a state that runs change).
    ///
    /// # Errors
    /// No such input; a device that failed.
    pub fn state(&self, input: impl Input) -> Result<Array> {
        self.value(self.slot(input)?)
    }

    fn value(&self, slot: &Slot) -> Result<Array> {
        let bytes = self.compiled.read(&slot.view)?;
        Ok(match slot.element {
            Element::F32 => Array::f32(slot.shape.clone(), bytemuck::pod_collect_to_vec(&bytes)),
            Element::U32 => Array::u32(slot.shape.clone(), bytemuck::pod_collect_to_vec(&bytes)),
        })
    }

    /// Runs step by step, and shows the result of each: operation, layer, values (with whatever was
    /// folded into it). Ends when `look` says false; then inputs have not taken their new values.
    ///
    /// # Errors
    /// A device that failed.
    pub fn trace(&self, look: Look<'_>) -> Result<()> {
        self.compiled.trace(look)
    }

    /// Runs step by step and sums costs by operation. `clock` gives seconds.
    ///
    /// # Errors
    /// A device that failed.
    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        self.compiled.profile(clock)
    }

    /// Runs step by step and tells what each took, in order. `clock` gives seconds.
    ///
    /// # Errors
    /// A device that failed.
    pub fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        self.compiled.timeline(clock)
    }

    /// Floating-point operations of a run.
    pub fn flops(&self) -> u64 {
        self.compiled.flops()
    }

    /// Bytes that a run's operations read and write, each once an operation.
    pub fn bytes(&self) -> u64 {
        self.compiled.bytes()
    }

    /// Dispatches and copies of a run.
    pub fn commands(&self) -> usize {
        self.compiled.commands()
    }
}

fn wrong_size(name: &str, wanted: &Shape, found: &Shape) -> super::Error {
    graph::Error::Input {
        name: name.into(),
        expected: wanted.to_string(),
        found: found.to_string(),
    }
    .into()
}

/// A copy from one program's tensor to another's.
#[derive(Clone)]
pub struct Copy {
    from: View,
    to: View,
}

/// Copies between programs of one device, to be played any number of times.
pub struct Copies(Box<dyn Fn() + Send + Sync>);

impl Copies {
    /// # Errors
    /// Programs of another device.
    pub fn new(device: &Device, copies: &[Copy]) -> Result<Copies> {
        let pairs: Vec<(View, View)> =
            copies.iter().map(|copy| (copy.from.clone(), copy.to.clone())).collect();
        Ok(Copies(device.0.clone().copies(&pairs)?))
    }

    /// Starts the copies, in order, after what was started before; may return before they are done.
    pub fn play(&self) {
        (self.0)();
    }
}
