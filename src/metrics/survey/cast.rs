//! Who is evaluated: concepts of files or of a fused model, with the pictures that they were trained
//! from.
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::item::{ONE_PROMPT, TOGETHER};
use super::{Class, ConceptSettings, Error, PromptList, Reference, Result, Subject};
use crate::checkpoint::{Checkpoint, adapter_files, base_hash_cache};
use crate::concept::{self, Applied, ScaledFile, dialects};
use crate::file_kind::read_text;
use crate::fusion::{ConceptReport, Previous};
use crate::picture::{Mask, Picture};
use crate::pipeline::recipe::{ConceptSource, Source, hex};
use crate::training::folder::pictures_in;

/// Whom a survey is of, as somebody asks for them.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Concepts' own files; none: those that a fused model knows.
    pub concepts: Vec<ScaledFile>,
    /// Concepts that were made for another base model are taken all the same.
    pub force_base: bool,
    /// Folders of the pictures that they were trained from, one for each.
    pub pictures: Vec<PathBuf>,
    /// What stands for them where texts are scored, in the order of `concepts`, or of the fused
    /// model, as far as it is given.
    pub class_words: Vec<String>,
    /// What they are, in the same order, as far as it is given.
    pub classes: Vec<Class>,
}

/// All concepts of a survey, checked.
#[derive(Clone, Debug)]
pub struct Cast {
    /// What the survey's settings say of them, in the order of their words.
    pub concepts: Vec<ConceptSettings>,
    /// In the same order.
    pub subjects: Vec<Subject>,
    /// What was left out or guessed while their files were read, in sentences for the user.
    pub notes: Vec<String>,
}

/// The order of concepts, in which neighbours are placed beside each other.
pub(super) const ORDER: &str = "concepts stand in the order of their words, as in fused models";

/// A concept, before it is known what it was trained from.
struct Named {
    name: String,
    phrase: String,
    words: Vec<String>,
    class_word: Option<String>,
    own: Option<(Applied, ConceptSource)>,
}

/// A folder's `concept.json`.
#[derive(Deserialize)]
struct About {
    words: Vec<String>,
    class_word: String,
}

/// A folder of pictures, and what it says of itself.
type Folder = (PathBuf, Option<About>);

impl Wanted {
    /// Reads all of it; `list` gives the prompts that each is asked for.
    ///
    /// # Errors
    /// Concepts that don't go with the model or have no words; folders that go with no concept;
    /// files that cannot be read.
    pub fn read(&self, checkpoint: &Checkpoint, list: &PromptList) -> Result<Cast> {
        let folders = self.pictures.iter().map(|folder| folder_of(folder));
        let folders = folders.collect::<Result<Vec<_>>>()?;
        if self.class_words.iter().any(|word| word.trim().is_empty()) {
            return Err(Error::Usage("--class-word: it is empty; expected one such as man".into()));
        }
        let mut notes = Vec::new();
        let mut named = match self.concepts.is_empty() {
            false => of_files(self, checkpoint, &mut notes)?,
            true => of_model(checkpoint, &folders)?,
        };
        for (given, what) in
            [(self.class_words.len(), "--class-word"), (self.classes.len(), "--class")]
        {
            if given > named.len() {
                let (count, has) = (given, named.len());
                return Err(Error::Usage(format!("{what}: {count} for {has} concepts")));
            }
        }
        let paired = pair(&named, folders)?;
        let mut order: Vec<usize> = (0..named.len()).collect();
        order.sort_by(|a, b| named[*a].phrase.cmp(&named[*b].phrase));
        let is_sorted = order.is_sorted();
        let (mut named, mut paired): (Vec<_>, Vec<_>) =
            (named.drain(..).map(Some).collect(), paired.into_iter().map(Some).collect());
        // Files and fused models in one order, or their scenes and seeds would be others.
        let sorted = order.iter().filter_map(|&i| Some((i, named[i].take()?, paired[i].take()?)));
        let (places, (mut named, paired)): (Vec<usize>, (Vec<Named>, Vec<Folder>)) =
            sorted.map(|(i, named, folder)| (i, (named, folder))).unzip();
        tell_apart(&mut named);
        if !is_sorted {
            let names: Vec<&str> = named.iter().map(|named| named.name.as_str()).collect();
            notes.push(format!("{ORDER}: {}", names.join(", ")));
        }
        let mut cast = Cast { concepts: Vec::new(), subjects: Vec::new(), notes };
        let all = places.into_iter().zip(named.into_iter().zip(paired));
        for (given, (named, (folder, about))) in all {
            let said = self.class_words.get(given).cloned();
            let class_word = said.or(about.map(|about| about.class_word)).or(named.class_word);
            let class_word = class_word.ok_or_else(|| {
                Error::Usage(format!(
                    "concept `{}`: neither its file nor a concept.json in {} tells its class word: \
                        --class-word WORD does",
                    named.name,
                    folder.display()
                ))
            })?;
            let class = self.classes.get(given).copied().unwrap_or(Class::of(&class_word));
            let prompts = list.of(class);
            if prompts.is_empty() {
                let problem = format!("the list has no prompts for {}", class.name());
                return Err(Error::Concept { concept: named.name, problem });
            }
            let (references, references_hash) = references(&named.name, &folder)?;
            let source = named.own.as_ref().map(|(_, source)| source);
            cast.concepts.push(ConceptSettings {
                name: named.name,
                phrase: named.phrase,
                class_word,
                class,
                file: source.map(|source| source.source.path.display().to_string()),
                file_hash: source.map(|source| source.source.sha256.clone()),
                scales: source.map_or([1.0, 1.0], |source| {
                    [source.scale, source.text_scale.unwrap_or(source.scale)]
                }),
                references: references.len(),
                references_hash,
                prompts,
            });
            cast.subjects.push(Subject { references, own: named.own });
        }
        Ok(cast)
    }
}

fn folder_of(folder: &Path) -> Result<Folder> {
    let path = folder.join("concept.json");
    if !path.exists() {
        return Ok((folder.to_path_buf(), None));
    }
    let text = read_text(&path, "JSON").map_err(|e| Error::file(&path, e.to_string()))?;
    let about = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    Ok((folder.to_path_buf(), Some(about)))
}

fn of_files(
    wanted: &Wanted,
    checkpoint: &Checkpoint,
    notes: &mut Vec<String>,
) -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for &ScaledFile { ref path, unet, text } in &wanted.concepts {
        for file in adapter_files(path)? {
            let (concept, told) = dialects::read(&file)?;
            notes.extend(told.iter().map(|note| format!("{}: {note}", file.display())));
            if concept.words.is_empty() {
                let problem = "it has no words of its own, by which a prompt could call it up";
                return Err(Error::file(&file, problem));
            }
            if !wanted.force_base {
                concept::check_base([&concept], checkpoint, base_hash_cache().as_deref())?;
            }
            let words: Vec<String> = concept.words.iter().map(|word| word.text.clone()).collect();
            let source = ConceptSource {
                source: Source::of(&file)?,
                scale: unet,
                text_scale: Some(text).filter(|text| *text != unet),
            };
            all.push(Named {
                name: concept.name.clone(),
                phrase: words.join(" "),
                words,
                class_word: concept.class_word().map(String::from),
                own: Some((Applied::scaled(concept, |network| source.scale_of(network))?, source)),
            });
        }
    }
    Ok(all)
}

/// Those of a fused model: as its note lists them, else as the folders do.
fn of_model(checkpoint: &Checkpoint, folders: &[Folder]) -> Result<Vec<Named>> {
    let nobody = || {
        Error::Usage(
            "there is nothing to evaluate: -c names concepts, or -m a model that knows some".into(),
        )
    };
    let words = checkpoint.concepts.as_ref().and_then(|words| words.as_object());
    let Some(words) = words.filter(|words| !words.is_empty()) else { return Err(nobody()) };
    if let Ok(previous) = Previous::open(&checkpoint.path) {
        let of = |concept: ConceptReport| Named {
            name: concept.name,
            phrase: concept.phrase,
            words: concept.words,
            class_word: None,
            own: None,
        };
        return Ok(previous.concepts.into_iter().map(of).collect());
    }
    let mut all = Vec::new();
    for (folder, about) in folders {
        let Some(about) = about else {
            return Err(Error::Usage(format!(
                "{}: no concept.json in it says which of the model's words are shown ({})",
                folder.display(),
                words.keys().cloned().collect::<Vec<_>>().join(", ")
            )));
        };
        if let Some(unknown) = about.words.iter().find(|word| !words.contains_key(*word)) {
            let problem = format!("the model does not know the word {unknown}");
            return Err(Error::file(folder, problem));
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (words, phrase) = (about.words.clone(), about.words.join(" "));
        all.push(Named { name, phrase, words, class_word: None, own: None });
    }
    if all.is_empty() { Err(nobody()) } else { Ok(all) }
}

/// Gives each concept its folder: the one that tells its words, else the next that tells none.
fn pair(named: &[Named], folders: Vec<Folder>) -> Result<Vec<Folder>> {
    let mut left: Vec<Option<Folder>> = folders.into_iter().map(Some).collect();
    let mut paired: Vec<Option<Folder>> = named.iter().map(|_| None).collect();
    for (named, slot) in named.iter().zip(&mut paired) {
        let tells = |folder: &&mut Option<Folder>| {
            let about = folder.as_ref().and_then(|(_, about)| about.as_ref());
            about.is_some_and(|about| about.words == named.words)
        };
        *slot = left.iter_mut().find(tells).and_then(Option::take);
    }
    let others: Vec<String> = left
        .iter()
        .flatten()
        .filter_map(|(folder, about)| {
            let words = about.as_ref()?.words.join(" ");
            Some(format!("{} has those of {words}", folder.display()))
        })
        .collect();
    let mut silent = left.iter_mut().filter(|f| matches!(f, Some((_, None))));
    for (named, slot) in named.iter().zip(&mut paired).filter(|(_, slot)| slot.is_none()) {
        *slot = silent.next().and_then(Option::take);
        if slot.is_none() {
            let of_others = others.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            let others = match of_others.is_empty() {
                true => String::new(),
                false => format!(" ({of_others})"),
            };
            return Err(Error::Usage(format!(
                "concept `{}`: there are no pictures of {} to compare with{others}: --pictures \
                    FOLDER names those that it was trained from, once for each concept",
                named.name, named.phrase
            )));
        }
    }
    if let Some((folder, about)) = left.into_iter().flatten().next() {
        let words = about.map_or("they are one too many".to_string(), |about| {
            let again = named.iter().any(|named| named.words == about.words);
            let why = if again { ", whose pictures another folder has" } else { "" };
            format!("its concept.json says {}{why}", about.words.join(" "))
        });
        return Err(Error::Usage(format!(
            "--pictures {}: there is no concept for them ({words})",
            folder.display()
        )));
    }
    Ok(paired.into_iter().flatten().collect())
}

/// Names that files can have, and no two alike.
fn tell_apart(named: &mut [Named]) {
    let plain = |name: &str| -> String {
        let keep = |c: char| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        let name: String = name.chars().map(keep).collect();
        let is_kind = [TOGETHER, ONE_PROMPT].contains(&name.as_str());
        if name.is_empty() || is_kind { format!("concept-{name}") } else { name }
    };
    for i in 0..named.len() {
        let base = plain(&named[i].name);
        let numbered = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        let mut free = numbered.filter(|name| named[..i].iter().all(|other| other.name != *name));
        named[i].name = free.next().unwrap_or(base);
    }
}

/// The pictures of a folder with their masks, and the hash of all of them.
fn references(concept: &str, folder: &Path) -> Result<(Vec<Reference>, String)> {
    let refuse = |problem: String| Error::Concept { concept: concept.to_string(), problem };
    let paths = pictures_in(folder).map_err(|e| refuse(format!("{}: {e}", folder.display())))?;
    let (mut references, mut sha) = (Vec::new(), Sha256::new());
    for path in &paths {
        sha.update(Source::of(path)?.sha256);
        let mask = path.file_stem().map(|stem| folder.join("mask").join(stem));
        let mask = mask.map(|mask| mask.with_extension("png")).filter(|mask| mask.exists());
        if let Some(mask) = &mask {
            sha.update(Source::of(mask)?.sha256);
        }
        let mask = mask.map(Mask::open).transpose()?;
        references.push(Reference { picture: Picture::open(path)?, mask });
    }
    if references.is_empty() {
        return Err(refuse(format!("{} has no pictures in it", folder.display())));
    }
    Ok((references, hex(&sha.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        let words = vec![format!("<{name}1>"), format!("<{name}2>")];
        Named { name: name.into(), phrase: words.join(" "), words, class_word: None, own: None }
    }

    #[test]
    fn folders_go_to_whose_words_they_tell_then_in_order() {
        let about = |name: &str| About { words: named(name).words, class_word: "man".into() };
        let folder = |name: &str, about| (PathBuf::from(name), about);
        let names = |paired: Vec<Folder>| {
            paired.into_iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        };
        let both = [named("a"), named("b")];
        let found = pair(&both, vec![folder("x", None), folder("y", Some(about("a")))]);
        assert_eq!(found.map(names).ok(), Some(vec!["y".to_string(), "x".to_string()]));
        let said = |folders| match pair(&both, folders) {
            Err(Error::Usage(said)) => said,
            _ => panic!("it was taken"),
        };
        assert!(said(vec![folder("x", None)]).contains("concept `b`"));
        let other = said(vec![folder("x", None), folder("y", None), folder("z", Some(about("c")))]);
        assert!(other.contains("z") && other.contains("<c1>"), "{other}");
    }

    #[test]
    fn names_are_made_for_files() {
        let mut all = [named("a/b"), named("a b"), named("together")];
        tell_apart(&mut all);
        assert_eq!(all.map(|n| n.name), ["a-b", "a-b-2", "concept-together"]);
    }
}
