//! What two of the examples share: a concept from the pictures in models/concepts.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use mixofshow::training::config::{Options, Settings};
use mixofshow::training::{Begin, Event, Run};
use mixofshow::{Checkpoint, Concept, Device};

/// Teaches `name`, a `class_word` such as "man", in `steps` updates. Its words are `<name1>` and
/// `<name2>`; its file appears in `folder`.
pub fn teach(
    device: &Device,
    model: &Checkpoint,
    [name, class_word]: [&str; 2],
    steps: usize,
    folder: &Path,
) -> Result<Concept, Box<dyn Error>> {
    let concepts = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/concepts");
    let own = Options {
        name: Some(name.into()),
        words: Some(format!("<{name}1> <{name}2>")),
        class_word: Some(class_word.into()),
        pictures: Some(concepts.join(name)),
        output: Some(folder.join(format!("{name}.safetensors"))),
        steps: Some(steps),
        sheet_every: Some(0),
        ..Options::default()
    };
    // What is not given comes from the file, what neither says from the kind of concept.
    let settings = Settings::new(own.or(Options::read_toml(&concepts.join("settings.toml"))?))?;
    // Everything that is wrong with settings, pictures and captions is told here, at once. A run
    // that was ended goes on with `Begin::Resume`.
    let mut remark = |text: &str| eprintln!("{name}: {text}");
    let mut run = Run::prepare(device, model, &settings, Begin::Again, &mut remark)?;
    let summary = run.run(&mut |event| {
        if let Event::Update(at) = event
            && (at.done % 80 == 0 || at.done == at.of)
        {
            println!("{name}: {} of {}, loss {:.3}", at.done, at.of, at.loss);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Concept::read(&summary.concept)?)
}
