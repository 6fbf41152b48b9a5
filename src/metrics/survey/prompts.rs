//! The prompts of a survey: as the method's authors ask (5 that put a concept elsewhere, 5 in
//! another style, 5 with somebody else, 5 that change a property), for people, animals, objects and
//! places, in words that small models know and in all words; or a list of the user's own.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::concept::PLACEHOLDER;
use crate::file_kind::text_of;

const KNOWN: &str = include_str!("known_prompts.txt");
const GENERAL: &str = include_str!("general_prompts.txt");

/// What a concept is: each asks for other prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Persons and the like.
    People,
    /// Animals.
    Animals,
    /// Things.
    Objects,
    /// What is around everything else.
    Places,
}

/// Class words that tell; all others are of objects.
const WORDS: [(Class, &[&str]); 3] = [
    (
        Class::People,
        &[
            "man",
            "woman",
            "person",
            "boy",
            "girl",
            "baby",
            "child",
            "robot",
            "character",
            "actor",
            "actress",
            "guy",
            "lady",
            "human",
            "people",
            "face",
            "singer",
            "wizard",
            "princess",
        ],
    ),
    (
        Class::Animals,
        &[
            "cat", "dog", "rabbit", "bird", "animal", "horse", "bear", "fox", "wolf", "tortoise",
            "turtle", "fish", "cow", "sheep", "pet", "monkey", "lion", "tiger", "elephant", "duck",
        ],
    ),
    (
        Class::Places,
        &[
            "place",
            "land",
            "landscape",
            "scene",
            "room",
            "garden",
            "forest",
            "castle",
            "city",
            "street",
            "beach",
            "mountain",
            "mountains",
            "village",
            "rock",
            "pyramid",
            "bridge",
        ],
    ),
];

impl Class {
    /// All of them.
    pub const ALL: [Class; 4] = [Class::People, Class::Animals, Class::Objects, Class::Places];

    /// As lists and files call it.
    pub fn name(self) -> &'static str {
        match self {
            Class::People => "people",
            Class::Animals => "animals",
            Class::Objects => "objects",
            Class::Places => "places",
        }
    }

    /// What a concept of this class word is.
    pub fn of(class_word: &str) -> Class {
        let word = class_word.to_lowercase();
        let has = |(_, words): &&(Class, &[&str])| words.contains(&word.as_str());
        WORDS.iter().find(has).map_or(Class::Objects, |(class, _)| *class)
    }
}

impl std::str::FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Class::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| format!("`{name}`: expected people, animals, objects or places"))
    }
}

/// One prompt, with [`PLACEHOLDER`] where the concept's words go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// What it asks of the concept: `recontext`.
    pub kind: String,
    /// What is to be seen.
    pub text: String,
}

/// Prompts by what a concept is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptList {
    sections: Vec<(Option<Class>, Prompt)>,
}

impl PromptList {
    /// In words of the small model that ships with the program.
    pub fn known() -> PromptList {
        PromptList::parse(KNOWN).unwrap_or(PromptList { sections: Vec::new() })
    }

    /// In all words.
    pub fn general() -> PromptList {
        PromptList::parse(GENERAL).unwrap_or(PromptList { sections: Vec::new() })
    }

    /// Reads a list of the user's own: a prompt a line with `<TOK>` or `{}` for the concept's words,
    /// comments after `#`; `[people]`, `[animals]`, `[objects]` or `[places]` before those that hold
    /// for such concepts only, `[any]` before those that hold for all; any other name in brackets
    /// is the kind of those that follow.
    ///
    /// # Errors
    /// A file that cannot be read; a line without a place for the words; no prompt at all.
    pub fn read(path: &Path, bytes: Vec<u8>) -> Result<PromptList> {
        let bad = |problem: String| Error::Prompts { path: path.to_path_buf(), problem };
        let text = text_of(bytes, "prompts, one a line").map_err(|e| bad(e.to_string()))?;
        let list = PromptList::parse(&text).map_err(bad)?;
        if list.sections.is_empty() {
            let problem = "there are no prompts in it: one a line, with <TOK> for the concept's \
                words";
            return Err(bad(problem.into()));
        }
        Ok(list)
    }

    fn parse(text: &str) -> Result<PromptList, String> {
        let (mut class, mut kind) = (None, "prompts".to_string());
        let mut sections = Vec::new();
        let mut lines: BTreeMap<String, Vec<(Option<Class>, usize)>> = BTreeMap::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let named = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            match named.map(str::trim) {
                Some("any") => class = None,
                Some(name) => match name.parse::<Class>() {
                    Ok(found) => class = Some(found),
                    Err(_) if is_name(name) => kind = name.to_string(),
                    Err(_) => {
                        return Err(format!(
                            "line {}: [{name}] is no name of letters, digits and hyphens",
                            number + 1
                        ));
                    }
                },
                None => {
                    let text = line.replace("{}", PLACEHOLDER);
                    if !text.contains(PLACEHOLDER) {
                        return Err(format!(
                            "line {}: \"{line}\" has no {PLACEHOLDER} for the concept's words",
                            number + 1
                        ));
                    }
                    // From the same seeds it would be the same pictures, counted twice.
                    let others = lines.entry(text.clone()).or_default();
                    let meets = |other: &&(Option<Class>, usize)| {
                        other.0.is_none() || class.is_none() || other.0 == class
                    };
                    if let Some((_, first)) = others.iter().find(meets) {
                        return Err(format!(
                            "line {}: \"{line}\" stands in line {first} already: its pictures \
                                would be the same (more of each prompt: --count)",
                            number + 1
                        ));
                    }
                    others.push((class, number + 1));
                    sections.push((class, Prompt { kind: kind.clone(), text }));
                }
            }
        }
        Ok(PromptList { sections })
    }

    /// Those that hold for such a concept.
    pub fn of(&self, class: Class) -> Vec<Prompt> {
        let holds = |(own, _): &&(Option<Class>, Prompt)| own.is_none_or(|own| own == class);
        self.sections.iter().filter(holds).map(|(_, prompt)| prompt.clone()).collect()
    }
}

/// Whether it can be a part of a file's name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

/// A prompt with `words` in the placeholder's place, and the article before them that they ask for.
pub(super) fn filled(text: &str, words: &str) -> String {
    let vowel = words.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    let text = match vowel {
        true => format!(" {text}").replace(&format!(" a {PLACEHOLDER}"), " an <TOK>"),
        false => text.to_string(),
    };
    crate::concept::with_words(&text, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::KnownWords;

    #[test]
    fn both_lists_have_five_prompts_of_four_kinds_for_each_class() {
        for list in [PromptList::known(), PromptList::general()] {
            for class in Class::ALL {
                let prompts = list.of(class);
                let mut texts: Vec<&str> = prompts.iter().map(|p| p.text.as_str()).collect();
                for kind in ["recontext", "restyle", "interaction", "property"] {
                    let count = prompts.iter().filter(|prompt| prompt.kind == kind).count();
                    assert_eq!(count, 5, "{kind} of {}", class.name());
                }
                texts.sort();
                texts.dedup();
                assert_eq!(texts.len(), 20, "{}", class.name());
            }
        }
    }

    #[cfg(feature = "tiny-model")]
    #[test]
    fn the_model_that_ships_knows_its_list() {
        let known = include_str!("../../../models/tiny/known_words.txt");
        let known = KnownWords::parse(known);
        for class in Class::ALL {
            for prompt in PromptList::known().of(class) {
                let unknown =
                    known.unknown_words(&filled(&prompt.text, "<a1> <a2>"), ["<a1> <a2>"]);
                assert!(unknown.is_empty(), "{}: {unknown:?}", prompt.text);
            }
        }
    }

    #[test]
    fn own_lists_are_read_and_what_is_wrong_is_told() {
        let read = |text: &str| PromptList::read(Path::new("my.txt"), text.as_bytes().to_vec());
        let list =
            read("\u{feff}# mine\na {} here\n[places]\n[light]\n<TOK> at sunset\n[any]\n{} too\n");
        let list = list.unwrap();
        let of = |class| list.of(class).into_iter().map(|p| (p.kind, p.text)).collect::<Vec<_>>();
        let pair = |kind: &str, text: &str| (kind.to_string(), text.to_string());
        let first = pair("prompts", "a <TOK> here");
        let last = pair("light", "<TOK> too");
        assert_eq!(of(Class::People), [first.clone(), last.clone()]);
        assert_eq!(of(Class::Places), [first, pair("light", "<TOK> at sunset"), last]);
        for (text, said) in [
            ("", "no prompts"),
            ("# only a remark\n", "no prompts"),
            ("a man", "line 1: \"a man\" has no <TOK>"),
            ("[a/b]\n", "[a/b]"),
            ("a {}\n\na <TOK>\n", "line 3: \"a <TOK>\" stands in line 1 already"),
            ("[animals]\na {}\n[any]\na {}\n", "line 4"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("my.txt: ") && error.contains(said), "{error}");
        }
        assert!(read("[animals]\na {}\n[people]\na {}\n").is_ok());
    }

    #[test]
    fn words_take_their_article_along() {
        assert_eq!(filled("a photo of a <TOK> here", "animal"), "a photo of an animal here");
        assert_eq!(filled("a <TOK>", "<a1> <a2>"), "a <a1> <a2>");
        assert_eq!(filled("a cat in <TOK>", "a place"), "a cat in a place");
        assert_eq!(Class::of("Woman"), Class::People);
        assert_eq!(Class::of("vase"), Class::Objects);
    }
}
