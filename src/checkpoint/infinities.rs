//! Numbers that JSON cannot write and Python writes all the same: `-Infinity` stands in the
//! scheduler of every model that diffusers saved with DPM-Solver.

const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Puts quotes around the bare words where they stand outside strings, so that the text is JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        if !in_string {
            for word in WORDS {
                if let Some(after) = rest.strip_prefix(word) {
                    out.extend(["\"", word, "\""]);
                    rest = after;
                    continue 'text;
                }
            }
        }
        let escaped = in_string && first == '\\';
        in_string ^= first == '"';
        let length = rest.chars().take(1 + usize::from(escaped)).map(char::len_utf8).sum();
        let (taken, after) = rest.split_at(length);
        out.push_str(taken);
        rest = after;
    }
    out
}

/// The reverse, for other programs, which expect numbers there: a string that is one of the words,
/// and no key, becomes bare.
pub fn bare(json: &str) -> String {
    let mut out = json.to_string();
    for word in WORDS {
        for end in [",", "\n", "}", "]"] {
            out = out.replace(&format!(": \"{word}\"{end}"), &format!(": {word}{end}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_strings_and_words_again() {
        let text = "{\n  \"a\": -Infinity,\n  \"b\": \"an Infinity: -Infinity,\",\n  \"c\": NaN\n}";
        let value: serde_json::Value = serde_json::from_str(&quoted(text)).unwrap();
        assert_eq!((value["a"].as_str(), value["c"].as_str()), (Some("-Infinity"), Some("NaN")));
        assert_eq!(value["b"], "an Infinity: -Infinity,");
        assert_eq!(bare(&serde_json::to_string_pretty(&value).unwrap()), text);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scheduler_config.json"), text).unwrap();
        let read =
            crate::checkpoint::Folder::disk(folder.path()).json("scheduler_config.json").unwrap();
        assert_eq!(read, Some(value));
    }
}
