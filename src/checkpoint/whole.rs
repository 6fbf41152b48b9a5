//! Files of a network or a whole model, of any format that such come in.
use super::{Error, TensorFile, header};
use crate::file_kind::FileKind;
use std::path::Path;

/// What trainers' checkpoints have before the names of the model's tensors.
pub(super) const TRAINERS: &str = "state_dict.";

/// Opens a file of a network or a whole model, of any format that such come in. Files of other kinds
/// get their own words, before anything of them is read as a header.
pub(super) fn open_model(path: &Path) -> Result<TensorFile, Error> {
    header::expect(path, FileKind::of_file(path).map_err(Error::io(path, "read"))?)?;
    Ok(unwrapped(TensorFile::open_any(path)?))
}

/// The model of a trainer's checkpoint.
pub(super) fn unwrapped(file: TensorFile) -> TensorFile {
    let is_wrapped = file.names().any(|name| name.starts_with(TRAINERS));
    if is_wrapped { file.inside(TRAINERS) } else { file }
}
