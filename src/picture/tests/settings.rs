use super::super::parameters::{format, parse, read};
use super::*;
use serde_json::json;

fn made(prompt: &str, negative: &str, settings: &[(&str, &str)]) -> Parameters {
    Parameters {
        prompt: prompt.into(),
        negative_prompt: negative.into(),
        settings: settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Parameters::default()
    }
}

const PLAIN: [(&str, &str); 6] = [
    ("Steps", "20"),
    ("Sampler", "Euler a"),
    ("CFG scale", "7"),
    ("Seed", "1"),
    ("Size", "512x384"),
    ("Model", "tiny"),
];

#[test]
fn text_has_the_web_uis_form() {
    let text = format(&made("a red cat, snow", "blurry", &PLAIN));
    let settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x384, Model: tiny";
    assert_eq!(text, format!("a red cat, snow\nNegative prompt: blurry\n{settings}"));
    assert_eq!(format(&made("a cat", "", &PLAIN)), format!("a cat\n{settings}"));
    assert_eq!(format(&made("", "", &PLAIN)), settings);
    assert_eq!(
        format(&made("x", "", &[("Model", "a, \"b\": c\nd")])),
        "x\nModel: \"a, \\\"b\\\": c\\nd\""
    );
}

#[test]
fn a_web_uis_text_is_read() {
    let text = "masterpiece, (a lighthouse:1.3) at dusk,\nstormy sea <lora:waves:0.6>\r\nNegative \
        prompt: lowres, text: bad,\n(worst quality:1.4)\nSteps: 28, Sampler: DPM++ 2M SDE, \
        Schedule type: Karras, CFG scale: 6.5, Seed: 3141592653, Size: 640x448, Model hash: \
        0123abcdef, Model: sea-v1.5, Lora hashes: \"waves: 00ff00ff00ff, foam: abc\", ControlNet \
        0: \"Module: canny, Weight: 1.0\", Hires upscale: 2, Version: v1.9.0";
    let read = parse(text);
    assert_eq!(
        read.prompt,
        "masterpiece, (a lighthouse:1.3) at dusk,\nstormy sea <lora:waves:0.6>"
    );
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
fn lines_after_the_settings_are_set_aside() {
    let settings = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1";
    let read = parse(&format!(
        "a cat\nNegative prompt: dog\n{settings}\nTemplate: {{a|b}} cat, x: y, z: w\nNegative \
            Template: c"
    ));
    assert_eq!(
        (read.prompt.as_str(), read.negative_prompt.as_str(), read.get("Seed")),
        ("a cat", "dog", Some("1"))
    );
    assert_eq!(read.rest, "Template: {a|b} cat, x: y, z: w\nNegative Template: c");
    // Of several lines that could be the settings, the last.
    let read = parse(&format!("a cat\nSteps: 1, Sampler: x, Seed: 5\n{settings}"));
    assert_eq!(
        (read.prompt.as_str(), read.get("Seed"), read.rest.as_str()),
        ("a cat\nSteps: 1, Sampler: x, Seed: 5", Some("1"), "")
    );
}

/// A chunk of a PNG file.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let mut crc = u32::MAX;
    for byte in &body {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
    }
    [&(data.len() as u32).to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
}

#[test]
fn utf8_where_png_says_latin1_is_read_as_it_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    gradient(4, 4).save(&path, None).unwrap();
    let plain = std::fs::read(&path).unwrap();
    let settings = "\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1";
    for (bytes, prompt) in [
        ("un café, 猫".as_bytes(), "un café, 猫"),
        (&b"un caf\xe9"[..], "un café"),
        (b"caf\xc3\xa9 \xff", "caf\u{c3}\u{a9} \u{ff}"),
    ] {
        // Behind the signature and the header of 25 bytes.
        let text = chunk(b"tEXt", &[b"parameters\0", bytes, settings.as_bytes()].concat());
        std::fs::write(&path, [&plain[..33], &text, &plain[33..]].concat()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().prompt, prompt);
    }
}

#[test]
fn a_jpegs_and_a_webps_exif_is_read() {
    use image::ImageEncoder;
    use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
    let folder = tempfile::tempdir().unwrap();
    let text = "a café\nNegative prompt: dog\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1";
    let comment: Vec<u8> = b"UNICODE\0"
        .iter()
        .copied()
        .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
        .collect();
    // TIFF, big-endian: a directory at 8 with the place of EXIF's, 26; there the comment, at 44.
    let mut exif =
        b"MM\0\x2a\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\x01\x92\x86\0\x07"
            .to_vec();
    exif.extend((comment.len() as u32).to_be_bytes());
    exif.extend([0, 0, 0, 44, 0, 0, 0, 0]);
    exif.extend(comment);
    let rgb = [90u8; 8 * 8 * 3];
    for (name, bytes) in [
        ("a.jpg", &exif),
        ("a.webp", &exif),
        ("bare.jpg", &Vec::new()),
        ("odd.webp", &exif[..20].to_vec()),
    ] {
        let mut file = Vec::new();
        if name.ends_with("jpg") {
            let mut encoder = JpegEncoder::new(&mut file);
            encoder.set_exif_metadata(bytes.clone()).unwrap();
            encoder.write_image(&rgb, 8, 8, image::ExtendedColorType::Rgb8).unwrap();
        } else {
            let mut encoder = WebPEncoder::new_lossless(&mut file);
            encoder.set_exif_metadata(bytes.clone()).unwrap();
            encoder.write_image(&rgb, 8, 8, image::ExtendedColorType::Rgb8).unwrap();
        }
        let path = folder.path().join(name);
        std::fs::write(&path, file).unwrap();
        assert_eq!(read(&path).unwrap(), name.starts_with("a.").then(|| parse(text)), "{name}");
    }
}

/// As piexif, Pillow, Fooocus and ComfyUI write them: see tools/reference/settings.py.
#[test]
fn programs_exif_is_read_however_it_is_written() {
    let text = std::fs::read_to_string(fixture("settings/expected.json")).unwrap();
    let expected: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 28);
    for (name, text) in expected.iter().filter(|(name, _)| !name.starts_with("comfyui")) {
        let found = read(fixture(&format!("settings/{name}"))).unwrap();
        let found = found.unwrap_or_else(|| panic!("{name} has settings"));
        match name.starts_with("fooocus.") {
            true => assert!(found.prompt.starts_with("{\"prompt\": \"a red cat\""), "{name}"),
            false => assert_eq!(found, parse(text), "{name}"),
        }
    }
    // Texts of programs that do not write comments.
    for name in ["comfyui.jpg", "comfyui.webp"] {
        let keywords = ["prompt", "workflow"];
        let found = texts::read(fixture(&format!("settings/{name}")), &keywords).unwrap();
        assert!(found["prompt"].starts_with("{\"3\": {\"class_type\": \"KSampler\""), "{name}");
        assert!(found["workflow"].starts_with("{\"nodes\""), "{name}");
    }
}

#[test]
fn odd_settings_are_passed_over_not_misread() {
    let read = parse("x\n(junk) Steps: 20, : , a: 1, Sampler: \"open, CFG scale: , Seed: 5,");
    assert_eq!(
        read.settings,
        made("", "", &[("Steps", "20"), ("Sampler", "\"open"), ("CFG scale", ""), ("Seed", "5")])
            .settings
    );
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
        let parameters = made(
            "a \"cat\": one, two (red:1.2)\n\nsecond part",
            "no \"dogs\",\nnor: birds",
            &settings,
        );
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
    let own = json!({"prompt": "  a\nNegative prompt: trick\u{0} 红 \"x\"", "seed": u64::MAX,
    "sigma": 0.1, "list": [1, null]});
    // The last one, in Latin-1, has the bytes of "é" in UTF-8.
    for prompt in ["a red cat", "café ÿ", "红猫 🐱", "line\nline", "a \u{c3}\u{a9}"] {
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
