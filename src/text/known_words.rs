//! The words that a small model knows, if its folder says so: all others come out as something
//! else.
use std::collections::BTreeSet;

/// The file in a model's folder.
pub const KNOWN_WORDS_FILE: &str = "known_words.txt";
/// Words that a warning names.
const SHOWN: usize = 12;

/// A model's list of words: lines such as `animals: cat dog`, and comments that begin with `#`.
/// Kinds in brackets, such as `(other): a the`, are known but not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownWords {
    words: BTreeSet<String>,
    /// Kinds that are told, each with its words.
    kinds: Vec<(String, Vec<String>)>,
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
            known.words.extend(words.iter().cloned());
            if !kind.starts_with('(') {
                known.kinds.push((kind.trim().to_string(), words));
            }
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
        let mut names: Vec<String> = names.into_iter().map(str::to_lowercase).collect();
        // Those first that have others in them.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        for name in names.iter().filter(|name| !name.is_empty()) {
            text = without_name(&text, name);
        }
        let mut found: Vec<String> = Vec::new();
        for word in words_of(&without_marks(&text)).filter(|word| !self.words.contains(word)) {
            if !found.contains(&word) {
                found.push(word);
            }
        }
        found
    }

    /// Kinds of words for the user, each with its words; the kind of words without one is empty.
    pub fn kinds(&self) -> &[(String, Vec<String>)] {
        &self.kinds
    }

    /// The warning for words that are unknown; none if there are none.
    pub fn warning(&self, unknown_words: &[String]) -> Option<String> {
        if unknown_words.is_empty() {
            return None;
        }
        let shown = unknown_words.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
        let more = match unknown_words.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let kinds: Vec<&str> = self
            .kinds
            .iter()
            .map(|(kind, _)| kind.as_str())
            .filter(|kind| !kind.is_empty())
            .collect();
        let kinds = match kinds.is_empty() {
            true => String::new(),
            false => format!(" ({})", kinds.join(", ")),
        };
        Some(format!(
            "this model does not know: {}{more}. It knows {} words{kinds}, which `mos inspect` \
                lists",
            shown.join(", "),
            self.words.len()
        ))
    }
}

/// `text` without `name`, where it is a word as the tokenizer finds it: no part of another one.
fn without_name(text: &str, name: &str) -> String {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let single_word = in_word(name.chars().next()) || in_word(name.chars().next_back());
    let mut plain = String::with_capacity(text.len());
    let mut end = 0;
    for (at, found) in text.match_indices(name) {
        let (before, rest) = text.split_at(at);
        let after = rest.strip_prefix(found).unwrap_or(rest);
        let is_part = in_word(before.chars().next_back()) || in_word(after.chars().next());
        if !(single_word && is_part) {
            plain += before.get(end..).unwrap_or_default();
            plain.push(' ');
            end = at + found.len();
        }
    }
    plain + text.get(end..).unwrap_or_default()
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
    fn names_within_others_are_no_strangers() {
        let known = KnownWords::parse("animals: cat dog\n(other): a\n");
        for names in [["qzx", "qzxbar"], ["qzxbar", "qzx"]] {
            assert_eq!(known.unknown_words("a QZXBar cat, (qzx:1.2) dog", names), [""; 0]);
        }
        assert_eq!(known.unknown_words("a qzxbar dog, qzx", ["qzx"]), ["qzxbar"]);
        assert_eq!(known.unknown_words("a <qz>2 dog", ["<qz>", "<qz>2"]), [""; 0]);
    }

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
        let expected = "this model does not know: storm. It knows 6 words (animals, colours), \
            which `mos inspect` lists";
        assert_eq!(warning, expected);
        let many: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        assert!(known.warning(&many).unwrap().contains("w11 and 28 more. It knows"));
        assert_eq!(known.kinds()[1], ("colours".to_string(), vec!["red".to_string()]));
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
