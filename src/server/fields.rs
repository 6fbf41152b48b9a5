//! The fields of a request in JSON. As lenient as clients need (a number as text, `null` for what
//! is left open), and errors name the field.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::plainly::plainly;

use super::problem::Problem;

/// The fields of an object that nobody has asked for yet.
#[derive(Clone, Debug, Default)]
pub struct Fields(Map<String, Value>);

/// Not more of a value than a message takes.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.chars().count() > 60 {
        true => format!("{}...", text.chars().take(57).collect::<String>()),
        false => text,
    }
}

impl Fields {
    /// The object that a body is.
    pub fn parse(body: &[u8]) -> Result<Fields, Problem> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            Problem::asked(format!("not JSON: {}", plainly(&error.to_string())))
        })?;
        Fields::of("the body", value)
    }

    /// The object that a value is.
    pub fn of(name: &str, value: Value) -> Result<Fields, Problem> {
        match value {
            Value::Object(map) => Ok(Fields(map)),
            other => Err(Problem::value(name, shown(&other), "an object with fields")),
        }
    }

    /// A value as it is; what is `null` is not there.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
        Problem::value(name, shown(value), expected)
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(name, &other, "a text")),
        }
    }

    /// As [`Fields::text`]; a text of nothing is as good as none.
    pub fn word(&mut self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.text(name)?.filter(|text| !text.trim().is_empty()))
    }

    /// A text that names one of a few.
    pub fn parsed<T: FromStr<Err: ToString>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |text: String| {
            text.trim().parse().map_err(|error: T::Err| Problem::asked(error.to_string()).of(name))
        };
        self.word(name)?.map(parse).transpose()
    }

    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => match (other.as_i64(), other.as_str()) {
                (Some(0), _) | (_, Some("false" | "False")) => Ok(Some(false)),
                (Some(1), _) | (_, Some("true" | "True")) => Ok(Some(true)),
                _ => Err(Self::wrong(name, &other, "true or false")),
            },
        }
    }

    pub fn number(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = match &value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(Self::wrong(name, &value, "a number")),
        }
    }

    /// A number of single precision, as if its digits were read as such.
    pub fn single(&mut self, name: &str) -> Result<Option<f32>, Problem> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        match number.to_string().parse::<f32>().ok().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(Self::wrong(name, &number.into(), "a number")),
        }
    }

    /// A whole number, which may be below 0.
    pub fn whole(&mut self, name: &str) -> Result<Option<i128>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let whole = match &value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.to_string().parse().ok().or_else(|| {
                let number = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1e15);
                number.map(|number| number as i128)
            }),
            _ => None,
        };
        match whole {
            Some(whole) => Ok(Some(whole)),
            None => Err(Self::wrong(name, &value, "a whole number")),
        }
    }

    /// A whole number from 0 on.
    pub fn count(&mut self, name: &str) -> Result<Option<usize>, Problem> {
        let Some(whole) = self.whole(name)? else { return Ok(None) };
        match usize::try_from(whole) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Problem::value(name, whole, "a whole number from 0 on")),
        }
    }

    /// A seed; below 0: a random one.
    pub fn seed(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(whole) = self.whole(name)? else { return Ok(None) };
        match u64::try_from(whole) {
            Ok(seed) => Ok(Some(seed)),
            Err(_) if whole < 0 => Ok(None),
            Err(_) => Err(Problem::value(name, whole, "a whole number of 64 bits")),
        }
    }

    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, Problem> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(Self::wrong(name, &other, "a list")),
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Fields, Problem> {
        match self.value(name) {
            None => Ok(Fields::default()),
            Some(value) => Fields::of(name, value),
        }
    }

    /// Names of the fields that are left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// An error where fields are left, which nothing here is called by.
    pub fn none_left(&self, within: &str) -> Result<(), Problem> {
        match self.names().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(60).collect();
                let words = format!("{within} has no field `{name}`");
                Err(Problem::asked(words).of(&name))
            }
        }
    }
}

/// 32 bits, as `mos generate` draws them: what all programs take, and short enough to be typed.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_clients_send_for_numbers_is_read() {
        let mut sent = fields(
            r#"{"a": 20, "b": 20.0, "c": "20", "d": null, "e": 18446744073709551615, "f": -1,
                "g": 0.7, "h": 1, "i": "false"}"#,
        );
        assert_eq!(["a", "b", "c"].map(|name| sent.count(name).unwrap()), [Some(20); 3]);
        assert_eq!(sent.count("d").unwrap(), None);
        assert_eq!([sent.seed("e").unwrap(), sent.seed("f").unwrap()], [Some(u64::MAX), None]);
        assert_eq!(sent.single("g").unwrap(), Some(0.7));
        assert_eq!([sent.flag("h").unwrap(), sent.flag("i").unwrap()], [Some(true), Some(false)]);
        sent.none_left("it").unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = r#"{"a": "x", "b": 1.5, "c": -3, "d": [1], "e": 1e400, "f": 7}"#;
        let text = text.replace("1e400", "\"1e400\"");
        let problems = [
            fields(&text).number("a").unwrap_err(),
            fields(&text).whole("b").unwrap_err(),
            fields(&text).count("c").unwrap_err(),
            fields(&text).text("d").unwrap_err(),
            fields(&text).number("e").unwrap_err(),
            fields(&text).object("f").unwrap_err(),
        ];
        for (problem, name) in problems.iter().zip(["a", "b", "c", "d", "e", "f"]) {
            assert!(problem.words.starts_with(&format!("{name} is ")), "{problem:?}");
            assert!(problem.words.contains("expected") && problem.field.as_deref() == Some(name));
        }
        assert!(fields(&text).none_left("a job").unwrap_err().words.contains("no field `a`"));
        for body in ["", "{", "[1]", "\u{feff}{}", "{\"a\": 1}}"] {
            assert!(Fields::parse(body.as_bytes()).is_err(), "{body}");
        }
        // A parser that calls itself for each bracket would end the program.
        let deep = "[".repeat(1 << 20);
        assert!(Fields::parse(deep.as_bytes()).is_err());
    }
}
