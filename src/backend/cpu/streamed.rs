//! A plan whose weights do not all stay in memory: block by block, those that are missing are
//! packed from where they are stored, used and given up. What is stored is a mapped file, whose
//! pages the system keeps as far as it has room for them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Cpu;
use super::compiled::{Compiled, Places, compile_steps, flops};
use super::layout::Layout;
use super::lower::{Storage, is_joined};
use super::memory::Span;
use super::packed::Packed;
use super::uses::{Key, uses_of_steps};
use super::weights::Weights;
use crate::backend::streaming::{Block, Stream};
use crate::backend::{Error, Result, TooLittle};
use crate::graph::{Graph, Plan, Shape, Tensor};

/// Packing takes all cores, so one block is there at a time.
const PLACES: u64 = 1;

/// A plan with what is needed to make its steps in each run.
pub(super) struct Streamed {
    cpu: Arc<Cpu>,
    weights: Arc<Weights>,
    graph: Graph,
    plan: Plan,
    pub places: Arc<Places>,
    blocks: Vec<Block<Key>>,
    bytes: u64,
}

/// How the weights of a plan are held within so many bytes.
pub(super) fn stream(
    weights: &Weights,
    graph: &Graph,
    plan: &Plan,
    within: u64,
) -> Result<std::result::Result<Stream<Key>, TooLittle>> {
    let steps = uses_of_steps(weights, graph, plan)?;
    let glued = |step: usize| is_joined(plan, step);
    Ok(Stream::plan(&steps, plan.once, &glued, PLACES, within))
}

impl Streamed {
    /// None where all weights stay.
    pub fn new(
        weights: &Arc<Weights>,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<Option<Streamed>> {
        let stream = stream(weights, graph, plan, within)?
            .map_err(|TooLittle { least }| Error::TooFewBytes { within, least })?;
        if stream.place == 0 {
            return Ok(None);
        }
        let places = Arc::new(Places::new(&weights.cpu, graph, plan)?);
        let uses = uses_of_steps(weights, graph, plan)?;
        let read: u64 = uses.iter().skip(plan.once).flatten().map(|(_, bytes)| bytes).sum();
        let made = plan.steps.iter().skip(plan.once).map(|step| plan.bytes(graph, step.output));
        Ok(Some(Streamed {
            cpu: weights.cpu.clone(),
            weights: weights.clone(),
            graph: graph.clone(),
            plan: plan.clone(),
            places,
            blocks: stream.blocks,
            bytes: read + made.sum::<u64>(),
        }))
    }

    /// Runs the steps that run once, and loads what stays.
    pub fn prepare(&self) -> Result<()> {
        for block in self.blocks.iter().filter(|block| block.steps.end <= self.plan.once) {
            let steps = self.compile(block)?;
            self.cpu.run(|turn| steps.iter().for_each(|step| step.task.run(turn)));
        }
        Ok(())
    }

    fn compile(&self, block: &Block<Key>) -> Result<Vec<Compiled>> {
        let coming = Coming {
            streamed: self,
            wanted: block.weights.iter().map(|(key, _)| key).collect(),
            there: RefCell::default(),
        };
        let range = block.steps.clone();
        compile_steps(&self.cpu, &self.graph, &self.plan, range, &coming)
    }

    /// Does `work` with the steps of each block, until it says false.
    pub fn each_block(&self, work: &mut dyn FnMut(&[Compiled]) -> bool) -> Result<bool> {
        for block in self.blocks.iter().filter(|block| block.steps.end > self.plan.once) {
            if !work(&self.compile(block)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn flops(&self) -> u64 {
        self.plan.steps.iter().skip(self.plan.once).map(|step| flops(&self.graph, step)).sum()
    }

    /// Of weights and results.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn commands(&self) -> usize {
        let each = self.plan.once..self.plan.steps.len();
        each.filter(|step| !is_joined(&self.plan, *step)).count()
    }
}

/// Where all lies while a block's steps are made.
struct Coming<'a> {
    streamed: &'a Streamed,
    /// What comes for this block; the others stay.
    wanted: HashSet<&'a Key>,
    there: RefCell<HashMap<Key, Packed>>,
}

impl Storage for Coming<'_> {
    fn arena(&self, arena: usize, offset: u64, elements: usize) -> Option<Span> {
        self.streamed.places.arena(arena, offset, elements)
    }

    fn input(&self, tensor: Tensor) -> Option<Span> {
        self.streamed.places.inputs.get(&tensor).cloned()
    }

    fn weight(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        let weights = &self.streamed.weights;
        let held = layout.held(shape);
        let key = (name.to_string(), held);
        if !self.wanted.contains(&key) {
            return weights.locate(name, shape, layout);
        }
        let known = self.there.borrow().get(&key).cloned();
        let packed = match known {
            Some(packed) => packed,
            None => {
                let packed = weights.load_anew(name, shape, held)?;
                self.there.borrow_mut().insert(key, packed.clone());
                packed
            }
        };
        Ok(packed.seen_as(held, layout))
    }
}
