//! A graph on whatever adapter is there, compared with its operations' reference implementations.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use mixofshow::backend::wgpu::{
    AttentionSizes, Gpu, GroupNormSizes, LoraDownSizes, LoraUpSizes, MatmulSizes, Matrices,
    MatrixUse, Options, OuterSumsSizes, Schedule, Selection, Tuned, WeightGradientSizes,
};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::{
    Array, Element, Graph, Origin, ParameterError, ParameterInfo, ParameterSource, Quant, StoredAs,
    Tensor,
};

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "chosen.rs"]
mod chosen;

/// What computes the cases.
pub fn device() -> Device {
    chosen::processor().map_or_else(|| gpu().into(), Device::from)
}

/// Whether it rounds what it multiplies to f16.
pub fn rounds() -> bool {
    chosen::processor().is_none() && matches!(gpu().schedule(), Schedule::Matrices(_))
}

fn gpu() -> Arc<Gpu> {
    static GPU: LazyLock<Arc<Gpu>> = LazyLock::new(open);
    GPU.clone()
}

fn open() -> Arc<Gpu> {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    let wanted = std::env::var("MOS_TEST_SCHEDULE").ok();
    let tuned = match wanted.as_deref() {
        None | Some("staged") => Some(Tuned::STANDARD),
        Some("sizes") => Some(OTHER_SIZES),
        Some("matrices" | "varying") => {
            return open_with_matrices(selection, wanted.as_deref() == Some("varying"));
        }
        Some(other) => panic!(
            "MOS_TEST_SCHEDULE is {other}: expected staged, sizes (staged, with other tile sizes), \
                matrices, or varying (matrices, with twice the subgroups that have work)"
        ),
    };
    let schedule = Some(Schedule::Staged);
    let options =
        Options { selection, checked: true, floor: true, schedule, tuned, ..Options::default() };
    Gpu::open(&options).expect("an adapter")
}

/// Each size another than the standard one: kernels that tuners may ask for.
const OTHER_SIZES: Tuned = Tuned {
    matmul: MatmulSizes { rows: 8, lanes: 16, unroll: 4, staged: 0 },
    attention: AttentionSizes {
        widest_held: 64,
        part: 32,
        lanes_held: 16,
        lanes_parts: 8,
        per_lane: 2,
        widest_narrow: 32,
        block_narrow: 4,
        block_held: 1,
        block_parts: 2,
        staged: 12,
    },
    attention_gradient: AttentionSizes {
        widest_held: 64,
        part: 32,
        lanes_held: 32,
        lanes_parts: 16,
        per_lane: 2,
        widest_narrow: 16,
        block_narrow: 1,
        block_held: 4,
        block_parts: 2,
        staged: 20,
    },
    lora_down: LoraDownSizes { lanes: 16, rows: 2, outputs: 8 },
    lora_up: LoraUpSizes { lanes: 8, rows: 3 },
    weight_gradient: WeightGradientSizes { lanes: 8, shortest_block: 5, most_blocks: 7 },
    group_norm: GroupNormSizes { shortest_chunk: 10, most_chunks: 33 },
    outer_sums: OuterSumsSizes { tiles: 1 },
    ..Tuned::STANDARD
};

/// Cooperative matrices on any adapter that has them; without them a note says so, and nothing is
/// compared.
fn open_with_matrices(selection: Selection, varying: bool) -> Arc<Gpu> {
    let options =
        Options { selection, checked: true, matrices: MatrixUse::On, ..Options::default() };
    let gpu = Gpu::open(&options).expect("an adapter");
    if let Some(why) = gpu.attention_without_matrices() {
        panic!("{}: attention by cooperative matrices: {why}", gpu.name());
    }
    match gpu.matrices() {
        Ok(matrices) if varying => {
            let schedule = Schedule::Matrices(Matrices {
                lanes: 2 * matrices.lanes,
                varying: true,
                ..matrices
            });
            Gpu::open(&Options { schedule: Some(schedule), ..options }).expect("the adapter again")
        }
        Ok(_) => gpu,
        Err(message) if message.contains("has none") => {
            println!("skipped on {}: no cooperative matrices: {message}", gpu.name());
            gpu
        }
        Err(message) => panic!("{}: cooperative matrices: {message}", gpu.name()),
    }
}

/// Uniform in -1 .. 1, from a name and an index.
pub fn noise(name: &str, index: usize) -> f32 {
    let mut h = name
        .bytes()
        .fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
    h = h.wrapping_add(index as u64).wrapping_mul(0x9e3779b97f4a7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d049bb133111eb);
    ((h ^ (h >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Weights made up from their names; those whose name starts with "half" are stored as f16, or with
/// that of a kind of blocks, in such.
pub struct MadeUp(pub HashMap<String, Vec<usize>>);

/// How weights are held that kernels widen, as names of weights begin.
#[allow(dead_code, reason = "not all tests ask for it")]
pub const BLOCKS: [&str; 2] = ["Q8_0", "Q4_0"];

fn quant_of(name: &str) -> Option<Quant> {
    Quant::ALL.into_iter().find(|quant| name.starts_with(quant.name()))
}

/// A block by its number: any numbers, the least ones too, with a factor such that f16 has the
/// products.
fn block(quant: Quant, name: &str, number: usize) -> Vec<u8> {
    let factor = 1.0 + (number % 4) as f32 / 4.0;
    let factor = factor / [256.0, 512.0, 128.0][number % 3] * [1.0, -1.0][number / 12 % 2];
    let factor = if quant == Quant::Q4_0 { factor * 16.0 } else { factor };
    let bytes = (0..quant.size() - 2).map(|i| (noise(name, number * 32 + i) * 128.0) as i8 as u8);
    half::f16::from_f32(factor).to_le_bytes().into_iter().chain(bytes).collect()
}

/// Element `index` of a weight in blocks, as GGUF means it.
fn of_block(quant: Quant, name: &str, index: usize) -> f32 {
    let block = block(quant, name, index / 32);
    let factor = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
    let i = index % 32;
    factor
        * match quant {
            Quant::Q8_0 => f32::from(block[2 + i] as i8),
            Quant::Q4_0 => f32::from(block[2 + i % 16] >> (i / 16 * 4) & 15) - 8.0,
        }
}

impl ParameterSource for MadeUp {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let stored = if name.starts_with("half") { StoredAs::F16 } else { StoredAs::F32 };
        Some(ParameterInfo { shape: self.0.get(name)?.clone(), stored })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        for (value, index) in into.iter_mut().zip(range) {
            if let Some(quant) = quant_of(name) {
                *value = of_block(quant, name, index);
                continue;
            }
            *value = noise(name, index);
            if name.starts_with("half") {
                *value = (*value * 1024.0).round() / 1024.0;
            }
        }
        Ok(())
    }

    fn quant(&self, name: &str) -> Option<Quant> {
        quant_of(name).filter(|_| self.0.get(name).is_some_and(|shape| Quant::suits(shape)))
    }

    fn read_blocks(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), ParameterError> {
        let quant = quant_of(name).expect("a weight in blocks");
        let blocks = range.start / 32..range.end / 32;
        let bytes = blocks.flat_map(|number| block(quant, name, number));
        into.copy_from_slice(&bytes.collect::<Vec<u8>>());
        Ok(())
    }
}

/// Runs `graph` both ways and compares: relative to the largest magnitude of the expected values.
pub fn compare(what: &str, graph: &Graph, outputs: &[Tensor], tolerance: f32) {
    let mut inputs = HashMap::new();
    let mut weights = HashMap::new();
    let rounding = rounds();
    if !rounding
        && matches!(std::env::var("MOS_TEST_SCHEDULE").as_deref(), Ok("matrices" | "varying"))
    {
        return;
    }
    for node in graph.nodes() {
        match &node.origin {
            Origin::Input { name } if node.element == Element::U32 => {
                let ids = (0..node.shape.elements())
                    .map(|i| ((noise(name, i) + 1.0) * 5.6) as u32)
                    .collect();
                inputs.insert(name.clone(), Array::u32(node.shape.clone(), ids));
            }
            Origin::Input { name } => {
                let offset = if name.starts_with("far") { 50.0 } else { 0.0 };
                let value = |i| {
                    let value = noise(name, i) * 2.0 + offset;
                    // Numbers that f16 has come through the rounding of factors unchanged.
                    if rounding { (value * 512.0).round() / 512.0 } else { value }
                };
                let values = (0..node.shape.elements()).map(value).collect();
                inputs.insert(name.clone(), Array::f32(node.shape.clone(), values));
            }
            Origin::Parameter { name } => {
                weights.insert(name.clone(), node.shape.to_vec());
            }
            Origin::Operation { .. } => {}
        }
    }
    let source = Arc::new(MadeUp(weights));
    let expected = graph.evaluate(outputs, &inputs, &*source).expect(what);
    let weights = Weights::new(&device(), source.clone(), Precision::AsStored);
    let program = Program::new(&weights, graph, outputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (name, array) in &inputs {
        program.write(name, array).expect(what);
    }
    program.run();
    for (index, expected) in expected.iter().enumerate() {
        let found = program.output(index).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(found.shape, expected.shape, "{what}");
        let scale = expected.values().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let worst = expected
            .values()
            .iter()
            .zip(found.values())
            .enumerate()
            .map(|(i, (e, f))| ((e - f).abs() / scale, i));
        let (error, at) =
            worst.fold((0.0, 0), |a, b| if b.0 > a.0 || b.0.is_nan() { b } else { a });
        assert!(
            error <= tolerance,
            "{what}, output {index}: element {at} is {} instead of {} (relative {error:.2e})",
            found.values()[at],
            expected.values()[at]
        );
    }
    if chosen::processor().is_some() {
        the_same_of_any_threads(what, graph, outputs, &inputs, &source, &program);
    }
}

/// Other numbers of threads give the same bytes.
fn the_same_of_any_threads(
    what: &str,
    graph: &Graph,
    outputs: &[Tensor],
    inputs: &HashMap<String, Array>,
    source: &Arc<MadeUp>,
    program: &Program,
) {
    static OTHERS: LazyLock<[Device; 2]> =
        LazyLock::new(|| [1, 5].map(|n| chosen::processor_of(Some(n)).into()));
    for device in &*OTHERS {
        let weights = Weights::new(device, source.clone(), Precision::AsStored);
        let other =
            Program::new(&weights, graph, outputs).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (name, array) in inputs {
            other.write(name, array).expect(what);
        }
        other.run();
        for index in 0..outputs.len() {
            let [a, b] = [program, &other].map(|program| program.output(index).expect(what));
            let same = a.values().iter().zip(b.values()).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}, output {index}: {} gives other bytes", device.name());
        }
    }
}
