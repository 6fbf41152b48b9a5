//! Regions on the command line: prompts for parts of the picture.
use std::path::{Path, PathBuf};

use mixofshow::diffusion::recipe::Recipe;
use mixofshow::picture::Picture;
use mixofshow::region::{Layout, Region};

use crate::cli::{Failure, Result};

const REGIONS: &str = "Regions";

#[derive(clap::Args)]
pub struct Placing {
    /// A part of the picture with its own prompt: "LEFT,TOP,RIGHT,BOTTOM: prompt | negative prompt"
    ///
    /// The box in fractions of the picture, such as 0,0,0.5,1 for its left half, or in pixels; without one, as in ": prompt", all of
    /// it. The negative prompt may be left out: then the picture's holds. Where regions overlap, each has an equal part; outside of
    /// all, --prompt holds. May be given many times.
    #[arg(long, value_name = "REGION", value_parser = Region::parse, allow_hyphen_values = true, help_heading = REGIONS)]
    region: Vec<Region>,
    /// Regions from a file (TOML), with masks, soft edges, weights and more
    ///
    /// A file with one [[region]] for each: `prompt`; if wanted, `name`, `negative`, and one of `box = [left, top, right, bottom]`,
    /// `polygon = [[x, y], ...]` or `mask = "picture.png"`; `soft` (width of a fading edge), `weight` (part of the mean where regions
    /// overlap), `order` (higher ones lie on top), `base` (the picture's prompt's share inside), `start` and `end` (parts of the steps).
    /// `concepts = { zorp = 0.8 }` multiplies the strength of concepts and LoRAs inside, by their name or a word of theirs, and
    /// `controls = { canny = 0.5 }` that of controls, by their name. Before the regions may stand `prompt`, `negative` and `isolate = true`.
    ///
    /// Where LoRAs act: one that some region names acts in the regions that name it alone, as strongly as they say; else a concept acts
    /// where the prompts have a word of it; else everywhere. Where regions overlap, each LoRA acts as strongly as the shares of its
    /// regions come to there: two regions of one weight give theirs half the strength each, two that both have it the whole of it, and
    /// one of a higher `order` takes the place of those below. A soft edge fades it along, and what `base` leaves to the picture's
    /// prompt goes to that prompt's LoRAs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["region", "prompt_rewrite"], help_heading = REGIONS)]
    pub layout: Option<PathBuf>,
    /// Regions as Mix-of-Show's published program takes them: "[prompt]-*-[negative]-*-[top, left, bottom, right]|..."
    #[arg(long, value_name = "TEXT", conflicts_with = "region", help_heading = REGIONS)]
    prompt_rewrite: Option<String>,
    /// Later regions lie over earlier ones, rather than being averaged with them
    #[arg(long, help_heading = REGIONS)]
    stack: bool,
    /// Keep self-attention from leaking between regions
    #[arg(long, help_heading = REGIONS)]
    isolate: bool,
    /// Write each picture a second time with the regions drawn over it, as cat.layout.png beside cat.png
    #[arg(long, help_heading = REGIONS)]
    pub show_layout: bool,
}

impl Placing {
    /// Replaces the recipe's regions by those that were given.
    pub fn apply(&self, recipe: &mut Recipe) -> Result<()> {
        let regions = &mut recipe.request.regions;
        if let Some(path) = &self.layout {
            *regions = Layout::open(path)?;
        } else if let Some(text) = &self.prompt_rewrite {
            *regions = Layout::from_published(text)?;
        } else if !self.region.is_empty() {
            *regions = Layout { regions: self.region.clone(), ..Layout::default() };
        }
        if self.stack {
            for (order, region) in (0..).zip(&mut regions.regions) {
                region.order = order;
            }
        }
        regions.isolate |= self.isolate;
        if regions.regions.is_empty() && (self.stack || self.isolate || self.show_layout) {
            let text = "--stack, --isolate and --show-layout are for regions: --region or --layout gives some";
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

/// `cat.layout.png` for `cat.png`.
pub fn drawing_of(destination: &Path) -> PathBuf {
    destination.with_extension("layout.png")
}
