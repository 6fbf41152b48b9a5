//! Latents at another size, as torch's `interpolate` makes them (without aligned corners).

use crate::graph::Array;

/// How latents are enlarged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatentFilter {
    /// Between the four nearest ones.
    #[default]
    Bilinear,
    /// The one above and to the left.
    Nearest,
    /// The one whose middle is nearest.
    NearestExact,
    /// Cubic curves through sixteen of them.
    Bicubic,
}

/// Where a value of the result comes from along one side: places and weights.
type Taps = Vec<(usize, f32)>;

impl LatentFilter {
    fn taps(self, from: usize, to: usize) -> Vec<Taps> {
        let scale = from as f32 / to.max(1) as f32;
        let last = from.saturating_sub(1);
        let held = |place: i64| place.clamp(0, last as i64) as usize;
        let taps = |i: usize| -> Taps {
            let middle = (i as f32 + 0.5) * scale;
            match self {
                Self::Nearest => vec![(((i as f32 * scale) as usize).min(last), 1.0)],
                Self::NearestExact => vec![((middle as usize).min(last), 1.0)],
                Self::Bilinear => {
                    let place = (middle - 0.5).max(0.0);
                    let (low, share) = (place as usize, place - place.floor());
                    vec![(low.min(last), 1.0 - share), ((low + 1).min(last), share)]
                }
                Self::Bicubic => {
                    let place = middle - 0.5;
                    let (low, share) = (place.floor(), place - place.floor());
                    let at = |offset: i64| held(low as i64 + offset);
                    vec![
                        (at(-1), outer(share + 1.0)),
                        (at(0), inner(share)),
                        (at(1), inner(1.0 - share)),
                        (at(2), outer(2.0 - share)),
                    ]
                }
            }
        };
        (0..to).map(taps).collect()
    }

    /// Latents `[batch, height, width, channels]` at another height and width.
    pub fn enlarge(self, latents: &Array, [height, width]: [usize; 2]) -> Array {
        let [batch, from_height, from_width, channels] = latents.shape[..] else {
            return latents.clone();
        };
        let (rows, columns) = (self.taps(from_height, height), self.taps(from_width, width));
        let mut values = Vec::with_capacity(batch * height * width * channels);
        let at = |b: usize, y: usize, x: usize| ((b * from_height + y) * from_width + x) * channels;
        let read = latents.values();
        for b in 0..batch {
            for row in &rows {
                for column in &columns {
                    for channel in 0..channels {
                        let of_row = |y: usize| -> f32 {
                            column.iter().map(|&(x, w)| w * read[at(b, y, x) + channel]).sum()
                        };
                        values.push(row.iter().map(|&(y, w)| w * of_row(y)).sum());
                    }
                }
            }
        }
        Array::f32([batch, height, width, channels], values)
    }
}

/// torch's slope of cubic curves.
const SLOPE: f32 = -0.75;

fn inner(x: f32) -> f32 {
    ((SLOPE + 2.0) * x - (SLOPE + 3.0)) * x * x + 1.0
}

fn outer(x: f32) -> f32 {
    ((SLOPE * x - 5.0 * SLOPE) * x + 8.0 * SLOPE) * x - 4.0 * SLOPE
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn latents_are_enlarged_as_torch_does() {
        let all: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/enlarged.json")).unwrap();
        let numbers = |value: &Value| -> Vec<f32> {
            value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let latents = Array::f32([1, 3, 5, 1], numbers(&all["values"]));
        for case in all["cases"].as_array().unwrap() {
            let filter = match case["mode"].as_str().unwrap() {
                "nearest" => LatentFilter::Nearest,
                "nearest-exact" => LatentFilter::NearestExact,
                "bilinear" => LatentFilter::Bilinear,
                _ => LatentFilter::Bicubic,
            };
            let size = [0, 1].map(|i| case["size"][i].as_u64().unwrap() as usize);
            let found = filter.enlarge(&latents, size);
            for (f, e) in found.values().iter().zip(numbers(&case["values"])) {
                assert!((f - e).abs() < 1e-5, "{filter:?} {size:?}: {f} {e}");
            }
        }
    }
}
