//! Edges: pictures whose edges are known.
use super::super::Picture;
use super::super::edges::CANNY_THRESHOLDS;

/// 8 x 6 pixels, black on the left and of this grey from column 4 on.
fn step(grey: u8) -> Picture {
    let at = |i: usize| if i % 8 < 4 { [0; 3] } else { [grey; 3] };
    Picture::new(8, 6, (0..48).flat_map(at).collect()).unwrap()
}

/// The white columns, which are the same in every row.
fn columns(picture: &Picture) -> Vec<u32> {
    let white =
        |y: u32| (0..8).filter(|&x| picture.pixel(x, y) == Some([255; 3])).collect::<Vec<u32>>();
    assert!((0..6).all(|y| white(y) == white(0)));
    white(0)
}

#[test]
fn canny_draws_one_line_where_an_edge_is_strong() {
    let [strong, weak] = CANNY_THRESHOLDS;
    assert_eq!(columns(&step(255).canny(strong, weak).unwrap()), [3]);
    // Gradients of 4 times the step: 240 is strong; 120 is weak, and connected to nothing.
    assert_eq!(columns(&step(60).canny(strong, weak).unwrap()), [3]);
    assert_eq!(columns(&step(30).canny(strong, weak).unwrap()), [0; 0]);
    assert_eq!(columns(&step(0).canny(strong, weak).unwrap()), [0; 0]);
}

#[test]
fn outlines_are_where_the_softened_picture_changes() {
    assert_eq!(columns(&step(255).outline().unwrap()), [2, 3, 4, 5]);
    assert_eq!(columns(&step(20).outline().unwrap()), [0; 0]);
}

#[test]
fn greys_are_those_of_pillow() {
    let picture = Picture::new(3, 1, vec![255, 0, 0, 0, 255, 0, 10, 20, 30]).unwrap();
    assert_eq!(picture.grey(), [76.0, 150.0, 18.0]);
}
