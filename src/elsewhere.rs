//! A folder that stands elsewhere too: what is written here is handed on, and what others have handed
//! on is brought here.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// A folder elsewhere that stands behind one here. Files in it are whole or not there, as here.
pub trait Elsewhere: Debug + Send + Sync {
    /// Brings a file of the folder here, if it is not here and is there; whether it is here now.
    ///
    /// # Errors
    /// What keeps it from being known or brought.
    fn fetch(&self, path: &Path) -> io::Result<bool>;

    /// Hands a file of the folder on, in place of what is there under its name.
    ///
    /// # Errors
    /// What keeps it from being handed on.
    fn put(&self, path: &Path) -> io::Result<()>;
}

/// Nothing stands behind a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn fetch(&self, path: &Path) -> io::Result<bool> {
        Ok(path.exists())
    }

    fn put(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
