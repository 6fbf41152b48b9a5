//! Cases written by `tools/reference/models.py`: configuration, inputs and expected outputs of one
//! model.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixofshow::graph::{
    Array, Graph, Origin, ParameterError, ParameterInfo, ParameterSource, StoredAs,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::hashed::{self, HashedWeights};

pub struct Case {
    pub name: String,
    /// `kind`, `config`, `inputs`, `parameters` (name to shape), `probes`
    pub json: Value,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Case {
    pub fn open(name: &str) -> Case {
        let path = root().join("tests/fixtures/models").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let json = &header.metadata().as_ref().expect("metadata")["case"];
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = file.iter().map(|(name, view)| {
            (name.to_string(), (view.shape().to_vec(), floats(view.dtype(), view.data())))
        });
        Case {
            name: name.into(),
            json: serde_json::from_str(json).expect("JSON"),
            tensors: tensors.collect(),
        }
    }

    pub fn config(&self) -> &Value {
        &self.json["config"]
    }

    pub fn input(&self, key: &str) -> usize {
        self.json["inputs"][key].as_u64().unwrap_or_else(|| panic!("{}: no input {key}", self.name))
            as usize
    }

    pub fn list(&self, key: &str) -> Vec<f32> {
        let list = self.json["inputs"][key]
            .as_array()
            .unwrap_or_else(|| panic!("{}: no list {key}", self.name));
        list.iter().map(|v| v.as_f64().expect("a number") as f32).collect()
    }

    pub fn expected(&self, name: &str) -> &(Vec<usize>, Vec<f32>) {
        self.tensors.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names and shapes of the reference model's parameters.
    pub fn parameters(&self) -> HashMap<String, Vec<usize>> {
        let list = self.json["parameters"].as_object().expect("parameters");
        let dims = |v: &Value| {
            v.as_array()
                .expect("a shape")
                .iter()
                .map(|d| d.as_u64().expect("an extent") as usize)
                .collect()
        };
        list.iter().map(|(name, shape)| (name.clone(), dims(shape))).collect()
    }

    pub fn weights(&self) -> Arc<dyn ParameterSource + Send> {
        match self.config()["folder"].as_str() {
            None => Arc::new(HashedWeights(self.parameters())),
            Some(folder) => {
                let path = root()
                    .join(folder)
                    .join(self.config()["weights"].as_str().expect("a file name"));
                Arc::new(FileWeights::open(&path))
            }
        }
    }

    /// Fails unless `found` is what the reference computed, to `tolerance` relative to its root
    /// mean square.
    pub fn check(&self, name: &str, found: &Array, tolerance: f64) {
        let (shape, values) = self.expected(name);
        assert_eq!(&found.shape[..], &shape[..], "{}: shape of {name}", self.name);
        self.compare(name, found.values(), values, tolerance);
    }

    /// The same for an intermediate result, of which the reference kept every n-th number.
    pub fn check_probe(&self, place: &str, found: &Array, tolerance: f64) {
        let step = self.json["probes"][place]
            .as_u64()
            .unwrap_or_else(|| panic!("{}: no probe {place}", self.name))
            as usize;
        let (_, values) = self.expected(&format!("probe.{place}"));
        let found: Vec<f32> = found.values().iter().step_by(step).copied().collect();
        self.compare(place, &found, values, tolerance);
    }

    fn compare(&self, name: &str, found: &[f32], expected: &[f32], tolerance: f64) {
        assert_eq!(found.len(), expected.len(), "{}: size of {name}", self.name);
        let error = relative_error(found, expected);
        println!("{}: {name}: relative error {error:.2e}", self.name);
        assert!(
            error <= tolerance,
            "{}: {name}: relative error {error:.2e}, allowed {tolerance:.0e}",
            self.name
        );
    }

    /// Fails unless the graph asks for exactly the reference model's parameters.
    pub fn check_parameters(&self, graph: &Graph) {
        let mut expected = self.parameters();
        let asked = graph.nodes().iter().filter_map(|node| match &node.origin {
            Origin::Parameter { name } => Some(name),
            _ => None,
        });
        let asked: HashSet<&String> = asked.collect();
        for name in asked {
            assert!(
                expected.remove(name).is_some(),
                "{}: {name} is not a parameter of the reference",
                self.name
            );
        }
        assert!(expected.is_empty(), "{}: never asked for: {:?}", self.name, expected.keys());
    }
}

/// Root mean square of the difference over that of `expected`; infinite where a number is not
/// finite.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 =
        found.iter().zip(expected).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    let error = (difference / size).sqrt();
    if error.is_finite() { error } else { f64::INFINITY }
}

/// The hashed input `name` of a graph.
pub fn hashed_input(name: &str, shape: &[usize]) -> (String, Array) {
    (name.to_string(), Array::f32(shape, hashed::tensor(&format!("input:{name}"), shape)))
}

/// A whole safetensors file as f32.
struct FileWeights(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl FileWeights {
    fn open(path: &Path) -> FileWeights {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        FileWeights(
            file.iter()
                .map(|(name, view)| {
                    (name.to_string(), (view.shape().to_vec(), floats(view.dtype(), view.data())))
                })
                .collect(),
        )
    }
}

impl ParameterSource for FileWeights {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.0
            .get(name)
            .map(|(shape, _)| ParameterInfo { shape: shape.clone(), stored: StoredAs::F32 })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let (_, values) =
            self.0.get(name).ok_or_else(|| ParameterError::Missing { name: name.into() })?;
        into.copy_from_slice(&values[range]);
        Ok(())
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        other => panic!("unexpected {other:?}"),
    }
}
