//! Layouts as text: TOML files of users, JSON in the files of pictures. Keys are the same.
use crate::numbers::counted;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Area, Layout, MOST_CORNERS, Region};

#[derive(Clone, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StoredLayout {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    isolate: bool,
    #[serde(skip_serializing_if = "is_default")]
    published: bool,
    region: Vec<StoredRegion>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRegion {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    negative: Option<String>,
    // Lists of any length, for a list of fixed length takes a longer one and drops the rest without
    // a word.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    edges: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polygon: Option<Vec<Vec<f64>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mask: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "is_default")]
    soft: f64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    order: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    base: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    start: f64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    end: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    concepts: BTreeMap<String, f32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    controls: BTreeMap<String, f32>,
}

/// As many numbers as there have to be.
fn exactly<const N: usize>(
    numbers: &[f64],
    what: &str,
    expected: &str,
) -> Result<[f64; N], String> {
    numbers.try_into().map_err(|_| {
        format!("{what} has {}, expected {N}: {expected}", counted(numbers.len(), "number"))
    })
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TryFrom<StoredLayout> for Layout {
    type Error = String;

    fn try_from(stored: StoredLayout) -> Result<Layout, String> {
        let StoredLayout { prompt, negative, isolate, published, region } = stored;
        let regions = region.into_iter().enumerate().map(|(index, region)| {
            let name = region.name.clone().unwrap_or_else(|| (index + 1).to_string());
            Region::try_from(region).map_err(|problem| format!("region `{name}`: {problem}"))
        });
        Ok(Layout {
            prompt,
            negative,
            isolate,
            published,
            regions: regions.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<StoredRegion> for Region {
    type Error = String;

    fn try_from(stored: StoredRegion) -> Result<Region, String> {
        let StoredRegion { name, prompt, negative, edges, polygon, mask, .. } = stored;
        let area = match (edges, polygon, mask) {
            (None, None, None) => Area::Whole,
            (Some(edges), None, None) => {
                Area::Box(exactly(&edges, "`box`", "left, top, right, bottom")?)
            }
            (None, Some(corners), None) => {
                if corners.len() > MOST_CORNERS {
                    return Err(format!(
                        "`polygon` has {} corners, expected {MOST_CORNERS} at most",
                        corners.len()
                    ));
                }
                let corner = |(i, corner): (usize, &Vec<f64>)| {
                    exactly(corner, &format!("corner {} of `polygon`", i + 1), "x, y")
                };
                Area::Polygon(corners.iter().enumerate().map(corner).collect::<Result<_, _>>()?)
            }
            (None, None, Some(path)) => Area::Mask(path),
            _ => return Err("it has more than one of `box`, `polygon` and `mask`".into()),
        };
        let StoredRegion { soft, weight, order, base, start, end, concepts, controls, .. } = stored;
        Ok(Region {
            name,
            prompt,
            negative,
            area,
            soft,
            weight,
            order,
            base,
            start,
            end,
            concepts,
            controls,
        })
    }
}

impl From<Layout> for StoredLayout {
    fn from(layout: Layout) -> StoredLayout {
        let Layout { prompt, negative, isolate, published, regions } = layout;
        let region = regions.into_iter().map(StoredRegion::from).collect();
        StoredLayout { prompt, negative, isolate, published, region }
    }
}

impl From<Region> for StoredRegion {
    fn from(region: Region) -> StoredRegion {
        let Region {
            name,
            prompt,
            negative,
            area,
            soft,
            weight,
            order,
            base,
            start,
            end,
            concepts,
            controls,
        } = region;
        let (edges, polygon, mask) = match area {
            Area::Whole => (None, None, None),
            Area::Box(edges) => (Some(edges.to_vec()), None, None),
            Area::Polygon(corners) => {
                (None, Some(corners.iter().map(|corner| corner.to_vec()).collect()), None)
            }
            Area::Mask(path) => (None, None, Some(path)),
        };
        StoredRegion {
            name,
            prompt,
            negative,
            edges,
            polygon,
            mask,
            soft,
            weight,
            order,
            base,
            start,
            end,
            concepts,
            controls,
        }
    }
}
