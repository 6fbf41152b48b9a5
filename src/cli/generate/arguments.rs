//! What `mos generate` takes, and how it changes a recipe.
use std::path::PathBuf;

use mixofshow::NumberRange as Range;
use mixofshow::backend::Precision;
use mixofshow::checkpoint::SHIPPED;
use mixofshow::metrics::survey::Share;
use mixofshow::pipeline::random::RngKind;
use mixofshow::pipeline::recipe::Recipe;
use mixofshow::pipeline::text::prompt::Syntax;
use mixofshow::pipeline::{Compose, MOST_PICTURES, Request};
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::scheduler::spacing::Schedule;

use super::concepts::ConceptArguments;
use super::item::Item;
use super::larger::Larger;
use super::placing::Placing;
use super::previews::Previews;
use super::steering::Steering;
use crate::cli::usage::STANDARD;
use crate::cli::values::{self, Seed};
use crate::cli::{Failure, files};

const SAMPLING: &str = "Sampling";
const IMAGE: &str = "Starting from a picture";
const MODEL: &str = "Model";
const FILES: &str = "Output";
const AGAIN: &str = "Again";

const EXAMPLES: &str = "\
Examples:
  A picture by the model that ships with the program:
    mos generate --prompt \"a red cat in the snow\" -o cat.png
  Four by your own model, each named after its seed:
    mos generate -m sd15.safetensors -p \"a castle by the sea\" --batch 4 -o 'castle-{seed}.png'
  The very same picture again, then with another prompt:
    mos generate --like cat.png -o again.png
    mos generate --like cat.png -p \"a blue cat in the snow\" -o blue.png
  With a concept of your own, its LoRA a little weaker, and a plain LoRA:
    mos generate -p \"a <zorp1> <zorp2>\" --concept zorp.safetensors:0.8 --lora ink.safetensors -o a.png
  Image to image, and painting only where a mask is white:
    mos generate -p \"a robot on the beach\" --init-image photo.jpg --strength 0.6 -o robot.png
    mos generate -p \"a blue hat\" --init-image photo.jpg --mask where.png -o hat.png
  Prompt in, picture out:
    echo \"a dog on the moon\" | mos generate -p - -o - > dog.png
  Two in one picture, each in its half:
    mos generate -p \"in the snow\" --region \"0,.2,.5,1: a red cat\" -o two.png \\
      --region \".5,.2,1,1: a blue dog\"

Every PNG carries its settings: for --like, and as text that web UIs read.";

/// Make pictures from a prompt
///
/// Makes pictures from a prompt with Stable Diffusion 1.x, 2.x or XL, the same ones as diffusers
/// would from the same seed. Without --model, by a very small model that ships with the program.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What the picture shows; (word:1.2) weighs a word, [from:to:0.5] changes it half-way; - reads
    /// it from standard input
    #[arg(short, long, value_name = "TEXT")]
    #[arg(required_unless_present_any = ["like", "layout", "list"], help_heading = "Picture")]
    prompt: Option<String>,
    /// Pictures of a list, into the folder of --output: prompts, one a line; - reads standard input
    ///
    /// A line that is JSON has `prompt`, and may have `negative`, `seed` and `name` (of its file);
    /// else files are called after the line's number and the seed, which is 1 unless --seed says
    /// otherwise. The other options hold for all. What is there already, with the same settings, is
    /// not made again, so that a run that was ended goes on.
    #[arg(short, long, value_name = "FILE", help_heading = "Picture")]
    #[arg(conflicts_with_all = ["prompt", "like", "plan", "save_latents", "preview", "json"])]
    pub list: Option<PathBuf>,
    /// Of a list, only every N-th line, from the K-th on [default: what SLURM_ARRAY_TASK_ID and
    /// SLURM_ARRAY_TASK_COUNT, or JOB_COMPLETION_INDEX and JOB_COMPLETIONS say, else all]
    #[arg(long, value_name = "K/N", value_parser = Share::parse)]
    #[arg(help_heading = "Picture")]
    pub part: Option<Share>,
    /// What it should not show; - reads it from standard input
    #[arg(
        short,
        long,
        value_name = "TEXT",
        visible_alias = "negative-prompt",
        help_heading = "Picture"
    )]
    negative: Option<String>,
    /// Width and height in pixels [default: what the model was trained at]
    #[arg(
        short, long, value_name = "WIDTHxHEIGHT", value_parser = values::size,
        conflicts_with_all = ["width", "height"]
    )]
    #[arg(help_heading = "Picture")]
    size: Option<(usize, usize)>,
    /// Width in pixels
    #[arg(long, value_name = "PIXELS", value_parser = values::side, help_heading = "Picture")]
    width: Option<usize>,
    /// Height in pixels
    #[arg(long, value_name = "PIXELS", value_parser = values::side, help_heading = "Picture")]
    height: Option<usize>,
    /// SDXL: the size that the picture is said to come from [default: the picture's own]
    ///
    /// Stable Diffusion XL is told how large a picture was before it was scaled and cut: the larger,
    /// the sharper it makes it.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = values::size)]
    #[arg(help_heading = "Picture")]
    original_size: Option<(usize, usize)>,
    /// SDXL: where it is said to be cut from that, from the left and from the top [default: 0,0]
    #[arg(long, value_name = "X,Y", value_parser = values::place, help_heading = "Picture")]
    crop: Option<(usize, usize)>,
    /// How many pictures, with seeds that follow each other; each is written as soon as it is done
    /// [default: 1]
    #[arg(
        short, long, value_name = "COUNT",
        value_parser = Range::whole(1, MOST_PICTURES as u32).parser::<u64>()
    )]
    #[arg(help_heading = "Picture")]
    batch: Option<u64>,

    #[command(flatten)]
    pub concepts: ConceptArguments,
    #[command(flatten)]
    pub placing: Placing,
    #[command(flatten)]
    pub steering: Steering,
    #[command(flatten)]
    pub larger: Larger,
    #[command(flatten)]
    pub previews: Previews,

    /// PNG file, folder, or pattern with {seed} or {index}; an older file is replaced; - is
    /// standard output; s3://BUCKET/... is in an object store
    ///
    /// A PNG file: several pictures become cat-1.png, cat-2.png and so on. Or a folder (it exists,
    /// or the name ends in a slash): files are named after prompt and seed. Or a pattern in which
    /// {seed} and {index} stand for a picture's seed and number. Missing folders are made. A file
    /// of that name is replaced, once the new one is complete. With - the PNG goes to standard
    /// output, and nothing else does. [default: a file in the current folder, named after prompt
    /// and seed]
    #[arg(short, long, value_name = "PATH", help_heading = FILES)]
    pub output: Option<PathBuf>,
    /// Write the final latents to this safetensors file, [batch, channels, height, width]
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub save_latents: Option<PathBuf>,
    /// Print a report as JSON instead of the files' names
    #[arg(long, help_heading = FILES)]
    pub json: bool,

    /// Model: diffusers folder, or one file: safetensors, .ckpt, .bin or GGUF
    ///
    /// A folder in diffusers' layout or a single file (safetensors, what torch.save wrote, GGUF),
    /// told apart by content. A name
    /// that is no path is looked for in the folder that MOS_MODELS names; `tiny` is the model that
    /// ships with the program. [default: tiny]
    #[arg(short, long, value_name = "PATH", help_heading = MODEL)]
    pub model: Option<String>,
    /// How weights are held on the device: as-stored, f16, f32, or matrices in blocks, the rest in
    /// f16: q8_0 (8 bits) or q4_0 (4 bits) [default: as-stored]
    #[arg(long, value_name = "TYPE", help_heading = MODEL)]
    precision: Option<Precision>,
    /// How many of the text encoder's last layers to leave out [default: 0]
    #[arg(long, value_name = "LAYERS", value_parser = Range::WHOLE.parser::<usize>())]
    #[arg(help_heading = MODEL)]
    clip_skip: Option<usize>,
    /// Read prompts beyond 77 tokens in chunks instead of cutting them
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    #[arg(hide_possible_values = true, help_heading = MODEL)]
    long_prompt: Option<bool>,
    /// Whether brackets in prompts weigh words: auto, on or off [default: auto]
    ///
    /// Whether `(word:1.2)`, `((word))`, `[word]` and `BREAK` mean what they do in web UIs, and so
    /// editing: `[from:to:when]`, `[to:when]` and `[from::when]` change what is read after `when`
    /// steps (with a decimal point: this share of the steps), and `[a|b]` takes turns, a step each.
    /// auto: if the prompt has a mark of it that is unmistakable, such as an explicit weight. on:
    /// always. off: brackets are text.
    #[arg(long, value_name = "WHEN", value_parser = syntax, help_heading = MODEL)]
    prompt_syntax: Option<Syntax>,
    /// Stay within this much of the device's memory, such as 6G: weights that are not at work are
    /// given up, pictures decoded in tiles, batches made smaller, and what still has no room comes
    /// anew with each call of the model, as far as needed
    #[arg(long, value_name = "BYTES", value_parser = values::memory, help_heading = MODEL)]
    memory: Option<u64>,
    /// Print what the run would take of memory and calls of the model, and make nothing
    #[arg(long, help_heading = FILES)]
    pub plan: bool,
    /// Decode pictures in tiles of this many pixels a side [default: whole where memory allows]
    #[arg(long, value_name = "PIXELS", value_parser = values::side, help_heading = MODEL)]
    tile: Option<usize>,

    /// Sampling steps [default: 25]
    #[arg(long, value_name = "COUNT", help_heading = SAMPLING)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    steps: Option<usize>,
    /// How closely to follow the prompt; 1: no guidance, twice as fast [default: the
    /// `guidance_scale` of the model's generation_config.json, else 7.5]
    #[arg(
        short, long, value_name = "SCALE", visible_alias = "cfg",
        value_parser = Range::NOT_NEGATIVE.parser::<f32>()
    )]
    #[arg(help_heading = SAMPLING)]
    guidance: Option<f32>,
    /// How far the guided picture is brought back to the contrast of an unguided one, 0 to 1
    /// [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = SAMPLING)]
    #[arg(value_parser = Range::SHARE.parser::<f32>())]
    guidance_rescale: Option<f32>,
    /// Guidance acts from this part of the steps on, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = SAMPLING)]
    #[arg(value_parser = Range::SHARE.parser::<f64>())]
    guidance_from: Option<f64>,
    /// Guidance acts until this part of the steps, 0 to 1 [default: 1]
    #[arg(long, value_name = "SHARE", help_heading = SAMPLING)]
    #[arg(value_parser = Range::SHARE.parser::<f64>())]
    guidance_until: Option<f64>,
    /// ddim, pndm (plms), euler, euler-ancestral, heun, dpmpp-2m, dpmpp-2m-sde, dpmpp-sde,
    /// dpmpp-3m-sde, unipc, lcm or tcd [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = SAMPLING)]
    sampler: Option<SamplerKind>,
    /// How steps are spread over the noise: karras, exponential, beta, sgm-uniform, simple,
    /// trailing, linspace or leading [default: the model's own]
    ///
    /// karras, exponential and beta space noise levels, for all samplers but ddim, pndm, lcm and
    /// tcd. The others space timesteps, for all samplers but lcm and tcd.
    #[arg(long, value_name = "NAME", help_heading = SAMPLING)]
    schedule: Option<Schedule>,
    /// The same as --schedule karras
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", conflicts_with = "schedule"
    )]
    #[arg(hide_possible_values = true, help_heading = SAMPLING)]
    karras: Option<bool>,
    /// Fresh noise in the steps of ddim, euler-ancestral, tcd and the sde samplers, 0 to 1
    /// [default: 0 for ddim, 0.3 for tcd, else 1]
    #[arg(long, value_name = "SHARE", help_heading = SAMPLING)]
    #[arg(value_parser = Range::SHARE.parser::<f64>())]
    eta: Option<f64>,
    /// Run the UNet's deep layers in every so many steps only, and use what they gave again: faster,
    /// a little different [default: 1]
    #[arg(long, value_name = "STEPS", help_heading = SAMPLING)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    cache: Option<usize>,
    /// How several LoRAs come together: together, switch[:STEPS] (one at a time, the next after so
    /// many steps, 5 if not said) or composite (the mean of what each alone predicts: takes as many
    /// times as long as there are LoRAs) [default: together]
    ///
    /// Text encoders read the prompt with all of them. Not with regions, where each LoRA has a
    /// place of its own.
    #[arg(long, value_name = "WAY", help_heading = SAMPLING)]
    compose: Option<Compose>,
    /// Seed of the first picture; random or -1: a random one, which is printed [default: random;
    /// with --like that picture's]
    #[arg(long, value_name = "NUMBER", value_parser = values::seed, help_heading = SAMPLING)]
    seed: Option<Seed>,
    /// Whose random numbers: torch (as on a CPU) or philox (as on CUDA) [default: torch]
    #[arg(long, value_name = "NAME", help_heading = SAMPLING)]
    rng: Option<RngKind>,
    /// Start from the noise in this safetensors file, [batch, channels, height, width]
    #[arg(long, value_name = "FILE", help_heading = SAMPLING)]
    pub latents: Option<PathBuf>,

    /// Start from this picture instead of noise
    #[arg(short, long, value_name = "PICTURE", help_heading = IMAGE)]
    pub init_image: Option<PathBuf>,
    /// How much to change it, above 0 to 1 [default: 0.8]
    #[arg(long, value_name = "SHARE", help_heading = IMAGE)]
    #[arg(value_parser = Range::POSITIVE_SHARE.parser::<f64>())]
    strength: Option<f64>,
    /// Paint only where this picture is white
    #[arg(long, value_name = "PICTURE", help_heading = IMAGE)]
    pub mask: Option<PathBuf>,

    /// Take all settings from this picture's file; options that are given change them
    ///
    /// Takes prompt, seed, size, model and all else from a PNG that was made by this program, and
    /// gives the very same picture, or from a web UI's PNG, JPEG or WebP as far as its settings
    /// have a counterpart. Pictures that it was made of are looked for where they were, then beside
    /// it and in the folders above. Options that are given replace what the file says.
    #[arg(long, value_name = "PICTURE", help_heading = AGAIN)]
    pub like: Option<PathBuf>,
}

impl Arguments {
    /// Replaces what a recipe says by what was given. A seed that nobody has named is drawn.
    ///
    /// # Errors
    /// Regions that cannot be read; no prompt at all.
    pub fn apply(&self, recipe: &mut Recipe) -> crate::cli::Result<()> {
        self.placing.apply(recipe, self.like.as_deref())?;
        let request = &mut recipe.request;
        fn set<T: Clone>(field: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                *field = given.clone();
            }
        }
        if let Some(layout) = &self.placing.layout {
            set(&mut request.prompt, &request.regions.prompt.clone());
            set(&mut request.negative_prompt, &request.regions.negative.clone());
            let elsewhere = self.prompt.is_some() || self.like.is_some() || self.list.is_some();
            if !elsewhere && request.regions.prompt.is_none() {
                let text = format!(
                    "{} says no `prompt` for the whole picture: --prompt does",
                    layout.display()
                );
                return Err(Failure::Usage(text));
            }
        }
        if [&self.prompt, &self.negative].iter().all(|text| text.as_deref() == Some(STANDARD)) {
            return Err(Failure::Usage(
                "--prompt - and --negative - both want standard input: one of them can have it"
                    .into(),
            ));
        }
        set(&mut request.prompt, &read(&self.prompt, "--prompt")?);
        set(&mut request.negative_prompt, &read(&self.negative, "--negative")?);
        request.width = self.size.map(|(width, _)| width).or(self.width).or(request.width);
        request.height = self.size.map(|(_, height)| height).or(self.height).or(request.height);
        request.original_size = self.original_size.or(request.original_size);
        request.crop = self.crop.or(request.crop);
        if self.seed.is_some() || self.batch.is_some() {
            recipe.batch = None;
        }
        set(&mut request.batch, &self.batch.map(|count| count as usize));
        set(&mut recipe.precision, &self.precision);
        set(&mut request.clip_skip, &self.clip_skip);
        set(&mut request.prompt_options.long_prompt, &self.long_prompt);
        set(&mut request.prompt_options.syntax, &self.prompt_syntax);
        request.tile = self.tile.or(request.tile);
        request.memory = self.memory;
        set(&mut request.steps, &self.steps);
        request.preview = self.previews.preview;
        set(&mut request.guidance, &self.guidance);
        request.sampler = self.sampler.or(request.sampler);
        request.schedule = match self.karras {
            Some(true) => Some(Schedule::Karras),
            Some(false) => request.schedule.filter(|schedule| *schedule != Schedule::Karras),
            None => self.schedule.or(request.schedule),
        };
        request.eta = self.eta.or(request.eta);
        set(&mut request.guidance_rescale, &self.guidance_rescale);
        set(&mut request.cache, &self.cache);
        set(&mut request.compose, &self.compose);
        set(&mut request.place, &self.placing.place);
        set(&mut request.guidance_interval[0], &self.guidance_from);
        set(&mut request.guidance_interval[1], &self.guidance_until);
        set(&mut request.rng, &self.rng);
        set(&mut request.strength, &self.strength);
        if self.model.is_some() {
            recipe.model = self.model.clone();
        }
        recipe.model.get_or_insert_with(|| SHIPPED.to_string());
        match self.seed {
            Some(Seed::Number(seed)) => request.seed = seed,
            Some(Seed::Random) => request.seed = random_seed(),
            None if self.like.is_none() || recipe.seed_is_open => request.seed = random_seed(),
            None => {}
        }
        Ok(())
    }

    /// What a line of a list says, over the options.
    pub fn apply_item(&self, item: &Item, request: &mut Request) {
        request.prompt.clone_from(&item.prompt);
        if let Some(negative) = &item.negative {
            request.negative_prompt.clone_from(negative);
        }
        let seed = match self.seed {
            Some(Seed::Number(seed)) => seed,
            // As drawn, which says that no run is to be like another.
            Some(Seed::Random) => request.seed,
            None => 1,
        };
        request.seed = item.seed.unwrap_or(seed);
    }

    /// Whether neither `--guidance` nor a recipe says how closely to follow the prompt.
    pub fn leaves_guidance_open(&self) -> bool {
        self.guidance.is_none() && self.like.is_none()
    }

    /// Whether `--negative` was given.
    pub fn has_negative(&self) -> bool {
        self.negative.is_some()
    }

    /// Whether `--strength` was given.
    pub fn has_strength(&self) -> bool {
        self.strength.is_some()
    }

    /// Whether `--batch` was given.
    pub fn has_batch(&self) -> bool {
        self.batch.is_some()
    }
}

/// The text, or what standard input has where it is `-`.
fn read(text: &Option<String>, option: &str) -> crate::cli::Result<Option<String>> {
    match text.as_deref() {
        Some(STANDARD) => Ok(Some(files::standard_input(option, "a prompt")?.trim().to_string())),
        _ => Ok(text.clone()),
    }
}

/// 32 bits: what all programs take, and short enough to be typed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 32
}

fn syntax(text: &str) -> Result<Syntax, String> {
    match text {
        "auto" => Ok(Syntax::Auto),
        "on" => Ok(Syntax::On),
        "off" => Ok(Syntax::Off),
        _ => Err("expected auto, on or off".to_string()),
    }
}
