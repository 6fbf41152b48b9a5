//! What expressions are, for all invocations of a workgroup at once.

use std::rc::Rc;

/// Numbers by their bits: `[component][invocation]`, or one for all invocations.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub bits: Vec<u32>,
    /// One number a component, the same for all invocations.
    pub uniform: bool,
}

impl Data {
    pub fn uniform(bits: Vec<u32>) -> Data {
        Data { bits, uniform: true }
    }

    pub fn at(&self, component: usize, lane: usize, lanes: usize) -> u32 {
        if self.uniform { self.bits[component] } else { self.bits[component * lanes + lane] }
    }

    pub fn components(&self, lanes: usize) -> usize {
        if self.uniform { self.bits.len() } else { self.bits.len() / lanes }
    }

    /// One number for each invocation.
    pub fn expanded(&self, lanes: usize) -> Vec<u32> {
        if !self.uniform {
            return self.bits.clone();
        }
        self.bits.iter().flat_map(|&bits| std::iter::repeat_n(bits, lanes)).collect()
    }

    /// Components `from .. from + count`.
    pub fn slice(&self, from: usize, count: usize, lanes: usize) -> Data {
        let each = if self.uniform { 1 } else { lanes };
        Data { bits: self.bits[from * each..(from + count) * each].to_vec(), uniform: self.uniform }
    }

    /// Those of all parts, one after the other.
    pub fn joined(parts: &[Rc<Data>], lanes: usize) -> Data {
        let uniform = parts.iter().all(|part| part.uniform);
        let mut bits = Vec::new();
        for part in parts {
            match uniform {
                true => bits.extend_from_slice(&part.bits),
                false => bits.extend(part.expanded(lanes)),
            }
        }
        Data { bits, uniform }
    }

    /// Each bit pattern through `f`.
    pub fn map(&self, f: impl Fn(u32) -> u32) -> Data {
        Data { bits: self.bits.iter().map(|&bits| f(bits)).collect(), uniform: self.uniform }
    }

    /// Pairs through `f`; of what has one component, that one meets all of the other's.
    pub fn zip(&self, other: &Data, lanes: usize, f: impl Fn(u32, u32) -> u32) -> Data {
        if self.uniform == other.uniform && self.bits.len() == other.bits.len() {
            let bits = self.bits.iter().zip(&other.bits).map(|(&a, &b)| f(a, b)).collect();
            return Data { bits, uniform: self.uniform };
        }
        let (a, b) = (self.components(lanes), other.components(lanes));
        let uniform = self.uniform && other.uniform;
        let each = if uniform { 1 } else { lanes };
        let mut bits = Vec::with_capacity(a.max(b) * each);
        for component in 0..a.max(b) {
            let (of_a, of_b) = (component.min(a - 1), component.min(b - 1));
            for lane in 0..each {
                bits.push(f(self.at(of_a, lane, lanes), other.at(of_b, lane, lanes)));
            }
        }
        Data { bits, uniform }
    }

    /// Components of several through `f`, which sees those of one invocation; `components` come
    /// out.
    pub fn gather(
        of: &[&Data],
        lanes: usize,
        components: usize,
        f: impl Fn(&dyn Fn(usize, usize) -> u32, &mut [u32]),
    ) -> Data {
        let uniform = of.iter().all(|data| data.uniform);
        let each = if uniform { 1 } else { lanes };
        let mut bits = vec![0; components * each];
        let mut out = vec![0; components];
        for lane in 0..each {
            f(&|data, component| of[data].at(component, lane, lanes), &mut out);
            for (component, &value) in out.iter().enumerate() {
                bits[component * each + lane] = value;
            }
        }
        Data { bits, uniform }
    }
}

/// Whose memory a pointer points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A variable of the function at this depth of calls; offsets count scalars.
    Local { frame: usize, variable: usize },
    /// A private variable, by its number among the global ones; offsets count scalars.
    Private(usize),
    /// A global variable, by its number; offsets count bytes.
    Global(usize),
}

/// An offset that no place has.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A pointer of each invocation.
#[derive(Clone, Debug)]
pub(super) struct Pointer {
    pub place: Place,
    /// One component.
    pub offsets: Data,
    /// An index that went out of bounds on the way here, and how many elements there are.
    pub beyond: Option<(i64, u32)>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Data(Rc<Data>),
    Pointer(Rc<Pointer>),
}
