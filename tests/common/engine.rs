//! What computes a case: plain Rust, or a device.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mixofshow::backend::wgpu::{Gpu, MatrixUse, Options, Schedule, Selection};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, ParameterSource, Tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine {
    Plain,
    /// Whatever adapter is there, or the one that `MOS_ADAPTER` names. `staged`: the kernels for
    /// devices with workgroup memory, with cooperative matrices if `MOS_TEST_SCHEDULE` is
    /// `matrices` and the adapter has them.
    Device {
        precision: Precision,
        staged: bool,
    },
}

impl Engine {
    pub const F32: Engine = Engine::Device { precision: Precision::F32, staged: false };
    pub const F16: Engine = Engine::Device { precision: Precision::F16, staged: false };
    pub const STAGED: Engine = Engine::Device { precision: Precision::F16, staged: true };

    /// Allowed relative error. Plain f32 against f32 differs by the order of sums alone; f16
    /// weights are rounded.
    pub fn tolerance(self) -> f64 {
        match self {
            Engine::Plain => 1e-5,
            Engine::Device { precision: Precision::F16, .. } => 5e-3,
            Engine::Device { .. } => 1e-4,
        }
    }

    /// The values of `outputs`.
    pub fn evaluate(
        self,
        graph: &Graph,
        outputs: &[Tensor],
        inputs: impl IntoIterator<Item = (String, Array)>,
        weights: &Arc<dyn ParameterSource + Send>,
    ) -> Vec<Array> {
        let inputs: HashMap<String, Array> = inputs.into_iter().collect();
        let Engine::Device { precision, staged } = self else {
            return graph.evaluate(outputs, &inputs, &**weights).unwrap_or_else(|e| panic!("{e}"));
        };
        let weights = Weights::new(&device(staged), weights.clone(), precision);
        let program = Program::new(&weights, graph, outputs).unwrap_or_else(|e| panic!("{e}"));
        for (name, array) in &inputs {
            program.write(name, array).unwrap_or_else(|e| panic!("{e}"));
        }
        program.run();
        (0..outputs.len()).map(|i| program.output(i).unwrap_or_else(|e| panic!("{e}"))).collect()
    }
}

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "chosen.rs"]
mod chosen;

/// The processor where it is chosen, else an adapter.
pub fn device(staged: bool) -> Device {
    chosen::processor().map_or_else(|| gpu(staged).into(), Device::from)
}

/// The device as a release runs it, but for its optional features.
pub fn gpu(staged: bool) -> Arc<Gpu> {
    static GPUS: [OnceLock<Arc<Gpu>>; 2] = [const { OnceLock::new() }; 2];
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    let options = Options {
        selection,
        checked: false,
        floor: true,
        schedule: staged.then_some(Schedule::Staged),
        ..Options::default()
    };
    let matrices =
        staged && std::env::var("MOS_TEST_SCHEDULE").is_ok_and(|name| name == "matrices");
    let open = || {
        if matrices {
            let options = Options {
                floor: false,
                schedule: None,
                matrices: MatrixUse::On,
                ..options.clone()
            };
            let gpu = Gpu::open(&options).expect("an adapter");
            match gpu.matrices() {
                Ok(_) => return gpu,
                Err(message) => {
                    println!("{}: no cooperative matrices to test: {message}", gpu.name())
                }
            }
        }
        Gpu::open(&options).expect("an adapter")
    };
    GPUS[usize::from(staged)].get_or_init(open).clone()
}
