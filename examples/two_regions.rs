//! Two people in one picture, each in a region of their own, each by a LoRA that acts there alone:
//! at the price of one pass.
//!
//!     cargo run --release --example two_regions -- [FOLDER] [UPDATES] [STEPS]

mod teaching;

use std::error::Error;
use std::path::Path;

use mixofshow::region::{Layout, Region};
use mixofshow::scheduler::sampler::SamplerKind;
use mixofshow::{Applied, Checkpoint, Device, Pipeline, Precision, Request, unwatched};

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let folder = given.first().map_or("two_regions", String::as_str);
    let updates = given.get(1).map_or(Ok(320), |updates| updates.parse())?;
    let steps = given.get(2).map_or(Ok(20), |steps| steps.parse())?;
    run(Path::new(folder), updates, steps)
}

pub fn run(folder: &Path, updates: usize, steps: usize) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let (device, model) = (Device::best()?, Checkpoint::shipped()?);
    // Concepts of any program would do: `concept::dialects::read` reads them.
    let zorp = teaching::teach(&device, &model, ["zorp", "man"], updates, folder)?;
    let luma = teaching::teach(&device, &model, ["luma", "woman"], updates, folder)?;

    // Left, top, right, bottom, as parts of the picture; then the prompt that holds there. Each
    // names everybody, so that the model leaves room for both. A concept acts where its words
    // stand, so neither LoRA reaches into the other's region.
    let regions = [
        Region::parse("0,.15,.5,1: a photo of a <zorp1> <zorp2> and a woman on the beach")?,
        Region::parse(".5,.15,1,1: a photo of a man and a <luma1> <luma2> on the beach")?,
    ];
    let layout = Layout { regions: regions.into(), ..Layout::default() };
    let request = Request {
        prompt: "a photo of a man and a woman on the beach".into(),
        regions: layout.clone(),
        concepts: vec![Applied::new(zorp, 1.0)?, Applied::new(luma, 1.0)?],
        sampler: Some(SamplerKind::DPMPP_2M),
        guidance: 3.0,
        seed: 2,
        steps,
        ..Request::default()
    };
    let mut pipeline = Pipeline::load(&device, &model, Precision::AsStored)?;
    let made = pipeline.generate(&request, &mut unwatched)?;
    let picture = &made.pictures[0];
    picture.save(folder.join("both.png"), None)?;
    layout.draw(picture)?.save(folder.join("layout.png"), None)?;
    println!("both.png, and layout.png with the regions' outlines");
    Ok(())
}
