//! The same cases on a device: all of them in both precisions where networks run, and the first of
//! each kind on the adapter that is there.

use super::autoencoder::{AUTOENCODERS, check_vae};
use super::engine::Engine;
use super::low_rank::{UPDATED_UNETS, check_low_rank, check_updated_text, check_updated_unet};
use super::towers::{TEXT_TOWERS, VISION_TOWERS, check_text, check_vision};
use super::unet::{UNETS, check_controls, check_layer_wise, check_unet};

fn each(names: &[&str], check: fn(&str, Engine)) {
    for name in names {
        check(name, Engine::F32);
        check(name, Engine::F16);
    }
    check(names[0], Engine::ADAPTER);
}

#[test]
fn unets_on_a_device() {
    each(&UNETS, check_unet);
}

#[test]
fn unets_with_additions_on_a_device() {
    check_controls(Engine::F32);
    check_layer_wise(Engine::F32);
}

#[test]
fn low_rank_updates_on_a_device() {
    check_low_rank(Engine::F32);
    for name in UPDATED_UNETS {
        check_updated_unet(name, Engine::F32);
    }
    for engine in [Engine::F32, Engine::ADAPTER] {
        check_updated_text(engine);
    }
}

#[test]
fn autoencoders_on_a_device() {
    each(&AUTOENCODERS, check_vae);
}

#[test]
fn towers_on_a_device() {
    each(&TEXT_TOWERS, check_text);
    each(&VISION_TOWERS, check_vision);
}
