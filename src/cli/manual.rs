//! `mos completions` and `mos man`: what shells and `man` are told of this program.
use std::io;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use mixofshow::backend::Precision;
use mixofshow::concept::dialects::Dialect;
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::scheduler::spacing::Schedule;

use super::terminal::Terminal;
use super::{Cli, Failure, Result, files};

const EXAMPLES: &str = "\
Examples:
  mos completions bash > ~/.local/share/bash-completion/completions/mos
  mos completions zsh > ~/.zfunc/_mos
  mos completions fish > ~/.config/fish/completions/mos.fish
  mos completions powershell >> $PROFILE";

/// Print what lets a shell complete commands and options
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

/// Write manual pages into a folder: mos.1, and one for each command
#[derive(clap::Args)]
pub struct Manual {
    /// Such as ~/.local/share/man/man1; pages of those names are replaced
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn completions(arguments: &Completions, terminal: &Terminal) -> Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command().mut_subcommands(with_values);
    clap_complete::generate(arguments.shell, &mut command, "mos", &mut script);
    terminal.print(String::from_utf8_lossy(&script).trim_end())
}

pub fn manual(arguments: &Manual, terminal: &Terminal) -> Result<()> {
    let folder = &arguments.folder;
    files::check_folder(folder)?;
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    pages(&command, &mut found)
        .map_err(|error| Failure::Failed(format!("the pages cannot be made: {error}").into()))?;
    // All of them, although nobody may read their names.
    let mut written = Vec::with_capacity(found.len());
    for (name, page) in found {
        let file = folder.join(name);
        files::make_folder_of(&file)?;
        files::write(&file, &page)?;
        written.push(file);
    }
    written.iter().try_for_each(|file| terminal.print_path(file))
}

/// The command with the names that its options take, for a shell to offer: the options themselves
/// take other spellings as well.
fn with_values(command: Command) -> Command {
    let is_convert = command.get_name() == "convert";
    let command = command.mut_args(|arg| {
        let names: Vec<&'static str> = match arg.get_id().as_str() {
            "sampler" => SamplerKind::ALL.map(SamplerKind::name).to_vec(),
            "schedule" => Schedule::ALL.map(Schedule::name).to_vec(),
            "precision" => Precision::ALL.map(Precision::name).to_vec(),
            "rng" => vec!["torch", "philox"],
            "to" if is_convert => Dialect::WRITTEN.map(Dialect::name).to_vec(),
            "prompt_syntax" | "matrices" => vec!["auto", "on", "off"],
            _ => return arg,
        };
        // Values that were right for the type before are none of the names' type.
        let default: Vec<_> = arg.get_default_values().to_vec();
        arg.value_parser(PossibleValuesParser::new(names)).default_values(default)
    });
    command.mut_subcommands(with_values)
}

/// A page with the line of use that help shows: with values, and without the options of all
/// commands.
fn with_usage(page: &[u8], usage: &str) -> Vec<u8> {
    const FROM: &str = ".SH SYNOPSIS\n";
    let page = String::from_utf8_lossy(page).into_owned();
    let usage = usage.trim().trim_start_matches("Usage:").trim();
    let escaped = usage.replace('\\', "\\\\").replace('-', "\\-");
    let lines: Vec<&str> = escaped.lines().map(str::trim).collect();
    let Some((before, after)) = page.split_once(FROM) else { return page.into_bytes() };
    let rest = after.find(".SH ").map_or("", |at| &after[at..]);
    format!("{before}{FROM}{}\n{rest}", lines.join("\n.br\n")).into_bytes()
}

/// The pages of a command and of those within it, by their files' names.
fn pages(command: &Command, found: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(&name).render(&mut page)?;
    let page = with_usage(&page, &command.clone().render_usage().to_string());
    found.push((format!("{name}.1"), page));
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help");
    inner.into_iter().try_for_each(|inner| pages(inner, found))
}
