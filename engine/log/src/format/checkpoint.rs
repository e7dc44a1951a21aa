//! The checkpoint: what of a core's partitions is in segments and synced, and where in the core log replay begins.
//!
//! Two slots, `checkpoint-a` and `checkpoint-b`, written in turn, so a torn write costs the newer one only. Each:
//!
//! ```text
//!  0 magic u32 | 4 schema u32 | 8 version u32 | 12 length u64 | 20 crc32c u32 | 24 rkyv archive, `length` bytes | old bytes
//! ```
//! Little-endian; the CRC covers bytes 0..20 and the archive. The archive's layout is pinned by rkyv's version and
//! features in the workspace manifest and by `tests/golden/checkpoint-v1.bin`. Guarantees: a slot is rewritten only
//! while the other holds the newer state; both are valid once the first write returned, so "both unreadable" always
//! means damage and "one never written" always means that no group was ever acked. Never read from anything but disk.

use super::{put, u32_at, u64_at};
use ringmill_reactor::{FileHandle, Fs, OpenMode, is_full};
use rkyv::rancor::Error as ArchiveError;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// "RMCP" in file order.
pub const CHECKPOINT_MAGIC: u32 = u32::from_le_bytes(*b"RMCP");
/// Which archive this is; other private snapshots use other numbers.
pub const CHECKPOINT_SCHEMA: u32 = 1;
pub const CHECKPOINT_VERSION: u32 = 1;
pub const ENVELOPE_BYTES: usize = 24;
pub const SLOT_NAMES: [&str; 2] = ["checkpoint-a", "checkpoint-b"];
/// In the data folder: what old cores hand to new ones when their number changes, as one checkpoint.
pub const HANDED_ON_NAME: &str = "handed-on";

/// A slot is never smaller, so that small brokers never extend one.
const SLOT_BYTES_MIN: u64 = 64 << 10;
/// A larger one is damaged: 200,000 partitions with full producer tables stay below.
const ARCHIVE_BYTES_MAX: u64 = 1 << 30;

/// Everything a core knows beyond its core log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Grows by one with every checkpoint; its parity chooses the slot.
    pub sequence: u64,
    /// Incarnation and first group of each life whose groups may still be needed, oldest first.
    pub lives: Vec<(u128, u64)>,
    pub core: u16,
    /// Replay begins here, with group `next_group`, whose header repeats `prev_header_crc`.
    pub start_file: u32,
    pub start_offset: u64,
    pub next_group: u64,
    pub prev_header_crc: u32,
    /// Highest group known durable; `next_group <= durable_group + 1`.
    pub durable_group: u64,
    /// Written by an orderly stop: nothing is to be replayed, and files end where their batches do.
    pub clean: bool,
    pub partitions: Vec<PartitionState>,
}

/// One partition as its segments hold it. `log_start <= next_offset`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    pub id: u64,
    pub topic: String,
    pub topic_id: [u8; 16],
    pub index: i32,
    pub log_start: i64,
    /// End of what is in segments and synced.
    pub next_offset: i64,
    /// Leader epoch and its first offset, both growing.
    pub epochs: Vec<(i32, i64)>,
    /// In base-offset order; only the last may be unsealed.
    pub segments: Vec<SegmentState>,
    pub producers: Vec<ProducerState>,
    pub max_timestamp_ms: i64,
}

/// One segment; sizes count batches, not what is allocated.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    pub base_offset: i64,
    pub bytes: u64,
    pub max_timestamp_ms: i64,
    pub offset_of_max_timestamp: i64,
    pub created_ms: i64,
    pub index_entries: u32,
    pub time_entries: u32,
    pub sealed: bool,
}

/// An idempotent producer and its newest batches, oldest first.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    pub id: i64,
    pub epoch: i16,
    pub last_ms: i64,
    pub batches: Vec<ProducerBatch>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerBatch {
    pub first_seq: i32,
    pub last_seq: i32,
    pub first_offset: i64,
    pub last_offset: i64,
    pub timestamp_ms: i64,
}

/// Why a checkpoint cannot be read.
#[derive(Debug)]
pub enum CheckpointError {
    /// No magic, or cut off.
    NotOne,
    /// Written by a newer version, or another kind of snapshot.
    Newer {
        schema: u32,
        version: u32,
    },
    Length(u64),
    Crc,
    /// CRC intact, archive not: a bug or a forgery, never a torn write.
    Archive(String),
    Io(io::Error),
    /// No slot is readable although both were once.
    BothSlots(String, String),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::NotOne => f.write_str("not a checkpoint"),
            CheckpointError::Newer { schema, version } => write!(
                f,
                "schema {schema} version {version}, where this version knows up to {CHECKPOINT_SCHEMA} and {CHECKPOINT_VERSION}; \
                 it was written by a newer version: run that"
            ),
            CheckpointError::Length(length) => write!(f, "a length of {length} bytes does not fit"),
            CheckpointError::Crc => f.write_str("the CRC does not match"),
            CheckpointError::Archive(what) => write!(f, "the archive is malformed: {what}"),
            CheckpointError::Io(error) => error.fmt(f),
            CheckpointError::BothSlots(a, b) => write!(f, "checkpoint-a: {a}; checkpoint-b: {b}"),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<io::Error> for CheckpointError {
    fn from(error: io::Error) -> CheckpointError {
        CheckpointError::Io(error)
    }
}

/// Envelope and archive.
pub fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let archive = rkyv::to_bytes::<ArchiveError>(checkpoint).expect(
        "serializing owned data into memory fails only above 2 GiB, and partitions are bounded far below",
    );
    let mut out = vec![0; ENVELOPE_BYTES];
    put(&mut out, 0, CHECKPOINT_MAGIC.to_le_bytes());
    put(&mut out, 4, CHECKPOINT_SCHEMA.to_le_bytes());
    put(&mut out, 8, CHECKPOINT_VERSION.to_le_bytes());
    put(&mut out, 12, (archive.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(out.get(..20).unwrap_or_default()), &archive);
    put(&mut out, 20, crc.to_le_bytes());
    out.extend_from_slice(&archive);
    out
}

/// Reads what [`encode`] wrote; bytes after it are ignored, because a slot keeps the tail of longer, older contents.
///
/// # Errors
/// [`CheckpointError`].
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let length = archive_bytes(bytes)?;
    let end = usize::try_from(length).ok().and_then(|l| l.checked_add(ENVELOPE_BYTES));
    let archive =
        end.and_then(|end| bytes.get(ENVELOPE_BYTES..end)).ok_or(CheckpointError::Length(length))?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(bytes.get(..20).unwrap_or_default()), archive);
    if u32_at(bytes, 20) != Some(crc) {
        return Err(CheckpointError::Crc);
    }
    // The archive is checked in full before any of it is used.
    rkyv::from_bytes::<Checkpoint, ArchiveError>(archive).map_err(|e| CheckpointError::Archive(e.to_string()))
}

/// Length field of an envelope whose magic, schema and version are ours.
fn archive_bytes(bytes: &[u8]) -> Result<u64, CheckpointError> {
    if u32_at(bytes, 0) != Some(CHECKPOINT_MAGIC) {
        return Err(CheckpointError::NotOne);
    }
    let (schema, version, length) = (u32_at(bytes, 4).zip(u32_at(bytes, 8)).zip(u64_at(bytes, 12)))
        .map(|((s, v), l)| (s, v, l))
        .ok_or(CheckpointError::NotOne)?;
    if schema > CHECKPOINT_SCHEMA || version > CHECKPOINT_VERSION {
        return Err(CheckpointError::Newer { schema, version });
    }
    if (schema, version) != (CHECKPOINT_SCHEMA, CHECKPOINT_VERSION) {
        return Err(CheckpointError::NotOne);
    }
    if length > ARCHIVE_BYTES_MAX {
        return Err(CheckpointError::Length(length));
    }
    Ok(length)
}

/// Which slot a checkpoint goes to.
pub fn slot_of(sequence: u64) -> usize {
    usize::from(sequence.is_multiple_of(2))
}

fn slot_path(dir: &Path, slot: usize) -> PathBuf {
    dir.join(SLOT_NAMES.get(slot).copied().unwrap_or("checkpoint-a"))
}

/// Writes and syncs the slot that `checkpoint.sequence` chooses; on return it survives a power cut.
///
/// The first write of a folder makes both slots, and fills both.
///
/// # Errors
/// Whatever the file system says; the other slot is as it was.
pub fn write_slot(fs: &dyn Fs, dir: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let bytes = encode(checkpoint);
    let target = slot_of(checkpoint.sequence);
    let mut made = false;
    let mut open = |slot: usize| -> io::Result<FileHandle> {
        let path = slot_path(dir, slot);
        made |= !fs.exists(&path);
        fs.open(&path, OpenMode::Create)
    };
    let (file, other) = (open(target)?, open(1 - target)?);
    reserve(fs, &file, bytes.len() as u64)?;
    reserve(fs, &other, bytes.len() as u64)?;
    if made {
        fs.sync_data(&other)?;
        fs.sync_data(&file)?;
        fs.sync_dir(dir)?;
    }
    fs.write_at(&file, &bytes, 0)?;
    fs.sync_data(&file)?;
    if never_written(fs, &other)? {
        fs.write_at(&other, &bytes, 0)?;
        fs.sync_data(&other)?;
    }
    Ok(())
}

/// The first slot that a start writes, under a new file that takes the old one's name once it is durable.
///
/// The newest slot may have been read from the page cache only: a life whose sync of it failed leaves it there, and the
/// disk may not have it. The other slot is the only one that is sure then, and writing over it in place could tear it.
/// Only a disk without room for another file gets it written in place.
///
/// # Errors
/// Whatever the file system says; both slots are as they were.
pub fn replace_slot(fs: &dyn Fs, dir: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let path = slot_path(dir, slot_of(checkpoint.sequence));
    if !fs.exists(&path) {
        return write_slot(fs, dir, checkpoint);
    }
    match fs.replace(&path, &encode(checkpoint)) {
        Err(error) if is_full(&error) => {
            // It would hold the room that the slot needs, if it could be made at all.
            match fs.remove_file(&path.with_extension("tmp")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => write_slot(fs, dir, checkpoint),
            }
        }
        other => other,
    }
}

/// Makes room for twice what is needed, so that a disk that fills up later does not stop checkpoints at once.
fn reserve(fs: &dyn Fs, file: &FileHandle, need_bytes: u64) -> io::Result<()> {
    let have = fs.len(file)?;
    let want = (need_bytes * 2).next_power_of_two().max(SLOT_BYTES_MIN);
    if have >= want {
        return Ok(());
    }
    match fs.allocate(file, 0, want) {
        Err(_) if have >= need_bytes => Ok(()),
        other => other,
    }
}

fn never_written(fs: &dyn Fs, file: &FileHandle) -> io::Result<bool> {
    let mut head = [0; ENVELOPE_BYTES];
    fs.read_at(file, &mut head, 0)?;
    Ok(head.iter().all(|b| *b == 0))
}

/// What one slot holds.
#[derive(Debug)]
pub enum Slot {
    /// No file, or one that nothing was ever written to.
    Empty,
    Valid(Box<Checkpoint>),
    Damaged(CheckpointError),
}

/// Reads one slot.
pub fn read_slot(fs: &dyn Fs, path: &Path) -> Slot {
    match try_slot(fs, path) {
        Ok(Some(checkpoint)) => Slot::Valid(Box::new(checkpoint)),
        Ok(None) => Slot::Empty,
        Err(error) => Slot::Damaged(error),
    }
}

fn try_slot(fs: &dyn Fs, path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    if !fs.exists(path) {
        return Ok(None);
    }
    let file = fs.open(path, OpenMode::Read)?;
    if never_written(fs, &file)? {
        return Ok(None);
    }
    let mut head = [0; ENVELOPE_BYTES];
    let got = fs.read_at(&file, &mut head, 0)?;
    let length = archive_bytes(head.get(..got).unwrap_or_default())?;
    // The length field buys memory only as far as the file is that long.
    if length > fs.len(&file)?.saturating_sub(ENVELOPE_BYTES as u64) {
        return Err(CheckpointError::Length(length));
    }
    let mut bytes = vec![0; ENVELOPE_BYTES + length as usize];
    let got = fs.read_at(&file, &mut bytes, 0)?;
    bytes.truncate(got);
    decode(&bytes).map(Some)
}

/// Refuses a slot of a newer version; looks at nothing else of either.
///
/// # Errors
/// [`CheckpointError::Newer`], [`CheckpointError::Io`].
pub(crate) fn check_known(fs: &dyn Fs, path: &Path) -> Result<(), CheckpointError> {
    if !fs.exists(path) {
        return Ok(());
    }
    let mut head = [0; ENVELOPE_BYTES];
    let got = fs.read_at(&fs.open(path, OpenMode::Read)?, &mut head, 0)?;
    match archive_bytes(head.get(..got).unwrap_or_default()) {
        Err(newer @ CheckpointError::Newer { .. }) => Err(newer),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The newer of the readable slots; `None` when the folder never had a complete first checkpoint.
///
/// # Errors
/// [`CheckpointError::BothSlots`] when both were written once and neither can be read: that is damage, because only
/// one is ever being written. A slot of a newer version is an error at once: the other one is then stale.
pub fn read_newest(fs: &dyn Fs, dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let slots = (read_slot(fs, &slot_path(dir, 0)), read_slot(fs, &slot_path(dir, 1)));
    if let (Slot::Valid(_), Slot::Damaged(error)) | (Slot::Damaged(error), Slot::Valid(_)) = &slots {
        let damaged = slot_path(dir, usize::from(matches!(slots.0, Slot::Valid(_))));
        tracing::warn!(
            path = %damaged.display(), %error,
            "a checkpoint slot cannot be read: cut off by a power cut, or damaged; the other one is used"
        );
    }
    match slots {
        (Slot::Damaged(error @ (CheckpointError::Newer { .. } | CheckpointError::Io(_))), _)
        | (_, Slot::Damaged(error @ (CheckpointError::Newer { .. } | CheckpointError::Io(_)))) => Err(error),
        (Slot::Valid(a), Slot::Valid(b)) => Ok(Some(if a.sequence >= b.sequence { *a } else { *b })),
        (Slot::Valid(only), Slot::Empty | Slot::Damaged(_))
        | (Slot::Empty | Slot::Damaged(_), Slot::Valid(only)) => Ok(Some(*only)),
        // The very first write was cut off: nothing was acked before it returned.
        (Slot::Empty, Slot::Empty) => Ok(None),
        (Slot::Damaged(_), Slot::Empty) if fs.exists(&slot_path(dir, 1)) => Ok(None),
        (Slot::Empty, Slot::Damaged(_)) if fs.exists(&slot_path(dir, 0)) => Ok(None),
        (Slot::Damaged(a), Slot::Empty) => {
            Err(CheckpointError::BothSlots(a.to_string(), "missing".to_string()))
        }
        (Slot::Empty, Slot::Damaged(b)) => {
            Err(CheckpointError::BothSlots("missing".to_string(), b.to_string()))
        }
        (Slot::Damaged(a), Slot::Damaged(b)) => Err(CheckpointError::BothSlots(a.to_string(), b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use ringmill_reactor::stdfs::StdFs;

    fn sample(sequence: u64) -> Checkpoint {
        let segment = |base_offset, sealed| SegmentState {
            base_offset,
            bytes: 4321,
            max_timestamp_ms: 1_700_000_000_123,
            offset_of_max_timestamp: base_offset + 3,
            created_ms: 1_700_000_000_000,
            index_entries: 2,
            time_entries: 1,
            sealed,
        };
        let batch =
            ProducerBatch { first_seq: 0, last_seq: 4, first_offset: 10, last_offset: 14, timestamp_ms: 77 };
        Checkpoint {
            sequence,
            lives: vec![(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 1), (u128::MAX, 900)],
            core: 3,
            start_file: 1,
            start_offset: 8192,
            next_group: 1000,
            prev_header_crc: 0x1234_5678,
            durable_group: 1007,
            clean: false,
            partitions: vec![PartitionState {
                id: 11,
                topic: "orders".to_string(),
                topic_id: *b"0123456789abcdef",
                index: 2,
                log_start: 5,
                next_offset: 100,
                epochs: vec![(0, 0), (3, 50)],
                segments: vec![segment(0, true), segment(60, false)],
                producers: vec![ProducerState { id: 9000, epoch: 1, last_ms: 99, batches: vec![batch; 2] }],
                max_timestamp_ms: 1_700_000_000_123,
            }],
        }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn flip(path: &Path, at: u64) {
        let file = StdFs.open(path, OpenMode::Write).unwrap();
        let mut byte = [0];
        StdFs.read_at(&file, &mut byte, at).unwrap();
        StdFs.write_at(&file, &[byte[0] ^ 0x40], at).unwrap();
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        crate::testing::check_golden("checkpoint-v1.bin", &encode(&sample(7)));
        let golden = std::fs::read(crate::testing::golden("checkpoint-v1.bin")).unwrap();
        assert_eq!(decode(&golden).unwrap(), sample(7));
    }

    #[test]
    fn newest_slot_wins_and_slots_alternate() {
        let dir = folder();
        for sequence in 1..=5 {
            write_slot(&StdFs, dir.path(), &sample(sequence)).unwrap();
            assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap().sequence, sequence);
        }
    }

    #[test]
    fn a_torn_slot_falls_back_to_the_other() {
        let dir = folder();
        for sequence in 1..=4 {
            write_slot(&StdFs, dir.path(), &sample(sequence)).unwrap();
        }
        flip(&slot_path(dir.path(), slot_of(4)), 60);
        assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap(), sample(3));
        // The next write goes over the torn one, never over the only good one.
        write_slot(&StdFs, dir.path(), &sample(4)).unwrap();
        assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap(), sample(4));
    }

    #[test]
    fn both_slots_damaged_is_an_error_from_the_first_write_on() {
        let dir = folder();
        write_slot(&StdFs, dir.path(), &sample(1)).unwrap();
        flip(&slot_path(dir.path(), 0), 30);
        assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap(), sample(1));
        flip(&slot_path(dir.path(), 1), 30);
        assert!(matches!(read_newest(&StdFs, dir.path()), Err(CheckpointError::BothSlots(..))));
    }

    #[test]
    fn a_first_write_that_was_cut_off_is_no_checkpoint() {
        let dir = folder();
        assert!(read_newest(&StdFs, dir.path()).unwrap().is_none());
        write_slot(&StdFs, dir.path(), &sample(1)).unwrap();
        let other = StdFs.open(&slot_path(dir.path(), 1), OpenMode::Write).unwrap();
        StdFs.set_len(&other, 0).unwrap();
        flip(&slot_path(dir.path(), 0), 40);
        assert!(read_newest(&StdFs, dir.path()).unwrap().is_none());
        // With the second slot gone altogether it is damage: both exist before either is written.
        StdFs.remove_file(&slot_path(dir.path(), 1)).unwrap();
        assert!(matches!(read_newest(&StdFs, dir.path()), Err(CheckpointError::BothSlots(..))));
    }

    /// A folder at `sequence`, its last checkpoint written under a fuse; whether that write returned.
    fn cut_at(sequence: u64, changes: u32) -> (tempfile::TempDir, bool) {
        let dir = folder();
        for before in 1..sequence {
            write_slot(&StdFs, dir.path(), &sample(before)).unwrap();
        }
        let done = write_slot(&crate::testing::FuseFs::new(changes), dir.path(), &sample(sequence)).is_ok();
        (dir, done)
    }

    #[test]
    fn a_write_may_be_cut_off_anywhere() {
        for sequence in 1..=4 {
            for changes in 0.. {
                let (dir, done) = cut_at(sequence, changes);
                let found = read_newest(&StdFs, dir.path()).unwrap().map_or(0, |c| c.sequence);
                let allowed = if done { sequence..=sequence } else { sequence - 1..=sequence };
                assert!(allowed.contains(&found), "sequence {sequence}, {changes} changes: found {found}");
                // The next life writes on top of what it found.
                write_slot(&StdFs, dir.path(), &sample(found + 1)).unwrap();
                assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap().sequence, found + 1);
                if done {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_newer_version_is_refused_even_beside_an_older_slot() {
        let dir = folder();
        write_slot(&StdFs, dir.path(), &sample(1)).unwrap();
        write_slot(&StdFs, dir.path(), &sample(2)).unwrap();
        let path = slot_path(dir.path(), slot_of(2));
        let mut bytes = StdFs.read_all(&path).unwrap();
        bytes[8] = 2;
        let file = StdFs.open(&path, OpenMode::Write).unwrap();
        StdFs.write_at(&file, &bytes, 0).unwrap();
        assert!(matches!(read_newest(&StdFs, dir.path()), Err(CheckpointError::Newer { version: 2, .. })));
    }

    #[test]
    fn slots_grow_and_shrink_with_their_content() {
        let dir = folder();
        let mut large = sample(1);
        large.partitions = vec![large.partitions[0].clone(); 2000];
        let small_bytes = SLOT_BYTES_MIN;
        write_slot(&StdFs, dir.path(), &sample(1)).unwrap();
        let path = slot_path(dir.path(), 0);
        assert_eq!(StdFs.len(&StdFs.open(&path, OpenMode::Read).unwrap()).unwrap(), small_bytes);
        large.sequence = 3;
        write_slot(&StdFs, dir.path(), &large).unwrap();
        assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap(), large);
        write_slot(&StdFs, dir.path(), &sample(5)).unwrap();
        assert_eq!(read_newest(&StdFs, dir.path()).unwrap().unwrap(), sample(5));
    }

    #[test]
    fn a_length_beyond_the_file_allocates_nothing() {
        let dir = folder();
        let mut bytes = encode(&sample(1));
        bytes[12..20].copy_from_slice(&ARCHIVE_BYTES_MAX.to_le_bytes());
        let path = slot_path(dir.path(), 0);
        let file = StdFs.open(&path, OpenMode::Create).unwrap();
        StdFs.write_at(&file, &bytes, 0).unwrap();
        assert!(matches!(read_slot(&StdFs, &path), Slot::Damaged(CheckpointError::Length(_))));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(at in 0usize..2000, bit in 0u8..8) {
            let mut bytes = encode(&sample(9));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_archives_under_a_good_crc_never_panic(
            archive in proptest::collection::vec(any::<u8>(), 0..2000), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..20),
            from_sample: bool,
        ) {
            let mut archive = if from_sample { encode(&sample(9))[ENVELOPE_BYTES..].to_vec() } else { archive };
            for (at, byte) in flips {
                let len = archive.len();
                if len > 0 {
                    archive[at % len] = byte;
                }
            }
            let mut bytes = encode(&Checkpoint::default())[..ENVELOPE_BYTES].to_vec();
            bytes[12..20].copy_from_slice(&(archive.len() as u64).to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &archive);
            bytes[20..24].copy_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&archive);
            let _ = decode(&bytes);
        }
    }
}
