//! Small networks beside a model: the small autoencoder, and upscalers.

use mixofshow::graph::{Array, Graph};
use mixofshow::models::nn::Layers;
use mixofshow::models::rrdbnet::{self, RrdbNetConfig};
use mixofshow::models::tiny_vae::{self, TinyVaeConfig};

use super::engine::Engine;
use super::hashed;
use super::reference::{Case, hashed_input};

#[test]
fn small_autoencoders_do_what_they_do_in_diffusers() {
    for engine in [Engine::Plain, Engine::F32] {
        let case = Case::open("tiny_autoencoder");
        let shapes = case.parameters();
        let config = TinyVaeConfig::of(&|name| shapes.get(name).cloned()).unwrap();
        assert_eq!((config.latent_channels, config.downscale()), (4, 8));
        let (height, width) = (case.input("height"), case.input("width"));
        let mut graph = Graph::new();
        let pixels = graph.input("pixels", [1, height, width, 3]);
        let latents = graph.input("latents", [1, height / 8, width / 8, 4]);
        let mut layers = Layers::new(&mut graph);
        let encoded = tiny_vae::encode(&mut layers, &config, pixels).unwrap();
        let decoded = tiny_vae::decode(&mut layers, &config, latents).unwrap();
        case.check_parameters(&graph);
        let changed = |name: &str, shape: &[usize], change: &dyn Fn(f32) -> f32| {
            let values = hashed::tensor(&format!("input:{name}"), shape);
            (name.to_string(), Array::f32(shape, values.into_iter().map(change).collect()))
        };
        let inputs = [
            changed("pixels", &[1, height, width, 3], &|v| (v + 1.0) / 2.0),
            changed("latents", &[1, height / 8, width / 8, 4], &|v| tiny_vae::squashed(3.0 * v)),
        ];
        let mut found = engine.evaluate(&graph, &[encoded, decoded], inputs, &case.weights());
        case.check("latents", &found[0], 1e-4);
        let pixels = found[1].values().iter().map(|v| 2.0 * v - 1.0).collect();
        found[1] = Array::f32(found[1].shape.clone(), pixels);
        case.check("pixels", &found[1], 1e-4);
    }
}

#[test]
fn upscalers_do_what_they_do_in_pytorch() {
    for (name, scale, side) in
        [("rrdbnet_x4", 4, 1), ("rrdbnet_x2", 2, 2), ("rrdbnet_old_x2", 2, 1)]
    {
        let case = Case::open(name);
        let shapes = case.parameters();
        let config = RrdbNetConfig::of(&|name| shapes.get(name).cloned()).unwrap();
        assert_eq!((config.scale(), config.side(), config.blocks), (scale, side, 2), "{name}");
        let (height, width) = (case.input("height"), case.input("width"));
        let (_, picture) = hashed_input("pixels", &[1, height, width, 3]);
        // Pixels that are one to the network: a colour's, row by row, then the next colour's.
        let mut values = Vec::new();
        for y in 0..height / side {
            for x in 0..width / side {
                for channel in 0..3 {
                    for inner in 0..side * side {
                        let (row, column) = (y * side + inner / side, x * side + inner % side);
                        values.push(picture.values()[(row * width + column) * 3 + channel]);
                    }
                }
            }
        }
        let shape = [1, height / side, width / side, config.in_channels];
        let mut graph = Graph::new();
        let pixels = graph.input("pixels", shape);
        let large = rrdbnet::upscale(&mut Layers::new(&mut graph), &config, pixels).unwrap();
        case.check_parameters(&graph);
        let inputs = [("pixels".to_string(), Array::f32(shape, values))];
        let found = Engine::F32.evaluate(&graph, &[large], inputs, &case.weights());
        case.check("pixels", &found[0], 1e-4);
    }
    let other = RrdbNetConfig::of(&|_| None).unwrap_err();
    assert!(other.contains("conv_first.weight"), "{other}");
}
