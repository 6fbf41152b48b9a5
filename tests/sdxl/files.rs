//! One model in every form that it comes in.

use std::path::Path;

use mixofshow::checkpoint::inspect::{What, inspect};
use mixofshow::checkpoint::{
    Checkpoint, Component, DType, Kind, ModelFormat, Network, TokenizerFiles, export,
};
use mixofshow::pipeline::Request;
use mixofshow::unwatched;

use super::model::{at, load, pipeline, single};

fn request() -> Request {
    let prompt = "a red cat".to_string();
    Request { prompt, width: Some(64), height: Some(64), steps: 2, seed: 3, ..Request::default() }
}

fn same(a: &Component, b: &Component) {
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    assert_eq!(a.hash(), b.hash());
}

#[test]
fn a_single_file_is_the_same_model() {
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join("xl.safetensors");
    single(&path, false);
    let (folder, file) = (Checkpoint::open(at()).unwrap(), Checkpoint::open(&path).unwrap());
    assert_eq!(file.kind, Kind::SingleFile);
    for network in Network::ALL {
        same(folder.network(network).unwrap(), file.network(network).unwrap());
    }
    assert_eq!(folder.base_hash(), file.base_hash());
    let second = file.second.as_ref().unwrap();
    assert!(second.zeros_for_empty);
    // CLIP's own vocabulary, each encoder with its own padding.
    let pad = |files: &TokenizerFiles| match files {
        TokenizerFiles::Standard { pad } => *pad,
        other => panic!("{other:?}"),
    };
    assert_eq!((pad(&file.tokenizer), pad(&second.tokenizer)), ("<|endoftext|>", "!"));
    let report = inspect(&path).unwrap();
    assert_eq!(report.what, What::SingleFileSdxl);
    assert!(report.used.contains("--model"), "{}", report.used);
    let names: Vec<&str> = report.components.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["text_encoder", "text_encoder_2", "unet", "vae"]);
    // What no weight says is inferred: with the vocabulary, the same pictures.
    single(&path, true);
    let [a, b] = [&mut *pipeline(), &mut load(&path)].map(|pipeline| {
        pipeline.generate(&request(), &mut unwatched).unwrap_or_else(|e| panic!("{e}")).latents
    });
    assert_eq!(a, b);
}

#[test]
fn what_is_written_as_one_file_is_read_again() {
    let made = tempfile::tempdir().unwrap();
    let model = Checkpoint::open(at()).unwrap();
    let exported = |name: &str, dtype, format| {
        let path = made.path().join(name);
        export(&model, dtype, format, &path, &mut unwatched).unwrap();
        path
    };
    let path = exported("f16.safetensors", DType::F16, ModelFormat::Safetensors);
    let names = |path: &Path| -> Vec<String> {
        let file = mixofshow::checkpoint::TensorFile::open_any(path).unwrap();
        file.names().map(str::to_string).collect()
    };
    let by_diffusers = made.path().join("ldm.safetensors");
    single(&by_diffusers, false);
    assert_eq!(names(&path), names(&by_diffusers), "the names that other programs have");
    let again = Checkpoint::open(&path).unwrap();
    assert_eq!(again.base_hash(), model.base_hash(), "in half precision");
    let [a, b] = [&mut *pipeline(), &mut load(&path)].map(|pipeline| {
        pipeline.generate(&request(), &mut unwatched).unwrap_or_else(|e| panic!("{e}")).pictures
    });
    assert!(mixofshow::picture::psnr(&a[0], &b[0]).unwrap() > 30.0);
    let path = exported("q8.gguf", DType::Q8_0, ModelFormat::Gguf);
    assert_eq!(names(&path), names(&by_diffusers));
    load(&path);
}

#[test]
fn refiners_are_refused_by_name() {
    let made = tempfile::tempdir().unwrap();
    super::model::folder(made.path(), false);
    std::fs::remove_dir_all(made.path().join("text_encoder")).unwrap();
    let error = Checkpoint::open(made.path()).unwrap_err().to_string();
    assert!(error.contains("refiner"), "{error}");
}
