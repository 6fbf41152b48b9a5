//! Where a kernel rounds to f16: nowhere, in what it stores, in what it keeps, or in what it
//! computes.

use std::collections::HashSet;

use naga::proc::TypeResolution;
use naga::valid::{Capabilities, FunctionInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle,
    MathFunction, Module, ScalarKind, Statement, StorageAccess, TypeInner,
};

/// The most that happens in f16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rounding {
    /// Nothing.
    #[default]
    None,
    /// Results are rounded once, as they are stored.
    Stored,
    /// What is computed in f32 is kept in f16 on the way.
    Held,
    /// f16 is added up, multiplied, or looked up in functions.
    Computed,
}

impl Rounding {
    /// Of a module. One that is not valid counts as the worst; others say what is wrong with it.
    pub fn of(module: &Module) -> Rounding {
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let Ok(info) = validator.validate(module) else { return Rounding::Computed };
        let entries = module.entry_points.iter().enumerate();
        let entries = entries.map(|(index, entry)| (&entry.function, info.get_entry_point(index)));
        let others = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
        let each = entries.chain(others);
        each.map(|(function, info)| of_function(module, function, info)).max().unwrap_or_default()
    }
}

/// Whether f16 is in a type.
fn is_half(module: &Module, inner: &TypeInner) -> bool {
    match *inner {
        TypeInner::Pointer { base, .. } => is_half(module, &module.types[base].inner),
        TypeInner::ValuePointer { scalar, .. } => scalar == naga::Scalar::F16,
        TypeInner::Array { base, .. } => is_half(module, &module.types[base].inner),
        _ => inner.scalar() == Some(naga::Scalar::F16),
    }
}

/// The global variable that a pointer leads to.
fn root<'m>(
    module: &'m Module,
    function: &Function,
    pointer: Handle<Expression>,
) -> Option<&'m GlobalVariable> {
    match function.expressions[pointer] {
        Expression::GlobalVariable(variable) => Some(&module.global_variables[variable]),
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
            root(module, function, base)
        }
        _ => None,
    }
}

fn of_function(module: &Module, function: &Function, info: &FunctionInfo) -> Rounding {
    let half = |handle: Handle<Expression>| match &info[handle].ty {
        TypeResolution::Handle(ty) => is_half(module, &module.types[*ty].inner),
        TypeResolution::Value(inner) => is_half(module, inner),
    };
    let mut most = Rounding::None;
    // What is made f16 of something else, until it is seen to go into a buffer.
    let mut made = HashSet::new();
    for (handle, expression) in function.expressions.iter() {
        match *expression {
            Expression::Binary { op, left, .. } if half(left) && !compares(op) => {
                most = Rounding::Computed;
            }
            Expression::CooperativeMultiplyAdd { c, .. } if half(c) => most = Rounding::Computed,
            Expression::Math { fun, arg, .. } => match fun {
                MathFunction::Pack2x16float | MathFunction::QuantizeToF16 => {
                    made.insert(handle);
                }
                MathFunction::Abs
                | MathFunction::Min
                | MathFunction::Max
                | MathFunction::Clamp
                | MathFunction::Sign
                | MathFunction::Floor
                | MathFunction::Ceil
                | MathFunction::Trunc
                | MathFunction::Round => {}
                _ if half(arg) => most = Rounding::Computed,
                _ => {}
            },
            Expression::As { expr, kind: ScalarKind::Float, convert: Some(2) } if !half(expr) => {
                made.insert(handle);
            }
            Expression::SubgroupOperationResult { .. } if half(handle) => {
                most = Rounding::Computed;
            }
            // What is read from where results go may be rounded any number of times.
            Expression::Load { pointer } if half(pointer) => {
                let writable = |variable: &GlobalVariable| {
                    matches!(variable.space, AddressSpace::Storage { access }
                        if access.contains(StorageAccess::STORE))
                };
                if root(module, function, pointer).is_some_and(writable) {
                    most = Rounding::Computed;
                }
            }
            _ => {}
        }
    }
    if made.is_empty() {
        return most;
    }
    stores(&function.body, &mut |pointer, value| {
        let stored = root(module, function, pointer)
            .is_some_and(|variable| matches!(variable.space, AddressSpace::Storage { .. }));
        if stored {
            strike(function, value, &mut made);
        }
    });
    most.max(if made.is_empty() { Rounding::Stored } else { Rounding::Held })
}

fn compares(op: BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual
    )
}

/// Calls `see` for all stores of a block.
fn stores(block: &Block, see: &mut dyn FnMut(Handle<Expression>, Handle<Expression>)) {
    for statement in block {
        match statement {
            Statement::Store { pointer, value } => see(*pointer, *value),
            Statement::Block(block) => stores(block, see),
            Statement::If { accept, reject, .. } => {
                stores(accept, see);
                stores(reject, see);
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| stores(&case.body, see))
            }
            Statement::Loop { body, continuing, .. } => {
                stores(body, see);
                stores(continuing, see);
            }
            _ => {}
        }
    }
}

/// Takes what a stored value is made of out of a set.
fn strike(function: &Function, value: Handle<Expression>, made: &mut HashSet<Handle<Expression>>) {
    if made.remove(&value) {
        return;
    }
    match &function.expressions[value] {
        Expression::Compose { components, .. } => {
            components.iter().for_each(|part| strike(function, *part, made));
        }
        Expression::Splat { value, .. } => strike(function, *value, made),
        Expression::Swizzle { vector, .. } => strike(function, *vector, made),
        Expression::Select { accept, reject, .. } => {
            strike(function, *accept, made);
            strike(function, *reject, made);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Rounding {
        let text = format!(
            "enable f16;
            @group(0) @binding(0) var<storage, read> x: array<f32>;
            @group(0) @binding(1) var<storage, read_write> y: array<f16>;
            @group(0) @binding(2) var<storage, read_write> z: array<u32>;
            var<workgroup> kept: array<f16, 8>;
            @compute @workgroup_size(1) fn main() {{ {body} }}"
        );
        match naga::front::wgsl::parse_str(&text) {
            Ok(module) => Rounding::of(&module),
            Err(error) => panic!("{}", error.emit_to_string(&text)),
        }
    }

    #[test]
    fn where_it_is_rounded() {
        assert_eq!(of("z[0] = u32(x[0]);"), Rounding::None);
        assert_eq!(of("y[0] = f16(x[0] * 2.0);"), Rounding::Stored);
        assert_eq!(of("z[0] = pack2x16float(vec2(x[0], x[1]));"), Rounding::Stored);
        assert_eq!(of("if x[0] > 1.0 { y[0] = max(0.0h, 1.0h); }"), Rounding::None);
        assert_eq!(of("kept[1] = f16(x[0]); y[0] = kept[1];"), Rounding::Held);
        assert_eq!(of("let h = f16(x[0]); y[0] = f16(f32(h) * 3.0);"), Rounding::Held);
        assert_eq!(of("let h: f16 = exp(f16(x[0])); z[0] = u32(f32(h));"), Rounding::Computed);
        assert_eq!(of("y[0] = f16(x[0]) + f16(x[1]);"), Rounding::Computed);
        assert_eq!(of("y[0] = f16(f32(y[0]) + x[1]);"), Rounding::Computed);
    }
}
