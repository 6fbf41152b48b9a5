//! Sums of outer products: the kernel against its reference implementation and against f64, in
//! place and not.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use mixofshow::backend::wgpu::{Options, OuterSumsSizes, Tuned};
use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, ParameterError, ParameterInfo, ParameterSource};

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "common/chosen.rs"]
mod chosen;

struct NoWeights;

impl ParameterSource for NoWeights {
    fn info(&self, _name: &str) -> Option<ParameterInfo> {
        None
    }

    fn read(
        &self,
        name: &str,
        _range: Range<usize>,
        _into: &mut [f32],
    ) -> Result<(), ParameterError> {
        Err(ParameterError::Missing { name: name.into() })
    }
}

/// On the processor, or on the adapter with so many tiles to a workgroup.
fn weights(tiles: usize) -> Weights {
    if let Some(cpu) = chosen::processor() {
        return Weights::new(&cpu.into(), Arc::new(NoWeights), Precision::AsStored);
    }
    let tuned = Some(Tuned { outer_sums: OuterSumsSizes { tiles }, ..Tuned::STANDARD });
    let gpu = chosen::adapter(Options { checked: true, floor: true, tuned, ..Options::default() });
    Weights::new(&gpu.into(), Arc::new(NoWeights), Precision::AsStored)
}

const TILES: usize = Tuned::STANDARD.outer_sums.tiles;

/// Uniform in -1 .. 1.
fn noise(seed: usize) -> f32 {
    let mut h = (seed as u64).wrapping_add(1).wrapping_mul(0x9e3779b97f4a7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d049bb133111eb);
    ((h ^ (h >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Both planes of a sum, below the diagonal, in f64.
fn whole(planes: &Array) -> Vec<f64> {
    let n = planes.shape[1];
    let (high, low) = planes.values().split_at(n * n);
    let below = (0..n * n).filter(|at| at % n <= at / n);
    below.map(|at| f64::from(high[at]) + f64::from(low[at])).collect()
}

#[test]
fn sums_of_all_shapes() {
    for tiles in [1, TILES] {
        let weights = weights(tiles);
        for (rows, n, batch) in [
            (1, 4, 1),
            (65, 20, 2),
            (200, 68, 1),
            (130, 7, 3),
            (3, 33, 1),
            (64, 130, 1),
            (70, 72, 2),
        ] {
            let mut graph = Graph::new();
            let x = graph.input("x", [batch, rows, n]);
            let sums = graph.input("sums", [2, n, n]);
            let y = graph.outer_sums(sums, x).unwrap();
            let inputs = HashMap::from([
                (
                    "x".to_string(),
                    Array::f32(
                        [batch, rows, n],
                        (0..batch * rows * n).map(|i| 2.0 + noise(i)).collect(),
                    ),
                ),
                (
                    "sums".to_string(),
                    Array::f32([2, n, n], (0..2 * n * n).map(|i| noise(i + 7)).collect()),
                ),
            ]);
            let expected = whole(&graph.evaluate(&[y], &inputs, &NoWeights).unwrap()[0]);
            let program = Program::new(&weights, &graph, &[y]).unwrap();
            for (name, array) in &inputs {
                program.write(name, array).unwrap();
            }
            program.run();
            let found = whole(&program.output(0).unwrap());
            let most = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            for (at, (e, f)) in expected.iter().zip(&found).enumerate() {
                assert!(
                    (e - f).abs() <= 1e-6 * most,
                    "{batch}x{rows}x{n}, {tiles} tiles: element {at} is {f} instead of {e}"
                );
            }
            // What the caller gave is unchanged where the sums go elsewhere.
            assert_eq!(program.state("sums").unwrap(), inputs["sums"]);
        }
    }
}

/// Correlated inputs with a large common part, over several runs in place. The planes must keep
/// what a small ridge needs: plain f32 sums of such inputs are not positive definite.
#[test]
fn small_ridges_keep_working() {
    let (rows, n, runs) = (4096, 96, 8);
    let mut graph = Graph::new();
    let x = graph.input("x", [rows, n]);
    let sums = graph.input("sums", [2, n, n]);
    let y = graph.outer_sums(sums, x).unwrap();
    graph.assign(sums, y).unwrap();
    let program = Program::new(&weights(TILES), &graph, &[]).unwrap();
    assert_eq!(program.commands(), 1, "in place: nothing is copied");
    program.write("sums", &Array::f32([2, n, n], vec![0.0; 2 * n * n])).unwrap();
    let mut exact = vec![0.0f64; n * n];
    let mut plain = vec![0.0f32; n * n];
    for run in 0..runs {
        // Eight directions that count, the rest a thousandth of them.
        let values: Vec<f32> = (0..rows * n)
            .map(|i| {
                let (r, c) = (i / n + run * rows, i % n);
                let common: f32 =
                    (0..8).map(|k| noise(r * 8 + k) * noise(c * 8 + k + 999_983)).sum();
                1.0 + common + 1e-3 * noise(i + run * rows * n + 77_777_777)
            })
            .collect();
        for row in values.chunks_exact(n) {
            for at in 0..n * n {
                exact[at] += f64::from(row[at / n]) * f64::from(row[at % n]);
                plain[at] += row[at / n] * row[at % n];
            }
        }
        program.write("x", &Array::f32([rows, n], values)).unwrap();
        program.run();
    }
    let planes = program.state("sums").unwrap();
    let (high, low) = planes.values().split_at(n * n);
    let both = |at: usize| f64::from(high[at]) + f64::from(low[at]);
    let diagonal: f64 = (0..n).map(|i| exact[i * n + i]).sum::<f64>() / n as f64;
    let mut worst = [0.0f64; 2];
    for at in (0..n * n).filter(|at| at % n <= at / n) {
        worst[0] = worst[0].max((both(at) - exact[at]).abs() / diagonal);
        worst[1] = worst[1].max((f64::from(plain[at]) - exact[at]).abs() / diagonal);
    }
    println!(
        "worst error in parts of the mean diagonal: planes {:.1e}, plain f32 {:.1e}",
        worst[0], worst[1]
    );
    assert!(worst[0] < 3e-8, "{:.1e}", worst[0]);
    assert!(worst[0] * 30.0 < worst[1], "no better than plain sums: {worst:?}");
    assert!(
        low.iter().any(|v| *v != 0.0),
        "the second plane is empty: the compiler cancelled the compensation"
    );
    let cholesky = |value: &dyn Fn(usize, usize) -> f64, ridge: f64| {
        let lifted = |i: usize, j: usize| {
            value(i.max(j), i.min(j)) + if i == j { ridge * diagonal } else { 0.0 }
        };
        faer::Mat::from_fn(n, n, lifted).llt(faer::Side::Lower).is_ok()
    };
    assert!(cholesky(&|i, j| both(i * n + j), 1e-7));
    println!(
        "plain f32 sums: ridge 1e-5 {}, 1e-6 {}, 1e-7 {}",
        cholesky(&|i, j| f64::from(plain[i * n + j]), 1e-5),
        cholesky(&|i, j| f64::from(plain[i * n + j]), 1e-6),
        cholesky(&|i, j| f64::from(plain[i * n + j]), 1e-7)
    );
}
