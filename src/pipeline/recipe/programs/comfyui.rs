//! ComfyUI's pictures: the graph that ran, followed back from its sampler.
//!
//! An input of a node is a value, or a link `["4", 0]` to an output of another node: a seed may
//! come out of a primitive, a text out of several that are joined. What cannot be followed is told.
use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{COMFYUI, Settings, Told, plain};
use crate::text::prompt::Syntax;

/// Nodes that sample.
const SAMPLERS: [&str; 5] = [
    "KSampler",
    "KSamplerAdvanced",
    "KSampler (Efficient)",
    "SamplerCustom",
    "SamplerCustomAdvanced",
];
/// Inputs of such a node that lead to nodes which hold a part of its settings.
const PARTS: [&str; 4] = ["noise", "guider", "sampler", "sigmas"];
/// Nodes that change the picture and have no counterpart in a line of settings.
const BESIDES: [(&str, &str); 5] = [
    ("ControlNetApply", "a ControlNet"),
    ("ConditioningSetArea", "the area of a prompt"),
    ("ConditioningSetMask", "the mask of a prompt"),
    ("ConditioningSetTimestepRange", "the time of a prompt"),
    ("UpscaleModelLoader", "an upscaler"),
];
/// Nodes of a graph that are looked at: one of a file may go in circles.
const MOST: usize = 512;
/// The longest text that they make.
const LONGEST: usize = 1 << 20;
/// What a model's file ends with.
const MODEL_FILES: [&str; 5] = [".safetensors", ".pt", ".ckpt", ".bin", ".pth"];

/// Reads a `graph`; `editor` is the same as its editor has it, where that is known.
pub(super) fn read(graph: &Value, editor: Option<&Value>) -> Result<Told, String> {
    let graph = Graph { nodes: graph.as_object(), editor, left: Cell::new(MOST) };
    let samplers: Vec<Node> = graph.all().filter(|node| SAMPLERS.contains(&node.class())).collect();
    let [sampler] = samplers[..] else {
        let count = samplers.len();
        return Err(format!(
            "it was made by {COMFYUI}, with a graph of {count} KSampler nodes; graphs with one \
                are read: give the settings as options"
        ));
    };
    let mut reading = Reading {
        used: graph.behind(sampler),
        graph: &graph,
        sampler,
        settings: Settings::new(COMFYUI, Syntax::On),
    };
    reading.prompts()?;
    reading.numbers();
    reading.size();
    reading.model();
    if graph.left.get() == 0 {
        return Err(format!(
            "it was made by {COMFYUI}, with a graph that goes in circles or has more than {MOST} \
                nodes"
        ));
    }
    reading.settings.done()
}

/// A node of the graph.
#[derive(Clone, Copy)]
struct Node<'g>(&'g Value);

impl<'g> Node<'g> {
    fn class(self) -> &'g str {
        self.0.get("class_type").and_then(Value::as_str).unwrap_or_default()
    }

    fn inputs(self) -> impl Iterator<Item = (&'g String, &'g Value)> + Clone {
        self.0.get("inputs").and_then(Value::as_object).into_iter().flatten()
    }

    fn input(self, name: &str) -> Option<&'g Value> {
        self.0.get("inputs")?.get(name)
    }
}

/// The number of the node that a value links to.
fn link(value: &Value) -> Option<String> {
    match value.as_array().map(Vec::as_slice) {
        Some([node, Value::Number(_)]) => plain(node),
        _ => None,
    }
}

/// What an input may hold.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Number,
}

impl Kind {
    fn holds(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Number => value.is_number(),
        }
    }

    /// Names under which nodes that hold nothing but a value have it.
    fn names(self) -> &'static [&'static str] {
        match self {
            // What came of a text's wildcards stands before it.
            Kind::Text => &[
                "populated_text",
                "value",
                "text",
                "string",
                "prompt",
                "Text",
                "String",
                "text_positive",
            ],
            Kind::Number => &[
                "value",
                "seed",
                "noise_seed",
                "seed_num",
                "int",
                "integer",
                "number",
                "float",
                "Number",
                "Value",
            ],
        }
    }
}

/// The nodes, with the means to follow them.
struct Graph<'g> {
    nodes: Option<&'g Map<String, Value>>,
    editor: Option<&'g Value>,
    /// How many nodes may still be looked at.
    left: Cell<usize>,
}

impl<'g> Graph<'g> {
    fn all(&self) -> impl Iterator<Item = Node<'g>> {
        self.nodes.into_iter().flatten().map(|(_, node)| Node(node))
    }

    fn linked(&self, value: &Value) -> Option<Node<'g>> {
        let node = self.nodes?.get(&link(value)?)?;
        self.left.set(self.left.get().checked_sub(1)?);
        Some(Node(node))
    }

    /// The nodes that lead to this one, by their places.
    fn behind(&self, node: Node<'g>) -> Vec<Node<'g>> {
        let mut seen = BTreeSet::new();
        let (mut found, mut next) = (Vec::new(), vec![node]);
        while let Some(node) = next.pop() {
            if seen.insert(std::ptr::from_ref(node.0) as usize) {
                found.push(node);
                let links = node.inputs().filter_map(|(_, value)| link(value));
                next.extend(links.filter_map(|number| self.nodes?.get(&number)).map(Node));
            }
        }
        found
    }

    /// A value, or what the node that it links to comes to.
    ///
    /// # Errors
    /// The class of the node where it ends.
    fn resolved(&self, value: &'g Value, name: &str, kind: Kind) -> Result<Value, String> {
        let Some(number) = link(value) else { return Ok(value.clone()) };
        let Some(node) = self.linked(value) else {
            // The editor keeps primitives for itself.
            return self.primitive(&number).ok_or_else(|| format!("number {number}"));
        };
        let lost = || node.class().to_string();
        if kind == Kind::Text && is_joint(node.class()) {
            return self.joined(node).map(Value::from);
        }
        let names = std::iter::once(name).chain(kind.names().iter().copied());
        let named = names.filter_map(|name| Some((name, node.input(name)?)));
        // Of the right kind, or a link to one.
        let mut named = named.filter(|(_, value)| kind.holds(value) || link(value).is_some());
        if let Some((name, value)) = named.next() {
            return self.resolved(value, name, kind);
        }
        // A node with but one value of that kind, or one that hands on what it is given.
        let one = |wanted: &dyn Fn(&Value) -> bool| {
            let mut found = node.inputs().filter(|(_, value)| wanted(value));
            found.next().filter(|_| found.next().is_none())
        };
        let (name, value) = one(&|value| kind.holds(value))
            .or_else(|| one(&|value| link(value).is_some()))
            .ok_or_else(lost)?;
        self.resolved(value, name, kind)
    }

    /// The value of a primitive, which only the editor's graph has.
    fn primitive(&self, number: &str) -> Option<Value> {
        let nodes = self.editor?.get("nodes")?.as_array()?;
        let is = |node: &&Value| node.get("id").and_then(plain).is_some_and(|id| id == number);
        let node = nodes.iter().find(is)?;
        let is_primitive = node.get("type").and_then(Value::as_str) == Some("PrimitiveNode");
        node.get("widgets_values")?.get(0).filter(|_| is_primitive).cloned()
    }

    /// The texts of a node that joins some, in the order of its inputs' names.
    fn joined(&self, node: Node<'g>) -> Result<String, String> {
        const BETWEEN: [&str; 4] = ["delimiter", "separator", "sep", "delim"];
        let text = |value: &'g Value| {
            let found = self.resolved(value, "text", Kind::Text)?;
            Ok::<_, String>(plain(&found).unwrap_or_default())
        };
        let between = BETWEEN.iter().find_map(|name| node.input(name));
        let between = between.map(text).transpose()?.unwrap_or_default().replace("\\n", "\n");
        let is_text = |(name, value): &(&String, &Value)| {
            let is_setting = BETWEEN.contains(&name.as_str()) || name.contains("whitespace");
            !is_setting && (value.is_string() || link(value).is_some())
        };
        let mut parts: Vec<_> = node.inputs().filter(is_text).collect();
        // `text2` before `text10`.
        parts.sort_by_key(|(name, _)| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = name.get(stem.len()..).and_then(|digits| digits.parse().ok());
            (stem.to_string(), number.unwrap_or(0u64))
        });
        let mut joined = String::new();
        for (_, value) in parts {
            let part = text(value)?;
            if !joined.is_empty() && !part.is_empty() {
                joined += &between;
            }
            joined += &part;
            if joined.len() > LONGEST {
                return Err(node.class().to_string());
            }
        }
        Ok(joined)
    }
}

/// Whether a node's text is that of several, joined.
fn is_joint(class: &str) -> bool {
    let class = class.to_lowercase();
    (class.contains("concat") || class.contains("join")) && !class.contains("conditioning")
}

/// A text that is not there.
enum Missing {
    /// No text leads there.
    None,
    /// One comes out of a node of this class, which is not known.
    Node(String),
}

/// A graph whose settings are read.
struct Reading<'r, 'g> {
    graph: &'r Graph<'g>,
    sampler: Node<'g>,
    /// The nodes that lead to the sampler.
    used: Vec<Node<'g>>,
    settings: Settings,
}

impl<'g> Reading<'_, 'g> {
    /// An input of the sampler, or of a node that holds a part of its settings.
    fn input(&self, name: &str) -> Option<&'g Value> {
        let part = |part: &str| {
            let node = self.graph.linked(self.sampler.input(part)?)?;
            node.input(name)
        };
        self.sampler.input(name).or_else(|| PARTS.iter().find_map(|name| part(name)))
    }

    /// The value of an input; where it cannot be followed, that is told.
    fn value(&mut self, names: &[&str], kind: Kind) -> Option<Value> {
        let (name, value) = names.iter().find_map(|name| Some((name, self.input(name)?)))?;
        match self.graph.resolved(value, name, kind) {
            Ok(value) => Some(value),
            Err(node) => {
                self.settings.told.notes.push(format!(
                    "the picture's `{name}` comes out of the node `{node}`, which is not known \
                        here: it is left out"
                ));
                None
            }
        }
    }

    fn prompts(&mut self) -> Result<(), String> {
        let positive = self.prompt("positive")?;
        self.settings.told.parameters.negative_prompt = self.prompt("negative")?;
        self.settings.told.parameters.prompt = positive;
        Ok(())
    }

    fn prompt(&mut self, side: &str) -> Result<String, String> {
        // A guider without guidance has one side alone.
        let single = (side == "positive").then(|| self.input("conditioning")).flatten();
        let found = match self.input(side).or(single) {
            Some(value) => self.text_of(value, side),
            None => Err(Missing::None),
        };
        match found {
            Ok(text) => Ok(text),
            Err(Missing::None) if side == "negative" => Ok(String::new()),
            Err(Missing::None) => Err(format!(
                "it was made by {COMFYUI}, with a graph in which no text leads to the sampler's \
                    `{side}`"
            )),
            Err(Missing::Node(node)) => Err(format!(
                "it was made by {COMFYUI}, with a graph in which the text of the sampler's \
                    `{side}` comes out of the node `{node}`, which is not known here"
            )),
        }
    }

    /// The text that a conditioning is made of, through whatever stands between.
    fn text_of(&mut self, value: &'g Value, side: &str) -> Result<String, Missing> {
        // Some nodes take the text itself.
        if let Some(text) = value.as_str() {
            return Ok(text.to_string());
        }
        let node = self.graph.linked(value).ok_or(Missing::None)?;
        let class = node.class();
        let is_encoder = class.starts_with("CLIPTextEncode")
            || node.input("clip").is_some() && node.input("text").is_some();
        if is_encoder {
            return self.encoded(node);
        }
        let both = |reading: &mut Self, names: [&str; 2]| {
            let mut texts = Vec::new();
            for name in names {
                texts.extend(node.input(name).map(|value| reading.text_of(value, side)));
            }
            texts.into_iter().collect::<Result<Vec<_>, Missing>>()
        };
        if class == "ConditioningZeroOut" {
            return Ok(String::new());
        }
        if class == "ConditioningCombine" {
            let texts = both(self, ["conditioning_1", "conditioning_2"])?;
            return self.one_after_another(texts, "combined (as with AND)");
        }
        if class == "ConditioningConcat" {
            let texts = both(self, ["conditioning_to", "conditioning_from"])?;
            return self.one_after_another(texts, "");
        }
        if class == "ConditioningAverage" {
            let strength = node.input("conditioning_to_strength").and_then(Value::as_f64);
            let names: &[&str] = match strength {
                Some(strength) if strength >= 1.0 => &["conditioning_to"],
                Some(strength) if strength <= 0.0 => &["conditioning_from"],
                _ => &["conditioning_to", "conditioning_from"],
            };
            let mut texts = Vec::new();
            for name in names {
                texts.push(node.input(name).map_or(Err(Missing::None), |v| self.text_of(v, side))?);
            }
            return self.one_after_another(texts, "averaged");
        }
        // Nodes with both sides lead to the other one as well.
        if let (Some(own), Some(_)) =
            (node.input(side), node.input(if side == "positive" { "negative" } else { "positive" }))
        {
            return self.text_of(own, side);
        }
        let mut links = node.inputs().filter(|(_, value)| link(value).is_some());
        let named = links.clone().find(|(name, _)| name.contains("conditioning"));
        let only = links.next().filter(|_| links.next().is_none());
        match named.or(only) {
            Some((_, value)) => self.text_of(value, side),
            None => Err(Missing::None),
        }
    }

    /// The text of a node that encodes one; some have it for each of a model's text encoders.
    fn encoded(&mut self, node: Node<'g>) -> Result<String, Missing> {
        let mut texts: Vec<String> = Vec::new();
        for name in ["text", "text_g", "text_l", "clip_l", "t5xxl"] {
            let Some(value) = node.input(name) else { continue };
            let text = self.graph.resolved(value, "text", Kind::Text).map_err(Missing::Node)?;
            let text = plain(&text).unwrap_or_default();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.len() > 1 {
            self.settings.told.notes.push(
                "the picture's text encoders were given texts of their own: the first is read"
                    .to_string(),
            );
        }
        texts.into_iter().next().ok_or(Missing::None)
    }

    /// Texts that are read one after another, each in a chunk of its own; `how` they were brought
    /// together, if that was another way.
    fn one_after_another(&mut self, texts: Vec<String>, how: &str) -> Result<String, Missing> {
        let mut parts: Vec<String> = Vec::new();
        for text in texts.into_iter().filter(|text| !text.trim().is_empty()) {
            if !parts.contains(&text) {
                parts.push(text);
            }
        }
        if parts.len() > 1 && !how.is_empty() {
            self.settings.told.notes.push(format!(
                "the picture's texts were {how}: here they are read one after another (BREAK)"
            ));
        }
        let joined = parts.join(" BREAK ");
        if joined.len() > LONGEST {
            return Err(Missing::None);
        }
        Ok(joined)
    }

    fn numbers(&mut self) {
        for (setting, names) in [("CFG scale", &["cfg"][..]), ("Seed", &["seed", "noise_seed"])] {
            let value = self.value(names, Kind::Number);
            if value.is_none() && setting == "Seed" {
                self.settings.told.notes.push(
                    "the picture's seed is not known: 0 stands in, or what --seed says".to_string(),
                );
            }
            self.settings.set(setting, value.as_ref());
        }
        if self.input("cfg").is_none() && self.input("conditioning").is_some() {
            self.settings.told.parameters.set("CFG scale", 1);
        }
        let sampler = self.value(&["sampler_name"], Kind::Text);
        let schedule = self.value(&["scheduler"], Kind::Text);
        self.settings.sampler(sampler.as_ref(), schedule.as_ref());
        self.settings.told.parameters.set("RNG", "CPU");
        self.steps();
    }

    /// How many steps, and which of them ran.
    fn steps(&mut self) {
        let number = |value: Option<Value>| value.as_ref().and_then(Value::as_f64);
        let steps = self.value(&["steps"], Kind::Number);
        let Some(count) = number(steps.clone()).filter(|count| *count >= 1.0) else {
            return self.settings.set("Steps", steps.as_ref());
        };
        let (mut all, mut run) = (count, count);
        let share = number(self.value(&["denoise"], Kind::Number));
        if let Some(share) = share.filter(|share| *share > 0.0 && *share < 1.0) {
            // As many steps as are given run, which are the last of so many more.
            all = (count / share).floor();
        }
        let first = number(self.value(&["start_at_step"], Kind::Number)).unwrap_or(0.0);
        let last = number(self.value(&["end_at_step"], Kind::Number)).unwrap_or(count);
        if first > 0.0 && first < count {
            run = count - first;
        }
        if last < count {
            self.settings.told.notes.push(format!(
                "the picture's sampler stopped before step {last} of {count}: all steps are run \
                    here"
            ));
        }
        let adds = self.value(&["add_noise"], Kind::Text);
        if adds.is_some_and(|adds| adds == "disable" || adds == false) {
            self.settings.told.notes.push(
                "the picture's sampler added no noise to what it was given: noise is added here"
                    .to_string(),
            );
        }
        self.settings.told.parameters.set("Steps", all);
        if run < all {
            self.settings.told.parameters.set("Denoising strength", run / all);
        }
    }

    /// Width and height of what the sampler starts from.
    fn size(&mut self) {
        let mut at = self.input("latent_image").and_then(|value| self.graph.linked(value));
        while let Some(node) = at {
            if node.input("width").is_some() && node.input("height").is_some() {
                let side = |name| {
                    let value = node.input(name)?;
                    self.graph.resolved(value, name, Kind::Number).ok()
                };
                let (width, height) = (side("width"), side("height"));
                if width.is_none() || height.is_none() {
                    self.settings.left_out("the size");
                }
                self.settings.size(width.as_ref(), height.as_ref());
                let batch = node.input("batch_size");
                let batch = batch.and_then(|value| {
                    self.graph.resolved(value, "batch_size", Kind::Number).ok()?.as_u64()
                });
                if let Some(batch) = batch.filter(|batch| *batch > 1) {
                    self.settings.told.notes.push(format!(
                        "the picture is one of {batch} from one seed: the first of them is made \
                            here"
                    ));
                }
                break;
            }
            let from = ["samples", "latent", "pixels", "image"];
            let value = from.iter().find_map(|name| node.input(name));
            at = value.and_then(|value| self.graph.linked(value));
        }
        if self.used.iter().any(|node| node.class().starts_with("LoadImage")) {
            self.settings.left_out("another picture");
        }
    }

    fn model(&mut self) {
        let loads = |node: &&Node| node.class().starts_with("CheckpointLoader");
        let model = self.used.iter().find(loads).and_then(|node| node.input("ckpt_name"));
        let model =
            model.and_then(|value| self.graph.resolved(value, "ckpt_name", Kind::Text).ok());
        self.settings.set("Model", model.as_ref());
        let stops = self.used.iter().find(|node| node.class() == "CLIPSetLastLayer");
        let layer = stops.and_then(|node| node.input("stop_at_clip_layer")?.as_i64());
        if let Some(layer) = layer.filter(|layer| *layer < -1) {
            // Counted from the end, the last one being -1 here and 1 in web UIs.
            self.settings.told.parameters.set("Clip skip", layer.unsigned_abs());
        }
        let loras: Vec<String> =
            self.used.iter().flat_map(|node| loras_of(self.graph, *node)).collect();
        self.settings.left_out_loras(&loras);
        for (name, what) in BESIDES {
            if self.used.iter().any(|node| node.class().starts_with(name)) {
                self.settings.left_out(what);
            }
        }
    }
}

/// The LoRAs that a node loads, each with its strengths.
fn loras_of<'g>(graph: &Graph<'g>, node: Node<'g>) -> Vec<String> {
    if !node.class().to_lowercase().contains("lora") {
        return Vec::new();
    }
    let number = |value: &'g Value| {
        graph.resolved(value, "strength", Kind::Number).ok().as_ref().and_then(plain)
    };
    let mut found = Vec::new();
    for (name, value) in node.inputs() {
        // In a part of its own: {"on": true, "lora": "ink.safetensors", "strength": 0.8}.
        if let Some(file) = value.get("lora").and_then(Value::as_str) {
            if value.get("on") != Some(&Value::Bool(false)) {
                let strength = value.get("strength").and_then(plain);
                found.push(format!("{file} ({})", strength.unwrap_or_else(|| "1".to_string())));
            }
            continue;
        }
        let Some(file) = value.as_str() else { continue };
        if !MODEL_FILES.iter().any(|ending| file.to_lowercase().ends_with(ending)) {
            continue;
        }
        // A node of several has numbered names for them and their strengths.
        let digits = |name: &str| -> String { name.chars().filter(char::is_ascii_digit).collect() };
        let is_strength = |(other, _): &(&String, &Value)| {
            (other.contains("strength") || other.contains("weight"))
                && digits(other) == digits(name)
        };
        let strengths: Vec<String> = node
            .inputs()
            .filter(is_strength)
            .filter_map(|(other, value)| {
                let of_text = other.contains("clip");
                Some(format!("{}{}", if of_text { "text " } else { "" }, number(value)?))
            })
            .collect();
        found.push(format!("{file} ({})", strengths.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests;
