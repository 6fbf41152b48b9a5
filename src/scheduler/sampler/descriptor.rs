//! What there is to know of a sampler, in one place: its names, the diffusers class that it equals
//! and what that class knows of a scheduler config, and how a run is planned.

use super::{Request, Run};
use crate::scheduler::config::{BetaSchedule, ScheduleError, TimestepSpacing};

/// A sampler. Each stands in the file of its formulas; all of them are listed in
/// [`super::SamplerKind::ALL`].
pub(in crate::scheduler) struct Descriptor {
    /// On the command line.
    pub name: &'static str,
    /// In lower case, with hyphens, `pp` for `++`.
    pub other_names: &'static [&'static str],
    /// As web UIs call it.
    pub web_name: &'static str,
    /// The diffusers class that it equals.
    pub class: &'static str,
    /// Values of `algorithm_type` with which the class is this sampler; none: whatever it says.
    pub algorithms: &'static [&'static str],
    /// Classes that it stands in for, which a note says.
    pub stands_in_for: &'static [&'static str],
    /// Fresh noise is drawn in every step.
    pub draws_noise: bool,
    /// What of fresh noise it draws where nobody says (`eta`); none: it takes no share.
    pub eta: Option<f64>,
    /// Programs with its name draw their noise from a Brownian tree, which nobody else can repeat.
    pub by_a_tree: bool,
    /// What the class makes of `clip_sample` where the config is silent; none: it does not know the
    /// key.
    pub clip_sample: Option<bool>,
    pub thresholding: bool,
    /// The class knows `use_karras_sigmas`, and the exponential and beta ones.
    pub sigma_options: bool,
    /// It can go by noise levels of any spacing.
    pub any_sigmas: bool,
    /// Its timesteps are those that the model was distilled on.
    pub distilled: bool,
    /// It corrects its steps, as UniPC does.
    pub corrects: bool,
    /// The class knows Lu's and flow matching's sigmas, and solvers of several orders.
    pub multistep: bool,
    /// The class knows `sigma_min`, `sigma_max`, `interpolation_type` and `timestep_type`.
    pub interpolation: bool,
    /// Models that predict the sample are not for it.
    pub refuses_sample_prediction: bool,
    pub rescales_to_zero_snr: bool,
    /// The class reads `final_sigmas_type`; else the last sigma is 0.
    pub final_sigmas: bool,
    /// Defaults where the config is silent.
    pub betas: [f64; 2],
    pub beta_schedule: BetaSchedule,
    pub spacing: TimestepSpacing,
    pub set_alpha_to_one: bool,
    pub run: fn(&Request) -> Result<Run, ScheduleError>,
}

/// What most classes have in common.
pub(super) const fn usual(run: fn(&Request) -> Result<Run, ScheduleError>) -> Descriptor {
    Descriptor {
        name: "",
        other_names: &[],
        web_name: "",
        class: "",
        algorithms: &[],
        stands_in_for: &[],
        draws_noise: false,
        eta: None,
        by_a_tree: false,
        clip_sample: None,
        thresholding: false,
        sigma_options: false,
        any_sigmas: false,
        distilled: false,
        corrects: false,
        multistep: false,
        interpolation: false,
        refuses_sample_prediction: false,
        rescales_to_zero_snr: true,
        final_sigmas: true,
        betas: [0.0001, 0.02],
        beta_schedule: BetaSchedule::Linear,
        spacing: TimestepSpacing::Linspace,
        set_alpha_to_one: true,
        run,
    }
}
