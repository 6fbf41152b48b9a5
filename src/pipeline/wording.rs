//! What the prompts of a picture say, and in which steps: editing changes them from step to step.

use crate::scheduler::sampler;
use crate::text::prompt::{self, EncodedPrompt, PromptOptions, Reading};

use super::adaptation::Adaptation;
use super::error::{Result, option};
use super::{Pipeline, Request};
use crate::sd::text::{self, Encoded, TextPlan};

/// A prompt with its negative, tokenized.
pub(super) struct Wording {
    /// All that it comes to in the course of the steps, in the order of their first use; all of the
    /// same number of tokens.
    pub variants: Vec<Variant>,
    /// All texts of them, concepts' words expanded.
    pub written: Vec<String>,
    /// Which of them holds in each sampling step.
    by_step: Vec<usize>,
}

/// What a prompt and its negative say in some steps.
pub(super) struct Variant {
    /// For each text encoder.
    pub encoders: Vec<OfEncoder>,
    /// The negative prompt is empty, and reads as nothing at all.
    pub zeros: bool,
}

/// What a text encoder is given.
pub(super) struct OfEncoder {
    /// The negative prompt, where there is guidance, and the prompt; each as all cross-attentions
    /// read it, or as each of them does.
    pub prompts: Vec<Vec<EncodedPrompt>>,
    pub plan: TextPlan,
}

/// Which variant of each wording holds from a call of the model on.
pub(super) struct PromptInterval {
    pub from: usize,
    pub variants: Vec<usize>,
    /// That of a wording which is read for its summary alone.
    pub summary: usize,
}

/// Prompts with editing are kept once for each of their steps.
const LONGEST_EDITED: usize = 1 << 16;

/// The negative prompt and the prompt of number `number`: the context's, then the regions'.
pub(super) fn prompts_of(request: &Request, number: usize) -> [&str; 2] {
    let region = number.checked_sub(1).and_then(|index| request.regions.regions.get(index));
    let negative =
        region.and_then(|region| region.negative.as_deref()).unwrap_or(&request.negative_prompt);
    [negative, region.map_or(&request.prompt, |region| &region.prompt)]
}

impl Wording {
    /// Prompt number `number` of a request, with its negative if it is `guided`, in `steps`
    /// sampling steps.
    pub fn new(
        pipeline: &Pipeline,
        adaptation: &Adaptation,
        request: &Request,
        number: usize,
        guided: bool,
        steps: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Wording> {
        let both = prompts_of(request, number);
        let options = &request.prompt_options;
        let readings: Vec<Reading> = both
            .iter()
            .skip(usize::from(!guided))
            .map(|text| prompt::read(text, options))
            .collect();
        let mut found = Vec::new();
        found.extend(prompt::warn_of_composing(both[1], options));
        found.extend(readings.iter().filter_map(Reading::warning));
        if let Some(text) = both.iter().find(|text| text.len() > LONGEST_EDITED)
            && readings.iter().any(|reading| matches!(reading, Reading::Edited(_)))
        {
            let found = format!("of {} bytes, and changes from step to step", text.len());
            return Err(option(
                "prompt",
                found,
                format!("at most {LONGEST_EDITED} bytes in a prompt with editing"),
            ));
        }
        // Every pair of texts once.
        let mut distinct: Vec<Vec<String>> = Vec::new();
        let mut by_step = Vec::with_capacity(steps);
        for step in 0..steps {
            let texts: Vec<String> =
                readings.iter().map(|reading| reading.at(step, steps).into_owned()).collect();
            let known = distinct.iter().position(|other| *other == texts);
            by_step.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(texts);
            }
        }
        let tokenizers = adaptation.tokenizers(pipeline);
        let zeros = |texts: &[String]| {
            let negative = texts.first().filter(|_| guided && pipeline.model.zeros_for_empty);
            negative.is_some_and(|text| text.trim().is_empty())
        };
        // For each of them and each text encoder.
        let mut tokenized = Vec::with_capacity(distinct.len());
        let mut all = Vec::new();
        for texts in &distinct {
            let mut written: Vec<(String, PromptOptions)> = Vec::with_capacity(texts.len());
            for (text, reading) in texts.iter().zip(&readings) {
                written.push((
                    adaptation.prompt(pipeline, text, &mut found)?,
                    reading.options(options),
                ));
            }
            all.extend(written.iter().map(|(text, _)| text.clone()));
            let mut each = Vec::with_capacity(tokenizers.len());
            for (encoder, tokenizer) in tokenizers.iter().enumerate() {
                // All have the same to complain of.
                let mut again = Vec::new();
                let told = if encoder == 0 { &mut found } else { &mut again };
                each.push(text::tokenize(tokenizer, &written, told)?);
            }
            tokenized.push(each);
        }
        let chunks = tokenized.iter().flatten().flatten().map(|prompt| prompt.chunks.len());
        let chunks = chunks.max().unwrap_or(1);
        let mut variants = Vec::with_capacity(tokenized.len());
        for (each, texts) in tokenized.into_iter().zip(&distinct) {
            let mut encoders = Vec::with_capacity(each.len());
            for (i, prompts) in each.into_iter().enumerate() {
                let (Some(tokenizer), Some(network), Some(encoder), Some(updates)) = (
                    tokenizers.get(i),
                    pipeline.texts.get(i),
                    pipeline.model.text_encoders.get(i),
                    adaptation.texts.get(i),
                ) else {
                    continue;
                };
                let copies = prompts.into_iter().map(|mut prompt| {
                    prompt.pad(tokenizer, chunks);
                    adaptation.copies(i, prompt)
                });
                let prompts: Vec<_> = copies.collect();
                let updates = updates.on(&[number]);
                let (reading, skip) = (encoder.reading, request.clip_skip);
                let plan = TextPlan::new(network, reading, &updates, &prompts, skip)?;
                encoders.push(OfEncoder { prompts, plan });
            }
            variants.push(Variant { encoders, zeros: zeros(texts) });
        }
        // Texts that differ in a word have the same to complain of.
        for warning in found {
            let warning = if number == 0 {
                warning
            } else {
                format!("region `{}`: {warning}", request.regions.name(number - 1))
            };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Ok(Wording { variants, written: all, by_step })
    }

    /// Tokens that it is padded to.
    pub fn tokens(&self, pipeline: &Pipeline) -> usize {
        let first = self.prompts().flatten().next();
        first.map_or(0, |prompt| prompt.chunks.len()) * pipeline.tokenizer().max_length()
    }

    /// Of how many encodings it is: one, or one for each cross-attention.
    pub fn encodings(&self) -> usize {
        self.prompts().map(Vec::len).max().unwrap_or(1)
    }

    fn prompts(&self) -> impl Iterator<Item = &Vec<EncodedPrompt>> {
        let encoders = self.variants.iter().flat_map(|variant| &variant.encoders);
        encoders.flat_map(|encoder| &encoder.prompts)
    }
}

impl Variant {
    /// Encodes what it says.
    pub fn encode(&self, pipeline: &Pipeline, adaptation: &Adaptation) -> Result<Encoded> {
        let mut all = Vec::with_capacity(self.encoders.len());
        for (i, (OfEncoder { prompts, plan }, network)) in
            self.encoders.iter().zip(&pipeline.texts).enumerate()
        {
            all.push(plan.encode(network, prompts, adaptation.rows(i))?);
        }
        let mut encoded = Encoded::beside(all);
        if self.zeros {
            encoded.make_zero(0);
        }
        Ok(encoded)
    }
}

/// What is read from which call of the model on, from the first on.
pub(super) fn intervals(
    wordings: &[Wording],
    summary: Option<&Wording>,
    plan: &sampler::SamplingPlan,
) -> Vec<PromptInterval> {
    let mut intervals: Vec<PromptInterval> = Vec::new();
    for call in 0..plan.steps.len() {
        let step = plan.step_of(call);
        let variant = |wording: &Wording| wording.by_step.get(step).copied().unwrap_or(0);
        let variants = wordings.iter().map(variant).collect();
        let summary = summary.map_or(0, variant);
        let same = |last: &PromptInterval| (&last.variants, last.summary) == (&variants, summary);
        if intervals.last().is_none_or(|last| !same(last)) {
            intervals.push(PromptInterval { from: call, variants, summary });
        }
    }
    intervals
}
