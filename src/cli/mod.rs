//! The command line: one file per command, arguments in, printing out.

mod bench;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use mixofshow::gpu::{Gpu, Options, Selection};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    device: Device,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how fast this machine runs kernels and models
    Bench(bench::Bench),
}

/// Which device to compute on.
#[derive(Debug, Args)]
pub struct Device {
    /// Adapter to compute on: its number in `mos devices`, or a part of its name
    #[arg(long, global = true, env = "MOS_ADAPTER", value_name = "ADAPTER")]
    adapter: Option<String>,
}

impl Device {
    pub fn open(&self) -> Result<Arc<Gpu>, Box<dyn Error>> {
        let selection = self.adapter.clone().map_or(Selection::Best, Selection::Matching);
        Ok(Gpu::open(&Options { selection, ..Options::default() })?)
    }
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Bench(bench) => bench::run(bench, &cli.device),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
