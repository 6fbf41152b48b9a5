use std::io::Write;

use super::super::file::write_atomically;
use super::*;

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255; 3];

/// The colours in the middle of the four quarters.
fn quarters(picture: &Picture) -> [[u8; 3]; 4] {
    let (w, h) = (picture.width(), picture.height());
    [(w / 4, h / 4), (w * 3 / 4, h / 4), (w / 4, h * 3 / 4), (w * 3 / 4, h * 3 / 4)].map(
        |(x, y)| {
            // JPEG's colours are near enough.
            picture.pixel(x, y).unwrap().map(|v| {
                if v < 20 {
                    0
                } else if v > 235 {
                    255
                } else {
                    v
                }
            })
        },
    )
}

#[test]
fn orientation_is_respected() {
    let upright = [
        [RED, GREEN, BLUE, WHITE],
        [GREEN, RED, WHITE, BLUE],
        [WHITE, BLUE, GREEN, RED],
        [BLUE, WHITE, RED, GREEN],
        [RED, BLUE, GREEN, WHITE],
        [BLUE, RED, WHITE, GREEN],
        [WHITE, GREEN, BLUE, RED],
        [GREEN, WHITE, RED, BLUE],
    ];
    for (n, expected) in (1..).zip(upright) {
        let picture = Picture::open(fixture(&format!("exif{n}.jpg"))).unwrap();
        let size = if n < 5 { (48, 32) } else { (32, 48) };
        assert_eq!((picture.width(), picture.height()), size, "orientation {n}");
        assert_eq!(quarters(&picture), expected, "orientation {n}");
    }
    for name in ["exif6.webp", "exif6.png"] {
        assert_eq!(quarters(&Picture::open(fixture(name)).unwrap()), upright[5], "{name}");
    }
}

/// Some programs begin WebP's EXIF as JPEG's begins.
#[test]
fn a_mark_before_exif_is_passed_over() {
    use image::ImageEncoder;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.webp");
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut file = Vec::new();
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    encoder.write_image(&[7; 8 * 4 * 3], 8, 4, image::ExtendedColorType::Rgb8).unwrap();
    std::fs::write(&path, file).unwrap();
    assert_eq!(measure(&path).unwrap(), (4, 8));
    assert_eq!(Picture::open(&path).unwrap().width(), 4);
}

#[test]
fn kinds_of_pixels_become_rgb() {
    for name in ["text.png", "palette.png", "alpha.png"] {
        let picture = Picture::open(fixture(name)).unwrap();
        assert_eq!(quarters(&picture), [RED, GREEN, BLUE, WHITE], "{name}");
    }
    assert_eq!(quarters(&Picture::open(fixture("grey.png")).unwrap())[0], [76; 3]);
}

#[test]
fn written_pictures_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    for (width, height) in [(1, 1), (7, 5), (64, 33)] {
        let picture = gradient(width, height);
        picture.save(&path, None).unwrap();
        assert_eq!(Picture::open(&path).unwrap(), picture);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |p| std::fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "as readable as any new file");
    }
}

/// The text of the error that opening this content as a picture gives.
fn refused(content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.picture");
    std::fs::write(&path, content).unwrap();
    let error = Picture::open(&path).unwrap_err().to_string();
    assert!(error.contains("bad.picture"), "{error}");
    error
}

#[test]
fn damaged_files_are_refused() {
    assert!(refused(b"").contains("empty"));
    assert!(refused(b"just some text, quite long enough").contains("not a picture"));
    assert!(refused(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;").contains("not a picture"));
    for name in ["text.png", "exif1.jpg", "exif6.webp"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for keep in [12, whole.len() / 2, whole.len() * 3 / 4, whole.len() - 14] {
            let error = refused(&whole[..keep]);
            assert!(
                error.contains("damaged") || error.contains("not a picture"),
                "{name} cut to {keep}: {error}"
            );
        }
    }
    let error = Picture::open("/no/such/picture.png").unwrap_err().to_string();
    assert!(error.contains("/no/such/picture.png: cannot be read"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Picture::open(folder.path()), Err(Error::Unreadable { .. })));
}

/// A PNG that claims a size, without data.
fn claims(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(chunk);
    png.extend(crc.sum().to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    png
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    let huge = refused(&claims(2_000_000_000, 2_000_000_000));
    assert!(huge.contains("claims a size"), "{huge}");
    let large = refused(&claims(60_000, 60_000));
    assert!(large.contains("60000 x 60000"), "{large}");
    assert!(refused(&claims(16384, 16384)).contains("16384"));
    assert!(refused(&claims(0, 8)).contains("damaged"));
    assert!(refused(&claims(8, 8)).contains("damaged"));
}

#[test]
fn random_damage_never_panics() {
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as usize
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for name in [
        "text.png",
        "compressed.png",
        "unicode_compressed.png",
        "exif6.png",
        "exif6.jpg",
        "exif6.webp",
    ] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(picture) = Picture::open(&path) {
                assert_eq!(picture.rgb().len() as u32, picture.width() * picture.height() * 3);
            }
            let _ = parameters::read(&path);
        }
    }
}

#[test]
fn what_follows_a_picture_is_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Picture::open(&path)
    };
    // As phones append videos and further pictures: with marks of a start, of a scan, and of no
    // end.
    let trailers: [&[u8]; 5] =
        [b"x", b"\xff\xda and \xff\xd8", b"\xff\xd9\xff\xda", b"ftypmp42 \xff\xda\xff", &[0xff; 9]];
    for name in ["exif1.jpg", "exif6.jpg", "text.png", "exif6.webp"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let picture = open(&whole).unwrap();
        for trailer in trailers {
            let found = open(&[&whole[..], trailer].concat())
                .unwrap_or_else(|e| panic!("{name} {trailer:?}: {e}"));
            assert_eq!(found.rgb(), picture.rgb(), "{name}");
        }
    }
    // Further pictures of the same file, and fill bytes before a mark.
    let jpeg = std::fs::read(fixture("exif1.jpg")).unwrap();
    assert_eq!(open(&[&jpeg[..], &jpeg[..]].concat()).unwrap().rgb(), open(&jpeg).unwrap().rgb());
    let filled = [&jpeg[..2], &[0xff, 0xff], &jpeg[2..]].concat();
    assert_eq!(open(&filled).unwrap().rgb(), open(&jpeg).unwrap().rgb());
    // A picture that is cut stays so.
    for end in [jpeg.len() - 2, jpeg.len() - 1, jpeg.len() / 2, 20] {
        assert!(open(&jpeg[..end]).unwrap_err().to_string().contains("too early"), "{end}");
    }
}

#[test]
fn failed_writes_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    std::fs::write(&path, "the older file").unwrap();
    let error = write_atomically(&path, |out| {
        out.write_all(&[0; 100_000])?;
        Err(std::io::ErrorKind::StorageFull.into())
    })
    .unwrap_err();
    assert!(error.to_string().contains("a.png: cannot be written: no storage space"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"the older file");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let picture = gradient(4, 4);
    let missing = folder.path().join("none/a.png");
    let error = picture.save(&missing, None).unwrap_err().to_string();
    assert!(error.contains("none/a.png: cannot be written") && !error.contains(".mos-"), "{error}");
    assert!(matches!(picture.save(folder.path(), None), Err(Error::Unwritable { .. })));
    let beneath_a_file = path.join("b.png");
    assert!(matches!(picture.save(&beneath_a_file, None), Err(Error::Unwritable { .. })));
    for name in ["a.jpg", "a.JPEG", "a.webp"] {
        assert!(
            matches!(picture.save(folder.path().join(name), None), Err(Error::NotPng { .. })),
            "{name}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_the_encoder() {
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = gradient(64, 64).write_png(&mut full, &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(full.write(b"x").is_err());
}
