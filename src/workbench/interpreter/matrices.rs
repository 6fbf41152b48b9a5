//! Cooperative matrices: loaded, stored and multiplied by a whole subgroup together. Each of its
//! invocations holds all elements here, row by row.

use std::rc::Rc;

use naga::{CooperativeData, Expression, Handle, Module, Span, TypeInner};

use super::machine::Machine;
use super::math::{converted, to_f32};
use super::types::Scalar;
use super::values::{Data, NOWHERE, Place, Pointer, Value};
use super::{Refusal, called};
use crate::workbench::fault::FaultKind;

/// Whether a module has them.
pub(super) fn are_used(module: &Module) -> bool {
    module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }))
}

/// A matrix in memory.
struct Tile {
    rows: usize,
    columns: usize,
    scalar: Scalar,
    by_rows: bool,
    pointer: Rc<Pointer>,
    stride: Rc<Data>,
}

impl Tile {
    /// Elements of a row, or of a column where it lies by columns: those side by side.
    fn line(&self) -> usize {
        if self.by_rows { self.columns } else { self.rows }
    }

    /// Elements in the order of rows, each with its distance from the first in memory.
    fn distances(&self, stride: u32) -> impl Iterator<Item = u64> + '_ {
        let (columns, stride) = (self.columns as u64, u64::from(stride));
        (0..(self.rows * self.columns) as u64).map(move |element| {
            let (row, column) = (element / columns, element % columns);
            match self.by_rows {
                true => row * stride + column,
                false => column * stride + row,
            }
        })
    }
}

/// Rows and columns of a type of matrices, and what it holds.
fn shape(inner: &TypeInner) -> Result<(usize, usize, Scalar), Refusal> {
    match *inner {
        TypeInner::CooperativeMatrix { columns, rows, scalar, .. } => {
            Ok((rows as usize, columns as usize, Scalar::of(scalar)?))
        }
        ref other => Err(Refusal(format!("{} is no cooperative matrix", called(other)))),
    }
}

impl Machine<'_, '_> {
    /// The subgroups at work, of each the first invocation and how many there are; those that are
    /// not there as a whole are told of.
    fn whole_subgroups(&mut self, does: &str, active: &[u32], span: Span) -> Vec<(u32, u32)> {
        let (size, lanes) = (self.options.subgroup.max(1), self.lanes as u32);
        let mut all = Vec::new();
        for group in active.chunk_by(|a, b| a / size == b / size) {
            let (here, first) = (group.len() as u32, group[0] / size * size);
            let whole = size.min(lanes - first);
            if here != whole {
                self.see(FaultKind::DivergentMatrix, span, || {
                    format!(
                        "a cooperative matrix is {does} by {here} of the {whole} invocations of \
                         subgroup {}: all have to come",
                        first / size
                    )
                });
            }
            all.push((group[0], here));
        }
        all
    }

    fn tile(
        &mut self,
        inner: &TypeInner,
        data: &CooperativeData,
        active: &[u32],
    ) -> Result<Tile, Refusal> {
        let (rows, columns, _) = shape(inner)?;
        let scalar = self.pointee_flat(data.pointer)?.scalar();
        let pointer = self.pointer(data.pointer, active)?;
        let stride = self.data(data.stride, active)?;
        Ok(Tile { rows, columns, scalar, by_rows: data.row_major, pointer, stride })
    }

    /// Where a subgroup's matrix begins, and its stride; none where it begins outside.
    fn corner(
        &mut self,
        tile: &Tile,
        (first, count): (u32, u32),
        active: &[u32],
        span: Span,
        writes: bool,
    ) -> Option<(u32, u32)> {
        let lanes = self.lanes;
        let at = |lane: u32| {
            let lane = lane as usize;
            (tile.pointer.offsets.at(0, lane, lanes), tile.stride.at(0, lane, lanes))
        };
        let (start, stride) = at(first);
        let mut of_subgroup = active.iter().filter(|&&lane| lane >= first).take(count as usize);
        if let Some(&other) = of_subgroup.find(|&&lane| at(lane) != (start, stride)) {
            self.see(FaultKind::DivergentMatrix, span, || {
                format!(
                    "invocations {first} and {other} of a subgroup name other places or strides \
                     for one cooperative matrix"
                )
            });
        }
        if start == NOWHERE {
            let name = self.name_of(tile.pointer.place);
            self.see_index(&name, tile.pointer.beyond, span, writes);
            return None;
        }
        if (stride as usize) < tile.line() {
            let (line, lines) = (tile.line(), if tile.by_rows { "rows" } else { "columns" });
            self.see(FaultKind::WrongStride, span, || {
                format!(
                    "the stride of a cooperative matrix is {stride}, and its {lines} have {line} \
                     elements: they overlap"
                )
            });
        }
        Some((start, stride))
    }

    fn place(tile: &Tile) -> Result<usize, Refusal> {
        match tile.pointer.place {
            Place::Global(global) => Ok(global),
            _ => Err(Refusal("a cooperative matrix of an invocation's own variable".into())),
        }
    }

    /// As marks of memory call a subgroup: as an invocation that is none.
    fn called(&self, first: u32) -> u32 {
        self.lanes as u32 + first / self.options.subgroup.max(1)
    }

    pub fn load_matrix(
        &mut self,
        handle: Handle<Expression>,
        data: &CooperativeData,
        active: &[u32],
        span: Span,
    ) -> Result<Value, Refusal> {
        let inner = self.type_of(handle)?.clone();
        let tile = self.tile(&inner, data, active)?;
        let global = Self::place(&tile)?;
        let (lanes, width) = (self.lanes, u64::from(tile.scalar.width()));
        let mut out = Data { bits: vec![0; tile.rows * tile.columns * lanes], uniform: false };
        for (first, count) in self.whole_subgroups("loaded", active, span) {
            let corner = self.corner(&tile, (first, count), active, span, false);
            let Some((start, stride)) = corner else { continue };
            let who = self.called(first);
            for (element, distance) in tile.distances(stride).enumerate() {
                let byte = u64::from(start) + distance * width;
                let byte = u32::try_from(byte).unwrap_or(NOWHERE - 8);
                let bits = self.load(global, byte, tile.scalar, who, false, span)?;
                let at = element * lanes + first as usize;
                out.bits[at..at + count as usize].fill(bits);
            }
        }
        self.steps += (active.len() * tile.rows * tile.columns / 1024) as u64;
        Ok(Value::Data(Rc::new(out)))
    }

    pub fn store_matrix(
        &mut self,
        target: Handle<Expression>,
        data: &CooperativeData,
        active: &[u32],
        span: Span,
    ) -> Result<(), Refusal> {
        let inner = self.type_of(target)?.clone();
        let value = self.data(target, active)?;
        let tile = self.tile(&inner, data, active)?;
        let global = Self::place(&tile)?;
        let (lanes, width) = (self.lanes, u64::from(tile.scalar.width()));
        for (first, count) in self.whole_subgroups("stored", active, span) {
            let corner = self.corner(&tile, (first, count), active, span, true);
            let Some((start, stride)) = corner else { continue };
            let who = self.called(first);
            for (element, distance) in tile.distances(stride).enumerate() {
                let byte = u64::from(start) + distance * width;
                let byte = u32::try_from(byte).unwrap_or(NOWHERE - 8);
                let bits = value.at(element, first as usize, lanes);
                self.store(global, byte, tile.scalar, bits, who, false, span)?;
            }
        }
        self.steps += (active.len() * tile.rows * tile.columns / 1024) as u64;
        Ok(())
    }

    /// `a b + c`, summed in f32.
    pub fn multiply_matrices(
        &mut self,
        [a, b, c]: [Handle<Expression>; 3],
        active: &[u32],
        span: Span,
    ) -> Result<Value, Refusal> {
        let shapes = [a, b, c].map(|handle| self.type_of(handle).and_then(shape));
        let [of_a, of_b, of_c] = shapes;
        let ((rows, inner, scalar_a), (inner_b, columns, scalar_b)) = (of_a?, of_b?);
        let (rows_c, columns_c, scalar_c) = of_c?;
        if inner != inner_b || (rows, columns) != (rows_c, columns_c) {
            return Err(Refusal("cooperative matrices of extents that do not fit".into()));
        }
        let (a, b) = (self.data(a, active)?, self.data(b, active)?);
        let c = self.data(c, active)?;
        let lanes = self.lanes;
        let mut out = Data { bits: vec![0; rows * columns * lanes], uniform: false };
        for (first, count) in self.whole_subgroups("multiplied", active, span) {
            let lane = first as usize;
            let all = |data: &Data, scalar, count: usize| -> Vec<f32> {
                (0..count).map(|element| to_f32(scalar, data.at(element, lane, lanes))).collect()
            };
            let (of_a, of_b) =
                (all(&a, scalar_a, rows * inner), all(&b, scalar_b, inner * columns));
            let mut sums = all(&c, scalar_c, rows * columns);
            for (sums, of_a) in sums.chunks_mut(columns).zip(of_a.chunks(inner)) {
                for (factor, of_b) in of_a.iter().zip(of_b.chunks(columns)) {
                    for (sum, other) in sums.iter_mut().zip(of_b) {
                        *sum += factor * other;
                    }
                }
            }
            for (element, sum) in sums.into_iter().enumerate() {
                let bits = converted(Scalar::F32, scalar_c, sum.to_bits());
                let at = element * lanes + lane;
                out.bits[at..at + count as usize].fill(bits);
            }
            self.steps += (rows * columns * inner / 32) as u64;
        }
        if scalar_c == Scalar::F16 {
            self.overflow(&[&a, &b, &c], &out, scalar_c, active, span);
        }
        Ok(Value::Data(Rc::new(out)))
    }
}
