//! Scores of a concept in use.

use super::error;
use super::towers::Towers;
use super::{Embedding, ImageAlignment, Sample, Scores, TextAlignment};
use crate::concept::Applied;
use crate::concept::with_words;
use crate::picture::Picture;
use crate::pipeline::{self, Pipeline, Request};
use crate::watch::{Cancelled, Progress, Watch};

/// What is asked of a model, and what its answers are compared with.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// With [`crate::concept::PLACEHOLDER`] where the concept's words go.
    pub prompts: Vec<String>,
    /// What stands in the placeholder's place where texts are scored: an article and the class
    /// word.
    pub class: String,
    /// Of every prompt, one picture for each.
    pub seeds: Vec<u64>,
    /// Everything else of the requests: size, steps, guidance, sampler.
    pub request: Request,
    /// Of the pictures that the concept was trained from.
    pub trained_on: Vec<Embedding>,
}

/// What can go wrong with an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The watch asked it to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The towers that score.
    #[error(transparent)]
    Towers(#[from] error::Error),
    /// Boxed: it is large.
    #[error(transparent)]
    Pipeline(Box<pipeline::Error>),
}

impl From<pipeline::Error> for Error {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Pipeline(Box::new(error)),
        }
    }
}

impl Evaluation {
    /// Makes the pictures with `phrase` in the placeholder's place and `concepts` in use, and
    /// scores them. They come back too, by prompt and seed. `watch` is told of the stage
    /// `pictures`.
    ///
    /// # Errors
    /// Whatever sampling and the towers meet; [`Error::Cancelled`].
    pub fn run(
        &self,
        pipeline: &mut Pipeline,
        towers: &Towers,
        phrase: &str,
        concepts: &[Applied],
        watch: &mut Watch,
    ) -> Result<(Scores, Vec<Picture>), Error> {
        let (mut pictures, mut texts, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in &self.prompts {
            let text = towers.text(&with_words(prompt, &self.class))?;
            for &seed in &self.seeds {
                let (done, of) = (pictures.len(), self.prompts.len() * self.seeds.len());
                let mut each = |_: Progress| watch(Progress::new("pictures", done, of));
                let prompt = with_words(prompt, phrase);
                let request = Request {
                    prompt,
                    seed,
                    batch: 1,
                    concepts: concepts.to_vec(),
                    ..self.request.clone()
                };
                for picture in pipeline.generate(&request, &mut each)?.pictures {
                    seen.push(towers.picture(&picture)?);
                    texts.push(text.clone());
                    pictures.push(picture);
                }
            }
        }
        let sample = Sample {
            seen: &seen,
            texts: &texts,
            trained_on: &self.trained_on,
            ..Sample::default()
        };
        Ok((Scores::of(&[&TextAlignment, &ImageAlignment], &sample), pictures))
    }
}
