//! The run of a request, stage by stage.

use std::time::{Duration, Instant};

use crate::graph::Array;
use crate::picture::Picture;

use crate::sd::denoiser::{self, StepInputs, StepShape};
use crate::sd::network::PlannedGraph;
use crate::sd::noise::Noise;
use crate::sd::sampling::{EncodedInterval, Kept, Sampling, SamplingRun};
use crate::sd::text;

use super::checked::CheckedRequest;
use super::decode::Decoder;
use super::encode::Posterior;
use super::error::Result;
use super::plans::{PreparedRequest, RequestPlan};
use super::preview::{Rough, Seen, Sight};
use super::{Generated, KEEP_BYTES, Pipeline, Request};
use crate::watch::{Parts, Progress, Watch, heed};

/// Times stages and passes on how far they are.
struct Stages<'a, 'w> {
    watch: &'a mut Watch<'w>,
    stages: Vec<(&'static str, Duration)>,
}

impl Stages<'_, '_> {
    fn stage<T, E>(
        &mut self,
        stage: &'static str,
        work: impl FnOnce(&mut Parts) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let watch = &mut *self.watch;
        let done = work(&mut |done, of| heed(watch(Progress::new(stage, done, of))));
        match self.stages.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, time)) => *time += start.elapsed(),
            None => self.stages.push((stage, start.elapsed())),
        }
        done
    }
}

/// What a sampling run starts from: latents at their first noise level, and what inpainting keeps.
struct Start {
    latents: Vec<f32>,
    kept: Option<Kept>,
}

impl Pipeline {
    /// Makes the pictures. A batch that does not fit at once is sampled in parts; the pictures are
    /// the same. `watch` is told of the stages `text`, `encode` (of an initial picture), `prepare`,
    /// `sample` and `decode`, before and while they run.
    ///
    /// # Errors
    /// Options out of range, named; pictures that do not fit the adapter's memory, with what would;
    /// whatever the device meets; [`Error::Cancelled`](super::Error::Cancelled).
    pub fn generate(&mut self, request: &Request, watch: &mut Watch) -> Result<Generated> {
        let prepared = self.prepare(request)?;
        self.make(prepared, watch)
    }

    /// [`Pipeline::generate`] of a request that this pipeline has prepared, so that its warnings
    /// can be told before the work.
    ///
    /// # Errors
    /// Whatever the device meets.
    pub fn make(&mut self, prepared: PreparedRequest<'_>, watch: &mut Watch) -> Result<Generated> {
        let mut pictures = Vec::new();
        let made: Result<Generated> = self.make_each(prepared, watch, &mut |_, _, picture| {
            pictures.push(picture);
            Ok(())
        });
        Ok(Generated { pictures, ..made? })
    }

    /// [`Pipeline::make`] that hands on each picture as soon as it is decoded, with its number and
    /// with what is known by then of all of them: their seeds, sampler, size, warnings and plan.
    ///
    /// # Errors
    /// Whatever the device meets; those of `take`, which end the work.
    pub fn make_each<E: From<super::Error>>(
        &mut self,
        prepared: PreparedRequest<'_>,
        watch: &mut Watch,
        take: &mut dyn FnMut(&Generated, usize, Picture) -> Result<(), E>,
    ) -> Result<Generated, E> {
        self.make_each_seen(prepared, watch, &mut |_| {}, take)
    }

    /// As [`Pipeline::make_each`], for those who want to look on: after every step `sight` is given
    /// what makes rough, small pictures of what is being sampled. It costs next to nothing where it
    /// is called, and nothing where it is not; the pictures stay the same.
    ///
    /// # Errors
    /// As those of [`Pipeline::make_each`].
    pub fn make_each_seen<E: From<super::Error>>(
        &mut self,
        prepared: PreparedRequest<'_>,
        watch: &mut Watch,
        sight: &mut Sight,
        take: &mut dyn FnMut(&Generated, usize, Picture) -> Result<(), E>,
    ) -> Result<Generated, E> {
        let PreparedRequest { request, checked, plan } = prepared;
        if plan.adaptation.apply(self) {
            self.sampling = None;
        }
        let mut watch = Stages { watch, stages: Vec::new() };
        let mut generated = Generated {
            pictures: Vec::new(),
            latents: Array::f32([0], Vec::new()),
            seeds: (0..request.batch as u64).map(|i| request.seed.wrapping_add(i)).collect(),
            sampler: checked.sampler,
            width: checked.width,
            height: checked.height,
            warnings: checked.warnings.clone(),
            stages: Vec::new(),
            peak_device_bytes: 0,
            planned: plan.memory,
        };
        let encoded = watch.stage("text", |progress| self.encode_prompts(&plan, progress))?;
        let posterior = match (&checked.image, &plan.encoder) {
            (Some(image), Some(encoder)) => {
                Some(watch.stage("encode", |progress| encoder.encode(&self.vae, image, progress))?)
            }
            _ => None,
        };
        let mut decoder = self.decoder_like(plan.decoder);
        let parts = decoder.parts(&self.vae);
        let tight = plan.memory.sampling + plan.memory.decoding > KEEP_BYTES;
        let mut latents = Vec::new();
        for first in (0..request.batch).step_by(plan.shape.batch) {
            let shape = StepShape {
                batch: plan.shape.batch.min(request.batch - first),
                ..plan.shape.clone()
            };
            let seed = request.seed.wrapping_add(first as u64);
            let mut noise = Noise::new(
                request.rng,
                seed,
                shape.batch,
                [shape.height, shape.width, self.latent_channels()],
            );
            let start = self.start(request, &checked, posterior.as_ref(), &mut noise, first)?;
            let (sampling, mut controls) = watch.stage("prepare", |progress| {
                progress(0, 1)?;
                let sampling = self.sampling(shape, &plan.shape, &plan.step)?;
                let contexts = encoded.first().map_or(&[][..], |encoded| &encoded.contexts);
                sampling.set_prompt(&self.unet, &plan.keys_values, contexts, &plan.rows)?;
                sampling.set_distilled_guidance(&self.unet.config, request.guidance)?;
                let controls =
                    plan.steering.prepare(&sampling.shape, &sampling.program, contexts)?;
                Ok::<_, super::Error>((sampling, controls))
            })?;
            let (done, pictures) = (first * checked.plan.steps.len(), sampling.shape.batch);
            let sampled = watch.stage("sample", |progress| {
                let mut progress = |step, _| {
                    progress(done + step * pictures, request.batch * checked.plan.steps.len())
                };
                let (latents, phases) = (&start.latents[..], &plan.phases[..]);
                let (encoded, rows) = (&encoded[..], &plan.rows[..]);
                let run = SamplingRun {
                    plan: &checked.plan,
                    latents,
                    kept: start.kept.as_ref(),
                    phases,
                    encoded,
                    keys_values: &plan.keys_values,
                    rows,
                };
                let unet = &self.unet;
                let latent = [pictures, plan.shape.height, plan.shape.width];
                let look = |state: &[f32], level| self.rough(state, latent, level);
                let inner = &mut controls;
                let mut companion = Seen { inner, sight: &mut *sight, look: &look };
                let sampled = sampling.run(unet, &run, &mut noise, &mut companion, &mut progress);
                sampled.map_err(super::Error::from)
            })?;
            // Sampling and decoding, each of its own size, need not fit beside each other.
            self.sampling = Some(sampling).filter(|_| !tight);
            let each = sampled.values().len() / pictures.max(1);
            for (i, latents) in sampled.values().chunks_exact(each.max(1)).enumerate() {
                let (number, of) = (first + i, request.batch * parts);
                let picture = watch.stage("decode", |progress| {
                    decoder
                        .decode(&self.vae, latents, &mut |part| progress(number * parts + part, of))
                })?;
                take(&generated, number, picture)?;
            }
            decoder.rest(KEEP_BYTES);
            latents.extend_from_slice(sampled.values());
        }
        self.keep(decoder);
        generated.latents = Array::f32(
            [request.batch, checked.size[0], checked.size[1], self.latent_channels()],
            latents,
        );
        generated.stages = watch.stages;
        generated.peak_device_bytes = self.gpu.memory()[1];
        Ok(generated)
    }

    /// Rough pictures of latents at a level of signal and noise.
    fn rough(
        &self,
        state: &[f32],
        [batch, height, width]: [usize; 3],
        level: [f32; 2],
    ) -> Result<Vec<Picture>> {
        let rough = match self.rough.get() {
            Some(rough) => rough,
            None => {
                let fitted = Rough::fitted(&self.gpu, &self.vae)?;
                self.rough.get_or_init(|| fitted)
            }
        };
        rough.pictures(state, [batch, height, width, self.latent_channels()], level)
    }

    /// Encodes what the prompts say, each text once, and joins what is read at a time.
    fn encode_prompts(
        &self,
        plan: &RequestPlan,
        progress: &mut Parts,
    ) -> Result<Vec<EncodedInterval>> {
        let all = plan.wordings.iter().map(|wording| wording.variants.len()).sum();
        let mut done = 0;
        let mut encoded = Vec::with_capacity(plan.wordings.len());
        for wording in &plan.wordings {
            let mut variants = Vec::with_capacity(wording.variants.len());
            for variant in &wording.variants {
                progress(done, all)?;
                done += 1;
                variants.push(variant.plan.encode(
                    &self.text,
                    &variant.prompts,
                    plan.adaptation.rows(),
                )?);
            }
            encoded.push(variants);
        }
        let mut intervals: Vec<EncodedInterval> = Vec::with_capacity(plan.intervals.len());
        for (i, interval) in plan.intervals.iter().enumerate() {
            // What takes turns comes again.
            let before =
                plan.intervals.iter().take(i).position(|other| other.variants == interval.variants);
            let contexts = match before.and_then(|before| intervals.get(before)) {
                Some(before) => before.contexts.clone(),
                None => {
                    let read = encoded
                        .iter()
                        .zip(&interval.variants)
                        .filter_map(|(variants, v)| variants.get(*v));
                    text::one_after_another(&read.map(Vec::as_slice).collect::<Vec<_>>()).into()
                }
            };
            intervals.push(EncodedInterval { from: interval.from, contexts });
        }
        Ok(intervals)
    }

    /// Draws noise in diffusers' order: for the encoded picture, for the latents, and (inpainting)
    /// for the masked picture.
    fn start(
        &self,
        request: &Request,
        checked: &CheckedRequest,
        posterior: Option<&Posterior>,
        noise: &mut Noise,
        first: usize,
    ) -> Result<Start> {
        let config = &self.vae.config;
        let original = posterior.map(|posterior| posterior.sample(config, noise));
        let gaussian = match &request.latents {
            Some(given) => {
                let each = given.values().len() / request.batch;
                given.values().iter().skip(first * each).take(noise.len()).copied().collect()
            }
            None => noise.draw(),
        };
        let from_noise = request.mask.is_some() && request.strength >= 1.0;
        let latents = match &original {
            Some(original) if !from_noise => checked.plan.start.apply(original, &gaussian),
            _ => gaussian.iter().map(|v| v * checked.plan.initial_scale).collect(),
        };
        let kept = match (&checked.mask, posterior, original) {
            (Some(mask), Some(posterior), Some(original)) => {
                // What 9-channel models are given; drawn for others too, whose later noise depends
                // on it.
                drop(posterior.sample(config, noise));
                Some(Kept { mask: mask.values().to_vec(), original, gaussian })
            }
            _ => None,
        };
        Ok(Start { latents, kept })
    }

    /// The program for `shape`: the last one if it is of that shape.
    fn sampling(
        &mut self,
        shape: StepShape,
        planned: &StepShape,
        step: &PlannedGraph<StepInputs>,
    ) -> Result<Sampling> {
        match self.sampling.take() {
            Some(sampling) if sampling.shape == shape => return Ok(Sampling { shape, ..sampling }),
            // Before the next one takes memory.
            other => drop(other),
        }
        let program = match *planned == shape {
            true => self.unet.program(step)?,
            // The last pictures of a batch may be fewer.
            false => self.unet.program(&denoiser::plan_step(&self.unet, &shape)?)?,
        };
        Ok(Sampling { program, shape })
    }

    /// The decoder that was made last, if it is the one that is planned.
    pub(super) fn decoder_like(&mut self, planned: Decoder) -> Decoder {
        match self.decoder.take() {
            Some(kept) if kept.is_like(&planned) => kept,
            _ => planned,
        }
    }

    /// Keeps a decoder for the next picture, unless it takes much memory.
    pub(super) fn keep(&mut self, decoder: Decoder) {
        self.decoder = Some(decoder).filter(|decoder| decoder.bytes() <= KEEP_BYTES);
    }
}
