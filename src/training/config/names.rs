//! The choices that settings name, by the names that files and flags have for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::backend::Precision;
use crate::training::captions::Templates;
use crate::training::step::{Method, PriorTarget, TextLayers, UNetLayers};

/// A name that none of the choices has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of {expected}")]
pub struct UnknownName {
    pub found: String,
    pub expected: &'static str,
}

/// What is to be trained: decides the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Somebody: cut out by masks, whose words look at the mask alone.
    #[default]
    Person,
    /// A thing: as a person.
    Object,
    /// A place: all of the picture counts.
    Scene,
    /// A way to paint or photograph: all of the picture counts.
    Style,
}

/// How learning rates change over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decay {
    /// In a straight line to 0, the method's.
    #[default]
    Linear,
    /// In half a cosine to 0.
    Cosine,
    /// Constant for six tenths of the run, then in a straight line to 0: more is trained in few
    /// updates.
    Cooldown,
    /// The same all the time.
    Constant,
}

impl Decay {
    /// The factor of the learning rates at update `step` (from 0) of `steps`.
    pub fn factor(self, step: usize, steps: usize) -> f64 {
        let gone = step as f64 / steps.max(1) as f64;
        match self {
            Self::Linear => (1.0 - gone).max(0.0),
            Self::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * gone.min(1.0))),
            Self::Cooldown => ((1.0 - gone) / 0.4).clamp(0.0, 1.0),
            Self::Constant => 1.0,
        }
    }
}

/// Names for the variants of an enum, both ways.
macro_rules! named {
    ($type:ty, $all:literal, $($name:literal $(| $other:literal)* => $variant:path),+ $(,)?) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(match self { $($variant => $name,)+ })
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($name $(| $other)* => Ok($variant),)+
                    _ => Err(UnknownName { found: name.to_string(), expected: $all }),
                }
            }
        }

        by_name!($type);
    };
}

/// Written and read as the name.
macro_rules! by_name {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

named!(Kind, "person, object, scene, style",
    "person" => Kind::Person, "object" => Kind::Object, "scene" => Kind::Scene,
    "style" => Kind::Style);
named!(Decay, "linear, cosine, cooldown, constant",
    "linear" => Decay::Linear, "cosine" => Decay::Cosine, "cooldown" => Decay::Cooldown,
    "constant" => Decay::Constant);
named!(Method, "ed-lora, lora, p-plus, orthogonal",
    "ed-lora" | "edlora" => Method::EdLora, "lora" => Method::Lora,
    "p-plus" | "p+" => Method::PPlus, "orthogonal" => Method::Orthogonal);
named!(TextLayers, "attention, encoder-layer",
    "attention" | "CLIPAttention" => TextLayers::Attention,
    "encoder-layer" | "CLIPEncoderLayer" => TextLayers::EncoderLayer);
named!(UNetLayers, "attention, keys-values, transformer",
    "attention" | "Attention" | "CrossAttention" => UNetLayers::Attention,
    "keys-values" => UNetLayers::KeysValues,
    "transformer" | "Transformer2DModel" => UNetLayers::Transformer);
named!(PriorTarget, "noise, base",
    "noise" => PriorTarget::Noise, "base" => PriorTarget::Base);
named!(Templates, "none, person, object, scene, style",
    "none" => Templates::None, "person" => Templates::Person, "object" => Templates::Object,
    "scene" => Templates::Scene, "style" => Templates::Style);
by_name!(Precision);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        fn check<T: FromStr<Err = UnknownName> + fmt::Display + PartialEq + fmt::Debug>(
            names: &str,
        ) {
            for name in names.split(", ") {
                assert_eq!(name.parse::<T>().unwrap().to_string(), name);
            }
            let error = "nonsense".parse::<T>().unwrap_err();
            assert_eq!(error.expected, names);
            assert_eq!(error.to_string(), format!("`nonsense` is none of {names}"));
        }
        check::<Kind>("person, object, scene, style");
        check::<Decay>("linear, cosine, cooldown, constant");
        check::<Method>("ed-lora, lora, p-plus, orthogonal");
        check::<TextLayers>("attention, encoder-layer");
        check::<UNetLayers>("attention, keys-values, transformer");
        check::<PriorTarget>("noise, base");
        check::<Templates>("none, person, object, scene, style");
        assert_eq!("Transformer2DModel".parse(), Ok(UNetLayers::Transformer));
    }

    #[test]
    fn decays() {
        let factors =
            |decay: Decay| [0, 50, 100].map(|step| (decay.factor(step, 100) * 1e6).round() / 1e6);
        assert_eq!(factors(Decay::Linear), [1.0, 0.5, 0.0]);
        assert_eq!(factors(Decay::Cosine), [1.0, 0.5, 0.0]);
        assert_eq!(factors(Decay::Cooldown), [1.0, 1.0, 0.0]);
        assert!((Decay::Cooldown.factor(80, 100) - 0.5).abs() < 1e-9);
        assert_eq!(factors(Decay::Constant), [1.0, 1.0, 1.0]);
        assert!(Decay::Cosine.factor(25, 100) > 0.8);
    }
}
