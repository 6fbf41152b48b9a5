//! How a picture was made, in its file: written so that the picture can be made again, read from
//! our own and from web UIs' pictures.
mod foreign;
mod networks;
mod programs;
mod stored;

use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Generated, Request};
use crate::backend::{Precision, ReplacedKernel, Rounding};
use crate::concept::Network;
use crate::picture::{self, Parameters, parameters};
use crate::region::Area;

pub use networks::{PromptNetwork, without_networks};

/// Everything that makes a picture the one it is.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// What was asked for, without the pictures and latents that came from files: those are named
    /// below.
    pub request: Request,
    /// The model as it was named, if that is known.
    pub model: Option<String>,
    /// [`crate::checkpoint::Checkpoint::hash`] in hexadecimal digits, or the beginning of another
    /// program's hash.
    pub model_hash: Option<String>,
    /// How weights were held on the device.
    pub precision: Precision,
    /// The picture that it started from.
    pub image: Option<Source>,
    /// The mask that it was painted in.
    pub mask: Option<Source>,
    /// The noise that it started from.
    pub latents: Option<Source>,
    /// Concepts and LoRAs, in order.
    pub concepts: Vec<ConceptSource>,
    /// The small autoencoder that decoded it.
    pub vae: Option<Source>,
    /// The network that enlarged it between two passes.
    pub upscaler: Option<Source>,
    /// Which of that file's latents the picture started from; 0 while recipes are made.
    pub latents_index: usize,
    /// The place in its batch of the picture that is made again, and how many it was made with.
    pub batch: Option<(usize, usize)>,
    /// Another program's picture, whose seed its file does not tell, or not so that it is
    /// understood.
    pub seed_is_open: bool,
    /// The networks that steer it.
    pub controls: Vec<ControlSource>,
    /// The mask pictures of regions, under the paths by which the request's regions name them.
    pub region_masks: Vec<Source>,
    /// On which adapter it was made; others agree up to rounding.
    pub adapter: Option<String>,
    /// What that adapter rounded to f16 besides weights, where it is a graphics adapter.
    pub rounding: Option<Rounding>,
    /// Kernels that were not this program's own.
    pub kernels: Vec<ReplacedKernel>,
}

/// A file that a picture was made from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// As it was named when the picture was made.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// A concept that a picture was made with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConceptSource {
    /// The concept's file.
    #[serde(flatten)]
    pub source: Source,
    /// How strong it was: 1 is as it was tuned.
    pub scale: f32,
    /// That of its text encoders' part, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_scale: Option<f32>,
}

impl ConceptSource {
    /// The scale of a network's part.
    pub fn scale_of(&self, network: Network) -> f32 {
        match self.text_scale {
            Some(scale) if network.is_text_encoder() => scale,
            _ => self.scale,
        }
    }
}

/// A network that steers a picture, and by what.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ControlSource {
    /// The network as it was named: a folder inside of the model, a path, or a name in the folder
    /// of models.
    pub network: String,
    /// Hash of its weights in hexadecimal digits, where somebody has made it: surveys do, so that
    /// they know when it is another one under the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_hash: Option<String>,
    /// The picture that it follows.
    pub image: Source,
    /// What is made of the image first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub make: Option<Made>,
    /// As in [`super::Control`].
    pub name: String,
    /// As in [`super::Control`].
    pub weight: f32,
    /// As in [`super::Control`].
    pub start: f64,
    /// As in [`super::Control`].
    pub end: f64,
}

/// What networks follow, made from any picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// [`picture::Picture::canny`]
    Canny,
    /// [`picture::Picture::outline`]
    Outline,
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Canny => "canny",
            Self::Outline => "outline",
        })
    }
}

impl std::str::FromStr for Made {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "canny" => Ok(Self::Canny),
            "outline" => Ok(Self::Outline),
            _ => Err(format!("make is `{name}`: expected canny or outline")),
        }
    }
}

/// A picture that does not tell how it was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file is no picture that is read.
    #[error(transparent)]
    Picture(#[from] picture::Error),
    /// A picture without any text of that kind.
    #[error(
        "{}: the file does not say how the picture was made (no text `mos` or `parameters` in it, \
            no user comment in EXIF)",
        path.display()
    )]
    None {
        /// The file or folder.
        path: PathBuf,
    },
    /// Text that holds no settings.
    #[error("{}: no settings are found in its text, which {what}", path.display())]
    NoSettings {
        /// The file or folder.
        path: PathBuf,
        /// What is known of the text.
        what: &'static str,
    },
    /// Settings that contradict themselves, or are damaged.
    #[error("{}: its settings cannot be read: {problem}", path.display())]
    Settings {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file that is named in them cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Source {
    /// The file as it is now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path) -> Result<Self, RecipeError> {
        let unreadable = |source| RecipeError::Unreadable { path: path.to_path_buf(), source };
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let mut sha = Sha256::new();
        std::io::copy(&mut file, &mut sha).map_err(unreadable)?;
        Ok(Self { path: path.to_path_buf(), sha256: hex(&sha.finalize()) })
    }

    /// Where the file is now, as it was when `picture` was made of it: under its own path, from the
    /// picture's folder or from here; else beside the picture or in a folder above, under the end
    /// of its path. So both can move together.
    pub fn find(&self, picture: &Path) -> Lookup {
        let is_same =
            |path: &PathBuf| Self::of(path).is_ok_and(|found| found.sha256 == self.sha256);
        let from_picture = picture.parent().unwrap_or(Path::new("")).join(&self.path);
        let own = [from_picture, self.path.clone()];
        if let Some(path) = own.iter().find(|path| is_same(path)) {
            return Lookup::Same(path.clone());
        }
        let parts: Vec<Component> = self.path.components().collect();
        let named =
            parts.iter().rev().take_while(|part| matches!(part, Component::Normal(_))).count();
        let ends =
            (parts.len() - named..parts.len()).map(|i| parts.iter().skip(i).collect::<PathBuf>());
        let ends: Vec<PathBuf> = ends.collect();
        let picture = std::path::absolute(picture).unwrap_or_else(|_| picture.to_path_buf());
        let candidates =
            picture.ancestors().skip(1).flat_map(|folder| ends.iter().map(|end| folder.join(end)));
        let found: Vec<PathBuf> = candidates.filter(|path| path.is_file()).collect();
        match found.iter().find(|path| is_same(path)) {
            Some(path) => Lookup::Same(path.clone()),
            None => {
                let there = own.into_iter().filter(|path| path.is_file()).chain(found).next();
                there.map_or(Lookup::Gone, Lookup::Changed)
            }
        }
    }
}

/// What became of a file that a picture was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is there, with the same bytes.
    Same(PathBuf),
    /// One of its name is there, with others.
    Changed(PathBuf),
    /// It is neither where it was, nor near the picture.
    Gone,
}

/// The way from `folder` to a file: none where they have nothing in common but the root, or one of
/// them is not there.
fn way(folder: &Path, file: &Path) -> Option<PathBuf> {
    let [from, to] = [folder, file].map(|path| path.canonicalize().ok());
    let (from, to) = (from?, to?);
    let pairs = from.components().zip(to.components());
    let common = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a);
    let (shared, named) = common.fold((0, 0), |(shared, named), part| {
        (shared + 1, named + usize::from(matches!(part, Component::Normal(_))))
    });
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    (named > 0).then(|| up.chain(to.components().skip(shared)).collect())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Recipe {
    /// The same with the masks of its regions named from the folder that `picture` is in, where
    /// there is a way: so they are found when both have moved, and no file tells of more than that.
    pub fn beside(&self, picture: &Path) -> Recipe {
        let mut recipe = self.clone();
        let folder = picture.parent().filter(|folder| !folder.as_os_str().is_empty());
        let shorten = |path: &mut PathBuf| {
            if let Some(way) = way(folder.unwrap_or(Path::new(".")), path) {
                *path = way;
            }
        };
        recipe.region_masks.iter_mut().for_each(|mask| shorten(&mut mask.path));
        for region in &mut recipe.request.regions.regions {
            if let Area::Mask(path) = &mut region.area {
                shorten(path);
            }
        }
        recipe
    }

    /// What goes into the file of picture `index` of those that were made by this recipe.
    pub fn parameters(&self, generated: &Generated, index: usize) -> Parameters {
        let seed = generated.seeds.get(index).copied().unwrap_or(self.request.seed);
        let [width, height] = generated.first_pass.unwrap_or([generated.width, generated.height]);
        let request = Request {
            width: Some(width),
            height: Some(height),
            sampler: Some(generated.sampler),
            seed,
            ..self.request.clone()
        };
        let latents_index = self.latents_index + if self.latents.is_some() { index } else { 0 };
        let made = Recipe { request, latents_index, ..self.clone() };
        Parameters {
            prompt: self.request.prompt.clone(),
            negative_prompt: self.request.negative_prompt.clone(),
            settings: foreign::settings(&made, generated.sampler),
            rest: String::new(),
            mos: Some(match (generated.seeds.len(), self.batch) {
                // One of several that is made again is the same picture.
                (1, Some((index, of))) => stored::write(&made, index, of),
                (of, _) => stored::write(&made, index, of),
            }),
        }
    }

    /// Reads how a picture was made out of its file. Besides come sentences for the user: what of
    /// another program's settings means nothing here.
    ///
    /// # Errors
    /// A file that is no picture, or does not tell; settings that are damaged.
    pub fn read(path: &Path) -> Result<(Recipe, Vec<String>), RecipeError> {
        if let Some(told) = programs::read(path)? {
            return programs::recipe(path, told);
        }
        let Some(found) = parameters::read(path)? else {
            return Err(RecipeError::None { path: path.to_path_buf() });
        };
        match &found.mos {
            Some(own) => {
                let settings =
                    |problem| RecipeError::Settings { path: path.to_path_buf(), problem };
                Ok((stored::read(own).map_err(settings)?, Vec::new()))
            }
            None if found.settings.is_empty() => {
                let what = match found.prompt.starts_with(['{', '[', '<']) {
                    true => "is data of another program in a form that is not read",
                    false => {
                        "has no line such as \"Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1\""
                    }
                };
                Err(RecipeError::NoSettings { path: path.to_path_buf(), what })
            }
            None => Ok(foreign::read(&found)),
        }
    }
}

#[cfg(test)]
mod tests;
