//! Compiled pipelines on the disk, so that a driver compiles a kernel once and not at every start.
//!
//! A file holds what one adapter's driver made of this program's kernels. One of another adapter,
//! another driver or other kernels is not read but replaced, and so is one that is damaged: its
//! end is the hash of all before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::template::all_texts;
use crate::output;

type Hash = [u8; 32];

/// The pipelines of a device, those of earlier runs too.
pub(super) struct Pipelines {
    pub raw: wgpu::PipelineCache,
    path: PathBuf,
    key: Hash,
    /// Hashes of the kernels' texts, and whether there are new ones since the file was written.
    kernels: Mutex<(BTreeSet<Hash>, bool)>,
}

const MAGIC: &[u8; 16] = b"mos pipelines 1\n";

fn hash(bytes: impl AsRef<[u8]>) -> Hash {
    Sha256::digest(bytes).into()
}

/// What a file must have been made for: the adapter and its driver, and the kernels' templates.
fn key(info: &wgpu::AdapterInfo) -> Hash {
    let mut sha = Sha256::new();
    sha.update(format!(
        "{} {:?} {:x} {:x} {:?} {:?} {:?} {}\n",
        env!("CARGO_PKG_VERSION"),
        info.name,
        info.vendor,
        info.device,
        info.driver,
        info.driver_info,
        info.backend,
        // Drivers on processor cores compile for the width of vectors that this says.
        std::env::var("LP_NATIVE_VECTOR_WIDTH").unwrap_or_default(),
    ));
    for (name, text) in all_texts() {
        sha.update(format!("{name} {}\n{text}", text.len()));
    }
    sha.finalize().into()
}

/// A file's hashes of kernels, and the driver's bytes; none if it is not whole, or not for `key`.
fn parse<'a>(bytes: &'a [u8], key: &Hash) -> Option<(BTreeSet<Hash>, &'a [u8])> {
    let (content, end) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let content = content.strip_prefix(MAGIC)?.strip_prefix(key)?;
    if hash(&bytes[..bytes.len() - 32]) != *end {
        return None;
    }
    let (count, rest) = content.split_first_chunk()?;
    let (kernels, data) = rest.split_at_checked(32 * u32::from_le_bytes(*count) as usize)?;
    Some((kernels.as_chunks().0.iter().copied().collect(), data))
}

fn content(key: &Hash, kernels: &BTreeSet<Hash>, data: &[u8]) -> Vec<u8> {
    let count = (kernels.len() as u32).to_le_bytes();
    let mut bytes = [&MAGIC[..], key, &count].concat();
    bytes.extend(kernels.iter().flatten());
    bytes.extend(data);
    let end = hash(&bytes);
    bytes.extend(end);
    bytes
}

impl Pipelines {
    /// Those of `device` that a file in `folder` has, where wgpu can keep them (on Vulkan).
    pub fn open(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        folder: &Path,
    ) -> Option<Pipelines> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(info)?;
        let path = folder.join("pipelines").join(name);
        let key = key(info);
        let bytes = std::fs::read(&path).unwrap_or_default();
        let (kernels, data) = parse(&bytes, &key).unzip();
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
        // SAFETY: the bytes are those that such a cache gave this program, for the same adapter and
        // driver, as their hash says.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        let kernels = Mutex::new((kernels.unwrap_or_default(), false));
        Some(Pipelines { raw, path, key, kernels })
    }

    /// Notes that a pipeline of the kernel `text` was made.
    pub fn note(&self, text: &str) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.1 |= kernels.0.insert(hash(text));
    }

    /// Writes the file, if there is anything new. Without it the next start only takes longer.
    pub fn save(&self) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, new) = &mut *kernels;
        if !std::mem::take(new) {
            return;
        }
        let Some(data) = self.raw.get_data() else { return };
        let folder = self.path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let bytes = content(&self.key, known, &data);
        let _ = folder.and_then(|()| output::write(&self.path, |out| out.write_all(&bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_the_same_adapter_and_kernels_are_read() {
        let kernels = BTreeSet::from([[1; 32], [2; 32]]);
        let whole = content(&[7; 32], &kernels, b"what the driver made");
        assert_eq!(parse(&whole, &[7; 32]), Some((kernels, &b"what the driver made"[..])));
        assert_eq!(parse(&whole, &[8; 32]), None, "of another adapter");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged, &[7; 32]), None, "byte {at}");
            assert_eq!(parse(&whole[..at], &[7; 32]), None, "{at} bytes");
        }
        assert_eq!(parse(b"", &[7; 32]), None);
    }
}
