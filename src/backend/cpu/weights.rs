//! Weights on their way into memory, in their kernels' layouts and in the precision in which they
//! are stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Cpu;
use super::layout::Layout;
use super::memory::{ALIGNMENT, Span};
use super::packed::{Held, Numbers, Packed, Table};
use crate::backend::quantised::{quant_of, read_blocks};
use crate::backend::{Precision, Result};
use crate::graph::ops::conv2d_transposed::windows;
use crate::graph::{ParameterError, ParameterSource, Quant, Shape, StoredAs, expect};
use cpu_kernels::weights::{self as kernels, Aligned, Number, outputs_together};

/// Weights of a source, shared by all programs that use them.
pub(super) struct Weights {
    pub cpu: Arc<Cpu>,
    source: Arc<dyn ParameterSource + Send>,
    precision: Precision,
    loaded: Mutex<HashMap<(String, Layout), Packed>>,
}

/// f32 that are read at a time, where rows follow each other.
const PIECE: usize = 1 << 18;

/// f32 that are read before all threads turn them round.
const TURNED: usize = 1 << 21;

/// In which numbers a weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    /// Numbers that bf16 has; a weight to which updates were added has others, and is held in f16.
    BF16,
    /// Blocks of fewer bits.
    Blocks(Quant),
}

impl Kind {
    /// Of so many elements.
    fn bytes(self, elements: u64) -> u64 {
        match self {
            Kind::F32 => elements * 4,
            Kind::F16 | Kind::BF16 => elements * 2,
            Kind::Blocks(quant) => quant.bytes(elements as usize) as u64,
        }
    }
}

impl Weights {
    pub fn new(
        cpu: Arc<Cpu>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Weights {
        Weights { cpu, source, precision, loaded: Mutex::default() }
    }

    fn kind(&self, name: &str, shape: &Shape, stored: StoredAs, layout: Layout) -> Kind {
        if layout == Layout::Matmul
            && let Some(quant) = quant_of(self.precision, &*self.source, name, shape)
            && kernels::holds_blocks(shape[0], shape[1])
        {
            return Kind::Blocks(quant);
        }
        match (layout, self.precision, stored) {
            (Layout::Plain, ..) => Kind::F32,
            (_, Precision::AsStored, StoredAs::BF16) => Kind::BF16,
            _ if self.precision.is_half(stored) => Kind::F16,
            _ => Kind::F32,
        }
    }

    /// Bytes of the weight `name` in this layout.
    pub fn bytes(&self, name: &str, shape: &Shape, layout: Layout) -> Result<u64> {
        let info = expect(&*self.source, name, shape)?;
        Ok(weight_bytes(shape, layout, self.kind(name, shape, info.stored, layout)))
    }

    /// Gives up all that are not wanted.
    pub fn keep(&self, wanted: &dyn Fn(&str) -> bool) {
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(name, _), _| wanted(name));
    }

    /// The weight `name` of logical `shape`; loaded on first use.
    pub fn locate(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        let held = layout.held(shape);
        Ok(self.find(name, shape, held)?.seen_as(held, layout))
    }

    /// A weight in a layout in which it is held.
    fn find(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        let key = (name.to_string(), layout);
        if let Some(packed) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(packed.clone());
        }
        let packed = self.load_anew(name, shape, layout)?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, packed.clone());
        Ok(packed)
    }

    /// A weight in a layout in which it is held, kept by nobody else.
    pub fn load_anew(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        let info = expect(&*self.source, name, shape)?;
        let kind = self.kind(name, shape, info.stored, layout);
        let load = |kind| self.cpu.install(|| self.load(name, shape, layout, kind));
        let packed = match load(kind) {
            Err(Failed::Misfit(_)) if kind == Kind::BF16 => load(Kind::F16),
            other => other,
        };
        let packed = packed.map_err(|failed| match failed {
            Failed::Misfit(value) => {
                let message = format!("{value} does not fit f16; use f32 weights");
                ParameterError::Read { name: name.into(), message }.into()
            }
            Failed::Other(error) => error,
        })?;
        self.source.done_with(name);
        Ok(packed)
    }

    fn load(
        &self,
        name: &str,
        shape: &Shape,
        layout: Layout,
        kind: Kind,
    ) -> Result<Packed, Failed> {
        let counted = |bytes| self.cpu.usage().count(bytes);
        match (layout, kind) {
            (Layout::Plain, _) => {
                let values = self.rows::<f32>(name, shape.elements())?;
                let span = Span::holding(self.cpu.usage(), name, &values)
                    .map_err(crate::backend::Error::from)?;
                Ok(Packed::Plain(span))
            }
            (Layout::Rows, _) => {
                let elements = shape.elements();
                let numbers = match kind {
                    Kind::F32 => Numbers::F32(self.rows(name, elements)?),
                    Kind::F16 | Kind::Blocks(_) => Numbers::F16(self.rows(name, elements)?),
                    Kind::BF16 => Numbers::BF16(self.rows(name, elements)?),
                };
                Ok(Packed::Rows(Arc::new(Table {
                    numbers,
                    _counted: counted(weight_bytes(shape, layout, kind)),
                })))
            }
            (Layout::Matmul | Layout::Transposed { .. }, _) => {
                let weights = match kind {
                    Kind::F32 => self.panels::<f32>(name, shape, layout)?,
                    Kind::F16 => self.panels::<f16>(name, shape, layout)?,
                    Kind::BF16 => self.panels::<bf16>(name, shape, layout)?,
                    Kind::Blocks(quant) => self.blocks(name, shape, quant)?,
                };
                Ok(Packed::Matmul(Arc::new(Held {
                    weights,
                    counted: Arc::new(counted(weight_bytes(shape, layout, kind))),
                })))
            }
        }
    }

    fn read(
        &self,
        name: &str,
        range: std::ops::Range<usize>,
        into: &mut [f32],
    ) -> Result<(), Failed> {
        self.source.read(name, range, into).map_err(|error| Failed::Other(error.into()))
    }

    /// Elements as they lie in the file.
    fn rows<T: Convert>(&self, name: &str, elements: usize) -> Result<Vec<T>, Failed> {
        let mut all = vec![T::default(); elements];
        let pieces = all.par_chunks_mut(PIECE).enumerate();
        pieces.try_for_each_init(Vec::new, |values, (number, piece)| {
            values.resize(piece.len(), 0.0);
            let start = number * PIECE;
            self.read(name, start..start + piece.len(), values)?;
            T::convert(values, piece)
        })?;
        Ok(all)
    }

    fn panels<T: Convert>(
        &self,
        name: &str,
        shape: &Shape,
        layout: Layout,
    ) -> Result<kernels::Weights, Failed> {
        let [out, into, window] = [shape[0], shape[1], shape[2..].iter().product()];
        match layout {
            Layout::Transposed { stride } => self.transposed::<T>(name, shape, stride),
            _ => {
                let numbers = self.forward::<T>(name, [out, into, window])?;
                let window =
                    [shape.get(2).copied().unwrap_or(1), shape.get(3).copied().unwrap_or(1)];
                Ok(kernels::Weights::of_layout(T::hold(numbers), out, into, window))
            }
        }
    }

    /// `[out, in]` to blocks, those of the file where it has such.
    fn blocks(&self, name: &str, shape: &Shape, quant: Quant) -> Result<kernels::Weights, Failed> {
        use kernels::BLOCK;
        let (out, into, n) = (shape[0], shape[1], outputs_together(shape[0]));
        let (panels, blocks_of_row) = (out.div_ceil(n), into / BLOCK);
        // What follows the factor lies as it does in a block, with the outputs side by side.
        let each = quant.size() - 2;
        let mut numbers = Aligned::<i8>::zeros(panels * blocks_of_row * each * n);
        let mut factors = Aligned::<f16>::zeros(panels * blocks_of_row * n);
        let both = numbers
            .par_chunks_mut(blocks_of_row * each * n)
            .zip(factors.par_chunks_mut(blocks_of_row * n));
        both.enumerate().try_for_each_init(
            Default::default,
            |(values, blocks): &mut (Vec<f32>, Vec<u8>),
             (panel, (numbers, factors))|
             -> Result<(), Failed> {
                let first = panel * n;
                let range = first * into..out.min(first + n) * into;
                read_blocks(&*self.source, name, quant, range, values, blocks)
                    .map_err(|error| Failed::Other(error.into()))?;
                for (o, row) in blocks.chunks_exact(quant.bytes(into)).enumerate() {
                    for (b, block) in row.chunks_exact(quant.size()).enumerate() {
                        let (factor, bytes) = block.split_at(2);
                        factors[b * n + o] = f16::from_le_bytes([factor[0], factor[1]]);
                        for (i, byte) in bytes.iter().enumerate() {
                            numbers[(b * each + i) * n + o] = *byte as i8;
                        }
                    }
                }
                Ok(())
            },
        )?;
        let blocks = kernels::Blocks { numbers, factors };
        let held = match quant {
            Quant::Q8_0 => kernels::Held::blocks(blocks),
            Quant::Q4_0 => kernels::Held::nibbles(blocks),
        };
        Ok(kernels::Weights::of_layout(held, out, into, [1, 1]))
    }

    /// `[out, in, taps]` to `[out / n][taps][in][n]`.
    fn forward<T: Convert>(
        &self,
        name: &str,
        [out, into, taps]: [usize; 3],
    ) -> Result<Aligned<T>, Failed> {
        let (row, n) = (into * taps, outputs_together(out));
        let mut all = Aligned::<T>::zeros(out.div_ceil(n) * n * row);
        let panels = all.par_chunks_mut((n * row).max(1)).enumerate();
        panels.try_for_each_init(
            Default::default,
            |(values, numbers): &mut (Vec<f32>, Vec<T>), (number, panel)| -> Result<(), Failed> {
                let first = number * n;
                let rows = first..out.min(first + n);
                values.resize(rows.len() * row, 0.0);
                numbers.resize(values.len(), T::default());
                self.read(name, rows.start * row..rows.end * row, values)?;
                T::convert(values, numbers)?;
                // A few inputs of all outputs at a time, so that what is written stays in the
                // cache.
                const INPUTS: usize = 16;
                for start in (0..into).step_by(INPUTS) {
                    let end = into.min(start + INPUTS);
                    for (o, numbers) in numbers.chunks_exact(row).enumerate() {
                        for (i, numbers) in
                            (start..end).zip(numbers[start * taps..end * taps].chunks_exact(taps))
                        {
                            for (tap, number) in numbers.iter().enumerate() {
                                panel[(tap * into + i) * n + o] = *number;
                            }
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// `[out, in, kh, kw]` to the panels of the convolution that is the gradient: see
    /// [`Layout::Transposed`].
    fn transposed<T: Convert>(
        &self,
        name: &str,
        shape: &Shape,
        stride: usize,
    ) -> Result<kernels::Weights, Failed> {
        let (out, into) = (shape[0], shape[1]);
        let [kh, kw] = [shape.get(2).copied().unwrap_or(1), shape.get(3).copied().unwrap_or(1)];
        let [lines, columns] = windows([kh, kw], stride);
        let (row, results) = (into * kh * kw, stride * stride * into);
        let n = outputs_together(results);
        let panel = (lines * columns * out * n).max(1);
        let mut all = Aligned::<T>::zeros(results.div_ceil(n) * panel);
        let at_once = (TURNED / row.max(1)).clamp(1, out.max(1));
        let (mut values, mut numbers) = (Vec::new(), Vec::new());
        for first in (0..out).step_by(at_once) {
            let rows = at_once.min(out - first);
            values.resize(rows * row, 0.0);
            numbers.resize(rows * row, T::default());
            let each = PIECE.div_ceil(row.max(1)) * row;
            let pieces = values.par_chunks_mut(each).zip(numbers.par_chunks_mut(each)).enumerate();
            pieces.try_for_each(|(number, (values, numbers))| -> Result<(), Failed> {
                let start = first * row + number * each;
                self.read(name, start..start + values.len(), values)?;
                T::convert(values, numbers)
            })?;
            all.par_chunks_mut(panel).enumerate().for_each(|(number, panel)| {
                for tap in 0..lines * columns {
                    for c in 0..n.min(results - number * n) {
                        let (phase, channel) = ((number * n + c) / into, (number * n + c) % into);
                        let ky = (lines - 1 - tap / columns) * stride + phase / stride;
                        let kx = (columns - 1 - tap % columns) * stride + phase % stride;
                        if ky >= kh || kx >= kw {
                            continue;
                        }
                        let from = numbers[(channel * kh + ky) * kw + kx..].iter().step_by(row);
                        let to = panel[(tap * out + first) * n + c..].iter_mut().step_by(n);
                        to.zip(from).take(rows).for_each(|(to, from)| *to = *from);
                    }
                }
            });
        }
        Ok(kernels::Weights::of_layout(T::hold(all), results, out, [lines, columns]))
    }
}

/// Why a weight could not be loaded.
enum Failed {
    /// A number that its kind cannot hold.
    Misfit(f32),
    Other(crate::backend::Error),
}

impl From<crate::backend::Error> for Failed {
    fn from(error: crate::backend::Error) -> Failed {
        Failed::Other(error)
    }
}

/// Numbers that f32 turn into.
trait Convert: Number {
    fn convert(from: &[f32], to: &mut [Self]) -> Result<(), Failed>;
}

impl Convert for f32 {
    fn convert(from: &[f32], to: &mut [f32]) -> Result<(), Failed> {
        to.copy_from_slice(from);
        Ok(())
    }
}

impl Convert for f16 {
    fn convert(from: &[f32], to: &mut [f16]) -> Result<(), Failed> {
        to.convert_from_f32_slice(from);
        match to.iter().zip(from).find(|(h, v)| !h.is_finite() && v.is_finite()) {
            Some((_, value)) => Err(Failed::Misfit(*value)),
            None => Ok(()),
        }
    }
}

impl Convert for bf16 {
    fn convert(from: &[f32], to: &mut [bf16]) -> Result<(), Failed> {
        let mut lost = 0;
        for (to, from) in to.iter_mut().zip(from) {
            let bits = from.to_bits();
            lost |= bits & 0xffff;
            *to = bf16::from_bits((bits >> 16) as u16);
        }
        if lost == 0 { Ok(()) } else { Err(Failed::Misfit(f32::NAN)) }
    }
}

/// Bytes of a weight of `shape`.
fn weight_bytes(shape: &Shape, layout: Layout, kind: Kind) -> u64 {
    let padded = |out: usize| out.next_multiple_of(outputs_together(out));
    let elements = match layout {
        Layout::Plain => {
            return (shape.elements() as u64 * 4).max(1).next_multiple_of(ALIGNMENT as u64);
        }
        Layout::Rows => shape.elements(),
        Layout::Matmul => padded(shape[0]) * shape[1..].iter().product::<usize>(),
        Layout::Transposed { stride } => {
            let kernel = [shape.get(2).copied().unwrap_or(1), shape.get(3).copied().unwrap_or(1)];
            let taps: usize = windows(kernel, stride).iter().product();
            padded(stride * stride * shape[1]) * shape[0] * taps
        }
    };
    kind.bytes(elements as u64)
}
