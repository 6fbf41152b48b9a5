//! Statistics of one subject (a concept, or what is to be kept) in one stage.

use crate::concept::{AppliedSet, Network, Updates, Word};
use crate::sd::TextEncoder;

use super::base::{Base, FusedWeights, Runner};
use super::groups::{Stage, StageLayers};
use super::members::FusedConcept;
use super::settings::Settings;
use super::spatial::{self, PictureShape, ReadPrompt};
use super::statistics::Statistics;
use super::text::{Bound, bind, encode};
use super::{Error, Result};
use crate::watch::Parts;

/// Whose inputs are recorded.
pub(super) struct RecordedSubject<'a> {
    pub name: String,
    /// Hash of all that the inputs depend on, but for the model, the settings and earlier stages.
    pub key: String,
    pub words: &'a [Word],
    /// What its own model changes; none: the base model's.
    pub updates: Option<&'a Updates>,
    /// Read by the text encoder.
    prompts: Vec<String>,
    /// Sampled from.
    pub sampled: Vec<String>,
    pub steps: usize,
    pub seeds: u64,
    /// The first picture's.
    pub seed: u64,
    /// Padding counts as well: what ordinary prompts look like.
    padded: bool,
    whole_prompts: bool,
}

impl<'a> RecordedSubject<'a> {
    pub fn concept(member: &'a FusedConcept, settings: &Settings) -> RecordedSubject<'a> {
        // The words' templates say "a": a phrase of the user's own stands as it is.
        let fill = |templates: &[String]| -> Vec<String> {
            match member.words.is_empty() {
                true => vec![member.phrase.clone()],
                false => templates
                    .iter()
                    .map(|template| template.replace("{}", &member.phrase))
                    .collect(),
            }
        };
        RecordedSubject {
            name: member.name.clone(),
            key: member.key.clone(),
            words: &member.words,
            updates: Some(&member.updates),
            prompts: fill(&settings.prompts),
            sampled: fill(&settings.sampled),
            steps: settings.steps,
            seeds: settings.seeds,
            seed: settings.seed,
            padded: false,
            whole_prompts: settings.whole_prompts,
        }
    }

    /// The same concept, from other prompts and other seeds: what its solution is measured with.
    /// None where nothing is kept aside. A concept without words of its own has one prompt, so that
    /// only the seeds are others.
    pub fn held_out(member: &'a FusedConcept, settings: &Settings) -> Option<RecordedSubject<'a>> {
        let aside = settings.aside()?;
        let subject = RecordedSubject::concept(member, &aside);
        let key = [member.key.clone(), "held out".to_string()];
        Some(RecordedSubject { key: super::members::hex(&sha2_of(&key)), ..subject })
    }

    /// Ordinary prompts; `held_out`: those that the solution is measured with instead of those that
    /// it is made with.
    pub fn keep(settings: &Settings, held_out: bool) -> Option<RecordedSubject<'static>> {
        let mine = settings.keep.iter().skip(usize::from(held_out)).step_by(2);
        let prompts: Vec<String> = mine.cloned().collect();
        if prompts.is_empty() {
            return None;
        }
        let passes = settings.steps * settings.sampled.len() * settings.seeds as usize;
        let name = if held_out { "kept-measured" } else { "kept" };
        Some(RecordedSubject {
            name: name.into(),
            key: super::members::hex(&sha2_of(&prompts)),
            words: &[],
            updates: None,
            sampled: prompts.iter().take(settings.keep_sampled).cloned().collect(),
            prompts,
            // As many passes of the UNet as for one concept, both halves together.
            steps: (passes / (2 * settings.keep_sampled.max(1))).max(2).min(settings.steps),
            seeds: 1,
            seed: settings.seed,
            padded: true,
            whole_prompts: true,
        })
    }

    /// Nobody: prompts as the base model reads them.
    pub fn nobody(settings: &Settings) -> RecordedSubject<'static> {
        RecordedSubject {
            name: String::new(),
            key: String::new(),
            words: &[],
            updates: None,
            prompts: Vec::new(),
            sampled: Vec::new(),
            steps: settings.steps,
            seeds: 1,
            seed: settings.seed,
            padded: true,
            whole_prompts: true,
        }
    }

    /// This subject, as predictions of it are recorded: `pictures` of each prompt. Ordinary prompts
    /// are sampled from all, so that as many pictures are made of them as of a concept.
    pub fn distilled(self, settings: &Settings) -> RecordedSubject<'a> {
        let pictures = settings.distillation.pictures;
        if self.updates.is_some() {
            return RecordedSubject { seeds: pictures, ..self };
        }
        let all = pictures as usize * settings.sampled.len();
        let sampled: Vec<String> = self.prompts.iter().take(all).cloned().collect();
        RecordedSubject {
            seeds: (all / sampled.len().max(1)).max(1) as u64,
            sampled,
            steps: settings.steps,
            ..self
        }
    }

    /// The updates of a network, if there are any.
    pub fn of(&self, network: Network) -> Option<AppliedSet> {
        let mut sets = self.updates?.iter();
        let (_, set) = sets.find(|(other, _)| *other == network)?;
        Some(AppliedSet::new(&self.name, network, set, 1.0))
    }

    fn bound(&self, base: &Base, encoder: &TextEncoder) -> Result<Vec<Bound>> {
        self.prompts.iter().map(|prompt| bind(base, encoder, self.words, prompt)).collect()
    }

    /// Positions of `prompt` that a text encoder is run on.
    fn tokens(&self, prompts: &[Bound]) -> usize {
        match self.padded {
            true => prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(1),
            false => prompts.iter().map(|prompt| prompt.end + 1).max().unwrap_or(1),
        }
    }
}

/// What several text encoders make of the same sequences, joined along their widths.
fn side_by_side(base: &Base, mut all: Vec<Vec<Vec<f32>>>) -> Vec<Vec<f32>> {
    if all.len() == 1 {
        return all.pop().unwrap_or_default();
    }
    let widths: Vec<usize> =
        base.encoders().iter().map(|encoder| encoder.part.config.hidden_size).collect();
    let sequence = |number: usize| {
        let rows: Vec<&[f32]> =
            all.iter().map(|rows| rows.get(number).map_or(&[][..], Vec::as_slice)).collect();
        let tokens = rows.first().map_or(0, |row| row.len() / widths[0].max(1));
        let token = |at: usize| {
            rows.iter().zip(&widths).flat_map(move |(row, width)| {
                row.get(at * width..(at + 1) * width).unwrap_or_default().iter().copied()
            })
        };
        (0..tokens).flat_map(token).collect()
    };
    (0..all.first().map_or(0, Vec::len)).map(sequence).collect()
}

fn sha2_of(texts: &[String]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut sha = Sha256::new();
    for text in texts {
        sha.update((text.len() as u64).to_le_bytes());
        sha.update(text);
    }
    sha.finalize().into()
}

impl Runner<'_> {
    /// Height and width of the latents that are sampled: what the model was trained at, unless the
    /// settings say otherwise.
    pub fn size(&self, settings: &Settings) -> [usize; 2] {
        settings.size.unwrap_or_else(|| self.base.model.latent_size())
    }

    /// The scale of guidance, where there is any.
    pub fn guidance(&self, settings: &Settings) -> Option<f32> {
        let guided = settings.guidance != 1.0 && self.base.unet().time_cond_proj_dim.is_none();
        guided.then_some(settings.guidance)
    }

    /// What the text encoders, as earlier stages left them, make of `prompt`; with `own`, with the
    /// subject's updates of them.
    pub fn read(&self, subject: &RecordedSubject, prompt: &str, own: bool) -> Result<ReadPrompt> {
        let (mut rows, mut pooled) = (Vec::new(), None);
        for encoder in self.base.encoders() {
            let bound = bind(self.base, encoder, subject.words, prompt)?;
            let (tokens, prompts) = (bound.ids.len(), std::slice::from_ref(&bound));
            let set = own.then(|| subject.of(encoder.network)).flatten();
            let (fused, none) = (self.fused(encoder.network), StageLayers::default());
            let found = encode(self, encoder, fused, set.as_ref(), &none, prompts, tokens)?;
            rows.push(found.rows);
            pooled = pooled.or(found.pooled.into_iter().next());
        }
        Ok(ReadPrompt { rows: side_by_side(self.base, rows), pooled: pooled.unwrap_or_default() })
    }

    /// [`Runner::read`] of the empty prompt, which guidance leads away from: nothing at all, where
    /// the model says so.
    pub fn read_empty(&self, subject: &RecordedSubject, own: bool) -> Result<ReadPrompt> {
        let mut read = self.read(subject, "", own)?;
        if self.base.model.zeros_for_empty {
            read.rows.iter_mut().chain([&mut read.pooled]).for_each(|values| values.fill(0.0));
        }
        Ok(read)
    }

    /// What `subject` has at each site of `layout`. `progress` is told parts done and all parts.
    pub fn collect(
        &self,
        stage: Stage,
        layout: &StageLayers,
        subject: &RecordedSubject,
        settings: &Settings,
        progress: &mut Parts,
    ) -> Result<Vec<Statistics>> {
        progress(0, 1)?;
        let found = match stage {
            Stage::Text | Stage::Text2 => self.of_text(stage.network(), layout, subject)?,
            Stage::Cross => self.of_cross(layout, subject)?,
            Stage::Spatial => self.of_spatial(layout, subject, settings, progress)?,
        };
        for (statistics, site) in found.iter().zip(&layout.sites) {
            if !statistics.is_finite() {
                let layer = site.name.clone();
                return Err(Error::NotFinite {
                    stage: stage.title(),
                    concept: subject.name.clone(),
                    layer,
                });
            }
        }
        Ok(found)
    }

    fn of_text(
        &self,
        network: Network,
        layout: &StageLayers,
        subject: &RecordedSubject,
    ) -> Result<Vec<Statistics>> {
        let encoder = self.base.encoder(network);
        let prompts = subject.bound(self.base, encoder)?;
        let tokens = subject.tokens(&prompts);
        let (own, set) = (FusedWeights::default(), subject.of(network));
        let encoded = encode(self, encoder, &own, set.as_ref(), layout, &prompts, tokens)?;
        let of_site = |(site, rows): (&super::groups::Site, Vec<Vec<f32>>)| {
            let mut statistics = Statistics::new(site.width);
            let owners =
                prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, prompt.copies()));
            for (prompt, row) in owners.zip(&rows) {
                let count = if subject.padded { tokens } else { prompt.end + 1 };
                statistics.push(&row[..(count * site.width).min(row.len())]);
            }
            statistics
        };
        Ok(layout.sites.iter().zip(encoded.inputs).map(of_site).collect())
    }

    fn of_cross(&self, layout: &StageLayers, subject: &RecordedSubject) -> Result<Vec<Statistics>> {
        let prompts = subject.bound(self.base, self.base.model.text())?;
        let tokens = subject.tokens(&prompts);
        let mut encoded = Vec::new();
        for encoder in self.base.encoders() {
            // The same positions in each: only what stands behind the ends differs.
            let bound = subject.bound(self.base, encoder)?;
            let (fused, none) = (self.fused(encoder.network), StageLayers::default());
            encoded.push(encode(self, encoder, fused, None, &none, &bound, tokens)?.rows);
        }
        let encoded = side_by_side(self.base, encoded);
        let width = self.base.model.text_width();
        let of_site = |site: &super::groups::Site| {
            let number = self
                .base
                .model
                .attentions
                .iter()
                .position(|a| site.name.starts_with(&format!("{}.", a.name)))
                .unwrap_or(0);
            let mut statistics = Statistics::new(site.width);
            let mut first = 0;
            for prompt in &prompts {
                let row = encoded
                    .get(first + number.min(prompt.copies() - 1))
                    .map_or(&[][..], Vec::as_slice);
                first += prompt.copies();
                let positions = match (subject.padded, subject.whole_prompts) {
                    (true, _) => (0..tokens).collect(),
                    (false, true) => (0..=prompt.end).collect(),
                    (false, false) => prompt.positions(),
                };
                for position in positions {
                    statistics.push(
                        row.get(position * width..(position + 1) * width).unwrap_or_default(),
                    );
                }
            }
            statistics
        };
        Ok(layout.sites.iter().map(of_site).collect())
    }

    fn of_spatial(
        &self,
        layout: &StageLayers,
        subject: &RecordedSubject,
        settings: &Settings,
        progress: &mut Parts,
    ) -> Result<Vec<Statistics>> {
        let runs = subject.sampled.len() * subject.seeds as usize;
        let shape = PictureShape {
            batch: 1,
            size: self.size(settings),
            steps: subject.steps,
            guidance: self.guidance(settings),
        };
        let set = subject.of(Network::UNet);
        let mut sampler = spatial::Sampler::new(self, layout, set.as_ref(), shape)?;
        let mut done = 0;
        let empty = self.read_empty(subject, false)?;
        for prompt in &subject.sampled {
            sampler.read(self.base, &self.read(subject, prompt, false)?, &empty, None)?;
            for seed in 0..subject.seeds {
                sampler.run(subject.seed.wrapping_add(seed), &mut |step| {
                    progress(done * step.of + step.done, runs * step.of)
                })?;
                done += 1;
            }
        }
        progress(1, 1)?;
        sampler.finish(layout)
    }
}
