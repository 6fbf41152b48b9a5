//! What parsers of settings say, in words for people who do not know how this program is written.

/// Words of parsers, and plain ones in their place; in this order.
const WORDS: [(&str, &str); 22] = [
    ("invalid type: ", "found "),
    ("invalid value: ", "found "),
    ("unknown field ", "unknown key "),
    ("missing field ", "missing key "),
    ("found integer ", "found the number "),
    ("found floating point ", "found the number "),
    ("found string ", "found the text "),
    ("found boolean ", "found "),
    ("found sequence", "found a list"),
    ("found map", "found keys with values"),
    ("found null", "found nothing"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected keys with values"),
    ("expected f64", "expected a number"),
    ("expected f32", "expected a number"),
    ("expected usize", "expected a whole number from 0 on"),
    ("expected u64", "expected a whole number from 0 on"),
    ("expected i32", "expected a whole number"),
    ("expected path string", "expected a path"),
    ("expected a string", "expected a text"),
    ("expected a boolean", "expected true or false"),
    ("expected struct ", "expected keys with values for a "),
];

/// A parser's problem in plain words.
pub fn plainly(problem: &str) -> String {
    // Only what the parser itself says, which is its last line: the others quote the file.
    let (quoted, said) = match problem.trim_end().rsplit_once('\n') {
        Some((quoted, said)) => (format!("{quoted}\n"), said),
        None => (String::new(), problem.trim_end()),
    };
    let said = WORDS.iter().fold(said.to_string(), |said, (word, plain)| said.replace(word, plain));
    quoted + &said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Settings {
        #[serde(default)]
        list: Vec<f64>,
        #[serde(default)]
        count: usize,
        #[serde(default)]
        name: String,
        #[serde(default)]
        on: bool,
    }

    #[test]
    fn problems_are_told_without_the_names_of_types() {
        for (text, said) in [
            ("list = 3", "found the number `3`, expected a list"),
            ("list = [\"a\"]", "found the text \"a\", expected a number"),
            ("count = -3", "found the number `-3`, expected a whole number from 0 on"),
            ("count = 1.5", "found the number `1.5`, expected a whole number from 0 on"),
            ("name = [1]", "found a list, expected a text"),
            ("on = \"yes\"", "found the text \"yes\", expected true or false"),
            ("[list]\na = 1", "found keys with values, expected a list"),
            ("nam = 1", "unknown key `nam`"),
        ] {
            let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
            let told = plainly(&error);
            assert!(told.lines().last().unwrap().starts_with(said), "{text}: {told}");
            assert!(told.starts_with("TOML parse error at line 1"), "{told}");
        }
        // Not what the file says.
        let quoted = "1 | a = \"invalid type: map\"\nexpected a sequence";
        assert_eq!(plainly(quoted), "1 | a = \"invalid type: map\"\nexpected a list");
    }
}
