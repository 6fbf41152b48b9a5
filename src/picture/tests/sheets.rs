use super::super::font::wrap;
use super::*;

const PAPER: [u8; 3] = [255; 3];

#[test]
fn pictures_stand_in_their_places() {
    let pictures: Vec<Picture> =
        (0..5u8).map(|n| Picture::filled(20, 10, [n * 50; 3]).unwrap()).collect();
    let sheet = Sheet::grid(&pictures, 3).draw().unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 20 + 4 * 4, 2 * 10 + 3 * 4));
    for (n, picture) in pictures.iter().enumerate() {
        let (x, y) = (4 + n as u32 % 3 * 24, 4 + n as u32 / 3 * 14);
        for (dx, dy) in [(0, 0), (19, 9)] {
            assert_eq!(sheet.pixel(x + dx, y + dy), picture.pixel(0, 0), "picture {n}");
        }
        assert_eq!(sheet.pixel(x - 1, y), Some(PAPER));
        assert_eq!(sheet.pixel(x + 20, y), Some(PAPER));
    }
    assert_eq!(sheet.pixel(60, 20), Some(PAPER), "no sixth picture");
}

#[test]
fn smaller_pictures_stand_in_the_middle() {
    let (large, small) =
        (Picture::filled(20, 20, [9; 3]).unwrap(), Picture::filled(10, 4, [5; 3]).unwrap());
    let sheet = Sheet { rows: vec![vec![Some(&large), Some(&small), None]], ..Sheet::default() }
        .draw()
        .unwrap();
    assert_eq!((sheet.width(), sheet.height()), (60, 20));
    assert_eq!([sheet.pixel(25, 8), sheet.pixel(34, 11)], [Some([5; 3]); 2]);
    assert_eq!([sheet.pixel(24, 8), sheet.pixel(25, 7), sheet.pixel(35, 11)], [Some(PAPER); 3]);
    let hole = sheet.pixel(50, 10).unwrap();
    assert!(hole != PAPER && hole != [5; 3]);
}

#[test]
fn captions_take_room_and_ink() {
    let picture = Picture::filled(64, 64, [255; 3]).unwrap();
    let rows = vec![vec![Some(&picture), Some(&picture)], vec![Some(&picture), Some(&picture)]];
    let bare = Sheet { rows, gap: 4, ..Sheet::default() };
    let texts = |n: usize| (0..n).map(|i| format!("no {i} größer 红")).collect::<Vec<_>>();
    let captioned = Sheet { row_captions: texts(2), column_captions: texts(2), ..bare.clone() };
    let (without, with) = (bare.draw().unwrap(), captioned.draw().unwrap());
    // Eight letters fit: "no 0" and "größer 红", two lines of ten points.
    assert_eq!(with.height() - without.height(), 2 * 10 + 4);
    assert_eq!(with.width() - without.width(), 8 * 8 + 4);
    let ink = |p: &Picture, x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
        y.flat_map(|y| x.clone().map(move |x| (x, y)))
            .filter(|(x, y)| p.pixel(*x, *y) != Some(PAPER))
            .count()
    };
    assert_eq!(ink(&without, 0..without.width(), 0..without.height()), 0);
    let (left, top) = (with.width() - without.width(), with.height() - without.height());
    assert!(ink(&with, 0..left, top..with.height()) > 100, "row captions");
    assert!(ink(&with, left..with.width(), 0..top) > 100, "column captions");
    assert_eq!(ink(&with, left..with.width(), top..with.height()), 0, "none over the pictures");
}

#[test]
fn text_is_wrapped() {
    assert_eq!(wrap("a red cat in the snow", 9, 9), ["a red cat", "in the", "snow"]);
    assert_eq!(wrap("supercalifragilistic cat", 8, 9), ["supercal", "ifragili", "stic cat"]);
    assert_eq!(wrap("a red cat in the snow", 9, 2), ["a red cat", "in the.."]);
    assert_eq!(wrap("abcdefgh ijklmnop qr", 8, 1), ["abcdef.."]);
    assert_eq!(wrap("ab cd", 1, 1), ["."]);
    assert!(wrap("  \n ", 5, 5).is_empty());
    assert_eq!(wrap("größer 红", 0, 1), ["."]);
}

#[test]
fn sheets_beyond_reason_are_refused() {
    assert!(matches!(Sheet::default().draw(), Err(Error::EmptySheet)));
    assert!(matches!(
        Sheet { rows: vec![vec![None]], ..Sheet::default() }.draw(),
        Err(Error::EmptySheet)
    ));
    let picture = Picture::filled(1000, 10, [0; 3]).unwrap();
    let rows = vec![vec![Some(&picture); 17]];
    assert!(matches!(
        Sheet { rows, gap: 4, ..Sheet::default() }.draw(),
        Err(Error::Size { width: 17072, .. })
    ));
    let rows = vec![vec![Some(&picture)]];
    assert!(matches!(
        Sheet { rows, gap: u32::MAX, ..Sheet::default() }.draw(),
        Err(Error::Size { .. })
    ));
}
