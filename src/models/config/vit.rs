//! The configuration of a vision transformer of DINO's kind.
use super::ConfigError;
use super::keys::Keys;
use serde_json::Value;
use std::path::Path;

/// A vision transformer that learnt without texts: DINO (Caron et al. 2021), DINOv2 (Oquab et al.
/// 2023), the latter with scaled branches and perhaps registers (Darcet et al. 2023).
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Tokens that stand for no place, besides the one for the whole picture.
    pub num_registers: usize,
    /// Positions that its files hold: one for each patch of the pictures that it was trained on,
    /// and perhaps one for the whole picture.
    pub positions: usize,
    /// What attention and the feed-forward part add is scaled channel by channel.
    pub layer_scale: bool,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
}

impl VitConfig {
    /// Reads what [`crate::models::vit`] needs; `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let keys = Keys::new(config, file)?;
        let hidden_size = keys.count("hidden_size", 384)?;
        let heads = keys.count("num_attention_heads", 6)?;
        if !hidden_size.is_multiple_of(heads) {
            return Err(keys.invalid(
                "num_attention_heads",
                format!("a number that divides `hidden_size`, {hidden_size}"),
            ));
        }
        Ok(Self {
            hidden_size,
            intermediate_size: keys.count("intermediate_size", 4 * hidden_size)?,
            num_hidden_layers: keys.count("num_hidden_layers", 12)?,
            num_attention_heads: heads,
            patch_size: keys.count("patch_size", 16)?,
            num_registers: keys.get("num_registers").and_then(Value::as_u64).unwrap_or(0) as usize,
            positions: keys.count("positions", 197)?,
            layer_scale: keys.flag("layer_scale", false)?,
            layer_norm_eps: keys.positive_number("layer_norm_eps", 1e-6)?,
        })
    }
}
