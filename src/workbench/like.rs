//! What a kernel is to compute, as a file describes it: sizes, tensors, and a formula for each
//! output or another kernel that computes the same.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{Error, Result};
use super::expression::{Expression, Names};
use super::source::Source;
use super::spec::{Element, Fill, Reference, Shape, Spec, Tensor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    what: Option<String>,
    /// Names of the sizes.
    sizes: Vec<String>,
    /// Sizes to try.
    shapes: Vec<Shapes>,
    /// Numbers beside sizes that uniforms may ask for.
    #[serde(default)]
    numbers: BTreeMap<String, toml::Value>,
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, Output>,
    /// A kernel that computes the same.
    reference: Option<String>,
    /// Terms that are added up for an element.
    terms: Option<String>,
    flops: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Shapes {
    Plain(Vec<usize>),
    Named {
        name: String,
        sizes: Vec<usize>,
        #[serde(default)]
        huge: bool,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Shape(Vec<toml::Value>),
    Typed {
        shape: Vec<toml::Value>,
        #[serde(rename = "type")]
        element: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    shape: Vec<toml::Value>,
    /// Names of its indices in the formula.
    #[serde(default)]
    indices: Vec<String>,
    value: Option<String>,
}

fn formula(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Spec {
    /// Reads a file that describes a kernel.
    ///
    /// # Errors
    /// A file that cannot be read, or what is wrong with it.
    pub fn like(path: &Path) -> Result<Spec> {
        let failed = |message: String| Error::File { path: path.into(), message };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| failed(plainly(&error)))?;
        let reference = file
            .reference
            .as_ref()
            .map(|other| Source::open(&path.parent().unwrap_or(Path::new("")).join(other)))
            .transpose()?;
        let name =
            path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        described(name, &file, reference).map_err(failed)
    }
}

/// An error of TOML, where it is of forms in words that say them.
fn plainly(error: &toml::de::Error) -> String {
    let forms = [
        ("Shapes", "a shape is [sizes] or { name = .., sizes = [..], huge = true }"),
        ("Input", "an input is [axes] or { shape = [axes], type = \"float\" or \"index\" }"),
    ];
    let mut text = error.to_string();
    for (form, says) in forms {
        text =
            text.replace(&format!("data did not match any variant of untagged enum {form}"), says);
    }
    text
}

fn described(name: String, file: &File, reference: Option<Source>) -> Result<Spec, String> {
    let of_sizes = Names::of(file.sizes.iter().cloned());
    let axes = |shape: &[toml::Value]| -> Result<Vec<Expression>, String> {
        shape.iter().map(|axis| Expression::parse(&formula(axis), &of_sizes)).collect()
    };
    let mut tensors = Vec::new();
    for (name, input) in &file.inputs {
        let (shape, element) = match input {
            Input::Shape(shape) => (shape, Element::Float),
            Input::Typed { shape, element } => match element.as_str() {
                "float" => (shape, Element::Float),
                "index" => (shape, Element::Index),
                other => {
                    return Err(format!("input {name}: type `{other}`, expected float or index"));
                }
            },
        };
        let axes = axes(shape).map_err(|problem| format!("input {name}: {problem}"))?;
        tensors.push(Tensor { name: name.clone(), axes, element, output: false });
    }
    let arrays: Vec<(String, usize)> =
        tensors.iter().map(|tensor| (tensor.name.clone(), tensor.axes.len())).collect();
    let numbers: Vec<(String, Expression)> = file
        .numbers
        .iter()
        .map(|(name, value)| Ok((name.clone(), Expression::parse(&formula(value), &of_sizes)?)))
        .collect::<Result<_, String>>()?;
    let mut formulas = Vec::new();
    for (name, output) in &file.outputs {
        let own = axes(&output.shape).map_err(|problem| format!("output {name}: {problem}"))?;
        let known = file.sizes.iter().chain(numbers.iter().map(|(name, _)| name));
        let mut names = Names::of(known.cloned());
        if let (None, Some(value)) = (&reference, &output.value) {
            if output.indices.len() != own.len() {
                return Err(format!(
                    "output {name}: {} axes, {} indices",
                    own.len(),
                    output.indices.len()
                ));
            }
            names.numbers.extend(output.indices.iter().cloned());
            names.arrays.clone_from(&arrays);
            let formula = Expression::parse(value, &names);
            formulas.push(formula.map_err(|problem| format!("output {name}: {problem}"))?);
        } else if reference.is_none() {
            return Err(format!("output {name}: a `value` is missing, or a `reference` for all"));
        }
        tensors.push(Tensor {
            name: name.clone(),
            axes: own,
            element: Element::Float,
            output: true,
        });
    }
    let mut shapes = Vec::new();
    for (number, shape) in file.shapes.iter().enumerate() {
        let (label, sizes, huge) = match shape {
            Shapes::Plain(sizes) => (format!("shape {}", number + 1), sizes, false),
            Shapes::Named { name, sizes, huge } => (name.clone(), sizes, *huge),
        };
        if sizes.len() != file.sizes.len() {
            return Err(format!(
                "{label} has {} sizes, expected {}: {}",
                sizes.len(),
                file.sizes.len(),
                file.sizes.join(", ")
            ));
        }
        shapes.push(Shape { label, sizes: sizes.clone(), fill: Fill::Ordinary, huge });
    }
    let first = shapes.first().map(|shape| shape.sizes.clone()).ok_or("no shapes")?;
    for (label, fill) in [("large numbers", Fill::Wide), ("a NaN", Fill::NotANumber)] {
        let label = label.to_string();
        shapes.push(Shape { label, sizes: first.clone(), fill, huge: false });
    }
    let or = |given: &Option<String>, default: &str| {
        Expression::parse(given.as_deref().unwrap_or(default), &of_sizes)
    };
    let what = match (&file.what, &reference) {
        (Some(what), _) => what.clone(),
        (None, Some(other)) => format!("as {} computes it", other.name),
        (None, None) => "as its formulas say".to_string(),
    };
    let spec = Spec {
        name,
        what,
        sizes: file.sizes.clone(),
        tensors,
        numbers,
        reference: match reference {
            Some(source) => Reference::Kernel(Box::new(source)),
            None => Reference::Formulas(formulas),
        },
        shapes,
        terms: or(&file.terms, "64")?,
        flops: or(&file.flops, "0")?,
        wide: 300.0,
        wide_half: 300.0,
        cancels: false,
        exponents: None,
    };
    for shape in &spec.shapes {
        if let Some(problem) = spec.too_large(&shape.sizes) {
            return Err(format!("{}: {problem}", shape.label));
        }
        let sizes: Vec<f64> = shape.sizes.iter().map(|&size| size as f64).collect();
        let terms = spec.terms.number(&sizes);
        if !(0.0..=1e7).contains(&terms) {
            return Err(format!("{}: terms is {terms}, expected up to 1e7", shape.label));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Spec, String> {
        let file: File = toml::from_str(text).map_err(|error| plainly(&error))?;
        described("it".into(), &file, None)
    }

    const TEXT: &str = "
sizes = [\"rows\", \"columns\"]
shapes = [[3, 4], { name = \"odd\", sizes = [2, 3] }]
numbers = { factor = \"1 / columns\" }
[inputs]
x = [\"rows\", \"columns\"]
[outputs.y]
shape = [\"rows\"]
indices = [\"r\"]
value = \"factor * sum(c, columns, x[r, c])\"
";

    #[test]
    fn a_formula_says_what_comes_out() {
        let spec = parsed(TEXT).unwrap();
        let x: Vec<f64> = (0..6).map(f64::from).collect();
        let rows = spec.expected(0, &[2, 3], &[&x], &[0]).unwrap();
        let values: Vec<f64> = rows[0].iter().map(|e| e.value).collect();
        assert_eq!(values, [1.0, 4.0]);
        assert_eq!(spec.shapes[1].label, "odd");
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, says) in [
            ("x[r, c]", "x[r]", "output y: `factor * sum"),
            ("indices = [\"r\"]", "indices = []", "1 axes, 0 indices"),
            ("[3, 4]", "[3]", "shape 1 has 1 sizes, expected 2: rows, columns"),
            ("1 / columns", "1 / cols", "unknown name `cols`"),
            ("value =", "values =", "unknown field"),
            ("[3, 4]", "\"small\"", "a shape is [sizes] or"),
            ("[3, 4]", "[800000000, 64]", "shape 1: rows 800000000, columns 64 take more than"),
            ("[3, 4]", "[4294967296, 1]", "shape 1: rows 4294967296 is more than u32 holds"),
            ("[3, 4]", "[4294967295, 4294967295]", "take more than"),
            ("sizes = [\"rows\"", "terms = \"1e300\"\nsizes = [\"rows\"", "terms is 1"),
        ] {
            let said = match parsed(&TEXT.replace(from, to)) {
                Ok(_) => panic!("{to}"),
                Err(said) => said,
            };
            assert!(said.contains(says), "{to}: {said}");
        }
    }
}
