//! What a kernel binds, as its WGSL says it, and how numbers are laid out for it.

use std::collections::HashMap;

use half::f16;
use naga::{AddressSpace, Handle, Module, ScalarKind, Span, StorageAccess, Type, TypeInner};

use super::error::Error;
use super::rounding::Rounding;
use super::source::{Source, Wgsl};
use super::spec::{Element, Spec};

/// Elements of a binding in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    F16,
    U32,
    I32,
}

impl Stored {
    /// Bytes of so many elements; f16 in u32 go in pairs.
    pub fn bytes(self, elements: usize, element: Element) -> usize {
        match (self, element) {
            (Stored::F16, _) => elements * 2,
            (Stored::U32, Element::Float) => elements.div_ceil(2) * 4,
            _ => elements * 4,
        }
    }

    /// Whether numbers are held in f16.
    pub fn is_half(self, element: Element) -> bool {
        self == Stored::F16 || self == Stored::U32 && element == Element::Float
    }
}

/// What is wrong with what a kernel binds, and where that stands in the WGSL.
#[derive(Clone, Debug, Default)]
pub(super) struct Problem {
    pub what: String,
    pub span: Span,
    /// The member of a struct there.
    pub member: Option<String>,
}

impl From<String> for Problem {
    fn from(what: String) -> Problem {
        Problem { what, ..Problem::default() }
    }
}

impl Problem {
    /// As an error of that kernel, whose WGSL it stands in.
    pub fn of(&self, source: &Source, wgsl: &Wgsl) -> Error {
        match self.line(&wgsl.text) {
            Some(line) => source.failed_in(wgsl, line, &self.what),
            None => source.failed(&self.what),
        }
    }

    /// The line of the text, where it is known.
    pub fn line(&self, text: &str) -> Option<usize> {
        let range = self.span.to_range()?;
        let declared = text.get(range.clone())?;
        let member = self.member.as_ref().and_then(|name| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            declared.match_indices(name.as_str()).map(|(at, _)| at).find(|&at| {
                let behind = declared[at + name.len()..].trim_start();
                !declared[..at].ends_with(is_part) && behind.starts_with(':')
            })
        });
        let before = text.get(..range.start + member.unwrap_or(0))?;
        Some(before.matches('\n').count() + 1)
    }
}

/// A storage binding.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub name: String,
    pub slot: u32,
    pub stored: Stored,
    /// Bytes of one element of the runtime-sized array: a vector's where it is of vectors.
    pub stride: usize,
    pub writable: bool,
    span: Span,
}

/// A uniform buffer and its members.
#[derive(Clone, Debug)]
pub(super) struct Uniforms {
    pub name: String,
    pub slot: u32,
    pub size: usize,
    members: Vec<(String, usize, Stored)>,
    span: Span,
}

impl Bound {
    /// Bytes of its buffer: whole vectors, whatever the last one holds.
    pub fn bytes(&self, elements: usize, element: Element) -> usize {
        self.stored.bytes(elements, element).next_multiple_of(self.stride.max(1))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    pub bindings: Vec<Bound>,
    pub uniforms: Vec<Uniforms>,
    /// f16 is in memory.
    pub halves: bool,
    /// Where f16 is rounded to.
    pub rounding: Rounding,
    pub cooperative: bool,
}

fn stored(module: &Module, ty: Handle<Type>) -> Option<Stored> {
    let scalar = match module.types[ty].inner {
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar,
        TypeInner::Matrix { scalar, .. } | TypeInner::Atomic(scalar) => scalar,
        TypeInner::Array { base, .. } => return stored(module, base),
        TypeInner::Struct { ref members, .. } => return stored(module, members.first()?.ty),
        _ => return None,
    };
    match (scalar.kind, scalar.width) {
        (ScalarKind::Float, 4) => Some(Stored::F32),
        (ScalarKind::Float, 2) => Some(Stored::F16),
        (ScalarKind::Uint, 4) => Some(Stored::U32),
        (ScalarKind::Sint, 4) => Some(Stored::I32),
        _ => None,
    }
}

fn stride(module: &Module, ty: Handle<Type>) -> usize {
    match module.types[ty].inner {
        TypeInner::Array { stride, .. } => stride as usize,
        TypeInner::Struct { ref members, .. } if members.len() == 1 => {
            stride(module, members[0].ty)
        }
        ref other => other.size(module.to_ctx()) as usize,
    }
}

impl Interface {
    /// Reads a module.
    ///
    /// # Errors
    /// Other than one entry point; what is bound that nobody could fill.
    pub fn of(module: &Module) -> Result<Interface, Problem> {
        let entries = module.entry_points.iter();
        let compute: Vec<&str> = entries
            .filter(|entry| entry.stage == naga::ShaderStage::Compute)
            .map(|entry| entry.name.as_str())
            .collect();
        if compute.len() != 1 || module.entry_points.len() != 1 {
            let found = match compute.len() {
                0 => "found none".to_string(),
                1 => format!("found others beside {}", compute[0]),
                _ => format!("found {}", compute.join(", ")),
            };
            return Err(format!("expected one @compute entry point, {found}").into());
        }
        let mut interface = Interface {
            halves: super::interpreter::has_halves(module),
            rounding: Rounding::of(module),
            ..Interface::default()
        };
        interface.cooperative = module
            .types
            .iter()
            .any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }));
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            let name = variable.name.clone().unwrap_or_default();
            let span = module.global_variables.get_span(handle);
            let here = |what: String| Problem { what, span, member: None };
            if binding.group != 0 {
                return Err(here(format!("binding `{name}` is in group {}, not 0", binding.group)));
            }
            let unknown = || format!("binding `{name}` holds neither f32, f16, u32 nor i32");
            match variable.space {
                AddressSpace::Uniform => {
                    let declared = module.types.get_span(variable.ty);
                    let declared = if declared.is_defined() { declared } else { span };
                    let members = match &module.types[variable.ty].inner {
                        TypeInner::Struct { members, .. } => {
                            let member = |member: &naga::StructMember| {
                                let is_one =
                                    matches!(module.types[member.ty].inner, TypeInner::Scalar(_));
                                let name = member.name.clone().unwrap_or_default();
                                let stored = stored(module, member.ty).filter(|_| is_one);
                                let stored = stored.ok_or_else(|| Problem {
                                    what: format!("uniform `{name}` is no single number"),
                                    span: declared,
                                    member: Some(name.clone()),
                                })?;
                                Ok((name, member.offset as usize, stored))
                            };
                            members.iter().map(member).collect::<Result<_, Problem>>()?
                        }
                        TypeInner::Scalar(_) => {
                            let stored =
                                stored(module, variable.ty).ok_or_else(|| here(unknown()))?;
                            vec![(name.clone(), 0, stored)]
                        }
                        _ => {
                            return Err(here(format!("uniform `{name}` is no struct of numbers")));
                        }
                    };
                    let size = module.types[variable.ty].inner.size(module.to_ctx()) as usize;
                    interface.uniforms.push(Uniforms {
                        name,
                        slot: binding.binding,
                        size: size.max(4),
                        members,
                        span: declared,
                    });
                }
                AddressSpace::Storage { access } => interface.bindings.push(Bound {
                    slot: binding.binding,
                    stored: stored(module, variable.ty).ok_or_else(|| here(unknown()))?,
                    stride: stride(module, variable.ty).max(1),
                    writable: access.contains(StorageAccess::STORE),
                    name,
                    span,
                }),
                _ => return Err(here(format!("binding `{name}` is neither uniform nor storage"))),
            }
        }
        Ok(interface)
    }

    /// Whether the tensors of a kind are bound as they must be.
    ///
    /// # Errors
    /// The binding that is not.
    pub fn fits(&self, spec: &Spec) -> Result<(), Problem> {
        for bound in &self.bindings {
            let here = |what: String| Problem { what, span: bound.span, member: None };
            let tensor = spec.tensors.iter().find(|tensor| tensor.name == bound.name);
            let Some(tensor) = tensor else {
                let names: Vec<&str> = spec.tensors.iter().map(|t| t.name.as_str()).collect();
                return Err(here(format!(
                    "binding `{}` is none of those of {}: {}",
                    bound.name,
                    spec.name,
                    names.join(", ")
                )));
            };
            if bound.stored == Stored::I32 && tensor.element == Element::Float {
                return Err(here(format!(
                    "`{}` holds i32, expected f32, f16, or u32 with two f16 in each",
                    bound.name
                )));
            }
        }
        for tensor in spec.outputs() {
            match self.find(&tensor.name) {
                Some(bound) if bound.writable => {}
                Some(bound) => {
                    let what = format!(
                        "`{}` is an output, and is not bound as var<storage, read_write>",
                        tensor.name
                    );
                    return Err(Problem { what, span: bound.span, member: None });
                }
                None => {
                    return Err(format!(
                        "there is no binding `{}`, which {} writes",
                        tensor.name, spec.name
                    )
                    .into());
                }
            }
        }
        Ok(())
    }

    /// Whether all members of uniforms are sizes or numbers that are known.
    ///
    /// # Errors
    /// The first that is not.
    pub fn is_fed(&self, known: &[&str]) -> Result<(), Problem> {
        for uniforms in &self.uniforms {
            let all = uniforms.members.iter().map(|(name, ..)| name);
            if let Some(name) = all.filter(|name| !fills(name)).find(|n| !known.contains(&&***n)) {
                let advice = crate::backend::wgpu::advice(name, known);
                let what = format!("uniform `{name}` is no size or number that is known{advice}");
                return Err(Problem { what, span: uniforms.span, member: Some(name.clone()) });
            }
        }
        Ok(())
    }

    pub fn find(&self, name: &str) -> Option<&Bound> {
        self.bindings.iter().find(|bound| bound.name == name)
    }

    /// Whether an output is held in f16.
    pub fn holds_halves(&self, spec: &Spec) -> bool {
        let half = |tensor: &super::spec::Tensor| {
            self.find(&tensor.name).is_some_and(|bound| bound.stored.is_half(tensor.element))
        };
        spec.outputs().any(half)
    }

    /// Whether a tensor's numbers may be held in f16, or computed with in it.
    pub fn rounds(&self) -> bool {
        self.halves || self.rounding > Rounding::None
    }
}

/// Whether a member of a uniform is there for its place alone.
fn fills(name: &str) -> bool {
    name.starts_with('_') || name.contains("pad")
}

impl Uniforms {
    /// The bytes of a uniform buffer, of numbers by name.
    ///
    /// # Errors
    /// A member that nothing gives.
    pub fn packed(&self, numbers: &[(String, f64)]) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.size.next_multiple_of(16)];
        for (name, offset, stored) in &self.members {
            let Some((_, value)) = numbers.iter().find(|(known, _)| known == name) else {
                if fills(name) {
                    continue;
                }
                let known: Vec<&str> = numbers.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!(
                    "uniform `{name}` is none of what is known: {}",
                    known.join(", ")
                ));
            };
            let (bits, width) = match stored {
                Stored::F32 => ((*value as f32).to_bits(), 4),
                Stored::F16 => (u32::from(f16::from_f64(*value).to_bits()), 2),
                Stored::U32 => (*value as u32, 4),
                Stored::I32 => (*value as i32 as u32, 4),
            };
            bytes[*offset..*offset + width].copy_from_slice(&bits.to_le_bytes()[..width]);
        }
        Ok(bytes)
    }
}

/// Numbers as bytes.
pub(super) fn encoded(values: &[f64], stored: Stored, element: Element) -> Vec<u8> {
    let half = |value: f64| f16::from_f64(value).to_bits().to_le_bytes();
    let mut bytes: Vec<u8> = match (stored, element) {
        (Stored::F32, _) => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
        (Stored::F16, _) | (Stored::U32, Element::Float) => {
            values.iter().flat_map(|&value| half(value)).collect()
        }
        (Stored::U32, Element::Index) => {
            values.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect()
        }
        (Stored::I32, _) => values.iter().flat_map(|&value| (value as i32).to_le_bytes()).collect(),
    };
    bytes.resize(stored.bytes(values.len(), element), 0);
    bytes
}

/// Bytes as numbers.
pub(super) fn decoded(bytes: &[u8], stored: Stored, element: Element, count: usize) -> Vec<f64> {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
    let mut values: Vec<f64> = match (stored, element) {
        (Stored::F32, _) => {
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_bits(word(b)))).collect()
        }
        (Stored::F16, _) | (Stored::U32, Element::Float) => {
            bytes.chunks_exact(2).map(half).collect()
        }
        (Stored::U32, Element::Index) => {
            bytes.chunks_exact(4).map(|b| f64::from(word(b))).collect()
        }
        (Stored::I32, _) => bytes.chunks_exact(4).map(|b| f64::from(word(b) as i32)).collect(),
    };
    values.truncate(count);
    values
}

/// A number as a binding holds it.
pub(super) fn rounded(value: f64, half: bool) -> f64 {
    if half { f16::from_f64(value).to_f64() } else { f64::from(value as f32) }
}

/// Values for the `override`s of a module: those of the sizes that have their names.
pub(super) fn overrides(numbers: &[(String, f64)]) -> HashMap<String, f64> {
    numbers.iter().cloned().collect()
}
