//! Numbers and pictures from Python: files by their paths, arrays as the buffer protocol lays them
//! out. The stable ABI of Python 3.10 has no buffers, so `memoryview` reads them on the other side.

use std::path::PathBuf;

use mixofshow::graph::Array;
use mixofshow::picture::{Mask, Picture};
use mixofshow::pipeline::latents;
use mixofshow::pipeline::recipe::{Source, hex};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sha2::{Digest, Sha256};

use crate::errors::{OrRaise, argument};

/// The elements of a `memoryview`, in C order.
#[derive(FromPyObject)]
pub struct Elements {
    /// As in Python's module `struct`: `f`, `B`, `<f4` is not among them.
    format: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A file, or the elements of an array.
#[derive(FromPyObject)]
pub enum Given {
    #[pyo3(transparent)]
    Array(Elements),
    #[pyo3(transparent)]
    Path(PathBuf),
}

/// The path under which settings tell of an array, which no file holds.
fn name_of(what: &str, bytes: &[u8]) -> Source {
    Source { path: format!("array ({what})").into(), sha256: hex(&Sha256::digest(bytes)) }
}

impl Elements {
    /// As numbers.
    fn numbers(&self, what: &str) -> PyResult<Vec<f32>> {
        fn read<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
        }
        let count: usize = self.shape.iter().product();
        // `=`, `@` and `<` are this machine's order on all that there are wheels for.
        let numbers = match self.format.trim_start_matches(['@', '=', '<']) {
            "f" => read(&self.bytes, f32::from_ne_bytes),
            "d" => read(&self.bytes, |bytes| f64::from_ne_bytes(bytes) as f32),
            "e" => read(&self.bytes, |bytes| half::f16::from_ne_bytes(bytes).to_f32()),
            "B" | "?" => self.bytes.iter().map(|byte| f32::from(*byte)).collect(),
            other => {
                return Err(argument(format!(
                    "{what}: an array of elements `{other}`, expected float32, float64, float16, \
                        uint8 or bool"
                )));
            }
        };
        if numbers.len() != count {
            return Err(argument(format!(
                "{what}: an array of shape {:?} with {} elements",
                self.shape,
                numbers.len()
            )));
        }
        Ok(numbers)
    }

    /// Grey values from 0 to 1: bytes are of 255, bools and floats of 1.
    fn mask(&self, what: &str) -> PyResult<Mask> {
        let [height, width] = self.shape[..] else {
            return Err(self.misshapen(what, "[height, width]"));
        };
        let most = if self.format == "B" { 255.0 } else { 1.0 };
        let values = self.numbers(what)?.into_iter().map(|value| value / most).collect();
        let (width, height) = (side(what, width)?, side(what, height)?);
        Mask::new(width, height, values).or_raise()
    }

    /// Bytes of red, green and blue.
    fn picture(&self, what: &str) -> PyResult<Picture> {
        let ([height, width, 3], "B") = (&self.shape[..], &self.format[..]) else {
            let shape = "[height, width, 3] and elements uint8";
            return Err(self.misshapen(what, shape));
        };
        Picture::new(side(what, *width)?, side(what, *height)?, self.bytes.clone()).or_raise()
    }

    fn misshapen(&self, what: &str, expected: &str) -> PyErr {
        argument(format!(
            "{what}: an array of shape {:?} and elements `{}`, expected shape {expected}",
            self.shape, self.format
        ))
    }
}

fn side(what: &str, side: usize) -> PyResult<u32> {
    u32::try_from(side).map_err(|_| argument(format!("{what}: a side of {side} pixels")))
}

/// `[batch, channels, height, width]`, or without the batch, as `[batch, height, width, channels]`.
pub fn latents_of(elements: &Elements, what: &str) -> PyResult<Array> {
    let shape = match elements.shape[..] {
        [channels, height, width] => [1, channels, height, width],
        [batch, channels, height, width] => [batch, channels, height, width],
        _ => return Err(elements.misshapen(what, "[batch, channels, height, width]")),
    };
    let numbers = elements.numbers(what)?;
    let [batch, channels, height, width] = shape;
    let turned = turned(&numbers, channels, height * width);
    Ok(Array::f32([batch, height, width, channels], turned))
}

/// Latents as Python gets them: bytes of f32, and their shape `[batch, channels, height, width]`.
pub fn from_latents<'py>(
    py: Python<'py>,
    latents: &Array,
) -> PyResult<(Bound<'py, PyBytes>, [usize; 4])> {
    let [batch, height, width, channels] = latents.shape[..] else {
        return Err(argument(format!("latents of shape {:?}", latents.shape)));
    };
    let turned = turned(latents.values(), height * width, channels);
    let bytes: Vec<u8> = turned.iter().flat_map(|value| value.to_ne_bytes()).collect();
    Ok((PyBytes::new(py, &bytes), [batch, channels, height, width]))
}

/// Matrices of `rows x columns` with rows and columns changed.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            turned.extend(matrix.iter().skip(column).step_by(columns.max(1)));
        }
    }
    turned
}

impl Given {
    /// The picture, and how settings tell of it.
    pub fn picture(&self, what: &str) -> PyResult<(Picture, Source)> {
        match self {
            Given::Path(path) => {
                Ok((Picture::open(path).or_raise()?, Source::of(path).or_raise()?))
            }
            Given::Array(array) => Ok((array.picture(what)?, name_of(what, &array.bytes))),
        }
    }

    /// The mask, and how settings tell of it.
    pub fn mask(&self, what: &str) -> PyResult<(Mask, Source)> {
        match self {
            Given::Path(path) => Ok((Mask::open(path).or_raise()?, Source::of(path).or_raise()?)),
            Given::Array(array) => Ok((array.mask(what)?, name_of(what, &array.bytes))),
        }
    }

    /// The latents, and how settings tell of them.
    pub fn latents(&self, what: &str) -> PyResult<(Array, Source)> {
        match self {
            Given::Path(path) => {
                Ok((latents::read(path).or_raise()?, Source::of(path).or_raise()?))
            }
            Given::Array(array) => Ok((latents_of(array, what)?, name_of(what, &array.bytes))),
        }
    }
}
