//! From a checkpoint to a pipeline.

use crate::backend::{Device, Precision};
use crate::checkpoint::Checkpoint;
use crate::sd::denoiser::{self, KeysValues, StepShape};
use crate::sd::network::LoadedNetwork;
use crate::sd::updates::Updates;
use crate::sd::{Model, text};

use super::error::Result;
use super::{Pipeline, decode};

impl Pipeline {
    /// Opens a checkpoint, and checks that every weight is there in the right shape. The weights
    /// themselves go to the device when they are first used.
    ///
    /// # Errors
    /// Files that contradict each other or ask for what this program does not compute; weights that
    /// are missing.
    pub fn load(gpu: &Device, checkpoint: &Checkpoint, precision: Precision) -> Result<Pipeline> {
        Pipeline::of(gpu, Model::open(checkpoint)?, precision)
    }

    /// A pipeline of a model that is open.
    ///
    /// # Errors
    /// Networks that do not fit each other; weights that are missing.
    pub fn of(gpu: &Device, model: Model, precision: Precision) -> Result<Pipeline> {
        model.check()?;
        let pipeline = Pipeline {
            gpu: gpu.clone(),
            unet: LoadedNetwork::new(gpu, &model.unet, precision),
            vae: LoadedNetwork::new(gpu, &model.vae, precision),
            texts: model
                .text_encoders
                .iter()
                .map(|encoder| LoadedNetwork::new(gpu, &encoder.part, precision))
                .collect(),
            tiny_vae: None,
            colours: None,
            model,
            sampling: None,
            decoder: None,
        };
        pipeline.check()?;
        Ok(pipeline)
    }

    /// The networks' weights fit their configurations.
    fn check(&self) -> Result<()> {
        let length = self.tokenizer().max_length();
        for (network, encoder) in self.texts.iter().zip(&self.model.text_encoders) {
            text::check(network, encoder.reading, length)?;
        }
        let shape = StepShape::smallest(&self.unet.config, length);
        self.unet.weight_bytes(&denoiser::plan_step(&self.unet, &shape)?)?;
        let none = Updates::default();
        let keys_values = KeysValues::plan(&self.unet, &self.unet.config, &none, &shape, 1)?;
        keys_values.weight_bytes(&self.unet)?;
        self.vae.weight_bytes(&decode::plan(&self.vae, [2, 2])?)?;
        Ok(())
    }
}
