//! Tensors out of the files that `torch.save` writes, without running anything.
//!
//! A pickle is a program for a small machine, and Python's own machine may be told to call any
//! function. [`machine`] knows only what builds dictionaries, lists, numbers and tensors; whatever
//! else a file names is refused by its name. Files are zip archives (`zip`, since torch 1.6) or a
//! bare stream of pickles followed by the storages' bytes (before). The result is a [`TensorFile`]
//! with dotted names, so that all else is as with safetensors: its tensors stay in the mapped file.
mod budget;
mod machine;
mod value;
mod zip;

use super::file::{Found, Storage as StoredBytes, data as data_of};
use super::header::Entry;
use super::{DType, Error, TensorFile};
use budget::Budget;
use machine::Machine;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use crate::file_kind::FileKind;
use value::{Heap, Key, Storage, Tensor, Value};

/// Dictionaries within dictionaries.
const DEEPEST: usize = 32;
/// Tensors, and texts, of one file.
const MOST_ENTRIES: usize = 200_000;
/// What the tensors of a file may take together, relative to the file: several may show the same
/// storage.
const MOST_GROWTH: usize = 4;
/// Checksums of larger files are not looked at: they would have to be read whole.
const CHECKED_WHOLE: usize = 64 << 20;

impl TensorFile {
    /// Opens a safetensors file, a GGUF file or one that `torch.save` wrote, told apart by its first
    /// bytes. Of the latter, dictionaries become dotted names, and texts and numbers metadata;
    /// tensors stay in the file where they are stored as they are.
    ///
    /// # Errors
    /// What is none of these; a pickle that names anything but tensors and what holds them.
    pub fn open_any(path: &Path) -> Result<Self, Error> {
        match FileKind::of_file(path).map_err(Error::io(path, "read"))? {
            FileKind::Gguf => Self::open_gguf(path),
            kind if is_pickle(kind) => opened(path, StoredBytes::map(path)?),
            _ => Self::open(path),
        }
    }
}

/// Any zip archive may be one of `torch.save`.
fn is_pickle(kind: FileKind) -> bool {
    matches!(kind, FileKind::Zip | FileKind::TorchZip | FileKind::Pickle)
}

/// Reads the bytes of a file that `torch.save` wrote. `path` stands for it in errors.
#[cfg(test)]
pub fn read(path: &Path, bytes: &[u8]) -> Result<TensorFile, Error> {
    opened(path, StoredBytes::Owned(bytes.to_vec()))
}

fn opened(path: &Path, storage: StoredBytes) -> Result<TensorFile, Error> {
    let found = extract(storage.bytes())
        .map_err(|problem| Error::Pickled { path: path.to_path_buf(), problem })?;
    Ok(TensorFile::assembled(path, storage, found))
}

fn extract(bytes: &[u8]) -> Result<Found, String> {
    let mut flat = Flat::new(bytes);
    if !bytes.starts_with(b"PK") {
        let mut machine = Machine::new(bytes, Budget::for_pickle(bytes.len()));
        let root = legacy(&mut machine, &mut flat)?;
        let (heap, mut budget) = machine.finish();
        flat.walk(&heap, &mut budget, &mut Vec::new(), &root)?;
        return Ok(flat.found);
    }
    let archive = zip::Archive::open(bytes, bytes.len() <= CHECKED_WHOLE)?;
    let (folder, pickle) = archive.pickle()?;
    if archive
        .get(&format!("{folder}/byteorder"))?
        .is_some_and(|order| order.trim_ascii() != b"little")
    {
        return Err("its numbers are stored in big-endian order".into());
    }
    let mut machine = Machine::new(&pickle, Budget::for_pickle(pickle.len()));
    let root = machine.run()?;
    for storage in machine.storages() {
        let name = format!("{folder}/data/{}", storage.key);
        let data = archive.get(&name)?.ok_or_else(|| format!("the archive has no `{name}`"))?;
        flat.add_storage(storage, data)?;
    }
    let (heap, mut budget) = machine.finish();
    flat.walk(&heap, &mut budget, &mut Vec::new(), &root)?;
    Ok(flat.found)
}

/// Before torch 1.6: the magic number, the protocol, the system, the object, the storages' keys;
/// then, in the order of the keys, each storage's number of elements and its bytes.
fn legacy<'a>(machine: &mut Machine<'a>, flat: &mut Flat<'a>) -> Result<Value, String> {
    let root = object(machine)?;
    let keys = match machine.run()? {
        Value::List(keys) => machine.heap().list(keys).to_vec(),
        _ => return Err("no list of storages".into()),
    };
    let storages: BTreeMap<String, Rc<Storage>> =
        machine.storages().map(|s| (s.key.clone(), s.clone())).collect();
    let mut rest = machine.rest();
    for key in keys {
        let Value::Text(key) = &key else { return Err("a storage's key is no text".into()) };
        let storage = storages
            .get(&**key)
            .ok_or_else(|| format!("the storage `{key}` belongs to no tensor"))?;
        let Some((count, after)) = rest.split_first_chunk::<8>() else { return Err(cut_off()) };
        let size = storage.dtype.size();
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(cut_off)?;
        let data = after.get(..length).ok_or_else(cut_off)?;
        rest = &after[length..];
        flat.add_storage(storage, Cow::Borrowed(data))?;
    }
    Ok(root)
}

/// The object that was saved, of the format before torch 1.6.
fn object(machine: &mut Machine) -> Result<Value, String> {
    const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    match machine.run()? {
        Value::Long(number) if *number == MAGIC => {}
        _ => return Err("a pickle, but not one that `torch.save` wrote".into()),
    }
    if !matches!(machine.run()?, Value::Int(1001)) {
        return Err("of a version of `torch.save` that is not known".into());
    }
    machine.run()?;
    machine.run()
}

/// A type as torch calls it.
fn tensor_type(name: &str) -> Option<DType> {
    Some(match name {
        "float8_e4m3fn" => DType::F8E4M3,
        "float8_e5m2" => DType::F8E5M2,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "float32" => DType::F32,
        "float64" => DType::F64,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "uint16" => DType::U16,
        "int16" => DType::I16,
        "uint32" => DType::U32,
        "int32" => DType::I32,
        "uint64" => DType::U64,
        "int64" => DType::I64,
        "bool" => DType::Bool,
        _ => return None,
    })
}

fn cut_off() -> String {
    "the file ends too early (an incomplete download or copy?)".into()
}

/// Dictionaries on their way to dotted names.
struct Flat<'a> {
    file: &'a [u8],
    found: Found,
    /// Where each storage is.
    places: BTreeMap<String, Range<usize>>,
    /// Bytes that tensors may still take.
    room: usize,
    visited: usize,
}

impl<'a> Flat<'a> {
    fn new(file: &'a [u8]) -> Self {
        let room = file.len().saturating_mul(MOST_GROWTH);
        Flat { file, found: Found::default(), places: BTreeMap::new(), room, visited: 0 }
    }

    fn add_storage(&mut self, storage: &Storage, data: Cow<'a, [u8]>) -> Result<(), String> {
        let expected = storage.elements.checked_mul(storage.dtype.size());
        if expected != Some(data.len()) {
            let (key, elements, dtype) = (&storage.key, storage.elements, storage.dtype);
            return Err(format!(
                "the storage `{key}` of {elements} {dtype} has {} bytes",
                data.len()
            ));
        }
        let start = match &data {
            // It is a part of the file.
            Cow::Borrowed(part) => (part.as_ptr() as usize)
                .checked_sub(self.file.as_ptr() as usize)
                .filter(|start| *start <= self.file.len())
                .ok_or_else(cut_off)?,
            Cow::Owned(unpacked) => {
                let start = self.file.len() + self.found.extra.len();
                self.found.extra.extend_from_slice(unpacked);
                start
            }
        };
        self.places.insert(storage.key.clone(), start..start + data.len());
        Ok(())
    }

    fn walk(
        &mut self,
        heap: &Heap,
        budget: &mut Budget,
        path: &mut Vec<String>,
        value: &Value,
    ) -> Result<(), String> {
        self.visited += 1;
        if path.len() > DEEPEST || self.visited > MOST_ENTRIES {
            return Err("its dictionaries are nested too deeply, or hold too much".into());
        }
        match value {
            Value::Dict(entries) => {
                for (key, value) in heap.dict(*entries) {
                    path.push(match key {
                        Key::Text(text) => {
                            budget.bytes(text.len())?;
                            text.to_string()
                        }
                        Key::Int(number) => number.to_string(),
                    });
                    self.walk(heap, budget, path, value)?;
                    path.pop();
                }
            }
            Value::List(values) | Value::Tuple(values) => {
                self.walk_all(heap, budget, path, heap.list(*values))?
            }
            Value::Tensor(tensor) => {
                let name = if path.is_empty() { "tensor".to_string() } else { name(path, budget)? };
                let entry =
                    self.entry(tensor).map_err(|problem| format!("tensor `{name}`: {problem}"))?;
                if self.found.entries.insert(name.clone(), entry).is_some() {
                    return Err(format!("tensor `{name}`: given twice"));
                }
            }
            Value::Text(text) => {
                budget.bytes(text.len())?;
                self.note(path, budget, text.to_string())?;
            }
            Value::Int(number) => self.note(path, budget, number.to_string())?,
            Value::Float(number) => self.note(path, budget, number.to_string())?,
            Value::Bool(is) => self.note(path, budget, is.to_string())?,
            _ => {}
        }
        Ok(())
    }

    fn walk_all(
        &mut self,
        heap: &Heap,
        budget: &mut Budget,
        path: &mut Vec<String>,
        values: &[Value],
    ) -> Result<(), String> {
        for (index, value) in values.iter().enumerate() {
            path.push(index.to_string());
            self.walk(heap, budget, path, value)?;
            path.pop();
        }
        Ok(())
    }

    fn note(&mut self, path: &[String], budget: &mut Budget, text: String) -> Result<(), String> {
        self.found.metadata.insert(name(path, budget)?, text);
        Ok(())
    }

    /// The place of a tensor: in its storage, or gathered where it does not lie there row-major.
    fn entry(&mut self, tensor: &Tensor) -> Result<Entry, String> {
        let Tensor { storage, dtype, offset, shape, strides } = tensor;
        let place = self
            .places
            .get(&storage.key)
            .cloned()
            .ok_or_else(|| format!("the storage `{}` is missing", storage.key))?;
        let size = dtype.size();
        let count = if shape.contains(&0) {
            Some(0)
        } else {
            shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
        };
        let length = count.and_then(|n| n.checked_mul(size)).filter(|length| *length <= self.room);
        let (Some(count), Some(length)) = (count, length) else {
            return Err(format!("shape {shape:?} is larger than the file accounts for"));
        };
        self.room -= length;
        let (dtype, extents) = (*dtype, shape.clone());
        if contiguous(shape, strides) {
            let start = offset.checked_mul(size).and_then(|start| place.start.checked_add(start));
            let range = start.and_then(|start| Some(start..start.checked_add(length)?));
            let range = range.filter(|range| range.end <= place.end);
            let range =
                range.ok_or_else(|| format!("shape {shape:?} reaches beyond its storage"))?;
            return Ok(Entry { dtype, shape: extents, range });
        }
        let mut data = Vec::with_capacity(length);
        let bytes = data_of(self.file, &self.found.extra, place).ok_or_else(cut_off)?;
        let mut at = vec![0usize; shape.len()];
        for _ in 0..count {
            let index =
                at.iter().zip(strides).try_fold(*offset, |sum, (i, stride): (&usize, _)| {
                    i.checked_mul(*stride)?.checked_add(sum)
                });
            let element = index.and_then(|i| bytes.get(i.checked_mul(size)?..)?.get(..size));
            data.extend_from_slice(element.ok_or_else(|| {
                format!("shape {shape:?}, strides {strides:?} reach beyond its storage")
            })?);
            for (i, extent) in at.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < *extent {
                    break;
                }
                *i = 0;
            }
        }
        let start = self.file.len() + self.found.extra.len();
        self.found.extra.extend_from_slice(&data);
        Ok(Entry { dtype, shape: extents, range: start..start + data.len() })
    }
}

/// The dotted name of what is at `path`.
fn name(path: &[String], budget: &mut Budget) -> Result<String, String> {
    budget.bytes(path.iter().map(|part| part.len() + 1).sum())?;
    Ok(path.join("."))
}

/// Elements lie one after another, row-major.
fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(extent, stride)| {
        let fits = *extent == 1 || *stride == expected;
        expected = expected.saturating_mul(*extent);
        fits
    })
}

/// The element type of a storage class of torch's.
fn storage_type(name: &str) -> Option<DType> {
    Some(match name {
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "DoubleStorage" => DType::F64,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        // Tensors of such a storage bring their type.
        "UntypedStorage" => DType::U8,
        _ => return None,
    })
}
