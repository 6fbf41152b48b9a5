//! What a fusion tells of itself, in figures.

use crate::numbers::counted;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::base::Base;
use super::groups::Stage;
use super::members::FusedConcept;
use super::settings::Settings;
use super::solve::{Conditioning, Measures, RidgeChoice, Solver, Way};

/// A whole fusion.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The base model, as it was named.
    pub base: String,
    /// Its hash, in hexadecimal digits.
    pub base_hash: String,
    /// What went in.
    pub concepts: Vec<ConceptReport>,
    /// The way that layers were solved, in words.
    pub solver: String,
    /// All settings.
    pub settings: Settings,
    /// One for each that had layers to solve.
    pub stages: Vec<StageReport>,
    /// Which concepts will be in each other's way, worst first, told from what they read and want
    /// in the UNet; empty where nothing was recorded, or where there are very many.
    pub conflicts: Vec<Conflict>,
    /// None where there was none.
    pub distillation: Option<DistillationReport>,
    /// Device memory while the UNet is sampled: weights, activations and inputs.
    pub device_bytes: u64,
    /// Memory of the largest stage's statistics, on the device and on the host: the same for any
    /// number of concepts.
    pub statistics_bytes: u64,
    /// The keys of the concepts, batch by batch, where some were added to what was there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Vec<String>>,
    /// What the note tells of stages that were restored.
    #[serde(skip)]
    pub(super) noted: Option<Value>,
    /// What was left out, in sentences for the user.
    pub notes: Vec<String>,
}

/// One concept that went in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConceptReport {
    /// The concept's own, or its file's.
    pub name: String,
    /// What stands for it in prompts.
    pub phrase: String,
    /// As prompts have them, renamed ones under their new names.
    pub words: Vec<String>,
    /// Hash of what it is and of its strengths.
    pub key: String,
    /// Its file.
    pub path: String,
    /// Factor of its updates of the UNet.
    pub unet: f32,
    /// Factor of its updates of the text encoder.
    pub text: f32,
    /// How often it was listed.
    pub weight: f64,
}

/// Two concepts, and how much they are in each other's way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conflict {
    /// Their names.
    pub concepts: [String; 2],
    /// What the two alone would miss if they were fused without a ridge, in parts of the squares of
    /// what they change: the overlap of their inputs weighed by the difference of what they want.
    /// 0: they are not in each other's way; 0.25 or so: they read the same and want something else.
    pub predicted: f64,
    /// How alike their inputs are, -1 to 1, whatever they want.
    pub alike: f64,
}

/// A stage that solved for layers.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Which one.
    pub stage: Stage,
    /// The ridge, and how it was chosen.
    pub ridge: RidgeChoice,
    /// One for each input that layers share.
    pub sites: Vec<SiteReport>,
    /// Concepts whose statistics were taken when earlier stages had fused something else.
    pub stale: Vec<String>,
    /// Concepts whose inputs were recorded in another fusion too: how far they have moved since, in
    /// parts of their norm. Of the keys' and values' stage it is what the UNet sees change.
    pub moved: Vec<(String, f64)>,
    /// Taking statistics, and solving.
    pub seconds: [f64; 2],
}

/// Layers that read the same inputs.
#[derive(Clone, Debug, Serialize)]
pub struct SiteReport {
    /// What the solution does.
    pub measures: Measures,
    /// The same for plain averaging.
    pub averaged: Measures,
    /// None of solvers that don't tell.
    pub conditioning: Option<Conditioning>,
    /// LoRACLR's loss at the exact solution, and in the end; none of other solvers.
    pub objective: Option<[f64; 2]>,
    /// Norm of each layer's change in parts of its weight's norm.
    pub changes: Vec<f64>,
}

/// A whole stage and concept: root mean square over its layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Residual {
    /// 1 is the base model's, 0 the concept's own answer.
    pub fused: f64,
    /// The same for plain averaging.
    pub averaged: f64,
    /// Both on inputs from other seeds and prompts, where such were recorded.
    pub held_out: Option<[f64; 2]>,
}

impl Report {
    pub(super) fn new(base: &Base, members: &[FusedConcept], settings: &Settings) -> Report {
        let concept = |member: &FusedConcept| ConceptReport {
            name: member.name.clone(),
            phrase: member.phrase.clone(),
            words: member.words.iter().map(|word| word.text.clone()).collect(),
            key: member.key.clone(),
            path: member.path.display().to_string(),
            unet: member.scales[0],
            text: member.scales[1],
            weight: member.weight,
        };
        Report {
            base: base.checkpoint.path.display().to_string(),
            base_hash: base.hash.to_string(),
            concepts: members.iter().map(concept).collect(),
            solver: match settings.solver {
                Solver::Exact(_) => "exact".into(),
                Solver::Lbfgs(_) => "lbfgs".into(),
                Solver::Loraclr(loraclr) => format!(
                    "LoRACLR from the exact solution, margin {}, weight decay {}",
                    loraclr.margin, loraclr.decay
                ),
                Solver::Average => "average".into(),
                Solver::Merge(merge) => match merge.way {
                    Way::Sum => "sum".into(),
                    Way::Ties => format!("TIES, density {}", merge.density),
                    Way::Dare => format!("DARE, density {}", merge.density),
                },
            },
            settings: settings.clone(),
            stages: Vec::new(),
            history: Vec::new(),
            noted: None,
            conflicts: Vec::new(),
            distillation: None,
            device_bytes: 0,
            statistics_bytes: 0,
            notes: members.iter().filter(|member| member.left_out > 0).map(left_out).collect(),
        }
    }
}

fn left_out(member: &FusedConcept) -> String {
    let (name, count) = (&member.name, counted(member.left_out, "update"));
    format!(
        "left out: {count} of convolutions by `{name}`; only linear layers and 1x1 convolutions \
            can be fused"
    )
}

impl StageReport {
    /// How well each concept is answered: sqrt(sum of missed / sum of wanted squares) over the
    /// stage's layers; none where it wants nothing.
    pub fn residuals(&self) -> Vec<Option<Residual>> {
        let sum = |pick: &dyn Fn(&SiteReport) -> &Measures, held_out: bool, concept: usize| {
            let layers = self.sites.iter().flat_map(|site| &pick(site).layers);
            let energies = layers.filter_map(|layer| {
                if held_out { layer.held_out.get(concept) } else { layer.energies.get(concept) }
            });
            let [missed, wanted] =
                energies.fold([0.0, 0.0], |[a, b], [missed, wanted]| [a + missed, b + wanted]);
            (wanted > 0.0).then(|| (missed / wanted).sqrt())
        };
        let count = self
            .sites
            .iter()
            .flat_map(|site| &site.measures.layers)
            .map(|layer| layer.energies.len())
            .max()
            .unwrap_or(0);
        (0..count)
            .map(|i| {
                let both = |held_out| {
                    Some([sum(&|s| &s.measures, held_out, i)?, sum(&|s| &s.averaged, held_out, i)?])
                };
                let [fused, averaged] = both(false)?;
                Some(Residual { fused, averaged, held_out: both(true) })
            })
            .collect()
    }

    /// What ordinary prompts lose, in parts of what the concepts' own changes would do to them: the
    /// mean over the layers.
    pub fn base_loss(&self) -> Option<f64> {
        let losses: Vec<f64> = self
            .sites
            .iter()
            .flat_map(|site| &site.measures.layers)
            .filter_map(|layer| layer.base_loss)
            .collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// LoRACLR's loss at the exact solution and in the end, as the mean over the sites.
    pub fn objective(&self) -> Option<[f64; 2]> {
        let found: Vec<[f64; 2]> = self.sites.iter().filter_map(|site| site.objective).collect();
        let mean =
            |which: usize| found.iter().map(|both| both[which]).sum::<f64>() / found.len() as f64;
        (!found.is_empty()).then(|| [mean(0), mean(1)])
    }

    /// How much of each concept's change reaches the others' inputs: row i, column j as in
    /// [`super::solve::LayerMeasures::contact`], weighted over the layers by the change of j.
    pub fn contact(&self) -> Vec<Vec<f64>> {
        let layers: Vec<_> = self.sites.iter().flat_map(|site| &site.measures.layers).collect();
        let count = layers.iter().map(|layer| layer.contact.len()).max().unwrap_or(0);
        let of_pair = |i: usize, j: usize| {
            let weighed = layers.iter().filter_map(|layer| {
                Some((layer.contact.get(i)?.get(j)?, layer.energies.get(j)?[1]))
            });
            let (sum, weight) =
                weighed.fold((0.0, 0.0), |(sum, weight), (value, w)| (sum + value * w, weight + w));
            if weight > 0.0 { sum / weight } else { 0.0 }
        };
        (0..count).map(|i| (0..count).map(|j| of_pair(i, j)).collect()).collect()
    }

    /// The layers that answer worst: name, concept's number, residual.
    pub fn worst(&self, count: usize) -> Vec<(String, usize, f64)> {
        let layers = self.sites.iter().flat_map(|site| &site.measures.layers);
        let mut all: Vec<(String, usize, f64)> = layers
            .flat_map(|layer| {
                let named = layer.residuals.iter().enumerate();
                named.filter_map(|(i, residual)| Some((layer.layer.clone(), i, (*residual)?)))
            })
            .collect();
        all.sort_by(|a, b| b.2.total_cmp(&a.2));
        all.truncate(count);
        all
    }
}

/// The report as Markdown.
pub fn markdown(report: &Report, pictures: &[(String, String)]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |s: String| {
        let _ = writeln!(text, "{s}");
    };
    line(format!("# {} in one model\n", counted(report.concepts.len(), "concept")));
    line(format!("{}\n", report.verdict()));
    line(format!(
        "Base model: `{}` (hash {}). Solver: {}.\n",
        report.base, &report.base_hash, report.solver
    ));
    line("| concept | in prompts | unet | text |\n|---|---|---|---|".into());
    for concept in &report.concepts {
        line(format!(
            "| {} | `{}` | {} | {} |",
            concept.name, concept.phrase, concept.unet, concept.text
        ));
    }
    for (title, file) in pictures {
        line(format!("\n## {title}\n\n![{title}]({file})"));
    }
    for stage in &report.stages {
        line(format!("\n## The {}\n", stage.stage.title()));
        line(format!(
            "{}. Ridge: {:.1e} of the mean diagonal, towards {}{}.",
            counted(stage.sites.iter().map(|site| site.changes.len()).sum::<usize>(), "layer"),
            stage.ridge.ridge,
            stage.ridge.towards,
            match (stage.ridge.points.is_empty(), stage.ridge.held_out) {
                (true, _) => "",
                (false, true) => {
                    ", chosen from the table below, by inputs that were not solved with"
                }
                (false, false) => ", chosen from the table below",
            }
        ));
        if let Some(loss) = stage.base_loss() {
            line(format!(
                "Ordinary prompts that were not used for solving change by {:.1} % of what a \
                    concept's own file does to them on average (squares of the layers' outputs, \
                    not of pictures: 100 % is as with such a file in use).",
                loss * 100.0
            ));
        }
        if let Some([before, after]) = stage.objective() {
            line(format!(
                "\nLoRACLR's loss, mean over the layers: {before:.4} at the exact solution, \
                    {after:.4} in the end."
            ));
        }
        if !stage.stale.is_empty() {
            line(format!(
                "\nTaken while earlier stages had fused something else: {}.",
                stage.stale.join(", ")
            ));
        }
        let residuals = stage.residuals();
        if residuals.iter().all(Option::is_none) {
            line("\nNo inputs were recorded, so nothing was measured.".into());
            continue;
        }
        line(
            "\nHow far each concept's inputs are from their own answer (0; the base model's \
            answer is 1), of those that were solved with, and of others, from other seeds and \
            prompts:\n"
                .into(),
        );
        line(
            "| concept | fused | averaged | others: fused | averaged |\n|---|---|---|---|---|"
                .into(),
        );
        for (concept, residual) in report.concepts.iter().zip(residuals) {
            if let Some(Residual { fused, averaged, held_out }) = residual {
                let others = held_out.map_or(["".into(), "".into()], |both| {
                    both.map(|residual| format!("{residual:.4}"))
                });
                let [other, other_averaged] = others;
                line(format!(
                    "| {} | {fused:.4} | {averaged:.4} | {other} | {other_averaged} |",
                    concept.name
                ));
            }
        }
        if report.concepts.len() > 1 {
            line(
                "\nHow much of a concept's change (column) reaches the inputs of another (row), \
                per input:\n"
                    .into(),
            );
            let names: Vec<&str> = report.concepts.iter().map(|c| c.name.as_str()).collect();
            line(format!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len())));
            for (name, row) in names.iter().zip(stage.contact()) {
                let cells: Vec<String> = row.iter().map(|v| format!("{v:.2}")).collect();
                line(format!("| {name} | {} |", cells.join(" | ")));
            }
        }
        line(
            "\nThe layers that answer worst:\n\n| layer | concept | residual |\n|---|---|---|"
                .into(),
        );
        for (layer, concept, residual) in stage.worst(8) {
            let name = report.concepts.get(concept).map_or("", |c| c.name.as_str());
            line(format!("| `{layer}` | {name} | {residual:.4} |"));
        }
        if !stage.ridge.points.is_empty() {
            let other = if stage.ridge.held_out { "of other inputs" } else { "to choose by" };
            line(format!(
                "\n| ridge | towards | concepts miss, {other} | of those solved with | ordinary \
                    prompts change |\n|---|---|---|---|---|"
            ));
            for point in &stage.ridge.points {
                let [missed, fitted, lost] =
                    [point.missed, point.fitted, point.lost].map(|part| part * 100.0);
                line(format!(
                    "| {:.1e} | {} | {missed:.2} % | {fitted:.2} % | {lost:.2} % |",
                    point.ridge, point.towards
                ));
            }
        }
        let conditions = stage.sites.iter().filter_map(|site| site.conditioning);
        let (mut rank, mut condition) = (f64::INFINITY, 0.0f64);
        for found in conditions {
            rank = rank.min(found.effective_rank);
            condition = condition.max(found.condition);
        }
        if condition > 0.0 {
            line(format!(
                "\nLeast effective rank of a layer's inputs {rank:.1}, worst condition number \
                    with the ridge {condition:.1e}."
            ));
        }
    }
    if !report.conflicts.is_empty() {
        line("\n## Which concepts are in each other's way\n".into());
        line(
            "Predicted from what they read and want in the UNet: what two of them alone would miss \
                if only they were fused (parts of the squares of what they change; 0 is no \
                conflict). The worst first:\n\n| | | predicted | inputs alike |\n|---|---|---|---|"
                .into(),
        );
        for Conflict { concepts: [a, b], predicted, alike } in report.conflicts.iter().take(10) {
            line(format!("| {a} | {b} | {predicted:.3} | {alike:.2} |"));
        }
        if report.conflicts.len() > 10 {
            line(format!("\n{} of all pairs are left out here.", report.conflicts.len() - 10));
        }
    }
    if let Some(distillation) = &report.distillation {
        line("\n## Distillation\n".into());
        line(format!(
            "{} of rank {} of all fused layers of the UNet{}. Root mean squared error of \
                what it predicts, beside each concept's own \
             UNet:\n",
            counted(distillation.updates, "update"),
            distillation.rank,
            if distillation.used { "" } else { "; they made nothing better and were left out" }
        ));
        line("| | solved layer by layer | distilled |\n|---|---|---|".into());
        let names =
            report.concepts.iter().map(|concept| concept.name.as_str()).chain(["ordinary prompts"]);
        let known = names.zip(&distillation.errors).filter(|(_, errors)| **errors != [0.0; 2]);
        for (name, [before, after]) in known {
            line(format!("| {name} | {before:.4} | {after:.4} |"));
        }
        for SceneReport { concepts, errors: [before, after] } in &distillation.scenes {
            line(format!("| {} | {before:.4} | {after:.4} |", concepts.join(" + ")));
        }
        for SceneReport { concepts, errors: [before, after] } in &distillation.one_prompt {
            let who = concepts.join(" + ");
            line(format!("| {who}, one prompt | {before:.4} | {after:.4} |"));
        }
    }
    if !report.notes.is_empty() {
        line("\n## Notes".into());
        report.notes.iter().for_each(|note| line(format!("\n{note}")));
    }
    line("\n## Settings\n\n| setting | |\n|---|---|".into());
    let settings = serde_json::to_value(&report.settings).unwrap_or_default();
    for (name, value) in settings.as_object().into_iter().flatten() {
        let told = match value {
            Value::Array(list) if name != "size" => {
                let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                match texts.len() {
                    0 => "none".to_string(),
                    1..=8 => {
                        texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
                    }
                    count => format!("{count} of them, in `report.json`"),
                }
            }
            other => in_words(other),
        };
        line(format!("| {name} | {told} |"));
    }
    text
}

/// A setting for people: what it is made of, by names.
fn in_words(value: &Value) -> String {
    let Value::Object(parts) = value else {
        return value.as_str().map_or_else(|| value.to_string(), String::from);
    };
    let part = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => format!("{name}: {}", in_words(value)),
        other => format!("{name} {}", in_words(other)),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

impl Report {
    /// What came of it, in one sentence.
    pub fn verdict(&self) -> String {
        if let Some(distillation) = self.distillation.as_ref().filter(|d| d.used) {
            // Of a model that has grown, those that were not learnt again are not known.
            let all = distillation.errors.iter().take(self.concepts.len());
            let known: Vec<&[f64; 2]> = all.filter(|errors| **errors != [0.0; 2]).collect();
            let concepts = known.len();
            let mean = |which: usize| {
                let errors = known.iter().map(|errors| errors[which].powi(2));
                (errors.sum::<f64>() / concepts.max(1) as f64).sqrt()
            };
            let (before, after) = (mean(0), mean(1));
            let ratio = if before > 0.0 { 100.0 * (1.0 - after / before) } else { 0.0 };
            return format!(
                "**Verdict:** what the fused model predicts for {} is off by {after:.4}, {ratio:.0} \
                    % less than before it was distilled.",
                counted(concepts, "concept")
            );
        }
        let Some(stage) = self.stages.iter().max_by_key(|stage| stage.stage) else {
            return "**Verdict:** nothing was changed.".into();
        };
        let residuals = stage.residuals();
        let told: Vec<(&str, [f64; 2])> = self
            .concepts
            .iter()
            .zip(&residuals)
            .filter_map(|(concept, residual)| {
                let residual = (*residual)?;
                let both = residual.held_out.unwrap_or([residual.fused, residual.averaged]);
                Some((concept.name.as_str(), both.map(|r| 100.0 * r * r)))
            })
            .collect();
        let worst = told.iter().max_by(|a, b| a.1[0].total_cmp(&b.1[0]));
        let Some((name, [most, _])) = worst else {
            return format!(
                "**Verdict:** the concepts' changes were merged ({}), and nothing was measured.",
                self.solver
            );
        };
        let mean = |which: usize| {
            told.iter().map(|(_, both)| both[which]).sum::<f64>() / told.len().max(1) as f64
        };
        format!(
            "**Verdict:** in {}, the concepts miss {:.0} % of what their own files answer \
                (averaged weights {:.0} %), {name} the most, {most:.0} %.",
            stage.stage.title(),
            mean(0),
            mean(1)
        )
    }
}

/// Figures of a distillation.
#[derive(Clone, Debug, Serialize)]
pub struct DistillationReport {
    /// Updates that were made.
    pub updates: usize,
    /// Of what was trained beside each layer.
    pub rank: usize,
    /// Root mean squared error of predictions drawn at random, before and after, of each concept,
    /// then of ordinary prompts if any are kept.
    pub errors: Vec<[f64; 2]>,
    /// The same of scenes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scenes: Vec<SceneReport>,
    /// The same of scenes in one prompt, beside what is predicted for them in regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_prompt: Vec<SceneReport>,
    /// Whether what was trained is in the weights: it is left out where it is no better than what
    /// was there before.
    pub used: bool,
    /// StatisticsCost what the concepts' own models predict, and learning.
    pub seconds: [f64; 2],
    /// Planned device memory of an update: weights, activations and state.
    pub device_bytes: u64,
}

/// Concepts that were learnt beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SceneReport {
    /// Their names.
    pub concepts: Vec<String>,
    /// Root mean squared error, before and after, as of a concept.
    pub errors: [f64; 2],
}
