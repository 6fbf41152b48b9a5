//! Zip archives as torch writes them: entries stored as they are; such as other programs have packed
//! again are unpacked. What is 4 GiB and more, or more than 65534 entries, stands in records of their
//! own (zip64).
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;

/// An archive's entries, found by its directory at the end.
pub struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, Entry>,
    /// Bytes of entries that may still be read: entries that lie over each other could ask for the
    /// same ones again and again.
    unread: Cell<usize>,
    /// Bytes that may still be unpacked.
    room: Cell<usize>,
    /// Checksums are looked at.
    checked: bool,
}

struct Entry {
    header: usize,
    length: usize,
    /// Bytes in the archive.
    packed: usize,
    method: usize,
    checksum: u32,
}

/// Entries that are as they are, and those that are packed by deflate.
const STORED: usize = 0;
const DEFLATED: usize = 8;
/// What entries may come to, unpacked, relative to the archive.
const MOST_GROWTH: usize = 4;

const END: [u8; 4] = *b"PK\x05\x06";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Of the end record, without the comment that may follow it.
const END_LENGTH: usize = 22;
/// Zip64's end record, and where it is, right before the other one.
const LARGE_END: [u8; 4] = *b"PK\x06\x06";
const LARGE_PLACE: [u8; 4] = *b"PK\x06\x07";
const PLACE_LENGTH: usize = 20;
/// The extra field of an entry with its numbers of 64 bits.
const LARGE: usize = 1;
/// Stands for a number that is elsewhere.
const ELSEWHERE: u32 = u32::MAX;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
    found.and_then(|number| number.try_into().ok())
}

/// How many entries there are, and where the directory begins, by zip64's end record; none where
/// there is none before the `end` record.
fn large_directory(bytes: &[u8], end: usize) -> Option<[usize; 2]> {
    let place = end.checked_sub(PLACE_LENGTH)?;
    if !bytes.get(place..)?.starts_with(&LARGE_PLACE) {
        return None;
    }
    let record = bytes.get(u64_at(bytes, place + 8)?..)?;
    record.starts_with(&LARGE_END).then_some([u64_at(record, 32)?, u64_at(record, 48)?])
}

/// Numbers of an entry: those of 32 bits, and in place of each that stands elsewhere the next one
/// of the extra field.
fn numbers<const N: usize>(extra: &[u8], short: [u32; N]) -> Option<[usize; N]> {
    let mut at = 0;
    let large = loop {
        // None: there is no such field.
        let Some(length) = u16_at(extra, at + 2) else { break None };
        let field = extra.get(at + 4..(at + 4).checked_add(length)?)?;
        if u16_at(extra, at)? == LARGE {
            break Some(field);
        }
        at += 4 + length;
    };
    let mut next = 0;
    let mut numbers = [0; N];
    for (number, short) in numbers.iter_mut().zip(short) {
        *number = match large {
            Some(large) if short == ELSEWHERE => {
                next += 8;
                u64_at(large, next - 8)?
            }
            _ => short as usize,
        };
    }
    Some(numbers)
}

impl<'a> Archive<'a> {
    /// `checked`: what is read is compared with its checksum.
    pub fn open(bytes: &'a [u8], checked: bool) -> Result<Self, String> {
        Self::directory(bytes, checked).ok_or_else(|| {
            "a zip archive without a readable directory (an incomplete download or copy?)".into()
        })
    }

    fn directory(bytes: &'a [u8], checked: bool) -> Option<Self> {
        // The comment after the end record has at most 64 KiB.
        let last = bytes.len().checked_sub(END_LENGTH)?;
        let first = last.saturating_sub(1 << 16);
        let end = (first..=last)
            .rev()
            .find(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(&END)))?;
        let [count, mut at] = match large_directory(bytes, end) {
            Some(large) => large,
            None => [u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)? as usize],
        };
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let record = bytes.get(at..)?;
            if !record.starts_with(&DIRECTORY) {
                return None;
            }
            let [name, extra, comment] = [28, 30, 32].map(|place| u16_at(record, place));
            let (name, extra, comment) = (name?, extra?, comment?);
            let text = std::str::from_utf8(record.get(46..)?.get(..name)?).ok()?;
            let more = record.get(46 + name..)?.get(..extra)?;
            let short = [24, 20, 42].map(|place| u32_at(record, place));
            let [length, packed, header] = numbers(more, [short[0]?, short[1]?, short[2]?])?;
            let entry = Entry {
                header,
                length,
                packed,
                method: u16_at(record, 10)?,
                checksum: u32_at(record, 16)?,
            };
            entries.insert(text.to_string(), entry);
            at = at.checked_add(46 + name + extra + comment)?;
        }
        let room = Cell::new(bytes.len().saturating_mul(MOST_GROWTH));
        Some(Archive { bytes, entries, unread: Cell::new(bytes.len()), room, checked })
    }

    /// The bytes of an entry; `None` where there is none of that name.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, String> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let packed =
            self.data(entry).ok_or_else(|| format!("`{name}` does not lie within the archive"))?;
        let unread = self.unread.get().checked_sub(packed.len());
        self.unread.set(unread.ok_or_else(|| format!("`{name}` lies over another entry"))?);
        let data = match entry.method {
            STORED => Cow::Borrowed(packed),
            DEFLATED => Cow::Owned(self.unpacked(name, entry, packed)?),
            method => {
                return Err(format!("`{name}` is packed in a way ({method}) that is not read"));
            }
        };
        // What is unpacked is read anyway.
        if self.checked || entry.method != STORED {
            let mut crc = flate2::Crc::new();
            crc.update(&data);
            if crc.sum() != entry.checksum {
                return Err(format!("`{name}` is damaged: its checksum does not agree"));
            }
        }
        Ok(Some(data))
    }

    fn unpacked(&self, name: &str, entry: &Entry, packed: &[u8]) -> Result<Vec<u8>, String> {
        let left = self.room.get().checked_sub(entry.length);
        self.room.set(left.ok_or_else(|| {
            format!("`{name}` would be {} bytes, more than the file accounts for", entry.length)
        })?);
        let mut data = Vec::new();
        let mut reader = flate2::read::DeflateDecoder::new(packed).take(entry.length as u64 + 1);
        match reader.read_to_end(&mut data) {
            Ok(length) if length == entry.length => Ok(data),
            _ => Err(format!("`{name}` cannot be unpacked (an incomplete download or copy?)")),
        }
    }

    fn data(&self, entry: &Entry) -> Option<&'a [u8]> {
        let local = self.bytes.get(entry.header..)?;
        if !local.starts_with(&LOCAL) {
            return None;
        }
        let length = if entry.method == STORED { entry.length } else { entry.packed };
        local.get(30 + u16_at(local, 26)? + u16_at(local, 28)?..)?.get(..length)
    }

    /// The folder that everything is in, and its `data.pkl`.
    pub fn pickle(&self) -> Result<(&str, Cow<'a, [u8]>), String> {
        let mut folders = self.entries.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
        let folder = folders
            .next()
            .ok_or("a zip archive, but not one that `torch.save` wrote: it has no `data.pkl`")?;
        let pickle = self.get(&format!("{folder}/data.pkl"))?.unwrap_or_default();
        Ok((folder, pickle))
    }
}
