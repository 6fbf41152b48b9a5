//! The weights of a model with those of low-rank updates beside them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use crate::graph::{Array, ParameterError, ParameterInfo, ParameterSource, StoredAs};

use super::AppliedSet;

/// Endings of an update's two parameters, as [`crate::nn::LowRank`] names them.
const DOWN: &str = ".lora_down.weight";
const UP: &str = ".lora_up.weight";

/// A [`ParameterSource`] that has `<set>.<layer>.lora_down.weight` and `<set>.<layer>.lora_up.weight` of named sets, and all else
/// from a model. Sets come and go while programs share it.
pub struct WithUpdates {
    model: Arc<dyn ParameterSource + Send>,
    sets: RwLock<BTreeMap<String, AppliedSet>>,
}

impl WithUpdates {
    pub fn new(model: Arc<dyn ParameterSource + Send>) -> Self {
        WithUpdates { model, sets: RwLock::default() }
    }

    /// The sets from now on.
    pub fn set(&self, sets: &[AppliedSet]) {
        let sets = sets.iter().map(|set| (set.name.clone(), set.clone())).collect();
        *self.sets.write().unwrap_or_else(PoisonError::into_inner) = sets;
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&Array) -> T) -> Option<T> {
        let (set, rest) = name.split_once('.')?;
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        let layers = &sets.get(set)?.set().layers;
        if let Some(update) = rest.strip_suffix(DOWN).and_then(|layer| layers.get(layer)) {
            return Some(read(&update.down));
        }
        let update = rest.strip_suffix(UP).and_then(|layer| layers.get(layer))?;
        Some(read(&update.up))
    }
}

impl ParameterSource for WithUpdates {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let own = self.with(name, |array| ParameterInfo { shape: array.shape.to_vec(), stored: StoredAs::F32 });
        own.or_else(|| self.model.info(name))
    }

    fn read(&self, name: &str, range: Range<usize>, into: &mut [f32]) -> Result<(), ParameterError> {
        let own = self.with(name, |array| match array.values().get(range.clone()) {
            Some(values) if values.len() == into.len() => {
                into.copy_from_slice(values);
                Ok(())
            }
            _ => {
                let message = format!("elements {range:?} of {} were asked for", array.values().len());
                Err(ParameterError::Read { name: name.into(), message })
            }
        });
        own.unwrap_or_else(|| self.model.read(name, range, into))
    }

    fn done_with(&self, name: &str) {
        self.model.done_with(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::{Applied, Concept, LowRankSet, Update};

    struct Model;

    impl ParameterSource for Model {
        fn info(&self, name: &str) -> Option<ParameterInfo> {
            (name == "a.weight").then(|| ParameterInfo { shape: vec![2], stored: StoredAs::F16 })
        }

        fn read(&self, _name: &str, _range: Range<usize>, into: &mut [f32]) -> Result<(), ParameterError> {
            into.fill(9.0);
            Ok(())
        }
    }

    #[test]
    fn updates_stand_beside_the_model() {
        let source = WithUpdates::new(Arc::new(Model));
        let update = Update { down: Array::f32([1, 3], vec![1.0, 2.0, 3.0]), up: Array::f32([2, 1], vec![4.0, 5.0]) };
        let set = LowRankSet { scale: 1.0, layers: [("x.y".to_string(), update)].into() };
        assert!(source.info("zorp.x.y.lora_up.weight").is_none());
        let applied = Applied::new(Concept { unet: set, ..Concept::default() }, 1.0).unwrap();
        source.set(&[applied.unet().clone()]);
        let name = |rest: &str| format!("{}.x.y.{rest}", applied.unet().name);
        assert_eq!(source.info("a.weight").unwrap().shape, [2]);
        assert_eq!(source.info(&name("lora_up.weight")).unwrap().shape, [2, 1]);
        let mut two = [0.0; 2];
        source.read(&name("lora_down.weight"), 1..3, &mut two).unwrap();
        assert_eq!(two, [2.0, 3.0]);
        assert!(source.read(&name("lora_down.weight"), 2..4, &mut two).is_err());
        source.read("a.weight", 0..2, &mut two).unwrap();
        assert_eq!(two, [9.0, 9.0]);
        source.set(&[]);
        assert!(source.info(&name("lora_up.weight")).is_none());
    }
}
