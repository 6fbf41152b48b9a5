//! What is asked for at the own face, as an order: the settings of `mos generate` under the same
//! names.

use serde_json::{Value, json};

use crate::pipeline::Request;
use crate::pipeline::text::prompt::{PromptOptions, Syntax};
use crate::plainly::plainly;
use crate::region::Layout;
use crate::server::fields::{Fields, random_seed};
use crate::server::fusion::Fusion;
use crate::server::given::Given;
use crate::server::job::Work;
use crate::server::lesson::Lesson;
use crate::server::order::{Order, Steered, Wanted};
use crate::server::problem::Problem;
use crate::server::sdapi;
use crate::server::shared::Shared;

/// Reads a job, and tells of it in short. Fields that are not known are errors.
pub fn work(shared: &Shared, mut fields: Fields) -> Result<(Work, Value), Problem> {
    match fields.word("kind")?.as_deref() {
        None | Some("generate") => {
            let order = order(shared, fields)?;
            let brief = sdapi::brief(&order);
            Ok((Work::Generate(Box::new(order)), brief))
        }
        Some("train") => {
            let lesson = Lesson::read(&shared.shelf, &shared.limits, fields)?;
            let brief = lesson.brief();
            Ok((Work::Teach(Box::new(lesson)), brief))
        }
        Some("fuse") => {
            let fusion = Fusion::read(&shared.shelf, &shared.limits, fields)?;
            let brief = fusion.brief();
            Ok((Work::Fuse(Box::new(fusion)), brief))
        }
        Some(kind) => {
            let shown: String = kind.chars().take(60).collect();
            Err(Problem::value("kind", format!("`{shown}`"), "generate, train or fuse"))
        }
    }
}

/// Reads what is asked of pictures.
fn order(shared: &Shared, mut fields: Fields) -> Result<Order, Problem> {
    let limits = &shared.limits;
    let model = shared.shelf.model_or_chosen(fields.word("model")?)?;
    let usual = Request::default();
    let syntax = match fields.word("prompt_syntax")?.as_deref() {
        None | Some("auto") => Syntax::Auto,
        Some("on") => Syntax::On,
        Some("off") => Syntax::Off,
        Some(_) => {
            return Err(Problem::value("prompt_syntax", "another word", "auto, on or off"));
        }
    };
    let guidance = fields.single("guidance")?;
    let request = Request {
        prompt: fields.text("prompt")?.unwrap_or_default(),
        negative_prompt: fields.text("negative")?.unwrap_or_default(),
        width: fields.count("width")?,
        height: fields.count("height")?,
        steps: fields.count("steps")?.unwrap_or(usual.steps),
        guidance: guidance.unwrap_or(usual.guidance),
        sampler: fields.parsed("sampler")?,
        schedule: fields.parsed("schedule")?,
        eta: fields.number("eta")?,
        guidance_rescale: fields.single("guidance_rescale")?.unwrap_or(usual.guidance_rescale),
        guidance_interval: [
            fields.number("guidance_from")?.unwrap_or(usual.guidance_interval[0]),
            fields.number("guidance_until")?.unwrap_or(usual.guidance_interval[1]),
        ],
        cache: fields.count("cache")?.unwrap_or(usual.cache),
        seed: fields.seed("seed")?.unwrap_or_else(random_seed),
        rng: fields.parsed("rng")?.unwrap_or_default(),
        batch: fields.count("batch")?.unwrap_or(1),
        clip_skip: fields.count("clip_skip")?.unwrap_or(0),
        prompt_options: PromptOptions {
            syntax,
            long_prompt: fields.flag("long_prompt")?.unwrap_or(false),
            ..usual.prompt_options
        },
        strength: fields.number("strength")?.unwrap_or(usual.strength),
        tile: fields.count("tile")?,
        ..usual
    };
    let mut order = Order::new(model, request, limits)?;
    order.leaves_guidance_open = guidance.is_none();
    order.keeps = fields.flag("keep")?.unwrap_or(true);
    for value in fields.list("concepts")? {
        let fields = match value {
            Value::String(name) => Fields::of("concepts", json!({ "name": name }))?,
            other => Fields::of("concepts", other)?,
        };
        order.concepts.push(Wanted::read(&shared.shelf, fields)?);
    }
    if let Some(image) = fields.word("image")? {
        order.set_image(&Given::of_base64("image", &image, limits)?, limits)?;
    }
    if let Some(mask) = fields.word("mask")? {
        order.set_mask(&Given::of_base64("mask", &mask, limits)?)?;
    }
    for value in fields.list("controls")? {
        let (control, given) = control(shared, value)?;
        order.bring(given);
        order.controls.push(control);
    }
    regions(shared, &mut order, &mut fields)?;
    fields.none_left("a job")?;
    Ok(order)
}

/// A network inside of the model, and the picture that it follows.
fn control(shared: &Shared, value: Value) -> Result<(Steered, Given), Problem> {
    let mut fields = Fields::of("controls", value)?;
    let missing = |name: &str| Problem::value("controls", format!("without `{name}`"), "one");
    let network = fields.word("network")?.ok_or_else(|| missing("network"))?;
    let image = fields.word("image")?.ok_or_else(|| missing("image"))?;
    let image = Given::of_base64("controls", &image, &shared.limits)?;
    let steered = Steered {
        name: fields.word("name")?.unwrap_or_else(|| network.clone()),
        network,
        picture: image.picture()?,
        source: image.source(),
        make: fields.parsed("make")?,
        weight: fields.single("weight")?.unwrap_or(1.0),
        start: fields.number("start")?.unwrap_or(0.0),
        end: fields.number("end")?.unwrap_or(1.0),
    };
    fields.none_left("a control")?;
    Ok((steered, image))
}

/// Regions as in files of layouts, but that a mask is a picture in base64.
fn regions(shared: &Shared, order: &mut Order, fields: &mut Fields) -> Result<(), Problem> {
    let mut list = fields.list("regions")?;
    let isolate = fields.flag("isolate")?.unwrap_or(false);
    let stack = fields.flag("stack")?.unwrap_or(false);
    if list.is_empty() {
        return match isolate || stack {
            true => {
                Err(Problem::asked("isolate and stack are for regions: there are none")
                    .of("regions"))
            }
            false => Ok(()),
        };
    }
    let mut masks = Vec::new();
    for (index, region) in list.iter_mut().enumerate() {
        let mask = match region.get_mut("mask") {
            Some(Value::String(text)) => {
                let name = format!("the mask of region {}", index + 1);
                let given = Given::of_base64(&name, text, &shared.limits)?;
                // Stands for the file that it will be.
                text.clear();
                Some(given)
            }
            _ => None,
        };
        masks.push(mask);
    }
    let layout = json!({ "isolate": isolate, "region": list });
    let mut layout: Layout = serde_json::from_value(layout).map_err(|error| {
        Problem::asked(format!("regions: {}", plainly(&error.to_string()))).of("regions")
    })?;
    if stack {
        (0..).zip(&mut layout.regions).for_each(|(order, region)| region.order = order);
    }
    order.set_regions(layout, masks, &shared.limits)
}
