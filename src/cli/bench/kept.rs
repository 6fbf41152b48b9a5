//! Pictures that are kept with their recipes, so that a run that is called again makes only what
//! is missing.
use std::path::{Path, PathBuf};

use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::Applied;
use mixofshow::picture::Picture;
use mixofshow::pipeline::recipe::{ConceptSource, Recipe, Source, hex};
use mixofshow::pipeline::{Pipeline, Request};

use crate::cli::{Failure, Result, interrupt};

/// A concept in use, and the file that it is from.
#[derive(Clone)]
pub struct InUse {
    pub applied: Applied,
    pub source: ConceptSource,
}

impl InUse {
    pub fn new(applied: Applied, path: &Path, scale: f32) -> Result<InUse> {
        let source = ConceptSource { source: Source::of(path)?, scale, text_scale: None };
        Ok(InUse { applied, source })
    }
}

/// What all pictures have in common.
pub struct Kept {
    recipe: Recipe,
}

impl Kept {
    pub fn new(model: &str, checkpoint: &Checkpoint, gpu: &Device, request: Request) -> Kept {
        let recipe = Recipe {
            request,
            model: Some(model.to_string()),
            model_hash: Some(hex(&checkpoint.hash())),
            precision: Precision::default(),
            adapter: Some(gpu.name().to_string()),
            ..Recipe::default()
        };
        Kept { recipe }
    }

    /// The picture in `path` if it is as it would be made, else a new one, which is written there.
    pub fn picture(
        &self,
        pipeline: &mut Pipeline,
        path: &Path,
        prompt: &str,
        seed: u64,
        in_use: &[InUse],
    ) -> Result<Picture> {
        let recipe = Recipe {
            request: Request { prompt: prompt.to_string(), seed, ..self.recipe.request.clone() },
            concepts: in_use.iter().map(|concept| concept.source.clone()).collect(),
            ..self.recipe.clone()
        };
        if path.exists() && is_same(&found(path)?, &recipe) {
            return Ok(Picture::open(path)?);
        }
        let concepts = in_use.iter().map(|concept| concept.applied.clone()).collect();
        let request = Request { concepts, ..recipe.request.clone() };
        let made = pipeline.generate(&request, &mut |_| interrupt::asked())?;
        let picture = made.pictures.first().cloned();
        let picture = picture.ok_or_else(|| Failure::Failed("no picture was made".into()))?;
        picture.save(path, Some(&recipe.parameters(&made, 0)))?;
        Ok(picture)
    }
}

fn found(path: &Path) -> Result<Recipe> {
    let (recipe, _) = Recipe::read(path).map_err(|error| {
        let problem = "one is to be made in its place: name another folder";
        Failure::Failed(format!("{error}; {problem}").into())
    })?;
    Ok(recipe)
}

/// Whether they make the same picture, wherever files are and on whichever adapter.
fn is_same(a: &Recipe, b: &Recipe) -> bool {
    let concepts = |recipe: &Recipe| -> Vec<(String, f32, Option<f32>)> {
        let one = |c: &ConceptSource| (c.source.sha256.clone(), c.scale, c.text_scale);
        recipe.concepts.iter().map(one).collect()
    };
    let of = |recipe: &Recipe| {
        let Request { prompt, seed, steps, guidance, sampler, .. } = recipe.request.clone();
        (prompt, seed, steps, guidance, sampler)
    };
    let rest = |recipe: &Recipe| {
        let Request { negative_prompt, schedule, rng, clip_skip, .. } = recipe.request.clone();
        (negative_prompt, schedule, rng, clip_skip)
    };
    of(a) == of(b)
        && rest(a) == rest(b)
        && a.request.regions.regions.is_empty()
        && a.controls.is_empty()
        && a.image.is_none()
        && a.latents.is_none()
        && a.model_hash == b.model_hash
        && a.precision == b.precision
        && concepts(a) == concepts(b)
}

/// Where a picture goes.
pub fn path(folder: &Path, what: &str, prompt: usize, seed: u64) -> PathBuf {
    let plain = what.to_lowercase().replace("p+", "p-plus");
    let words = plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    folder.join(format!("{}-{}-{seed}.png", words.join("-"), prompt + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_same_by_what_makes_them() {
        let request = Request { prompt: "a man".into(), steps: 12, ..Request::default() };
        let source = Source { path: "here/a.safetensors".into(), sha256: "1".into() };
        let concepts = vec![ConceptSource { source, scale: 1.0, text_scale: None }];
        let recipe = Recipe { request, concepts, ..Recipe::default() };
        let mut other = Recipe { adapter: Some("another".into()), ..recipe.clone() };
        other.concepts[0].source.path = "there/a.safetensors".into();
        assert!(is_same(&recipe, &other));
        other.concepts[0].scale = 0.0;
        assert!(!is_same(&recipe, &other));
        let other = Recipe { model_hash: Some("2".into()), ..recipe.clone() };
        assert!(!is_same(&recipe, &other));
        let request = Request { steps: 13, ..recipe.request.clone() };
        assert!(!is_same(&recipe, &Recipe { request, ..recipe.clone() }));
    }

    #[test]
    fn pictures_are_named_by_how_they_were_asked_for() {
        let name = |what| path(Path::new("x"), what, 0, 2).to_string_lossy().into_owned();
        assert_eq!(name("ED-LoRA, LoRA at 0"), "x/ed-lora-lora-at-0-1-2.png");
        assert_eq!(name("P+"), "x/p-plus-1-2.png");
    }
}
