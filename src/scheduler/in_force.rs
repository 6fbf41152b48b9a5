//! What a sampler makes of a model's scheduler config.

use super::config::{PredictionType, ScheduleError, SchedulerConfig, Settings, SigmaSpacing};
use super::sampler::SamplerKind;
use super::schedule::NoiseSchedule;

impl SchedulerConfig {
    /// The values in force when `kind` runs on this config: keys its diffusers class knows, its
    /// defaults for missing ones.
    ///
    /// # Errors
    /// Options that are no linear step, or that no Stable Diffusion model uses: clipping,
    /// thresholding, Lu and flow sigmas, log-linear interpolation, continuous timesteps.
    pub fn for_sampler(&self, kind: SamplerKind) -> Result<Settings, ScheduleError> {
        let of = kind.0;
        let unsupported =
            |what: &str| ScheduleError::Unsupported { sampler: kind.name(), what: what.into() };
        let on = |value: Option<bool>, known: bool| known && value.unwrap_or(false);
        if of.clip_sample.is_some_and(|silent| self.clip_sample.unwrap_or(silent)) {
            return Err(unsupported(
                "`clip_sample`: true (DDIM's default where the scheduler config is silent)",
            ));
        }
        if on(self.thresholding, of.thresholding) {
            return Err(unsupported("`thresholding`"));
        }
        let spacings = [
            (self.use_karras_sigmas, SigmaSpacing::Karras),
            (self.use_exponential_sigmas, SigmaSpacing::Exponential),
            (self.use_beta_sigmas, SigmaSpacing::Beta),
        ];
        let mut spacings = spacings.iter().filter(|(key, _)| on(*key, of.sigma_options));
        let sigmas = spacings.next().map_or(SigmaSpacing::Timesteps, |(_, spacing)| *spacing);
        if spacings.next().is_some() {
            return Err(unsupported(
                "more than one of `use_karras_sigmas`, `use_exponential_sigmas` and \
                    `use_beta_sigmas`",
            ));
        }
        if of.corrects && self.predict_x0 == Some(false) {
            return Err(unsupported("`predict_x0`: false"));
        }
        if on(self.use_lu_lambdas, of.multistep) {
            return Err(unsupported("`use_lu_lambdas`"));
        }
        if on(self.use_flow_sigmas, of.multistep) {
            return Err(unsupported("`use_flow_sigmas`"));
        }
        if of.interpolation && self.interpolation_type.as_deref().is_some_and(|t| t != "linear") {
            return Err(unsupported("an `interpolation_type` other than linear"));
        }
        if of.interpolation && self.timestep_type.as_deref().is_some_and(|t| t != "discrete") {
            return Err(unsupported("a `timestep_type` other than discrete"));
        }
        let prediction = self.prediction_type.unwrap_or_default();
        if prediction == PredictionType::Sample && of.refuses_sample_prediction {
            return Err(unsupported("models that predict the sample (`prediction_type`: sample)"));
        }
        let num_train_timesteps = self.num_train_timesteps.unwrap_or(1000);
        if num_train_timesteps == 0 || num_train_timesteps > 1_000_000 {
            return Err(ScheduleError::Config {
                option: "num_train_timesteps",
                found: num_train_timesteps.to_string(),
                expected: "1 to 1000000".into(),
            });
        }
        let solver_order = self.solver_order.unwrap_or(2);
        if of.multistep && !(1..=3).contains(&solver_order) {
            return Err(ScheduleError::Config {
                option: "solver_order",
                found: solver_order.to_string(),
                expected: "1, 2 or 3".into(),
            });
        }
        Ok(Settings {
            num_train_timesteps,
            beta_start: self.beta_start.unwrap_or(of.betas[0]),
            beta_end: self.beta_end.unwrap_or(of.betas[1]),
            beta_schedule: self.beta_schedule.unwrap_or(of.beta_schedule),
            trained_betas: self.trained_betas.clone(),
            prediction,
            spacing: self.timestep_spacing.unwrap_or(of.spacing),
            steps_offset: self.steps_offset.unwrap_or(0),
            set_alpha_to_one: self.set_alpha_to_one.unwrap_or(of.set_alpha_to_one),
            skip_prk_steps: self.skip_prk_steps.unwrap_or(false),
            rescale_betas_zero_snr: on(self.rescale_betas_zero_snr, of.rescales_to_zero_snr),
            sigmas,
            sigma_min: self.sigma_min.filter(|_| of.interpolation),
            sigma_max: self.sigma_max.filter(|_| of.interpolation),
            final_sigmas: self.final_sigmas_type.filter(|_| of.final_sigmas).unwrap_or_default(),
            solver_order,
            solver_type: self.solver_type.unwrap_or_default(),
            disable_corrector: self.disable_corrector.clone().unwrap_or_default(),
            lower_order_final: self.lower_order_final.unwrap_or(true),
            euler_at_final: self.euler_at_final.unwrap_or(false),
            lambda_min_clipped: self.lambda_min_clipped.unwrap_or(f32::NEG_INFINITY),
            original_inference_steps: self.original_inference_steps.unwrap_or(50),
            timestep_scaling: self.timestep_scaling.unwrap_or(10.0),
        })
    }
}

impl NoiseSchedule {
    /// The schedule a model was trained with, for tuning it (diffusers' `DDPMScheduler`).
    ///
    /// # Errors
    /// A config whose numbers make no schedule: see [`NoiseSchedule::new`].
    pub fn of_training(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        // DDIM's class knows the same keys about betas, with the same defaults.
        let silent =
            SchedulerConfig { clip_sample: Some(false), thresholding: None, ..config.clone() };
        Self::new(&silent.for_sampler(SamplerKind::DDIM)?)
    }
}
