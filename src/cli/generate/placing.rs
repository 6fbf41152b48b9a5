//! Regions on the command line: prompts for parts of the picture.
use std::path::{Path, PathBuf};

use mixofshow::picture::Picture;
use mixofshow::pipeline::Place;
use mixofshow::pipeline::recipe::{Lookup, Recipe, Source};
use mixofshow::region::{Area, Layout, Region};

use crate::cli::{Failure, Result};

const REGIONS: &str = "Regions";

#[derive(clap::Args)]
pub struct Placing {
    /// A part of the picture with its own prompt: "LEFT,TOP,RIGHT,BOTTOM: prompt | negative prompt"
    ///
    /// The box in fractions of the picture, such as 0,0,0.5,1 for its left half, or in pixels;
    /// without one, as in ": prompt", all of it. The negative prompt may be left out: then the
    /// picture's holds. A `|` in square brackets is alternation, as in any prompt. Where regions
    /// overlap, each has an equal part; outside of all, --prompt holds. May be given many times.
    #[arg(
        long, value_name = "REGION", value_parser = Region::parse, help_heading = REGIONS
    )]
    region: Vec<Region>,
    /// Regions from a file (TOML), with masks, soft edges, weights and more
    ///
    /// A file with one [[region]] for each: `prompt`; if wanted, `name`, `negative`, and one of
    /// `box = [left, top, right, bottom]`, `polygon = [[x, y], ...]` or `mask = "picture.png"`;
    /// `soft` (width of a fading edge), `weight` (part of the mean where regions overlap), `order`
    /// (higher ones lie on top), `base` (the picture's prompt's share inside), `start` and `end`
    /// (parts of the steps). `concepts = { zorp = 0.8 }` multiplies the strength of concepts and
    /// LoRAs inside, by their name or a word of theirs, and `controls = { canny = 0.5 }` that of
    /// controls, by their name. Before the regions may stand `prompt`, `negative`,
    /// `isolate = true`, and `published = true`, with which they are as in --prompt-rewrite.
    ///
    /// Where LoRAs act: one that some region names acts in the regions that name it alone, as
    /// strongly as they say; else a concept acts where the prompts have a word of it; else
    /// everywhere. Where regions overlap, each LoRA acts as strongly as the shares of its regions
    /// come to there: two regions of one weight give theirs half the strength each, two that both
    /// have it the whole of it, and one of a higher `order` takes the place of those below. A soft
    /// edge fades it along, and what `base` leaves to the picture's prompt goes to that prompt's
    /// LoRAs.
    #[arg(
        long, value_name = "FILE", conflicts_with_all = ["region", "prompt_rewrite"],
        help_heading = REGIONS
    )]
    pub layout: Option<PathBuf>,
    /// Regions as Mix-of-Show's published program takes them: "[prompt]-*-[negative]-*-[top, left,
    /// bottom, right]|..."
    ///
    /// They are placed as there, in pixels: boxes are cut off at the picture's edge, and a region
    /// does not hold on feature maps of which no cell lies within it.
    #[arg(long, value_name = "TEXT", conflicts_with = "region", help_heading = REGIONS)]
    prompt_rewrite: Option<String>,
    /// Later regions lie over earlier ones, rather than being averaged with them
    #[arg(long, help_heading = REGIONS)]
    stack: bool,
    /// Keep self-attention from leaking between regions
    #[arg(long, help_heading = REGIONS)]
    isolate: bool,
    /// free, or firm[:STRENGTH]: in the first four tenths of the steps, what each region's words
    /// look at is drawn into their region and out of all else [default: free]
    ///
    /// Each of those steps takes another pass of the UNet for every picture, forward and back, of
    /// the prompt's half alone: about half as long again in all, and the memory of tuning at that
    /// size, without what is trained (--plan tells). The words are those of concepts, or else all
    /// words of a region. The strength is a factor, 1 if not said.
    #[arg(long, value_name = "HOW", help_heading = REGIONS)]
    pub place: Option<Place>,
    /// Write each picture a second time with the regions drawn over it, as cat.layout.png beside
    /// cat.png
    #[arg(long, help_heading = REGIONS)]
    pub show_layout: bool,
}

impl Placing {
    /// Replaces the recipe's regions by those that were given.
    pub fn apply(&self, recipe: &mut Recipe, like: Option<&Path>) -> Result<()> {
        let regions = &mut recipe.request.regions;
        let given =
            self.layout.is_some() || self.prompt_rewrite.is_some() || !self.region.is_empty();
        if let Some(path) = &self.layout {
            *regions = Layout::open(path)?;
        } else if let Some(text) = &self.prompt_rewrite {
            *regions = Layout::from_published(text)?;
        } else if !self.region.is_empty() {
            *regions = Layout { regions: self.region.clone(), ..Layout::default() };
        }
        if given {
            recipe.region_masks = note_masks(regions)?;
        } else if let Some(like) = like {
            find_masks(regions, &mut recipe.region_masks, like)?;
        }
        if self.stack {
            for (order, region) in (0..).zip(&mut regions.regions) {
                region.order = order;
            }
        }
        regions.isolate |= self.isolate;
        let firm = matches!(self.place, Some(Place::Firm(_)));
        if regions.regions.is_empty() && (self.stack || self.isolate || self.show_layout || firm) {
            let text = "--stack, --isolate, --place firm and --show-layout are for regions: \
                --region or --layout gives some";
            return Err(Failure::Usage(text.into()));
        }
        Ok(())
    }

    /// Writes the picture with its regions drawn over it.
    pub fn draw(&self, recipe: &Recipe, picture: &Picture, destination: &Path) -> Result<()> {
        if self.show_layout {
            recipe.request.regions.draw(picture)?.save(drawing_of(destination), None)?;
        }
        Ok(())
    }
}

/// The masks of `regions`, which name them from now on so that they are found from every folder.
fn note_masks(regions: &mut Layout) -> Result<Vec<Source>> {
    let mut masks = Vec::new();
    for region in &mut regions.regions {
        if let Area::Mask(path) = &mut region.area {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
            masks.push(Source::of(path)?);
        }
    }
    Ok(masks)
}

/// Finds the masks of a picture's regions again.
fn find_masks(regions: &mut Layout, masks: &mut [Source], like: &Path) -> Result<()> {
    for index in 0..regions.regions.len() {
        let name = regions.name(index);
        let Some(Area::Mask(path)) = regions.regions.get_mut(index).map(|region| &mut region.area)
        else {
            continue;
        };
        // Pictures of earlier versions do not say what was in the file.
        let Some(mask) = masks.iter_mut().find(|mask| mask.path == *path) else { continue };
        let lost =
            |path: &Path, state| LostMask { region: name.clone(), path: path.to_path_buf(), state };
        match mask.find(like) {
            Lookup::Same(found) => {
                let found = std::path::absolute(&found).unwrap_or(found);
                path.clone_from(&found);
                mask.path = found;
            }
            Lookup::Changed(found) => return Err(lost(&found, "has changed since").into()),
            Lookup::Gone => return Err(lost(path, "is missing").into()),
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("that picture was made with the mask {} of region `{region}`, which {state}: --layout or \
    --region give the regions anew", path.display())]
struct LostMask {
    region: String,
    path: PathBuf,
    state: &'static str,
}

/// `cat.layout.png` for `cat.png`.
pub fn drawing_of(destination: &Path) -> PathBuf {
    destination.with_extension("layout.png")
}
