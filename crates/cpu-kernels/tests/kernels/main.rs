//! Every kernel against plain f64 arithmetic, for each level of this machine, with the same bytes
//! from any number of threads.

mod attention;
mod elementwise;
mod matmuls;
mod norms;
mod sums;

use std::sync::OnceLock;

use cpu_kernels::simd::Level;

/// Numbers from -1 to 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn pools() -> &'static [rayon::ThreadPool; 3] {
    static POOLS: OnceLock<[rayon::ThreadPool; 3]> = OnceLock::new();
    POOLS.get_or_init(|| {
        [1, 2, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap())
    })
}

/// What `make` makes at each level, which must be near `wanted`, relative to its greatest number,
/// and must not depend on threads.
fn check(name: &str, wanted: &[f64], tolerance: f64, make: impl Fn(Level) -> Vec<f32> + Sync) {
    for &level in Level::available() {
        let [one, others @ ..] = pools().each_ref().map(|pool| pool.install(|| make(level)));
        for other in others {
            let same = one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && one.len() == other.len(), "{name} at {}: threads matter", level.name());
        }
        near(&format!("{name} at {}", level.name()), &one, wanted, tolerance);
    }
}

fn near(name: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    let greatest = wanted.iter().fold(1e-30f64, |g, w| g.max(w.abs()));
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        let error = (f64::from(*f) - w).abs() / greatest;
        assert!(error <= tolerance, "{name}: {f} for {w} at {i}, {error:e} of {greatest}");
    }
}
