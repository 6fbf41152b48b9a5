//! The test that a device has to pass before cooperative matrices are used, and the schedule that
//! follows from it.

use super::Result;
use super::activations::ActivationUse;
use super::adapter::{AdapterReport, Selection};
use super::buffer::Slice;
use super::device::{Gpu, Options};
use super::halved::HALVES;
use super::kernel::Scalar;
use super::matrices::{Blocks, Matrices, MatrixUse, Tested};
use super::ops::attention_matrices::{HEADROOM, MOST, WideTiles};
use super::record::{Command, Uniform, run_once};
use super::template::{Params, Value};
use super::traits::{Schedule, Traits};
use crate::graph::Limits;

impl Gpu {
    /// The form of the heavy kernels that suits this adapter. The first call tests cooperative
    /// matrices, if they are to be used.
    pub fn schedule(&self) -> Schedule {
        self.matrices().map_or(Schedule::Staged, Schedule::Matrices)
    }

    /// What plans for this device follow.
    pub fn traits(&self) -> &Traits {
        self.traits.get_or_init(|| Traits {
            limits: Limits {
                max_binding: self.max_binding(),
                max_buffer: self.limits.max_buffer_size,
                alignment: u64::from(self.limits.min_storage_buffer_offset_alignment),
            },
            workgroup_memory: self.limits.max_compute_workgroup_storage_size as usize,
            schedule: self.schedule(),
            halves: self.activations().is_ok(),
            tuned: self.tuned,
        })
    }

    /// The cooperative matrices that are used, or why none are.
    pub fn matrices(&self) -> Result<Matrices, &str> {
        self.tested().map(|tested| tested.matrices)
    }

    /// Which attention is made without cooperative matrices where products are made with them, and
    /// why.
    pub fn attention_without_matrices(&self) -> Option<&str> {
        self.tested().ok()?.problems.as_deref()
    }

    /// Whether activations are kept in f16, or why not. The first call tests that the device
    /// reads and writes them.
    pub fn activations(&self) -> Result<(), &str> {
        let test = || {
            self.wants_halves(self.matrices().is_ok())?;
            test_halves(self).map_err(|e| e.to_string()).and_then(|result| result)
        };
        self.halves.get_or_init(test).as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// Whether activations are to be kept in f16 on a device that does or does not make products
    /// of `matrices`, or why not.
    fn wants_halves(&self, matrices: bool) -> Result<(), String> {
        let has = self.device.features().contains(wgpu::Features::SHADER_F16);
        match self.activations {
            ActivationUse::F32 => Err("switched off".into()),
            ActivationUse::Auto if !matrices => Err("products are made without matrices".into()),
            _ if !has => Err("the adapter has no f16".into()),
            _ => Ok(()),
        }
    }

    fn tested(&self) -> Result<&Tested, &str> {
        let test = |matrices: Matrices| {
            matrices.test(self).map_err(|message| format!("failed the test: {message}"))
        };
        self.tested
            .get_or_init(|| self.matrices.clone().and_then(test))
            .as_ref()
            .map_err(String::as_str)
    }
}

/// Whether numbers come through a kernel that reads f32 and writes f16, and one that reads f16,
/// as f16 has them; what it cannot hold, as its greatest.
fn test_halves(gpu: &Gpu) -> Result<Result<(), String>> {
    const COUNT: usize = 1000;
    let given: Vec<f32> =
        (0..COUNT).map(|i| (i as f32 - 300.0) * 1.001 * 2f32.powi(i as i32 % 9)).collect();
    let buffer = |bytes: usize| -> Result<Slice> {
        Ok(Slice::whole(&gpu.buffer("test of f16", bytes as u64)?))
    };
    let (x, h, y) = (buffer(4 * COUNT)?, buffer(2 * COUNT)?, buffer(4 * COUNT)?);
    gpu.write(&x.buffer, 0, bytemuck::cast_slice(&given));
    for (name, from, to) in
        [("y", (&x, Scalar::F32), (&h, Scalar::F16)), ("x", (&h, Scalar::F16), (&y, Scalar::F32))]
    {
        let numbers = [
            ("rows", 1),
            ("width", COUNT / 4),
            ("from_stride", 0),
            ("from_start", 0),
            ("to_stride", 0),
            ("to_start", 0),
        ];
        let command = Command::Dispatch {
            kernel: "copy",
            params: [("vector", Value::from(4)), (HALVES, Value::from(vec![Value::from(name)]))]
                .into(),
            bindings: [("x", from), ("y", to)]
                .map(|(name, (slice, scalar))| (name.to_string(), slice.clone(), scalar))
                .to_vec(),
            uniforms: numbers.map(|(name, value)| (name, Uniform::from(value))).to_vec(),
            grid: [(COUNT / 4).div_ceil(64) as u32, 1, 1],
            label: "test of f16".into(),
            flops: 0,
            bytes: 0,
        };
        // SAFETY: the buffers were made above for as many elements as the uniforms give.
        unsafe { run_once(gpu, &command) }?;
    }
    let found: Vec<f32> =
        bytemuck::pod_collect_to_vec(&gpu.read(&y.buffer, 0, 4 * COUNT as u64)?);
    let wrong = given.iter().zip(&found).find(|(given, found)| {
        let held = half::f16::from_f32(given.clamp(-65504.0, 65504.0)).to_f32();
        // Devices may round either way. What isn't a number must not pass.
        let close = (held - **found).abs() <= held.abs() / 1024.0;
        !close
    });
    Ok(wrong.map_or(Ok(()), |(given, found)| {
        Err(format!("failed the test: {given} came back as {found}"))
    }))
}

impl AdapterReport {
    /// Opens the adapter, if it has cooperative matrices, and tests those that are to be used.
    pub fn try_matrices(&mut self, matrices: MatrixUse, activations: ActivationUse) {
        if self.cooperative_matrices.is_empty() && activations != ActivationUse::F16 {
            return;
        }
        let selection = Selection::Matching(self.index.to_string());
        self.matrices = Some(
            match Gpu::open(&Options { selection, matrices, activations, ..Options::default() }) {
                Ok(gpu) => {
                    self.schedule = gpu.schedule().name();
                    self.activations = Some(match gpu.activations() {
                        Ok(()) => "f16, for networks whose weights are".to_string(),
                        Err(why) => format!("f32: {why}"),
                    });
                    match gpu.matrices() {
                        Ok(matrices) => {
                            let but = gpu.attention_without_matrices().map(|why| {
                                format!("; not for all attention, of which failed the test: {why}")
                            });
                            format!(
                                "used: {0}x{0}, tested{1}",
                                matrices.size,
                                but.unwrap_or_default()
                            )
                        }
                        Err(why) => format!("not used: {why}"),
                    }
                }
                Err(error) => format!("not used: {error}"),
            },
        );
    }
}

impl Matrices {
    /// Whether products of known numbers come out right, to the last bit, or what went wrong.
    /// Drivers were seen that compile kernels with cooperative matrices and compute something else.
    pub(super) fn test(self, gpu: &Gpu) -> Result<Tested, String> {
        for blocks in [Some(self.small()), self.large(), self.narrow()].into_iter().flatten() {
            self.test_blocks(gpu, blocks).map_err(|e| e.to_string())??;
        }
        let mut problems = Vec::new();
        let mut passes = |wanted: bool, what: &str, result: Result<Result<(), String>>| {
            let result = result.map_err(|e| e.to_string()).and_then(|result| result);
            problems.extend(result.as_ref().err().map(|why| format!("{what}: {why}")));
            wanted && result.is_ok()
        };
        let attention =
            passes(self.attention, "heads of all widths", self.test_attention(gpu, false));
        let wide = passes(self.wide, "wide heads", self.test_attention(gpu, true));
        Ok(Tested {
            matrices: Matrices { attention, wide: wide && attention, ..self },
            problems: (!problems.is_empty()).then(|| problems.join("; ")),
        })
    }

    /// As [`Matrices::test`], of attention in which every token sees one key alone: what comes out
    /// is that key's value. `wide`: of heads that subgroups share out.
    fn test_attention(self, gpu: &Gpu, wide: bool) -> Result<Result<(), String>> {
        // The smallest tiles, ragged in all directions; each token's key is another one, in tile
        // after tile.
        const AT_ONCE: usize = 16;
        let memory = gpu.limits.max_compute_workgroup_storage_size as usize;
        let d = if wide { 9 * self.size + 4 } else { self.size + 4 };
        let tiles = match WideTiles::of(self, &gpu.tuned.attention_matrices, memory, d) {
            Some(tiles) if wide => Some(tiles),
            None if wide => return Ok(Err("too little workgroup memory".into())),
            _ => None,
        };
        let at_once = if wide { 4 * self.size } else { AT_ONCE };
        let (tokens, keys) = (4 * self.size + 13, 2 * at_once + 5);
        let sought = |token: usize| token * 7 % keys;
        // The bits of a key's number, again and again: any two keys differ in more than f16's range
        // of exponents.
        let bits = if wide { 8 } else { 6 };
        let code =
            |key: usize, channel: usize| if key >> (channel % bits) & 1 == 0 { -1.0 } else { 1.0 };
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
        let narrow = [
            ("size", self.size),
            ("lanes", self.lanes),
            ("parts", 4),
            ("each", 1),
            ("keys", AT_ONCE),
            ("d", d),
            ("padded", d.next_multiple_of(self.size)),
            ("most", MOST),
            ("headroom", HEADROOM),
        ];
        let mut params: Params = narrow.map(|(name, n)| (name, Value::from(n))).into();
        let choices = [
            ("varying", self.varying),
            ("causal", false),
            ("masked", false),
            ("regional", false),
            ("ragged", true),
            ("ahead", true),
        ];
        params.extend(choices.map(|(name, choice)| (name, Value::from(choice))));
        let rows = tiles.map_or(4 * self.size, WideTiles::tokens);
        let (kernel, params) = match tiles {
            Some(tiles) => ("attention_matrices_wide", tiles.params(keys)),
            None => ("attention_matrices", params),
        };
        let mut uniforms = [("tokens", tokens), ("keys", keys), ("channels", d / 4), ("share", 1)]
            .map(|(name, value)| (name, Uniform::from(value)))
            .to_vec();
        uniforms.push(("scale", Uniform::from(1.0)));
        let bindings = inputs.map(|(name, (slice, scalar))| (name.to_string(), slice, scalar));
        let command = Command::Dispatch {
            kernel,
            params,
            bindings: bindings
                .into_iter()
                .chain([("y".into(), Slice::whole(&y), Scalar::F32)])
                .collect(),
            uniforms,
            grid: [tokens.div_ceil(rows) as u32, 1, 1],
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
            (blocks.rows() + 13, 2 * blocks.depth + 12, blocks.outputs() + 20);
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
            ["window", "blocks", "lora", "rows_per_batch", "operand_rows"]
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
                outputs.div_ceil(blocks.outputs()) as u32,
                rows.div_ceil(blocks.rows()) as u32,
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
