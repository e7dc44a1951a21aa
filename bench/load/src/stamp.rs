//! What a value carries so that its reader can tell how long it was on its way.
//!
//! ```text
//! 0        8        16       24
//! +--------+--------+--------+
//! | magic  | run    | intended, monotonic nanoseconds |
//! +--------+--------+--------+
//! ```
//! Big-endian. Both sides are one process, so they share the clock.

/// Bytes at the front of a stamped value.
pub const STAMP_BYTES: usize = 24;
const COUNTS: u64 = u64::from_be_bytes(*b"RMperf e");
const WARMUP: u64 = u64::from_be_bytes(*b"RMperf w");

/// Of one run; records of another one are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u64,
}

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub intended_ns: u64,
    /// Not of the warm-up.
    pub counts: bool,
}

impl Stamp {
    pub fn write(self, intended_ns: u64, counts: bool) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        let words = [if counts { COUNTS } else { WARMUP }, self.run, intended_ns];
        for (place, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        out
    }

    /// `None` for a value that is not of this run.
    pub fn read(self, value: &[u8]) -> Option<Read> {
        let [magic, run, intended_ns] = value
            .first_chunk::<STAMP_BYTES>()?
            .as_chunks::<8>()
            .0
            .first_chunk::<3>()?
            .map(u64::from_be_bytes);
        let counts = match magic {
            COUNTS => true,
            WARMUP => false,
            _ => return None,
        };
        (run == self.run).then_some(Read { intended_ns, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_this_run_are_read() {
        let stamp = Stamp { run: 7 };
        let mut value = stamp.write(123, true).to_vec();
        value.push(0);
        assert_eq!(stamp.read(&value), Some(Read { intended_ns: 123, counts: true }));
        assert_eq!(stamp.read(&stamp.write(9, false)), Some(Read { intended_ns: 9, counts: false }));
        assert_eq!(Stamp { run: 8 }.read(&value), None);
        assert_eq!(stamp.read(&value[..STAMP_BYTES - 1]), None);
        assert_eq!(stamp.read(&[b'x'; 100]), None);
    }
}
