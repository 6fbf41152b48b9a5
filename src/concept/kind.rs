//! Which kind of model a concept is for, told by what it changes.

use crate::checkpoint::Checkpoint;

use super::{Concept, Error, Network, Result};

/// What tells kinds of models apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelKind {
    /// Text encoders: two in Stable Diffusion XL.
    pub encoders: usize,
    /// Width of what the UNet's cross-attentions read.
    pub width: usize,
}

impl ModelKind {
    /// The kind of a model; none where its configuration does not tell.
    pub fn of(model: &Checkpoint) -> Option<Self> {
        let width = model.unet.config.get("cross_attention_dim")?.as_u64()?;
        Some(ModelKind { encoders: model.text_encoders().count(), width: width.try_into().ok()? })
    }

    /// Refuses a concept of another kind of model.
    ///
    /// # Errors
    /// [`Error::OtherKind`], with both kinds.
    pub fn check(self, concept: &Concept) -> Result<()> {
        let (of_two, width) = (concept.is_of_two_encoders(), concept.prompt_width());
        let has = |encoder| move |word: &super::Word| !word.rows(encoder).values().is_empty();
        let of_one = concept.words.iter().any(has(Network::TextEncoder)) && !of_two;
        let fits = match self.encoders {
            1 => !of_two,
            _ => !of_one,
        };
        if fits && width.is_none_or(|width| width == self.width) {
            return Ok(());
        }
        Err(Error::OtherKind {
            concept: concept.name.clone(),
            made_for: described(of_two.then_some(2).or(of_one.then_some(1)), width),
            model: described(Some(self.encoders), Some(self.width)),
        })
    }
}

impl Concept {
    /// It has something of a second text encoder, which only Stable Diffusion XL has.
    pub fn is_of_two_encoders(&self) -> bool {
        let second = Network::TextEncoder2;
        !self.updates.of(second).is_empty()
            || self.words.iter().any(|word| !word.rows(second).values().is_empty())
    }

    /// It is for Stable Diffusion XL, as far as that can be told.
    pub fn is_xl(&self) -> bool {
        self.is_of_two_encoders() || self.prompt_width() == Some(XL_WIDTH)
    }

    /// Width of what the cross-attentions read that it changes.
    fn prompt_width(&self) -> Option<usize> {
        let layers = &self.updates.of(Network::UNet).layers;
        let reads = |layer: &str| layer.ends_with("attn2.to_k") || layer.ends_with("attn2.to_v");
        let found = layers.iter().filter(|(layer, _)| reads(layer));
        found.filter_map(|(_, update)| update.weight_shape().get(1).copied()).next()
    }
}

const XL_WIDTH: usize = 2048;

/// A kind of model in words.
fn described(encoders: Option<usize>, width: Option<usize>) -> String {
    let known = match (encoders, width) {
        (None | Some(2), Some(XL_WIDTH)) | (Some(2), None) => "Stable Diffusion XL",
        (None | Some(1), Some(768)) => "Stable Diffusion 1.x",
        (None | Some(1), Some(1024)) => "Stable Diffusion 2.x",
        (Some(1), None) => "Stable Diffusion 1.x or 2.x",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_string();
    }
    let encoders = match encoders {
        Some(1) => "with one text encoder",
        Some(_) => "with two text encoders, as Stable Diffusion XL",
        None => "",
    };
    let width = width.map(|width| format!("whose UNet reads prompts of width {width}"));
    let parts: Vec<&str> = [Some(encoders), width.as_deref()]
        .into_iter()
        .flatten()
        .filter(|p| !p.is_empty())
        .collect();
    format!("a model {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::{Lora, UpdateSet, Word};
    use crate::graph::Array;

    const SD1: ModelKind = ModelKind { encoders: 1, width: 768 };
    const XL: ModelKind = ModelKind { encoders: 2, width: 2048 };

    fn of_width(width: usize) -> Concept {
        let (down, up) =
            (Array::f32([1, width], vec![0.0; width]), Array::f32([2, 1], vec![0.0; 2]));
        let layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k".to_string();
        let set = UpdateSet::new([(layer, Lora { down, up }.into())]);
        Concept { name: "ink".into(), updates: [(Network::UNet, set)].into(), ..Concept::default() }
    }

    fn with_words(encoders: &[(Network, usize)]) -> Concept {
        let mut word = Word::new("<a>", Array::f32([1, 1], vec![0.0]));
        let rows = |width: usize| Array::f32([1, width], vec![0.0; width]);
        word.rows = encoders.iter().map(|(network, width)| (*network, rows(*width))).collect();
        Concept { name: "ink".into(), words: vec![word], ..Concept::default() }
    }

    #[test]
    fn concepts_of_another_kind_are_refused_with_both_kinds_named() {
        let (first, second) = ((Network::TextEncoder, 768), (Network::TextEncoder2, 1280));
        let both = with_words(&[first, second]);
        for (kind, fits) in [
            (SD1, [of_width(768), with_words(&[first]), Concept::default()]),
            (XL, [of_width(2048), both.clone(), Concept::default()]),
        ] {
            fits.iter().for_each(|concept| kind.check(concept).unwrap());
        }
        let error =
            |kind: ModelKind, concept: &Concept| kind.check(concept).unwrap_err().to_string();
        for (kind, concept, made_for, model) in [
            (SD1, of_width(2048), "Stable Diffusion XL", "Stable Diffusion 1.x"),
            (SD1, both, "Stable Diffusion XL", "Stable Diffusion 1.x"),
            (SD1, of_width(1024), "Stable Diffusion 2.x", "Stable Diffusion 1.x"),
            (XL, of_width(768), "Stable Diffusion 1.x", "Stable Diffusion XL"),
            (XL, with_words(&[first]), "Stable Diffusion 1.x or 2.x", "Stable Diffusion XL"),
            (XL, of_width(40), "a model whose UNet reads prompts of width 40", "XL"),
        ] {
            let error = error(kind, &concept);
            assert!(error.contains(made_for) && error.contains(model), "{error}");
        }
    }
}
