//! Parts of a parameter, and its channels.

use std::ops::Range;

/// Elements `range` of a parameter of `shape`, row-major.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// The whole parameter's.
    pub shape: &'a [usize],
    /// The elements that are meant.
    pub range: Range<usize>,
}

/// Reads elements of a parameter, row-major.
pub type ReadPart<'a, E> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<(), E> + 'a;

/// A side of a layer, whose channels are the rows or the columns of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What it reads: columns.
    Input,
    /// What it writes: rows.
    Output,
}

impl Side {
    /// Channels on that side of a weight of this shape; of a bias there are outputs alone.
    pub fn channels(self, shape: &[usize]) -> usize {
        match self {
            Side::Input => shape.get(1).copied().unwrap_or(0),
            Side::Output => shape.first().copied().unwrap_or(0),
        }
    }
}

impl Piece<'_> {
    /// Calls `each` with a channel of `side` and elements of it that lie one after another.
    pub fn for_channels(
        &self,
        side: Side,
        values: &mut [f32],
        mut each: impl FnMut(usize, &mut [f32]),
    ) {
        let inner = |axes: usize| self.shape.iter().skip(axes).product::<usize>().max(1);
        let (run, channels) = match side {
            Side::Output => (inner(1), usize::MAX),
            Side::Input => (inner(2), side.channels(self.shape).max(1)),
        };
        self.for_rows(run, values, |row, _, values| each(row % channels, values));
    }

    /// Calls `each` with a row of `width` elements, the first of its columns that is in the piece,
    /// and its elements.
    pub fn for_rows(
        &self,
        width: usize,
        values: &mut [f32],
        mut each: impl FnMut(usize, usize, &mut [f32]),
    ) {
        let width = width.max(1);
        let (mut at, mut rest) = (self.range.start, values);
        while !rest.is_empty() {
            let (row, first) = (at / width, at % width);
            let count = (width - first).min(rest.len());
            let (here, after) = rest.split_at_mut(count);
            each(row, first, here);
            (rest, at) = (after, at + count);
        }
    }
}
