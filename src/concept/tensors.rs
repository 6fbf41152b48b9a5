//! Arrays from a file's tensors and back.

use std::path::Path;

use super::{Error, Result};
use crate::checkpoint::{TensorFile, TensorView};
use crate::graph::Array;

/// A tensor that has elements, all of them finite; `None` where there is none of that name.
pub(super) fn numbers(file: &TensorFile, name: &str) -> Result<Option<Array>> {
    let Some(view) = file.tensor(name) else { return Ok(None) };
    if !view.dtype().is_float() || view.is_empty() {
        let problem = format!("{} {:?}, where numbers were expected", view.dtype(), view.shape());
        return Err(tensor_error(file, name, problem));
    }
    let values = view.to_f32(0..view.len());
    if values.iter().any(|v| !v.is_finite()) {
        return Err(tensor_error(file, name, "some of its values are no numbers".into()));
    }
    Ok(Some(Array::f32(view.shape(), values)))
}

pub(super) fn tensor_error(file: &TensorFile, tensor: &str, problem: String) -> Error {
    Error::Tensor { path: file.path().to_path_buf(), tensor: tensor.to_string(), problem }
}

pub(super) fn view<'a>(
    path: &Path,
    name: String,
    array: &'a Array,
) -> Result<(String, TensorView<'a>)> {
    let found = array.values().len();
    match TensorView::from_f32(array.shape.to_vec(), array.values()) {
        Some(view) => Ok((name, view)),
        None => {
            let problem = format!("shape {} with {found} values", array.shape);
            Err(Error::Tensor { path: path.to_path_buf(), tensor: name, problem })
        }
    }
}
