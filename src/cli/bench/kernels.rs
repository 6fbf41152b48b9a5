//! Kernels one by one, at the shapes of Stable Diffusion 1.x.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::cli::{Failure, Global, values};

use super::{Clock, Row, Terminal, fastest, peak, table};
use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::counted;
use mixofshow::graph::{Graph, Result, StoredAs, Tensor};
use mixofshow::models::preset::MadeUpWeights;

#[derive(Debug, Args)]
pub struct Options {
    /// Only those whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Measurements of each, of which the fastest counts
    #[arg(long, default_value_t = 5, value_parser = values::TIMES.parser::<usize>())]
    repeat: usize,
    /// Clock for all rates [default: cpu where the processor computes, else wall]
    #[arg(long, value_enum)]
    clock: Option<Clock>,
    /// Weights in f32 instead of f16
    #[arg(long)]
    f32: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

type Build = Box<dyn Fn(&mut Graph) -> Result<Tensor>>;

fn linear(rows: usize, into: usize, out: usize) -> (String, Build) {
    let build = move |g: &mut Graph| {
        let x = g.input("x", [1, rows, into]);
        let (w, bias) = (g.parameter("w.weight", [out, into]), g.parameter("w.bias", [out]));
        let y = g.linear(x, w)?;
        g.add(y, bias)
    };
    (format!("linear {rows}x{into} -> {out}"), Box::new(build))
}

fn conv(size: usize, into: usize, out: usize, stride: usize) -> (String, Build) {
    let build = move |g: &mut Graph| {
        let x = g.input("x", [1, size + 2, size + 2, into]);
        let (w, bias) = (g.parameter("w.weight", [out, into, 3, 3]), g.parameter("w.bias", [out]));
        let y = g.conv2d(x, w, stride)?;
        g.add(y, bias)
    };
    (format!("conv 3x3/{stride} {size}x{size}x{into} -> {out}"), Box::new(build))
}

fn attention(tokens: usize, keys: usize, heads: usize, d: usize) -> (String, Build) {
    let build = move |g: &mut Graph| {
        let q = g.input("q", [1, tokens, heads * d]);
        let (k, v) = (g.input("k", [1, keys, heads * d]), g.input("v", [1, keys, heads * d]));
        g.attention(q, k, v, heads, 1.0 / (d as f32).sqrt(), false)
    };
    (format!("attention {tokens}x{keys}, {} of {d}", counted(heads, "head")), Box::new(build))
}

fn norm(size: usize, channels: usize) -> [(String, Build); 2] {
    let group = move |g: &mut Graph| {
        let x = g.input("x", [1, size, size, channels]);
        let (weight, bias) =
            (g.parameter("n.weight", [channels]), g.parameter("n.bias", [channels]));
        let s = g.group_norm_statistics(x, 32, 1e-5)?;
        let y = g.group_norm(x, s, weight, bias)?;
        let y = g.silu(y)?;
        g.pad2d(y, [1; 4])
    };
    let layer = move |g: &mut Graph| {
        let x = g.input("x", [1, size * size, channels]);
        let (weight, bias) =
            (g.parameter("n.weight", [channels]), g.parameter("n.bias", [channels]));
        g.layer_norm(x, weight, bias, 1e-5)
    };
    [
        (format!("group norm + silu + pad {size}x{size}x{channels}"), Box::new(group)),
        (format!("layer norm {}x{channels}", size * size), Box::new(layer)),
    ]
}

fn cases() -> Vec<(String, Build)> {
    let mut cases = vec![
        linear(4096, 320, 320),
        linear(4096, 320, 2560),
        linear(4096, 1280, 320),
        linear(1024, 640, 640),
        linear(256, 1280, 1280),
        linear(64, 1280, 1280),
        linear(77, 768, 320),
        conv(64, 320, 320, 1),
        conv(32, 640, 640, 1),
        conv(16, 1280, 1280, 1),
        conv(8, 1280, 1280, 1),
        conv(4, 1280, 1280, 1),
        conv(64, 320, 320, 2),
        attention(4096, 4096, 8, 40),
        attention(1024, 1024, 8, 80),
        attention(256, 256, 8, 160),
        attention(4096, 77, 8, 40),
        attention(1024, 1024, 1, 512),
    ];
    cases.extend(norm(64, 320));
    cases.push((
        "geglu 4096x2560".into(),
        Box::new(|g: &mut Graph| {
            let x = g.input("x", [4096, 2560]);
            g.geglu(x)
        }),
    ));
    cases.push((
        "concat 64x64x(640 + 320)".into(),
        Box::new(|g: &mut Graph| {
            let (a, b) = (g.input("a", [1, 64, 64, 640]), g.input("b", [1, 64, 64, 320]));
            g.concat_channels(a, b)
        }),
    ));
    cases
}

/// Those that `--only` leaves.
fn selected(only: Option<&str>) -> super::Result<Vec<(String, Build)>> {
    let (chosen, others): (Vec<_>, Vec<_>) =
        cases().into_iter().partition(|(name, _)| only.is_none_or(|only| name.contains(only)));
    match only {
        Some(only) if chosen.is_empty() => {
            let names: Vec<String> =
                others.into_iter().map(|(name, _)| format!("\n  {name}")).collect();
            Err(Failure::Usage(format!(
                "--only {only}: no kernel's name contains that; there are{}",
                names.concat()
            )))
        }
        _ => Ok(chosen),
    }
}

pub fn run(options: &Options, global: &Global, terminal: &Terminal) -> super::Result<()> {
    let cases = selected(options.only.as_deref())?;
    let gpu = &global.open()?;
    let clock = options.clock.unwrap_or_else(|| Clock::suited_to(gpu));
    let peak = peak::measure(gpu, clock)?;
    let mut rows = Vec::new();
    for (name, build) in cases {
        let mut graph = Graph::new();
        let y = build(&mut graph)?;
        let stored = if options.f32 { StoredAs::F32 } else { StoredAs::F16 };
        let weights =
            Weights::new(gpu, Arc::new(MadeUpWeights::of(&graph, stored)), Precision::AsStored);
        let program = Program::new(&weights, &graph, &[y])?;
        let seconds = fastest(&program, options.repeat, clock)?;
        rows.push(Row::new(
            name,
            1,
            seconds,
            program.flops() as f64,
            program.bytes() as f64,
            &peak,
        ));
    }
    if options.json {
        return terminal.print_json(
            &json!({ "adapter": gpu.name(), "clock": clock, "peak": peak, "kernels": rows }),
        );
    }
    terminal.note(peak.describe(gpu, clock));
    terminal.print(table("kernel", &rows))
}
