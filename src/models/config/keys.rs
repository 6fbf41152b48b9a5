//! Reading keys of a JSON object with defaults and errors that name the file, the key and the
//! value.
use super::{Activation, ConfigError};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A JSON object and the file it came from.
pub(super) struct Keys<'a> {
    file: PathBuf,
    prefix: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub fn new(config: &'a Value, file: &Path) -> Result<Self, ConfigError> {
        match config {
            Value::Object(map) => Ok(Self { file: file.to_path_buf(), prefix: "", map }),
            other => Err(ConfigError::NotAnObject {
                file: file.to_path_buf(),
                found: kind(other).to_string(),
            }),
        }
    }

    /// The object under `key` (written with a dot after it in errors), where there is one; this
    /// object otherwise.
    pub fn nested(self, key: &str, prefix: &'static str) -> Self {
        match self.map.get(key) {
            Some(Value::Object(map)) => Self { file: self.file, prefix, map },
            _ => self,
        }
    }

    /// The value of `key`; `null` counts as absent, as it does for Python's `None` defaults.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub fn invalid(&self, key: &str, expected: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: self.show(key),
        }
    }

    pub fn unsupported(&self, key: &str, supported: impl Into<String>) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            found: self.show(key),
            supported: supported.into(),
        }
    }

    fn show(&self, key: &str) -> String {
        self.map.get(key).map_or_else(|| "absent".to_string(), Value::to_string)
    }

    /// A count of at least one and at most 2^24, so that products of a few of them cannot overflow.
    fn positive(&self, key: &str, value: &Value) -> Result<usize, ConfigError> {
        count(value).filter(|&n| n > 0).ok_or_else(|| self.invalid(key, "a positive whole number"))
    }

    pub fn count(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        self.get(key).map_or(Ok(default), |v| self.positive(key, v))
    }

    pub fn optional_count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key).map(|v| self.positive(key, v)).transpose()
    }

    /// A token number: a whole number that may be zero. Some old files say -1 or a list; those
    /// count as absent.
    pub fn token(&self, key: &str) -> Option<usize> {
        self.get(key).and_then(count)
    }

    /// A list of counts, or the default.
    pub fn counts(&self, key: &str, default: &[usize]) -> Result<Vec<usize>, ConfigError> {
        match self.get(key) {
            None => Ok(default.to_vec()),
            Some(Value::Array(values)) if !values.is_empty() && values.len() <= 16 => {
                values.iter().map(|v| self.positive(key, v)).collect()
            }
            Some(_) => Err(self.invalid(key, "a list of 1 to 16 positive whole numbers")),
        }
    }

    /// One count per block: given as one number for all, or as a list of `blocks` numbers.
    pub fn per_block(
        &self,
        key: &str,
        blocks: usize,
        default: usize,
    ) -> Result<Vec<usize>, ConfigError> {
        match self.get(key) {
            None => Ok(vec![default; blocks]),
            Some(Value::Array(values)) if values.len() == blocks => {
                values.iter().map(|v| self.positive(key, v)).collect()
            }
            Some(Value::Array(_)) => {
                Err(self.invalid(key, format!("one number, or a list of {blocks}, one per block")))
            }
            Some(value) => Ok(vec![self.positive(key, value)?; blocks]),
        }
    }

    /// One flag per block: given as one for all, or as a list of `blocks`.
    pub fn flags_per_block(&self, key: &str, blocks: usize) -> Result<Vec<bool>, ConfigError> {
        match self.get(key) {
            Some(Value::Array(values)) if values.len() == blocks => values
                .iter()
                .map(|v| {
                    v.as_bool().ok_or_else(|| self.invalid(key, "true or false for each block"))
                })
                .collect(),
            Some(Value::Array(_)) => {
                Err(self
                    .invalid(key, format!("true or false, or a list of {blocks}, one per block")))
            }
            _ => Ok(vec![self.flag(key, false)?; blocks]),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.get(key)
            .map_or(Ok(default), |v| v.as_bool().ok_or_else(|| self.invalid(key, "true or false")))
    }

    pub fn number(&self, key: &str, default: f32) -> Result<f32, ConfigError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub fn optional_number(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| self.invalid(key, "a number"))
    }

    /// A positive number, such as an epsilon.
    pub fn positive_number(&self, key: &str, default: f32) -> Result<f32, ConfigError> {
        let x = self.number(key, default)?;
        if x > 0.0 { Ok(x) } else { Err(self.invalid(key, "a number above zero")) }
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.invalid(key, "a string"))).transpose()
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list =
            value.as_array().and_then(|a| a.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        list.map(Some).ok_or_else(|| self.invalid(key, "a list of strings"))
    }

    pub fn activation(
        &self,
        key: &str,
        default: Activation,
        allowed: &[Activation],
    ) -> Result<Activation, ConfigError> {
        let found = match self.text(key)? {
            None => Some(default),
            Some("silu" | "swish") => Some(Activation::Silu),
            Some("gelu") => Some(Activation::Gelu),
            Some("quick_gelu") => Some(Activation::QuickGelu),
            Some(_) => None,
        };
        found.filter(|a| allowed.contains(a)).ok_or_else(|| {
            let names: Vec<_> = allowed
                .iter()
                .map(|a| match a {
                    Activation::Silu => "silu",
                    Activation::Gelu => "gelu",
                    Activation::QuickGelu => "quick_gelu",
                })
                .collect();
            self.unsupported(key, names.join(", "))
        })
    }

    /// Refuses any value of `key` but absence, null and `only`.
    pub fn must_be(&self, key: &str, only: &Value) -> Result<(), ConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(v) if v == only || (v.is_number() && v.as_f64() == only.as_f64()) => Ok(()),
            Some(_) if only.is_null() => Err(self.unsupported(key, "null")),
            Some(_) => Err(self.unsupported(key, only.to_string())),
        }
    }

    /// Refuses any value of `key` but absence and null.
    pub fn must_be_null(&self, key: &str) -> Result<(), ConfigError> {
        self.must_be(key, &Value::Null)
    }
}

fn count(value: &Value) -> Option<usize> {
    let whole = value
        .as_u64()
        .or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64))?;
    usize::try_from(whole).ok().filter(|&n| n <= 1 << 24)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
