//! The models against diffusers' and transformers' outputs, by plain-Rust evaluation and on a
//! device.

mod autoencoder;
mod concepts;
mod controls;
mod device;
#[path = "../common/engine.rs"]
mod engine;
#[path = "../common/hashed.rs"]
mod hashed;
mod judges;
mod kinds;
mod low_rank;
#[path = "../common/reference.rs"]
mod reference;
mod small;
mod towers;
mod unet;

/// The fixtures of the model that ships belong to the weights that ship.
#[test]
fn fixtures_of_the_model_that_ships_are_fresh() {
    use sha2::{Digest, Sha256};
    for name in ["tiny_unet", "tiny_text", "tiny_vae"] {
        let case = reference::Case::open(name);
        let config = case.config();
        let path = reference::root()
            .join(config["folder"].as_str().unwrap())
            .join(config["weights"].as_str().unwrap());
        let digest: String = Sha256::digest(std::fs::read(&path).unwrap())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let hint = "run `python tools/reference/models.py tiny`";
        assert_eq!(
            digest,
            config["sha256"].as_str().unwrap(),
            "{} has changed since {name} was written: {hint}",
            path.display()
        );
    }
}
