//! Commands that come from anywhere do no harm: they are checked, or refused.

use std::sync::Arc;

use mixofshow::backend::wgpu::{
    Command, Gpu, MatrixUse, Options, Params, Recording, Scalar, Selection, Slice, Tuned, Value,
};
use mixofshow::backend::{Backend, Precision, Program, Weights};
use mixofshow::graph::{Fold, Graph, Limits, Operation, Plan, Shape, Target};

use super::random::source;

fn open(options: Options) -> Arc<Gpu> {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    Gpu::open(&Options { selection, ..options }).unwrap()
}

/// `filled` of `elements` in 64 bytes.
fn fill(buffer: &Slice, elements: usize, grid: [u32; 3]) -> Command {
    Command::Dispatch {
        kernel: "filled",
        params: Params::new(),
        bindings: vec![("y".into(), buffer.clone(), Scalar::F32)],
        uniforms: vec![("elements", elements.into()), ("value", 7.0f32.into())],
        grid,
        label: "filled".into(),
        flops: 0,
        bytes: 0,
    }
}

#[test]
fn kernels_of_a_recording_stay_within_their_bindings() {
    // As a release opens it: without run-time checks in the program's own recordings.
    let gpu = open(Options::default());
    let whole = gpu.buffer("test", 4096).unwrap();
    let part = Slice { size: 64, ..Slice::whole(&whole) };
    let recording = Recording::new(&gpu, &[fill(&part, 1024, [16, 1, 1])]).unwrap();
    recording.play();
    gpu.wait().unwrap();
    let bytes = gpu.read(&whole, 0, 4096).unwrap();
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    assert!(values[..16].iter().all(|v| *v == 7.0), "{:?}", &values[..16]);
    assert!(values[16..].iter().all(|v| *v == 0.0), "beyond its binding");
    let most = gpu.limits().max_compute_workgroups_per_dimension;
    let error = Recording::new(&gpu, &[fill(&part, 16, [most + 1, 1, 1])]).err().unwrap();
    assert!(error.to_string().contains("workgroups"), "{error}");
    let beyond = Slice { size: 8192, ..part };
    assert!(Recording::new(&gpu, &[fill(&beyond, 16, [1, 1, 1])]).is_err());
}

/// Damaged files of compiled kernels, and such of other drivers, change nothing and are replaced.
#[test]
fn compiled_kernels_are_kept_in_the_folder_for_caches() {
    let folder = tempfile::tempdir().unwrap();
    let filled = || {
        let cache = Some(folder.path().to_path_buf());
        let gpu = open(Options { cache, ..Options::default() });
        let whole = Slice::whole(&gpu.buffer("test", 64).unwrap());
        Recording::new(&gpu, &[fill(&whole, 16, [1, 1, 1])]).unwrap().play();
        gpu.wait().unwrap();
        let bytes = gpu.read(&whole.buffer, 0, 64).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), [7.0; 16]);
    };
    filled();
    let files = || -> Vec<_> {
        let all = std::fs::read_dir(folder.path().join("pipelines")).into_iter().flatten();
        all.map(|entry| entry.unwrap().path()).collect()
    };
    // Only Vulkan lets them be kept.
    let [file] = &files()[..] else {
        assert!(files().is_empty());
        return println!("skipped: this adapter gives nothing to keep");
    };
    let whole = std::fs::read(file).unwrap();
    let unchanged = || std::fs::metadata(file).unwrap().modified().unwrap();
    let before = unchanged();
    filled();
    assert_eq!(unchanged(), before, "it was written again though nothing was new");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for other in [&damaged, &whole[..whole.len() - 1].to_vec(), &b"no such file".to_vec()] {
        std::fs::write(file, other).unwrap();
        filled();
        assert_eq!(std::fs::read(file).unwrap().len(), whole.len(), "it was not replaced");
        assert_eq!(files().len(), 1, "something was left behind");
    }
}

#[test]
fn kernels_that_cannot_be_checked_are_refused() {
    let gpu = open(Options { matrices: MatrixUse::On, ..Options::default() });
    let Ok(matrices) = gpu.matrices() else { return };
    let mut params = matrices.params(matrices.blocks(&gpu.traits().tuned.matmul_matrices, 8, 8), 8);
    let none = ["window", "lora", "rows_per_batch", "operand_rows"];
    params.extend(none.map(|name| (name, Value::from(false))));
    params.extend([("epilogue", Value::from(Vec::<Value>::new())), ("factors", Value::from(0))]);
    let part = Slice::whole(&gpu.buffer("test", 64).unwrap());
    let Command::Dispatch { bindings, uniforms, grid, label, .. } = fill(&part, 1, [1, 1, 1])
    else {
        unreachable!("a dispatch")
    };
    let kernel = "matmul_matrices";
    let command =
        Command::Dispatch { kernel, params, bindings, uniforms, grid, label, flops: 0, bytes: 0 };
    let error = Recording::new(&gpu, &[command]).err().unwrap();
    assert!(error.to_string().contains("cannot be checked"), "{error}");
}

/// A device whose kernels need no scratch.
struct Roomless(Limits);

impl Target for Roomless {
    fn limits(&self) -> Limits {
        self.0
    }

    fn folds(&self, _: &dyn Operation) -> Fold {
        Fold::Nothing
    }

    fn scratch(&self, _: &dyn Operation, _: &[&Shape], _: &Shape) -> Option<usize> {
        None
    }
}

#[test]
fn plans_for_others_are_refused() {
    let gpu = open(Options::default());
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 64, 32]);
    let y = graph.group_norm_statistics(x, 4, 1e-5).unwrap();
    let weights = Weights::new(&gpu.clone().into(), source(&graph), Precision::F32);
    let refused = |graph: &Graph, plan: &Plan| {
        let error = Program::from_plan(&weights, graph, plan).err().expect("refused").to_string();
        assert!(error.contains("does not suit"), "{error}");
    };
    refused(&graph, &Plan::new(&graph, &[y], &Roomless(gpu.target().limits())));
    // Another graph, in which the same values have other shapes.
    let plan = Plan::new(&graph, &[y], gpu.target());
    let mut other = Graph::new();
    let x = other.input("x", [1, 640, 64]);
    other.silu(x).unwrap();
    refused(&other, &plan);
}

#[test]
fn sizes_that_kernels_are_not_written_for_are_refused() {
    let mut tuned = Tuned::STANDARD;
    tuned.lora_down.outputs = 3;
    let options = Options { tuned: Some(tuned), ..Options::default() };
    let error = Gpu::open(&options).err().expect("refused").to_string();
    assert!(error.contains("lora_down.outputs is 3"), "{error}");
}

/// How long a play took tells how much of it one submit may hold.
#[test]
fn what_was_played_before_takes_fewer_submits() {
    let gpu = open(Options::default());
    let whole = Slice::whole(&gpu.buffer("test", 64).unwrap());
    let claiming = |command: Command, claimed: u64| match command {
        Command::Dispatch { kernel, params, bindings, uniforms, grid, label, bytes, .. } => {
            let flops = claimed;
            Command::Dispatch { kernel, params, bindings, uniforms, grid, label, flops, bytes }
        }
        copy => copy,
    };
    let large = vec![claiming(fill(&whole, 16, [1, 1, 1]), 15_000_000_000); 12];
    let recording = Recording::new(&gpu, &large).unwrap();
    assert_eq!(recording.submits(), 6);
    recording.play();
    gpu.wait().unwrap();
    // No device takes seconds for that.
    assert_eq!(recording.submits(), 1);
    recording.play();
    gpu.wait().unwrap();
    let bytes = gpu.read(&whole.buffer, 0, 64).unwrap();
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), [7.0; 16]);
    // What is too short to measure stays as it was.
    let small = vec![claiming(fill(&whole, 16, [1, 1, 1]), 1000); 300];
    let recording = Recording::new(&gpu, &small).unwrap();
    recording.play();
    gpu.wait().unwrap();
    assert_eq!(recording.submits(), 3);
}

/// With timestamps and without, a timeline has every command, in its order, and does its work.
#[test]
fn timelines_have_every_command() {
    for extras in [false, true] {
        let gpu = open(Options { extras, ..Options::default() });
        let [a, b] = [(); 2].map(|()| Slice::whole(&gpu.buffer("test", 1 << 20).unwrap()));
        let elements = (1 << 20) / 4;
        let mut commands = vec![fill(&a, elements, [elements.div_ceil(64) as u32, 1, 1]); 70];
        commands.insert(40, Command::Copy { from: a.clone(), to: b.clone() });
        let recording = Recording::new(&gpu, &commands).unwrap();
        let start = std::time::Instant::now();
        let timeline = recording.timeline(&|| start.elapsed().as_secs_f64()).unwrap();
        let all = start.elapsed().as_secs_f64();
        assert_eq!(timeline.len(), 71);
        assert_eq!(timeline[40].0, "copy");
        let seconds = |(_, cost): &(String, mixofshow::backend::Cost)| cost.seconds;
        assert!(timeline.iter().all(|one| (0.0..=all).contains(&seconds(one))), "{timeline:?}");
        let sum: f64 = timeline.iter().map(seconds).sum();
        assert!(sum > 0.0 && sum <= all * 1.01, "{sum} of {all} seconds");
        let bytes = gpu.read(&b.buffer, 0, 1 << 20).unwrap();
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert!(values.iter().all(|value| *value == 7.0));
    }
}
