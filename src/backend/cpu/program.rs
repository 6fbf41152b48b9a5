//! A plan on the processor: memory given out, steps compiled; run any number of times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Cpu;
use super::compiled::{AtRest, Compiled, Places, compile_steps};
use super::lower::locate;
use super::memory::Span;
use super::streamed::Streamed;
use super::weights::Weights;
use crate::backend::{Cost, Error, Executable, Look, Result, Timed, View};
use crate::graph::{Graph, Place, Plan, Tensor};

/// A plan ready to run.
pub(super) struct Program {
    cpu: Arc<Cpu>,
    steps: Steps,
    /// What inputs become after a run: from, to.
    assignments: Vec<(Span, Span)>,
    inputs: HashMap<Tensor, Span>,
    outputs: Vec<Span>,
    /// What the last run met, where weights come while it goes.
    failure: Mutex<Option<Error>>,
}

enum Steps {
    Ready(Vec<Compiled>),
    /// Made block by block, as their weights come.
    Streamed(Box<Streamed>),
}

impl Program {
    /// Loads what is missing of the weights, compiles, and runs the steps that are to run once.
    pub fn new(weights: &Weights, graph: &Graph, plan: &Plan) -> Result<Program> {
        let cpu = weights.cpu.clone();
        let places = Places::new(&cpu, graph, plan)?;
        let storage = AtRest { places: &places, weights };
        let once = compile_steps(&cpu, graph, plan, 0..plan.once, &storage)?;
        let steps = compile_steps(&cpu, graph, plan, plan.once..plan.steps.len(), &storage)?;
        if !once.is_empty() {
            cpu.run(|turn| once.iter().for_each(|step| step.task.run(turn)));
        }
        Program::of(cpu, graph, plan, Steps::Ready(steps), &storage)
    }

    /// The same with weights in no more than `within` bytes.
    pub fn within(
        weights: &Arc<Weights>,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<Program> {
        let Some(streamed) = Streamed::new(weights, graph, plan, within)? else {
            return Program::new(weights, graph, plan);
        };
        let cpu = weights.cpu.clone();
        streamed.prepare()?;
        let places = streamed.places.clone();
        let storage = AtRest { places: &places, weights };
        Program::of(cpu, graph, plan, Steps::Streamed(Box::new(streamed)), &storage)
    }

    fn of(
        cpu: Arc<Cpu>,
        graph: &Graph,
        plan: &Plan,
        steps: Steps,
        storage: &AtRest<'_>,
    ) -> Result<Program> {
        let at = |tensor: Tensor| locate(graph, plan, tensor, storage);
        let mut assignments = Vec::new();
        for &(input, tensor) in graph.assignments() {
            if plan.place(tensor) != Some(Place::InPlace(input)) {
                assignments.push((at(tensor)?, at(input)?));
            }
        }
        let outputs = plan.outputs.iter().map(|&tensor| at(tensor)).collect::<Result<_>>()?;
        let inputs = storage.places.inputs.clone();
        Ok(Program { cpu, steps, assignments, inputs, outputs, failure: Mutex::default() })
    }

    /// Does `work` with the steps of each run, block by block, until it says false.
    fn each_block(&self, work: &mut dyn FnMut(&[Compiled]) -> bool) -> Result<bool> {
        match &self.steps {
            Steps::Ready(steps) => Ok(work(steps)),
            Steps::Streamed(streamed) => streamed.each_block(work),
        }
    }

    fn assign(&self) {
        self.cpu.run(|turn| self.assignments.iter().for_each(|(from, to)| from.copy_to(to, turn)));
    }

    fn failure(&self) -> Result<()> {
        let met = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        met.map_or(Ok(()), Err)
    }
}

impl Executable for Program {
    fn input(&self, tensor: Tensor) -> Option<View> {
        self.inputs.get(&tensor).cloned().map(View::new)
    }

    fn output(&self, index: usize) -> View {
        View::new(self.outputs[index].clone())
    }

    fn write(&self, view: &View, bytes: &[u8]) {
        if let Some(span) = view.get::<Span>() {
            span.set_bytes(bytes, &self.cpu.turn());
        }
    }

    fn read(&self, view: &View) -> Result<Vec<u8>> {
        self.failure()?;
        match view.get::<Span>() {
            Some(span) => Ok(span.to_bytes(&self.cpu.turn())),
            None => Err(Error::OtherDevice),
        }
    }

    fn run(&self) {
        if let Steps::Ready(steps) = &self.steps {
            return self.cpu.run(|turn| {
                steps.iter().for_each(|step| step.task.run(turn));
                self.assignments.iter().for_each(|(from, to)| from.copy_to(to, turn));
            });
        }
        let run = self.each_block(&mut |steps| {
            self.cpu.run(|turn| steps.iter().for_each(|step| step.task.run(turn)));
            true
        });
        match run {
            Ok(_) => self.assign(),
            Err(met) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(met);
            }
        }
    }

    fn wait(&self) -> Result<()> {
        self.failure()
    }

    fn trace(&self, look: Look<'_>) -> Result<()> {
        let whole = self.each_block(&mut |steps| {
            for step in steps {
                let made = self.cpu.run(|turn| {
                    step.task.run(turn);
                    let before = step.joined.zip(step.task.joined());
                    let outputs = before.into_iter().chain([(step.operation, step.task.output())]);
                    outputs.map(|(name, span)| (name, span.to_bytes(turn))).collect::<Vec<_>>()
                });
                for (operation, bytes) in made {
                    let values = bytemuck::pod_collect_to_vec::<u8, f32>(&bytes);
                    if !look(operation, &step.layer, &values) {
                        return false;
                    }
                }
            }
            true
        })?;
        if whole {
            self.assign();
        }
        Ok(())
    }

    fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        let mut costs: HashMap<String, Cost> = HashMap::new();
        for Timed { what, cost: one, .. } in self.timeline(clock)? {
            let cost = costs.entry(what).or_default();
            cost.calls += one.calls;
            cost.seconds += one.seconds;
            cost.flops += one.flops;
            cost.bytes += one.bytes;
        }
        Ok(costs)
    }

    fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        let mut timed = Vec::new();
        self.each_block(&mut |steps| {
            for step in steps {
                let start = clock();
                self.cpu.run(|turn| step.task.run(turn));
                let seconds = clock() - start;
                let cost = Cost { calls: 1, seconds, flops: step.flops, bytes: step.bytes };
                let (what, layer) = (step.operation.to_string(), step.layer.to_string());
                timed.push(Timed { what, layer, cost });
            }
            true
        })?;
        self.assign();
        Ok(timed)
    }

    fn flops(&self) -> u64 {
        match &self.steps {
            Steps::Ready(steps) => steps.iter().map(|step| step.flops).sum(),
            Steps::Streamed(streamed) => streamed.flops(),
        }
    }

    fn bytes(&self) -> u64 {
        let copied: u64 = self.assignments.iter().map(|(from, _)| 2 * from.bytes()).sum();
        let read = match &self.steps {
            Steps::Ready(steps) => steps.iter().map(|step| step.bytes).sum::<u64>(),
            Steps::Streamed(streamed) => streamed.bytes(),
        };
        read + copied
    }

    fn commands(&self) -> usize {
        let steps = match &self.steps {
            Steps::Ready(steps) => steps.len(),
            Steps::Streamed(streamed) => streamed.commands(),
        };
        steps + self.assignments.len()
    }
}
