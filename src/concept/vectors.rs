//! Embeddings of several vectors: `<a>`, `<a>_1`, `<a>_2` of one concept are one word in a prompt.

use super::{Concept, Error, Result, Word};

impl Concept {
    /// The word itself and its further vectors, in order; none where the concept lacks it. Case is
    /// no matter, as in prompts.
    pub fn vectors(&self, text: &str) -> Vec<&Word> {
        let find = |text: String| self.words.iter().find(|word| word.text.to_lowercase() == text);
        let text = text.to_lowercase();
        let further = (1..).map_while(|i| find(format!("{text}_{i}")));
        find(text.clone())
            .into_iter()
            .flat_map(|first| [first].into_iter().chain(further.clone()))
            .collect()
    }

    /// The words that stand in prompts, each with its vectors.
    pub fn spoken(&self) -> Vec<Vec<&Word>> {
        let all: Vec<Vec<&Word>> = self.words.iter().map(|word| self.vectors(&word.text)).collect();
        let is_further = |word: &Word| {
            all.iter().any(|vectors| vectors.iter().skip(1).any(|other| other.text == word.text))
        };
        all.iter()
            .filter(|vectors| vectors.first().is_some_and(|w| !is_further(w)))
            .cloned()
            .collect()
    }

    /// Gives a word another name, with all of its vectors.
    ///
    /// # Errors
    /// No such word; a further vector of another word; a name that is taken, or that no word can
    /// have.
    pub fn rename(&mut self, word: &str, new: &str) -> Result<()> {
        let fail = |problem: String| Error::Rename {
            concept: self.name.clone(),
            word: word.to_string(),
            new: new.to_string(),
            problem,
        };
        let old: Vec<String> = self.vectors(word).iter().map(|word| word.text.clone()).collect();
        let spoken = self.spoken();
        if old.is_empty() {
            let known: Vec<&str> =
                spoken.iter().flat_map(|v| v.first()).map(|w| &*w.text).collect();
            return Err(fail(match known.is_empty() {
                true => "it has no words".to_string(),
                false => format!("it has the words {}", known.join(", ")),
            }));
        }
        let owner = spoken
            .iter()
            .find(|vectors| vectors.iter().skip(1).any(|vector| old.first() == Some(&vector.text)));
        if let Some(first) = owner.and_then(|vectors| vectors.first()) {
            let first = &first.text;
            return Err(fail(format!("that is a vector of the word {first}: rename {first}")));
        }
        if new.is_empty() || new.contains(char::is_whitespace) {
            return Err(fail("a word has at least one character and no white space".into()));
        }
        // One behind the last: it would become a vector of this word.
        let taken = (0..=old.len()).map(|i| numbered(new, i).to_lowercase()).find(|name| {
            let others = self.words.iter().filter(|other| !old.contains(&other.text));
            others.into_iter().any(|other| other.text.to_lowercase() == *name)
        });
        if let Some(taken) = taken {
            return Err(fail(format!("it has a word {taken} already")));
        }
        for word in &mut self.words {
            if let Some(i) = old.iter().position(|text| *text == word.text) {
                word.text = numbered(new, i);
            }
        }
        Ok(())
    }
}

fn numbered(text: &str, vector: usize) -> String {
    if vector == 0 { text.to_string() } else { format!("{text}_{vector}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Array;

    fn concept(words: &[&str]) -> Concept {
        let word = |text: &&str| Word::new(*text, Array::f32([1, 2], vec![0.0; 2]));
        Concept { name: "c".into(), words: words.iter().map(word).collect(), ..Concept::default() }
    }

    fn renamed(words: &[&str], word: &str, new: &str) -> Result<Vec<String>, String> {
        let mut concept = concept(words);
        concept.rename(word, new).map_err(|e| e.to_string())?;
        Ok(concept.words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn all_vectors_of_a_word_get_the_new_name() {
        let all = ["1girl (final)", "1girl (final)_1", "1girl (final)_2", "<b>"];
        let new = ["<g>", "<g>_1", "<g>_2", "<b>"].map(String::from).to_vec();
        assert_eq!(renamed(&all, "1girl (final)", "<g>"), Ok(new.clone()));
        assert_eq!(renamed(&all, "1GIRL (Final)", "<g>"), Ok(new));
        // Another spelling of its own name, and order is no matter.
        let order = renamed(&["Ink_1", "Ink", "Ink_3"], "ink", "ink").unwrap();
        assert_eq!(order, ["ink_1", "ink", "Ink_3"]);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let all = ["a", "a_1", "b", "c_2"];
        for (word, new, says) in [
            ("x", "<y>", "the words a, b, c_2"),
            ("a_1", "<y>", "rename a"),
            ("a", "b", "a word b already"),
            ("a", "B", "a word b already"),
            ("a", "c", "a word c_2 already"),
            ("b", "two words", "white space"),
        ] {
            let error = renamed(&all, word, new).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(renamed(&[], "a", "b").unwrap_err().contains("no words"));
    }

    #[test]
    fn words_stand_with_their_vectors() {
        let concept = concept(&["a", "b", "a_2", "a_1", "b_2"]);
        let texts = |vectors: &Vec<&Word>| {
            vectors.iter().map(|word| word.text.clone()).collect::<Vec<_>>().join(" ")
        };
        let spoken: Vec<String> = concept.spoken().iter().map(texts).collect();
        assert_eq!(spoken, ["a a_1 a_2", "b", "b_2"]);
    }
}
