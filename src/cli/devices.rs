//! `mos devices`
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table};
use mixofshow::backend::wgpu::{self as gpu, AdapterReport};
use serde::Serialize;

use super::terminal::Terminal;
use super::{Global, Result, units};

/// List the graphics adapters of this machine
///
/// Lists every adapter of every back end: its limits, the features that matter here, how numbers are held and which kind of
/// kernels would run on it. Cooperative matrices are tested where they are to be used (--matrices). A star marks the one that is
/// used unless --adapter or MOS_ADAPTER says otherwise.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    adapter: &'a AdapterReport,
    /// Whether it would be used, the options being as they are.
    chosen: bool,
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let mut adapters = gpu::list();
    adapters.iter_mut().for_each(|adapter| adapter.try_matrices(global.matrices));
    let chosen = gpu::choose(&adapters, &global.selection())?;
    if arguments.json {
        let listed: Vec<Listed> = adapters.iter().map(|adapter| Listed { adapter, chosen: adapter.index == chosen }).collect();
        return terminal.print_json(&listed);
    }
    terminal.print(table(&adapters, chosen).trim_fmt())?;
    if adapters.iter().any(|adapter| adapter.schedule == "vectors" && adapter.subgroups == Some((8, 8))) && has_wider_vectors() {
        terminal.note(
            "\nThis processor has AVX-512, which Mesa's software driver does not use by itself. LP_NATIVE_VECTOR_WIDTH=512 in the \
             environment makes it: a fifth less time for full-size models where that was measured (Zen 5), and at times longer to compile.",
        );
    }
    terminal.note("\n* used now; --adapter NUMBER (or a part of the name) and MOS_ADAPTER choose another");
    Ok(())
}

/// Whether the processor has vectors of 512 bits.
fn has_wider_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// A column for each adapter, so that what differs stands side by side.
fn table(adapters: &[AdapterReport], chosen: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let title = |a: &AdapterReport| format!("{}{}  {}", a.index, if a.index == chosen { "*" } else { " " }, a.name);
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_string();
    let mut row = |name: &str, value: &dyn Fn(&AdapterReport) -> String| {
        table.add_row(std::iter::once(Cell::new(name)).chain(adapters.iter().map(|a| Cell::new(value(a)))));
    };
    row("", &title);
    row("type", &|a| a.kind.to_string());
    row("vendor", &|a| a.vendor.clone());
    row("driver", &|a| a.driver.clone());
    row("back end", &|a| a.backend.clone());
    row("largest buffer", &|a| units::bytes(a.max_buffer));
    row("largest binding", &|a| units::bytes(a.max_binding));
    row("bindings in a kernel", &|a| a.storage_buffers.to_string());
    row("workgroup", &|a| format!("{} invocations, {}", a.workgroup_invocations, units::bytes(a.workgroup_memory.into())));
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
    row("timestamps", &|a| yes_no(a.timestamps));
    row("precision", &|a| a.precision.to_string());
    row("kernels", &|a| match a.schedule {
        "registers" => "tiles in registers".to_string(),
        "passed" => "tiles in registers, operands passed round subgroups".to_string(),
        "vectors" => "straight code for vectors".to_string(),
        "staged" => "tiles in workgroup memory".to_string(),
        "matrices" => "tiles in workgroup memory, products of cooperative matrices".to_string(),
        other => other.to_string(),
    });
    table
}
