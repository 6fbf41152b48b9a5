//! Pictures that claim, or inflate to, more than any memory holds: each is refused by name or read
//! without what inflates, soon and within a limit of memory.
#![cfg(target_os = "linux")]
use super::{Ran, ran};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// KiB of address space that the program may take.
const MEMORY: usize = 3 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Runs `mos` with that limit.
pub fn limited(folder: &Path, line: &str) -> Ran {
    let folder = folder.to_str().unwrap();
    let script = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_mos")]).stdin(Stdio::null());
    command.env_remove("MOS_MODELS");
    let start = Instant::now();
    let ran = ran(command.args(line.split(' ').map(|word| word.replace('@', folder))));
    assert!(start.elapsed() < SOON, "{line}: {:?}", start.elapsed());
    ran
}

/// Deflated zeros, as many as MiB are given, without a checksum at the end.
fn inflates_to(mebibytes: usize) -> Vec<u8> {
    let mut deflater = flate2::Compress::new(flate2::Compression::best(), true);
    let mut compressed = Vec::with_capacity(mebibytes * 1100 + 4096);
    let zeros = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        let before = deflater.total_in();
        while deflater.total_in() - before < zeros.len() as u64 {
            let from = (deflater.total_in() - before) as usize;
            compressed.reserve(4096);
            deflater
                .compress_vec(&zeros[from..], &mut compressed, flate2::FlushCompress::None)
                .unwrap();
        }
    }
    loop {
        compressed.reserve(4096);
        let flush = flate2::FlushCompress::Finish;
        match deflater.compress_vec(&[], &mut compressed, flush).unwrap() {
            flate2::Status::StreamEnd => return compressed,
            _ => continue,
        }
    }
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&name[..], data].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
}

/// A grey PNG of that size with these chunks before its data.
fn png(side: u32, chunks: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(chunk(b"IHDR", &header));
    chunks.iter().for_each(|chunk| file.extend(chunk));
    file.extend(chunk(b"IDAT", data));
    file.extend(chunk(b"IEND", &[]));
    file
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Files whose pixels are as they should be.
fn sound(at: &Path) -> Vec<&'static str> {
    let side = 64u32;
    let pixels: Vec<u8> = (0..side).flat_map(|y| [vec![0], vec![y as u8; 64]].concat()).collect();
    let pixels = deflated(&pixels);
    let small = inflates_to(15);
    let text = |kind: &[u8; 4], before: &[u8]| chunk(kind, &[before, &small].concat());
    let mut texts = Vec::new();
    for i in 0..300 {
        texts.push(text(b"zTXt", b"parameters\0\0"));
        texts.push(text(b"zTXt", format!("Comment {i}\0\0").as_bytes()));
        texts.push(text(b"iTXt", b"parameters\0\x01\0\0\0"));
        texts.push(text(b"iTXt", b"workflow\0\x01\0\0\0"));
    }
    fs::write(at.join("texts.png"), png(side, &texts, &pixels)).unwrap();
    let huge = inflates_to(3 << 10);
    let profile = chunk(b"iCCP", &[b"profile\0\0", &huge[..]].concat());
    fs::write(at.join("profile.png"), png(side, &[profile], &pixels)).unwrap();
    vec!["texts.png", "profile.png"]
}

/// Files that are no pictures.
fn broken(at: &Path) -> Vec<&'static str> {
    let huge = inflates_to(3 << 10);
    fs::write(at.join("data.png"), png(70_000, &[], &huge)).unwrap();
    fs::write(at.join("size.png"), png(i32::MAX as u32, &[], &huge)).unwrap();
    // A chunk of nearly 4 GiB in a file that is whole by its first line.
    let mut webp = fs::read(super::fixture("tests/fixtures/pictures/settings/byte.webp")).unwrap();
    let at_chunk = webp.windows(4).position(|name| name == b"EXIF").unwrap();
    webp[at_chunk + 4..at_chunk + 8].copy_from_slice(&(u32::MAX - 64).to_le_bytes());
    fs::write(at.join("chunk.webp"), webp).unwrap();
    let mut jpeg = fs::read(super::fixture("tests/fixtures/pictures/settings/byte.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|mark| mark == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    fs::write(at.join("size.jpg"), jpeg).unwrap();
    let bmp: Vec<u8> = [
        &b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"[..],
        &i32::MAX.to_le_bytes(),
        &i32::MAX.to_le_bytes(),
        b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ]
    .concat();
    fs::write(at.join("size.bmp"), bmp).unwrap();
    vec!["data.png", "size.png", "chunk.webp", "size.jpg", "size.bmp"]
}

/// Every way in which a picture is opened, with a line for the file.
const WAYS: [&str; 4] = [
    "generate -p cat -m @/none -o @/out.png --init-image @/FILE",
    "generate -p cat -m @/none -o @/out.png --init-image @/good.png --mask @/FILE",
    "generate -p cat -m @/none -o @/out.png --control net:image=@/FILE",
    "generate -o @/out.png -m @/none --like @/FILE",
];

#[test]
fn pictures_that_claim_too_much_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("good.png"), png(8, &[], &deflated(&[0; 72]))).unwrap();
    for file in broken(at) {
        for way in WAYS {
            let ran = limited(at, &way.replace("FILE", file));
            ran.failed(1, &[file]);
        }
        let layout = format!("[[region]]\nprompt = \"dog\"\nmask = \"{file}\"\n");
        fs::write(at.join("layout.toml"), layout).unwrap();
        let ran = limited(at, "generate -p cat --size 64x64 -o @/out.png --layout @/layout.toml");
        ran.failed(1, &[file]);
        let pictures = at.join(format!("folder of {file}"));
        fs::create_dir(&pictures).unwrap();
        fs::copy(at.join(file), pictures.join(file)).unwrap();
        let pictures = pictures.to_str().unwrap().to_string();
        fs::rename(pictures, at.join("pictures")).unwrap();
        for check in ["--check ", ""] {
            let line = format!(
                "train {check}--pictures @/pictures --words <a1> --class-word man \
                    -o @/a.safetensors"
            );
            limited(at, &line).failed(1, &[file]);
        }
        fs::remove_dir_all(at.join("pictures")).unwrap();
    }
}

#[test]
fn what_inflates_beside_the_pixels_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("good.png"), png(8, &[], &deflated(&[0; 72]))).unwrap();
    for file in sound(at) {
        for way in &WAYS[..3] {
            // Past the picture: what comes next is missing.
            limited(at, &way.replace("FILE", file)).failed(1, &["no such file or folder"]);
        }
        limited(at, &WAYS[3].replace("FILE", file)).failed(1, &[file]);
        let pictures = at.join("pictures");
        fs::create_dir(&pictures).unwrap();
        for number in 0..2 {
            fs::copy(at.join(file), pictures.join(format!("{number}-{file}"))).unwrap();
        }
        let line = "train --check --pictures @/pictures --words <a1> --class-word man \
            -o @/a.safetensors";
        let ran = limited(at, line);
        ran.failed(1, &["the same picture"]);
        fs::remove_dir_all(pictures).unwrap();
    }
}
