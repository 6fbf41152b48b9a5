//! What `mos eval` takes.
use std::path::PathBuf;

use mixofshow::NumberRange as Range;
use mixofshow::backend::Precision;
use mixofshow::metrics::survey::{Class, Judge, Share};
use mixofshow::scheduler::sampler::SamplerKind;

use crate::cli::{controls, values};

const ASKED: &str = "What is asked";
const SCORES: &str = "Scores";
const RUNS: &str = "Runs";

const EXAMPLES: &str = "\
Examples:
  Two concepts from their own files, four pictures of each prompt:
    mos eval -c zorp.safetensors -c luma.safetensors --pictures models/concepts/zorp \\
        --pictures models/concepts/luma -n 4 -o out/eval
  Three concepts, with a sketch to follow where all are in one picture:
    mos eval -m three --pictures zorp/ --pictures mimi/ --pictures luma/ \\
        --control t2i_adapter:image=sketch.png -o out/three
  A fused model, with towers of one's own:
    mos eval -m both --pictures potter/ --pictures hermione/ --clip clip-vit-base-patch32/ \\
        --dino dino_deitsmall16_pretrain.pth --csd csd.safetensors -o out/both
  Fourteen machines, each with a part, then one that puts them together:
    mos eval -m both --pictures potter/ --pictures hermione/ --part $N/14 -o out/part-$N
    mos eval merge out/part-* -o out/both";

/// Score how well concepts are shown, and where
///
/// Makes pictures of each concept from a list of prompts (elsewhere, in another style, with somebody
/// else, with another property), and of several concepts in their regions, and scores them: how much
/// they show what was asked for, how much they look like the pictures that the concepts were taught
/// from, who stands where. In the folder: the pictures, each with its recipe and its scores; results
/// as JSON and as a table; a page with sheets. A run that was interrupted goes on with the next
/// picture when it is started again.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub merge: Option<Merging>,
    /// The model: a folder, a file, or a name in MOS_MODELS [default: the one that ships with the
    /// program]; the concepts of a fused one are evaluated if no others are named
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// A concept's own file, as `mos generate` takes it; may be given again
    ///
    /// Results, and neighbours in regions, go by the order of the concepts' words, as in a fused
    /// model, so that its scenes and seeds are the same.
    #[arg(short, long = "concept", value_name = "FILE[:SCALE]")]
    pub concepts: Vec<String>,
    /// Use concepts that were made for another base model
    #[arg(long)]
    pub force_base: bool,
    /// A folder of the pictures that a concept was trained from, one for each concept: by its
    /// concept.json, else in the concepts' order
    ///
    /// A picture's mask, where there is one, is called alike in a folder `mask` inside.
    #[arg(long, value_name = "FOLDER")]
    pub pictures: Vec<PathBuf>,
    /// The folder of the results; s3://BUCKET/PREFIX is one of an object store
    ///
    /// Of a URL, each picture is handed on as soon as it is there; what others have made is brought.
    /// AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their like say
    /// where it is and who asks.
    #[arg(short, long, value_name = "FOLDER", default_value = "out/eval")]
    pub output: PathBuf,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,

    /// Prompts: `known` (in words of small models), `general`, or a file with one a line and <TOK>
    /// for the concept's words; - reads standard input [default: known where the model lists its
    /// words, else general]
    ///
    /// Lines [people], [animals], [objects] and [places] stand before prompts for such concepts
    /// alone, [any] before those for all; any other [name] is the kind of the prompts that follow.
    #[arg(long, value_name = "LIST", help_heading = ASKED)]
    pub prompts: Option<PathBuf>,
    /// Pictures of each prompt
    #[arg(
        long, value_name = "COUNT", default_value_t = 4,
        value_parser = values::TIMES.parser::<u64>(), help_heading = ASKED
    )]
    pub count: u64,
    /// Pictures of each two neighbours, and of each three, in regions; 0: none [default: as many as
    /// of each prompt]
    #[arg(long, value_name = "COUNT", help_heading = ASKED)]
    #[arg(value_parser = Range::whole(0, 1000).parser::<u64>())]
    pub together: Option<u64>,
    /// Pictures of the same scenes without regions, from one prompt that names all of them; 0: none
    ///
    /// `a <a1> <a2> on the left and a <b1> <b2> on the right on the beach`, judged in the same
    /// places. From concepts' own files, each acts on the whole picture then.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = ASKED)]
    #[arg(value_parser = Range::whole(0, 1000).parser::<u64>())]
    pub one_prompt: u64,
    /// Strength of a concept's own file in its region, times its scale: in a small part of a
    /// picture it shows less. Fused concepts are as they are
    #[arg(
        long, value_name = "FACTOR", default_value_t = 1.0,
        value_parser = Range::POSITIVE.parser::<f32>(), help_heading = ASKED
    )]
    pub scene_strength: f32,
    /// Steer three in their regions by a picture: "NETWORK:image=PICTURE", and more after commas,
    /// as `mos generate --control` takes it; may be given again
    ///
    /// A sketch shows the places of three, so pairs, pictures from one prompt and those of one
    /// concept are made without it. All scenes of three follow the same one: who is on its left
    /// stands for the first of the three in the order of their words.
    #[arg(long, value_name = "CONTROL", value_parser = controls::parse, help_heading = ASKED)]
    pub control: Vec<controls::Wanted>,
    /// What is around them
    #[arg(long, value_name = "TEXT", default_value = "on the beach", help_heading = ASKED)]
    pub place: String,
    /// What stands for a concept where texts are scored, in the concepts' order [default: what its
    /// concept.json or its file says]
    #[arg(long, value_name = "WORD", help_heading = ASKED)]
    pub class_word: Vec<String>,
    /// What a concept is, in the concepts' order: people, animals, objects or places [default: by
    /// its class word; objects where that tells nothing]
    #[arg(long, value_name = "CLASS", help_heading = ASKED)]
    pub class: Vec<Class>,
    /// The first seed of each prompt
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = ASKED)]
    #[arg(value_parser = mixofshow::training::config::repeatable_seed)]
    pub seed: u64,
    /// Sampling steps
    #[arg(long, value_name = "COUNT", default_value_t = 20, help_heading = ASKED)]
    #[arg(value_parser = Range::whole(1, 1000).parser::<usize>())]
    pub steps: usize,
    /// Guidance [default: the model's own, else 7.5]
    #[arg(short, long, value_name = "SCALE", help_heading = ASKED)]
    #[arg(value_parser = Range::NOT_NEGATIVE.parser::<f32>())]
    pub guidance: Option<f32>,
    /// Sampler
    #[arg(long, value_name = "NAME", default_value = "dpmpp-2m", help_heading = ASKED)]
    pub sampler: SamplerKind,
    /// Size of the pictures [default: what the model was trained at]
    #[arg(short, long, value_name = "WIDTHxHEIGHT", value_parser = values::size)]
    #[arg(help_heading = ASKED)]
    pub size: Option<(usize, usize)>,
    /// Precision of weights on the device: as-stored, f16, f32, q8_0 or q4_0
    #[arg(long, value_name = "PRECISION", help_heading = ASKED)]
    pub precision: Option<Precision>,

    /// CLIP's towers, for texts and pictures: a folder, or a file of OpenAI's or open_clip's
    /// [default: the model's own]
    #[arg(long, value_name = "PATH", help_heading = SCORES)]
    pub clip: Option<PathBuf>,
    /// DINO's tower (ViT-S/16): of Hugging Face, torch's hub or timm
    #[arg(long, value_name = "PATH", help_heading = SCORES)]
    pub dino: Option<PathBuf>,
    /// A DINOv2 tower: of Hugging Face, torch's hub or timm
    #[arg(long, value_name = "PATH", help_heading = SCORES)]
    pub dinov2: Option<PathBuf>,
    /// CSD's tower, of style
    #[arg(long, value_name = "PATH", help_heading = SCORES)]
    pub csd: Option<PathBuf>,
    /// A tower that only tells who is who: a folder in the layout of CLIP's vision tower [default:
    /// with the model that ships and what was fused from it, the one that ships beside it]
    #[arg(long, value_name = "PATH", help_heading = SCORES)]
    pub identity: Option<PathBuf>,
    /// Which of them says who stands where: clip, dino, dinov2, csd or identity [default: identity
    /// where there is one, else clip]
    #[arg(long, value_name = "TOWER", help_heading = SCORES)]
    pub judge: Option<Judge>,
    /// Compare with the first picture alone that a concept was trained from, as the method's
    /// published program does
    #[arg(long, help_heading = SCORES)]
    pub as_published: bool,

    /// Make only every N-th picture, from the K-th on [default: what SLURM_ARRAY_TASK_ID and
    /// SLURM_ARRAY_TASK_COUNT, or JOB_COMPLETION_INDEX and JOB_COMPLETIONS say, else all]
    #[arg(long, value_name = "K/N", value_parser = Share::parse, help_heading = RUNS)]
    pub part: Option<Share>,
    /// In a folder of other settings, keep what would come out the same and make the rest anew,
    /// instead of refusing
    #[arg(long, help_heading = RUNS)]
    pub renew: bool,
}

#[derive(clap::Subcommand)]
pub enum Merging {
    /// Put parts that were made in folders of their own together
    ///
    /// The result has the same bytes as one run, in whatever order the parts are named.
    Merge(Merge),
}

#[derive(clap::Args)]
pub struct Merge {
    /// Folders of the parts, or their URLs
    #[arg(required = true, value_name = "FOLDER")]
    pub parts: Vec<PathBuf>,
    /// The folder of all results, or its URL; it may be one of the parts
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
}
