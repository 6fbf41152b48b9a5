//! A model's two CLIP towers on a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Embedding;
use crate::backend;
use crate::backend::Device;
use crate::backend::{Precision, Program, Weights};
use crate::checkpoint::{Checkpoint, Component};
use crate::graph::{Array, Graph};
use crate::models::config::{ClipTextConfig, ClipVisionConfig, ConfigError};
use crate::models::{clip_text, clip_vision};
use crate::nn::Layers;
use crate::picture::{self, Picture};
use crate::sd::source::ComponentSource;
use crate::text::prompt::{self, PromptOptions, Syntax};
use crate::text::{self, Tokenizer};

/// The projection of texts.
const TEXT_PROJECTION: &str = "text_projection.weight";
/// Of OpenAI's CLIP, where a model does not say how its pictures are normalised.
const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: the model brings no vision tower (`image_encoder` or `clip_vision`), which \
        scores are measured with", .0.display())]
    NoVision(PathBuf),
    #[error("{}: no `{TEXT_PROJECTION}` in either tower's file, which scores of texts \
        need", .0.display())]
    NoProjection(PathBuf),
    #[error("{}: `{TEXT_PROJECTION}` is {found:?}, expected {expected:?}", path.display())]
    Projection { path: PathBuf, found: Vec<usize>, expected: Vec<usize> },
    #[error("{}: {source}", path.display())]
    Network { path: PathBuf, source: backend::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Text(#[from] text::Error),
    #[error(transparent)]
    Picture(#[from] picture::Error),
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Both towers, ready for one text or one picture at a time.
pub struct Towers {
    tokenizer: Tokenizer,
    text: Program,
    /// `[projection_dim, hidden_size]`, kept here: it stands in either tower's file, and is small.
    projection: Vec<f32>,
    text_config: ClipTextConfig,
    vision: Program,
    vision_config: ClipVisionConfig,
    /// Mean and deviation of each colour.
    normal: [[f32; 3]; 2],
    path: PathBuf,
}

impl Towers {
    /// Uploads a model's towers. `tokenizer` is the model's own.
    ///
    /// # Errors
    /// A model without a vision tower or without projections; towers that cannot be built.
    pub fn load(gpu: &Device, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Towers> {
        let path = checkpoint.path.clone();
        let component = checkpoint.vision.as_ref().ok_or_else(|| Error::NoVision(path.clone()))?;
        let (text, vision) = (&checkpoint.text_encoder, component);
        let text_config = ClipTextConfig::from_json(&text.config, &text.config_path)?;
        let vision_config = ClipVisionConfig::from_json(&vision.config, &vision.config_path)?;
        let projection =
            [text, vision].into_iter().find_map(|holder| holder.tensor(TEXT_PROJECTION).ok());
        let projection = projection.ok_or_else(|| Error::NoProjection(path.clone()))?;
        let expected = [vision_config.projection_dim, text_config.hidden_size];
        if projection.shape() != expected {
            return Err(Error::Projection {
                path,
                found: projection.shape().to_vec(),
                expected: expected.to_vec(),
            });
        }
        let projection = projection.to_f32(0..projection.len());
        let text_program = text_program(gpu, text, &text_config, tokenizer.max_length())?;
        let vision_program = vision_program(gpu, vision, &vision_config)?;
        Ok(Towers {
            tokenizer: tokenizer.clone(),
            text: text_program,
            projection,
            text_config,
            vision: vision_program,
            vision_config,
            normal: normalisation(checkpoint.vision_preprocessor.as_ref()),
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
        self.blame(self.text.write("ids", &Array::u32([1, length], ids)))?;
        self.blame(self.text.write("ends", &Array::u32([1], ends)))?;
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
        let size = self.vision_config.image_size as u32;
        let (width, height) = (picture.width(), picture.height());
        let fitted =
            |side: u32| (u64::from(side) * u64::from(size) / u64::from(width.min(height))) as u32;
        let resized = picture.resized(fitted(width).max(size), fitted(height).max(size))?;
        let middle = resized.part(
            (resized.width() - size) / 2,
            (resized.height() - size) / 2,
            size,
            size,
        )?;
        let [mean, deviation] = self.normal;
        let normal = |pixel: &[u8]| -> [f32; 3] {
            std::array::from_fn(|c| {
                (f32::from(pixel.get(c).copied().unwrap_or(0)) / 255.0 - mean[c]) / deviation[c]
            })
        };
        let pixels: Vec<f32> = middle.rgb().chunks_exact(3).flat_map(normal).collect();
        let side = self.vision_config.image_size;
        self.blame(self.vision.write("pixels", &Array::f32([1, side, side, 3], pixels)))?;
        self.vision.run();
        Ok(Embedding::new(self.blame(self.vision.output(0))?.values().to_vec()))
    }

    fn blame<T>(&self, result: Result<T, impl Into<backend::Error>>) -> Result<T> {
        blame(&self.path, result)
    }
}

fn blame<T>(path: &Path, result: Result<T, impl Into<backend::Error>>) -> Result<T> {
    result.map_err(|source| Error::Network { path: path.to_path_buf(), source: source.into() })
}

fn weights(gpu: &Device, component: &Component) -> Weights {
    Weights::new(gpu, Arc::new(ComponentSource(component.clone())), Precision::AsStored)
}

/// From ids `[1, length]` to the encoding of the text's end `[1, hidden_size]`.
fn text_program(
    gpu: &Device,
    tower: &Component,
    config: &ClipTextConfig,
    length: usize,
) -> Result<Program> {
    let mut graph = Graph::new();
    let ids = graph.input_ids("ids", [1, length]);
    let ends = graph.input_ids("ends", [1]);
    let mut build = || {
        let encoding = clip_text::clip_text(&mut Layers::new(&mut graph), config, ids, 0)?;
        let rows = graph.reshape(encoding, [length, config.hidden_size])?;
        graph.embedding(rows, ends)
    };
    let output = blame(tower.path(), build())?;
    blame(tower.path(), Program::new(&weights(gpu, tower), &graph, &[output]))
}

fn vision_program(gpu: &Device, tower: &Component, config: &ClipVisionConfig) -> Result<Program> {
    let mut graph = Graph::new();
    let side = config.image_size;
    let pixels = graph.input("pixels", [1, side, side, config.num_channels]);
    let mut build = || {
        let mut layers = Layers::new(&mut graph);
        let tokens = clip_vision::clip_vision(&mut layers, config, pixels)?;
        clip_vision::project(&mut layers, config, tokens)
    };
    let output = blame(tower.path(), build())?;
    blame(tower.path(), Program::new(&weights(gpu, tower), &graph, &[output]))
}

/// Mean and deviation of each colour, as `preprocessor_config.json` has them.
fn normalisation(preprocessor: Option<&Value>) -> [[f32; 3]; 2] {
    let colours = |key: &str| -> Option<[f32; 3]> {
        let list = preprocessor?.get(key)?.as_array()?;
        let numbers: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
        numbers.try_into().ok()
    };
    let deviation = colours("image_std").filter(|found| found.iter().all(|v| *v > 0.0));
    [colours("image_mean").unwrap_or(MEAN), deviation.unwrap_or(DEVIATION)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn colours_are_normalised_as_the_model_says() {
        assert_eq!(normalisation(None), [MEAN, DEVIATION]);
        let own = json!({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.25]});
        assert_eq!(normalisation(Some(&own)), [[0.5; 3], [0.5, 0.5, 0.25]]);
        let damaged = json!({"image_mean": [0.5], "image_std": [0.5, 0.0, 0.5]});
        assert_eq!(normalisation(Some(&damaged)), [MEAN, DEVIATION]);
    }
}
