//! Regions, and LoRAs in them, on a UNet whose first block has no attention.

use mixofshow::concept::{Applied, dialects};
use mixofshow::graph::Array;
use mixofshow::pipeline::Request;
use mixofshow::region::{Area, Layout, Region};
use mixofshow::unwatched;

use super::concepts::lora;
use super::model::pipeline;

fn request(prompt: &str, regions: Vec<Region>) -> Request {
    Request {
        prompt: prompt.into(),
        regions: Layout { regions, ..Layout::default() },
        width: Some(64),
        height: Some(64),
        steps: 2,
        seed: 3,
        guidance: 4.0,
        ..Request::default()
    }
}

fn latents(request: &Request) -> Array {
    pipeline().generate(request, &mut unwatched).unwrap_or_else(|e| panic!("{e}")).latents
}

fn region(prompt: &str, area: Area) -> Region {
    Region { prompt: prompt.into(), area, ..Region::default() }
}

fn distance(a: &Array, b: &Array) -> f32 {
    a.values().iter().zip(b.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_region_over_everything_is_its_prompt_alone() {
    let alone = latents(&request("a red cat", Vec::new()));
    let whole = |context: &str| latents(&request(context, vec![region("a red cat", Area::Whole)]));
    assert_eq!(whole(""), alone);
    assert_eq!(whole("a red cat"), alone);
    // The prompt of the whole picture is what the summary is made of, wherever it holds.
    assert!(distance(&whole("a blue house by the sea"), &alone) > 1e-3);
}

#[test]
fn regions_hold_where_they_are() {
    let left = Area::Box([0.0, 0.0, 32.0, 64.0]);
    let right = Area::Box([32.0, 0.0, 64.0, 64.0]);
    let of = |right_prompt: &str, isolate: bool| {
        let all = vec![region("a red cat", left.clone()), region(right_prompt, right.clone())];
        let mut request = request("in the snow", all);
        request.regions.isolate = isolate;
        latents(&request)
    };
    let plain = latents(&request("in the snow", Vec::new()));
    assert!(distance(&of("a dog", false), &plain) > 1e-3);
    assert!(distance(&of("a dog", false), &of("a green bird", false)) > 1e-3);
    assert!(distance(&of("a dog", true), &of("a dog", false)) > 1e-4);
}

#[test]
fn loras_act_in_their_regions() {
    let folder = tempfile::tempdir().unwrap();
    let concept = dialects::read(&lora(folder.path(), "kohya")).unwrap().0;
    let name = concept.name.clone();
    let concepts = vec![Applied::new(concept, 1.0).unwrap()];
    let with = |regions: Vec<Region>| {
        latents(&Request { concepts: concepts.clone(), ..request("in the snow", regions) })
    };
    let strong = |factor: f32, area: Area| Region {
        concepts: [(name.clone(), factor)].into(),
        ..region("in the snow", area)
    };
    let plain = latents(&request("in the snow", Vec::new()));
    let everywhere = with(Vec::new());
    assert!(distance(&everywhere, &plain) > 1e-2);
    let left = Area::Box([0.0, 0.0, 32.0, 64.0]);
    let half = with(vec![strong(1.0, left.clone())]);
    assert!(distance(&half, &plain) > 1e-3 && distance(&half, &everywhere) > 1e-3);
    // At no strength it does nothing.
    let off = with(vec![strong(0.0, left)]);
    assert!(distance(&off, &plain) < 1e-4 * 10.0, "{}", distance(&off, &plain));
}
