//! What a concept's own model predicts while it samples: what the fused one is to learn.

use crate::checkpoint::{DType, Network, TensorFile, TensorView};

use super::base::Runner;
use super::batches;
use super::collect::RecordedSubject;
use super::groups::StageLayers;
use super::scenes::Scene;
use super::settings::Settings;
use super::spatial::{PictureShape, Sampler};
use super::{Error, Result};
use crate::watch::Parts;

/// What a subject's own model predicted along its sampling, prompt after prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Predictions {
    /// `[height, width, channels]` of one.
    pub shape: [usize; 3],
    pub timesteps: Vec<f32>,
    /// What the UNet was given.
    pub samples: Vec<f32>,
    /// What it predicted for the prompt, and, where guidance was used, for the empty prompt.
    pub conditional: Vec<f32>,
    pub unconditional: Option<Vec<f32>>,
}

impl Predictions {
    pub fn of(
        runner: &Runner,
        subject: &RecordedSubject,
        settings: &Settings,
        progress: &mut Parts,
    ) -> Result<Predictions> {
        let unet = subject.of(Network::UNet);
        let unet = unet.as_ref();
        let (shape, step) = batches::of_subject(runner, subject, unet, settings)?;
        let mut sampler = Sampler::of(runner, &StageLayers::default(), step, shape.steps)?;
        let empty = runner.read_empty(subject, true)?;
        let mut made = Predictions::none(runner, &shape);
        let batch = shape.batch.max(1);
        let (mut done, of) = (0, subject.sampled.len() * (subject.seeds as usize / batch));
        for prompt in &subject.sampled {
            sampler.read(runner.base, &runner.read(subject, prompt, true)?, &empty, unet)?;
            for seed in (0..subject.seeds).step_by(batch) {
                let at = (done, of);
                made.take(&mut sampler, settings.seed.wrapping_add(seed), at, progress)?;
                done += 1;
            }
        }
        progress(1, 1)?;
        Ok(made.ordered_as(&shape, batches::most(subject.seeds, shape.size)))
    }

    /// What the concepts' own models predict together, each in its region.
    pub fn of_scene(
        runner: &Runner,
        scene: &Scene,
        settings: &Settings,
        progress: &mut Parts,
    ) -> Result<Predictions> {
        let sets = scene.sets(settings);
        let (shape, step) = batches::of_scene(runner, scene, &sets, settings)?;
        let mut made = Predictions::none(runner, &shape);
        let each = scene.seeds as usize / shape.batch.max(1);
        let (mut done, of) = (0, scene.views.len() * each);
        let mut sampler = Sampler::of(runner, &StageLayers::default(), step, shape.steps)?;
        for (number, view) in scene.views.iter().enumerate() {
            let read = scene.read(runner, view, settings, true)?;
            let prompts: Vec<_> = read.iter().map(|[empty, prompt]| (empty, prompt)).collect();
            sampler.read_in_regions(runner.base, &prompts, &view.shares(runner, shape.size)?)?;
            for first in (0..scene.seeds).step_by(shape.batch) {
                let seed = scene.seed(number).wrapping_add(first);
                made.take(&mut sampler, seed, (done, of), progress)?;
                done += 1;
            }
        }
        progress(1, 1)?;
        Ok(made.ordered_as(&shape, batches::most(scene.seeds, shape.size)))
    }

    /// In the order in which `together` pictures at a time give them, however many there was room
    /// for: the pictures of a step side by side.
    fn ordered_as(self, shape: &PictureShape, together: usize) -> Predictions {
        let (batch, steps) = (shape.batch.max(1), shape.steps.max(1));
        if batch == together {
            return self;
        }
        // Where the row of a picture's step is, of so many at a time.
        let place = |picture: usize, step: usize, batch: usize| {
            picture / batch * steps * batch + step * batch + picture % batch
        };
        let count = self.timesteps.len();
        let mut from = vec![0; count];
        for (picture, step) in (0..count).map(|row| (row / steps, row % steps)) {
            let to = place(picture, step, together);
            from[to.min(count.saturating_sub(1))] = place(picture, step, batch);
        }
        let ordered = |values: &[f32]| -> Vec<f32> {
            let each = (values.len() / count.max(1)).max(1);
            let row = |at: &usize| values.get(at * each..(at + 1) * each).unwrap_or_default();
            from.iter().flat_map(|at| row(at).iter().copied()).collect()
        };
        Predictions {
            shape: self.shape,
            timesteps: ordered(&self.timesteps),
            samples: ordered(&self.samples),
            conditional: ordered(&self.conditional),
            unconditional: self.unconditional.as_deref().map(ordered),
        }
    }

    fn none(runner: &Runner, shape: &PictureShape) -> Predictions {
        let [height, width] = shape.size;
        Predictions {
            shape: [height, width, runner.base.unet().in_channels],
            unconditional: shape.guidance.map(|_| Vec::new()),
            ..Predictions::default()
        }
    }

    /// Adds those of pictures from `seed` on, `done` runs of all being through.
    fn take(
        &mut self,
        sampler: &mut Sampler,
        seed: u64,
        (done, of): (usize, usize),
        progress: &mut Parts,
    ) -> Result<()> {
        sampler.run(seed, &mut |step| {
            progress(done * step.of + step.done, of * step.of)?;
            let batch = step.sample.len() / self.shape.iter().product::<usize>().max(1);
            self.timesteps.extend(std::iter::repeat_n(step.timestep, batch));
            self.samples.extend_from_slice(step.sample);
            self.conditional.extend_from_slice(step.conditional);
            if let (Some(all), Some(one)) = (&mut self.unconditional, step.unconditional) {
                all.extend_from_slice(one);
            }
            Ok(())
        })
    }

    /// As tensors of a file.
    pub fn tensors(&self) -> Vec<(String, TensorView<'_>)> {
        let shape = [&[self.timesteps.len()], &self.shape[..]].concat();
        let mut all = vec![
            ("timesteps", TensorView::from_f32(vec![self.timesteps.len()], &self.timesteps)),
            ("samples", TensorView::from_f32(shape.clone(), &self.samples)),
            ("conditional", TensorView::from_f32(shape.clone(), &self.conditional)),
        ];
        if let Some(unconditional) = &self.unconditional {
            all.push(("unconditional", TensorView::from_f32(shape, unconditional)));
        }
        all.into_iter().filter_map(|(name, view)| Some((name.to_string(), view?))).collect()
    }
}

/// A file of [`Predictions`], read piece by piece.
pub(super) struct Predicted {
    file: TensorFile,
    /// `[height, width, channels]` of one.
    pub shape: [usize; 3],
    pub count: usize,
    /// Whether the empty prompt's are there too.
    pub guided: bool,
}

impl Predicted {
    /// None: it does not hold `count` predictions of each half, or numbers that are not finite.
    pub fn expected(
        file: TensorFile,
        count: usize,
        runner: &Runner,
        settings: &Settings,
    ) -> Option<Predicted> {
        let guided = runner.guidance(settings).is_some();
        let shape: [usize; 3] = file.tensor("samples")?.shape().get(1..)?.try_into().ok()?;
        let whole = [&[count], &shape[..]].concat();
        let fits = |name: &str, shape: &[usize]| {
            let view = file.tensor(name)?;
            let finite = || view.to_f32(0..view.len()).iter().all(|v| v.is_finite());
            (view.dtype() == DType::F32 && view.shape() == shape && finite()).then_some(())
        };
        fits("timesteps", &[count])?;
        for name in ["samples", "conditional"] {
            fits(name, &whole)?;
        }
        match guided {
            true => fits("unconditional", &whole)?,
            false if file.contains("unconditional") => return None,
            false => {}
        }
        Some(Predicted { file, shape, count, guided })
    }

    /// Row `at` of a tensor, of `length` numbers.
    pub fn row(&self, name: &str, at: usize, length: usize) -> Result<Vec<f32>> {
        let view = self.file.tensor(name).filter(|view| view.len() >= (at + 1) * length);
        let view =
            view.ok_or_else(|| Error::file(self.file.path(), format!("`{name}` has no row {at}")))?;
        Ok(view.to_f32(at * length..(at + 1) * length))
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::base::{Base, FusedWeights};
    use super::super::groups::Stage;
    use super::super::planning::planned;
    use super::super::scenes::scenes;
    use super::super::spatial;
    use super::super::{ConceptToFuse, Distillation, members};
    use super::*;
    use crate::backend::{Device, Precision, Selection};
    use crate::checkpoint::Checkpoint;
    use crate::concept::{Applied, Concept, Lora, Update, UpdateSet, Word};
    use crate::graph::Array;
    use crate::pipeline::{Pipeline, Request};
    use crate::scheduler::sampler::{self, OUTPUT_COLUMN, PlanOptions, SamplerKind};
    use crate::training::draws::{Draws, Purpose};
    use crate::watch::{unwatched, unwatched_parts};

    /// A concept whose numbers are drawn by its name.
    fn made_up((name, class): (&str, &str), base: &Base) -> Concept {
        let draws = Draws::new(name.len() as u64 + u64::from(name.as_bytes()[0]));
        let mut next = 0;
        let mut array = |shape: [usize; 2], size: f32| {
            next += 1;
            let values = draws.at(Purpose::Updates, next).normal(shape[0] * shape[1]);
            Array::f32(shape, values.into_iter().map(|v| v * size).collect())
        };
        let (layers, width) = (base.model.attentions.len(), base.model.text_width());
        let words = [1, 2].map(|k| Word {
            initializer: (k == 2).then(|| class.to_string()),
            ..Word::new(format!("<{name}{k}>"), array([layers, width], 0.3))
        });
        let mut updates = |network: Network, endings: &[&str]| {
            let component = base.component(network);
            let named = component.names().filter_map(|name| name.strip_suffix(".weight"));
            let updated = named.filter(|name| endings.iter().any(|end| name.ends_with(end)));
            let layers: BTreeMap<String, Update> = updated
                .map(|layer| {
                    let shape = component.shape(&format!("{layer}.weight")).unwrap();
                    let down = array([2, shape[1]], 0.3);
                    (layer.to_string(), Lora { down, up: array([shape[0], 2], 0.3) }.into())
                })
                .collect();
            (network, UpdateSet::scaled(1.0, layers))
        };
        let unet = ["attn1.to_q", "attn2.to_k", "attn2.to_v", "ff.net.2"];
        let both = [updates(Network::UNet, &unet), updates(Network::TextEncoder, &["q_proj"])];
        Concept {
            name: name.into(),
            words: words.to_vec(),
            updates: both.into(),
            ..Concept::default()
        }
    }

    /// What a scene's own models predict leads to the picture that the same concepts, regions and
    /// prompts give when it is asked for.
    #[test]
    fn scenes_are_pictures_of_the_concepts_own_files() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let device = Device::open(&Selection::Processor).unwrap();
        let checkpoint = Checkpoint::open(&models.join("tiny")).unwrap();
        let base = Base::open(&checkpoint, &mut unwatched).unwrap();
        let concepts = [("abra", "man"), ("brog", "cat")].map(|of| made_up(of, &base));
        let distillation = Distillation { scenes: 2, ..Distillation::default() };
        let settings = Settings {
            steps: 4,
            guidance: 3.0,
            size: Some([16, 8]),
            sampled: vec!["{}".into(), "photo of a {}".into()],
            distillation,
            ..Settings::default()
        };
        let entries = concepts.iter().map(|c| ConceptToFuse::new(c.clone(), c.name.clone()));
        let members = members::members(entries.collect(), &base, &settings).unwrap();
        let none = FusedWeights::default;
        let runner = Runner {
            gpu: &device,
            base: &base,
            precision: Precision::F32,
            memory: None,
            text: none(),
            text_2: none(),
            unet: none(),
        };
        let all: Vec<_> = members.iter().collect();
        let scene = scenes(&all, &settings).remove(0);
        let made = Predictions::of_scene(&runner, &scene, &settings, &mut unwatched_parts).unwrap();
        assert_eq!(made.timesteps.len(), scene.count());

        let mut pipeline = Pipeline::load(&device, &checkpoint, Precision::F32).unwrap();
        let options = PlanOptions::new(settings.steps);
        let kind = SamplerKind::DPMPP_2M;
        let plan = sampler::plan(kind, &base.model.scheduler, &options).unwrap();
        let last = plan.steps.last().unwrap().matrix[0];
        assert_eq!(last[1], 0.0, "the last step looks back at nothing");
        let (each, pictures) = (16 * 8 * 4, scene.seeds as usize);
        for (number, view) in scene.views.iter().enumerate() {
            let strength = |network| match network {
                Network::UNet => distillation.scene_strength,
                _ => 1.0,
            };
            let applied = |c: &Concept| Applied::scaled(c.clone(), strength).unwrap();
            let request = Request {
                prompt: view.prompts[0].clone(),
                regions: view.layout(),
                concepts: concepts.iter().map(applied).collect(),
                width: Some(64),
                height: Some(128),
                steps: settings.steps,
                guidance: settings.guidance,
                sampler: Some(kind),
                seed: scene.seed(number),
                batch: pictures,
                ..Request::default()
            };
            let expected = pipeline.generate(&request, &mut unwatched).unwrap().latents;
            // Of the view's last step, picture by picture.
            let first = ((number + 1) * settings.steps - 1) * pictures;
            let part = |values: &[f32]| values[first * each..(first + pictures) * each].to_vec();
            let (sample, own) = (part(&made.samples), part(&made.conditional));
            let empty = part(made.unconditional.as_ref().unwrap());
            let scale = expected.values().iter().fold(0.0f32, |most, v| most.max(v.abs()));
            for (at, expected) in expected.values().iter().enumerate() {
                let guided = empty[at] + settings.guidance * (own[at] - empty[at]);
                let found = last[0] * sample[at] + last[OUTPUT_COLUMN] * guided;
                let error = (found - expected).abs() / scale;
                assert!(error < 1e-4, "view {number}, {at}: {found} for {expected}");
            }
        }
    }

    /// The plan counts as many pictures as are sampled together; where there is room for fewer,
    /// fewer are, to the same predictions.
    #[test]
    fn as_many_pictures_as_fit() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let device = Device::open(&Selection::Processor).unwrap();
        let checkpoint = Checkpoint::open(&models.join("tiny")).unwrap();
        let base = Base::open(&checkpoint, &mut unwatched).unwrap();
        let concepts = [("abra", "man"), ("brog", "cat")].map(|of| made_up(of, &base));
        let settings = Settings {
            steps: 2,
            guidance: 3.0,
            size: Some([16, 8]),
            sampled: vec!["{}".into()],
            keep: vec!["a dog".into()],
            distillation: Distillation { pictures: 2, scenes: 2, ..Distillation::default() },
            ..Settings::default()
        };
        let entries = concepts.iter().map(|c| ConceptToFuse::new(c.clone(), c.name.clone()));
        let members = members::members(entries.collect(), &base, &settings).unwrap();
        let runner = |memory: Option<u64>| Runner {
            gpu: &device,
            base: &base,
            precision: Precision::F32,
            memory,
            text: FusedWeights::default(),
            text_2: FusedWeights::default(),
            unet: FusedWeights::default(),
        };
        let wide = runner(None);
        let subject = RecordedSubject::concept(&members[0], &settings).distilled(&settings);
        let set = subject.of(Network::UNet);
        let bytes = |batch: usize| {
            let size = wide.size(&settings);
            let guidance = wide.guidance(&settings);
            let shape = PictureShape { batch, size, steps: 2, guidance };
            let step = spatial::plain_shape(&wide, set.as_ref(), shape);
            spatial::planned_step(&wide, &StageLayers::default(), &step).unwrap().0
        };
        let [one, two] = [1, 2].map(bytes);
        assert!(one < two);
        let layers = |stage| (stage, StageLayers::of(stage, &base, &members).unwrap());
        let stages_layers: Vec<_> = Stage::ALL.into_iter().map(layers).collect();
        let planned = planned(&wide, &members, &stages_layers, &settings).unwrap();
        assert_eq!(planned.predictions, two);
        assert!(planned.scenes > two && planned.peak >= planned.scenes);

        // About the most that is too little for both pictures, for one alone not.
        let narrowed = |batch: &dyn Fn(&Runner) -> usize, bytes: u64| {
            let (mut low, mut high) = (0, bytes + (8 << 20));
            while high - low > (two - one) / 2 {
                let middle = low.midpoint(high);
                let is_wide = batch(&runner(Some(middle))) == 2;
                (low, high) = if is_wide { (low, middle) } else { (middle, high) };
            }
            assert_eq!([&wide, &runner(Some(low))].map(batch), [2, 1]);
            runner(Some(low))
        };
        let of = |found: crate::fusion::Result<(PictureShape, _)>| found.map_or(0, |at| at.0.batch);
        let of_subject =
            |runner: &Runner| of(batches::of_subject(runner, &subject, set.as_ref(), &settings));
        let [all, each] = [&wide, &narrowed(&of_subject, two)].map(|runner| {
            Predictions::of(runner, &subject, &settings, &mut unwatched_parts).unwrap()
        });
        assert!(all == each);
        let scene = scenes(&members.iter().collect::<Vec<_>>(), &settings).remove(0);
        let sets = scene.sets(&settings);
        let of_scene = |runner: &Runner| of(batches::of_scene(runner, &scene, &sets, &settings));
        let [all, each] = [&wide, &narrowed(&of_scene, planned.scenes)].map(|runner| {
            Predictions::of_scene(runner, &scene, &settings, &mut unwatched_parts).unwrap()
        });
        assert!(all == each);
    }
}
