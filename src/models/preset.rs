//! Well-known model sizes without their weights: for benches, plans and tests of full size.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::config::{ClipTextConfig, ConfigError, UNetConfig, VaeConfig};
use crate::graph::{ParameterError, ParameterInfo, ParameterSource, StoredAs};

/// Configurations of a known model family.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The UNet's.
    pub unet: UNetConfig,
    /// The autoencoder's.
    pub vae: VaeConfig,
    /// The text encoder's.
    pub text: ClipTextConfig,
    /// The second text encoder's, of Stable Diffusion XL.
    pub text_2: Option<ClipTextConfig>,
}

const KNOWN: [(&str, &str); 4] = [
    ("sd15", include_str!("../../assets/presets/sd15.json")),
    ("sd21", include_str!("../../assets/presets/sd21.json")),
    ("sdxl", include_str!("../../assets/presets/sdxl.json")),
    ("tiny", TINY),
];

/// The model that ships with the program.
const TINY: &str = concat!(
    r#"{"unet": "#,
    include_str!("../../models/tiny/unet/config.json"),
    r#", "vae": "#,
    include_str!("../../models/tiny/vae/config.json"),
    r#", "text_encoder": "#,
    include_str!("../../models/tiny/text_encoder/config.json"),
    "}"
);

/// Names of the presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|(name, _)| *name)
}

/// The preset `name` (`sd15`: Stable Diffusion 1.x; `sd21`: 2.x; `sdxl`: XL; `tiny`: the model that
/// ships), if there is one.
pub fn preset(name: &str) -> Option<Result<Preset, ConfigError>> {
    let (_, text) = KNOWN.iter().find(|(known, _)| *known == name)?;
    let parsed: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let file = Path::new(name);
    let make = || {
        Ok(Preset {
            unet: UNetConfig::from_json(&parsed["unet"], file)?,
            vae: VaeConfig::from_json(&parsed["vae"], file)?,
            text: ClipTextConfig::from_json(&parsed["text_encoder"], file)?,
            text_2: parsed
                .get("text_encoder_2")
                .map(|config| ClipTextConfig::from_json(config, file))
                .transpose()?,
        })
    };
    Some(make())
}

/// Weights made up as they are read: noise of the size that keeps activations in range. Takes any
/// name and shape, so that a full model can be run without its file. The shape is not known here:
/// reads may be of any range.
pub struct MadeUpWeights {
    /// The precision that they pretend to be stored in.
    pub stored: StoredAs,
    shapes: std::collections::HashMap<String, Vec<usize>>,
}

impl MadeUpWeights {
    /// Weights for all parameters of `graph`.
    pub fn of(graph: &crate::graph::Graph, stored: StoredAs) -> MadeUpWeights {
        let named = |node: &crate::graph::Node| match &node.origin {
            crate::graph::Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
            _ => None,
        };
        MadeUpWeights { stored, shapes: graph.nodes().iter().filter_map(named).collect() }
    }
}

impl ParameterSource for MadeUpWeights {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.shapes.get(name)?.clone(), stored: self.stored })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let shape =
            self.shapes.get(name).ok_or_else(|| ParameterError::Missing { name: name.into() })?;
        let fan_in: usize = shape.iter().skip(1).product();
        // Uniform of variance 1 / fan_in; vectors: norms near 1, biases near 0.
        let (scale, offset) = match (shape.len(), name.ends_with("bias")) {
            (1, true) => (0.1, 0.0),
            (1, false) => (0.1, 1.0),
            _ => ((3.0 / fan_in.max(1) as f32).sqrt(), 0.0),
        };
        let mut state =
            (range.start as u64).wrapping_mul(0x9e3779b97f4a7c15) ^ (name.len() as u64) << 32;
        for value in into.iter_mut() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *value = offset + scale * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
        }
        Ok(())
    }
}
