//! The graph of a step: text encoder, UNet, losses, gradients and updates.

use crate::graph::ops::{Moments, RATES, RegionInputs};
use crate::graph::{Graph, Node, Origin, Tensor};
use crate::models::unet::{self, Residuals, UNetInputs};
use crate::nn::{Encodings, Layers};
use crate::scheduler::config::PredictionType;

use super::config::{Models, Network, PriorLoss, PriorTarget, StepConfig, TrainedLayer};
use super::dropout::{self, Factors};
use super::error::{Error, Result};
use super::layers::trained_layers;
use super::parameter_group::{ParameterGroup, Rate, given, groups};
use super::regularisation::{self, Maps};
use super::texts::{self, CaptionInputs, Texts};

/// What the caller reads after a run: the loss, the regularisation's part of it, and a number that
/// is finite only if all gradients are.
pub(super) const REPORT: usize = 3;

/// A step's graph, and what its inputs mean.
pub(super) struct Built {
    pub graph: Graph,
    /// `[REPORT]`
    pub report: Tensor,
    pub loss: Tensor,
    pub layers: Vec<TrainedLayer>,
    pub groups: Vec<ParameterGroup>,
    pub maps: Option<Maps>,
    pub dropout: Vec<Factors>,
    /// Encodings of each caption.
    pub copies: usize,
    pub inputs: Inputs,
    pub rates: RateInputs,
}

/// What a step reads of each batch.
pub(super) enum Inputs {
    /// Pictures with captions.
    Batch(BatchInputs),
    /// What others predict.
    Lesson(LessonInputs),
}

/// Inputs of a step that learns from pictures.
pub(super) struct BatchInputs {
    /// Of each text encoder.
    pub captions: Vec<CaptionInputs>,
    /// What is told of the pictures' sizes, as sinusoids; where the UNet is told.
    pub sizes: Option<Tensor>,
    pub latents: Tensor,
    pub noise: Tensor,
    /// How much of the latents is in each noisy one.
    pub signal: Tensor,
    /// And of the noise.
    pub sigma: Tensor,
    pub time: Tensor,
    /// What each element's squared error counts.
    pub weights: Tensor,
}

/// Inputs of a step that learns what others predict.
pub(super) struct LessonInputs {
    pub sample: Tensor,
    pub target: Tensor,
    pub time: Tensor,
    pub weights: Tensor,
    /// For each cross-attention.
    pub texts: Vec<Tensor>,
    /// Summaries of the prompts, and sizes; where the UNet is told.
    pub addition: Option<Tensor>,
    /// Where prompts hold, for each size of feature map; empty where there is one.
    pub regions: Vec<RegionInputs>,
}

/// What the updates are told.
#[derive(Default)]
pub(super) struct RateInputs {
    /// Whether the sum of gradients goes on; none where nothing is summed.
    pub keep: Option<Tensor>,
    /// The numbers of each rate's updates.
    pub of: Vec<(Rate, Tensor)>,
}

/// The frozen and the trained part of the model, before anything is differentiated.
struct Forward {
    inputs: BatchInputs,
    texts: Texts,
    loss: Tensor,
    regularisation: Option<Tensor>,
    maps: Option<Maps>,
}

/// `rounds`: gradients may be rounded to f16 where weights are held so.
pub(super) fn build(models: &Models, config: &StepConfig, rounds: bool) -> Result<Built> {
    check(models, config)?;
    let layers = trained_layers(models, config)?;
    check_ranks(config, &layers)?;
    let copies = config.rows_per_word(&models.unet);
    let mut graph = Graph::new();
    let rows: Vec<(Network, [usize; 2])> = models
        .encoders()
        .iter()
        .map(|of| (of.network, [config.words * copies, of.config.hidden_size]))
        .collect();
    let mut groups = groups(&mut graph, &rows, &layers, config.fixed_down())?;
    let forward = forward(&mut graph, models, config, &groups, copies)?;

    let loss = match forward.regularisation {
        Some(regularisation) => graph.add(forward.loss, regularisation)?,
        None => forward.loss,
    };
    if config.checkpointing {
        graph.recompute_blocks();
    }
    let held = halves(&graph, models, config);
    let halves = rounds && held.contains(&true);
    if halves {
        graph.round_gradients();
        graph.round_activations();
        if !held.contains(&false) {
            graph.hold_halves();
        }
    }
    let gradients = gradients(&mut graph, &groups, &forward, loss, halves)?;
    let (report, rates) =
        update(&mut graph, config, &mut groups, &gradients, loss, forward.regularisation)?;
    let dropout = dropout::factors(&graph, &layers);
    let (maps, inputs) = (forward.maps, Inputs::Batch(forward.inputs));
    Ok(Built { graph, report, loss, layers, groups, maps, dropout, copies, inputs, rates })
}

fn check(models: &Models, config: &StepConfig) -> Result<()> {
    let option = |option, found: String, expected: &str| {
        Err(Error::Option { option, found, expected: expected.into() })
    };
    if config.words == 0 {
        return option("words", "0".into(), "at least 1");
    }
    if config.attention_loss.is_some() && config.words < 2 {
        return option(
            "words",
            config.words.to_string(),
            "two words for the attention regularisation",
        );
    }
    if let Some(prior) = config.prior_loss
        && prior.pictures >= config.batch
    {
        let found = format!("{} of {}", prior.pictures, config.batch);
        return option("pictures of the class", found, "fewer than the batch has");
    }
    check_networks(models, config)
}

/// Of a basis there are as many rows as a layer is wide.
fn check_ranks(config: &StepConfig, layers: &[TrainedLayer]) -> Result<()> {
    let wrong = |layer: &&TrainedLayer| config.fixed_down() && layer.rank > layer.into;
    let Some(layer) = layers.iter().find(wrong) else { return Ok(()) };
    let option = if layer.network.is_text_encoder() { "text_rank" } else { "unet_rank" };
    let (found, most) = (layer.rank.to_string(), layer.into);
    let expected = format!("{most} at most with the method orthogonal, for `{}`", layer.name);
    Err(Error::Option { option, found, expected })
}

/// What every kind of step asks of a model and of its batches.
pub(super) fn check_networks(models: &Models, config: &StepConfig) -> Result<()> {
    let option = |option, found: String, expected: &str| {
        Err(Error::Option { option, found, expected: expected.into() })
    };
    let unet = &models.unet;
    for (name, share) in
        [("lora_dropout", config.lora_dropout), ("rank_dropout", config.rank_dropout)]
    {
        if !(0.0..1.0).contains(&share) {
            return option(name, share.to_string(), "a number from 0, below 1");
        }
    }
    for (name, value) in [("batch", config.batch), ("accumulate", config.accumulate)] {
        if value == 0 {
            return option(name, "0".into(), "at least 1");
        }
    }
    for encoder in models.encoders() {
        let most = encoder.config.max_position_embeddings;
        if config.tokens == 0 || config.tokens > most {
            return option("tokens", config.tokens.to_string(), &format!("1 to {most}"));
        }
    }
    if unet.in_channels != unet.out_channels {
        let found = format!("from {} to {} channels", unet.in_channels, unet.out_channels);
        return option(
            "the UNet",
            found,
            "as many channels out as in (an inpainting or editing model cannot be tuned)",
        );
    }
    if unet.cross_attention_dim != models.text_width() {
        let found = format!("of width {}", models.text_width());
        return option(
            "the text encoder",
            found,
            &format!("the {} that the UNet reads", unet.cross_attention_dim),
        );
    }
    if unet.num_class_embeds.is_some() || unet.time_cond_proj_dim.is_some() {
        return option(
            "the UNet",
            "conditioned on classes or guidance".into(),
            "one that reads time and text alone",
        );
    }
    let pooled = models.second.as_ref().map(|second| second.projection_dim);
    let told = unet.addition.map(|addition| addition.text);
    if pooled != told {
        let width = |width: Option<usize>| {
            width.map_or("no summary of the prompt".into(), |width| {
                format!("a summary of the prompt of width {width}")
            })
        };
        let found = format!("told {}", width(told));
        return option("the UNet", found, &format!("{}, as the text encoders make", width(pooled)));
    }
    Ok(())
}

fn forward(
    graph: &mut Graph,
    models: &Models,
    config: &StepConfig,
    groups: &[ParameterGroup],
    copies: usize,
) -> Result<Forward> {
    let (batch, [height, width]) = (config.batch, config.size);
    let unet = &models.unet;
    let texts = texts::build(graph, models, config, groups, copies)?;

    let shape = [batch, height, width, unet.in_channels];
    let (latents, noise) = (graph.input("latents", shape), graph.input("noise", shape));
    let level = [batch, 1, 1, unet.in_channels];
    let (signal, sigma) = (graph.input("signal", level), graph.input("sigma", level));
    let kept = graph.multiply(latents, signal)?;
    let added = graph.multiply(noise, sigma)?;
    let sample = graph.add(kept, added)?;
    let target = match models.prediction {
        PredictionType::Epsilon => noise,
        PredictionType::Sample => latents,
        PredictionType::VPrediction => {
            let (forward, back) = (graph.multiply(noise, signal)?, graph.multiply(latents, sigma)?);
            let back = graph.scale(back, -1.0)?;
            graph.add(forward, back)?
        }
    };

    let time = graph.input("time", [batch, unet.block_out_channels[0]]);
    let (sizes, addition) = match (unet.addition, texts.pooled) {
        (Some(of), Some(pooled)) => {
            let sizes = graph.input("sizes", [batch, of.width() - of.text]);
            (Some(sizes), Some(graph.concat_channels(pooled, sizes)?))
        }
        _ => (None, None),
    };
    let (prompt, residuals) = (Encodings::Text(&texts.texts), Residuals::default());
    let inputs =
        UNetInputs { sample, time, prompt, guidance: None, class: None, addition, residuals };
    let target = match config.prior_loss {
        Some(PriorLoss { pictures, target: PriorTarget::Base, .. }) => {
            let own = graph.slice(target, 0, 0, batch - pictures)?;
            let taught = base(graph, models, config, &texts, [sample, time], sizes, pictures)?;
            graph.concat(&[own, taught], 0)?
        }
        _ => target,
    };
    let mut layers = Layers::with_loras(graph, given(groups, Network::UNet, config));
    if config.attention_loss.is_some() {
        layers.watch_words(2);
    }
    let prediction = unet::unet(&mut layers, unet, &inputs)?.sample;
    let (maps, words) = layers.word_maps();
    let weights = graph.input("weights", shape);
    let loss = graph.weighted_squared_error(prediction, target, weights)?;
    let (regularisation, maps) = match config.attention_loss {
        Some(settings) => {
            let (loss, maps) = regularisation::build(graph, &maps, words, settings)?;
            (Some(loss), Some(maps))
        }
        None => (None, None),
    };
    let captions = texts.inputs.clone();
    let inputs = BatchInputs { captions, sizes, latents, noise, signal, sigma, time, weights };
    Ok(Forward { inputs, texts, loss, regularisation, maps })
}

/// What the model predicts of a batch's last `pictures`, which are of the class, without anything
/// that is trained: `[pictures, height, width, channels]`.
fn base(
    graph: &mut Graph,
    models: &Models,
    config: &StepConfig,
    texts: &Texts,
    [sample, time]: [Tensor; 2],
    sizes: Option<Tensor>,
    pictures: usize,
) -> Result<Tensor> {
    let (text, pooled) = texts::base(graph, models, config, texts, pictures)?;
    let mut last = |tensor| graph.slice(tensor, 0, config.batch - pictures, pictures);
    let (sample, time) = (last(sample)?, last(time)?);
    let addition = match (pooled, sizes) {
        (Some(pooled), Some(sizes)) => {
            let sizes = last(sizes)?;
            Some(graph.concat_channels(pooled, sizes)?)
        }
        _ => None,
    };
    let (prompt, residuals) = (Encodings::Text(&[text]), Residuals::default());
    let inputs =
        UNetInputs { sample, time, prompt, guidance: None, class: None, addition, residuals };
    Ok(unet::unet(&mut Layers::new(graph), &models.unet, &inputs)?.sample)
}

/// What the loss is multiplied by where gradients are rounded to f16, and they divided by at last:
/// a power of two, so nothing else is rounded. A mean over a latent's 16384 numbers leaves
/// gradients of 1e-4 and less, where f16 has fewer digits, and none below 6e-8.
const LOSS_SCALE: f32 = 16384.0;

/// Of each matrix of the graph, whether it is held in 16 bits.
fn halves(graph: &Graph, models: &Models, config: &StepConfig) -> Vec<bool> {
    let is_half = |node: &Node| match &node.origin {
        Origin::Parameter { name } if node.shape.len() > 1 => {
            let info = models.parameters.info(name);
            Some(info.is_some_and(|info| config.precision.is_half(info.stored)))
        }
        _ => None,
    };
    graph.nodes().iter().filter_map(is_half).collect()
}

/// The gradient of every group that is trained, `[numbers]`.
fn gradients(
    graph: &mut Graph,
    groups: &[ParameterGroup],
    forward: &Forward,
    loss: Tensor,
    scaled: bool,
) -> Result<Vec<Tensor>> {
    let parts = |of: &dyn Fn(Rate) -> bool| -> Vec<Tensor> {
        groups
            .iter()
            .filter(|group| group.trained && of(group.rate))
            .flat_map(|group| &group.parts)
            .map(|part| part.tensor)
            .collect()
    };
    let in_unet = parts(&|rate| rate == Rate::UNet);
    let mut wanted = in_unet.clone();
    wanted.extend(forward.texts.texts.iter().chain(&forward.texts.pooled));
    let loss = if scaled { graph.scale(loss, LOSS_SCALE)? } else { loss };
    let mut found = graph.gradients(loss, &wanted)?;
    let of_texts = found.split_off(in_unet.len());
    let in_text = parts(&|rate| rate != Rate::UNet);
    let mut rest = forward.texts.gradients(graph, &of_texts, &in_text)?.into_iter();
    let mut found = found.into_iter();
    let mut all = Vec::with_capacity(groups.len());
    for group in groups.iter().filter(|group| group.trained) {
        let source: &mut dyn Iterator<Item = Tensor> =
            if group.rate == Rate::UNet { &mut found } else { &mut rest };
        let gradient = flat(graph, group, source)?;
        all.push(if scaled { graph.scale(gradient, 1.0 / LOSS_SCALE)? } else { gradient });
    }
    Ok(all)
}

/// The gradient of a group `[numbers]`, from those of its parts, of which it takes as many as it
/// has.
pub(super) fn flat(
    graph: &mut Graph,
    group: &ParameterGroup,
    parts: &mut dyn Iterator<Item = Tensor>,
) -> Result<Tensor> {
    let mut pieces = Vec::with_capacity(group.parts.len());
    for gradient in parts.take(group.parts.len()) {
        let count = graph.shape(gradient).elements();
        pieces.push(graph.reshape(gradient, [count])?);
    }
    Ok(match &pieces[..] {
        [piece] => *piece,
        pieces => graph.concat(pieces, 0)?,
    })
}

/// Adds up, moves everything that is trained, and makes the report.
pub(super) fn update(
    graph: &mut Graph,
    config: &StepConfig,
    groups: &mut [ParameterGroup],
    gradients: &[Tensor],
    loss: Tensor,
    regularisation: Option<Tensor>,
) -> Result<(Tensor, RateInputs)> {
    let adamw = config.adamw;
    let moments = Moments { beta1: adamw.betas[0], beta2: adamw.betas[1], epsilon: adamw.epsilon };
    let keep = (config.accumulate > 1).then(|| graph.input("keep", [1]));
    let mut totals = Vec::with_capacity(groups.len());
    let mut guard = loss;
    let trained = groups.iter_mut().filter(|group| group.trained);
    for (group, &gradient) in trained.zip(gradients) {
        let mut total = gradient;
        if let Some(keep) = keep {
            let sum = graph.input(format!("sum.{}", group.name), [group.count]);
            group.sum = Some(sum);
            let kept = graph.multiply(sum, keep)?;
            total = graph.add(kept, gradient)?;
            graph.assign(sum, total)?;
        }
        // Finite only if all of them are.
        let sum = graph.sum(gradient)?;
        let nothing = graph.scale(sum, 0.0)?;
        guard = graph.add(guard, nothing)?;
        totals.push(total);
    }
    let mut rates: Vec<(Rate, Tensor)> = Vec::new();
    for (group, total) in groups.iter().filter(|group| group.trained).zip(totals) {
        let of_group = match rates.iter().find(|(rate, _)| *rate == group.rate) {
            Some((_, rates)) => *rates,
            None => {
                let input = graph.input(group.rate.rates_name(), [RATES]);
                rates.push((group.rate, input));
                input
            }
        };
        let next = graph.adamw(group.state, total, of_group, guard, moments)?;
        graph.assign(group.state, next)?;
    }
    let regularisation = match regularisation {
        Some(regularisation) => regularisation,
        None => graph.filled([1], 0.0)?,
    };
    let report = graph.concat(&[loss, regularisation, guard], 0)?;
    Ok((report, RateInputs { keep, of: rates }))
}
