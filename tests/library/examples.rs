//! The programs in examples/, as they stand there, with as few steps as they take.

#![allow(dead_code, reason = "their `main` is not called")]
#![allow(clippy::duplicate_mod, reason = "two of them share a module, each as its own")]

#[path = "../../examples/generate.rs"]
mod generate;
#[path = "../../examples/own_kernel.rs"]
mod own_kernel;
#[path = "../../examples/teach_and_fuse.rs"]
mod teach_and_fuse;
#[path = "../../examples/two_regions.rs"]
mod two_regions;

use mixofshow::Picture;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::pipeline::recipe::Recipe;

use super::names;

#[test]
fn a_picture_that_tells_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cat.png");
    generate::run(&file, 2).unwrap();
    let (recipe, notes) = Recipe::read(&file).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!((recipe.request.steps, recipe.request.seed), (2, 7));
}

#[test]
fn two_regions_with_a_lora_each() {
    let folder = tempfile::tempdir().unwrap();
    two_regions::run(folder.path(), 2, 2).unwrap();
    let found = names(folder.path());
    for name in ["both.png", "layout.png", "luma.safetensors", "zorp.safetensors"] {
        assert!(found.iter().any(|other| other == name), "{name} in {found:?}");
    }
    let [both, layout] =
        ["both.png", "layout.png"].map(|name| Picture::open(folder.path().join(name)).unwrap());
    assert!(both.rgb() != layout.rgb());
}

#[test]
fn concepts_taught_and_fused() {
    let folder = tempfile::tempdir().unwrap();
    teach_and_fuse::run(folder.path(), 2, 2).unwrap();
    Picture::open(folder.path().join("both.png")).unwrap();
    assert!(Checkpoint::open(&folder.path().join("both")).unwrap().concepts.is_some());
}

#[test]
fn all_are_shown_in_the_docs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_to_string(root.join("docs/library.md")).unwrap();
    for name in names(&root.join("examples")).iter().filter(|name| name.ends_with(".rs")) {
        assert!(docs.contains(&format!("(../examples/{name})")), "{name}");
    }
}

#[test]
fn a_kernel_of_ones_own() {
    assert_eq!(own_kernel::run().unwrap()[..4], [0.0, 0.5, 1.0, 1.5]);
}
