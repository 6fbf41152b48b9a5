//! Which samplers there are, and which one a model asks for.

use std::fmt;
use std::str::FromStr;

use super::descriptor::Descriptor;
use super::{ddim, dpm_solver, dpmpp_3m_sde, dpmpp_sde, euler, heun, lcm, pndm, tcd, unipc};
use crate::scheduler::config::{ScheduleError, SchedulerConfig, SigmaSpacing};
use crate::scheduler::spacing::Schedule;

/// A sampler, by the diffusers class that it equals.
#[derive(Clone, Copy)]
pub struct SamplerKind(pub(in crate::scheduler) &'static Descriptor);

impl SamplerKind {
    /// Song et al. 2021, "Denoising diffusion implicit models".
    pub const DDIM: Self = Self(&ddim::DDIM);
    /// Liu et al. 2022, "Pseudo numerical methods", without Runge-Kutta steps.
    pub const PNDM: Self = Self(&pndm::PNDM);
    /// Euler's method along the probability flow (Karras et al. 2022).
    pub const EULER: Self = Self(&euler::EULER);
    /// Euler's, with fresh noise in each step.
    pub const EULER_ANCESTRAL: Self = Self(&euler::EULER_ANCESTRAL);
    /// Heun's method: two calls of the model a step (Karras et al. 2022).
    pub const HEUN: Self = Self(&heun::HEUN);
    /// DPM-Solver++ (Lu et al. 2022), multistep of second order.
    pub const DPMPP_2M: Self = Self(&dpm_solver::DPMPP_2M);
    /// The same of the stochastic equation, with fresh noise in each step.
    pub const DPMPP_2M_SDE: Self = Self(&dpm_solver::DPMPP_2M_SDE);
    /// The same, singlestep: two calls of the model a step.
    pub const DPMPP_SDE: Self = Self(&dpmpp_sde::DPMPP_SDE);
    /// The same, multistep of third order.
    pub const DPMPP_3M_SDE: Self = Self(&dpmpp_3m_sde::DPMPP_3M_SDE);
    /// Zhao et al. 2023, "UniPC": a predictor with a corrector that costs nothing.
    pub const UNIPC: Self = Self(&unipc::UNIPC);
    /// Luo et al. 2023, "Latent consistency models": for models that were distilled so.
    pub const LCM: Self = Self(&lcm::LCM);
    /// Zheng et al. 2024, "Trajectory consistency distillation": for models that were distilled so.
    pub const TCD: Self = Self(&tcd::TCD);

    /// All, in the order in which they are listed for people.
    pub const ALL: [Self; 12] = [
        Self::DDIM,
        Self::PNDM,
        Self::EULER,
        Self::EULER_ANCESTRAL,
        Self::HEUN,
        Self::DPMPP_2M,
        Self::DPMPP_2M_SDE,
        Self::DPMPP_SDE,
        Self::DPMPP_3M_SDE,
        Self::UNIPC,
        Self::LCM,
        Self::TCD,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The name that web UIs have for it.
    pub fn web_name(self) -> &'static str {
        self.0.web_name
    }

    /// Whether it can go by a schedule.
    pub fn takes(self, schedule: Schedule) -> bool {
        match schedule.sigmas() {
            SigmaSpacing::Timesteps => !self.0.distilled,
            _ => self.0.any_sigmas,
        }
    }

    /// The share of fresh noise that it draws where nobody says; none: it takes none.
    pub fn usual_eta(self) -> Option<f64> {
        self.0.eta
    }

    /// Whether web UIs draw its noise from a Brownian tree, which gives other numbers than here.
    pub fn is_by_a_tree(self) -> bool {
        self.0.by_a_tree
    }

    /// Names of those for which `holds`, as an error tells them: `euler, heun and lcm do`.
    pub(super) fn those(holds: impl Fn(&'static Descriptor) -> bool) -> String {
        let names: Vec<&str> =
            Self::ALL.iter().filter(|kind| holds(kind.0)).map(|kind| kind.name()).collect();
        match names.split_last() {
            Some((last, [])) => format!("{last} does"),
            Some((last, others)) => format!("{} and {last} do", others.join(", ")),
            None => "none does".into(),
        }
    }

    /// The sampler that a model's scheduler config names (PNDM where it names none), and a note
    /// where another one stands in for it.
    ///
    /// # Errors
    /// A scheduler that is not for Stable Diffusion's kind of model.
    pub fn of_model(config: &SchedulerConfig) -> Result<(Self, Option<String>), ScheduleError> {
        let Some(class) = config.class_name.as_deref() else {
            return Ok((Self::PNDM, None));
        };
        let algorithm = config.algorithm_type.as_deref().unwrap_or("dpmsolver++");
        let mut of_class = Self::ALL.into_iter().filter(|kind| kind.0.class == class).peekable();
        if let Some(&first) = of_class.peek() {
            let of_algorithm = |kind: &Self| {
                kind.0.algorithms.is_empty() || kind.0.algorithms.contains(&algorithm)
            };
            let (exact, others): (Vec<Self>, Vec<Self>) = of_class.partition(of_algorithm);
            if let Some(kind) = exact.first() {
                return Ok((*kind, None));
            }
            // Another algorithm of the class: the one that draws noise stands in for those that do.
            let draws = algorithm.starts_with("sde");
            let kind = others.into_iter().find(|kind| kind.0.draws_noise == draws).unwrap_or(first);
            return Ok((
                kind,
                Some(format!("{kind} stands in for the model's {class} ({algorithm})")),
            ));
        }
        match Self::ALL.into_iter().find(|kind| kind.0.stands_in_for.contains(&class)) {
            Some(kind) => Ok((kind, Some(format!("{kind} stands in for the model's {class}")))),
            None => Err(ScheduleError::Config {
                option: "_class_name",
                found: class.into(),
                expected: "a scheduler of Stable Diffusion, such as PNDMScheduler".into(),
            }),
        }
    }
}

impl PartialEq for SamplerKind {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for SamplerKind {}

impl fmt::Debug for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no sampler's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown sampler `{0}`: expected one of {list}",
    list = SamplerKind::ALL.map(SamplerKind::name).join(", ")
)]
pub struct UnknownSampler(pub String);

impl FromStr for SamplerKind {
    type Err = UnknownSampler;

    fn from_str(name: &str) -> Result<Self, UnknownSampler> {
        let plain = name.to_ascii_lowercase().replace(['_', ' '], "-").replace("++", "pp");
        let is_called =
            |kind: &Self| kind.0.name == plain || kind.0.other_names.contains(&plain.as_str());
        Self::ALL.into_iter().find(is_called).ok_or_else(|| UnknownSampler(name.into()))
    }
}
