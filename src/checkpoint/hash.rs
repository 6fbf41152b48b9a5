//! Hashes that tell models apart.
use std::fmt;
use std::str::FromStr;

/// A SHA-256 of a model's weights, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelHash(pub [u8; 32]);

impl fmt::Display for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelHash({self})")
    }
}

impl FromStr for ModelHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a hash of 64 hexadecimal digits");
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(ModelHash(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_are_written() {
        let hash = ModelHash(std::array::from_fn(|i| (i * 37) as u8));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "12", &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)] {
            assert!(wrong.parse::<ModelHash>().is_err(), "{wrong}");
        }
    }
}
