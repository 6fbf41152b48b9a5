//! What is wrong with WGSL, in words: no numbers of the translator's own tables, but what stands in
//! the text.

use naga::front::wgsl::ParseError;
use naga::valid::{
    Capabilities, EntryPointError, FunctionError, GlobalVariableError, ValidationError,
    ValidationFlags, Validator, VaryingError,
};
use naga::{AddressSpace, BuiltIn, Expression, Function, Handle, Module, WithSpan};

/// What is wrong with WGSL: the line, where there is one, and a sentence.
pub(super) fn complaint(text: &str) -> Option<(Option<usize>, String)> {
    let module = match naga::front::wgsl::parse_str(text) {
        Err(error) => return Some(unread(&error, text)),
        Ok(module) => module,
    };
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let error = validator.validate(&module).err()?;
    let line = error.location(text).map(|at| at.line_number as usize);
    // What is wrong with all of a function stands where it begins.
    let line = line.or_else(|| match error.as_inner() {
        ValidationError::EntryPoint { name, .. } | ValidationError::Function { name, .. } => {
            let begins = |line: &str| {
                let rest = line.split_once("fn ").map(|(_, rest)| rest.trim_start());
                rest.and_then(|rest| rest.strip_prefix(name.as_str()))
                    .is_some_and(|rest| rest.trim_start().starts_with('('))
            };
            text.lines().position(begins).map(|at| at + 1)
        }
        _ => None,
    });
    Some((line, invalid(&error, &module, text)))
}

/// Of WGSL that cannot be read.
fn unread(error: &ParseError, text: &str) -> (Option<usize>, String) {
    let mut line = error.location(text).map(|at| at.line_number as usize);
    let message = error.message();
    // What is missing belongs behind what stands before, which may be lines above.
    if message.starts_with("expected `;`")
        && let Some(range) = error.labels().next().and_then(|(span, _)| span.to_range())
    {
        let before = text.get(..range.start).unwrap_or_default();
        let is_code = |line: &str| !line.split("//").next().unwrap_or_default().trim().is_empty();
        let last = before.lines().enumerate().filter(|(_, line)| is_code(line)).last();
        line = last.map(|(number, _)| number + 1).or(line);
    }
    let mut told = message.to_string();
    if let Some(name) = between(message, "no definition in scope for identifier: `", "`") {
        told = format!("nothing is called `{name}` here");
        if let Some(near) = crate::backend::wgpu::nearest(name, others(text, name)) {
            told += &format!("; did you mean `{near}`?");
        }
    } else {
        // The first says where it is, which is told by the line; others say of what kinds things
        // are.
        let labels = error.labels().map(|(span, label)| (span.to_range(), label));
        let told_of: Vec<String> = labels
            .filter(|(_, label)| label.contains("type") || label.contains('`'))
            .filter(|(_, label)| !message.contains(label))
            .filter_map(|(range, label)| {
                let snippet = snippet(text, range)?;
                (!label.contains(&snippet)).then(|| format!("`{snippet}`: {label}"))
            })
            .collect();
        if !told_of.is_empty() {
            told += &format!(" ({})", told_of.join("; "));
        }
    }
    for note in error.notes() {
        told += &format!("; {note}");
    }
    (line, told)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

/// Other names that stand in a text.
fn others<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.filter(move |word| {
        *word != name && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
    })
}

/// What stands in the text at a place, if it is short.
fn snippet(text: &str, range: Option<std::ops::Range<usize>>) -> Option<String> {
    const LONGEST: usize = 60;
    let found = text.get(range?)?.split_whitespace().collect::<Vec<_>>().join(" ");
    (!found.is_empty() && found.len() <= LONGEST).then_some(found)
}

/// Of WGSL that can be read and is not valid.
fn invalid(error: &WithSpan<ValidationError>, module: &Module, text: &str) -> String {
    let inner = match error.as_inner() {
        ValidationError::EntryPoint { source, name, .. } => {
            let found = module.entry_points.iter().find(|entry| entry.name == *name);
            match source {
                EntryPointError::BindingCollision(handle) => collision(module, *handle),
                EntryPointError::Function(source) => {
                    found.and_then(|entry| in_function(source, &entry.function, module))
                }
                EntryPointError::ForbiddenStageOperations => Some(format!(
                    "`{name}` uses what compute shaders do not have, such as derivatives"
                )),
                EntryPointError::OutOfRangeWorkgroupSize => found.map(|entry| {
                    let [x, y, z] = entry.workgroup_size;
                    format!("no device has workgroups of {x} x {y} x {z} invocations")
                }),
                EntryPointError::Argument(number, source) => found.and_then(|entry| {
                    let argument = entry.function.arguments.get(*number as usize)?;
                    given(argument.name.as_deref().unwrap_or_default(), source)
                }),
                _ => None,
            }
        }
        ValidationError::Function { source, handle, .. } => {
            in_function(source, &module.functions[*handle], module)
        }
        ValidationError::GlobalVariable {
            name,
            source: GlobalVariableError::InvalidBinding,
            ..
        } => Some(format!(
            "`{name}`: storage and uniforms have @group(0) @binding(N), other variables have not"
        )),
        _ => None,
    };
    inner.unwrap_or_else(|| plainly(error, text))
}

/// An argument of an entry point that is built in and cannot be had so.
fn given(argument: &str, error: &VaryingError) -> Option<String> {
    // `WorkGroupId` is `workgroup_id`.
    let name = |built_in: &BuiltIn| {
        let mut name = String::new();
        for (at, letter) in
            format!("{built_in:?}").replace("WorkGroup", "Workgroup").chars().enumerate()
        {
            if letter.is_uppercase() && at > 0 {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        name
    };
    match error {
        VaryingError::InvalidBuiltInStage(built_in) => Some(format!(
            "argument `{argument}`: compute shaders have no @builtin({})",
            name(built_in)
        )),
        VaryingError::InvalidBuiltInType(built_in, found) => Some(format!(
            "argument `{argument}`: @builtin({}) is no {}",
            name(built_in),
            with_types(&format!("{found:?}"))
        )),
        VaryingError::MissingBinding => {
            Some(format!("argument `{argument}` of an entry point needs @builtin(..)"))
        }
        _ => None,
    }
}

/// Two bindings in one place.
fn collision(module: &Module, handle: Handle<naga::GlobalVariable>) -> Option<String> {
    let variable = &module.global_variables[handle];
    let binding = variable.binding?;
    let mut all = module.global_variables.iter();
    let (_, other) = all.find(|(other, own)| *other != handle && own.binding == Some(binding))?;
    Some(format!(
        "`{}` and `{}` are both bound to @group({}) @binding({})",
        other.name.as_deref().unwrap_or_default(),
        variable.name.as_deref().unwrap_or_default(),
        binding.group,
        binding.binding
    ))
}

fn in_function(error: &FunctionError, function: &Function, module: &Module) -> Option<String> {
    match error {
        FunctionError::InvalidStorePointer(pointer) => {
            let variable = variable_of(*pointer, function)?;
            let variable = &module.global_variables[variable];
            let name = variable.name.as_deref().unwrap_or_default();
            Some(match variable.space {
                AddressSpace::Storage { .. } => format!(
                    "`{name}` is written and is bound as var<storage, read>; what is written is \
                     var<storage, read_write>"
                ),
                _ => format!("`{name}` is written, which only can be read"),
            })
        }
        FunctionError::PipelineInputRegularFunction { name } => Some(format!(
            "argument `{name}` of function `{}` is built in, which is for entry points alone: is \
             `@compute @workgroup_size(..)` missing before `fn`?",
            function.name.as_deref().unwrap_or_default()
        )),
        _ => None,
    }
}

/// The global variable that a pointer leads to.
fn variable_of(
    mut pointer: Handle<Expression>,
    function: &Function,
) -> Option<Handle<naga::GlobalVariable>> {
    loop {
        match function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                pointer = base;
            }
            Expression::GlobalVariable(handle) => return Some(handle),
            _ => return None,
        }
    }
}

/// Whatever else: the innermost reasons, with what stands in the text instead of numbers.
fn plainly(error: &WithSpan<ValidationError>, text: &str) -> String {
    let mut reasons = vec![error.as_inner().to_string()];
    let mut cause = std::error::Error::source(error.as_inner());
    while let Some(inner) = cause {
        reasons.push(inner.to_string());
        cause = inner.source();
    }
    // `Function [0] 'main' is invalid` says nothing where a reason follows.
    let last = reasons.len() - 1;
    let kept: Vec<&String> = reasons
        .iter()
        .enumerate()
        .filter(|(number, reason)| *number == last || !reason.ends_with("is invalid"))
        .map(|(_, reason)| reason)
        .collect();
    let mut told = kept.into_iter().map(String::as_str).collect::<Vec<_>>().join(": ");
    for (span, label) in error.spans() {
        let Some((_, number)) = label.rsplit_once(' ').filter(|(_, n)| is_handle(n)) else {
            continue;
        };
        if let Some(found) = snippet(text, span.to_range()) {
            told = told.replace(number, &format!("`{found}`"));
        }
    }
    with_types(&without_handles(&told))
}

/// The translator's names of types and operators as WGSL has them.
fn with_types(text: &str) -> String {
    let mut told = text.to_string();
    let mut replace = |from: String, to: String| told = told.replace(&from, &to);
    for (kind, letter, widths) in
        [("Uint", "u", &[4, 8][..]), ("Sint", "i", &[4, 8]), ("Float", "f", &[2, 4, 8])]
    {
        for width in widths {
            let scalar = format!("{letter}{}", 8 * width);
            replace(format!("Scalar {{ kind: {kind}, width: {width} }}"), scalar.clone());
            replace(format!("Scalar({scalar})"), scalar.clone());
            replace(format!("Atomic({scalar})"), format!("atomic<{scalar}>"));
        }
    }
    replace("Scalar { kind: Bool, width: 1 }".into(), "bool".into());
    replace("Scalar(bool)".into(), "bool".into());
    let sizes = [("Bi", 2), ("Tri", 3), ("Quad", 4)];
    for scalar in ["u32", "i32", "f16", "f32", "bool"] {
        for (size, count) in sizes {
            replace(
                format!("Vector {{ size: {size}, scalar: {scalar} }}"),
                format!("vec{count}<{scalar}>"),
            );
            for (rows, row_count) in sizes {
                replace(
                    format!("Matrix {{ columns: {size}, rows: {rows}, scalar: {scalar} }}"),
                    format!("mat{count}x{row_count}<{scalar}>"),
                );
            }
        }
    }
    for (name, operator) in [
        ("Add", "+"),
        ("Subtract", "-"),
        ("Multiply", "*"),
        ("Divide", "/"),
        ("Modulo", "%"),
        ("Equal", "=="),
        ("NotEqual", "!="),
        ("LessEqual", "<="),
        ("Less", "<"),
        ("GreaterEqual", ">="),
        ("Greater", ">"),
        ("LogicalAnd", "&&"),
        ("LogicalOr", "||"),
    ] {
        replace(format!("Operation {name} can't"), format!("`{operator}` can't"));
    }
    // Where what has the type could not be told.
    let (Some(rest), true) = (told.strip_suffix(')'), told.contains(" can't work with (of type "))
    else {
        return told;
    };
    rest.replace(" with (of type ", " with ").replace(") and (of type ", " and ")
}

/// Whether it is `[12]`.
fn is_handle(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A sentence without what is left of ` [12]`, which means nothing to anybody.
fn without_handles(text: &str) -> String {
    let words = text.split(' ').filter(|word| !is_handle(word));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_numbers_of_tables_are_told() {
        let head = "struct S { rows: u32 }\n@group(0) @binding(0) var<uniform> s: S;\n\
                    @group(0) @binding(1) var<storage, read> x: array<f32>;\n\
                    @group(0) @binding(2) var<storage, read_write> y: array<f32>;\n";
        let main =
            "@compute @workgroup_size(8)\nfn main(@builtin(local_invocation_index) i: u32) {\n";
        for (body, line, says) in [
            ("  y[i] = x[i]\n  // more\n\n  y[i] = 1.0;\n}\n", 7, "expected `;`, found \"y\""),
            ("  y[i] = xx[i];\n}\n", 7, "nothing is called `xx` here"),
            ("  let row = 1u;\n  y[i] = f32(rwo);\n}\n", 8, "did you mean `row`?"),
            (
                "  x[i] = 1.0;\n}\n",
                7,
                "`x` is written and is bound as var<storage, read>; what is written is \
                 var<storage, read_write>",
            ),
            ("  s.rows = 1u;\n}\n", 7, "`s` is written, which only can be read"),
            ("  var a = 1u;\n  a = x[i];\n}\n", 8, "u32"),
            ("  y[i] = x[i] * 2u;\n}\n", 7, ""),
            ("  if (i + 1u) { y[i] = 1.0; }\n}\n", 7, "`i + 1u` is not a boolean"),
            (
                "  let two = vec2<u32>(1u);\n  if (any(two >= i)) { y[i] = 1.0; }\n}\n",
                8,
                "`>=` can't work with vec2<u32> and u32",
            ),
            ("  y[i] = max(x[i], 1u);\n}\n", 7, ""),
            ("  break;\n}\n", 7, "`break`"),
            ("  y[i] = vec2<f32>(1.0, 2.0);\n}\n", 7, ""),
            ("  y[i] = x[1.5];\n}\n", 7, ""),
            ("  y[i] = dot(x[i], x[i]);\n}\n", 7, ""),
            ("  let z = workgroupUniformLoad(&y[i]);\n}\n", 7, ""),
            ("  atomicAdd(&y[i], 1u);\n}\n", 7, ""),
        ] {
            let text = format!("{head}{main}{body}");
            let (at, told) = complaint(&text).unwrap_or_else(|| panic!("{body}"));
            let words = told.split([' ', '`', ',', ';', ':', '(', ')']);
            println!("{body}{told}\n");
            assert_eq!(at, Some(line), "{body}: {told}");
            assert!(told.contains(says), "{body}: {told}");
            assert!(!words.into_iter().any(is_handle), "{body}: {told}");
        }
        let twice = format!("{head}{main}  y[i] = x[i];\n}}\n").replace("binding(2)", "binding(1)");
        let (line, told) = complaint(&twice).unwrap();
        assert_eq!(line, Some(4), "{told}");
        assert_eq!(told, "`x` and `y` are both bound to @group(0) @binding(1)");
        for (from, to, line, says) in [
            ("size(8)", "size(0)", 6, "no device has workgroups of 0 x 1 x 1 invocations"),
            ("i: u32", "i: vec3<u32>", 6, "`i`: @builtin(local_invocation_index) is no vec3<u32>"),
            ("local_invocation_index", "vertex_index", 6, "have no @builtin(vertex_index)"),
            ("@builtin(local_invocation_index) ", "", 6, "argument `i` of an entry point needs"),
            ("@group(0) @binding(2) ", "", 4, "`y`: storage and uniforms have @group(0)"),
            ("= x[0]", "= dpdx(x[0])", 6, "`main` uses what compute shaders do not have"),
        ] {
            let text = format!("{head}{main}  y[0] = x[0];\n}}\n").replace(from, to);
            let (at, told) = complaint(&text).unwrap_or_else(|| panic!("{to}"));
            assert!(at == Some(line) && told.contains(says), "{to}: {at:?}: {told}");
        }
        let no_entry = format!(
            "{head}{}  y[i] = x[i];\n}}\n",
            main.replace("@compute @workgroup_size(8)", "")
        );
        let (_, told) = complaint(&no_entry).unwrap();
        assert!(told.contains("is `@compute @workgroup_size(..)` missing before `fn`?"), "{told}");
    }
}
