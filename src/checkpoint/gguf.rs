//! GGUF: what stable-diffusion.cpp and its relatives keep models in. Names, shapes and places of the
//! tensors stand at the beginning; the tensors stay in the mapped file.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Found, Storage};
use super::header::Entry;
use super::tensor::byte_len;
use super::{DType, Error, TensorFile};

pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// The version that is written; the one before differs in nothing that models have.
pub(super) const VERSION: u32 = 3;
/// Tensors begin at multiples of this, unless the file says otherwise.
pub(super) const ALIGNMENT: usize = 32;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 4;
/// Lists within lists.
const DEEPEST: usize = 8;
/// Tensors, and values of metadata, of one file.
const MOST_ENTRIES: u64 = 200_000;
/// Longest text that is kept of the metadata.
const LONGEST: usize = 4 << 20;

/// Types of tensors, by their numbers in the file.
const TYPES: [(u32, DType); 16] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (12, DType::Q4K),
    (13, DType::Q5K),
    (14, DType::Q6K),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// The number of a type in the file; none of types that such files do not have.
pub(super) fn number_of(dtype: DType) -> Option<u32> {
    TYPES.iter().find(|(_, known)| *known == dtype).map(|(number, _)| *number)
}

/// What the types are called that are not read.
fn unknown_type(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("element type number {number} is not known"),
    };
    format!(
        "element type {name} is not supported; Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, \
        F16, BF16 and F32 are"
    )
}

impl TensorFile {
    /// Maps a GGUF file and checks all that its beginning claims.
    pub(super) fn open_gguf(path: &Path) -> Result<Self, Error> {
        Self::gguf(path, Storage::map(path)?)
    }

    pub(super) fn gguf(path: &Path, storage: Storage) -> Result<Self, Error> {
        let found = read(storage.bytes()).map_err(|wrong| match wrong {
            Wrong::File(problem) => Error::Gguf { path: path.to_path_buf(), problem },
            Wrong::Tensor(tensor, problem) => {
                Error::Entry { path: path.to_path_buf(), tensor, problem }
            }
        })?;
        Ok(Self::assembled(path, storage, found))
    }
}

/// What is wrong with the file, or with one of its tensors.
enum Wrong {
    File(String),
    Tensor(String, String),
}

impl From<String> for Wrong {
    fn from(problem: String) -> Self {
        Wrong::File(problem)
    }
}

fn cut_off() -> String {
    "it ends too early (an incomplete download or copy?)".into()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| cut_off())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|_| cut_off())
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let length = self.size()?;
        self.take(length)
    }

    /// A value of metadata, as text; none of lists.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<String>, String> {
        Ok(Some(match kind {
            0 => self.number::<1>()?[0].to_string(),
            1 => (self.number::<1>()?[0] as i8).to_string(),
            2 => u16::from_le_bytes(self.number()?).to_string(),
            3 => i16::from_le_bytes(self.number()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.number()?).to_string(),
            6 => f32::from_le_bytes(self.number()?).to_string(),
            7 => (self.number::<1>()?[0] != 0).to_string(),
            8 => {
                let text = self.text()?;
                let kept = text.get(..LONGEST).unwrap_or(text);
                String::from_utf8_lossy(kept).into_owned()
            }
            9 => {
                let (kind, count) = (self.u32()?, self.size()?);
                if depth > DEEPEST {
                    return Err("its metadata are nested too deeply".into());
                }
                let fixed = match kind {
                    0 | 1 | 7 => Some(1),
                    2 | 3 => Some(2),
                    4..=6 => Some(4),
                    10..=12 => Some(8),
                    _ => None,
                };
                match fixed {
                    Some(size) => {
                        self.take(count.checked_mul(size).ok_or_else(cut_off)?)?;
                    }
                    // Each takes some bytes, so that these are soon at an end.
                    None => {
                        for _ in 0..count {
                            self.value(kind, depth + 1)?;
                        }
                    }
                }
                return Ok(None);
            }
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.number()?).to_string(),
            12 => f64::from_le_bytes(self.number()?).to_string(),
            other => return Err(format!("a value of its metadata is of a kind ({other}) unknown")),
        }))
    }
}

fn read(bytes: &[u8]) -> Result<Found, Wrong> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.number::<4>()? != *MAGIC {
        return Err(Wrong::File("it does not begin as such files do".into()));
    }
    let version = reader.u32()?;
    if version.swap_bytes() == VERSION {
        return Err(Wrong::File("its numbers are stored in big-endian order".into()));
    }
    if !(2..=VERSION).contains(&version) {
        return Err(Wrong::File(format!("version {version} of the format; 2 and 3 are read")));
    }
    let (tensors, values) = (reader.u64()?, reader.u64()?);
    if tensors > MOST_ENTRIES || values > MOST_ENTRIES {
        return Err(Wrong::File(format!(
            "{tensors} tensors and {values} values, more than any model"
        )));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..values {
        let key = reader.text()?;
        let key = std::str::from_utf8(key).map_err(|_| "a key is no text".to_string())?.to_string();
        let kind = reader.u32()?;
        metadata.extend(reader.value(kind, 0)?.map(|value| (key, value)));
    }
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT,
        Some(text) => {
            let found = text.parse().ok().filter(|n: &usize| n.is_power_of_two() && *n <= 1 << 20);
            found.ok_or_else(|| format!("`{ALIGNMENT_KEY}` is {text}, not a power of two"))?
        }
    };
    let mut entries = BTreeMap::new();
    for _ in 0..tensors {
        let name = reader.text()?;
        let name = std::str::from_utf8(name).map_err(|_| "a name is no text".to_string())?;
        let entry = entry(&mut reader, alignment).map_err(|wrong| match wrong {
            Wrong::File(problem) => Wrong::Tensor(name.to_string(), problem),
            known => known,
        })?;
        if entries.insert(name.to_string(), entry).is_some() {
            return Err(Wrong::Tensor(name.to_string(), "given twice".into()));
        }
    }
    let data_start = reader.at.next_multiple_of(alignment);
    let found = bytes.len().saturating_sub(data_start);
    let beyond = |(_, entry): &(&String, &Entry)| entry.range.end > found;
    if let Some((name, entry)) = entries.iter().find(beyond) {
        let problem = format!(
            "its bytes end at {}, but there are {found} (an incomplete download or copy?)",
            entry.range.end
        );
        return Err(Wrong::Tensor(name.clone(), problem));
    }
    apart(&entries)?;
    Ok(Found { data_start, extra: Vec::new(), entries, metadata })
}

/// Type, shape and place of the next tensor.
fn entry(reader: &mut Reader, alignment: usize) -> Result<Entry, Wrong> {
    let axes = reader.u32()? as usize;
    if axes > MOST_DIMENSIONS {
        return Err(Wrong::File(format!("{axes} dimensions, more than {MOST_DIMENSIONS}")));
    }
    // The innermost comes first.
    let mut shape = (0..axes).map(|_| reader.size()).collect::<Result<Vec<usize>, String>>()?;
    shape.reverse();
    let number = reader.u32()?;
    let start = reader.size()?;
    let known = TYPES.iter().find(|(known, _)| *known == number).map(|(_, dtype)| *dtype);
    let dtype = known.ok_or_else(|| unknown_type(number))?;
    if start % alignment != 0 {
        return Err(Wrong::File(format!("it begins at {start}, not at a multiple of {alignment}")));
    }
    let length = byte_len(dtype, &shape).ok_or_else(|| {
        let (together, _) = dtype.block();
        match shape.last() {
            Some(columns) if columns % together != 0 => {
                format!("rows of {columns}, which are no whole blocks of {together} ({dtype})")
            }
            _ => format!("its shape {shape:?} is impossibly large"),
        }
    })?;
    let end = start.checked_add(length).ok_or_else(cut_off)?;
    Ok(Entry { dtype, shape, range: start..end })
}

/// No tensor lies over another.
fn apart(entries: &BTreeMap<String, Entry>) -> Result<(), Wrong> {
    let mut order: Vec<_> = entries.iter().filter(|(_, entry)| !entry.range.is_empty()).collect();
    order.sort_by_key(|(_, entry)| entry.range.start);
    for pair in order.windows(2) {
        let [(first, before), (second, after)] = pair else { continue };
        if after.range.start < before.range.end {
            let problem = format!(
                "its bytes begin at {}, inside those of `{first}`, which end at {}",
                after.range.start, before.range.end
            );
            return Err(Wrong::Tensor(second.to_string(), problem));
        }
    }
    Ok(())
}
