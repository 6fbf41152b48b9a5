//! Figures as people read and write them.
use std::time::Duration;

/// Bytes in binary units: `64 KiB`, `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", short(value), UNITS[unit])
}

/// A count: `12 345`, then `860 M`.
pub fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..999_500 => format!("{:.0} k", number as f64 / 1e3),
        999_500..999_500_000 => format!("{} M", short(number as f64 / 1e6)),
        _ => format!("{:.2} G", number as f64 / 1e9),
    }
}

/// A time: `850 ms`, `3.2 s`, `2 min 05 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return format!("{} min {:02} s", whole / 60, whole % 60);
    }
    format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
}

/// One digit after the point where it tells something.
fn short(value: f64) -> String {
    let text = if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(65536), "64 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1 MiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(bytes(2_132_625_894), "2 GiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!(count(49408), "49408");
        assert_eq!(count(860_000_000), "860 M");
        assert_eq!(count(83_653_863), "83.7 M");
        assert_eq!(count(1_066_235_307), "1.07 G");
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_millis(3249)), "3.2 s");
        assert_eq!(duration(Duration::from_millis(59_960)), "1 min 00 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(duration(Duration::from_secs(7260)), "2 h 01 min");
    }
}
