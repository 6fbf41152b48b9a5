//! The face of AUTOMATIC1111's web UI.

use serde_json::{Value, json};

use super::{concepts, endless, from_base64, generated, paths, pixels, png, serve};

/// The cheapest picture, as clients of web UIs ask for it.
fn asked() -> Value {
    json!({
        "prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "seed": 5, "cfg_scale": 7.5,
        "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 1, "n_iter": 1,
    })
}

const SAME: &str = "--size 64x64 --steps 2 --seed 5 --guidance 7.5 --sampler dpmpp-2m --karras \
    --prompt-syntax on --long-prompt";

#[test]
fn text_becomes_the_command_lines_picture() {
    let (folder, concepts) = (tempfile::tempdir().unwrap(), concepts());
    let server = serve(|options| {
        options.concepts = paths(&concepts);
        options.out = Some(folder.path().join("kept"));
    });
    let answer = server.post("/sdapi/v1/txt2img", &asked()).ok(200);
    let picture = from_base64(&answer["images"][0]);
    assert!(picture == generated(folder.path(), SAME));
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["width"]), (&5.into(), &64.into()));
    assert_eq!(info["sampler_name"], "DPM++ 2M");
    assert!(
        info["infotexts"][0]
            .as_str()
            .unwrap()
            .starts_with("a red cat\nSteps: 2, Sampler: DPM++ 2M")
    );
    assert_eq!(info["warnings"], json!([]));
    assert_eq!(answer["parameters"]["prompt"], "a red cat");
    // Older clients' names; networks in the prompt; several pictures.
    let mut other = asked();
    other["prompt"] = "a red cat <lora:ink:0.5:0.8>".into();
    other
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["sampler_name", "scheduler"].contains(&name.as_str()));
    other["sampler_index"] = "DPM++ 2M Karras".into();
    other["n_iter"] = 2.into();
    other["save_images"] = true.into();
    let answer = server.post("/sdapi/v1/txt2img", &other).ok(200);
    assert_eq!(answer["images"].as_array().unwrap().len(), 2);
    let lora = concepts.path().join("ink.safetensors");
    let line = format!("{SAME} --batch 2 --lora {}:unet=0.8,text=0.5", lora.display());
    assert!(from_base64(&answer["images"][0]) == generated(folder.path(), &line));
    assert_eq!(server.get("/api/gallery").ok(200)["count"], 2);
    // What is in the file is read again.
    let info = server.post("/sdapi/v1/png-info", &json!({ "image": answer["images"][1] })).ok(200);
    assert!(info["info"].as_str().unwrap().contains("Seed: 6"));
    assert_eq!(info["parameters"]["Seed"], "6");
    assert!(info["items"]["mos"].as_str().unwrap().contains("ink"));
}

#[test]
fn pictures_become_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(|_| {});
    let start = png(64, 64, |x, y| [x as u8 * 4, y as u8 * 4, 90]);
    let mask = png(64, 64, |x, _| if x < 32 { [255; 3] } else { [0; 3] });
    let mut asked = asked();
    asked["init_images"] = json!([format!("data:image/png;base64,{start}")]);
    asked["denoising_strength"] = 0.6.into();
    asked["mask"] = mask.clone().into();
    asked["inpainting_fill"] = 1.into();
    let answer = server.post("/sdapi/v1/img2img", &asked).ok(200);
    std::fs::write(folder.path().join("start.png"), from_base64(&start.into())).unwrap();
    std::fs::write(folder.path().join("mask.png"), from_base64(&mask.into())).unwrap();
    let line = format!("{SAME} --init-image @/start.png --mask @/mask.png --strength 0.6");
    let expected = generated(folder.path(), &line);
    assert_eq!(pixels(&from_base64(&answer["images"][0])), pixels(&expected));
    // The other half.
    asked["inpainting_mask_invert"] = 1.into();
    asked["mask_blur"] = 4.into();
    let answer = server.post("/sdapi/v1/img2img", &asked).ok(200);
    assert_ne!(pixels(&from_base64(&answer["images"][0])), pixels(&expected));
    assert!(answer["info"].as_str().unwrap().contains("mask_blur"));
}

#[test]
fn what_is_not_here_is_refused() {
    let server = serve(|_| {});
    for (change, says) in [
        (json!({ "enable_hr": true }), "enable_hr"),
        (json!({ "restore_faces": true }), "restore_faces"),
        (json!({ "script_name": "x/y plot" }), "script_name"),
        (json!({ "alwayson_scripts": { "ADetailer": {} } }), "ADetailer"),
        (json!({ "subseed_strength": 0.5 }), "subseed_strength"),
        (json!({ "styles": ["a"] }), "styles"),
        (json!({ "sampler_name": "Restart" }), "Euler a"),
        (json!({ "scheduler": "Align Your Steps" }), "Automatic, Karras"),
        (json!({ "prompt": "a <lora:../../x:1>" }), "../../x"),
        (json!({ "prompt": "a <hypernet:x:1>" }), "hypernetwork"),
        (
            json!({ "override_settings": { "sd_model_checkpoint": "/etc/passwd" } }),
            "there are: tiny",
        ),
        (json!({ "batch_size": 9, "n_iter": 9 }), "batch is 81"),
    ] {
        let mut asked = asked();
        asked.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/sdapi/v1/txt2img", &asked);
        let told = answer.value();
        assert!([422, 404].contains(&answer.status), "{change}: {told}");
        assert!(told["detail"].as_str().unwrap().contains(says), "{change}: {told}");
    }
    let told = server.post("/sdapi/v1/img2img", &asked()).ok(422);
    assert!(told["detail"].as_str().unwrap().contains("init_images"));
    // What changes nothing is taken, and what is not known is told.
    let mut harmless = asked();
    for (name, value) in [
        ("enable_hr", json!(false)),
        ("styles", json!([])),
        ("alwayson_scripts", json!({})),
        ("subseed", json!(-1)),
        ("script_name", json!(null)),
        ("cats", json!(1)),
    ] {
        harmless[name] = value;
    }
    let answer = server.post("/sdapi/v1/txt2img", &harmless).ok(200);
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert!(info["warnings"][0].as_str().unwrap().contains("`cats`"), "{info}");
    assert_eq!(info["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn lists_and_options_are_there() {
    let (models, concepts) = (tempfile::tempdir().unwrap(), concepts());
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    #[cfg(unix)]
    std::os::unix::fs::symlink(tiny, models.path().join("mine")).unwrap();
    let server = serve(|options| {
        options.concepts = paths(&concepts);
        options.models = paths(&models);
    });
    let samplers = server.get("/sdapi/v1/samplers").ok(200);
    assert!(samplers.as_array().unwrap().iter().any(|sampler| sampler["name"] == "Euler a"));
    assert_eq!(server.get("/sdapi/v1/schedulers").ok(200)[1]["name"], "karras");
    assert_eq!(server.get("/sdapi/v1/loras").ok(200)[0]["name"], "ink");
    assert_eq!(server.get("/sdapi/v1/upscalers").ok(200), json!([]));
    let names = |value: Value| -> Vec<String> {
        let models = value.as_array().unwrap().iter();
        models.map(|model| model["model_name"].as_str().unwrap().to_string()).collect()
    };
    let listed = names(server.get("/sdapi/v1/sd-models").ok(200));
    assert_eq!(listed, if cfg!(unix) { vec!["mine", "tiny"] } else { vec!["tiny"] });
    // The first by name is taken, until another is chosen.
    let chosen = || server.get("/sdapi/v1/options").ok(200)["sd_model_checkpoint"].clone();
    assert_eq!(chosen(), listed[0].as_str());
    let set = |value: Value| server.post("/sdapi/v1/options", &value);
    assert_eq!(set(json!({ "sd_model_checkpoint": "tiny [0123456789]" })).ok(200), Value::Null);
    assert_eq!(chosen(), "tiny");
    assert_eq!(set(json!({ "sd_model_checkpoint": "none" })).status, 404);
    assert!(set(json!({ "cats": 3 })).ok(200)["warnings"][0].as_str().unwrap().contains("cats"));
    // The same model by both names makes the same picture.
    let mut asked = asked();
    let pixels_of = |asked: &Value| {
        pixels(&from_base64(&server.post("/sdapi/v1/txt2img", asked).ok(200)["images"][0]))
    };
    let by_choice = pixels_of(&asked);
    asked["override_settings"] = json!({ "sd_model_checkpoint": listed[0] });
    assert_eq!(pixels_of(&asked), by_choice);
}

#[test]
fn progress_is_told_and_an_interrupt_ends_it() {
    let server = serve(|_| {});
    assert_eq!(server.get("/sdapi/v1/progress").ok(200)["progress"], 0.0);
    let asked = endless();
    let (address, waiting) = (server.address, asked.clone());
    let client = std::thread::spawn(move || {
        super::Asking::new(address, "POST", "/sdapi/v1/txt2img").json(&waiting).answer()
    });
    server.until("it samples", || {
        server.get("/sdapi/v1/progress").ok(200)["state"]["sampling_step"].as_u64().unwrap() > 0
    });
    let told = server.get("/sdapi/v1/progress?skip_current_image=true").ok(200);
    assert!(told["current_image"].is_null());
    server.until("there is a preview", || {
        let told = server.get("/sdapi/v1/progress").ok(200);
        let image = &told["current_image"];
        image.is_string() && pixels(&from_base64(image)).width() == 256
    });
    let told = server.get("/sdapi/v1/progress").ok(200);
    let share = told["progress"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "{told}");
    assert_eq!(told["state"]["sampling_steps"], 150);
    server.post("/sdapi/v1/interrupt", &json!({})).ok(200);
    let answer = client.join().unwrap();
    assert!(answer.ok(409)["detail"].as_str().unwrap().contains("cancelled"));
    server.until("it is idle", || server.busy() == 0);
}
