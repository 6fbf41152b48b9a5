//! A picture that is asked for, whichever face it was asked at: all that it brings is read, and
//! what it names is found.

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::picture::{Mask, Picture};
use crate::pipeline::Request;
use crate::pipeline::recipe::{Recipe, Source, hex};
use crate::region::{Area, Layout};

use super::fields::Fields;
use super::given::Given;
use super::limits::Limits;
use super::problem::Problem;
use super::shelf::{Listed, Shelf};

/// A concept or LoRA that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub listed: Listed,
    pub scale: f32,
    /// That of its text encoder's part, where it is another.
    pub text_scale: Option<f32>,
}

impl Wanted {
    /// Of an object with a name and scales.
    pub fn read(shelf: &Shelf, mut fields: Fields) -> Result<Wanted, Problem> {
        let name = fields.word("name")?;
        let name = name.ok_or_else(|| Problem::value("concepts", "without a name", "`name`"))?;
        let wanted = Wanted {
            listed: shelf.concept(&name)?,
            scale: fields.single("scale")?.unwrap_or(1.0),
            text_scale: fields.single("text_scale")?,
        };
        fields.none_left("a concept")?;
        Ok(wanted)
    }
}

/// A network that is asked for to steer a picture, and its name for regions.
#[derive(Clone, Debug)]
pub struct Steered {
    /// Inside of the model.
    pub network: String,
    pub name: String,
    pub picture: crate::picture::Picture,
    pub source: Source,
    pub make: Option<crate::pipeline::recipe::Made>,
    pub weight: f32,
    pub start: f64,
    pub end: f64,
}

/// A picture, or some, to be made.
pub struct Order {
    pub model: Listed,
    /// With the pictures that were sent; without concepts and controls, which the worker opens.
    pub request: Request,
    /// Without pictures, as settings tell of it.
    pub recipe: Recipe,
    /// How closely to follow the prompt is left to the model.
    pub leaves_guidance_open: bool,
    pub concepts: Vec<Wanted>,
    pub controls: Vec<Steered>,
    /// The pictures are kept in the folder of pictures.
    pub keeps: bool,
    /// The files of pictures that were sent, with their hashes: kept with what is made of them.
    pub brought: Vec<(String, Vec<u8>)>,
    /// Masks of regions, while the job is there.
    folder: Option<TempDir>,
}

impl Order {
    /// Of a request without pictures.
    pub fn new(model: Listed, request: Request, limits: &Limits) -> Result<Order, Problem> {
        limits.check(&request)?;
        Ok(Order {
            model,
            recipe: Recipe { request: request.clone(), ..Recipe::default() },
            request,
            leaves_guidance_open: false,
            concepts: Vec::new(),
            controls: Vec::new(),
            keeps: false,
            brought: Vec::new(),
            folder: None,
        })
    }

    /// Notes a picture's file that was sent.
    pub fn bring(&mut self, given: Given) {
        self.brought.push((given.source().sha256, given.into_bytes()));
    }

    /// Starts from a picture.
    pub fn set_image(&mut self, image: &Given, limits: &Limits) -> Result<(), Problem> {
        let picture = image.picture()?;
        // It becomes as large as the picture, where nothing else is said.
        let width = self.request.width.unwrap_or(picture.width() as usize);
        limits.check_size(width, self.request.height.unwrap_or(picture.height() as usize))?;
        self.request.image = Some(picture);
        let source = image.source();
        self.brought.push((source.sha256.clone(), image.bytes().to_vec()));
        self.recipe.image = Some(source);
        Ok(())
    }

    /// Paints only where the mask that was sent is white.
    pub fn set_mask(&mut self, given: &Given) -> Result<(), Problem> {
        let source = given.source();
        self.request.mask = Some(given.mask()?);
        self.brought.push((source.sha256.clone(), given.bytes().to_vec()));
        self.recipe.mask = Some(source);
        Ok(())
    }

    /// Paints only where a mask is white that no client sent as it is: it becomes a file first, so
    /// that a picture which is made by that file again has the same bytes.
    pub fn set_made_mask(&mut self, mask: &Mask, name: &str) -> Result<(), Problem> {
        let grey = mask.values().iter().flat_map(|value| [(value * 255.0).round() as u8; 3]);
        let mut file = Vec::new();
        Picture::new(mask.width(), mask.height(), grey.collect())?.write_to(&mut file, None)?;
        let sha256 = hex(&Sha256::digest(&file));
        self.request.mask = Some(Mask::from_bytes(name, file.clone())?);
        self.recipe.mask =
            Some(Source { path: format!("sent ({name})").into(), sha256: sha256.clone() });
        self.brought.push((sha256, file));
        Ok(())
    }

    /// Places regions; `masks` has one for each that is a picture that was sent.
    pub fn set_regions(
        &mut self,
        layout: Layout,
        masks: Vec<Option<Given>>,
        limits: &Limits,
    ) -> Result<(), Problem> {
        layout.check().map_err(|error| Problem::asked(error.to_string()).of("regions"))?;
        let mut told = layout.clone();
        let mut placed = layout;
        let regions = placed.regions.iter_mut().zip(&mut told.regions);
        for (number, ((region, told), mask)) in regions.zip(masks).enumerate() {
            let Some(mask) = mask else { continue };
            let folder = match &mut self.folder {
                Some(folder) => folder,
                None => self.folder.insert(TempDir::new()?),
            };
            let file = folder.path().join(format!("{}.png", number + 1));
            std::fs::write(&file, mask.bytes())?;
            let source = mask.source();
            told.area = Area::Mask(source.path.clone());
            region.area = Area::Mask(file);
            self.brought.push((source.sha256.clone(), mask.into_bytes()));
            self.recipe.region_masks.push(source);
        }
        self.request.regions = placed;
        self.recipe.request.regions = told;
        limits.check(&self.request)
    }
}
