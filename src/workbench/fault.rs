//! What can be wrong with a kernel, each by its name.

use std::fmt;

use serde::Serialize;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FaultKind {
    /// A place is read that the binding, the array or the vector does not have.
    OutOfBoundsRead,
    /// A place is written that the binding or the array does not have.
    OutOfBoundsWrite,
    /// What was given to be read is written.
    WritesInput,
    /// Invocations write and read one place with no barrier between the two.
    MissingBarrier,
    /// Invocations write one place, or workgroups write and read one, in no order.
    Race,
    /// A barrier that not all invocations of the workgroup reach together.
    DivergentBarrier,
    /// A cooperative matrix that not all invocations of the subgroup load, store or multiply
    /// together, or of which they name other places.
    DivergentMatrix,
    /// Workgroup memory is read before anything is written there.
    UninitialisedWorkgroupMemory,
    /// An output is read before anything is written there.
    ReadsOutput,
    /// What comes out, or what is read, hangs on how many lanes a subgroup has.
    SubgroupSize,
    /// A number that f32 holds becomes an infinity in f16.
    F16Overflow,
    /// Elements of an output that no invocation writes.
    NotWritten,
    /// Numbers that belong to other places of the output, or rows that are right only where a
    /// stride does not count.
    WrongStride,
    /// Wrong at the last rows or columns alone, or at sizes alone that fill no tiles.
    RaggedEdge,
    /// Infinities or what is no number, where the reference is finite.
    NotFinite,
    /// Other numbers than the reference's.
    WrongValues,
    /// A loop that does not end.
    Endless,
    /// The device gives other bytes in another run.
    NotReproducible,
    /// The device gives other bytes where workgroups run in another order.
    DependsOnOrder,
    /// The device computes something else than the WGSL says.
    DeviceDiffers,
    /// The device refuses the kernel.
    Refused,
    /// More invocations or workgroups than devices have.
    TooMany,
}

impl FaultKind {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::OutOfBoundsRead => "out-of-bounds read",
            FaultKind::OutOfBoundsWrite => "out-of-bounds write",
            FaultKind::WritesInput => "an input is written",
            FaultKind::MissingBarrier => "missing barrier",
            FaultKind::Race => "race",
            FaultKind::DivergentBarrier => "barrier in divergent control flow",
            FaultKind::DivergentMatrix => "cooperative matrix in divergent control flow",
            FaultKind::UninitialisedWorkgroupMemory => "uninitialised workgroup memory",
            FaultKind::ReadsOutput => "an output is read before it is written",
            FaultKind::SubgroupSize => "dependence on the subgroup size",
            FaultKind::F16Overflow => "f16 overflow",
            FaultKind::NotWritten => "output not written",
            FaultKind::WrongStride => "wrong stride",
            FaultKind::RaggedEdge => "wrong at the edge",
            FaultKind::NotFinite => "not finite",
            FaultKind::WrongValues => "wrong values",
            FaultKind::Endless => "endless loop",
            FaultKind::NotReproducible => "not reproducible",
            FaultKind::DependsOnOrder => "dependence on the order of workgroups",
            FaultKind::DeviceDiffers => "the device differs",
            FaultKind::Refused => "refused by the device",
            FaultKind::TooMany => "more than devices have",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something wrong with a kernel, where it is and what was seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Of which kind.
    pub kind: FaultKind,
    /// The line of the file, counted from 1, where one can be named.
    pub line: Option<usize>,
    /// The file of that line: the kernel's own, or a part that it imports.
    pub file: Option<String>,
    /// What was seen, with names and indices.
    pub what: String,
    /// The shape at which it was seen first.
    pub shape: String,
    /// At how many shapes it was seen.
    pub shapes: usize,
    /// Where there is a line: how often it happened there, at all shapes and with all sizes of
    /// subgroups together. Else how many comparisons found it.
    pub times: u64,
    /// The shape at which it was seen last.
    #[serde(skip)]
    latest: String,
}

impl Fault {
    /// Seen for the first time, and not yet counted.
    pub(super) fn new(
        kind: FaultKind,
        place: Option<(String, usize)>,
        what: String,
        shape: &str,
    ) -> Fault {
        let (file, line) = place.unzip();
        let (shape, latest) = (shape.to_string(), String::new());
        Fault { kind, line, file, what, shape, shapes: 0, times: 0, latest }
    }

    /// Counts it: so many times at a shape, which come one after the other.
    pub(super) fn count(&mut self, shape: &str, times: u64) {
        if self.latest != shape {
            self.shapes += 1;
            self.latest = shape.to_string();
        }
        self.times += times;
    }

    /// With how often it was seen, at how many of so many shapes.
    pub fn told(&self, shapes: usize) -> String {
        let mut often = Vec::new();
        if self.shapes > 1 {
            // One at which nothing could be executed is none of those.
            let of = if shapes < self.shapes { "".into() } else { format!(" of {shapes}") };
            often.push(format!("at {}{of} shapes", self.shapes));
        }
        if self.line.is_some() && self.times > 1 {
            often.push(format!("{} times in all", self.times));
        }
        let first = if self.shapes > 1 { "first at " } else { "at " };
        let at = (!self.shape.is_empty()).then(|| format!("{first}{}", self.shape));
        let all: Vec<String> = at.into_iter().chain(often).collect();
        match all.is_empty() {
            true => self.sentence(),
            false => format!("{} ({})", self.sentence(), all.join("; ")),
        }
    }

    /// Place, kind and what was seen.
    fn sentence(&self) -> String {
        let Fault { kind, what, .. } = self;
        match (self.line, &self.file) {
            (Some(line), Some(file)) => format!("{file}:{line}: {kind}: {what}"),
            (Some(line), None) => format!("line {line}: {kind}: {what}"),
            (None, _) => format!("{kind}: {what}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())?;
        if !self.shape.is_empty() {
            write!(f, " (at {})", self.shape)?;
        }
        Ok(())
    }
}
