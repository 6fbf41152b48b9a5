//! Reads brackets, weights, escapes and `BREAK`.
use std::ops::Range;

/// What one pair of round brackets multiplies by, and one pair of square brackets divides by.
const STEP: f64 = 1.1;
const BREAK: &str = "BREAK";

/// Text of one weight, or a break between chunks. Weights are multiplied in 64 bits, as web UIs do:
/// neighbours whose weights come out equal are tokenized as one text, others apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text {
        text: String,
        /// For each byte of `text` the byte of the prompt that it comes from.
        origin: Vec<usize>,
        weight: f64,
    },
    Break,
}

impl Piece {
    pub fn plain(text: &str) -> Self {
        Self::Text { text: text.to_string(), origin: (0..text.len()).collect(), weight: 1.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Parsed {
    pub pieces: Vec<Piece>,
    /// The prompt has a mark that hardly occurs by nature.
    pub unmistakable: bool,
    /// The first pair of brackets, if any.
    pub single_pair: Option<Range<usize>>,
    /// That pair is one like "(16:9)", which could be a weight.
    pub number_pair: bool,
    /// What the first bracket begins that is never closed and stands before a word.
    pub unclosed: Option<String>,
    /// What the first bracket ends that was never opened and stands after a word or a weight.
    pub unopened: Option<String>,
    pub warnings: Vec<String>,
}

/// An opened bracket.
struct Open {
    /// The first piece within.
    piece: usize,
    /// Where it stands in the prompt.
    at: usize,
    /// A pair of its kind has closed within it.
    has_inner: bool,
}

#[derive(Default)]
struct Parser {
    parsed: Parsed,
    round: Vec<Open>,
    square: Vec<Open>,
    /// Text goes to a new piece.
    fresh: bool,
}

/// Splits a prompt into pieces of one weight. Neighbours of equal weight are one piece. A bracket
/// that is never closed weighs all that follows it, as in web UIs, with a warning; one that was
/// never opened is text.
pub(super) fn parse(prompt: &str) -> Parsed {
    let mut parser = Parser { fresh: true, ..Parser::default() };
    let mut at = 0;
    while let Some(rest) = prompt.get(at..).filter(|rest| !rest.is_empty()) {
        at += parser.step(prompt, at, rest);
    }
    for (opened, factor, sign) in [(&parser.round, STEP, '('), (&parser.square, 1.0 / STEP, '[')] {
        for open in opened {
            multiply(&mut parser.parsed.pieces, open.piece, factor);
            let text = beginning(prompt.get(open.at..).unwrap_or_default());
            parser.parsed.warnings.push(format!(
                "the bracket in \"{text}\" is never closed and weighs all that follows; write \
                    \\{sign} if it is text"
            ));
        }
    }
    let mut unclosed: Vec<usize> =
        parser.round.iter().chain(&parser.square).map(|open| open.at).collect();
    unclosed.sort_unstable();
    let mut parsed = parser.parsed;
    parsed.unclosed = unclosed
        .into_iter()
        .filter_map(|at| prompt.get(at..))
        .find(|text| text.chars().nth(1).is_some_and(|c| c.is_alphanumeric() || "([<".contains(c)))
        .map(beginning);
    parsed.pieces = merge(parsed.pieces);
    parsed
}

impl Parser {
    /// Reads what stands at byte `at` and returns its length.
    fn step(&mut self, prompt: &str, at: usize, rest: &str) -> usize {
        let first = rest.chars().next().unwrap_or_default();
        match first {
            '\\' => {
                let next = rest.chars().nth(1);
                let Some(escaped) = next.filter(|c| matches!(c, '(' | ')' | '[' | ']' | '\\'))
                else {
                    // As in web UIs, it only says that what follows is text.
                    return 1;
                };
                self.parsed.unmistakable |= escaped != '\\';
                self.text(escaped.encode_utf8(&mut [0; 4]), at + 1);
                return 2;
            }
            '(' | '[' => {
                let open = Open { piece: self.parsed.pieces.len(), at, has_inner: false };
                if first == '(' {
                    self.round.push(open)
                } else {
                    self.square.push(open)
                }
                self.fresh = true;
            }
            ')' if !self.round.is_empty() => self.close(first, STEP, at + 1),
            ']' if !self.square.is_empty() => self.close(first, 1.0 / STEP, at + 1),
            ')' | ']' => {
                let before = prompt.get(..at).unwrap_or_default();
                if self.parsed.unopened.is_none() && ends_as_in_brackets(before) {
                    self.parsed.unopened = Some(end_of(before) + first.encode_utf8(&mut [0; 4]));
                }
                self.text(rest.get(..1).unwrap_or_default(), at);
            }
            ':' if !self.round.is_empty() => match explicit_weight(rest) {
                Some((weight, length)) => {
                    let natural = is_number_before(prompt.get(..at).unwrap_or_default());
                    self.parsed.unmistakable |= !natural;
                    if natural && self.parsed.single_pair.is_none() {
                        self.parsed.number_pair = true;
                    }
                    self.close(')', weight, at + length);
                    return length;
                }
                None => self.text(":", at),
            },
            'B' if is_break(prompt, at) => {
                self.parsed.unmistakable = true;
                self.parsed.pieces.push(Piece::Break);
                self.fresh = true;
                return BREAK.len();
            }
            _ => {
                let length = first.len_utf8();
                self.text(rest.get(..length).unwrap_or_default(), at);
                return length;
            }
        }
        1
    }

    fn text(&mut self, piece: &str, at: usize) {
        let fresh = std::mem::take(&mut self.fresh);
        let bytes = at..at + piece.len();
        match self.parsed.pieces.last_mut() {
            Some(Piece::Text { text, origin, .. }) if !fresh => {
                text.push_str(piece);
                origin.extend(bytes);
            }
            _ => {
                let (text, origin) = (piece.to_string(), bytes.collect());
                self.parsed.pieces.push(Piece::Text { text, origin, weight: 1.0 });
            }
        }
    }

    fn close(&mut self, bracket: char, factor: f64, end: usize) {
        let stack = if bracket == ')' { &mut self.round } else { &mut self.square };
        if let Some(open) = stack.pop() {
            multiply(&mut self.parsed.pieces, open.piece, factor);
            self.parsed.unmistakable |= open.has_inner;
            if let Some(outer) = stack.last_mut() {
                outer.has_inner = true;
            }
            self.parsed.single_pair.get_or_insert(open.at..end);
        }
        self.fresh = true;
    }
}

/// How much of a prompt a warning shows.
const SHOWN: usize = 24;

fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn end_of(text: &str) -> String {
    text.chars().skip(text.chars().count().saturating_sub(SHOWN)).collect()
}

/// Whether a bracket that closes after `text` is meant as one, unlike those of ":)" and "a)".
fn ends_as_in_brackets(text: &str) -> bool {
    // No further back than any word reaches.
    let near = text.char_indices().rev().take(SHOWN).last().map_or(0, |(at, _)| at);
    let near = text.get(near..).unwrap_or_default();
    let word = near.rsplit(char::is_whitespace).next().unwrap_or_default();
    let letters = word.chars().rev().take_while(|c| c.is_alphabetic()).count();
    let weighs = word.rsplit_once(':').is_some_and(|(_, number)| {
        number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.')
    });
    letters > 1 || weighs
}

/// `:1.2)` with white space between: the weight and the length of it all.
fn explicit_weight(rest: &str) -> Option<(f64, usize)> {
    let (number, _) = rest.strip_prefix(':')?.split_once(')')?;
    let digits = number.trim();
    let plain = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    Some((digits.parse().ok()?, 1 + number.len() + 1))
}

/// What stands before a colon ends in a number of its own, as in "(16:9)" or "(at 12:30)". The
/// digit of a name, as in "(badhandv4:1.4)", is none.
fn is_number_before(text: &str) -> bool {
    let last =
        text.rsplit(|c: char| c.is_whitespace() || "([<,;/".contains(c)).next().unwrap_or_default();
    last.ends_with(|c: char| c.is_ascii_digit())
        && !last.contains(|c: char| c.is_alphabetic() || c == '>')
}

fn is_break(prompt: &str, at: usize) -> bool {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (Some(before), Some(rest)) = (prompt.get(..at), prompt.get(at..)) else {
        return false;
    };
    let after = rest.strip_prefix(BREAK);
    after
        .is_some_and(|after| !in_word(before.chars().next_back()) && !in_word(after.chars().next()))
}

fn multiply(pieces: &mut [Piece], from: usize, factor: f64) {
    for piece in pieces.iter_mut().skip(from) {
        if let Piece::Text { weight, .. } = piece {
            *weight *= factor;
        }
    }
}

fn merge(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (merged.last_mut(), piece) {
            (
                Some(Piece::Text { text, origin, weight }),
                Piece::Text { text: more, origin: from, weight: same },
            ) if *weight == same => {
                text.push_str(&more);
                origin.extend(from);
            }
            (_, piece) => merged.push(piece),
        }
    }
    merged
}
