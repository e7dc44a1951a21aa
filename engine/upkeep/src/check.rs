//! Whether a stream of bytes is a sound segment: fed in pieces of any size, no I/O, no allocation beyond one header.

use ringmill_record::{BatchHeader, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use ringmill_types::Offset;
use std::fmt;

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The length field is shorter than a header or reaches beyond the file.
    Length { says: i32 },
    /// The file ends within a batch.
    Truncated,
    /// A format marker nobody defined.
    Magic(i8),
    /// The CRC32C over the batch is not the one in its header.
    Crc { stored: u32, computed: u32 },
    /// Offsets do not grow from batch to batch.
    Order,
    /// Offsets that belong to a later segment: a batch's base offset is outside its CRC.
    Beyond { base: Offset, bound: Offset },
    /// Zeros up to a page boundary are padding; after them came something else.
    Padding,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Length { says } => {
                write!(f, "the batch claims a length of {says} bytes, which cannot be")
            }
            Damage::Truncated => f.write_str("the file ends within a batch"),
            Damage::Magic(magic) => write!(f, "unknown batch format {magic}"),
            Damage::Crc { stored, computed } => {
                write!(f, "the batch's CRC is {computed:08x}, its header says {stored:08x}")
            }
            Damage::Order => f.write_str("the batch's offset does not follow the one before it"),
            Damage::Beyond { base, bound } => {
                write!(f, "the batch's offset is {base}, but the segment ends before {bound}")
            }
            Damage::Padding => f.write_str("bytes follow the zero padding at the end"),
        }
    }
}

/// How a segment ended, as far as its bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Clean { batches: u64 },
    Damaged { at: u64, offset: Offset, what: Damage },
    OldFormat { at: u64 },
}

/// A segment while it is read. `at <= position`: the batch under way begins at `at`.
#[derive(Debug)]
pub struct SegmentCheck {
    file_bytes: u64,
    /// Bytes taken so far.
    position: u64,
    /// Where the batch under way begins.
    at: u64,
    /// Header bytes of the batch under way, until there are enough to read it.
    header: Vec<u8>,
    body: Option<Body>,
    next_offset: Offset,
    bound: Offset,
    batches: u64,
    padding: bool,
    end: Option<Verdict>,
}

/// The rest of a batch whose header is known.
#[derive(Debug)]
struct Body {
    left: u64,
    crc: u32,
    stored: u32,
    next_offset: Offset,
}

/// First byte the CRC covers (`ringmill_record::batch::CRC_FROM`).
const CRC_FROM: usize = ringmill_record::batch::CRC_FROM;
/// Bytes up to and with the magic byte: what every message format has in common.
const MAGIC_END: usize = 17;
/// Padding never exceeds a page: destage writes whole pages, the last one filled with zeros.
const PADDING_MAX: u64 = ringmill_types::limits::PAGE_BYTES as u64;

impl SegmentCheck {
    /// `file_bytes`: the length of the whole file; `base_offset`: the offset in its name; `bound`: none of its offsets
    /// reaches this one.
    pub fn new(file_bytes: u64, base_offset: Offset, bound: Offset) -> SegmentCheck {
        SegmentCheck {
            file_bytes,
            position: 0,
            at: 0,
            header: Vec::with_capacity(HEADER_BYTES),
            body: None,
            next_offset: base_offset,
            bound,
            batches: 0,
            padding: false,
            end: None,
        }
    }

    /// Takes the next bytes of the file. Returns false when the verdict is known and more would change nothing.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && self.end.is_none() {
            let taken = if self.padding {
                self.feed_padding(bytes)
            } else if self.body.is_some() {
                self.feed_body(bytes)
            } else {
                self.feed_header(bytes)
            };
            self.position += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.body.as_ref().is_some_and(|body| body.left == 0) {
                self.end_batch();
            }
        }
        self.end.is_none()
    }

    fn feed_padding(&mut self, bytes: &[u8]) -> usize {
        if bytes.iter().any(|byte| *byte != 0) {
            self.damaged(Damage::Padding);
        }
        bytes.len()
    }

    fn feed_header(&mut self, bytes: &[u8]) -> usize {
        let want = if self.header.len() < MAGIC_END { MAGIC_END } else { HEADER_BYTES };
        let take = (want - self.header.len()).min(bytes.len());
        self.header.extend_from_slice(bytes.get(..take).unwrap_or_default());
        if self.header.len() == MAGIC_END {
            self.look_at_magic();
        } else if self.header.len() == HEADER_BYTES {
            self.begin_body();
        }
        take
    }

    fn look_at_magic(&mut self) {
        if self.header.iter().all(|byte| *byte == 0) && self.file_bytes - self.at < PADDING_MAX {
            self.padding = true;
            return;
        }
        match BatchHeader::magic_of(&self.header) {
            Some(2) => {}
            Some(0 | 1) if !self.header.iter().all(|byte| *byte == 0) => {
                self.end = Some(Verdict::OldFormat { at: self.at });
            }
            Some(magic) => self.damaged(Damage::Magic(magic)),
            None => {}
        }
    }

    fn begin_body(&mut self) {
        let says = self.header.get(8..12).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes);
        let Some(header) = BatchHeader::parse(&self.header) else {
            return self.damaged(Damage::Length { says });
        };
        if header.size_bytes as u64 > self.file_bytes - self.at {
            return self.damaged(Damage::Length { says });
        }
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            return self.damaged(Damage::Order);
        }
        // A base so high that the end overflows has no next offset to compare.
        if header.base_offset >= self.bound || header.next_offset() > self.bound {
            return self.damaged(Damage::Beyond { base: header.base_offset, bound: self.bound });
        }
        self.body = Some(Body {
            left: (header.size_bytes - HEADER_BYTES) as u64,
            crc: crc32c::crc32c(self.header.get(CRC_FROM..).unwrap_or_default()),
            stored: header.crc,
            next_offset: header.next_offset(),
        });
    }

    fn feed_body(&mut self, bytes: &[u8]) -> usize {
        let Some(body) = &mut self.body else { return 0 };
        let take = usize::try_from(body.left).unwrap_or(usize::MAX).min(bytes.len());
        body.crc = crc32c::crc32c_append(body.crc, bytes.get(..take).unwrap_or_default());
        body.left -= take as u64;
        take
    }

    fn end_batch(&mut self) {
        let Some(body) = self.body.take() else { return };
        if body.crc != body.stored {
            return self.damaged(Damage::Crc { stored: body.stored, computed: body.crc });
        }
        self.batches += 1;
        self.next_offset = body.next_offset;
        self.at = self.position;
        self.header.clear();
    }

    fn damaged(&mut self, what: Damage) {
        self.end = Some(Verdict::Damaged { at: self.at, offset: self.next_offset, what });
    }

    /// The verdict, after the last byte was fed or `feed` returned false.
    pub fn finish(self) -> Verdict {
        if let Some(verdict) = self.end {
            return verdict;
        }
        let short_zeros = self.header.len() < LOG_OVERHEAD_BYTES.max(MAGIC_END)
            && self.header.iter().all(|byte| *byte == 0);
        if self.position == self.file_bytes && self.body.is_none() && (self.padding || short_zeros) {
            return Verdict::Clean { batches: self.batches };
        }
        Verdict::Damaged { at: self.at, offset: self.next_offset, what: Damage::Truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::tests_support::{batch, segment};
    use proptest::prelude::*;

    fn check_in_pieces(bytes: &[u8], base: i64, piece: usize) -> Verdict {
        check_below(bytes, base, i64::MAX, piece)
    }

    fn check_below(bytes: &[u8], base: i64, bound: i64, piece: usize) -> Verdict {
        let mut check = SegmentCheck::new(bytes.len() as u64, Offset(base), Offset(bound));
        for piece in bytes.chunks(piece.max(1)) {
            if !check.feed(piece) {
                break;
            }
        }
        check.finish()
    }

    #[test]
    fn sound_segments_are_clean() {
        assert_eq!(check_in_pieces(&[], 0, 7), Verdict::Clean { batches: 0 });
        let bytes = segment(40, 5, 100);
        assert_eq!(check_in_pieces(&bytes, 40, 4096), Verdict::Clean { batches: 5 });
        let mut padded = bytes.clone();
        padded.resize(bytes.len().next_multiple_of(4096), 0);
        assert_eq!(check_in_pieces(&padded, 40, 1000), Verdict::Clean { batches: 5 });
        let mut few = bytes.clone();
        few.extend([0; 3]);
        assert_eq!(check_in_pieces(&few, 40, 1000), Verdict::Clean { batches: 5 });
    }

    #[test]
    fn each_damage_is_named_where_it_is() {
        let sound = segment(0, 3, 100);
        let second = sound.len() / 3;
        let damage = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            edit(&mut bytes);
            check_in_pieces(&bytes, 0, 64)
        };
        let at = |verdict| match verdict {
            Verdict::Damaged { at, offset, what } => (at as usize, offset.0, what),
            other => panic!("{other:?}"),
        };
        let (position, offset, what) = at(damage(&|b| b[second + 80] ^= 1));
        assert_eq!((position, offset), (second, 1));
        assert!(matches!(what, Damage::Crc { .. }));
        assert_eq!(at(damage(&|b| b.truncate(b.len() - 1))).2, Damage::Length { says: (second - 12) as i32 });
        assert_eq!(at(damage(&|b| b.truncate(second + 30))), (second, 1, Damage::Truncated));
        assert_eq!(at(damage(&|b| b[second + 16] = 9)), (second, 1, Damage::Magic(9)));
        assert_eq!(at(damage(&|b| b[second + 7] = 0)), (second, 1, Damage::Order));
        assert!(matches!(at(damage(&|b| b[second + 8] = 0x7f)).2, Damage::Length { .. }));
        assert!(matches!(at(damage(&|b| b[second + 11] = 1)).2, Damage::Length { .. } | Damage::Crc { .. }));
        assert_eq!(
            at(damage(&|b| b.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]))).2,
            Damage::Padding
        );
        assert_eq!(damage(&|b| b[16] = 1), Verdict::OldFormat { at: 0 });
    }

    /// The CRC begins behind a batch's base offset.
    #[test]
    fn a_flipped_bit_of_any_base_offset_is_found_where_offsets_are_dense() {
        let sound = segment(40, 3, 100);
        assert_eq!(check_below(&sound, 40, 43, 64), Verdict::Clean { batches: 3 });
        for (batch, bit) in (0..3).flat_map(|batch| (0..64).map(move |bit| (batch, bit))) {
            let mut bytes = sound.clone();
            bytes[batch * sound.len() / 3 + bit / 8] ^= 0x80 >> (bit % 8);
            let verdict = check_below(&bytes, 40, 43, 64);
            assert!(matches!(verdict, Verdict::Damaged { .. }), "bit {bit} of batch {batch}: {verdict:?}");
        }
        let mut bytes = sound.clone();
        let last = 2 * sound.len() / 3;
        bytes[last] ^= 1;
        let beyond = Damage::Beyond { base: Offset(42 | 1 << 56), bound: Offset(43) };
        assert_eq!(
            check_below(&bytes, 40, 43, 64),
            Verdict::Damaged { at: last as u64, offset: Offset(42), what: beyond }
        );
    }

    #[test]
    fn a_page_of_zeros_is_not_padding() {
        let mut bytes = segment(0, 1, 100);
        bytes.extend([0; 8192]);
        assert!(matches!(check_in_pieces(&bytes, 0, 4096), Verdict::Damaged { what: Damage::Magic(0), .. }));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(count in 0i64..6, body in 0usize..300, piece in 1usize..200, flip in any::<proptest::sample::Index>(), damage in any::<bool>()) {
            let mut bytes = segment(9, count, body);
            if damage && !bytes.is_empty() {
                let at = flip.index(bytes.len());
                bytes[at] ^= 0x10;
            }
            prop_assert_eq!(check_in_pieces(&bytes, 9, piece), check_in_pieces(&bytes, 9, usize::MAX));
        }

        #[test]
        fn a_flipped_bit_under_the_crc_is_found(at in 17usize..161, bit in 0u8..8) {
            let mut bytes = batch(0, 100);
            bytes[at] ^= 1 << bit;
            let found = matches!(check_in_pieces(&bytes, 0, 50), Verdict::Damaged { .. });
            prop_assert!(found);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..100) {
            let _ = check_in_pieces(&bytes, 0, piece);
        }
    }
}
