//! What holds for the options of every command: negative numbers, standard input and output, and
//! which errors are wrong usage.
use std::error::Error;

use clap::parser::ArgMatches;
use clap::{Arg, Command};
use mixofshow::pipeline;
use mixofshow::pipeline::{ModelError, text};
use mixofshow::scheduler::config::ScheduleError;
use mixofshow::training::{self, config};
use mixofshow::{concept, fusion, region};

/// For standard input or output, where one can be used.
pub const STANDARD: &str = "-";

/// What such values are: paths of files and folders.
const PATHS: [&str; 7] = ["PATH", "FILE", "FOLDER", "PICTURE", "PNG", "MODEL", "FROM"];

/// Options that read standard input or write to standard output, by command.
const STREAMS: [(&str, &str); 3] = [("generate", "output"), ("fuse", "prompts"), ("fuse", "keep")];

/// Lets every option that takes a value take a negative number: that it is out of range, or means
/// something, is for the option to say.
pub fn with_negative_numbers(command: Command) -> Command {
    let arg = |arg: Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(arg).mut_subcommands(with_negative_numbers)
}

/// The first option that is given `-` for a file, where that is not read or written; in words for
/// the user.
pub fn misplaced_stream(command: &Command, matches: &ArgMatches) -> Option<String> {
    if let Some((name, matches)) = matches.subcommand() {
        return misplaced_stream(command.find_subcommand(name)?, matches);
    }
    let is_path = |arg: &Arg| {
        let name = arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or(arg.get_id().as_str().to_uppercase(), |name| {
                name.split(['[', ':']).next().unwrap_or(name).to_string()
            });
        PATHS.iter().any(|path| name == *path || name == "TO_FILE")
    };
    let given = |arg: &&Arg| {
        let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        values.into_iter().flatten().any(|value| value == STANDARD)
    };
    let reads = |arg: &Arg| STREAMS.contains(&(command.get_name(), arg.get_id().as_str()));
    let arg = command.get_arguments().find(|arg| is_path(arg) && !reads(arg) && given(arg))?;
    let option =
        arg.get_long().map_or(arg.get_id().as_str().to_uppercase(), |long| format!("--{long}"));
    Some(format!(
        "{option} {STANDARD}: {} does not use standard input or output for this; name a file or \
            folder (./{STANDARD} for one of that \
         name)",
        command.get_name()
    ))
}

/// Whether an error is about what was asked for, rather than about what happened.
pub fn is_wrong_usage(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<pipeline::Error>() {
        return match error {
            // Latents come from a file, which is as it is.
            pipeline::Error::Option { option, .. } => *option != "latents",
            pipeline::Error::Model(error) => is_wrong_usage(&**error),
            pipeline::Error::Region(error) => is_wrong_usage(error),
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return match error {
            ModelError::ClipSkip { .. } => true,
            ModelError::Schedule(error) => is_wrong_usage(error),
            ModelError::Text(error) => is_wrong_usage(error),
            ModelError::Concept(error) => is_wrong_usage(error),
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<training::Error>() {
        return matches!(error, training::Error::Config(config::Error::Settings(_)));
    }
    if let Some(error) = error.downcast_ref::<region::Error>() {
        use region::Error::{Published, Text, TooMany, Unknown, Value};
        return matches!(
            error,
            Text { .. } | Published { .. } | Value { .. } | TooMany(_) | Unknown { .. }
        );
    }
    matches!(
        error.downcast_ref(),
        Some(ScheduleError::Request(_) | ScheduleError::Unsupported { .. })
    ) || matches!(error.downcast_ref(), Some(config::Error::Settings(_)))
        || matches!(
            error.downcast_ref(),
            Some(fusion::Error::Option { option, .. }) if option.starts_with("--")
        )
        || matches!(error.downcast_ref(), Some(concept::Error::Scale { .. }))
        || matches!(error.downcast_ref(), Some(text::Error::Weight { .. }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The commands and their subcommands.
    fn all(command: &Command) -> Vec<&Command> {
        let inner = command.get_subcommands().flat_map(all);
        std::iter::once(command).chain(inner).collect()
    }

    #[test]
    fn a_short_option_means_the_same_in_every_command_and_is_there_in_all_that_have_the_long_one() {
        let root = Cli::command();
        let mut shorts: BTreeMap<char, String> = BTreeMap::new();
        let options = || {
            all(&root).into_iter().flat_map(|command| {
                command.get_arguments().map(move |arg| (command.get_name(), arg))
            })
        };
        for (command, arg) in options() {
            let (Some(short), Some(long)) = (arg.get_short(), arg.get_long()) else { continue };
            let known = shorts.entry(short).or_insert_with(|| long.to_string());
            assert_eq!(known, long, "-{short} of {command}");
        }
        let benches = root.find_subcommand("bench").unwrap();
        for (command, arg) in options() {
            // A bench's pictures are squares, and its side is no size.
            if benches.find_subcommand(command).is_some()
                && ["size", "batch"].contains(&arg.get_id().as_str())
            {
                continue;
            }
            let known = shorts.iter().find(|(_, long)| arg.get_long() == Some(long.as_str()));
            assert_eq!(
                arg.get_short(),
                known.map(|(short, _)| *short).or(arg.get_short()),
                "{command}: {:?}",
                arg.get_long()
            );
        }
    }

    #[test]
    fn streams_are_told_where_they_have_no_place() {
        let said = |line: &str| {
            let command = with_negative_numbers(Cli::command());
            let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
            misplaced_stream(&command, &matches)
        };
        for line in [
            "mos generate -p - -o -",
            "mos fuse --keep - -o x",
            "mos generate -p x -o ./-",
            "mos train --words -",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
        for (line, option) in [
            ("mos fuse -o -", "--output -"),
            ("mos train -o -", "--output -"),
            ("mos train -", "CONFIG -"),
            ("mos inspect -", "PATH -"),
            ("mos convert a -", "TO_FILE -"),
            ("mos convert - a", "FROM -"),
            ("mos generate -p x --layout -", "--layout -"),
            ("mos generate -p x --concept -", "--concept -"),
            ("mos generate -p x -m -", "--model -"),
            ("mos bench concepts - -o -", "FOLDERS -"),
        ] {
            let said = said(line).unwrap_or_default();
            assert!(said.starts_with(option), "{line}: {said}");
        }
    }
}
