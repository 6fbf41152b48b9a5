//! Where a pass spends its time: a flame graph by layer, and a trace for Chrome's viewer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use mixofshow::backend::{Cost, Timed};
use mixofshow::checkpoint::output;
use mixofshow::html_escaped as escaped;
use serde_json::json;

use super::Result;
use super::peak::Peak;

#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
struct Unwritten {
    path: PathBuf,
    error: std::io::Error,
}

/// Writes both into `folder`: their paths. `note` stands beside them.
pub fn write(
    folder: &Path,
    title: &str,
    note: &str,
    timeline: &[Timed],
    peak: &Peak,
) -> Result<[PathBuf; 2]> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Unwritten { path, error }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let paths = [folder.join("profile.svg"), folder.join("trace.json")];
    let texts = [flames(title, note, timeline, peak), trace(title, note, timeline, peak)];
    for (path, text) in paths.iter().zip(&texts) {
        output::write(path, |out| out.write_all(text.as_bytes())).map_err(failed(path))?;
    }
    Ok(paths)
}

/// Seconds that so much work takes at least.
fn at_roofline(cost: &Cost, peak: &Peak) -> f64 {
    let (flops, bytes) = (cost.flops as f64 * 1e-9, cost.bytes as f64 * 1e-9);
    (flops / peak.gflops.max(1e-9)).max(bytes / peak.gigabytes.max(1e-9))
}

/// Complete events, one after the other, as `chrome://tracing` and Perfetto read them.
fn trace(title: &str, note: &str, timeline: &[Timed], peak: &Peak) -> String {
    let mut start = 0.0;
    let mut events = vec![json!({
        "name": "process_name", "ph": "M", "pid": 1, "args": { "name": title },
    })];
    events.push(json!({
        "name": "process_labels", "ph": "M", "pid": 1, "args": { "labels": note },
    }));
    for timed in timeline {
        let micros = timed.cost.seconds * 1e6;
        events.push(json!({
            "name": timed.what, "cat": "kernel", "ph": "X", "pid": 1, "tid": 1,
            "ts": start, "dur": micros,
            "args": {
                "layer": timed.layer, "flops": timed.cost.flops, "bytes": timed.cost.bytes,
                "microseconds_at_roofline": at_roofline(&timed.cost, peak) * 1e6,
            },
        }));
        start += micros;
    }
    let trace = json!({
        "traceEvents": events, "displayTimeUnit": "ms", "otherData": { "note": note },
    });
    trace.to_string()
}

/// A layer with what is inside of it.
#[derive(Default)]
struct Flame {
    cost: Cost,
    /// At the roofline.
    least: f64,
    inside: BTreeMap<String, Flame>,
}

impl Flame {
    fn add(&mut self, path: &[&str], cost: &Cost, least: f64) {
        self.cost.calls += cost.calls;
        self.cost.seconds += cost.seconds;
        self.cost.flops += cost.flops;
        self.cost.bytes += cost.bytes;
        self.least += least;
        if let Some((first, rest)) = path.split_first() {
            self.inside.entry(first.to_string()).or_default().add(rest, cost, least);
        }
    }

    fn depth(&self) -> usize {
        1 + self.inside.values().map(Flame::depth).max().unwrap_or(0)
    }
}

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
/// Narrower flames have no place for a name.
const NARROW: f64 = 30.0;

fn flames(title: &str, note: &str, timeline: &[Timed], peak: &Peak) -> String {
    let mut root = Flame::default();
    for timed in timeline {
        let layers = timed.layer.split('.').filter(|part| !part.is_empty());
        let path: Vec<&str> = layers.chain([timed.what.as_str()]).collect();
        root.add(&path, &timed.cost, at_roofline(&timed.cost, peak));
    }
    let height = ROW * (root.depth() as f64 + 2.5);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<text x=\"4\" y=\"13\">{}: {:.1} ms, {:.1} \
         ms at the roofline</text>\n<text x=\"4\" y=\"31\">{}</text>\n",
        escaped(title),
        root.cost.seconds * 1e3,
        root.least * 1e3,
        escaped(note)
    );
    let scale = WIDTH / root.cost.seconds.max(1e-12);
    draw(&root, "all", 0.0, 2, scale, root.cost.seconds, &mut out);
    out.push_str("</svg>\n");
    out
}

/// One flame and those inside of it: red where time is lost, green at the roofline.
fn draw(flame: &Flame, name: &str, x: f64, row: usize, scale: f64, whole: f64, out: &mut String) {
    let width = flame.cost.seconds * scale;
    if width < 0.3 {
        return;
    }
    let share = (flame.least / flame.cost.seconds.max(1e-12)).clamp(0.0, 1.0);
    let y = ROW * row as f64 + 2.0;
    let _ = write!(
        out,
        "<g><title>{}: {:.3} ms, {:.1} % of the time, {} calls; {:.3} ms at the roofline</title>\
         <rect x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\" fill=\"hsl({:.0} 70% 72%)\" \
         stroke=\"#fff\" stroke-width=\"0.4\"/>",
        escaped(name),
        flame.cost.seconds * 1e3,
        100.0 * flame.cost.seconds / whole.max(1e-12),
        flame.cost.calls,
        flame.least * 1e3,
        width,
        ROW - 1.0,
        120.0 * share
    );
    if width > NARROW {
        let letters = (width / 6.5) as usize;
        let shown: String = name.chars().take(letters).collect();
        let _ =
            write!(out, "<text x=\"{:.2}\" y=\"{}\">{}</text>", x + 3.0, y + 12.0, escaped(&shown));
    }
    out.push_str("</g>\n");
    let mut at = x;
    for (name, inner) in &flame.inside {
        draw(inner, name, at, row + 1, scale, whole, out);
        at += inner.cost.seconds * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_where_it_was_spent() {
        let timed = |layer: &str, what: &str, seconds: f64| Timed {
            what: what.into(),
            layer: layer.into(),
            cost: Cost { calls: 1, seconds, flops: 1000, bytes: 100 },
        };
        let timeline = [
            timed("down.0", "conv<2>", 0.003),
            timed("down.1", "linear", 0.001),
            timed("", "add", 0.001),
        ];
        let peak = Peak { gflops: 1.0, gigabytes: 1.0 };
        let svg = flames("it", "one by one", &timeline, &peak);
        assert!(svg.contains("down: 4.000 ms, 80.0 % of the time, 2 calls"), "{svg}");
        assert!(svg.contains(">one by one</text>"), "{svg}");
        assert!(svg.contains("conv&lt;2&gt;: 3.000 ms"), "{svg}");
        let trace: serde_json::Value =
            serde_json::from_str(&trace("it", "one by one", &timeline, &peak)).unwrap();
        let last = &trace["traceEvents"][4];
        assert_eq!(trace["otherData"]["note"], "one by one");
        assert_eq!(last["name"], "add");
        assert!((last["ts"].as_f64().unwrap() - 4000.0).abs() < 1e-6, "{last}");
    }
}
