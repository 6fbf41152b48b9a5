//! Several LoRAs, and several regions, in one picture.

use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Applied, Concept, Lora, Network, UpdateSet};
use mixofshow::graph::Array;
use mixofshow::picture::psnr;
use mixofshow::pipeline::{Compose, Place, Request};
use mixofshow::region::{Area, Layout, Region};
use mixofshow::unwatched;

use super::{MODEL, generate, pipeline, root, short};

/// LoRAs of the UNet alone, without words: of queries and of keys, `seed`'s numbers.
fn lora(name: &str, seed: usize) -> Applied {
    let unet = Checkpoint::open(&root().join(MODEL)).unwrap().unet;
    let wanted = [".attn1.to_q.weight", ".attn2.to_k.weight", ".attn2.to_out.0.weight"];
    let mut layers = Vec::new();
    for weight in unet.names().filter(|name| wanted.iter().any(|end| name.ends_with(end))) {
        let shape = unet.shape(weight).unwrap();
        let (out, into, rank) = (shape[0], shape[1], 2);
        let value =
            |i: usize| (((i * 7919 + seed * 104_729 + into) % 1009) as f32 / 504.5 - 1.0) * 0.4;
        let lora = Lora {
            down: Array::f32([rank, into], (0..rank * into).map(value).collect()),
            up: Array::f32([out, rank], (0..out * rank).map(|i| value(i + 31)).collect()),
        };
        layers.push((weight.strip_suffix(".weight").unwrap().to_string(), lora.into()));
    }
    let updates = [(Network::UNet, UpdateSet::new(layers))].into();
    Applied::new(Concept { name: name.into(), updates, ..Concept::default() }, 1.0).unwrap()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

/// One step of ddim is linear in what is predicted: the mean of the predictions gives the mean of
/// what each LoRA alone gives.
#[test]
fn a_composite_step_is_the_mean_of_the_loras_own() {
    let loras = [lora("one", 1), lora("two", 2), lora("three", 3)];
    let of = |concepts: &[Applied], compose, steps, guidance_rescale| {
        let request = Request {
            sampler: Some("ddim".parse().unwrap()),
            concepts: concepts.to_vec(),
            compose,
            steps,
            guidance_rescale,
            guidance: 4.0,
            ..short("a red cat", 5)
        };
        generate(&request).latents.values().to_vec()
    };
    let alone =
        loras.each_ref().map(|one| of(std::slice::from_ref(one), Compose::Together, 1, 0.0));
    let mean: Vec<f32> = (0..alone[0].len())
        .map(|i| alone.iter().map(|latents| latents[i]).sum::<f32>() / 3.0)
        .collect();
    let found = of(&loras, Compose::Composite, 1, 0.0);
    assert!(farthest(&found, &mean) < 2e-3, "{}", farthest(&found, &mean));
    let together = of(&loras, Compose::Together, 1, 0.0);
    assert!(farthest(&found, &together) > 0.02, "{}", farthest(&found, &together));
    // With several steps, and with contrast brought back, all of it is of one guided mean.
    let more = of(&loras, Compose::Composite, 3, 0.5);
    assert!(more.iter().all(|v| v.is_finite()) && farthest(&more, &found) > 0.01);
}

/// Taking turns is what regions do that hold one after another, each with its LoRA.
#[test]
fn loras_take_turns() {
    let (one, two) = (lora("one", 1), lora("two", 2));
    let both = vec![one.clone(), two.clone()];
    let request = |compose, concepts: Vec<Applied>| Request {
        concepts,
        compose,
        sampler: Some("ddim".parse().unwrap()),
        steps: 4,
        ..short("a red cat", 6)
    };
    let turns = generate(&request(Compose::Switch(2), both.clone())).latents;
    let region = |name: &str, start: f64| Region {
        prompt: "a red cat".into(),
        start,
        end: start + 0.5,
        concepts: [(name.to_string(), 1.0)].into(),
        ..Region::default()
    };
    let regions =
        Layout { regions: vec![region("one", 0.0), region("two", 0.5)], ..Layout::default() };
    let expected =
        generate(&Request { regions, ..request(Compose::Together, both.clone()) }).latents;
    let error = farthest(turns.values(), expected.values());
    assert!(error < 5e-3, "{error}");
    // In another order they take other turns; so long ones are the first one's alone.
    let other = generate(&request(Compose::Switch(2), vec![two, one.clone()])).latents;
    assert!(farthest(turns.values(), other.values()) > 0.02);
    let long = generate(&request(Compose::Switch(9), both.clone())).latents;
    let alone = generate(&request(Compose::Together, vec![one.clone()])).latents;
    let error = farthest(long.values(), alone.values());
    assert!(error < 5e-3, "{error}");
    // A picture of a batch is the same alone.
    let batch = generate(&Request { batch: 2, ..request(Compose::Composite, both.clone()) });
    let second = generate(&Request { seed: 7, ..request(Compose::Composite, both.clone()) });
    assert_eq!(batch.pictures[1], second.pictures[0]);
    // One alone has nobody to take turns with, and regions place LoRAs themselves.
    let refused =
        |request: Request| pipeline().generate(&request, &mut unwatched).unwrap_err().to_string();
    let told = refused(request(Compose::Composite, vec![one]));
    assert!(told.contains("two or more LoRAs"), "{told}");
    let region = Layout { regions: vec![Region::default()], ..Layout::default() };
    let told = refused(Request { regions: region, ..request(Compose::Switch(1), both.clone()) });
    assert!(told.contains("regions"), "{told}");
    let told = refused(Request { cache: 2, ..request(Compose::Switch(1), both) });
    assert!(told.contains("cached"), "{told}");
}

#[test]
fn firm_placing_moves_each_picture_by_itself() {
    let side = |name: &str, left: f64| Region {
        prompt: name.into(),
        area: Area::Box([left, 0.0, left + 0.5, 1.0]),
        ..Region::default()
    };
    let regions = Layout {
        regions: vec![side("a red cat", 0.0), side("a blue dog", 0.5)],
        ..Layout::default()
    };
    let request = |place| Request { regions: regions.clone(), place, ..short("a photo", 8) };
    let free = generate(&request(Place::Free)).latents;
    let firm = generate(&request(Place::Firm(1.0)));
    assert!(farthest(free.values(), firm.latents.values()) > 1e-3);
    assert_eq!(firm.pictures, generate(&request(Place::Firm(1.0))).pictures);
    // Hardly any strength is none.
    let hardly = generate(&request(Place::Firm(1e-6))).latents;
    assert!(farthest(free.values(), hardly.values()) < 1e-2);
    let batch = generate(&Request { batch: 2, seed: 7, ..request(Place::Firm(1.0)) });
    assert_eq!(batch.pictures[1], firm.pictures[0]);
    // Where the host takes the steps, too.
    let on_host = Request { guidance_rescale: 1e-30, ..request(Place::Firm(1.0)) };
    let on_host = generate(&on_host);
    assert!(psnr(&on_host.pictures[0], &firm.pictures[0]).unwrap() > 45.0);
    // What it takes is told.
    let asked = request(Place::Firm(1.0));
    let mut pipeline = pipeline();
    let costs = pipeline.prepare(&asked).unwrap().costs();
    assert!(costs.iter().any(|cost| cost.contains("firm placing: 2 of 3 steps")), "{costs:?}");
    let memory = |place| pipeline.prepare(&request(place)).unwrap().memory().sampling;
    assert!(memory(Place::Firm(1.0)) > memory(Place::Free));
    let told = |request: &Request| pipeline.prepare(request).err().unwrap().to_string();
    let told_plain = told(&Request { regions: Layout::default(), ..request(Place::Firm(1.0)) });
    assert!(told_plain.contains("regions"), "{told_plain}");
    let isolated = Layout { isolate: true, ..regions.clone() };
    let told = told(&Request { regions: isolated, ..request(Place::Firm(1.0)) });
    assert!(told.contains("isolated"), "{told}");
    drop(pipeline.generate(&short("a tree", 1), &mut unwatched));
}
