//! Tests of whole models and of broken files, against fixtures that diffusers and transformers
//! wrote.
mod broken;
mod controls;
mod dialects;
mod formats;
mod fuzz;
mod inspecting;
mod pickles;

use super::{DType, TensorView, write};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint").join(name)
}

/// A copy of the fixture folder that a test may change.
fn folder_copy() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("folder"), folder.path());
    folder
}

type Owned = Vec<(String, TensorView<'static>)>;

/// All tensors of a safetensors file, copied.
fn tensors(path: &Path) -> Owned {
    let file = super::TensorFile::open(path).unwrap();
    let own = |n: &str| {
        let view = file.tensor(n).unwrap();
        (
            n.to_string(),
            TensorView::new(view.dtype(), view.shape().to_vec(), view.bytes().to_vec()).unwrap(),
        )
    };
    file.names().map(own).collect()
}

fn save(path: &Path, tensors: &Owned) {
    write(path, tensors, &BTreeMap::new()).unwrap();
}

fn to_bytes(tensors: &[(String, TensorView<'_>)]) -> Vec<u8> {
    super::to_bytes(Path::new("memory"), tensors, &BTreeMap::new()).unwrap()
}

/// A file's bytes from a header text and a number of data bytes.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A tensor of the given shape whose bytes count up.
fn counting(dtype: DType, shape: &[usize]) -> TensorView<'static> {
    let len = shape.iter().product::<usize>() * dtype.size();
    let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
    TensorView::new(dtype, shape.to_vec(), bytes).unwrap()
}
