//! Atomic operations, one invocation after the other.

use std::rc::Rc;

use naga::{AtomicFunction, BinaryOperator, Expression, Handle, Span};

use super::Refusal;
use super::machine::Machine;
use super::math::binary;
use super::types::Scalar;
use super::values::{Data, NOWHERE, Place, Value};

/// What an atomic function leaves in memory.
fn applied(fun: &AtomicFunction, scalar: Scalar, old: u32, value: u32) -> u32 {
    let least = binary(BinaryOperator::Less, scalar, value, old) != 0;
    match fun {
        AtomicFunction::Add => binary(BinaryOperator::Add, scalar, old, value),
        AtomicFunction::Subtract => binary(BinaryOperator::Subtract, scalar, old, value),
        AtomicFunction::And => old & value,
        AtomicFunction::ExclusiveOr => old ^ value,
        AtomicFunction::InclusiveOr => old | value,
        AtomicFunction::Min => {
            if least {
                value
            } else {
                old
            }
        }
        AtomicFunction::Max => {
            if least {
                old
            } else {
                value
            }
        }
        AtomicFunction::Exchange { .. } => value,
    }
}

impl Machine<'_, '_> {
    pub fn atomic(
        &mut self,
        pointer: Handle<Expression>,
        fun: &AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
        active: &[u32],
        span: Span,
    ) -> Result<(), Refusal> {
        let lanes = self.lanes;
        let scalar = self.pointee_flat(pointer)?.scalar();
        let pointer = self.pointer(pointer, active)?;
        let value = self.data(value, active)?;
        let expected = match fun {
            AtomicFunction::Exchange { compare: Some(compare) } => {
                Some(self.data(*compare, active)?)
            }
            _ => None,
        };
        let Place::Global(global) = pointer.place else {
            return Err(Refusal("an atomic of a function".into()));
        };
        let parts = if expected.is_some() { 2 } else { 1 };
        let mut olds = Data { bits: vec![0; lanes * parts], uniform: false };
        for &lane in active {
            let at = lane as usize;
            let offset = pointer.offsets.at(0, at, lanes);
            if offset == NOWHERE {
                self.see_index("an atomic", pointer.beyond, span, true);
                continue;
            }
            let old = self.load(global, offset, scalar, lane, true, span)?;
            olds.bits[at] = old;
            let exchanged = expected.as_ref().is_none_or(|data| data.at(0, at, lanes) == old);
            if parts == 2 {
                olds.bits[lanes + at] = u32::from(exchanged);
            }
            if exchanged {
                let new = applied(fun, scalar, old, value.at(0, at, lanes));
                self.store(global, offset, scalar, new, lane, true, span)?;
            }
        }
        match result {
            Some(result) => self.keep(result, Value::Data(Rc::new(olds))),
            None => Ok(()),
        }
    }
}
