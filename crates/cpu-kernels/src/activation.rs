//! Elementwise functions and their derivatives.

use super::math::{exp, normal, sigmoid};
use super::simd::Simd;

/// An elementwise function of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// x * sigmoid(x)
    Silu,
    /// x * Phi(x), with the error function
    Gelu,
    /// the tanh approximation of [`Function::Gelu`]
    GeluTanh,
    /// x * sigmoid(1.702 x), CLIP's own
    QuickGelu,
    Relu,
    Exp,
}

/// sqrt(2 / pi)
const FACTOR: f32 = 0.797_884_6;
const CUBE: f32 = 0.044715;

/// A function known at compile time, so that a loop holds it and nothing else.
pub(crate) trait Unary: Copy {
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V;
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V;
}

#[derive(Clone, Copy)]
pub(crate) struct Silu;
#[derive(Clone, Copy)]
pub(crate) struct Gelu;
#[derive(Clone, Copy)]
pub(crate) struct GeluTanh;
#[derive(Clone, Copy)]
pub(crate) struct QuickGelu;
#[derive(Clone, Copy)]
pub(crate) struct Relu;
#[derive(Clone, Copy)]
pub(crate) struct Exp;

/// Evaluates `body` with `f` the [`Unary`] of `function`.
macro_rules! with_function {
    ($function:expr, $f:ident => $body:expr) => {{
        use $crate::activation as a;
        match $function {
            a::Function::Silu => {
                let $f = a::Silu;
                $body
            }
            a::Function::Gelu => {
                let $f = a::Gelu;
                $body
            }
            a::Function::GeluTanh => {
                let $f = a::GeluTanh;
                $body
            }
            a::Function::QuickGelu => {
                let $f = a::QuickGelu;
                $body
            }
            a::Function::Relu => {
                let $f = a::Relu;
                $body
            }
            a::Function::Exp => {
                let $f = a::Exp;
                $body
            }
        }
    }};
}
pub(crate) use with_function;

impl Unary for Silu {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.mul(x, sigmoid(s, x)) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe {
            let g = sigmoid(s, x);
            let one = s.splat(1.0);
            s.mul(g, s.fma(x, s.sub(one, g), one))
        }
    }
}

impl Unary for Gelu {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.mul(x, normal(s, x).0) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe {
            let (below, density) = normal(s, x);
            s.fma(x, density, below)
        }
    }
}

/// sigmoid(2 u), u the argument of the hyperbolic tangent: (1 + tanh(u)) / 2.
#[inline(always)]
unsafe fn half_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    unsafe {
        let square = s.mul(x, x);
        let inner = s.mul(x, s.fma(square, s.splat(CUBE), s.splat(1.0)));
        sigmoid(s, s.mul(inner, s.splat(2.0 * FACTOR)))
    }
}

impl Unary for GeluTanh {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.mul(x, half_tanh(s, x)) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe {
            // g + 2 x g (1 - g) u'
            let g = half_tanh(s, x);
            let slope = s.fma(s.mul(x, x), s.splat(3.0 * CUBE * FACTOR), s.splat(FACTOR));
            let rest = s.mul(s.mul(g, s.sub(s.splat(1.0), g)), s.mul(s.add(x, x), slope));
            s.add(g, rest)
        }
    }
}

impl Unary for QuickGelu {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702)))) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe {
            let steep = s.mul(x, s.splat(1.702));
            let g = sigmoid(s, steep);
            let one = s.splat(1.0);
            s.mul(g, s.fma(steep, s.sub(one, g), one))
        }
    }
}

impl Unary for Relu {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.max(s.zero(), x) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { s.where_less(s.zero(), x, s.splat(1.0), s.zero()) }
    }
}

impl Unary for Exp {
    #[inline(always)]
    unsafe fn at<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { exp(s, x) }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(self, s: S, x: S::V) -> S::V {
        unsafe { exp(s, x) }
    }
}
