//! The workbench: planted faults are found and named, right kernels pass.

mod edges;
mod faults;
mod guide;
mod shipped;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mixofshow::backend::wgpu::{Gpu, Options, Selection};

/// Where this test's kernels are.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workbench").join(name)
}

/// The WGSL files of a folder, sorted.
fn kernels(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "wgsl")).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

/// The adapter, if there is one.
fn gpu() -> Option<Arc<Gpu>> {
    static GPU: OnceLock<Option<Arc<Gpu>>> = OnceLock::new();
    let open = || {
        let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
        let options = Options { selection, extras: true, ..Options::default() };
        Gpu::open(&options).map_err(|error| println!("no device: {error}")).ok()
    };
    GPU.get_or_init(open).clone()
}
