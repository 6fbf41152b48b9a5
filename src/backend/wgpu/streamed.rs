//! Programs whose weights do not all stay on the device: what is missing comes from the host's
//! memory, block by block, while the block before is computed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::buffer::{Buffer, Slice};
use super::device::Gpu;
use super::host::OnHost;
use super::lowering::BufferView;
use super::record::Recording;
use super::staging::Staging;
use super::uses::{Key, shapes, uses_of_steps};
use super::weights::Weights;
use crate::backend::streaming::{Block, Stream};
use crate::backend::{Cost, Result, TooLittle};
use crate::graph::{Error, Graph, ParameterError, Plan};

/// One is computed with while the other one is filled.
pub(super) const PLACES: usize = 2;

/// How the weights of a plan are held within so many bytes.
pub(super) fn stream(
    weights: &Weights,
    graph: &Graph,
    plan: &Plan,
    within: u64,
) -> Result<std::result::Result<Stream<Key>, TooLittle>> {
    let steps = uses_of_steps(weights, graph, plan)?;
    let mut stream = Stream::plan(&steps, plan.once, &|_| false, PLACES as u64, within);
    if let Ok(stream) = &mut stream {
        stream.held.host = stream.held.streamed;
    }
    Ok(stream)
}

/// Bytes a second that get from the host to the device; none from a device that takes no time.
pub(super) fn rate(gpu: &Gpu) -> super::Result<Option<f64>> {
    const BYTES: usize = 16 << 20;
    const TIMES: u32 = 4;
    let (buffer, bytes) = (gpu.buffer("sample", BYTES as u64)?, vec![0; BYTES]);
    // The first one pays for memory.
    gpu.write(&buffer, 0, &bytes);
    gpu.flush()?;
    let start = Instant::now();
    for _ in 0..TIMES {
        gpu.write(&buffer, 0, &bytes);
        gpu.flush()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds > 0.0).then(|| f64::from(TIMES) * BYTES as f64 / seconds))
}

/// Brings the weights of all blocks into the host's memory as the device has them: by way of the
/// device, a block at a time, so that they are packed as any others.
pub(super) fn bring_to_host(weights: &Weights, graph: &Graph, blocks: &[Block<Key>]) -> Result<()> {
    let gpu = &weights.gpu;
    let shapes = shapes(graph);
    let nothing = Slice::whole(&gpu.buffer("nothing", 16)?);
    for block in blocks {
        let missing = || {
            let keys = block.weights.iter().map(|(key, _)| key);
            keys.filter(|key| weights.host.get(key).is_none())
        };
        let staging = Staging::new(weights);
        let mut views = Vec::new();
        for (name, layout) in missing() {
            let unknown = || Error::from(ParameterError::Missing { name: name.clone() });
            let shape = shapes.get(name.as_str()).ok_or_else(unknown)?;
            views.push(staging.locate(name, shape, *layout)?);
        }
        staging.finish(|| Ok(()))?;
        let missing: Vec<Key> = missing().cloned().collect();
        for (key, view) in missing.into_iter().zip(views) {
            let Slice { buffer, offset, size } = &view.slice;
            let bytes = Arc::new(gpu.read(buffer, *offset, *size)?);
            weights.forget(&key);
            let form = BufferView { slice: nothing.clone(), ..view };
            weights.host.put(key, OnHost { form, bytes });
        }
    }
    Ok(())
}

/// What comes before some commands of a recording.
struct Arrival {
    place: Arc<Buffer>,
    /// Where it goes, and what it is.
    weights: Vec<(u64, Arc<Vec<u8>>)>,
    commands: Range<usize>,
}

impl Arrival {
    fn write(&self, gpu: &Gpu) {
        self.weights.iter().for_each(|(offset, bytes)| gpu.write(&self.place, *offset, bytes));
    }
}

/// What comes while a recording is played.
#[derive(Default)]
pub(super) struct Arrivals(Vec<Arrival>);

/// The weights of a block in their place.
pub(super) struct Placed {
    place: Arc<Buffer>,
    weights: HashMap<Key, (BufferView, Arc<Vec<u8>>)>,
}

impl Placed {
    pub fn new(weights: &Weights, block: &Block<Key>, place: &Arc<Buffer>) -> Placed {
        let placed = |(key, offset): &(Key, u64)| {
            let OnHost { form, bytes } = weights.host.get(key)?;
            let slice = Slice { buffer: place.clone(), offset: *offset, size: bytes.len() as u64 };
            Some((key.clone(), (BufferView { slice, ..form }, bytes)))
        };
        let all = block.weights.iter().filter_map(placed).collect();
        Placed { place: place.clone(), weights: all }
    }

    pub fn get(&self, key: &Key) -> Option<BufferView> {
        self.weights.get(key).map(|(view, _)| view.clone())
    }
}

impl Arrivals {
    /// Lets a block's weights come before the commands up to `end`.
    pub fn add(&mut self, placed: Placed, end: usize) {
        let start = self.0.last().map_or(0, |last| last.commands.end);
        let mut weights: Vec<_> =
            placed.weights.into_values().map(|(view, bytes)| (view.slice.offset, bytes)).collect();
        weights.sort_by_key(|(offset, _)| *offset);
        self.0.push(Arrival { place: placed.place, weights, commands: start..end });
    }

    /// Lets the last block have all commands that are left of `end`.
    pub fn end_at(&mut self, end: usize) {
        if let Some(last) = self.0.last_mut() {
            last.commands.end = end;
        }
    }

    /// Plays all of it; does not wait for the last blocks.
    pub fn play(&self, gpu: &Gpu, recording: &Recording) {
        let (mut before, mut last) = (None, None);
        for arrival in &self.0 {
            // What waits on its way to the device is no more than two blocks.
            if let Some(before) = before {
                gpu.wait_for(before);
            }
            arrival.write(gpu);
            before = last;
            last = recording.play_part(arrival.commands.clone());
        }
    }

    /// Brings what the command `at` is the first to read.
    pub fn write_before(&self, gpu: &Gpu, at: usize, done: &mut usize) {
        while let Some(arrival) = self.0.get(*done).filter(|next| next.commands.start <= at) {
            arrival.write(gpu);
            *done += 1;
        }
    }

    /// Plays command by command and times each.
    pub fn timeline(
        &self,
        gpu: &Gpu,
        recording: &Recording,
        clock: &dyn Fn() -> f64,
    ) -> super::Result<Vec<(String, Cost)>> {
        let mut costs = Vec::new();
        for arrival in &self.0 {
            arrival.write(gpu);
            gpu.flush()?;
            costs.extend(recording.timeline_of(arrival.commands.clone(), clock)?);
        }
        Ok(costs)
    }
}
