//! A kernel at one shape: sizes that suit it, inputs, and one execution by the interpreter.

use super::compare::Tolerance;
use super::error::Result;
use super::fault::FaultKind;
use super::interface::{Interface, decoded, encoded, overrides, rounded};
use super::interpreter::{Binding, End, Executed, Interpreter, Options, Refusal, Region};
use super::kinds::Exponents;
use super::rounding::Rounding;
use super::source::{Settings, Source, Wgsl};
use super::spec::{Element, Fill, Shape, Spec, Tensor, noise};

/// Everything about one shape but the results.
pub(super) struct Trial {
    pub sizes: Vec<usize>,
    /// Sizes, numbers and parameters by name.
    pub numbers: Vec<(String, f64)>,
    pub grid: [u32; 3],
    /// Of each input, as its binding holds it.
    pub inputs: Vec<Vec<f64>>,
}

/// What an execution left in an output.
pub(super) struct Output {
    pub values: Vec<f64>,
    /// Elements that some invocation wrote.
    pub written: Vec<bool>,
}

/// Why a shape is left out.
pub(super) enum Unfit {
    /// The kernel's header, or its bindings, need other sizes.
    Needs(String),
    Failed(super::error::Error),
}

impl From<super::error::Error> for Unfit {
    fn from(error: super::error::Error) -> Unfit {
        Unfit::Failed(error)
    }
}

/// Sizes, numbers and whole parameters by name.
pub(super) fn numbers(
    source: &Source,
    spec: &Spec,
    settings: &Settings,
    sizes: &[usize],
) -> Result<Vec<(String, f64)>> {
    let mut numbers = spec.named(sizes);
    for (name, value) in source.settings(settings)? {
        if let super::source::Setting::Number(value) = value {
            numbers.push((name, value as f64));
        }
    }
    Ok(numbers)
}

/// What a kernel binds, as what it is to compute has it.
///
/// # Errors
/// What is bound otherwise, with its line.
pub(super) fn interface(
    source: &Source,
    spec: &Spec,
    settings: &Settings,
    wgsl: &Wgsl,
    module: &naga::Module,
) -> Result<Interface> {
    let ones = vec![1; spec.size_names().len()];
    let numbers = numbers(source, spec, settings, &ones)?;
    let known: Vec<&str> = numbers.iter().map(|(name, _)| name.as_str()).collect();
    let found = Interface::of(module);
    let fits = |interface: Interface| {
        interface.fits(spec)?;
        interface.is_fed(&known)?;
        Ok(interface)
    };
    found.and_then(fits).map_err(|problem| problem.of(source, wgsl))
}

/// What sizes are rounded up to, the first that suits.
const MULTIPLES: [usize; 24] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 5, 10, 20, 40, 80, 160, 320, 3, 6, 12, 24, 48, 96, 192, 384];

/// The sizes of a shape, those that the header mentions rounded up until it is content.
fn suited(
    source: &Source,
    spec: &Spec,
    settings: &Settings,
    sizes: &[usize],
) -> Result<Option<Vec<usize>>> {
    let needs = source.needs();
    let mentioned = |name: &str| {
        needs.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
    };
    for multiple in MULTIPLES {
        let rounded: Vec<usize> = spec
            .sizes
            .iter()
            .zip(sizes)
            .map(
                |(name, &size)| {
                    if mentioned(name) { size.next_multiple_of(multiple) } else { size }
                },
            )
            .collect();
        if source.suits(&numbers(source, spec, settings, &rounded)?)? {
            return Ok(Some(rounded));
        }
    }
    Ok(None)
}

impl Trial {
    /// Prepares a shape.
    pub fn new(
        source: &Source,
        spec: &Spec,
        settings: &Settings,
        interface: &Interface,
        shape: &Shape,
    ) -> Result<Trial, Unfit> {
        if let Some(problem) = spec.too_large(&shape.sizes) {
            return Err(Unfit::Failed(source.failed(problem)));
        }
        let Some(sizes) = suited(source, spec, settings, &shape.sizes)? else {
            return Err(Unfit::Needs(format!("the header needs {}", source.needs())));
        };
        let numbers = numbers(source, spec, settings, &sizes)?;
        let grid = source.grid(&numbers)?;
        let fill = match shape.fill {
            Fill::Wide if interface.holds_halves(spec) => Fill::WideHalf,
            other => other,
        };
        let inputs = spec
            .inputs()
            .enumerate()
            .map(|(index, tensor)| {
                let half = interface
                    .find(&tensor.name)
                    .is_some_and(|bound| bound.stored.is_half(tensor.element))
                    || interface.rounds();
                filled(spec, index, tensor, &sizes, fill, half)
            })
            .collect();
        Ok(Trial { sizes, numbers, grid, inputs })
    }

    /// The inputs as slices.
    pub fn inputs(&self) -> Vec<&[f64]> {
        self.inputs.iter().map(Vec::as_slice).collect()
    }

    /// An input's bytes as its binding has them.
    pub fn bytes(&self, interface: &Interface, spec: &Spec, index: usize) -> Vec<u8> {
        let tensor = spec.inputs().nth(index);
        let bound = tensor.and_then(|tensor| Some((tensor, interface.find(&tensor.name)?)));
        match bound {
            Some((tensor, bound)) => {
                let mut bytes = encoded(&self.inputs[index], bound.stored, tensor.element);
                // What fills up the last vector is no number.
                bytes.resize(bound.bytes(self.inputs[index].len(), tensor.element), 0xff);
                bytes
            }
            None => Vec::new(),
        }
    }

    /// Executes the kernel at a large shape: all of it where that is quick, else the workgroups at
    /// the corners of the grid and in its middle.
    pub fn interpret_large(
        &self,
        interpreter: &Interpreter,
        interface: &Interface,
        spec: &Spec,
        options: Options,
    ) -> Result<(Vec<Output>, Executed), Refusal> {
        const QUICK: f64 = 1e8;
        let run = |options| self.interpret(interpreter, interface, spec, options);
        let whole = |most| Options { corners: false, most, ..options };
        let corners = Options { corners: true, ..options };
        let is_quick = spec.flops_of(&self.sizes) <= QUICK;
        let mut seen = Vec::new();
        if is_quick {
            let (outputs, executed) = run(whole(options.most.min(3_000_000)))?;
            if executed.end != End::TooLong {
                return Ok((outputs, executed));
            }
            seen = executed.sightings;
        }
        let (outputs, mut executed) = run(corners)?;
        // The last element is nearly always a corner's: where it is not, or nobody's, all are asked.
        let is_last_left = outputs.iter().any(|output| output.written.last() == Some(&false));
        if is_quick && executed.end == End::Whole && executed.in_part && is_last_left {
            let (outputs, all) = run(whole(3 * options.most))?;
            if all.end != End::TooLong {
                return Ok((outputs, all));
            }
        }
        executed.sightings.extend(seen);
        Ok((outputs, executed))
    }

    /// Executes the kernel as it is written.
    pub fn interpret(
        &self,
        interpreter: &Interpreter,
        interface: &Interface,
        spec: &Spec,
        options: Options,
    ) -> Result<(Vec<Output>, Executed), Refusal> {
        let halves = interface.halves;
        let (mut regions, mut bindings) = (Vec::new(), Vec::new());
        let mut bind = |name: &str, region: Region, size: usize, input: bool| {
            let (region_index, name) = (regions.len(), name.to_string());
            regions.push(region);
            bindings.push(Binding { name, region: region_index, offset: 0, size, input });
        };
        for (index, tensor) in spec.inputs().enumerate() {
            if interface.find(&tensor.name).is_some() {
                let bytes = self.bytes(interface, spec, index);
                let size = bytes.len();
                bind(&tensor.name, Region::new(bytes, halves, true), size, true);
            }
        }
        for tensor in spec.outputs() {
            let Some(bound) = interface.find(&tensor.name) else { continue };
            let elements = spec.elements(tensor, &self.sizes);
            let size = bound.bytes(elements, tensor.element);
            // What nobody writes stays no number.
            bind(&tensor.name, Region::new(vec![0xff; size], halves, false), size, false);
        }
        for uniforms in &interface.uniforms {
            let bytes = uniforms.packed(&self.numbers).map_err(Refusal)?;
            let size = bytes.len();
            bind(&uniforms.name, Region::new(bytes, halves, true), size, true);
        }
        let executed = interpreter.run(&mut regions, &bindings, self.grid, options, 1)?;
        let mut outputs = Vec::new();
        for tensor in spec.outputs() {
            let found = bindings.iter().position(|binding| binding.name == tensor.name);
            let (Some(region), Some(bound)) = (found, interface.find(&tensor.name)) else {
                continue;
            };
            let (region, elements) = (&regions[region], spec.elements(tensor, &self.sizes));
            let width = bound.stored.bytes(2, tensor.element) / 2;
            outputs.push(Output {
                values: decoded(&region.bytes, bound.stored, tensor.element, elements),
                written: (0..elements).map(|i| region.is_written(i * width, 1)).collect(),
            });
        }
        Ok((outputs, executed))
    }
}

/// The values of an input.
fn filled(
    spec: &Spec,
    index: usize,
    tensor: &Tensor,
    sizes: &[usize],
    fill: Fill,
    half: bool,
) -> Vec<f64> {
    let count = spec.elements(tensor, sizes);
    let name = &tensor.name;
    let first = spec.inputs().position(|tensor| tensor.element == Element::Float) == Some(index);
    let width = spec.extents(tensor, sizes).last().copied().unwrap_or(1).max(1);
    if tensor.element == Element::Index {
        return (0..count).map(|i| ((noise(name, i) + 1.0) * 4.0).floor()).collect();
    }
    let value = |i: usize| {
        let noise = noise(name, i);
        match fill {
            Fill::Wide => noise * spec.wide,
            Fill::WideHalf if spec.cancels => cancelling(name, i, width, first, spec.wide_half),
            Fill::WideHalf => noise * spec.wide_half,
            Fill::Shifted if first => 2000.0 + noise * 2.0,
            Fill::Slight if first => noise * 2e-3,
            Fill::Denormal => noise * 2e-39,
            Fill::Below | Fill::Apart | Fill::Scores => {
                heights(spec, fill, index, sizes, i / width, noise)
            }
            _ => noise * 2.0,
        }
    };
    // What f16 holds exactly comes through any rounding of factors.
    let mut values: Vec<f64> = (0..count).map(|i| rounded(value(i), half)).collect();
    let at = count * 2 / 3;
    if let (true, Some(value)) = (first, values.get_mut(at)) {
        match fill {
            Fill::NotANumber => *value = f64::NAN,
            Fill::Infinite => *value = f64::INFINITY,
            _ => {}
        }
    }
    values
}

/// Of input number `index` and its row `row`: what puts the exponents of a softmax somewhere else
/// than around 0.
fn heights(spec: &Spec, fill: Fill, index: usize, sizes: &[usize], row: usize, noise: f64) -> f64 {
    // So that whoever takes another row's greatest, or 0, is left with 0 / 0 or an infinity.
    let height = match fill {
        Fill::Below => -200.0,
        _ => [-200.0, 200.0, 0.0][row % 3],
    };
    let depth = match (spec.exponents, spec.sizes.iter().position(|name| name == "depth")) {
        (Some(Exponents::Scores), Some(at)) => sizes[at].max(1) as f64,
        _ if index == 0 => return height + noise * 2.0,
        _ => return noise * 2.0,
    };
    // q k^T: so large that f16 holds it only once it is scaled.
    let product = if fill == Fill::Scores { 80_000.0 } else { height * depth.sqrt() };
    let each = (product.abs() / depth).sqrt();
    match index {
        0 if product == 0.0 => noise * 2.0,
        0 => product.signum() * each * (0.95 + 0.05 * noise),
        1 => match fill {
            Fill::Scores => each * (0.95 + 0.05 * noise),
            // The same for all rows.
            _ => (200.0 / depth.sqrt()).sqrt() * (0.95 + 0.05 * noise),
        },
        _ => noise * 2.0,
    }
}

/// Factors whose products are large, one half of each row's sum against the other: the first's are
/// mirrored, with the other sign, and all of the other's are nearly alike.
fn cancelling(name: &str, index: usize, width: usize, first: bool, wide: f64) -> f64 {
    if !first {
        return wide * (0.95 + 0.05 * noise(name, index));
    }
    let at = index % width;
    let mirrored = width - 1 - at;
    match at.cmp(&mirrored) {
        std::cmp::Ordering::Less => noise(name, index).abs() * wide,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => -noise(name, index - at + mirrored).abs() * wide,
    }
}

/// How far results may be off.
pub(super) fn tolerance(
    source: &Source,
    spec: &Spec,
    interface: &Interface,
    sizes: &[usize],
) -> Tolerance {
    let sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
    let terms = spec.terms.number(&sizes).max(1.0);
    // Rounding of each term in f32, in whichever order.
    let single = (16.0 + terms) / f64::from(1 << 23);
    // Of one rounding to f16, up or down.
    const HALF: f64 = 1.0 / 1024.0;
    let held = interface.holds_halves(spec);
    let (of_scale, of_value) = match (source.tolerance, interface.rounding) {
        (Some(given), _) => (given, 0.0),
        (None, Rounding::Computed) => ((4.0 + 2.0 * terms.sqrt()) * HALF, 0.0),
        // Terms that were kept, and the factors that they come of.
        (None, Rounding::Held) => (single + 2.0 * HALF, HALF),
        (None, Rounding::Stored) => (single, HALF),
        (None, Rounding::None) if held => (single, HALF),
        (None, Rounding::None) => (single, 0.0),
    };
    // f32's denormals may be taken for zero; f16's steps are as wide.
    const STEP: f64 = 6e-8;
    let least = match interface.rounding {
        Rounding::Computed | Rounding::Held => STEP * terms,
        Rounding::Stored => STEP,
        Rounding::None if held => STEP,
        Rounding::None => 1.2e-38 * terms,
    };
    Tolerance { of_scale, of_value, least }
}

/// The subgroups that a kernel is executed with.
pub(super) fn subgroups(interpreter: &Interpreter) -> &'static [u32] {
    // Kernels with cooperative matrices are written for subgroups of a size.
    match interpreter.uses_subgroups() && !interpreter.uses_matrices() {
        true => &[32, 8, 16, 64, 128],
        false => &[32],
    }
}

/// Faults after which nothing is run on a device, which might not survive it.
pub(super) fn is_dangerous(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::OutOfBoundsRead
            | FaultKind::OutOfBoundsWrite
            | FaultKind::Endless
            | FaultKind::DivergentBarrier
            | FaultKind::DivergentMatrix
    )
}

/// An interpreter for a kernel's WGSL, given sizes for its `override`s.
pub(super) fn interpreter(wgsl: &str, numbers: &[(String, f64)]) -> Result<Interpreter, Refusal> {
    Interpreter::new(wgsl, &overrides(numbers))
}
