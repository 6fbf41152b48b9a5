//! One sampling step as a graph: the state, the UNet in both guidance halves, guidance, and the
//! sampler's update back to the state.

use crate::backend::Program;
use crate::graph::ops::{Reach, RegionInputs, RegionTables};
use crate::graph::{self, Array, Graph, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet::{self, CrossAttention, Residuals, UNetInputs};
use crate::nn::{Encodings, Hook, RegionSize};

use super::error::Result;
use super::network::{LoadedNetwork, PlannedGraph};
use super::updates::{Mask, UpdateInputs, Updates};

/// What a step's program is made for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepShape {
    pub batch: usize,
    /// Of the latents.
    pub height: usize,
    pub width: usize,
    /// Tokens of all prompts, all chunks together.
    pub tokens: usize,
    /// For each size of feature map, how far each prompt reaches; empty where one prompt holds
    /// everywhere.
    pub reach: Vec<Vec<Reach>>,
    /// Self-attention is kept within regions.
    pub isolate: bool,
    /// T2I-Adapters' feature maps that are added.
    pub features: usize,
    /// ControlNets whose residuals are added.
    pub control_nets: usize,
    /// Classifier-free guidance: its scale, with both halves in one batch.
    pub guidance: Option<f32>,
    /// State slots that the sampler uses.
    pub slots: usize,
    /// After each step, what lies outside a mask is set to the original.
    pub masked: bool,
    /// What guidance and the sampler make of the UNet's prediction is the host's work.
    pub on_host: bool,
    /// Who wants to see it is shown what guidance made of the prediction.
    pub shown: bool,
    pub depth: Depth,
    /// Low-rank updates of the UNet. Their strengths make no other program.
    pub updates: Updates,
}

/// How much of the UNet a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    Whole,
    /// All of it, and the deep features are an output.
    Keeping,
    /// The outermost layers on deep features of an earlier step.
    Shallow,
}

impl Default for StepShape {
    fn default() -> Self {
        StepShape {
            batch: 1,
            height: 1,
            width: 1,
            tokens: 1,
            reach: Vec::new(),
            isolate: false,
            features: 0,
            control_nets: 0,
            guidance: None,
            slots: 1,
            masked: false,
            on_host: false,
            shown: false,
            depth: Depth::Whole,
            updates: Updates::default(),
        }
    }
}

impl StepShape {
    /// Small, but with every layer of the network: weights do not depend on a picture's size.
    pub fn smallest(config: &UNetConfig, tokens: usize) -> StepShape {
        let side = 1 << config.down.len().min(8);
        StepShape { height: side, width: side, tokens, ..StepShape::default() }
    }

    /// Prompts that are encoded: the negative one and the prompt, or the prompt alone.
    pub fn halves(&self) -> usize {
        1 + usize::from(self.guidance.is_some())
    }

    /// Entries of a batch that the UNet computes.
    pub fn rows(&self) -> usize {
        self.halves() * self.batch
    }

    /// Shape of the latents.
    pub fn latent(&self, config: &UNetConfig) -> [usize; 4] {
        [self.batch, self.height, self.width, config.out_channels]
    }

    /// Shape of what an inpainting model reads beside them: a mask, then latents.
    pub fn beside(&self, config: &UNetConfig) -> [usize; 4] {
        [self.batch, self.height, self.width, config.out_channels + 1]
    }
}

/// What a step's program takes.
#[derive(Clone, Debug)]
pub(crate) struct StepInputs {
    /// `[slots, batch, height, width, channels]`, which a run changes.
    pub state: Tensor,
    /// `[1]`
    pub input_scale: Tensor,
    /// `[rows, block_out_channels[0]]`
    pub time: Tensor,
    pub prompt: PromptInputs,
    /// Features of the guidance scale, of models that are told it.
    pub guidance: Option<Tensor>,
    /// Features of sizes and the pooled prompt `[rows, width]`, of models that are told them.
    pub addition: Option<Tensor>,
    /// Deep features of an earlier step, of a shallow one.
    pub deep: Option<Tensor>,
    /// Of the latents' shape.
    pub noise: Tensor,
    /// `[slots, slots + 2]`
    pub matrix: Tensor,
    pub inpainting: Option<InpaintingInputs>,
    /// Of models made for inpainting: the mask and the latents of what lies outside of it,
    /// `[batch, height, width, 1 + channels]`.
    pub beside: Option<Tensor>,
    pub controls: ControlInputs,
    pub updates: UpdateInputs,
}

/// What inpainting reads: masks `[height, width, channels]`, latents, and the level of noise that
/// they have after the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InpaintingInputs {
    pub inside: Tensor,
    pub outside: Tensor,
    pub original: Tensor,
    pub gaussian: Tensor,
    pub signal: Tensor,
    pub noise_level: Tensor,
}

/// Builds one step. `hooked` names layers whose hooks `further` is given, with the UNet's input and
/// its prediction for each half; it adds to the graph what it likes, and gives the outputs. Before
/// them come the prediction and the deep features, where the shape says that they are wanted.
pub(crate) fn build_step(
    config: &UNetConfig,
    graph: &mut Graph,
    shape: &StepShape,
    hooked: &[String],
    further: impl FnOnce(&mut Graph, &[Hook], [Tensor; 2]) -> graph::Result<Vec<Tensor>>,
) -> graph::Result<(StepInputs, Vec<Tensor>)> {
    let (slots, latent) = (shape.slots, shape.latent(config));
    let state = graph.input("state", [&[slots][..], &latent].concat());
    let sample = graph.slice(state, 0, 0, 1)?;
    let sample = graph.reshape(sample, latent)?;
    let input_scale = graph.input("input_scale", [1]);
    let x = graph.multiply(sample, input_scale)?;
    let beside = config.inpaints().then(|| graph.input("beside", shape.beside(config)));
    let read = match beside {
        Some(beside) => graph.concat_channels(x, beside)?,
        None => x,
    };
    let both = match shape.halves() {
        2 => graph.concat(&[read, read], 0)?,
        _ => read,
    };
    let prompt = PromptInputs::declare(graph, config, shape);
    let controls = ControlInputs::declare(graph, config, shape)?;
    let time = graph.input("time", [shape.rows(), config.block_out_channels[0]]);
    let guidance =
        config.time_cond_proj_dim.map(|channels| graph.input("guidance", [shape.rows(), channels]));
    let addition = addition_input(graph, config, shape);
    let inputs = UNetInputs {
        sample: both,
        time,
        prompt: prompt.encodings(),
        guidance,
        class: None,
        addition,
        residuals: controls.residuals(),
    };
    let rows = masked_rows(config, shape);
    let deep = (shape.depth == Depth::Shallow).then(|| {
        let channels = unet::deep_channels(config);
        graph.input("deep", [shape.rows(), shape.height, shape.width, channels])
    });
    let ((prediction, kept, hooks), updates) = shape.updates.build(graph, &rows, |layers| {
        layers.hook(hooked.iter().cloned());
        let (prediction, kept) = match deep {
            Some(deep) => (unet::shallow(layers, config, &inputs, deep)?, None),
            None => {
                let output = unet::unet(layers, config, &inputs)?;
                (output.sample, Some(output.deep).filter(|_| shape.depth == Depth::Keeping))
            }
        };
        Ok((prediction, kept, layers.hooks().to_vec()))
    })?;
    let mut outputs: Vec<Tensor> =
        shape.on_host.then_some(prediction).into_iter().chain(kept).collect();
    let further = further(graph, &hooks, [x, prediction])?;
    let noise = graph.input("noise", latent);
    let matrix = graph.input("matrix", [slots, slots + 2]);
    let mut inpainting = None;
    if !shape.on_host {
        let output = match shape.guidance {
            Some(scale) => graph.guidance(prediction, scale)?,
            None => prediction,
        };
        outputs.extend(shape.shown.then_some(output));
        let mut next = graph.mix(state, output, noise, matrix)?;
        if shape.masked {
            let inputs = InpaintingInputs::declare(graph, latent);
            next = inputs.keep_outside(graph, next, slots, latent)?;
            inpainting = Some(inputs);
        }
        graph.assign(state, next)?;
    }
    outputs.extend(further);
    let inputs = StepInputs {
        state,
        input_scale,
        time,
        prompt,
        guidance,
        addition,
        deep,
        noise,
        matrix,
        inpainting,
        beside,
        controls,
        updates,
    };
    Ok((inputs, outputs))
}

/// Declares what a model is told of sizes and of the prompt as a whole.
pub(crate) fn addition_input(
    graph: &mut Graph,
    config: &UNetConfig,
    shape: &StepShape,
) -> Option<Tensor> {
    let addition = config.addition?;
    Some(graph.input("addition", [shape.rows(), addition.width()]))
}

/// Plans one step.
pub(crate) fn plan_step(
    network: &LoadedNetwork<UNetConfig>,
    shape: &StepShape,
) -> Result<PlannedGraph<StepInputs>> {
    network.plan(|config, graph| build_step(config, graph, shape, &[], |_, _, _| Ok(Vec::new())))
}

impl InpaintingInputs {
    fn declare(graph: &mut Graph, latent: [usize; 4]) -> InpaintingInputs {
        let [_, height, width, channels] = latent;
        InpaintingInputs {
            inside: graph.input("inside", [height, width, channels]),
            outside: graph.input("outside", [height, width, channels]),
            original: graph.input("original", latent),
            gaussian: graph.input("gaussian", latent),
            signal: graph.input("signal", [1]),
            noise_level: graph.input("noise_level", [1]),
        }
    }

    /// The sample of `state` inside the mask; outside of it, the original noised to the level that
    /// the sample has.
    fn keep_outside(
        &self,
        graph: &mut Graph,
        state: Tensor,
        slots: usize,
        latent: [usize; 4],
    ) -> graph::Result<Tensor> {
        let kept = graph.multiply(self.original, self.signal)?;
        let noised = graph.multiply(self.gaussian, self.noise_level)?;
        let kept = graph.add(kept, noised)?;
        let kept = graph.multiply(kept, self.outside)?;
        let sample = graph.slice(state, 0, 0, 1)?;
        let sample = graph.reshape(sample, latent)?;
        let sample = graph.multiply(sample, self.inside)?;
        let sample = graph.add(sample, kept)?;
        let sample = graph.reshape(sample, [&[1][..], &latent].concat())?;
        if slots == 1 {
            return Ok(sample);
        }
        let memory = graph.slice(state, 0, 1, slots - 1)?;
        graph.concat(&[sample, memory], 0)
    }
}

/// What the cross-attentions of a step read: keys and values, and where which prompt holds.
#[derive(Clone, Debug)]
pub(crate) struct PromptInputs {
    /// Of each cross-attention, `[halves, tokens, channels]`.
    pub pairs: Vec<(Tensor, Tensor)>,
    /// For each size of feature map; empty for one prompt.
    sizes: Vec<RegionSize>,
}

impl PromptInputs {
    pub fn declare(graph: &mut Graph, config: &UNetConfig, shape: &StepShape) -> PromptInputs {
        let attentions = unet::cross_attentions(config).into_iter().enumerate();
        let pair = |(i, attention): (usize, CrossAttention)| {
            let shape = [shape.halves(), shape.tokens, attention.channels];
            (graph.input(format!("keys.{i}"), shape), graph.input(format!("values.{i}"), shape))
        };
        let pairs = attentions.map(pair).collect();
        let sizes = unet::feature_sizes(config, shape.height, shape.width)
            .into_iter()
            .zip(&shape.reach)
            .enumerate();
        let size = |(i, ([height, width], reach)): (usize, ([usize; 2], &Vec<Reach>))| {
            let tokens = height * width;
            // Less than that where smaller pictures than the regions' are planned, to see which
            // would fit.
            let reach = reach
                .iter()
                .map(|&Reach { keys, tokens: most }| Reach { keys, tokens: most.min(tokens) })
                .collect();
            let inputs = RegionInputs::declare(graph, &format!("regions.{i}"), tokens, reach);
            let mask =
                shape.isolate.then(|| graph.input_ids(format!("regions.{i}.mask"), [tokens]));
            RegionSize { tokens, inputs, mask }
        };
        PromptInputs { pairs, sizes: sizes.map(size).collect() }
    }

    pub fn encodings(&self) -> Encodings<'_> {
        self.encodings_of(&self.pairs)
    }

    /// These keys and values in place of its own.
    pub fn encodings_of<'a>(&'a self, pairs: &'a [(Tensor, Tensor)]) -> Encodings<'a> {
        match self.sizes.is_empty() {
            true => Encodings::KeysValues(pairs),
            false => Encodings::Regional { pairs, sizes: &self.sizes },
        }
    }

    /// Of `halves`, the prompts' own, which is the last.
    pub fn own_half(
        &self,
        graph: &mut Graph,
        halves: usize,
    ) -> graph::Result<Vec<(Tensor, Tensor)>> {
        let last = halves.saturating_sub(1);
        let mut own = Vec::with_capacity(self.pairs.len());
        for &(keys, values) in &self.pairs {
            own.push((graph.slice(keys, 0, last, 1)?, graph.slice(values, 0, last, 1)?));
        }
        Ok(own)
    }

    /// Tokens of all prompts.
    pub fn tokens(&self, graph: &Graph) -> usize {
        self.pairs.first().map_or(0, |(keys, _)| graph.shape(*keys)[1])
    }
}

/// What of regions holds from a step on.
pub(crate) struct Phase {
    /// The first step.
    pub from: usize,
    /// For each size of feature map: where prompts hold, and which tokens see each other.
    pub sizes: Vec<(RegionTables, Option<Array>)>,
    /// Where updates act.
    pub masks: Vec<Mask>,
}

impl Phase {
    /// What holds from a step on. `sizes`: for each size of feature map where prompts hold, which
    /// tokens see each other, and every prompt's share of every place `[places, prompts]`, by which
    /// `updates` act. `rows`: the numbers of rows that a batch may have.
    pub fn new(
        from: usize,
        sizes: Vec<(RegionTables, Option<Array>, &[f32])>,
        updates: &Updates,
        rows: &[usize],
    ) -> Phase {
        let mut masks: Vec<Mask> =
            sizes.iter().flat_map(|(_, _, shares)| updates.place_masks(shares)).collect();
        // Layers of the time embedding compute the rows of a batch.
        for rows in rows {
            if sizes.iter().all(|(tables, ..)| tables.tokens() != *rows) {
                masks.extend(updates.whole_masks(*rows));
            }
        }
        let sizes = sizes.into_iter().map(|(tables, sight, _)| (tables, sight)).collect();
        Phase { from, sizes, masks }
    }

    /// Lets the phase hold in a program from now on.
    pub fn write(&self, program: &Program, inputs: &PromptInputs) -> Result<()> {
        // A shallow step has not all sizes, and at some no attention may stand.
        let wanted = |tensor: Tensor| program.has_input(tensor);
        for ((tables, mask), size) in self.sizes.iter().zip(&inputs.sizes) {
            let tables = tables.values(&size.inputs);
            program.write_all(tables.into_iter().filter(|(tensor, _)| wanted(*tensor)))?;
            if let (Some(values), Some(tensor)) = (mask, size.mask.filter(|mask| wanted(*mask))) {
                program.write(tensor, values)?;
            }
        }
        Ok(())
    }

    /// Lets updates act where the phase says.
    pub fn write_masks(&self, program: &Program, inputs: &UpdateInputs) -> Result<()> {
        self.masks.iter().try_for_each(|mask| inputs.write(program, mask))
    }
}

/// The numbers of rows that masks are needed for: those of feature maps, and the rows of a batch,
/// which layers of the time embedding compute.
fn masked_rows(config: &UNetConfig, shape: &StepShape) -> Vec<usize> {
    let sizes = unet::feature_sizes(config, shape.height, shape.width)
        .into_iter()
        .map(|[height, width]| height * width);
    let mut rows: Vec<usize> = sizes.chain([shape.rows()]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// What control models write into a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct ControlInputs {
    /// Of each ControlNet: what it adds to the skip connections and, last, to the middle block.
    pub nets: Vec<Vec<Tensor>>,
    skips: Vec<Tensor>,
    middle: Option<Tensor>,
    /// T2I-Adapters' feature maps.
    pub features: Vec<Tensor>,
}

impl ControlInputs {
    fn declare(
        graph: &mut Graph,
        config: &UNetConfig,
        shape: &StepShape,
    ) -> graph::Result<ControlInputs> {
        let size = [shape.height, shape.width];
        let (mut sums, mut nets): (Vec<Tensor>, _) = (Vec::new(), Vec::new());
        for number in 0..shape.control_nets {
            let mut net = Vec::new();
            for (i, [h, w, c]) in residual_shapes(config, size).into_iter().enumerate() {
                let input = graph.input(format!("control.{number}.{i}"), [shape.rows(), h, w, c]);
                net.push(input);
                match sums.get_mut(i) {
                    None => sums.push(input),
                    Some(sum) => *sum = graph.add(*sum, input)?,
                }
            }
            nets.push(net);
        }
        let middle = sums.pop();
        let mut features = Vec::new();
        if shape.features > 0 {
            let maps = unet::block_features(config, size).into_iter().take(shape.features);
            for (i, map) in maps.enumerate() {
                features.push(graph.input(format!("feature.{i}"), map));
            }
        }
        Ok(ControlInputs { nets, skips: sums, middle, features })
    }

    fn residuals(&self) -> Residuals<'_> {
        Residuals { skips: &self.skips, middle: self.middle, adapter: &self.features }
    }
}

/// Shapes `[height, width, channels]` of the skip connections and, last, of the middle block.
pub(crate) fn residual_shapes(config: &UNetConfig, size: [usize; 2]) -> Vec<[usize; 3]> {
    let mut shapes = unet::skips(config, size);
    shapes.extend(shapes.last().copied());
    shapes
}

/// What the keys and values of prompts are made of.
#[derive(Clone, Debug)]
pub(crate) struct ContextInputs {
    /// Encodings `[halves, tokens, text channels]`: one, or one for each cross-attention.
    contexts: Vec<Tensor>,
    updates: UpdateInputs,
}

/// The keys and values of encoded prompts for every cross-attention, planned.
pub(crate) struct KeysValues {
    planned: PlannedGraph<ContextInputs>,
    updates: Updates,
    /// Bytes of the device that the weights have; none: as many as they are.
    pub within: Option<u64>,
}

impl KeysValues {
    /// For a `network` that is built as `config` says, of `encodings`: one, or one for each of
    /// them.
    pub fn plan<C>(
        network: &LoadedNetwork<C>,
        config: &UNetConfig,
        updates: &Updates,
        shape: &StepShape,
        encodings: usize,
    ) -> Result<KeysValues> {
        let planned = network.plan(|_, graph| {
            let each = [shape.halves(), shape.tokens, config.cross_attention_dim];
            let contexts: Vec<Tensor> =
                (0..encodings).map(|i| graph.input(format!("context.{i}"), each)).collect();
            let (pairs, updates) = updates.build(graph, &[shape.tokens], |layers| {
                unet::keys_values(layers, config, &contexts)
            })?;
            let outputs = pairs.into_iter().flat_map(|(k, v)| [k, v]).collect();
            Ok((ContextInputs { contexts, updates }, outputs))
        })?;
        Ok(KeysValues { planned, updates: updates.clone(), within: None })
    }

    pub fn graph(&self) -> &Graph {
        &self.planned.graph
    }

    /// Bytes of activations and inputs while they are made.
    pub fn bytes(&self) -> u64 {
        self.planned.bytes()
    }

    pub fn weight_bytes<C>(&self, network: &LoadedNetwork<C>) -> Result<u64> {
        network.weight_bytes(&self.planned)
    }

    /// The fewest bytes of the device that the weights can do with.
    pub fn least_bytes<C>(&self, network: &LoadedNetwork<C>) -> Result<u64> {
        Ok(network.held(&self.planned, 0)?.map_or_else(|few| few.least, |held| held.bytes()))
    }

    /// Encodings that it is planned for.
    pub fn encodings(&self) -> usize {
        self.planned.inputs.contexts.len()
    }

    /// Makes them and writes them to the `programs` of steps. `rows`: for each masked update, its factor
    /// for each token of the prompts. `only`: the update that acts alone.
    pub fn write<C>(
        &self,
        network: &LoadedNetwork<C>,
        contexts: &[Array],
        rows: &[Mask],
        only: Option<usize>,
        programs: &[(&Program, &PromptInputs)],
    ) -> Result<()> {
        let made = network.program_within(&self.planned, self.within)?;
        for (input, context) in made.inputs.contexts.iter().zip(contexts.iter().cycle()) {
            made.write(*input, context)?;
        }
        self.updates.write_only(&made, &made.inputs.updates, only)?;
        rows.iter().try_for_each(|mask| made.inputs.updates.write(&made, mask))?;
        made.run();
        for (program, inputs) in programs {
            for (i, (keys, values)) in inputs.pairs.iter().enumerate() {
                // A shallow step has not all of them.
                if program.has_input(*keys) {
                    program.take(*keys, &made, 2 * i)?;
                    program.take(*values, &made, 2 * i + 1)?;
                }
            }
            program.wait()?;
        }
        Ok(())
    }
}
