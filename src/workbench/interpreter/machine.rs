//! One dispatch being executed: its memory, its workgroups one after the other, what was seen.

use std::collections::BTreeMap;
use std::rc::Rc;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{AddressSpace, Expression, Function, Handle, Module, Span, StorageAccess, Type};

use super::memory::{Conflict, Mark, OTHERS, Region};
use super::types::{Scalar, Types};
use super::values::{Data, Value};
use super::{End, Options, Refusal, Sighting, called, corners};
use crate::workbench::fault::FaultKind;

/// A binding as a part of a region.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub name: String,
    pub region: usize,
    /// In bytes.
    pub offset: usize,
    pub size: usize,
    /// Must not be written.
    pub input: bool,
}

/// A global variable's memory.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub name: String,
    pub ty: Handle<Type>,
    pub space: AddressSpace,
    /// Of the buffers, or of the workgroup's own.
    pub region: usize,
    pub offset: usize,
    pub size: usize,
    pub input: bool,
    pub writable: bool,
}

/// A function being executed.
pub(super) struct Frame<'m> {
    pub function: &'m Function,
    pub info: &'m FunctionInfo,
    pub values: Vec<Option<Value>>,
    pub arguments: Vec<Value>,
    pub locals: Vec<Data>,
    /// Invocations that left a loop or a switch, the innermost last.
    pub breaks: Vec<Vec<u32>>,
    /// Those that go on with the next round.
    pub continues: Vec<Vec<u32>>,
    pub result: Option<Data>,
}

pub(super) struct Machine<'m, 'r> {
    pub module: &'m Module,
    pub info: &'m ModuleInfo,
    pub types: Types<'m>,
    buffers: &'r mut [Region],
    workgroup: Vec<Region>,
    windows: Vec<Rc<Window>>,
    /// Of each global variable that is private, what each invocation holds there.
    pub privates: Vec<Data>,
    grid: [u32; 3],
    pub options: Options,
    /// Invocations of a workgroup.
    pub lanes: usize,
    pub frames: Vec<Frame<'m>>,
    /// Where it stands: for arguments and marks.
    pub group: [u32; 3],
    first: u32,
    number: u32,
    /// Barriers passed that order workgroup memory, and storage.
    pub epochs: [u32; 2],
    pub steps: u64,
    pub end: End,
    in_part: bool,
    seen: BTreeMap<(FaultKind, [(u32, u32); 2]), Seen>,
}

struct Seen {
    span: Span,
    other: Option<Span>,
    what: String,
    times: u64,
}

fn key(span: Span) -> (u32, u32) {
    span.to_range().map_or((0, 0), |range| (range.start as u32, range.end as u32))
}

impl<'m, 'r> Machine<'m, 'r> {
    pub fn new(
        module: &'m Module,
        info: &'m ModuleInfo,
        buffers: &'r mut [Region],
        bindings: &[Binding],
        grid: [u32; 3],
        options: Options,
        first: u32,
    ) -> Result<Machine<'m, 'r>, Refusal> {
        let [entry] = &module.entry_points[..] else {
            return Err(Refusal("expected one entry point".into()));
        };
        let types = Types::new(module);
        let halves = has_halves(module);
        let (mut windows, mut workgroup) = (Vec::new(), Vec::new());
        for (_, variable) in module.global_variables.iter() {
            let (name, ty) = (variable.name.clone().unwrap_or_default(), variable.ty);
            let window = match variable.space {
                AddressSpace::WorkGroup => {
                    let size = types.inner(variable.ty).size(module.to_ctx()) as usize;
                    let mut region = Region::new(vec![0; size], halves, false);
                    region.watch();
                    workgroup.push(region);
                    Window {
                        name,
                        ty,
                        space: variable.space,
                        region: workgroup.len() - 1,
                        offset: 0,
                        size,
                        input: false,
                        writable: true,
                    }
                }
                // Each invocation's own, which stands beside the functions' variables.
                AddressSpace::Private => Window {
                    name,
                    ty,
                    space: variable.space,
                    region: 0,
                    offset: 0,
                    size: 0,
                    input: false,
                    writable: false,
                },
                AddressSpace::Uniform | AddressSpace::Storage { .. } => {
                    let bound = bindings
                        .iter()
                        .find(|binding| binding.name == name)
                        .ok_or_else(|| Refusal(format!("binding `{name}` was not given")))?;
                    let writable = matches!(variable.space, AddressSpace::Storage { access }
                        if access.contains(StorageAccess::STORE));
                    Window {
                        name,
                        ty,
                        space: variable.space,
                        region: bound.region,
                        offset: bound.offset,
                        size: bound.size,
                        input: bound.input,
                        writable,
                    }
                }
                other => return Err(Refusal(format!("`{name}` is in {}", called(&other)))),
            };
            windows.push(Rc::new(window));
        }
        // Who only reads a buffer that nobody writes cannot race.
        let is_buffer = |window: &&Rc<Window>| window.space != AddressSpace::WorkGroup;
        let written = windows.iter().filter(is_buffer).filter(|window| window.writable);
        let written: Vec<usize> = written.map(|window| window.region).collect();
        for region in written {
            if !buffers[region].is_watched() {
                buffers[region].watch();
            }
        }
        let [x, y, z] = entry.workgroup_size;
        Ok(Machine {
            module,
            info,
            types,
            buffers,
            workgroup,
            windows,
            privates: Vec::new(),
            grid,
            options,
            lanes: (x * y * z) as usize,
            frames: Vec::new(),
            group: [0; 3],
            first,
            number: first,
            epochs: [0; 2],
            steps: 0,
            end: End::Whole,
            in_part: false,
            seen: BTreeMap::new(),
        })
    }

    pub fn next_group(&self) -> u32 {
        self.number
    }

    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    pub fn window(&self, global: usize) -> Result<Rc<Window>, Refusal> {
        let window = self.windows.get(global).cloned();
        window.ok_or_else(|| Refusal("a global variable has no memory".into()))
    }

    fn region(&mut self, window: &Window) -> &mut Region {
        match window.space {
            AddressSpace::WorkGroup => &mut self.workgroup[window.region],
            _ => &mut self.buffers[window.region],
        }
    }

    /// All workgroups, in order.
    pub fn run(&mut self) -> Result<(), Refusal> {
        let [x, y, z] = self.grid;
        let groups: f64 = self.grid.iter().map(|&count| f64::from(count)).product();
        let some = self.options.corners.then(|| corners(self.grid));
        if let Some(some) = some {
            self.in_part = (some.len() as f64) < groups;
            for group in some {
                if !self.run_at(group)? {
                    break;
                }
            }
            return Ok(());
        }
        // Each takes some statements.
        if groups * 8.0 > self.options.most as f64 {
            self.end = End::TooLong;
            return Ok(());
        }
        for group_z in 0..z {
            for group_y in 0..y {
                for group_x in 0..x {
                    if !self.run_at([group_x, group_y, group_z])? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// One workgroup; false where nothing more is executed.
    fn run_at(&mut self, group: [u32; 3]) -> Result<bool, Refusal> {
        self.group = group;
        self.epochs = [0; 2];
        self.reset_privates()?;
        if self.is_tired(self.lanes) {
            return Ok(false);
        }
        self.run_group()?;
        self.number += 1;
        Ok(true)
    }

    /// Whether workgroups were left out.
    pub fn in_part(&self) -> bool {
        self.in_part
    }

    /// Private variables as every workgroup begins with them.
    fn reset_privates(&mut self) -> Result<(), Refusal> {
        let module = self.module;
        self.privates.clear();
        for (_, variable) in module.global_variables.iter() {
            let data = match (variable.space, variable.init) {
                (AddressSpace::Private, Some(init)) => self.constant(init)?,
                (AddressSpace::Private, None) => {
                    Data::uniform(vec![0; self.types.flat(variable.ty)?.len() as usize])
                }
                _ => Data::uniform(Vec::new()),
            };
            self.privates.push(data);
        }
        Ok(())
    }

    /// Counts a statement of so many invocations; whether nothing more is executed.
    pub fn is_tired(&mut self, active: usize) -> bool {
        self.steps += 1 + active as u64 / 32;
        if self.steps > self.options.most && self.end == End::Whole {
            self.end = End::TooLong;
        }
        self.end != End::Whole
    }

    /// What stands at a byte of a variable, as people write it: `part[3].x`.
    fn spot(&self, window: &Window, byte: u32) -> String {
        format!("`{}{}`", window.name, self.types.path(self.types.inner(window.ty), byte))
    }

    /// The innermost function.
    pub fn frame(&mut self) -> Result<&mut Frame<'m>, Refusal> {
        self.frames.last_mut().ok_or_else(|| Refusal("no function is executed".into()))
    }

    /// Type of an expression of the innermost function.
    pub fn type_of(&self, expression: Handle<Expression>) -> Result<&naga::TypeInner, Refusal> {
        let frame = self.frames.last().ok_or_else(|| Refusal("no function".into()))?;
        Ok(frame.info[expression].ty.inner_with(&self.module.types))
    }

    /// The kind of scalar of an expression.
    pub fn scalar_of(&self, expression: Handle<Expression>) -> Result<Scalar, Refusal> {
        let inner = self.type_of(expression)?;
        match inner.scalar() {
            Some(scalar) => Scalar::of(scalar),
            None => Ok(self.types.flat_of(inner)?.scalar()),
        }
    }

    /// Keeps what was seen; the same at the same place is counted.
    pub fn see(&mut self, kind: FaultKind, span: Span, what: impl FnOnce() -> String) {
        self.see_both(kind, span, None, what);
    }

    fn see_both(
        &mut self,
        kind: FaultKind,
        span: Span,
        other: Option<Span>,
        what: impl FnOnce() -> String,
    ) {
        let at = (kind, [key(span), other.map_or((0, 0), key)]);
        let seen =
            self.seen.entry(at).or_insert_with(|| Seen { span, other, what: what(), times: 0 });
        seen.times += 1;
    }

    pub fn sightings(self, line: &dyn Fn(Span) -> Option<usize>) -> Vec<Sighting> {
        let sighting = |((kind, _), seen): ((FaultKind, _), Seen)| {
            let other = seen.other.and_then(line).map_or("?".to_string(), |n| n.to_string());
            Sighting {
                kind,
                line: line(seen.span),
                what: seen.what.replace("{other}", &format!("{{line {other}}}")),
                times: seen.times,
            }
        };
        self.seen.into_iter().map(sighting).collect()
    }

    fn mark(&self, window: &Window, lane: u32, atomic: bool, span: Span) -> Mark {
        let of_workgroup = window.space == AddressSpace::WorkGroup;
        let epoch = if of_workgroup { self.epochs[0] } else { self.epochs[1] };
        Mark { group: self.number, lane, epoch, atomic, span }
    }

    /// The first workgroup whose accesses count: of workgroup memory the one at work.
    fn since(&self, window: &Window) -> u32 {
        if window.space == AddressSpace::WorkGroup { self.number } else { self.first }
    }

    /// One scalar, read by invocation `lane`.
    pub fn load(
        &mut self,
        global: usize,
        byte: u32,
        scalar: Scalar,
        lane: u32,
        atomic: bool,
        span: Span,
    ) -> Result<u32, Refusal> {
        let window = self.window(global)?;
        let width = scalar.width() as usize;
        if byte as usize + width > window.size {
            self.see_beyond(&window, byte, span, false);
            return Ok(0);
        }
        let at = window.offset + byte as usize;
        let (mark, since) = (self.mark(&window, lane, atomic, span), self.since(&window));
        let in_workgroup = window.space == AddressSpace::WorkGroup;
        let region = self.region(&window);
        let bits = region.load(at, scalar);
        let is_written = region.is_written(at, if in_workgroup { since } else { 1 });
        let conflict = region.note_read(at, scalar, &mark, since);
        if !is_written {
            let spot = self.spot(&window, byte);
            let (kind, why) = match in_workgroup {
                true => (
                    FaultKind::UninitialisedWorkgroupMemory,
                    " (WGSL promises zeros there, but kernels run without that zeroing here)",
                ),
                false => (FaultKind::ReadsOutput, ""),
            };
            self.see(kind, span, || {
                format!("{spot} is read, where nothing was written before{why}")
            });
        }
        if let Some(conflict) = conflict {
            self.see_conflict(&window, byte, &conflict, &mark);
        }
        Ok(bits)
    }

    /// One scalar, written by invocation `lane`.
    #[allow(clippy::too_many_arguments, reason = "what a store is")]
    pub fn store(
        &mut self,
        global: usize,
        byte: u32,
        scalar: Scalar,
        bits: u32,
        lane: u32,
        atomic: bool,
        span: Span,
    ) -> Result<(), Refusal> {
        let window = self.window(global)?;
        let width = scalar.width() as usize;
        if byte as usize + width > window.size {
            self.see_beyond(&window, byte, span, true);
            return Ok(());
        }
        if window.input {
            let (name, spot) = (&window.name, self.spot(&window, byte));
            self.see(FaultKind::WritesInput, span, || {
                format!("`{name}` is an input, and {spot} is written")
            });
        }
        let at = window.offset + byte as usize;
        let (mark, since) = (self.mark(&window, lane, atomic, span), self.since(&window));
        let number = self.number;
        let region = self.region(&window);
        let before = region.load(at, scalar);
        let conflict = region.note_write(at, scalar, &mark, since);
        region.store(at, scalar, bits, number);
        // A workgroup's invocations that put the same there agree, as on a flag.
        let agrees = |it: &Conflict| {
            it.writes == [true, true] && it.earlier.group == mark.group && before == bits
        };
        if let Some(conflict) = conflict.filter(|conflict| !agrees(conflict)) {
            self.see_conflict(&window, byte, &conflict, &mark);
        }
        Ok(())
    }

    fn see_beyond(&mut self, window: &Window, byte: u32, span: Span, writes: bool) {
        let (name, size, spot) = (&window.name, window.size, self.spot(window, byte));
        let kind = if writes { FaultKind::OutOfBoundsWrite } else { FaultKind::OutOfBoundsRead };
        self.see(kind, span, || format!("{spot}, where `{name}` has ended: it has {size} bytes"));
    }

    /// An index that an array or a vector does not have.
    pub fn see_index(&mut self, name: &str, beyond: Option<(i64, u32)>, span: Span, writes: bool) {
        let kind = if writes { FaultKind::OutOfBoundsWrite } else { FaultKind::OutOfBoundsRead };
        let (index, count) = beyond.unwrap_or((0, 0));
        let group = self.group;
        self.see(kind, span, || {
            format!(
                "index {index} of `{name}`, which has {count} elements (first by workgroup \
                 {group:?})"
            )
        });
    }

    fn see_conflict(&mut self, window: &Window, byte: u32, conflict: &Conflict, me: &Mark) {
        let Conflict { earlier, writes } = *conflict;
        let same_group = earlier.group == me.group;
        let does = |writes: bool| if writes { "writes" } else { "reads" };
        let [first, second] = writes.map(does);
        let spot = self.spot(window, byte);
        let lanes = self.lanes as u32;
        let called = |lane: u32| match lane {
            OTHERS => "another one".to_string(),
            lane if lane >= lanes => format!("subgroup {} together", lane - lanes),
            lane => format!("invocation {lane}"),
        };
        // Without a barrier, who comes first is chance; where both write, no barrier would say
        // whose value stays.
        if same_group && writes != [true, true] {
            self.see_both(FaultKind::MissingBarrier, me.span, Some(earlier.span), || {
                format!(
                    "{} {second} {spot} that {} {first} in {{other}}, with no barrier between",
                    called(me.lane),
                    called(earlier.lane)
                )
            });
            return;
        }
        let whose = match same_group {
            true => format!("{} and {}", called(me.lane), called(earlier.lane)),
            false => "two workgroups".to_string(),
        };
        self.see_both(FaultKind::Race, me.span, Some(earlier.span), || {
            format!("{whose} meet at {spot}: one {second} what the other {first} in {{other}}")
        });
    }
}

/// Whether f16 is in any of the module's types.
pub(crate) fn has_halves(module: &Module) -> bool {
    let half = |scalar: naga::Scalar| scalar == naga::Scalar::F16;
    module.types.iter().any(|(_, ty)| ty.inner.scalar().is_some_and(half))
}
