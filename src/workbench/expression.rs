//! Arithmetic as it stands in headers of kernels and in files that describe one:
//! `ceil(columns / 16)`, `sum(k, inner, a[row, k] * b[k, column])`.

use std::cell::Cell;

use crate::backend::wgpu::advice;

/// A formula, its names bound.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    root: Node,
    slots: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Number(f64),
    /// A size, a constant or an index, by its place.
    Name(usize),
    Element {
        array: usize,
        indices: Vec<Node>,
    },
    Call(fn(&[f64]) -> f64, Vec<Node>),
    /// Over index `slot` from 0 up to `extent`.
    Over {
        fold: Fold,
        slot: usize,
        extent: Box<Node>,
        body: Box<Node>,
    },
    If(Box<[Node; 3]>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fold {
    Sum,
    Mean,
    Product,
    Greatest,
    Least,
}

/// Steps that a computation may still take.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    pub fn new(steps: u64) -> Budget {
        Budget(Cell::new(steps))
    }

    pub fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    fn spend(&self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Elements of arrays by index.
pub(super) type Elements<'a> = &'a dyn Fn(usize, &[f64]) -> f64;

/// Names of numbers, and of arrays with how many indices each has.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub numbers: Vec<String>,
    pub arrays: Vec<(String, usize)>,
}

impl Names {
    pub fn of(numbers: impl IntoIterator<Item = impl Into<String>>) -> Names {
        Names { numbers: numbers.into_iter().map(Into::into).collect(), arrays: Vec::new() }
    }
}

type Function = (&'static str, usize, fn(&[f64]) -> f64);
type Operator = (&'static str, fn(&[f64]) -> f64);

const FUNCTIONS: [Function; 21] = [
    ("ceil", 1, |x| x[0].ceil()),
    ("floor", 1, |x| x[0].floor()),
    ("round", 1, |x| x[0].round_ties_even()),
    ("abs", 1, |x| x[0].abs()),
    ("sqrt", 1, |x| x[0].sqrt()),
    ("exp", 1, |x| x[0].exp()),
    ("log", 1, |x| x[0].ln()),
    ("log2", 1, |x| x[0].log2()),
    ("sin", 1, |x| x[0].sin()),
    ("cos", 1, |x| x[0].cos()),
    ("tanh", 1, |x| x[0].tanh()),
    ("erf", 1, |x| libm::erf(x[0])),
    ("min", 2, |x| x[0].min(x[1])),
    ("max", 2, |x| x[0].max(x[1])),
    ("pow", 2, |x| x[0].powf(x[1])),
    ("clamp", 3, |x| x[0].max(x[1]).min(x[2])),
    ("sigmoid", 1, |x| 1.0 / (1.0 + (-x[0]).exp())),
    ("silu", 1, |x| x[0] / (1.0 + (-x[0]).exp())),
    ("gelu", 1, |x| 0.5 * x[0] * (1.0 + libm::erf(x[0] / std::f64::consts::SQRT_2))),
    ("relu", 1, |x| x[0].max(0.0)),
    ("trunc", 1, |x| x[0].trunc()),
];

const FOLDS: [(&str, Fold); 5] = [
    ("sum", Fold::Sum),
    ("mean", Fold::Mean),
    ("product", Fold::Product),
    ("greatest", Fold::Greatest),
    ("least", Fold::Least),
];

/// Operators from the weakest, those of one strength together.
const OPERATORS: [&[Operator]; 5] = [
    &[("||", |x| truth(x[0] != 0.0 || x[1] != 0.0))],
    &[("&&", |x| truth(x[0] != 0.0 && x[1] != 0.0))],
    &[
        ("==", |x| truth(x[0] == x[1])),
        ("!=", |x| truth(x[0] != x[1])),
        ("<=", |x| truth(x[0] <= x[1])),
        (">=", |x| truth(x[0] >= x[1])),
        ("<", |x| truth(x[0] < x[1])),
        (">", |x| truth(x[0] > x[1])),
    ],
    &[("+", |x| x[0] + x[1]), ("-", |x| x[0] - x[1])],
    &[("*", |x| x[0] * x[1]), ("/", |x| x[0] / x[1]), ("%", |x| x[0].rem_euclid(x[1]))],
];

fn truth(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

impl Expression {
    /// Reads a formula in these names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, names: &Names) -> Result<Expression, String> {
        const LONGEST: usize = 4000;
        if text.len() > LONGEST {
            return Err(format!("a formula of {} bytes, the most is {LONGEST}", text.len()));
        }
        let slots = names.numbers.len();
        let mut parser = Parser { rest: text, names: names.clone(), slots, depth: 0 };
        let parsed = parser.binary(0).and_then(|root| {
            parser.skip();
            match parser.rest {
                "" => Ok(root),
                rest => Err(format!("what is `{rest}`?")),
            }
        });
        let root = parsed.map_err(|problem| format!("`{text}`: {problem}"))?;
        Ok(Expression { root, slots: parser.slots })
    }

    /// Its value, given the numbers in the order of their names.
    pub fn value(&self, numbers: &[f64], elements: Elements<'_>, budget: &Budget) -> f64 {
        let mut slots = numbers.to_vec();
        slots.resize(self.slots.max(numbers.len()), 0.0);
        value(&self.root, &mut slots, elements, budget)
    }

    /// Of a formula without arrays; no number, where it takes too long.
    pub fn number(&self, numbers: &[f64]) -> f64 {
        let budget = Budget::new(10_000_000);
        let number = self.value(numbers, &|_, _| f64::NAN, &budget);
        if budget.is_spent() { f64::NAN } else { number }
    }
}

fn value(node: &Node, slots: &mut [f64], elements: Elements<'_>, budget: &Budget) -> f64 {
    budget.spend();
    match node {
        Node::Number(number) => *number,
        Node::Name(slot) => slots[*slot],
        Node::Element { array, indices } => {
            let mut all = [0.0; 8];
            let count = indices.len().min(8);
            for (index, node) in all.iter_mut().zip(indices) {
                *index = value(node, slots, elements, budget);
            }
            elements(*array, &all[..count])
        }
        Node::Call(function, arguments) => {
            let mut all = [0.0; 3];
            for (argument, node) in all.iter_mut().zip(arguments) {
                *argument = value(node, slots, elements, budget);
            }
            function(&all[..arguments.len().min(3)])
        }
        Node::If(parts) => {
            let [condition, yes, no] = &**parts;
            let chosen = if value(condition, slots, elements, budget) != 0.0 { yes } else { no };
            value(chosen, slots, elements, budget)
        }
        Node::Over { fold, slot, extent, body } => {
            let extent = value(extent, slots, elements, budget);
            let mut all = match fold {
                Fold::Sum | Fold::Mean => 0.0,
                Fold::Product => 1.0,
                Fold::Greatest => f64::NEG_INFINITY,
                Fold::Least => f64::INFINITY,
            };
            let mut index = 0.0;
            while index < extent && !budget.is_spent() {
                slots[*slot] = index;
                let one = value(body, slots, elements, budget);
                all = match fold {
                    Fold::Sum | Fold::Mean => all + one,
                    Fold::Product => all * one,
                    Fold::Greatest => all.max(one),
                    Fold::Least => all.min(one),
                };
                index += 1.0;
            }
            if *fold == Fold::Mean { all / extent } else { all }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    names: Names,
    slots: usize,
    /// Operands within operands.
    depth: usize,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        match self.rest {
            "" => Err(format!("`{token}` is missing at its end")),
            rest => Err(format!("expected `{token}` before `{rest}`")),
        }
    }

    fn binary(&mut self, level: usize) -> Result<Node, String> {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some((_, function)) = operators.iter().find(|(token, _)| self.take(token)) {
            let right = self.binary(level + 1)?;
            left = Node::Call(*function, vec![left, right]);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, String> {
        const DEEPEST: usize = 100;
        if self.depth == DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} deep"));
        }
        self.depth += 1;
        let operand = self.operand();
        self.depth -= 1;
        operand
    }

    fn operand(&mut self) -> Result<Node, String> {
        if self.take("-") {
            return Ok(Node::Call(|x| -x[0], vec![self.unary()?]));
        }
        if self.take("(") {
            let inner = self.binary(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.skip();
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        if self.rest.starts_with(is_number) {
            return self.number();
        }
        let length = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        if name.is_empty() {
            let found = self.rest.chars().next();
            return Err(found.map_or("it ends too soon".into(), |c| format!("what is `{c}`?")));
        }
        let name = name.to_string();
        self.rest = rest;
        self.named(&name)
    }

    fn number(&mut self) -> Result<Node, String> {
        let mut length = 0;
        let bytes = self.rest.as_bytes();
        while let Some(&byte) = bytes.get(length) {
            let exponent = length > 0
                && (byte == b'+' || byte == b'-')
                && matches!(bytes[length - 1], b'e' | b'E');
            if !(byte.is_ascii_digit() || byte == b'.' || byte == b'e' || byte == b'E' || exponent)
            {
                break;
            }
            length += 1;
        }
        let (digits, rest) = self.rest.split_at(length);
        let number = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
        self.rest = rest;
        Ok(Node::Number(number))
    }

    fn named(&mut self, name: &str) -> Result<Node, String> {
        if let Some((_, fold)) = FOLDS.iter().find(|(known, _)| *known == name)
            && self.take("(")
        {
            self.skip();
            let length = self
                .rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(self.rest.len());
            let index = self.rest[..length].to_string();
            self.rest = &self.rest[length..];
            if index.is_empty() {
                return Err(format!("expected {name}(index, extent, what)"));
            }
            self.expect(",")?;
            let extent = Box::new(self.binary(0)?);
            self.expect(",")?;
            let slot = self.slots;
            self.slots += 1;
            // Names stand for places, so inner indices are named behind those that there are.
            while self.names.numbers.len() < slot {
                self.names.numbers.push(String::new());
            }
            self.names.numbers.push(index);
            let body = Box::new(self.binary(0)?);
            self.names.numbers[slot].clear();
            self.expect(")")?;
            return Ok(Node::Over { fold: *fold, slot, extent, body });
        }
        if name == "if" && self.take("(") {
            let mut parts = Vec::new();
            for closing in [",", ",", ")"] {
                parts.push(self.binary(0)?);
                self.expect(closing)?;
            }
            let [a, b, c] = <[Node; 3]>::try_from(parts).map_err(|_| "if(yes, a, b)")?;
            return Ok(Node::If(Box::new([a, b, c])));
        }
        if let Some(&(_, count, function)) = FUNCTIONS.iter().find(|(known, ..)| *known == name)
            && self.take("(")
        {
            let arguments = self.list(")")?;
            if arguments.len() != count {
                return Err(format!("{name} takes {count} numbers, found {}", arguments.len()));
            }
            return Ok(Node::Call(function, arguments));
        }
        if let Some(array) = self.names.arrays.iter().position(|(known, _)| known == name) {
            self.expect("[")?;
            let indices = self.list("]")?;
            let rank = self.names.arrays[array].1;
            if indices.len() != rank {
                return Err(format!("{name} has {rank} indices, found {}", indices.len()));
            }
            return Ok(Node::Element { array, indices });
        }
        match self.names.numbers.iter().rposition(|known| known == name) {
            Some(slot) => Ok(Node::Name(slot)),
            None => {
                let called = self.take("(");
                let known: Vec<&str> = self.names.numbers.iter().map(String::as_str).collect();
                let arrays = self.names.arrays.iter().map(|(name, _)| name.as_str());
                let known: Vec<&str> =
                    known.into_iter().filter(|name| !name.is_empty()).chain(arrays).collect();
                match called {
                    true => {
                        let functions = FUNCTIONS.iter().map(|(known, ..)| *known);
                        let folds = FOLDS.iter().map(|(known, _)| *known);
                        let all: Vec<&str> = functions.chain(folds).chain(["if"]).collect();
                        Err(format!("unknown function `{name}`{}", advice(name, &all)))
                    }
                    false => Err(format!("unknown name `{name}`{}", advice(name, &known))),
                }
            }
        }
    }

    fn list(&mut self, closing: &str) -> Result<Vec<Node>, String> {
        let mut all = vec![self.binary(0)?];
        while self.take(",") {
            all.push(self.binary(0)?);
        }
        self.expect(closing)?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<f64, String> {
        let names = Names::of(["rows", "columns"]);
        Ok(Expression::parse(text, &names)?.number(&[33.0, 16.0]))
    }

    #[test]
    fn formulas() {
        for (text, expected) in [
            ("ceil(rows / 16)", 3.0),
            ("rows + 2 * columns - 1", 64.0),
            ("(rows + 2) * -columns", -560.0),
            ("rows % 4 == 1 && columns % 4 == 0", 1.0),
            ("max(1, rows / 0.5e1)", 6.6),
            ("sum(i, columns, i) / columns", 7.5),
            ("mean(i, 3, sum(j, 2, i * 10 + j))", 21.0),
            ("greatest(i, 5, (i - 2) * (i - 2))", 4.0),
            ("if(rows > 32, 2, 3)", 2.0),
            ("1 - 2 - 3", -4.0),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("ceil(rows / 16", "`)` is missing"),
            ("rws / 16", "unknown name `rws`; did you mean `rows`? (there are rows, columns)"),
            ("rows /", "ends too soon"),
            ("rows 16", "what is `16`?"),
            ("min(rows)", "min takes 2 numbers, found 1"),
            ("1.2.3", "`1.2.3` is no number"),
            ("sum(, 2, 1)", "expected sum(index"),
        ] {
            let said = number(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    /// Neither the stack nor the patience of anybody is spent on a formula.
    #[test]
    fn formulas_have_an_end() {
        for (deep, says) in [
            (format!("{}1{}", "(".repeat(1500), ")".repeat(1500)), "nested more than 100"),
            (format!("{}1", "-".repeat(1500)), "nested more than 100"),
            ("(".repeat(30_000), "the most is 4000"),
        ] {
            let said = number(&deep).unwrap_err();
            assert!(said.contains(says), "{}", &said[said.len().saturating_sub(200)..]);
        }
        number(&format!("1{}", "+1".repeat(1900))).unwrap();
        assert!(number("sum(k, 1000000000000, k)").unwrap().is_nan());
    }

    #[test]
    fn elements_of_arrays() {
        let mut names = Names::of(["r", "c", "inner"]);
        names.arrays = vec![("a".into(), 2), ("b".into(), 2)];
        let dot = Expression::parse("sum(k, inner, a[r, k] * b[k, c])", &names).unwrap();
        let element = |array: usize, at: &[f64]| {
            if array == 0 { at[0] * 10.0 + at[1] } else { at[0] - at[1] }
        };
        // a[1, 0..3] = 10, 11, 12; b[0..3, 2] = -2, -1, 0
        let budget = Budget::new(1000);
        assert_eq!(dot.value(&[1.0, 2.0, 3.0], &element, &budget), -31.0);
        assert!(!budget.is_spent());
        assert!(Expression::parse("a[r]", &names).unwrap_err().contains("a has 2 indices"));
    }
}
