//! Captions: the concept's words in their place, tags in random order, a sentence around them.

use super::draws::Numbers;

/// A caption of comma-separated tags with all but the first `kept` of them in random order.
pub fn shuffle_tags(caption: &str, kept: usize, numbers: &mut Numbers) -> String {
    let mut tags: Vec<&str> =
        caption.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    let kept = kept.min(tags.len());
    let (_, movable) = tags.split_at_mut(kept);
    numbers.shuffle(movable);
    tags.join(", ")
}

/// Sentences that are put around captions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Templates {
    /// Captions stay as they are.
    #[default]
    None,
    /// Of somebody.
    Person,
    /// Of a thing.
    Object,
    /// Of a place.
    Scene,
    /// Of a way to paint or photograph.
    Style,
}

impl Templates {
    /// The sentences; `{}` is where the caption goes.
    pub fn sentences(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Person => &PERSON,
            Self::Object => &OBJECT,
            Self::Scene => &SCENE,
            Self::Style => &STYLE,
        }
    }

    /// One of the sentences, filled with the caption.
    pub fn apply(self, caption: &str, numbers: &mut Numbers) -> String {
        let sentences = self.sentences();
        match sentences.get(numbers.below(sentences.len())) {
            Some(sentence) => sentence.replace("{}", caption),
            None => caption.to_string(),
        }
    }
}

/// No sentence says what a person does, wears or where they are: that is for captions to say.
const PERSON: [&str; 19] = [
    "a photo of {}",
    "a photograph of {}",
    "a portrait of {}",
    "a picture of {}",
    "an image of {}",
    "a snapshot of {}",
    "a detailed photo of {}",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a bright photo of {}",
    "a dim photo of {}",
    "a good picture of {}",
    "a bad picture of {}",
    "a cropped picture of {}",
    "a candid photo of {}",
    "a professional photo of {}",
    "a photo showing {}",
    "a picture that shows {}",
    "here is {}",
];

const OBJECT: [&str; 27] = [
    "a photo of {}",
    "a photograph of {}",
    "a picture of {}",
    "an image of {}",
    "a snapshot of {}",
    "a product photo of {}",
    "a studio photo of {}",
    "a close photo of {}",
    "a photo of {} from near",
    "a photo of {} from afar",
    "a detailed photo of {}",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a bright photo of {}",
    "a dim photo of {}",
    "a clean photo of {}",
    "a good picture of {}",
    "a bad picture of {}",
    "a nice picture of {}",
    "a plain picture of {}",
    "a cropped picture of {}",
    "a large picture of {}",
    "a small picture of {}",
    "a photo showing {}",
    "a picture that shows {}",
    "a view of {}",
    "here is {}",
];

const SCENE: [&str; 19] = [
    "a photo of {}",
    "a photograph of {}",
    "a picture of {}",
    "an image of {}",
    "a view of {}",
    "a wide view of {}",
    "a landscape photo of {}",
    "a postcard of {}",
    "a travel photo of {}",
    "a detailed photo of {}",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a bright photo of {}",
    "a dim photo of {}",
    "a good picture of {}",
    "a bad picture of {}",
    "a photo taken at {}",
    "a picture that shows {}",
    "this is {}",
];

const STYLE: [&str; 19] = [
    "a painting in the style of {}",
    "a picture in the style of {}",
    "an image in the style of {}",
    "a drawing in the style of {}",
    "an artwork in the style of {}",
    "an illustration in the style of {}",
    "a work in the style of {}",
    "a scene in the style of {}",
    "a study in the style of {}",
    "a sketch in the style of {}",
    "a bright picture in the style of {}",
    "a dark picture in the style of {}",
    "a detailed picture in the style of {}",
    "a simple picture in the style of {}",
    "a large picture in the style of {}",
    "a small picture in the style of {}",
    "a cropped picture in the style of {}",
    "a fine picture in the style of {}",
    "something in the style of {}",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::draws::{Draws, Purpose};
    use super::*;

    #[test]
    fn the_first_tag_stays_the_first() {
        let caption = "<a1> <a2>, hat,smiling , , tree, sky";
        let mut seen = BTreeSet::new();
        for index in 0..50 {
            let mut numbers = Draws::new(0).at(Purpose::Tags, index);
            let shuffled = shuffle_tags(caption, 1, &mut numbers);
            let mut tags: Vec<&str> = shuffled.split(", ").collect();
            assert_eq!(tags[0], "<a1> <a2>");
            seen.insert(shuffled.clone());
            tags.sort_unstable();
            assert_eq!(tags, ["<a1> <a2>", "hat", "sky", "smiling", "tree"]);
        }
        assert!(seen.len() > 10);
        let mut numbers = Draws::new(0).at(Purpose::Tags, 0);
        assert_eq!(shuffle_tags("no tags at all", 1, &mut numbers), "no tags at all");
        assert_eq!(shuffle_tags("a, b", 5, &mut numbers), "a, b");
    }

    #[test]
    fn every_sentence_has_one_place_and_is_used() {
        let sets = [
            (Templates::Person, 19),
            (Templates::Object, 27),
            (Templates::Scene, 19),
            (Templates::Style, 19),
        ];
        for (templates, count) in sets {
            let sentences = templates.sentences();
            let distinct: BTreeSet<_> = sentences.iter().collect();
            assert_eq!(distinct.len(), count);
            assert!(sentences.iter().all(|sentence| sentence.matches("{}").count() == 1));
            let used: BTreeSet<String> = (0..500)
                .map(|index| {
                    templates.apply("<a>", &mut Draws::new(0).at(Purpose::Template, index))
                })
                .collect();
            assert_eq!(used.len(), count);
        }
        let none = Templates::None.apply("a caption", &mut Draws::new(0).at(Purpose::Template, 0));
        assert_eq!(none, "a caption");
    }
}
