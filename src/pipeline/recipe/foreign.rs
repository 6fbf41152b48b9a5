//! Settings as web UIs write and read them: the text under the keyword `parameters`.
use super::networks::without_networks;
use super::{ConceptSource, Recipe};
use crate::picture::Parameters;
use crate::pipeline::{Hires, Request, Upscaler};
use crate::random::RngKind;
use crate::scheduler::sampler::SamplerKind;
use crate::text::prompt::{PromptOptions, Syntax};

/// Their names for the two random generators.
const CPU: &str = "CPU";
const CUDA: &str = "NV";
/// Their names for the share of fresh noise, and for parts of guidance.
const ETA: &str = "Eta";
const ETA_DDIM: &str = "Eta DDIM";
const RESCALE: &str = "CFG rescale";
const SKIP_EARLY: &str = "Skip Early CFG";
/// Digits of a model's hash that they show.
const HASH_DIGITS: usize = 10;

pub(super) fn settings(recipe: &Recipe, sampler: SamplerKind) -> Vec<(String, String)> {
    let request = &recipe.request;
    let mut settings = Vec::new();
    let mut set = |name: &str, value: String| settings.push((name.to_string(), value));
    set("Steps", request.steps.to_string());
    set("Sampler", sampler.web_name().to_string());
    if let Some(schedule) = request.schedule {
        set("Schedule type", schedule.web_name().to_string());
    }
    set("CFG scale", request.guidance.to_string());
    set("Seed", request.seed.to_string());
    if let (Some(width), Some(height)) = (request.width, request.height) {
        set("Size", format!("{width}x{height}"));
    }
    if let Some(hash) = recipe.model_hash.as_ref().and_then(|hash| hash.get(..HASH_DIGITS)) {
        set("Model hash", hash.to_string());
    }
    if let Some(model) = &recipe.model {
        let stem = std::path::Path::new(model)
            .file_stem()
            .map_or(model.clone(), |stem| stem.to_string_lossy().into_owned());
        set("Model", stem);
    }
    if !recipe.concepts.is_empty() {
        let concept = |concept: &ConceptSource| {
            let name = concept
                .source
                .path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
            let scale = match concept.text_scale {
                Some(text) => format!("unet={} text={text}", concept.scale),
                None => concept.scale.to_string(),
            };
            format!(
                "{name}: {} x {scale}",
                concept.source.sha256.get(..HASH_DIGITS).unwrap_or_default(),
            )
        };
        set("Concepts", recipe.concepts.iter().map(concept).collect::<Vec<_>>().join(", "));
    }
    if recipe.image.is_some() {
        set("Denoising strength", request.strength.to_string());
    }
    if let Some(hires) = request.hires.as_ref().filter(|_| recipe.image.is_none()) {
        set("Denoising strength", hires.strength.to_string());
        set("Hires upscale", hires.scale.to_string());
        if let Some(steps) = hires.steps {
            set("Hires steps", steps.to_string());
        }
        let named = hires.upscaler.name().filter(|_| recipe.upscaler.is_none());
        let named = named.and_then(|name| UPSCALERS.iter().find(|(_, own)| *own == name));
        let stem = recipe.upscaler.as_ref().and_then(|file| file.path.file_stem());
        let name = stem.map(|stem| stem.to_string_lossy().into_owned());
        set("Hires upscaler", name.unwrap_or(named.map_or("Latent", |(web, _)| web).to_string()));
    }
    if recipe.vae.is_some() {
        set("VAE Decoder", "TAESD".to_string());
    }
    if request.clip_skip > 0 {
        // They count the layers from the end, the last one being 1.
        set("Clip skip", (request.clip_skip + 1).to_string());
    }
    if let Some(eta) = request.eta {
        set(if sampler == SamplerKind::DDIM { ETA_DDIM } else { ETA }, eta.to_string());
    }
    if request.guidance_rescale != 0.0 {
        set(RESCALE, request.guidance_rescale.to_string());
    }
    if request.guidance_interval[0] > 0.0 {
        set(SKIP_EARLY, request.guidance_interval[0].to_string());
    }
    let rng = match request.rng {
        RngKind::Torch => CPU,
        RngKind::Philox => CUDA,
    };
    set("RNG", rng.to_string());
    set("Version", format!("mos {}", env!("CARGO_PKG_VERSION")));
    settings
}

/// Schedules that older versions appended to a sampler's name.
const SCHEDULES: [&str; 3] = ["Karras", "Polyexponential", "Exponential"];

/// Settings that change the picture but have no counterpart here.
const UNKNOWN: [&str; 12] = [
    "Hires prompt",
    "Hires checkpoint",
    "Lora hashes",
    "TI hashes",
    "VAE",
    "ENSD",
    "Variation seed",
    "Mask blur",
    "ControlNet 0",
    "Refiner",
    "Tiling",
    "Face restoration",
];

/// Settings that are read here, or say nothing of how the picture looks.
const HEEDED: [&str; 26] = [
    "Steps",
    "Sampler",
    "Schedule type",
    "CFG scale",
    "Seed",
    "Size",
    "Model",
    "Model hash",
    "VAE hash",
    "Clip skip",
    "Denoising strength",
    ETA_DDIM,
    ETA,
    RESCALE,
    SKIP_EARLY,
    "Hires upscale",
    "Hires resize",
    "Hires steps",
    "Hires upscaler",
    "RNG",
    "Version",
    "Hashes",
    "User",
    "Created Date",
    "Civitai resources",
    "Civitai metadata",
];

/// A sentence on settings of extensions and the like that nothing is known of, those of one
/// extension together; none where there are none.
fn left_out_others(found: &Parameters) -> Option<String> {
    let names = found.settings.iter().map(|(name, _)| name.as_str());
    let others: Vec<&str> =
        names.filter(|name| !HEEDED.contains(name) && !UNKNOWN.contains(name)).collect();
    // An extension's settings begin with its name: `ADetailer model`, `ADetailer prompt`.
    let first = |name: &str| name.split(' ').next().unwrap_or_default().to_string();
    let mut told: Vec<String> = Vec::new();
    for name in &others {
        let same = others.iter().filter(|other| first(other) == first(name)).count();
        let text = match same {
            1 => name.to_string(),
            _ => format!("{} ({same} settings)", first(name)),
        };
        if !told.contains(&text) {
            told.push(text);
        }
    }
    (!told.is_empty()).then(|| {
        format!(
            "settings of the picture that are not known here are left out, whatever they did: {}",
            told.join(", ")
        )
    })
}

/// Their names for what enlarges a picture between two passes, and ours.
const UPSCALERS: [(&str, &str); 8] = [
    ("Latent", "latent"),
    ("Latent (antialiased)", "latent"),
    ("Latent (nearest)", "latent-nearest"),
    ("Latent (nearest-exact)", "latent-nearest-exact"),
    ("Latent (bicubic)", "latent-bicubic"),
    ("Latent (bicubic antialiased)", "latent-bicubic"),
    ("Lanczos", "lanczos"),
    ("None", "lanczos"),
];

/// The second pass over a larger picture. Its strength is told elsewhere.
fn hires(found: &Parameters, request: &Request, notes: &mut Vec<String>) -> Option<Hires> {
    let scale = found.get("Hires upscale").and_then(|text| text.trim().parse::<f64>().ok());
    let resized = || -> Option<f64> {
        let (width, height) = found.get("Hires resize")?.split_once('x')?;
        let side = |text: &str| text.trim().parse::<f64>().ok().filter(|side| *side > 0.0);
        let [from_width, from_height] = [request.width?, request.height?].map(|side| side as f64);
        side(width).map(|w| w / from_width).or(side(height).map(|h| h / from_height))
    };
    let scale = scale.or_else(resized).filter(|scale| *scale > 1.0)?;
    let steps = found.get("Hires steps").and_then(|text| text.trim().parse::<usize>().ok());
    let steps = steps.filter(|steps| *steps > 0);
    let name = found.get("Hires upscaler").unwrap_or("Latent");
    let known = UPSCALERS.iter().find(|(web, _)| *web == name);
    let upscaler = known.and_then(|(_, own)| Upscaler::named(own));
    let upscaler = upscaler.unwrap_or_else(|| {
        notes.push(format!(
            "the picture was enlarged by `{name}`, which comes from a file: --hires-upscaler FILE \
                names it; Lanczos' filter stands in"
        ));
        Upscaler::Lanczos
    });
    Some(Hires { scale, upscaler, steps, ..Hires::default() })
}

/// A sentence on LoRAs that a picture was made with, each named with its strength.
pub(super) fn left_out_loras(loras: &[String]) -> Option<String> {
    (!loras.is_empty()).then(|| {
        format!(
            "the picture was made with LoRAs, which are left out (with their strengths): {}; \
                --lora FILE:STRENGTH adds one",
            loras.join(", ")
        )
    })
}

pub(super) fn read(found: &Parameters) -> (Recipe, Vec<String>) {
    let mut notes = Vec::new();
    let (prompt, mut networks) = without_networks(&found.prompt);
    let (negative_prompt, more) = without_networks(&found.negative_prompt);
    networks.extend(more);
    let loras: Vec<String> = networks.iter().map(ToString::to_string).collect();
    notes.extend(left_out_loras(&loras));
    let mut request = Request {
        prompt,
        negative_prompt,
        // Theirs always is.
        prompt_options: PromptOptions {
            syntax: Syntax::On,
            long_prompt: true,
            ..PromptOptions::default()
        },
        // Without a word about it, they draw on the graphics card.
        rng: match found.get("RNG") {
            Some(CPU) => RngKind::Torch,
            _ => RngKind::Philox,
        },
        ..Request::default()
    };
    let unreadable = |notes: &mut Vec<String>, name: &str| {
        let value = found.get(name).unwrap_or_default();
        notes.push(format!(
            "the picture's setting `{name}: {value}` is not understood and left out"
        ));
    };
    macro_rules! number {
        ($name:literal => $field:expr) => {
            match found.get($name).map(str::parse) {
                Some(Ok(value)) => $field = value,
                Some(Err(_)) => unreadable(&mut notes, $name),
                None => {}
            }
        };
    }
    number!("Steps" => request.steps);
    number!("CFG scale" => request.guidance);
    number!("Seed" => request.seed);
    number!("Denoising strength" => request.strength);
    number!("CFG rescale" => request.guidance_rescale);
    number!("Skip Early CFG" => request.guidance_interval[0]);
    match found.size() {
        Some((width, height)) => {
            (request.width, request.height) = (Some(width as usize), Some(height as usize))
        }
        None if found.get("Size").is_some() => unreadable(&mut notes, "Size"),
        None => {}
    }
    request.hires = hires(found, &request, &mut notes);
    if let Some(hires) = &mut request.hires {
        (hires.strength, request.strength) = (request.strength, Request::default().strength);
    } else if found.get("Denoising strength").is_some() {
        notes.push(
            "the picture was made from another one, which its file does not hold: give it as the \
                initial picture"
                .to_string(),
        );
    }
    let mut last_layer = 1;
    number!("Clip skip" => last_layer);
    request.clip_skip = usize::saturating_sub(last_layer, 1);
    let mut schedule = found.get("Schedule type");
    if let Some(sampler) = found.get("Sampler") {
        // Older versions wrote the schedule into the sampler's name.
        let old = SCHEDULES.iter().find_map(|schedule| {
            Some((sampler.strip_suffix(schedule)?.strip_suffix(' ')?, *schedule))
        });
        let name = old.map_or(sampler, |(name, _)| name);
        schedule = old.map(|(_, schedule)| schedule).or(schedule);
        match name.parse() {
            Ok(kind) => request.sampler = Some(kind),
            Err(_) => {
                // A schedule is its sampler's: the model's own may not have it.
                let with = schedule.take().filter(|_| old.is_none());
                let with = with.map_or(String::new(), |schedule| {
                    format!(" with its `Schedule type: {schedule}`")
                });
                notes.push(format!(
                    "the picture's setting `Sampler: {sampler}`{with} is not known here and left \
                        out: the model's own stands in"
                ));
            }
        }
    }
    match schedule {
        Some("Automatic" | "Uniform" | "Normal") | None => {}
        Some(name) => match name.parse() {
            Ok(schedule) if request.sampler.is_some_and(|kind| kind.takes(schedule)) => {
                request.schedule = Some(schedule);
            }
            Ok(schedule) => {
                let sampler = found.get("Sampler").unwrap_or("of the model's own");
                notes.push(format!(
                    "the schedule {} with the sampler {sampler} is not known here and left out",
                    schedule.web_name()
                ));
            }
            Err(_) => notes.push(format!(
                "the picture's setting `Schedule type: {name}` is not understood and left out"
            )),
        },
    }
    if let Some(sampler) = request.sampler {
        let name = if sampler == SamplerKind::DDIM { ETA_DDIM } else { ETA };
        match found.get(name).map(str::parse) {
            Some(Ok(eta)) if sampler.usual_eta().is_some() => request.eta = Some(eta),
            Some(_) => unreadable(&mut notes, name),
            None => {}
        }
        if sampler.is_by_a_tree() && request.eta != Some(0.0) {
            notes.push(format!(
                "the noise in the steps of {} is drawn in another way there: the result differs",
                sampler.web_name()
            ));
        }
    }
    if !found.rest.is_empty() {
        let first: String =
            found.rest.lines().next().unwrap_or_default().chars().take(60).collect();
        notes.push(format!("what follows the picture's settings is left out: \"{first}...\""));
    }
    for name in UNKNOWN.iter().filter(|name| found.get(name).is_some()) {
        notes.push(format!(
            "the picture's setting `{name}` has no counterpart here and is left out"
        ));
    }
    notes.extend(left_out_others(found));
    let recipe = Recipe {
        request,
        model: found.get("Model").map(str::to_string),
        model_hash: None,
        seed_is_open: found.get("Seed").is_none_or(|seed| seed.parse::<u64>().is_err()),
        ..Recipe::default()
    };
    (recipe, notes)
}
