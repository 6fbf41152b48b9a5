//! Weights on a graphics device, in their kernels' layouts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::buffer::{Buffer, Slice};
use super::device::Gpu;
use super::host::HostWeights;
use super::layout::{Held, Layout, PANEL};
use super::lowering::BufferView;
use super::packed::fill_with_blocks;
use super::transposed::Transposed;
use crate::backend::quantised::{quant_of, read_blocks};
use crate::backend::{Precision, Result};
use crate::graph::{ParameterError, ParameterSource, Quant, Shape, expect};

/// Weights on a device, shared by all programs that use them.
pub(super) struct Weights {
    pub gpu: Arc<Gpu>,
    source: Arc<dyn ParameterSource + Send>,
    precision: Precision,
    uploaded: Mutex<HashMap<(String, Layout), BufferView>>,
    /// What comes and goes.
    pub host: HostWeights,
}

/// Numbers that a core rounds to f16 at a time.
const HALVES: usize = 1 << 16;

/// Bytes converted and queued before the device is waited for, so that staging memory stays small.
const PIECE: usize = 8 << 20;

/// A part of a weight as it was read: numbers, or what becomes of them where it is held in blocks.
#[derive(Default)]
pub(super) struct Piece {
    values: Vec<f32>,
    blocks: Vec<u8>,
}

impl Weights {
    pub fn new(
        gpu: Arc<Gpu>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Weights {
        Weights { gpu, source, precision, uploaded: Mutex::default(), host: HostWeights::default() }
    }

    /// In which numbers the weight `name` is held.
    fn held(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Held> {
        let info = expect(&*self.source, name, shape)?;
        let quant = quant_of(self.precision, &*self.source, name, shape);
        let otherwise = if self.precision.is_half(info.stored) { Held::F16 } else { Held::F32 };
        Ok(quant.map_or(otherwise, Held::Blocks).suited(layout, shape))
    }

    /// Bytes of the weight `name` in this layout.
    pub fn bytes(&self, name: &str, shape: &Shape, layout: Layout) -> Result<u64> {
        Ok(weight_bytes(shape, layout, self.held(name, shape, layout)?))
    }

    /// Gives up one.
    pub fn forget(&self, key: &(String, Layout)) {
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Gives up all that are not wanted.
    pub fn keep(&self, wanted: &dyn Fn(&str) -> bool) {
        self.uploaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(name, _), _| wanted(name));
    }

    /// The weight `name` where it is on the device already.
    pub fn known(&self, name: &str, layout: Layout) -> Option<BufferView> {
        let uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        uploaded.get(&(name.to_string(), layout)).cloned()
    }

    /// A place on the device for the weight `name` of logical `shape`.
    pub fn reserve(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Reserved> {
        let held = self.held(name, shape, layout)?;
        let buffer = self.gpu.buffer(name, weight_bytes(shape, layout, held))?;
        let view = BufferView { slice: Slice::whole(&buffer), scalar: held.scalar(), held };
        Ok(Reserved { name: name.into(), shape: shape.clone(), layout, view })
    }

    /// Reads the elements `range` of a weight.
    pub fn read(&self, weight: &Reserved, range: Range<usize>, into: &mut Piece) -> Result<()> {
        let Piece { values, blocks } = into;
        if let Held::Blocks(quant) = weight.view.held {
            return Ok(read_blocks(&*self.source, &weight.name, quant, range, values, blocks)?);
        }
        values.resize(range.len(), 0.0);
        Ok(self.source.read(&weight.name, range, values)?)
    }

    /// Uploads a weight whose pieces, those of [`Reserved::pieces`], `next` gives in their order.
    pub fn upload(
        &self,
        weight: &Reserved,
        next: &mut dyn FnMut() -> Result<Piece>,
        done: &mut dyn FnMut(Piece),
    ) -> Result<()> {
        let Reserved { name, shape, layout, view } = weight;
        let half = view.held == Held::F16;
        let mut upload = Upload::new(&self.gpu, &view.slice.buffer, name, half);
        let mut panels = Vec::new();
        for range in weight.pieces() {
            let piece = next()?;
            let values = &piece.values;
            if let Held::Blocks(quant) = view.held {
                upload.push_blocks(quant, shape[1], &piece.blocks)?;
                done(piece);
                continue;
            }
            match *layout {
                Layout::Plain | Layout::Rows => upload.push(values)?,
                Layout::Panels => {
                    let row = weight.row();
                    let (into, taps) = (shape[1], shape[2..].iter().product());
                    let panel = (PANEL * row).max(1);
                    panels.clear();
                    panels.resize((range.len() / row.max(1)).next_multiple_of(PANEL) * row, 0.0);
                    let pairs = panels.par_chunks_mut(panel).zip(values.par_chunks(panel));
                    pairs.for_each(|(panel, rows)| fill_panel(panel, rows, into, taps));
                    upload.push(&panels)?;
                }
                Layout::Transposed { stride } => {
                    let transposed = Transposed::of(shape, stride);
                    let row = weight.row().max(1);
                    let rows = range.start / row..range.end / row;
                    transposed.rearrange(rows, values, |at, run| {
                        upload.offset = view.held.bytes(at) as u64;
                        upload.push(run)
                    })?;
                }
            }
            done(piece);
        }
        upload.finish()?;
        self.source.done_with(name);
        let key = (name.clone(), *layout);
        let mut uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        uploaded.insert(key, view.clone());
        Ok(())
    }
}

/// A weight with a place on the device, in which it is yet to be put.
pub(super) struct Reserved {
    name: String,
    shape: Shape,
    layout: Layout,
    pub view: BufferView,
}

impl Reserved {
    /// Elements of a row: what one output has.
    fn row(&self) -> usize {
        match self.layout {
            Layout::Plain | Layout::Rows => 1,
            Layout::Panels => self.shape[1..].iter().product(),
            Layout::Transposed { stride } => Transposed::of(&self.shape, stride).row(),
        }
    }

    /// The elements in pieces of whole rows, of whole panels where there are such.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let row = self.row();
        let all = match self.layout {
            Layout::Plain | Layout::Rows => self.shape.elements(),
            _ => self.shape[0] * row,
        };
        let count = match self.layout {
            Layout::Panels => (PIECE / 4 / (PANEL * row).max(1)).max(1) * PANEL * row,
            _ => (PIECE / 4 / row.max(1)).max(1) * row,
        };
        (0..all).step_by(count.max(1)).map(move |start| start..all.min(start + count))
    }
}

/// Up to 64 rows `[in, taps]` to a panel `[taps][in][64]`, a few inputs of all rows at a time, so
/// that what is written stays in the cache.
fn fill_panel(panel: &mut [f32], rows: &[f32], into: usize, taps: usize) {
    const INPUTS: usize = 16;
    for first in (0..into).step_by(INPUTS) {
        let last = (first + INPUTS).min(into);
        for (o, row) in rows.chunks_exact((into * taps).max(1)).enumerate() {
            for (i, values) in
                (first..last).zip(row[first * taps..last * taps].chunks_exact(taps.max(1)))
            {
                for (tap, &value) in values.iter().enumerate() {
                    panel[(tap * into + i) * PANEL + o] = value;
                }
            }
        }
    }
}

/// Elements on their way into a buffer, converted and waited for in pieces.
struct Upload<'a> {
    gpu: &'a Gpu,
    buffer: &'a Buffer,
    name: &'a str,
    half: bool,
    offset: u64,
    bytes: Vec<u8>,
    queued: usize,
}

impl<'a> Upload<'a> {
    fn new(gpu: &'a Gpu, buffer: &'a Buffer, name: &'a str, half: bool) -> Self {
        Upload { gpu, buffer, name, half, offset: 0, bytes: Vec::new(), queued: 0 }
    }

    fn push(&mut self, values: &[f32]) -> Result<()> {
        for piece in values.chunks(PIECE / 4) {
            self.bytes.clear();
            if self.half {
                self.bytes.resize(piece.len() * 2, 0);
                let halves: &mut [half::f16] = bytemuck::cast_slice_mut(&mut self.bytes);
                let wrong = halves.par_chunks_mut(HALVES).zip(piece.par_chunks(HALVES)).filter_map(
                    |(halves, piece)| {
                        halves.convert_from_f32_slice(piece);
                        halves
                            .iter()
                            .zip(piece)
                            .find(|(h, v)| !h.is_finite() && v.is_finite())
                            .map(|(_, v)| *v)
                    },
                );
                if let Some(value) = wrong.find_first(|_| true) {
                    let message = format!("{value} does not fit f16; use f32 weights");
                    return Err(ParameterError::Read { name: self.name.into(), message }.into());
                }
            } else {
                self.bytes.extend_from_slice(bytemuck::cast_slice(piece));
            }
            self.send()?;
        }
        Ok(())
    }

    /// Blocks of whole panels' rows, the last one's maybe fewer.
    fn push_blocks(&mut self, quant: Quant, into: usize, rows: &[u8]) -> Result<()> {
        let panel = (PANEL * quant.bytes(into)).max(1);
        self.bytes.clear();
        self.bytes.resize(rows.len().next_multiple_of(panel), 0);
        let pairs = self.bytes.par_chunks_mut(panel).zip(rows.par_chunks(panel));
        pairs.for_each(|(panel, rows)| fill_with_blocks(quant, into, panel, rows));
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
        self.gpu.write(self.buffer, self.offset, &self.bytes);
        self.offset += self.bytes.len() as u64;
        self.queued += self.bytes.len();
        if self.queued >= PIECE {
            self.gpu.flush()?;
            self.queued = 0;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(self.gpu.flush()?)
    }
}

/// Device bytes of a weight of `shape`.
pub fn weight_bytes(shape: &Shape, layout: Layout, held: Held) -> u64 {
    let elements = match layout {
        Layout::Plain | Layout::Rows => shape.elements(),
        Layout::Transposed { stride } => Transposed::of(shape, stride).elements(),
        Layout::Panels => shape[0].next_multiple_of(PANEL) * shape[1..].iter().product::<usize>(),
    };
    (held.bytes(elements) as u64).next_multiple_of(16)
}
