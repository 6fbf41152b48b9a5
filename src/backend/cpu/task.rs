//! A step of a plan, compiled: where it reads and writes, and what it does.

use super::memory::{Span, Turn};
use cpu_kernels::activation as functions;
use cpu_kernels::epilogue::{self as entries, Epilogue as Entry};

/// What a step reads, by the number of the input.
pub(crate) struct Inputs<'a> {
    spans: &'a [Option<Span>],
    joined: Option<&'a Span>,
    turn: &'a Turn<'a>,
}

impl Inputs<'_> {
    /// Input `index`; empty where the output stands in its place, or where it is a weight that
    /// kernels take in another layout.
    pub fn get(&self, index: usize) -> &[f32] {
        match self.spans.get(index) {
            // SAFETY: the turn is held, and when the step was compiled it was checked that it
            // writes to none of these.
            Some(Some(span)) => unsafe { span.read(self.turn) },
            _ => &[],
        }
    }

    /// What the step before makes, where it is joined to this one: to be written.
    ///
    /// # Safety
    /// A run may ask once.
    #[expect(clippy::mut_from_ref, reason = "asked for once, while the turn is held")]
    pub unsafe fn joined(&self) -> &mut [f32] {
        // SAFETY: the turn is held, and when the step was compiled it was checked that this
        // overlaps nothing else.
        self.joined.map(|span| unsafe { span.write(self.turn) }).unwrap_or_default()
    }

    /// Input `index` of indices.
    pub fn ids(&self, index: usize) -> &[u32] {
        bytemuck::cast_slice(self.get(index))
    }
}

/// Makes a result of inputs and epilogue; the last is scratch.
pub(super) type Run = dyn Fn(&Inputs<'_>, &[Entry<'_>], &mut [f32], &mut [f32]) + Send + Sync;

/// A step, compiled: where it reads and writes, and what it does.
pub(crate) struct Task {
    pub(super) inputs: Vec<Option<Span>>,
    pub(super) epilogue: Vec<EntryAt>,
    pub(super) output: Span,
    /// Of the step before, where that is done in the same go.
    pub(super) joined: Option<Span>,
    pub(super) scratch: Option<Span>,
    pub(super) run: Box<Run>,
}

impl Task {
    pub(super) fn output(&self) -> &Span {
        &self.output
    }

    /// What the step before makes, where that is done in the same go.
    pub(super) fn joined(&self) -> Option<&Span> {
        self.joined.as_ref()
    }

    /// Bytes that it reads and writes, weights aside.
    pub(super) fn bytes(&self) -> u64 {
        let operands = self.epilogue.iter().flat_map(EntryAt::spans);
        let outputs = [&self.output].into_iter().chain(&self.joined);
        self.inputs.iter().flatten().chain(operands).chain(outputs).map(Span::bytes).sum()
    }

    pub(super) fn run(&self, turn: &Turn<'_>) {
        /// Entries of an epilogue that cost no allocation.
        const MOST: usize = 16;
        let inputs = Inputs { spans: &self.inputs, joined: self.joined.as_ref(), turn };
        // SAFETY: the turn is held, and when the step was compiled it was checked that what it
        // writes overlaps nothing else.
        let (y, scratch) = unsafe {
            (self.output.write(turn), self.scratch.as_ref().map(|span| span.write(turn)))
        };
        let scratch = scratch.unwrap_or_default();
        if self.epilogue.len() > MOST {
            let all: Vec<Entry<'_>> = self.epilogue.iter().map(|entry| entry.at(turn)).collect();
            return (self.run)(&inputs, &all, y, scratch);
        }
        let mut all = [Entry::Scale(1.0); MOST];
        for (entry, from) in all.iter_mut().zip(&self.epilogue) {
            *entry = from.at(turn);
        }
        (self.run)(&inputs, &all[..self.epilogue.len()], y, scratch);
    }
}

/// An entry of an epilogue with the places of its operands.
pub(super) enum EntryAt {
    Function(functions::Function),
    Scale(f32),
    Add(Span, entries::Broadcast),
    Multiply(Span, entries::Broadcast),
    Derivative(functions::Function, Span),
    Lora { hidden: Span, up: Span, rank: usize, transposed: bool },
}

impl EntryAt {
    pub fn spans(&self) -> impl Iterator<Item = &Span> + Clone {
        let [a, b] = match self {
            EntryAt::Function(_) | EntryAt::Scale(_) => [None, None],
            EntryAt::Add(t, _) | EntryAt::Multiply(t, _) | EntryAt::Derivative(_, t) => {
                [Some(t), None]
            }
            EntryAt::Lora { hidden, up, .. } => [Some(hidden), Some(up)],
        };
        a.into_iter().chain(b)
    }

    fn at<'a>(&'a self, turn: &'a Turn<'_>) -> Entry<'a> {
        // SAFETY: the turn is held, and when the step was compiled it was checked that it writes to
        // none of these.
        let read = |span: &'a Span| unsafe { span.read(turn) };
        match self {
            EntryAt::Function(function) => Entry::Function(*function),
            EntryAt::Scale(factor) => Entry::Scale(*factor),
            EntryAt::Add(t, broadcast) => Entry::Add(read(t), *broadcast),
            EntryAt::Multiply(t, broadcast) => Entry::Multiply(read(t), *broadcast),
            EntryAt::Derivative(function, t) => Entry::Derivative(*function, read(t)),
            EntryAt::Lora { hidden, up, rank, transposed } => Entry::Lora {
                hidden: read(hidden),
                up: read(up),
                rank: *rank,
                transposed: *transposed,
            },
        }
    }
}
