//! Where concepts act: each prompt of a picture, the context's and the regions', has a factor for
//! each concept's updates.

use crate::concept::Concept;
use crate::concept::binding::Words;
use crate::region;

use super::Request;
use super::error::Result;

/// For each concept of the request, its factors for the prompts, the context's first. A concept
/// that a region names acts where regions name it, as strongly as they say. Another one with words
/// acts where the prompt has one of them; one without words, or whose words no prompt has, acts
/// everywhere.
///
/// # Errors
/// A region that names a concept which is not in use.
pub(super) fn factors(request: &Request, words: Option<&Words>) -> Result<Vec<Vec<f32>>> {
    let regions = &request.regions.regions;
    // Words are the same in upper and lower case.
    let is_word = |text: &str, name: &str| text.to_lowercase() == name.to_lowercase();
    let is_called = |concept: &Concept, name: &str| {
        concept.name == name || concept.words.iter().any(|word| is_word(&word.text, name))
    };
    for (index, region) in regions.iter().enumerate() {
        let stranger = |name: &&String| {
            !request.concepts.iter().any(|applied| is_called(applied.concept(), name))
        };
        if let Some(name) = region.concepts.keys().find(stranger) {
            let known: Vec<&str> =
                request.concepts.iter().map(|applied| &*applied.concept().name).collect();
            let known = if known.is_empty() {
                String::new()
            } else {
                format!(" (those in use: {})", known.join(", "))
            };
            return Err(region::Error::Unknown {
                region: request.regions.name(index),
                kind: "concept",
                name: name.clone(),
                known,
            }
            .into());
        }
    }
    let all = |concept: &Concept| {
        let named = |region: &region::Region| {
            region.concepts.iter().find(|(name, _)| is_called(concept, name)).map(|(_, f)| *f)
        };
        if regions.iter().any(|region| named(region).is_some()) {
            return std::iter::once(0.0)
                .chain(regions.iter().map(|region| named(region).unwrap_or(0.0)))
                .collect();
        }
        let prompts =
            || std::iter::once(&request.prompt).chain(regions.iter().map(|region| &region.prompt));
        let texts = || concept.words.iter().map(|word| &*word.text);
        let has = |prompt: &String| words.is_some_and(|words| words.any_in(texts(), prompt));
        match prompts().any(has) {
            true => prompts().map(|prompt| f32::from(u8::from(has(prompt)))).collect(),
            false => vec![1.0; 1 + regions.len()],
        }
    };
    Ok(request.concepts.iter().map(|applied| all(applied.concept())).collect())
}
