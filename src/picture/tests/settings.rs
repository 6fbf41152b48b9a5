use super::super::parameters::{format, parse, read};
use super::*;
use serde_json::json;

fn made(prompt: &str, negative: &str, settings: &[(&str, &str)]) -> Parameters {
    Parameters {
        prompt: prompt.into(),
        negative_prompt: negative.into(),
        settings: settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        mos: None,
    }
}

const PLAIN: [(&str, &str); 6] =
    [("Steps", "20"), ("Sampler", "Euler a"), ("CFG scale", "7"), ("Seed", "1"), ("Size", "512x384"), ("Model", "tiny")];

#[test]
fn text_has_the_web_uis_form() {
    let text = format(&made("a red cat, snow", "blurry", &PLAIN));
    let settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x384, Model: tiny";
    assert_eq!(text, format!("a red cat, snow\nNegative prompt: blurry\n{settings}"));
    assert_eq!(format(&made("a cat", "", &PLAIN)), format!("a cat\n{settings}"));
    assert_eq!(format(&made("", "", &PLAIN)), settings);
    assert_eq!(format(&made("x", "", &[("Model", "a, \"b\": c\nd")])), "x\nModel: \"a, \\\"b\\\": c\\nd\"");
}

#[test]
fn a_web_uis_text_is_read() {
    let text = "masterpiece, (a lighthouse:1.3) at dusk,\nstormy sea <lora:waves:0.6>\r\nNegative prompt: lowres, text: bad,\n(worst quality:1.4)\nSteps: 28, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 6.5, Seed: 3141592653, Size: 640x448, Model hash: 0123abcdef, Model: sea-v1.5, Lora hashes: \"waves: 00ff00ff00ff, foam: abc\", ControlNet 0: \"Module: canny, Weight: 1.0\", Hires upscale: 2, Version: v1.9.0";
    let read = parse(text);
    assert_eq!(read.prompt, "masterpiece, (a lighthouse:1.3) at dusk,\nstormy sea <lora:waves:0.6>");
    assert_eq!(read.negative_prompt, "lowres, text: bad,\n(worst quality:1.4)");
    assert_eq!(read.settings.len(), 12);
    for (key, value) in [
        ("Steps", "28"),
        ("Sampler", "DPM++ 2M SDE"),
        ("Seed", "3141592653"),
        ("Lora hashes", "waves: 00ff00ff00ff, foam: abc"),
        ("ControlNet 0", "Module: canny, Weight: 1.0"),
        ("Version", "v1.9.0"),
    ] {
        assert_eq!(read.get(key), Some(value), "{key}");
    }
    assert_eq!(read.size(), Some((640, 448)));
    assert_eq!(read.get("Denoising strength"), None);
    // Reading and writing again changes nothing but line ends.
    assert_eq!(parse(&format(&read)), read);
}

#[test]
fn text_without_settings_is_all_prompt() {
    assert_eq!(parse("a cat"), made("a cat", "", &[]));
    assert_eq!(parse(""), made("", "", &[]));
    assert_eq!(parse("a cat: red, big\nNegative prompt: x"), made("a cat: red, big", "x", &[]));
    assert_eq!(parse("time: late, place: sea").prompt, "time: late, place: sea");
    assert_eq!(parse("::,,: \"").prompt, "::,,: \"");
    assert_eq!(parse(&"a ".repeat(100_000)).settings, []);
}

#[test]
fn odd_settings_are_passed_over_not_misread() {
    let read = parse("x\n(junk) Steps: 20, : , a: 1, Sampler: \"open, CFG scale: , Seed: 5,");
    assert_eq!(read.settings, made("", "", &[("Steps", "20"), ("Sampler", "\"open"), ("CFG scale", ""), ("Seed", "5")]).settings);
    let read = parse("x\nSteps: 20, Note: \"a\" b, Seed: 5");
    assert_eq!(read.get("Note"), Some("\"a\" b"));
}

#[test]
fn values_of_any_kind_go_round() {
    let values = [
        "",
        " ",
        "a, b",
        "k: v",
        "two\nlines",
        "\"quoted\"",
        "\"",
        "\\",
        "\\\"",
        " spaces ",
        "红, 猫 🐱",
        "é",
        "tab\tx",
        "x\r\ny",
        "{\"a\": [1, 2]}",
    ];
    for value in values {
        let settings = [("Steps", "20"), ("Odd value", value), ("Seed", "1"), ("Last one", value)];
        let parameters = made("a \"cat\": one, two (red:1.2)\n\nsecond part", "no \"dogs\",\nnor: birds", &settings);
        assert_eq!(parse(&format(&parameters)), parameters, "{value:?}");
    }
}

#[test]
fn settings_can_be_changed() {
    let mut parameters = made("", "", &PLAIN);
    parameters.set("Seed", 7);
    parameters.set("Clip skip", 2);
    assert_eq!((parameters.get("Seed"), parameters.get("Clip skip")), (Some("7"), Some("2")));
    assert_eq!(parameters.settings.len(), PLAIN.len() + 1);
    parameters.set("Size", "wide");
    assert_eq!(parameters.size(), None);
}

#[test]
fn files_carry_settings_of_any_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let picture = gradient(9, 6);
    let own = json!({"prompt": "  a\nNegative prompt: trick\u{0} 红 \"x\"", "seed": u64::MAX, "sigma": 0.1, "list": [1, null]});
    for prompt in ["a red cat", "café ÿ", "红猫 🐱", "line\nline"] {
        for mos in [None, Some(own.clone())] {
            let parameters = Parameters { mos, ..made(prompt, "blurry", &PLAIN) };
            picture.save(&path, Some(&parameters)).unwrap();
            assert_eq!(read(&path).unwrap(), Some(parameters), "{prompt}");
            assert_eq!(Picture::open(&path).unwrap(), picture);
        }
    }
    picture.save(&path, Some(&made("nul\0here", "", &PLAIN))).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().prompt, "nulhere");
    picture.save(&path, None).unwrap();
    assert_eq!(read(&path).unwrap(), None);
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.png", "b.png"].map(|name| folder.path().join(name));
    for path in &paths {
        gradient(9, 6).save(path, Some(&made("红", "b", &PLAIN))).unwrap();
    }
    assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
}

#[test]
fn pillows_text_chunks_are_read() {
    let numbers = numbers();
    for (name, text) in [
        ("text.png", "latin"),
        ("compressed.png", "latin"),
        ("after.png", "latin"),
        ("unicode.png", "unicode"),
        ("unicode_compressed.png", "unicode"),
    ] {
        let parameters = read(fixture(name)).unwrap().unwrap();
        assert_eq!(parameters, parse(numbers[text].as_str().unwrap()), "{name}");
        assert_eq!(parameters.size(), Some((6, 4)), "{name}");
    }
    assert_eq!(read(fixture("grey.png")).unwrap(), None);
    assert_eq!(read(fixture("exif1.jpg")).unwrap(), None);
}

#[test]
fn damaged_settings_are_refused() {
    let error = read(fixture("bomb.png")).unwrap_err().to_string();
    assert!(error.contains("bomb.png") && error.contains("\"parameters\""), "{error}");
    assert!(matches!(read("/no/such.png"), Err(Error::Unreadable { .. })));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let own = Parameters { mos: Some(json!({"seed": 1})), ..made("a", "", &PLAIN) };
    gradient(9, 6).save(&path, Some(&own)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // The settings stand before the picture: they outlive a damaged end.
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    assert_eq!(read(&path).unwrap(), Some(own));
    std::fs::write(&path, &whole[..40]).unwrap();
    assert!(matches!(read(&path), Err(Error::Damaged { .. })));
    let at = whole.windows(4).position(|w| w == b"mos\0").unwrap();
    let mut broken = whole.clone();
    broken[at + 4] = b'}';
    let mut crc = flate2::Crc::new();
    let length = u32::from_be_bytes(broken[at - 8..at - 4].try_into().unwrap()) as usize;
    crc.update(&broken[at - 4..at + length]);
    broken[at + length..at + length + 4].copy_from_slice(&crc.sum().to_be_bytes());
    std::fs::write(&path, &broken).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("\"mos\"") && error.contains("a.png"), "{error}");
}
