//! Text from files on its way to a terminal or a log: titles, metadata, names of tensors and files,
//! prompts, words of concepts.
//!
//! A terminal obeys control characters: they clear the screen, set its title, write over what
//! stands there. They are shown as what they are instead, `\u{1b}` and such, and so are the
//! characters that turn the direction of writing or break a line as no key does. Plain text in any
//! script stays as it is.
use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal would obey it instead of showing it.
fn is_obeyed(c: char) -> bool {
    let direction =
        ['\u{61c}', '\u{200e}', '\u{200f}'].contains(&c) || ('\u{202a}'..='\u{202e}').contains(&c);
    let isolates = ('\u{2066}'..='\u{2069}').contains(&c);
    c.is_control() || direction || isolates || ['\u{2028}', '\u{2029}'].contains(&c)
}

/// Every character that `is` means as `write` writes it.
fn escaped(
    text: &str,
    is: impl Fn(char) -> bool,
    write: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.chars().any(&is) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is(c) { write(&mut shown, c) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// A name or a value that is to stay within its line: line ends are escaped as well.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed, |shown, c| shown.extend(c.escape_default()))
}

/// Text of several lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| is_obeyed(c) && c != '\n' && c != '\t',
        |shown, c| shown.extend(c.escape_default()),
    )
}

/// As [`lines`], all but the first of them indented: so that no text from a file can pass for a
/// line that this program begins.
pub fn indented(text: &str) -> String {
    let text = lines(text.trim_end());
    let mut parts = text.split('\n');
    let first = parts.next().unwrap_or_default().to_string();
    let rest: Vec<&str> = parts.collect();
    // All alike, for some messages point at a place in the line above.
    let indented = rest.iter().all(|line| line.is_empty() || line.starts_with([' ', '\t']));
    let indent = if indented { "" } else { "  " };
    rest.iter().fold(first, |shown, line| {
        if line.is_empty() { shown + "\n" } else { shown + "\n" + indent + line }
    })
}

/// JSON, in which such characters stand within strings only: who reads it gets what it was.
pub fn json(text: &str) -> Cow<'_, str> {
    let unicode = |shown: &mut String, c: char| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    };
    escaped(text, |c| is_obeyed(c) && c != '\n', unicode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_stays() {
        for plain in ["", "a red cat", "Übung, 猫, кот, חתול, 👩‍🎨 é", "C:\\a\\n"]
        {
            assert_eq!(line(plain), plain);
            assert_eq!(json(plain), plain);
            assert_eq!(indented(plain), plain);
        }
        assert_eq!(line("\u{1b}[2J\u{1b}]0;t\u{7}"), "\\u{1b}[2J\\u{1b}]0;t\\u{7}");
        assert_eq!(
            line("a\r\n\tb\u{7f}\u{9b}31m\u{202e}x\u{2066}\u{2028}\0"),
            "a\\r\\n\\tb\\u{7f}\\u{9b}31m\\u{202e}x\\u{2066}\\u{2028}\\u{0}"
        );
        assert_eq!(lines("a\n\tb\r\u{85}"), "a\n\tb\\r\\u{85}");
        assert_eq!(indented("wrong:\n  - a\n  - b\n"), "wrong:\n  - a\n  - b");
        assert_eq!(
            indented("at line 1\n  |\n1 | x\n  | ^\n\n"),
            "at line 1\n    |\n  1 | x\n    | ^"
        );
        assert_eq!(indented("a\n\nerror: forged"), "a\n\n  error: forged");
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({"a\u{9b}": ["\u{1b}[2J", "\u{202e}\u{7f}\n\u{2029}", 1]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(!shown.chars().any(|c| is_obeyed(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
