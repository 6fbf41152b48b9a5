//! Values of options, checked as they are read: an error names the option, and no work is lost.
use mixofshow::NumberRange as Range;
use mixofshow::picture::MAX_SIDE;

/// A seed as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    Number(u64),
    /// `random`, or -1 as in web UIs.
    Random,
}

pub fn seed(text: &str) -> Result<Seed, String> {
    match text.trim().to_lowercase().as_str() {
        "-1" | "random" => Ok(Seed::Random),
        number => number.parse().map(Seed::Number).map_err(|_| {
            format!("expected a whole number from 0 to {}, or `random` (-1)", u64::MAX)
        }),
    }
}

/// The sides of pictures in pixels.
pub const SIDE: Range = Range::whole(1, MAX_SIDE);

/// A side of a picture in pixels.
pub fn side(text: &str) -> Result<usize, String> {
    SIDE.parse(text)
}

/// Ranks of low-rank updates.
pub const RANK: Range = Range::whole(0, 1024);

/// What is made, asked for or measured so many times.
pub const TIMES: Range = Range::whole(1, 1000);

/// Measurements of which a difference is to be told.
pub const ROUNDS: Range = Range::whole(mixofshow::workbench::ENOUGH as u32, 1000);

/// Ports of an address; 0 is any that is free.
pub const PORT: Range = Range::whole(0, 65_535);

/// Bytes from `6G`, `512M` or `1.5GiB`; without a unit they are bytes.
pub fn memory(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => 64,
    };
    let bytes = number.parse::<f64>().ok().filter(|_| shift < 64);
    let bytes = bytes.map(|number| number * (1u64 << shift.min(63)) as f64);
    let bytes = bytes.filter(|bytes| *bytes >= 1.0 && *bytes < 1e18).map(|bytes| bytes as u64);
    bytes.ok_or("expected an amount of memory such as 6G or 512M".into())
}

/// Width and height from `512x768`.
pub fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X', '*']);
    let parsed = sides
        .and_then(|(width, height)| Some((side(width.trim()).ok()?, side(height.trim()).ok()?)));
    parsed.ok_or_else(|| {
        format!("expected width and height such as 512x768, each from 1 to {MAX_SIDE}")
    })
}

/// Pixels from the left and from the top from `0,128`.
pub fn place(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|n| *n <= MAX_SIDE as usize);
    let parts = text.split_once(',');
    let parsed = parts.and_then(|(left, top)| Some((number(left)?, number(top)?)));
    parsed.ok_or_else(|| {
        format!("expected pixels from the left and from the top such as 0,128, up to {MAX_SIDE}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        assert_eq!(
            [seed("7"), seed("-1"), seed("random"), seed("RANDOM")],
            [Ok(Seed::Number(7)), Ok(Seed::Random), Ok(Seed::Random), Ok(Seed::Random)]
        );
        assert_eq!(seed("18446744073709551615"), Ok(Seed::Number(u64::MAX)));
        assert!(
            ["-2", "1.5", "18446744073709551616", "", "Random!"]
                .iter()
                .all(|text| seed(text).is_err())
        );
    }

    #[test]
    fn memory_has_units() {
        for (text, bytes) in
            [("6G", 6 << 30), ("512m", 512 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2048), ("77", 77)]
        {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1G", "0", "6X", "1e9", "6 G G", "99999999999999T"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_begin_at_the_corner() {
        assert_eq!([place("0,0"), place(" 12, 340")], [Ok((0, 0)), Ok((12, 340))]);
        assert!(["", "1", "1,2,3", "-1,2", "1x2", "1,99999"].iter().all(|t| place(t).is_err()));
    }

    #[test]
    fn sizes_have_ranges() {
        assert_eq!((size("512x768"), side("16384")), (Ok((512, 768)), Ok(16384)));
        assert!([side("0"), side("-1"), side("16385")].iter().all(Result::is_err));
        assert!(
            ["512", "x", "-1x2", "1x2x3", "", "0x0", "64000x8"]
                .iter()
                .all(|text| size(text).is_err())
        );
    }
}
