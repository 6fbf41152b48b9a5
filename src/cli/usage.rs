//! What holds for the options of every command: values that begin with a hyphen, standard input and
//! output, and which errors are wrong usage.
use std::error::Error;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ArgMatches;
use clap::{Arg, Command};
use mixofshow::backend::{self, cpu};
use mixofshow::pipeline;
use mixofshow::pipeline::{ModelError, text};
use mixofshow::scheduler::config::ScheduleError;
use mixofshow::training::{self, config};
use mixofshow::{concept, fusion, region, workbench};

/// For standard input or output, where one can be used.
pub const STANDARD: &str = "-";

/// What such values are: paths of files and folders.
const PATHS: [&str; 7] = ["PATH", "FILE", "FOLDER", "PICTURE", "PNG", "MODEL", "FROM"];

/// Options that read standard input or write to standard output, by command.
const STREAMS: [(&str, &str); 3] = [("generate", "output"), ("fuse", "prompts"), ("fuse", "keep")];

/// Gives every option that takes a value the next argument, also where that begins with a hyphen,
/// unless it is itself an option. What it means, or that it is out of range, is for the option to
/// say.
pub fn with_hyphens(root: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = root;
    let mut all = arguments.into_iter().peekable();
    let mut joined: Vec<OsString> = all.next().into_iter().collect();
    while let Some(argument) = all.next() {
        let text = argument.to_str().unwrap_or_default();
        if text == "--" {
            joined.push(argument);
            break;
        }
        if let Some(inner) = command.find_subcommand(text) {
            command = inner;
        }
        let wants_value = wants_value([root, command], text);
        joined.push(argument);
        if !wants_value {
            continue;
        }
        let value = all.next_if(|next| !is_option([root, command], next));
        match (value, joined.last_mut()) {
            (Some(value), Some(option)) if begins_with_hyphen(&value) => {
                option.push("=");
                option.push(value);
            }
            (value, _) => joined.extend(value),
        }
    }
    joined.extend(all);
    joined
}

/// `mos help COMMAND --help` is `mos help COMMAND`, and `mos help help` is `mos help`.
pub fn plain_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|first| first == "help") {
        let is_help = |argument: &OsString| ["--help", "-h", "help"].iter().any(|h| argument == h);
        let mut at = 0;
        arguments.retain(|argument| {
            at += 1;
            at <= 2 || !is_help(argument)
        });
    }
    arguments
}

/// Tells of quotes where a word stands alone that is no option: it may belong to a prompt.
pub fn with_advice(mut error: clap::Error, has_prompt: bool) -> clap::Error {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => word.clone(),
        _ => return error,
    };
    if has_prompt && error.kind() == ErrorKind::UnknownArgument {
        let tip = format!("a prompt stands in quotes, after its option: -p \"... {word} ...\"");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn begins_with_hyphen(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

/// Whether the argument is an option, or several short ones, whose value must follow it.
fn wants_value(commands: [&Command; 2], argument: &str) -> bool {
    if let Some(long) = argument.strip_prefix("--") {
        return find(commands, |arg| is_long(arg, long)).is_some_and(takes_a_value);
    }
    let shorts = argument.strip_prefix('-').unwrap_or_default();
    for (at, short) in shorts.char_indices() {
        let Some(arg) = find(commands, |arg| arg.get_short() == Some(short)) else { return false };
        if takes_a_value(arg) {
            return at + short.len_utf8() == shorts.len();
        }
    }
    false
}

/// Whether the argument is one of the commands' options, with or without its value. What follows a
/// single hyphen may well be text.
fn is_option(commands: [&Command; 2], argument: &OsStr) -> bool {
    let Some(argument) = argument.to_str() else { return false };
    if let Some(long) = argument.strip_prefix("--") {
        let long = long.split_once('=').map_or(long, |(long, _)| long);
        return long.is_empty() || find(commands, |arg| is_long(arg, long)).is_some();
    }
    let mut rest = argument.chars();
    let short = (rest.next() == Some('-')).then(|| rest.next()).flatten();
    short.is_some_and(|short| {
        rest.next().is_none() && find(commands, |arg| arg.get_short() == Some(short)).is_some()
    })
}

fn find(commands: [&Command; 2], is: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    commands.into_iter().flat_map(Command::get_arguments).find(|arg| is(arg))
}

fn is_long(arg: &Arg, long: &str) -> bool {
    arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
}

fn takes_a_value(arg: &Arg) -> bool {
    let may_be_alone = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    arg.get_action().takes_values() && !may_be_alone
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
        use region::Error::{File, Published, Text, TooMany, Unknown, Value};
        return matches!(
            error,
            Text { .. }
                | Published { .. }
                | File { .. }
                | Value { .. }
                | TooMany(_)
                | Unknown { .. }
        );
    }
    if let Some(error) = error.downcast_ref::<backend::Error>() {
        return match error {
            backend::Error::NoMatch { .. } => true,
            backend::Error::Cpu(error) => is_wrong_usage(error),
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<workbench::Error>() {
        return match error {
            workbench::Error::Unknown { .. } => true,
            workbench::Error::Device(error) => is_wrong_usage(error),
            _ => false,
        };
    }
    matches!(
        error.downcast_ref(),
        Some(cpu::Error::UnknownLevel { .. } | cpu::Error::MissingLevel { .. })
    ) || matches!(
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

    fn matches<'a>(line: impl IntoIterator<Item = &'a str>) -> clap::error::Result<ArgMatches> {
        let arguments = line.into_iter().map(OsString::from).collect();
        Cli::command().try_get_matches_from(with_hyphens(&Cli::command(), arguments))
    }

    /// Every option of every command that takes a value, and the command line up to it.
    fn options_with_values() -> Vec<(Vec<String>, Arg)> {
        fn within(command: &Command, path: &[String], found: &mut Vec<(Vec<String>, Arg)>) {
            let path: Vec<String> =
                path.iter().cloned().chain([command.get_name().to_string()]).collect();
            for arg in command.get_arguments().filter(|arg| takes_a_value(arg)) {
                let short = arg.get_short().map(|short| format!("-{short}"));
                let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
                for name in longs.iter().map(|long| format!("--{long}")).chain(short) {
                    found.push((path.iter().cloned().chain([name]).collect(), arg.clone()));
                }
            }
            for inner in command.get_subcommands() {
                within(inner, &path, found);
            }
        }
        let mut found = Vec::new();
        within(&Cli::command(), &[], &mut found);
        found
    }

    #[test]
    fn every_option_takes_a_value_with_a_hyphen_or_says_what_it_expects() {
        use ErrorKind::{InvalidSubcommand, InvalidValue, ValueValidation};
        let all = options_with_values();
        assert!(all.len() > 150, "{}", all.len());
        for (line, arg) in all {
            for value in ["-1 cat", "-foo", "-3", "-0.5", "-x,1", "--unheard-of", "-1,0,1,1: a"] {
                let line: Vec<&str> = line.iter().map(String::as_str).chain([value]).collect();
                let Err(error) = matches(line.iter().copied()) else { continue };
                let text = error.to_string();
                let long = arg.get_long().unwrap_or_default();
                match error.kind() {
                    InvalidValue | ValueValidation => {
                        assert!(text.contains(&format!("--{long}")), "{line:?}: {text}");
                        let vague = ["invalid digit", "invalid float", "unexpected argument"];
                        assert!(!vague.iter().any(|v| text.contains(v)), "{line:?}: {text}");
                    }
                    ErrorKind::UnknownArgument | InvalidSubcommand => {
                        panic!("{line:?}: {text}")
                    }
                    // Something else is missing.
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn options_are_no_values_and_values_stay_whole() {
        let joined = |line: &[&str]| {
            let line = line.iter().map(OsString::from).collect();
            let joined = with_hyphens(&Cli::command(), line);
            joined.into_iter().map(|text| text.into_string().unwrap()).collect::<Vec<_>>().join("|")
        };
        for (line, expected) in [
            (&["mos", "generate", "-p", "-1 cat"][..], "mos|generate|-p=-1 cat"),
            (&["mos", "generate", "-qp", "--foo"], "mos|generate|-qp=--foo"),
            (&["mos", "generate", "-p", "--seed", "3"], "mos|generate|-p|--seed|3"),
            (&["mos", "generate", "-p", "--seed=3"], "mos|generate|-p|--seed=3"),
            (&["mos", "generate", "-p", "-o", "x"], "mos|generate|-p|-o|x"),
            (&["mos", "generate", "-p", "-old man"], "mos|generate|-p=-old man"),
            (&["mos", "generate", "--negative-prompt", "-a"], "mos|generate|--negative-prompt=-a"),
            (&["mos", "generate", "-p", "-", "-o", "-"], "mos|generate|-p=-|-o=-"),
            (&["mos", "generate", "-p", "train", "-n", "-x"], "mos|generate|-p|train|-n=-x"),
            (&["mos", "generate", "-pcat", "-g", "-5"], "mos|generate|-pcat|-g=-5"),
            (&["mos", "generate", "--long-prompt", "-q"], "mos|generate|--long-prompt|-q"),
            (&["mos", "--adapter", "-1", "devices"], "mos|--adapter=-1|devices"),
            (&["mos", "devices", "--adapter", "-1"], "mos|devices|--adapter=-1"),
            (&["mos", "inspect", "--", "-p", "-x"], "mos|inspect|--|-p|-x"),
        ] {
            assert_eq!(joined(line), expected);
        }
    }

    #[test]
    fn streams_are_told_where_they_have_no_place() {
        let said = |line: &str| {
            let command = Cli::command();
            let matches = matches(line.split(' ')).unwrap();
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
            ("mos convert a -", "FILES -"),
            ("mos convert - a", "FILES -"),
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
