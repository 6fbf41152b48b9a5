//! Updates on their way from a file's tensors to a concept.

use std::collections::BTreeMap;

use crate::checkpoint::TensorFile;
use crate::concept::file::{numbers, tensor_error};
use crate::concept::{Error, Lora, Network, Result, Update, UpdateSet, Updates, Word};
use crate::graph::Array;
use crate::watch::Parts;

/// Elements of one window: more than any layer of these models has.
const MOST_ELEMENTS: usize = 1 << 27;

/// The names of an update's tensors in a file.
#[derive(Debug, Default)]
pub struct Names {
    pub down: Option<String>,
    pub up: Option<String>,
    /// Between the two, of convolutions.
    pub middle: Option<String>,
    /// What the product is multiplied by: alpha over rank, or what stands for it.
    pub scale: Scale,
}

#[derive(Clone, Debug, Default)]
pub enum Scale {
    #[default]
    One,
    /// A tensor of one element, to be divided by the rank.
    Alpha(String),
    /// A number, to be divided by the rank.
    Number(f32),
    /// A number, to be divided by the rank's square root.
    Stabilised(f32),
}

/// All updates of a file, by network and canonical layer name.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<(Network, String), Names>);

/// One tensor of an update, by its part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Down,
    Up,
    Middle,
    Alpha,
}

impl Gathered {
    /// Notes a tensor of a file as a part of a layer's update.
    ///
    /// # Errors
    /// Another tensor is that part already: two names can mean one layer.
    pub fn add(
        &mut self,
        file: &TensorFile,
        tensor: &str,
        network: Network,
        layer: String,
        part: Part,
    ) -> Result<()> {
        let entry = self.0.entry((network, layer)).or_default();
        let slot = match part {
            Part::Down => &mut entry.down,
            Part::Up => &mut entry.up,
            Part::Middle => &mut entry.middle,
            Part::Alpha => {
                entry.scale = Scale::Alpha(tensor.to_string());
                return Ok(());
            }
        };
        match slot.replace(tensor.to_string()) {
            None => Ok(()),
            Some(other) => {
                Err(tensor_error(file, tensor, format!("it means the same as `{other}`")))
            }
        }
    }

    /// Of each layer: its network, its name, its tensors' names.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Network, &str, &mut Names)> {
        self.0.iter_mut().map(|((network, layer), names)| (*network, layer.as_str(), names))
    }

    /// Reads the tensors. Where all layers of a network have one scale, it is the set's; otherwise
    /// it goes into the matrices. `progress` is told of layers.
    pub fn read(self, file: &TensorFile, progress: &mut Parts) -> Result<Updates> {
        let mut sets: BTreeMap<Network, Vec<(String, Update, f32)>> = BTreeMap::new();
        let of = self.0.len();
        for (done, ((network, layer), names)) in self.0.into_iter().enumerate() {
            progress(done, of)?;
            let (update, scale) = names.read(file)?;
            sets.entry(network).or_default().push((layer, update, scale));
        }
        let set = |(network, layers): (Network, Vec<(String, Update, f32)>)| {
            let common = layers.first().map_or(1.0, |(_, _, scale)| *scale);
            let same = layers.iter().all(|(_, _, scale)| *scale == common);
            let with = |(layer, update, scale): (String, Update, f32)| {
                (layer, if same { update } else { update.scaled(scale) })
            };
            let set = UpdateSet {
                scale: if same { common } else { 1.0 },
                layers: layers.into_iter().map(with).collect(),
            };
            (network, set)
        };
        Ok(sets.into_iter().map(set).collect())
    }
}

impl Names {
    fn read(self, file: &TensorFile) -> Result<(Update, f32)> {
        let (down_name, up_name) = match (self.down, self.up) {
            (Some(down), Some(up)) => (down, up),
            (Some(one), None) | (None, Some(one)) => {
                return Err(tensor_error(
                    file,
                    &one,
                    "the other half of the update is missing".into(),
                ));
            }
            (None, None) => {
                let what = if let Scale::Alpha(name) = &self.scale { name } else { "alpha" };
                return Err(tensor_error(
                    file,
                    what,
                    "it belongs to an update that is not there".into(),
                ));
            }
        };
        let missing = |name: &str| tensor_error(file, name, "it is missing".into());
        let mut down = squeezed(numbers(file, &down_name)?.ok_or_else(|| missing(&down_name))?);
        let up = squeezed(numbers(file, &up_name)?.ok_or_else(|| missing(&up_name))?);
        if let Some(name) = &self.middle {
            let middle = numbers(file, name)?.ok_or_else(|| missing(name))?;
            down = through(&middle, &down).ok_or_else(|| {
                let (middle, down) = (&middle.shape, &down.shape);
                tensor_error(
                    file,
                    name,
                    format!("shape {middle}, which does not follow on {down} of `{down_name}`"),
                )
            })?;
        }
        let (rank, other) = match (&down.shape[..], &up.shape[..]) {
            ([rank, _] | [rank, _, _, _], [_, other]) => (*rank, *other),
            ([_, _] | [_, _, _, _], shape) => {
                return Err(tensor_error(
                    file,
                    &up_name,
                    format!("shape {shape:?} where [out, rank] is expected"),
                ));
            }
            (shape, _) => {
                return Err(tensor_error(
                    file,
                    &down_name,
                    format!("shape {shape:?} where [rank, in] is expected"),
                ));
            }
        };
        if rank != other {
            let problem = format!(
                "rank {rank} (shape {}), but `{up_name}`, which goes with it, has rank {other} \
                    (shape {})",
                down.shape, up.shape
            );
            return Err(tensor_error(file, &down_name, problem));
        }
        let scale = match self.scale {
            Scale::One => 1.0,
            Scale::Number(alpha) => alpha / rank as f32,
            Scale::Stabilised(alpha) => alpha / (rank as f32).sqrt(),
            Scale::Alpha(name) => {
                let alpha = file
                    .tensor(&name)
                    .filter(|view| view.len() == 1)
                    .map(|view| view.to_f32(0..1)[0]);
                let alpha = alpha.filter(|alpha| alpha.is_finite());
                alpha.ok_or_else(|| tensor_error(file, &name, "one number was expected".into()))?
                    / rank as f32
            }
        };
        Ok((Lora { down, up }.into(), scale))
    }
}

/// `[.., 1, 1]` as `[..]`: the window of a 1x1 convolution.
fn squeezed(array: Array) -> Array {
    match array.shape[..] {
        [a, b, 1, 1] => Array { shape: [a, b].into(), ..array },
        _ => array,
    }
}

/// A window `middle` `[out, in, k, k]` after a matrix `down` `[in, channels]`, as one window
/// `[out, channels, k, k]`.
fn through(middle: &Array, down: &Array) -> Option<Array> {
    let (&[out, inner, height, width], &[rank, channels]) = (&middle.shape[..], &down.shape[..])
    else {
        return None;
    };
    if inner != rank {
        return None;
    }
    // Small tensors can ask for a very large product.
    let taps = height.checked_mul(width)?;
    out.checked_mul(channels)?.checked_mul(taps).filter(|elements| *elements <= MOST_ELEMENTS)?;
    let mut values = vec![0.0; out * channels * taps];
    for (o, result) in values.chunks_exact_mut(channels * taps).enumerate() {
        for i in 0..inner {
            let window = &middle.values()[(o * inner + i) * taps..][..taps];
            for (c, result) in result.chunks_exact_mut(taps).enumerate() {
                let factor = down.values()[i * channels + c];
                result.iter_mut().zip(window).for_each(|(sum, w)| *sum += factor * w);
            }
        }
    }
    Some(Array::f32([out, channels, height, width], values))
}

/// The words of a textual inversion's vectors `[width]` or `[vectors, width]`: `<a>`, and for
/// further vectors `<a>_1` and on.
pub fn words(file: &TensorFile, tensor: &str, text: &str) -> Result<Vec<Word>> {
    let vectors =
        numbers(file, tensor)?.ok_or_else(|| tensor_error(file, tensor, "it is missing".into()))?;
    let width = match vectors.shape[..] {
        [width] | [_, width] => width,
        _ => {
            return Err(tensor_error(
                file,
                tensor,
                format!("shape {} where [vectors, width] is expected", vectors.shape),
            ));
        }
    };
    let word = |(index, vector): (usize, &[f32])| {
        let text = if index == 0 { text.to_string() } else { format!("{text}_{index}") };
        Word::new(text, Array::f32([1, width], vector.to_vec()))
    };
    Ok(vectors.values().chunks_exact(width).enumerate().map(word).collect())
}

/// Marks of other ways to write a change, and what they are called. They begin a part of a name;
/// `diff` is all of one.
const OTHERS: [(&str, &str); 16] = [
    ("hada_", "a LoHa"),
    ("lokr_", "a LoKr"),
    ("oft_", "an OFT"),
    ("boft_", "a BOFT"),
    ("dora_scale", "a DoRA"),
    ("lora_magnitude_vector", "a DoRA"),
    ("lora_embedding_", "a LoRA of an embedding table"),
    ("on_input", "an IA3"),
    ("ia3_", "an IA3"),
    ("vera_", "a VeRA"),
    ("hra_", "an HRA"),
    ("fourierft_", "a FourierFT"),
    ("w_norm", "norm weights (a GLoRA or LyCORIS `norm` network)"),
    ("b_norm", "norm weights (a GLoRA or LyCORIS `norm` network)"),
    ("a1.weight", "a GLoRA"),
    ("set_weight", "whole weights"),
];

/// What else than a LoRA a tensor of this name belongs to, if it does.
pub fn other_form(tensor: &str) -> Option<&'static str> {
    let starts = tensor.match_indices('.').map(|(at, _)| at + 1).chain([0]);
    let mut parts = starts.filter_map(|at| tensor.get(at..));
    parts.find_map(|part| match part {
        "diff" | "diff_b" => Some("whole weights (a `full` network)"),
        _ => OTHERS.iter().find(|(mark, _)| part.starts_with(mark)).map(|(_, kind)| *kind),
    })
}

/// An error that names the form of a change which is no LoRA.
pub fn foreign_form(file: &TensorFile, tensor: &str, kind: &str) -> Error {
    tensor_error(
        file,
        tensor,
        format!("the change is {kind}, which is not supported; LoRA and LoCon are"),
    )
}

/// An error for a tensor of a network that no supported model has.
pub fn second_encoder(file: &TensorFile, tensor: &str) -> Error {
    let problem =
        "it belongs to a second text encoder (Stable Diffusion XL), which is not supported";
    tensor_error(file, tensor, problem.into())
}

/// An error for a file's tensor that no dialect has.
pub fn unknown_tensor(file: &TensorFile, tensor: &str, dialect: &str) -> Error {
    tensor_error(file, tensor, format!("it has no meaning in {dialect}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_after_a_matrix_is_one_window() {
        let middle = Array::f32([1, 2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let down = Array::f32([2, 3], vec![1.0, 0.0, 2.0, 0.0, 1.0, 10.0]);
        let both = through(&middle, &down).unwrap();
        assert_eq!(both, Array::f32([1, 3, 1, 2], vec![1.0, 2.0, 3.0, 4.0, 32.0, 44.0]));
        assert!(through(&middle, &Array::f32([1, 2], vec![0.0; 2])).is_none());
    }
}
