//! Line plots: how something went, as a picture.
use super::font::{LETTER, wrap};
use super::{Error, Picture, Result, check_size};

const PAPER: [u8; 3] = [255, 255, 255];
const AXIS: [u8; 3] = [120, 120, 120];
const GRID: [u8; 3] = [232, 232, 232];
/// Pixels around the field, and between texts and lines.
const MARGIN: u32 = 10;
const MOST_LINES: u32 = 6;

/// A line of a plot.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What the legend calls it.
    pub label: String,
    /// Red, green, blue.
    pub colour: [u8; 3],
    /// One value for each place from 0 on; what is no number is left out.
    pub values: Vec<f32>,
}

/// Values over their number, all lines on the same axes, the vertical one in powers of ten where
/// asked for.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// Above the plot.
    pub title: String,
    /// In the order in which they are drawn, the last one on top.
    pub lines: Vec<Line>,
    /// Of the picture, in pixels.
    pub width: u32,
    /// Of the picture, in pixels.
    pub height: u32,
    /// The vertical axis is logarithmic; values up to 0 are left out.
    pub logarithmic: bool,
    /// How many places the horizontal axis has; at least as many as the longest line.
    pub places: usize,
}

impl Plot {
    /// Draws the plot.
    ///
    /// # Errors
    /// A size that no picture has, or that leaves no room for the lines.
    pub fn draw(&self) -> Result<Picture> {
        check_size(self.width, self.height)?;
        let left = MARGIN + 8 * LETTER;
        let top = MARGIN + 2 * (LETTER + 4);
        let bottom = self.height.saturating_sub(MARGIN + LETTER + 6);
        let right = self.width.saturating_sub(MARGIN);
        if right < left + 16 || bottom < top + 16 {
            return Err(Error::Size { width: self.width.into(), height: self.height.into() });
        }
        let mut canvas = Picture::filled(self.width, self.height, PAPER)?;
        canvas.text(&self.title, MARGIN, MARGIN);
        let mut x = MARGIN;
        for line in &self.lines {
            canvas.fill(x, MARGIN + LETTER + 7, 10, 3, line.colour);
            canvas.text(&line.label, x + 14, MARGIN + LETTER + 4);
            x = x.saturating_add(14 + LETTER * (line.label.chars().count() as u32 + 2));
        }
        let scale = |value: f32| if self.logarithmic { value.log10() } else { value };
        let usable = |value: &&f32| value.is_finite() && (!self.logarithmic || **value > 0.0);
        let shown = || {
            self.lines
                .iter()
                .flat_map(|line| line.values.iter().filter(usable))
                .map(|value| scale(*value))
        };
        let (mut low, mut high) =
            shown().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-6 * high.abs().max(1e-6) {
            (low, high) = (low - 0.5 * low.abs().max(1e-6), high + 0.5 * high.abs().max(1e-6));
        }
        let y_of = |value: f32| {
            bottom - ((value - low) / (high - low) * (bottom - top) as f32).round() as u32
        };
        let lines = MOST_LINES.min((bottom - top) / (2 * LETTER)).max(2);
        for i in 0..lines {
            let value = low + (high - low) * i as f32 / (lines - 1) as f32;
            let y = y_of(value);
            canvas.fill(left, y, right - left, 1, GRID);
            let shown = if self.logarithmic { 10f32.powf(value) } else { value };
            canvas.text(&short(shown), MARGIN, y.saturating_sub(LETTER / 2));
        }
        canvas.fill(left, top, 1, bottom - top, AXIS);
        canvas.fill(left, bottom, right - left, 1, AXIS);
        let longest = self
            .lines
            .iter()
            .map(|line| line.values.len())
            .max()
            .unwrap_or(0)
            .max(self.places)
            .max(2);
        let last = (longest - 1).to_string();
        canvas.text("0", left, bottom + 6);
        canvas.text(&last, right.saturating_sub(LETTER * last.len() as u32), bottom + 6);
        let x_of = |place: usize| {
            left + (place as f64 / (longest - 1) as f64 * f64::from(right - left - 1)).round()
                as u32
        };
        for line in &self.lines {
            let mut before: Option<(u32, u32)> = None;
            for (place, value) in line.values.iter().enumerate().filter(|(_, value)| usable(value))
            {
                let here = (x_of(place), y_of(scale(*value)));
                canvas.stroke(before.unwrap_or(here), here, line.colour);
                before = Some(here);
            }
        }
        Ok(canvas)
    }
}

/// A figure of at most eight letters.
fn short(value: f32) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (0.01..10_000.0).contains(&size) => {
            let digits = (2 - size.log10().floor() as i32).clamp(0, 4) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.1e}"),
    }
}

impl Picture {
    fn text(&mut self, text: &str, x: u32, y: u32) {
        let room = (self.width().saturating_sub(x) / LETTER).max(1) as usize;
        self.write(&wrap(text, room, 1), x, y, 1);
    }

    fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, colour: [u8; 3]) {
        if let Ok(area) = Picture::filled(width.max(1), height.max(1), colour) {
            self.paste(&area, x, y);
        }
    }

    /// A straight line, two pixels wide (Bresenham 1965).
    fn stroke(&mut self, from: (u32, u32), to: (u32, u32), colour: [u8; 3]) {
        let (mut x, mut y) = (i64::from(from.0), i64::from(from.1));
        let (end_x, end_y) = (i64::from(to.0), i64::from(to.1));
        let (dx, dy) = ((end_x - x).abs(), -(end_y - y).abs());
        let mut error = dx + dy;
        loop {
            self.fill(x as u32, y as u32, 2, 2, colour);
            if (x, y) == (end_x, end_y) {
                return;
            }
            let twice = 2 * error;
            if twice >= dy {
                error += dy;
                x += (end_x - x).signum();
            }
            if twice <= dx {
                error += dx;
                y += (end_y - y).signum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [200, 0, 0];

    fn plot(values: Vec<f32>) -> Plot {
        let line = Line { label: "loss".into(), colour: RED, values };
        Plot {
            title: "a run".into(),
            lines: vec![line],
            width: 200,
            height: 120,
            ..Plot::default()
        }
    }

    /// Places of the line's pixels in the field, below the legend.
    fn reds(picture: &Picture) -> Vec<(u32, u32)> {
        let places = (30..120).flat_map(|y| (0..200).map(move |x| (x, y)));
        places.filter(|&(x, y)| picture.pixel(x, y) == Some(RED)).collect()
    }

    #[test]
    fn a_falling_line_falls() {
        let drawn = plot(vec![4.0, 3.0, 2.0, 1.0]).draw().unwrap();
        let found = reds(&drawn);
        let y_at =
            |x| found.iter().filter(|place| place.0 == x).map(|place| place.1).min().unwrap();
        let (first, last) =
            (found.iter().map(|p| p.0).min().unwrap(), found.iter().map(|p| p.0).max().unwrap());
        assert!(first < 90 && last > 180);
        assert!(y_at(first) + 40 < y_at(last));
        // Every column has a part of it.
        assert!((first..=last).all(|x| found.iter().any(|place| place.0 == x)));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        for values in [
            vec![],
            vec![f32::NAN],
            vec![1.0, f32::NAN, f32::INFINITY, 2.0],
            vec![3.0; 5],
            vec![0.0],
        ] {
            let picture = plot(values.clone()).draw().unwrap();
            assert_eq!(
                reds(&picture).is_empty(),
                values.iter().all(|v| !v.is_finite()),
                "{values:?}"
            );
        }
        let logarithmic = Plot { logarithmic: true, ..plot(vec![-1.0, 0.0, 1.0, 100.0]) };
        assert!(!reds(&logarithmic.draw().unwrap()).is_empty());
        assert!(Plot { width: 20, ..plot(vec![]) }.draw().is_err());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.0, 0.5, 0.05123, 12.345, 1234.5, 1e-5, 2e7].map(short),
            ["0", "0.500", "0.0512", "12.3", "1234", "1.0e-5", "2.0e7"]
        );
    }
}
