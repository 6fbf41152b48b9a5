//! Numbers as people give them, with the range that each is from, and as they are told.

use std::fmt;
use std::str::FromStr;

/// The numbers that an option or a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: f64,
    /// `low` itself is none of them.
    above: bool,
    high: f64,
    /// `high` itself is none of them.
    below: bool,
    whole: bool,
}

impl Range {
    /// All that are finite.
    pub const ANY: Range = Range {
        low: f64::NEG_INFINITY,
        above: false,
        high: f64::INFINITY,
        below: false,
        whole: false,
    };
    /// From 0 on.
    pub const NOT_NEGATIVE: Range = Range { low: 0.0, ..Range::ANY };
    /// Above 0.
    pub const POSITIVE: Range = Range { above: true, ..Range::NOT_NEGATIVE };
    /// From 0 to 1.
    pub const SHARE: Range = Range { high: 1.0, ..Range::NOT_NEGATIVE };
    /// Above 0, 1 at most.
    pub const POSITIVE_SHARE: Range = Range { high: 1.0, ..Range::POSITIVE };
    /// From 0, below 1.
    pub const BELOW_ONE: Range = Range { below: true, ..Range::SHARE };
    /// Whole numbers from 0 on.
    pub const WHOLE: Range = Range { whole: true, ..Range::NOT_NEGATIVE };
    /// Whole numbers from 1 on.
    pub const COUNT: Range = Range { low: 1.0, ..Range::WHOLE };

    /// Whole numbers from `low` to `high`.
    pub const fn whole(low: u32, high: u32) -> Range {
        Range { low: low as f64, high: high as f64, ..Range::WHOLE }
    }

    /// Whether a number is one of them; none that is not finite is.
    pub fn contains(&self, value: impl Number) -> bool {
        let value = value.to_f64();
        value.is_finite()
            && (value > self.low || value == self.low && !self.above)
            && (value < self.high || value == self.high && !self.below)
            && (!self.whole || value.fract() == 0.0)
    }

    /// The number that a text says.
    ///
    /// # Errors
    /// What was expected, where it says none of these.
    pub fn parse<T: Number + FromStr>(&self, text: &str) -> Result<T, String> {
        let value = text.trim().parse().ok().filter(|value: &T| self.contains(*value));
        value.ok_or_else(|| format!("expected {self}"))
    }

    /// [`Range::parse`] as a function of its own.
    pub fn parser<T: Number + FromStr>(
        self,
    ) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
        move |text| self.parse(text)
    }
}

/// In words, such as "a whole number from 1 to 8".
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.whole { "a whole number" } else { "a number" })?;
        if self.low.is_finite() {
            write!(f, " {} {}", if self.above { "above" } else { "from" }, self.low)?;
        }
        match (self.high.is_finite(), self.below, self.above) {
            (true, true, _) => write!(f, ", below {}", self.high),
            (true, false, true) => write!(f, ", {} at most", self.high),
            (true, false, false) => write!(f, " to {}", self.high),
            (false, _, false) if self.low.is_finite() => f.write_str(" on"),
            (false, ..) => Ok(()),
        }
    }
}

/// So many of something whose plural ends in an s: `1 picture`, `2 pictures`.
pub fn counted(count: impl Number, thing: &str) -> String {
    let count = count.to_f64();
    format!("{count} {thing}{}", if count == 1.0 { "" } else { "s" })
}

/// A type of numbers.
pub trait Number: Copy {
    fn to_f64(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty),+) => {
        $(impl Number for $type {
            fn to_f64(self) -> f64 {
                self as f64
            }
        })+
    };
}

numbers!(usize, u64, u32, u16, i32, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_take_what_they_say() {
        let ranges: [(Range, &str, &[&str], &[&str]); 8] = [
            (Range::ANY, "a number", &["-1e9", " 0.5 "], &["NaN", "inf", "1e400", "x", ""]),
            (Range::NOT_NEGATIVE, "a number from 0 on", &["0", "7.5"], &["-1", "-0.1"]),
            (Range::POSITIVE, "a number above 0", &["1e-9"], &["0", "-1"]),
            (Range::SHARE, "a number from 0 to 1", &["0", "1"], &["-0.1", "1.1"]),
            (Range::POSITIVE_SHARE, "a number above 0, 1 at most", &["0.6", "1"], &["0", "2"]),
            (Range::BELOW_ONE, "a number from 0, below 1", &["0", "0.999"], &["1"]),
            (Range::COUNT, "a whole number from 1 on", &["1", "99"], &["0", "-1", "1.5"]),
            (Range::whole(0, 8), "a whole number from 0 to 8", &["0", "8"], &["9", "-3"]),
        ];
        for (range, said, taken, refused) in ranges {
            assert_eq!(range.to_string(), said);
            for text in taken {
                assert!(range.parse::<f64>(text).is_ok(), "{text}: {range}");
            }
            for text in refused {
                assert_eq!(range.parse::<f64>(text), Err(format!("expected {said}")), "{text}");
            }
        }
        assert_eq!(
            [counted(0, "cat"), counted(1, "cat"), counted(2, "cat")],
            ["0 cats", "1 cat", "2 cats"]
        );
        assert_eq!(Range::COUNT.parse::<usize>("18"), Ok(18));
        assert!(Range::COUNT.parse::<usize>("1e3").is_err());
        assert!(Range::ANY.parse::<f32>("1e39").is_err());
    }
}
