//! OpenAI's face.

use serde_json::json;

use super::{from_base64, generated, pixels, png, serve};

#[test]
fn pictures_are_generated() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(|_| {});
    let asked = json!({
        "model": "tiny", "prompt": "a red cat", "n": 2, "size": "64x64",
        "response_format": "b64_json",
        "user": "me", "quality": "hd", "seed": 5, "steps": 2,
    });
    let answer = server.post("/v1/images/generations", &asked).ok(200);
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);
    let expected = generated(folder.path(), "--size 64x64 --steps 2 --seed 5 --batch 2");
    assert!(from_base64(&answer["data"][0]["b64_json"]) == expected);
    let models = server.get("/v1/models").ok(200);
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&"list".into(), &"tiny".into()));
    assert_eq!(server.get("/v1/models/tiny").ok(200)["object"], "model");
}

/// A form of parts: names, file names where they are files, contents.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, contents) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        body.extend(
            format!("--border\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                .bytes(),
        );
        body.extend_from_slice(contents);
        body.extend(b"\r\n");
    }
    body.extend(b"--border--\r\n");
    body
}

/// A PNG that is transparent where `x < 32`.
fn half_transparent() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().unwrap();
    let pixels: Vec<u8> = (0..64 * 64u32)
        .flat_map(|i| [i as u8, 80, 160, if i % 64 < 32 { 0 } else { 255 }])
        .collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn pictures_are_edited_where_they_are_transparent() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(|_| {});
    let picture = half_transparent();
    std::fs::write(folder.path().join("a.png"), &picture).unwrap();
    let mask = png(64, 64, |x, _| if x < 32 { [255; 3] } else { [0; 3] });
    std::fs::write(folder.path().join("mask.png"), from_base64(&mask.clone().into())).unwrap();
    let line = "--size 64x64 --steps 2 --seed 5 --init-image @/a.png --mask @/mask.png";
    let expected = generated(folder.path(), line);
    let edit = |parts: &[(&str, Option<&str>, &[u8])]| {
        let usual: [(&str, Option<&str>, &[u8]); 4] = [
            ("prompt", None, b"a red cat"),
            ("size", None, b"64x64"),
            ("seed", None, b"5"),
            ("steps", None, b"2"),
        ];
        let kind = "multipart/form-data; boundary=border";
        let asked = server.ask("POST", "/v1/images/edits").header("Content-Type", kind);
        asked.body(form(&[&usual, parts].concat())).answer()
    };
    // By its own transparency, or by a mask's.
    let opaque = from_base64(&png(64, 64, |x, y| [(y * 64 + x) as u8, 80, 160]).into());
    for parts in [
        vec![("image", Some("a.png"), &picture[..])],
        vec![("image[]", Some("a.png"), &opaque[..]), ("mask", Some("m.png"), &picture[..])],
    ] {
        let answer = edit(&parts).ok(200);
        assert_eq!(pixels(&from_base64(&answer["data"][0]["b64_json"])), pixels(&expected));
    }
    let told =
        edit(&[("image", Some("a.png"), &picture), ("mask", Some("m.png"), &opaque)]).ok(400);
    assert_eq!(
        (&told["error"]["param"], &told["error"]["type"]),
        (&"mask".into(), &"invalid_request_error".into())
    );
    let told = edit(&[]).ok(400);
    assert_eq!(told["error"]["param"], "image");
    let broken =
        server.ask("POST", "/v1/images/edits").header("Content-Type", "text/plain").body("x");
    assert!(broken.answer().ok(400)["error"]["message"].as_str().unwrap().contains("form"));
}

#[test]
fn problems_are_told_as_there() {
    let server = serve(|_| {});
    for (change, status, field, says) in [
        (json!({ "model": "dall-e-3" }), 404, "model", "there are: tiny"),
        (json!({ "n": 11 }), 400, "n", "1 to 10"),
        (json!({ "size": "big" }), 400, "size", "512x512"),
        (json!({ "response_format": "url" }), 400, "response_format", "b64_json"),
        (json!({ "prompt": null }), 400, "prompt", "missing"),
        (json!({ "cats": 1 }), 400, "cats", "no field"),
        (json!({ "size": "9999x9999" }), 400, "size", "pixels"),
        // Only the model knows.
        (json!({ "size": "65x64" }), 400, "width", "multiple"),
    ] {
        let mut asked = json!({ "prompt": "a red cat", "size": "64x64", "steps": 2 });
        asked.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let told = server.post("/v1/images/generations", &asked).ok(status);
        assert_eq!(told["error"]["param"], field, "{change}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains(says), "{change}: {told}");
    }
    let told = server.ask("POST", "/v1/images/generations").body("{").answer().ok(400);
    assert!(told["error"]["message"].as_str().unwrap().starts_with("not JSON"));
    assert_eq!(server.get("/v1/models/none").ok(404)["error"]["code"], "model_not_found");
}
