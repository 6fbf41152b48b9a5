//! Arithmetic on bits: what WGSL's operators and functions give.

use half::f16;
use naga::{BinaryOperator, MathFunction, RelationalFunction, TypeInner, UnaryOperator};

use super::Refusal;
use super::types::Scalar;
use super::values::Data;

pub(super) fn to_f32(scalar: Scalar, bits: u32) -> f32 {
    match scalar {
        Scalar::F16 => f16::from_bits(bits as u16).to_f32(),
        _ => f32::from_bits(bits),
    }
}

fn from_f32(scalar: Scalar, value: f32) -> u32 {
    match scalar {
        Scalar::F16 => u32::from(f16::from_f32(value).to_bits()),
        _ => value.to_bits(),
    }
}

pub(super) fn unary(op: UnaryOperator, scalar: Scalar, bits: u32) -> u32 {
    match (op, scalar) {
        (UnaryOperator::Negate, Scalar::F32 | Scalar::F16) => {
            from_f32(scalar, -to_f32(scalar, bits))
        }
        (UnaryOperator::Negate, _) => (bits as i32).wrapping_neg() as u32,
        (UnaryOperator::LogicalNot, _) => u32::from(bits == 0),
        (UnaryOperator::BitwiseNot, _) => !bits,
    }
}

pub(super) fn binary(op: BinaryOperator, scalar: Scalar, a: u32, b: u32) -> u32 {
    match scalar {
        Scalar::F32 | Scalar::F16 => floats(op, scalar, a, b),
        Scalar::I32 => signed(op, a as i32, b),
        Scalar::U32 => unsigned(op, a, b),
        Scalar::Bool => match op {
            BinaryOperator::Equal => u32::from(a == b),
            BinaryOperator::NotEqual | BinaryOperator::ExclusiveOr => u32::from(a != b),
            BinaryOperator::And | BinaryOperator::LogicalAnd => a & b,
            _ => a | b,
        },
    }
}

fn floats(op: BinaryOperator, scalar: Scalar, a: u32, b: u32) -> u32 {
    let (a, b) = (to_f32(scalar, a), to_f32(scalar, b));
    let number = |value: f32| from_f32(scalar, value);
    match op {
        BinaryOperator::Add => number(a + b),
        BinaryOperator::Subtract => number(a - b),
        BinaryOperator::Multiply => number(a * b),
        BinaryOperator::Divide => number(a / b),
        BinaryOperator::Modulo => number(a % b),
        BinaryOperator::Equal => u32::from(a == b),
        BinaryOperator::NotEqual => u32::from(a != b),
        BinaryOperator::Less => u32::from(a < b),
        BinaryOperator::LessEqual => u32::from(a <= b),
        BinaryOperator::Greater => u32::from(a > b),
        BinaryOperator::GreaterEqual => u32::from(a >= b),
        _ => 0,
    }
}

fn signed(op: BinaryOperator, a: i32, bits: u32) -> u32 {
    let b = bits as i32;
    match op {
        BinaryOperator::Divide => (if b == 0 { a } else { a.wrapping_div(b) }) as u32,
        BinaryOperator::Modulo => (if b == 0 { 0 } else { a.wrapping_rem(b) }) as u32,
        BinaryOperator::Less => u32::from(a < b),
        BinaryOperator::LessEqual => u32::from(a <= b),
        BinaryOperator::Greater => u32::from(a > b),
        BinaryOperator::GreaterEqual => u32::from(a >= b),
        BinaryOperator::ShiftRight => a.wrapping_shr(bits) as u32,
        _ => unsigned(op, a as u32, bits),
    }
}

fn unsigned(op: BinaryOperator, a: u32, b: u32) -> u32 {
    match op {
        BinaryOperator::Add => a.wrapping_add(b),
        BinaryOperator::Subtract => a.wrapping_sub(b),
        BinaryOperator::Multiply => a.wrapping_mul(b),
        BinaryOperator::Divide => a.checked_div(b).unwrap_or(a),
        BinaryOperator::Modulo => a.checked_rem(b).unwrap_or(0),
        BinaryOperator::Equal => u32::from(a == b),
        BinaryOperator::NotEqual => u32::from(a != b),
        BinaryOperator::Less => u32::from(a < b),
        BinaryOperator::LessEqual => u32::from(a <= b),
        BinaryOperator::Greater => u32::from(a > b),
        BinaryOperator::GreaterEqual => u32::from(a >= b),
        BinaryOperator::And | BinaryOperator::LogicalAnd => a & b,
        BinaryOperator::ExclusiveOr => a ^ b,
        BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr => a | b,
        BinaryOperator::ShiftLeft => a.wrapping_shl(b),
        BinaryOperator::ShiftRight => a.wrapping_shr(b),
    }
}

/// A product of matrices: rows, terms of a sum, columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    rows: usize,
    terms: usize,
    columns: usize,
}

/// Whether `op` multiplies matrices as such.
pub(super) fn product_of(
    op: BinaryOperator,
    left: &TypeInner,
    right: &TypeInner,
) -> Option<Product> {
    if op != BinaryOperator::Multiply {
        return None;
    }
    match (left, right) {
        (&TypeInner::Matrix { columns, rows, .. }, TypeInner::Vector { .. }) => {
            Some(Product { rows: rows as usize, terms: columns as usize, columns: 1 })
        }
        (TypeInner::Vector { .. }, &TypeInner::Matrix { columns, rows, .. }) => {
            Some(Product { rows: 1, terms: rows as usize, columns: columns as usize })
        }
        (&TypeInner::Matrix { columns: terms, rows, .. }, &TypeInner::Matrix { columns, .. }) => {
            Some(Product { rows: rows as usize, terms: terms as usize, columns: columns as usize })
        }
        _ => None,
    }
}

pub(super) fn multiplied(a: &Data, b: &Data, of: Product, scalar: Scalar, lanes: usize) -> Data {
    let Product { rows, terms, columns } = of;
    Data::gather(&[a, b], lanes, rows * columns, |at, out| {
        for column in 0..columns {
            for row in 0..rows {
                let term = |k: usize| {
                    to_f32(scalar, at(0, k * rows + row))
                        * to_f32(scalar, at(1, column * terms + k))
                };
                out[column * rows + row] = from_f32(scalar, (0..terms).map(term).sum());
            }
        }
    })
}

pub(super) fn converted(from: Scalar, to: Scalar, bits: u32) -> u32 {
    if from == to {
        return bits;
    }
    if to == Scalar::Bool {
        let float = from.is_float();
        return u32::from(if float { to_f32(from, bits) != 0.0 } else { bits != 0 });
    }
    match (from, to) {
        (Scalar::F32 | Scalar::F16, Scalar::F32 | Scalar::F16) => from_f32(to, to_f32(from, bits)),
        // `as` ends at the greatest and the least number, as WGSL has it.
        (Scalar::F32 | Scalar::F16, Scalar::U32) => to_f32(from, bits) as u32,
        (Scalar::F32 | Scalar::F16, _) => to_f32(from, bits) as i32 as u32,
        (Scalar::I32, Scalar::F32 | Scalar::F16) => from_f32(to, bits as i32 as f32),
        (_, Scalar::F32 | Scalar::F16) => from_f32(to, bits as f32),
        _ => bits,
    }
}

pub(super) fn relational(
    fun: RelationalFunction,
    scalar: Scalar,
    data: &Data,
    lanes: usize,
) -> Result<Data, Refusal> {
    let components = data.components(lanes);
    Ok(match fun {
        RelationalFunction::All => Data::gather(&[data], lanes, 1, |at, out| {
            out[0] = u32::from((0..components).all(|c| at(0, c) != 0));
        }),
        RelationalFunction::Any => Data::gather(&[data], lanes, 1, |at, out| {
            out[0] = u32::from((0..components).any(|c| at(0, c) != 0));
        }),
        RelationalFunction::IsNan => data.map(|bits| u32::from(to_f32(scalar, bits).is_nan())),
        RelationalFunction::IsInf => data.map(|bits| u32::from(to_f32(scalar, bits).is_infinite())),
    })
}

/// Whether a function makes f16 of f32.
pub(super) fn makes_halves(fun: MathFunction) -> bool {
    matches!(fun, MathFunction::Pack2x16float | MathFunction::QuantizeToF16)
}

/// A function of numbers; `of` are its arguments.
pub(super) fn function(
    fun: MathFunction,
    scalar: Scalar,
    of: &[&Data],
    lanes: usize,
) -> Result<Data, Refusal> {
    if let Some(data) = geometry(fun, scalar, of, lanes).or_else(|| packing(fun, of, lanes)) {
        return Ok(data);
    }
    if let [a] = of
        && let Some(f) = of_one(fun, scalar)
    {
        return Ok(a.map(f));
    }
    let [a, rest @ ..] = of else { return Err(unknown(fun)) };
    let components = of.iter().map(|data| data.components(lanes)).max().unwrap_or(1);
    let count = of.len();
    let one = of.iter().map(|data| data.components(lanes) == 1).collect::<Vec<_>>();
    let f: &dyn Fn(&[u32]) -> Option<u32> = match scalar.is_float() {
        true => &|all| {
            let mut values = [0.0; 4];
            for (value, &bits) in values.iter_mut().zip(all) {
                *value = to_f32(scalar, bits);
            }
            if fun == MathFunction::Ldexp {
                let exponent = all.get(1).map_or(0, |&bits| bits as i32);
                let scaled = f64::from(values[0]) * 2f64.powi(exponent.clamp(-2000, 2000));
                return Some(from_f32(scalar, scaled as f32));
            }
            Some(from_f32(scalar, of_floats(fun, values)?))
        },
        false => &|all| of_integers(fun, scalar, all),
    };
    let _ = rest;
    let probe: Vec<u32> = of.iter().map(|data| data.bits[0]).collect();
    if f(&probe).is_none() {
        return Err(unknown(fun));
    }
    let _ = a;
    Ok(Data::gather(of, lanes, components, |at, out| {
        let mut all = [0; 4];
        for (component, out) in out.iter_mut().enumerate() {
            for (index, slot) in all[..count].iter_mut().enumerate() {
                *slot = at(index, if one[index] { 0 } else { component });
            }
            *out = f(&all[..count]).unwrap_or(0);
        }
    }))
}

fn unknown(fun: MathFunction) -> Refusal {
    Refusal(format!("{fun:?} is not known to it"))
}

/// Functions of one float, and of one integer.
fn of_one(fun: MathFunction, scalar: Scalar) -> Option<Box<dyn Fn(u32) -> u32>> {
    use MathFunction as F;
    let float: fn(f32) -> f32 = match fun {
        F::Abs => f32::abs,
        F::Saturate => |x| x.clamp(0.0, 1.0),
        F::Cos => f32::cos,
        F::Cosh => f32::cosh,
        F::Sin => f32::sin,
        F::Sinh => f32::sinh,
        F::Tan => f32::tan,
        F::Tanh => f32::tanh,
        F::Acos => f32::acos,
        F::Asin => f32::asin,
        F::Atan => f32::atan,
        F::Asinh => f32::asinh,
        F::Acosh => f32::acosh,
        F::Atanh => f32::atanh,
        F::Radians => f32::to_radians,
        F::Degrees => f32::to_degrees,
        F::Ceil => f32::ceil,
        F::Floor => f32::floor,
        F::Round => f32::round_ties_even,
        F::Fract => |x| x - x.floor(),
        F::Trunc => f32::trunc,
        F::Exp => f32::exp,
        F::Exp2 => f32::exp2,
        F::Log => f32::ln,
        F::Log2 => f32::log2,
        F::Sqrt => f32::sqrt,
        F::InverseSqrt => |x| (1.0 / f64::from(x).sqrt()) as f32,
        F::Sign => |x| if x == 0.0 || x.is_nan() { x } else { x.signum() },
        F::QuantizeToF16 => |x| f16::from_f32(x).to_f32(),
        _ => return of_one_integer(fun, scalar),
    };
    if !scalar.is_float() {
        return of_one_integer(fun, scalar);
    }
    Some(Box::new(move |bits| from_f32(scalar, float(to_f32(scalar, bits)))))
}

fn of_one_integer(fun: MathFunction, scalar: Scalar) -> Option<Box<dyn Fn(u32) -> u32>> {
    use MathFunction as F;
    let signed = scalar == Scalar::I32;
    Some(match fun {
        F::Abs if signed => Box::new(|bits| (bits as i32).wrapping_abs() as u32),
        F::Abs => Box::new(|bits| bits),
        F::Sign if signed => Box::new(|bits| (bits as i32).signum() as u32),
        F::CountTrailingZeros => Box::new(u32::trailing_zeros),
        F::CountLeadingZeros => Box::new(u32::leading_zeros),
        F::CountOneBits => Box::new(u32::count_ones),
        F::ReverseBits => Box::new(u32::reverse_bits),
        F::FirstTrailingBit => {
            Box::new(|bits| if bits == 0 { u32::MAX } else { bits.trailing_zeros() })
        }
        F::FirstLeadingBit => Box::new(move |bits| {
            let bits = if signed && (bits as i32) < 0 { !bits } else { bits };
            if bits == 0 { u32::MAX } else { 31 - bits.leading_zeros() }
        }),
        _ => return None,
    })
}

fn of_floats(fun: MathFunction, [a, b, c, _]: [f32; 4]) -> Option<f32> {
    use MathFunction as F;
    Some(match fun {
        F::Min => a.min(b),
        F::Max => a.max(b),
        F::Clamp => a.max(b).min(c),
        F::Atan2 => a.atan2(b),
        F::Pow => a.powf(b),
        // Exact but for the last rounding, which some devices do twice.
        F::Fma => f64::from(a).mul_add(f64::from(b), f64::from(c)) as f32,
        F::Mix => a * (1.0 - c) + b * c,
        F::Step => f32::from(u8::from(a <= b)),
        F::SmoothStep => {
            let t = ((c - a) / (b - a)).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        }
        _ => return None,
    })
}

fn of_integers(fun: MathFunction, scalar: Scalar, all: &[u32]) -> Option<u32> {
    use MathFunction as F;
    let at = |index: usize| all.get(index).copied().unwrap_or(0);
    let (a, b, c) = (at(0), at(1), at(2));
    let signed = scalar == Scalar::I32;
    Some(match fun {
        F::Min if signed => (a as i32).min(b as i32) as u32,
        F::Max if signed => (a as i32).max(b as i32) as u32,
        F::Clamp if signed => (a as i32).max(b as i32).min(c as i32) as u32,
        F::Min => a.min(b),
        F::Max => a.max(b),
        F::Clamp => a.max(b).min(c),
        F::ExtractBits => {
            let offset = b.min(32);
            let count = c.min(32 - offset);
            let kept = if count == 0 { 0 } else { (a >> offset) & (u32::MAX >> (32 - count)) };
            let negative = signed && count > 0 && kept >> (count - 1) & 1 == 1;
            if negative && count < 32 { kept | (u32::MAX << count) } else { kept }
        }
        F::InsertBits => {
            let offset = c.min(32);
            let count = at(3).min(32 - offset);
            let mask = if count == 0 { 0 } else { (u32::MAX >> (32 - count)) << offset };
            (a & !mask) | (b.checked_shl(offset).unwrap_or(0) & mask)
        }
        _ => return None,
    })
}

/// Functions of whole vectors.
fn geometry(fun: MathFunction, scalar: Scalar, of: &[&Data], lanes: usize) -> Option<Data> {
    use MathFunction as F;
    let components = of.first()?.components(lanes);
    let float = |bits: u32| to_f32(scalar, bits);
    let dot = |at: &dyn Fn(usize, usize) -> u32, a: usize, b: usize| -> f32 {
        (0..components).map(|c| float(at(a, c)) * float(at(b, c))).sum()
    };
    let number = |value: f32| from_f32(scalar, value);
    Some(match fun {
        F::Dot if scalar.is_float() => {
            Data::gather(of, lanes, 1, |at, out| out[0] = number(dot(at, 0, 1)))
        }
        F::Dot => Data::gather(of, lanes, 1, |at, out| {
            out[0] = (0..components)
                .fold(0u32, |sum, c| sum.wrapping_add(at(0, c).wrapping_mul(at(1, c))));
        }),
        F::Length => Data::gather(of, lanes, 1, |at, out| out[0] = number(dot(at, 0, 0).sqrt())),
        F::Distance => Data::gather(of, lanes, 1, |at, out| {
            let square = |c: usize| (float(at(0, c)) - float(at(1, c))).powi(2);
            out[0] = number((0..components).map(square).sum::<f32>().sqrt());
        }),
        F::Normalize => Data::gather(of, lanes, components, |at, out| {
            let length = dot(at, 0, 0).sqrt();
            for (c, out) in out.iter_mut().enumerate() {
                *out = number(float(at(0, c)) / length);
            }
        }),
        F::Cross => Data::gather(of, lanes, 3, |at, out| {
            for (c, out) in out.iter_mut().enumerate() {
                let (i, j) = ((c + 1) % 3, (c + 2) % 3);
                let [ai, aj, bi, bj] = [at(0, i), at(0, j), at(1, i), at(1, j)].map(float);
                *out = number(ai * bj - aj * bi);
            }
        }),
        _ => return None,
    })
}

/// Functions that pack numbers into one, and take them out.
fn packing(fun: MathFunction, of: &[&Data], lanes: usize) -> Option<Data> {
    use MathFunction as F;
    let halves = |bits: u32| [bits as u16, (bits >> 16) as u16];
    Some(match fun {
        F::Pack2x16float => Data::gather(of, lanes, 1, |at, out| {
            let half = |c: usize| u32::from(f16::from_f32(f32::from_bits(at(0, c))).to_bits());
            out[0] = half(0) | half(1) << 16;
        }),
        F::Unpack2x16float => Data::gather(of, lanes, 2, |at, out| {
            for (out, half) in out.iter_mut().zip(halves(at(0, 0))) {
                *out = f16::from_bits(half).to_f32().to_bits();
            }
        }),
        F::Pack2x16snorm | F::Pack2x16unorm => Data::gather(of, lanes, 1, |at, out| {
            let signed = fun == F::Pack2x16snorm;
            let number = |c: usize| {
                let value = f32::from_bits(at(0, c));
                let scaled = match signed {
                    true => (value.clamp(-1.0, 1.0) * 32767.0 + 0.5).floor() as i32,
                    false => (value.clamp(0.0, 1.0) * 65535.0 + 0.5).floor() as i32,
                };
                scaled as u32 & 0xffff
            };
            out[0] = number(0) | number(1) << 16;
        }),
        F::Unpack2x16snorm | F::Unpack2x16unorm => Data::gather(of, lanes, 2, |at, out| {
            for (out, half) in out.iter_mut().zip(halves(at(0, 0))) {
                let value = match fun == F::Unpack2x16snorm {
                    true => (f32::from(half as i16) / 32767.0).max(-1.0),
                    false => f32::from(half) / 65535.0,
                };
                *out = value.to_bits();
            }
        }),
        F::Pack4x8snorm | F::Pack4x8unorm => Data::gather(of, lanes, 1, |at, out| {
            let signed = fun == F::Pack4x8snorm;
            let number = |c: usize| {
                let value = f32::from_bits(at(0, c));
                let scaled = match signed {
                    true => (value.clamp(-1.0, 1.0) * 127.0 + 0.5).floor() as i32,
                    false => (value.clamp(0.0, 1.0) * 255.0 + 0.5).floor() as i32,
                };
                (scaled as u32 & 0xff) << (8 * c)
            };
            out[0] = (0..4).map(number).fold(0, |all, part| all | part);
        }),
        F::Unpack4x8snorm | F::Unpack4x8unorm => Data::gather(of, lanes, 4, |at, out| {
            for (c, out) in out.iter_mut().enumerate() {
                let byte = (at(0, 0) >> (8 * c)) as u8;
                let value = match fun == F::Unpack4x8snorm {
                    true => (f32::from(byte as i8) / 127.0).max(-1.0),
                    false => f32::from(byte) / 255.0,
                };
                *out = value.to_bits();
            }
        }),
        F::Unpack4xI8 | F::Unpack4xU8 => Data::gather(of, lanes, 4, |at, out| {
            for (c, out) in out.iter_mut().enumerate() {
                let byte = (at(0, 0) >> (8 * c)) as u8;
                *out = match fun == F::Unpack4xI8 {
                    true => i32::from(byte as i8) as u32,
                    false => u32::from(byte),
                };
            }
        }),
        F::Pack4xI8 | F::Pack4xU8 => Data::gather(of, lanes, 1, |at, out| {
            out[0] = (0..4).fold(0, |all, c| all | (at(0, c) & 0xff) << (8 * c));
        }),
        F::Pack4xI8Clamp | F::Pack4xU8Clamp => Data::gather(of, lanes, 1, |at, out| {
            let signed = fun == F::Pack4xI8Clamp;
            let clamped = |bits: u32| match signed {
                true => (bits as i32).clamp(-128, 127) as u32 & 0xff,
                false => bits.min(255),
            };
            out[0] = (0..4).fold(0, |all, c| all | clamped(at(0, c)) << (8 * c));
        }),
        F::Dot4I8Packed | F::Dot4U8Packed => Data::gather(of, lanes, 1, |at, out| {
            let signed = fun == F::Dot4I8Packed;
            let part = |bits: u32, c: usize| {
                let byte = (bits >> (8 * c)) as u8;
                if signed { i32::from(byte as i8) } else { i32::from(byte) }
            };
            let term = |c: usize| part(at(0, 0), c) * part(at(1, 0), c);
            out[0] = (0..4).map(term).sum::<i32>() as u32;
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_wgsl() {
        let f =
            |op, a: f32, b: f32| f32::from_bits(binary(op, Scalar::F32, a.to_bits(), b.to_bits()));
        assert_eq!(f(BinaryOperator::Modulo, -5.5, 2.0), -1.5);
        let i = |op, a: i32, b: i32| binary(op, Scalar::I32, a as u32, b as u32) as i32;
        assert_eq!(i(BinaryOperator::Divide, -7, 2), -3);
        assert_eq!(i(BinaryOperator::Divide, -7, 0), -7);
        assert_eq!(i(BinaryOperator::ShiftRight, -8, 1), -4);
        assert_eq!(converted(Scalar::F32, Scalar::U32, (-3.5f32).to_bits()), 0);
        assert_eq!(converted(Scalar::F32, Scalar::I32, 3e10f32.to_bits()) as i32, i32::MAX);
        let one = |fun, scalar, bits| {
            let data = Data::uniform(vec![bits]);
            function(fun, scalar, &[&data], 1).unwrap().bits[0]
        };
        assert_eq!(one(MathFunction::FirstLeadingBit, Scalar::I32, -1i32 as u32), u32::MAX);
        assert_eq!(one(MathFunction::Sign, Scalar::F32, (-2f32).to_bits()), (-1f32).to_bits());
        let packed = Data::uniform(vec![1.5f32.to_bits(), (-2f32).to_bits()]);
        let packed = function(MathFunction::Pack2x16float, Scalar::F32, &[&packed], 1).unwrap();
        let back = function(MathFunction::Unpack2x16float, Scalar::U32, &[&packed], 1).unwrap();
        assert_eq!(back.bits, [1.5f32.to_bits(), (-2f32).to_bits()]);
        let extract = |a: u32, b: u32, c: u32, scalar| {
            let [a, b, c] = [a, b, c].map(|bits| Data::uniform(vec![bits]));
            function(MathFunction::ExtractBits, scalar, &[&a, &b, &c], 1).unwrap().bits[0]
        };
        assert_eq!(extract(0xf0, 4, 4, Scalar::U32), 15);
        assert_eq!(extract(0xf0, 4, 4, Scalar::I32) as i32, -1);
    }
}
