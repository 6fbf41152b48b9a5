//! All results of a survey, as files.

use std::path::Path;

use super::results::{Results, found};
use super::settings::{write_json, write_text};
use super::{Error, Result, Settings, page};

const FILE: &str = "results.json";
const TABLE: &str = "table.md";

/// What is written into the folder beside settings, pictures and sheets.
pub(super) const FILES: [&str; 3] = [FILE, TABLE, page::FILE];

/// Reads all records of the survey in `folder`, and writes `results.json`, `table.md`,
/// `index.html` and the sheets beside them.
///
/// # Errors
/// Pictures or scores that are not there, or don't belong to each other; files that cannot be
/// written.
pub fn write(folder: &Path) -> Result<Results> {
    let settings = Settings::read(folder)?.ok_or_else(|| {
        Error::file(folder, "no evaluation: there is no settings.json in it".to_string())
    })?;
    let items = settings.items();
    let mut records = Vec::new();
    let mut missing = Vec::new();
    for item in &items {
        match found(&settings, folder, item)? {
            Some(record) => records.push(record),
            None => missing.push(item.file.as_str()),
        }
    }
    if let Some(first) = missing.first() {
        let (count, of) = (missing.len(), items.len());
        let problem =
            format!("{count} of its {of} pictures are not there, or not scored, such as {first}");
        return Err(Error::file(folder, problem));
    }
    let results = Results::of(settings, &items, &records);
    write_json(&folder.join(FILE), &results)?;
    write_text(&folder.join(TABLE), &results.table())?;
    page::write(folder, &results, &items)?;
    Ok(results)
}
