//! Statements, for those invocations that reach them.

use std::rc::Rc;

use naga::{Barrier, Block, Span, Statement, SwitchValue};

use super::machine::Machine;
use super::values::{Data, Value};
use super::{End, Refusal};
use crate::workbench::fault::FaultKind;

/// Both in order.
fn merged(mut a: Vec<u32>, b: Vec<u32>) -> Vec<u32> {
    if b.is_empty() {
        return a;
    }
    a.extend(b);
    a.sort_unstable();
    a
}

impl<'m> Machine<'m, '_> {
    /// Executes a block for the invocations `active`; those that come out at its end.
    pub fn block(&mut self, block: &'m Block, mut active: Vec<u32>) -> Result<Vec<u32>, Refusal> {
        for (statement, span) in block.span_iter() {
            if active.is_empty() {
                break;
            }
            if self.is_tired(active.len()) {
                return Ok(Vec::new());
            }
            active = self.statement(statement, *span, active)?;
        }
        Ok(active)
    }

    fn statement(
        &mut self,
        statement: &'m Statement,
        span: Span,
        active: Vec<u32>,
    ) -> Result<Vec<u32>, Refusal> {
        match *statement {
            Statement::Emit(ref range) => {
                for handle in range.clone() {
                    let value = self.evaluate(handle, &active)?;
                    self.keep(handle, value)?;
                }
            }
            Statement::Block(ref block) => return self.block(block, active),
            Statement::If { condition, ref accept, ref reject } => {
                let condition = self.data(condition, &active)?;
                let lanes = self.lanes;
                let (yes, no): (Vec<u32>, Vec<u32>) = active
                    .into_iter()
                    .partition(|&lane| condition.at(0, lane as usize, lanes) != 0);
                let yes = if yes.is_empty() { yes } else { self.block(accept, yes)? };
                let no = if no.is_empty() { no } else { self.block(reject, no)? };
                return Ok(merged(yes, no));
            }
            Statement::Switch { selector, ref cases } => {
                return self.switch(selector, cases, active);
            }
            Statement::Loop { ref body, ref continuing, break_if } => {
                return self.rounds(body, continuing, break_if, active, span);
            }
            Statement::Break => {
                let frame = self.frame()?;
                if let Some(breaks) = frame.breaks.last_mut() {
                    breaks.extend(active);
                }
                return Ok(Vec::new());
            }
            Statement::Continue => {
                let frame = self.frame()?;
                if let Some(continues) = frame.continues.last_mut() {
                    continues.extend(active);
                }
                return Ok(Vec::new());
            }
            Statement::Return { value } => {
                if let Some(value) = value {
                    let data = self.data(value, &active)?;
                    self.keep_result(&data, &active)?;
                }
                return Ok(Vec::new());
            }
            Statement::ControlBarrier(barrier) => self.barrier(barrier, &active, span),
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let flat = self.pointee_flat(pointer)?;
                let (pointer, value) =
                    (self.pointer(pointer, &active)?, self.data(value, &active)?);
                self.write(&pointer, &flat, &value, &active, span)?;
            }
            Statement::Call { function, ref arguments, result } => {
                let arguments = arguments
                    .iter()
                    .map(|&argument| self.value(argument, &active))
                    .collect::<Result<Vec<_>, _>>()?;
                let (module, info) = (self.module, self.info);
                let called = self.call(
                    &module.functions[function],
                    &info[function],
                    arguments,
                    active.clone(),
                )?;
                if let (Some(result), Some(data)) = (result, called) {
                    self.keep(result, Value::Data(Rc::new(data)))?;
                }
            }
            Statement::Atomic { pointer, ref fun, value, result } => {
                self.atomic(pointer, fun, value, result, &active, span)?;
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP, &active, span);
                let flat = self.pointee_flat(pointer)?;
                let pointer = self.pointer(pointer, &active)?;
                let first = active[..1].to_vec();
                let data = self.read(&pointer, &flat, &first, span)?;
                let lane = first[0] as usize;
                let bits = (0..flat.len() as usize).map(|c| data.at(c, lane, self.lanes)).collect();
                self.keep(result, Value::Data(Rc::new(Data::uniform(bits))))?;
                self.barrier(Barrier::WORK_GROUP, &active, span);
            }
            Statement::SubgroupBallot { result, predicate } => {
                self.ballot(result, predicate, &active)?;
            }
            Statement::SubgroupGather { mode, argument, result } => {
                self.gather(&mode, argument, result, &active, span)?;
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                self.collective(op, collective_op, argument, result, &active)?;
            }
            Statement::CooperativeStore { target, ref data } => {
                self.store_matrix(target, data, &active, span)?;
            }
            ref other => {
                return Err(Refusal(format!("{} is not interpreted", name_of(other))));
            }
        }
        Ok(active)
    }

    /// All invocations of the workgroup meet, or should.
    fn barrier(&mut self, barrier: Barrier, active: &[u32], span: Span) {
        let (here, all) = (active.len(), self.lanes);
        if here != all {
            self.see(FaultKind::DivergentBarrier, span, || {
                format!("{here} of {all} invocations reach it")
            });
        }
        if barrier.contains(Barrier::WORK_GROUP) {
            self.epochs[0] += 1;
        }
        if barrier.contains(Barrier::STORAGE) {
            self.epochs[1] += 1;
        }
        if barrier.contains(Barrier::SUB_GROUP) && self.lanes <= self.options.subgroup as usize {
            self.epochs = self.epochs.map(|epoch| epoch + 1);
        }
    }

    fn switch(
        &mut self,
        selector: naga::Handle<naga::Expression>,
        cases: &'m [naga::SwitchCase],
        active: Vec<u32>,
    ) -> Result<Vec<u32>, Refusal> {
        let selector = self.data(selector, &active)?;
        let lanes = self.lanes;
        let matches = |bits: u32, value: &SwitchValue| match *value {
            SwitchValue::I32(value) => bits == value as u32,
            SwitchValue::U32(value) => bits == value,
            SwitchValue::Default => false,
        };
        let target = |lane: u32| {
            let bits = selector.at(0, lane as usize, lanes);
            let default = || cases.iter().position(|case| case.value == SwitchValue::Default);
            cases.iter().position(|case| matches(bits, &case.value)).or_else(default)
        };
        self.frame()?.breaks.push(Vec::new());
        let mut out: Vec<u32> =
            active.iter().copied().filter(|&lane| target(lane).is_none()).collect();
        let mut falling = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let here = active.iter().copied().filter(|&lane| target(lane) == Some(number));
            let entering = merged(std::mem::take(&mut falling), here.collect());
            if entering.is_empty() {
                continue;
            }
            let left = self.block(&case.body, entering)?;
            match case.fall_through {
                true => falling = left,
                false => out.extend(left),
            }
        }
        let broken = self.frame()?.breaks.pop().unwrap_or_default();
        Ok(merged(out, merged(falling, broken)))
    }

    fn rounds(
        &mut self,
        body: &'m Block,
        continuing: &'m Block,
        break_if: Option<naga::Handle<naga::Expression>>,
        mut active: Vec<u32>,
        span: Span,
    ) -> Result<Vec<u32>, Refusal> {
        let mut out = Vec::new();
        let frame = self.frame()?;
        frame.breaks.push(Vec::new());
        frame.continues.push(Vec::new());
        let mut rounds = 0;
        while !active.is_empty() && self.end == End::Whole {
            rounds += 1;
            if rounds > self.options.rounds {
                let rounds = self.options.rounds;
                self.see(FaultKind::Endless, span, || {
                    format!("still running after {rounds} rounds")
                });
                self.end = End::Endless;
                break;
            }
            let ended = self.block(body, active)?;
            let frame = self.frame()?;
            let continued = frame.continues.last_mut().map(std::mem::take).unwrap_or_default();
            let mut next = merged(ended, continued);
            if next.is_empty() {
                break;
            }
            next = self.block(continuing, next)?;
            if let (Some(break_if), false) = (break_if, next.is_empty()) {
                let condition = self.data(break_if, &next)?;
                let lanes = self.lanes;
                let (leave, stay): (Vec<u32>, Vec<u32>) =
                    next.into_iter().partition(|&lane| condition.at(0, lane as usize, lanes) != 0);
                out.extend(leave);
                next = stay;
            }
            active = next;
        }
        let frame = self.frame()?;
        frame.continues.pop();
        let broken = frame.breaks.pop().unwrap_or_default();
        Ok(merged(out, broken))
    }
}

fn name_of(statement: &Statement) -> &'static str {
    match statement {
        Statement::ImageStore { .. } | Statement::ImageAtomic { .. } => "writing to a texture",
        Statement::Kill => "discarding",
        _ => "a statement of it",
    }
}
