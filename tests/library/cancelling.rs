//! Calls that their watch ends: a distinct error, nothing half written, and all of it can be done
//! again or gone on with, to the same bytes.

use std::ops::ControlFlow;
use std::path::Path;

use mixofshow::Progress;
use mixofshow::checkpoint::{Checkpoint, ModelHash};
use mixofshow::concept::dialects::{self, Dialect};
use mixofshow::concept::{self, Concept, Lora, Network, UpdateSet};
use mixofshow::graph::Array;
use mixofshow::pipeline::{self, Generated};
use mixofshow::training::config::{Options, Settings};
use mixofshow::training::{self, Begin, Event, Run};
use mixofshow::unwatched;

use super::{device, names, pipeline, shipped, small};

/// Ends a call at part `done` of a stage, or later.
fn until(stage: &'static str, done: usize) -> impl FnMut(Progress) -> ControlFlow<()> {
    move |at| match at.stage == stage && at.done >= done {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

#[test]
fn sampling() {
    let request = small("a red cat");
    let bytes = |made: Generated| (made.latents, made.pictures[0].rgb().to_vec());
    let whole = bytes(pipeline().generate(&request, &mut unwatched).unwrap());
    let mut used = pipeline();
    for (stage, done) in [("text", 0), ("prepare", 0), ("sample", 0), ("sample", 2), ("decode", 0)]
    {
        let prepared = used.prepare(&request).unwrap();
        let mut taken = 0;
        let made: pipeline::Result<_> =
            used.make_each(prepared, &mut until(stage, done), &mut |_, _, _| {
                taken += 1;
                Ok(())
            });
        assert!(matches!(made, Err(pipeline::Error::Cancelled(_))), "{stage} {done}");
        assert_eq!(taken, 0, "{stage} {done}");
        assert!(bytes(used.generate(&request, &mut unwatched).unwrap()) == whole, "{stage} {done}");
    }
}

fn settings(folder: &Path) -> Settings {
    let given = Options {
        words: Some("<zorp1> <zorp2>".into()),
        class_word: Some("man".into()),
        pictures: Some(shipped("concepts/zorp")),
        output: Some(folder.join("zorp.safetensors")),
        size: Some("64x64".into()),
        steps: Some(3),
        batch: Some(1),
        accumulate: Some(1),
        save_every: Some(100),
        sheet_every: Some(2),
        prompts: Some(vec!["a <TOK>".into()]),
        sheet_scales: Some(vec![1.0]),
        sheet_steps: Some(2),
        ..Options::default()
    };
    Settings::new(given).unwrap()
}

fn trained(folder: &Path) -> [Vec<u8>; 3] {
    ["zorp.safetensors", "zorp.training/sheet-000002.png", "zorp.training/sheet-000003.png"]
        .map(|file| std::fs::read(folder.join(file)).unwrap())
}

#[test]
fn training_goes_on_where_it_was_ended() {
    let checkpoint = Checkpoint::shipped().unwrap();
    let run = |folder: &Path, begin| {
        Run::prepare(device(), &checkpoint, &settings(folder), begin, &mut |_| ()).unwrap()
    };
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), Begin::New).run(&mut |_| ControlFlow::Continue(())).unwrap();
    let whole = trained(whole.path());

    let nowhere = tempfile::tempdir().unwrap();
    let prepared = Run::prepare_watched(
        device(),
        &checkpoint,
        &settings(nowhere.path()),
        Begin::New,
        &mut |_| (),
        &mut until("pictures", 3),
    );
    assert!(matches!(prepared, Err(training::Error::Cancelled(_))));
    assert_eq!(names(nowhere.path()), [""; 0]);

    type End = fn(&Event) -> bool;
    let ends: [(End, u64); 3] = [
        (|event| matches!(event, Event::Update(at) if at.done == 1), 1),
        (|event| matches!(event, Event::Sheet(_)), 2),
        (|event| matches!(event, Event::Update(at) if at.done == 3), 3),
    ];
    for (end, done) in ends {
        let folder = tempfile::tempdir().unwrap();
        let mut ended = run(folder.path(), Begin::New);
        let outcome = ended.run(&mut |event| match end(&event) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(matches!(outcome, Err(training::Error::Cancelled(_))), "{done}");
        assert_eq!(ended.done(), done);
        assert_eq!(names(folder.path()), ["zorp.training"]);
        let mut left = names(&folder.path().join("zorp.training"));
        left.retain(|name| name != "sheet-000002.png" || done != 3);
        assert_eq!(left, ["curve.png", "state.safetensors"], "{done}");
        drop(ended);
        let mut resumed = run(folder.path(), Begin::Resume);
        assert_eq!(resumed.done(), done);
        resumed.run(&mut |_| ControlFlow::Continue(())).unwrap();
        assert!(trained(folder.path()) == whole, "other bytes after an end at {done}");
    }
}

#[test]
fn conversion() {
    let lora = |out: usize| Lora {
        down: Array::f32([2, 4], (0..8).map(|v| v as f32).collect()),
        up: Array::f32([out, 2], vec![0.5; 2 * out]),
    };
    let layers = (1..5).map(|i| (format!("mid_block.attentions.{i}.proj_in"), lora(i).into()));
    let concept = Concept {
        name: "zorp".into(),
        updates: [(Network::UNet, UpdateSet::new(layers))].into(),
        ..Concept::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zorp.safetensors");
    for dialect in Dialect::WRITTEN {
        for done in [0, 3] {
            let mut watch = until("write", done);
            let written = dialects::write_watched(&concept, dialect, false, &path, &mut watch);
            assert!(matches!(written, Err(concept::Error::Cancelled(_))), "{dialect}");
            assert_eq!(names(folder.path()), [""; 0], "{dialect}");
        }
        dialects::write_watched(&concept, dialect, false, &path, &mut unwatched).unwrap();
        for done in [0, 2] {
            let read = dialects::read_watched(&path, &mut until("read", done));
            assert!(matches!(read, Err(concept::Error::Cancelled(_))), "{dialect}");
        }
        let (again, ..) = dialects::read_watched(&path, &mut unwatched).unwrap();
        assert_eq!(again.updates.of(Network::UNet).layers.len(), 4, "{dialect}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn hashing() {
    let checkpoint = Checkpoint::shipped().unwrap();
    assert!(checkpoint.hash_watched(&mut until("hash", 7)).is_err());
    assert_eq!(checkpoint.hash_watched(&mut unwatched), Ok(checkpoint.hash()));
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint");
    std::fs::copy(small.join("sd1.safetensors"), &model).unwrap();
    let (checkpoint, cache) = (Checkpoint::open(&model).unwrap(), folder.path().join("cache"));
    let hash = |done: usize| -> Option<ModelHash> {
        checkpoint.base_hash_watched(Some(&cache), &mut until("hash", done)).ok()
    };
    assert_eq!(hash(7), None);
    assert!(!cache.exists());
    assert_eq!(hash(usize::MAX), Some(checkpoint.base_hash()));
    assert_eq!(hash(0), Some(checkpoint.base_hash()), "it is remembered");
}
