//! A page of measurements: the table, and where each stands under the roof.

use std::fmt::Write;

use mixofshow::html_escaped as escaped;
use mixofshow::workbench::{BenchReport, Spec};

use super::told::{beside, describe, seconds};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 6] = ["#0b66c3", "#c3450b", "#2a8f3c", "#8f2a86", "#a08a00", "#555555"];

/// The whole page, which needs nothing else.
pub fn page(spec: &Spec, report: &BenchReport) -> String {
    let mut out = String::new();
    let title = escaped(&format!("{}: {}", spec.name, spec.what));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:15px sans-serif;max-width:64em;margin:2em auto;padding:0 1em}}\
         table{{border-collapse:collapse;width:100%}}td,th{{padding:.3em .6em;text-align:right;\
         border-bottom:1px solid #ccc;white-space:nowrap}}td:first-child,td:nth-child(2),\
         td:last-child,th:first-child,th:nth-child(2),th:last-child{{text-align:left;\
         white-space:normal}}svg{{width:100%;height:auto}}</style>\n\
         <h1>{title}</h1>\n<p>{}</p>\n",
        escaped(&describe(report))
    );
    out.push_str(&plot(report));
    out.push_str(
        "<table><tr><th>kernel<th>sizes<th>median<th>p20<th>p80<th>GFLOP/s<th>GB/s<th>of \
         roofline<th>beside the first</tr>\n",
    );
    for one in &report.measured {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.2}<td>{:.2}<td>{:.0} %<td>{}</tr>",
            escaped(&one.kernel),
            escaped(&one.sizes),
            seconds(one.median),
            seconds(one.p20),
            seconds(one.p80),
            one.flops / one.median * 1e-9,
            one.bytes / one.median * 1e-9,
            one.roofline * 100.0,
            escaped(&beside(one))
        );
    }
    out.push_str("</table>\n");
    for note in &report.notes {
        let _ = writeln!(out, "<p>Note: {}</p>", escaped(note));
    }
    out.push_str("</html>\n");
    out
}

/// Decades between two numbers.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        Axis { low: low.floor(), high: high.ceil().max(low.floor() + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.max(1e-30).log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// Where lines are drawn: at powers of ten, and between them where those are few.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let between: &[f64] = if self.high - self.low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let highest = 10f64.powf(self.high) * 1.001;
        let decades = (self.low as i32..=self.high as i32).map(|exponent| 10f64.powi(exponent));
        let all = decades.flat_map(|decade| between.iter().map(move |by| by * decade));
        all.filter(move |tick| *tick <= highest)
    }
}

/// A tick's number without what computing made of it.
fn plain(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// GFLOP/s over FLOP a byte, both by decades, with the roof and a point for each measurement.
fn plot(report: &BenchReport) -> String {
    let (flops, bytes) = (report.peak.flops, report.peak.bytes);
    let points = || report.measured.iter().filter(|one| one.flops > 0.0);
    let ridge = flops / bytes;
    let x = Axis::of(
        points().map(|one| one.flops / one.bytes).chain([ridge * 0.5, ridge * 2.0]),
        LEFT,
        WIDTH - 10.0,
    );
    let y = Axis::of(
        points().map(|one| one.flops / one.median * 1e-9).chain([flops * 1e-9]),
        HEIGHT - BOTTOM,
        10.0,
    );
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for value in x.ticks() {
        let at = x.at(value);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} 10V{:.1}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            plain(value)
        );
    }
    for value in y.ticks() {
        let at = y.at(value);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            at + 4.0,
            plain(value)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">FLOP a byte</text><text x=\"{LEFT}\" \
         y=\"10\">GFLOP/s</text>",
        (LEFT + WIDTH) / 2.0,
        HEIGHT - 6.0
    );
    let (low, high) = (10f64.powf(x.low), 10f64.powf(x.high));
    let under = |intensity: f64| (intensity * bytes).min(flops) * 1e-9;
    let corner = ridge.clamp(low, high);
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}\" fill=\"none\" stroke=\"#000\" \
         stroke-width=\"1.5\"/>",
        x.at(low),
        y.at(under(low)).min(HEIGHT - BOTTOM),
        x.at(corner),
        y.at(under(corner)),
        x.at(high),
        y.at(under(high))
    );
    let mut names: Vec<&str> = Vec::new();
    for one in points() {
        let known = names.iter().position(|name| *name == one.kernel);
        let number = known.unwrap_or_else(|| {
            names.push(&one.kernel);
            names.len() - 1
        });
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{}\" fill-opacity=\"0.8\"><title>{}: \
             {}</title></circle>",
            x.at(one.flops / one.bytes),
            y.at(one.flops / one.median * 1e-9),
            COLOURS[number % COLOURS.len()],
            escaped(&one.kernel),
            escaped(&one.sizes)
        );
    }
    for (number, name) in names.iter().enumerate() {
        let at = 26.0 + 16.0 * number as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{}\"/><text x=\"{:.1}\" \
             y=\"{at:.1}\">{}</text>",
            LEFT + 14.0,
            at - 4.0,
            COLOURS[number % COLOURS.len()],
            LEFT + 24.0,
            escaped(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_lines_enough() {
        let ticks = |values: &[f64]| -> Vec<String> {
            Axis::of(values.iter().copied(), 0.0, 1.0).ticks().map(plain).collect()
        };
        assert_eq!(ticks(&[11.0, 35.0]), ["10", "20", "50", "100"]);
        assert_eq!(ticks(&[0.3, 250.0]), ["0.1", "1", "10", "100", "1000"]);
        assert_eq!(ticks(&[0.03]), ["0.01", "0.02", "0.05", "0.1"]);
    }
}
