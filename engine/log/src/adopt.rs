//! Partition folders that someone put in place: written by Kafka, served from now on.
//!
//! Owns the reading of a whole partition folder into a [`PartitionState`]; names and small files are in [`folders`]. Every batch of every segment is read and its CRC checked before a byte is served. Segments stay
//! as they are, byte for byte; only an index that is missing or wrong is written anew, and a torn last batch is cut off,
//! as Kafka does when it starts after a crash.
//!
//! Decided, and tested:
//! - Committed transactions and their control batches are kept and served as they are; clients skip control batches.
//! - Open transactions are refused: here the last stable offset is the high watermark, so `read_committed` would show
//!   records that nobody committed.
//! - Aborted transactions are refused for the same reason: fetch answers here name no aborted transactions.
//! - Message formats 0 and 1, a half-done swap (`.swap`) and a gap or overlap between segments are refused.
//! - Partition numbers that are missing between those found are made empty, so that keys keep their partitions.
//! - `.snapshot`, `.txnindex`, `.deleted` and `.cleaned` files are left alone and not read: producer state comes from
//!   the batches.

pub mod folders;

pub use folders::{
    FoundFolder, FoundTopic, find_folders, group_topics, parse_folder_name, parse_partition_metadata,
    partition_metadata_text, read_epochs, read_partition_metadata,
};

use crate::epochs::EpochCache;
use crate::format::checkpoint::{PartitionState, SegmentState};
use crate::index::{INDEX_BYTES_MAX, SegmentIndex};
use crate::producer::ProducerTable;
use crate::segment::{self, ScanStop, SegmentFile, Verify};
use ringmill_reactor::unfit::At;
use ringmill_reactor::{FileHandle, Fs, OpenMode};
use ringmill_record::{BatchHeader, Records};
use ringmill_types::limits::PARTITIONS_MAX;
use ringmill_types::{Offset, PartitionId};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub const METADATA_NAME: &str = "partition.metadata";
pub const EPOCHS_NAME: &str = "leader-epoch-checkpoint";

/// Why a folder is not served. Each sentence says what to do.
#[derive(Debug)]
pub enum AdoptError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// `partition.metadata` or `leader-epoch-checkpoint` cannot be read.
    Text {
        path: PathBuf,
        what: String,
    },
    /// A segment holds what is no good batch.
    Damaged {
        path: PathBuf,
        position: u64,
        what: String,
    },
    /// One segment does not begin where the one before it ends, or later.
    Overlap {
        path: PathBuf,
        base: Offset,
        expected: Offset,
    },
    OldFormat {
        path: PathBuf,
        magic: i8,
    },
    HalfSwapped {
        path: PathBuf,
    },
    OpenTransaction {
        dir: PathBuf,
        producer: i64,
        first: Offset,
    },
    AbortedTransaction {
        dir: PathBuf,
        producer: i64,
        first: Offset,
    },
    /// Folders of one topic name two topic ids.
    TwoTopicIds {
        dir: PathBuf,
        other: PathBuf,
    },
    /// The number in the folder's name is beyond what a node holds.
    PartitionNumber {
        dir: PathBuf,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::Io { path, error } => At(path, error).fmt(f),
            AdoptError::Text { path, what } => {
                write!(f, "{}: {what}. Copy the file again from the Kafka broker", path.display())
            }
            AdoptError::Damaged { path, position, what } => write!(
                f,
                "{}: no good batch at byte {position}: {what}. Copy the folder again from a Kafka broker that was stopped cleanly",
                path.display()
            ),
            AdoptError::Overlap { path, base, expected } => write!(
                f,
                "{}: begins with offset {base}, but the segment before it ends at {expected}. Copy the folder again while Kafka is stopped",
                path.display()
            ),
            AdoptError::OldFormat { path, magic } => write!(
                f,
                "{}: holds batches of message format {magic}. Let Kafka rewrite the topic in format 2 (mirror it to a new topic), then copy that",
                path.display()
            ),
            AdoptError::HalfSwapped { path } => write!(
                f,
                "{}: Kafka was stopped in the middle of swapping segments. Start Kafka on this folder once, stop it cleanly, then copy it",
                path.display()
            ),
            AdoptError::OpenTransaction { dir, producer, first } => write!(
                f,
                "{}: producer {producer} has a transaction open since offset {first}. Let it end, or abort it with kafka-transactions.sh, then copy the folder",
                dir.display()
            ),
            AdoptError::AbortedTransaction { dir, producer, first } => write!(
                f,
                "{}: holds an aborted transaction of producer {producer} from offset {first}, which read_committed consumers would see here. \
                 Mirror the topic with a read_committed consumer instead of copying the folder",
                dir.display()
            ),
            AdoptError::TwoTopicIds { dir, other } => write!(
                f,
                "{} and {} are named like one topic, but their partition.metadata have different topic ids. \
                 Take away the one that does not belong here",
                dir.display(),
                other.display()
            ),
            AdoptError::PartitionNumber { dir } => {
                write!(
                    f,
                    "{}: a node holds at most {PARTITIONS_MAX} partitions. Take the folder away",
                    dir.display()
                )
            }
        }
    }
}

impl std::error::Error for AdoptError {}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AdoptError + '_ {
    move |error| AdoptError::Io { path: path.to_path_buf(), error }
}

/// Reads a partition folder into the state a checkpoint would hold of it; `None` when it has no segment at all.
///
/// All its segments come back sealed, so that what is appended later goes to files of our own.
///
/// # Errors
/// [`AdoptError`]. Nothing was changed then.
pub fn adopt(
    fs: &dyn Fs,
    dir: &Path,
    id: PartitionId,
    index_interval_bytes: u32,
) -> Result<Option<PartitionState>, AdoptError> {
    let bases = segment_bases(fs, dir)?;
    if bases.is_empty() {
        return Ok(None);
    }
    let name = dir.file_name().and_then(|n| n.to_str()).and_then(parse_folder_name);
    let (topic, index) = name.ok_or_else(|| AdoptError::Text {
        path: dir.to_path_buf(),
        what: "the folder is not named TOPIC-N".to_string(),
    })?;
    let mut reading = Reading::new(dir, index_interval_bytes);
    for (at, base) in bases.iter().enumerate() {
        reading.segment(fs, *base, at + 1 == bases.len())?;
    }
    reading.check_transactions()?;
    let log_start = bases.first().copied().unwrap_or_default();
    let mut epochs = read_epochs(fs, dir)?.unwrap_or(reading.seen_epochs);
    epochs.truncate_end(reading.next_offset);
    epochs.truncate_start(log_start);
    let repairs = reading.repairs;
    for repair in repairs {
        repair.run(fs, dir)?;
    }
    Ok(Some(PartitionState {
        id: id.0,
        topic: topic.to_string(),
        topic_id: read_partition_metadata(fs, dir)?.unwrap_or_default().0,
        index,
        log_start: log_start.0,
        next_offset: reading.next_offset.0,
        epochs: epochs.entries().iter().map(|(e, s)| (e.0, s.0)).collect(),
        max_timestamp_ms: reading.segments.iter().map(|s| s.max_timestamp_ms).max().unwrap_or(-1),
        segments: reading.segments,
        producers: reading.producers.snapshot(Offset(i64::MAX)),
    }))
}

fn segment_bases(fs: &dyn Fs, dir: &Path) -> Result<Vec<Offset>, AdoptError> {
    let mut bases = Vec::new();
    for entry in fs.list(dir).map_err(at(dir))?.into_iter().filter(|e| !e.is_dir) {
        if entry.name.ends_with(".swap") {
            return Err(AdoptError::HalfSwapped { path: dir.join(entry.name) });
        }
        if let Some((base, SegmentFile::Log)) = segment::parse_file_name(&entry.name) {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// What is put right once the whole folder proved good.
enum Repair {
    /// Cut off a torn last batch.
    Cut { base: Offset, bytes: u64 },
    /// Write both indexes of a segment.
    Index { base: Offset, index: Box<SegmentIndex> },
}

impl Repair {
    fn run(&self, fs: &dyn Fs, dir: &Path) -> Result<(), AdoptError> {
        match self {
            Repair::Cut { base, bytes } => {
                let path = dir.join(segment::file_name(*base, SegmentFile::Log));
                tracing::warn!(file = %path.display(), bytes, "cutting off a torn last batch, as Kafka does after a crash");
                let file = fs.open(&path, OpenMode::Write).map_err(at(&path))?;
                fs.set_len(&file, *bytes).and_then(|()| fs.sync_data(&file)).map_err(at(&path))
            }
            Repair::Index { base, index } => {
                for (file, bytes) in
                    [(SegmentFile::Index, index.offset_bytes()), (SegmentFile::TimeIndex, index.time_bytes())]
                {
                    let path = dir.join(segment::file_name(*base, file));
                    fs.replace(&path, &bytes).map_err(at(&path))?;
                }
                Ok(())
            }
        }
    }
}

/// State of one pass over a folder's batches, oldest first.
struct Reading<'a> {
    dir: &'a Path,
    interval_bytes: u32,
    next_offset: Offset,
    segments: Vec<SegmentState>,
    seen_epochs: EpochCache,
    producers: ProducerTable,
    /// First offset of each transaction without a marker so far, by producer.
    open: HashMap<i64, Offset>,
    aborted: Option<(i64, Offset)>,
    repairs: Vec<Repair>,
}

impl<'a> Reading<'a> {
    fn new(dir: &'a Path, interval_bytes: u32) -> Reading<'a> {
        Reading {
            dir,
            interval_bytes,
            next_offset: Offset::ZERO,
            segments: Vec::new(),
            seen_epochs: EpochCache::default(),
            producers: ProducerTable::default(),
            open: HashMap::new(),
            aborted: None,
            repairs: Vec::new(),
        }
    }

    fn segment(&mut self, fs: &dyn Fs, base: Offset, is_last: bool) -> Result<(), AdoptError> {
        let path = self.dir.join(segment::file_name(base, SegmentFile::Log));
        if base < self.next_offset {
            return Err(AdoptError::Overlap { path, base, expected: self.next_offset });
        }
        let file = fs.open(&path, OpenMode::Read).map_err(at(&path))?;
        let file_bytes = fs.len(&file).map_err(at(&path))?;
        let mut index = SegmentIndex::new(base, self.interval_bytes);
        let mut expected = base;
        let mut early = None;
        let verify = Verify::CrcBelow(segment::offsets_end(base));
        let found = segment::scan(fs, &file, 0, file_bytes, verify, |header, position, batch| {
            if header.base_offset < expected {
                early = early.or(Some((position, header.base_offset)));
                return;
            }
            expected = header.next_offset();
            index.append(header, u32::try_from(position).unwrap_or(u32::MAX));
            self.batch(header, batch);
        });
        let found = found.map_err(at(&path))?;
        if let Some((position, offset)) = early {
            let what = format!("its first offset {offset} is below the file's base {base}");
            return Err(AdoptError::Damaged { path, position, what });
        }
        self.check_end(path, &found, is_last, base)?;
        self.next_offset = found.next_offset.unwrap_or(base);
        // An empty segment is Kafka's active one: ours takes over its name when the first batch comes.
        if found.batches == 0 {
            return Ok(());
        }
        let (max_timestamp_ms, offset_of_max) = index.max_timestamp();
        index.finish(max_timestamp_ms, offset_of_max);
        if !self.indexes_serve(fs, base, found.end) {
            self.repairs.push(Repair::Index { base, index: Box::new(index.clone()) });
        }
        self.segments.push(SegmentState {
            base_offset: base.0,
            bytes: found.end,
            max_timestamp_ms,
            offset_of_max_timestamp: offset_of_max.0,
            // Kafka has no such date in its files; retention then goes by timestamps alone.
            created_ms: max_timestamp_ms.max(0),
            index_entries: index.offset_entries(),
            time_entries: index.time_entries(),
            sealed: true,
        });
        Ok(())
    }

    fn check_end(
        &mut self,
        path: PathBuf,
        found: &segment::Scanned,
        is_last: bool,
        base: Offset,
    ) -> Result<(), AdoptError> {
        let damaged = |what: String| AdoptError::Damaged { path: path.clone(), position: found.end, what };
        match found.stop {
            ScanStop::End => Ok(()),
            // `preallocate=true` and an unclean stop leave these behind the last batch.
            ScanStop::Zeros | ScanStop::Torn if is_last => {
                self.repairs.push(Repair::Cut { base, bytes: found.end });
                Ok(())
            }
            ScanStop::Zeros => Err(damaged("zeros in the middle of the partition".to_string())),
            ScanStop::Torn => {
                Err(damaged("the file ends within a batch, and it is not the last segment".to_string()))
            }
            ScanStop::Damaged(ringmill_record::BatchError::OldFormat(magic)) => {
                Err(AdoptError::OldFormat { path: path.clone(), magic })
            }
            ScanStop::Damaged(error) => Err(damaged(error.to_string())),
            ScanStop::Beyond { base, bound } => {
                Err(damaged(format!("offset {base} does not belong to a segment that ends before {bound}")))
            }
            ScanStop::OutOfOrder { base, expected } => {
                Err(damaged(format!("offset {base} where {expected} or more must be")))
            }
        }
    }

    /// The indexes beside the segment can be loaded and point to real places.
    fn indexes_serve(&self, fs: &dyn Fs, base: Offset, bytes: u64) -> bool {
        let read = |file| -> io::Result<Vec<u8>> {
            let path = self.dir.join(segment::file_name(base, file));
            if fs.len(&fs.open(&path, OpenMode::Read)?)? > INDEX_BYTES_MAX {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            fs.read_all(&path)
        };
        let (Ok(offsets), Ok(times)) = (read(SegmentFile::Index), read(SegmentFile::TimeIndex)) else {
            return false;
        };
        SegmentIndex::load(base, self.interval_bytes, &offsets, &times, bytes).is_ok()
    }

    fn batch(&mut self, header: &BatchHeader, batch: &[u8]) {
        if self.seen_epochs.latest().is_none_or(|(latest, _)| latest < header.leader_epoch) {
            self.seen_epochs.assign(header.leader_epoch, header.base_offset);
        }
        if !header.has_producer_id() {
            return;
        }
        let id = header.producer_id.0;
        if header.is_control() {
            let began = self.open.remove(&id);
            self.producers.apply_marker(header.producer_id, header.producer_epoch, header.max_timestamp_ms);
            if let Some(began) = began
                && is_abort(header, batch)
            {
                self.aborted = self.aborted.or(Some((id, began)));
            }
            return;
        }
        if header.is_transactional() {
            self.open.entry(id).or_insert(header.base_offset);
        }
        if header.base_sequence >= 0 {
            self.producers.apply(
                header,
                header.base_offset,
                header.max_timestamp_ms,
                header.max_timestamp_ms,
                0,
            );
        }
    }

    fn check_transactions(&self) -> Result<(), AdoptError> {
        let dir = self.dir.to_path_buf();
        if let Some((producer, first)) = self.open.iter().min_by_key(|(_, first)| **first) {
            return Err(AdoptError::OpenTransaction { dir, producer: *producer, first: *first });
        }
        match self.aborted {
            Some((producer, first)) => Err(AdoptError::AbortedTransaction { dir, producer, first }),
            None => Ok(()),
        }
    }
}

/// The control record says ABORT. Its key: version i16, type i16; 0 aborts, 1 commits.
fn is_abort(header: &BatchHeader, batch: &[u8]) -> bool {
    let record = Records::new(header, batch).ok().and_then(|mut r| r.next()).and_then(Result::ok);
    record.and_then(|r| r.key).and_then(|key| key.get(2..4)) == Some(&[0, 0])
}

/// A handle of the segment that begins at `base`, for reading.
///
/// # Errors
/// What opening gives.
pub fn open_segment(fs: &dyn Fs, dir: &Path, base: Offset) -> io::Result<FileHandle> {
    fs.open(&dir.join(segment::file_name(base, SegmentFile::Log)), OpenMode::Read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::producer::Verdict;
    use crate::testing::{BatchSpec, golden, golden_copy};
    use ringmill_reactor::stdfs::StdFs;
    use ringmill_types::{ErrorCode, LeaderEpoch, TopicId};

    /// As the golden topics were made: `index.interval.bytes=600`.
    const INTERVAL: u32 = 600;

    fn adopted(dir: &Path) -> Result<PartitionState, AdoptError> {
        adopt(&StdFs, dir, PartitionId(77), INTERVAL).map(Option::unwrap)
    }

    fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let names = StdFs.list(dir).unwrap().into_iter().map(|e| e.name);
        names.map(|n| (n.clone(), StdFs.read_all(&dir.join(n)).unwrap())).collect()
    }

    #[test]
    fn a_folder_written_by_kafka_is_taken_over_byte_for_byte() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let before = bytes_of(&dir);
        let state = adopted(&dir).unwrap();
        assert_eq!(bytes_of(&dir), before);
        assert_eq!((state.id, state.topic.as_str(), state.index), (77, "plain", 0));
        assert_eq!(TopicId(state.topic_id).to_base64(), "R8DAjPLHRqmGXFEs1unP6A");
        assert_eq!((state.log_start, state.next_offset), (0, 270));
        assert_eq!(state.epochs, [(0, 0)]);
        let segments: Vec<(i64, u64, bool)> =
            state.segments.iter().map(|s| (s.base_offset, s.bytes, s.sealed)).collect();
        assert_eq!(segments, [(0, 232, true), (3, 6756, true), (165, 4202, true)]);
        assert_eq!(state.producers.len(), 15, "15 idempotent producers wrote it");
    }

    #[test]
    fn our_indexes_over_kafkas_segments_are_kafkas_to_the_byte() {
        let dir = golden("kafka-4.3.1/plain-0");
        for base in [0, 3, 165].map(Offset) {
            let file = open_segment(&StdFs, &dir, base).unwrap();
            let bytes = StdFs.len(&file).unwrap();
            let mut index = segment::rebuild_index(&StdFs, &file, base, INTERVAL, bytes).unwrap();
            let (max, at) = index.max_timestamp();
            index.finish(max, at);
            let kafkas = |file| StdFs.read_all(&dir.join(segment::file_name(base, file))).unwrap();
            assert_eq!(index.offset_bytes(), kafkas(SegmentFile::Index), "index of {base}");
            assert_eq!(index.time_bytes(), kafkas(SegmentFile::TimeIndex), "timeindex of {base}");
        }
    }

    #[test]
    fn producers_go_on_where_they_were() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let state = adopted(&dir).unwrap();
        let table = ProducerTable::restore(&state.producers);
        let newest = state.producers.iter().max_by_key(|p| p.batches.last().unwrap().last_offset).unwrap();
        let last = newest.batches.last().unwrap();
        let spec = |sequence, records| BatchSpec {
            producer: Some((newest.id, newest.epoch, sequence)),
            records,
            ..BatchSpec::default()
        };
        let again = spec(last.first_seq, last.last_seq - last.first_seq + 1);
        assert!(
            matches!(table.check(&again.header()), Verdict::Duplicate { base_offset, .. } if base_offset.0 == last.first_offset)
        );
        assert_eq!(table.check(&spec(last.last_seq + 1, 1).header()), Verdict::Append);
        assert_eq!(
            table.check(&spec(last.last_seq + 2, 1).header()),
            Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber)
        );
    }

    #[test]
    fn committed_transactions_are_kept_with_their_control_batches() {
        let (_home, dir) = golden_copy("kafka-4.3.1/committed-0");
        let state = adopted(&dir).unwrap();
        assert_eq!(state.next_offset, 18, "15 records and 3 markers");
        assert_eq!(state.segments.iter().map(|s| s.bytes).sum::<u64>(), 346 + 936);
    }

    #[test]
    fn open_and_aborted_transactions_are_refused_and_nothing_changes() {
        let (_home, dir) = golden_copy("kafka-4.3.1/open-0");
        let before = bytes_of(&dir);
        let error = adopted(&dir).unwrap_err();
        assert!(matches!(error, AdoptError::OpenTransaction { first: Offset(6), .. }), "{error}");
        assert_eq!(bytes_of(&dir), before);
        let (_home, dir) = golden_copy("kafka-4.3.1/aborted-0");
        let error = adopted(&dir).unwrap_err();
        assert!(matches!(error, AdoptError::AbortedTransaction { first: Offset(6), .. }), "{error}");
    }

    #[test]
    fn missing_and_wrong_indexes_are_written_anew() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let before = bytes_of(&dir);
        StdFs.remove_file(&dir.join("00000000000000000003.index")).unwrap();
        let wrong = StdFs.open(&dir.join("00000000000000000165.timeindex"), OpenMode::Write).unwrap();
        StdFs.write_at(&wrong, &[0xff; 12], 0).unwrap();
        adopted(&dir).unwrap();
        assert_eq!(bytes_of(&dir), before);
    }

    #[test]
    fn a_torn_last_batch_is_cut_off_and_a_torn_middle_refused() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let last = StdFs.open(&dir.join("00000000000000000165.log"), OpenMode::Write).unwrap();
        StdFs.set_len(&last, 4202 - 3).unwrap();
        let state = adopted(&dir).unwrap();
        let segment = state.segments.last().unwrap();
        assert!(segment.bytes < 4199);
        assert_eq!(StdFs.len(&last).unwrap(), segment.bytes);
        assert!(state.next_offset < 270);
        assert_eq!(adopted(&dir).unwrap(), state, "a second look finds the same");
        let middle = StdFs.open(&dir.join("00000000000000000003.log"), OpenMode::Write).unwrap();
        StdFs.set_len(&middle, 6756 - 3).unwrap();
        assert!(matches!(adopted(&dir).unwrap_err(), AdoptError::Damaged { .. }));
    }

    #[test]
    fn damage_overlaps_old_formats_and_half_swaps_are_refused() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let path = dir.join("00000000000000000003.log");
        let file = StdFs.open(&path, OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[0xee], 500).unwrap();
        assert!(matches!(adopted(&dir).unwrap_err(), AdoptError::Damaged { .. }));
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        StdFs.rename(&dir.join("00000000000000000165.log"), &dir.join("00000000000000000100.log")).unwrap();
        assert!(matches!(adopted(&dir).unwrap_err(), AdoptError::Overlap { expected: Offset(165), .. }));
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        StdFs
            .rename(&dir.join("00000000000000000165.log"), &dir.join("00000000000000000165.log.swap"))
            .unwrap();
        assert!(matches!(adopted(&dir).unwrap_err(), AdoptError::HalfSwapped { .. }));
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        let file = StdFs.open(&dir.join("00000000000000000000.log"), OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[1], 16).unwrap();
        assert!(matches!(adopted(&dir).unwrap_err(), AdoptError::OldFormat { magic: 1, .. }));
    }

    #[test]
    fn compacted_segments_with_gaps_are_fine() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("compacted-7");
        StdFs.create_dir_all(&dir).unwrap();
        let mut holed = BatchSpec { base_offset: 10, records: 5, epoch: 3, ..BatchSpec::default() }.bytes();
        holed[57..61].copy_from_slice(&2i32.to_be_bytes());
        crate::testing::seal(&mut holed);
        let later = BatchSpec { base_offset: 40, epoch: 5, ..BatchSpec::default() }.bytes();
        let file = StdFs.open(&dir.join("00000000000000000010.log"), OpenMode::Create).unwrap();
        StdFs.write_at(&file, &[holed, later].concat(), 0).unwrap();
        let state = adopted(&dir).unwrap();
        assert_eq!((state.log_start, state.next_offset, state.index), (10, 41, 7));
        assert_eq!(state.epochs, [(3, 10), (5, 40)], "from the batches where there is no epoch file");
        assert!(StdFs.exists(&dir.join("00000000000000000010.index")));
    }

    #[test]
    fn folders_are_found_by_name_and_metadata() {
        let home = tempfile::tempdir().unwrap();
        for name in ["a-b-3", "x-0.00000000000000aa-delete", "lost+found", "noindex"] {
            StdFs.create_dir_all(&home.path().join(name)).unwrap();
        }
        let id = TopicId([9; 16]);
        StdFs
            .replace(&home.path().join("a-b-3").join(METADATA_NAME), partition_metadata_text(id).as_bytes())
            .unwrap();
        StdFs.replace(&home.path().join("a-b-3").join(EPOCHS_NAME), b"0\n1\n4 0\n").unwrap();
        let found = find_folders(&StdFs, home.path()).unwrap();
        assert_eq!(found.len(), 1);
        let folder = found.first().unwrap();
        assert_eq!((folder.topic.as_str(), folder.index), ("a-b", 3));
        assert_eq!((folder.topic_id, folder.latest_epoch), (Some(id), Some(LeaderEpoch(4))));
        assert_eq!(
            adopt(&StdFs, &folder.dir, PartitionId(1), 4096).unwrap(),
            None,
            "no segment, nothing to adopt"
        );
    }

    #[test]
    fn folders_add_up_to_topics() {
        let folder = |topic: &str, index, id: Option<u8>, epoch: Option<i32>| FoundFolder {
            dir: PathBuf::from(format!("{topic}-{index}")),
            topic: topic.to_string(),
            index,
            topic_id: id.map(|id| TopicId([id; 16])),
            latest_epoch: epoch.map(LeaderEpoch),
        };
        let found =
            [folder("b", 3, Some(1), Some(2)), folder("a", 0, None, None), folder("b", 1, None, Some(7))];
        let topics = group_topics(&found).unwrap();
        let names: Vec<&str> = topics.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let b = topics.last().unwrap();
        assert_eq!((b.id, b.partitions, b.latest_epoch), (Some(TopicId([1; 16])), 4, Some(LeaderEpoch(7))));
        assert_eq!(b.missing, [0, 2], "made empty");
        let two = [folder("a", 0, Some(1), None), folder("a", 1, Some(2), None)];
        assert!(matches!(group_topics(&two).unwrap_err(), AdoptError::TwoTopicIds { .. }));
        let far = [folder("a", i32::MAX, None, None)];
        assert!(matches!(group_topics(&far).unwrap_err(), AdoptError::PartitionNumber { .. }));
    }

    #[test]
    fn an_empty_active_segment_keeps_the_offsets_and_no_file() {
        let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
        StdFs.open(&dir.join("00000000000000000270.log"), OpenMode::Create).unwrap();
        let state = adopted(&dir).unwrap();
        assert_eq!((state.segments.len(), state.next_offset), (3, 270));
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("retained-0");
        StdFs.create_dir_all(&dir).unwrap();
        let file = StdFs.open(&dir.join("00000000000000000500.log"), OpenMode::Create).unwrap();
        StdFs.set_len(&file, 4096).unwrap();
        let state = adopted(&dir).unwrap();
        assert_eq!((state.log_start, state.next_offset, state.segments.len()), (500, 500, 0));
        assert_eq!(StdFs.len(&file).unwrap(), 0, "allocated room is cut off");
    }

    #[test]
    fn repairs_may_be_cut_off_and_are_done_at_the_next_start() {
        for changes in 0.. {
            let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
            StdFs.remove_file(&dir.join("00000000000000000003.index")).unwrap();
            let last = StdFs.open(&dir.join("00000000000000000165.log"), OpenMode::Write).unwrap();
            StdFs.set_len(&last, 4202 - 3).unwrap();
            let fuse = crate::testing::FuseFs::new(changes);
            let done = adopt(&fuse, &dir, PartitionId(77), INTERVAL).is_ok();
            let state = adopted(&dir).unwrap();
            assert_eq!((state.segments.len(), state.log_start), (3, 0));
            assert_eq!(StdFs.len(&last).unwrap(), state.segments.last().unwrap().bytes);
            if done {
                break;
            }
        }
    }

    #[test]
    fn metadata_text_is_kafkas() {
        let kafkas = StdFs.read_all(&golden("kafka-4.3.1/plain-0").join(METADATA_NAME)).unwrap();
        let id = parse_partition_metadata(std::str::from_utf8(&kafkas).unwrap()).unwrap();
        assert_eq!(partition_metadata_text(id).as_bytes(), kafkas);
        for wrong in [
            "",
            "version: 1\ntopic_id: R8DAjPLHRqmGXFEs1unP6A",
            "version: 0\n",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(parse_partition_metadata(wrong), None, "{wrong:?}");
        }
    }
}
