//! Every sampler against diffusers, step for step (tests/fixtures/samplers.json, made by
//! tools/reference/samplers.py).
use super::*;
use crate::scheduler::config::{PredictionType, TimestepSpacing};
use serde_json::Value;

const N: usize = 3;
/// Largest difference allowed, relative to the largest number of the sample.
const TOLERANCE: f64 = 1e-5;
/// The same where a run starts at sigma 4096 (zero signal): the sample shrinks a thousandfold in a
/// step, and what is left of it carries the rounding of the big numbers, in diffusers as here.
const TOLERANCE_FROM_ZERO_SIGNAL: f64 = 5e-5;

/// The formulas of the fixture's script.
fn model(x: &[f32], t: f32) -> Vec<f32> {
    let element = |(j, x): (usize, &f32)| {
        let wave = (f64::from(t) / 100.0 + j as f64).sin();
        (0.3 * f64::from(*x) + 0.5 * wave) as f32
    };
    x.iter().enumerate().map(element).collect()
}

fn start() -> Vec<f32> {
    (0..N).map(|j| (1.1 * (1.3 * j as f64).cos()) as f32).collect()
}

fn noise(k: usize) -> Vec<f32> {
    (0..N).map(|j| (1.3 * (1.7 * k as f64 + 0.9 * j as f64 + 0.2).sin()) as f32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn options(case: &Value) -> PlanOptions {
    PlanOptions {
        steps: case["steps"].as_u64().unwrap() as usize,
        schedule: case["schedule"].as_str().map(|name| name.parse().unwrap()),
        eta: case["eta"].as_f64(),
        strength: case["strength"].as_f64(),
    }
}

/// Largest difference relative to the largest number.
fn difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0f64, |scale, w| scale.max(w.abs()));
    let differences = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs() / scale);
    differences.fold(0.0, f64::max)
}

fn level(level: NoiseLevel) -> [f32; 2] {
    [level.signal, level.noise]
}

/// Runs one case; the largest difference of anything in it.
fn check(case: &Value) -> f64 {
    let config = SchedulerConfig::parse(&case["config"].to_string()).unwrap();
    let kind = case["kind"].as_str().unwrap().parse().unwrap();
    let plan = plan(kind, &config, &options(case)).unwrap();
    let timesteps: Vec<f32> = plan.steps.iter().map(|step| step.timestep).collect();
    let mut worst = difference(&timesteps, &numbers(&case["timesteps"]));
    let x = if let Some(scale) = case["initial_scale"].as_f64() {
        worst = worst.max(difference(&[plan.initial_scale], &[scale]));
        start().iter().map(|x| x * plan.initial_scale).collect()
    } else {
        worst = worst.max(difference(&level(plan.start), &numbers(&case["start"])));
        plan.start.apply(&start(), &noise(1000))
    };
    let mut state: [Vec<f32>; SLOTS] = std::array::from_fn(|_| vec![0.0; N]);
    state[0] = x;
    let mut draws = 0;
    let samples = case["samples"].as_array().unwrap();
    let levels = case["levels"].as_array();
    assert_eq!(samples.len(), plan.steps.len());
    assert!(levels.is_none_or(|levels| levels.len() + 1 == samples.len()));
    for (i, (step, want)) in plan.steps.iter().zip(samples).enumerate() {
        let input: Vec<f32> = state[0].iter().map(|x| x * step.input_scale).collect();
        let output = model(&input, step.timestep);
        let fresh = if step.needs_noise { noise(draws) } else { Vec::new() };
        draws += usize::from(step.needs_noise);
        apply(step, &mut state, &output, &fresh).unwrap();
        worst = worst.max(difference(&state[0], &numbers(want)));
        // k-diffusion knows no levels.
        if let Some(levels) = levels {
            let after = levels.get(i).map_or(vec![1.0, 0.0], numbers);
            worst = worst.max(difference(&level(step.after), &after));
        }
        for (slot, value) in state.iter().enumerate() {
            assert!(plan.slots[slot] || value.iter().all(|v| *v == 0.0));
        }
    }
    assert_eq!(draws as u64, case["draws"].as_u64().unwrap());
    worst
}

#[test]
fn every_run_equals_diffusers() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/fixtures/samplers.json")).unwrap();
    for kind in SamplerKind::ALL {
        assert!(cases.iter().filter(|case| case["kind"] == kind.name()).count() > 15);
    }
    let mut failures = Vec::new();
    for case in &cases {
        let worst = check(case);
        let tolerance = match case["config"]["rescale_betas_zero_snr"].as_bool() {
            Some(true) => TOLERANCE_FROM_ZERO_SIGNAL,
            _ => TOLERANCE,
        };
        if worst.is_nan() || worst > tolerance {
            let options = options(case);
            failures.push(format!("{worst:.1e}: {} {options:?} {}", case["kind"], case["config"]));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn stable_diffusion() -> SchedulerConfig {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1,
        "beta_schedule": "scaled_linear", "skip_prk_steps": true, "set_alpha_to_one": false,
        "clip_sample": false}"#;
    SchedulerConfig::parse(text).unwrap()
}

fn refusal(kind: SamplerKind, config: &SchedulerConfig, options: &PlanOptions) -> String {
    plan(kind, config, options).unwrap_err().to_string()
}

#[test]
fn names_and_aliases() {
    for kind in SamplerKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    for (name, kind) in [
        ("plms", SamplerKind::PNDM),
        ("Euler a", SamplerKind::EULER_ANCESTRAL),
        ("DPM++ 2M", SamplerKind::DPMPP_2M),
        ("dpm++_2m_sde", SamplerKind::DPMPP_2M_SDE),
    ] {
        assert_eq!(name.parse(), Ok(kind), "{name}");
    }
    let error = "eular".parse::<SamplerKind>().unwrap_err().to_string();
    assert!(error.contains("`eular`") && error.contains("euler-ancestral, heun"));
}

#[test]
fn a_model_names_its_sampler() {
    let of = |class: &str, algorithm: Option<&str>| {
        let config = SchedulerConfig {
            class_name: Some(class.into()),
            algorithm_type: algorithm.map(Into::into),
            ..Default::default()
        };
        SamplerKind::of_model(&config)
    };
    assert_eq!(of("LCMScheduler", None).unwrap(), (SamplerKind::LCM, None));
    let sde = of("DPMSolverMultistepScheduler", Some("sde-dpmsolver++")).unwrap();
    assert_eq!(sde, (SamplerKind::DPMPP_2M_SDE, None));
    let (kind, note) = of("DPMSolverMultistepScheduler", Some("dpmsolver")).unwrap();
    assert!(kind == SamplerKind::DPMPP_2M && note.unwrap().contains("(dpmsolver)"));
    let (kind, note) = of("KDPM2DiscreteScheduler", None).unwrap();
    assert_eq!(note.as_deref(), Some("euler stands in for the model's KDPM2DiscreteScheduler"));
    assert_eq!(kind, SamplerKind::EULER);
    let error = of("FlowMatchEulerDiscreteScheduler", None).unwrap_err().to_string();
    assert!(error.contains("_class_name") && error.contains("FlowMatch"));
    let silent = SamplerKind::of_model(&SchedulerConfig::default()).unwrap();
    assert_eq!(silent, (SamplerKind::PNDM, None));
}

#[test]
fn requests_that_cannot_be_honoured() {
    let config = stable_diffusion();
    let with = |change: fn(&mut PlanOptions)| {
        let mut options = PlanOptions::new(20);
        change(&mut options);
        options
    };
    for (kind, schedule) in
        SamplerKind::ALL.into_iter().flat_map(|kind| Schedule::ALL.map(|schedule| (kind, schedule)))
    {
        let options = PlanOptions { schedule: Some(schedule), ..PlanOptions::new(20) };
        match kind.takes(schedule) {
            true => assert!(plan(kind, &config, &options).is_ok(), "{kind} {schedule}"),
            false => {
                let expected = format!("does not support the schedule {}", schedule.web_name());
                assert!(refusal(kind, &config, &options).contains(&expected));
            }
        }
    }
    let euler = |options| refusal(SamplerKind::EULER, &config, &options);
    assert!(euler(with(|o| o.steps = 0)).contains("0 sampling steps: expected 1 to 1000"));
    assert!(euler(with(|o| o.steps = 1001)).contains("1001"));
    assert!(euler(with(|o| o.eta = Some(0.5))).contains("euler does not support eta"));
    assert!(euler(with(|o| o.strength = Some(1.5))).contains("strength is 1.5"));
    assert!(euler(with(|o| o.strength = Some(f64::NAN))).contains("strength is NaN"));
    assert!(euler(with(|o| o.strength = Some(0.04))).contains("leaves none to run"));
    let eta = with(|o| o.eta = Some(1.1));
    assert!(refusal(SamplerKind::DDIM, &config, &eta).contains("eta is 1.1"));
    let error = refusal(SamplerKind::DDIM, &config, &with(|o| o.steps = 1000));
    assert!(error.contains("timestep 1000") && error.contains("fewer steps"), "{error}");
    assert!(refusal(SamplerKind::LCM, &config, &with(|o| o.steps = 51)).contains("at most 50"));
}

#[test]
fn configs_that_cannot_be_honoured() {
    let refuse = |kind, change: fn(&mut SchedulerConfig)| {
        let mut config = stable_diffusion();
        change(&mut config);
        refusal(kind, &config, &PlanOptions::new(3))
    };
    assert!(
        refuse(SamplerKind::DDIM, |c| c.clip_sample = None)
            .contains("ddim does not support `clip_sample`")
    );
    assert!(refuse(SamplerKind::HEUN, |c| c.clip_sample = Some(true)).contains("`clip_sample`"));
    assert!(
        refuse(SamplerKind::DPMPP_2M, |c| c.thresholding = Some(true)).contains("`thresholding`")
    );
    let two = |c: &mut SchedulerConfig| {
        c.use_beta_sigmas = Some(true);
        c.use_exponential_sigmas = Some(true);
    };
    assert!(refuse(SamplerKind::EULER, two).contains("more than one of"));
    assert!(refuse(SamplerKind::UNIPC, |c| c.predict_x0 = Some(false)).contains("`predict_x0`"));
    assert!(
        refuse(SamplerKind::DPMPP_2M, |c| c.use_lu_lambdas = Some(true))
            .contains("`use_lu_lambdas`")
    );
    assert!(
        refuse(SamplerKind::DPMPP_2M, |c| c.use_flow_sigmas = Some(true))
            .contains("`use_flow_sigmas`")
    );
    assert!(
        refuse(SamplerKind::DPMPP_2M, |c| c.solver_order = Some(4))
            .contains("`solver_order` is 4, expected 1, 2 or 3")
    );
    assert!(
        refuse(SamplerKind::DPMPP_2M, |c| c.lambda_min_clipped = Some(1e9))
            .contains("lambda_min_clipped")
    );
    assert!(
        refuse(SamplerKind::EULER, |c| c.interpolation_type = Some("log_linear".into()))
            .contains("interpolation")
    );
    assert!(
        refuse(SamplerKind::EULER, |c| c.timestep_type = Some("continuous".into()))
            .contains("timestep_type")
    );
    assert!(
        refuse(SamplerKind::PNDM, |c| c.skip_prk_steps = Some(false))
            .contains("fewer than 4 steps")
    );
    assert!(
        refuse(SamplerKind::PNDM, |c| c.prediction_type = Some(PredictionType::Sample))
            .contains("sample")
    );
    assert!(
        refuse(SamplerKind::LCM, |c| c.original_inference_steps = Some(0))
            .contains("original_inference_steps")
    );
    // No signal at the last training step, so noise says nothing about the original.
    let zero = |c: &mut SchedulerConfig| {
        c.rescale_betas_zero_snr = Some(true);
        c.timestep_spacing = Some(TimestepSpacing::Trailing);
    };
    assert!(refuse(SamplerKind::DDIM, zero).contains("no signal"));
}

#[test]
fn a_step_refuses_tensors_of_other_sizes() {
    let options = PlanOptions::new(4);
    let plan = plan(SamplerKind::EULER_ANCESTRAL, &stable_diffusion(), &options).unwrap();
    let mut state: [Vec<f32>; SLOTS] = std::array::from_fn(|_| vec![0.5; 4]);
    let before = state.clone();
    let error = apply(&plan.steps[0], &mut state, &[0.0; 3], &[0.0; 4]).unwrap_err().to_string();
    assert!(error.contains("has 3 numbers, expected 4"));
    assert!(apply(&plan.steps[0], &mut state, &[0.0; 4], &[]).is_err());
    assert_eq!(state, before);
}

#[test]
fn python_writes_infinities_bare() {
    let text = r#"{"_class_name": "say \\\" -Infinity", "lambda_min_clipped": -Infinity, "beta_start": 0.5}"#;
    let config = SchedulerConfig::parse(text).unwrap();
    assert_eq!(config.class_name.as_deref(), Some(r#"say \" -Infinity"#));
    assert_eq!(config.lambda_min_clipped, Some(f32::NEG_INFINITY));
    assert_eq!(config.beta_start, Some(0.5));
    let clipped = SchedulerConfig::parse(r#"{"lambda_min_clipped": -5.1}"#).unwrap();
    assert_eq!(clipped.lambda_min_clipped, Some(-5.1));
    for (text, told) in [
        ("[", "EOF"),
        (r#"{"steps_offset": -1}"#, "-1"),
        (r#"{"prediction_type": "flow"}"#, "`flow`"),
        (r#"{"lambda_min_clipped": "low"}"#, "number"),
    ] {
        let error = SchedulerConfig::parse(text).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

/// The pipelines of diffusers override two keys of whatever scheduler they get.
#[test]
fn pipelines_override_two_keys() {
    let text = r#"{"steps_offset": 0, "clip_sample": true}"#;
    let (config, notes) = SchedulerConfig::parse(text).unwrap().for_pipeline();
    assert_eq!((config.steps_offset, config.clip_sample), (Some(1), Some(false)));
    assert!(
        notes.len() == 2 && notes[0].contains("steps_offset") && notes[1].contains("clip_sample")
    );
    let (config, notes) = SchedulerConfig::default().for_pipeline();
    assert!(notes.is_empty() && plan(SamplerKind::DDIM, &config, &PlanOptions::new(5)).is_ok());
}

/// Whatever is asked, a plan is a walk down the schedule that ends without noise, or an error.
#[test]
fn every_plan_walks_down_the_schedule() {
    let spacings = [TimestepSpacing::Leading, TimestepSpacing::Linspace, TimestepSpacing::Trailing];
    let mut planned = 0;
    for (kind, spacing) in SamplerKind::ALL.into_iter().flat_map(|kind| spacings.map(|s| (kind, s)))
    {
        for clipped in [f32::NEG_INFINITY, 0.0] {
            let config = SchedulerConfig {
                timestep_spacing: Some(spacing),
                lambda_min_clipped: Some(clipped),
                ..stable_diffusion()
            };
            for steps in [1, 2, 3, 4, 7, 14, 15, 16, 30, 50, 77, 333, 500] {
                for strength in [None, Some(0.1), Some(0.5), Some(0.99)] {
                    let options = PlanOptions {
                        strength,
                        schedule: Schedule::ALL
                            .get(steps % 9)
                            .copied()
                            .filter(|schedule| kind.takes(*schedule)),
                        ..PlanOptions::new(steps)
                    };
                    let Ok(plan) = plan(kind, &config, &options) else {
                        assert!(strength.is_some() || kind.0.distilled, "{kind} {options:?}");
                        continue;
                    };
                    planned += 1;
                    assert_eq!(plan.steps.last().unwrap().after, NoiseLevel::CLEAN);
                    let times: Vec<f32> = plan.steps.iter().map(|step| step.timestep).collect();
                    assert!(times.iter().all(|t| (0.0..1000.0).contains(t)), "{kind} {options:?}");
                    assert!(times.is_sorted_by(|a, b| a >= b), "{kind} {options:?} {times:?}");
                    let noise_falls =
                        |pair: &[SamplingStep]| pair[0].after.noise >= pair[1].after.noise;
                    assert!(plan.steps.windows(2).all(noise_falls), "{kind} {options:?}");
                }
            }
        }
    }
    assert!(planned > 1500, "{planned}");
}

/// One Brownian path, looked at twice: the noise of a whole step has the variance of the step, and
/// shares with that of its first half what the half has of it.
#[test]
fn both_looks_of_a_step_see_one_path() {
    let options = PlanOptions { schedule: Some(Schedule::Karras), ..PlanOptions::new(6) };
    let plan = plan(SamplerKind::DPMPP_SDE, &stable_diffusion(), &options).unwrap();
    for pair in plan.steps[..10].chunks(2) {
        let [half, whole] = pair else { panic!("a step without its half") };
        let sigma = 1.0 / half.input_scale.powi(2) - 1.0;
        let (sigma, middle) = (sigma.sqrt(), half.after.noise);
        let next = whole.after.noise;
        assert_eq!(half.matrix[1][NOISE_COLUMN], 1.0, "the half's noise is put aside");
        let [of_half, of_rest] = [whole.matrix[0][1], whole.matrix[0][NOISE_COLUMN]];
        let up = of_half.hypot(of_rest);
        let expected = next * (1.0 - (next / sigma).powi(2)).sqrt();
        assert!((up - expected).abs() <= 1e-4 * expected, "{up} {expected}");
        let share = (of_half / up).powi(2);
        let expected = (sigma - middle) / (sigma - next);
        assert!((share - expected).abs() < 1e-3, "{share} {expected}");
    }
}

/// Samplers of the stochastic equation without noise are those of the ordinary one.
#[test]
fn without_fresh_noise_nothing_is_drawn() {
    for kind in SamplerKind::ALL.into_iter().filter(|kind| kind.usual_eta().is_some()) {
        let options = PlanOptions { eta: Some(0.0), ..PlanOptions::new(8) };
        let plan = plan(kind, &stable_diffusion(), &options).unwrap();
        for step in &plan.steps {
            assert!(!step.needs_noise, "{kind}");
            assert!(step.matrix.iter().all(|row| row[NOISE_COLUMN] == 0.0), "{kind}");
        }
    }
}
