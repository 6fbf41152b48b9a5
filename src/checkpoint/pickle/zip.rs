//! Zip archives as torch writes them: entries stored as they are, below 4 GiB.
use std::cell::Cell;
use std::collections::BTreeMap;

/// An archive's entries, found by its directory at the end.
pub struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, Entry>,
    /// Bytes of entries that may still be read: entries that lie over each other could ask for the
    /// same ones again and again.
    unread: Cell<usize>,
}

struct Entry {
    header: usize,
    length: usize,
    stored: bool,
    checksum: u32,
}

const END: [u8; 4] = *b"PK\x05\x06";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Of the end record, without the comment that may follow it.
const END_LENGTH: usize = 22;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        Self::directory(bytes).ok_or_else(|| {
            "a zip archive without a readable directory (an incomplete download or copy?)".into()
        })
    }

    fn directory(bytes: &'a [u8]) -> Option<Self> {
        // The comment after the end record has at most 64 KiB.
        let last = bytes.len().checked_sub(END_LENGTH)?;
        let first = last.saturating_sub(1 << 16);
        let end = (first..=last)
            .rev()
            .find(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(&END)))?;
        let count = u16_at(bytes, end + 10)?;
        let mut at = u32_at(bytes, end + 16)? as usize;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let record = bytes.get(at..)?;
            if !record.starts_with(&DIRECTORY) {
                return None;
            }
            let [name, extra, comment] = [28, 30, 32].map(|place| u16_at(record, place));
            let (name, extra, comment) = (name?, extra?, comment?);
            let text = std::str::from_utf8(record.get(46..)?.get(..name)?).ok()?;
            let entry = Entry {
                header: u32_at(record, 42)? as usize,
                length: u32_at(record, 24)? as usize,
                stored: u16_at(record, 10)? == 0,
                checksum: u32_at(record, 16)?,
            };
            entries.insert(text.to_string(), entry);
            at = at.checked_add(46 + name + extra + comment)?;
        }
        Some(Archive { bytes, entries, unread: Cell::new(bytes.len()) })
    }

    /// The bytes of an entry, checked; `None` where there is none of that name.
    pub fn get(&self, name: &str) -> Result<Option<&'a [u8]>, String> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if !entry.stored {
            return Err(format!("`{name}` is compressed, which `torch.save` never does"));
        }
        let data =
            self.data(entry).ok_or_else(|| format!("`{name}` does not lie within the archive"))?;
        let unread = self.unread.get().checked_sub(data.len());
        self.unread.set(unread.ok_or_else(|| format!("`{name}` lies over another entry"))?);
        let mut crc = flate2::Crc::new();
        crc.update(data);
        if crc.sum() != entry.checksum {
            return Err(format!("`{name}` is damaged: its checksum does not agree"));
        }
        Ok(Some(data))
    }

    fn data(&self, entry: &Entry) -> Option<&'a [u8]> {
        let local = self.bytes.get(entry.header..)?;
        if !local.starts_with(&LOCAL) {
            return None;
        }
        local.get(30 + u16_at(local, 26)? + u16_at(local, 28)?..)?.get(..entry.length)
    }

    /// The folder that everything is in, and its `data.pkl`.
    pub fn pickle(&self) -> Result<(&str, &'a [u8]), String> {
        let mut folders = self.entries.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
        let folder = folders
            .next()
            .ok_or("a zip archive, but not one that `torch.save` wrote: it has no `data.pkl`")?;
        let pickle = self.get(&format!("{folder}/data.pkl"))?.unwrap_or_default();
        Ok((folder, pickle))
    }
}
