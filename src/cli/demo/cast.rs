//! Who plays: three of the concepts in models/concepts, which are compiled in with their pictures,
//! and where they stand.
use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};
use mixofshow::picture::Picture;
use mixofshow::region::{Area, Layout, Region, side_by_side, with_article};
use mixofshow::training::config::{Options as Given, Settings};

use crate::cli::{Result, files};

static CONCEPTS: Dir = include_dir!("$CARGO_MANIFEST_DIR/models/concepts");
/// What suits the model that ships, for `mos bench` as well.
const SETTINGS: &str = "settings.toml";
/// Outlines of a man, a cat and a woman, for the adapter to follow.
const SKETCH: &str = "sketch.png";

/// One of them.
pub struct Player {
    /// Its folder in models/concepts.
    pub name: &'static str,
    pub class_word: &'static str,
}

/// Who stands where in a picture.
pub struct Scene {
    /// How many, for people.
    pub name: &'static str,
    /// Numbers in [`CAST`], each with its part of the picture: left, top, right, bottom as
    /// fractions.
    pub places: &'static [(usize, [f64; 4])],
}

pub const PAIR: Scene =
    Scene { name: "two", places: &[(0, [0.0, 0.15, 0.5, 1.0]), (2, [0.5, 0.15, 1.0, 1.0])] };
pub const TRIO: Scene = Scene {
    name: "three",
    places: &[
        (0, [0.0, 0.25, 0.34, 1.0]),
        (1, [0.33, 0.4, 0.67, 1.0]),
        (2, [0.66, 0.25, 1.0, 1.0]),
    ],
};

pub const CAST: [Player; 3] = [
    Player { name: "zorp", class_word: "man" },
    Player { name: "mimi", class_word: "cat" },
    Player { name: "luma", class_word: "woman" },
];
/// What is around them.
pub const PLACE: &str = "on the beach";

impl Player {
    /// Its words as they stand in a prompt.
    pub fn phrase(&self) -> String {
        format!("<{0}1> <{0}2>", self.name)
    }

    /// The folder of its pictures in `folder`, where [`unpack`] put it.
    pub fn pictures(&self, folder: &Path) -> PathBuf {
        folder.join(self.name)
    }

    /// Settings of its tuning.
    pub fn settings(&self, folder: &Path, output: PathBuf, steps: usize) -> Result<Settings> {
        let own = Given {
            name: Some(self.name.to_string()),
            words: Some(self.phrase()),
            class_word: Some(self.class_word.to_string()),
            pictures: Some(self.pictures(folder)),
            output: Some(output),
            steps: Some(steps),
            sheet_every: Some(0),
            ..Given::default()
        };
        Ok(Settings::new(own.or(Given::read_toml(&folder.join(SETTINGS))?))?)
    }
}

/// Writes the pictures that are trained from, and how they are, into `folder`.
pub fn unpack(folder: &Path) -> Result<()> {
    if let Some(file) = CONCEPTS.get_file(SETTINGS) {
        files::make_folder_of(&folder.join(SETTINGS))?;
        files::write(&folder.join(SETTINGS), file.contents())?;
    }
    for player in &CAST {
        if let Some(dir) = CONCEPTS.get_dir(player.name) {
            write(dir, folder)?;
        }
    }
    Ok(())
}

fn write(dir: &Dir, folder: &Path) -> Result<()> {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(inner) => write(inner, folder)?,
            DirEntry::File(file) => {
                let path = folder.join(file.path());
                files::make_folder_of(&path)?;
                files::write(&path, file.contents())?;
            }
        }
    }
    Ok(())
}

/// The sketch, written to `path` and read from there.
pub fn sketch(path: &Path) -> Result<Option<Picture>> {
    let Some(file) = CONCEPTS.get_file(SKETCH) else {
        return Ok(None);
    };
    files::write(path, file.contents())?;
    Ok(Some(Picture::open(path)?))
}

/// Everybody in one sentence, from left to right, with the words that stand for them.
fn sentence(phrases: &[String]) -> String {
    format!("{} {PLACE}", with_article(&side_by_side(phrases)))
}

impl Scene {
    pub fn players(&self) -> impl Iterator<Item = &'static Player> {
        self.places.iter().filter_map(|&(player, _)| CAST.get(player))
    }

    /// Everybody who stands in it in one sentence, by the words that stand for them.
    pub fn prompt(&self) -> String {
        sentence(&self.players().map(Player::phrase).collect::<Vec<_>>())
    }

    /// The same by their class words.
    pub fn class_prompt(&self) -> String {
        sentence(&self.classes())
    }

    fn classes(&self) -> Vec<String> {
        self.players().map(|player| player.class_word.to_string()).collect()
    }

    /// Everybody in a region of their own. Each region's prompt names all of them, the others by
    /// their class words: a model leaves room for as many as it is told of.
    pub fn layout(&self) -> Layout {
        let regions =
            self.places.iter().zip(self.players()).enumerate().map(|(at, (&(_, part), player))| {
                let mut all = self.classes();
                all[at] = player.phrase();
                Region {
                    name: Some(player.name.to_string()),
                    prompt: sentence(&all),
                    area: Area::Box(part),
                    ..Region::default()
                }
            });
        Layout { regions: regions.collect(), ..Layout::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_compiled_in_as_their_folder_says() {
        let folder = tempfile::tempdir().unwrap();
        let unpacked = unpack(folder.path());
        assert!(unpacked.is_ok());
        for player in &CAST {
            let about =
                std::fs::read_to_string(player.pictures(folder.path()).join("concept.json"))
                    .unwrap();
            let about: serde_json::Value = serde_json::from_str(&about).unwrap();
            assert_eq!(about["class_word"], player.class_word);
            assert_eq!(
                format!("{} {}", about["words"][0], about["words"][1]).replace('"', ""),
                player.phrase()
            );
            let pictures = mixofshow::training::folder::count(&player.pictures(folder.path()));
            assert_eq!(about["pictures"], pictures);
        }
        let sketch = sketch(&folder.path().join("sketch.png"));
        assert!(matches!(sketch, Ok(Some(picture)) if picture.width() == 128));
    }

    #[test]
    fn everybody_has_a_place_of_their_own() {
        for scene in [PAIR, TRIO] {
            let layout = scene.layout();
            assert!(layout.check().is_ok());
            assert_eq!(layout.regions.len(), scene.places.len());
            for (region, player) in layout.regions.iter().zip(scene.players()) {
                assert!(region.prompt.contains(&player.phrase()));
            }
        }
        assert_eq!(PAIR.class_prompt(), "a man on the left and a woman on the right on the beach");
        let three = "a <zorp1> <zorp2> on the left, a <mimi1> <mimi2> in the center and a <luma1> \
            <luma2> on the right on the beach";
        assert_eq!(TRIO.prompt(), three);
    }
}
