//! What a file is, by how it begins: for the error where another kind was expected.
//!
//! Names lie (a failed download is called `model.safetensors` and holds a web page), contents do
//! not. Everything that opens a user's file asks here before it complains about details of a format
//! that the file never had.
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a file's beginning that tell its kind.
pub const START: usize = 512;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// No bytes at all.
    Empty,
    /// Begins as safetensors files do: a length, then a JSON object.
    Safetensors,
    /// A picture: PNG.
    Png,
    /// A picture: JPEG.
    Jpeg,
    /// A picture: WebP.
    WebP,
    /// A picture: BMP.
    Bmp,
    /// A picture: GIF, which is not read.
    Gif,
    /// A picture: TIFF, which is not read.
    Tiff,
    /// A picture: HEIC, as telephones make it; it is not read.
    Heic,
    /// A picture: AVIF, which is not read.
    Avif,
    /// A picture: JPEG XL, which is not read.
    JpegXl,
    /// A picture: Photoshop's own, which is not read.
    Photoshop,
    /// A film.
    Video,
    /// A ZIP archive of no kind that is told apart.
    Zip,
    /// A zip archive whose first entry is a pickle: what `torch.save` writes.
    TorchZip,
    /// A bare pickle, as `torch.save` wrote before zip archives.
    Pickle,
    /// A model of llama.cpp's kind.
    Gguf,
    /// A pointer of Git LFS: the file itself was not downloaded.
    GitLfs,
    /// A web page: often what a download came to.
    Web,
    /// XML, SVG among it.
    Xml,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by xz.
    Xz,
    /// Compressed by Zstandard.
    Zstandard,
    /// A 7z archive.
    SevenZip,
    /// A RAR archive.
    Rar,
    /// A tar archive.
    Tar,
    /// HDF5, as Keras writes.
    Hdf5,
    /// An array of NumPy's.
    Numpy,
    /// A PDF.
    Pdf,
    /// JSON.
    Json,
    /// Text of no kind that is told apart.
    Text,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// The kind of a file that begins with these bytes: 512 of them, or all there are.
    pub fn of(start: &[u8]) -> FileKind {
        if start.is_empty() {
            return FileKind::Empty;
        }
        // First: such a length may look like any of the marks below. It is followed by a JSON
        // object, if anything.
        if start.get(4..8) == Some(&[0; 4]) && start.get(8).is_none_or(|first| *first == b'{') {
            return FileKind::Safetensors;
        }
        let at =
            |from: usize, mark: &[u8]| start.get(from..).is_some_and(|rest| rest.starts_with(mark));
        let marks: [(usize, &[u8], FileKind); 25] = [
            (0, b"\x89PNG\r\n\x1a\n", FileKind::Png),
            (0, b"\xff\xd8\xff", FileKind::Jpeg),
            (0, b"GIF87a", FileKind::Gif),
            (0, b"GIF89a", FileKind::Gif),
            (0, b"II*\0", FileKind::Tiff),
            (0, b"MM\0*", FileKind::Tiff),
            (0, b"\xff\x0a", FileKind::JpegXl),
            (0, b"\0\0\0\x0cJXL ", FileKind::JpegXl),
            (0, b"8BPS", FileKind::Photoshop),
            (0, b"PK\x03\x04", FileKind::Zip),
            (0, b"PK\x05\x06", FileKind::Zip),
            (0, b"GGUF", FileKind::Gguf),
            (0, b"version https://git-lfs", FileKind::GitLfs),
            (0, b"\x1f\x8b", FileKind::Gzip),
            (0, b"\xfd7zXZ\0", FileKind::Xz),
            (0, b"\x28\xb5\x2f\xfd", FileKind::Zstandard),
            (0, b"7z\xbc\xaf\x27\x1c", FileKind::SevenZip),
            (0, b"Rar!\x1a\x07", FileKind::Rar),
            (257, b"ustar", FileKind::Tar),
            (0, b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
            (0, b"\x93NUMPY", FileKind::Numpy),
            (0, b"%PDF-", FileKind::Pdf),
            (0, b"\x1aE\xdf\xa3", FileKind::Video),
            (8, b"AVI ", FileKind::Video),
            (8, b"WEBP", FileKind::WebP),
        ];
        match marks.into_iter().find(|(from, mark, _)| at(*from, mark)) {
            Some((8, _, _)) if !at(0, b"RIFF") => {}
            Some((_, _, FileKind::Zip)) if names_pickle(start) => return FileKind::TorchZip,
            Some((_, _, kind)) => return kind,
            None => {}
        }
        if at(0, b"BM") && has_bitmap_header(start) {
            return FileKind::Bmp;
        }
        if at(4, b"ftyp") {
            return match start.get(8..12) {
                Some(b"avif" | b"avis") => FileKind::Avif,
                Some(
                    b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1",
                ) => FileKind::Heic,
                _ => FileKind::Video,
            };
        }
        if matches!(start, [0x80, 2..=5, ..]) {
            return FileKind::Pickle;
        }
        FileKind::of_text(start)
    }

    fn of_text(start: &[u8]) -> FileKind {
        let text = match std::str::from_utf8(start) {
            Ok(text) => text,
            // A character may be cut where the beginning ends.
            Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => {
                std::str::from_utf8(start.get(..e.valid_up_to()).unwrap_or_default())
                    .unwrap_or_default()
            }
            Err(_) => return FileKind::Unknown,
        };
        if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return FileKind::Unknown;
        }
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let lower = text.get(..text.len().min(64)).unwrap_or(text).to_ascii_lowercase();
        match text.chars().next() {
            Some('<') if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
                FileKind::Web
            }
            Some('<')
                if lower.starts_with("<?xml")
                    || lower.starts_with("<svg")
                    || lower.starts_with("<!--") =>
            {
                FileKind::Xml
            }
            Some('{') => FileKind::Json,
            _ => FileKind::Text,
        }
    }

    /// The kind of the file there. A folder is an error, as for every reader.
    ///
    /// # Errors
    /// The system's.
    pub fn of_file(path: &Path) -> io::Result<FileKind> {
        let mut start = Vec::with_capacity(START);
        File::open(path)?.take(START as u64).read_to_end(&mut start)?;
        Ok(FileKind::of(&start))
    }

    /// For people, with an article: `a PNG picture`.
    pub fn describe(self) -> &'static str {
        match self {
            FileKind::Empty => "an empty file",
            FileKind::Safetensors => "a safetensors file",
            FileKind::Png => "a PNG picture",
            FileKind::Jpeg => "a JPEG picture",
            FileKind::WebP => "a WebP picture",
            FileKind::Bmp => "a BMP picture",
            FileKind::Gif => "a GIF picture",
            FileKind::Tiff => "a TIFF picture (or a camera's raw file)",
            FileKind::Heic => "a HEIC picture",
            FileKind::Avif => "an AVIF picture",
            FileKind::JpegXl => "a JPEG XL picture",
            FileKind::Photoshop => "a Photoshop picture",
            FileKind::Video => "a video or sound file",
            FileKind::Zip => "a zip archive",
            FileKind::TorchZip | FileKind::Pickle => "a Python pickle",
            FileKind::Gguf => "a GGUF file",
            FileKind::GitLfs => {
                "a Git LFS pointer, not the file itself (`git lfs pull` fetches it)"
            }
            FileKind::Web => "an HTML page (a failed download?)",
            FileKind::Xml => "an XML file (a failed download?)",
            FileKind::Gzip => "a gzip archive",
            FileKind::Xz => "an xz archive",
            FileKind::Zstandard => "a Zstandard archive",
            FileKind::SevenZip => "a 7z archive",
            FileKind::Rar => "a RAR archive",
            FileKind::Tar => "a tar archive",
            FileKind::Hdf5 => "an HDF5 file",
            FileKind::Numpy => "a NumPy array",
            FileKind::Pdf => "a PDF document",
            FileKind::Json => "a JSON file",
            FileKind::Text => "a text file",
            FileKind::Unknown => "a file of an unknown kind",
        }
    }

    /// Whether it is a picture, read by this program or not.
    pub fn is_picture(self) -> bool {
        use FileKind::{Avif, Bmp, Gif, Heic, Jpeg, JpegXl, Photoshop, Png, Tiff, WebP};
        self.is_read_picture()
            || matches!(
                self,
                Bmp | Png | Jpeg | WebP | Gif | Tiff | Heic | Avif | JpegXl | Photoshop
            )
    }

    /// Whether it is a picture of a kind that this program reads.
    pub fn is_read_picture(self) -> bool {
        matches!(self, FileKind::Png | FileKind::Jpeg | FileKind::WebP | FileKind::Bmp)
    }

    /// Whether it is what no text (settings, a list, a prompt) begins with.
    fn is_no_text(self) -> bool {
        !matches!(self, FileKind::Empty | FileKind::Json | FileKind::Text | FileKind::Unknown)
    }
}

/// Whether the second header's length is one that bitmaps have: texts may begin with their letters
/// too.
fn has_bitmap_header(start: &[u8]) -> bool {
    let length =
        start.get(14..18).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes);
    length.is_some_and(|length| [12, 16, 40, 52, 56, 64, 108, 124].contains(&length))
}

/// Whether the first entry of a zip archive is called as the pickle of one that `torch.save` wrote.
fn names_pickle(start: &[u8]) -> bool {
    const NAME: usize = 30;
    let length =
        start.get(26..28).and_then(|length| length.try_into().ok()).map_or(0, u16::from_le_bytes);
    let name = start.get(NAME..NAME + usize::from(length)).unwrap_or_default();
    name.ends_with(b".pkl")
}

/// Reads a file of text; `expected` says with an article what it is to be, such as
/// `a layout (TOML)`.
///
/// # Errors
/// The system's; where the file is something else, an error that says what.
pub fn read_text(path: &Path, expected: &str) -> io::Result<String> {
    text_of(std::fs::read(path)?, expected)
}

/// As [`read_text`], of bytes that are there already.
///
/// # Errors
/// As [`read_text`]'s.
pub fn text_of(bytes: Vec<u8>, expected: &str) -> io::Result<String> {
    let wrong = |found: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("this is {found}, expected {expected}"))
    };
    let kind = FileKind::of(bytes.get(..START).unwrap_or(&bytes));
    if kind.is_no_text() {
        return Err(wrong(kind.describe().into()));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        wrong(format!("no UTF-8 text (byte {at} of it)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_how_they_begin() {
        let mut tar = vec![b'a'; 257];
        tar.extend(b"ustar\0");
        let mut torch = b"PK\x03\x04\0\0\x08\x08".to_vec();
        torch.resize(26, 0);
        torch.extend(b"\x10\0\0\0archive/data.pklFB");
        let cases: [(&[u8], FileKind); 33] = [
            (b"", FileKind::Empty),
            (b"\x10\0\0\0\0\0\0\0{\"a\":", FileKind::Safetensors),
            (b"PK\x03\x04\0\0\0\0{", FileKind::Safetensors),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", FileKind::Png),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", FileKind::Jpeg),
            (b"RIFF\x24\0\0\0WEBPVP8 ", FileKind::WebP),
            (b"RIFF\x24\0\0\0AVI LIST", FileKind::Video),
            (b"RIFF of the WEBP", FileKind::Text),
            (b"BM\x36\x0c\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", FileKind::Bmp),
            (b"BMW, a car in the snow", FileKind::Text),
            (b"GIF89a\x01\0", FileKind::Gif),
            (b"II*\0\x08\0\0\0\x0a\0", FileKind::Tiff),
            (b"\0\0\0\x18ftypheic\0\0\0\0", FileKind::Heic),
            (b"\0\0\0\x1cftypavif\0\0\0\0", FileKind::Avif),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", FileKind::Video),
            (b"8BPS\0\x01\0\0", FileKind::Photoshop),
            (b"PK\x03\x04\x14\0\x08\x08", FileKind::Zip),
            (&torch, FileKind::TorchZip),
            (b"\x80\x02}q\0(X\x05\0\0\0", FileKind::Pickle),
            (b"GGUF\x03\0\0\0\x10", FileKind::Gguf),
            (b"version https://git-lfs.github.com/spec/v1\noid", FileKind::GitLfs),
            (b"\n<!DOCTYPE html><html>", FileKind::Web),
            (b"<?xml version=\"1.0\"?><Error>", FileKind::Xml),
            (b"\x1f\x8b\x08\0", FileKind::Gzip),
            (b"7z\xbc\xaf\x27\x1c\0\x04", FileKind::SevenZip),
            (&tar, FileKind::Tar),
            (b"\x93NUMPY\x01\0", FileKind::Numpy),
            (b"%PDF-1.7", FileKind::Pdf),
            (b" {\"steps\": 1}", FileKind::Json),
            ("\u{feff}prompt = \"ein Bär\"".as_bytes(), FileKind::Text),
            (b"<zorp1> <zorp2>", FileKind::Text),
            (b"an \xc3", FileKind::Text),
            (b"\x01\x02\x03\x04\x05\x06\x07\x08", FileKind::Unknown),
        ];
        for (start, kind) in cases {
            assert_eq!(FileKind::of(start), kind, "{:?}", String::from_utf8_lossy(start));
        }
    }

    #[test]
    fn texts_that_are_none_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path, "settings (TOML)").map_err(|e| e.to_string())
        };
        assert_eq!(read("schön = 1".as_bytes()).unwrap(), "schön = 1");
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(
            read(b"\x89PNG\r\n\x1a\n\0").unwrap_err(),
            "this is a PNG picture, expected settings (TOML)"
        );
        assert_eq!(
            read(b"sch\xf6n = 1").unwrap_err(),
            "this is no UTF-8 text (byte 3 of it), expected settings (TOML)"
        );
        assert!(read(b"<html>").unwrap_err().contains("HTML page"));
        assert!(read_text(folder.path(), "settings").is_err());
    }
}
