//! The towers that score a survey.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::settings::TowerSettings;
use super::subject::Reference;
use crate::backend::Device;
use crate::checkpoint::{SHIPPED, Tower, TowerKind};
use crate::metrics::{Embedding, Error, Eye, Likeness, Result, Towers, VisionTower};
use crate::pipeline::Model;
use crate::pipeline::recipe::hex;

/// A tower by what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// CLIP's two: texts and pictures.
    #[default]
    Clip,
    /// DINO's ViT-S/16.
    Dino,
    /// One of DINOv2's.
    DinoV2,
    /// CSD's, of style.
    Style,
    /// A vision tower in CLIP's layout that learnt to tell figures apart: it only says who stands
    /// where.
    Identity,
}

impl Judge {
    /// All of them.
    pub const ALL: [Judge; 5] =
        [Judge::Clip, Judge::Dino, Judge::DinoV2, Judge::Style, Judge::Identity];

    /// As options, settings and scores call it.
    pub fn name(self) -> &'static str {
        match self {
            Judge::Clip => "clip",
            Judge::Dino => "dino",
            Judge::DinoV2 => "dinov2",
            Judge::Style => "csd",
            Judge::Identity => "identity",
        }
    }

    fn kind(self) -> TowerKind {
        match self {
            Judge::Clip | Judge::Identity => TowerKind::Clip,
            Judge::Dino | Judge::DinoV2 => TowerKind::Dino,
            Judge::Style => TowerKind::Style,
        }
    }
}

impl std::str::FromStr for Judge {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Judge::ALL.into_iter().find(|judge| judge.name() == name);
        found.ok_or_else(|| format!("`{name}`: expected clip, dino, dinov2, csd or identity"))
    }
}

/// Towers whose files are open: nothing is on a device yet.
#[derive(Debug, Default)]
pub struct Opened {
    /// Without a path the one that ships.
    towers: BTreeMap<Judge, (Option<PathBuf>, Tower)>,
}

impl Opened {
    /// Opens what `path` holds, as the tower of `judge`.
    ///
    /// # Errors
    /// Files that cannot be read; another kind of tower.
    pub fn open(&mut self, judge: Judge, path: &Path) -> Result<()> {
        let tower = Tower::open(path)?;
        let found =
            if tower.component.config["layer_scale"] == true { Judge::DinoV2 } else { judge };
        let is_other_dino = judge == Judge::Dino && found == Judge::DinoV2
            || judge == Judge::DinoV2 && tower.component.config["layer_scale"] == false;
        if tower.kind != judge.kind() || is_other_dino {
            let (path, found) = (path.to_path_buf(), tower.kind);
            let expected = match judge {
                Judge::Dino => {
                    "one of DINO's (without scaled branches, which DINOv2's have)".into()
                }
                Judge::DinoV2 => "one of DINOv2's (whose branches are scaled)".into(),
                other => other.kind().to_string(),
            };
            return Err(Error::OtherTower { path, found, expected });
        }
        if judge == Judge::Clip && tower.component.config.get("text_config").is_none() {
            let expected = "CLIP with the tower that reads beside the one that sees".into();
            return Err(Error::OtherTower {
                path: path.to_path_buf(),
                found: tower.kind,
                expected,
            });
        }
        self.towers.insert(judge, (Some(path.to_path_buf()), tower));
        Ok(())
    }

    /// Takes the tower that ships for [`Judge::Identity`], unless one was opened. Whether it did: a
    /// build may come without.
    pub(super) fn take_shipped(&mut self) -> Result<bool> {
        if self.brings(Judge::Identity) {
            return Ok(false);
        }
        let Some(tower) = Tower::shipped()? else { return Ok(false) };
        self.towers.insert(Judge::Identity, (None, tower));
        Ok(true)
    }

    /// A tower of `judge` was opened.
    pub fn brings(&self, judge: Judge) -> bool {
        self.towers.contains_key(&judge)
    }

    /// There is a tower of `judge`; CLIP's is there in any case, where the model brings one.
    pub fn has(&self, judge: Judge) -> bool {
        judge == Judge::Clip || self.towers.contains_key(&judge)
    }

    /// What was assumed of their files, in sentences for the user.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.towers.values().flat_map(|(path, tower)| {
            let path = path.as_deref().unwrap_or(Path::new(SHIPPED)).display();
            tower.notes.iter().map(move |note| format!("{path}: {note}"))
        })
    }

    /// As the survey's settings keep them; `model`: whose own CLIP stands in where none was opened.
    ///
    /// # Errors
    /// A model without a vision tower where no CLIP was opened.
    pub fn settings(&self, model: &Model) -> Result<BTreeMap<String, TowerSettings>> {
        let mut all: BTreeMap<String, TowerSettings> = self
            .towers
            .iter()
            .map(|(judge, (path, tower))| {
                let path = path.as_ref().map(|path| path.display().to_string());
                let hash = hex(&tower.component.hash());
                (judge.name().to_string(), TowerSettings { path, hash })
            })
            .collect();
        if !self.towers.contains_key(&Judge::Clip) {
            let own = model.vision.as_ref();
            let own = own.ok_or_else(|| Error::NoVision(model.path.clone()))?;
            let hash = hex(&own.part.component.hash());
            all.insert(Judge::Clip.name().into(), TowerSettings { path: None, hash });
        }
        Ok(all)
    }

    /// Uploads them. `judge` says who stands where.
    ///
    /// # Errors
    /// Towers that cannot be built.
    pub fn load(&self, gpu: &Device, model: &Model, judge: Judge) -> Result<Judges> {
        let vision = |judge: Judge| {
            let opened = self.towers.get(&judge);
            opened.map(|(_, tower)| VisionTower::load(gpu, tower, &[judge.kind()])).transpose()
        };
        let clip = match self.towers.get(&Judge::Clip) {
            Some((_, tower)) => Towers::open(gpu, tower)?,
            None => Towers::load(gpu, model)?,
        };
        Ok(Judges {
            clip,
            dino: vision(Judge::Dino)?,
            dinov2: vision(Judge::DinoV2)?,
            style: vision(Judge::Style)?,
            identity: vision(Judge::Identity)?,
            judge,
        })
    }
}

/// The towers on a device.
pub struct Judges {
    pub(super) clip: Towers,
    dino: Option<VisionTower>,
    dinov2: Option<VisionTower>,
    style: Option<VisionTower>,
    identity: Option<VisionTower>,
    judge: Judge,
}

/// Pictures as each tower sees them; empty where there is no such tower.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    pub clip: Vec<Embedding>,
    pub dino: Vec<Embedding>,
    pub dinov2: Vec<Embedding>,
    pub style: Vec<Embedding>,
}

impl Judges {
    pub(super) fn see(&self, pictures: &[&crate::picture::Picture]) -> Result<Views> {
        let all = |eye: Option<&VisionTower>| -> Result<Vec<Embedding>> {
            match eye {
                Some(eye) => pictures.iter().map(|picture| eye.see(picture)).collect(),
                None => Ok(Vec::new()),
            }
        };
        Ok(Views {
            clip: pictures.iter().map(|picture| self.clip.see(picture)).collect::<Result<_>>()?,
            dino: all(self.dino.as_ref())?,
            dinov2: all(self.dinov2.as_ref())?,
            style: all(self.style.as_ref())?,
        })
    }

    /// Whoever says who stands where.
    pub(super) fn eye(&self) -> &dyn Eye {
        let own = match self.judge {
            Judge::Clip => None,
            Judge::Dino => self.dino.as_ref(),
            Judge::DinoV2 => self.dinov2.as_ref(),
            Judge::Style => self.style.as_ref(),
            Judge::Identity => self.identity.as_ref(),
        };
        own.map_or(&self.clip as &dyn Eye, |tower| tower)
    }

    pub(super) fn likeness(&self, concepts: &[&[Reference]]) -> Result<Likeness> {
        let pairs = |references: &&[Reference]| {
            references.iter().map(|r| (r.picture.clone(), r.mask.clone())).collect::<Vec<_>>()
        };
        Likeness::new(self.eye(), &concepts.iter().map(pairs).collect::<Vec<_>>())
    }
}
