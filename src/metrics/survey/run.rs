//! Making and scoring the pictures of a survey.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::judges::{Judges, Views};
use super::places::{REFERENCES, path, record_path, small};
use super::record::{PlaceRecord, Record, hash_of};
use super::report;
use super::subject::Subject;
use super::{Class, Error, Item, Result, Settings, Share};
use crate::elsewhere::Elsewhere;
use crate::graph::Array;
use crate::metrics::{Comparison, Likeness, Place, Sample, Seen, scores};
use crate::picture::{Picture, Sheet, parameters};
use crate::pipeline::recipe::Recipe;
use crate::pipeline::{Control, Generated, MemoryPlan, Pipeline, Request};
use crate::watch::{Progress, Watch, heed};

/// What CLIPScore puts before texts.
const PREFIX: &str = "A photo depicts ";
/// Of the pictures that a concept was trained from, those that its sheets show.
const SHOWN: usize = 8;

/// A survey that can be run.
pub struct Survey {
    /// What it asks for.
    pub settings: Settings,
    /// In the order of the settings' concepts.
    pub subjects: Vec<Subject>,
    /// What all pictures have in common: model, precision, sampler, size, steps, guidance; each
    /// has its own prompt, regions, seed and concepts.
    pub recipe: Recipe,
    /// The settings' controls, opened, in the same order.
    pub controls: Vec<Control>,
    /// What stands behind the folder: what is made is handed on there, and what others have made is
    /// brought from there.
    pub elsewhere: Arc<dyn Elsewhere>,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Pictures of this part.
    pub of: usize,
    /// Made now.
    pub made: usize,
    /// Of these, in place of one that was made otherwise.
    pub renewed: usize,
    /// Scored now.
    pub scored: usize,
    /// Pictures of all parts that are not there yet, or not scored.
    pub missing: usize,
    /// What the pipeline told, each sentence once.
    pub warnings: Vec<String>,
}

/// A picture, as it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Other,
    There,
}

impl Survey {
    /// Whether the folder is another survey's, before any work; with `renew`, in which settings it
    /// differs.
    ///
    /// # Errors
    /// Settings that differ, without `renew`; files of something else where results are written;
    /// files that cannot be read.
    pub fn check(&self, folder: &Path, renew: bool) -> Result<Vec<String>> {
        self.fetch(&Settings::place(folder))?;
        let Some(there) = Settings::read(folder)? else {
            let foreign = report::FILES.iter().map(|name| folder.join(name));
            return match foreign.into_iter().find(|path| path.exists()) {
                Some(path) => Err(Error::file(
                    &path,
                    "it is of no evaluation, for there is no settings.json beside it, and would be \
                        written over: name another folder",
                )),
                None => Ok(Vec::new()),
            };
        };
        let differ = self.settings.differences(&there);
        match differ.is_empty() || renew {
            true => Ok(differ),
            false => Err(Error::Other { path: folder.to_path_buf(), differ }),
        }
    }

    fn fetch(&self, path: &Path) -> Result<bool> {
        self.elsewhere.fetch(path).map_err(Error::io(path, "fetch"))
    }

    fn hand_on(&self, path: &Path) -> Result<()> {
        self.elsewhere.put(path).map_err(Error::io(path, "hand on"))
    }

    /// Makes and scores what is missing of `share`, each picture written as soon as it is there, so
    /// that a run that was killed goes on with the next. `watch` is told of the stage `pictures`.
    ///
    /// # Errors
    /// As [`Survey::check`]; files in a picture's place that this program did not make; whatever
    /// sampling and the towers meet; [`Error::Cancelled`].
    pub fn run(
        &self,
        pipeline: &mut Pipeline,
        judges: &Judges,
        folder: &Path,
        share: Share,
        renew: bool,
        watch: &mut Watch,
    ) -> Result<Done> {
        self.check(folder, renew)?;
        let items = self.settings.items();
        let own: Vec<&Item> =
            items.iter().enumerate().filter(|(i, _)| share.holds(*i)).map(|(_, i)| i).collect();
        for item in &own {
            self.fetch(&path(folder, item))?;
            self.fetch(&record_path(folder, item))?;
        }
        // All that stands there is looked at before anything is made.
        let states =
            own.iter().map(|item| self.state(folder, item)).collect::<Result<Vec<State>>>()?;
        let folders =
            own.iter().filter_map(|item| Some(path(folder, item).parent()?.to_path_buf()));
        for made in folders.collect::<std::collections::BTreeSet<PathBuf>>() {
            std::fs::create_dir_all(&made).map_err(Error::io(&made, "make the folder"))?;
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        self.settings.write(folder)?;
        self.hand_on(&Settings::place(folder))?;
        self.show_references(folder)?;
        let mut scorer = None;
        let mut done = Done { of: own.len(), ..Done::default() };
        for (number, (item, state)) in own.iter().zip(states).enumerate() {
            heed(watch(Progress::new("pictures", number, own.len())))?;
            let path = path(folder, item);
            if state != State::There {
                let mut each = |_: Progress| watch(Progress::new("pictures", number, own.len()));
                let recipe = self.recipe_of(item);
                let made = pipeline.generate(&self.request(item), &mut each)?;
                for warning in &made.warnings {
                    if !done.warnings.contains(warning) {
                        done.warnings.push(warning.clone());
                    }
                }
                // Scores of what was there before must not outlive it.
                let record = record_path(folder, item);
                if state == State::Other && record.exists() {
                    std::fs::remove_file(&record).map_err(Error::io(&record, "remove"))?;
                }
                for picture in &made.pictures {
                    picture.save(&path, Some(&recipe.parameters(&made, 0)))?;
                }
                self.hand_on(&path)?;
                done.made += 1;
                done.renewed += usize::from(state == State::Other);
            }
            if self.record(folder, item).is_none() {
                let scorer = match &mut scorer {
                    Some(scorer) => scorer,
                    none => none.insert(Scorer::new(self, judges)?),
                };
                let record = record_path(folder, item);
                scorer.score(item, &path)?.write(&record)?;
                self.hand_on(&record)?;
                done.scored += 1;
            }
        }
        heed(watch(Progress::new("pictures", own.len(), own.len())))?;
        for (_, item) in items.iter().enumerate().filter(|(i, _)| !share.holds(*i)) {
            self.fetch(&path(folder, item))?;
            self.fetch(&record_path(folder, item))?;
        }
        done.missing = items.iter().filter(|item| self.record(folder, item).is_none()).count();
        Ok(done)
    }

    /// The record of an item's picture, if both are there and belong to each other.
    fn record(&self, folder: &Path, item: &Item) -> Option<Record> {
        let record = Record::read(&record_path(folder, item))?;
        let fits = record.scoring == self.settings.scoring(item)
            && hash_of(&path(folder, item)).is_ok_and(|hash| hash == record.picture);
        fits.then_some(record)
    }

    pub(super) fn request(&self, item: &Item) -> Request {
        let own = |who: &usize| self.subjects.get(*who)?.own.as_ref();
        let mut regions = item.regions.clone();
        let strength = self.settings.scene_strength;
        if strength != 1.0 {
            for (region, who) in regions.regions.iter_mut().zip(&item.concepts) {
                if let Some((own, _)) = own(who) {
                    let concept = own.concept();
                    let word = concept.words.first().map_or(&concept.name, |word| &word.text);
                    region.concepts.insert(word.clone(), strength);
                }
            }
        }
        Request {
            prompt: item.prompt.clone(),
            regions,
            seed: item.seed,
            batch: 1,
            controls: if item.is_steered { self.controls.clone() } else { Vec::new() },
            concepts: item.concepts.iter().filter_map(own).map(|(own, _)| own.clone()).collect(),
            ..self.recipe.request.clone()
        }
    }

    fn recipe_of(&self, item: &Item) -> Recipe {
        let own = |who: &usize| self.subjects.get(*who)?.own.as_ref();
        Recipe {
            request: self.request(item),
            concepts: item.concepts.iter().filter_map(own).map(|(_, from)| from.clone()).collect(),
            controls: if item.is_steered { self.settings.controls.clone() } else { Vec::new() },
            ..self.recipe.clone()
        }
    }

    /// Whether an item's picture is there, and as it would be made.
    fn state(&self, folder: &Path, item: &Item) -> Result<State> {
        let path = path(folder, item);
        if !path.exists() {
            return Ok(State::Missing);
        }
        let Some(found) = parameters::read(&path)?.and_then(|found| found.mos) else {
            let problem = "a picture that was not made here, where one is to be made: name another \
                folder";
            return Err(Error::file(&path, problem));
        };
        let wanted = self.recipe_of(item).parameters(&self.as_if_made(item), 0).mos;
        Ok(match wanted.is_some_and(|wanted| without_names(wanted) == without_names(found)) {
            true => State::There,
            false => State::Other,
        })
    }

    /// What making an item will tell of it.
    fn as_if_made(&self, item: &Item) -> Generated {
        let [width, height] = self.settings.size;
        let request = &self.recipe.request;
        Generated {
            pictures: Vec::new(),
            latents: Array::f32([0], Vec::new()),
            seeds: vec![item.seed],
            sampler: request.sampler.unwrap_or(crate::scheduler::sampler::SamplerKind::DPMPP_2M),
            width,
            height,
            warnings: Vec::new(),
            stages: Vec::new(),
            first_pass: None,
            peak_device_bytes: 0,
            planned: MemoryPlan::default(),
        }
    }

    /// What concepts were trained from, in a row, for their sheets.
    fn show_references(&self, folder: &Path) -> Result<()> {
        for (concept, subject) in self.settings.concepts.iter().zip(&self.subjects) {
            let folder = folder.join("pictures").join(&concept.name);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "make the folder"))?;
            let small = subject.references.iter().take(SHOWN).map(|r| small(&r.picture));
            let small = small.collect::<crate::picture::Result<Vec<_>>>()?;
            let row = Sheet { rows: vec![small.iter().map(Some).collect()], ..Sheet::default() };
            let mut bytes = Vec::new();
            let path = folder.join(format!("{REFERENCES}.png"));
            row.draw()?.write_to(&mut bytes, None).map_err(Error::io(&path, "write"))?;
            if std::fs::read(&path).ok().as_deref() != Some(&bytes) {
                crate::output::write(&path, |out| out.write_all(&bytes))
                    .map_err(Error::io(&path, "write"))?;
                self.hand_on(&path)?;
            }
        }
        Ok(())
    }
}

/// A recipe without what tells where its files were and which machine made it.
fn without_names(mut recipe: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                // The names of regions count, and those of networks without a hash.
                let is_hashed = map.contains_key("hash") || map.contains_key("network_hash");
                for key in ["path", "adapter", "version"] {
                    map.remove(key);
                }
                if is_hashed {
                    map.remove("name");
                    map.remove("network");
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut recipe);
    recipe
}

/// Towers, with what they know of the concepts.
struct Scorer<'a> {
    survey: &'a Survey,
    judges: &'a Judges,
    /// Of each concept.
    trained_on: Vec<Views>,
    /// Of those who can stand in a region; only where there are such pictures.
    likeness: Option<Likeness>,
    /// Their numbers.
    standing: Vec<usize>,
}

impl<'a> Scorer<'a> {
    fn new(survey: &'a Survey, judges: &'a Judges) -> Result<Scorer<'a>> {
        let settings = &survey.settings;
        let seen = |subject: &Subject| {
            let count = if settings.as_published { 1 } else { subject.references.len() };
            let pictures: Vec<&Picture> =
                subject.references.iter().take(count).map(|r| &r.picture).collect();
            judges.see(&pictures)
        };
        let trained_on = survey.subjects.iter().map(seen).collect::<Result<_, _>>()?;
        let stands = |i: &usize| settings.concepts[*i].class != Class::Places;
        let standing: Vec<usize> = (0..settings.concepts.len()).filter(stands).collect();
        let likeness =
            match settings.scenes.is_empty() || settings.together + settings.one_prompt == 0 {
                true => None,
                false => {
                    let references: Vec<_> =
                        standing.iter().map(|i| &survey.subjects[*i].references[..]).collect();
                    Some(judges.likeness(&references)?)
                }
            };
        Ok(Scorer { survey, judges, trained_on, likeness, standing })
    }

    fn score(&self, item: &Item, path: &Path) -> Result<Record> {
        let settings = &self.survey.settings;
        let picture = Picture::open(path)?;
        let made = self.judges.see(&[&picture])?;
        let texts = [self.judges.clip.text(&format!("{PREFIX}{}", item.text))?];
        let mut record = Record::new(hash_of(path)?, settings.scoring(item));
        let nothing = Views::default();
        // Who is in a picture of several, each place tells for itself.
        let trained_on = match (item.scene, &item.concepts[..]) {
            (None, [who]) => &self.trained_on[*who],
            _ => &nothing,
        };
        let (places, comparisons) = match (item.scene, &self.likeness) {
            (Some(scene), Some(likeness)) => self.places(scene, &picture, likeness)?,
            _ => (Vec::new(), Vec::new()),
        };
        let sample = Sample {
            seen: &made.clip,
            texts: &texts,
            trained_on: &trained_on.clip,
            dino: Seen { made: &made.dino, trained_on: &trained_on.dino },
            dinov2: Seen { made: &made.dinov2, trained_on: &trained_on.dinov2 },
            style: Seen { made: &made.style, trained_on: &trained_on.style },
            places: &places,
            comparisons: &comparisons,
            ..Sample::default()
        };
        record.scores = scores(&sample).iter().map(|(name, v)| (name.to_string(), v)).collect();
        let name = |at: usize| settings.concepts[self.standing[at]].name.clone();
        record.places = places
            .iter()
            .map(|place| PlaceRecord {
                expected: name(place.expected),
                likeness: place.likeness.iter().enumerate().map(|(i, v)| (name(i), *v)).collect(),
            })
            .collect();
        Ok(record)
    }

    fn places(
        &self,
        scene: usize,
        picture: &Picture,
        likeness: &Likeness,
    ) -> Result<(Vec<Place>, Vec<Comparison>)> {
        let scene = &self.survey.settings.scenes[scene];
        let at = |who: &usize| self.standing.iter().position(|i| i == who).unwrap_or(0);
        let here: Vec<usize> = scene.concepts.iter().map(at).collect();
        let mut places = Vec::new();
        for (expected, part) in here.iter().zip(&scene.parts) {
            let likeness = likeness.of_part(self.judges.eye(), picture, *part)?;
            places.push(Place { likeness, expected: *expected });
        }
        let found = places.iter().map(|p| here.iter().map(|i| p.likeness[*i]).collect()).collect();
        let expected =
            here.iter().map(|i| here.iter().map(|j| likeness.between(*i, *j)).collect()).collect();
        Ok((places, vec![Comparison { found, expected }]))
    }
}
