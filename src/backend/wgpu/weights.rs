//! Weights on a graphics device, in their kernels' layouts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::buffer::{Buffer, Slice};
use super::device::Gpu;
use super::kernel::Scalar;
use super::layout::{Layout, PANEL};
use super::lowering::BufferView;
use super::transposed::Transposed;
use crate::backend::{Precision, Result};
use crate::graph::{ParameterError, ParameterSource, Shape, StoredAs, expect};

/// Weights on a device, shared by all programs that use them.
pub(super) struct Weights {
    pub gpu: Arc<Gpu>,
    source: Arc<dyn ParameterSource + Send>,
    precision: Precision,
    uploaded: Mutex<HashMap<(String, Layout), BufferView>>,
}

/// Numbers that a core rounds to f16 at a time.
const HALVES: usize = 1 << 16;

/// Bytes converted and queued before the device is waited for, so that staging memory stays small.
const PIECE: usize = 8 << 20;

impl Weights {
    pub fn new(
        gpu: Arc<Gpu>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Weights {
        Weights { gpu, source, precision, uploaded: Mutex::default() }
    }

    fn is_half(&self, stored: StoredAs, layout: Layout) -> bool {
        self.precision.is_half(stored) && layout != Layout::Plain
    }

    /// Bytes of the weight `name` in this layout.
    pub fn bytes(&self, name: &str, shape: &Shape, layout: Layout) -> Result<u64> {
        let info = expect(&*self.source, name, shape)?;
        Ok(weight_bytes(shape, layout, self.is_half(info.stored, layout)))
    }

    /// Gives up all that are not wanted.
    pub fn keep(&self, wanted: &dyn Fn(&str) -> bool) {
        self.uploaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(name, _), _| wanted(name));
    }

    /// The weight `name` of logical `shape` on the device; uploaded on first use.
    pub fn locate(&self, name: &str, shape: &Shape, layout: Layout) -> Result<BufferView> {
        let key = (name.to_string(), layout);
        if let Some(located) =
            self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        {
            return Ok(located.clone());
        }
        let info = expect(&*self.source, name, shape)?;
        let half = self.is_half(info.stored, layout);
        let buffer = self.gpu.buffer(name, weight_bytes(shape, layout, half))?;
        match layout {
            Layout::Plain | Layout::Rows => {
                self.upload_plain(name, shape.elements(), half, &buffer)?
            }
            Layout::Panels => self.upload_panels(name, shape, half, &buffer)?,
            Layout::Transposed { stride } => self.upload_transposed(
                name,
                Transposed::of(shape, stride),
                shape[0],
                half,
                &buffer,
            )?,
        }
        self.source.done_with(name);
        let scalar = if half { Scalar::U32 } else { Scalar::F32 };
        let located = BufferView { slice: Slice::whole(&buffer), scalar, half };
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, located.clone());
        Ok(located)
    }

    fn upload_plain(&self, name: &str, elements: usize, half: bool, buffer: &Buffer) -> Result<()> {
        let mut values = Vec::new();
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for start in (0..elements).step_by(PIECE / 4) {
            values.resize((elements - start).min(PIECE / 4), 0.0);
            self.source.read(name, start..start + values.len(), &mut values)?;
            upload.push(&values)?;
        }
        upload.finish()
    }

    /// `[out, in, taps]` to `[out / 64][taps][in][64]`, as many panels at a time as a piece holds,
    /// all cores together.
    fn upload_panels(&self, name: &str, shape: &Shape, half: bool, buffer: &Buffer) -> Result<()> {
        let (out, into) = (shape[0], shape[1]);
        let taps: usize = shape[2..].iter().product();
        let row = into * taps;
        let at_once = (PIECE / 4 / (PANEL * row).max(1)).max(1) * PANEL;
        let (mut rows, mut panels) = (Vec::new(), Vec::new());
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for first in (0..out).step_by(at_once) {
            let count = (out - first).min(at_once);
            rows.resize(count * row, 0.0);
            self.source.read(name, first * row..(first + count) * row, &mut rows)?;
            panels.clear();
            panels.resize(count.next_multiple_of(PANEL) * row, 0.0);
            let pairs = panels
                .par_chunks_mut((PANEL * row).max(1))
                .zip(rows.par_chunks((PANEL * row).max(1)));
            pairs.for_each(|(panel, rows)| fill_panel(panel, rows, into, taps));
            upload.push(&panels)?;
        }
        upload.finish()
    }

    /// `[out, in, kh, kw]` to the panels of the convolution's gradient, as many outputs at a time
    /// as a piece holds.
    fn upload_transposed(
        &self,
        name: &str,
        layout: Transposed,
        out: usize,
        half: bool,
        buffer: &Buffer,
    ) -> Result<()> {
        let row = layout.row();
        let count = (PIECE / 4 / row.max(1)).clamp(1, out.max(1));
        let mut values = Vec::new();
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for first in (0..out).step_by(count) {
            let rows = first..out.min(first + count);
            values.resize(rows.len() * row, 0.0);
            self.source.read(name, first * row..rows.end * row, &mut values)?;
            layout.rearrange(rows, &values, |at, run| {
                upload.offset = (at * if half { 2 } else { 4 }) as u64;
                upload.push(run)
            })?;
        }
        upload.finish()
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
            let padded = self.bytes.len().next_multiple_of(4);
            self.bytes.resize(padded, 0);
            self.gpu.write(self.buffer, self.offset, &self.bytes);
            self.offset += self.bytes.len() as u64;
            self.queued += self.bytes.len();
            if self.queued >= PIECE {
                self.gpu.flush()?;
                self.queued = 0;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(self.gpu.flush()?)
    }
}

/// Device bytes of a weight of `shape`, in f16 if `half`.
pub fn weight_bytes(shape: &Shape, layout: Layout, half: bool) -> u64 {
    let elements = match layout {
        Layout::Plain | Layout::Rows => shape.elements(),
        Layout::Transposed { stride } => Transposed::of(shape, stride).elements(),
        Layout::Panels => shape[0].next_multiple_of(PANEL) * shape[1..].iter().product::<usize>(),
    };
    (elements as u64 * if half { 2 } else { 4 }).next_multiple_of(16)
}
