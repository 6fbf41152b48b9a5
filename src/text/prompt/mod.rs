//! Prompts as people write them: plain, weighted, longer than the text encoder, in several chunks.
//!
//! **Plain** is the rule: a prompt that uses no syntax becomes one chunk, cut at the tower's length
//! with a warning that names what was cut, exactly as `transformers` tokenizes it.
//!
//! **Syntax** of web UIs: `(word)` weighs 1.1, `((word))` 1.21, `[word]` 1/1.1, `(word:1.2)` 1.2,
//! all of which multiply; `\(`, `\)`, `\[`, `\]` are brackets of the text; the word `BREAK` starts
//! a new chunk.
//!
//! People also write brackets that mean nothing of the kind: "a cat (sitting)". So under
//! [`Syntax::Auto`] the syntax counts as used only if the prompt has one of the marks that hardly
//! occur by nature:
//! - an explicit weight, `(cat:1.2)`, unless a number stands before the colon as in "(16:9)" or
//!   "(at 12:30)" (a name that ends in a digit, as in `(badhandv4:1.4)`, is no number);
//! - a pair of brackets within a pair of the same kind, `((cat))`;
//! - an escaped bracket, `\(`;
//! - the word `BREAK` in capitals;
//! - alternation, `[a|b]`, and editing, `[from:to:0.5]` or `[to:5]`, unless it is as short as
//!   `[12:30]`.
//!
//! One such mark turns on all of the syntax for that prompt, single brackets included. Without any,
//! brackets are text, and a warning tells so.
//!
//! **Editing** changes a prompt while a picture is sampled: `[from:to:when]` is `from` in the first
//! steps and `to` in the others, `[to:when]` and `[from::when]` are the same with nothing in the
//! place of one of them; `when` is a number of steps, or with a decimal point a share of them.
//! `[a|b]` takes turns, a step each. [`read`] finds it, and gives the text of each step.
mod chunks;
mod editing;
mod syntax;
mod weights;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::{Error, Result, Tokenizer};
use editing::Void;

pub use editing::Edited;
pub use weights::apply_weights;

/// Weights go from minus this to this.
pub const MAX_WEIGHT: f32 = 10.0;

/// Whether brackets and `BREAK` mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syntax {
    /// Only in a prompt that has an unmistakable mark of it; see the [module's rule](self).
    #[default]
    Auto,
    /// Always, single brackets included.
    On,
    /// Never: all of a prompt is text.
    Off,
}

/// How a prompt is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptOptions {
    /// Whether brackets and weights mean something.
    pub syntax: Syntax,
    /// A prompt without syntax goes in several chunks too, rather than being cut.
    pub long_prompt: bool,
    /// A chunk that is full ends after its last comma instead, if at most this many tokens follow
    /// it. 0: never.
    pub comma_backtrack: usize,
}

impl Default for PromptOptions {
    fn default() -> Self {
        Self { syntax: Syntax::Auto, long_prompt: false, comma_backtrack: 20 }
    }
}

/// What the text encoder reads at once: start, tokens, end, padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// As many as the tower is long.
    pub ids: Vec<u32>,
    /// One for each id; 1 at the start, the end and the padding.
    pub weights: Vec<f32>,
    /// Which bytes of the prompt each id stands for; `None` at the start, the end and the padding.
    pub bytes: Vec<Option<Range<usize>>>,
    /// The position of the end mark: tokens of the prompt stand at `1..end`.
    pub end: usize,
}

/// A prompt, ready for the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedPrompt {
    /// At least one.
    pub chunks: Vec<Chunk>,
    /// For the user: what was cut, what was read as text.
    pub warnings: Vec<String>,
    /// Whether any weight is other than 1.
    pub weighted: bool,
}

/// A prompt, and what it is in each step.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading<'p> {
    /// The same in all steps.
    Plain(&'p str),
    /// Different from step to step.
    Edited(Edited),
}

/// Finds a prompt's editing, where [`PromptOptions::syntax`] lets it mean something.
pub fn read<'p>(prompt: &'p str, options: &PromptOptions) -> Reading<'p> {
    let edited = match options.syntax {
        Syntax::Off => None,
        Syntax::On => Edited::parse(prompt),
        // One mark turns on all of the syntax, whichever it is.
        Syntax::Auto => {
            Edited::parse(prompt).filter(|e| e.unmistakable || syntax::parse(prompt).unmistakable)
        }
    };
    edited.map_or(Reading::Plain(prompt), |edited| Reading::Edited(edited.or_text(prompt)))
}

impl Reading<'_> {
    /// The text in step `step` of `steps`, the first being 0.
    pub fn at(&self, step: usize, steps: usize) -> Cow<'_, str> {
        match self {
            Reading::Plain(prompt) => Cow::Borrowed(prompt),
            Reading::Edited(edited) => Cow::Owned(edited.at(step, steps)),
        }
    }

    /// Why its editing is text, where it is.
    pub fn warning(&self) -> Option<String> {
        let Reading::Edited(Edited { void: Some(void), .. }) = self else { return None };
        let why = match void {
            Void::Bar => r"of a | outside of square brackets (\| is one of the text)",
            Void::Backslash => r"a line ends in a backslash (\\ is one of the text)",
        };
        Some(format!("the prompt's editing is read as text, as in web UIs, because {why}"))
    }

    /// How its texts are read, where the prompt is read by `options`.
    pub fn options(&self, options: &PromptOptions) -> PromptOptions {
        match self {
            Reading::Plain(_) => options.clone(),
            Reading::Edited(_) => PromptOptions { syntax: Syntax::On, ..options.clone() },
        }
    }
}

/// A warning where a prompt has web UIs' `AND`, which composes whole prompts there and is text
/// here.
pub fn warn_of_composing(prompt: &str, options: &PromptOptions) -> Option<String> {
    let mut words = prompt.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    // In a prompt that is all capitals it is a word like others.
    let meant = options.syntax != Syntax::Off
        && words.any(|word| word == "AND")
        && (options.syntax == Syntax::On || prompt.chars().any(char::is_lowercase));
    meant.then(|| {
        "AND in the prompt is read as text: composing prompts is not supported; regions give \
            parts of the \
         picture prompts of their own"
            .to_string()
    })
}

/// Tokenizes `prompt` by the [module's rules](self).
///
/// # Errors
/// A weight beyond [`MAX_WEIGHT`]; text that the vocabulary cannot spell.
pub fn encode(
    tokenizer: &Tokenizer,
    prompt: &str,
    options: &PromptOptions,
) -> Result<EncodedPrompt> {
    let mut warnings = Vec::new();
    let parsed = match options.syntax {
        Syntax::Off => None,
        Syntax::On | Syntax::Auto => Some(syntax::parse(prompt)),
    };
    let with_syntax = parsed.filter(|parsed| {
        let used = options.syntax == Syntax::On || parsed.unmistakable;
        if let (false, Some(pair)) = (used, &parsed.single_pair) {
            let text = prompt.get(pair.clone()).unwrap_or_default();
            let hint = match parsed.number_pair {
                true => "--prompt-syntax on reads them as a weight",
                false => "to weigh words write them as (words:1.1)",
            };
            warnings.push(format!("the brackets in \"{text}\" are read as text; {hint}"));
        }
        if let (false, Some(text)) = (used, &parsed.unclosed) {
            warnings.push(format!("the bracket in \"{text}\" is never closed and read as text"));
        }
        warnings.extend(
            parsed
                .unopened
                .as_ref()
                .map(|text| format!("the bracket in \"{text}\" is never opened and read as text")),
        );
        used
    });
    let chunks = match with_syntax {
        Some(parsed) => {
            warnings.extend(parsed.warnings);
            chunks::split(tokenizer, &parsed.pieces, options.comma_backtrack)?
        }
        None if options.long_prompt => {
            chunks::split(tokenizer, &[syntax::Piece::plain(prompt)], options.comma_backtrack)?
        }
        None => {
            let (chunk, cut) = chunks::truncate(tokenizer, prompt)?;
            warnings.extend(cut);
            vec![chunk]
        }
    };
    let weighted = chunks.iter().flat_map(|chunk| &chunk.weights).any(|w| *w != 1.0);
    Ok(EncodedPrompt { chunks, warnings, weighted })
}

/// Appends empty chunks to the shorter of two prompts, so that a prompt and its negative can go in
/// one batch.
///
/// # Errors
/// Prompts that were encoded for towers of different lengths.
pub fn pad_to_same_chunks(
    tokenizer: &Tokenizer,
    a: &mut EncodedPrompt,
    b: &mut EncodedPrompt,
) -> Result<()> {
    let length =
        |p: &EncodedPrompt| p.chunks.first().map_or(tokenizer.max_length(), |c| c.ids.len());
    for prompt in [&*a, &*b] {
        if length(prompt) != tokenizer.max_length() {
            return Err(Error::ChunkLength { left: length(a), right: length(b) });
        }
    }
    let count = a.chunks.len().max(b.chunks.len());
    for prompt in [a, b] {
        prompt.chunks.resize_with(count, || chunks::empty(tokenizer));
    }
    Ok(())
}

impl EncodedPrompt {
    /// Appends empty chunks until there are `count`.
    pub fn pad(&mut self, tokenizer: &Tokenizer, count: usize) {
        let missing = count.saturating_sub(self.chunks.len());
        self.chunks.extend(std::iter::repeat_with(|| chunks::empty(tokenizer)).take(missing));
    }

    /// Where the token stands: (chunk, position), in order.
    pub fn positions_of(&self, token_id: u32) -> Vec<(usize, usize)> {
        self.positions(|chunk, n| chunk.ids.get(n) == Some(&token_id))
    }

    /// Where the tokens stand that spell any of these bytes of the prompt: (chunk, position), in
    /// order.
    pub fn positions_of_bytes(&self, bytes: &Range<usize>) -> Vec<(usize, usize)> {
        self.positions(|chunk, n| match chunk.bytes.get(n) {
            Some(Some(token)) => token.start < bytes.end && bytes.start < token.end,
            _ => false,
        })
    }

    fn positions(&self, wanted: impl Fn(&Chunk, usize) -> bool) -> Vec<(usize, usize)> {
        let all = self
            .chunks
            .iter()
            .enumerate()
            .flat_map(|(c, chunk)| (0..chunk.ids.len()).map(move |n| (c, chunk, n)));
        all.filter(|(_, chunk, n)| wanted(chunk, *n)).map(|(c, _, n)| (c, n)).collect()
    }

    /// The same prompt with some token ids replaced by others, wherever they stand: a concept's
    /// word becomes another token in each layer that reads it.
    pub fn with_tokens_replaced(&self, replacements: &HashMap<u32, u32>) -> Self {
        let mut prompt = self.clone();
        for id in prompt.chunks.iter_mut().flat_map(|chunk| &mut chunk.ids) {
            if let Some(other) = replacements.get(id) {
                *id = *other;
            }
        }
        prompt
    }
}

#[cfg(test)]
mod tests;
