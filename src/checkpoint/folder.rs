//! A folder of model files: on disk, or compiled into the program.
use super::{Error, TensorFile, infinities};
use crate::file_kind::text_of;
use include_dir::Dir;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A folder on disk or compiled into the program, read the same way.
#[derive(Debug, Clone)]
pub struct Folder {
    /// On disk, or for a compiled-in folder the name it goes by in errors.
    path: PathBuf,
    embedded: Option<(&'static Dir<'static>, PathBuf)>,
}

impl Folder {
    /// A folder on disk.
    pub fn disk(path: &Path) -> Self {
        Self { path: path.to_path_buf(), embedded: None }
    }

    /// A folder that is compiled into the program; `name` stands for its path in errors.
    pub fn embedded(name: &str, dir: &'static Dir<'static>) -> Self {
        Self { path: name.into(), embedded: Some((dir, dir.path().to_path_buf())) }
    }

    /// Its path, or the name of a compiled-in folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path on disk, where it is on disk.
    pub fn disk_path(&self) -> Option<&Path> {
        self.embedded.is_none().then_some(&*self.path)
    }

    /// The folder of that name inside this one, whether or not it exists.
    pub fn join(&self, name: &str) -> Self {
        let embedded = self.embedded.as_ref().map(|(dir, at)| (*dir, at.join(name)));
        Self { path: self.path.join(name), embedded }
    }

    /// This folder exists.
    pub fn exists(&self) -> bool {
        match &self.embedded {
            None => self.path.is_dir(),
            Some((dir, at)) => at == dir.path() || dir.get_dir(at).is_some(),
        }
    }

    /// There is a file of that name.
    pub fn has(&self, name: &str) -> bool {
        match &self.embedded {
            None => self.path.join(name).is_file(),
            Some((dir, at)) => dir.get_file(at.join(name)).is_some(),
        }
    }

    /// Names of the files and folders in it, sorted; none if it does not exist.
    pub fn names(&self) -> Vec<String> {
        let base = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut names: Vec<String> = match &self.embedded {
            None => {
                let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
                entries.filter_map(|e| base(&e.path())).collect()
            }
            Some((dir, at)) => {
                let here = if at == dir.path() { Some(*dir) } else { dir.get_dir(at) };
                here.into_iter().flat_map(|d| d.entries()).filter_map(|e| base(e.path())).collect()
            }
        };
        names.sort();
        names
    }

    /// The bytes of a file, or `None` where there is none of that name.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        match &self.embedded {
            None => {
                let path = self.path.join(name);
                std::fs::read(&path).map(|b| Some(b.into())).map_err(Error::io(path, "read"))
            }
            Some((dir, at)) => Ok(dir.get_file(at.join(name)).map(|f| f.contents().into())),
        }
    }

    /// A file of text, or `None` where there is none of that name.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let text = |bytes: Cow<'static, [u8]>| text_of(bytes.into_owned(), "text");
        self.read(name)?.map(text).transpose().map_err(Error::io(self.path.join(name), "read"))
    }

    /// A JSON file, or `None` where there is none of that name.
    pub fn json(&self, name: &str) -> Result<Option<serde_json::Value>, Error> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        let bad = |problem: String| Error::Json { path: self.path.join(name), problem };
        let text = text_of(bytes.into_owned(), "a JSON file").map_err(|e| bad(e.to_string()))?;
        serde_json::from_str(&infinities::quoted(&text)).map(Some).map_err(|e| bad(e.to_string()))
    }

    /// Opens a file of tensors.
    pub fn tensors(&self, name: &str) -> Result<TensorFile, Error> {
        let path = self.path.join(name);
        match self.embedded.as_ref().and_then(|(dir, at)| dir.get_file(at.join(name))) {
            Some(file) => TensorFile::from_static(&path, file.contents()),
            None => TensorFile::open_any(&path),
        }
    }
}
