//! What a device gets of a kernel: the WGSL that was rendered, and what it is translated to.

use std::fmt::Write;

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use super::source::Wgsl;
use crate::backend::wgpu::{Compilable, Executable, Statistic, StatisticValue, api, executables};

/// A language of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// As it was rendered.
    Wgsl,
    /// Vulkan's, disassembled.
    SpirV,
    /// Metal's.
    Msl,
    /// DirectX 12's.
    Hlsl,
}

fn parsed(wgsl: &Wgsl) -> Result<naga::Module, String> {
    let module =
        naga::front::wgsl::parse_str(&wgsl.text).map_err(|error| error.message().to_string())?;
    match module.entry_points.is_empty() {
        true => {
            Err("no entry point is in it, such as `@compute @workgroup_size(64) fn main`".into())
        }
        false => Ok(module),
    }
}

/// Validated, with the values of its `override`s.
fn ready(wgsl: &Wgsl) -> Result<(naga::Module, ModuleInfo), String> {
    let module = parsed(wgsl)?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| error.as_inner().to_string())?;
    let (module, info) = naga::back::pipeline_constants::process_overrides(
        &module,
        &info,
        None,
        &Default::default(),
    )
    .map_err(|error| error.to_string())?;
    Ok((module.into_owned(), info.into_owned()))
}

fn spirv_of(module: &naga::Module, info: &ModuleInfo) -> Result<Vec<u32>, String> {
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    spv::write_vec(module, info, &options, None).map_err(|error| error.to_string())
}

/// What an adapter's driver tells of a kernel that it compiled, such as registers and occupancy;
/// nothing where it tells nothing.
///
/// # Errors
/// A kernel that cannot be translated, or that the driver refuses.
pub fn statistics(wgsl: &Wgsl, adapter: &api::Adapter) -> Result<Option<String>, String> {
    let (module, info) = ready(wgsl)?;
    let words = spirv_of(&module, &info)?;
    let uniform = |variable: &naga::GlobalVariable| {
        Some((variable.binding?.binding, variable.space == naga::AddressSpace::Uniform))
    };
    let bindings: Vec<(u32, bool)> =
        module.global_variables.iter().filter_map(|(_, variable)| uniform(variable)).collect();
    let entry = module.entry_points.first().map_or("main", |entry| &entry.name);
    let compilable = Compilable { words: &words, entry, bindings: &bindings };
    Ok(executables(adapter, &compilable)?.map(|all| told(&all)))
}

/// Executables line by line, each number with what the driver says of it.
fn told(all: &[Executable]) -> String {
    let mut text = String::new();
    for executable in all {
        let Executable { name, description, subgroup, statistics } = executable;
        let _ = write!(text, "{name}");
        if !description.is_empty() && description != name {
            let _ = write!(text, ": {description}");
        }
        match subgroup {
            0 => text.push('\n'),
            lanes => {
                let _ = writeln!(text, " (subgroups of {lanes})");
            }
        }
        if statistics.is_empty() {
            text += "  no statistics\n";
        }
        let wide = |f: fn(&Statistic) -> usize| statistics.iter().map(f).max().unwrap_or(0);
        let names = wide(|one| one.name.chars().count());
        let values = wide(|one| value(one.value).chars().count());
        for one in statistics {
            let line = format!("  {:names$}  {:>values$}", one.name, value(one.value));
            let meaning = if one.description == one.name { "" } else { &one.description };
            let _ = writeln!(text, "{}", format!("{line}  {meaning}").trim_end());
        }
    }
    text
}

fn value(value: StatisticValue) -> String {
    match value {
        StatisticValue::Flag(true) => "yes".into(),
        StatisticValue::Flag(false) => "no".into(),
        StatisticValue::Signed(number) => number.to_string(),
        StatisticValue::Unsigned(number) => number.to_string(),
        StatisticValue::Float(number) => format!("{number:.2}"),
    }
}

/// A kernel in a language.
///
/// # Errors
/// What cannot be translated.
pub fn shown(wgsl: &Wgsl, language: Language) -> Result<String, String> {
    if language == Language::Wgsl {
        parsed(wgsl)?;
        return Ok(wgsl.text.clone());
    }
    let (module, info) = ready(wgsl)?;
    match language {
        Language::Wgsl => Ok(wgsl.text.clone()),
        Language::SpirV => Ok(disassembled(&spirv_of(&module, &info)?)),
        Language::Msl => {
            let options = msl::Options {
                fake_missing_bindings: true,
                per_entry_point_map: slots(&module),
                lang_version: (2, 4),
                ..Default::default()
            };
            let (text, _) = msl::write_string(&module, &info, &options, &Default::default())
                .map_err(|error| error.to_string())?;
            Ok(text)
        }
        Language::Hlsl => {
            let options = hlsl::Options {
                fake_missing_bindings: true,
                shader_model: hlsl::ShaderModel::V6_2,
                ..Default::default()
            };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &Default::default())
                .write(&module, &info, None)
                .map_err(|error| error.to_string())?;
            Ok(text)
        }
    }
}

/// Metal's buffers, numbered as the bindings are, their sizes behind them.
fn slots(module: &naga::Module) -> msl::EntryPointResourceMap {
    let mut resources = msl::EntryPointResources::default();
    let mut next = 0;
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        let slot = u8::try_from(binding.binding).ok();
        next = next.max(slot.map_or(0, |slot| slot.saturating_add(1)));
        let target = msl::BindTarget { buffer: slot, mutable: true, ..Default::default() };
        resources.resources.insert(binding, target);
    }
    resources.sizes_buffer = Some(next);
    module.entry_points.iter().map(|entry| (entry.name.clone(), resources.clone())).collect()
}

/// Words before the first instruction.
const HEADER: usize = 5;

/// SPIR-V as text, an instruction a line: names of operations, numbers of everything else.
fn disassembled(words: &[u32]) -> String {
    let mut text = String::new();
    if let [_, version, _, bound, ..] = words {
        let (major, minor) = (version >> 16 & 0xff, version >> 8 & 0xff);
        let _ = writeln!(text, "; SPIR-V {major}.{minor}, {bound} ids");
    }
    let mut at = HEADER;
    while let Some(&first) = words.get(at) {
        let (length, code) = ((first >> 16) as usize, first & 0xffff);
        let Some(operands) = words.get(at + 1..at + length.max(1)) else { break };
        let op = spirv::Op::from_u32(code);
        let name = op.map_or_else(|| format!("Op{code}"), |op| format!("Op{op:?}"));
        let _ = writeln!(text, "{}", line(op, &name, operands));
        at += length.max(1);
    }
    text
}

/// A string of an instruction, and how many words it takes.
fn string(words: &[u32]) -> (String, usize) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), end / 4 + 1)
}

fn ids(words: &[u32]) -> String {
    words.iter().map(|word| format!(" %{word}")).collect()
}

fn line(op: Option<spirv::Op>, name: &str, operands: &[u32]) -> String {
    use spirv::Op;
    match (op, operands) {
        (Some(Op::Name), [id, text @ ..]) => format!("{name} %{id} {:?}", string(text).0),
        (Some(Op::MemberName), [id, member, text @ ..]) => {
            format!("{name} %{id} {member} {:?}", string(text).0)
        }
        (Some(Op::Extension | Op::SourceExtension), text) => {
            format!("{name} {:?}", string(text).0)
        }
        (Some(Op::ExtInstImport), [id, text @ ..]) => {
            format!("%{id} = {name} {:?}", string(text).0)
        }
        (Some(Op::EntryPoint), [model, id, rest @ ..]) => {
            let (text, length) = string(rest);
            format!("{name} {model} %{id} {text:?}{}", ids(&rest[length.min(rest.len())..]))
        }
        (Some(Op::Capability), [capability]) => {
            let known = spirv::Capability::from_u32(*capability);
            known
                .map_or_else(|| format!("{name} {capability}"), |known| format!("{name} {known:?}"))
        }
        (Some(Op::Constant), [ty, id, value]) => {
            let float = f32::from_bits(*value);
            format!("%{id} = {name} %{ty} {value} ; as f32 {float:?}")
        }
        (Some(Op::Decorate), [id, rest @ ..]) => format!("{name} %{id} {}", decoration(rest)),
        (Some(Op::MemberDecorate), [id, member, rest @ ..]) => {
            format!("{name} %{id} {member} {}", decoration(rest))
        }
        (Some(Op::ExecutionMode), [id, mode, rest @ ..]) => {
            let rest: Vec<String> = rest.iter().map(u32::to_string).collect();
            format!(
                "{name} %{id} {} {}",
                named(spirv::ExecutionMode::from_u32(*mode), *mode),
                rest.join(" ")
            )
        }
        (Some(Op::TypePointer), [id, class, ty]) => {
            format!("%{id} = {name} {} %{ty}", named(spirv::StorageClass::from_u32(*class), *class))
        }
        (Some(Op::Variable), [ty, id, class, rest @ ..]) => {
            let class = named(spirv::StorageClass::from_u32(*class), *class);
            format!("%{id} = {name} %{ty} {class}{}", ids(rest))
        }
        (Some(Op::ExecutionMode | Op::MemoryModel | Op::Source | Op::Line), all) => {
            let all: Vec<String> = all.iter().map(u32::to_string).collect();
            format!("{name} {}", all.join(" "))
        }
        (
            Some(
                Op::Store
                | Op::Branch
                | Op::BranchConditional
                | Op::ReturnValue
                | Op::SelectionMerge
                | Op::LoopMerge
                | Op::ControlBarrier
                | Op::MemoryBarrier
                | Op::Return
                | Op::FunctionEnd
                | Op::Switch
                | Op::NoLine
                | Op::Unreachable,
            ),
            all,
        ) => format!("{name}{}", ids(all)),
        (Some(op), [id, rest @ ..]) if is_type(op) || op == Op::Label => {
            let rest: Vec<String> = rest.iter().map(u32::to_string).collect();
            let rest = if rest.is_empty() { String::new() } else { format!(" {}", rest.join(" ")) };
            format!("%{id} = {name}{rest}")
        }
        (_, [ty, id, rest @ ..]) => format!("%{id} = {name} %{ty}{}", ids(rest)),
        (_, all) => format!("{name}{}", ids(all)),
    }
}

/// A name where there is one, else the number.
fn named<T: std::fmt::Debug>(known: Option<T>, number: u32) -> String {
    known.map_or_else(|| number.to_string(), |known| format!("{known:?}"))
}

fn decoration(words: &[u32]) -> String {
    let [kind, rest @ ..] = words else { return String::new() };
    let known = spirv::Decoration::from_u32(*kind);
    let mut text = named(known, *kind);
    for word in rest {
        let word = match known {
            Some(spirv::Decoration::BuiltIn) => named(spirv::BuiltIn::from_u32(*word), *word),
            _ => word.to_string(),
        };
        text += &format!(" {word}");
    }
    text
}

fn is_type(op: spirv::Op) -> bool {
    format!("{op:?}").starts_with("Type")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up: what drivers of several makers tell, whose devices are not here.
    #[test]
    fn what_a_driver_tells_stands_in_columns() {
        let statistic = |name: &str, description: &str, value| Statistic {
            name: name.into(),
            description: description.into(),
            value,
        };
        let executable = Executable {
            name: "Compute Shader".into(),
            description: "Vulkan Compute Shader".into(),
            subgroup: 32,
            statistics: vec![
                statistic(
                    "Register Count",
                    "registers of an invocation",
                    StatisticValue::Unsigned(40),
                ),
                statistic("Occupancy", "Occupancy", StatisticValue::Float(0.5)),
                statistic("Spills", "", StatisticValue::Signed(-1)),
                statistic("Uses Scratch", "memory beside registers", StatisticValue::Flag(false)),
            ],
        };
        let bare = Executable {
            name: "main".into(),
            description: String::new(),
            subgroup: 0,
            statistics: Vec::new(),
        };
        assert_eq!(
            told(&[executable, bare]),
            "Compute Shader: Vulkan Compute Shader (subgroups of 32)\n  \
               Register Count    40  registers of an invocation\n  \
               Occupancy       0.50\n  \
               Spills            -1\n  \
               Uses Scratch      no  memory beside registers\n\
             main\n  \
               no statistics\n"
        );
    }
}
