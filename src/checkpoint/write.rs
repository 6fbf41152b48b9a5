//! Writing safetensors files so that a file under its final name is always whole.
use super::Error;
use super::tensor::TensorView;
use crate::output;
use crate::watch::{Parts, unwatched_parts};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

/// Writes tensors and metadata to a safetensors file. The same content always gives the same bytes.
///
/// The file is written beside its final name, flushed to the disk, and renamed; if anything fails,
/// nothing is left behind and a file that was there before is unchanged.
pub fn write(
    path: &Path,
    tensors: &[(String, TensorView<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    write_watched(path, tensors, metadata, &mut unwatched_parts)
}

/// As [`write()`]; `progress` is told how many tensors are written.
pub(crate) fn write_watched(
    path: &Path,
    tensors: &[(String, TensorView<'_>)],
    metadata: &BTreeMap<String, String>,
    progress: &mut Parts,
) -> Result<(), Error> {
    let plain = plain(tensors);
    let (header, order) = plan(path, &plain, metadata)?;
    let mut asked = Ok(());
    let written = output::write(path, |out| {
        emit(out, &header, &order, &mut |done, of| {
            asked = progress(done, of);
            asked.map_err(io::Error::other)
        })
    });
    asked?;
    written.map_err(Error::io(path, "write"))
}

/// Tensors with a scale have it in their elements: the file has no other place for it.
fn plain<'t>(tensors: &'t [(String, TensorView<'_>)]) -> Vec<(String, TensorView<'t>)> {
    tensors.iter().map(|(name, view)| (name.clone(), view.plain())).collect()
}

type Named<'t, 'a> = &'t (String, TensorView<'a>);

fn plan<'t, 'a>(
    path: &Path,
    tensors: &'t [(String, TensorView<'a>)],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<Named<'t, 'a>>), Error> {
    // Wide types first, as the reference writer orders them: then every tensor begins at a multiple
    // of its element size.
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by(|(a, x), (b, y)| y.dtype().size().cmp(&x.dtype().size()).then_with(|| a.cmp(b)));
    Ok((header(path, &order, metadata)?, order))
}

fn emit(
    out: &mut dyn Write,
    header: &[u8],
    order: &[Named],
    before: &mut dyn FnMut(usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for (done, (_, view)) in order.iter().enumerate() {
        before(done, order.len())?;
        out.write_all(view.bytes())?;
    }
    Ok(())
}

/// The bytes of the file that [`write()`] writes. `name` stands for its path in errors.
pub fn to_bytes(
    name: &Path,
    tensors: &[(String, TensorView<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let plain = plain(tensors);
    let (header, order) = plan(name, &plain, metadata)?;
    let mut bytes = Vec::new();
    emit(&mut bytes, &header, &order, &mut |_, _| Ok(())).map_err(Error::io(name, "write"))?;
    Ok(bytes)
}

fn header(
    path: &Path,
    order: &[&(String, TensorView<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let mut json = serde_json::Map::new();
    if !metadata.is_empty() {
        let texts = metadata.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        json.insert("__metadata__".to_string(), serde_json::Value::Object(texts));
    }
    let mut names = BTreeSet::new();
    let mut offset = 0;
    for (name, view) in order {
        if name == "__metadata__" || !names.insert(name) {
            let problem = match name.as_str() {
                "__metadata__" => "this name is reserved".to_string(),
                _ => "given twice".to_string(),
            };
            return Err(Error::Entry { path: path.to_path_buf(), tensor: name.clone(), problem });
        }
        let end = offset + view.bytes().len();
        let entry = serde_json::json!({
            "dtype": view.dtype().name(), "shape": view.shape(), "data_offsets": [offset, end],
        });
        json.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(json).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{DType, TensorFile};

    fn sample<'a>() -> Vec<(String, TensorView<'a>)> {
        vec![
            ("half".into(), TensorView::new(DType::F16, vec![3], vec![1, 2, 3, 4, 5, 6]).unwrap()),
            ("b".into(), TensorView::from_f32(vec![2, 1], &[1.5, -2.0]).unwrap()),
            (
                "a".into(),
                TensorView::new(DType::I64, vec![], vec![7, 0, 0, 0, 0, 0, 0, 0]).unwrap(),
            ),
            ("empty".into(), TensorView::new(DType::F32, vec![0, 4], vec![]).unwrap()),
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let metadata =
            BTreeMap::from([("seed".to_string(), "\"7\"\n".to_string()), ("b".into(), "".into())]);
        write(&path, &sample(), &metadata).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &metadata);
        assert_eq!(file.len(), 4);
        for (name, view) in sample() {
            let read = file.tensor(&name).unwrap();
            assert_eq!(
                (read.dtype(), read.shape(), read.bytes()),
                (view.dtype(), view.shape(), view.bytes())
            );
        }
        // The reference reader agrees, and a second run gives the same bytes.
        let bytes = std::fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(
            reference.tensor("b").unwrap().data(),
            [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()
        );
        write(&path, &sample(), &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/x.safetensors");
        let error = write(&path, &sample(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
    }

    #[test]
    fn names_must_be_unique_and_not_reserved() {
        let path = Path::new("/nowhere/x.safetensors");
        let twice = [sample(), sample()].concat();
        let error = write(path, &twice, &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "/nowhere/x.safetensors: tensor `a`: given twice");
        let reserved = [("__metadata__".to_string(), sample().remove(0).1)];
        let error = write(path, &reserved, &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "/nowhere/x.safetensors: tensor `__metadata__`: this name is reserved");
    }
}
