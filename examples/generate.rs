//! A picture from a prompt, with its settings in the file, so that `mos generate --like` makes it
//! again.
//!
//!     cargo run --release --example generate -- [FILE] [STEPS]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use mixofshow::pipeline::recipe::Recipe;
use mixofshow::{Checkpoint, Device, Pipeline, Precision, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let file = given.first().map_or("cat.png", String::as_str);
    let steps = given.get(1).map_or(Ok(20), |steps| steps.parse())?;
    run(Path::new(file), steps)
}

pub fn run(file: &Path, steps: usize) -> Result<(), Box<dyn Error>> {
    // The best graphics card, else the processor; and the small model that ships.
    // `Checkpoint::open` takes a model of yours, a file or a folder.
    let device = Device::best()?;
    let model = Checkpoint::shipped()?;
    let mut pipeline = Pipeline::load(&device, &model, Precision::AsStored)?;
    let request = Request {
        prompt: "a photo of a red cat in the snow".into(),
        negative_prompt: "dog".into(),
        steps,
        seed: 7,
        ..Request::default()
    };

    // Everything is checked and planned before any work: what is odd, and the memory, are known.
    let prepared = pipeline.prepare(&request)?;
    for warning in prepared.warnings() {
        println!("warning: {warning}");
    }
    let memory = prepared.memory();
    println!("weights {} MiB, sampling {} MiB", memory.weights >> 20, memory.sampling >> 20);

    // The watch is told how far it is; `Break(())` would end it.
    let mut stage = "";
    let made = pipeline.make(prepared, &mut |at| {
        if at.stage != stage {
            stage = at.stage;
            println!("{stage}: {} parts", at.of);
        }
        ControlFlow::Continue(())
    })?;

    let recipe = Recipe { request, model: Some("tiny".into()), ..Recipe::default() };
    made.pictures[0].save(file, Some(&recipe.parameters(&made, 0)))?;
    println!("{}x{} pixels, seed {}", made.width, made.height, made.seeds[0]);
    Ok(())
}
