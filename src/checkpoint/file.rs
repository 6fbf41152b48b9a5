//! One file of tensors, memory-mapped. Of safetensors: an 8-byte header length, a JSON header, and
//! the tensors' bytes; other formats are read into the same form.
//!
//! Everything that the header claims is checked when the file is opened, so that handing out a
//! tensor later cannot fail.
use super::Error;
use super::header::{self, Entry};
use super::tensor::TensorView;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A safetensors file whose header has been read and checked. The tensors stay in the file until
/// they are looked at.
pub struct TensorFile {
    path: PathBuf,
    storage: Storage,
    data_start: usize,
    /// Bytes that lie nowhere in the file as they are: unpacked, or gathered. Their places go on
    /// where the data section ends.
    extra: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// Where the bytes are.
pub(super) enum Storage {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Storage {
    /// Maps a file that is not empty.
    pub fn map(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        // SAFETY: the map is read-only and private to this value. As with every mapped file,
        // another program that shortens the file while it is in use makes later reads fail; nothing
        // can be done about that short of copying gigabytes.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        Ok(Self::Mapped(map))
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What a reader finds in a file.
#[derive(Default)]
pub(super) struct Found {
    pub data_start: usize,
    pub extra: Vec<u8>,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Bytes of a data section, or of what goes on where it ends.
pub(super) fn data<'a>(own: &'a [u8], extra: &'a [u8], range: Range<usize>) -> Option<&'a [u8]> {
    match range.start.checked_sub(own.len()) {
        None => own.get(range),
        Some(start) => extra.get(start..start.checked_add(range.len())?),
    }
}

impl std::fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorFile")
            .field("path", &self.path)
            .field("tensors", &self.entries.len())
            .finish()
    }
}

impl TensorFile {
    /// Maps a file and checks its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let meta = file.metadata().map_err(Error::io(path, "read"))?;
        if meta.is_dir() {
            let problem = "a folder where a safetensors file was expected".to_string();
            return Err(Error::Unrecognised { path: path.to_path_buf(), problem });
        }
        if meta.len() < 8 {
            // Checked before mapping, since an empty file cannot be mapped everywhere.
            return Err(header::too_short(path, meta.len()));
        }
        Self::new(path, Storage::map(path)?)
    }

    /// A file that is compiled into the program; `name` stands for its path in errors.
    pub fn from_static(name: &Path, bytes: &'static [u8]) -> Result<Self, Error> {
        Self::new(name, Storage::Static(bytes))
    }

    /// A file that is already in memory; `name` stands for its path in errors.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::new(name, Storage::Owned(bytes))
    }

    /// A file whose tensors another format's reader has found and checked.
    pub(super) fn assembled(path: &Path, storage: Storage, found: Found) -> Self {
        let Found { data_start, extra, entries, metadata } = found;
        Self { path: path.to_path_buf(), storage, data_start, extra, entries, metadata }
    }

    /// The same with the tensors whose names begin with `prefix` alone, without it.
    pub(super) fn inside(mut self, prefix: &str) -> Self {
        let strip =
            |(name, entry): (String, Entry)| Some((name.strip_prefix(prefix)?.to_string(), entry));
        self.entries = self.entries.into_iter().filter_map(strip).collect();
        self
    }

    fn new(path: &Path, storage: Storage) -> Result<Self, Error> {
        let header = header::parse(path, storage.bytes())?;
        Ok(Self {
            path: path.to_path_buf(),
            storage,
            data_start: header.data_start,
            extra: Vec::new(),
            entries: header.entries,
            metadata: header.metadata,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The free-form text that the file's writer left.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// It holds no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A tensor of that name in this file is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Type, shape and place of every tensor, by name.
    pub(super) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.entries.get(name)?;
        TensorView::new(entry.dtype, &entry.shape[..], self.data(entry.range.clone())?)
    }

    /// Bytes of the data section.
    pub(super) fn data(&self, range: Range<usize>) -> Option<&[u8]> {
        data(self.storage.bytes().get(self.data_start..)?, &self.extra, range)
    }

    /// Says that a tensor will not be looked at again soon, so that its pages need not stay in
    /// memory: a file far larger than memory can be walked through this way. Looking at it again is
    /// fine and reads it from the file again.
    pub fn advise_dont_need(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.drop_pages(entry.range.clone());
        }
    }

    /// As [`advise_dont_need`](Self::advise_dont_need), for bytes of the data section.
    pub(super) fn drop_pages(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Storage::Mapped(map) = &self.storage
            && !range.is_empty()
            && self.data_start + range.end <= map.len()
        {
            // SAFETY: the map is backed by a file and never written, so dropped pages come back
            // with the same contents. A failure only means that the pages stay.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.data_start + range.start,
                    range.len(),
                )
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Bytes of a mapped file that are in this process's memory, as the kernel counts them.
    fn resident(path: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_file = maps.lines().skip_while(|l| !l.ends_with(path.to_str().unwrap()));
        let rss = of_file.take(8).find_map(|l| l.strip_prefix("Rss:")).expect("the file is mapped");
        rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn pages_of_a_used_tensor_can_be_dropped_and_come_back() {
        const MIB: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse.safetensors");
        let header = format!(
            r#"{{"a": {{"dtype": "U8", "shape": [{0}], "data_offsets": [0, {0}]}}, "b": {{"dtype": "U8", "shape": [{0}], "data_offsets": [{0}, {1}]}}}}"#,
            16 * MIB,
            32 * MIB
        );
        let mut start = (header.len() as u64).to_le_bytes().to_vec();
        start.extend(header.as_bytes());
        std::fs::write(&path, &start).unwrap();
        let sparse = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        sparse.set_len((start.len() + 32 * MIB) as u64).unwrap();

        let file = TensorFile::open(&path).unwrap();
        assert!(resident(&path) <= MIB, "opening reads the header only");
        for name in ["a", "b"] {
            let sum: u64 = file.tensor(name).unwrap().bytes().iter().map(|&b| u64::from(b)).sum();
            assert_eq!(sum, 0);
            assert!(resident(&path) >= 15 * MIB);
            file.advise_dont_need(name);
            assert!(resident(&path) <= MIB, "{name}: {}", resident(&path));
        }
        assert_eq!(file.tensor("a").unwrap().to_f32(5..7), [0.0, 0.0]);
    }
}
