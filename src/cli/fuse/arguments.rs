//! What `mos fuse` takes.
use std::path::PathBuf;

use clap::ValueEnum;
use mixofshow::NumberRange as Range;
use mixofshow::backend::Precision;
use mixofshow::fusion::Distillation;
use mixofshow::fusion::solve::{Exact, Lbfgs, Loraclr, Merge, Solver, Towards, Way};
use mixofshow::training::config::repeatable_seed;

use crate::cli::values;

const GROW: &str = "Growing and shrinking";
const STATISTICS: &str = "Statistics";
const SOLVING: &str = "Solving";

const EXAMPLES: &str = "\
Examples:
  Two concepts in one model, then a picture of both:
    mos fuse -m sd15 -c potter.safetensors -c hermione.safetensors:unet=0.8 -o both
    mos generate -m both -p \"<potter1> <potter2> beside <hermione1> <hermione2>\"
  A style without words of its own:
    mos fuse -m sd15 -c potter.safetensors -c ink.safetensors --prompt \"ink drawing\" -o inked
  One more later, of which alone pictures are sampled:
    mos fuse -m sd15 --list concepts.toml --save-statistics sums -o all
    mos fuse --to all --add thanos.safetensors --statistics sums
  Fourteen machines, each with one concept's pictures to sample, then one that solves:
    mos fuse -m sd15 --list concepts.toml --save-statistics sums --statistics-only --part $N/14
    mos fuse -m sd15 --list concepts.toml --statistics sums -o all";

/// Put several concepts into one model
///
/// Finds one set of weights with which every layer answers each concept's own inputs as that
/// concept's tuned layer does: Mix-of-Show's gradient fusion, solved exactly, in memory that does
/// not grow with the number of concepts. Then the UNet as a whole learns to predict what the
/// concepts' own models predict. The result is a model folder that other programs load too. An
/// interrupted run goes on where it was when it is started again.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The base model: a folder, a file, or a name in MOS_MODELS [default: the one that ships with
    /// the program]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// A concept or LoRA file; `FILE:0.8` scales its LoRA, `FILE:unet=0.8,text=1` its parts. May be
    /// given again
    #[arg(short, long = "concept", value_name = "FILE[:SCALE]", conflicts_with = "to")]
    pub concepts: Vec<String>,
    /// A list of concepts: TOML, JSON, or the method's own JSON
    #[arg(short, long, value_name = "FILE", conflicts_with = "to")]
    pub list: Option<PathBuf>,
    /// What calls up a LoRA that has no words of its own: one for each of these, in order
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// The folder of the fused model
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Replace the folder if it is there and this program fused it; whatever else is in it is kept
    ///
    /// Only a folder with a fusion.json of this program is replaced, never one behind a symbolic
    /// link. Files in it that this program did not write are carried over into the new one; where
    /// the new model has a file of the same name, into NAME.old beside it.
    #[arg(long)]
    pub replace: bool,
    /// Number a word that two concepts have, instead of refusing it
    #[arg(long)]
    pub rename: bool,
    /// Draw a sheet into the report: each concept from its own file, fused, and averaged
    #[arg(long, conflicts_with = "statistics_only")]
    pub sheet: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Stay within this much of the device's memory, such as 8G: weights come anew in each step,
    /// passes get smaller and sums are made by the host, as far as that takes
    #[arg(long, value_name = "BYTES", value_parser = values::memory)]
    pub memory: Option<u64>,
    /// Print what the fusion would take of memory, and do nothing
    #[arg(long)]
    pub plan: bool,

    /// How weights are found [default: exact; with --to the way that the model was made]
    #[arg(long, value_enum, value_name = "SOLVER", help_heading = SOLVING)]
    pub solver: Option<Method>,
    /// Ridge of the exact solver (loraclr starts from it), in parts of the inputs' mean square
    /// [default: chosen by measurement]
    #[arg(
        long, value_name = "PART", value_parser = Range::NOT_NEGATIVE.parser::<f64>(),
        help_heading = SOLVING
    )]
    pub ridge: Option<f64>,
    /// The part of each change's numbers that ties and dare keep [default: ties 0.2, dare 0.5]
    #[arg(long, value_name = "PART", help_heading = SOLVING)]
    #[arg(value_parser = Range::POSITIVE_SHARE.parser::<f64>())]
    pub density: Option<f64>,
    /// How far loraclr keeps the answers to a concept's inputs from other concepts' answers, in
    /// parts of what the concept changes [default: 0.5]
    #[arg(
        long, value_name = "DISTANCE", value_parser = Range::NOT_NEGATIVE.parser::<f64>(),
        help_heading = SOLVING
    )]
    pub margin: Option<f64>,
    /// How much the squares of the change's numbers count for loraclr [default: 0.001]
    #[arg(
        long, value_name = "WEIGHT", value_parser = Range::NOT_NEGATIVE.parser::<f64>(),
        help_heading = SOLVING
    )]
    pub weight_decay: Option<f64>,
    /// What the ridge pulls to where inputs tell little: the base weights, or the mean of all
    /// changes [default: base with --ridge, else whichever measures better]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = SOLVING)]
    pub towards: Option<Pull>,
    /// Prompts on which the model should not change, one a line; `none` for none, - reads standard
    /// input [default: a built-in list]
    #[arg(long, value_name = "FILE", help_heading = SOLVING)]
    pub keep: Option<PathBuf>,
    /// How much those prompts weigh, all together, in concepts: more keeps the model as it was,
    /// less leaves more to the concepts [default: 0.1]
    #[arg(
        long, value_name = "WEIGHT", value_parser = Range::NOT_NEGATIVE.parser::<f64>(),
        help_heading = SOLVING
    )]
    pub keep_weight: Option<f64>,
    /// Pictures of each prompt by each concept's own model, whose predictions the fused UNet learns
    /// after its layers are solved for; 0: none [default: 4 with exact, else 0]
    #[arg(
        long, value_name = "PICTURES", value_parser = Distillation::PICTURES.parser::<u64>(),
        help_heading = SOLVING
    )]
    pub distillation: Option<u64>,
    /// Learning rate of that [default: 0.002]
    #[arg(
        long, value_name = "RATE", value_parser = Distillation::RATE.parser::<f32>(),
        help_heading = SOLVING
    )]
    pub distillation_rate: Option<f32>,
    /// Rank of the updates that learn it [default: 16 for each concept and 4 more, 64 at most]
    #[arg(
        long, value_name = "RANK", value_parser = Distillation::RANK.parser::<usize>(),
        help_heading = SOLVING
    )]
    pub distillation_rank: Option<usize>,
    /// Pictures of each prompt of each scene that it learns too, two and three concepts in regions
    /// as their own files make them together; 0: none [default: 3, after any solver, where there is
    /// a distillation]
    ///
    /// Where concepts have high ranks, more pays: 6 for three concepts of rank 64 take half as much
    /// time again and lose less.
    #[arg(
        long, value_name = "PICTURES", value_parser = Distillation::PICTURES.parser::<u64>(),
        help_heading = SOLVING
    )]
    pub scenes: Option<u64>,
    /// Strength of a concept's own file in its region of a scene, times its own [default: 1.6]
    #[arg(
        long, value_name = "FACTOR", value_parser = Distillation::STRENGTH.parser::<f32>(),
        help_heading = SOLVING
    )]
    pub scene_strength: Option<f32>,
    /// Of so many pictures of each prompt of each scene, what is predicted in regions is learnt with
    /// one prompt for the whole picture too; 0: none [default: 0]
    #[arg(
        long, value_name = "PICTURES", value_parser = Distillation::PICTURES.parser::<u64>(),
        help_heading = SOLVING
    )]
    pub one_prompt: Option<u64>,

    /// What is recorded of the concepts: `usual`, or `published`, exactly as the method's own
    /// program does, for any solver; the options below change it [default: published with L-BFGS,
    /// else usual]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = STATISTICS)]
    pub record: Option<Recording>,
    /// Prompts with {} for a concept's words, one a line, in place of the built-in ones; - reads
    /// standard input
    #[arg(long, value_name = "FILE", help_heading = STATISTICS)]
    pub prompts: Option<PathBuf>,
    /// Other prompts to sample pictures from [default: those of --prompts]
    #[arg(long, value_name = "FILE", help_heading = STATISTICS)]
    pub sampled_prompts: Option<PathBuf>,
    /// Prompts that are recorded from other seeds, to choose the ridge and to measure with; `none`
    /// for none: then both are done on what is solved with [default: two built-in ones; none with a
    /// published recording]
    #[arg(long, value_name = "FILE", help_heading = STATISTICS)]
    pub held_out: Option<PathBuf>,
    /// Fit keys and values to whole prompts, or (`words`) to the concept's words and the end mark
    /// alone, as published
    #[arg(long, value_enum, value_name = "PART", help_heading = STATISTICS)]
    pub fit: Option<Fit>,
    /// Pictures that are sampled for each prompt [default: 1]
    #[arg(
        long, value_name = "COUNT",
        value_parser = values::TIMES.parser::<u64>()
    )]
    #[arg(help_heading = STATISTICS)]
    pub samples: Option<u64>,
    /// Sampling steps [default: 10; with L-BFGS 20, as published]
    #[arg(long, value_name = "COUNT", help_heading = STATISTICS)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    pub steps: Option<usize>,
    /// Guidance of the sampled pictures; at 1 the empty prompt's half is left out [default: 5; with
    /// L-BFGS 1, as published]
    #[arg(
        short, long, value_name = "SCALE", value_parser = Range::NOT_NEGATIVE.parser::<f32>(),
        help_heading = STATISTICS
    )]
    pub guidance: Option<f32>,
    /// Size of the sampled pictures [default: what the model was trained at]
    #[arg(
        short, long, value_name = "WIDTHxHEIGHT", value_parser = values::size
    )]
    #[arg(help_heading = STATISTICS)]
    pub size: Option<(usize, usize)>,
    /// Seed of the sampled pictures [default: 0]
    #[arg(
        long, value_name = "NUMBER", value_parser = repeatable_seed,
        help_heading = STATISTICS
    )]
    pub seed: Option<u64>,
    /// Precision of weights on the device: as-stored, f16, f32, q8_0 or q4_0
    #[arg(long, value_name = "PRECISION", help_heading = STATISTICS)]
    pub precision: Option<Precision>,
    /// Keep statistics in this folder, and use those that are there; s3://BUCKET/PREFIX is one of an
    /// object store
    ///
    /// Of a URL, files are handed on as soon as they are there, and each that is needed is brought
    /// when it is. AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their
    /// like say where it is and who asks.
    #[arg(
        long = "save-statistics", visible_alias = "statistics", value_name = "FOLDER",
        help_heading = STATISTICS
    )]
    pub statistics: Option<PathBuf>,
    /// Take statistics, don't solve the last stage, write no model
    #[arg(long, conflicts_with_all = ["output", "to"], help_heading = STATISTICS)]
    pub statistics_only: bool,
    /// Sample only every N-th concept, from the K-th on: a share of the work for each of N machines
    #[arg(
        long, value_name = "K/N", value_parser = part,
        requires = "statistics_only", help_heading = STATISTICS
    )]
    pub part: Option<(usize, usize)>,

    /// A fused model to change, in place unless --output names another folder; its statistics must
    /// have been kept, and its settings hold but for those that are given
    #[arg(long, value_name = "FOLDER", help_heading = GROW)]
    pub to: Option<PathBuf>,
    /// A concept to add to it; as --concept. It alone is sampled and solved for, beside what the
    /// model answers already, and learnt beside some of the others'
    #[arg(long, value_name = "FILE[:SCALE]", requires = "to", help_heading = GROW)]
    pub add: Vec<String>,
    /// The name (or prompt words) of a concept to take out of it
    #[arg(long, value_name = "NAME", requires = "to", help_heading = GROW)]
    pub remove: Vec<String>,
    /// Fuse all concepts anew, and record their inputs anew where other concepts have changed them
    #[arg(long, requires = "to", help_heading = GROW)]
    pub refresh: bool,
}

/// What a ridge pulls to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// The base weights
    Base,
    /// The mean of all changes
    Average,
}

impl Pull {
    pub fn towards(self) -> Towards {
        match self {
            Pull::Base => Towards::Base,
            Pull::Average => Towards::Average,
        }
    }
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Recording {
    /// Four prompts, both halves of guidance, whole prompts
    Usual,
    /// "photo of a ..." in 20 steps without guidance, words and end marks
    Published,
}

/// What keys and values are fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fit {
    /// All of a prompt up to its end mark
    Prompts,
    /// The concept's words and the end mark
    Words,
}

/// Solvers by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Regularised least squares, solved directly
    Exact,
    /// L-BFGS as published, for comparison
    Lbfgs,
    /// LoRACLR: answers near the concept's own and not near others', from the exact solution
    Loraclr,
    /// The mean of the concepts' changes, the baseline
    Average,
    /// Their weighted sum
    Sum,
    /// Largest numbers of the sign that weighs more (TIES), for comparison
    Ties,
    /// Numbers left out at random, the others larger (DARE), for comparison
    Dare,
}

impl Method {
    /// The one of a solver.
    pub fn of(solver: Solver) -> Method {
        match solver {
            Solver::Exact(_) => Method::Exact,
            Solver::Lbfgs(_) => Method::Lbfgs,
            Solver::Loraclr(_) => Method::Loraclr,
            Solver::Average => Method::Average,
            Solver::Merge(merge) => match merge.way {
                Way::Sum => Method::Sum,
                Way::Ties => Method::Ties,
                Way::Dare => Method::Dare,
            },
        }
    }

    pub fn with(self, exact: Exact) -> Solver {
        match self {
            Method::Exact => Solver::Exact(exact),
            // 0: as published, stage by stage.
            Method::Lbfgs => Solver::Lbfgs(Lbfgs { iterations: 0 }),
            Method::Loraclr => Solver::Loraclr(Loraclr { start: exact, ..Loraclr::default() }),
            Method::Average => Solver::Average,
            Method::Sum => Solver::Merge(Merge::new(Way::Sum)),
            Method::Ties => Solver::Merge(Merge::new(Way::Ties)),
            Method::Dare => Solver::Merge(Merge::new(Way::Dare)),
        }
    }
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(k, n)| Some((k.trim().parse().ok()?, n.trim().parse().ok()?)));
    parsed
        .filter(|(k, n)| (1..=*n).contains(k))
        .ok_or_else(|| "expected K/N such as 3/14".to_string())
}
