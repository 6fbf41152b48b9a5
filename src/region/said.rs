//! Prompts that say who stands where.

/// Several beside each other in one sentence, from left to right, each with its article but the
/// first, which may stand behind one: `man on the left and an owl on the right`.
pub fn side_by_side(phrases: &[impl AsRef<str>]) -> String {
    let phrase = |(at, phrase): (usize, &_)| match (at, AsRef::<str>::as_ref(phrase)) {
        (0, first) => first.to_string(),
        (_, other) => with_article(other),
    };
    let named: Vec<String> = phrases.iter().enumerate().map(phrase).collect();
    match &named[..] {
        [left, right] => format!("{left} on the left and {right} on the right"),
        [left, center, right] => {
            format!("{left} on the left, {center} in the center and {right} on the right")
        }
        other => other.join(" and "),
    }
}

/// `a man`, `an owl`.
pub fn with_article(phrase: &str) -> String {
    match phrase.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {phrase}"),
        false => format!("a {phrase}"),
    }
}
