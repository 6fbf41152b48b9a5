//! The command line: one file per command, arguments in, printing out. All work is done by the
//! library.
mod bench;
mod controls;
mod convert;
mod demo;
mod devices;
mod escaped;
mod eval;
mod files;
mod fuse;
mod generate;
mod inspect;
mod interrupt;
mod kernel;
mod learn;
mod manual;
mod objects;
mod progress;
mod serve;
mod share;
mod terminal;
mod train;
mod units;
mod usage;
mod values;

use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use mixofshow::backend::wgpu as gpu;
use mixofshow::backend::{self, Device, Rounding, Selection, cpu};
use mixofshow::checkpoint::output::cache_folder;

use terminal::Terminal;

/// Mix-of-Show on any graphics card, or on none: teach Stable Diffusion your own concepts, fuse
/// them, place them in pictures.
#[derive(Parser)]
#[command(
    name = "mos",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(styles = terminal::STYLES, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mos generate --prompt \"a red cat in the snow\" -o cat.png
  mos generate --model sd15.safetensors --prompt \"a castle by the sea\" --size 512x512
  mos inspect sd15.safetensors
  mos devices

`mos help COMMAND` tells all about a command. Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// What every command takes.
#[derive(Args)]
struct Global {
    /// What computes: `cpu`, or a graphics adapter by its number in `mos devices` or a part of its
    /// name
    ///
    /// Without this the best graphics card is taken, and where there is none the processor.
    /// Software drivers for graphics are only used when they are named.
    #[arg(
        long,
        global = true,
        env = "MOS_ADAPTER",
        value_name = "ADAPTER",
        help_heading = "Global options"
    )]
    #[arg(hide_env_values = true)]
    adapter: Option<String>,
    /// Cooperative matrices (tensor cores) for products with f16 weights: auto, on or off
    ///
    /// `auto` uses them on graphics cards that have them and pass a test; `on` on software drivers
    /// too. They round what they multiply to f16 and add in f32.
    #[arg(
        long,
        global = true,
        env = "MOS_MATRICES",
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    #[arg(hide_env_values = true, hide_default_value = true)]
    matrices: gpu::MatrixUse,
    /// Precision of activations where weights are f16, on graphics adapters: auto, f16 or f32
    ///
    /// `auto` keeps them in f16 where products are made of cooperative matrices. Half the memory;
    /// sums, norms' statistics and softmax are f32 all the same.
    #[arg(
        long,
        global = true,
        env = "MOS_ACTIVATIONS",
        value_name = "PRECISION",
        default_value = "auto",
        help_heading = "Global options"
    )]
    #[arg(hide_env_values = true, hide_default_value = true)]
    activations: gpu::ActivationUse,
    /// Vector instructions on the processor, if not the best that it has: avx512, avx2, neon or
    /// scalar
    #[arg(
        long,
        global = true,
        env = "MOS_CPU_LEVEL",
        value_name = "LEVEL",
        help_heading = "Global options"
    )]
    #[arg(hide_env_values = true)]
    cpu_level: Option<String>,
    /// Print nothing but errors and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// Say more about what is done
    #[arg(short, long, global = true, help_heading = "Global options")]
    verbose: bool,
}

impl Global {
    fn selection(&self) -> Selection {
        Selection::of(self.adapter.as_deref().unwrap_or_default())
    }

    fn cpu_options(&self) -> cpu::Options {
        let level = self.cpu_level.as_deref().map(str::trim).filter(|level| !level.is_empty());
        cpu::Options { level: level.map(str::to_string), threads: None }
    }

    fn options(&self) -> backend::Options {
        let cache = cache_folder();
        let (matrices, activations) = (self.matrices, self.activations);
        let wgpu = gpu::Options { matrices, activations, cache, ..gpu::Options::default() };
        backend::Options { wgpu, cpu: self.cpu_options() }
    }

    /// Opens the device that was asked for.
    fn open(&self) -> backend::Result<Device> {
        backend::open(&self.selection(), &self.options())
    }

    /// [`Global::open`] for a picture that is made again: it rounds as it did then, where the command
    /// line leaves that open and the adapter can.
    fn open_like(&self, made: Option<Rounding>) -> backend::Result<Device> {
        let Some(made) = made else { return self.open() };
        let mut options = self.options();
        if self.matrices == gpu::MatrixUse::Auto {
            let matrices = if made.factors { gpu::MatrixUse::On } else { gpu::MatrixUse::Off };
            options.wgpu.matrices = matrices;
        }
        if self.activations == gpu::ActivationUse::Auto {
            use gpu::ActivationUse::{F16, F32};
            options.wgpu.activations = if made.activations { F16 } else { F32 };
            match backend::open(&self.selection(), &options) {
                // Maybe it has no f16.
                Err(_) if made.activations => {
                    options.wgpu.activations = gpu::ActivationUse::Auto;
                }
                opened => return opened,
            }
        }
        backend::open(&self.selection(), &options)
    }

    /// The device that was asked for, another time, as one of `share` that work side by side.
    fn open_one_of(&self, share: usize) -> backend::Result<Device> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Some((cores / share.max(1)).max(1));
        let cpu = cpu::Options { threads, ..self.cpu_options() };
        backend::open(&self.selection(), &backend::Options { cpu, ..self.options() })
    }
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<generate::Arguments>),
    Fuse(Box<fuse::Arguments>),
    Eval(Box<eval::Arguments>),
    Train(Box<train::Arguments>),
    Inspect(inspect::Arguments),
    Convert(convert::Arguments),
    Serve(Box<serve::Arguments>),
    Devices(devices::Arguments),
    Demo(demo::Arguments),
    /// Measure how fast this machine runs kernels and models
    Bench(bench::Bench),
    /// Check, measure and tune kernels in WGSL, your own and this program's
    ///
    /// A kernel is a file that says in lines such as `//% kind matmul` what it computes and how many
    /// workgroups it takes; begin with `mos kernel check FILE`. From an empty file to a fast matmul:
    /// docs/writing-kernels.md; all that such lines may say: docs/kernels.md.
    Kernel(kernel::Kernel),
    Completions(manual::Completions),
    Man(manual::Manual),
}

/// How a command fails.
enum Failure {
    /// Exit code 1; 2 where the error says that it was wrong usage.
    Failed(Box<dyn std::error::Error>),
    /// Exit code 2: the arguments contradict each other in a way that the parser cannot see.
    Usage(String),
    /// Exit code 130: the user asked to stop, and was told what is saved.
    Stopped,
    /// Nobody reads our output any more (`mos devices | head -1`): nothing is wrong.
    Unread,
}

type Result<T> = std::result::Result<T, Failure>;

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(Box::new(error))
    }
}

/// Parses the arguments, runs the command, prints what went wrong.
pub fn main() -> ExitCode {
    without_a_desktop();
    let mut command = Cli::command();
    let arguments = usage::plain_help(std::env::args_os().collect());
    let arguments = usage::with_hyphens(&command, arguments);
    if arguments.len() < 2 {
        // The parser shows it only where the environment gives no option.
        let help = command.render_help();
        match Terminal::new(false, false).colours() {
            true => eprint!("{}", help.ansi()),
            false => eprint!("{help}"),
        }
        return ExitCode::from(2);
    }
    let has_prompt = arguments.iter().any(|argument| argument == "generate");
    let matches = command
        .try_get_matches_from_mut(arguments)
        .unwrap_or_else(|error| usage::with_advice(error, has_prompt).exit());
    let cli =
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    let terminal = Terminal::new(cli.global.quiet, cli.global.verbose);
    if let Some(message) = usage::misplaced_stream(&command, &matches) {
        terminal.error_line(&message);
        return ExitCode::from(2);
    }
    if let Err(error) = tell_of_replaced_kernels(&cli.command, &terminal) {
        terminal.error(&error);
        return ExitCode::from(2);
    }
    let done = match &cli.command {
        Command::Generate(arguments) => generate::run(arguments, &cli.global, &terminal),
        Command::Fuse(arguments) => fuse::run(arguments, &cli.global, &terminal),
        Command::Eval(arguments) => eval::run(arguments, &cli.global, &terminal),
        Command::Train(arguments) => train::run(arguments, &cli.global, &terminal),
        Command::Convert(arguments) => convert::run(arguments, &terminal),
        Command::Inspect(arguments) => inspect::run(arguments, &terminal),
        Command::Serve(arguments) => serve::run(arguments, &cli.global, &terminal),
        Command::Bench(bench) => bench::run(bench, &cli.global, &terminal),
        Command::Kernel(kernel) => kernel::run(kernel, &cli.global, &terminal),
        Command::Demo(arguments) => demo::run(arguments, &cli.global, &terminal),
        Command::Devices(arguments) => devices::run(arguments, &cli.global, &terminal),
        Command::Completions(arguments) => manual::completions(arguments, &terminal),
        Command::Man(arguments) => manual::manual(arguments, &terminal),
    };
    match done {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Stopped) => ExitCode::from(interrupt::EXIT_CODE),
        Err(Failure::Failed(error)) if interrupt::is_cancelled(&*error) => {
            terminal.note("stopped");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(Failure::Failed(error)) => {
            terminal.error(&*error);
            ExitCode::from(if usage::is_wrong_usage(&*error) { 2 } else { 1 })
        }
        Err(Failure::Usage(message)) => {
            terminal.error_line(&message);
            ExitCode::from(2)
        }
    }
}

/// Results of kernels that are not this program's own are not this program's either.
fn tell_of_replaced_kernels(command: &Command, terminal: &Terminal) -> gpu::Result<()> {
    let computes = matches!(
        command,
        Command::Generate(_)
            | Command::Train(_)
            | Command::Fuse(_)
            | Command::Bench(_)
            | Command::Demo(_)
    );
    if !computes {
        return Ok(());
    }
    let variable = gpu::KERNELS_VARIABLE;
    let unknown = gpu::unknown_kernels()?;
    if !unknown.is_empty() {
        terminal.warning(format!(
            "{variable}: no kernel is called so, and these files are not read: {}",
            unknown.join(", ")
        ));
    }
    let replaced = gpu::replaced_kernels()?;
    if !replaced.is_empty() {
        let names: Vec<&str> = replaced.iter().map(|kernel| kernel.name.as_str()).collect();
        let names = names.join(", ");
        terminal.warning(format!(
            "{variable} replaces kernels of this program on graphics adapters: {names}"
        ));
    }
    Ok(())
}

/// Mesa's layer that asks the desktop for its favourite adapter complains on standard error where
/// there is no desktop.
fn without_a_desktop() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
