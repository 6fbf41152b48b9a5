//! Attention by cooperative matrices: which calls that suits, and how tokens and keys are shared
//! out.

use crate::backend::wgpu::lowering::Lowering;
use crate::backend::wgpu::tuned::AttentionMatricesSizes;
use crate::backend::wgpu::{Matrices, Schedule, Traits, Value};
use crate::graph::ops::attention::Attention;

/// How the kernel `attention_matrices` divides tokens and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    matrices: Matrices,
    /// Channels of a head, and as many as fill matrices.
    d: usize,
    padded: usize,
    /// Rows of matrices that a subgroup makes.
    each: usize,
    /// Keys in workgroup memory at a time.
    keys: usize,
    /// Whether the next ones are loaded while these are worked on.
    ahead: bool,
}

impl Tiles {
    /// Subgroups of a workgroup.
    const PARTS: usize = 4;
    /// Keys at a time; fewer where memory is short.
    const KEYS: [usize; 2] = [32, 16];
    /// In powers of 2: how far a score may exceed its reference (2^15 is in f16's range), and how
    /// far the reference is put below the greatest score when it is raised.
    const MOST: usize = 15;
    const HEADROOM: usize = 6;

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
        let padded = d.next_multiple_of(matrices.size);
        if d == 0 || !d.is_multiple_of(4) || padded > sizes.widest {
            return None;
        }
        let of = |each: usize, keys: usize| {
            let tiles = Tiles { matrices, d, padded, each, keys, ahead: false };
            Tiles { ahead: tiles.vectors() <= sizes.ahead, ..tiles }
        };
        let fits = |tiles: &Tiles| tiles.memory() <= memory.min(sizes.memory);
        // Few tokens are made alike whatever the batch.
        let many = |tiles: &Tiles| {
            tokens >= 2 * tiles.tokens() && tokens.div_ceil(tiles.tokens()) * planes >= sizes.enough
        };
        let large = |tiles: &Tiles| padded <= sizes.widest_large && many(tiles);
        let [most, half] = [1, 2].map(|n| (matrices.lanes / matrices.size / n).max(1));
        let tiles = Self::KEYS.map(|keys| [of(most, keys), of(half, keys)]);
        let [first, second] = tiles;
        first
            .into_iter()
            .chain(second)
            .find(|tiles| fits(tiles) && (tiles.each == half || large(tiles)))
    }

    /// Tokens that a workgroup makes.
    pub fn tokens(self) -> usize {
        Self::PARTS * self.each * self.matrices.size
    }

    /// Bytes of workgroup memory, as the kernel declares it.
    fn memory(self) -> usize {
        let (row, scores_row) = (self.padded + 8, self.keys + 8);
        let halves = (self.tokens() * row)
            .max(self.padded * scores_row + self.keys * row + self.tokens() * scores_row);
        (2 * halves).next_multiple_of(16) + 4 * self.tokens() * (scores_row + 2) + 16
    }

    /// Vectors of the next keys and values that an invocation would load ahead.
    fn vectors(self) -> usize {
        2 * (self.keys * self.d / 4).div_ceil(Self::PARTS * self.matrices.lanes)
    }
}

impl Attention {
    /// The tiles for this attention of queries `q` and keys `k`, where it is made of matrices:
    /// rounded to f16, so neither where a graph keeps f32 ([`Lowering::rounds`]) nor to prompts,
    /// which must come out as they do by regions.
    pub(super) fn tiles(&self, lowering: &Lowering<'_>) -> Option<Tiles> {
        let Schedule::Matrices(matrices) = lowering.traits.schedule else { return None };
        if self.to_prompt || !lowering.rounds || !matrices.attention {
            return None;
        }
        let q = lowering.shape();
        let (d, planes) = (q.channels() / self.heads, q[0] * self.heads);
        let Traits { tuned, workgroup_memory, .. } = &lowering.traits;
        Tiles::of(matrices, &tuned.attention_matrices, *workgroup_memory, d, q[1], planes)
    }

    pub(super) fn lower_matrices(&self, lowering: &mut Lowering<'_>, tiles: Tiles) {
        let (q, keys) = (lowering.shape().clone(), lowering.input_shape(1)[1]);
        let Matrices { size, lanes, varying, .. } = tiles.matrices;
        let masked = lowering.step.inputs.len() > 3;
        let params = [
            ("size", Value::from(size)),
            ("lanes", Value::from(lanes)),
            ("varying", Value::from(varying)),
            ("parts", Value::from(Tiles::PARTS)),
            ("each", Value::from(tiles.each)),
            ("keys", Value::from(tiles.keys)),
            ("d", Value::from(tiles.d)),
            ("padded", Value::from(tiles.padded)),
            ("causal", Value::from(self.causal)),
            ("masked", Value::from(masked)),
            ("ragged", Value::from(!keys.is_multiple_of(tiles.keys))),
            ("ahead", Value::from(tiles.ahead)),
            ("most", Value::from(Tiles::MOST)),
            ("headroom", Value::from(Tiles::HEADROOM)),
        ]
        .into();
        let grid = [q[1].div_ceil(tiles.tokens()), self.heads, q[0]];
        self.dispatch(lowering, "attention_matrices", params, 4, grid);
    }
}
