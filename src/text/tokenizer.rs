//! CLIP's tokenizer: lowercased text, split into words, each word into byte pairs of the
//! vocabulary.
//!
//! The rules are those of `transformers`' `CLIPTokenizer`: Unicode NFC, runs of white space to one
//! space, lowercase; words are runs of letters, single digits, runs of anything else, and English
//! contractions; each word ends in `</w>`.
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl};

use super::added_word::AddedWord;
use super::vocabulary::{Files, Vocabulary};
use super::{Error, Result};

const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

type Inner = TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// One token of a text and the bytes of the text that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Where in the text it stands, in bytes.
    pub bytes: Range<usize>,
}

/// Turns text into CLIP's token ids.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
    /// Tokens that a word stands for after its own: [`Tokenizer::let_follow`].
    followers: HashMap<u32, Vec<u32>>,
}

impl Tokenizer {
    /// Opens the tokenizer files in `folder` (a model folder's `tokenizer` directory):
    /// `tokenizer.json`, or `vocab.json` and `merges.txt`; with them `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` where there.
    ///
    /// # Errors
    /// Names the file that is missing, unreadable or at odds with the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        Self::from_files(folder, &|name| match std::fs::read_to_string(folder.join(name)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        })
    }

    /// As [`open`](Self::open), from files that `read` gives by name, `None` where there is none;
    /// `folder` stands for their folder in errors.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn from_files(
        folder: &Path,
        read: &dyn Fn(&str) -> std::io::Result<Option<String>>,
    ) -> Result<Self> {
        Self::build(Vocabulary::open(&Files { folder, read })?)
    }

    /// CLIP's standard vocabulary of 49408 tokens, for checkpoints that bring no tokenizer; padded
    /// with the end mark, as SD 1.x has it. For SD 2.x see [`Tokenizer::with_pad`].
    pub fn clip_standard() -> Result<Self> {
        Self::build(Vocabulary::clip_standard()?)
    }

    /// The same tokenizer, padding with the token `pad` (SD 2.x: `"!"`, id 0). As in
    /// `transformers`, the padding token is then a word of its own wherever a prompt has it.
    pub fn with_pad(mut self, pad: &str) -> Result<Self> {
        self.pad = self.mark(pad, "padding")?;
        self.inner.add_special_tokens(&[AddedToken::from(pad, true)]);
        Ok(self)
    }

    fn build(vocabulary: Vocabulary) -> Result<Self> {
        let Vocabulary { path, tokens, merges, added, more, bos, eos, pad, unk, max_length } =
            vocabulary;
        let bad = |reason: String| Error::Invalid { path: path.clone(), reason };
        if tokens.is_empty() {
            return Err(bad("no tokens in it".into()));
        }
        let mut seen = vec![false; tokens.len()];
        for (token, id) in &tokens {
            match seen.get_mut(*id as usize) {
                Some(taken) if !*taken => *taken = true,
                Some(_) => {
                    return Err(bad(format!(
                        "\"{token}\" has the id {id}, which another token has too"
                    )));
                }
                None => {
                    return Err(bad(format!(
                        "\"{token}\" has the id {id}, but there are only {} tokens",
                        tokens.len()
                    )));
                }
            }
        }
        let bpe = BPE::builder()
            .vocab_and_merges(
                tokens.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
                merges,
            )
            .end_of_word_suffix("</w>".into())
            .continuing_subword_prefix(String::new())
            .unk_token(unk)
            .build()
            .map_err(|e| bad(format!("the vocabulary and the merges don't fit each other: {e}")))?;
        let mut inner = pipeline(bpe).map_err(|e| bad(e.to_string()))?;
        // In the order of their ids, so that each gets its own.
        add(&mut inner, added.values().chain(&more));
        for (id, word) in &added {
            let got = inner.token_to_id(&word.content);
            if got != Some(*id) {
                let got = got.map_or("none".to_string(), |n| n.to_string());
                let word = &word.content;
                return Err(bad(format!(
                    "the added token \"{word}\" is to have the id {id}, but would get {got}"
                )));
            }
        }
        let followers = HashMap::new();
        let mut tokenizer = Self { inner, bos: 0, eos: 0, pad: 0, max_length, followers };
        tokenizer.bos = tokenizer.mark(&bos, "the start")?;
        tokenizer.eos = tokenizer.mark(&eos, "the end")?;
        tokenizer.pad = tokenizer.mark(&pad, "padding")?;
        Ok(tokenizer)
    }

    fn mark(&self, token: &str, purpose: &'static str) -> Result<u32> {
        self.token_id(token).ok_or_else(|| Error::NoMark { token: token.to_string(), purpose })
    }

    /// The id that starts every chunk.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends every chunk.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills a chunk after its end.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Tokens in a chunk, start and end included (CLIP: 77).
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Number of tokens, added words included: the rows that the embedding table needs.
    pub fn vocabulary_len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token as the vocabulary spells it (`cat</w>`), or of an added word.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Adds words that are to be single tokens, as textual inversion and concepts need them;
    /// returns their new ids in order. Upper and lower case are the same, as in all of a prompt. A
    /// word that begins or ends with a letter, a digit or `_` is found as a whole word only: `zor`
    /// is no part of `zorp`.
    ///
    /// # Errors
    /// A word that is empty, contains white space or is in the vocabulary already; nothing is added
    /// then.
    pub fn add_words(&mut self, words: &[&str]) -> Result<Vec<u32>> {
        for (n, word) in words.iter().enumerate() {
            let refuse =
                |reason: &str| Error::Word { word: word.to_string(), reason: reason.to_string() };
            let same = |other: &&str| other.to_lowercase() == word.to_lowercase();
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err(refuse("a word has at least one character and no white space"));
            }
            let added = self.inner.get_added_vocabulary().get_vocab();
            if self.token_id(word).is_some()
                || words.iter().take(n).any(same)
                || added.keys().any(|k| same(&k.as_str()))
            {
                return Err(refuse(&format!(
                    "it is a word already; a new one is needed, such as <{}1>",
                    word.trim_matches(['<', '>'])
                )));
            }
        }
        let add_one = |word: &&str| {
            let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let single_word = in_word(word.chars().next()) || in_word(word.chars().next_back());
            add(&mut self.inner, [&AddedWord { single_word, ..AddedWord::word(word.to_string()) }]);
            let reason = || "the tokenizer did not take it".to_string();
            self.inner
                .token_to_id(word)
                .ok_or_else(|| Error::Word { word: word.to_string(), reason: reason() })
        };
        words.iter().map(add_one).collect()
    }

    /// From now on the token `first` stands for itself and then `more` wherever a text has it: the
    /// vectors of an embedding that has several. Where `more` is written out already it stays once.
    pub fn let_follow(&mut self, first: u32, more: Vec<u32>) {
        if !more.is_empty() {
            self.followers.insert(first, more);
        }
    }

    /// The tokens of `text`, neither framed by start and end nor cut.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| Error::Tokenize { reason: e.to_string() })?;
        let ids = encoding.get_ids().iter();
        let tokens = ids
            .zip(encoding.get_offsets())
            .map(|(id, (start, end))| Token { id: *id, bytes: *start..*end });
        if self.followers.is_empty() {
            return Ok(tokens.collect());
        }
        let written: Vec<Token> = tokens.collect();
        let mut all = Vec::with_capacity(written.len());
        for (n, token) in written.iter().enumerate() {
            all.push(token.clone());
            let Some(more) = self.followers.get(&token.id) else { continue };
            if written.get(n + 1).map(|next| next.id) != more.first().copied() {
                all.extend(more.iter().map(|&id| Token { id, bytes: token.bytes.clone() }));
            }
        }
        Ok(all)
    }
}

fn add<'a>(inner: &mut Inner, words: impl IntoIterator<Item = &'a AddedWord>) {
    let token = |word: &AddedWord| {
        AddedToken::from(word.content.as_str(), word.special)
            .single_word(word.single_word)
            .lstrip(word.lstrip)
            .rstrip(word.rstrip)
            .normalized(word.normalized)
    };
    let tokens: Vec<_> = words.into_iter().map(token).collect();
    inner.add_tokens(&tokens);
}

fn pipeline(bpe: BPE) -> tokenizers::Result<Inner> {
    let normalizers: Vec<NormalizerWrapper> = vec![
        NFC.into(),
        Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?.into(),
        Lowercase.into(),
    ];
    let words =
        Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let pre_tokenizers: Vec<PreTokenizerWrapper> =
        vec![words.into(), ByteLevel::new(false, true, true).into()];
    TokenizerBuilder::new()
        .with_model(bpe)
        .with_normalizer(Some(Normalizers::new(normalizers).into()))
        .with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers).into()))
        .with_post_processor(None)
        .with_decoder(None)
        .build()
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
