//! Reads what defines a CLIP tokenizer: its vocabulary, its merges, its added words and its marks.
//!
//! Sources, as `transformers` reads them: `tokenizer.json`, or `vocab.json` + `merges.txt`;
//! `tokenizer_config.json`, over which `special_tokens_map.json` goes unless the config lists the
//! added tokens itself; `added_tokens.json`.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::added_word::{self, AddedWord};
use super::{Error, Result};

/// The length of CLIP's text encoder, for folders that don't say it.
const DEFAULT_MAX_LENGTH: usize = 77;
/// `transformers` writes 1e30 where it knows no length; nothing above this is believed.
const MAX_BELIEVED_LENGTH: f64 = 65536.0;
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

static CLIP_MERGES: &[u8] = include_bytes!("../../assets/clip_merges.txt.gz");

/// Everything from which a tokenizer is built.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The file to blame when the parts don't fit each other.
    pub path: PathBuf,
    pub tokens: Vec<(String, u32)>,
    pub merges: Vec<(String, String)>,
    /// By the id that each must get.
    pub added: BTreeMap<u32, AddedWord>,
    /// Words that are added without an id being prescribed.
    pub more: Vec<AddedWord>,
    pub bos: String,
    pub eos: String,
    pub pad: String,
    pub unk: String,
    pub max_length: usize,
}

impl Vocabulary {
    /// CLIP's own 49408 tokens: 256 bytes, 256 bytes that end a word, 48894 merges, start and end.
    pub fn clip_standard() -> Result<Self> {
        let path = PathBuf::from("clip_merges.txt.gz (built in)");
        let mut text = String::new();
        flate2::read::GzDecoder::new(CLIP_MERGES)
            .read_to_string(&mut text)
            .map_err(|source| Error::Unreadable { path: path.clone(), source })?;
        let merges = parse_merges(&path, &text)?;
        let letters = byte_letters();
        let words = letters
            .iter()
            .map(|c| c.to_string())
            .chain(letters.iter().map(|c| format!("{c}</w>")))
            .chain(merges.iter().map(|(a, b)| format!("{a}{b}")))
            .chain([START.to_string(), END.to_string()]);
        let tokens = words.zip(0u32..).collect();
        let mut vocabulary = Self::plain(path, tokens, merges);
        vocabulary.more = [START, END].map(|mark| AddedWord::mark(mark.to_string())).to_vec();
        Ok(vocabulary)
    }

    /// Reads the tokenizer files of a model folder's `tokenizer` directory.
    pub fn open(files: &Files) -> Result<Self> {
        let config = files.object("tokenizer_config.json")?;
        let mut added = BTreeMap::new();
        let json = files.folder.join("tokenizer.json");
        let mut vocabulary = if let Some(file) = files.object("tokenizer.json")? {
            let vocabulary = Self::from_tokenizer_json(&json, &file)?;
            added = added_word::of_tokenizer_json(&json, &file)?;
            vocabulary
        } else if let (Some(tokens), Some(merges)) =
            (files.object("vocab.json")?, files.text("merges.txt")?)
        {
            let (vocab, merges_path) =
                (files.folder.join("vocab.json"), files.folder.join("merges.txt"));
            let tokens = tokens_of(&vocab, &tokens)?;
            Self::plain(vocab, tokens, parse_merges(&merges_path, &merges)?)
        } else {
            return Err(Error::NoTokenizer { folder: files.folder.to_path_buf() });
        };
        vocabulary.read_marks(files, config.unwrap_or_default(), added)?;
        Ok(vocabulary)
    }

    fn plain(path: PathBuf, tokens: Vec<(String, u32)>, merges: Vec<(String, String)>) -> Self {
        let [bos, eos] = [START, END].map(String::from);
        Self {
            path,
            tokens,
            merges,
            added: BTreeMap::new(),
            more: Vec::new(),
            bos,
            pad: eos.clone(),
            unk: eos.clone(),
            eos,
            max_length: DEFAULT_MAX_LENGTH,
        }
    }

    fn from_tokenizer_json(path: &Path, file: &Map<String, Value>) -> Result<Self> {
        let bad = |reason: String| Error::Invalid { path: path.to_path_buf(), reason };
        let model = file
            .get("model")
            .and_then(Value::as_object)
            .ok_or_else(|| bad("no \"model\" in it".into()))?;
        let kind = model.get("type").and_then(Value::as_str).unwrap_or("BPE");
        let suffix = model.get("end_of_word_suffix").and_then(Value::as_str).unwrap_or("");
        if kind != "BPE" || suffix != "</w>" {
            return Err(bad(format!(
                "CLIP's is of type \"BPE\" with the word ending \"</w>\", this one of type \
                    \"{kind}\" with \"{suffix}\""
            )));
        }
        let vocab = model
            .get("vocab")
            .and_then(Value::as_object)
            .ok_or_else(|| bad("no \"model.vocab\" in it".into()))?;
        let list = model
            .get("merges")
            .and_then(Value::as_array)
            .ok_or_else(|| bad("no \"model.merges\" in it".into()))?;
        let merges = list
            .iter()
            .enumerate()
            .map(|(n, merge)| {
                let pair = match merge {
                    Value::String(text) => {
                        text.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string()))
                    }
                    Value::Array(parts) => match parts.as_slice() {
                        [Value::String(a), Value::String(b)] => Some((a.clone(), b.clone())),
                        _ => None,
                    },
                    _ => None,
                };
                pair.ok_or_else(|| bad(format!("merge {n} is {merge}, not a pair of tokens")))
            })
            .collect::<Result<_>>()?;
        Ok(Self::plain(path.to_path_buf(), tokens_of(path, vocab)?, merges))
    }

    /// Marks, added words and the length from the small files beside the vocabulary.
    fn read_marks(
        &mut self,
        files: &Files,
        mut config: Map<String, Value>,
        listed: BTreeMap<u32, AddedWord>,
    ) -> Result<()> {
        let config_path = files.folder.join("tokenizer_config.json");
        if let Some(length) = config.get("model_max_length") {
            let number =
                length.as_f64().filter(|n| *n >= 3.0 && n.fract() == 0.0).ok_or_else(|| {
                    Error::Invalid {
                        path: config_path.clone(),
                        reason: format!(
                            "model_max_length is {length}, not a whole number of tokens from 3 on"
                        ),
                    }
                })?;
            if number <= MAX_BELIEVED_LENGTH {
                self.max_length = number as usize;
            }
        }
        let map_path = files.folder.join("special_tokens_map.json");
        let mut from_map = Map::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            self.added = added_word::of_config(&config_path, decoder)?;
        } else {
            if let Some(map) = files.object("special_tokens_map.json")? {
                config.extend(map.clone());
                from_map = map;
            }
            if let Some(words) = files.object("added_tokens.json")? {
                let path = files.folder.join("added_tokens.json");
                for (word, id) in tokens_of(&path, &words)? {
                    self.added.insert(id, AddedWord::word(word));
                }
            }
            self.added.extend(listed);
        }
        let file_of = |key: &str| {
            if from_map.contains_key(key) { map_path.as_path() } else { config_path.as_path() }
        };
        let marks =
            [("bos_token", START), ("eos_token", END), ("unk_token", END), ("pad_token", END)];
        let mut names = Vec::new();
        for (key, default) in marks {
            let value =
                config.get(key).filter(|v| !v.is_null()).cloned().unwrap_or_else(|| default.into());
            names.push(self.read_mark(file_of(key), key, &value)?);
        }
        if let [bos, eos, unk, pad] = names.as_slice() {
            (self.bos, self.eos, self.unk, self.pad) =
                (bos.clone(), eos.clone(), unk.clone(), pad.clone());
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for value in config.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.read_mark(file_of(key), key, value)?;
            }
        }
        Ok(())
    }

    /// One mark, a string or an object with flags; flags that an added word of that name has
    /// already stay.
    fn read_mark(&mut self, path: &Path, key: &str, value: &Value) -> Result<String> {
        let mark = match value {
            Value::String(text) => Some(AddedWord::mark(text.clone())),
            Value::Object(object) => AddedWord::from_object(object, Some(true)),
            _ => None,
        };
        let mark = mark.filter(|m| !m.content.is_empty()).ok_or_else(|| Error::Invalid {
            path: path.to_path_buf(),
            reason: format!("{key} is {value}, neither a token nor an object with \"content\""),
        })?;
        let content = mark.content.clone();
        let known =
            self.added.values_mut().chain(&mut self.more).find(|word| word.content == content);
        match known {
            Some(word) => word.special = true,
            None => self.more.push(mark),
        }
        Ok(content)
    }
}

/// The files of CLIP's standard tokenizer as `transformers` writes them, by name; `pad` is the
/// token that fills up short texts.
///
/// # Errors
/// None that the built-in vocabulary meets.
pub fn standard_files(pad: &str) -> Result<Vec<(String, String)>> {
    let vocabulary = Vocabulary::clip_standard()?;
    let tokens: Map<String, Value> =
        vocabulary.tokens.into_iter().map(|(token, id)| (token, id.into())).collect();
    let mut merges = "#version: 0.2\n".to_string();
    for (a, b) in &vocabulary.merges {
        merges.push_str(a);
        merges.push(' ');
        merges.push_str(b);
        merges.push('\n');
    }
    let marks = serde_json::json!({"bos_token": START, "eos_token": END, "pad_token": pad,
    "unk_token": END});
    let mut config = marks.clone();
    for (key, value) in [
        ("model_max_length", DEFAULT_MAX_LENGTH.into()),
        ("tokenizer_class", Value::from("CLIPTokenizer")),
    ] {
        config[key] = value;
    }
    Ok(vec![
        ("vocab.json".into(), Value::Object(tokens).to_string()),
        ("merges.txt".into(), merges),
        ("special_tokens_map.json".into(), marks.to_string()),
        ("tokenizer_config.json".into(), config.to_string()),
    ])
}

/// GPT-2's printable stand-ins for the 256 bytes, in the order in which CLIP numbers them.
fn byte_letters() -> Vec<char> {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let rest = (0..256u32).filter(|b| !printable(b)).count() as u32;
    (0..256u32).filter(printable).chain(256..256 + rest).filter_map(char::from_u32).collect()
}

fn parse_merges(path: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            [a, b] if !a.is_empty() => merges.push((a.to_string(), b.to_string())),
            _ => {
                return Err(Error::Invalid {
                    path: path.to_path_buf(),
                    reason: format!("line {} is not two tokens with a space between", n + 1),
                });
            }
        }
    }
    Ok(merges)
}

fn tokens_of(path: &Path, object: &Map<String, Value>) -> Result<Vec<(String, u32)>> {
    let pair = |(token, id): (&String, &Value)| {
        let number = id.as_u64().and_then(|n| u32::try_from(n).ok());
        number.map(|n| (token.clone(), n)).ok_or_else(|| Error::Invalid {
            path: path.to_path_buf(),
            reason: format!("token \"{token}\" has the id {id}"),
        })
    };
    object.iter().map(pair).collect()
}

/// The files of a tokenizer.
pub struct Files<'a> {
    /// The folder that they are in, or the name of one that errors are to show.
    pub folder: &'a Path,
    /// A file's text by its name; `None`: there is no such file.
    pub read: &'a dyn Fn(&str) -> io::Result<Option<String>>,
}

impl Files<'_> {
    fn text(&self, name: &str) -> Result<Option<String>> {
        (self.read)(name)
            .map_err(|source| Error::Unreadable { path: self.folder.join(name), source })
    }

    fn object(&self, name: &str) -> Result<Option<Map<String, Value>>> {
        let invalid = |e| Error::Invalid {
            path: self.folder.join(name),
            reason: format!("not a JSON object: {e}"),
        };
        self.text(name)?.map(|text| serde_json::from_str(&text)).transpose().map_err(invalid)
    }
}
