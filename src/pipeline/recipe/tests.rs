use super::*;
use crate::graph::Array;
use crate::picture::Picture;
use crate::pipeline::{Compose, Hires, Place};
use crate::random::RngKind;
use crate::region::{Area, Layout, Region};
use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;
use crate::text::prompt::{PromptOptions, Syntax};

fn generated(seeds: &[u64]) -> Generated {
    Generated {
        pictures: vec![Picture::filled(8, 8, [1, 2, 3]).unwrap(); seeds.len()],
        latents: Array::f32([1, 1, 1, 4], vec![0.0; 4]),
        seeds: seeds.to_vec(),
        sampler: SamplerKind::EULER_ANCESTRAL,
        width: 640,
        height: 384,
        warnings: Vec::new(),
        stages: Vec::new(),
        first_pass: None,
        peak_device_bytes: 0,
        planned: Default::default(),
    }
}

fn everything_set() -> Region {
    Region {
        name: Some("left".into()),
        prompt: "a".into(),
        negative: Some("c".into()),
        area: Area::Polygon(vec![[0.0, 0.1], [0.3, 1.0], [0.2, 0.0]]),
        soft: 0.2,
        weight: 2.0,
        order: -1,
        base: 0.3,
        start: 0.1,
        end: 0.7,
        concepts: [("<x>".to_string(), 0.7)].into(),
        controls: [("edges".to_string(), 0.2)].into(),
    }
}

/// Nothing in it is at its default.
fn unusual() -> Recipe {
    let source = |name: &str| Some(Source { path: name.into(), sha256: "ab".repeat(32) });
    Recipe {
        request: Request {
            prompt: "two lines\nNegative prompt: not one, \"quoted\" 猫".into(),
            negative_prompt: " blurry ".into(),
            regions: Layout {
                isolate: true,
                regions: vec![everything_set(), Region { prompt: "b".into(), ..Region::default() }],
                ..Layout::default()
            },
            width: Some(640),
            height: Some(384),
            original_size: Some((1024, 768)),
            crop: Some((12, 34)),
            steps: 31,
            guidance: 7.1,
            sampler: Some(SamplerKind::EULER_ANCESTRAL),
            schedule: Some(Schedule::Beta),
            eta: Some(0.3),
            guidance_rescale: 0.7,
            guidance_interval: [0.1, 0.8],
            cache: 3,
            compose: Compose::Switch(4),
            place: Place::Firm(0.5),
            seed: u64::MAX - 1,
            rng: RngKind::Philox,
            batch: 1,
            clip_skip: 1,
            prompt_options: PromptOptions {
                syntax: Syntax::Off,
                long_prompt: true,
                comma_backtrack: 3,
            },
            strength: 0.55,
            hires: Some(Hires { scale: 1.5, strength: 0.4, steps: Some(9), ..Hires::default() }),
            tile: Some(256),
            ..Request::default()
        },
        model: Some("models/some model.safetensors".into()),
        model_hash: Some("0123456789abcdef".into()),
        vae: source("taesd.safetensors"),
        upscaler: source("4x.pth"),
        precision: Precision::F32,
        image: source("photo.jpg"),
        mask: source("mask.png"),
        latents: source("noise.safetensors"),
        latents_index: 3,
        controls: vec![ControlSource {
            network: "t2i_adapter".into(),
            network_hash: Some("ef".repeat(32)),
            image: source("edges.png").unwrap(),
            make: Some(Made::Canny),
            name: "edges".into(),
            weight: 0.3,
            start: 0.1,
            end: 0.6,
        }],
        region_masks: vec![source("masks/left.png").unwrap()],
        concepts: vec![ConceptSource {
            source: source("zorp, the cat.safetensors").unwrap(),
            scale: 0.7,
            text_scale: Some(1.0),
        }],
        adapter: Some("a card".into()),
        rounding: Some(Rounding { factors: true, activations: true }),
        batch: Some((1, 3)),
        seed_is_open: false,
        kernels: vec![crate::backend::ReplacedKernel {
            name: "sum".into(),
            sha256: "cd".repeat(32),
        }],
    }
}

fn through_a_file(recipe: &Recipe, generated: &Generated, index: usize) -> Recipe {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    generated.pictures[index].save(&path, Some(&recipe.parameters(generated, index))).unwrap();
    let (read, notes) = Recipe::read(&path).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    read
}

#[test]
fn all_settings_survive_in_a_file() {
    let recipe = unusual();
    let read = through_a_file(&recipe, &generated(&[u64::MAX - 1]), 0);
    assert_eq!(format!("{read:?}"), format!("{recipe:?}"));
}

#[test]
fn what_the_model_decided_is_remembered() {
    let read = through_a_file(&Recipe::default(), &generated(&[5, 6, 7]), 2);
    let request = read.request;
    assert_eq!((request.width, request.height), (Some(640), Some(384)));
    assert_eq!(
        (request.seed, request.batch, request.sampler),
        (7, 1, Some(SamplerKind::EULER_ANCESTRAL))
    );
    assert_eq!(read.latents_index, 0);
    let from_latents = Recipe { latents: unusual().latents, ..Recipe::default() };
    assert_eq!(through_a_file(&from_latents, &generated(&[5, 6, 7]), 2).latents_index, 2);
}

#[test]
fn web_uis_read_what_is_written() {
    let found = unusual().parameters(&generated(&[u64::MAX - 1]), 0);
    let text = parameters::format(&found);
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "Steps: 31, Sampler: Euler a, Schedule type: Beta, CFG scale: 7.1, Seed: \
            18446744073709551614, Size: 640x384, \
         Model hash: 0123456789, Model: some model, Concepts: \"zorp, the cat: ababababab x \
         unet=0.7 text=1\", Denoising strength: 0.55, VAE Decoder: TAESD, Clip skip: 2, Eta: 0.3, CFG \
         rescale: 0.7, Skip Early CFG: 0.1, RNG: NV, Version: mos 0.1.0"
    );
}

#[test]
fn one_of_several_that_is_made_again_has_its_place_in_the_batch() {
    let three = unusual().parameters(&generated(&[4, 5, 6]), 1).mos.unwrap();
    let again = stored::read(&three).unwrap();
    assert_eq!(again.batch, Some((1, 3)));
    assert_eq!(again.parameters(&generated(&[5]), 0).mos.unwrap()["batch"], three["batch"]);
    let others = again.parameters(&generated(&[5, 6]), 0).mos.unwrap();
    assert_eq!(others["batch"]["of"], 2);
}

fn foreign(text: &str) -> (Recipe, Vec<String>) {
    foreign::read(&parameters::parse(text))
}

#[test]
fn web_uis_pictures_are_read() {
    let (recipe, notes) = foreign(
        "a (red:1.3) cat\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M Karras, CFG \
            scale: 6.5, Seed: 99, Size: 512x768, \
         Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Clip skip: 2, RNG: CPU, Version: \
         v1.6.0",
    );
    assert_eq!(notes, [""; 0]);
    let request = recipe.request;
    assert_eq!(
        (request.prompt.as_str(), request.negative_prompt.as_str()),
        ("a (red:1.3) cat", "blurry")
    );
    assert_eq!(
        (request.steps, request.guidance, request.seed, request.clip_skip),
        (20, 6.5, 99, 1)
    );
    assert_eq!((request.width, request.height), (Some(512), Some(768)));
    assert_eq!(
        (request.sampler, request.schedule, request.rng),
        (Some(SamplerKind::DPMPP_2M), Some(Schedule::Karras), RngKind::Torch)
    );
    assert_eq!(request.prompt_options.syntax, Syntax::On);
    assert_eq!(recipe.model.as_deref(), Some("v1-5-pruned-emaonly"));
}

#[test]
fn what_has_no_counterpart_is_told() {
    let (recipe, notes) = foreign(
        "a cat\nSteps: many, Sampler: Restart, CFG scale: 7, Seed: 1, Size: large, Schedule type: \
            Exponential, Lora hashes: \"a: b\", \
         Denoising strength: 0.4",
    );
    let request = recipe.request;
    assert_eq!(
        (request.steps, request.sampler, request.width),
        (Request::default().steps, None, None)
    );
    // Without a word about it they draw on the card.
    assert_eq!(request.rng, RngKind::Philox);
    for name in [
        "Steps: many",
        "Sampler: Restart",
        "Size: large",
        "Schedule type: Exponential",
        "Lora hashes",
        "another one",
    ] {
        assert!(notes.iter().any(|note| note.contains(name)), "{name} in {notes:?}");
    }
    let (_, notes) =
        foreign("a cat\nSteps: 5, Sampler: Euler, Seed: 1, Size: 512x512\nTemplate: a {cat|dog}");
    assert!(notes.iter().any(|note| note.contains("Template: a {cat|dog}")), "{notes:?}");
    assert!(!recipe.seed_is_open);
    let (recipe, notes) = foreign("a cat\nSteps: 5, Sampler: Euler, Seed: many, Size: 64x64");
    assert!(recipe.seed_is_open && notes[0].contains("Seed: many"), "{notes:?}");
    let (recipe, notes) = foreign("a cat\nSteps: 5, Sampler: LCM Karras, Seed: 1, Size: 512x512");
    assert!(recipe.request.schedule.is_none() && notes[0].contains("LCM"), "{notes:?}");
}

#[test]
fn settings_of_extensions_are_told_by_their_names() {
    let (_, notes) = foreign(
        "a cat\nSteps: 5, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model hash: ab, \
            ADetailer model: face.pt, ADetailer prompt: \"a, b\", ADetailer version: 24, \
            Hires upscale: 2, Mimic: 3, Version: v1.9, RNG: CPU",
    );
    let others = "not known here are left out, whatever they did: ADetailer (3 settings), Mimic";
    assert!(notes.iter().any(|note| note.ends_with(others)), "{notes:?}");
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn networks_in_prompts_are_named_and_taken_out() {
    let (recipe, notes) = foreign(
        "a cat <lora:ink, fine:0.8> by <zorp1>, <lyco:b:te=0.5:unet=1> x < y\nNegative prompt: \
            <hypernet:c>\nSteps: 5, Sampler: Euler, CFG scale: 7, Seed: 1",
    );
    assert_eq!(recipe.request.prompt, "a cat  by <zorp1>,  x < y");
    assert_eq!(recipe.request.negative_prompt, "");
    assert!(notes[0].contains("ink, fine (0.8), b (te=0.5, unet=1), c (1)"), "{notes:?}");
}

/// The schedule of a sampler that is not here goes with it, in the old spelling and in the new.
#[test]
fn schedules_go_with_their_samplers() {
    let read = |sampler: &str, schedule: &str| {
        let (recipe, notes) = foreign(&format!(
            "a cat\nSteps: 5, Sampler: {sampler}, {schedule}CFG scale: 7, Seed: 1"
        ));
        (recipe.request.sampler, recipe.request.schedule, notes)
    };
    for unknown in ["DPM2", "LMS", "DPM++ 2S a", "DPM++ 2M SDE Heun"] {
        for (sampler, schedule) in
            [(format!("{unknown} Karras"), ""), (unknown.to_string(), "Schedule type: Karras, ")]
        {
            let (kind, schedule, notes) = read(&sampler, schedule);
            assert_eq!((kind, schedule, notes.len()), (None, None, 1), "{sampler}: {notes:?}");
            assert!(
                notes[0].contains(&format!("Sampler: {sampler}")) && notes[0].contains("Karras"),
                "{notes:?}"
            );
        }
    }
    for (sampler, schedule, expected) in [
        ("DPM++ 2M SDE Karras", "", (SamplerKind::DPMPP_2M_SDE, Some(Schedule::Karras))),
        ("DPM++ 2M", "Schedule type: Karras, ", (SamplerKind::DPMPP_2M, Some(Schedule::Karras))),
        ("DPM++ 2M SDE Exponential", "", (SamplerKind::DPMPP_2M_SDE, Some(Schedule::Exponential))),
        ("DPM++ SDE", "Schedule type: Beta, ", (SamplerKind::DPMPP_SDE, Some(Schedule::Beta))),
        ("DPM++ 3M SDE", "Schedule type: Automatic, ", (SamplerKind::DPMPP_3M_SDE, None)),
        ("UniPC", "Schedule type: SGM Uniform, ", (SamplerKind::UNIPC, Some(Schedule::SgmUniform))),
        (
            "Euler a",
            "Schedule type: Simple, ",
            (SamplerKind::EULER_ANCESTRAL, Some(Schedule::Simple)),
        ),
    ] {
        let (kind, schedule, notes) = read(sampler, schedule);
        assert_eq!((kind, schedule), (Some(expected.0), expected.1), "{sampler}");
        // The noise of a Brownian tree is told of, and nothing else is to be told.
        assert_eq!(notes.len(), usize::from(sampler.contains("SDE")), "{notes:?}");
    }
    let (kind, schedule, notes) = read("DPM++ 2M Polyexponential", "");
    assert_eq!((kind, schedule), (Some(SamplerKind::DPMPP_2M), None));
    assert!(notes[0].contains("Polyexponential"), "{notes:?}");
    // The model's own sampler may not have it.
    let (recipe, notes) = foreign("a cat\nSteps: 5, Schedule type: Karras, CFG scale: 7, Seed: 1");
    assert!(recipe.request.schedule.is_none() && notes[0].contains("Karras"), "{notes:?}");
}

#[test]
fn shares_of_noise_go_with_their_samplers() {
    let read = |settings: &str| {
        let (recipe, notes) =
            foreign(&format!("a cat\nSteps: 5, {settings}, CFG scale: 7, Seed: 1"));
        (recipe.request.eta, notes.len())
    };
    assert_eq!(read("Sampler: Euler a, Eta: 0.4"), (Some(0.4), 0));
    assert_eq!(read("Sampler: DPM++ SDE, Eta: 0"), (Some(0.0), 0));
    assert_eq!(read("Sampler: DDIM, Eta DDIM: 0.5"), (Some(0.5), 0));
    assert_eq!(read("Sampler: Euler, Eta: 0.4"), (None, 1));
    assert_eq!(read("Sampler: Euler a, Eta DDIM: 0.4"), (None, 0));
    let (recipe, _) = foreign(
        "a cat\nSteps: 5, Sampler: Euler, CFG scale: 7, CFG rescale: 0.7, Skip Early CFG: 0.2, \
            Seed: 1",
    );
    assert_eq!(recipe.request.guidance_rescale, 0.7);
    assert_eq!(recipe.request.guidance_interval, [0.2, 1.0]);
}

/// Files of before say 0 where DDIM alone had a share.
#[test]
fn a_share_of_noise_is_kept_for_any_sampler() {
    for (sampler, eta) in [
        (SamplerKind::DDIM, Some(0.5)),
        (SamplerKind::EULER_ANCESTRAL, Some(0.0)),
        (SamplerKind::TCD, None),
    ] {
        let request = Request { sampler: Some(sampler), eta, ..Request::default() };
        let recipe = Recipe { request, ..Recipe::default() };
        let read = stored::read(&stored::write(&recipe, 0, 1)).unwrap();
        assert_eq!(read.request.eta, eta, "{sampler}");
    }
    let old = serde_json::json!({"sampler": "euler-ancestral", "eta": 0.0});
    assert_eq!(stored::read(&old).unwrap().request.eta, None);
}

#[test]
fn text_without_settings_is_no_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    for (text, says) in
        [("{\"prompt\": \"a cat\", \"seed\": 5}", "another program"), ("a cat", "Steps: 20")]
    {
        let written = Parameters { prompt: text.into(), ..Parameters::default() };
        Picture::filled(8, 8, [0; 3]).unwrap().save(&path, Some(&written)).unwrap();
        let error = Recipe::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("a.png") && error.contains("no settings") && error.contains(says),
            "{error}"
        );
    }
}

/// By programs that keep them in EXIF: see tools/reference/settings.py.
#[test]
fn settings_of_jpegs_and_webps_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures/settings");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            continue;
        }
        let (recipe, _) = Recipe::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let request = recipe.request;
        assert!(["a red cat", "café, 红猫"].contains(&request.prompt.as_str()), "{path:?}");
        assert_eq!(request.negative_prompt, "blurry", "{path:?}");
        assert_eq!((request.seed, request.steps, request.guidance), (1, 20, 7.0), "{path:?}");
        assert_eq!((request.width, request.height), (Some(8), Some(8)), "{path:?}");
        assert_eq!(request.sampler, Some(SamplerKind::EULER_ANCESTRAL), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 28);
}

#[test]
fn files_are_found_again_where_they_and_the_picture_went() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("a/masks")).unwrap();
    std::fs::create_dir_all(at("b/out")).unwrap();
    std::fs::write(at("a/masks/left.png"), "one").unwrap();
    let source = Source::of(&at("a/masks/left.png")).unwrap();
    let picture = at("b/out/cat.png");
    assert_eq!(source.find(&picture), Lookup::Same(at("a/masks/left.png")));
    // The whole folder was moved, and another file is where it was.
    std::fs::rename(at("a/masks"), at("b/masks")).unwrap();
    assert_eq!(source.find(&picture), Lookup::Same(at("b/masks/left.png")));
    std::fs::create_dir(at("a/masks")).unwrap();
    std::fs::write(at("a/masks/left.png"), "two").unwrap();
    assert_eq!(source.find(&picture), Lookup::Same(at("b/masks/left.png")));
    std::fs::write(at("b/masks/left.png"), "three").unwrap();
    assert_eq!(source.find(&picture), Lookup::Changed(at("a/masks/left.png")));
    std::fs::remove_dir_all(at("a")).unwrap();
    assert_eq!(source.find(&picture), Lookup::Changed(at("b/masks/left.png")));
    std::fs::remove_dir_all(at("b/masks")).unwrap();
    assert_eq!(source.find(&picture), Lookup::Gone);
}

/// Masks are named from the picture's folder where that is possible.
#[test]
fn masks_of_regions_go_with_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("all");
    std::fs::create_dir_all(at.join("masks")).unwrap();
    std::fs::create_dir_all(at.join("out/today")).unwrap();
    std::fs::write(at.join("masks/left.png"), "one").unwrap();
    let mask = Source::of(&at.join("masks/left.png")).unwrap();
    let region = Region { area: Area::Mask(mask.path.clone()), ..Region::default() };
    let recipe = Recipe {
        request: Request {
            regions: Layout { regions: vec![region], ..Layout::default() },
            ..Request::default()
        },
        region_masks: vec![mask],
        ..Recipe::default()
    };
    let named = |picture: &Path| {
        let recipe = recipe.beside(picture);
        let Area::Mask(path) = &recipe.request.regions.regions[0].area else { panic!("a mask") };
        assert_eq!(recipe.region_masks[0].path, *path);
        recipe.region_masks[0].clone()
    };
    let picture = at.join("out/today/cat.png");
    let stored = named(&picture);
    assert_eq!(stored.path, Path::new("../../masks/left.png"));
    assert_eq!(named(&at.join("cat.png")).path, Path::new("masks/left.png"));
    // Nothing in common, or no such folder: as it was.
    assert!(named(Path::new("/cat.png")).path.is_absolute());
    assert!(named(&at.join("none/cat.png")).path.is_absolute());
    // Found from anywhere, also when all has moved, and only with the same bytes.
    let Lookup::Same(found) = stored.find(&picture) else { panic!("it is there") };
    assert!(found.is_file());
    let moved = folder.path().join("moved");
    std::fs::rename(&at, &moved).unwrap();
    let picture = moved.join("out/today/cat.png");
    assert!(matches!(stored.find(&picture), Lookup::Same(_)));
    std::fs::write(moved.join("masks/left.png"), "two").unwrap();
    assert!(matches!(stored.find(&picture), Lookup::Changed(_)));
}

#[test]
fn broken_settings_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let read = |mos: Option<serde_json::Value>, settings: bool| {
        let written = Parameters { mos, ..Parameters::default() };
        Picture::filled(8, 8, [0; 3]).unwrap().save(&path, settings.then_some(&written)).unwrap();
        let error = Recipe::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        error
    };
    assert!(read(None, false).contains("does not say"));
    assert!(read(Some(serde_json::json!({ "steps": "few" })), true).contains("few"));
    assert!(
        read(Some(serde_json::json!({ "sampler": "dice" })), true)
            .contains("unknown sampler `dice`")
    );
    assert!(read(Some(serde_json::json!({ "prompt_syntax": "?" })), true).contains("`?`"));
    std::fs::write(&path, "no picture").unwrap();
    assert!(Recipe::read(&path).unwrap_err().to_string().contains("a.png"));
    assert!(Source::of(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn second_passes_are_read_and_written() {
    let (recipe, notes) = foreign(
        "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x768, Denoising \
            strength: 0.4, Hires upscale: 1.5, Hires steps: 12, Hires upscaler: Latent \
            (nearest-exact)",
    );
    let hires = recipe.request.hires.as_ref().unwrap();
    assert_eq!((hires.scale, hires.strength, hires.steps), (1.5, 0.4, Some(12)));
    assert_eq!(hires.upscaler.name(), Some("latent-nearest-exact"));
    assert!(notes.is_empty(), "{notes:?}");
    let text = parameters::format(&recipe.parameters(&generated(&[1]), 0));
    for part in [
        "Denoising strength: 0.4",
        "Hires upscale: 1.5",
        "Hires steps: 12",
        "Hires upscaler: Latent (nearest-exact)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let again = stored::read(&stored::write(&recipe, 0, 1)).unwrap().request.hires.unwrap();
    assert_eq!((again.scale, again.strength, again.steps), (1.5, 0.4, Some(12)));
    assert_eq!(again.upscaler.name(), Some("latent-nearest-exact"));

    let (recipe, notes) = foreign(
        "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x768, Denoising strength: 0.3, Hires \
            resize: 1024x0, Hires upscaler: 4x-UltraSharp",
    );
    let hires = recipe.request.hires.unwrap();
    assert_eq!((hires.scale, hires.steps, hires.upscaler.name()), (2.0, None, Some("lanczos")));
    assert!(notes.len() == 1 && notes[0].contains("4x-UltraSharp"), "{notes:?}");
}
