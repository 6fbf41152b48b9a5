//! Captions: words broken into lines, letters of 8 by 8 points.
use font8x8::{BASIC_FONTS, BOX_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, UnicodeFonts};

/// Points per letter, both ways.
pub(super) const LETTER: u32 = 8;
/// What stands for a letter that the font lacks: a frame.
const UNKNOWN: [u8; 8] = [0x00, 0x7e, 0x42, 0x42, 0x42, 0x42, 0x7e, 0x00];

/// The rows of a letter from the top; bit 0 is the leftmost point.
pub(super) fn letter(c: char) -> [u8; 8] {
    let fonts = [
        BASIC_FONTS.get(c),
        LATIN_FONTS.get(c),
        GREEK_FONTS.get(c),
        BOX_FONTS.get(c),
        HIRAGANA_FONTS.get(c),
    ];
    if c.is_whitespace() || c.is_control() {
        return [0; 8];
    }
    fonts.into_iter().flatten().next().unwrap_or(UNKNOWN)
}

/// Breaks text at spaces into lines of at most `columns` letters, longer words wherever they must
/// be; what is beyond `max_lines` is replaced by dots.
pub(super) fn wrap(text: &str, columns: usize, max_lines: usize) -> Vec<String> {
    let (columns, max_lines) = (columns.max(1), max_lines.max(1));
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if length + 1 + letters.len() <= columns => {
                line.push(' ');
                line.push_str(word);
                length += 1 + letters.len();
            }
            _ => {
                for part in letters.chunks(columns) {
                    lines.push(part.iter().collect());
                    length = part.len();
                }
            }
        }
    }
    if lines.len() > max_lines {
        lines.truncate(max_lines);
        if let Some(line) = lines.last_mut() {
            let kept: String = line.chars().take(columns.saturating_sub(2)).collect();
            *line = (kept + "..").chars().take(columns).collect();
        }
    }
    lines
}
