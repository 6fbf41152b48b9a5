//! Memory that knows who touched it: what was written, by which invocation, before or after which
//! barrier.

use naga::Span;

use super::types::Scalar;

/// Bytes of a buffer, or of a workgroup variable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    pub bytes: Vec<u8>,
    /// Of each granule, when it was written: 0 for never, else the number of a workgroup.
    written: Vec<u32>,
    /// Of each granule, who touched it in this dispatch; empty where nobody looks.
    shadows: Vec<Shadow>,
    /// Bits of an address within a granule: 4 bytes, or 2 where there is f16.
    shift: u32,
}

/// An access: by whom, when, where in the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The workgroup's number, counted through all dispatches from 1; 0 for nobody.
    pub group: u32,
    pub lane: u32,
    /// Barriers passed so far that order this memory.
    pub epoch: u32,
    pub atomic: bool,
    pub span: Span,
}

const NOBODY: Mark = Mark { group: 0, lane: 0, epoch: 0, atomic: false, span: Span::UNDEFINED };

/// An invocation other than the first that read.
pub(super) const OTHERS: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Shadow {
    write: Mark,
    read: Mark,
    /// Other workgroups read, too.
    many_groups: bool,
    /// Other invocations of that workgroup read, too, since the same barrier.
    many_lanes: bool,
}

const UNTOUCHED: Shadow =
    Shadow { write: NOBODY, read: NOBODY, many_groups: false, many_lanes: false };

/// Two accesses that nothing orders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict {
    pub earlier: Mark,
    /// Whether the earlier one wrote, and the later one.
    pub writes: [bool; 2],
}

impl Mark {
    /// Whether nothing orders an earlier access before this one.
    fn meets(&self, earlier: &Mark) -> bool {
        earlier.group != self.group || (earlier.epoch == self.epoch && earlier.lane != self.lane)
    }
}

impl Region {
    /// Memory that holds `bytes`, all of which count as written if `given`.
    pub fn new(bytes: Vec<u8>, halves: bool, given: bool) -> Region {
        let shift = if halves { 1 } else { 2 };
        let granules = bytes.len().div_ceil(1 << shift);
        Region { bytes, written: vec![u32::from(given); granules], shadows: Vec::new(), shift }
    }

    /// Looks at all accesses from now on, forgetting those before.
    pub fn watch(&mut self) {
        self.shadows.clear();
        self.shadows.resize(self.written.len(), UNTOUCHED);
    }

    pub fn is_watched(&self) -> bool {
        !self.shadows.is_empty()
    }

    /// Whether the granule at a byte was written by workgroup `since` or a later one.
    pub fn is_written(&self, byte: usize, since: u32) -> bool {
        self.written.get(byte >> self.shift).is_some_and(|&group| group >= since.max(1))
    }

    pub(super) fn load(&self, byte: usize, scalar: Scalar) -> u32 {
        let width = scalar.width() as usize;
        match (self.bytes.get(byte..byte + width), width) {
            (Some(bytes), 2) => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            (Some(bytes), _) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            (None, _) => 0,
        }
    }

    pub(super) fn store(&mut self, byte: usize, scalar: Scalar, bits: u32, group: u32) {
        let width = scalar.width() as usize;
        if let Some(bytes) = self.bytes.get_mut(byte..byte + width) {
            bytes.copy_from_slice(&bits.to_le_bytes()[..width]);
            let granules = byte >> self.shift..=(byte + width - 1) >> self.shift;
            self.written[granules].fill(group);
        }
    }

    /// Puts bytes somewhere, as a copy does.
    pub fn put(&mut self, byte: usize, bytes: &[u8], group: u32) {
        if let Some(to) = self.bytes.get_mut(byte..byte + bytes.len()) {
            to.copy_from_slice(bytes);
            let end = (byte + bytes.len()).div_ceil(1 << self.shift);
            self.written[byte >> self.shift..end].fill(group);
        }
    }

    /// Notes a read; an access that it races with, in this dispatch, whose first workgroup is
    /// `since`.
    pub(super) fn note_read(
        &mut self,
        byte: usize,
        scalar: Scalar,
        me: &Mark,
        since: u32,
    ) -> Option<Conflict> {
        let mut conflict = None;
        let last = (byte + scalar.width() as usize - 1) >> self.shift;
        for shadow in self.shadows.get_mut(byte >> self.shift..=last)? {
            let write = shadow.write;
            if write.group >= since && !(write.atomic && me.atomic) && me.meets(&write) {
                conflict = Some(Conflict { earlier: write, writes: [true, false] });
            }
            let read = shadow.read;
            if read.group < since {
                (shadow.read, shadow.many_groups, shadow.many_lanes) = (*me, false, false);
            } else if read.group != me.group {
                shadow.many_groups = true;
            } else if read.epoch != me.epoch {
                (shadow.read, shadow.many_lanes) = (*me, false);
            } else if read.lane != me.lane {
                shadow.many_lanes = true;
            }
        }
        conflict
    }

    /// As [`Region::note_read`], of a write.
    pub(super) fn note_write(
        &mut self,
        byte: usize,
        scalar: Scalar,
        me: &Mark,
        since: u32,
    ) -> Option<Conflict> {
        let mut conflict = None;
        let last = (byte + scalar.width() as usize - 1) >> self.shift;
        for shadow in self.shadows.get_mut(byte >> self.shift..=last)? {
            let read = shadow.read;
            if read.group >= since && !(read.atomic && me.atomic) {
                let others = shadow.many_groups
                    || (shadow.many_lanes && read.epoch == me.epoch)
                    || me.meets(&read);
                if others {
                    let earlier = match me.meets(&read) {
                        true => read,
                        // It read, too, but what matters is that others did.
                        false => Mark { lane: OTHERS, ..read },
                    };
                    conflict = Some(Conflict { earlier, writes: [false, true] });
                }
            }
            let write = shadow.write;
            if write.group >= since && !(write.atomic && me.atomic) && me.meets(&write) {
                conflict = Some(Conflict { earlier: write, writes: [true, true] });
            }
            shadow.write = *me;
        }
        conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(group: u32, lane: u32, epoch: u32) -> Mark {
        Mark { group, lane, epoch, ..NOBODY }
    }

    #[test]
    fn accesses_that_nothing_orders_are_told() {
        let region = || {
            let mut region = Region::new(vec![0; 16], false, true);
            region.watch();
            region
        };
        let f32 = Scalar::F32;
        // A write, and a read by another invocation: before a barrier, and after it.
        let mut it = region();
        assert!(it.note_write(4, f32, &mark(1, 0, 0), 1).is_none());
        assert!(it.note_read(4, f32, &mark(1, 0, 0), 1).is_none());
        assert!(it.note_read(4, f32, &mark(1, 3, 0), 1).is_some());
        assert!(it.note_read(8, f32, &mark(1, 3, 0), 1).is_none());
        assert!(it.note_read(4, f32, &mark(1, 3, 1), 1).is_none());
        // No barrier orders other workgroups.
        assert!(it.note_read(4, f32, &mark(2, 0, 9), 1).is_some());
        // Reads by many, then a write by one of them.
        let mut it = region();
        assert!(it.note_read(0, f32, &mark(1, 0, 0), 1).is_none());
        assert!(it.note_write(0, f32, &mark(1, 0, 0), 1).is_none());
        let mut it = region();
        it.note_read(0, f32, &mark(1, 0, 0), 1);
        it.note_read(0, f32, &mark(1, 1, 0), 1);
        assert!(it.note_write(0, f32, &mark(1, 0, 0), 1).is_some());
        let mut it = region();
        it.note_read(0, f32, &mark(1, 0, 0), 1);
        it.note_read(0, f32, &mark(1, 1, 0), 1);
        assert!(it.note_write(0, f32, &mark(1, 0, 1), 1).is_none());
        // What an earlier dispatch did is past.
        assert!(it.note_write(0, f32, &mark(7, 5, 0), 7).is_none());
        // Atomics among themselves.
        let atomic = |lane| Mark { atomic: true, ..mark(7, lane, 0) };
        assert!(it.note_write(12, f32, &atomic(0), 7).is_none());
        assert!(it.note_write(12, f32, &atomic(1), 7).is_none());
        assert!(it.note_read(12, f32, &mark(7, 2, 0), 7).is_some());
    }

    #[test]
    fn what_was_written_is_known() {
        let mut it = Region::new(vec![0; 16], true, false);
        it.store(2, Scalar::F16, 0x3c00, 5);
        assert!(it.is_written(2, 5) && !it.is_written(0, 1) && !it.is_written(2, 6));
        it.store(8, Scalar::U32, 7, 5);
        assert_eq!((it.load(8, Scalar::U32), it.load(2, Scalar::F16)), (7, 0x3c00));
    }
}
