//! Prompts that change while a picture is sampled, as web UIs write them: editing,
//! `[from:to:when]`, `[to:when]` and `[from::when]`, and alternation, `[a|b]`.
//!
//! What counts is what counts there. A pair of brackets means something if all within is whole:
//! pairs, weights, editing and text. One that is not is text, and so are the pairs around it; the
//! pairs within it keep their meaning. A `|` that belongs to no alternation, and a backslash at the
//! end of a line, take all editing from a prompt.

/// Brackets nested deeper than this are text: nobody writes them, and they are read recursively.
const DEEPEST: usize = 64;

/// A prompt whose text depends on the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    parts: Vec<Part>,
    /// It has a mark that hardly occurs by nature.
    pub(super) unmistakable: bool,
    /// Why all of it is text nevertheless.
    pub(super) void: Option<Void>,
}

/// What takes all editing from a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Void {
    /// A `|` that belongs to no alternation.
    Bar,
    /// A backslash at the end of the prompt or of a line.
    Backslash,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    /// `from` in the first steps, `when` tells how many; then `to`.
    Edit {
        from: Vec<Part>,
        to: Vec<Part>,
        when: When,
    },
    /// One after another, a step each, from the first again after the last.
    Turns(Vec<Vec<Part>>),
}

/// After how many steps editing changes the text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Steps(f64),
    /// A share of all steps.
    Share(f64),
}

impl When {
    /// A number and nothing else. One with a decimal point is a share, whatever its value.
    fn parse(parts: &[Part]) -> Option<When> {
        let [Part::Text(text)] = parts else { return None };
        let text = text.trim();
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let whole_exponent =
            exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
        let has_point = mantissa.contains('.');
        if !digits(&mantissa.replacen('.', "", 1)) || !whole_exponent {
            return None;
        }
        let value = text.parse().ok()?;
        Some(if has_point { When::Share(value) } else { When::Steps(value) })
    }

    /// The first step of what comes after; parts of a step do not count.
    fn first(self, steps: usize) -> f64 {
        match self {
            When::Steps(value) => value.trunc(),
            When::Share(value) => (value * steps as f64).trunc(),
        }
    }
}

/// A bracket that is open, or all of the prompt.
struct Open {
    /// None: all of the prompt.
    bracket: Option<char>,
    /// What stands between the separators.
    segments: Vec<Vec<Part>>,
    /// The colons in it, and of a square bracket the bars; one less than segments.
    separators: Vec<char>,
}

impl Open {
    fn new(bracket: Option<char>) -> Self {
        Open { bracket, segments: vec![Vec::new()], separators: Vec::new() }
    }

    /// Whether the bracket weighs what is in it, as `(a)`, `(a:1.2)` and `[a]`.
    fn is_whole(&self) -> bool {
        self.separators.len() <= usize::from(self.bracket == Some('('))
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

/// A prompt on its way into parts.
struct Reader {
    /// All of the prompt, then the brackets that are open.
    stack: Vec<Open>,
    unmistakable: bool,
    void: Option<Void>,
}

impl Edited {
    /// Reads the editing of a prompt; none: it has none. Brackets of other kinds and escapes are
    /// left for [`super::encode`], and so are brackets without a counterpart.
    pub(super) fn parse(prompt: &str) -> Option<Edited> {
        let mut reader = Reader { stack: vec![Open::new(None)], unmistakable: false, void: None };
        let mut at = 0;
        while let Some(first) = prompt.get(at..).and_then(|rest| rest.chars().next()) {
            let mut length = first.len_utf8();
            if first == '\\' {
                match prompt.get(at + 1..).and_then(|rest| rest.chars().next()) {
                    Some('\n') | None => reader.void = Some(Void::Backslash),
                    Some(escaped) => length += escaped.len_utf8(),
                }
            }
            let text = prompt.get(at..at + length).unwrap_or_default();
            at += length;
            reader.step(first, text);
        }
        reader.flatten();
        let parts = reader.stack.pop().and_then(|mut all| all.segments.pop()).unwrap_or_default();
        let changes = parts.iter().any(|part| !matches!(part, Part::Text(_)));
        let Reader { unmistakable, void, .. } = reader;
        changes.then_some(Edited { parts, unmistakable, void })
    }

    /// The prompt as it is, where something takes all editing from it.
    pub(super) fn or_text(mut self, prompt: &str) -> Edited {
        if self.void.is_some() {
            self.parts = vec![Part::Text(prompt.to_string())];
        }
        self
    }

    /// The prompt in step `step` of `steps`, the first being 0.
    pub fn at(&self, step: usize, steps: usize) -> String {
        let mut text = String::new();
        write(&self.parts, step, steps, &mut text);
        text
    }
}

impl Reader {
    /// Takes the next character, or an escaped one with its backslash.
    fn step(&mut self, first: char, text: &str) {
        let nested = self.stack.len();
        let Some(top) = self.stack.last_mut() else { return };
        match (first, top.bracket) {
            ('(' | '[', _) if nested < DEEPEST => self.stack.push(Open::new(Some(first))),
            (':', Some(_)) | ('|', Some('[')) => {
                top.separators.push(first);
                top.segments.push(Vec::new());
            }
            ('|', _) => {
                self.void = Some(Void::Bar);
                top.text(text);
            }
            (')', Some('(')) | (']', Some('[')) => self.close(text),
            (')' | ']', _) => {
                self.flatten();
                self.text(text);
            }
            _ => top.text(text),
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(top) = self.stack.last_mut() {
            top.text(text);
        }
    }

    fn close(&mut self, bracket: &str) {
        let Some(open) = self.stack.pop() else { return };
        let is_whole = open.is_whole();
        let Some(outer) = self.stack.last_mut() else { return };
        match changing(open) {
            Ok((part, natural)) => {
                self.unmistakable |= !natural;
                outer.append(vec![part]);
            }
            Err(open) => {
                if open.bracket == Some('[') && open.separators.contains(&'|') {
                    self.void = Some(Void::Bar);
                }
                outer.append_as_text(open, bracket);
                if !is_whole {
                    self.flatten();
                }
            }
        }
    }

    /// All that is open is text: something in it is not whole.
    fn flatten(&mut self) {
        while self.stack.len() > 1 {
            if let (Some(open), Some(outer)) = (self.stack.pop(), self.stack.last_mut()) {
                if open.bracket == Some('[') && open.separators.contains(&'|') {
                    self.void = Some(Void::Bar);
                }
                outer.append_as_text(open, "");
            }
        }
    }
}

/// What a closed bracket comes to if it is editing, and whether it may well be natural text; else
/// the bracket as it was.
fn changing(mut open: Open) -> Result<(Part, bool), Open> {
    let all = |wanted: char| open.separators.iter().all(|separator| *separator == wanted);
    match open.separators.len() {
        _ if open.bracket != Some('[') => Err(open),
        0 => Err(open),
        _ if all('|') => Ok((Part::Turns(open.segments), false)),
        1 | 2 if all(':') => {
            let Some(when) = open.segments.last().and_then(|last| When::parse(last)) else {
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

fn write(parts: &[Part], step: usize, steps: usize, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(own) => text.push_str(own),
            Part::Edit { from, to, when } => {
                let before = (step as f64) < when.first(steps);
                write(if before { from } else { to }, step, steps, text);
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
