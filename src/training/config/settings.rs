//! The settings of a run, complete and consistent in themselves.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};

use super::names::{Decay, Kind};
use super::options::{Options, PictureFolder};
use super::{Error, Result, ranges};
use crate::backend::Precision;
use crate::checkpoint::SHIPPED;
use crate::concept::PLACEHOLDER;
use crate::numbers::{Range, counted};
use crate::picture::MAX_SIDE;
use crate::training::captions::Templates;
use crate::training::step::{AdamW, Method, PriorTarget, TextLayers, UNetLayers};

/// Standard deviation of words that start as noise, the method's.
const DEVIATION: f32 = 0.013;

/// What a word starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Initializer {
    /// Normal noise of this standard deviation: `<rand-0.013>`.
    Noise(f32),
    /// The embedding of a word that is one token.
    Word(String),
}

impl fmt::Display for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Noise(deviation) => write!(f, "<rand-{deviation}>"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl FromStr for Initializer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(deviation) = text.strip_prefix("<rand-").and_then(|rest| rest.strip_suffix('>'))
        else {
            return Ok(Self::Word(text.to_string()));
        };
        match deviation.parse() {
            Ok(deviation) if (0.0..=10.0).contains(&deviation) => Ok(Self::Noise(deviation)),
            _ => {
                Err(format!("`{text}`: the deviation of noise is a number such as in <rand-0.013>"))
            }
        }
    }
}

impl Serialize for Initializer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Settings of a run. Two runs of the same settings on the same pictures and model make the same
/// concept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// For people, and in the file.
    pub name: String,
    /// Decides the defaults.
    pub kind: Kind,
    /// What is trained.
    pub method: Method,
    /// That will name it, such as `<zorp1>` and `<zorp2>`.
    pub words: Vec<String>,
    /// One for each word.
    pub initializers: Vec<Initializer>,
    /// What it is, as one word that the model knows.
    pub class_word: Option<String>,
    /// The concept file.
    pub output: PathBuf,
    /// Where the pictures are.
    pub folders: Vec<PictureFolder>,
    /// Sentences around captions that begin with the concept's words.
    pub templates: Templates,
    /// Put them around all captions.
    pub template_sentences: bool,
    /// Shuffle a caption's tags, which commas separate.
    pub shuffle_tags: bool,
    /// Tags at the beginning that keep their place.
    pub keep_tags: usize,
    /// Width and height; none: the model's.
    pub size: Option<[usize; 2]>,
    /// Probability, 0 to 1, that a picture is cut to the size's proportions.
    pub crop: f64,
    /// Least and greatest share of the size that a picture takes, pasted at a random place.
    pub scale: [f64; 2],
    /// Placements of each picture that are encoded, once each; 0: a new one every time.
    pub variants: usize,
    /// As it was named: a path, or `tiny`.
    pub model: String,
    /// How the model's weights are held; what is trained is f32.
    pub precision: Precision,
    /// Last layers of the text encoder that are left out.
    pub clip_skip: usize,
    /// Which of them have a LoRA.
    pub text_layers: TextLayers,
    /// Which of them have a LoRA.
    pub unet_layers: UNetLayers,
    /// Of the text encoder's LoRA; 0: none.
    pub text_rank: usize,
    /// Of the UNet's LoRA; 0: none.
    pub unet_rank: usize,
    /// Factor of the LoRAs, not divided by the rank.
    pub alpha: f32,
    /// Updates.
    pub steps: usize,
    /// Pictures at once.
    pub batch: usize,
    /// Batches that make one update.
    pub accumulate: usize,
    /// Learning rate of the words' embeddings.
    pub words_lr: f64,
    /// Learning rate of the text encoder's LoRA.
    pub text_lr: f64,
    /// Learning rate of the UNet's LoRA.
    pub unet_lr: f64,
    /// How the rates go down.
    pub decay: Decay,
    /// AdamW's.
    pub weight_decay: f32,
    /// Of the LoRAs. None: as `weight_decay`, as in runs that were saved before there was such a
    /// setting.
    #[serde(default)]
    pub lora_weight_decay: Option<f32>,
    /// Share of the numbers between a LoRA's two matrices that each batch leaves out.
    #[serde(default)]
    pub lora_dropout: f32,
    /// Share of a LoRA's ranks that each picture leaves out.
    #[serde(default)]
    pub rank_dropout: f32,
    /// Updates in which the words alone are trained.
    #[serde(default)]
    pub words_first: usize,
    /// AdamW's decays of the means of gradients and of their squares.
    pub betas: [f32; 2],
    /// Mean norm at which the embeddings stop moving; none: never.
    pub norm_stop: Option<f32>,
    /// Factor of noise that is the same all over a picture, in addition.
    pub noise_offset: f32,
    /// Gamma of min-SNR weighting (Hang et al. 2023); none: off.
    pub min_snr: Option<f32>,
    /// Only what masks show counts in the loss.
    pub mask_loss: bool,
    /// Weight of what the mask does not show in a masked loss, beside 1 for what it shows. Runs
    /// that were saved before there was such a weight had none.
    #[serde(default)]
    pub unmasked_weight: f32,
    /// Of the attention regularisation, which keeps the words inside the mask; 0: off.
    pub attention_weight: f32,
    /// The last word's attention is drawn to the whole mask.
    pub full_identity: bool,
    /// Class pictures that are made; none where a folder has them. Runs that were saved before
    /// there were any had none, and so have the five that follow the defaults.
    #[serde(default)]
    pub prior_pictures: usize,
    /// Class pictures of one's own.
    #[serde(default)]
    pub prior_folder: Option<PathBuf>,
    /// Their prompt; none: the captions with the class word.
    #[serde(default)]
    pub class_prompt: Option<String>,
    /// Weight of their loss beside the concept's.
    #[serde(default = "prior_weight")]
    pub prior_weight: f32,
    /// What they teach.
    #[serde(default)]
    pub prior_target: PriorTarget,
    /// Sampling steps of those that are made.
    #[serde(default = "prior_steps")]
    pub prior_steps: usize,
    /// Of everything random.
    pub seed: u64,
    /// Compute activations again instead of keeping them.
    pub checkpointing: bool,
    /// Updates between two saved states.
    pub save_every: usize,
    /// Updates between two sheets; 0: none.
    pub sheet_every: usize,
    /// Of the sheet; `<TOK>` is where the words go.
    pub prompts: Vec<String>,
    /// Of the LoRA, one for each column; 0 is the embedding alone.
    pub sheet_scales: Vec<f32>,
    /// Sampling steps of its pictures.
    pub sheet_steps: usize,
    /// Of its pictures; none: the model's.
    pub sheet_guidance: Option<f32>,
    /// Bytes of the device's memory to stay within: no part of the run, but of where it runs.
    #[serde(skip)]
    pub memory: Option<u64>,
}

impl Settings {
    /// Completes what was given by the defaults of its kind.
    ///
    /// # Errors
    /// [`Error::Settings`] with everything that is wrong.
    pub fn new(given: Options) -> Result<Settings> {
        let kind = given.kind.unwrap_or_default();
        let masked = matches!(kind, Kind::Person | Kind::Object);
        let mut wrong = Vec::new();
        let words: Vec<String> = split(given.words.as_deref().unwrap_or_default());
        let initializers = initializers(&given, &words, &mut wrong);
        let class_word = given.class_word.clone().or_else(|| {
            initializers.iter().rev().find_map(|from| match from {
                Initializer::Word(word) => Some(word.clone()),
                Initializer::Noise(_) => None,
            })
        });
        let size = given.size.as_deref().and_then(|text| {
            let parsed = text
                .split_once(['x', 'X'])
                .and_then(|(w, h)| Some([w.trim().parse().ok()?, h.trim().parse().ok()?]));
            let parsed = parsed.filter(|sides: &[usize; 2]| {
                sides.iter().all(|side| (1..=MAX_SIDE as usize).contains(side))
            });
            if parsed.is_none() {
                wrong.push(format!(
                    "size is `{text}`: expected width and height such as 512x512, \
                    each from 1 to {MAX_SIDE}"
                ));
            }
            parsed
        });
        if given.folders.as_ref().is_some_and(Vec::is_empty) {
            wrong.push(
                "folders is an empty list: expected folders of pictures, each as \
                { pictures = \"FOLDER\" }"
                    .into(),
            );
        }
        let folders = match (given.folders.clone(), given.pictures.clone()) {
            (Some(folders), None) => folders,
            (None, Some(pictures)) => {
                let (captions, masks, caption) =
                    (given.captions.clone(), given.masks.clone(), given.caption.clone());
                vec![PictureFolder { pictures, captions, masks, caption }]
            }
            (Some(_), Some(_)) => {
                wrong.push(
                    "pictures and folders both say where the pictures are: give one of them".into(),
                );
                Vec::new()
            }
            (None, None) => Vec::new(),
        };
        let output = given.output.clone().unwrap_or_else(|| {
            let first = folders.first().and_then(|folder| folder.pictures.file_name());
            PathBuf::from(first.unwrap_or("concept".as_ref())).with_extension("safetensors")
        });
        let stem = || {
            output.file_stem().map_or("concept".into(), |stem| stem.to_string_lossy().into_owned())
        };
        let adamw = AdamW::default();
        let weight_decay = given.weight_decay.unwrap_or(adamw.weight_decay);
        let settings = Settings {
            name: given.name.unwrap_or_else(stem),
            kind,
            method: given.method.unwrap_or_default(),
            words,
            initializers,
            class_word,
            folders,
            templates: given.templates.unwrap_or(match kind {
                Kind::Person => Templates::Person,
                Kind::Object => Templates::Object,
                Kind::Scene => Templates::Scene,
                Kind::Style => Templates::Style,
            }),
            template_sentences: given.template_sentences.unwrap_or(false),
            shuffle_tags: given.shuffle_tags.unwrap_or(true),
            keep_tags: given.keep_tags.unwrap_or(1),
            size,
            crop: given.crop.unwrap_or(if kind == Kind::Object { 0.0 } else { 0.5 }),
            scale: [
                given.scale_min.unwrap_or(if kind == Kind::Object { 0.5 } else { 1.0 }),
                given.scale_max.unwrap_or(1.0),
            ],
            variants: given.variants.unwrap_or(16),
            model: given.model.unwrap_or_else(|| SHIPPED.to_string()),
            precision: given.precision.unwrap_or_default(),
            clip_skip: given.clip_skip.unwrap_or(0),
            text_layers: given.text_layers.unwrap_or_default(),
            unet_layers: given.unet_layers.unwrap_or_default(),
            text_rank: given.text_rank.unwrap_or(4),
            unet_rank: given.unet_rank.unwrap_or(4),
            alpha: given.alpha.unwrap_or(1.0),
            steps: given.steps.unwrap_or(1000),
            batch: given.batch.unwrap_or(2),
            accumulate: given.accumulate.unwrap_or(2),
            words_lr: given.words_lr.unwrap_or(1e-3),
            text_lr: given.text_lr.unwrap_or(1e-5),
            unet_lr: given.unet_lr.unwrap_or(1e-4),
            decay: given.decay.unwrap_or_default(),
            weight_decay,
            lora_weight_decay: given.lora_weight_decay.filter(|own| *own != weight_decay),
            lora_dropout: given.lora_dropout.unwrap_or(0.0),
            rank_dropout: given.rank_dropout.unwrap_or(0.0),
            words_first: given.words_first.unwrap_or(0),
            betas: [given.beta1.unwrap_or(adamw.betas[0]), given.beta2.unwrap_or(adamw.betas[1])],
            norm_stop: Some(given.norm_stop.unwrap_or(0.55)).filter(|norm| *norm != 0.0),
            noise_offset: given.noise_offset.unwrap_or(0.01),
            min_snr: given.min_snr.filter(|gamma| *gamma != 0.0),
            mask_loss: given.mask_loss.unwrap_or(masked),
            unmasked_weight: given.unmasked_weight.unwrap_or(0.0),
            attention_weight: given.attention_weight.unwrap_or(if masked { 0.01 } else { 0.0 }),
            full_identity: given.full_identity.unwrap_or(false),
            prior_pictures: given.prior_pictures.unwrap_or(0),
            prior_folder: given.prior_folder,
            class_prompt: given.class_prompt,
            prior_weight: given.prior_weight.unwrap_or_else(prior_weight),
            prior_target: given.prior_target.unwrap_or_default(),
            prior_steps: given.prior_steps.unwrap_or_else(prior_steps),
            seed: given.seed.unwrap_or(0),
            checkpointing: given.checkpointing.unwrap_or(false),
            save_every: given.save_every.unwrap_or(50),
            sheet_every: given.sheet_every.unwrap_or(250),
            prompts: given.prompts.unwrap_or_else(|| prompts(kind)),
            sheet_scales: given.sheet_scales.unwrap_or_else(|| vec![0.0, 0.7, 1.0]),
            sheet_steps: given.sheet_steps.unwrap_or(25),
            sheet_guidance: given.sheet_guidance,
            memory: None,
            output,
        };
        settings.check(&mut wrong);
        if wrong.is_empty() { Ok(settings) } else { Err(Error::Settings(wrong)) }
    }

    /// The words as they stand in a prompt.
    pub fn phrase(&self) -> String {
        self.words.join(" ")
    }

    /// Whether pictures of the class are learnt beside the concept's.
    pub fn has_prior(&self) -> bool {
        self.prior_pictures > 0 || self.prior_folder.is_some()
    }

    /// Tells what no run could be made of.
    fn check(&self, wrong: &mut Vec<String>) {
        if self.words.is_empty() {
            wrong.push(
                "words are missing: two new words that will name the concept, such as \
                \"<zorp1> <zorp2>\""
                    .into(),
            );
        }
        for (i, word) in self.words.iter().enumerate() {
            if self.words.iter().take(i).any(|other| other.to_lowercase() == word.to_lowercase()) {
                wrong.push(format!("words: {word} is given twice"));
            }
            if word == PLACEHOLDER {
                wrong.push(format!(
                    "words: {PLACEHOLDER} is where the words go in captions, it \
                    cannot be one of them"
                ));
            }
        }
        if self.folders.is_empty() && !wrong.iter().any(|problem| problem.contains("folders")) {
            wrong.push("pictures are missing: a folder of 4 to 20 pictures of the concept".into());
        }
        let [least, most] = self.scale;
        let numbers: [(&str, f64, Range); 29] = [
            ("crop", self.crop, ranges::CROP),
            ("scale_min", least, ranges::SCALE),
            ("scale_max", most, ranges::SCALE),
            ("alpha", self.alpha.into(), ranges::ALPHA),
            ("steps", self.steps as f64, ranges::STEPS),
            ("batch", self.batch as f64, ranges::BATCH),
            ("accumulate", self.accumulate as f64, ranges::ACCUMULATE),
            ("text_rank", self.text_rank as f64, ranges::RANK),
            ("unet_rank", self.unet_rank as f64, ranges::RANK),
            ("words_lr", self.words_lr, ranges::RATE),
            ("text_lr", self.text_lr, ranges::RATE),
            ("unet_lr", self.unet_lr, ranges::RATE),
            ("weight_decay", self.weight_decay.into(), ranges::WEIGHT_DECAY),
            (
                "lora_weight_decay",
                self.lora_weight_decay.unwrap_or(0.0).into(),
                ranges::LORA_WEIGHT_DECAY,
            ),
            ("lora_dropout", self.lora_dropout.into(), ranges::DROPOUT),
            ("rank_dropout", self.rank_dropout.into(), ranges::DROPOUT),
            ("words_first", self.words_first as f64, ranges::WHOLE),
            ("beta1", self.betas[0].into(), ranges::BETA),
            ("beta2", self.betas[1].into(), ranges::BETA),
            ("norm_stop", self.norm_stop.unwrap_or(0.0).into(), ranges::NORM_STOP),
            ("noise_offset", self.noise_offset.into(), ranges::NOISE_OFFSET),
            ("min_snr", self.min_snr.unwrap_or(0.0).into(), ranges::MIN_SNR),
            ("unmasked_weight", self.unmasked_weight.into(), ranges::UNMASKED_WEIGHT),
            ("attention_weight", self.attention_weight.into(), ranges::ATTENTION_WEIGHT),
            ("prior_pictures", self.prior_pictures as f64, ranges::PRIOR_PICTURES),
            ("prior_weight", self.prior_weight.into(), ranges::PRIOR_WEIGHT),
            ("prior_steps", self.prior_steps as f64, ranges::PRIOR_STEPS),
            ("save_every", self.save_every as f64, ranges::SAVE_EVERY),
            ("sheet_steps", self.sheet_steps as f64, ranges::SHEET_STEPS),
        ];
        let scales = self.sheet_scales.iter().map(|scale| f64::from(*scale));
        let numbers = numbers
            .into_iter()
            .chain(scales.map(|scale| ("sheet_scales", scale, ranges::SHEET_SCALE)))
            .chain(
                self.sheet_guidance
                    .map(|guidance| ("sheet_guidance", guidance.into(), ranges::SHEET_GUIDANCE)),
            );
        for (name, found, range) in numbers {
            if !range.contains(found) {
                // Those of 32 bits as they were given.
                let given = match f64::from(found as f32) == found {
                    true => (found as f32).to_string(),
                    false => found.to_string(),
                };
                wrong.push(format!("{name} is {given}: expected {range}"));
            }
        }
        if least > most {
            wrong.push(format!("scale_min is {least}: expected no more than scale_max, {most}"));
        }
        self.check_regularisation(wrong);
        self.check_prior(wrong);
        if self.sheet_scales.is_empty() {
            wrong.push("sheet_scales is an empty list: expected numbers".into());
        }
    }

    /// Tells of regularisation under which no LoRA could learn.
    fn check_regularisation(&self, wrong: &mut Vec<String>) {
        let (rate, decay) = (self.text_lr.max(self.unet_lr), self.lora_weight_decay);
        if let Some(decay) = decay.filter(|decay| f64::from(*decay) * rate > 1.0) {
            wrong.push(format!(
                "lora_weight_decay is {decay}: expected {} at most with a learning rate of {rate}",
                1.0 / rate
            ));
        }
        let has_lora = self.method != Method::PPlus && self.text_rank + self.unet_rank > 0;
        if has_lora && self.words_first > 0 && self.words_first >= self.steps {
            wrong.push(format!(
                "words_first is {}: expected fewer than all {} steps, or no LoRA would be trained",
                self.words_first, self.steps
            ));
        }
    }

    fn check_prior(&self, wrong: &mut Vec<String>) {
        if self.prior_pictures > 0 && self.prior_folder.is_some() {
            wrong.push(
                "prior_pictures and prior_folder both say where class pictures come from: give \
                one of them"
                    .into(),
            );
        }
        if self.prior_target != PriorTarget::default() && !self.has_prior() {
            wrong.push(format!(
                "prior_target is {}: expected class pictures beside it, from prior_pictures or \
                prior_folder",
                self.prior_target
            ));
        }
        match &self.class_prompt {
            Some(prompt) => {
                let lower = prompt.to_lowercase();
                if let Some(word) =
                    self.words.iter().find(|word| lower.contains(&word.to_lowercase()))
                {
                    wrong.push(format!(
                        "class_prompt is \"{prompt}\": expected a text without the concept's \
                        words, {word} among them"
                    ));
                }
                if prompt.contains(PLACEHOLDER) && self.class_word.is_none() {
                    wrong.push(format!(
                        "class_prompt has {PLACEHOLDER} where the class word goes, and class_word \
                        is missing"
                    ));
                }
            }
            None if self.has_prior() && self.class_word.is_none() => wrong
                .push("class_word is missing: class pictures need it, or a class_prompt".into()),
            None => {}
        }
    }
}

fn prior_weight() -> f32 {
    1.0
}

fn prior_steps() -> usize {
    25
}

/// Words as files write them: with spaces or, as the method's, with plus signs between them.
pub(super) fn split(words: &str) -> Vec<String> {
    words
        .split(|c: char| c == '+' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

fn initializers(given: &Options, words: &[String], wrong: &mut Vec<String>) -> Vec<Initializer> {
    let Some(text) = &given.initializers else {
        let Some(class_word) = &given.class_word else {
            wrong.push(
                "class_word is missing: what it is, as one word that the model knows, such \
                as man, dog or chair"
                    .into(),
            );
            return Vec::new();
        };
        let noise = words.len().saturating_sub(1);
        let last = (!words.is_empty()).then(|| Initializer::Word(class_word.clone()));
        return std::iter::repeat_n(Initializer::Noise(DEVIATION), noise).chain(last).collect();
    };
    let mut found = Vec::new();
    for part in split(text) {
        match part.parse() {
            Ok(initializer) => found.push(initializer),
            Err(problem) => wrong.push(format!("initializers: {problem}")),
        }
    }
    if found.len() != words.len() && wrong.is_empty() {
        wrong.push(format!(
            "initializers: {} for {}",
            counted(found.len(), "start"),
            counted(words.len(), "word")
        ));
    }
    found
}

/// What a sheet shows where nobody says it.
fn prompts(kind: Kind) -> Vec<String> {
    let texts: &[&str] = match kind {
        Kind::Person => &[
            "a photo of <TOK>",
            "<TOK> on the beach",
            "<TOK> in the snow",
            "a pencil sketch of <TOK>",
        ],
        Kind::Object => &[
            "a photo of <TOK>",
            "<TOK> on the beach",
            "<TOK> in a room",
            "a pencil sketch of <TOK>",
        ],
        Kind::Scene => {
            &["a photo of <TOK>", "a man in <TOK>", "a dog in <TOK>", "a pencil sketch of <TOK>"]
        }
        Kind::Style => &[
            "a house in the style of <TOK>",
            "a cat in the style of <TOK>",
            "a woman in the style of <TOK>",
        ],
    };
    texts.iter().map(|text| text.to_string()).collect()
}
