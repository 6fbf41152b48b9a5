//! Cooperative matrices: whether an adapter has them as the heavy products want them, and how a
//! product is divided among them.

use std::str::FromStr;

use serde::Serialize;

use super::template::{Params, Value};
use super::tuned::MatmulMatricesSizes;

/// Cooperative matrices of f16 whose products are added up in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Matrices {
    /// Rows and columns of each: 8 or 16.
    pub size: usize,
    /// Invocations that a subgroup has at most.
    pub lanes: usize,
    /// Subgroups may have fewer.
    pub varying: bool,
    /// Attention is made of them as well as products.
    pub attention: bool,
    /// And so is attention of heads that subgroups share out, as the VAE's of 512 channels.
    pub wide: bool,
}

/// Matrices whose products came out right.
#[derive(Clone, Debug)]
pub(super) struct Tested {
    pub matrices: Matrices,
    /// What went wrong of attention: that is made without them.
    pub problems: Option<String>,
}

/// Whether to use cooperative matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatrixUse {
    /// Where the table of the adapter's sizes ([`Tuned`](super::Tuned)) has them.
    #[default]
    Auto,
    /// On every adapter that has them, software drivers too.
    On,
    /// Nowhere.
    Off,
}

/// A word that says nothing about the use of matrices.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown choice `{0}`: expected auto, on or off")]
pub struct UnknownMatrixUse(pub String);

impl FromStr for MatrixUse {
    type Err = UnknownMatrixUse;

    fn from_str(word: &str) -> Result<Self, UnknownMatrixUse> {
        match word {
            "auto" => Ok(MatrixUse::Auto),
            "on" => Ok(MatrixUse::On),
            "off" => Ok(MatrixUse::Off),
            other => Err(UnknownMatrixUse(other.to_string())),
        }
    }
}

impl MatrixUse {
    /// The matrices of an adapter that are to be used if they pass the test, or why none are.
    pub(super) fn choose(
        self,
        matrices: Option<Matrices>,
        faster: bool,
    ) -> Result<Matrices, String> {
        match (self, matrices) {
            (_, None) => Err("the adapter has none of f16 with sums in f32".into()),
            (MatrixUse::Off, _) => Err("switched off".into()),
            (MatrixUse::Auto, _) if !faster => Err("not faster on this kind of adapter".into()),
            (_, Some(matrices)) => Ok(matrices),
        }
    }
}

/// How a workgroup of the kernel `matmul_matrices` divides its part of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Subgroups of a workgroup, along rows and along outputs.
    pub(super) groups: [usize; 2],
    /// Rows and columns of matrices that a subgroup holds.
    pub(super) each: [usize; 2],
    /// Inputs in workgroup memory at a time.
    pub(super) depth: usize,
    pub(super) size: usize,
}

/// How several workgroups share the sums of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Workgroups that share a sum.
    pub count: usize,
    /// Steps over inputs that each takes; the last maybe fewer.
    pub steps: usize,
}

impl Blocks {
    /// Subgroups of a workgroup.
    const PARTS: usize = 4;
    /// Outputs that narrow blocks make.
    pub(super) const NARROW: usize = 16;

    /// Rows that a workgroup makes: 64 or 128 where subgroups have 32 lanes or more, else 32 or 64.
    pub fn rows(self) -> usize {
        self.groups[0] * self.each[0] * self.size
    }

    /// Outputs that a workgroup makes: 64, 128 or 16 where subgroups have 32 lanes or more, else 32
    /// or 16.
    pub fn outputs(self) -> usize {
        self.groups[1] * self.each[1] * self.size
    }

    /// Rows that a subgroup makes: what it sums up of channels is of so many.
    pub(super) fn chunk(self) -> usize {
        self.each[0] * self.size
    }

    /// Workgroups of so many rows and outputs.
    fn workgroups(self, rows: usize, outputs: usize) -> usize {
        rows.div_ceil(self.rows()) * outputs.div_ceil(self.outputs())
    }
}

impl Matrices {
    pub(super) const FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP);

    /// What the kernel can use of an adapter's matrices; larger ones first. `features` and `limits`
    /// are those that its device has or may have.
    pub(super) fn of(
        adapter: &wgpu::Adapter,
        features: wgpu::Features,
        limits: &wgpu::Limits,
    ) -> Option<Matrices> {
        let info = adapter.get_info();
        let (least, lanes) = match info.backend {
            // wgpu says 4 to 64 for all of Metal; those that have such matrices have 32, and one
            // that hasn't would fail the test.
            wgpu::Backend::Metal => (4, 32),
            _ => (info.subgroup_min_size as usize, info.subgroup_max_size as usize),
        };
        let invocations = Blocks::PARTS * lanes;
        let fits = invocations
            <= limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)
                as usize;
        if !features.contains(Self::FEATURES) || ![8, 16, 32, 64].contains(&lanes) || !fits {
            return None;
        }
        let kinds = adapter.cooperative_matrix_properties();
        let has = |size: u32| {
            kinds.iter().any(|kind| {
                [kind.m_size, kind.n_size, kind.k_size] == [size; 3]
                    && kind.ab_type == wgpu::CooperativeScalarType::F16
                    && kind.cr_type == wgpu::CooperativeScalarType::F32
            })
        };
        let size = [16, 8].into_iter().find(|&size| has(size))?;
        Some(Matrices {
            size: size as usize,
            lanes,
            varying: least < lanes,
            attention: true,
            wide: true,
        })
    }

    /// Whether kernels made for these run on an adapter that has `others`: of one size, and with
    /// no more lanes than are reckoned with.
    pub(super) fn suits(self, others: Matrices) -> bool {
        let same = self.lanes == others.lanes && self.varying == others.varying;
        let more = self.varying && self.lanes >= others.lanes;
        self.size == others.size && [8, 16, 32, 64].contains(&self.lanes) && (same || more)
    }

    /// As many matrices as give an invocation 32 sums at most.
    pub(super) fn small(self) -> Blocks {
        let most = 32 * self.lanes / (self.size * self.size);
        let each = 1 << (most.max(1).ilog2() / 2);
        Blocks { groups: [2, 2], each: [each; 2], depth: 32, size: self.size }
    }

    /// Reads half as much for each sum, of which an invocation holds four times as many.
    pub(super) fn large(self) -> Option<Blocks> {
        let small = self.small();
        let each = small.each.map(|each| 2 * each);
        (self.size == 16 && self.lanes >= 32).then_some(Blocks { each, depth: 16, ..small })
    }

    /// For few outputs: all subgroups make the same ones, of rows of their own.
    pub(super) fn narrow(self) -> Option<Blocks> {
        // Each invocation loads a vector of weights, at least.
        let fits = Blocks::PARTS * self.lanes <= 128;
        let each = [2, Blocks::NARROW / self.size];
        let groups = [Blocks::PARTS, 1];
        fits.then_some(Blocks { groups, each, depth: 32, size: self.size })
    }

    /// The blocks that suit a product of so many rows and outputs: large ones if there are enough
    /// to keep a large card busy.
    pub fn blocks(self, sizes: &MatmulMatricesSizes, rows: usize, outputs: usize) -> Blocks {
        let narrow = self.narrow().filter(|_| outputs <= Blocks::NARROW);
        let enough = |blocks: &Blocks| blocks.workgroups(rows, outputs) >= sizes.enough_large;
        narrow.or_else(|| self.large().filter(enough)).unwrap_or(self.small())
    }

    /// Where the product of so many rows and outputs makes too few workgroups to keep a large card
    /// busy: how many workgroups should share each sum, and how many of the loop's steps each of
    /// them takes, of `taps` times `into` inputs in all.
    pub fn parts(
        self,
        sizes: &MatmulMatricesSizes,
        rows: usize,
        outputs: usize,
        taps: usize,
        into: usize,
    ) -> Option<Parts> {
        let blocks = self.blocks(sizes, rows, outputs);
        let workgroups = blocks.workgroups(rows, outputs);
        let all = taps * into.div_ceil(blocks.depth);
        let wanted =
            (sizes.enough / workgroups.max(1)).min(all / sizes.least_steps).min(sizes.most_parts);
        let steps = all.div_ceil(wanted.max(1));
        (Some(blocks) != self.large() && wanted > 1)
            .then(|| Parts { count: all.div_ceil(steps), steps })
    }

    /// Parameters of the kernel for products of `into` inputs; those of its epilogue are yet to be
    /// said.
    pub fn params(self, blocks: Blocks, into: usize) -> Params {
        [
            ("size", Value::from(self.size)),
            ("lanes", Value::from(self.lanes)),
            ("varying", Value::from(self.varying)),
            ("down", Value::from(blocks.groups[0])),
            ("across", Value::from(blocks.groups[1])),
            ("each_rows", Value::from(blocks.each[0])),
            ("each_columns", Value::from(blocks.each[1])),
            ("depth", Value::from(blocks.depth)),
            ("parted", Value::from(false)),
            ("backwards", Value::from(false)),
            ("gated", Value::from(false)),
            ("totals", Value::from(false)),
            ("odd_inputs", Value::from(!into.is_multiple_of(4))),
            ("odd_outputs", Value::from(false)),
            ("ragged", Value::from(!into.is_multiple_of(blocks.depth))),
        ]
        .into()
    }
}
