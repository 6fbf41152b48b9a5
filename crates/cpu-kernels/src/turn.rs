//! Matrices turned round.

use super::simd::kernel;

kernel! {
    /// `to[c][r] = from[r][c]`.
    pub(crate) fn turn(
        s: S,
        from: *const f32,
        from_stride: usize,
        rows: usize,
        columns: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            if rows < S::LANES || columns < S::LANES {
                for c in 0..columns {
                    for r in 0..rows {
                        *to.add(c * to_stride + r) = *from.add(r * from_stride + c);
                    }
                }
                return;
            }
            // The last squares overlap those before them.
            let mut r = 0;
            while r < rows {
                r = r.min(rows - S::LANES);
                let mut c = 0;
                while c < columns {
                    c = c.min(columns - S::LANES);
                    s.turn(from.add(r * from_stride + c), from_stride, to.add(c * to_stride + r), to_stride);
                    c += S::LANES;
                }
                r += S::LANES;
            }
        }
    }
}
