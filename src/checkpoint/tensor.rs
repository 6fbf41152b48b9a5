//! A tensor as it lies in a file: element type, shape, little-endian bytes.
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::blocks;
use super::dtype::DType;

/// A tensor in row-major order whose bytes usually lie in a memory-mapped file. Nothing is read
/// before it is asked for.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: Cow<'a, [usize]>,
    bytes: Cow<'a, [u8]>,
    scale: Scale,
}

/// What stored elements are multiplied by: 8-bit weights have a scale of their own.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Scale {
    #[default]
    One,
    Whole(f32),
    /// A number for each row.
    Rows(Arc<[f32]>),
}

impl<'a> TensorView<'a> {
    /// A tensor from its parts; `None` when `bytes` is not as long as type and shape say.
    pub fn new(
        dtype: DType,
        shape: impl Into<Cow<'a, [usize]>>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Option<Self> {
        let (shape, bytes) = (shape.into(), bytes.into());
        (byte_len(dtype, &shape) == Some(bytes.len())).then_some(Self {
            dtype,
            shape,
            bytes,
            scale: Scale::One,
        })
    }

    /// A single-precision tensor from values; `None` when their number is not the shape's product.
    pub fn from_f32(shape: impl Into<Cow<'a, [usize]>>, values: &'a [f32]) -> Option<Self> {
        let bytes: Cow<'a, [u8]> = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        };
        Self::new(DType::F32, shape, bytes)
    }

    /// The same tensor with every element multiplied.
    pub(super) fn scaled(self, scale: Scale) -> Self {
        Self { scale, ..self }
    }

    /// The tensor as others may store it: one with a scale, or in blocks, has it in its elements, as
    /// f16.
    pub(super) fn plain(&self) -> TensorView<'_> {
        let (dtype, bytes) = match (&self.scale, self.dtype.is_quantised()) {
            (Scale::One, false) => (self.dtype, Cow::Borrowed(&*self.bytes)),
            _ => {
                let values = self.to_f32(0..self.len());
                (DType::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect())
            }
        };
        TensorView { dtype, shape: Cow::Borrowed(&*self.shape), bytes, scale: Scale::One }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Little-endian bytes as stored, in row-major order, without the scale. Not aligned to the
    /// element type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dtype.elements(self.bytes.len())
    }

    /// It has no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Elements of `range` as f32, rounded to nearest where f32 is narrower.
    ///
    /// # Panics
    /// When `range` reaches past the end, as slicing does.
    pub fn to_f32(&self, range: Range<usize>) -> Vec<f32> {
        let mut out = vec![0.0; range.len()];
        self.write_f32(range, &mut out);
        out
    }

    /// As [`to_f32`](Self::to_f32), into a buffer that is as long as `range`.
    ///
    /// # Panics
    /// When `range` reaches past the end, or `out` is of another length.
    pub fn write_f32(&self, range: Range<usize>, out: &mut [f32]) {
        assert_eq!(range.len(), out.len(), "the buffer's length is not the range's");
        if self.dtype.is_quantised() {
            return blocks::read(self.dtype, &self.bytes, range.start, out);
        }
        let size = self.dtype.size();
        let bytes = &self.bytes[range.start * size..range.end * size];
        macro_rules! convert {
            ($type:ty, $into:expr) => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<{ size_of::<$type>() }>().0) {
                    *o = $into(<$type>::from_le_bytes(*b));
                }
            };
        }
        match self.dtype {
            DType::Bool | DType::U8 => convert!(u8, f32::from),
            DType::I8 => convert!(i8, f32::from),
            DType::F8E5M2 => convert!(u8, |b| f16::from_bits(u16::from(b) << 8).to_f32()),
            DType::F8E4M3 => convert!(u8, f8_e4m3),
            DType::U16 => convert!(u16, f32::from),
            DType::I16 => convert!(i16, f32::from),
            DType::F16 => f16_to_f32(bytes, out),
            DType::BF16 => convert!(bf16, bf16::to_f32),
            DType::U32 => convert!(u32, |x| x as f32),
            DType::I32 => convert!(i32, |x| x as f32),
            DType::F32 => convert!(f32, |x| x),
            DType::U64 => convert!(u64, |x| x as f32),
            DType::I64 => convert!(i64, |x| x as f32),
            DType::F64 => convert!(f64, |x| x as f32),
            // Read above.
            _ => {}
        }
        match &self.scale {
            Scale::One => {}
            Scale::Whole(scale) => out.iter_mut().for_each(|value| *value *= scale),
            Scale::Rows(scales) => {
                let width = self.shape.iter().skip(1).product::<usize>().max(1);
                for (at, value) in range.zip(out) {
                    *value *= scales.get(at / width).copied().unwrap_or(1.0);
                }
            }
        }
    }

    /// A matrix's transpose, copied. Tensors of other ranks come back as they are; those in blocks
    /// or with scales of their rows as f32.
    pub(super) fn transposed(&self) -> TensorView<'static> {
        if self.dtype.is_quantised() || matches!(self.scale, Scale::Rows(_)) {
            let values = self.to_f32(0..self.len());
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let shape = Cow::Owned(self.shape.to_vec());
            let wide =
                TensorView { dtype: DType::F32, shape, bytes: bytes.into(), scale: Scale::One };
            return wide.transposed();
        }
        let (mut shape, mut bytes) = (self.shape.to_vec(), self.bytes.to_vec());
        if let [rows, columns] = *self.shape {
            let size = self.dtype.size();
            for (r, row) in self.bytes.chunks_exact((columns * size).max(1)).enumerate() {
                for (c, element) in row.chunks_exact(size).enumerate() {
                    let at = (c * rows + r) * size;
                    bytes[at..at + size].copy_from_slice(element);
                }
            }
            shape.swap(0, 1);
        }
        TensorView {
            dtype: self.dtype,
            shape: shape.into(),
            bytes: bytes.into(),
            scale: self.scale.clone(),
        }
    }
}

/// Piecewise through an aligned buffer, since only whole slices are converted by the processor's
/// own instructions.
fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    let mut buffer = [f16::ZERO; 256];
    for (out, bytes) in out.chunks_mut(buffer.len()).zip(bytes.chunks(2 * buffer.len())) {
        let buffer = &mut buffer[..out.len()];
        for (b, bits) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *b = f16::from_le_bytes(*bits);
        }
        buffer.convert_to_f32_slice(out);
    }
}

/// Bytes of a tensor; `None` when that overflows, or its rows are no whole blocks.
pub(super) fn byte_len(dtype: DType, shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, however large the other sizes are.
    if shape.contains(&0) {
        return Some(0);
    }
    let (together, size) = dtype.block();
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    // A block does not go on in the next row.
    let whole = together == 1 || shape.last().is_some_and(|columns| columns % together == 0);
    whole.then(|| (elements / together).checked_mul(size)).flatten()
}

/// The 8-bit float without infinities: bias 7, and only S.1111.111 is not a number.
fn f8_e4m3(bits: u8) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * (-9f32).exp2(),
        _ => sign * (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dtype: DType, bytes: &[u8]) -> Vec<f32> {
        let view = TensorView::new(dtype, vec![bytes.len() / dtype.size()], bytes).unwrap();
        view.to_f32(0..view.len())
    }

    #[test]
    fn every_type_converts_to_f32() {
        assert_eq!(values(DType::Bool, &[0, 1]), [0.0, 1.0]);
        assert_eq!(values(DType::U8, &[255]), [255.0]);
        assert_eq!(values(DType::I8, &[255]), [-1.0]);
        assert_eq!(values(DType::F8E5M2, &[0x3c, 0xc0, 0x01]), [1.0, -2.0, 1.0 / 65536.0]);
        assert_eq!(
            values(DType::F8E4M3, &[0x38, 0xb8, 0x7e, 0x01]),
            [1.0, -1.0, 448.0, 1.0 / 512.0]
        );
        assert!(values(DType::F8E4M3, &[0x7f])[0].is_nan());
        assert_eq!(values(DType::U16, &[1, 1]), [257.0]);
        assert_eq!(values(DType::I16, &[0xfe, 0xff]), [-2.0]);
        assert_eq!(values(DType::F16, &[0x00, 0x3c, 0x01, 0x00]), [1.0, 2f32.powi(-24)]);
        assert_eq!(values(DType::BF16, &[0x80, 0x3f]), [1.0]);
        assert_eq!(values(DType::U32, &7u32.to_le_bytes()), [7.0]);
        assert_eq!(values(DType::I32, &(-7i32).to_le_bytes()), [-7.0]);
        assert_eq!(values(DType::F32, &0.1f32.to_le_bytes()), [0.1]);
        assert_eq!(values(DType::U64, &9u64.to_le_bytes()), [9.0]);
        assert_eq!(values(DType::I64, &(-9i64).to_le_bytes()), [-9.0]);
        assert_eq!(values(DType::F64, &0.1f64.to_le_bytes()), [0.1]);
    }

    #[test]
    fn a_sub_range_is_converted_alone() {
        let data: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let view = TensorView::from_f32(vec![2, 3], &data).unwrap();
        assert_eq!(view.to_f32(2..5), [2.0, 3.0, 4.0]);
        assert!(view.to_f32(6..6).is_empty());
    }

    #[test]
    fn a_shape_that_contradicts_the_bytes_is_refused() {
        assert!(TensorView::new(DType::F32, vec![2, 2], vec![0; 15]).is_none());
        assert!(TensorView::new(DType::F32, vec![usize::MAX, 8], vec![0; 16]).is_none());
        assert!(TensorView::new(DType::F32, vec![usize::MAX, 8, 0], vec![]).is_some());
    }

    #[test]
    fn a_scale_multiplies_the_elements() {
        let view = TensorView::new(DType::F8E4M3, vec![1, 2], vec![0x38, 0xb8]).unwrap();
        let view = view.scaled(Scale::Whole(0.25));
        assert_eq!(
            (view.to_f32(0..2), view.transposed().to_f32(0..2)),
            (vec![0.25, -0.25], vec![0.25, -0.25])
        );
        let plain = view.plain();
        assert_eq!(
            (plain.dtype(), plain.scale.clone(), plain.to_f32(0..2)),
            (DType::F16, Scale::One, vec![0.25, -0.25])
        );
        // One for each row.
        let view = TensorView::new(DType::I8, vec![2, 2], vec![1, 2, 3, 4]).unwrap();
        let view = view.scaled(Scale::Rows([0.5, 10.0].into()));
        assert_eq!(view.to_f32(0..4), [0.5, 1.0, 30.0, 40.0]);
        assert_eq!(view.to_f32(1..3), [1.0, 30.0]);
        assert_eq!(view.transposed().to_f32(0..4), [0.5, 30.0, 1.0, 40.0]);
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let view = TensorView::from_f32(vec![2, 3], &data).unwrap().transposed();
        assert_eq!(
            (view.shape(), view.to_f32(0..6)),
            (&[3, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
        );
    }
}
