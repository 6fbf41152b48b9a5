//! Examples: order, draws, masks and latents, with an encoder that counts.
use super::super::pool::{Distribution, class_caption};
use super::*;
use crate::checkpoint::Checkpoint;
use crate::picture::{Mask, Picture};
use crate::sd::Model;
use crate::text::Tokenizer;
use crate::training::config::Options;

/// Latents are the mean red of the picture, with a deviation of 1.
#[derive(Default)]
struct Counting(usize);

impl Encode for Counting {
    fn encode(&mut self, picture: &Picture) -> Result<Distribution> {
        self.0 += 1;
        let reds: f32 = picture.rgb().iter().step_by(3).map(|v| f32::from(*v)).sum();
        let mean = reds / (picture.rgb().len() / 3) as f32;
        Ok((vec![mean; 4 * 4 * 2], vec![1.0; 4 * 4 * 2]))
    }
}

fn found(red: u8, side: u32, mask: Option<Mask>) -> Found {
    let picture = Picture::filled(side, side, [red, 0, 0]).unwrap();
    let (caption, original) = ("<TOK>, hat, tree".into(), [side as usize; 2]);
    Found { path: "x.png".into(), picture, original, caption, mask, repeats: 1 }
}

fn examples(pictures: Vec<Found>, change: impl FnOnce(&mut Settings)) -> Examples {
    let given = Options {
        words: Some("<a1> <a2>".into()),
        class_word: Some("man".into()),
        pictures: Some("x".into()),
        batch: Some(2),
        ..Options::default()
    };
    let mut settings = Settings::new(given).unwrap();
    change(&mut settings);
    let models = Models::of(&Model::open(&Checkpoint::shipped().unwrap()).unwrap()).unwrap();
    let tokenizer =
        Tokenizer::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny/tokenizer")).unwrap();
    let words = Words::new(tokenizer, &settings.words, models.text.vocab_size, 3).unwrap();
    let transform = Transform { width: 32, height: 32, crop: settings.crop, scale: settings.scale };
    Examples::new(&settings, pictures, transform, [4, 4, 2], words, &models)
}

#[test]
fn pictures_with_repeats_come_as_often_in_every_epoch() {
    let repeats = [3, 1, 2];
    let pictures =
        || repeats.iter().map(|&repeats| Found { repeats, ..found(10, 32, None) }).collect();
    let (examples, again) =
        (self::examples(pictures(), |_| ()), self::examples(pictures(), |_| ()));
    for epoch in 0..4 {
        let mut counts = [0; 3];
        (0..6).for_each(|i| counts[examples.concept.example(epoch * 6 + i).picture] += 1);
        assert_eq!(counts, repeats);
    }
    // Any example is told by its number alone.
    assert_eq!(examples.concept.example(17), again.concept.example(17));
}

/// Cells of 8 x 8 pixels are looked at by their first one.
#[test]
fn masks_of_which_nothing_is_left_are_told() {
    let with = |name: &str, white: fn(u32, u32) -> bool| {
        let at = |i: u32| f32::from(u8::from(white(i % 32, i / 32)));
        let mask = Mask::new(32, 32, (0..32 * 32).map(at).collect()).unwrap();
        Found { path: name.into(), ..found(10, 32, Some(mask)) }
    };
    let pictures = vec![
        with("line.png", |_, y| y == 13),
        with("dots.png", |x, y| x % 8 == 1 && y % 8 == 1 || x < 2 && y < 2),
        with("hatched.png", |x, y| x % 8 != 0 || y == 0 && x == 0),
        with("half.png", |x, _| x < 16),
        Found { path: "bare.png".into(), ..found(10, 32, None) },
    ];
    let remarks = examples(pictures, |_| ()).remarks().unwrap();
    let told: Vec<&String> = remarks.iter().filter(|remark| remark.contains("too thin")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("vanishes") && told[0].ends_with(": line.png"), "{told:?}");
    assert!(told[1].contains("half of it") && told[1].ends_with(": hatched.png"), "{told:?}");
}

fn five() -> Vec<Found> {
    (0..5).map(|i| found(i * 10, 32, None)).collect()
}

#[test]
fn every_epoch_has_every_picture_once_in_another_order() {
    let examples = examples(five(), |_| ());
    let epoch = |number: u64| -> Vec<usize> {
        (0..5).map(|i| examples.concept.example(number * 5 + i).picture).collect()
    };
    let orders: Vec<_> = (0..6).map(epoch).collect();
    assert!(orders.iter().any(|order| *order != orders[0]));
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }
    let times: Vec<usize> = (0..400).map(|n| examples.concept.example(n).timestep).collect();
    assert!(
        times.iter().all(|t| *t < 1000)
            && times.iter().any(|t| *t > 950)
            && times.iter().any(|t| *t < 50)
    );
    let captions: std::collections::BTreeSet<_> =
        (0..200).map(|n| examples.concept.example(n).caption).collect();
    // Two orders of the tags in nineteen sentences.
    assert!(
        captions.len() > 25 && captions.iter().all(|caption| caption.contains("<a1> <a2>, ")),
        "{captions:?}"
    );
}

#[test]
fn a_batch_needs_no_history() {
    let rates = Rates::default();
    let mut one = examples(five(), |settings| settings.scale = [0.5, 1.0]);
    let early: Vec<Batch> =
        (0..4).map(|i| one.batch(i, rates, &mut Counting::default()).unwrap()).collect();
    let mut other = examples(five(), |settings| settings.scale = [0.5, 1.0]);
    let late = other.batch(3, rates, &mut Counting::default()).unwrap();
    let same = |a: &Batch, b: &Batch| {
        let arrays =
            |x: &Batch| [x.latents.clone(), x.noise.clone(), x.ids.clone(), x.loss_mask.clone()];
        arrays(a) == arrays(b) && a.timesteps == b.timesteps && a.factors == b.factors
    };
    assert!(same(&early[3], &late) && !same(&early[2], &late));
    let mut seeded = examples(five(), |settings| settings.seed = 1);
    assert!(!same(&seeded.batch(3, rates, &mut Counting::default()).unwrap(), &late));
}

#[test]
fn fixed_placements_are_encoded_once() {
    let rates = Rates::default();
    let mut encoder = Counting::default();
    let mut fixed = examples(five(), |_| ());
    (0..20).for_each(|i| drop(fixed.batch(i, rates, &mut encoder).unwrap()));
    assert_eq!(encoder.0, 5);
    let varied = |variants: usize| {
        let mut encoder = Counting::default();
        let mut examples = examples(five(), |settings| {
            (settings.scale, settings.variants) = ([0.2, 1.0], variants)
        });
        (0..20).for_each(|i| drop(examples.batch(i, rates, &mut encoder).unwrap()));
        encoder.0
    };
    assert!((6..=10).contains(&varied(2)), "{}", varied(2));
    assert_eq!(varied(0), 40);
}

#[test]
fn latents_are_samples_of_their_distribution() {
    let mut examples =
        examples(vec![found(100, 32, None); 5], |settings| settings.noise_offset = 0.5);
    let batches: Vec<Batch> = (0..40)
        .map(|i| examples.batch(i, Rates::default(), &mut Counting::default()).unwrap())
        .collect();
    let latents: Vec<f32> =
        batches.iter().flat_map(|batch| batch.latents.values().to_vec()).collect();
    let mean = latents.iter().sum::<f32>() / latents.len() as f32;
    let deviation =
        (latents.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / latents.len() as f32).sqrt();
    assert!((mean - 100.0).abs() < 0.1 && (deviation - 1.0).abs() < 0.1, "{mean} {deviation}");
    // The offset is what the pixels of a channel share: the variance of a channel's mean is 1 /
    // pixels + offset^2.
    let noises = batches.iter().flat_map(|batch| {
        batch.noise.values().chunks_exact(32).map(<[f32]>::to_vec).collect::<Vec<_>>()
    });
    let means: Vec<f32> = noises.map(|noise| noise.iter().step_by(2).sum::<f32>() / 16.0).collect();
    let variance = means.iter().map(|v| v * v).sum::<f32>() / means.len() as f32;
    assert!((0.2..0.45).contains(&variance), "{variance}");
}

#[test]
fn masks_say_what_counts() {
    let half: Vec<f32> = (0..32 * 32).map(|i| f32::from(u8::from(i % 32 < 16))).collect();
    let mask = || Some(Mask::new(32, 32, half.clone()).unwrap());
    let rows = |values: &[f32]| values.chunks_exact(4).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let weighed = |mask, use_mask, rest| {
        let set = |settings: &mut Settings| {
            (settings.mask_loss, settings.unmasked_weight) = (use_mask, rest)
        };
        let mut examples = examples(vec![found(1, 32, mask); 4], set);
        let batch = examples.batch(0, Rates::default(), &mut Counting::default()).unwrap();
        (rows(batch.loss_mask.values()), rows(batch.subject_mask.unwrap().values()))
    };
    let masked = |mask, use_mask| weighed(mask, use_mask, 0.0);
    let (left, all) = (vec![vec![1.0, 1.0, 0.0, 0.0]; 8], vec![vec![1.0; 4]; 8]);
    assert_eq!(masked(mask(), true), (left.clone(), left.clone()));
    assert_eq!(masked(mask(), false), (all.clone(), left));
    assert_eq!(masked(None, true), (all.clone(), all.clone()));
    assert_eq!(weighed(mask(), true, 0.25).0, vec![vec![1.0, 1.0, 0.25, 0.25]; 8]);
    assert_eq!(weighed(mask(), false, 0.25).0, all);
    // A mask of which nothing is left where the latents look.
    let mut corner = vec![0.0; 32 * 32];
    corner[32 * 31 + 31] = 1.0;
    assert_eq!(masked(Some(Mask::new(32, 32, corner).unwrap()), true).0, all);
}

#[test]
fn min_snr_is_a_factor_of_each_picture() {
    let mut examples = examples(five(), |settings| settings.min_snr = Some(5.0));
    let batches: Vec<Batch> = (0..50)
        .map(|i| examples.batch(i, Rates::default(), &mut Counting::default()).unwrap())
        .collect();
    let pairs: Vec<(usize, f32)> =
        batches.iter().flat_map(|b| b.timesteps.iter().copied().zip(b.factors.clone())).collect();
    assert!(pairs.iter().filter(|(t, _)| *t > 500).all(|(_, factor)| *factor == 1.0));
    assert!(pairs.iter().filter(|(t, _)| *t < 30).all(|(_, factor)| *factor < 0.2));
}

/// Half of a batch is of the class, drawn by other numbers, without the words and without masks.
#[test]
fn pictures_of_the_class_stand_behind_the_concepts() {
    let half: Vec<f32> = (0..32 * 32).map(|i| f32::from(u8::from(i % 32 < 16))).collect();
    let mask = || Some(Mask::new(32, 32, half.clone()).unwrap());
    let taught = || (0..5).map(|i| found(i * 10, 32, mask())).collect::<Vec<_>>();
    let class = |caption: &str| {
        let of = |i: u8| Found { caption: caption.into(), ..found(200 + i * 10, 48, None) };
        (0..3).map(of).collect::<Vec<_>>()
    };
    let rates = Rates::default();
    let models = Models::of(&Model::open(&Checkpoint::shipped().unwrap()).unwrap()).unwrap();
    let vocabulary = models.text.vocab_size as u32;
    let mut plain = examples(taught(), |_| ());
    let mut both = examples(taught(), |settings| settings.prior_pictures = 3);
    both.add_class(class("a photo of a man"));
    for number in [0, 7] {
        let alone = plain.batch(number, rates, &mut Counting::default()).unwrap();
        let batch = both.batch(number, rates, &mut Counting::default()).unwrap();
        assert_eq!(batch.latents.shape[..], [4, 4, 4, 2]);
        let half = |array: &Array| array.values()[..array.values().len() / 2].to_vec();
        for (with, without) in [
            (&batch.latents, &alone.latents),
            (&batch.noise, &alone.noise),
            (&batch.loss_mask, &alone.loss_mask),
        ] {
            assert_eq!(half(with), without.values());
        }
        let (first, second) = batch.ids.ids().split_at(batch.ids.ids().len() / 2);
        assert_eq!(first, alone.ids.ids());
        let words = |ids: &[u32]| ids.iter().filter(|id| **id >= vocabulary).count();
        // Two words in each of three copies of two captions.
        assert_eq!((words(first), words(second)), (12, 0));
        assert_eq!(batch.timesteps[..2], alone.timesteps[..]);
        assert_ne!(batch.timesteps[2..], alone.timesteps[..]);
        assert!(batch.loss_mask.values()[32..].iter().all(|v| *v == 1.0));
        assert!(batch.subject_mask.unwrap().values()[32..].iter().all(|v| *v == 1.0));
        assert_ne!(batch.noise.values()[..32], batch.noise.values()[64..96]);
    }
    // Made pictures keep their captions; others get sentences, as the concept's do.
    let drawn = |examples: &Examples| -> std::collections::BTreeSet<String> {
        let class = examples.class.as_ref().unwrap();
        (0..60).map(|n| class.example(n).caption).collect()
    };
    both.add_class(class("man"));
    assert_eq!(drawn(&both), ["man".to_string()].into());
    let mut own = examples(taught(), |settings| settings.prior_folder = Some("men".into()));
    own.add_class(class("<TOK>"));
    let captions = drawn(&own);
    assert!(captions.len() > 10 && captions.iter().all(|c| c.contains(" man") && c.len() > 6));
    own.add_class(class("manual labour"));
    assert_eq!(drawn(&own), ["manual labour".to_string()].into());
}

#[test]
fn class_pictures_are_made_from_the_captions() {
    let all = examples(five(), |_| ());
    let mut settings = all.settings.clone();
    let captions = [("a photo of a <TOK> in a room", 1), ("<TOK>, hat", 2)];
    let made = |settings: &Settings| -> Vec<String> {
        (0..6).map(|i| class_caption(settings, &captions, i)).collect()
    };
    let found = made(&settings);
    assert_eq!(
        (&*found[0], &*found[3]),
        ("a photo of a man in a room", "a photo of a man in a room")
    );
    assert!(found[1].ends_with("man, hat") && found[1].len() > 8 && found[1] != found[2]);
    assert_eq!(found, made(&settings));
    settings.class_prompt = Some("one <TOK>".into());
    assert_eq!(made(&settings), ["one man"; 6]);
}
