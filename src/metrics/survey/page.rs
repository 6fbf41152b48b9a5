//! A survey's page and its sheets.

use std::fmt::Write;
use std::path::Path;

use super::cast::ORDER;
use super::item::{ONE_PROMPT, TOGETHER};
use super::places::{REFERENCES, path, small};
use super::results::{Row, cell, columns};
use super::settings::write_text;
use super::{Error, Item, Result, Results, Settings};
use crate::html::escaped;
use crate::metrics::METRICS;
use crate::picture::{Picture, Sheet};

pub(super) const FILE: &str = "index.html";
const SHEETS: &str = "sheets";
/// Pictures of a prompt that are shown.
const COLUMNS: usize = 6;
/// Prompts on one sheet.
const ROWS: usize = 24;

/// Writes the page, and the sheets that it shows.
pub(super) fn write(folder: &Path, results: &Results, items: &[Item]) -> Result<()> {
    let sheets = folder.join(SHEETS);
    std::fs::create_dir_all(&sheets).map_err(Error::io(&sheets, "make the folder"))?;
    let settings = &results.settings;
    let mut text = String::new();
    let mut put = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    put("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
    put("<meta name=\"viewport\" content=\"width=device-width\">");
    put(&format!("<title>Evaluation of {}</title>", escaped(&settings.model)));
    put(STYLE);
    put("</head>\n<body>");
    put(&format!("<h1>Evaluation of {}</h1>", escaped(&settings.model)));
    put(&format!("<p>{}.</p>", escaped(&settings.sampling())));
    let mut rows: Vec<&Row> = results.concepts.iter().collect();
    rows.push(&results.alone);
    put(&table("concept", &rows));
    put("<h2>By what prompts ask</h2>");
    put(&table("prompts", &results.alone.kinds.iter().collect::<Vec<_>>()));
    for (how, rows) in results.several() {
        put(&format!("<h2>Several in one picture, {how}</h2>"));
        put(&format!("<p>Neighbours, and three in a row; {ORDER}.</p>"));
        put(&table("scene", &rows));
    }
    put("<dl>");
    for metric in METRICS {
        if let Some(meaning) = results.meanings.get(metric.name()) {
            put(&format!("<dt>{}</dt><dd>{}</dd>", metric.name(), escaped(meaning)));
        }
    }
    put("</dl>\n<p>Behind ± stands the standard error of the mean.</p>");
    for (index, (concept, row)) in settings.concepts.iter().zip(&results.concepts).enumerate() {
        put(&format!("<h2>{}</h2>", escaped(&concept.name)));
        put(&format!(
            "<p><code>{}</code>, scored as \u{201c}{}\u{201d}. Trained from:</p>",
            escaped(&concept.phrase),
            escaped(&concept.class_word)
        ));
        let references = format!("pictures/{}/{REFERENCES}.png", concept.name);
        put(&image(&references, "what it was trained from"));
        put(&table("prompts", &row.kinds.iter().collect::<Vec<_>>()));
        for kind in &row.kinds {
            put(&format!("<h3>{}</h3>", escaped(&kind.name)));
            let of: Vec<&Item> = items
                .iter()
                .filter(|item| item.concepts == [index] && item.kind == kind.name)
                .collect();
            for sheet in draw(folder, &of, &format!("{}-{}", concept.name, kind.name))? {
                put(&image(&sheet, &format!("{}, {}", concept.name, kind.name)));
            }
        }
    }
    for (index, scene) in settings.scenes.iter().enumerate() {
        for (kind, heading) in [
            (TOGETHER, scene.name.clone()),
            (ONE_PROMPT, format!("{}, from one prompt", scene.name)),
        ] {
            let is = |item: &&Item| item.scene == Some(index) && item.kind == kind;
            let of: Vec<&Item> = items.iter().filter(is).collect();
            if of.is_empty() {
                continue;
            }
            put(&format!("<h2>{}</h2>", escaped(&heading)));
            for sheet in draw(folder, &of, &format!("{kind}-{}", scene.name))? {
                put(&image(&sheet, &heading));
            }
        }
    }
    put("<h2>Settings</h2>");
    put(&format!("<pre>{}</pre>", escaped(&told(settings)?)));
    put("</body>\n</html>");
    write_text(&folder.join(FILE), &text)
}

const STYLE: &str = "<style>
body { font-family: sans-serif; max-width: 80em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
dt { font-weight: bold; }
</style>";

fn told(settings: &Settings) -> Result<String> {
    serde_json::to_string_pretty(settings)
        .map_err(|e| Error::file(Path::new(FILE), format!("cannot be written: {e}")))
}

/// A file of the folder as a link: what has a meaning in one is escaped.
fn image(file: &str, what: &str) -> String {
    let mut link = String::new();
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                link.push(byte as char);
            }
            // Writing to a String cannot fail.
            other => {
                let _ = write!(link, "%{other:02X}");
            }
        }
    }
    format!("<p><img src=\"{link}\" alt=\"{}\"></p>", escaped(what))
}

fn table(first: &str, rows: &[&Row]) -> String {
    let columns = columns(rows);
    let mut text = format!("<table>\n<tr><th>{first}</th><th>pictures</th>");
    columns.iter().for_each(|name| text += &format!("<th>{}</th>", escaped(name)));
    text += "</tr>\n";
    for row in rows {
        text += &format!("<tr><td>{}</td><td>{}</td>", escaped(&row.name), row.pictures);
        columns.iter().for_each(|name| text += &format!("<td>{}</td>", cell(row, name)));
        text += "</tr>\n";
    }
    text + "</table>"
}

/// Draws the sheets of some pictures, a row for each prompt; their files in the folder.
fn draw(folder: &Path, items: &[&Item], name: &str) -> Result<Vec<String>> {
    let mut rows: Vec<(&str, usize, Vec<Picture>)> = Vec::new();
    for item in items {
        let is_next = rows.last().is_none_or(|(_, number, _)| *number != item.number);
        if is_next {
            rows.push((&item.text, item.number, Vec::new()));
        }
        if let Some((_, _, shown)) = rows.last_mut()
            && shown.len() < COLUMNS
        {
            shown.push(small(&Picture::open(path(folder, item))?)?);
        }
    }
    let mut files = Vec::new();
    for (number, rows) in rows.chunks(ROWS).enumerate() {
        let sheet = Sheet {
            rows: rows.iter().map(|(_, _, shown)| shown.iter().map(Some).collect()).collect(),
            row_captions: rows.iter().map(|(text, ..)| text.to_string()).collect(),
            column_captions: Vec::new(),
            gap: 4,
        };
        let more = if number == 0 { String::new() } else { format!("-{}", number + 1) };
        let file = format!("{SHEETS}/{name}{more}.png");
        sheet.draw()?.save(folder.join(&file), None)?;
        files.push(file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(escaped("<a1> & \"b\""), "&lt;a1&gt; &amp; &quot;b&quot;");
        assert_eq!(
            image("sheets/a+b c.png", "<x>"),
            "<p><img src=\"sheets/a%2Bb%20c.png\" alt=\"&lt;x&gt;\"></p>"
        );
    }
}
