//! Cooperative matrices: whether an adapter has them as the heavy products want them, how a product
//! is divided among them, and the test that a device has to pass before they are used.

use std::str::FromStr;

use serde::Serialize;

use super::kernel::Scalar;
use super::record::run_once;
use super::tuned::MatmulMatricesSizes;
use super::{Command, Gpu, Params, Result, Slice, Uniform, Value};

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
}

/// Matrices whose products came out right.
#[derive(Clone, Debug)]
pub(super) struct Tested {
    pub matrices: Matrices,
    /// Whether attention came out right too, or what went wrong: then it is made without them.
    pub attention: Result<(), String>,
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
    /// Rows and columns of matrices that a subgroup holds.
    each: usize,
    /// Inputs in workgroup memory at a time.
    depth: usize,
    size: usize,
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
    /// Rows and columns of subgroups in a workgroup.
    const ACROSS: usize = 2;

    /// Rows, and outputs, that a workgroup makes: 64 or 128 where subgroups have 32 lanes or more,
    /// else 32.
    pub fn extent(self) -> usize {
        Self::ACROSS * self.each * self.size
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
        let invocations = Blocks::ACROSS * Blocks::ACROSS * lanes;
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
        Some(Matrices { size: size as usize, lanes, varying: least < lanes, attention: true })
    }

    /// Whether kernels made for these run on an adapter that has `others`: of one size, and with
    /// no more lanes than are reckoned with.
    pub(super) fn suits(self, others: Matrices) -> bool {
        let same = self.lanes == others.lanes && self.varying == others.varying;
        let more = self.varying && self.lanes >= others.lanes;
        self.size == others.size && [8, 16, 32, 64].contains(&self.lanes) && (same || more)
    }

    /// As many matrices as give an invocation 32 sums at most.
    fn small(self) -> Blocks {
        let most = 32 * self.lanes / (self.size * self.size);
        Blocks { each: 1 << (most.max(1).ilog2() / 2), depth: 32, size: self.size }
    }

    /// Reads half as much for each sum, of which an invocation holds four times as many.
    fn large(self) -> Option<Blocks> {
        (self.size == 16 && self.lanes >= 32).then_some(Blocks {
            each: 2 * self.small().each,
            depth: 16,
            ..self.small()
        })
    }

    /// The blocks that suit a product of so many rows and outputs: large ones if there are enough
    /// to keep a large card busy.
    pub fn blocks(self, sizes: &MatmulMatricesSizes, rows: usize, outputs: usize) -> Blocks {
        let enough = |blocks: &Blocks| {
            rows.div_ceil(blocks.extent()) * outputs.div_ceil(blocks.extent()) >= sizes.enough_large
        };
        self.large().filter(enough).unwrap_or(self.small())
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
        let workgroups = rows.div_ceil(blocks.extent()) * outputs.div_ceil(blocks.extent());
        let all = taps * into.div_ceil(blocks.depth);
        let wanted =
            (sizes.enough / workgroups.max(1)).min(all / sizes.least_steps).min(sizes.most_parts);
        let steps = all.div_ceil(wanted.max(1));
        (blocks == self.small() && wanted > 1).then(|| Parts { count: all.div_ceil(steps), steps })
    }

    /// Parameters of the kernel for products of `into` inputs; those of its epilogue are yet to be
    /// said.
    pub fn params(self, blocks: Blocks, into: usize) -> Params {
        [
            ("size", Value::from(self.size)),
            ("lanes", Value::from(self.lanes)),
            ("varying", Value::from(self.varying)),
            ("down", Value::from(Blocks::ACROSS)),
            ("across", Value::from(Blocks::ACROSS)),
            ("each_rows", Value::from(blocks.each)),
            ("each_columns", Value::from(blocks.each)),
            ("depth", Value::from(blocks.depth)),
            ("parted", Value::from(false)),
            ("ragged", Value::from(!into.is_multiple_of(blocks.depth))),
        ]
        .into()
    }

    /// Whether products of known numbers come out right, to the last bit, or what went wrong.
    /// Drivers were seen that compile kernels with cooperative matrices and compute something else.
    pub(super) fn test(self, gpu: &Gpu) -> Result<Tested, String> {
        for blocks in [Some(self.small()), self.large()].into_iter().flatten() {
            self.test_blocks(gpu, blocks).map_err(|e| e.to_string())??;
        }
        let attention =
            self.test_attention(gpu).map_err(|e| e.to_string()).and_then(|result| result);
        Ok(Tested {
            matrices: Matrices { attention: self.attention && attention.is_ok(), ..self },
            attention,
        })
    }

    /// As [`Matrices::test`], of attention in which every token sees one key alone: what comes out
    /// is that key's value.
    fn test_attention(self, gpu: &Gpu) -> Result<Result<(), String>> {
        // The smallest tiles, ragged in all directions; each token's key is another one, in tile
        // after tile.
        const AT_ONCE: usize = 16;
        let (tokens, keys, d) = (4 * self.size + 13, 2 * AT_ONCE + 5, self.size + 4);
        let sought = |token: usize| token * 7 % keys;
        // Six bits of a key's number, again and again: any two keys differ in more than f16's range
        // of exponents.
        let code =
            |key: usize, channel: usize| if key >> (channel % 6) & 1 == 0 { -1.0 } else { 1.0 };
        let value = |key: usize, channel: usize| ((key * 5 + channel * 3) % 17) as f32 - 8.0;
        let make =
            |rows: usize, element: &dyn Fn(usize, usize) -> f32| -> Result<(Slice, Scalar)> {
                let values: Vec<f32> = (0..rows * d).map(|i| element(i / d, i % d)).collect();
                let buffer = gpu.buffer("test of cooperative matrices", (rows * d * 4) as u64)?;
                gpu.write(&buffer, 0, bytemuck::cast_slice(&values));
                Ok((Slice::whole(&buffer), Scalar::F32))
            };
        let inputs = [
            ("q", make(tokens, &|token, channel| 64.0 * code(sought(token), channel))?),
            ("k", make(keys, &code)?),
            ("v", make(keys, &value)?),
        ];
        let y = gpu.buffer("test of cooperative matrices", (tokens * d * 4) as u64)?;
        let numbers = [
            ("size", self.size),
            ("lanes", self.lanes),
            ("parts", 4),
            ("each", 1),
            ("keys", AT_ONCE),
            ("d", d),
            ("padded", d.next_multiple_of(self.size)),
            ("most", 15),
            ("headroom", 6),
        ];
        let mut params: Params = numbers.map(|(name, n)| (name, Value::from(n))).into();
        let choices = [
            ("varying", self.varying),
            ("causal", false),
            ("masked", false),
            ("ragged", true),
            ("ahead", true),
        ];
        params.extend(choices.map(|(name, choice)| (name, Value::from(choice))));
        let mut uniforms = [("tokens", tokens), ("keys", keys), ("channels", d / 4), ("share", 1)]
            .map(|(name, value)| (name, Uniform::from(value)))
            .to_vec();
        uniforms.push(("scale", Uniform::from(1.0)));
        let bindings = inputs.map(|(name, (slice, scalar))| (name.to_string(), slice, scalar));
        let command = Command::Dispatch {
            kernel: "attention_matrices",
            params,
            bindings: bindings
                .into_iter()
                .chain([("y".into(), Slice::whole(&y), Scalar::F32)])
                .collect(),
            uniforms,
            grid: [tokens.div_ceil(4 * self.size) as u32, 1, 1],
            label: "test of cooperative matrices".into(),
            flops: 0,
            bytes: 0,
        };
        // SAFETY: the buffers were made above for the extents that the uniforms and the grid give.
        unsafe { run_once(gpu, &command) }?;
        let found: Vec<f32> =
            bytemuck::pod_collect_to_vec(&gpu.read(&y, 0, (tokens * d * 4) as u64)?);
        for (index, &found) in found.iter().enumerate() {
            let expected = value(sought(index / d), index % d);
            // Devices need not divide to the last bit. What isn't a number must not pass.
            let close = (found - expected).abs() < 1e-4;
            if !close {
                let (token, channel) = (index / d, index % d);
                return Ok(Err(format!(
                    "attention came out as {found} instead of {expected} at token {token}, \
                        channel {channel}"
                )));
            }
        }
        Ok(Ok(()))
    }

    fn test_blocks(self, gpu: &Gpu, blocks: Blocks) -> Result<Result<(), String>> {
        // Ragged in all three directions, more than one workgroup and one step; small integers, so
        // that all sums are exact.
        const PANEL: usize = 64;
        let (rows, into, outputs) =
            (blocks.extent() + 13, 2 * blocks.depth + 12, blocks.extent() + 20);
        let x = |row: usize, k: usize| ((row * 7 + k * 3) % 11) as f32 - 5.0;
        let w = |output: usize, k: usize| ((output * 5 + k * 2) % 13) as f32 - 6.0;
        let xs: Vec<f32> = (0..rows * into).map(|i| x(i / into, i % into)).collect();
        let mut ws = vec![half::f16::ZERO; outputs.next_multiple_of(PANEL) * into];
        for output in 0..outputs {
            for k in 0..into {
                ws[(output / PANEL * into + k) * PANEL + output % PANEL] =
                    half::f16::from_f32(w(output, k));
            }
        }
        let make = |data: &[u8]| -> Result<Slice> {
            let buffer = gpu.buffer("test of cooperative matrices", data.len() as u64)?;
            gpu.write(&buffer, 0, data);
            Ok(Slice::whole(&buffer))
        };
        let y = gpu.buffer("test of cooperative matrices", (rows * outputs * 4) as u64)?;
        let mut params = self.params(blocks, into);
        params.extend(
            ["window", "lora", "rows_per_batch", "operand_rows"]
                .map(|name| (name, Value::from(false))),
        );
        params
            .extend([("epilogue", Value::from(Vec::<Value>::new())), ("factors", Value::from(0))]);
        let uniforms = [("into", into), ("rows", rows), ("channels", outputs / 4)];
        let command = Command::Dispatch {
            kernel: "matmul_matrices",
            params,
            bindings: vec![
                ("x".into(), make(bytemuck::cast_slice(&xs))?, Scalar::F32),
                ("w".into(), make(bytemuck::cast_slice(&ws))?, Scalar::F16),
                ("y".into(), Slice::whole(&y), Scalar::F32),
            ],
            uniforms: uniforms.map(|(name, value)| (name, Uniform::from(value))).to_vec(),
            grid: [
                outputs.div_ceil(blocks.extent()) as u32,
                rows.div_ceil(blocks.extent()) as u32,
                1,
            ],
            label: "test of cooperative matrices".into(),
            flops: 0,
            bytes: 0,
        };
        // SAFETY: the buffers were made above for the extents that the uniforms and the grid give.
        unsafe { run_once(gpu, &command) }?;
        let found: Vec<f32> =
            bytemuck::pod_collect_to_vec(&gpu.read(&y, 0, (rows * outputs * 4) as u64)?);
        for (index, &found) in found.iter().enumerate() {
            let (row, output) = (index / outputs, index % outputs);
            let expected: f32 = (0..into).map(|k| x(row, k) * w(output, k)).sum();
            if found != expected {
                return Ok(Err(format!("a sum came out as {found} instead of {expected}")));
            }
        }
        Ok(Ok(()))
    }
}
