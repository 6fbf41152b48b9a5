//! The words that a small model knows, if its folder says so: all others come out as something
//! else.
use std::collections::BTreeSet;

/// The file in a model's folder.
pub const KNOWN_WORDS_FILE: &str = "known_words.txt";

/// A model's list of words: lines such as `animals: cat dog`, and comments that begin with `#`.
/// Kinds in brackets, such as `(other): a the`, are known but not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownWords {
    words: BTreeSet<String>,
    /// For the user.
    told: Vec<String>,
}

impl KnownWords {
    /// Reads a list; a line without a kind is words alone.
    pub fn parse(text: &str) -> KnownWords {
        let mut known = KnownWords::default();
        for line in
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (kind, words) = line.split_once(':').unwrap_or(("", line));
            let words: Vec<String> = words_of(words).collect();
            if !kind.starts_with('(') {
                let kind =
                    if kind.is_empty() { String::new() } else { format!("{}: ", kind.trim()) };
                known.told.push(format!("{kind}{}", words.join(", ")));
            }
            known.words.extend(words);
        }
        known
    }

    /// Words of `prompt` that the model does not know, each once; `names` are known besides: words
    /// of concepts in use.
    pub fn unknown_words<'a>(
        &self,
        prompt: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Vec<String> {
        // A mark between chunks of a prompt is no word.
        let mut text = prompt.replace("BREAK", " ").to_lowercase();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            text = text.replace(&name.to_lowercase(), " ");
        }
        let mut found: Vec<String> = Vec::new();
        for word in words_of(&without_marks(&text)).filter(|word| !self.words.contains(word)) {
            if !found.contains(&word) {
                found.push(word);
            }
        }
        found
    }

    /// The warning for words that are unknown_words; none if there are none.
    pub fn warning(&self, unknown_words: &[String]) -> Option<String> {
        if unknown_words.is_empty() {
            return None;
        }
        let (words, told) = (unknown_words.join(", "), self.told.join("; "));
        Some(format!(
            "this model was never taught: {words}. What it makes of them is nothing in \
                particular. It knows {told} (the list is \
             {KNOWN_WORDS_FILE} in its folder)"
        ))
    }
}

/// `<word>` is a concept's, in use or not, and told elsewhere.
fn without_marks(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, mark) = rest.split_at(start);
        plain += before;
        let end = mark.find('>').filter(|end| !mark[..*end].contains(char::is_whitespace));
        let end = end.map_or(1, |end| end + 1);
        plain.push(' ');
        rest = &mark[end..];
    }
    plain + rest
}

/// Runs of letters, in lower case; figures and signs are nobody's words.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_found_around_weights_and_names() {
        let known =
            KnownWords::parse("# a comment\n\nanimals: cat dog\ncolours: red\n(other): a in the\n");
        let unknown_words = |prompt: &str| known.unknown_words(prompt, ["<zorp1>", "Luma"]);
        assert_eq!(
            unknown_words("A (red:1.3) CAT, in ((the)) <zorp1> luma BREAK [dog] 2 <lora:ink:0.8>"),
            [""; 0]
        );
        assert_eq!(
            unknown_words("a lighthouse, (storm:1.3), storm <b>x < y"),
            ["lighthouse", "storm", "x", "y"]
        );
        assert_eq!(unknown_words("cats"), ["cats"]);
        assert_eq!(known.warning(&[]), None);
        let warning = known.warning(&["storm".into()]).unwrap();
        assert!(
            warning.contains("storm") && warning.contains("animals: cat, dog; colours: red"),
            "{warning}"
        );
        assert!(!warning.contains("other"), "{warning}");
    }

    /// Whatever the captions of its own pictures say, the model that ships knows.
    #[test]
    fn the_shipped_model_knows_its_captions() {
        let checkpoint = crate::checkpoint::Checkpoint::shipped().unwrap();
        let known = KnownWords::parse(checkpoint.words.as_deref().unwrap());
        let prompt = "a photo of a woman with blonde hair wearing a striped blue dress on the \
            left and a small spotted cat with raised \
                      arms next to a gray robot in space on the moon";
        assert_eq!(known.unknown_words(prompt, []), [""; 0]);
        assert_eq!(known.unknown_words("a lighthouse", []), ["lighthouse"]);
    }
}
