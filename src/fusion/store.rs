//! Statistics as files: one for each subject and stage, in a folder that any number of runs (and
//! machines) may share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, DType, ModelHash, TensorFile, TensorView};
use crate::concept::Concept;
use crate::elsewhere::Elsewhere;

use super::groups::{Site, Stage, StageLayers};
use super::members::FusedConcept;
use super::predictions::Predictions;
use super::settings::Recorded;
use super::solve::{Factors, Group, Layer};
use super::statistics::{Statistics, triangle};
use super::{Error, Result};

/// The file that the state of an interrupted distillation is kept in.
pub(super) const DISTILLATION_STATE: &str = "distillation-state.safetensors";

const KEY: &str = "mos_statistics";
const VERSION: &str = "1";

/// What files of predictions are called, beside the stages' statistics.
pub(super) const PREDICTIONS: &str = "predictions";

/// What files of a model that may grow are called, and the one of its sums.
const GROWN: &str = "grown";
pub(super) const SUMS: &str = "sums";

/// What files of concepts are called, and those of weights that a stage came to.
const CONCEPT: &str = "concept";
pub(super) const WEIGHTS: &str = "weights";
/// How the names of folders begin that are gone when a fusion ends, unless it is killed.
pub(super) const SCRATCH: &str = ".mos-scratch-";

/// The folder.
pub(super) struct Store {
    folder: PathBuf,
    /// What stands behind it.
    elsewhere: Arc<dyn Elsewhere>,
}

/// What statistics were taken of and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    version: String,
    /// The stage's name, or [`PREDICTIONS`].
    stage: String,
    key: String,
    base: String,
    settings: Recorded,
    /// Hash of what earlier stages had fused.
    pub earlier: String,
}

impl Origin {
    pub fn new(
        stage: &str,
        key: &str,
        base: ModelHash,
        settings: Recorded,
        earlier: &str,
    ) -> Origin {
        let (key, base, earlier) = (key.to_string(), base.to_string(), earlier.to_string());
        Origin { version: VERSION.into(), stage: stage.into(), key, base, settings, earlier }
    }

    fn is_like(&self, other: &Origin) -> bool {
        Origin { earlier: String::new(), ..self.clone() }
            == Origin { earlier: String::new(), ..other.clone() }
    }
}

/// A file of statistics that fits.
pub(super) struct Found {
    pub file: TensorFile,
    /// Earlier stages had fused something else when it was made.
    pub stale: bool,
}

impl Store {
    pub fn open(folder: &Path, elsewhere: Arc<dyn Elsewhere>) -> Result<Store> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        Ok(Store { folder: folder.to_path_buf(), elsewhere })
    }

    /// Whether a file is here, brought from elsewhere if need be.
    fn has(&self, path: &Path) -> Result<bool> {
        self.elsewhere.fetch(path).map_err(Error::io(path, "fetch"))
    }

    /// A file that was just written, for others to find.
    fn hand_on(&self, path: &Path) -> Result<()> {
        self.elsewhere.put(path).map_err(Error::io(path, "hand on"))
    }

    /// Removes all files that a fusion puts there, and the folder, unless somebody else has put
    /// something there too: then it stays, as the sentence for the user says.
    pub fn remove(self) -> Result<Option<String>> {
        let fail = |action| Error::io(&self.folder, action);
        for entry in std::fs::read_dir(&self.folder).map_err(fail("read the folder"))? {
            let entry = entry.map_err(fail("read the folder"))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap_or_default();
            // Neither kind is a symbolic link.
            let kind = entry.file_type().map_err(Error::io(&path, "look at"))?;
            if kind.is_file() && is_ours(name) {
                std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
            } else if kind.is_dir() && name.starts_with(SCRATCH) {
                std::fs::remove_dir_all(&path).map_err(Error::io(&path, "remove the folder"))?;
            }
        }
        let stays = std::fs::remove_dir(&self.folder).is_err();
        let why = "there are files in it that this program did not make";
        Ok(stays.then(|| format!("{} stays, for {why}", self.folder.display())))
    }

    fn path(&self, origin: &Origin) -> PathBuf {
        self.folder.join(format!(
            "{}-{}.safetensors",
            origin.stage,
            origin.key.get(..16).unwrap_or(&origin.key)
        ))
    }

    /// The statistics of that origin, if they are there, whole and of `layout`'s shapes. With other
    /// settings, or of another model, they count as not there.
    ///
    /// # Errors
    /// What is elsewhere and cannot be brought.
    pub fn find(&self, origin: &Origin, layout: &StageLayers) -> Result<Option<Found>> {
        let Some((file, written)) = self.opened(origin)? else { return Ok(None) };
        let fits =
            written.is_like(origin) && layout.sites.iter().all(|site| read(&file, site).is_ok());
        Ok(fits.then(|| Found { stale: written.earlier != origin.earlier, file }))
    }

    /// The file of an origin's name, and the origin that it was written for. What cannot be read (a
    /// copy that broke off) is taken again.
    fn opened(&self, origin: &Origin) -> Result<Option<(TensorFile, Origin)>> {
        let path = self.path(origin);
        if !self.has(&path)? {
            return Ok(None);
        }
        let open = || {
            let file = TensorFile::open(&path).ok()?;
            let written = serde_json::from_str(file.metadata().get(KEY)?).ok()?;
            Some((file, written))
        };
        Ok(open())
    }

    /// Writes statistics, whole or not at all.
    pub fn put(
        &self,
        origin: &Origin,
        layout: &StageLayers,
        statistics: &[Statistics],
    ) -> Result<TensorFile> {
        let mut bytes: Vec<(String, DType, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut rows = BTreeMap::new();
        for (site, statistics) in layout.sites.iter().zip(statistics) {
            rows.insert(site.name.clone(), statistics.rows());
            if let Some(samples) = statistics.samples() {
                let shape = vec![samples.len() / site.width.max(1), site.width];
                let data = samples.iter().flat_map(|v| v.to_le_bytes()).collect();
                bytes.push((format!("{}.samples", site.name), DType::F32, shape, data));
            }
            if let Some(sums) = statistics.sums() {
                let data = sums.iter().flat_map(|v| v.to_le_bytes()).collect();
                bytes.push((format!("{}.sums", site.name), DType::F64, vec![sums.len()], data));
            }
        }
        let view = |(name, dtype, shape, data): (String, DType, Vec<usize>, Vec<u8>)| {
            Some((name, TensorView::new(dtype, shape, data)?))
        };
        let tensors: Vec<(String, TensorView)> = bytes.into_iter().filter_map(view).collect();
        let json = |value: serde_json::Result<String>| {
            value.map_err(|e| Error::file(&self.folder, e.to_string()))
        };
        let metadata = BTreeMap::from([
            (KEY.to_string(), json(serde_json::to_string(origin))?),
            (ROWS.to_string(), json(serde_json::to_string(&rows))?),
        ]);
        let path = self.path(origin);
        checkpoint::write(&path, &tensors, &metadata)?;
        self.hand_on(&path)?;
        Ok(TensorFile::open(&path)?)
    }

    /// The file of predictions of that origin, if it is there; whether it is whole is for the
    /// reader to say.
    ///
    /// # Errors
    /// What is elsewhere and cannot be brought.
    pub fn find_predictions(&self, origin: &Origin) -> Result<Option<TensorFile>> {
        let found = self.opened(origin)?;
        Ok(found.filter(|(_, written)| written == origin).map(|(file, _)| file))
    }

    /// Writes predictions, whole or not at all.
    pub fn put_predictions(
        &self,
        origin: &Origin,
        predictions: &Predictions,
    ) -> Result<TensorFile> {
        let origin_text =
            serde_json::to_string(origin).map_err(|e| Error::file(&self.folder, e.to_string()))?;
        let path = self.path(origin);
        checkpoint::write(
            &path,
            &predictions.tensors(),
            &BTreeMap::from([(KEY.to_string(), origin_text)]),
        )?;
        self.hand_on(&path)?;
        Ok(TensorFile::open(&path)?)
    }

    /// The concept itself, so that the folder is enough to add others later.
    pub fn put_concept(&self, member: &FusedConcept) -> Result<PathBuf> {
        let path = self.concept_path(&member.key);
        if !self.has(&path)? {
            member.concept.write(&path)?;
            self.hand_on(&path)?;
        }
        Ok(path)
    }

    /// Where what a model came to is kept: a stage's weights, or [`SUMS`].
    pub fn grown_path(&self, kind: &str, key: &str) -> PathBuf {
        let key = key.get(..16).unwrap_or(key);
        self.folder.join(format!("{GROWN}_{kind}-{key}.safetensors"))
    }

    pub fn concept(&self, key: &str) -> Result<Option<Concept>> {
        let path = self.concept_path(key);
        Ok(if self.has(&path)? { Some(Concept::read(&path)?) } else { None })
    }

    fn concept_path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{CONCEPT}-{}.safetensors", key.get(..16).unwrap_or(key)))
    }
}

/// A file that a fusion puts into its folder, or that it was writing when it was killed.
fn is_ours(name: &str) -> bool {
    let kinds = Stage::ALL.into_iter().map(Stage::name).chain([PREDICTIONS, CONCEPT, WEIGHTS]);
    let of_kind = |kind: &str| {
        let key = name.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(".safetensors")?;
        Some(!key.is_empty() && !key.contains('-'))
    };
    let grown = Stage::ALL.into_iter().map(Stage::name).chain([SUMS]);
    let grown = grown.map(|kind| format!("{GROWN}_{kind}"));
    kinds.into_iter().any(|kind| of_kind(kind) == Some(true))
        || grown.into_iter().any(|kind| of_kind(&kind) == Some(true))
        || name == DISTILLATION_STATE
        || name.starts_with(".mos-") && name.ends_with(".tmp")
}

const ROWS: &str = "mos_rows";

/// One site's statistics out of a file.
pub(super) fn read(file: &TensorFile, site: &Site) -> Result<Statistics> {
    let bad = |problem: &str| Error::file(file.path(), format!("layer `{}`: {problem}", site.name));
    let tensor = |part: &str| file.tensor(&format!("{}.{part}", site.name));
    let statistics = if let Some(view) = tensor("samples") {
        if view.dtype() != DType::F32 || view.shape().get(1) != Some(&site.width) {
            return Err(bad(&format!(
                "expected samples of width {}, found {:?}",
                site.width,
                view.shape()
            )));
        }
        Statistics::from_samples(site.width, view.to_f32(0..view.len()))
    } else if let Some(view) = tensor("sums") {
        if view.dtype() != DType::F64 || view.len() != triangle(site.width) {
            return Err(bad(&format!(
                "expected {} sums, found {}",
                triangle(site.width),
                view.len()
            )));
        }
        let rows: Option<BTreeMap<String, u64>> =
            file.metadata().get(ROWS).and_then(|text| serde_json::from_str(text).ok());
        let rows = rows
            .and_then(|rows| rows.get(&site.name).copied())
            .ok_or_else(|| bad("the number of inputs is missing"))?;
        let sums = view
            .bytes()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect();
        Statistics::from_sums(site.width, rows, sums)
    } else {
        return Err(bad("no statistics of it"));
    };
    // What has been read is in memory now; its pages may go.
    file.advise_dont_need(&format!("{}.sums", site.name));
    if !statistics.is_finite() {
        return Err(bad("numbers that are not finite"));
    }
    Ok(statistics)
}

/// How far `now` is from the statistics in a file: the norm of the difference in parts of the norm.
/// None where only sums are kept, or where there are more or fewer inputs than before.
pub(super) fn moved(before: &TensorFile, layout: &StageLayers, now: &[Statistics]) -> Option<f64> {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (site, now) in layout.sites.iter().zip(now) {
        let before = read(before, site).ok()?;
        let (before, now) = (before.samples()?, now.samples()?);
        if before.len() != now.len() {
            return None;
        }
        for (a, b) in before.iter().zip(now) {
            difference += f64::from(a - b).powi(2);
            norm += f64::from(*b).powi(2);
        }
    }
    (norm > 0.0).then(|| (difference / norm).sqrt())
}

/// One site of a stage, with all concepts' statistics in their files.
pub(super) struct SiteGroup<'a> {
    pub site: &'a Site,
    pub stage: Stage,
    pub members: &'a [FusedConcept],
    pub weights: &'a [f64],
    pub files: &'a [TensorFile],
    /// What was kept aside of each concept; empty where nothing was.
    pub held_out: &'a [TensorFile],
    pub keep: &'a [Option<TensorFile>; 2],
}

impl Group for SiteGroup<'_> {
    fn name(&self) -> &str {
        &self.site.name
    }

    fn width(&self) -> usize {
        self.site.width
    }

    fn layers(&self) -> &[Layer] {
        &self.site.layers
    }

    fn weights(&self) -> &[f64] {
        self.weights
    }

    fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
        let file = self
            .files
            .get(index)
            .ok_or_else(|| Error::option(&self.site.name, "statistics are missing"))?;
        Ok(Cow::Owned(read(file, self.site)?))
    }

    fn held_out(&self, index: usize) -> Result<Option<Cow<'_, Statistics>>> {
        let file = self.held_out.get(index);
        file.map(|file| read(file, self.site).map(Cow::Owned)).transpose()
    }

    fn change(&self, index: usize, layer: usize) -> Option<Factors> {
        let (member, layer) = (self.members.get(index)?, self.site.layers.get(layer)?);
        let set = member.updates.of(self.stage.network());
        let lora = set.layers.get(&layer.name)?.lora()?;
        let matrix = |array: &crate::graph::Array| {
            let (values, columns) = (array.values(), array.shape.channels());
            faer::Mat::from_fn(array.shape.rows(), columns, |i, j| {
                f64::from(values[i * columns + j])
            })
        };
        Some(Factors { up: matrix(&lora.up), down: matrix(&lora.down) })
    }

    fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
        let [solve, measure] = self.keep;
        let load = |file: &Option<TensorFile>| {
            file.as_ref().map(|file| read(file, self.site).map(Cow::Owned)).transpose()
        };
        Ok([load(solve)?, load(measure)?])
    }
}
