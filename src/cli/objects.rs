//! Folders on the command line that may be those of object stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixofshow::{Elsewhere, Nowhere};
use tempfile::TempDir;

use super::{Failure, Result};

/// A folder here, and what stands behind it.
pub struct Place {
    /// The folder here: as it was named, or, of a URL, one that is gone at the end.
    pub path: PathBuf,
    /// What stands behind it.
    pub elsewhere: Arc<dyn Elsewhere>,
    #[cfg(feature = "object-store")]
    folder: Option<Arc<mixofshow::ObjectFolder>>,
    _scratch: Option<TempDir>,
}

/// Whether that is a URL.
pub fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("s3://"))
}

impl Place {
    /// # Errors
    /// A URL that is none, a bucket that is not there or cannot be reached.
    pub fn of(path: &Path) -> Result<Place> {
        match is_url(path) {
            true => Place::of_url(&path.to_string_lossy()),
            false => Ok(Place {
                path: path.to_path_buf(),
                elsewhere: Arc::new(Nowhere),
                #[cfg(feature = "object-store")]
                folder: None,
                _scratch: None,
            }),
        }
    }

    #[cfg(feature = "object-store")]
    fn of_url(url: &str) -> Result<Place> {
        let scratch = tempfile::Builder::new().prefix("mos-objects-").tempdir()?;
        let folder = mixofshow::ObjectFolder::open(url, scratch.path());
        let folder = Arc::new(folder.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => Failure::Usage(error.to_string()),
            _ => error.into(),
        })?);
        Ok(Place {
            path: scratch.path().to_path_buf(),
            elsewhere: Arc::clone(&folder) as Arc<dyn Elsewhere>,
            folder: Some(folder),
            _scratch: Some(scratch),
        })
    }

    #[cfg(not(feature = "object-store"))]
    fn of_url(url: &str) -> Result<Place> {
        Err(Failure::Usage(format!(
            "{url}: this program was built without object stores (feature `object-store`)"
        )))
    }

    /// Brings all that is there.
    pub fn fetch_all(&self) -> Result<()> {
        #[cfg(feature = "object-store")]
        if let Some(folder) = &self.folder {
            folder.fetch_all()?;
        }
        Ok(())
    }

    /// Hands on the files of which `wanted` says so, by their way from the folder.
    pub fn put_all(&self, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        #[cfg(feature = "object-store")]
        if let Some(folder) = &self.folder {
            folder.put_all(wanted)?;
        }
        let _ = wanted;
        Ok(())
    }

    /// As people are told of a file in it.
    pub fn told(&self, path: &Path) -> PathBuf {
        #[cfg(feature = "object-store")]
        if let Some(url) = self.folder.as_ref().and_then(|folder| folder.url_of(path).ok()) {
            return url.into();
        }
        path.to_path_buf()
    }
}
