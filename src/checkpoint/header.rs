//! The header of a safetensors file: reading it with every claim checked.
use super::Error;
use super::dtype::DType;
use super::tensor::byte_len;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::file_kind::{FileKind, START};
use crate::numbers::counted;

/// The format's own limit; a larger number in the first eight bytes means that this is some other
/// file.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor: type, shape, and its bytes' place in the data section.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

pub(super) struct Header {
    /// Where the data section begins in the file.
    pub data_start: usize,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

pub(super) fn too_short(path: &Path, len: u64) -> Error {
    let problem = match len {
        0 => "the file is empty".to_string(),
        _ => format!(
            "only {}, but the format begins with an 8-byte header length",
            counted(len, "byte")
        ),
    };
    Error::Header { path: path.to_path_buf(), problem }
}

/// An error where a file of this kind is met in place of a file of tensors; what cannot be told may
/// be one.
pub(super) fn expect(path: &Path, kind: FileKind) -> Result<(), Error> {
    match kind {
        FileKind::Safetensors | FileKind::Unknown => Ok(()),
        FileKind::TorchZip | FileKind::Pickle | FileKind::Zip | FileKind::Gguf => Ok(()),
        FileKind::Empty => Err(too_short(path, 0)),
        other => Err(Error::Header {
            path: path.to_path_buf(),
            problem: format!("this is {}", other.describe()),
        }),
    }
}

/// Reads and checks the header of a whole file.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Header, Error> {
    let kind = FileKind::of(bytes.get(..START).unwrap_or(bytes));
    expect(path, kind)?;
    if !matches!(kind, FileKind::Safetensors | FileKind::Unknown) {
        let problem = format!("this is {}", kind.describe());
        return Err(Error::Header { path: path.to_path_buf(), problem });
    }
    let bad = |problem: String| Error::Header { path: path.to_path_buf(), problem };
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(too_short(path, bytes.len() as u64));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(bad("its first 8 bytes are not the length of a header, so this is a file of \
            some other kind"
            .into()));
    }
    let text = usize::try_from(length).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
        bad(format!(
            "the header claims {length} bytes, but only {} follow (an incomplete download \
            or copy?)",
            rest.len()
        ))
    })?;
    let data = &rest[text.len()..];
    let text = std::str::from_utf8(text).map_err(|e| {
        bad(format!("the header is not UTF-8 text (byte {} of it)", e.valid_up_to()))
    })?;
    if !text.starts_with('{') {
        return Err(bad("the header is not a JSON object".to_string()));
    }
    let Raw { tensors, metadata } =
        serde_json::from_str(text).map_err(|e| bad(format!("the header cannot be read: {e}")))?;

    let mut entries = BTreeMap::new();
    for (name, info) in tensors {
        let entry = check(info).map_err(|problem| Error::Entry {
            path: path.to_path_buf(),
            tensor: name.clone(),
            problem,
        })?;
        entries.insert(name, entry);
    }
    check_layout(path, &entries, data.len())?;
    Ok(Header { data_start: bytes.len() - data.len(), entries, metadata })
}

fn check(info: RawEntry) -> Result<Entry, String> {
    let dtype = DType::parse(&info.dtype)
        .ok_or_else(|| format!("element type `{}` is not supported", info.dtype))?;
    let sizes = || info.shape.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>();
    let [begin, end] = info.data_offsets;
    let (Some(shape), Ok(begin), Ok(end)) = (sizes(), usize::try_from(begin), usize::try_from(end))
    else {
        return Err("its shape or offsets do not fit into memory".to_string());
    };
    if begin > end {
        return Err(format!("its bytes end ({end}) before they begin ({begin})"));
    }
    let expected = byte_len(dtype, &shape)
        .ok_or_else(|| format!("its shape {shape:?} is impossibly large"))?;
    if expected != end - begin {
        let found = end - begin;
        return Err(format!(
            "shape {shape:?} of {dtype} needs {expected} bytes, its offsets span {found}"
        ));
    }
    Ok(Entry { dtype, shape, range: begin..end })
}

/// The tensors must fill the data section: no overlap, no hole, nothing beyond it.
fn check_layout(
    path: &Path,
    entries: &BTreeMap<String, Entry>,
    available: usize,
) -> Result<(), Error> {
    let end = entries.values().map(|e| e.range.end).max().unwrap_or(0);
    if end != available {
        return Err(Error::DataLength {
            path: path.to_path_buf(),
            expected: end as u64,
            found: available as u64,
        });
    }
    let mut order: Vec<_> = entries.iter().filter(|(_, e)| !e.range.is_empty()).collect();
    order.sort_by_key(|(_, e)| e.range.start);
    let mut previous: Option<(&String, usize)> = None;
    for (name, entry) in order {
        let (start, expected) = (entry.range.start, previous.map_or(0, |(_, end)| end));
        let problem = match previous {
            Some((other, end)) if start < end => {
                format!("its bytes begin at {start}, inside those of `{other}`, which end at {end}")
            }
            _ if start > expected => {
                format!("its bytes begin at {start}, which leaves a hole after {expected}")
            }
            _ => {
                previous = Some((name, entry.range.end));
                continue;
            }
        };
        return Err(Error::Entry { path: path.to_path_buf(), tensor: name.clone(), problem });
    }
    Ok(())
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

#[derive(Default)]
struct Raw {
    tensors: BTreeMap<String, RawEntry>,
    metadata: BTreeMap<String, String>,
}

/// Reads the object key by key, because a map would silently keep the last of two equal names.
impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw::default();
                while let Some(name) = map.next_key::<String>()? {
                    let at_tensor = |e: A::Error| A::Error::custom(format!("`{name}`: {e}"));
                    if name == "__metadata__" {
                        let values: Option<BTreeMap<String, String>> =
                            map.next_value().map_err(at_tensor)?;
                        raw.metadata.extend(values.unwrap_or_default());
                        continue;
                    }
                    let entry = map.next_value().map_err(at_tensor)?;
                    if raw.tensors.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor `{name}` appears twice")));
                    }
                    raw.tensors.insert(name, entry);
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
