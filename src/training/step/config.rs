//! What a tuning step is built for, what each step is fed, and what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::Precision;
pub use crate::checkpoint::Network;
use crate::graph::{Array, ParameterSource};
use crate::models::config::{ClipTextConfig, UNetConfig};
use crate::models::unet::SizeNumbers;
use crate::scheduler::config::PredictionType;
use crate::scheduler::schedule::NoiseSchedule;
use crate::sd::Model;
use crate::sd::source::Together;

use super::error::Result;

/// Where a step has the second text encoder, whose layers are called as the first one's are.
pub(super) const SECOND: &str = "text_encoder_2";

/// The networks that are tuned: frozen weights, and how they were trained.
#[derive(Clone)]
pub struct Models {
    /// The UNet's configuration.
    pub unet: UNetConfig,
    /// The text encoder's.
    pub text: ClipTextConfig,
    /// That of the second one, which models of the kind of Stable Diffusion XL have.
    pub second: Option<ClipTextConfig>,
    /// The noise of each training step.
    pub schedule: NoiseSchedule,
    /// What the UNet predicts.
    pub prediction: PredictionType,
    /// Weights of all networks; the names of the second text encoder's begin with
    /// `text_encoder_2.`.
    pub parameters: Arc<dyn ParameterSource + Send>,
}

impl Models {
    /// The UNet and the text encoder of a model, with the schedule that they were trained with.
    ///
    /// # Errors
    /// A schedule that this program does not compute.
    pub fn of(model: &Model) -> Result<Models> {
        let (unet, text) = (&model.unet, &model.text().part);
        let second = model.text_encoders.get(1).map(|encoder| &encoder.part);
        let parameters = Together::of([&unet.component, &text.component]);
        let parameters = match second {
            Some(second) => parameters.with(&format!("{SECOND}."), &second.component),
            None => parameters,
        };
        Ok(Models {
            unet: unet.config.clone(),
            text: text.config.clone(),
            second: second.map(|second| second.config.clone()),
            schedule: NoiseSchedule::of_training(&model.scheduler)?,
            prediction: model.scheduler.prediction_type.unwrap_or_default(),
            parameters: Arc::new(parameters),
        })
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Embeddings for every cross-attention layer, and low-rank updates of both networks
    /// (Mix-of-Show, section 3.2).
    #[default]
    EdLora,
    /// One embedding for all layers, and the same updates.
    Lora,
    /// Embeddings for every cross-attention layer alone (P+).
    PPlus,
    /// As ED-LoRA, but the updates' first matrices stand still (Orthogonal Adaptation, arXiv
    /// 2312.02432).
    Orthogonal,
}

/// Layers of the text encoder that have low-rank updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextLayers {
    /// `CLIPAttention`: q, k, v, out.
    #[default]
    Attention,
    /// `CLIPEncoderLayer`: the feed-forward's fc1 and fc2 too.
    EncoderLayer,
}

/// Layers of the UNet that have low-rank updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UNetLayers {
    /// `Attention`: to_q, to_k, to_v, to_out.0 of both attentions.
    #[default]
    Attention,
    /// to_k and to_v of the attentions to prompts alone (Kumari et al., "Multi-Concept
    /// Customization of Text-to-Image Diffusion", 2023).
    KeysValues,
    /// `Transformer2DModel`: proj_in, proj_out and the feed-forward's two layers too.
    Transformer,
}

/// Regularisation of the cross-attention maps of the two concept words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionLoss {
    /// 0.01 in the method.
    pub weight: f32,
    /// The second word's map is drawn to the mask; otherwise it too is only kept from the outside.
    pub full_identity: bool,
}

/// Pictures of the concept's class in each batch, so that what is trained leaves the class as it is
/// (prior preservation; Ruiz et al., "DreamBooth: Fine tuning text-to-image diffusion models for
/// subject-driven generation", 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PriorLoss {
    /// How many of the batch they are: the last ones.
    pub pictures: usize,
    /// The loss is the mean over the other pictures, and so many times the mean over these.
    pub weight: f32,
    /// What is to be predicted of them.
    pub target: PriorTarget,
}

/// What pictures of the class teach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PriorTarget {
    /// What was added to them, as any picture does (DreamBooth).
    #[default]
    Noise,
    /// What the model predicts of them without anything that is trained: the model as its own
    /// teacher (Hinton et al., "Distilling the knowledge in a neural network", 2015). Nothing of
    /// it is by chance; a batch takes one more forward pass of these pictures.
    Base,
}

/// The optimiser's constants (Loshchilov and Hutter, "Decoupled weight decay regularization",
/// 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decays of the means of gradients and of their squares.
    pub betas: [f32; 2],
    /// Added to the root, so that nothing is divided by 0.
    pub epsilon: f32,
    /// Decoupled from the gradient.
    pub weight_decay: f32,
    /// Of low-rank updates; none: as all else.
    pub lora_weight_decay: Option<f32>,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.01, lora_weight_decay: None }
    }
}

/// Everything that decides the plan of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepConfig {
    /// What is trained.
    pub method: Method,
    /// Which of the text encoder's have updates.
    pub text_layers: TextLayers,
    /// Which of the UNet's have updates.
    pub unet_layers: UNetLayers,
    /// 0: the text encoder has no updates.
    pub text_rank: usize,
    /// 0: the UNet has no updates.
    pub unet_rank: usize,
    /// The factor of every update, not divided by its rank.
    pub alpha: f32,
    /// Pictures in a (micro-)batch, those of the class among them.
    pub batch: usize,
    /// Height and width of the latents.
    pub size: [usize; 2],
    /// Tokens of a caption; 77.
    pub tokens: usize,
    /// Concept words; the first two are what the attention regularisation is about.
    pub words: usize,
    /// Last layers of the text encoder that are left out.
    pub clip_skip: usize,
    /// None: no regularisation.
    pub attention_loss: Option<AttentionLoss>,
    /// Of pictures of the class beside the concept's; none: there are none.
    pub prior_loss: Option<PriorLoss>,
    /// Share of the numbers between an update's two matrices that each batch leaves out (dropout as
    /// kohya's `network_dropout` does it); what stays counts 1 / (1 - share).
    pub lora_dropout: f32,
    /// Share of an update's ranks that each picture of a batch leaves out, likewise.
    pub rank_dropout: f32,
    /// Updates in which only the words' rows move. The optimiser of all else begins after them.
    pub words_first: u64,
    /// The optimiser's constants.
    pub adamw: AdamW,
    /// The activations of a block are computed again for its backward, instead of kept.
    pub checkpointing: bool,
    /// Batches whose gradients are averaged for one update; at least 1.
    pub accumulate: usize,
    /// Mean norm of the concept words' rows at which they stop moving for good; 0.55 in the method.
    pub norm_limit: Option<f32>,
    /// How the frozen weights are held. What is trained is f32 always.
    pub precision: Precision,
    /// Of distillation: prompts that a lesson's pictures may have, each with a part of the picture.
    pub prompts: usize,
}

impl Default for StepConfig {
    fn default() -> Self {
        StepConfig {
            method: Method::default(),
            text_layers: TextLayers::default(),
            unet_layers: UNetLayers::default(),
            text_rank: 4,
            unet_rank: 4,
            alpha: 1.0,
            batch: 1,
            size: [64, 64],
            tokens: 77,
            words: 2,
            clip_skip: 0,
            attention_loss: None,
            prior_loss: None,
            lora_dropout: 0.0,
            rank_dropout: 0.0,
            words_first: 0,
            adamw: AdamW::default(),
            checkpointing: false,
            accumulate: 1,
            norm_limit: Some(0.55),
            precision: Precision::default(),
            prompts: 1,
        }
    }
}

impl StepConfig {
    /// Rows of each concept word: one for every cross-attention layer, or one.
    pub fn rows_per_word(&self, unet: &UNetConfig) -> usize {
        match self.method {
            Method::EdLora | Method::PPlus | Method::Orthogonal => unet.cross_attention_layers(),
            Method::Lora => 1,
        }
    }

    /// Whether the networks have low-rank updates.
    pub fn has_updates(&self) -> bool {
        self.method != Method::PPlus
    }

    /// Whether the updates' first matrices stand still.
    pub fn fixed_down(&self) -> bool {
        self.method == Method::Orthogonal
    }
}

/// Learning rates of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Of the concept words' rows. They stand still at 0, and once their norm has reached the
    /// limit.
    pub rows: f32,
    /// Of the text encoder's updates.
    pub text: f32,
    /// Of the UNet's updates.
    pub unet: f32,
}

/// One (micro-)batch. Everything random in it was drawn by the caller.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, height, width, channels]`, scaled as the UNet takes them.
    pub latents: Array,
    /// Of the latents' shape, noise offset included.
    pub noise: Array,
    /// Training steps, one for each picture.
    pub timesteps: Vec<usize>,
    /// Indices `[batch, copies, tokens]`: copy i is what cross-attention layer i reads, copies is
    /// [`StepConfig::rows_per_word`]. Concept word w stands as vocabulary size + w * copies + i.
    pub ids: Array,
    /// What models with two text encoders read besides; none for others.
    pub second: Option<SecondText>,
    /// A factor of each picture's loss (min-SNR); 1 usually.
    pub factors: Vec<f32>,
    /// What counts of each picture, 0 or 1: `[batch, height, width]`.
    pub loss_mask: Array,
    /// Where the subject is, 0 or 1: `[batch, height, width]`. Needed by the attention
    /// regularisation only.
    pub subject_mask: Option<Array>,
    /// What dropout is drawn by: the run's seed, and which batch of the whole run this is.
    pub seed: u64,
    /// Counting all of an accumulation, from 0 on.
    pub number: u64,
    /// What the update is made with, if this batch ends an accumulation.
    pub rates: Rates,
}

/// What Stable Diffusion XL reads besides the first text encoder's captions.
#[derive(Clone, Debug)]
pub struct SecondText {
    /// The captions in the second text encoder's tokens, as [`Batch::ids`] has the first's.
    pub ids: Array,
    /// Where each caption ends: the place of its end mark.
    pub ends: Vec<usize>,
    /// What is told of each picture.
    pub sizes: Vec<SizeNumbers>,
}

/// What one [`super::TrainingStep::run`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Updates so far, this one included.
    pub step: u64,
    /// This batch was the last of its accumulation, and everything moved.
    pub updated: bool,
    /// The whole loss of this batch.
    pub loss: f32,
    /// The attention regularisation's part of it.
    pub regularisation: f32,
    /// Mean norm of the concept words' rows, after the update.
    pub embedding_norm: f32,
    /// The rows have reached their limit and will not move again.
    pub embeddings_stopped: bool,
}

/// One low-rank update that is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedLayer {
    /// The network that it is in.
    pub network: Network,
    /// The layer's full name.
    pub name: String,
    /// Of the update.
    pub rank: usize,
    /// Channels that the layer reads.
    pub into: usize,
    /// Channels that it makes.
    pub out: usize,
}

/// All that a run needs to go on to the same bytes. Arrays by name:
/// `rows` `[words * copies, width]`, `rows_2` those of a second text encoder; `text.<layer>.lora_down.weight` `[rank, in]`,
/// `.lora_up.weight` `[out, rank]`, likewise `text_2.` and `unet.`; of each of these AdamW's moments as
/// `first.<name>` and `second.<name>`, and within an accumulation the sum of gradients so far as
/// `gradient.<name>`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// By name, as above.
    pub arrays: BTreeMap<String, Array>,
    /// Updates done.
    pub step: u64,
    /// Batches of the current accumulation that are summed up already.
    pub accumulated: usize,
    /// The rows have reached their limit, and stand still.
    pub embeddings_stopped: bool,
}
