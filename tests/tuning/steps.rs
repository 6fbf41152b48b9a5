//! Twenty batches of tuning against the same twenty in torch: fixtures of
//! `tools/reference/tuning.py`, which states what a batch brings.

use std::path::Path;

use mixofshow::backend::wgpu::{MatrixUse, Options};
use mixofshow::backend::{Device, Precision, Rounding};
use mixofshow::graph::{Array, Data, Graph};
use mixofshow::models::clip_text;
use mixofshow::models::config::{ClipTextConfig, UNetConfig};
use mixofshow::models::nn::Layers;
use mixofshow::scheduler::config::{PredictionType, SchedulerConfig};
use mixofshow::scheduler::schedule::NoiseSchedule;
use mixofshow::training::step::{
    self, AdamW, AttentionLoss, Batch, Error, Lesson, Method, Models, Network, PriorLoss,
    PriorTarget, Rates, SecondText, State, StepConfig, TextLayers, TrainedLayer, TrainingStep,
    UNetLayers,
};
use serde_json::Value;

use super::reference::{Case, relative_error};
use super::{chosen, hashed};

const BATCH: usize = 2;
const TOKENS: usize = 12;
const SIZE: usize = 8;
const VOCABULARY: usize = 64;
const BATCHES: usize = 20;
const PROBE: usize = 12;
const TOLERANCE: f64 = 1e-3;

#[derive(Clone, Copy, PartialEq)]
enum On {
    Host,
    Device,
    /// Whatever adapter is there.
    Adapter,
}

impl On {
    fn device(self) -> Option<Device> {
        let options = Options { checked: true, floor: true, ..Options::default() };
        match self {
            On::Host => None,
            On::Adapter if chosen::processor().is_none() => Some(chosen::adapter(options).into()),
            On::Device | On::Adapter => Some(chosen::device(options)),
        }
    }
}

struct Tuning {
    case: Case,
    models: Models,
    config: StepConfig,
    rates: [f32; 3],
    factors: Vec<f32>,
    masked: bool,
    copies: usize,
    /// Of dropout.
    seed: u64,
}

impl Tuning {
    /// Of the batch, those of the concept: the first.
    fn of_concept(&self) -> usize {
        self.config.batch - self.config.prior_loss.map_or(0, |prior| prior.pictures)
    }
}

fn number(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

impl Tuning {
    fn open(name: &str) -> Tuning {
        let case = Case::open(name);
        let (networks, inputs) = (case.config().clone(), case.json["inputs"].clone());
        let text = |key: &str| {
            inputs[key].as_str().unwrap_or_else(|| panic!("{name}: no {key}")).to_string()
        };
        let unet = UNetConfig::from_json(&networks["unet"], Path::new(name)).unwrap();
        let schedule =
            r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#;
        let models = Models {
            text: ClipTextConfig::from_json(&networks["text"], Path::new(name)).unwrap(),
            second: match &networks["text_2"] {
                Value::Null => None,
                second => Some(ClipTextConfig::from_json(second, Path::new(name)).unwrap()),
            },
            schedule: NoiseSchedule::of_training(&SchedulerConfig::parse(schedule).unwrap())
                .unwrap(),
            prediction: match &*text("prediction") {
                "epsilon" => PredictionType::Epsilon,
                "v_prediction" => PredictionType::VPrediction,
                other => panic!("{other}"),
            },
            parameters: case.weights(),
            unet,
        };
        let config = StepConfig {
            method: match &*text("method") {
                "ed-lora" => Method::EdLora,
                "lora" => Method::Lora,
                "p-plus" => Method::PPlus,
                "orthogonal" => Method::Orthogonal,
                other => panic!("{other}"),
            },
            text_layers: if text("text_layers") == "attention" {
                TextLayers::Attention
            } else {
                TextLayers::EncoderLayer
            },
            unet_layers: if text("unet_layers") == "attention" {
                UNetLayers::Attention
            } else {
                UNetLayers::Transformer
            },
            text_rank: case.input("text_rank"),
            unet_rank: case.input("unet_rank"),
            alpha: number(&inputs["alpha"]),
            batch: if inputs["prior_weight"].is_null() { BATCH } else { 2 * BATCH },
            prior_loss: inputs["prior_weight"].as_f64().map(|weight| PriorLoss {
                pictures: BATCH,
                weight: weight as f32,
                target: match inputs["prior_target"].as_str() {
                    None => PriorTarget::Noise,
                    Some("base") => PriorTarget::Base,
                    Some(other) => panic!("{other}"),
                },
            }),
            size: [SIZE; 2],
            tokens: TOKENS,
            words: 2,
            attention_loss: inputs["attention_loss"].as_f64().map(|weight| AttentionLoss {
                weight: weight as f32,
                full_identity: inputs["full_identity"].as_bool().unwrap(),
            }),
            lora_dropout: inputs["lora_dropout"].as_f64().unwrap_or(0.0) as f32,
            rank_dropout: inputs["rank_dropout"].as_f64().unwrap_or(0.0) as f32,
            words_first: inputs["words_first"].as_u64().unwrap_or(0),
            adamw: AdamW {
                lora_weight_decay: inputs["lora_weight_decay"].as_f64().map(|decay| decay as f32),
                ..AdamW::default()
            },
            accumulate: case.input("accumulate"),
            clip_skip: inputs["clip_skip"].as_u64().unwrap_or(0) as usize,
            norm_limit: inputs["norm_limit"].as_f64().map(|limit| limit as f32),
            precision: Precision::F32,
            ..StepConfig::default()
        };
        let list =
            |key: &str| inputs[key].as_array().unwrap().iter().map(number).collect::<Vec<f32>>();
        let copies = config.rows_per_word(&models.unet);
        let rates = list("rates").try_into().unwrap();
        Tuning {
            models,
            config,
            rates,
            factors: list("factors"),
            masked: inputs["masked"].as_bool().unwrap(),
            copies,
            seed: case.json["inputs"]["seed"].as_u64().unwrap_or(0),
            case,
        }
    }

    fn step(&self, on: On) -> TrainingStep {
        match on.device() {
            None => TrainingStep::on_host(&self.models, &self.config).unwrap(),
            Some(device) => TrainingStep::new(&self.models, &self.config, &device).unwrap(),
        }
    }

    fn initial(&self, step: &TrainingStep) -> State {
        let encoders = [("input:rows", Some(&self.models.text))];
        let encoders = encoders.into_iter().chain([("input:rows_2", self.models.second.as_ref())]);
        let rows = encoders.filter_map(|(name, text)| {
            let shape = [2 * self.copies, text?.hidden_size];
            let values = hashed::tensor(name, &shape).iter().map(|v| 0.1 * v).collect();
            Some(Array::f32(shape, values))
        });
        let down = &mut |layer: &mixofshow::training::step::TrainedLayer| {
            let network = step::network_prefix(layer.network);
            hashed::tensor(
                &format!("{network}.{}.lora_down.weight", layer.name),
                &[layer.rank, layer.into],
            )
        };
        step.initial(rows, down).unwrap()
    }

    fn batch(&self, k: usize) -> Batch {
        let (count, of_concept) = (self.config.batch, self.of_concept());
        let mut ids = Vec::new();
        for b in 0..count {
            let at = if b < of_concept { 1 + (k + 2 * b) % 4 } else { usize::MAX };
            let end = 1 + (k + 2 * b) % 4 + 3;
            for copy in 0..self.copies {
                ids.extend((0..TOKENS).map(|j| match j {
                    0 => 60,
                    _ if j == at => VOCABULARY + copy,
                    _ if j == at.wrapping_add(1) => VOCABULARY + self.copies + copy,
                    _ if j > end => 61,
                    _ => 3 + (7 * j + 3 * k + b) % 50,
                } as u32));
            }
        }
        // The second tower's tokenizer fills up with "!" instead of end marks.
        let ends: Vec<usize> = (0..count).map(|b| 1 + (k + 2 * b) % 4 + 4).collect();
        let filled = ids.iter().enumerate().map(|(i, id)| {
            let (b, j) = (i / (self.copies * TOKENS), i % TOKENS);
            if j > ends[b] { 0 } else { *id }
        });
        let second = self.models.second.as_ref().map(|_| SecondText {
            ids: Array::u32([count, self.copies, TOKENS], filled.collect()),
            ends: ends.clone(),
            sizes: (0..count)
                .map(|b| [60 + 8 * ((k + b) % 3), 72, k % 4, b, 64, 64].map(|n| n as f32))
                .collect(),
        });
        let places = [count, SIZE, SIZE];
        let mask = hashed::tensor(&format!("input:mask.{k}"), &places);
        let all = |i: usize| k % 7 == 3 || i >= of_concept * SIZE * SIZE;
        let mask = mask.iter().enumerate();
        let mask = mask.map(|(i, &m)| if m > -0.3 || all(i) { 1.0 } else { 0.0 }).collect();
        let mask = Array::f32(places, mask);
        let picture = |name: &str| {
            let shape = [count, SIZE, SIZE, 4];
            Array::f32(shape, hashed::tensor(&format!("input:{name}.{k}"), &shape))
        };
        let updates = (BATCHES / self.config.accumulate) as f32;
        let share = 1.0 - (k / self.config.accumulate) as f32 / updates;
        Batch {
            latents: picture("latents"),
            noise: picture("noise"),
            timesteps: (0..count).map(|b| (k * 137 + 29 + b * 411) % 1000).collect(),
            ids: Array::u32([count, self.copies, TOKENS], ids),
            second,
            factors: self.factors.clone(),
            loss_mask: if self.masked {
                mask.clone()
            } else {
                Array::f32(places, vec![1.0; count * SIZE * SIZE])
            },
            subject_mask: self.config.attention_loss.map(|_| mask),
            seed: self.seed,
            number: k as u64,
            rates: Rates {
                rows: self.rates[0] * share,
                text: self.rates[1] * share,
                unet: self.rates[2] * share,
            },
        }
    }

    /// Takes all batches, and compares.
    fn check(&self, on: On) {
        let mut step = self.step(on);
        let start = self.initial(&step);
        step.restore(&start).unwrap();
        let (mut losses, mut parts, mut norms, mut stopped) =
            (Vec::new(), Vec::new(), Vec::new(), None);
        for k in 0..BATCHES {
            let report = step.run(&self.batch(k)).unwrap();
            losses.push(report.loss);
            parts.push(report.regularisation);
            assert_eq!(report.updated, (k + 1) % self.config.accumulate == 0);
            assert_eq!(report.step, ((k + 1) / self.config.accumulate) as u64);
            if report.updated {
                norms.push(report.embedding_norm);
            }
            if report.embeddings_stopped && stopped.is_none() {
                stopped = Some(k);
            }
        }
        let name = &self.case.name;
        let close = |what: &str, found: &[f32]| {
            let (_, expected) = self.case.expected(what);
            assert_eq!(found.len(), expected.len(), "{name}: {what}");
            for (k, (&found, &expected)) in found.iter().zip(expected).enumerate() {
                let error = f64::from((found - expected).abs() / expected.abs().max(1e-6));
                assert!(
                    error <= TOLERANCE,
                    "{name}: {what} {k} is {found} instead of {expected}: relative {error:.1e}"
                );
            }
            let error = relative_error(found, expected);
            println!("{name}: {what}: relative error {error:.1e}");
            assert!(on == On::Adapter || error <= 1e-6, "{name}: {what}: {error:.1e}");
        };
        close("losses", &losses);
        if self.config.attention_loss.is_some() {
            close("regularisation", &parts);
        }
        close("norms", &norms);
        let limit = self.config.norm_limit;
        assert_eq!(stopped.is_some(), limit.is_some(), "{name}: stopped at {stopped:?}");

        let end = step.state().unwrap();
        let names = end
            .arrays
            .keys()
            .filter(|name| !name.starts_with("first.") && !name.starts_with("second."));
        let (mut learnt, mut moved) = (Vec::new(), Vec::new());
        for name in names {
            let (values, before) = (end.arrays[name].values(), start.arrays[name].values());
            let every = (values.len() / PROBE).max(1);
            learnt.extend(values.iter().step_by(every));
            moved.extend(
                values.iter().zip(before).map(|(after, before)| after - before).step_by(every),
            );
        }
        for (what, found) in [("learnt", &learnt), ("moved", &moved)] {
            let (_, expected) = self.case.expected(what);
            assert_eq!(found.len(), expected.len(), "{name}: {what}");
            let error = relative_error(found, expected);
            println!("{name}: {what}: relative error {error:.1e}");
            // Where a gradient is nothing but rounding, the optimiser makes a step of it all the
            // same.
            let allowed = match (what, on) {
                ("learnt", On::Host) => 1e-6,
                // Sums in another order.
                ("learnt", On::Device) => 1e-5,
                ("learnt", On::Adapter) => TOLERANCE,
                _ => 10.0 * TOLERANCE,
            };
            assert!(error <= allowed, "{name}: {what}: relative error {error:.1e}");
        }
    }
}

fn check(name: &str, on: On) {
    let mut tuning = Tuning::open(name);
    for checkpointing in [false, true] {
        tuning.config.checkpointing = checkpointing;
        tuning.check(on);
    }
}

#[test]
fn embeddings_of_every_layer_and_updates() {
    check("tuning_plain", On::Host);
}

#[test]
fn masks_regularisation_factors_and_the_norm_limit() {
    check("tuning_masked", On::Host);
}

#[test]
fn accumulation_identity_and_velocity() {
    check("tuning_identity", On::Host);
}

#[test]
fn one_embedding_and_updates_of_all_layers() {
    check("tuning_lora", On::Host);
}

#[test]
fn pictures_of_the_class_beside_the_concepts() {
    check("tuning_prior", On::Host);
}

#[test]
fn pictures_of_the_class_as_the_model_itself_predicts_them() {
    check("tuning_prior_base", On::Host);
}

#[test]
fn the_class_as_both_text_encoders_of_stable_diffusion_xl_have_it() {
    check("tuning_xl_prior_base", On::Host);
}

#[test]
fn dropout_of_numbers_and_ranks() {
    check("tuning_dropout", On::Host);
}

#[test]
fn words_first_then_ranks_that_decay() {
    check("tuning_words_first", On::Host);
}

#[test]
fn both_text_encoders_of_stable_diffusion_xl() {
    check("tuning_xl", On::Host);
}

#[test]
fn one_embedding_and_all_layers_of_stable_diffusion_xl() {
    check("tuning_xl_lora", On::Host);
}

#[test]
fn updates_whose_first_matrices_stand_still() {
    check("tuning_orthogonal", On::Host);
    let tuning = Tuning::open("tuning_orthogonal");
    let mut step = tuning.step(On::Host);
    let start = tuning.initial(&step);
    let has_moments = |name: &String| name.starts_with("first.") && name.contains("lora_down");
    assert!(!start.arrays.keys().any(has_moments));
    step.restore(&start).unwrap();
    for k in 0..3 {
        step.run(&tuning.batch(k)).unwrap();
    }
    let half = step.state().unwrap();
    for (name, array) in &half.arrays {
        // Sums of gradients were none at the start.
        let Some(before) = start.arrays.get(name) else { continue };
        let moved = array.values() != before.values();
        assert_eq!(moved, !name.contains("lora_down"), "{name}");
    }
    // From a state it goes on to the same bytes.
    let mut again = tuning.step(On::Host);
    again.restore(&half).unwrap();
    for k in 3..6 {
        step.run(&tuning.batch(k)).unwrap();
        again.run(&tuning.batch(k)).unwrap();
    }
    assert_eq!(step.state().unwrap(), again.state().unwrap());
    // More ranks than a layer has directions.
    let config = StepConfig { unet_rank: 20, ..tuning.config.clone() };
    let error = TrainingStep::on_host(&tuning.models, &config).err().unwrap().to_string();
    assert!(error.contains("unet_rank") && error.contains("at most"), "{error}");
}

#[test]
fn embeddings_alone() {
    check("tuning_p_plus", On::Host);
}

/// Distillation is tuning of the UNet's updates alone, told what to predict instead of which noise
/// was added: with that noise to predict, both move the same numbers to the same places.
#[test]
fn lessons_move_updates_as_tuning_does() {
    lessons(On::Host);
}

#[test]
fn lessons_move_updates_as_tuning_does_on_a_device() {
    lessons(On::Device);
}

fn lessons(on: On) {
    let mut tuning = Tuning::open("tuning_plain");
    tuning.config = StepConfig {
        method: Method::Lora,
        text_rank: 0,
        norm_limit: None,
        accumulate: 2,
        ..tuning.config
    };
    tuning.copies = 1;
    tuning.rates = [0.0, 0.0, tuning.rates[2]];
    tuning.masked = false;
    let mut teacher = tuning.step(on);
    let start = tuning.initial(&teacher);
    teacher.restore(&start).unwrap();
    let layers: Vec<TrainedLayer> =
        teacher.layers().iter().filter(|layer| layer.network == Network::UNet).cloned().collect();
    let mut student = match on.device() {
        None => TrainingStep::distilling_on_host(&tuning.models, &tuning.config, &layers).unwrap(),
        Some(device) => {
            TrainingStep::distilling(&tuning.models, &tuning.config, &layers, &device).unwrap()
        }
    };
    let mut state = start.clone();
    state.arrays.retain(|name, _| name.contains("unet."));
    student.restore(&state).unwrap();
    for k in 0..4 {
        // No concept words: the rows of other ids are frozen.
        let mut batch = tuning.batch(k);
        batch.ids = Array::u32(
            batch.ids.shape.clone(),
            batch.ids.ids().iter().map(|id| id % VOCABULARY as u32).collect(),
        );
        let told = teacher.run(&batch).unwrap();
        let learnt = student.learn(&lesson(&tuning, &batch)).unwrap();
        assert!(
            (told.loss - learnt.loss).abs() <= 1e-4 * told.loss,
            "{} instead of {}",
            learnt.loss,
            told.loss
        );
        assert_eq!(learnt.updated, told.updated);
    }
    let (expected, found) = (teacher.state().unwrap(), student.state().unwrap());
    assert_eq!(found.step, 2);
    for (name, found) in &found.arrays {
        let expected = &expected.arrays[name];
        let error = relative_error(found.values(), expected.values());
        assert!(error <= TOLERANCE, "{name}: relative error {error:.1e}");
        assert!(name.contains("down") || *found != state.arrays[name], "{name} has not moved");
    }
    let mut short = lesson(&tuning, &tuning.batch(0));
    short.texts.pop();
    assert!(student.learn(&short).unwrap_err().to_string().contains("texts"));
}

/// What a batch of tuning asks for, as a lesson.
fn lesson(tuning: &Tuning, batch: &Batch) -> Lesson {
    let (models, width) = (&tuning.models, tuning.models.text.hidden_size);
    let mut graph = Graph::new();
    let ids = graph.input_ids("ids", [BATCH, TOKENS]);
    let table = graph
        .parameter("text_model.embeddings.token_embedding.weight", [models.text.vocab_size, width]);
    let embedded = graph.embedding(table, ids).unwrap();
    let encoding =
        clip_text::encode(&mut Layers::new(&mut graph), &models.text, embedded, 0).unwrap();
    let inputs =
        [("ids".to_string(), Array::u32([BATCH, TOKENS], batch.ids.ids().to_vec()))].into();
    let text = graph.evaluate(&[encoding], &inputs, &*models.parameters).unwrap().remove(0);
    let elements = batch.latents.values().len() / BATCH;
    let noisy = batch.timesteps.iter().enumerate().flat_map(|(b, &t)| {
        let level = models.schedule.level(t).unwrap();
        let of = |array: &Array| array.values()[b * elements..(b + 1) * elements].to_vec();
        let both: Vec<_> = of(&batch.latents).into_iter().zip(of(&batch.noise)).collect();
        both.into_iter().map(move |(latent, noise)| latent * level.signal + noise * level.noise)
    });
    Lesson {
        sample: Array::f32(batch.latents.shape.clone(), noisy.collect()),
        timesteps: batch.timesteps.iter().map(|&t| t as f32).collect(),
        texts: vec![text; models.unet.cross_attention_layers()],
        regions: Vec::new(),
        addition: None,
        target: batch.noise.clone(),
        // Tuning's loss is the sum over the channels.
        weights: batch
            .factors
            .iter()
            .map(|factor| factor * models.unet.in_channels as f32)
            .collect(),
        rate: batch.rates.unet,
    }
}

/// A run that is saved and restored goes on to the same bytes, in the midst of an accumulation too.
#[test]
fn a_restored_run_is_the_unbroken_one() {
    go_on_from_states("tuning_identity", On::Host, &[1, 3, 6]);
}

#[test]
fn a_restored_run_is_the_unbroken_one_on_a_device() {
    go_on_from_states("tuning_identity", On::Device, &[1, 3]);
    go_on_from_states("tuning_dropout", On::Device, &[2, 5]);
    go_on_from_states("tuning_words_first", On::Device, &[3, 6]);
}

fn go_on_from_states(name: &str, on: On, froms: &[usize]) {
    let tuning = Tuning::open(name);
    let mut unbroken = tuning.step(on);
    unbroken.restore(&tuning.initial(&unbroken)).unwrap();
    let mut states = Vec::new();
    for k in 0..8 {
        unbroken.run(&tuning.batch(k)).unwrap();
        states.push(unbroken.state().unwrap());
    }
    assert_ne!(states[3], states[7]);
    for &from in froms {
        let mut step = tuning.step(on);
        step.restore(&states[from]).unwrap();
        assert_eq!(step.state().unwrap(), states[from]);
        for k in from + 1..8 {
            step.run(&tuning.batch(k)).unwrap();
        }
        assert_eq!(step.state().unwrap(), states[7], "from batch {from}");
    }
}

/// A number that is not finite names its layer, and nothing moves.
#[test]
fn what_is_not_finite_is_found_and_moves_nothing() {
    find_what_is_not_finite(On::Host);
}

#[test]
fn what_is_not_finite_is_found_on_a_device() {
    find_what_is_not_finite(On::Device);
}

fn find_what_is_not_finite(on: On) {
    let tuning = Tuning::open("tuning_plain");
    let mut step = tuning.step(on);
    let mut state = tuning.initial(&step);
    let culprit = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.lora_up.weight";
    let array = state.arrays.get_mut(culprit).expect("a layer");
    let Data::F32(values) = &mut array.data else { panic!("numbers") };
    values.fill(f32::MAX);
    step.restore(&state).unwrap();
    match step.run(&tuning.batch(0)) {
        Err(Error::NotFinite { step: 1, layer, .. }) => {
            assert!(
                layer.starts_with("mid_block.attentions.0.transformer_blocks.0.attn1"),
                "{layer}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(step.state().unwrap(), state);
}

#[test]
fn batches_and_states_that_do_not_fit_are_named() {
    let tuning = Tuning::open("tuning_masked");
    let mut step = tuning.step(On::Host);
    assert!(matches!(step.run(&tuning.batch(0)), Err(Error::Graph(_) | Error::NoState)));
    let state = tuning.initial(&step);
    let mut other = state.clone();
    other.arrays.insert("unet.nowhere.lora_up.weight".into(), Array::f32([1, 1], vec![0.0]));
    let error = step.restore(&other).unwrap_err().to_string();
    assert!(error.contains("unet.nowhere.lora_up.weight"), "{error}");
    let mut other = state.clone();
    other.arrays.remove("second.rows");
    let error = step.restore(&other).unwrap_err().to_string();
    assert!(error.contains("`second.rows` is missing"), "{error}");
    step.restore(&state).unwrap();

    let refused = |step: &mut TrainingStep, change: &dyn Fn(&mut Batch)| {
        let mut batch = tuning.batch(0);
        change(&mut batch);
        step.run(&batch).unwrap_err().to_string()
    };
    let error = refused(&mut step, &|b| b.timesteps[1] = 1000);
    assert!(error.contains("timesteps is 1000: expected below 1000"), "{error}");
    let error = refused(&mut step, &|b| b.subject_mask = None);
    assert!(error.contains("subject mask is missing"), "{error}");
    let error = refused(&mut step, &|b| b.noise.shape = [1, 2, 3, 4].into());
    assert!(error.contains("noise is F32 [1, 2, 3, 4]"), "{error}");
    let error = refused(&mut step, &|b| {
        b.ids = Array::u32(b.ids.shape.clone(), vec![1000; b.ids.ids().len()])
    });
    assert!(error.contains("token ids is 1000"), "{error}");
    step.run(&tuning.batch(0)).unwrap();
}

/// Captions without the words count for nothing in the regularisation; a mask of which nothing is
/// left counts for nothing either.
#[test]
fn what_a_batch_lacks_counts_for_nothing() {
    let tuning = Tuning::open("tuning_masked");
    let mut step = tuning.step(On::Host);
    step.restore(&tuning.initial(&step)).unwrap();
    let mut batch = tuning.batch(0);
    let Data::U32(ids) = &mut batch.ids.data else { panic!("indices") };
    ids.iter_mut().filter(|id| **id >= VOCABULARY as u32).for_each(|id| *id = 9);
    batch.loss_mask = Array::f32([BATCH, SIZE, SIZE], vec![0.0; BATCH * SIZE * SIZE]);
    let report = step.run(&batch).unwrap();
    assert_eq!((report.loss, report.regularisation), (0.0, 0.0));
}

#[test]
fn a_device_computes_the_same() {
    for name in [
        "tuning_plain",
        "tuning_masked",
        "tuning_identity",
        "tuning_lora",
        "tuning_p_plus",
        "tuning_prior",
        "tuning_dropout",
        "tuning_words_first",
        "tuning_xl",
    ] {
        check(name, On::Device);
    }
    check("tuning_masked", On::Adapter);
}

/// With weights in f16, gradients by cooperative matrices, which round what they multiply, learn
/// what gradients in f32 do.
#[test]
fn losses_by_matrices_are_those_of_f32() {
    if chosen::processor().is_some() {
        return;
    }
    let options = |matrices| Options { matrices, ..Options::default() };
    let [with, without] =
        [MatrixUse::On, MatrixUse::Off].map(|matrices| chosen::adapter(options(matrices)));
    if let Err(why) = with.matrices() {
        println!("{}: not compared: {why}", with.name());
        return;
    }
    let devices = [with, without].map(Device::from);
    assert_eq!(devices[0].rounds_gradients(), Ok(()));
    assert!(devices[1].rounds_gradients().is_err());
    for name in ["tuning_plain", "tuning_masked"] {
        let mut tuning = Tuning::open(name);
        tuning.config.precision = Precision::F16;
        let losses = devices.each_ref().map(|device| {
            let mut step = TrainingStep::new(&tuning.models, &tuning.config, device).unwrap();
            let by_matrices = device.rounds_gradients().is_ok();
            let rounds = Rounding { factors: by_matrices, activations: by_matrices };
            assert_eq!(step.rounding(device), Some(rounds));
            step.restore(&tuning.initial(&step)).unwrap();
            let loss = |k| step.run(&tuning.batch(k)).unwrap().loss;
            (0..BATCHES).map(loss).collect::<Vec<f32>>()
        });
        let worst = losses[0]
            .iter()
            .zip(&losses[1])
            .map(|(rounded, exact)| f64::from((rounded - exact).abs() / exact.abs()))
            .fold(0.0, f64::max);
        println!("{name}: losses by matrices: greatest relative error {worst:.1e}");
        assert!(worst <= TOLERANCE, "{name}: {losses:?}");
    }
}
