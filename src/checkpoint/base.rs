//! Which model a concept was tuned on, told by its text encoder and its UNet in half precision.
use super::{Checkpoint, Component, DType, ModelHash};
use crate::output;
use half::f16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::watch::{Cancelled, Progress, Watch, heed};

/// Elements converted at once.
const PIECE: usize = 1 << 16;
/// Models that the cache remembers.
const REMEMBERED: usize = 256;

impl Checkpoint {
    /// SHA-256 over the text encoders and the UNet: canonical names, shapes, and values rounded to
    /// f16. So a model has the same hash in every file layout, in f32 as in f16, and with another
    /// autoencoder: all that a concept tuned on it fits. (bf16 files have lost more, and count as
    /// another model.)
    pub fn base_hash(&self) -> ModelHash {
        let Ok(hash) = self.base_hash_with(&mut |_, _| Ok::<_, Infallible>(()));
        hash
    }

    fn base_hash_with<E>(
        &self,
        before: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<ModelHash, E> {
        let text = self.text_encoder.names().filter(|name| name.starts_with("text_model."));
        let text = text.map(|name| (&self.text_encoder, name));
        let second = self.second.iter().map(|second| &second.component);
        let second = second.flat_map(|second| second.names().map(move |name| (second, name)));
        let text = text.chain(second);
        let all: Vec<_> = text.chain(self.unet.names().map(|name| (&self.unet, name))).collect();
        let (mut sha, mut pieces) = (Sha256::new(), Pieces::default());
        for (done, (component, name)) in all.iter().enumerate() {
            before(done, all.len())?;
            add(&mut sha, &mut pieces, component, name);
        }
        Ok(ModelHash(sha.finalize().into()))
    }

    /// As [`base_hash`](Self::base_hash), from the cache file `cache` if the model's files are as
    /// they were when it was made: same paths, lengths and times of change.
    pub fn base_hash_cached(&self, cache: Option<&Path>) -> ModelHash {
        let Ok(hash) = self.cached_with(cache, &mut |_, _| Ok::<_, Infallible>(()));
        hash
    }

    /// As [`base_hash_cached`](Self::base_hash_cached), which may have to read all weights; `watch`
    /// is told of the stage `hash`, by tensors.
    ///
    /// # Errors
    /// The watch asked it to end.
    pub fn base_hash_watched(
        &self,
        cache: Option<&Path>,
        watch: &mut Watch,
    ) -> Result<ModelHash, Cancelled> {
        self.cached_with(cache, &mut |done, of| heed(watch(Progress::new("hash", done, of))))
    }

    fn cached_with<E>(
        &self,
        cache: Option<&Path>,
        before: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<ModelHash, E> {
        let (Some(cache), Some(key)) = (cache, self.identity()) else {
            return self.base_hash_with(before);
        };
        let text = std::fs::read_to_string(cache).unwrap_or_default();
        let mut known: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
        if let Some(hash) = known.get(&key).and_then(|hash| hash.parse().ok()) {
            return Ok(hash);
        }
        let hash = self.base_hash_with(before)?;
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, hash.to_string());
        let folder = cache.parent().map_or(Ok(()), std::fs::create_dir_all);
        // Without a cache it only takes longer the next time.
        let _ = folder
            .and_then(|()| output::write(cache, |out| Ok(serde_json::to_writer(out, &known)?)));
        Ok(hash)
    }

    /// What tells the model's files from others without reading them; none if they are not on a
    /// disk.
    fn identity(&self) -> Option<String> {
        let mut sha = Sha256::new();
        let encoders = self.text_encoders().map(|(_, component)| component);
        for path in encoders.chain([&self.unet]).flat_map(|component| component.file_paths()) {
            let path = std::fs::canonicalize(path).ok()?;
            let meta = std::fs::metadata(&path).ok()?;
            let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            sha.update(path.as_os_str().as_encoded_bytes());
            sha.update(format!("\n{} {}\n", meta.len(), changed.as_nanos()));
        }
        Some(sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The file in which this user's programs remember base hashes; none where nothing is kept
/// ([`output::cache_folder`]).
pub fn base_hash_cache() -> Option<PathBuf> {
    Some(output::cache_folder()?.join("base-hashes.json"))
}

/// What elements are converted in, piece by piece.
struct Pieces {
    values: Vec<f32>,
    halves: Vec<f16>,
}

impl Default for Pieces {
    fn default() -> Self {
        Pieces { values: vec![0.0; PIECE], halves: vec![f16::ZERO; PIECE] }
    }
}

fn add(sha: &mut Sha256, pieces: &mut Pieces, component: &Component, name: &str) {
    let Ok(view) = component.tensor(name) else { return };
    // A 1x1 convolution is a matrix in some layouts.
    let ones = view.shape().iter().rev().take_while(|n| **n == 1).count();
    let shape = view.shape().iter().take(view.shape().len() - ones);
    // The length goes in too, so that no two different lists of tensors give the same stream.
    sha.update((name.len() as u64).to_le_bytes());
    sha.update(name);
    sha.update(((view.shape().len() - ones) as u64).to_le_bytes());
    shape.for_each(|n| sha.update((*n as u64).to_le_bytes()));
    if view.dtype() == DType::F16 {
        sha.update(view.bytes());
    } else {
        for start in (0..view.len()).step_by(PIECE) {
            let count = PIECE.min(view.len() - start);
            let (Some(values), Some(halves)) =
                (pieces.values.get_mut(..count), pieces.halves.get_mut(..count))
            else {
                continue;
            };
            view.write_f32(start..start + count, values);
            halves.convert_from_f32_slice(values);
            match cfg!(target_endian = "little") {
                true => sha.update(bytemuck::cast_slice::<f16, u8>(halves)),
                false => halves.iter().for_each(|half| sha.update(half.to_le_bytes())),
            }
        }
    }
    component.release(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Checkpoint {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint");
        Checkpoint::open(&folder.join(name)).unwrap()
    }

    #[test]
    fn a_model_has_one_hash_however_it_is_stored() {
        let folder = fixture("folder").base_hash();
        assert_eq!(folder, fixture("sd1.safetensors").base_hash());
        assert_ne!(folder, fixture("sd2.safetensors").base_hash());
        assert_ne!(folder, Checkpoint::shipped().unwrap().base_hash());
    }

    #[test]
    fn the_cache_is_used_while_the_files_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("deep/hashes.json");
        let model = folder.path().join("model.safetensors");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint");
        std::fs::copy(from.join("sd1.safetensors"), &model).unwrap();
        let open = || Checkpoint::open(&model).unwrap();
        let hash = open().base_hash();
        assert_eq!(open().base_hash_cached(Some(&cache)), hash);
        let text = std::fs::read_to_string(&cache).unwrap();
        let other = ModelHash([1; 32]);
        std::fs::write(&cache, text.replace(&hash.to_string(), &other.to_string())).unwrap();
        assert_eq!(open().base_hash_cached(Some(&cache)), other, "it is read from there");
        std::fs::copy(from.join("sd2.safetensors"), &model).unwrap();
        assert_eq!(
            open().base_hash_cached(Some(&cache)),
            open().base_hash(),
            "another file of the same name"
        );
        std::fs::write(&cache, "broken").unwrap();
        assert_eq!(open().base_hash_cached(Some(&cache)), open().base_hash());
        let shipped = Checkpoint::shipped().unwrap();
        assert_eq!(shipped.base_hash_cached(Some(&cache)), shipped.base_hash());
    }
}
