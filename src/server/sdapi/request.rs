//! What clients of the web UI ask for, as an order.

use serde_json::{Map, Value};

use crate::picture::Mask;
use crate::pipeline::Request;
use crate::pipeline::random::RngKind;
use crate::pipeline::recipe::without_networks;
use crate::pipeline::text::prompt::{PromptOptions, Syntax};
use crate::scheduler::sampler::SamplerKind;
use crate::scheduler::spacing::Schedule;

use crate::server::fields::{Fields, random_seed};
use crate::server::given::Given;
use crate::server::order::{Order, Wanted};
use crate::server::problem::Problem;
use crate::server::shared::Shared;

/// What the web UI takes where nothing is said.
const STEPS: usize = 50;
const GUIDANCE: f32 = 7.0;
const STRENGTH: f64 = 0.75;
const SAMPLER: &str = "Euler";

/// Schedules that are no others than the sampler's own.
const OWN_SCHEDULES: [&str; 4] = ["automatic", "uniform", "normal", "use same scheduler"];

/// Fields that are echoed without what they hold: pictures.
const PICTURES: [&str; 3] = ["init_images", "mask", "alwayson_scripts"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Picture,
}

/// What was asked for.
pub struct Asked {
    pub order: Order,
    /// What of it has no counterpart here, in sentences.
    pub left_out: Vec<String>,
    /// As it was sent, but for pictures.
    pub echo: Value,
    /// Pictures are sent back.
    pub sends: bool,
}

impl Asked {
    pub fn read(shared: &Shared, mut fields: Fields, kind: Kind) -> Result<Asked, Problem> {
        let echo = echo(&fields);
        let mut left_out = Vec::new();
        refuse(&mut fields)?;
        let options = Options::read(&mut fields.object("override_settings")?, &mut left_out)?;
        fields.value("override_settings_restore_afterwards");
        let model = shared.shelf.model_or_chosen(options.model)?;
        let (prompt, mut networks) = without_networks(&fields.text("prompt")?.unwrap_or_default());
        let negative = fields.text("negative_prompt")?.unwrap_or_default();
        let (negative_prompt, more) = without_networks(&negative);
        networks.extend(more);
        let mut concepts = Vec::new();
        for network in &networks {
            if network.kind == "hypernet" {
                return Err(Problem::asked(format!(
                    "the prompt names the hypernetwork `{}`: this server has none",
                    network.name
                ))
                .of("prompt"));
            }
            let listed =
                shared.shelf.concept(&network.name).map_err(|problem| problem.of("prompt"))?;
            let scales = network.scales().map_err(|words| Problem::asked(words).of("prompt"))?;
            let [scale, text] = scales;
            let text_scale = Some(text).filter(|text| *text != scale);
            concepts.push(Wanted { listed, scale, text_scale });
        }
        let (sampler, schedule) = sampler(&mut fields)?;
        // Clients send a share of fresh noise whatever the sampler is.
        let eta = fields.number("eta")?.or(options.eta).filter(|_| sampler.usual_eta().is_some());
        let [size, rounds] =
            [fields.count("batch_size")?, fields.count("n_iter")?].map(|n| n.unwrap_or(1));
        let batch = size.saturating_mul(rounds);
        let request = Request {
            prompt,
            negative_prompt,
            width: fields.count("width")?.filter(|side| *side > 0),
            height: fields.count("height")?.filter(|side| *side > 0),
            steps: fields.count("steps")?.unwrap_or(STEPS),
            guidance: fields.single("cfg_scale")?.unwrap_or(GUIDANCE),
            sampler: Some(sampler),
            schedule,
            eta,
            seed: fields.seed("seed")?.unwrap_or_else(random_seed),
            rng: options.rng.unwrap_or_default(),
            batch,
            clip_skip: options.clip_skip.unwrap_or(0),
            // Theirs always is.
            prompt_options: PromptOptions {
                syntax: Syntax::On,
                long_prompt: true,
                ..PromptOptions::default()
            },
            ..Request::default()
        };
        let strength = fields.number("denoising_strength")?;
        let mut order = Order::new(model, request, &shared.limits)?;
        order.concepts = concepts;
        order.keeps = fields.flag("save_images")?.unwrap_or(false);
        let sends = fields.flag("send_images")?.unwrap_or(true);
        fields.value("do_not_save_samples");
        fields.value("do_not_save_grid");
        if kind == Kind::Picture {
            pictures(shared, &mut order, &mut fields, &mut left_out)?;
            order.request.strength = strength.unwrap_or(STRENGTH);
            order.recipe.request.strength = order.request.strength;
        }
        left_out.extend(unknown(&fields));
        Ok(Asked { order, left_out, echo, sends })
    }
}

/// The request as it is told back: pictures are left out.
fn echo(fields: &Fields) -> Value {
    let mut copy = fields.clone();
    let names: Vec<String> = fields.names().map(str::to_string).collect();
    let mut echo = Map::new();
    for name in names {
        let value = copy.value(&name).filter(|_| !PICTURES.contains(&name.as_str()));
        echo.insert(name, value.unwrap_or_default());
    }
    echo.into()
}

/// An error where a request asks for what is not here and would make another picture.
fn refuse(fields: &mut Fields) -> Result<(), Problem> {
    let refused = |name: &str| {
        let words = format!("{name} is asked for, which this server has not: leave it out");
        Err(Problem::asked(words).of(name))
    };
    for name in ["enable_hr", "restore_faces", "tiling"] {
        if fields.flag(name)? == Some(true) {
            return refused(name);
        }
    }
    if fields.number("subseed_strength")?.is_some_and(|strength| strength != 0.0) {
        return refused("subseed_strength");
    }
    for name in ["script_name", "refiner_checkpoint"] {
        if fields.word(name)?.is_some_and(|name| name != "None") {
            return refused(name);
        }
    }
    if !fields.list("styles")?.is_empty() {
        return refused("styles");
    }
    let scripts = fields.object("alwayson_scripts")?;
    match scripts.names().next() {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(60).collect();
            let words = format!("the script `{name}` is asked for, which this server has not");
            Err(Problem::asked(words).of("alwayson_scripts"))
        }
    }
}

/// What stands in `override_settings`, or is set by `options`.
#[derive(Default)]
pub struct Options {
    pub model: Option<String>,
    pub clip_skip: Option<usize>,
    pub rng: Option<RngKind>,
    pub eta: Option<f64>,
}

impl Options {
    pub fn read(fields: &mut Fields, left_out: &mut Vec<String>) -> Result<Options, Problem> {
        let last = fields.count("CLIP_stop_at_last_layers")?;
        let rng = match fields.word("randn_source")?.as_deref() {
            None => None,
            Some("CPU") => Some(RngKind::Torch),
            Some("NV" | "GPU") => Some(RngKind::Philox),
            Some(other) => {
                let shown: String = other.chars().take(60).collect();
                return Err(Problem::value("randn_source", shown, "CPU or NV"));
            }
        };
        let options = Options {
            model: fields.word("sd_model_checkpoint")?,
            // They count the layers from the end, the last one being 1.
            clip_skip: last.map(|last| last.saturating_sub(1)),
            rng,
            eta: fields.number("eta_ddim")?,
        };
        for name in fields.names() {
            let name: String = name.chars().take(60).collect();
            left_out.push(format!("the option `{name}` has no counterpart here and is left out"));
        }
        Ok(options)
    }
}

/// The sampler, and the schedule if one is named.
fn sampler(fields: &mut Fields) -> Result<(SamplerKind, Option<Schedule>), Problem> {
    let name = fields.word("sampler_name")?;
    // What `sampler_name` was called before.
    let other = fields.value("sampler_index").filter(Value::is_string);
    let other = other.and_then(|name| name.as_str().map(str::to_string));
    let name = name.or(other).unwrap_or_else(|| SAMPLER.to_string());
    let scheduler = fields.word("scheduler")?.map(|name| name.to_lowercase());
    let old = name.strip_suffix(" Karras");
    let kind: SamplerKind = old.unwrap_or(&name).parse().map_err(|_| {
        let shown: String = name.chars().take(60).collect();
        let known = SamplerKind::ALL.map(SamplerKind::web_name).join(", ");
        Problem::value("sampler_name", format!("`{shown}`"), &known)
    })?;
    let old = old.map(|_| Schedule::Karras);
    let schedule = match scheduler.as_deref() {
        None => old,
        Some(name) if OWN_SCHEDULES.contains(&name) => old,
        Some(name) => Some(name.parse().map_err(|_| {
            let shown: String = name.chars().take(60).collect();
            let known = Schedule::ALL.map(Schedule::web_name).join(", ");
            Problem::value("scheduler", format!("`{shown}`"), &format!("Automatic, {known}"))
        })?),
    };
    Ok((kind, schedule))
}

/// The picture to start from, and the mask.
fn pictures(
    shared: &Shared,
    order: &mut Order,
    fields: &mut Fields,
    left_out: &mut Vec<String>,
) -> Result<(), Problem> {
    let images = fields.list("init_images")?;
    let [Value::String(image)] = &images[..] else {
        let found = format!("{} pictures", images.len());
        return Err(Problem::value("init_images", found, "one picture in base64"));
    };
    order.set_image(&Given::of_base64("init_images", image, &shared.limits)?, &shared.limits)?;
    fields.value("include_init_images");
    fields.value("initial_noise_multiplier");
    let resize = fields.count("resize_mode")?.unwrap_or(0);
    if resize != 0 {
        left_out.push(format!("resize_mode {resize} is not here: the picture is stretched (0)"));
    }
    let mask = fields.word("mask")?;
    let [blur, blur_x, blur_y] =
        ["mask_blur", "mask_blur_x", "mask_blur_y"].map(|n| fields.number(n));
    let [fill, padding] = ["inpainting_fill", "inpaint_full_res_padding"].map(|n| fields.count(n));
    let inverted = fields.whole("inpainting_mask_invert")?.unwrap_or(0) != 0;
    let whole = fields.flag("inpaint_full_res")?.unwrap_or(false);
    fields.value("mask_round");
    padding?;
    let Some(mask) = mask else { return Ok(()) };
    if whole {
        let words = "inpaint_full_res is not here: what is painted anew is as large as it is";
        left_out.push(words.into());
    }
    if [blur?, blur_x?, blur_y?].iter().any(|blur| blur.is_some_and(|blur| blur > 0.0)) {
        left_out.push("mask_blur has no counterpart: the mask's edges are as they are".into());
    }
    if let Some(fill) = fill?.filter(|fill| *fill != 1) {
        left_out.push(format!(
            "inpainting_fill {fill} is not here: what is painted anew starts from the picture (1)"
        ));
    }
    let given = Given::of_base64("mask", &mask, &shared.limits)?;
    if !inverted {
        return order.set_mask(&given);
    }
    let mask = given.mask()?;
    let values = mask.values().iter().map(|value| 1.0 - value).collect();
    order.set_made_mask(&Mask::new(mask.width(), mask.height(), values)?, "mask")
}

/// Fields that mean nothing without others, or that every client sends.
const HARMLESS: &[&str] = &[
    "subseed",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "script_args",
    "s_min_uncond",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_additional_modules",
    "firstphase_width",
    "firstphase_height",
    "refiner_switch_at",
    "disable_extra_networks",
    "comments",
    "force_task_id",
    "infotext",
    "latent_mask",
    "hr_cfg",
    "hr_distilled_cfg",
    "distilled_cfg_scale",
    "image_cfg_scale",
];

/// Sentences on fields that nobody has asked for.
fn unknown(fields: &Fields) -> impl Iterator<Item = String> {
    let names = fields.names().filter(|name| !HARMLESS.contains(name));
    names.map(|name| {
        let name: String = name.chars().take(60).collect();
        format!("the field `{name}` is not known here and is left out")
    })
}
