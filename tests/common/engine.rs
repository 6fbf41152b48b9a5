//! What computes a case: plain Rust, or a device.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mixofshow::backend::wgpu::{Gpu, MatrixUse, Options};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, ParameterSource, Tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine {
    Plain,
    /// A device for networks (`chosen.rs`); or, slower where there is no card, the `adapter`, with
    /// cooperative matrices if `MOS_TEST_SCHEDULE` is `matrices` and it has them.
    Device {
        precision: Precision,
        adapter: bool,
    },
}

impl Engine {
    pub const F32: Engine = Engine::Device { precision: Precision::F32, adapter: false };
    pub const F16: Engine = Engine::Device { precision: Precision::F16, adapter: false };
    pub const ADAPTER: Engine = Engine::Device { precision: Precision::F16, adapter: true };

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
        let Engine::Device { precision, adapter } = self else {
            return graph.evaluate(outputs, &inputs, &**weights).unwrap_or_else(|e| panic!("{e}"));
        };
        let weights = Weights::new(&device(adapter), weights.clone(), precision);
        let mut graph = graph.clone();
        weights.let_round(&mut graph);
        let program = Program::new(&weights, &graph, outputs).unwrap_or_else(|e| panic!("{e}"));
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

/// The adapter, or a device for networks; as a release runs it, but for an adapter's optional
/// features.
pub fn device(adapter: bool) -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let floor = Options { floor: true, ..Options::default() };
    match (adapter, chosen::processor()) {
        (true, None) => gpu().into(),
        _ => DEVICE.get_or_init(|| chosen::device(floor)).clone(),
    }
}

pub fn gpu() -> Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    let open = || {
        if std::env::var("MOS_TEST_SCHEDULE").is_ok_and(|name| name == "matrices") {
            let gpu = chosen::adapter(Options { matrices: MatrixUse::On, ..Options::default() });
            match gpu.matrices() {
                Ok(_) => return gpu,
                Err(message) => {
                    println!("{}: no cooperative matrices to test: {message}", gpu.name())
                }
            }
        }
        chosen::adapter(Options { floor: true, ..Options::default() })
    };
    GPU.get_or_init(open).clone()
}
