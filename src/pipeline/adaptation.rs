//! What the concepts of a request change: the vocabulary, and low-rank updates of the networks.

use crate::concept::binding::{Table, Words};
use crate::concept::{Applied, AppliedSet, Network};
use crate::graph::{Array, Graph};
use crate::sd::updates::{Parted, Updates, check_shapes};
use crate::text::Tokenizer;
use crate::text::prompt::EncodedPrompt;

use super::acting;
use super::error::Result;
use super::{Overlay, Pipeline, Request};

/// What a request's concepts come to.
pub(super) struct Adaptation {
    /// None where no concept has words: the model's own tokenizer does.
    words: Option<Words>,
    pub text: Updates,
    pub unet: Updates,
    /// Updates that are added to the weights instead.
    merged_text: Vec<AppliedSet>,
    merged_unet: Vec<AppliedSet>,
    /// Sentences for the user about concepts that act on more than they should.
    pub warnings: Vec<String>,
}

/// Updates of all attention layers of Stable Diffusion 1.5 at 256x256 were measured to add 4 % to a
/// pass with rank 16 and 14 % with 64, on a software driver. Smaller ones stay beside the weights
/// and are quickly exchanged.
const MERGED_FROM: usize = 32;

/// Sentences about changes that cannot be kept to a part of the picture.
fn everywhere(network: Network, parted: &Parted) -> impl Iterator<Item = String> {
    parted.everywhere.iter().map(move |(concept, count, of)| {
        let layers = match count == of {
            true => String::new(),
            false => format!(" of {count} of its {of} layers"),
        };
        format!(
            "`{concept}`: its changes of the {network}{layers} are no product of low rank: they \
                act on the whole picture (`mos convert FILE OUT --rank N` makes a LoRA of them)"
        )
    })
}

impl Adaptation {
    /// Checks the concepts against the model, and lets the networks have their parameters.
    pub fn of(pipeline: &Pipeline, request: &Request) -> Result<Adaptation> {
        let concepts = &request.concepts;
        let has_words = concepts.iter().any(|c| !c.concept().words.is_empty())
            || !pipeline.model.fused.is_empty();
        let words = has_words.then(|| {
            let config = &pipeline.text.config;
            let layers = pipeline.model.attentions.len();
            let table = Table {
                encoder: Network::TextEncoder,
                rows: config.vocab_size,
                width: config.hidden_size,
                layers,
            };
            Words::new(
                pipeline.tokenizer(),
                table,
                concepts.iter().map(Applied::concept),
                &pipeline.model.fused,
            )
        });
        let words = words.transpose()?;
        let factors = acting::factors(request, words.as_ref())?;
        let of = |network: Network, model: &Overlay| -> Result<Parted> {
            let sets = || concepts.iter().filter_map(|applied| applied.of(network));
            check_shapes(sets().filter(|set| set.strength != 0.0), network, model)?;
            let with = concepts.iter().zip(&factors);
            let with = with.filter_map(|(applied, f)| Some((applied.of(network)?, f.clone())));
            Ok(Parted::of(with, model))
        };
        let text = of(Network::TextEncoder, &pipeline.text.overlay)?;
        let mut unet = of(Network::UNet, &pipeline.unet.overlay)?;
        // They cost no time then, but other ones need the weights anew, and the sums take f32's
        // memory.
        unet.merged.extend(unet.beside.take_uniform(MERGED_FROM));
        let warnings = [(Network::TextEncoder, &text), (Network::UNet, &unet)]
            .into_iter()
            .flat_map(|(network, parted)| everywhere(network, parted))
            .collect();
        let adaptation = Adaptation {
            words,
            text: text.beside,
            unet: unet.beside,
            merged_text: text.merged,
            merged_unet: unet.merged,
            warnings,
        };
        adaptation.install(pipeline);
        Ok(adaptation)
    }

    /// Lets the networks have the updates' parameters.
    fn install(&self, pipeline: &Pipeline) {
        self.text.install(&pipeline.text);
        self.unet.install(&pipeline.unet);
        pipeline.text.overlay.expect(&self.merged_text);
        pipeline.unet.overlay.expect(&self.merged_unet);
    }

    /// Lets the networks have the updates and weights that this request means, whatever was
    /// prepared since. Returns whether the UNet's weights are others than before.
    pub fn apply(&self, pipeline: &Pipeline) -> bool {
        self.install(pipeline);
        pipeline.text.merge(&self.merged_text);
        pipeline.unet.merge(&self.merged_unet)
    }

    pub fn tokenizer<'a>(&'a self, pipeline: &'a Pipeline) -> &'a Tokenizer {
        self.words.as_ref().map_or(pipeline.tokenizer(), Words::tokenizer)
    }

    /// The prompt as it is tokenized, and warnings of what looks like a concept's word.
    pub fn prompt(
        &self,
        pipeline: &Pipeline,
        prompt: &str,
        warnings: &mut Vec<String>,
    ) -> Result<String> {
        let none;
        let words = match &self.words {
            Some(words) => words,
            None if prompt.contains('<') => {
                none = Words::new(
                    pipeline.tokenizer(),
                    Table { encoder: Network::TextEncoder, rows: 0, width: 1, layers: 1 },
                    [],
                    &[],
                )?;
                &none
            }
            None => return Ok(prompt.to_string()),
        };
        warnings.extend(words.unknown_words(prompt));
        Ok(prompt.to_string())
    }

    /// Sentences for the user about concepts of which no word stands in `prompts`.
    pub fn unused_words(&self, concepts: &[Applied], prompts: &[String]) -> Vec<String> {
        const NAMED: usize = 4;
        let Some(words) = &self.words else { return Vec::new() };
        let mut told = Vec::new();
        for applied in concepts.iter().filter(|applied| !applied.concept().words.is_empty()) {
            let concept = applied.concept();
            let texts = || concept.words.iter().map(|word| &*word.text);
            if prompts.iter().any(|prompt| words.any_in(texts(), prompt)) {
                continue;
            }
            let named = texts().take(NAMED).collect::<Vec<_>>().join(" ");
            let more = if concept.words.len() > NAMED { " ..." } else { "" };
            let acts = Network::ALL
                .into_iter()
                .filter_map(|network| applied.of(network))
                .any(|set| set.strength != 0.0);
            let so = if acts { "only its LoRA acts" } else { "it does nothing" };
            told.push(format!("no prompt has a word of `{}` ({named}{more}): {so}", concept.name));
        }
        told
    }

    /// The prompt as each cross-attention reads it; one where all read the same.
    pub fn copies(&self, prompt: EncodedPrompt) -> Vec<EncodedPrompt> {
        match &self.words {
            Some(words) => {
                (0..words.copies(&prompt)).map(|layer| words.bind(&prompt, layer)).collect()
            }
            None => vec![prompt],
        }
    }

    /// The rows that continue the token table.
    pub fn rows(&self) -> Option<&Array> {
        self.words.as_ref().map(Words::rows)
    }

    /// An error unless the networks' graphs take every update that acts on `prompts`; a part of the
    /// text encoder may be left out on purpose.
    pub fn check_use(
        &self,
        prompts: &[usize],
        text: Option<&[&Graph]>,
        unet: &[&Graph],
    ) -> Result<()> {
        if let Some(text) = text {
            self.text.on(prompts).check_use(Network::TextEncoder, text)?;
        }
        Ok(self.unet.on(prompts).check_use(Network::UNet, unet)?)
    }
}
