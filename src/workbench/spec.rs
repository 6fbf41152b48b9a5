//! What a kernel has to compute: its tensors, the numbers that it may ask for, its result, and the
//! shapes at which it is tried.

use super::error::{Error, Result};
use super::expected::Expected;
use super::expression::{Budget, Expression, Names};
use super::kinds::{Exponents, KINDS, Kind};

/// Parts of formulas that are computed at most for a result.
const MOST_STEPS: u64 = 1_000_000_000;

/// What elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Numbers: f32, f16, or two f16 in a u32, as the kernel declares them.
    Float,
    /// Whole numbers from 0.
    Index,
}

/// A tensor by the name of its binding.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub name: String,
    pub axes: Vec<Expression>,
    pub element: Element,
    pub output: bool,
}

/// How inputs are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Numbers around 0, up to 2.
    Ordinary,
    /// Numbers large and small.
    Wide,
    /// As large as results in f16 allow.
    WideHalf,
    /// Numbers around 2000 in the first input.
    Shifted,
    /// Numbers up to 0.002 in the first input, whose variance is as small as epsilons are.
    Slight,
    /// One that is no number, in the first input.
    NotANumber,
    /// One that is infinite.
    Infinite,
    /// Numbers below f32's normal ones.
    Denormal,
    /// Exponents around -200 in all rows.
    Below,
    /// Exponents around -200, 200 and 0 in rows that follow each other.
    Apart,
    /// Scores that f16 holds once they are scaled, not before.
    Scores,
}

/// Sizes to try, and with what.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub label: String,
    pub sizes: Vec<usize>,
    pub fill: Fill,
    /// Too large for the interpreter: on the device alone, compared at some rows.
    pub huge: bool,
}

/// How the result is known.
#[derive(Clone)]
pub(super) enum Reference {
    Kind(&'static Kind),
    /// For each output: names of its indices are behind sizes and numbers.
    Formulas(Vec<Expression>),
    /// What another kernel gives, which is executed as it is written.
    Kernel(Box<super::source::Source>),
}

/// A kind of kernel, or what a file describes.
#[derive(Clone)]
pub struct Spec {
    /// As it is asked for.
    pub name: String,
    /// What it computes, in a line.
    pub what: String,
    pub(super) sizes: Vec<String>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) numbers: Vec<(String, Expression)>,
    pub(super) reference: Reference,
    pub(super) shapes: Vec<Shape>,
    pub(super) terms: Expression,
    pub(super) flops: Expression,
    pub(super) wide: f64,
    pub(super) wide_half: f64,
    pub(super) cancels: bool,
    pub(super) exponents: Option<Exponents>,
}

/// Names of the kinds of kernels that are known.
pub fn kinds() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

impl Spec {
    /// A kind by its name.
    ///
    /// # Errors
    /// A name that no kind has.
    pub fn kind(name: &str) -> Result<Spec> {
        let kind = KINDS
            .iter()
            .find(|kind| kind.name == name)
            .ok_or_else(|| Error::unknown("kind of kernel", name, &kinds()))?;
        Spec::of(kind).map_err(|message| Error::Kernel { kernel: name.into(), message })
    }

    fn of(kind: &'static Kind) -> Result<Spec, String> {
        let names = Names::of(kind.sizes.iter().copied());
        let axes = |axes: &[&str]| -> Result<Vec<Expression>, String> {
            axes.iter().map(|axis| Expression::parse(axis, &names)).collect()
        };
        let mut tensors = Vec::new();
        for (name, shape) in kind.inputs {
            let name = name.to_string();
            let axes = axes(shape)?;
            tensors.push(Tensor { name, axes, element: Element::Float, output: false });
        }
        let output = axes(kind.output)?;
        tensors.push(Tensor {
            name: "y".into(),
            axes: output,
            element: Element::Float,
            output: true,
        });
        let number = |(name, formula): &(&str, &str)| {
            Ok((name.to_string(), Expression::parse(formula, &names)?))
        };
        let shape = |label: &str, sizes: &[usize], fill| Shape {
            label: label.to_string(),
            sizes: sizes.to_vec(),
            fill,
            huge: label == "huge",
        };
        let mut shapes: Vec<Shape> =
            kind.shapes.iter().map(|(label, sizes)| shape(label, sizes, Fill::Ordinary)).collect();
        let ragged = kind.shapes.iter().find(|(label, _)| *label == "ragged");
        if let Some((_, sizes)) = ragged {
            for (label, fill) in [
                ("large numbers", Fill::Wide),
                ("a NaN", Fill::NotANumber),
                ("an infinity", Fill::Infinite),
                ("denormals", Fill::Denormal),
            ] {
                shapes.push(shape(label, sizes, fill));
            }
            if kind.exponents.is_some() {
                shapes.push(shape("rows far below 0", sizes, Fill::Below));
                shapes.push(shape("rows far apart", sizes, Fill::Apart));
            }
            if kind.exponents == Some(Exponents::Scores) {
                shapes.push(shape("large scores", sizes, Fill::Scores));
            }
            if kind.name.ends_with("_norm") {
                shapes.push(shape("a large mean", sizes, Fill::Shifted));
                shapes.push(shape("little variance", sizes, Fill::Slight));
            }
        }
        Ok(Spec {
            name: kind.name.into(),
            what: kind.what.into(),
            sizes: kind.sizes.iter().map(|name| name.to_string()).collect(),
            tensors,
            numbers: kind.numbers.iter().map(number).collect::<Result<_, String>>()?,
            reference: Reference::Kind(kind),
            shapes,
            terms: Expression::parse(kind.terms, &names)?,
            flops: Expression::parse(kind.flops, &names)?,
            wide: kind.wide,
            wide_half: kind.wide_half,
            cancels: kind.cancels,
            exponents: kind.exponents,
        })
    }

    /// Names of the sizes, in the order of shapes.
    pub fn size_names(&self) -> &[String] {
        &self.sizes
    }

    /// A set of shapes to measure at: `sd15` and `sdxl`, those of the models' networks, or `small`.
    pub fn shapes_of(&self, set: &str) -> Option<Vec<Vec<usize>>> {
        let all = |shapes: &[&[usize]]| shapes.iter().map(|sizes| sizes.to_vec()).collect();
        match (set, &self.reference) {
            ("sd15", Reference::Kind(kind)) => Some(all(kind.sd15)),
            ("sdxl", Reference::Kind(kind)) => Some(all(kind.sdxl)),
            ("small", _) => {
                let ordinary = self
                    .shapes
                    .iter()
                    .filter(|shape| shape.fill == Fill::Ordinary && !shape.sizes.contains(&0));
                let kind = matches!(self.reference, Reference::Kind(_));
                let named =
                    |shape: &&Shape| !kind || ["ordinary", "huge"].contains(&shape.label.as_str());
                Some(ordinary.filter(named).map(|shape| shape.sizes.clone()).collect())
            }
            _ => None,
        }
    }

    /// The sizes by their names, then the numbers: what headers and uniforms may ask for.
    pub(super) fn named(&self, sizes: &[usize]) -> Vec<(String, f64)> {
        let of_sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
        let named = self.sizes.iter().cloned().zip(of_sizes.iter().copied());
        let numbers =
            self.numbers.iter().map(|(name, formula)| (name.clone(), formula.number(&of_sizes)));
        named.chain(numbers).collect()
    }

    /// The extents of a tensor.
    pub(super) fn extents(&self, tensor: &Tensor, sizes: &[usize]) -> Vec<usize> {
        let sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
        tensor.axes.iter().map(|axis| axis.number(&sizes).max(0.0) as usize).collect()
    }

    pub(super) fn elements(&self, tensor: &Tensor, sizes: &[usize]) -> usize {
        self.extents(tensor, sizes).iter().fold(1, |all: usize, &one| all.saturating_mul(one))
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|tensor| tensor.output)
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|tensor| !tensor.output)
    }

    /// Sizes as messages tell them: `rows 33, inner 20`.
    pub(super) fn told(&self, sizes: &[usize]) -> String {
        let each = self.sizes.iter().zip(sizes).map(|(name, size)| format!("{name} {size}"));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Floating-point operations at some sizes.
    pub(super) fn flops_of(&self, sizes: &[usize]) -> f64 {
        let sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
        self.flops.number(&sizes)
    }

    /// What is too large to be tried, in words.
    pub(super) fn too_large(&self, sizes: &[usize]) -> Option<String> {
        const MOST: usize = 1 << 29;
        let most_of_a_size = u32::MAX as usize;
        if let Some((name, size)) =
            self.sizes.iter().zip(sizes).find(|(_, size)| **size > most_of_a_size)
        {
            return Some(format!("{name} {size} is more than u32 holds"));
        }
        let each = self.tensors.iter().map(|tensor| self.elements(tensor, sizes));
        let all = each.fold(0, usize::saturating_add);
        (all > MOST).then(|| {
            format!("{} take more than {MOST} elements, the most that is tried", self.told(sizes))
        })
    }

    /// The rows `rows` of output number `output`, along its last axis; `inputs` are in the order of
    /// the tensors.
    ///
    /// # Errors
    /// A formula that takes too long.
    pub(super) fn expected(
        &self,
        output: usize,
        sizes: &[usize],
        inputs: &[&[f64]],
        rows: &[usize],
    ) -> Result<Vec<Vec<Expected>>> {
        let Some(tensor) = self.outputs().nth(output) else { return Ok(Vec::new()) };
        let budget = Budget::new(MOST_STEPS);
        let extents = self.extents(tensor, sizes);
        let width = extents.last().copied().unwrap_or(1);
        let named = self.named(sizes);
        let numbers: Vec<f64> = named.iter().map(|(_, number)| *number).collect();
        let row = |&row: &usize| {
            let mut out = vec![Expected::default(); width];
            match &self.reference {
                Reference::Kind(kind) => {
                    (kind.row)(sizes, inputs, &numbers[sizes.len()..], row, &mut out);
                }
                Reference::Formulas(formulas) => {
                    self.by_formula(
                        &formulas[output],
                        &extents,
                        sizes,
                        &numbers,
                        inputs,
                        row,
                        &budget,
                        &mut out,
                    );
                }
                Reference::Kernel(_) => {}
            }
            out
        };
        let all = rows.iter().map(row).collect();
        if budget.is_spent() {
            return Err(Error::Kernel {
                kernel: self.name.clone(),
                message: format!(
                    "at {} the formula of `{}` takes more than {MOST_STEPS} steps",
                    self.told(sizes),
                    tensor.name
                ),
            });
        }
        Ok(all)
    }

    #[allow(clippy::too_many_arguments, reason = "what a formula is computed from")]
    fn by_formula(
        &self,
        formula: &Expression,
        extents: &[usize],
        sizes: &[usize],
        numbers: &[f64],
        inputs: &[&[f64]],
        row: usize,
        budget: &Budget,
        out: &mut [Expected],
    ) {
        let shapes: Vec<Vec<usize>> =
            self.inputs().map(|tensor| self.extents(tensor, sizes)).collect();
        let element = |array: usize, indices: &[f64]| {
            let shape = &shapes[array];
            let mut at = 0;
            for (&extent, &index) in shape.iter().zip(indices) {
                // What lies outside is zero, as around a picture.
                if !(0.0..extent as f64).contains(&index) {
                    return 0.0;
                }
                at = at * extent + index as usize;
            }
            inputs[array].get(at).copied().unwrap_or(0.0)
        };
        let mut all = numbers.to_vec();
        let first = all.len();
        all.resize(first + extents.len(), 0.0);
        let mut rest = row;
        for axis in (0..extents.len().saturating_sub(1)).rev() {
            all[first + axis] = (rest % extents[axis].max(1)) as f64;
            rest /= extents[axis].max(1);
        }
        for (column, out) in out.iter_mut().enumerate() {
            if let Some(last) = all.last_mut().filter(|_| !extents.is_empty()) {
                *last = column as f64;
            }
            let value = formula.value(&all, &element, budget);
            *out = Expected { value, scale: value.abs() };
        }
    }
}

/// Uniform in -1 .. 1, from a name and an index: the same on every machine.
pub(super) fn noise(name: &str, index: usize) -> f64 {
    let mut h = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    h = h.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((h ^ (h >> 31)) >> 40) as f64 / (1 << 23) as f64 - 1.0
}
