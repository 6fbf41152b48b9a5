//! The pictures of a survey, one by one, in a fixed order.

use super::prompts::{Class, filled};
use super::settings::Settings;
use crate::region::{Area, Layout, Region, side_by_side, with_article};

/// One picture that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Numbers of the concepts that are in it.
    pub concepts: Vec<usize>,
    /// The number of its scene, where it has one.
    pub scene: Option<usize>,
    /// What its prompt asks of the concept: `recontext`; of a scene `together` or `one-prompt`.
    pub kind: String,
    /// The prompt's number among the concept's.
    pub number: usize,
    /// What is to be seen.
    pub prompt: String,
    /// Each concept in its region; none where one prompt names them all.
    pub regions: Layout,
    /// The settings' controls steer it.
    pub is_steered: bool,
    /// The same with class words, as texts are scored.
    pub text: String,
    /// Its seed.
    pub seed: u64,
    /// Its file in the folder, without an ending.
    pub file: String,
}

/// The kind of pictures of several, each in its region.
pub(super) const TOGETHER: &str = "together";
/// The same of pictures from one prompt, without regions.
pub(super) const ONE_PROMPT: &str = "one-prompt";

impl Settings {
    /// All pictures, in the order in which they are made and reported.
    pub fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        for (index, concept) in self.concepts.iter().enumerate() {
            for (number, prompt) in concept.prompts.iter().enumerate() {
                for seed in (0..self.pictures).map(|i| self.seed.wrapping_add(i)) {
                    items.push(Item {
                        concepts: vec![index],
                        scene: None,
                        kind: prompt.kind.clone(),
                        number,
                        prompt: filled(&prompt.text, &concept.phrase),
                        regions: Layout::default(),
                        is_steered: false,
                        text: filled(&prompt.text, &concept.class_phrase()),
                        seed,
                        file: format!(
                            "pictures/{}/{}-{:02}-{seed}",
                            concept.name,
                            prompt.kind,
                            number + 1
                        ),
                    });
                }
            }
        }
        for index in 0..self.scenes.len() {
            for seed in (0..self.together).map(|i| self.seed.wrapping_add(i)) {
                items.push(self.scene_item(index, seed));
            }
        }
        // Behind all others, so that whoever makes which part of these is the same without them.
        for index in 0..self.scenes.len() {
            for seed in (0..self.one_prompt).map(|i| self.seed.wrapping_add(i)) {
                items.push(self.one_prompt_item(index, seed));
            }
        }
        items
    }

    /// Each region's prompt names all of them, the others by their class words: a model leaves room
    /// for as many as it is told of.
    fn scene_item(&self, index: usize, seed: u64) -> Item {
        let scene = &self.scenes[index];
        let classes: Vec<String> =
            scene.concepts.iter().map(|i| self.concepts[*i].class_phrase()).collect();
        let text = sentence(&classes, &scene.place);
        let region = |(at, (who, part)): (usize, (&usize, &[f64; 4]))| {
            let mut all = classes.clone();
            all[at] = self.concepts[*who].phrase.clone();
            Region {
                name: Some(self.concepts[*who].name.clone()),
                prompt: sentence(&all, &scene.place),
                area: Area::Box(*part),
                ..Region::default()
            }
        };
        let regions = scene.concepts.iter().zip(&scene.parts).enumerate().map(region).collect();
        Item {
            concepts: scene.concepts.clone(),
            scene: Some(index),
            kind: TOGETHER.into(),
            number: index,
            prompt: text.clone(),
            regions: Layout { regions, ..Layout::default() },
            is_steered: !self.controls.is_empty() && scene.is_steered(),
            text,
            seed,
            file: format!("pictures/{TOGETHER}/{}-{seed}", scene.name),
        }
    }
}

impl Settings {
    /// The same scene without regions: one prompt names all by their words.
    fn one_prompt_item(&self, index: usize, seed: u64) -> Item {
        let scene = &self.scenes[index];
        let phrases: Vec<&str> =
            scene.concepts.iter().map(|i| self.concepts[*i].phrase.as_str()).collect();
        Item {
            kind: ONE_PROMPT.into(),
            prompt: sentence(&phrases, &scene.place),
            regions: Layout::default(),
            is_steered: false,
            file: format!("pictures/{ONE_PROMPT}/{}-{seed}", scene.name),
            ..self.scene_item(index, seed)
        }
    }
}

impl super::ConceptSettings {
    /// What stands for it where texts are scored: a place brings its article along.
    pub(super) fn class_phrase(&self) -> String {
        match self.class {
            Class::Places => filled("a <TOK>", &self.class_word),
            _ => self.class_word.clone(),
        }
    }
}

/// Everybody in one sentence, from left to right.
fn sentence(phrases: &[impl AsRef<str>], place: &str) -> String {
    format!("{} {place}", with_article(&side_by_side(phrases)))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::settings::{sample, sample_control};

    #[test]
    fn items_are_all_different_and_in_order() {
        let settings = sample();
        let items = settings.items();
        assert_eq!(items.len(), 4 * 2 * 2 + 3);
        let mut files: Vec<&str> = items.iter().map(|item| item.file.as_str()).collect();
        assert_eq!(
            files[..3],
            ["pictures/a/recontext-01-5", "pictures/a/recontext-01-6", "pictures/a/recontext-02-5"]
        );
        files.sort();
        files.dedup();
        assert_eq!(files.len(), items.len());
        let (first, last) = (&items[0], items.last().unwrap());
        assert_eq!(
            (first.prompt.as_str(), first.text.as_str()),
            ("a <a1> <a2> here", "a man here")
        );
        assert_eq!(last.file, "pictures/together/a+b+c-5");
        assert_eq!(last.concepts, [0, 1, 3]);
        let prompts: Vec<&str> = last.regions.regions.iter().map(|r| r.prompt.as_str()).collect();
        assert!(prompts[1].contains("a man on the left, a <b1> <b2> in the center"), "{prompts:?}");
        assert!(last.text.ends_with("on the beach") && !last.text.contains('<'));
    }

    #[test]
    fn three_in_their_regions_are_steered_and_nothing_else() {
        let without = Settings { one_prompt: 1, ..sample() };
        let with = Settings { controls: vec![sample_control()], ..without.clone() };
        assert!(without.items().iter().all(|item| !item.is_steered));
        let items = with.items();
        let steered: Vec<&str> =
            items.iter().filter(|item| item.is_steered).map(|item| item.file.as_str()).collect();
        assert_eq!(steered, ["pictures/together/a+b+c-5"]);
        // Scores depend on the picture alone.
        for (a, b) in without.items().iter().zip(&items) {
            assert_eq!((without.scoring(a), &a.file), (with.scoring(b), &b.file));
        }
    }

    #[test]
    fn scenes_in_one_prompt_come_last_and_change_no_other() {
        let (without, with) = (sample(), Settings { one_prompt: 2, ..sample() });
        let (items, more) = (without.items(), with.items());
        assert_eq!(more[..items.len()], items);
        let added = &more[items.len()..];
        assert_eq!(added.len(), 3 * 2);
        let (first, regions) = (&added[0], &items[4 * 2 * 2]);
        assert_eq!(
            first.prompt,
            "a <a1> <a2> on the left and a <b1> <b2> on the right on the beach"
        );
        assert!(first.regions.regions.is_empty());
        assert_eq!((&first.text, first.seed), (&regions.text, regions.seed));
        assert_eq!((first.scene, first.kind.as_str()), (Some(0), "one-prompt"));
        assert_eq!(added[5].file, "pictures/one-prompt/a+b+c-6");
        // Their places are judged alike.
        assert_eq!(with.scoring(first), without.scoring(regions));
    }
}
