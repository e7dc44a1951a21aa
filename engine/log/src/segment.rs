//! Segment files: names, and walking the batches in them.
//!
//! A segment is Kafka's `.log`: record batches one after another, nothing else. While it is the active one its file is
//! longer than its batches (room allocated ahead, a zero-padded last page), so whoever walks it must know or find its
//! end. Reads only; never repairs.

use crate::index::SegmentIndex;
use crate::partition::segment_path;
use ringmill_reactor::{FileHandle, Fs};
use ringmill_record::batch::{CRC_FROM, HEADER_BYTES};
use ringmill_record::{BatchError, BatchHeader};
use ringmill_types::Offset;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// One read while walking. A batch larger than this gets a buffer of its own size.
const READ_BYTES: usize = 1 << 20;

/// Files that belong to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentFile {
    Log,
    Index,
    TimeIndex,
}

impl SegmentFile {
    pub fn extension(self) -> &'static str {
        match self {
            SegmentFile::Log => "log",
            SegmentFile::Index => "index",
            SegmentFile::TimeIndex => "timeindex",
        }
    }
}

/// `00000000000000000042.log`.
pub fn file_name(base: Offset, file: SegmentFile) -> String {
    format!("{:020}.{}", base.0, file.extension())
}

/// The base offset and the kind behind a file name; `None` for anything that is not exactly Kafka's form.
pub fn parse_file_name(name: &str) -> Option<(Offset, SegmentFile)> {
    let (stem, extension) = name.split_once('.')?;
    let file = match extension {
        "log" => SegmentFile::Log,
        "index" => SegmentFile::Index,
        "timeindex" => SegmentFile::TimeIndex,
        _ => return None,
    };
    if stem.len() != 20 || !stem.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    stem.parse().ok().map(|base| (Offset(base), file))
}

/// Checks that the batch at the start of `bytes` is what was once written: size, magic, CRC32C, a sane offset range.
///
/// Unlike [`ringmill_record::validate_batch`] it does not ask what a producer may send: compaction leaves batches whose
/// count is below their offset range, and control batches have fields of their own.
///
/// # Errors
/// [`BatchError`], as `validate_batch` gives it.
pub fn check_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    match BatchHeader::magic_of(bytes) {
        None => return Err(BatchError::Truncated),
        Some(2) => {}
        Some(magic @ 0..=1) => return Err(BatchError::OldFormat(magic)),
        Some(magic) => return Err(BatchError::UnknownMagic(magic)),
    }
    let header = BatchHeader::parse(bytes).ok_or(BatchError::Truncated)?;
    let covered = bytes.get(CRC_FROM..header.size_bytes).ok_or(BatchError::Truncated)?;
    if crc32c::crc32c(covered) != header.crc {
        return Err(BatchError::Crc);
    }
    if !is_range_sane(&header) {
        return Err(BatchError::Count);
    }
    Ok(header)
}

fn is_range_sane(header: &BatchHeader) -> bool {
    let end =
        header.base_offset.0.checked_add(i64::from(header.last_offset_delta)).and_then(|l| l.checked_add(1));
    header.base_offset.0 >= 0 && header.last_offset_delta >= 0 && header.record_count >= 0 && end.is_some()
}

/// How closely [`scan`] looks at each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Sizes, magic and offsets: enough to find batches in a file that is trusted.
    Headers,
    /// The CRC too.
    Crc,
    /// And that every offset lies below this one: a batch's base offset is outside its CRC.
    CrcBelow(Offset),
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanStop {
    /// Every byte belongs to a batch.
    End,
    /// Only zeros follow: room allocated ahead, or a zero-padded page.
    Zeros,
    /// A batch begins and the bytes end within it.
    Torn,
    /// What follows is no batch.
    Damaged(BatchError),
    /// A whole batch whose offsets do not follow the one before it.
    OutOfOrder { base: Offset, expected: Offset },
    /// A whole batch whose offsets belong to a later segment, or to none.
    Beyond { base: Offset, bound: Offset },
}

/// Relative offsets of a segment fit 31 bits, as Kafka's indexes have it; none of its offsets reaches this one.
pub fn offsets_end(base: Offset) -> Offset {
    Offset(base.0.saturating_add(i64::from(i32::MAX) + 1))
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// End of the last whole batch: `from` when there was none.
    pub end: u64,
    pub batches: u64,
    /// Offset after the last batch.
    pub next_offset: Option<Offset>,
    pub stop: ScanStop,
}

/// Walks the batches in bytes `from..to` of a file, in order, with large reads, and shows each to `visit`.
///
/// Stops at the first thing that is not a good batch; that is a result, not an error.
///
/// # Errors
/// Reads that fail. A file shorter than `to` is no error: it ends there.
pub fn scan(
    fs: &dyn Fs,
    file: &FileHandle,
    from: u64,
    to: u64,
    verify: Verify,
    mut visit: impl FnMut(&BatchHeader, u64, &[u8]),
) -> io::Result<Scanned> {
    let to = to.min(fs.len(file)?);
    let mut reader = Reader { fs, file, to, start: from, bytes: Vec::new() };
    let mut found = Scanned { end: from, batches: 0, next_offset: None, stop: ScanStop::End };
    loop {
        let left = to.saturating_sub(found.end);
        if left == 0 {
            found.stop = ScanStop::End;
            return Ok(found);
        }
        match look(&mut reader, found.end, left, found.next_offset, verify)? {
            Ok(header) => {
                visit(&header, found.end, reader.held(found.end, header.size_bytes));
                found.end += header.size_bytes as u64;
                found.next_offset = Some(header.next_offset());
                found.batches += 1;
            }
            Err(stop) => {
                found.stop = stop;
                return Ok(found);
            }
        }
    }
}

fn look(
    reader: &mut Reader<'_>,
    at: u64,
    left: u64,
    expected: Option<Offset>,
    verify: Verify,
) -> io::Result<Result<BatchHeader, ScanStop>> {
    let head = reader.get(at, HEADER_BYTES)?;
    let parsed = match (head.len() == HEADER_BYTES).then(|| BatchHeader::parse(head)).flatten() {
        Some(header) => header,
        None if head.iter().all(|b| *b == 0) => return Ok(Err(reader.zeros_or_torn(at)?)),
        None if head.len() < HEADER_BYTES => return Ok(Err(ScanStop::Torn)),
        None => return Ok(Err(ScanStop::Damaged(BatchError::Truncated))),
    };
    // The magic first: a length read from something that is no batch means nothing.
    if parsed.magic != 2 {
        let what =
            if (0..2).contains(&parsed.magic) { BatchError::OldFormat } else { BatchError::UnknownMagic };
        return Ok(Err(ScanStop::Damaged(what(parsed.magic))));
    }
    if parsed.size_bytes as u64 > left {
        return Ok(Err(ScanStop::Torn));
    }
    if !is_range_sane(&parsed) {
        return Ok(Err(ScanStop::Damaged(BatchError::Count)));
    }
    let batch = reader.get(at, parsed.size_bytes)?;
    if batch.len() < parsed.size_bytes {
        return Ok(Err(ScanStop::Torn));
    }
    if verify != Verify::Headers
        && let Err(error) = check_batch(batch)
    {
        return Ok(Err(ScanStop::Damaged(error)));
    }
    if let Verify::CrcBelow(bound) = verify
        && parsed.next_offset() > bound
    {
        return Ok(Err(ScanStop::Beyond { base: parsed.base_offset, bound }));
    }
    match expected {
        Some(expected) if parsed.base_offset < expected => {
            Ok(Err(ScanStop::OutOfOrder { base: parsed.base_offset, expected }))
        }
        Some(_) | None => Ok(Ok(parsed)),
    }
}

/// A stretch of the file in memory.
struct Reader<'a> {
    fs: &'a dyn Fs,
    file: &'a FileHandle,
    to: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// Bytes at `at`, up to `len`; fewer only at the end.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let held_to = self.start + self.bytes.len() as u64;
        let want_to = (at + len as u64).min(self.to);
        if at < self.start || want_to > held_to {
            let size = (want_to - at).max((READ_BYTES as u64).min(self.to - at)) as usize;
            self.bytes.resize(size, 0);
            let got = self.fs.read_at(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(got);
            self.start = at;
        }
        Ok(self.held(at, len))
    }

    fn held(&self, at: u64, len: usize) -> &[u8] {
        let from = at.saturating_sub(self.start) as usize;
        let to = from.saturating_add(len).min(self.bytes.len());
        self.bytes.get(from..to).unwrap_or_default()
    }

    fn zeros_or_torn(&mut self, mut at: u64) -> io::Result<ScanStop> {
        while at < self.to {
            let bytes = self.get(at, READ_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|b| *b != 0) {
                return Ok(ScanStop::Damaged(BatchError::Truncated));
            }
            at += bytes.len() as u64;
        }
        Ok(ScanStop::Zeros)
    }
}

/// Where the indexes of a segment come from when they are needed in memory.
pub(crate) struct IndexSource {
    pub dir: PathBuf,
    pub base: Offset,
    pub bytes: u64,
    pub interval_bytes: u32,
    pub sealed: bool,
    /// Of an active one: how many entries of offsets and of times an orderly stop left beside it.
    pub left: Option<(u32, u32)>,
}

impl IndexSource {
    /// The indexes beside a segment that is sealed, or was left by an orderly stop; else fresh ones from its batches, which is
    /// to read all of it: after a crash the active segment has none, or those of an earlier stop.
    pub fn load(&self, fs: &dyn Fs, log: &FileHandle) -> io::Result<SegmentIndex> {
        if let Some(index) = self.beside(fs) {
            return Ok(index);
        }
        rebuild_index(fs, log, self.base, self.interval_bytes, self.bytes)
    }

    fn beside(&self, fs: &dyn Fs) -> Option<SegmentIndex> {
        if !self.sealed && self.left.is_none() {
            return None;
        }
        let read = |extension| fs.read_all(&segment_path(&self.dir, self.base, extension)).ok();
        let (offsets, times) = (read("index")?, read("timeindex")?);
        let index = SegmentIndex::load(self.base, self.interval_bytes, &offsets, &times, self.bytes).ok()?;
        self.left.is_none_or(|left| left == index.entries()).then_some(index)
    }
}

/// The indexes that the first `bytes` of a segment file should have, from its batches alone.
///
/// # Errors
/// Reads that fail, and `InvalidData` when the batches end before `bytes`.
pub fn rebuild_index(
    fs: &dyn Fs,
    file: &FileHandle,
    base: Offset,
    interval_bytes: u32,
    bytes: u64,
) -> io::Result<SegmentIndex> {
    let mut index = SegmentIndex::new(base, interval_bytes);
    let found = scan(fs, file, 0, bytes, Verify::Headers, |header, position, _| {
        index.append(header, u32::try_from(position).unwrap_or(u32::MAX));
    })?;
    if found.end != bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("segment {:020}.log: batches end at byte {}, {bytes} expected", base.0, found.end),
        ));
    }
    Ok(index)
}

/// Shows every good batch behind a damaged one at `from`: the next that its length leads to, or that an index position
/// in `hints` (growing) names, and whose offsets lie within `offsets`. Returns the end of the last one found, `from` when
/// there was none.
///
/// # Errors
/// Reads that fail, and whatever `visit` gives.
pub fn salvage(
    fs: &dyn Fs,
    file: &FileHandle,
    from: u64,
    to: u64,
    offsets: Range<Offset>,
    hints: &[u64],
    mut visit: impl FnMut(&BatchHeader, u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut end = from;
    let mut expected = offsets.start;
    let mut at = next_candidate(fs, file, from, to, hints)?;
    while let Some(place) = at {
        let mut failed = None;
        let found = scan(fs, file, place, to, Verify::CrcBelow(offsets.end), |header, position, batch| {
            // A stale batch that happens to be whole must not turn offsets back.
            if failed.is_none() && header.base_offset >= expected {
                expected = header.next_offset();
                end = position + header.size_bytes as u64;
                failed = visit(header, position, batch).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if matches!(found.stop, ScanStop::End | ScanStop::Zeros) {
            break;
        }
        at = next_candidate(fs, file, found.end, to, hints)?;
    }
    Ok(end)
}

/// Where a good batch may begin after the bad one at `at`: always further on.
fn next_candidate(
    fs: &dyn Fs,
    file: &FileHandle,
    at: u64,
    to: u64,
    hints: &[u64],
) -> io::Result<Option<u64>> {
    let mut head = [0; HEADER_BYTES];
    let got = fs.read_at(file, &mut head, at)?;
    let by_length = BatchHeader::parse(head.get(..got).unwrap_or_default())
        .filter(|h| h.magic == 2)
        .map(|h| at + h.size_bytes as u64)
        .filter(|next| *next < to);
    let by_index = hints.get(hints.partition_point(|h| *h <= at)).copied().filter(|next| *next < to);
    let Some(next) = by_length else { return Ok(by_index) };
    // A damaged length may point anywhere: believe it only when a good batch is there.
    let mut reader = Reader { fs, file, to, start: next, bytes: Vec::new() };
    let is_good = look(&mut reader, next, to - next, None, Verify::Crc)?.is_ok();
    Ok(if is_good { Some(next) } else { by_index })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::BatchSpec;
    use proptest::prelude::*;
    use ringmill_reactor::OpenMode;
    use ringmill_reactor::stdfs::StdFs;
    use std::io::Write;

    fn batches(sizes: &[usize]) -> Vec<Vec<u8>> {
        let spec = |(at, payload_bytes): (usize, &usize)| BatchSpec {
            base_offset: at as i64 * 2,
            records: 2,
            payload_bytes: *payload_bytes,
            ..BatchSpec::default()
        };
        sizes.iter().enumerate().map(|pair| spec(pair).bytes()).collect()
    }

    fn file_of(bytes: &[u8]) -> (tempfile::NamedTempFile, FileHandle) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let handle = StdFs.open(file.path(), OpenMode::Read).unwrap();
        (file, handle)
    }

    fn scanned(bytes: &[u8], verify: Verify) -> (Vec<(u64, i64)>, Scanned) {
        let (_file, handle) = file_of(bytes);
        let mut seen = Vec::new();
        let found = scan(&StdFs, &handle, 0, u64::MAX, verify, |header, position, batch| {
            assert_eq!(batch.len(), header.size_bytes);
            seen.push((position, header.base_offset.0));
        });
        (seen, found.unwrap())
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(Offset(42), SegmentFile::TimeIndex), "00000000000000000042.timeindex");
        assert_eq!(parse_file_name("00000000000000000042.log"), Some((Offset(42), SegmentFile::Log)));
        for other in [
            "42.log",
            "0000000000000000004x.log",
            "00000000000000000042.log.deleted",
            "00000000000000000042",
            "000.log",
            "99999999999999999999.log",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn batches_larger_than_a_read_are_whole() {
        let parts = batches(&[10, READ_BYTES * 2, 10, READ_BYTES - 100, 200]);
        let (seen, found) = scanned(&parts.concat(), Verify::Crc);
        assert_eq!(seen.len(), 5);
        assert_eq!(found.stop, ScanStop::End);
        assert_eq!(found.next_offset, Some(Offset(10)));
    }

    #[test]
    fn ends_are_told_apart() {
        let parts = batches(&[100, 200]);
        let whole = parts.concat();
        let stop = |bytes: &[u8]| scanned(bytes, Verify::Crc).1;
        let after = whole.len() as u64;
        let padded = [whole.clone(), vec![0; 5000]].concat();
        assert_eq!((stop(&padded).stop, stop(&padded).end), (ScanStop::Zeros, after));
        let short_zeros = [whole.clone(), vec![0; 7]].concat();
        assert_eq!(stop(&short_zeros).stop, ScanStop::Zeros);
        let torn = &whole[..whole.len() - 1];
        assert_eq!((stop(torn).stop, stop(torn).end), (ScanStop::Torn, parts[0].len() as u64));
        let torn_header = [whole.clone(), parts[1][..30].to_vec()].concat();
        assert_eq!(stop(&torn_header).stop, ScanStop::Torn);
        let again = [whole.clone(), parts[0].clone()].concat();
        assert_eq!(stop(&again).stop, ScanStop::OutOfOrder { base: Offset(0), expected: Offset(4) });
        let mut flipped = whole.clone();
        flipped[parts[0].len() + 100] ^= 1;
        assert_eq!(stop(&flipped).stop, ScanStop::Damaged(BatchError::Crc));
        assert_eq!(scanned(&flipped, Verify::Headers).1.stop, ScanStop::End, "headers only: not looked at");
        let mut old = whole;
        old[16] = 1;
        assert_eq!(stop(&old).stop, ScanStop::Damaged(BatchError::OldFormat(1)));
    }

    #[test]
    fn zeros_before_more_bytes_are_damage() {
        let bytes = [vec![0; 200], vec![1]].concat();
        assert_eq!(scanned(&bytes, Verify::Crc).1.stop, ScanStop::Damaged(BatchError::Truncated));
    }

    fn salvaged(bytes: &[u8], hints: &[u64]) -> Vec<i64> {
        let (_file, handle) = file_of(bytes);
        let first = scan(&StdFs, &handle, 0, u64::MAX, Verify::Crc, |_, _, _| {}).unwrap();
        let mut seen = Vec::new();
        let expected = first.next_offset.unwrap_or_default();
        let len = bytes.len() as u64;
        let offsets = expected..Offset(i64::MAX);
        let end = salvage(&StdFs, &handle, first.end, len, offsets, hints, |header, position, batch| {
            assert_eq!(check_batch(batch).unwrap(), *header);
            seen.push((header.base_offset.0, position));
            Ok(())
        });
        assert!(end.unwrap() <= len);
        seen.into_iter().map(|(base, _)| base).collect()
    }

    #[test]
    fn good_batches_behind_damage_are_found() {
        let parts = batches(&[50, 60, 70, 80, 90]);
        let starts: Vec<usize> =
            parts.iter().scan(0, |at, p| Some(std::mem::replace(at, *at + p.len()))).collect();
        let mut payload = parts.concat();
        payload[starts[1] + 100] ^= 1;
        assert_eq!(salvaged(&payload, &[]), [4, 6, 8], "by the damaged batch's length");
        let mut length = parts.concat();
        length[starts[1] + 9] = 0xff;
        assert_eq!(salvaged(&length, &[]), [0i64; 0]);
        assert_eq!(salvaged(&length, &[starts[3] as u64]), [6, 8], "by the index");
        let mut both = payload;
        both[starts[3] + 70] ^= 1;
        assert_eq!(salvaged(&both, &[]), [4, 8]);
    }

    /// A base offset is outside the CRC: without a bound a flipped bit in it would be believed.
    #[test]
    fn an_offset_of_another_segment_ends_a_walk() {
        let parts = batches(&[50, 60, 70]);
        let end = batch_end(&parts);
        let mut bytes = parts.concat();
        bytes[parts[0].len()] ^= 0x40;
        let (_file, handle) = file_of(&bytes);
        let walk = |verify| scan(&StdFs, &handle, 0, u64::MAX, verify, |_, _, _| {}).unwrap();
        assert_eq!(walk(Verify::Crc).batches, 2);
        let found = walk(Verify::CrcBelow(end));
        assert_eq!((found.batches, found.end), (1, parts[0].len() as u64));
        assert!(matches!(found.stop, ScanStop::Beyond { bound, .. } if bound == end), "{:?}", found.stop);
        let mut seen = Vec::new();
        let offsets = found.next_offset.unwrap()..end;
        salvage(&StdFs, &handle, found.end, bytes.len() as u64, offsets, &[], |header, _, _| {
            seen.push(header.base_offset);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [Offset(4)], "the batch behind it is kept");
        let whole = parts.concat();
        let (_file, handle) = file_of(&whole);
        let found = scan(&StdFs, &handle, 0, u64::MAX, Verify::CrcBelow(end), |_, _, _| {}).unwrap();
        assert_eq!((found.stop, found.batches), (ScanStop::End, 3), "the last offset is within the bound");
    }

    fn batch_end(parts: &[Vec<u8>]) -> Offset {
        BatchHeader::parse(parts.last().unwrap()).unwrap().next_offset()
    }

    #[test]
    fn an_index_is_rebuilt_only_over_whole_batches() {
        let parts = batches(&[500; 20]);
        let (_file, handle) = file_of(&[parts.concat(), vec![0; 4096]].concat());
        let bytes = parts.iter().map(|p| p.len() as u64).sum::<u64>();
        let index = rebuild_index(&StdFs, &handle, Offset(0), 1000, bytes).unwrap();
        assert_eq!(index.offset_entries(), 9);
        let error = rebuild_index(&StdFs, &handle, Offset(0), 1000, bytes - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = rebuild_index(&StdFs, &handle, Offset(0), 1000, bytes + 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "padding is no batch");
    }

    #[test]
    fn an_index_beside_a_segment_counts_where_it_is_known_to_be_whole() {
        let parts = batches(&[500; 20]);
        let (_file, handle) = file_of(&parts.concat());
        let bytes = parts.iter().map(|p| p.len() as u64).sum::<u64>();
        let rebuilt = rebuild_index(&StdFs, &handle, Offset(0), 1000, bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Without the last entry: an earlier stop left it.
        let mut older = SegmentIndex::new(Offset(0), 1000);
        scan(&StdFs, &handle, 0, bytes - 2000, Verify::Headers, |header, position, _| {
            older.append(header, position as u32);
        })
        .unwrap();
        assert!(older.entries() < rebuilt.entries());
        for (extension, content) in [("index", older.offset_bytes()), ("timeindex", older.time_bytes())] {
            std::fs::write(segment_path(dir.path(), Offset(0), extension), content).unwrap();
        }
        let load = |sealed, left| {
            let base = Offset(0);
            let dir = dir.path().to_path_buf();
            let source = IndexSource { dir, base, bytes, interval_bytes: 1000, sealed, left };
            source.load(&StdFs, &handle).unwrap().entries()
        };
        assert_eq!(load(true, None), older.entries());
        assert_eq!(load(false, Some(older.entries())), older.entries());
        assert_eq!(load(false, Some(rebuilt.entries())), rebuilt.entries(), "not what the stop left");
        assert_eq!(load(false, None), rebuilt.entries(), "after a crash");
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(
            sizes in proptest::collection::vec(0usize..400, 0..12), junk in proptest::collection::vec(any::<u8>(), 0..300),
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6), hints in proptest::collection::vec(0u64..4000, 0..5),
        ) {
            let mut bytes = [batches(&sizes).concat(), junk].concat();
            for (at, byte) in flips {
                let len = bytes.len();
                if len > 0 {
                    bytes[at % len] = byte;
                }
            }
            let mut hints = hints;
            hints.sort_unstable();
            for verify in [Verify::Headers, Verify::Crc] {
                let (seen, found) = scanned(&bytes, verify);
                prop_assert!(found.end <= bytes.len() as u64);
                prop_assert_eq!(seen.len() as u64, found.batches);
            }
            let seen = salvaged(&bytes, &hints);
            prop_assert!(seen.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
