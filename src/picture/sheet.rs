//! Contact sheets: pictures in a grid, with captions.
use super::font::{LETTER, letter, wrap};
use super::{Error, Picture, Result, check_size};

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [20, 20, 20];
/// What a cell without a picture shows.
const HOLE: [u8; 3] = [232, 232, 232];
const MAX_COLUMN_CAPTION_LINES: usize = 4;
/// Points from one line to the next.
const LINE: u32 = LETTER + 2;
/// Cells of this many pixels get letters of twice the font's size, and so on.
const PIXELS_PER_LETTER_SCALE: u32 = 256;

/// A grid of pictures. All cells are as large as the largest picture; smaller ones stand in the
/// middle of theirs.
#[derive(Debug, Clone, Default)]
pub struct Sheet<'a> {
    /// Rows may differ in length; `None` leaves a place empty.
    pub rows: Vec<Vec<Option<&'a Picture>>>,
    /// To the left of each row. Empty: no captions.
    pub row_captions: Vec<String>,
    /// Above each column. Empty: no captions.
    pub column_captions: Vec<String>,
    /// Pixels between cells and around them.
    pub gap: u32,
}

impl<'a> Sheet<'a> {
    /// The pictures row by row, `columns` in each.
    pub fn grid(pictures: &'a [Picture], columns: usize) -> Self {
        let rows =
            pictures.chunks(columns.max(1)).map(|row| row.iter().map(Some).collect()).collect();
        Self { rows, gap: 4, ..Self::default() }
    }

    /// Draws the sheet.
    ///
    /// # Errors
    /// No picture at all; a sheet that would be larger than a picture may be.
    pub fn draw(&self) -> Result<Picture> {
        let pictures = || self.rows.iter().flatten().flatten();
        let cell_width = pictures().map(|p| p.width()).max().ok_or(Error::EmptySheet)?;
        let cell_height = pictures().map(|p| p.height()).max().ok_or(Error::EmptySheet)?;
        let scale = (cell_width.min(cell_height).div_ceil(PIXELS_PER_LETTER_SCALE)).max(1);
        let (pitch, line_pitch) = (LETTER * scale, LINE * scale);

        let columns =
            self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.column_captions.len());
        let per_cell = |pixels: u32| (pixels / pitch).max(1) as usize;
        let above: Vec<Vec<String>> = self
            .column_captions
            .iter()
            .map(|text| wrap(text, per_cell(cell_width), MAX_COLUMN_CAPTION_LINES))
            .collect();
        let beside: Vec<Vec<String>> = self
            .row_captions
            .iter()
            .take(self.rows.len())
            .map(|text| {
                wrap(text, per_cell(cell_width), (cell_height / line_pitch).max(1) as usize)
            })
            .collect();
        let longest = |lines: &[Vec<String>]| {
            lines.iter().flatten().map(|l| l.chars().count()).max().unwrap_or(0)
        };
        let left = captions_need(longest(&beside), pitch, self.gap);
        let top =
            captions_need(above.iter().map(Vec::len).max().unwrap_or(0), line_pitch, self.gap);

        let across = |count: usize, cell: u32, before: u64| {
            before + u64::from(self.gap) + count as u64 * (u64::from(cell) + u64::from(self.gap))
        };
        let width = across(columns, cell_width, left);
        let height = across(self.rows.len(), cell_height, top);
        let too_large = Error::Size { width, height };
        let (Ok(w), Ok(h)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(too_large);
        };
        check_size(w, h)?;

        let mut canvas = Picture::filled(w, h, PAPER)?;
        let x_of = |column: usize| across(column, cell_width, left) as u32;
        let y_of = |row: usize| across(row, cell_height, top) as u32;
        for (column, lines) in above.iter().enumerate() {
            // Captions end just above their column.
            let first = top.saturating_sub(lines.len() as u64 * u64::from(line_pitch)) as u32;
            canvas.write(lines, x_of(column), first, scale);
        }
        for (row, cells) in self.rows.iter().enumerate() {
            if let Some(lines) = beside.get(row) {
                let middle = cell_height.saturating_sub(lines.len() as u32 * line_pitch) / 2;
                canvas.write(lines, self.gap, y_of(row) + middle, scale);
            }
            for (column, cell) in cells.iter().enumerate() {
                let (x, y) = (x_of(column), y_of(row));
                match cell {
                    Some(p) => canvas.paste(
                        p,
                        x + (cell_width - p.width()) / 2,
                        y + (cell_height - p.height()) / 2,
                    ),
                    None => canvas.paste(&Picture::filled(cell_width, cell_height, HOLE)?, x, y),
                }
            }
        }
        Ok(canvas)
    }
}

/// Pixels for captions of so many letters (or lines) of so many pixels each, with the gap beside
/// them; none for none.
fn captions_need(letters: usize, each: u32, gap: u32) -> u64 {
    if letters == 0 { 0 } else { letters as u64 * u64::from(each) + u64::from(gap) }
}

impl Picture {
    /// Copies another picture into this one; what would lie outside is left out.
    pub fn paste(&mut self, other: &Picture, x: u32, y: u32) {
        let kept = other.width.min(self.width.saturating_sub(x)) as usize * 3;
        let rows = other.rgb.chunks_exact(other.width as usize * 3);
        for (row, source) in rows.take(self.height.saturating_sub(y) as usize).enumerate() {
            let start = ((y as usize + row) * self.width as usize + x as usize) * 3;
            if let (Some(to), Some(from)) =
                (self.rgb.get_mut(start..start + kept), source.get(..kept))
            {
                to.copy_from_slice(from);
            }
        }
    }

    /// One line of text on paper, its left upper corner there; what would lie outside is left out.
    pub(crate) fn label(&mut self, text: &str, x: u32, y: u32, scale: u32) {
        let (width, height) =
            ((text.chars().count() as u32 * LETTER + 2) * scale, (LETTER + 2) * scale);
        if let Ok(paper) = Picture::filled(width, height, PAPER) {
            self.paste(&paper, x, y);
        }
        self.write(&[text.to_string()], x + scale, y + scale, scale);
    }

    pub(super) fn write(&mut self, lines: &[String], x: u32, y: u32, scale: u32) {
        let pitch = LETTER * scale;
        for (line, top) in lines.iter().zip((y..).step_by((LINE * scale) as usize)) {
            for (c, left) in line.chars().zip((x..).step_by(pitch as usize)) {
                for (row, bits) in letter(c).into_iter().enumerate() {
                    for column in (0..LETTER).filter(|n| bits >> n & 1 == 1) {
                        self.dot(left + column * scale, top + row as u32 * scale, scale);
                    }
                }
            }
        }
    }

    /// A square of ink.
    fn dot(&mut self, x: u32, y: u32, size: u32) {
        for (row, column) in
            (y..y + size).flat_map(|row| (x..x + size).map(move |column| (row, column)))
        {
            let at = (row as usize * self.width as usize + column as usize) * 3;
            if column < self.width
                && let Some(pixel) = self.rgb.get_mut(at..at + 3)
            {
                pixel.copy_from_slice(&INK);
            }
        }
    }
}
