//! What may be said of a tuning run: in a file, on the command line, or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names::{Decay, Kind};
#[cfg(feature = "cli")]
use super::ranges;
use super::{Error, Result};
use crate::backend::Precision;
use crate::file_kind::read_text;
use crate::plainly::plainly;
use crate::training::captions::Templates;
use crate::training::step::{Method, PriorTarget, TextLayers, UNetLayers};

/// Headings of the help.
#[cfg(feature = "cli")]
mod headings {
    pub const CONCEPT: &str = "Concept";
    pub const PICTURES: &str = "Pictures";
    pub const UPDATES: &str = "What is trained";
    pub const LEARNING: &str = "Learning";
    pub const PRIOR: &str = "Class pictures";
    pub const MODEL: &str = "Model";
    pub const WATCHING: &str = "While it runs";
}
#[cfg(feature = "cli")]
use headings::*;

/// A folder of pictures, with what belongs to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureFolder {
    /// PNG, JPEG, WebP or BMP; folders in it such as `10_zorp` are read too.
    pub pictures: PathBuf,
    /// Captions as `NAME.txt` or `NAME.caption`; beside the pictures if none is named.
    #[serde(default)]
    pub captions: Option<PathBuf>,
    /// Masks as `NAME.png`; if none is named, `mask` or `masks` in the pictures' folder, or
    /// `NAME.mask.png` beside a picture.
    #[serde(default)]
    pub masks: Option<PathBuf>,
    /// The caption of pictures that have none.
    #[serde(default)]
    pub caption: Option<String>,
}

/// Declares [`Options`]: every field is a key of the file and a flag of the command line, and may
/// be missing in both.
macro_rules! options {
    ($($(#[doc = $doc:literal])* $(#[arg($($arg:tt)*)])* $name:ident: $type:ty,)+) => {
        /// Settings of a run as somebody gave them: a file's, a command line's, or defaults. See
        /// [`Options::or`].
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args))]
        #[serde(deny_unknown_fields)]
        // These are help texts, in plain words.
        #[allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]
        pub struct Options {
            $(
                $(#[doc = $doc])*
                $(#[cfg_attr(feature = "cli", arg($($arg)*))])*
                pub $name: Option<$type>,
            )+
            /// A prompt of the sheet, with <TOK>; may be given several times [default: by kind]
            #[cfg_attr(
                feature = "cli",
                arg(short, long = "prompt", value_name = "TEXT", help_heading = WATCHING)
            )]
            pub prompts: Option<Vec<String>>,
            /// The sheet's scales of the LoRA; 0 is the embedding alone [default: 0,0.7,1]
            #[cfg_attr(
                feature = "cli",
                arg(long, value_name = "SCALES", value_delimiter = ',', help_heading = WATCHING),
                arg(value_parser = ranges::SHEET_SCALE.parser::<f32>())
            )]
            pub sheet_scales: Option<Vec<f32>>,
            /// Several folders of pictures, in place of `pictures`, `captions`, `masks` and
            /// `caption`.
            #[cfg_attr(feature = "cli", arg(skip))]
            pub folders: Option<Vec<PictureFolder>>,
        }

        impl Options {
            /// Names of all fields but `folders`.
            pub const KEYS: &'static [&'static str] =
                &[$(stringify!($name),)+ "prompts", "sheet_scales"];

            /// These settings, and `other`'s where these say nothing.
            pub fn or(self, other: Options) -> Options {
                Options {
                    $($name: self.$name.or(other.$name),)+
                    prompts: self.prompts.or(other.prompts),
                    sheet_scales: self.sheet_scales.or(other.sheet_scales),
                    folders: self.folders.or(other.folders),
                }
            }
        }
    };
}

options! {
    /// person, object, scene or style: decides the defaults [default: person]
    #[arg(long, value_name = "KIND", help_heading = CONCEPT)]
    kind: Kind,
    /// ed-lora, lora (one embedding for all layers), p-plus (embeddings alone), or orthogonal (as
    /// ed-lora, but each LoRA reads fixed directions that the concept's name chooses, so that
    /// `mos fuse --solver sum` adds concepts up) [default: ed-lora]
    #[arg(long, value_name = "NAME", help_heading = CONCEPT)]
    method: Method,
    /// The words that will name it, such as "<zorp1> <zorp2>"
    #[arg(long, value_name = "WORDS", help_heading = CONCEPT)]
    words: String,
    /// What it is, as one word that the model knows: man, dog, chair
    #[arg(long, value_name = "WORD", help_heading = CONCEPT)]
    class_word: String,
    /// What each word starts from [default: noise for all but the last, which starts from the class
    /// word]
    ///
    /// For each of the words, a word that the model knows or <rand-DEVIATION>: "<rand-0.013> man".
    #[arg(long, value_name = "WORDS", help_heading = CONCEPT)]
    initializers: String,
    /// Name of the concept [default: the output's]
    #[arg(long, value_name = "NAME", help_heading = CONCEPT)]
    name: String,
    /// Concept file to write [default: the pictures' folder's name, .safetensors]
    #[arg(short, long, value_name = "FILE", help_heading = CONCEPT)]
    output: PathBuf,

    /// Folder of pictures: PNG, JPEG, WebP or BMP
    ///
    /// Folders in it that are called as kohya's, such as `10_zorp`, are read too: their pictures
    /// come 10 times as often. Other folders in it, and pictures of other kinds, are left out and
    /// named; hidden files are left out.
    #[arg(long, value_name = "FOLDER", help_heading = PICTURES)]
    pictures: PathBuf,
    /// Folder of captions, NAME.txt or NAME.caption for each picture [default: the pictures']
    #[arg(long, value_name = "FOLDER", help_heading = PICTURES)]
    captions: PathBuf,
    /// Folder of masks, white where the concept is [default: mask or masks in the pictures' folder,
    /// or NAME.mask.png]
    #[arg(long, value_name = "FOLDER", help_heading = PICTURES)]
    masks: PathBuf,
    /// Caption of pictures without one; the words stand where it has <TOK> [default: <TOK>]
    #[arg(long, value_name = "TEXT", help_heading = PICTURES)]
    caption: String,
    /// Sentences around captions that begin with <TOK>: person, object, scene, style or none
    /// [default: by kind]
    #[arg(long, value_name = "NAME", help_heading = PICTURES)]
    templates: Templates,
    /// Put them around all captions, also those that are sentences
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = PICTURES)]
    template_sentences: bool,
    /// Shuffle a caption's tags, which commas separate [default: true]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = PICTURES)]
    shuffle_tags: bool,
    /// Tags at the beginning that keep their place [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = PICTURES)]
    #[arg(value_parser = ranges::WHOLE.parser::<usize>())]
    keep_tags: usize,
    /// Width and height that is tuned at [default: what the model was trained at]
    #[arg(
        short, long, value_name = "WIDTHxHEIGHT", help_heading = PICTURES
    )]
    size: String,
    /// Probability that a picture is cut to the size's proportions [default: by kind]
    #[arg(long, value_name = "SHARE", help_heading = PICTURES)]
    #[arg(value_parser = ranges::CROP.parser::<f64>())]
    crop: f64,
    /// Least share of the size that a picture takes, pasted at a random place [default: by kind]
    #[arg(long, value_name = "SHARE", help_heading = PICTURES)]
    #[arg(value_parser = ranges::SCALE.parser::<f64>())]
    scale_min: f64,
    /// Greatest share [default: 1]
    #[arg(long, value_name = "SHARE", help_heading = PICTURES)]
    #[arg(value_parser = ranges::SCALE.parser::<f64>())]
    scale_max: f64,
    /// Placements of each picture that are used, encoded once each; 0: a new one every time
    /// [default: 16]
    #[arg(long, value_name = "COUNT", help_heading = PICTURES)]
    #[arg(value_parser = ranges::WHOLE.parser::<usize>())]
    variants: usize,

    /// Model: diffusers folder or safetensors file [default: tiny]
    #[arg(short, long, value_name = "PATH", help_heading = MODEL)]
    model: String,
    /// How the model's weights are held on the device: as-stored, f16, f32, q8_0 or q4_0; what is
    /// trained is f32 [default: as-stored]
    #[arg(long, value_name = "TYPE", help_heading = MODEL)]
    precision: Precision,
    /// How many of the text encoder's last layers to leave out [default: 0]
    #[arg(long, value_name = "LAYERS", help_heading = MODEL)]
    #[arg(value_parser = ranges::WHOLE.parser::<usize>())]
    clip_skip: usize,

    /// LoRA in the text encoder: attention or encoder-layer [default: attention]
    #[arg(long, value_name = "WHERE", help_heading = UPDATES)]
    text_layers: TextLayers,
    /// LoRA in the UNet: attention, keys-values (of prompts, alone) or transformer (the whole
    /// block) [default: attention]
    #[arg(long, value_name = "WHERE", help_heading = UPDATES)]
    unet_layers: UNetLayers,
    /// Rank of the text encoder's LoRA; 0: none [default: 4]
    #[arg(long, value_name = "RANK", help_heading = UPDATES)]
    #[arg(value_parser = ranges::RANK.parser::<usize>())]
    text_rank: usize,
    /// Rank of the UNet's LoRA; 0: none [default: 4]
    #[arg(long, value_name = "RANK", help_heading = UPDATES)]
    #[arg(value_parser = ranges::RANK.parser::<usize>())]
    unet_rank: usize,
    /// Factor of the LoRAs, not divided by the rank [default: 1]
    #[arg(long, value_name = "FACTOR", help_heading = UPDATES)]
    #[arg(value_parser = ranges::ALPHA.parser::<f32>())]
    alpha: f32,

    /// Updates [default: 1000]
    #[arg(long, value_name = "COUNT", help_heading = LEARNING)]
    #[arg(value_parser = ranges::STEPS.parser::<usize>())]
    steps: usize,
    /// Pictures at once [default: 2]
    #[arg(short, long, value_name = "COUNT", help_heading = LEARNING)]
    #[arg(value_parser = ranges::BATCH.parser::<usize>())]
    batch: usize,
    /// Batches that make one update [default: 2]
    #[arg(long, value_name = "COUNT", help_heading = LEARNING)]
    #[arg(value_parser = ranges::ACCUMULATE.parser::<usize>())]
    accumulate: usize,
    /// Learning rate of the words' embeddings [default: 1e-3]
    #[arg(long, value_name = "RATE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::RATE.parser::<f64>())]
    words_lr: f64,
    /// Learning rate of the text encoder's LoRA [default: 1e-5]
    #[arg(long, value_name = "RATE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::RATE.parser::<f64>())]
    text_lr: f64,
    /// Learning rate of the UNet's LoRA [default: 1e-4]
    #[arg(long, value_name = "RATE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::RATE.parser::<f64>())]
    unet_lr: f64,
    /// How the rates go down: linear, cosine, cooldown or constant [default: linear]
    #[arg(long, value_name = "NAME", help_heading = LEARNING)]
    decay: Decay,
    /// AdamW's weight decay [default: 0.01]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::WEIGHT_DECAY.parser::<f32>())]
    weight_decay: f32,
    /// The same of the LoRAs, where it is to be another: draws them back to nothing [default: as
    /// --weight-decay]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::LORA_WEIGHT_DECAY.parser::<f32>())]
    lora_weight_decay: f32,
    /// Share of the numbers within the LoRAs that each batch leaves out, as kohya's
    /// network_dropout; 0: none [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::DROPOUT.parser::<f32>())]
    lora_dropout: f32,
    /// Share of the LoRAs' ranks that each picture leaves out; 0: none [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::DROPOUT.parser::<f32>())]
    rank_dropout: f32,
    /// Updates in which the words alone are trained, before the LoRAs join with rates of their own
    /// from the beginning [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = LEARNING)]
    #[arg(value_parser = ranges::WHOLE.parser::<usize>())]
    words_first: usize,
    /// AdamW's memory of gradients [default: 0.9]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::BETA.parser::<f32>())]
    beta1: f32,
    /// AdamW's memory of their squares [default: 0.999]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::BETA.parser::<f32>())]
    beta2: f32,
    /// Mean norm at which the embeddings stop moving; 0: never [default: 0.55]
    #[arg(long, value_name = "NORM", help_heading = LEARNING)]
    #[arg(value_parser = ranges::NORM_STOP.parser::<f32>())]
    norm_stop: f32,
    /// Noise that is the same all over a picture, in addition [default: 0.01]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::NOISE_OFFSET.parser::<f32>())]
    noise_offset: f32,
    /// Min-SNR weighting of the loss with this gamma (5 is usual); 0: off [default: 0]
    #[arg(long, value_name = "GAMMA", help_heading = LEARNING)]
    #[arg(value_parser = ranges::MIN_SNR.parser::<f32>())]
    min_snr: f32,
    /// Only what the mask shows counts in the loss [default: by kind]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = LEARNING)]
    mask_loss: bool,
    /// How much what the mask does not show counts beside what it shows, where a mask is used; a
    /// little keeps surroundings as they are [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LEARNING)]
    #[arg(value_parser = ranges::UNMASKED_WEIGHT.parser::<f32>())]
    unmasked_weight: f32,
    /// Weight of the attention regularisation, which keeps the words inside the mask; 0: off
    /// [default: by kind]
    #[arg(long, value_name = "WEIGHT", help_heading = LEARNING)]
    #[arg(value_parser = ranges::ATTENTION_WEIGHT.parser::<f32>())]
    attention_weight: f32,
    /// The last word's attention is drawn to the whole mask, instead of only kept inside
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = LEARNING)]
    full_identity: bool,
    /// Class pictures that the model makes before it is trained, to be learnt beside the others
    /// (prior preservation); 0: none [default: 0]
    ///
    /// Pictures of the class keep the class as it is, so that what is new goes into the words. They
    /// are made once, kept in NAME.training/class, and used again where their settings agree. Each
    /// batch then has as many of them as of the concept's: twice the work and memory.
    #[arg(long, value_name = "COUNT", help_heading = PRIOR)]
    #[arg(value_parser = ranges::PRIOR_PICTURES.parser::<usize>())]
    prior_pictures: usize,
    /// Folder of class pictures of your own, in place of those that would be made; captions as
    /// NAME.txt or NAME.caption
    #[arg(long, value_name = "FOLDER", help_heading = PRIOR)]
    prior_folder: PathBuf,
    /// What class pictures are made from, and the caption of those without one [default: the
    /// concept's captions, with the class word in place of its words]
    #[arg(long, value_name = "TEXT", help_heading = PRIOR)]
    class_prompt: String,
    /// How much the class pictures' loss counts beside the concept's [default: 1]
    #[arg(long, value_name = "WEIGHT", help_heading = PRIOR)]
    #[arg(value_parser = ranges::PRIOR_WEIGHT.parser::<f32>())]
    prior_weight: f32,
    /// What class pictures teach: noise, what was added to them, as DreamBooth, or base, what the
    /// model without all that is trained predicts [default: noise]
    ///
    /// With `base` nothing of it is by chance. It takes a tenth more time; in the figures of
    /// docs/train.md it made little difference.
    #[arg(long, value_name = "NAME", help_heading = PRIOR)]
    prior_target: PriorTarget,
    /// Sampling steps of the class pictures that are made [default: 25]
    #[arg(long, value_name = "COUNT", help_heading = PRIOR)]
    #[arg(value_parser = ranges::PRIOR_STEPS.parser::<usize>())]
    prior_steps: usize,

    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "NUMBER", value_parser = repeatable_seed, help_heading = LEARNING)]
    seed: u64,
    /// Compute activations again instead of keeping them: less memory, more time
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = LEARNING)]
    checkpointing: bool,

    /// Save the state every so many updates [default: 50]
    #[arg(long, value_name = "STEPS", help_heading = WATCHING)]
    #[arg(value_parser = ranges::SAVE_EVERY.parser::<usize>())]
    save_every: usize,
    /// Make a sheet of pictures every so many updates, and at the end; 0: none [default: 250]
    #[arg(long, value_name = "STEPS", help_heading = WATCHING)]
    #[arg(value_parser = ranges::WHOLE.parser::<usize>())]
    sheet_every: usize,
    /// Sampling steps of the sheet's pictures [default: 25]
    #[arg(long, value_name = "COUNT", help_heading = WATCHING)]
    #[arg(value_parser = ranges::SHEET_STEPS.parser::<usize>())]
    sheet_steps: usize,
    /// Guidance of the sheet's pictures [default: the model's, or 7.5]
    #[arg(long, value_name = "SCALE", help_heading = WATCHING)]
    #[arg(value_parser = ranges::SHEET_GUIDANCE.parser::<f32>())]
    sheet_guidance: f32,
}

/// The seed of a run that has to come out the same when it is gone on with or made again.
///
/// # Errors
/// What is no such number; `random` and -1 with the reason.
pub fn repeatable_seed(text: &str) -> std::result::Result<u64, String> {
    let expected = format!("expected a whole number from 0 to {}", u64::MAX);
    match text.trim().to_lowercase().as_str() {
        "-1" | "random" => Err(format!(
            "{expected}: a run with a random seed could neither be gone on with nor made again"
        )),
        number => number.parse().map_err(|_| expected),
    }
}

impl Options {
    /// Reads a TOML file. Its relative paths are meant from its own folder.
    ///
    /// # Errors
    /// A file that cannot be read; a key or value that is wrong, with its place.
    pub fn read_toml(path: &Path) -> Result<Options> {
        let text = read_text(path, "settings (TOML)").map_err(Error::unreadable(path))?;
        let fail = |e: toml::de::Error| Error::Invalid {
            path: path.to_path_buf(),
            problem: plainly(&e.to_string()),
        };
        Ok(toml::from_str::<Options>(&text).map_err(fail)?.meant_from(path))
    }

    /// Reads the same keys from JSON. `path` names it in messages, and relative paths are meant from
    /// its folder.
    ///
    /// # Errors
    /// A key or value that is wrong, with its place.
    pub fn of_json(path: &Path, value: serde_json::Value) -> Result<Options> {
        let whole = serde_json::from_value::<Options>(value.clone());
        let options = whole.map_err(|error| {
            // A value has no place, so its key is looked for.
            let alone = |(key, value): (&String, &serde_json::Value)| {
                let one = serde_json::json!({ key: value });
                Some((key.clone(), serde_json::from_value::<Options>(one).err()?))
            };
            let found = value.as_object().and_then(|keys| keys.iter().find_map(alone));
            let said = plainly(&found.as_ref().map_or(&error, |(_, error)| error).to_string());
            let problem = match found {
                Some((key, _)) if !said.contains(&key) => format!("`{key}`: {said}"),
                _ => said,
            };
            Error::Invalid { path: path.to_path_buf(), problem }
        })?;
        Ok(options.meant_from(path))
    }

    /// The settings of the file at `path`, whose relative paths are meant from its folder.
    fn meant_from(self, path: &Path) -> Options {
        let mut options = self;
        let folder = path.parent().unwrap_or(Path::new(""));
        let place = |path: &mut PathBuf| *path = folder.join(&*path);
        for path in [
            &mut options.pictures,
            &mut options.captions,
            &mut options.masks,
            &mut options.output,
            &mut options.prior_folder,
        ] {
            path.as_mut().map(place);
        }
        for found in options.folders.iter_mut().flatten() {
            place(&mut found.pictures);
            found.captions.as_mut().map(place);
            found.masks.as_mut().map(place);
        }
        // A name that leads somewhere from the file is a path; all others are names.
        if let Some(model) = &mut options.model {
            let near = folder.join(&*model);
            if near.exists() {
                *model = near.to_string_lossy().into_owned();
            }
        }
        options
    }
}
