//! What a pass takes of a card at least, without the card: kernels as they would be dispatched
//! there, the operations and bytes of each, and the times that public figures of the card allow.

use std::collections::HashMap;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;
use serde_json::json;

use super::cards::{Card, Figures};
use super::models::{Options, Part, built};
use super::{Result, Terminal};
use crate::cli::Global;
use mixofshow::backend::wgpu::{
    self, ActivationUse, Buffer, BufferView, Command, Gpu, Held, Matrices, MatrixUse, Scalar,
    Schedule, Selection, Slice, Storage, Traits, weight_bytes,
};
use mixofshow::graph::{Element, Limits, Plan, Quant};

/// All calls of one operation.
#[derive(Clone, Debug, Default, Serialize)]
struct Line {
    what: String,
    calls: u64,
    gigaflops: f64,
    gigabytes: f64,
    /// At the greater of both bounds, call by call.
    microseconds: f64,
    /// Those of them that arithmetic takes.
    arithmetic: f64,
    /// Where a call of fewer workgroups than the card has multiprocessors gets no more than their
    /// share of it.
    filled: f64,
    by_matrices: bool,
}

/// Made by matrices of 16 x 16, with subgroups of 32: what NVIDIA's cards have.
fn traits(global: &Global) -> Traits {
    let matrices = Matrices { size: 16, lanes: 32, varying: false, attention: true, wide: true };
    let with = global.matrices != MatrixUse::Off;
    Traits {
        limits: Limits { max_binding: 4 << 30, max_buffer: 64 << 30, alignment: 256 },
        workgroup_memory: 48 << 10,
        schedule: if with { Schedule::Matrices(matrices) } else { Schedule::Staged },
        halves: match global.activations {
            ActivationUse::Auto => with,
            ActivationUse::F16 => true,
            ActivationUse::F32 => false,
        },
        tuned: wgpu::Tuned::STANDARD,
    }
}

pub fn run(
    card: Card,
    part: Part,
    options: &Options,
    global: &Global,
    terminal: &Terminal,
) -> Result<()> {
    let figures = card.figures();
    let (mut graph, outputs) = built(part, options, global.matrices != MatrixUse::Off)?;
    if !options.f32 {
        graph.round_activations();
        graph.hold_halves();
    }
    let traits = traits(global);
    let plan = Plan::new(&graph, &outputs, &traits);
    let gpu = Gpu::open(&wgpu::Options {
        selection: Selection::Noop(Box::default()),
        floor: true,
        ..wgpu::Options::default()
    })
    .map_err(mixofshow::backend::Error::from)?;
    let small: Arc<Buffer> = gpu.buffer("stand-in", 16).map_err(mixofshow::backend::Error::from)?;
    let stand_in = |size: u64| Slice { buffer: small.clone(), offset: 0, size };
    let storage = |storage: Storage<'_>| {
        Ok(match storage {
            Storage::Arena(arena) => BufferView {
                slice: stand_in(plan.arenas[arena]),
                scalar: Scalar::F32,
                held: Held::F32,
            },
            Storage::Input(tensor) => {
                let is_float = graph.node(tensor).element == Element::F32;
                let scalar = if is_float { Scalar::F32 } else { Scalar::U32 };
                let slice = stand_in(plan.bytes(&graph, tensor));
                BufferView { slice, scalar, held: Held::F32 }
            }
            Storage::Weight { shape, layout, .. } => {
                let held = match (options.f32, options.q8_0, options.q4_0) {
                    (true, ..) => Held::F32,
                    (_, true, _) if Quant::suits(shape) => Held::Blocks(Quant::Q8_0),
                    (_, _, true) if Quant::suits(shape) => Held::Blocks(Quant::Q4_0),
                    _ => Held::F16,
                };
                let held = held.suited(layout, shape);
                let slice = stand_in(weight_bytes(shape, layout, held));
                BufferView { slice, scalar: held.scalar(), held }
            }
        })
    };
    let commands = wgpu::commands(&graph, &plan, &traits, &storage)?;
    let lines = lines(&commands, &figures);
    let all = total(&lines);
    let activations = plan.activation_bytes();
    if options.json {
        return terminal.print_json(&json!({
            "card": figures, "part": format!("{part:?}").to_lowercase(),
            "preset": options.preset, "size": options.size, "batch": options.batch,
            "commands": commands.len(), "activation_bytes": activations,
            "whole": all, "rows": lines,
        }));
    }
    terminal.note(format!(
        "{}, as its maker says: {} TFLOP/s by matrices (f16, sums in f32), {} without, {} GB/s. No \
            card computed anything: times are the least that these figures allow, without what a \
            dispatch costs",
        figures.name, figures.matrices, figures.plain, figures.gigabytes
    ));
    terminal.note(format!(
        "{:.2} ms a pass at least, {:.2} as workgroups fill its {} multiprocessors; {:.0} GFLOP, \
            {:.2} GB, {} commands, {} MiB activations",
        all.microseconds * 1e-3,
        all.filled * 1e-3,
        figures.multiprocessors,
        all.gigaflops,
        all.gigabytes,
        commands.len(),
        activations >> 20
    ));
    terminal.print(table(&lines, &all))
}

fn lines(commands: &[Command], figures: &Figures) -> Vec<Line> {
    let mut lines: HashMap<String, Line> = HashMap::new();
    for command in commands {
        let (what, kernel, flops, bytes, workgroups) = match command {
            Command::Dispatch { label, kernel, flops, bytes, grid, .. } => {
                let workgroups = grid.iter().map(|&n| u64::from(n)).product::<u64>();
                (label.as_str(), *kernel, *flops as f64, *bytes as f64, workgroups)
            }
            Command::Copy { from, .. } => ("copy", "copy", 0.0, 2.0 * from.size as f64, u64::MAX),
        };
        let by_matrices = kernel.contains("_matrices");
        let rate = if by_matrices { figures.matrices } else { figures.plain };
        let arithmetic = flops / rate * 1e-6;
        let line = lines.entry(what.to_string()).or_default();
        line.calls += 1;
        line.gigaflops += flops * 1e-9;
        line.gigabytes += bytes * 1e-9;
        line.arithmetic += arithmetic;
        let least = arithmetic.max(bytes / figures.gigabytes * 1e-3);
        line.microseconds += least;
        let share = workgroups.max(1) as f64 / f64::from(figures.multiprocessors);
        line.filled += least / share.min(1.0);
        line.by_matrices = by_matrices;
    }
    let named = |(what, line)| Line { what, ..line };
    let mut lines: Vec<Line> = lines.into_iter().map(named).collect();
    lines.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds).then(a.what.cmp(&b.what)));
    lines
}

fn total(lines: &[Line]) -> Line {
    let sum = |of: fn(&Line) -> f64| lines.iter().map(of).sum();
    Line {
        what: "whole pass".into(),
        calls: lines.iter().map(|line| line.calls).sum(),
        gigaflops: sum(|line| line.gigaflops),
        gigabytes: sum(|line| line.gigabytes),
        microseconds: sum(|line| line.microseconds),
        arithmetic: sum(|line| line.arithmetic),
        filled: sum(|line| line.filled),
        by_matrices: false,
    }
}

fn table(lines: &[Line], all: &Line) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "operation",
        "calls",
        "GFLOP",
        "GB",
        "us at least",
        "of it arithmetic",
        "us as workgroups fill it",
        "",
    ]);
    for line in std::iter::once(all).chain(lines) {
        table.add_row([
            line.what.clone(),
            line.calls.to_string(),
            format!("{:.1}", line.gigaflops),
            format!("{:.3}", line.gigabytes),
            format!("{:.0}", line.microseconds),
            format!("{:.0}", line.arithmetic),
            format!("{:.0}", line.filled),
            if line.by_matrices { "matrices" } else { "" }.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_greater_of_arithmetic_and_memory() {
        let figures = Figures {
            name: "it",
            matrices: 10.0,
            plain: 1.0,
            gigabytes: 100.0,
            multiprocessors: 4,
        };
        let dispatch = |kernel, flops, bytes| Command::Dispatch {
            kernel,
            params: Default::default(),
            bindings: Vec::new(),
            uniforms: Vec::new(),
            grid: [1; 3],
            label: kernel.into(),
            flops,
            bytes,
        };
        let commands = [
            dispatch("matmul_matrices", 20_000_000_000, 1_000),
            dispatch("copy", 0, 500_000_000),
            dispatch("matmul_matrices", 0, 100_000_000),
            dispatch("geglu", 1_000_000_000, 1_000),
        ];
        let lines = lines(&commands, &figures);
        let found: Vec<_> =
            lines.iter().map(|l| (l.what.as_str(), l.calls, l.microseconds.round())).collect();
        assert_eq!(
            found,
            [("copy", 1, 5000.0), ("matmul_matrices", 2, 3000.0), ("geglu", 1, 1000.0)]
        );
        assert_eq!(total(&lines).microseconds.round(), 9000.0);
        // Each is one workgroup, of four.
        assert_eq!(total(&lines).filled.round(), 36000.0);
    }
}
