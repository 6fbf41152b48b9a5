//! The report as a page, out of what it is in Markdown.

use super::report::{Report, markdown};
use crate::html::escaped;

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Fused concepts</title>
<style>
body { font-family: sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; border-bottom: 1px solid #ccc; text-align: left; }
img { max-width: 100%; }
</style>
</head>
<body>
";

/// The report as HTML: the same as [`markdown`].
pub fn html(report: &Report, pictures: &[(String, String)]) -> String {
    format!("{HEAD}{}</body>\n</html>\n", blocks(&markdown(report, pictures)))
}

/// Headings, tables, pictures and paragraphs: all that reports have.
fn blocks(markdown: &str) -> String {
    let mut text = String::new();
    for block in markdown.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let mut table: Vec<&str> = Vec::new();
        for line in block.lines() {
            if line.starts_with('|') {
                table.push(line);
            } else if let Some(title) = line.strip_prefix("## ") {
                text += &format!("<h2>{}</h2>\n", spans(title));
            } else if let Some(title) = line.strip_prefix("# ") {
                text += &format!("<h1>{}</h1>\n", spans(title));
            } else if let Some((what, file)) = image(line) {
                text +=
                    &format!("<p><img src=\"{}\" alt=\"{}\"></p>\n", escaped(file), escaped(what));
            } else {
                text += &format!("<p>{}</p>\n", spans(line));
            }
        }
        if !table.is_empty() {
            text += &rows(&table);
        }
    }
    text
}

fn image(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("![")?.strip_suffix(')')?.split_once("](")
}

fn rows(lines: &[&str]) -> String {
    let mut text = String::from("<table>\n");
    for (number, line) in lines.iter().enumerate().filter(|(number, _)| *number != 1) {
        let cell = if number == 0 { "th" } else { "td" };
        let cells = line.trim_matches('|').split(" | ").map(str::trim);
        let cells: String = cells.map(|text| format!("<{cell}>{}</{cell}>", spans(text))).collect();
        text += &format!("<tr>{cells}</tr>\n");
    }
    text + "</table>\n"
}

/// `code` and **strong**.
fn spans(text: &str) -> String {
    let marked = |text: &str, mark: &str, tag: &str| {
        let parts: Vec<&str> = text.split(mark).collect();
        // A mark without its other half is text.
        if parts.len().is_multiple_of(2) {
            return text.to_string();
        }
        let part = |(i, part): (usize, &&str)| match i % 2 {
            0 => part.to_string(),
            _ => format!("<{tag}>{part}</{tag}>"),
        };
        parts.iter().enumerate().map(part).collect()
    };
    marked(&marked(&escaped(text), "`", "code"), "**", "strong")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_reports_have_becomes_markup() {
        let page = blocks(
            "# 2 concepts\n\n**Verdict:** good & `<a1>`.\n\n| a | b |\n|---|---|\n| x | <1 |\n\n## \
                Pictures\n\n![A <b>](sheet.png)\n",
        );
        for part in [
            "<h1>2 concepts</h1>",
            "<p><strong>Verdict:</strong> good &amp; <code>&lt;a1&gt;</code>.</p>",
            "<tr><th>a</th><th>b</th></tr>",
            "<tr><td>x</td><td>&lt;1</td></tr>",
            "<h2>Pictures</h2>",
            "<img src=\"sheet.png\" alt=\"A &lt;b&gt;\">",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("---"));
    }
}
