//! A tower that sees pictures, on a device.

use std::path::PathBuf;

use super::Embedding;
use super::error::{Error, Result};
use super::eye::Eye;
use super::positions::positions;
use super::preparation::{CLIP_COLOURS, IMAGENET_COLOURS, Preparation, colours};
use crate::backend::{self, Device, Precision};
use crate::checkpoint::{Tower, TowerKind};
use crate::graph::{Array, Tensor};
use crate::models::config::{ClipVisionConfig, VitConfig};
use crate::models::{clip_vision, vit};
use crate::nn::Layers;
use crate::picture::Picture;
use crate::sd::network::{LoadedNetwork, Ready};
use crate::sd::{self, Part, Vision};

/// What DINO's towers are given: the shorter side at 256 pixels, the middle 224 of it.
const RESIZED: u32 = 256;
const CROPPED: u32 = 224;

/// A tower that sees, ready for one picture at a time: CLIP's, DINO's or CSD's.
pub struct VisionTower {
    program: Ready<Inputs>,
    preparation: Preparation,
    path: PathBuf,
}

/// What a tower's program takes: pixels, and what DINO's adds to its tokens.
type Inputs = (Tensor, Option<Tensor>);

impl VisionTower {
    /// Uploads one of `kinds` that was opened by its path.
    ///
    /// # Errors
    /// Another kind of tower; one that cannot be built.
    pub fn load(gpu: &Device, tower: &Tower, kinds: &[TowerKind]) -> Result<VisionTower> {
        let path = tower.component.path().to_path_buf();
        if !kinds.contains(&tower.kind) {
            let names: Vec<String> = kinds.iter().map(TowerKind::to_string).collect();
            let (found, expected) = (tower.kind, names.join(" or "));
            return Err(Error::OtherTower { path, found, expected });
        }
        match tower.kind {
            TowerKind::Dino => VisionTower::dino(gpu, tower),
            _ => VisionTower::clip(gpu, &seeing(tower)?),
        }
    }

    pub(super) fn clip(gpu: &Device, tower: &Vision) -> Result<VisionTower> {
        let (part, path) = (&tower.part, tower.part.component.path().to_path_buf());
        let network = LoadedNetwork::new(gpu, part, Precision::AsStored);
        let planned = network.plan(|config, graph| {
            let side = config.image_size;
            let pixels = graph.input("pixels", [1, side, side, config.num_channels]);
            let mut layers = Layers::new(graph);
            let tokens = clip_vision::clip_vision(&mut layers, config, pixels)?;
            Ok(((pixels, None), vec![clip_vision::project(&mut layers, config, tokens)?]))
        })?;
        let side = part.config.image_size as u32;
        let colours = colours(tower.preprocessor.as_ref(), CLIP_COLOURS);
        let preparation = Preparation { resize: side, crop: side, colours };
        Ok(VisionTower { program: network.program(&planned)?, preparation, path })
    }

    fn dino(gpu: &Device, tower: &Tower) -> Result<VisionTower> {
        let (component, path) = (&tower.component, tower.component.path().to_path_buf());
        let config = VitConfig::from_json(&component.config, &component.config_path)
            .map_err(sd::Error::from)?;
        let side = CROPPED as usize;
        if !side.is_multiple_of(config.patch_size) {
            let problem = format!(
                "patches of {0}x{0} pixels, which do not divide {side}x{side}",
                config.patch_size
            );
            return Err(Error::Unsupported { path, problem });
        }
        let table = positions(component, &config, side / config.patch_size)?;
        let part = Part { component: component.clone(), config };
        let network = LoadedNetwork::new(gpu, &part, Precision::AsStored);
        let planned = network.plan(|config, graph| {
            let pixels = graph.input("pixels", [1, side, side, 3]);
            let rows = table.len() / config.hidden_size;
            let positions = graph.input("positions", [rows, config.hidden_size]);
            let mut layers = Layers::new(graph);
            let seen = vit::vit(&mut layers, config, pixels, positions)?;
            Ok(((pixels, Some(positions)), vec![seen]))
        })?;
        let ready = network.program(&planned)?;
        let width = part.config.hidden_size;
        if let (_, Some(positions)) = ready.inputs {
            let table = Array::f32([table.len() / width.max(1), width], table);
            ready
                .write(positions, &table)
                .map_err(|error| Error::Network { path: path.clone(), source: error })?;
        }
        let colours = colours(tower.preprocessor.as_ref(), IMAGENET_COLOURS);
        let preparation = Preparation { resize: RESIZED, crop: CROPPED, colours };
        Ok(VisionTower { program: ready, preparation, path })
    }
}

/// The half of a tower that sees.
pub(super) fn seeing(tower: &Tower) -> Result<Vision> {
    let component = tower.component.clone();
    let config = ClipVisionConfig::from_json(&component.config, &component.config_path);
    let config = config.map_err(sd::Error::from)?;
    let preprocessor = tower.preprocessor.clone();
    Ok(Vision { part: Part { component, config }, preprocessor })
}

impl Eye for VisionTower {
    fn see(&self, picture: &Picture) -> Result<Embedding> {
        let pixels = self.preparation.pixels(picture)?;
        let side = self.preparation.crop as usize;
        let blame = |source: backend::Error| Error::Network { path: self.path.clone(), source };
        self.program
            .write(self.program.inputs.0, &Array::f32([1, side, side, 3], pixels))
            .map_err(blame)?;
        self.program.run();
        let seen = self.program.output(0).map_err(blame)?;
        let values = seen.values().to_vec();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { path: self.path.clone() });
        }
        Ok(Embedding::new(values))
    }
}
