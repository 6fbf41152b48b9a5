//! LoRAs and words for both text encoders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{self, Checkpoint};
use mixofshow::concept::dialects::{self, Dialect};
use mixofshow::concept::{Applied, Concept, Network};
use mixofshow::pipeline::Request;
use mixofshow::unwatched;

use super::model::{CASES, at, of_values, pipeline, root, shape, view};

/// Writes a LoRA in a dialect.
pub fn lora(folder: &Path, dialect: &str) -> PathBuf {
    let tensors = CASES["lora"][dialect].as_object().unwrap().iter().map(|(name, value)| {
        let view = match value.as_f64() {
            Some(alpha) => of_values(&[], &[alpha as f32]),
            None => view("lora", name, &shape(value)),
        };
        (name.clone(), view)
    });
    let path = folder.join(format!("{dialect}.safetensors"));
    checkpoint::write(&path, &tensors.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    path
}

/// Writes an embedding of two vectors, whose word is called like the file.
pub fn words(folder: &Path) -> PathBuf {
    let tensors = CASES["words"].as_object().unwrap().iter();
    let tensors: Vec<_> =
        tensors.map(|(name, value)| (name.clone(), view("words", name, &shape(value)))).collect();
    let path = folder.join("<ink>.safetensors");
    checkpoint::write(&path, &tensors, &BTreeMap::new()).unwrap();
    path
}

fn read(path: &Path) -> (Concept, Dialect) {
    let (concept, _, dialect) = dialects::read_file(path).unwrap_or_else(|e| panic!("{e}"));
    (concept, dialect)
}

#[test]
fn dialects_of_xl_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    for (dialect, expected) in [("kohya", Dialect::Kohya), ("peft", Dialect::Peft)] {
        let (concept, found) = read(&lora(folder.path(), dialect));
        assert_eq!(found, expected);
        for network in Network::ALL {
            assert!(concept.updates.of(network).layers.len() >= 15, "{network}");
        }
        assert!(concept.is_xl() && concept.is_of_two_encoders());
        for dialect in Dialect::WRITTEN {
            let path = folder.path().join("again.safetensors");
            dialects::write(&concept, dialect, false, &path).unwrap();
            let (again, found) = read(&path);
            assert_eq!(found, dialect);
            for (network, set) in concept.updates.iter() {
                let other = again.updates.of(network);
                let names = |set: &mixofshow::concept::UpdateSet| {
                    set.layers.keys().cloned().collect::<Vec<_>>()
                };
                assert_eq!(names(set), names(other), "{dialect}: {network}");
                let (a, b) = (first(set), first(other));
                let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(worst < 1e-6, "{dialect}: {network}: {worst}");
            }
        }
    }
    let names = |path: &Path| -> Vec<String> {
        checkpoint::TensorFile::open(path).unwrap().names().map(str::to_string).collect()
    };
    let path = folder.path().join("kohya-again.safetensors");
    let (concept, _) = read(&lora(folder.path(), "kohya"));
    dialects::write(&concept, Dialect::Kohya, false, &path).unwrap();
    for prefix in ["lora_te1_text_model_", "lora_te2_text_model_", "lora_unet_down_blocks_1_"] {
        assert!(names(&path).iter().any(|name| name.starts_with(prefix)), "{prefix}");
    }
    assert!(!names(&path).iter().any(|name| name.starts_with("lora_te_")));
}

/// The whole change of the first layer.
fn first(set: &mixofshow::concept::UpdateSet) -> Vec<f32> {
    let (_, update) = set.layers.first_key_value().unwrap();
    let shape = update.weight_shape();
    let mut values = vec![0.0; shape.iter().product()];
    let piece = mixofshow::concept::Piece { shape: &shape, range: 0..values.len() };
    update.add_to(set.scale, &piece, &[], &mut values);
    values
}

#[test]
fn embeddings_of_two_encoders_are_words_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let (concept, dialect) = read(&words(folder.path()));
    assert_eq!(dialect, Dialect::TextualInversion);
    let texts: Vec<&str> = concept.words.iter().map(|word| &*word.text).collect();
    assert_eq!(texts, ["<ink>", "<ink>_1"]);
    let width = |network| concept.words[1].rows(network).shape.channels();
    assert_eq!([width(Network::TextEncoder), width(Network::TextEncoder2)], [32, 48]);
    // Written beside a LoRA, and within one, and read again.
    let (mut whole, _) = read(&lora(folder.path(), "peft"));
    whole.words.clone_from(&concept.words);
    let path = folder.path().join("whole.safetensors");
    let written = dialects::write(&whole, Dialect::Kohya, false, &path).unwrap();
    assert_eq!(written.files.len(), 2);
    let (beside, _) = read(&written.files[1]);
    assert_eq!(beside.words[0].rows, concept.words[0].rows);
    dialects::write(&whole, Dialect::Kohya, true, &path).unwrap();
    assert_eq!(read(&path).0.words, concept.words);
    let own = folder.path().join("own.safetensors");
    dialects::write(&whole, Dialect::Mos, false, &own).unwrap();
    assert_eq!(read(&own).0.words, concept.words);
    let error = dialects::write(&whole, Dialect::MixOfShow, false, &path).unwrap_err().to_string();
    assert!(error.contains("second text encoder"), "{error}");
}

fn refusal(pipeline: &mut mixofshow::pipeline::Pipeline, concept: &Concept) -> String {
    let request = Request {
        concepts: vec![Applied::new(concept.clone(), 1.0).unwrap()],
        steps: 1,
        ..Request::default()
    };
    pipeline.generate(&request, &mut unwatched).map(drop).unwrap_err().to_string()
}

#[test]
fn concepts_of_another_kind_of_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let of_one = root().join("tests/fixtures/concepts");
    for (file, made_for) in [("kohya.safetensors", "width 8"), ("inversion.bin", "1.x or 2.x")] {
        let told = refusal(&mut pipeline(), &read(&of_one.join(file)).0);
        assert!(told.contains(made_for) && told.contains("Stable Diffusion XL"), "{told}");
    }
    let mut shipped = super::model::load(&root().join("models/tiny"));
    for path in [lora(folder.path(), "peft"), words(folder.path())] {
        let told = refusal(&mut shipped, &read(&path).0);
        assert!(told.contains("was made for") && told.contains("Stable Diffusion XL"), "{told}");
    }
}

#[test]
fn a_model_is_known_by_all_of_its_weights() {
    let model = Checkpoint::open(at()).unwrap();
    let networks: Vec<Network> = model.text_encoders().map(|(network, _)| network).collect();
    assert_eq!(networks, [Network::TextEncoder, Network::TextEncoder2]);
    let mut other = Checkpoint::open(at()).unwrap();
    if let Some(second) = &mut other.second {
        second.component = other.text_encoder.clone();
    }
    assert_ne!(model.base_hash(), other.base_hash());
    assert_ne!(model.hash(), other.hash());
}
