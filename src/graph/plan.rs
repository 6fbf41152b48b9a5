//! From a graph to an order of work: which operations run, what is folded into whom, and where
//! values live.

use std::sync::Arc;

use super::memory::{Arena, Request, live_at, pack};
use super::ops::{Broadcast, Epilogue, Fold};
use super::{Element, Graph, Operation, Origin, Shape, Tensor};

/// Constants that the epilogue of one step may multiply by.
pub(crate) const MOST_FACTORS: usize = 4;

/// Limits that plans keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one tensor may have.
    pub max_binding: u64,
    /// Bytes that one arena may have.
    pub max_buffer: u64,
    /// Alignment of a tensor in its arena, in bytes.
    pub alignment: u64,
}

/// How a tensor's elements are kept while a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 4 bytes.
    F32,
    /// 2 bytes; sums are f32 all the same.
    F16,
    /// Indices, 4 bytes.
    U32,
}

impl Storage {
    /// What holds an element without loss.
    pub fn of(element: Element) -> Storage {
        match element {
            Element::F32 => Storage::F32,
            Element::U32 => Storage::U32,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Storage::F32 | Storage::U32 => 4,
            Storage::F16 => 2,
        }
    }
}

/// What a plan asks of the back end that is to run it.
pub trait Target {
    /// What a buffer and a binding may be at most.
    fn limits(&self) -> Limits;

    /// How it keeps `tensor`, which is an input or computed.
    fn storage(&self, graph: &Graph, tensor: Tensor) -> Storage {
        Storage::of(graph.node(tensor).element)
    }

    /// What followers `operation` can do in the same go.
    fn folds(&self, operation: &dyn Operation) -> Fold;

    /// Whether the kernels of `operation`, of these inputs, can make the gated unit that follows.
    fn gates(&self, _graph: &Graph, _operation: &dyn Operation, _inputs: &[&Shape]) -> bool {
        false
    }

    /// In how many chunks of a batch entry's rows the kernels of `operation` can sum up each channel
    /// of what they store: means, and squared deviations from them.
    fn totals(
        &self,
        _graph: &Graph,
        _operation: &dyn Operation,
        _inputs: &[&Shape],
        _output: &Shape,
    ) -> Option<usize> {
        None
    }

    /// f32 elements of scratch that `operation` needs.
    fn scratch(
        &self,
        operation: &dyn Operation,
        inputs: &[&Shape],
        output: &Shape,
    ) -> Option<usize>;
}

/// One operation as it will run.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// What is done.
    pub operation: Arc<dyn Operation>,
    /// What it reads, in the operation's order.
    pub inputs: Vec<Tensor>,
    /// The operation's own result, before what is folded in; its shape rules the kernel.
    pub result: Tensor,
    /// Work on the result done by the same kernel before it stores: a low-rank update first,
    /// elementwise work after it.
    pub epilogue: Vec<Epilogue>,
    /// Zeros that the kernel writes around its result: top, bottom, left, right.
    pub padding: Option<[usize; 4]>,
    /// The tensor that is stored.
    pub output: Tensor,
    /// Scratch elements (f32) that the operation needs while it runs.
    pub scratch: Option<usize>,
    /// Chunks of a batch entry in which it sums up the channels of what it stores, f32 `[batch,
    /// chunks, 2, channels]`: means, then squared deviations.
    pub totals: Option<usize>,
    /// The step whose totals it reads in place of its input 0.
    pub totals_of: Option<usize>,
    /// Of the operation: what errors and profiles call it.
    pub layer: Arc<str>,
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A graph input has a buffer of its own.
    Input,
    /// Among the model's weights, packed as the back end likes.
    Weight,
    /// The new value of a graph input, computed where the input stands.
    InPlace(Tensor),
    /// A part of an arena: its number and byte offset.
    Arena {
        /// Number of the arena.
        arena: usize,
        /// In bytes from its beginning.
        offset: u64,
    },
}

/// The order of work and the memory it needs, made once for a graph and reusable on any device
/// whose back end asks for the same.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they run.
    pub steps: Vec<PlannedStep>,
    /// The first steps, which read nothing but parameters: they run once, when a program is made,
    /// and their results stay.
    pub once: usize,
    /// Sizes in bytes of the arenas that hold activations.
    pub arenas: Vec<u64>,
    /// What the plan was made for, in that order.
    pub outputs: Vec<Tensor>,
    /// For every node: the node whose storage it shares (itself, unless it is a view).
    roots: Vec<Tensor>,
    places: Vec<Option<Place>>,
    scratch: Vec<Option<Place>>,
    totals: Vec<Option<Place>>,
    /// How every node's elements are kept.
    storage: Vec<Storage>,
    live: u64,
    limits: Limits,
}

impl Plan {
    /// Plans `outputs` (and the graph's assignments).
    pub fn new(graph: &Graph, outputs: &[Tensor], target: &dyn Target) -> Plan {
        let mut wanted = outputs.to_vec();
        wanted.extend(graph.assignments().iter().map(|&(_, from)| from));
        let roots = roots(graph);
        let (mut steps, each_run): (Vec<PlannedStep>, Vec<PlannedStep>) = {
            let constant = constants(graph);
            let is_constant = |step: &PlannedStep| {
                let mut reads = step
                    .inputs
                    .iter()
                    .copied()
                    .chain(step.epilogue.iter().flat_map(Epilogue::operands));
                constant[step.result.index()] && reads.all(|t| constant[t.index()])
            };
            fold(graph, &wanted, &roots, target).into_iter().partition(is_constant)
        };
        let once = steps.len();
        steps.extend(each_run);
        sum_up(graph, &mut steps, once, &roots, target);
        let mut storage: Vec<Storage> =
            graph.tensors().map(|tensor| target.storage(graph, tensor)).collect();
        // What is read by the caller, or becomes an input, is as it was built.
        for tensor in &wanted {
            let root = roots[tensor.index()];
            storage[root.index()] = Storage::of(graph.node(root).element);
        }
        let Placement { places, scratch, totals, arenas, live } =
            place(graph, (&steps, once), &wanted, &roots, &storage, target.limits());
        Plan {
            steps,
            once,
            arenas,
            outputs: outputs.to_vec(),
            roots,
            places,
            scratch,
            totals,
            storage,
            live,
            limits: target.limits(),
        }
    }

    /// The node whose storage `tensor` shares: itself, unless it is a view.
    pub fn root(&self, tensor: Tensor) -> Tensor {
        self.roots[tensor.index()]
    }

    /// How the elements of `tensor` are kept.
    pub fn storage(&self, tensor: Tensor) -> Storage {
        self.storage[self.root(tensor).index()]
    }

    /// Bytes of `tensor` as it is kept.
    pub fn bytes(&self, graph: &Graph, tensor: Tensor) -> u64 {
        graph.shape(tensor).elements() as u64 * self.storage(tensor).bytes()
    }

    /// Where `tensor` lives; none for one that was folded away.
    pub fn place(&self, tensor: Tensor) -> Option<Place> {
        self.places[self.root(tensor).index()]
    }

    pub(crate) fn scratch_place(&self, step: usize) -> Option<Place> {
        self.scratch[step]
    }

    /// Where a step's totals are.
    pub(crate) fn totals_place(&self, step: usize) -> Option<Place> {
        self.totals[step]
    }

    /// What the plan keeps to.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes of activations while the plan runs.
    pub fn activation_bytes(&self) -> u64 {
        self.arenas.iter().sum()
    }

    /// Most bytes of activations that are needed at one time: what a packing without any loss would
    /// come to.
    pub fn live_bytes(&self) -> u64 {
        self.live
    }

    /// Floating-point operations of one run.
    pub fn flops(&self, graph: &Graph) -> u64 {
        let flops = |step: &PlannedStep| {
            let shapes: Vec<&Shape> = step.inputs.iter().map(|&t| graph.shape(t)).collect();
            step.operation.flops(&shapes, graph.shape(step.result))
        };
        self.steps.iter().map(flops).sum()
    }
}

/// For every node: whether it is a parameter, or computed from nothing else.
fn constants(graph: &Graph) -> Vec<bool> {
    let mut constant: Vec<bool> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        constant.push(match &node.origin {
            Origin::Parameter { .. } => true,
            Origin::Input { .. } => false,
            Origin::Operation { inputs, .. } => {
                !inputs.is_empty() && inputs.iter().all(|t| constant[t.index()])
            }
        });
    }
    constant
}

fn roots(graph: &Graph) -> Vec<Tensor> {
    let mut roots: Vec<Tensor> = Vec::with_capacity(graph.nodes().len());
    for (index, node) in graph.nodes().iter().enumerate() {
        let root = match &node.origin {
            Origin::Operation { operation, inputs } if operation.is_view() => {
                roots[inputs[0].index()]
            }
            _ => Tensor(index as u32),
        };
        roots.push(root);
    }
    roots
}

/// The only operation that reads `tensor`, if there is just one and nobody else wants the value.
fn sole_consumer(tensor: Tensor, uses: &[usize], consumers: &[Vec<Tensor>]) -> Option<Tensor> {
    match consumers[tensor.index()][..] {
        [consumer] if uses[tensor.index()] == 1 => Some(consumer),
        _ => None,
    }
}

/// Lists the live operations in order, folding elementwise followers and padding into their
/// producers.
fn fold(
    graph: &Graph,
    wanted: &[Tensor],
    roots: &[Tensor],
    target: &dyn Target,
) -> Vec<PlannedStep> {
    let uses = graph.uses(wanted);
    let mut consumers: Vec<Vec<Tensor>> = vec![Vec::new(); graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        if uses[index] > 0 {
            node.inputs().iter().for_each(|t| consumers[t.index()].push(Tensor(index as u32)));
        }
    }
    let mut folded = vec![false; graph.nodes().len()];
    // What the steps so far store.
    let mut stored = vec![false; graph.nodes().len()];
    let mut steps = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let Origin::Operation { operation, inputs } = &node.origin else { continue };
        if uses[index] == 0 || folded[index] || operation.is_view() {
            continue;
        }
        let result = Tensor(index as u32);
        let shapes: Vec<&Shape> = inputs.iter().map(|&t| graph.shape(t)).collect();
        let mut step = PlannedStep {
            operation: operation.clone(),
            inputs: inputs.clone(),
            result,
            epilogue: Vec::new(),
            padding: None,
            output: result,
            scratch: target.scratch(&**operation, &shapes, &node.shape),
            totals: None,
            totals_of: None,
            layer: node.layer.clone(),
        };
        // An elementwise operation is a kernel that copies and then does itself as a entry.
        if let Some(entry) = operation.as_epilogue(inputs, 0, graph) {
            step.epilogue.push(entry);
        }
        let folds = target.folds(&**operation);
        let mut end = result;
        while folds != Fold::Nothing && step.padding.is_none() {
            let Some(next) = sole_consumer(end, &uses, &consumers) else { break };
            let Origin::Operation { operation: follower, inputs: operands } =
                &graph.node(next).origin
            else {
                break;
            };
            if follower.is_view() {
                end = next;
                continue;
            }
            let Some(position) = operands.iter().position(|&t| t == end) else { break };
            let operand_ready = |t: &Tensor| {
                let root = roots[t.index()];
                stored[root.index()] || !matches!(graph.node(root).origin, Origin::Operation { .. })
            };
            let ready = operands.iter().enumerate().all(|(i, t)| i == position || operand_ready(t));
            let same_rows = graph.shape(end).channels() == graph.shape(result).channels()
                && graph.shape(end).elements() == graph.shape(result).elements();
            match (follower.as_epilogue(operands, position, graph), follower.as_padding()) {
                (Some(entry @ Epilogue::Lora { .. }), _)
                    if ready && same_rows && takes_lora(folds, &step.epilogue) =>
                {
                    step.epilogue.insert(0, entry)
                }
                (Some(entry), _) if ready && same_rows && fits(&step.epilogue, &entry) => {
                    step.epilogue.push(entry)
                }
                _ if follower.is_gate()
                    && same_rows
                    && takes_gate(&step.epilogue)
                    && target.gates(graph, &*step.operation, &shapes) =>
                {
                    step.epilogue.push(Epilogue::Geglu);
                    folded[next.index()] = true;
                    step.output = next;
                    break;
                }
                (_, Some(edges))
                    if folds == Fold::ElementwiseAndPadding
                        && graph.shape(end) == graph.shape(result) =>
                {
                    step.padding = Some(edges)
                }
                _ => break,
            }
            folded[next.index()] = true;
            end = next;
            step.output = next;
        }
        stored[roots[step.output.index()].index()] = true;
        steps.push(step);
    }
    steps
}

/// Lets steps sum up the channels of what they store where a later one reads nothing else of it.
fn sum_up(
    graph: &Graph,
    steps: &mut [PlannedStep],
    once: usize,
    roots: &[Tensor],
    target: &dyn Target,
) {
    for reader in once..steps.len() {
        if !steps[reader].operation.reads_totals() {
            continue;
        }
        let read = steps[reader].inputs[0];
        let root = roots[read.index()];
        let made = (once..reader).find(|&at| roots[steps[at].output.index()] == root);
        let Some(maker) = made else { continue };
        let step = &steps[maker];
        let (stored, seen) = (graph.shape(step.result), graph.shape(read));
        let alike = stored[0] == seen[0]
            && stored.channels() == seen.channels()
            && stored.elements() == seen.elements();
        let gated = matches!(step.epilogue.last(), Some(Epilogue::Geglu));
        // With what it reads and stores itself, no more bindings than every device has.
        let many = step.epilogue.iter().flat_map(Epilogue::operands).count() > 4;
        if !alike || many || gated || step.padding.is_some() {
            continue;
        }
        let shapes: Vec<&Shape> = step.inputs.iter().map(|&t| graph.shape(t)).collect();
        let Some(chunks) = target.totals(graph, &*step.operation, &shapes, stored) else {
            continue;
        };
        steps[maker].totals = Some(chunks);
        steps[reader].totals_of = Some(maker);
        steps[reader].scratch = None;
    }
}

/// Whether a low-rank update can go before `epilogue`: sums may change places with it.
fn takes_lora(folds: Fold, epilogue: &[Epilogue]) -> bool {
    folds == Fold::LoraAndElementwise
        && epilogue.iter().all(|entry| matches!(entry, Epilogue::Add(..)))
}

/// Whether a gated unit can go after `epilogue`: both of its halves have that.
fn takes_gate(epilogue: &[Epilogue]) -> bool {
    epilogue.iter().all(|entry| {
        matches!(
            entry,
            Epilogue::Add(_, Broadcast::Trailing { rows: 1, .. })
                | Epilogue::Lora { transposed: false, .. }
        )
    })
}

/// Whether a kernel that does `epilogue` can do `entry` too: it has so many bindings and factors,
/// and one number of rows for each kind of broadcast (a view between two epilogue can change what a
/// batch entry is).
fn fits(epilogue: &[Epilogue], entry: &Epilogue) -> bool {
    const MOST_OPERANDS: usize = 3;
    if matches!(entry, Epilogue::Lora { .. }) {
        return false;
    }
    let all = || epilogue.iter().chain([entry]);
    let one = |rows: &dyn Fn(&Epilogue) -> Option<usize>| {
        let mut different: Vec<usize> = all().filter_map(rows).collect();
        different.dedup();
        different.len() <= 1
    };
    all().filter_map(Epilogue::operand).count() <= MOST_OPERANDS
        && all().filter(|s| matches!(s, Epilogue::Scale(_))).count() <= MOST_FACTORS
        && one(&|s| s.broadcast()?.rows_per_batch())
        && one(&|s| s.broadcast()?.operand_rows())
}

/// The graph input in whose storage `step` computes the input's next value: where the operation
/// can, and nobody reads the old value at the same time or later.
fn in_place(
    graph: &Graph,
    step: &PlannedStep,
    later: &[PlannedStep],
    roots: &[Tensor],
) -> Option<Tensor> {
    let position = step.operation.in_place().filter(|_| step.output == step.result)?;
    let input = *step.inputs.get(position)?;
    let is_input = matches!(graph.node(input).origin, Origin::Input { .. });
    let reads = |step: &PlannedStep| {
        let all =
            step.inputs.iter().copied().chain(step.epilogue.iter().flat_map(Epilogue::operands));
        all.filter(|t| roots[t.index()] == input).count()
    };
    let copied =
        graph.assignments().iter().any(|&(to, from)| to != input && roots[from.index()] == input);
    let assigned = graph.assignments().contains(&(input, step.output));
    (is_input
        && assigned
        && !copied
        && reads(step) == 1
        && later.iter().all(|step| reads(step) == 0))
    .then_some(input)
}

struct Placement {
    places: Vec<Option<Place>>,
    scratch: Vec<Option<Place>>,
    totals: Vec<Option<Place>>,
    arenas: Vec<u64>,
    live: u64,
}

/// Packs what the steps produce into arenas, so that no step reads and writes one arena; what the
/// first `once` steps make is kept.
fn place(
    graph: &Graph,
    (steps, once): (&[PlannedStep], usize),
    wanted: &[Tensor],
    roots: &[Tensor],
    storage: &[Storage],
    limits: Limits,
) -> Placement {
    let mut places: Vec<Option<Place>> = graph
        .nodes()
        .iter()
        .map(|node| match node.origin {
            Origin::Input { .. } => Some(Place::Input),
            Origin::Parameter { .. } => Some(Place::Weight),
            Origin::Operation { .. } => None,
        })
        .collect();
    let bytes = |elements: usize, storage: Storage| {
        (elements as u64 * storage.bytes()).next_multiple_of(limits.alignment.max(16))
    };
    let mut requests: Vec<Request> = Vec::new();
    let mut request_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
    let mut scratch_of: Vec<Option<usize>> = vec![None; steps.len()];
    let mut totals_of: Vec<Option<usize>> = vec![None; steps.len()];
    for (time, step) in steps.iter().enumerate() {
        if let Some(input) = in_place(graph, step, &steps[time + 1..], roots) {
            places[step.output.index()] = Some(Place::InPlace(input));
        }
        let reads: Vec<usize> = step
            .inputs
            .iter()
            .copied()
            .chain(step.epilogue.iter().flat_map(Epilogue::operands))
            .filter_map(|t| request_of[roots[t.index()].index()])
            .chain(step.totals_of.and_then(|maker| totals_of[maker]))
            .collect();
        for &read in &reads {
            requests[read].end = time;
        }
        let mut make = |size: u64, conflicts: Vec<usize>| {
            requests.push(Request { size, start: time, end: time, conflicts });
            requests.len() - 1
        };
        let mut conflicts = reads.clone();
        if !matches!(places[step.output.index()], Some(Place::InPlace(_))) {
            let kept = storage[roots[step.output.index()].index()];
            let output = make(bytes(graph.shape(step.output).elements(), kept), reads);
            // A folded-away view chain ends at `output`; views of it resolve to its root.
            request_of[roots[step.output.index()].index()] = Some(output);
            request_of[step.output.index()] = Some(output);
            conflicts.push(output);
        }
        if let Some(elements) = step.scratch {
            let scratch = make(bytes(elements, Storage::F32), conflicts.clone());
            scratch_of[time] = Some(scratch);
            conflicts.push(scratch);
        }
        if let Some(chunks) = step.totals {
            let shape = graph.shape(step.result);
            let elements = shape[0] * chunks * 2 * shape.channels();
            totals_of[time] = Some(make(bytes(elements, Storage::F32), conflicts));
        }
    }
    let kept: Vec<Tensor> = steps[..once].iter().map(|step| step.output).collect();
    for t in wanted.iter().chain(&kept) {
        if let Some(request) = request_of[roots[t.index()].index()] {
            requests[request].end = steps.len();
        }
    }
    let live = (0..=steps.len()).map(|time| live_at(&requests, time)).max().unwrap_or(0);
    let Arena { sizes, offsets } = pack(&requests, limits.max_buffer);
    let at =
        |request: usize| Place::Arena { arena: offsets[request].0, offset: offsets[request].1 };
    for (node, request) in request_of.iter().enumerate() {
        if let Some(request) = request {
            places[node] = Some(at(*request));
        }
    }
    let scratch = scratch_of.iter().map(|r| r.map(at)).collect();
    let totals = totals_of.iter().map(|r| r.map(at)).collect();
    Placement { places, scratch, totals, arenas: sizes, live }
}
