//! Attention by cooperative matrices: which calls that suits, and how tokens and keys are shared
//! out.

use crate::backend::wgpu::lowering::{Lowering, Work};
use crate::backend::wgpu::tuned::AttentionMatricesSizes;
use crate::backend::wgpu::{Matrices, Params, Schedule, Traits, Value};
use crate::graph::ops::attention::Attention;
use crate::graph::ops::regional_attention::{REGION_GROUP, RegionalAttention};

/// In powers of 2: how far a score may exceed its reference (2^15 is in f16's range), and how far
/// the reference is put below the greatest score when it is raised.
pub(in crate::backend::wgpu) const MOST: usize = 15;
pub(in crate::backend::wgpu) const HEADROOM: usize = 6;

/// How a workgroup's subgroups share out lines of a head, queries or keys, in all kernels that keep
/// a line in one subgroup's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    matrices: Matrices,
    /// Channels of a head, and as many as fill matrices.
    pub d: usize,
    pub padded: usize,
    /// Rows of matrices that a subgroup makes.
    pub each: usize,
}

impl Lines {
    /// Subgroups of a workgroup.
    const PARTS: usize = 4;

    /// Half as many lines a subgroup as it has lanes; none for heads that are too wide.
    pub fn of(matrices: Matrices, sizes: &AttentionMatricesSizes, d: usize) -> Option<Lines> {
        let padded = d.next_multiple_of(matrices.size);
        let suits = d > 0 && d.is_multiple_of(4) && padded <= sizes.widest;
        suits.then_some(Lines { matrices, d, padded, each: Self::half(matrices) })
    }

    fn half(matrices: Matrices) -> usize {
        (matrices.lanes / matrices.size / 2).max(1)
    }

    /// Twice as many, where subgroups have lanes for it.
    fn doubled(self) -> Lines {
        Lines { each: (self.matrices.lanes / self.matrices.size).max(1), ..self }
    }

    /// Of a workgroup.
    pub fn count(self) -> usize {
        Self::PARTS * self.each * self.matrices.size
    }

    pub fn params(self) -> Params {
        let Matrices { size, lanes, varying, .. } = self.matrices;
        [
            ("size", Value::from(size)),
            ("lanes", Value::from(lanes)),
            ("varying", Value::from(varying)),
            ("parts", Value::from(Self::PARTS)),
            ("each", Value::from(self.each)),
            ("d", Value::from(self.d)),
            ("padded", Value::from(self.padded)),
        ]
        .into()
    }
}

/// How the kernel `attention_matrices` divides tokens and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    lines: Lines,
    /// Keys in workgroup memory at a time.
    keys: usize,
    /// Whether the next ones are loaded while these are worked on.
    ahead: bool,
}

impl Tiles {
    /// Keys at a time; fewer where memory is short. What is added up first hangs on it, so nothing
    /// but the head's width and the device decides.
    const KEYS: [usize; 2] = [32, 16];

    /// What fits `memory` bytes of workgroup memory, for `planes` heads of `d` channels and
    /// `tokens` tokens.
    pub fn of(
        matrices: Matrices,
        sizes: &AttentionMatricesSizes,
        memory: usize,
        d: usize,
        tokens: usize,
        planes: usize,
    ) -> Option<Tiles> {
        let half = Lines::of(matrices, sizes, d)?;
        let of = |lines: Lines, keys: usize| {
            let tiles = Tiles { lines, keys, ahead: false };
            Tiles { ahead: tiles.vectors() <= sizes.ahead, ..tiles }
        };
        let fits = |tiles: &Tiles| tiles.memory() <= memory.min(sizes.memory);
        // Few tokens are made alike whatever the batch.
        let many = |tiles: &Tiles| {
            tokens >= 2 * tiles.tokens() && tokens.div_ceil(tiles.tokens()) * planes >= sizes.enough
        };
        let large = |tiles: &Tiles| half.padded <= sizes.widest_large && many(tiles);
        let tiles = Self::KEYS.map(|keys| [of(half.doubled(), keys), of(half, keys)]);
        let [first, second] = tiles;
        first
            .into_iter()
            .chain(second)
            .find(|tiles| fits(tiles) && (tiles.lines == half || large(tiles)))
    }

    /// Tokens that a workgroup makes.
    pub fn tokens(self) -> usize {
        self.lines.count()
    }

    /// Bytes of workgroup memory, as the kernel declares it.
    fn memory(self) -> usize {
        let padded = self.lines.padded;
        let (row, scores_row) = (padded + 8, self.keys + 8);
        let halves = (self.tokens() * row)
            .max(padded * scores_row + self.keys * row + self.tokens() * scores_row);
        (2 * halves).next_multiple_of(16) + 4 * self.tokens() * (scores_row + 4) + 16
    }

    /// Vectors of the next keys and values that an invocation would load ahead.
    fn vectors(self) -> usize {
        let invocations = Lines::PARTS * self.lines.matrices.lanes;
        2 * (self.keys * self.lines.d / 4).div_ceil(invocations)
    }

    /// As [`Tiles::of`], of workgroups that make no more tokens than share a table of regions, as
    /// far as subgroups allow it: numbers are the same.
    fn regional(self) -> Tiles {
        let half = Lines::half(self.lines.matrices);
        if self.tokens() > REGION_GROUP {
            Tiles { lines: Lines { each: self.lines.each.min(half), ..self.lines }, ..self }
        } else {
            self
        }
    }

    fn params(self, keys: usize) -> Params {
        let mut params = self.lines.params();
        params.extend([
            ("keys", Value::from(self.keys)),
            ("causal", Value::from(false)),
            ("masked", Value::from(false)),
            ("regional", Value::from(false)),
            ("ragged", Value::from(!keys.is_multiple_of(self.keys))),
            ("ahead", Value::from(self.ahead)),
            ("most", Value::from(MOST)),
            ("headroom", Value::from(HEADROOM)),
        ]);
        params
    }
}

/// How the kernel `attention_matrices_wide` divides tokens, keys and the elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::wgpu) struct WideTiles {
    matrices: Matrices,
    d: usize,
    padded: usize,
    /// Rows of matrices that a workgroup makes.
    each: usize,
}

impl WideTiles {
    /// Subgroups of a workgroup, which share out keys and elements.
    const PARTS: usize = 4;
    /// Elements of queries and keys, and matrices of values, in workgroup memory at a time.
    const CHUNK: usize = 64;
    const STEP: usize = 1;
    /// Sums of an invocation at most.
    const SUMS: usize = 128;

    /// What fits `memory` bytes of workgroup memory.
    pub fn of(
        matrices: Matrices,
        sizes: &AttentionMatricesSizes,
        memory: usize,
        d: usize,
    ) -> Option<WideTiles> {
        let Matrices { size, lanes, .. } = matrices;
        let padded = d.next_multiple_of(Self::PARTS * size);
        if d == 0 || !d.is_multiple_of(4) || padded > sizes.widest_shared {
            return None;
        }
        let sums = size * padded / Self::PARTS / lanes;
        let tiles = [4, 2, 1].map(|each| WideTiles { matrices, d, padded, each });
        // Eight lanes take the exponentials of a row.
        let fits = |tiles: &WideTiles| {
            let rows = tiles.tokens();
            tiles.memory() <= memory.min(sizes.memory)
                && tiles.each * sums <= Self::SUMS
                && rows >= Self::PARTS * lanes / 8
        };
        tiles.into_iter().find(fits)
    }

    /// Tokens that a workgroup makes.
    pub fn tokens(self) -> usize {
        self.each * self.matrices.size
    }

    /// Bytes of workgroup memory, as the kernel declares it.
    fn memory(self) -> usize {
        let (rows, keys) = (self.tokens(), Self::PARTS * self.matrices.size);
        let staged = ((rows + keys) * (Self::CHUNK + 8))
            .max(Self::STEP * self.matrices.size * (self.padded + 8));
        let halves = staged + rows * (keys + 8);
        (2 * halves).next_multiple_of(16) + 4 * rows * (keys + 8 + 2) + 16
    }

    pub fn params(self, keys: usize) -> Params {
        let Matrices { size, lanes, varying, .. } = self.matrices;
        [
            ("size", Value::from(size)),
            ("lanes", Value::from(lanes)),
            ("varying", Value::from(varying)),
            ("parts", Value::from(Self::PARTS)),
            ("each", Value::from(self.each)),
            ("chunk", Value::from(Self::CHUNK)),
            ("step", Value::from(Self::STEP * size)),
            ("d", Value::from(self.d)),
            ("padded", Value::from(self.padded)),
            ("ragged", Value::from(!keys.is_multiple_of(Self::PARTS * size))),
            ("most", Value::from(MOST)),
            ("headroom", Value::from(HEADROOM)),
        ]
        .into()
    }
}

/// The matrices that attention of `heads` is made of here, if it is: where weights are held in f16,
/// so not where a graph keeps f32 ([`Lowering::rounds`]). With the width of a head and how many
/// there are.
fn made_of(lowering: &Lowering<'_>, heads: usize) -> Option<(Matrices, usize, usize)> {
    let Schedule::Matrices(matrices) = lowering.traits.schedule else { return None };
    let q = lowering.input_shape(0);
    let made = lowering.rounds && matrices.attention;
    made.then_some((matrices, q.channels() / heads, q[0] * heads))
}

fn tiles(lowering: &Lowering<'_>, heads: usize) -> Option<Tiles> {
    let (matrices, d, planes) = made_of(lowering, heads)?;
    let Traits { tuned, workgroup_memory, .. } = &lowering.traits;
    let tokens = lowering.input_shape(0)[1];
    Tiles::of(matrices, &tuned.attention_matrices, *workgroup_memory, d, tokens, planes)
}

impl Attention {
    /// Dispatches this attention by matrices, where it is made of them.
    pub(super) fn lower_matrices(&self, lowering: &mut Lowering<'_>) -> bool {
        let (q, keys) = (lowering.shape().clone(), lowering.input_shape(1)[1]);
        let masked = lowering.step.inputs.len() > 3;
        if let Some(tiles) = tiles(lowering, self.heads) {
            let mut params = tiles.params(keys);
            params.extend([("causal", Value::from(self.causal)), ("masked", Value::from(masked))]);
            let grid = [q[1].div_ceil(tiles.tokens()), self.heads, q[0]];
            self.dispatch(lowering, "attention_matrices", params, 4, grid);
            return true;
        }
        // Wide heads to prompts are left as they are: those of regions are made by none of these.
        if self.causal || masked || self.to_prompt {
            return false;
        }
        let made = made_of(lowering, self.heads).filter(|(matrices, ..)| matrices.wide);
        let Some((matrices, d, _)) = made else { return false };
        let Traits { tuned, workgroup_memory, .. } = &lowering.traits;
        let wide = WideTiles::of(matrices, &tuned.attention_matrices, *workgroup_memory, d);
        let Some(tiles) = wide else { return false };
        let grid = [q[1].div_ceil(tiles.tokens()), self.heads, q[0]];
        self.dispatch(lowering, "attention_matrices_wide", tiles.params(keys), 4, grid);
        true
    }
}

impl RegionalAttention {
    /// Makes `work`, that of the kernel without matrices, one of theirs where attention is made of
    /// them: each prompt as plain attention makes it.
    pub(super) fn by_matrices(&self, lowering: &Lowering<'_>, work: &mut Work<'_>) {
        let Some(tiles) = tiles(lowering, self.heads).map(Tiles::regional) else { return };
        let q = lowering.shape();
        work.kernel = "attention_matrices";
        // A prompt's keys end anywhere.
        work.params = tiles.params(0);
        work.params.extend([
            ("regional", Value::from(true)),
            ("ragged", Value::from(true)),
            ("group", Value::from(REGION_GROUP)),
        ]);
        work.grid = [q[1].div_ceil(tiles.tokens()), self.heads, q[0]];
    }
}
