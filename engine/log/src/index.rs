//! The sparse indexes of one segment, as Kafka keeps them: offset → position, and time → offset.
//!
//! ```text
//! .index      8 B each, big-endian: relative offset u32 | position u32      both strictly growing
//! .timeindex 12 B each, big-endian: timestamp i64 | relative offset u32     time strictly growing, offset not falling
//! ```
//! Held in memory while a segment is written, loaded when an older one is read. Kafka's rules (`LogSegment.append`): an
//! entry is made for the batch about to be appended when more than `index.interval.bytes` came since the last one; it
//! names the batch's *last* offset and its position; a time entry goes along with the largest timestamp so far. At the
//! end of the segment the time index gets that largest timestamp as its last entry. Does no I/O.

use ringmill_record::BatchHeader;
use ringmill_types::Offset;
use std::fmt;

pub const OFFSET_ENTRY_BYTES: usize = 8;
pub const TIME_ENTRY_BYTES: usize = 12;

/// A larger file is no index: `segment.index.bytes` is 10 MiB by default.
pub const INDEX_BYTES_MAX: u64 = 1 << 28;

/// Both indexes of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    base: Offset,
    interval_bytes: u32,
    bytes_since_entry: u64,
    offsets: Vec<(u32, u32)>,
    times: Vec<(i64, u32)>,
    max_timestamp_ms: i64,
    offset_of_max: Offset,
}

/// Why index bytes are refused: rebuild them from the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// Not a whole number of entries.
    Length(&'static str),
    /// Entry `at` breaks the order.
    Order { file: &'static str, at: u32 },
    /// Entry `at` points past the segment.
    Beyond { at: u32, position: u32 },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::Length(file) => write!(f, "{file}: not a whole number of entries"),
            IndexError::Order { file, at } => write!(f, "{file}: entry {at} does not grow"),
            IndexError::Beyond { at, position } => {
                write!(f, "index: entry {at} points to byte {position}, past the segment's end")
            }
        }
    }
}

impl std::error::Error for IndexError {}

impl SegmentIndex {
    /// An empty one for the segment that begins at `base`.
    pub fn new(base: Offset, interval_bytes: u32) -> SegmentIndex {
        SegmentIndex {
            base,
            interval_bytes,
            bytes_since_entry: 0,
            offsets: Vec::new(),
            times: Vec::new(),
            max_timestamp_ms: -1,
            offset_of_max: Offset(-1),
        }
    }

    /// Notes a batch that is appended at `position`; batches come in order.
    pub fn append(&mut self, header: &BatchHeader, position: u32) {
        if header.max_timestamp_ms > self.max_timestamp_ms {
            self.max_timestamp_ms = header.max_timestamp_ms;
            self.offset_of_max = header.last_offset();
        }
        if self.bytes_since_entry > u64::from(self.interval_bytes) {
            self.push_offset(header.last_offset(), position);
            self.push_time(self.max_timestamp_ms, self.offset_of_max);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size_bytes as u64;
    }

    /// Kafka's relative offsets are non-negative `int32`s; a batch beyond that begins a new segment there too.
    fn relative(&self, offset: Offset) -> Option<u32> {
        u32::try_from(offset.0.checked_sub(self.base.0)?).ok().filter(|r| *r <= i32::MAX as u32)
    }

    fn push_offset(&mut self, offset: Offset, position: u32) {
        let Some(relative) = self.relative(offset) else { return };
        if self.offsets.last().is_none_or(|(last, at)| *last < relative && *at < position) {
            self.offsets.push((relative, position));
        }
    }

    fn push_time(&mut self, timestamp_ms: i64, offset: Offset) {
        let Some(relative) = self.relative(offset) else { return };
        if self.times.last().map_or(timestamp_ms >= 0, |(last, at)| timestamp_ms > *last && *at <= relative) {
            self.times.push((timestamp_ms, relative));
        }
    }

    /// The segment ends: the time index gets its largest timestamp as last entry. May be called again after more batches.
    pub fn finish(&mut self, max_timestamp_ms: i64, offset_of_max: Offset) {
        self.push_time(max_timestamp_ms, offset_of_max);
    }

    /// Largest timestamp noted, with the last offset of the first batch that has it; (-1, -1) when none was.
    pub fn max_timestamp(&self) -> (i64, Offset) {
        (self.max_timestamp_ms, self.offset_of_max)
    }

    /// A position at or before the batch that holds `offset`: begin to scan there.
    pub fn lookup(&self, offset: Offset) -> u32 {
        let Some(target) = offset.0.checked_sub(self.base.0) else { return 0 };
        let after = self.offsets.partition_point(|(relative, _)| i64::from(*relative) <= target);
        after.checked_sub(1).and_then(|at| self.offsets.get(at)).map_or(0, |(_, position)| *position)
    }

    /// An offset that every batch with a timestamp of `timestamp_ms` or later lies at or after: the last offset of a
    /// batch that is still too early, or the segment's base.
    pub fn lookup_time(&self, timestamp_ms: i64) -> Offset {
        let earlier = self.times.partition_point(|(time, _)| *time < timestamp_ms);
        let entry = earlier.checked_sub(1).and_then(|at| self.times.get(at));
        self.base.plus(entry.map_or(0, |(_, relative)| i64::from(*relative)))
    }

    /// Where to begin to scan for the first batch with a timestamp of `timestamp_ms` or later.
    pub fn position_of_time(&self, timestamp_ms: i64) -> u32 {
        self.lookup(self.lookup_time(timestamp_ms))
    }

    /// Of offsets and of times.
    pub fn entries(&self) -> (u32, u32) {
        (self.offset_entries(), self.time_entries())
    }

    pub fn offset_entries(&self) -> u32 {
        self.offsets.len() as u32
    }

    pub fn time_entries(&self) -> u32 {
        self.times.len() as u32
    }

    /// Relative offset and position, in order.
    pub fn offset_rows(&self) -> &[(u32, u32)] {
        &self.offsets
    }

    /// Timestamp and relative offset, in order.
    pub fn time_rows(&self) -> &[(i64, u32)] {
        &self.times
    }

    /// Size of the larger of the two files, the last time entry included: `segment.index.bytes` bounds each.
    pub fn bytes(&self) -> usize {
        (self.offsets.len() * OFFSET_ENTRY_BYTES).max((self.times.len() + 1) * TIME_ENTRY_BYTES)
    }

    /// Content of `.index`.
    pub fn offset_bytes(&self) -> Vec<u8> {
        self.offset_bytes_from(0)
    }

    /// Content of `.timeindex`.
    pub fn time_bytes(&self) -> Vec<u8> {
        self.time_bytes_from(0)
    }

    /// What is to be appended to an `.index` that holds `persisted` entries.
    pub fn offset_bytes_from(&self, persisted: u32) -> Vec<u8> {
        let rows = self.offsets.get(persisted as usize..).unwrap_or_default();
        let mut out = Vec::with_capacity(rows.len() * OFFSET_ENTRY_BYTES);
        for (relative, position) in rows {
            out.extend_from_slice(&relative.to_be_bytes());
            out.extend_from_slice(&position.to_be_bytes());
        }
        out
    }

    /// What is to be appended to a `.timeindex` that holds `persisted` entries.
    pub fn time_bytes_from(&self, persisted: u32) -> Vec<u8> {
        let rows = self.times.get(persisted as usize..).unwrap_or_default();
        let mut out = Vec::with_capacity(rows.len() * TIME_ENTRY_BYTES);
        for (time, relative) in rows {
            out.extend_from_slice(&time.to_be_bytes());
            out.extend_from_slice(&relative.to_be_bytes());
        }
        out
    }

    /// Reads both files of a segment of `segment_bytes`. Zeros at the end are unused room, as Kafka leaves it while a
    /// segment is active.
    ///
    /// # Errors
    /// [`IndexError`], the first entry that cannot be.
    pub fn load(
        base: Offset,
        interval_bytes: u32,
        offsets: &[u8],
        times: &[u8],
        segment_bytes: u64,
    ) -> Result<SegmentIndex, IndexError> {
        let mut index = SegmentIndex::new(base, interval_bytes);
        index.load_offsets(offsets, segment_bytes)?;
        index.load_times(times)?;
        if let Some((time, relative)) = index.times.last() {
            index.max_timestamp_ms = *time;
            index.offset_of_max = base.plus(i64::from(*relative));
        }
        let covered = index.offsets.last().map_or(0, |(_, position)| u64::from(*position));
        index.bytes_since_entry = segment_bytes.saturating_sub(covered);
        Ok(index)
    }

    fn load_offsets(&mut self, bytes: &[u8], segment_bytes: u64) -> Result<(), IndexError> {
        let used = used_rows::<OFFSET_ENTRY_BYTES>(bytes).ok_or(IndexError::Length("index"))?;
        self.offsets.reserve_exact(used.len() / OFFSET_ENTRY_BYTES);
        for (at, row) in (0..).zip(used.chunks_exact(OFFSET_ENTRY_BYTES)) {
            let (relative, position) = (be_u32(row, 0), be_u32(row, 4));
            if u64::from(position) >= segment_bytes {
                return Err(IndexError::Beyond { at, position });
            }
            let grows =
                self.offsets.last().is_none_or(|(last, before)| *last < relative && *before < position);
            if !grows || relative > i32::MAX as u32 {
                return Err(IndexError::Order { file: "index", at });
            }
            self.offsets.push((relative, position));
        }
        Ok(())
    }

    fn load_times(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        let used = used_rows::<TIME_ENTRY_BYTES>(bytes).ok_or(IndexError::Length("timeindex"))?;
        self.times.reserve_exact(used.len() / TIME_ENTRY_BYTES);
        for (at, row) in (0..).zip(used.chunks_exact(TIME_ENTRY_BYTES)) {
            let time = crate::format::array(row, 0).map_or(-1, i64::from_be_bytes);
            let relative = be_u32(row, 8);
            let grows =
                self.times.last().map_or(time >= 0, |(last, before)| *last < time && *before <= relative);
            if !grows || relative > i32::MAX as u32 {
                return Err(IndexError::Order { file: "timeindex", at });
            }
            self.times.push((time, relative));
        }
        Ok(())
    }
}

fn be_u32(row: &[u8], at: usize) -> u32 {
    crate::format::array(row, at).map_or(u32::MAX, u32::from_be_bytes)
}

/// The rows before the zeros at the end; a first row of zeros counts when it stands alone. `None`: not whole rows.
fn used_rows<const ROW: usize>(bytes: &[u8]) -> Option<&[u8]> {
    if !bytes.len().is_multiple_of(ROW) {
        return None;
    }
    if bytes.len() == ROW {
        return Some(bytes);
    }
    let used = bytes
        .chunks_exact(ROW)
        .rposition(|row| row.iter().any(|b| *b != 0))
        .map_or(0, |last| (last + 1) * ROW);
    bytes.get(..used)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::BatchSpec;
    use proptest::prelude::*;

    /// An index over batches of (records, timestamp, payload bytes), with where each batch lies.
    fn built(
        base: i64,
        interval: u32,
        batches: &[(i32, i64, usize)],
    ) -> (SegmentIndex, Vec<(u32, BatchHeader)>) {
        let mut index = SegmentIndex::new(Offset(base), interval);
        let mut placed = Vec::new();
        let (mut position, mut offset) = (0u32, base);
        for (records, timestamp_ms, payload_bytes) in batches {
            let spec = BatchSpec {
                base_offset: offset,
                records: *records,
                timestamp_ms: *timestamp_ms,
                payload_bytes: *payload_bytes,
                ..BatchSpec::default()
            };
            let header = spec.header();
            index.append(&header, position);
            placed.push((position, header));
            position += header.size_bytes as u32;
            offset += i64::from(*records);
        }
        (index, placed)
    }

    #[test]
    fn entries_come_when_the_interval_is_passed() {
        let (index, placed) = built(100, 150, &[(1, 10, 39), (2, 30, 39), (3, 20, 39), (1, 40, 39)]);
        // 100 bytes each: 200 > 150 before the third batch, then 100 again before the fourth.
        assert_eq!(index.offset_rows(), [(5, placed[2].0)], "the last offset of the third batch");
        assert_eq!(index.time_rows(), [(30, 2)], "the largest timestamp so far, and its batch's last offset");
        assert_eq!(index.max_timestamp(), (40, Offset(106)));
        assert_eq!(index.offset_bytes(), [0, 0, 0, 5, 0, 0, 0, 200]);
    }

    #[test]
    fn the_time_index_ends_with_the_largest_timestamp() {
        let (mut index, _) = built(0, 1000, &[(1, 50, 9), (1, 20, 9)]);
        let (max, at) = index.max_timestamp();
        index.finish(max, at);
        index.finish(max, at);
        assert_eq!(index.time_rows(), [(50, 0)]);
        let mut empty = SegmentIndex::new(Offset(0), 10);
        empty.finish(-1, Offset(-1));
        assert_eq!(empty.time_entries(), 0, "a segment without timestamps has no time entries");
    }

    #[test]
    fn offsets_beyond_an_int_get_no_entry() {
        let mut index = SegmentIndex::new(Offset(0), 0);
        let near = BatchSpec { base_offset: 5, ..BatchSpec::default() }.header();
        let far = BatchSpec { base_offset: i64::from(i32::MAX) + 1, ..BatchSpec::default() }.header();
        index.append(&near, 0);
        index.append(&far, 91);
        assert_eq!(index.offset_entries(), 0);
    }

    #[test]
    fn unused_room_at_the_end_is_passed_over() {
        let (index, _) = built(0, 100, &[(1, 5, 100), (1, 6, 100), (1, 7, 100)]);
        let mut offsets = index.offset_bytes();
        let mut times = index.time_bytes();
        offsets.resize(offsets.len() + 800, 0);
        times.resize(times.len() + 1200, 0);
        let loaded = SegmentIndex::load(Offset(0), 100, &offsets, &times, 483).unwrap();
        assert_eq!(loaded.offset_rows(), index.offset_rows());
        assert_eq!(loaded.time_rows(), index.time_rows());
    }

    #[test]
    fn bad_files_are_refused() {
        let load = |offsets: &[u8], times: &[u8]| SegmentIndex::load(Offset(0), 100, offsets, times, 1000);
        let entry = |offset: u32, position: u32| [offset.to_be_bytes(), position.to_be_bytes()].concat();
        assert_eq!(load(&[1; 9], &[]), Err(IndexError::Length("index")));
        assert_eq!(load(&[], &[1; 11]), Err(IndexError::Length("timeindex")));
        assert_eq!(load(&entry(1, 1000), &[]), Err(IndexError::Beyond { at: 0, position: 1000 }));
        let turned = [entry(5, 10), entry(4, 20)].concat();
        assert_eq!(load(&turned, &[]), Err(IndexError::Order { file: "index", at: 1 }));
        let same = [entry(5, 10), entry(6, 10)].concat();
        assert_eq!(load(&same, &[]), Err(IndexError::Order { file: "index", at: 1 }));
        let negative = [(-5i64).to_be_bytes().to_vec(), 1u32.to_be_bytes().to_vec()].concat();
        assert_eq!(load(&[], &negative), Err(IndexError::Order { file: "timeindex", at: 0 }));
    }

    proptest! {
        #[test]
        fn lookups_never_pass_what_is_asked_for(
            base in 0i64..1_000_000, interval in 0u32..500,
            batches in proptest::collection::vec((1i32..20, 0i64..1000, 0usize..300), 1..80),
        ) {
            let (mut index, placed) = built(base, interval, &batches);
            let (max, at) = index.max_timestamp();
            index.finish(max, at);
            for (position, header) in &placed {
                for offset in [header.base_offset, header.last_offset()] {
                    prop_assert!(index.lookup(offset) <= *position);
                }
                // Between two entries lie at most the interval and the batch that passed it.
                let first_later = placed.iter().find(|(_, h)| h.max_timestamp_ms >= header.max_timestamp_ms).unwrap();
                prop_assert!(index.position_of_time(header.max_timestamp_ms) <= first_later.0);
                prop_assert!(index.lookup_time(header.max_timestamp_ms) <= first_later.1.base_offset);
            }
            prop_assert_eq!(index.time_rows().last().map(|(t, o)| (*t, base + i64::from(*o))), Some((max, at.0)));
            let end = placed.last().map(|(p, h)| u64::from(*p) + h.size_bytes as u64).unwrap();
            let loaded = SegmentIndex::load(Offset(base), interval, &index.offset_bytes(), &index.time_bytes(), end).unwrap();
            prop_assert_eq!(loaded.offset_rows(), index.offset_rows());
            prop_assert_eq!(loaded.time_rows(), index.time_rows());
            let half = index.offset_entries() / 2;
            let whole = [index.offset_bytes()[..half as usize * 8].to_vec(), index.offset_bytes_from(half)].concat();
            prop_assert_eq!(whole, index.offset_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            offsets in proptest::collection::vec(any::<u8>(), 0..400), times in proptest::collection::vec(any::<u8>(), 0..400),
            base: i64, size: u64, ask: i64,
        ) {
            let offsets = &offsets[..offsets.len() / 8 * 8];
            let times = &times[..times.len() / 12 * 12];
            if let Ok(index) = SegmentIndex::load(Offset(base), 4096, offsets, times, size) {
                let _ = (index.lookup(Offset(ask)), index.lookup_time(ask), index.position_of_time(ask));
            }
        }
    }
}
