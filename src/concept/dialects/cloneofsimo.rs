//! The first LoRA program's files (cloneofsimo's `lora`): updates without names, in the order of
//! the networks' modules. As safetensors `unet:<number>:up`, `text_encoder:<number>:down` and so
//! on, words as `<word>` with the metadata `<embed>`; as a pickle one network's list of tensors, up
//! and down by turns.
//!
//! The order is PyTorch's, in which modules were registered: of the UNet all blocks down, all up,
//! then the middle; of each transformer the first attention, the gate of the feed-forward part
//! (GEGLU), the second attention (newer diffusers: the gate last); of the text encoder's attentions
//! keys, values, queries, output.

use std::collections::BTreeMap;

use crate::checkpoint::TensorFile;
use crate::concept::parts::Part;
use crate::concept::tensors::tensor_error;
use crate::concept::{Concept, Error, Network, Result};

use super::Read;
use super::gather::{Gathered, unknown_tensor, words};
use crate::watch::Parts;

const EMBED: &str = "<embed>";
/// Transformers of Stable Diffusion's UNet: level by level, two down and three up, and one in the
/// middle.
const DOWN: [[usize; 2]; 6] = [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]];
const UP: [[usize; 2]; 9] =
    [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [3, 0], [3, 1], [3, 2]];
const TRANSFORMERS: usize = DOWN.len() + UP.len() + 1;
const ATTENTION: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];
const TEXT: [&str; 4] = ["k_proj", "v_proj", "q_proj", "out_proj"];
const GATE: &str = "ff.net.0.proj";

/// Names of an update's tensors, up and down.
type Pair = [Option<String>; 2];

/// `unet:3:up` in its parts.
fn part(name: &str) -> Option<(&str, usize, usize)> {
    let mut parts = name.split(':');
    let (network, number, half) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let half = ["up", "down"].iter().position(|known| *known == half)?;
    parts.next().is_none().then_some((network, number, half))
}

fn is_list(file: &TensorFile) -> bool {
    let matrix = |number: usize| {
        file.tensor(&number.to_string()).is_some_and(|view| matches!(view.shape().len(), 2 | 4))
    };
    file.len() >= 2 && (0..file.len()).all(matrix)
}

pub fn is_it(file: &TensorFile) -> bool {
    file.names().any(|name| part(name).is_some()) || is_list(file)
}

pub fn read(file: &TensorFile, progress: &mut Parts) -> Result<Read> {
    let (mut updates, mut concept) = (Gathered::default(), Concept::default());
    let mut notes =
        vec!["it holds no alpha: the factor 1, its program's own, is taken".to_string()];
    if is_list(file) {
        let pairs = (0..file.len().div_ceil(2))
            .map(|n| [2 * n, 2 * n + 1].map(|number| Some(number.to_string())));
        let pairs: Vec<Pair> = pairs.collect();
        let network =
            if unet_layers(file, &pairs).is_some() { Network::UNet } else { Network::TextEncoder };
        add(file, &mut updates, network, &pairs)?;
        notes.extend(text_beside(file));
    } else {
        let mut networks: BTreeMap<Network, BTreeMap<usize, Pair>> = BTreeMap::new();
        for name in file.names() {
            if file.metadata().get(name).is_some_and(|value| value == EMBED) {
                concept.words.extend(words(file, name, name)?);
                continue;
            }
            let (network, number, half) = match part(name) {
                Some(("unet", number, half)) => (Network::UNet, number, half),
                Some(("text_encoder", number, half)) => (Network::TextEncoder, number, half),
                _ => return Err(unknown_tensor(file, name, "the files of cloneofsimo's program")),
            };
            networks.entry(network).or_default().entry(number).or_default()[half] =
                Some(name.to_string());
        }
        for (network, numbered) in networks {
            if let Some((expected, _)) = (0..).zip(numbered.keys()).find(|(n, number)| n != *number)
            {
                let problem = format!(
                    "the updates of its {} are numbered, but number {expected} is missing",
                    network
                );
                return Err(Error::File { path: file.path().to_path_buf(), problem });
            }
            add(file, &mut updates, network, &numbered.into_values().collect::<Vec<_>>())?;
        }
    }
    let updates = updates.read(file, progress)?;
    Ok(Read { concept: Concept { updates, ..concept }, notes })
}

fn add(file: &TensorFile, updates: &mut Gathered, network: Network, pairs: &[Pair]) -> Result<()> {
    let layers = match network {
        Network::UNet => unet_layers(file, pairs),
        _ => text_layers(file, pairs),
    };
    let problem = || {
        format!(
            "its {} updates have no names, and their number and shapes are not those of the \
                attentions of Stable Diffusion's {}: \
             which layers they belong to cannot be told",
            pairs.len(),
            network
        )
    };
    let layers = layers
        .ok_or_else(|| Error::File { path: file.path().to_path_buf(), problem: problem() })?;
    for (layer, [up, down]) in layers.into_iter().zip(pairs) {
        for (name, part) in [(up, Part::Up), (down, Part::Down)] {
            let Some(name) = name else { continue };
            if !file.contains(name) {
                let other = up.as_deref().unwrap_or_default();
                return Err(tensor_error(
                    file,
                    other,
                    "the other half of the update is missing".into(),
                ));
            }
            updates.add(file, name, network, layer.clone(), part)?;
        }
    }
    Ok(())
}

/// Shape of the weight that a pair updates.
fn weight(file: &TensorFile, [up, down]: &Pair) -> Option<[usize; 2]> {
    let shape =
        |name: &Option<String>| file.tensor(name.as_deref()?).map(|view| view.shape().to_vec());
    match (&shape(up)?[..], &shape(down)?[..]) {
        ([rows, _], [_, columns]) => Some([*rows, *columns]),
        _ => None,
    }
}

fn unet_layers(file: &TensorFile, pairs: &[Pair]) -> Option<Vec<String>> {
    let each = pairs.len() / TRANSFORMERS;
    if !pairs.len().is_multiple_of(TRANSFORMERS) || !matches!(each, 8 | 9) {
        return None;
    }
    let shapes: Vec<[usize; 2]> =
        pairs.iter().map(|pair| weight(file, pair)).collect::<Option<_>>()?;
    let width = |n: usize| shapes[n * each][0];
    // Levels have the same widths on both sides.
    let levels = [width(0), width(2), width(4)];
    let down = DOWN.iter().map(|[level, _]| levels[*level]);
    let expected = down.chain(UP.iter().map(|[level, _]| levels[3 - level]));
    if expected.enumerate().any(|(n, expected)| width(n) != expected) {
        return None;
    }
    let blocks =
        DOWN.iter().map(|[block, layer]| format!("down_blocks.{block}.attentions.{layer}"));
    let blocks = blocks
        .chain(UP.iter().map(|[block, layer]| format!("up_blocks.{block}.attentions.{layer}")));
    let mut layers = Vec::with_capacity(pairs.len());
    for (block, shapes) in
        blocks.chain(["mid_block.attentions.0".to_string()]).zip(shapes.chunks_exact(each))
    {
        let dim = shapes[0][0];
        let attention =
            |name: &'static str| ATTENTION.map(|projection| format!("{name}.{projection}"));
        let (first, second, gate) = (attention("attn1"), attention("attn2"), [GATE.to_string()]);
        // The gate is wider than anything else.
        let order: Vec<String> =
            match shapes.iter().position(|[rows, columns]| *rows == 8 * dim && *columns == dim) {
                Some(4) if each == 9 => first.into_iter().chain(gate).chain(second).collect(),
                Some(8) if each == 9 => first.into_iter().chain(second).chain(gate).collect(),
                None if each == 8 => first.into_iter().chain(second).collect(),
                _ => return None,
            };
        let fits = |(layer, [rows, columns]): (&String, &[usize; 2])| {
            let from_text = layer.ends_with("attn2.to_k") || layer.ends_with("attn2.to_v");
            layer == GATE || (*rows == dim && (from_text || *columns == dim))
        };
        if !order.iter().zip(shapes).all(fits) {
            return None;
        }
        layers
            .extend(order.into_iter().map(|layer| format!("{block}.transformer_blocks.0.{layer}")));
    }
    Some(layers)
}

fn text_layers(file: &TensorFile, pairs: &[Pair]) -> Option<Vec<String>> {
    let [width, _] = weight(file, pairs.first()?)?;
    let square = pairs.iter().all(|pair| weight(file, pair) == Some([width, width]));
    if !square || !pairs.len().is_multiple_of(TEXT.len()) {
        return None;
    }
    let name = |n: usize| {
        format!("text_model.encoder.layers.{}.self_attn.{}", n / TEXT.len(), TEXT[n % TEXT.len()])
    };
    Some((0..pairs.len()).map(name).collect())
}

/// The text encoder's part is a file of its own, which is told where it lies beside the UNet's.
fn text_beside(file: &TensorFile) -> Option<String> {
    let path = file.path();
    let stem = path.file_stem()?.to_string_lossy();
    let beside =
        path.with_file_name(format!("{stem}.text_encoder.{}", path.extension()?.to_string_lossy()));
    let name = beside.file_name()?.to_string_lossy().into_owned();
    beside.is_file().then(|| {
        format!(
            "{name} beside it, the same LoRA's text encoder, is not read along: name it as well"
        )
    })
}
