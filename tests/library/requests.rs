//! Several requests that are prepared on one pipeline: what each makes doesn't depend on the
//! others.

use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Applied, Concept, Lora, Network, UpdateSet, Word};
use mixofshow::graph::Array;
use mixofshow::picture::{Picture, psnr};
use mixofshow::pipeline::{Generated, Pipeline, PreparedRequest, Request};
use mixofshow::region::{Layout, Region};
use mixofshow::unwatched;

use super::{pipeline, small};

/// Numbers about zero that look random, others for each seed.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// A concept that changes every cross-attention of the model that ships, with the word `<name>`.
fn concept(name: &str, seed: usize, rank: usize) -> Applied {
    let model = Checkpoint::shipped().unwrap();
    let of = |network: Network, ending: &str| {
        let component = match network {
            Network::UNet => &model.unet,
            _ => &model.text_encoder,
        };
        let layers = component.names().filter_map(|tensor| tensor.strip_suffix(".weight"));
        let layers = layers.filter(|layer| layer.ends_with(ending)).map(|layer| {
            let shape = component.tensor(&format!("{layer}.weight")).unwrap().shape().to_vec();
            let (down, up) = ([rank, shape[1]], [shape[0], rank]);
            let small = |values: Vec<f32>| values.iter().map(|v| v * 0.2).collect();
            let lora = Lora {
                down: Array::f32(down, small(numbers(seed, rank * shape[1]))),
                up: Array::f32(up, small(numbers(seed + 1, rank * shape[0]))),
            };
            (layer.to_string(), lora.into())
        });
        (network, UpdateSet::new(layers))
    };
    let width = model.text_encoder.config["hidden_size"].as_u64().unwrap() as usize;
    let rows = numbers(seed + 2, width).iter().map(|v| v * 0.05).collect();
    let concept = Concept {
        name: name.into(),
        words: vec![Word::new(format!("<{name}>"), Array::f32([1, width], rows))],
        updates: [of(Network::UNet, "attn2.to_v"), of(Network::TextEncoder, "self_attn.v_proj")]
            .into(),
        ..Concept::default()
    };
    Applied::new(concept, 1.0).unwrap()
}

/// A picture with `name` in one half of it.
fn placed(name: &str, left: bool, concepts: Vec<Applied>) -> Request {
    let area = if left { "0,0,.5,1" } else { ".5,0,1,1" };
    let region = Region::parse(&format!("{area}: a <{name}>")).unwrap();
    Request {
        regions: Layout { regions: vec![region], ..Layout::default() },
        concepts,
        ..small("a photo")
    }
}

fn bytes(made: Generated) -> (Array, Vec<u8>) {
    (made.latents, made.pictures[0].rgb().to_vec())
}

fn made(pipeline: &mut Pipeline, prepared: PreparedRequest) -> (Array, Vec<u8>) {
    bytes(pipeline.make(prepared, &mut unwatched).unwrap())
}

#[test]
fn prepared_requests_do_not_clash() {
    let requests = [
        // The same layers, so that both have programs of one shape.
        placed("zorp", true, vec![concept("zorp", 1, 4)]),
        placed("brix", true, vec![concept("brix", 2, 4)]),
        // Another place, another strength.
        placed("zorp", false, vec![concept("zorp", 1, 4)]),
        // Added to the weights, since it holds everywhere and is of high rank.
        Request { concepts: vec![concept("kurl", 3, 32)], ..small("a <kurl>") },
        Request { concepts: vec![concept("vesa", 4, 32)], ..small("a <vesa>") },
        small("a photo"),
    ];
    let alone: Vec<_> = requests
        .iter()
        .map(|request| bytes(pipeline().generate(request, &mut unwatched).unwrap()))
        .collect();
    for (i, a) in alone.iter().enumerate() {
        assert!(alone[..i].iter().all(|b| a.1 != b.1), "picture {i} is like another");
    }
    let mut together = pipeline();
    // Each twice, in an order in which each comes after another.
    let order = [0, 1, 3, 4, 2, 5, 4, 1, 0, 3, 5, 2];
    let prepared: Vec<_> = order.iter().map(|&i| together.prepare(&requests[i]).unwrap()).collect();
    for (i, prepared) in order.into_iter().zip(prepared) {
        assert!(made(&mut together, prepared) == alone[i], "request {i} among others");
    }
}

/// Previews of what is being sampled change nothing, and end in what the picture looks like.
#[test]
fn previews_are_like_the_picture_and_leave_it_alone() {
    let mut pipeline = pipeline();
    let request = Request { batch: 2, steps: 20, ..small("a red cat in the snow") };
    let expected = pipeline.generate(&request, &mut unwatched).unwrap();
    let (mut seen, mut made) = (Vec::new(), Vec::new());
    let shown = Request { preview: Some(1), ..request };
    let prepared = pipeline.prepare(&shown).unwrap();
    pipeline
        .make_shown::<mixofshow::pipeline::Error>(
            prepared,
            &mut unwatched,
            &mut |_, _, picture| {
                made.push(picture);
                Ok(())
            },
            &mut |preview| seen.push(preview.pictures.to_vec()),
        )
        .unwrap();
    assert!(made == expected.pictures);
    assert!(seen.len() >= 5 && seen.iter().all(|looks| looks.len() == 2));
    for (index, picture) in made.iter().enumerate() {
        let near = |looks: &Vec<Picture>| {
            let look = &looks[index];
            psnr(look, &picture.resized(look.width(), look.height()).unwrap()).unwrap()
        };
        let (first, last) = (near(&seen[0]), near(seen.last().unwrap()));
        assert!(last > first + 0.5, "picture {index}: from {first} to {last} dB");
    }
}
