//! The concept's words in the model's vocabulary.

use super::config::{Initializer, Settings};
use super::draws::{Draws, Purpose};
use crate::graph::Array;
use crate::sd::source::ComponentSource;
use crate::sd::tokens::TokenRows;
use crate::sd::{Model, TextEncoder};
use crate::text::prompt::{self, PromptOptions, Syntax};
use crate::text::{Error, Result, Tokenizer};

/// Tokenizers that know the words as single tokens.
#[derive(Clone, Debug)]
pub struct Words {
    first: Known,
    /// Of the second text encoder.
    second: Option<Known>,
    copies: usize,
}

/// One of them.
#[derive(Clone, Debug)]
struct Known {
    tokenizer: Tokenizer,
    /// The tokenizer's ids of the words, in order.
    ids: Vec<u32>,
    /// Rows of the model's own token table.
    vocabulary: u32,
}

/// A caption as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// `[copies, tokens]`, as [`super::step::Batch::ids`] has them.
    pub ids: Vec<u32>,
    /// Likewise, those of the second text encoder, and the place of the end mark among them.
    pub second: Option<(Vec<u32>, usize)>,
    /// What did not fit.
    pub cut: bool,
}

impl Words {
    /// Adds the words to one tokenizer. `vocabulary` is the number of rows of the model's token table,
    /// `copies` the rows of each word.
    #[cfg(test)]
    pub fn new(
        tokenizer: Tokenizer,
        words: &[String],
        vocabulary: usize,
        copies: usize,
    ) -> Result<Words> {
        let first = Known::new(tokenizer, words, vocabulary)?;
        Ok(Words { first, second: None, copies })
    }

    /// Adds the words to the tokenizers of all text encoders of a model. `copies` are the rows of
    /// each word.
    ///
    /// # Errors
    /// A word that the model has already, or that is no word.
    pub fn of(model: &Model, words: &[String], copies: usize) -> Result<Words> {
        let known = |encoder: &TextEncoder| {
            Known::new(encoder.tokenizer.clone(), words, encoder.part.config.vocab_size)
        };
        let second = model.text_encoders.get(1).map(known).transpose()?;
        Ok(Words { first: known(model.text())?, second, copies })
    }

    /// Tokens of a caption, start, end and padding included.
    pub fn length(&self) -> usize {
        self.first.tokenizer.max_length()
    }

    /// The sentence for the user about the picture `path`, whose caption is cut.
    pub fn cut(&self, path: &std::path::Path) -> String {
        format!("{}: its caption is cut after {} tokens", path.display(), self.length() - 2)
    }

    /// Tokenizes a caption that has the words in it. Brackets in it are text.
    ///
    /// # Errors
    /// Text that the vocabulary cannot spell.
    pub fn caption(&self, text: &str) -> Result<Caption> {
        let (ids, _, cut) = self.first.caption(text, self.copies)?;
        let second = self.second.as_ref().map(|known| known.caption(text, self.copies));
        let second = second.transpose()?.map(|(ids, end, _)| (ids, end));
        Ok(Caption { ids, second, cut })
    }
}

impl Known {
    fn new(mut tokenizer: Tokenizer, words: &[String], vocabulary: usize) -> Result<Known> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.iter().try_for_each(|word| check_new(&tokenizer, word))?;
        let ids = tokenizer.add_words(&words)?;
        Ok(Known { tokenizer, ids, vocabulary: vocabulary as u32 })
    }

    /// The ids of all copies of a caption, the place of the end mark, and whether something did not
    /// fit.
    fn caption(&self, text: &str, copies: usize) -> Result<(Vec<u32>, usize, bool)> {
        let options = PromptOptions { syntax: Syntax::Off, ..PromptOptions::default() };
        let encoded = prompt::encode(&self.tokenizer, text, &options)?;
        let first = encoded.chunks.first();
        let chunk = first.map(|chunk| chunk.ids.as_slice()).unwrap_or_default();
        let mut ids = Vec::with_capacity(copies * chunk.len());
        for copy in 0..copies {
            ids.extend(chunk.iter().map(|id| match self.ids.iter().position(|word| word == id) {
                Some(word) => self.vocabulary + (word * copies + copy) as u32,
                None => *id,
            }));
        }
        Ok((ids, first.map_or(0, |chunk| chunk.end), !encoded.warnings.is_empty()))
    }
}

/// Refuses a word that the model reads as a whole already: every prompt with it, and every caption,
/// would mean the concept from then on.
fn check_new(tokenizer: &Tokenizer, word: &str) -> Result<()> {
    match single_token(tokenizer, word) {
        Ok(_) => Err(Error::Word {
            word: word.to_string(),
            reason: format!(
                "the model has this word already, and wherever a prompt has it, it would mean the \
                    concept alone; a new one is needed, such as <{}1>",
                word.trim_matches(['<', '>']).to_lowercase()
            ),
        }),
        Err(_) => Ok(()),
    }
}

/// The id of a word that is a single token of a model's own vocabulary.
///
/// # Errors
/// What the word is instead, in words for the user.
pub fn single_token(tokenizer: &Tokenizer, word: &str) -> std::result::Result<u32, String> {
    let tokens = tokenizer.tokenize(word).map_err(|e| e.to_string())?;
    match tokens.as_slice() {
        [token] => Ok(token.id),
        [] => Err(format!("`{word}` is no word")),
        several => {
            let parts: Vec<String> =
                several.iter().filter_map(|token| tokenizer.token(token.id)).collect();
            let parts = parts
                .iter()
                .map(|part| part.trim_end_matches("</w>"))
                .collect::<Vec<_>>()
                .join(" + ");
            Err(format!(
                "`{word}` is not a single token of this model ({parts}): the class word must be \
                    one that the model knows as a \
                 whole, such as man, woman, dog or chair"
            ))
        }
    }
}

/// The rows that the words start from, `[words * copies, width]` for each text encoder of a model:
/// all copies of a word alike. What is wrong with the initializers comes instead, all of it.
pub fn initial_rows(
    settings: &Settings,
    model: &Model,
    copies: usize,
) -> std::result::Result<Vec<Array>, Vec<String>> {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (number, encoder) in model.text_encoders.iter().enumerate() {
        match rows_of_encoder(settings, encoder, number, copies) {
            Ok(found) => rows.push(found),
            Err(found) => wrong.extend(found),
        }
    }
    // What both encoders lack is said once.
    let mut said = std::collections::HashSet::new();
    wrong.retain(|problem: &String| said.insert(problem.clone()));
    if wrong.is_empty() { Ok(rows) } else { Err(wrong) }
}

fn rows_of_encoder(
    settings: &Settings,
    encoder: &TextEncoder,
    number: usize,
    copies: usize,
) -> std::result::Result<Array, Vec<String>> {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    let (config, mut known) = (&encoder.part.config, TokenRows::default());
    let (width, source) = (config.hidden_size, ComponentSource(encoder.part.component.clone()));
    let draws = Draws::new(settings.seed);
    for (index, from) in settings.initializers.iter().enumerate() {
        let row = match from {
            Initializer::Noise(deviation) => {
                // Each encoder's words have their own.
                let index = number * settings.initializers.len() + index;
                let numbers = draws.at(Purpose::Words, index as u64).normal(width);
                numbers.into_iter().map(|v| v * deviation).collect()
            }
            Initializer::Word(word) => {
                let row = single_token(&encoder.tokenizer, word).and_then(|id| {
                    let row = known.row(&source, config, id).map(<[f32]>::to_vec);
                    row.map_err(|e| format!("{}: {e}", encoder.part.component.path().display()))
                });
                match row {
                    Ok(row) => row,
                    Err(problem) => {
                        wrong.push(problem);
                        continue;
                    }
                }
            }
        };
        (0..copies).for_each(|_| rows.extend_from_slice(&row));
    }
    if wrong.is_empty() {
        Ok(Array::f32([settings.initializers.len() * copies, width], rows))
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::models::clip_text::TOKEN_TABLE;
    use crate::sd::Model;
    use crate::training::config::Options;

    fn tokenizer() -> Tokenizer {
        Tokenizer::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny/tokenizer")).unwrap()
    }

    #[test]
    fn every_copy_has_its_own_tokens() {
        let plain = tokenizer();
        let words =
            Words::new(plain.clone(), &["<zorp1>".into(), "<zorp2>".into()], 5000, 3).unwrap();
        let caption = words.caption("a photo of <zorp1> <zorp2> in a room").unwrap();
        assert!(!caption.cut);
        let copies: Vec<&[u32]> = caption.ids.chunks_exact(words.length()).collect();
        assert_eq!(copies.len(), 3);
        for (copy, ids) in copies.iter().enumerate() {
            assert_eq!(ids[0], plain.bos());
            assert_eq!(ids[4..6], [5000 + copy as u32, 5003 + copy as u32]);
            assert_eq!(ids[9], plain.eos());
            assert_eq!(ids[1..4], copies[0][1..4]);
        }
        assert!(words.caption(&"tree ".repeat(90)).unwrap().cut);
        // Brackets weigh nothing here.
        assert!(words.caption("((tree:1.3))").unwrap().ids.len() == 3 * 77);
        assert!(Words::new(plain.clone(), &["<a>".into(), "<A>".into()], 5000, 1).is_err());
        for word in ["dog", "Dog", "7"] {
            let error = Words::new(plain.clone(), &["<a>".into(), word.into()], 5000, 1);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("\"{word}\"")) && error.contains("already"), "{error}");
        }
        Words::new(plain, &["dogz".into(), "<dog>".into()], 5000, 1).unwrap();
    }

    #[test]
    fn a_class_word_is_one_token() {
        let tokenizer = tokenizer();
        let id = single_token(&tokenizer, "Man").unwrap();
        assert_eq!(tokenizer.token(id).as_deref(), Some("man</w>"));
        let error = single_token(&tokenizer, "xylophone").unwrap_err();
        assert!(
            error.contains("`xylophone` is not a single token") && error.contains(" + "),
            "{error}"
        );
        assert!(single_token(&tokenizer, " ").is_err());
    }

    #[test]
    fn rows_start_from_noise_and_from_the_class_word() {
        let model = Model::open(&Checkpoint::shipped().unwrap()).unwrap();
        let encoder = model.text();
        let settings = |initializers: &str| {
            let given = Options {
                words: Some("<a1> <a2>".into()),
                initializers: Some(initializers.into()),
                pictures: Some("x".into()),
                ..Options::default()
            };
            Settings::new(given).unwrap()
        };
        let width = encoder.part.config.hidden_size;
        let rows = initial_rows(&settings("<rand-0.5> man"), &model, 2).unwrap();
        assert_eq!(rows.len(), 1);
        let rows = &rows[0];
        let rows: Vec<&[f32]> = rows.values().chunks_exact(width).collect();
        assert_eq!(rows.len(), 4);
        assert_eq!((rows[0], rows[2]), (rows[1], rows[3]));
        let deviation = (rows[0].iter().map(|v| v * v).sum::<f32>() / width as f32).sqrt();
        assert!((0.35..0.65).contains(&deviation), "{deviation}");
        let id = single_token(&tokenizer(), "man").unwrap() as usize;
        let table = encoder.part.component.tensor(TOKEN_TABLE).unwrap();
        assert_eq!(rows[2], table.to_f32(id * width..(id + 1) * width));
        let wrong = initial_rows(&settings("xylophone theremin"), &model, 2).unwrap_err();
        assert_eq!(wrong.len(), 2);
    }
}
