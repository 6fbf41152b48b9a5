//! Concepts that are taught, and models that are fused, as jobs.

use std::path::Path;

use serde_json::json;

use super::{serve, small};

#[test]
fn what_is_taught_and_fused_is_asked_for_next() {
    let folder = tempfile::tempdir().unwrap();
    let [albums, concepts, models] = ["albums", "concepts", "models"].map(|name| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    });
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/concepts/zorp");
    let album = albums.join("zorp");
    std::fs::create_dir(&album).unwrap();
    let pictures = std::fs::read_dir(&source).unwrap().flatten().map(|entry| entry.path());
    for picture in pictures.filter(|path| path.extension().is_some_and(|e| e == "png")).take(4) {
        std::fs::copy(&picture, album.join(picture.file_name().unwrap())).unwrap();
    }
    let server = serve(|options| {
        options.pictures = vec![albums];
        options.concepts = vec![concepts.clone()];
        options.models = vec![models.clone()];
    });
    let told = server.get("/api/server").ok(200);
    assert_eq!((&told["albums"], &told["teaches"]), (&json!(["zorp"]), &true.into()));
    let lesson = json!({
        "kind": "train", "pictures": "zorp", "words": "<zorp1> <zorp2>", "class_word": "man",
        "steps": 2, "size": "64x64", "batch": 1, "accumulate": 1, "sheet_every": 2,
        "sheet_steps": 1, "sheet_scales": [1.0], "prompts": ["<TOK>"], "mask_loss": false,
        "attention_weight": 0.0, "variants": 1,
    });
    let taught = server.made(&lesson);
    assert_eq!(taught["state"], "done", "{taught}");
    let result = &taught["result"];
    assert_eq!((&result["concept"], result["loss"].as_array().unwrap().len()), (&"zorp".into(), 2));
    // A sheet, and the curve.
    assert_eq!(taught["pictures"].as_array().unwrap().len(), 2, "{taught}");
    let url = taught["pictures"][0]["url"].as_str().unwrap();
    assert_eq!(&server.get(url).body[..4], b"\x89PNG");
    let listed = server.get("/api/concepts").ok(200);
    assert_eq!(listed["concepts"][0]["words"], json!(["<zorp1>", "<zorp2>"]));
    // What is there is not replaced.
    let again = server.post("/api/jobs", &lesson).ok(409);
    assert_eq!(again["error"]["field"], "name", "{again}");
    let mut job = small();
    job["prompt"] = "a <zorp1> <zorp2>".into();
    job["concepts"] = json!(["zorp"]);
    assert_eq!(server.made(&job)["state"], "done");

    let fusion = json!({
        "kind": "fuse", "name": "both", "concepts": [{ "name": "zorp", "scale": 0.9 }], "steps": 1,
        "width": 64, "height": 64, "distillation": 0, "solver": "average",
    });
    let fused = server.made(&fusion);
    assert_eq!(fused["state"], "done", "{fused}");
    assert!(fused["result"]["report"].as_str().unwrap().contains("zorp"), "{fused}");
    assert!(models.join("both/model_index.json").is_file());
    // Nor is a name that means something else: of the model that is there, of the one that ships.
    for name in ["both", "tiny"] {
        let mut again = fusion.clone();
        again["name"] = name.into();
        let told = server.post("/api/jobs", &again).ok(409);
        let says = format!("there is a model `{name}` already");
        assert_eq!(told["error"]["message"].as_str(), Some(&*says), "{told}");
    }
    job["concepts"] = json!([]);
    job["model"] = "both".into();
    assert_eq!(server.made(&job)["state"], "done");

    for (change, field, says) in [
        (json!({ "pictures": "../albums/zorp" }), "pictures", "there are: zorp"),
        (json!({ "pictures": "/etc" }), "pictures", "there are: zorp"),
        (json!({ "name": "../out" }), "name", "letters"),
        (json!({ "output": "/tmp/out.safetensors" }), "output", "no field"),
        (json!({ "prior_folder": "/etc" }), "prior_folder", "no field"),
        (json!({ "masks": "/etc" }), "masks", "no field"),
        (json!({ "model": "/etc/passwd" }), "model", "there are: both"),
        (json!({ "steps": 1_000_000 }), "steps", "20000 at most"),
        (json!({ "batch": 1000 }), "batch", ""),
        (json!({ "words": 7 }), "", "words"),
    ] {
        let mut lesson = lesson.clone();
        lesson["name"] = "other".into();
        lesson.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/api/jobs", &lesson);
        let told = answer.value();
        assert!([404, 422].contains(&answer.status), "{change}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains(says), "{change}: {told}");
        if !field.is_empty() && !says.is_empty() {
            assert_eq!(told["error"]["field"], field, "{change}: {told}");
        }
    }
    for (change, says) in [
        (json!({ "name": "../both" }), "letters"),
        (json!({ "concepts": [] }), "1 to 64"),
        (json!({ "concepts": ["zorp", "zorp"] }), "`zorp` twice"),
        (json!({ "concepts": ["/etc/passwd"] }), "there are: zorp"),
        (json!({ "solver": "magic" }), "exact or average"),
        (json!({ "out": "/tmp/x" }), "no field"),
        (json!({ "scenes": 2 }), "scenes is of the distillation, which is off"),
        (json!({ "distillation_rate": 0.01 }), "distillation is 0"),
        (json!({ "distillation": 1, "scenes": 1001 }), "scenes is 1001: expected a whole number"),
        (json!({ "distillation": 1, "distillation_rank": 0 }), "from 1 to 1024"),
        (json!({ "distillation": 1, "scene_strength": -1 }), "a number above 0"),
        (json!({ "distillation": 1, "scenes": 0, "scene_strength": 2 }), "scenes is 0"),
        (json!({ "distillation": 1, "scenes": 1, "one_prompt": 2 }), "one_prompt is 2"),
    ] {
        let mut fusion = fusion.clone();
        fusion["name"] = "another".into();
        fusion.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/api/jobs", &fusion);
        assert!([404, 422].contains(&answer.status), "{change}: {}", answer.text());
        assert!(answer.text().contains(says), "{change}: {}", answer.text());
    }
}
