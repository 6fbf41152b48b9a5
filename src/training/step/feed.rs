//! From a batch to the inputs of the graph.

use crate::graph::{Array, Element, ParameterSource, Shape, Tensor};
use crate::models::config::ClipTextConfig;
use crate::models::unet::{addition_features, time_features};
use crate::nn::word_values;
use crate::sd::source::Within;
use crate::sd::text::end_rows;
use crate::sd::tokens::TokenRows;

use super::build::{BatchInputs, Built, Inputs};
use super::config::{Batch, Models, Network, Rates, SECOND, SecondText, StepConfig};
use super::dropout;
use super::error::{Error, Result};
use super::parameter_group::Rate;
use super::regularisation::{Maps, resized};
use super::texts::CaptionInputs;

/// Turns batches into inputs.
#[derive(Default)]
pub(super) struct Feed {
    /// Rows of the token tables that were read: the first text encoder's, the second's.
    known: [TokenRows; 2],
}

/// Where a run stands.
pub(super) struct Position {
    /// Number of the update, counted from 1.
    pub update: u64,
    /// Batches of the accumulation before this one.
    pub accumulated: usize,
    pub embeddings_stopped: bool,
}

type Arrays = Vec<(Tensor, Array)>;

pub(super) fn wrong(what: &'static str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Batch { what, found: found.to_string(), expected: expected.to_string() }
}

pub(super) fn check(
    what: &'static str,
    array: &Array,
    shape: &Shape,
    element: Element,
) -> Result<()> {
    let count = array.values().len() + array.ids().len();
    if array.shape != *shape || array.element() != element || count != shape.elements() {
        return Err(wrong(
            what,
            format!("{:?} {} of {count}", array.element(), array.shape),
            format!("{element:?} {shape}"),
        ));
    }
    Ok(())
}

impl Feed {
    /// The inputs of one run.
    pub fn inputs(
        &mut self,
        models: &Models,
        config: &StepConfig,
        built: &Built,
        batch: &Batch,
        at: &Position,
    ) -> Result<Arrays> {
        let Inputs::Batch(of) = &built.inputs else {
            let found = "one that distils".to_string();
            let expected = "one that learns from pictures".to_string();
            return Err(Error::Option { option: "the step", found, expected });
        };
        let (n, [height, width], channels) = (config.batch, config.size, models.unet.in_channels);
        let shape: Shape = [n, height, width, channels].into();
        check("latents", &batch.latents, &shape, Element::F32)?;
        check("noise", &batch.noise, &shape, Element::F32)?;
        let mask: Shape = [n, height, width].into();
        check("loss mask", &batch.loss_mask, &mask, Element::F32)?;
        for (what, length) in
            [("timesteps", batch.timesteps.len()), ("factors", batch.factors.len())]
        {
            if length != n {
                return Err(wrong(what, length, n));
            }
        }
        let mut inputs: Arrays =
            vec![(of.latents, batch.latents.clone()), (of.noise, batch.noise.clone())];
        inputs.extend(levels(models, of, &batch.timesteps, channels)?);
        let times: Vec<f32> = batch.timesteps.iter().map(|&t| t as f32).collect();
        let features = time_features(&models.unet, &times);
        inputs.push((of.time, Array::f32([n, models.unet.block_out_channels[0]], features)));
        inputs.push((of.weights, loss_weights(config, batch, shape)));
        for captions in &of.captions {
            inputs.extend(self.captions(models, config, built.copies, captions, batch)?);
        }
        inputs.extend(sizes(models, config, of, batch)?);
        if let Some(maps) = &built.maps {
            let subject = batch
                .subject_mask
                .as_ref()
                .ok_or_else(|| wrong("subject mask", "missing", &mask))?;
            check("subject mask", subject, &mask, Element::F32)?;
            let words = [0, 1].map(|word| models.text.vocab_size + word * built.copies);
            let positions = positions(&batch.ids, words);
            inputs.extend(map_inputs(maps, subject, &positions, config));
        }
        inputs.extend(dropout::drawn(&built.dropout, built.layers.len(), config, batch));
        inputs.extend(rates(config, built, &batch.rates, at));
        Ok(inputs)
    }

    /// The captions as one of the text encoders reads them.
    fn captions(
        &mut self,
        models: &Models,
        config: &StepConfig,
        copies: usize,
        of: &CaptionInputs,
        batch: &Batch,
    ) -> Result<Arrays> {
        let [first, second] = &mut self.known;
        let (known, source): (&mut TokenRows, &dyn ParameterSource);
        let inside = Within { source: &*models.parameters, prefix: SECOND };
        let (text, ids) = match (&models.second, of.network) {
            (Some(text), Network::TextEncoder2) => {
                (known, source) = (second, &inside);
                (text, &second_of(batch)?.ids)
            }
            _ => {
                (known, source) = (first, &*models.parameters);
                (&models.text, &batch.ids)
            }
        };
        let mut inputs = tokens(known, source, text, config, copies, of, ids)?;
        if let Some(input) = of.ends {
            let ends = &second_of(batch)?.ends;
            if ends.len() != config.batch || ends.iter().any(|end| *end >= config.tokens) {
                let expected = format!("{} below {}", config.batch, config.tokens);
                return Err(wrong("ends of captions", format!("{ends:?}"), expected));
            }
            inputs.push((input, end_rows(ends, config.tokens)));
        }
        Ok(inputs)
    }
}

fn second_of(batch: &Batch) -> Result<&SecondText> {
    let missing = || wrong("captions of the second text encoder", "missing", "those of the batch");
    batch.second.as_ref().ok_or_else(missing)
}

/// What the UNet is told of the pictures' sizes.
fn sizes(
    models: &Models,
    config: &StepConfig,
    of: &BatchInputs,
    batch: &Batch,
) -> Result<Option<(Tensor, Array)>> {
    let (Some(input), Some(addition)) = (of.sizes, &models.unet.addition) else { return Ok(None) };
    let sizes = &second_of(batch)?.sizes;
    if sizes.len() != config.batch {
        return Err(wrong("sizes", sizes.len(), config.batch));
    }
    let row = |numbers| addition_features(&models.unet, addition, &[], numbers);
    let values = sizes.iter().flat_map(row).collect();
    Ok(Some((input, Array::f32([config.batch, addition.width() - addition.text], values))))
}

/// The captions: frozen rows, and which trained row each token adds (the last, of zeros, where it is
/// none).
fn tokens(
    known: &mut TokenRows,
    source: &dyn ParameterSource,
    text: &ClipTextConfig,
    config: &StepConfig,
    copies: usize,
    of: &CaptionInputs,
    ids: &Array,
) -> Result<Arrays> {
    let (n, tokens, width, vocabulary) =
        (config.batch, config.tokens, text.hidden_size, text.vocab_size);
    check("token ids", ids, &[n, copies, tokens].into(), Element::U32)?;
    let rows = config.words * copies;
    let mut trained = Vec::with_capacity(copies * n * tokens);
    let mut embedded = vec![0.0; copies * n * tokens * width];
    let order =
        (0..copies).flat_map(|copy| (0..n).map(move |entry| (entry * copies + copy) * tokens));
    let slots = embedded.chunks_exact_mut((tokens * width).max(1));
    for (sequence, start) in slots.zip(order) {
        for (slot, &id) in
            sequence.chunks_exact_mut(width.max(1)).zip(&ids.ids()[start..start + tokens])
        {
            let row = id as usize;
            if row >= vocabulary + rows {
                return Err(wrong("token ids", row, format!("ids below {}", vocabulary + rows)));
            }
            trained.push(if row < vocabulary { rows } else { row - vocabulary } as u32);
            if row < vocabulary {
                let row = known.row(source, text, id);
                slot.copy_from_slice(row.map_err(|error| Error::Graph(error.into()))?);
            }
        }
    }
    let sequences = copies * n;
    Ok(vec![
        (of.embedded, Array::f32([sequences, tokens, width], embedded)),
        (of.ids, Array::u32([sequences, tokens], trained)),
    ])
}

/// How much of signal and noise is in each noisy latent.
fn levels(
    models: &Models,
    of: &BatchInputs,
    timesteps: &[usize],
    channels: usize,
) -> Result<Arrays> {
    let steps = models.schedule.alphas_cumprod().len();
    let (mut signal, mut sigma) = (Vec::new(), Vec::new());
    for &t in timesteps {
        let level = models
            .schedule
            .level(t)
            .ok_or_else(|| wrong("timesteps", t, format!("below {steps}")))?;
        signal.extend(std::iter::repeat_n(level.signal, channels));
        sigma.extend(std::iter::repeat_n(level.noise, channels));
    }
    let shape = [timesteps.len(), 1, 1, channels];
    Ok(vec![(of.signal, Array::f32(shape, signal)), (of.sigma, Array::f32(shape, sigma))])
}

/// What each element's squared error counts: mask / (sum of the picture's mask * pictures), times
/// the picture's factor; of pictures of the class, which are counted apart, times their weight. A
/// picture of which nothing counts has no loss.
fn loss_weights(config: &StepConfig, batch: &Batch, shape: Shape) -> Array {
    let (pictures, channels) = (shape[0], shape.channels());
    let (of_class, class_weight) =
        config.prior_loss.map_or((0, 0.0), |prior| (prior.pictures, f64::from(prior.weight)));
    let of_concept = pictures - of_class.min(pictures);
    let mask = batch.loss_mask.values();
    let each = mask.chunks_exact((mask.len() / pictures.max(1)).max(1));
    let mut weights = Vec::with_capacity(shape.elements());
    for (i, (mask, factor)) in each.zip(&batch.factors).enumerate() {
        let (share, count) =
            if i < of_concept { (1.0, of_concept) } else { (class_weight, of_class) };
        let sum: f64 = mask.iter().map(|&m| f64::from(m)).sum();
        let weight =
            if sum > 0.0 { share * f64::from(*factor) / (sum * count as f64) } else { 0.0 };
        for &m in mask {
            weights.extend(std::iter::repeat_n((f64::from(m) * weight) as f32, channels));
        }
    }
    Array::f32(shape, weights)
}

/// Where each caption has the two words, in its first copy.
fn positions(ids: &Array, words: [usize; 2]) -> Vec<Vec<Option<usize>>> {
    let (copies, tokens) = (ids.shape[1], ids.shape[2]);
    let captions = ids.ids().chunks_exact((copies * tokens).max(1));
    let find =
        |caption: &[u32], word: usize| caption[..tokens].iter().position(|&id| id as usize == word);
    captions.map(|caption| words.map(|word| find(caption, word)).to_vec()).collect()
}

/// The inputs of the attention regularisation. Captions that lack a word count for nothing, and so
/// does a resolution at which nothing is outside of the subject.
fn map_inputs(
    maps: &Maps,
    subject: &Array,
    positions: &[Vec<Option<usize>>],
    config: &StepConfig,
) -> Arrays {
    let (n, [height, width]) = (config.batch, config.size);
    let complete: Vec<bool> =
        positions.iter().map(|words| words.iter().all(Option::is_some)).collect();
    let mut inputs = Arrays::new();
    for watched in &maps.words {
        // A map of a batch without any words would be divided by 0; it counts for nothing, so that
        // any place will do.
        let any = complete.contains(&true);
        let places: Vec<Vec<Option<usize>>> = positions
            .iter()
            .zip(&complete)
            .map(|(words, complete)| {
                words.iter().map(|p| if any { p.filter(|_| *complete) } else { Some(0) }).collect()
            })
            .collect();
        let values = word_values(&places, config.tokens, watched.width, watched.heads);
        inputs.push((watched.input, Array::f32([n, config.tokens, watched.width], values)));
    }
    let masks = subject.values().chunks_exact((height * width).max(1));
    for of in &maps.masks {
        let size = of.size;
        let places = size[0] * size[1];
        let mask: Vec<f32> =
            masks.clone().flat_map(|mask| resized(mask, [height, width], size)).collect();
        let counts = |i: usize| complete.get(i / places.max(1)).copied().unwrap_or(false);
        let is_outside = |(i, m): (usize, &f32)| counts(i) && *m == 0.0;
        let outside = mask.iter().enumerate().filter(|&pair| is_outside(pair)).count();
        let all = (0..mask.len()).filter(|&i| counts(i)).count();
        let share = |of: usize| if outside > 0 { maps.settings.weight / of as f32 } else { 0.0 };
        let shape = [n, places, 1];
        let off = mask
            .iter()
            .enumerate()
            .map(|pair| if is_outside(pair) { share(outside) } else { 0.0 })
            .collect();
        inputs.push((of.outside, Array::f32(shape, off)));
        if let Some([mask_input, inside_input]) = of.identity {
            let inside =
                (0..mask.len()).map(|i| if counts(i) { share(all) } else { 0.0 }).collect();
            inputs.push((inside_input, Array::f32(shape, inside)));
            inputs.push((mask_input, Array::f32(shape, mask)));
        }
    }
    inputs
}

/// What the updates are told.
pub(super) fn rates(config: &StepConfig, built: &Built, rates: &Rates, at: &Position) -> Arrays {
    let last = at.accumulated + 1 == config.accumulate;
    let mut inputs = Arrays::new();
    if let Some(keep) = built.rates.keep {
        inputs.push((keep, Array::f32([1], vec![f32::from(u8::from(at.accumulated > 0))])));
    }
    let adamw = &config.adamw;
    // 1 - beta^t; t is far below 2^31 in any run.
    let correction = |beta: f32, t: u64| 1.0 - f64::from(beta).powi(t.min(i32::MAX as u64) as i32);
    for &(of, input) in &built.rates.of {
        let rate = f64::from(match of {
            Rate::Rows if at.embeddings_stopped => 0.0,
            Rate::Rows => rates.rows,
            Rate::Text => rates.text,
            Rate::UNet => rates.unet,
        });
        let (decay, first) = match of {
            Rate::Rows => (adamw.weight_decay, 0),
            _ => {
                let decay = adamw.lora_weight_decay.unwrap_or(adamw.weight_decay);
                (decay, config.words_first)
            }
        };
        // Nothing is remembered of updates that move the words alone.
        let waits = at.update <= first;
        let t = if waits { 1 } else { at.update - first };
        let values = [
            1.0 - rate * f64::from(decay),
            rate / correction(adamw.betas[0], t),
            correction(adamw.betas[1], t).sqrt(),
            1.0 / config.accumulate as f64,
            f64::from(u8::from(last && !waits)),
        ];
        inputs.push((input, Array::f32([values.len()], values.map(|v| v as f32).to_vec())));
    }
    inputs
}
