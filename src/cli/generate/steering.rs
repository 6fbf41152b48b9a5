//! Networks that steer a picture: those that were given, else the recipe's.
use std::path::Path;

use mixofshow::picture::Picture;
use mixofshow::pipeline::recipe::Recipe;

use super::source;
use crate::cli::terminal::Terminal;
use crate::cli::{Result, controls};

#[derive(clap::Args)]
pub struct Steering {
    /// Steer by a picture: "NETWORK:image=PICTURE", and more after commas
    ///
    /// In full:
    /// "NETWORK:image=PICTURE[,make=canny|outline][,weight=1][,start=0][,end=1][,name=NAME]".
    ///
    /// NETWORK is a ControlNet or a T2I-Adapter: a diffusers folder, a safetensors file, or a
    /// folder inside of the model, such as `t2i_adapter`. The picture is what the network follows
    /// (edges, a pose, a depth map), or anything from which `make` draws edges: canny as most
    /// networks for edges want them, outline as those of the model that ships. `start` and `end`
    /// are parts of the steps. Regions of a layout weigh it by its name (by default that of its
    /// file). May be given many times.
    #[arg(long, value_name = "CONTROL", value_parser = controls::parse, help_heading = "Steering")]
    control: Vec<controls::Wanted>,
}

impl Steering {
    /// Replaces the recipe's controls by those that were given, and reads their pictures.
    pub fn apply(
        &self,
        recipe: &mut Recipe,
        like: Option<&Path>,
        terminal: &Terminal,
    ) -> Result<Vec<Picture>> {
        if !self.control.is_empty() {
            recipe.controls = controls::sources(&self.control)?;
        }
        let mut pictures = Vec::with_capacity(recipe.controls.len());
        for control in &mut recipe.controls {
            let named = Some(control.image.clone());
            if let Some(now) = source(None, named, "--control", like, terminal)? {
                control.image = now;
            }
            // Of the network as it was then; nobody has looked at it now.
            control.network_hash = None;
            pictures.push(controls::picture(control)?);
        }
        controls::check_names(&recipe.controls)?;
        Ok(pictures)
    }
}
