//! Previews while a picture is sampled: to a file, or to a terminal that shows pictures.
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mixofshow::NumberRange as Range;
use mixofshow::picture::{Picture, Sheet};
use mixofshow::pipeline::Preview;

use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Result, files};

#[derive(clap::Args)]
pub struct Previews {
    /// Show what the picture will be after every so many steps
    ///
    /// On a terminal that shows pictures (kitty's way or sixel), else in the file that
    /// --preview-file names or a file beside the picture. The picture is the same with previews
    /// and without.
    #[arg(long, value_name = "STEPS", help_heading = "Output")]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    pub preview: Option<usize>,
    /// Write previews to this PNG file, each in place of the one before
    #[arg(long, value_name = "FILE", requires = "preview", help_heading = "Output")]
    preview_file: Option<PathBuf>,
}

/// Where previews go.
pub enum Screen {
    File(PathBuf),
    Kitty,
    Sixel,
}

impl Previews {
    /// Where they go, for pictures that go to `destinations`.
    pub fn screen(&self, destinations: &[PathBuf], terminal: &Terminal) -> Result<Option<Screen>> {
        if self.preview.is_none() {
            return Ok(None);
        }
        if let Some(path) = &self.preview_file {
            return Ok(Some(Screen::File(path.clone())));
        }
        let shown = if terminal.interactive() {
            of_terminal(&|name| std::env::var(name).ok())
        } else {
            None
        };
        if shown.is_some() {
            return Ok(shown);
        }
        let Some(first) = destinations.first().filter(|first| !files::is_stream(first)) else {
            return Err(Failure::Usage(
                "--preview: this is no terminal that shows pictures; --preview-file names a file"
                    .into(),
            ));
        };
        let stem = first.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let path = first.with_file_name(format!("{}-preview.png", stem.unwrap_or_default()));
        terminal.note(format!("previews go to {}", path.display()));
        Ok(Some(Screen::File(path)))
    }
}

/// What a terminal shows pictures by, as far as its variables say. Inside of a multiplexer it shows
/// none.
fn of_terminal(variable: &dyn Fn(&str) -> Option<String>) -> Option<Screen> {
    let of = |name: &str| variable(name).unwrap_or_default().to_lowercase();
    let (term, program) = (of("TERM"), of("TERM_PROGRAM"));
    if variable("TMUX").is_some() || term.starts_with("screen") || term.starts_with("tmux") {
        return None;
    }
    let kitty = term.contains("kitty") || variable("KITTY_WINDOW_ID").is_some();
    if kitty || ["ghostty", "wezterm"].contains(&program.as_str()) || term.contains("ghostty") {
        return Some(Screen::Kitty);
    }
    let sixel = ["foot", "mlterm", "contour", "yaft"].iter().any(|name| term.starts_with(name))
        || term.contains("sixel")
        || ["iterm.app", "mintty"].contains(&program.as_str());
    sixel.then_some(Screen::Sixel)
}

/// The longest side of what a terminal is shown.
const SIDE: u32 = 384;

impl Screen {
    /// The file that is written, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Screen::File(path) => Some(path),
            _ => None,
        }
    }

    /// Shows a preview.
    pub fn show(&self, preview: &Preview<'_>) -> Result<()> {
        let sheet = Sheet::grid(preview.pictures, 2).draw();
        let picture = match preview.pictures {
            [only] => only.clone(),
            _ => sheet?,
        };
        let bytes = match self {
            Screen::File(path) => {
                files::make_folder_of(path)?;
                return files::save(&picture, path, None);
            }
            Screen::Kitty => kitty(&small(&picture)?),
            Screen::Sixel => sixel(&small(&picture)?),
        };
        // Nobody is to stop for a preview that is not seen.
        let _ = io::stderr().lock().write_all(&bytes);
        Ok(())
    }
}

fn small(picture: &Picture) -> Result<Picture> {
    let (width, height) = (picture.width(), picture.height());
    let most = width.max(height);
    if most <= SIDE {
        return Ok(picture.clone());
    }
    let fitted = |side: u32| (side * SIDE / most).max(1);
    Ok(picture.resized(fitted(width), fitted(height))?)
}

/// Kitty's graphics: raw pixels in base64, in pieces, under one number so that the next one takes
/// this one's place.
fn kitty(picture: &Picture) -> Vec<u8> {
    const PIECE: usize = 4096;
    let text = base64(picture.rgb());
    let mut out = b"\x1b_Ga=d,d=I,i=77,q=2\x1b\\\r".to_vec();
    let pieces = text.chunks(PIECE).count();
    for (i, piece) in text.chunks(PIECE).enumerate() {
        let more = u8::from(i + 1 < pieces);
        let head = match i {
            0 => format!("a=T,f=24,i=77,q=2,s={},v={},m={more}", picture.width(), picture.height()),
            _ => format!("m={more}"),
        };
        out.extend_from_slice(format!("\x1b_G{head};").as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\x1b\\");
    }
    out.push(b'\n');
    out
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= group.len() { letter } else { b'=' });
        }
    }
    text
}

/// Steps of each colour in sixels.
const LEVELS: u32 = 6;

/// Sixels: bands of six rows, a pass for each colour in them.
fn sixel(picture: &Picture) -> Vec<u8> {
    let level = |value: u8| (u32::from(value) * (LEVELS - 1) + 127) / 255;
    let index = |x: u32, y: u32| {
        picture.pixel(x, y).map(|[r, g, b]| (level(r) * LEVELS + level(g)) * LEVELS + level(b))
    };
    let mut out = format!("\x1bPq\"1;1;{};{}", picture.width(), picture.height());
    for colour in 0..LEVELS.pow(3) {
        let share = |value: u32| value * 100 / (LEVELS - 1);
        let (r, g, b) = (colour / LEVELS / LEVELS, colour / LEVELS % LEVELS, colour % LEVELS);
        out += &format!("#{colour};2;{};{};{}", share(r), share(g), share(b));
    }
    for band in (0..picture.height()).step_by(6) {
        let rows = band..(band + 6).min(picture.height());
        let mut there: Vec<u32> = rows
            .clone()
            .flat_map(|y| (0..picture.width()).filter_map(move |x| index(x, y)))
            .collect();
        there.sort_unstable();
        there.dedup();
        for colour in there {
            out += &format!("#{colour}");
            let (mut run, mut last) = (0, '?');
            for x in 0..=picture.width() {
                let bits = rows
                    .clone()
                    .filter(|&y| index(x, y) == Some(colour))
                    .fold(0u8, |bits, y| bits | 1 << (y - band));
                let letter = char::from(b'?' + bits);
                if x < picture.width() && letter == last {
                    run += 1;
                    continue;
                }
                match run {
                    0 => {}
                    1..=3 => (0..run).for_each(|_| out.push(last)),
                    _ => out += &format!("!{run}{last}"),
                }
                (run, last) = (1, letter);
            }
            out.push('$');
        }
        out.push('-');
    }
    out += "\x1b\\\n";
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_variables() {
        let of = |variables: &'static [(&str, &str)]| {
            of_terminal(&move |name| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
            })
        };
        assert!(matches!(of(&[("TERM", "xterm-kitty")]), Some(Screen::Kitty)));
        assert!(matches!(of(&[("TERM", "foot")]), Some(Screen::Sixel)));
        assert!(matches!(of(&[("TERM_PROGRAM", "WezTerm")]), Some(Screen::Kitty)));
        assert!(of(&[("TERM", "xterm-256color")]).is_none());
        assert!(of(&[("TERM", "screen-256color"), ("KITTY_WINDOW_ID", "1")]).is_none());
    }

    #[test]
    fn pictures_are_told_as_terminals_read_them() {
        assert_eq!(base64(b"Man"), b"TWFu");
        assert_eq!(base64(b"Ma"), b"TWE=");
        assert_eq!(base64(b"M"), b"TQ==");
        let picture = Picture::filled(5, 7, [255, 0, 0]).unwrap();
        let text = String::from_utf8(sixel(&picture)).unwrap();
        // Red, five wide: all six rows, then one.
        assert!(text.starts_with("\x1bPq\"1;1;5;7"), "{text}");
        assert!(text.contains("#180!5~$-#180!5@$-"), "{}", &text[text.len() - 60..]);
        let text = String::from_utf8(kitty(&picture)).unwrap();
        assert!(text.contains("f=24,i=77,q=2,s=5,v=7,m=0;/wAA"), "{text}");
    }
}
