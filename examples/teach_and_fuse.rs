//! Two concepts taught, fused into one model, and a picture of both from one prompt, without any
//! LoRA in use.
//!
//!     cargo run --release --example teach_and_fuse -- [FOLDER] [UPDATES] [STEPS]

mod teaching;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use mixofshow::fusion::{self, ConceptToFuse, Order, Settings};
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::{Checkpoint, Device, Pipeline, Precision, Request, unwatched};

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let folder = given.first().map_or("teach_and_fuse", String::as_str);
    let updates = given.get(1).map_or(Ok(320), |updates| updates.parse())?;
    let steps = given.get(2).map_or(Ok(20), |steps| steps.parse())?;
    run(Path::new(folder), updates, steps)
}

pub fn run(folder: &Path, updates: usize, steps: usize) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let (device, model) = (Device::best()?, Checkpoint::shipped()?);
    let mut concepts = Vec::new();
    for player in [["zorp", "man"], ["mimi", "cat"]] {
        let concept = teaching::teach(&device, &model, player, updates, folder)?;
        let path = folder.join(format!("{}.safetensors", player[0]));
        concepts.push(ConceptToFuse::new(concept, path));
    }

    // What each concept's layers read is recorded while it is sampled, then every layer's weights
    // are solved for. A fusion that is ended goes on where it was.
    let settings = Settings { steps, ..Settings::default() };
    let out = folder.join("both");
    let order = Order { replace: true, ..Order::new(concepts, out.clone()) };
    let mut last = String::new();
    let fused = fusion::fuse(&device, &model, order, &settings, &mut |at| {
        let now = format!("{} {}", at.stage, at.subject).trim_end().to_string();
        if now != last {
            println!("{now}");
            last = now;
        }
        ControlFlow::Continue(())
    })?;
    for stage in &fused.report.stages {
        let missed = stage.residuals().iter().flatten().map(|residual| residual.fused).sum::<f64>();
        println!(
            "{}: {:.3} of what the concepts do is missed",
            stage.stage.title(),
            missed / stage.residuals().iter().flatten().count().max(1) as f64
        );
    }

    // The folder is a model like any other, here and in diffusers. It knows the concepts' words.
    let mut pipeline = Pipeline::load(&device, &Checkpoint::open(&out)?, Precision::AsStored)?;
    let request = Request {
        prompt: "a photo of a <zorp1> <zorp2> and a <mimi1> <mimi2> on the beach".into(),
        sampler: Some(SamplerKind::DPMPP_2M),
        guidance: 3.0,
        seed: 2,
        steps,
        ..Request::default()
    };
    pipeline.generate(&request, &mut unwatched)?.pictures[0].save(folder.join("both.png"), None)?;
    println!("both/ is the model, both.png a picture by it");
    Ok(())
}
