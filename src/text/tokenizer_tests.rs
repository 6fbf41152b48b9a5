use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer")
}

fn copy_of(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files {
        std::fs::copy(tiny().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn write(folder: &tempfile::TempDir, name: &str, value: Value) {
    std::fs::write(folder.path().join(name), value.to_string()).unwrap();
}

/// As `tools/reference/tokenizer.py` makes it.
fn added() -> tempfile::TempDir {
    let folder = copy_of(&["vocab.json", "merges.txt"]);
    let mark = |content: &str| {
        json!({"content": content, "lstrip": false, "normalized": true,
    "rstrip": false, "single_word": false})
    };
    write(
        &folder,
        "tokenizer_config.json",
        json!({"model_max_length": 77, "pad_token": "<|endoftext|>"}),
    );
    write(
        &folder,
        "special_tokens_map.json",
        json!({"bos_token": mark(r"<|startoftext|>"), "eos_token": mark("<|endoftext|>"),
        "unk_token": mark("<|endoftext|>"), "pad_token": "!"}),
    );
    let words = added_words().map(|(id, word)| (word, json!(id))).collect();
    write(&folder, "added_tokens.json", Value::Object(words));
    folder
}

/// The words that are added: "<new0>" to "<new10>" and "Potter1", from id 2088 on.
fn added_words() -> impl Iterator<Item = (u32, String)> {
    let words = (0..11).map(|n| format!("<new{n}>"));
    (2088..).zip(words.chain(["Potter1".to_string()]))
}

fn listing(content: &str, normalized: bool, special: bool) -> Value {
    let flags = json!({"lstrip": false, "rstrip": false, "single_word": false, "content": content});
    let mut entry = flags.as_object().unwrap().clone();
    entry.insert("normalized".into(), normalized.into());
    entry.insert("special".into(), special.into());
    Value::Object(entry)
}

/// As transformers 5 saves added words.
fn saved() -> tempfile::TempDir {
    let folder = copy_of(&["tokenizer_config.json"]);
    let file = std::fs::read_to_string(tiny().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&file).unwrap();
    for (id, word) in added_words() {
        let mut entry = listing(&word, true, false);
        entry["id"] = id.into();
        file["added_tokens"].as_array_mut().unwrap().push(entry);
    }
    write(&folder, "tokenizer.json", file);
    folder
}

/// As transformers 4 lists added words.
fn listed() -> tempfile::TempDir {
    let folder = copy_of(&["vocab.json", "merges.txt"]);
    let mut listed = serde_json::Map::new();
    listed.insert("2086".into(), listing("<|startoftext|>", true, true));
    listed.insert("2087".into(), listing("<|endoftext|>", false, true));
    for (id, word) in added_words() {
        listed.insert(id.to_string(), listing(&word, true, false));
    }
    let end = "<|endoftext|>";
    let config = json!({"added_tokens_decoder": listed, "eos_token": end, "pad_token": end});
    write(&folder, "tokenizer_config.json", config);
    write(&folder, "special_tokens_map.json", json!({"pad_token": "!"}));
    folder
}

fn compare(tokenizer: &Tokenizer, vocabulary: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let expected = &fixture[vocabulary];
    let marks = [tokenizer.bos(), tokenizer.eos(), tokenizer.pad()].map(u64::from);
    assert_eq!(marks, ["bos", "eos", "pad"].map(|k| expected[k].as_u64().unwrap()));
    let prompts = fixture["prompts"].as_array().unwrap();
    assert!(prompts.len() >= 60);
    for (prompt, ids) in prompts.iter().zip(expected["ids"].as_array().unwrap()) {
        let prompt = prompt.as_str().unwrap();
        let tokens = tokenizer.tokenize(prompt).unwrap();
        let got: Vec<u64> = tokens.iter().map(|t| t.id.into()).collect();
        let ids: Vec<u64> = ids.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(got, ids, "{vocabulary}: {prompt:?}");
        for token in tokens {
            assert!(token.bytes.start <= token.bytes.end && token.bytes.end <= prompt.len());
        }
    }
}

#[test]
fn ids_are_those_of_transformers() {
    compare(&Tokenizer::open(tiny()).unwrap(), "tiny");
    compare(&Tokenizer::open(copy_of(&["vocab.json", "merges.txt"]).path()).unwrap(), "tiny");
    compare(&Tokenizer::open(added().path()).unwrap(), "added");
    compare(&Tokenizer::open(saved().path()).unwrap(), "saved");
    compare(&Tokenizer::open(listed().path()).unwrap(), "listed");
    compare(&Tokenizer::clip_standard().unwrap(), "standard");
}

#[test]
fn standard_vocabulary_has_clips_size_and_marks() {
    let tokenizer = Tokenizer::clip_standard().unwrap();
    assert_eq!(tokenizer.vocabulary_len(), 49408);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.max_length()), (49406, 49407, 77));
    assert_eq!(tokenizer.token_id("cat</w>"), Some(2368));
    assert_eq!(tokenizer.with_pad("!").unwrap().pad(), 0);
    let error = Tokenizer::clip_standard().unwrap().with_pad("<none>").unwrap_err().to_string();
    assert!(error.contains("<none>") && error.contains("padding"), "{error}");
}

#[test]
fn offsets_point_into_the_prompt() {
    let tokenizer = Tokenizer::open(tiny()).unwrap();
    let prompt = "  a RED café, cat";
    let tokens = tokenizer.tokenize(prompt).unwrap();
    let last = tokens.last().unwrap();
    assert_eq!(&prompt[last.bytes.clone()], "cat");
    assert_eq!(&prompt[tokens[0].bytes.clone()], "a");
}

#[test]
fn added_words_are_single_tokens() {
    let mut tokenizer = Tokenizer::open(tiny()).unwrap();
    let size = tokenizer.vocabulary_len() as u32;
    assert_eq!(tokenizer.add_words(&["<hina1>", "<hina2>"]).unwrap(), [size, size + 1]);
    let ids: Vec<u32> =
        tokenizer.tokenize("<hina1><HINA2>").unwrap().iter().map(|t| t.id).collect();
    assert_eq!(ids, [size, size + 1]);
    for bad in [
        vec!["<hina1>"],
        vec!["<Hina1>"],
        vec![""],
        vec!["two words"],
        vec!["<x>", "<X>"],
        vec!["<y>", "a b"],
    ] {
        let error = tokenizer.add_words(&bad).unwrap_err();
        assert!(matches!(error, Error::Word { .. }), "{error}");
    }
    assert_eq!(tokenizer.vocabulary_len() as u32, size + 2, "a refused list adds nothing");
}

#[test]
fn length_follows_the_config() {
    let folder = copy_of(&["vocab.json", "merges.txt"]);
    assert_eq!(Tokenizer::open(folder.path()).unwrap().max_length(), 77);
    write(&folder, "tokenizer_config.json", json!({"model_max_length": 33}));
    assert_eq!(Tokenizer::open(folder.path()).unwrap().max_length(), 33);
    write(&folder, "tokenizer_config.json", json!({"model_max_length": 1e30}));
    assert_eq!(Tokenizer::open(folder.path()).unwrap().max_length(), 77);
}

/// Opens the folder, expects an error, and returns its text.
fn refused(folder: &tempfile::TempDir) -> String {
    Tokenizer::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn broken_files_are_named() {
    let folder = copy_of(&["vocab.json"]);
    assert!(refused(&folder).contains("merges.txt"));

    let folder = copy_of(&["vocab.json", "merges.txt"]);
    for (name, text, expected) in [
        ("merges.txt", "#version: 0.2\ni n\nlonely\n", "line 3"),
        ("merges.txt", "zzz qqq\n", "fit each other"),
        ("vocab.json", "{\"a\": 0", "vocab.json"),
        ("vocab.json", "{\"a\": -1}", "id -1"),
        ("vocab.json", "{\"a\": 0, \"b\": 0}", "another token"),
        ("vocab.json", "{\"a\": 7}", "only 1 tokens"),
        ("vocab.json", "{}", "no tokens"),
        ("vocab.json", "[1]", "not a JSON object"),
        ("tokenizer_config.json", "{\"model_max_length\": 0}", "model_max_length"),
        ("tokenizer_config.json", "{\"model_max_length\": \"long\"}", "model_max_length"),
        (
            "special_tokens_map.json",
            "{\"pad_token\": 5}",
            "special_tokens_map.json: not a valid tokenizer file: pad_token",
        ),
        ("added_tokens.json", "{\"<x>\": 5000}", "5000"),
        ("tokenizer.json", "{}", "\"model\""),
        ("tokenizer.json", r#"{"model": {"type": "Unigram"}}"#, "Unigram"),
        (
            "tokenizer.json",
            r#"{"model": {"type":"BPE","end_of_word_suffix":"</w>","vocab":{},"merges":[["a"]]}}"#,
            "merge 0",
        ),
    ] {
        let folder = copy_of(&["vocab.json", "merges.txt"]);
        std::fs::write(folder.path().join(name), text).unwrap();
        let error = refused(&folder);
        assert!(error.contains(expected), "{name} {text}: {error}");
    }

    std::fs::write(folder.path().join("merges.txt"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(refused(&folder).contains("merges.txt"));
    let missing = Tokenizer::open("/no/such/folder").unwrap_err().to_string();
    assert!(missing.contains("/no/such/folder"), "{missing}");
}

#[test]
fn very_long_text_is_tokenized_in_reasonable_time() {
    let tokenizer = Tokenizer::open(tiny()).unwrap();
    let start = std::time::Instant::now();
    let letters = tokenizer.tokenize(&"xq".repeat(100_000)).unwrap().len();
    let words = tokenizer.tokenize(&"cat, ".repeat(50_000)).unwrap().len();
    assert!(letters > 10_000 && words == 100_000);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
