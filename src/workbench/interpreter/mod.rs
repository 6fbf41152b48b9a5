//! WGSL executed as it is written, all invocations of a workgroup side by side: every access is
//! looked at, so that a fault is found whatever a device makes of it.
//!
//! Barriers are what orders invocations, and nothing else: two accesses of one place are a race
//! unless a barrier stands between them, in whichever order they happen to be executed here. So a
//! race is found in one run, surely, where the kernel has it at that shape.

mod atomics;
mod calls;
mod expressions;
mod machine;
mod math;
mod matrices;
mod memory;
mod statements;
mod subgroups;
mod types;
mod values;

use std::collections::HashMap;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Span};

use super::fault::FaultKind;
use machine::Machine;
pub(super) use machine::{Binding, has_halves};
pub(super) use memory::Region;

/// What something is called, without what is in it.
fn called(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_string()
}

/// Why a kernel cannot be interpreted.
#[derive(Clone, Debug)]
pub(super) struct Refusal(pub String);

/// What was seen, and where in the text.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub kind: FaultKind,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// May name other lines as `{line N}`.
    pub what: String,
    pub times: u64,
}

/// A module that is ready to be executed.
pub(super) struct Interpreter {
    source: String,
    module: Module,
    info: ModuleInfo,
}

/// How it is executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// f16 that overflows is a fault: inputs are such that it should not.
    pub overflow: bool,
    /// Statements of workgroups that are executed at most; those of many invocations count more.
    pub most: u64,
    /// Rounds of a loop after which it counts as endless.
    pub rounds: u64,
    /// Only the workgroups at the corners of the grid and in its middle: all there are, if they
    /// are few.
    pub corners: bool,
}

/// The workgroups of a grid that are executed of a large one, in order.
fn corners(grid: [u32; 3]) -> Vec<[u32; 3]> {
    let ends = |count: u32| if count > 1 { vec![0, count - 1] } else { vec![0; count as usize] };
    let [x, y, z] = grid.map(ends);
    let mut all = Vec::new();
    for &z in &z {
        for &y in &y {
            all.extend(x.iter().map(|&x| [x, y, z]));
        }
    }
    if !all.is_empty() {
        all.push(grid.map(|count| count / 2));
    }
    all.sort_by_key(|[x, y, z]| [*z, *y, *x]);
    all.dedup();
    all
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// In a loop that does not end, which was seen.
    Endless,
    /// After as many statements as were allowed.
    TooLong,
}

/// What came of an execution.
pub(super) struct Executed {
    pub sightings: Vec<Sighting>,
    /// The number after that of the last workgroup.
    pub next: u32,
    /// Whether workgroups were left out.
    pub in_part: bool,
    pub end: End,
}

impl Interpreter {
    /// Reads WGSL, with these values of its `override`s.
    pub fn new(source: &str, overrides: &HashMap<String, f64>) -> Result<Interpreter, Refusal> {
        let parsed = naga::front::wgsl::parse_str(source)
            .map_err(|error| Refusal(error.message().to_string()))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&parsed)
            .map_err(|error| Refusal(error.as_inner().to_string()))?;
        let known = parsed.overrides.iter().filter_map(|(_, own)| own.name.clone());
        let constants =
            known.filter_map(|name| overrides.get(&name).map(|value| (name, *value))).collect();
        let (module, info) =
            naga::back::pipeline_constants::process_overrides(&parsed, &info, None, &constants)
                .map_err(|error| Refusal(error.to_string()))?;
        Ok(Interpreter {
            source: source.to_string(),
            module: module.into_owned(),
            info: info.into_owned(),
        })
    }

    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Whether what comes out may hang on the size of subgroups.
    pub fn uses_subgroups(&self) -> bool {
        subgroups::are_used(&self.module)
    }

    /// Whether it has cooperative matrices.
    pub fn uses_matrices(&self) -> bool {
        matrices::are_used(&self.module)
    }

    /// Bytes of workgroup memory, as layouts lay it out.
    pub fn workgroup_bytes(&self) -> u64 {
        let entry = self.info.get_entry_point(0);
        let used = self.module.global_variables.iter().filter(|(handle, variable)| {
            variable.space == AddressSpace::WorkGroup && !entry[*handle].is_empty()
        });
        let size = |ty| u64::from(self.module.types[ty].inner.size(self.module.to_ctx()));
        used.map(|(_, variable)| size(variable.ty).next_multiple_of(16)).sum()
    }

    /// Executes the workgroups of `grid`. `first` is the number of the first one, counted through
    /// all dispatches from 1.
    pub fn run(
        &self,
        regions: &mut [Region],
        bindings: &[Binding],
        grid: [u32; 3],
        options: Options,
        first: u32,
    ) -> Result<Executed, Refusal> {
        let mut machine =
            Machine::new(&self.module, &self.info, regions, bindings, grid, options, first)?;
        machine.run()?;
        let (next, end, in_part) = (machine.next_group(), machine.end, machine.in_part());
        let sightings = machine.sightings(&|span: Span| self.line(span));
        Ok(Executed { sightings, next, in_part, end })
    }

    fn line(&self, span: Span) -> Option<usize> {
        span.is_defined().then(|| span.location(&self.source).line_number as usize)
    }
}
