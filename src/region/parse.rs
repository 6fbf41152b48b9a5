//! Regions as people type them, and as the published program takes them.
use std::path::Path;

use super::area::{check_edges, named};
use super::{Area, Error, Layout, Region, Result};
use crate::file_kind::read_text;
use crate::numbers::counted;
use crate::plainly::plainly;

impl Region {
    /// `LEFT,TOP,RIGHT,BOTTOM: prompt | negative prompt`, edges as fractions or pixels; `:` alone
    /// before the prompt: everywhere. The prompt may be empty, as in every form of layout.
    ///
    /// # Errors
    /// Text of another form.
    pub fn parse(text: &str) -> Result<Region> {
        let wrong = |problem: String| Error::Text { text: text.to_string(), problem };
        let (edges, prompts) =
            text.split_once(':').ok_or_else(|| wrong("no colon after the box".into()))?;
        let area = match edges.trim() {
            "" => Area::Whole,
            edges => {
                let edges = numbers(edges).map_err(wrong)?;
                check_edges(&edges)
                    .map_err(|expected| wrong(format!("{}: expected {expected}", named(&edges))))?;
                Area::Box(edges)
            }
        };
        let (prompt, negative) = match bar(prompts).and_then(|at| prompts.split_at_checked(at)) {
            Some((prompt, negative)) => {
                (prompt, Some(negative.get(1..).unwrap_or_default().trim().to_string()))
            }
            None => (prompts, None),
        };
        Ok(Region { prompt: prompt.trim().to_string(), negative, area, ..Region::default() })
    }
}

/// Where the bar between prompt and negative prompt stands: in square brackets it is prompt
/// editing's.
fn bar(prompts: &str) -> Option<usize> {
    // A bracket that is never closed holds nothing.
    let closed = prompts.rfind(']').unwrap_or(0);
    let mut depth = 0usize;
    for (at, c) in prompts.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 || at > closed => return Some(at),
            _ => {}
        }
    }
    None
}

impl Layout {
    /// The published program's `prompt_rewrite`:
    /// `[prompt]-*-[negative prompt]-*-[top, left, bottom, right]`, in pixels, regions divided by
    /// `|`; `[]` in place of the box: everywhere.
    ///
    /// # Errors
    /// Text of another form.
    pub fn from_published(text: &str) -> Result<Layout> {
        let wrong = |problem: String| Error::Published { text: text.to_string(), problem };
        let mut regions = Vec::new();
        // The last region may have a bar behind it. The published program reads no further than an
        // empty one.
        let text_of_regions = text.trim().trim_end_matches('|');
        for part in text_of_regions.split('|').map(str::trim) {
            if part.is_empty() && !text_of_regions.is_empty() {
                return Err(wrong("there is nothing between two of the `|`".into()));
            }
            if part.is_empty() {
                continue;
            }
            let fields: Vec<&str> = part.split("-*-").map(str::trim).collect();
            let [prompt, negative, edges] = fields[..] else {
                return Err(wrong(format!("`{part}` has {}", counted(fields.len(), "field"))));
            };
            let inside = |field: &str| field.replace(['[', ']'], "").trim().to_string();
            let area = match inside(edges).as_str() {
                "" => Area::Whole,
                edges => {
                    let order =
                        |problem| wrong(format!("{problem} in the order top, left, bottom, right"));
                    let [top, left, bottom, right] = numbers(edges).map_err(order)?;
                    let found = || {
                        format!(
                            "the box [{edges}] (top {top}, left {left}, bottom {bottom}, right \
                                {right})"
                        )
                    };
                    if top >= bottom || left >= right {
                        return Err(wrong(format!(
                            "{}: expected top before bottom and left before right",
                            found()
                        )));
                    }
                    if [top, left, bottom, right].iter().all(|v| *v <= 1.0) {
                        return Err(wrong(format!(
                            "{} is a pixel at most: these edges are in pixels, not in fractions",
                            found()
                        )));
                    }
                    Area::Box([left, top, right, bottom])
                }
            };
            let (prompt, negative) = (inside(prompt), Some(inside(negative)));
            regions.push(Region { prompt, negative, area, ..Region::default() });
        }
        if regions.is_empty() {
            return Err(wrong("there is no region".into()));
        }
        Ok(Layout { regions, published: true, ..Layout::default() })
    }

    /// Reads a layout file (TOML). Masks are looked for beside it.
    ///
    /// # Errors
    /// A file that cannot be read; what is no layout, with the line; numbers out of range.
    pub fn open(path: &Path) -> Result<Layout> {
        let unreadable = |source| Error::Unreadable { path: path.to_path_buf(), source };
        let text = read_text(path, "a layout (TOML)").map_err(unreadable)?;
        let single = text.lines().any(|line| line.trim() == "[region]");
        let mut layout: Layout = toml::from_str(&text).map_err(|e| {
            let hint = if single { "; each region begins with [[region]]" } else { "" };
            let problem = format!("{}{hint}", plainly(&e.to_string()));
            Error::File { path: path.to_path_buf(), problem }
        })?;
        for region in &mut layout.regions {
            if let (Area::Mask(mask), Some(folder)) = (&mut region.area, path.parent()) {
                *mask = folder.join(&*mask);
            }
        }
        layout.check()?;
        Ok(layout)
    }
}

fn numbers(text: &str) -> Result<[f64; 4], String> {
    let parsed: Vec<Option<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match parsed[..] {
        [Some(a), Some(b), Some(c), Some(d)] => Ok([a, b, c, d]),
        _ => Err(format!("`{text}` is not four numbers with commas between them")),
    }
}
