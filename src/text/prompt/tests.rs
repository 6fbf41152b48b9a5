use std::path::PathBuf;

use super::*;

fn tiny() -> Tokenizer {
    Tokenizer::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer"))
        .unwrap()
}

fn read(prompt: &str) -> EncodedPrompt {
    encode(&tiny(), prompt, &PromptOptions::default()).unwrap()
}

/// The words of a prompt with their weights, joined from tokens.
fn weights(prompt: &str) -> Vec<(String, f32)> {
    let tokenizer = tiny();
    let encoded =
        encode(&tokenizer, prompt, &PromptOptions { syntax: Syntax::On, ..Default::default() })
            .unwrap();
    let mut words: Vec<(String, f32)> = vec![(String::new(), 1.0)];
    for chunk in &encoded.chunks {
        for n in 1..chunk.end {
            let token = tokenizer.token(chunk.ids[n]).unwrap();
            let word = words.last_mut().unwrap();
            word.1 = chunk.weights[n];
            match token.strip_suffix("</w>") {
                Some(end) => {
                    word.0 += end;
                    words.push((String::new(), 1.0));
                }
                None => word.0 += &token,
            }
        }
    }
    words.pop();
    words
}

fn same(prompt: &str, expected: &[(&str, f32)]) {
    let got = weights(prompt);
    let ok = got.len() == expected.len()
        && got.iter().zip(expected).all(|(g, e)| g.0 == e.0 && (g.1 - e.1).abs() < 1e-5);
    assert!(ok, "{prompt}: {got:?} instead of {expected:?}");
}

#[test]
fn brackets_weigh() {
    same("a cat", &[("a", 1.0), ("cat", 1.0)]);
    same("a (red) cat", &[("a", 1.0), ("red", 1.1), ("cat", 1.0)]);
    same("a ((red)) cat", &[("a", 1.0), ("red", 1.21), ("cat", 1.0)]);
    same("a [red] cat", &[("a", 1.0), ("red", 1.0 / 1.1), ("cat", 1.0)]);
    same("a [[red]] cat", &[("a", 1.0), ("red", 1.0 / 1.21), ("cat", 1.0)]);
    same("(red:1.5) cat", &[("red", 1.5), ("cat", 1.0)]);
    same("(red : 0.5 ) cat", &[("red", 0.5), ("cat", 1.0)]);
    same("(red:-.5) cat", &[("red", -0.5), ("cat", 1.0)]);
    same("(a (red:1.5) cat:0.5)", &[("a", 0.5), ("red", 0.75), ("cat", 0.5)]);
    same("(a (red) [cat])", &[("a", 1.1), ("red", 1.21), ("cat", 1.0)]);
    same("a () [] cat", &[("a", 1.0), ("cat", 1.0)]);
    same("", &[]);
}

#[test]
fn escapes_and_half_syntax_are_text() {
    same(r"\(red\)", &[("(", 1.0), ("red", 1.0), (")", 1.0)]);
    same(r"(\(red\):1.2)", &[("(", 1.2), ("red", 1.2), (")", 1.2)]);
    same(r"\[ red \]", &[("[", 1.0), ("red", 1.0), ("]", 1.0)]);
    same("red ) cat ]", &[("red", 1.0), (")", 1.0), ("cat", 1.0), ("]", 1.0)]);
    same("red:1.2", &[("red", 1.0), (":", 1.0), ("1", 1.0), (".", 1.0), ("2", 1.0)]);
    same("(red:blue)", &[("red", 1.1), (":", 1.1), ("blue", 1.1)]);
    same(
        "(red:1.2.3)",
        &[("red", 1.1), (":", 1.1), ("1", 1.1), (".", 1.1), ("2", 1.1), (".", 1.1), ("3", 1.1)],
    );
    same("(red:)", &[("red", 1.1), (":", 1.1)]);
    // A backslash before anything else only says that it is text.
    same(r"red\", &[("red", 1.0)]);
    same(r"(red\:1.2)", &[("red", 1.2)]);
    same(r"re\d \\", &[("red", 1.0), (r"\", 1.0)]);
}

#[test]
fn an_unclosed_bracket_weighs_the_rest_and_warns() {
    same("a (red cat", &[("a", 1.0), ("red", 1.1), ("cat", 1.1)]);
    same("a [red (cat", &[("a", 1.0), ("red", 1.0 / 1.1), ("cat", 1.0)]);
    let options = PromptOptions { syntax: Syntax::On, ..Default::default() };
    let encoded = encode(&tiny(), "a (red cat", &options).unwrap();
    assert!(encoded.warnings[0].contains("(red cat"), "{:?}", encoded.warnings);
}

#[test]
fn natural_brackets_take_the_plain_path() {
    let tokenizer = tiny();
    for prompt in [
        "a cat (sitting)",
        "a cat [grey]",
        "ratio (16:9) film",
        "at night (12:30)",
        "smile :) or :( and ((",
        "see (one) and (two) [three (four)]",
        "a coffee break, UNBREAKABLE BREAKS",
        r"C:\dir\file",
        "a cat: 1.2",
    ] {
        let encoded = read(prompt);
        let ids: Vec<u32> = tokenizer.tokenize(prompt).unwrap().iter().map(|t| t.id).collect();
        let chunk = &encoded.chunks[0];
        assert_eq!(chunk.ids[1..chunk.end], ids, "{prompt}");
        assert!(!encoded.weighted && encoded.chunks.len() == 1, "{prompt}");
    }
    assert!(read("a cat (sitting)").warnings[0].contains("(sitting)"));
    assert!(read("a cat").warnings.is_empty());
    // The advice is not what was written already.
    for prompt in ["ratio (16:9) film", "at night (12:30)"] {
        let warnings = read(prompt).warnings;
        assert!(
            warnings[0].contains("--prompt-syntax on") && !warnings[0].contains("1.1"),
            "{warnings:?}"
        );
    }
    let off = PromptOptions { syntax: Syntax::Off, ..Default::default() };
    let encoded = encode(&tokenizer, "a (cat:1.5) BREAK", &off).unwrap();
    assert!(!encoded.weighted && encoded.chunks.len() == 1 && encoded.warnings.is_empty());
}

#[test]
fn unmistakable_marks_turn_the_syntax_on() {
    let named = [
        "(badhandv4:1.4)",
        "(cat_2:1.2)",
        "(a cat2:1.2)",
        "(<zorp1>:1.2)",
        "(v1.5:1.2)",
        "(4k:1.2)",
    ];
    for prompt in ["a (cat:1.2)", "a ((cat))", "a [[cat]]", "(a (red) cat)"].iter().chain(&named) {
        assert!(read(prompt).weighted, "{prompt}");
    }
    let encoded = read(r"a \(cat\) (red)");
    assert!(encoded.weighted && encoded.warnings.is_empty());
    assert_eq!(read("a cat BREAK a dog").chunks.len(), 2);
}

#[test]
fn absurd_weights_are_refused() {
    for prompt in ["(cat:11)", "(cat:-10.5)", "((cat:5):5)", "a (16:900) BREAK"] {
        let error = encode(&tiny(), prompt, &PromptOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Weight { .. }), "{prompt}: {error}");
        assert!(error.to_string().contains("-10 to 10"), "{error}");
    }
    let deep = format!("{}cat{}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(encode(&tiny(), &deep, &PromptOptions::default()).is_err());
}

#[test]
fn break_starts_a_chunk() {
    let tokenizer = tiny();
    let encoded = read("a cat BREAK a dog, (BREAK red:1.5)");
    let texts: Vec<Vec<u32>> = encoded.chunks.iter().map(|c| c.ids[1..c.end].to_vec()).collect();
    let ids =
        |text: &str| tokenizer.tokenize(text).unwrap().iter().map(|t| t.id).collect::<Vec<_>>();
    assert_eq!(texts, [ids("a cat"), ids("a dog,"), ids("red")]);
    assert_eq!(encoded.chunks[2].weights[1], 1.5);
    for chunk in &encoded.chunks {
        assert_eq!((chunk.ids.len(), chunk.weights.len(), chunk.bytes.len()), (77, 77, 77));
        assert_eq!((chunk.ids[0], chunk.ids[chunk.end]), (tokenizer.bos(), tokenizer.eos()));
    }
    assert_eq!(read("BREAK").chunks.len(), 1);
}

#[test]
fn plain_prompts_are_cut_with_a_warning() {
    let prompt = format!("{}the last words", "cat ".repeat(74));
    let encoded = read(&prompt);
    assert_eq!(encoded.chunks.len(), 1);
    let chunk = &encoded.chunks[0];
    assert_eq!((chunk.end, chunk.ids.len(), chunk.ids[76]), (76, 77, tiny().eos()));
    let [warning] = encoded.warnings.as_slice() else { panic!("{:?}", encoded.warnings) };
    assert!(warning.ends_with("\"last words\""), "{warning}");
    assert!(read(&"cat ".repeat(75)).warnings.is_empty());
}

#[test]
fn long_prompts_split_at_commas_near_the_border() {
    let tokenizer = tiny();
    let long = PromptOptions { long_prompt: true, ..Default::default() };
    let lengths = |prompt: &str, options: &PromptOptions| {
        let encoded = encode(&tokenizer, prompt, options).unwrap();
        assert!(encoded.warnings.is_empty());
        encoded.chunks.iter().map(|c| c.end - 1).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&"cat ".repeat(75), &long), [75]);
    assert_eq!(lengths(&"cat ".repeat(160), &long), [75, 75, 10]);
    // 60 words and a comma; 14 more fill the chunk, the 15th does not fit: all 14 move.
    let commas = format!("{}, {}", "cat ".repeat(60), "cat ".repeat(20));
    assert_eq!(lengths(&commas, &long), [61, 20]);
    assert_eq!(lengths(&commas, &PromptOptions { comma_backtrack: 0, ..long.clone() }), [75, 6]);
    assert_eq!(lengths(&commas, &PromptOptions { comma_backtrack: 14, ..long.clone() }), [75, 6]);
    let early = format!("{}, {}", "cat ".repeat(20), "cat ".repeat(60));
    assert_eq!(lengths(&early, &long), [75, 6]);
    let at_border = format!("{}, cat", "cat ".repeat(75));
    assert_eq!(lengths(&at_border, &long), [75, 2]);
    assert_eq!(
        lengths(&format!("{} (cat:1.2)", "cat ".repeat(80)), &PromptOptions::default()),
        [75, 6]
    );
}

#[test]
fn positions_of_words_are_found_and_replaced() {
    let mut tokenizer = tiny();
    let ids = tokenizer.add_words(&["<hina>", "<hina-a>", "<hina-b>"]).unwrap();
    let prompt = "(a <hina>:1.2) cat BREAK <hina>";
    let encoded = encode(&tokenizer, prompt, &PromptOptions::default()).unwrap();
    assert_eq!(encoded.positions_of(ids[0]), [(0, 2), (1, 1)]);
    assert_eq!(encoded.positions_of(ids[1]), []);
    let cat = prompt.find("cat").unwrap();
    assert_eq!(encoded.positions_of_bytes(&(cat..cat + 3)), [(0, 3)]);
    for (chunk, position) in encoded.positions_of(ids[0]) {
        let bytes = encoded.chunks[chunk].bytes[position].clone().unwrap();
        assert_eq!(&prompt[bytes], "<hina>");
    }
    let replaced = encoded.with_tokens_replaced(&HashMap::from([(ids[0], ids[2])]));
    assert_eq!(replaced.positions_of(ids[2]), [(0, 2), (1, 1)]);
    assert_eq!(replaced.positions_of(ids[0]), []);
    assert_eq!(replaced.chunks[0].weights, encoded.chunks[0].weights);
}

#[test]
fn prompts_are_padded_to_the_same_chunks() {
    let tokenizer = tiny().with_pad("!").unwrap();
    let read = |prompt| encode(&tokenizer, prompt, &PromptOptions::default()).unwrap();
    let (mut a, mut b) = (read("a BREAK b BREAK c"), read("ugly"));
    pad_to_same_chunks(&tokenizer, &mut a, &mut b).unwrap();
    assert_eq!((a.chunks.len(), b.chunks.len()), (3, 3));
    let last = &b.chunks[2];
    assert_eq!(
        (last.ids[0], last.ids[1], last.ids[2], last.end),
        (tokenizer.bos(), tokenizer.eos(), 0, 1)
    );
    b.chunks.iter_mut().for_each(|c| c.ids.truncate(5));
    assert!(matches!(
        pad_to_same_chunks(&tokenizer, &mut a, &mut b),
        Err(Error::ChunkLength { .. })
    ));
}

#[test]
fn weights_keep_the_mean() {
    let mut hidden = vec![1.0, 2.0, 3.0, 4.0, -1.0, 6.0];
    apply_weights(&mut hidden, 2, &[1.0, 2.0, 0.5]).unwrap();
    // Weighted: 1 2 6 8 -0.5 3, sum 19.5; before 15.
    let expected = [1.0, 2.0, 6.0, 8.0, -0.5, 3.0].map(|v: f32| v * 15.0 / 19.5);
    for (got, want) in hidden.iter().zip(expected) {
        assert!((got - want).abs() < 1e-5, "{hidden:?}");
    }
    let mut same = vec![0.1, 0.2];
    apply_weights(&mut same, 1, &[1.0, 1.0]).unwrap();
    assert_eq!(same, [0.1, 0.2]);
    let mut zero = vec![1.0, 1.0];
    apply_weights(&mut zero, 1, &[2.0, -2.0]).unwrap();
    assert_eq!(zero, [2.0, -2.0]);
    assert!(apply_weights(&mut zero, 2, &[1.0, 2.0]).is_err());
    assert!(apply_weights(&mut zero, 0, &[]).is_err());
}

/// The prompt in each of `steps` steps.
fn edited(prompt: &str, steps: usize) -> Vec<String> {
    let options = PromptOptions { syntax: Syntax::On, ..Default::default() };
    let reading = super::read(prompt, &options);
    (0..steps).map(|step| reading.at(step, steps).into_owned()).collect()
}

#[test]
fn editing_changes_the_prompt_at_its_step() {
    assert_eq!(
        edited("a [red:blue:2] cat", 4),
        ["a red cat", "a red cat", "a blue cat", "a blue cat"]
    );
    assert_eq!(edited("a [red:blue:.5] cat", 4), edited("a [red:blue:2] cat", 4));
    assert_eq!(
        edited("a [red:blue: 0.5 ] cat", 5),
        edited("a [red:blue:2] cat", 5),
        "parts of steps do not count"
    );
    assert_eq!(edited("a [blue:1]cat", 2), ["a cat", "a bluecat"]);
    assert_eq!(edited("a [red::1]cat", 2), ["a redcat", "a cat"]);
    for (when, text) in [
        ("0", "b"),
        ("-1", "b"),
        ("0.0", "b"),
        ("2", "a"),
        ("1e9", "a"),
        ("+2", "a"),
        ("2e0", "a"),
        ("2e-1", "b"),
        ("99", "a"),
        ("0.99", "a"),
        // With a point it is a share, whatever its value.
        ("1.0", "a"),
        ("1.", "a"),
        ("1.5", "a"),
        ("5e-1", "b"),
        (".5e0", "a"),
        ("-0.5", "b"),
        ("1", "a"),
        ("1e", "[a:b:1e]"),
        ("1.2.3", "[a:b:1.2.3]"),
        ("e1", "[a:b:e1]"),
        ("- 1", "[a:b:- 1]"),
    ] {
        let last = if ["0.99", ".5e0", "1"].contains(&when) { "b" } else { text };
        assert_eq!(edited(&format!("[a:b:{when}]"), 2), [text, last], "{when}");
    }
    // Nested, in brackets that weigh, and with escapes, which are left for later.
    assert_eq!(edited("[a:[b:c:2]:1]", 3), ["a", "b", "c"]);
    assert_eq!(edited("([a:(b:1.2):1]:1.3)", 2), ["(a:1.3)", "((b:1.2):1.3)"]);
    assert_eq!(edited(r"[\[a\]:b\:c:1]", 2), [r"\[a\]", r"b\:c"]);
}

#[test]
fn alternation_takes_turns() {
    assert_eq!(edited("a [red|blue] cat", 3), ["a red cat", "a blue cat", "a red cat"]);
    assert_eq!(edited("[a||c]", 4), ["a", "", "c", "a"]);
    assert_eq!(edited("[a|[b:c:2]]", 4), ["a", "b", "a", "c"]);
    assert_eq!(edited("[(a:1.2)|b]", 2), ["(a:1.2)", "b"]);
}

#[test]
fn what_is_no_editing_is_left_alone() {
    for prompt in [
        "a cat",
        "[cat]",
        "[a:b]",
        "[a:b:c:1]",
        "[a:1|b]",
        "(a:b:1)",
        "(a|b)",
        "a | b: 3",
        "[a:b:1",
        "a:b:1]",
        "[a (b:c:1]",
        r"\[a:b:1\]",
    ] {
        assert_eq!(edited(prompt, 2), [prompt, prompt]);
    }
    // However deep or long.
    for prompt in [
        "[".repeat(50_000),
        "[a:".repeat(20_000) + &":1]".repeat(20_000),
        "(".repeat(9_000) + &")]|".repeat(9_000),
    ] {
        assert_eq!(edited(&prompt, 1).len(), 1);
    }
}

#[test]
fn a_bracket_that_is_not_whole_is_text_and_so_are_those_around_it() {
    for (prompt, steps) in [
        // What is within them keeps its meaning.
        ("((a][:b:c [d:1]", ["((a][:b:c ", "((a][:b:c d"]),
        ("a [x:y] [b:c:1]", ["a [x:y] b", "a [x:y] c"]),
        ("[a (b [c:d:1]", ["[a (b c", "[a (b d"]),
        ("[x ) [a:b:1] ]", ["[x ) a ]", "[x ) b ]"]),
        ("(a:b:[c:d:1])", ["(a:b:c)", "(a:b:d)"]),
        ("[[a:b]:c:1] [d|e]", ["[[a:b]:c:1] d", "[[a:b]:c:1] e"]),
        ("[(a:1.2):b:1]", ["(a:1.2)", "b"]),
        ("[[a]:b:1]", ["[a]", "b"]),
        ("[(a:b:c):d:1] [:e:1]", ["[(a:b:c):d:1] ", "[(a:b:c):d:1] e"]),
        ("[a:b) c:1] [d:1]", ["[a:b) c:1] ", "[a:b) c:1] d"]),
        ("[a:b] c:1] [d::1]", ["[a:b] c:1] d", "[a:b] c:1] "]),
        // These take all editing from the prompt.
        ("a | b [c:d:1]", ["a | b [c:d:1]"; 2]),
        ("(a|b) [c:d:1]", ["(a|b) [c:d:1]"; 2]),
        ("[a:1|b] [c:d:1]", ["[a:1|b] [c:d:1]"; 2]),
        ("[a|b [c:d:1]", ["[a|b [c:d:1]"; 2]),
        ("[c:d:1] \\", ["[c:d:1] \\"; 2]),
        (r"[c:d:1] \|", [r"c \|", r"d \|"]),
    ] {
        assert_eq!(edited(prompt, 2), steps, "{prompt}");
    }
    let warning = |prompt: &str| super::read(prompt, &PromptOptions::default()).warning();
    assert!(warning("a | b [c:d:.5]").unwrap().contains("|"));
    assert!(warning("[c:d:.5]\\").unwrap().contains("backslash"));
    assert_eq!([warning("[c:d:.5]"), warning("a | b"), warning("a | (b:1.2)")], [None, None, None]);
}

#[test]
fn brackets_without_a_counterpart_are_told() {
    let told = |prompt: &str| read(prompt).warnings;
    for (prompt, text) in [
        ("a (red cat", "(red cat\" is never closed"),
        ("a [red:blue:0.5 cat", "[red:blue:0.5 cat\" is never closed"),
        ("a red:1.2) cat", "a red:1.2)\" is never opened"),
        ("a cat] :)", "a cat]\" is never opened"),
        ("(a:1.2) cat)", "a:1.2) cat)\" is never opened"),
        ("(a:1.2) (cat", "(cat\" is never closed and weighs"),
    ] {
        let warnings = told(prompt);
        let [warning] = warnings.as_slice() else { panic!("{prompt}: {warnings:?}") };
        assert!(warning.contains(text), "{prompt}: {warning}");
    }
    for prompt in [":)", ":( ( [", "a) cat, b) dog, 3) bird", ":-[ x_x )", "8)"] {
        assert!(told(prompt).is_empty(), "{prompt}: {:?}", told(prompt));
    }
    assert!(told(&")".repeat(100_000)).len() == 1, "only that it is cut");
}

#[test]
fn editing_turns_the_syntax_on_by_what_is_unmistakable() {
    let reading = |prompt: &'static str| super::read(prompt, &PromptOptions::default());
    for prompt in ["a [red|blue] cat", "a [red:blue:0.5] cat", "a [blue:3] cat", "(a:1.2) [12:30]"]
    {
        assert!(matches!(reading(prompt), super::Reading::Edited(_)), "{prompt}");
        assert_eq!(reading(prompt).options(&PromptOptions::default()).syntax, Syntax::On);
    }
    for prompt in ["at noon [12:30]", "a smile [:3]", "a cat"] {
        assert_eq!(reading(prompt), super::Reading::Plain(prompt));
    }
    let off = PromptOptions { syntax: Syntax::Off, ..Default::default() };
    assert_eq!(super::read("[a:b:0.5] [a|b]", &off), super::Reading::Plain("[a:b:0.5] [a|b]"));
    let warns =
        |prompt: &str| super::warn_of_composing(prompt, &PromptOptions::default()).is_some();
    assert!(warns("a cat AND a dog") && warns("a cat AND"));
    assert!(!warns("a cat and a dog") && !warns("SAND, a BAND") && !warns("A CAT AND A DOG"));
    assert!(super::warn_of_composing("a cat AND a dog", &off).is_none());
}
