//! The face of its own.

use std::collections::BTreeSet;
use std::io::Read;

use mixofshow::pipeline::recipe::Recipe;
use mixofshow::region::Area;
use serde_json::{Value, json};

use super::{concepts, endless, generated, made_again, paths, pixels, png, serve, small};

#[test]
fn pictures_are_the_command_lines_to_the_byte() {
    let (folder, concepts) = (tempfile::tempdir().unwrap(), concepts());
    let out = folder.path().join("kept");
    let server = serve(|options| {
        options.concepts = paths(&concepts);
        options.out = Some(out.clone());
    });
    let mut job = small();
    job["batch"] = 2.into();
    job["concepts"] = json!([{ "name": "kat", "scale": 0.8, "text_scale": 0.5 }, "ink"]);
    job["regions"] = json!([
        {
            "prompt": "a <kat1>", "negative": "dog", "box": [0, 0, 0.5, 1],
            "concepts": { "ink": 0.3 },
        },
    ]);
    let over = server.made(&job);
    assert_eq!(over["state"], "done", "{over}");
    let pictures = over["pictures"].as_array().unwrap();
    assert_eq!(pictures.len(), 2);
    assert_eq!([&pictures[0]["seed"], &pictures[1]["seed"]], [5, 6]);
    let sent = server.get(pictures[0]["url"].as_str().unwrap());
    assert_eq!(sent.header("content-type"), Some("image/png"));
    let kept = out.join(pictures[0]["file"].as_str().unwrap());
    assert_eq!(std::fs::read(&kept).unwrap(), sent.body);
    // By a file of a layout, for strengths within a region are no flag's.
    let layout = "[[region]]\nprompt = \"a <kat1>\"\nnegative = \"dog\"\nbox = [0, 0, 0.5, 1]\n\
        concepts = { ink = 0.3 }\n";
    std::fs::write(folder.path().join("layout.toml"), layout).unwrap();
    let line = format!(
        "--size 64x64 --steps 2 --seed 5 --batch 2 --layout @/layout.toml \
            --concept {0}/kat.safetensors:unet=0.8,text=0.5 \
            --lora {0}/ink.safetensors",
        concepts.path().display()
    );
    let expected = generated(folder.path(), &line);
    assert_eq!(pixels(&sent.body), pixels(&expected));
    assert!(sent.body == expected, "the files differ, not the pixels");
    // A second run has the model and the concepts already.
    let again = server.made(&job);
    let again = server.get(again["pictures"][0]["url"].as_str().unwrap());
    assert!(again.body == sent.body);
}

#[test]
fn masks_and_pictures_are_sent_along() {
    let server = serve(|_| {});
    let mut job = small();
    job["image"] = png(64, 64, |x, _| [x as u8 * 4, 0, 0]).into();
    job["mask"] = png(64, 64, |x, _| if x < 32 { [255; 3] } else { [0; 3] }).into();
    job["strength"] = 0.5.into();
    job["regions"] = json!([{
        "prompt": "a blue dog",
        "mask": png(64, 64, |_, y| if y < 32 { [255; 3] } else { [0; 3] }),
    }]);
    let over = server.made(&job);
    assert_eq!(over["state"], "done", "{over}");
    let url = over["pictures"][0]["url"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.png");
    std::fs::write(&file, server.get(url).body).unwrap();
    let (recipe, _) = Recipe::read(&file).unwrap();
    assert_eq!(recipe.image.unwrap().path.to_str(), Some("sent (image)"));
    // No path of this machine is told.
    let Area::Mask(path) = &recipe.request.regions.regions[0].area else { panic!("no mask") };
    assert_eq!(path.to_str(), Some("sent (the mask of region 1)"));
    assert_eq!(recipe.region_masks[0].path, *path);
}

/// A region that was painted with a brush is kept with the picture, so that the command line makes
/// the file again.
#[test]
fn what_was_sent_is_kept_and_the_picture_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kept");
    let server = serve(|options| options.out = Some(out.clone()));
    let half = png(64, 64, |x, y| if y < 32 && x > 3 { [255; 3] } else { [0; 3] });
    let mut job = small();
    job["regions"] = json!([
        { "prompt": "a blue dog", "mask": half },
        { "prompt": "a cat", "mask": half, "weight": 0.5 },
    ]);
    let over = server.made(&job);
    assert_eq!(over["state"], "done", "{over}");
    let file = out.join(over["pictures"][0]["file"].as_str().unwrap());
    let (recipe, _) = Recipe::read(&file).unwrap();
    assert_eq!(recipe.region_masks.len(), 2);
    assert!(recipe.region_masks[0].path.starts_with("inputs"), "{:?}", recipe.region_masks);
    let kept = std::fs::read(&file).unwrap();
    assert!(made_again(&file) == kept, "the files differ");
    // The whole folder may move.
    let moved = folder.path().join("moved");
    std::fs::rename(&out, &moved).unwrap();
    assert!(made_again(&moved.join(file.file_name().unwrap())) == kept, "the files differ");
    std::fs::create_dir(&out).unwrap();
    // Pictures and masks to start from too: the same pixels.
    let mut job = small();
    job["image"] = png(64, 64, |x, _| [x as u8 * 4, 0, 0]).into();
    job["mask"] = png(64, 64, |x, _| if x < 32 { [255; 3] } else { [9; 3] }).into();
    let over = server.made(&job);
    assert_eq!(over["state"], "done", "{over}");
    let file = out.join(over["pictures"][0]["file"].as_str().unwrap());
    assert_eq!(pixels(&made_again(&file)), pixels(&std::fs::read(&file).unwrap()));
    assert_eq!(std::fs::read_dir(out.join("inputs")).unwrap().count(), 2);
    // None of that is in the gallery.
    let shown = server.get("/api/gallery").value();
    assert_eq!(shown["count"], 1, "{shown}");
}

#[test]
fn clients_see_their_own_jobs_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kept");
    let server = serve(|options| {
        options.out = Some(out.clone());
        options.token = Some("everybody0123456789".into());
        options.clients = [("anna", "anna0123456789abcdef"), ("ben", "ben0123456789abcdef")]
            .map(|(name, token)| (name.to_string(), token.to_string()))
            .to_vec();
    });
    let by = |token: &str, method: &str, path: &str| {
        server.ask(method, path).header("Authorization", &format!("Bearer {token}"))
    };
    let (anna, ben) = ("anna0123456789abcdef", "ben0123456789abcdef");
    let all = "everybody0123456789";
    assert_eq!(server.ask("GET", "/api/jobs").answer().status, 401);
    let mut secret = endless();
    secret["prompt"] = "what only anna knows".into();
    let running = by(anna, "POST", "/api/jobs").json(&secret).answer().ok(202);
    let path = format!("/api/jobs/{}", running["id"].as_str().unwrap());
    server.until("it runs", || by(anna, "GET", &path).answer().value()["state"] == "running");
    let counted = |token: &str| {
        by(token, "GET", "/api/jobs").answer().value()["jobs"].as_array().unwrap().len()
    };
    assert_eq!([anna, ben, all].map(counted), [1, 0, 1]);
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("GET", format!("{path}/events")),
        ("GET", format!("{path}/preview")),
        ("GET", format!("{path}/pictures/0")),
    ] {
        assert_eq!(by(ben, method, &path).answer().status, 404, "{method} {path}");
    }
    // Nor by the web UI's face: it neither sees it nor ends it.
    let told = by(ben, "GET", "/sdapi/v1/progress").answer().value();
    assert!(!told.to_string().contains("anna") && told["progress"] == 0.0, "{told}");
    by(ben, "POST", "/sdapi/v1/interrupt").json(&json!({})).answer().ok(200);
    assert_eq!(by(anna, "GET", &path).answer().value()["state"], "running");
    by(all, "DELETE", &path).answer().ok(200);
    server.until("it is over", || by(anna, "GET", &path).answer().value()["state"] == "cancelled");
    let added = by(ben, "POST", "/api/jobs").json(&small()).answer().ok(202);
    let path = format!("/api/jobs/{}", added["id"].as_str().unwrap());
    server.until("it is done", || by(ben, "GET", &path).answer().value()["state"] == "done");
    let counted = |token: &str| by(token, "GET", "/api/gallery").answer().value()["count"].clone();
    assert_eq!([counted(anna), counted(ben)], [0, 1]);
    let name = by(ben, "GET", &path).answer().value()["pictures"][0]["file"].clone();
    let path = format!("/api/gallery/{}", name.as_str().unwrap());
    assert_eq!(by(anna, "GET", &path).answer().status, 404);
    assert_eq!(by(ben, "GET", &path).answer().status, 200);
    assert!(out.join("ben").join(name.as_str().unwrap()).is_file());
}

#[test]
fn events_tell_of_a_job_up_to_its_end() {
    let server = serve(|_| {});
    let mut job = small();
    job["steps"] = 20.into();
    let added = server.post("/api/jobs", &job).ok(202);
    let events = server.get(&format!("/api/jobs/{}/events", added["id"].as_str().unwrap()));
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let told: Vec<Value> = events
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let states: BTreeSet<&str> = told.iter().map(|job| job["state"].as_str().unwrap()).collect();
    assert!(states.contains("running") && states.contains("done"), "{states:?}");
    assert_eq!(told.last().unwrap()["state"], "done");
    // All jobs, without an end.
    let mut stream = server.ask("GET", "/api/events").send();
    let mut begun = [0; 2048];
    let mut text = String::new();
    while !text.contains("\"state\":\"done\"") {
        let count = stream.read(&mut begun).unwrap();
        assert!(count > 0);
        text += &String::from_utf8_lossy(&begun[..count]);
    }
    assert!(text.contains("event: jobs"), "{text}");
}

#[test]
fn jobs_are_cancelled() {
    let server = serve(|options| options.limits.waiting = 1);
    let running = server.post("/api/jobs", &endless()).ok(202);
    let id = running["id"].as_str().unwrap();
    server
        .until("it runs", || server.get(&format!("/api/jobs/{id}")).value()["state"] == "running");
    let waiting = server.post("/api/jobs", &small()).ok(202);
    assert_eq!(waiting["ahead"], 1);
    server.until("there is a preview", || {
        let told = server.get(&format!("/api/jobs/{id}")).ok(200);
        told["preview"].as_str().is_some_and(|url| server.get(url).status == 200)
    });
    let full = server.post("/api/jobs", &small());
    assert!(full.ok(503)["error"]["message"].as_str().unwrap().contains("waiting"));
    assert!(full.header("retry-after").is_some());
    let gone =
        server.ask("DELETE", &format!("/api/jobs/{}", waiting["id"].as_str().unwrap())).answer();
    assert_eq!(gone.ok(200)["state"], "cancelled");
    server.ask("DELETE", &format!("/api/jobs/{id}")).answer().ok(200);
    assert_eq!(server.over(id)["state"], "cancelled");
    assert_eq!(server.get(&format!("/api/jobs/{id}/preview")).status, 404);
    assert_eq!(server.made(&small())["state"], "done");
}

#[test]
fn what_is_wrong_is_told_in_plain_words() {
    let server = serve(|_| {});
    for (change, field, says) in [
        (json!({ "steps": "many" }), "steps", "a whole number"),
        (json!({ "steps": 151 }), "steps", "150 at most"),
        (json!({ "batch": 17 }), "batch", "16 at most"),
        (json!({ "batch": 0 }), "batch", "1 or more"),
        (json!({ "width": 4096, "height": 4096 }), "size", "4194304 pixels"),
        (json!({ "model": "none" }), "model", "there are: tiny"),
        (json!({ "concepts": ["none"] }), "concepts", "none are listed"),
        (json!({ "sampler": "none" }), "sampler", "expected one of"),
        (json!({ "kind": "none" }), "kind", "generate, train or fuse"),
        (json!({ "cats": 2 }), "cats", "no field"),
        (json!({ "image": "/etc/passwd" }), "image", "image"),
        (
            json!({ "regions": [{ "prompt": "a", "mask": "/etc/passwd" }] }),
            "the mask of region 1",
            "picture",
        ),
        (json!({ "regions": [{ "prompt": "a", "box": [0, 0, 1] }] }), "regions", "3 numbers"),
        (json!({ "regions": [{ "prompt": "a", "mask": ["/etc/passwd"] }] }), "regions", "expected"),
        (json!({ "isolate": true }), "regions", "there are none"),
        (json!({ "prompt": "x".repeat(40_000) }), "a prompt", "bytes"),
        (json!({ "seed": 1.5 }), "seed", "whole number"),
    ] {
        let mut job = small();
        job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/api/jobs", &job);
        let told = answer.value();
        assert!([422, 404].contains(&answer.status), "{change}: {told}");
        assert_eq!(told["error"]["field"], field, "{change}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains(says), "{change}: {told}");
    }
    // What only the model knows is told by the job.
    for (change, field, says) in [
        (json!({ "width": 65 }), "width", "a multiple of 8"),
        (json!({ "steps": 0 }), "steps", "1"),
        (json!({ "clip_skip": 99 }), "", "clip skip"),
        (
            json!({ "controls": [{ "network": "no", "image": png(8, 8, |_, _| [0; 3]) }] }),
            "controls",
            "no control",
        ),
    ] {
        let mut job = small();
        job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let over = server.made(&job);
        assert_eq!(over["state"], "failed", "{change}: {over}");
        assert!(over["error"]["message"].as_str().unwrap().contains(says), "{change}: {over}");
        if !field.is_empty() && field != "steps" {
            assert_eq!(over["error"]["field"], field, "{change}: {over}");
        }
    }
    for (method, path, status) in [
        ("GET", "/api/jobs/99", 404),
        ("GET", "/api/jobs/x", 404),
        ("DELETE", "/api/jobs/99", 404),
        ("GET", "/api/jobs/1/pictures/9", 404),
        ("PUT", "/api/jobs", 405),
        ("GET", "/api/none", 404),
        ("GET", "/none", 404),
    ] {
        let told = server.ask(method, path).answer().ok(status);
        assert!(told["error"]["message"].is_string(), "{told}");
    }
}

#[test]
fn what_there_is_is_told() {
    let (folder, concepts) = (tempfile::tempdir().unwrap(), concepts());
    let server = serve(|options| {
        options.concepts = paths(&concepts);
        options.out = Some(folder.path().to_path_buf());
    });
    let told = server.get("/api/server").ok(200);
    assert_eq!((&told["model"], &told["models"]), (&"tiny".into(), &json!(["tiny"])));
    assert_eq!(told["keeps"], true);
    let listed = server.get("/api/concepts").ok(200);
    let expected = json!([{ "name": "ink", "words": [] }, { "name": "kat", "words": ["<kat1>"] }]);
    assert_eq!(listed["concepts"], expected);
    assert_eq!(server.made(&small())["state"], "done");
    let gallery = server.get("/api/gallery").ok(200);
    let first = &gallery["pictures"][0];
    assert_eq!((&gallery["count"], &first["settings"]["mos"]["seed"]), (&1.into(), &5.into()));
    assert_eq!(server.get(first["url"].as_str().unwrap()).status, 200);
    // Every path of the document is there, and every path that is there is in the document.
    let document = server.get("/api/openapi.json").ok(200);
    let paths = document["paths"].as_object().unwrap();
    let source = include_str!("../../src/server/own/mod.rs");
    let routes: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next())
        .collect();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
    for file in ["/", "/page/main.js", "/page/style.css", "/page/icon.svg"] {
        let page = server.get(file);
        assert_eq!(page.status, 200, "{file}");
        assert!(page.header("content-security-policy").unwrap().contains("default-src 'self'"));
    }
}
