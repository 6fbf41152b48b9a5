//! From a prompt with concept words to the token ids that each cross-attention reads.
//!
//! A concept word is one token with an embedding for every cross-attention of the UNet
//! (Mix-of-Show, section 3.2, after P+). The embeddings of all words in use are one table that
//! continues the text encoder's: in the copy of a prompt that is for cross-attention `i`, a word
//! with several rows reads its row `i`, one with a single row reads that one.

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::graph::Array;
use crate::text::Tokenizer;
use crate::text::prompt::EncodedPrompt;

use super::{Concept, Error, Network, Result};

/// What of a model words are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The text encoder.
    pub encoder: Network,
    /// Rows of its token table.
    pub rows: usize,
    /// Width of a row.
    pub width: usize,
    /// Cross-attentions of the UNet.
    pub layers: usize,
}

/// A word whose rows are in the model's own token table: fused models list them in
/// `new_concept_cfg.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedWord {
    pub text: String,
    /// Its token in each cross-attention, or one for all.
    pub ids: Vec<u32>,
}

/// The words of a fused model: `{"<word>": {"concept_token_ids": [..], ..}, ..}`. None where a
/// model brings no such list.
///
/// # Errors
/// A list of another form; ids beyond the token table are found when they are read.
pub fn fused_words(checkpoint: &Checkpoint) -> Result<Vec<FusedWord>> {
    let Some(list) = &checkpoint.concepts else { return Ok(Vec::new()) };
    let read = |(text, entry): (&String, &Value)| {
        let ids = entry["concept_token_ids"]
            .as_array()?
            .iter()
            .map(|id| u32::try_from(id.as_u64()?).ok());
        let ids = ids.collect::<Option<Vec<u32>>>().filter(|ids| !ids.is_empty())?;
        Some(FusedWord { text: text.clone(), ids })
    };
    let words = list.as_object().and_then(|list| list.iter().map(read).collect());
    let path = checkpoint.path.join("new_concept_cfg.json");
    let problem = "expected an object of words, each with a list `concept_token_ids`".to_string();
    words.ok_or(Error::File { path, problem })
}

/// All concept words in use, bound to a model.
#[derive(Clone, Debug)]
pub struct Words {
    tokenizer: Tokenizer,
    bound: Vec<Bound>,
    rows: Array,
}

#[derive(Clone, Debug)]
struct Bound {
    text: String,
    /// What the tokenizer makes of it.
    token: u32,
    /// What the text encoder is to read: one for each cross-attention, or one for all.
    ids: Vec<u32>,
}

impl Words {
    /// Adds the words of `concepts` and of a fused model to those that `tokenizer` knows.
    ///
    /// # Errors
    /// Two concepts with the same word, a word that the model has already, embeddings of another
    /// width or number than the model asks for.
    pub fn new<'a>(
        tokenizer: &Tokenizer,
        table: Table,
        concepts: impl IntoIterator<Item = &'a Concept>,
        fused: &[FusedWord],
    ) -> Result<Words> {
        let mut words = Words {
            tokenizer: tokenizer.clone(),
            bound: Vec::new(),
            rows: Array::f32([0, table.width], Vec::new()),
        };
        let mut owners: HashMap<String, String> = HashMap::new();
        let mut rows = Vec::new();
        for word in fused {
            owners.insert(word.text.to_lowercase(), "the fused model".into());
            words.add(&word.text, word.ids.clone(), "the fused model")?;
        }
        words.gather(fused.iter().map(|word| &*word.text));
        for concept in concepts {
            for word in &concept.words {
                if let Some(first) = owners.insert(word.text.to_lowercase(), concept.name.clone()) {
                    return Err(Error::SameWord {
                        word: word.text.clone(),
                        first,
                        second: concept.name.clone(),
                    });
                }
                let (concept, text) = (concept.name.clone(), word.text.clone());
                let own = word.rows(table.encoder);
                let (layers, width) = (own.shape.rows(), own.shape.channels());
                if own.values().is_empty() {
                    let network = table.encoder;
                    return Err(Error::NoRows { concept, word: text, network });
                }
                if width != table.width {
                    return Err(Error::WordWidth {
                        concept,
                        word: text,
                        found: width,
                        expected: table.width,
                    });
                }
                if layers != 1 && layers != table.layers {
                    return Err(Error::WordLayers {
                        concept,
                        word: text,
                        found: layers,
                        expected: table.layers,
                    });
                }
                let first = table.rows + rows.len() / table.width.max(1);
                rows.extend_from_slice(own.values());
                let ids = (first..first + layers).map(|id| id as u32).collect();
                words.add(&word.text, ids, &concept)?;
            }
            words.gather(concept.words.iter().map(|word| &*word.text));
        }
        words.rows = Array::f32([rows.len() / table.width.max(1), table.width], rows);
        Ok(words)
    }

    fn add(&mut self, text: &str, ids: Vec<u32>, owner: &str) -> Result<()> {
        let refused =
            |source| Error::Word { concept: owner.to_string(), word: text.to_string(), source };
        let token = self.tokenizer.add_words(&[text]).map_err(refused)?;
        let token = token.first().copied().unwrap_or_default();
        self.bound.push(Bound { text: text.to_string(), token, ids });
        Ok(())
    }

    /// `<a>`, `<a>_1`, `<a>_2` of one concept are the vectors of one word: it stands for all of
    /// them in a prompt.
    fn gather<'w>(&mut self, texts: impl Iterator<Item = &'w str>) {
        let tokens: HashMap<&str, u32> =
            texts.filter_map(|text| Some((text, self.token(text)?))).collect();
        for (text, first) in &tokens {
            let further = (1..).map_while(|i| tokens.get(format!("{text}_{i}").as_str()).copied());
            self.tokenizer.let_follow(*first, further.collect());
        }
    }

    /// A prompt has one of these words, however it is spelt.
    pub fn any_in<'w>(&self, mut words: impl Iterator<Item = &'w str>, prompt: &str) -> bool {
        let tokens = self.tokenizer.tokenize(prompt).unwrap_or_default();
        words.any(|word| {
            self.token(word).is_some_and(|id| tokens.iter().any(|token| token.id == id))
        })
    }

    /// The tokenizer that reads every word as one token.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The rows that continue the token table, `[rows, width]`.
    pub fn rows(&self) -> &Array {
        &self.rows
    }

    /// How many copies of a prompt the cross-attentions read: one for all where no word in it has
    /// several rows.
    pub fn copies(&self, prompt: &EncodedPrompt) -> usize {
        let used = self.bound.iter().filter(|bound| !prompt.positions_of(bound.token).is_empty());
        used.map(|bound| bound.ids.len()).max().unwrap_or(1).max(1)
    }

    /// The prompt as the cross-attention `layer` reads it: ids from the table's rows on are those
    /// of [`Words::rows`].
    pub fn bind(&self, prompt: &EncodedPrompt, layer: usize) -> EncodedPrompt {
        let id = |bound: &Bound| {
            bound.ids.get(layer).or(bound.ids.last()).copied().unwrap_or(bound.token)
        };
        let replacements: HashMap<u32, u32> =
            self.bound.iter().map(|bound| (bound.token, id(bound))).collect();
        prompt.with_tokens_replaced(&replacements)
    }

    /// Whether a token of a bound prompt ([`Words::bind`]) is one of a concept's words.
    pub fn is_bound(&self, id: u32) -> bool {
        self.bound.iter().any(|bound| bound.ids.contains(&id))
    }

    /// What the tokenizer makes of a word: where it stands in a prompt, by
    /// [`EncodedPrompt::positions_of`].
    pub fn token(&self, word: &str) -> Option<u32> {
        self.bound.iter().find(|bound| bound.text == word).map(|bound| bound.token)
    }

    /// Sentences for the user about what looks like a concept word in `prompt` and is none.
    pub fn unknown_words(&self, prompt: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        // Also where a mark is the beginning of a longer word, as in `<x>2`.
        let tokens = self.tokenizer.tokenize(prompt).unwrap_or_default();
        let in_word = |at: usize| {
            let mut here = tokens.iter().filter(|token| token.bytes.contains(&at));
            here.any(|token| self.bound.iter().any(|bound| bound.token == token.id))
        };
        for (at, _) in prompt.match_indices('<') {
            let Some(text) = prompt.get(at..).and_then(|rest| rest.split_inclusive('>').next())
            else {
                continue;
            };
            let inner = text.trim_start_matches('<').trim_end_matches('>');
            if !text.ends_with('>')
                || inner.is_empty()
                || inner.contains(|c: char| c.is_whitespace() || c == '<')
            {
                continue;
            }
            if in_word(at) || self.tokenizer.token_id(text).is_some() {
                continue;
            }
            warnings.push(match inner.split_once(':') {
                Some(("lora" | "lyco", _)) => {
                    format!(
                        "{text} in the prompt is read as text: a LoRA is given as --lora \
                        FILE:SCALE"
                    )
                }
                _ => format!(
                    "{text} looks like a concept's word, but no concept in use has it: \
                    it is read as text"
                ),
            });
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::Word;
    use crate::text::prompt::{self, PromptOptions};

    const TABLE: Table = Table { encoder: Network::TextEncoder, rows: 1600, width: 2, layers: 3 };

    fn tiny() -> Tokenizer {
        Tokenizer::open(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer"),
        )
        .unwrap()
    }

    fn concept(name: &str, words: &[(&str, usize)]) -> Concept {
        let word = |&(text, layers): &(&str, usize)| {
            let rows = (0..layers * 2).map(|i| i as f32).collect();
            Word::new(text, Array::f32([layers, 2], rows))
        };
        Concept { name: name.into(), words: words.iter().map(word).collect(), ..Concept::default() }
    }

    fn ids(words: &Words, prompt: &str, layer: usize) -> Vec<u32> {
        let options = PromptOptions::default();
        let encoded = prompt::encode(words.tokenizer(), prompt, &options).unwrap();
        let bound = words.bind(&encoded, layer);
        bound.chunks.iter().flat_map(|chunk| chunk.ids[1..chunk.end].to_vec()).collect()
    }

    #[test]
    fn every_layer_reads_its_own_row() {
        let (zorp, style) =
            (concept("zorp", &[("<zorp1>", 3), ("<zorp2>", 3)]), concept("style", &[("<ink>", 1)]));
        let words = Words::new(
            &tiny(),
            TABLE,
            [&zorp, &style],
            &[FusedWord { text: "<old>".into(), ids: vec![9, 8, 7] }],
        )
        .unwrap();
        assert_eq!(words.rows().shape[..], [7, 2]);
        assert_eq!(words.rows().values()[6..8], [0.0, 1.0], "the second word's first row");
        let cat = ids(&words, "a cat", 0);
        for layer in 0..3 {
            let [a, b] = [1600, 1603].map(|first| first + layer as u32);
            let expected = [cat[0], a, b, 1606, 9 - layer as u32];
            assert_eq!(ids(&words, "a <zorp1> <Zorp2> <ink> <old>", layer), expected);
            // Within weights, and glued to other text.
            assert_eq!(ids(&words, "(a <zorp1><zorp2>:1.3)", layer), [cat[0], a, b]);
        }
        let encoded = |prompt: &str| {
            prompt::encode(words.tokenizer(), prompt, &PromptOptions::default()).unwrap()
        };
        assert_eq!(words.copies(&encoded("a cat <ink>")), 1);
        assert_eq!(words.copies(&encoded("a cat (<zorp2>:1.2) BREAK <ink>")), 3);
        let ids = |word: &str| {
            words.bound.iter().find(|bound| bound.text == word).map(|bound| &bound.ids[..])
        };
        assert_eq!((ids("<ink>"), ids("<none>")), (Some(&[1606][..]), None));
    }

    #[test]
    fn words_of_several_vectors_act_with_all_of_them() {
        let parts = |name: &str| [name.to_string(), format!("{name}_1"), format!("{name}_2")];
        let (sharp, plain) = (parts("<a>"), parts("EasyNegative"));
        let of = |parts: &[String; 3]| {
            concept(&parts[0], &parts.each_ref().map(|text| (text.as_str(), 1)))
        };
        let words = Words::new(&tiny(), TABLE, [&of(&sharp), &of(&plain)], &[]).unwrap();
        let [a, e] = [vec![1600, 1601, 1602], vec![1603, 1604, 1605]];
        for prompt in ["<a>", "<A>", "<a> <a>_1 <a>_2", "(<a>:1.2)", "((<a>))"] {
            assert_eq!(ids(&words, prompt, 0), a, "{prompt}");
        }
        for prompt in [
            "EasyNegative",
            "easynegative",
            "EASYNEGATIVE",
            "(EasyNegative:1.2)",
            "(easynegative:1.2)",
        ] {
            assert_eq!(ids(&words, prompt, 0), e, "{prompt}");
        }
        let weighted =
            prompt::encode(words.tokenizer(), "(EasyNegative:1.2)", &PromptOptions::default())
                .unwrap();
        assert_eq!(weighted.chunks[0].weights[..5], [1.0, 1.2, 1.2, 1.2, 1.0]);
        assert_eq!(ids(&words, "<a> and <a>", 0).len(), 7);
        // A fused model has such words as well.
        let fused = sharp.map(|text| FusedWord { ids: vec![text.len() as u32], text });
        let words = Words::new(&tiny(), TABLE, [], &fused).unwrap();
        assert_eq!(ids(&words, "<A>", 0), [3, 5, 5]);
    }

    #[test]
    fn a_name_within_another_is_not_that_name() {
        let names = ["zor", "zorp", "zorp2", "zorp-x", "<zorp>", "<zorp>2", "my_zorp"];
        let all = concept("all", &names.map(|text| (text, 1)));
        let words = Words::new(&tiny(), TABLE, [&all], &[]).unwrap();
        let of = |name: &str| 1600 + names.iter().position(|n| *n == name).unwrap() as u32;
        for (prompt, expected) in [
            ("zorp", vec!["zorp"]),
            ("Zorp2", vec!["zorp2"]),
            ("zorp zorp2", vec!["zorp", "zorp2"]),
            ("zorp,zorp2 (zor)", vec!["zorp", "zorp2", "zor"]),
            ("zorp-x", vec!["zorp-x"]),
            ("my_zorp", vec!["my_zorp"]),
            ("<zorp><zorp>2 zor", vec!["<zorp>", "<zorp>2", "zor"]),
            ("x<zorp>x", vec!["<zorp>"]),
            ("zorpzorp zorpy azorp zorp3 zorp_1 zor_p azor", vec![]),
        ] {
            let found: Vec<u32> =
                ids(&words, prompt, 0).into_iter().filter(|id| *id >= 1600).collect();
            assert_eq!(found, expected.iter().map(|name| of(name)).collect::<Vec<_>>(), "{prompt}");
            assert_eq!(words.any_in(names.into_iter(), prompt), !expected.is_empty(), "{prompt}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |concepts: &[Concept]| {
            Words::new(&tiny(), TABLE, concepts, &[]).unwrap_err().to_string()
        };
        let found = error(&[concept("a", &[("<x>", 1)]), concept("b", &[("<X>", 1)])]);
        assert!(
            found.contains("`a`") && found.contains("`b`") && found.contains("--rename"),
            "{found}"
        );
        assert!(error(&[concept("a", &[("<x>", 2)])]).contains("2 embeddings"));
        assert!(error(&[concept("a", &[("two words", 1)])]).contains("two words"));
        let wide =
            Words::new(&tiny(), Table { width: 4, ..TABLE }, [&concept("a", &[("<x>", 1)])], &[])
                .unwrap_err();
        assert!(wide.to_string().contains("2 wide"), "{wide}");
    }

    #[test]
    fn strangers_are_told() {
        let words = Words::new(&tiny(), TABLE, [&concept("a", &[("<x>", 1)])], &[]).unwrap();
        assert_eq!(words.unknown_words("a <x> cat <3 and a < b > c, x<>y <X>"), [""; 0]);
        assert!(words.unknown_words("a <y>")[0].contains("<y>"));
        assert!(words.unknown_words("a <lora:ink:0.8>")[0].contains("--lora"));
        let longer = concept("b", &[("<x>2", 1), ("my<y>", 1)]);
        let words = Words::new(&tiny(), TABLE, [&longer], &[]).unwrap();
        assert_eq!(words.unknown_words("É <x>2 cat, MY<y> (<X>2:1.2)"), [""; 0]);
        assert!(words.unknown_words("a <x>")[0].starts_with("<x> looks"));
        assert!(words.unknown_words("a <x>23")[0].starts_with("<x> looks"));
    }
}
