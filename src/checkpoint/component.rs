//! One network of a model: its configuration and its weights under canonical names, wherever and
//! however they are stored.
use super::tensor::Scale;
use super::{DType, Error, TensorFile, TensorView};
use crate::quant::Quant;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
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
    scale: Scale,
}

/// A network's configuration and weights. Names are those of diffusers; a text encoder's begin with
/// `text_model.`, a vision tower's with `vision_model.`, as in Hugging Face's files.
#[derive(Debug, Clone)]
pub struct Component {
    /// `config.json`, or what was inferred from the weights, always an object with the keys that
    /// diffusers writes.
    pub config: Value,
    /// Where `config` came from.
    pub config_path: PathBuf,
    path: PathBuf,
    files: Vec<Arc<TensorFile>>,
    places: BTreeMap<String, Place>,
    ignored: Vec<String>,
}

impl Component {
    /// Gathers the tensors of `files` under the names that `translate` gives them. `path` stands
    /// for the whole in errors.
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
                    let (shape, range) =
                        part.of(&entry.shape, entry.range.clone()).map_err(|problem| {
                            Error::Entry {
                                path: file.path().to_path_buf(),
                                tensor: source.clone(),
                                problem,
                            }
                        })?;
                    let place = Place {
                        file: index,
                        source: source.clone(),
                        dtype: entry.dtype,
                        shape,
                        range,
                        transposed: part == Part::Transposed,
                        scale: Scale::One,
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
        take_scales(&files, &mut places, &mut ignored)?;
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

    /// Names (as stored) of tensors that have no meaning here, such as buffers that older programs
    /// saved.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// There is a tensor of that canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// What its file calls a tensor.
    pub(super) fn source(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| &*place.source)
    }

    /// Shape of a tensor, without touching its bytes.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|p| &p.shape[..])
    }

    /// Element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.places.get(name).map(|p| p.dtype)
    }

    /// The blocks in which a matrix is stored as it lies, if it is in such as devices hold.
    pub(crate) fn quant(&self, name: &str) -> Option<Quant> {
        let place = self.places.get(name)?;
        match place.dtype {
            _ if place.transposed || place.shape.len() != 2 => None,
            DType::Q8_0 => Some(Quant::Q8_0),
            DType::Q4_0 => Some(Quant::Q4_0),
            _ => None,
        }
    }

    /// Bytes of a tensor as stored.
    pub fn byte_len(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|p| p.range.len())
    }

    /// Number of weights, all tensors together.
    pub fn parameters(&self) -> u64 {
        self.places.values().map(|p| p.dtype.elements(p.range.len()) as u64).sum()
    }

    /// The tensor of that canonical name, its bytes still in the file.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.places
            .get(name)
            .and_then(|place| self.view(place))
            .ok_or_else(|| self.missing(vec![name.to_string()], None))
    }

    fn view<'a>(&'a self, place: &'a Place) -> Option<TensorView<'a>> {
        let bytes = self.files.get(place.file)?.data(place.range.clone())?;
        if place.transposed {
            let stored: Vec<usize> = place.shape.iter().rev().copied().collect();
            return Some(
                TensorView::new(place.dtype, stored, bytes)?
                    .scaled(place.scale.clone())
                    .transposed(),
            );
        }
        Some(TensorView::new(place.dtype, &place.shape[..], bytes)?.scaled(place.scale.clone()))
    }

    /// The tensor of that name, if its shape is as expected. `implied_by` says in an error which
    /// configuration key asks for it.
    pub fn require(
        &self,
        name: &str,
        shape: &[usize],
        implied_by: Option<&str>,
    ) -> Result<TensorView<'_>, Error> {
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
        let missing: Vec<String> =
            names.into_iter().filter(|n| !self.contains(n)).map(str::to_string).collect();
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

    /// SHA-256 of all weights: names, types, shapes and bytes, in the order of the canonical names.
    /// The same weights have the same hash in every file layout, as long as they are stored in the
    /// same precision.
    pub fn hash(&self) -> [u8; 32] {
        let Ok(hash) = self.hash_with(&mut || Ok::<_, Infallible>(()));
        hash
    }

    /// As [`Component::hash`]; `before` is called before each tensor and may end it.
    pub(super) fn hash_with<E>(
        &self,
        before: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<[u8; 32], E> {
        let mut sha = Sha256::new();
        for (name, place) in &self.places {
            before()?;
            // Lengths go in too, so that no two different lists of tensors give the same stream.
            for text in [name.as_str(), place.dtype.name()] {
                sha.update((text.len() as u64).to_le_bytes());
                sha.update(text);
            }
            sha.update((place.shape.len() as u64).to_le_bytes());
            for &size in &place.shape {
                sha.update((size as u64).to_le_bytes());
            }
            match &place.scale {
                Scale::One => {}
                Scale::Whole(scale) => sha.update(scale.to_le_bytes()),
                Scale::Rows(scales) => {
                    scales.iter().for_each(|scale| sha.update(scale.to_le_bytes()));
                }
            }
            if let Some(view) = self.view(place) {
                sha.update(view.bytes());
            }
            self.release(name);
        }
        Ok(sha.finalize().into())
    }
}

/// What programs call a weight's scale; the last one bitsandbytes', of each row, times 127.
const SCALES: [&str; 3] = [".scale_weight", ".weight_scale", ROWS_SCALE];
const ROWS_SCALE: &str = ".SCB";
/// Scales of a layer's input, which matter only where products are computed in 8 bits, and the mark
/// of a file with scales.
const WITHOUT_MEANING: [&str; 5] =
    [".scale_input", ".input_scale", "scaled_fp8", ".comfy_quant", ".weight_format"];
const QUANTISED: &str = ".comfy_quant";

/// Takes out the tensors whose names end so.
fn taken(places: &mut BTreeMap<String, Place>, ends: &[&str]) -> Vec<(String, Place)> {
    let names: Vec<String> =
        places.keys().filter(|name| ends.iter().any(|end| name.ends_with(end))).cloned().collect();
    names.into_iter().filter_map(|name| places.remove_entry(&name)).collect()
}

/// 8-bit weights come with scales, as tensors beside them. They become a part of the weights.
fn take_scales(
    files: &[Arc<TensorFile>],
    places: &mut BTreeMap<String, Place>,
    ignored: &mut Vec<String>,
) -> Result<(), Error> {
    let file = |place: &Place| files.get(place.file);
    let error = |place: &Place, problem: String| Error::Entry {
        path: file(place).map(|file| file.path().to_path_buf()).unwrap_or_default(),
        tensor: place.source.clone(),
        problem,
    };
    // One whose weight has another name here would be lost without a word.
    if let Some(lost) = ignored.iter().find(|name| SCALES.iter().any(|end| name.ends_with(end))) {
        let path = files.first().map(|file| file.path().to_path_buf()).unwrap_or_default();
        let problem = "a scale of a weight that is not known here".to_string();
        return Err(Error::Entry { path, tensor: lost.clone(), problem });
    }
    for (name, place) in taken(places, &WITHOUT_MEANING) {
        if name.ends_with(QUANTISED) {
            let bytes =
                file(&place).and_then(|file| file.data(place.range.clone())).unwrap_or_default();
            let said: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let format = said.get("format").and_then(Value::as_str).unwrap_or_default();
            let rotated = said.get("convrot").and_then(Value::as_bool) == Some(true);
            if rotated || !format.starts_with("float8") && format != "int8_tensorwise" {
                let kind = if rotated { "rotated int8" } else { format };
                return Err(error(
                    &place,
                    format!(
                        "weights quantised as `{kind}` are not read; 8-bit floats and \
                            `int8_tensorwise` are"
                    ),
                ));
            }
        }
        ignored.push(place.source);
    }
    for (name, place) in taken(places, &SCALES) {
        let layer = SCALES.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let view = file(&place).and_then(|file| file.tensor(&place.source));
        let scales = view.filter(|view| view.dtype().is_float() && !view.is_empty());
        let scales = scales.map(|view| view.to_f32(0..view.len()));
        let Some(mut scales) = scales.filter(|all| all.iter().all(|scale| scale.is_finite()))
        else {
            let problem = format!("{} {:?} where scales are expected", place.dtype, place.shape);
            return Err(error(&place, problem));
        };
        if name.ends_with(ROWS_SCALE) {
            scales.iter_mut().for_each(|scale| *scale /= 127.0);
        }
        let Some(weight) = places.get_mut(&format!("{layer}.weight")) else {
            return Err(error(&place, "a scale of a weight that is not there".to_string()));
        };
        let rows = if weight.transposed { weight.shape.last() } else { weight.shape.first() };
        let by_row = place.shape.iter().filter(|side| **side != 1).count() == 1
            && place.shape.first() == rows.filter(|rows| **rows > 1);
        weight.scale = match (&scales[..], weight.dtype) {
            ([scale], DType::F8E4M3 | DType::F8E5M2 | DType::I8) => Scale::Whole(*scale),
            ([1.0], _) => continue,
            (_, DType::F8E4M3 | DType::F8E5M2 | DType::I8) if by_row => Scale::Rows(scales.into()),
            (_, DType::F8E4M3 | DType::F8E5M2 | DType::I8) => {
                let problem = format!(
                    "shape {:?} where the one scale of `{}` {:?}, or one for each of its rows, is \
                        expected",
                    place.shape, weight.source, weight.shape
                );
                return Err(error(&place, problem));
            }
            (_, dtype) => {
                let problem =
                    format!("a scale of `{}`, which is {dtype} and needs none", weight.source);
                return Err(error(&place, problem));
            }
        };
    }
    Ok(())
}

impl Part {
    fn of(
        self,
        shape: &[usize],
        range: Range<usize>,
    ) -> Result<(Vec<usize>, Range<usize>), String> {
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
            (Self::Rows(_, n), _) => {
                Err(format!("shape {shape:?} cannot be split into {n} equal ranges of rows"))
            }
            (Self::Transposed, &[rows, columns]) => Ok((vec![columns, rows], range)),
            (Self::Transposed, _) => Err(format!("shape {shape:?} where a matrix is expected")),
        }
    }
}

/// The name that takes the fewest edits to become `wanted`, if that is few enough to be worth
/// mentioning.
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
