//! Changes that are no LoRA against the weights that LyCORIS' and PEFT's own modules compute with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mixofshow::checkpoint::{Checkpoint, TensorFile};
use mixofshow::concept::dialects::{self, Dialect};
use mixofshow::concept::{Applied, Concept, Network, Update};
use mixofshow::graph::ParameterSource;
use mixofshow::pipeline::{ComponentSource, Overlay};

use super::reference::root;

const FILES: [&str; 11] = [
    "loha.safetensors",
    "lokr.safetensors",
    "dora.safetensors",
    "locon.safetensors",
    "full.safetensors",
    "ia3.safetensors",
    "peft-loha",
    "peft-loha-tucker",
    "peft-lokr",
    "peft-ia3",
    "peft-dora",
];

fn folder() -> PathBuf {
    root().join("tests/fixtures/kinds")
}

fn source(network: Network) -> Arc<ComponentSource> {
    let model = Checkpoint::open(&root().join("tests/fixtures/checkpoint/folder")).unwrap();
    Arc::new(ComponentSource(match network {
        Network::UNet => model.unet,
        _ => model.text_encoder,
    }))
}

fn read(file: &str) -> Concept {
    dialects::read(&folder().join(file)).unwrap_or_else(|e| panic!("{e}")).0
}

/// The parameters that a concept changes, whole, as they are with it.
fn changed(concept: &Concept, strength: f32, piece: usize) -> BTreeMap<String, Vec<f32>> {
    let applied = Applied::new(concept.clone(), strength).unwrap();
    let mut found = BTreeMap::new();
    for network in [Network::TextEncoder, Network::UNet] {
        let Some(set) = applied.of(network) else { continue };
        let overlay = Overlay::new(source(network));
        overlay.merge(std::slice::from_ref(set));
        for (name, _) in set.set().parameters() {
            // A bias that the model does not have is not scaled.
            let Some(info) = overlay.info(&name) else { continue };
            let mut values = vec![0.0; info.shape.iter().product()];
            let (count, mut start) = (values.len(), 0);
            while start < count {
                let end = (start + piece).min(count);
                overlay.read(&name, start..end, &mut values[start..end]).unwrap();
                start = end;
            }
            found.insert(format!("{}.{name}", network.folder()), values);
        }
    }
    found
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= 2e-6 * largest.max(1.0), "{what}: differs by {worst}, values to {largest}");
}

#[test]
fn every_kind_comes_to_the_weights_of_its_own_program() {
    let expected = TensorFile::open(&folder().join("expected.safetensors")).unwrap();
    let mut compared = 0;
    for file in FILES {
        let (concept, kind) = (read(file), file.trim_end_matches(".safetensors"));
        for strength in ["1", "0.7"] {
            let prefix = format!("{kind}/{strength}/");
            let wanted: Vec<&str> =
                expected.names().filter_map(|name| name.strip_prefix(&prefix)).collect();
            if wanted.is_empty() {
                continue;
            }
            // In pieces that end anywhere: rows and windows are cut.
            let found = changed(&concept, strength.parse().unwrap(), 53);
            let names: Vec<&str> = found.keys().map(String::as_str).collect();
            assert_eq!(names, wanted, "{file}");
            for name in wanted {
                let view = expected.tensor(&format!("{prefix}{name}")).unwrap();
                let values = view.to_f32(0..view.len());
                assert_close(&found[name], &values, &format!("{prefix}{name}"));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 99);
}

#[test]
fn files_of_every_kind_are_written_and_read_again() {
    let place = tempfile::tempdir().unwrap();
    for file in FILES {
        let concept = read(file);
        for dialect in [Dialect::Mos, Dialect::Kohya] {
            let path = place.path().join("again.safetensors");
            let written = dialects::write(&concept, dialect, false, &path);
            if dialect == Dialect::Kohya && file.contains("ia3") {
                let error = written.unwrap_err().to_string();
                assert!(error.contains("IA3") && error.contains("--rank"), "{error}");
                continue;
            }
            written.unwrap();
            let again = dialects::read(&path).unwrap().0;
            let (before, after) = (changed(&concept, 0.6, 999), changed(&again, 0.6, 999));
            assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
            for (name, values) in before {
                assert_close(&after[&name], &values, &format!("{file} as {dialect}, {name}"));
            }
        }
        let path = place.path().join("peft.safetensors");
        if concept.updates.beyond_lora().is_some() {
            let error = dialects::write(&concept, Dialect::Peft, false, &path).unwrap_err();
            assert!(error.to_string().contains("--rank"), "{error}");
        }
    }
}

/// What acts on a part of a picture does so as a LoRA.
#[test]
fn products_of_low_rank_are_the_same_as_loras() {
    let mut compared = 0;
    for file in FILES {
        let concept = read(file);
        for (network, set) in concept.updates.iter() {
            let model = source(network);
            for (layer, update) in &set.layers {
                let shape = model.info(&format!("{layer}.weight")).unwrap().shape;
                let Some(lora) = update.as_lora(&shape, 128) else { continue };
                if matches!(update, Update::Lora(_)) {
                    continue;
                }
                let lora = Update::from(lora);
                assert!(lora.fits(&shape), "{file} {layer}");
                let piece =
                    mixofshow::concept::Piece { shape: &shape, range: 0..shape.iter().product() };
                let (mut a, mut b) = (vec![0.0; piece.range.len()], vec![0.0; piece.range.len()]);
                update.add_to(0.5, &piece, &[], &mut a);
                lora.add_to(0.5, &piece, &[], &mut b);
                assert_close(&b, &a, &format!("{file} {layer}"));
                compared += 1;
            }
        }
    }
    assert!(compared >= 20, "{compared}");
}
