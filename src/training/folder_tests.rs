//! The check of the pictures' folders.
use std::fs;

use super::*;
use crate::training::config::Options;

/// A picture that is like no other of its number.
fn write(path: &Path, side: u32, number: u8) {
    let rgb = (0..side * side).flat_map(|i| {
        let stripe = u8::from((i / (u32::from(number) + 2)).is_multiple_of(2));
        [stripe * 200, number.wrapping_mul(40), 255 - stripe * 150]
    });
    Picture::new(side, side, rgb.collect()).unwrap().save(path, None).unwrap();
}

fn settings(folder: &Path) -> Settings {
    let given = Options {
        words: Some("<a1> <a2>".into()),
        class_word: Some("man".into()),
        pictures: Some(folder.to_path_buf()),
        ..Options::default()
    };
    Settings::new(given).unwrap()
}

fn check_in(folder: &Path) -> Checked {
    check(&settings(folder), [64, 64])
}

#[test]
fn a_folder_in_order_gives_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("mask")).unwrap();
    for number in 0..5 {
        write(&at.join(format!("{number}.png")), 64, number);
        fs::write(
            at.join(format!("{number}.txt")),
            format!("\u{feff}\n a photo of <TOK>, {number}\nmore\n"),
        )
        .unwrap();
    }
    let half =
        |grey: u8| (0..64 * 64).flat_map(|i| [if i % 64 < 32 { grey } else { 0 }; 3]).collect();
    Picture::new(64, 64, half(200)).unwrap().save(at.join("mask/0.png"), None).unwrap();
    Picture::new(64, 64, half(255)).unwrap().save(at.join("1.mask.png"), None).unwrap();
    fs::write(at.join("README.md"), "").unwrap();
    fs::write(at.join(".hidden.png"), "").unwrap();
    let checked = check_in(at);
    assert_eq!(checked.problems, [""; 0]);
    assert_eq!(checked.found.len(), 5);
    assert_eq!(checked.found[3].caption, "a photo of <TOK>, 3");
    let masks: Vec<bool> = checked.found.iter().map(|found| found.mask.is_some()).collect();
    assert_eq!(masks, [true, true, false, false, false]);
    assert_eq!(checked.remarks, ["no mask, so all of it counts: 2.png, 3.png, 4.png"]);
    assert_eq!(checked.hash, check_in(at).hash);
    fs::write(at.join("2.txt"), "another <TOK>").unwrap();
    assert_ne!(checked.hash, check_in(at).hash);
    assert_eq!(count(at), 5);
    // A mask that leaves nothing out, and one whose shape is not in its colours.
    Picture::filled(64, 64, [255; 3]).unwrap().save(at.join("1.mask.png"), None).unwrap();
    let pixel = |x: u32, _| image::LumaA([255, if x < 32 { 255 } else { 0 }]);
    image::GrayAlphaImage::from_fn(64, 64, pixel).save(at.join("2.mask.png")).unwrap();
    let remarks = check_in(at).remarks;
    for (says, of) in [("white all over", ": 1.png"), ("transparency", ": 2.png")] {
        assert!(
            remarks.iter().any(|remark| remark.contains(says) && remark.ends_with(of)),
            "{remarks:?}"
        );
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..3).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    fs::write(at.join("broken.png"), "no picture").unwrap();
    write(&at.join("tiny.png"), 12, 3);
    write(&at.join("small.png"), 40, 4);
    fs::copy(at.join("1.png"), at.join("1-again.png")).unwrap();
    fs::write(at.join("0.txt"), "a photo of somebody").unwrap();
    fs::write(at.join("2.txt"), "<A1> <a2> himself").unwrap();
    write(&at.join("0.mask.png"), 32, 0);
    Picture::filled(64, 64, [0; 3]).unwrap().save(at.join("2.mask.png"), None).unwrap();
    let checked = check_in(at);
    let problems = [
        "broken.png: not a picture",
        "tiny.png: the picture is 12x12, too small for tuning at 64x64",
        "the same picture as 1-again.png",
        "0.txt: \"a photo of somebody\" has no <TOK>",
        "0.mask.png: the mask is 32x32, the picture 0.png is 64x64",
        "2.mask.png: the mask is black all over",
    ];
    for problem in problems {
        assert_eq!(
            checked.problems.iter().filter(|found| found.contains(problem)).count(),
            1,
            "{problem}: {:?}",
            checked.problems
        );
    }
    assert_eq!(checked.problems.len(), problems.len(), "{:?}", checked.problems);
    let remarks = [
        "enlarged: small.png (40x40)",
        "no caption, so \"<TOK>\": 1-again.png, 1.png, small.png, tiny.png",
    ];
    for remark in remarks {
        assert!(
            checked.remarks.iter().any(|found| found.contains(remark)),
            "{remark}: {:?}",
            checked.remarks
        );
    }
}

#[test]
fn masks_and_captions_that_belong_to_no_picture_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for inside in ["mask", "10_b/mask", "elsewhere"] {
        fs::create_dir_all(at.join(inside)).unwrap();
    }
    let half = || (0..64 * 64).flat_map(|i| [if i % 64 < 32 { 255 } else { 0 }; 3]).collect();
    let mask = |name: &str| Picture::new(64, 64, half()).unwrap().save(at.join(name), None);
    (0..4).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    write(&at.join("10_b/4.png"), 64, 4);
    write(&at.join("3_mask.png"), 64, 5);
    for name in ["mask/0.png", "mask/9.png", "8.mask.png", "10_b/mask/4.png", "10_b/mask/0.png"] {
        mask(name).unwrap();
    }
    fs::rename(at.join("mask/0.png"), at.join("mask/0.PNG")).unwrap();
    fs::write(at.join("mask/1.gif"), "GIF89a").unwrap();
    fs::write(at.join("7.txt"), "<TOK>").unwrap();
    let checked = check_in(at);
    assert_eq!(checked.problems, [""; 0]);
    let masked = |seen: &&Seen| seen.masked;
    assert_eq!(checked.seen.iter().filter(masked).count(), 2, "0.png, and 4.png in its folder");
    let told = checked.remarks.join("\n");
    for text in [
        "mask/9.png (a mask without a picture of that name)",
        "8.mask.png (a mask without a picture of that name)",
        "10_b/mask/0.png (a mask without a picture of that name)",
        "mask/1.gif (a GIF picture, which is not read",
        "7.txt (text without a picture of that name)",
        "elsewhere/ (a folder within, with 0 pictures)",
        "no mask, so all of it counts: 1.png, 2.png, 3.png, 3_mask.png",
        "taken for pictures, since masks beside them are called NAME.mask.png: 3_mask",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    // Folders of masks and captions elsewhere.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("6.caption"), "<TOK>").unwrap();
    mask("elsewhere/0.png").unwrap();
    mask("elsewhere/5.png").unwrap();
    let mut settings = settings(at);
    settings.folders[0].masks = Some(at.join("elsewhere"));
    settings.folders[0].captions = Some(other.path().to_path_buf());
    let told = check(&settings, [64, 64]).remarks.join("\n");
    for text in ["elsewhere/5.png (a mask", "6.caption (text without"] {
        assert_eq!(told.matches(text).count(), 1, "{text}: {told}");
    }
    assert!(!told.contains("elsewhere/0.png"), "{told}");
}

#[test]
fn folders_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut settings = settings(&at.join("none"));
    settings.folders[0].masks = Some(at.join("no masks"));
    let empty = at.join("empty");
    fs::create_dir(&empty).unwrap();
    let mut second = settings.folders[0].clone();
    (second.pictures, second.masks, second.captions) = (empty, None, Some(at.join("no captions")));
    settings.folders.push(second);
    let problems = check(&settings, [64, 64]).problems;
    assert!(problems[0].contains("none: the pictures cannot be read"), "{problems:?}");
    assert!(problems[1].contains("empty: no pictures in it"), "{problems:?}");
    assert!(problems[2].contains("no captions: no such folder"), "{problems:?}");
}

#[test]
fn hardly_different_pictures_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..4).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    let mut rgb = Picture::open(at.join("2.png")).unwrap().rgb().to_vec();
    rgb[100] ^= 1;
    Picture::new(64, 64, rgb).unwrap().save(at.join("2b.png"), None).unwrap();
    let checked = check_in(at);
    assert_eq!(checked.problems, [""; 0]);
    assert!(
        checked.remarks.iter().any(|remark| remark.contains("2b.png: hardly differs from 2.png")),
        "{:?}",
        checked.remarks
    );
}

#[test]
fn large_photos_are_kept_smaller() {
    let mask = Mask::new(400, 200, vec![1.0; 80_000]).unwrap();
    let picture = Picture::filled(400, 200, [9; 3]).unwrap();
    let (original, caption, mask) = ([400, 200], String::new(), Some(mask));
    let found = Found { path: "x".into(), picture, original, caption, mask, repeats: 1 };
    let shrunk = found.clone().shrunk([64, 64], 2.0).unwrap();
    assert_eq!((shrunk.picture.width(), shrunk.picture.height()), (256, 128));
    assert_eq!(shrunk.original, [400, 200]);
    assert_eq!(shrunk.mask.unwrap().width(), 256);
    assert_eq!(found.shrunk([256, 256], 2.0).unwrap().picture.width(), 400);
}

/// The beginnings of files of other kinds.
const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\0\0\0;";
const TIFF: &[u8] = b"II*\0\x08\0\0\0\x0a\0\0\x01";
const AVIF: &[u8] = b"\0\0\0\x1cftypavif\0\0\0\0avif";
const VIDEO: &[u8] = b"\0\0\0\x14ftypqt  \0\0\0\0qt  ";

#[test]
fn what_is_left_out_is_named_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..4).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    let others = [
        ("IMG_1.HEIC", HEIC),
        ("a.gif", GIF),
        ("b.tiff", TIFF),
        ("c.avif", AVIF),
        ("IMG_1.MOV", VIDEO),
        ("d.psd", b"?"),
        ("e.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        ("f.raf", b"\x01\x02\x03"),
        ("g.wmv", b"\x30\x26\xb2\x75\x8e\x66"),
        ("h.dat", b"\x01\x02\x03"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("desktop.ini", b"[.ShellClassInfo]"),
        (".DS_Store", b"\0\0\0\x01Bud1"),
        ("._0.png", b"\0\x05\x16\x07"),
    ];
    others.iter().for_each(|(name, bytes)| fs::write(at.join(name), bytes).unwrap());
    fs::copy(at.join("0.png"), at.join("copy.bak")).unwrap();
    fs::write(at.join("lost.txt"), "a <TOK>").unwrap();
    fs::write(at.join("README.md"), "not a picture").unwrap();
    fs::create_dir_all(at.join("more/deep")).unwrap();
    write(&at.join("more/5.png"), 64, 5);
    fs::create_dir(at.join("0_none")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(at.join("nowhere.png"), at.join("link.png")).unwrap();
    let checked = check_in(at);
    assert_eq!(checked.problems, [""; 0]);
    assert_eq!(checked.found.len(), 4);
    let remark = checked.remarks.iter().find(|remark| remark.starts_with("left out of ")).unwrap();
    let mut expected = vec![
        "IMG_1.HEIC (a HEIC picture, which is not read",
        "a.gif (a GIF picture, which is not read",
        "b.tiff (a TIFF picture",
        "c.avif (an AVIF picture, which is not read",
        "IMG_1.MOV (a video",
        "d.psd (called .psd, but a text file)",
        "e.svg (called .svg, a kind that is not read: saved as PNG",
        "f.raf (called .raf, a kind that is not read: saved as PNG",
        "g.wmv (called .wmv, a video: frames of it",
        "h.dat (a file of an unknown kind)",
        "copy.bak (a PNG picture, but not called as one",
        "lost.txt (text without a picture of that name)",
        "more/ (a folder within, with 1 picture)",
        "0_none/ (0 repeats)",
    ];
    if cfg!(unix) {
        expected.push("link.png (a link that leads nowhere)");
    }
    for part in expected {
        assert!(remark.contains(part), "{part}: {remark}");
    }
    for part in ["README", "0.png", "humbs", "desktop", "DS_Store"] {
        assert!(!remark.contains(part), "{part}: {remark}");
    }
}

#[test]
fn captions_have_either_ending() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..4).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    fs::write(at.join("0.caption"), "a <TOK> on grass").unwrap();
    fs::write(at.join("1.TXT"), "a <TOK> in the snow").unwrap();
    fs::write(at.join("2.txt"), "the <TOK>").unwrap();
    fs::write(at.join("2.caption"), "another <TOK>").unwrap();
    fs::write(at.join("3.caption"), [0xff, 0xd8, 0xff, 0xe0]).unwrap();
    let checked = check_in(at);
    let captions: Vec<&str> = checked.found.iter().map(|found| found.caption.as_str()).collect();
    assert_eq!(captions, ["a <TOK> on grass", "a <TOK> in the snow", "the <TOK>", "<TOK>"]);
    assert!(
        checked.remarks.iter().any(|remark| remark == "two captions, of which the .txt is read: 2"),
        "{:?}",
        checked.remarks
    );
    assert!(
        checked.problems[0].contains("3.caption") && checked.problems[0].contains("JPEG"),
        "{:?}",
        checked.problems
    );
}

#[test]
fn kohyas_folders_weigh_their_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (ten, four) = (at.join("10_zorp dog"), at.join("4_zorp"));
    fs::create_dir_all(ten.join("mask")).unwrap();
    fs::create_dir(&four).unwrap();
    (0..2).for_each(|number| write(&ten.join(format!("{number}.png")), 64, number));
    (2..4).for_each(|number| write(&four.join(format!("{number}.png")), 64, number));
    fs::write(ten.join("0.caption"), "a <TOK> dog").unwrap();
    fs::write(ten.join("x.gif"), GIF).unwrap();
    Picture::filled(64, 64, [255; 3]).unwrap().save(ten.join("mask/0.png"), None).unwrap();
    let checked = check_in(at);
    assert_eq!(checked.problems, [""; 0]);
    let found: Vec<(String, usize)> =
        checked.found.iter().map(|found| (name(&found.path), found.repeats)).collect();
    let expected = [("0.png", 5), ("1.png", 5), ("2.png", 2), ("3.png", 2)];
    assert_eq!(
        found,
        expected.map(|(name, repeats)| (name.to_string(), repeats)),
        "what both have in common is divided out"
    );
    assert_eq!(
        (checked.found[0].caption.as_str(), checked.found[0].mask.is_some()),
        ("a <TOK> dog", true)
    );
    let said = |part: &str| {
        assert!(
            checked.remarks.iter().any(|remark| remark.contains(part)),
            "{part}: {:?}",
            checked.remarks
        )
    };
    said(
        "10_zorp dog (kohya's layout): 2 pictures, each 10 times in an epoch; \"zorp dog\" is not \
            taken for a caption",
    );
    said("10_zorp dog/x.gif (a GIF picture");
    assert_eq!(count(at), 4);
    // Other repeats are another run.
    fs::rename(&four, at.join("10_zorp")).unwrap();
    let equal = check_in(at);
    assert!(equal.found.iter().all(|found| found.repeats == 1));
    assert!(
        equal.remarks.iter().any(|remark| remark.contains("all pictures have 10 repeats")),
        "{:?}",
        equal.remarks
    );
    assert_ne!(equal.hash, checked.hash);
    fs::rename(at.join("10_zorp"), at.join("99999_zorp")).unwrap();
    assert!(
        check_in(at).problems.iter().any(|problem| problem.contains("repeats make an epoch of"))
    );
}

#[test]
fn headers_tell_most_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..4).for_each(|number| write(&at.join(format!("{number}.png")), 64, number));
    let look = || check_at(&settings(at), [64, 64], Depth::Headers);
    assert_eq!(look().problems, [""; 0]);
    assert_eq!((look().seen.len(), look().found.len(), look().seen[0].size), (4, 0, (64, 64)));
    fs::write(at.join("text.png"), "no picture").unwrap();
    let whole = fs::read(at.join("0.png")).unwrap();
    fs::write(at.join("cut.png"), &whole[..whole.len() - 20]).unwrap();
    fs::copy(at.join("1.png"), at.join("again.png")).unwrap();
    write(&at.join("small.png"), 8, 5);
    write(&at.join("2.mask.png"), 32, 6);
    let problems = look().problems.join("\n");
    for word in [
        "text.png",
        "cut.png",
        "ends too early",
        "again.png",
        "the same picture as 1.png",
        "small.png",
        "2.mask.png",
    ] {
        assert!(problems.contains(word), "{word} in {problems}");
    }
    // What only pixels tell.
    fs::remove_file(at.join("2.mask.png")).unwrap();
    Picture::filled(64, 64, [0; 3]).unwrap().save(at.join("2.mask.png"), None).unwrap();
    assert!(!look().problems.join("\n").contains("2.mask.png"));
    assert!(check_in(at).problems.join("\n").contains("2.mask.png"));
}

#[test]
fn class_pictures_do_not_name_the_concept_and_have_no_masks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    (0..3).for_each(|number| write(&at.join(format!("{number}.png")), 128, number));
    fs::write(at.join("0.txt"), "a <TOK> in a room").unwrap();
    Picture::filled(128, 128, [255; 3]).unwrap().save(at.join("1.mask.png"), None).unwrap();
    let own = PictureFolder {
        pictures: at.to_path_buf(),
        captions: None,
        masks: None,
        caption: Some("man".into()),
    };
    let class = || check_class(&own, &settings(at), [64, 64], Depth::Pixels);
    let checked = class();
    assert_eq!(checked.problems, [""; 0]);
    let captions: Vec<&str> = checked.found.iter().map(|found| found.caption.as_str()).collect();
    assert_eq!(captions, ["a <TOK> in a room", "man", "man"]);
    // None is kept larger than it is learnt from.
    assert!(checked.found.iter().all(|f| f.mask.is_none() && f.picture.width() == 64));
    assert_eq!(
        checked.remarks,
        [
            "masks of class pictures are not used, all of these counts: 1.png",
            "no caption, so \"man\": 1.png, 2.png"
        ]
    );
    fs::write(at.join("2.txt"), "a photo of <A1> <a2>").unwrap();
    let problems = class().problems;
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("2.txt: \"a photo of <A1> <a2>\" names the concept"),
        "{problems:?}"
    );
    assert_ne!(class().hash, checked.hash);
}
