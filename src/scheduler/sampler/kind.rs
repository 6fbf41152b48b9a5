//! Which samplers there are, what they are called, and which one a model asks for.
use crate::scheduler::config::{ScheduleError, SchedulerConfig};
use std::{fmt, str::FromStr};

/// A sampler, by the diffusers class that it equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// `DDIMScheduler`
    Ddim,
    /// `PNDMScheduler`, called PLMS where it skips its Runge-Kutta start
    Pndm,
    /// `EulerDiscreteScheduler`
    Euler,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestral,
    /// `HeunDiscreteScheduler`
    Heun,
    /// `DPMSolverMultistepScheduler`
    Dpmpp2m,
    /// `DPMSolverMultistepScheduler` with `algorithm_type = "sde-dpmsolver++"`
    Dpmpp2mSde,
    /// `LCMScheduler`
    Lcm,
}

impl SamplerKind {
    pub const ALL: [Self; 8] =
        [Self::Ddim, Self::Pndm, Self::Euler, Self::EulerAncestral, Self::Heun, Self::Dpmpp2m, Self::Dpmpp2mSde, Self::Lcm];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::Heun => "heun",
            Self::Dpmpp2m => "dpmpp-2m",
            Self::Dpmpp2mSde => "dpmpp-2m-sde",
            Self::Lcm => "lcm",
        }
    }

    /// Whether its sigmas can be spaced as Karras et al. 2022 do.
    pub fn has_karras_sigmas(self) -> bool {
        matches!(self, Self::Euler | Self::Heun | Self::Dpmpp2m | Self::Dpmpp2mSde)
    }

    /// The sampler that a model's scheduler config names (PNDM where it names none), and a note where another one
    /// stands in for it.
    ///
    /// # Errors
    /// A scheduler that is not for Stable Diffusion's kind of model.
    pub fn of_model(config: &SchedulerConfig) -> Result<(Self, Option<String>), ScheduleError> {
        let Some(class) = config.class_name.as_deref() else {
            return Ok((Self::Pndm, None));
        };
        let algorithm = config.algorithm_type.as_deref().unwrap_or("dpmsolver++");
        let stands_in = |kind: Self| (kind, Some(format!("{kind} stands in for the model's {class}")));
        Ok(match class {
            "DDIMScheduler" => (Self::Ddim, None),
            "PNDMScheduler" => (Self::Pndm, None),
            "EulerDiscreteScheduler" => (Self::Euler, None),
            "EulerAncestralDiscreteScheduler" => (Self::EulerAncestral, None),
            "HeunDiscreteScheduler" => (Self::Heun, None),
            "LCMScheduler" => (Self::Lcm, None),
            "DPMSolverMultistepScheduler" => match algorithm {
                "dpmsolver++" | "deis" => (Self::Dpmpp2m, None),
                "sde-dpmsolver++" => (Self::Dpmpp2mSde, None),
                other => {
                    let kind = if other.starts_with("sde") { Self::Dpmpp2mSde } else { Self::Dpmpp2m };
                    (kind, Some(format!("{kind} stands in for the model's {class} ({other})")))
                }
            },
            "DPMSolverSinglestepScheduler" | "DEISMultistepScheduler" | "UniPCMultistepScheduler" => stands_in(Self::Dpmpp2m),
            "DPMSolverSDEScheduler" => stands_in(Self::Dpmpp2mSde),
            "KDPM2AncestralDiscreteScheduler" => stands_in(Self::EulerAncestral),
            "KDPM2DiscreteScheduler" | "LMSDiscreteScheduler" => stands_in(Self::Euler),
            "DDPMScheduler" => stands_in(Self::Ddim),
            "TCDScheduler" => stands_in(Self::Lcm),
            other => {
                return Err(ScheduleError::Config {
                    option: "_class_name",
                    found: other.into(),
                    expected: "a scheduler of Stable Diffusion, such as PNDMScheduler".into(),
                });
            }
        })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no sampler's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown sampler `{0}`: expected one of {list}", list = SamplerKind::ALL.map(SamplerKind::name).join(", "))]
pub struct UnknownSampler(pub String);

impl FromStr for SamplerKind {
    type Err = UnknownSampler;

    fn from_str(name: &str) -> Result<Self, UnknownSampler> {
        let plain = name.to_ascii_lowercase().replace(['_', ' '], "-").replace("++", "pp");
        Ok(match plain.as_str() {
            "ddim" => Self::Ddim,
            "pndm" | "plms" => Self::Pndm,
            "euler" => Self::Euler,
            "euler-ancestral" | "euler-a" => Self::EulerAncestral,
            "heun" => Self::Heun,
            "dpmpp-2m" | "dpmpp2m" | "dpm-solver" | "dpm-solverpp" => Self::Dpmpp2m,
            "dpmpp-2m-sde" | "dpmpp2m-sde" => Self::Dpmpp2mSde,
            "lcm" => Self::Lcm,
            _ => return Err(UnknownSampler(name.into())),
        })
    }
}
