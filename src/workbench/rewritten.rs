//! A kernel whose workgroups run in another order: each is given another one's number.

use std::collections::HashMap;

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{
    BinaryOperator, Binding, BuiltIn, Expression, Function, Handle, Literal, Module, Span,
    Statement,
};

/// `id times factor plus offset, modulo count`: every number once.
#[derive(Clone, Copy, Debug)]
struct Shuffle {
    factor: u32,
    offset: u32,
    count: u32,
}

fn divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Shuffle {
    fn of(count: u32) -> Shuffle {
        let count = count.max(1);
        let mut factor = count / 2 + 1;
        while divisor(factor, count) != 1 {
            factor += 1;
        }
        Shuffle { factor, offset: count / 3, count }
    }
}

/// The module with workgroups shuffled in each dimension of `grid`; none where the entry point is
/// told of them in a struct. Its `override`s have the values of `constants`, which the size of a
/// workgroup may hang on.
pub(super) fn shuffled(
    module: &Module,
    constants: &HashMap<String, f64>,
    grid: [u32; 3],
) -> Option<Module> {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(module).ok()?;
    let known = module.overrides.iter().filter_map(|(_, own)| own.name.clone());
    let constants =
        known.filter_map(|name| constants.get(&name).map(|value| (name, *value))).collect();
    let (module, _) = process_overrides(module, &info, None, &constants).ok()?;
    let mut module = module.into_owned();
    let entry = module.entry_points.first_mut()?;
    let size = entry.workgroup_size;
    let mut inner = std::mem::take(&mut entry.function);
    let arguments = inner.arguments.clone();
    if arguments.iter().any(|argument| argument.binding.is_none()) {
        return None;
    }
    inner.name = Some("in_order".into());
    inner.arguments.iter_mut().for_each(|argument| argument.binding = None);
    let inner = module.functions.append(inner, Span::UNDEFINED);
    let mut outer = Builder::default();
    // What must not be emitted stands before what must.
    let given: Vec<Handle<Expression>> =
        (0..arguments.len()).map(|i| outer.add(Expression::FunctionArgument(i as u32))).collect();
    let numbers = |outer: &mut Builder, axis: usize| {
        let Shuffle { factor, offset, count } = Shuffle::of(grid[axis]);
        [factor, offset, count, size[axis].max(1)]
            .map(|number| outer.add(Expression::Literal(Literal::U32(number))))
    };
    let constants: [[Handle<Expression>; 4]; 3] = [0, 1, 2].map(|axis| numbers(&mut outer, axis));
    let before = outer.function.expressions.len();
    let mut passed = Vec::new();
    for (argument, given) in arguments.iter().zip(given) {
        let of_group = match argument.binding {
            Some(Binding::BuiltIn(BuiltIn::WorkGroupId)) => true,
            Some(Binding::BuiltIn(BuiltIn::GlobalInvocationId)) => false,
            _ => {
                passed.push(given);
                continue;
            }
        };
        let mut components = Vec::new();
        for (axis, [factor, offset, count, size]) in constants.into_iter().enumerate() {
            use BinaryOperator::{Add, Divide, Modulo, Multiply};
            let id = outer.add(Expression::AccessIndex { base: given, index: axis as u32 });
            let group = if of_group { id } else { outer.binary(Divide, id, size) };
            let group = outer.binary(Multiply, group, factor);
            let group = outer.binary(Add, group, offset);
            let mut other = outer.binary(Modulo, group, count);
            if !of_group {
                let local = outer.binary(Modulo, id, size);
                other = outer.binary(Multiply, other, size);
                other = outer.binary(Add, other, local);
            }
            components.push(other);
        }
        passed.push(outer.add(Expression::Compose { ty: argument.ty, components }));
    }
    let mut function = outer.function;
    function.arguments = arguments;
    let emitted = function.expressions.range_from(before);
    let span = Span::UNDEFINED;
    if function.expressions.len() > before {
        function.body.push(Statement::Emit(emitted), span);
    }
    let call = Statement::Call { function: inner, arguments: passed, result: None };
    function.body.push(call, span);
    function.body.push(Statement::Return { value: None }, span);
    module.entry_points[0].function = function;
    Some(module)
}

#[derive(Default)]
struct Builder {
    function: Function,
}

impl Builder {
    fn add(&mut self, expression: Expression) -> Handle<Expression> {
        self.function.expressions.append(expression, Span::UNDEFINED)
    }

    fn binary(
        &mut self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Handle<Expression> {
        self.add(Expression::Binary { op, left, right })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    #[test]
    fn every_workgroup_runs_once() {
        for count in 1..200 {
            let Shuffle { factor, offset, count } = Shuffle::of(count);
            let all: BTreeSet<u32> = (0..count).map(|id| (id * factor + offset) % count).collect();
            assert_eq!(all.len(), count as usize);
        }
    }

    #[test]
    fn the_module_stays_valid() {
        let text = "
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(4, 2)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  y[id.x + id.y * 100u] = group.x + lane;
}
";
        let module = naga::front::wgsl::parse_str(text).unwrap();
        let module = shuffled(&module, &HashMap::new(), [5, 3, 1]).unwrap();
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string("")));
    }
}
