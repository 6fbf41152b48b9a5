//! The run of a request, stage by stage.

use std::time::{Duration, Instant};

use crate::graph::Array;
use crate::picture::Picture;

use crate::sd::denoiser::{self, StepInputs, StepShape};
use crate::sd::guided::Kept;
use crate::sd::looking::Look;
use crate::sd::network::PlannedGraph;
use crate::sd::noise::Noise;
use crate::sd::sampling::{EncodedInterval, Sampling, SamplingRun, Told};
use crate::sd::text::{self, Encoded};

use super::checked::CheckedRequest;
use super::decode::{Decoder, Vaes};
use super::encode::{Encoder, Posterior};
use super::error::Result;
use super::plans::{PreparedRequest, RequestPlan, SecondPass, shallow_of};
use super::preview::{Preview, Showing};
use super::wording::PromptInterval;
use super::{Generated, KEEP_BYTES, Pipeline, Request, sizes};
use crate::watch::{Parts, Progress, Watch, heed};

/// Who is given pictures as they are done: what is known of all, the number of this one, and it.
type Take<'t, E> = dyn FnMut(&Generated, usize, Picture) -> Result<(), E> + 't;

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
    /// What a model made for inpainting reads besides.
    beside: Option<Array>,
}

/// The distributions of a request's pictures.
#[derive(Default)]
struct Encodings {
    /// Of the initial picture.
    original: Option<Posterior>,
    /// Of the same without what is painted anew, for models that read it.
    outside: Option<Posterior>,
}

/// One pass over pictures of one size.
struct Pass<'r> {
    request: &'r Request,
    checked: CheckedRequest,
    plan: RequestPlan,
    /// Width and height of the pass before it.
    first_pass: Option<[usize; 2]>,
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
        self.make_shown(prepared, watch, take, &mut |_| {})
    }

    /// [`Pipeline::make_each`] that shows pictures on their way too, as often as
    /// [`Request::preview`] says. They come out the same, shown or not.
    ///
    /// # Errors
    /// As those of [`Pipeline::make_each`].
    pub fn make_shown<E: From<super::Error>>(
        &mut self,
        prepared: PreparedRequest<'_>,
        watch: &mut Watch,
        take: &mut dyn FnMut(&Generated, usize, Picture) -> Result<(), E>,
        see: &mut dyn FnMut(&Preview<'_>),
    ) -> Result<Generated, E> {
        let PreparedRequest { request, checked, plan, second } = prepared;
        let Some(second) = second else {
            let only = Pass { request, checked, plan, first_pass: None };
            return self.pass(only, watch, Some(take), see);
        };
        let SecondPass { request: mut larger, checked: second, plan: second_plan } = *second;
        let first = Pass { request, checked, plan, first_pass: None };
        let first = self.pass(first, watch, None, see)?;
        let first_pass = Some([first.width, first.height]);
        let enlarging = Instant::now();
        if let Some(hires) = &request.hires {
            let mut progress = |done, of| heed(watch(Progress::new("enlarge", done, of)));
            let enlarged =
                self.enlarged(&first.latents, hires, second.size, request.tile, &mut progress)?;
            larger.from_latents = Some(enlarged);
        }
        let enlarging = enlarging.elapsed();
        let second = Pass { request: &larger, checked: second, plan: second_plan, first_pass };
        let mut made = self.pass(second, watch, Some(take), see)?;
        let others = std::mem::take(&mut made.stages);
        made.stages = first.stages;
        made.stages.push(("enlarge", enlarging));
        for (name, time) in others {
            match made.stages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += time,
                None => made.stages.push((name, time)),
            }
        }
        let mut warnings = first.warnings;
        warnings.extend(
            made.warnings.into_iter().filter(|said| !warnings.contains(said)).collect::<Vec<_>>(),
        );
        made.warnings = warnings;
        made.planned = first.planned.most(made.planned);
        Ok(made)
    }

    /// One pass from start to finish; without `take` to its latents alone.
    fn pass<E: From<super::Error>>(
        &mut self,
        pass: Pass<'_>,
        watch: &mut Watch,
        mut take: Option<&mut Take<'_, E>>,
        see: &mut dyn FnMut(&Preview<'_>),
    ) -> Result<Generated, E> {
        let Pass { request, checked, plan, first_pass } = pass;
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
            first_pass,
            warnings: checked.warnings.clone(),
            stages: Vec::new(),
            peak_device_bytes: 0,
            planned: plan.memory,
        };
        let savings = plan.savings;
        if savings.turns {
            // What an earlier picture left.
            self.sampling = None;
            self.give_up_vae();
            self.unet.weights.rest();
        }
        let encoded = watch.stage("text", |progress| self.encode_prompts(&plan, progress))?;
        if savings.text {
            self.texts.iter().for_each(|text| text.weights.retain(|_| false));
        }
        let encodings = match &plan.encoder {
            Some(encoder) => watch
                .stage("encode", |progress| self.encodings(request, &checked, encoder, progress))?,
            None => Encodings::default(),
        };
        if savings.turns {
            self.give_up_vae();
        }
        let mut decoder = self.decoder_like(plan.decoder);
        let parts = decoder.parts(self.vaes());
        let mut shower = request.preview.map(|_| self.shower(checked.size)).transpose()?;
        let tight =
            request.memory.is_some() || plan.memory.sampling + plan.memory.decoding > KEEP_BYTES;
        // Of what a decoder keeps for the next picture.
        let most = if request.memory.is_some() { 0 } else { KEEP_BYTES };
        decoder.rest(most);
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
            let start = self.start(request, &checked, &encodings, &mut noise, first)?;
            let (sampling, controls) = watch.stage("prepare", |progress| {
                progress(0, 1)?;
                let within = savings.streamed.map(|streamed| streamed.within);
                let step = (&plan.shape, &plan.step, within);
                let mut sampling = self.sampling(shape, step, plan.shallow.as_ref())?;
                let look = plan.look.as_ref();
                let look = look.map(|(targets, plan)| Look::new(&self.unet, plan, targets));
                sampling.look = look.transpose()?;
                let told = encoded.first().map(|encoded| encoded.told.clone());
                let told = told.unwrap_or_else(|| Told::encodings(Vec::new()));
                sampling.set_prompt(&self.unet, &plan.keys_values, &told, &plan.rows)?;
                sampling.set_distilled_guidance(&self.unet.config, request.guidance)?;
                let controls = plan.steering.prepare(&sampling.shape, &sampling.program, &told)?;
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
                    beside: start.beside.as_ref(),
                    phases,
                    encoded,
                    keys_values: &plan.keys_values,
                    rows,
                    guided: plan.guided.as_ref(),
                    cache: request.cache,
                    compose: request.compose,
                };
                let unet = &self.unet;
                let mut along = Showing {
                    other: controls,
                    every: request.preview,
                    shower: shower.as_mut(),
                    vaes: Vaes { full: &self.vae, tiny: self.tiny_vae.as_ref() },
                    shape: sampling.shape.latent(&unet.config),
                    first,
                    see: &mut *see,
                };
                let sampled = sampling.run(unet, &run, &mut noise, &mut along, &mut progress);
                sampled.map_err(super::Error::from)
            })?;
            // Sampling and decoding, each of its own size, need not fit beside each other.
            self.sampling = Some(sampling).filter(|_| !tight);
            if savings.turns {
                self.unet.weights.rest();
            }
            let each = sampled.values().len() / pictures.max(1);
            let Some(take) = &mut take else {
                latents.extend_from_slice(sampled.values());
                continue;
            };
            for (i, latents) in sampled.values().chunks_exact(each.max(1)).enumerate() {
                let (number, of) = (first + i, request.batch * parts);
                let picture = watch.stage("decode", |progress| {
                    decoder.decode(self.vaes(), latents, &mut |part| {
                        progress(number * parts + part, of)
                    })
                })?;
                take(&generated, number, picture)?;
            }
            decoder.rest(most);
            if savings.turns {
                self.give_up_vae();
            }
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

    /// Encodes what the prompts say, each text once, and joins what is read at a time.
    fn encode_prompts(
        &self,
        plan: &RequestPlan,
        progress: &mut Parts,
    ) -> Result<Vec<EncodedInterval>> {
        let wordings = || plan.wordings.iter().chain(&plan.summary);
        let all = wordings().map(|wording| wording.variants.len()).sum();
        let mut done = 0;
        let mut encoded = Vec::with_capacity(plan.wordings.len());
        for wording in wordings() {
            let mut variants = Vec::with_capacity(wording.variants.len());
            for variant in &wording.variants {
                progress(done, all)?;
                done += 1;
                variants.push(variant.encode(self, &plan.adaptation)?);
            }
            encoded.push(variants);
        }
        let summaries = plan.summary.as_ref().and_then(|_| encoded.pop());
        let mut intervals: Vec<EncodedInterval> = Vec::with_capacity(plan.intervals.len());
        for (i, interval) in plan.intervals.iter().enumerate() {
            // What takes turns comes again.
            let key = |interval: &PromptInterval| (interval.variants.clone(), interval.summary);
            let before = plan.intervals.iter().take(i).position(|o| key(o) == key(interval));
            let told = match before.and_then(|before| intervals.get(before)) {
                Some(before) => before.told.clone(),
                None => {
                    let read = encoded
                        .iter()
                        .zip(&interval.variants)
                        .filter_map(|(variants, v)| variants.get(*v));
                    let read: Vec<&Encoded> = read.collect();
                    let summary = summaries.as_ref().and_then(|all| all.get(interval.summary));
                    let pooled = summary.or(read.first().copied());
                    let pooled = pooled.map_or(&[][..], |encoded| &encoded.pooled);
                    let encodings: Vec<_> =
                        read.iter().map(|encoded| encoded.encodings.as_slice()).collect();
                    Told {
                        contexts: text::one_after_another(&encodings).into(),
                        addition: sizes::addition(self, &plan.numbers, pooled).into(),
                    }
                }
            };
            intervals.push(EncodedInterval { from: interval.from, told });
        }
        Ok(intervals)
    }

    /// Draws noise in diffusers' order: for the encoded picture, for the latents, and (inpainting)
    /// for the masked picture.
    fn start(
        &self,
        request: &Request,
        checked: &CheckedRequest,
        encodings: &Encodings,
        noise: &mut Noise,
        first: usize,
    ) -> Result<Start> {
        let config = &self.vae.config;
        let posterior = encodings.original.as_ref();
        let part = |all: &Array| -> Vec<f32> {
            let each = all.values().len() / request.batch;
            all.values().iter().skip(first * each).take(noise.len()).copied().collect()
        };
        let going_on = request.from_latents.as_ref().map(part);
        let given = request.latents.as_ref().map(part);
        let original = posterior.map(|posterior| posterior.sample(config, noise)).or(going_on);
        let gaussian = given.unwrap_or_else(|| noise.draw());
        let from_noise = self.is_from_noise(request);
        let latents = match &original {
            Some(original) if !from_noise => checked.plan.start.apply(original, &gaussian),
            _ => gaussian.iter().map(|v| v * checked.plan.initial_scale).collect(),
        };
        if let Some(outside) = &encodings.outside {
            let beside = self.beside(checked, &outside.sample(config, noise));
            return Ok(Start { latents, kept: None, beside: Some(beside) });
        }
        let kept = match (&checked.mask, posterior, original) {
            (Some(mask), Some(posterior), Some(original)) => {
                // What 9-channel models are given; drawn for others too, whose later noise depends
                // on it.
                drop(posterior.sample(config, noise));
                Some(Kept { mask: mask.values().to_vec(), original, gaussian })
            }
            _ => None,
        };
        Ok(Start { latents, kept, beside: None })
    }

    /// Nothing of an initial picture is in the latents that sampling starts from.
    fn is_from_noise(&self, request: &Request) -> bool {
        (request.mask.is_some() || self.unet.config.inpaints()) && request.strength >= 1.0
    }

    /// Encodes what sampling starts from and, of models made for inpainting, the picture without
    /// what is painted anew: all of it where there is no mask.
    fn encodings(
        &self,
        request: &Request,
        checked: &CheckedRequest,
        encoder: &Encoder,
        progress: &mut Parts,
    ) -> Result<Encodings> {
        let inpaints = self.unet.config.inpaints();
        let begun = checked.image.as_ref().filter(|_| !inpaints || !self.is_from_noise(request));
        let of = usize::from(begun.is_some()) + usize::from(inpaints);
        let original = match begun {
            None => None,
            Some(image) => Some(
                encoder.encode(&self.vae, image, &mut |done, parts| progress(done, parts * of))?,
            ),
        };
        let outside = match inpaints {
            false => None,
            true => {
                let pixels = outside_of(checked);
                let size = [checked.height, checked.width];
                let before = usize::from(original.is_some());
                Some(encoder.encode_pixels(&self.vae, size, pixels, &mut |done, parts| {
                    progress(before * parts + done, parts * of)
                })?)
            }
        };
        Ok(Encodings { original, outside })
    }

    /// What a model made for inpainting reads beside the latents of each picture: the mask, and
    /// `latents` of the picture without what lies in it.
    fn beside(&self, checked: &CheckedRequest, latents: &[f32]) -> Array {
        let ([height, width], channels) = (checked.size, self.latent_channels());
        let cells = (height * width).max(1);
        let mask = checked.mask.as_ref();
        let value =
            |cell: usize| mask.map_or(1.0, |mask| mask.values().get(cell).copied().unwrap_or(1.0));
        let each = latents.chunks_exact(channels.max(1)).enumerate();
        let values: Vec<f32> = each
            .flat_map(|(i, latent)| std::iter::once(value(i % cells)).chain(latent.iter().copied()))
            .collect();
        let batch = latents.len() / (cells * channels.max(1));
        Array::f32([batch, height, width, channels + 1], values)
    }

    /// The program for `shape`: the last one if it is of that shape. A step is planned for its own
    /// shape and number of bytes for weights.
    fn sampling(
        &mut self,
        shape: StepShape,
        (planned, step, within): (&StepShape, &PlannedGraph<StepInputs>, Option<u64>),
        shallow: Option<&PlannedGraph<StepInputs>>,
    ) -> Result<Sampling> {
        match self.sampling.take() {
            Some(sampling) if sampling.shape == shape => return Ok(Sampling { shape, ..sampling }),
            // Before the next one takes memory.
            other => drop(other),
        }
        // The last pictures of a batch may be fewer.
        let same = *planned == shape;
        let program = |step, shape: StepShape, within| match same {
            true => self.unet.program_within(step, within),
            false => self.unet.program_within(&denoiser::plan_step(&self.unet, &shape)?, within),
        };
        let shallow =
            shallow.map(|planned| program(planned, shallow_of(&shape), None)).transpose()?;
        Ok(Sampling { program: program(step, shape.clone(), within)?, shallow, look: None, shape })
    }

    /// The decoder that was made last, if it is the one that is planned.
    pub(super) fn decoder_like(&mut self, planned: Decoder) -> Decoder {
        match self.decoder.take() {
            Some(kept) if kept.is_like(&planned) => kept,
            _ => planned,
        }
    }

    /// Gives up the autoencoder's weights, and what was made of them.
    fn give_up_vae(&mut self) {
        self.decoder = None;
        self.vae.weights.retain(|_| false);
        if let Some(tiny) = &self.tiny_vae {
            tiny.weights.retain(|_| false);
        }
    }

    /// Keeps a decoder for the next picture, unless it takes much memory.
    pub(super) fn keep(&mut self, decoder: Decoder) {
        self.decoder = Some(decoder).filter(|decoder| decoder.bytes() <= KEEP_BYTES);
    }
}

/// The initial picture in -1..=1 with nothing in place of what is painted anew, as diffusers makes
/// it.
fn outside_of(checked: &CheckedRequest) -> Vec<f32> {
    let (image, mask) = (checked.image.as_ref(), checked.mask_of_picture.as_ref());
    let (Some(image), Some(mask)) = (image, mask) else {
        return vec![0.0; checked.height * checked.width * 3];
    };
    let mut pixels = image.to_model();
    let inside = pixels.chunks_exact_mut(3).zip(mask.values()).filter(|(_, mask)| **mask >= 0.5);
    inside.for_each(|(pixel, _)| pixel.fill(0.0));
    pixels
}
