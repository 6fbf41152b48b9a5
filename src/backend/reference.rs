//! The operations' reference implementations as a back end: slow, obvious, the measure for all
//! others. Weights are read from their source in every run, and nothing is folded into anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Cost, Error, Executable, Look, Precision, Result, View, WeightStore};
use crate::graph::{
    Array, Data, Element, Fold, Graph, Limits, Operation, Origin, ParameterSource, Plan, Shape,
    Target, Tensor, expect,
};

/// See [`crate::backend::reference`].
#[derive(Debug, Default)]
pub struct Reference {
    used: AtomicU64,
    peak: AtomicU64,
}

impl Reference {
    /// The reference implementations, ready.
    pub fn new() -> Arc<Reference> {
        Arc::default()
    }
}

struct Unlimited;

impl Target for Unlimited {
    fn limits(&self) -> Limits {
        Limits { max_binding: u64::MAX, max_buffer: u64::MAX, alignment: 4 }
    }

    fn folds(&self, _operation: &dyn Operation) -> Fold {
        Fold::Nothing
    }

    fn scratch(
        &self,
        _operation: &dyn Operation,
        _inputs: &[&Shape],
        _output: &Shape,
    ) -> Option<usize> {
        None
    }
}

/// Bytes that a program and its views share.
type Storage = Arc<Mutex<Vec<u8>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Reference {
    fn name(&self) -> &str {
        "the reference implementation"
    }

    fn is_processor(&self) -> bool {
        true
    }

    fn target(&self) -> &dyn Target {
        &Unlimited
    }

    fn weights(
        self: Arc<Self>,
        source: Arc<dyn ParameterSource + Send>,
        _: Precision,
    ) -> Box<dyn WeightStore> {
        Box::new(Weights { device: self, source })
    }

    fn copies(self: Arc<Self>, copies: &[(View, View)]) -> Result<Box<dyn Fn() + Send + Sync>> {
        let storage = |view: &View| view.get::<Storage>().cloned().ok_or(Error::OtherDevice);
        let pairs = copies.iter().map(|(from, to)| Ok((storage(from)?, storage(to)?)));
        let pairs: Vec<(Storage, Storage)> = pairs.collect::<Result<_>>()?;
        Ok(Box::new(move || {
            for (from, to) in &pairs {
                let bytes = lock(from).clone();
                let mut to = lock(to);
                let length = bytes.len().min(to.len());
                to[..length].copy_from_slice(&bytes[..length]);
            }
        }))
    }

    fn memory(&self) -> [u64; 2] {
        [self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed)]
    }
}

struct Weights {
    device: Arc<Reference>,
    source: Arc<dyn ParameterSource + Send>,
}

impl WeightStore for Weights {
    fn planned_bytes(&self, graph: &Graph, _plan: &Plan) -> Result<u64> {
        let mut seen = HashMap::new();
        for node in graph.nodes() {
            if let Origin::Parameter { name } = &node.origin {
                expect(&*self.source, name, &node.shape)?;
                seen.insert(name, node.shape.elements() as u64 * 4);
            }
        }
        Ok(seen.values().sum())
    }

    fn retain(&self, _wanted: &dyn Fn(&str) -> bool) {}

    fn compile(&self, graph: &Graph, plan: &Plan) -> Result<Box<dyn Executable>> {
        self.planned_bytes(graph, plan)?;
        let zeros =
            |tensor: Tensor| Arc::new(Mutex::new(vec![0; graph.shape(tensor).elements() * 4]));
        let is_input = |tensor: &Tensor| matches!(graph.node(*tensor).origin, Origin::Input { .. });
        let inputs: HashMap<Tensor, Storage> =
            graph.tensors().filter(is_input).map(|t| (t, zeros(t))).collect();
        let outputs: Vec<Storage> = plan.outputs.iter().map(|&t| zeros(t)).collect();
        let bytes = inputs.values().chain(&outputs).map(|storage| lock(storage).len() as u64).sum();
        let used = self.device.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.device.peak.fetch_max(used, Ordering::Relaxed);
        Ok(Box::new(Program {
            device: self.device.clone(),
            source: self.source.clone(),
            graph: graph.clone(),
            wanted: plan.outputs.clone(),
            inputs,
            outputs,
            bytes,
            failure: Mutex::default(),
        }))
    }
}

struct Program {
    device: Arc<Reference>,
    source: Arc<dyn ParameterSource + Send>,
    graph: Graph,
    wanted: Vec<Tensor>,
    inputs: HashMap<Tensor, Storage>,
    outputs: Vec<Storage>,
    bytes: u64,
    /// What went wrong in a run, for whoever waits for it.
    failure: Mutex<Option<Error>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.device.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn array(shape: &Shape, element: Element, bytes: &[u8]) -> Array {
    match element {
        Element::F32 => Array::f32(shape.clone(), bytemuck::pod_collect_to_vec(bytes)),
        Element::U32 => Array::u32(shape.clone(), bytemuck::pod_collect_to_vec(bytes)),
    }
}

fn bytes_of(array: &Array) -> &[u8] {
    match &array.data {
        Data::F32(values) => bytemuck::cast_slice(values),
        Data::U32(ids) => bytemuck::cast_slice(ids),
    }
}

impl Program {
    fn values(&self) -> HashMap<String, Array> {
        let value = |(&tensor, storage): (&Tensor, &Storage)| {
            let node = self.graph.node(tensor);
            let Origin::Input { name } = &node.origin else { return None };
            Some((name.clone(), array(&node.shape, node.element, &lock(storage))))
        };
        self.inputs.iter().filter_map(value).collect()
    }

    fn evaluate(&self) -> Result<()> {
        let mut wanted = self.wanted.clone();
        wanted.extend(self.graph.assignments().iter().map(|&(_, from)| from));
        let found = self.graph.evaluate(&wanted, &self.values(), &*self.source)?;
        let assigned =
            self.graph.assignments().iter().filter_map(|(input, _)| self.inputs.get(input));
        for (array, storage) in found.iter().zip(self.outputs.iter().chain(assigned)) {
            lock(storage).copy_from_slice(bytes_of(array));
        }
        Ok(())
    }
}

impl Executable for Program {
    fn input(&self, tensor: Tensor) -> Option<View> {
        self.inputs.get(&tensor).cloned().map(View::new)
    }

    fn output(&self, index: usize) -> View {
        View::new(self.outputs[index].clone())
    }

    fn write(&self, view: &View, bytes: &[u8]) {
        if let Some(storage) = view.get::<Storage>() {
            lock(storage).copy_from_slice(bytes);
        }
    }

    fn read(&self, view: &View) -> Result<Vec<u8>> {
        self.wait()?;
        Ok(lock(view.get::<Storage>().ok_or(Error::OtherDevice)?).clone())
    }

    fn run(&self) {
        if let Err(error) = self.evaluate() {
            *lock(&self.failure) = Some(error);
        }
    }

    fn wait(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn trace(&self, look: Look<'_>) -> Result<()> {
        Ok(self.graph.trace(&self.wanted, &self.values(), &*self.source, look)?)
    }

    fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        let mut costs: HashMap<String, Cost> = HashMap::new();
        let mut last = clock();
        self.trace(&mut |operation, _, values| {
            let now = clock();
            let cost = costs.entry(operation.into()).or_default();
            cost.calls += 1;
            cost.seconds += now - last;
            cost.bytes += values.len() as u64 * 4;
            last = clock();
            true
        })?;
        Ok(costs)
    }

    fn flops(&self) -> u64 {
        self.graph.flops(&self.wanted)
    }

    fn bytes(&self) -> u64 {
        self.graph.nodes().iter().map(|node| node.shape.elements() as u64 * 4).sum()
    }

    fn commands(&self) -> usize {
        self.graph
            .nodes()
            .iter()
            .filter(|node| matches!(node.origin, Origin::Operation { .. }))
            .count()
    }
}
