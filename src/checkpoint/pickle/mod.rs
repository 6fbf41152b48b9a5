//! Tensors out of the files that `torch.save` writes, without running anything.
//!
//! A pickle is a program for a small machine, and Python's own machine may be told to call any
//! function. [`machine`] knows only what builds dictionaries, lists, numbers and tensors; whatever
//! else a file names is refused by its name. Files are zip archives (`zip`, since torch 1.6) or a
//! bare stream of pickles followed by the storages' bytes (before). The result is a [`TensorFile`]
//! with dotted names, so that all else is as with safetensors.
mod budget;
mod machine;
mod value;
mod zip;

use super::{DType, Error, TensorFile, TensorView, write};
use budget::Budget;
use machine::Machine;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use crate::file_kind::FileKind;
use value::{Heap, Key, Storage, Tensor, Value};

/// Files are read whole, so they may not be arbitrarily large: concepts and LoRAs have megabytes.
const LARGEST_FILE: u64 = 2 << 30;
/// Dictionaries within dictionaries.
const DEEPEST: usize = 32;
/// Tensors, and texts, of one file.
const MOST_ENTRIES: usize = 200_000;
/// What the tensors of a file may take together, relative to the file: several may show the same
/// storage.
const MOST_GROWTH: usize = 4;

impl TensorFile {
    /// Opens a safetensors file or one that `torch.save` wrote, told apart by its first bytes. Of
    /// the latter, dictionaries become dotted names, and texts and numbers metadata.
    ///
    /// # Errors
    /// What is neither; a pickle that names anything but tensors and what holds them.
    pub fn open_any(path: &Path) -> Result<Self, Error> {
        let length = std::fs::metadata(path).map_err(Error::io(path, "open"))?.len();
        let kind = FileKind::of_file(path).map_err(Error::io(path, "read"))?;
        if !is_pickle(kind) {
            return Self::open(path);
        }
        if length > LARGEST_FILE {
            return Err(refusal(
                path,
                format!("a pickle of {} MiB; up to {} are read", length >> 20, LARGEST_FILE >> 20),
            ));
        }
        read(path, &std::fs::read(path).map_err(Error::io(path, "read"))?)
    }
}

/// Pickles beyond this are looked at without their tensors' values.
const LOOKED_AT_WHOLE: u64 = 64 << 20;

impl TensorFile {
    /// As [`open_any`](Self::open_any), to tell what is in it: of a large pickle names, types and
    /// shapes alone, so that whole models can be looked at. Also tells whether it is a pickle.
    ///
    /// # Errors
    /// Those of [`open_any`](Self::open_any).
    pub fn open_any_outline(path: &Path) -> Result<(Self, bool), Error> {
        let file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let kind = FileKind::of_file(path).map_err(Error::io(path, "read"))?;
        let pickled = is_pickle(kind);
        if !pickled || length <= LOOKED_AT_WHOLE {
            return Ok((Self::open_any(path)?, pickled));
        }
        // SAFETY: as of every file that is mapped for reading: see `TensorFile::open`.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        let (tensors, metadata) = outline(&map).map_err(|problem| refusal(path, problem))?;
        Ok((Self::outline(path, tensors, metadata), true))
    }
}

/// Any zip archive may be one of `torch.save`.
fn is_pickle(kind: FileKind) -> bool {
    matches!(kind, FileKind::Zip | FileKind::TorchZip | FileKind::Pickle)
}

fn refusal(path: &Path, problem: String) -> Error {
    Error::Pickled { path: path.to_path_buf(), problem }
}

/// Reads the bytes of a file that `torch.save` wrote. `path` stands for it in errors.
pub fn read(path: &Path, bytes: &[u8]) -> Result<TensorFile, Error> {
    let (tensors, metadata) = extract(bytes).map_err(|problem| refusal(path, problem))?;
    TensorFile::from_bytes(path, write::to_bytes(path, &tensors, &metadata)?)
}

type Contents = (Vec<(String, TensorView<'static>)>, BTreeMap<String, String>);

fn extract(bytes: &[u8]) -> Result<Contents, String> {
    let mut flat = Flat { room: bytes.len().saturating_mul(MOST_GROWTH), ..Flat::default() };
    if !bytes.starts_with(b"PK") {
        let mut machine = Machine::new(bytes, Budget::for_pickle(bytes.len()));
        let root = legacy(&mut machine, &mut flat)?;
        let (heap, mut budget) = machine.finish();
        flat.walk(&heap, &mut budget, &mut Vec::new(), &root)?;
        return Ok((flat.tensors, flat.metadata));
    }
    let archive = zip::Archive::open(bytes)?;
    let (folder, pickle) = archive.pickle()?;
    if archive
        .get(&format!("{folder}/byteorder"))?
        .is_some_and(|order| order.trim_ascii() != b"little")
    {
        return Err("its numbers are stored in big-endian order".into());
    }
    let mut machine = Machine::new(pickle, Budget::for_pickle(pickle.len()));
    let root = machine.run()?;
    for storage in machine.storages() {
        let name = format!("{folder}/data/{}", storage.key);
        let data = archive.get(&name)?.ok_or_else(|| format!("the archive has no `{name}`"))?;
        flat.add_storage(storage, data)?;
    }
    let (heap, mut budget) = machine.finish();
    flat.walk(&heap, &mut budget, &mut Vec::new(), &root)?;
    Ok((flat.tensors, flat.metadata))
}

pub(super) type Outline = (Vec<(String, DType, Vec<usize>)>, BTreeMap<String, String>);

/// Names, types and shapes of the tensors, of which no value is read.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, String> {
    let mut flat = Flat { outline: Some(Vec::new()), ..Flat::default() };
    let pickle = match bytes.starts_with(b"PK") {
        true => zip::Archive::open(bytes)?.pickle()?.1,
        false => bytes,
    };
    let mut machine = Machine::new(pickle, Budget::for_pickle(pickle.len()));
    let root = if bytes.starts_with(b"PK") { machine.run()? } else { object(&mut machine)? };
    let (heap, mut budget) = machine.finish();
    flat.walk(&heap, &mut budget, &mut Vec::new(), &root)?;
    Ok((flat.outline.unwrap_or_default(), flat.metadata))
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
        flat.add_storage(storage, data)?;
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

fn cut_off() -> String {
    "the file ends too early (an incomplete download or copy?)".into()
}

/// Dictionaries on their way to dotted names.
#[derive(Default)]
struct Flat<'a> {
    /// Of the storages.
    bytes: BTreeMap<String, &'a [u8]>,
    tensors: Vec<(String, TensorView<'static>)>,
    metadata: BTreeMap<String, String>,
    /// Bytes that tensors may still take.
    room: usize,
    visited: usize,
    /// Tensors as they are looked at without their values.
    outline: Option<Vec<(String, DType, Vec<usize>)>>,
}

impl<'a> Flat<'a> {
    fn add_storage(&mut self, storage: &Storage, data: &'a [u8]) -> Result<(), String> {
        let expected = storage.elements.checked_mul(storage.dtype.size());
        if expected != Some(data.len()) {
            let (key, elements, dtype) = (&storage.key, storage.elements, storage.dtype);
            return Err(format!(
                "the storage `{key}` of {elements} {dtype} has {} bytes",
                data.len()
            ));
        }
        self.bytes.insert(storage.key.clone(), data);
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
                if let Some(outline) = &mut self.outline {
                    outline.push((name, tensor.storage.dtype, tensor.shape.clone()));
                    return Ok(());
                }
                let view =
                    self.view(tensor).map_err(|problem| format!("tensor `{name}`: {problem}"))?;
                self.tensors.push((name, view));
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
        self.metadata.insert(name(path, budget)?, text);
        Ok(())
    }

    /// Copies a tensor out of its storage, row-major.
    fn view(&mut self, tensor: &Tensor) -> Result<TensorView<'static>, String> {
        let Tensor { storage, offset, shape, strides } = tensor;
        let bytes = *self
            .bytes
            .get(&storage.key)
            .ok_or_else(|| format!("the storage `{}` is missing", storage.key))?;
        let size = storage.dtype.size();
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
        if contiguous(shape, strides) {
            let start = offset.checked_mul(size);
            let data = start.and_then(|start| bytes.get(start..)?.get(..length));
            let data = data.ok_or_else(|| format!("shape {shape:?} reaches beyond its storage"))?;
            return TensorView::new(storage.dtype, shape.clone(), data.to_vec())
                .ok_or_else(|| format!("shape {shape:?} is impossible"));
        }
        let mut data = Vec::with_capacity(length);
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
        TensorView::new(storage.dtype, shape.clone(), data)
            .ok_or_else(|| format!("shape {shape:?} is impossible"))
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
        _ => return None,
    })
}
