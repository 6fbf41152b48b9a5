//! What an embedder relies on: calls that are ended in the middle, requests side by side.

mod cancelling;
#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/chosen.rs"]
mod chosen;
mod examples;
mod hosted;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mixofshow::backend::wgpu::Options;
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::pipeline::{Pipeline, Request};

fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| chosen::device(Options { checked: true, ..Options::default() }))
}

/// The model that ships.
fn pipeline() -> Pipeline {
    let checkpoint = Checkpoint::shipped().unwrap();
    Pipeline::load(device(), &checkpoint, Precision::AsStored).unwrap()
}

/// The cheapest picture.
fn small(prompt: &str) -> Request {
    Request {
        prompt: prompt.into(),
        width: Some(64),
        height: Some(64),
        steps: 3,
        ..Request::default()
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Of what ships beside the code.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}
