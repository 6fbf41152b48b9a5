//! Strings and lists from C.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use crate::error::{Result, wrong};

/// A string, if there is one; `what` names it in messages.
pub unsafe fn text(given: *const c_char, what: &str) -> Result<Option<String>> {
    if given.is_null() {
        return Ok(None);
    }
    // SAFETY: it ends with 0, by the call's contract.
    let text = unsafe { CStr::from_ptr(given) }.to_str();
    let text = text.map_err(|_| wrong(format!("{what}: expected UTF-8")))?;
    Ok(Some(text.to_string()))
}

/// A string that has to be there.
pub unsafe fn needed(given: *const c_char, what: &str) -> Result<String> {
    // SAFETY: as `text` asks.
    unsafe { text(given, what) }?.ok_or_else(|| wrong(format!("{what} is NULL")))
}

/// A path, if there is one.
pub unsafe fn path(given: *const c_char, what: &str) -> Result<Option<PathBuf>> {
    // SAFETY: as `text` asks.
    Ok(unsafe { text(given, what) }?.map(PathBuf::from))
}

/// The elements of a list.
pub unsafe fn list<T: Copy>(first: *const T, count: usize, what: &str) -> Result<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if first.is_null() {
        return Err(wrong(format!("{what}: NULL, where there are to be {count}")));
    }
    // SAFETY: it has so many elements, by the call's contract.
    Ok(unsafe { std::slice::from_raw_parts(first, count) }.to_vec())
}

/// A list of strings.
pub unsafe fn texts(first: *const *const c_char, count: usize, what: &str) -> Result<Vec<String>> {
    // SAFETY: as `list` and `text` ask.
    unsafe { list(first, count, what)?.into_iter().map(|text| needed(text, what)).collect() }
}

/// An object that has to be there.
pub unsafe fn object<'o, T>(given: *const T, what: &str) -> Result<&'o T> {
    // SAFETY: NULL, or an object that stands while the call does, by its contract.
    unsafe { given.as_ref() }.ok_or_else(|| wrong(format!("the {what} is NULL")))
}

/// One of a few choices by its name; NULL is the usual one.
pub unsafe fn choice<T: std::str::FromStr>(given: *const c_char, what: &str) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    // SAFETY: as `text` asks.
    let name = unsafe { text(given, what) }?;
    let parse = |name: String| name.parse().map_err(|error| wrong(format!("{what}: {error}")));
    name.map(parse).transpose()
}

/// The index of one of `count`.
pub fn index(index: usize, count: usize, what: &str) -> Result<usize> {
    match index < count {
        true => Ok(index),
        false => Err(wrong(format!("{what} {index}: there are {count}"))),
    }
}
