//! Values of options, checked as they are read: an error names the option, and no work is lost.
use mixofshow::picture::MAX_SIDE;

/// A seed as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    Number(u64),
    /// `random`, or -1 as in web UIs.
    Random,
}

pub fn seed(text: &str) -> Result<Seed, String> {
    match text.trim() {
        "-1" | "random" => Ok(Seed::Random),
        number => number.parse().map(Seed::Number).map_err(|_| {
            format!("expected a whole number from 0 to {}, or `random` (-1)", u64::MAX)
        }),
    }
}

/// A whole number from 1 on.
pub fn count(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|count| *count >= 1);
    value.ok_or_else(|| "expected a whole number from 1 on".to_string())
}

/// A side of a picture in pixels.
pub fn side(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|side| (1..=MAX_SIDE as usize).contains(side));
    value.ok_or_else(|| format!("expected a whole number of pixels from 1 to {MAX_SIDE}"))
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

/// A number from 0 on.
pub fn not_negative<T: Into<f64> + std::str::FromStr + Copy>(text: &str) -> Result<T, String> {
    number(text, |value| value >= 0.0).ok_or_else(|| "expected a number from 0 on".to_string())
}

/// A share from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value))
        .ok_or_else(|| "expected a number from 0 to 1".to_string())
}

/// A share above 0, 1 at most.
pub fn positive_share(text: &str) -> Result<f64, String> {
    let value = number(text, |value| value > 0.0 && value <= 1.0);
    value.ok_or_else(|| "expected a number above 0, 1 at most".to_string())
}

fn number<T: Into<f64> + std::str::FromStr + Copy>(
    text: &str,
    fits: impl Fn(f64) -> bool,
) -> Option<T> {
    let value: T = text.trim().parse().ok()?;
    (value.into().is_finite() && fits(value.into())).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        assert_eq!(
            [seed("7"), seed("-1"), seed("random")],
            [Ok(Seed::Number(7)), Ok(Seed::Random), Ok(Seed::Random)]
        );
        assert_eq!(seed("18446744073709551615"), Ok(Seed::Number(u64::MAX)));
        assert!(
            ["-2", "1.5", "18446744073709551616", "", "Random!"]
                .iter()
                .all(|text| seed(text).is_err())
        );
    }

    #[test]
    fn numbers_have_ranges() {
        assert_eq!(
            (count("1"), size("512x768"), side("16384")),
            (Ok(1), Ok((512, 768)), Ok(16384))
        );
        assert!([count("0"), count("-1"), side("0"), side("16385")].iter().all(Result::is_err));
        assert!(
            ["512", "x", "-1x2", "1x2x3", "", "0x0", "64000x8"]
                .iter()
                .all(|text| size(text).is_err())
        );
        assert_eq!((not_negative::<f32>("7.5"), not_negative::<f64>("0")), (Ok(7.5), Ok(0.0)));
        assert!(
            ["-1", "NaN", "inf", "1e400", "x"]
                .iter()
                .all(|text| not_negative::<f64>(text).is_err())
        );
        assert!(
            ["-0.1", "1.1", "NaN"].iter().all(|text| share(text).is_err()) && share("1") == Ok(1.0)
        );
        assert!(positive_share("0").is_err() && positive_share("0.6") == Ok(0.6));
    }
}
