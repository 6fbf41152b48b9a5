//! Weights of matmuls and convolutions, laid out once in the order in which kernels read them.

use std::sync::Arc;

use half::{bf16, f16};

use super::parallel::{ALIGN, MEMORY, pieces};
use super::simd::{Level, kernel};
use super::turn::turn;

/// Numbers as a file stores them.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

impl Stored<'_> {
    pub fn len(&self) -> usize {
        match self {
            Stored::F32(v) => v.len(),
            Stored::F16(v) => v.len(),
            Stored::BF16(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Numbers that begin with a line of cache: a vector that lies across two takes twice as long to
/// load, and large allocations begin in the middle of one.
#[derive(Debug)]
pub struct Aligned<T> {
    numbers: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub fn zeros(length: usize) -> Aligned<T> {
        let line = ALIGN * 4;
        let more = line / size_of::<T>();
        let numbers = vec![T::default(); length + more];
        let start = numbers.as_ptr().align_offset(line).min(more);
        Aligned { numbers, start, length }
    }
}

impl<T> std::ops::Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.start..][..self.length]
    }
}

impl<T> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..][..self.length]
    }
}

#[derive(Debug)]
enum Numbers {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    BF16(Aligned<bf16>),
    Q8(Blocks),
    Q4(Blocks),
}

/// Whole numbers of 8 or of 4 bits, with a factor for each [`BLOCK`] inputs of an output: GGUF's
/// Q8_0 and Q4_0, in the layout of panels.
#[derive(Debug)]
pub struct Blocks {
    /// `[out / 32][into][32]`; of 4 bits `[out / 32][into / 32][16][32]`, 8 more than they stand
    /// for, those of the first 16 inputs in the low bits.
    pub numbers: Aligned<i8>,
    /// `[out / 32][into / 32][32]`
    pub factors: Aligned<f16>,
}

/// Inputs that share a factor.
pub const BLOCK: usize = 32;

/// Outputs of a panel.
pub(crate) const PANEL: usize = 32;

/// Fewer outputs than this are summed along the inputs instead.
const FEW: usize = 9;

/// The weight of a matmul or a convolution, in the precision in which it was stored.
#[derive(Clone, Debug)]
pub struct Weights {
    numbers: Arc<Numbers>,
    pub out: usize,
    /// Inputs of each tap.
    pub into: usize,
    /// Height and width of the window: 1, 1 for a matmul.
    pub window: [usize; 2],
    /// `[out][window][into]`; else panels `[out / 32][window][into][32]`, missing outputs zero.
    few: bool,
    /// The numbers lie in the layout of the weight whose sides are not exchanged: see
    /// [`Weights::turned`].
    turned: bool,
}

impl Weights {
    /// Of `w` `[out, in, kh, kw]`, or `[out, in]` with a window of 1, 1.
    pub fn new(w: Stored<'_>, out: usize, into: usize, window: [usize; 2]) -> Weights {
        let taps = window[0] * window[1];
        assert_eq!(w.len(), out * into * taps, "a weight of {out} x {into} x {window:?}");
        Weights::pack(w, out, into, window, |o, tap, i| Some((o * into + i) * taps + tap))
    }

    fn pack(
        w: Stored<'_>,
        out: usize,
        into: usize,
        window: [usize; 2],
        index: impl Fn(usize, usize, usize) -> Option<usize> + Sync,
    ) -> Weights {
        let few = out < FEW;
        let taps = window[0] * window[1];
        let numbers = match w {
            Stored::F32(w) => Numbers::F32(arrange(w, out, into, taps, few, &index)),
            Stored::F16(w) => Numbers::F16(arrange(w, out, into, taps, few, &index)),
            Stored::BF16(w) => Numbers::BF16(arrange(w, out, into, taps, few, &index)),
        };
        Weights { numbers: Arc::new(numbers), out, into, window, few, turned: false }
    }

    /// Whether there are so few outputs that sums are made along the inputs.
    pub(crate) fn few(&self) -> bool {
        self.few
    }

    /// Multiply-adds for each output.
    pub(crate) fn depth(&self) -> usize {
        self.window[0] * self.window[1] * self.into
    }

    /// The elements `start ..` of the layout, `length` of them, as f32: where they lie, or widened
    /// to `room`.
    pub(crate) fn read(
        &self,
        level: Level,
        start: usize,
        length: usize,
        room: &mut [f32],
    ) -> *const f32 {
        if self.turned {
            self.read_turned(level, start, &mut room[..length]);
            return room.as_ptr();
        }
        match &*self.numbers {
            Numbers::F32(v) => v[start..start + length].as_ptr(),
            Numbers::F16(v) => {
                widen_f16(level, &v[start..start + length], &mut room[..length]);
                room.as_ptr()
            }
            Numbers::BF16(v) => {
                widen_bf16(level, &v[start..start + length], &mut room[..length]);
                room.as_ptr()
            }
            Numbers::Q8(v) => {
                widen_blocks::<false>(level, v, self.into, start, &mut room[..length]);
                room.as_ptr()
            }
            Numbers::Q4(v) => {
                widen_blocks::<true>(level, v, self.into, start, &mut room[..length]);
                room.as_ptr()
            }
        }
    }

    /// Room that [`Weights::read`] needs for `length` elements.
    pub(crate) fn room(&self, length: usize) -> usize {
        if matches!(*self.numbers, Numbers::F32(_)) && !self.turned { 0 } else { length }
    }
}

fn arrange<T: Number>(
    w: &[T],
    out: usize,
    into: usize,
    taps: usize,
    few: bool,
    index: &(impl Fn(usize, usize, usize) -> Option<usize> + Sync),
) -> Aligned<T> {
    let at = |o, tap, i| index(o, tap, i).map_or(T::default(), |at| w[at]);
    let (width, count) = if few { (1, out) } else { (PANEL, out.div_ceil(PANEL)) };
    let size = taps * into * width;
    let mut all = Aligned::zeros(size * count);
    if size == 0 {
        return all;
    }
    struct Target<T>(*mut T);
    unsafe impl<T> Sync for Target<T> {}
    impl<T> Target<T> {
        // Panels do not overlap, and each is made by one thread.
        #[allow(clippy::mut_from_ref)]
        unsafe fn part(&self, start: usize, size: usize) -> &mut [T] {
            unsafe { std::slice::from_raw_parts_mut(self.0.add(start), size) }
        }
    }
    let target = Target(all.as_mut_ptr());
    pieces(count, all.len() * MEMORY, |panel| {
        let part = unsafe { target.part(panel * size, size) };
        let columns = (out - panel * width).min(width);
        for (k, row) in part.chunks_exact_mut(width).enumerate() {
            for (c, v) in row[..columns].iter_mut().enumerate() {
                *v = at(panel * width + c, k / into, k % into);
            }
        }
    });
    all
}

/// f16 to f32.
pub fn widen_f16(level: Level, from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    unsafe { widen::<true>(level, from.as_ptr().cast(), to.as_mut_ptr(), to.len()) }
}

/// bf16 to f32.
pub fn widen_bf16(level: Level, from: &[bf16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    unsafe { widen::<false>(level, from.as_ptr().cast(), to.as_mut_ptr(), to.len()) }
}

kernel! {
    fn widen[const F16: bool](s: S, from: *const u16, to: *mut f32, count: usize) {
        unsafe {
            let whole = count / S::LANES * S::LANES;
            let mut i = 0;
            while i < whole {
                let v = if F16 { s.load_f16(from.add(i)) } else { s.load_bf16(from.add(i)) };
                s.store(to.add(i), v);
                i += S::LANES;
            }
            if i < count {
                let mut rest = [0u16; 64];
                std::ptr::copy_nonoverlapping(from.add(i), rest.as_mut_ptr(), count - i);
                let rest = rest.as_ptr();
                let v = if F16 { s.load_f16(rest) } else { s.load_bf16(rest) };
                s.store_first(to.add(i), v, count - i);
            }
        }
    }
}

/// Elements `start ..` of blocks of `into` inputs, whole rows of a panel, to f32.
fn widen_blocks<const NIBBLES: bool>(
    level: Level,
    from: &Blocks,
    into: usize,
    start: usize,
    to: &mut [f32],
) {
    let row = start / PANEL;
    assert!(start.is_multiple_of(PANEL) && to.len().is_multiple_of(PANEL));
    let all = from.factors.len() * BLOCK;
    assert!(start + to.len() <= all && into.is_multiple_of(BLOCK) && into > 0);
    assert_eq!(from.numbers.len(), if NIBBLES { all / 2 } else { all });
    // Blocks of a panel follow each other as its rows do, a factor's row for each 32 of them.
    let (numbers, factors) = (from.numbers.as_ptr(), from.factors.as_ptr().cast());
    let (to, rows) = (to.as_mut_ptr(), to.len() / PANEL);
    unsafe {
        match NIBBLES {
            false => widen_q8(level, numbers, factors, row, to, rows),
            true => widen_q4(level, numbers.cast(), factors, row, to, rows),
        }
    }
}

kernel! {
    fn widen_q8(
        s: S,
        numbers: *const i8,
        factors: *const u16,
        row: usize,
        to: *mut f32,
        rows: usize
    ) {
        unsafe {
            let mut done = 0;
            while done < rows {
                let (block, first) = ((row + done) / BLOCK, (row + done) % BLOCK);
                let count = (BLOCK - first).min(rows - done);
                let mut lane = 0;
                while lane < PANEL {
                    let factor = s.load_f16(factors.add(block * PANEL + lane));
                    for i in 0..count {
                        let at = (row + done + i) * PANEL + lane;
                        let value = s.mul(s.load_i8(numbers.add(at)), factor);
                        s.store(to.add((done + i) * PANEL + lane), value);
                    }
                    lane += S::LANES;
                }
                done += count;
            }
        }
    }
}

kernel! {
    fn widen_q4(
        s: S,
        numbers: *const u8,
        factors: *const u16,
        row: usize,
        to: *mut f32,
        rows: usize
    ) {
        const HALF: usize = BLOCK / 2;
        unsafe {
            let mut done = 0;
            while done < rows {
                let (block, first) = ((row + done) / BLOCK, (row + done) % BLOCK);
                let count = (BLOCK - first).min(rows - done);
                let mut lane = 0;
                while lane < PANEL {
                    let factor = s.load_f16(factors.add(block * PANEL + lane));
                    let from = numbers.add(block * HALF * PANEL + lane);
                    let to = to.add(done * PANEL + lane);
                    if count == BLOCK {
                        for i in 0..HALF {
                            let [low, high] = s.load_nibbles(from.add(i * PANEL));
                            s.store(to.add(i * PANEL), s.mul(low, factor));
                            s.store(to.add((HALF + i) * PANEL), s.mul(high, factor));
                        }
                    } else {
                        for i in 0..count {
                            let at = first + i;
                            let both = s.load_nibbles(from.add(at % HALF * PANEL));
                            s.store(to.add(i * PANEL), s.mul(both[at / HALF], factor));
                        }
                    }
                    lane += S::LANES;
                }
                done += count;
            }
        }
    }
}

/// Numbers in which weights may be held.
pub trait Number: Copy + Default + Send + Sync {
    fn hold(numbers: Aligned<Self>) -> Held;
}

/// What [`Weights::of_layout`] takes.
pub struct Held(Numbers);

impl Number for f32 {
    fn hold(numbers: Aligned<f32>) -> Held {
        Held(Numbers::F32(numbers))
    }
}

impl Number for f16 {
    fn hold(numbers: Aligned<f16>) -> Held {
        Held(Numbers::F16(numbers))
    }
}

impl Held {
    /// Of blocks of 8 bits.
    pub fn blocks(blocks: Blocks) -> Held {
        Held(Numbers::Q8(blocks))
    }

    /// Of blocks of 4 bits.
    pub fn nibbles(blocks: Blocks) -> Held {
        Held(Numbers::Q4(blocks))
    }
}

/// Whether a weight of these sides, a matrix, can be held in blocks.
pub fn holds_blocks(out: usize, into: usize) -> bool {
    out >= FEW && into >= BLOCK && into.is_multiple_of(BLOCK)
}

impl Number for bf16 {
    fn hold(numbers: Aligned<bf16>) -> Held {
        Held(Numbers::BF16(numbers))
    }
}

/// Outputs that lie side by side in the layout of a weight of `out` outputs.
pub fn outputs_together(out: usize) -> usize {
    if out < FEW { 1 } else { PANEL }
}

impl Weights {
    /// Of numbers that lie in the layout already, `[out / n][window][into][n]`, n being
    /// [`outputs_together`].
    pub fn of_layout(held: Held, out: usize, into: usize, window: [usize; 2]) -> Weights {
        let weights =
            Weights { numbers: Arc::new(held.0), out, into, window, few: out < FEW, turned: false };
        let together = outputs_together(out);
        let count = match &*weights.numbers {
            Numbers::F32(v) => v.len(),
            Numbers::F16(v) => v.len(),
            Numbers::BF16(v) => v.len(),
            Numbers::Q8(v) => v.numbers.len(),
            Numbers::Q4(v) => v.numbers.len() * 2,
        };
        assert_eq!(
            count,
            out.div_ceil(together) * together * weights.depth(),
            "a weight of {out} x {into} x {window:?}"
        );
        weights
    }
}

/// Whether a weight of these sides is held once for both.
pub fn can_be_turned(out: usize, into: usize) -> bool {
    out >= FEW && into >= FEW
}

impl Weights {
    /// The same numbers, which are not copied, with the sides exchanged and the window reversed:
    /// for the matmul of the other side, and for the convolution that is the gradient of one of
    /// stride 1. None where [`can_be_turned`] says so.
    pub fn turned(&self) -> Option<Weights> {
        let (out, into) = (self.into, self.out);
        let fits = can_be_turned(out, into) && !self.turned;
        fits.then(|| Weights {
            numbers: self.numbers.clone(),
            out,
            into,
            few: false,
            turned: true,
            ..*self
        })
    }

    /// Rows of a panel, turned round in squares.
    fn read_turned(&self, level: Level, start: usize, room: &mut [f32]) {
        let (taps, out, into) = (self.window[0] * self.window[1], self.into, self.out);
        let depth = taps * out;
        let (panel, mut k) = (start / PANEL / depth, start / PANEL % depth);
        let first = panel * PANEL;
        let columns = PANEL.min(into - first);
        let mut near = [0.0; PANEL * PANEL];
        let mut room = room;
        while !room.is_empty() {
            let (tap, o) = (taps - 1 - k / out, k % out);
            let count = (PANEL - o % PANEL).min(out - o).min(room.len() / PANEL);
            let from = ((o / PANEL * taps + tap) * into + first) * PANEL;
            let own = from..from + columns * PANEL;
            let square = match &*self.numbers {
                Numbers::F32(v) => &v[own],
                Numbers::F16(v) => {
                    widen_f16(level, &v[own], &mut near[..columns * PANEL]);
                    &near[..columns * PANEL]
                }
                Numbers::BF16(v) => {
                    widen_bf16(level, &v[own], &mut near[..columns * PANEL]);
                    &near[..columns * PANEL]
                }
                Numbers::Q8(v) => {
                    let near = &mut near[..columns * PANEL];
                    widen_blocks::<false>(level, v, into, own.start, near);
                    near
                }
                Numbers::Q4(v) => {
                    let near = &mut near[..columns * PANEL];
                    widen_blocks::<true>(level, v, into, own.start, near);
                    near
                }
            };
            let (rows, rest) = room.split_at_mut(count * PANEL);
            unsafe {
                let (from, to) = (square.as_ptr().add(o % PANEL), rows.as_mut_ptr());
                turn(level, from, PANEL, columns, count, to, PANEL);
            }
            if columns < PANEL {
                rows.chunks_exact_mut(PANEL).for_each(|row| row[columns..].fill(0.0));
            }
            (k, room) = (k + count, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place where a read may begin, forwards and turned, by every level.
    #[test]
    fn blocks_widen_to_their_numbers() {
        let (out, into) = (70usize, 96usize);
        let panels = out.div_ceil(PANEL);
        for nibbles in [false, true] {
            let number = |o: usize, i: usize| {
                let any = (o * 31 + i * 7) as i32;
                if nibbles { any % 16 - 8 } else { any % 256 - 128 }
            };
            let factor =
                |o: usize, b: usize| f16::from_f32(0.01 + (o % 7) as f32 * 0.003 + b as f32);
            let each = if nibbles { BLOCK / 2 } else { BLOCK };
            let mut numbers = Aligned::<i8>::zeros(panels * into / BLOCK * each * PANEL);
            let mut factors = Aligned::<f16>::zeros(panels * into / BLOCK * PANEL);
            for o in 0..out {
                let (panel, lane) = (o / PANEL, o % PANEL);
                for i in 0..into {
                    let block = panel * into / BLOCK + i / BLOCK;
                    let at = (block * each + i % each) * PANEL + lane;
                    let nibble = (number(o, i) + 8) << (i % BLOCK / each * 4);
                    match nibbles {
                        false => numbers[at] = number(o, i) as i8,
                        true => numbers[at] |= nibble as u8 as i8,
                    }
                    factors[block * PANEL + lane] = factor(o, i / BLOCK);
                }
            }
            let blocks = Blocks { numbers, factors };
            let held = if nibbles { Held::nibbles(blocks) } else { Held::blocks(blocks) };
            let weights = Weights::of_layout(held, out, into, [1, 1]);
            assert!(holds_blocks(out, into) && !holds_blocks(8, 96) && !holds_blocks(70, 48));
            let value = |o: usize, i: usize| {
                if o < out { number(o, i) as f32 * factor(o, i / BLOCK).to_f32() } else { 0.0 }
            };
            for &level in Level::available() {
                for (first, rows) in [(0, 96), (5, 40), (96, 96), (100, 90), (250, 20), (31, 2)] {
                    let mut room = vec![0.0; rows * PANEL];
                    weights.read(level, first * PANEL, rows * PANEL, &mut room);
                    for (at, found) in room.iter().enumerate() {
                        let (row, lane) = (first + at / PANEL, at % PANEL);
                        let (o, i) = (row / into * PANEL + lane, row % into);
                        assert_eq!(*found, value(o, i), "{level:?} {nibbles} {o} {i}");
                    }
                }
                let turned = weights.turned().unwrap();
                let mut room = vec![0.0; out * PANEL];
                turned.read(level, 0, out * PANEL, &mut room);
                for (at, found) in room.iter().enumerate() {
                    assert_eq!(*found, value(at / PANEL, at % PANEL), "{level:?} {nibbles}");
                }
            }
        }
    }
}
