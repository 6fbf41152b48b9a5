//! All that a survey's results depend on, as its folder keeps it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prompts::{Class, Prompt};
use super::{Error, Result};
use crate::pipeline::recipe::ControlSource;

/// The version of the folder's files.
pub const FORMAT: u32 = 1;
/// The file.
pub(super) const FILE: &str = "settings.json";

/// All that a survey's results depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`FORMAT`]
    pub mos_eval: u32,
    /// The model, as it was named.
    pub model: String,
    /// Its hash.
    pub model_hash: String,
    /// What is evaluated.
    pub concepts: Vec<ConceptSettings>,
    /// Several of them in one picture.
    pub scenes: Vec<SceneSettings>,
    /// Of each prompt.
    pub pictures: u64,
    /// Of each scene, each concept in its region.
    pub together: u64,
    /// Of each scene, from one prompt without regions.
    #[serde(default, skip_serializing_if = "is_none")]
    pub one_prompt: u64,
    /// How strong a concept's own file is in its region of a scene, times its scales.
    #[serde(default = "as_it_is", skip_serializing_if = "is_one")]
    pub scene_strength: f32,
    /// What steers the pictures of three in their regions: networks, and what they follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ControlSource>,
    /// The first picture's of each prompt; those that follow count up.
    pub seed: u64,
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Sampling steps.
    pub steps: usize,
    /// Guidance.
    pub guidance: f32,
    /// The sampler's name.
    pub sampler: String,
    /// How weights are held on the device.
    pub precision: String,
    /// What scores, by what it is: `clip`, `dino`, `dinov2`, `csd`.
    pub towers: BTreeMap<String, TowerSettings>,
    /// Which of them says who stands where.
    pub judge: String,
    /// Only the first picture that a concept was trained from counts, as in the method's published
    /// program.
    pub as_published: bool,
}

fn as_it_is() -> f32 {
    1.0
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

fn is_one(strength: &f32) -> bool {
    *strength == 1.0
}

/// A concept that is evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptSettings {
    /// For people and names of files.
    pub name: String,
    /// What stands for it in prompts.
    pub phrase: String,
    /// What stands there where texts are scored.
    pub class_word: String,
    /// What it is.
    pub class: Class,
    /// Its own file, where it is not the model that knows it.
    pub file: Option<String>,
    /// Hash of that file.
    pub file_hash: Option<String>,
    /// Factors of its updates of the UNet and of the text encoder.
    pub scales: [f32; 2],
    /// Pictures that it was trained from, and the hash of all of them.
    pub references: usize,
    /// Their hash.
    pub references_hash: String,
    /// What is asked of it.
    pub prompts: Vec<Prompt>,
}

/// Several concepts in one picture, each in its region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneSettings {
    /// For people and names of files.
    pub name: String,
    /// Numbers of those who are in it, from left to right.
    pub concepts: Vec<usize>,
    /// Where they stand: left, top, right and bottom as parts of the picture.
    pub parts: Vec<[f64; 4]>,
    /// What is around them: `on the beach`.
    pub place: String,
}

/// A tower that scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerSettings {
    /// As it was named; none: the model's own, or the one that ships beside it.
    pub path: Option<String>,
    /// Hash of its weights.
    pub hash: String,
}

/// Boxes of two and of three beside each other: left, top, right, bottom.
const TWO: [[f64; 4]; 2] = [[0.0, 0.15, 0.5, 1.0], [0.5, 0.15, 1.0, 1.0]];
const THREE: [[f64; 4]; 3] =
    [[0.0, 0.25, 0.34, 1.0], [0.33, 0.25, 0.67, 1.0], [0.66, 0.25, 1.0, 1.0]];

impl SceneSettings {
    /// What steers by places steers this one: a sketch shows the places of three.
    pub fn is_steered(&self) -> bool {
        self.concepts.len() == THREE.len()
    }

    /// The scenes of some concepts: each with the one that follows, and three in a row, but for
    /// places, which stand in no region.
    pub fn of(concepts: &[ConceptSettings], place: &str) -> Vec<SceneSettings> {
        let standing: Vec<usize> =
            (0..concepts.len()).filter(|i| concepts[*i].class != Class::Places).collect();
        let scene = |who: &[usize]| {
            let names: Vec<&str> = who.iter().map(|i| concepts[*i].name.as_str()).collect();
            SceneSettings {
                name: names.join("+"),
                concepts: who.to_vec(),
                parts: if who.len() == 2 { TWO.to_vec() } else { THREE.to_vec() },
                place: place.to_string(),
            }
        };
        let two = standing.windows(2).map(scene);
        let three = standing.windows(3).map(scene);
        two.chain(three).collect()
    }
}

impl Settings {
    /// Where a folder has them.
    pub(super) fn place(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads a folder's; none where it has none.
    ///
    /// # Errors
    /// A file that cannot be read, or is another program's.
    pub fn read(folder: &Path) -> Result<Option<Settings>> {
        let path = Settings::place(folder);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
        match value.get("mos_eval") {
            Some(version) if version == FORMAT => {}
            Some(version) => {
                let problem = format!(
                    "the settings of another version of this program (mos_eval {version}, \
                        expected {FORMAT})"
                );
                return Err(Error::file(&path, problem));
            }
            None => {
                let problem = "not the settings of an evaluation: name another folder";
                return Err(Error::file(&path, problem));
            }
        }
        serde_json::from_value(value).map(Some).map_err(|e| Error::file(&path, e.to_string()))
    }

    /// Writes them into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&Settings::place(folder), self)
    }

    /// In what two of them differ, by keys; names of files and models are no difference where
    /// their hashes agree.
    pub fn differences(&self, other: &Settings) -> Vec<String> {
        let value = |settings: &Settings| serde_json::to_value(settings).unwrap_or_default();
        let mut found = Vec::new();
        differ("", &value(self), &value(other), &mut found);
        found
    }
}

/// Names only.
const NAMES: [&str; 4] = ["model", "file", "path", "network"];
/// Lists whose members have names.
const NAMED: [&str; 2] = ["concepts", "controls"];

fn differ(key: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    let within = |name: &str| if key.is_empty() { name.into() } else { format!("{key}.{name}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            // Concepts' names are those of pictures' files; controls' are for people alone.
            let is_name = |name: &str| {
                NAMES.contains(&name) || name == "name" && key.starts_with("controls.")
            };
            for name in keys.into_iter().filter(|name| !is_name(name)) {
                let nothing = Value::Null;
                let (a, b) = (a.get(name).unwrap_or(&nothing), b.get(name).unwrap_or(&nothing));
                differ(&within(name), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && NAMED.contains(&key) => {
            for (a, b) in a.iter().zip(b) {
                let name = a["name"].as_str().unwrap_or_default().to_string();
                differ(&within(&name), a, b, found);
            }
        }
        _ if a != b => found.push(key.to_string()),
        _ => {}
    }
}

/// A file of JSON, whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
    write_text(path, &(text + "\n"))
}

/// A file of text, whole or not at all; the same bytes are left alone.
pub(super) fn write_text(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    crate::output::write(path, |out| out.write_all(text.as_bytes()))
        .map_err(Error::io(path, "write"))
}

#[cfg(test)]
pub(super) fn sample() -> Settings {
    let concept = |name: &str, class| ConceptSettings {
        name: name.into(),
        phrase: format!("<{name}1> <{name}2>"),
        class_word: if class == Class::Places { "place" } else { "man" }.into(),
        class,
        file: None,
        file_hash: None,
        scales: [1.0, 1.0],
        references: 2,
        references_hash: "0".into(),
        prompts: ["a <TOK> here", "a <TOK> there"]
            .map(|text| Prompt { kind: "recontext".into(), text: text.into() })
            .to_vec(),
    };
    let concepts = vec![
        concept("a", Class::People),
        concept("b", Class::People),
        concept("land", Class::Places),
        concept("c", Class::Animals),
    ];
    Settings {
        mos_eval: FORMAT,
        model: "both".into(),
        model_hash: "1".into(),
        scenes: SceneSettings::of(&concepts, "on the beach"),
        concepts,
        pictures: 2,
        together: 1,
        one_prompt: 0,
        scene_strength: 1.0,
        controls: Vec::new(),
        seed: 5,
        size: [128, 128],
        steps: 2,
        guidance: 3.0,
        sampler: "dpmpp-2m".into(),
        precision: "as-stored".into(),
        towers: [("clip".to_string(), TowerSettings { path: None, hash: "2".into() })].into(),
        judge: "clip".into(),
        as_published: false,
    }
}

#[cfg(test)]
pub(super) fn sample_control() -> ControlSource {
    ControlSource {
        network: "t2i_adapter".into(),
        network_hash: Some("4".into()),
        image: crate::pipeline::recipe::Source { path: "sketch.png".into(), sha256: "5".into() },
        make: None,
        name: "t2i_adapter".into(),
        weight: 1.0,
        start: 0.0,
        end: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_differ_by_what_they_do() {
        let with = |control| Settings { controls: vec![control], ..sample() };
        let (none, one) = (sample(), with(sample_control()));
        assert_eq!(none.differences(&one), ["controls"]);
        let mut other = sample_control();
        other.network = "copied/adapter".into();
        other.name = "adapter".into();
        other.image.path = "elsewhere.png".into();
        assert!(one.differences(&with(other.clone())).is_empty());
        other.weight = 0.5;
        other.image.sha256 = "6".into();
        other.network_hash = Some("7".into());
        assert_eq!(
            one.differences(&with(other)),
            ["image.sha256", "network_hash", "weight"]
                .map(|key| format!("controls.t2i_adapter.{key}"))
        );
    }

    #[test]
    fn what_differs_is_named_and_names_are_no_difference() {
        let a = sample();
        let mut b = Settings { model: "elsewhere/both".into(), ..sample() };
        assert!(a.differences(&b).is_empty());
        b.steps = 3;
        b.concepts[1].class_word = "woman".into();
        b.towers.insert("dino".into(), TowerSettings { path: None, hash: "3".into() });
        assert_eq!(a.differences(&b), ["concepts.b.class_word", "steps", "towers.dino"]);
        b.concepts.pop();
        assert!(a.differences(&b).contains(&"concepts".to_string()));
    }

    #[test]
    fn scenes_are_of_those_who_stand() {
        let scenes = sample().scenes;
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        assert_eq!(names, ["a+b", "b+c", "a+b+c"]);
        assert_eq!(scenes[1].concepts, [1, 3]);
        assert!(scenes.iter().all(|scene| scene.parts.len() == scene.concepts.len()));
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Settings::read(folder.path()).unwrap().is_none());
        sample().write(folder.path()).unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), Some(sample()));
        // As it was before there were controls.
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!text.contains("controls"), "{text}");
        let steered = Settings { controls: vec![sample_control()], ..sample() };
        steered.write(folder.path()).unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), Some(steered));
        for (text, said) in
            [("{}", "not the settings"), ("{\"mos_eval\": 9}", "version"), ("{", "")]
        {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let error = Settings::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(said), "{error}");
        }
    }
}
