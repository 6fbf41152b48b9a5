//! What the concepts of a request change: the vocabulary, and low-rank updates of the networks.

use crate::concept::binding::{Table, Words};
use crate::concept::{Applied, AppliedSet, ModelKind, Network};
use crate::graph::{Array, Graph};
use crate::sd::TextEncoder;
use crate::sd::updates::{Parted, Updates, check_shapes};
use crate::text::Tokenizer;
use crate::text::prompt::EncodedPrompt;

use super::acting;
use super::error::{Result, option};
use super::{Compose, Overlay, Pipeline, Request};

/// What a request's concepts come to.
pub(super) struct Adaptation {
    /// For each text encoder; empty where no concept has words: the model's own tokenizers do.
    words: Vec<Words>,
    /// For each text encoder.
    pub texts: Vec<Updates>,
    pub unet: Updates,
    /// Updates that are added to the weights instead.
    merged_texts: Vec<Vec<AppliedSet>>,
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
        let kind = ModelKind {
            encoders: pipeline.model.text_encoders.len(),
            width: pipeline.unet.config.cross_attention_dim,
        };
        concepts.iter().try_for_each(|applied| kind.check(applied.concept()))?;
        let has_words = concepts.iter().any(|c| !c.concept().words.is_empty())
            || !pipeline.model.fused.is_empty();
        let bind = |encoder: &TextEncoder| {
            let config = &encoder.part.config;
            let table = Table {
                encoder: encoder.network,
                rows: config.vocab_size,
                width: config.hidden_size,
                layers: pipeline.model.attentions.len(),
            };
            let all = concepts.iter().map(Applied::concept);
            Words::new(&encoder.tokenizer, table, all, &pipeline.model.fused)
        };
        let encoders = &pipeline.model.text_encoders;
        let words =
            encoders.iter().filter(|_| has_words).map(bind).collect::<Result<Vec<_>, _>>()?;
        let factors = acting::factors(request, words.first())?;
        let of = |network: Network, model: &Overlay| -> Result<Parted> {
            let sets = || concepts.iter().filter_map(|applied| applied.of(network));
            check_shapes(sets().filter(|set| set.strength != 0.0), network, model)?;
            let with = concepts.iter().zip(&factors);
            let with = with.filter_map(|(applied, f)| Some((applied.of(network)?, f.clone())));
            Ok(Parted::of(with, model))
        };
        let mut texts = Vec::with_capacity(encoders.len());
        for (encoder, loaded) in encoders.iter().zip(&pipeline.texts) {
            texts.push((encoder.network, of(encoder.network, &loaded.overlay)?));
        }
        let mut unet = of(Network::UNet, &pipeline.unet.overlay)?;
        // They cost no time then, but other ones need the weights anew, and the sums take f32's
        // memory.
        if request.compose == Compose::Together {
            unet.merged.extend(unet.beside.take_uniform(MERGED_FROM));
        } else {
            let expected = |what: &str| format!("two or more LoRAs of the UNet{what}");
            if let Some(set) = unet.merged.first() {
                let expected =
                    expected(&format!(" and no other changes, as `{}` has", set.concept));
                return Err(option("compose", request.compose, expected));
            }
            if unet.beside.len() < 2 {
                let expected = expected(&format!(": there are {}", unet.beside.len()));
                return Err(option("compose", request.compose, expected));
            }
        }
        let warnings = texts
            .iter()
            .map(|(network, parted)| (*network, parted))
            .chain([(Network::UNet, &unet)])
            .flat_map(|(network, parted)| everywhere(network, parted))
            .collect();
        let (texts, merged_texts) =
            texts.into_iter().map(|(_, parted)| (parted.beside, parted.merged)).unzip();
        let adaptation = Adaptation {
            words,
            texts,
            unet: unet.beside,
            merged_texts,
            merged_unet: unet.merged,
            warnings,
        };
        adaptation.install(pipeline);
        Ok(adaptation)
    }

    /// Lets the networks have the updates' parameters.
    fn install(&self, pipeline: &Pipeline) {
        for ((updates, merged), network) in
            self.texts.iter().zip(&self.merged_texts).zip(&pipeline.texts)
        {
            updates.install(network);
            network.overlay.expect(merged);
        }
        self.unet.install(&pipeline.unet);
        pipeline.unet.overlay.expect(&self.merged_unet);
    }

    /// Lets the networks have the updates and weights that this request means, whatever was
    /// prepared since. Returns whether the UNet's weights are others than before.
    pub fn apply(&self, pipeline: &Pipeline) -> bool {
        self.install(pipeline);
        for (merged, network) in self.merged_texts.iter().zip(&pipeline.texts) {
            network.merge(merged);
        }
        pipeline.unet.merge(&self.merged_unet)
    }

    /// The tokenizer of each text encoder.
    pub fn tokenizers<'a>(&'a self, pipeline: &'a Pipeline) -> Vec<&'a Tokenizer> {
        let own = pipeline.model.text_encoders.iter().map(|encoder| &encoder.tokenizer);
        match self.words.is_empty() {
            true => own.collect(),
            false => self.words.iter().map(Words::tokenizer).collect(),
        }
    }

    /// The prompt as it is tokenized, and warnings of what looks like a concept's word.
    pub fn prompt(
        &self,
        pipeline: &Pipeline,
        prompt: &str,
        warnings: &mut Vec<String>,
    ) -> Result<String> {
        let none;
        let words = match self.words.first() {
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
        let Some(words) = self.words.first() else { return Vec::new() };
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

    /// The prompt as each cross-attention reads it of a text encoder; one where all read the same.
    pub fn copies(&self, encoder: usize, prompt: EncodedPrompt) -> Vec<EncodedPrompt> {
        match self.words.get(encoder) {
            Some(words) => {
                (0..words.copies(&prompt)).map(|layer| words.bind(&prompt, layer)).collect()
            }
            None => vec![prompt],
        }
    }

    /// Whether a token of a prompt as the first text encoder reads it is one of a concept's words.
    pub fn is_word(&self, id: u32) -> bool {
        self.words.first().is_some_and(|words| words.is_bound(id))
    }

    /// The rows that continue a text encoder's token table.
    pub fn rows(&self, encoder: usize) -> Option<&Array> {
        self.words.get(encoder).map(Words::rows)
    }

    /// An error unless the networks' graphs take every update that acts on `prompts`. `texts`: the
    /// text encoders that run as a whole; a part of others is left out on purpose.
    pub fn check_use(
        &self,
        prompts: &[usize],
        texts: &[(usize, Network, Vec<&Graph>)],
        unet: &[&Graph],
    ) -> Result<()> {
        for (encoder, network, graphs) in texts {
            if let Some(updates) = self.texts.get(*encoder) {
                updates.on(prompts).check_use(*network, graphs)?;
            }
        }
        Ok(self.unet.on(prompts).check_use(Network::UNet, unet)?)
    }
}
