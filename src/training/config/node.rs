//! Values of a settings file that is read key by key, each with its place for errors.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Error, Result};

/// A value of a file, with its place for errors.
pub struct Node<'a> {
    pub file: &'a Path,
    pub key: String,
    pub value: &'a Value,
}

impl<'a> Node<'a> {
    pub fn child(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_string() } else { format!("{}.{key}", self.key) }
    }

    pub fn wrong(&self, key: &str, found: &str, expected: &str) -> Error {
        let (found, expected) = (found.to_string(), expected.to_string());
        Error::Key { path: self.file.to_path_buf(), key: self.child(key), found, expected }
    }

    pub fn unexpected(&self, expected: &str) -> Error {
        let found = self.value.to_string();
        Error::Key {
            path: self.file.to_path_buf(),
            key: self.key.clone(),
            found,
            expected: expected.to_string(),
        }
    }

    pub fn map(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.unexpected("keys and values"))
    }

    pub fn elements(&self) -> Result<&'a [Value]> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.unexpected("a list"))
    }

    /// The value of a key; none if it is missing or empty (`~`).
    pub fn get(&self, key: &str) -> Result<Option<Node<'a>>> {
        let found = self.map()?.get(key).filter(|value| !value.is_null());
        Ok(found.map(|value| Node { file: self.file, key: self.child(key), value }))
    }

    pub fn need(&self, key: &str) -> Result<Node<'a>> {
        self.get(key)?.ok_or_else(|| {
            self.wrong(key, "missing", "keys and values, as the method's settings have them")
        })
    }

    pub fn list(&self, key: &str) -> Result<Vec<Node<'a>>> {
        let Some(node) = self.get(key)? else { return Ok(Vec::new()) };
        let place = |index: usize| format!("{}[{index}]", node.key);
        Ok(node
            .elements()?
            .iter()
            .enumerate()
            .map(|(i, value)| Node { file: self.file, key: place(i), value })
            .collect())
    }

    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key)?
            .map(|node| {
                node.value.as_str().map(str::to_string).ok_or_else(|| node.unexpected("a text"))
            })
            .transpose()
    }

    pub fn needed_text(&self, key: &str) -> Result<String> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "missing", "a text"))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key)?
            .map(|node| node.value.as_bool().ok_or_else(|| node.unexpected("true or false")))
            .transpose()
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)?.map(|node| node.as_number()).transpose()
    }

    pub fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        self.list(key)?.iter().map(Node::as_number).collect()
    }

    /// YAML 1.1 reads `1e-3` as a text, and so do some writers' files have it.
    pub fn as_number(&self) -> Result<f64> {
        let number = self.value.as_f64().or_else(|| self.value.as_str()?.parse().ok());
        number.filter(|v| v.is_finite()).ok_or_else(|| self.unexpected("a number"))
    }

    pub fn whole<T: TryFrom<u64>>(&self, key: &str) -> Result<Option<T>> {
        let Some(node) = self.get(key)? else { return Ok(None) };
        let number = node.as_number().ok().filter(|v| *v >= 0.0 && v.fract() == 0.0 && *v < 9e15);
        let whole = number.and_then(|v| T::try_from(v as u64).ok());
        whole.map(Some).ok_or_else(|| node.unexpected("a whole number"))
    }

    /// Where a path of the file leads, from the working directory or a folder above the file.
    pub fn find(&self, path: &str) -> Option<PathBuf> {
        let above = self.file.ancestors().skip(1).map(|folder| folder.join(path));
        std::iter::once(PathBuf::from(path)).chain(above).find(|place| place.exists())
    }
}
