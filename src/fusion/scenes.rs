//! Scenes: two and three concepts in regions, which the fused UNet learns from the concepts' own
//! models, a LoRA in each region, as pictures of several are made from their files.
//!
//! Of up to three concepts, every pair and the three are scenes; of more, each stands beside the
//! next in a drawn order, and with the one two further on as well: twice as many scenes as
//! concepts, each concept in two pairs and three trios.

use sha2::{Digest, Sha256};

use crate::concept::{AppliedSet, Network};
use crate::models::unet;
use crate::region::{Area, Layout, Placed, Region, side_by_side};
use crate::training::draws::{Draws, Numbers, Purpose};

use super::base::Runner;
use super::collect::RecordedSubject;
use super::members::{FusedConcept, hex};
use super::settings::Settings;
use super::spatial::ReadPrompt;
use super::{Error, Result};

/// Concepts of which all pairs and trios are scenes.
const FEW: usize = 3;
/// Draws of the order in which many concepts stand beside each other.
const ORDER: u64 = 1 << 33;
/// How far an edge between two may be from where both have as much room, in parts of the width.
const JITTER: f64 = 0.08;
/// The most that is left free above.
const HEADROOM: f64 = 0.3;

/// Concepts beside each other.
#[derive(Clone)]
pub(super) struct Scene<'a> {
    pub name: String,
    /// Hash of all that its pictures depend on, but for the model and the settings.
    pub key: String,
    pub members: Vec<&'a FusedConcept>,
    /// One for each recorded prompt.
    pub views: Vec<View>,
    /// What names all of a view's by their words, for the whole picture.
    one_prompts: Vec<String>,
    /// Pictures of each view.
    pub seeds: u64,
    pub steps: usize,
    /// The first picture's.
    seed: u64,
}

/// Who stands where, and what is said of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// Left, top, right, bottom of each member.
    pub boxes: Vec<[f64; 4]>,
    /// The whole picture's, then each member's.
    pub prompts: Vec<String>,
}

/// Of the concepts that have words of their own: what calls up a LoRA without words is for whole
/// pictures.
pub(super) fn scenes<'a>(members: &[&'a FusedConcept], settings: &Settings) -> Vec<Scene<'a>> {
    let all: Vec<&FusedConcept> =
        members.iter().copied().filter(|member| !member.words.is_empty()).collect();
    if settings.distillation.scenes == 0 {
        return Vec::new();
    }
    let drawn = Draws::new(settings.seed).at(Purpose::Lessons, ORDER).order(all.len());
    beside(all.len(), &drawn).into_iter().map(|who| Scene::of(&all, &who, settings)).collect()
}

/// Those of one more concept with up to two `others`.
pub(super) fn scenes_with<'a>(
    new: &'a FusedConcept,
    others: &[&'a FusedConcept],
    settings: &Settings,
) -> Vec<Scene<'a>> {
    let others = others.iter().copied().filter(|other| !other.words.is_empty()).take(FEW - 1);
    let all: Vec<&FusedConcept> = [new].into_iter().chain(others).collect();
    if new.words.is_empty() || settings.distillation.scenes == 0 {
        return Vec::new();
    }
    with(all.len() - 1).map(|who| Scene::of(&all, who, settings)).collect()
}

/// Who stands beside one more concept, the first, of `others`: all the same from two on.
pub(super) fn with(others: usize) -> impl Iterator<Item = &'static [usize]> {
    let groups: [&[usize]; 3] = [&[0, 1], &[0, 2], &[0, 1, 2]];
    groups.into_iter().filter(move |who| who.iter().all(|at| *at <= others))
}

/// Who stands beside whom, of `count`; many by the order that was drawn.
fn beside(count: usize, drawn: &[usize]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = match count {
        0 | 1 => Vec::new(),
        2..=FEW => {
            let pair = |a: usize| (a + 1..count).map(move |b| vec![a, b]);
            let trio = (count == FEW).then(|| (0..FEW).collect());
            (0..count).flat_map(pair).chain(trio).collect()
        }
        _ => {
            let at = |place: usize| drawn.get(place % count).copied().unwrap_or(0);
            let pairs = (0..count).map(|i| vec![at(i), at(i + 1)]);
            pairs.chain((0..count).map(|i| vec![at(i), at(i + 1), at(i + 3)])).collect()
        }
    };
    found.iter_mut().for_each(|who| who.sort_unstable());
    found
}

impl<'a> Scene<'a> {
    fn of(all: &[&'a FusedConcept], who: &[usize], settings: &Settings) -> Scene<'a> {
        let members: Vec<&FusedConcept> =
            who.iter().filter_map(|at| all.get(*at).copied()).collect();
        let mut sha = Sha256::new();
        members.iter().for_each(|member| sha.update(format!("{};", member.key)));
        // The same concepts stand in the same places, whoever else is fused.
        let own = sha.clone().finalize();
        let own = own.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let mut numbers = Draws::new(settings.seed).at(Purpose::Scenes, own);
        let views: Vec<View> = settings
            .sampled
            .iter()
            .enumerate()
            .map(|(number, template)| View::drawn(&members, number, template, &mut numbers))
            .collect();
        sha.update(format!("{views:?}{}", settings.distillation.scene_strength));
        let templates = views.iter().zip(&settings.sampled);
        let one_prompts = templates.map(|(view, text)| view.one_prompt(&members, text)).collect();
        Scene {
            name: members.iter().map(|member| &*member.name).collect::<Vec<_>>().join(" + "),
            key: hex(&sha.finalize()),
            members,
            views,
            one_prompts,
            seeds: settings.distillation.scenes,
            steps: settings.steps,
            seed: settings.seed,
        }
    }

    /// Predictions that are made of it, of each half of guidance.
    pub fn count(&self) -> usize {
        self.views.len() * self.seeds as usize * self.steps
    }

    /// Lessons with one prompt, of so many pictures of each view.
    pub fn lessons_in_one_prompt(&self, pictures: u64) -> usize {
        self.views.len() * pictures as usize * self.steps
    }

    /// The first picture's seed of a view.
    pub fn seed(&self, view: usize) -> u64 {
        self.seed.wrapping_add(view as u64 * self.seeds)
    }

    /// The updates of those who are in it, with their factors for the prompts: each acts in its
    /// own region.
    pub fn sets(&self, settings: &Settings) -> Vec<(AppliedSet, Vec<f32>)> {
        let set = |(at, member): (usize, &&FusedConcept)| {
            let set = RecordedSubject::concept(member, settings).of(Network::UNet)?;
            let strength = settings.distillation.scene_strength;
            let own = (0..self.members.len()).map(|who| if who == at { strength } else { 0.0 });
            Some((set, std::iter::once(0.0).chain(own).collect()))
        };
        self.members.iter().enumerate().filter_map(set).collect()
    }

    /// What is read of a view: each of its prompts, and the empty one beside it. `own`: by the
    /// concepts' own text encoders, each its region's.
    pub fn read(
        &self,
        runner: &Runner,
        view: &View,
        settings: &Settings,
        own: bool,
    ) -> Result<Vec<[ReadPrompt; 2]>> {
        let members = self.members.iter();
        let subjects = std::iter::once(RecordedSubject::nobody(settings))
            .chain(members.map(|member| RecordedSubject::concept(member, settings)));
        let read = |(subject, prompt): (RecordedSubject, &String)| {
            Ok([runner.read_empty(&subject, own)?, runner.read(&subject, prompt, own)?])
        };
        subjects.zip(&view.prompts).map(read).collect()
    }

    /// What is read of each view's one prompt, by the text encoders as they are fused.
    pub fn read_one_prompts(
        &self,
        runner: &Runner,
        settings: &Settings,
    ) -> Result<Vec<ReadPrompt>> {
        let words: Vec<_> = self.members.iter().flat_map(|m| m.words.iter().cloned()).collect();
        let mut everybody: RecordedSubject<'_> = RecordedSubject::nobody(settings);
        everybody.words = &words;
        let read = |prompt: &String| runner.read(&everybody, prompt, false);
        self.one_prompts.iter().map(read).collect()
    }
}

impl View {
    fn drawn(
        members: &[&FusedConcept],
        number: usize,
        template: &str,
        numbers: &mut Numbers,
    ) -> View {
        let count = members.len();
        // From left to right. Everybody comes to stand everywhere.
        let order: Vec<usize> = (0..count).map(|place| (place + number) % count.max(1)).collect();
        let rounded = |v: f64| (v * 100.0).round() / 100.0;
        let mut edges = vec![0.0];
        for place in 1..count {
            let even = place as f64 / count as f64;
            edges.push(rounded(even + numbers.between(-JITTER, JITTER)));
        }
        edges.push(1.0);
        let top = rounded(numbers.between(0.0, HEADROOM));
        let classes: Option<Vec<&str>> =
            order.iter().map(|at| members.get(*at)?.concept.class_word()).collect();
        // Everybody is named, also where the template is nothing but words: a model leaves room
        // for as many as it is told of.
        let whole = classes
            .as_ref()
            .map_or_else(String::new, |classes| template.replace("{}", &side_by_side(classes)));
        let (mut boxes, mut prompts) = (vec![[0.0; 4]; count], vec![String::new(); count]);
        for ((place, at), pair) in order.iter().enumerate().zip(edges.windows(2)) {
            let phrase = members.get(*at).map_or("", |member| &member.phrase);
            boxes[*at] = [pair[0], top, pair[1], 1.0];
            prompts[*at] = match &classes {
                Some(classes) => {
                    let mut all = classes.clone();
                    all[place] = phrase;
                    template.replace("{}", &side_by_side(&all))
                }
                None => template.replace("{}", phrase),
            };
        }
        prompts.insert(0, whole);
        View { boxes, prompts }
    }

    /// The whole picture's prompt, in which each is called by its words.
    fn one_prompt(&self, members: &[&FusedConcept], template: &str) -> String {
        let mut from_left: Vec<_> = self.boxes.iter().zip(members).collect();
        from_left.sort_by(|(a, _), (b, _)| a[0].total_cmp(&b[0]));
        let phrases: Vec<&str> = from_left.iter().map(|(_, member)| &*member.phrase).collect();
        template.replace("{}", &side_by_side(&phrases))
    }

    /// As the region's part of this program takes it.
    pub fn layout(&self) -> Layout {
        let regions = self.boxes.iter().zip(self.prompts.iter().skip(1));
        let region = |(edges, prompt): (&[f64; 4], &String)| Region {
            prompt: prompt.clone(),
            area: Area::Box(*edges),
            ..Region::default()
        };
        Layout { regions: regions.map(region).collect(), ..Layout::default() }
    }

    /// For each size of feature map of latents of `size`, every prompt's share of every place, the
    /// whole picture's prompt first.
    pub fn shares(&self, runner: &Runner, size: [usize; 2]) -> Result<Vec<Vec<f32>>> {
        let [height, width] = size;
        let sizes = unet::feature_sizes(runner.base.unet(), height, width);
        let factor = runner.base.model.vae.config.downscale();
        let placed = Placed::new(&self.layout(), width * factor, height * factor, &sizes)
            .map_err(|error| Error::option("scenes", error.to_string()))?;
        let all = vec![true; self.boxes.len()];
        Ok((0..sizes.len()).map(|size| placed.shares(size, &all).weights).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, class: Option<&str>) -> FusedConcept {
        let word = |k: usize| crate::concept::Word {
            initializer: class.filter(|_| k == 2).map(String::from),
            ..crate::concept::Word::new(
                format!("<{name}{k}>"),
                crate::graph::Array::f32([1, 1], vec![0.0]),
            )
        };
        let words = vec![word(1), word(2)];
        FusedConcept {
            name: name.into(),
            key: name.into(),
            words: words.clone(),
            phrase: format!("<{name}1> <{name}2>"),
            updates: crate::concept::Updates::default(),
            weight: 1.0,
            path: name.into(),
            scales: [1.0; 2],
            left_out: 0,
            concept: crate::concept::Concept { words, ..Default::default() },
        }
    }

    #[test]
    fn who_stands_beside_whom() {
        assert!(beside(1, &[0]).is_empty());
        assert_eq!(beside(2, &[1, 0]), [vec![0, 1]]);
        assert_eq!(beside(3, &[1, 0, 2]), [vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2]]);
        for count in 4..12 {
            let drawn = Draws::new(1).at(Purpose::Lessons, ORDER).order(count);
            let all = beside(count, &drawn);
            assert_eq!(all.len(), 2 * count);
            for (who, scenes) in [(2, 2), (3, 3)] {
                for concept in 0..count {
                    let of = |scene: &&Vec<usize>| scene.len() == who && scene.contains(&concept);
                    assert_eq!(all.iter().filter(of).count(), scenes, "{count} {who}: {all:?}");
                }
            }
            let mut different = all.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), all.len());
        }
    }

    #[test]
    fn everybody_stands_everywhere_and_is_named() {
        let (a, b, c) =
            (member("a", Some("man")), member("b", Some("owl")), member("c", Some("cat")));
        let mut settings = Settings::default();
        settings.distillation.scenes = 2;
        let all = scenes(&[&a, &b, &c], &settings);
        assert_eq!(all.len(), 4);
        let trio = &all[3];
        assert_eq!((&*trio.name, trio.count()), ("a + b + c", 4 * 2 * 10));
        let view = &trio.views[0];
        let left = |view: &View| view.boxes.iter().position(|edges| edges[0] == 0.0);
        assert_eq!([left(view), left(&trio.views[1])], [Some(0), Some(1)]);
        let sentence = |left, center, right| {
            format!(
                "photo of a {left} on the left, {center} in the center and {right} on the right"
            )
        };
        let expected = [
            sentence("man", "an owl", "a cat"),
            sentence("<a1> <a2>", "an owl", "a cat"),
            sentence("man", "a <b1> <b2>", "a cat"),
            sentence("man", "an owl", "a <c1> <c2>"),
        ];
        assert_eq!(view.prompts, expected);
        assert_eq!(
            trio.views[1].prompts[1],
            "owl on the left, a cat in the center and a <a1> <a2> on the right"
        );
        assert_eq!(
            trio.one_prompts[..2],
            [
                "photo of a <a1> <a2> on the left, a <b1> <b2> in the center and a <c1> <c2> on \
                    the right",
                "<b1> <b2> on the left, a <c1> <c2> in the center and a <a1> <a2> on the right",
            ]
        );
        assert_eq!(trio.lessons_in_one_prompt(1), 4 * 10);
        for view in all.iter().flat_map(|scene| &scene.views) {
            view.layout().check().unwrap();
            assert!(view.boxes.iter().all(|edges| edges[2] - edges[0] > 0.15));
        }
        // The same two stand the same, whoever else is there; the seed moves them.
        let two = scenes(&[&b, &c], &settings);
        assert_eq!((&two[0].key, &two[0].views), (&all[2].key, &all[2].views));
        settings.seed = 1;
        assert_ne!(scenes(&[&b, &c], &settings)[0].views, two[0].views);
        // Where nothing tells what they are, each is named alone.
        let d = member("d", None);
        assert_eq!(
            scenes(&[&c, &d], &settings)[0].views[0].prompts,
            ["", "photo of a <c1> <c2>", "photo of a <d1> <d2>"]
        );
        // What the file says goes before what a word started from.
        let mut told = member("d", Some("thing"));
        told.concept.metadata.insert(crate::concept::CLASS_WORD.into(), "fox".into());
        let prompts = &scenes(&[&c, &told], &settings)[0].views[0].prompts;
        assert_eq!(prompts[0], "photo of a cat on the left and a fox on the right");
        let with = scenes_with(&d, &[&a, &b, &c], &settings);
        let names: Vec<&str> = with.iter().map(|scene| &*scene.name).collect();
        assert_eq!(names, ["d + a", "d + b", "d + a + b"]);
    }
}
