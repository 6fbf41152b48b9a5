//! Whole pictures of the model that ships, against those that diffusers made of it
//! (`tools/reference/pictures_sd.py`).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use mixofshow::backend::wgpu::{MatrixUse, Options};
use mixofshow::backend::{Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::graph::Array;
use mixofshow::picture::{Mask, Picture, psnr};
use mixofshow::pipeline::{Generated, Hires, Pipeline, Request};
use mixofshow::scheduler::spacing::Schedule;
use mixofshow::unwatched;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "common/chosen.rs"]
mod chosen;
#[path = "pictures/together.rs"]
mod together;

const MODEL: &str = "models/tiny";
const WEIGHTS: [&str; 3] = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/generated").join(name)
}

/// Without cooperative matrices: they round what they multiply to f16, which 25 steps make visible
/// in a comparison as narrow as these.
fn open() -> (Device, Pipeline) {
    open_on(chosen::device(Options { matrices: MatrixUse::Off, ..Options::default() }))
}

fn open_on(device: Device) -> (Device, Pipeline) {
    let checkpoint = Checkpoint::open(&root().join(MODEL)).unwrap();
    let pipeline =
        Pipeline::load(&device, &checkpoint, Precision::AsStored).unwrap_or_else(|e| panic!("{e}"));
    (device, pipeline)
}

/// One device and one model for all tests, taken in turns.
fn pipeline() -> MutexGuard<'static, Pipeline> {
    static PIPELINE: OnceLock<Mutex<Pipeline>> = OnceLock::new();
    PIPELINE.get_or_init(|| Mutex::new(open().1)).lock().unwrap_or_else(|e| e.into_inner())
}

fn generate(request: &Request) -> Generated {
    pipeline().generate(request, &mut unwatched).unwrap_or_else(|e| panic!("{e}"))
}

fn cases() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap()
}

#[test]
fn the_reference_pictures_are_of_these_weights() {
    let mut sha = Sha256::new();
    for name in WEIGHTS {
        sha.update(std::fs::read(root().join(MODEL).join(name)).unwrap());
    }
    let found: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let hint = "run `python tools/reference/pictures_sd.py`";
    assert_eq!(
        cases()["weights"],
        found,
        "the weights in {MODEL} have changed since the reference pictures were made: {hint}"
    );
}

fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().unwrap().to_string();
    let number = |key: &str| case[key].as_u64().unwrap();
    let image = case["kind"] == "image" || case["kind"] == "inpaint";
    let strength = case["strength"].as_f64().unwrap();
    Request {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        width: Some(number("width") as usize),
        height: Some(number("height") as usize),
        steps: number("steps") as usize,
        guidance: case["guidance"].as_f64().unwrap() as f32,
        sampler: Some(text("sampler").parse().unwrap()),
        schedule: case["karras"].as_bool().unwrap().then_some(Schedule::Karras),
        guidance_rescale: case["guidance_rescale"].as_f64().unwrap() as f32,
        seed: number("seed"),
        clip_skip: number("clip_skip") as usize,
        image: image.then(|| Picture::open(fixture("original.webp")).unwrap()),
        strength,
        hires: (case["kind"] == "hires").then(|| Hires {
            scale: 1.5,
            strength,
            ..Hires::default()
        }),
        mask: (case["kind"] == "inpaint").then(|| Mask::open(fixture("mask.png")).unwrap()),
        ..Request::default()
    }
}

/// Fails unless every case whose name `wanted` accepts is what diffusers made of it.
fn check(wanted: impl Fn(&str) -> bool) {
    let cases = cases();
    let mut failures = Vec::new();
    for (name, case) in cases["cases"].as_object().unwrap().iter().filter(|(name, _)| wanted(name))
    {
        let generated = generate(&request(case));
        let expected = Picture::open(fixture(&format!("{name}.webp"))).unwrap();
        let found = &generated.pictures[0];
        let decibels = psnr(found, &expected).unwrap();
        println!("{name}: {decibels:.1} dB, {:?}", generated.stages);
        save(name, found);
        if decibels < 40.0 {
            failures.push(format!("{name}: {decibels:.1} dB"));
        }
    }
    assert!(failures.is_empty(), "below 40 dB: {failures:?}");
}

/// Keeps a picture for people to look at, where `MOS_TEST_PICTURES` names a folder.
fn save(name: &str, picture: &Picture) {
    if let Some(folder) = std::env::var_os("MOS_TEST_PICTURES") {
        picture.save(Path::new(&folder).join(format!("{name}.png")), None).unwrap();
    }
}

#[test]
fn ddim_makes_the_pictures_of_diffusers() {
    check(|name| name.starts_with("ddim-"));
}

#[test]
fn pndm_makes_the_pictures_of_diffusers() {
    check(|name| name.starts_with("pndm-"));
}

#[test]
fn euler_ancestral_makes_the_pictures_of_diffusers() {
    check(|name| name.starts_with("euler-ancestral-"));
}

#[test]
fn all_other_ways_to_a_picture_lead_where_diffusers_goes() {
    check(|name| {
        !["ddim-", "pndm-", "euler-ancestral-"].iter().any(|sampler| name.starts_with(sampler))
    });
}

/// On the adapter, with its cooperative matrices where it has them and without: their rounding
/// costs some decibels.
#[test]
fn an_adapter_makes_the_pictures_of_diffusers() {
    if chosen::processor().is_some() {
        return;
    }
    for (matrices, least) in [(MatrixUse::Off, 40.0), (MatrixUse::On, 30.0)] {
        let gpu = chosen::adapter(Options { matrices, ..Options::default() });
        if let (MatrixUse::On, Err(message)) = (matrices, gpu.matrices()) {
            println!("skipped on {}: {message}", gpu.name());
            continue;
        }
        let (_, mut pipeline) = open_on(gpu.into());
        let (name, cases) = ("ddim-1", cases());
        let generated = pipeline.generate(&request(&cases["cases"][name]), &mut unwatched).unwrap();
        let expected = Picture::open(fixture(&format!("{name}.webp"))).unwrap();
        let decibels = psnr(&generated.pictures[0], &expected).unwrap();
        assert!(decibels >= least, "{name}, {matrices:?}: {decibels:.1} dB");
    }
}

fn short(prompt: &str, seed: u64) -> Request {
    Request {
        prompt: prompt.into(),
        steps: 3,
        width: Some(64),
        height: Some(64),
        seed,
        ..Request::default()
    }
}

#[test]
fn a_picture_of_a_batch_is_the_same_alone() {
    let sampler = Some("euler-ancestral".parse().unwrap());
    let batch = generate(&Request { batch: 2, sampler, ..short("a tree", 5) });
    assert_eq!(batch.seeds, [5, 6]);
    for (seed, picture) in batch.seeds.iter().zip(&batch.pictures) {
        let alone = generate(&Request { sampler, ..short("a tree", *seed) });
        let decibels = psnr(picture, &alone.pictures[0]).unwrap();
        assert!(decibels >= 50.0, "seed {seed}: {decibels:.1} dB");
    }
    assert!(
        psnr(&batch.pictures[0], &batch.pictures[1]).unwrap() < 40.0,
        "the two must not be alike"
    );
}

/// Not all of a large batch is sampled before the first picture is there, and nothing else of it
/// changes.
#[test]
fn a_processor_samples_a_batch_in_parts() {
    let (device, mut pipeline) = open();
    if !device.is_processor() {
        return;
    }
    let sampler = Some("euler-ancestral".parse().unwrap());
    let request = Request { batch: 6, sampler, ..short("a tree", 5) };
    let sampled = std::cell::Cell::new((0, 0));
    let mut pictures = Vec::new();
    let mut before = Vec::new();
    let prepared = pipeline.prepare(&request).unwrap();
    let made = pipeline.make_each::<mixofshow::pipeline::Error>(
        prepared,
        &mut |at| {
            if at.stage == "sample" {
                sampled.set((at.done, at.of));
            }
            std::ops::ControlFlow::Continue(())
        },
        &mut |generated, number, picture| {
            assert_eq!(generated.seeds, [5, 6, 7, 8, 9, 10]);
            assert_eq!(number, pictures.len());
            before.push(sampled.get());
            pictures.push(picture);
            Ok(())
        },
    );
    let made = made.unwrap();
    let of = 6 * request.steps;
    assert_eq!(before[..4], [(4 * request.steps, of); 4]);
    assert_eq!(before[4..], [(of, of); 2]);
    assert_eq!(made.latents.shape[..], [6, 8, 8, 4]);
    for (seed, picture) in made.seeds.iter().zip(&pictures) {
        let alone = generate(&Request { sampler, ..short("a tree", *seed) });
        let decibels = psnr(picture, &alone.pictures[0]).unwrap();
        assert!(decibels >= 50.0, "seed {seed}: {decibels:.1} dB");
        // The processor adds in the same order, however many there are.
        let exactly = device.backend::<mixofshow::backend::cpu::Cpu>().is_some();
        assert!(!exactly || *picture == alone.pictures[0], "seed {seed}");
    }
}

#[test]
fn latents_go_in_and_out() {
    use mixofshow::pipeline::random::{NoiseSource, RngKind};
    let by_seed = generate(&short("a tree", 9));
    let planes = NoiseSource::new(RngKind::Torch, 9).normal(4 * 8 * 8);
    let pixels = (0..8 * 8).flat_map(|pixel| (0..4).map(move |channel| (channel, pixel)));
    let noise = Array::f32(
        [1, 8, 8, 4],
        pixels.map(|(channel, pixel)| planes[channel * 64 + pixel]).collect(),
    );
    let by_noise = generate(&Request { latents: Some(noise), ..short("a tree", 1) });
    assert!(psnr(&by_seed.pictures[0], &by_noise.pictures[0]).unwrap() > 60.0);

    assert_eq!(by_seed.latents.shape[..], [1, 8, 8, 4]);
    let decoded = pipeline().decode(&by_seed.latents, None).unwrap();
    assert!(psnr(&decoded[0], &by_seed.pictures[0]).unwrap() > 60.0);
}

#[test]
fn bands_make_the_same_picture_as_the_whole() {
    let original = Picture::open(fixture("original.webp")).unwrap();
    let mut pipeline = pipeline();
    let latents = pipeline.encode(&original, None).unwrap();
    let (whole, banded) =
        (pipeline.decode(&latents, None).unwrap(), pipeline.decode(&latents, Some(64)).unwrap());
    let decibels = psnr(&whole[0], &banded[0]).unwrap();
    assert!(decibels >= 60.0, "decoded in tiles: {decibels:.1} dB");
    let banded = pipeline.encode(&original, Some(64)).unwrap();
    let worst = latents
        .values()
        .iter()
        .zip(banded.values())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 1e-4, "encoded in tiles: off by {worst}");
}

#[test]
fn inpainting_leaves_the_rest_alone() {
    let (image, mask) = (
        Picture::open(fixture("original.webp")).unwrap(),
        Mask::open(fixture("mask.png")).unwrap(),
    );
    let request = |prompt| Request {
        width: None,
        height: None,
        image: Some(image.clone()),
        mask: Some(mask.clone()),
        ..short(prompt, 3)
    };
    let (sun, house) = (generate(&request("a sun")), generate(&request("a house")));
    assert_eq!((sun.width, sun.height), (128, 128));
    // The rectangle 10..70, 5..61 of the mask in latents of 8 pixels, by their upper left corners.
    let inside = |y: usize, x: usize| (2..=8).contains(&y) && (1..=7).contains(&x);
    let (mut kept, mut painted) = (0.0f32, 0.0f32);
    for (i, (a, b)) in sun.latents.values().iter().zip(house.latents.values()).enumerate() {
        let (y, x) = (i / 4 / 16, i / 4 % 16);
        let worst = if inside(y, x) { &mut painted } else { &mut kept };
        *worst = worst.max((a - b).abs());
    }
    assert!(kept < 1e-4, "outside the mask the two prompts differ by {kept}");
    assert!(painted > 0.1, "inside the mask the two prompts differ by {painted} only");
    let mut pipeline = pipeline();
    let latents = pipeline.encode(&image, None).unwrap();
    let same = pipeline.decode(&latents, None).unwrap();
    let lower =
        |picture: &Picture| Picture::new(128, 40, picture.rgb()[88 * 128 * 3..].to_vec()).unwrap();
    let decibels = psnr(&lower(&sun.pictures[0]), &lower(&same[0])).unwrap();
    assert!(decibels > 25.0, "far from the mask the picture is {decibels:.1} dB from what it was");
}

#[test]
fn strength_says_how_much_of_a_picture_changes() {
    let image = Picture::open(fixture("original.webp")).unwrap().resized(64, 64).unwrap();
    let of = |strength| {
        generate(&Request {
            image: Some(image.clone()),
            strength,
            steps: 6,
            ..short("a forest", 2)
        })
    };
    let (little, much) = (of(0.2), of(0.9));
    let distance = |generated: &Generated| psnr(&generated.pictures[0], &image).unwrap();
    assert!(
        distance(&little) > distance(&much) + 1.0,
        "{:.1} and {:.1} dB",
        distance(&little),
        distance(&much)
    );
}

#[test]
fn long_weighted_prompts_are_read_to_the_end() {
    let words = |last: &str| {
        format!("(a red cat:1.3) in the snow, {}{last}", "with trees and houses, ".repeat(16))
    };
    let (one, other) =
        (generate(&short(&words("[at night]"), 4)), generate(&short(&words("(at noon:1.5)"), 4)));
    // Nothing is cut; that the model never saw trees in the plural is another matter.
    assert!(one.warnings.iter().all(|w| w.contains("does not know")), "{:?}", one.warnings);
    assert!(
        psnr(&one.pictures[0], &other.pictures[0]).unwrap() < 60.0,
        "the last words had no effect"
    );
    let cut = generate(&short(&"with trees and houses, ".repeat(30), 4));
    assert!(cut.warnings.iter().any(|w| w.contains("cut")), "{:?}", cut.warnings);
}

#[test]
fn nothing_grows_from_picture_to_picture() {
    let (device, mut pipeline) = open();
    let mut used = || {
        pipeline.generate(&short("a boat", 1), &mut unwatched).unwrap_or_else(|e| panic!("{e}"));
        device.memory()
    };
    let (first, second, third) = (used(), used(), used());
    assert_eq!(first[0], second[0], "device memory in use grew");
    assert_eq!(second, third, "the peak of device memory grew");
}

/// On an adapter held to WebGPU's limits: what fits the processor's memory hangs on the machine.
#[test]
fn what_cannot_fit_is_known_beforehand() {
    let huge = Request { width: Some(16384), height: Some(16384), ..short("", 0) };
    let floor = Options { floor: true, ..Options::default() };
    let (_, mut pipeline) = open_on(chosen::adapter(floor).into());
    let mut started = false;
    let made = pipeline.generate(&huge, &mut |at| {
        started = true;
        unwatched(at)
    });
    let error = made.map(|_| ()).unwrap_err().to_string();
    assert!(!started && error.contains("the largest square that fits is"), "{error}");
    // A batch is sampled in parts instead.
    let of = |batch| {
        pipeline
            .prepare(&Request { batch, width: Some(512), height: Some(512), ..short("", 0) })
            .unwrap()
            .memory()
    };
    let (one, many) = (of(1), of(512));
    assert_eq!(one.weights, many.weights);
    assert!(
        many.sampling >= one.sampling && many.sampling < 512 * one.sampling,
        "{one:?} and {many:?}"
    );
}

#[test]
fn wrong_options_are_named() {
    let image = Picture::filled(64, 64, [100; 3]).unwrap();
    let mask = Mask::new(8, 8, vec![1.0; 64]).unwrap();
    let wrong = [
        (
            Request { width: Some(100), ..short("", 0) },
            "width is 100: expected a multiple of 8, such as 96 or 104",
        ),
        (Request { height: Some(0), ..short("", 0) }, "height is 0"),
        (Request { batch: 0, ..short("", 0) }, "batch is 0"),
        (Request { guidance: f32::NAN, ..short("", 0) }, "guidance is NaN"),
        (Request { clip_skip: 99, ..short("", 0) }, "clip skip is 99"),
        (Request { steps: 0, ..short("", 0) }, "0 sampling steps"),
        (Request { mask: Some(mask), ..short("", 0) }, "mask is given without a picture"),
        (Request { image: Some(image), strength: 0.0, ..short("", 0) }, "strength 0"),
        (
            Request { latents: Some(Array::f32([1, 4, 4, 4], vec![0.0; 64])), ..short("", 0) },
            "latents is [1, 4, 4, 4]: expected [1, 4, 8, 8] (batch, channels",
        ),
        (Request { tile: Some(3), ..short("", 0) }, "tile is 3: expected 64 to 16384 pixels"),
        (
            Request { width: Some(1 << 30), ..short("", 0) },
            "width is 1073741824: expected a multiple of 8 from 8 to 16384",
        ),
        (Request { prompt: "(cat:99)".into(), ..short("", 0) }, "weight 99"),
    ];
    for (request, expected) in wrong {
        let error =
            pipeline().generate(&request, &mut unwatched).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let latents = Array::f32([1, 8, 8, 3], vec![0.0; 192]);
    let error = pipeline().decode(&latents, None).unwrap_err().to_string();
    assert!(error.contains("[1, 8, 8, 3]"), "{error}");
}

/// Guidance and the sampler's update on the host are those of the device.
#[test]
fn the_host_steps_as_the_device_does() {
    for sampler in ["pndm", "dpmpp-2m-sde", "heun"] {
        let sampler = Some(sampler.parse().unwrap());
        let request = Request { sampler, guidance: 5.0, ..short("a red cat", 4) };
        let plain = generate(&request);
        let hardly = Request { guidance_rescale: 1e-30, ..request.clone() };
        let decibels = psnr(&plain.pictures[0], &generate(&hardly).pictures[0]).unwrap();
        assert!(decibels > 50.0, "{sampler:?}: {decibels:.1} dB");
    }
}

#[test]
fn guidance_acts_in_its_part_of_the_steps() {
    let request = Request { guidance: 6.0, ..short("a red cat", 4) };
    let of = |guidance_interval| {
        generate(&Request { guidance_interval, ..request.clone() }).pictures.remove(0)
    };
    let whole = of([0.0, 1.0]);
    assert_eq!(whole, generate(&request).pictures[0]);
    let unguided = generate(&Request { guidance: 1.0, ..request.clone() }).pictures.remove(0);
    // So short a part holds no whole step.
    assert!(psnr(&of([0.0, 0.1]), &unguided).unwrap() > 50.0);
    let half = of([0.4, 1.0]);
    assert!(psnr(&half, &unguided).unwrap() < 45.0 && psnr(&half, &whole).unwrap() < 45.0);
    // Told where there is none.
    let told = generate(&Request { guidance: 1.0, guidance_rescale: 0.5, ..request });
    assert!(
        told.warnings.iter().any(|w| w.contains("there is no guidance")),
        "{:?}",
        told.warnings
    );
}

/// The error of cached deep layers, in decibels from the full run. More is found again in many
/// small steps than in few large ones.
#[test]
fn cached_deep_layers_change_a_picture_a_little() {
    let sampler = Some("ddim".parse().unwrap());
    let size = Some(128);
    let request = Request {
        sampler,
        steps: 40,
        width: size,
        height: size,
        ..short("a red cat in the snow", 9)
    };
    let full = generate(&request);
    assert_eq!(full.pictures, generate(&Request { cache: 1, ..request.clone() }).pictures);
    let mut last = f64::INFINITY;
    for (cache, least) in [(2, 22.0), (3, 18.0), (6, 12.0)] {
        let cached = generate(&Request { cache, ..request.clone() });
        let decibels = psnr(&full.pictures[0], &cached.pictures[0]).unwrap();
        println!("every {cache}: {decibels:.1} dB, {:?} {:?}", cached.stages, full.stages);
        save(&format!("cache-{cache}"), &cached.pictures[0]);
        save("cache-full", &full.pictures[0]);
        assert!(decibels >= least && decibels < last, "every {cache}: {decibels:.1} dB");
        last = decibels;
    }
    // A whole run of whole steps, though through the host.
    let whole = generate(&Request { cache: 2, steps: 1, ..request.clone() });
    let alone = generate(&Request { steps: 1, ..request });
    assert!(psnr(&whole.pictures[0], &alone.pictures[0]).unwrap() > 50.0);
}

/// Shown or not, a picture is the same; and what is shown becomes like it.
#[test]
fn previews_come_near_the_picture_and_change_nothing() {
    let size = Some(128);
    let request =
        Request { steps: 12, width: size, height: size, ..short("a red cat in the snow", 9) };
    let plain = generate(&request);
    let mut seen = Vec::new();
    let made = {
        let asked = Request { preview: Some(4), ..request.clone() };
        let mut pipeline = pipeline();
        let prepared = pipeline.prepare(&asked).unwrap();
        let mut pictures = Vec::new();
        pipeline
            .make_shown(
                prepared,
                &mut unwatched,
                &mut |_, _, picture| {
                    pictures.push(picture);
                    Ok::<_, mixofshow::pipeline::Error>(())
                },
                &mut |preview| {
                    assert_eq!((preview.first, preview.of), (0, preview.of));
                    seen.push((preview.done, preview.pictures[0].clone()));
                },
            )
            .unwrap();
        pictures
    };
    assert_eq!(made, plain.pictures);
    // PNDM calls the model once more than it has steps.
    assert_eq!(seen.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [4, 8, 12]);
    // Of cells: a preview has no more.
    let cells = |picture: &Picture| picture.resized(16, 16).unwrap();
    let likeness: Vec<f64> =
        seen.iter().map(|(_, picture)| psnr(&cells(picture), &cells(&made[0])).unwrap()).collect();
    println!("previews: {likeness:.1?} dB");
    save("preview-made", &made[0]);
    seen.iter().for_each(|(done, picture)| save(&format!("preview-{done}"), picture));
    assert!(likeness[2] > likeness[0] && likeness[2] > 15.0, "{likeness:?}");
}

/// A second pass is image to image from the first one's latents, enlarged.
#[test]
fn a_second_pass_goes_on_from_the_first() {
    use mixofshow::pipeline::{LatentFilter, Upscaler};
    let request = short("a red cat", 4);
    let hires = Hires { scale: 1.5, strength: 0.7, steps: Some(5), ..Hires::default() };
    let larger = generate(&Request { hires: Some(hires.clone()), ..request.clone() });
    assert_eq!((larger.width, larger.height), (96, 96));
    let first = generate(&request);
    let enlarged = LatentFilter::Bilinear.enlarge(&first.latents, [12, 12]);
    let by_hand = generate(&Request {
        width: Some(96),
        height: Some(96),
        strength: 0.7,
        steps: 5,
        from_latents: Some(enlarged),
        ..request.clone()
    });
    assert_eq!(larger.pictures, by_hand.pictures);
    let pixels = Hires { upscaler: Upscaler::Lanczos, ..hires.clone() };
    let other = generate(&Request { hires: Some(pixels), ..request.clone() });
    assert_eq!((other.width, other.height), (96, 96));
    assert_ne!(other.pictures, larger.pictures);
    let too_large = Hires { scale: 17.0, ..hires };
    let error = pipeline().prepare(&Request { hires: Some(too_large), ..request }).err().unwrap();
    assert!(error.to_string().contains("hires is 17"), "{error}");
}

/// Within budgets in which the UNet's weights do not fit: pictures are the same, byte for byte, and
/// no more memory is taken.
#[test]
fn weights_that_come_and_go_make_the_same_pictures() {
    let request = |memory| Request { batch: 2, memory, cache: 2, ..short("a tree", 5) };
    let (_, mut pipeline) = open();
    let whole = request(None);
    let planned = pipeline.prepare(&whole).unwrap().memory();
    let expected = pipeline.generate(&whole, &mut unwatched).unwrap();
    let needed = planned.sampling + planned.unet;
    for part in [2, 3, 5] {
        let budget = needed - planned.unet * part / 10;
        let (device, mut pipeline) = open();
        let tight = request(Some(budget));
        let prepared = pipeline.prepare(&tight).unwrap_or_else(|e| panic!("{e}"));
        let held = prepared.memory().streaming.expect("weights that come and go");
        assert!(held.streamed > 0 && held.blocks > 1, "{held:?}");
        let cost = pipeline.streaming(&prepared).unwrap().unwrap();
        assert!(cost.each == held.streamed && cost.seconds.is_some_and(|s| s > 0.0), "{cost:?}");
        drop(pipeline.prepare(&tight).unwrap());
        let made = pipeline.generate(&tight, &mut unwatched).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(made.latents, expected.latents, "{part} tenths less");
        assert_eq!(made.pictures, expected.pictures);
        let peak = device.memory()[1];
        // Uniforms are no part of plans.
        assert!(peak <= budget.max(16 << 20) + (1 << 20), "{peak} of {budget}, {held:?}");
    }
}
