//! The tensors that an update is made of in files: their endings, as LyCORIS and PEFT name them,
//! and the way from them to an update and back.

use std::collections::BTreeMap;

use super::tensors::{numbers, tensor_error};
use super::update::{Dora, Ia3, LoHa, LoKr, Lora, Right, Side, Update};
use super::{Error, Result};
use crate::checkpoint::TensorFile;
use crate::graph::Array;

/// Elements of one factor: more than any layer of these models has.
const MOST_ELEMENTS: usize = 1 << 27;

macro_rules! parts {
    ($($(#[$doc:meta])* $variant:ident $ending:literal;)*) => {
        /// One tensor of an update, by its part in it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Part { $($(#[$doc])* $variant,)* }

        impl Part {
            const ALL: &[Part] = &[$(Part::$variant,)*];

            /// The ending of its name.
            pub fn ending(self) -> &'static str {
                match self { $(Part::$variant => $ending,)* }
            }

            /// The part of that ending.
            pub fn of(ending: &str) -> Option<Part> {
                match ending { $($ending => Some(Part::$variant),)* _ => None }
            }
        }
    };
}

parts! {
    Down "lora_down.weight";
    Up "lora_up.weight";
    /// Between the two, of convolutions.
    Middle "lora_mid.weight";
    HadaW1A "hada_w1_a";
    HadaW1B "hada_w1_b";
    HadaW2A "hada_w2_a";
    HadaW2B "hada_w2_b";
    HadaT1 "hada_t1";
    HadaT2 "hada_t2";
    LokrW1 "lokr_w1";
    LokrW1A "lokr_w1_a";
    LokrW1B "lokr_w1_b";
    LokrW2 "lokr_w2";
    LokrW2A "lokr_w2_a";
    LokrW2B "lokr_w2_b";
    LokrT2 "lokr_t2";
    Diff "diff";
    WNorm "w_norm";
    OnInput "on_input";
    Ia3Weight "weight";
    /// PEFT's IA3: the factor itself, where LyCORIS has what is added to 1.
    Ia3Factor "ia3_l";
    /// This program's: IA3 of a bias.
    Ia3Bias "ia3_b";
    DiffB "diff_b";
    BNorm "b_norm";
    DoraScale "dora_scale";
    /// PEFT's DoRA: of the outputs, whatever its shape.
    Magnitude "lora_magnitude_vector";
    /// Of older LyCORIS: a factor that was learnt.
    Scalar "scalar";
    Alpha "alpha";
}

/// A way to write a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lora,
    LoHa,
    LoKr,
    Full,
    Ia3,
}

impl Kind {
    /// With an article.
    fn describe(self) -> &'static str {
        match self {
            Kind::Lora => "a LoRA",
            Kind::LoHa => "a LoHa",
            Kind::LoKr => "a LoKr",
            Kind::Full => "a full difference",
            Kind::Ia3 => "an IA3",
        }
    }
}

/// Kinds of changes, each by the parts that only it has.
const KINDS: [(Kind, &[Part]); 5] = [
    (Kind::Lora, &[Part::Down, Part::Up, Part::Middle]),
    (
        Kind::LoHa,
        &[Part::HadaW1A, Part::HadaW1B, Part::HadaW2A, Part::HadaW2B, Part::HadaT1, Part::HadaT2],
    ),
    (
        Kind::LoKr,
        &[
            Part::LokrW1,
            Part::LokrW1A,
            Part::LokrW1B,
            Part::LokrW2,
            Part::LokrW2A,
            Part::LokrW2B,
            Part::LokrT2,
        ],
    ),
    (Kind::Full, &[Part::Diff, Part::WNorm]),
    (Kind::Ia3, &[Part::OnInput, Part::Ia3Weight, Part::Ia3Factor]),
];

impl Part {
    /// The part at the end of a tensor's name, and what stands before it and its dot.
    pub fn at_end(name: &str) -> Option<(&str, Part)> {
        let found = Part::ALL.iter().filter_map(|part| {
            let layer = name.strip_suffix(part.ending())?.strip_suffix('.')?;
            Some((layer, *part))
        });
        found.min_by_key(|(layer, _)| layer.len())
    }

    /// It stands for a whole update of its own, or for a part that no update can do without.
    pub fn tells_an_update(self) -> bool {
        !matches!(self, Part::Alpha | Part::Scalar | Part::Ia3Weight)
    }
}

/// What the product is multiplied by: alpha over rank, or what stands for it.
#[derive(Clone, Debug, Default)]
pub(super) enum Scale {
    #[default]
    One,
    /// A tensor of one element, to be divided by the rank.
    Alpha(String),
    /// A number, to be divided by the rank.
    Number(f32),
    /// A number, to be divided by the rank's square root.
    Stabilised(f32),
    /// The factor itself.
    Factor(f32),
}

/// The names of an update's tensors in a file.
#[derive(Debug, Default)]
pub(super) struct Names {
    tensors: BTreeMap<Part, String>,
    pub scale: Scale,
    /// Of PEFT's IA3: which side it scales, where the settings tell.
    pub side: Option<Side>,
}

/// The changes of one layer.
pub(super) struct Assembled {
    pub weight: Option<Update>,
    pub bias: Option<Update>,
    /// Of the weight's change.
    pub scale: f32,
}

impl Names {
    /// Notes a tensor as a part. Returns the one that was this part already: two names can mean one
    /// layer.
    pub fn add(&mut self, part: Part, tensor: &str) -> Option<String> {
        if part == Part::Alpha {
            self.scale = Scale::Alpha(tensor.to_string());
            return None;
        }
        self.tensors.insert(part, tensor.to_string())
    }

    pub fn has(&self, part: Part) -> bool {
        self.tensors.contains_key(&part)
    }

    /// The tensor whose rows are the rank; none where there is no rank, and so no alpha.
    pub fn rank_tensor(&self) -> Option<&str> {
        let of = |part: &Part| self.tensors.get(part).map(String::as_str);
        [Part::Down, Part::HadaW1B, Part::LokrW2B, Part::LokrW1B].iter().find_map(of)
    }

    /// Both factors are whole: LyCORIS has no alpha for it, PEFT has.
    pub fn is_whole_lokr(&self) -> bool {
        self.has(Part::LokrW1) && self.has(Part::LokrW2)
    }

    /// Reads the tensors.
    ///
    /// # Errors
    /// Parts that are missing or do not fit each other, by their names.
    pub fn assemble(&self, file: &TensorFile) -> Result<Assembled> {
        let read = Reader { file, names: self };
        let kinds = KINDS.map(|(kind, parts)| {
            parts.iter().find_map(|part| Some((kind, self.tensors.get(part)?)))
        });
        let mut kinds = kinds.into_iter().flatten();
        let found = kinds.next();
        if let (Some((kind, tensor)), Some((other_kind, other))) = (found, kinds.next()) {
            let (kind, other_kind) = (kind.describe(), other_kind.describe());
            let problem = format!("it is part of {other_kind}, but `{tensor}` of {kind}");
            return Err(tensor_error(file, other, problem));
        }
        let bias = read.bias()?;
        let Some((kind, tensor)) = found else {
            return match (self.stray(), &bias) {
                (None, Some(_)) => Ok(Assembled { weight: None, bias, scale: 1.0 }),
                (stray, _) => {
                    let problem = "it belongs to an update that is not there".to_string();
                    Err(tensor_error(file, stray.unwrap_or("alpha"), problem))
                }
            };
        };
        let (weight, rank) = match kind {
            Kind::Lora => read.lora()?,
            Kind::LoHa => read.loha()?,
            Kind::LoKr => read.lokr()?,
            Kind::Ia3 => return read.ia3(bias),
            Kind::Full => (Update::Full(read.required(tensor)?), None),
        };
        let mut scale = read.scale(rank)?;
        if let Some(name) = self.tensors.get(&Part::Scalar) {
            scale *= read.number(name)?;
        }
        match read.magnitude()? {
            None => Ok(Assembled { weight: Some(weight), bias, scale }),
            Some((name, ..)) if kind == Kind::Full => {
                let problem = format!("a DoRA of {}, which is not known", kind.describe());
                Err(tensor_error(file, name, problem))
            }
            Some((_, magnitude, side)) => {
                let change = weight.scaled(scale);
                let dora = Dora { change, magnitude, side, strength: 1.0 };
                Ok(Assembled { weight: Some(Update::Dora(Box::new(dora))), bias, scale: 1.0 })
            }
        }
    }

    /// A tensor that means nothing alone.
    fn stray(&self) -> Option<&str> {
        let of = |part: Part| self.tensors.get(&part).map(String::as_str);
        let stray = [Part::DoraScale, Part::Magnitude, Part::Scalar].into_iter().find_map(of);
        match &self.scale {
            Scale::Alpha(name) => stray.or(Some(name)),
            _ => stray,
        }
    }
}

/// A file with the names of one layer's update.
struct Reader<'a> {
    file: &'a TensorFile,
    names: &'a Names,
}

impl Reader<'_> {
    fn error(&self, tensor: &str, problem: impl Into<String>) -> Error {
        tensor_error(self.file, tensor, problem.into())
    }

    fn required(&self, tensor: &str) -> Result<Array> {
        numbers(self.file, tensor)?.ok_or_else(|| self.error(tensor, "it is missing"))
    }

    fn optional(&self, part: Part) -> Result<Option<(&str, Array)>> {
        let Some(name) = self.names.tensors.get(&part) else { return Ok(None) };
        Ok(Some((name, self.required(name)?)))
    }

    /// A part that goes with another one, which is there.
    fn with(&self, part: Part, there: &str) -> Result<(&str, Array)> {
        let missing = || format!("`{}`, which goes with it, is missing", part.ending());
        self.optional(part)?.ok_or_else(|| self.error(there, missing()))
    }

    fn number(&self, tensor: &str) -> Result<f32> {
        let value = self.file.tensor(tensor).filter(|view| view.len() == 1);
        let value = value.map(|view| view.to_f32(0..1)[0]).filter(|value| value.is_finite());
        value.ok_or_else(|| self.error(tensor, "one number was expected"))
    }

    fn scale(&self, rank: Option<usize>) -> Result<f32> {
        let over = |alpha: f32, rank: f32| alpha / rank;
        Ok(match (&self.names.scale, rank) {
            (Scale::Factor(factor), _) => *factor,
            (Scale::One, _) | (_, None) => 1.0,
            (Scale::Number(alpha), Some(rank)) => over(*alpha, rank as f32),
            (Scale::Stabilised(alpha), Some(rank)) => over(*alpha, (rank as f32).sqrt()),
            (Scale::Alpha(name), Some(rank)) => over(self.number(name)?, rank as f32),
        })
    }

    fn lora(&self) -> Result<(Update, Option<usize>)> {
        let (down, up) = (self.optional(Part::Down)?, self.optional(Part::Up)?);
        let ((down_name, down), (up_name, up)) = match (down, up) {
            (Some(down), Some(up)) => (down, up),
            (Some((one, _)), None) | (None, Some((one, _))) => {
                return Err(self.error(one, "the other half of the update is missing"));
            }
            (None, None) => {
                let middle = self.names.tensors.get(&Part::Middle).map_or("", String::as_str);
                return Err(self.error(middle, "it belongs to an update that is not there"));
            }
        };
        let (mut down, up) = (squeezed(down), squeezed(up));
        if let Some((name, middle)) = self.optional(Part::Middle)? {
            down = self.through((name, &middle), (down_name, &down))?;
        }
        let lora = self.product((down_name, down), (up_name, up), ["out, rank", "rank, in"])?;
        let rank = lora.rank();
        Ok((lora.into(), Some(rank)))
    }

    /// Two matrices, or a window and a matrix, whose ranks agree.
    fn product(
        &self,
        (down_name, down): (&str, Array),
        (up_name, up): (&str, Array),
        [up_shape, down_shape]: [&str; 2],
    ) -> Result<Lora> {
        let (rank, other) = match (&down.shape[..], &up.shape[..]) {
            ([rank, _] | [rank, _, _, _], [_, other]) => (*rank, *other),
            ([_, _] | [_, _, _, _], shape) => {
                let problem = format!("shape {shape:?} where [{up_shape}] is expected");
                return Err(self.error(up_name, problem));
            }
            (shape, _) => {
                let problem = format!("shape {shape:?} where [{down_shape}] is expected");
                return Err(self.error(down_name, problem));
            }
        };
        if rank != other {
            let problem = format!(
                "rank {rank} (shape {}), but `{up_name}`, which goes with it, has rank {other} \
                    (shape {})",
                down.shape, up.shape
            );
            return Err(self.error(down_name, problem));
        }
        Ok(Lora { down, up })
    }

    /// A window after a matrix, as one window.
    fn through(
        &self,
        (name, middle): (&str, &Array),
        (below, down): (&str, &Array),
    ) -> Result<Array> {
        through(middle, down).map(squeezed).ok_or_else(|| {
            let (middle, down) = (&middle.shape, &down.shape);
            self.error(
                name,
                format!("shape {middle}, which does not follow on {down} of `{below}`"),
            )
        })
    }

    /// A product of LyCORIS' two matrices, with the core of a Tucker form between them if there is
    /// one: then the first is written the other way around.
    fn factors(&self, [a, b, core]: [Part; 3], there: &str) -> Result<Lora> {
        let ((a_name, a), (b_name, b)) = (self.with(a, there)?, self.with(b, there)?);
        match self.optional(core)? {
            None => self.product((b_name, b), (a_name, a), ["out, rank", "rank, in"]),
            Some((name, core)) => {
                let down = self.through((name, &core), (b_name, &b))?;
                let up = transposed(&a).ok_or_else(|| {
                    self.error(a_name, format!("shape {} where [rank, out] is expected", a.shape))
                })?;
                self.product((name, down), (a_name, up), ["rank, out", "rank, rank, k, k"])
            }
        }
    }

    fn loha(&self) -> Result<(Update, Option<usize>)> {
        let first = [Part::HadaW1A, Part::HadaW1B, Part::HadaT1];
        let second = [Part::HadaW2A, Part::HadaW2B, Part::HadaT2];
        let names = first.iter().chain(&second).find_map(|part| self.names.tensors.get(part));
        let there = names.map_or("", String::as_str);
        for (core, other) in [(Part::HadaT1, Part::HadaT2), (Part::HadaT2, Part::HadaT1)] {
            if let Some(name) = self.names.tensors.get(&core) {
                self.with(other, name)?;
            }
        }
        let (first, second) = (self.factors(first, there)?, self.factors(second, there)?);
        let update = Update::LoHa(LoHa([first.clone(), second.clone()]));
        let shapes = [first, second].map(Update::from).map(|half| half.weight_shape());
        if shapes[0] != shapes[1] {
            let [a, b] = shapes;
            let problem = format!("its halves are changes of {a:?} and of {b:?}");
            return Err(self.error(there, problem));
        }
        let rank = match &update {
            Update::LoHa(LoHa([first, _])) => first.rank(),
            _ => 0,
        };
        Ok((update, Some(rank)))
    }

    fn lokr(&self) -> Result<(Update, Option<usize>)> {
        let all = KINDS[2].1.iter().find_map(|part| self.names.tensors.get(part));
        let there = all.map_or("", String::as_str);
        let both = |whole: Part, half: Part| match (
            self.names.tensors.get(&whole),
            self.names.tensors.get(&half),
        ) {
            (Some(whole), Some(half)) => {
                Err(self.error(half, format!("it is there besides `{whole}`, which it would make")))
            }
            _ => Ok(()),
        };
        both(Part::LokrW1, Part::LokrW1A)?;
        both(Part::LokrW2, Part::LokrW2A)?;
        let mut rank = None;
        let left = match self.optional(Part::LokrW1)? {
            Some((name, whole)) => match whole.shape[..] {
                [_, _] => whole,
                _ => {
                    let problem = format!("shape {} where a matrix is expected", whole.shape);
                    return Err(self.error(name, problem));
                }
            },
            None => {
                let (a_name, a) = self.with(Part::LokrW1A, there)?;
                let (b_name, b) = self.with(Part::LokrW1B, there)?;
                let lora = self.product((b_name, b), (a_name, a), ["a, rank", "rank, b"])?;
                rank = Some(lora.rank());
                multiplied(&lora).ok_or_else(|| {
                    self.error(a_name, "its product with the other half is impossibly large")
                })?
            }
        };
        let right = match self.optional(Part::LokrW2)? {
            Some((name, whole)) => match whole.shape[..] {
                [_, _] | [_, _, _, _] => Right::Whole(whole),
                _ => {
                    let problem =
                        format!("shape {} where a matrix or a window is expected", whole.shape);
                    return Err(self.error(name, problem));
                }
            },
            None => {
                let parts = [Part::LokrW2A, Part::LokrW2B, Part::LokrT2];
                let lora = self.factors(parts, there)?;
                rank = Some(lora.rank());
                Right::Lora(lora)
            }
        };
        Ok((Update::LoKr(LoKr { left, right }), rank))
    }

    /// Lengths of a DoRA.
    fn magnitude(&self) -> Result<Option<(&str, Array, Side)>> {
        let (found, by_shape) = match self.optional(Part::DoraScale)? {
            Some(found) => (Some(found), true),
            None => (self.optional(Part::Magnitude)?, false),
        };
        let Some((name, array)) = found else { return Ok(None) };
        let side = match array.shape[..] {
            [1, n, ..] if by_shape && n > 1 => Side::Input,
            _ => Side::Output,
        };
        Ok(Some((name, self.channels(name, array)?, side)))
    }

    /// An array with one side that counts, as a vector.
    fn channels(&self, name: &str, array: Array) -> Result<Array> {
        match array.shape.iter().filter(|side| **side != 1).count() {
            0 | 1 => Ok(Array::f32([array.values().len()], array.values().to_vec())),
            _ => {
                let problem =
                    format!("shape {} where one number a channel is expected", array.shape);
                Err(self.error(name, problem))
            }
        }
    }

    fn ia3(&self, bias: Option<Update>) -> Result<Assembled> {
        let (factors, side, biased) = match self.optional(Part::Ia3Factor)? {
            Some((name, factors)) => {
                let side = self.names.side.unwrap_or(match factors.shape[..] {
                    [1, n] if n > 1 => Side::Input,
                    _ => Side::Output,
                });
                let factors = self.channels(name, factors)?;
                let less_one = factors.values().iter().map(|factor| factor - 1.0).collect();
                // PEFT multiplies all of what comes out.
                (Array::f32(factors.shape.clone(), less_one), side, side == Side::Output)
            }
            None => {
                let there = [Part::OnInput, Part::Ia3Weight];
                let there = there.iter().find_map(|part| self.names.tensors.get(part));
                let there = there.map_or("", String::as_str);
                let (name, factors) = self.with(Part::Ia3Weight, there)?;
                let missing = || format!("`{}` beside it is missing", Part::OnInput.ending());
                let on_input = self.names.tensors.get(&Part::OnInput);
                let on_input = on_input.ok_or_else(|| self.error(name, missing()))?;
                let side = if self.number(on_input)? != 0.0 { Side::Input } else { Side::Output };
                (self.channels(name, factors)?, side, false)
            }
        };
        let scaled = || Update::Ia3(Ia3 { factors: factors.clone(), side });
        let bias = bias.or_else(|| biased.then(scaled));
        Ok(Assembled { weight: Some(scaled()), bias, scale: 1.0 })
    }

    fn bias(&self) -> Result<Option<Update>> {
        let found = match self.optional(Part::DiffB)? {
            Some(found) => Some(found),
            None => self.optional(Part::BNorm)?,
        };
        if let Some((name, array)) = found {
            return Ok(Some(Update::Full(self.channels(name, array)?)));
        }
        let Some((name, array)) = self.optional(Part::Ia3Bias)? else { return Ok(None) };
        let factors = self.channels(name, array)?;
        Ok(Some(Update::Ia3(Ia3 { factors, side: Side::Output })))
    }
}

/// The tensors of an update, the scale left out.
///
/// # Errors
/// What no file can hold.
pub(super) fn tensors(update: &Update) -> Result<Vec<(Part, Array)>, String> {
    Ok(match update {
        Update::Lora(Lora { down, up }) => vec![(Part::Down, down.clone()), (Part::Up, up.clone())],
        Update::LoHa(LoHa([first, second])) => vec![
            (Part::HadaW1A, first.up.clone()),
            (Part::HadaW1B, first.down.clone()),
            (Part::HadaW2A, second.up.clone()),
            (Part::HadaW2B, second.down.clone()),
        ],
        Update::LoKr(LoKr { left, right }) => {
            let mut parts = vec![(Part::LokrW1, left.clone())];
            match right {
                Right::Whole(whole) => parts.push((Part::LokrW2, whole.clone())),
                Right::Lora(lora) => {
                    parts.push((Part::LokrW2A, lora.up.clone()));
                    parts.push((Part::LokrW2B, lora.down.clone()));
                }
            }
            parts
        }
        Update::Full(change) => {
            let part = if change.shape.len() == 1 { Part::WNorm } else { Part::Diff };
            vec![(part, change.clone())]
        }
        Update::Ia3(Ia3 { factors, side }) => {
            let on_input = f32::from(u8::from(*side == Side::Input));
            let on_input = Array::f32([1], vec![on_input]);
            vec![(Part::Ia3Weight, factors.clone()), (Part::OnInput, on_input)]
        }
        Update::Dora(dora) => {
            if dora.strength != 1.0 {
                let strength = dora.strength;
                return Err(format!("a DoRA of strength {strength}, which no file holds"));
            }
            let mut parts = tensors(&dora.change)?;
            let (axes, channels) =
                (dora.change.weight_shape().len(), dora.magnitude.values().len());
            let mut shape = vec![1; axes.max(2)];
            if let Some(side) = shape.get_mut(usize::from(dora.side == Side::Input)) {
                *side = channels;
            }
            let magnitude = Array::f32(shape, dora.magnitude.values().to_vec());
            parts.push((Part::DoraScale, magnitude));
            parts
        }
    })
}

/// The tensors of a bias's update. `norm`: the layer's weight is no matrix.
pub(super) fn bias_tensor(update: &Update, norm: bool) -> Option<(Part, Array)> {
    match update {
        Update::Full(change) if norm => Some((Part::BNorm, change.clone())),
        Update::Full(change) => Some((Part::DiffB, change.clone())),
        Update::Ia3(ia3) => Some((Part::Ia3Bias, ia3.factors.clone())),
        _ => None,
    }
}

/// `[.., 1, 1]` as `[..]`: the window of a 1x1 convolution.
fn squeezed(array: Array) -> Array {
    match array.shape[..] {
        [a, b, 1, 1] => Array { shape: [a, b].into(), ..array },
        _ => array,
    }
}

fn transposed(array: &Array) -> Option<Array> {
    let [rows, columns] = array.shape[..] else { return None };
    let values = array.values();
    let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c]));
    Some(Array::f32([columns, rows], turned.collect()))
}

/// up down
fn multiplied(lora: &Lora) -> Option<Array> {
    let shape = [lora.up.shape.rows(), lora.down.values().len() / lora.rank().max(1)];
    shape[0].checked_mul(shape[1]).filter(|elements| *elements <= MOST_ELEMENTS)?;
    let mut values = vec![0.0; shape[0] * shape[1]];
    let ups = lora.up.values().chunks_exact(lora.rank().max(1));
    for (row, factors) in values.chunks_exact_mut(shape[1].max(1)).zip(ups) {
        for (factor, line) in factors.iter().zip(lora.down.values().chunks_exact(shape[1].max(1))) {
            row.iter_mut().zip(line).for_each(|(sum, d)| *sum += factor * d);
        }
    }
    Some(Array::f32(shape, values))
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

    #[test]
    fn endings_are_told_whole() {
        assert_eq!(Part::at_end("unet.a.lora_down.weight"), Some(("unet.a", Part::Down)));
        assert_eq!(Part::at_end("a.weight"), Some(("a", Part::Ia3Weight)));
        assert_eq!(Part::at_end("a.lokr_w2_a"), Some(("a", Part::LokrW2A)));
        assert_eq!(Part::at_end("a.b"), None);
    }
}
