//! Vectors of f32 of the width that the processor has, and the one place that decides it.
//!
//! A kernel is written once, generic over `Simd`, by the macro `kernel!`, which compiles it for
//! every instruction set and chooses by the [`Level`] that it is given.

use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Instructions that this processor is known to have: one can only be had by asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(Kind);

impl Level {
    /// All that this processor has, the best last.
    pub fn available() -> &'static [Level] {
        static FOUND: OnceLock<Vec<Level>> = OnceLock::new();
        FOUND.get_or_init(|| {
            #[allow(unused_mut)]
            let mut found = vec![Level(Kind::Portable)];
            #[cfg(target_arch = "x86_64")]
            {
                let has = |features: &[bool]| features.iter().all(|has| *has);
                use std::is_x86_feature_detected as has_feature;
                let avx2 = [has_feature!("avx2"), has_feature!("fma"), has_feature!("f16c")];
                let avx512 = [
                    has_feature!("avx512f"),
                    has_feature!("avx512dq"),
                    has_feature!("avx512bw"),
                    has_feature!("avx512vl"),
                ];
                if has(&avx2) {
                    found.push(Level(Kind::Avx2));
                    if has(&avx512) {
                        found.push(Level(Kind::Avx512));
                    }
                }
            }
            #[cfg(target_arch = "aarch64")]
            if std::arch::is_aarch64_feature_detected!("neon") {
                found.push(Level(Kind::Neon));
            }
            found
        })
    }

    /// The best that this processor has.
    pub fn best() -> Level {
        *Level::available().last().unwrap_or(&Level(Kind::Portable))
    }

    /// The best that this processor has up to the one called `name`, one of [`Level::NAMES`].
    pub fn up_to(name: &str) -> Option<Level> {
        let place = |name: &str| Level::NAMES.iter().position(|n| *n == name);
        let most = place(name)?;
        let fits = |level: &&Level| place(level.name()).is_some_and(|at| at <= most);
        Some(Level::available().iter().rev().find(fits).copied().unwrap_or(Level(Kind::Portable)))
    }

    pub const NAMES: [&str; 4] = ["scalar", "neon", "avx2", "avx512"];

    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "scalar",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// f32 in a vector.
    pub fn lanes(self) -> usize {
        match self.0 {
            Kind::Portable => Portable::LANES,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Neon::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Avx512::LANES,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// The operations that kernels are made of.
///
/// # Safety
/// Methods may only be called where the processor has the instructions: within `kernel!`.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;

    unsafe fn splat(self, x: f32) -> Self::V;
    unsafe fn load(self, p: *const f32) -> Self::V;
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `n` lanes, at most all; zeros after them.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    unsafe fn load_i8(self, p: *const i8) -> Self::V;
    /// The low four bits of bytes and the high ones, less 8.
    unsafe fn load_nibbles(self, p: *const u8) -> [Self::V; 2];
    unsafe fn add(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    unsafe fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `b` where either is NaN.
    unsafe fn max(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(self, a: Self::V) -> Self::V;
    unsafe fn round(self, a: Self::V) -> Self::V;
    /// 2^n of whole numbers from -126 to 127.
    unsafe fn exp2_whole(self, n: Self::V) -> Self::V;
    /// `x` where a < b, else `y`.
    unsafe fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `x` where ids[i] & bits != 0, else `y`; `n` ids are read.
    unsafe fn where_common(
        self,
        ids: *const u32,
        n: usize,
        bits: u32,
        x: Self::V,
        y: Self::V,
    ) -> Self::V;
    unsafe fn abs(self, a: Self::V) -> Self::V;
    /// The sum of all lanes, in a fixed order.
    unsafe fn sum(self, a: Self::V) -> f32;
    unsafe fn greatest(self, a: Self::V) -> f32;

    /// Turns a square of as many rows as lanes round: `to[c][r] = from[r][c]`.
    #[inline(always)]
    unsafe fn turn(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for r in 0..Self::LANES {
            for c in 0..Self::LANES {
                unsafe { *to.add(c * to_stride + r) = *from.add(r * from_stride + c) };
            }
        }
    }

    /// Tells the processor that what lies there is wanted soon, if anything does.
    #[inline(always)]
    unsafe fn prefetch(self, _p: *const f32) {}

    #[inline(always)]
    unsafe fn zero(self) -> Self::V {
        unsafe { self.splat(0.0) }
    }
}

/// Kernels for processors without vector instructions that we know.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

macro_rules! lanes {
    ($a:ident, $i:ident => $e:expr) => {{
        let mut r = $a;
        for $i in 0..Self::LANES {
            r[$i] = $e;
        }
        r
    }};
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; 8];
        for (i, v) in v.iter_mut().enumerate().take(n) {
            *v = unsafe { *p.add(i) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
        for (i, v) in v.iter().enumerate().take(n) {
            unsafe { *p.add(i) = *v };
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::V {
        std::array::from_fn(|i| f16_to_f32(unsafe { *p.add(i) }))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(u32::from(unsafe { *p.add(i) }) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::V {
        std::array::from_fn(|i| f32::from(unsafe { *p.add(i) }))
    }
    #[inline(always)]
    unsafe fn load_nibbles(self, p: *const u8) -> [Self::V; 2] {
        [0, 4].map(|shift| {
            std::array::from_fn(|i| f32::from(unsafe { *p.add(i) } >> shift & 15) - 8.0)
        })
    }
    #[inline(always)]
    unsafe fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(a, i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(a, i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn sqrt(self, a: Self::V) -> Self::V {
        lanes!(a, i => a[i].sqrt())
    }
    #[inline(always)]
    unsafe fn round(self, a: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 rounds what is small enough; without vector
        // instructions `round_ties_even` is a call.
        const MAGIC: f32 = 12582912.0;
        lanes!(a, i => (a[i] + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn exp2_whole(self, n: Self::V) -> Self::V {
        lanes!(n, i => f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        lanes!(a, i => if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn where_common(
        self,
        ids: *const u32,
        n: usize,
        bits: u32,
        x: Self::V,
        y: Self::V,
    ) -> Self::V {
        lanes!(x, i => if i < n && unsafe { *ids.add(i) } & bits != 0 { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn abs(self, a: Self::V) -> Self::V {
        lanes!(a, i => a[i].abs())
    }
    #[inline(always)]
    unsafe fn sum(self, a: Self::V) -> f32 {
        ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn greatest(self, a: Self::V) -> f32 {
        a.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}

#[inline(always)]
fn f16_to_f32(x: u16) -> f32 {
    // Shifted into place, a half is 2^112 too small, infinities and NaN aside.
    let magnitude = f32::from_bits(u32::from(x & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let bits = magnitude.to_bits();
    let bits = if x & 0x7c00 == 0x7c00 { bits | 0x7f80_0000 } else { bits };
    f32::from_bits(bits | u32::from(x & 0x8000) << 16)
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// 32 registers of 16.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    /// 16 registers of 8, fused multiply-add, conversion of halves.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    #[inline(always)]
    fn first(n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1u32 << n) as u16 - 1 }
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn prefetch(self, p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn turn(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let pd = |v| _mm512_castps_pd(v);
                let mut own = [_mm512_setzero_ps(); 16];
                for (r, v) in own.iter_mut().enumerate() {
                    *v = _mm512_loadu_ps(from.add(r * from_stride));
                }
                // Squares of four, each in its place; then the places change.
                let mut fours = own;
                for g in (0..16).step_by(4) {
                    let low = [0, 2].map(|r| pd(_mm512_unpacklo_ps(own[g + r], own[g + r + 1])));
                    let high = [0, 2].map(|r| pd(_mm512_unpackhi_ps(own[g + r], own[g + r + 1])));
                    fours[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
                    fours[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
                    fours[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
                    fours[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
                }
                for j in 0..4 {
                    let [a, b, c, d] = [0, 4, 8, 12].map(|g| fours[g + j]);
                    let even =
                        [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d)];
                    let odd =
                        [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d)];
                    let made = [
                        _mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
                        _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
                        _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
                        _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
                    ];
                    for (place, v) in made.into_iter().enumerate() {
                        _mm512_storeu_ps(to.add((place * 4 + j) * to_stride), v);
                    }
                }
            }
        }
        #[inline(always)]
        unsafe fn splat(self, x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: Self::V) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
            if n >= 16 {
                return unsafe { _mm512_loadu_ps(p) };
            }
            unsafe { _mm512_maskz_loadu_ps(first(n), p) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
            if n >= 16 {
                return unsafe { _mm512_storeu_ps(p, v) };
            }
            unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
        }
        #[inline(always)]
        unsafe fn load_f16(self, p: *const u16) -> Self::V {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, p: *const u16) -> Self::V {
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const i8) -> Self::V {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_nibbles(self, p: *const u8) -> [Self::V; 2] {
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
                let low = _mm512_cvtepi32_ps(_mm512_and_epi32(bytes, _mm512_set1_epi32(15)));
                let high = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(bytes));
                let middle = _mm512_set1_ps(8.0);
                [_mm512_sub_ps(low, middle), _mm512_sub_ps(high, middle)]
            }
        }
        #[inline(always)]
        unsafe fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(self, a: Self::V) -> Self::V {
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        unsafe fn round(self, a: Self::V) -> Self::V {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(self, n: Self::V) -> Self::V {
            unsafe {
                let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
            }
        }
        #[inline(always)]
        unsafe fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
        #[inline(always)]
        unsafe fn where_common(
            self,
            ids: *const u32,
            n: usize,
            bits: u32,
            x: Self::V,
            y: Self::V,
        ) -> Self::V {
            unsafe {
                let ids = _mm512_maskz_loadu_epi32(first(n), ids.cast());
                let common = _mm512_test_epi32_mask(ids, _mm512_set1_epi32(bits as i32));
                _mm512_mask_blend_ps(common, y, x)
            }
        }
        #[inline(always)]
        unsafe fn abs(self, a: Self::V) -> Self::V {
            unsafe { _mm512_abs_ps(a) }
        }
        #[inline(always)]
        unsafe fn sum(self, a: Self::V) -> f32 {
            unsafe {
                let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
                Avx2.sum(_mm256_add_ps(low, high))
            }
        }
        #[inline(always)]
        unsafe fn greatest(self, a: Self::V) -> f32 {
            unsafe {
                let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
                Avx2.greatest(_mm256_max_ps(low, high))
            }
        }
    }

    /// Lanes of which the first `n` are all ones.
    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        static ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - n.min(8)).cast()) }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn prefetch(self, p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn turn(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let pd = |v| _mm256_castps_pd(v);
                let mut own = [_mm256_setzero_ps(); 8];
                for (r, v) in own.iter_mut().enumerate() {
                    *v = _mm256_loadu_ps(from.add(r * from_stride));
                }
                let mut fours = own;
                for g in [0, 4] {
                    let low = [0, 2].map(|r| pd(_mm256_unpacklo_ps(own[g + r], own[g + r + 1])));
                    let high = [0, 2].map(|r| pd(_mm256_unpackhi_ps(own[g + r], own[g + r + 1])));
                    fours[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(low[0], low[1]));
                    fours[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low[0], low[1]));
                    fours[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high[0], high[1]));
                    fours[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high[0], high[1]));
                }
                for j in 0..4 {
                    let (a, b) = (fours[j], fours[4 + j]);
                    let made = _mm256_permute2f128_ps::<0x20>(a, b);
                    _mm256_storeu_ps(to.add(j * to_stride), made);
                    let made = _mm256_permute2f128_ps::<0x31>(a, b);
                    _mm256_storeu_ps(to.add((4 + j) * to_stride), made);
                }
            }
        }
        #[inline(always)]
        unsafe fn splat(self, x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: Self::V) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
            // Masked stores, and some loads, are slow on some processors.
            if n >= 8 {
                return unsafe { _mm256_loadu_ps(p) };
            }
            unsafe { _mm256_maskload_ps(p, mask(n)) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
            if n >= 8 {
                return unsafe { _mm256_storeu_ps(p, v) };
            }
            unsafe { _mm256_maskstore_ps(p, mask(n), v) }
        }
        #[inline(always)]
        unsafe fn load_f16(self, p: *const u16) -> Self::V {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, p: *const u16) -> Self::V {
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const i8) -> Self::V {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_nibbles(self, p: *const u8) -> [Self::V; 2] {
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
                let low = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
                let high = _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(bytes));
                let middle = _mm256_set1_ps(8.0);
                [_mm256_sub_ps(low, middle), _mm256_sub_ps(high, middle)]
            }
        }
        #[inline(always)]
        unsafe fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(self, a: Self::V) -> Self::V {
            unsafe { _mm256_sqrt_ps(a) }
        }
        #[inline(always)]
        unsafe fn round(self, a: Self::V) -> Self::V {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(self, n: Self::V) -> Self::V {
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
        }
        #[inline(always)]
        unsafe fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        }
        #[inline(always)]
        unsafe fn where_common(
            self,
            ids: *const u32,
            n: usize,
            bits: u32,
            x: Self::V,
            y: Self::V,
        ) -> Self::V {
            unsafe {
                let ids = _mm256_maskload_epi32(ids.cast(), mask(n));
                let common = _mm256_and_si256(ids, _mm256_set1_epi32(bits as i32));
                let none = _mm256_cmpeq_epi32(common, _mm256_setzero_si256());
                _mm256_blendv_ps(x, y, _mm256_castsi256_ps(none))
            }
        }
        #[inline(always)]
        unsafe fn abs(self, a: Self::V) -> Self::V {
            unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        }
        #[inline(always)]
        unsafe fn sum(self, a: Self::V) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
        #[inline(always)]
        unsafe fn greatest(self, a: Self::V) -> f32 {
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Simd, f16_to_f32};
    use std::arch::aarch64::*;

    /// 32 registers of 4.
    #[derive(Clone, Copy)]
    pub struct Neon;

    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn splat(self, x: f32) -> Self::V {
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> Self::V {
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: Self::V) {
            unsafe { vst1q_f32(p, v) }
        }
        #[inline(always)]
        unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
            if n >= 4 {
                return unsafe { vld1q_f32(p) };
            }
            let mut v = [0.0; 4];
            for (i, v) in v.iter_mut().enumerate().take(n) {
                *v = unsafe { *p.add(i) };
            }
            unsafe { vld1q_f32(v.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
            if n >= 4 {
                return unsafe { vst1q_f32(p, v) };
            }
            let mut all = [0.0; 4];
            unsafe { vst1q_f32(all.as_mut_ptr(), v) };
            for (i, v) in all.iter().enumerate().take(n) {
                unsafe { *p.add(i) = *v };
            }
        }
        #[inline(always)]
        unsafe fn load_f16(self, p: *const u16) -> Self::V {
            let v: [f32; 4] = std::array::from_fn(|i| f16_to_f32(unsafe { *p.add(i) }));
            unsafe { vld1q_f32(v.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, p: *const u16) -> Self::V {
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const i8) -> Self::V {
            unsafe {
                let four = vreinterpret_s8_s32(vdup_n_s32(p.cast::<i32>().read_unaligned()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))))
            }
        }
        #[inline(always)]
        unsafe fn load_nibbles(self, p: *const u8) -> [Self::V; 2] {
            unsafe {
                let four = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                let four = vmovl_u16(vget_low_u16(vmovl_u8(four)));
                let low = vcvtq_f32_u32(vandq_u32(four, vdupq_n_u32(15)));
                let high = vcvtq_f32_u32(vshrq_n_u32::<4>(four));
                let middle = vdupq_n_f32(8.0);
                [vsubq_f32(low, middle), vsubq_f32(high, middle)]
            }
        }
        #[inline(always)]
        unsafe fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vdivq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }
        #[inline(always)]
        unsafe fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(self, a: Self::V) -> Self::V {
            unsafe { vsqrtq_f32(a) }
        }
        #[inline(always)]
        unsafe fn round(self, a: Self::V) -> Self::V {
            unsafe { vrndnq_f32(a) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(self, n: Self::V) -> Self::V {
            unsafe {
                let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            }
        }
        #[inline(always)]
        unsafe fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { vbslq_f32(vcltq_f32(a, b), x, y) }
        }
        #[inline(always)]
        unsafe fn where_common(
            self,
            ids: *const u32,
            n: usize,
            bits: u32,
            x: Self::V,
            y: Self::V,
        ) -> Self::V {
            let mut common = [0u32; 4];
            for (i, v) in common.iter_mut().enumerate().take(n) {
                *v = if unsafe { *ids.add(i) } & bits != 0 { u32::MAX } else { 0 };
            }
            unsafe { vbslq_f32(vld1q_u32(common.as_ptr()), x, y) }
        }
        #[inline(always)]
        unsafe fn abs(self, a: Self::V) -> Self::V {
            unsafe { vabsq_f32(a) }
        }
        #[inline(always)]
        unsafe fn sum(self, a: Self::V) -> f32 {
            unsafe { vaddvq_f32(a) }
        }
        #[inline(always)]
        unsafe fn greatest(self, a: Self::V) -> f32 {
            unsafe { vmaxvq_f32(a) }
        }
    }
}

/// Compiles a function for every instruction set; the one of the `level`, its first argument, runs.
/// What it calls must be inlined.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$(const $c:ident : $ct:ty),+])?
        ($s:ident : $S:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
        $vis unsafe fn $name $(<$(const $c: $ct),+>)? (
            level: $crate::simd::Level $(, $arg: $ty)*
        ) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
            unsafe fn generic<$S: $crate::simd::Simd $($(, const $c: $ct)+)?>(
                $s: $S $(, $arg: $ty)*
            ) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
            unsafe fn avx512 $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                use $crate::simd::Avx512;
                unsafe { generic::<Avx512 $($(, $c)+)?>(Avx512 $(, $arg)*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
            unsafe fn avx2 $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                use $crate::simd::Avx2;
                unsafe { generic::<Avx2 $($(, $c)+)?>(Avx2 $(, $arg)*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
            unsafe fn neon $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                use $crate::simd::Neon;
                unsafe { generic::<Neon $($(, $c)+)?>(Neon $(, $arg)*) }
            }
            #[inline(never)]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
            unsafe fn portable $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                use $crate::simd::Portable;
                unsafe { generic::<Portable $($(, $c)+)?>(Portable $(, $arg)*) }
            }
            use $crate::simd::Kind;
            match level.kind() {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => unsafe { avx512 $(::<$($c),+>)? ($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2 $(::<$($c),+>)? ($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => unsafe { neon $(::<$($c),+>)? ($($arg),*) },
                Kind::Portable => unsafe { portable $(::<$($c),+>)? ($($arg),*) },
            }
        }
    };
}
pub(crate) use kernel;
