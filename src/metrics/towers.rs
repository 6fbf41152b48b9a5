//! A model's two CLIP towers on a device.

use std::path::PathBuf;

use serde_json::Value;

use super::Embedding;
use crate::backend;
use crate::backend::Device;
use crate::backend::Precision;
use crate::graph::{Array, Tensor};
use crate::models::config::{ClipTextConfig, ClipVisionConfig};
use crate::models::{clip_text, clip_vision};
use crate::nn::Layers;
use crate::picture::{self, Picture};
use crate::sd::network::{LoadedNetwork, Ready};
use crate::sd::{self, Model, Part};
use crate::text::prompt::{self, PromptOptions, Syntax};
use crate::text::{self, Tokenizer};

/// The projection of texts.
const TEXT_PROJECTION: &str = "text_projection.weight";
/// Of OpenAI's CLIP, where a model does not say how its pictures are normalised.
const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

/// What can be wrong with a model's towers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: the model brings no vision tower (`image_encoder` or `clip_vision`), which \
        scores are measured with", .0.display())]
    /// The model, which brings no vision tower.
    NoVision(PathBuf),
    #[error("{}: no `{TEXT_PROJECTION}` in either tower's file, which scores of texts \
        need", .0.display())]
    /// The model, of whose towers neither has the texts' projection.
    NoProjection(PathBuf),
    /// A projection that does not fit the towers.
    #[error("{}: `{TEXT_PROJECTION}` is {found:?}, expected {expected:?}", path.display())]
    Projection {
        /// The model.
        path: PathBuf,
        /// Its shape.
        found: Vec<usize>,
        /// Outputs by inputs that the towers have.
        expected: Vec<usize>,
    },
    /// A tower that cannot be built or run.
    #[error("{}: {source}", path.display())]
    Network {
        /// The model.
        path: PathBuf,
        /// What the back end says.
        source: backend::Error,
    },
    /// The model, opened or run.
    #[error(transparent)]
    Model(Box<sd::Error>),
    /// A text that cannot be tokenized.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// A picture that cannot be scaled or cut.
    #[error(transparent)]
    Picture(#[from] picture::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

impl From<sd::Error> for Error {
    fn from(error: sd::Error) -> Error {
        Error::Model(Box::new(error))
    }
}

/// Of the calls of towers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Both towers, ready for one text or one picture at a time.
pub struct Towers {
    tokenizer: Tokenizer,
    text: Ready<TextInputs>,
    /// `[projection_dim, hidden_size]`, kept here: it stands in either tower's file, and is small.
    projection: Vec<f32>,
    text_config: ClipTextConfig,
    vision: Ready<Tensor>,
    vision_config: ClipVisionConfig,
    /// Mean and deviation of each colour.
    normal: [[f32; 3]; 2],
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
        let (text, vision) = (&encoder.part.component, &tower.part.component);
        let (text_config, vision_config) = (encoder.part.config.clone(), tower.part.config.clone());
        let tokenizer = &encoder.tokenizer;
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
        let text_program = text_program(gpu, &encoder.part, tokenizer.max_length())?;
        let vision_program = vision_program(gpu, &tower.part)?;
        Ok(Towers {
            tokenizer: tokenizer.clone(),
            text: text_program,
            projection,
            text_config,
            vision: vision_program,
            vision_config,
            normal: normalisation(tower.preprocessor.as_ref()),
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
        self.blame(self.vision.write(self.vision.inputs, &Array::f32([1, side, side, 3], pixels)))?;
        self.vision.run();
        Ok(Embedding::new(self.blame(self.vision.output(0))?.values().to_vec()))
    }

    fn blame<T>(&self, result: Result<T, impl Into<backend::Error>>) -> Result<T> {
        let path = self.path.clone();
        result.map_err(|source| Error::Network { path, source: source.into() })
    }
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

fn vision_program(gpu: &Device, tower: &Part<ClipVisionConfig>) -> sd::Result<Ready<Tensor>> {
    let network = LoadedNetwork::new(gpu, tower, Precision::AsStored);
    let planned = network.plan(|config, graph| {
        let side = config.image_size;
        let pixels = graph.input("pixels", [1, side, side, config.num_channels]);
        let mut layers = Layers::new(graph);
        let tokens = clip_vision::clip_vision(&mut layers, config, pixels)?;
        Ok((pixels, vec![clip_vision::project(&mut layers, config, tokens)?]))
    })?;
    network.program(&planned)
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
