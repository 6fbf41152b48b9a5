//! What a pickle may cost: a few of its bytes can ask for a great deal of work or memory.

/// What any pickle may spend, however small.
const LEAST: usize = 128 << 20;
/// What it may spend besides, in parts of its size.
const PER_BYTE: usize = 4;
/// Of one operation, or of one value that is made, kept or copied: more than it takes, with what
/// holds it.
const PER_VALUE: usize = 32;

/// Bytes that may still be spent. Every operation, every value and every text that is copied out is
/// charged here, so that both the time and the memory of reading a file are bounded by its size.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

impl Budget {
    /// For pickles of `length` bytes.
    pub fn for_pickle(length: usize) -> Budget {
        Budget { left: length.saturating_mul(PER_BYTE).saturating_add(LEAST) }
    }

    /// # Errors
    /// Once everything is spent.
    pub fn values(&mut self, count: usize) -> Result<(), String> {
        self.bytes(count.saturating_mul(PER_VALUE))
    }

    /// # Errors
    /// Once everything is spent.
    pub fn bytes(&mut self, count: usize) -> Result<(), String> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                Err("it asks for more work and memory than any file of tensors of its size".into())
            }
        }
    }
}
