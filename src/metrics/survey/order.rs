//! A survey out of what somebody asks for.

use std::path::Path;
use std::sync::Arc;

use super::{
    Cast, Error, FORMAT, Judge, Opened, PromptList, Result, SceneSettings, Settings, Survey,
};
use crate::backend::{Device, Precision, ReplacedKernel};
use crate::checkpoint::{Checkpoint, SHIPPED, base_hash_cache};
use crate::elsewhere::Nowhere;
use crate::fusion::Previous;
use crate::pipeline::recipe::{ControlSource, Recipe, hex};
use crate::pipeline::{Control, Model, Pipeline, Request};
use crate::scheduler::sampler::SamplerKind;

/// What is asked for besides the concepts; the defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Order {
    /// Pictures of each prompt.
    pub pictures: u64,
    /// Pictures of each two neighbours, and of each three; none: as many as of each prompt.
    pub together: Option<u64>,
    /// The same without regions, from one prompt that names all.
    pub one_prompt: u64,
    /// How strong a concept's own file is in its region, times its scales: in a small part of a
    /// picture it shows less. Concepts that the model itself has are as they are.
    pub scene_strength: f32,
    /// What steers the pictures of three in their regions, and where it is from.
    pub controls: Vec<(Control, ControlSource)>,
    /// What is around them.
    pub place: String,
    /// The first of each prompt.
    pub seed: u64,
    /// Width and height in pixels; none: what the model was trained at.
    pub size: Option<(usize, usize)>,
    /// Sampling steps.
    pub steps: usize,
    /// None: the model's own.
    pub guidance: Option<f32>,
    /// What is sampled with.
    pub sampler: SamplerKind,
    /// How weights are held on the device.
    pub precision: Precision,
    /// Who says who stands where.
    pub judge: Judge,
    /// Compared is with the first picture alone that a concept was trained from.
    pub as_published: bool,
}

impl Default for Order {
    fn default() -> Self {
        Order {
            pictures: 4,
            together: None,
            one_prompt: 0,
            scene_strength: 1.0,
            controls: Vec::new(),
            place: "on the beach".into(),
            seed: 1,
            size: None,
            steps: 20,
            guidance: None,
            sampler: SamplerKind::DPMPP_2M,
            precision: Precision::default(),
            judge: Judge::default(),
            as_published: false,
        }
    }
}

/// What a survey is made on.
pub struct Stage<'a> {
    /// The model as it was named.
    pub name: &'a str,
    /// [`Checkpoint::hash`] in hexadecimal digits.
    pub hash: String,
    /// The model on its device.
    pub pipeline: &'a Pipeline,
    /// That device.
    pub gpu: &'a Device,
    /// Kernels that are not this program's own.
    pub kernels: &'a [ReplacedKernel],
}

impl PromptList {
    /// The list that suits a model: in words that it lists, where it does, else the general one.
    pub fn of_model(checkpoint: &Checkpoint) -> PromptList {
        match checkpoint.words.is_some() {
            true => PromptList::known(),
            false => PromptList::general(),
        }
    }
}

impl Opened {
    /// Who says who stands where: whoever is `named`, else a tower that learnt to tell who is who,
    /// else CLIP's. Such a tower ships beside the model that ships, and is taken for it and what
    /// was fused from it, unless another was opened; then the second is true, and
    /// [`SHIPPED_JUDGE`] is to be said.
    ///
    /// # Errors
    /// None that a build of the repository can have.
    pub fn judge(&mut self, named: Option<Judge>, model: &Checkpoint) -> Result<(Judge, bool)> {
        let asked = named.is_none_or(|judge| judge == Judge::Identity);
        let taken = asked && is_of_shipped(model) && self.take_shipped()?;
        let usual = if self.brings(Judge::Identity) { Judge::Identity } else { Judge::Clip };
        Ok((named.unwrap_or(usual), taken))
    }

    /// The model whose own towers score: the model that ships, where nobody else brings CLIP's, for
    /// fused models leave them to their base; none: `model`'s own.
    ///
    /// # Errors
    /// As [`Checkpoint::shipped`].
    pub fn stand_in(&self, model: &Model) -> Result<Option<Model>> {
        if self.brings(Judge::Clip) || model.vision.is_some() {
            return Ok(None);
        }
        let shipped = Checkpoint::shipped()?;
        Model::open(&shipped).map(Some).map_err(|e| Error::Pipeline(Box::new(e.into())))
    }
}

/// What is said where [`Opened::judge`] took the tower that ships.
pub const SHIPPED_JUDGE: &str = "the tower that ships beside the model says who is who; --identity \
    names another";

/// A model is the one that ships, or was fused from it. In builds without that model none is.
fn is_of_shipped(checkpoint: &Checkpoint) -> bool {
    if checkpoint.path == Path::new(SHIPPED) {
        return true;
    }
    let Ok(shipped) = Checkpoint::open_named(SHIPPED, None) else { return false };
    let shipped = shipped.base_hash().to_string();
    match Previous::open(&checkpoint.path) {
        Ok(fused) => fused.base_hash == shipped,
        Err(_) => {
            let cache = base_hash_cache();
            checkpoint.base_hash_cached(cache.as_deref()).to_string() == shipped
        }
    }
}

/// What is said of [`Opened::stand_in`].
pub const STAND_IN: &str = "the model brings no vision tower and --clip names none: the towers of \
    the model that ships score, which know its own world alone";

impl Order {
    /// The survey of `cast`; `scores` is the model whose towers score where `towers` has none.
    ///
    /// # Errors
    /// A size that the model cannot have; a tower that nobody brings; controls where no picture is
    /// of three in their regions, or that don't fit the model.
    pub fn survey(
        &self,
        cast: Cast,
        towers: &Opened,
        scores: &Model,
        on: &Stage<'_>,
    ) -> Result<Survey> {
        if !towers.has(self.judge) {
            let name = self.judge.name();
            return Err(Error::Usage(format!("--judge {name}: --{name} PATH names that tower")));
        }
        let (width, height) = self.size.unwrap_or(on.pipeline.default_size());
        let factor = on.pipeline.factor();
        if !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            let problem = format!("--size {width}x{height}: expected multiples of {factor}");
            return Err(Error::Usage(problem));
        }
        let Cast { concepts, subjects, .. } = cast;
        let scenes = SceneSettings::of(&concepts, &self.place);
        self.check_steered(&scenes)?;
        let settings = Settings {
            mos_eval: FORMAT,
            model: on.name.to_string(),
            model_hash: on.hash.clone(),
            scenes,
            concepts,
            pictures: self.pictures,
            together: self.together(),
            one_prompt: self.one_prompt,
            scene_strength: self.scene_strength,
            controls: self.controls.iter().map(hashed).collect(),
            seed: self.seed,
            size: [width, height],
            steps: self.steps,
            guidance: self.guidance.unwrap_or(on.pipeline.guidance()),
            sampler: self.sampler.to_string(),
            precision: self.precision.to_string(),
            towers: towers.settings(scores)?,
            judge: self.judge.name().to_string(),
            as_published: self.as_published,
        };
        let request = Request {
            width: Some(width),
            height: Some(height),
            steps: settings.steps,
            guidance: settings.guidance,
            sampler: Some(self.sampler),
            ..Request::default()
        };
        let recipe = Recipe {
            request,
            model: Some(settings.model.clone()),
            model_hash: Some(settings.model_hash.clone()),
            precision: self.precision,
            adapter: Some(on.gpu.name().to_string()),
            kernels: on.kernels.to_vec(),
            ..Recipe::default()
        };
        let controls = self.controls.iter().map(|(control, _)| control.clone()).collect();
        let survey = Survey { settings, subjects, recipe, controls, elsewhere: Arc::new(Nowhere) };
        // A network that does not fit is told of before all the pictures that it does not steer.
        if let Some(steered) = survey.settings.items().iter().find(|item| item.is_steered) {
            on.pipeline.prepare(&survey.request(steered))?;
        }
        Ok(survey)
    }

    /// Of each scene, each concept in its region.
    fn together(&self) -> u64 {
        self.together.unwrap_or(self.pictures)
    }

    /// Refuses controls that would steer nothing.
    fn check_steered(&self, scenes: &[SceneSettings]) -> Result<()> {
        let problem = if self.controls.is_empty() {
            return Ok(());
        } else if !scenes.iter().any(SceneSettings::is_steered) {
            "there are fewer than three who stand in one"
        } else if self.together() == 0 {
            "none are asked for (--together 0)"
        } else {
            return Ok(());
        };
        Err(Error::Usage(format!(
            "--control steers pictures of three concepts in their regions, and {problem}"
        )))
    }
}

/// With the hash of its network: a name may come to mean another one.
fn hashed((control, source): &(Control, ControlSource)) -> ControlSource {
    let network_hash = Some(hex(&control.network.component.hash()));
    ControlSource { network_hash, ..source.clone() }
}

/// Refuses to make pictures beside those that they are compared with.
///
/// # Errors
/// A folder of `pictures` that is `out`.
pub fn check_apart<'a>(pictures: impl IntoIterator<Item = &'a Path>, out: &Path) -> Result<()> {
    match pictures.into_iter().find(|input| crate::output::is_same(input, out)) {
        Some(input) => Err(Error::Usage(format!(
            "{}: results would go into a folder of pictures to compare with: name another one",
            input.display()
        ))),
        None => Ok(()),
    }
}
