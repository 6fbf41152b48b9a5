//! Shapes, and what they cover of a feature map.
use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::numbers::counted;
use crate::picture::{Mask, Scaling};

/// The shape of a region. Numbers that are all at most 1 are fractions of the picture's width and
/// height, others pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Area {
    /// All of the picture.
    #[default]
    Whole,
    /// Left, top, right, bottom.
    Box([f64; 4]),
    /// Corners `[x, y]`; what lies an odd number of times inside.
    Polygon(Vec<[f64; 2]>),
    /// A picture file of the picture's proportions, white inside; grey is soft.
    Mask(PathBuf),
}

/// A share of a feature map's cells, `[height, width]` from 0 to 1, and whether the shape is too
/// small for them.
pub(super) struct Coverage {
    pub values: Vec<f32>,
    /// It had to be enlarged to be seen at all, or, as published, is not seen.
    pub too_small: bool,
    /// More than half of it lies in cells of which it covers too little to be seen there.
    pub is_thin: bool,
}

/// A shape on a picture of a known size.
pub(super) struct Outline {
    width: usize,
    height: usize,
    kind: Kind,
    /// As [`super::Layout::published`].
    published: bool,
    /// What of it is probably not as it was meant.
    pub doubt: Option<String>,
}

enum Kind {
    /// Left, top, right, bottom as fractions.
    Box([f64; 4]),
    /// Shares of pixels, and whether those of cells are kept between 0 and 1.
    Pixels(Mask, bool),
}

/// Slack for products of fractions and sizes that are whole but for rounding.
const SLACK: f64 = 1e-9;

impl Outline {
    /// `area` with edges `soft` wide, on a picture of `width` x `height` pixels; `region` names it
    /// in errors. `published` is as [`super::Layout::published`].
    pub fn new(
        area: &Area,
        soft: f64,
        width: usize,
        height: usize,
        region: &str,
        published: bool,
    ) -> Result<Outline> {
        let mut doubt = None;
        let kind = match area {
            Area::Whole => Kind::Box([0.0, 0.0, 1.0, 1.0]),
            Area::Box(edges) if published => {
                let fractions = published_fractions(edges, width, height, region)?;
                if fractions.iter().any(|edge| !(0.0..=1.0).contains(edge)) {
                    doubt = Some("reaches beyond the picture and is cut off there".to_string());
                }
                Kind::Box(fractions)
            }
            Area::Box(edges) => Kind::Box(fractions(edges, width, height, region)?),
            Area::Polygon(corners) => {
                let corners = polygon(corners, width, height, region)?;
                Kind::Pixels(fill(&corners, width, height)?, false)
            }
            Area::Mask(path) => {
                let mask = read(path, width, height, region)?;
                doubt =
                    mask.doubt(false).map(|doubt| format!("its mask {} {doubt}", path.display()));
                Kind::Pixels(mask, true)
            }
        };
        let mut outline = Outline { width, height, kind, published, doubt };
        if soft > 0.0 {
            let most = width.max(height) as f64;
            if soft > most.max(1.0) {
                let expected = format!(
                    "a width up to the picture's longer side, {most} pixels, or a fraction up to 1"
                );
                return Err(Error::Value {
                    region: region.to_string(),
                    key: "soft",
                    found: super::number(soft),
                    expected,
                });
            }
            let pixels = if soft <= 1.0 { soft * width.min(height) as f64 } else { soft };
            let mask = outline.pixels()?;
            // A mask picture has its own size; the width is meant in pixels of the picture that is
            // made.
            let pixels = pixels * f64::from(mask.width()) / width as f64;
            let most = |mask: &Mask| mask.values().iter().copied().fold(0.0, f32::max);
            let before = most(&mask);
            let mask = softened(&mask, pixels.round().max(1.0) as usize)?;
            let after = most(&mask);
            if before >= 0.5 && after < 0.5 {
                let faded = format!(
                    "is narrower than its soft edge: it holds by {:.0} % at most",
                    after * 100.0
                );
                outline.doubt =
                    Some(outline.doubt.map_or(faded.clone(), |d| format!("{d}; {faded}")));
            }
            outline.kind = Kind::Pixels(mask, true);
        }
        Ok(outline)
    }

    /// What of each pixel is covered; a mask picture keeps its own size.
    pub fn pixels(&self) -> Result<Mask> {
        let (width, height) = (self.width, self.height);
        Ok(match &self.kind {
            Kind::Pixels(mask, _) => mask.clone(),
            Kind::Box(_) => {
                Mask::new(width as u32, height as u32, self.coverage(height, width)?.values)?
            }
        })
    }

    /// What of each cell of a feature map is covered. Boxes reach from ceil(start) to floor(end),
    /// as published; one that is too small for that is enlarged, unless all is to be as published.
    pub fn coverage(&self, height: usize, width: usize) -> Result<Coverage> {
        let (mask, soft) = match &self.kind {
            Kind::Box([left, top, right, bottom]) => {
                let cells = if self.published { published_cells } else { cells };
                let (columns, narrow) = cells(*left, *right, width);
                let (rows, low) = cells(*top, *bottom, height);
                let covered =
                    |i: usize| rows.contains(&(i / width)) && columns.contains(&(i % width));
                let values = (0..height * width).map(|i| f32::from(covered(i))).collect();
                return Ok(Coverage { values, too_small: narrow || low, is_thin: false });
            }
            Kind::Pixels(mask, soft) => (mask, *soft),
        };
        let means = mask.resized(width as u32, height as u32, Scaling::Area)?;
        let mut values: Vec<f32> = match soft {
            true => means.values().to_vec(),
            false => means.values().iter().map(|v| f32::from(*v >= 0.5)).collect(),
        };
        let too_small = values.iter().all(|v| *v < 0.5) && mask.values().iter().any(|v| *v >= 0.5);
        let sum = |of: &dyn Fn(f32) -> bool| -> f64 {
            let pairs = means.values().iter().zip(&values);
            pairs.filter(|(_, value)| of(**value)).map(|(mean, _)| f64::from(*mean)).sum()
        };
        let is_thin = sum(&|value| value == 0.0) > sum(&|_| true) / 2.0;
        if too_small && !self.published {
            // The cell of which it covers most.
            let most = means
                .values()
                .iter()
                .enumerate()
                .fold((0, 0.0), |a, (i, v)| if *v > a.1 { (i, *v) } else { a });
            if let Some(value) = values.get_mut(most.0) {
                *value = 1.0;
            }
        }
        Ok(Coverage { values, too_small, is_thin })
    }
}

/// The cells from `start` to `end` of `size`, and whether there was none: then it is the one in
/// which the middle lies.
fn cells(start: f64, end: f64, size: usize) -> (std::ops::Range<usize>, bool) {
    let first = (start * size as f64 - SLACK).ceil().max(0.0) as usize;
    let last = ((end * size as f64 + SLACK).floor() as usize).min(size);
    if first < last {
        return (first..last, false);
    }
    let middle = (((start + end) / 2.0 * size as f64) as usize).min(size - 1);
    (middle..middle + 1, true)
}

/// The cells from `start` to `end` of `size` as the published program counts them, and whether
/// there is none. Its edges are Python's: what lies beyond the end is cut off, what lies before the
/// start is counted from the end.
fn published_cells(start: f64, end: f64, size: usize) -> (std::ops::Range<usize>, bool) {
    let index = |edge: f64| {
        let edge = edge as i64;
        let edge = if edge < 0 { edge.saturating_add(size as i64) } else { edge };
        edge.clamp(0, size as i64) as usize
    };
    let (first, last) = (index((start * size as f64).ceil()), index((end * size as f64).floor()));
    (first..last.max(first), last <= first)
}

/// Edges as fractions of the picture, wherever they lie.
fn published_fractions(
    edges: &[f64; 4],
    width: usize,
    height: usize,
    region: &str,
) -> Result<[f64; 4]> {
    if !edges.iter().all(|edge| edge.is_finite()) {
        let found = edges.map(|v| v.to_string()).join(", ");
        return Err(Error::Value {
            region: region.to_string(),
            key: "box",
            found,
            expected: "numbers".into(),
        });
    }
    if edges.iter().all(|edge| (0.0..=1.0).contains(edge)) {
        return Ok(*edges);
    }
    let [left, top, right, bottom] = *edges;
    let (width, height) = (width as f64, height as f64);
    Ok([left / width, top / height, right / width, bottom / height])
}

/// Edges as fractions of the picture.
fn fractions(edges: &[f64; 4], width: usize, height: usize, region: &str) -> Result<[f64; 4]> {
    let wrong = |problem: String| Error::Value {
        region: region.to_string(),
        key: "box",
        found: named(edges),
        expected: problem,
    };
    let [left, top, right, bottom] = *edges;
    check_edges(edges).map_err(|expected| wrong(expected.into()))?;
    if edges.iter().all(|v| *v <= 1.0) {
        return Ok(*edges);
    }
    if right > width as f64 || bottom > height as f64 {
        return Err(wrong(format!(
            "edges within the picture of {width} x {height} pixels, or fractions from 0 to 1"
        )));
    }
    let (width, height) = (width as f64, height as f64);
    Ok([left / width, top / height, right / width, bottom / height])
}

/// Corners in pixels.
fn polygon(
    corners: &[[f64; 2]],
    width: usize,
    height: usize,
    region: &str,
) -> Result<Vec<[f64; 2]>> {
    let wrong = |found: String, expected: String| Error::Value {
        region: region.to_string(),
        key: "polygon",
        found,
        expected,
    };
    if corners.len() < 3 {
        return Err(wrong(counted(corners.len(), "corner"), "at least 3".into()));
    }
    let (w, h) = (width as f64, height as f64);
    let [x, y] = if corners.iter().flatten().all(|v| *v <= 1.0) { [w, h] } else { [1.0, 1.0] };
    let corners: Vec<[f64; 2]> =
        corners.iter().map(|corner| [corner[0] * x, corner[1] * y]).collect();
    match corners.iter().find(|c| !((0.0..=w).contains(&c[0]) && (0.0..=h).contains(&c[1]))) {
        Some([x, y]) => Err(wrong(
            format!("a corner at {x}, {y}"),
            format!("corners within the {width} x {height} pixels"),
        )),
        None => Ok(corners),
    }
}

/// Pixels whose middle lies inside, by the even-odd rule.
fn fill(corners: &[[f64; 2]], width: usize, height: usize) -> Result<Mask> {
    let mut values = vec![0.0; width * height];
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        let y = row as f64 + 0.5;
        let edges = corners.iter().zip(corners.iter().cycle().skip(1));
        let crossings = edges.filter(|(a, b)| (a[1] <= y) != (b[1] <= y));
        let mut at: Vec<f64> =
            crossings.map(|(a, b)| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])).collect();
        at.sort_by(f64::total_cmp);
        let mut left = 0;
        for (column, value) in values.iter_mut().enumerate() {
            left += at
                .get(left..)
                .unwrap_or_default()
                .iter()
                .take_while(|x| **x <= column as f64 + 0.5)
                .count();
            *value = f32::from(left % 2 == 1);
        }
    }
    Ok(Mask::new(width as u32, height as u32, values)?)
}

fn read(path: &Path, width: usize, height: usize, region: &str) -> Result<Mask> {
    let mask =
        Mask::open(path).map_err(|source| Error::Mask { region: region.to_string(), source })?;
    let (mask_width, mask_height) = (mask.width(), mask.height());
    if mask_width as usize * height != mask_height as usize * width {
        return Err(Error::MaskSize {
            region: region.to_string(),
            path: path.to_path_buf(),
            mask_width,
            mask_height,
            width,
            height,
        });
    }
    Ok(mask)
}

/// The mean over a window of `size` x `size`, whose ramp at an edge is linear. What lies outside
/// counts as the nearest pixel, so that a region does not fade where the picture ends.
fn softened(mask: &Mask, size: usize) -> Result<Mask> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let across = means(mask.values(), height, width, 1, width, size);
    let both = means(&across, width, height, width, 1, size);
    Ok(Mask::new(width as u32, height as u32, both)?)
}

/// Running means of `lines` lines of `length` values: value i of line l stands at i * step + l *
/// pitch.
fn means(
    values: &[f32],
    lines: usize,
    length: usize,
    step: usize,
    pitch: usize,
    size: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let (before, after) = (size as isize / 2, (size as isize - 1) / 2);
    for line in 0..lines {
        let value = |i: isize| {
            f64::from(values[(i.clamp(0, length as isize - 1) as usize) * step + line * pitch])
        };
        let mut sum: f64 = (-before..=after).map(value).sum();
        for i in 0..length {
            out[i * step + line * pitch] = (sum / size as f64) as f32;
            sum += value(i as isize + after + 1) - value(i as isize - before);
        }
    }
    out
}

/// Edges with their names, so that no order has to be known.
pub(super) fn named([left, top, right, bottom]: &[f64; 4]) -> String {
    format!("left {left}, top {top}, right {right}, bottom {bottom}")
}

/// What edges (left, top, right, bottom) of a box on any picture are to be, where these are not.
pub(super) fn check_edges(edges: &[f64; 4]) -> Result<(), &'static str> {
    let [left, top, right, bottom] = *edges;
    if !edges.iter().all(|v| v.is_finite() && *v >= 0.0) {
        return Err("left, top, right and bottom as fractions or pixels, none below 0");
    }
    match left < right && top < bottom {
        true => Ok(()),
        false => Err("left before right and top before bottom"),
    }
}
