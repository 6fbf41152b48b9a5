//! The weights of a network as they are in use: the model's own, with fused ones in place of some,
//! low-rank updates beside them, and updates added to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::checkpoint::TensorFile;
use crate::concept::{AppliedSet, Piece, Update};
use crate::graph::{Array, ParameterError, ParameterInfo, ParameterSource, Quant, StoredAs};

/// Endings of an update's two parameters, as [`crate::nn::LoraSet`] names them.
const DOWN: &str = ".lora_down.weight";
const UP: &str = ".lora_up.weight";

/// What an update has to know of a whole parameter.
type Measured = Arc<Vec<f32>>;

/// A [`ParameterSource`] that has `<set>.<layer>.lora_down.weight` and
/// `<set>.<layer>.lora_up.weight` of the sets of updates in use, and all else from a model: with
/// replaced weights in place of its own, and with the updates of merged sets added. Sets come and
/// go while programs share it.
pub struct Overlay {
    model: Arc<dyn ParameterSource + Send>,
    /// Weights in place of the model's, by their names; the first file that has one counts. They
    /// stay in their files until they are asked for.
    replaced: Vec<Arc<TensorFile>>,
    beside: RwLock<BTreeMap<String, AppliedSet>>,
    merged: RwLock<Vec<AppliedSet>>,
    /// What merged updates have to know of whole parameters, by the set's number and the
    /// parameter's name.
    measured: Mutex<HashMap<(usize, String), Measured>>,
    /// Those that will be merged: what is planned is planned for them.
    expected: RwLock<Vec<AppliedSet>>,
    sums_in_f32: bool,
}

impl Overlay {
    /// The model's own weights, nothing laid over them yet.
    pub fn new(model: Arc<dyn ParameterSource + Send>) -> Self {
        Overlay {
            model,
            replaced: Vec::new(),
            beside: RwLock::default(),
            merged: RwLock::default(),
            measured: Mutex::default(),
            expected: RwLock::default(),
            sums_in_f32: false,
        }
    }

    /// The same with the weights of `files`, f32, in place of the model's of their names. Plans see
    /// them in the model's own precision, as a file will have them.
    pub fn with_replaced(mut self, files: &[Arc<TensorFile>]) -> Self {
        self.replaced = files.to_vec();
        self
    }

    /// Says of weights with merged updates that they are stored in f32, whatever the model stores:
    /// where the update is small beside the weight, a sum in 16 bits has lost most of it.
    pub fn with_sums_in_f32(mut self, sums_in_f32: bool) -> Self {
        self.sums_in_f32 = sums_in_f32;
        self
    }

    /// The model without any update.
    pub fn model(&self) -> Arc<dyn ParameterSource + Send> {
        self.model.clone()
    }

    /// The sets whose updates are computed beside the weights from now on.
    pub fn put_beside(&self, sets: &[AppliedSet]) {
        let sets = sets.iter().map(|set| (set.name.clone(), set.clone())).collect();
        *self.beside.write().unwrap_or_else(PoisonError::into_inner) = sets;
    }

    /// Lets [`ParameterSource::info`] speak of the weights as they will be once these sets are
    /// merged.
    pub fn expect(&self, sets: &[AppliedSet]) {
        *self.expected.write().unwrap_or_else(PoisonError::into_inner) = sets.to_vec();
    }

    /// Adds these sets, as strong as they are, to the model's own weights from now on, instead of
    /// those before. Returns the parameters that have changed by that.
    pub fn merge(&self, sets: &[AppliedSet]) -> BTreeSet<String> {
        self.expect(sets);
        let mut merged = self.merged.write().unwrap_or_else(PoisonError::into_inner);
        let same = |(a, b): (&AppliedSet, &AppliedSet)| a == b && a.strength == b.strength;
        if merged.len() == sets.len() && merged.iter().zip(sets).all(same) {
            return BTreeSet::new();
        }
        let names = |set: &AppliedSet| -> Vec<String> {
            set.set().parameters().map(|(name, _)| name).collect()
        };
        let changed = merged.iter().chain(sets).flat_map(names).collect();
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *merged = sets.to_vec();
        changed
    }

    /// Reads elements of a parameter with what the first `sets` of the merged ones do to it.
    fn read_with(
        &self,
        sets: usize,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        match self.replaced.iter().find_map(|file| file.tensor(name)) {
            Some(view) if range.end <= view.len() => view.write_f32(range.clone(), into),
            Some(_) => {
                let message = "read beyond its end".into();
                return Err(ParameterError::Read { name: name.into(), message });
            }
            None => self.model.read(name, range.clone(), into)?,
        }
        let merged = self.merged.read().unwrap_or_else(PoisonError::into_inner).clone();
        let updates = merged.iter().take(sets).enumerate();
        let updates = updates.filter_map(|(n, set)| Some((n, set, set.set().parameter(name)?)));
        for (number, set, update) in updates {
            let missing = || ParameterError::Missing { name: name.into() };
            let shape = self.model.info(name).ok_or_else(missing)?.shape;
            let measured = self.measure(number, name, update, &shape)?;
            let piece = Piece { shape: &shape, range: range.clone() };
            update.add_to(set.strength, &piece, &measured, into);
        }
        Ok(())
    }

    /// What the update of the merged set of that number has to know of the parameter as the sets
    /// before leave it.
    fn measure(
        &self,
        number: usize,
        name: &str,
        update: &Update,
        shape: &[usize],
    ) -> Result<Arc<Vec<f32>>, ParameterError> {
        let key = (number, name.to_string());
        let known = self.measured.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found =
            update.measure(shape, &mut |range, values| self.read_with(number, name, range, values));
        let found = Arc::new(found?);
        if !found.is_empty() {
            let mut all = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(key, found.clone());
        }
        Ok(found)
    }

    /// Whether an update will have been added to a parameter.
    fn is_updated(&self, name: &str) -> bool {
        let sets = self.expected.read().unwrap_or_else(PoisonError::into_inner);
        sets.iter().any(|set| set.set().parameter(name).is_some())
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&Array) -> T) -> Option<T> {
        let (set, rest) = name.split_once('.')?;
        let sets = self.beside.read().unwrap_or_else(PoisonError::into_inner);
        let layers = &sets.get(set)?.set().layers;
        let of = |end: &str| layers.get(rest.strip_suffix(end)?)?.lora();
        of(DOWN).map(|lora| &lora.down).or_else(|| of(UP).map(|lora| &lora.up)).map(read)
    }
}

impl ParameterSource for Overlay {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let own = self.with(name, |array| ParameterInfo {
            shape: array.shape.to_vec(),
            stored: StoredAs::F32,
        });
        own.or_else(|| {
            let info = self.model.info(name)?;
            let summed = self.sums_in_f32 && self.is_updated(name);
            Some(if summed { ParameterInfo { stored: StoredAs::F32, ..info } } else { info })
        })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let own = self.with(name, |array| match array.values().get(range.clone()) {
            Some(values) if values.len() == into.len() => {
                into.copy_from_slice(values);
                Ok(())
            }
            _ => {
                let message =
                    format!("elements {range:?} of {} were asked for", array.values().len());
                Err(ParameterError::Read { name: name.into(), message })
            }
        });
        own.unwrap_or_else(|| self.read_with(usize::MAX, name, range, into))
    }

    /// Of weights that are the model's own.
    fn quant(&self, name: &str) -> Option<Quant> {
        let changed = self.is_updated(name)
            || self.replaced.iter().any(|file| file.tensor(name).is_some())
            || self.with(name, |_| ()).is_some();
        if changed { None } else { self.model.quant(name) }
    }

    fn read_blocks(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), ParameterError> {
        self.model.read_blocks(name, range, into)
    }

    fn done_with(&self, name: &str) {
        self.model.done_with(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::{Applied, Concept, Lora, Network, UpdateSet};

    struct Model;

    impl ParameterSource for Model {
        fn info(&self, name: &str) -> Option<ParameterInfo> {
            (name == "a.weight").then(|| ParameterInfo { shape: vec![2], stored: StoredAs::F16 })
        }

        fn read(
            &self,
            _name: &str,
            _range: Range<usize>,
            into: &mut [f32],
        ) -> Result<(), ParameterError> {
            into.fill(9.0);
            Ok(())
        }
    }

    #[test]
    fn updates_stand_beside_the_model() {
        let source = Overlay::new(Arc::new(Model));
        let update = Lora {
            down: Array::f32([1, 3], vec![1.0, 2.0, 3.0]),
            up: Array::f32([2, 1], vec![4.0, 5.0]),
        };
        let set = UpdateSet::new([("x.y".to_string(), update.into())]);
        assert!(source.info("zorp.x.y.lora_up.weight").is_none());
        let applied = Applied::new(
            Concept { updates: [(Network::UNet, set)].into(), ..Concept::default() },
            1.0,
        )
        .unwrap();
        source.put_beside(&[applied.of(Network::UNet).unwrap().clone()]);
        let name = |rest: &str| format!("{}.x.y.{rest}", applied.of(Network::UNet).unwrap().name);
        assert_eq!(source.info("a.weight").unwrap().shape, [2]);
        assert_eq!(source.info(&name("lora_up.weight")).unwrap().shape, [2, 1]);
        let mut two = [0.0; 2];
        source.read(&name("lora_down.weight"), 1..3, &mut two).unwrap();
        assert_eq!(two, [2.0, 3.0]);
        assert!(source.read(&name("lora_down.weight"), 2..4, &mut two).is_err());
        source.read("a.weight", 0..2, &mut two).unwrap();
        assert_eq!(two, [9.0, 9.0]);
        source.put_beside(&[]);
        assert!(source.info(&name("lora_up.weight")).is_none());
    }

    #[test]
    fn merged_updates_are_added_to_the_weights() {
        struct Linear;
        impl ParameterSource for Linear {
            fn info(&self, _name: &str) -> Option<ParameterInfo> {
                Some(ParameterInfo { shape: vec![3, 2], stored: StoredAs::F16 })
            }

            fn read(
                &self,
                _name: &str,
                range: Range<usize>,
                into: &mut [f32],
            ) -> Result<(), ParameterError> {
                into.iter_mut().zip(range).for_each(|(v, i)| *v = i as f32);
                Ok(())
            }
        }
        let source = Overlay::new(Arc::new(Linear));
        let down = Array::f32([2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let up = Array::f32([3, 2], vec![1.0, 0.0, 0.0, 1.0, 2.0, 1.0]);
        let set = UpdateSet::scaled(0.5, [("x".to_string(), Lora { down, up }.into())]);
        let applied = Applied::new(
            Concept { updates: [(Network::UNet, set)].into(), ..Concept::default() },
            2.0,
        )
        .unwrap();
        let read = |name: &str, range: Range<usize>| {
            let mut values = vec![0.0; range.len()];
            source.read(name, range, &mut values).unwrap();
            values
        };
        assert_eq!(
            source.merge(&[applied.of(Network::UNet).unwrap().clone()]),
            BTreeSet::from(["x.weight".to_string()])
        );
        assert_eq!(read("x.weight", 0..6), [1.0, 3.0, 5.0, 7.0, 9.0, 13.0]);
        assert_eq!(read("x.weight", 1..5), [3.0, 5.0, 7.0, 9.0], "across rows");
        assert_eq!(read("x.bias", 0..2), [0.0, 1.0]);
        assert!(
            source.merge(&[applied.of(Network::UNet).unwrap().clone()]).is_empty(),
            "nothing changes"
        );
        assert_eq!(source.merge(&[]).len(), 1);
        assert_eq!(read("x.weight", 0..6), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        // Sums keep what f16 would lose, and plans know it beforehand.
        let stored = |source: &Overlay, name: &str| source.info(name).unwrap().stored;
        source.expect(&[applied.of(Network::UNet).unwrap().clone()]);
        assert_eq!(stored(&source, "x.weight"), StoredAs::F16, "unless told otherwise");
        let source = Overlay::new(Arc::new(Linear)).with_sums_in_f32(true);
        assert_eq!(stored(&source, "x.weight"), StoredAs::F16);
        source.expect(&[applied.of(Network::UNet).unwrap().clone()]);
        assert_eq!(
            (stored(&source, "x.weight"), stored(&source, "x.bias")),
            (StoredAs::F32, StoredAs::F16)
        );
        source.merge(&[]);
        assert_eq!(stored(&source, "x.weight"), StoredAs::F16);
    }
}
