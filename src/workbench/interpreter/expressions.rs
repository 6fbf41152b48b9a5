//! Expressions, for all invocations at once; memory is read for those alone that are active.

use std::rc::Rc;

use naga::{AddressSpace, Expression, Handle, Literal, ScalarKind, Span, TypeInner};

use super::machine::Machine;
use super::math;
use super::types::{Flat, Scalar};
use super::values::{Data, NOWHERE, Place, Pointer, Value};
use super::{Refusal, called};
use crate::workbench::fault::FaultKind;

fn bits_of(literal: &Literal) -> Result<u32, Refusal> {
    Ok(match *literal {
        Literal::F32(value) => value.to_bits(),
        Literal::F16(value) => u32::from(value.to_bits()),
        Literal::U32(value) => value,
        Literal::I32(value) => value as u32,
        Literal::Bool(value) => u32::from(value),
        ref other => return Err(Refusal(format!("{} is not known", called(other)))),
    })
}

impl<'m> Machine<'m, '_> {
    pub fn keep(&mut self, handle: Handle<Expression>, value: Value) -> Result<(), Refusal> {
        self.frame()?.values[handle.index()] = Some(value);
        Ok(())
    }

    /// The value of an expression: as it was emitted, or what needs no emitting.
    pub fn value(&mut self, handle: Handle<Expression>, active: &[u32]) -> Result<Value, Refusal> {
        if let Some(value) = &self.frame()?.values[handle.index()] {
            return Ok(value.clone());
        }
        let value = self.evaluate(handle, active)?;
        self.keep(handle, value.clone())?;
        Ok(value)
    }

    pub fn data(
        &mut self,
        handle: Handle<Expression>,
        active: &[u32],
    ) -> Result<Rc<Data>, Refusal> {
        match self.value(handle, active)? {
            Value::Data(data) => Ok(data),
            Value::Pointer(_) => Err(Refusal("a pointer is used as a number".into())),
        }
    }

    pub fn pointer(
        &mut self,
        handle: Handle<Expression>,
        active: &[u32],
    ) -> Result<Rc<Pointer>, Refusal> {
        match self.value(handle, active)? {
            Value::Pointer(pointer) => Ok(pointer),
            Value::Data(_) => Err(Refusal("a number is used as a pointer".into())),
        }
    }

    /// The scalars of what a pointer points to.
    pub fn pointee_flat(&self, pointer: Handle<Expression>) -> Result<Rc<Flat>, Refusal> {
        self.types.flat_of(&self.types.pointee(self.type_of(pointer)?)?)
    }

    pub fn evaluate(
        &mut self,
        handle: Handle<Expression>,
        active: &[u32],
    ) -> Result<Value, Refusal> {
        let function = self.frame()?.function;
        let span = function.expressions.get_span(handle);
        let lanes = self.lanes;
        let data = match function.expressions[handle] {
            Expression::Literal(ref literal) => Data::uniform(vec![bits_of(literal)?]),
            Expression::Constant(constant) => {
                self.constant(self.module.constants[constant].init)?
            }
            Expression::ZeroValue(ty) => {
                Data::uniform(vec![0; self.types.flat(ty)?.len() as usize])
            }
            Expression::Compose { ref components, .. } => {
                let parts = components
                    .iter()
                    .map(|&part| self.data(part, active))
                    .collect::<Result<Vec<_>, _>>()?;
                Data::joined(&parts, lanes)
            }
            Expression::Access { base, index } => {
                return self.access(base, index, active, span);
            }
            Expression::AccessIndex { base, index } => {
                return self.access_index(base, index, active);
            }
            Expression::Splat { size, value } => {
                let value = self.data(value, active)?;
                Data::joined(&vec![value; size as usize], lanes)
            }
            Expression::Swizzle { size, vector, pattern } => {
                let vector = self.data(vector, active)?;
                let part = |&component: &naga::SwizzleComponent| {
                    Rc::new(vector.slice(component as usize, 1, lanes))
                };
                let parts: Vec<_> = pattern[..size as usize].iter().map(part).collect();
                Data::joined(&parts, lanes)
            }
            Expression::FunctionArgument(index) => {
                return Ok(self.frame()?.arguments[index as usize].clone());
            }
            Expression::GlobalVariable(variable) => {
                let space = self.module.global_variables[variable].space;
                return Ok(at_start(match space {
                    AddressSpace::Private => Place::Private(variable.index()),
                    _ => Place::Global(variable.index()),
                }));
            }
            Expression::LocalVariable(variable) => {
                let frame = self.frames.len() - 1;
                return Ok(at_start(Place::Local { frame, variable: variable.index() }));
            }
            Expression::Load { pointer } => {
                let flat = self.pointee_flat(pointer)?;
                let pointer = self.pointer(pointer, active)?;
                self.read(&pointer, &flat, active, span)?
            }
            Expression::Unary { op, expr } => {
                let scalar = self.scalar_of(expr)?;
                let data = self.data(expr, active)?;
                data.map(|bits| math::unary(op, scalar, bits))
            }
            Expression::Binary { op, left, right } => {
                let scalar = self.scalar_of(left)?;
                let types = [left, right].map(|side| self.type_of(side).cloned());
                let [of_left, of_right] = types;
                let (of_left, of_right) = (of_left?, of_right?);
                let (a, b) = (self.data(left, active)?, self.data(right, active)?);
                let out = match math::product_of(op, &of_left, &of_right) {
                    Some(product) => math::multiplied(&a, &b, product, scalar, lanes),
                    None => a.zip(&b, lanes, |a, b| math::binary(op, scalar, a, b)),
                };
                if scalar == Scalar::F16 {
                    self.overflow(&[&a, &b], &out, scalar, active, span);
                }
                out
            }
            Expression::Select { condition, accept, reject } => {
                let condition = self.data(condition, active)?;
                let (accept, reject) = (self.data(accept, active)?, self.data(reject, active)?);
                let components = accept.components(lanes);
                let one = condition.components(lanes) == 1;
                Data::gather(&[&condition, &accept, &reject], lanes, components, |of, out| {
                    for (component, out) in out.iter_mut().enumerate() {
                        let chosen = of(0, if one { 0 } else { component }) != 0;
                        *out = of(if chosen { 1 } else { 2 }, component);
                    }
                })
            }
            Expression::Relational { fun, argument } => {
                let scalar = self.scalar_of(argument)?;
                let data = self.data(argument, active)?;
                math::relational(fun, scalar, &data, lanes)?
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let scalar = self.scalar_of(arg)?;
                let mut all = vec![self.data(arg, active)?];
                for other in [arg1, arg2, arg3].into_iter().flatten() {
                    all.push(self.data(other, active)?);
                }
                let of: Vec<&Data> = all.iter().map(|data| &**data).collect();
                let out = math::function(fun, scalar, &of, lanes)?;
                if scalar == Scalar::F16 || math::makes_halves(fun) {
                    let made = if math::makes_halves(fun) { None } else { Some(scalar) };
                    match made {
                        Some(scalar) => self.overflow(&of, &out, scalar, active, span),
                        None => self.packing(&of, active, span),
                    }
                }
                out
            }
            Expression::As { expr, kind, convert } => {
                let from = self.scalar_of(expr)?;
                let data = self.data(expr, active)?;
                match convert {
                    None => (*data).clone(),
                    Some(width) => {
                        let to = Scalar::of(naga::Scalar { kind, width })?;
                        let out = data.map(|bits| math::converted(from, to, bits));
                        if to == Scalar::F16 && from == Scalar::F32 {
                            self.packing(&[&data], active, span);
                        }
                        debug_assert!(kind != ScalarKind::AbstractFloat);
                        out
                    }
                }
            }
            Expression::ArrayLength(array) => {
                let inner = self.types.pointee(self.type_of(array)?)?;
                let pointer = self.pointer(array, active)?;
                let step = self.types.step(&inner)?;
                let bytes = step.map_or(4, |step| step.bytes);
                Data::uniform(vec![self.count(&pointer, bytes)?])
            }
            Expression::CooperativeLoad { ref data, .. } => {
                return self.load_matrix(handle, data, active, span);
            }
            Expression::CooperativeMultiplyAdd { a, b, c } => {
                return self.multiply_matrices([a, b, c], active, span);
            }
            ref other => return Err(Refusal(format!("{} is not known to it", called(other)))),
        };
        Ok(Value::Data(Rc::new(data)))
    }

    /// An expression among the module's constants.
    pub fn constant(&self, handle: Handle<Expression>) -> Result<Data, Refusal> {
        let all = &self.module.global_expressions;
        Ok(match all[handle] {
            Expression::Literal(ref literal) => Data::uniform(vec![bits_of(literal)?]),
            Expression::Constant(constant) => {
                self.constant(self.module.constants[constant].init)?
            }
            Expression::ZeroValue(ty) => {
                Data::uniform(vec![0; self.types.flat(ty)?.len() as usize])
            }
            Expression::Compose { ref components, .. } => {
                let parts = components.iter().map(|&part| Ok(Rc::new(self.constant(part)?)));
                Data::joined(&parts.collect::<Result<Vec<_>, Refusal>>()?, 1)
            }
            Expression::Splat { size, value } => {
                let value = Rc::new(self.constant(value)?);
                Data::joined(&vec![value; size as usize], 1)
            }
            ref other => {
                return Err(Refusal(format!("{} is no constant that is known", called(other))));
            }
        })
    }

    /// Elements of a runtime-sized array that begins where `pointer` points.
    fn count(&self, pointer: &Pointer, bytes: u32) -> Result<u32, Refusal> {
        let Place::Global(global) = pointer.place else {
            return Err(Refusal("an array of a function has no length of its own".into()));
        };
        let start = pointer.offsets.bits.first().copied().unwrap_or(0) as usize;
        Ok((self.window(global)?.size.saturating_sub(start) / bytes.max(1) as usize) as u32)
    }

    /// A component at an index that is computed.
    fn access(
        &mut self,
        base: Handle<Expression>,
        index: Handle<Expression>,
        active: &[u32],
        span: Span,
    ) -> Result<Value, Refusal> {
        let lanes = self.lanes;
        let signed = self.scalar_of(index)? == Scalar::I32;
        let of_base = self.type_of(base)?.clone();
        let index = self.data(index, active)?;
        let wide = |bits: u32| if signed { i64::from(bits as i32) } else { i64::from(bits) };
        let is_beyond = |bits: u32, count: u32| wide(bits) < 0 || wide(bits) >= i64::from(count);
        match self.value(base, active)? {
            Value::Pointer(pointer) => {
                let inner = self.types.pointee(&of_base)?;
                let step = self.types.step(&inner)?;
                let step = step.ok_or_else(|| Refusal("a struct has no index".into()))?;
                let count = match step.count {
                    Some(count) => count,
                    None => self.count(&pointer, step.bytes)?,
                };
                let each = match pointer.place {
                    Place::Local { .. } | Place::Private(_) => step.scalars,
                    Place::Global(_) => step.bytes,
                };
                let offsets = pointer.offsets.zip(&index, lanes, |offset, index| {
                    if offset == NOWHERE || is_beyond(index, count) {
                        return NOWHERE;
                    }
                    offset + index * each
                });
                let wrong = |lane: &&u32| is_beyond(index.at(0, **lane as usize, lanes), count);
                let beyond = pointer.beyond.or_else(|| {
                    let lane = active.iter().find(wrong)?;
                    Some((wide(index.at(0, *lane as usize, lanes)), count))
                });
                Ok(Value::Pointer(Rc::new(Pointer { place: pointer.place, offsets, beyond })))
            }
            Value::Data(data) => {
                let step = self.types.step(&of_base)?;
                let step = step.ok_or_else(|| Refusal("a struct has no index".into()))?;
                let count = step.count.unwrap_or(0);
                let wrong = |lane: &&u32| is_beyond(index.at(0, **lane as usize, lanes), count);
                if let Some(&lane) = active.iter().find(wrong) {
                    let index = wide(index.at(0, lane as usize, lanes));
                    self.see_index("a value", Some((index, count)), span, false);
                }
                let scalars = step.scalars as usize;
                let part = Data::gather(&[&index, &data], lanes, scalars, |of, out| {
                    let index = of(0, 0).min(count.saturating_sub(1)) as usize;
                    for (component, out) in out.iter_mut().enumerate() {
                        *out = of(1, index * scalars + component);
                    }
                });
                Ok(Value::Data(Rc::new(part)))
            }
        }
    }

    /// A component at an index that is written out, or a member.
    fn access_index(
        &mut self,
        base: Handle<Expression>,
        index: u32,
        active: &[u32],
    ) -> Result<Value, Refusal> {
        let lanes = self.lanes;
        let of_base = self.type_of(base)?.clone();
        match self.value(base, active)? {
            Value::Pointer(pointer) => {
                let inner = self.types.pointee(&of_base)?;
                let (bytes, scalars, count) = match self.types.step(&inner)? {
                    Some(step) => {
                        let count = match step.count {
                            Some(count) => count,
                            None => self.count(&pointer, step.bytes)?,
                        };
                        (index * step.bytes, index * step.scalars, count)
                    }
                    None => {
                        let (bytes, scalars) = self.types.member(&inner, index)?;
                        (bytes, scalars, u32::MAX)
                    }
                };
                let more = match pointer.place {
                    Place::Local { .. } | Place::Private(_) => scalars,
                    Place::Global(_) => bytes,
                };
                let beyond = index >= count;
                let offsets = pointer.offsets.map(|offset| {
                    if offset == NOWHERE || beyond { NOWHERE } else { offset + more }
                });
                let seen = beyond.then_some((i64::from(index), count));
                let beyond = pointer.beyond.or(seen);
                Ok(Value::Pointer(Rc::new(Pointer { place: pointer.place, offsets, beyond })))
            }
            Value::Data(data) => {
                let (from, count) = match (self.types.step(&of_base)?, &of_base) {
                    (Some(step), _) => (index * step.scalars, step.scalars),
                    (None, TypeInner::Struct { members, .. }) => {
                        let (_, scalars) = self.types.member(&of_base, index)?;
                        (scalars, self.types.flat(members[index as usize].ty)?.len())
                    }
                    (None, other) => {
                        return Err(Refusal(format!("{} has no parts", called(&other))));
                    }
                };
                Ok(Value::Data(Rc::new(data.slice(from as usize, count as usize, lanes))))
            }
        }
    }

    /// As errors call the variable that a pointer points into.
    pub fn name_of(&self, place: Place) -> String {
        match place {
            Place::Global(global) | Place::Private(global) => {
                self.window(global).map(|window| window.name.clone()).unwrap_or_default()
            }
            Place::Local { frame, variable } => {
                let variables = &self.frames[frame].function.local_variables;
                let name = variables.iter().nth(variable).and_then(|(_, own)| own.name.clone());
                name.unwrap_or_else(|| "a variable".into())
            }
        }
    }

    /// What stands where a pointer points, for the invocations `active`.
    pub fn read(
        &mut self,
        pointer: &Pointer,
        flat: &Flat,
        active: &[u32],
        span: Span,
    ) -> Result<Data, Refusal> {
        let (lanes, scalars) = (self.lanes, flat.len() as usize);
        let lost = |lane: &u32| pointer.offsets.at(0, *lane as usize, lanes) == NOWHERE;
        if pointer.beyond.is_some() && active.iter().any(lost) {
            let name = self.name_of(pointer.place);
            self.see_index(&name, pointer.beyond, span, false);
        }
        match pointer.place {
            Place::Local { .. } | Place::Private(_) => {
                let local = match pointer.place {
                    Place::Local { frame, variable } => &self.frames[frame].locals[variable],
                    Place::Private(variable) | Place::Global(variable) => &self.privates[variable],
                };
                if pointer.offsets.uniform {
                    let offset = pointer.offsets.bits[0];
                    if offset == NOWHERE {
                        return Ok(Data::uniform(vec![0; scalars]));
                    }
                    return Ok(local.slice(offset as usize, scalars, lanes));
                }
                Ok(Data::gather(&[&pointer.offsets, local], lanes, scalars, |of, out| {
                    let offset = of(0, 0);
                    for (component, out) in out.iter_mut().enumerate() {
                        let lost = offset == NOWHERE;
                        *out = if lost { 0 } else { of(1, offset as usize + component) };
                    }
                }))
            }
            Place::Global(global) if pointer.offsets.uniform => {
                let offset = pointer.offsets.bits[0];
                let mut bits = vec![0; scalars];
                if offset == NOWHERE {
                    return Ok(Data::uniform(bits));
                }
                let ends = [active.first(), active.last()];
                for &lane in ends[..active.len().min(2)].iter().flatten() {
                    for (bits, &(place, scalar)) in bits.iter_mut().zip(&flat.parts) {
                        *bits =
                            self.load(global, offset + place, scalar, *lane, flat.atomic, span)?;
                    }
                }
                Ok(Data::uniform(bits))
            }
            Place::Global(global) => {
                let mut bits = vec![0; scalars * lanes];
                for &lane in active {
                    let offset = pointer.offsets.bits[lane as usize];
                    if offset == NOWHERE {
                        continue;
                    }
                    for (component, &(place, scalar)) in flat.parts.iter().enumerate() {
                        bits[component * lanes + lane as usize] =
                            self.load(global, offset + place, scalar, lane, flat.atomic, span)?;
                    }
                }
                Ok(Data { bits, uniform: false })
            }
        }
    }

    /// Writes `value` where a pointer points, for the invocations `active`.
    pub fn write(
        &mut self,
        pointer: &Pointer,
        flat: &Flat,
        value: &Data,
        active: &[u32],
        span: Span,
    ) -> Result<(), Refusal> {
        let lanes = self.lanes;
        let lost = |lane: &u32| pointer.offsets.at(0, *lane as usize, lanes) == NOWHERE;
        if pointer.beyond.is_some() && active.iter().any(lost) {
            let name = self.name_of(pointer.place);
            self.see_index(&name, pointer.beyond, span, true);
        }
        let scalars = value.components(lanes);
        match pointer.place {
            Place::Local { .. } | Place::Private(_) => {
                let local = match pointer.place {
                    Place::Local { frame, variable } => &mut self.frames[frame].locals[variable],
                    Place::Private(variable) | Place::Global(variable) => {
                        &mut self.privates[variable]
                    }
                };
                let alike = pointer.offsets.uniform && value.uniform && active.len() == lanes;
                if alike && local.uniform {
                    let offset = pointer.offsets.bits[0];
                    if offset != NOWHERE {
                        let at = offset as usize;
                        local.bits[at..at + scalars].copy_from_slice(&value.bits);
                    }
                    return Ok(());
                }
                if local.uniform {
                    *local = Data { bits: local.expanded(lanes), uniform: false };
                }
                for &lane in active {
                    let lane = lane as usize;
                    let offset = pointer.offsets.at(0, lane, lanes);
                    if offset == NOWHERE {
                        continue;
                    }
                    for component in 0..scalars {
                        local.bits[(offset as usize + component) * lanes + lane] =
                            value.at(component, lane, lanes);
                    }
                }
            }
            Place::Global(global) => {
                for &lane in active {
                    let offset = pointer.offsets.at(0, lane as usize, lanes);
                    if offset == NOWHERE {
                        continue;
                    }
                    for (component, &(place, scalar)) in flat.parts.iter().enumerate() {
                        let bits = value.at(component, lane as usize, lanes);
                        self.store(global, offset + place, scalar, bits, lane, flat.atomic, span)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// f16 that became infinite of finite numbers.
    pub fn overflow(
        &mut self,
        of: &[&Data],
        out: &Data,
        scalar: Scalar,
        active: &[u32],
        span: Span,
    ) {
        if !self.options.overflow || !scalar.is_float() {
            return;
        }
        let lanes = self.lanes;
        let finite = |bits: u32| math::to_f32(scalar, bits).is_finite();
        let whole = |data: &Data, lane: usize| {
            (0..data.components(lanes)).all(|component| finite(data.at(component, lane, lanes)))
        };
        let lost = |lane: &&u32| {
            let lane = **lane as usize;
            !whole(out, lane) && of.iter().all(|data| whole(data, lane))
        };
        if let Some(&lane) = active.iter().find(lost) {
            self.see(FaultKind::F16Overflow, span, || {
                format!("more than 65504 comes out, first in invocation {lane}")
            });
        }
    }

    /// f32 that has no place in f16.
    fn packing(&mut self, of: &[&Data], active: &[u32], span: Span) {
        if !self.options.overflow {
            return;
        }
        let lanes = self.lanes;
        let lost = |bits: u32| {
            let value = f32::from_bits(bits);
            value.is_finite() && half::f16::from_f32(value).is_infinite()
        };
        for &lane in active {
            for data in of {
                for component in 0..data.components(lanes) {
                    let bits = data.at(component, lane as usize, lanes);
                    if lost(bits) {
                        self.see(FaultKind::F16Overflow, span, || {
                            let value = f32::from_bits(bits);
                            format!("{value} does not fit f16, whose greatest number is 65504")
                        });
                        return;
                    }
                }
            }
        }
    }
}

fn at_start(place: Place) -> Value {
    Value::Pointer(Rc::new(Pointer { place, offsets: Data::uniform(vec![0]), beyond: None }))
}
