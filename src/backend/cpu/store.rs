//! The weights of a model as the rest of the program sees them: counted before they are loaded, and
//! compiled into programs.

use std::sync::Arc;
use std::time::Instant;

use super::program::Program;
use super::streamed::stream;
use super::uses::{shapes, uses_of_steps};
use super::weights::Weights;
use crate::backend::streaming::bytes_of_all;
use crate::backend::{Executable, Held, Result, TooLittle, WeightStore};
use crate::graph::{Graph, Plan};

/// Bytes that are packed to see how long it takes.
const SAMPLE: u64 = 64 << 20;
const LARGE: u64 = 64 << 10;

impl WeightStore for Arc<Weights> {
    fn planned_bytes(&self, graph: &Graph, plan: &Plan) -> Result<u64> {
        Ok(bytes_of_all(uses_of_steps(self, graph, plan)?))
    }

    fn held(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<std::result::Result<Held, TooLittle>> {
        Ok(stream(self, graph, plan, within)?.map(|stream| stream.held))
    }

    fn retain(&self, wanted: &dyn Fn(&str) -> bool) {
        self.keep(wanted);
    }

    fn compile(&self, graph: &Graph, plan: &Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(Program::new(self, graph, plan)?))
    }

    fn compile_within(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<Box<dyn Executable>> {
        Ok(Box::new(Program::within(self, graph, plan, within)?))
    }

    fn rate(&self, graph: &Graph, plan: &Plan) -> Result<Option<f64>> {
        let shapes = shapes(graph);
        let (mut packed, start) = (0, Instant::now());
        for ((name, layout), bytes) in uses_of_steps(self, graph, plan)?.into_iter().flatten() {
            let shape = shapes.get(name.as_str()).filter(|_| bytes >= LARGE);
            let Some(shape) = shape else { continue };
            self.load_anew(&name, shape, layout)?;
            packed += bytes;
            if packed >= SAMPLE {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok((packed > 0 && seconds > 0.0).then(|| packed as f64 / seconds))
    }
}
