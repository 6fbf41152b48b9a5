//! Concepts belong to the model that they were tuned on.

use std::path::Path;

use crate::checkpoint::Checkpoint;

use super::{Concept, Error, ModelKind, Result};

/// Checks that concepts which say what model they were made for were made for this one. `cache` is
/// a file that remembers the hashes of models ([`crate::checkpoint::base_hash_cache`]).
///
/// # Errors
/// [`Error::OtherKind`]; [`Error::OtherBase`], with both hashes.
pub fn check_base<'a>(
    concepts: impl IntoIterator<Item = &'a Concept>,
    model: &Checkpoint,
    cache: Option<&Path>,
) -> Result<()> {
    let mut found = None;
    for concept in concepts {
        let Some(wanted) = concept.base else { continue };
        // Nothing makes it fit another kind.
        ModelKind::of(model).map_or(Ok(()), |kind| kind.check(concept))?;
        let found = *found.get_or_insert_with(|| model.base_hash_cached(cache));
        if found != wanted {
            return Err(Error::OtherBase { concept: concept.name.clone(), wanted, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{ModelHash, Network};
    use crate::concept::Word;
    use crate::graph::Array;

    #[test]
    fn only_concepts_of_another_model_are_refused() {
        let model = Checkpoint::shipped().unwrap();
        let of = |base| Concept { name: "zorp".into(), base, ..Concept::default() };
        let hash = model.base_hash();
        assert!(check_base(&[of(None), of(Some(hash))], &model, None).is_ok());
        let other = ModelHash([7; 32]);
        let error =
            check_base(&[of(Some(hash)), of(Some(other))], &model, None).unwrap_err().to_string();
        assert!(error.contains(&hash.to_string()) && error.contains(&other.to_string()), "{error}");
        let rows = Array::f32([1, 8], vec![0.0; 8]);
        let word =
            Word { rows: [(Network::TextEncoder2, rows.clone())].into(), ..Word::new("<a>", rows) };
        let of_xl = Concept { words: vec![word], ..of(Some(other)) };
        let error = check_base(&[of_xl], &model, None).unwrap_err();
        assert!(matches!(error, Error::OtherKind { .. }), "{error}");
    }
}
