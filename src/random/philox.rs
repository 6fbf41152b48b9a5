//! Normal numbers as torch's CUDA generator makes them: Philox4x32-10 and Box-Muller.
//!
//! Philox (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a
//! function of a 128-bit counter and a 64-bit key, so every number can be made anywhere. torch's
//! CUDA kernel uses counter = (offset, thread) and key = seed, and as many threads as the card can
//! hold at once: thread `i` makes the numbers i, i + T, i + 2T and i + 3T of a draw from one
//! counter, the numbers from i + 4T on from the next one.
//!
//! T is the draw's length rounded up to 256, but no more than the card holds: multiprocessors x
//! (resident threads / 256) x 256, e.g. 43008 on an RTX 3060, 221184 on an A100. While a draw is no
//! longer than that, every number comes from its own thread and all cards agree; this is what the
//! "NV" option of web UIs imitates, and what [`Philox::new`] does for any length. 512x512 pictures
//! (16384 numbers) are always inside. For a bigger draw as a particular card makes it, say how many
//! threads it holds with [`Philox::with_resident_threads`].
//!
//! The same seed on CUDA gives f32 numbers equal to these but for the last bits of CUDA's fast
//! logarithm and sine.

/// Threads of one block of torch's CUDA kernel for random numbers.
const THREADS_PER_BLOCK: u64 = 256;
/// Numbers that one counter gives.
const LANES: u64 = 4;

/// The generator of `torch.Generator("cuda").manual_seed(seed)`.
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    /// Counters used up by each thread so far.
    offset: u64,
    resident_threads: u64,
}

impl Philox {
    /// Numbers every card agrees on; see the module's page for the lengths this holds for.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], offset: 0, resident_threads: u64::MAX }
    }

    /// The numbers of a card that holds `threads` resident threads (multiprocessors x threads of
    /// each, the latter rounded down to a multiple of 256). Fewer than 256 counts as 256.
    pub fn with_resident_threads(self, threads: u64) -> Self {
        let resident_threads = (threads / THREADS_PER_BLOCK).max(1) * THREADS_PER_BLOCK;
        Self { resident_threads, ..self }
    }

    /// `n` standard normal numbers: what `torch.randn(n, device="cuda")` gives next.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        let n = n as u64;
        let threads = n.next_multiple_of(THREADS_PER_BLOCK).min(self.resident_threads).max(1);
        let numbers = (0..n)
            .map(|i| {
                let (thread, round) = (i % threads, i / threads);
                let counter = self.offset + round / LANES;
                let words = philox4x32_10(
                    [counter as u32, (counter >> 32) as u32, thread as u32, (thread >> 32) as u32],
                    self.key,
                );
                lane(words, round % LANES)
            })
            .collect();
        self.offset += n.div_ceil(threads * LANES);
        numbers
    }
}

/// One of the four normal numbers of four random words: words 0 and 1 give lanes 0 and 1, words 2
/// and 3 lanes 2 and 3.
fn lane(words: [u32; 4], lane: u64) -> f32 {
    let [a, b, c, d] = words;
    let (u, v) = if lane < 2 { (a, b) } else { (c, d) };
    // (0, 1]: the half step keeps the logarithm finite.
    let unit = |word: u32| (f64::from(word) + 0.5) * (-32f64).exp2();
    let radius = (-2.0 * unit(u).ln()).sqrt();
    let (sin, cos) = (unit(v) * 2.0 * std::f64::consts::PI).sin_cos();
    (radius * if lane.is_multiple_of(2) { sin } else { cos }) as f32
}

/// Ten rounds of Philox4x32: four random words for a counter.
pub(crate) fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let multiply = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = multiply(0xD251_1F53, counter[0]);
        let (high1, low1) = multiply(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0]
            ),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    /// `torch.manual_seed(0); torch.randn(3, 4, device="cuda")` as printed by torch on any card.
    #[test]
    fn equals_cuda() {
        let expected = [
            -0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284, -1.0745,
            -0.3631, -1.6711, 2.2655,
        ];
        for (got, want) in Philox::new(0).normal(12).iter().zip(expected) {
            assert!((got - want).abs() < 5.1e-5, "{got} is not {want}");
        }
    }

    /// A small card makes the first numbers as any other does, and the later ones from the lanes a
    /// big card leaves unused.
    #[test]
    fn a_card_that_is_too_small_uses_all_lanes() {
        let any = Philox::new(5).normal(1024);
        let mut small = Philox::new(5).with_resident_threads(300);
        let first = small.normal(1500);
        assert_eq!(any[..256], first[..256]);
        assert!(any[256..].iter().zip(&first[256..]).all(|(a, b)| a != b));
        let words = philox4x32_10([0, 0, 3, 0], [5, 0]);
        assert_eq!(first[256 + 3], lane(words, 1));
        assert_eq!(first[2 * 256 + 3], lane(words, 2));
        assert_eq!(first[4 * 256 + 3], lane(philox4x32_10([1, 0, 3, 0], [5, 0]), 0));
        // 1500 numbers used up two counters of every thread.
        assert_eq!(small.normal(1)[0], lane(philox4x32_10([2, 0, 0, 0], [5, 0]), 0));
    }
}
