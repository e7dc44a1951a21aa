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
use ringmill_reactor::{FileHandle, Fs, OpenMode};
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
    /// Written by a newer program, or another kind of snapshot.
    Version {
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
            CheckpointError::Version { schema, version } => write!(
                f,
                "schema {schema} version {version}; this program reads {CHECKPOINT_SCHEMA} version {CHECKPOINT_VERSION}"
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
    if (schema, version) != (CHECKPOINT_SCHEMA, CHECKPOINT_VERSION) {
        return Err(CheckpointError::Version { schema, version });
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

/// The newer of the readable slots; `None` when the folder never had a complete first checkpoint.
///
/// # Errors
/// [`CheckpointError::BothSlots`] when both were written once and neither can be read: that is damage, because only
/// one is ever being written. A slot of a newer version is an error at once: the other one is then stale.
pub fn read_newest(fs: &dyn Fs, dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    match (read_slot(fs, &slot_path(dir, 0)), read_slot(fs, &slot_path(dir, 1))) {
        (Slot::Damaged(error @ (CheckpointError::Version { .. } | CheckpointError::Io(_))), _)
        | (_, Slot::Damaged(error @ (CheckpointError::Version { .. } | CheckpointError::Io(_)))) => {
            Err(error)
        }
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
