//! Distillation: low-rank updates of one UNet learn to predict what others predict (Hinton et al.,
//! "Distilling the knowledge in a neural network", 2015). The text encoder stands still and is not
//! part of the step.

use crate::backend::Device;
use crate::backend::reference::Reference;
use crate::graph::ops::{Reach, RegionInputs, RegionTables};
use crate::graph::{Array, Element, Graph, Tensor};
use crate::models::config::UNetConfig;
use crate::models::unet::{self, Residuals, UNetInputs, time_features};
use crate::nn::{Encodings, Layers, RegionSize};

use super::TrainingStep;
use super::build::{Built, Inputs, LessonInputs, check_networks, flat, update};
use super::config::{Models, Network, Rates, StepConfig, StepReport, TrainedLayer};
use super::engine::Engine;
use super::error::{Error, Result};
use super::feed::{Position, check, rates, wrong};
use super::parameter_group::{ParameterGroup, given, groups};

/// One (micro-)batch of distillation.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// `[batch, height, width, channels]`, as the UNet takes it.
    pub sample: Array,
    /// Training steps, one for each picture.
    pub timesteps: Vec<f32>,
    /// What each cross-attention reads, in the order of their numbers:
    /// `[batch, prompts * tokens, width]`, the prompts one after another.
    pub texts: Vec<Array>,
    /// Where each prompt holds in all pictures of the batch, for each size of feature map, from the
    /// largest; empty where the step is planned for one prompt.
    pub regions: Vec<RegionTables>,
    /// Summaries of the prompts and what is told of sizes, `[batch, width]`; where the UNet is told.
    pub addition: Option<Array>,
    /// What is to be predicted, of the sample's shape.
    pub target: Array,
    /// What each picture's mean squared error counts; 1 usually.
    pub weights: Vec<f32>,
    /// Learning rate.
    pub rate: f32,
}

impl TrainingStep {
    /// A step in which low-rank updates of `layers`, all of one rank (`config.unet_rank`), learn
    /// from [`Lesson`]s instead of pictures. Of `config`, what is about words, text and
    /// regularisation is not used.
    ///
    /// # Errors
    /// As those of [`TrainingStep::new`].
    pub fn distilling(
        models: &Models,
        config: &StepConfig,
        layers: &[TrainedLayer],
        device: &Device,
    ) -> Result<TrainingStep> {
        let built = build(models, config, layers)?;
        let engine = Engine::new(device, models.parameters.clone(), config.precision, &built);
        Ok(TrainingStep::with(models, config, built, engine))
    }

    /// The same in plain Rust.
    ///
    /// # Errors
    /// As those of [`TrainingStep::new`].
    pub fn distilling_on_host(
        models: &Models,
        config: &StepConfig,
        layers: &[TrainedLayer],
    ) -> Result<TrainingStep> {
        TrainingStep::distilling(models, config, layers, &Reference::new().into())
    }

    /// Takes one lesson. At the last of an accumulation, the updates move. The loss is the mean
    /// over the batch of each picture's mean squared error times its weight, before the move.
    ///
    /// # Errors
    /// As those of [`TrainingStep::run`].
    pub fn learn(&mut self, lesson: &Lesson) -> Result<StepReport> {
        let inputs = self.lesson_inputs(lesson)?;
        self.take(inputs)
    }

    fn lesson_inputs(&self, lesson: &Lesson) -> Result<Vec<(Tensor, Array)>> {
        let Inputs::Lesson(of) = &self.built.inputs else {
            let found = "one that learns from pictures".to_string();
            let expected = "one that distils".to_string();
            return Err(Error::Option { option: "the step", found, expected });
        };
        let (config, unet) = (&self.config, &self.models.unet);
        let (n, [height, width]) = (config.batch, config.size);
        let shape = [n, height, width, unet.in_channels].into();
        check("sample", &lesson.sample, &shape, Element::F32)?;
        check("target", &lesson.target, &shape, Element::F32)?;
        for (what, length) in
            [("timesteps", lesson.timesteps.len()), ("weights", lesson.weights.len())]
        {
            if length != n {
                return Err(wrong(what, length, n));
            }
        }
        if lesson.texts.len() != unet.cross_attention_layers() {
            return Err(wrong("texts", lesson.texts.len(), unet.cross_attention_layers()));
        }
        let mut inputs = vec![
            (of.sample, lesson.sample.clone()),
            (of.target, lesson.target.clone()),
            (
                of.time,
                Array::f32([n, unet.block_out_channels[0]], time_features(unet, &lesson.timesteps)),
            ),
        ];
        for (text, input) in lesson.texts.iter().zip(&of.texts) {
            check(
                "text",
                text,
                &[n, config.prompts.max(1) * config.tokens, unet.cross_attention_dim].into(),
                Element::F32,
            )?;
            inputs.push((*input, text.clone()));
        }
        if lesson.regions.len() != of.regions.len() {
            return Err(wrong("regions", lesson.regions.len(), of.regions.len()));
        }
        for (tables, at) in lesson.regions.iter().zip(&of.regions) {
            for (input, values) in tables.values(at) {
                // At some sizes no attention stands.
                if self.engine.has_input(input) {
                    let node = self.built.graph.node(input);
                    check("regions", values, &node.shape, node.element)?;
                    inputs.push((input, values.clone()));
                }
            }
        }
        if let (Some(input), Some(addition)) = (of.addition, &unet.addition) {
            let missing = || wrong("addition", "missing", "what the UNet is told of prompts");
            let told = lesson.addition.as_ref().ok_or_else(missing)?;
            check("addition", told, &[n, addition.width()].into(), Element::F32)?;
            inputs.push((input, told.clone()));
        }
        let elements = height * width * unet.in_channels;
        let of_element = |weight: &f32| (f64::from(*weight) / (n * elements) as f64) as f32;
        let weights = lesson
            .weights
            .iter()
            .flat_map(|weight| std::iter::repeat_n(of_element(weight), elements))
            .collect();
        inputs.push((of.weights, Array::f32(shape, weights)));
        let at = Position {
            update: self.step + 1,
            accumulated: self.accumulated,
            embeddings_stopped: false,
        };
        inputs.extend(rates(
            config,
            &self.built,
            &Rates { unet: lesson.rate, ..Rates::default() },
            &at,
        ));
        Ok(inputs)
    }
}

fn build(models: &Models, config: &StepConfig, layers: &[TrainedLayer]) -> Result<Built> {
    check_networks(models, config)?;
    // Lessons are not dropped from.
    let config = &StepConfig { lora_dropout: 0.0, rank_dropout: 0.0, ..config.clone() };
    let (n, [height, width], unet) = (config.batch, config.size, &models.unet);
    let mut graph = Graph::new();
    let mut groups = groups(&mut graph, &[], layers, false)?;
    let shape = [n, height, width, unet.in_channels];
    let (sample, target, weights) =
        (graph.input("sample", shape), graph.input("target", shape), graph.input("weights", shape));
    let time = graph.input("time", [n, unet.block_out_channels[0]]);
    let prompts = config.prompts.max(1);
    let text = [n, prompts * config.tokens, unet.cross_attention_dim];
    let texts: Vec<Tensor> = (0..unet.cross_attention_layers())
        .map(|i| graph.input(format!("text.{i}"), text))
        .collect();
    let addition = unet.addition.map(|of| graph.input("addition", [n, of.width()]));
    let sizes = if prompts > 1 { regions(&mut graph, unet, config) } else { Vec::new() };
    let residuals = Residuals::default();
    let loras = given(&groups, Network::UNet, config);
    let in_graph = &mut Layers::with_loras(&mut graph, loras);
    let pairs = match sizes.is_empty() {
        true => Vec::new(),
        false => unet::keys_values(in_graph, unet, &texts)?,
    };
    let prompt = match sizes.is_empty() {
        true => Encodings::Text(&texts),
        false => Encodings::Regional { pairs: &pairs, sizes: &sizes },
    };
    let inputs =
        UNetInputs { sample, time, prompt, guidance: None, class: None, addition, residuals };
    let prediction = unet::unet(in_graph, unet, &inputs)?.sample;
    let loss = graph.weighted_squared_error(prediction, target, weights)?;
    if config.checkpointing {
        graph.recompute_blocks();
    }
    let parts: Vec<Tensor> =
        groups.iter().flat_map(|group| &group.parts).map(|part| part.tensor).collect();
    let mut found = graph.gradients(loss, &parts)?.into_iter();
    let gradients = groups
        .iter()
        .map(|group: &ParameterGroup| flat(&mut graph, group, &mut found))
        .collect::<Result<Vec<_>>>()?;
    let (report, rates) = update(&mut graph, config, &mut groups, &gradients, loss, None)?;
    let regions = sizes.into_iter().map(|size| size.inputs).collect();
    let inputs = LessonInputs { sample, target, time, weights, texts, addition, regions };
    let inputs = Inputs::Lesson(inputs);
    let (layers, maps, dropout, copies) = (layers.to_vec(), None, Vec::new(), 0);
    Ok(Built { graph, report, loss, layers, groups, maps, dropout, copies, inputs, rates })
}

/// Declares where prompts hold: each may hold everywhere.
fn regions(graph: &mut Graph, unet: &UNetConfig, config: &StepConfig) -> Vec<RegionSize> {
    let [height, width] = config.size;
    let sizes = unet::feature_sizes(unet, height, width).into_iter().enumerate();
    let size = |(number, [height, width]): (usize, [usize; 2])| {
        let tokens = height * width;
        let reach = vec![Reach { keys: config.tokens, tokens }; config.prompts];
        let name = format!("regions.{number}");
        let inputs = RegionInputs::declare(graph, &name, tokens, reach);
        RegionSize { tokens, inputs, mask: None }
    };
    sizes.map(size).collect()
}
