//! Towers that are opened by their paths, in each layout, against transformers, timm and open_clip:
//! from the files of pictures to embeddings and scores.

use std::path::Path;

use mixofshow::checkpoint::{DType, TensorView, Tower, TowerKind, write};
use mixofshow::metrics::{
    Embedding, Error, Eye, ImageAlignment, Metric, Sample, TextAlignment, Towers, VisionTower,
};
use mixofshow::picture::Picture;

use super::engine;
use super::hashed;
use super::reference::{Case, relative_error, root};

/// The case's file, as its authors lay it out: a folder with a configuration, or a file alone.
fn files(case: &Case, folder: &Path) -> std::path::PathBuf {
    let path = folder.join("model.safetensors");
    let values: Vec<(String, Vec<usize>, Vec<u8>)> = case
        .parameters()
        .into_iter()
        .map(|(name, shape)| {
            let values = hashed::tensor(&name, &shape);
            (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let tensors: Vec<(String, TensorView)> = values
        .iter()
        .map(|(name, shape, bytes)| {
            (name.clone(), TensorView::new(DType::F32, shape.clone(), bytes.as_slice()).unwrap())
        })
        .collect();
    write(&path, &tensors, &Default::default()).unwrap();
    if case.config().as_object().is_some_and(|config| !config.is_empty()) {
        std::fs::write(folder.join("config.json"), case.config().to_string()).unwrap();
        return folder.to_path_buf();
    }
    path
}

fn pictures(case: &Case) -> Vec<Picture> {
    let names = case.json["pictures"].as_array().unwrap();
    names.iter().map(|name| Picture::open(root().join(name.as_str().unwrap())).unwrap()).collect()
}

fn texts(case: &Case) -> Vec<String> {
    let texts = case.json["texts"].as_array().unwrap();
    texts.iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

/// Embeddings have the length 1; so have the reference's rows here.
fn check(case: &Case, name: &str, found: &[Embedding]) {
    let (shape, values) = case.expected(name);
    let expected: Vec<f32> = values
        .chunks_exact(shape[1])
        .flat_map(|row| Embedding::new(row.to_vec()).values().to_vec())
        .collect();
    let found: Vec<f32> = found.iter().flat_map(|e| e.values().to_vec()).collect();
    assert_eq!(found.len(), expected.len(), "{}: {name}", case.name);
    let error = relative_error(&found, &expected);
    println!("{}: {name}: relative error {error:.2e}", case.name);
    assert!(error <= 1e-4, "{}: {name}: relative error {error:.2e}", case.name);
}

#[test]
fn towers_of_every_layout_see_as_their_authors() {
    for (name, kind) in [
        ("vit", TowerKind::Dino),
        ("dinov2", TowerKind::Dino),
        ("registers", TowerKind::Dino),
        ("dino_timm", TowerKind::Dino),
        ("dinov2_timm", TowerKind::Dino),
        ("csd", TowerKind::Style),
    ] {
        let case = Case::open(&format!("tower_{name}"));
        let folder = tempfile::tempdir().unwrap();
        let tower = Tower::open(&files(&case, folder.path())).unwrap();
        assert_eq!(tower.kind, kind, "{name}");
        let eye = VisionTower::load(&engine::device(false), &tower, &[kind]).unwrap();
        let seen: Vec<Embedding> = pictures(&case).iter().map(|p| eye.see(p).unwrap()).collect();
        check(&case, "pictures", &seen);
    }
}

#[test]
fn clip_of_every_layout_sees_reads_and_scores_as_its_authors() {
    for (name, open_clip) in [("clip_openai", false), ("clip_open_clip", true), ("clip_hf", false)]
    {
        let case = Case::open(&format!("tower_{name}"));
        let folder = tempfile::tempdir().unwrap();
        if open_clip {
            let config = r#"{"model_cfg": {"embed_dim": 24, "vision_cfg": {"width": 64}, "text_cfg": {"heads": 1}}}"#;
            std::fs::write(folder.path().join("open_clip_config.json"), config).unwrap();
        }
        let tower = Tower::open(&files(&case, folder.path())).unwrap();
        assert_eq!(tower.notes.is_empty(), name != "clip_openai", "{:?}", tower.notes);
        let towers = Towers::open(&engine::device(false), &tower).unwrap();
        let see = |picture: &Picture| towers.picture(picture).unwrap();
        let seen: Vec<Embedding> = pictures(&case).iter().map(see).collect();
        let read: Vec<Embedding> =
            texts(&case).iter().map(|text| towers.text(text).unwrap()).collect();
        check(&case, "pictures", &seen);
        check(&case, "texts", &read);
        let (_, text_scores) = case.expected("text_scores");
        let (_, image_scores) = case.expected("image_scores");
        for (i, seen_one) in seen.iter().enumerate() {
            let one = std::slice::from_ref(seen_one);
            let sample =
                Sample { seen: one, texts: &read[..1], trained_on: &seen, ..Sample::default() };
            let scores = [TextAlignment.score(&sample), ImageAlignment.score(&sample)];
            for (score, expected) in scores.into_iter().zip([text_scores[i], image_scores[i]]) {
                let difference = (score.unwrap() - f64::from(expected)).abs();
                assert!(difference < 1e-3, "{name}: {score:?}, expected {expected}");
            }
        }
    }
}

#[test]
fn pictures_are_resized_as_pillow_does_it() {
    let case = Case::open("tower_resized");
    for sizes in case.json["sizes"].as_array().unwrap() {
        let sizes: [u32; 4] = serde_json::from_value(sizes.clone()).unwrap();
        let [w, h, to_w, to_h] = sizes;
        let name = format!("{w}x{h}to{to_w}x{to_h}");
        let noise = hashed::tensor(&format!("input:{name}"), &[h as usize, w as usize, 3]);
        let rgb = noise.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
        let resized = Picture::new(w, h, rgb).unwrap().resized_bicubic(to_w, to_h).unwrap();
        let found: Vec<f32> = resized.rgb().iter().map(|v| f32::from(*v)).collect();
        assert_eq!(&found, &case.expected(&name).1, "{name}");
    }
}

#[test]
fn other_towers_are_refused_by_name() {
    let gpu = engine::device(false);
    let folder = tempfile::tempdir().unwrap();
    let tower = Tower::open(&files(&Case::open("tower_vit"), folder.path())).unwrap();
    let refused = VisionTower::load(&gpu, &tower, &[TowerKind::Style]).err().unwrap();
    assert!(matches!(refused, Error::OtherTower { .. }));
    let said = refused.to_string();
    assert!(said.contains("DINO") && said.contains("CSD"), "{said}");
    assert!(Towers::open(&gpu, &tower).is_err());
    let said = Tower::open(&root().join("models/tiny/unet")).unwrap_err().to_string();
    assert!(said.contains("expected CLIP") && said.contains("DINO"), "{said}");
    let said = Tower::open(&folder.path().join("nothing")).unwrap_err().to_string();
    assert!(said.contains("nothing"), "{said}");
}
