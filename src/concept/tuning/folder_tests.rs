//! The check of the pictures' folders.
use std::fs;

use super::*;
use crate::concept::tuning::config::Options;

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

fn check_at(folder: &Path) -> Checked {
    check(&settings(folder), [64, 64])
}

#[test]
fn a_folder_in_order_gives_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("mask")).unwrap();
    for number in 0..5 {
        write(&at.join(format!("{number}.png")), 64, number);
        fs::write(at.join(format!("{number}.txt")), format!("\u{feff}\n a photo of <TOK>, {number}\nmore\n")).unwrap();
    }
    let half = |grey: u8| (0..64 * 64).flat_map(|i| [if i % 64 < 32 { grey } else { 0 }; 3]).collect();
    Picture::new(64, 64, half(200)).unwrap().save(at.join("mask/0.png"), None).unwrap();
    Picture::new(64, 64, half(255)).unwrap().save(at.join("1.mask.png"), None).unwrap();
    fs::write(at.join("README.md"), "").unwrap();
    fs::write(at.join(".hidden.png"), "").unwrap();
    let checked = check_at(at);
    assert_eq!(checked.problems, [""; 0]);
    assert_eq!(checked.found.len(), 5);
    assert_eq!(checked.found[3].caption, "a photo of <TOK>, 3");
    let masks: Vec<bool> = checked.found.iter().map(|found| found.mask.is_some()).collect();
    assert_eq!(masks, [true, true, false, false, false]);
    assert_eq!(checked.remarks, ["3 of 5 pictures have no mask: all of them counts"]);
    assert_eq!(checked.hash, check_at(at).hash);
    fs::write(at.join("2.txt"), "another <TOK>").unwrap();
    assert_ne!(checked.hash, check_at(at).hash);
    assert_eq!(count(at), 5);
    // A mask that leaves nothing out, and one whose shape is not in its colours.
    Picture::filled(64, 64, [255; 3]).unwrap().save(at.join("1.mask.png"), None).unwrap();
    let pixel = |x: u32, _| image::LumaA([255, if x < 32 { 255 } else { 0 }]);
    image::GrayAlphaImage::from_fn(64, 64, pixel).save(at.join("2.mask.png")).unwrap();
    let remarks = check_at(at).remarks;
    for (says, of) in [("white all over", ": 1.png"), ("transparency", ": 2.png")] {
        assert!(remarks.iter().any(|remark| remark.contains(says) && remark.ends_with(of)), "{remarks:?}");
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
    let checked = check_at(at);
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
    let remarks = ["enlarged: small.png (40x40)", "no caption, so \"<TOK>\": 1-again.png, 1.png, small.png, tiny.png"];
    for remark in remarks {
        assert!(checked.remarks.iter().any(|found| found.contains(remark)), "{remark}: {:?}", checked.remarks);
    }
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
    assert!(problems[0].contains("none: cannot be read"), "{problems:?}");
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
    let checked = check_at(at);
    assert_eq!(checked.problems, [""; 0]);
    assert!(checked.remarks.iter().any(|remark| remark.contains("2b.png: hardly differs from 2.png")), "{:?}", checked.remarks);
}

#[test]
fn large_photos_are_kept_smaller() {
    let mask = Mask::new(400, 200, vec![1.0; 80_000]).unwrap();
    let picture = Picture::filled(400, 200, [9; 3]).unwrap();
    let found = Found { path: "x".into(), picture, caption: String::new(), mask: Some(mask) };
    let shrunk = found.clone().shrunk([64, 64], 2.0).unwrap();
    assert_eq!((shrunk.picture.width(), shrunk.picture.height()), (256, 128));
    assert_eq!(shrunk.mask.unwrap().width(), 256);
    assert_eq!(found.shrunk([256, 256], 2.0).unwrap().picture.width(), 400);
}
