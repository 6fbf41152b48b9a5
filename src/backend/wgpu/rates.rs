//! How fast a device is at most, measured.

use std::sync::Arc;

use super::{Command, Gpu, Params, Recording, Result, Scalar, Slice, Value};

impl Gpu {
    /// Seconds that a command takes that does nearly nothing, submitted alone and waited for, as
    /// [`Recording::profile`] measures commands where the device has no timestamps; none where it
    /// has. `clock` gives seconds.
    ///
    /// # Errors
    /// Memory that is exhausted; a device that failed.
    pub fn waiting(self: &Arc<Self>, clock: &dyn Fn() -> f64) -> Result<Option<f64>> {
        if self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let y = self.buffer("peak", 64 * 4)?;
        let command = Command::Dispatch {
            kernel: "peak",
            params: Params::from([("chains", Value::from(2))]),
            bindings: vec![("y".into(), Slice::whole(&y), Scalar::F32)],
            uniforms: vec![("rounds", 1.into()), ("factor", 0.5f32.into())],
            grid: [1, 1, 1],
            label: "nearly nothing".into(),
            flops: 0,
            bytes: 0,
        };
        // SAFETY: `y` has a number for each invocation of the grid.
        let recording = unsafe { Recording::trusted(self, &[command])? };
        let mut all = Vec::new();
        for _ in 0..33 {
            all.extend(recording.timeline(clock)?.into_iter().map(|(_, cost)| cost.seconds));
        }
        all.sort_by(f64::total_cmp);
        Ok(all.get(all.len() / 2).copied())
    }

    /// Floating-point operations and bytes a second at most, by chains of multiply-adds and by a
    /// large copy, the fastest of several each. `clock` gives seconds.
    ///
    /// # Errors
    /// Memory that is exhausted; a device that failed.
    pub fn rates(self: &Arc<Self>, clock: &dyn Fn() -> f64) -> Result<[f64; 2]> {
        // Few fill a deep pipeline nowhere, and many have no registers everywhere.
        const CHAINS: [usize; 2] = [2, 3];
        const ROUNDS: usize = 512;
        let groups: usize = if self.is_software() { 256 } else { 16384 };
        let y = self.buffer("peak", (groups * 64 * 4) as u64)?;
        let arithmetic = |chains: usize| Command::Dispatch {
            kernel: "peak",
            params: Params::from([("chains", Value::from(chains))]),
            bindings: vec![("y".into(), Slice::whole(&y), Scalar::F32)],
            uniforms: vec![("rounds", ROUNDS.into()), ("factor", 0.5f32.into())],
            grid: [groups as u32, 1, 1],
            label: "peak".into(),
            flops: 0,
            bytes: 0,
        };
        let size = self.max_binding().min(64 << 20) / 16 * 16;
        let (from, to) = (self.buffer("peak", size)?, self.buffer("peak", size)?);
        let copy = Command::Dispatch {
            kernel: "copy",
            params: Params::from([("vector", Value::from(4))]),
            bindings: vec![
                ("x".into(), Slice::whole(&from), Scalar::F32),
                ("y".into(), Slice::whole(&to), Scalar::F32),
            ],
            uniforms: [
                ("rows", 1),
                ("width", size as usize / 16),
                ("from_stride", 0),
                ("from_start", 0),
                ("to_stride", 0),
                ("to_start", 0),
            ]
            .map(|(name, value): (&'static str, usize)| (name, value.into()))
            .to_vec(),
            grid: [32768.min((size / 1024) as u32), (size / 1024).div_ceil(32768) as u32, 1],
            label: "copy".into(),
            flops: 0,
            bytes: 0,
        };
        // SAFETY: `y` has a number for each invocation of the grid; the copy's one row has as many
        // vectors as both buffers, and its kernel leaves out invocations beyond them.
        let recordings = unsafe {
            let [few, more] = CHAINS.map(arithmetic);
            [
                Recording::trusted(self, &[few])?,
                Recording::trusted(self, &[more])?,
                Recording::trusted(self, &[copy])?,
            ]
        };
        let mut seconds = [f64::INFINITY; 3];
        for (recording, best) in recordings.iter().zip(&mut seconds) {
            for _ in 0..4 {
                let start = clock();
                recording.play();
                self.wait()?;
                *best = best.min(clock() - start);
            }
        }
        let flops = CHAINS.map(|chains| (groups * 64 * ROUNDS) as f64 * (chains * 8 * 16) as f64);
        let [few, more, copied] = seconds;
        Ok([(flops[0] / few).max(flops[1] / more), 2.0 * size as f64 / copied])
    }
}
