//! Plans turned into commands without a device, at WebGPU's limits.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use mixofshow::backend::wgpu::{
    self, Buffer, BufferView, Command, Gpu, Held, Matrices, Options, Scalar, Schedule, Selection,
    Slice, Storage, Traits, weight_bytes,
};
use mixofshow::graph::{Element, Plan};

use super::published::Built;

/// A device that runs nothing, with WebGPU's default limits and no optional feature.
pub fn floor() -> &'static Arc<Gpu> {
    static GPU: LazyLock<Arc<Gpu>> = LazyLock::new(|| {
        let selection = Selection::Noop(Box::default());
        Gpu::open(&Options { selection, checked: true, floor: true, ..Options::default() })
            .expect("a device without a device")
    });
    &GPU
}

/// Bytes of workgroup memory of the devices that take `schedule`: WebGPU's floor, what NVIDIA's
/// cards have, or the least that those with matrices have.
pub fn workgroup_memory(schedule: Schedule) -> usize {
    match schedule {
        Schedule::Matrices(Matrices { size: 16, .. }) => 48 << 10,
        Schedule::Matrices(_) => 32 << 10,
        _ => 16 << 10,
    }
}

/// What one run of a graph does.
pub struct Lowered {
    pub plan: Plan,
    pub commands: Vec<Command>,
    /// Buffers of the commands by their address, each standing for as many bytes as a device would
    /// have to give.
    pub bytes: HashMap<usize, u64>,
}

/// The commands of `built` with weights held so, as far as they can be. Every arena, input and
/// weight is a buffer of its own; the buffers are small, only the sizes in the commands are true.
pub fn lower(built: &Built, held: Held, schedule: Schedule) -> Lowered {
    let gpu = floor();
    let mut graph = built.graph.clone();
    if held != Held::F32 && graph.rounds_activations() {
        graph.hold_halves();
    }
    let graph = &graph;
    let workgroup_memory = workgroup_memory(schedule);
    // Of graphs that allow it: those with weights in f16 that are not differentiated.
    let halves = held != Held::F32 && matches!(schedule, Schedule::Matrices(_));
    let traits = Traits { schedule, workgroup_memory, halves, ..*gpu.traits() };
    let plan = Plan::new(graph, &built.outputs, &traits);
    let buffers: Mutex<HashMap<String, (Arc<Buffer>, u64)>> = Mutex::default();
    let stand_in = |name: String, bytes: u64| {
        let mut buffers = buffers.lock().unwrap();
        let (buffer, size) =
            buffers.entry(name).or_insert_with(|| (gpu.buffer("stand-in", 16).unwrap(), bytes));
        Slice { buffer: buffer.clone(), offset: 0, size: *size }
    };
    let storage = |storage: Storage<'_>| {
        Ok(match storage {
            Storage::Arena(arena) => BufferView {
                slice: stand_in(format!("arena {arena}"), plan.arenas[arena]),
                scalar: Scalar::F32,
                held: Held::F32,
            },
            Storage::Input(tensor) => {
                let node = graph.node(tensor);
                let scalar = if node.element == Element::F32 { Scalar::F32 } else { Scalar::U32 };
                let bytes = (node.shape.elements() as u64 * 4).next_multiple_of(16);
                BufferView {
                    slice: stand_in(format!("input {tensor:?}"), bytes),
                    scalar,
                    held: Held::F32,
                }
            }
            Storage::Weight { name, shape, layout } => {
                let held = held.suited(layout, shape);
                let slice =
                    stand_in(format!("{name} {layout:?}"), weight_bytes(shape, layout, held));
                BufferView { slice, scalar: held.scalar(), held }
            }
        })
    };
    let commands = wgpu::commands(graph, &plan, &traits, &storage)
        .unwrap_or_else(|e| panic!("{}: {e}", built.name));
    let bytes = buffers
        .into_inner()
        .unwrap()
        .into_values()
        .map(|(buffer, size)| (Arc::as_ptr(&buffer) as usize, size))
        .collect();
    Lowered { plan, commands, bytes }
}
