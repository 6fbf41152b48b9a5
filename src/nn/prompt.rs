//! What cross-attention reads.

use super::Layers;
use crate::graph::ops::RegionInputs;
use crate::graph::{Result, Tensor};

/// The encoded prompt, as the layers of a UNet get it.
#[derive(Clone, Copy, Debug)]
pub enum Encodings<'a> {
    /// Text encodings `[batch, tokens, text channels]`: one that all cross-attentions read, or one
    /// for each of them.
    Text(&'a [Tensor]),
    /// Keys and values `[batch, tokens, channels]` of each cross-attention, made beforehand: a
    /// prompt stands still while a picture is sampled, so they are computed once.
    KeysValues(&'a [(Tensor, Tensor)]),
    /// Keys and values `[batch, tokens of all prompts, channels]` of several prompts, and where
    /// each of them holds.
    Regional {
        /// Keys and values of each cross-attention, in the UNet's order.
        pairs: &'a [(Tensor, Tensor)],
        /// Where regions hold, for each size of feature map; empty without regions.
        sizes: &'a [RegionSize],
    },
}

/// Where prompts hold on feature maps of one size.
#[derive(Clone, Debug)]
pub struct RegionSize {
    /// Height times width.
    pub tokens: usize,
    /// Which tokens read which prompt.
    pub inputs: RegionInputs,
    /// u32 `[tokens]`: in self-attention two tokens see each other if they share a bit. None: all
    /// do.
    pub mask: Option<Tensor>,
}

/// The encodings, and which cross-attention is next: they are counted in the order of computation,
/// down -> middle -> up.
#[derive(Debug)]
pub struct Prompt<'a> {
    encodings: Encodings<'a>,
    next: usize,
}

impl<'a> Prompt<'a> {
    /// Of a whole network, whose cross-attentions ask one after another.
    pub fn new(encodings: Encodings<'a>) -> Self {
        Prompt { encodings, next: 0 }
    }

    /// Of a network without its first `before` cross-attentions.
    pub fn from(encodings: Encodings<'a>, before: usize) -> Self {
        Prompt { encodings, next: before }
    }

    /// What the cross-attention being built, with queries `q`, takes from the prompt: the one place
    /// where queries meet it.
    pub(super) fn attend(
        &mut self,
        layers: &mut Layers,
        q: Tensor,
        heads: usize,
    ) -> Result<Tensor> {
        let (k, v) = self.keys_values(layers, q)?;
        layers.watch(q, k, heads)?;
        match self.size(layers, q)? {
            None => {
                let scale = layers.attention_scale(q, heads);
                layers.graph.attention_to_prompt(q, k, v, heads, scale)
            }
            Some(size) => {
                let scale = layers.attention_scale(q, heads);
                layers.graph.regional_attention(q, k, v, size.inputs.clone(), heads, scale)
            }
        }
    }

    /// What tokens of `x` may see of each other; none: everything.
    pub(super) fn mask(&self, layers: &Layers, x: Tensor) -> Result<Option<Tensor>> {
        Ok(self.size(layers, x)?.and_then(|size| size.mask))
    }

    /// Where prompts hold on the tokens of `x`, if there are regions.
    fn size(&self, layers: &Layers, x: Tensor) -> Result<Option<&'a RegionSize>> {
        let Encodings::Regional { sizes, .. } = self.encodings else { return Ok(None) };
        let [_, tokens, _] = layers.tokens(x, "attention")?;
        let found = sizes.iter().find(|size| size.tokens == tokens);
        let message = || format!("the regions are not given for a feature map of {tokens} tokens");
        found.map(Some).ok_or_else(|| layers.graph.shape_error("regions", message()))
    }

    fn keys_values(&mut self, layers: &mut Layers, q: Tensor) -> Result<(Tensor, Tensor)> {
        let index = self.next;
        self.next += 1;
        let found = match self.encodings {
            Encodings::Text([text]) => return layers.keys_values(*text, layers.channels(q)),
            Encodings::Text(texts) => match texts.get(index) {
                Some(text) => return layers.keys_values(*text, layers.channels(q)),
                None => texts.len(),
            },
            Encodings::KeysValues(pairs) | Encodings::Regional { pairs, .. } => {
                match pairs.get(index) {
                    Some(pair) => return Ok(*pair),
                    None => pairs.len(),
                }
            }
        };
        let message = format!(
            "this is cross-attention number {} of the model, the prompt has encodings for {found}",
            index + 1
        );
        Err(layers.graph.shape_error("cross-attention", message))
    }

    /// An error unless every encoding was read.
    pub fn finish(self, layers: &Layers) -> Result<()> {
        let given = match self.encodings {
            Encodings::Text([_]) => return Ok(()),
            Encodings::Text(texts) => texts.len(),
            Encodings::KeysValues(pairs) | Encodings::Regional { pairs, .. } => pairs.len(),
        };
        if given == self.next {
            return Ok(());
        }
        let message = format!(
            "the model has {} cross-attentions, the prompt has encodings for {given}",
            self.next
        );
        Err(layers.graph.shape_error("cross-attention", message))
    }
}
