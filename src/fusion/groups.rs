//! Which layers are solved for in which stage, and which of them read the same inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::concept::Network;
use crate::graph::{Graph, Tensor};
use crate::models::config::{ClipTextConfig, UNetConfig};
use crate::models::unet;
use crate::nn::{Hook, Layers};
use crate::sd::Reading;
use crate::sd::denoiser::{StepShape, build_step};
use crate::sd::text::read;

use super::base::Base;
use super::members::FusedConcept;
use super::solve::Layer;
use super::{Error, Result};

/// The stages that solve for weights, in order; each sees what the ones before it fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// All of the text encoder.
    Text,
    /// All of the second one, where a model has two.
    #[serde(rename = "text_2")]
    Text2,
    /// Keys and values of the UNet's cross-attentions: all that it reads of the text.
    Cross,
    /// Everything else in the UNet.
    Spatial,
}

impl Stage {
    /// All, in the order in which they run.
    pub const ALL: [Stage; 4] = [Stage::Text, Stage::Text2, Stage::Cross, Stage::Spatial];

    /// It solves for layers of a text encoder.
    pub fn is_text(self) -> bool {
        self.network().is_text_encoder()
    }

    /// As watches, files and JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Text => "text",
            Stage::Text2 => "text_2",
            Stage::Cross => "cross",
            Stage::Spatial => "spatial",
        }
    }

    /// The network whose layers it solves for.
    pub fn network(self) -> Network {
        match self {
            Stage::Text => Network::TextEncoder,
            Stage::Text2 => Network::TextEncoder2,
            Stage::Cross | Stage::Spatial => Network::UNet,
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Text => "text encoder",
            Stage::Text2 => "second text encoder",
            Stage::Cross => "keys and values of cross-attention",
            Stage::Spatial => "the rest of the UNet",
        }
    }
}

/// Layers with one input between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The first layer's name.
    pub name: String,
    pub width: usize,
    pub layers: Vec<Layer>,
}

/// The layers of a stage that any concept changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StageLayers {
    pub sites: Vec<Site>,
}

impl StageLayers {
    /// Of `stage`, for these concepts; layers that the model lacks, or whose shapes differ, are
    /// errors.
    pub fn of(stage: Stage, base: &Base, members: &[FusedConcept]) -> Result<StageLayers> {
        let kv: BTreeSet<String> = base
            .model
            .attentions
            .iter()
            .flat_map(|a| ["to_k", "to_v"].map(|part| format!("{}.{part}", a.name)))
            .collect();
        let mut wanted: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for member in members {
            let mine = member.updates.of(stage.network()).layers.iter().filter(|(layer, _)| {
                stage.is_text() || kv.contains(*layer) == (stage == Stage::Cross)
            });
            for (layer, update) in mine {
                let shape = *wanted.entry(layer.clone()).or_insert_with(|| update.channels());
                if shape != update.channels() {
                    let ((into, out), (other_into, other_out)) = (update.channels(), shape);
                    let problem = format!(
                        "its update of `{layer}` is for {into} to {out} channels, another \
                            concept's for {other_into} to {other_out}"
                    );
                    return Err(Error::concept(&member.name, problem));
                }
            }
        }
        if stage.is_text() {
            leave_unread(stage, base, &mut wanted)?;
        }
        let layout = match stage {
            Stage::Cross => cross(base, &wanted),
            _ => built(stage, base, &wanted)?,
        };
        let found: HashMap<&str, (usize, usize)> = layout
            .sites
            .iter()
            .flat_map(|site| site.layers.iter().map(|l| (l.name.as_str(), (site.width, l.out))))
            .collect();
        for (layer, &(into, out)) in &wanted {
            let has = |member: &&FusedConcept| {
                member.updates.of(stage.network()).layers.contains_key(layer)
            };
            let name = members.iter().find(has).map_or("", |member| &member.name);
            match found.get(layer.as_str()) {
                None => {
                    return Err(Error::concept(
                        name,
                        format!("it changes `{layer}`, which is no linear layer of the model's"),
                    ));
                }
                Some(&shape) if shape != (into, out) => {
                    let (expected_in, expected_out) = shape;
                    let problem = format!(
                        "its update of `{layer}` is for {into} to {out} channels, the model has \
                            {expected_in} to {expected_out}"
                    );
                    return Err(Error::concept(name, problem));
                }
                Some(_) => {}
            }
        }
        Ok(layout)
    }

    pub fn names(&self) -> Vec<String> {
        self.sites
            .iter()
            .flat_map(|site| site.layers.iter().map(|layer| layer.name.clone()))
            .collect()
    }

    /// The input of each site, among what was hooked.
    pub fn inputs(&self, hooks: &[Hook]) -> Result<Vec<Tensor>> {
        let find = |site: &Site| {
            let hook = hooks.iter().find(|hook| hook.layer == site.name);
            hook.map(|hook| hook.input)
                .ok_or_else(|| Error::option(&site.name, "this layer is not in the graph"))
        };
        self.sites.iter().map(find).collect()
    }
}

/// Keys and values read the text: one site for each cross-attention.
fn cross(base: &Base, wanted: &BTreeMap<String, (usize, usize)>) -> StageLayers {
    let site = |attention: &unet::CrossAttention| {
        let names = ["to_k", "to_v"].map(|part| format!("{}.{part}", attention.name));
        let layers: Vec<Layer> = names
            .into_iter()
            .filter(|name| wanted.contains_key(name))
            .map(|name| Layer { name, out: attention.channels })
            .collect();
        let name = layers.first()?.name.clone();
        Some(Site { name, width: base.unet().cross_attention_dim, layers })
    };
    StageLayers { sites: base.model.attentions.iter().filter_map(site).collect() }
}

/// The other layers, as they come when the network is built.
fn built(
    stage: Stage,
    base: &Base,
    wanted: &BTreeMap<String, (usize, usize)>,
) -> Result<StageLayers> {
    let mut graph = Graph::new();
    let hooks = match stage {
        Stage::Text | Stage::Text2 => {
            let encoder = base.encoder(stage.network());
            hooks_of_text(&mut graph, &encoder.part.config, encoder.reading, wanted)?
        }
        _ => {
            let layers: Vec<String> = wanted.keys().cloned().collect();
            return StageLayers::of_unet(
                base.unet(),
                &StepShape::smallest(base.unet(), 1),
                &layers,
            );
        }
    };
    Ok(StageLayers::hooked(&graph, hooks))
}

/// What is hooked of a text encoder, read in this way.
fn hooks_of_text(
    graph: &mut Graph,
    config: &ClipTextConfig,
    reading: Reading,
    wanted: &BTreeMap<String, (usize, usize)>,
) -> Result<Vec<Hook>> {
    let x = graph.input("embedded", [1, 1, config.hidden_size]);
    let ends = reading.pooled.then(|| graph.input_ids("ends", [1]));
    let mut layers = Layers::new(graph);
    layers.hook(wanted.keys().cloned());
    read(&mut layers, config, reading, x, ends, 0)?;
    Ok(layers.hooks().to_vec())
}

/// Layers that a text encoder has, but of which nothing reaches the UNet, stay as they are.
fn leave_unread(
    stage: Stage,
    base: &Base,
    wanted: &mut BTreeMap<String, (usize, usize)>,
) -> Result<()> {
    let encoder = base.encoder(stage.network());
    if !encoder.reading.before_last || encoder.network != stage.network() {
        return Ok(());
    }
    let names = |reading| -> Result<BTreeSet<String>> {
        let hooks = hooks_of_text(&mut Graph::new(), &encoder.part.config, reading, wanted)?;
        Ok(hooks.into_iter().map(|hook| hook.layer).collect())
    };
    let (all, used) = (names(Reading::default())?, names(encoder.reading)?);
    wanted.retain(|layer, _| used.contains(layer) || !all.contains(layer));
    Ok(())
}

impl StageLayers {
    /// These layers of a UNet, by what they read.
    pub fn of_unet(
        config: &UNetConfig,
        shape: &StepShape,
        layers: &[String],
    ) -> Result<StageLayers> {
        let mut graph = Graph::new();
        let mut hooks = Vec::new();
        build_step(config, &mut graph, shape, layers, |_, found, _| {
            hooks = found.to_vec();
            Ok(Vec::new())
        })?;
        Ok(StageLayers::hooked(&graph, hooks))
    }

    /// Hooked layers, by what they read.
    pub fn hooked(graph: &Graph, hooks: Vec<Hook>) -> StageLayers {
        let mut sites: Vec<(Tensor, Site)> = Vec::new();
        for hook in hooks {
            let (width, out) =
                (graph.shape(hook.input).channels(), graph.shape(hook.output).channels());
            let layer = Layer { name: hook.layer.clone(), out };
            match sites.iter_mut().find(|(input, _)| *input == hook.input) {
                Some((_, site)) => site.layers.push(layer),
                None => {
                    sites.push((hook.input, Site { name: hook.layer, width, layers: vec![layer] }))
                }
            }
        }
        StageLayers { sites: sites.into_iter().map(|(_, site)| site).collect() }
    }
}
