//! From a checkpoint to a pipeline.

use std::io;

use crate::backend::Device;
use crate::backend::Precision;
use crate::checkpoint::{Checkpoint, TokenizerFiles};
use crate::concept::binding::fused_words;
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::scheduler::config::SchedulerConfig;
use crate::text::{KnownWords, Tokenizer};

use super::adaptation::Updates;
use super::error::Result;
use super::network::Network;
use super::sample::SampleShape;
use super::{Pipeline, decode, sample, text};

impl Pipeline {
    /// Reads configurations and tokenizer, and checks that every weight is there in the right
    /// shape. The weights themselves go to the device when they are first used.
    ///
    /// # Errors
    /// Files that contradict each other or ask for what this program does not compute; weights that
    /// are missing.
    pub fn load(gpu: &Device, checkpoint: &Checkpoint, precision: Precision) -> Result<Pipeline> {
        let (unet, vae, text) = (&checkpoint.unet, &checkpoint.vae, &checkpoint.text_encoder);
        let unet_config = UNetConfig::from_json(&unet.config, &unet.config_path)?;
        let vae_config = VaeConfig::from_json(&vae.config, &vae.config_path)?;
        let text_config = ClipTextConfig::from_json(&text.config, &text.config_path)?;
        let (scheduler, notes) =
            SchedulerConfig::parse(&checkpoint.scheduler.to_string())?.for_pipeline();
        let mut pipeline = Pipeline {
            gpu: gpu.clone(),
            unet: Network::new(gpu, unet, unet_config, precision),
            vae: Network::new(gpu, vae, vae_config, precision),
            text: Network::new(gpu, text, text_config, precision),
            tokenizer: tokenizer(&checkpoint.tokenizer)?,
            scheduler,
            guidance: checkpoint.guidance(),
            fused: fused_words(checkpoint)?,
            known: checkpoint.words.as_deref().map(KnownWords::parse),
            notes: checkpoint.notes.iter().cloned().chain(notes).collect(),
            sampling: None,
            decoder: None,
        };
        pipeline.check()?;
        Ok(pipeline)
    }

    /// The networks fit each other, and their weights fit their configurations.
    fn check(&mut self) -> Result<()> {
        let (unet, vae, text) = (&self.unet.config, &self.vae.config, &self.text.config);
        let channels = vae.latent_channels;
        if unet.in_channels != channels || unet.out_channels != channels {
            let (into, out) = (unet.in_channels, unet.out_channels);
            let what = format!(
                "a UNet from {into} to {out} channels on latents of {channels} (an inpainting or \
                    editing model)"
            );
            return Err(self.unet.unsupported(what));
        }
        if unet.cross_attention_dim != text.hidden_size {
            let (dim, width) = (unet.cross_attention_dim, text.hidden_size);
            return Err(self.unet.unsupported(format!(
                "`cross_attention_dim` {dim} with a text encoder of width {width}"
            )));
        }
        if unet.num_class_embeds.is_some() {
            return Err(self.unet.unsupported("a model that is told classes (`num_class_embeds`)"));
        }
        if vae.in_channels != 3 || vae.out_channels != 3 {
            let (into, out) = (vae.in_channels, vae.out_channels);
            return Err(self.vae.unsupported(format!(
                "an autoencoder from {into} to {out} channels; pictures have 3"
            )));
        }
        let length = self.tokenizer.max_length();
        self.text.weight_bytes(&text::plan_tower(
            &self.text,
            &Updates::default(),
            1,
            length,
            0,
        )?)?;
        // Small, but with every layer; weights do not depend on the size of a picture.
        let size = 1 << self.unet.config.down.len().min(8);
        let shape =
            SampleShape { height: size, width: size, tokens: length, ..SampleShape::default() };
        self.unet.weight_bytes(&sample::plan(&self.unet, &shape)?)?;
        let updates = Updates::default();
        self.unet.weight_bytes(&sample::keys_values(
            &self.unet,
            &self.unet.config,
            &updates,
            &shape,
            1,
        )?)?;
        self.vae.weight_bytes(&decode::plan(&self.vae, [2, 2])?)?;
        Ok(())
    }
}

fn tokenizer(files: &TokenizerFiles) -> Result<Tokenizer> {
    Ok(match files {
        TokenizerFiles::Standard { pad } => Tokenizer::clip_standard()?.with_pad(pad)?,
        TokenizerFiles::Folder(folder) => Tokenizer::from_files(folder.path(), &|name| {
            let bytes = folder.read(name).map_err(io::Error::other)?;
            bytes
                .map(|bytes| String::from_utf8(bytes.into_owned()).map_err(io::Error::other))
                .transpose()
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Folder;

    #[test]
    fn a_compiled_in_tokenizer_is_the_one_on_disk() {
        static FILES: include_dir::Dir =
            include_dir::include_dir!("$CARGO_MANIFEST_DIR/models/tiny/tokenizer");
        let compiled_in =
            tokenizer(&TokenizerFiles::Folder(Folder::embedded("tiny", &FILES))).unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer");
        let on_disk = tokenizer(&TokenizerFiles::Folder(Folder::disk(&path))).unwrap();
        let ids = |tokenizer: &Tokenizer| -> Vec<u32> {
            tokenizer
                .tokenize("a red cat in the snow")
                .unwrap()
                .iter()
                .map(|token| token.id)
                .collect()
        };
        assert_eq!(ids(&compiled_in), ids(&on_disk));
        assert!(ids(&on_disk).len() >= 6);
    }
}
