//! A settings file to begin with, commented.

use super::names::Kind;

/// A TOML file for a kind of concept: what must be said, and what may be changed, with the defaults
/// and what they mean.
pub fn template(kind: Kind) -> String {
    let (thing, pictures, words, class_word) = match kind {
        Kind::Person => ("a person", "zorp", "<zorp1> <zorp2>", "man"),
        Kind::Object => ("an object or an animal", "kurl", "<kurl1> <kurl2>", "chair"),
        Kind::Scene => ("a place", "candy", "<candy1> <candy2>", "place"),
        Kind::Style => ("a style", "inky", "<inky1> <inky2>", "painting"),
    };
    let (crop, scale) = if kind == Kind::Object { ("0.0", "0.5") } else { ("0.5", "1.0") };
    let masked = matches!(kind, Kind::Person | Kind::Object);
    let (mask_loss, attention) = if masked { ("true", "0.01") } else { ("false", "0.0") };
    let prompts = match kind {
        Kind::Person => {
            r#"["a photo of <TOK>", "<TOK> on the beach", "<TOK> in the snow", "a pencil sketch of <TOK>"]"#
        }
        Kind::Object => {
            r#"["a photo of <TOK>", "<TOK> on the beach", "<TOK> in a room", "a pencil sketch of <TOK>"]"#
        }
        Kind::Scene => {
            r#"["a photo of <TOK>", "a man in <TOK>", "a dog in <TOK>", "a pencil sketch of <TOK>"]"#
        }
        Kind::Style => {
            r#"["a house in the style of <TOK>", "a cat in the style of <TOK>", "a woman in the style of <TOK>"]"#
        }
    };
    format!(
        r#"# Teaches a model {thing}:   mos train THIS-FILE
# Every key is also a flag (--class-word, --steps ...), which comes before what the file says.
# Keys with a # before them show the default. Paths are meant from this file's folder.

kind = "{kind}"                # decides the defaults below
# Two new words: the first learns what is special, the second starts from the class word.
words = "{words}"
class_word = "{class_word}"          # what it is, as one word that the model knows
model = "tiny"              # a diffusers folder, a safetensors file, or the built-in model

# --- Pictures ---------------------------------------------------------------------------
pictures = "{pictures}"           # a folder of 4 to 20 pictures
# Captions are NAME.txt or NAME.caption for each picture; <TOK> in one is where the words go.
# captions = "{pictures}"
# Masks are NAME.png for each picture, white where the concept is; without, all of it counts.
# masks = "{pictures}/mask"
# caption = "<TOK>"         # of pictures without one
# Sentences around captions that begin with <TOK>: person, object, scene, style, none.
# templates = "{kind}"
# template_sentences = false # also around captions that are sentences already
# shuffle_tags = true       # what commas separate in a caption comes in random order ...
# keep_tags = 1             # ... but for the first
# size = "512x512"          # what is tuned at; the default is what the model was trained at
# crop = {crop}                # how often a picture is cut to those proportions
# scale_min = {scale}           # pictures take a random share of the size, from this ...
# scale_max = 1.0           # ... to this, at a random place on black, which does not count
# variants = 16             # such placements of each picture, encoded once; 0: always new ones

# --- What is trained ---------------------------------------------------------------------
# method = "ed-lora"        # lora: one embedding for all layers; p-plus: embeddings alone;
                          # orthogonal: LoRAs that `mos fuse --solver sum` adds up
# initializers = "<rand-0.013> {class_word}"   # what each word starts from: noise, or a word
# LoRA of the text encoder: attention, or encoder-layer (the feed-forward part too).
# text_layers = "attention"
# LoRA of the UNet: attention, keys-values (of prompts, alone), transformer (the whole block).
# unet_layers = "attention"
# text_rank = 4             # 0: no LoRA there
# unet_rank = 4
# alpha = 1.0               # factor of the LoRAs; not divided by the rank

# --- Learning ---------------------------------------------------------------------------
# steps = 1000
# batch = 2                 # pictures at once: as many as memory holds
# accumulate = 2            # batches that make one step
# checkpointing = false     # less memory, more time
# words_lr = 1e-3
# text_lr = 1e-5
# unet_lr = 1e-4
# decay = "linear"          # to 0; or cosine, cooldown (only in the last four tenths), constant
# weight_decay = 0.01
# beta1 = 0.9
# beta2 = 0.999
# norm_stop = 0.55          # the embeddings' mean norm at which they stop moving; 0: never
# noise_offset = 0.01       # lets pictures be dark or bright all over; more for such a concept
# min_snr = 0.0             # weighting of the loss by signal to noise; 5 is usual, 0 is off
# mask_loss = {mask_loss}         # only what the mask shows counts
# unmasked_weight = 0.0        # ... and what it does not show this much; a little keeps it as it is
# attention_weight = {attention}   # keeps the words' attention inside the mask; 0 is off
# full_identity = false     # draws the last word's attention to the whole mask
# seed = 0

# --- So that the words know it, and not the class ----------------------------------------
# Rank 4 on attention, as published, leaves the class alone and learns a stranger's colours in part.
# Ranks 16 to 64 (UNet) and 8 (text) on whole transformer blocks learn nearly all, and then all of a
# class looks like the concept; not so with class pictures, as the model draws them, learnt beside
# the concept's (prior preservation): then it is in the words. Figures: docs/train.md.
# A batch has as many of them as of the concept's, which is twice the time and memory of an update.
# prior_pictures = 0        # made before the first update, kept in NAME.training/class; 100, say
# prior_folder = "{class_word}s"      # your own class pictures instead, NAME.txt beside each
# class_prompt = "a photo of a {class_word}"   # default: the captions, the class word for <TOK>
# prior_weight = 1.0        # how much they count; lower where the concept is learnt too little
# prior_target = "noise"    # what was added to them; base: what the model itself predicts
# prior_steps = 25          # sampling steps of those that are made
# Or: a third of the steps for the words alone. They know more without the LoRA, and less with it.
# words_first = 0           # updates before the LoRAs join, at their full rate
# Or: less of a LoRA, where rank 16 and more learns pictures by heart.
# lora_dropout = 0.0        # share within the LoRAs that a batch leaves out (network_dropout); 0.1
# rank_dropout = 0.0        # share of the LoRAs' ranks that a picture leaves out; 0.1
# lora_weight_decay = 0.01  # draws the LoRAs back by rate x this at each update; 1 to 10 is felt

# --- Model ------------------------------------------------------------------------------
# clip_skip = 0
# precision = "as-stored"   # of the model's weights: as-stored, f16, f32, q8_0, q4_0

# --- While it runs ----------------------------------------------------------------------
# output = "{pictures}.safetensors"
# name = "{pictures}"
# save_every = 50           # steps; after a stop, --resume goes on from the last save
# sheet_every = 250         # a sheet of these prompts at these scales of the LoRA; 0: none
# prompts = {prompts}
# sheet_scales = [0.0, 0.7, 1.0]   # 0: the embedding alone
# sheet_steps = 25
# sheet_guidance = 7.5      # unless the model says otherwise
"#
    )
}
