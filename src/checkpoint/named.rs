//! Models by name: the one that ships with the program, and those in a folder of models.
use std::path::{Path, PathBuf};

use super::{Checkpoint, Error, Tower, hub};

/// The name of the model that ships with the program.
pub const SHIPPED: &str = "tiny";

/// The folder `models/tiny`, compiled in: the program works wherever it is copied to.
#[cfg(feature = "tiny-model")]
static TINY: include_dir::Dir = include_dir::include_dir!("$CARGO_MANIFEST_DIR/models/tiny");

/// The folder `models/identity`, compiled in as well.
#[cfg(feature = "tiny-model")]
static IDENTITY: include_dir::Dir =
    include_dir::include_dir!("$CARGO_MANIFEST_DIR/models/identity");

/// The file without which the folder is no model.
#[cfg(feature = "tiny-model")]
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
#[cfg(feature = "tiny-model")]
const ABSENT: &str = "this build comes without the small model, whose weights are larger than a \
    registry's packages may be: builds of the repository have it, and so does its folder \
    models/tiny, copied into the folder that MOS_MODELS names; or another model is named by its path";

impl Checkpoint {
    /// The model that ships with the program, a very small Stable Diffusion: pictures of 128x128
    /// pixels in a second or two, for tries and tests. Part of the feature `tiny-model`.
    ///
    /// # Errors
    /// A build of the package of a registry, which has no room for the weights; none that a build
    /// of the repository can have.
    #[cfg(feature = "tiny-model")]
    pub fn shipped() -> Result<Self, Error> {
        match TINY.contains(WEIGHTS) {
            true => Self::embedded(SHIPPED, &TINY),
            false => Err(Error::Unrecognised { path: SHIPPED.into(), problem: ABSENT.into() }),
        }
    }

    /// Opens the model that a user names: by the name [`SHIPPED`] the one that ships with the
    /// program (a folder of that name is meant by `./tiny`); else a path; else a file or folder of
    /// that name in `models`, with or without `.safetensors`.
    ///
    /// # Errors
    /// A name that leads nowhere, with the places that were looked at; whatever
    /// [`open`](Self::open) finds.
    pub fn open_named(name: &str, models: Option<&Path>) -> Result<Self, Error> {
        match find(name, models)? {
            Some(path) => Self::open(&path),
            // Where a build comes without it, it may lie among the others.
            #[cfg(feature = "tiny-model")]
            None => match models.map(|models| models.join(SHIPPED)) {
                Some(path) if !TINY.contains(WEIGHTS) && path.is_dir() => Self::open(&path),
                _ => Self::shipped(),
            },
            #[cfg(not(feature = "tiny-model"))]
            None => Err(Error::Unrecognised {
                path: name.into(),
                problem: "that model is not part of this build (feature `tiny-model` of \
                    mixofshow); another one is named by its path"
                    .into(),
            }),
        }
    }
}

impl Tower {
    /// The tower that ships with the program, which tells who is who in the world of the model that
    /// ships, and in no other; none where a build comes without it, as one of a registry's package.
    ///
    /// # Errors
    /// None that a build of the repository can have.
    pub fn shipped() -> Result<Option<Tower>, Error> {
        #[cfg(feature = "tiny-model")]
        if IDENTITY.contains("model.safetensors") {
            return Tower::in_folder(&super::Folder::embedded("identity", &IDENTITY)).map(Some);
        }
        Ok(None)
    }
}

/// Where the model is that a user names, by the rule of [`Checkpoint::open_named`]; `None`: it
/// ships with the program. A folder of Hugging Face's cache means the snapshot in it; `owner/name`
/// is such a folder in `models`.
///
/// # Errors
/// A name that leads nowhere, with the places that were looked at.
pub fn find(name: &str, models: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    if name == SHIPPED {
        return Ok(None);
    }
    let mut places = vec![PathBuf::from(name)];
    if let Some(models) = models.filter(|_| !name.is_empty() && Path::new(name).is_relative()) {
        places.extend([models.join(name), models.join(format!("{name}.safetensors"))]);
        places.extend(hub::folder_of(name).map(|folder| models.join(folder)));
    }
    if let Some(place) = places.iter().find(|place| place.exists()) {
        return hub::snapshot(place).map(Some);
    }
    let mut problem = "there is no such file or folder".to_string();
    match models {
        Some(models) if !models.is_dir() => {
            problem += &format!(
                "; the folder of models that MOS_MODELS names, {}, is not there",
                models.display()
            );
        }
        Some(models) => {
            problem += &format!(", nor a model of that name in {} (MOS_MODELS)", models.display())
        }
        // What is clearly meant as a path is not looked for by name.
        None if Path::new(name).components().count() == 1 => {
            problem += "; the variable MOS_MODELS can name a folder in which models are looked \
                for by name";
        }
        None => {}
    }
    if name.trim_end_matches('/').ends_with("models/tiny") {
        problem += &format!("; the model that ships with the program is called `{SHIPPED}`");
    }
    Err(Error::Unrecognised { path: name.into(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_the_shipped_model_then_to_paths_then_to_the_folder_of_models() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.safetensors");
        std::fs::write(&file, b"").unwrap();
        let models = Some(folder.path());
        assert_eq!(find(file.to_str().unwrap(), None).unwrap(), Some(file.clone()));
        assert_eq!(find("mine.safetensors", models).unwrap(), Some(file.clone()));
        assert_eq!(find("mine", models).unwrap(), Some(file));
        assert_eq!(find(SHIPPED, models).unwrap(), None);
        let cached = folder.path().join("models--a--b/snapshots/1");
        std::fs::create_dir_all(&cached).unwrap();
        assert_eq!(find("a/b", models).unwrap(), Some(cached.clone()));
        assert_eq!(find("models--a--b", models).unwrap(), Some(cached));
        let error = find("yours", models).unwrap_err().to_string();
        assert!(
            error.starts_with("yours: ") && error.contains(folder.path().to_str().unwrap()),
            "{error}"
        );
        assert!(find("", models).is_err());
        let error = find("yours", None).unwrap_err().to_string();
        assert!(error.contains("MOS_MODELS"), "{error}");
        let gone = find("yours", Some(&folder.path().join("gone"))).unwrap_err().to_string();
        assert!(gone.contains("MOS_MODELS") && gone.contains("gone, is not there"), "{gone}");
        let error = find("no/models/tiny/", None).unwrap_err().to_string();
        assert!(error.contains("`tiny`"), "{error}");
    }

    #[cfg(feature = "tiny-model")]
    #[test]
    fn the_shipped_model_has_all_its_networks() {
        let model = Checkpoint::shipped().unwrap();
        let on_disk =
            Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap();
        assert_eq!(model.hash(), on_disk.hash());
    }
}
