//! One network of a model: its configuration and its weights under canonical names, wherever and however they are stored.
use super::{DType, Error, TensorFile, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which part of a stored tensor a canonical tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// All of it; a 1x1 convolution [out, in, 1, 1] is meant as the matrix [out, in].
    Matrix,
    /// The `i`-th of `n` equal ranges of rows.
    Rows(usize, usize),
    /// A matrix, transposed.
    Transposed,
}

/// Canonical tensors that one stored tensor gives; none if it has no meaning for the component.
pub(super) type Targets = Vec<(String, Part)>;

#[derive(Debug, Clone)]
struct Place {
    file: usize,
    source: String,
    dtype: DType,
    shape: Vec<usize>,
    range: Range<usize>,
    transposed: bool,
}

/// A network's configuration and weights. Names are those of diffusers; a text tower's begin with `text_model.`, a vision
/// tower's with `vision_model.`, as in Hugging Face's files.
#[derive(Debug, Clone)]
pub struct Component {
    /// `config.json`, or what was inferred from the weights, always an object with the keys that diffusers writes.
    pub config: Value,
    /// Where `config` came from.
    pub config_path: PathBuf,
    path: PathBuf,
    files: Vec<Arc<TensorFile>>,
    places: BTreeMap<String, Place>,
    ignored: Vec<String>,
}

impl Component {
    /// Gathers the tensors of `files` under the names that `translate` gives them. `path` stands for the whole in errors.
    pub(super) fn gather(
        path: &Path,
        files: Vec<Arc<TensorFile>>,
        translate: impl Fn(usize, &str) -> Option<Targets>,
    ) -> Result<Self, Error> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        let mut ignored = Vec::new();
        for (index, file) in files.iter().enumerate() {
            for (source, entry) in file.entries() {
                let Some(targets) = translate(index, source) else {
                    continue;
                };
                if targets.is_empty() {
                    ignored.push(source.clone());
                }
                for (name, part) in targets {
                    let (shape, range) = part.of(&entry.shape, entry.range.clone()).map_err(|problem| Error::Entry {
                        path: file.path().to_path_buf(),
                        tensor: source.clone(),
                        problem,
                    })?;
                    let place = Place {
                        file: index,
                        source: source.clone(),
                        dtype: entry.dtype,
                        shape,
                        range,
                        transposed: part == Part::Transposed,
                    };
                    if let Some(other) = places.get(&name) {
                        return Err(Error::Ambiguous {
                            path: file.path().to_path_buf(),
                            first: other.source.clone(),
                            second: place.source,
                            canonical: name,
                        });
                    }
                    places.insert(name, place);
                }
            }
        }
        let config = Value::Object(serde_json::Map::new());
        let path = path.to_path_buf();
        Ok(Self { config, config_path: path.clone(), path, files, places, ignored })
    }

    /// The file, or the folder it is spread over.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold it.
    pub(super) fn file_paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path())
    }

    /// Canonical names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// It has no tensors.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Names (as stored) of tensors that have no meaning here, such as buffers that older programs saved.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// There is a tensor of that canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Shape of a tensor, without touching its bytes.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|p| &p.shape[..])
    }

    /// Element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.places.get(name).map(|p| p.dtype)
    }

    /// Bytes of a tensor as stored.
    pub fn byte_len(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|p| p.range.len())
    }

    /// Number of weights, all tensors together.
    pub fn parameters(&self) -> u64 {
        self.places.values().map(|p| (p.range.len() / p.dtype.size()) as u64).sum()
    }

    /// The tensor of that canonical name, its bytes still in the file.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.places.get(name).and_then(|place| self.view(place)).ok_or_else(|| self.missing(vec![name.to_string()], None))
    }

    fn view<'a>(&'a self, place: &'a Place) -> Option<TensorView<'a>> {
        let bytes = self.files.get(place.file)?.data(place.range.clone())?;
        if place.transposed {
            let stored: Vec<usize> = place.shape.iter().rev().copied().collect();
            return Some(TensorView::new(place.dtype, stored, bytes)?.transposed());
        }
        TensorView::new(place.dtype, &place.shape[..], bytes)
    }

    /// The tensor of that name, if its shape is as expected. `implied_by` says in an error which configuration key asks for it.
    pub fn require(&self, name: &str, shape: &[usize], implied_by: Option<&str>) -> Result<TensorView<'_>, Error> {
        let implied_by = implied_by.map(str::to_string);
        let Some(place) = self.places.get(name) else {
            return Err(self.missing(vec![name.to_string()], implied_by));
        };
        if place.shape != shape {
            return Err(Error::WrongShape {
                path: self.files.get(place.file).map_or(&*self.path, |f| f.path()).to_path_buf(),
                tensor: name.to_string(),
                expected: shape.to_vec(),
                found: place.shape.clone(),
                implied_by,
            });
        }
        self.tensor(name)
    }

    /// Checks that all these tensors are there; the error lists the first few that are not.
    pub fn require_all<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), Error> {
        let missing: Vec<String> = names.into_iter().filter(|n| !self.contains(n)).map(str::to_string).collect();
        if missing.is_empty() { Ok(()) } else { Err(self.missing(missing, None)) }
    }

    fn missing(&self, mut tensors: Vec<String>, implied_by: Option<String>) -> Error {
        let total = tensors.len();
        tensors.truncate(4);
        let closest = tensors.first().and_then(|t| closest(t, self.names())).map(str::to_string);
        Error::MissingTensor { path: self.path.clone(), tensors, total, implied_by, closest }
    }

    /// Says that a tensor's bytes have been used and need not stay in memory.
    pub fn release(&self, name: &str) {
        if let Some(place) = self.places.get(name)
            && let Some(file) = self.files.get(place.file)
        {
            file.drop_pages(place.range.clone());
        }
    }

    /// SHA-256 of all weights: names, types, shapes and bytes, in the order of the canonical names. The same weights have the
    /// same hash in every file layout, as long as they are stored in the same precision.
    pub fn hash(&self) -> [u8; 32] {
        let mut sha = Sha256::new();
        for (name, place) in &self.places {
            // Lengths go in too, so that no two different lists of tensors give the same stream.
            for text in [name.as_str(), place.dtype.name()] {
                sha.update((text.len() as u64).to_le_bytes());
                sha.update(text);
            }
            sha.update((place.shape.len() as u64).to_le_bytes());
            for &size in &place.shape {
                sha.update((size as u64).to_le_bytes());
            }
            if let Some(view) = self.view(place) {
                sha.update(view.bytes());
            }
            self.release(name);
        }
        sha.finalize().into()
    }
}

impl Part {
    fn of(self, shape: &[usize], range: Range<usize>) -> Result<(Vec<usize>, Range<usize>), String> {
        match (self, shape) {
            (Self::Matrix, &[rows, columns, 1, 1]) => Ok((vec![rows, columns], range)),
            (Self::Whole | Self::Matrix, _) => Ok((shape.to_vec(), range)),
            (Self::Rows(i, n), [rows, ..]) if rows % n == 0 => {
                let mut shape = shape.to_vec();
                shape[0] /= n;
                let step = range.len() / n;
                let start = range.start + i * step;
                Ok((shape, start..start + step))
            }
            (Self::Rows(_, n), _) => Err(format!("shape {shape:?} cannot be split into {n} equal ranges of rows")),
            (Self::Transposed, &[rows, columns]) => Ok((vec![columns, rows], range)),
            (Self::Transposed, _) => Err(format!("shape {shape:?} where a matrix is expected")),
        }
    }
}

/// The name that takes the fewest edits to become `wanted`, if that is few enough to be worth mentioning.
fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.len() / 4).max(2);
    names
        .filter(|n| n.len().abs_diff(wanted.len()) <= limit)
        .map(|n| (edits(wanted.as_bytes(), n.as_bytes()), n))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, n)| n)
}

/// Levenshtein distance, row by row.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
