//! The autoencoder, both ways.

use std::path::Path;

use mixofshow::graph::{Array, Graph};
use mixofshow::models::config::VaeConfig;
use mixofshow::models::nn::Layers;
use mixofshow::models::vae;

use super::engine::Engine;
use super::reference::{Case, hashed_input};

pub const AUTOENCODERS: [&str; 4] = ["vae_sd1", "vae_odd", "vae_plain_middle", "tiny_vae"];

pub fn check_vae(name: &str, engine: Engine) {
    let case = Case::open(name);
    let config = VaeConfig::from_json(case.config(), Path::new(name)).unwrap();
    let (batch, height, width, factor) =
        (case.input("batch"), case.input("height"), case.input("width"), config.downscale());
    let pixel_shape = [batch, height, width, config.in_channels];
    let latent_shape = [batch, height / factor, width / factor, config.latent_channels];
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", pixel_shape);
    let latents = graph.input("latents", latent_shape);
    let mut layers = Layers::new(&mut graph);
    let moments = vae::encode(&mut layers, &config, pixels).unwrap();
    let decoded = vae::decode(&mut layers, &config, latents).unwrap();
    case.check_parameters(&graph);

    let inputs = [hashed_input("pixels", &pixel_shape), hashed_input("latents", &latent_shape)];
    let asked = [moments.mean, moments.log_variance, decoded];
    let mut found = engine.evaluate(&graph, &asked, inputs, &case.weights());
    case.check("mean", &found[0], engine.tolerance());
    // The reference limits it.
    let limited = found[1].values().iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    found[1] = Array::f32(found[1].shape.clone(), limited);
    case.check("logvar", &found[1], engine.tolerance());
    case.check("pixels", &found[2], engine.tolerance());
}

#[test]
fn autoencoders() {
    for name in AUTOENCODERS {
        check_vae(name, Engine::Plain);
    }
}

#[test]
fn autoencoder_refuses_a_picture_that_does_not_divide() {
    let mut graph = Graph::new();
    let pixels = graph.input("pixels", [1, 28, 42, 3]);
    let case = Case::open("vae_sd1");
    let config = VaeConfig::from_json(case.config(), Path::new("config.json")).unwrap();
    let error = vae::encode(&mut Layers::new(&mut graph), &config, pixels)
        .err()
        .map(|e| e.to_string())
        .unwrap();
    assert!(error.contains("28x42") && error.contains("8x8"), "{error}");
}
