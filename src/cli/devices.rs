//! `mos devices`
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table};
use mixofshow::backend::PROCESSOR;
use mixofshow::backend::cpu::{Cpu, CpuReport};
use mixofshow::backend::wgpu::{self as gpu, AdapterReport};
use serde::Serialize;

use super::terminal::Terminal;
use super::{Global, Result, units};

/// List what can compute on this machine: graphics adapters and the processor
///
/// Lists every adapter of every back end: its limits, the features that matter here, how numbers
/// are held and which kind of kernels would run on it; and last the processor, `cpu`, with its
/// cores, its vector instructions and how fast it multiplies matrices, which is measured.
/// Cooperative matrices are tested where they are to be used (--matrices). A star marks the one
/// that is used unless --adapter or MOS_ADAPTER says otherwise.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<T: Serialize> {
    #[serde(flatten)]
    device: T,
    /// Whether it would be used, the options being as they are.
    chosen: bool,
}

/// The processor as one of the devices.
#[derive(Serialize)]
struct Processor<'a> {
    index: usize,
    kind: &'static str,
    #[serde(flatten)]
    report: &'a CpuReport,
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let mut adapters = gpu::list();
    adapters
        .iter_mut()
        .for_each(|adapter| adapter.try_matrices(global.matrices, global.activations));
    let chosen = global.selection().place(&adapters)?;
    let cpu = Cpu::open(&global.cpu_options())?;
    let report = CpuReport::of(&cpu);
    if arguments.json {
        let listed =
            adapters.iter().map(|device| Listed { device, chosen: device.index == chosen });
        let mut listed: Vec<serde_json::Value> =
            listed.map(serde_json::to_value).collect::<std::result::Result<_, _>>()?;
        let processor = Processor { index: adapters.len(), kind: "processor", report: &report };
        listed.push(serde_json::to_value(Listed {
            device: processor,
            chosen: chosen == adapters.len(),
        })?);
        return terminal.print_json(&listed);
    }
    terminal.print(table(&adapters, &report, chosen).trim_fmt())?;
    terminal.note(
        "\n* used now; --adapter cpu, NUMBER or a part of the name, or MOS_ADAPTER, choose another",
    );
    Ok(())
}

/// A column for each adapter and the processor, so that what differs stands side by side.
fn table(adapters: &[AdapterReport], cpu: &CpuReport, chosen: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let title = |index: usize, name: &str| {
        format!("{index}{}  {name}", if index == chosen { "*" } else { " " })
    };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_string();
    let mut add = |name: &str, value: &dyn Fn(&AdapterReport) -> String, of_cpu: String| {
        let cells = adapters.iter().map(value).chain([of_cpu]);
        table.add_row(std::iter::once(Cell::new(name)).chain(cells.map(Cell::new)));
    };
    add("", &|a| title(a.index, &a.name), title(adapters.len(), PROCESSOR));
    add("type", &|a| a.kind.to_string(), "processor".into());
    add("driver", &|a| a.driver.clone(), "none needed".into());
    add("back end", &|a| a.backend.clone(), PROCESSOR.into());
    add("threads", &|_| String::new(), cpu.threads.to_string());
    add("vectors", &|_| String::new(), format!("{}, {} bits", cpu.instructions, cpu.vector_bits));
    add("matmul, measured", &|_| String::new(), format!("{:.0} GFLOP/s", cpu.gflops));
    add("precision", &|a| a.precision.to_string(), cpu.precision.to_string());
    if adapters.is_empty() {
        return table;
    }
    let mut row =
        |name: &str, value: &dyn Fn(&AdapterReport) -> String| add(name, value, String::new());
    row("vendor", &|a| a.vendor.clone());
    row("largest buffer", &|a| units::bytes(a.max_buffer));
    row("largest binding", &|a| units::bytes(a.max_binding));
    row("bindings in a kernel", &|a| a.storage_buffers.to_string());
    row("workgroup", &|a| {
        format!(
            "{} invocations, {}",
            a.workgroup_invocations,
            units::bytes(a.workgroup_memory.into())
        )
    });
    row("f16 arithmetic", &|a| yes_no(a.f16));
    row("subgroups", &|a| match a.subgroups {
        Some((least, most)) if least == most => format!("of {least}"),
        Some((least, most)) => format!("of {least} to {most}"),
        None => "no".to_string(),
    });
    row("cooperative matrices", &|a| match (a.cooperative_matrices.as_slice(), &a.matrices) {
        ([], _) => "no".to_string(),
        (sizes, None) => sizes.join(", "),
        (sizes, Some(tried)) => format!("{}; {tried}", sizes.join(", ")),
    });
    row("activations", &|a| a.activations.clone().unwrap_or_else(|| "f32".to_string()));
    row("timestamps", &|a| yes_no(a.timestamps));
    row("tile sizes", &|a| a.sizes.clone());
    row("kernels", &|a| match a.schedule {
        "matrices" => "tiles in workgroup memory, matmuls of cooperative matrices".to_string(),
        _ => "tiles in workgroup memory".to_string(),
    });
    table
}
