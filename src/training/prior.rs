//! Pictures of the concept's class that the model makes before it is trained (prior preservation;
//! Ruiz et al., "DreamBooth: Fine tuning text-to-image diffusion models for subject-driven
//! generation", 2023).
//!
//! They stand in the run's folder as `class/0000.png` and on, each with its caption beside it and
//! its recipe inside, by which it is told whether it is what would be made again.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::config::{PictureFolder, Settings};
use super::draws::{Draws, Purpose};
use super::error::{Error, Result};
use super::folder::Found;
use super::pool::class_caption;
use super::words::Words;
use crate::backend::Device;
use crate::file_kind::read_text;
use crate::picture::{Picture, parameters};
use crate::pipeline::recipe::{Recipe, RecipeError};
use crate::pipeline::{Pipeline, Request};
use crate::scheduler::sampler::SamplerKind;
use crate::text::prompt::{PromptOptions, Syntax};
use crate::watch::heed;

/// Passes of the UNet's forward that an update takes for each picture: forward, and the gradients.
const PASSES_OF_UPDATE: f64 = 2.5;

/// A folder of class pictures of the user's own.
pub fn own_folder(settings: &Settings) -> Option<PictureFolder> {
    let caption = settings.class_prompt.clone().or_else(|| settings.class_word.clone());
    let folder = |pictures| PictureFolder { pictures, captions: None, masks: None, caption };
    settings.prior_folder.clone().map(folder)
}

/// What making class pictures will cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassCost {
    /// Pictures that are to be there.
    pub pictures: usize,
    /// Of these, those that are.
    pub there: usize,
    /// Sampling steps of each.
    pub steps: usize,
    /// As many updates take about as much work as making those that are missing.
    pub updates: u64,
}

/// Class pictures, as they are to be.
pub struct ClassPictures {
    folder: PathBuf,
    captions: Vec<String>,
    /// What all have in common; the prompt and the seed are each picture's own.
    recipe: Recipe,
}

impl ClassPictures {
    /// Those that `settings` ask for; none if they ask for none. `captions` are the concept's, with
    /// their repeats; `size` is width and height; without `model_hash`, pictures of any model count
    /// as what is wanted.
    pub fn of(
        settings: &Settings,
        captions: &[(&str, usize)],
        size: [usize; 2],
        guidance: f32,
        folder: PathBuf,
        model_hash: Option<String>,
    ) -> Option<ClassPictures> {
        let count = settings.prior_pictures as u64;
        let request = Request {
            width: Some(size[0]),
            height: Some(size[1]),
            steps: settings.prior_steps,
            guidance,
            sampler: Some(SamplerKind::DPMPP_2M),
            seed: Draws::new(settings.seed).at(Purpose::ClassSeed, 0).below(1 << 31) as u64,
            clip_skip: settings.clip_skip,
            memory: settings.memory,
            // Brackets in captions are text.
            prompt_options: PromptOptions { syntax: Syntax::Off, ..PromptOptions::default() },
            ..Request::default()
        };
        (count > 0).then(|| ClassPictures {
            folder,
            captions: (0..count).map(|i| class_caption(settings, captions, i)).collect(),
            recipe: Recipe {
                request,
                model: Some(settings.model.clone()),
                model_hash,
                precision: settings.precision,
                ..Recipe::default()
            },
        })
    }

    /// What the user should know: captions that do not fit, and pictures that are not used.
    ///
    /// # Errors
    /// Captions that cannot be tokenized.
    pub fn remarks(&self, words: &Words) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        for (i, caption) in self.captions.iter().enumerate() {
            if words.caption(caption)?.cut {
                remarks.push(words.cut(&self.picture(i)));
            }
        }
        let more = (self.captions.len()..).take_while(|i| self.picture(*i).exists()).count();
        if more > 0 {
            remarks.push(format!(
                "{}: {more} more than the {} pictures that prior_pictures asks for, which are not \
                used",
                self.folder.display(),
                self.captions.len()
            ));
        }
        Ok(remarks)
    }

    /// How picture `i` is made.
    fn request(&self, i: usize) -> Request {
        Request {
            prompt: self.captions.get(i).cloned().unwrap_or_default(),
            seed: self.recipe.request.seed + i as u64,
            ..self.recipe.request.clone()
        }
    }

    fn picture(&self, i: usize) -> PathBuf {
        self.folder.join(format!("{i:04}.png"))
    }

    fn caption(&self, i: usize) -> PathBuf {
        self.picture(i).with_extension("txt")
    }

    /// Numbers of the pictures that are not there, or not as they are to be.
    ///
    /// # Errors
    /// A file in their place that this program did not make.
    fn missing(&self) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for i in 0..self.captions.len() {
            if !self.is_there(i)? {
                missing.push(i);
            }
        }
        Ok(missing)
    }

    fn is_there(&self, i: usize) -> Result<bool> {
        let path = self.picture(i);
        if !path.exists() {
            return Ok(false);
        }
        if parameters::read(&path)?.is_none_or(|found| found.mos.is_none()) {
            let problem = "not a class picture that was made here, and one of that name is to be \
                made: pictures of your own go into another folder, which prior_folder names"
                .into();
            return Err(Error::State { path, problem });
        }
        let fail = |problem: RecipeError| Error::State {
            path: path.clone(),
            problem: format!("its settings cannot be read: {problem}"),
        };
        let (found, _) = Recipe::read(&path).map_err(fail)?;
        Ok(self.is_like(&found, i) && self.caption(i).exists())
    }

    fn is_like(&self, found: &Recipe, i: usize) -> bool {
        let (a, b) = (&found.request, self.request(i));
        let same_model =
            self.recipe.model_hash.is_none() || found.model_hash == self.recipe.model_hash;
        same_model
            && found.precision == self.recipe.precision
            && found.concepts.is_empty()
            && found.controls.is_empty()
            && found.image.is_none()
            && found.latents.is_none()
            && a.regions.regions.is_empty()
            && (&a.prompt, &a.negative_prompt) == (&b.prompt, &b.negative_prompt)
            && (a.width, a.height, a.steps, a.guidance) == (b.width, b.height, b.steps, b.guidance)
            && (a.sampler, a.schedule, a.seed, a.rng) == (b.sampler, b.schedule, b.seed, b.rng)
            && (a.clip_skip, a.prompt_options.syntax) == (b.clip_skip, b.prompt_options.syntax)
    }

    /// What is to be made, in work; `batches` is how many pictures one update learns from.
    ///
    /// # Errors
    /// A file in a picture's place that this program did not make.
    pub fn cost(&self, pictures_of_update: usize) -> Result<ClassCost> {
        let (of, missing) = (self.captions.len(), self.missing()?.len());
        let Request { steps, guidance, .. } = self.recipe.request;
        let passes = missing * steps * if guidance > 1.0 { 2 } else { 1 };
        let of_update = pictures_of_update.max(1) as f64 * PASSES_OF_UPDATE;
        Ok(ClassCost {
            pictures: of,
            there: of - missing,
            steps,
            updates: (passes as f64 / of_update).ceil() as u64,
        })
    }

    /// Makes those that are missing, each written whole as soon as it is done, so that what was
    /// killed goes on with the next. `pipeline` opens the model if there is anything to do;
    /// `progress` is told how many pictures are there, of all.
    ///
    /// # Errors
    /// Files that cannot be written; a file in a picture's place that this program did not make;
    /// whatever sampling meets; [`Error::Cancelled`].
    pub fn make(
        &self,
        device: &Device,
        pipeline: &mut dyn FnMut() -> Result<Pipeline>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<()> {
        let (missing, of) = (self.missing()?, self.captions.len());
        if missing.is_empty() {
            return Ok(());
        }
        let unwritable = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Unwritable { path, source }
        };
        std::fs::create_dir_all(&self.folder).map_err(unwritable(&self.folder))?;
        let mut pipeline = pipeline()?;
        for (made, &i) in missing.iter().enumerate() {
            let done = of - missing.len() + made;
            let request = self.request(i);
            let made = pipeline.generate(&request, &mut |_| progress(done, of))?;
            let recipe = Recipe {
                request: request.clone(),
                adapter: Some(device.name().to_string()),
                rounding: device.rounding(),
                ..self.recipe.clone()
            };
            // The picture last: it tells that both are there.
            let caption = self.caption(i);
            crate::output::write(&caption, |out| writeln!(out, "{}", request.prompt))
                .map_err(unwritable(&caption))?;
            for picture in &made.pictures {
                picture.save(self.picture(i), Some(&recipe.parameters(&made, 0)))?;
            }
        }
        Ok(heed(progress(of, of))?)
    }

    /// The pictures, once they are made.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn read(&self) -> Result<Vec<Found>> {
        let read = |i| {
            let (path, file) = (self.picture(i), self.caption(i));
            let unreadable = |e: std::io::Error| Error::State {
                path: file.clone(),
                problem: format!("cannot be read: {e}"),
            };
            let text = read_text(&file, "a caption (text)").map_err(unreadable)?;
            let caption = text.lines().map(str::trim).find(|line| !line.is_empty());
            let picture = Picture::open(&path)?;
            Ok(Found {
                original: [picture.width() as usize, picture.height() as usize],
                picture,
                caption: caption.unwrap_or_default().to_string(),
                path,
                mask: None,
                repeats: 1,
            })
        };
        (0..self.captions.len()).map(read).collect()
    }
}
