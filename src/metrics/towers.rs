//! CLIP's two towers on a device: a model's own, or others by their path.

use std::path::{Path, PathBuf};

use super::Embedding;
use super::error::{Error, Result, TEXT_PROJECTION};
use super::eye::Eye;
use super::vision::{VisionTower, seeing};
use crate::backend;
use crate::backend::Device;
use crate::backend::Precision;
use crate::checkpoint::{Component, Tower, TowerKind};
use crate::graph::{Array, Tensor};
use crate::models::clip_text;
use crate::models::config::ClipTextConfig;
use crate::nn::Layers;
use crate::picture::Picture;
use crate::sd::network::{LoadedNetwork, Ready};
use crate::sd::{self, Model, Part};
use crate::text::Tokenizer;
use crate::text::prompt::{self, PromptOptions, Syntax};

/// Both towers, ready for one text or one picture at a time.
pub struct Towers {
    tokenizer: Tokenizer,
    text: Ready<TextInputs>,
    /// `[projection_dim, hidden_size]`, kept here: it stands in either tower's file, and is small.
    projection: Vec<f32>,
    text_config: ClipTextConfig,
    vision: VisionTower,
    path: PathBuf,
}

impl Towers {
    /// Uploads a model's towers.
    ///
    /// # Errors
    /// A model without a vision tower or without projections; towers that cannot be built.
    pub fn load(gpu: &Device, model: &Model) -> Result<Towers> {
        let path = model.path.clone();
        let tower = model.vision.as_ref().ok_or_else(|| Error::NoVision(path.clone()))?;
        let encoder = model.text();
        let holders = [&encoder.part.component, &tower.part.component];
        let expected = [tower.part.config.projection_dim, encoder.part.config.hidden_size];
        let projection = projection(&path, &holders, expected)?;
        let vision = VisionTower::clip(gpu, tower)?;
        Towers::of(gpu, &encoder.part, &encoder.tokenizer, projection, vision, path)
    }

    /// Uploads CLIP's towers that were opened by their path.
    ///
    /// # Errors
    /// Another kind of tower, or none that reads; towers that cannot be built.
    pub fn open(gpu: &Device, tower: &Tower) -> Result<Towers> {
        let vision = VisionTower::load(gpu, tower, &[TowerKind::Clip])?;
        let path = tower.component.path().to_path_buf();
        let component = tower.component.clone();
        let config = ClipTextConfig::from_json(&component.config, &component.config_path)
            .map_err(sd::Error::from)?;
        let expected = [seeing(tower)?.part.config.projection_dim, config.hidden_size];
        let projection = projection(&path, &[&component], expected)?;
        let (tokenizer, part) = (sd::tokenizer(&tower.tokenizer)?, Part { component, config });
        Towers::of(gpu, &part, &tokenizer, projection, vision, path)
    }

    fn of(
        gpu: &Device,
        text: &Part<ClipTextConfig>,
        tokenizer: &Tokenizer,
        projection: Vec<f32>,
        vision: VisionTower,
        path: PathBuf,
    ) -> Result<Towers> {
        Ok(Towers {
            tokenizer: tokenizer.clone(),
            text: text_program(gpu, text, tokenizer.max_length())?,
            projection,
            text_config: text.config.clone(),
            vision,
            path,
        })
    }

    /// The embedding of a text, which is cut where it is longer than the tower reads.
    ///
    /// # Errors
    /// Text that the vocabulary cannot spell; whatever the device meets.
    pub fn text(&self, text: &str) -> Result<Embedding> {
        let options = PromptOptions { syntax: Syntax::Off, ..PromptOptions::default() };
        let encoded = prompt::encode(&self.tokenizer, text, &options)?;
        let ids = encoded.chunks.into_iter().next().map(|chunk| chunk.ids).unwrap_or_default();
        let length = ids.len();
        let ends = clip_text::end_rows(&self.text_config, &ids, length);
        self.blame(self.text.write(self.text.inputs.ids, &Array::u32([1, length], ids)))?;
        self.blame(self.text.write(self.text.inputs.ends, &Array::u32([1], ends)))?;
        self.text.run();
        let end = self.blame(self.text.output(0))?;
        let rows = self.projection.chunks_exact(self.text_config.hidden_size.max(1));
        let product = |row: &[f32]| {
            row.iter().zip(end.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                as f32
        };
        Ok(Embedding::new(rows.map(product).collect()))
    }

    /// The embedding of a picture: its short side fitted to the tower's size, its middle cut out.
    ///
    /// # Errors
    /// Whatever the device meets.
    pub fn picture(&self, picture: &Picture) -> Result<Embedding> {
        self.vision.see(picture)
    }

    fn blame<T>(&self, result: Result<T, impl Into<backend::Error>>) -> Result<T> {
        let path = self.path.clone();
        result.map_err(|source| Error::Network { path, source: source.into() })
    }
}

impl Eye for Towers {
    fn see(&self, picture: &Picture) -> Result<Embedding> {
        self.vision.see(picture)
    }
}

/// The texts' projection, which stands in either tower's file.
fn projection(path: &Path, holders: &[&Component], expected: [usize; 2]) -> Result<Vec<f32>> {
    let found = holders.iter().find_map(|holder| holder.tensor(TEXT_PROJECTION).ok());
    let found = found.ok_or_else(|| Error::NoProjection(path.to_path_buf()))?;
    if found.shape() != expected {
        return Err(Error::Projection {
            path: path.to_path_buf(),
            found: found.shape().to_vec(),
            expected: expected.to_vec(),
        });
    }
    Ok(found.to_f32(0..found.len()))
}

/// What the text encoder's program takes.
#[derive(Clone, Copy)]
struct TextInputs {
    /// `[1, length]`
    ids: Tensor,
    /// Where the text ends, `[1]`.
    ends: Tensor,
}

/// From ids `[1, length]` to the encoding of the text's end `[1, hidden_size]`.
fn text_program(
    gpu: &Device,
    tower: &Part<ClipTextConfig>,
    length: usize,
) -> sd::Result<Ready<TextInputs>> {
    let network = LoadedNetwork::new(gpu, tower, Precision::AsStored);
    let planned = network.plan(|config, graph| {
        let ids = graph.input_ids("ids", [1, length]);
        let ends = graph.input_ids("ends", [1]);
        let encoding = clip_text::clip_text(&mut Layers::new(graph), config, ids, 0)?;
        let rows = graph.reshape(encoding, [length, config.hidden_size])?;
        Ok((TextInputs { ids, ends }, vec![graph.embedding(rows, ends)?]))
    })?;
    network.program(&planned)
}
