//! The chunks of a PNG file.

const SIGNATURE: usize = 8;
const LAST: &[u8] = b"IEND";

/// A chunk of a PNG file.
pub(super) struct Chunk<'a> {
    pub name: &'a [u8],
    pub data: &'a [u8],
    /// With its length, name and checksum.
    pub whole: &'a [u8],
}

/// The chunks up to the last one, IEND, or to where the file is cut off.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut next = Some(SIGNATURE);
    std::iter::from_fn(move || {
        let at = next?;
        let (end, name) = (end_of(bytes, at)?, bytes.get(at + 4..at + 8)?);
        next = (name != LAST).then_some(end);
        Some(Chunk { name, data: bytes.get(at + 8..end - 4)?, whole: bytes.get(at..end)? })
    })
}

/// Whether the chunks do not reach the last one within the file.
pub(super) fn is_cut(bytes: &[u8]) -> bool {
    chunks(bytes).all(|chunk| chunk.name != LAST)
}

/// Takes out what pixels do not depend on: texts, profiles, animation, whatever else may inflate to
/// any size. EXIF, which tells how the picture stands, stays.
pub(super) fn keep_pixels(bytes: &mut Vec<u8>) {
    let (mut from, mut to) = (SIGNATURE, SIGNATURE);
    while let Some(end) = end_of(bytes, from) {
        let name = bytes.get(from + 4..from + 8).unwrap_or_default();
        let is_last = name == LAST;
        // The first letter of all that cannot be left out is a capital.
        let is_kept = name.first().is_some_and(u8::is_ascii_uppercase)
            || [&b"tRNS"[..], b"eXIf"].contains(&name);
        if is_kept {
            bytes.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
        if is_last {
            bytes.truncate(to);
            return;
        }
    }
    // What is cut off is for the decoder to tell.
    if from > to {
        bytes.copy_within(from.., to);
        bytes.truncate(bytes.len() - (from - to));
    }
}

/// Where the chunk that begins at `at` ends: besides its data, it has a length, a name and a
/// checksum.
fn end_of(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
    let end = at.checked_add(length as usize)?.checked_add(12)?;
    (end <= bytes.len()).then_some(end)
}
