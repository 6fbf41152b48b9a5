//! The noise schedule: how much of the signal is left at each training step, and which steps a run
//! visits.
//!
//! diffusers computes the tables in f32 and much of the rest in f64. The same widths are used here
//! at the same places, because samplers divide by small differences of these numbers.
use super::config::{BetaSchedule, ScheduleError, Settings, TimestepSpacing};

/// A noised sample: `signal * original + noise * gaussian`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// Factor of the original.
    pub signal: f32,
    /// Factor of the Gaussian noise.
    pub noise: f32,
}

impl NoiseLevel {
    /// No noise at all.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// The level of a sigma-based sampler, which leaves the signal unscaled.
    pub(super) fn sigma(sigma: f32) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// `signal * original + noise * gaussian`, element by element.
    pub fn apply(self, original: &[f32], gaussian: &[f32]) -> Vec<f32> {
        let pairs = original.iter().zip(gaussian);
        pairs.map(|(o, g)| self.signal * o + self.noise * g).collect()
    }
}

/// The tables over the training steps t = 0 .. `num_train_timesteps`, from little noise to much.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    betas: Vec<f32>,
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// Betas by `beta_schedule` (or `trained_betas`); `alpha_cumprod[t]` is the product over
    /// `s <= t` of `1 - beta[s]`.
    ///
    /// # Errors
    /// Betas outside [0, 1], or another number of trained betas than of training steps.
    pub fn new(settings: &Settings) -> Result<Self, ScheduleError> {
        let n = settings.num_train_timesteps;
        let (start, end) = (settings.beta_start, settings.beta_end);
        let mut betas = match (&settings.trained_betas, settings.beta_schedule) {
            (Some(trained), _) if trained.len() != n => {
                return Err(ScheduleError::Config {
                    option: "trained_betas",
                    found: format!("a list of {}", trained.len()),
                    expected: format!("one for each of the {n} training steps"),
                });
            }
            (Some(trained), _) => trained.clone(),
            (None, BetaSchedule::Linear) => linspace_f32(start, end, n),
            (None, BetaSchedule::ScaledLinear) => {
                let roots = linspace_f32(start.sqrt(), end.sqrt(), n);
                roots.into_iter().map(|root| root * root).collect()
            }
            (None, BetaSchedule::SquaredcosCapV2) => squared_cosine_betas(n),
        };
        if let Some(beta) = betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
            return Err(ScheduleError::Config {
                option: "beta_schedule",
                found: format!("one with a beta of {beta}"),
                expected: "betas from 0 to 1".into(),
            });
        }
        if settings.rescale_betas_zero_snr {
            betas = rescale_to_zero_snr(&betas);
        }
        let alphas_cumprod = cumulative_alphas(&betas);
        Ok(Self { betas, alphas_cumprod })
    }

    /// `beta[t]`, the variance added at training step t.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// `alpha_cumprod[t]`, the share of the signal's variance left after training step t.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// How to noise an original to training step `t`; `None` beyond the schedule. With x0 and eps
    /// as inputs, the target of a v-predicting model is `level.signal * eps - level.noise * x0`.
    pub fn level(&self, t: usize) -> Option<NoiseLevel> {
        self.alphas_cumprod
            .get(t)
            .map(|&alpha| NoiseLevel { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() })
    }

    /// Signal-to-noise ratio alpha_cumprod / (1 - alpha_cumprod) at training step `t`.
    pub fn snr(&self, t: usize) -> Option<f32> {
        self.alphas_cumprod.get(t).map(|alpha| alpha / (1.0 - alpha))
    }

    /// alpha_cumprod at `t`, as a sampler needs it.
    pub(super) fn alpha_at(&self, t: i64) -> Result<f32, ScheduleError> {
        let alpha = usize::try_from(t).ok().and_then(|t| self.alphas_cumprod.get(t));
        alpha.copied().ok_or_else(|| {
            ScheduleError::Request(format!(
                "the run would visit timestep {t}, but the schedule ends at {}: ask for fewer \
                    steps",
                self.alphas_cumprod.len() - 1
            ))
        })
    }

    /// `sigma[t] = sqrt((1 - alpha_cumprod) / alpha_cumprod)`, the noise relative to the signal.
    /// The last alpha_cumprod of a schedule rescaled to zero is replaced by 2^-24, as the samplers
    /// that work with sigmas do.
    pub(super) fn sigmas(&self, settings: &Settings) -> Vec<f32> {
        let mut sigmas: Vec<f32> =
            self.alphas_cumprod.iter().map(|&alpha| sigma_of(alpha)).collect();
        if settings.rescale_betas_zero_snr
            && let Some(last) = sigmas.last_mut()
        {
            *last = sigma_of((-24f32).exp2());
        }
        sigmas
    }
}

fn sigma_of(alpha: f32) -> f32 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// `torch.linspace` in f32, which counts from both ends towards the middle.
fn linspace_f32(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if n < 2 {
        return vec![start; n];
    }
    let step = (end - start) / (n - 1) as f32;
    let value = |i: usize| match i < n / 2 {
        true => step.mul_add(i as f32, start),
        false => (-step).mul_add((n - 1 - i) as f32, end),
    };
    (0..n).map(value).collect()
}

/// Betas that make alpha_cumprod follow cos^2 (Nichol and Dhariwal, "Improved denoising diffusion",
/// eq. 17).
fn squared_cosine_betas(n: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| {
        let t = i as f64 / n as f64;
        ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2)
    };
    (0..n).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

/// Products of 1 - beta up to each step, accumulated in f64 as torch does on the CPU.
fn cumulative_alphas(betas: &[f32]) -> Vec<f32> {
    betas
        .iter()
        .scan(1f64, |product, &beta| {
            *product *= f64::from(1.0 - beta);
            Some(*product as f32)
        })
        .collect()
}

/// Shifts and scales sqrt(alpha_cumprod) so that the last step has no signal left (Lin et al. 2024,
/// algorithm 1).
fn rescale_to_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_alphas(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let bars = roots.iter().map(|root| {
        let root = (root - last) * scale;
        root * root
    });
    let mut previous = 1.0;
    bars.map(|bar| {
        let alpha = bar / previous;
        previous = bar;
        1.0 - alpha
    })
    .collect()
}

/// The timesteps of a run of `n` steps by the config's spacing, from much noise to little, before
/// any rounding. `linspace` leaves them fractional.
pub(super) fn spaced_timesteps(settings: &Settings, n: usize) -> Vec<f64> {
    let train = settings.num_train_timesteps;
    match settings.spacing {
        TimestepSpacing::Linspace => linspace((train - 1) as f64, n),
        TimestepSpacing::Leading => {
            let ratio = train / n;
            (0..n).rev().map(|i| (i * ratio + settings.steps_offset) as f64).collect()
        }
        TimestepSpacing::Trailing => trailing(train as f64, train as f64 / n as f64),
        TimestepSpacing::SgmUniform | TimestepSpacing::Simple => web_timesteps(settings, n),
    }
}

/// Timesteps as web UIs space them; those of `SgmUniform` are fractional.
pub(super) fn web_timesteps(settings: &Settings, n: usize) -> Vec<f64> {
    let train = settings.num_train_timesteps;
    match settings.spacing {
        TimestepSpacing::SgmUniform => {
            linspace((train - 1) as f64, n + 1).into_iter().take(n).collect()
        }
        _ => {
            let stride = train as f64 / n as f64;
            (0..n).map(|i| (train - 1) as f64 - (i as f64 * stride).floor()).collect()
        }
    }
}

/// The sigma of a timestep out of the table of all: straight between neighbours as diffusers has
/// it, or straight in the logarithm as web UIs do.
pub(super) fn sigma_at(settings: &Settings, table: &[f32], t: f64) -> f64 {
    match settings.spacing {
        TimestepSpacing::SgmUniform => {
            let (low, share) = (t.floor(), t - t.floor());
            let [a, b] = [low, low + 1.0].map(|t| interpolate(table, t).ln());
            (a + (b - a) * share).exp()
        }
        _ => interpolate(table, t),
    }
}

/// `n` numbers from `stop` down to 0: `numpy.linspace(0, stop, n)` reversed.
pub(super) fn linspace(stop: f64, n: usize) -> Vec<f64> {
    let step = stop / (n.max(2) - 1) as f64;
    let value = |i: usize| {
        if i + 1 == n && n > 1 { stop } else { i as f64 * step }
    };
    (0..n).rev().map(value).collect()
}

/// `numpy.arange(start, 0, -ratio).round() - 1`. The difference of the first two numbers, not
/// `ratio` itself, is what numpy multiplies: it decides some ties of the rounding.
pub(super) fn trailing(start: f64, ratio: f64) -> Vec<f64> {
    let count = (start / ratio).ceil() as usize;
    let delta = (start - ratio) - start;
    (0..count).map(|i| (start + i as f64 * delta).round_ties_even() - 1.0).collect()
}

/// `numpy.interp(t, 0 .. n, values)`: linear between neighbours, constant beyond the ends.
pub(super) fn interpolate(values: &[f32], t: f64) -> f64 {
    let at = |i: usize| values.get(i).copied().map_or(f64::NAN, f64::from);
    let last = values.len().saturating_sub(1);
    if t <= 0.0 {
        return at(0);
    }
    if t >= last as f64 {
        return at(last);
    }
    let low = t as usize;
    (at(low + 1) - at(low)) * (t - low as f64) + at(low)
}

/// The fractional timestep of a sigma: linear in log sigma between the training steps.
pub(super) fn sigma_to_timestep(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let above = log_sigmas.iter().rposition(|&l| f64::from(l) <= log_sigma);
    let low = above.unwrap_or(0).min(log_sigmas.len().saturating_sub(2));
    let (Some(&l), Some(&h)) = (log_sigmas.get(low), log_sigmas.get(low + 1)) else {
        return 0.0;
    };
    let weight = ((f64::from(l) - log_sigma) / f64::from(l - h)).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::config::SchedulerConfig;
    use super::*;
    use serde_json::Value;

    fn close(got: f32, want: &Value) -> bool {
        let want = want.as_f64().unwrap();
        (f64::from(got) - want).abs() <= 1e-6 * want.abs() + 1e-9
    }

    #[test]
    fn training_tables_equal_diffusers() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/fixtures/schedules.json")).unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let config = SchedulerConfig::parse(&case["config"].to_string()).unwrap();
            let schedule = NoiseSchedule::of_training(&config).unwrap();
            let alphas = schedule.alphas_cumprod();
            assert_eq!(alphas.len() as u64, case["count"].as_u64().unwrap());
            assert_eq!(alphas.len(), schedule.betas().len());
            let terms = (0u32..).zip(alphas).map(|(i, a)| a.to_bits().wrapping_mul(2 * i + 1));
            let checksum = terms.fold(0, u32::wrapping_add);
            // To the bit, but for the C library's cosine and for torch's square root, which isn't
            // always correctly rounded.
            let cosine = config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2);
            if !cosine && config.rescale_betas_zero_snr != Some(true) {
                assert_eq!(u64::from(checksum), case["checksum"].as_u64().unwrap(), "{config:?}");
            }
            for (i, t) in case["steps"].as_array().unwrap().iter().enumerate() {
                let t = t.as_u64().unwrap() as usize;
                assert!(close(alphas[t], &case["alphas_cumprod"][i]), "{config:?} at {t}");
                let level = schedule.level(t).unwrap();
                assert!(close(level.signal, &case["levels"][i][0]), "{config:?} at {t}");
                assert!(close(level.noise, &case["levels"][i][1]), "{config:?} at {t}");
                let snr = (level.signal / level.noise).powi(2);
                assert!((schedule.snr(t).unwrap() - snr).abs() <= 1e-5 * snr);
            }
            assert_eq!(schedule.level(alphas.len()), None);
            assert_eq!(schedule.snr(alphas.len()), None);
        }
    }

    fn training_error(text: &str) -> String {
        let config = SchedulerConfig::parse(text).unwrap();
        NoiseSchedule::of_training(&config).unwrap_err().to_string()
    }

    #[test]
    fn impossible_schedules_are_refused() {
        let error = training_error(r#"{"trained_betas": [0.1, 0.2], "num_train_timesteps": 3}"#);
        assert!(
            error.contains("trained_betas")
                && error.contains("list of 2")
                && error.contains("3 training steps")
        );
        let error = training_error(r#"{"beta_end": 1.5}"#);
        assert!(error.contains("beta of 1.0") && error.contains("0 to 1"), "{error}");
        let error = training_error(r#"{"num_train_timesteps": 0}"#);
        assert!(error.contains("num_train_timesteps") && error.contains("is 0"));
    }

    /// 937.5 is one of the numbers before the shift by 1: the last bit of the stride decides which
    /// way it is rounded.
    #[test]
    fn trailing_rounds_as_numpy() {
        let timesteps = trailing(1000.0, 1000.0 / 48.0);
        assert_eq!(timesteps.len(), 48);
        assert_eq!(timesteps[..5], [999.0, 978.0, 957.0, 936.0, 916.0]);
    }
}
