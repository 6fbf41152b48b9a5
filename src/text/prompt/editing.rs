//! Prompts that change while a picture is sampled, as web UIs write them: editing,
//! `[from:to:when]`, `[to:when]` and `[from::when]`, and alternation, `[a|b]`.

/// Brackets nested deeper than this are text: nobody writes them, and they are read recursively.
const DEEPEST: usize = 64;

/// A prompt whose text depends on the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    parts: Vec<Part>,
    /// It has a mark that hardly occurs by nature.
    pub(super) unmistakable: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    /// `from` in the first steps, `when` many of them or this share; then `to`.
    Edit {
        from: Vec<Part>,
        to: Vec<Part>,
        when: f64,
    },
    /// One after another, a step each, from the first again after the last.
    Turns(Vec<Vec<Part>>),
}

/// A bracket that is open, or all of the prompt.
struct Open {
    /// None: all of the prompt.
    bracket: Option<char>,
    /// What stands between the separators.
    segments: Vec<Vec<Part>>,
    /// Of a square bracket: the colons and bars in it, one less than segments.
    separators: Vec<char>,
}

impl Open {
    fn new(bracket: Option<char>) -> Self {
        Open { bracket, segments: vec![Vec::new()], separators: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        let Some(last) = self.segments.last_mut() else { return };
        match last.last_mut() {
            Some(Part::Text(so_far)) => so_far.push_str(text),
            _ => last.push(Part::Text(text.to_string())),
        }
    }

    fn append(&mut self, parts: Vec<Part>) {
        for part in parts {
            match (part, self.segments.last_mut()) {
                (Part::Text(text), _) => self.text(&text),
                (part, Some(last)) => last.push(part),
                (_, None) => {}
            }
        }
    }

    /// Appends a bracket that is no more than text, or weighs: what it is worth is read later.
    fn append_as_text(&mut self, inner: Open, close: &str) {
        self.text(inner.bracket.map(String::from).as_deref().unwrap_or_default());
        let separators = inner.separators.into_iter().map(Some).chain([None]);
        for (segment, separator) in inner.segments.into_iter().zip(separators) {
            self.append(segment);
            self.text(separator.map(String::from).as_deref().unwrap_or_default());
        }
        self.text(close);
    }
}

impl Edited {
    /// Reads the editing of a prompt; none: it has none. Brackets of other kinds and escapes are
    /// left for [`super::encode`], and so are brackets without a counterpart.
    pub(super) fn parse(prompt: &str) -> Option<Edited> {
        let mut stack = vec![Open::new(None)];
        let mut unmistakable = false;
        let mut at = 0;
        while let Some(first) = prompt.get(at..).and_then(|rest| rest.chars().next()) {
            let mut length = first.len_utf8();
            if first == '\\' {
                let escaped = prompt.get(at + 1..).and_then(|rest| rest.chars().next());
                length += escaped.map_or(0, char::len_utf8);
            }
            let text = prompt.get(at..at + length).unwrap_or_default();
            at += length;
            let nested = stack.len();
            let Some(top) = stack.last_mut() else { break };
            match (first, top.bracket) {
                ('(' | '[', _) if nested < DEEPEST => stack.push(Open::new(Some(first))),
                (':' | '|', Some('[')) => {
                    top.separators.push(first);
                    top.segments.push(Vec::new());
                }
                (')', Some('(')) | (']', Some('[')) => {
                    let Some(open) = stack.pop() else { break };
                    let Some(outer) = stack.last_mut() else { break };
                    match changing(open) {
                        Ok((part, natural)) => {
                            unmistakable |= !natural;
                            outer.append(vec![part]);
                        }
                        Err(open) => outer.append_as_text(open, text),
                    }
                }
                _ => top.text(text),
            }
        }
        while stack.len() > 1 {
            if let (Some(open), Some(outer)) = (stack.pop(), stack.last_mut()) {
                outer.append_as_text(open, "");
            }
        }
        let parts = stack.pop().and_then(|mut all| all.segments.pop()).unwrap_or_default();
        let changes = parts.iter().any(|part| !matches!(part, Part::Text(_)));
        changes.then_some(Edited { parts, unmistakable })
    }

    /// The prompt in step `step` of `steps`, the first being 0.
    pub fn at(&self, step: usize, steps: usize) -> String {
        let mut text = String::new();
        write(&self.parts, step, steps, &mut text);
        text
    }
}

/// What a closed bracket comes to if it is editing, and whether it may well be natural text; else
/// the bracket as it was.
fn changing(mut open: Open) -> Result<(Part, bool), Open> {
    let all = |wanted: char| open.separators.iter().all(|separator| *separator == wanted);
    match open.separators.len() {
        0 => Err(open),
        _ if all('|') => Ok((Part::Turns(open.segments), false)),
        1 | 2 if all(':') => {
            let Some(when) = open.segments.last().and_then(|last| number(last)) else {
                return Err(open);
            };
            open.segments.pop();
            let to = open.segments.pop().unwrap_or_default();
            let alone = open.segments.is_empty();
            let from = open.segments.pop().unwrap_or_default();
            // Such as "[12:30]", or the smile "[:3]".
            let natural = match to.last() {
                Some(Part::Text(text)) => alone && text.ends_with(|c: char| c.is_ascii_digit()),
                Some(_) => false,
                None => from.is_empty(),
            };
            Ok((Part::Edit { from, to, when }, natural))
        }
        _ => Err(open),
    }
}

/// A number and nothing else.
fn number(parts: &[Part]) -> Option<f64> {
    let [Part::Text(text)] = parts else { return None };
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn write(parts: &[Part], step: usize, steps: usize, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(own) => text.push_str(own),
            Part::Edit { from, to, when } => {
                // Below 1 it is a share of the steps; parts of a step do not count.
                let first = if *when < 1.0 { when * steps as f64 } else { *when };
                write(if (step as f64) < first.floor() { from } else { to }, step, steps, text);
            }
            Part::Turns(options) => {
                write(
                    options.get(step % options.len().max(1)).map_or(&[], Vec::as_slice),
                    step,
                    steps,
                    text,
                );
            }
        }
    }
}
