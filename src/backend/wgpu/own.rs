//! Templates of one's own, and what is wrong with them in words: the place, the name that nothing
//! has, the nearest one.

use std::collections::BTreeMap;

use minijinja::{Error, ErrorKind, Value};

use super::template::{
    self, DECLARATIONS, Rendered, STATEMENT, environment, kernel_place, marked, part_names, quoted,
    undeclared, unmarked,
};

/// A mistake in a template, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `FILE:LINE`, or the file alone where no line is known.
    pub place: String,
    /// In words.
    pub what: String,
}

/// How alike names may also be that are meant, as `cols` is to `columns`: by Jaro and Winkler.
const ALIKE: f64 = 0.8;

/// The one of the known names that is most like another, if one is alike at all.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_lowercase();
    let letters = |name: &str| {
        let mut letters: Vec<char> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    let count = name.chars().count();
    let own = letters(&name);
    let alike = |known: &'k str| {
        let other = known.to_lowercase();
        let steps = strsim::damerau_levenshtein(&name, &other);
        let alike = strsim::jaro_winkler(&name, &other);
        let few = steps <= (count / 3).max(1) && steps < count;
        // Letters in another order rather than others.
        (few || alike >= ALIKE).then(|| (steps, letters(&other) != own, -alike, known))
    };
    let best = known
        .into_iter()
        .filter_map(alike)
        .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(b.3)));
    best.map(|(.., known)| known)
}

/// What may be said behind a name that nothing has: the one that may be meant, and those that there
/// are, unless they are many.
pub(crate) fn advice(name: &str, known: &[&str]) -> String {
    const FEW: usize = 12;
    let list = match known {
        [] => "there are none".to_string(),
        _ => format!("there are {}", known.join(", ")),
    };
    match nearest(name, known.iter().copied()) {
        Some(near) if known.len() > FEW => format!("; did you mean `{near}`?"),
        Some(near) => format!("; did you mean `{near}`? ({list})"),
        None => format!("; {list}"),
    }
}

const BLOCKS: [&str; 8] = ["for", "if", "macro", "with", "call", "filter", "block", "autoescape"];
const STATEMENTS: [&str; 10] =
    ["set", "elif", "else", "import", "from", "include", "extends", "do", "raw", "end"];
const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// Renders a text of one's own as kernels of this program are: line statements and `{{ }}`, with
/// this program's parts to import. `name` is what errors call it.
///
/// # Errors
/// What is wrong with the template, with the line.
pub fn render_own(
    name: &str,
    text: &str,
    params: &BTreeMap<String, Value>,
) -> std::result::Result<Rendered, Mistake> {
    let (own, whole) = (name.to_string(), text.to_string());
    let text_of =
        move |name: &str| if name == own { Some(whole.clone()) } else { template::text_of(name) };
    let of_marked = text_of.clone();
    let mut environment =
        environment(move |name| Some(marked(name, &undeclared(&of_marked(name)?))));
    // So that names are told that nothing has.
    environment.set_debug(true);
    let rendered = environment.get_template(name).and_then(|template| template.render(params));
    let rendered = rendered.map_err(|error| mistake(&error, name, &text_of, params))?;
    let (text, origins) = unmarked(&rendered);
    Ok(Rendered { text, origins })
}

/// What minijinja says of template `name`, whose text is `text`, rendered with `params`.
fn mistake(
    error: &Error,
    name: &str,
    text_of: &dyn Fn(&str) -> Option<String>,
    params: &BTreeMap<String, Value>,
) -> Mistake {
    let file = error.name().unwrap_or(name);
    let text = text_of(file).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let mut line = error.line();
    let names = || names_of(&text, params);
    let what = if let Some(unknown) = within(&detail, "`", "` is undefined") {
        let names = names();
        let how = if params.is_empty() { " (`//% tune tile in [8, 16]` declares one)" } else { "" };
        format!("unknown name `{unknown}`{}{how}", advice(unknown, &refs(&names)))
    } else if error.kind() == ErrorKind::UnknownFunction {
        let unknown = detail.trim_end_matches(" is unknown");
        let mut names = names();
        names.extend(FUNCTIONS.map(String::from));
        // One that is not alike is better not told: most of these are no functions.
        let near = nearest(unknown, refs(&names));
        format!("unknown function `{unknown}`{}", meant(near))
    } else if let Some(part) = within(&detail, "non-existing template '", "'") {
        let parts = part_names();
        format!("there is no part `{part}` to import{}", meant(nearest(part, refs(&parts))))
    } else if let Some(word) = detail.strip_prefix("unknown statement ") {
        match open_block(&text, line) {
            Some((block, opened)) if word.starts_with("end") => format!(
                "`{word}` ends nothing: `{block}` of line {opened} is open, which ends with \
                 `end{block}`"
            ),
            _ => {
                let words = BLOCKS.iter().chain(&STATEMENTS).chain(&DECLARATIONS);
                format!("unknown statement `{word}`{}", meant(nearest(word, words.copied())))
            }
        }
    } else if let (true, Some((block, opened))) =
        (detail.starts_with("unexpected end of input"), open_block(&text, None))
    {
        line = Some(opened);
        format!("`{block}` is not ended: `end{block}` is missing")
    } else {
        detail
    };
    let place = if file == name { kernel_place(name, true) } else { kernel_place(file, false) };
    match line {
        Some(line) => Mistake {
            place: format!("{place}:{line}"),
            what: format!("{what}{}", quoted(&text, line)),
        },
        None => Mistake { place, what },
    }
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// What stands between two texts.
fn within<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let end = text.rfind(after)?;
    let start = text[..end].rfind(before)? + before.len();
    text.get(start..end)
}

/// Line statements and tags of a text that are no declarations: the line, the first word and the
/// rest.
fn statements(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        let own = line.trim_start().strip_prefix(STATEMENT);
        let tags = line.split("{%").skip(1).map(|tag| tag.split("%}").next().unwrap_or(tag));
        own.into_iter().chain(tags).filter_map(move |statement| {
            let statement = statement.trim().trim_start_matches(['-', '+']).trim_start();
            let length = statement.find(|c: char| !c.is_alphanumeric() && c != '_');
            let (word, rest) = statement.split_at(length.unwrap_or(statement.len()));
            (!DECLARATIONS.contains(&word) && !word.is_empty()).then_some((number + 1, word, rest))
        })
    })
}

/// The innermost block that is open before `line`, or at the end, and the line that opens it.
fn open_block(text: &str, line: Option<usize>) -> Option<(String, usize)> {
    let mut open: Vec<(String, usize)> = Vec::new();
    for (number, word, rest) in statements(text) {
        if line.is_some_and(|line| number >= line) {
            break;
        }
        let opens = BLOCKS.contains(&word) || word == "set" && !rest.contains('=');
        if opens {
            open.push((word.to_string(), number));
        } else if let Some(ended) = word.strip_prefix("end")
            && open.last().is_some_and(|(block, _)| block == ended)
        {
            open.pop();
        }
    }
    open.pop()
}

/// Names that a template knows: its parameters, and what it sets itself.
fn names_of(text: &str, params: &BTreeMap<String, Value>) -> Vec<String> {
    let mut names: Vec<String> = params.keys().cloned().collect();
    for (_, word, rest) in statements(text) {
        let named = match word {
            "set" => rest.split('=').next(),
            "for" => rest.split(" in ").next(),
            "macro" => rest.split(')').next(),
            "import" => rest.split(" as ").nth(1),
            "from" => rest.split(" import ").nth(1),
            _ => None,
        };
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let words = named.unwrap_or_default().split(|c: char| !is_part(c));
        names.extend(words.filter(|word| !word.is_empty() && *word != "as").map(String::from));
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_alike_are_found() {
        let known = ["rows", "inner", "columns"];
        for (name, expected) in
            [("cols", Some("columns")), ("Row", Some("rows")), ("depth", None), ("x", None)]
        {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(
            advice("cols", &known),
            "; did you mean `columns`? (there are rows, inner, columns)"
        );
        assert_eq!(advice("depth", &known), "; there are rows, inner, columns");
    }

    #[test]
    fn mistakes_name_their_line_and_what_may_be_meant() {
        let params = BTreeMap::from([("tile".to_string(), Value::from(8))]);
        for (text, place, says) in [
            ("a\nb {{ tiel }}\n", "k.wgsl:2", "unknown name `tiel`; did you mean `tile`?"),
            ("//% set twice = 2\n//% if twic\n//% endif\n", "k.wgsl:2", "did you mean `twice`?"),
            ("//% for i in range(tlie)\n//% endfor\n", "k.wgsl:1", "name `tlie`; did you mean"),
            ("{{ tile\n  + tyle }}\n", "k.wgsl:2", "unknown name `tyle`; did you mean `tile`?"),
            ("a\n{{ depth }}\n", "k.wgsl:2", "unknown name `depth`; there are tile"),
            ("a\n\n{{ rnage(3) }}\n", "k.wgsl:3", "function `rnage`; did you mean `range`?"),
            (
                "//% import \"shared/gird\" as g\n",
                "k.wgsl:1",
                "no part `shared/gird` to import; did you mean `shared/grid`?",
            ),
            ("\n//% dispach [1]\n", "k.wgsl:2", "`dispach`; did you mean `dispatch`?"),
            ("\n//% fro i in range(2)\n", "k.wgsl:2", "statement `fro`; did you mean `for`?"),
            (
                "a\n//% for i in range(3)\nb\n//% if i\n//% endif\nc\nd\n",
                "k.wgsl:2",
                "`for` is not ended: `endfor` is missing, in `//% for i in range(3)`",
            ),
            (
                "//% for i in range(3)\nb\n//% endif\nc\n",
                "k.wgsl:3",
                "`endif` ends nothing: `for` of line 1 is open",
            ),
        ] {
            let Err(mistake) = render_own("k.wgsl", text, &params) else { panic!("{text}") };
            assert_eq!(mistake.place, place, "{text}: {}", mistake.what);
            assert!(mistake.what.contains(says), "{text}: {}", mistake.what);
        }
    }
}
