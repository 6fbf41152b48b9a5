//! Opens a model, whatever it is stored as.
use super::whole::open_model;
use super::{Checkpoint, Error, Folder, diffusers, hub, single};
use include_dir::Dir;
use std::path::Path;

impl Checkpoint {
    /// Opens a model folder or file; which of them it is is told by its contents.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_variant(path, None)
    }

    /// As [`open`](Self::open). `variant` (such as `fp16`) names the weights to prefer in a folder
    /// that has several kinds; otherwise the plain ones come first, then `fp16`.
    pub fn open_variant(path: &Path, variant: Option<&str>) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        if meta.is_dir() {
            return diffusers::open(&Folder::disk(&hub::snapshot(path)?), variant);
        }
        single::open(open_model(path)?)
    }

    /// A model folder that is compiled into the program; `name` stands for its path in errors.
    pub fn embedded(name: &str, dir: &'static Dir<'static>) -> Result<Self, Error> {
        diffusers::open(&Folder::embedded(name, dir), None)
    }
}
