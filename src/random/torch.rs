//! Normal numbers as torch's CPU generator makes them.
//!
//! A Mersenne Twister (MT19937) feeds Box-Muller, in two ways that torch chooses between by the
//! length of the draw:
//! - below 16 numbers, one after another in f64, from 53-bit uniforms; every pair's second half is
//!   kept for the next short draw;
//! - from 16 on, f32 and 24-bit uniforms, in blocks of 16 (eight radii, eight angles); a ragged end
//!   redraws the last 16.
//!
//! torch's AVX2 kernel, which is what x86-64 processors run, takes logarithm, sine and cosine from
//! the Cephes polynomials in f32 with fused multiply-adds. They are evaluated here in the same
//! order, so long draws equal torch's to the bit. (torch without AVX2, on Arm for one, uses the C
//! library's functions there and differs from itself by up to 2e-6.)
//!
//! A half-precision draw of torch's is these numbers rounded, while its length is a multiple of 16
//! (latents' always is).
use rand_mt::Mt;
use std::f32::consts::PI;

/// Numbers in one block of the vectorised Box-Muller transform.
const BLOCK: usize = 16;

/// The generator of `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Clone, Debug)]
pub struct TorchRng {
    engine: Mt,
    /// The unused second half of a short draw's last Box-Muller pair.
    pending: Option<f64>,
}

impl TorchRng {
    /// Seeds as `manual_seed` does: MT19937 takes the low 32 bits only, so seeds 2^32 apart give
    /// the same numbers.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt::new(seed as u32), pending: None }
    }

    /// `n` standard normal numbers: what `torch.randn(n, generator=g)` gives next, in f32.
    ///
    /// One call per tensor: the numbers of a draw depend on its length, so two halves are not the
    /// same as the whole.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut data: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        for block in data.as_chunks_mut::<BLOCK>().0 {
            box_muller_block(block);
        }
        if !n.is_multiple_of(BLOCK)
            && let Some(last) = data.last_chunk_mut::<BLOCK>()
        {
            last.fill_with(|| self.uniform_f32());
            box_muller_block(last);
        }
        data
    }

    /// Uniform in [0, 1) with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 * (-24f32).exp2()
    }

    /// Uniform in [0, 1) with 53 bits; the first 32-bit word is the high one.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let word = (high << 32) | u64::from(self.engine.next_u32());
        (word & ((1 << 53) - 1)) as f64 * (-53f64).exp2()
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.pending.take() {
            return value;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.pending = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

/// Turns 16 uniforms into 16 normals: number j and j + 8 share radius(u_j) and angle(u_{j+8}).
fn box_muller_block(block: &mut [f32; BLOCK]) {
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * cephes_ln(1.0 - block[j])).sqrt();
        let (sin, cos) = cephes_sin_cos(2.0 * PI * block[j + 8]);
        block[j] = radius * cos;
        block[j + 8] = radius * sin;
    }
}

/// Horner's rule with fused multiply-adds, highest power first.
fn polynomial(x: f32, coefficients: &[f32]) -> f32 {
    let (first, rest) = coefficients.split_first().map_or((0.0, &[][..]), |(f, r)| (*f, r));
    rest.iter().fold(first, |sum, &c| sum.mul_add(x, c))
}

/// Cephes' `logf` for normal positive `x`, in the order of operations of torch's AVX2 kernel.
fn cephes_ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let mut m = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        m += mantissa;
    }
    let square = m * m;
    let p = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let y = polynomial(m, &p) * m;
    // ln 2 in two parts, the smaller one first.
    let y = y.mul_add(square, exponent * -2.121_944_4e-4);
    let y = square.mul_add(-0.5, y);
    exponent.mul_add(0.693_359_4, m + y)
}

/// Cephes' `sinf` and `cosf` for `x` in [0, 2 pi], in the order of operations of torch's AVX2
/// kernel.
fn cephes_sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * (4.0 / PI)) as i32 + 1) & !1;
    let turns = octant as f32;
    // pi/4 in three parts.
    let x = turns.mul_add(-0.785_156_25, x);
    let x = turns.mul_add(-2.418_756_5e-4, x);
    let x = turns.mul_add(-3.774_895e-8, x);
    let z = x * x;
    let cos_p = polynomial(z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]) * z;
    let cosine = cos_p.mul_add(z, -(z * 0.5)) + 1.0;
    let sin_p = polynomial(z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]) * z;
    let sine = sin_p.mul_add(x, x);
    let (s, c) = if octant & 2 == 0 { (sine, cosine) } else { (cosine, sine) };
    let negative_sin = octant & 4 != 0;
    let negative_cos = (octant + 2) & 4 != 0;
    (if negative_sin { -s } else { s }, if negative_cos { -c } else { c })
}
