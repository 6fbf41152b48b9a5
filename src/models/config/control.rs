//! Configurations of networks that steer a UNet by a picture.
use super::keys::Keys;
use super::{ConfigError, UNetConfig};
use serde_json::{Value, json};
use std::path::Path;

/// `ControlNetModel`'s configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetConfig {
    /// Of the copied half; its up blocks mean nothing.
    pub unet: UNetConfig,
    /// Channels of the picture's encoder, the first at full size, each further one at half the size
    /// of the one before.
    pub embedding_channels: Vec<usize>,
    /// Channels of the picture.
    pub condition_channels: usize,
    /// The picture's channels are given as blue, green, red.
    pub reversed_channels: bool,
}

impl ControlNetConfig {
    /// Reads a ControlNet's `config.json`; `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let keys = Keys::new(config, file)?;
        keys.must_be("_class_name", &json!("ControlNetModel"))?;
        keys.must_be("global_pool_conditions", &json!(false))?;
        let reversed_channels = match keys.text("controlnet_conditioning_channel_order")? {
            None | Some("rgb") => false,
            Some("bgr") => true,
            Some(_) => {
                return Err(keys.unsupported("controlnet_conditioning_channel_order", "rgb, bgr"));
            }
        };
        let embedding_channels =
            keys.counts("conditioning_embedding_out_channels", &[16, 32, 96, 256])?;
        let condition_channels = keys.count("conditioning_channels", 3)?;
        if !matches!(condition_channels, 1 | 3) {
            return Err(keys.unsupported("conditioning_channels", "1 or 3"));
        }
        let mut unet = config.clone();
        let blocks = keys.counts("block_out_channels", &[320, 640, 1280, 1280])?.len();
        unet["_class_name"] = json!("UNet2DConditionModel");
        // ControlNets have none; plain ones stand in, so that the other blocks are read by the
        // rules for UNets.
        unet["up_block_types"] = json!(vec!["UpBlock2D"; blocks]);
        let unet = UNetConfig::from_json(&unet, file)?;
        Ok(Self { unet, embedding_channels, condition_channels, reversed_channels })
    }

    /// Pixels of the picture for each latent, along one side.
    pub fn downscale(&self) -> usize {
        1 << (self.embedding_channels.len() - 1)
    }
}

/// `T2IAdapter`'s configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct T2IAdapterConfig {
    /// Channels of the picture.
    pub in_channels: usize,
    /// Channels of each feature map, from the largest; see [`T2IAdapterConfig::halves`].
    pub channels: Vec<usize>,
    /// Residual blocks for each feature map.
    pub layers: usize,
    /// Pixels of the picture for each pixel of the largest feature map, along one side: blocks of
    /// them become channels.
    pub downscale_factor: usize,
    /// The narrow kind: a quarter of the channels inside.
    pub light: bool,
    /// For Stable Diffusion XL, whose first block has no attention.
    pub xl: bool,
}

impl T2IAdapterConfig {
    /// Reads a T2I-Adapter's `config.json`; `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let keys = Keys::new(config, file)?;
        keys.must_be("_class_name", &json!("T2IAdapter"))?;
        const KINDS: &str = "full_adapter, full_adapter_xl, light_adapter";
        let (light, xl) = match keys.text("adapter_type")? {
            None | Some("full_adapter") => (false, false),
            Some("full_adapter_xl") => (false, true),
            Some("light_adapter") => (true, false),
            Some(_) => return Err(keys.unsupported("adapter_type", KINDS)),
        };
        let mut channels = keys
            .counts("channels", if light { &[320, 640, 1280] } else { &[320, 640, 1280, 1280] })?;
        if light {
            if channels.iter().any(|c| c % 4 != 0) {
                return Err(keys.invalid("channels", "multiples of 4"));
            }
            // Its last feature map is as wide as the one before.
            channels.extend(channels.last().copied());
        }
        let in_channels = keys.count("in_channels", 3)?;
        if !matches!(in_channels, 1 | 3) {
            return Err(keys.unsupported("in_channels", "1 or 3"));
        }
        Ok(Self {
            in_channels,
            channels,
            layers: keys.count("num_res_blocks", if light { 4 } else { 2 })?,
            downscale_factor: keys.count("downscale_factor", if xl { 16 } else { 8 })?,
            light,
            xl,
        })
    }

    /// Whether feature map `i` has half the size of the one before.
    pub fn halves(&self, i: usize) -> bool {
        if self.xl { i == 2 } else { i > 0 }
    }
}
