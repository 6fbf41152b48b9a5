//! What invocations of a subgroup tell each other. Subgroups are neighbours by index, as many as
//! the options say.

use std::rc::Rc;

use naga::{
    BinaryOperator, Binding, Block, BuiltIn, CollectiveOperation, Direction, Expression,
    GatherMode, Handle, Module, Span, Statement, SubgroupOperation,
};

use super::Refusal;
use super::machine::Machine;
use super::math::{binary, to_f32};
use super::types::Scalar;
use super::values::{Data, Value};
use crate::workbench::fault::FaultKind;

/// Whether a module has operations of subgroups, or asks for their size.
pub(super) fn are_used(module: &Module) -> bool {
    let built_in = |binding: &Option<Binding>| {
        matches!(
            binding,
            Some(Binding::BuiltIn(
                BuiltIn::SubgroupSize
                    | BuiltIn::SubgroupInvocationId
                    | BuiltIn::SubgroupId
                    | BuiltIn::NumSubgroups
            ))
        )
    };
    let entries = module.entry_points.iter().map(|entry| &entry.function);
    let functions = || entries.clone().chain(module.functions.iter().map(|(_, own)| own));
    let members = module.types.iter().any(|(_, ty)| match &ty.inner {
        naga::TypeInner::Struct { members, .. } => members.iter().any(|m| built_in(&m.binding)),
        _ => false,
    });
    members
        || functions().any(|function| {
            function.arguments.iter().any(|argument| built_in(&argument.binding))
                || in_block(&function.body)
        })
}

fn in_block(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::SubgroupBallot { .. }
        | Statement::SubgroupGather { .. }
        | Statement::SubgroupCollectiveOperation { .. } => true,
        Statement::Block(block) => in_block(block),
        Statement::If { accept, reject, .. } => in_block(accept) || in_block(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| in_block(&case.body)),
        Statement::Loop { body, continuing, .. } => in_block(body) || in_block(continuing),
        _ => false,
    })
}

/// What nothing adds to.
fn neutral(op: SubgroupOperation, scalar: Scalar) -> u32 {
    use SubgroupOperation as Op;
    match (op, scalar) {
        (Op::All | Op::And, _) => u32::MAX,
        (Op::Mul, Scalar::F16) => 0x3c00,
        (Op::Mul, Scalar::F32) => 1f32.to_bits(),
        (Op::Mul, _) => 1,
        (Op::Min, Scalar::F16) => 0x7c00,
        (Op::Min, Scalar::F32) => f32::INFINITY.to_bits(),
        (Op::Min, Scalar::I32) => i32::MAX as u32,
        (Op::Min, _) => u32::MAX,
        (Op::Max, Scalar::F16) => 0xfc00,
        (Op::Max, Scalar::F32) => f32::NEG_INFINITY.to_bits(),
        (Op::Max, Scalar::I32) => i32::MIN as u32,
        _ => 0,
    }
}

fn combined(op: SubgroupOperation, scalar: Scalar, a: u32, b: u32) -> u32 {
    use SubgroupOperation as Op;
    let less = || match scalar.is_float() {
        true => to_f32(scalar, a) < to_f32(scalar, b),
        false => binary(BinaryOperator::Less, scalar, a, b) != 0,
    };
    match op {
        Op::Add => binary(BinaryOperator::Add, scalar, a, b),
        Op::Mul => binary(BinaryOperator::Multiply, scalar, a, b),
        Op::Min => {
            if less() {
                a
            } else {
                b
            }
        }
        Op::Max => {
            if less() {
                b
            } else {
                a
            }
        }
        Op::All => u32::from(a != 0 && b != 0),
        Op::Any => u32::from(a != 0 || b != 0),
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
    }
}

impl Machine<'_, '_> {
    fn subgroup(&self) -> u32 {
        self.options.subgroup.max(1)
    }

    pub fn ballot(
        &mut self,
        result: Handle<Expression>,
        predicate: Option<Handle<Expression>>,
        active: &[u32],
    ) -> Result<(), Refusal> {
        let (lanes, size) = (self.lanes, self.subgroup());
        let predicate = predicate.map(|handle| self.data(handle, active)).transpose()?;
        let mut out = Data { bits: vec![0; 4 * lanes], uniform: false };
        for &lane in active {
            let first = lane / size * size;
            for &other in active.iter().filter(|&&other| other / size * size == first) {
                let yes = predicate.as_ref().is_none_or(|p| p.at(0, other as usize, lanes) != 0);
                let bit = other - first;
                if yes && bit < 128 {
                    out.bits[(bit / 32) as usize * lanes + lane as usize] |= 1 << (bit % 32);
                }
            }
        }
        self.keep(result, Value::Data(Rc::new(out)))
    }

    pub fn gather(
        &mut self,
        mode: &GatherMode,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        active: &[u32],
        span: Span,
    ) -> Result<(), Refusal> {
        let (lanes, size) = (self.lanes, self.subgroup());
        let data = self.data(argument, active)?;
        let index = match *mode {
            GatherMode::Broadcast(index)
            | GatherMode::Shuffle(index)
            | GatherMode::ShuffleDown(index)
            | GatherMode::ShuffleUp(index)
            | GatherMode::ShuffleXor(index)
            | GatherMode::QuadBroadcast(index) => Some(self.data(index, active)?),
            GatherMode::BroadcastFirst | GatherMode::QuadSwap(_) => None,
        };
        let components = data.components(lanes);
        let mut out = Data { bits: vec![0; components * lanes], uniform: false };
        let mut is_active = vec![false; lanes];
        active.iter().for_each(|&lane| is_active[lane as usize] = true);
        for &lane in active {
            let (first, own) = (lane / size * size, lane % size);
            let given = index.as_ref().map_or(0, |data| data.at(0, lane as usize, lanes));
            let wanted = match mode {
                GatherMode::BroadcastFirst => {
                    let mut same = active.iter().filter(|&&other| other / size * size == first);
                    same.next().map_or(Some(own), |&other| Some(other - first))
                }
                GatherMode::Broadcast(_) | GatherMode::Shuffle(_) => Some(given),
                GatherMode::ShuffleDown(_) => own.checked_add(given),
                GatherMode::ShuffleUp(_) => own.checked_sub(given),
                GatherMode::ShuffleXor(_) => Some(own ^ given),
                GatherMode::QuadBroadcast(_) => Some(own / 4 * 4 + given),
                GatherMode::QuadSwap(direction) => Some(match direction {
                    Direction::X => own ^ 1,
                    Direction::Y => own ^ 2,
                    Direction::Diagonal => own ^ 3,
                }),
            };
            let source = wanted.filter(|&wanted| wanted < size).map(|wanted| first + wanted);
            let source = source.filter(|&s| is_active.get(s as usize) == Some(&true));
            let Some(source) = source else {
                // Shifts leave what would come from beyond to chance, and kernels that know it
                // don't use it; an index that is asked for is another thing.
                if matches!(mode, GatherMode::Broadcast(_) | GatherMode::Shuffle(_)) {
                    self.see(FaultKind::SubgroupSize, span, || {
                        format!(
                            "lane {given} is asked for, which is not at work in a subgroup of \
                             {size}"
                        )
                    });
                }
                continue;
            };
            for component in 0..components {
                out.bits[component * lanes + lane as usize] =
                    data.at(component, source as usize, lanes);
            }
        }
        self.keep(result, Value::Data(Rc::new(out)))
    }

    pub fn collective(
        &mut self,
        op: SubgroupOperation,
        how: CollectiveOperation,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        active: &[u32],
    ) -> Result<(), Refusal> {
        let (lanes, size) = (self.lanes, self.subgroup());
        let scalar = self.scalar_of(argument)?;
        let data = self.data(argument, active)?;
        let components = data.components(lanes);
        let mut out = Data { bits: vec![0; components * lanes], uniform: false };
        for component in 0..components {
            for group in active.chunk_by(|a, b| a / size == b / size) {
                let mut sum = neutral(op, scalar);
                let mut before = Vec::with_capacity(group.len());
                for &lane in group {
                    let exclusive = sum;
                    sum = combined(op, scalar, sum, data.at(component, lane as usize, lanes));
                    before.push((exclusive, sum));
                }
                for (&lane, (exclusive, inclusive)) in group.iter().zip(before) {
                    out.bits[component * lanes + lane as usize] = match how {
                        CollectiveOperation::Reduce => sum,
                        CollectiveOperation::InclusiveScan => inclusive,
                        CollectiveOperation::ExclusiveScan => exclusive,
                    };
                }
            }
        }
        self.keep(result, Value::Data(Rc::new(out)))
    }
}
