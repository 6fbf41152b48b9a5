//! Captions and prompts with a place for a concept's words.

/// Where the concept's words stand in captions and prompts.
pub const PLACEHOLDER: &str = "<TOK>";

/// Puts `words` in place of [`PLACEHOLDER`]; runs of white space become single spaces.
pub fn with_words(text: &str, words: &str) -> String {
    text.replace(PLACEHOLDER, words).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_take_their_place() {
        assert_eq!(
            with_words("a photo of <TOK> on  the beach\n", "<a1> <a2>"),
            "a photo of <a1> <a2> on the beach"
        );
        assert_eq!(
            with_words("<TOK>, smiling, outside", "<a1> <a2>"),
            "<a1> <a2>, smiling, outside"
        );
        assert_eq!(with_words("<TOK>'s hat", "<a>"), "<a>'s hat");
        assert_eq!(with_words("nothing here", "<a>"), "nothing here");
    }
}
