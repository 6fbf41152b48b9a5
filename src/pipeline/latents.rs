//! Latents in files: noise to start from, results to go on with.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, TensorFile, TensorView};
use crate::graph::Array;

/// The tensor's name in files that are written; a file with a single tensor may call it anything.
const NAME: &str = "latents";

/// A file whose latents cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatentsError {
    /// The file cannot be read or written, or is no safetensors file.
    #[error(transparent)]
    File(#[from] checkpoint::Error),
    /// The file holds something else than latents.
    #[error("{}: {problem}", path.display())]
    Contents {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads latents from a safetensors file: the tensor `latents`, or the only one there is, of shape
/// `[batch, channels, height, width]` or `[channels, height, width]` as torch and diffusers lay
/// them out. They come back as `[batch, height, width, channels]`.
///
/// # Errors
/// A file that is no safetensors file or has no such tensor; values that are not finite.
pub fn read(path: &Path) -> Result<Array, LatentsError> {
    let contents = |problem: String| LatentsError::Contents { path: path.to_path_buf(), problem };
    let file = TensorFile::open(path)?;
    let only = file.names().next().filter(|_| file.len() == 1);
    let view = file.tensor(NAME).or_else(|| file.tensor(only?));
    let view =
        view.ok_or_else(|| contents(format!("no tensor `{NAME}` among {} tensors", file.len())))?;
    let shape = match *view.shape() {
        [channels, height, width] => [1, channels, height, width],
        [batch, channels, height, width] => [batch, channels, height, width],
        ref other => {
            return Err(contents(format!(
                "latents of shape {other:?}, expected [batch, channels, height, width]"
            )));
        }
    };
    if view.is_empty() || !view.dtype().is_float() {
        return Err(contents(format!(
            "latents of type {} and shape {shape:?} are no numbers to start from",
            view.dtype().name()
        )));
    }
    let values = view.to_f32(0..view.len());
    if values.iter().any(|v| !v.is_finite()) {
        return Err(contents("the latents have values that are not finite numbers".to_string()));
    }
    let [batch, channels, height, width] = shape;
    let turned = transpose(&values, batch, channels, height * width);
    Ok(Array::f32([batch, height, width, channels].as_slice(), turned))
}

/// One of a batch of latents, as a batch of one.
pub fn one_of(latents: &Array, index: usize) -> Option<Array> {
    let [batch, rest @ ..] = &latents.shape[..] else {
        return None;
    };
    let size: usize = rest.iter().product();
    let values =
        latents.values().get(index * size..(index + 1) * size).filter(|_| index < *batch)?;
    Some(Array::f32([&[1], rest].concat(), values.to_vec()))
}

/// Writes latents `[batch, height, width, channels]` as torch and diffusers lay them out,
/// `[batch, channels, height, width]`.
///
/// # Errors
/// A file that cannot be written; then nothing is left behind.
pub fn write(path: &Path, latents: &Array) -> Result<(), LatentsError> {
    let contents = |problem: String| LatentsError::Contents { path: path.to_path_buf(), problem };
    let [batch, height, width, channels] = latents.shape[..] else {
        return Err(contents(format!("latents of shape {:?} cannot be written", latents.shape)));
    };
    let turned = transpose(latents.values(), batch, height * width, channels);
    let view = TensorView::from_f32(vec![batch, channels, height, width], &turned);
    let view = view.ok_or_else(|| contents("the latents do not fill their shape".to_string()))?;
    Ok(checkpoint::write(path, &[(NAME.to_string(), view)], &BTreeMap::new())?)
}

/// `[batch, rows, columns]` to `[batch, columns, rows]`.
fn transpose(values: &[f32], batch: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((rows * columns).max(1)).take(batch) {
        for column in 0..columns {
            turned.extend(matrix.iter().skip(column).step_by(columns));
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Data;

    #[test]
    fn files_are_channels_first_and_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let values: Vec<f32> = (0..2 * 3 * 5 * 4).map(|i| i as f32).collect();
        let latents = Array::f32([2, 3, 5, 4].as_slice(), values);
        write(&path, &latents).unwrap();
        let file = TensorFile::open(&path).unwrap();
        let view = file.tensor("latents").unwrap();
        assert_eq!(view.shape(), [2, 4, 3, 5]);
        // The first row of the first picture's second channel.
        assert_eq!(view.to_f32(15..20), [1.0, 5.0, 9.0, 13.0, 17.0]);
        assert_eq!(read(&path).unwrap(), latents);
        let second = one_of(&latents, 1).unwrap();
        assert_eq!(second.shape[..], [1, 3, 5, 4]);
        assert_eq!(second.values(), &latents.values()[60..]);
        assert_eq!(one_of(&latents, 2), None);
    }

    #[test]
    fn a_picture_without_a_batch_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.safetensors");
        let view = TensorView::from_f32(vec![2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        checkpoint::write(&path, &[("noise".to_string(), view)], &BTreeMap::new()).unwrap();
        let latents = read(&path).unwrap();
        assert_eq!(latents.shape[..], [1, 1, 3, 2]);
        assert_eq!(latents.data, Data::F32(vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }

    #[test]
    fn what_is_no_latents_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.safetensors");
        let save = |shape: Vec<usize>, values: &[f32]| {
            let view = TensorView::from_f32(shape, values).unwrap();
            checkpoint::write(&path, &[("x".to_string(), view)], &BTreeMap::new()).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(save(vec![2, 2], &[0.0; 4]).contains("shape [2, 2]"));
        assert!(save(vec![1, 1, 2], &[0.0, f32::NAN]).contains("finite"));
        assert!(save(vec![1, 0, 2], &[]).contains("[1, 1, 0, 2]"));
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
