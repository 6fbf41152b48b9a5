//! The same cases on a device.

use super::autoencoder::{AUTOENCODERS, check_vae};
use super::engine::Engine;
use super::low_rank::check_low_rank;
use super::towers::{TEXT_TOWERS, VISION_TOWERS, check_text, check_vision};
use super::unet::{UNETS, check_controls, check_layer_wise, check_unet};

#[test]
fn unets_on_a_device() {
    for engine in Engine::DEVICES {
        UNETS.iter().for_each(|name| check_unet(name, engine));
    }
}

#[test]
fn unets_with_additions_on_a_device() {
    let [engine, ..] = Engine::DEVICES;
    check_controls(engine);
    check_layer_wise(engine);
    check_low_rank(engine);
}

#[test]
fn autoencoders_on_a_device() {
    for engine in Engine::DEVICES {
        AUTOENCODERS.iter().for_each(|name| check_vae(name, engine));
    }
}

#[test]
fn towers_on_a_device() {
    for engine in Engine::DEVICES {
        TEXT_TOWERS.iter().for_each(|name| check_text(name, engine));
        VISION_TOWERS.iter().for_each(|name| check_vision(name, engine));
    }
}
