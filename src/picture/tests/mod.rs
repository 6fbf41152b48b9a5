mod edges;
mod files;
mod settings;
mod sheets;

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures").join(name)
}

fn numbers() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("numbers.json")).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// A picture in which every pixel differs from its neighbours.
fn gradient(width: u32, height: u32) -> Picture {
    let pixel = |n: u32| [(n * 7) as u8, (n * 13 / 5) as u8, (n / width * 9) as u8];
    Picture::new(width, height, (0..width * height).flat_map(pixel).collect()).unwrap()
}

#[test]
fn decoder_values_are_rounded_as_numpy_does() {
    let numbers = numbers();
    let values = floats(&numbers["values"]);
    let picture = Picture::from_model(&values, 19, 10).unwrap();
    let expected: Vec<u8> = floats(&numbers["rounded"]).iter().map(|v| *v as u8).collect();
    assert_eq!(picture.rgb(), expected);
    let error = Picture::from_model(&[0.0, f32::NAN, f32::INFINITY], 1, 1).unwrap_err();
    assert!(matches!(error, Error::NotFinite { count: 2, of: 3 }), "{error}");
    assert!(matches!(Picture::from_model(&[0.0; 4], 1, 1), Err(Error::Values { found: 4, .. })));
}

#[test]
fn model_range_and_back_is_the_same_picture() {
    let bytes: Vec<u8> = (0..=255).cycle().take(16 * 16 * 3).collect();
    let picture = Picture::new(16, 16, bytes).unwrap();
    let values = picture.to_model();
    assert_eq!((values[0], values[255]), (-1.0, 1.0));
    assert_eq!(Picture::from_model(&values, 16, 16).unwrap(), picture);
}

#[test]
fn sizes_are_checked() {
    assert!(matches!(Picture::filled(0, 5, [0; 3]), Err(Error::Size { width: 0, height: 5 })));
    assert!(matches!(Picture::filled(MAX_SIDE + 1, 1, [0; 3]), Err(Error::Size { .. })));
    assert!(matches!(Picture::filled(MAX_SIDE, MAX_SIDE, [0; 3]), Err(Error::Size { .. })));
    assert!(matches!(Picture::new(2, 2, vec![0; 11]), Err(Error::Values { found: 11, .. })));
    assert!(matches!(gradient(4, 4).resized(0, 4), Err(Error::Size { .. })));
    assert_eq!(gradient(3, 2).pixel(2, 1), Some([35, 13, 9]));
    assert_eq!(gradient(3, 2).pixel(3, 0), None);
    assert_eq!(gradient(3, 2).pixel(0, 2), None);
}

#[test]
fn resizing_keeps_colours_and_smooth_pictures() {
    let plain = Picture::filled(31, 17, [10, 200, 90]).unwrap();
    assert_eq!(plain.resized(64, 5).unwrap(), Picture::filled(64, 5, [10, 200, 90]).unwrap());
    let smooth: Vec<u8> =
        (0..64u32 * 64).flat_map(|n| [(n % 64 * 4) as u8, (n / 64 * 4) as u8, 128]).collect();
    let smooth = Picture::new(64, 64, smooth).unwrap();
    let back = smooth.resized(128, 128).unwrap().resized(64, 64).unwrap();
    let quality = psnr(&smooth, &back).unwrap();
    assert!(quality > 45.0, "{quality}");
    assert_eq!(smooth.resized(64, 64).unwrap(), smooth);
}

#[test]
fn psnr_is_that_of_its_formula() {
    let a = Picture::filled(4, 4, [100; 3]).unwrap();
    let b = Picture::filled(4, 4, [110; 3]).unwrap();
    assert!((psnr(&a, &b).unwrap() - 20.0 * (255.0f64 / 10.0).log10()).abs() < 1e-9);
    assert_eq!(psnr(&a, &a).unwrap(), f64::INFINITY);
    assert!(matches!(
        psnr(&a, &Picture::filled(4, 5, [0; 3]).unwrap()),
        Err(Error::Different { .. })
    ));
}

#[test]
fn masks_are_resized_as_torch_does() {
    let numbers = numbers();
    let mask = Mask::new(10, 7, floats(&numbers["mask"])).unwrap();
    let cases = numbers["resized"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let scaling = if case["mode"] == "area" { Scaling::Area } else { Scaling::Nearest };
        let [width, height] = ["width", "height"].map(|k| case[k].as_u64().unwrap() as u32);
        let resized = mask.resized(width, height, scaling).unwrap();
        for (got, want) in resized.values().iter().zip(floats(&case["values"])) {
            assert!((got - want).abs() < 1e-6, "{scaling:?} {width} x {height}: {got} {want}");
        }
    }
}

#[test]
fn masks_read_grey_values() {
    let mask = Mask::open(fixture("grey.png")).unwrap();
    // Pillow's "L" of red, green, blue and white.
    let corners = [0, 5, 18, 23].map(|n: usize| (mask.values()[n] * 255.0).round());
    assert_eq!(corners, [76.0, 150.0, 29.0, 255.0]);
    assert_eq!(Mask::open(fixture("palette.png")).unwrap(), mask);
    assert_eq!(mask.doubt(true), None);
    assert_eq!(mask.binarized(0.5).values()[..6], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert!(matches!(Mask::new(2, 1, vec![0.0]), Err(Error::Values { .. })));
    assert!(matches!(Mask::new(1, 1, vec![f32::NAN]), Err(Error::NotFinite { .. })));
    assert_eq!(Mask::new(2, 1, vec![-3.0, 7.0]).unwrap().values(), [0.0, 1.0]);
}

#[test]
fn what_is_left_of_a_mask_is_measured() {
    let columns = |white: fn(u32) -> bool| {
        let value = |i: u32| f32::from(u8::from(white(i % 16)));
        Mask::new(16, 8, (0..128).map(value).collect()).unwrap()
    };
    let seen = |mask: &Mask| mask.seen(&mask.resized(2, 1, Scaling::Nearest).unwrap());
    // Cells of 8 pixels show their first column.
    assert_eq!(seen(&columns(|x| x < 8)), Some(1.0));
    assert_eq!(seen(&columns(|x| x == 3)), Some(0.0));
    assert_eq!(seen(&columns(|x| x == 0 || x > 12)), Some(0.25));
    assert_eq!(seen(&columns(|_| false)), None);
}

#[test]
fn masks_that_are_hardly_meant_so_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    // Colour and alpha of the left half, then of the right.
    let doubt = |left: [u8; 2], right: [u8; 2]| {
        let pixel = |x: u32| if x < 4 { left } else { right };
        image::GrayAlphaImage::from_fn(8, 8, |x, _| image::LumaA(pixel(x))).save(&path).unwrap();
        Mask::open(&path).unwrap().doubt(true)
    };
    assert_eq!(doubt([255, 255], [0, 255]), None);
    assert_eq!(doubt([255, 255], [0, 0]), None, "white on what is black where it is transparent");
    assert_eq!(doubt([255, 255], [255, 0]), Some(Doubt::Transparent), "white on transparent white");
    assert_eq!(doubt([0, 255], [0, 0]), Some(Doubt::Transparent), "black on transparent black");
    assert_eq!(doubt([255, 255], [255, 255]), Some(Doubt::White));
    assert_eq!(doubt([200, 255], [130, 255]), Some(Doubt::White));
    assert_eq!(doubt([0, 255], [20, 255]), Some(Doubt::Black));
    // Soft ones mean their greys.
    let grey = |value: f32| Mask::new(4, 4, vec![value; 16]).unwrap().doubt(false);
    assert_eq!(
        [grey(0.0), grey(0.3), grey(0.8), grey(1.0)],
        [Some(Doubt::Black), None, None, Some(Doubt::White)]
    );
}
