//! Text in pages: reports of fusion and evaluation, measurements of kernels.

/// Text as HTML has it, in elements and in quoted attributes. Control characters, which no page may
/// hold, become `?`; line ends and tabs stay.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() && !['\n', '\t'].contains(&c) => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_pages_is_escaped() {
        assert_eq!(escaped("<a1> & \"b\""), "&lt;a1&gt; &amp; &quot;b&quot;");
        assert_eq!(escaped("a\u{1b}[2J\nb\tc"), "a?[2J\nb\tc");
    }
}
