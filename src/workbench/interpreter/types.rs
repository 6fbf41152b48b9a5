//! Types as rows of scalars: where each stands in memory, and how many there are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use naga::{ArraySize, Handle, Module, ScalarKind, Type, TypeInner, VectorSize};

use super::{Refusal, called};

/// The scalars that are computed with. f16 is held by its own bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    F32,
    F16,
    U32,
    I32,
    Bool,
}

impl Scalar {
    pub fn of(scalar: naga::Scalar) -> Result<Scalar, Refusal> {
        match (scalar.kind, scalar.width) {
            (ScalarKind::Float, 4) => Ok(Scalar::F32),
            (ScalarKind::Float, 2) => Ok(Scalar::F16),
            (ScalarKind::Uint, 4) => Ok(Scalar::U32),
            (ScalarKind::Sint, 4) => Ok(Scalar::I32),
            (ScalarKind::Bool, _) => Ok(Scalar::Bool),
            (kind, width) => {
                Err(Refusal(format!("{kind:?} of {width} bytes is not known to the interpreter")))
            }
        }
    }

    /// Bytes in memory.
    pub fn width(self) -> u32 {
        if self == Scalar::F16 { 2 } else { 4 }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Scalar::F32 | Scalar::F16)
    }
}

/// A type's scalars in order, each with its place in bytes.
#[derive(Debug)]
pub(super) struct Flat {
    pub parts: Vec<(u32, Scalar)>,
    /// Whether it is an atomic, which is read and written as one.
    pub atomic: bool,
}

impl Flat {
    pub fn len(&self) -> u32 {
        self.parts.len() as u32
    }

    /// Of what is all of one kind: the kind.
    pub fn scalar(&self) -> Scalar {
        self.parts.first().map_or(Scalar::U32, |part| part.1)
    }
}

pub(super) struct Types<'m> {
    module: &'m Module,
    known: RefCell<HashMap<Handle<Type>, Rc<Flat>>>,
}

/// Where a part of a composite stands: its place in bytes and in scalars.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Bytes between neighbours.
    pub bytes: u32,
    /// Scalars between neighbours.
    pub scalars: u32,
    /// How many there are; none where the binding says it.
    pub count: Option<u32>,
}

fn extent(size: VectorSize) -> u32 {
    size as u32
}

/// Bytes from a column of a matrix to the next.
fn column(rows: VectorSize, width: u32) -> u32 {
    if rows == VectorSize::Bi { 2 * width } else { 4 * width }
}

impl<'m> Types<'m> {
    pub fn new(module: &'m Module) -> Types<'m> {
        Types { module, known: RefCell::default() }
    }

    pub fn inner(&self, handle: Handle<Type>) -> &'m TypeInner {
        &self.module.types[handle].inner
    }

    pub fn flat(&self, handle: Handle<Type>) -> Result<Rc<Flat>, Refusal> {
        if let Some(flat) = self.known.borrow().get(&handle) {
            return Ok(flat.clone());
        }
        let flat = self.flat_of(self.inner(handle))?;
        self.known.borrow_mut().insert(handle, flat.clone());
        Ok(flat)
    }

    pub fn flat_of(&self, inner: &TypeInner) -> Result<Rc<Flat>, Refusal> {
        let mut parts = Vec::new();
        self.collect(inner, 0, &mut parts)?;
        Ok(Rc::new(Flat { parts, atomic: matches!(inner, TypeInner::Atomic(_)) }))
    }

    fn collect(
        &self,
        inner: &TypeInner,
        at: u32,
        parts: &mut Vec<(u32, Scalar)>,
    ) -> Result<(), Refusal> {
        match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => {
                parts.push((at, Scalar::of(scalar)?));
            }
            TypeInner::Vector { size, scalar } => {
                let scalar = Scalar::of(scalar)?;
                parts.extend((0..extent(size)).map(|i| (at + i * scalar.width(), scalar)));
            }
            TypeInner::Matrix { columns, rows, scalar } => {
                let scalar = Scalar::of(scalar)?;
                for i in 0..extent(columns) {
                    let start = at + i * column(rows, scalar.width());
                    parts.extend((0..extent(rows)).map(|j| (start + j * scalar.width(), scalar)));
                }
            }
            // Nobody but cooperative loads and stores put it anywhere.
            TypeInner::CooperativeMatrix { columns, rows, scalar, .. } => {
                let (scalar, count) = (Scalar::of(scalar)?, rows as u32 * columns as u32);
                parts.extend((0..count).map(|i| (at + i * scalar.width(), scalar)));
            }
            TypeInner::Array { base, size: ArraySize::Constant(count), stride } => {
                for i in 0..count.get() {
                    self.collect(self.inner(base), at + i * stride, parts)?;
                }
            }
            TypeInner::Struct { ref members, .. } => {
                for member in members {
                    self.collect(self.inner(member.ty), at + member.offset, parts)?;
                }
            }
            ref other => {
                return Err(Refusal(format!("values of {} are not known", called(other))));
            }
        }
        Ok(())
    }

    /// How the parts of a composite follow each other; none for structs, whose parts differ.
    pub fn step(&self, inner: &TypeInner) -> Result<Option<Step>, Refusal> {
        Ok(match *inner {
            TypeInner::Vector { size, scalar }
            | TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                let bytes = Scalar::of(scalar)?.width();
                Some(Step { bytes, scalars: 1, count: Some(extent(size)) })
            }
            TypeInner::Matrix { columns, rows, scalar } => Some(Step {
                bytes: column(rows, Scalar::of(scalar)?.width()),
                scalars: extent(rows),
                count: Some(extent(columns)),
            }),
            TypeInner::Array { base, size, stride } => {
                let count = match size {
                    ArraySize::Constant(count) => Some(count.get()),
                    _ => None,
                };
                Some(Step { bytes: stride, scalars: self.flat(base)?.len(), count })
            }
            _ => None,
        })
    }

    /// What stands at a byte, as it is written behind a variable's name: `[3].x`.
    pub fn path(&self, inner: &TypeInner, byte: u32) -> String {
        const NAMES: [&str; 4] = ["x", "y", "z", "w"];
        let component = |byte: u32, width: u8| NAMES[(byte / u32::from(width.max(1))) as usize % 4];
        match *inner {
            TypeInner::Array { base, stride, .. } => {
                let stride = stride.max(1);
                let rest = self.path(self.inner(base), byte % stride);
                format!("[{}]{rest}", byte / stride)
            }
            TypeInner::Vector { scalar, .. } => format!(".{}", component(byte, scalar.width)),
            TypeInner::Matrix { rows, scalar, .. } => {
                let each = column(rows, u32::from(scalar.width)).max(1);
                format!("[{}].{}", byte / each, component(byte % each, scalar.width))
            }
            TypeInner::Struct { ref members, .. } => {
                let found = members.iter().rev().find(|member| member.offset <= byte);
                found.map_or_else(String::new, |member| {
                    let name = member.name.as_deref().unwrap_or_default();
                    let rest = self.path(self.inner(member.ty), byte - member.offset);
                    format!(".{name}{rest}")
                })
            }
            _ => String::new(),
        }
    }

    /// The place of member `index` of a struct: in bytes and in scalars.
    pub fn member(&self, inner: &TypeInner, index: u32) -> Result<(u32, u32), Refusal> {
        let TypeInner::Struct { members, .. } = inner else {
            return Err(Refusal(format!("{} has no members", called(inner))));
        };
        let mut scalars = 0;
        for member in &members[..index as usize] {
            scalars += self.flat(member.ty)?.len();
        }
        Ok((members[index as usize].offset, scalars))
    }

    /// What a pointer points to.
    pub fn pointee(&self, inner: &TypeInner) -> Result<TypeInner, Refusal> {
        match *inner {
            TypeInner::Pointer { base, .. } => Ok(self.inner(base).clone()),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                Ok(TypeInner::Vector { size, scalar })
            }
            TypeInner::ValuePointer { size: None, scalar, .. } => Ok(TypeInner::Scalar(scalar)),
            ref other => Err(Refusal(format!("{} is no pointer", called(other)))),
        }
    }
}
